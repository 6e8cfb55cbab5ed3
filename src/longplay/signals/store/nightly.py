"""One nightly update of a store: new outcomes, and days reopened by late events."""

from __future__ import annotations

import os
import shutil
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from glob import glob
from pathlib import Path

import duckdb

from longplay.errors import DataError
from longplay.lake.creators import any_lacks_creator, create_creators, create_listed
from longplay.lake.daily import EPOCH, day_of, first_row, quoted
from longplay.lake.lake import Lake
from longplay.signals.engine.beginnings import SILENCE_DAYS, Beginnings, days_seen_again
from longplay.signals.engine.compiler import Compiler
from longplay.signals.engine.entry_rows import refuse
from longplay.signals.engine.event_source import EventRows
from longplay.signals.engine.operators import SESSIONS, TOUCHED, Feature
from longplay.signals.engine.parts import asks_creators, is_unknown, parts_of
from longplay.signals.engine.rollups import RollupRows, files_sql, is_block, needed, paths, rollup
from longplay.signals.outcomes.in_files import own_columns
from longplay.signals.outcomes.in_memory import days_of_log
from longplay.signals.signal import Signal
from longplay.signals.store.manifest import Files, Manifest

ROWS_AT_ONCE = 20_000_000  # events rolled up in one query
EVER = 10**6  # days
# days of a small log whose roll-ups are one file, once they are settled: a small file costs more to
# open than to read
BLOCK = 16
SETTLED = 7  # days after which few events still arrive
BLOCK_EVENTS = 250_000  # the most in a block
FEW_EVENTS = (
    100  # a day, on average: up to so many, matured outcomes of `SPARSE_BLOCK` days are one file
)
SPARSE_BLOCK = 64
MOST_PATCHES = 30  # patches of late events after which a signal's files are written anew


@dataclass(frozen=True)
class Updated:
    """What `SignalStore.update` did; days since 1970-01-01.

    Attributes:
        until: the midnight up to which everything is counted.
        rolled: days whose roll-ups were made anew.
        late: those of them that had been closed.
        users: users whose earlier outcomes were computed again, for late events.
        computed: signal label -> entry days computed for everybody.
        waiting: signal label -> why the log cannot answer it yet; it is counted from the first day
            once it can.
    """

    until: datetime
    rolled: tuple[int, ...]
    late: tuple[int, ...]
    users: int
    computed: dict[str, tuple[int, ...]]
    waiting: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        late = (
            f"; late events re-opened {len(self.late):,} days and {self.users:,} users"
            if self.late or self.users
            else ""
        )
        most = max((len(days) for days in self.computed.values()), default=0)
        if not self.rolled and not most and not self.users:
            return f"until {self.until:%Y-%m-%d}: nothing new" + "".join(
                f"\n  waiting: {reason}" for reason in self.waiting.values()
            )
        done = (
            f"rolled up {len(self.rolled):,} days, computed {len(self.computed):,} signals on "
            f"at most {most:,} entry days"
        )
        return f"until {self.until:%Y-%m-%d}: {done}{late}" + "".join(
            f"\n  waiting: {reason}" for reason in self.waiting.values()
        )


class Work:
    """One update: roll up the days that have closed or changed, compute the entries and outcomes
    that follow, patch those of late events."""

    def __init__(
        self,
        folder: Path,
        signals: Sequence[Signal],
        con: duckdb.DuckDBPyConnection,
        lake: Lake,
        old: Manifest,
        until: int,
        tell: Callable[[str, int, int], None],
    ) -> None:
        self.folder, self.signals = folder, signals
        self.con, self.lake, self.old, self.until, self.tell = con, lake, old, until, tell
        self.files_of = {
            table: {Path(file).name: file for file in lake.files(table)}
            for table in ("events", "decisions")
        }  # a lake may move
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
        self.by_catalogue = False  # whether roll-ups ask the catalogue for creators
        self.computed: dict[str, tuple[int, ...]] = {}
        self.written = set[str]()  # files

    def run(self) -> Updated:
        """Roll up, compute, and say what was done."""
        if any(
            set(self.old.seen.get(table, [])) - set(files) for table, files in self.seen.items()
        ):
            self._forget()  # rewritten files: what they held is not known
        span = days_of_log(self.con, self.lake)
        waiting: dict[str, str] = {}
        for signal in self.signals:
            if (
                self._counted(signal.label) and not signal.measure.needs_lengths
            ):  # a log that could answer still can; a catalogue may not
                continue
            try:
                refuse(
                    self.con, signal, self.lake, span, beginnings=None
                )  # a window that has not closed yet is no reason
            except DataError as reason:
                waiting[signal.label] = str(reason)
        signals = [one for one in self.signals if one.label not in waiting]
        self._keep_catalogue(signals)
        first = self.until if span is None else span[0]
        self.begins = min(first, self.until)  # decisions and skips may come before any activity
        since = self.old.until if self.old.until is not None else self.begins
        late_days = self._late(since)
        happened = self._happened(since)
        fresh = sorted(happened | late_days)
        self.days = sorted({*self.old.days, *fresh, *self._shown(since)})
        self.state.days = self.days
        self.place = {day: place for place, day in enumerate(self.days)}
        wanted = needed(signals)
        rolled: set[int] = set()
        for unit, features in wanted.items():
            names, known = {one.name for one in features}, self.old.features.get(unit)
            days = fresh
            if known is None or not names <= set(
                known
            ):  # a column that no roll-up has yet: all days again
                self.state.rollups[unit], days = {}, self.days
            self.state.features[unit] = sorted(names)
            self._roll_up(unit, features, days)
            rolled |= set(days)
        for unit in self.state.rollups.keys() - wanted.keys():  # nobody asks for it any more
            del self.state.rollups[unit], self.state.features[unit]
        before = Beginnings(
            tuple((start, end) for start, end in self.old.begun),
            stretches=Beginnings.of(self.days).runs,
        )
        self.beginnings = self._begun(before, sorted(rolled))
        self.state.begun = [list(run) for run in self.beginnings.runs]
        moved = any(before.begun(day) != self.beginnings.begun(day) for day in self.old.days)
        users = self._compute(signals, since, moved)
        return Updated(
            EPOCH + timedelta(days=self.until),
            tuple(sorted(rolled)),
            tuple(sorted(late_days)),
            users,
            self.computed,
            waiting,
        )

    def _forget(self) -> None:
        nothing = {
            "rollups": {},
            "outcomes": {},
            "seqs": {},
            "patches": {},
            "features": {},
            "kept": {},
            "days": [],
            "begun": [],
            "lacking": None,
        }
        self.old = replace(self.old, until=None, **nothing)
        self.state = replace(self.state, **nothing)

    def _keep_catalogue(self, signals: Sequence[Signal]) -> None:
        """Keep what the catalogue says of items: where something changed of what outcomes were made
        of, all is counted again.

        Items that were asked for and not known are kept, too: whose they are may be said later.
        """
        asked = self._asked(signals)
        self.state.catalogue, self.state.catalogue_file = asked, None
        if not asked:
            return
        create_listed(self.con)
        slot_creators = "listed"
        if "slot_creator" in asked:
            create_creators(self.con)
            slot_creators = "creators"
        old = None
        if self.old.catalogue_file is not None and self.old.until is not None:
            self.old.check(self.folder, [self.old.catalogue_file])
            old = files_sql(paths(self.folder, [self.old.catalogue_file]))
        known = (
            "select item_id, slots.creator_id as slot_creator, listed.creator_id as "
            "event_creator, items.length"
        )
        known += (
            f" from items full join {slot_creators} slots using (item_id) left join listed "
            "using (item_id)"
        )
        self.con.execute(f"create or replace temp table catalogue_now as {known}")
        if old is not None:
            compared = [column for column in asked if column in self.old.catalogue] or ["item_id"]
            changed = (
                " or ".join(
                    f"old.{column} is distinct from now.{column}"
                    for column in compared
                    if column != "item_id"
                )
                or "false"
            )
            if (
                first_row(
                    self.con,
                    f"select 1 from {old} old left join catalogue_now now using (item_id) where "
                    f"{changed} limit 1",
                )
                is not None
            ):
                self._forget()
                asked = self._asked(signals)
                old = None
        if not set(asked) <= set(self.old.catalogue):
            old = None  # what was asked for before is not known
        unknown = [
            f"select unnest(slate) as item_id from {files_sql(files)}"
            for files in [self._unseen("decisions", old)]
            if files
        ]
        unknown += [
            f"select item_id from {files_sql(files)} where item_id is not null"
            for files in [self._unseen("events", old)]
            if files
        ]
        unknown += [f"select item_id from {old}"] if old is not None else []
        nothing = ", ".join(
            f"null as {column}" for column in ("slot_creator", "event_creator", "length")
        )
        more = (
            f"select distinct item_id, {nothing} from ({' union all '.join(unknown)}) anti join "
            "catalogue_now using (item_id)"
            if unknown
            else ""
        )
        table = f"from catalogue_now{f' union all {more}' if more else ''}"
        file = f"rollups/catalogue-{self.state.seq}.parquet"  # a killed update leaves the old one
        (self.folder / "rollups").mkdir(exist_ok=True)
        self.con.execute(f"copy ({table}) to {quoted(self.folder / file)} (format parquet)")
        self.state.catalogue_file = file
        self.written.add(file)

    def _asked(self, signals: Sequence[Signal]) -> list[str]:
        """The columns of the catalogue that these signals are made of."""
        self.state.lacking = None
        if any(asks_creators(one) for one in signals):
            files = self._unseen("events", self.old.lacking)
            self.state.lacking = bool(self.old.lacking) or (
                bool(files) and any_lacks_creator(self.con, files_sql(files))
            )
        self.by_catalogue = bool(self.state.lacking)
        columns = {
            "slot_creator": any(one.entry.is_slot for one in signals),
            "event_creator": self.by_catalogue,
            "length": any(one.measure.needs_lengths for one in signals),
        }
        return [column for column, is_asked in columns.items() if is_asked]

    def _unseen(self, table: str, before: object) -> list[str]:
        """Files of the lake since the last update; all of them where nothing is known of those
        before."""
        if before is None or self.old.until is None:
            return list(self.files_of[table].values())
        return self._new(table)

    def _happened(self, since: int) -> set[int]:
        """Days from `since` until now with an event."""
        return self._days("events", since)

    def _shown(self, since: int) -> set[int]:
        """Days with a decision: those from `since` on, and earlier ones of decisions that arrived
        late."""
        late = self._new("decisions")
        day = day_of("time")
        earlier = (
            self.con.execute(
                f"select distinct {day} from {files_sql(late)} where {day} < {since}"
            ).fetchall()
            if late
            else []
        )
        return self._days("decisions", since) | {row[0] for row in earlier}

    def _days(self, table: str, since: int) -> set[int]:
        """Days from `since` until now that a table has rows of."""
        if since >= self.until:
            return set()
        near = self.lake.files(
            table, (EPOCH + timedelta(days=since), EPOCH + timedelta(days=self.until))
        )
        if not near:
            return set()
        rows = self.con.execute(
            f"select distinct {day_of('time')} from {files_sql(near)} where "
            f"{_between(since, self.until - 1)}"
        ).fetchall()
        return {row[0] for row in rows}

    def _begun(self, before: Beginnings, rolled: Sequence[int]) -> Beginnings:
        """Where the log begins, now that these days are rolled up: `before`, and what users of
        these days add.

        Most often users of a day were there on the day next to it. What lies outside all runs then
        is looked at in full: a day that was new, with all days near it; one that was outside
        before, with the new ones near it, as somebody of it may have come again.
        """
        if not rolled:
            return before
        active = sorted(self.state.rollups["user"])
        place = {day: number for number, day in enumerate(active)}
        nearest = {
            active[at]
            for day in rolled
            if day in place
            for at in range(max(place[day] - 1, 0), min(place[day] + 2, len(active)))
        }
        now = before.joined(self._seen_again(nearest))
        outside = [day for day in active if not now.has(day)]
        if not outside:
            return now
        known = set(rolled)
        new = [day for day in outside if day in known]
        near = {
            day for day in active if _is_near(day, new) or (day in known and _is_near(day, outside))
        }
        return now.joined(self._seen_again({*outside, *near}, of=outside))

    def _seen_again(self, days: Collection[int], of: Collection[int] = ()) -> list[int]:
        """See `days_seen_again`: of the activity of these days; of users who were active on the
        days `of` alone, unless there are none."""
        touched = f"{TOUCHED.name} > 0"

        def active_on(some: Collection[int]) -> str:
            rows = RollupRows(
                self.folder,
                self.state.rollups,
                {"user": (min(some), max(some))},
                among={"user": set(some)},
            )
            return f"select user_id, day from ({rows.read('user', TOUCHED.name)}) where {touched}"

        if not days:
            return []
        only = f" where user_id in (select user_id from ({active_on(of)}))" if of else ""
        return days_seen_again(self.con, f"select user_id, day from ({active_on(days)}){only}")

    def _late(self, since: int) -> set[int]:
        """Closed days on which events arrived since; makes the tables `late` and `late_shown`
        (user_id, day): whose outcomes changed, from when."""
        new = self._new("events")
        self.con.execute("create or replace temp table late (user_id varchar, day integer)")
        days: set[int] = set()
        if new:
            self.con.execute(
                f"insert into late select distinct user_id, {day_of('time')} as day from "
                f"{files_sql(new)} where {day_of('time')} < {since}"
            )
            days = {row[0] for row in self.con.execute("select distinct day from late").fetchall()}
        shown = self._new("decisions")
        self.con.execute("create or replace temp table late_shown (user_id varchar, day integer)")
        if shown:  # a first trial moves a user's enrolment, a late slate adds exposures
            self.con.execute(
                f"""insert into late_shown
                select user_id, min(case when experiment is not null then {self.begins} else {day_of("time")} end) as day from {files_sql(shown)}
                where experiment is not null or {day_of("time")} < {since} group by user_id"""
            )
        return days

    def _new(self, table: str) -> list[str]:
        """Files of the lake since the last update; none on the first."""
        known = set(self.old.seen.get(table, []))
        return (
            []
            if self.old.until is None
            else [file for name, file in self.files_of[table].items() if name not in known]
        )

    def _roll_up(self, unit: str, features: Sequence[Feature], days: Sequence[int]) -> None:
        """Write the roll-ups of these days anew, in as many queries as keep each small."""
        for day in days:
            self.state.rollups[unit].pop(day, None)
        place = f"rollups/{unit}/{self.state.seq}"
        for done, part in enumerate(parts := self._parts(days)):
            self.tell(f"roll-up by {unit}", done, len(parts))
            listed = (
                ""
                if self._is_run(part)
                else f" and {day_of('time')} in ({', '.join(map(str, part))})"
            )
            # older files lack the column amount, which the view of all events fills in
            asks_amount = any(one.needs_amount for one in features)
            near = (
                []
                if asks_amount
                else self.lake.files(
                    "events",
                    (EPOCH + timedelta(days=part[0]), EPOCH + timedelta(days=part[-1] + 1)),
                )
            )
            events = (
                f"(select * from {files_sql(near) if near else '_all_events'} where "
                f"{_between(part[0], part[-1])}{listed})"
            )
            sql = rollup(unit, features, EventRows(events, by_catalogue=self.by_catalogue))
            self._copy(sql, f"{place}/{done}", self.state.rollups[unit], part, self._blocks(part))
        files = self.state.rollups[unit]
        for block in self._blocks(self.days):
            alone = sum(day in files and not is_block(files[day][0]) for day in block)
            if alone > BLOCK // 4:  # a few late days stay by themselves
                rows = RollupRows(self.folder, self.state.rollups, {unit: (block[0], block[-1])})
                sql = rows.read(
                    unit,
                    "first, last, begun"
                    if unit == "sessions"
                    else ", ".join(self.state.features[unit]),
                )
                for day in block:
                    files.pop(day, None)
                self._copy(sql, f"{place}/b{block[0] // BLOCK}", files, block, [block])

    def _blocks(self, days: Iterable[int]) -> list[range]:
        """The blocks all of whose days are among these and settled; none of a large log."""
        in_block = self.lake.size() * BLOCK / max(len(self.days), 1)
        if not 0 < in_block <= BLOCK_EVENTS:  # 0: it is not known how large
            return []
        known = set(days)
        blocks = (
            range(number * BLOCK, (number + 1) * BLOCK)
            for number in sorted({day // BLOCK for day in known})
        )
        settled = (
            block
            for block in blocks
            if block[0] >= self.begins and block[-1] < self.until - SETTLED
        )
        return [
            block
            for block in settled
            if all(day in known or day not in self.place for day in block)
        ]

    def _blocks_of_outcomes(self, days: Sequence[int], stop: int) -> list[range]:
        """The blocks all of whose days are among these and have matured, where a day of the log is
        too small for files of its own."""
        if not 0 < self.lake.size() / max(len(self.days), 1) <= FEW_EVENTS:
            return []
        known = set(days)
        blocks = (
            range(number * SPARSE_BLOCK, (number + 1) * SPARSE_BLOCK)
            for number in sorted({day // SPARSE_BLOCK for day in known})
        )
        matured = (block for block in blocks if block[-1] + stop + 1 <= self.until)
        return [
            block
            for block in matured
            if all(day in known or day not in self.place for day in block)
        ]

    def _parts(self, days: Sequence[int]) -> list[list[int]]:
        """Days in runs of at most about `ROWS_AT_ONCE` events; days far apart are not read
        together."""
        if not days:
            return []
        if len(days) == 1:
            return [list(days)]
        rows = (first_row(self.con, "select count(*) from _all_events") or (0,))[0]
        most = max(1, int(ROWS_AT_ONCE * len(self.days) / max(rows, 1)))
        parts: list[list[int]] = []
        for day in sorted(days):
            if parts and len(parts[-1]) < most and self.place[day] - self.place[parts[-1][-1]] < 3:
                parts[-1].append(day)
            else:
                parts.append([day])
        return parts

    def _copy(
        self, sql: str, place: str, into: Files, days: Sequence[int], blocks: Sequence[range] = ()
    ) -> None:
        """Write the rows of a query, which are of these days, to one file (or a few) per day or
        block under `place`, and list them by day."""
        folder = self.folder / place
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        size = len(blocks[0]) if blocks else BLOCK
        numbers = [block[0] // size for block in blocks]
        if len(days) == 1 or (
            len(blocks) == 1 and all(day in blocks[0] for day in days)
        ):  # a quarter of the cost
            target = folder / f"part={f'b{numbers[0]}' if numbers else days[0]}" / "data_0.parquet"
            target.parent.mkdir()
            self.con.execute(f"copy ({sql}) to {quoted(target)} (format parquet, compression zstd)")
        else:
            number = f"cast(floor(day / {size}.0) as integer)"  # days before 1970 are negative
            name = (
                f"case when {number} in ({', '.join(map(str, numbers))}) then 'b' || {number} "
                "else cast(day as varchar) end"
            )
            parted = f"select *, {name if numbers else 'day'} as part from ({sql})"
            self.con.execute(
                f"copy ({parted}) to {quoted(folder)} (format parquet, partition_by (part), "
                "compression zstd)"
            )
        for file in sorted(glob("part=*/*.parquet", root_dir=folder)):
            part, listed = os.path.dirname(file).removeprefix("part="), os.path.join(place, file)
            number = int(part.removeprefix("b"))
            for day in range(number * size, (number + 1) * size) if is_block(listed) else [number]:
                if day in self.place:
                    into.setdefault(day, []).append(listed)
            self.written.add(listed)
        if not any(folder.iterdir()):  # no rows
            folder.rmdir()

    def _runs(self, days: Sequence[int]) -> list[tuple[int, ...]]:
        """Days in runs between which no other day has data."""
        runs: list[list[int]] = []
        for day in days:
            if runs and self.place[day] == self.place[runs[-1][-1]] + 1:
                runs[-1].append(day)
            else:
                runs.append([day])
        return [tuple(run) for run in runs]

    def _is_run(self, days: Sequence[int]) -> bool:
        """Whether these are all days with data from the first to the last of them."""
        return self.place[days[-1]] - self.place[days[0]] + 1 == len(days)

    def _compute(self, signals: Sequence[Signal], since: int, moved: bool) -> int:
        """Entries of new days, outcomes that matured, everything of new signals, and of users with
        late events; how many such users."""
        first = self.begins
        together: dict[tuple[tuple[int, ...], bool], list[Signal]] = {}
        for signal in signals:
            label, stop = signal.label, signal.window[1]
            self.state.declared[label] = signal.to_toml()
            self.state.kept[label] = self.until
            if moved or not self._counted(label):
                self.state.outcomes[label], self.state.seqs[label], self.state.patches[label] = (
                    {},
                    {},
                    [],
                )
                days = self.days
            else:
                matured = range(
                    since - stop,
                    self.until if signal.measure.record.is_first_day else self.until - stop,
                )
                days = [day for day in self.days if day in matured or day >= since]
            self.computed[label] = tuple(days)
            for run in self._runs(
                days
            ):  # an entry's own day and the day on which it matures are far apart
                together.setdefault((run, _by_pair(signal)), []).append(signal)
        for done, ((days, by_pair), ours) in enumerate(together.items()):
            self.tell("outcomes", done, len(together))
            self._outcomes(days, ours, by_pair)
        return self._patch(
            [one for one in signals if self._counted(one.label) and not moved], first
        )

    def _counted(self, label: str) -> bool:
        """Whether the last update counted this signal, so that only what is new need be."""
        return label in self.old.outcomes and self.old.kept.get(label) == self.old.until

    def _outcomes(self, days: tuple[int, ...], signals: Sequence[Signal], by_pair: bool) -> None:
        """Compute these entry days for everybody, and write a file per signal and day."""
        tests = dict[str, str]()
        if len(days) < len(self.days):
            units = self.state.rollups.keys() - {"sessions"}
            rows = RollupRows(
                self.folder, self.state.rollups, dict.fromkeys(units, (days[0], days[-1]))
            )
            seen = {
                unit: f"select user_id, key from ({rows.read(unit, self.state.features[unit][0])})"
                for unit in sorted(units)
            }
            asked = [f"select user_id from ({ours})" for ours in seen.values()]
            asked.append(f"select user_id from decisions where {_between(days[0], days[-1])}")
            self.con.execute(f"create or replace temp table asked_users as {' union '.join(asked)}")
            tests = dict.fromkeys(self.state.rollups, "user_id in (from asked_users)")
            for unit in ("creator", "item"):
                if by_pair and unit in units:
                    self.con.execute(
                        f"create or replace temp table asked_{unit} as select distinct * from "
                        f"({seen[unit]})"
                    )
                    tests[unit] = f"(user_id, key) in (from asked_{unit})"
        for signal, table in self._compiled(signals, days, tests):
            label = signal.label
            files, seqs = self.state.outcomes[label], self.state.seqs[label]
            for day in days:
                files.pop(day, None)
                seqs[day] = self.state.seq
            blocks = self._blocks_of_outcomes(days, signal.window[1])
            self._copy(
                self._narrow(signal, table),
                f"outcomes/{label}/{self.state.seq}-{days[0]}",
                files,
                days,
                blocks,
            )

    def _patch(self, signals: Sequence[Signal], first: int) -> int:
        """Compute again, from the first day that late events can have changed, all entries of the
        users whom they concern."""
        everybody = set[str]()
        for signal in signals:
            shown = (
                "union all from late_shown"
                if signal.entry.is_slot or signal.entry.is_enrolment
                else ""
            )
            self.con.execute(
                "create or replace temp table asked_users as select user_id, min(day) as day "
                f"from (from late {shown}) group by user_id"
            )
            low = (first_row(self.con, "select min(day) from asked_users") or (None,))[0]
            if low is None:
                continue
            everybody |= {
                row[0] for row in self.con.execute("select user_id from asked_users").fetchall()
            }
            low = max(low - signal.window[1], first)
            days = tuple(day for day in self.days if day >= low)
            done = set(self.computed[signal.label])
            place = f"outcomes/{signal.label}/{self.state.seq}-late"
            folder = self.folder / place
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            tests = dict.fromkeys(
                self.state.rollups, "user_id in (select user_id from asked_users)"
            )
            for _, table in self._compiled([signal], days, tests):
                listed = f" and day not in ({', '.join(map(str, sorted(done)))})" if done else ""
                rows = (
                    f"select * from ({self._narrow(signal, table)}) where user_id in (select "
                    f"user_id from asked_users){listed}"
                )
                self.con.execute(
                    f"copy ({rows}) to {quoted(folder / 'rows.parquet')} (format parquet, "
                    "compression zstd)"
                )
            self.con.execute(
                f"copy (select user_id from asked_users) to {quoted(folder / 'users.parquet')} "
                "(format parquet, compression zstd)"
            )
            patch = {
                "seq": self.state.seq,
                "from": low,
                "rows": [f"{place}/rows.parquet"],
                "users": f"{place}/users.parquet",
            }
            self.written |= {f"{place}/rows.parquet", f"{place}/users.parquet"}
            self.state.patches.setdefault(signal.label, []).append(patch)
            if len(self.state.patches[signal.label]) > MOST_PATCHES:
                self._together(signal)
        return len(everybody)

    def _together(self, signal: Signal) -> None:
        """Write a signal's rows anew, without patches."""
        rows = (
            f"select * replace ({self.state.seq} as seq) from "
            f"({self.state.rows(self.folder, signal)})"
        )
        self.state.outcomes[signal.label], self.state.patches[signal.label] = {}, []
        self.state.seqs[signal.label] = dict.fromkeys(self.state.seqs[signal.label], self.state.seq)
        days = list(self.state.seqs[signal.label])
        blocks = self._blocks_of_outcomes(days, signal.window[1])
        self._copy(
            rows,
            f"outcomes/{signal.label}/{self.state.seq}-all",
            self.state.outcomes[signal.label],
            days,
            blocks,
        )

    def _narrow(self, signal: Signal, table: str) -> str:
        """SQL of one signal's columns of a table of its entry."""
        return (
            f"select {', '.join(own_columns(self.con, signal, table))}, {self.state.seq} as "
            f"seq from {table}"
        )

    def _compiled(
        self, signals: Sequence[Signal], days: tuple[int, ...], tests: dict[str, str]
    ) -> Iterator[tuple[Signal, str]]:
        """Each signal with a table of its entries on `days` (a run), from as few roll-ups as they
        need; the table is gone afterwards."""
        earliest = min(self.begins, days[0])
        reached = {
            unit: (max(days[0] + low, earliest), min(days[-1] + high, self.until - 1))
            for unit, (low, high) in _reach(
                signals, (days[0], days[-1]), self.until, self.beginnings
            ).items()
        }
        parts = (
            1 if tests else EventRows.of(self.lake.size()).parts
        )  # few rows where only some users matter
        rows = RollupRows(self.folder, self.state.rollups, reached, tests, parts)
        span = min(low for low, _ in reached.values()), max(high for _, high in reached.values())
        made = Compiler(
            self.con, rows, self.until, span, signals, lambda: self.beginnings, (days[0], days[-1])
        ).compute()
        for entry, table in made.items():
            for signal in signals:
                if signal.entry == entry:
                    yield signal, table
            self.con.execute(f"drop table {table}")


def _is_near(day: int, days: Sequence[int]) -> bool:
    """Whether a day lies at most `SILENCE_DAYS` from one of these, which are in order."""
    at = bisect_left(days, day - SILENCE_DAYS)
    return at < len(days) and days[at] <= day + SILENCE_DAYS


def _by_pair(signal: Signal) -> bool:
    """Whether of roll-ups by creator or item only an entry's own pair matters to it."""
    entry = signal.entry
    units = {part.unit for part in parts_of(signal)} | ({entry.of} if entry.of else set())
    return (
        (entry.is_discovery or entry.is_event)
        and entry.of is not None
        and units <= {entry.of, "user"}
    )


def _reach(
    signals: Sequence[Signal], entered: tuple[int, int], until: int, beginnings: Beginnings
) -> dict[str, tuple[int, int]]:
    """Roll-up -> first and last day that matter to entries of these signals on days `entered`
    (first, last), counted from the entry's.

    Where the log had begun long enough before, all that matters of an entry's past is the days in
    which it must be new.
    """
    reached: dict[str, tuple[int, int]] = {"user": (0, 0)}

    def reach(unit: str, low: int, high: int) -> None:
        before, after = reached.get(unit, (0, 0))
        reached[unit] = (min(low, before), max(high, after))

    for signal in signals:
        entry = signal.entry
        ever = entry.is_enrolment or entry.looks_back_forever
        ever = ever or (
            entry.novel_for is not None and not beginnings.covers_all(*entered, entry.novel_for)
        )
        reach(entry.of or "user", -EVER if ever else -(entry.novel_for or 0), 0)
        for part in () if is_unknown(signal, entered[0], until) else parts_of(signal):
            reach(part.unit, part.low, part.high)
            if part.feature is SESSIONS:
                reach(
                    "sessions", part.low - 1, part.high
                )  # one that began the day before may go on
    return reached


def _between(first: int, last: int) -> str:
    """SQL test of `time`: on these days or between them."""
    low, high = (
        f"timestamptz '{EPOCH + timedelta(days=day):%Y-%m-%d} 00:00:00+00'"
        for day in (first, last + 1)
    )
    return f"time >= {low} and time < {high}"
