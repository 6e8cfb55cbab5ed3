"""What a day leaves behind: the events table, and the plays that later days look back on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from longplay.decisions import Decisions
from longplay.lake.schema import TIME, conform
from longplay.world.catalogue import START, Catalogue
from longplay.world.dynamics import ORGANIC, Plays
from longplay.world.luck import DayLuck, Stream

Int = NDArray[np.int64]

_GAP_S = 200  # seconds from one play of a visit to the next, and the longest play
_VISIT_S = 14_000  # a visit that begins at 20:00 must end before midnight


def events_of_day(
    day: int, user_N: Int, second_N: Int, plays: Plays, luck: DayLuck, user_ids: pl.Series, catalogue: Catalogue, said: Decisions | None
) -> pl.DataFrame:
    """The events table of one day: a visit per active user `user_N` at `second_N` of the day, then its plays.

    Event ids are user-day-n, so they do not depend on who else there is. `luck` is that of all
    users on the day; `said` holds one decision per visit, in order, or is None.
    """
    n = len(user_N)
    place_P = np.searchsorted(user_N, plays.row_P)  # which visit a play belongs to
    nth_P = np.arange(len(plays)) - np.searchsorted(plays.row_P, plays.row_P)
    gap_us = min(_GAP_S, _VISIT_S // (int(nth_P.max(initial=0)) + 2)) * 1_000_000
    visit_us_N = midnight_us(day) + second_N * 1_000_000
    listened_P = (0.15 + 0.85 * luck.take(plays.row_P).uniform(Stream.SECONDS, nth_P)) * gap_us / 1e6
    session_N = pl.select((user_ids.gather(user_N) + f"-{day:04d}").alias("session"))["session"]
    visit = np.concatenate([np.arange(n), place_P])
    decision_N = said.frame["decision_id"] if said is not None else pl.Series([None], dtype=pl.String).new_from_index(0, n)
    frame = pl.DataFrame(
        {
            "nth": np.concatenate([np.zeros(n, dtype=np.int64), nth_P + 1]),
            "item": np.concatenate([np.full(n, -1), plays.item_P]),
            "slot": np.concatenate([np.full(n, ORGANIC), plays.slot_P]).astype(np.int32),
            "us": np.concatenate([visit_us_N, visit_us_N[place_P] + 10_000_000 + nth_P * gap_us]),
            "seconds": np.concatenate([np.zeros(n), listened_P]),
            "session_id": session_N.gather(visit),
            "user_id": user_ids.gather(user_N[visit]),
            "decision_id": decision_N.gather(visit),
        }
    )
    played, shown = pl.col("item") >= 0, pl.col("slot") >= 0
    item = pl.when(played).then(pl.col("item"))
    return conform(
        frame.select(
            (pl.col("session_id") + "-" + pl.col("nth").cast(pl.String)).alias("event_id"),
            "user_id",
            pl.lit(catalogue.index.ids).gather(item).alias("item_id"),
            pl.lit(catalogue.frame["creator_id"]).gather(item).alias("creator_id"),
            pl.when(played).then(pl.lit("play")).otherwise(pl.lit("visit")).alias("kind"),
            pl.col("us").cast(TIME).alias("time"),
            pl.when(played).then(pl.col("seconds")).alias("seconds"),
            pl.when(played & ~shown).then(pl.lit("library")).otherwise(pl.lit("home")).alias("surface"),
            pl.when(shown).then(pl.lit("recommended")).otherwise(pl.lit("organic")).alias("origin"),
            "session_id",
            pl.when(shown).then(pl.col("decision_id")).alias("decision_id"),
            pl.when(shown).then(pl.col("slot")).alias("slot"),
        ),
        "events",
    )


@dataclass(frozen=True, eq=False)
class DayPlays:
    """Who played what on a day, ordered by user and time; small integers, kept for all days."""

    day: int
    user_P: NDArray[np.int32]
    item_P: NDArray[np.int32]


class Recent:
    """The last items each user played, as a ring buffer; the only mutable thing of a run, and private to it."""

    def __init__(self, users: int, length: int) -> None:
        self.item_UH = np.zeros((users, length), dtype=np.int32)
        self.count_U = np.zeros(users, dtype=np.int64)

    @classmethod
    def of(cls, days: Sequence[DayPlays], users: int, length: int) -> Recent:
        """The buffer after these days."""
        ring = cls(users, length)
        for day in days:
            ring.add(day.user_P, day.item_P)
        return ring

    def add(self, user_P: NDArray[np.integer], item_P: NDArray[np.integer]) -> None:
        """Push a day's plays, ordered by user and time."""
        nth_P = np.arange(len(user_P)) - np.searchsorted(user_P, user_P)
        # where a user played more than the ring holds, numpy keeps the last value assigned: the latest
        self.item_UH[user_P, (self.count_U[user_P] + nth_P) % self.item_UH.shape[1]] = item_P
        self.count_U += np.bincount(user_P, minlength=len(self.count_U))

    def of_users(self, user_N: Int) -> tuple[Int, Int]:
        """(offsets[N+1], item rows), oldest first."""
        length = self.item_UH.shape[1]
        have_N = np.minimum(self.count_U[user_N], length)
        at = ranges(self.count_U[user_N] - have_N, have_N) % length
        return np.concatenate([[0], np.cumsum(have_N)]), self.item_UH[np.repeat(user_N, have_N), at].astype(np.int64)


def ranges(start_N: Int, count_N: Int) -> Int:
    """start_0 .. start_0 + count_0 - 1, start_1 .., one after the other.

    >>> ranges(np.array([5, 0]), np.array([2, 3])).tolist()
    [5, 6, 0, 1, 2]
    """
    ends = np.cumsum(count_N)
    return np.repeat(start_N - (ends - count_N), count_N) + np.arange(int(ends[-1]) if len(ends) else 0)


def ragged_ids(ids: pl.Series, offsets: Int, rows: Int) -> pl.Series:
    """A list series whose list n holds the ids of rows[offsets[n]:offsets[n+1]]."""
    flat = ids.gather(rows).to_arrow().cast(pa.large_string())
    return pl.Series("items", pl.from_arrow(pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), flat)))


def midnight_us(day: int) -> int:
    """Microseconds since 1970 at which a day of the world begins."""
    return int(START.timestamp()) * 1_000_000 + day * 86_400_000_000
