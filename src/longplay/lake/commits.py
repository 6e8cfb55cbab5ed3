"""The log of commits: one line per batch, which says all that the batch wrote.

`commits/log.jsonl` decides what a lake shows: a file that no line names is invisible. Every line
holds the SHA-256 of the rest of it, so a damaged line is noticed, and the same lines stand in
`commits/copy.jsonl`, so one damaged file loses nothing. The Delta logs of the tables say the same
to other programs.

A line is written, and synced, after everything it names. A writer that dies before leaves files
that nothing shows; one that dies while it writes the line leaves a torn end, which readers pass
over.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from longplay.files import make_folder, sha256_of, sync_path, write_file

FOLDER = "commits"
LOG = "log.jsonl"
COPY = "copy.jsonl"
MISSING = "is missing"
DIGEST_LENGTH = 64  # characters of a SHA-256


@dataclass(frozen=True)
class DataFile:
    """One file of a table, as it was written.

    Args:
        name: path below the table's folder.
        rows: number of rows; 0 for entries of a Delta log.
        bytes: size.
        sha256: of the content; null in lakes written before digests were kept.
        first: times of the first and the last row, where the table has a time.
        last: times of the first and the last row, where the table has a time.
    """

    name: str
    rows: int
    bytes: int
    sha256: str | None
    first: datetime | None = None
    last: datetime | None = None

    def as_json(self) -> dict[str, Any]:
        """The file as JSON values for a line of the log."""
        times = {"first": _time_text(self.first), "last": _time_text(self.last)}
        parts = {"name": self.name, "rows": self.rows, "bytes": self.bytes, "sha256": self.sha256}
        return parts | {name: text for name, text in times.items() if text is not None}

    @classmethod
    def from_json(cls, parts: Mapping[str, Any]) -> DataFile:
        """The file that `as_json` wrote."""
        times = {name: _time_of(parts.get(name)) for name in ("first", "last")}
        return cls(parts["name"], parts["rows"], parts["bytes"], parts["sha256"], **times)


@dataclass(frozen=True)
class TableChange:
    """What a commit did to one table.

    Args:
        version: of the Delta table after it.
        added: data files that are new.
        removed: names of data files that no longer belong to the table.
        log: entries of the Delta log that are new.
        log_anew: whether these are all entries, since the Delta log was written anew.
    """

    version: int
    added: tuple[DataFile, ...] = ()
    removed: tuple[str, ...] = ()
    log: tuple[DataFile, ...] = ()
    log_anew: bool = False

    def as_json(self) -> dict[str, Any]:
        """The change as JSON values for a line of the log."""
        files = {
            name: [file.as_json() for file in getattr(self, name)] for name in ("added", "log")
        }
        return {
            "version": self.version,
            "removed": list(self.removed),
            "log_anew": self.log_anew,
        } | files

    @classmethod
    def from_json(cls, parts: Mapping[str, Any]) -> TableChange:
        """The change that `as_json` wrote."""
        added = tuple(DataFile.from_json(file) for file in parts["added"])
        log = tuple(DataFile.from_json(file) for file in parts["log"])
        return cls(parts["version"], added, tuple(parts["removed"]), log, parts["log_anew"])


@dataclass(frozen=True)
class Commit:
    """One line of the log.

    Args:
        seq: number of the line; 0 for the first, which says that this is a lake, then 1, 2, ...
        batch: the batch's id; null for a repair, which brings no batch.
        content: digest of what was given with the batch; null in lakes written before digests were
            kept.
        watermark: the log is complete before this time.
        tables: changes by table.
        dropped: batches that a repair took back, to be sent again.
    """

    seq: int
    batch: str | None
    content: str | None
    watermark: datetime | None
    tables: Mapping[str, TableChange]
    dropped: tuple[str, ...] = ()

    def line(self) -> bytes:
        """The line of the log: its digest, the commit and a newline."""
        parts = {
            "seq": self.seq,
            "batch": self.batch,
            "content": self.content,
            "watermark": _time_text(self.watermark),
            "tables": {table: change.as_json() for table, change in self.tables.items()},
            "dropped": list(self.dropped),
        }
        text = json.dumps(parts, separators=(",", ":")).encode()
        return hashlib.sha256(text).hexdigest().encode() + b" " + text + b"\n"

    @classmethod
    def of_line(cls, line: bytes) -> Commit | None:
        """The commit of a line without its newline; null where the line is not whole."""
        digest = line[:DIGEST_LENGTH]
        text = line[DIGEST_LENGTH + 1 :]
        if hashlib.sha256(text).hexdigest().encode() != digest:
            return None
        parts = json.loads(text)
        changes = {
            table: TableChange.from_json(change) for table, change in parts["tables"].items()
        }
        return cls(
            parts["seq"],
            parts["batch"],
            parts["content"],
            _time_of(parts["watermark"]),
            changes,
            tuple(parts["dropped"]),
        )


BEGINNING = Commit(0, None, None, None, {})


@dataclass(frozen=True)
class LakeState:
    """The tables' files and versions after a number of commits.

    Args:
        seq: number of the last commit; 0 for none.
        watermark: the log is complete before this time.
        batches: batch id -> digest of its content, null where it was not kept.
        versions: table -> version of its Delta table.
        files: table -> name -> data file, in the order of their commits.
        logs: table -> name -> entry of its Delta log.
    """

    seq: int = 0
    watermark: datetime | None = None
    batches: Mapping[str, str | None] = field(default_factory=dict)
    versions: Mapping[str, int] = field(default_factory=dict)
    files: Mapping[str, Mapping[str, DataFile]] = field(default_factory=dict)
    logs: Mapping[str, Mapping[str, DataFile]] = field(default_factory=dict)

    def version(self, table: str) -> int:
        """Version of a table's Delta table; -1 where no commit wrote it."""
        return self.versions.get(table, -1)

    def with_commits(self, commits: Iterable[Commit]) -> LakeState:
        """The state after `commits`."""
        state = self
        batches = dict(self.batches)
        files = {table: dict(names) for table, names in self.files.items()}
        logs = {table: dict(names) for table, names in self.logs.items()}
        versions = dict(self.versions)
        for commit in commits:
            if commit.batch is not None:
                batches[commit.batch] = commit.content
            for batch in commit.dropped:
                batches.pop(batch, None)
            for table, change in commit.tables.items():
                versions[table] = change.version
                names = files.setdefault(table, {})
                for name in change.removed:
                    names.pop(name, None)
                names.update({file.name: file for file in change.added})
                if change.log_anew:
                    logs[table] = {}
                logs.setdefault(table, {}).update({file.name: file for file in change.log})
            state = replace(state, seq=commit.seq, watermark=commit.watermark)
        return replace(state, batches=batches, versions=versions, files=files, logs=logs)


@dataclass(frozen=True)
class LogText:
    """The merged content of both copies of the log.

    Args:
        commits: the whole lines, oldest first, up to the first that neither copy has; none where
            there is no log.
        damage: file name -> what is wrong with it.
        lost: number of the first commit that neither copy has whole, although later ones are there.
        beyond: the whole lines after that one.
    """

    commits: tuple[Commit, ...]
    damage: Mapping[str, str]
    lost: int | None
    beyond: tuple[Commit, ...] = ()

    @classmethod
    def read(cls, folder: Path) -> LogText:
        """Both copies of the lake in `folder`, merged line by line."""
        lines: dict[str, dict[int, Commit]] = {}
        damage: dict[str, str] = {}
        for name in (LOG, COPY):
            lines[name], problem = _read_lines(folder / FOLDER / name)
            if problem is not None:
                damage[name] = problem
        merged = lines[COPY] | lines[LOG]
        last = max(merged, default=-1)
        for name, commits in lines.items():
            # the copy is written second, so it may lack the newest line of a writer that died in
            # between
            spared = last - 1 if name == COPY else last
            absent = [seq for seq in range(spared + 1) if seq not in commits]
            if absent and name not in damage:
                damage[name] = f"commit {absent[0]} is missing"
        lost = next((seq for seq in range(last + 1) if seq not in merged), None)
        end = last if lost is None else lost - 1
        commits = tuple(merged[seq] for seq in range(end + 1))
        return cls(commits, damage, lost, tuple(merged[seq] for seq in sorted(merged) if seq > end))


class CommitLog:
    """Both copies of the log in a lake's folder."""

    def __init__(self, lake: Path) -> None:
        self.folder = lake / FOLDER

    def exists(self) -> bool:
        """Whether there is a log, in at least one copy."""
        return any((self.folder / name).is_file() for name in (LOG, COPY))

    def begin(self) -> None:
        """Write the first line, before any table: from then on the folder is a lake."""
        make_folder(self.folder)
        for name in (LOG, COPY):
            write_file(self.folder / name, BEGINNING.line())

    def stamp(self) -> tuple[int, int, int] | None:
        """Inode, size and change time of the log, which identify its content."""
        try:
            stat = (self.folder / LOG).stat()
        except OSError:
            return None
        return stat.st_ino, stat.st_size, stat.st_mtime_ns

    def tail(self, start: int, seq: int) -> tuple[Commit, ...] | None:
        """Commits after byte `start`, whose first must have number `seq`; null where they are not
        whole."""
        with (self.folder / LOG).open("rb") as handle:
            handle.seek(start)
            text = handle.read()
        commits = [Commit.of_line(line) for line in text.split(b"\n")[:-1]]
        readable = tuple(commit for commit in commits if commit is not None)
        numbers = [commit.seq for commit in readable]
        if len(readable) < len(commits) or numbers != list(range(seq, seq + len(readable))):
            return None
        return readable

    def append(
        self, commit: Commit, earlier_commits: Sequence[Commit], size: int | None = None
    ) -> None:
        """Write a line to both copies and sync it.

        Copies of another size are written anew first: their end was torn by a writer that died.

        Args:
            commit: the next line.
            earlier_commits: all commits before it, in order.
            size: bytes of their lines, where they are known.
        """
        if size is None:
            size = sum(len(earlier.line()) for earlier in earlier_commits)
        paths = [self.folder / name for name in (LOG, COPY)]
        for path in paths:
            if not path.is_file() or path.stat().st_size != size:
                write_file(path, b"".join(earlier.line() for earlier in earlier_commits))
        for path in paths:
            with path.open("ab") as handle:
                handle.write(commit.line())
                handle.flush()
                os.fsync(handle.fileno())

    def replace(self, commits: Iterable[Commit], suffix: str) -> list[Path]:
        """Write both copies anew, and return the old files, which stay beside them with
        `suffix`."""
        make_folder(self.folder)
        text = b"".join(commit.line() for commit in commits)
        moved_aside = []
        for name in (LOG, COPY):
            path = self.folder / name
            if path.exists() and not (path.is_file() and path.read_bytes() == text):
                aside = path.with_name(name + suffix)
                os.rename(path, aside)
                moved_aside.append(aside)
            write_file(path, text)
        sync_path(self.folder)
        return moved_aside


def file_damage(folder: Path, file: DataFile) -> str | None:
    """What is wrong with a file below `folder`; null where it is as it was written."""
    path = folder / file.name
    try:
        size = path.stat().st_size
        if size != file.bytes:
            return f"has {size:,} bytes, expected {file.bytes:,}"
        if file.sha256 is not None and sha256_of(path) != file.sha256:
            return "has other content than was written (SHA-256)"
    except FileNotFoundError:
        return MISSING
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return None


def _read_lines(path: Path) -> tuple[dict[int, Commit], str | None]:
    """Complete lines by number, and what is wrong with the others. An end without newline is not
    counted as wrong."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return {}, None
    except OSError as error:
        return {}, f"cannot be read ({error.strerror})"
    commits: dict[int, Commit] = {}
    damaged = []
    for number, line in enumerate(text.split(b"\n")[:-1], start=1):
        commit = Commit.of_line(line)
        if commit is None:
            damaged.append(number)
        else:
            commits[commit.seq] = commit
    return commits, f"line {damaged[0]} is damaged" if damaged else None


def _time_text(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat()


def _time_of(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
