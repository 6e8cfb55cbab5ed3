"""A user's past as tokens: what happened strictly before a moment, and had arrived by then.

Models that decide take `EarlierEvents`, which refuse an event at or after their moment. A log's events
become such a view only through `EventTokens.before`.

Axes: E events of a log, N moments, P events before moments, I items, K keys (creators or items).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import polars as pl

from longplay.arrays import Float, Int
from longplay.decisions import Contexts
from longplay.errors import DataError
from longplay.index import ItemIndex, ranges
from longplay.lake.creators import named_events
from longplay.lake.daily import DAY_US
from longplay.lake.lake import Lake
from longplay.lake.schema import ENGAGED, KINDS, ORIGINS
from longplay.past import Past
from longplay.rewards.particulars import Catalogue

MOST_EVENTS = 64  # that are looked back on
MOST_SURFACES = 30  # that are told apart
RECENT = (7.0, 28.0)  # days within which a user's events are counted


@dataclass(frozen=True)
class Vocabulary:
    """Numbers of kinds, surfaces, origins, items and keys; 0 is unknown for the first three, -1 for the
    last two."""

    surfaces: tuple[str, ...]
    items: ItemIndex
    keys: ItemIndex
    key_I: Int
    by_creator: bool

    @classmethod
    def of(cls, lake: Lake | None, catalogue: Catalogue, by_creator: bool) -> Self:
        """The vocabulary of a log: its most frequent surfaces, and the items and keys of a catalogue.

        Args:
            lake: the log; None: no surface is known.
            catalogue: items and keys.
            by_creator: whether keys are creators; else items.
        """
        surfaces: tuple[str, ...] = ()
        if lake is not None:
            counted = lake.events["surface"].drop_nulls().value_counts()
            counted = counted.sort(["count", "surface"], descending=[True, False])
            surfaces = tuple(counted["surface"].head(MOST_SURFACES))
        return cls(surfaces, catalogue.items, catalogue.keys, catalogue.key_I, by_creator)

    def kind(self, names: pl.Series) -> Int:
        """Numbers of kinds."""
        return _numbers(names, KINDS)

    def surface(self, names: pl.Series) -> Int:
        """Numbers of surfaces."""
        return _numbers(names, self.surfaces)

    def origin(self, names: pl.Series) -> Int:
        """Numbers of origins."""
        return _numbers(names, ORIGINS)


def _numbers(names: pl.Series, words: tuple[str, ...]) -> Int:
    if not len(words) or not len(names):
        return np.zeros(len(names), dtype=np.int64)
    places = dict(zip(words, range(1, len(words) + 1), strict=True))
    numbers = names.cast(pl.String).replace_strict(places, default=0, return_dtype=pl.Int64)
    return numbers.fill_null(0).to_numpy()


@dataclass(frozen=True, eq=False)
class EarlierEvents:
    """The last events before each of N moments, oldest first: all that a decision may be made from.

    Attributes:
        moment_N: the moments, microseconds.
        offsets: the events of moment n are `offsets[n]` to `offsets[n + 1]`.
        time_P: when they happened, each before its moment.
        kind_P: number of the kind.
        surface_P: number of the surface.
        origin_P: number of the origin.
        item_P: item row, -1 unknown.
        key_P: row of the creator (or item) that entries are about, -1 unknown.

    Raises:
        DataError: an event at or after its moment.
    """

    moment_N: Int
    offsets: Int
    time_P: Int
    kind_P: Int
    surface_P: Int
    origin_P: Int
    item_P: Int
    key_P: Int

    def __post_init__(self) -> None:
        late = self.time_P >= self.moment_N[self.owners]
        if late.any():
            raise DataError(
                f"EarlierEvents: {int(late.sum()):,} events at or after the moment of the decision, "
                "expected events strictly before it; take them from EventTokens.before"
            )

    def __len__(self) -> int:
        return len(self.moment_N)

    @property
    def lengths(self) -> Int:
        """Number of events before each moment, [N]."""
        return np.diff(self.offsets)

    @property
    def owners(self) -> Int:
        """The moment of each event, [P]."""
        return np.repeat(np.arange(len(self.moment_N)), self.lengths)

    def gaps(self) -> Float:
        """Days since the event before, [P]; 0 for the first."""
        gap_P = np.diff(self.time_P, prepend=self.time_P[:1]) / DAY_US
        gap_P[self.offsets[:-1][self.lengths > 0]] = 0.0
        return np.maximum(gap_P, 0.0)

    def take(self, rows: Int) -> EarlierEvents:
        """These of the moments."""
        events = ranges(self.offsets[rows], self.lengths[rows])
        offsets = np.concatenate([[0], np.cumsum(self.lengths[rows])])
        return EarlierEvents(
            self.moment_N[rows],
            offsets,
            self.time_P[events],
            self.kind_P[events],
            self.surface_P[events],
            self.origin_P[events],
            self.item_P[events],
            self.key_P[events],
        )


@dataclass(frozen=True, eq=False)
class EventTokens:
    """Events of a log that say what users chose, in the order in which they became known.

    Attributes:
        users: users by row.
        past: whose they are and from when on they were known.
        time_E: when they happened.
        kind_E: see `EarlierEvents`, as the rest.
        surface_E: number of the surface.
        origin_E: number of the origin.
        item_E: item row.
        key_E: key row.
    """

    users: ItemIndex
    past: Past
    time_E: Int
    kind_E: Int
    surface_E: Int
    origin_E: Int
    item_E: Int
    key_E: Int

    @classmethod
    def of(cls, lake: Lake | None, vocabulary: Vocabulary) -> Self:
        """The engaged events of a lake that name an item or a creator; None: no events."""
        if lake is None:
            none = np.zeros(0, dtype=np.int64)
            return cls(ItemIndex([]), Past(none, none, none), *[none] * 6)
        key = "creator_id" if vocabulary.by_creator else "item_id"
        events = named_events(lake).filter(
            pl.col("kind").is_in(ENGAGED)
            & (pl.col("item_id").is_not_null() | pl.col("creator_id").is_not_null())
        )
        users = ItemIndex(events["user_id"].unique().sort())
        user_E = users.rows(events["user_id"])
        time_E = events["time"].dt.epoch("us").to_numpy()
        arrived_E = events["ingested_at"].dt.epoch("us").to_numpy()
        # known at a moment t: time < t and arrived <= t, which is max(time, arrived - 1) < t
        known_E = np.maximum(time_E, arrived_E - 1)
        columns = [
            time_E,
            vocabulary.kind(events["kind"]),
            vocabulary.surface(events["surface"]),
            vocabulary.origin(events["origin"]),
            vocabulary.items.rows(events["item_id"]),
            vocabulary.keys.rows(events[key]),
        ]
        order = np.lexsort((*columns[::-1], known_E, user_E))
        past = Past(user_E[order], known_E[order], known_E[order])
        return cls(users, past, *(column[order] for column in columns))

    def before(self, user_N: Int, time_N: Int, most: int = MOST_EVENTS) -> EarlierEvents:
        """The last events that were known strictly before each moment.

        Args:
            user_N: row of each moment's user, -1 for a user without events.
            time_N: the moments, microseconds.
            most: events of each.
        """
        offsets, row_P = self.past.last(user_N, time_N, most)
        return self._view(time_N, offsets, row_P)

    def before_contexts(
        self, contexts: Contexts, watermark: int, vocabulary: Vocabulary
    ) -> EarlierEvents:
        """The last events before each context: of this log, and behind the log's end those of the history
        that the context carries.

        Args:
            contexts: N of them.
            watermark: up to when the log is complete, microseconds.
            vocabulary: of the log.
        """
        frame = contexts.frame
        time_N = frame["time"].dt.epoch("us").to_numpy()
        logged = self.before(self.users.rows(frame["user_id"]), time_N)
        carried = frame.select(
            "history", "history_time", "history_kind", "history_surface", "time"
        ).with_row_index("moment")
        carried = carried.filter(
            (pl.col("history").list.len() > 0)
            & (pl.col("history_time").list.len() == pl.col("history").list.len())
        )
        if carried.is_empty():
            return logged
        carried = carried.with_columns(
            pl.when(pl.col(name).list.len() == pl.col("history").list.len())
            .then(pl.col(name))
            .otherwise(pl.col("history").list.eval(pl.lit(None, dtype=pl.String)))
            for name in ("history_kind", "history_surface")
        ).explode("history", "history_time", "history_kind", "history_surface")
        moment = pl.col("history_time").dt.epoch("us")
        carried = carried.filter((moment >= watermark) & (pl.col("history_time") < pl.col("time")))
        item_C = vocabulary.items.rows(carried["history"])
        columns_C = [
            carried["history_time"].dt.epoch("us").to_numpy(),
            vocabulary.kind(carried["history_kind"]),
            vocabulary.surface(carried["history_surface"]),
            np.zeros(carried.height, dtype=np.int64),  # contexts do not say origins
            item_C,
            vocabulary.key_I[item_C],
        ]
        columns_P = [
            logged.time_P,
            logged.kind_P,
            logged.surface_P,
            logged.origin_P,
            logged.item_P,
            logged.key_P,
        ]
        owner = np.concatenate([logged.owners, carried["moment"].to_numpy().astype(np.int64)])
        columns = [np.concatenate(pair) for pair in zip(columns_P, columns_C, strict=True)]
        order = np.lexsort((columns[0], owner))
        ends = np.searchsorted(owner[order], np.arange(len(time_N)), side="right")
        count = np.minimum(np.bincount(owner, minlength=len(time_N)), MOST_EVENTS)
        rows = order[ranges(ends - count, count)]
        offsets = np.concatenate([[0], np.cumsum(count)])
        return EarlierEvents(time_N, offsets, *(column[rows] for column in columns))

    def windows(self, user_ids: pl.Series, time_N: Int) -> Windows:
        """The events before each moment as places in windows of a user's events, so that a causal model
        encodes a window once for all its moments.

        Args:
            user_ids: user of each moment; users without events have a window each.
            time_N: the moments, microseconds.
        """
        user_N = self.users.rows(user_ids)
        owner_N = ItemIndex(user_ids.unique().sort()).rows(user_ids)
        start_N = np.searchsorted(self.past.user_E, user_N)
        offsets, _ = self.past.last(user_N, time_N, len(self.time_E))
        count_N = np.diff(offsets)
        half = MOST_EVENTS // 2
        window_N = np.maximum(-(-(count_N - MOST_EVENTS) // half), 0)
        base = int(window_N.max(initial=0)) + 1
        codes, row_N = np.unique(owner_N * base + window_N, return_inverse=True)
        row_N = row_N.ravel()
        place_N = count_N - half * window_N
        length_W = np.zeros(len(codes), dtype=np.int64)
        np.maximum.at(length_W, row_N, place_N)
        moment_W = np.zeros(len(codes), dtype=np.int64)
        np.maximum.at(moment_W, row_N, time_N)
        start_W = np.zeros(len(codes), dtype=np.int64)
        start_W[row_N] = start_N + half * window_N
        rows = ranges(start_W, length_W)
        view = self._view(moment_W, np.concatenate([[0], np.cumsum(length_W)]), rows)
        return Windows(view, codes // base, row_N, place_N)

    def _view(self, moment_N: Int, offsets: Int, row_P: Int) -> EarlierEvents:
        return EarlierEvents(
            moment_N,
            offsets,
            self.time_E[row_P],
            self.kind_E[row_P],
            self.surface_E[row_P],
            self.origin_E[row_P],
            self.item_E[row_P],
            self.key_E[row_P],
        )


@dataclass(frozen=True, eq=False)
class Windows:
    """Moments as places in windows of users' events.

    Attributes:
        events: of W windows, each as of its last moment.
        user_W: number of each window's user.
        window_N: the window of each moment.
        place_N: number of the window's events that were known strictly before the moment.
    """

    events: EarlierEvents
    user_W: Int
    window_N: Int
    place_N: Int


def moment_features(events: EarlierEvents, place_N: Int, window_N: Int, time_N: Int) -> Float:
    """What is known of moments beside single events, [N, 4]: whether there was any event, the days since
    the last, and how many there were within `RECENT` days, each as a log.

    Args:
        events: of windows.
        place_N: number of the window's events that come before each moment.
        window_N: the window of each moment.
        time_N: the moments, microseconds.
    """
    start_N = events.offsets[window_N]
    has_N = place_N > 0
    last_N = start_N + np.maximum(place_N - 1, 0)
    time_P = events.time_P if len(events.time_P) else np.zeros(1, dtype=np.int64)
    since_N = (time_N - time_P[np.minimum(last_N, len(time_P) - 1)]) / DAY_US
    columns = [has_N.astype(float), np.where(has_N, np.log1p(np.maximum(since_N, 0)), 0.0)]
    for days in RECENT:
        rows = ranges(start_N, place_N)
        owner = np.repeat(np.arange(len(time_N)), place_N)
        recent = time_P[rows] > time_N[owner] - days * DAY_US if len(rows) else rows
        columns.append(np.log1p(np.bincount(owner, weights=recent, minlength=len(time_N))))
    return np.column_stack(columns)
