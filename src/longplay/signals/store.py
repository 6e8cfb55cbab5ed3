"""A store of outcomes beside a lake, brought up to date night by night at the cost of the night, not of the log."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import polars as pl

from longplay.errors import ConfigError, DataError
from longplay.lake.daily import day_of, first_row
from longplay.lake.lake import Lake
from longplay.signals.compile import Compiler, create_creators, entry_keys, parts_of
from longplay.signals.operators import TOUCHED, Feature
from longplay.signals.outcomes import EPOCH, days_of_log
from longplay.signals.rollups import RollupRows, files_sql, needed, rollup
from longplay.signals.signal import Signal
from longplay.signals.tables import own_columns

FORMAT = 1  # of the folder: raised when what is in it changes
ROWS_AT_ONCE = 20_000_000  # events rolled up in one query
MOST_PATCHES = 30  # patches of late events after which a signal's files are written anew
Files = dict[int, list[str]]  # day -> files


@dataclass(frozen=True)
class Updated:
    """What `SignalStore.update` did; days since 1970-01-01.

    Attributes:
        until: the midnight up to which everything is counted. rolled: days whose roll-ups were made anew. late: those of them that had been closed.
        users: users whose earlier outcomes were computed again, for late events. computed: signal label -> entry days computed for everybody.
    """

    until: datetime
    rolled: tuple[int, ...]
    late: tuple[int, ...]
    users: int
    computed: dict[str, tuple[int, ...]]

    def __str__(self) -> str:
        late = f"; late events re-opened {len(self.late):,} days and {self.users:,} users" if self.late or self.users else ""
        most = max((len(days) for days in self.computed.values()), default=0)
        return f"until {self.until:%Y-%m-%d}: rolled up {len(self.rolled):,} days, computed {len(self.computed):,} signals on at most {most:,} entry days{late}"


@dataclass
class _State:
    """What is in the folder: the manifest."""

    seq: int = 0
    until: int | None = None
    seen: dict[str, list[str]] = field(default_factory=dict)  # table of the lake -> files counted
    features: dict[str, list[str]] = field(default_factory=dict)  # roll-up -> its columns
    rollups: dict[str, Files] = field(default_factory=dict)
    outcomes: dict[str, Files] = field(default_factory=dict)  # label -> entry day -> files
    seqs: dict[str, dict[int, int]] = field(default_factory=dict)  # label -> entry day -> the update that computed it for everybody
    patches: dict[str, list[dict[str, Any]]] = field(default_factory=dict)  # label -> later rows of users with late events, and who they are
    kept: dict[str, int] = field(default_factory=dict)  # label -> the day until which it is counted: less than `until` once it is no longer given
    declared: dict[str, str] = field(default_factory=dict)  # label -> TOML

    def files(self) -> set[str]:
        """Every file that counts."""
        days = [*self.rollups.values(), *self.outcomes.values()]
        own = {file for by_day in days for files in by_day.values() for file in files}
        own |= {file for patches in self.patches.values() for one in patches for file in (*one["rows"], one["users"])}
        return own


class SignalStore:
    """Outcomes of signals in a folder, one Parquet file per signal and entry day, from daily roll-ups that are kept beside them.

    `update` counts what the lake has gained since: it rolls up the days that have closed, computes the entries of those days and
    the outcomes that matured on them. An event that arrives late re-opens the day it happened on, and the outcomes
    of its user. The result equals a store built anew, and `Signal.outcomes` at the same midnight. A new version of a signal is a new
    signal here: it changes no file of the old one.

    Writers exclude each other; a killed update changes nothing, since what counts is listed in `manifest.json`, replaced as the last step.

    Args:
        folder: of the store; new or made by one. lake: a lake in a folder. signals: what to keep; those that are no longer given are kept as they are.

    Raises:
        ConfigError: a lake in memory, two signals of one name, or a folder that is no store.
    """

    def __init__(self, folder: str | Path, lake: Lake, signals: Sequence[Signal]) -> None:
        self.folder, self.lake, self.signals = Path(folder).expanduser().resolve(), lake, tuple(signals)
        if not lake.on_disk:
            raise ConfigError("SignalStore: a lake in memory given, which ends with the process; open a folder, or use signal.outcomes(lake)")
        if len({one.name for one in self.signals}) < len(self.signals):
            names = [one.name for one in self.signals]
            raise ConfigError(
                f"SignalStore: two signals are named {next(name for name in names if names.count(name) > 1)!r}; give each a name of its own"
            )
        if (
            self.folder.exists()
            and any(self.folder.iterdir())
            and not (self.folder / "manifest.json").exists()
            and not (self.folder / ".writer").exists()
        ):
            raise ConfigError(f"SignalStore: {self.folder} is neither empty nor a store of outcomes; give a folder of its own")

    # -- reading -----------------------------------------------------------------------------------

    @property
    def until(self) -> datetime:
        """The midnight up to which events are counted."""
        until = self._read().until
        if until is None:
            raise DataError(f"SignalStore: {self.folder} holds nothing yet; call update() first")
        return EPOCH + timedelta(days=until)

    def outcomes(self, signal: Signal) -> pl.DataFrame:
        """One row per entry: user_id, keys, day, truncated, value, matures_at; by day, user and keys.

        Equal to the same columns of `signal.outcomes(lake.before(store.until, known_at=later))`.

        Raises:
            DataError: the store does not hold this version of the signal.
        """
        state = self._read()
        if signal.label not in state.outcomes:
            held = ", ".join(sorted(state.outcomes)) or "nothing"
            raise DataError(f"SignalStore: {signal.label} is not in {self.folder}, which holds {held}; add it to the signals and call update()")
        with duckdb.connect() as con:
            con.execute("set TimeZone = 'UTC'")
            frame = con.sql(f"select * exclude (seq) from ({self._rows(state, signal)}) order by all").pl()
        matures = (pl.col("day") + signal.window[1] + 1).cast(pl.Date).cast(pl.Datetime("us", "UTC")).alias("matures_at")
        return frame.with_columns(matures)

    def sql(self, signal: Signal) -> str:
        """DuckDB SQL of the same rows, for queries too large for memory."""
        return f"select * exclude (seq) from ({self._rows(self._read(), signal)})"

    def _rows(self, state: _State, signal: Signal) -> str:
        """SQL of all rows that count: those of a user with late events come from the last patch."""
        patches, seqs = state.patches.get(signal.label, []), state.seqs.get(signal.label, {})
        parts = [
            f"select * from {files_sql(self._paths(files))}"
            for files in [[file for day in state.outcomes[signal.label].values() for file in day]]
            if files
        ]
        for one in patches:
            newer = [day for day, seq in seqs.items() if seq >= one["seq"]]
            test = f" where day not in ({', '.join(map(str, newer))})" if newer else ""
            parts += [f"select * from {files_sql(self._paths(one['rows']))}{test}"] if one["rows"] else []
        if not parts:
            columns = ", ".join(f"cast(null as {kind}) as {name}" for name, kind in _columns(signal))
            return f"select {columns} where false"
        rows = " union all ".join(parts)
        for one in patches:
            (who,) = self._paths([one["users"]])
            test = f"seq < {one['seq']} and day >= {one['from']} and user_id in (select user_id from {files_sql([who])})"
            rows = f"select * from ({rows}) where not ({test})"
        return rows

    # -- writing -----------------------------------------------------------------------------------

    def update(self, progress: Callable[[str, int, int], None] | None = None, memory_limit: str | None = None) -> Updated:
        """Count everything up to the last midnight before the lake's watermark.

        Args:
            progress: called with (what, done, of). memory_limit: of DuckDB, e.g. "4GB"; beyond it, it spills to the store's folder.
        """
        tell = progress or (lambda what, done, of: None)
        with self._writing():
            state = self._read()
            view = self.lake.fixed()
            until = (view.watermark - EPOCH).days
            if state.until is not None and until < state.until:
                raise DataError(
                    f"SignalStore: the lake ends at {view.watermark:%Y-%m-%d %H:%M}, before what {self.folder} has counted; give the same lake"
                )
            with view.connect(memory_limit=memory_limit, spill=self.folder / "spill") as con:
                work = _Work(self, con, view, state, until, tell)
                done = work.run()
                self._write(work.state)
            shutil.rmtree(self.folder / "spill", ignore_errors=True)
            self._sweep(state, work.state)
            return done

    @contextmanager
    def _writing(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.folder / ".writer", os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _paths(self, files: Sequence[str]) -> list[str]:
        return [str(self.folder / file) for file in files]

    def _read(self) -> _State:
        place = self.folder / "manifest.json"
        if not place.exists():
            return _State()
        table = json.loads(place.read_text())
        if table.pop("format") != FORMAT:
            raise DataError(f"SignalStore: {self.folder} was written by another version of longplay; delete it and build it anew")
        for name in ("rollups", "outcomes", "seqs"):
            table[name] = {unit: {int(day): value for day, value in by_day.items()} for unit, by_day in table[name].items()}
        return _State(**table)

    def _write(self, state: _State) -> None:
        text = json.dumps({"format": FORMAT, **state.__dict__}, indent=0)
        place = self.folder / "manifest.json"
        new = place.with_suffix(".new")
        with new.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        new.replace(place)

    def _sweep(self, old: _State, new: _State) -> None:
        """Remove what neither the manifest nor the one before it lists: a reader may still be at the old one."""
        keep = old.files() | new.files()
        for place in [*self.folder.glob("rollups/**/*.parquet"), *self.folder.glob("outcomes/**/*.parquet")]:
            if str(place.relative_to(self.folder)) not in keep:
                place.unlink()
        for place in sorted([*self.folder.glob("rollups/**/"), *self.folder.glob("outcomes/**/")], key=lambda one: -len(one.parts)):
            if not any(place.iterdir()):
                place.rmdir()


class _Work:
    """One update."""

    def __init__(
        self, store: SignalStore, con: duckdb.DuckDBPyConnection, lake: Lake, old: _State, until: int, tell: Callable[[str, int, int], None]
    ) -> None:
        self.store, self.con, self.old, self.until, self.tell = store, con, old, until, tell
        self.files_of = {table: {Path(file).name: file for file in lake.files(table)} for table in ("events", "decisions")}  # a lake may move
        self.seen = {table: sorted(files) for table, files in self.files_of.items()}
        self.state = replace(
            old,
            seq=old.seq + 1,
            until=until,
            seen=self.seen,
            features=dict(old.features),
            kept=dict(old.kept),
            declared=dict(old.declared),
            rollups={unit: dict(days) for unit, days in old.rollups.items()},
            outcomes={label: dict(days) for label, days in old.outcomes.items()},
            seqs={label: dict(days) for label, days in old.seqs.items()},
            patches={label: list(patches) for label, patches in old.patches.items()},
        )
        self.computed: dict[str, tuple[int, ...]] = {}

    def run(self) -> Updated:
        """Roll up, compute, and say what was done."""
        signals = self.store.signals
        self._keep_catalogue(signals)
        gone = any(
            set(self.old.seen.get(table, [])) - set(files) for table, files in self.seen.items()
        )  # rewritten files: what they held is not known
        if gone:
            self._forget()
        span = days_of_log(self.con)
        first, last = (self.until, self.until - 1) if span is None else span
        last = min(last, self.until - 1)
        since = self.old.until if self.old.until is not None else first
        late_days = self._late(since)
        first_before = min(self.old.rollups.get("user", {}), default=None)
        wanted = needed(signals)
        fresh = sorted(set(range(since, last + 1)) | late_days)
        rolled: set[int] = set()
        for unit, features in wanted.items():
            names, known = {one.name for one in features}, self.old.features.get(unit)
            days = fresh
            if known is None or not names <= set(known):  # a column that no roll-up has yet: all days again
                self.state.rollups[unit], days = {}, list(range(first, last + 1))
            self.state.features[unit] = sorted(names)
            self._roll_up(unit, features, days)
            rolled |= set(days)
        for unit in self.state.rollups.keys() - wanted.keys():  # nobody asks for it any more
            del self.state.rollups[unit], self.state.features[unit]
        self.first_activity = self._first_activity()
        moved = first_before is not None and self.first_activity < first_before
        users = self._compute(signals, since, moved)
        return Updated(EPOCH + timedelta(days=self.until), tuple(sorted(rolled)), tuple(sorted(late_days)), users, self.computed)

    def _forget(self) -> None:
        self.old = replace(self.old, until=None, rollups={}, outcomes={}, seqs={}, patches={}, features={}, kept={})
        self.state = replace(self.state, rollups={}, outcomes={}, seqs={}, patches={}, features={}, kept={})

    def _keep_catalogue(self, signals: Sequence[Signal]) -> None:
        """Shares played and creators of slots depend on the catalogue: where it changed what was known, all is counted again."""
        if not any(one.entry.kind == "exposure" or one.measure.kind == "completion" for one in signals):
            return
        create_creators(self.con)
        place = self.store.folder / "catalogue.parquet"
        table = "select item_id, creators.creator_id, items.length from creators full join items using (item_id)"
        if place.exists() and self.old.until is not None:
            changed = f"""select count(*) from (select * from {files_sql([str(place)])}) old left join ({table}) now using (item_id)
                where old.creator_id is distinct from now.creator_id or old.length is distinct from now.length"""
            if (first_row(self.con, changed) or (0,))[0]:
                self._forget()
        self.con.execute(f"copy ({table}) to '{place}.new' (format parquet)")
        Path(f"{place}.new").replace(place)

    def _late(self, since: int) -> set[int]:
        """Closed days on which events arrived since; makes the tables `late` and `late_shown` (user_id, day): whose outcomes changed, from when."""
        new = self._new("events")
        self.con.execute("create or replace temp table late (user_id varchar, day integer)")
        days: set[int] = set()
        if new:
            self.con.execute(
                f"insert into late select distinct user_id, {day_of('time')} as day from {files_sql(new)} where {day_of('time')} < {since}"
            )
            days = {row[0] for row in self.con.execute("select distinct day from late").fetchall()}
        shown = self._new("decisions")
        self.con.execute("create or replace temp table late_shown (user_id varchar, day integer)")
        if shown:  # a first trial moves a user's enrolment, a late slate adds exposures
            low = min(self.old.rollups.get("user", {}), default=since)
            self.con.execute(
                f"""insert into late_shown
                select user_id, min(case when experiment is not null then {low} else {day_of("time")} end) as day from {files_sql(shown)}
                where experiment is not null or {day_of("time")} < {since} group by user_id"""
            )
        return days

    def _new(self, table: str) -> list[str]:
        """Files of the lake since the last update; none on the first."""
        known = set(self.old.seen.get(table, []))
        return [] if self.old.until is None else [file for name, file in self.files_of[table].items() if name not in known]

    def _roll_up(self, unit: str, features: Sequence[Feature], days: Sequence[int]) -> None:
        """Write the roll-ups of these days anew, in as many queries as keep each small."""
        for day in days:
            self.state.rollups[unit].pop(day, None)
        place = f"rollups/{unit}/{self.state.seq}"
        for done, part in enumerate(parts := self._parts(days)):
            self.tell(f"roll-up by {unit}", done, len(parts))
            low, high = (f"timestamptz '{EPOCH + timedelta(days=day):%Y-%m-%d} 00:00:00+00'" for day in (part[0], part[-1] + 1))
            listed = "" if part[-1] - part[0] + 1 == len(part) else f" and {day_of('time')} in ({', '.join(map(str, part))})"
            events = f"(select * from _all_events where time >= {low} and time < {high}{listed})"
            self._copy(rollup(unit, features, events), f"{place}/{done}", self.state.rollups[unit])

    def _parts(self, days: Sequence[int]) -> list[list[int]]:
        """Days in runs of at most about `ROWS_AT_ONCE` events; days far apart are not read together."""
        if not days:
            return []
        rows = (first_row(self.con, "select count(*) from _all_events") or (0,))[0]
        span = max(max(days) - min(days) + 1, 1) if self.old.until is None else max(len(self.state.rollups.get("user", {})), 1)
        most = max(1, int(ROWS_AT_ONCE * span / max(rows, 1)))
        parts: list[list[int]] = []
        for day in sorted(days):
            if parts and len(parts[-1]) < most and day - parts[-1][-1] < 3:
                parts[-1].append(day)
            else:
                parts.append([day])
        return parts

    def _copy(self, sql: str, place: str, into: Files, more: str = "") -> None:
        """Write a query's rows to one file (or a few) per day under `place`, and list them by day."""
        folder = self.store.folder / place
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        self.con.execute(f"copy ({sql}) to '{folder}' (format parquet, partition_by (day), write_partition_columns true, compression zstd{more})")
        for file in sorted(folder.glob("day=*/*.parquet")):
            day = int(file.parent.name.removeprefix("day="))
            into.setdefault(day, []).append(str(file.relative_to(self.store.folder)))

    def _first_activity(self) -> int:
        rows = RollupRows(self._files(), (-(2**31), 2**31))
        for day in sorted(self.state.rollups["user"]):
            found = first_row(
                self.con, f"select count(*) from ({replace(rows, days=(day, day)).read('user', TOUCHED.name)}) where {TOUCHED.name} > 0"
            )
            if found and found[0]:
                return day
        return self.until

    def _files(self) -> dict[str, dict[int, list[str]]]:
        return {unit: {day: self.store._paths(files) for day, files in days.items()} for unit, days in self.state.rollups.items()}

    def _compute(self, signals: Sequence[Signal], since: int, moved: bool) -> int:
        """Entries of new days, outcomes that matured, everything of new signals, and of users with late events; how many such users."""
        first = min(self.state.rollups["user"], default=self.until)
        together: dict[tuple[Any, ...], list[Signal]] = {}
        for signal in signals:
            label, stop = signal.label, signal.window[1]
            self.state.declared[label] = signal.to_toml()
            self.state.kept[label] = self.until
            if moved or not self._counted(label):
                self.state.outcomes[label], self.state.seqs[label], self.state.patches[label] = {}, {}, []
                days = list(range(first, self.until))
            else:
                matured = range(since - stop, self.until if signal.measure.kind == "time_to_return" else self.until - stop)
                days = sorted({day for day in matured if first <= day < self.until} | set(range(since, self.until)))
            self.computed[label] = tuple(days)
            for run in _runs(days):  # an entry's own day and the day on which it matures are far apart
                together.setdefault((run, *_reach(signal)), []).append(signal)
        for done, ((days, back, by_pair), ours) in enumerate(together.items()):
            self.tell("outcomes", done, len(together))
            self._outcomes(days, ours, back, by_pair)
        return self._patch([one for one in signals if self._counted(one.label) and not moved], first)

    def _counted(self, label: str) -> bool:
        """Whether the last update counted this signal, so that only what is new need be."""
        return label in self.old.outcomes and self.old.kept.get(label) == self.old.until

    def _outcomes(self, days: tuple[int, ...], signals: Sequence[Signal], back: int, by_pair: bool) -> None:
        """Compute these entry days for everybody, and write a file per signal and day."""
        files, tests = self._files(), dict[str, str]()
        if len(days) < len(self.state.rollups["user"]):
            of_days = {unit: {day: ours[day] for day in days if day in ours} for unit, ours in files.items() if unit != "sessions"}
            listed = {unit: [file for ours in by_day.values() for file in ours] for unit, by_day in of_days.items()}
            asked = [f"select user_id from {files_sql(ours)}" for ours in listed.values() if ours]
            low, high = (f"timestamptz '{EPOCH + timedelta(days=day):%Y-%m-%d} 00:00:00+00'" for day in (days[0], days[-1] + 1))
            asked.append(f"select user_id from decisions where time >= {low} and time < {high}")
            self.con.execute(f"create or replace temp table asked_users as {' union '.join(asked)}")
            tests = dict.fromkeys(files, "user_id in (from asked_users)")
            for unit in ("creator", "item"):
                if by_pair and listed.get(unit):
                    self.con.execute(f"create or replace temp table asked_{unit} as select distinct user_id, key from {files_sql(listed[unit])}")
                    tests[unit] = f"(user_id, key) in (from asked_{unit})"
        for signal, table in self._compiled(signals, days, back, tests):
            for day in days:
                self.state.outcomes[signal.label].pop(day, None)
                self.state.seqs[signal.label][day] = self.state.seq
            self._copy(self._narrow(signal, table), f"outcomes/{signal.label}/{self.state.seq}-{days[0]}", self.state.outcomes[signal.label])

    def _patch(self, signals: Sequence[Signal], first: int) -> int:
        """Compute again, from the first day that late events can have changed, all entries of the users whom they concern."""
        everybody = set[str]()
        for signal in signals:
            shown = "union all from late_shown" if signal.entry.kind in ("exposure", "enrolment") else ""
            self.con.execute(f"create or replace temp table asked_users as select user_id, min(day) as day from (from late {shown}) group by user_id")
            low = (first_row(self.con, "select min(day) from asked_users") or (None,))[0]
            if low is None:
                continue
            everybody |= {row[0] for row in self.con.execute("select user_id from asked_users").fetchall()}
            low = max(low - signal.window[1], first)
            days = tuple(range(low, self.until))
            done = set(self.computed[signal.label])
            place = f"outcomes/{signal.label}/{self.state.seq}-late"
            folder = self.store.folder / place
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            tests = dict.fromkeys(self.state.rollups, "user_id in (select user_id from asked_users)")
            for _, table in self._compiled([signal], days, _reach(signal)[0], tests):
                listed = f" and day not in ({', '.join(map(str, sorted(done)))})" if done else ""
                rows = f"select * from ({self._narrow(signal, table)}) where user_id in (select user_id from asked_users){listed}"
                self.con.execute(f"copy ({rows}) to '{folder}/rows.parquet' (format parquet, compression zstd)")
            self.con.execute(f"copy (select user_id from asked_users) to '{folder}/users.parquet' (format parquet, compression zstd)")
            patch = {"seq": self.state.seq, "from": low, "rows": [f"{place}/rows.parquet"], "users": f"{place}/users.parquet"}
            self.state.patches.setdefault(signal.label, []).append(patch)
            if len(self.state.patches[signal.label]) > MOST_PATCHES:
                self._together(signal)
        return len(everybody)

    def _together(self, signal: Signal) -> None:
        """Write a signal's rows anew, without patches."""
        rows = f"select * replace ({self.state.seq} as seq) from ({self.store._rows(self.state, signal)})"
        self.state.outcomes[signal.label], self.state.patches[signal.label] = {}, []
        self.state.seqs[signal.label] = dict.fromkeys(self.state.seqs[signal.label], self.state.seq)
        self._copy(rows, f"outcomes/{signal.label}/{self.state.seq}-all", self.state.outcomes[signal.label])

    def _narrow(self, signal: Signal, table: str) -> str:
        """SQL of one signal's columns of a table of its entry."""
        return f"select {', '.join(own_columns(self.con, signal, table))}, {self.state.seq} as seq from {table}"

    def _compiled(self, signals: Sequence[Signal], days: tuple[int, ...], back: int, tests: dict[str, str]) -> Iterator[tuple[Signal, str]]:
        """Each signal with a table of its entries on `days` (a run), from as few roll-ups as they need; the table is gone afterwards."""
        first = max(days[0] - back, min(self.state.rollups["user"], default=days[0]))
        last = min(self.until - 1, days[-1] + max(one.window[1] for one in signals))
        rows = RollupRows(self._files(), (first, last), tests)
        only = f"day between {days[0]} and {days[-1]}"
        made = Compiler(self.con, rows, self.until, (first, last), only, first_activity=self.first_activity).compute(signals)
        for entry, table in made.items():
            for signal in signals:
                if signal.entry == entry:
                    yield signal, table
            self.con.execute(f"drop table {table}")


def _reach(signal: Signal) -> tuple[int, bool]:
    """How many days before an entry matter to it, and whether only its own pair (and the user) does."""
    entry, measure = signal.entry, signal.measure
    units = {part.unit for part in parts_of(signal)} | ({entry.of} if entry.of else set())
    by_pair = entry.kind in ("discovery", "event") and entry.of is not None and units <= {entry.of, "user"}
    if entry.kind == "enrolment" or entry.dormant_for is not None or (entry.kind == "discovery" and entry.novel_for is None):
        return 10**6, by_pair
    return max(entry.novel_for or 0, measure.baseline or 0) + 1, by_pair


def _keys(signal: Signal) -> list[str]:
    return entry_keys(signal.entry) + (["decision_id", "slot"] if signal.entry.kind == "exposure" else [])


def _columns(signal: Signal) -> list[tuple[str, str]]:
    """Names and types of a signal's rows."""
    kinds = {"slot": "integer"}
    more = {"time_to_return": [("duration", "integer"), ("event", "boolean")]}.get(signal.measure.kind, [])
    more += [("baseline", "double")] if signal.measure.baseline is not None else []
    own = [(name, kinds.get(name, "varchar")) for name in _keys(signal)]
    return [*own, ("day", "integer"), ("truncated", "boolean"), ("value", "double"), *more, ("seq", "integer")]


def _runs(days: Sequence[int]) -> list[tuple[int, ...]]:
    """Days in runs without gaps."""
    runs: list[list[int]] = []
    for day in days:
        if runs and day == runs[-1][-1] + 1:
            runs[-1].append(day)
        else:
            runs.append([day])
    return [tuple(run) for run in runs]
