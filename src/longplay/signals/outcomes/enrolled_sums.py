"""Sums of a signal per enrolled user, which experiments compare."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import cache
from typing import TypeVar, cast, overload

import duckdb
import numpy as np
import polars as pl

from longplay.arrays import Float
from longplay.errors import ConfigError, DataError
from longplay.lake.creators import prepare_creators
from longplay.lake.daily import first_row
from longplay.lake.lake import Lake
from longplay.lake.schema import TIME
from longplay.signals.declare.checks import MAX_WINDOW_DAYS, described
from longplay.signals.declare.declaration import Declaration
from longplay.signals.declare.entry import Entry
from longplay.signals.engine.answerable import check_answerable, check_has_entries
from longplay.signals.engine.beginnings import beginnings_of
from longplay.signals.engine.compiler import Compiler
from longplay.signals.engine.entry_rows import create_entries
from longplay.signals.engine.event_source import EventRows
from longplay.signals.outcomes.in_memory import (
    EPOCH,
    check_signals,
    checked_as_of,
    days_of_log,
)

SignalT = TypeVar("SignalT", bound=Declaration)

ENTRY_DAYS = 14  # a trial's entry window, from first exposure
MICROSECOND = timedelta(microseconds=1)


@overload
def enrolled_sums(
    signals: Declaration,
    lake: Lake,
    enrolled: pl.DataFrame,
    *,
    entry_days: int = ENTRY_DAYS,
    as_of: datetime | None = None,
) -> pl.DataFrame: ...


@overload
def enrolled_sums(
    signals: Sequence[SignalT],
    lake: Lake,
    enrolled: pl.DataFrame,
    *,
    entry_days: int = ENTRY_DAYS,
    as_of: datetime | None = None,
) -> dict[SignalT, pl.DataFrame]: ...


def enrolled_sums(
    signals: Declaration | Sequence[SignalT],
    lake: Lake,
    enrolled: pl.DataFrame,
    *,
    entry_days: int = ENTRY_DAYS,
    as_of: datetime | None = None,
) -> pl.DataFrame | dict[SignalT, pl.DataFrame]:
    """The sum of a signal's outcomes per enrolled user, over the entries of the user's first
    `entry_days` days. Several signals are computed in one pass over the log.

    Entries count from enrolment on: enrolment <= time of entry < enrolment + `entry_days` days. A
    user without entries has 0.0: the treatment may change who enters, so an average over entries
    would compare different people. An `enrolment` signal has one entry, at the given time (its UTC
    calendar day is day 0), whatever else the lake says of the user. Whether an entry is a discovery
    depends on all of the history, also that before enrolment.

    A user matures when an entry made at the last possible moment would have, whether or not there
    was one: at the midnight that ends the window of the entry window's last day (for an `enrolment`
    signal, of the day of enrolment). So maturity depends on enrolment alone, and no arm of an
    experiment can change it.

    Args:
        signals: one signal, or several.
        lake: the log.
        enrolled: columns user_id and time (UTC), one row per user; for an experiment the first
            exposure.
        entry_days: length of the entry window, whole days >= 1.
        as_of: UTC; default the lake's watermark.

    Returns:
        For one signal, one row per row of `enrolled`, in its order: user_id, time (of enrolment),
        value (null while immature, never 0), matures_at. For several, a table each.

    Raises:
        DataError: a user twice, a null, a time without zone; or the lake cannot answer (see
            `Signal.outcomes`).
        ConfigError: an entry window that is not 1 to 365 whole days, no signal, a ratio or a
            difference from a baseline.
    """
    if isinstance(signals, Declaration):
        return enrolled_sums([signals], lake, enrolled, entry_days=entry_days, as_of=as_of)[signals]
    check_signals("enrolled_sums", signals)
    if not signals:
        raise ConfigError("enrolled_sums: no signals given, expected at least one")
    enrolled = checked_enrolled(enrolled)
    as_of_at, view = checked_as_of(signals[0].name, lake, as_of)
    with view.connect() as con:
        return sums_in(con, signals, lake, view, enrolled, entry_days, as_of_at)


def sums_in(
    con: duckdb.DuckDBPyConnection,
    signals: Sequence[SignalT],
    lake: Lake,
    view: Lake,
    enrolled: pl.DataFrame,
    entry_days: int,
    as_of: datetime,
) -> dict[SignalT, pl.DataFrame]:
    """The tables of `enrolled_sums`, computed in an open connection.

    Args:
        con: connected to `view`.
        signals: at least one.
        lake: may reach further than the view. What is nowhere in it cannot be measured.
        view: what was known at `as_of`.
        enrolled: columns user_id and time, of `checked_enrolled`.
        entry_days: length of the entry window, whole days >= 1.
        as_of: the moment of knowledge, UTC: windows that end by then have closed.
    """
    for signal in signals:
        _check_summable(signal)
    tables = {
        signal: enrolled.with_columns(
            matures_at=closes_at(signal, enrolled, entry_days, signal.window[1] + 1)
        )
        for signal in signals
    }
    sums = _sums_of_entries(con, list(tables), lake, view, enrolled, entry_days, as_of)
    mature = pl.col("matures_at") <= as_of
    return {
        signal: table.select(
            "user_id",
            "time",
            # immature outcomes are null: a zero would teach that new users churn
            value=pl.when(mature).then(pl.Series(sums[signal], dtype=pl.Float64)),
            matures_at="matures_at",
        )
        for signal, table in tables.items()
    }


def _check_summable(signal: Declaration) -> None:
    """Raise a `ConfigError` where sums of a signal mean nothing."""
    measure = signal.measure
    if measure.baseline is not None:
        kind = "its own baseline, which pre-period covariates already are"
    elif measure.is_ratio:
        kind = "a ratio, of which sums mean nothing"
    else:
        return
    raise ConfigError(
        f"{signal.name}: users are compared by sums, but this is an amount against {kind}; "
        "declare the amount itself"
    )


def _sums_of_entries(
    con: duckdb.DuckDBPyConnection,
    signals: Sequence[Declaration],
    lake: Lake,
    view: Lake,
    enrolled: pl.DataFrame,
    entry_days: int,
    as_of: datetime,
) -> dict[Declaration, Float]:
    """Per signal the sum of its outcomes in each user's entry window, [U], unknown ones as 0.

    Signals of one entry share its rows. Values are computed only for entries inside a window.
    """
    has_slots = any(signal.entry.is_slot for signal in signals)
    by_catalogue = prepare_creators(con, view, slots=has_slots)
    con.register(
        "enrolled", enrolled.select("user_id", "time").with_row_index("user_row").to_arrow()
    )
    as_of_day = (as_of - EPOCH).days
    span = days_of_log(con, view)
    days = span or (as_of_day, as_of_day)
    compiler = Compiler(
        con,
        EventRows.of(view.size(), by_catalogue),
        as_of_day,
        days,
        signals,
        cache(lambda: beginnings_of(con, days)),
        enrolled=True,
    )
    by_entry: dict[Entry, list[Declaration]] = {}
    for signal in signals:
        by_entry.setdefault(signal.entry, []).append(signal)
    compiler.plan_bitmaps(by_entry)
    sums: dict[Declaration, Float] = {}
    for entry, signals_of_entry in by_entry.items():
        create_entries(con, compiler, entry, by_catalogue)
        has_entries = first_row(con, "select 1 from entries limit 1") is not None
        for signal in signals_of_entry:
            if not has_entries:
                check_has_entries(con, signal, lake, as_of)
            check_answerable(con, signal, lake, span, None)
        con.execute(f"create or replace temp table entries_inside as {_inside_sql(entry_days)}")
        values = compiler.values("entries_inside", signals_of_entry)
        frame = con.sql(
            f"select user_row{values.columns} from {values.source} order by user_row, row"
        ).pl()
        user_N = frame["user_row"].to_numpy()
        for signal in signals_of_entry:
            value_N = frame[signal.label].fill_null(0.0).to_numpy()
            total_U = np.bincount(user_N, weights=value_N, minlength=enrolled.height)
            sums[signal] = total_U.astype(float)
    return sums


def _inside_sql(entry_days: int) -> str:
    """SQL of the entries in the entry window of their user, with the user's row.

    >>> print(_inside_sql(14))
    select entries.*, enrolled.user_row from entries join enrolled using (user_id)
    where entries.time >= enrolled.time and entries.time < enrolled.time + interval 336 hours
    """
    return (
        "select entries.*, enrolled.user_row from entries join enrolled using (user_id)\n"
        "where entries.time >= enrolled.time "
        f"and entries.time < enrolled.time + interval {24 * entry_days} hours"
    )


def checked_enrolled(enrolled: pl.DataFrame) -> pl.DataFrame:
    """The columns user_id and time of `enrolled`, checked.

    Raises:
        DataError: a column is missing or of the wrong type, or a user is null or repeated.
    """
    if not isinstance(cast(object, enrolled), pl.DataFrame):
        raise DataError(
            f"enrolled: {described(enrolled)} given, expected a table with the columns user_id and "
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
    """The midnights that begin `days` days after the day of each user's last possible entry.

    Args:
        signal: whose entries are meant.
        enrolled: user_id and time of enrolment.
        entry_days: length of the entry window, whole days >= 1.
        days: from the last possible entry's day on.
    """
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
    """Sum of values per enrolled user over the entries in the user's entry window, shape [U]; 0
    without any.

    Args:
        entries: columns user_id and time, N rows.
        value_N: the value of each entry.
        enrolled: columns user_id and time of enrolment, U rows.
        entry_days: length of the entry window.
    """
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
