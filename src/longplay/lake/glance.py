"""The log in figures: sizes, daily activity, retention after the first event."""

from __future__ import annotations

import polars as pl

from longplay.lake.creators import disagreement_note
from longplay.lake.daily import long_days
from longplay.lake.lake import Lake
from longplay.lake.schema import ENGAGED
from longplay.results.log_figures import DayOfLog, LogFigures, WeekOfUsers

LEAST_USERS = 20  # a week's retention is given for at least this many users who could have come
MOST_WEEKS = 26


def glance(lake: Lake) -> LogFigures:
    """Figures of a lake: counts, activity by day, and retention by week.

    Activity counts events of engaged kinds and their users per UTC day. Retention of week w is the
    share of users active in that week after their first day, among the users whose week w had ended
    before the watermark; a week with fewer than `LEAST_USERS` such users is left out.

    Args:
        lake: the lake.

    Raises:
        DataError: the lake has no watermark: nothing was appended.
    """
    events = lake.events
    engaged = events.filter(pl.col("kind").is_in(ENGAGED)).with_columns(
        day=pl.col("time").dt.date()
    )
    daily = (
        engaged.group_by("day")
        .agg(pl.col("user_id").n_unique().alias("users"), pl.len().alias("events"))
        .sort("day")
    )
    days = long_days(events)
    return LogFigures(
        events=events.height,
        users=events["user_id"].n_unique(),
        items=lake.items.height,
        decisions=lake.decisions.height,
        quarantined=lake.quarantine.height,
        first=None if events.is_empty() else f"{events['time'].min()}",
        last=None if events.is_empty() else f"{events['time'].max()}",
        watermark=lake.watermark.isoformat(),
        kinds=dict(events.group_by("kind").len().sort("kind").iter_rows()),
        origins=dict(events.group_by("origin").len().sort("origin").iter_rows()),
        activity=tuple(
            DayOfLog(day.isoformat(), users, count) for day, users, count in daily.iter_rows()
        ),
        long_days=None if days is None else str(days),
        creators=disagreement_note(lake),
        retention=_retention(
            engaged.select("user_id", "day").unique(), pl.lit(lake.watermark.date())
        ),
    )


def _retention(active_days: pl.DataFrame, end: pl.Expr) -> tuple[WeekOfUsers, ...]:
    """Retention by week.

    Args:
        active_days: distinct pairs of user_id and day.
        end: the first day that is not complete.
    """
    first = active_days.group_by("user_id").agg(pl.col("day").min().alias("first"))
    complete_weeks = ((end - pl.col("first")).dt.total_days() - 1) // 7
    eligible = first.select(complete_weeks.alias("weeks"))["weeks"]
    week = ((pl.col("day") - pl.col("first")).dt.total_days() + 6) // 7
    came = (
        active_days.join(first, on="user_id")
        .filter(week <= complete_weeks)
        .group_by(week.alias("week"))
        .agg(pl.col("user_id").n_unique())
    )
    by_week = dict(came.iter_rows())
    rows = []
    for number in range(MOST_WEEKS + 1):
        users = int((eligible >= number).sum())
        if users >= LEAST_USERS:
            rows.append(WeekOfUsers(number, by_week.get(number, 0) / users, users))
    return tuple(rows)
