"""Calendar days, and which events are activity."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import polars as pl

from longplay.lake.connection import Connection
from longplay.lake.schema import ENGAGED

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DAY_US = 86_400_000_000
DAY_SECONDS = 86_400
# integer division rounds towards 0, so times are shifted to be positive: days before 1970 are right
SHIFT_DAYS = 1_000_000
DAY = f"cast((epoch_us({{time}}) + {SHIFT_DAYS * DAY_US}) // {DAY_US} - {SHIFT_DAYS} as integer)"
# SQL of whether an event is activity
ENGAGED_TEST = "kind in (" + ", ".join(f"'{kind}'" for kind in ENGAGED) + ")"


def day_of(time: str) -> str:
    """SQL for the UTC calendar day (days since 1970-01-01, integer) of a timestamp column."""
    return DAY.format(time=time)


def quoted(text: object) -> str:
    """SQL of a string, such as a path."""
    return "'" + str(text).replace("'", "''") + "'"


def identifier(name: str) -> str:
    """SQL of a column's or a table's name.

    >>> identifier('a"b') == '"a""b"'
    True
    """
    return '"' + name.replace('"', '""') + '"'


def first_row(con: Connection, sql: str) -> tuple[Any, ...] | None:
    """The first row of a query. All rows are fetched, since DuckDB refuses other work while a
    result is open."""
    rows = con.execute(sql).fetchall()
    return rows[0] if rows else None


def create_engaged(con: Connection, events: str = "events") -> None:
    """Create the view `engaged`: the activity among `events`, with each event's `day`."""
    con.execute(
        f"create or replace view engaged as select *, {day_of('time')} as day from {events} where "
        f"{ENGAGED_TEST}"
    )


@dataclass(frozen=True)
class LongDays:
    """User-days with more than 24 hours of seconds, which is impossible: their number, and the
    largest."""

    user_days: int
    hours: float
    user_id: str
    day: date

    def __str__(self) -> str:
        """
        >>> print(LongDays(1, 2088.33, "u1", date(2026, 3, 1)))  # doctest: +ELLIPSIS
        1 user-day has more than 24 hours of seconds, the largest 2,088.3 hours (user u1, 2026-03-01): ...
        """
        have = "user-day has" if self.user_days == 1 else "user-days have"
        largest = f"the largest {self.hours:,.1f} hours (user {self.user_id}, {self.day})"
        return (
            f"{self.user_days:,} {have} more than 24 hours of seconds, {largest}: the unit may "
            'be milliseconds, seconds_unit = "ms"'
        )


def long_days(events: pl.DataFrame) -> LongDays | None:
    """The user-days (UTC) whose seconds sum to more than 24 hours, of rows of
    `schema.TABLES["events"]`; None where there is none."""
    day = pl.col("time").dt.date().alias("day")
    sums = (
        events.filter(pl.col("seconds") > 0).group_by("user_id", day).agg(pl.col("seconds").sum())
    )
    long = sums.filter(pl.col("seconds") > DAY_SECONDS).sort(
        "seconds", "user_id", "day", descending=[True, False, False]
    )
    if long.is_empty():
        return None
    first = long.row(0, named=True)
    return LongDays(long.height, first["seconds"] / 3_600, first["user_id"], first["day"])
