"""Where the tables lie: in a folder as Delta Lake, or in memory. Both answer the same four questions.

A folder holds one Delta table per table of the schema and one called `commits`, with a row per
batch: the batch id, the watermark and the version of every table after it. Only what the last row
of `commits` names is visible, so a batch that touches several tables appears whole or not at all;
what a killed writer left behind is rolled back by the next one.
"""

from __future__ import annotations

import itertools
import os
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote

import duckdb
import polars as pl
from deltalake import DeltaTable, write_deltalake

from longplay.errors import DataError
from longplay.files import writer_lock
from longplay.lake.daily import quoted
from longplay.lake.schema import DTYPES, TABLES, TIME, empty

COMMITS = pl.Schema({"seq": pl.Int64, "batch": pl.String, "watermark": TIME} | {f"{table}_version": pl.Int64 for table in TABLES})
COMMITS_PER_FILE = 32  # every batch reads the log of commits: rewritten as one file this often, it stays quick to read
_LATER = {  # columns that older lakes lack, with DuckDB's types
    "items": {"length": "double"},
    "contexts": {"history_time": "timestamptz[]", "history_kind": "varchar[]", "history_surface": "varchar[]", "want": "double"},
}
_STORE_IDS = itertools.count(1)  # unlike id(), never given out twice in a process


@dataclass(frozen=True)
class Snapshot:
    """One consistent state of all tables: Parquet files (`files`, of the Delta tables `deltas`), or frames in memory."""

    seq: int
    watermark: datetime | None
    files: Mapping[str, list[str]]
    frames: Mapping[str, pl.DataFrame]
    deltas: Mapping[str, DeltaTable] = field(default_factory=dict, repr=False)

    @cached_property
    def statistics(self) -> Mapping[str, pl.DataFrame]:
        """One row per file of events and decisions: name, first and last time (cut to the millisecond), rows; of tables all of whose files say so."""
        known = {table: _statistics(self.deltas[table]) for table in ("events", "decisions") if table in self.deltas}
        return {table: one for table, one in known.items() if one is not None}

    def register(self, con: duckdb.DuckDBPyConnection, table: str, name: str) -> None:
        """Make `table` of this state readable in `con` as `name`."""
        if files := self.files.get(table):
            # DuckDB takes `*`, `?` and `[` in a name as a pattern; FolderStore refuses such folders
            read, absent = f"read_parquet([{', '.join(map(quoted, files))}], union_by_name = {table in _LATER})", ""
            if table in _LATER:  # files may be older than a column of the schema
                has = {row[0] for row in con.execute(f"select column_name from (describe select * from {read})").fetchall()}
                absent = "".join(f", null::{kind} as {column}" for column, kind in _LATER[table].items() if column not in has)
            con.execute(f"create view {name} as select *{absent} from {read}")
        else:
            con.register(name, self.frames.get(table, empty(table)).to_arrow())

    def scan(self, table: str) -> pl.LazyFrame:
        """`table` of this state, lazily, with the schema's columns and types."""
        if files := self.files.get(table):
            if table in _LATER:
                frame = pl.scan_parquet(files, glob=False, schema=DTYPES[table], missing_columns="insert")
            else:
                frame = pl.scan_parquet(files, glob=False)
            return frame.select(pl.col(name).cast(dtype) for name, dtype in DTYPES[table].items())
        return self.frames.get(table, empty(table)).lazy()


class Store(Protocol):
    """What a lake needs of its storage; `id` tells the stores of one process apart."""

    @property
    def id(self) -> int:
        """A number no other store of this process has."""
        ...

    def snapshot(self) -> Snapshot:
        """The state after the last whole batch."""
        ...

    def has(self, batch: str) -> bool:
        """Whether `batch` is in."""
        ...

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the writer's lock; batches are looked up and written under it."""
        ...

    def commit(self, batch: str, frames: Mapping[str, pl.DataFrame], watermark: datetime | None) -> None:
        """Make the batch visible in all its tables at once."""
        ...


class MemoryStore:
    """Tables as polars frames; a batch replaces the mapping in one assignment."""

    def __init__(self) -> None:
        self.id = next(_STORE_IDS)
        self._lock = threading.Lock()
        self._snapshot = Snapshot(0, None, {}, {table: empty(table) for table in TABLES})
        self._batches: set[str] = set()

    def snapshot(self) -> Snapshot:
        """The state after the last whole batch."""
        return self._snapshot

    def has(self, batch: str) -> bool:
        """Whether `batch` is in."""
        return batch in self._batches

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the writer's lock; batches are looked up and written under it."""
        with self._lock:
            yield

    def commit(self, batch: str, frames: Mapping[str, pl.DataFrame], watermark: datetime | None) -> None:
        """Make the batch visible in all its tables at once."""
        old = self._snapshot
        merged = dict(old.frames)
        for table, frame in frames.items():
            merged[table] = frame if table == "items" else pl.concat([old.frames[table], frame])
        self._snapshot = Snapshot(old.seq + 1, watermark, {}, merged)
        self._batches.add(batch)


class FolderStore:
    """Tables in Delta Lake under `path`; one writer at a time, any number of readers."""

    def __init__(self, path: Path) -> None:
        self.id = next(_STORE_IDS)
        self._seen: tuple[tuple[str, int, int] | None, pl.DataFrame, Snapshot] | None = None
        self.path = path.expanduser().resolve()  # a later chdir must not move the lake
        if self.path.exists() and not self.path.is_dir():
            raise DataError(f"lake: {self.path} is a file, expected a folder (it may be new or empty)")
        if pattern := set("*?[") & set(str(self.path)):
            why = f"holds {min(pattern)!r}, which SQL engines read as a pattern"
            raise DataError(f"lake: the path {self.path} {why}; choose a folder without *, ? and [")

    def _table(self, name: str, version: int | None = None) -> DeltaTable | None:
        uri = str(self.path / name)
        return DeltaTable(uri, version=version) if DeltaTable.is_deltatable(uri) else None

    def _state(self) -> tuple[pl.DataFrame, Snapshot]:
        """The log of commits, oldest first, and what its last row names; read anew only when the log has grown."""
        stamp = _newest(self.path / "commits" / "_delta_log")
        if self._seen is None or self._seen[0] != stamp:
            table = None if stamp is None else self._table("commits")
            commits = pl.DataFrame(schema=COMMITS) if table is None else pl.read_parquet(_files(table), schema=COMMITS, glob=False).sort("seq")
            self._seen = (stamp, commits, self._snapshot_of(commits))
        return self._seen[1:]

    def _snapshot_of(self, commits: pl.DataFrame) -> Snapshot:
        if commits.is_empty():
            return Snapshot(0, None, {}, {})
        last = commits.row(-1, named=True)
        deltas = {}
        for table in TABLES:
            version = last[f"{table}_version"]
            if version >= 0 and (delta := self._table(table, version)) is not None:
                deltas[table] = delta
        return Snapshot(last["seq"], last["watermark"], {table: _files(delta) for table, delta in deltas.items()}, {}, deltas)

    def snapshot(self) -> Snapshot:
        """The state after the last whole batch."""
        return self._state()[1]

    def has(self, batch: str) -> bool:
        """Whether `batch` is in."""
        return batch in self._state()[0]["batch"]

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the writer's lock; it is released by the system when a writer dies."""
        with writer_lock(self.path):
            yield

    def commit(self, batch: str, frames: Mapping[str, pl.DataFrame], watermark: datetime | None) -> None:
        """Make the batch visible in all its tables at once."""
        commits, _ = self._state()
        last = commits.row(-1, named=True) if commits.height else {"seq": 0} | {f"{table}_version": -1 for table in TABLES}
        versions = {table: last[f"{table}_version"] for table in TABLES}
        for table, frame in frames.items():
            if frame.is_empty():
                continue
            self._roll_back(table, versions[table])
            if table == "items":
                write_deltalake(str(self.path / table), frame.to_arrow(), mode="overwrite", schema_mode="overwrite")
            else:
                write_deltalake(str(self.path / table), frame.to_arrow(), mode="append", schema_mode="merge" if table in _LATER else None)
            written = self._table(table)
            if written is None:
                raise DataError(f"lake: {table} was written to {self.path / table} but cannot be opened; has another program removed it?")
            versions[table] = written.version()
        row = {"seq": last["seq"] + 1, "batch": batch, "watermark": watermark}
        row |= {f"{table}_version": version for table, version in versions.items()}
        added = pl.DataFrame([row], schema=COMMITS)
        whole = row["seq"] % COMMITS_PER_FILE == 0
        log = pl.concat([commits, added]) if whole else added
        write_deltalake(str(self.path / "commits"), log.to_arrow(), mode="overwrite" if whole else "append")

    def _roll_back(self, table: str, version: int) -> None:
        """Undo what a writer that died before its commit row left in `table`."""
        delta = self._table(table)
        if delta is None:
            return
        if version < 0:
            shutil.rmtree(self.path / table)
        elif delta.version() != version:
            delta.restore(version)


def _files(delta: DeltaTable) -> list[str]:
    """Local paths of a version's Parquet files; Delta answers with URIs, in which a space is `%20`."""
    return sorted(unquote(uri.removeprefix("file://")) for uri in delta.file_uris())


def _statistics(delta: DeltaTable) -> pl.DataFrame | None:
    """See `Snapshot.statistics`; null where a file has none."""
    actions, names = pl.DataFrame(delta.get_add_actions(flatten=True)), ["min.time", "max.time", "num_records"]
    if actions.is_empty() or not set(names) <= set(actions.columns) or actions.select(names).null_count().sum_horizontal()[0]:
        return None
    name = pl.col("path").map_elements(lambda path: unquote(path).rpartition("/")[2], pl.String)
    return actions.select(name=name, first="min.time", last="max.time", rows="num_records")


def _newest(log: Path) -> tuple[str, int, int] | None:
    """Name, time of change and inode of the newest entry of a Delta log; null when there is none."""
    if not log.is_dir():
        return None
    names = [name for name in os.listdir(log) if name.endswith(".json") and name[:-5].isdigit()]
    if not names:
        return None
    stat = (log / max(names)).stat()
    return max(names), stat.st_mtime_ns, stat.st_ino
