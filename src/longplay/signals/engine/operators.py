"""The five operators every signal is made of, as DuckDB SQL text.

1. daily roll-up: amounts per user (and creator or item) and day: `Feature`, `rows.Rows.daily`. 2.
days in window by bitmap: a user's (pair's) active days as words of 60 bits, counted through a mask:
`words`, `count_days`. 3. first seen: days on which a bit is set and none of the n before: `smear`.
4. range aggregate: sums over a range of days before or after an entry: `range_sums`. 5. sessions:
runs of activity with gaps of at most 30 minutes: `SESSIONS`, `rows.EventRows`.

Words are absolute: bit b of word i stands for day `base + 60 i + b`. A word is a BIGINT of which 60
bits are used, since DuckDB raises on `1 << 63`; sums of BIGINT are HUGEINT, which Parquet would
store as DOUBLE, so they are cast.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from longplay.lake.daily import ENGAGED_TEST, SHIFT_DAYS, quoted
from longplay.lake.schema import ENGAGED, ORIGINS
from longplay.signals.declare.entry import Entry
from longplay.signals.declare.measure import Measure
from longplay.signals.declare.measure_kinds import Reads
from longplay.signals.engine.dialect import Dialect, Step
from longplay.signals.engine.duckdb import DUCKDB, numbers, set_bits

BITS = 60  # days per word
MANY_BLOCKS = 6  # of words in an era: about a year
UNITS = (
    "user",
    "creator",
    "item",
)  # what a roll-up is kept for: a user, or a pair of a user and that key
PAIRS = ("pair", "thing")  # a user with an item and its event's creator, as two keys or as one
# shares and seconds are summed as whole numbers below 2^53, so that no sum depends on the order of
# rows
SHARE = 1e9
MICROS = 1e6


@dataclass(frozen=True)
class Feature:
    """What is summed per day: `amount` (SQL of a whole number) of every event of these kinds and
    origins for which `also` (SQL, over its item's length, too) holds.

    Attributes:
        name: its column.
        kinds: of event that count.
        origins: of event that count.
        also: SQL of a further condition; empty: none.
        amount: SQL of what each event adds.
        needs: kinds of event of which at least one must be in the log for the sum to mean anything;
            empty: any.
        needs_seconds: an event with seconds must be in the log, too.
        needs_length: `also` asks for the item's length.
        needs_amount: an event that counts must have an amount.
        needs_surface: an event on this surface must be in the log, too; null: on any.
        scale: what the sum is divided by to be in the measure's unit.
    """

    name: str
    kinds: tuple[str, ...]
    origins: tuple[str, ...] = ORIGINS
    also: str = ""
    amount: str = "1"
    needs: tuple[str, ...] = ()
    needs_seconds: bool = False
    needs_length: bool = False
    needs_amount: bool = False
    needs_surface: str | None = None
    scale: float = 1.0

    @property
    def any_origin(self) -> bool:
        """Whether events of all origins count, and those without one."""
        return len(self.origins) == len(ORIGINS)

    def test(self, passed: Feature | None = None) -> str:
        """SQL of whether an event counts; of one that `passed` counts, only what that does not
        say."""
        of_kind = (
            "" if passed is not None and passed.kinds == self.kinds else _one_of("kind", self.kinds)
        )
        also = "" if passed is not None and passed.also == self.also else self.also
        of_origin = (
            ""
            if self.any_origin or (passed is not None and passed.origins == self.origins)
            else _one_of("origin", self.origins)
        )
        return " and ".join(filter(None, (of_kind, also, of_origin))) or "true"

    def narrows(self, other: Feature) -> bool:
        """Whether every event that counts here counts there, too, and not the other way round."""
        within = (
            set(self.kinds) <= set(other.kinds)
            and set(self.origins) <= set(other.origins)
            and other.also in ("", self.also)
        )
        return within and (self.kinds, self.origins, self.also) != (
            other.kinds,
            other.origins,
            other.also,
        )


def widest(features: Iterable[Feature]) -> list[Feature]:
    """The features of which one counts every event that any of these does."""
    given, found = list(features), dict[str, Feature]()
    for one in given:
        if not any(one.narrows(other) for other in given):
            found.setdefault(one.test(), one)
    return list(found.values())


def _one_of(column: str, values: Sequence[str]) -> str:
    if tuple(values) == ENGAGED:
        return ENGAGED_TEST
    listed = ", ".join(f"'{value}'" for value in sorted(values))
    return f"{column} = {listed}" if len(values) == 1 else f"{column} in ({listed})"


def _sorted(origins: Sequence[str]) -> tuple[str, ...]:
    return tuple(origin for origin in ORIGINS if origin in origins)


def _named(what: str, origins: Sequence[str]) -> str:
    return f"{what}_{'any' if len(origins) == len(ORIGINS) else '_'.join(sorted(origins))}"


def activity(origins: Sequence[str] = ORIGINS) -> Feature:
    """Events of engaged kinds."""
    return Feature(_named("active", origins), ENGAGED, _sorted(origins))


def events_of(kind: str, origins: Sequence[str] = ORIGINS) -> Feature:
    """Events of one kind."""
    return Feature(_named(kind, origins), (kind,), _sorted(origins), needs=(kind,))


TOUCHED = activity()
SESSIONS = Feature("sessions", ())  # no sum over events: see `rows.EventRows`
_TIMED = "seconds is not null and length is not null"


def feature(measure: Measure, origins: Sequence[str]) -> Feature:
    """What a measure (not a ratio's other part) sums per day."""
    event = measure.event if measure.record.reads in ("activity", "seconds") else None
    whole = _READS[measure.record.reads](measure, origins)
    return narrowed(whole, measure, event, measure.seconds)


def narrowed(
    feature: Feature, only: Measure | Entry, event: str | None = None, seconds: float | None = None
) -> Feature:
    """The feature over events on the surface of `only`, of one kind and of some length.

    Its name has a digest of these, because roll-ups are kept by name.
    """
    tests = [f"surface is not distinct from {quoted(only.surface)}"] if only.surface else []
    tests += [f"coalesce(seconds, 0) >= {seconds!r}"] if seconds is not None else []
    if not tests and event is None:
        return feature
    also = " and ".join([*filter(None, [feature.also]), *tests])
    digest = hashlib.sha256(f"{event} {also}".encode()).hexdigest()[:12]
    return replace(
        feature,
        name=f"{feature.name}_{digest}",
        kinds=feature.kinds if event is None else (event,),
        needs=feature.needs if event is None else (event,),
        also=also,
        needs_seconds=feature.needs_seconds or seconds is not None,
        needs_surface=only.surface,
    )


def _engaged_seconds(measure: Measure, origins: Sequence[str]) -> Feature:
    return Feature(
        _named("micros", origins),
        ENGAGED,
        _sorted(origins),
        amount=f"cast(coalesce(round(seconds * {MICROS}), 0) as bigint)",
        needs_seconds=True,
        scale=60 * MICROS,
    )


def _played_shares(measure: Measure, origins: Sequence[str]) -> Feature:
    return Feature(
        _named("share", origins),
        ("play",),
        _sorted(origins),
        also=_TIMED,
        amount=f"cast(round(least(seconds / length, 1) * {SHARE}) as bigint)",
        needs=("play",),
        needs_length=True,
        scale=SHARE,
    )


def _amounts(measure: Measure, origins: Sequence[str]) -> Feature:
    event = str(measure.event)
    return Feature(
        _named(f"amount_{event}", origins),
        (event,),
        _sorted(origins),
        amount=f"cast(round(coalesce(amount, 0) * {MICROS}) as bigint)",
        needs=(event,),
        needs_amount=True,
        scale=MICROS,
    )


# What a kind of measure reads, as a feature: the engine's one case of a new measure.
_READS: dict[Reads, Callable[[Measure, Sequence[str]], Feature]] = {
    "activity": lambda measure, origins: activity(origins),
    "events": lambda measure, origins: events_of(str(measure.counted), origins),
    "seconds": _engaged_seconds,
    "sessions": lambda measure, origins: SESSIONS,
    "shares": _played_shares,
    "amounts": _amounts,
}


def divisor(measure: Measure, origins: Sequence[str]) -> Feature | None:
    """What a ratio's amount is divided by, null where the measure is no ratio."""
    if measure.record.is_mean:
        timed = Feature(
            _named("lasted", origins),
            ("play",),
            _sorted(origins),
            _TIMED,
            needs=("play",),
            needs_length=True,
        )
        return narrowed(timed, measure)
    return None if measure.per is None else feature(measure.per, origins)


# -- words of days
# -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Calendar:
    """The days that words stand for: `blocks` words of 60 days each.

    A short log is one row of words per unit, from day `base` on. A long one is cut into eras: a
    unit has a row (column `era`) for each era with anything in it, so that what words cost follows
    the events, not the years between them. Where the log is short stretches with silences between
    them that no window bridges, each stretch is an era (`starts`). Else an era is `step` days;
    beside these its row has `before` days before them and as many after as windows reach, so that
    one row answers an entry on an own day.

    >>> year = Calendar.of(20_000, 20_300)
    >>> year.blocks, year.long
    (6, False)
    >>> stretches = Calendar.of(12_000, 20_100, reach=(28, 28), stretches=((12_000, 12_000), (20_000, 20_100)))
    >>> stretches.blocks, stretches.starts
    (2, (12000, 20000))
    >>> years = Calendar.of(12_000, 20_300, reach=(28, 28))
    >>> years.blocks, years.step, years.before
    (8, 360, 60)
    """

    base: int
    blocks: int
    step: int = 0
    before: int = 0
    starts: tuple[int, ...] = ()

    @classmethod
    def of(
        cls,
        first: int,
        last: int,
        reach: tuple[int, int] = (0, 0),
        stretches: Sequence[tuple[int, int]] = (),
    ) -> Calendar:
        """The words that hold the days first..last (since 1970).

        Args:
            first: first day, since 1970.
            last: last day, since 1970.
            reach: days before and after an entry's that are asked.
            stretches: first and last day of what the log consists of, with silences between them
                that are longer than any reach; none: not known.
        """
        most = MANY_BLOCKS * BITS
        if last - first < most:
            return cls(first, max(last - first, 0) // BITS + 1)
        if stretches and all(stop - start < most for start, stop in stretches):
            return cls(
                first,
                max(stop - start for start, stop in stretches) // BITS + 1,
                starts=tuple(start for start, _ in stretches),
            )
        before, after = (-(-days // BITS) * BITS for days in reach)
        eras_before = (
            first + SHIFT_DAYS
        ) // most  # so that eras are counted from 0, whatever the day
        return cls(
            first - before - eras_before * most, (before + most + after) // BITS, most, before
        )

    @property
    def long(self) -> bool:
        """Whether there are eras."""
        return bool(self.step or self.starts)

    def columns(self, unit: str, name: str) -> list[str]:
        """The columns that hold a feature's words of a unit."""
        return [f"{unit}_{name}_{block}" for block in range(self.blocks)]

    @property
    def own_blocks(self) -> range:
        """The blocks of an era's own days; all where rows have no others."""
        return (
            range(self.before // BITS, (self.before + self.step) // BITS)
            if self.step
            else range(self.blocks)
        )

    @property
    def era_key(self) -> str:
        """What rows of words are told apart by besides their unit, with a comma before it: the
        column `era` of a long log."""
        return ", era" if self.long else ""

    @property
    def row_start(self) -> str:
        """SQL of the day of a row's first bit."""
        if self.starts:
            return (
                "(case era "
                f"{' '.join(f'when {era} then {start}' for era, start in enumerate(self.starts))} "
                "end)"
            )
        return f"({self.base} + era * {self.step})" if self.step else str(self.base)

    def era(self, day: str) -> str:
        """SQL of the era to which a day (SQL) belongs."""
        if self.starts:
            return self._by_start(day, range(len(self.starts)))
        return f"(({day} - {self.base + self.before}) // {self.step})"

    def start(self, day: str) -> str:
        """SQL of the day of the first bit of the row that answers an entry of a day (SQL)."""
        if self.starts:
            return self._by_start(day, self.starts)
        return f"({self.base} + {self.era(day)} * {self.step})" if self.step else str(self.base)

    def same_era(self, table: str, day: str) -> str:
        """SQL of a further test of a join: the row of `table` is of the era of a day (SQL)."""
        return f" and {table}.era = {self.era(day)}" if self.long else ""

    def _by_start(self, day: str, values: Sequence[int]) -> str:
        """SQL of the value of the last stretch that starts on a day (SQL) or before it, else of the
        first."""
        later = list(zip(self.starts[1:], values[1:], strict=True))[::-1]
        if not later:
            return f"({values[0]})"
        return (
            "(case "
            f"{' '.join(f'when {day} >= {start} then {value}' for start, value in later)} else "
            f"{values[0]} end)"
        )


def words(unit: str, rows: str, features: Sequence[Feature], calendar: Calendar) -> str:
    """SQL of (user_id, key, words of every feature: on which days it had any), one row per unit and
    era; `rows` from `Rows.daily` with flags.

    Of pairs also `creator`, and the words are named like those of items.
    """
    keys, blocks = (
        {"user": "user_id", "pair": "user_id, key, creator"}.get(unit, "user_id, key"),
        range(calendar.blocks),
    )
    names = [one.name for one in features]
    era = f", {calendar.era('day')} as era" if calendar.starts else ""
    start = calendar.start("day") if calendar.starts else calendar.base
    source, found = (
        _masks(
            f"select {keys}{era}, day - {start} as place, {', '.join(names)} from ({rows})", names
        ),
        "bit_{block} & {name}",
    )
    if (
        calendar.step
    ):  # put together what is of one block, then lay the block into every era that reads it
        source = (
            f"select {keys}, block, "
            f"{', '.join(f'bit_or(bit & {name}) as {name}' for name in names)} from ({source}) "
            f"group by {keys}, block"
        )
        source, found = _in_eras(source, calendar), "case when block = {block} then {name} end"
    else:
        source = (
            "select *, "
            f"{', '.join(f'case when block = {block} then bit else 0 end as bit_{block}' for block in blocks)} "
            f"from ({source})"
        )
    columns = ", ".join(
        f"coalesce(bit_or({found.format(block=block, name=name)}), 0) as {column}"
        for name in names
        for block, column in enumerate(calendar.columns("item" if unit in PAIRS else unit, name))
    )
    named = "user_id, cast(null as varchar) as key" if unit == "user" else keys
    return (
        f"select {named}{calendar.era_key}, {columns} from ({source}) group by "
        f"{keys}{calendar.era_key}"
    )


def _in_eras(source: str, calendar: Calendar) -> str:
    """SQL of `source` (a row per unit and `block`, counted from the calendar's base) with its
    `era`, and `block` counted from the era's first."""
    in_step = calendar.step // BITS
    copies = -(-calendar.blocks // in_step)
    eras = (
        f"select *, block // {in_step} - copy as era from ({source}) cross join (select "
        f"{numbers(copies)} as copy)"
    )
    return (
        f"select * exclude (block, copy), block - era * {in_step} as block from ({eras}) where "
        f"block - era * {in_step} < {calendar.blocks}"
    )


def _masks(rows: str, names: Sequence[str]) -> str:
    """SQL of `rows` with the `block` and `bit` of each row's `place`, and every flag as a mask:
    ands cost half of what cases do."""
    masks = ", ".join(f"-cast({name} as bigint) as {name}" for name in names)
    return (
        f"select * replace ({masks}), place // {BITS} as block, cast(1 as bigint) << (place % "
        f"{BITS}) as bit from ({rows})"
    )


def words_by_block(rows: Sequence[str], features: Sequence[Feature], calendar: Calendar) -> str:
    """SQL of `words` of users from the rows of every block on its own: a third of the sums per row
    where a log has three blocks."""
    names = [one.name for one in features]
    columns = [
        (block, name, column)
        for name in names
        for block, column in enumerate(calendar.columns("user", name))
    ]
    parts = []
    for block, of_block in enumerate(rows):
        bits = _masks(
            f"select user_id, day - {calendar.base} as place, {', '.join(names)} from ({of_block})",
            names,
        )
        own = ", ".join(
            f"coalesce(bit_or(bit & {name}), 0) as {column}"
            if at == block
            else f"cast(0 as bigint) as {column}"
            for at, name, column in columns
        )
        parts.append(f"select user_id, {own} from ({bits}) group by user_id")
    together = ", ".join(f"bit_or({column}) as {column}" for _, _, column in columns)
    return (
        f"select user_id, cast(null as varchar) as key, {together} from "
        f"({' union all '.join(parts)}) group by user_id"
    )


def coarser(
    unit: str, source: str, finer: str, features: Sequence[Feature], calendar: Calendar
) -> str:
    """SQL of the words of `unit` from `source`, which has those of the finer unit `finer`; a
    creator is its column `creator`."""
    key = {"user": "cast(null as varchar)", "creator": "creator", "item": "key"}[unit]
    columns = ", ".join(
        f"bit_or({have}) as {column}"
        for one in features
        for have, column in zip(
            calendar.columns(finer, one.name), calendar.columns(unit, one.name), strict=True
        )
    )
    keys = "user_id" if unit == "user" else f"user_id, {key}"
    return (
        f"select user_id, {key} as key{calendar.era_key}, {columns} from {source} group by "
        f"{keys}{calendar.era_key}"
    )


def aligned(place: str, calendar: Calendar) -> str:
    """SQL of the columns `block` and `shift`: where in its words the day `place` (counted from the
    base, maybe outside) is; `ahead` reads them."""
    moved = f"least(greatest({place}, {-BITS}), {calendar.blocks * BITS}) + {BITS}"
    return f"({moved}) // {BITS} as block, ({moved}) % {BITS} as shift"


def ahead(columns: Sequence[str], number: int) -> str:
    """SQL of the 60 days from `60 * number` days after the aligned one on, as one word: its bit 0
    is that day; what is outside the calendar is 0."""

    def at(block: int) -> str:  # `block` counts from 1, 0 is before the calendar
        whens = " ".join(
            f"when {place - block} then {column}"
            for place, column in enumerate(columns, start=1)
            if place >= block
        )
        return f"(case block {whens} else 0 end)" if whens else "0"

    return (
        f"(({at(number)} >> shift) | (({at(number + 1)} & ((cast(1 as bigint) << shift) - 1)) "
        f"<< ({BITS} - shift)))"
    )


def _window(words: Sequence[str], low: int, high: int) -> list[tuple[int, str]]:
    """The words that hold the days low..high after the aligned one, without other days: (day of bit
    0, SQL)."""
    found = []
    for number in range(low // BITS, high // BITS + 1):
        first, last = max(low - number * BITS, 0), min(high - number * BITS, BITS - 1)
        mask = ((1 << (last - first + 1)) - 1) << first
        found.append(
            (
                number * BITS,
                words[number] if last - first == BITS - 1 else f"({words[number]} & {mask})",
            )
        )
    return found


def count_days(words: Sequence[str], low: int, high: int) -> str:
    """SQL of how many of the days low..high after the aligned one (both included) are set in the
    words `ahead`."""
    return how_many([word for _, word in _window(words, low, high)])


def count_weeks(words: Sequence[str], low: int, high: int) -> str:
    """SQL of how many weeks of these days have a day that is set: 7 days each, counted from `low`;
    the last may be shorter.

    >>> count_weeks(["w"], 1, 10)
    'cast((w & 254) <> 0 as integer) + cast((w & 1792) <> 0 as integer)'
    """
    weeks = (_window(words, day, min(day + 6, high)) for day in range(low, high + 1, 7))
    return " + ".join(
        f"cast({' | '.join(word for _, word in week)} <> 0 as integer)" for week in weeks
    )


def first_day(words: Sequence[str], low: int, high: int) -> str:
    """SQL of the first of these days that is set, counted from the aligned one; null where none
    is."""
    return _first(_window(words, low, high))


def _first(words: Iterable[tuple[int, str]]) -> str:
    """SQL of the day of the first bit set in these words, given with the day of their bit 0; null
    where none is."""
    places = (
        f"case when {word} <> 0 then {first} + {_bits(f'({word} & -{word}) - 1')} end"
        for first, word in words
    )
    return f"coalesce({', '.join(places)})"


def how_many(words: Sequence[str]) -> str:
    """SQL of how many bits are set in these words."""
    return " + ".join(_bits(word) for word in words)


def first_bit(words: Sequence[str]) -> str:
    """SQL of the place of the first bit set in these words, null where none is."""
    return _first((block * BITS, word) for block, word in enumerate(words))


def _bits(word: str) -> str:
    return set_bits(word)


def smear(
    source: str,
    unit: str,
    name: str,
    days: int | None,
    calendar: Calendar,
    into: str = "c",
    dialect: Dialect = DUCKDB.dialect,
) -> str:
    """SQL of `source` with words `into`: the days of feature `name` of which none of the `days`
    days before has one.

    Null: the first day of all. The days before are gathered by doubling: bits shifted by 1, by 1
    and 2, by 1 to 4, ...
    """
    blocks = range(calendar.blocks)
    if days is None or days >= calendar.blocks * BITS:
        days = calendar.blocks * BITS - 1  # all there are

    def shifted(word: str, by: int, block: int) -> str:
        whole, rest = divmod(by, BITS)
        parts = []
        if block >= whole:
            keep = (1 << (BITS - rest)) - 1
            parts.append(
                f"(({word}_{block - whole} & {keep}) << {rest})"
                if rest
                else f"{word}_{block - whole}"
            )
        if rest and block > whole:
            parts.append(f"({word}_{block - whole - 1} >> {BITS - rest})")
        return " | ".join(parts) or "cast(0 as bigint)"

    def spread(word: str, by: int) -> list[str]:
        return [f"{word}_{block} | {shifted(word, by, block)}" for block in blocks]

    covered, later = 1, list[Step]()
    while covered < days:
        by = min(covered, days - covered)
        later.append(partial(spread, by=by))
        covered += by
    source = dialect.in_steps(
        source, "s", [shifted(f"{unit}_{name}", 1, block) for block in blocks], later
    )
    fresh = ", ".join(
        f"{column} & ~s_{block} as {into}_{block}"
        for block, column in enumerate(calendar.columns(unit, name))
    )
    return (
        f"(select * exclude ({', '.join(f's_{block}' for block in blocks)}), {fresh} from {source})"
    )


# -- sums over ranges of days
# ------------------------------------------------------------------------


def range_sums(
    unit: str,
    entries: str | None,
    rows: str,
    sums: dict[str, tuple[str, int, int]],
    once: bool = False,
    active: str = "true",
    dialect: Dialect = DUCKDB.dialect,
) -> str:
    """SQL of (user_id, key, day, a column per sum) for every distinct (user_id, key, day) of
    `entries`.

    Args:
        unit: user, creator, item or pair.
        entries: SQL of user_id, key (null for users) and day; null: every day of `rows` on which
            `active` (SQL) holds.
        rows: SQL of `Rows.daily`.
        once: there is one per unit and day.
        sums: column -> (feature's name, first day, last day) with days counted from the entry's
            own, both included. Amounts are whole numbers >= 0.
        dialect: of the engine that computes it.
        active: SQL of whether a day of `rows` is one to sum at; only without `entries`.
    """
    names = sorted({name for name, _, _ in sums.values()})
    keys = "user_id" if unit == "user" else "user_id, key"

    def bound(day: int) -> str:
        return f"{-day} preceding" if day < 0 else f"{day} following" if day > 0 else "current row"

    if entries is None:
        asked, both = active, rows
    else:
        asked, nothing = "asked", ", ".join("cast(null as bigint)" for _ in names)
        both = (
            f"select {keys}, day, false as asked, {', '.join(names)} from ({rows}) union all "
            f"select {keys}, day, true, {nothing} from ({entries})"
        )
    any_asked, in_all, grouped = (
        ("", "", "") if once and entries is None else ("bool_or", "sum", f" group by {keys}, day")
    )
    amounts = ", ".join(
        f"cast(coalesce({in_all}({name}), 0) as bigint) as {name}" for name in names
    )
    days = (
        f"select {keys}, day, coalesce({any_asked}({asked}), false) as asked, {amounts} from "
        f"({both}){grouped}"
    )
    windows, columns = list[str](), dict[str, str]()
    for low, high in dict.fromkeys((low, high) for _, low, high in sums.values()):
        of_days = [column for column, (_, *own) in sums.items() if own == [low, high]]
        over = (
            f"over (partition by {keys} order by day range between {bound(low)} and {bound(high)})"
        )
        amounts_of_days = {column: sums[column][0] for column in of_days}
        added, made = dialect.window_sums(amounts_of_days, over, len(windows))
        windows += added
        columns |= made
    key = "cast(null as varchar)" if unit == "user" else "key"
    summed = f"select *, {', '.join(windows)} from ({days})"
    return (
        f"select user_id, {key} as key, day, {', '.join(columns[one] for one in sums)} from "
        f"({summed}) where asked"
    )
