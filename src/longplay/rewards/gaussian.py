"""Gaussian mathematics of progressive feedback: a prior over items, and closed-form posteriors from
prefixes.

The model (Maystre, Russo & Zhao, arXiv 2307.09943, 2501.07761): the traces of an item's entries
have the mean z ~ N(mu, Sigma); one entry's trace is z + N(0, V). An entry of age m shows its first
m coordinates.

Everything below works in *whitened* coordinates. With V = K K' (Cholesky), the first m coordinates
of K^-1 y depend on the first m coordinates of y only, and have independent unit noise. So "the
inverse of V[:m, :m] for every observed length m" becomes "count who has seen coordinate c": a
posterior is a Bayesian linear regression with unit noise, whatever mixture of ages the entries
have.

Axes: I items, N entries, G groups of entries, C coordinates of the trace, R rank of Sigma.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, stats

from longplay.arrays import Float
from longplay.errors import DataError

# where nothing separates items from noise (one item, or one entry per item), this share of the
# variance is taken to lie between items: beliefs stay unsure and do not claim that items are alike
ASSUMED_BETWEEN = 0.1


@dataclass(frozen=True, eq=False)
class Prior:
    """The Gaussian prior learnt from past items: z_item ~ N(mu, sigma), trace ~ N(z_item, noise),
    outcome = target'trace.

    Attributes:
        mu_C: mean trace.
        sigma_CC: covariance between items (PSD).
        noise_CC: within items (positive definite).
        target_C: the outcome is target'trace: ones for a sum of days, the last unit vector for an
            indicator.
    """

    mu_C: Float
    sigma_CC: Float
    noise_CC: Float
    target_C: Float

    @cached_property
    def whitener(self) -> Float:
        """K^-1 with noise = K K', lower triangular, [C, C]."""
        chol_CC = np.linalg.cholesky(self.noise_CC)
        return linalg.solve_triangular(chol_CC, np.eye(len(chol_CC)), lower=True)

    @cached_property
    def loading(self) -> Float:
        """K^-1 L with sigma = L L': how an item's R independent N(0, 1) traits move its whitened
        trace, [C, R]."""
        values, vectors = np.linalg.eigh(self.whitener @ self.sigma_CC @ self.whitener.T)
        keep = values > max(values.max(initial=0.0), 0.0) * 1e-9
        return vectors[:, keep] * np.sqrt(values[keep])

    @cached_property
    def white_mu(self) -> Float:
        """K^-1 mu, [C]."""
        return self.whitener @ self.mu_C

    @cached_property
    def white_target(self) -> Float:
        """K'target: target'y = white_target'(K^-1 y)."""
        return np.linalg.cholesky(self.noise_CC).T @ self.target_C

    @cached_property
    def outer(self) -> Float:
        """The precision that one observation of coordinate c adds to an item's traits, [C, R,
        R]."""
        return self.loading[:, :, None] * self.loading[:, None, :]

    @property
    def outcome(self) -> tuple[float, float, float]:
        """Mean, between-item std and within-item std of the outcome."""
        t = self.target_C
        return (
            float(t @ self.mu_C),
            float(np.sqrt(max(t @ self.sigma_CC @ t, 0.0))),
            float(np.sqrt(t @ self.noise_CC @ t)),
        )


def posterior(
    mu_C: Float, sigma_CC: Float, noise_CC: Float, n_by_length: Float, sum_by_length: Float
) -> tuple[Float, Float]:
    """Mean [C] and covariance [C, C] of one item's mean trace, given prefixes of its entries'
    traces.

    `n_by_length[m]` entries were observed for m coordinates (m = 0..C) and their prefixes add up to
    `sum_by_length[m]` (shape [C+1, C]; what lies beyond the prefix is ignored). Equal to
    conditioning the joint Gaussian of everything; cost C^3, whatever the number of entries.

    >>> one = np.ones((1, 1))
    >>> mean, cov = posterior(np.zeros(1), one, one, np.array([0, 3]), np.array([[0.0], [6.0]]))   # 3 entries, sum 6
    >>> mean.tolist(), cov.tolist()        # precision 1 + 3, mean 6 / 4
    ([1.5], [[0.25]])
    """
    prior = Prior(mu_C, sigma_CC, noise_CC, np.ones(len(mu_C)))
    length_G = np.arange(len(mu_C) + 1)
    count_C, white_C = summarise(prior, sum_by_length, n_by_length, length_G, np.array([0]))
    trait_IR, cov_IRR = traits(prior, count_C, white_C)
    factor_CR: Float = np.linalg.cholesky(noise_CC) @ prior.loading
    return np.asarray(mu_C + factor_CR @ trait_IR[0]), np.asarray(
        factor_CR @ cov_IRR[0] @ factor_CR.T, dtype=float
    )


def summarise(
    prior: Prior,
    sum_GC: Float,
    n_G: Float,
    length_G: NDArray[np.int64],
    starts_I: NDArray[np.int64],
) -> tuple[Float, Float]:
    """Sufficient statistics per item, from sums over groups of equal item and observed length.

    Groups are ordered by item, item i begins at `starts_I[i]`. Returns count_IC (entries that have
    seen coordinate c) and white_IC (their whitened coordinate c, summed).
    """
    seen_GC = np.arange(len(prior.mu_C)) < length_G[:, None]
    white_GC = np.where(seen_GC, (sum_GC * seen_GC) @ prior.whitener.T, 0.0)
    count_IC = np.add.reduceat(np.where(seen_GC, n_G[:, None], 0.0), starts_I, axis=0)
    return count_IC, np.asarray(np.add.reduceat(white_GC, starts_I, axis=0), dtype=float)


def traits(prior: Prior, count_IC: Float, white_IC: Float) -> tuple[Float, Float]:
    """Posterior mean [I, R] and covariance [I, R, R] of items' traits (prior N(0, identity))."""
    rank = prior.loading.shape[1]
    precision_IRR = np.eye(rank) + (count_IC @ prior.outer.reshape(len(prior.mu_C), -1)).reshape(
        -1, rank, rank
    )
    cov_IRR: Float = np.linalg.inv(precision_IRR).astype(float)
    pull_IR = (white_IC - count_IC * prior.white_mu) @ prior.loading
    return np.einsum("irs,is->ir", cov_IRR, pull_IR), cov_IRR


def expected_outcomes(prior: Prior, count_IC: Float, white_IC: Float) -> tuple[Float, Float]:
    """Posterior mean [I] and std [I] of items' expected outcomes."""
    sensitivity_R = prior.loading.T @ prior.white_target
    mean_I = np.empty(len(count_IC))
    var_I = np.empty(len(count_IC))
    for rows in chunks(len(count_IC), prior.loading.shape[1] ** 2):
        trait_IR, cov_IRR = traits(prior, count_IC[rows], white_IC[rows])
        mean_I[rows] = prior.target_C @ prior.mu_C + trait_IR @ sensitivity_R
        var_I[rows] = np.einsum("r,irs,s->i", sensitivity_R, cov_IRR, sensitivity_R)
    return mean_I, np.sqrt(np.maximum(var_I, 0.0))


def own_prefix(
    prior: Prior,
    count_GC: Float,
    white_GC: Float,
    group_N: NDArray[np.int64],
    prefix_NC: Float,
    length_G: NDArray[np.int64],
) -> tuple[Float, Float, Float]:
    """Mean and std of the expected outcome, and std of the remaining noise, of entries given their
    item and their own observed days, each [N].

    Entry n belongs to group `group_N[n]`: one item (statistics `count_GC`, `white_GC`) and one
    observed length. Given its first m whitened coordinates w, target'y = sum_{c<m} tau_c w_c +
    sum_{c>=m} tau_c (expected w_c + unit noise).
    """
    seen_GC = np.arange(len(prior.mu_C)) < length_G[:, None]
    rank = prior.loading.shape[1]
    ahead_GC = np.where(seen_GC, 0.0, prior.white_target)
    sensitivity_GR = ahead_GC @ prior.loading
    precision_GRR = np.eye(rank) + (
        (count_GC + seen_GC) @ prior.outer.reshape(len(prior.mu_C), -1)
    ).reshape(-1, rank, rank)
    weight_GR = np.linalg.solve(precision_GRR, sensitivity_GR[:, :, None])[:, :, 0]
    pull_GR = (white_GC - count_GC * prior.white_mu) @ prior.loading
    seen_NC = seen_GC[group_N]
    white_NC = np.where(seen_NC, (prefix_NC * seen_NC) @ prior.whitener.T, 0.0)
    pull_NR = pull_GR[group_N] + (white_NC - seen_NC * prior.white_mu) @ prior.loading
    mean_N = (
        white_NC @ prior.white_target
        + (ahead_GC @ prior.white_mu)[group_N]
        + np.sum(weight_GR[group_N] * pull_NR, axis=1)
    )
    std_G = np.sqrt(np.maximum(np.sum(weight_GR * sensitivity_GR, axis=1), 0.0))
    return mean_N, std_G[group_N], np.sqrt(np.sum(ahead_GC**2, axis=1))[group_N]


def estimate_prior(
    n_I: Float,
    sum_IC: Float,
    squares_I: Float,
    cross: Callable[[Float], Float],
    target_C: Float,
    unit_C: Float | None = None,
) -> Prior:
    """mu, Sigma and V by the method of moments, from mature traces of past items.

    V is the pooled covariance within items. mu and Sigma weigh item means by n_i / (n_i + V_t /
    Sigma_t) (t: the outcome), and Sigma is their weighted covariance minus what sampling adds to
    it, for any weights (Kacker 2004), where each item's own sampling covariance is taken off: rare
    habits vary less than common ones, and a pooled V would turn that into negative variance between
    items. Then noise is taken out: V's correlations are shrunk to 0 as far as they are noise
    (Schaefer & Strimmer 2005), Sigma becomes the nearest PSD matrix of equal trace (in whitened
    coordinates), and its variance of the outcome is the mean of the estimate's sampling
    distribution cut off below 0, so that "no difference seen" does not become "certainly none".

    Args:
        n_I: mature entries per item, >= 1.
        sum_IC: their summed traces.
        squares_I: their summed squared outcomes.
        cross: weights [I] -> sum over items of weight times the sum over its entries of trace
            trace', [C, C].
        target_C: weights of the coordinates whose sum is the outcome, [C].
        unit_C: size of a single hit per coordinate (default 1); keeps a coordinate that never
            varied from having no noise.

    >>> def cross(weight_I):  # two items with traces {0, 2} and {2, 4}
    ...     return np.array([[4 * weight_I[0] + 20 * weight_I[1]]])
    >>> n_I, sum_IC, squares_I = np.array([2.0, 2.0]), np.array([[2.0], [6.0]]), np.array([4.0, 20.0])
    >>> prior = estimate_prior(n_I, sum_IC, squares_I, cross, np.ones(1))
    >>> prior.mu_C.tolist(), prior.noise_CC.tolist()
    ([2.0], [[2.0]])

    Raises:
        DataError: no items.
    """
    if not len(n_I):
        raise DataError("estimate_prior: no item has a mature entry; expected at least one")
    total = float(n_I.sum())
    items = len(n_I)
    ones_I = np.ones(len(n_I))
    unit_C = np.ones(len(target_C)) if unit_C is None else unit_C
    if total - items < 1 or (n_I > 1).sum() < 2:  # nothing separates items from noise
        mu_C = sum_IC.sum(0) / total
        spread_CC = (cross(ones_I) - total * np.outer(mu_C, mu_C)) / max(total - 1, 1)
        noise_CC = _shrink_correlation(
            (1 - ASSUMED_BETWEEN) * spread_CC, max(total - 1, 1), unit_C**2 / (total + 1)
        )
        return Prior(mu_C, noise_CC * ASSUMED_BETWEEN / (1 - ASSUMED_BETWEEN), noise_CC, target_C)
    within_CC = (cross(ones_I) - (sum_IC.T * (1 / n_I)) @ sum_IC) / (total - items)
    noise_CC = _shrink_correlation(within_CC, total - items, unit_C**2 / (total + 1))
    variance = _outcome_variance(
        n_I, sum_IC @ target_C, squares_I, float(target_C @ noise_CC @ target_C)
    )
    weight_I = n_I / (n_I + float(target_C @ noise_CC @ target_C) / variance)
    mu_C = weight_I @ (sum_IC / n_I[:, None]) / weight_I.sum()
    between_CC = between_items(n_I, sum_IC, cross, weight_I)
    return Prior(mu_C, _nearest_psd(between_CC, noise_CC, target_C, variance), noise_CC, target_C)


def between_items(
    n_I: Float, sum_IC: Float, cross: Callable[[Float], Float], weight_I: Float
) -> Float:
    """Covariance of item means [C, C] for these item weights, less the part due to sampling. It is
    unbiased, so it may have negative eigenvalues.

    Items with a single entry cannot say how much they vary by sampling and are left out; 0 where
    all have one.
    """
    weight_I = np.where(n_I > 1, weight_I, 0.0)
    total = float(weight_I.sum())
    mean_IC = sum_IC / n_I[:, None]
    if total == 0:
        return np.zeros((sum_IC.shape[1], sum_IC.shape[1]))
    away_IC = mean_IC - weight_I @ mean_IC / total
    sampling_I = weight_I * (1 - weight_I / total) / (n_I * np.maximum(n_I - 1, 1))
    sampling_CC = cross(sampling_I) - (sum_IC.T * (sampling_I / n_I)) @ sum_IC
    return ((away_IC.T * weight_I) @ away_IC - sampling_CC) / max(
        total - float(np.sum(weight_I**2)) / total, 1e-12
    )


def _outcome_variance(n_I: Float, sum_I: Float, squares_I: Float, noise: float) -> float:
    """Variance of items' expected outcomes. The weights depend on the variance, so both are
    iterated, damped, until they agree.

    The raw estimate may be negative; what is returned is the mean of a normal around it, with its
    sampling error, cut off below 0.
    """
    weight_I = n_I.astype(float)
    variance = 0.0
    for _ in range(20):
        raw = float(
            between_items(n_I, sum_I[:, None], lambda a_I: np.array([[a_I @ squares_I]]), weight_I)[
                0, 0
            ]
        )
        usable_I = np.where(n_I > 1, weight_I, 0.0)
        scale = usable_I.sum() - np.sum(usable_I**2) / usable_I.sum()
        error = float(
            np.sqrt(2 * np.sum((usable_I * (max(raw, 0.0) + noise / n_I)) ** 2)) / max(scale, 1e-12)
        )
        estimate = raw + error * float(
            np.exp(stats.norm.logpdf(raw / error) - stats.norm.logcdf(raw / error))
        )
        previous = variance
        if variance:
            estimate = float(np.sqrt(variance * estimate))
        variance = estimate
        weight_I = n_I / (n_I + noise / variance)
        if abs(variance - previous) < 1e-3 * variance:
            break
    return variance


def chunks(n: int, width: int, budget: int = 4_000_000) -> list[slice]:
    """Slices that cover 0..n, each of at most about `budget` numbers at `width` numbers per row."""
    step = max(budget // max(width, 1), 1)
    return [slice(start, min(start + step, n)) for start in range(0, n, step)]


def _shrink_correlation(cov_CC: Float, dof: float, floor_C: Float) -> Float:
    """`cov_CC` with correlations shrunk by 1 - lambda, where lambda is the sum of their sampling
    variances over the sum of their squares."""
    variance_C = np.maximum(np.diag(cov_CC), floor_C)
    scale_CC = np.sqrt(np.outer(variance_C, variance_C))
    correlation_CC = cov_CC / scale_CC
    np.fill_diagonal(correlation_CC, 0.0)
    signal = float(np.sum(correlation_CC**2))
    off = ~np.eye(len(cov_CC), dtype=bool)
    sampling = float(np.sum((1 - np.minimum(correlation_CC[off] ** 2, 1.0)) ** 2)) / max(dof, 1.0)
    shrink = min(max(sampling / signal, 1e-6), 1.0) if signal > 0 else 1.0
    return scale_CC * ((1 - shrink) * correlation_CC + np.eye(len(cov_CC)))


def _nearest_psd(sigma_CC: Float, noise_CC: Float, target_C: Float, variance: float) -> Float:
    """The positive semi-definite matrix of equal trace that is nearest to `sigma_CC` (whitened by
    the noise), with target' . target = variance.

    Keeping the trace while lifting negative eigenvalues to 0 lowers the positive ones alike: what
    noise put on one side it also put on the other.
    """
    chol_CC = np.linalg.cholesky(noise_CC)
    half_CC = linalg.solve_triangular(chol_CC, sigma_CC, lower=True)
    white_CC = linalg.solve_triangular(chol_CC, half_CC.T, lower=True)
    values, vectors = np.linalg.eigh((white_CC + white_CC.T) / 2)
    clipped = _onto_simplex(values, max(float(values.sum()), 0.0))
    psd_CC = (vectors * clipped) @ vectors.T
    tau_C = chol_CC.T @ target_C
    have = float(tau_C @ psd_CC @ tau_C)
    if have > variance:
        psd_CC *= variance / have
    else:
        psd_CC += (variance - have) / float(tau_C @ tau_C) ** 2 * np.outer(tau_C, tau_C)
    return chol_CC @ psd_CC @ chol_CC.T


def _onto_simplex(values: Float, total: float) -> Float:
    """max(values - shift, 0), with the shift at which they sum to `total` >= 0.

    >>> _onto_simplex(np.array([3.0, 1.0, -1.0]), 3.0).tolist()
    [2.5, 0.5, 0.0]
    """
    if total <= 0:
        return np.zeros_like(values)
    ordered = np.sort(values)[::-1]
    shift_K = (np.cumsum(ordered) - total) / np.arange(1, len(values) + 1)
    return np.maximum(values - shift_K[np.flatnonzero(ordered - shift_K > 0)[-1]], 0.0)
