"""SQL that computes the values of signals at their entries."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from longplay.lake.connection import Connection
from longplay.signals.declare.declaration import SLACK, Declaration
from longplay.signals.declare.entry import user_day
from longplay.signals.engine.beginnings import Beginnings
from longplay.signals.engine.bitmap_tables import BitmapTables
from longplay.signals.engine.calendar import BITS
from longplay.signals.engine.day_bits import (
    aligned_word,
    alignment_sql,
    count_days,
    count_weeks,
    first_day,
)
from longplay.signals.engine.dialect import Dialect
from longplay.signals.engine.duckdb import DUCKDB
from longplay.signals.engine.event_source import always_active
from longplay.signals.engine.features import SESSIONS, TOUCHED, Feature, divisor_of, feature_of
from longplay.signals.engine.parts import Part, may_lack_creator, parts_of
from longplay.signals.engine.range_sums import range_sums


@dataclass(frozen=True)
class EntriesToValue:
    """Entries, and the signals whose values are wanted at them.

    Attributes:
        entries: SQL with user_id, keys, day, and the bitmaps of the units in `has`.
        signals: to be valued at these entries.
        as_of_day: days since 1970 of the midnight up to which windows have closed.
        beginnings: of the log, called where they are needed.
        has: units whose bitmaps the entries have; with "sums" the entries are the rows of the table
            `sums_user`.
        unknown: signals of which none of these entries has a value yet.
        is_all: the entries are all there are, not those of some days.
    """

    entries: str
    signals: Sequence[Declaration]
    as_of_day: int
    beginnings: Callable[[], Beginnings]
    has: frozenset[str] = frozenset()
    unknown: frozenset[Declaration] = frozenset()
    is_all: bool = True


class Values:
    """SQL of signals' values at their entries: `columns`, each with a comma before it, and the
    `source` to select them and the entries' own columns from.

    Creates the tables that it reads: `near_UNIT` and `habits_UNIT` (bitmaps for these entries
    alone, of units that are not planned) and `sums_UNIT`.
    """

    def __init__(
        self,
        con: Connection,
        bitmaps: BitmapTables,
        request: EntriesToValue,
        dialect: Dialect = DUCKDB.dialect,
    ) -> None:
        self.con = con
        self.bitmaps = bitmaps
        self.request = request
        self.dialect = dialect
        self._source_columns = ["e.*"]
        self._joins = ""
        self._part_sql = dict[Part, str]()
        parts = [
            _without_role(part)
            for signal in request.signals
            if signal not in request.unknown
            for part in parts_of(signal)
        ]
        bitmap_parts = [part for part in parts if part.reads_bitmaps]
        if bitmap_parts:
            self._join_bitmaps(bitmap_parts)
        for unit in _units(part for part in parts if part.how == "sum"):
            self._join_sums(unit, _parts_of_unit(unit, "sum", parts))
        for unit in _units(part for part in parts if part.how == "habits"):
            self._join_habits(unit, _parts_of_unit(unit, "habits", parts))
        columns = ", ".join(self._source_columns)
        self.source = f"(select {columns} from {request.entries} e{self._joins})"
        if bitmap_parts:
            self.source = self._with_aligned_words(self.source, bitmap_parts)
        self.columns = "".join(self._value(signal) for signal in request.signals)

    def _join_bitmaps(self, parts: Sequence[Part]) -> None:
        """Join the bitmaps that the entries lack, and count their days."""
        low, high = _reach(parts)
        calendar = self.bitmaps.calendar
        for unit in _units(part for part in parts if part.unit not in self.request.has):
            features = list(dict.fromkeys(part.feature for part in parts if part.unit == unit))
            table = self._table(f"near_{unit}", unit, features, (low, high), by_key=unit != "user")
            same_row = f"{_same_unit(table, unit)}{calendar.same_era(table, 'e.day')}"
            self._joins += f" left join {table} on {same_row}"
            self._source_columns += [
                f"{table}.{column}"
                for feature in features
                for column in calendar.columns(unit, feature.name)
            ]
        for part in parts:
            words = _word_names(part, parts)
            answer = _BITMAP_ANSWERS[part.how](words, part.low - low, part.high - low)
            if part.how == "first":
                self._part_sql[part] = f"({answer}) + ({low})"
            else:
                self._part_sql[part] = f"coalesce({answer}, 0)"

    def _with_aligned_words(self, source: str, parts: Sequence[Part]) -> str:
        """SQL of `source` with words that begin at the first day that any part reads.

        Args:
            source: SQL of rows with the day and the bitmaps of an entry.
            parts: what the words answer.
        """
        low, _ = _reach(parts)
        calendar = self.bitmaps.calendar
        words = {
            name: aligned_word(calendar.columns(part.unit, part.feature.name), number)
            for part in parts
            for number, name in enumerate(_word_names(part, parts))
        }
        first_place = f"day - {calendar.start('day')} + ({low})"
        aligned = f"select *, {alignment_sql(first_place, calendar)} from {source}"
        columns = ", ".join(f"{word} as {name}" for name, word in words.items())
        return f"(select *, {columns} from ({aligned}))"

    def _join_sums(self, unit: str, parts: Sequence[Part]) -> None:
        """Create the table of a unit's sums, a row per distinct unit and day of the entries, and
        join it."""
        columns = {part: f"sum_{number}" for number, part in enumerate(parts)}
        features = list(dict.fromkeys(part.feature for part in parts))
        rows = self.bitmaps.rows
        key = "cast(null as varchar)" if unit == "user" else f"{unit}_id"
        days: str | None = f"select user_id, {key} as key, day from {self.request.entries} e"
        active = "true"
        if unit == "user" and self._are_all_active_days():
            days = None
            # sessions are counted on exactly the days with activity
            if not (rows.has_pairs and SESSIONS in features and always_active(features)):
                features = list(dict.fromkeys([*features, TOUCHED]))
                active = f"{TOUCHED.name} > 0"
        body = range_sums(
            unit,
            days,
            rows.daily(unit, features),
            {column: (part.feature.name, part.low, part.high) for part, column in columns.items()},
            once=SESSIONS in features and rows.has_pairs,
            active=active,
            dialect=self.dialect,
        )
        self.con.execute(f"create or replace temp table sums_{unit} as {body}")
        if "sums" in self.request.has:  # the entries are this table's rows
            self._part_sql |= {part: f"coalesce({column}, 0)" for part, column in columns.items()}
            return
        table = f"sums_{unit}"
        self._joins += f" left join {table} on {_same_unit(table, unit)} and {table}.day = e.day"
        for part, column in columns.items():
            self._source_columns.append(f"{table}.{column} as {unit}_{column}")
            self._part_sql[part] = f"coalesce({unit}_{column}, 0)"

    def _are_all_active_days(self) -> bool:
        """Whether the entries are all active days of all users."""
        entries = {signal.entry for signal in self.request.signals}
        return self.request.is_all and entries == {user_day()}

    def _join_habits(self, unit: str, parts: Sequence[Part]) -> None:
        """Join, per user and day of an entry, how many of the user's keys have enough days."""
        features = list(dict.fromkeys(part.feature for part in parts))
        low, high = _reach(parts)
        table = self._table(f"habits_{unit}", unit, features, (low, high), by_key=False)
        same_row = f"{table}.user_id = e.user_id{self.bitmaps.calendar.same_era(table, 'e.day')}"
        days = f"select distinct user_id, day from {self.request.entries}"
        keys = (
            f"select e.day, {table}.* from ({days}) e join {table} on {same_row} where key is not "
            "null"
        )
        columns = {part: f"{unit}_habits_{number}" for number, part in enumerate(parts)}
        counts = []
        for part, column in columns.items():
            active_days = count_days(_word_names(part, parts), part.low - low, part.high - low)
            counts.append(f"count(*) filter ({active_days} >= {part.days}) as {column}")
        habits = (
            f"select user_id, day, {', '.join(counts)} from "
            f"{self._with_aligned_words(f'({keys})', parts)} group by user_id, day"
        )
        name = f"of_{unit}"
        self._joins += (
            f" left join ({habits}) {name} on {name}.user_id = e.user_id and {name}.day = e.day"
        )
        self._source_columns += [f"{name}.{column}" for column in columns.values()]
        self._part_sql |= {part: f"coalesce({column}, 0)" for part, column in columns.items()}

    def _table(
        self,
        name: str,
        unit: str,
        features: Sequence[Feature],
        reach: tuple[int, int],
        *,
        by_key: bool,
    ) -> str:
        """The name of a table with these bitmaps of a unit.

        It is the planned table, or else a new table `name` of the days that the entries' windows
        can reach.

        Args:
            name: of a new table.
            unit: creator, item or user.
            features: a bitmap each.
            reach: first and last day that is read, counted from the entry's.
            by_key: only the keys of the entries; else all keys of their users.
        """
        if self.bitmaps.has(unit, features):
            return self.bitmaps.table(unit)
        key = f"{unit}_id as key, " if by_key else ""
        grouped = f", {unit}_id" if by_key else ""
        first = f"min(day) + ({reach[0]})"
        last = f"max(day) + ({reach[1]})"
        limits = (
            f"select user_id, {key}{first} as first, {last} as last from "
            f"{self.request.entries} group by user_id{grouped}"
        )
        self.bitmaps.create(name, unit, features, limits, by_key=by_key)
        return name

    def _value(self, signal: Declaration) -> str:
        """SQL of the columns of one signal, each with a comma before it."""
        if signal in self.request.unknown:
            return f', cast(null as double) as "{signal.label}"'
        if signal.measure.record.is_first_day:
            return self._first_day_columns(signal)
        sums = self._sums_of(signal)
        measure = signal.measure
        has_creator = _has_creator(signal)
        scale = feature_of(measure, signal.origins).scale
        amount = f"{sums['total']} / {scale}"
        baseline_column = ""
        if (divisor := divisor_of(measure, signal.origins)) is not None:
            amount = f"{amount} / nullif({sums['per']} / {divisor.scale}, 0)"
        if "base" in sums:
            days = measure.baseline or 1
            is_covered = f"{self.request.beginnings().covers_sql(days)} and {has_creator}"
            expected = f"{sums['base']} / {scale} * {signal.days} / {days}"
            baseline = f"case when {is_covered} then {expected} end"
            amount = f"{amount} - ({baseline})"
            baseline_column = f', {baseline} as "{signal.label} baseline"'
        if measure.at_most is not None:
            amount = f"{amount} <= {measure.at_most!r} + {SLACK}"  # null stays null
        elif signal.threshold is not None:
            amount = f"{amount} >= {signal.threshold!r} - {SLACK}"
        value = f"case when {self._is_mature(signal)} then cast({amount} as double) end"
        return f', {value} as "{signal.label}"{baseline_column}'

    def _first_day_columns(self, signal: Declaration) -> str:
        """SQL of the columns of a time to return: value, duration and event."""
        low = signal.window[0]
        first = self._sums_of(signal)["total"]
        closed_days = f"least(greatest({self.request.as_of_day} - day - {low}, 0), {signal.days})"
        event = f"coalesce({first} < {low} + {closed_days}, false)"
        # days before the window are not observed
        duration = f"case when {event} then {first} - {low - 1} else {closed_days} end"
        days = f"cast({low - 1} + {duration} as double)"
        value = f"case when {self._is_mature(signal)} then {days} end"
        if may_lack_creator(signal):
            has_creator = _has_creator(signal)
            duration = f"case when {has_creator} then {duration} end"
            event = f"case when {has_creator} then {event} end"
        return (
            f', {value} as "{signal.label}", cast({duration} as integer) as '
            f'"{signal.label} duration", {event} as "{signal.label} event"'
        )

    def _sums_of(self, signal: Declaration) -> dict[str, str]:
        """SQL of each part of a signal, by its column."""
        return {
            part.column: f"({self._part_sql[_without_role(part)]})" for part in parts_of(signal)
        }

    def _is_mature(self, signal: Declaration) -> str:
        """SQL condition that an entry's window has closed and its value can be known."""
        closes = f"day + {signal.window[1] + 1} <= {self.request.as_of_day}"
        return f"{closes} and {_has_creator(signal)}"


# SQL of what a part asks of a bitmap: the number of days, of weeks, or the first day.
_BITMAP_ANSWERS = {"days": count_days, "first": first_day, "weeks": count_weeks}


def _has_creator(signal: Declaration) -> str:
    """SQL condition that an entry has a creator, where the signal needs one."""
    return "creator_id is not null" if may_lack_creator(signal) else "true"


def _without_role(part: Part) -> Part:
    """A part without what it is for, so that equal parts of several signals are computed once."""
    return replace(part, column="", is_reduced=False)


def _units(parts: Iterable[Part]) -> list[str]:
    return list(dict.fromkeys(part.unit for part in parts))


def _parts_of_unit(unit: str, how: str, parts: Sequence[Part]) -> list[Part]:
    return list(dict.fromkeys(part for part in parts if part.unit == unit and part.how == how))


def _reach(parts: Sequence[Part]) -> tuple[int, int]:
    """First and last day that any of these parts reads, counted from the entry's."""
    return min(part.low for part in parts), max(part.high for part in parts)


def _word_names(part: Part, parts: Sequence[Part]) -> list[str]:
    """The names of a part's words, which begin at the first day that any of `parts` reads."""
    low, high = _reach(parts)
    return [
        f"aligned_{part.unit}_{part.feature.name}_{number}"
        for number in range((high - low) // BITS + 1)
    ]


def _same_unit(table: str, unit: str) -> str:
    """SQL condition of a join: a row of `table` is about the entry's user, and key where it has
    one."""
    same_user = f"{table}.user_id = e.user_id"
    return same_user if unit == "user" else f"{same_user} and {table}.key = e.{unit}_id"
