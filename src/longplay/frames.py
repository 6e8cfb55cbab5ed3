"""Tables and columns of polars, pandas and pyarrow as polars, exactly: nothing is rounded and no
time zone is guessed.

pandas stays optional. A frame of it exists only where somebody imported it, so it is looked up
among the loaded modules.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Protocol, runtime_checkable

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from longplay.errors import DataError


@runtime_checkable
class ArrowStream(Protocol):
    """A table with the Arrow C stream interface: pyarrow, DuckDB, narwhals and others."""

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """A capsule with the table's batches."""
        ...


# pandas frames too, which speak Arrow since pandas 2.2
Table = pl.DataFrame | pl.LazyFrame | ArrowStream
Column = pl.Series | NDArray[Any] | Sequence[Any]  # pandas Series and pyarrow arrays too


def polars_frame(table: Table, name: str) -> pl.DataFrame:
    """`table` as a polars frame.

    The index of a pandas frame is left out, and its NaN, NaT, NA and None are null. A pandas column
    that mixes types comes as `pl.Object`. Times with an offset such as +05:30 are the same moments
    in UTC. A `LazyFrame` is collected.

    Args:
        table: a frame of polars, pandas or pyarrow, or anything that speaks the Arrow C stream
            interface.
        name: what errors call it.

    >>> polars_frame(pa.table({"user_id": ["u1"]}), "events").to_dict(as_series=False)
    {'user_id': ['u1']}

    Raises:
        DataError: another type of object, two columns of one name, or a name that is no text.
    """
    if isinstance(table, pl.DataFrame):
        return table
    if isinstance(table, pl.LazyFrame):
        return table.collect()
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(table, pandas.DataFrame):
        frame: Any = table
        named_columns = [
            (column, frame.iloc[:, place]) for place, column in enumerate(frame.columns)
        ]
    else:
        arrow = _arrow_table(table, name)
        named_columns = list(zip(arrow.column_names, arrow.columns))
    names = [column for column, _ in named_columns]
    for column in names:
        if not isinstance(column, str):
            raise DataError(
                f"{name}: a column is named {column!r}, a {type(column).__name__}; expected text, "
                "rename it"
            )
        if names.count(column) > 1:
            raise DataError(
                f"{name}: {names.count(column)} columns are named {column!r}; expected each once, "
                "rename or drop one"
            )
    return pl.DataFrame([polars_series(values, column) for column, values in named_columns])


def polars_series(values: Column, name: str) -> pl.Series:
    """One column as a polars Series called `name`; values of mixed types as `pl.Object`.

    Args:
        values: a Series of polars or pandas, a numpy array of one dimension, a pyarrow array, a
            list or another iterable.
        name: of the column, for the Series and for error messages.

    >>> polars_series([1, "x"], "user_id").dtype
    Object

    Raises:
        DataError: a single text, an array of more dimensions, or times with and without a zone in
            one column.
    """
    if isinstance(values, pl.Series):
        return values.alias(name)
    if isinstance(values, pa.Array | pa.ChunkedArray):
        return _of_arrow(values, name)
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(
        values, pandas.Series | pandas.Index | pandas.api.extensions.ExtensionArray
    ):
        return _of_pandas(values, name)
    if isinstance(values, np.ndarray):
        if values.ndim != 1:
            raise DataError(
                f"{name}: an array of shape {values.shape} given, expected one dimension"
            )
        values = values.tolist() if values.dtype == object else pl.Series(name, values)
    if isinstance(values, pl.Series):
        return values
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise DataError(f"{name}: {values!r} given, expected a list, an array or a Series")
    values = list(values)
    _refuse_mixed_zones(values, name)
    kinds = {type(value) for value in values if value is not None}
    if len(kinds) > 1 and kinds & {bool, np.bool_}:
        # polars would take a truth value among numbers for 0 or 1
        return pl.Series(name, values, dtype=pl.Object)
    try:
        return pl.Series(name, values)
    except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError):
        return pl.Series(name, values, dtype=pl.Object)


def as_lists(
    name: str, items: pl.Series, offsets: NDArray[np.integer], missing: pl.Series | None = None
) -> pl.Series:
    """`items` cut into lists: list n is items[offsets[n]:offsets[n+1]].

    Args:
        name: of the Series.
        items: of all lists, one after the other.
        offsets: [N+1], from 0 to the number of items.
        missing: which lists are null, or None.

    >>> as_lists("slate", pl.Series(["a", "b"]), np.array([0, 2, 2])).to_list()
    [['a', 'b'], []]
    """
    mask = None if missing is None else missing.to_arrow()
    lists = pa.LargeListArray.from_arrays(
        pa.array(offsets, pa.int64()), items.to_arrow(), mask=mask
    )
    return pl.Series(name, pl.from_arrow(lists))


def _arrow_table(table: object, name: str) -> pa.Table:
    """A pyarrow table, or what speaks its stream interface."""
    if isinstance(table, pa.Table):
        return table
    if isinstance(table, pa.RecordBatch):
        return pa.Table.from_batches([table])
    expected = (
        "expected a frame of polars, pandas or pyarrow; of lists or dicts make one with "
        "pl.DataFrame(...)"
    )
    if not isinstance(table, ArrowStream):
        raise DataError(f"{name}: a {type(table).__name__} given, {expected}")
    try:
        return pa.RecordBatchReader.from_stream(table).read_all()
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise DataError(
            f"{name}: a {type(table).__name__} given that is no table ({error}), {expected}"
        ) from error


def _of_arrow(values: pa.Array | pa.ChunkedArray, name: str) -> pl.Series:
    in_utc = _in_utc(values.type)
    if in_utc != values.type:
        values = values.cast(in_utc)
    return pl.Series(name, pl.from_arrow(values))


def _in_utc(dtype: pa.DataType) -> pa.DataType:
    """The same type with times in UTC. Polars knows zones by name alone, and an offset has none."""
    if pa.types.is_timestamp(dtype) and dtype.tz is not None:
        return pa.timestamp(dtype.unit, "UTC")
    if pa.types.is_list(dtype):
        return pa.list_(_in_utc(dtype.value_type))
    if pa.types.is_large_list(dtype):
        return pa.large_list(_in_utc(dtype.value_type))
    return dtype


def _of_pandas(values: Any, name: str) -> pl.Series:
    """A Series or an Index of pandas; what is missing there is null."""
    mixed = values.dtype == object
    if mixed:
        present = [None if missing else value for value, missing in zip(values, values.isna())]
    else:
        present = []
    _refuse_mixed_zones(present, name)
    try:
        return _of_arrow(pa.Array.from_pandas(values), name)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        if not mixed:
            raise DataError(
                f"{name}: a pandas column of {values.dtype} does not convert: {error}; expected "
                "text, numbers or times"
            ) from error
        return pl.Series(name, present, dtype=pl.Object)


def _refuse_mixed_zones(values: list[Any], name: str) -> None:
    """Raise where some times have a zone and others have none. The moments of the others are
    unknown."""
    zoned = {value.tzinfo is not None for value in values if isinstance(value, datetime)}
    if len(zoned) > 1:
        raise DataError(
            f"{name}: some times have a time zone and some have none; give all of them one, e.g. "
            "value.replace(tzinfo=datetime.UTC)"
        )
