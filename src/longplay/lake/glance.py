"""The log in figures: sizes, daily activity, retention after the first event."""

from __future__ import annotations

from typing import Any

import polars as pl

from longplay.lake.creators import disagreement_note
from longplay.lake.daily import long_days
from longplay.lake.lake import Lake
from longplay.lake.schema import ENGAGED

LEAST_USERS = 20  # a week's retention is given for at least this many users who could have come
MOST_WEEKS = 26


def glance(lake: Lake) -> dict[str, Any]:
    """Figures of a lake: counts, kinds, origins, first, last, watermark, `activity`, `creators`,
    `long_days` and `retention`.

    creators: where events and the catalogue name different ones, in a sentence; empty where they
    agree. activity: per UTC day the users and events of engaged kinds. retention: for week w = 0,
    1, ... after a user's first day, the share of users active in it (week 0 is the first day
    itself, week 1 the seven days after it, ...), among the users whose week w had ended before the
    watermark. long_days: a sentence on user-days with more than 24 hours of seconds, or None.
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
    return {
        "events": events.height,
        "users": events["user_id"].n_unique(),
        "items": lake.items.height,
        "decisions": lake.decisions.height,
        "quarantined": lake.quarantine.height,
        "first": None if events.is_empty() else f"{events['time'].min()}",
        "last": None if events.is_empty() else f"{events['time'].max()}",
        "watermark": lake.watermark.isoformat(),
        "kinds": dict(events.group_by("kind").len().sort("kind").iter_rows()),
        "origins": dict(events.group_by("origin").len().sort("origin").iter_rows()),
        "activity": [
            {"day": day.isoformat(), "users": users, "events": count}
            for day, users, count in daily.iter_rows()
        ],
        "long_days": None if (days := long_days(events)) is None else str(days),
        "creators": disagreement_note(lake),
        "retention": _retention(
            engaged.select("user_id", "day").unique(), pl.lit(lake.watermark.date())
        ),
    }


def _retention(active_days: pl.DataFrame, end: pl.Expr) -> list[dict[str, Any]]:
    """Rows of week, share, users from (user_id, day) pairs; `end` is the first day that is not
    complete."""
    first = active_days.group_by("user_id").agg(pl.col("day").min().alias("first"))
    whole_weeks = ((end - pl.col("first")).dt.total_days() - 1) // 7
    eligible = first.select(whole_weeks.alias("weeks"))["weeks"]
    week = ((pl.col("day") - pl.col("first")).dt.total_days() + 6) // 7
    came = (
        active_days.join(first, on="user_id")
        .filter(week <= whole_weeks)
        .group_by(week.alias("week"))
        .agg(pl.col("user_id").n_unique())
    )
    by_week = dict(came.iter_rows())
    rows = []
    for number in range(MOST_WEEKS + 1):
        users = int((eligible >= number).sum())
        if users >= LEAST_USERS:
            rows.append({"week": number, "share": by_week.get(number, 0) / users, "users": users})
    return rows
