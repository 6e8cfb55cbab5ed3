"""Guessing the roles of columns: user, item, time and the rest, by name and by content."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import cast

import polars as pl

from longplay.errors import DataError, LongplayError
from longplay.lake.adapters.cells import ids, numbers, times
from longplay.lake.adapters.column_words import (
    COLUMN_NAMES,
    KIND_WORDS,
    ORIGIN_WORDS,
    PROPENSITY_NAMES,
    SHOP_WORDS,
    VIEW_WORDS,
    plain,
)
from longplay.lake.adapters.known_roles import known_columns
from longplay.lake.adapters.time_formats import time_format_of
from longplay.lake.sift import EARLIEST

MOST_WORDS = 60  # most different values of a column of kinds or origins
ENOUGH = 0.9  # share of a column's values that must fit its role
TOO_LONG_S = 21_600  # a median duration above six hours is in milliseconds


@dataclass(frozen=True)
class Roles:
    """The role of each column, and the format of its values.

    Attributes:
        columns: longplay column -> source column.
        constants: longplay column -> the value of every row.
        kinds: source word -> longplay word.
        origins: source word -> longplay word.
        time_format: as of `read_table`.
        seconds_unit: as of `read_table`.
        length_unit: as of `read_table`.
        first: the first time in the sample, UTC.
        last: the last time in the sample, UTC.
        users: number of different users in the sample.
        items: number of different items in the sample.
        kind_words: longplay kinds that occur in the sample.
        origin_words: longplay origins that occur in the sample; organic alone where no column holds
            origins.
        bad_share: share of the sample's rows that are no event, in [0, 1].
        notes: what was guessed, and what was seen but not used, a sentence each.
        has_propensity: whether a column holds probabilities of what was shown.
    """

    columns: Mapping[str, str]
    constants: Mapping[str, str]
    kinds: Mapping[str, str]
    origins: Mapping[str, str]
    time_format: str | None
    seconds_unit: str
    length_unit: str
    first: datetime
    last: datetime
    users: int
    items: int
    kind_words: tuple[str, ...]
    origin_words: tuple[str, ...]
    bad_share: float
    notes: tuple[str, ...] = ()
    has_propensity: bool = False


@dataclass
class _Search:
    """The columns that have been given a role, and notes on them."""

    sample: pl.DataFrame
    taken: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def columns_named(self, role: str) -> list[str]:
        """Columns without a role whose names match this one, the best match first."""
        by_key = {
            plain(name): name
            for name in reversed(self.sample.columns)
            if name not in self.taken.values()
        }
        return [by_key[key] for key in map(plain, COLUMN_NAMES[role]) if key in by_key]


def roles_of(sample: pl.DataFrame, log: str, all_times: pl.Series | None = None) -> Roles:
    """The roles of a log's columns.

    Args:
        sample: rows from several places.
        log: names the log in messages.
        all_times: gives the span; null: the sample gives it.

    Raises:
        DataError: no column is a time, a user or an item.
    """
    search = _Search(sample)
    time_column, time_format = _time(search, log)
    search.taken["time"] = time_column
    _ids(search, log)
    kinds, kind_constant = _kinds(search)
    origins = _origins(search)
    seconds_unit = _amount(search, "seconds")
    length_unit = _amount(search, "length")
    for role in (
        "creator_id",
        "event_id",
        "session_id",
        "title",
        "tags",
        "surface",
        "ingested_at",
        "decision_id",
        "slot",
    ):
        _describe(search, role, time_format)
    moments = times(sample[time_column], time_format, "UTC")
    span = moments if all_times is None else times(all_times, time_format, "UTC")
    span = span.filter(span.is_between(EARLIEST, datetime.now(UTC)).fill_null(False))
    if span.is_empty():
        raise DataError(
            f"{log}: no time of column {time_column!r} lies between {EARLIEST:%Y} and now, first "
            f"{sample[time_column].drop_nulls()[0]!r}"
        )
    columns = {name: search.taken[name] for name in COLUMN_NAMES if name in search.taken}
    if "kind" in columns:
        words = ids(sample[columns["kind"]]).replace(kinds)
    else:
        words = pl.Series([kind_constant])
    bad = moments.is_null() | ids(sample[columns["user_id"]]).is_null()
    if "kind" in columns:
        bad = bad | ~words.is_in(list(KIND_WORDS)).fill_null(False)
    if "origin" in columns:
        origin_words = ids(sample[columns["origin"]]).replace(origins)
    else:
        origin_words = pl.Series(["organic"])
    propensity = [name for name in sample.columns if plain(name) in map(plain, PROPENSITY_NAMES)]
    return Roles(
        columns=columns,
        constants={} if "kind" in columns else {"kind": kind_constant},
        kinds=kinds,
        origins=origins,
        time_format=time_format,
        seconds_unit=seconds_unit,
        length_unit=length_unit,
        first=_moment(span.min()),
        last=_moment(span.max()),
        users=sample[columns["user_id"]].n_unique(),
        items=sample[columns["item_id"]].drop_nulls().n_unique(),
        kind_words=tuple(sorted(set(words.drop_nulls()) & set(KIND_WORDS))),
        origin_words=tuple(sorted(set(origin_words.drop_nulls()) & set(ORIGIN_WORDS))),
        bad_share=int(bad.sum()) / max(len(bad), 1),
        notes=tuple(search.notes),
        has_propensity=bool(propensity),
    )


def description_of(sample: pl.DataFrame, item: str) -> dict[str, str]:
    """Which columns of a catalogue describe its items: creator_id, title, tags, length, vector and
    attributes.

    Args:
        sample: rows of the catalogue.
        item: the column of item ids.
    """
    search = _Search(sample, {"item_id": item})
    for role in ("creator_id", "title", "tags"):
        _describe(search, role, None)
    _amount(search, "length")
    for role, source in known_columns(sample).items():
        search.taken[role] = source
    return {role: name for role, name in search.taken.items() if role != "item_id"}


def _moment(value: object) -> datetime:
    assert isinstance(value, datetime)  # of a column of times that is not empty
    return value


def _time(search: _Search, log: str) -> tuple[str, str | None]:
    """Find the column of times, by name, else by content, and its format."""
    other_columns = [
        name for name in search.sample.columns if name not in search.columns_named("time")
    ]
    for column in search.columns_named("time"):
        try:
            return column, time_format_of(search.sample[column])
        except LongplayError:
            continue
    for column in other_columns:
        if search.sample[column].dtype.is_float():
            continue
        try:
            time_format = time_format_of(search.sample[column])
        except LongplayError:
            continue
        search.notes.append(f"{column} is taken as the time, by what it holds")
        return column, time_format
    raise DataError(
        f"{log}: no column is a time; it has {', '.join(search.sample.columns)}. Write run.toml "
        "by hand: longplay init"
    )


def _ids(search: _Search, log: str) -> None:
    """Find the columns of user and item, by name, else by content."""
    for role in ("user_id", "item_id"):
        usable = [column for column in search.columns_named(role) if _is_id(search.sample[column])]
        if usable:
            search.taken[role] = usable[0]
    for role in ("user_id", "item_id"):
        if role in search.taken:
            continue
        columns_of_other_roles = {
            column
            for other in COLUMN_NAMES
            for column in search.columns_named(other)
            if other not in ("user_id", "item_id")
        }
        left = [
            name
            for name in search.sample.columns
            if name not in search.taken.values() and name not in columns_of_other_roles
        ]
        usable = [
            name
            for name in left
            if _is_id(search.sample[name])
            and 2 <= search.sample[name].n_unique() < max(3, 0.98 * search.sample.height)
        ]
        if not usable:
            word = role.removesuffix("_id")
            has = ", ".join(search.sample.columns)
            raise DataError(
                f"{log}: no column looks like the {word}; it has {has}. Write run.toml by hand: "
                "longplay init"
            )
        search.taken[role] = max(usable, key=lambda name: search.sample[name].n_unique())
        search.notes.append(
            f"{search.taken[role]} is taken as the {role.removesuffix('_id')}, by what it holds: "
            "look whether that is right"
        )


def _is_id(values: pl.Series) -> bool:
    try:
        id_texts = ids(values).drop_nulls()
    except LongplayError:
        return False
    if len(id_texts) < 0.5 * len(values):
        return False
    fractions = id_texts.str.contains(r"^-?\d+\.\d+$").mean() or 0.0
    return float(fractions) < 0.1 and int(id_texts.str.len_chars().max() or 0) <= 256  # type: ignore[arg-type]


def _words(values: pl.Series) -> list[str]:
    """The distinct values, most frequent first; empty where there are too many."""
    try:
        counts = ids(values).drop_nulls().value_counts(sort=True)
    except LongplayError:
        return []
    return counts[values.name].to_list() if 0 < counts.height <= MOST_WORDS else []


def _known_words(words: Sequence[str], vocabulary: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    by_word = {
        plain(word): meaning for meaning, synonyms in vocabulary.items() for word in synonyms
    }
    return {word: by_word[plain(word)] for word in words if plain(word) in by_word}


def _kinds(search: _Search) -> tuple[dict[str, str], str]:
    """Find the column of kinds. Returns source kind -> longplay kind, and the kind of every row
    where no column holds it."""
    is_shop = any(part in plain(name) for name in search.sample.columns for part in SHOP_WORDS)
    for column in search.columns_named("kind"):
        words = _words(search.sample[column])
        kind_of_word = _known_words(words, KIND_WORDS)
        sells = is_shop or "purchase" in kind_of_word.values()
        kind_of_word |= {
            word: "visit" if sells else "play"
            for word in words
            if plain(word) in map(plain, VIEW_WORDS)
        }
        if not kind_of_word:
            continue
        search.taken["kind"] = column
        if unknown := [word for word in words if word not in kind_of_word]:
            search.notes.append(
                f"rows whose {column} is {_listed(unknown)} go to quarantine: say in "
                "[ingest.kinds] what they are"
            )
        return {word: kind for word, kind in kind_of_word.items() if word != kind}, "play"
    kind = "purchase" if is_shop else "play"
    search.notes.append(
        f"no column says what was done: every row counts as a {kind} (ingest.constants)"
    )
    return {}, kind


def _origins(search: _Search) -> dict[str, str]:
    """Find the column of origins. Returns source word -> longplay origin."""
    for column in search.columns_named("origin"):
        words = _words(search.sample[column])
        origin_of_word = _known_words(words, ORIGIN_WORDS)
        if len(set(origin_of_word.values())) < 2 and set(origin_of_word.values()) <= {"organic"}:
            continue
        search.taken["origin"] = column
        if unknown := [word for word in words if word not in origin_of_word]:
            search.notes.append(
                f"rows whose {column} is {_listed(unknown)} are taken as organic: see "
                "[ingest.origins]"
            )
        empty = search.sample[column].null_count()
        if empty:
            del search.taken["origin"]
            search.notes.append(
                f"{column} looks like an origin, but {empty:,} of {search.sample.height:,} rows "
                "have none: not mapped"
            )
            continue
        return {
            word: origin_of_word.get(word, "organic")
            for word in words
            if origin_of_word.get(word, "organic") != word
        }
    return {}


def _amount(search: _Search, role: str) -> str:
    """Find a column of durations. Its unit follows from its name, else from its size."""
    for column in search.columns_named(role):
        values = search.sample[column]
        if values.dtype == pl.Duration:
            search.taken[role] = column
            return "s"
        try:
            amounts, bad = numbers(values, pl.Float64)
        except LongplayError:
            continue
        present_amounts = amounts.drop_nulls()
        many_bad = (bad.sum() or 0) > (1 - ENOUGH) * len(values)
        if present_amounts.is_empty() or many_bad or cast(float, present_amounts.min()) < 0:
            continue
        search.taken[role] = column
        key = column.lower()
        if (
            re.search(r"(^|[^a-z])(ms|msec|millis|milliseconds)([^a-z]|$)|Ms$|^ms", column)
            or "milli" in key
            or key.startswith("ms")
        ):
            return "ms"
        if re.search(r"(^|_)(min|mins|minutes)($|_)", key):
            return "min"
        positive = present_amounts.filter(present_amounts > 0)
        if len(positive) and float(positive.median() or 0) > TOO_LONG_S:  # type: ignore[arg-type]
            return "ms"
        return "s"
    return "s"


def _describe(search: _Search, role: str, time_format: str | None) -> None:
    """Find the first column with the role's name and suitable values."""
    for column in search.columns_named(role):
        values = search.sample[column]
        if role == "tags" and isinstance(values.dtype, pl.List):
            search.taken[role] = column
            return
        if role == "ingested_at":
            try:
                arrived = times(values, time_format, "UTC")
            except LongplayError:
                continue
            happened = times(search.sample[search.taken["time"]], time_format, "UTC")
            if arrived.null_count() == 0 and bool((arrived >= happened).fill_null(True).all()):
                search.taken[role] = column
                return
            continue
        if not _is_id(values):
            continue
        if (
            role == "creator_id"
            and not 2 < values.n_unique() < search.sample[search.taken["item_id"]].n_unique()
        ):
            continue  # a catalogue has several creators, with several items each
        if role == "event_id" and values.drop_nulls().n_unique() < values.len():
            continue
        search.taken[role] = column
        return


def _listed(words: Sequence[str]) -> str:
    shown = ", ".join(repr(word) for word in words[:5])
    return shown if len(words) <= 5 else f"{shown} or one of {len(words) - 5} others"
