"""Slates drawn without replacement: the Plackett-Luce law, its exact log-probabilities and its
samplers.

An ordered slate a_1..a_S drawn without replacement from item probabilities p has, slot by slot,
log P(a_j | a_<j) = log p(a_j) - log(1 - sum_{i<j} p(a_i))   (Plackett 1975; Luce 1959).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from longplay.arrays import Float, Int
from longplay.chance import RowChance
from longplay.index import distinct_keys

_GUMBEL_CELLS = 4_000_000  # rows x items perturbed at once: bounds memory at about 64 MB
_EXTRA_DRAWS = 3  # beyond the slots, in the first pass: covers nearly every row of a flat law
_PASSES = 6  # passes before the rows still unfilled are finished by Gumbel-top-k
# counters of an item's Gumbel noise start here, beyond those of any draw with replacement
_NOISE = 2**32


def log1mexp(x: Float) -> Float:
    """log(1 - exp(x)) for x <= 0, elementwise, exact near 0 and near -inf (Maechler 2012); -inf at
    x >= 0.

    >>> float(log1mexp(np.array([np.log(0.25)]))[0].round(6)) == round(float(np.log(0.75)), 6)
    True
    """
    x = np.asarray(x, dtype=np.float64)
    safe = np.minimum(x, -1e-320)
    with np.errstate(divide="ignore", under="ignore"):
        answer = np.where(safe > -np.log(2.0), np.log(-np.expm1(safe)), np.log1p(-np.exp(safe)))
    return np.where(x >= 0, -np.inf, answer)


def plackett_luce_log_prob(log_p_chosen_NS: Float, log_rest_N: Float | None = None) -> Float:
    """Log-probability of every slot given the slots before it, shape [N, S].

    The mass left before slot j is the never-drawn rest plus what slots j.. hold, so it is summed
    from the small end and cannot fall below p(a_j): no cancellation, never a log-probability above
    0.

    Args:
        log_p_chosen_NS: log item probabilities of the slates in draw order (each row's law sums to
            1).
        log_rest_N: log of the mass outside the slate where the caller knows it; by default
            log(1 - sum of the slate), whose absolute error is about 1e-16: pass it when the slate
            may hold nearly everything.

    >>> np.exp(plackett_luce_log_prob(np.log([[0.5, 0.3, 0.2]]))).round(6).tolist()
    [[0.5, 0.6, 1.0]]
    """
    log_p_NS = np.asarray(log_p_chosen_NS, dtype=np.float64)
    if log_rest_N is None:
        log_rest_N = log1mexp(np.logaddexp.reduce(log_p_NS, axis=1))
    log_left_NS = np.empty_like(log_p_NS)
    log_left_N = np.asarray(log_rest_N, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        for slot in range(log_p_NS.shape[1] - 1, -1, -1):
            log_left_N = np.logaddexp(log_left_N, log_p_NS[:, slot])
            log_left_NS[:, slot] = log_left_N
        # a chosen item without probability: -inf, also where nothing at all is left
        return np.where(np.isneginf(log_p_NS), -np.inf, log_p_NS - log_left_NS)


def repeats(rows_NS: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Which slots hold an item that an earlier slot of the same row holds, shape [N, S]."""
    # slots first: comparing long columns is several times faster than short rows
    rows_SN = np.ascontiguousarray(rows_NS.T)
    again_SN = np.zeros(rows_SN.shape, dtype=bool)
    for slot in range(1, len(rows_SN)):
        again_SN[slot] = (rows_SN[:slot] == rows_SN[slot]).any(axis=0)
    return again_SN.T


def impossible_from_repeats(log_prob_NS: Float, rows_NS: NDArray[np.integer]) -> Float:
    """`log_prob_NS` with -inf from the first slot that repeats an item of its slate.

    >>> impossible_from_repeats(np.full((1, 3), -1.0), np.array([[4, 4, 5]])).tolist()
    [[-1.0, -inf, -inf]]
    """
    return np.where(np.logical_or.accumulate(repeats(rows_NS), axis=1), -np.inf, log_prob_NS)


def gumbel_slates(log_p_NI: Float, slots: int, noise_NI: Float) -> Int:
    """One slate per row by Gumbel-top-k (Yellott 1977; Kool et al. 2019): rows of items [N, slots]
    in draw order.

    `log_p_NI` need not be normalised; -inf is never drawn if `slots` items are above -inf.
    `noise_NI`: independent standard Gumbel noise.
    """
    keys_NI = log_p_NI + noise_NI
    top_NS = np.argpartition(-keys_NI, slots - 1, axis=1)[:, :slots]
    order_NS = np.argsort(-np.take_along_axis(keys_NI, top_NS, axis=1), axis=1)
    return np.take_along_axis(top_NS, order_NS, axis=1).astype(np.int64)


def draw_slates(
    log_p_I: Float,
    n: int,
    slots: int,
    chance: RowChance,
    banned: tuple[Int, Int] | None = None,
    passes: int = _PASSES,
) -> Int:
    """`n` slates of `slots` distinct items under one item law, shape [n, slots], in draw order.

    Drawing *with* replacement and skipping what was drawn before (or is banned) is the
    Plackett-Luce law exactly, and never touches n x I numbers. Rows that are still short after
    `passes` are finished by Gumbel-top-k over what is left, which is the same conditional law.

    Args:
        log_p_I: log item probabilities up to a constant, -inf where unavailable.
        n: slates.
        slots: items per slate, all different.
        chance: a stream per row. Draw number k of a row uses its counter k and the Gumbel noise of
            item i counter 2^32 + i, so a row's slate does not depend on the other rows.
        banned: (offsets[n+1], items): row r must not hold items[offsets[r]:offsets[r+1]].
        passes: rounds of drawing with replacement; 0 draws everything by Gumbel-top-k.
    """
    n_items = len(log_p_I)
    weight_I = np.exp(log_p_I - log_p_I.max())
    cumulative_I = np.cumsum(weight_I)
    banned_keys = np.empty(0, dtype=np.int64)
    if banned is not None and len(banned[1]):
        owner = np.repeat(np.arange(n), np.diff(banned[0]))
        banned_keys = distinct_keys((owner * n_items + banned[1])[banned[1] >= 0])
    slate_NS = np.full((n, slots), -1, dtype=np.int64)
    filled_N = np.zeros(n, dtype=np.int64)
    short_R = np.arange(n)
    drawn = 0  # with replacement, by every row that is still short
    for step in range(passes):
        if len(short_R) == 0:
            break
        width = slots + _EXTRA_DRAWS if step == 0 else 4
        # scaled by the last sum so that rounding can never point past the last item
        u = chance.uniform(short_R, np.arange(drawn, drawn + width)[None]) * cumulative_I[-1]
        drawn += width
        draw_RK = np.minimum(np.searchsorted(cumulative_I, u, side="right"), n_items - 1).astype(
            np.int64
        )
        had = 0 if step == 0 else slots  # before the first draw there is nothing to repeat
        new_RK = ~repeats(np.concatenate([slate_NS[short_R, :had], draw_RK], axis=1))[:, had:] & (
            weight_I[draw_RK] > 0
        )
        if len(banned_keys):
            key_RK = short_R[:, None] * n_items + draw_RK
            at_RK = np.minimum(np.searchsorted(banned_keys, key_RK), len(banned_keys) - 1)
            new_RK &= banned_keys[at_RK] != key_RK
        place_RK = filled_N[short_R][:, None] + np.cumsum(new_RK, axis=1) - 1
        new_RK &= place_RK < slots
        r, k = np.nonzero(new_RK)
        slate_NS[short_R[r], place_RK[r, k]] = draw_RK[r, k]
        filled_N[short_R] += new_RK.sum(axis=1)
        short_R = short_R[filled_N[short_R] < slots]
    for chunk in np.array_split(short_R, max(1, -(-len(short_R) * n_items // _GUMBEL_CELLS))):
        if len(chunk) == 0:
            continue
        log_p_RI = np.tile(log_p_I, (len(chunk), 1))
        r, k = np.nonzero(slate_NS[chunk] >= 0)
        log_p_RI[r, slate_NS[chunk][r, k]] = -np.inf
        if len(banned_keys):
            chunk_keys = banned_keys[np.isin(banned_keys // n_items, chunk)]
            log_p_RI[np.searchsorted(chunk, chunk_keys // n_items), chunk_keys % n_items] = -np.inf
        order_RS = gumbel_slates(
            log_p_RI, slots, chance.gumbel(chunk, np.arange(_NOISE, _NOISE + n_items)[None])
        )
        for have in np.unique(filled_N[chunk]):
            rows = np.flatnonzero(filled_N[chunk] == have)
            slate_NS[chunk[rows], have:] = order_RS[rows, : slots - have]
    return slate_NS
