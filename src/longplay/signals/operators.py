"""The five operators every signal is made of, as DuckDB SQL text.

1. daily roll-up: amounts per user (and creator or item) and day: `Feature`, `Rows.daily`.
2. days in window by bitmap: a user's (pair's) active days as words of 60 bits, counted through a mask: `words`, `count_days`.
3. first seen: days on which a bit is set and none of the n before: `smear`.
4. range aggregate: sums over a range of days before or after an entry: `range_sums`.
5. sessions: runs of activity with gaps of at most 30 minutes: `SESSIONS`.

Words are absolute: bit b of word i stands for day `base + 60 i + b`. A word is a BIGINT of which 60 bits are used, since DuckDB raises on
`1 << 63`; sums of BIGINT are HUGEINT, which Parquet would store as DOUBLE, so they are cast.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from longplay.lake.daily import DAY_US, ENGAGED_TEST, SHIFT_DAYS, day_of
from longplay.lake.schema import ENGAGED, ORIGINS
from longplay.signals.measure import Measure

BITS = 60  # days per word
AT_ONCE = 60_000_000  # events whose pairs are put together at once: more fall out of the caches, and then out of memory
MANY_BLOCKS = 6  # of words: about a year
BIN_US = 1_800_000_000  # half an hour: events of one bin are of one session
UNITS = ("user", "creator", "item")  # what a roll-up is kept for: a user, or a pair of a user and that key
KEYS = {
    "user": "cast(null as varchar) as key",
    "creator": "creator_id as key",
    "item": "item_id as key",
    "pair": "item_id as key, creator_id as creator",
}
SHARE = 1e9  # shares and seconds are summed as whole numbers below 2^53, so that no sum depends on the order of rows
MICROS = 1e6


@dataclass(frozen=True)
class Feature:
    """What is summed per day: `amount` (a whole number) of every event for which `test` holds; SQL over an event's columns.

    `kinds` are the kinds of event of which at least one must be in the log for the sum to mean anything; empty: any.
    """

    name: str
    test: str
    amount: str = "1"
    kinds: tuple[str, ...] = ()


def _named(what: str, origins: Sequence[str]) -> str:
    return f"{what}_{'any' if len(origins) == len(ORIGINS) else '_'.join(sorted(origins))}"


def _of(origins: Sequence[str]) -> str:
    return "" if len(origins) == len(ORIGINS) else " and origin in (" + ", ".join(f"'{origin}'" for origin in sorted(origins)) + ")"


def activity(origins: Sequence[str] = ORIGINS) -> Feature:
    """Events of engaged kinds."""
    return Feature(_named("active", origins), ENGAGED_TEST + _of(origins))


def events_of(kind: str, origins: Sequence[str] = ORIGINS) -> Feature:
    """Events of one kind."""
    return Feature(_named(kind, origins), f"kind = '{kind}'{_of(origins)}", kinds=(kind,))


TOUCHED = activity()
SESSIONS = Feature("sessions", "")  # no sum over events: see `_with_sessions`


def feature(measure: Measure, origins: Sequence[str]) -> Feature:
    """What a measure (not a ratio's other part) sums per day."""
    if measure.of_activity:
        return activity(origins)
    if measure.counted is not None:
        return events_of(measure.counted, origins)
    if measure.kind == "minutes":
        micros = f"cast(coalesce(round(seconds * {MICROS}), 0) as bigint)"
        return Feature(_named("micros", origins), ENGAGED_TEST + _of(origins), micros)
    if measure.kind == "sessions":
        return SESSIONS
    return Feature(_named("share", origins), _played(origins), f"cast(round(least(seconds / length, 1) * {SHARE}) as bigint)", ("play",))


def divisor(measure: Measure, origins: Sequence[str]) -> Feature | None:
    """What a ratio's amount is divided by, null where the measure is no ratio."""
    if measure.kind == "completion":
        return Feature(_named("lasted", origins), _played(origins), kinds=("play",))
    return None if measure.per is None else feature(measure.per, origins)


def scale(feature: Feature) -> float:
    """What a feature's sum is divided by to be in the measure's unit: minutes, shares, or a count."""
    return {"micros": 60 * MICROS, "share": SHARE}.get(feature.name.split("_")[0], 1.0)


def _played(origins: Sequence[str]) -> str:
    return f"kind = 'play' and seconds is not null and length is not null{_of(origins)}"


# -- where rows come from ----------------------------------------------------------------------------


@dataclass(frozen=True)
class EventRows:
    """Rows straight from events: one per event, not yet summed.

    `events` is a name or SQL that can be selected from. `parts`: in how many parts pairs are best put together.
    """

    events: str = "events"
    parts: int = 1
    whole: ClassVar[bool] = True  # a row says user, creator and item

    @classmethod
    def of(cls, events: int) -> EventRows:
        """The rows of a log of so many events."""
        return cls(parts=-(-max(events, 1) // AT_ONCE))

    def between(self, first: int, last: int) -> EventRows:
        """The rows of these days; others are not read."""
        low, high = (f"make_timestamptz({day * DAY_US})" for day in (first, last + 1))
        return replace(self, events=f"(select * from {self.events} where time >= {low} and time < {high})")

    def daily(self, unit: str, features: Sequence[Feature], where: str = "", flags: bool = False) -> str:
        """SQL of (user_id, key, day, a column per feature), at least one row per day with anything; sums and bits do not care how many.

        With sessions it is one row per day.

        Args:
            unit: user (key is null), creator, item, or pair: an item (key) with its event's `creator`.
            where: a further test, over user_id, key and day, e.g. "day >= 20000".
            flags: of each feature only whether the row has any.
        """
        if SESSIONS in features:
            days = _with_sessions([one for one in features if one is not SESSIONS], self.events)
            return f"select * from ({days}) where {where}" if where else days
        inner = f"select user_id, {KEYS[unit]}, {day_of('time')} as day{_amounts(features, flags)} from {_counted(features, self.events)}"
        return f"select * from ({inner}) where {where}" if where else inner


def _counted(features: Sequence[Feature], events: str) -> str:
    """SQL of the events that any feature counts, with their item's length where one asks for it; what follows "from"."""
    return f"{_source(features, events)} where {' or '.join(f'({test})' for test in _widest(features))}"


def _amounts(features: Sequence[Feature], flags: bool) -> str:
    """SQL of a column per feature, of the events that any of them counts: its amount, null where it does not count; or whether it does."""
    widest = _widest(features)

    def column(one: Feature) -> str:
        passed = widest[0] if len(widest) == 1 else None  # what all rows pass is not asked twice
        test = one.test if passed is None else one.test.removeprefix(passed).removeprefix(" and ") or "true"
        return f"{test} as {one.name}" if flags else f"case when {test} then {one.amount} end as {one.name}"

    return "".join(f", {column(one)}" for one in features)


def _source(features: Sequence[Feature], events: str) -> str:
    """The events, with the items' lengths where a feature asks for them."""
    lengths = "(select item_id, length from items where length > 0)"
    return f"{events} left join {lengths} using (item_id)" if any("length" in one.test for one in features) else events


def _widest(features: Sequence[Feature]) -> list[str]:
    """The tests of which one holds for every row that any feature counts: one that only narrows another is left out."""

    def narrows(one: Feature, other: Feature) -> bool:
        engaged = other.test == ENGAGED_TEST and one.kinds and set(one.kinds) <= set(ENGAGED)
        return one.test != other.test and bool(engaged or one.test.startswith(f"{other.test} and "))

    return list(dict.fromkeys(one.test for one in features if not any(narrows(one, other) for other in features)))


def _with_sessions(features: Sequence[Feature], events: str) -> str:
    """SQL of (user_id, key, day, sessions, a column per feature): sessions that begin on each day, and sums.

    Within half an hour of the clock no gap is longer than half an hour, so it is enough to look from one half hour with
    activity to the next: first event of one, last event of the one before.
    """
    touched = [TOUCHED, *(one for one in features if one != TOUCHED)]
    only_activity = _widest(touched) == [TOUCHED.test]
    when = "" if only_activity else f" filter ({TOUCHED.name} is not null)"
    sums = "".join(f", {'count' if one.amount == '1' else 'sum'}({one.name}) as {one.name}" for one in features)
    placed = f"select user_id, (epoch_us(time) + {SHIFT_DAYS * DAY_US}) as micros{_amounts(touched, False)} from {_counted(touched, events)}"
    bins = f"""select user_id, micros // {BIN_US} as bin, min(micros){when} as first, max(micros){when} as last{sums}
        from ({placed}) group by user_id, bin"""
    names = "".join(f", {one.name}" for one in features)
    before = f"lag(last{'' if only_activity else ' ignore nulls'}) over (partition by user_id order by bin)"
    spans = f"select user_id, bin, first, {before} as before{names} from ({bins})"
    begun = f"cast(count(*) filter (first is not null and (before is null or first - before > {BIN_US})) as bigint) as sessions"
    totals = "".join(f", cast(sum({one.name}) as bigint) as {one.name}" for one in features)
    day = f"cast(bin // {DAY_US // BIN_US} - {SHIFT_DAYS} as integer)"
    return f"select user_id, cast(null as varchar) as key, {day} as day, {begun}{totals} from ({spans}) group by user_id, 3"


# -- words of days -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Calendar:
    """The days that words stand for: from `base` on, `blocks` words of 60 days each."""

    base: int
    blocks: int

    @classmethod
    def of(cls, first: int, last: int) -> Calendar:
        """The words that hold the days first..last."""
        return cls(first, max(last - first, 0) // BITS + 1)

    def columns(self, unit: str, name: str) -> list[str]:
        """The columns that hold a feature's words of a unit."""
        return [f"{unit}_{name}_{block}" for block in range(self.blocks)]


def words(unit: str, rows: str, features: Sequence[Feature], calendar: Calendar) -> str:
    """SQL of (user_id, key, words of every feature: on which days it had any), one row per unit; `rows` from `Rows.daily` with flags.

    Of pairs also `creator`, and the words are named like those of items.
    """
    place = f"(day - {calendar.base})"
    keys = {"user": "user_id", "pair": "user_id, key, creator"}.get(unit, "user_id, key")
    flags = ", ".join(one.name for one in features)
    placed = f"select {keys}, {place} // {BITS} as block, cast(1 as bigint) << ({place} % {BITS}) as bit, {flags} from ({rows})"
    bit = {one.name: f"{one.name} then bit" for one in features}
    if calendar.blocks > MANY_BLOCKS:  # a long log: every row would be looked at once per block, so put together what is of one block first
        together = ", ".join(f"bit_or(case when {one.name} then bit end) as {one.name}" for one in features)
        placed = f"select {keys}, block, {together} from ({placed}) group by {keys}, block"
        bit = {one.name: f"true then {one.name}" for one in features}
    columns = ", ".join(
        f"coalesce(bit_or(case when block = {block} and {bit[one.name]} end), 0) as {column}"
        for one in features
        for block, column in enumerate(calendar.columns("item" if unit == "pair" else unit, one.name))
    )
    return f"select {'user_id, cast(null as varchar) as key' if unit == 'user' else keys}, {columns} from ({placed}) group by {keys}"


def words_by_block(rows: Sequence[str], features: Sequence[Feature], calendar: Calendar) -> str:
    """SQL of `words` of users from the rows of every block on its own: a third of the sums per row where a log has three blocks."""
    columns = [(block, one.name, column) for one in features for block, column in enumerate(calendar.columns("user", one.name))]
    parts = []
    for block, of_block in enumerate(rows):
        bit = f"cast(1 as bigint) << ((day - {calendar.base}) % {BITS})"
        placed = f"select user_id, {bit} as bit, {', '.join(one.name for one in features)} from ({of_block})"
        own = ", ".join(
            f"coalesce(bit_or(case when {name} then bit end), 0) as {column}" if at == block else f"cast(0 as bigint) as {column}"
            for at, name, column in columns
        )
        parts.append(f"select user_id, {own} from ({placed}) group by user_id")
    together = ", ".join(f"bit_or({column}) as {column}" for _, _, column in columns)
    return f"select user_id, cast(null as varchar) as key, {together} from ({' union all '.join(parts)}) group by user_id"


def coarser(unit: str, source: str, finer: str, features: Sequence[Feature], calendar: Calendar) -> str:
    """SQL of the words of `unit` from `source`, which has those of the finer unit `finer`; a creator is its column `creator`."""
    key = {"user": "cast(null as varchar)", "creator": "creator", "item": "key"}[unit]
    columns = ", ".join(
        f"bit_or({have}) as {column}"
        for one in features
        for have, column in zip(calendar.columns(finer, one.name), calendar.columns(unit, one.name), strict=True)
    )
    return f"select user_id, {key} as key, {columns} from {source} group by user_id{'' if unit == 'user' else f', {key}'}"


def aligned(place: str, calendar: Calendar) -> str:
    """SQL of the columns `block` and `shift`: where in its words the day `place` (counted from the base, maybe outside) is; `ahead` reads them."""
    moved = f"least(greatest({place}, {-BITS}), {calendar.blocks * BITS}) + {BITS}"
    return f"({moved}) // {BITS} as block, ({moved}) % {BITS} as shift"


def ahead(columns: Sequence[str], number: int) -> str:
    """SQL of the 60 days from `60 * number` days after the aligned one on, as one word: its bit 0 is that day; what is outside the calendar is 0."""

    def at(block: int) -> str:  # `block` counts from 1, 0 is before the calendar
        whens = " ".join(f"when {place - block} then {column}" for place, column in enumerate(columns, start=1) if place >= block)
        return f"(case block {whens} else 0 end)" if whens else "0"

    return f"(({at(number)} >> shift) | (({at(number + 1)} & ((cast(1 as bigint) << shift) - 1)) << ({BITS} - shift)))"


def _window(words: Sequence[str], low: int, high: int) -> list[tuple[int, str]]:
    """The words that hold the days low..high after the aligned one, without other days: (day of bit 0, SQL)."""
    found = []
    for number in range(low // BITS, high // BITS + 1):
        first, last = max(low - number * BITS, 0), min(high - number * BITS, BITS - 1)
        mask = ((1 << (last - first + 1)) - 1) << first
        found.append((number * BITS, words[number] if last - first == BITS - 1 else f"({words[number]} & {mask})"))
    return found


def count_days(words: Sequence[str], low: int, high: int) -> str:
    """SQL of how many of the days low..high after the aligned one (both included) are set in the words `ahead`."""
    return how_many([word for _, word in _window(words, low, high)])


def first_day(words: Sequence[str], low: int, high: int) -> str:
    """SQL of the first of these days that is set, counted from the aligned one; null where none is."""
    return _first(_window(words, low, high))


def _first(words: Iterable[tuple[int, str]]) -> str:
    """SQL of the day of the first bit set in these words, given with the day of their bit 0; null where none is."""
    places = (f"case when {word} <> 0 then {first} + {_bits(f'({word} & -{word}) - 1')} end" for first, word in words)
    return f"coalesce({', '.join(places)})"


def how_many(words: Sequence[str]) -> str:
    """SQL of how many bits are set in these words."""
    return " + ".join(_bits(word) for word in words)


def first_bit(words: Sequence[str]) -> str:
    """SQL of the place of the first bit set in these words, null where none is."""
    return _first((block * BITS, word) for block, word in enumerate(words))


def _bits(word: str) -> str:
    return f"cast(bit_count({word}) as integer)"  # DuckDB's is an INT8, and a sum of two overflows


def smear(source: str, unit: str, name: str, days: int | None, calendar: Calendar, into: str = "c") -> str:
    """SQL of `source` with words `into`: the days of feature `name` of which none of the `days` days before has one.

    Null: the first day of all. The days before are gathered by doubling: bits shifted by 1, by 1 and 2, by 1 to 4, ...
    """
    blocks = range(calendar.blocks)
    if days is None or days >= calendar.blocks * BITS:
        days = calendar.blocks * BITS - 1  # all there are

    def shifted(word: str, by: int, block: int) -> str:
        whole, rest = divmod(by, BITS)
        parts = []
        if block >= whole:
            keep = (1 << (BITS - rest)) - 1
            parts.append(f"(({word}_{block - whole} & {keep}) << {rest})" if rest else f"{word}_{block - whole}")
        if rest and block > whole:
            parts.append(f"({word}_{block - whole - 1} >> {BITS - rest})")
        return " | ".join(parts) or "cast(0 as bigint)"

    covered, steps = 1, [[shifted(f"{unit}_{name}", 1, block) for block in blocks]]
    while covered < days:
        by = min(covered, days - covered)
        steps.append([f"s_{block} | {shifted('s', by, block)}" for block in blocks])
        covered += by
    for number, step in enumerate(steps):
        kept = "*" if number == 0 else "* exclude (" + ", ".join(f"s_{block}" for block in blocks) + ")"
        source = f"(select {kept}, {', '.join(f'{word} as s_{block}' for block, word in enumerate(step))} from {source})"
    fresh = ", ".join(f"{column} & ~s_{block} as {into}_{block}" for block, column in enumerate(calendar.columns(unit, name)))
    return f"(select * exclude ({', '.join(f's_{block}' for block in blocks)}), {fresh} from {source})"


# -- sums over ranges of days ------------------------------------------------------------------------


def range_sums(unit: str, entries: str | None, rows: str, sums: dict[str, tuple[str, int, int]], once: bool = False) -> str:
    """SQL of (user_id, key, day, a column per sum) for every distinct (user_id, key, day) of `entries`.

    Args:
        entries: SQL of user_id, key (null for users) and day; null: every day on which `rows` have activity, of which they then have the column.
        rows: SQL of `Rows.daily`. once: there is one per unit and day.
        sums: column -> (feature's name, first day, last day) with days counted from the entry's own, both included.
    """
    names = sorted({name for name, _, _ in sums.values()})
    keys = "user_id" if unit == "user" else "user_id, key"

    def bound(day: int) -> str:
        return f"{-day} preceding" if day < 0 else f"{day} following" if day > 0 else "current row"

    if entries is None:
        asked, both = f"{TOUCHED.name} > 0", rows
    else:
        asked, nothing = "asked", ", ".join("cast(null as bigint)" for _ in names)
        both = f"select {keys}, day, false as asked, {', '.join(names)} from ({rows}) union all select {keys}, day, true, {nothing} from ({entries})"
    any_asked, total, grouped = ("", "", "") if once and entries is None else ("bool_or", "sum", f" group by {keys}, day")
    summed = ", ".join(f"cast(coalesce({total}({name}), 0) as double) as {name}" for name in names)
    days = f"select {keys}, day, coalesce({any_asked}({asked}), false) as asked, {summed} from ({both}){grouped}"
    columns = ", ".join(
        f"coalesce(sum({name}) over (partition by {keys} order by day range between {bound(low)} and {bound(high)}), 0) as {column}"
        for column, (name, low, high) in sums.items()
    )
    key = "cast(null as varchar)" if unit == "user" else "key"
    return f"select user_id, {key} as key, day, {', '.join(sums)} from (select *, {columns} from ({days})) where asked"
