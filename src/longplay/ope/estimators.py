"""Off-policy estimators as formulas on arrays: weights and rewards in, estimates out.

Axes: N logged slots. `weight_N` = pi(a | x, prefix) / pi0(a | x, prefix) >= 0; `reward_N` in the
outcome's unit; `user_N` names each slot's user. Slots of one user may depend on each other in any
way: every standard error is clustered by user, linearised. `Estimate.n` counts users,
`Estimate.n_eff` is the number of effective users: Kish's, by summed weight.

**Rare outcomes.** Few outcomes of unequal weight make a skewed estimate, whose t interval is too
short on the far side. Where all outcomes lie on one side of an origin, the interval is
`intervals.log_interval` of the distance from it, with as many degrees of freedom as effective users
have such an outcome, less 1. The origin is 0 for IPS, which scales with the outcome. SNIPS and
doubly robust shift with it too: their origin is the outcome that most slots have, if they have one
(`origin_of`). Where outcomes are common this is nearly the t interval; where they lie on both sides
of 0 it is the t interval.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from longplay.arrays import Float
from longplay.errors import NotEstimable
from longplay.estimate import Estimate, clustered_mean


def kish(weight_N: ArrayLike) -> float:
    """Effective number of rows, (sum w)^2 / sum w^2 (Kish 1965): N where all weights are equal, 0
    where none is positive.

    >>> kish([1.0, 1.0, 2.0])
    2.6666666666666665
    """
    w_N = np.asarray(weight_N, dtype=float)
    square = float(np.sum(w_N**2))
    return float(np.sum(w_N)) ** 2 / square if square > 0 else 0.0


def ips_mean(
    weight_N: Float, reward_N: Float, user_N: ArrayLike, *, estimand: str = "IPS"
) -> Estimate:
    """mean(w r), unbiased where the weights are right (Horvitz & Thompson 1952).

    With slot-wise weights this is the first-order value of Chen et al. 2019 (arXiv 1812.02353): one
    choice is changed, what precedes and what follows it stays the logger's.

    >>> ips_mean(np.array([2.0, 0.0]), np.array([1.0, 1.0]), ["a", "b"]).value
    1.0
    """
    estimate = _effective(
        clustered_mean(weight_N * reward_N, user_N, estimand=estimand), weight_N, user_N
    )
    step = typical(weight_N) * typical(np.abs(reward_N)) / len(weight_N)
    return _rare(estimate, 0.0, side_of(reward_N, 0.0), step, weight_N, reward_N, user_N)


def clip_weights(weight_N: Float, clip: float) -> tuple[Float, float]:
    """min(w, clip), and the share of all weight that was cut off (Ionides 2008; Bottou et al. 2013,
    arXiv 1209.2355).

    >>> clip_weights(np.array([1.0, 3.0]), 2.0)[1]
    0.25
    """
    clipped_N = np.minimum(weight_N, clip)
    total = float(weight_N.sum())
    return clipped_N, 1 - float(clipped_N.sum()) / total if total > 0 else 0.0


def snips_mean(
    weight_N: Float, reward_N: Float, user_N: ArrayLike, *, estimand: str = "SNIPS"
) -> Estimate:
    """sum(w r) / sum(w), consistent, bounded by the rewards seen (Swaminathan & Joachims 2015).

    Its error is that of a ratio of two means, linearised: slot n deviates by w (r - value) /
    mean(w).

    >>> snips_mean(np.array([2.0, 1.0]), np.array([1.0, 0.0]), ["a", "b"]).value
    0.6666666666666666

    Raises:
        NotEstimable: no slot has weight.
    """
    if not weight_N.sum() > 0:
        raise NotEstimable(
            f"{estimand}: none of {len(weight_N):,} slots has weight, so the policy never does "
            "what was logged; use a log with overlap"
        )
    value = float(np.sum(weight_N * reward_N) / np.sum(weight_N))
    deviation_N = weight_N * (reward_N - value) / weight_N.mean()
    estimate = _effective(
        replace(clustered_mean(deviation_N, user_N, estimand=estimand), value=value),
        weight_N,
        user_N,
    )
    origin, side = origin_of(reward_N)
    weight = typical(weight_N)
    further = typical(np.abs(reward_N - origin)) - abs(value - origin)
    step = weight * max(further, 0.0) / (float(weight_N.sum()) + weight)
    return _rare(estimate, origin, side, step, weight_N, reward_N, user_N)


def dr_mean(
    weight_N: Float,
    reward_N: Float,
    model_N: Float,
    direct_N: Float,
    user_N: ArrayLike,
    *,
    estimand: str = "DR",
) -> Estimate:
    """mean(direct + w (r - model)), doubly robust (Dudik, Langford & Li 2011; Dudik et al. 2014,
    arXiv 1503.02834).

    Unbiased where the weights are right, whatever the model; exact where the model is right,
    whatever the weights.

    Args:
        weight_N: pi / pi0 of each slot, shape [N].
        reward_N: outcome of each slot, shape [N].
        model_N: the outcome model at what was shown, fitted without this slot's user.
        direct_N: the same model averaged over the policy's own choices in this slot; unbiased draws
            of it will do.
        user_N: user of each slot; errors are clustered by it.
        estimand: label of the estimate.

    >>> weight_N = np.array([0.5, 0.5])
    >>> reward_N = np.array([1.0, 0.0])
    >>> dr_mean(weight_N, reward_N, np.full(2, 0.4), np.full(2, 0.3), ["a", "b"]).value
    0.35
    """
    terms_N = direct_N + weight_N * (reward_N - model_N)
    estimate = _effective(clustered_mean(terms_N, user_N, estimand=estimand), weight_N, user_N)
    origin, side = origin_of(reward_N)
    beyond_N = np.maximum(side * (reward_N - model_N), 0.0)
    step = typical(weight_N) * typical(beyond_N) / len(weight_N)
    return _rare(estimate, origin, side, step, weight_N, reward_N, user_N)


def most_common(reward_N: Float) -> float:
    """The most common outcome, the smallest where several are equally common; 0 where there are no
    outcomes.

    >>> most_common(np.array([0.0, 2.0, 0.0]))
    0.0
    """
    values, counts = np.unique(reward_N, return_counts=True)
    return float(values[counts.argmax()]) if len(values) else 0.0


def side_of(reward_N: Float, origin: float) -> int:
    """1 where no outcome lies below `origin`, -1 where none lies above, 0 where there are some on
    both sides.

    >>> side_of(np.array([0.0, 2.0]), 0.0), side_of(np.array([0.0, 1.0]), 1.0), side_of(np.array([-1.0, 1.0]), 0.0)
    (1, -1, 0)
    """
    if (reward_N >= origin).all():
        return 1
    return -1 if (reward_N <= origin).all() else 0


def usual(reward_N: Float) -> tuple[float, int]:
    """The most common outcome, and the side of it on which all others lie (`side_of`); side 0 where
    fewer than half of the outcomes are equal to it.

    >>> usual(np.array([0.0, 0.0, 0.0, 2.0])), usual(np.array([1.0, 1.0, 0.0])), usual(np.array([1.0, 2.0, 3.0]))
    ((0.0, 1), (1.0, -1), (1.0, 0))
    """
    common = most_common(reward_N)
    rare = 2 * np.count_nonzero(reward_N == common) >= len(reward_N)
    return common, side_of(reward_N, common) if rare else 0


def origin_of(reward_N: Float) -> tuple[float, int]:
    """The origin of the log scale of SNIPS and doubly robust, and the side of it on which all
    outcomes lie; side 0 where there is none.

    The outcome that most slots have if all others lie on one side of it, else 0 if all outcomes do.

    >>> origin_of(np.array([1.0, 1.0, 0.0])), origin_of(np.array([1.0, 2.0, 3.0]))
    ((1.0, -1), (0.0, 1))
    >>> origin_of(np.array([-1.0, 2.0, 3.0]))
    (0.0, 0)
    """
    common, side = usual(reward_N)
    return (common, side) if side else (0.0, side_of(reward_N, 0.0))


def typical(amount_N: Float) -> float:
    """Typical size of amounts: the mean of `amount_N` (>= 0) weighted by itself; 0 where all are 0.

    >>> typical(np.array([0.0, 1.0, 3.0]))
    2.5
    """
    total = float(np.sum(amount_N))
    return float(np.sum(amount_N**2)) / total if total > 0 else 0.0


def effective_users(amount_N: Float, user_N: ArrayLike) -> float:
    """Kish's effective number of users, from `amount_N` (>= 0) summed per user: weights, or weights
    times outcomes.

    >>> effective_users(np.array([1.0, 1.0, 2.0]), ["a", "a", "b"])
    2.0
    """
    _, row_N = np.unique(np.asarray(user_N), return_inverse=True)
    return kish(np.bincount(row_N, weights=amount_N))


def _effective(estimate: Estimate, weight_N: Float, user_N: ArrayLike) -> Estimate:
    return replace(estimate, n_eff=effective_users(weight_N, user_N))


def _rare(
    estimate: Estimate,
    origin: float,
    side: int,
    step: float,
    weight_N: Float,
    reward_N: Float,
    user_N: ArrayLike,
) -> Estimate:
    """The estimate with an interval on the log scale from `origin`; unchanged where its value does
    not lie on this `side`."""
    outcomes = effective_users(weight_N * np.abs(reward_N - origin), user_N)
    if outcomes == 0 or side * (estimate.value - origin) <= 0:
        return estimate
    return replace(estimate, df=outcomes - 1, origin=origin, step=step)
