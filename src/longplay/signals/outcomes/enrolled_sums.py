"""What a signal adds up to per enrolled user: what experiments compare, and what is true of a
world."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import cast

import numpy as np
import polars as pl
from numpy.typing import NDArray

from longplay.errors import ConfigError, DataError
from longplay.lake.lake import Lake
from longplay.lake.schema import TIME
from longplay.signals.declare.checks import MAX_WINDOW_DAYS, kind_of
from longplay.signals.declare.declaration import Declaration
from longplay.signals.outcomes.in_memory import outcomes_of

Float = NDArray[np.float64]

ENTRY_DAYS = 14  # a trial's entry window, from first exposure
MICROSECOND = timedelta(microseconds=1)


def enrolled_sums(
    signal: Declaration,
    lake: Lake,
    enrolled: pl.DataFrame,
    *,
    entry_days: int = ENTRY_DAYS,
    as_of: datetime | None = None,
) -> pl.DataFrame:
    """Per enrolled user, the sum of the signal's outcomes over the entries of the first
    `entry_days` days.

    Entries count from enrolment on: enrolment <= time of entry < enrolment + `entry_days` days. A
    user without entries has 0.0: the treatment may change who enters, so an average over entries
    would compare other people. An `enrolment` signal has one entry, which opens at the given time
    (its UTC calendar day is day 0) whatever else the lake says of the user. Whether an entry is a
    discovery depends on all of the history, also that before enrolment.

    A user matures when an entry made at the last possible moment would have, whether or not there
    was one: the midnight that ends the window of the entry window's last day (for an `enrolment`
    signal of enrolment's day). So maturity is decided by enrolment alone, and no arm of an
    experiment can move it.

    Args:
        enrolled: columns user_id and time (UTC), one row per user; for an experiment the first
            exposure.
        entry_days: length of the entry window, whole days >= 1.
        as_of: UTC; default the lake's watermark.

    Returns:
        One row per row of `enrolled`, in its order: user_id, time (of enrolment), value (Float64,
        null while immature, never 0 for it), matures_at.

    Raises:
        DataError: a user twice, a null, a time without zone; or the lake cannot answer (see
            `Signal.outcomes`).
        ConfigError: an entry window that is not 1 to 365 whole days, a ratio or a difference from a
            baseline.
    """
    if signal.measure.is_ratio or signal.measure.baseline is not None:
        what = (
            "its own baseline, which pre-period covariates already are"
            if signal.measure.baseline is not None
            else "a ratio, of which sums mean nothing"
        )
        raise ConfigError(
            f"{signal.name}: users are compared by sums, but this is an amount against {what}; "
            "declare the amount itself"
        )
    enrolled = checked_enrolled(enrolled)
    outcomes = outcomes_of(signal, lake, as_of, enrolled)
    matures_at = closes_at(signal, enrolled, entry_days, signal.window[1] + 1)
    sum_U = sums_by_user(
        outcomes.frame, outcomes.frame["value"].fill_null(0.0).to_numpy(), enrolled, entry_days
    )
    mature = pl.col("matures_at") <= outcomes.as_of
    return enrolled.with_columns(
        value=pl.Series(sum_U, dtype=pl.Float64), matures_at=matures_at
    ).with_columns(
        value=pl.when(mature).then("value")  # immature != 0: a zero would teach churn
    )


def checked_enrolled(enrolled: pl.DataFrame) -> pl.DataFrame:
    """`enrolled` as columns user_id and time, or a DataError that says what is wrong with it."""
    if not isinstance(cast(object, enrolled), pl.DataFrame):
        raise DataError(
            f"enrolled: {kind_of(enrolled)} given, expected a table with the columns user_id and "
            "time, one row per user"
        )
    if missing := [name for name in ("user_id", "time") if name not in enrolled.columns]:
        raise DataError(
            f"enrolled: column {missing[0]!r} is missing; given "
            f"{', '.join(enrolled.columns) or 'no columns'}"
        )
    zone = enrolled.schema["time"]
    if not isinstance(zone, pl.Datetime) or zone.time_zone is None:
        raise DataError(
            f"enrolled: column 'time' is {zone}, expected UTC datetimes, e.g. "
            ".dt.replace_time_zone('UTC')"
        )
    table = enrolled.select(
        pl.col("user_id").cast(pl.String), pl.col("time").dt.convert_time_zone("UTC").cast(TIME)
    )
    if nulls := sum(table.null_count().row(0)):
        raise DataError(f"enrolled: {nulls} nulls given, expected a user and a time in every row")
    if doubled := table.height - table["user_id"].n_unique():
        raise DataError(
            f"enrolled: {doubled:,} of {table.height:,} rows name a user again; expected one row "
            "per user, at first exposure"
        )
    return table


def closes_at(signal: Declaration, enrolled: pl.DataFrame, entry_days: int, days: int) -> pl.Series:
    """The midnight that begins `days` days after the day of each user's last possible entry; a
    series of times."""
    if (
        not isinstance(entry_days, int)
        or isinstance(entry_days, bool)
        or not 1 <= entry_days <= MAX_WINDOW_DAYS
    ):
        raise ConfigError(
            f"entry_days={entry_days!r} given, expected 1 to {MAX_WINDOW_DAYS} whole days"
        )
    window = timedelta(days=entry_days) - MICROSECOND
    if signal.entry.is_enrolment:
        window = timedelta(0)
    return enrolled.select(
        matures_at=(pl.col("time") + window).dt.truncate("1d") + timedelta(days=days)
    )["matures_at"]


def sums_by_user(
    entries: pl.DataFrame, value_N: Float, enrolled: pl.DataFrame, entry_days: int
) -> Float:
    """Sum of `value_N` per enrolled user over the entries (columns user_id, time) in the entry
    window, shape [U]; 0 without any."""
    rows = entries.select("user_id", "time").with_row_index("entry")
    opened = pl.col("time_right")
    inside = rows.join(
        enrolled.select("user_id", "time").with_row_index("row"),
        on="user_id",
        maintain_order="left",
    ).filter((pl.col("time") >= opened) & (pl.col("time") < opened + timedelta(days=entry_days)))
    weights = value_N[inside["entry"].to_numpy()]
    return np.bincount(inside["row"].to_numpy(), weights=weights, minlength=enrolled.height).astype(
        float
    )
