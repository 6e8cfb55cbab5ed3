"""What a log costs follows its events, not the years they lie apart; one event far away from all
others changes nobody else's rows."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from longplay.lake import Lake
from longplay.lake.schema import DTYPES
from longplay.signals import (
    Signal,
    active_days,
    days_with,
    discovery,
    enrolment,
    event,
    habits,
    minutes,
    plays,
    returned,
    sessions,
    skips,
    time_to_return,
    user_day,
)
from longplay.signals.engine.beginnings import SILENCE_DAYS, Beginnings
from longplay.signals.engine.calendar import BITS, ERA_WORDS, Calendar
from longplay.signals.outcomes.enrolled_sums import enrolled_sums
from longplay.signals.outcomes.in_files import BaseRate, base_rates, write_outcomes
from longplay.signals.ready_signals import READY, ready
from longplay.signals.store.signal_store import SignalStore

START = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
EARLIEST = datetime(1600, 1, 1, tzinfo=UTC)  # what a lake of these logs takes
FAR = (
    datetime(2005, 1, 1, tzinfo=UTC),
    datetime(1969, 12, 31, 23, tzinfo=UTC),
    datetime(1650, 6, 1, 12, tzinfo=UTC),
)
SEVERAL = (
    Signal("habit", discovery(28), days_with("creator") >= 2, (1, 28)),
    Signal("first", discovery(None, "item"), plays("item"), (1, 7)),
    Signal("regret", discovery(28, "item"), skips("item") >= 1, (0, 0)),
    Signal("saved", event("save", "item", 28), days_with("item"), (1, 28)),
    Signal("skipped", event("skip", novel_for=3), time_to_return(), (1, 7)),
    Signal("back", user_day(), returned(), (1, 7)),
    Signal("again", user_day(dormant_for=3), active_days(), (1, 28)),
    Signal("variety", enrolment(), habits("creator", 2), (1, 28)),
    Signal("above", user_day(), minutes().above_baseline(28), (1, 7)),
    Signal("depth", user_day(), plays() / sessions(), (1, 7)),
    Signal("year", discovery(365), days_with("creator"), (1, 60)),
)


def log_of(events: int, days: int) -> pl.DataFrame:
    """Events of users who each do about sixty things, drawn uniformly over so many days."""
    rng = np.random.default_rng(0)
    item_E = rng.integers(0, 100, events)
    frame = pl.DataFrame(
        {
            "event_id": [f"e{n}" for n in range(events)],
            "user_id": [f"u{n}" for n in rng.integers(0, max(events // 60, 1), events)],
            "item_id": [f"i{n}" for n in item_E],
            "creator_id": [f"c{n // 10}" for n in item_E],
            "kind": rng.choice(
                ["play", "save", "skip", "visit", "cancel"], events, p=[0.8, 0.05, 0.1, 0.04, 0.01]
            ),
            "seconds": 30.0,
            "origin": rng.choice(["organic", "recommended"], events),
        }
    )
    moments = [
        START + timedelta(seconds=int(second))
        for second in np.sort(rng.integers(0, days * 86_400, events))
    ]
    return frame.with_columns(time=pl.Series(moments, dtype=DTYPES["events"]["time"]))


def stranger(moment: datetime) -> pl.DataFrame:
    """One play of somebody else."""
    row = {
        "event_id": [f"far {moment}"],
        "user_id": ["stranger"],
        "item_id": ["i1"],
        "creator_id": ["c0"],
        "kind": ["play"],
        "seconds": [30.0],
    }
    return pl.DataFrame(row).with_columns(
        origin=pl.lit("organic"), time=pl.Series([moment], dtype=DTYPES["events"]["time"])
    )


def lake_of(*events: pl.DataFrame, days: int) -> Lake:
    lake = Lake.memory()
    lake.append("all", events=pl.concat(events), watermark=START + days * DAY, earliest=EARLIEST)
    return lake


def of_others(frame: pl.DataFrame) -> pl.DataFrame:
    """Rows of everybody but the stranger, in one order."""
    return frame.filter(pl.col("user_id") != "stranger").sort(pl.all())


LOG = log_of(600, 120)


@pytest.mark.parametrize("moment", FAR)
def test_an_event_far_away_changes_nobody_elses_rows(tmp_path: Path, moment: datetime) -> None:
    near, far = lake_of(LOG, days=120), lake_of(LOG, stranger(moment), days=120)
    written = [
        write_outcomes(SEVERAL, lake, tmp_path / name)
        for lake, name in ((near, "near"), (far, "far"))
    ]
    rates = base_rates(SEVERAL, far)
    for signal in SEVERAL:
        expected, found = signal.outcomes(near).frame, signal.outcomes(far).frame
        assert of_others(found).equals(of_others(expected)), signal.name
        rate = rates[signal]
        assert isinstance(rate, BaseRate)
        assert rate.entries == found.height
        files = [of_others(pl.read_parquet(files[signal.label])) for files in written]
        assert files[0].equals(files[1]), signal.name
    assert Signal("s", discovery(28), plays(), (1, 7)).outcomes(near).frame["truncated"].any()


def test_sums_of_enrolled_users_do_not_feel_an_event_far_away() -> None:
    near, far = lake_of(LOG, days=120), lake_of(LOG, stranger(FAR[0]), days=120)
    moments = [
        START + 10 * DAY,
        START + 30 * DAY,
        datetime(2015, 1, 1, tzinfo=UTC),
    ]  # the last lies in the silence
    enrolled = pl.DataFrame(
        {"user_id": ["u0", "u1", "u2"], "time": moments},
        schema_overrides={"time": DTYPES["events"]["time"]},
    )
    for signal in (SEVERAL[0], SEVERAL[7], Signal("active", enrolment(), active_days(), (1, 28))):
        assert enrolled_sums(signal, far, enrolled).equals(enrolled_sums(signal, near, enrolled)), (
            signal.name
        )


def test_a_store_told_of_an_event_far_away_counts_only_that(tmp_path: Path) -> None:
    lake = Lake.open(tmp_path / "lake")
    lake.append("all", events=LOG, watermark=START + 120 * DAY)
    store = SignalStore(tmp_path / "store", lake, SEVERAL)
    store.update()
    before = {signal: store.outcomes(signal) for signal in SEVERAL}
    lake.append("far", events=stranger(FAR[0]), watermark=START + 120 * DAY)
    done = store.update()
    assert [len(done.rolled), len(done.late), done.users] == [1, 1, 1]
    assert (
        max(len(days) for days in done.computed.values()) <= 7
    )  # only times to return that are open yet are counted again for everybody
    fresh = SignalStore(tmp_path / "fresh", lake, SEVERAL)
    fresh.update()
    for signal in SEVERAL:
        assert of_others(store.outcomes(signal)).equals(of_others(before[signal])), signal.name
        assert store.outcomes(signal).equals(fresh.outcomes(signal)), signal.name


def test_a_store_does_nothing_for_years_without_events(tmp_path: Path) -> None:
    lake = Lake.open(tmp_path / "lake")
    lake.append("all", events=LOG, watermark=START + 120 * DAY)
    store = SignalStore(tmp_path / "store", lake, SEVERAL)
    store.update()
    later = START + 9_000 * DAY
    lake.append("later", events=stranger(later), watermark=later + DAY)
    done = store.update()
    assert len(done.rolled) == 1
    assert (
        max(len(days) for days in done.computed.values()) <= 61
    )  # the days that had not matured, and the new one
    for signal in SEVERAL:
        expected = signal.outcomes(lake).frame
        assert store.outcomes(signal).height == expected.height
        assert store.outcomes(signal)["value"].sum() == pytest.approx(expected["value"].sum())


def test_a_run_of_activity_begins_after_more_than_a_year_of_silence() -> None:
    assert Beginnings.of([0, SILENCE_DAYS]).runs == ((0, SILENCE_DAYS),)
    assert Beginnings.of([SILENCE_DAYS + 1, 0]).runs == (
        (0, 0),
        (SILENCE_DAYS + 1, SILENCE_DAYS + 1),
    )
    assert Beginnings.of([0, 500]).joined([250]).runs == ((0, 500),)
    runs = Beginnings.of([0, 10, 1_000])
    assert [runs.begun(day) for day in (-1, 0, 10 + SILENCE_DAYS, 11 + SILENCE_DAYS, 1_000)] == [
        None,
        0,
        0,
        None,
        1_000,
    ]
    assert [runs.covers(day, 28) for day in (27, 28, 1_000, 1_027, 1_028)] == [
        False,
        True,
        False,
        False,
        True,
    ]


@pytest.mark.parametrize("years", [2, 20, 2_000])
def test_words_of_a_unit_are_as_many_for_twenty_years_as_for_two(years: int) -> None:
    reach = (365, 365)
    calendar = Calendar.of(20_000 - 365 * years, 20_300, reach)
    assert calendar.words <= ERA_WORDS + 2 * (365 // BITS + 1)


def cpu(work: Callable[[], object]) -> float:
    begun = time.process_time()
    work()
    return time.process_time() - begun


def ratio(work: Callable[[Lake], object], other: Lake, lake: Lake, repeats: int = 3) -> float:
    """Median CPU of `work` on one log over that on another, taken in turn."""
    times = [(cpu(lambda: work(other)), cpu(lambda: work(lake))) for _ in range(repeats)]
    return statistics.median(second for _, second in times) / statistics.median(
        first for first, _ in times
    )


@pytest.mark.parametrize(
    "name", ["habit", "return_7d", "dormant_reactivation", "diversity_of_habits", "session_depth"]
)
def test_one_more_event_costs_at_most_twice_the_log(name: str) -> None:
    log = log_of(20_000, 120)
    near, far = lake_of(log, days=120), lake_of(log, stranger(FAR[0]), days=120)
    READY[name].outcomes(near)
    assert ratio(READY[name].outcomes, near, far) <= 2


def test_twenty_years_cost_a_few_times_what_as_many_events_of_months_do() -> None:
    near, far = lake_of(log_of(20_000, 180), days=180), lake_of(log_of(20_000, 7_600), days=7_600)

    def all_at_once(lake: Lake) -> object:
        return base_rates(list(ready()), lake)

    all_at_once(near)
    assert ratio(all_at_once, near, far) <= 6


def test_over_twenty_years_twice_the_events_cost_about_twice() -> None:
    few, many = (lake_of(log_of(events, 7_600), days=7_600) for events in (20_000, 40_000))

    def habits_of(lake: Lake) -> object:
        return READY["habit"].outcomes(lake)

    habits_of(few)
    assert ratio(habits_of, few, many) <= 3
