"""Ids as text: one rule for what enters the lake, for adapters, for policies and for experiments.

A user who is 12345 in one table, 12345.0 in another (pandas writes integers with gaps as floats)
and "12345" in a third is one user.
"""

from __future__ import annotations

import polars as pl

from longplay.errors import DataError
from longplay.frames import Column, polars_series

# from here on, neighbouring whole numbers share a float
FLOAT32_WHOLE = 2**24
FLOAT64_WHOLE = 2**53


def ids(values: pl.Series) -> pl.Series:
    """Ids as strings, exactly: 12345, 12345.0 and "12345.0" give "12345", "007" stays; an empty
    string and NaN are null.

    >>> ids(pl.Series([9007199254740993])).to_list(), ids(pl.Series([12345.0, None])).to_list()
    (['9007199254740993'], ['12345', None])
    >>> ids(pl.Series(["12345.0", "007", "", "v1.0"])).to_list()
    ['12345', '007', None, 'v1.0']
    >>> ids(pl.Series([7, "u7", 7.0], dtype=pl.Object)).to_list()
    ['7', 'u7', '7']

    Raises:
        DataError: values without one exact text: truth values, times, lists, bytes, infinities, or
            floats too large to be whole ids.
    """
    dtype = values.dtype
    if dtype == pl.Object:
        return _of_objects(values)
    if dtype == pl.String:
        return _of_text(values)
    if dtype.is_float():
        return _of_floats(values)
    if dtype.is_nested() or dtype.is_temporal() or dtype in (pl.Binary, pl.Boolean):
        raise DataError(
            f"column {values.name!r}: {dtype} given for ids, expected text or numbers; convert it "
            "first"
        )
    return _of_text(values.cast(pl.String))


def may_change(text: pl.Expr) -> pl.Expr:
    """Which of these texts `ids` may write otherwise; the others it leaves as they are."""
    return (text == "") | text.str.contains(".0", literal=True)


def ids_of(values: Column, name: str = "user_id") -> pl.Series:
    """Ids of any column (see `frames.polars_series`) by the same rule. No id may be missing.

    >>> ids_of([12345, 12345.0, "12345"]).to_list()
    ['12345', '12345', '12345']

    Raises:
        DataError: an id that is missing or empty, or as `ids`.
    """
    written = ids(polars_series(values, name))
    if written.null_count():
        raise DataError(
            f"{name}: {written.null_count():,} of {len(written):,} ids are missing or empty; "
            "expected every row to have one, drop those rows"
        )
    return written


def _of_text(written: pl.Series) -> pl.Series:
    if written.str.contains(".0", literal=True).any():
        written = written.str.replace(r"^(-?\d+)\.0+$", "$1")
    empty = (written == "").fill_null(False)
    return written.set(empty, None) if empty.any() else written


def _of_floats(values: pl.Series) -> pl.Series:
    values = values.fill_nan(None)
    exact = FLOAT32_WHOLE if values.dtype == pl.Float32 else FLOAT64_WHOLE
    if len(large := values.filter(values.abs() >= exact)):
        why = f"{large[0]:.0f} is a {values.dtype}, which does not tell ids from {exact:,} on apart"
        raise DataError(f"column {values.name!r}: {why}; store it as integers or text")
    is_integral = values == values.round()
    return (
        values.cast(pl.Int64)
        .cast(pl.String)
        .zip_with(is_integral.fill_null(True), values.cast(pl.String))
    )


def _of_objects(values: pl.Series) -> pl.Series:
    """Ids of Python values of mixed types, each by the rule of its own type."""
    written: list[str | None] = []
    for value in values.to_list():
        if value is None or isinstance(value, str):
            written.append(value)
        else:
            written.append(_of_one_value(value, values.name))
    return _of_text(pl.Series(values.name, written, dtype=pl.String))


def _of_one_value(value: object, name: str) -> str | None:
    alone = polars_series([value], name)
    if alone.dtype == pl.Object:
        raise DataError(
            f"column {name!r}: {value!r} of type {type(value).__name__} given for an id, expected "
            "text or numbers; convert it first"
        )
    return ids(alone)[0]
