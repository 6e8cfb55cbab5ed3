"""The compiler: from declarations to one table per entry with one column per signal.

Signals that are compiled together share what they can: bitmaps of a unit are built in one pass over
the rows, entries once, and signals of one entry are columns of one table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from longplay.lake.connection import Connection
from longplay.lake.daily import day_of, first_row
from longplay.signals.declare.declaration import Declaration
from longplay.signals.declare.entry import Entry, user_day
from longplay.signals.engine.beginnings import Beginnings, is_long
from longplay.signals.engine.bitmap_tables import BitmapTables
from longplay.signals.engine.calendar import BITS, Calendar
from longplay.signals.engine.day_bits import UNITS, count_bits, first_bit, with_new_days
from longplay.signals.engine.dialect import Dialect
from longplay.signals.engine.duckdb import DUCKDB, numbers, slots
from longplay.signals.engine.event_source import Rows
from longplay.signals.engine.features import Feature
from longplay.signals.engine.parts import (
    Part,
    entry_bitmap,
    entry_keys,
    is_unknown,
    opening_events,
    parts_of,
    reach_of,
)
from longplay.signals.engine.signal_values import EntriesToValue, Values

ENTRY_DAYS = "entry_days"  # the table of entries before they are joined with their values
# SQL condition that a decision enrols its user: an empty slate shows nothing
ENROLS = "experiment is not null and len(slate) > 0"
UNSURE_DAYS = 28  # a "first touch in the log" this early may be an old habit: `truncated` says so


class Compiler:
    """Computes signals in a DuckDB connection that has the views `events`, `items` and `decisions`.

    Args:
        con: the connection.
        rows: the source of daily amounts.
        as_of_day: days since 1970 of the midnight up to which windows have closed.
        days: first and last day (since 1970) that `rows` may have.
        signals: what can be computed.
        beginnings: of the log, called where they are needed.
        entered: compute only entries of these days (first, last); null: all.
        enrolled: the view `enrolled` gives every enrolment.
        adds: the tables of entries exist, and get more rows.
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
        self.con = con
        self.rows = rows
        self.as_of_day = as_of_day
        self.entered = entered
        self.enrolled = enrolled
        self.signals = signals
        self.beginnings = beginnings
        self.dialect = dialect
        self._adds = adds
        self._is_entered = ""
        if entered is not None:
            self._is_entered = f"day between {entered[0]} and {entered[1]}"
        # a given enrolment may lie in a silence, where no stretch has an era for it
        is_anywhere = enrolled and any(signal.entry.is_enrolment for signal in signals)
        stretches = beginnings().stretches if is_long(days) and not is_anywhere else ()
        self.calendar = Calendar.of(*days, reach_of(signals), stretches)
        self.bitmaps = BitmapTables(con, rows, self.calendar)
        self._tables = 0

    # -- tables ------------------------------------------------------------------------------------

    def compute(self) -> dict[Entry, str]:
        """Create a table per entry: user_id, the entry's keys, day, truncated, and a column per
        signal, named by its label (null while immature).

        Times to return also have `LABEL duration` and `LABEL event`, baselines `LABEL baseline`,
        entries of exposures decision_id and slot.
        """
        by_entry: dict[Entry, list[Declaration]] = {}
        for signal in self.signals:
            by_entry.setdefault(signal.entry, []).append(signal)
        self.plan_bitmaps(by_entry)
        units = {entry: self._units(entry, signals) for entry, signals in by_entry.items()}

        def largest_unit(entry: Entry) -> int:
            return max((UNITS.index(unit) for unit in units[entry]), default=-1)

        # entries of the largest tables first, so that these are dropped early
        order = sorted(by_entry, key=lambda entry: -largest_unit(entry))
        tables: dict[Entry, str] = {}
        for place, entry in enumerate(order):
            tables[entry] = self._outcomes(entry, by_entry[entry])
            self.bitmaps.drop_others(unit for later in order[place + 1 :] for unit in units[later])
        return tables

    def plan_bitmaps(self, by_entry: Mapping[Entry, Sequence[Declaration]]) -> None:
        """Plan the bitmaps of every unit that most signals need for all its users. Bitmaps that
        only few entries need are built later, for these alone."""
        needed: dict[str, dict[str, Feature]] = {}
        complete_units: set[str] = set()
        for entry, signals in by_entry.items():
            parts = self._parts(signals)
            bitmap = self._entry_bitmap(entry)
            if bitmap is not None and not (parts and self._entries_are_summed_days(entry, parts)):
                unit, feature = bitmap
                needed.setdefault(unit, {})[feature.name] = feature
                complete_units.add(unit)
            for part in parts:
                if part.reads_bitmaps or part.how == "habits":
                    needed.setdefault(part.unit, {})[part.feature.name] = part.feature
                    if part.unit == "user":
                        # one row per user: as cheap for all as for some
                        complete_units.add("user")
        self.bitmaps.plan(
            {unit: needed[unit].values() for unit in needed if unit in complete_units}
        )

    def _units(self, entry: Entry, signals: Sequence[Declaration]) -> set[str]:
        """The units whose planned bitmaps an entry and its signals may read."""
        units = {
            part.unit for part in self._parts(signals) if part.reads_bitmaps or part.how == "habits"
        }
        if (bitmap := self._entry_bitmap(entry)) is not None:
            units.add(bitmap[0])
        return units

    def _parts(self, signals: Sequence[Declaration]) -> list[Part]:
        """The parts to compute of these signals. A signal that is unknown at all entries needs
        none."""
        unknown = self._unknown(signals)
        return [part for signal in signals if signal not in unknown for part in parts_of(signal)]

    def _unknown(self, signals: Sequence[Declaration]) -> frozenset[Declaration]:
        if self.entered is None:
            return frozenset()
        first_day = self.entered[0]
        return frozenset(
            signal for signal in signals if is_unknown(signal, first_day, self.as_of_day)
        )

    def _entries_are_summed_days(self, entry: Entry, parts: Sequence[Part]) -> bool:
        """Whether entries are all active days of users, and sums over these are needed: then the
        table of sums has the entries, too."""
        is_all_days = entry == user_day() and not self._is_entered
        return is_all_days and any(part.how == "sum" for part in parts)

    def _entry_bitmap(self, entry: Entry) -> tuple[str, Feature] | None:
        return None if entry.is_enrolment and self.enrolled else entry_bitmap(entry)

    def _outcomes(self, entry: Entry, signals: list[Declaration]) -> str:
        """Create the table of one entry; its name."""
        table = f"outcomes_{self._tables}"
        self._tables += 1
        bitmap = self._entry_bitmap(entry)
        parts = self._parts(signals)
        if self._entries_are_summed_days(entry, parts):
            entries = "(select *, false as truncated from sums_user)"
            self._select_into(table, entries, entry, signals, frozenset(["sums"]))
        elif bitmap is None:
            body = self._entries_without_bitmap(entry)
            self.con.execute(f"create or replace temp table {ENTRY_DAYS} as {body}")
            self._select_into(table, ENTRY_DAYS, entry, signals)
        elif all(
            part.reads_bitmaps and self.bitmaps.has(part.unit, [part.feature]) for part in parts
        ):
            self._entries_of_bitmap(table, entry, bitmap, signals)
        else:
            self._entries_of_bitmap(ENTRY_DAYS, entry, bitmap, [])
            self._select_into(table, ENTRY_DAYS, entry, signals)
        self.con.execute(f"drop table if exists {ENTRY_DAYS}")
        return table

    # -- entries -----------------------------------------------------------------------------------

    def create_entry_days(self, entry: Entry) -> None:
        """Create the table `ENTRY_DAYS` of entries that are days set in a bitmap: user_id, keys, day,
        truncated."""
        bitmap = self._entry_bitmap(entry)
        assert bitmap is not None
        unit, feature = bitmap
        if not self.bitmaps.has(unit, [feature]):
            self.plan_bitmaps({entry: []})
        self._entries_of_bitmap(ENTRY_DAYS, entry, bitmap, [])

    def _entries_of_bitmap(
        self, table: str, entry: Entry, bitmap: tuple[str, Feature], signals: list[Declaration]
    ) -> None:
        """Create the table of entries that are days set in a bitmap, with the signals' values."""
        unit, feature = bitmap
        calendar = self.calendar
        source = self.bitmaps.table(unit)
        columns = calendar.columns(unit, feature.name)
        if entry == user_day():
            words = {word: columns[word] for word in calendar.era_words}
            days = _set_days(source, words, calendar, ", false as truncated")
            self._select_into(table, days, entry, signals, frozenset([unit]))
        elif entry.is_enrolment:
            self._enrolments(table, entry, columns, signals)
        else:
            self._new_touches(table, entry, feature, signals)

    def _enrolments(
        self, table: str, entry: Entry, columns: Sequence[str], signals: list[Declaration]
    ) -> None:
        """Create the table of each user's first experiment, else first activity.

        On a long log the entries are without bitmaps: the user's row is of the era of the first
        activity, which need not be that of the experiment.
        """
        source = self.bitmaps.table("user")
        first = f"{self.calendar.row_start} + {first_bit(columns)}"
        has = frozenset(["user"])
        if self.calendar.is_long:
            source = f"(select user_id, min({first}) as first_day from {source} group by user_id)"
            first = "first_day"
            has = frozenset[str]()
        trial = (
            f"select user_id, {day_of('min(time)')} as trial from {self.rows.decisions} where "
            f"{ENROLS} group by user_id"
        )
        enrolled = f"""(
            select * exclude (trial), coalesce(trial, {first}) as day, false as truncated
            from {source} full join ({trial}) using (user_id)
            where coalesce(trial, {first}) is not null
        )"""
        self._select_into(table, enrolled, entry, signals, has)

    def _new_touches(
        self, table: str, entry: Entry, feature: Feature, signals: list[Declaration]
    ) -> None:
        """Create the table of days with a touch and none in the days before: the first touches,
        then the others."""
        unit = entry.of or "user"
        calendar = self.calendar
        columns = calendar.columns(unit, feature.name)
        source = self._bitmaps_of_touches(unit, feature, signals)
        returns = entry.is_user_day  # a user's first active day is no return
        gap_days = entry.dormant_for if returns else entry.novel_for
        is_unsure = "false"
        if not returns:
            is_unsure = f"not {self.beginnings().covers_sql(gap_days or UNSURE_DAYS)}"
        key_as_id = f" exclude (key), key as {unit}_id" if unit != "user" else ""
        has_table = False

        def insert(days: str, truncated: str) -> None:
            nonlocal has_table
            entries = f"(select *{key_as_id}, {truncated} as truncated from {days})"
            self._select_into(
                table, entries, entry, signals, frozenset([unit]), creates=not has_table
            )
            has_table = True

        first_in_row = f"{calendar.row_start} + {first_bit(columns)}"
        touched = f"(select *, {first_in_row} as day from {source} where {_any_set(columns)})"
        if gap_days is None:
            if calendar.is_long:
                touched = (
                    f"(select *, first_day as day from {source} where first_day is not null "
                    f"and era = {calendar.era('first_day')})"
                )
            insert(touched, is_unsure)
            return
        is_later = " where day <> first_day"
        new_words = [f"c_{word}" for word in calendar.era_words]
        if calendar.step:
            rows = source
            truncated = f"day = first_day and {is_unsure}"
            is_entry = is_later if returns else ""
            columns_left = "*"
        else:
            # a row's first day is new: the days before its era are further away than any gap
            if calendar.is_long:
                first_days = f"(select * from {touched}{is_later})" if returns else touched
                insert(first_days, f"day = first_day and {is_unsure}")
            elif not returns:
                insert(touched, is_unsure)
            rows = f"(select * from {source} where {count_bits(columns)} > 1)"
            truncated = "false"
            is_entry = ""
            columns_left = _without_first_day(new_words)
        new_days = with_new_days(rows, unit, feature.name, gap_days, calendar, dialect=self.dialect)
        if not self.dialect.peels_days:
            words = dict(zip(calendar.era_words, new_words, strict=True))
            days = _set_days(f"(select {columns_left} from {new_days})", words, calendar)
            insert(f"(select * from {days}{is_entry})", truncated)
            return
        while True:  # each pass enters the first day of every row that has one left
            self.con.execute(
                f"create or replace temp table days_left as select * from (select {columns_left} "
                f"from {new_days}) where {_any_set(new_words)}"
            )
            if has_table and not self._count("days_left"):
                break
            first_left = f"{calendar.era_words[0] * BITS} + {first_bit(new_words)}"
            days = f"(select *, {calendar.row_start} + {first_left} as day from days_left)"
            insert(f"(select * from {days}{is_entry})", truncated)
            new_days = "days_left"
            columns_left = _without_first_day(new_words)
        self.con.execute("drop table days_left")

    def _bitmaps_of_touches(
        self, unit: str, feature: Feature, signals: Sequence[Declaration]
    ) -> str:
        """SQL of a unit's bitmaps of a feature and of all that these signals read; on a long log
        with the unit's `first_day`, which may lie in another era."""
        calendar = self.calendar
        features = [feature]
        for part in self._parts(signals):
            if part.unit == unit and part.reads_bitmaps and part.feature not in features:
                features.append(part.feature)
        columns = ", ".join(
            column for feature in features for column in calendar.columns(unit, feature.name)
        )
        has_key = " where key is not null" if unit != "user" else ""
        source = (
            f"(select user_id, key{calendar.era_key}, {columns} from "
            f"{self.bitmaps.table(unit)}{has_key})"
        )
        if calendar.is_long:
            first = f"{calendar.row_start} + {first_bit(calendar.columns(unit, feature.name))}"
            source = (
                f"(select *, min({first}) over (partition by user_id, key) as first_day from "
                f"{source})"
            )
        return source

    def _entries_without_bitmap(self, entry: Entry) -> str:
        """SQL of entries that are not days set in a bitmap: user_id, keys, day, truncated; of exposures
        also decision_id and slot."""
        if entry.is_slot:
            return self._slots()
        if entry.is_enrolment:
            body = f"select user_id, {day_of('time')} as day, false as truncated from enrolled"
        else:
            body = self._events(entry)
        return f"select * from ({body}) where {self._is_entered}" if self._is_entered else body

    def _slots(self) -> str:
        """SQL of a row per slot that was shown, with its item's creator."""
        slate_rows = (
            f"select user_id, decision_id, {day_of('time')} as day, {slots()} from "
            f"{self.rows.decisions}"
        )
        is_entered = f" where {self._is_entered}" if self._is_entered else ""
        return f"""
            select d.user_id, d.item_id, c.creator_id, d.decision_id,
                   cast(d.slot - 1 as integer) as slot, d.day, false as truncated
            from (select * from ({slate_rows}){is_entered}) d
            left join {self.rows.creators} c using (item_id)"""

    def _events(self, entry: Entry) -> str:
        """SQL of a row per event that opens an entry."""
        unit = entry.of or "user"
        feature = opening_events(entry)
        has_key = "key is not null" if entry.of else ""
        tests = " and ".join(filter(None, [self._is_entered, has_key]))
        rows = self.rows.daily(unit, [feature], tests)
        if not self.rows.has_pairs:  # a roll-up's row may stand for several events
            rows = f"select *, {numbers(feature.name)} from ({rows})"
        key = f", key as {unit}_id" if entry.of else ""
        return f"select user_id{key}, day, false as truncated from ({rows})"

    def _select_into(
        self,
        table: str,
        entries: str,
        entry: Entry,
        signals: list[Declaration],
        has: frozenset[str] = frozenset(),
        creates: bool = True,
    ) -> None:
        """Write entries into a table, joined with the values of signals.

        Args:
            table: its name.
            entries: SQL with user_id, keys, day, truncated, and the bitmaps of the units in `has`.
            entry: what opened the entries.
            signals: whose values are wanted.
            has: see `EntriesToValue.has`.
            creates: create the table; else add to it.
        """
        if self._is_entered:
            entries = f"(select * from {entries} where {self._is_entered})"
        values = self.values(entries, signals, has)
        keys = entry_keys(entry)
        slot = ", decision_id, slot" if entry.is_slot else ""
        day = "cast(day as integer) as day"  # over many years it is computed from a wider number
        body = (
            f"select {', '.join(keys)}{slot}, {day}, truncated{values.columns} from {values.source}"
        )
        if table != ENTRY_DAYS:
            body = self.rows.with_log_ids(body, keys)
            creates = creates and not self._adds
        if creates:
            self.con.execute(f"create or replace temp table {table} as {body}")
        else:
            self.con.execute(f"insert into {table} {body}")

    def values(
        self, entries: str, signals: Sequence[Declaration], has: frozenset[str] = frozenset()
    ) -> Values:
        """The SQL of signals' values at `entries`; see `EntriesToValue`."""
        request = EntriesToValue(
            entries,
            signals,
            self.as_of_day,
            self.beginnings,
            has,
            self._unknown(signals),
            is_all=not self._is_entered,
        )
        return Values(self.con, self.bitmaps, request, self.dialect)

    def _count(self, table: str) -> int:
        row = first_row(self.con, f"select count(*) from {table}")
        return 0 if row is None else int(row[0])


def _set_days(table: str, words: Mapping[int, str], calendar: Calendar, columns: str = "") -> str:
    """SQL of the rows of `table`, each repeated for every day that is set in its words.

    Args:
        table: SQL of a table of bitmaps.
        words: number of a word -> its column.
        calendar: of the bitmaps.
        columns: SQL of further columns, with a comma before it.
    """
    numbers_of_words = list(words)
    whens = " ".join(f"when {word} then {column}" for word, column in words.items())
    places = numbers(numbers_of_words[0] * BITS, numbers_of_words[-1] * BITS + BITS)
    return f"""(
        select w.*, {calendar.row_start} + place as day{columns}
        from {table} w cross join (select cast({places} as integer) as place)
        where ((case place // {BITS} {whens} end) >> (place % {BITS})) & 1 = 1
    )"""


def _any_set(words: Sequence[str]) -> str:
    """SQL condition that some day is set in these words."""
    return f"{' | '.join(words)} <> 0"


def _without_first_day(words: Sequence[str]) -> str:
    """SQL of all columns, with the first day that is set in these words set to 0.

    >>> _without_first_day(["c_0"])
    '* replace (case when 0 = 0 then c_0 & (c_0 - 1) else c_0 end as c_0)'
    """
    replaced = []
    for place, word in enumerate(words):
        earlier_days = " | ".join(words[:place]) or "0"
        cleared = f"case when {earlier_days} = 0 then {word} & ({word} - 1) else {word} end"
        replaced.append(f"{cleared} as {word}")
    return f"* replace ({', '.join(replaced)})"
