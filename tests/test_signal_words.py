"""What is said by mistake is answered in words: what was given, what was expected, what to do."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, cast

import numpy as np
import polars as pl
import pytest

import longplay as lp
from longplay.errors import ConfigError, LongplayError
from longplay.lake import Lake
from longplay.rewards import AutoSurrogate, DayTwo, MaturedOnly, ProgressiveReward
from longplay.signals import (
    Signal,
    active_days,
    completion,
    days_with,
    discovery,
    enrolment,
    event,
    exposure,
    habits,
    minutes,
    plays,
    returned,
    sessions,
    time_to_return,
    user_day,
)
from longplay.signals.outcomes.enrolled_sums import enrolled_sums
from longplay.signals.outcomes.in_files import base_rates, write_outcomes

HABIT = Signal("habit", discovery(), days_with("creator") >= 3)
WITH = days_with("creator")
START = datetime(2026, 1, 1, tzinfo=UTC)


def lake() -> Lake:
    rows = [("u", 0), ("u", 2), ("v", 1), ("v", 30)]
    events = pl.DataFrame(
        {
            "event_id": f"e{n}",
            "user_id": user,
            "item_id": "i",
            "creator_id": "c",
            "kind": "play",
            "time": START + timedelta(days=day),
        }
        for n, (user, day) in enumerate(rows)
    )
    made = Lake.memory()
    made.append("all", events=events, watermark=START + timedelta(days=60))
    return made


# -- thresholds
# ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: WITH == 3, "days_with('creator') == 3 given, expected days_with('creator') >= 3"),
        (
            lambda: operator.eq(3, WITH),
            "days_with('creator') == 3 given, expected days_with('creator') >= 3",
        ),
        (lambda: WITH != 3, "days_with('creator') == 3 given, expected days_with('creator') >= 3"),
        (lambda: plays() == 2.5, "plays() == 2.5 given"),
        (lambda: plays() == np.int64(2), "plays() == "),
        (lambda: plays() == True, "plays() == True given"),  # noqa: E712
        (lambda: WITH > 3, "days_with('creator') > 3 given, expected days_with('creator') >= 4"),
        (
            lambda: operator.lt(3, WITH),
            "days_with('creator') > 3 given, expected days_with('creator') >= 4",
        ),
        (
            lambda: WITH > 2.5,
            "days_with('creator') > 2.5 given, expected days_with('creator') >= 3",
        ),
        (
            lambda: habits() > 0,
            "habits('creator', days=3) > 0 given, expected habits('creator', days=3) >= 1",
        ),
        (lambda: lp.count("like", "item") > 1, "count('like', 'item') >= 2"),
        (
            lambda: minutes() > 30,
            "minutes() > 30 given, expected minutes() >= the smallest amount that is enough",
        ),
        (lambda: completion() > 0.5, "completion() >= the smallest amount"),
        (
            lambda: (plays() / sessions()) > 2,
            "(plays() / sessions()) > 2 given, expected (plays() / sessions()) >= the smallest "
            "amount",
        ),
        (lambda: plays() > float("nan"), "plays() >= the smallest amount"),
        (lambda: plays() > cast(Any, "3"), "plays() > '3' given"),
        (lambda: WITH < 3, "days_with('creator') < 3 given, expected days_with('creator') <= 2"),
        (lambda: minutes() < 3, "minutes() < 3 given, expected minutes() <= the largest amount"),
        (lambda: WITH < 0, "expected days_with('creator') <= the largest amount"),
        (lambda: operator.gt(3, WITH), "days_with('creator') < 3 given"),
        (
            lambda: 1 <= WITH <= 3,
            "expected one threshold, days_with('creator') >= 1; two bounds are two signals",
        ),
        (lambda: bool(WITH), "days_with('creator') asked whether it is true"),
        (lambda: WITH and 3, "days_with('creator') asked whether it is true"),
        (lambda: not WITH, "days_with('creator') asked whether it is true"),
        (
            lambda: operator.ge(WITH, float("nan")),
            "threshold=nan given, expected a positive number",
        ),
        (
            lambda: operator.ge(WITH, cast(Any, None)),
            "threshold=None given, expected a positive number",
        ),
        (
            lambda: operator.ge(WITH, cast(Any, plays())),
            "days_with('creator') >= plays() given, expected a positive number",
        ),
        (
            lambda: cast(Any, plays()) + plays(),
            "arithmetic of plays() and plays() given, expected a ratio of two measures",
        ),
        (lambda: 2 * cast(Any, plays()), "arithmetic of plays() and 2 given"),
        (lambda: cast(Any, plays()) - 1, "arithmetic of plays() and 1 given"),
        (lambda: 1 / cast(Any, plays()), "arithmetic of plays() and 1 given"),
        (lambda: plays() / cast(Any, 7), "another measure"),
        (lambda: cast(Any, plays()) // 3, "arithmetic of plays() and 3 given"),
        (lambda: plays() == Decimal(2), "plays() == Decimal('2') given"),
        (lambda: plays() >= 10**400, "expected a positive number"),
        (
            lambda: cast(Any, HABIT) >= 3,
            "signal habit: compared with 3, expected the threshold on its measure",
        ),
        (lambda: cast(Any, HABIT) < 3, "signal habit: compared with 3"),
        (
            lambda: Signal.from_toml(cast(Any, b"[signals.s]")),
            "a bytes given, expected TOML as text",
        ),
        (lambda: Signal.from_toml(cast(Any, None)), "None given, expected TOML as text"),
    ],
)
def test_only_at_least_is_a_threshold_and_the_error_says_what_to_write(
    make: Callable[[], object], words: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        make()
    assert words in str(refused.value)


def test_at_least_may_stand_on_the_left_and_numpy_numbers_are_numbers() -> None:
    for three in (3, 3.0, np.int64(3), np.float64(3), np.float32(3)):
        assert operator.le(three, WITH) == operator.ge(WITH, three) == (WITH >= 3)
    days = Signal(
        "s", discovery(cast(Any, np.int64(28))), WITH, cast(Any, (np.int64(1), np.int32(28)))
    )
    assert days == Signal("s", discovery(28), WITH, (1, 28))
    assert (days.version, days.to_toml()) == (
        Signal("s", discovery(28), WITH).version,
        Signal("s", discovery(28), WITH).to_toml(),
    )


def test_measures_are_compared_with_measures_and_with_nothing_else() -> None:
    assert days_with("creator") == WITH
    assert days_with("item") != WITH
    assert plays() / sessions() == plays() / sessions()
    assert plays() / sessions() != plays()
    assert plays() != "plays"
    assert plays() is not None
    assert plays() != cast(object, None)
    assert plays() != user_day()
    assert plays() in (None, user_day(), plays())
    assert len({plays(), plays(), plays("item"), WITH >= 3, WITH >= 3.0}) == 3
    assert Signal("habit", discovery(), days_with("creator") >= 3) == HABIT
    assert replace(HABIT, measure=WITH >= 2) != HABIT
    assert replace(HABIT, measure=WITH) != HABIT


# -- the parts of a signal
# ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: Signal("s", cast(Any, WITH), cast(Any, discovery())),
            "signal s: entry and measure are swapped; expected Signal(name, ",
        ),
        (
            lambda: Signal("s", cast(Any, "discovery"), WITH),
            "signal s: entry='discovery' given, expected an entry, e.g. discovery(...)",
        ),
        (
            lambda: Signal("s", cast(Any, "birth"), WITH),
            "signal s: entry='birth' given, expected an entry, e.g. discovery()",
        ),
        (
            lambda: Signal("s", cast(Any, discovery), WITH),
            "signal s: entry=discovery (not called) given",
        ),
        (lambda: Signal("s", cast(Any, None), WITH), "signal s: entry=None given"),
        (lambda: Signal("s", cast(Any, HABIT), WITH), "signal s: entry=a Signal given"),
        (lambda: Signal("s", cast(Any, plays()), plays()), "signal s: entry=a Measure given"),
        (lambda: Signal("s", cast(Any, pl.DataFrame()), WITH), "signal s: entry=a DataFrame given"),
        (
            lambda: Signal("s", user_day(), cast(Any, "returned")),
            "signal s: measure='returned' given, expected a measure, e.g. returned(...)",
        ),
        (
            lambda: Signal("s", user_day(), cast(Any, returned)),
            "signal s: measure=returned (not called) given",
        ),
        (lambda: Signal("s", user_day(), cast(Any, 3)), "signal s: measure=3 given"),
        (
            lambda: Signal("s", user_day(), cast(Any, enrolment())),
            "signal s: measure=an Entry given",
        ),
        (
            lambda: Signal("s", user_day(), returned(), cast(Any, 28)),
            "window=28 given, expected two whole days, first and last, e.g. (1, 28)",
        ),
        (
            lambda: Signal("s", user_day(), returned(), cast(Any, None)),
            "window=None given, expected two whole days",
        ),
        (
            lambda: Signal("s", user_day(), returned(), cast(Any, (1.0, 28.0))),
            "window=(1.0, 28.0) given, expected two whole days",
        ),
        (
            lambda: Signal("s", user_day(), returned(), cast(Any, ("1", "28"))),
            "window=('1', '28') given, expected two whole days",
        ),
        (
            lambda: Signal("s", user_day(), returned(), cast(Any, (1, 7, 28))),
            "window=(1, 7, 28) given, expected two whole days",
        ),
        (
            lambda: Signal("s", user_day(), returned(), cast(Any, range(1, 28))),
            "window=range(1, 28) given, expected two whole days",
        ),
        (
            lambda: Signal("s", user_day(), returned(), (28, 1)),
            "window=(28, 1) given, expected 0 <= first <= last <= 365",
        ),
        (
            lambda: Signal("s", user_day(), returned(), (-3, -1)),
            "window=(-3, -1) given, expected 0 <= first",
        ),
    ],
)
def test_a_part_that_is_another_thing_is_named(make: Callable[[], object], words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        make()
    assert words in str(refused.value)


def test_a_window_may_be_a_list() -> None:
    assert Signal("s", user_day(), returned(), cast(Any, [1, 7])) == Signal(
        "s", user_day(), returned(), (1, 7)
    )


# -- lakes, outcomes, decisions
# ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (
            lambda lake, outcomes: HABIT.outcomes(lake.events),
            "habit: a DataFrame given, expected a Lake; put its rows into one",
        ),
        (lambda lake, outcomes: HABIT.outcomes(None), "habit: None given, expected a Lake"),
        (lambda lake, outcomes: HABIT.outcomes("lake"), "habit: 'lake' given, expected a Lake"),
        (
            lambda lake, outcomes: HABIT.outcomes(lake, "2026-01-30"),
            "as_of='2026-01-30' given, expected a time in UTC",
        ),
        (
            lambda lake, outcomes: HABIT.outcomes(lake, date(2026, 1, 30)),
            "as_of=datetime.date(2026, 1, 30) given, expected a time in UTC",
        ),
        (
            lambda lake, outcomes: lp.diff(HABIT, lake, HABIT),
            "diff: a Lake given as the new version, expected a signal: diff(old, new, lake)",
        ),
        (
            lambda lake, outcomes: lp.diff(HABIT, HABIT, lake.events),
            "a DataFrame given, expected a Lake",
        ),
        (
            lambda lake, outcomes: base_rates([HABIT], lake.events),
            "a DataFrame given, expected a Lake",
        ),
        (
            lambda lake, outcomes: base_rates(HABIT, lake),
            "a Signal given, expected several signals: [signal]",
        ),
        (
            lambda lake, outcomes: base_rates([WITH], lake),
            "a Measure given, expected signals alone",
        ),
        (
            lambda lake, outcomes: write_outcomes(HABIT, lake, "nowhere"),
            "a Signal given, expected several signals: [signal]",
        ),
        (
            lambda lake, outcomes: write_outcomes([HABIT], lake.events, "nowhere"),
            "a DataFrame given, expected a Lake",
        ),
        (
            lambda lake, outcomes: lp.SignalStore("nowhere", lake, HABIT),
            "a Signal given, expected several signals: [signal]",
        ),
        (
            lambda lake, outcomes: enrolled_sums(HABIT, lake, lake),
            "enrolled: a Lake given, expected a table",
        ),
        (
            lambda lake, outcomes: outcomes.on(lake),
            "habit.on: a Lake given, expected lake.decisions",
        ),
        (
            lambda lake, outcomes: outcomes.on(lake.events),
            "habit.on: a DataFrame given, expected Decisions",
        ),
        (
            lambda lake, outcomes: lp.credit(outcomes, lake),
            "credit: a Lake given, expected lake.decisions",
        ),
        *(
            (
                lambda lake, outcomes, model=model, give=give: give(model(HABIT), lake, outcomes),
                words,
            )
            for model in (ProgressiveReward, AutoSurrogate, DayTwo, MaturedOnly)
            for give, words in (
                (
                    lambda model, lake, outcomes: model.fit(outcomes, lake),
                    "fit(outcomes, lake) given, expected fit(lake, outcomes)",
                ),
                (
                    lambda model, lake, outcomes: model.fit(outcomes, None),
                    "fit(outcomes, lake) given, expected fit(lake, outcomes)",
                ),
                (
                    lambda model, lake, outcomes: model.fit(lake.events, outcomes),
                    "a DataFrame given, expected a Lake",
                ),
                (
                    lambda model, lake, outcomes: model.fit(lake, outcomes.frame),
                    "a DataFrame as outcomes given, expected habit.outcomes(lake)",
                ),
                (
                    lambda model, lake, outcomes: model.fit(lake, HABIT),
                    "a Signal as outcomes given, expected habit.outcomes(lake)",
                ),
                (
                    lambda model, lake, outcomes: model.fit(lake, outcomes, lake),
                    "fit: a Lake given, expected lake.decisions",
                ),
                (
                    lambda model, lake, outcomes: model.observe(lake),
                    "a Lake given, expected outcomes: habit.outcomes(lake)",
                ),
                (
                    lambda model, lake, outcomes: replace(
                        model, signal=replace(HABIT, window=(1, 7))
                    ).fit(lake, outcomes),
                    "to a model of habit@",
                ),
            )
        ),
        (
            lambda lake, outcomes: ProgressiveReward("habit"),
            "signal='habit' given, expected a Signal",
        ),
        (lambda lake, outcomes: DayTwo(outcomes), "signal=an Outcomes given, expected a Signal"),
    ],
)
def test_what_is_no_lake_no_outcomes_or_in_the_wrong_order_is_named(
    ask: Callable[..., object], words: str
) -> None:
    log = lake()
    with pytest.raises(LongplayError) as refused:
        ask(log, HABIT.outcomes(log))
    assert words in str(refused.value)


# -- TOML
# --------------------------------------------------------------------------------------------------

PYTHON_ENTRIES = {
    "discovery": (discovery, {}),
    "exposure": (exposure, {}),
    "user_day": (user_day, {}),
    "enrolment": (enrolment, {}),
    "event": (lambda event_, **more: event(event_, **more), {"event": "save"}),
}
PYTHON_MEASURES = {
    **{
        kind: (getattr(lp.signals, kind), {})
        for kind in (
            "active_days",
            "returned",
            "time_to_return",
            "minutes",
            "plays",
            "saves",
            "skips",
        )
    },
    **{
        kind: (getattr(lp.signals, kind), {})
        for kind in ("cancelled", "sessions", "completion", "habits")
    },
    "days_with": (days_with, {"of": "item"}),
    "amount": (lambda event="purchase", **more: lp.amount(event, **more), {}),
    "distinct": (lp.signals.distinct, {}),
    "active_weeks": (lp.signals.active_weeks, {}),
    "count": (lambda event, **more: lp.count(event, **more), {"event": "like"}),
}


def called(make: Callable[..., Any], table: dict[str, Any]) -> Any:
    """Python's call with the keys of a table; an event's kind is the first argument of `event` and
    `count`."""
    given = dict(table)
    return make(given.pop("event"), **given) if "event" in given else make(**given)


def test_a_table_with_only_the_keys_it_must_have_is_pythons_call_with_only_such_arguments() -> None:
    from longplay.signals.declare.entry import ENTRY_KINDS
    from longplay.signals.declare.measure import MEASURE_KINDS

    assert set(PYTHON_ENTRIES) == set(ENTRY_KINDS)
    assert set(PYTHON_MEASURES) == set(MEASURE_KINDS)
    more = [
        {},
        {"of": "creator"},
        {"of": "item"},
        {"novel_for": 7},
        {"dormant_for": 7},
        {"days": 2},
    ]
    more += [{"of": "item", "novel_for": 7}, {"of": "item", "days": 2}]
    tried = 0
    for side, kinds in (("entry", PYTHON_ENTRIES), ("measure", PYTHON_MEASURES)):
        other = {"entry": "measure", "measure": "entry"}[side]
        for kind, (make, required) in kinds.items():
            for extra in more:
                table = {**required, **extra}
                try:
                    expected = called(make, table)
                except (TypeError, ConfigError):
                    continue
                for partner in (
                    ("returned", "plays")
                    if side == "entry"
                    else ("user_day", "exposure", {"kind": "exposure", "of": "item"})
                ):
                    try:
                        signal = Signal.from_mapping(
                            "s", {side: {"kind": kind, **table}, other: partner}
                        )
                    except ConfigError:  # the two do not fit each other
                        continue
                    assert getattr(signal, side) == expected
                    assert Signal.from_toml(signal.to_toml()) == signal
                    tried += 1
    assert tried > 60


def test_the_first_touch_in_the_log_is_said_by_ever() -> None:
    ever = Signal.from_toml(
        '[signals.s]\nentry = { kind = "discovery", novel_for = "ever" }\nmeasure = "returned"\n'
    )
    assert ever.entry == discovery(novel_for=None)
    assert 'novel_for = "ever"' in ever.to_toml()
    assert ever.version == Signal("s", discovery(None), returned()).version
    with pytest.raises(
        ConfigError, match="signal s: entry: novel_for='ever' given, expected 1 to 365 whole days"
    ):
        Signal.from_mapping(
            "s",
            {
                "entry": {"kind": "event", "event": "save", "novel_for": "ever"},
                "measure": "returned",
            },
        )
    with pytest.raises(ConfigError, match="novel_for='ever' given"):
        discovery(cast(Any, "ever"))


@pytest.mark.parametrize(
    "table",
    [
        {"entry": {"kind": "birth"}},
        {"entry": {"kind": 3}},
        {"entry": {"kind": ["discovery"]}},
        {"entry": {"kind": {"a": 1}}},
        {"entry": {"kind": "discovery", "of": "album"}},
        {"entry": {"kind": "discovery", "novel_for": 0}},
        {"entry": {"kind": "discovery", "novel_for": True}},
        {"entry": {"kind": "discovery", "event": "play"}},
        {"entry": {"kind": "event"}},
        {"entry": {"kind": "event", "event": "birth"}},
        {"entry": {"kind": "user_day", "of": "item"}},
        {"entry": {"kind": "user_day", "dormant_for": 1.5}},
        {"entry": {"kind": "exposure", "novel_for": 7}},
        {"measure": {"kind": "joy"}},
        {"measure": {"kind": 3}},
        {"measure": {"kind": "days_with"}},
        {"measure": {"kind": "days_with", "of": "album"}},
        {"measure": {"kind": "count"}},
        {"measure": {"kind": "habits", "days": 0}},
        {"measure": {"kind": "plays", "threshold": float("nan")}},
        {"measure": {"kind": "plays", "threshold": "3"}},
        {"measure": {"kind": "plays", "threshold": True}},
        {"measure": {"kind": "plays", "per": {"kind": "plays"}}},
        {"measure": {"kind": "plays", "per": {"kind": "joy"}}},
        {"measure": {"kind": "plays", "per": {"kind": "sessions", "of": "item"}}},
        {"measure": {"kind": "plays", "baseline": "28"}},
        {"measure": {"kind": "plays", "of": "item"}},
        {"measure": "joy"},
        {"window": 28},
        {"window": [1]},
        {"window": [28, 1]},
        {"window": [0, 7], "measure": "returned"},
        {"window": {"first": 1}},
        {"origin": "organic"},
        {"origin": ["radio"]},
        {"gameable": "yes"},
        {"gameable": True},
    ],
)
def test_every_error_of_a_table_names_the_signal(table: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"^signal comes_back: "):
        Signal.from_mapping("comes_back", {"entry": "user_day", "measure": "minutes", **table})


@pytest.mark.parametrize(
    "table",
    [
        {"entry": 3},
        {"measure": [1]},
        {"windw": 3},
        {"measure": {"kind": "plays", "per": {"of": "item"}}},
        {"entry": {}},
    ],
)
def test_an_error_of_a_key_names_the_signal_in_its_path(table: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"^signals\.comes_back\."):
        Signal.from_mapping("comes_back", {"entry": "user_day", "measure": "minutes", **table})


def test_measures_of_time_to_return_have_no_threshold_on_either_side() -> None:
    with pytest.raises(ConfigError, match="for a return within k days use returned"):
        _ = time_to_return() >= 3
    assert str(active_days().call) == "active_days()"
