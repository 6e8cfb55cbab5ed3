"""Daily roll-ups in files, from which a store is updated."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

from longplay.lake.daily import DAY_US, ENGAGED_TEST, SHIFT_DAYS
from longplay.signals.declare.declaration import Declaration
from longplay.signals.engine.duckdb import parquet
from longplay.signals.engine.event_source import BIN_US, TIME_US, EventRows, Rows
from longplay.signals.engine.operators import SESSIONS, TOUCHED, Feature
from longplay.signals.engine.parts import entry_words, opening_events, parts_of

ROLLUPS = ("user", "creator", "item", "sessions")


def needed(signals: Iterable[Declaration]) -> dict[str, list[Feature]]:
    """Return, for each daily roll-up that these signals read, the features it must hold.

    The roll-up of sessions holds no feature.
    """
    found: dict[str, dict[str, Feature]] = {"user": {TOUCHED.name: TOUCHED}}
    for signal in signals:
        if (entered := entry_words(signal.entry)) is not None:
            found.setdefault(entered[0], {})[entered[1].name] = entered[1]
        elif signal.entry.is_event:
            one = opening_events(signal.entry)
            found.setdefault(signal.entry.of or "user", {})[one.name] = one
        for part in parts_of(signal):
            if part.feature is SESSIONS:
                found.setdefault("sessions", {})
            else:
                found.setdefault(part.unit, {})[part.feature.name] = part.feature
    return {unit: [features[name] for name in sorted(features)] for unit, features in found.items()}


def rollup(unit: str, features: Sequence[Feature], rows: EventRows) -> str:
    """SQL of one roll-up from the rows of events: user_id, key, day and a whole number per feature.

    That of sessions has first, last (microseconds) and `begun`: runs of the day's own events, the
    first of which may go on one of the day before. So a day's roll-up needs that day's events only.
    """
    if unit == "sessions":
        bins = f"""select user_id, {TIME_US} // {BIN_US} as bin, min({TIME_US}) as first, max({TIME_US}) as last
            from {rows.events} where {ENGAGED_TEST} group by user_id, bin"""
        day = f"cast(bin // {DAY_US // BIN_US} - {SHIFT_DAYS} as integer)"
        spans = (
            f"select *, {day} as day, lag(last) over (partition by user_id, {day} order by "
            f"bin) as before from ({bins})"
        )
        begun = (
            f"cast(count(*) filter (before is null or first - before > {BIN_US}) as bigint) "
            "as begun"
        )
        return (
            "select user_id, cast(null as varchar) as key, day, min(first) as first, "
            f"max(last) as last, {begun} from ({spans}) group by user_id, day"
        )
    sums = ", ".join(f"cast(sum({one.name}) as bigint) as {one.name}" for one in features)
    keys = "user_id" if unit == "user" else "user_id, key"
    key = "cast(null as varchar)" if unit == "user" else "key"
    has_key = "" if unit == "user" else "key is not null"
    return (
        f"select user_id, {key} as key, day, {sums} from "
        f"({rows.daily(unit, features, has_key)}) group by {keys}, day"
    )


@dataclass(frozen=True)
class RollupRows(Rows):
    """Rows from roll-ups in files, for `Compiler`.

    Attributes:
        folder: where the files lie.
        files: roll-up -> day -> its files.
        days: roll-up -> first and last day that may be read.
        keep: roll-up -> a test of user_id and key: rows that matter; others are not read.
        parts: as `EventRows` has.
        among: roll-up -> the only days of these that are read.
    """

    folder: Path
    files: Mapping[str, Mapping[int, Sequence[str]]]
    days: Mapping[str, tuple[int, int]]
    keep: Mapping[str, str] = field(default_factory=dict)
    parts: int = 1
    among: Mapping[str, Collection[int]] = field(default_factory=dict)
    whole: ClassVar[bool] = False  # each unit has roll-ups of its own

    def between(self, first: int, last: int) -> RollupRows:
        """See `Rows`."""
        return replace(
            self,
            days={
                unit: (max(low, first), min(high, last)) for unit, (low, high) in self.days.items()
            },
        )

    def daily(
        self, unit: str, features: Sequence[Feature], where: str = "", flags: bool = False
    ) -> str:
        """See `Rows`."""
        names = [one.name for one in features if one is not SESSIONS]
        parts = []
        if SESSIONS in features:
            first = (
                "begun - cast(coalesce(first - lag(last) over (partition by user_id order by "
                f"day) <= {BIN_US}, false) as bigint)"
            )
            nothing = "".join(f", cast(null as bigint) as {name}" for name in names)
            parts.append(
                f"select user_id, key, day, {first} as sessions{nothing} from "
                f"({self.read('sessions', 'first, last, begun')})"
            )
        if names or not parts:
            sessions = "cast(null as bigint) as sessions, " if SESSIONS in features else ""
            columns = ", ".join(f"{name} > 0 as {name}" if flags else name for name in names)
            parts.append(
                f"select user_id, key, day, {sessions}{columns} from "
                f"({self.read(unit, ', '.join(names))})"
            )
        body = " union all ".join(parts)
        return f"select * from ({body}) where {where}" if where else body

    def read(self, unit: str, columns: str) -> str:
        """SQL of user_id, key, day and `columns` of a roll-up, as far as they matter."""
        low, high = self.days.get(unit, (0, -1))
        by_day, among = self.files.get(unit, {}), self.among.get(unit)
        days = [
            day for day in sorted(by_day) if low <= day <= high and (among is None or day in among)
        ]
        listed = {file: None for day in days for file in by_day[day]}  # each once, in order
        if not listed:
            nothing = ", ".join(f"cast(null as bigint) as {name}" for name in columns.split(", "))
            return (
                "select cast(null as varchar) as user_id, cast(null as varchar) as key, "
                f"cast(null as integer) as day, {nothing} where false"
            )
        keep = [self.keep[unit]] if unit in self.keep else []
        daily, blocks = (
            [file for file in listed if is_block(file) is block] for block in (False, True)
        )
        parts = [(daily, keep)]
        if (
            blocks
        ):  # they hold other days, too: those asked for that are not in a file of their own since
            inside = [day for day in days if any(is_block(file) for file in by_day[day])]
            parts.append((blocks, [f"day in ({', '.join(map(str, inside))})", *keep]))
        return " union all ".join(
            f"select user_id, key, day, {columns} from "
            f"{files_sql(paths(self.folder, files))}{' where ' if tests else ''}{' and '.join(tests)}"
            for files, tests in parts
            if files
        )


def is_block(file: str) -> bool:
    """Whether a roll-up's file is of several days."""
    return "/part=b" in file


def paths(folder: Path, files: Sequence[str]) -> list[str]:
    """Files where they lie."""
    return [os.path.join(folder, file) for file in files]


def files_sql(files: Sequence[str]) -> str:
    """SQL that reads Parquet files as one table."""
    return parquet(files)
