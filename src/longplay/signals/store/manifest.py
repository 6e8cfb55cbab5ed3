"""The manifest of a store: which files count, and the rows they make together."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from longplay.errors import DataError
from longplay.files import changed_file, sha256_of, sync_path, write_file
from longplay.signals.engine.parts import entry_keys
from longplay.signals.engine.rollups import files_sql, has_many_days, paths
from longplay.signals.signal import Signal

FORMAT = 3  # of the folder: raised when what is in it changes
# 1 had a file for every day; 1 and 2 had no digests, and did not store where the log begins
READABLE = (1, 2, FORMAT)
MANIFEST = "manifest.json"
Files = dict[int, list[str]]  # day -> files


@dataclass(frozen=True)
class Patch:
    """The rows of users with late events that one update computed again.

    Attributes:
        seq: number of the update.
        first_day: the first entry day that it computed again.
        rows: files with the new rows.
        users: the file with the users; their older rows no longer count.
    """

    seq: int
    first_day: int
    rows: list[str]
    users: str

    @classmethod
    def read(cls, table: Mapping[str, Any]) -> Self:
        """A patch as `stored` wrote it."""
        return cls(table["seq"], table["from"], list(table["rows"]), table["users"])

    def stored(self) -> dict[str, Any]:
        """The patch as JSON."""
        return {"seq": self.seq, "from": self.first_day, "rows": self.rows, "users": self.users}

    @property
    def files(self) -> list[str]:
        """All files of the patch."""
        return [*self.rows, self.users]


@dataclass
class Manifest:
    """Which files of a store count, and what they hold. Days are since 1970-01-01, files relative
    to the folder.

    Attributes:
        seq: number of the last update.
        until: the midnight up to which everything is counted; null before the first update.
        seen: table of the lake -> its files that are counted.
        features: roll-up -> its columns.
        rollups: roll-up -> day -> files.
        outcomes: label of a signal -> entry day -> files.
        seqs: label -> entry day -> number of the update that computed it for all users.
        patches: label -> patches of users with late events, in order.
        counted_until: label -> the midnight up to which it is counted: before `until` once the
            store is no longer given the signal.
        declared: label -> the signal as TOML.
        days: days with an event or a decision.
        begun: first and last day of each run of activity, see `signals.engine.beginnings`.
        catalogue: the columns of `catalogue_file` that outcomes were computed from.
        catalogue_file: a copy of what the catalogue said of items.
        lacking: whether a counted event has an item and no creator; null where it was not asked.
        digests: file -> SHA-256, of every file that counts.
        stale: files that counted before this update and no longer do; the next one deletes them.
            Null where they are not known.
    """

    seq: int = 0
    until: int | None = None
    seen: dict[str, list[str]] = field(default_factory=dict)
    features: dict[str, list[str]] = field(default_factory=dict)
    rollups: dict[str, Files] = field(default_factory=dict)
    outcomes: dict[str, Files] = field(default_factory=dict)
    seqs: dict[str, dict[int, int]] = field(default_factory=dict)
    patches: dict[str, list[Patch]] = field(default_factory=dict)
    counted_until: dict[str, int] = field(default_factory=dict)
    declared: dict[str, str] = field(default_factory=dict)
    days: list[int] = field(default_factory=list)
    begun: list[list[int]] = field(default_factory=list)
    catalogue: list[str] = field(default_factory=list)
    catalogue_file: str | None = None
    lacking: bool | None = None
    digests: dict[str, str] = field(default_factory=dict)
    stale: list[str] | None = None

    def files(self) -> set[str]:
        """Every file that counts."""
        by_day = [*self.rollups.values(), *self.outcomes.values()]
        files = {file for days in by_day for files in days.values() for file in files}
        if self.catalogue_file is not None:
            files.add(self.catalogue_file)
        for patches in self.patches.values():
            for patch in patches:
                files.update(patch.files)
        return files

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The manifest of a folder; an empty one where there is none yet.

        Raises:
            DataError: the folder was written by another version, or its manifest is not as it was
                written.
        """
        path = folder / MANIFEST
        if not os.path.lexists(path):
            return cls()
        try:
            table = json.loads(path.read_bytes().decode())
            form = table.pop("format")
            digest = table.pop("sha256", None)
        except (OSError, ValueError, RecursionError, KeyError, AttributeError, TypeError) as error:
            raise damaged(folder, f"{path}: cannot be read ({error})") from error
        if form not in READABLE:
            raise DataError(
                f"SignalStore: {folder} was written by another version of longplay; delete it and "
                "build it anew"
            )
        if form == FORMAT and digest != _digest(table):
            raise damaged(folder, f"{path}: was changed after it was written")
        try:
            if "begun" not in table:
                # an earlier version, which did not store where the log begins: all is counted again
                return cls(seq=table["seq"])
            return cls(**_from_stored(table))
        except (KeyError, ValueError, AttributeError, TypeError) as error:
            raise damaged(folder, f"{path}: is not of its form ({error})") from error

    def write(self, folder: Path) -> None:
        """Replace the folder's manifest in one step: before it nothing of an update counts, after
        it all does.

        Every file that the manifest names, and the folder of each, is on disk before.
        """
        counting = self.files()
        new_files = sorted(counting - self.digests.keys())
        folders = {""}  # of the new files, and those above them
        for file in new_files:
            sync_path(os.path.join(folder, file))
            while file := os.path.dirname(file):
                folders.add(file)
        for below in sorted(folders, reverse=True):
            sync_path(os.path.join(folder, below))
        new_digests = {file: sha256_of(os.path.join(folder, file)) for file in new_files}
        self.digests = {
            file: self.digests.get(file) or new_digests[file] for file in sorted(counting)
        }
        # as JSON reads it back: the digest is of the text
        table = json.loads(json.dumps(self._stored()))
        write_file(
            folder / MANIFEST, json.dumps({"format": FORMAT, "sha256": _digest(table), **table})
        )

    def _stored(self) -> dict[str, Any]:
        """The manifest as JSON, under the names that files of `FORMAT` have."""
        table = dict(self.__dict__)
        table["kept"] = table.pop("counted_until")
        table["patches"] = {
            label: [patch.stored() for patch in patches] for label, patches in self.patches.items()
        }
        return table

    def check(self, folder: Path, files: Iterable[str]) -> None:
        """Check files of the store before they are read.

        Raises:
            DataError: one is missing, or is not as it was written. Of a store without digests it is
                only known whether it is there.
        """
        distinct_files = dict.fromkeys(files)
        for file in distinct_files:
            if file not in self.digests and not os.path.isfile(os.path.join(folder, file)):
                raise damaged(folder, f"{folder / file}: is missing")
        digests = {file: self.digests[file] for file in distinct_files if file in self.digests}
        if (change := changed_file(folder, digests)) is not None:
            raise damaged(folder, change)

    def files_of(self, label: str) -> list[str]:
        """The files that hold a signal's rows."""
        files = [file for day in self.outcomes.get(label, {}).values() for file in day]
        for patch in self.patches.get(label, []):
            files += patch.files
        return files

    def rows(self, folder: Path, signal: Signal) -> str:
        """SQL of all rows of a signal that count. The rows of a user with late events come from the
        user's last patch."""
        patches = self.patches.get(signal.label, [])
        parts = self._rows_of_days(folder, signal)
        for patch in patches:
            # days computed for all users since have the patch's rows, too
            seqs = self.seqs.get(signal.label, {})
            newer_days = [day for day, seq in seqs.items() if seq >= patch.seq]
            is_older = ""
            if newer_days:
                is_older = f" where day not in ({', '.join(map(str, newer_days))})"
            if patch.rows:
                parts.append(f"select * from {files_sql(paths(folder, patch.rows))}{is_older}")
        if not parts:
            nulls = ", ".join(
                f"cast(null as {kind}) as {name}" for name, kind in columns_of(signal)
            )
            return f"select {nulls} where false"
        rows = " union all ".join(parts)
        for patch in patches:
            users = files_sql(paths(folder, [patch.users]))
            is_replaced = (
                f"seq < {patch.seq} and day >= {patch.first_day} and user_id in (select user_id "
                f"from {users})"
            )
            rows = f"select * from ({rows}) where not ({is_replaced})"
        return rows

    def _rows_of_days(self, folder: Path, signal: Signal) -> list[str]:
        """SQL of a signal's rows as they were computed for all users: of files of one day, and of
        files of many."""
        by_day = self.outcomes[signal.label]
        files = [file for files_of_day in by_day.values() for file in files_of_day]
        parts = []
        if daily_files := [file for file in files if not has_many_days(file)]:
            parts.append(f"select * from {files_sql(paths(folder, daily_files))}")
        if shared_files := list(dict.fromkeys(file for file in files if has_many_days(file))):
            # such a file also holds days that were computed again and have files of their own
            days = [day for day, files in by_day.items() if any(map(has_many_days, files))]
            parts.append(
                f"select * from {files_sql(paths(folder, shared_files))} where day in "
                f"({', '.join(map(str, days))})"
            )
        return parts


def damaged(folder: Path, reason: str) -> DataError:
    """The error about a store whose files are not as they were written."""
    return DataError(
        f"SignalStore: {reason}; delete {folder}, and update() builds the store anew from the lake"
    )


def _from_stored(table: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a manifest from its JSON."""
    fields = dict(table)
    fields["counted_until"] = fields.pop("kept", {})
    fields["patches"] = {
        label: [Patch.read(patch) for patch in patches]
        for label, patches in fields.get("patches", {}).items()
    }
    for name in ("rollups", "outcomes", "seqs"):
        fields[name] = {
            unit: {int(day): value for day, value in by_day.items()}
            for unit, by_day in fields[name].items()
        }
    return fields


def _digest(table: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()


def columns_of(signal: Signal) -> list[tuple[str, str]]:
    """Names and types of the columns of a signal's rows."""
    columns = [(name, "varchar") for name in entry_keys(signal.entry)]
    if signal.entry.is_slot:
        columns += [("decision_id", "varchar"), ("slot", "integer")]
    columns += [("day", "integer"), ("truncated", "boolean"), ("value", "double")]
    if signal.measure.record.is_first_day:
        columns += [("duration", "integer"), ("event", "boolean")]
    if signal.measure.baseline is not None:
        columns.append(("baseline", "double"))
    return [*columns, ("seq", "integer")]
