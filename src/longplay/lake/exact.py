"""Exact conversion of columns: a value that would change is an error that says how to convert it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import polars as pl

from longplay.errors import DataError
from longplay.frames import as_lists, polars_series
from longplay.ids import ids as as_ids
from longplay.lake.row_checks import flat_items

DType = pl.DataType | type[pl.DataType]
# what a datetime of Python can hold
YEAR_1_US = -62_135_596_800_000_000
YEAR_9999_US = 253_402_300_799_999_999
SHOWN = 3  # examples in an error


def exact(values: pl.Series, dtype: DType, *, ids: bool, table: str) -> pl.Series:
    """`values` converted to `dtype` without any loss.

    Args:
        values: one column; its name is used in errors.
        dtype: the column's type in the schema.
        ids: whether the values, or those of the lists, are ids.
        table: what errors call the table.

    >>> exact(pl.Series("slot", [3.0, None]), pl.Int32, ids=False, table="events").to_list()
    [3, None]

    Raises:
        DataError: a value that would have to be guessed, rounded or read from text.
    """
    if values.dtype == pl.Null:
        return values.cast(dtype)
    if isinstance(dtype, pl.List):
        return _lists(values, dtype.inner, ids, table)
    if ids:
        return _ids(values, table)
    if values.dtype == dtype and not isinstance(dtype, pl.Datetime):
        return values
    if isinstance(dtype, pl.Datetime):
        return _times(values, dtype, table)
    if dtype == pl.String:
        return _text(values, table)
    if dtype == pl.Boolean:
        raise _wrong(values, dtype, table, f"pl.col({values.name!r}) == 1", "true or false")
    return _numbers(values, dtype, table)


def _lists(values: pl.Series, inner: Any, ids: bool, table: str) -> pl.Series:
    if isinstance(values.dtype, pl.Array):
        values = values.arr.to_list()
    if values.dtype == pl.Object:
        values = _lists_of_objects(values, inner, table)
    if not isinstance(values.dtype, pl.List) and values.dtype != pl.Object:
        if values.dtype == pl.String and inner == pl.Float64:
            expression = f"pl.col({values.name!r}).str.json_decode(pl.List(pl.Float64))"
        else:
            expression = f"pl.concat_list({values.name!r})"
        raise _wrong(values, pl.List(inner), table, expression, "a list in every row")
    if values.dtype == pl.List(pl.Null):
        return values.cast(pl.List(inner))
    items = flat_items(values)
    converted = exact(items, inner, ids=ids, table=table)
    if converted.dtype == items.dtype and converted is items:
        return values
    length = values.list.len().fill_null(0).to_numpy()
    missing = values.is_null() if values.null_count() else None
    return as_lists(
        values.name, converted, np.concatenate([[0], np.cumsum(length, dtype=np.int64)]), missing
    )


def _lists_of_objects(values: pl.Series, inner: Any, table: str) -> pl.Series:
    """Lists of Python values of mixed types, as numbers where the schema has numbers, else with
    their ids as text. Polars has no lists of objects."""
    is_numeric = inner == pl.Float64
    written: list[list[Any] | None] = []
    for row in values.to_list():
        if row is None:
            written.append(None)
        elif isinstance(row, str | bytes) or not isinstance(row, Iterable):
            raise DataError(
                f"{table}: column {values.name!r} holds {row!r}, a {type(row).__name__}; expected "
                "a list in every row"
            )
        elif is_numeric:
            written.append([_exact_number(value, values.name, table) for value in row])
        else:
            written.append(_ids(polars_series(list(row), values.name), table).to_list())
    return pl.Series(values.name, written, dtype=pl.List(inner if is_numeric else pl.String))


def _exact_number(value: object, column: str, table: str) -> float | None:
    """A Python number as a float; None stays."""
    if value is None:
        return None
    is_number = isinstance(value, int | float | np.integer | np.floating)
    if not is_number or isinstance(value, bool) or not _fits_float(value):
        raise DataError(
            f"{table}: column {column!r} holds {value!r} in a list, a {type(value).__name__}; "
            "expected numbers that a float holds exactly"
        )
    return float(value)


def _fits_float(value: Any) -> bool:
    """Whether a number is a float, exactly; NaN is one."""
    try:
        return value != value or float(value) == value
    except OverflowError:
        return False


def _ids(values: pl.Series, table: str) -> pl.Series:
    try:
        return as_ids(values)
    except DataError as error:
        raise DataError(f"{table}: {error}") from error


def _text(values: pl.Series, table: str) -> pl.Series:
    if isinstance(values.dtype, pl.Categorical | pl.Enum):
        return values.cast(pl.String)
    how = "struct.json_encode()" if isinstance(values.dtype, pl.Struct) else "cast(pl.String)"
    raise _wrong(values, pl.String, table, f"pl.col({values.name!r}).{how}", "text")


def _times(values: pl.Series, dtype: pl.Datetime, table: str) -> pl.Series:
    column = f"pl.col({values.name!r})"
    source_dtype = values.dtype
    if source_dtype == pl.String:
        raise _wrong(
            values,
            dtype,
            table,
            f"{column}.str.to_datetime(time_unit='us', time_zone='UTC')",
            "times; text does not say how it is to be read",
        )
    if source_dtype == pl.Date:
        expression = f"{column}.cast(pl.Datetime('us')).dt.replace_time_zone('UTC')"
        raise _wrong(values, dtype, table, expression, "moments; a date is a whole day")
    if not isinstance(source_dtype, pl.Datetime):
        expression = f"pl.from_epoch({values.name!r}, time_unit='s').dt.replace_time_zone('UTC')"
        raise _wrong(values, dtype, table, expression, "times; numbers do not say their unit")
    if source_dtype.time_zone is None:
        raise DataError(
            f"{table}: column {values.name!r} has no time zone; give UTC, e.g. "
            f"{column}.dt.replace_time_zone('UTC')"
        )
    count = values.to_physical()
    if source_dtype.time_unit == "ns" and (broken := values.filter(count % 1000 != 0)).len():
        raise DataError(
            f"{table}: column {values.name!r}: {broken.len():,} of {len(values):,} times have a "
            "part below a microsecond, "
            f"which the lake does not keep, first {broken[:1].dt.to_string('iso')[0]}; cut it, "
            f"e.g. {column}.dt.truncate('1us')"
        )
    unit = {"ns": 1 / 1000, "us": 1, "ms": 1000}[source_dtype.time_unit]
    low = count.min()
    high = count.max()
    if (
        isinstance(low, int)
        and isinstance(high, int)
        and not (low * unit >= YEAR_1_US and high * unit <= YEAR_9999_US)
    ):
        raise DataError(
            f"{table}: column {values.name!r} holds times outside the years 1 to 9999; expected "
            "real ones, or null where not known"
        )
    if source_dtype == dtype:
        return values
    return values.dt.cast_time_unit("us").dt.convert_time_zone("UTC")


def _numbers(values: pl.Series, dtype: DType, table: str) -> pl.Series:
    source_dtype = values.dtype
    cast = f"pl.col({values.name!r}).cast(pl.{dtype})"
    if source_dtype == pl.Duration:
        raise _wrong(
            values,
            dtype,
            table,
            f"pl.col({values.name!r}).dt.total_microseconds() / 1_000_000",
            "numbers",
        )
    if not source_dtype.is_numeric():
        raise _wrong(values, dtype, table, cast, "numbers")
    converted = values.cast(dtype, strict=False)
    if source_dtype == pl.Float32 and dtype == pl.Float64:
        return converted
    same = (converted.cast(source_dtype, strict=False) == values).fill_null(
        False
    ) | values.is_null()
    if not same.all():
        broken = values.filter(~same)
        examples = ", ".join(str(value) for value in broken[:SHOWN])
        raise DataError(
            f"{table}: column {values.name!r}: {broken.len():,} of {len(values):,} values of "
            f"{source_dtype} do not fit {dtype} exactly, first {examples}; "
            f"round or replace them first"
        )
    return converted


def _wrong(
    values: pl.Series, dtype: DType, table: str, expression: str, expected: str
) -> DataError:
    examples = ", ".join(repr(value) for value in values.drop_nulls()[:SHOWN].to_list())
    return DataError(
        f"{table}: column {values.name!r} is {values.dtype} ({examples}), expected {dtype}: "
        f"{expected}; convert it, e.g. {expression}"
    )
