"""Signals compiled to DuckDB: one table per entry, one column per signal, from words of days and sums over days.

All signals given at once share what they can: words of a unit are built in one pass over the rows, entries once, and
signals of one entry are columns of one table.
"""

from __future__ import annotations

from collections.abc import Sequence

import duckdb

from longplay.lake.daily import day_of, first_row
from longplay.signals.bitmaps import Bitmaps
from longplay.signals.entry import Entry
from longplay.signals.operators import BITS, TOUCHED, UNITS, Calendar, Feature, events_of, first_bit, how_many, smear
from longplay.signals.parts import Part, entry_keys, entry_words, is_unknown, parts_of
from longplay.signals.rows import Rows
from longplay.signals.signal import Signal
from longplay.signals.values import Asked, Values

FOUND = "found"  # the table of entries that are joined with their values next
ENROLS = "experiment is not null and len(slate) > 0"  # SQL of whether a decision enrols: an empty slate shows nothing
UNSURE_DAYS = 28  # a "first touch in the log" this early may be an old habit: `truncated` says so


class Compiler:
    """Computes signals in a DuckDB connection that has the views `events`, `items` and `decisions`.

    Args:
        rows: where daily amounts come from. as_of_day: days since 1970 of the midnight up to which windows have closed.
        days: first and last day (since 1970) that `rows` may have. entered: compute only entries of these days (first, last).
        enrolled: a view of that name gives every enrolment. first_activity: day of the log's first activity, where `rows` do not reach so far back.
        adds: the tables of entries are there, and get more rows.
    """

    def __init__(
        self,
        con: duckdb.DuckDBPyConnection,
        rows: Rows,
        as_of_day: int,
        days: tuple[int, int],
        entered: tuple[int, int] | None = None,
        enrolled: bool = False,
        first_activity: int | None = None,
        adds: bool = False,
    ) -> None:
        self.con, self.rows, self.as_of_day, self.entered, self.enrolled = con, rows, as_of_day, entered, enrolled
        self.only = "" if entered is None else f"day between {entered[0]} and {entered[1]}"
        self.calendar = Calendar.of(*days)
        self._first_activity, self._adds = first_activity, adds
        self.bitmaps = Bitmaps(con, rows, self.calendar)
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
        self.plan_words(by_entry)
        units = {entry: self._units(entry, ours) for entry, ours in by_entry.items()}
        order = sorted(by_entry, key=lambda entry: -max((UNITS.index(unit) for unit in units[entry]), default=-1))  # the largest tables go first
        made: dict[Entry, str] = {}
        for done, entry in enumerate(order):
            made[entry] = self._outcomes(entry, by_entry[entry])
            self.bitmaps.keep(unit for later in order[done + 1 :] for unit in units[later])
        return made

    def plan_words(self, by_entry: dict[Entry, list[Signal]]) -> None:
        """Plan `words_UNIT` of every unit whose words most signals need; what only a few entries ask comes later, for them alone."""
        needed: dict[str, dict[str, Feature]] = {}
        full: set[str] = set()
        for entry, signals in by_entry.items():
            parts = self._parts(signals)
            if (found := self._entry_words(entry)) is not None and not (parts and self._sums_of_days(entry, parts)):
                unit, one = found
                needed.setdefault(unit, {})[one.name] = one
                full.add(unit)
            for part in parts:
                if part.in_words or part.how == "habits":
                    needed.setdefault(part.unit, {})[part.feature.name] = part.feature
                    if part.unit == "user":
                        full.add("user")  # one row per user: as cheap for all as for some
        self.bitmaps.plan({unit: features.values() for unit, features in needed.items() if unit in full})

    def _units(self, entry: Entry, signals: Sequence[Signal]) -> set[str]:
        """The units whose planned words an entry and its signals may ask."""
        found = self._entry_words(entry)
        return ({found[0]} if found is not None else set()) | {part.unit for part in self._parts(signals) if part.in_words or part.how == "habits"}

    def _parts(self, signals: Sequence[Signal]) -> list[Part]:
        """What has to be known of these signals; nothing of those that none of the entries asked for can know yet."""
        unknown = self._unknown(signals)
        return [part for signal in signals if signal not in unknown for part in parts_of(signal)]

    def _unknown(self, signals: Sequence[Signal]) -> frozenset[Signal]:
        return frozenset(one for one in signals if self.entered is not None and is_unknown(one, self.entered[0], self.as_of_day))

    @property
    def first_activity(self) -> int:
        """Day of the log's first activity; the last day of all where there is none."""
        if self._first_activity is None:
            found = self.bitmaps.first_activity()
            if found is None:
                row = first_row(self.con, f"select min(day) from ({self.rows.daily('user', [TOUCHED])})")
                found = self.as_of_day if row is None or row[0] is None else int(row[0])
            self._first_activity = found
        return self._first_activity

    def _sums_of_days(self, entry: Entry, parts: Sequence[Part]) -> bool:
        """Whether entries are the user's active days and sums over these are asked: one table has both."""
        return entry == Entry("user_day") and not self.only and any(part.how == "sum" for part in parts)

    def _entry_words(self, entry: Entry) -> tuple[str, Feature] | None:
        return None if entry.kind == "enrolment" and self.enrolled else entry_words(entry)

    def _outcomes(self, entry: Entry, signals: list[Signal]) -> str:
        """The table of one entry."""
        table = f"outcomes_{self._made}"
        self._made += 1
        found = self._entry_words(entry)
        parts = self._parts(signals)
        fused = found is not None and all(part.in_words and self.bitmaps.has(part.unit, [part.feature]) for part in parts)
        keys = ", ".join(entry_keys(entry))
        if self._sums_of_days(entry, parts):
            self._select_into(table, "(select *, false as truncated from sums_user)", keys, entry, signals, frozenset(["sums"]))
        elif found is None:
            self.con.execute(f"create or replace temp table {FOUND} as {self._other_entries(entry)}")
            self._select_into(table, FOUND, keys, entry, signals, frozenset())
        elif fused:
            self._from_words(table, entry, found, signals)
        else:
            self._from_words(FOUND, entry, found, [])
            self._select_into(table, FOUND, keys, entry, signals, frozenset())
        self.con.execute(f"drop table if exists {FOUND}")
        return table

    # -- entries ---------------------------------------------------------------------------------

    def find(self, entry: Entry, table: str) -> None:
        """Create `table` of an entry that words know: user_id, keys, day, truncated."""
        found = self._entry_words(entry)
        assert found is not None
        if not self.bitmaps.has(found[0], [found[1]]):
            self.plan_words({entry: []})
        self._from_words(table, entry, found, [])

    def _from_words(self, table: str, entry: Entry, found: tuple[str, Feature], signals: list[Signal]) -> None:
        """Entries that are bits of their unit's words, with the values that words can tell."""
        unit, one = found
        keys, calendar, base = ", ".join(entry_keys(entry)), self.calendar, self.calendar.base
        of_unit, columns = self.bitmaps.table(unit), calendar.columns(unit, one.name)
        if entry.kind == "user_day" and entry.dormant_for is None:
            bit = " ".join(f"when {block} then {column}" for block, column in enumerate(columns))
            every = f"""(select w.*, {base} + place as day, false as truncated
                from {of_unit} w cross join (select cast(unnest(range({calendar.blocks * BITS})) as integer) as place)
                where ((case place // {BITS} {bit} end) >> (place % {BITS})) & 1 = 1)"""
            self._select_into(table, every, keys, entry, signals, frozenset([unit]))
            return
        if entry.kind == "enrolment":
            first = f"{base} + {first_bit(columns)}"
            trial = f"select user_id, {day_of('min(time)')} as trial from {self.rows.decisions} where {ENROLS} group by user_id"
            enrolled = f"""(select * exclude (trial), coalesce(trial, {first}) as day, false as truncated
                from {of_unit} full join ({trial}) using (user_id)
                where coalesce(trial, {first}) is not null)"""
            self._select_into(table, enrolled, keys, entry, signals, frozenset([unit]))
            return
        needed = dict.fromkeys([one, *(part.feature for part in self._parts(signals) if part.unit == unit and part.in_words)])
        read = ", ".join(column for feature in needed for column in calendar.columns(unit, feature.name))
        seen = f"(select user_id, key, {read} from {of_unit}{' where key is not null' if unit != 'user' else ''})"
        key, day = f" exclude (key), key as {keys.split(', ')[1]}" if unit != "user" else "", f"{base} + place as day"
        gap, first = entry.novel_for if entry.kind != "user_day" else entry.dormant_for, True
        if entry.kind != "user_day":  # the first touch of all; a first active day is no return
            placed = f"(select *, {first_bit(columns)} as place from {seen} where {' | '.join(columns)} <> 0)"
            unsure = f"{base} + place < {self.first_activity + (gap or UNSURE_DAYS)} as truncated"
            self._select_into(table, f"(select *{key}, {day}, {unsure} from {placed})", keys, entry, signals, frozenset([unit]))
            first = False
            if gap is None:
                return
        left = [f"c_{block}" for block in range(calendar.blocks)]  # days still to be entered; where there is more than one day, the first is gone
        peeled = ", ".join(
            f"case when {' | '.join(left[:block]) or '0'} = 0 then {word} & ({word} - 1) else {word} end as {word}" for block, word in enumerate(left)
        )
        source, any_left = smear(f"(select * from {seen} where {how_many(columns)} > 1)", unit, one.name, gap, calendar), f"{' | '.join(left)} <> 0"
        while True:
            self.con.execute(f"create or replace temp table fresh as select * from (select * replace ({peeled}) from {source}) where {any_left}")
            if not first and not self._count("fresh"):
                break
            placed = f"(select *, {first_bit(left)} as place from fresh)"
            self._select_into(table, f"(select *{key}, {day}, false as truncated from {placed})", keys, entry, signals, frozenset([unit]), first)
            source, first = "fresh", False
        self.con.execute("drop table fresh")

    def _other_entries(self, entry: Entry) -> str:
        """SQL of entries that words do not know: (user_id, keys, day, truncated) or, of exposures, slots."""
        if entry.kind == "exposure":
            only = f" where {self.only}" if self.only else ""
            place = "unnest(slate) as item_id, generate_subscripts(slate, 1) as slot"
            slots = f"select user_id, decision_id, {day_of('time')} as day, {place} from {self.rows.decisions}"
            return f"""select d.user_id, d.item_id, c.creator_id, d.decision_id, cast(d.slot - 1 as integer) as slot, d.day, false as truncated
                from (select * from ({slots}){only}) d left join {self.rows.creators} c using (item_id)"""
        if entry.kind == "enrolment":
            body = f"select user_id, {day_of('time')} as day, false as truncated from enrolled"
        else:  # every event of a kind
            unit = entry.of or "user"
            key = f", key as {unit}_id" if entry.of else ""
            one = events_of(str(entry.event))
            rows = self.rows.daily(unit, [one], " and ".join(filter(None, [self.only, "key is not null" if entry.of else ""])))
            each = rows if self.rows.whole else f"select *, unnest(range({one.name})) from ({rows})"  # a roll-up's row may stand for several
            body = f"select user_id{key}, day, false as truncated from ({each})"
        return f"select * from ({body}) where {self.only}" if self.only else body

    def _select_into(self, table: str, entries: str, keys: str, entry: Entry, signals: list[Signal], has: frozenset[str], first: bool = True) -> None:
        """Create (or, not `first`, add to) `table` from entries, joined with what the signals' values need.

        Args:
            entries: SQL with user_id, keys, day, truncated, and the words of the units in `has`; "sums": it is the table of sums.
        """
        more = ", decision_id, slot" if entry.kind == "exposure" else ""
        if self.only:
            entries = f"(select * from {entries} where {self.only})"
        values = self.values(entries, signals, has)
        body = f"select {keys}{more}, day, truncated{values.columns} from {values.source}"
        if table != FOUND:
            body, first = self.rows.named(body, keys.split(", ")), first and not self._adds
        self.con.execute(f"create or replace temp table {table} as {body}" if first else f"insert into {table} {body}")

    def values(self, entries: str, signals: Sequence[Signal], has: frozenset[str] = frozenset()) -> Values:
        """What to select the signals' values at `entries` from; see `Asked`."""
        asked = Asked(entries, signals, self.as_of_day, lambda: self.first_activity, has, self._unknown(signals), whole=not self.only)
        return Values(self.con, self.bitmaps, asked)

    def _count(self, table: str) -> int:
        found = first_row(self.con, f"select count(*) from {table}")
        return 0 if found is None else int(found[0])


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
