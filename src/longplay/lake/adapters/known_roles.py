"""Guessing which files and columns say what a service knows of users and items."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from longplay.errors import LongplayError
from longplay.lake.adapters.column_words import (
    ATTRIBUTES_NAMES,
    COLUMN_NAMES,
    DESCRIBED_NAMES,
    VECTOR_NAMES,
    VECTOR_STEMS,
    plain,
)
from longplay.lake.adapters.known_columns import attributes_of, columns_like, vector_of
from longplay.lake.adapters.time_formats import time_format_of

ENOUGH = 0.9  # share of a column's values that must fit its role
LEAST_PLACES = 2  # numbered columns that make a vector


@dataclass(frozen=True)
class UserRoles:
    """The roles of the columns of a users file.

    Attributes:
        columns: longplay column -> source column or pattern, as of `read_users`.
        time_format: of its times, as of `read_table`.
        is_certain: whether it can be no log of events: it has vectors or attributes in JSON, or no
            time.
    """

    columns: Mapping[str, str]
    time_format: str | None
    is_certain: bool


def vector_column(sample: pl.DataFrame) -> str | None:
    """The column of vectors, or the pattern of numbered columns that are the places of one; null
    where there is none.

    >>> vector_column(pl.DataFrame({"id": ["a"], "emb": [[0.5, 1.0]]}))
    'emb'
    >>> vector_column(pl.DataFrame({"id": ["a"], "factor_0": [0.5], "factor_1": [1.0], "age": [3]}))
    'factor_*'
    """
    by_key = {plain(name): name for name in reversed(sample.columns)}
    named = [by_key[key] for key in map(plain, VECTOR_NAMES) if key in by_key]
    lists = [name for name in sample.columns if _holds_lists(sample[name])]
    for name in named + lists:
        if (_holds_lists(sample[name]) or sample[name].dtype == pl.String) and _reads(sample, name):
            return name
    stems: dict[str, list[str]] = {}
    for name in sample.columns:
        numbered = re.fullmatch(r"(.*?)(\d+)", name)
        if numbered and plain(numbered[1]) in map(plain, VECTOR_STEMS):
            stems.setdefault(numbered[1], []).append(name)
    for stem, names in stems.items():
        pattern = f"{stem}*"
        if len(names) < LEAST_PLACES or set("*?[") & set(stem):
            continue
        matches_no_other = set(columns_like(pattern, sample.columns)) == set(names)
        if matches_no_other and _reads(sample, pattern):
            return pattern
    return None


def attributes_column(sample: pl.DataFrame) -> str | None:
    """The column of flat JSON objects; null where there is none."""
    by_key = {plain(name): name for name in reversed(sample.columns)}
    for key in map(plain, ATTRIBUTES_NAMES):
        if key not in by_key:
            continue
        values = sample[by_key[key]]
        is_object = isinstance(values.dtype, pl.Struct)
        if not is_object and values.dtype == pl.String:
            texts = values.drop_nulls()
            is_object = texts.len() > 0 and bool(texts.str.strip_chars().str.starts_with("{").all())
        if is_object:
            _, bad = attributes_of(sample, [by_key[key]])
            if _share(bad) <= 1 - ENOUGH:
                return by_key[key]
    return None


def known_columns(sample: pl.DataFrame) -> dict[str, str]:
    """The columns of vectors and attributes, by their role, for those that are there."""
    sources = {"vector": vector_column(sample), "attributes": attributes_column(sample)}
    return {role: source for role, source in sources.items() if source is not None}


def user_roles(sample: pl.DataFrame) -> UserRoles | None:
    """The roles of the columns of a file that describes users; null for a file of another kind.

    It names users and no items, and has vectors, attributes in JSON, or one row per user.
    """
    by_key = {plain(name): name for name in reversed(sample.columns)}
    if any(plain(name) in by_key for name in COLUMN_NAMES["item_id"]):
        return None
    user = next((by_key[key] for key in map(plain, COLUMN_NAMES["user_id"]) if key in by_key), None)
    if user is None:
        return None
    columns = {"user_id": user, **known_columns(sample)}
    if len(columns) == 1 and (sample[user].is_duplicated().any() or sample.width == 1):
        return None
    has_time = any(plain(name) in by_key for name in COLUMN_NAMES["time"])
    is_certain = len(columns) > 1 or not has_time
    time_format = None
    for name in DESCRIBED_NAMES:
        if plain(name) not in by_key:
            continue
        source = by_key[plain(name)]
        try:
            time_format = time_format_of(sample[source])
        except LongplayError:
            continue
        columns["ingested_at" if plain(name) == plain("ingested_at") else "added_at"] = source
        break
    return UserRoles(columns, time_format, is_certain)


def _holds_lists(values: pl.Series) -> bool:
    """Whether a column holds lists of numbers."""
    inner = values.dtype.inner if isinstance(values.dtype, pl.List | pl.Array) else None
    return inner is not None and inner.is_numeric()  # type: ignore[union-attr]


def _reads(sample: pl.DataFrame, pattern: str) -> bool:
    """Whether most rows have a vector in these columns, all equally long and of several numbers."""
    try:
        vectors, bad = vector_of(sample, columns_like(pattern, sample.columns))
    except LongplayError:
        return False
    lengths = vectors.drop_nulls().list.len().unique()
    return len(lengths) == 1 and int(lengths[0]) >= LEAST_PLACES and _share(bad) <= 1 - ENOUGH


def _share(mask: pl.Series) -> float:
    return int(mask.sum()) / max(len(mask), 1)
