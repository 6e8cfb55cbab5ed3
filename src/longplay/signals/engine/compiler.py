"""The compiler: from declarations to one table per entry with one column per signal.

All signals given at once share what they can: words of a unit are built in one pass over the rows,
entries once, and signals of one entry are columns of one table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from longplay.lake.connection import Connection
from longplay.lake.daily import day_of, first_row
from longplay.signals.declare.declaration import Declaration
from longplay.signals.declare.entry import Entry, user_day
from longplay.signals.engine.beginnings import Beginnings, is_long
from longplay.signals.engine.day_bits import Bitmaps
from longplay.signals.engine.dialect import Dialect
from longplay.signals.engine.duckdb import DUCKDB, numbers, slots
from longplay.signals.engine.event_source import Rows
from longplay.signals.engine.operators import (
    BITS,
    UNITS,
    Calendar,
    Feature,
    first_bit,
    how_many,
    smear,
)
from longplay.signals.engine.parts import (
    Part,
    entry_keys,
    entry_words,
    is_unknown,
    opening_events,
    parts_of,
    reach_of,
)
from longplay.signals.engine.signal_values import Asked, Values

FOUND = "found"  # the table of entries that are joined with their values next
# SQL of whether a decision enrols: an empty slate shows nothing
ENROLS = "experiment is not null and len(slate) > 0"
UNSURE_DAYS = 28  # a "first touch in the log" this early may be an old habit: `truncated` says so


class Compiler:
    """Computes signals in a DuckDB connection that has the views `events`, `items` and `decisions`.

    Args:
        con: the connection.
        rows: where daily amounts come from.
        as_of_day: days since 1970 of the midnight up to which windows have closed.
        days: first and last day (since 1970) that `rows` may have.
        signals: what may be asked.
        beginnings: of the log, called where they are needed.
        entered: compute only entries of these days (first, last).
        enrolled: a view of that name gives every enrolment.
        adds: the tables of entries are there, and get more rows.
        dialect: of the engine that `con` belongs to.
    """

    def __init__(
        self,
        con: Connection,
        rows: Rows,
        as_of_day: int,
        days: tuple[int, int],
        signals: Sequence[Declaration],
        beginnings: Callable[[], Beginnings],
        entered: tuple[int, int] | None = None,
        enrolled: bool = False,
        adds: bool = False,
        dialect: Dialect = DUCKDB.dialect,
    ) -> None:
        self.con, self.rows, self.as_of_day, self.entered, self.enrolled = (
            con,
            rows,
            as_of_day,
            entered,
            enrolled,
        )
        self.only = "" if entered is None else f"day between {entered[0]} and {entered[1]}"
        self.signals = signals
        self.beginnings = beginnings
        self.dialect = dialect
        self._adds = adds
        any_day = enrolled and any(
            signal.entry.is_enrolment for signal in signals
        )  # also in a silence, which no stretch answers
        stretches = beginnings().stretches if is_long(days) and not any_day else ()
        self.calendar = Calendar.of(*days, reach_of(signals), stretches)
        self.bitmaps = Bitmaps(con, rows, self.calendar)
        self._made = 0

    # -- tables ----------------------------------------------------------------------------------

    def compute(self) -> dict[Entry, str]:
        """A table per entry: user_id, the entry's keys, day, truncated, and per signal a column of
        its label (null while immature).

        With `LABEL duration` and `LABEL event` for times to return, `LABEL baseline` for baselines.
        Entries of exposures also have decision_id and slot.
        """
        by_entry: dict[Entry, list[Declaration]] = {}
        for signal in self.signals:
            by_entry.setdefault(signal.entry, []).append(signal)
        self.plan_words(by_entry)
        units = {entry: self._units(entry, ours) for entry, ours in by_entry.items()}
        order = sorted(
            by_entry,
            key=lambda entry: -max((UNITS.index(unit) for unit in units[entry]), default=-1),
        )  # the largest tables go first
        made: dict[Entry, str] = {}
        for done, entry in enumerate(order):
            made[entry] = self._outcomes(entry, by_entry[entry])
            self.bitmaps.keep(unit for later in order[done + 1 :] for unit in units[later])
        return made

    def plan_words(self, by_entry: dict[Entry, list[Declaration]]) -> None:
        """Plan `words_UNIT` of every unit whose words most signals need; what only a few entries
        ask comes later, for them alone."""
        needed: dict[str, dict[str, Feature]] = {}
        full: set[str] = set()
        for entry, signals in by_entry.items():
            parts = self._parts(signals)
            if (found := self._entry_words(entry)) is not None and not (
                parts and self._sums_of_days(entry, parts)
            ):
                unit, one = found
                needed.setdefault(unit, {})[one.name] = one
                full.add(unit)
            for part in parts:
                if part.in_words or part.how == "habits":
                    needed.setdefault(part.unit, {})[part.feature.name] = part.feature
                    if part.unit == "user":
                        full.add("user")  # one row per user: as cheap for all as for some
        self.bitmaps.plan(
            {unit: features.values() for unit, features in needed.items() if unit in full}
        )

    def _units(self, entry: Entry, signals: Sequence[Declaration]) -> set[str]:
        """The units whose planned words an entry and its signals may ask."""
        found = self._entry_words(entry)
        return ({found[0]} if found is not None else set()) | {
            part.unit for part in self._parts(signals) if part.in_words or part.how == "habits"
        }

    def _parts(self, signals: Sequence[Declaration]) -> list[Part]:
        """What has to be known of these signals; nothing of those that none of the entries asked
        for can know yet."""
        unknown = self._unknown(signals)
        return [part for signal in signals if signal not in unknown for part in parts_of(signal)]

    def _unknown(self, signals: Sequence[Declaration]) -> frozenset[Declaration]:
        return frozenset(
            one
            for one in signals
            if self.entered is not None and is_unknown(one, self.entered[0], self.as_of_day)
        )

    def _sums_of_days(self, entry: Entry, parts: Sequence[Part]) -> bool:
        """Whether entries are the user's active days and sums over these are asked: one table has
        both."""
        return entry == user_day() and not self.only and any(part.how == "sum" for part in parts)

    def _entry_words(self, entry: Entry) -> tuple[str, Feature] | None:
        return None if entry.is_enrolment and self.enrolled else entry_words(entry)

    def _outcomes(self, entry: Entry, signals: list[Declaration]) -> str:
        """The table of one entry."""
        table = f"outcomes_{self._made}"
        self._made += 1
        found = self._entry_words(entry)
        parts = self._parts(signals)
        fused = found is not None and all(
            part.in_words and self.bitmaps.has(part.unit, [part.feature]) for part in parts
        )
        keys = ", ".join(entry_keys(entry))
        if self._sums_of_days(entry, parts):
            self._select_into(
                table,
                "(select *, false as truncated from sums_user)",
                keys,
                entry,
                signals,
                frozenset(["sums"]),
            )
        elif found is None:
            self.con.execute(
                f"create or replace temp table {FOUND} as {self._other_entries(entry)}"
            )
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

    def _from_words(
        self, table: str, entry: Entry, found: tuple[str, Feature], signals: list[Declaration]
    ) -> None:
        """Entries that are bits of their unit's words, with the values that words can tell."""
        unit, one = found
        keys, calendar = ", ".join(entry_keys(entry)), self.calendar
        of_unit, columns = self.bitmaps.table(unit), calendar.columns(unit, one.name)
        if entry == user_day():
            words = {block: columns[block] for block in calendar.own_blocks}
            every = _set_days(of_unit, words, calendar, ", false as truncated")
            self._select_into(table, every, keys, entry, signals, frozenset([unit]))
        elif entry.is_enrolment:
            self._enrolments(table, entry, columns, signals)
        else:
            self._new_touches(table, entry, one, signals)

    def _enrolments(
        self, table: str, entry: Entry, columns: Sequence[str], signals: list[Declaration]
    ) -> None:
        """Each user's first trial, else first activity; of a long log without the words, which are
        of the era of the first activity."""
        words, has = self.bitmaps.table("user"), frozenset(["user"])
        first = f"{self.calendar.row_start} + {first_bit(columns)}"
        if self.calendar.long:
            words = f"(select user_id, min({first}) as first_day from {words} group by user_id)"
            first, has = "first_day", frozenset[str]()
        trial = (
            f"select user_id, {day_of('min(time)')} as trial from {self.rows.decisions} where "
            f"{ENROLS} group by user_id"
        )
        enrolled = f"""(select * exclude (trial), coalesce(trial, {first}) as day, false as truncated
            from {words} full join ({trial}) using (user_id)
            where coalesce(trial, {first}) is not null)"""
        self._select_into(
            table,
            enrolled,
            keys=", ".join(entry_keys(entry)),
            entry=entry,
            signals=signals,
            has=has,
        )

    def _new_touches(
        self, table: str, entry: Entry, one: Feature, signals: list[Declaration]
    ) -> None:
        """Days with a touch and none in the days before: the first of all, then the others; of a
        long log era by era."""
        unit = entry.of or "user"
        keys, calendar = ", ".join(entry_keys(entry)), self.calendar
        of_unit, columns = self.bitmaps.table(unit), calendar.columns(unit, one.name)
        start = calendar.row_start
        needed = dict.fromkeys(
            [
                one,
                *(
                    part.feature
                    for part in self._parts(signals)
                    if part.unit == unit and part.in_words
                ),
            ]
        )
        read = ", ".join(
            column for feature in needed for column in calendar.columns(unit, feature.name)
        )
        seen = (
            f"(select user_id, key{calendar.era_key}, {read} from "
            f"{of_unit}{' where key is not null' if unit != 'user' else ''})"
        )
        key = f" exclude (key), key as {keys.split(', ')[1]}" if unit != "user" else ""
        returns = entry.is_user_day  # a first active day is no return
        gap = entry.dormant_for if returns else entry.novel_for
        unsure = "false" if returns else f"not {self.beginnings().covers_sql(gap or UNSURE_DAYS)}"
        left = [f"c_{block}" for block in calendar.own_blocks]  # days still to be entered

        def insert(days: str, truncated: str, first: bool) -> None:
            self._select_into(
                table,
                f"(select *{key}, {truncated} as truncated from {days})",
                keys,
                entry,
                signals,
                frozenset([unit]),
                first,
            )

        if calendar.long:  # the first of all may lie in another era
            seen = (
                f"(select *, min({start} + {first_bit(columns)}) over (partition by user_id, "
                f"key) as first_day from {seen})"
            )
        touched = (
            f"(select *, {start} + {first_bit(columns)} as day from {seen} where "
            f"{' | '.join(columns)} <> 0)"
        )
        if gap is None:
            first_of_all = (
                f"(select *, first_day as day from {seen} where first_day is not null "
                f"and era = {calendar.era('first_day')})"
            )
            insert(first_of_all if calendar.long else touched, unsure, first=True)
            return
        days = ""
        if calendar.step:
            truncated, days = (
                f"day = first_day and {unsure}",
                " where day <> first_day" if returns else "",
            )
            source, remaining = (
                smear(seen, unit, one.name, gap, calendar, dialect=self.dialect),
                "*",
            )
            first = True
        else:  # a row's first day is new: what lies before its era lies further back than any gap
            first = returns and not calendar.long
            if calendar.long:
                insert(
                    f"(select * from {touched} where day <> first_day)" if returns else touched,
                    f"day = first_day and {unsure}",
                    first=True,
                )
            elif not returns:
                insert(touched, unsure, first=True)
            truncated = "false"
            source, remaining = (
                smear(
                    f"(select * from {seen} where {how_many(columns)} > 1)",
                    unit,
                    one.name,
                    gap,
                    calendar,
                    dialect=self.dialect,
                ),
                _peeled(left),
            )
        if not self.dialect.peels_days:
            words = dict(zip(calendar.own_blocks, left, strict=True))
            placed = _set_days(f"(select {remaining} from {source})", words, calendar)
            insert(f"(select * from {placed}{days})", truncated, first)
            return
        while True:
            self.con.execute(
                f"create or replace temp table fresh as select * from (select {remaining} from "
                f"{source}) where {' | '.join(left)} <> 0"
            )
            if not first and not self._count("fresh"):
                break
            placed = f"(select *, {start} + {_first_left(left, calendar)} as day from fresh)"
            insert(f"(select * from {placed}{days})", truncated, first)
            source, first, remaining = "fresh", False, _peeled(left)
        self.con.execute("drop table fresh")

    def _other_entries(self, entry: Entry) -> str:
        """SQL of entries that words do not know: (user_id, keys, day, truncated) or, of exposures,
        slots."""
        if entry.is_slot:
            only = f" where {self.only}" if self.only else ""
            shown = (
                f"select user_id, decision_id, {day_of('time')} as day, {slots()} from "
                f"{self.rows.decisions}"
            )
            return f"""select d.user_id, d.item_id, c.creator_id, d.decision_id, cast(d.slot - 1 as integer) as slot, d.day, false as truncated
                from (select * from ({shown}){only}) d left join {self.rows.creators} c using (item_id)"""
        if entry.is_enrolment:
            body = f"select user_id, {day_of('time')} as day, false as truncated from enrolled"
        else:  # every event of a kind
            unit = entry.of or "user"
            key = f", key as {unit}_id" if entry.of else ""
            one = opening_events(entry)
            rows = self.rows.daily(
                unit,
                [one],
                " and ".join(filter(None, [self.only, "key is not null" if entry.of else ""])),
            )
            each = (
                rows if self.rows.whole else f"select *, {numbers(one.name)} from ({rows})"
            )  # a roll-up's row may stand for several
            body = f"select user_id{key}, day, false as truncated from ({each})"
        return f"select * from ({body}) where {self.only}" if self.only else body

    def _select_into(
        self,
        table: str,
        entries: str,
        keys: str,
        entry: Entry,
        signals: list[Declaration],
        has: frozenset[str],
        first: bool = True,
    ) -> None:
        """Create (or, not `first`, add to) `table` from entries, joined with what the signals'
        values need.

        Args:
            entries: SQL with user_id, keys, day, truncated, and the words of the units in `has`;
                "sums": it is the table of sums.
        """
        more = ", decision_id, slot" if entry.is_slot else ""
        if self.only:
            entries = f"(select * from {entries} where {self.only})"
        values = self.values(entries, signals, has)
        day = "cast(day as integer) as day"  # over many years it is computed from a wider number
        body = f"select {keys}{more}, {day}, truncated{values.columns} from {values.source}"
        if table != FOUND:
            body, first = self.rows.named(body, keys.split(", ")), first and not self._adds
        self.con.execute(
            f"create or replace temp table {table} as {body}"
            if first
            else f"insert into {table} {body}"
        )

    def values(
        self, entries: str, signals: Sequence[Declaration], has: frozenset[str] = frozenset()
    ) -> Values:
        """What to select the signals' values at `entries` from; see `Asked`."""
        asked = Asked(
            entries,
            signals,
            self.as_of_day,
            self.beginnings,
            has,
            self._unknown(signals),
            whole=not self.only,
        )
        return Values(self.con, self.bitmaps, asked, self.dialect)

    def _count(self, table: str) -> int:
        found = first_row(self.con, f"select count(*) from {table}")
        return 0 if found is None else int(found[0])


def _set_days(table: str, words: Mapping[int, str], calendar: Calendar, more: str = "") -> str:
    """SQL of the rows of `table`, each once for every day that is set in its words.

    Args:
        table: SQL of a table of words.
        words: block -> its column.
        calendar: of the words.
        more: SQL of further columns, with a comma before it.
    """
    blocks = list(words)
    bit = " ".join(f"when {block} then {column}" for block, column in words.items())
    places = numbers(blocks[0] * BITS, blocks[-1] * BITS + BITS)
    return f"""(select w.*, {calendar.row_start} + place as day{more}
                from {table} w cross join (select cast({places} as integer) as place)
                where ((case place // {BITS} {bit} end) >> (place % {BITS})) & 1 = 1)"""


def _peeled(left: Sequence[str]) -> str:
    """SQL of all columns, without the first day that is set in these words."""
    peeled = ", ".join(
        f"case when {' | '.join(left[:place]) or '0'} = 0 then {word} & ({word} - 1) else {word} "
        f"end as {word}"
        for place, word in enumerate(left)
    )
    return f"* replace ({peeled})"


def _first_left(left: Sequence[str], calendar: Calendar) -> str:
    """SQL of the place in its row of the first day that is set in the words of an era's own
    days."""
    return f"{calendar.own_blocks[0] * BITS} + {first_bit(left)}"
