"""Sums over a range of days before or after an entry, in SQL."""

from __future__ import annotations

from collections.abc import Mapping

from longplay.signals.engine.dialect import Dialect
from longplay.signals.engine.duckdb import DUCKDB


def range_sums(
    unit: str,
    entries: str | None,
    rows: str,
    sums: Mapping[str, tuple[str, int, int]],
    once: bool = False,
    active: str = "true",
    dialect: Dialect = DUCKDB.dialect,
) -> str:
    """SQL of user_id, key, day and a column per sum, for every distinct (user_id, key, day) of
    `entries`.

    Args:
        unit: user, creator, item or pair.
        entries: SQL of user_id, key (null for users) and day; null: every day of `rows` on which
            `active` holds.
        rows: SQL of `Rows.daily`; amounts are whole numbers >= 0.
        sums: column -> (feature's name, first day, last day) with days counted from the entry's
            own, both included.
        once: `rows` has one row per unit and day.
        active: SQL condition on a day of `rows`; read only without `entries`.
        dialect: of the engine.
    """
    names = sorted({name for name, _, _ in sums.values()})
    keys = "user_id" if unit == "user" else "user_id, key"
    if entries is None:
        is_entry = active
        source = rows
    else:
        nulls = ", ".join("cast(null as bigint)" for _ in names)
        is_entry = "is_entry"
        source = (
            f"select {keys}, day, false as is_entry, {', '.join(names)} from ({rows}) union all "
            f"select {keys}, day, true, {nulls} from ({entries})"
        )
    if once and entries is None:
        any_of = ""
        sum_of = ""
        grouped = ""
    else:
        any_of = "bool_or"
        sum_of = "sum"
        grouped = f" group by {keys}, day"
    amounts = ", ".join(
        f"cast(coalesce({sum_of}({name}), 0) as bigint) as {name}" for name in names
    )
    days = (
        f"select {keys}, day, coalesce({any_of}({is_entry}), false) as is_entry, {amounts} from "
        f"({source}){grouped}"
    )
    inner_columns = list[str]()
    columns = dict[str, str]()
    for low, high in dict.fromkeys((low, high) for _, low, high in sums.values()):
        amounts_of_range = {
            column: name
            for column, (name, *days_range) in sums.items()
            if days_range == [low, high]
        }
        over = (
            f"over (partition by {keys} order by day range between {_bound(low)} and "
            f"{_bound(high)})"
        )
        windows, sum_columns = dialect.window_sums(amounts_of_range, over, len(inner_columns))
        inner_columns += windows
        columns |= sum_columns
    key = "cast(null as varchar)" if unit == "user" else "key"
    summed = f"select *, {', '.join(inner_columns)} from ({days})"
    return (
        f"select user_id, {key} as key, day, {', '.join(columns[column] for column in sums)} from "
        f"({summed}) where is_entry"
    )


def _bound(day: int) -> str:
    """SQL of one end of a window's range, by the day counted from the current row's.

    >>> _bound(-7), _bound(0), _bound(28)
    ('7 preceding', 'current row', '28 following')
    """
    if day < 0:
        return f"{-day} preceding"
    return f"{day} following" if day > 0 else "current row"
