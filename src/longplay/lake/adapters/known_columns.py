"""Vectors and attributes from the columns of a source, as the tables of items and users hold them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

import numpy as np
import polars as pl

from longplay.errors import ConfigError
from longplay.lake.adapters.cells import numbers
from longplay.lake.adapters.layout import close
from longplay.lake.row_checks import is_flat_object
from longplay.lake.schema import VECTOR

BETWEEN_NUMBERS = re.compile(r"[\s,;|]+")


def columns_like(pattern: str, names: Sequence[str]) -> list[str]:
    """The columns that a mapping names: one by its name, several by a pattern or by names with
    commas between them; numbered ones in the order of their numbers.

    >>> columns_like("factor_*", ["user", "factor_10", "factor_2"])
    ['factor_2', 'factor_10']
    >>> columns_like("country, plan", ["user", "plan", "country"])
    ['country', 'plan']

    Raises:
        ConfigError: no such column.
    """
    if pattern in names:
        return [pattern]
    matching: list[str] = []
    for part in pattern.split(","):
        part_names = [name for name in names if fnmatchcase(name, part.strip())]
        if not part_names:
            raise ConfigError(
                f"columns: no column is named like {part.strip()!r}{close(part.strip(), names)}; "
                f"expected a name or a pattern such as 'factor_*'. It has {', '.join(names)}"
            )
        matching += sorted(part_names, key=_number_last)
    return list(dict.fromkeys(matching))


def _number_last(name: str) -> tuple[str, int]:
    """Sorts factor_2 before factor_10."""
    parts = re.fullmatch(r"(.*?)(\d*)", name)
    assert parts is not None  # the pattern fits any text of one line
    return parts[1], int(parts[2] or -1)


def vector_of(rows: pl.DataFrame, columns: Sequence[str]) -> tuple[pl.Series, pl.Series]:
    """A vector per row, null where it is not known, and a mask of rows whose vector cannot be read.

    Args:
        rows: of a source.
        columns: one column of lists, or of text such as "[0.1, -2]" or "0.1 -2", or a column of
            numbers per place of the vector. A row in which all places are empty is not known.
    """
    if len(columns) == 1:
        values = rows[columns[0]]
        if isinstance(values.dtype, pl.Array):
            values = values.arr.to_list()
        if isinstance(values.dtype, pl.List) and values.dtype.inner.is_numeric():
            vectors = values.cast(VECTOR)
        elif not values.dtype.is_numeric():
            vectors = pl.Series([_numbers_of(value) for value in values.to_list()], dtype=VECTOR)
            bad = values.is_not_null() & vectors.is_null()
            if values.dtype == pl.String:
                bad = bad & (values.str.strip_chars() != "")
            return _checked(vectors, bad)
        else:
            vectors = pl.select(pl.concat_list(values.cast(pl.Float64))).to_series()
            vectors = vectors.set(values.is_null(), None)
        return _checked(vectors, pl.repeat(False, rows.height, eager=True))
    places = [numbers(rows[name], pl.Float64) for name in columns]
    place_NR = np.column_stack([place.to_numpy() for place, _ in places])
    vectors = pl.Series("vector", place_NR.tolist(), dtype=VECTOR)
    unreadable_NR = np.column_stack([bad.to_numpy() for _, bad in places])
    empty_N = np.all(np.isnan(place_NR) & ~unreadable_NR, axis=1)
    unreadable = pl.Series("unreadable", np.asarray(unreadable_NR.any(axis=1)))
    return _checked(vectors.set(pl.Series("empty", empty_N), None), unreadable)


def _checked(vectors: pl.Series, bad: pl.Series) -> tuple[pl.Series, pl.Series]:
    """The vectors, null where they hold what is no finite number, and a mask of these rows."""
    finite = pl.element().is_finite().fill_null(False)
    whole = vectors.to_frame("vector").select(
        pl.col("vector").list.eval(finite).list.all() & (pl.col("vector").list.len() > 0)
    )["vector"]
    broken = bad | (vectors.is_not_null() & ~whole.fill_null(False))
    return vectors.set(broken, None).alias("vector"), broken


def _numbers_of(value: object) -> list[float] | None:
    """The numbers of a list or a text; None where it is none."""
    try:
        if isinstance(value, str):
            parts = BETWEEN_NUMBERS.split(value.strip().strip("[]()").strip())
            return [float(part) for part in parts]
        return [float(part) for part in value]  # type: ignore[union-attr]
    except (TypeError, ValueError, OverflowError):
        return None


def attributes_of(rows: pl.DataFrame, columns: Sequence[str]) -> tuple[pl.Series, pl.Series]:
    """A flat JSON object per row, null where nothing is known, and a mask of rows whose attributes
    cannot be read.

    Args:
        rows: of a source.
        columns: one column of flat JSON objects, as text or structs, which is taken as it is; or
            columns of text, numbers, truth values or times, which are keys of the object. Empty
            values are left out.

    >>> rows = pl.DataFrame({"country": ["SE", None], "age": [31, None]})
    >>> attributes_of(rows, ["country", "age"])[0].to_list()
    ['{"country":"SE","age":31}', None]
    """
    if len(columns) == 1:
        values = rows[columns[0]]
        if isinstance(values.dtype, pl.Struct):
            return attributes_of(values.struct.unnest(), values.struct.fields)
        if values.dtype == pl.String:
            texts = values.set((values.str.strip_chars() == "").fill_null(False), None)
            flat = {text: is_flat_object(text) for text in texts.drop_nulls().unique()}
            if any(flat.values()):
                bad = texts.is_in([text for text, is_flat in flat.items() if not is_flat])
                bad = bad.fill_null(False)
                return texts.set(bad, None).alias("attributes"), bad
    nothing_bad = pl.repeat(False, rows.height, eager=True)
    if not columns:
        return pl.Series("attributes", [None] * rows.height, dtype=pl.String), nothing_bad
    plain = {name: _plain(rows[name]) for name in columns}
    written = []
    for row in zip(*plain.values(), strict=True):
        known = {name: value for name, value in zip(plain, row) if value is not None}
        written.append(
            json.dumps(known, separators=(",", ":"), ensure_ascii=False) if known else None
        )
    return pl.Series("attributes", written, dtype=pl.String), nothing_bad


def is_plain(values: pl.Series) -> bool:
    """Whether a column holds what attributes can be: text, numbers, truth values or times."""
    return not (values.dtype.is_nested() or values.dtype in (pl.Binary, pl.Duration, pl.Object))


def _plain(values: pl.Series) -> list[str | float | int | bool | None]:
    """The values of a column as JSON writes them; null where they are empty."""
    if not is_plain(values):
        raise ConfigError(
            f"columns: attributes = {values.name!r}, but it is {values.dtype}; expected text, "
            "numbers, truth values or times"
        )
    if values.dtype == pl.Boolean:
        return values.to_list()
    if values.dtype.is_temporal():
        return values.dt.to_string("iso:strict").to_list()
    if values.dtype.is_float():
        return [value if value is not None and math.isfinite(value) else None for value in values]
    if values.dtype.is_integer():
        return values.to_list()
    if values.dtype.is_decimal():
        return values.cast(pl.Float64).to_list()
    texts = values.cast(pl.String)
    return texts.set((texts == "").fill_null(False), None).to_list()
