"""Logged lists of items of unequal lengths: what may be shown of them, what it is worth, and what a
step takes.

The items of context n are the places offsets[n] to offsets[n+1] - 1 of flat arrays.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from longplay.arrays import Bool, Float, Int
from longplay.decisions import Contexts
from longplay.lake.lake import Lake
from longplay.learning.rollout import EarlyRewards, finite, in_parts
from longplay.learning.trainable import Trainable
from longplay.rewards import Reward

AT_ONCE = 50_000  # items valued at once: bounds memory


def may_show(policy: Trainable, contexts: Contexts, row_M: Int, leaf_M: Int) -> Bool:
    """Whether `policy` may show each item in its context, [M].

    Args:
        policy: whose catalogue and availability decide, besides the exclusions.
        contexts: looked at in parts, because their exclusions may be many.
        row_M: row of each item's context, ascending.
        leaf_M: leaf of each item, -1 where the policy does not know it.
    """
    may_show_M = np.zeros(len(row_M), dtype=bool)
    for part in in_parts(contexts, np.arange(len(contexts))):
        inside = slice(*np.searchsorted(row_M, [part[0], part[-1] + 1]))
        allowed = policy.allowed(contexts.take(part))
        may_show_M[inside] = (leaf_M[inside] >= 0) & allowed.allows(
            row_M[inside] - part[0], np.maximum(leaf_M[inside], 0)
        )
    return may_show_M


def values_of_lists(
    reward: Reward,
    early: EarlyRewards,
    lake: Lake,
    contexts: Contexts,
    lists: pl.Series,
    way: str,
) -> Float:
    """The cautious value of showing each item of `lists`, flat; each list is valued as one slate.

    Args:
        reward: what slots are paid.
        early: one early reward, or one per signal.
        lake: the past.
        contexts: N of them.
        lists: N lists of item ids, of any lengths.
        way: what errors call the way of learning.

    Raises:
        DataError: some values are not finite.
    """
    count_N = lists.list.len().to_numpy().astype(np.int64)
    first_N = np.cumsum(count_N) - count_N
    value = np.empty(int(count_N.sum()))
    for count in np.unique(count_N[count_N > 0]):
        for part in in_parts(contexts, np.flatnonzero(count_N == count)):
            for rows in np.array_split(part, 1 + len(part) * int(count) // AT_ONCE):
                place_NS = first_N[rows, None] + np.arange(count)
                value[place_NS] = reward.combined(
                    early, contexts.take(rows), lists.gather(rows), lake
                ).lower(reward.caution)
    return finite(value, way)


def drawn_places(offsets: Int, rows: Int, most: int, rng: np.random.Generator) -> tuple[Int, Bool]:
    """Up to `most` random places of each of some lists, and which of them are there; both [R,
    most].

    Places that are not there repeat the list's first drawn one, so that all of them can be looked
    up.

    Args:
        offsets: [N+1], of lists of which none is empty.
        rows: of the lists, [R].
        most: at least 1.
        rng: decides which places of a longer list are drawn, and their order.

    >>> rng = np.random.default_rng(0)
    >>> place, is_there = drawn_places(np.array([0, 1, 9]), np.array([0, 1]), 2, rng)
    >>> place[0].tolist(), is_there.tolist()
    ([0, 0], [[True, False], [True, True]])
    """
    place_RM = np.empty((len(rows), most), dtype=np.int64)
    for place_M, row in zip(place_RM, rows, strict=True):
        start = offsets[row]
        drawn = start + rng.permutation(offsets[row + 1] - start)[:most]
        place_M[: len(drawn)] = drawn
        place_M[len(drawn) :] = drawn[0]
    count_R = offsets[rows + 1] - offsets[rows]
    return place_RM, np.arange(most) < count_R[:, None]
