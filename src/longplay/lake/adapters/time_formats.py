"""Finding the format in which a column writes times."""

from __future__ import annotations

from datetime import UTC, datetime

import polars as pl

from longplay.errors import DataError
from longplay.lake.adapters.cells import times
from longplay.lake.sift import EARLIEST

# format of times since 1970 by the number of their digits
EPOCH_BY_DIGITS = {
    9: "epoch_s",
    10: "epoch_s",
    12: "epoch_ms",
    13: "epoch_ms",
    15: "epoch_us",
    16: "epoch_us",
    18: "epoch_ns",
    19: "epoch_ns",
}
DATE_FORMATS = (
    "%d/%m/%Y",
    "%m/%d/%Y",
    "%d.%m.%Y",
    "%d-%m-%Y",
    "%m-%d-%Y",
    "%Y/%m/%d",
    "%Y.%m.%d",
    "%Y%m%d",
    "%d/%m/%y",
    "%m/%d/%y",
    "%d %b %Y",
    "%d-%b-%Y",
    "%b %d, %Y",
    "%d %B %Y",
    "%B %d, %Y",
)
CLOCK_FORMATS = (
    "",
    " %H:%M:%S",
    " %H:%M",
    " %H:%M:%S%.f",
    "T%H:%M:%S",
    " %I:%M %p",
    " %I:%M:%S %p",
    ", %H:%M",
    ", %H:%M:%S",
)
MOMENT_FORMATS = (
    "%Y%m%d%H%M%S",
    "%a, %d %b %Y %H:%M:%S %z",
    "%d/%b/%Y:%H:%M:%S %z",
    "%a %b %d %H:%M:%S %Y",
)
ENOUGH = 0.9  # share of a column's values that must be times


def time_format_of(values: pl.Series) -> str | None:
    """The `time_format` in which a column writes times; null for ISO 8601 and columns of times.

    Args:
        values: the column.

    Raises:
        DataError: the column is empty, or holds no times in a format that is known.
    """
    present_values = values.drop_nulls()
    if present_values.dtype.is_temporal() and present_values.dtype not in (pl.Duration, pl.Time):
        return None
    if present_values.is_empty():
        raise DataError(f"column {values.name!r} is empty")
    if present_values.dtype.is_numeric():
        digits = len(str(int(abs(present_values.cast(pl.Float64).median() or 0))))  # type: ignore[arg-type]
        if digits in EPOCH_BY_DIGITS and _sane(
            times(present_values, EPOCH_BY_DIGITS[digits], "UTC")
        ):
            return EPOCH_BY_DIGITS[digits]
        if (
            digits == 8
            and present_values.dtype.is_integer()
            and _sane(times(present_values, "%Y%m%d", "UTC"))
        ):
            return "%Y%m%d"
        raise DataError(f"column {values.name!r} holds numbers that are no time since 1970")
    if present_values.dtype not in (pl.String, pl.Categorical, pl.Enum):
        raise DataError(f"column {values.name!r} is {present_values.dtype}, no time")
    written = present_values.cast(pl.String).str.strip_chars()
    parts = written.str.extract(r"^(\d+)(?:\.\d*)?$")
    if parts.null_count() < (1 - ENOUGH) * len(parts):
        lengths = parts.str.len_chars().drop_nulls()
        digits = int(lengths.median() or 0)  # type: ignore[arg-type]
        if digits in EPOCH_BY_DIGITS and _sane(times(written, EPOCH_BY_DIGITS[digits], "UTC")):
            return EPOCH_BY_DIGITS[digits]
    if _parsed(times(written, None, "UTC")) >= ENOUGH:
        return None
    formats = [date + clock for date in DATE_FORMATS for clock in CLOCK_FORMATS] + list(
        MOMENT_FORMATS
    )
    head = written[:50]
    tried = {
        pattern: _parsed(times(written, pattern, "UTC"))
        for pattern in formats
        if _parsed(times(head, pattern, "UTC")) > 0
    }
    fitting = [
        pattern
        for pattern, share in tried.items()
        if share >= ENOUGH and _sane(times(written, pattern, "UTC"))
    ]
    if not fitting:
        raise DataError(
            f"column {values.name!r} holds no times that are known here, first {written[0]!r}"
        )
    best_share = max(tried[pattern] for pattern in fitting)
    return min(
        (pattern for pattern in fitting if tried[pattern] > best_share - 0.001),
        key=lambda pattern: _disorder(times(written, pattern, "UTC")),
    )


def _parsed(moments: pl.Series) -> float:
    return 1 - moments.null_count() / max(len(moments), 1)


def _sane(moments: pl.Series) -> bool:
    """Whether most of the times lie between the earliest that a log may have and ten years from
    now."""
    now = datetime.now(UTC)
    inside = moments.is_between(EARLIEST, now.replace(year=now.year + 10, day=1))
    return float(inside.mean() or 0.0) >= ENOUGH  # type: ignore[arg-type]


def _disorder(moments: pl.Series) -> tuple[float, float]:
    """Days between consecutive rows, summed, and the span. Of two ways to read dates the right
    one has the smaller sum."""
    steps = moments.dt.epoch("us").diff().abs().cast(pl.Float64)
    span = moments.dt.epoch("us").max() or 0
    return float(steps.sum()), float(span - (moments.dt.epoch("us").min() or 0))  # type: ignore[operator, arg-type]
