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
from longplay.signals.engine.features import SESSIONS, TOUCHED, Feature
from longplay.signals.engine.parts import entry_bitmap, opening_events, parts_of

ROLLUPS = ("user", "creator", "item", "sessions")


def needed_rollups(signals: Iterable[Declaration]) -> dict[str, list[Feature]]:
    """The daily roll-ups that these signals read, each with the features it must hold.

    The roll-up of sessions holds no feature.
    """
    needed: dict[str, dict[str, Feature]] = {"user": {TOUCHED.name: TOUCHED}}
    for signal in signals:
        if (bitmap := entry_bitmap(signal.entry)) is not None:
            unit, feature = bitmap
            needed.setdefault(unit, {})[feature.name] = feature
        elif signal.entry.is_event:
            feature = opening_events(signal.entry)
            needed.setdefault(signal.entry.of or "user", {})[feature.name] = feature
        for part in parts_of(signal):
            if part.feature is SESSIONS:
                needed.setdefault("sessions", {})
            else:
                needed.setdefault(part.unit, {})[part.feature.name] = part.feature
    return {
        unit: [features[name] for name in sorted(features)] for unit, features in needed.items()
    }


def rollup_sql(unit: str, features: Sequence[Feature], rows: EventRows) -> str:
    """SQL of one roll-up from the rows of events: user_id, key, day and a whole number per feature.

    The roll-up of sessions has first and last (microseconds) and `begun`, the sessions that begin
    on the day as far as the day's own events show: the first may continue one of the day before.
    So a day's roll-up reads that day's events only.
    """
    if unit == "sessions":
        return _sessions_sql(rows)
    sums = ", ".join(
        f"cast(sum({feature.name}) as bigint) as {feature.name}" for feature in features
    )
    if unit == "user":
        keys = "user_id"
        key = "cast(null as varchar)"
        has_key = ""
    else:
        keys = "user_id, key"
        key = "key"
        has_key = "key is not null"
    return (
        f"select user_id, {key} as key, day, {sums} from "
        f"({rows.daily(unit, features, has_key)}) group by {keys}, day"
    )


def _sessions_sql(rows: EventRows) -> str:
    """SQL of the roll-up of sessions."""
    half_hours = (
        f"select user_id, {TIME_US} // {BIN_US} as bin, min({TIME_US}) as first, "
        f"max({TIME_US}) as last from {rows.events} where {ENGAGED_TEST} group by user_id, bin"
    )
    day = f"cast(bin // {DAY_US // BIN_US} - {SHIFT_DAYS} as integer)"
    previous = f"lag(last) over (partition by user_id, {day} order by bin)"
    gaps = f"select *, {day} as day, {previous} as previous from ({half_hours})"
    begins = f"previous is null or first - previous > {BIN_US}"
    return (
        "select user_id, cast(null as varchar) as key, day, min(first) as first, max(last) as last, "
        f"cast(count(*) filter ({begins}) as bigint) as begun from ({gaps}) group by user_id, day"
    )


@dataclass(frozen=True)
class RollupRows(Rows):
    """Rows from roll-ups in files, for `Compiler`.

    Attributes:
        folder: where the files lie.
        files: roll-up -> day -> its files.
        days: roll-up -> first and last day to read.
        tests: roll-up -> SQL condition on user_id and key; other rows are not read.
        parts: as in `EventRows`.
        only_days: roll-up -> the only days to read between its first and last.
    """

    folder: Path
    files: Mapping[str, Mapping[int, Sequence[str]]]
    days: Mapping[str, tuple[int, int]]
    tests: Mapping[str, str] = field(default_factory=dict)
    parts: int = 1
    only_days: Mapping[str, Collection[int]] = field(default_factory=dict)
    has_pairs: ClassVar[bool] = False  # each unit has roll-ups of its own

    def between(self, first: int, last: int) -> RollupRows:
        """See `Rows`."""
        days = {unit: (max(low, first), min(high, last)) for unit, (low, high) in self.days.items()}
        return replace(self, days=days)

    def daily(
        self, unit: str, features: Sequence[Feature], where: str = "", flags: bool = False
    ) -> str:
        """See `Rows`."""
        names = [feature.name for feature in features if feature is not SESSIONS]
        parts = []
        if SESSIONS in features:
            previous = "lag(last) over (partition by user_id order by day)"
            continues = f"coalesce(first - {previous} <= {BIN_US}, false)"
            nulls = "".join(f", cast(null as bigint) as {name}" for name in names)
            parts.append(
                f"select user_id, key, day, begun - cast({continues} as bigint) as sessions{nulls} "
                f"from ({self.read('sessions', 'first, last, begun')})"
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
        """SQL of user_id, key, day and these columns of a roll-up, within its days and tests."""
        files_by_day = self.files.get(unit, {})
        days = self._days_to_read(unit)
        files = list(dict.fromkeys(file for day in days for file in files_by_day[day]))
        if not files:
            nulls = ", ".join(f"cast(null as bigint) as {name}" for name in columns.split(", "))
            return (
                "select cast(null as varchar) as user_id, cast(null as varchar) as key, "
                f"cast(null as integer) as day, {nulls} where false"
            )
        tests = [self.tests[unit]] if unit in self.tests else []
        selects = []
        if daily_files := [file for file in files if not has_many_days(file)]:
            selects.append(self._select(columns, daily_files, tests))
        if shared_files := [file for file in files if has_many_days(file)]:
            # such a file also holds days that are not wanted, or have a newer file of their own
            shared_days = [day for day in days if any(map(has_many_days, files_by_day[day]))]
            of_days = f"day in ({', '.join(map(str, shared_days))})"
            selects.append(self._select(columns, shared_files, [of_days, *tests]))
        return " union all ".join(selects)

    def _days_to_read(self, unit: str) -> list[int]:
        """The days of a roll-up that have files and are wanted, in order."""
        low, high = self.days.get(unit, (0, -1))
        days = [day for day in sorted(self.files.get(unit, {})) if low <= day <= high]
        only_days = self.only_days.get(unit)
        return days if only_days is None else [day for day in days if day in only_days]

    def _select(self, columns: str, files: Sequence[str], tests: Sequence[str]) -> str:
        """SQL of user_id, key, day and `columns` of the rows in these files that pass the tests."""
        where = f" where {' and '.join(tests)}" if tests else ""
        return f"select user_id, key, day, {columns} from {files_sql(paths(self.folder, files))}{where}"


def has_many_days(file: str) -> bool:
    """Whether a file of a store holds several days, by its name."""
    return "/part=b" in file


def paths(folder: Path, files: Sequence[str]) -> list[str]:
    """The paths of files that are given relative to a folder."""
    return [os.path.join(folder, file) for file in files]


def files_sql(files: Sequence[str]) -> str:
    """SQL that reads Parquet files as one table."""
    return parquet(files)
