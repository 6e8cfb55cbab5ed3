"""Off-policy estimators as formulas on arrays: weights and rewards in, estimates out.

Axes: N logged slots. `weight_N` = pi(a | x, prefix) / pi0(a | x, prefix) >= 0; `reward_N` in the outcome's unit;
`user_N` names each slot's user. Slots of one user may depend on each other in any way: every interval is
clustered by user, linearised. `Estimate.n` counts users and `Estimate.n_eff` = users x Kish's share.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from longplay.errors import NotEstimable
from longplay.estimate import Estimate, clustered_mean

Array = NDArray[np.float64]


def kish(weight_N: ArrayLike) -> float:
    """Effective number of rows, (sum w)^2 / sum w^2 (Kish 1965): N where all weights are equal, 0 where none is positive.

    >>> kish([1.0, 1.0, 2.0])
    2.6666666666666665
    """
    w_N = np.asarray(weight_N, dtype=float)
    square = float(np.sum(w_N**2))
    return float(np.sum(w_N)) ** 2 / square if square > 0 else 0.0


def ips_mean(weight_N: Array, reward_N: Array, user_N: ArrayLike, *, estimand: str = "IPS") -> Estimate:
    """mean(w r), unbiased where the weights are right (Horvitz & Thompson 1952).

    With slot-wise weights this is the first-order value of Chen et al. 2019 (arXiv 1812.02353): one choice is
    changed, what precedes and what follows it stays the logger's.

    >>> ips_mean(np.array([2.0, 0.0]), np.array([1.0, 1.0]), ["a", "b"]).value
    1.0
    """
    return _effective(clustered_mean(weight_N * reward_N, user_N, estimand=estimand), weight_N)


def clip_weights(weight_N: Array, clip: float) -> tuple[Array, float]:
    """min(w, clip), and the share of all weight that was cut off (Ionides 2008; Bottou et al. 2013, arXiv 1209.2355).

    >>> clip_weights(np.array([1.0, 3.0]), 2.0)[1]
    0.25
    """
    clipped_N = np.minimum(weight_N, clip)
    total = float(weight_N.sum())
    return clipped_N, 1 - float(clipped_N.sum()) / total if total > 0 else 0.0


def snips_mean(weight_N: Array, reward_N: Array, user_N: ArrayLike, *, estimand: str = "SNIPS") -> Estimate:
    """sum(w r) / sum(w), consistent, bounded by the rewards seen (Swaminathan & Joachims 2015).

    Its error is that of a ratio of two means, linearised: slot n deviates by w (r - value) / mean(w).

    >>> snips_mean(np.array([2.0, 1.0]), np.array([1.0, 0.0]), ["a", "b"]).value
    0.6666666666666666

    Raises:
        NotEstimable: no slot has weight.
    """
    if not weight_N.sum() > 0:
        raise NotEstimable(
            f"{estimand}: none of {len(weight_N):,} slots has weight, so the policy never does what was logged; use a log with overlap"
        )
    value = float(np.sum(weight_N * reward_N) / np.sum(weight_N))
    deviation_N = weight_N * (reward_N - value) / weight_N.mean()
    return _effective(replace(clustered_mean(deviation_N, user_N, estimand=estimand), value=value), weight_N)


def dr_mean(weight_N: Array, reward_N: Array, model_N: Array, direct_N: Array, user_N: ArrayLike, *, estimand: str = "DR") -> Estimate:
    """mean(direct + w (r - model)), doubly robust (Dudik, Langford & Li 2011; Dudik et al. 2014, arXiv 1503.02834).

    Unbiased where the weights are right, whatever the model; exact where the model is right, whatever the weights.

    Args:
        model_N: the outcome model at what was shown, fitted without this slot's user.
        direct_N: the same model averaged over the policy's own choices in this slot; unbiased draws of it will do.

    >>> dr_mean(np.array([0.5, 0.5]), np.array([1.0, 0.0]), np.array([0.4, 0.4]), np.array([0.3, 0.3]), ["a", "b"]).value
    0.35
    """
    return _effective(clustered_mean(direct_N + weight_N * (reward_N - model_N), user_N, estimand=estimand), weight_N)


def _effective(estimate: Estimate, weight_N: Array) -> Estimate:
    return replace(estimate, n_eff=estimate.n * kish(weight_N) / len(weight_N))
