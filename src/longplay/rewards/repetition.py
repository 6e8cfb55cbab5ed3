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
from longplay.index import ItemIndex
from longplay.lake.daily import DAY_US
from longplay.past import Past

HALF_LIVES = (7.0, 28.0)  # days in which a showing counts half
MOST = 200  # showings that are looked back on
FEATURES = tuple(
    f"{of} shown, {days:g} days" for of in ("item", "creator", "page") for days in HALF_LIVES
)


@dataclass(frozen=True, eq=False)
class Showings:
    """Showings of a log, in the order of users and, of each user, in the order of times.

    Attributes:
        past: whose they are and when they were, known at once.
        item_P: item row, -1 unknown.
    """

    past: Past
    item_P: Int

    @classmethod
    def of(cls, user_P: Int, time_P: Int, item_P: Int) -> Self:
        """The showings in order.

        Args:
            user_P: row of each user.
            time_P: when it was shown, microseconds.
            item_P: item row, -1 unknown.
        """
        order = np.lexsort((time_P, user_P))
        return cls(Past(user_P[order], time_P[order], time_P[order]), item_P[order])

    def before(self, user_N: Int, time_N: Int) -> EarlierShowings:
        """The last `MOST` showings to each user strictly before each moment.

        Args:
            user_N: row of each moment's user, -1 for a user without showings.
            time_N: the moments, microseconds.
        """
        offsets, row_P = self.past.last(user_N, time_N, MOST)
        owner_P = np.repeat(np.arange(len(user_N)), np.diff(offsets))
        age_P = (time_N[owner_P] - self.past.time_E[row_P]) / DAY_US
        return EarlierShowings(len(user_N), owner_P, self.item_P[row_P], age_P)


@dataclass(frozen=True, eq=False)
class EarlierShowings:
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
        weight_HP = np.stack([0.5 ** (self.age_P / days) for days in HALF_LIVES])
        by_item = self._sums(owner_N, item_N, self.item_P, weight_HP)
        by_key = self._sums(owner_N, key_I[item_N], key_I[self.item_P], weight_HP)
        by_page = [self.page(days)[owner_N] for days in HALF_LIVES]
        return np.column_stack([*by_item, *by_key, *by_page])

    def _sums(self, owner_N: Int, group_N: Int, group_P: Int, weight_HP: Float) -> list[Float]:
        """Sums of the weights of the showings of each slot's group before its moment, one array [N] per
        row of weights. Slots of a moment are compared with its showings one at a time."""
        order = np.argsort(owner_N, kind="stable")
        nth = np.arange(len(order)) - np.searchsorted(owner_N[order], owner_N[order])
        sums = [np.zeros(len(owner_N)) for _ in weight_HP]
        slot_M = np.full(self.moments, -1)
        for place in range(int(nth.max(initial=-1)) + 1):
            rows = order[nth == place]
            slot_M[:] = -1
            slot_M[owner_N[rows]] = rows
            group_M = np.where(slot_M >= 0, group_N[slot_M], -1)
            shown = np.flatnonzero((group_P == group_M[self.owner_P]) & (group_P >= 0))
            slot_P = slot_M[self.owner_P[shown]]
            for total_N, weight_P in zip(sums, weight_HP, strict=True):
                total_N += np.bincount(slot_P, weights=weight_P[shown], minlength=len(owner_N))
        return sums
