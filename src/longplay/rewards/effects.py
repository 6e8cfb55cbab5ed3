"""Regression with effects of items, creators and users that are shrunk to what is usual.

link of slot n = offset_n + intercept + w'x_n + sum over groups of the group's effect; the link is log
odds of chances, and log of counts (see `families`). Effects of a group are normal around a mean, which
may depend on the level's content. Variances are estimated by empirical Bayes: expectation-maximisation
with a diagonal Laplace approximation (Bates & DebRoy 2004 treat the exact version). Axes: N slots (or
entries), F features, L levels of a group, C columns of content.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import optimize

from longplay.arrays import Float, Int
from longplay.rewards.families import BINOMIAL, Family

ROUNDS = 4  # of fitting effects and variances in turn
LEAST_VARIANCE = 1e-4
WEIGHT_VARIANCE = 4.0  # prior variance of the weight of a standardised feature
CONTENT_RIDGE = 5.0


@dataclass(frozen=True, eq=False)
class Group:
    """Levels whose effects are shrunk together.

    Attributes:
        level_N: level of each slot, 0 to L - 1.
        content_LC: what is known of the levels; None: nothing.
        levels: L.
        variance: of effects around their mean, where estimation begins.
    """

    level_N: Int
    levels: int
    content_LC: Float | None = None
    variance: float = 0.25


@dataclass(frozen=True, eq=False)
class Effects:
    """Fitted weights and effects.

    Attributes:
        intercept: link (log odds, log) where all features and effects are 0.
        weight_F: of the features.
        effect_L: of each group, the levels' effects.
        variance: of each group, of effects around their mean.
        mean_L: of each group, what the effects are shrunk to.
        content_C: of each group, what a unit of content adds to that mean.
        posterior_L: of each group, the variance of each effect given the slots.
    """

    intercept: float
    weight_F: Float
    effect_L: list[Float]
    variance: list[float]
    mean_L: list[Float]
    content_C: list[Float]
    posterior_L: list[Float]


def fit_effects(
    x_NF: Float,
    groups: list[Group],
    y_N: Float,
    weight_N: Float | None = None,
    family: Family = BINOMIAL,
    offset_N: Float | None = None,
) -> Effects:
    """The most probable weights and effects, with variances by empirical Bayes.

    Args:
        x_NF: features of the slots.
        groups: whose effects are fitted.
        y_N: labels: 0 to 1, or counts.
        weight_N: how much each slot counts; default 1. Counts that vary more than Poisson ones count
            1 / dispersion.
        family: of the labels.
        offset_N: what is already known of each slot's link; default 0.
    """
    weight_N = np.ones(len(y_N)) if weight_N is None else weight_N
    offset_N = np.zeros(len(y_N)) if offset_N is None else offset_N
    scale_F = np.maximum(x_NF.std(axis=0), 1e-9)
    z_NF = (x_NF - x_NF.mean(axis=0)) / scale_F
    base = np.array([weight_N @ y_N, weight_N @ family.mean(offset_N)]) / weight_N.sum()
    intercept = float(np.subtract(*family.link(base)))
    weight_F = np.zeros(x_NF.shape[1])
    effect = [np.zeros(group.levels) for group in groups]
    mean = [np.zeros(group.levels) for group in groups]
    variance = [group.variance for group in groups]
    posterior = [np.zeros(group.levels) for group in groups]
    content = [
        np.zeros(0) if group.content_LC is None else np.zeros(group.content_LC.shape[1])
        for group in groups
    ]
    for _ in range(ROUNDS):
        intercept, weight_F, effect, expected_N = _most_probable(
            z_NF,
            groups,
            y_N,
            weight_N,
            family,
            offset_N,
            intercept,
            weight_F,
            effect,
            mean,
            variance,
        )
        information_N = weight_N * family.variance(expected_N)
        for g, group in enumerate(groups):
            information_L = _sums(group, information_N)
            posterior_L = 1.0 / (information_L + 1.0 / variance[g])
            posterior[g] = posterior_L
            if group.content_LC is not None:
                content[g] = _content_weights(
                    effect[g], variance[g], information_L, group.content_LC
                )
                mean[g] = group.content_LC @ content[g]
            seen = information_L > 0
            spread = (effect[g] - mean[g])[seen] ** 2 + posterior_L[seen]
            variance[g] = max(float(spread.mean()) if seen.any() else 0.0, LEAST_VARIANCE)
    for g, group in enumerate(groups):  # levels without slots stand at their mean
        information_L = np.bincount(group.level_N, minlength=group.levels)
        effect[g] = np.where(information_L > 0, effect[g], mean[g])
    raw_F = weight_F / scale_F
    intercept = float(intercept - raw_F @ x_NF.mean(axis=0))
    return Effects(intercept, raw_F, effect, variance, mean, content, posterior)


def _sums(group: Group, amount_N: Float) -> Float:
    """Sum of the amounts of each level's slots, [L]."""
    sums_L = np.bincount(group.level_N, weights=amount_N, minlength=group.levels)
    return sums_L.astype(np.float64)


def _content_weights(
    effect_L: Float, variance: float, information_L: Float, content_LC: Float
) -> Float:
    """A ridge regression of effects on content, [C]. An effect is shrunk by variance x information
    / (1 + variance x information), so levels count by that share."""
    share_L = information_L * variance / (1.0 + information_L * variance)
    weighted = content_LC * share_L[:, None]
    gram = weighted.T @ content_LC + CONTENT_RIDGE * np.eye(content_LC.shape[1])
    return np.asarray(np.linalg.solve(gram, weighted.T @ effect_L), dtype=float)


def _most_probable(
    z_NF: Float,
    groups: list[Group],
    y_N: Float,
    weight_N: Float,
    family: Family,
    offset_N: Float,
    intercept: float,
    weight_F: Float,
    effect: list[Float],
    mean: list[Float],
    variance: list[float],
) -> tuple[float, Float, list[Float], Float]:
    """Intercept, weights, effects and the expected labels at the maximum of the posterior density."""
    features = z_NF.shape[1]
    sizes = [group.levels for group in groups]
    cuts = np.cumsum([1 + features, *sizes])[:-1]
    start = np.concatenate([[intercept], weight_F, *effect])
    expected_N = family.mean(offset_N + _links(z_NF, groups, start, cuts))
    information_N = weight_N * family.variance(expected_N)
    # parameters are measured in their own posterior deviations: then all are equally easy to fit
    curvature = [
        np.array([information_N.sum()]),
        (z_NF**2 * information_N[:, None]).sum(axis=0) + 1 / WEIGHT_VARIANCE,
    ]
    for g, group in enumerate(groups):
        curvature.append(_sums(group, information_N) + 1 / variance[g])
    unit = 1.0 / np.sqrt(np.maximum(np.concatenate(curvature), 1e-9))
    centre = np.concatenate([[0.0], np.zeros(features), *mean])
    precision = np.concatenate(
        [
            [0.0],
            np.full(features, 1 / WEIGHT_VARIANCE),
            *(np.full(size, 1 / variance[g]) for g, size in enumerate(sizes)),
        ]
    )

    def loss(scaled: Float) -> tuple[float, Float]:
        parameters = scaled * unit
        link_N = offset_N + _links(z_NF, groups, parameters, cuts)
        away = parameters - centre
        value = weight_N @ family.loss(link_N, y_N) + 0.5 * precision @ away**2
        residual_N = weight_N * (family.mean(link_N) - y_N)
        slope = [np.array([residual_N.sum()]), residual_N @ z_NF]
        slope += [_sums(group, residual_N) for group in groups]
        return float(value), (np.concatenate(slope) + precision * away) * unit

    best = (
        optimize.minimize(
            loss, start / unit, jac=True, method="L-BFGS-B", options={"maxiter": 60}
        ).x
        * unit
    )
    parts = np.split(best, cuts)
    expected_N = family.mean(offset_N + _links(z_NF, groups, best, cuts))
    return (
        float(best[0]),
        parts[0][1:],
        parts[1:],
        expected_N,
    )


def _links(z_NF: Float, groups: list[Group], parameters: Float, cuts: Int) -> Float:
    parts = np.split(parameters, cuts)
    link_N = parts[0][0] + z_NF @ parts[0][1:]
    for group, effect_L in zip(groups, parts[1:], strict=True):
        link_N = link_N + effect_L[group.level_N]
    return link_N
