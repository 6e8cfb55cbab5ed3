"""SQL that computes the values of signals at their entries."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from longplay.lake.connection import Connection
from longplay.signals.declare.declaration import SLACK, Declaration
from longplay.signals.declare.entry import user_day
from longplay.signals.engine.beginnings import Beginnings
from longplay.signals.engine.day_bits import Bitmaps
from longplay.signals.engine.dialect import Dialect
from longplay.signals.engine.duckdb import DUCKDB
from longplay.signals.engine.event_source import always_active
from longplay.signals.engine.operators import (
    BITS,
    SESSIONS,
    TOUCHED,
    Feature,
    ahead,
    aligned,
    count_days,
    count_weeks,
    divisor,
    feature,
    first_day,
    range_sums,
)
from longplay.signals.engine.parts import Part, may_lack_creator, parts_of


@dataclass(frozen=True)
class Asked:
    """Entries and the signals that are asked of them.

    Attributes:
        entries: SQL with user_id, keys, day, and the words of the units in `has`; "sums": it is the
            table of sums.
        signals: to be valued at these entries.
        has: units whose words the entries have.
        whole: all entries there are.
        as_of_day: days since 1970 of the midnight up to which windows have closed.
        beginnings: of the log.
        unknown: the signals of which none of these entries has a value yet.
    """

    entries: str
    signals: Sequence[Declaration]
    as_of_day: int
    beginnings: Callable[[], Beginnings]
    has: frozenset[str] = frozenset()
    unknown: frozenset[Declaration] = frozenset()
    whole: bool = True


class Values:
    """SQL of the signals' `columns` (each with a comma before it), and of the `source` to select
    them and the entries' own from.

    Makes what it needs: `near_UNIT` and `habits_UNIT`, words for these entries alone where none are
    planned, and `sums_UNIT`.
    """

    def __init__(
        self, con: Connection, bitmaps: Bitmaps, asked: Asked, dialect: Dialect = DUCKDB.dialect
    ) -> None:
        self.con, self.bitmaps, self.asked, self.dialect = con, bitmaps, asked, dialect
        self._more, self._joins, self._at = (
            ["e.*"],
            "",
            dict[Part, str](),
        )  # columns and joins of the source; SQL of each part
        parts = [
            _bare(part)
            for signal in asked.signals
            if signal not in asked.unknown
            for part in parts_of(signal)
        ]
        if in_words := [part for part in parts if part.in_words]:
            self._words(in_words)
        for unit in _units(part for part in parts if part.how == "sum"):
            self._sums(unit, _of(unit, "sum", parts))
        for unit in _units(part for part in parts if part.how == "habits"):
            self._habits(unit, _of(unit, "habits", parts))
        self.source = f"(select {', '.join(self._more)} from {self.asked.entries} e{self._joins})"
        if in_words:
            self.source = self._ahead(self.source, in_words)
        self.columns = "".join(self._value(signal) for signal in asked.signals)

    def _words(self, parts: Sequence[Part]) -> None:
        """Days with anything, and first days: join the words that the entries lack."""
        low, high = _reach(parts)
        for unit in _units(part for part in parts if part.unit not in self.asked.has):
            needed = list(dict.fromkeys(part.feature for part in parts if part.unit == unit))
            table = self._table(f"near_{unit}", unit, needed, (low, high), by_key=unit != "user")
            self._joins += (
                f" left join {table} on "
                f"{_same(table, unit)}{self.bitmaps.calendar.same_era(table, 'e.day')}"
            )
            self._more += [
                f"{table}.{column}"
                for one in needed
                for column in self.bitmaps.calendar.columns(unit, one.name)
            ]
        for part in parts:
            found = _IN_WORDS[part.how](_named(part, parts), part.low - low, part.high - low)
            self._at[part] = (
                f"({found}) + ({low})" if part.how == "first" else f"coalesce({found}, 0)"
            )

    def _ahead(self, source: str, parts: Sequence[Part]) -> str:
        """SQL of `source`, whose rows have the day and words of an entry, with words counted from
        the first day that any part asks."""
        low, _ = _reach(parts)
        calendar = self.bitmaps.calendar
        words = {
            name: ahead(calendar.columns(part.unit, part.feature.name), number)
            for part in parts
            for number, name in enumerate(_named(part, parts))
        }
        first_asked = f"day - {calendar.start('day')} + ({low})"
        place = f"select *, {aligned(first_asked, calendar)} from {source}"
        return (
            f"(select *, {', '.join(f'{word} as {name}' for name, word in words.items())} from "
            f"({place}))"
        )

    def _sums(self, unit: str, parts: Sequence[Part]) -> None:
        """Sums over days: one table of them, per distinct unit and day of the entries."""
        sums = {part: f"sum_{number}" for number, part in enumerate(parts)}
        ours = list(dict.fromkeys(part.feature for part in parts))
        key = "cast(null as varchar)" if unit == "user" else f"{unit}_id"
        days, active, rows = (
            f"select user_id, {key} as key, day from {self.asked.entries} e",
            "true",
            self.bitmaps.rows,
        )
        if (
            unit == "user"
            and self.asked.whole
            and {signal.entry for signal in self.asked.signals} == {user_day()}
        ):
            days = None
            if not (
                rows.whole and SESSIONS in ours and always_active(ours)
            ):  # sessions are counted on every day with activity
                ours, active = list(dict.fromkeys([*ours, TOUCHED])), f"{TOUCHED.name} > 0"
        ranges = {column: (part.feature.name, part.low, part.high) for part, column in sums.items()}
        body = range_sums(
            unit,
            days,
            rows.daily(unit, ours),
            ranges,
            once=SESSIONS in ours and rows.whole,
            active=active,
            dialect=self.dialect,
        )
        self.con.execute(f"create or replace temp table sums_{unit} as {body}")
        its_own = "sums" in self.asked.has  # the entries are the days that were summed
        if not its_own:
            self._joins += (
                f" left join sums_{unit} on {_same(f'sums_{unit}', unit)} and "
                f"sums_{unit}.day = e.day"
            )
            self._more += [f"sums_{unit}.{column} as {unit}_{column}" for column in sums.values()]
        self._at |= {
            part: f"coalesce({'' if its_own else f'{unit}_'}{column}, 0)"
            for part, column in sums.items()
        }

    def _habits(self, unit: str, parts: Sequence[Part]) -> None:
        """How many keys have enough days: the words of each user's keys, per day of an entry."""
        needed = list(dict.fromkeys(part.feature for part in parts))
        low, high = _reach(parts)
        table = self._table(f"habits_{unit}", unit, needed, (low, high), by_key=False)
        same = f"{table}.user_id = e.user_id{self.bitmaps.calendar.same_era(table, 'e.day')}"
        days = f"select distinct user_id, day from {self.asked.entries}"
        known = (
            f"select e.day, {table}.* from ({days}) e join {table} on {same} where key is not null"
        )
        counted = {part: f"{unit}_habits_{number}" for number, part in enumerate(parts)}
        totals = ", ".join(
            f"count(*) filter ({count_days(_named(part, parts), part.low - low, part.high - low)} "
            f">= {part.days}) as {column}"
            for part, column in counted.items()
        )
        found = (
            f"select user_id, day, {totals} from {self._ahead(f'({known})', parts)} group by "
            "user_id, day"
        )
        self._joins += (
            f" left join ({found}) of_{unit} on of_{unit}.user_id = e.user_id and "
            f"of_{unit}.day = e.day"
        )
        self._more += [f"of_{unit}.{column}" for column in counted.values()]
        self._at |= {part: f"coalesce({column}, 0)" for part, column in counted.items()}

    def _table(
        self,
        name: str,
        unit: str,
        needed: Sequence[Feature],
        reach: tuple[int, int],
        *,
        by_key: bool,
    ) -> str:
        """The table of a unit's words, if these are planned; else `name`, made of the days that
        windows of the entries can reach.

        Args:
            by_key: of the entries' own keys only; else of all keys of their users.
        """
        if self.bitmaps.has(unit, needed):
            return self.bitmaps.table(unit)
        named, grouped = (f"{unit}_id as key, ", f", {unit}_id") if by_key else ("", "")
        first, last = f"min(day) + ({reach[0]})", f"max(day) + ({reach[1]})"
        limits = (
            f"select user_id, {named}{first} as first, {last} as last from "
            f"{self.asked.entries} group by user_id{grouped}"
        )
        self.bitmaps.create(name, unit, needed, limits, by_key=by_key)
        return name

    def _value(self, signal: Declaration) -> str:
        """SQL of the columns of one signal."""
        if signal in self.asked.unknown:
            return f', cast(null as double) as "{signal.label}"'
        at = {part.column: f"({self._at[_bare(part)]})" for part in parts_of(signal)}
        measure, name, (low, high) = signal.measure, f'"{signal.label}"', signal.window
        named = "creator_id is not null" if may_lack_creator(signal) else "true"
        mature = f"day + {high + 1} <= {self.asked.as_of_day} and {named}"
        if measure.record.is_first_day:
            closed = f"least(greatest({self.asked.as_of_day} - day - {low}, 0), {signal.days})"
            event = f"coalesce({at['total']} < {low} + {closed}, false)"
            # days observed: those before the window are not
            duration = f"case when {event} then {at['total']} - {low - 1} else {closed} end"
            value = f"case when {mature} then cast({low - 1} + {duration} as double) end"
            if may_lack_creator(signal):  # whose return it is, nobody knows
                duration, event = (
                    f"case when {named} then {column} end" for column in (duration, event)
                )
            return (
                f', {value} as {name}, cast({duration} as integer) as "{signal.label} '
                f'duration", {event} as "{signal.label} event"'
            )
        scale = feature(measure, signal.origins).scale
        amount, more = f"{at['total']} / {scale}", ""
        if (per := divisor(measure, signal.origins)) is not None:
            amount = f"{amount} / nullif({at['per']} / {per.scale}, 0)"
        if "base" in at:
            baseline = measure.baseline or 1
            covered = f"{self.asked.beginnings().covers_sql(baseline)} and {named}"
            base = (
                f"case when {covered} then {at['base']} / {scale} * {signal.days} / {baseline} end"
            )
            amount, more = f"{amount} - ({base})", f', {base} as "{signal.label} baseline"'
        if measure.at_most is not None:
            amount = f"{amount} <= {measure.at_most!r} + {SLACK}"  # null stays null
        elif signal.threshold is not None:
            amount = f"{amount} >= {signal.threshold!r} - {SLACK}"
        return f", case when {mature} then cast({amount} as double) end as {name}{more}"


# How days answer a part, from words: SQL of the number of days, weeks, or of the first day.
_IN_WORDS = {"days": count_days, "first": first_day, "weeks": count_weeks}


def _bare(part: Part) -> Part:
    """A part, whatever it is for."""
    return replace(part, column="", counted=False)


def _units(parts: Iterable[Part]) -> list[str]:
    return list(dict.fromkeys(part.unit for part in parts))


def _of(unit: str, how: str, parts: Sequence[Part]) -> list[Part]:
    return list(dict.fromkeys(part for part in parts if part.unit == unit and part.how == how))


def _reach(parts: Sequence[Part]) -> tuple[int, int]:
    """First and last day that any of these asks, counted from the entry's."""
    return min(part.low for part in parts), max(part.high for part in parts)


def _named(part: Part, parts: Sequence[Part]) -> list[str]:
    """The names of a part's words counted from the first day that any of these parts asks."""
    low, high = _reach(parts)
    return [
        f"ahead_{part.unit}_{part.feature.name}_{number}"
        for number in range((high - low) // BITS + 1)
    ]


def _same(table: str, unit: str) -> str:
    return f"{table}.user_id = e.user_id" + (
        f" and {table}.key = e.{unit}_id" if unit != "user" else ""
    )
