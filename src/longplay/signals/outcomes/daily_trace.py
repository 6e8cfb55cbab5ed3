"""Daily traces: on which days of an entry's window something counted, and how much. Asked for when
needed: a log's traces are long."""

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

Hits = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]


@dataclass(frozen=True, eq=False)
class Trace:
    """The daily amounts of all entries of a signal: row of the entry, day of the window counted
    from 0, amount (above 0).

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
    _known: dict[str, Hits] = field(default_factory=dict, repr=False)

    @classmethod
    def given(cls, hits: Hits) -> Trace:
        """Traces that are known already."""
        return cls(_known={"total": hits})

    def hits(self, column: str = "total") -> Hits:
        """The amounts, by row and day; `column` is total, or per for a ratio's other part."""
        if column not in self._known:
            self._known[column] = self._ask(column)
        return self._known[column]

    def _ask(self, column: str) -> Hits:
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
        own = (
            part.unit != "user" and part.how != "habits"
        )  # each part of a ratio has its own: plays per play of that creator
        key = pl.col(f"{part.unit}_id") if own else pl.lit(None, pl.String)
        asked = self.entries.select("user_id", "day", key=key).with_row_index("row")
        with self.engine.connect(self.lake) as con:
            con.register("asked", asked.to_arrow())
            by_catalogue = part.unit == "creator" and prepare_creators(con, self.lake)
            frame = con.sql(_hits_sql(part, by_catalogue)).pl()
        row, day, amount = (frame[name].to_numpy() for name in ("row", "day", "amount"))
        return row.astype(np.int64), day.astype(np.int64), amount.astype(float)


def _hits_sql(part: Part, by_catalogue: bool) -> str:
    """SQL of (row, day, amount) from the table `asked` (row, user_id, key, day) and the view
    `events`.

    Entries and days meet by stretches as long as the window, so that a user of many years is not
    read whole for every entry.
    """
    name = part.feature.name
    rows = EventRows(by_catalogue=by_catalogue).daily(
        part.unit, [part.feature], "user_id in (select user_id from asked)"
    )
    days = (
        f"select user_id, key, day, sum({name}) as amount from ({rows}) group by all having "
        f"sum({name}) > 0"
    )
    stretch = part.high - part.low + 1

    def stretch_of(day: str) -> str:
        return f"({day} + {SHIFT_DAYS}) // {stretch}"

    reached = numbers(stretch_of(f"day + {part.low}"), f"{stretch_of(f'day + {part.high}')} + 1")
    asked = f"(select *, {reached} as stretch from asked) asked"
    days = f"select *, {stretch_of('day')} as stretch from ({days})"
    inside = "days.user_id = asked.user_id and days.stretch = asked.stretch"
    inside += f" and days.day between asked.day + {part.low} and asked.day + {part.high}"
    if part.how == "weeks":  # each counts on its first day with anything
        week = f"(days.day - asked.day - {part.low}) // 7"
        nth = f"row_number() over (partition by asked.row, {week} order by days.day)"
        placed = f"asked.row, days.day - asked.day - {part.low} as day, {nth} as nth"
        same = "" if part.unit == "user" else " and days.key = asked.key"
        first = f"select {placed} from {asked} join ({days}) days on {inside}{same}"
        return (
            f"select row, day, cast(1 as double) as amount from ({first}) where nth = 1 "
            "order by row, day"
        )
    if part.how == "habits":  # each counts on the day on which it becomes one
        nth = "row_number() over (partition by asked.row, days.key order by days.day)"
        placed = f"asked.row, days.day - asked.day - {part.low} as day, {nth} as nth"
        made = (
            f"select {placed} from {asked} join ({days}) days on {inside} where days.key is "
            "not null"
        )
        return (
            f"select row, day, cast(count(*) as double) as amount from ({made}) where nth = "
            f"{part.days} group by row, day order by row, day"
        )
    same = "" if part.unit == "user" else " and days.key = asked.key"
    amount = (
        "cast(1 as double)"
        if part.how in ("days", "first") and not part.counted
        else f"days.amount / {part.feature.scale}"
    )
    return f"""select asked.row, days.day - asked.day - {part.low} as day, {amount} as amount
        from {asked} join ({days}) days on {inside}{same} order by 1, 2"""
