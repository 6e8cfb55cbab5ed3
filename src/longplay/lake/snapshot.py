"""One consistent state of a lake's tables, read by DuckDB and by Polars."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property, lru_cache
from itertools import groupby
from pathlib import Path

import duckdb
import polars as pl
from deltalake import DeltaTable

from longplay.errors import DataError
from longplay.lake.commits import DataFile, file_damage
from longplay.lake.daily import quoted
from longplay.lake.row_checks import VECTORS
from longplay.lake.schema import DESCRIBED, DTYPES, TABLES, TIME, empty

# table -> columns that older lakes lack
_ADDED_COLUMNS = {
    table: {name: column.dtype for name, column in columns.items() if column.added}
    for table, columns in TABLES.items()
}
_DUCKDB_TYPES = {pl.String: "varchar", pl.Float64: "double", TIME: "timestamptz"}
# SQL of the columns of stored items: one without an arrival was known when it was added
ARRIVED = "* replace (coalesce(ingested_at, added_at) as ingested_at)"
_AMOUNT = "amount"  # of events, which older files lack; every other column must be there


@dataclass(frozen=True)
class Snapshot:
    """One consistent state of all tables.

    Args:
        version: tells the states of one store apart: number of the last commit, then the tables'
            Delta versions.
        watermark: the log is complete before this time.
        files: table -> name -> data file, for a lake in a folder.
        folder: of the lake.
        frames: table -> rows, for a lake in memory.
    """

    version: tuple[int, ...]
    watermark: datetime | None
    files: Mapping[str, Mapping[str, DataFile]] = field(default_factory=dict)
    folder: Path | None = None
    frames: Mapping[str, pl.DataFrame] = field(default_factory=dict)

    @property
    def seq(self) -> int:
        """Number of the last commit; 0 for an empty lake."""
        return self.version[0]

    def paths(self, table: str) -> list[str]:
        """A table's files, in the order of their commits."""
        if self.folder is None:
            return []
        place = os.path.join(self.folder, table)
        return [os.path.join(place, name) for name in self.files.get(table, ())]

    @cached_property
    def statistics(self) -> Mapping[str, pl.DataFrame]:
        """One row per file of events and decisions: name, first and last time, rows. A table is
        left out unless all its files have statistics."""
        statistics_by_table = {}
        for table in ("events", "decisions"):
            files = list(self.files.get(table, {}).values())
            if files and all(file.first is not None and file.last is not None for file in files):
                statistics_by_table[table] = pl.DataFrame(
                    {
                        name: [getattr(file, name) for file in files]
                        for name in ("name", "first", "last", "rows")
                    }
                )
        return statistics_by_table

    @cached_property
    def described_once(self) -> frozenset[str]:
        """The tables of descriptions that have one of each item or user. Views then need not look
        for the latest."""
        again = {
            table: self.scan(table).select(pl.col(key).is_duplicated().any()).collect().item()
            for table, key in DESCRIBED.items()
        }
        return frozenset(table for table, is_again in again.items() if not is_again)

    def vector_length(self, table: str) -> int | None:
        """Numbers per vector of a table; None where it holds no vector. All are equally long."""
        column = VECTORS[table]
        paths = self.paths(table)
        newest_first = [file for file in reversed(paths) if column in _columns_of(file)]
        frames = [pl.scan_parquet(file, glob=False) for file in newest_first]
        for frame in frames or [self.frames.get(table, empty(table)).lazy()]:
            lengths = frame.select(pl.col(column).list.len()).drop_nulls().head(1).collect()
            if lengths.height:
                return int(lengths.item())
        return None

    def _by_amount(self) -> list[tuple[bool, list[str]]]:
        """Event files in order, as runs that all have the column of amounts or all lack it."""
        runs = groupby(self.paths("events"), key=_has_amount)
        return [(has_amount, list(files)) for has_amount, files in runs]

    def register(self, con: duckdb.DuckDBPyConnection, table: str, name: str) -> None:
        """Make `table` of this state readable in `con` as `name`."""
        if table == "events" and self.paths(table):
            parts = (
                f"select *{'' if has_amount else f', null::double as {_AMOUNT}'} from "
                f"read_parquet([{', '.join(map(quoted, files))}])"
                for has_amount, files in self._by_amount()
            )
            con.execute(f"create view {name} as {' union all by name '.join(parts)}")
        elif files := self.paths(table):
            # DuckDB takes `*`, `?` and `[` in a name as a pattern; FolderStore refuses such folders
            added = _ADDED_COLUMNS[table]
            read = f"read_parquet([{', '.join(map(quoted, files))}], union_by_name = {bool(added)})"
            columns = "*"
            if added:  # files may be older than a column of the schema
                has = {
                    row[0]
                    for row in con.execute(
                        f"select column_name from (describe select * from {read})"
                    ).fetchall()
                }
                columns += "".join(
                    f", null::{_duckdb_type(dtype)} as {column}"
                    for column, dtype in added.items()
                    if column not in has
                )
            if table == "items":
                read = f"(select {columns} from {read})"
                columns = ARRIVED
            con.execute(f"create view {name} as select {columns} from {read}")
        else:
            con.register(name, self.frames.get(table, empty(table)).to_arrow())

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Context of a query. Where the query fails because files are damaged, the error names
        them.

        Raises:
            DataError: a file is missing, or its content is not what was written.
        """
        try:
            yield
        except (
            duckdb.Error,
            pl.exceptions.PolarsError,
            pl.exceptions.PanicException,
            OSError,
        ) as error:
            if (damage := self._first_damage()) is not None:
                hint = f"`longplay lake check {self.folder}` names all damage"
                raise DataError(f"lake: {self.folder} is damaged: {damage}; {hint}") from error
            raise

    def _first_damage(self) -> str | None:
        if self.folder is None:
            return None
        for table, files in self.files.items():
            for file in files.values():
                problem = file_damage(self.folder / table, file)
                if problem is not None:
                    return f"{table}/{file.name} {problem}"
        return None

    def scan(self, table: str) -> pl.LazyFrame:
        """`table` of this state, lazily, with the schema's columns and types."""
        if table == "events" and self.paths(table):
            parts = []
            for has_amount, files in self._by_amount():
                part = pl.scan_parquet(files, glob=False)
                if not has_amount:
                    part = part.with_columns(pl.lit(None, pl.Float64).alias(_AMOUNT))
                types = DTYPES[table].items()
                parts.append(part.select(pl.col(name).cast(dtype) for name, dtype in types))
            return pl.concat(parts) if len(parts) > 1 else parts[0]
        if files := self.paths(table):
            if _ADDED_COLUMNS[table]:
                frame = pl.scan_parquet(
                    files, glob=False, schema=DTYPES[table], missing_columns="insert"
                )
                if table == "items":
                    frame = frame.with_columns(
                        pl.coalesce("ingested_at", "added_at").alias("ingested_at")
                    )
            else:
                frame = pl.scan_parquet(files, glob=False)
            return frame.select(pl.col(name).cast(dtype) for name, dtype in DTYPES[table].items())
        return self.frames.get(table, empty(table)).lazy()


@lru_cache(maxsize=100_000)
def _columns_of(file: str) -> frozenset[str]:
    """The columns of a Parquet file; a file never changes."""
    return frozenset(pl.read_parquet_schema(file))


def lost_columns(table: str, opened: DeltaTable) -> list[str]:
    """Columns that every version of a table must have and this one lacks, which means that its log
    is damaged."""
    has = {field.name for field in opened.schema().fields}
    return [name for name, column in TABLES[table].items() if not column.added and name not in has]


def _duckdb_type(dtype: object) -> str:
    """DuckDB's name of a column's type."""
    if isinstance(dtype, pl.List):
        return f"{_duckdb_type(dtype.inner)}[]"
    return _DUCKDB_TYPES[dtype]


def _has_amount(file: str) -> bool:
    """Whether a file of events has the column of amounts."""
    try:
        return _AMOUNT in _columns_of(file)
    except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException):
        return True  # the reader of the file will say what is wrong with it
