"""Ids as row numbers: where ids stand in a catalogue, distinct keys, and runs of rows."""

from __future__ import annotations

from itertools import count

import numpy as np
import polars as pl
from numpy.typing import NDArray

from longplay.errors import DataError
from longplay.frames import Column, as_lists
from longplay.ids import ids as as_ids
from longplay.ids import ids_of


class ItemIndex:
    """Item ids <-> row numbers of a catalogue, vectorised."""

    def __init__(self, item_ids: Column) -> None:
        self.ids = ids_of(item_ids, "item_id")
        if self.ids.n_unique() != len(self.ids):
            raise DataError(
                f"catalogue: {len(self.ids) - self.ids.n_unique()} item ids occur twice; expected "
                "each once"
            )
        # sorted hashes are searched: a hash table made anew for every call would cost a small
        # request the whole catalogue
        for self._seed in count():  # the first one with which no two ids share a hash
            hashed = self.ids.hash(seed=self._seed).to_numpy()
            self._order = np.argsort(hashed)
            self._hashed = hashed[self._order]
            if (self._hashed[1:] != self._hashed[:-1]).all():
                break

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, ids: pl.Series) -> NDArray[np.int64]:
        """Row number of each id, -1 where it is not in the catalogue."""
        if ids.dtype != pl.String:
            ids = as_ids(ids)
        if not len(self) or not len(ids):
            return np.full(len(ids), -1)
        place = np.searchsorted(self._hashed, ids.hash(seed=self._seed).to_numpy())
        row = self._order[np.minimum(place, len(self) - 1)]
        return np.where((self.ids.gather(row) == ids).fill_null(False).to_numpy(), row, -1)

    def ragged_rows(self, lists: pl.Series) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """A list series as (offsets[N+1], rows): list n is rows[offsets[n]:offsets[n+1]]; unknown
        ids are -1."""
        lengths = lists.list.len().fill_null(0).to_numpy().astype(np.int64)
        flat = (
            lists.explode(empty_as_null=False) if lengths.sum() else pl.Series([], dtype=pl.String)
        )
        return np.concatenate([[0], np.cumsum(lengths)]), self.rows(flat)

    def slates(self, rows: NDArray[np.integer]) -> pl.Series:
        """Row numbers [N, S] as a list series of ids."""
        if rows.size and not 0 <= rows.min() <= rows.max() < len(self):
            raise DataError(
                f"slates: row numbers {rows.min()} to {rows.max()} given, expected 0 to "
                f"{len(self) - 1}; -1 stands for an unknown item"
            )
        n, slots = rows.shape
        return as_lists("slate", self.ids.gather(rows.ravel()), np.arange(n + 1) * slots)

    def slate_rows(self, slates: pl.Series) -> NDArray[np.int64]:
        """A list series of equally long slates as row numbers [N, S]; raises on an item that is not
        in the catalogue."""
        offsets, rows = self.ragged_rows(slates)
        lengths = np.unique(np.diff(offsets))
        if len(lengths) > 1:
            raise DataError(f"slates: lengths {lengths.tolist()} in one call, expected one length")
        if (rows < 0).any():
            bad = slates.explode()[int(np.flatnonzero(rows < 0)[0])]
            raise DataError(
                f"slates: item {bad!r} is not in this policy's catalogue of {len(self):,} items"
            )
        return rows.reshape(len(slates), int(lengths[0]) if len(lengths) else 0)


def distinct_keys(key_M: NDArray[np.int64]) -> NDArray[np.int64]:
    """The distinct whole numbers of a flat array, ascending.

    `np.unique` hashes since numpy 2.3, which takes a hundred times as long for many different keys.

    >>> distinct_keys(np.array([3, 1, 3])).tolist()
    [1, 3]
    """
    key_M = np.sort(key_M)
    return key_M[np.append(True, key_M[1:] != key_M[:-1])] if len(key_M) else key_M


def ranges(start_N: NDArray[np.int64], count_N: NDArray[np.int64]) -> NDArray[np.int64]:
    """Concatenated ranges: start_0 .. start_0 + count_0 - 1, start_1 .., and so on.

    >>> ranges(np.array([5, 0]), np.array([2, 3])).tolist()
    [5, 6, 0, 1, 2]
    """
    ends = np.cumsum(count_N)
    return np.repeat(start_N - (ends - count_N), count_N) + np.arange(
        int(ends[-1]) if len(ends) else 0
    )
