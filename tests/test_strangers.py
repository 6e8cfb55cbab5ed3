"""What a user of a single day did changes nobody else's rows: no value, no baseline, and not
whether an entry is truncated."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from examples import examples
from hypothesis import assume, given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from reference import (
    DAY,
    EARLIEST,
    ENTRIES,
    FAR_ENTRIES,
    KINDS,
    LEAP,
    MOMENT,
    ORIGINS,
    YEARS_MOMENT,
    Log,
    Row,
    decisions_frame,
    events_frame,
    logs,
    refuses,
    signals,
)
from test_report import full

from longplay.attribution.unexposed import unexposed_baseline
from longplay.errors import DataError
from longplay.lake import Lake
from longplay.report.blocks import Grid, Section
from longplay.report.sections import ingest
from longplay.results import RunResults
from longplay.signals import (
    Signal,
    active_days,
    days_with,
    discovery,
    enrolment,
    event,
    exposure,
    minutes,
    plays,
    returned,
    user_day,
)
from longplay.signals.engine import beginnings as begins_module
from longplay.signals.engine.beginnings import Beginnings, beginnings_of
from longplay.signals.outcomes.enrolled_sums import enrolled_sums
from longplay.signals.outcomes.in_files import write_outcomes
from longplay.signals.store.signal_store import SignalStore

STRANGER = "stranger"
AWAY = (
    -7_305,
    -800,
    -367,
    -366,
    -365,
    -200,
    -29,
    -28,
    -8,
    -1,
    0,
    1,
    5,
    40,
    200,
    366,
    367,
    400,
    900,
)  # days from the start of a small log
KEPT = (
    Signal("habit", discovery(7), days_with("creator") >= 2, (1, 7)),
    Signal("first", discovery(None, "item"), plays("item"), (1, 3)),
    Signal("saved", event("save", "item", 28), days_with("item"), (1, 3)),
    Signal("above", user_day(), minutes().above_baseline(3), (1, 3)),
    Signal("active", enrolment(), active_days(), (1, 28)),
    Signal("seen", exposure("item"), plays("item").above_baseline(7), (0, 1)),
)


def did(
    day: float,
    user: str,
    kind: str = "play",
    item: str | None = "i1",
    creator: str | None = "c1",
    **more: Any,
) -> Row:
    moment = LEAP + day * DAY
    row = {
        "event_id": f"{user} {kind} {day} {item}",
        "user_id": user,
        "item_id": item,
        "creator_id": creator,
        "kind": kind,
        "time": moment,
    }
    return {
        **row,
        "seconds": 20.0,
        "surface": None,
        "origin": "organic",
        "ingested_at": moment,
        **more,
    }


@st.composite
def strangers(draw: st.DrawFn) -> list[Row]:
    """Up to three things that somebody did on one day; of items of which they tell nothing new."""
    day = draw(st.sampled_from(AWAY))
    return [
        did(
            day + draw(st.sampled_from((0.0, 0.25, 0.999))),
            STRANGER,
            kind,
            item=draw(st.sampled_from((None, "own"))),
            creator=draw(st.sampled_from((None, "c1", "own"))),
            event_id=f"{STRANGER} {number}",
            origin=draw(st.sampled_from(ORIGINS)),
        )
        for number, kind in enumerate(
            draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=3))
        )
    ]


def of_others(frame: pl.DataFrame) -> pl.DataFrame:
    """The rows of everybody else, in one order."""
    return frame.filter(pl.col("user_id") != STRANGER).sort(pl.all())


def with_strangers(log: Log, rows: list[Row]) -> tuple[Log, Log]:
    """The log without and with these events; both are complete until the same moment."""
    alone = replace(log, watermark=max(log.complete_until, *(row["time"] + DAY for row in rows)))
    return alone, replace(alone, events=[*rows, *log.events])


@given(
    signals((*ENTRIES, *FAR_ENTRIES)),
    st.one_of(logs(moments=MOMENT), logs(moments=YEARS_MOMENT)),
    strangers(),
)
@examples(240, share=6)
def test_a_strangers_events_change_nobody_elses_rows(
    signal: Signal, log: Log, rows: list[Row]
) -> None:
    alone, both = with_strangers(log, rows)
    assume(not refuses(signal, alone) and not refuses(signal, both))
    expected, found = (one.lake() for one in (alone, both))
    before, after = (
        signal.outcomes(expected, as_of=log.as_of),
        signal.outcomes(found, as_of=log.as_of),
    )
    assert_frame_equal(of_others(after.frame), of_others(before.frame))


@given(st.one_of(logs(moments=MOMENT), logs(moments=YEARS_MOMENT)), strangers(), st.booleans())
@examples(60, share=6)
def test_a_strangers_events_change_nobody_elses_rows_in_a_shared_pass(
    tmp_path_factory: Any, log: Log, rows: list[Row], sampled: bool
) -> None:
    alone, both = with_strangers(log, rows)
    several = [one for one in KEPT if not refuses(one, alone) and not refuses(one, both)]
    assume(several)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(begins_module, "USERS_SAMPLED", 100 if sampled else 1)
        before, after = (
            write_outcomes(several, one.lake(), tmp_path_factory.mktemp("pass"), as_of=log.as_of)
            for one in (alone, both)
        )
    for signal in several:
        assert_frame_equal(
            of_others(pl.read_parquet(after[signal.label])),
            of_others(pl.read_parquet(before[signal.label])),
        )


@given(
    logs(moments=MOMENT),
    strangers(),
    st.lists(st.integers(0, 40), min_size=1, max_size=3, unique=True),
    st.data(),
)
@examples(24, share=6)
def test_a_strangers_events_change_nobody_elses_rows_in_a_store_of_several_nights(
    tmp_path_factory: Any, log: Log, rows: list[Row], nights: list[int], data: st.DataObject
) -> None:
    alone, both = with_strangers(log, rows)
    several = [one for one in KEPT if not refuses(one, alone) and not refuses(one, both)]
    assume(several)
    start = min(row["time"] for row in log.events).replace(
        hour=0, minute=0, second=0, microsecond=0
    )
    ends = [*(start + (night + 1) * DAY for night in sorted(nights)), alone.complete_until]
    late = {row["event_id"]: data.draw(st.integers(0, len(ends) - 1)) for row in both.events}
    stores = [
        store_of(tmp_path_factory.mktemp("store"), one, ends, late, several)
        for one in (alone, both)
    ]
    for signal in several:
        without, with_them = (of_others(store.outcomes(signal)) for store in stores)
        assert_frame_equal(with_them, without)


def store_of(
    place: Path, log: Log, ends: list[datetime], late: dict[str, int], several: list[Signal]
) -> SignalStore:
    """A store that was updated at every one of these midnights; an event came when its day was
    over, or as late as it says."""
    lake = Lake.open(place / "lake")
    store = SignalStore(place / "store", lake, several)
    for number, end in enumerate(ends):

        def comes(row: Row, at: int = 0, number: int = number) -> bool:
            return (
                max(
                    at,
                    next(
                        (place for place, other in enumerate(ends) if row["time"] < other),
                        len(ends) - 1,
                    ),
                )
                == number
            )

        events = [row for row in log.events if comes(row, late[row["event_id"]])]
        decisions = [row for row in log.decisions if comes(row)]
        lake.append(
            str(number),
            events=events_frame(events) if events else None,
            decisions=decisions_frame(decisions) if decisions else None,
            items=log.items if number == 0 else None,
            watermark=end,
            earliest=EARLIEST,
        )
        store.update()
    return store


# -- by hand
# ---------------------------------------------------------------------------------------------


def lake_of(*rows: Row, until: int = 99, decisions: list[Row] | None = None) -> Lake:
    """Its events, complete until midnight of that day, counted from `LEAP`."""
    until_at = LEAP.replace(hour=0, minute=0, second=0, microsecond=0) + until * DAY
    return Log(list(rows), decisions or [], until_at, until_at).lake()


NEW = Signal("new", discovery(28), days_with("creator"), (1, 7))


def truncated(*rows: Row) -> list[tuple[str, bool]]:
    return NEW.outcomes(lake_of(*rows)).frame.sort("time").select("user_id", "truncated").rows()


def test_the_log_begins_with_the_first_user_who_comes_again() -> None:
    log = [did(0, "a"), did(9, "a"), did(27, "b"), did(28, "c")]
    assert truncated(*log) == [("a", True), ("b", True), ("c", False)]
    assert truncated(did(-20, STRANGER), did(-19.9, STRANGER), *log) == [
        (STRANGER, True),
        ("a", True),
        ("b", True),
        ("c", False),
    ]
    assert truncated(did(-20, "d"), did(-19, "d"), *log)[1:] == [
        ("a", True),
        ("b", False),
        ("c", False),
    ]  # the log was there


def test_an_event_in_a_silence_does_not_bridge_it() -> None:
    log = [did(0, "a"), did(1, "a"), did(601, "b"), did(602, "b"), did(610, "c"), did(629, "d")]
    expected = [
        ("b", True),
        ("c", True),
        ("d", False),
    ]  # of the second run, which begins on day 601
    for day in (250, 300, 350):  # at most 366 days from both
        between = [did(day, STRANGER)]
        with_it = NEW.outcomes(lake_of(*log, *between, until=700)).frame.filter(
            pl.col("day") > 20_000 + 1_000
        )
        assert [
            row
            for row in with_it.sort("time").select("user_id", "truncated").rows()
            if row[0] in "bcd"
        ] == expected


def test_where_nobody_comes_again_every_entry_is_truncated_and_the_words_say_why() -> None:
    outcomes = NEW.outcomes(lake_of(did(0, "a"), did(40, "b"), did(60, "c")))
    assert outcomes.frame["truncated"].all()
    with pytest.raises(DataError, match="no user was active on two days"):
        outcomes.base_rate()
    assert outcomes.base_rate(truncated=True).value == 0.0
    baseline = Signal("above", user_day(), minutes().above_baseline(3), (1, 3)).outcomes(
        lake_of(did(0, "a"), did(40, "b"))
    )
    assert baseline.frame["value"].to_list() == [None, None]


def test_a_user_of_two_days_more_than_a_year_apart_says_nothing_of_the_days_between() -> None:
    log = [did(400, "a"), did(401, "a"), did(420, "b"), did(429, "c")]
    lone = [did(0, STRANGER), did(430, STRANGER)]
    lake = lake_of(*lone, *log, until=600)
    assert NEW.outcomes(lake).frame.sort("time").select("user_id", "truncated").rows() == [
        (STRANGER, True),
        ("a", True),
        ("b", True),
        ("c", False),
        (STRANGER, False),
    ]


def test_a_stray_event_does_not_make_an_impossible_window_look_possible() -> None:
    month = Signal("month", user_day(), returned(), (1, 28))
    log = [did(0, "a"), did(1, "a"), did(5, "b")]
    for rows in (log, [did(-7_000, STRANGER), *log], [did(-30, STRANGER), *log]):
        with pytest.raises(DataError, match="the log begins on 2028-02-26") as error:
            month.outcomes(lake_of(*rows, until=20))
        assert ("nobody did" in str(error.value)) == (len(rows) > len(log))
    assert month.outcomes(lake_of(did(-30, "b"), *log, until=20)).mature.sum() == 1


def test_enrolled_users_in_a_silence_do_not_feel_a_stranger() -> None:
    above = Signal("above", enrolment(), active_days().above_baseline(7), (1, 7))
    log = [did(0, "a"), did(1, "a"), did(2, "b")]
    enrolled = pl.DataFrame(
        {"user_id": ["a", "b"], "time": [LEAP + 380 * DAY] * 2},
        schema_overrides={"time": pl.Datetime("us", "UTC")},
    )
    near, far = (lake_of(*rows, until=500) for rows in (log, [*log, did(90, STRANGER)]))
    found = [above.outcomes(lake).frame for lake in (near, far)]
    assert found[0].height + 1 == found[1].height
    active = Signal("active", enrolment(), active_days(), (1, 7))
    assert enrolled_sums(active, near, enrolled).equals(enrolled_sums(active, far, enrolled))


def test_the_first_day_is_read_and_the_whole_log_only_where_nobody_of_it_came_again() -> None:
    lake = lake_of(did(0, "a"), did(3, "a"), did(4, "b"))
    first = int(LEAP.timestamp() // 86_400)
    with lake.connect() as con:
        assert beginnings_of(con, (first, first + 4), needs_ends=False) == Beginnings(
            ((first, first + 4),)
        )
        assert beginnings_of(con, (first, first + 4)) == Beginnings(((first, first + 3),))
    stray = lake_of(did(-3, STRANGER), did(0, "a"), did(3, "a"))
    with stray.connect() as con:
        assert beginnings_of(con, (first - 3, first + 3), needs_ends=False) == Beginnings(
            ((first, first + 3),)
        )


def test_a_store_counts_again_when_a_stranger_comes_back(tmp_path: Path) -> None:
    """On day 0 a stranger, from day 20 on others; on day 45 the stranger is there again: the log
    was there from day 0 on."""
    lake = Lake.open(tmp_path / "lake")
    start = LEAP.replace(hour=0, minute=0, second=0, microsecond=0)
    others = [did(day, f"u{day % 3}", creator=f"c{day}") for day in range(20, 44)]
    lake.append("all", events=events_frame([did(0, STRANGER), *others]), watermark=start + 45 * DAY)
    store = SignalStore(tmp_path / "store", lake, [NEW])
    store.update()
    before = store.outcomes(NEW).filter(pl.col("user_id") != STRANGER).sort("day")
    assert before["truncated"].to_list() == [True] * 24
    lake.append("later", events=events_frame([did(45, STRANGER)]), watermark=start + 47 * DAY)
    done = store.update()
    assert len(done.computed[NEW.label]) == 26
    after = store.outcomes(NEW).filter(pl.col("user_id") != STRANGER).sort("day")
    assert after["truncated"].to_list() == [day < 28 for day in range(20, 44)]
    fresh = SignalStore(tmp_path / "fresh", lake, [NEW])
    fresh.update()
    assert store.outcomes(NEW).equals(fresh.outcomes(NEW))


def test_a_stranger_who_stays_one_costs_a_night_nothing(tmp_path: Path) -> None:
    lake = Lake.open(tmp_path / "lake")
    start = LEAP.replace(hour=0, minute=0, second=0, microsecond=0)
    lake.append(
        "all",
        events=events_frame(
            [did(0, STRANGER), *(did(day, f"u{day % 3}") for day in range(20, 60))]
        ),
        watermark=start + 60 * DAY,
    )
    store = SignalStore(tmp_path / "store", lake, [NEW])
    store.update()
    lake.append("later", events=events_frame([did(60, "u0")]), watermark=start + 61 * DAY)
    done = store.update()
    assert len(done.computed[NEW.label]) <= 2  # the new day, and the one that matured


def test_the_learnt_baseline_does_not_feel_a_stranger() -> None:
    """Twenty users of two creators each; a stranger of one day, before, inside or after."""
    rows = [
        did(day, f"u{user}", item=f"i{1 + user % 3}", creator=f"c{user % 3}")
        for user in range(20)
        for day in (1, 3, 5, 8, 13, 21, 30)
    ]
    decisions = [
        {
            "decision_id": f"d{user}",
            "context_id": f"d{user}",
            "user_id": f"u{user}",
            "time": LEAP + 2 * DAY,
            "ingested_at": LEAP + 2 * DAY,
            "surface": "home",
            "slate": ["i2"],
            "log_prob": [-1.0],
            "policy": "p@1",
            "experiment": None,
        }
        for user in range(6)
    ]
    signal = Signal("new", discovery(1), days_with("creator"), (1, 7))
    near = lake_of(*rows, decisions=decisions)
    expected = unexposed_baseline(signal.outcomes(near), near, near.decisions, least=1)
    for day in (-7_000, -20, 0, 9, 31):
        far = lake_of(did(day, STRANGER), *rows, decisions=decisions)
        assert unexposed_baseline(signal.outcomes(far), far, far.decisions, least=1) == expected


def test_an_item_that_was_only_refunded_is_no_discovery_when_a_stranger_makes_the_log_long(
    tmp_path: Path,
) -> None:
    """All signals of a shared pass share words of days: an item has some without any touch."""
    log = [did(0, "a", "refund", item="i2"), did(1, "a", item="i3"), did(2, "b", item="i3")]
    several = [KEPT[1], Signal("refunded", event("refund", "item", 28), plays("item"), (1, 3))]
    for rows in (log, [*log, did(800, STRANGER, item="own")]):
        written = write_outcomes(several, lake_of(*rows, until=900), tmp_path)
        found = of_others(pl.read_parquet(written[KEPT[1].label]))
        assert found.select("user_id", "item_id").rows() == [("a", "i3"), ("b", "i3")]


def glance(results: dict) -> Section:
    """The section on the log."""
    (steps,) = ingest.SECTIONS
    section = steps.section(RunResults.of_json(results))
    assert section is not None
    return section


def test_the_chart_of_activity_does_not_draw_twenty_years_of_zeros() -> None:
    days = [{"day": f"2026-01-{day:02}", "users": 50, "events": 200} for day in (1, 2, 4, 10)]
    log = full()["simulate"] | {
        "events": 801,
        "users": 60,
        "items": 3,
        "first": "2005-03-01",
        "last": "2026-01-10",
        "kinds": {"play": 801},
        "origins": {"organic": 801},
    }
    near, far = (
        glance({"simulate": {**log, "activity": activity}})
        for activity in (days, [{"day": "2005-03-01", "users": 1, "events": 1}, *days])
    )
    chart = next(block for block in far.blocks if isinstance(block, Grid)).blocks[0]
    assert "over 10 days" in str(chart)
    assert chart == next(block for block in near.blocks if isinstance(block, Grid)).blocks[0]
    assert (
        far.answer[1] == near.answer[1] == "On an average day 20 users were active, 33.3% of all."
    )
    assert "1 day with activity (2005-03-01) is left out" in " ".join(far.answer)
