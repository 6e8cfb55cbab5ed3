"""One Parquet file as a table whose types every later step can work with."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from longplay.errors import DataError
from longplay.lake.adapters.records import FAULTS, NOT_TEXT, Records

# 0001-01-01 and 9999-12-31 in days since 1970: what a date of Python can be
FIRST_DAY = -719_162
LAST_DAY = 2_932_896
PER_DAY = {"s": 86_400, "ms": 86_400_000, "us": 86_400_000_000, "ns": 86_400_000_000_000}


def read_columnar(file: Path) -> Records:
    """The rows of a Parquet file.

    Times with a zone, whatever its name or offset, are UTC, and all times are in microseconds; a
    time or date outside the years 1 to 9999 is null. Dictionaries are their values, UUIDs text. Of
    a list, struct or map that holds more than text, numbers and truth values there is a struct with
    its JSON.

    Raises:
        DataError: the file is no Parquet file, holds a type that cannot be read, or two columns of
            one name.
    """
    try:
        # read as one file, so that what the names of its folders say is added by the caller alone
        with pq.ParquetFile(file, coerce_int96_timestamp_unit="us") as parquet:
            table = parquet.read()
        if len(set(table.column_names)) < table.num_columns:
            doubled = next(
                name for name in table.column_names if table.column_names.count(name) > 1
            )
            raise DataError(
                f"{file}: column {doubled!r} stands twice; expected every name once, rename one "
                "of them"
            )
        plain = {name: _plain(column) for name, column in zip(table.column_names, table.columns)}
        undecoded = [name for name, column in plain.items() if not _is_decoded(column)]
        rows = pl.from_arrow(
            pa.table(
                {
                    name: _as_bytes(column) if name in undecoded else column
                    for name, column in plain.items()
                }
            )
        )
    except (
        pa.ArrowException,
        pl.exceptions.PolarsError,
        pl.exceptions.PanicException,
        OSError,
    ) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{file}: cannot be read, expected a Parquet file: {reason}") from error
    assert isinstance(rows, pl.DataFrame)
    lines = pl.int_range(1, rows.height + 1, dtype=pl.Int64, eager=True)
    if undecoded:
        return _set_apart(rows, lines, undecoded)
    return Records(rows, lines, pl.DataFrame(schema=FAULTS))


def _is_decoded(column: pa.ChunkedArray) -> bool:
    """Whether all text is UTF-8, which the format demands and its readers do not check."""
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        if pa.types.is_nested(column.type):
            raise
        return False
    return True


def _as_bytes(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(pa.large_string()).cast(pa.large_binary())


def _set_apart(rows: pl.DataFrame, lines: pl.Series, undecoded: list[str]) -> Records:
    """The rows with valid text, and as faults the rows with invalid bytes in the columns
    `undecoded`."""
    decoded = rows.with_columns(
        pl.Series(name, [_text(value) for value in rows[name]], dtype=pl.String)
        for name in undecoded
    )
    is_bad = pl.Series([False]).new_from_index(0, rows.height)
    for name in undecoded:
        is_bad |= rows[name].is_not_null() & decoded[name].is_null()
    texts = [
        ", ".join(f"{name}: {_shown(value)}" for name, value in row.items())
        for row in rows.filter(is_bad).iter_rows(named=True)
    ]
    faults = pl.DataFrame(
        {"line": lines.filter(is_bad), "reason": NOT_TEXT, "text": texts}, schema=FAULTS
    )
    return Records(decoded.filter(~is_bad), lines.filter(~is_bad), faults)


def _text(value: bytes | None) -> str | None:
    """Bytes decoded as text, null where they are invalid."""
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return None


def _shown(value: object) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column in a type that Polars knows and that can be written as JSON."""
    kind = column.type
    types = pa.types
    if types.is_dictionary(kind):
        return _plain(column.cast(kind.value_type))
    if isinstance(kind, pa.BaseExtensionType):
        return _extension(column)
    if types.is_timestamp(kind):
        return _moments(column)
    if types.is_date(kind):
        return _days(column)
    if types.is_float16(kind):
        return column.cast(pa.float32())
    if types.is_decimal256(kind):
        return column.cast(pa.string())
    if types.is_nested(kind) and not _is_plain_nested(kind):
        # still a struct, so that it is not taken for an id or a time
        return pa.chunked_array(
            [pa.array(_as_json(column), pa.struct([("json", pa.large_string())]))]
        )
    return column


def _as_json(column: pa.ChunkedArray) -> list[dict[str, str] | None]:
    try:
        values = column.to_pylist()
    except (
        ValueError,
        OverflowError,
        LookupError,
    ):
        # times outside the calendar, or of an unknown zone
        values = [f"{column.type} that cannot be shown"] * len(column)
    return [None if value is None else {"json": json.dumps(value, default=str)} for value in values]


def _moments(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Times in microseconds; times with a zone in UTC."""
    unit = column.type.unit
    counts = column.cast(pa.int64())
    counts_in_range = _within(
        counts,
        max(FIRST_DAY * PER_DAY[unit], -(2**63)),
        min((LAST_DAY + 1) * PER_DAY[unit], 2**63) - 1,
    )
    zone = None if column.type.tz is None else "UTC"
    return counts_in_range.cast(pa.timestamp(unit, zone)).cast(pa.timestamp("us", zone), safe=False)


def _days(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_date64(column.type):
        milliseconds = _within(
            column.cast(pa.int64()), FIRST_DAY * PER_DAY["ms"], (LAST_DAY + 1) * PER_DAY["ms"] - 1
        )
        return milliseconds.cast(pa.timestamp("ms")).cast(pa.date32(), safe=False)
    return _within(column.cast(pa.int32()), FIRST_DAY, LAST_DAY).cast(pa.date32())


def _within(counts: pa.ChunkedArray, first: int, last: int) -> pa.ChunkedArray:
    """The counts, null where they are outside the bounds."""
    inside = pc.call_function(
        "and",
        [
            pc.call_function("greater_equal", [counts, first]),
            pc.call_function("less_equal", [counts, last]),
        ],
    )
    return pc.call_function("if_else", [inside, counts, pa.scalar(None, counts.type)])


def _extension(column: pa.ChunkedArray) -> pa.ChunkedArray:
    storage = pa.chunked_array([chunk.storage for chunk in column.chunks], column.type.storage_type)
    if column.type.extension_name != "arrow.uuid":
        return _plain(storage)
    texts = [None if value is None else str(value) for value in column.to_pylist()]
    return pa.chunked_array([pa.array(texts, pa.string())])


def _is_plain_nested(kind: pa.DataType) -> bool:
    """Whether all values in a list or struct are text, numbers or truth values."""
    types = pa.types
    if types.is_dictionary(kind):
        return _is_plain_nested(kind.value_type)
    if types.is_struct(kind):
        return kind.num_fields > 0 and all(
            _is_plain_nested(kind.field(number).type) for number in range(kind.num_fields)
        )
    if types.is_map(kind) or isinstance(kind, pa.BaseExtensionType):
        return False
    if types.is_nested(kind):
        return hasattr(kind, "value_type") and _is_plain_nested(kind.value_type)
    is_number = types.is_integer(kind) or types.is_float32(kind) or types.is_float64(kind)
    is_text = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
    return is_number or is_text or types.is_boolean(kind) or types.is_null(kind)
