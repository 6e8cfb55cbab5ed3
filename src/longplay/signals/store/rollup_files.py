"""The roll-up files of one update."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from longplay.lake.daily import day_of
from longplay.lake.lake import Lake
from longplay.signals.engine.event_source import EventRows
from longplay.signals.engine.features import Feature
from longplay.signals.engine.rollups import (
    RollupRows,
    files_sql,
    has_many_days,
    needed_rollups,
    rollup_sql,
)
from longplay.signals.signal import Signal
from longplay.signals.store.day_files import DayFiles
from longplay.signals.store.lake_changes import is_between, midnights
from longplay.signals.store.manifest import Manifest


class RollupFiles:
    """Writes the roll-ups of one update.

    Args:
        folder: of the store.
        lake: what is rolled up.
        state: the new manifest, whose `features` and `rollups` are updated.
        files: writes rows by day.
        by_catalogue: see `EventRows`.
        report: called with (what, done, of).
    """

    def __init__(
        self,
        folder: Path,
        lake: Lake,
        state: Manifest,
        files: DayFiles,
        by_catalogue: bool,
        report: Callable[[str, int, int], None],
    ) -> None:
        self.folder = folder
        self.lake = lake
        self.state = state
        self.files = files
        self.by_catalogue = by_catalogue
        self.report = report

    def update(self, signals: Sequence[Signal], fresh_days: Sequence[int]) -> list[int]:
        """Bring every roll-up that signals read up to date, and drop the others.

        Args:
            signals: what reads roll-ups.
            fresh_days: days that are new or got late events, in order.

        Returns:
            The days that were rolled up, in order.
        """
        needed = needed_rollups(signals)
        rolled_days: set[int] = set()
        for unit, features in needed.items():
            names = {feature.name for feature in features}
            old_names = self.state.features.get(unit)
            days = fresh_days
            if old_names is None or not names <= set(old_names):
                # no roll-up has the new column yet
                self.state.rollups[unit] = {}
                days = self.files.days
            self.state.features[unit] = sorted(names)
            self._write(unit, features, days)
            rolled_days |= set(days)
        for unit in self.state.rollups.keys() - needed.keys():
            del self.state.rollups[unit], self.state.features[unit]
        return sorted(rolled_days)

    def _write(self, unit: str, features: Sequence[Feature], days: Sequence[int]) -> None:
        """Write the roll-ups of these days, in as many queries as keep each small. Settled days
        that have files of their own are gathered into shared files."""
        rollups = self.state.rollups[unit]
        for day in days:
            rollups.pop(day, None)
        place = f"rollups/{unit}/{self.state.seq}"
        parts = self.files.query_parts(days)
        for done, part in enumerate(parts):
            self.report(f"roll-up by {unit}", done, len(parts))
            rows = EventRows(self._events_sql(part, features), by_catalogue=self.by_catalogue)
            body = rollup_sql(unit, features, rows)
            groups = self.files.settled_groups(part)
            self.files.write(body, f"{place}/{done}", rollups, part, groups)
        for group in self.files.settled_groups(self.files.days):
            own_files = sum(day in rollups and not has_many_days(rollups[day][0]) for day in group)
            if own_files <= len(group) // 4:  # a few late days stay by themselves
                continue
            rows = RollupRows(self.folder, self.state.rollups, {unit: (group[0], group[-1])})
            columns = "first, last, begun"
            if unit != "sessions":
                columns = ", ".join(self.state.features[unit])
            body = rows.read(unit, columns)
            for day in group:
                rollups.pop(day, None)
            self.files.write(body, f"{place}/b{group[0] // len(group)}", rollups, group, [group])

    def _events_sql(self, days: Sequence[int], features: Sequence[Feature]) -> str:
        """SQL to select the events of these days from."""
        is_listed = ""
        if not self.files.is_run(days):
            is_listed = f" and {day_of('time')} in ({', '.join(map(str, days))})"
        files = []
        # older files lack the column amount, which the view of all events fills in
        if not any(feature.needs_amount for feature in features):
            files = self.lake.files("events", midnights(days[0], days[-1] + 1))
        source = files_sql(files) if files else "_all_events"
        return f"(select * from {source} where {is_between(days[0], days[-1])}{is_listed})"
