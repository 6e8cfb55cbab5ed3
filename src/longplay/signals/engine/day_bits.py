"""Day bitmaps in SQL: on which days a user (or a pair of user and key) had a feature, and how many
days of a window are set.

A bitmap is a row of words of 60 days. A word is a BIGINT of which 60 bits are used, since DuckDB
raises on `1 << 63`; sums of BIGINT are HUGEINT, which Parquet would store as DOUBLE, so they are
cast.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

from longplay.signals.engine.calendar import BITS, Calendar
from longplay.signals.engine.dialect import Dialect, Step
from longplay.signals.engine.duckdb import DUCKDB, numbers, set_bits
from longplay.signals.engine.features import Feature

UNITS = ("user", "creator", "item")  # a user, or a pair of a user and that key
# a user with an item and its event's creator, as two keys or as one
PAIRS = ("pair", "item_creator")

# -- building bitmaps ------------------------------------------------------------------------------


def bitmaps_sql(unit: str, rows: str, features: Sequence[Feature], calendar: Calendar) -> str:
    """SQL of bitmaps: user_id, key, and the words of every feature; one row per unit and era.

    Args:
        unit: user, creator, item, or one of `PAIRS`. Bitmaps of pairs also have `creator`, and
            their words are named like those of items.
        rows: SQL of `Rows.daily` with flags.
        features: what sets a day's bit.
        calendar: the days that the bits stand for.
    """
    keys = {"user": "user_id", "pair": "user_id, key, creator"}.get(unit, "user_id, key")
    names = [feature.name for feature in features]
    era = f", {calendar.era('day')} as era" if calendar.starts else ""
    start = calendar.start("day") if calendar.starts else calendar.base
    places = f"select {keys}{era}, day - {start} as place, {', '.join(names)} from ({rows})"
    source = _with_masks(places, names)
    if calendar.step:
        # gather the days of each word, then copy the word into every era whose rows hold it
        gathered = ", ".join(f"bit_or(bit & {name}) as {name}" for name in names)
        source = f"select {keys}, word, {gathered} from ({source}) group by {keys}, word"
        source = _copied_into_eras(source, calendar)
        bits_of_word = "case when word = {word} then {name} end"
    else:
        bits = ", ".join(
            f"case when word = {word} then bit else 0 end as bit_{word}"
            for word in range(calendar.words)
        )
        source = f"select *, {bits} from ({source})"
        bits_of_word = "bit_{word} & {name}"
    unit_of_columns = "item" if unit in PAIRS else unit
    columns = ", ".join(
        f"coalesce(bit_or({bits_of_word.format(word=word, name=name)}), 0) as {column}"
        for name in names
        for word, column in enumerate(calendar.columns(unit_of_columns, name))
    )
    keys_with_null = "user_id, cast(null as varchar) as key" if unit == "user" else keys
    return (
        f"select {keys_with_null}{calendar.era_key}, {columns} from ({source}) group by "
        f"{keys}{calendar.era_key}"
    )


def _copied_into_eras(source: str, calendar: Calendar) -> str:
    """SQL of `source` with a copy of each row for every era whose bitmaps hold its word.

    Args:
        source: SQL of a row per unit and `word`, counted from the calendar's first.
        calendar: with eras of `step` days.

    Returns:
        SQL with the column `era`, and `word` counted from the era's first.
    """
    words_per_step = calendar.step // BITS
    copies = -(-calendar.words // words_per_step)
    eras = (
        f"select *, word // {words_per_step} - copy as era from ({source}) cross join (select "
        f"{numbers(copies)} as copy)"
    )
    word_in_era = f"word - era * {words_per_step}"
    return (
        f"select * exclude (word, copy), {word_in_era} as word from ({eras}) where "
        f"{word_in_era} < {calendar.words}"
    )


def _with_masks(rows: str, names: Sequence[str]) -> str:
    """SQL of `rows` with the `word` and `bit` of each row's `place`, and every flag as a mask of
    all bits or none. An "and" with a mask costs half of what a "case" does."""
    masks = ", ".join(f"-cast({name} as bigint) as {name}" for name in names)
    return (
        f"select * replace ({masks}), place // {BITS} as word, cast(1 as bigint) << (place % "
        f"{BITS}) as bit from ({rows})"
    )


def user_bitmaps_sql(
    rows_by_word: Sequence[str], features: Sequence[Feature], calendar: Calendar
) -> str:
    """SQL of the bitmaps of users, from the rows of each word's days read separately.

    Equal to `bitmaps_sql`, with fewer sums per row: a third where a log has three words.

    Args:
        rows_by_word: SQL of `Rows.daily` with flags, for the days of each word.
        features: what sets a day's bit.
        calendar: of a log without eras.
    """
    names = [feature.name for feature in features]
    columns = [
        (word, name, column)
        for name in names
        for word, column in enumerate(calendar.columns("user", name))
    ]
    parts = []
    for word, rows in enumerate(rows_by_word):
        places = f"select user_id, day - {calendar.base} as place, {', '.join(names)} from ({rows})"
        words = ", ".join(
            f"coalesce(bit_or(bit & {name}), 0) as {column}"
            if column_word == word
            else f"cast(0 as bigint) as {column}"
            for column_word, name, column in columns
        )
        parts.append(
            f"select user_id, {words} from ({_with_masks(places, names)}) group by user_id"
        )
    united = ", ".join(f"bit_or({column}) as {column}" for _, _, column in columns)
    return (
        f"select user_id, cast(null as varchar) as key, {united} from "
        f"({' union all '.join(parts)}) group by user_id"
    )


def coarser_bitmaps_sql(
    unit: str, source: str, finer_unit: str, features: Sequence[Feature], calendar: Calendar
) -> str:
    """SQL of the bitmaps of a unit from those of a finer unit.

    Args:
        unit: user, creator or item.
        source: SQL of the finer bitmaps; the key of a creator is their column `creator`.
        finer_unit: the unit that the columns of `source` are named by.
        features: those of `source`.
        calendar: of both.
    """
    key = {"user": "cast(null as varchar)", "creator": "creator", "item": "key"}[unit]
    columns = ", ".join(
        f"bit_or({finer}) as {coarser}"
        for feature in features
        for finer, coarser in zip(
            calendar.columns(finer_unit, feature.name),
            calendar.columns(unit, feature.name),
            strict=True,
        )
    )
    keys = "user_id" if unit == "user" else f"user_id, {key}"
    return (
        f"select user_id, {key} as key{calendar.era_key}, {columns} from {source} group by "
        f"{keys}{calendar.era_key}"
    )


# -- counting days after an entry ------------------------------------------------------------------


def alignment_sql(place: str, calendar: Calendar) -> str:
    """SQL of the columns `word` and `shift`: where a row's bitmap holds a day. `aligned_word` reads
    them.

    Args:
        place: SQL of the day, counted from the row's first bit; it may lie outside the row.
        calendar: of the bitmap.
    """
    clamped = f"least(greatest({place}, {-BITS}), {calendar.words * BITS}) + {BITS}"
    return f"({clamped}) // {BITS} as word, ({clamped}) % {BITS} as shift"


def aligned_word(columns: Sequence[str], number: int) -> str:
    """SQL of a word that begins `60 * number` days after the aligned day: its bit 0 is that day.

    Days outside the calendar are 0.

    Args:
        columns: the words of a bitmap; the row also has the columns of `alignment_sql`.
        number: of the word, from 0.
    """

    def word_at(offset: int) -> str:  # `word` counts from 1; 0 lies before the calendar
        whens = " ".join(
            f"when {place - offset} then {column}"
            for place, column in enumerate(columns, start=1)
            if place >= offset
        )
        return f"(case word {whens} else 0 end)" if whens else "0"

    low_bits = f"({word_at(number)} >> shift)"
    next_mask = "((cast(1 as bigint) << shift) - 1)"
    high_bits = f"(({word_at(number + 1)} & {next_mask}) << ({BITS} - shift))"
    return f"({low_bits} | {high_bits})"


def _masked_words(words: Sequence[str], low: int, high: int) -> list[tuple[int, str]]:
    """The aligned words that hold the days low..high, with all other days set to 0: the day of each
    word's bit 0, and its SQL."""
    masked = []
    for number in range(low // BITS, high // BITS + 1):
        first = max(low - number * BITS, 0)
        last = min(high - number * BITS, BITS - 1)
        word = words[number]
        if last - first < BITS - 1:
            mask = ((1 << (last - first + 1)) - 1) << first
            word = f"({word} & {mask})"
        masked.append((number * BITS, word))
    return masked


def count_days(words: Sequence[str], low: int, high: int) -> str:
    """SQL of how many of the days low..high are set.

    Args:
        words: SQL of the words of `aligned_word`.
        low: first day, counted from the aligned one.
        high: last day, included.
    """
    return count_bits([word for _, word in _masked_words(words, low, high)])


def count_weeks(words: Sequence[str], low: int, high: int) -> str:
    """SQL of how many weeks of the days low..high have a day that is set. A week is 7 days counted
    from `low`; the last may be shorter. Arguments as in `count_days`.

    >>> count_weeks(["w"], 1, 10)
    'cast((w & 254) <> 0 as integer) + cast((w & 1792) <> 0 as integer)'
    """
    weeks = (_masked_words(words, day, min(day + 6, high)) for day in range(low, high + 1, 7))
    return " + ".join(
        f"cast({' | '.join(word for _, word in week)} <> 0 as integer)" for week in weeks
    )


def first_day(words: Sequence[str], low: int, high: int) -> str:
    """SQL of the first of the days low..high that is set; null where none is. Arguments as in
    `count_days`."""
    return _first_set(_masked_words(words, low, high))


def _first_set(words: Iterable[tuple[int, str]]) -> str:
    """SQL of the first day that is set in these words, each with the day of its bit 0; null where
    none is."""
    places = (
        f"case when {word} <> 0 then {first} + {set_bits(f'({word} & -{word}) - 1')} end"
        for first, word in words
    )
    return f"coalesce({', '.join(places)})"


def count_bits(words: Sequence[str]) -> str:
    """SQL of how many bits are set in these words."""
    return " + ".join(set_bits(word) for word in words)


def first_bit(words: Sequence[str]) -> str:
    """SQL of the place of the first bit that is set in these words; null where none is."""
    return _first_set((number * BITS, word) for number, word in enumerate(words))


# -- days without any before -----------------------------------------------------------------------


def with_new_days(
    source: str,
    unit: str,
    name: str,
    gap_days: int | None,
    calendar: Calendar,
    new_name: str = "c",
    dialect: Dialect = DUCKDB.dialect,
) -> str:
    """SQL of `source` with one more bitmap: the days of a feature that is set on none of the days
    just before.

    The days before are gathered by doubling: bits shifted by 1, then by 1 and 2, then by 1 to 4,
    and so on.

    Args:
        source: SQL of bitmaps.
        unit: that the columns of `source` are named by.
        name: of the feature.
        gap_days: how many days before must not be set; null: all.
        calendar: of the bitmaps.
        new_name: of the new bitmap; its words are `NAME_0`, `NAME_1`, ...
        dialect: of the engine.
    """
    words = range(calendar.words)
    if gap_days is None or gap_days >= calendar.words * BITS:
        gap_days = calendar.words * BITS - 1

    def shifted(stem: str, days: int, word: int) -> str:
        """SQL of a word of the bitmap `stem` moved to later days."""
        whole_words, rest = divmod(days, BITS)
        parts = []
        if word >= whole_words:
            moved = f"{stem}_{word - whole_words}"
            if rest:
                low_bits = (1 << (BITS - rest)) - 1
                moved = f"(({moved} & {low_bits}) << {rest})"
            parts.append(moved)
        if rest and word > whole_words:
            parts.append(f"({stem}_{word - whole_words - 1} >> {BITS - rest})")
        return " | ".join(parts) or "cast(0 as bigint)"

    def spread(stem: str, days: int) -> list[str]:
        return [f"{stem}_{word} | {shifted(stem, days, word)}" for word in words]

    covered_days = 1
    steps = list[Step]()
    while covered_days < gap_days:
        days = min(covered_days, gap_days - covered_days)
        steps.append(partial(spread, days=days))
        covered_days += days
    shifted_by_1 = [shifted(f"{unit}_{name}", 1, word) for word in words]
    source = dialect.in_steps(source, "s", shifted_by_1, steps)
    new_days = ", ".join(
        f"{column} & ~s_{word} as {new_name}_{word}"
        for word, column in enumerate(calendar.columns(unit, name))
    )
    return (
        f"(select * exclude ({', '.join(f's_{word}' for word in words)}), {new_days} from {source})"
    )
