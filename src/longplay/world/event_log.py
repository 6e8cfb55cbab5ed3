"""What a day leaves in the log: its events, and its plays as small numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray
from scipy.special import expit

from longplay.arrays import Float, Int
from longplay.lake.daily import DAY_US
from longplay.lake.schema import TIME, conform, empty
from longplay.world.catalogue import LENGTH_S, START, Catalogue, Market
from longplay.world.dynamics import (
    HOME,
    LIBRARY,
    ORGANIC,
    SEARCH,
    SHELF,
    SHELF_SLOTS,
    SURFACES,
    USUAL_WORTH,
    Plays,
    usual_worth,
)
from longplay.world.luck import DayLuck, Stream

# seconds after the visit's begin: where the plays of each place begin, and where they must end
_SPAN_S = {
    HOME: (10, 1_190),
    SHELF: (1_210, 1_990),
    SEARCH: (2_010, 2_390),
    LIBRARY: (2_400, 8_400),
}
_AUTOPLAY_S = (8_400, 14_000)
_MOST_LOOPS = 12
LETTER = "hnsl"  # a letter per place; v is the visit itself, a is autoplay
KINDS = ("play", "save")  # what a history is made of
PLACES = (*SURFACES, "autoplay")


@dataclass(frozen=True, eq=False)
class _Rows:
    """Event rows of a day, before they get ids; `tag_E` tells apart the events of one user on one
    day."""

    row_E: Int
    second_E: NDArray[np.number]
    event_kind: str
    item_E: Int
    surface: pl.Series | str
    origin: pl.Series | str
    seconds_E: Float
    tag_E: pl.Series
    slot_E: Int
    letter_E: pl.Series | None = None


def events_of_day(
    day: int,
    user_N: Int,
    second_N: Int,
    plays: Plays,
    left_R: Int,
    taste_RD: NDArray[np.float32],
    subscriber_U: NDArray[np.bool_],
    luck: DayLuck,
    user_ids: pl.Series,
    market: Market,
    home_slots: int,
    mislabelled: float = 0.0,
) -> tuple[pl.DataFrame, DayPlays]:
    """The events table of one day, and the day's plays and saves.

    A visit per active user `user_N` at `second_N` of the day, then its plays, what follows them
    (a skip of what disappoints, a save of what does not, autoplay), and cancellations of those who
    left (`left_R`). Event ids and the times of organic plays do not depend on what was shown. A share
    `mislabelled` of the plays is logged with the wrong origin.
    """
    catalogue = market.catalogue
    where_P = np.searchsorted(user_N, plays.row_P)
    place_P = plays.place_P
    nth_P, count_P = _places(plays.row_P * 4 + place_P)
    listed_P = plays.slot_P >= 0
    begin_4, end_4 = np.array([_SPAN_S[place] for place in range(4)]).T
    of_P = np.where(
        place_P == LIBRARY,
        count_P,
        np.where(place_P == HOME, home_slots, np.where(place_P == SHELF, SHELF_SLOTS, 1)),
    )
    gap_P = np.minimum(LENGTH_S, (end_4 - begin_4)[place_P] / of_P)
    step_P = np.where(place_P == LIBRARY, nth_P, np.where(place_P == SEARCH, 0, plays.slot_P))
    second_P = second_N[where_P] + begin_4[place_P] + step_P * gap_P
    k_P = place_P * 1_000 + np.where(listed_P, plays.slot_P, nth_P)
    row_luck = luck.take(plays.row_P)
    worth_P = usual_worth(taste_RD, catalogue, plays.row_P, plays.item_P)
    regret_P = row_luck.uniform(Stream.AFTER, k_P) < expit(
        -2.0 - 1.5 * np.log(np.maximum(worth_P, 1e-9) / USUAL_WORTH)
    )
    listened_P = (
        np.where(regret_P, 0.1, 0.35 + 0.65 * row_luck.uniform(Stream.SECONDS, k_P)) * gap_P
    )
    saved_P = ~regret_P & (
        row_luck.uniform(Stream.AFTER, 10_000 + k_P) < np.minimum(0.04 * worth_P, 0.5)
    )
    loops_P = _loops(catalogue.loop_I[plays.item_P], row_luck.uniform(Stream.LOOP, k_P))

    auto_row = np.repeat(plays.row_P, loops_P)
    auto_j, _ = _places(np.repeat(np.arange(len(plays)), loops_P))
    auto_k = np.repeat(k_P, loops_P) * (_MOST_LOOPS + 1) + auto_j
    auto_item = market.item_of(
        catalogue.creator_I[np.repeat(plays.item_P, loops_P)],
        luck.take(auto_row).uniform(Stream.LOOP, 100_000 + auto_k),
    )
    auto_nth, auto_count = _places(auto_row)
    auto_gap = np.minimum(LENGTH_S, (_AUTOPLAY_S[1] - _AUTOPLAY_S[0]) / np.maximum(auto_count, 1))
    auto_second = second_N[np.searchsorted(user_N, auto_row)] + _AUTOPLAY_S[0] + auto_nth * auto_gap

    surface_P = pl.Series(SURFACES).gather(place_P)
    letter_P = pl.Series(list(LETTER)).gather(place_P)
    labelled_P = plays.organic
    if mislabelled > 0:
        labelled_P = labelled_P ^ (row_luck.uniform(Stream.LABEL, k_P) < mislabelled)
    origin_P = pl.Series(["recommended", "organic"]).gather(labelled_P.astype(np.int64))
    tag_P = _tag(letter_P, np.where(listed_P, plays.slot_P, nth_P))
    left_R = left_R[subscriber_U[left_R]]
    rows = [
        _Rows(
            user_N,
            second_N,
            "visit",
            _none(user_N),
            "home",
            "organic",
            np.full(len(user_N), np.nan),
            _same("v", len(user_N)),
            _none(user_N),
        ),
        _Rows(
            plays.row_P,
            second_P,
            "play",
            plays.item_P,
            surface_P,
            origin_P,
            listened_P,
            tag_P,
            plays.slot_P,
            letter_P,
        ),
        _after(
            "skip", plays, regret_P, second_P + listened_P, surface_P, origin_P, tag_P, letter_P
        ),
        _after("save", plays, saved_P, second_P + listened_P, surface_P, origin_P, tag_P, letter_P),
        _Rows(
            auto_row,
            auto_second,
            "play",
            auto_item,
            "autoplay",
            "autoplay",
            0.9 * auto_gap,
            _tag(_same("a", len(auto_row)), auto_k),
            _none(auto_row),
        ),
        _Rows(
            left_R,
            np.full(len(left_R), 86_000),
            "cancel",
            _none(left_R),
            "account",
            "organic",
            np.full(len(left_R), np.nan),
            _same("c", len(left_R)),
            _none(left_R),
        ),
    ]
    # what a history is made of
    engaged = [kind_rows for kind_rows in rows if kind_rows.event_kind in KINDS]
    item = np.concatenate([kind_rows.item_E for kind_rows in engaged])
    row = np.concatenate([kind_rows.row_E for kind_rows in engaged])
    second_us = np.concatenate([_us(kind_rows.second_E) for kind_rows in engaged])
    order = np.lexsort((second_us, row))
    how = np.concatenate([_how(kind_rows) for kind_rows in engaged])
    frame = _frame(
        [kind_rows for kind_rows in rows if len(kind_rows.row_E)], day, user_ids, catalogue
    )
    second = (second_us[order] // 1_000_000).astype(np.int32)
    return frame, DayPlays(
        day, row[order].astype(np.int32), item[order].astype(np.int32), second, how[order]
    )


def _after(
    kind: str,
    plays: Plays,
    which_P: NDArray[np.bool_],
    second_P: Float,
    surface_P: pl.Series,
    origin_P: pl.Series,
    tag_P: pl.Series,
    letter_P: pl.Series,
) -> _Rows:
    """Events that follow each of these plays as it ends."""
    keep = pl.Series(which_P)
    tags = pl.select((tag_P.filter(keep) + kind[:2]).alias("tag"))["tag"]
    return _Rows(
        plays.row_P[which_P],
        second_P[which_P],
        kind,
        plays.item_P[which_P],
        surface_P.filter(keep),
        origin_P.filter(keep),
        np.full(int(which_P.sum()), np.nan),
        tags,
        plays.slot_P[which_P],
        letter_P.filter(keep),
    )


def _frame(
    kinds: Sequence[_Rows], day: int, user_ids: pl.Series, catalogue: Catalogue
) -> pl.DataFrame:
    """The rows of all kinds as one events table, in the order given."""
    if not kinds:
        return empty("events")
    item_E = np.concatenate([rows.item_E for rows in kinds])
    slot_E = np.concatenate([rows.slot_E for rows in kinds])
    item = pl.Series(np.maximum(item_E, 0))
    second_E = np.concatenate([_us(rows.second_E) for rows in kinds])
    frame = pl.DataFrame(
        {
            "user_id": user_ids.gather(np.concatenate([rows.row_E for rows in kinds])),
            "item_id": catalogue.index.ids.gather(item),
            "creator_id": catalogue.frame["creator_id"].gather(item),
            "kind": _of_kinds(kinds, lambda rows: rows.event_kind),
            "time": midnight_us(day) + second_E,
            "seconds": np.concatenate([rows.seconds_E for rows in kinds]),
            "surface": _of_kinds(kinds, lambda rows: rows.surface),
            "origin": _of_kinds(kinds, lambda rows: rows.origin),
            "tag": _of_kinds(kinds, lambda rows: rows.tag_E),
            "letter": _of_kinds(kinds, lambda rows: "" if rows.letter_E is None else rows.letter_E),
            "slot": slot_E.astype(np.int32),
            "has_item": item_E >= 0,
            "listed": slot_E >= 0,
        }
    )
    visit = pl.col("user_id") + f"-{day:04d}"
    return conform(
        frame.select(
            (visit + "-" + pl.col("tag")).alias("event_id"),
            "user_id",
            pl.when("has_item").then("item_id"),
            pl.when("has_item").then("creator_id"),
            "kind",
            pl.col("time").cast(TIME),
            pl.col("seconds").fill_nan(None),
            "surface",
            "origin",
            pl.when(pl.col("kind") != "cancel").then(visit).alias("session_id"),
            pl.when("listed").then("d:" + visit + pl.col("letter")).alias("decision_id"),
            pl.when("listed").then("slot").alias("slot"),
        ),
        "events",
    )


def _of_kinds(kinds: Sequence[_Rows], text: Callable[[_Rows], pl.Series | str]) -> pl.Series:
    """A text column of all kinds' rows; one text stands for every row of its kind."""
    columns = []
    for rows in kinds:
        values = text(rows)
        columns.append(_same(values, len(rows.row_E)) if isinstance(values, str) else values)
    return pl.concat([column.alias("text") for column in columns])


def _how(rows: _Rows) -> NDArray[np.uint8]:
    """Kind and place of an event as one number: place in KINDS x len(PLACES) + place in PLACES."""
    if isinstance(rows.surface, str):
        place = np.full(len(rows.row_E), PLACES.index(rows.surface))
    else:
        place = rows.surface.replace_strict(
            list(PLACES), range(len(PLACES)), return_dtype=pl.Int64
        ).to_numpy()
    return (KINDS.index(rows.event_kind) * len(PLACES) + place).astype(np.uint8)


def _us(second_E: NDArray[np.number]) -> Int:
    return np.rint(np.asarray(second_E, dtype=np.float64) * 1e6).astype(np.int64)


def _none(row_E: Int) -> Int:
    return np.full(len(row_E), ORGANIC)


def _same(text: str, n: int) -> pl.Series:
    return pl.Series([text], dtype=pl.String).new_from_index(0, n)


def _tag(letter: pl.Series, k: Int) -> pl.Series:
    return pl.select((letter + pl.Series(k).cast(pl.String)).alias("tag"))["tag"]


def _places(key_P: Int) -> tuple[Int, Int]:
    """Position of each element among those of equal key, and the number of these. Equal keys stand
    together."""
    starts = (
        np.flatnonzero(np.concatenate([[True], key_P[1:] != key_P[:-1]]))
        if len(key_P)
        else np.empty(0, dtype=np.int64)
    )
    lengths = np.diff(np.concatenate([starts, [len(key_P)]]))
    return np.arange(len(key_P)) - np.repeat(starts, lengths), np.repeat(lengths, lengths)


def _loops(mean_P: Float, u_P: Float) -> Int:
    """Numbers of autoplay plays: geometric with these means, from uniform draws, capped."""
    with np.errstate(divide="ignore"):
        count_P = np.log(u_P) / np.log(mean_P / (1.0 + mean_P))
    return np.minimum(np.where(mean_P > 0, count_P, 0.0), _MOST_LOOPS).astype(np.int64)


@dataclass
class Batch:
    """Tables of the days that are not in the lake yet."""

    first_day: int
    events: list[pl.DataFrame] = field(default_factory=list)
    contexts: list[pl.DataFrame] = field(default_factory=list)
    decisions: list[pl.DataFrame] = field(default_factory=list)

    def add(self, day: Batch) -> None:
        """Add the tables of one more day."""
        self.events += day.events
        self.contexts += day.contexts
        self.decisions += day.decisions

    def rows(self) -> int:
        """Number of events that are not in the lake yet."""
        return sum(events.height for events in self.events)


@dataclass(frozen=True, eq=False)
class DayPlays:
    """Plays and saves of a day, ordered by user and time. Small integers, kept for all days.

    Attributes:
        day: day of the world, from 0.
        user_P: user row of each play, shape [P].
        item_P: item row of each play.
        second_P: whole seconds since midnight.
        how_P: what was done and where (`_how`).
    """

    day: int
    user_P: NDArray[np.int32]
    item_P: NDArray[np.int32]
    second_P: NDArray[np.int32]
    how_P: NDArray[np.uint8]

    def of_users(self, row_U: Int) -> DayPlays:
        """The rows of users whose `row_U` is not -1, with the user's number replaced by it."""
        row_P = row_U[self.user_P]
        place = np.flatnonzero(row_P >= 0)
        place = place[np.argsort(row_P[place], kind="stable")]
        return DayPlays(
            self.day,
            row_P[place].astype(np.int32),
            self.item_P[place],
            self.second_P[place],
            self.how_P[place],
        )


def ragged(flat: pl.Series, offsets: Int) -> pl.Series:
    """A list series: list n holds flat[offsets[n]:offsets[n+1]]."""
    return pl.Series(
        "items",
        pl.from_arrow(
            pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), flat.to_arrow())
        ),
    )


def midnight_us(day: int) -> int:
    """The microsecond since 1970 at which a day of the world begins."""
    return int(START.timestamp()) * 1_000_000 + day * DAY_US
