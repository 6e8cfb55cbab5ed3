"""Where the tables lie: in a folder as Delta Lake, or in memory. Both answer the same questions.

A folder holds one Delta table per table of the schema, and the log of commits (`commits.py`), which
has a line per batch. Only what its lines name is visible, so a batch that touches several tables
appears whole or not at all. `append` returns after everything the line names is on disk.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal, Protocol

import polars as pl

from longplay.errors import DataError, LongplayError
from longplay.files import make_folder, sync_path, writer_lock
from longplay.lake import delta
from longplay.lake.commits import (
    BEGINNING,
    FOLDER,
    LOG,
    Commit,
    CommitLog,
    LakeState,
    LogText,
    TableChange,
)
from longplay.lake.legacy import legacy_commits
from longplay.lake.schema import TABLES, empty
from longplay.lake.snapshot import Snapshot, lost_columns

_STORE_IDS = itertools.count(1)  # unlike id(), never given out twice in a process


class Store(Protocol):
    """Protocol of a lake's storage. `id` is unique among the stores of one process."""

    @property
    def id(self) -> int:
        """A number no other store of this process has."""
        ...

    def snapshot(self) -> Snapshot:
        """The state after the last whole batch."""
        ...

    def batches(self) -> Mapping[str, str | None]:
        """Digest of the content of every batch that is in, by its id; null where it was not
        kept."""
        ...

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the writer's lock; batches are looked up and written under it."""
        ...

    def commit(
        self,
        batch: str,
        frames: Mapping[str, pl.DataFrame],
        watermark: datetime | None,
        content: str | None = None,
    ) -> None:
        """Make the batch visible in all its tables at once; `content` is the digest of what was
        given."""
        ...


class MemoryStore:
    """Tables as polars frames; a batch replaces the mapping in one assignment."""

    def __init__(self) -> None:
        self.id = next(_STORE_IDS)
        self._lock = threading.Lock()
        self._snapshot = Snapshot((0,), None, frames={table: empty(table) for table in TABLES})
        self._batches: dict[str, str | None] = {}

    def __deepcopy__(self, memo: dict[int, object]) -> MemoryStore:
        """A store with the same batches, to which others can be added. Frames are shared: a commit
        replaces them."""
        copied = MemoryStore()
        copied._snapshot = self._snapshot
        copied._batches = dict(self._batches)
        return copied

    def snapshot(self) -> Snapshot:
        """The state after the last whole batch."""
        return self._snapshot

    def batches(self) -> Mapping[str, str | None]:
        """Digest of the content of every batch that is in, by its id."""
        return self._batches

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the writer's lock; batches are looked up and written under it."""
        with self._lock:
            yield

    def commit(
        self,
        batch: str,
        frames: Mapping[str, pl.DataFrame],
        watermark: datetime | None,
        content: str | None = None,
    ) -> None:
        """Make the batch visible in all its tables at once; `content` is the digest of what was
        given."""
        old = self._snapshot
        merged = dict(old.frames)
        for table, frame in frames.items():
            merged[table] = pl.concat([old.frames[table], frame])
        self._snapshot = Snapshot((old.seq + 1,), watermark, frames=merged)
        self._batches[batch] = content


class FolderStore:
    """Tables in Delta Lake under `path`; one writer at a time, any number of readers.

    Raises:
        DataError: `path` is a file, cannot be read by SQL engines, or holds tables that are not a
            lake's.
    """

    def __init__(self, path: Path) -> None:
        self.id = next(_STORE_IDS)
        self.path = path.expanduser().resolve()  # a later chdir must not move the lake
        if self.path.exists() and not self.path.is_dir():
            raise DataError(
                f"lake: {self.path} is a file, expected a folder (it may be new or empty)"
            )
        if pattern := set("*?[") & set(str(self.path)):
            why = f"holds {min(pattern)!r}, which SQL engines read as a pattern"
            raise DataError(f"lake: the path {self.path} {why}; choose a folder without *, ? and [")
        self._log = CommitLog(self.path)
        self._history = _History()
        self._taken_over: tuple[tuple[int, ...], LakeState] | None = None
        self._shown: Snapshot | None = None
        self._whole: set[tuple[str, str]] = set()  # files whose name and size were checked
        self._refuse_foreign_folder()

    # -- what is there ---------------------------------------------------------------------------

    def __deepcopy__(self, memo: dict[int, object]) -> FolderStore:
        """Raises: two copies would write into one folder."""
        raise DataError(
            f"lake: a copy of the lake in {self.path} was asked for, and would write into the same "
            "folder; copy a lake in memory, or open a copy of the folder"
        )

    def _refuse_foreign_folder(self) -> None:
        """Raise where the folder has tables but no log of commits. The tables belong to another
        program, or the log was lost."""
        if self._log.exists() or _has_entries(self.path / FOLDER / delta.LOG_FOLDER):
            return
        tables = [repr(name) for name in tables_in(self.path)]
        if tables:
            raise DataError(
                f"lake: {self.path} holds {', '.join(tables[:5])} but no log of commits "
                f"({FOLDER}/{LOG}): it is no lake of "
                "longplay, or its log was lost. Nothing was touched; choose a new or empty "
                "folder, or put the log back "
                "from a backup"
            )

    def _commits(self) -> _History:
        """The commits in the log. Only lines added since the last call are read.

        Raises:
            DataError: the log of commits is damaged beyond what its copy can mend.
        """
        stamp = self._log.stamp()
        if stamp == self._history.stamp and (stamp is not None or self._history.legacy):
            return self._history
        self._history = self._grown(stamp) or self._read_whole()
        return self._history

    def _grown(self, stamp: tuple[int, int, int] | None) -> _History | None:
        """The history with the lines that were added to the log since; null where the log must be
        read from its start."""
        history = self._history
        if (
            stamp is None
            or history.stamp is None
            or stamp[0] != history.stamp[0]
            or stamp[1] <= history.size
        ):
            return None
        added = self._log.tail(history.size, history.state.seq + 1)
        if not added:
            return None
        size = history.size + sum(len(commit.line()) for commit in added)
        return _History(stamp, size, (*history.commits, *added), history.state.with_commits(added))

    def _read_whole(self) -> _History:
        stamp = self._log.stamp()
        text = LogText.read(self.path)
        if text.lost is not None:
            raise self._damaged(f"commit {text.lost} is damaged in both copies of {FOLDER}/{LOG}")
        if text.commits:
            size = sum(len(commit.line()) for commit in text.commits)
            return _History(stamp, size, text.commits, LakeState().with_commits(text.commits))
        if self._log.exists():
            raise self._damaged(f"no line of {FOLDER}/{LOG} is whole")
        if legacy := legacy_commits(self.path):
            return _History(None, 0, legacy, LakeState().with_commits(legacy), legacy=True)
        self._refuse_foreign_folder()
        return _History()

    def _damaged(self, what: str) -> DataError:
        return DataError(
            f"lake: {self.path} is damaged: {what}. Nothing was touched; `longplay lake check "
            f"{self.path}` names all damage"
        )

    def _state(self) -> tuple[LakeState, tuple[int, ...]]:
        """The state to show, other programs' changes included, and a stamp that identifies it.

        Raises:
            DataError: the lake is damaged, or another program wrote into its tables.
        """
        state = self._commits().state
        later = self._later()
        while max(versions.last_begun for versions in later.values()) > state.seq + 1:
            # a commit beyond the next: other writers were quick, or the end of the log is gone
            if (again := self._commits().state).seq == state.seq:
                raise self._damaged(
                    f"{FOLDER}/{LOG} ends with commit {state.seq}, and its tables hold later ones"
                )
            state = again
            later = self._later()
        for table, versions in later.items():
            if versions.refused:
                version, operation = versions.refused[0]
                raise DataError(
                    f"lake: another program changed {self.path / table} (version {version}, "
                    f"{operation}); a lake takes over deleted rows and merged "
                    "files, and no rows that did not pass its checks. Nothing was touched; "
                    f"restore version {max(state.version(table), 0)} with the "
                    "program that made the change, or leave it out with `longplay lake repair`; "
                    "give the rows to Lake.append"
                )
        newest = tuple(
            versions.honoured[-1][0] if versions.honoured else state.version(table)
            for table, versions in later.items()
        )
        stamp = (state.seq, *newest)
        if any(versions.honoured for versions in later.values()):
            if self._taken_over is None or self._taken_over[0] != stamp:
                self._taken_over = stamp, self._with_others(state, later)
            state = self._taken_over[1]
        self._check_files(state)
        return state, stamp

    def _later(self) -> dict[str, delta.LaterVersions]:
        """The versions in each table's Delta log after the last commit."""
        state = self._history.state
        return {
            table: delta.later_versions(self.path / table, state.version(table)) for table in TABLES
        }

    def _with_others(self, state: LakeState, later: Mapping[str, delta.LaterVersions]) -> LakeState:
        """The state with the changes that other programs made to the tables."""
        changes = {}
        for table, versions in later.items():
            if not versions.honoured:
                continue
            if versions.dead:
                raise self._damaged(
                    f"another program changed {table} after a batch that was not finished"
                )
            opened = delta.open_table(self.path / table)
            if opened is None:
                raise self._damaged(f"the Delta log of {table} is gone")
            names = set(delta.names_of(opened))
            files_by_name = state.files.get(table, {})
            added = tuple(
                delta.described(self.path / table, table, name)
                for name in sorted(names - files_by_name.keys())
            )
            changes[table] = TableChange(
                opened.version(), added, tuple(name for name in files_by_name if name not in names)
            )
        return state.with_commits([Commit(state.seq, None, None, state.watermark, changes)])

    def _check_files(self, state: LakeState) -> None:
        """Raise where a file is absent or has another size. Each file is checked once."""
        for table, files in state.files.items():
            for name, file in files.items():
                if (table, name) in self._whole:
                    continue
                try:
                    size = os.path.getsize(os.path.join(self.path, table, name))
                except OSError:
                    raise self._damaged(f"{table}/{name} is missing") from None
                if size != file.bytes:
                    raise self._damaged(
                        f"{table}/{name} has {size:,} bytes, expected {file.bytes:,}"
                    )
                self._whole.add((table, name))

    def snapshot(self) -> Snapshot:
        """The state after the last whole batch."""
        state, stamp = self._state()
        if self._shown is None or self._shown.version != stamp:
            self._shown = Snapshot(stamp, state.watermark, state.files, self.path)
        return self._shown

    def batches(self) -> Mapping[str, str | None]:
        """Digest of the content of every batch that is in, by its id; null where it was not
        kept."""
        return self._commits().state.batches

    # -- writing ---------------------------------------------------------------------------------

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the writer's lock; it is released by the system when a writer dies."""
        self._commits()  # a folder that is no lake is refused before anything is made in it
        with writer_lock(self.path):
            yield

    def commit(
        self,
        batch: str,
        frames: Mapping[str, pl.DataFrame],
        watermark: datetime | None,
        content: str | None = None,
    ) -> None:
        """Make the batch visible in all its tables at once; `content` is the digest of what was
        given."""
        try:
            self._commit(batch, frames, watermark, content)
        except LongplayError:
            raise
        except Exception as error:  # the disk and the Delta library raise errors of many types
            raise DataError(
                f"lake: batch {batch} cannot be written to {self.path} "
                f"({delta.first_line(error)}); append it again when that is "
                f"mended. `longplay lake check {self.path}` tells whether the lake is damaged"
            ) from error

    def _commit(
        self,
        batch: str,
        frames: Mapping[str, pl.DataFrame],
        watermark: datetime | None,
        content: str | None,
    ) -> None:
        history = self._commits()
        state, _ = self._state()
        if history.legacy:
            history = self._adopt_legacy(history)
        if not history.commits:
            self._log.begin()
            history = self._commits()
        work = _Work(history.state, state, history.state.seq + 1, batch)
        changes = {
            table: self._external_change(table, history.state, state) for table in state.files
        }
        for table, frame in frames.items():
            if frame.height:
                changes[table] = self._write(table, frame, work, changes.get(table))
        changed = {table: change for table, change in changes.items() if change is not None}
        self._log.append(
            Commit(work.seq, batch, content, watermark, changed), history.commits, history.size
        )

    def _external_change(
        self, table: str, recorded: LakeState, state: LakeState
    ) -> TableChange | None:
        """The change that another program made to a table, as the log will record it; null where
        there is none."""
        recorded_files = recorded.files.get(table, {})
        present_files = state.files[table]
        same_files = recorded_files.keys() == present_files.keys()
        if same_files and recorded.version(table) == state.version(table):
            return None
        return TableChange(
            state.version(table),
            tuple(file for name, file in present_files.items() if name not in recorded_files),
            tuple(name for name in recorded_files if name not in present_files),
            delta.synced_log(self.path / table, recorded, table),
        )

    def _write(
        self, table: str, frame: pl.DataFrame, work: _Work, external: TableChange | None
    ) -> TableChange:
        """Write rows as a new version of a Delta table, sync all files, and return the change,
        `external` included."""
        folder = self.path / table
        state = work.state
        recorded = work.recorded
        version = state.version(table)
        delta.set_torn_end_aside(folder, version)
        make_folder(folder)
        opened = delta.open_table(folder)
        mode: Literal["append", "overwrite"] = "append"
        if version >= 0 and (opened is None or opened.version() < version):
            raise self._damaged(f"the Delta log of {table} ends before version {version}")
        # a writer that died left a version without a commit
        if opened is not None and opened.version() != version:
            if version < 0:
                mode = "overwrite"
            else:
                delta.take_back(opened, version, work.seq)
                opened = delta.open_table(folder)
        files_by_name = state.files.get(table, {})
        if version >= 0 and (opened is None or set(delta.names_of(opened)) != files_by_name.keys()):
            raise self._damaged(
                f"the Delta log of {table} does not show the files that the log of commits names"
            )
        if opened is not None and (lost := lost_columns(table, opened)):
            raise self._damaged(f"the Delta log of {table} has no column {lost[0]!r}")
        start = -1 if opened is None else opened.version()
        delta.write(folder, opened, frame, mode, work.seq, work.batch)
        newest, names = delta.written_files(folder, start, work.seq)
        for name in names:
            sync_path(folder / name)
        entries = delta.synced_log(folder, recorded, table)
        sync_path(folder)
        added = tuple(delta.described(folder, table, name) for name in names)
        if external is None:
            return TableChange(newest, added, (), entries)
        return TableChange(newest, (*external.added, *added), external.removed, entries)

    def _adopt_legacy(self, history: _History) -> _History:
        """Write a log of commits, with digests of the present files, for a lake that has none."""
        last = history.commits[-1]
        changes = {}
        for table, change in last.tables.items():
            added = tuple(
                delta.described(self.path / table, table, file.name) for file in change.added
            )
            changes[table] = TableChange(
                change.version, added, (), delta.synced_log(self.path / table, LakeState(), table)
            )
        commits = (
            BEGINNING,
            *history.commits[:-1],
            Commit(last.seq, last.batch, last.content, last.watermark, changes),
        )
        self._log.replace(commits, ".old")
        self._history = self._read_whole()
        return self._history


@dataclass(frozen=True)
class _History:
    """What a store has read of its log of commits. `size` is the length of its complete lines in
    bytes."""

    stamp: tuple[int, int, int] | None = None
    size: int = 0
    commits: Sequence[Commit] = ()
    state: LakeState = field(default_factory=LakeState)
    legacy: bool = False


@dataclass(frozen=True)
class _Work:
    """The state that a commit starts from.

    Args:
        recorded: the state that the log of commits says.
        state: the same with other programs' changes.
        seq: number of the commit, and its batch.
        batch: number of the commit, and its batch.
    """

    recorded: LakeState
    state: LakeState
    seq: int
    batch: str


def _has_entries(folder: Path) -> bool:
    """Whether a folder holds anything besides leftovers of an interrupted `files.write_file`."""
    return folder.is_dir() and any(not name.endswith(".writing") for name in os.listdir(folder))


def tables_in(folder: Path) -> list[str]:
    """Names of the tables in a folder, whichever program wrote them."""
    if folder.is_dir():
        return [name for name in sorted(os.listdir(folder)) if _is_table(folder / name)]
    return []


def _is_table(path: Path) -> bool:
    """Whether an entry of a folder is a table: it has a lake's name, or a Delta log."""
    name = path.name.lower()
    if name in TABLES or name == FOLDER:
        return not path.is_dir() or _has_entries(path)
    return (path / delta.LOG_FOLDER).is_dir()
