"""Every way to narrow a measure or an entry, and every new measure, equals the plain loop on a
nasty log through every road: in memory, in files, in the store that is updated at night, and
summed per enrolled user."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from reference import (
    CREATORS,
    DAY,
    EARLIEST,
    LEAP,
    MICRO,
    Log,
    Row,
    decisions_frame,
    entries_of,
    events_frame,
    refused,
)
from test_enrolled import enrolled_at, reference
from test_store import in_memory, rows_of

from longplay.errors import ConfigError
from longplay.lake import Lake
from longplay.lake.schema import KINDS, ORIGINS
from longplay.signals import (
    Entry,
    Measure,
    Signal,
    active_days,
    active_weeks,
    amount,
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
    sessions,
    skips,
    time_to_return,
    user_day,
)
from longplay.signals.engine import coded_events
from longplay.signals.outcomes.enrolled_sums import enrolled_sums
from longplay.signals.outcomes.in_files import write_outcomes
from longplay.signals.store.signal_store import SignalStore

OTHER_SEEDS = [pytest.param(seed, marks=pytest.mark.slow) for seed in (2, 3)]

ODD = "caf\u00e9 'one'"  # a surface that no SQL may take for its own
DECLARED: tuple[tuple[Entry, Measure, tuple[int, int]], ...] = (
    (enrolment(), active_weeks(), (1, 20)),
    (enrolment(), active_weeks() >= 2, (3, 25)),
    (discovery(7), active_weeks("creator", surface="home"), (1, 15)),
    (user_day(), active_weeks(event="save") <= 1, (1, 28)),
    (enrolment(), distinct("creator"), (0, 28)),
    (user_day(dormant_for=2), distinct("item", event="play", surface=ODD), (1, 9)),
    (user_day(), distinct("creator", seconds=60) <= 1, (0, 7)),
    (discovery(3, "item"), skips("item") <= 0, (0, 7)),
    (enrolment(), active_days() <= 4, (1, 14)),
    (enrolment(), (plays() / sessions()) <= 1.5, (1, 14)),
    (user_day(), minutes().above_baseline(3) <= 2, (1, 5)),
    (enrolment(), active_days(event="play", surface="home", seconds=20.0), (1, 28)),
    (user_day(), active_days(seconds=20).above_baseline(5), (1, 7)),
    (user_day(), returned(surface=ODD), (1, 3)),
    (discovery(28), days_with("creator", surface="home", seconds=30) >= 2, (1, 28)),
    (exposure("item"), days_with("item", event="visit"), (1, 14)),
    (discovery(28), time_to_return("creator", event="like"), (2, 20)),
    (enrolment(), habits("creator", 2, surface="search"), (1, 28)),
    (enrolment(), minutes(event="play", surface=ODD), (0, 28)),
    (discovery(28, "item"), plays("item", surface="home") >= 1, (1, 14)),
    (user_day(), count("visit", surface="search", seconds=20), (1, 14)),
    (discovery(28), completion("creator", surface="home"), (0, 14)),
    (discovery(28), plays("creator", seconds=20) / days_with("creator", surface="home"), (1, 9)),
    (enrolment(), amount("play"), (0, 28)),
    (discovery(28), amount("play", "creator", surface=ODD) >= 0.3, (0, 14)),
    (user_day(), amount("purchase") <= 2.5, (1, 14)),
    (user_day(), amount("play") / sessions(), (1, 7)),
    (user_day(), amount("play", surface="home").above_baseline(3), (1, 7)),
    (discovery(28, "item"), amount("refund", "item"), (0, 28)),
    (event("play", origin="organic"), plays(), (1, 7)),
    (event("play", "creator", surface=ODD), days_with("creator") >= 1, (1, 14)),
    (event("save", "item", 2, origin="recommended", surface="home"), plays("item"), (1, 7)),
    (event("skip", novel_for=7, surface="search"), returned(), (1, 7)),
)
SIGNALS = tuple(Signal(f"s{n:02}", *declared) for n, declared in enumerate(DECLARED))
SUMMED = tuple(
    signal for signal in SIGNALS if not signal.measure.is_ratio and signal.measure.baseline is None
)


def nasty_log(seed: int) -> Log:
    """220 events of 5 users in 45 days, with ties, late arrivals and every kind of missing value."""
    rng = np.random.default_rng(seed)
    moments = (
        *(timedelta(0), MICRO, timedelta(hours=12), timedelta(hours=12, minutes=30)),
        *(DAY - timedelta(minutes=20), DAY - MICRO),
    )

    def one(values: tuple[Any, ...]) -> Any:
        return values[int(rng.integers(len(values)))]

    events: list[Row] = []
    for number in range(220):
        time = LEAP + int(rng.integers(45)) * DAY + one(moments)
        item = one((None, *CREATORS))
        events.append(
            {
                "event_id": f"e{rng.integers(9)}-{number}",
                "user_id": f"u{rng.integers(5)}",
                "item_id": item,
                "creator_id": CREATORS.get(item) if rng.random() < 0.7 else one((None, "c1", "c9")),
                "kind": one(("play", "play", "play", *KINDS)),
                "time": time,
                "seconds": one((None, 0.0, 19.999999, 20.0, 30.0, 60.0, 3600.5)),
                "surface": one((None, "home", "home", "search", ODD)),
                "origin": one(("organic", *ORIGINS)),
                "decision_id": None,
                "slot": None,
                "amount": one((None, 0.0, 0.1, 0.1, 2.5, 19.99, 1e6)),
                "ingested_at": time + one((timedelta(0), timedelta(0), MICRO, 3 * DAY)),
            }
        )
    # of everything that a signal declares there is something, or the log would be refused
    for number, (kind, origin) in enumerate((("save", "recommended"), ("play", "organic"))):
        witness = {"event_id": f"witness-{number}", "kind": kind, "origin": origin, "time": LEAP}
        witness |= {"item_id": "i1", "creator_id": "c1", "surface": "home", "ingested_at": LEAP}
        events.append({**events[0], **witness})
    decisions: list[Row] = []
    for number in range(6):
        time = LEAP + int(rng.integers(30)) * DAY + one(moments)
        slate = list(rng.permutation(list(CREATORS))[: int(rng.integers(4))])
        decisions.append(
            {
                "decision_id": f"d{number}",
                "context_id": f"k{number}",
                "user_id": f"u{rng.integers(6)}",
                "time": time,
                "surface": "home",
                "slate": slate,
                "log_prob": [-1.0] * len(slate),
                "policy": "p@1",
                "experiment": one((None, "trial")),
                "ingested_at": time,
            }
        )
    return Log(events, decisions, LEAP + 36 * DAY)


def in_order(rows: list[Row], columns: list[str]) -> list[Row]:
    rounded = [
        {
            name: round(row[name], 8) if isinstance(row[name], float) else row[name]
            for name in columns
        }
        for row in rows
    ]
    return sorted(rounded, key=str)


@pytest.mark.parametrize("seed", [1, *OTHER_SEEDS])
def test_in_memory_equals_the_plain_loop_day_by_day(seed: int) -> None:
    log = nasty_log(seed)
    lake = log.lake()
    for signal in SIGNALS:
        assert refused(signal, log) is None
        outcomes = signal.outcomes(lake, as_of=log.as_of)
        expected = entries_of(signal, log)
        columns = ["user_id", "time", "item_id", "creator_id", "truncated", "value"]
        columns += [name for name in ("duration", "event", "baseline") if name in expected[0]]
        found = outcomes.frame.to_dicts()
        assert in_order(found, columns) == in_order(expected, columns), str(signal)
        traces = outcomes.trace().toarray()
        as_rows = [
            {**row, "days": [(day, round(trace[day], 8)) for day in np.flatnonzero(trace)]}
            for row, trace in zip(found, traces, strict=True)
        ]
        plain = [
            {
                **row,
                "days": [(day, round(amount, 8)) for day, amount in sorted(row["trace"].items())],
            }
            for row in expected
        ]
        if signal.measure.record.is_first_day:  # a trace of all active days, the reference's too
            continue
        keys = ["user_id", "time", "item_id", "creator_id", "days"]
        assert in_order(as_rows, keys) == in_order(plain, keys), str(signal)


@pytest.mark.parametrize(("seed", "least"), [(1, 0), (2, 0), (3, 10**6)])
def test_files_in_one_pass_equal_memory(
    seed: int, least: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = nasty_log(seed)
    lake = log.lake()
    monkeypatch.setattr(
        coded_events, "LEAST_ROLLUPS", least
    )  # 0: events as numbers; else as they are
    written = write_outcomes(SIGNALS, lake, tmp_path, as_of=log.as_of)
    for signal in SIGNALS:
        expected = signal.outcomes(lake, as_of=log.as_of).frame
        found = pl.read_parquet(written[signal.label])
        assert rows_of(found, signal) == rows_of(expected, signal), str(signal)


@pytest.mark.parametrize("seed", [1, *OTHER_SEEDS[:1]])
def test_every_night_of_a_store_equals_memory(seed: int, tmp_path: Path) -> None:
    log = nasty_log(seed)
    lake = Lake.open(tmp_path / "lake")
    store = SignalStore(tmp_path / "store", lake, SIGNALS)
    arrived: set[int] = set()
    for night, days in enumerate((20, 34, 48)):
        end = LEAP + days * DAY
        # some rows come a night late
        events = [
            (place, row)
            for place, row in enumerate(log.events)
            if place not in arrived
            and row["ingested_at"] <= end
            and (place % 7 or row["time"] < end - 14 * DAY)
        ]
        arrived |= {place for place, _ in events}
        shown = [row for row in log.decisions if night == 0 or row["time"] >= LEAP + 20 * DAY]
        shown = [row for row in shown if (row["time"] < LEAP + 20 * DAY) == (night == 0)]
        lake.append(
            f"night {night}",
            events=events_frame([row for _, row in events]),
            decisions=decisions_frame(shown) if night < 2 and shown else None,
            items=log.items if night == 0 else None,
            watermark=end,
            earliest=EARLIEST,
        )
        store.update()
        for signal in SIGNALS:
            expected = in_memory(signal, lake)
            if expected is not None:
                assert rows_of(store.outcomes(signal), signal) == expected, str(signal)


@pytest.mark.parametrize("seed", [1, *OTHER_SEEDS[:1]])
def test_sums_per_enrolled_user_equal_the_plain_loop(seed: int) -> None:
    log = replace(nasty_log(seed), as_of=LEAP + 60 * DAY)
    lake = log.lake()
    times = {f"u{n}": LEAP + n * DAY + n * timedelta(hours=5) for n in range(6)}
    for signal in SUMMED:
        found = enrolled_sums(signal, lake, enrolled_at(times), entry_days=9, as_of=log.as_of)
        assert found.to_dicts() == reference(signal, log, times, 9), str(signal)


def test_ratios_have_no_sums_whatever_narrows_them() -> None:
    lake = nasty_log(1).lake()
    for measure in (plays(surface="home") / sessions(), completion(surface="home")):
        with pytest.raises(ConfigError, match="a ratio, of which sums mean nothing"):
            enrolled_sums(Signal("s", enrolment(), measure), lake, enrolled_at({"u1": LEAP}))
