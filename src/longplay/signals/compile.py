"""Signals compiled to DuckDB: one table per entry, one column per signal, from words of days and sums over days.

All signals given at once share what they can: words of a unit are built in one pass over the rows, entries once, and
signals of one entry are columns of one table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import duckdb

from longplay.lake.daily import day_of, first_row
from longplay.signals.entry import Entry
from longplay.signals.operators import (
    BITS,
    TOUCHED,
    Calendar,
    Feature,
    count_days,
    divisor,
    events_of,
    feature,
    first_bit,
    first_day,
    range_sums,
    scale,
    smear,
    words,
)
from longplay.signals.signal import Signal

UNSURE_DAYS = 28  # a "first touch in the log" this early may be an old habit: `truncated` says so


class Rows(Protocol):
    """Where daily amounts come from: events, or roll-ups made of them."""

    def daily(self, unit: str, features: Sequence[Feature], where: str = "", flags: bool = False) -> str:
        """See `operators.EventRows.daily`."""
        ...


@dataclass(frozen=True)
class Part:
    """One number that an outcome is made of: a feature over the days low..high after the entry, for a unit.

    how: `days` (with anything), `first` (such day), `sum`, or `habits` (keys with enough days).
    """

    column: str
    feature: Feature
    unit: str
    how: str
    low: int
    high: int
    days: int = 0

    @property
    def in_words(self) -> bool:
        """Whether words of days answer it."""
        return self.how in ("days", "first")


def parts_of(signal: Signal) -> list[Part]:
    """What a signal's value is computed from; columns `total`, and `per` or `base` where it has them."""
    measure, (low, high) = signal.measure, signal.window
    plain = measure.per is None and measure.baseline is None
    yes_or_no = measure.counted is not None and (signal.threshold or 2) <= 1 and plain  # on which days is enough: no need of how many
    how = {"time_to_return": "first", "habits": "habits"}.get(measure.kind, "days" if measure.of_activity or yes_or_no else "sum")
    one, unit = feature(measure, signal.origins), measure.of or "user"
    parts = [Part("total", one, unit, how, low, high, measure.days or 0)]
    if (per := divisor(measure, signal.origins)) is not None:
        part = measure if measure.per is None else measure.per
        parts.append(Part("per", per, part.of or "user", "days" if part.of_activity else "sum", low, high))
    if measure.baseline is not None:
        parts.append(Part("base", one, unit, how, -measure.baseline, -1))
    return parts


class Compiler:
    """Computes signals in a DuckDB connection that has the views `events`, `items` and `decisions`.

    Args:
        rows: where daily amounts come from. as_of_day: days since 1970 of the midnight up to which windows have closed.
        days: first and last day (since 1970) that `rows` may have. only: compute only entries of these days (SQL over `day`, empty: all).
        enrolled: a view of that name gives every enrolment. first_activity: day of the log's first activity, where `rows` do not reach so far back.
    """

    def __init__(
        self,
        con: duckdb.DuckDBPyConnection,
        rows: Rows,
        as_of_day: int,
        days: tuple[int, int],
        only: str = "",
        enrolled: bool = False,
        first_activity: int | None = None,
    ) -> None:
        self.con, self.rows, self.as_of_day, self.only, self.enrolled = con, rows, as_of_day, only, enrolled
        self.calendar = Calendar.of(*days)
        self._first_activity = first_activity
        self._words: dict[str, list[Feature]] = {}
        self._made = 0

    # -- tables ----------------------------------------------------------------------------------

    def compute(self, signals: Sequence[Signal]) -> dict[Entry, str]:
        """A table per entry: user_id, the entry's keys, day, truncated, and per signal a column of its label (null while immature).

        With `LABEL duration` and `LABEL event` for times to return, `LABEL baseline` for baselines. Entries of exposures also have
        decision_id and slot.
        """
        by_entry: dict[Entry, list[Signal]] = {}
        for signal in signals:
            by_entry.setdefault(signal.entry, []).append(signal)
        self.make_words(by_entry)
        made = {entry: self._outcomes(entry, ours) for entry, ours in by_entry.items()}
        for unit in self._words:
            self.con.execute(f"drop table words_{unit}")
        self._words = {}
        return made

    def make_words(self, by_entry: dict[Entry, list[Signal]]) -> None:
        """Create `words_UNIT` for every unit whose words most signals need; what only a few entries ask comes later, for them alone."""
        needed: dict[str, dict[str, Feature]] = {}
        full: set[str] = set()
        for entry, signals in by_entry.items():
            parts = [part for signal in signals for part in parts_of(signal)]
            if (found := self._entry_words(entry)) is not None and not (parts and self._sums_of_days(entry, parts)):
                unit, one = found
                needed.setdefault(unit, {})[one.name] = one
                full.add(unit)
            for part in parts:
                if part.in_words or part.how == "habits":
                    needed.setdefault(part.unit, {})[part.feature.name] = part.feature
                    if part.unit == "user":
                        full.add("user")  # one row per user: as cheap for all as for some
        for unit in full & needed.keys():
            self._words[unit] = list(needed[unit].values())
            self._create_words(unit, self._words[unit])

    def _create_words(self, unit: str, features: list[Feature], limits: str = "", table: str = "", by_key: bool = True) -> None:
        """Create the table of a unit's words, `words_UNIT` unless named.

        Args:
            limits: SQL of (user_id, key if `by_key` and of a pair, first, last): the units and days that matter; empty: all.
        """
        rows = self.rows.daily(unit, features, flags=True)
        if limits:
            same = "limits.user_id = rows.user_id" + (" and limits.key = rows.key" if unit != "user" and by_key else "")
            rows = f"select rows.* from ({rows}) rows join ({limits}) limits on {same} and rows.day between limits.first and limits.last"
        self.con.execute(f"create or replace temp table {table or f'words_{unit}'} as {words(unit, rows, features, self.calendar)}")

    @property
    def first_activity(self) -> int:
        """Day of the log's first activity; the last day of all where there is none."""
        if self._first_activity is None:
            unit = next((unit for unit, features in self._words.items() if TOUCHED in features), None)
            if unit is None:
                found = first_row(self.con, f"select min(day) from ({self.rows.daily('user', [TOUCHED])})")
            else:  # words are also kept of what has no key
                asked = first_bit(self.calendar.columns(unit, TOUCHED.name))
                found = first_row(self.con, f"select min({asked}) + {self.calendar.base} from words_{unit}")
            self._first_activity = self.as_of_day if found is None or found[0] is None else int(found[0])
        return self._first_activity

    def _sums_of_days(self, entry: Entry, parts: Sequence[Part]) -> bool:
        """Whether entries are the user's active days and their values are sums over the user's days: one table has both."""
        return entry == Entry("user_day") and not self.only and all(part.how == "sum" and part.unit == "user" for part in parts)

    def _entry_words(self, entry: Entry) -> tuple[str, Feature] | None:
        return None if entry.kind == "enrolment" and self.enrolled else entry_words(entry)

    def _outcomes(self, entry: Entry, signals: list[Signal]) -> str:
        """The table of one entry."""
        table = f"outcomes_{self._made}"
        self._made += 1
        found = self._entry_words(entry)
        parts = [part for signal in signals for part in parts_of(signal)]
        fused = found is not None and all(part.in_words and part.unit in self._words for part in parts)
        keys = ", ".join(entry_keys(entry))
        if self._sums_of_days(entry, parts):
            self._select_into(table, "(select *, false as truncated from sums_user)", keys, entry, signals, frozenset(["sums"]))
        elif found is None:
            self.con.execute(f"create or replace temp table found as {self._other_entries(entry)}")
            self._select_into(table, "found", keys, entry, signals, frozenset())
        elif fused:
            self._from_words(table, entry, found, signals)
        else:
            self._from_words("found", entry, found, [])
            self._select_into(table, "found", keys, entry, signals, frozenset())
        self.con.execute("drop table if exists found")
        return table

    # -- entries ---------------------------------------------------------------------------------

    def find(self, entry: Entry, table: str) -> None:
        """Create `table` of an entry that words know: user_id, keys, day, truncated."""
        found = self._entry_words(entry)
        assert found is not None
        if found[1] not in self._words.get(found[0], []):
            self.make_words({entry: []})
        self._from_words(table, entry, found, [])

    def _from_words(self, table: str, entry: Entry, found: tuple[str, Feature], signals: list[Signal]) -> None:
        """Entries that are bits of their unit's words, with the values that words can tell."""
        unit, one = found
        keys, calendar, base = ", ".join(entry_keys(entry)), self.calendar, self.calendar.base
        if entry.kind == "user_day" and entry.dormant_for is None:
            bit = " ".join(f"when {block} then {column}" for block, column in enumerate(calendar.columns(unit, one.name)))
            every = f"""(select w.*, {base} + place as day, false as truncated
                from words_user w cross join (select cast(unnest(range({calendar.blocks * BITS})) as integer) as place)
                where ((case place // {BITS} {bit} end) >> (place % {BITS})) & 1 = 1)"""
            self._select_into(table, every, keys, entry, signals, frozenset([unit]))
            return
        if entry.kind == "enrolment":
            first = f"{base} + {first_bit(calendar.columns(unit, one.name))}"
            trial = f"select user_id, {day_of('min(time)')} as trial from decisions where experiment is not null group by user_id"
            enrolled = f"""(select w.*, coalesce(trial, {first}) as day, false as truncated from words_user w full join ({trial}) using (user_id)
                where coalesce(trial, {first}) is not null)"""
            self._select_into(table, enrolled, keys, entry, signals, frozenset([unit]))
            return
        seen = f"(select * from words_{unit} where key is not null)" if unit != "user" else "words_user"
        gap = entry.novel_for if entry.kind != "user_day" else entry.dormant_for
        words_left = [f"c_{block}" for block in range(calendar.blocks)]
        peeled = ", ".join(
            f"case when {' | '.join(words_left[:block]) or '0'} = 0 then {word} & ({word} - 1) else {word} end as {word}"
            for block, word in enumerate(words_left)
        )
        any_left = " | ".join(words_left) + " <> 0"
        key = f", key as {keys.split(', ')[1]}" if unit != "user" else ""
        earlier = count_days(unit, one.name, "0", "place - 1", calendar)
        unsure = f"{base} + place < {self.first_activity + (gap or UNSURE_DAYS)}"
        left, first = smear(seen, unit, one.name, gap, calendar), True
        while first or self._count("fresh"):
            placed = f"(select *, {first_bit(words_left)} as place from {left} where {any_left})"
            uncertain = f"case when {unsure} then ({earlier}) = 0 else false end as truncated"
            known = f"select * exclude (key){key}, {base} + place as day, {uncertain} from {placed}"
            if entry.kind == "user_day":  # a first active day is no return
                known = f"select * replace (false as truncated) from ({known}) where ({earlier}) <> 0"
            self._select_into(table, f"({known})", keys, entry, signals, frozenset([unit]), first)
            self.con.execute(f"create or replace temp table fresh as select * from (select * replace ({peeled}) from {left}) where {any_left}")
            left, first = "fresh", False
        self.con.execute("drop table fresh")

    def _other_entries(self, entry: Entry) -> str:
        """SQL of entries that words do not know: (user_id, keys, day, truncated) or, of exposures, slots."""
        if entry.kind == "exposure":
            only = f" where {self.only}" if self.only else ""
            place = "unnest(slate) as item_id, generate_subscripts(slate, 1) as slot"
            slots = f"select user_id, decision_id, {day_of('time')} as day, {place} from decisions"
            return f"""select d.user_id, d.item_id, c.creator_id, d.decision_id, cast(d.slot - 1 as integer) as slot, d.day, false as truncated
                from (select * from ({slots}){only}) d left join creators c using (item_id)"""
        if entry.kind == "enrolment":
            body = f"select user_id, {day_of('time')} as day, false as truncated from enrolled"
        else:  # every event of a kind
            unit = entry.of or "user"
            key = f", key as {unit}_id" if entry.of else ""
            one = events_of(str(entry.event))
            rows = self.rows.daily(unit, [one], " and ".join(filter(None, [self.only, "key is not null" if entry.of else ""])))
            body = f"select user_id{key}, day, false as truncated from (select *, unnest(range({one.name})) from ({rows}))"
        return f"select * from ({body}) where {self.only}" if self.only else body

    # -- values ----------------------------------------------------------------------------------

    def _select_into(self, table: str, entries: str, keys: str, entry: Entry, signals: list[Signal], has: frozenset[str], first: bool = True) -> None:
        """Create (or, not `first`, add to) `table` from entries, joined with what the signals' values need.

        Args:
            entries: SQL with user_id, keys, day, truncated, and the words of the units in `has`; "sums": it is the table of sums.
        """
        more = ", decision_id, slot" if entry.kind == "exposure" else ""
        if self.only:
            entries = f"(select * from {entries} where {self.only})"
        columns, joins = self.values(entries, signals, has)
        body = f"select {', '.join(f'e.{key}' for key in keys.split(', '))}{more}, e.day, e.truncated{columns} from {entries} e{joins}"
        self.con.execute(f"create or replace temp table {table} as {body}" if first else f"insert into {table} {body}")

    def values(self, entries: str, signals: Sequence[Signal], has: frozenset[str] = frozenset()) -> tuple[str, str]:
        """SQL of (columns, joins) that add the signals' values to `entries`, which is aliased `e`."""
        wanted: dict[str, dict[str, tuple[str, int, int]]] = {}  # unit -> range sums
        features: dict[str, Feature] = {}
        joins, columns, units, habits = "", "", set[str](), dict[tuple[str, str, int, int, int], str]()
        for signal in signals:
            at: dict[str, str] = {}
            for part in parts_of(signal):
                if part.in_words:
                    units.add(part.unit)
                    asked = first_day if part.how == "first" else count_days
                    place = f"(e.day - {self.calendar.base})"
                    at[part.column] = asked(part.unit, part.feature.name, f"{place} + ({part.low})", f"{place} + ({part.high})", self.calendar)
                    if part.how == "days":
                        at[part.column] = f"coalesce({at[part.column]}, 0)"
                elif part.how == "habits":
                    name = habits.setdefault((part.unit, part.feature.name, part.days, part.low, part.high), f"habits_{len(habits)}")
                    features[part.feature.name] = part.feature
                    at[part.column] = f"coalesce({name}.total, 0)"
                else:
                    sums = wanted.setdefault(part.unit, {})
                    features[part.feature.name] = part.feature
                    column = next((known for known, one in sums.items() if one == (part.feature.name, part.low, part.high)), f"sum_{len(sums)}")
                    sums[column] = (part.feature.name, part.low, part.high)
                    at[part.column] = f"coalesce({'e' if 'sums' in has else f's_{part.unit}'}.{column}, 0)"
            columns += self._value(signal, at)
        for unit in sorted(units - has):
            parts = [part for signal in signals for part in parts_of(signal) if part.in_words and part.unit == unit]
            needed = list(dict.fromkeys(part.feature for part in parts))
            if not set(needed) <= set(self._words.get(unit, [])):
                low, high = min(part.low for part in parts), max(part.high for part in parts)
                self._words.pop(unit, None)  # the table is for these entries alone from here on
                self._create_words(unit, needed, _limits(entries, "" if unit == "user" else f"{unit}_id", low, high))
            key = f" and w_{unit}.key = e.{unit}_id" if unit != "user" else ""
            joins += f" left join words_{unit} w_{unit} on w_{unit}.user_id = e.user_id{key}"
        for unit, sums in wanted.items():
            key = "cast(null as varchar)" if unit == "user" else f"{unit}_id"
            ours = [features[name] for name in dict.fromkeys(name for name, _, _ in sums.values())]
            rows = self.rows.daily(unit, ours)
            asked = f"select user_id, {key} as key, day from {entries} e"
            if unit == "user" and not self.only and {signal.entry for signal in signals} == {Entry("user_day")}:
                asked, rows = None, self.rows.daily(unit, list(dict.fromkeys([*ours, TOUCHED])))
            self.con.execute(f"create or replace temp table sums_{unit} as {range_sums(unit, asked, rows, sums)}")
            if "sums" in has:  # the entries are the days that were summed
                continue
            same = f" and s_{unit}.key = e.{unit}_id" if unit != "user" else ""
            joins += f" left join sums_{unit} s_{unit} on s_{unit}.user_id = e.user_id and s_{unit}.day = e.day{same}"
        for (unit, name, days, low, high), alias in habits.items():
            ours = [key for key in habits if key[0] == unit]
            table, needed = f"words_{unit}", list(dict.fromkeys(features[key[1]] for key in ours))
            if not set(needed) <= set(self._words.get(unit, [])):
                table = f"habits_{unit}"  # of these entries' users, with the days of all that ask
                if ours[0] == (unit, name, days, low, high):
                    limits = _limits(entries, "", min(key[3] for key in ours), max(key[4] for key in ours))
                    self._create_words(unit, needed, limits, table, by_key=False)
            place = f"(e.day - {self.calendar.base})"
            counted = count_days(unit, name, f"{place} + ({low})", f"{place} + ({high})", self.calendar)
            asked = f"(select distinct user_id, day from {entries}) e join {table} using (user_id)"
            joins += f""" left join (select user_id, day, count(*) as total from {asked}
                where key is not null and {counted} >= {days} group by all) {alias} on {alias}.user_id = e.user_id and {alias}.day = e.day"""
        return columns, joins

    def _value(self, signal: Signal, at: dict[str, str]) -> str:
        """SQL of the columns of one signal, given that of its parts."""
        measure, name, (low, high) = signal.measure, f'"{signal.label}"', signal.window
        mature = f"e.day + {high + 1} <= {self.as_of_day}"
        if measure.kind == "time_to_return":
            closed = f"least(greatest({self.as_of_day} - e.day - {low}, 0), {signal.days})"
            back = f"(({at['total']}) - (e.day - {self.calendar.base}))"
            event = f"coalesce({back} < {low} + {closed}, false)"
            duration = f"case when {event} then {back} else {low - 1} + {closed} end"
            value = f"case when {mature} then cast({duration} as double) end"
            return f', {value} as {name}, cast({duration} as integer) as "{signal.label} duration", {event} as "{signal.label} event"'
        amount, more = f"({at['total']}) / {scale(feature(measure, signal.origins))}", ""
        if "per" in at:
            per = feature(measure.per, signal.origins) if measure.per is not None else None
            amount = f"{amount} / nullif(({at['per']}) / {1.0 if per is None else scale(per)}, 0)"
        if "base" in at:
            baseline = measure.baseline or 1
            covered = f"e.day - {baseline} >= {self.first_activity}"
            base = f"case when {covered} then ({at['base']}) / {scale(feature(measure, signal.origins))} * {signal.days} / {baseline} end"
            amount, more = f"{amount} - ({base})", f', {base} as "{signal.label} baseline"'
        if signal.threshold is not None:
            amount = f"case when {amount} >= {signal.threshold!r} - 1e-9 then 1.0 when {amount} is not null then 0.0 end"
        return f", case when {mature} then cast({amount} as double) end as {name}{more}"

    def _count(self, table: str) -> int:
        found = first_row(self.con, f"select count(*) from {table}")
        return 0 if found is None else int(found[0])


def _limits(entries: str, key: str, low: int, high: int) -> str:
    """SQL of (user_id, key if any, first, last): the days that windows low..high of these entries can reach."""
    named, grouped = (f"{key} as key, ", f", {key}") if key else ("", "")
    return f"select user_id, {named}min(day) + ({low}) as first, max(day) + ({high}) as last from {entries} group by user_id{grouped}"


def entry_words(entry: Entry) -> tuple[str, Feature] | None:
    """The unit and feature whose days an entry's days are; null where words do not know them."""
    if entry.kind == "discovery":
        return str(entry.of), TOUCHED
    if entry.kind in ("user_day", "enrolment"):
        return "user", TOUCHED
    if entry.kind == "event" and entry.novel_for is not None:
        return entry.of or "user", events_of(str(entry.event))
    return None


def entry_keys(entry: Entry) -> list[str]:
    """The columns that say what an entry is about."""
    return ["user_id", "item_id", "creator_id"] if entry.kind == "exposure" else ["user_id", *([f"{entry.of}_id"] if entry.of else [])]


def create_creators(con: duckdb.DuckDBPyConnection) -> None:
    """Create `creators`: item_id, creator_id as the catalogue has it, else as the item's last event does.

    Without the second a log that has no catalogue would lose every entry of the slots it showed, and call that a 0.
    """
    con.execute(
        """
        create or replace temp table creators as
        with listed as (select item_id, creator_id from items where creator_id is not null)
        select * from listed union all
        select item_id, arg_max(creator_id, (time, event_id)) as creator_id
        from events anti join listed using (item_id) where item_id is not null and creator_id is not null group by item_id
        """
    )
