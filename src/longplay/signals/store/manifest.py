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
from longplay.signals.engine.compiler import entry_keys
from longplay.signals.engine.rollups import files_sql, is_block, paths
from longplay.signals.signal import Signal

FORMAT = 3  # of the folder: raised when what is in it changes
READABLE = (
    1,
    2,
    FORMAT,
)  # 1 had a file for every day, 1 and 2 no digests, and did not keep where the log begins
MANIFEST = "manifest.json"
Files = dict[int, list[str]]  # day -> files


@dataclass
class Manifest:
    """Which files of a store count, and what they hold; days are since 1970-01-01, files relative
    to the folder."""

    seq: int = 0
    until: int | None = None
    seen: dict[str, list[str]] = field(default_factory=dict)  # table of the lake -> files counted
    features: dict[str, list[str]] = field(default_factory=dict)  # roll-up -> its columns
    rollups: dict[str, Files] = field(default_factory=dict)
    outcomes: dict[str, Files] = field(default_factory=dict)  # label -> entry day -> files
    seqs: dict[str, dict[int, int]] = field(
        default_factory=dict
    )  # label -> entry day -> the update that computed it for everybody
    patches: dict[str, list[dict[str, Any]]] = field(
        default_factory=dict
    )  # label -> later rows of users with late events, and who they are
    kept: dict[str, int] = field(
        default_factory=dict
    )  # label -> the day until which it is counted: less than `until` once it is no longer given
    declared: dict[str, str] = field(default_factory=dict)  # label -> TOML
    days: list[int] = field(default_factory=list)  # with an event or a decision
    begun: list[list[int]] = field(
        default_factory=list
    )  # first and last day of each run of activity, see `signals.engine.beginnings`
    catalogue: list[str] = field(
        default_factory=list
    )  # columns of `catalogue_file` that outcomes were made of
    catalogue_file: str | None = None  # what the catalogue said of items
    lacking: bool | None = (
        None  # whether a counted event has an item and no creator; null where it was not asked
    )
    digests: dict[str, str] = field(
        default_factory=dict
    )  # file -> SHA-256, of every file that counts
    stale: list[str] | None = (
        # files that counted before this update and no more: the next one deletes them; null where
        # they are not known
        None
    )

    def files(self) -> set[str]:
        """Every file that counts."""
        days = [*self.rollups.values(), *self.outcomes.values()]
        own = {file for by_day in days for files in by_day.values() for file in files}
        own |= {self.catalogue_file} if self.catalogue_file is not None else set()
        own |= {
            file
            for patches in self.patches.values()
            for one in patches
            for file in (*one["rows"], one["users"])
        }
        return own

    @classmethod
    def read(cls, folder: Path) -> Self:
        """That of a folder; an empty one where there is none yet.

        Raises:
            DataError: the folder was written by another version, or its manifest is not as it was
                written.
        """
        place = folder / MANIFEST
        if not os.path.lexists(place):
            return cls()
        try:
            table = json.loads(place.read_bytes().decode())
            form, stated = table.pop("format"), table.pop("sha256", None)
        except (OSError, ValueError, RecursionError, KeyError, AttributeError, TypeError) as error:
            raise damaged(folder, f"{place}: cannot be read ({error})") from error
        if form not in READABLE:
            raise DataError(
                f"SignalStore: {folder} was written by another version of longplay; delete it and "
                "build it anew"
            )
        if form == FORMAT and stated != _digest(table):
            raise damaged(folder, f"{place}: was changed after it was written")
        try:
            if (
                "begun" not in table
                # an earlier version knew another begin of the log, or none: everything is counted
                # again
            ):
                return cls(seq=table["seq"])
            for name in ("rollups", "outcomes", "seqs"):
                table[name] = {
                    unit: {int(day): value for day, value in by_day.items()}
                    for unit, by_day in table[name].items()
                }
            return cls(**table)
        except (KeyError, ValueError, AttributeError, TypeError) as error:
            raise damaged(folder, f"{place}: is not of its form ({error})") from error

    def write(self, folder: Path) -> None:
        """Replace the folder's manifest in one step: before it nothing of an update counts, after
        it all does.

        Every file that it names, and the folder of each, is on disk before.
        """
        counting = self.files()
        new = sorted(counting - self.digests.keys())
        below = {""}  # folders of the new files, and those above them
        for file in new:
            sync_path(os.path.join(folder, file))
            while file := os.path.dirname(file):
                below.add(file)
        for place in sorted(below, reverse=True):
            sync_path(os.path.join(folder, place))
        added = {file: sha256_of(os.path.join(folder, file)) for file in new}
        self.digests = {file: self.digests.get(file) or added[file] for file in sorted(counting)}
        # as JSON reads it back: the digest is of the text
        table = json.loads(json.dumps(self.__dict__))
        write_file(
            folder / MANIFEST, json.dumps({"format": FORMAT, "sha256": _digest(table), **table})
        )

    def check(self, folder: Path, files: Iterable[str]) -> None:
        """Check files of the store before they are read.

        Raises:
            DataError: one is missing, or is not as it was written. Of a store without digests it is
                only known whether it is there.
        """
        asked = dict.fromkeys(files)
        for file in asked:
            if file not in self.digests and not os.path.isfile(os.path.join(folder, file)):
                raise damaged(folder, f"{folder / file}: is missing")
        if (
            why := changed_file(
                folder, {file: self.digests[file] for file in asked if file in self.digests}
            )
        ) is not None:
            raise damaged(folder, why)

    def files_of(self, label: str) -> list[str]:
        """The files that hold a signal's rows."""
        files = [file for day in self.outcomes.get(label, {}).values() for file in day]
        for patch in self.patches.get(label, []):
            files += [*patch["rows"], patch["users"]]
        return files

    def rows(self, folder: Path, signal: Signal) -> str:
        """SQL of all rows that count: those of a user with late events come from the last patch."""
        patches, seqs = self.patches.get(signal.label, []), self.seqs.get(signal.label, {})
        by_day = self.outcomes[signal.label]
        daily = [file for files in by_day.values() for file in files if not is_block(file)]
        blocks = {file: day for day, files in by_day.items() for file in files if is_block(file)}
        parts = [f"select * from {files_sql(paths(folder, daily))}"] if daily else []
        if blocks:  # they hold other days, too: those computed again since have files of their own
            inside = [day for day, files in by_day.items() if any(is_block(file) for file in files)]
            parts.append(
                f"select * from {files_sql(paths(folder, list(blocks)))} where day in "
                f"({', '.join(map(str, inside))})"
            )
        for one in patches:
            newer = [day for day, seq in seqs.items() if seq >= one["seq"]]
            test = f" where day not in ({', '.join(map(str, newer))})" if newer else ""
            parts += (
                [f"select * from {files_sql(paths(folder, one['rows']))}{test}"]
                if one["rows"]
                else []
            )
        if not parts:
            columns = ", ".join(
                f"cast(null as {kind}) as {name}" for name, kind in columns_of(signal)
            )
            return f"select {columns} where false"
        rows = " union all ".join(parts)
        for one in patches:
            (who,) = paths(folder, [one["users"]])
            test = (
                f"seq < {one['seq']} and day >= {one['from']} and user_id in (select user_id "
                f"from {files_sql([who])})"
            )
            rows = f"select * from ({rows}) where not ({test})"
        return rows


def damaged(folder: Path, why: str) -> DataError:
    """The error about a store whose files are not as they were written."""
    return DataError(
        f"SignalStore: {why}; delete {folder}, and update() builds the store anew from the lake"
    )


def _digest(table: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()


def _keys(signal: Signal) -> list[str]:
    return entry_keys(signal.entry) + (["decision_id", "slot"] if signal.entry.is_slot else [])


def columns_of(signal: Signal) -> list[tuple[str, str]]:
    """Names and types of a signal's rows."""
    kinds = {"slot": "integer"}
    more = list[tuple[str, str]]()
    if signal.measure.record.is_first_day:
        more += [("duration", "integer"), ("event", "boolean")]
    more += [("baseline", "double")] if signal.measure.baseline is not None else []
    own = [(name, kinds.get(name, "varchar")) for name in _keys(signal)]
    return [
        *own,
        ("day", "integer"),
        ("truncated", "boolean"),
        ("value", "double"),
        *more,
        ("seq", "integer"),
    ]
