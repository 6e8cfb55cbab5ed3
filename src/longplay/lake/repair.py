"""Checking a lake for damage, file by file, and repairing it back to the last whole batch."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from longplay.errors import DataError
from longplay.files import sync_path, writer_lock
from longplay.lake import delta
from longplay.lake.commits import (
    BEGINNING,
    FOLDER,
    LOG,
    MISSING,
    Commit,
    CommitLog,
    LakeState,
    LogText,
    TableChange,
    file_damage,
)
from longplay.lake.legacy import legacy_commits
from longplay.lake.schema import TABLES
from longplay.lake.storage import tables_in

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Damage:
    """A file that differs from what the lake wrote.

    Args:
        path: file or folder, below the lake's folder.
        problem: what is wrong with it.
        batch: the batch that wrote it, where one did.
    """

    path: str
    problem: str
    batch: str | None = None

    def __str__(self) -> str:
        return f"{self.path} {self.problem}" + (
            f" (batch {self.batch})" if self.batch is not None else ""
        )


@dataclass(frozen=True)
class Checked:
    """What `check` found.

    Args:
        batches: number of batches that the log of commits names.
        files: number of files that were compared.
        damages: what is not as it was written; empty for a whole lake.
        notes: what is no damage, but worth knowing.
    """

    batches: int
    files: int
    damages: tuple[Damage, ...]
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        head = f"{self.batches:,} batches, {self.files:,} files: " + (
            f"{len(self.damages):,} damaged" if self.damages else "whole"
        )
        return "\n".join(
            [
                head,
                *(f"- {damage}" for damage in self.damages),
                *(f"- note: {note}" for note in self.notes),
            ]
        )


@dataclass(frozen=True)
class Repaired:
    """What `repair` did.

    Args:
        kept_batches: batches that are in.
        lost_batches: batches that are no longer in, to be appended again, oldest first.
        undone: changes of other programs that are no longer in.
        aside: old files and folders that were kept under another name, below the lake's folder.
    """

    kept_batches: tuple[str, ...]
    lost_batches: tuple[str, ...]
    undone: tuple[str, ...]
    aside: tuple[str, ...]

    def __str__(self) -> str:
        lines = [
            f"{len(self.kept_batches):,} batches are whole"
            + (f", the last {self.kept_batches[-1]!r}" if self.kept_batches else "")
        ]
        if self.lost_batches:
            lines.append("append these batches again: " + ", ".join(map(repr, self.lost_batches)))
        if self.undone:
            lines.append(
                "another program's changes that are no longer in: " + ", ".join(self.undone)
            )
        if self.aside:
            lines.append("kept under another name: " + ", ".join(self.aside))
        return "\n".join(lines)


def check(lake: Path, progress: Progress | None = None) -> Checked:
    """Compare every file of the lake with what the log of commits says of it. Nothing is changed.

    Args:
        lake: folder of the lake.
        progress: is told how many of how many files were compared.

    Raises:
        DataError: the folder is no lake.
    """
    lake = lake.expanduser().resolve()
    text, commits = _read(lake)
    state = LakeState().with_commits(commits)
    batch_of = _batches_of_files(commits)
    damages = [Damage(f"{FOLDER}/{name}", problem) for name, problem in text.damage.items()]
    if text.lost is not None:
        damages.append(Damage(f"{FOLDER}/{LOG}", f"lacks commit {text.lost} in both copies"))
    later_of = {table: delta.later_versions(lake / table, state.version(table)) for table in TABLES}
    last_begun = max(later.last_begun for later in later_of.values())
    if text.lost is None and last_begun > state.seq + 1:
        damages.append(
            Damage(
                f"{FOLDER}/{LOG}",
                f"ends with commit {state.seq}, and the tables hold commit {last_begun}",
            )
        )
    notes: list[str] = []
    gone: set[tuple[str, str]] = set()
    for table, later in later_of.items():
        for version, operation in later.refused:
            entry = f"{table}/{delta.LOG_FOLDER}/{delta.log_entry(lake / table, version).name}"
            damages.append(
                Damage(
                    entry,
                    f"is another program's change ({operation}), which a lake cannot take over",
                )
            )
        for name, problem in _log_problems(lake / table, table, state, later):
            entry = f"{table}/{delta.LOG_FOLDER}/{name}".rstrip("/")
            damages.append(Damage(entry, problem, batch_of.get((table, name))))
        notes += _notes(table, later)
        gone |= _removed_by_others(lake / table, table, state, later)
    files = [(table, file) for table, names in state.files.items() for file in names.values()]
    for done, (table, file) in enumerate(files):
        problem = file_damage(lake / table, file)
        if problem is not None and (table, file.name) not in gone:
            damages.append(
                Damage(f"{table}/{file.name}", problem, batch_of.get((table, file.name)))
            )
        if progress is not None:
            progress(done + 1, len(files))
    if any(file.sha256 is None for _, file in files):
        notes.append("written by an older longplay: digests are recorded from the next append on")
    entries = sum(len(names) for names in state.logs.values())
    return Checked(len(state.batches), len(files) + entries, tuple(damages), tuple(notes))


def repair(lake: Path, progress: Progress | None = None) -> Repaired:
    """Take a lake back to its last whole batch, and bring its logs in order.

    The last whole batch is the last one up to which every file is as it was written. Nothing is
    deleted: damaged logs are renamed, and files of lost batches stay, shown by nothing.

    Args:
        lake: folder of the lake.
        progress: is told how many of how many files were compared.

    Raises:
        DataError: the folder is no lake, or nothing says which batches are whole.
    """
    lake = lake.expanduser().resolve()
    _read(lake)
    with writer_lock(lake):
        return _repair(lake, progress)


def _repair(lake: Path, progress: Progress | None) -> Repaired:
    text, commits = _read(lake)
    log = CommitLog(lake)
    aside: list[Path] = []
    if not commits:
        return Repaired((), (), (), ())
    if commits[0].seq != 0:  # an older lake
        commits = (BEGINNING, *commits)
    if text.damage or text.lost is not None or not log.exists():
        number = len(list((lake / FOLDER).glob("*.damaged-*")))
        aside += log.replace(commits, f".damaged-{number}")
    current = LakeState().with_commits(commits)
    wanted = _last_whole(lake, commits, progress)
    lost = [batch for batch in current.batches if batch not in wanted.batches]
    seq = current.seq + 1
    changes: dict[str, TableChange] = {}
    undone: list[str] = []
    beyond: dict[int, str] = {}  # commits whose lines are lost: the tables hold their batches
    for table in TABLES:
        later = delta.later_versions(lake / table, current.version(table))
        if later.last_begun > seq:
            beyond |= later.begun
        change, log_aside = _repair_table(lake / table, table, current, wanted, later, seq)
        aside += [log_aside] if log_aside is not None else []
        if change is not None:
            changes[table] = change
            undone += [
                f"{table}: {operation} (version {version})"
                for version, operation in (*later.honoured, *later.refused)
            ]
    if changes or lost:
        log.append(Commit(seq, None, None, wanted.watermark, changes, tuple(lost)), commits)
    beyond |= {commit.seq: commit.batch for commit in text.beyond if commit.batch is not None}
    lost += [batch for _, batch in sorted(beyond.items()) if batch]
    names = tuple(str(path.relative_to(lake)) for path in aside)
    return Repaired(tuple(wanted.batches), tuple(lost), tuple(undone), names)


def _read(lake: Path) -> tuple[LogText, tuple[Commit, ...]]:
    """The text and the commits of the log, of an older lake as well. No commits for a lake without
    a batch.

    Raises:
        DataError: there are tables and no log.
    """
    if not lake.is_dir():
        raise DataError(f"lake: {lake} is no folder; give the folder of a lake")
    text = LogText.read(lake)
    commits = text.commits
    if not commits and not CommitLog(lake).exists():
        commits = legacy_commits(lake)
    if not commits and tables_in(lake):
        raise DataError(
            f"lake: {lake} has no log of commits ({FOLDER}/{LOG}) of which a line is whole: it is "
            "no lake of longplay, or "
            "nothing says which of its batches are whole. Nothing was touched; put the log back "
            "from a backup, or append "
            "the batches to a new folder"
        )
    return text, commits


def _batches_of_files(commits: tuple[Commit, ...]) -> dict[tuple[str, str], str]:
    """The batch that wrote a file, by table and name."""
    return {
        (table, file.name): commit.batch
        for commit in commits
        if commit.batch is not None
        for table, change in commit.tables.items()
        for file in (*change.added, *change.log)
    }


def _last_whole(lake: Path, commits: tuple[Commit, ...], progress: Progress | None) -> LakeState:
    """The state after the last commit up to which every file is intact."""
    files = {
        (table, file.name): file
        for commit in commits
        for table, change in commit.tables.items()
        for file in change.added
    }
    damaged: set[tuple[str, str]] = set()
    for done, ((table, name), file) in enumerate(files.items()):
        if file_damage(lake / table, file) is not None:
            damaged.add((table, name))
        if progress is not None:
            progress(done + 1, len(files))
    shown: set[tuple[str, str]] = set()
    last = 0
    for position, commit in enumerate(commits):
        for table, change in commit.tables.items():
            shown -= {(table, name) for name in change.removed}
            shown |= {(table, file.name) for file in change.added}
        if not shown & damaged:
            last = position
    return LakeState().with_commits(commits[: last + 1])


def _log_problems(
    folder: Path, table: str, state: LakeState, later: delta.LaterVersions
) -> list[tuple[str, str]]:
    """Problems of a Delta log that a lake wrote, as (file, problem). The file is "" for the log
    as a whole."""
    if state.version(table) < 0:
        return []
    log = folder / delta.LOG_FOLDER
    names = os.listdir(log) if log.is_dir() else []
    checkpoint = max(
        (int(name[:20]) for name in names if name[:20].isdigit() and ".checkpoint" in name),
        default=-1,
    )
    problems = []
    for name, file in state.logs.get(table, {}).items():
        problem = file_damage(log, file)
        tidied = problem == MISSING and name[:20].isdigit() and int(name[:20]) <= checkpoint
        rewritten = name == delta.LAST_CHECKPOINT and bool(later.honoured or later.dead)
        if problem is not None and not tidied and not rewritten:
            problems.append((name, problem))
    if problems:
        return problems
    try:
        opened = delta.open_table(folder)
    except DataError as error:
        return [] if later.torn else [("", f"cannot be read: {error}")]
    if opened is None:
        return [("", MISSING)]
    shown = set(delta.names_of(opened))
    recorded = set(state.files.get(table, {}))
    if shown != recorded and later == delta.LaterVersions():
        return [("", f"shows {len(shown):,} files, and the log of commits {len(recorded):,}")]
    return []


def _notes(table: str, later: delta.LaterVersions) -> list[str]:
    """Notes on the versions of a Delta log after the last commit."""
    notes = []
    if later.dead or later.torn:
        notes.append(
            f"{table} holds a batch that was not finished; it is not shown, and the next append "
            "undoes it"
        )
    if later.honoured:
        changes = ", ".join(
            f"{operation} (version {version})" for version, operation in later.honoured
        )
        notes.append(
            f"{table} was changed by another program: {changes}; the next append records it"
        )
    return notes


def _removed_by_others(
    folder: Path, table: str, state: LakeState, later: delta.LaterVersions
) -> set[tuple[str, str]]:
    """Files that another program removed from a table in changes that the lake accepts."""
    if not later.honoured:
        return set()
    try:
        opened = delta.open_table(folder)
    except DataError:  # named by `_log_problems`
        return set()
    shown = set() if opened is None else set(delta.names_of(opened))
    return {(table, name) for name in state.files.get(table, {}) if name not in shown}


def _repair_table(
    folder: Path,
    table: str,
    current: LakeState,
    wanted: LakeState,
    later: delta.LaterVersions,
    seq: int,
) -> tuple[TableChange | None, Path | None]:
    """Make a table show the files of `wanted`. Returns what changed, and the Delta log that was set
    aside.

    A table that no commit wrote is not the lake's, and is left alone.
    """
    version = current.version(table)
    if version < 0:
        return None, None
    files = wanted.files.get(table, {})
    had = current.files.get(table, {})
    problems = _log_problems(folder, table, current, later)
    mixed = later.dead and later.honoured  # another program merged what a dying writer left
    settled = not (later.refused or mixed or later.last_begun > seq)
    if files.keys() == had.keys() and not problems and settled:
        return None, None
    aside = _set_log_aside(folder) if problems else None
    delta.set_torn_end_aside(folder, version)
    newest = delta.show_files(folder, table, files.values(), seq)
    entries = delta.synced_log(folder, LakeState() if problems else current, table)
    sync_path(folder)
    added = tuple(file for name, file in files.items() if name not in had)
    removed = tuple(name for name in had if name not in files)
    return TableChange(newest, added, removed, entries, log_anew=bool(problems)), aside


def _set_log_aside(folder: Path) -> Path | None:
    """Rename a table's Delta log; null where there is none."""
    log = folder / delta.LOG_FOLDER
    if not log.exists():
        return None
    number = len(list(folder.glob(f"{delta.LOG_FOLDER}.damaged-*")))
    aside = log.with_name(f"{delta.LOG_FOLDER}.damaged-{number}")
    os.rename(log, aside)
    sync_path(folder)
    return aside
