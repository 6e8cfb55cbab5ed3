"""Stored outcomes of signals, updated incrementally every night."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl

from longplay.errors import ConfigError, DataError
from longplay.files import writer_lock
from longplay.lake.database import connected
from longplay.lake.lake import Lake
from longplay.progress import Progress, reporting
from longplay.signals.outcomes.in_files import check_computable_by_day
from longplay.signals.outcomes.in_memory import EPOCH, check_lake, check_signals
from longplay.signals.signal import Signal
from longplay.signals.store.manifest import MANIFEST, Manifest
from longplay.signals.store.nightly import NightlyUpdate
from longplay.signals.store.updated import Updated

EVER = datetime.max.replace(tzinfo=UTC)
# events of a log up to which the queries of a night are so small that threads slow them down
SMALL_LOG_EVENTS = 3_000_000


class SignalStore:
    """Stored outcomes of signals, updated incrementally: a folder with one Parquet file per signal
    and entry day, and the daily roll-ups they are computed from.

    `update` counts what the lake has gained since the last update: it rolls up the days that have
    closed, and computes the entries of those days and the outcomes that matured on them. An event
    that arrives late reopens the day it happened on, and the outcomes of its user. The result
    equals a store built anew, and `Signal.outcomes` at the same midnight. A new version of a signal
    is a new signal here: it changes no file of the old one.

    Writers exclude each other. A killed update changes nothing: what counts is listed in
    `manifest.json`, which is replaced as the last step.

    Args:
        folder: of the store; new, or made by an earlier store.
        lake: a lake in a folder.
        signals: what to keep up to date; the outcomes of others in the store stay as they are.

    Raises:
        ConfigError: a lake in memory, two signals of one name, entries by item measured by creator,
            or a folder that is no store.
    """

    def __init__(self, folder: str | Path, lake: Lake, signals: Sequence[Signal]) -> None:
        check_lake("SignalStore", lake)
        check_signals("SignalStore", signals)
        self.folder = Path(folder).expanduser().resolve()
        self.lake = lake
        self.signals = tuple(signals)
        for signal in self.signals:
            check_computable_by_day(signal)
        if not lake.on_disk:
            raise ConfigError(
                "SignalStore: a lake in memory given, which ends with the process; open a folder, "
                "or use signal.outcomes(lake)"
            )
        names = [signal.name for signal in self.signals]
        if len(set(names)) < len(names):
            repeated = next(name for name in names if names.count(name) > 1)
            raise ConfigError(
                f"SignalStore: two signals are named {repeated!r}; give each a name of its own"
            )
        if self._is_foreign():
            raise ConfigError(
                f"SignalStore: {self.folder} is neither empty nor a store of outcomes; give a "
                "folder of its own"
            )

    def _is_foreign(self) -> bool:
        """Whether the folder has files, and none that a store begins with."""
        if not self.folder.exists() or not any(self.folder.iterdir()):
            return False
        own_files = (self.folder / MANIFEST, self.folder / ".writer")
        return not any(file.exists() for file in own_files)

    # -- reading -----------------------------------------------------------------------------------

    @property
    def until(self) -> datetime:
        """The midnight up to which events are counted."""
        until = Manifest.read(self.folder).until
        if until is None:
            raise DataError(f"SignalStore: {self.folder} holds nothing yet; call update() first")
        return EPOCH + timedelta(days=until)

    def outcomes(self, signal: Signal) -> pl.DataFrame:
        """One row per entry: user_id, keys, day, truncated, value, matures_at; by user, keys and
        day.

        Equal to the same columns of `signal.outcomes(lake.before(store.until, known_at=later))`.

        Raises:
            DataError: the store does not hold this version of the signal.
        """
        state = self._holding(signal)
        with connected() as con:
            frame = con.sql(
                f"select * exclude (seq) from ({state.rows(self.folder, signal)}) order by all"
            ).pl()
        closes = (pl.col("day") + signal.window[1] + 1).cast(pl.Date)
        return frame.with_columns(matures_at=closes.cast(pl.Datetime("us", "UTC")))

    def sql(self, signal: Signal) -> str:
        """DuckDB SQL of the same rows, for queries too large for memory."""
        state = self._holding(signal)
        return f"select * exclude (seq) from ({state.rows(self.folder, signal)})"

    def _holding(self, signal: Signal) -> Manifest:
        """The manifest, after checking that it holds the signal and that its files are intact."""
        state = Manifest.read(self.folder)
        if signal.label not in state.outcomes:
            held = ", ".join(sorted(state.outcomes)) or "nothing"
            raise DataError(
                f"SignalStore: {signal.label} is not in {self.folder}, which holds {held}; add it "
                "to the signals and call update()"
            )
        state.check(self.folder, state.files_of(signal.label))
        return state

    # -- writing -----------------------------------------------------------------------------------

    def update(
        self,
        progress: Progress = None,
        memory_limit: str | None = None,
    ) -> Updated:
        """Count everything up to the last midnight before the lake's watermark.

        A signal that the log cannot answer (no event of the kind that it counts) waits: it is in
        `Updated.waiting` with its reason.

        Args:
            progress: called with (what, done, of); True or False: with or without a progress line;
                default: a line on a terminal or in a notebook.
            memory_limit: of DuckDB, e.g. "4GB"; beyond it, DuckDB spills to the store's folder.
        """
        with reporting("SignalStore.update", "queries", progress) as report:
            if callable(progress):
                return self._update(progress, memory_limit)
            return self._update(lambda what, done, of: report(done, of, None, what), memory_limit)

    def _update(self, report: Callable[[str, int, int], None], memory_limit: str | None) -> Updated:
        with writer_lock(self.folder):
            old = Manifest.read(self.folder)
            rollups = old.rollups.values()
            old.check(
                self.folder, (file for days in rollups for files in days.values() for file in files)
            )
            view = self.lake.fixed()
            until = (view.watermark - EPOCH).days
            if old.until is not None and until < old.until:
                raise DataError(
                    f"SignalStore: the lake ends at {view.watermark:%Y-%m-%d %H:%M}, before what "
                    f"{self.folder} has counted; give the same lake"
                )
            # what happens after the midnight belongs to the next night
            view = view.before(EPOCH + timedelta(days=until), known_at=EVER)
            running = self.folder / "begun"  # this file exists while an update runs
            was_killed = running.exists()
            running.touch()
            threads = 1 if old.until is not None and 0 < view.size() <= SMALL_LOG_EVENTS else None
            with view.connect(threads, memory_limit, self.folder / "spill") as con:
                night = NightlyUpdate(self.folder, self.signals, con, view, old, until, report)
                updated = night.run()
                new = night.state
                new.stale = sorted((old.files() | night.written) - new.files())
                new.write(self.folder)
            shutil.rmtree(self.folder / "spill", ignore_errors=True)
            if was_killed or old.stale is None:
                # no manifest lists the files of a killed update
                self._sweep(old, new)
            else:
                # a reader may still use the last manifest, but not the one before it
                self._remove(old.stale)
            running.unlink()
            return updated

    def _remove(self, files: Sequence[str]) -> None:
        """Delete these files, and the folders that they leave empty."""
        for file in files:
            path = self.folder / file
            path.unlink(missing_ok=True)
            for folder in (path.parent, path.parent.parent):
                if folder.is_dir() and not os.listdir(folder):
                    folder.rmdir()

    def _sweep(self, old: Manifest, new: Manifest) -> None:
        """Delete the Parquet files that neither the manifest nor the one before it lists."""
        listed = {os.path.join(self.folder, file) for file in old.files() | new.files()}
        for subfolder in ("rollups", "outcomes", "catalogue"):
            for folder, _, files in os.walk(self.folder / subfolder, topdown=False):
                for file in files:
                    if file.endswith(".parquet") and os.path.join(folder, file) not in listed:
                        os.unlink(os.path.join(folder, file))
                if not os.listdir(folder):
                    os.rmdir(folder)
