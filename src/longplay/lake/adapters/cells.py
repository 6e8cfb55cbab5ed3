"""Parsing of single values: ids, times and numbers as sources write them."""

from __future__ import annotations

import re

import polars as pl

from longplay.errors import ConfigError, DataError
from longplay.ids import ids as ids
from longplay.lake.exact import YEAR_1_US, YEAR_9999_US
from longplay.lake.schema import TIME

# microseconds per unit
EPOCHS = {
    "epoch_s": 1_000_000.0,
    "epoch_ms": 1_000.0,
    "epoch_us": 1.0,
    "epoch_ns": 0.001,
}
# so many seconds are so many units
UNITS = {
    "us": (1, 1_000_000),
    "ms": (1, 1_000),
    "s": (1, 1),
    "min": (60, 1),
}
ISO_OFFSET = ("%Y-%m-%d %H:%M:%S%.f%#z", "%Y-%m-%d %H:%M%#z")
ISO_LOCAL = ("%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y-%m-%d")


def text(values: pl.Series) -> pl.Series:
    """Values as strings; an empty string is null.

    Raises:
        DataError: lists, structs, bytes or durations, which have no one text.
    """
    if values.dtype.is_nested() or values.dtype in (pl.Binary, pl.Duration):
        raise DataError(
            f"column {values.name!r}: {values.dtype} given, expected text or numbers; convert it "
            "first"
        )
    written = values.cast(pl.String)
    return written.set((written == "").fill_null(False), None)


def words(values: pl.Series) -> pl.Series:
    """Words of a vocabulary as text. They are read as ids are; truth values become "true" and
    "false".

    >>> words(pl.Series([True, None])).to_list(), words(pl.Series([1.0])).to_list()
    (['true', None], ['1'])
    """
    return values.cast(pl.String) if values.dtype == pl.Boolean else ids(values)


def times(values: pl.Series, time_format: str | None, time_zone: str) -> pl.Series:
    """UTC times in microseconds; null where the value does not parse or is an hour that `time_zone`
    skips.

    What lies outside the years 1 to 9999 is their first or last moment, which `sift` knows as
    sentinels.

    Without a `time_format`, text is ISO 8601: date, minute, second or fraction, with or without an
    offset, Z, UTC or GMT. A time without offset is one of `time_zone`; an hour that occurs twice is
    its first. `time_format` is a strftime pattern, or epoch_s, epoch_ms, epoch_us or epoch_ns for
    numbers.

    >>> values = pl.Series(["2026-03-01T12:00:00+02:00", "2026-03-01 10:00", "soon"])
    >>> times(values, None, "UTC").dt.to_string("%H:%M").to_list()
    ['10:00', '10:00', None]

    Raises:
        ConfigError: numbers without a `time_format`, or values that can be no times.
    """
    moments = _moments(values, time_format, _zone(time_zone))
    return moments.to_physical().clip(YEAR_1_US, YEAR_9999_US).cast(TIME)


def constant_time(name: str, written: str, time_zone: str, rows: int) -> pl.Series:
    """One time for all rows, of the constant that a mapping gives.

    Args:
        name: of the column.
        written: ISO 8601.
        time_zone: of a time without an offset.
        rows: number of rows.

    Raises:
        ConfigError: it is no time.
    """
    moment = times(pl.Series(name, [written]), None, time_zone)
    if moment.null_count():
        raise ConfigError(
            f"constants: {name} = {written!r} is no time; expected ISO 8601, e.g. 2026-03-01"
        )
    return moment.new_from_index(0, rows)


def _moments(values: pl.Series, time_format: str | None, zone: str) -> pl.Series:
    if values.dtype == pl.Null:
        return values.cast(TIME)
    if isinstance(values.dtype, pl.Datetime):
        moment = values.cast(pl.Datetime("us", values.dtype.time_zone))
        return (
            moment.dt.convert_time_zone("UTC") if values.dtype.time_zone else _local(moment, zone)
        )
    if values.dtype == pl.Date:
        return _local(values.cast(pl.Datetime("us")), zone)
    is_text = values.dtype in (pl.String, pl.Categorical, pl.Enum)
    if not is_text and not values.dtype.is_numeric():
        raise ConfigError(
            f"time column {values.name!r} is {values.dtype}; expected times, dates, text or "
            "numbers since 1970"
        )
    if values.dtype.is_numeric() and time_format is None:
        units = ", ".join(map(repr, EPOCHS))
        raise ConfigError(
            f"time column {values.name!r} holds numbers ({values.dtype}); say their unit with "
            f"time_format = {units}"
        )
    written = values.cast(pl.String).str.strip_chars() if is_text else values
    if time_format in EPOCHS:
        # exact to the microsecond until the year 2255
        moment_us = written.cast(pl.Float64, strict=False) * EPOCHS[time_format]
        return (
            moment_us.set(~moment_us.is_between(YEAR_1_US, YEAR_9999_US).fill_null(False), None)
            .round()
            .cast(pl.Int64)
            .cast(TIME)
        )
    if time_format is not None:
        # Python's way to write fractions of a second, and chrono's
        pattern = time_format.replace(".%f", "%.f")
        digits = written if is_text else ids(written)  # 20260301 of a pattern such as %Y%m%d
        parsed = digits.str.to_datetime(pattern, time_unit="us", strict=False)
        if isinstance(parsed.dtype, pl.Datetime) and parsed.dtype.time_zone:
            return parsed
        return _local(parsed, zone)
    spaced = written.str.replace(r"^(\d{4}-\d\d-\d\d)[tT]", "${1} ").str.replace(
        r" ?(UTC|GMT)$", "Z"
    )
    spaced = spaced.str.replace(r"(:\d\d),(\d)", "${1}.${2}").str.replace(
        r" +([+-]\d\d:?\d?\d?)$", "${1}"
    )
    parsed = pl.Series(values.name, [None], dtype=TIME).new_from_index(0, values.len())
    for pattern in (*ISO_LOCAL, *ISO_OFFSET):
        missing = parsed.is_null()
        if not missing.any():
            break
        moments = spaced.str.to_datetime(pattern, time_unit="us", strict=False)
        parsed = parsed.zip_with(
            ~missing,
            moments.dt.convert_time_zone("UTC") if pattern in ISO_OFFSET else _local(moments, zone),
        )
    return parsed


def time_format_like(written: str) -> str | None:
    """The `time_format` of a text that shows a time; null where it has none of the usual formats.

    Of dates such as 01/03/2026 it cannot say whether the day or the month is first: it takes the
    day, unless the text shows otherwise.

    >>> [time_format_like(text) for text in ("1772366400000", "1772366400.5", "20260301")]
    ['epoch_ms', 'epoch_s', '%Y%m%d']
    >>> [time_format_like(text) for text in ("13/03/2026 12:00", "03/13/2026")]
    ['%d/%m/%Y %H:%M', '%m/%d/%Y']
    """
    text = written.strip()
    if number := re.fullmatch(r"(\d+)(\.\d*)?", text):
        digits = len(number[1])
        if digits == 8 and text.startswith(("19", "20")):
            return "%Y%m%d"
        if digits % 3 == 0 and text >= "631152":  # 1990 to 2001, a digit shorter
            digits += 1
        return {10: "epoch_s", 13: "epoch_ms", 16: "epoch_us", 19: "epoch_ns"}.get(digits)
    if date := re.match(r"(\d{1,2})([./-])(\d{1,2})\2(\d{4}|\d{2})(?!\d)", text):
        year = "%Y" if len(date[4]) == 4 else "%y"
        order = ("%m", "%d") if int(date[3]) > 12 else ("%d", "%m")
        pattern = date[2].join((*order, year))
        rest = text[date.end() :]
    elif date := re.match(r"(\d{4})([./])(\d{1,2})\2(\d{1,2})(?!\d)", text):
        pattern = date[2].join(("%Y", "%m", "%d"))
        rest = text[date.end() :]
    else:
        return None
    clock = re.fullmatch(r"([ ,T]*)\d{1,2}:\d\d(:\d\d)?(\.\d+)?( ?[AaPp][Mm])?", rest)
    if clock is None:
        return pattern if not rest else None
    hours = "%I" if clock[4] else "%H"
    half_day = (clock[4] or "").replace((clock[4] or "").strip(), "%p") if clock[4] else ""
    return f"{pattern}{clock[1]}{hours}:%M{':%S' if clock[2] else ''}{'%.f' if clock[3] else ''}{half_day}"


def _local(naive: pl.Series, zone: str) -> pl.Series:
    return naive.dt.replace_time_zone(
        zone, ambiguous="earliest", non_existent="null"
    ).dt.convert_time_zone("UTC")


def _zone(time_zone: str) -> str:
    try:
        pl.Series([None], dtype=pl.Datetime("us")).dt.replace_time_zone(time_zone)
    except (pl.exceptions.PolarsError, ValueError) as error:
        raise ConfigError(
            f"time_zone={time_zone!r} given, expected a name such as 'UTC' or 'Europe/Berlin'"
        ) from error
    return time_zone


def seconds_of(values: pl.Series, unit: str) -> tuple[pl.Series, pl.Series]:
    """Values as seconds, and a mask of values that are no number. A duration is converted from its
    own unit.

    Infinite values and those that are not a number stay as they are: `sift` names them.

    Args:
        values: amounts of time in `unit`, or durations.
        unit: one of `UNITS`.

    >>> seconds_of(pl.Series([180_500]), "ms")[0].to_list(), seconds_of(pl.Series(["1.5"]), "min")[0].to_list()
    ([180.5], [90.0])
    """
    amounts, bad = numbers(values, pl.Float64)
    if values.dtype == pl.Duration:
        return amounts, bad
    seconds, units = UNITS[unit]
    return amounts * seconds / units, bad


def numbers(
    values: pl.Series, dtype: pl.DataType | type[pl.DataType]
) -> tuple[pl.Series, pl.Series]:
    """Values as numbers of this type, null where they are none, and a mask of these. A duration
    becomes its seconds.

    >>> numbers(pl.select(pl.duration(minutes=3)).to_series(), pl.Float64)[0].to_list()
    [180.0]

    Raises:
        DataError: lists, bytes, truth values, dates or times, which are no number.
    """
    if values.dtype == pl.Duration:
        values = values.dt.total_microseconds() / 1_000_000
    if (
        values.dtype.is_nested()
        or values.dtype.is_temporal()
        or values.dtype in (pl.Binary, pl.Boolean)
    ):
        raise DataError(
            f"column {values.name!r}: {values.dtype} given, expected numbers; convert it first"
        )
    cells = values
    if values.dtype in (pl.String, pl.Categorical, pl.Enum):
        stripped = values.cast(pl.String).str.strip_chars()
        cells = stripped.set((stripped == "").fill_null(False), None)
    parsed = cells.cast(pl.Float64, strict=False)
    if dtype != pl.Float64:
        is_integral = parsed.is_finite() & (parsed == parsed.round())  # slot 1.5 is no slot
        parsed = parsed.set(~is_integral.fill_null(False), None)
    converted = parsed.cast(dtype, strict=False)
    return converted, cells.is_not_null() & converted.is_null()
