"""What outcomes are, in slow, plain Python: loops over events, one line per rule of
docs/signals.md. The oracle of the engine's tests.

It knows declarations, the schema's constants and how a log is put into a lake, and nothing of how
the engine computes.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
from hypothesis import reject
from hypothesis import strategies as st

from longplay.errors import ConfigError
from longplay.lake import Lake
from longplay.lake.schema import DTYPES, ENGAGED, KINDS, ORIGINS
from longplay.signals import (
    Entry,
    Measure,
    Signal,
    active_days,
    active_weeks,
    amount,
    cancelled,
    completion,
    count,
    days_with,
    discovery,
    distinct,
    enrolment,
    event,
    exposure,
    habits,
    minutes,
    plays,
    returned,
    saves,
    sessions,
    skips,
    time_to_return,
    user_day,
)

DAY, MICRO, PAUSE = timedelta(days=1), timedelta(microseconds=1), timedelta(minutes=30)
SILENCE = 366  # days
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EARLIEST = datetime(1600, 1, 1, tzinfo=UTC)  # what a lake of these logs takes
LEAP, OLD = (
    datetime(2028, 2, 26, tzinfo=UTC),
    datetime(1969, 12, 27, tzinfo=UTC),
)  # logs that cross 2028-02-29 and 1970-01-01
BIG = str(2**53 + 1)  # a float would read it as 2**53
USERS = (BIG, str(2**53))
CREATORS = {
    "i1": "c1",
    "i2": "c1",
    "i3": "c2",
    "i4": None,
    "i5": "c3",
}  # of i4 and i5 the catalogue does not know it: only their events do
LENGTHS = {"i1": 100.0, "i3": 60.0}  # seconds; of the others nobody knows
CATALOGUE = pl.DataFrame(
    {
        "item_id": ["i1", "i2", "i3", "i4"],
        "creator_id": ["c1", "c1", "c2", None],
        "length": [LENGTHS.get(item) for item in ("i1", "i2", "i3", "i4")],
        "added_at": [OLD - DAY] * 4,
    },
    schema_overrides={"added_at": DTYPES["items"]["added_at"]},
)
NAMELESS = CATALOGUE.with_columns(creator_id=pl.lit(None, pl.String))
GROWING = CATALOGUE.with_columns(
    added_at=pl.Series(
        [OLD - DAY, LEAP + 3 * DAY, OLD - DAY, LEAP + 9 * DAY], dtype=DTYPES["items"]["added_at"]
    )
)
EVENT = (
    "event_id",
    "user_id",
    "item_id",
    "creator_id",
    "kind",
    "time",
    "seconds",
    "surface",
    "origin",
    "decision_id",
    "slot",
    "amount",
    "ingested_at",
)
DECISION = (
    "decision_id",
    "context_id",
    "user_id",
    "time",
    "surface",
    "slate",
    "log_prob",
    "policy",
    "experiment",
    "ingested_at",
)
COUNTS = {"plays": "play", "saves": "save", "skips": "skip", "cancelled": "cancel"}

Row = dict[str, Any]


def events_frame(rows: list[Row]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema={name: DTYPES["events"][name] for name in EVENT})


def decisions_frame(rows: list[Row]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema={name: DTYPES["decisions"][name] for name in DECISION})


@dataclass(frozen=True)
class Log:
    """What happened, and until when it is told: at `as_of`, of a log that is complete up to
    `watermark` (null: more than a year later)."""

    events: list[Row]
    decisions: list[Row]
    as_of: datetime
    watermark: datetime | None = None
    items: pl.DataFrame = field(default_factory=lambda: CATALOGUE)

    @property
    def creators(self) -> dict[str, str]:
        return listed(self.items, self.as_of)

    @property
    def complete_until(self) -> datetime:
        return (
            self.watermark
            or max([self.as_of, *(row["time"] for row in (*self.events, *self.decisions))])
            + 400 * DAY
        )

    def lake(self) -> Lake:
        lake = Lake.memory()
        events = events_frame(self.events) if self.events else None
        decisions = decisions_frame(self.decisions) if self.decisions else None
        lake.append(
            "all",
            events=events,
            decisions=decisions,
            items=self.items,
            watermark=self.complete_until,
            earliest=EARLIEST,
        )
        return lake


# -- days and what is known
# ------------------------------------------------------------------------------


def day_of(time: datetime) -> int:
    return (time - EPOCH).days  # a timedelta's days are floored, before 1970 too


def midnight(day: int) -> datetime:
    return EPOCH + day * DAY


def known(rows: list[Row], as_of: datetime) -> list[Row]:
    return [row for row in rows if row["time"] < as_of and row["ingested_at"] <= as_of]


def in_time(events: list[Row]) -> list[Row]:
    return sorted(events, key=lambda event: (event["time"], event["event_id"]))


def engaged_of(events: list[Row]) -> list[Row]:
    return [event for event in in_time(events) if event["kind"] in ENGAGED]


def listed(items: pl.DataFrame, as_of: datetime) -> dict[str, str]:
    """The creators that the catalogue knows at `as_of`."""
    rows = items.filter(pl.col("added_at") < as_of, pl.col("creator_id").is_not_null())
    return dict(rows.select("item_id", "creator_id").iter_rows())


def named(events: list[Row], creators: dict[str, str]) -> list[Row]:
    """Events, each with its own creator, else the catalogue's of its item."""
    return [
        {**event, "creator_id": event["creator_id"] or creators.get(event["item_id"])}
        for event in events
    ]


def creator_of(item: str, events: list[Row], creators: dict[str, str]) -> str | None:
    if item in creators:
        return creators[item]
    of_events = [
        event["creator_id"]
        for event in in_time(events)
        if event["item_id"] == item and event["creator_id"] is not None
    ]
    return of_events[-1] if of_events else None


def seen_again(rows: list[Row]) -> set[int]:
    """Days of users who were there on another day, too, at most 366 days away."""
    days = {(row["user_id"], day_of(row["time"])) for row in rows}
    return {
        day
        for user, day in days
        if any(other == user and 0 < abs(then - day) <= SILENCE for other, then in days)
    }


def observed(day: int, days: int, engaged: list[Row]) -> bool:
    """Whether the log had begun at least so many days before: with users who came again, after the
    last silence of theirs of over 366 days."""
    active = sorted(seen for seen in seen_again(engaged) if seen <= day)
    if not active or day - active[-1] > SILENCE:
        return False
    begun = active[-1]
    for earlier in reversed(active):
        if begun - earlier > SILENCE:
            break
        begun = earlier
    return day - begun >= days


# -- entries
# ---------------------------------------------------------------------------------------------


def entries_of(signal: Signal, log: Log) -> list[Row]:
    events = in_time(named(known(log.events, log.as_of), log.creators))
    engaged, decisions = engaged_of(events), known(log.decisions, log.as_of)
    entry = signal.entry
    nothing = {
        **dict.fromkeys(("item_id", "creator_id", "surface", "decision_id", "slot")),
        "truncated": False,
    }
    if entry.kind == "discovery":
        found = firsts(engaged, entry.of, entry.novel_for, engaged)
    elif entry.kind == "event":
        ours = [
            event
            for event in events
            if opens(event, entry) and (entry.of is None or event[f"{entry.of}_id"] is not None)
        ]
        found = (
            ours if entry.novel_for is None else firsts(ours, entry.of, entry.novel_for, engaged)
        )
        found = (
            found
            if entry.of is not None
            else [{**event, "item_id": None, "creator_id": None} for event in found]
        )
    elif entry.kind == "exposure":
        found = [
            {
                **decision,
                "item_id": item,
                "slot": slot,
                "creator_id": creator_of(item, events, log.creators),
                "origin": "recommended",
            }
            for decision in decisions
            for slot, item in enumerate(decision["slate"])
        ]
    elif entry.kind == "user_day":
        opening: dict[tuple[str, int], Row] = {}
        for event in engaged:
            opening.setdefault((event["user_id"], day_of(event["time"])), event)
        days = defaultdict(list)
        for user, day in opening:
            days[user].append(day)
        found = []
        for (user, day), event in opening.items():
            before = [other for other in days[user] if other < day]
            if entry.dormant_for is not None and (
                not before or any(day - entry.dormant_for <= other for other in before)
            ):
                continue
            found.append({**event, "item_id": None, "creator_id": None})
    else:
        found = []
        for user in sorted({row["user_id"] for row in (*engaged, *filter(enrols, decisions))}):
            trial = [
                decision["time"]
                for decision in decisions
                if decision["user_id"] == user and enrols(decision)
            ]
            own = [event["time"] for event in engaged if event["user_id"] == user]
            if trial or own:
                found.append({"user_id": user, "time": min(trial or own), "origin": "organic"})
    return [with_value(signal, {**nothing, **row}, events, log.as_of) for row in found]


def opens(event: Row, entry: Entry) -> bool:
    """Whether an event is one of the kind, origin and surface that the entry declares."""
    return (
        event["kind"] == entry.event
        and entry.origin in (None, event["origin"])
        and entry.surface in (None, event["surface"])
    )


def enrols(decision: Row) -> bool:
    return (
        decision["experiment"] is not None and len(decision["slate"]) > 0
    )  # an empty slate shows nothing


def firsts(
    events: list[Row], of: str | None, novel_for: int | None, engaged: list[Row]
) -> list[Row]:
    """Events on days of which none of the `novel_for` days before has one by the same user about
    the same thing."""
    last: dict[tuple[str, str | None], int] = {}
    found = []
    for touch in in_time(events):
        key = (touch["user_id"], touch[f"{of}_id"] if of else None)
        if of and key[1] is None:
            continue
        day, before = day_of(touch["time"]), last.get(key)
        if before is None or (novel_for is not None and day - before > novel_for):
            found.append(
                {
                    **touch,
                    "truncated": before is None and not observed(day, novel_for or 28, engaged),
                }
            )
        last[key] = day
    return found


# -- values
# ----------------------------------------------------------------------------------------------


def amounts(
    measure: Measure, signal: Signal, entry: Row, events: list[Row], low: int, high: int
) -> dict[int, float]:
    """The amount of each day low..high after the entry's, where it is not 0."""
    day, found = day_of(entry["time"]), defaultdict[int, float](float)
    mine = [event for event in in_time(events) if event["user_id"] == entry["user_id"]]
    if measure.kind == "sessions":
        last = None
        for event in engaged_of(mine):
            if last is None or event["time"] - last > PAUSE:
                found[day_of(event["time"]) - day] += 1
            last = event["time"]
        return {since: amount for since, amount in found.items() if low <= since <= high}
    mine = [
        event
        for event in mine
        if event["origin"] in signal.origins and low <= day_of(event["time"]) - day <= high
    ]
    mine = [event for event in mine if counts(event, measure)]
    if measure.kind in ("habits", "distinct"):
        enough = measure.days or 1
        active = defaultdict[str, set[int]](set)
        for event in engaged_of(mine):
            if event[f"{measure.of}_id"] is not None:
                active[event[f"{measure.of}_id"]].add(day_of(event["time"]) - day)
        for days in active.values():
            if len(days) >= enough:
                found[sorted(days)[enough - 1]] += 1
        return dict(found)
    if measure.of is not None:
        mine = [
            event
            for event in mine
            if event[f"{measure.of}_id"] is not None
            and event[f"{measure.of}_id"] == entry[f"{measure.of}_id"]
        ]
    if measure.kind == "active_weeks":
        weeks = defaultdict[int, list[int]](list)
        for event in engaged_of(mine):
            since = day_of(event["time"]) - day
            weeks[(since - low) // 7].append(since)
        return {min(days): 1.0 for days in weeks.values()}
    for event in mine:
        since = day_of(event["time"]) - day
        if measure.kind in COUNTS or measure.kind == "count":
            found[since] += event["kind"] == COUNTS.get(measure.kind, measure.event)
        elif measure.kind == "amount":
            if event["kind"] == measure.event:
                found[since] += event.get("amount") or 0.0
        elif measure.kind == "completion":
            found[since] += share_of(event) or 0.0
        elif event["kind"] not in ENGAGED:
            continue
        elif measure.kind == "minutes":
            found[since] += (event["seconds"] or 0) / 60
        else:
            found[since] = 1
    return {since: float(amount) for since, amount in found.items() if amount > 0}


def counts(event: Row, measure: Measure) -> bool:
    """Whether an event is of the kind, on the surface and as long as the measure asks."""
    narrowed_kind = None if measure.kind in ("count", "amount") else measure.event
    return (
        narrowed_kind in (None, event["kind"])
        and measure.surface in (None, event["surface"])
        and (measure.seconds is None or (event["seconds"] or 0.0) >= measure.seconds)
    )


def share_of(event: Row) -> float | None:
    """The share of the item that a play lasted; null where it is not known."""
    length = LENGTHS.get(event["item_id"])
    return (
        None
        if event["kind"] != "play" or event["seconds"] is None or length is None
        else min(event["seconds"] / length, 1.0)
    )


def divisors(
    signal: Signal, entry: Row, events: list[Row], low: int, high: int
) -> dict[int, float] | None:
    """What a ratio's amounts are divided by, per day; null where it is none."""
    if signal.measure.per is not None:
        return amounts(signal.measure.per, signal, entry, events, low, high)
    if signal.measure.kind != "completion":
        return None
    shares = [{**event, "kind": "play"} for event in events if share_of(event) is not None]
    timed = plays(signal.measure.of, surface=signal.measure.surface)
    return amounts(timed, signal, entry, shares, low, high)


def with_value(signal: Signal, entry: Row, events: list[Row], as_of: datetime) -> Row:
    measure, (start, stop) = signal.measure, signal.window
    day = day_of(entry["time"])
    trace = amounts(measure, signal, entry, events, start, stop)
    per = divisors(signal, entry, events, start, stop)
    closed = sum(midnight(day + start + n + 1) <= as_of for n in range(stop - start + 1))
    value: float | None = float(sum(trace.values()))
    more: Row = {}
    if measure.kind == "time_to_return":
        back = [since for since in sorted(trace) if since < start + closed]
        more = {
            "event": bool(back),
            "duration": back[0] - start + 1 if back else closed,
        }  # days of the window that were observed
        value = float(back[0] if back else stop)
    if per is not None:
        value = value / sum(per.values()) if sum(per.values()) else None
    if measure.baseline is not None:
        covered = observed(day, measure.baseline, engaged_of(events))
        before = sum(amounts(measure, signal, entry, events, -measure.baseline, -1).values())
        more = {"baseline": before * (stop - start + 1) / measure.baseline if covered else None}
        value = None if more["baseline"] is None else value - more["baseline"]
    needed = (
        1
        if measure.kind in ("returned", "cancelled") and measure.threshold is None
        else measure.threshold
    )
    if needed is not None and value is not None:
        value = float(value >= needed - 1e-9)
    if measure.at_most is not None and value is not None:
        value = float(value <= measure.at_most + 1e-9)
    asked = [
        part.of
        for part in (measure, measure.per)
        if part is not None and part.kind not in ("habits", "distinct")
    ]
    if any(of is not None and entry[f"{of}_id"] is None for of in asked):  # of whom, nobody knows
        value, more = None, dict.fromkeys(more)
    matures_at = midnight(day + stop + 1)
    return {
        **{
            name: entry[name]
            for name in (
                "user_id",
                "item_id",
                "creator_id",
                "time",
                "origin",
                "surface",
                "decision_id",
                "slot",
                "truncated",
            )
        },
        **more,
        "day": day,
        "value": value if matures_at <= as_of else None,
        "matures_at": matures_at,
        "days_observed": closed,
        "trace": {since - start: amount for since, amount in trace.items()},
        "per": None if per is None else {since - start: amount for since, amount in per.items()},
    }


def refused(signal: Signal, log: Log) -> str | None:
    """Why no number can be given, as a pattern that matches any of the reasons; null where one
    can."""
    entry, until = signal.entry, log.complete_until
    events, decisions = (
        named(known(log.events, log.as_of), log.creators),
        known(log.decisions, log.as_of),
    )
    all_events = [
        event for event in log.events if event["time"] < until
    ]  # the lake's, up to its own watermark
    everything = [
        *all_events,
        *(decision for decision in log.decisions if decision["time"] < until),
    ]
    reasons = []
    if entry.kind == "exposure" and not decisions:
        reasons.append("no decisions")
    engaged = engaged_of(events)
    if (
        entry.of is not None
        and engaged
        and all(event[f"{entry.of}_id"] is None for event in engaged)
        and not entries_of(signal, log)
    ):
        reasons.append(f"no event of this log has a {entry.of}")
    happened = [event["ingested_at"] for event in log.events if event["time"] < log.as_of]
    if not events and happened and min(happened) > until and not entries_of(signal, log):
        reasons.append("none had arrived by then")
    if not everything:  # a log of nothing: no entries, and nothing to refuse
        return "|".join(reasons) or None
    begun = min(seen_again(everything) or {day_of(row["time"]) for row in everything})
    if midnight(begun + signal.window[1] + 1) > until:
        reasons.append(f"the window ends {signal.window[1]} days after an entry")
    needed = [entry.event] if entry.kind == "event" else []
    for measure in (signal.measure, signal.measure.per):
        if measure is not None:
            needed.append(
                "play" if measure.kind == "completion" else COUNTS.get(measure.kind, measure.event)
            )
    reasons += [
        f"no event of kind '{kind}'"
        for kind in needed
        if kind is not None and all(event["kind"] != kind for event in all_events)
    ]
    if entry.kind == "event" and not any(opens(event, entry) for event in all_events):
        reasons.append("no event that opens an entry")
    measures = [measure for measure in (signal.measure, signal.measure.per) if measure is not None]
    reasons += [
        f"no event on surface '{measure.surface}'"
        for measure in measures
        if measure.surface is not None
        and all(event["surface"] != measure.surface for event in all_events)
    ]
    reasons += [
        f"no {measure.event} with an amount"
        for measure in measures
        if measure.kind == "amount"
        and all(
            event.get("amount") is None
            for event in all_events
            if event["kind"] == measure.event
            and measure.surface in (None, event["surface"])
            and event["origin"] in signal.origins
        )
    ]
    timed = [part for part in measures if part.kind == "minutes" or part.seconds is not None]
    if timed and all(event["seconds"] is None for event in all_events):
        reasons.append("no event with seconds")
    if all(event["origin"] not in signal.origins for event in all_events) and (
        signal.origin is not None or (all_events and set(signal.origins) != set(ORIGINS))
    ):
        reasons.append("no event of origin")
    return "|".join(reasons) or None


def refuses(signal: Signal, log: Log) -> bool:
    return refused(signal, log) is not None


# -- small logs and signals made by hypothesis
# -----------------------------------------------------------

NOON = timedelta(hours=12)
TIME_OF_DAY = st.sampled_from(
    (
        timedelta(0),
        MICRO,
        timedelta(minutes=10),
        NOON,
        NOON + PAUSE,
        NOON + PAUSE + MICRO,
        DAY - timedelta(minutes=20),
        DAY - MICRO,
    )
)
DAYS = st.sampled_from((0, 0, 1, 1, 2, 3, 3, 4, 5, 6, 7, 8, 9, 28, 29, 30, 36))
YEARS = st.sampled_from((0, 0, 1, 2, 3, 8, 29, 365, 366, 367, 368, 396, 740, 2500, 7600))
FAR = st.sampled_from((0, 1, 2, 28, 29, 59, 60, 61, 63, 64, 65, 119, 120, 180, 364, 365, 366))
LATE = st.sampled_from(
    (timedelta(0), timedelta(0), timedelta(0), MICRO, timedelta(hours=12), 5 * DAY)
)
MOMENT = st.builds(lambda day, time: day * DAY + time, DAYS, TIME_OF_DAY)
YEARS_MOMENT = st.builds(lambda day, time: day * DAY + time, YEARS, TIME_OF_DAY)
FAR_MOMENT = st.builds(lambda day, time: day * DAY + time, FAR, TIME_OF_DAY)
DOINGS = ("play", "play", "play", *KINDS)


@st.composite
def logs(
    draw: st.DrawFn,
    min_decisions: int = 0,
    moments: st.SearchStrategy[timedelta] = MOMENT,
    min_events: int = 4,
    known_later: bool = True,
) -> Log:
    """A small log of two users and (mostly) a third, who does everything once, so that there are
    events of every kind.

    With `known_later` its watermark lies more than a year after everything, else it may lie at
    `as_of`, or before the last events.
    """
    start = draw(st.sampled_from((LEAP, OLD)))
    items = draw(st.sampled_from((CATALOGUE, CATALOGUE, NAMELESS, GROWING)))
    star_schema = draw(st.integers(0, 3)) == 0  # only the catalogue says whose work an item is
    events, decisions = [], []
    for number in range(draw(st.integers(min_events, 20))):
        time = start + draw(moments)
        item = draw(st.sampled_from((None, *CREATORS)))
        creator = CREATORS[item] if item is not None and item != "i4" else None
        creator = (
            creator if draw(st.integers(0, 4)) else draw(st.sampled_from((None, "c1", "c2")))
        )  # events may know better than the catalogue
        events.append(
            {
                "event_id": f"e{draw(st.integers(0, 9))}-{number}",
                "user_id": draw(st.sampled_from(USERS)),
                "item_id": item,
                "creator_id": None if star_schema else creator,
                "kind": draw(st.sampled_from(DOINGS)),
                "time": time,
                "seconds": draw(st.sampled_from((None, 0.0, 20.0, 20.0, 60.0, 3600.5))),
                "surface": draw(st.sampled_from((None, "home", "search"))),
                "origin": draw(st.sampled_from(("organic", "organic", *ORIGINS))),
                "decision_id": draw(st.sampled_from((None, "d0", "lost"))),
                "slot": draw(st.sampled_from((None, 0, 2))),
                "amount": draw(st.sampled_from((None, 0.0, 0.1, 2.5, 1e6))),
                "ingested_at": time + draw(LATE),
            }
        )
    if draw(st.integers(0, 3)) and events:
        time = start + draw(moments)
        third = {
            "user_id": "crowd",
            "item_id": "i1",
            "creator_id": None if star_schema else "c1",
            "seconds": 20.0,
            "surface": None,
            "origin": "organic",
        }
        events += [
            {"event_id": f"crowd-{kind}", **third, "kind": kind, "time": time, "ingested_at": time}
            for kind in KINDS
        ]
    for number in range(draw(st.integers(min_decisions, 4))):
        time = start + draw(moments)
        slate = draw(
            st.lists(
                st.sampled_from(tuple(CREATORS)),
                min_size=draw(st.sampled_from((0, 1, 1))),
                max_size=3,
                unique=True,
            )
        )
        decisions.append(
            {
                "decision_id": f"d{number}",
                "context_id": f"k{number}",
                "user_id": draw(st.sampled_from(USERS)),
                "time": time,
                "surface": "home",
                "slate": slate,
                "log_prob": [-1.0 - place for place in range(len(slate))],
                "policy": "p@1",
                "experiment": draw(st.sampled_from((None, "trial"))),
                "ingested_at": time + draw(LATE),
            }
        )
    as_of = start + draw(moments) + draw(st.sampled_from((0, 8, 40, 40, 400))) * DAY
    watermark = (
        None
        if known_later
        else draw(st.sampled_from((None, as_of, as_of + MICRO, as_of + 3 * DAY)))
    )
    return Log(events, decisions, as_of, watermark, items)


OLD_ENTRIES = (
    *(discovery(novel_for, of) for novel_for in (None, 1, 7, 28) for of in ("creator", "item")),
    exposure("creator"),
    exposure("item"),
    user_day(),
    enrolment(),
)
ENTRIES = (
    *OLD_ENTRIES,
    *(user_day(dormant_for) for dormant_for in (1, 2, 28)),
    *(
        event("save", "item"),
        event("skip", "creator", 3),
        event("play"),
        event("visit", novel_for=28),
        event("cancel", novel_for=1),
    ),
    discovery(62, "item"),
    event("play", origin="organic"),
    event("play", "creator", surface="search"),
    event("save", "item", 2, origin="recommended", surface="home"),
    event("skip", novel_for=7, surface="home"),
)
FAR_ENTRIES = (
    *(discovery(59), discovery(60, "item"), discovery(61), discovery(119, "item"), discovery(365)),
    *(
        event("play", novel_for=60),
        event("save", "creator", 64),
        event("skip", "item", 120),
        event("play", "item"),
    ),
    *(user_day(dormant_for) for dormant_for in (None, 59, 60, 63, 364)),
    *(enrolment(), exposure("item")),
)
OLD_MEASURES = (
    active_days(),
    returned(),
    days_with("creator"),
    days_with("item"),
    minutes(),
    plays(),
    minutes("creator"),
    plays("item"),
)
MEASURES = (
    *OLD_MEASURES,
    *(time_to_return(of) for of in (None, "creator", "item")),
    *(measure(of) for measure in (saves, skips, completion) for of in (None, "creator", "item")),
    minutes("item"),
    count("refund"),
    count("visit"),
    count("like", "creator"),
    count("cancel"),
    cancelled(),
    sessions(),
    habits("creator", 1),
    habits("item", 2),
    plays() / sessions(),
    skips("item") / plays("item"),
    days_with("creator") / active_days(),
    minutes("creator") / days_with("creator"),
    sessions() / active_days(),
    count("cancel") / sessions(),
    skips() / plays("creator"),
    plays("item") / days_with("creator"),
    minutes().above_baseline(3),
    active_days().above_baseline(7),
    days_with("creator").above_baseline(2),
    plays("item").above_baseline(28),
    skips("creator").above_baseline(1),
    sessions().above_baseline(2),
    active_weeks(),
    active_weeks("creator"),
    active_weeks("item", event="play", surface="search"),
    distinct("creator"),
    distinct("item", event="save"),
    distinct("item", surface="home", seconds=20),
    active_days(event="play"),
    active_days(seconds=20).above_baseline(3),
    returned(surface="home"),
    days_with("creator", surface="home", seconds=30),
    days_with("item", event="visit"),
    time_to_return(event="like"),
    time_to_return("creator", seconds=60),
    habits("creator", 1, surface="search"),
    minutes("creator", event="play", surface="home"),
    plays(surface="home"),
    skips("item", seconds=20),
    count("visit", surface="search"),
    completion("creator", surface="home"),
    amount(),
    amount("refund", "creator"),
    amount("play", "item", surface="home"),
    amount("save") / sessions(),
    amount("play").above_baseline(3),
    plays("creator", seconds=20) / days_with("creator", surface="home"),
)
WINDOWS = ((1, 1), (1, 7), (3, 5), (0, 3), (0, 0), (1, 28))
FAR_WINDOWS = ((1, 64), (30, 59), (0, 120), (63, 365), (1, 365))
THRESHOLDS = (None, None, 0.5, 1, 2, 1 / 3)
BOUNDS = (None, None, None, 0, 1, 2, 0.5)


@st.composite
def signals(
    draw: st.DrawFn,
    entries: tuple[Entry, ...] = ENTRIES,
    measures: tuple[Measure, ...] = MEASURES,
    windows: tuple[tuple[int, int], ...] = WINDOWS,
) -> Signal:
    entry, measure, window = (
        draw(st.sampled_from(entries)),
        draw(st.sampled_from(measures)),
        draw(st.sampled_from(windows)),
    )
    threshold, origin = (
        draw(st.sampled_from(THRESHOLDS)),
        draw(st.sampled_from((None, None, ORIGINS, ("recommended", "autoplay")))),
    )
    at_most = None if threshold is not None else draw(st.sampled_from(BOUNDS))
    counted = set(origin or ("organic",)) - {"organic"}
    gameable = bool(counted) and (
        measure.kind == "habits" or (measure.of is not None and measure.of_activity)
    )
    try:  # what may be declared is the business of test_signals.py
        if threshold is not None:
            measure = measure >= threshold
        elif at_most is not None:
            measure = measure <= at_most
        return Signal(
            "s",
            entry,
            measure,
            window,
            origin,
            gameable,
        )
    except ConfigError:
        reject()
