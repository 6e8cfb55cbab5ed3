"""One nightly update of a store: new outcomes, and days reopened by late events."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb

from longplay.errors import DataError
from longplay.lake.creators import any_lacks_creator
from longplay.lake.daily import EPOCH, first_row, quoted
from longplay.lake.lake import Lake
from longplay.signals.engine.answerable import check_answerable
from longplay.signals.engine.beginnings import Beginnings
from longplay.signals.engine.compiler import Compiler
from longplay.signals.engine.event_source import EventRows
from longplay.signals.engine.parts import reads_creators
from longplay.signals.engine.rollups import (
    RollupRows,
    files_sql,
)
from longplay.signals.outcomes.in_files import signal_columns
from longplay.signals.outcomes.in_memory import days_of_log
from longplay.signals.signal import Signal
from longplay.signals.store.catalogue_copy import CatalogueCopy
from longplay.signals.store.day_files import DayFiles
from longplay.signals.store.lake_changes import LakeChanges, is_between
from longplay.signals.store.manifest import Manifest, Patch
from longplay.signals.store.rollup_files import RollupFiles
from longplay.signals.store.rollup_reach import days_to_read, reads_own_pairs
from longplay.signals.store.running_beginnings import updated_beginnings
from longplay.signals.store.updated import Updated

MOST_PATCHES = 30  # patches of late events after which a signal's files are written anew


class NightlyUpdate:
    """One update: rolls up the days that have closed or changed, computes the entries and outcomes
    that follow, and patches those of users with late events.

    Args:
        folder: of the store.
        signals: what the store keeps.
        con: connected to the lake.
        lake: bounded by the midnight `until`.
        old: the last manifest.
        until: the midnight up to which to count, days since 1970.
        report: called with (what, done, of).
    """

    def __init__(
        self,
        folder: Path,
        signals: Sequence[Signal],
        con: duckdb.DuckDBPyConnection,
        lake: Lake,
        old: Manifest,
        until: int,
        report: Callable[[str, int, int], None],
    ) -> None:
        self.folder = folder
        self.signals = signals
        self.con = con
        self.lake = lake
        self.old = old
        self.until = until
        self.report = report
        self.changes = LakeChanges(con, lake, old, until)
        # the new manifest
        self.state = replace(
            old,
            seq=old.seq + 1,
            until=until,
            seen=self.changes.file_names,
            features=dict(old.features),
            counted_until=dict(old.counted_until),
            declared=dict(old.declared),
            rollups={unit: dict(days) for unit, days in old.rollups.items()},
            outcomes={label: dict(days) for label, days in old.outcomes.items()},
            seqs={label: dict(days) for label, days in old.seqs.items()},
            patches={label: list(patches) for label, patches in old.patches.items()},
        )
        self.by_catalogue = False  # roll-ups read creators from the catalogue
        self.computed: dict[str, tuple[int, ...]] = {}
        self.written = set[str]()  # files, relative to the folder

    def run(self) -> Updated:
        """Do the update; say what was done."""
        if self.changes.has_lost_files():
            self._forget()
        span = days_of_log(self.con, self.lake)
        waiting = self._waiting(span)
        signals = [signal for signal in self.signals if signal.label not in waiting]
        self._copy_catalogue(signals)
        # decisions and skips may come before any activity
        self.first_day = self.until if span is None else min(span[0], self.until)
        since = self.first_day if self.old.until is None else self.old.until
        late_days = self.changes.find_late(since, self.first_day)
        fresh_days = sorted(self.changes.days_with("events", since) | late_days)
        self.days = sorted({*self.old.days, *fresh_days, *self.changes.days_with_decisions(since)})
        self.state.days = self.days
        self.files = DayFiles(
            self.con, self.folder, self.days, self.first_day, self.until, self.lake.size()
        )
        rollup_files = RollupFiles(
            self.folder, self.lake, self.state, self.files, self.by_catalogue, self.report
        )
        rolled_days = rollup_files.update(signals, fresh_days)
        old_beginnings = Beginnings(
            tuple((start, end) for start, end in self.old.begun),
            stretches=Beginnings.of(self.days).runs,
        )
        self.beginnings = updated_beginnings(
            self.con, self.folder, self.state.rollups, old_beginnings, rolled_days
        )
        self.state.begun = [list(run) for run in self.beginnings.runs]
        begins_elsewhere = any(
            old_beginnings.begun(day) != self.beginnings.begun(day) for day in self.old.days
        )
        self._compute(signals, since, begins_elsewhere)
        late_users = 0
        if not begins_elsewhere:
            late_users = self._patch(
                [signal for signal in signals if self._is_counted(signal.label)]
            )
        self.written |= self.files.written
        return Updated(
            EPOCH + timedelta(days=self.until),
            tuple(rolled_days),
            tuple(sorted(late_days)),
            late_users,
            self.computed,
            waiting,
        )

    # -- what is counted ---------------------------------------------------------------------------

    def _forget(self) -> None:
        """Count everything again."""
        self.old = replace(self.old, until=None, **_nothing_counted())
        self.state = replace(self.state, **_nothing_counted())
        self.changes.forget()

    def _is_counted(self, label: str) -> bool:
        """Whether the last update counted this signal, so that only new days need be."""
        is_up_to_date = self.old.counted_until.get(label) == self.old.until
        return label in self.old.outcomes and is_up_to_date

    def _waiting(self, span: tuple[int, int] | None) -> dict[str, str]:
        """The signals that the log cannot answer yet, each with the reason."""
        waiting: dict[str, str] = {}
        for signal in self.signals:
            if self._is_counted(signal.label) and not signal.measure.needs_lengths:
                continue  # a log that could answer still can; a catalogue may not
            try:
                # a window that has not closed yet is no reason
                check_answerable(self.con, signal, self.lake, span, beginnings=None)
            except DataError as reason:
                waiting[signal.label] = str(reason)
        return waiting

    # -- the catalogue -----------------------------------------------------------------------------

    def _copy_catalogue(self, signals: Sequence[Signal]) -> None:
        """Store what the catalogue says of items. Where it has changed in something that outcomes
        were computed from, everything is counted again."""
        columns = self._catalogue_columns(signals)
        self.state.catalogue = columns
        self.state.catalogue_file = None
        if not columns:
            return
        copy = CatalogueCopy(self.con, self.folder, self.old, columns)
        if copy.has_changed():
            self._forget()
            columns = self._catalogue_columns(signals)
            copy.forget()
        is_known = copy.has_all(columns)
        if not is_known:
            copy.forget()
        file = f"rollups/catalogue-{self.state.seq}.parquet"  # a killed update leaves the old one
        (self.folder / "rollups").mkdir(exist_ok=True)
        copy.write(
            file,
            self.changes.files_since("decisions", is_known),
            self.changes.files_since("events", is_known),
        )
        self.state.catalogue_file = file
        self.written.add(file)

    def _catalogue_columns(self, signals: Sequence[Signal]) -> list[str]:
        """The columns of the catalogue that these signals read."""
        self.state.lacking = None
        if any(reads_creators(signal) for signal in signals):
            files = self.changes.files_since("events", self.old.lacking is not None)
            self.state.lacking = bool(self.old.lacking) or (
                bool(files) and any_lacks_creator(self.con, files_sql(files))
            )
        self.by_catalogue = bool(self.state.lacking)
        is_read = {
            "slot_creator": any(signal.entry.is_slot for signal in signals),
            "event_creator": self.by_catalogue,
            "length": any(signal.measure.needs_lengths for signal in signals),
        }
        return [column for column, reads in is_read.items() if reads]

    # -- outcomes ----------------------------------------------------------------------------------

    def _compute(self, signals: Sequence[Signal], since: int, begins_elsewhere: bool) -> None:
        """Compute the outcomes of new days and those that matured; all of new signals, and of all
        signals where the log begins on another day than was known."""
        by_days: dict[tuple[tuple[int, ...], bool], list[Signal]] = {}
        for signal in signals:
            label = signal.label
            self.state.declared[label] = signal.to_toml()
            self.state.counted_until[label] = self.until
            if begins_elsewhere or not self._is_counted(label):
                self.state.outcomes[label] = {}
                self.state.seqs[label] = {}
                self.state.patches[label] = []
                days = self.days
            else:
                days = self._changed_days(signal, since)
            self.computed[label] = tuple(days)
            # new entry days and those that matured are far apart
            for run in self.files.runs(days):
                by_days.setdefault((run, reads_own_pairs(signal)), []).append(signal)
        for done, ((days, by_pair), signals_of_days) in enumerate(by_days.items()):
            self.report("outcomes", done, len(by_days))
            self._outcomes(days, signals_of_days, by_pair)

    def _changed_days(self, signal: Signal, since: int) -> list[int]:
        """The entry days whose outcomes are new, or changed because time went by."""
        last_window_day = signal.window[1]
        # a time to return is known while the window is open, and grows every day
        stop = self.until if signal.measure.record.is_first_day else self.until - last_window_day
        matured = range(since - last_window_day, stop)
        return [day for day in self.days if day in matured or day >= since]

    def _outcomes(self, days: tuple[int, ...], signals: Sequence[Signal], by_pair: bool) -> None:
        """Compute these entry days for all users, and write a file per signal and day.

        Args:
            days: consecutive days of entries.
            signals: to be computed.
            by_pair: they read only the pairs of their entries.
        """
        tests = dict[str, str]()
        if len(days) < len(self.days):
            tests = self._tests_of_days(days, by_pair)
        for signal, table in self._compiled(signals, days, tests):
            label = signal.label
            files = self.state.outcomes[label]
            for day in days:
                files.pop(day, None)
                self.state.seqs[label][day] = self.state.seq
            self.files.write(
                self._signal_rows(signal, table),
                f"outcomes/{label}/{self.state.seq}-{days[0]}",
                files,
                days,
                self.files.matured_groups(days, signal.window[1]),
            )

    def _tests_of_days(self, days: Sequence[int], by_pair: bool) -> dict[str, str]:
        """Roll-up -> SQL condition that keeps the rows of users with anything on these days. Creates
        the tables that the conditions read.

        Args:
            days: consecutive days of entries.
            by_pair: in roll-ups by creator or item keep only the pairs with anything on these days.
        """
        units = self.state.rollups.keys() - {"sessions"}
        span = dict.fromkeys(units, (days[0], days[-1]))
        rows = RollupRows(self.folder, self.state.rollups, span)
        pairs = {
            unit: f"select user_id, key from ({rows.read(unit, self.state.features[unit][0])})"
            for unit in sorted(units)
        }
        users = [f"select user_id from ({pairs_of_unit})" for pairs_of_unit in pairs.values()]
        users.append(f"select user_id from decisions where {is_between(days[0], days[-1])}")
        self.con.execute(f"create or replace temp table users_to_read as {' union '.join(users)}")
        tests = dict.fromkeys(self.state.rollups, "user_id in (from users_to_read)")
        for unit in ("creator", "item"):
            if by_pair and unit in units:
                self.con.execute(
                    f"create or replace temp table pairs_to_read_{unit} as select distinct * from "
                    f"({pairs[unit]})"
                )
                tests[unit] = f"(user_id, key) in (from pairs_to_read_{unit})"
        return tests

    # -- late events -------------------------------------------------------------------------------

    def _patch(self, signals: Sequence[Signal]) -> int:
        """Compute the entries of users with late events again, from the first day that these can
        have changed; the number of such users."""
        late_users = set[str]()
        for signal in signals:
            reads_decisions = signal.entry.is_slot or signal.entry.is_enrolment
            late_shown = "union all from late_shown" if reads_decisions else ""
            self.con.execute(
                "create or replace temp table users_to_read as select user_id, min(day) as day "
                f"from (from late {late_shown}) group by user_id"
            )
            first_late = (first_row(self.con, "select min(day) from users_to_read") or (None,))[0]
            if first_late is None:
                continue
            rows = self.con.execute("select user_id from users_to_read").fetchall()
            late_users |= {user for (user,) in rows}
            self._patch_signal(signal, max(first_late - signal.window[1], self.first_day))
            if len(self.state.patches[signal.label]) > MOST_PATCHES:
                self._merge_patches(signal)
        return len(late_users)

    def _patch_signal(self, signal: Signal, first_day: int) -> None:
        """Write a patch of a signal: the rows of the users in the table `users_to_read`, on all
        entry days from `first_day` on that were not just computed."""
        days = tuple(day for day in self.days if day >= first_day)
        computed_days = sorted(set(self.computed[signal.label]))
        is_other_day = ""
        if computed_days:
            is_other_day = f" and day not in ({', '.join(map(str, computed_days))})"
        place = f"outcomes/{signal.label}/{self.state.seq}-late"
        rows_file = f"{place}/rows.parquet"
        users_file = f"{place}/users.parquet"
        shutil.rmtree(self.folder / place, ignore_errors=True)
        (self.folder / place).mkdir(parents=True)
        is_late_user = "user_id in (select user_id from users_to_read)"
        tests = dict.fromkeys(self.state.rollups, is_late_user)
        for _, table in self._compiled([signal], days, tests):
            self._copy_to(
                f"select * from ({self._signal_rows(signal, table)}) where "
                f"{is_late_user}{is_other_day}",
                rows_file,
            )
        self._copy_to("select user_id from users_to_read", users_file)
        patch = Patch(self.state.seq, first_day, [rows_file], users_file)
        self.state.patches.setdefault(signal.label, []).append(patch)

    def _copy_to(self, rows: str, file: str) -> None:
        """Write rows (SQL) into one file of the store."""
        self.con.execute(
            f"copy ({rows}) to {quoted(self.folder / file)} (format parquet, compression zstd)"
        )
        self.written.add(file)

    def _merge_patches(self, signal: Signal) -> None:
        """Write a signal's files anew, with its patches applied."""
        label = signal.label
        seq = self.state.seq
        rows = f"select * replace ({seq} as seq) from ({self.state.rows(self.folder, signal)})"
        self.state.outcomes[label] = {}
        self.state.patches[label] = []
        self.state.seqs[label] = dict.fromkeys(self.state.seqs[label], seq)
        days = list(self.state.seqs[label])
        self.files.write(
            rows,
            f"outcomes/{label}/{seq}-all",
            self.state.outcomes[label],
            days,
            self.files.matured_groups(days, signal.window[1]),
        )

    # -- computing ---------------------------------------------------------------------------------

    def _signal_rows(self, signal: Signal, table: str) -> str:
        """SQL of one signal's columns in a table of its entry, with the number of this update."""
        columns = ", ".join(signal_columns(self.con, signal, table))
        return f"select {columns}, {self.state.seq} as seq from {table}"

    def _compiled(
        self, signals: Sequence[Signal], days: Sequence[int], tests: dict[str, str]
    ) -> Iterator[tuple[Signal, str]]:
        """Each signal with a table of its entries on `days`, which is dropped afterwards.

        Args:
            signals: to be computed.
            days: consecutive days of entries.
            tests: roll-up -> SQL condition on the rows that matter; empty: all.
        """
        entered = (days[0], days[-1])
        read_days = days_to_read(signals, entered, self.first_day, self.until, self.beginnings)
        # few rows where only some users matter
        parts = 1 if tests else EventRows.of(self.lake.size()).parts
        rows = RollupRows(self.folder, self.state.rollups, read_days, tests, parts)
        first = min(low for low, _ in read_days.values())
        last = max(high for _, high in read_days.values())
        compiler = Compiler(
            self.con, rows, self.until, (first, last), signals, lambda: self.beginnings, entered
        )
        for entry, table in compiler.compute().items():
            for signal in signals:
                if signal.entry == entry:
                    yield signal, table
            self.con.execute(f"drop table {table}")


def _nothing_counted() -> dict[str, Any]:
    """The fields of a manifest before anything is counted."""
    return {
        "rollups": {},
        "outcomes": {},
        "seqs": {},
        "patches": {},
        "features": {},
        "counted_until": {},
        "days": [],
        "begun": [],
        "lacking": None,
    }
