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
from longplay.signals.outcomes.in_files import by_own_key
from longplay.signals.outcomes.in_memory import EPOCH, check_lake, check_signals
from longplay.signals.signal import Signal
from longplay.signals.store.manifest import Manifest
from longplay.signals.store.nightly import Updated, Work

EVER = datetime.max.replace(tzinfo=UTC)
# events of a log of which a night is small queries: threads cost more than they bring
SMALL = 3_000_000


class SignalStore:
    """Stored outcomes of signals, updated incrementally: a folder with one Parquet file per signal
    and entry day, and the daily roll-ups they are computed from.

    `update` counts what the lake has gained since: it rolls up the days that have closed, computes
    the entries of those days and the outcomes that matured on them. An event that arrives late
    re-opens the day it happened on, and the outcomes of its user. The result equals a store built
    anew, and `Signal.outcomes` at the same midnight. A new version of a signal is a new signal
    here: it changes no file of the old one.

    Writers exclude each other; a killed update changes nothing, since what counts is listed in
    `manifest.json`, replaced as the last step.

    Args:
        folder: of the store; new or made by one.
        lake: a lake in a folder.
        signals: what to keep; those no longer given stay as they are.

    Raises:
        ConfigError: a lake in memory, two signals of one name, entries by item measured by creator,
            or a folder that is no store.
    """

    def __init__(self, folder: str | Path, lake: Lake, signals: Sequence[Signal]) -> None:
        check_lake("SignalStore", lake)
        check_signals("SignalStore", signals)
        self.folder, self.lake, self.signals = (
            Path(folder).expanduser().resolve(),
            lake,
            tuple(signals),
        )
        for signal in self.signals:
            by_own_key(signal)
        if not lake.on_disk:
            raise ConfigError(
                "SignalStore: a lake in memory given, which ends with the process; open a folder, "
                "or use signal.outcomes(lake)"
            )
        if len({one.name for one in self.signals}) < len(self.signals):
            names = [one.name for one in self.signals]
            raise ConfigError(
                "SignalStore: two signals are named "
                f"{next(name for name in names if names.count(name) > 1)!r}; give each a name of "
                "its own"
            )
        if (
            self.folder.exists()
            and any(self.folder.iterdir())
            and not (self.folder / "manifest.json").exists()
            and not (self.folder / ".writer").exists()
        ):
            raise ConfigError(
                f"SignalStore: {self.folder} is neither empty nor a store of outcomes; give a "
                "folder of its own"
            )

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
        matures = (
            (pl.col("day") + signal.window[1] + 1)
            .cast(pl.Date)
            .cast(pl.Datetime("us", "UTC"))
            .alias("matures_at")
        )
        return frame.with_columns(matures)

    def sql(self, signal: Signal) -> str:
        """DuckDB SQL of the same rows, for queries too large for memory."""
        state = self._holding(signal)
        return f"select * exclude (seq) from ({state.rows(self.folder, signal)})"

    def _holding(self, signal: Signal) -> Manifest:
        """The manifest, once it holds the signal and the files of it are as they were written."""
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
            progress: called with (what, done, of); True or False: a line that says how far it is,
                or none; default: a line on a terminal or in a notebook.
            memory_limit: of DuckDB, e.g. "4GB"; beyond it, it spills to the store's folder.
        """
        with reporting("SignalStore.update", "queries", progress) as tell:
            if callable(progress):
                return self._update(progress, memory_limit)
            return self._update(lambda what, done, of: tell(done, of, None, what), memory_limit)

    def _update(self, tell: Callable[[str, int, int], None], memory_limit: str | None) -> Updated:
        with writer_lock(self.folder):
            state = Manifest.read(self.folder)
            state.check(
                self.folder,
                (
                    file
                    for days in state.rollups.values()
                    for files in days.values()
                    for file in files
                ),
            )
            view = self.lake.fixed()
            until = (view.watermark - EPOCH).days
            if state.until is not None and until < state.until:
                raise DataError(
                    f"SignalStore: the lake ends at {view.watermark:%Y-%m-%d %H:%M}, before what "
                    f"{self.folder} has counted; give the same lake"
                )
            view = view.before(
                EPOCH + timedelta(days=until), known_at=EVER
            )  # what happens after the midnight is of the next night
            begun = self.folder / "begun"  # there until an update has ended
            killed = begun.exists()
            begun.touch()
            threads = 1 if state.until is not None and 0 < view.size() <= SMALL else None
            with view.connect(threads, memory_limit, self.folder / "spill") as con:
                work = Work(self.folder, self.signals, con, view, state, until, tell)
                done = work.run()
                work.state.stale = sorted((state.files() | work.written) - work.state.files())
                work.state.write(self.folder)
            shutil.rmtree(self.folder / "spill", ignore_errors=True)
            if killed or state.stale is None:  # what a killed update left behind, no manifest lists
                self._sweep(state, work.state)
            else:
                self._remove(
                    state.stale
                )  # a reader may still be at the last manifest, not at the one before
            begun.unlink()
            return done

    def _remove(self, files: Sequence[str]) -> None:
        """Delete these files, and the folders that they leave empty."""
        for file in files:
            place = self.folder / file
            place.unlink(missing_ok=True)
            for folder in (place.parent, place.parent.parent):
                if folder.is_dir() and not os.listdir(folder):
                    folder.rmdir()

    def _sweep(self, old: Manifest, new: Manifest) -> None:
        """Remove what neither the manifest nor the one before it lists."""
        keep = {os.path.join(self.folder, file) for file in old.files() | new.files()}
        for place in ("rollups", "outcomes", "catalogue"):
            for folder, _, files in os.walk(self.folder / place, topdown=False):
                for file in files:
                    if file.endswith(".parquet") and os.path.join(folder, file) not in keep:
                        os.unlink(os.path.join(folder, file))
                if not os.listdir(folder):
                    os.rmdir(folder)
