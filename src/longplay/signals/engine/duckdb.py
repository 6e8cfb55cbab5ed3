"""DuckDB, the embedded engine: the SQL that only DuckDB understands, in one place.

Other modules also write DuckDB's `* exclude` and `* replace`, `//`, shifts, `filter` and `create
temp table`. `spark_sql` translates these and the functions here."""

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

# -- SQL that other engines spell differently ------------------------------------------------------


def micros(time: str) -> str:
    """SQL of a time as microseconds since 1970."""
    return f"epoch_us({time})"


def instant(micros: int) -> str:
    """SQL of the time that lies this number of microseconds after 1970-01-01."""
    return f"make_timestamptz({micros})"


def elements(values: str) -> str:
    """SQL of the elements of a list, a row each."""
    return f"unnest({values})"


def numbers(*bounds: int | str) -> str:
    """SQL of the whole numbers of a range, a row each; no row for a null.

    Args:
        bounds: as of Python's `range`; numbers, or SQL.

    >>> numbers("plays"), numbers(120, 180)
    ('unnest(range(plays))', 'unnest(range(120, 180))')
    """
    return elements(f"range({', '.join(map(str, bounds))})")


def slots() -> str:
    """SQL of the items of a `slate`, a row each: item_id, and slot, counted from 1."""
    return f"{elements('slate')} as item_id, generate_subscripts(slate, 1) as slot"


def mapped(values: str, name: str, result: str) -> str:
    """SQL of a list with `result` (SQL over an element called `name`) for each element."""
    return f"list_transform({values}, lambda {name}: {result})"


def first_by(value: str, order: str) -> str:
    """SQL of the first value that is not null, in the order of these columns."""
    return f"arg_min({value}, ({order}))"


def first_or_null(value: str, order: str) -> str:
    """SQL of the first row's value, null or not, in the order of these columns."""
    return f"arg_min_null({value}, ({order}))"


def record(columns: Mapping[str, str]) -> str:
    """SQL of several columns as one value, a struct.

    >>> record({"time": "e.time", "slot": "e.slot"})
    "{'time': e.time, 'slot': e.slot}"
    """
    fields = ", ".join(f"'{name}': {column}" for name, column in columns.items())
    return f"{{{fields}}}"


def null_of(kind: str) -> str:
    """SQL of a null of a type."""
    return f"null::{kind}"


def set_bits(word: str) -> str:
    """SQL of how many bits of a word are set."""
    # DuckDB's bit_count is an INT8, of which a sum of two overflows
    return f"cast(bit_count({word}) as integer)"


def hashed(ids: str) -> str:
    """SQL of the 64-bit hash of one or several columns."""
    return f"hash({ids})"


def parquet(files: Sequence[str]) -> str:
    """SQL that reads Parquet files as one table."""
    return f"read_parquet([{', '.join(map(quoted, files))}], hive_partitioning = false)"


def copied(rows: str, file: Path) -> str:
    """SQL that writes rows into a Parquet file."""
    return f"copy ({rows}) to {quoted(file)} (format parquet, compression zstd)"


# -- the engine ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DuckDBDialect:
    """See `Dialect`."""

    codes_ids: bool = True
    reads_in_parts: bool = True
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
        """See `Dialect`. Two sums are computed as one of 128 bits, since a window costs more than
        what it adds; amounts are >= 0.

        >>> windows, columns = DuckDBDialect().window_sums({"sum_0": "plays", "sum_1": "saves"}, "over w", 0)
        >>> windows
        ['coalesce(sum(cast(plays as hugeint) + (cast(saves as hugeint) << 64)) over w, 0) as added_0']
        >>> columns["sum_1"]
        'cast(added_0 >> 64 as double) as sum_1'
        """
        windows = list[str]()
        sum_columns = dict[str, str]()
        names = list(amounts)
        for low, high in zip_longest(names[::2], names[1::2]):
            window = f"added_{first + len(windows)}"
            if high is None:
                total = f"cast({amounts[low]} as double)"
                sum_columns[low] = f"{window} as {low}"
            else:
                high_half = f"(cast({amounts[high]} as hugeint) << 64)"
                total = f"cast({amounts[low]} as hugeint) + {high_half}"
                sum_columns[low] = f"cast({window} & {2**64 - 1} as double) as {low}"
                sum_columns[high] = f"cast({window} >> 64 as double) as {high}"
            windows.append(f"coalesce(sum({total}) {over}, 0) as {window}")
        return windows, sum_columns

    def in_steps(self, source: str, name: str, first: Sequence[str], later: Sequence[Step]) -> str:
        """See `Dialect`: nested selects, one per step.

        >>> print(DuckDBDialect().in_steps("t", "s", ["a << 1"], [lambda s: [f"{s}_0 | {s}_0 << 1"]]))
        (select * exclude (s_0), s_0 | s_0 << 1 as s_0 from (select *, a << 1 as s_0 from t))
        """
        old_words = ", ".join(f"{name}_{number}" for number in range(len(first)))
        columns = "*"
        for words in (first, *(step(name) for step in later)):
            new_words = ", ".join(f"{word} as {name}_{number}" for number, word in enumerate(words))
            source = f"(select {columns}, {new_words} from {source})"
            columns = f"* exclude ({old_words})"
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
