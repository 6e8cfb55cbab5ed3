"""Delta tables in a lake: what other programs read, and what they changed.

The log of commits says which files a lake shows; the Delta logs say the same to other programs.
Every version that a lake writes carries the word `longplay` in its Delta log, so that three cases
can be told apart: our own version without a commit (a writer that died, undone by the next one),
another program's change that leaves every remaining row as it was (taken over), and any other
(refused).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, unquote

import polars as pl
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, write_deltalake
from deltalake.exceptions import TableNotFoundError
from deltalake.transaction import AddAction

from longplay.errors import DataError
from longplay.files import sha256_of, sync_path
from longplay.lake.commits import DataFile, LakeState
from longplay.lake.schema import DTYPES, TIME_COLUMN

LOG_FOLDER = "_delta_log"
LAST_CHECKPOINT = "_last_checkpoint"
# keys in the Delta log of every version that a lake wrote: number of the commit, and its batch
MARK = "longplay"
BATCH_MARK = "longplay_batch"
# operations of other programs that a lake accepts: rows are deleted or files are merged, and no row
# gets past the lake's checks
HONOURED = (
    "DELETE",
    "OPTIMIZE",
    "VACUUM START",
    "VACUUM END",
    "SET TBLPROPERTIES",
    "UNSET TBLPROPERTIES",
    "FSCK",
)


@dataclass(frozen=True)
class LaterVersions:
    """Versions of a Delta table beyond the one that the last commit names.

    Args:
        dead: versions of our own writers that died, or are still at work.
        begun: number of a commit that these writers had begun -> its batch.
        torn: files of the Delta log that hold no whole entry.
        honoured: (version, operation) of other programs, to be taken over.
        refused: (version, operation) of other programs that a lake cannot take over.
    """

    dead: tuple[int, ...] = ()
    begun: Mapping[int, str] = field(default_factory=dict)
    torn: tuple[Path, ...] = ()
    honoured: tuple[tuple[int, str], ...] = ()
    refused: tuple[tuple[int, str], ...] = ()

    @property
    def last_begun(self) -> int:
        """The highest number of a commit that a writer had begun; -1 where none was."""
        return max(self.begun, default=-1)


def log_entry(table: Path, version: int) -> Path:
    """The file of a Delta log that made `version`."""
    return table / LOG_FOLDER / f"{version:020}.json"


def written_files(table: Path, version: int, seq: int) -> tuple[int, list[str]]:
    """The newest version of a Delta table and the names of the files added for commit `seq`, after
    `version`.

    Raises:
        DataError: another program wrote at the same time.
    """
    names: list[str] = []
    while (entry := log_entry(table, version + 1)).exists():
        actions = _actions(entry) or []
        mark = _mark(actions)
        if mark is None or mark[0] != seq:
            raise DataError(
                f"{table}: another program wrote version {version + 1} at the same time; nothing "
                "of the batch is visible, append it again"
            )
        names += [unquote(action["add"]["path"]) for action in actions if "add" in action]
        version += 1
    return version, names


def later_versions(table: Path, version: int) -> LaterVersions:
    """The versions in a Delta log after `version`, which is -1 where no commit wrote the table."""
    dead: list[int] = []
    begun: dict[int, str] = {}
    torn: list[Path] = []
    honoured: list[tuple[int, str]] = []
    refused: list[tuple[int, str]] = []
    later = version + 1
    while (entry := log_entry(table, later)).exists():
        actions = _actions(entry)
        if actions is None:
            torn.append(entry)
        elif (mark := _mark(actions)) is not None:
            dead.append(later)
            begun[mark[0]] = mark[1]
        else:
            operation = _operation(actions)
            allowed = operation in HONOURED and not any(
                action.get("add", {}).get("deletionVector") for action in actions
            )
            (honoured if allowed else refused).append((later, operation))
        later += 1
    return LaterVersions(tuple(dead), begun, tuple(torn), tuple(honoured), tuple(refused))


def set_torn_end_aside(table: Path, version: int) -> None:
    """Rename incomplete entries at the end of a Delta log, after `version`. An interrupted
    writer left them."""
    later = version
    while log_entry(table, later + 1).exists():
        later += 1
    while later > version and _actions(entry := log_entry(table, later)) is None:
        os.rename(entry, entry.with_suffix(".torn"))
        later -= 1


def _actions(entry: Path) -> list[dict[str, Any]] | None:
    """The actions of a Delta log entry. Null where the entry is empty or incomplete."""
    try:
        actions = [json.loads(line) for line in entry.read_text().splitlines() if line.strip()]
    except (OSError, ValueError):
        return None
    return actions if actions and all(isinstance(action, dict) for action in actions) else None


def _mark(actions: Iterable[Mapping[str, Any]]) -> tuple[int, str] | None:
    """Number and batch of the commit for which a lake's writer made a version; null for a version
    of another program."""
    for action in actions:
        info = action.get("commitInfo", {})
        if MARK in info:
            return int(info[MARK]), str(info.get(BATCH_MARK, ""))
    return None


def _operation(actions: Iterable[Mapping[str, Any]]) -> str:
    return next(
        (
            str(action["commitInfo"].get("operation", "?"))
            for action in actions
            if "commitInfo" in action
        ),
        "?",
    )


def open_table(table: Path) -> DeltaTable | None:
    """The newest version of a Delta table; null where there is none.

    Raises:
        DataError: its log cannot be read.
    """
    try:
        return DeltaTable(str(table)) if DeltaTable.is_deltatable(str(table)) else None
    except TableNotFoundError:
        return None
    except Exception as error:  # what a damaged log raises depends on the damage
        hint = f"`longplay lake check {table.parent}` names all damage"
        raise DataError(
            f"{table / LOG_FOLDER}: the Delta log cannot be read ({first_line(error)}); {hint}"
        ) from error


def names_of(delta: DeltaTable) -> list[str]:
    """Names of a version's files; Delta answers with URIs, in which a space is `%20`."""
    return [unquote(uri).rpartition("/")[2] for uri in delta.file_uris()]


def write(
    table: Path,
    delta: DeltaTable | None,
    frame: pl.DataFrame,
    mode: Literal["append", "overwrite"],
    seq: int,
    batch: str,
) -> None:
    """Add a version to a Delta table.

    Args:
        table: its folder.
        delta: the table as it is, if there is one.
        frame: the rows.
        mode: "append", or "overwrite" to leave out what is there.
        seq: number of the commit it belongs to, and its batch.
        batch: number of the commit it belongs to, and its batch.
    """
    target = str(table) if delta is None else delta
    schema_mode = "merge" if mode == "append" else "overwrite"
    write_deltalake(
        target,
        frame.to_arrow(),
        mode=mode,
        schema_mode=schema_mode,
        commit_properties=_marked(seq, batch),
    )


def take_back(delta: DeltaTable, version: int, seq: int) -> None:
    """Add a version to a Delta table that shows what `version` showed, for commit `seq`."""
    delta.restore(version, commit_properties=_marked(seq))


def show_files(table: Path, name: str, files: Iterable[DataFile], seq: int) -> int:
    """Make the newest version of a Delta table show exactly `files`, and return its number.

    Args:
        table: its folder.
        name: the table's name in the schema.
        files: what it shows.
        seq: number of the commit it belongs to.
    """
    delta = open_table(table)
    schema = pl.DataFrame(schema=DTYPES[name]).to_arrow().schema
    if delta is None:
        delta = DeltaTable.create(str(table), schema, commit_properties=_marked(seq))
    actions: list[Any] = [
        AddAction(
            path=quote(file.name),
            size=file.bytes,
            partition_values={},
            modification_time=int((table / file.name).stat().st_mtime * 1000),
            data_change=True,
            stats=json.dumps({"numRecords": file.rows}),
        )
        for file in files
    ]
    delta.create_write_transaction(
        actions, mode="overwrite", schema=schema, commit_properties=_marked(seq)
    )
    delta.update_incremental()
    return delta.version()


def _marked(seq: int, batch: str = "") -> CommitProperties:
    return CommitProperties(custom_metadata={MARK: str(seq), BATCH_MARK: batch})


def described(table: Path, name: str, file: str, digest: bool = True) -> DataFile:
    """A data file as the log of commits records it.

    Args:
        table: folder of the table.
        name: the table's name in the schema.
        file: the file's path below the folder.
        digest: whether the content's SHA-256 is computed.
    """
    path = table / file
    metadata = pq.read_metadata(path)
    first, last = _times(metadata, TIME_COLUMN.get(name))
    return DataFile(
        file,
        metadata.num_rows,
        path.stat().st_size,
        sha256_of(path) if digest else None,
        first,
        last,
    )


def _times(metadata: Any, column: str | None) -> tuple[datetime | None, datetime | None]:
    """First and last time of a Parquet file, from its row-group statistics."""
    names = [metadata.schema.column(at).path for at in range(metadata.num_columns)]
    if column not in names or metadata.num_rows == 0:
        return None, None
    at = names.index(column)
    statistics = [
        metadata.row_group(group).column(at).statistics for group in range(metadata.num_row_groups)
    ]
    if any(chunk is None or not chunk.has_min_max for chunk in statistics):
        return None, None
    return _utc(min(chunk.min for chunk in statistics)), _utc(
        max(chunk.max for chunk in statistics)
    )


def _utc(time: datetime) -> datetime:
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def synced_log(table: Path, state: LakeState, name: str) -> tuple[DataFile, ...]:
    """Sync the entries of a Delta log that no commit names yet, and describe them.

    Args:
        table: folder of the table.
        state: what the log of commits says; its entries have been synced.
        name: the table's name in the schema.
    """
    folder = table / LOG_FOLDER
    recorded_entries = state.logs.get(name, {})
    entries = []
    for entry in sorted(os.listdir(folder)):
        path = folder / entry
        if entry == LAST_CHECKPOINT or (_is_version(entry) and entry not in recorded_entries):
            sync_path(path)
            entries.append(DataFile(entry, 0, path.stat().st_size, sha256_of(path)))
    sync_path(folder)
    return tuple(entries)


def _is_version(name: str) -> bool:
    """Whether a file of a Delta log is an entry or a checkpoint, not a leftover of an
    interrupted writer."""
    return name[:20].isdigit() and name.endswith((".json", ".parquet"))


def first_line(error: BaseException) -> str:
    """The message of another library's error, without its traceback."""
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
