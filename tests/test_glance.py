"""The log at a glance: figures a reader can count by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from longplay.errors import DataError
from longplay.lake import Lake
from longplay.lake.glance import glance
from longplay.results.log_figures import DayOfLog, WeekOfUsers

START = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def lake_of(rows: list[tuple[str, timedelta, str]], watermark: datetime) -> Lake:
    """A lake of (user, time after 1 March, kind)."""
    events = pl.DataFrame(
        {
            "event_id": [f"e{n}" for n in range(len(rows))],
            "user_id": [user for user, _, _ in rows],
            "kind": [kind for _, _, kind in rows],
        }
    ).with_columns(pl.Series("time", [START + after for _, after, _ in rows]))
    lake = Lake.memory()
    lake.append("all", events=events, watermark=watermark)
    return lake


def test_counts_are_those_of_the_log() -> None:
    rows = [
        ("a", 0 * DAY, "play"),
        ("a", DAY - timedelta(microseconds=1), "skip"),
        ("b", DAY, "play"),
        ("a", DAY, "play"),
        ("a", DAY, "visit"),
    ]
    figures = glance(lake_of(rows, START + 3 * DAY))
    assert figures.events == 5
    assert figures.users == 2
    assert (figures.items, figures.decisions, figures.quarantined) == (0, 0, 0)
    assert figures.kinds == {"play": 3, "skip": 1, "visit": 1}
    assert figures.origins == {"organic": 5}
    assert figures.watermark == "2026-03-04T00:00:00+00:00"
    assert figures.first.startswith("2026-03-01 00:00:00")
    assert figures.last.startswith("2026-03-02 00:00:00")
    assert figures.activity == (
        DayOfLog("2026-03-01", 1, 1),
        DayOfLog("2026-03-02", 2, 3),
    )  # a skip is none
    assert figures.retention == ()  # of two users nothing is said


def cohort() -> list[tuple[str, timedelta, str]]:
    """40 users start on 1 March. 10 return on day 7, 5 of these twice; 4 on day 8; 30 only skip on
    day 3. 20 more start on day 2."""
    rows = [(f"u{n}", timedelta(hours=n % 24), "play") for n in range(40)]
    rows += [(f"u{n}", 7 * DAY, "play") for n in range(10)] + [
        (f"u{n}", 6 * DAY, "save") for n in range(5)
    ]
    rows += [(f"u{n}", 8 * DAY, "play") for n in range(4)] + [
        (f"u{n}", 3 * DAY, "skip") for n in range(30)
    ]
    return rows + [(f"v{n}", 2 * DAY, "play") for n in range(20)] + [("v0", 9 * DAY, "play")]


def test_retention_of_a_week_is_the_share_active_in_it_among_those_whose_week_had_ended() -> None:
    at_day = {
        day: glance(lake_of(cohort(), START + day * DAY)).retention for day in (1, 7, 8, 10, 15)
    }
    everyone = WeekOfUsers(0, 1.0, 60)
    assert at_day[1] == (WeekOfUsers(0, 1.0, 40),)
    assert at_day[7] == (everyone,)  # day 7 has not ended
    assert at_day[8] == (
        everyone,
        WeekOfUsers(1, 10 / 40, 40),
    )
    assert at_day[10] == (
        everyone,
        WeekOfUsers(1, 11 / 60, 60),
    )  # v0 came back on its own day 7
    assert at_day[15] == (
        everyone,
        WeekOfUsers(1, 11 / 60, 60),
        WeekOfUsers(2, 4 / 40, 40),
    )


def test_a_day_that_has_not_ended_counts_for_nobody() -> None:
    nearly = glance(lake_of(cohort(), START + 8 * DAY - timedelta(microseconds=1)))
    assert [row.week for row in nearly.retention] == [0]
    same_day = glance(
        lake_of([(f"u{n}", timedelta(0), "play") for n in range(30)], START + timedelta(hours=12))
    )
    assert same_day.retention == ()


def test_a_glance_at_a_view_sees_only_the_view() -> None:
    lake = lake_of(cohort(), START + 15 * DAY)
    assert glance(lake.before(START + 8 * DAY)) == glance(
        lake_of([row for row in cohort() if row[1] < 8 * DAY], START + 8 * DAY)
    )


def test_a_log_without_events_says_so() -> None:
    lake = Lake.memory()
    with pytest.raises(DataError, match="no watermark"):
        glance(lake)
    lake.append(
        "items",
        items=pl.DataFrame({"item_id": ["i1"]}).with_columns(added_at=pl.lit(START)),
        watermark=START + DAY,
    )
    figures = glance(lake)
    assert (figures.events, figures.users, figures.items) == (0, 0, 1)
    assert (figures.first, figures.last, figures.activity, figures.retention) == (
        None,
        None,
        (),
        (),
    )
