"""Ranking targets from the future part of a log: the items that users newly engaged with, and which
of them became a habit."""

from __future__ import annotations

from datetime import datetime, timedelta

import polars as pl

from longplay.decisions import contexts_from_log, first_engagements
from longplay.errors import DataError
from longplay.lake.lake import Lake
from longplay.ranking import Future
from longplay.signals.outcomes.in_memory import Outcomes


def future_of(
    outcomes: Outcomes,
    lake: Lake,
    *,
    start: datetime,
    end: datetime,
    history: int,
    slots: int = 5,
    exclude: str = "seen",
    limit: int | None = None,
    seed: int = 0,
    showings: int = 0,
    users: bool = False,
) -> Future:
    """The visits in [start, end) with the items that the user newly engaged with at each. Their
    column `habit` is the outcome of the item's discovery.

    Each visit's context has only events before its own time. For a signal about creators, the
    outcome belongs to the item that opened the discovery of its creator; other new items have habit
    0. Immature outcomes are refused: they would count as no habit.

    Args:
        outcomes: of a signal whose entries are discoveries.
        lake: the log.
        start: first moment of the period, UTC.
        end: end of the period, UTC, not included.
        history: past items in each context.
        slots: slots per context.
        exclude: what is excluded from recommendation: "seen", "creator" or "none".
        limit: the most visits, drawn at random; null: all.
        seed: of that draw.
        showings: past showings in each context.
        users: whether contexts carry what the service knew of the user.

    Raises:
        DataError: the signal is not about discoveries, or some discovery in the period is immature.
    """
    entries = matured_entries(outcomes, start, end)
    contexts = contexts_from_log(
        lake,
        slots=slots,
        history=history,
        start=start,
        end=end,
        exclude=exclude,
        limit=limit,
        seed=seed,
        showings=showings,
        users=users,
    )
    day = pl.col("time").dt.date().alias("day")
    visits = contexts.frame.select("user_id", day).with_row_index("row")
    firsts = first_engagements(lake).filter(pl.col("time") < end).select("user_id", "item_id", day)
    habits = entries.frame.select("user_id", "item_id", day, pl.col("value").alias("habit"))
    relevant = visits.join(firsts, on=["user_id", "day"]).join(
        habits, on=["user_id", "item_id", "day"], how="left"
    )
    relevant = relevant.select(
        pl.col("row").cast(pl.Int64), "item_id", pl.col("habit").fill_null(0.0)
    ).sort("row", "item_id")
    rows = relevant["row"].unique().sort()
    renumbered = relevant.join(pl.DataFrame({"row": rows}).with_row_index("new"), on="row").select(
        pl.col("new").cast(pl.Int64).alias("row"), "item_id", "habit"
    )
    return Future(contexts.take(rows.to_numpy()), renumbered)


def matured_entries(outcomes: Outcomes, start: datetime, end: datetime) -> Outcomes:
    """The discoveries in [start, end), which must all be mature.

    Raises:
        DataError: the signal is not about discoveries, or some discovery is immature.
    """
    signal = outcomes.signal
    if not signal.entry.is_discovery:
        raise DataError(
            f"{signal.name}: ranking needs a signal entered by discovery, not by "
            f"{signal.entry.kind}"
        )
    entries = outcomes.entered(start, end)
    immature = int((~entries.mature).sum())
    if immature:
        last = outcomes.frame.filter(pl.col("value").is_not_null())["time"].max()
        raise DataError(
            f"{signal.name}: {immature:,} of {len(entries):,} entries before {end:%Y-%m-%d} are "
            f"immature at {outcomes.as_of:%Y-%m-%d}; "
            f"end the evaluation by {last + timedelta(days=1):%Y-%m-%d}"
            if isinstance(last, datetime)
            else f"{signal.name}: no entry is mature; wait, or shorten the window"
        )
    return entries
