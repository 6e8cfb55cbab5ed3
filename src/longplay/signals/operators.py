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

from collections.abc import Sequence
from dataclasses import dataclass

from longplay.lake.daily import DAY_US, ENGAGED_TEST, SHIFT_DAYS, day_of
from longplay.lake.schema import ORIGINS
from longplay.signals.measure import Measure

BITS = 60  # days per word
MANY_BLOCKS = 6  # of words: about a year
BIN_US = 1_800_000_000  # half an hour: events of one bin are of one session
UNITS = ("user", "creator", "item")  # what a roll-up is kept for: a user, or a pair of a user and that key
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
    """Rows straight from events: one per event, not yet summed. `events` is a name or SQL that can be selected from."""

    events: str = "events"

    def daily(self, unit: str, features: Sequence[Feature], where: str = "", flags: bool = False) -> str:
        """SQL of (user_id, key, day, a column per feature), at least one row per day with anything; sums and bits do not care how many.

        Args:
            unit: user (key is null), creator or item. where: a further test, over user_id, key and day, e.g. "day >= 20000".
            flags: of each feature only whether the row has any.
        """
        if SESSIONS in features:
            days = _with_sessions([one for one in features if one is not SESSIONS], self.events)
            return f"select * from ({days}) where {where}" if where else days
        key = "cast(null as varchar)" if unit == "user" else f"{unit}_id"
        widest = _widest(features)

        def column(one: Feature) -> str:
            test = (
                one.test if len(widest) > 1 else one.test.removeprefix(widest[0]).removeprefix(" and ") or "true"
            )  # what all rows pass is not asked twice
            return f"{test} as {one.name}" if flags else f"case when {test} then {one.amount} end as {one.name}"

        tests = " or ".join(f"({test})" for test in widest)
        columns = ", ".join(column(one) for one in features)
        inner = f"select user_id, {key} as key, {day_of('time')} as day, {columns} from {_source(features, self.events)} where {tests}"
        return f"select * from ({inner}) where {where}" if where else inner


def _source(features: Sequence[Feature], events: str) -> str:
    """The events, with the items' lengths where a feature asks for them."""
    lengths = "(select item_id, length from items where length > 0)"
    return f"{events} left join {lengths} using (item_id)" if any("length" in one.test for one in features) else events


def _widest(features: Sequence[Feature]) -> list[str]:
    """The tests of which one holds for every row that any feature counts: a test that only narrows another is left out."""
    tests = list(dict.fromkeys(one.test for one in features))
    return [test for test in tests if not any(test != other and test.startswith(f"{other} and ") for other in tests)]


def _with_sessions(features: Sequence[Feature], events: str) -> str:
    """SQL of (user_id, key, day, sessions, a column per feature): sessions that begin on each day, and sums.

    Within half an hour of the clock no gap is longer than half an hour, so it is enough to look from one half hour with
    activity to the next: first event of one, last event of the one before.
    """
    micros = f"(epoch_us(time) + {SHIFT_DAYS * DAY_US})"
    sums = "".join(f", sum(case when {one.test} then {one.amount} end) as {one.name}" for one in features)
    tests = " or ".join(f"({test})" for test in _widest([TOUCHED, *features]))
    bins = f"""select user_id, {micros} // {BIN_US} as bin, min(case when {ENGAGED_TEST} then {micros} end) as first,
            max(case when {ENGAGED_TEST} then {micros} end) as last{sums}
        from {_source(features, events)} where {tests} group by user_id, bin"""
    names = "".join(f", {one.name}" for one in features)
    before = "lag(last ignore nulls) over (partition by user_id order by bin)"
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
    """SQL of (user_id, key, words of every feature: on which days it had any), one row per unit; `rows` from `Rows.daily` with flags."""
    place = f"(day - {calendar.base})"
    keys = "user_id" if unit == "user" else "user_id, key"
    bits = ", ".join(f"case when {one.name} then cast(1 as bigint) << ({place} % {BITS}) end as {one.name}" for one in features)
    placed = f"select {keys}, {place} // {BITS} as block, {bits} from ({rows})"
    if calendar.blocks > MANY_BLOCKS:  # a long log: every row would be looked at once per block, so put together what is of one block first
        together = ", ".join(f"bit_or({one.name}) as {one.name}" for one in features)
        placed = f"select {keys}, block, {together} from ({placed}) group by {keys}, block"
    columns = ", ".join(
        f"coalesce(bit_or(case when block = {block} then {one.name} end), 0) as {column}"
        for one in features
        for block, column in enumerate(calendar.columns(unit, one.name))
    )
    key = "cast(null as varchar)" if unit == "user" else "key"
    return f"select user_id, {key} as key, {columns} from ({placed}) group by {keys}"


def _mask(low: str, high: str, block: int) -> str:
    """SQL of the bits of word `block` that stand for the days low..high after the base (both included)."""
    above = f"((cast(1 as bigint) << cast(least(greatest({high} - {block * BITS - 1}, 0), {BITS}) as integer)) - 1)"
    below = f"((cast(1 as bigint) << cast(least(greatest({low} - {block * BITS}, 0), {BITS}) as integer)) - 1)"
    return f"({above} & ~{below})"


def count_days(unit: str, name: str, low: str, high: str, calendar: Calendar) -> str:
    """SQL of how many of the days low..high (after the base, both included) have their bit set in a feature's words."""
    return " + ".join(_bits(f"{column} & {_mask(low, high, block)}") for block, column in enumerate(calendar.columns(unit, name)))


def first_day(unit: str, name: str, low: str, high: str, calendar: Calendar) -> str:
    """SQL of the first of the days low..high (after the base) whose bit is set, null where none is."""
    parts = []
    for block, column in enumerate(calendar.columns(unit, name)):
        part = f"({column} & {_mask(low, high, block)})"
        parts.append(part)
    return first_bit(parts)


def first_bit(words: Sequence[str]) -> str:
    """SQL of the place of the first bit set in these words, null where none is."""
    places = (f"case when {word} <> 0 then {block * BITS} + {_bits(f'({word} & -{word}) - 1')} end" for block, word in enumerate(words))
    return f"coalesce({', '.join(places)})"


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


def range_sums(unit: str, entries: str | None, rows: str, sums: dict[str, tuple[str, int, int]]) -> str:
    """SQL of (user_id, key, day, a column per sum) for every distinct (user_id, key, day) of `entries`.

    Args:
        entries: SQL of user_id, key (null for users) and day; null: every day on which `rows` have activity, of which they then have the column.
        rows: SQL of `Rows.daily`.
        sums: column -> (feature's name, first day, last day) with days counted from the entry's own, both included.
    """
    names = sorted({name for name, _, _ in sums.values()})
    keys = "user_id" if unit == "user" else "user_id, key"

    def bound(day: int) -> str:
        return f"{-day} preceding" if day < 0 else f"{day} following" if day > 0 else "current row"

    summed = ", ".join(f"cast(coalesce(sum({name}), 0) as double) as {name}" for name in names)
    if entries is None:
        asked, both = f"{TOUCHED.name} > 0", rows
    else:
        asked, nothing = "asked", ", ".join("cast(null as bigint)" for _ in names)
        both = f"select {keys}, day, false as asked, {', '.join(names)} from ({rows}) union all select {keys}, day, true, {nothing} from ({entries})"
    days = f"select {keys}, day, coalesce(bool_or({asked}), false) as asked, {summed} from ({both}) group by {keys}, day"
    columns = ", ".join(
        f"coalesce(sum({name}) over (partition by {keys} order by day range between {bound(low)} and {bound(high)}), 0) as {column}"
        for column, (name, low, high) in sums.items()
    )
    key = "cast(null as varchar)" if unit == "user" else "key"
    return f"select user_id, {key} as key, day, {', '.join(sums)} from (select *, {columns} from ({days})) where asked"
