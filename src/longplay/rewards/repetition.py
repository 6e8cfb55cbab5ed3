"""What was shown to a user before a moment, and how recent showings of an item, of its creator and of
anything stand at it.

Axes: P showings, N moments, S slots, F features, I items, K keys (creators or items).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy import sparse

from longplay.arrays import Float, Int, dense
from longplay.decisions import Contexts
from longplay.index import ItemIndex, distinct_keys, ranges
from longplay.lake.daily import DAY_US

HALF_LIVES = (7.0, 28.0)  # days in which a showing counts half
MOST = 200  # showings that are looked back on
FEATURES = tuple(
    f"{of} shown, {days:g} days" for of in ("item", "creator", "page") for days in HALF_LIVES
)


@dataclass(frozen=True, eq=False)
class Showings:
    """Showings of a log, in the order of users and, of each user, in the order of times.

    Attributes:
        user_P: row of each user, ascending; -1 for users without a row come first.
        time_P: when it was shown, microseconds.
        item_P: item row, -1 unknown.
    """

    user_P: Int
    time_P: Int
    item_P: Int

    @classmethod
    def of(cls, user_P: Int, time_P: Int, item_P: Int) -> Self:
        """The showings in order."""
        order = np.lexsort((time_P, user_P))
        return cls(user_P[order], time_P[order], item_P[order])

    def before(self, user_N: Int, time_N: Int) -> Past:
        """The last `MOST` showings to each user strictly before each moment.

        Args:
            user_N: row of each moment's user, -1 for a user without showings.
            time_N: the moments, microseconds.
        """
        moments = distinct_keys(self.time_P)
        base = len(moments) + 1
        code_P = self.user_P * base + np.searchsorted(moments, self.time_P)
        start_N = np.searchsorted(self.user_P, user_N)
        stop_N = np.searchsorted(code_P, user_N * base + np.searchsorted(moments, time_N))
        count_N = np.where(user_N < 0, 0, np.minimum(stop_N - start_N, MOST))
        row_P = ranges(stop_N - count_N, count_N)
        owner_P = np.repeat(np.arange(len(user_N)), count_N)
        age_P = (time_N[owner_P] - self.time_P[row_P]) / DAY_US
        return Past(len(user_N), owner_P, self.item_P[row_P], age_P)


@dataclass(frozen=True, eq=False)
class Past:
    """Showings before each of N moments.

    Attributes:
        moments: N.
        owner_P: moment that looks back on each showing, ascending.
        item_P: item row, -1 unknown.
        age_P: days since.
    """

    moments: int
    owner_P: Int
    item_P: Int
    age_P: Float

    @classmethod
    def of_contexts(cls, contexts: Contexts, items: ItemIndex) -> Self | None:
        """What contexts say was shown before; None where none of them says it."""
        frame = contexts.frame.select("shown", "shown_time", "time")
        if frame["shown"].is_null().all():
            return None
        offsets, item_P = items.ragged_rows(frame["shown"].list.tail(MOST))
        owner_P = np.repeat(np.arange(len(contexts)), np.diff(offsets))
        time_N = frame["time"].dt.epoch("us").to_numpy()
        times = (
            frame["shown_time"].list.tail(MOST).explode(empty_as_null=False)
            if len(item_P)
            else frame["time"].head(0)
        )
        age_P = (time_N[owner_P] - times.drop_nulls().dt.epoch("us").to_numpy()) / DAY_US
        return cls(len(contexts), owner_P, item_P, age_P)

    def counts(self, days: float, group_I: Int, groups: int) -> Float:
        """Showings of each group of items, each halved every so many days, [M, G].

        Args:
            days: half-life.
            group_I: group of each item; last: of unknown ones.
            groups: G.
        """
        weight_P = 0.5 ** (self.age_P / days)
        cells = (weight_P, (self.owner_P, group_I[self.item_P]))
        counted = sparse.csr_matrix(cells, shape=(self.moments, groups), dtype=np.float64)
        return dense(counted)

    def page(self, days: float) -> Float:
        """Showings of anything, each halved every so many days, [M]."""
        weight_P = 0.5 ** (self.age_P / days)
        page_M = np.bincount(self.owner_P, weights=weight_P, minlength=self.moments)
        return page_M.astype(np.float64)

    def features(self, owner_N: Int, item_N: Int, key_I: Int) -> Float:
        """How recent showings stand at slots, [N, F] in the order of `FEATURES`: showings of the item,
        of its creator and of anything, each halved by every half-life that has passed since.

        Args:
            owner_N: moment of each slot.
            item_N: item row of each slot, -1 unknown.
            key_I: row of each item's creator, -1 unknown; last: of unknown items.
        """
        columns = []
        items = len(key_I)
        item_P = self.item_P % items  # unknown items share the last row
        key_P = key_I[item_P]
        by_item = _Sums(self.owner_P * items + item_P)
        by_key = _Sums(self.owner_P * items + key_P % items)
        slot_item = owner_N * items + item_N % items
        slot_key = owner_N * items + key_I[item_N] % items
        known_P = self.item_P >= 0
        for days in HALF_LIVES:
            weight_P = 0.5 ** (self.age_P / days)
            columns.append(by_item.at(slot_item, np.where(known_P, weight_P, 0.0)))
        for days in HALF_LIVES:
            weight_P = 0.5 ** (self.age_P / days)
            columns.append(by_key.at(slot_key, np.where(key_P >= 0, weight_P, 0.0)))
        for days in HALF_LIVES:
            columns.append(self.page(days)[owner_N])
        return np.column_stack(columns)


class _Sums:
    """Sums of weights by code, looked up by code."""

    def __init__(self, code_P: Int) -> None:
        self.codes, self.row_P = np.unique(code_P, return_inverse=True)

    def at(self, code_N: Int, weight_P: Float) -> Float:
        """The sum of the weights with each code, [N]; 0 where there is none."""
        if not len(self.codes):
            return np.zeros(len(code_N))
        sums = np.bincount(self.row_P, weights=weight_P, minlength=len(self.codes))
        at_N = np.minimum(np.searchsorted(self.codes, code_N), len(self.codes) - 1)
        return np.where(self.codes[at_N] == code_N, sums[at_N], 0.0)
