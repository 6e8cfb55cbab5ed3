"""Outcomes equal what slow, plain Python says of the same log; immature is null; nothing looks ahead."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from reference import (
    CATALOGUE,
    CREATORS,
    DAY,
    ENTRIES,
    FAR_MOMENT,
    FAR_WINDOWS,
    LEAP,
    MICRO,
    MOMENT,
    OLD_ENTRIES,
    Log,
    Row,
    creator_of,
    day_of,
    entries_of,
    known,
    logs,
    midnight,
    refused,
    refuses,
    signals,
)

from longplay.decisions import Decisions
from longplay.errors import DataError
from longplay.lake import Lake
from longplay.lake.schema import ENGAGED, ORIGINS
from longplay.signals import Outcomes, Signal, days_with, discovery, enrolment, exposure, minutes, plays, returned, user_day
from longplay.signals.future import future_of


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
        rows, key=lambda row: (row["time"], row["user_id"], *(row[name] or "~" for name in ("item_id", "creator_id", "surface")), str(row["value"]))
    )


def approx(rows: list[Row]) -> list[Row]:
    numbers = ("value", "trace", "per", "baseline")
    return [{name: pytest.approx(x, abs=1e-8) if name in numbers and x is not None else x for name, x in row.items()} for row in rows]


# -- two examples by hand ------------------------------------------------------------------------------------


def small_log(as_of: datetime) -> Lake:
    """u1 meets c1 on 1 March 2028 at noon and plays it on days 1, 2, 2 and 28; on day 3 a recommendation, on day 29 too late."""
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
    assert count.frame["value"].to_list() == [3.0]  # days 1, 2 and 28; day 0 is the entry, day 3 was recommended, day 29 is too late
    assert Signal("habit", discovery(28), days_with("creator") >= 3).outcomes(lake).value.tolist() == [1.0]
    assert Signal("habit", discovery(28), days_with("creator") >= 4).outcomes(lake).value.tolist() == [0.0]
    assert Signal("all", discovery(28), days_with("creator"), (1, 28), ORIGINS, gameable=True).outcomes(lake).value.tolist() == [4.0]
    assert Signal("time", discovery(28), minutes("creator"), (0, 28)).outcomes(lake).value.tolist() == [9.0]  # six plays of 1.5 minutes
    assert count.trace().toarray().nonzero()[1].tolist() == [0, 1, 27]
    curve = count.maturity_curve()
    assert curve.filter(pl.col("day").is_in([1, 2, 27, 28]))["value"].to_list() == [1.0, 2.0, 2.0, 3.0]


def test_an_outcome_is_null_until_the_midnight_that_closes_its_window() -> None:
    habit = Signal("habit", discovery(28), days_with("creator") >= 2, (1, 28))
    closing = datetime(2028, 3, 30, tzinfo=UTC)  # day 28 is 29 March
    lake = small_log(closing + 5 * DAY)
    early = habit.outcomes(lake, as_of=closing - MICRO)
    assert early.frame["value"].to_list() == [None]  # two days are there already, but the window is open
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
    times = [LEAP - 300 * DAY, *(LEAP + moment for moment in moments)]
    count = len(times)
    users = ["other", *["u1"] * (count - 1)]
    events = pl.DataFrame({"event_id": [f"e{n}" for n in range(count)], "user_id": users, "item_id": "i1", "creator_id": "c1", "kind": "play"})
    lake = Lake.memory()
    lake.append("all", events=events.with_columns(pl.Series("time", times)), watermark=LEAP + 99 * DAY)
    return lake


@pytest.mark.parametrize("novel_for", [1, 7, 28])
def test_a_touch_is_new_again_only_after_more_than_novel_for_days(novel_for: int) -> None:
    signal = Signal("s", discovery(novel_for), days_with("creator"), (1, 7))
    for gap, days in ((novel_for, [0]), (novel_for + 1, [0, novel_for + 1])):
        frame = signal.outcomes(touches(timedelta(0), gap * DAY)).frame.filter(pl.col("user_id") == "u1")
        assert [(time - LEAP).days for time in frame["time"]] == days
        assert not frame["truncated"].any()


def test_what_is_first_touched_after_the_end_is_no_target_even_on_the_last_day() -> None:
    lake = touches(timedelta(hours=18), DAY)
    visit = pl.DataFrame({"event_id": ["v"], "user_id": ["u1"], "kind": ["visit"]}).with_columns(pl.Series("time", [LEAP + timedelta(hours=9)]))
    lake.append("visit", events=visit)
    outcomes = Signal("habit", discovery(None, "item"), days_with("item") >= 1, (1, 7)).outcomes(lake)
    assert future_of(outcomes, lake, start=LEAP, end=LEAP + DAY, history=1).relevant.rows() == [(0, "i1", 1.0)]
    with pytest.raises(DataError, match="no relevant item"):
        future_of(outcomes, lake, start=LEAP, end=LEAP + timedelta(hours=12), history=1)


# -- against the reference --------------------------------------------------------------------------------------


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
    assert outcomes.mature.tolist() == [matures_at <= log.as_of for matures_at in outcomes.frame["matures_at"]]
    mature = [row["value"] for row in expected if row["value"] is not None]
    if mature:
        assert outcomes.base_rate().value == pytest.approx(np.mean(mature), abs=1e-8)
        curve = outcomes.maturity_curve()
        assert curve["value"][-1] == pytest.approx(outcomes.base_rate().value, abs=1e-8)
        assert curve["value"].is_sorted() or not signal.additive
        assert curve["day"].to_list() == list(range(signal.window[0], signal.window[1] + 1))
    elif not outcomes.mature.any():
        assert outcomes.maturity_curve().is_empty()


@given(signals(), logs())
@settings(max_examples=200, deadline=None)
def test_outcomes_equal_a_plain_loop_over_the_events(signal: Signal, log: Log) -> None:
    check(signal, log)


@given(signals(windows=FAR_WINDOWS), logs(moments=FAR_MOMENT))
@settings(max_examples=60, deadline=None)
def test_windows_of_up_to_a_year_equal_the_plain_loop(signal: Signal, log: Log) -> None:
    check(signal, log)


@given(signals(OLD_ENTRIES), logs(), st.integers(1, 7))
@settings(max_examples=40, deadline=None)
def test_the_maturity_curve_is_the_base_rate_of_shorter_windows(signal: Signal, log: Log, length: int) -> None:
    assume(not refuses(signal, log) and length <= signal.days)
    assume(not (signal.measure.counts_days and (signal.threshold or 0) > length))
    assume(signal.measure.kind != "habits" or (signal.measure.days or 0) <= length)
    outcomes = signal.outcomes(log.lake(), as_of=log.as_of)
    assume(outcomes.mature.any())
    shorter = replace(signal, window=(signal.window[0], signal.window[0] + length - 1)).outcomes(log.lake(), as_of=log.as_of).where(outcomes.mature)
    known_N = shorter.frame["value"].is_not_null()
    assume(known_N.any())
    assert outcomes.maturity_curve()["value"][length - 1] == pytest.approx(shorter.base_rate().value, abs=1e-8)
    assert outcomes.trace(length).sum() == pytest.approx(outcomes.trace().toarray()[:, :length].sum())


def test_a_heavy_user_does_not_round_away_a_light_users_minute() -> None:
    """Running sums over all entries would: 20 s three times is a minute, also after 10^10 minutes of someone else."""
    events = pl.DataFrame(
        {"event_id": list("abcde"), "user_id": ["a", "b", "b", "b", "b"], "kind": "play", "seconds": [6e11, 0.0, 20.0, 20.0, 20.0]}
    ).with_columns(pl.Series("time", [LEAP, LEAP, LEAP + DAY, LEAP + 2 * DAY, LEAP + 3 * DAY]))
    lake = Lake.memory()
    lake.append("all", events=events, watermark=LEAP + 9 * DAY)
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
    for signal in (Signal("s", discovery(), returned()), Signal("s", user_day(), minutes()), Signal("s", enrolment(), plays() >= 2)):
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


# -- nothing looks ahead ---------------------------------------------------------------------------------------------


@given(signals(), logs(), logs())
@settings(max_examples=20, deadline=None)
def test_what_happens_or_arrives_later_changes_no_outcome(signal: Signal, log: Log, other: Log) -> None:
    later = []
    for number, event in enumerate(other.events):
        late = event["time"] < log.as_of
        event = {**event, "event_id": f"later-{number}"}
        later.append(
            event
            if not late
            else {**event, "ingested_at": log.as_of + MICRO}
            if number % 2
            else {**event, "time": log.as_of, "ingested_at": log.as_of}
        )
    more = replace(log, events=later + log.events)
    seen = replace(log, events=known(log.events, log.as_of), decisions=known(log.decisions, log.as_of))
    begins = min((day_of(row["time"]) for row in (*seen.events, *seen.decisions)), default=None)
    assume(not refuses(signal, seen) and (begins is None or midnight(begins + signal.window[1] + 1) <= log.as_of))  # a view is a log of its own
    then = signal.outcomes(log.lake().before(log.as_of))
    now = signal.outcomes(more.lake().before(log.as_of))
    assert_frame_equal(then.frame, now.frame)
    assert then.trace().toarray().tolist() == now.trace().toarray().tolist()
    if signal.entry.of is not None:
        assert_frame_equal(then.on(log.lake().decisions).frame, now.on(log.lake().decisions).frame)


# -- slots -------------------------------------------------------------------------------------------------------------


@given(signals(tuple(entry for entry in ENTRIES if entry.of is not None)), logs(min_decisions=1))
@settings(max_examples=45, deadline=None)
def test_a_slot_gets_the_first_entry_within_a_day_and_is_null_until_it_matures(signal: Signal, log: Log) -> None:
    assume(not refuses(signal, log))
    lake, key = log.lake(), f"{signal.entry.of}_id"
    entries = sorted(entries_of(signal, log), key=lambda entry: entry["time"])
    events = known(log.events, log.as_of)
    expected = []
    for decision in log.decisions:
        for place, item in enumerate(decision["slate"]):
            shown = {"item_id": item, "creator_id": creator_of(item, events)}
            mine = [entry for entry in entries if entry["user_id"] == decision["user_id"] and entry[key] is not None and entry[key] == shown[key]]
            mine = [entry for entry in mine if decision["time"] <= entry["time"] < decision["time"] + DAY]
            matures_at = midnight(day_of(decision["time"] + DAY) + signal.window[1] + 1)
            assert all(entry["matures_at"] <= matures_at for entry in mine)
            value = None if matures_at > log.as_of or shown[f"{signal.entry.of}_id"] is None else mine[0]["value"] if mine else 0.0
            expected.append(
                (decision["decision_id"], place, item, shown["creator_id"], bool(mine), None if value is None else pytest.approx(value), matures_at)
            )
    frame = signal.outcomes(lake, as_of=log.as_of).on(Decisions(lake.decisions)).frame
    given = frame.select("decision_id", "slot", "item_id", "creator_id", "entered", "value", "matures_at").rows()
    assert sorted(given) == sorted(expected, key=lambda row: row[:2])
    assert frame["log_prob"].to_list() == [-1.0 - slot for slot in frame["slot"]]


def shown_once(after: timedelta, as_of: datetime) -> tuple[Lake, Signal]:
    """i1 is shown to u1 at noon on 1 March; u1 plays it `after`, and again every day for a week."""
    noon = datetime(2028, 3, 1, 12, tzinfo=UTC)
    times = pl.Series("time", [noon + after + n * DAY for n in range(7)])
    events = pl.DataFrame({"event_id": list("abcdefg"), "user_id": "u1", "item_id": "i1", "creator_id": "c1", "kind": "play"}).with_columns(times)
    slate = {"slate": [["i1", "i3"]], "log_prob": [[-1.0, -2.0]]}
    decisions = pl.DataFrame({"decision_id": ["d"], "context_id": ["k"], "user_id": ["u1"], "surface": ["home"], "policy": ["p@1"], **slate})
    lake = Lake.memory()
    lake.append("all", events=events, decisions=decisions.with_columns(pl.Series("time", [noon])), items=CATALOGUE, watermark=as_of)
    return lake, Signal("habit", discovery(28), days_with("creator") >= 2, (1, 3))


def test_a_slot_without_entry_waits_as_long_as_one_with() -> None:
    matures_at = datetime(2028, 3, 6, tzinfo=UTC)  # noon of 2 March, then days 1 to 3, then the midnight
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
    assert shown.frame["value"].to_list() == [1.0, None]  # of the second nobody knows the creator, so nobody knows its value


def test_slots_own_no_outcome_about_a_whole_user() -> None:
    lake, _ = shown_once(DAY, datetime(2028, 3, 20, tzinfo=UTC))
    for entry in (user_day(), enrolment()):
        with pytest.raises(DataError, match="about a user; on\\(\\) needs discovery or exposure"):
            Signal("s", entry, returned(), (1, 7)).outcomes(lake).on(lake.decisions)


# -- the future as a ranking target ---------------------------------------------------------------------------------------


@given(logs(), st.sampled_from((discovery(None, "item"), discovery(None, "creator"), discovery(7, "creator"))), MOMENT, MOMENT)
@settings(max_examples=25, deadline=None)
def test_future_of_lists_first_touches_after_each_visit_with_their_own_outcome(log: Log, entry: Any, start: timedelta, end: timedelta) -> None:
    origin = min(row["time"] for row in log.events).replace(hour=0, minute=0, second=0, microsecond=0)
    start_at, end_at = origin + start, origin + end
    log = replace(log, decisions=[], as_of=origin + 60 * DAY)  # everything is mature and known
    signal = Signal("s", entry, days_with(entry.of) >= 1, (1, 7), ORIGINS, gameable=True)
    engaged = sorted((event for event in log.events if event["kind"] in ENGAGED), key=lambda event: (event["time"], event["event_id"]))
    habits = {(row["user_id"], row["item_id"], row["time"]): row["value"] for row in entries_of(signal, log)} if not refuses(signal, log) else {}
    expected = []
    for user, day in sorted({(event["user_id"], day_of(event["time"])) for event in engaged}):
        visit = min(event["time"] for event in engaged if event["user_id"] == user and day_of(event["time"]) == day)
        for item in CREATORS:
            touches = [event["time"] for event in engaged if event["user_id"] == user and event["item_id"] == item]
            if start_at <= visit < end_at and touches and day_of(touches[0]) == day and touches[0] < end_at:
                expected.append((visit, user, item, habits.get((user, item, touches[0]), 0.0)))
    assume(not refuses(signal, log))
    lake = log.lake()
    outcomes = signal.outcomes(lake, as_of=log.as_of)
    if not expected:
        with pytest.raises(DataError):
            future_of(outcomes, lake, start=start_at, end=end_at, history=3)
        return
    future = future_of(outcomes, lake, start=start_at, end=end_at, history=3)
    frame = future.contexts.frame.select("user_id", "time").with_row_index("row").with_columns(pl.col("row").cast(pl.Int64))
    found = future.relevant.join(frame, on="row").select("time", "user_id", "item_id", "habit").rows()
    assert sorted(found) == sorted(expected)
    assert sorted(set(future.relevant["row"])) == list(range(len(future.contexts)))  # every context has a target, numbered from 0
    for row in future.contexts.frame.iter_rows(named=True):
        past = [event for event in engaged if event["user_id"] == row["user_id"] and event["time"] < row["time"] >= event["ingested_at"]]
        before = {event["item_id"] for event in past} - {None}
        assert set(row["exclusions"]) == before
        assert set(row["history"]) <= before


def test_future_of_refuses_immature_outcomes_and_names_the_day_to_end_on() -> None:
    lake = small_log(datetime(2028, 3, 8, tzinfo=UTC))
    start, end = datetime(2028, 3, 1, tzinfo=UTC), datetime(2028, 3, 4, tzinfo=UTC)
    habit = Signal("habit", discovery(None, "item"), days_with("item") >= 1, (1, 6))
    outcomes = habit.outcomes(lake, as_of=datetime(2028, 3, 8, tzinfo=UTC))
    with pytest.raises(DataError, match="1 of 2 entries before 2028-03-04 are immature at 2028-03-08; end the evaluation by 2028-03-02"):
        future_of(outcomes, lake, start=start, end=end, history=3)
    future = future_of(outcomes, lake, start=start, end=datetime(2028, 3, 2, tzinfo=UTC), history=3)  # what it named works
    assert future.relevant.rows() == [(0, "i1", 1.0)]
    with pytest.raises(DataError, match="entered by discovery, not by user_day"):
        future_of(Signal("s", user_day(), returned(), (1, 2)).outcomes(lake), lake, start=start, end=end, history=3)


# -- a real log ----------------------------------------------------------------------------------------------------------------

RETAIL = Path(__file__).parents[2] / "shared/data/online_retail/online_retail.parquet"


@pytest.mark.skipif(not RETAIL.exists(), reason="the Online Retail log is not on this machine (../shared/data/online_retail)")
def test_base_rates_of_the_retail_log_are_those_counted_independently() -> None:
    bought = pl.scan_parquet(RETAIL).filter(pl.col("user_id").is_not_null() & (pl.col("quantity") > 0))
    events = bought.select(
        event_id=pl.format("r{}", pl.int_range(pl.len())),
        user_id="user_id",
        item_id="item_id",
        kind=pl.lit("purchase"),
        time=pl.col("ts").dt.replace_time_zone("UTC"),
    ).collect()
    lake = Lake.memory()
    lake.append("retail", events=events, watermark=datetime(2011, 12, 10, tzinfo=UTC))
    outcomes = Signal("habit", discovery(None, "item"), days_with("item") >= 2, (1, 120)).outcomes(lake)

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
        assert part.base_rate().value == pytest.approx(rate, abs=5e-6)
    assert not outcomes.entered(month(2011, 8, 12)).mature.any()
    back = Signal("back", enrolment(), returned(), (1, 90)).outcomes(lake)
    assert int(back.mature.sum()) == 3_370
    assert back.base_rate().value == pytest.approx(0.455, abs=5e-4)


def test_a_bulk_loaded_log_is_seen_through_known_at_and_explained_without_it() -> None:
    day = datetime(2026, 3, 1, 12, tzinfo=UTC)
    loaded = datetime(2026, 6, 1, tzinfo=UTC)
    rows = {"event_id": ["a", "b"], "user_id": ["u", "u"], "kind": ["play", "play"], "time": [day, day + timedelta(days=1)]}
    events = pl.DataFrame(rows).with_columns(pl.col("time").cast(pl.Datetime("us", "UTC")), ingested_at=pl.lit(loaded).cast(pl.Datetime("us", "UTC")))
    lake = Lake.memory()
    lake.append("bulk", events=events, watermark=day + timedelta(days=9))
    signal = Signal("again", entry=user_day(), measure=returned(), window=(1, 3))
    assert signal.outcomes(lake).frame["value"].to_list() == [1.0, 0.0]
    assert len(signal.outcomes(lake.before(day + timedelta(days=5), known_at=loaded))) == 2
    with pytest.raises(DataError, match="none had arrived by then"):
        signal.outcomes(lake, day + timedelta(days=5))
