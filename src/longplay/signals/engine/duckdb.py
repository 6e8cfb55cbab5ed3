"""DuckDB, the embedded engine: what is its own in the engine's SQL.

Beside these functions the SQL holds DuckDB's `* exclude` and `* replace`, `//`, shifts, `filter`
and `create temp table`, as every statement does; `spark_sql` translates them, too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import duckdb

from longplay.lake.daily import quoted
from longplay.lake.lake import Lake
from longplay.signals.engine.dialect import Dialect, Step

# -- what other engines spell otherwise; `spark_sql` translates each
# --------------------------------


def micros(time: str) -> str:
    """SQL of a time as microseconds since 1970."""
    return f"epoch_us({time})"


def instant(micros: int) -> str:
    """SQL of the time so many microseconds after 1970 began."""
    return f"make_timestamptz({micros})"


def elements(values: str) -> str:
    """SQL of a row for each element of a list."""
    return f"unnest({values})"


def numbers(*bounds: int | str) -> str:
    """SQL of a row for each whole number of a range, given as Python's is; no row for a null.

    >>> numbers("plays"), numbers(120, 180)
    ('unnest(range(plays))', 'unnest(range(120, 180))')
    """
    return elements(f"range({', '.join(map(str, bounds))})")


def slots() -> str:
    """SQL of a row for each item of a `slate`: item_id, and slot, counted from 1."""
    return f"{elements('slate')} as item_id, generate_subscripts(slate, 1) as slot"


def each(values: str, name: str, changed: str) -> str:
    """SQL of a list whose elements, by `name`, are `changed` (SQL)."""
    return f"list_transform({values}, lambda {name}: {changed})"


def first_by(value: str, order: str) -> str:
    """SQL of the value of the first row in an order (columns); rows without a value do not
    count."""
    return f"arg_min({value}, ({order}))"


def first_or_null(value: str, order: str) -> str:
    """SQL of the value of the first row in an order (columns), maybe null."""
    return f"arg_min_null({value}, ({order}))"


def record(columns: Mapping[str, str]) -> str:
    """SQL of several columns as one value, by name.

    >>> record({"time": "e.time", "slot": "e.slot"})
    "{'time': e.time, 'slot': e.slot}"
    """
    listed = ", ".join(f"'{name}': {column}" for name, column in columns.items())
    return f"{{{listed}}}"


def nothing(kind: str) -> str:
    """SQL of a null of a type."""
    return f"null::{kind}"


def set_bits(word: str) -> str:
    """SQL of how many bits of a word are set."""
    return f"cast(bit_count({word}) as integer)"  # DuckDB's is an INT8, and a sum of two overflows


def hashed(ids: str) -> str:
    """SQL of a number of 64 bits for one or several values (columns)."""
    return f"hash({ids})"


def parquet(files: Sequence[str]) -> str:
    """SQL that reads Parquet files as one table."""
    return f"read_parquet([{', '.join(map(quoted, files))}], hive_partitioning = false)"


def copied(rows: str, file: Path) -> str:
    """SQL that writes rows into a Parquet file."""
    return f"copy ({rows}) to {quoted(file)} (format parquet, compression zstd)"


# -- the engine
# -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class DuckDBDialect:
    """See `Dialect`."""

    codes_ids: bool = True
    cuts_up: bool = True
    peels_days: bool = True

    def midnight(self, day: str) -> str:
        """See `Dialect`.

        >>> DUCKDB.dialect.midnight("day + 1")
        "cast((day + 1) * interval 1 day + timestamptz '1970-01-01 00:00:00+00' as timestamptz)"
        """
        epoch = "timestamptz '1970-01-01 00:00:00+00'"
        return f"cast(({day}) * interval 1 day + {epoch} as timestamptz)"

    def window_sums(
        self, amounts: Mapping[str, str], over: str, first: int
    ) -> tuple[list[str], dict[str, str]]:
        """See `Dialect`. Two sums are added up as one number of 128 bits, since a window costs more
        than what it adds; amounts are >= 0.

        >>> windows, columns = DuckDBDialect().window_sums({"sum_0": "plays", "sum_1": "saves"}, "over w", 0)
        >>> windows
        ['coalesce(sum(cast(plays as hugeint) + (cast(saves as hugeint) << 64)) over w, 0) as added_0']
        >>> columns["sum_1"]
        'cast(added_0 >> 64 as double) as sum_1'
        """
        windows, columns, made = list[str](), dict[str, str](), list(amounts)
        for one, other in zip_longest(made[::2], made[1::2]):
            added, total = f"added_{first + len(windows)}", f"cast({amounts[one]} as double)"
            columns[one] = f"{added} as {one}"
            if other is not None:
                total = (
                    f"cast({amounts[one]} as hugeint) + (cast({amounts[other]} as hugeint) << 64)"
                )
                columns[one], columns[other] = (
                    f"cast({added} & {2**64 - 1} as double) as {one}",
                    f"cast({added} >> 64 as double) as {other}",
                )
            windows.append(f"coalesce(sum({total}) {over}, 0) as {added}")
        return windows, columns

    def in_steps(self, source: str, name: str, first: Sequence[str], later: Sequence[Step]) -> str:
        """See `Dialect`: a select around a select.

        >>> print(DuckDBDialect().in_steps("t", "s", ["a << 1"], [lambda s: [f"{s}_0 | {s}_0 << 1"]]))
        (select * exclude (s_0), s_0 | s_0 << 1 as s_0 from (select *, a << 1 as s_0 from t))
        """
        before = ", ".join(f"{name}_{place}" for place in range(len(first)))
        columns = "*"
        for words in (first, *(step(name) for step in later)):
            made = ", ".join(f"{word} as {name}_{place}" for place, word in enumerate(words))
            source = f"(select {columns}, {made} from {source})"
            columns = f"* exclude ({before})"
        return source


@dataclass(frozen=True)
class DuckDBEngine:
    """DuckDB in this process."""

    dialect: Dialect = DuckDBDialect()

    def connect(
        self, lake: Lake, memory_limit: str | None = None, spill: Path | None = None
    ) -> AbstractContextManager[duckdb.DuckDBPyConnection]:
        """See `Engine`."""
        return lake.connect(memory_limit=memory_limit, spill=spill)


DUCKDB = DuckDBEngine()
