"""What users engaged with, in order: what next-item training reads, and the questions that say when it has learned enough."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from longplay.decisions import ItemIndex, learners_histories
from longplay.errors import DataError
from longplay.lake.lake import Lake

Ints = NDArray[np.int64]

POOL = 32  # batches among which windows are sorted by length, so that little is padding


@dataclass(frozen=True)
class Histories:
    """What every user engaged with, in order: `leaves[offsets[u]:offsets[u+1]]` are user u's items, oldest first.

    `held_out[U]` marks users who are only watched: the loss on them, and what they came to next, say when to stop.
    """

    offsets: Ints
    leaves: Ints
    held_out: NDArray[np.bool_]

    def batches(self, users: Ints, length: int, size: int, seed: int) -> Iterator[tuple[Ints, NDArray[np.bool_]]]:
        """Windows of these users' histories without end: leaves [N, T] and which are real, N <= `size`, T <= `length`; padded at the end (leaf 0).

        Every epoch has every event of every user once. A history of more than `length` items is cut at a random place, then after every
        `length` items. Windows of about equal length come together. What the k-th batch is follows from `seed` alone.
        """
        epoch = 0
        while True:
            rng = np.random.default_rng([seed, epoch])
            first, stop = self._cut(users, length, rng)
            order = rng.permutation(len(first))
            pools = [order[start : start + size * POOL] for start in range(0, len(order), size * POOL)]
            pools = [pool[np.argsort((stop - first)[pool], kind="stable")] for pool in pools]
            parts = [pool[start : start + size] for pool in pools for start in range(0, len(pool), size)]
            for place in rng.permutation(len(parts)):
                yield self.window(first[parts[place]], stop[parts[place]])
            epoch += 1

    def window(self, first: Ints, stop: Ints) -> tuple[Ints, NDArray[np.bool_]]:
        """The items `leaves[first[n]:stop[n]]`, padded at the end: leaves and which are real, both [N, T]."""
        place = first[:, None] + np.arange(int((stop - first).max()))
        real = place < stop[:, None]
        return np.where(real, self.leaves[np.minimum(place, stop[:, None] - 1)], 0), real

    def _cut(self, users: Ints, length: int, rng: np.random.Generator) -> tuple[Ints, Ints]:
        low, high = self.offsets[users], self.offsets[users + 1]
        count = high - low
        phase = np.where(count > length, rng.integers(1, length + 1, size=len(users)), count)
        more = -(-(count - phase) // length)  # windows after the first
        owner = np.repeat(np.arange(len(users)), 1 + more)
        number = np.arange(len(owner)) - np.repeat(np.cumsum(1 + more) - (1 + more), 1 + more)
        first = np.where(number == 0, low[owner], low[owner] + phase[owner] + (number - 1) * length)
        stop = np.where(number == 0, low[owner] + phase[owner], np.minimum(first + length, high[owner]))
        return first, stop


@dataclass(frozen=True)
class Questions:
    """What came next: after `leaves[offsets[n]:offsets[n+1]]`, oldest first, came the item `target[N]`."""

    offsets: Ints
    leaves: Ints
    target: Ints

    def __len__(self) -> int:
        return len(self.target)

    def sample(self, most: int, seed: int) -> Questions:
        """At most `most` of them, drawn by `seed`; the same ones each time."""
        if len(self) <= most:
            return self
        rows = np.sort(np.random.default_rng(seed).choice(len(self), most, replace=False))
        return Questions(*self.of(rows), self.target[rows])

    def of(self, rows: Ints) -> tuple[Ints, Ints]:
        """Offsets and leaves of the histories of these rows."""
        count = np.diff(self.offsets)[rows]
        offsets = np.concatenate([[0], np.cumsum(count)])
        place = np.repeat(self.offsets[rows] - offsets[:-1], count) + np.arange(offsets[-1])
        return offsets, self.leaves[place]

    @classmethod
    def last_items(cls, histories: Histories, users: Ints) -> Questions:
        """The last item of each of these users who has at least two, after all the others."""
        users = users[np.diff(histories.offsets)[users] >= 2]
        all_of = cls(histories.offsets, histories.leaves, np.empty(len(histories.offsets) - 1, dtype=np.int64))
        offsets, leaves = all_of.of(users)
        last = np.zeros(len(leaves), dtype=bool)
        last[offsets[1:] - 1] = True
        return cls(offsets - np.arange(len(offsets)), leaves[~last], leaves[last])


def histories_from_log(lake: Lake, index: ItemIndex, available: NDArray[np.bool_]) -> Histories:
    """The engaged items of every user in the order of their events, without items that are not `available[I]`.

    See `learners_histories` for the order of events at the same instant, and for users that are left out where slates were logged.
    A twentieth of the others, by hash of their id, is only watched.

    Raises:
        DataError: no event has an item of the catalogue.
    """
    users, offsets, leaves = learners_histories(lake, index, available)
    if not len(leaves):
        raise DataError("train: no event has an available item of the catalogue, held-out users aside; is the log long enough?")
    watched = (users.hash(seed=20).to_numpy() % np.uint64(20)) == 0
    return Histories(offsets, leaves, watched if not watched.all() else ~watched)
