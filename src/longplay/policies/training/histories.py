"""Histories of engaged items: the training data, and the questions for early stopping."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from longplay.arrays import Int
from longplay.decisions import learners_histories
from longplay.errors import DataError
from longplay.index import ItemIndex, ranges
from longplay.lake.lake import Lake
from longplay.policies.generative.circumstances import NOTHING, Circumstances, CircumstanceTokens
from longplay.policies.generative.prompts import Windows

POOL = 32  # windows of so many batches are sorted by length, which leaves little padding


@dataclass(frozen=True)
class Histories:
    """What every user engaged with, in order: `leaves[offsets[u]:offsets[u+1]]` are user u's items,
    oldest first.

    `validation_users[U]` marks users who are only watched: the loss on them, and what they came to
    next, say when to stop. `circumstance_tokens` are those of `circumstances`, where these are
    read; `want[E]` is the level of each item's outcome, 0 where it is not known.
    """

    offsets: Int
    leaves: Int
    validation_users: NDArray[np.bool_]
    circumstances: Circumstances = NOTHING
    circumstance_tokens: CircumstanceTokens | None = None
    want: Int | None = None

    @property
    def digest(self) -> str:
        """SHA-256 of all that training reads of the histories, in hexadecimal. A checkpoint must
        agree on it."""
        circumstance_tokens = (
            ()
            if self.circumstance_tokens is None
            else (
                self.circumstance_tokens.leading,
                self.circumstance_tokens.trailing,
                self.circumstance_tokens.upcoming,
            )
        )
        wanted = () if self.want is None else (self.want,)
        digest = hashlib.sha256(repr(self.circumstances).encode())
        for values in (
            self.offsets,
            self.leaves,
            self.validation_users,
            *circumstance_tokens,
            *wanted,
        ):
            digest.update(
                repr((values.shape, values.dtype)).encode() + np.ascontiguousarray(values).tobytes()
            )
        return digest.hexdigest()

    def batches(
        self, users: Int, length: int, size: int, seed: int, thin: float = 0.0
    ) -> Iterator[Windows]:
        """Endless batches of windows of these users' histories: at most `size` windows, of at most
        `length` items.

        Every epoch has every event of every user once. A history of more than `length` items is cut
        at a random place, then after every `length` items. Windows of about equal length come
        together. What the k-th batch is follows from `seed` alone. Where outcomes are wanted, half
        of the windows stop at a random item whose outcome is known, and say it before that item.
        With `thin`, every epoch leaves out another share of the events, so that what comes next is
        also learned from what came before the last.
        """
        epoch = 0
        while True:
            rng = np.random.default_rng([seed, epoch])
            log = self.thinned(thin, rng) if thin else self
            first, stop = self._cut(
                log.offsets, users[np.diff(log.offsets)[users] > 0], length, rng
            )
            wanted = np.zeros(len(first), dtype=bool)
            if log.want is not None:
                stop, wanted = self._stop_at_outcomes(first, stop, log.want, rng)
            order = rng.permutation(len(first))
            pools = [
                order[start : start + size * POOL] for start in range(0, len(order), size * POOL)
            ]
            pools = [pool[np.argsort((stop - first)[pool], kind="stable")] for pool in pools]
            parts = [
                pool[start : start + size] for pool in pools for start in range(0, len(pool), size)
            ]
            for place in rng.permutation(len(parts)):
                yield log.window(first[parts[place]], stop[parts[place]], wanted[parts[place]])
            epoch += 1

    def thinned(self, share: float, rng: np.random.Generator) -> Histories:
        """The histories without a random share of their events.

        What is read circumstance_tokens an item stays: the gap before it is still that since the user's last
        event.
        """
        events_left = np.flatnonzero(rng.random(len(self.leaves)) >= share)
        circumstance_tokens = None
        if self.circumstance_tokens is not None:
            circumstance_tokens = self.circumstance_tokens.take(
                events_left, np.arange(len(self.circumstance_tokens.upcoming))
            )
        want = None if self.want is None else self.want[events_left]
        return replace(
            self,
            offsets=np.searchsorted(events_left, self.offsets),
            leaves=self.leaves[events_left],
            circumstance_tokens=circumstance_tokens,
            want=want,
        )

    def window(self, first: Int, stop: Int, wanted: NDArray[np.bool_] | None = None) -> Windows:
        """Windows of the items `leaves[first[n]:stop[n]]`. Where `wanted[n]`, the outcome of the
        last item is read before it."""
        place = first[:, None] + np.arange(int((stop - first).max()))
        real = place < stop[:, None]
        place = np.minimum(place, stop[:, None] - 1)
        leaves = np.where(real, self.leaves[place], 0)
        if self.circumstance_tokens is None:
            return Windows.of(leaves, real)
        leading = self.circumstance_tokens.leading[place]
        trailing = self.circumstance_tokens.trailing[place]
        leading[:, 0] = self.circumstances.first_read(leading[:, 0])
        if wanted is not None and self.want is not None and wanted.any():
            last = (stop - first - 1)[wanted]
            leading[wanted, last] = self.circumstances.wanted(
                leading[wanted, last], self.want[stop[wanted] - 1]
            )
        return Windows(leaves, real, leading, trailing)

    @staticmethod
    def _stop_at_outcomes(
        first: Int, stop: Int, want: Int, rng: np.random.Generator
    ) -> tuple[Int, NDArray[np.bool_]]:
        """Stops of the windows, about half of them behind a random item whose outcome is known, and
        which windows these are."""
        outcomes_so_far = np.concatenate([[0], np.cumsum(want > 0)])
        place = np.flatnonzero(want > 0)
        count = outcomes_so_far[stop] - outcomes_so_far[first]
        chosen = (count > 0) & (rng.random(len(first)) < 0.5)
        nth = outcomes_so_far[first] + (rng.random(len(first)) * count).astype(np.int64)
        if not len(place):
            return stop, chosen
        return np.where(chosen, place[np.where(chosen, nth, 0)] + 1, stop), chosen

    @staticmethod
    def _cut(offsets: Int, users: Int, length: int, rng: np.random.Generator) -> tuple[Int, Int]:
        low = offsets[users]
        high = offsets[users + 1]
        count = high - low
        phase = np.where(count > length, rng.integers(1, length + 1, size=len(users)), count)
        more = -(-(count - phase) // length)  # windows after the first
        owner = np.repeat(np.arange(len(users)), 1 + more)
        number = np.arange(len(owner)) - np.repeat(np.cumsum(1 + more) - (1 + more), 1 + more)
        first = np.where(number == 0, low[owner], low[owner] + phase[owner] + (number - 1) * length)
        stop = np.where(
            number == 0, low[owner] + phase[owner], np.minimum(first + length, high[owner])
        )
        return first, stop


@dataclass(frozen=True)
class Questions:
    """Next items to predict: after `leaves[offsets[n]:offsets[n+1]]`, oldest first, came the item
    `target[n]`."""

    offsets: Int
    leaves: Int
    target: Int
    circumstance_tokens: CircumstanceTokens | None = None

    def __len__(self) -> int:
        return len(self.target)

    def sample(self, most: int, seed: int) -> Questions:
        """At most `most` of the questions, drawn by `seed`."""
        if len(self) <= most:
            return self
        return self.take(
            np.sort(np.random.default_rng(seed).choice(len(self), most, replace=False))
        )

    def take(self, rows: Int) -> Questions:
        """The questions of these rows."""
        offsets, place = _places(self.offsets[rows], self.offsets[1:][rows])
        return Questions(
            offsets,
            self.leaves[place],
            self.target[rows],
            None
            if self.circumstance_tokens is None
            else self.circumstance_tokens.take(place, rows),
        )

    @classmethod
    def last_items(cls, histories: Histories, users: Int) -> Questions:
        """For each of these users with at least two items: predict the last one from the others."""
        users = users[np.diff(histories.offsets)[users] >= 2]
        everything = (
            CircumstanceTokens.none(len(histories.leaves), 0)
            if histories.circumstance_tokens is None
            else histories.circumstance_tokens
        )
        last = histories.offsets[1:][users] - 1
        offsets, place = _places(histories.offsets[users], last)
        circumstance_tokens = CircumstanceTokens(
            everything.leading[place], everything.trailing[place], everything.leading[last]
        )
        return cls(offsets, histories.leaves[place], histories.leaves[last], circumstance_tokens)


def _places(first: Int, stop: Int) -> tuple[Int, Int]:
    """The numbers first[n] to stop[n] - 1 of every n, one after the other: offsets [N + 1] and the
    numbers."""
    return np.concatenate([[0], np.cumsum(stop - first)]), ranges(first, stop - first)


def histories_from_log(
    lake: Lake,
    index: ItemIndex,
    available: NDArray[np.bool_],
    circumstances: Circumstances = NOTHING,
    outcomes: pl.DataFrame | None = None,
) -> Histories:
    """The engaged items of every user in the order of their events, without items that are not
    `available[I]`.

    See `learners_histories` for the order of events at the same instant, and for users that are
    left out where slates were logged. A twentieth of the others, by hash of their id, is only
    watched.

    Args:
        lake: the log.
        index: the catalogue's items by row.
        available: which items may be recommended, shape [I].
        circumstances: what is read beside the items.
        outcomes: columns user_id, item_id, time and value, of events that led to something (an
            `Outcomes.frame`; null or NaN: not known yet); needed where a wanted outcome is read.
            Their quantiles become its levels.

    Raises:
        DataError: no event has an item of the catalogue; or outcomes are missing, or none of them
            is of an event of a history.
    """
    events, offsets, leaves = learners_histories(lake, index, available)
    if not len(leaves):
        raise DataError(
            "train: no event has an available item of the catalogue, held-out users aside; is the "
            "log long enough?"
        )
    watched = (events["user_id"].gather(offsets[:-1]).hash(seed=20).to_numpy() % np.uint64(20)) == 0
    validation_users = watched if not watched.all() else ~watched
    if not circumstances.reads:
        return Histories(offsets, leaves, validation_users)
    want = None
    if "want" in circumstances.reads:
        value = _values(events, outcomes)
        circumstances = circumstances.wanting(value[~np.isnan(value)])
        want = circumstances.level(value)
    time = events["time"].dt.epoch("us").to_numpy().astype(float)
    return Histories(
        offsets,
        leaves,
        validation_users,
        circumstances,
        circumstances.tokens_of(offsets, time, events["kind"], events["surface"]),
        want,
    )


def _values(events: pl.DataFrame, outcomes: pl.DataFrame | None) -> NDArray[np.float64]:
    """The outcome of each event, [E]; NaN where it is unknown."""
    keys = ["user_id", "item_id", "time"]
    if outcomes is None:
        raise DataError(
            "train: a wanted outcome is read, but no outcomes are given; pass "
            "outcomes=OUTCOMES.frame, or leave 'want' out of reads"
        )
    if missing := [name for name in (*keys, "value") if name not in outcomes.columns]:
        raise DataError(
            f"train: outcomes have no column {missing[0]!r}, only {', '.join(outcomes.columns)}; "
            f"expected {', '.join(keys)} and value"
        )
    known_outcomes = (
        outcomes.select(*keys, pl.col("value").cast(pl.Float64).fill_nan(None))
        .drop_nulls()
        .unique(keys, keep="first", maintain_order=True)
    )
    joined = events.select(keys).join(known_outcomes, on=keys, how="left", maintain_order="left")
    value = joined["value"]
    if value.null_count() == len(value):
        raise DataError(
            f"train: none of {known_outcomes.height:,} known outcomes is of an event that "
            "histories hold (same user, item and time); "
            "take a signal that enters with plays or discoveries, and wait until some are known"
        )
    return value.fill_null(np.nan).to_numpy()
