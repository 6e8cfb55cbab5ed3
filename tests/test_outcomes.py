"""Outcomes equal what slow, plain Python says of the same log; immature is null; nothing looks
ahead."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from examples import examples
from hypothesis import assume, given, reject
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from reference import (
    CATALOGUE,
    CREATORS,
    DAY,
    ENTRIES,
    FAR_ENTRIES,
    FAR_MOMENT,
    FAR_WINDOWS,
    LEAP,
    MICRO,
    MOMENT,
    OLD_ENTRIES,
    YEARS_MOMENT,
    Log,
    Row,
    creator_of,
    day_of,
    engaged_of,
    entries_of,
    known,
    logs,
    midnight,
    refused,
    refuses,
    signals,
)

from longplay.decisions import Decisions
from longplay.errors import ConfigError, DataError
from longplay.lake import Lake
from longplay.lake.schema import DTYPES, KINDS, ORIGINS
from longplay.signals import (
    Entry,
    Measure,
    Outcomes,
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
from longplay.signals.outcomes.future import future_of


def as_rows(outcomes: Outcomes) -> list[Row]:
    traces = outcomes.trace().toarray()
    ratio = outcomes.signal.measure.per is not None or outcomes.signal.measure.kind == "completion"
    pers = outcomes.trace(per=True).toarray() if ratio else [None] * len(outcomes)
    return [
        {**row, "trace": above_0(trace), "per": None if per is None else above_0(per)}
        for row, trace, per in zip(outcomes.frame.to_dicts(), traces, pers, strict=True)
    ]


def above_0(amounts: np.ndarray) -> dict[int, float]:
    return {n: float(amount) for n, amount in enumerate(amounts) if amount > 0}


def in_order(rows: list[Row]) -> list[Row]:
    return sorted(
        rows,
        key=lambda row: (
            row["time"],
            row["user_id"],
            *(row[name] or "~" for name in ("item_id", "creator_id", "surface", "decision_id")),
            str(row["slot"]),
            str(row["value"]),
        ),
    )


def approx(rows: list[Row]) -> list[Row]:
    numbers = ("value", "trace", "per", "baseline")
    return [
        {
            name: pytest.approx(x, abs=1e-8) if name in numbers and x is not None else x
            for name, x in row.items()
        }
        for row in rows
    ]


# -- two examples by hand
# ------------------------------------------------------------------------------------


def small_log(as_of: datetime) -> Lake:
    """u1 meets c1 on 1 March 2028 at noon and plays it on days 1, 2, 2 and 28; on day 3 a
    recommendation, on day 29 too late."""
    noon = datetime(2028, 3, 1, 12, tzinfo=UTC)
    times = [noon + day * DAY for day in (0, 1, 2, 2, 3, 28, 29)]
    events = pl.DataFrame(
        {
            "event_id": [f"e{n}" for n in range(7)],
            "user_id": "u1",
            "item_id": ["i1", "i2", "i1", "i2", "i1", "i1", "i1"],
            "creator_id": "c1",
            "kind": "play",
            "seconds": 90.0,
            "origin": ["organic"] * 4 + ["recommended"] + ["organic"] * 2,
        }
    ).with_columns(pl.Series("time", times))
    lake = Lake.memory()
    lake.append("all", events=events, watermark=as_of)
    return lake


def test_a_habit_is_counted_in_days_not_plays_and_only_organic_ones() -> None:
    lake = small_log(datetime(2028, 4, 1, tzinfo=UTC))
    count = Signal("days", discovery(28), days_with("creator"), (1, 28)).outcomes(lake)
    assert count.frame["value"].to_list() == [
        3.0
    ]  # days 1, 2 and 28; day 0 is the entry, day 3 was recommended, day 29 is too late
    assert Signal("habit", discovery(28), days_with("creator") >= 3).outcomes(
        lake
    ).value.tolist() == [1.0]
    assert Signal("habit", discovery(28), days_with("creator") >= 4).outcomes(
        lake
    ).value.tolist() == [0.0]
    assert Signal(
        "all", discovery(28), days_with("creator"), (1, 28), ORIGINS, gameable=True
    ).outcomes(lake).value.tolist() == [4.0]
    assert Signal("time", discovery(28), minutes("creator"), (0, 28)).outcomes(
        lake
    ).value.tolist() == [9.0]  # six plays of 1.5 minutes
    assert count.trace().toarray().nonzero()[1].tolist() == [0, 1, 27]
    curve = count.maturity_curve(truncated=True)
    assert curve.filter(pl.col("day").is_in([1, 2, 27, 28]))["value"].to_list() == [
        1.0,
        2.0,
        2.0,
        3.0,
    ]


def test_an_outcome_is_null_until_the_midnight_that_closes_its_window() -> None:
    habit = Signal("habit", discovery(28), days_with("creator") >= 2, (1, 28))
    closing = datetime(2028, 3, 30, tzinfo=UTC)  # day 28 is 29 March
    lake = small_log(closing + 5 * DAY)
    early = habit.outcomes(lake, as_of=closing - MICRO)
    assert early.frame["value"].to_list() == [
        None
    ]  # two days are there already, but the window is open
    assert early.frame["matures_at"].to_list() == [closing]
    assert early.observed().tolist() == [27]
    assert early.observed(5).tolist() == [5]
    assert np.isnan(early.value).all()
    assert not early.mature.any()
    assert "mature 0 of 1 entries" in str(early)
    with pytest.raises(DataError, match="none of 1 entries is mature at 2028-03-29"):
        early.base_rate()
    late = habit.outcomes(lake, as_of=closing)
    assert late.frame["value"].to_list() == [1.0]
    assert late.observed().tolist() == [28]


def touches(*moments: timedelta) -> Lake:
    """One user plays i1 of c1 at these moments; the log began long before, with someone else."""
    times = [LEAP - 300 * DAY, LEAP - 299 * DAY, *(LEAP + moment for moment in moments)]
    count = len(times)
    users = ["other", "other", *["u1"] * (count - 2)]
    events = pl.DataFrame(
        {
            "event_id": [f"e{n}" for n in range(count)],
            "user_id": users,
            "item_id": "i1",
            "creator_id": "c1",
            "kind": "play",
        }
    )
    lake = Lake.memory()
    lake.append(
        "all", events=events.with_columns(pl.Series("time", times)), watermark=LEAP + 99 * DAY
    )
    return lake


@pytest.mark.parametrize("novel_for", [1, 7, 28])
def test_a_touch_is_new_again_only_after_more_than_novel_for_days(novel_for: int) -> None:
    signal = Signal("s", discovery(novel_for), days_with("creator"), (1, 7))
    for gap, days in ((novel_for, [0]), (novel_for + 1, [0, novel_for + 1])):
        frame = signal.outcomes(touches(timedelta(0), gap * DAY)).frame.filter(
            pl.col("user_id") == "u1"
        )
        assert [(time - LEAP).days for time in frame["time"]] == days
        assert not frame["truncated"].any()


def test_what_is_first_touched_after_the_end_is_no_target_even_on_the_last_day() -> None:
    lake = touches(timedelta(hours=18), DAY)
    visit = pl.DataFrame({"event_id": ["v"], "user_id": ["u1"], "kind": ["visit"]}).with_columns(
        pl.Series("time", [LEAP + timedelta(hours=9)])
    )
    lake.append("visit", events=visit)
    outcomes = Signal("habit", discovery(None, "item"), days_with("item") >= 1, (1, 7)).outcomes(
        lake
    )
    assert future_of(outcomes, lake, start=LEAP, end=LEAP + DAY, history=1).relevant.rows() == [
        (0, "i1", 1.0)
    ]
    with pytest.raises(DataError, match="no relevant item"):
        future_of(outcomes, lake, start=LEAP, end=LEAP + timedelta(hours=12), history=1)


# -- one test per row of "What exactly counts" in docs/signals.md
# ---------------------------------------------

ROWS = Path(__file__).parents[1] / "docs/signals.md"


def at(day: int, hour: float = 12, more: timedelta = timedelta(0)) -> datetime:
    """An hour of a day; day 0 is 26 February 2028, so day 3 is the 29th."""
    return LEAP + day * DAY + timedelta(hours=hour) + more


def did(
    time: datetime,
    kind: str = "play",
    user: str = "u1",
    item: str | None = "i1",
    creator: str | None = "c1",
    **more: Any,
) -> Row:
    row = {
        "user_id": user,
        "item_id": item,
        "creator_id": creator,
        "kind": kind,
        "time": time,
        "seconds": None,
        "surface": None,
    }
    return {**row, "origin": "organic", "ingested_at": time, **more}


def shown(time: datetime, slate: list[str], user: str = "u1", experiment: str | None = None) -> Row:
    of = {
        "decision_id": f"{user} {time}",
        "context_id": f"{user} {time}",
        "user_id": user,
        "time": time,
        "ingested_at": time,
        "surface": "home",
    }
    return {
        **of,
        "slate": slate,
        "log_prob": [-1.0] * len(slate),
        "policy": "p@1",
        "experiment": experiment,
    }


def lake_of(*events: Row, decisions: tuple[Row, ...] = (), until: datetime | None = None) -> Lake:
    """Their ids are in the order given; the catalogue is that of the reference; complete until day
    99 where not said."""
    until = until or at(99, 0)
    return Log(
        [{"event_id": f"e{n:02}", **event} for n, event in enumerate(events)],
        list(decisions),
        until,
        until,
    ).lake()


def values(
    lake: Lake, entry: Entry, measure: Measure, window: tuple[int, int], **more: Any
) -> dict[str, float | None]:
    """The value of each user's only entry."""
    frame = Signal("s", entry, measure, window, **more).outcomes(lake).frame
    assert frame["user_id"].is_unique().all()
    return dict(frame.select("user_id", "value").rows())


def value(
    lake: Lake,
    entry: Entry,
    measure: Measure,
    window: tuple[int, int],
    as_of: datetime | None = None,
    **more: Any,
) -> float | None:
    """The value of the only entry."""
    return Signal("s", entry, measure, window, **more).outcomes(lake, as_of).frame["value"].item()


def opened(lake: Lake, entry: Entry, *columns: str) -> list[tuple[Any, ...]]:
    """These columns of every entry, ordered by its time."""
    return Signal("s", entry, returned(), (1, 7)).outcomes(lake).frame.select(*columns).rows()


def test_every_row_of_the_table_has_a_test_of_its_name() -> None:
    table = ROWS.read_text().split("## What exactly counts")[1].split("\n## ")[0]
    questions = [line.split("|")[1] for line in table.splitlines() if line.startswith("|")][2:]
    named = {
        f"test_row_{re.sub('[^a-z0-9]+', '_', question.lower()).strip('_')}"
        for question in questions
    }
    assert named == {name for name in globals() if name.startswith("test_row_")}
    assert len(named) == len(questions) > 20


def test_row_what_is_a_day() -> None:
    times = {
        "midnight": at(1, 0),
        "two minutes": at(1, 0, timedelta(minutes=1)),
        "last": at(2, 0, -MICRO),
        "before": at(1, 0, -MICRO),
        "after": at(2, 0),
    }
    lake = lake_of(
        *(did(at(0, 0, timedelta(hours=23, minutes=59)), user=user) for user in times),
        *(did(time, user=user) for user, time in times.items()),
    )
    assert values(lake, enrolment(), active_days(), (1, 1)) == {
        "midnight": 1,
        "two minutes": 1,
        "last": 1,
        "before": 0,
        "after": 0,
    }


def test_row_which_way_is_better() -> None:
    """Of every kind of measure; what it does to verdicts is in test_verdicts.py."""
    lower = (skips(), cancelled(), time_to_return(), count("refund"), skips() / sessions())
    higher = (
        active_days(),
        minutes(),
        plays(),
        saves(),
        count("like"),
        plays() / sessions(),
        completion(),
        habits("creator", days=3),
    )
    for measure in (*lower, *higher):
        signal = Signal("s", user_day(), measure, (1, 7))
        assert signal.better == ("lower" if measure in lower else "higher")
    turned = Signal("s", user_day(), plays(), (1, 7), better="lower")
    lake = lake_of(did(at(0), user="u"), did(at(1), user="u"))
    assert (
        turned.outcomes(lake).value.tolist()
        == Signal("s", user_day(), plays(), (1, 7)).outcomes(lake).value.tolist()
    )
    assert turned.version != Signal("s", user_day(), plays(), (1, 7)).version


def test_row_which_day_is_0() -> None:
    lake = lake_of(
        did(at(0, 0, -MICRO)),
        did(at(0, 0)),
        did(at(0, 23), "save"),
        did(at(1, 0, -MICRO)),
        did(at(1, 0)),
    )
    assert value(lake, event("save"), plays(), (0, 0)) == 2
    assert opened(lake, event("save"), "day") == [((LEAP - datetime(1970, 1, 1, tzinfo=UTC)).days,)]


def test_row_which_ends_of_window_a_b_count() -> None:
    lake = lake_of(*(did(at(day)) for day in range(7)))
    outcomes = Signal("s", enrolment(), plays(), (2, 4)).outcomes(lake)
    assert outcomes.value.tolist() == [3]
    assert outcomes.trace().toarray().tolist() == [[1, 1, 1]]


def test_row_does_the_entry_s_own_event_count() -> None:
    lake = lake_of(
        did(at(0, 9), "save"), did(at(0, 12), "like"), did(at(0, 15), "save"), did(at(1), "save")
    )
    assert value(lake, event("like"), count("like"), (0, 1)) == 1
    assert value(lake, event("like"), saves(), (0, 0)) == 2  # also what came before the entry
    assert value(lake, event("like"), saves(), (0, 1)) == 3
    assert value(lake, event("like"), saves(), (1, 1)) == 1
    for measure in (
        active_days(),
        returned(),
        days_with("creator"),
        time_to_return(),
        minutes() / active_days(),
    ):
        with pytest.raises(ConfigError, match="expected it to start on day 1"):
            Signal("s", discovery(), measure, (0, 7))


def test_row_do_other_events_at_the_entry_s_very_moment_count() -> None:
    lake = lake_of(
        did(at(0), "like", event_id="m"),
        did(at(0), event_id="a"),
        did(at(0), event_id="z", item="i3", creator="c2"),
        did(at(1)),
    )
    assert value(lake, event("like"), plays(), (0, 0)) == 2  # whichever id comes first
    assert value(lake, event("like", "creator"), plays("creator"), (0, 1)) == 2
    assert value(lake, event("like"), plays(), (1, 1)) == 1
    assert opened(lake, discovery(), "creator_id", "time") == [
        ("c1", at(0)),
        ("c2", at(0)),
    ]  # neither makes the other old
    assert len(opened(lake, event("play"), "time")) == 3


def test_row_when_is_an_outcome_known() -> None:
    lake = lake_of(did(at(0)), did(at(1)), did(at(2)), did(at(50), "cancel"))
    for measure, then in ((plays(), 2), (plays() >= 1, 1), (cancelled(), 0)):
        assert (
            value(lake, enrolment(), measure, (1, 2), at(3, 0, -MICRO)) is None
        )  # reached or not, day 2 is not over
        assert value(lake, enrolment(), measure, (1, 2), at(3, 0)) == then
    outcomes = Signal("s", enrolment(), plays(), (1, 2)).outcomes(lake, at(3, 0, -MICRO))
    assert outcomes.frame["matures_at"].to_list() == [at(3, 0)]
    assert outcomes.mature.tolist() == [False]


def test_row_what_is_known_at_as_of() -> None:
    lake = lake_of(
        did(at(0)),
        did(at(1), ingested_at=at(2, 0)),
        did(at(1), ingested_at=at(2, 0, MICRO)),
        did(at(2, 0)),
        did(at(9, 0)),
        until=at(9, 0),
    )
    assert value(lake, enrolment(), plays(), (1, 1), at(2, 0)) == 1  # had arrived by then
    assert (
        len(Signal("s", event("play"), returned(), (1, 1)).outcomes(lake, at(2, 0))) == 2
    )  # what happened at as_of is not before it
    assert value(lake, enrolment(), plays(), (1, 1)) == 2
    assert (
        len(Signal("s", event("play"), returned(), (1, 1)).outcomes(lake)) == 4
    )  # without as_of: all before the watermark
    late = lake_of(did(at(0)), did(at(1), ingested_at=at(50)), until=at(9, 0))
    assert value(late, enrolment(), plays(), (1, 1)) == 1  # ... whenever it arrived
    assert value(late, enrolment(), plays(), (1, 1), at(9, 0)) == 0


def test_row_what_is_activity() -> None:
    begun = [did(at(0), "visit", user=kind) for kind in KINDS]
    lake = lake_of(
        *begun, *(did(at(1), kind, user=kind, item=None, creator=None) for kind in KINDS)
    )
    active = dict.fromkeys(("play", "save", "like", "follow", "purchase", "visit"), 1.0)
    assert values(lake, enrolment(), active_days(), (1, 1)) == active | dict.fromkeys(
        ("skip", "refund", "cancel"), 0.0
    )
    assert values(lake, enrolment(), sessions(), (1, 1)) == active | dict.fromkeys(
        ("skip", "refund", "cancel"), 0.0
    )


def test_row_which_origins_count() -> None:
    lake = lake_of(
        did(at(0), "visit"),
        *(did(at(1 + day), seconds=60.0, origin=origin) for day, origin in enumerate(ORIGINS)),
    )
    met = event("visit", "creator")
    assert ORIGINS == ("organic", "recommended", "autoplay")
    for measure in (active_days(), days_with("creator"), returned()):
        assert value(lake, met, measure, (1, 3)) == 1
        assert value(lake, met, measure, (2, 3)) == 0
    assert value(lake, met, time_to_return(), (2, 3)) == 3
    assert Signal("s", met, time_to_return(), (2, 3)).outcomes(lake).frame["event"].to_list() == [
        False
    ]
    assert value(lake, enrolment(), habits(days=1), (1, 3)) == 1
    assert value(lake, enrolment(), habits(days=1), (2, 3)) == 0
    for measure in (minutes(), plays("creator"), sessions()):
        assert value(lake, met, measure, (1, 3)) == 3
    others = ("recommended", "autoplay")
    assert value(lake, met, plays(), (1, 3), origin=others) == 2
    assert value(lake, met, active_days(), (1, 3), origin=others) == 2
    assert value(lake, met, days_with("creator"), (1, 3), origin=ORIGINS, gameable=True) == 3
    assert opened(lake, discovery(1, "item"), "origin") == [("organic",)]
    other = did(at(0), origin="autoplay"), did(at(1), user="u2")
    assert opened(lake_of(*other), discovery(), "origin") == [
        ("autoplay",),
        ("organic",),
    ]  # entries are of any origin


def test_row_what_is_a_discovery() -> None:
    lake = lake_of(
        did(at(0, 13), origin="autoplay"),
        did(at(0, 12), item="i2"),
        did(at(3), "skip", item="i3", creator="c2"),
        did(at(4), item="i3", creator="c2"),
        did(at(7)),
        did(at(40), item=None),
        did(at(40), creator=None),
        did(at(50), "visit", item=None, creator=None),
    )
    first, second = ("c1", "i2", at(0)), ("c2", "i3", at(4))
    keys = ("creator_id", "item_id", "time")
    assert opened(lake, discovery(7), *keys) == [
        first,
        second,
        ("c1", None, at(40)),
    ]  # seven days after is not new
    assert opened(lake, discovery(6), *keys) == [
        first,
        second,
        ("c1", "i1", at(7)),
        ("c1", None, at(40)),
    ]  # one more is
    assert opened(lake, discovery(None), *keys) == [first, second]
    assert opened(lake, discovery(7, "item"), *keys) == [
        first,
        ("c1", "i1", at(0, 13)),
        second,
        ("c1", "i1", at(40)),
    ]  # the catalogue says whose it is
    assert opened(lake, discovery(None, "item"), *keys) == [first, ("c1", "i1", at(0, 13)), second]


def test_row_is_being_shown_a_touch() -> None:
    decisions = (shown(at(0), ["i3"]), shown(at(3), ["i3"]), shown(at(3), ["i3"], "u2"))
    played = did(at(4), item="i3", creator="c2", origin="recommended", surface="home")
    lake = lake_of(did(at(0)), played, did(at(5), item="i3", creator="c2"), decisions=decisions)
    columns = ("user_id", "creator_id", "time", "truncated")
    assert opened(lake, discovery(3), *columns) == [
        ("u1", "c1", at(0), True),
        ("u1", "c2", at(4), False),
    ]  # new a day after it was shown
    assert opened(lake, user_day(), "time") == [(at(0),), (at(4),), (at(5),)]
    assert opened(lake, user_day(2), "time") == [
        (at(4),)
    ]  # dormant, though shown something on day 3


def test_row_which_event_of_several_at_the_same_moment_opens_it() -> None:
    tie = (
        did(at(1), event_id="b", surface="home"),
        did(at(1), event_id="a", item="i2", origin="autoplay"),
    )
    lake = lake_of(*tie, did(at(1, 12, MICRO), event_id="0"))
    columns = ("item_id", "origin", "surface")
    assert opened(lake, discovery(28), *columns) == [("i2", "autoplay", None)]
    assert opened(lake, event("play", "creator", 1), *columns) == [("i2", "autoplay", None)]
    assert opened(lake, user_day(), *columns) == [(None, "autoplay", None)]
    earlier = lake_of(*tie, did(at(1, 12, -MICRO), event_id="z", surface="search"))
    assert opened(earlier, user_day(), *columns) == [(None, "organic", "search")]


def test_row_which_entries_are_uncertain() -> None:
    days = {"other": 0, "u6": 6, "u7": 7, "u27": 27, "u28": 28}
    once = [did(at(day), user=user) for user, day in days.items()]
    lake = lake_of(did(at(-9), "skip", user="other"), *once, did(at(1), user="other"))
    for novel_for, unsure in (
        (7, {"other", "u6"}),
        (28, {"other", "u6", "u7", "u27"}),
        (None, {"other", "u6", "u7", "u27"}),
    ):
        for entry in (discovery(novel_for), discovery(novel_for, "item")):
            assert dict(opened(lake, entry, "user_id", "truncated")) == {
                user: user in unsure for user in days
            }
            assert all(
                truncated for (truncated,) in opened(lake_of(*once), entry, "truncated")
            )  # nobody came again: nothing says when it begins
    again = lake_of(did(at(0)), did(at(2)))
    assert opened(again, discovery(1), "truncated") == [
        (True,),
        (False,),
    ]  # an earlier touch is in the log
    assert not any(unsure for (unsure,) in opened(again, user_day(), "truncated"))


def test_row_which_entries_count_in_a_base_rate() -> None:
    """u1's habit is older than the log, for all one can know; of u2 and u3 the log knows more than
    7 days before."""
    old = [did(at(day)) for day in (0, 1, 2)]
    lake = lake_of(
        *old,
        did(at(8), user="u2"),
        did(at(9), user="u2"),
        did(at(9), user="u3"),
        did(at(98), user="u4"),
    )
    outcomes = Signal("s", discovery(7), days_with("creator") >= 1, (1, 2)).outcomes(lake)
    assert outcomes.frame.select("user_id", "value", "truncated").rows() == [
        ("u1", 1, True),
        ("u2", 1, False),
        ("u3", 0, False),
        ("u4", None, False),
    ]
    assert (outcomes.base_rate().value, outcomes.base_rate().n) == (0.5, 2)
    assert outcomes.base_rate(truncated=True).value == pytest.approx(2 / 3)
    assert outcomes.maturity_curve()["value"].to_list() == [0.5, 0.5]
    assert str(outcomes).endswith("; 1 truncated entries left out of the mean")


def test_row_what_is_an_entry_by_event_kind() -> None:
    bare: dict[str, Any] = {"item": None, "creator": None}
    lake = lake_of(
        did(at(0, 13), "save"),
        did(at(0), "save"),
        did(at(0, 14), "save", **bare),
        did(at(1)),
        did(at(2), "save"),
        did(at(5), "save"),
        did(at(5), "save", item="i2"),
        did(at(5, 13), "save", **bare),
    )
    saved_at = (at(0), at(0, 13), at(0, 14), at(2), at(5), at(5), at(5, 13))
    assert opened(lake, event("save"), "time", "item_id", "creator_id", "truncated") == [
        (time, None, None, False) for time in saved_at
    ]
    i1, i2 = ("i1", "c1"), ("i2", "c1")
    keys = ("time", "item_id", "creator_id")
    assert sorted(opened(lake, event("save", "item"), *keys)) == [
        (at(0), *i1),
        (at(0, 13), *i1),
        (at(2), *i1),
        (at(5), *i1),
        (at(5), *i2),
    ]
    first = opened(lake, event("save", "item", 2), *keys, "truncated")
    assert sorted(first) == [
        (at(0), *i1, True),
        (at(5), *i1, False),
        (at(5), *i2, False),
    ]  # two days after is not new, three are
    assert opened(lake, event("save", novel_for=3), "time", "truncated") == [(at(0), True)]
    assert opened(lake, event("save", novel_for=2), "time", "truncated") == [
        (at(0), True),
        (at(5), False),
    ]
    skipped = lake_of(did(at(0)), did(at(1)), did(at(2), "skip"), did(at(3), "skip", user="u2"))
    assert opened(skipped, event("skip", "creator", 3), "user_id", "truncated") == [
        ("u1", True),
        ("u2", False),
    ]  # the log's first activity decides
    searched = {"surface": "search"}
    several = lake_of(
        did(at(0), surface="home"),
        did(at(1), **searched),
        did(at(2), **searched, origin="recommended"),
        did(at(4), **searched),
    )
    assert opened(several, event("play", surface="search"), "time") == [
        (at(1),),
        (at(2),),
        (at(4),),
    ]
    assert opened(several, event("play", origin="recommended"), "time") == [(at(2),)]
    organic = event("play", novel_for=2, origin="organic", surface="search")
    assert opened(several, organic, "time") == [(at(1),), (at(4),)]  # the recommended is another
    with pytest.raises(DataError, match=r"of kind 'play' \(autoplay, on 'search'\)"):
        opened(several, event("play", origin="autoplay", surface="search"), "time")


def test_row_which_time_does_a_user_day_have() -> None:
    lake = lake_of(
        did(at(0, 8), "skip"),
        did(at(0, 13)),
        did(at(0, 9), event_id="b", surface="home", origin="recommended"),
        did(at(0, 9), event_id="a", surface="search"),
        did(at(1, 23)),
    )
    columns = ("time", "surface", "origin", "item_id", "creator_id")
    assert opened(lake, user_day(), *columns) == [
        (at(0, 9), "search", "organic", None, None),
        (at(1, 23), None, "organic", None, None),
    ]
    late = Signal("s", user_day(), plays(), (0, 1)).outcomes(lake)
    assert late.value.tolist() == [4, 1]  # the whole day, whatever its first time
    assert opened(
        lake_of(did(at(0)), did(at(9, 15)), did(at(9, 7), "visit")), user_day(5), "time"
    ) == [(at(9, 7),)]


def test_row_what_is_an_entry_by_user_day_dormant_for_n() -> None:
    lake = lake_of(
        *(did(at(0), user=user) for user in ("three", "two", "shown", "skips")),
        did(at(4, 13), user="three"),
        did(at(4), "visit", user="three", item=None, creator=None),
        did(at(3), user="two"),
        did(at(2), user="shown", origin="autoplay"),
        did(at(4), user="shown"),
        did(at(2), "skip", user="skips"),
        did(at(4), user="skips"),
        did(at(9), user="new"),
    )
    assert sorted(opened(lake, user_day(3), "user_id", "time", "item_id")) == [
        ("skips", at(4), None),
        ("three", at(4), None),
    ]
    assert sorted(opened(lake, user_day(4), "user_id")) == []
    assert sorted(opened(lake, user_day(2), "user_id")) == [("skips",), ("three",), ("two",)]
    assert sorted(opened(lake, user_day(1), "user_id", "time")) == [
        ("shown", at(2)),
        ("shown", at(4)),
        ("skips", at(4)),
        ("three", at(4)),
        ("two", at(3)),
    ]


def test_row_what_is_an_enrolment() -> None:
    decisions = (
        shown(at(1), ["i1"]),
        shown(at(3), ["i1"], experiment="later"),
        shown(at(2), ["i1"], experiment="trial"),
        shown(at(5), ["i1"], "no events", "trial"),
        shown(at(5), ["i1"], "no trial"),
        shown(at(1, 1), [], experiment="trial"),
        shown(at(3), [], "u2", "trial"),
        shown(at(3), [], "nothing", "trial"),  # these show nothing
    )
    lake = lake_of(
        did(at(0)),
        did(at(0), "skip", user="u2"),
        did(at(1), user="u2", origin="autoplay"),
        did(at(2), user="u2"),
        decisions=decisions,
    )
    assert sorted(opened(lake, enrolment(), "user_id", "time")) == [
        ("no events", at(5)),
        ("u1", at(2)),
        ("u2", at(1)),
    ]


def test_row_what_is_an_exposure() -> None:
    events = (
        did(at(0), creator="c9"),
        did(at(1), item="i5", creator="c8"),
        did(at(2), item="i5", creator="c3"),
        did(at(3), item="i5", creator=None),
        did(at(1), item="i4", creator="c2"),
    )
    lake = lake_of(
        *events,
        decisions=(shown(at(4), ["i1", "i5", "i2", "i4", "i9"]), shown(at(4), ["i3"], "u2")),
    )
    found = sorted(opened(lake, exposure(), "user_id", "item_id", "creator_id"), key=str)
    assert found == [
        ("u1", "i1", "c1"),
        ("u1", "i2", "c1"),
        ("u1", "i4", "c2"),
        ("u1", "i5", "c3"),
        ("u1", "i9", None),
        ("u2", "i3", "c2"),
    ]
    assert len(opened(lake, exposure("item"), "item_id")) == 6


def test_row_what_is_a_session() -> None:
    half = timedelta(minutes=30)
    times = {
        "exact": (at(1), at(1, 12, half)),
        "longer": (at(1), at(1, 12, half + MICRO)),
        "chain": (at(1), at(1, 12.5), at(1, 13)),
        "over midnight": (at(1, 23.75), at(2, 0.25), at(2, 0.5)),
        "after midnight": (at(1, 23.25), at(2, 0)),
    }
    rows = [did(time, user=user) for user in times for time in (at(0), *times[user])]
    skips_between = [
        did(at(0), user="skip"),
        did(at(1), user="skip"),
        did(at(1, 12.4), "skip", user="skip"),
        did(at(1, 12.8), user="skip"),
    ]
    lake = lake_of(*rows, *skips_between)
    first, second = (
        values(lake, enrolment(), sessions(), (1, 1)),
        values(lake, enrolment(), sessions(), (2, 2)),
    )
    assert first == {
        "exact": 1,
        "longer": 2,
        "chain": 1,
        "over midnight": 1,
        "after midnight": 1,
        "skip": 2,
    }
    assert second == {
        "exact": 0,
        "longer": 0,
        "chain": 0,
        "over midnight": 0,
        "after midnight": 1,
        "skip": 0,
    }


def test_row_what_are_minutes() -> None:
    day = (
        did(at(1), seconds=90.0),
        did(at(1), "visit"),
        did(at(1), "skip", seconds=600.0),
        did(at(1), "purchase", seconds=30.0),
    )
    assert value(lake_of(did(at(0)), *day), enrolment(), minutes(), (1, 1)) == 2


def test_row_what_is_an_amount() -> None:
    def paid(day: int, amount: float | None, kind: str = "purchase") -> Row:
        return did(at(day), kind, amount=amount)

    lake = lake_of(
        paid(0, 9.0), paid(1, 0.1), paid(2, 0.2), paid(2, None), paid(3, 5.0, "refund"), did(at(3))
    )
    assert value(lake, enrolment(), amount("purchase") >= 0.3, (1, 7)) == 1
    assert value(lake, enrolment(), amount("purchase"), (0, 7)) == pytest.approx(9.3, abs=1e-12)
    assert value(lake, enrolment(), amount("refund"), (1, 7)) == 5
    with pytest.raises(DataError, match="no play with an amount"):
        value(lake, enrolment(), amount("play"), (1, 7))
    aside = Lake.memory()
    rows = pl.DataFrame([{**paid(0, money), "event_id": f"{money}"} for money in (1.0, -1.0)])
    aside.append("all", events=rows, watermark=at(99), max_bad_share=1.0)
    assert aside.events["amount"].to_list() == [1.0]
    assert aside.quarantine["reason"].to_list() == ["negative amount"]


def test_row_what_is_completion() -> None:
    """i1 lasts 100 seconds and i3 60; of i2 and i5 nobody knows."""
    plays_of = (("i1", 50.0), ("i3", 120.0), ("i1", None), ("i2", 10.0), ("i5", 10.0), (None, 10.0))
    played = [did(at(1), item=item, seconds=seconds) for item, seconds in plays_of]
    lake = lake_of(
        did(at(0)),
        *played,
        did(at(1), "visit", seconds=1.0),
        did(at(2), item="i3", seconds=0.0),
        did(at(0), user="u2"),
    )
    outcomes = Signal("s", enrolment(), completion(), (1, 3)).outcomes(lake)
    assert outcomes.frame.select("user_id", "value").rows() == [
        ("u1", 0.5),
        ("u2", None),
    ]  # (0.5 + 1 + 0) / 3
    assert outcomes.mature.tolist() == [True, True]
    assert outcomes.trace().toarray().tolist() == [[1.5, 0, 0], [0, 0, 0]]
    assert outcomes.trace(per=True).toarray().tolist() == [[2, 1, 0], [0, 0, 0]]
    assert values(lake, enrolment(), completion() >= 0.5, (1, 3)) == {"u1": 1, "u2": None}


def test_row_what_is_a_ratio_of_0_0() -> None:
    did_what = {
        "none": (),
        "no plays": ("skip",),
        "no skips": ("play", "play"),
        "half": ("play", "skip", "play"),
    }
    lake = lake_of(
        *(
            did(at(day), kind, user=user)
            for user, kinds in did_what.items()
            for day, kind in enumerate(("visit", *kinds))
        )
    )
    skipped = skips() / plays()
    assert values(lake, enrolment(), skipped, (1, 3)) == {
        "none": None,
        "no plays": None,
        "no skips": 0,
        "half": 0.5,
    }
    assert values(lake, enrolment(), skipped >= 0.5, (1, 3)) == {
        "none": None,
        "no plays": None,
        "no skips": 0,
        "half": 1,
    }
    outcomes = Signal("s", enrolment(), skipped, (1, 3)).outcomes(lake)
    assert outcomes.mature.all()
    assert outcomes.base_rate().value == 0.25  # over those who have a value


def test_row_what_is_a_baseline() -> None:
    before = [did(at(8)), did(at(8)), did(at(9))]
    own = [did(at(10), "save"), *(did(at(10)) for _ in range(5))]
    lake = lake_of(*before, *own, *(did(at(11 + n % 4)) for n in range(10)), did(at(15)))
    saved = Signal("s", event("save"), plays().above_baseline(2), (1, 4))
    outcomes = saved.outcomes(lake)
    assert outcomes.value.tolist() == [4]  # 10 in 4 days, of which 3 in 2 days would have made 6
    assert outcomes.frame["baseline"].to_list() == [6]
    assert outcomes.trace().toarray().tolist() == [[3, 3, 2, 2]]
    assert (
        value(lake, event("save"), plays().above_baseline(2), (0, 0)) == 3.5
    )  # 5 on the day, not 1.5
    longer = replace(saved, measure=plays().above_baseline(3)).outcomes(
        lake
    )  # the log begins two days before the entry's
    assert longer.frame.select("value", "baseline").rows() == [(None, None)]
    assert longer.mature.all()
    skipped_first = lake_of(did(at(7), "skip"), *before, *own)  # a skip is no activity
    assert value(skipped_first, event("save"), plays().above_baseline(3), (1, 4)) is None


def test_row_what_is_time_to_return() -> None:
    days = {"day 3": (1, 3, 4), "never": (1, 6), "day 5": (5,), "day 4": (4,)}
    lake = lake_of(
        *(did(at(day), user=user) for user, active in days.items() for day in (0, *active))
    )
    signal = Signal("s", enrolment(), time_to_return(), (2, 5))

    def known_on(as_of: datetime) -> dict[str, tuple[Any, ...]]:
        frame = signal.outcomes(lake, as_of).frame
        assert (frame.schema["duration"], frame.schema["event"]) == (pl.Int32, pl.Boolean)
        return {
            row[0]: row[1:] for row in frame.select("user_id", "value", "duration", "event").rows()
        }

    # the window has the days 2 to 5: four days, of which day 3 is the second
    assert known_on(at(6, 0)) == {
        "day 3": (3, 2, True),
        "never": (5, 4, False),
        "day 5": (5, 4, True),
        "day 4": (4, 3, True),
    }
    still_open = dict.fromkeys(("never", "day 5", "day 4"), (None, 2, False))  # day 4 is not over
    assert known_on(at(4, 23)) == still_open | {"day 3": (None, 2, True)}
    assert known_on(at(2, 23)) == dict.fromkeys(
        days, (None, 0, False)
    )  # no day of the window has closed


def test_the_duration_of_a_time_to_return_counts_only_days_that_were_observed() -> None:
    """Days 1 and 2 are not looked at by window=(3, 28): a return there is none, and nobody is at
    risk on them."""
    lake = lake_of(
        *(
            did(at(day), user=user)
            for user, active in {"day 5": (1, 5), "never": (2,), "day 3": (3,)}.items()
            for day in (0, *active)
        )
    )
    signal = Signal("s", enrolment(), time_to_return(), (3, 28))

    def known_on(as_of: datetime) -> dict[str, tuple[Any, ...]]:
        return {
            row[0]: row[1:]
            for row in signal.outcomes(lake, as_of)
            .frame.select("user_id", "value", "duration", "event")
            .rows()
        }

    assert known_on(at(29, 0)) == {
        "day 5": (5, 3, True),
        "never": (28, 26, False),
        "day 3": (3, 1, True),
    }
    assert known_on(at(10, 0)) == {
        "day 5": (None, 3, True),
        "never": (None, 7, False),
        "day 3": (None, 1, True),
    }  # days 3 to 9
    observed = signal.outcomes(lake, at(10, 0)).frame.filter(~pl.col("event"))
    assert observed["duration"].to_list() == observed["days_observed"].to_list()
    curve = signal.outcomes(lake).maturity_curve()
    assert curve["value"][:3].to_list() == pytest.approx([3, (4 + 4 + 3) / 3, (5 + 5 + 3) / 3])


def test_row_what_are_habits() -> None:
    active = (
        ("c1", 1),
        ("c1", 1),
        ("c1", 3),
        ("c2", 2),
        ("c3", 2),
        ("c3", 3),
        ("c3", 4),
        (None, 1),
        (None, 2),
        ("c2", 5),
    )
    lake = lake_of(
        did(at(0), creator="c2"),
        *(did(at(day), item="i4", creator=creator) for creator, day in active),
        did(at(4), creator="c2", origin="autoplay"),
    )
    outcomes = Signal("s", enrolment(), habits(days=2), (1, 4)).outcomes(lake)
    assert outcomes.value.tolist() == [
        2
    ]  # c1 and c3; of c2 only one organic day lies in the window
    assert outcomes.trace().toarray().tolist() == [[0, 0, 2, 0]]  # both on day 3
    assert value(lake, enrolment(), habits(days=3), (1, 4)) == 1
    assert value(lake, enrolment(), habits("item", days=4), (1, 4)) == 1
    assert value(lake, enrolment(), habits(days=2) >= 3, (1, 4)) == 0


def test_row_how_are_different_creators_counted() -> None:
    lake = lake_of(
        did(at(0), creator="c9"),
        did(at(1), item="i1", creator="c1", origin="recommended"),
        did(at(2), item="i2", creator="c1"),
        did(at(2), item="i3", creator="c2"),
        did(at(3), item=None, creator=None),
        did(at(3), item="i5", creator="c3", kind="skip"),
        did(at(6), item="i5", creator="c3"),
    )
    outcomes = Signal("s", enrolment(), distinct("creator"), (1, 5)).outcomes(lake)
    assert outcomes.value.tolist() == [2]  # c1 and c2: a skip is no engagement, c3 comes too late
    assert outcomes.trace().toarray().tolist() == [[1, 1, 0, 0, 0]]  # each on its first day
    assert value(lake, enrolment(), distinct("item"), (1, 5)) == 3
    assert value(lake, enrolment(), distinct("creator"), (0, 6)) == 4
    assert value(lake, enrolment(), distinct("item"), (1, 5), origin=("organic",)) == 2


def test_row_what_is_a_week() -> None:
    lake = lake_of(*(did(at(day)) for day in (0, 2, 8, 9, 10, 16)))
    outcomes = Signal("s", enrolment(), active_weeks(), (2, 17)).outcomes(lake)
    assert outcomes.value.tolist() == [3]  # days 2 to 8, 9 to 15, and the two that are left
    assert outcomes.trace().toarray()[0].nonzero()[0].tolist() == [0, 7, 14]  # days 2, 9 and 16
    assert value(lake, enrolment(), active_weeks(), (3, 16)) == 2  # days 3 to 9 and 10 to 16
    assert value(lake, enrolment(), active_weeks(), (1, 28)) == 3
    assert value(lake, enrolment(), active_weeks() >= 4, (1, 28)) == 0
    assert value(lake, enrolment(), active_weeks(), (17, 30)) == 0


def test_row_which_events_count_where_a_measure_is_narrowed() -> None:
    lake = lake_of(
        did(at(0)),
        did(at(1), surface="home", seconds=30.0),
        did(at(1), surface="home", seconds=29.999, kind="save"),
        did(at(2), surface="Home", seconds=60.0),
        did(at(3), surface="home", seconds=None),
        did(at(4), surface=None, seconds=600.0, kind="save"),
        did(at(5), surface="home", seconds=40.0, origin="recommended"),
    )

    def counted(measure: Measure, **more: Any) -> float | None:
        return value(lake, enrolment(), measure, (1, 7), **more)

    assert counted(active_days()) == 4
    assert counted(active_days(surface="home")) == 2  # days 1 and 3: "Home" is another surface
    assert counted(active_days(seconds=30)) == 3  # days 1, 2 and 4: of day 3 nobody knows
    assert counted(active_days(surface="home", seconds=30)) == 1
    assert counted(active_days(event="save")) == 2
    assert counted(active_days(event="save", surface="home", seconds=30)) == 0
    assert counted(plays(surface="home")) == 3  # amounts count every origin
    assert counted(plays(surface="home", seconds=30)) == 2
    assert counted(minutes(event="save")) == pytest.approx(629.999 / 60)
    assert counted(plays(surface="home") / plays()) == 3 / 4


def test_row_when_is_an_amount_little_enough() -> None:
    lake = lake_of(
        *(did(at(day), seconds=20.0, user="u1") for day in range(4)),
        *(did(at(day), seconds=20.0, user="u2") for day in range(3)),
        did(at(0), user="u3"),
    )
    assert values(lake, enrolment(), minutes() <= 2 / 3, (1, 3)) == {"u1": 0, "u2": 1, "u3": 1}
    assert values(lake, enrolment(), plays() <= 2, (1, 3)) == {"u1": 0, "u2": 1, "u3": 1}
    assert values(lake, enrolment(), plays() <= 0, (1, 3)) == {"u1": 0, "u2": 0, "u3": 1}
    few = Signal("s", enrolment(), plays() <= 2, (1, 3))
    assert few.outcomes(lake, at(4, 0) - MICRO).frame["value"].to_list() == [None] * 3
    assert few.outcomes(lake, at(4, 0)).frame["value"].null_count() == 0
    assert (few.better, Signal("s", enrolment(), skips() <= 0).better) == ("lower", "higher")


def test_row_when_is_an_amount_enough() -> None:
    lake = lake_of(
        *(did(at(day), seconds=20.0, user="u1") for day in range(4)),
        *(did(at(day), seconds=20.0, user="u2") for day in range(3)),
    )
    assert values(lake, enrolment(), minutes() >= 1, (1, 3)) == {"u1": 1, "u2": 0}
    assert values(lake, enrolment(), plays() >= 3, (1, 3)) == {"u1": 1, "u2": 0}
    assert values(lake, enrolment(), (minutes() / plays()) >= 1 / 3, (1, 3)) == {"u1": 1, "u2": 1}
    nearly = lake_of(did(at(0)), did(at(1), seconds=59.999))
    assert value(nearly, enrolment(), minutes() >= 1, (1, 3)) == 0


def test_row_an_id_above_2_53() -> None:
    one, other = str(2**53), str(2**53 + 1)  # as numbers with a point they are the same
    rows = [
        did(at(day), user=user, item=item, creator=item)
        for user, item, day in ((one, one, 0), (one, other, 1), (one, one, 2), (other, other, 1))
    ]
    outcomes = Signal("s", discovery(28, "item"), days_with("item"), (1, 7)).outcomes(
        lake_of(*rows)
    )
    assert sorted(outcomes.frame.select("user_id", "item_id", "value").rows()) == [
        (one, one, 1),
        (one, other, 0),
        (other, other, 0),
    ]


def test_row_the_same_event_twice() -> None:
    lake = lake_of(did(at(0), event_id="a"), did(at(1), event_id="b"))
    again = pl.DataFrame(
        {
            "event_id": ["b", "c", "c"],
            "user_id": "u1",
            "kind": "play",
            "time": [at(1), at(2), at(2)],
        },
        schema_overrides={"time": DTYPES["events"]["time"]},
    )
    assert dict(lake.append("again", events=again, max_bad_share=1.0).rejected) == {
        "duplicate id": 2
    }
    assert value(lake, enrolment(), plays(), (1, 2)) == 2


def test_row_seconds_below_0_nan_or_infinite() -> None:
    lake = lake_of(did(at(0)), did(at(1), seconds=60.0))
    seconds = [-1.0, float("nan"), float("inf"), None, 0.0]
    more = pl.DataFrame(
        {
            "event_id": list("abcde"),
            "user_id": "u1",
            "kind": "play",
            "time": [at(2)] * 5,
            "seconds": seconds,
        }
    )
    report = lake.append("more", events=more, max_bad_share=1.0)
    assert dict(report.rejected) == {"negative seconds": 1, "seconds not finite": 2}
    assert value(lake, enrolment(), plays(), (1, 2)) == 3
    assert value(lake, enrolment(), minutes(), (1, 2)) == 1


def test_row_which_row_of_a_doubled_id_within_a_batch() -> None:
    lake = lake_of(did(at(0)))
    more = pl.DataFrame(
        {
            "event_id": ["a", "a", "a"],
            "user_id": "u1",
            "kind": ["play", "save", "like"],
            "time": [at(1)] * 3,
            "seconds": [-1.0, 1.0, 1.0],
        }
    )
    assert dict(lake.append("more", events=more, max_bad_share=1.0).rejected) == {
        "negative seconds": 1,
        "duplicate id": 1,
    }
    assert lake.events.filter(pl.col("event_id") == "a")["kind"].to_list() == ["save"]
    assert value(lake, enrolment(), saves(), (1, 1)) == 1
    assert value(lake, enrolment(), active_days(), (1, 1)) == 1


def test_row_how_long_is_a_late_event_waited_for() -> None:
    lake = lake_of(did(at(0)), did(at(1), ingested_at=at(5)))
    for as_of, counted in ((at(2, 0), 0), (at(5, 12, -MICRO), 0), (at(5), 1)):
        outcomes = Signal("s", enrolment(), plays(), (1, 1)).outcomes(lake, as_of)
        assert outcomes.frame.select("value", "matures_at").rows() == [
            (counted, at(2, 0))
        ]  # mature all along
    assert value(lake, enrolment(), plays(), (1, 1), at(2, 0)) == 0  # and then as it was


def test_row_an_event_that_arrives_late() -> None:
    lake = lake_of(did(at(3)), did(at(4), ingested_at=at(9)), did(at(2), ingested_at=at(10)))
    for as_of, day, counted in (
        (at(9, 12, -MICRO), 3, 0),
        (at(9), 3, 1),
        (at(10), 2, 2),
    ):  # the last of them is the first touch
        frame = Signal("s", discovery(28), plays(), (1, 2)).outcomes(lake, as_of).frame
        assert frame.select("time", "value").rows() == [(at(day), counted)]


# -- what a log cannot answer
# ---------------------------------------------------------------------------------


def test_a_window_longer_than_the_log_is_refused_until_one_outcome_can_be_known() -> None:
    week = Signal("s", user_day(), returned(), (1, 7))
    rows = (did(at(0, 23)), did(at(3)))
    with pytest.raises(
        DataError,
        match="the window ends 7 days after an entry, but the log begins on 2028-02-26 and ends "
        "on 2028-03-04",
    ) as refusal:
        week.outcomes(lake_of(*rows, until=at(8, 0, -MICRO)))
    assert "no outcome can be known before 2028-03-05" in str(refusal.value)
    lake = lake_of(*rows, until=at(8, 0))
    assert week.outcomes(lake).frame["value"].to_list() == [1, None]
    assert week.outcomes(lake, at(2)).frame["value"].to_list() == [
        None
    ]  # at no time is it refused: the lake's own end decides
    assert len(week.outcomes(lake, at(0, 22))) == 0
    late_first = lake_of(did(at(0), ingested_at=at(7)), did(at(3)), until=at(8, 0))
    assert week.outcomes(late_first, at(6)).frame["time"].to_list() == [
        at(3)
    ]  # nor where the log's first event had not arrived
    only_shown = lake_of(did(at(3)), decisions=(shown(at(0), ["i1"]),), until=at(8, 0))
    assert len(week.outcomes(only_shown)) == 1  # a decision begins a log, too


@pytest.mark.parametrize(
    ("entry", "measure", "kind"),
    [
        (user_day(), saves(), "save"),
        (user_day(), skips() >= 1, "skip"),
        (user_day(), cancelled(), "cancel"),
        (user_day(), count("like"), "like"),
        (user_day(), plays(), "play"),
        (user_day(), plays().above_baseline(2), "play"),
        (user_day(), saves() / sessions(), "save"),
        (user_day(), minutes() / saves(), "save"),
        (user_day(), completion(), "play"),
        (event("follow"), returned(), "follow"),
        (event("follow", "item", 28), returned(), "follow"),
    ],
)
def test_a_kind_of_event_that_nobody_logged_is_no_0(
    entry: Entry, measure: Measure, kind: str
) -> None:
    signal = Signal("s", entry, measure, (1, 7))
    rows = [did(at(0), "visit", seconds=60.0), did(at(30), "visit")]
    with pytest.raises(DataError, match=f"the log has no event of kind '{kind}'"):
        signal.outcomes(lake_of(*rows))
    with pytest.raises(DataError, match=f"the log has no event of kind '{kind}'"):
        signal.outcomes(lake_of(*rows, did(at(50), kind), until=at(50)))  # not before the watermark
    other = signal.outcomes(lake_of(*rows, did(at(40), kind, user="other")), at(20))
    assert set(other.frame["user_id"]) <= {"u1"}  # not known at as_of, but the lake has it


def test_completion_without_any_length_and_a_divisor_of_no_ratio_are_refused() -> None:
    lake = lake_of(did(at(0), seconds=3.0), did(at(1), seconds=3.0))
    bare = Lake.memory()
    bare.append(
        "all",
        events=lake.events,
        items=CATALOGUE.with_columns(length=pl.lit(None, pl.Float64)),
        watermark=lake.watermark,
    )
    with pytest.raises(DataError, match="no item of the catalogue has a length"):
        Signal("s", enrolment(), completion(), (1, 7)).outcomes(bare)
    with pytest.raises(DataError, match="no ratio, so nothing divides it"):
        Signal("s", enrolment(), plays(), (1, 7)).outcomes(lake).trace(per=True)


@pytest.mark.parametrize(
    ("measure", "origin", "why"),
    [
        (minutes(), None, "no event with seconds"),
        (minutes("item") >= 1, None, "no event with seconds"),
        (minutes() / plays(), None, "no event with seconds"),
        (minutes().above_baseline(2), None, "no event with seconds"),
        (plays(), ("recommended",), "no event of origin 'recommended'"),
        (
            active_days(),
            ("recommended", "autoplay"),
            "no event of origin 'autoplay' or 'recommended'",
        ),
    ],
)
def test_minutes_and_origins_that_nobody_logged_are_no_0(
    measure: Measure, origin: tuple[str, ...] | None, why: str
) -> None:
    signal = Signal("s", discovery(28, "item"), measure, (1, 7), origin)
    rows = [did(at(0)), did(at(2)), did(at(30))]
    with pytest.raises(DataError, match=f"the log has {why}"):
        signal.outcomes(lake_of(*rows))
    told = did(
        at(40), user="other", seconds=60.0, origin="autoplay" if origin is None else origin[-1]
    )
    assert signal.outcomes(lake_of(*rows, told), at(20)).frame["value"].null_count() == (
        1 if measure.baseline is not None else 0
    )


def test_each_part_of_a_ratio_is_about_its_own_thing() -> None:
    day = [did(at(1)), did(at(1), item="i2"), did(at(1), item="i3", creator="c2"), did(at(2))]
    outcomes = Signal(
        "s", discovery(28, "item"), plays("item") / plays("creator"), (1, 2)
    ).outcomes(lake_of(did(at(0)), *day))
    first = outcomes.where(outcomes.frame["time"] == at(0))
    assert first.value.tolist() == [pytest.approx(2 / 3)]
    assert first.trace().toarray().tolist() == [[1, 1]]
    assert first.trace(per=True).toarray().tolist() == [[2, 1]]
    assert first.maturity_curve(truncated=True)["value"].to_list() == pytest.approx([1 / 2, 2 / 3])


# -- against the reference
# --------------------------------------------------------------------------------------


def check(signal: Signal, log: Log) -> None:
    lake = log.lake()
    if (why := refused(signal, log)) is not None:
        with pytest.raises(DataError, match=why):
            signal.outcomes(lake, as_of=log.as_of)
        return
    outcomes = signal.outcomes(lake, as_of=log.as_of)
    expected = in_order(entries_of(signal, log))
    assert in_order(as_rows(outcomes)) == approx(expected)
    assert outcomes.frame["time"].is_sorted()
    assert outcomes.mature.tolist() == [
        matures_at <= log.as_of for matures_at in outcomes.frame["matures_at"]
    ]
    for truncated in (False, True):
        counted = [row for row in expected if truncated or not row["truncated"]]
        curve, mature = (
            outcomes.maturity_curve(truncated=truncated),
            [row["value"] for row in counted if row["value"] is not None],
        )
        if mature:
            rate = outcomes.base_rate(truncated=truncated)
            assert rate.value == pytest.approx(np.mean(mature), abs=1e-8)
            assert curve["value"][-1] == pytest.approx(rate.value, abs=1e-8)
            assert curve["value"].is_sorted() or not signal.additive
            assert curve["day"].to_list() == list(range(signal.window[0], signal.window[1] + 1))
        elif not any(row["matures_at"] <= log.as_of for row in counted):
            assert curve.is_empty()
    unsure = sum(row["truncated"] for row in expected)
    assert (f"{unsure} truncated entries left out" in str(outcomes)) == (
        unsure > 0 and bool(outcomes.mature.any())
    )


@given(signals(), logs(min_events=0, known_later=False))
@examples(200, share=6)
def test_outcomes_equal_a_plain_loop_over_the_events(signal: Signal, log: Log) -> None:
    check(signal, log)


@given(signals((*OLD_ENTRIES, *FAR_ENTRIES), windows=FAR_WINDOWS), logs(moments=FAR_MOMENT))
@examples(60, share=6)
def test_windows_of_up_to_a_year_equal_the_plain_loop(signal: Signal, log: Log) -> None:
    check(signal, log)


@given(signals((*ENTRIES, *FAR_ENTRIES)), logs(moments=YEARS_MOMENT))
@examples(80, share=6)
def test_logs_that_are_silent_for_years_equal_the_plain_loop(signal: Signal, log: Log) -> None:
    check(signal, log)


@given(signals(OLD_ENTRIES), logs(), st.integers(1, 7))
@examples(40)
def test_the_maturity_curve_is_the_base_rate_of_shorter_windows(
    signal: Signal, log: Log, length: int
) -> None:
    assume(not refuses(signal, log) and length <= signal.days)
    try:
        shorter_signal = replace(signal, window=(signal.window[0], signal.window[0] + length - 1))
    except ConfigError:  # a threshold that no shorter window can reach
        reject()
    outcomes = signal.outcomes(log.lake(), as_of=log.as_of)
    assume(outcomes.mature.any())
    shorter = shorter_signal.outcomes(log.lake(), as_of=log.as_of).where(outcomes.mature)
    known_N = shorter.frame["value"].is_not_null()
    assume(known_N.any())
    curve = outcomes.maturity_curve(truncated=True)
    assert curve["value"][length - 1] == pytest.approx(
        shorter.base_rate(truncated=True).value, abs=1e-8
    )
    assert outcomes.trace(length).sum() == pytest.approx(
        outcomes.trace().toarray()[:, :length].sum()
    )


def test_a_heavy_user_does_not_round_away_a_light_users_minute() -> None:
    """Running sums over all entries would: 20 s three times is a minute, also after 10^8 minutes of
    someone else."""
    light = pl.DataFrame(
        {
            "event_id": list("bcde"),
            "user_id": "b",
            "kind": "play",
            "seconds": [0.0, 20.0, 20.0, 20.0],
        }
    )
    light = light.with_columns(
        pl.Series("time", [LEAP, LEAP + DAY, LEAP + 2 * DAY, LEAP + 3 * DAY])
    )
    heavy = pl.DataFrame(
        {
            "event_id": [f"a{n}" for n in range(110_000)],
            "user_id": "a",
            "kind": "play",
            "seconds": 86_400.0,
        }
    )
    lake = Lake.memory()
    lake.append(
        "all",
        events=pl.concat([heavy.with_columns(time=pl.lit(LEAP)), light]),
        watermark=LEAP + 9 * DAY,
    )
    outcomes = Signal("minute", enrolment(), minutes() >= 1, (0, 3)).outcomes(lake)
    assert outcomes.value.tolist() == [1.0, 1.0]
    assert outcomes.maturity_curve()["value"].to_list() == [0.5, 0.5, 0.5, 1.0]


def test_where_and_entered_keep_each_entry_with_its_own_trace() -> None:
    lake = small_log(datetime(2028, 4, 20, tzinfo=UTC))
    outcomes = Signal("plays", user_day(), plays(), (1, 3)).outcomes(lake)
    some = outcomes.entered(datetime(2028, 3, 2, tzinfo=UTC), datetime(2028, 3, 4, 12, tzinfo=UTC))
    assert some.frame["time"].dt.day().to_list() == [2, 3]  # start <= time < end
    assert some.trace().toarray().tolist() == [[2, 1, 0], [1, 0, 0]]
    assert some.where(np.array([False, True])).trace(1).toarray().tolist() == [[1, 0, 0]]


def test_an_empty_log_gives_no_entries_and_a_question_about_the_future_is_refused() -> None:
    lake = Lake.memory()
    lake.append("nothing", items=CATALOGUE, watermark=LEAP)
    for signal in (
        Signal("s", discovery(), returned()),
        Signal("s", user_day(), minutes()),
        Signal("s", enrolment(), plays() >= 2),
    ):
        outcomes = signal.outcomes(lake)
        assert len(outcomes) == 0
        assert outcomes.trace().shape == (0, 28)
        assert "mature 0 of 0" in str(outcomes)
        assert outcomes.frame.schema["value"] == pl.Float64
    with pytest.raises(DataError, match="no decisions"):
        Signal("s", exposure(), returned()).outcomes(lake)
    with pytest.raises(DataError, match="after the lake's watermark 2028-02-26"):
        Signal("s", user_day(), returned()).outcomes(lake, as_of=LEAP + DAY)
    with pytest.raises(DataError, match="no time zone"):
        Signal("s", user_day(), returned()).outcomes(lake, as_of=datetime(2028, 1, 1))


# -- nothing looks ahead
# ---------------------------------------------------------------------------------------------


@given(signals(), logs(), logs())
@examples(20)
def test_what_happens_or_arrives_later_changes_no_outcome(
    signal: Signal, log: Log, other: Log
) -> None:
    later = []
    for number, row in enumerate(other.events):
        late = row["time"] < log.as_of
        row = {**row, "event_id": f"later-{number}"}
        later.append(
            row
            if not late
            else {**row, "ingested_at": log.as_of + MICRO}
            if number % 2
            else {**row, "time": log.as_of, "ingested_at": log.as_of}
        )
    more = replace(log, events=later + log.events)
    seen = Log(
        known(log.events, log.as_of),
        known(log.decisions, log.as_of),
        log.as_of,
        watermark=log.as_of,
        items=log.items,
    )  # a view is a log of its own
    assume(not refuses(signal, seen))
    then = signal.outcomes(log.lake().before(log.as_of))
    now = signal.outcomes(more.lake().before(log.as_of))
    assert_frame_equal(then.frame, now.frame)
    assert then.trace().toarray().tolist() == now.trace().toarray().tolist()
    if signal.entry.of is not None:
        assert_frame_equal(then.on(log.lake().decisions).frame, now.on(log.lake().decisions).frame)


# -- slots
# -------------------------------------------------------------------------------------------------------------


@given(signals(tuple(entry for entry in ENTRIES if entry.of is not None)), logs(min_decisions=1))
@examples(45, share=6)
def test_a_slot_gets_the_first_entry_within_a_day_and_is_null_until_it_matures(
    signal: Signal, log: Log
) -> None:
    assume(not refuses(signal, log))
    lake, key = log.lake(), f"{signal.entry.of}_id"
    entries = sorted(entries_of(signal, log), key=lambda entry: entry["time"])
    events = known(log.events, log.as_of)
    expected = []
    for decision in log.decisions:
        for place, item in enumerate(decision["slate"]):
            shown = {"item_id": item, "creator_id": creator_of(item, events, log.creators)}
            mine = [
                entry
                for entry in entries
                if entry["user_id"] == decision["user_id"]
                and entry[key] is not None
                and entry[key] == shown[key]
            ]
            mine = [
                entry
                for entry in mine
                if decision["time"] <= entry["time"] < decision["time"] + DAY
            ]
            matures_at = midnight(day_of(decision["time"] + DAY) + signal.window[1] + 1)
            assert all(entry["matures_at"] <= matures_at for entry in mine)
            value = (
                None
                if matures_at > log.as_of or shown[f"{signal.entry.of}_id"] is None
                else mine[0]["value"]
                if mine
                else 0.0
            )
            expected.append(
                (
                    decision["decision_id"],
                    place,
                    item,
                    shown["creator_id"],
                    bool(mine),
                    None if value is None else pytest.approx(value),
                    matures_at,
                )
            )
    frame = signal.outcomes(lake, as_of=log.as_of).on(Decisions(lake.decisions)).frame
    given = frame.select(
        "decision_id", "slot", "item_id", "creator_id", "entered", "value", "matures_at"
    ).rows()
    assert sorted(given) == sorted(expected, key=lambda row: row[:2])
    assert frame["log_prob"].to_list() == [-1.0 - slot for slot in frame["slot"]]


def shown_once(after: timedelta, as_of: datetime) -> tuple[Lake, Signal]:
    """i1 is shown to u1 at noon on 1 March; u1 plays it `after`, and again every day for a week."""
    noon = datetime(2028, 3, 1, 12, tzinfo=UTC)
    times = pl.Series("time", [noon + after + n * DAY for n in range(7)])
    events = pl.DataFrame(
        {
            "event_id": list("abcdefg"),
            "user_id": "u1",
            "item_id": "i1",
            "creator_id": "c1",
            "kind": "play",
        }
    ).with_columns(times)
    slate = {"slate": [["i1", "i3"]], "log_prob": [[-1.0, -2.0]]}
    decisions = pl.DataFrame(
        {
            "decision_id": ["d"],
            "context_id": ["k"],
            "user_id": ["u1"],
            "surface": ["home"],
            "policy": ["p@1"],
            **slate,
        }
    )
    lake = Lake.memory()
    lake.append(
        "all",
        events=events,
        decisions=decisions.with_columns(pl.Series("time", [noon])),
        items=CATALOGUE,
        watermark=as_of,
    )
    return lake, Signal("habit", discovery(28), days_with("creator") >= 2, (1, 3))


def test_a_slot_without_entry_waits_as_long_as_one_with() -> None:
    matures_at = datetime(
        2028, 3, 6, tzinfo=UTC
    )  # noon of 2 March, then days 1 to 3, then the midnight
    for as_of, values in ((matures_at - MICRO, [None, None]), (matures_at, [1.0, 0.0])):
        lake, habit = shown_once(DAY - MICRO, as_of)
        shown = habit.outcomes(lake).on(lake.decisions)
        assert shown.frame["value"].to_list() == values
        assert shown.frame["matures_at"].to_list() == [matures_at] * 2
        assert shown.frame["entered"].to_list() == [True, False]
    assert "an entry followed 50.00% of slots, value per mature slot 0.5" in str(shown)


def test_an_entry_a_whole_day_later_is_not_the_slots() -> None:
    lake, habit = shown_once(DAY, datetime(2028, 3, 20, tzinfo=UTC))
    shown = habit.outcomes(lake).on(lake.decisions)
    assert shown.frame["entered"].to_list() == [False, False]
    assert shown.frame["value"].to_list() == [0.0, 0.0]


def test_a_creator_known_only_from_events_still_gets_its_slots() -> None:
    """Without it a log that has no catalogue would say that showing never led to anything."""
    lake, habit = shown_once(timedelta(hours=1), datetime(2028, 3, 20, tzinfo=UTC))
    bare = Lake.memory()
    bare.append("all", events=lake.events, decisions=lake.decisions, watermark=lake.watermark)
    shown = habit.outcomes(bare).on(bare.decisions)
    assert shown.frame["creator_id"].to_list() == ["c1", None]
    assert shown.frame["value"].to_list() == [
        1.0,
        None,
    ]  # of the second nobody knows the creator, so nobody knows its value


def test_slots_own_no_outcome_about_a_whole_user() -> None:
    lake, _ = shown_once(DAY, datetime(2028, 3, 20, tzinfo=UTC))
    for entry in (user_day(), enrolment()):
        with pytest.raises(DataError, match="about a user; on\\(\\) needs discovery or exposure"):
            Signal("s", entry, returned(), (1, 7)).outcomes(lake).on(lake.decisions)


# -- the future as a ranking target
# ---------------------------------------------------------------------------------------


@given(
    logs(),
    st.sampled_from((discovery(None, "item"), discovery(None, "creator"), discovery(7, "creator"))),
    MOMENT,
    MOMENT,
)
@examples(25)
def test_future_of_lists_first_touches_after_each_visit_with_their_own_outcome(
    log: Log, entry: Any, start: timedelta, end: timedelta
) -> None:
    origin = min(row["time"] for row in log.events).replace(
        hour=0, minute=0, second=0, microsecond=0
    )
    start_at, end_at = origin + start, origin + end
    log = replace(log, decisions=[], as_of=origin + 60 * DAY)  # everything is mature and known
    signal = Signal("s", entry, days_with(entry.of) >= 1, (1, 7), ORIGINS, gameable=True)
    engaged = engaged_of(log.events)
    habits = (
        {
            (row["user_id"], row["item_id"], row["time"]): row["value"]
            for row in entries_of(signal, log)
        }
        if not refuses(signal, log)
        else {}
    )
    expected = []
    for user, day in sorted({(touch["user_id"], day_of(touch["time"])) for touch in engaged}):
        visit = min(
            touch["time"]
            for touch in engaged
            if touch["user_id"] == user and day_of(touch["time"]) == day
        )
        for item in CREATORS:
            touches = [
                touch["time"]
                for touch in engaged
                if touch["user_id"] == user and touch["item_id"] == item
            ]
            if (
                start_at <= visit < end_at
                and touches
                and day_of(touches[0]) == day
                and touches[0] < end_at
            ):
                expected.append((visit, user, item, habits.get((user, item, touches[0]), 0.0)))
    assume(not refuses(signal, log))
    lake = log.lake()
    outcomes = signal.outcomes(lake, as_of=log.as_of)
    if not expected:
        with pytest.raises(DataError):
            future_of(outcomes, lake, start=start_at, end=end_at, history=3)
        return
    future = future_of(outcomes, lake, start=start_at, end=end_at, history=3)
    frame = (
        future.contexts.frame.select("user_id", "time")
        .with_row_index("row")
        .with_columns(pl.col("row").cast(pl.Int64))
    )
    found = (
        future.relevant.join(frame, on="row").select("time", "user_id", "item_id", "habit").rows()
    )
    assert sorted(found) == sorted(expected)
    assert sorted(set(future.relevant["row"])) == list(
        range(len(future.contexts))
    )  # every context has a target, numbered from 0
    for row in future.contexts.frame.iter_rows(named=True):
        past = [
            touch
            for touch in engaged
            if touch["user_id"] == row["user_id"]
            and touch["time"] < row["time"] >= touch["ingested_at"]
        ]
        before = {touch["item_id"] for touch in past} - {None}
        assert set(row["exclusions"]) == before
        assert set(row["history"]) <= before


def test_future_of_refuses_immature_outcomes_and_names_the_day_to_end_on() -> None:
    lake = small_log(datetime(2028, 3, 8, tzinfo=UTC))
    start, end = datetime(2028, 3, 1, tzinfo=UTC), datetime(2028, 3, 4, tzinfo=UTC)
    habit = Signal("habit", discovery(None, "item"), days_with("item") >= 1, (1, 6))
    outcomes = habit.outcomes(lake, as_of=datetime(2028, 3, 8, tzinfo=UTC))
    with pytest.raises(
        DataError,
        match="1 of 2 entries before 2028-03-04 are immature at 2028-03-08; end the evaluation by "
        "2028-03-02",
    ):
        future_of(outcomes, lake, start=start, end=end, history=3)
    future = future_of(
        outcomes, lake, start=start, end=datetime(2028, 3, 2, tzinfo=UTC), history=3
    )  # what it named works
    assert future.relevant.rows() == [(0, "i1", 1.0)]
    with pytest.raises(DataError, match="entered by discovery, not by user_day"):
        future_of(
            Signal("s", user_day(), returned(), (1, 2)).outcomes(lake),
            lake,
            start=start,
            end=end,
            history=3,
        )


# -- a real log
# ----------------------------------------------------------------------------------------------------------------

RETAIL = Path(__file__).parents[2] / "shared/data/online_retail/online_retail.parquet"


@pytest.mark.skipif(
    not RETAIL.exists(),
    reason="the Online Retail log is not on this machine (../shared/data/online_retail)",
)
def test_base_rates_of_the_retail_log_are_those_counted_independently() -> None:
    bought = pl.scan_parquet(RETAIL).filter(
        pl.col("user_id").is_not_null() & (pl.col("quantity") > 0)
    )
    events = bought.select(
        event_id=pl.format("r{}", pl.int_range(pl.len())),
        user_id="user_id",
        item_id="item_id",
        kind=pl.lit("purchase"),
        time=pl.col("ts").dt.replace_time_zone("UTC"),
    ).collect()
    lake = Lake.memory()
    lake.append("retail", events=events, watermark=datetime(2011, 12, 10, tzinfo=UTC))
    outcomes = Signal("habit", discovery(None, "item"), days_with("item") >= 2, (1, 120)).outcomes(
        lake
    )

    def month(year: int, number: int, day: int = 1) -> datetime:
        return datetime(year, number, day, tzinfo=UTC)

    for start, end, entries, rate in (
        (month(2010, 12), month(2011, 2), 41_203, 0.07499),
        (month(2011, 2), month(2011, 6), 72_122, 0.05166),
        (month(2011, 6), month(2011, 8, 12), 39_951, 0.05492),
    ):
        part = outcomes.entered(start, end)
        assert len(part) == entries
        assert part.mature.all()
        assert part.base_rate(truncated=True).value == pytest.approx(rate, abs=5e-6)
    assert not outcomes.entered(month(2011, 8, 12)).mature.any()
    back = Signal("back", enrolment(), returned(), (1, 90)).outcomes(lake)
    assert int(back.mature.sum()) == 3_370
    assert back.base_rate().value == pytest.approx(0.455, abs=5e-4)


def test_a_bulk_loaded_log_is_seen_through_known_at_and_explained_without_it() -> None:
    day = datetime(2026, 3, 1, 12, tzinfo=UTC)
    loaded = datetime(2026, 6, 1, tzinfo=UTC)
    rows = {
        "event_id": ["a", "b"],
        "user_id": ["u", "u"],
        "kind": ["play", "play"],
        "time": [day, day + timedelta(days=1)],
    }
    events = pl.DataFrame(rows).with_columns(
        pl.col("time").cast(pl.Datetime("us", "UTC")),
        ingested_at=pl.lit(loaded).cast(pl.Datetime("us", "UTC")),
    )
    lake = Lake.memory()
    lake.append("bulk", events=events, watermark=day + timedelta(days=9))
    signal = Signal("again", entry=user_day(), measure=returned(), window=(1, 3))
    assert signal.outcomes(lake).frame["value"].to_list() == [1.0, 0.0]
    assert len(signal.outcomes(lake.before(day + timedelta(days=5), known_at=loaded))) == 2
    with pytest.raises(DataError, match="none had arrived by then"):
        signal.outcomes(lake, day + timedelta(days=5))
