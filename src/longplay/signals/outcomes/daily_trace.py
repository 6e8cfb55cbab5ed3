"""Daily traces: on which days of an entry's window something counted, and how much. Computed when
first read: a log's traces are long."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import polars as pl
from numpy.typing import NDArray

from longplay.errors import DataError
from longplay.lake.creators import prepare_creators
from longplay.lake.daily import SHIFT_DAYS
from longplay.lake.lake import Lake
from longplay.signals.declare.declaration import Declaration
from longplay.signals.engine.dialect import Engine
from longplay.signals.engine.duckdb import DUCKDB, numbers
from longplay.signals.engine.event_source import EventRows
from longplay.signals.engine.parts import Part, parts_of

# row of the entry, day of the window counted from 0, amount (above 0)
Hits = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]


@dataclass(frozen=True, eq=False)
class Trace:
    """The daily amounts of all entries of a signal.

    Attributes:
        signal: what counts.
        lake: a fixed view of the log.
        entries: user_id, item_id, creator_id, day, one row per entry.
        engine: what computes them.
    """

    signal: Declaration | None = None
    lake: Lake | None = None
    entries: pl.DataFrame | None = None
    engine: Engine = DUCKDB
    _hits: dict[str, Hits] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, hits: Hits) -> Trace:
        """A trace made of these daily amounts, without a log."""
        return cls(_hits={"total": hits})

    def hits(self, column: str = "total") -> Hits:
        """The daily amounts, in order of row and day.

        Args:
            column: "total", or "per" for what a ratio is divided by.

        Raises:
            DataError: there is no log to compute them from, or the signal is no ratio.
        """
        if column not in self._hits:
            self._hits[column] = self._computed(column)
        return self._hits[column]

    def _computed(self, column: str) -> Hits:
        if self.signal is None or self.lake is None or self.entries is None:
            raise DataError(
                f"trace: {column!r} of outcomes that were made without a log; compute them with "
                "signal.outcomes(lake)"
            )
        part = next((part for part in parts_of(self.signal) if part.column == column), None)
        if part is None:
            raise DataError(
                f"trace: per=True given, but {self.signal.name} is no ratio, so nothing divides "
                "it; expected per=False"
            )
        # each part of a ratio has a key of its own: plays per play of that creator
        has_key = part.unit != "user" and part.how != "habits"
        key = pl.col(f"{part.unit}_id") if has_key else pl.lit(None, pl.String)
        entries = self.entries.select("user_id", "day", key=key).with_row_index("row")
        with self.engine.connect(self.lake) as con:
            con.register("trace_entries", entries.to_arrow())
            by_catalogue = part.unit == "creator" and prepare_creators(con, self.lake)
            frame = con.sql(_hits_sql(part, by_catalogue)).pl()
        row, day, amount = (frame[name].to_numpy() for name in ("row", "day", "amount"))
        return row.astype(np.int64), day.astype(np.int64), amount.astype(float)


def _hits_sql(part: Part, by_catalogue: bool) -> str:
    """SQL of row, day and amount, from the table `trace_entries` (row, user_id, key, day) and the
    view `events`.

    Entries and days are joined by stretches as long as the window, so that not every day of a user
    is compared with every entry.
    """
    name = part.feature.name
    rows = EventRows(by_catalogue=by_catalogue).daily(
        part.unit, [part.feature], "user_id in (select user_id from trace_entries)"
    )
    sums = (
        f"select user_id, key, day, sum({name}) as amount from ({rows}) group by all having "
        f"sum({name}) > 0"
    )
    stretch_days = part.high - part.low + 1

    def stretch_of(day: str) -> str:
        return f"({day} + {SHIFT_DAYS}) // {stretch_days}"

    reached = numbers(stretch_of(f"day + {part.low}"), f"{stretch_of(f'day + {part.high}')} + 1")
    entries = f"(select *, {reached} as stretch from trace_entries) trace_entries"
    days = f"select *, {stretch_of('day')} as stretch from ({sums})"
    window = f"trace_entries.day + {part.low} and trace_entries.day + {part.high}"
    is_inside = (
        "days.user_id = trace_entries.user_id and days.stretch = trace_entries.stretch and days.day "
        f"between {window}"
    )
    same_key = "" if part.unit == "user" else " and days.key = trace_entries.key"
    day_of_window = f"days.day - trace_entries.day - {part.low}"
    if part.how == "weeks":
        # a week counts on its first day with anything
        week = f"({day_of_window}) // 7"
        nth = f"row_number() over (partition by trace_entries.row, {week} order by days.day)"
        columns = f"trace_entries.row, {day_of_window} as day, {nth} as nth"
        weeks = f"select {columns} from {entries} join ({days}) days on {is_inside}{same_key}"
        return (
            f"select row, day, cast(1 as double) as amount from ({weeks}) where nth = 1 "
            "order by row, day"
        )
    if part.how == "habits":
        # a habit counts on the day on which it becomes one
        nth = "row_number() over (partition by trace_entries.row, days.key order by days.day)"
        columns = f"trace_entries.row, {day_of_window} as day, {nth} as nth"
        habits = (
            f"select {columns} from {entries} join ({days}) days on {is_inside} where days.key is "
            "not null"
        )
        return (
            f"select row, day, cast(count(*) as double) as amount from ({habits}) where nth = "
            f"{part.days} group by row, day order by row, day"
        )
    amount = f"days.amount / {part.feature.scale}"
    if part.how in ("days", "first") and not part.is_reduced:
        amount = "cast(1 as double)"
    return f"""
        select trace_entries.row, {day_of_window} as day, {amount} as amount
        from {entries} join ({days}) days on {is_inside}{same_key}
        order by 1, 2"""
