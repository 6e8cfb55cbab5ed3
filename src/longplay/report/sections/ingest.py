"""The log at a glance, whether it was ingested or simulated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from longplay.display import decimal, listed, percent
from longplay.intervals import wilson
from longplay.report import charts
from longplay.report.blocks import Block, Bullets, Chart, Grid, Heading, Section, Table
from longplay.report.steps import Steps
from longplay.results import RunResults
from longplay.results.log_figures import DayOfLog, LogResult, WeekOfUsers
from longplay.signals.engine.beginnings import Beginnings

NAME, TITLE = "log", "The log at a glance"


@dataclass(frozen=True)
class ActiveDay:
    """Active users of one calendar day, and the mean of the seven days up to it."""

    day: date
    users: int
    mean: float | None


@dataclass(frozen=True)
class LogAtAGlance:
    """The figures of the section on the log.

    Attributes:
        log: its figures.
        days: every calendar day of the stretch with most activity.
        away: days with activity that a long silence parts from it.
        weeks: retention from the first week on.
    """

    log: LogResult
    days: tuple[ActiveDay, ...]
    away: tuple[date, ...]
    weeks: tuple[WeekOfUsers, ...]


def period_of(log: LogResult | None) -> str:
    """First to last day of the log, or nothing."""
    if log is None or log.first is None or log.last is None:
        return ""
    return f"{log.first[:10]} to {log.last[:10]}"


def collect(results: RunResults) -> LogAtAGlance | None:
    """The figures of the log."""
    log = results.find(LogResult)
    if log is None:
        return None
    active, away = _together(log.activity)
    weeks = tuple(row for row in log.retention if row.week)
    return LogAtAGlance(log, _daily(active), tuple(away), weeks)


def draw(figures: LogAtAGlance) -> tuple[Chart, ...]:
    """Activity by day, and retention by week where there are several."""
    plots = []
    if figures.days:
        rows = [
            {"day": row.day.isoformat(), "users": row.users, "mean": row.mean}
            for row in figures.days
        ]
        plots.append(charts.activity(rows))
    if len(figures.weeks) > 1:
        plots.append(charts.retention([_with_band(row) for row in figures.weeks]))
    return tuple(plots)


def render(figures: LogAtAGlance, plots: Sequence[Chart]) -> Section:
    """Activity, retention, kinds and origins of events, and rows set aside."""
    log = figures.log
    blocks: list[Block] = [Grid(tuple(plots))] if plots else []
    blocks.append(
        Grid(
            (
                _shares("What the events are", "kind", log.kinds),
                _shares("Where they come from", "origin", log.origins),
            )
        )
    )
    if log.rejected:
        blocks.append(_set_aside(log))
    notes = tuple(note for note in (*log.notes, log.creators) if note)
    if notes:
        blocks.append(Bullets("What the reader of the log decided", notes))
    blocks.append(
        Heading(
            "",
            "Retention counts users observed that long; late weeks rest on those who came "
            "earliest, often the keenest. A first "
            "event is the first in this log, not in the user's life. Days without events count as "
            "0 in the mean.",
        )
    )
    return Section(NAME, TITLE, tuple(_sentences(figures)), tuple(blocks))


def _sentences(figures: LogAtAGlance) -> list[str]:
    """Sentences on the size of the log, its activity, retention and rows set aside."""
    log = figures.log
    words = [
        f"{decimal(log.events)} events of {decimal(log.users)} users and "
        f"{decimal(log.items)} items, {period_of(log) or 'period unknown'}."
    ]
    if figures.days:
        per_day = sum(row.users for row in figures.days) / len(figures.days)
        share = per_day / log.users if log.users else None
        words.append(
            f"On an average day {decimal(per_day, 0)} users were active, "
            f"{percent(share, 1)} of all."
        )
    if figures.away:
        words.append(_away_words(figures.away))
    if figures.weeks:
        shares = [
            f"{percent(row.share)} of users were active in week {row.week}"
            for row in _some(figures.weeks)
        ]
        words.append(f"After their first event, {listed(shares)}.")
    if log.rejected:
        total, rows = sum(log.rejected.values()), log.source.rows
        words.append(
            f"{decimal(total)} rows ({percent(total / rows if rows else None, 1)} of the source) "
            "were set aside, none silently."
        )
    else:
        words.append("No row was set aside.")
    return words


def _set_aside(log: LogResult) -> Table:
    """Rows set aside by reason, as a table."""
    rows = log.source.rows
    body = tuple(
        (reason, decimal(count), percent(count / rows if rows else None, 1))
        for reason, count in sorted(log.rejected.items(), key=lambda pair: (-pair[1], pair[0]))
    )
    head = ("reason", "rows", "share of source rows")
    return Table("Rows set aside (quarantine)", head, body, "lrr")


def _together(activity: Sequence[DayOfLog]) -> tuple[dict[date, int], list[date]]:
    """Active users per day of the busiest stretch, and days that a long silence separates from
    it."""
    counts = {date.fromisoformat(row.day): row.users for row in activity}
    stretches = Beginnings.of(day.toordinal() for day in counts).runs

    def users(stretch: tuple[int, int]) -> int:
        """User-days of a stretch of days."""
        return sum(
            count for day, count in counts.items() if stretch[0] <= day.toordinal() <= stretch[1]
        )

    if not stretches:
        return {}, []
    first, last = max(stretches, key=users)
    inside = {day: count for day, count in counts.items() if first <= day.toordinal() <= last}
    return inside, sorted(counts.keys() - inside.keys())


def _away_words(days: Sequence[date]) -> str:
    """A sentence on days that a long silence separates from the others."""
    if len(days) == 1:
        which = f"1 day with activity ({days[0]}) is"
    else:
        which = f"{decimal(len(days))} days with activity ({days[0]} to {days[-1]}) are"
    return (
        f"{which} left out of this mean and of the chart, more than a year of silence away "
        "from the others: look whether the times are right."
    )


def _daily(counts: Mapping[date, int]) -> tuple[ActiveDay, ...]:
    """One row per calendar day, empty days as 0, with the trailing 7-day mean (null before day
    7)."""
    if not counts:
        return ()
    first, last = min(counts), max(counts)
    days = [first + timedelta(days=place) for place in range((last - first).days + 1)]
    users = [counts.get(day, 0) for day in days]
    means = [
        sum(users[place - 6 : place + 1]) / 7 if place >= 6 else None for place in range(len(days))
    ]
    return tuple(ActiveDay(day, count, mean) for day, count, mean in zip(days, users, means))


def _with_band(row: WeekOfUsers) -> dict[str, Any]:
    """Retention of a week with its 95% interval, as a row of a chart."""
    low, high = wilson(row.share, row.users)
    return {"share": row.share, "users": row.users, "week": row.week, "low": low, "high": high}


def _some(weeks: Sequence[WeekOfUsers]) -> list[WeekOfUsers]:
    """The first, the fourth and the last week of a retention curve."""
    wanted = {weeks[0].week, 4, weeks[-1].week}
    return [row for row in weeks if row.week in wanted]


def _shares(caption: str, what: str, counts: Mapping[str, int]) -> Table:
    """Counts by name with their shares, as a table."""
    total = sum(counts.values())
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return Table(
        caption,
        (what, "events", "share"),
        tuple((name, decimal(count), percent(count / total, 1)) for name, count in ordered),
        "lrr",
    )


SECTIONS = (
    Steps(
        order=10,
        name=NAME,
        title=TITLE,
        absent="No log was read: neither the ingest nor the simulate stage has a result.",
        collect=collect,
        draw=draw,
        render=render,
    ),
)
