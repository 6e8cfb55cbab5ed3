"""Sections on what happened and what is hoped for: the log at a glance, the signals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Any

from longplay.report import charts
from longplay.report.blocks import Block, Bullets, Code, Grid, Heading, Section, Table
from longplay.report.phrases import (
    decimals_of,
    finite,
    interval_words,
    listed,
    number,
    percent,
    plus_minus,
    reached,
    share_of,
    wilson,
)
from longplay.signals.engine.beginnings import Beginnings

Results = Mapping[str, Mapping[str, Any]]


def log_of(results: Results) -> Mapping[str, Any]:
    """The figures of the log, ingested or simulated; empty where neither stage ran."""
    return results.get("simulate") or results.get("ingest") or {}


def period_of(log: Mapping[str, Any]) -> str:
    """First to last day of the log, or nothing."""
    first, last = str(log.get("first") or "")[:10], str(log.get("last") or "")[:10]
    return f"{first} to {last}" if first and last else ""


def glance(results: Results) -> Section:
    """The log at a glance: activity, retention, what it is made of, what was set aside."""
    log = log_of(results)
    if not log:
        return Section(
            "log",
            "The log at a glance",
            ("No log was read: neither the ingest nor the simulate stage has a result.",),
        )
    events, users = log.get("events"), log.get("users")
    answer = [
        f"{number(events)} events of {number(users)} users and {number(log.get('items'))} items, "
        f"{period_of(log) or 'period unknown'}."
    ]
    blocks: list[Block] = []
    plots: list[Block] = []
    active, away = _together(log.get("activity") or [])
    days = _daily(active)
    if days:
        per_day = sum(row["users"] for row in days) / len(days)
        answer.append(
            f"On an average day {number(per_day, 0)} users were active, "
            f"{percent(per_day / users if users else None, 1)} of all."
        )
        plots.append(charts.activity(days))
    if away:
        answer.append(_away_words(away))
    weeks = [_with_band(row) for row in log.get("retention") or [] if row.get("week")]
    if weeks:
        said = [
            f"{percent(row['share'])} of users were active in week {row['week']}"
            for row in _some(weeks)
        ]
        answer.append(f"After their first event, {listed(said)}.")
    if len(weeks) > 1:
        plots.append(charts.retention(weeks))
    if plots:
        blocks.append(Grid(tuple(plots)))
    blocks.append(
        Grid(
            (
                _shares("What the events are", "kind", log.get("kinds")),
                _shares("Where they come from", "origin", log.get("origins")),
            )
        )
    )
    rejected, rows = log.get("rejected") or {}, (log.get("source") or {}).get("rows")
    if rejected:
        total = sum(rejected.values())
        answer.append(
            f"{number(total)} rows ({percent(total / rows if rows else None, 1)} of the source) "
            "were set aside, none silently."
        )
        body = tuple(
            (str(reason), number(count), percent(count / rows if rows else None, 1))
            for reason, count in sorted(rejected.items(), key=lambda pair: (-pair[1], pair[0]))
        )
        blocks.append(
            Table(
                "Rows set aside (quarantine)",
                ("reason", "rows", "share of source rows"),
                body,
                "lrr",
            )
        )
    else:
        answer.append("No row was set aside.")
    notes = tuple(str(note) for note in [*(log.get("notes") or []), log.get("creators")] if note)
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
    return Section("log", "The log at a glance", tuple(answer), tuple(blocks))


def signals(results: Results) -> Section:
    """Each signal: its sentence, what it is worth on average, how much of it has matured, how it
    builds up."""
    outcomes = results.get("outcomes") or {}
    if not outcomes:
        return Section(
            "signals", "Signals", ("No signal was measured: the outcomes stage has no result.",)
        )
    answer, rows, plots, codes = [], [], [], []
    wanted = results.get("reward") or {}
    outcomes = dict(
        sorted(outcomes.items(), key=lambda pair: pair[0] not in wanted)
    )  # objectives first
    for name, one in outcomes.items():
        known, share = one.get("at_training") or {}, bool(one.get("binary"))
        answer.append(_signal_words(str(name), one))
        mature = f"{number(one.get('mature'))} of {number(one.get('entries'))}"
        then = f"{number(known.get('mature'))} of {number(known.get('entries'))}"
        rows.append(
            (
                str(one.get("label", name)),
                str(one.get("unit", "")),
                _rate(one.get("base_rate"), share),
                mature,
                number(one.get("truncated") or 0),
                _rate(known.get("base_rate"), share),
                then,
            )
        )
        curve = [row for row in one.get("maturity") or [] if finite(row.get("value")) is not None]
        if len(curve) > 1 and curve[-1]["value"]:
            marks = [
                {**row, "text": f"{percent(part)} by day {row['day']}"}
                for part in (0.5, 0.9)
                if (row := reached(curve, part))
            ]
            plots.append(
                charts.maturity(curve, marks, share=share, name=str(one.get("label", name)))
            )
        codes.append(Code(f"{one.get('label', name)} as TOML", str(one.get("toml", ""))))
    sentences = tuple(str(one.get("sentence", name)) for name, one in outcomes.items())
    head = (
        "signal",
        "unit",
        "value ± 95%",
        "mature entries",
        "truncated, left out",
        "value at training time",
        "mature then",
    )
    table = Table(
        "Signals: mean outcome of mature entries, at the end of the log and when training ended",
        head,
        tuple(rows),
        "llrrrrr",
    )
    return Section(
        "signals",
        "Signals",
        tuple(answer),
        (
            Bullets("What each signal means", sentences),
            *((Grid(tuple(plots)),) if plots else ()),
            table,
            *codes,
        ),
    )


def _signal_words(name: str, one: Mapping[str, Any]) -> str:
    rate, share = one.get("base_rate"), bool(one.get("binary"))
    mature, entries = one.get("mature"), one.get("entries")
    unsure = one.get("truncated") or 0
    if not rate or finite(rate.get("value")) is None:
        certain = (
            f" that are certain ({number(unsure)} are truncated: the log begins too shortly "
            "before them)"
            if unsure and mature
            else ""
        )
        return (
            f"{name}: none of {number(entries)} entries{certain} has matured, so it has no "
            "value yet."
        )
    value = share_of(rate) if share else number(rate["value"], decimals_of(rate))
    open_share = 1 - mature / entries if entries and mature is not None else 0.0
    waiting = (
        f"{percent(open_share)} of its {number(entries)} entries are still open and count as "
        "unknown, not as 0"
        if open_share >= 0.005
        else "nearly all of its entries have matured"
    )
    late = reached(one.get("maturity") or [], 0.9)
    when = (
        f"; 90% of it has shown by day {late['day']} of {one.get('days', 'its window')}"
        if late
        else ""
    )
    left_out = (
        f"; {number(unsure)} truncated entries, so near the log's begin that they may be none, "
        "are left out"
        if unsure
        else ""
    )
    return f"{name}: {value} ({interval_words(rate, share=share)}){when}; {waiting}{left_out}."


def _rate(rate: Mapping[str, Any] | None, share: bool) -> str:
    if not rate:
        return "not mature"
    if not share:
        return plus_minus(rate)
    scaled = {
        key: None if finite(rate.get(key)) is None else rate[key] * 100
        for key in ("value", "low", "high")
    }
    return f"{plus_minus(scaled)}\N{NO-BREAK SPACE}%"


def _together(activity: Sequence[Mapping[str, Any]]) -> tuple[dict[date, int], list[date]]:
    """Active users of each day of the stretch that has most of them, and the days with activity
    that a long silence parts from it."""
    counts = {date.fromisoformat(str(row["day"])[:10]): int(row["users"]) for row in activity}
    stretches = Beginnings.of(day.toordinal() for day in counts).runs

    def users(stretch: tuple[int, int]) -> int:
        return sum(
            count for day, count in counts.items() if stretch[0] <= day.toordinal() <= stretch[1]
        )

    if not stretches:
        return {}, []
    first, last = max(stretches, key=users)
    inside = {day: count for day, count in counts.items() if first <= day.toordinal() <= last}
    return inside, sorted(counts.keys() - inside.keys())


def _away_words(days: Sequence[date]) -> str:
    """What is said of days that a long silence parts from the others."""
    if len(days) == 1:
        which = f"1 day with activity ({days[0]}) is"
    else:
        which = f"{number(len(days))} days with activity ({days[0]} to {days[-1]}) are"
    return (
        f"{which} left out of this mean and of the chart, more than a year of silence away "
        "from the others: look whether the times are right."
    )


def _daily(counts: Mapping[date, int]) -> list[dict[str, Any]]:
    """One row per calendar day, empty days as 0, with the trailing 7-day mean (null before day
    7)."""
    if not counts:
        return []
    first, last = min(counts), max(counts)
    days = [first + timedelta(days=place) for place in range((last - first).days + 1)]
    users = [counts.get(day, 0) for day in days]
    means = [
        sum(users[place - 6 : place + 1]) / 7 if place >= 6 else None for place in range(len(days))
    ]
    return [
        {"day": day.isoformat(), "users": count, "mean": mean}
        for day, count, mean in zip(days, users, means)
    ]


def _with_band(row: Mapping[str, Any]) -> dict[str, Any]:
    low, high = wilson(float(row["share"]), int(row.get("users") or 0))
    return {**row, "low": low, "high": high}


def _some(weeks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first, the fourth and the last week of a retention curve."""
    wanted = {weeks[0]["week"], 4, weeks[-1]["week"]}
    return [row for row in weeks if row["week"] in wanted]


def _shares(caption: str, what: str, counts: Mapping[str, int] | None) -> Table:
    total = sum((counts or {}).values())
    ordered = sorted((counts or {}).items(), key=lambda pair: (-pair[1], pair[0]))
    return Table(
        caption,
        (what, "events", "share"),
        tuple((str(name), number(count), percent(count / total, 1)) for name, count in ordered),
        "lrr",
    )
