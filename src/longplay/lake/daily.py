"""Calendar days, and which events are activity."""

from __future__ import annotations

from typing import Any

import duckdb

from longplay.lake.schema import ENGAGED

DAY_US = 86_400_000_000
SHIFT_DAYS = 100_000  # integer division rounds towards 0: moved to where all times are positive, days before 1970 are right too
DAY = f"cast((epoch_us({{time}}) + {SHIFT_DAYS * DAY_US}) // {DAY_US} - {SHIFT_DAYS} as integer)"
ENGAGED_TEST = "kind in (" + ", ".join(f"'{kind}'" for kind in ENGAGED) + ")"  # SQL of whether an event is activity


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


def first_row(con: duckdb.DuckDBPyConnection, sql: str) -> tuple[Any, ...] | None:
    """The first row of a query; all of them are fetched, since DuckDB refuses other work while a result is open."""
    rows = con.execute(sql).fetchall()
    return rows[0] if rows else None


def create_engaged(con: duckdb.DuckDBPyConnection) -> None:
    """Create the view `engaged`: events that are activity, with their `day`."""
    con.execute(f"create or replace view engaged as select *, {day_of('time')} as day from events where {ENGAGED_TEST}")
