"""Look-ups of who touched what before a moment, indexed once per view of the lake.

Axes: N contexts, S slots, E events, P distinct (user, key) pairs, I catalogue items, K keys (items
or creators).
"""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from longplay.arrays import Int
from longplay.index import ItemIndex, distinct_keys
from longplay.lake.creators import item_creators, named_events
from longplay.lake.daily import DAY_US
from longplay.lake.lake import Lake
from longplay.lake.schema import ENGAGED
from longplay.signals.declare.entry import Key

NEVER = np.iinfo(np.int64).min


class LakeIndex:
    """Look-ups in a lake: each user's touches of keys, and each user's events by time.

    Attributes:
        lake: the log.
        items: items by row.
        item_row: item id -> catalogue row (the lake's items and every item of its events).
        keys: creators or items by row.
        key_row_I: row of the item's key (itself, or its creator) in `key_ids`, -1 where it has
            none.
        key_ids_I: the key's id per catalogue item, null where it has none.
        user_row: user id -> row.
        moments: distinct times of events, microseconds, sorted.
        base: number of moments plus 1: the step between pairs in the sorted codes.
    """

    def __init__(self, lake: Lake, of: Key | None) -> None:
        self.lake = lake  # held so that the lake's identity, part of its key, is not used again
        key = f"{of or 'item'}_id"
        events = (
            named_events(lake)
            .filter(pl.col("kind").is_in(ENGAGED))
            .select("user_id", "item_id", "creator_id", "time")
        )
        catalogue = item_creators(lake)
        self.items = ItemIndex(catalogue["item_id"])
        self.item_row = {item: row for row, item in enumerate(self.items.ids)}
        self.key_ids_I = catalogue[key]
        self.keys = ItemIndex(pl.concat([catalogue[key], events[key]]).drop_nulls().unique().sort())
        self.key_row_I = (
            self.keys.rows(self.key_ids_I) if len(self.items) else np.zeros(0, dtype=np.int64)
        )
        users = ItemIndex(events["user_id"].unique().sort())
        self.user_row = {user: row for row, user in enumerate(users.ids)}
        time_E = events["time"].dt.epoch("us").to_numpy()
        user_E = users.rows(events["user_id"]) if len(events) else np.zeros(0, dtype=np.int64)
        self.moments = distinct_keys(time_E)
        rank_E = np.searchsorted(self.moments, time_E)
        # an event is found by the number pair * (moments + 1) + rank of its time: one sorted array,
        # one searchsorted
        self.base = len(self.moments) + 1
        key_E = self.keys.rows(events[key]) if len(events) else user_E
        has_key_E = key_E >= 0
        pair_E = user_E[has_key_E] * max(len(self.keys), 1) + key_E[has_key_E]
        self.pairs, pair_row_E = np.unique(pair_E, return_inverse=True)
        code_E = pair_row_E * self.base + rank_E[has_key_E]
        order = np.argsort(code_E, kind="stable")
        self._touch_code = code_E[order]
        self._touch_time = time_E[has_key_E][order]
        item_E = self.items.rows(events["item_id"]) if len(events) else user_E
        played_E = item_E >= 0
        code_E = user_E[played_E] * self.base + rank_E[played_E]
        order = np.argsort(code_E, kind="stable")
        self._play_code = code_E[order]
        self._play_item = item_E[played_E][order]

    def slots(self, slates: pl.Series) -> Int:
        """Catalogue rows of equally long slates, flat; -1 for items that the lake does not know."""
        find = self.item_row.get
        flat = slates.explode(empty_as_null=False).to_list() if len(slates) else []
        return np.fromiter((find(item, -1) for item in flat), dtype=np.int64, count=len(flat))

    def users(self, user_ids: pl.Series) -> Int:
        """Row of each user; -1 where the lake has no activity of the user."""
        find = self.user_row.get
        return np.fromiter(
            (find(user, -1) for user in user_ids.to_list()), dtype=np.int64, count=len(user_ids)
        )

    def last_touch(self, user_N: Int, key_N: Int, time_N: Int) -> Int:
        """The time (microseconds) of the user's last touch of the key strictly before a time; NEVER
        where there is none."""
        if not len(self._touch_code):
            return np.full(len(user_N), NEVER)
        pair_N = user_N * max(len(self.keys), 1) + key_N
        at_N = np.minimum(np.searchsorted(self.pairs, pair_N), len(self.pairs) - 1)
        is_pair_N = (user_N >= 0) & (key_N >= 0) & (self.pairs[at_N] == pair_N)
        last_N = (
            np.searchsorted(
                self._touch_code, at_N * self.base + np.searchsorted(self.moments, time_N)
            )
            - 1
        )
        has_touch_N = is_pair_N & (last_N >= 0) & (self._touch_code[last_N] // self.base == at_N)
        return np.where(has_touch_N, self._touch_time[last_N], NEVER)

    def touched(self, user_N: Int, key_N: Int, from_N: Int, until_N: Int) -> NDArray[np.bool_]:
        """Whether the user touched the key between two times (microseconds), both included."""
        if not len(self._touch_code):
            return np.zeros(len(user_N), dtype=bool)
        pair_N = user_N * max(len(self.keys), 1) + key_N
        at_N = np.minimum(np.searchsorted(self.pairs, pair_N), len(self.pairs) - 1)
        is_pair_N = (user_N >= 0) & (key_N >= 0) & (self.pairs[at_N] == pair_N)
        rank_N = np.searchsorted(self.moments, from_N)
        first_N = np.searchsorted(self._touch_code, at_N * self.base + rank_N)
        end_N = np.searchsorted(self.moments, until_N, side="right")
        stop_N = np.searchsorted(self._touch_code, at_N * self.base + end_N)
        return is_pair_N & (stop_N > first_N)

    def familiar(
        self, user_N: Int, key_N: Int, time_N: Int, novel_for: int | None
    ) -> NDArray[np.bool_]:
        """Whether an entry is impossible: the user touched the key within the `novel_for` calendar
        days before (null: ever)."""
        last_N = self.last_touch(user_N, key_N, time_N)
        touched_N = last_N != NEVER
        if novel_for is None:
            return touched_N
        return touched_N & (
            time_N // DAY_US - np.where(touched_N, last_N, 0) // DAY_US <= novel_for
        )

    def recent(self, user_N: Int, time_N: Int, limit: int) -> sparse.csr_matrix:
        """Counts of each catalogue item among the user's last `limit` engaged events strictly
        before the time, sparse [N, I]."""
        last_N = np.searchsorted(
            self._play_code, user_N * self.base + np.searchsorted(self.moments, time_N)
        )
        first_N = np.maximum(np.searchsorted(self._play_code, user_N * self.base), last_N - limit)
        length_N = np.where(user_N >= 0, np.maximum(last_N - first_N, 0), 0)
        offsets = np.concatenate([[0], np.cumsum(length_N)])
        take = (
            np.arange(offsets[-1])
            - np.repeat(offsets[:-1], length_N)
            + np.repeat(first_N, length_N)
        )
        return sparse.csr_matrix(
            (np.ones(len(take)), self._play_item[take], offsets),
            shape=(len(user_N), len(self.items)),
        )

    def histories(self, lists: pl.Series, limit: int) -> sparse.csr_matrix:
        """Counts of each catalogue item among the last `limit` ids of each list, sparse [N, I];
        unknown ids are left out."""
        lists = lists.list.tail(limit)
        length_N = lists.list.len().fill_null(0).to_numpy().astype(np.int64)
        rows = self.slots(lists.filter(pl.Series(length_N > 0)))
        owner = np.repeat(np.arange(len(lists)), length_N)[rows >= 0]
        rows = rows[rows >= 0]
        return sparse.csr_matrix(
            (np.ones(len(rows)), (owner, rows)), shape=(len(lists), len(self.items))
        )
