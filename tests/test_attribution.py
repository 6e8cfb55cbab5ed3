"""Credits conserve to the bit and equal slow, plain Python; a learnt baseline takes what would have
come anyway; a holdout judges the rules."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

import longplay as lp
from longplay.attribution.credits import compare_rules, touches_of
from longplay.attribution.rules import (
    RULE_KINDS,
    Rule,
    apportion,
    discovery_touch,
    first_touch,
    last_touch,
    position,
    recency,
)
from longplay.attribution.unexposed import Unexposed, shown_unasked, unexposed_baseline
from longplay.decisions import Contexts, Decisions, Frozen
from longplay.errors import ConfigError, DataError
from longplay.experiments.holdout import EVERYTHING, Holdout, against_holdout
from longplay.lake import Lake
from longplay.lake.schema import DTYPES, ENGAGED
from longplay.policies.page import Page
from longplay.policies.simple import Popular, Uniform
from longplay.signals import (
    Outcomes,
    Signal,
    active_days,
    days_with,
    discovery,
    enrolment,
    event,
    exposure,
    plays,
    user_day,
)

DAY = timedelta(days=1)
START = datetime(2028, 2, 27, tzinfo=UTC)  # a leap day follows
CREATORS = {"i1": "c1", "i2": "c1", "i3": "c2", "i4": None}
HABIT = Signal(
    "habit", entry=discovery(novel_for=28), measure=days_with("creator") >= 3, window=(1, 28)
)
DAYS = Signal("days", entry=discovery(novel_for=28), measure=days_with("creator"), window=(1, 3))
ACTIVE = Signal("active", entry=enrolment(), measure=active_days(), window=(1, 28))
ABOVE = Signal("above", entry=user_day(), measure=active_days().above_baseline(2), window=(1, 3))

Row = dict[str, Any]


def play(
    user: str,
    item: str,
    time: datetime,
    origin: str = "organic",
    surface: str = "library",
    kind: str = "play",
    **more: Any,
) -> Row:
    of = {
        "user_id": user,
        "item_id": item,
        "creator_id": CREATORS[item],
        "time": time,
        "origin": origin,
        "surface": surface,
        "kind": kind,
    }
    return {**of, "decision_id": None, "slot": None, **more}


def slate(name: str, user: str, time: datetime, *items: str, surface: str = "home") -> Row:
    return {
        "decision_id": name,
        "context_id": name,
        "user_id": user,
        "time": time,
        "surface": surface,
        "slate": list(items),
    }


def lake_of(events: list[Row], decisions: list[Row], days: int = 60) -> Lake:
    lake = Lake.memory()
    numbered = [{**row, "event_id": f"e{n}"} for n, row in enumerate(events)]
    said = [{**row, "log_prob": [0.0] * len(row["slate"]), "policy": "p@1"} for row in decisions]
    items = pl.DataFrame(
        {
            "item_id": list(CREATORS),
            "creator_id": list(CREATORS.values()),
            "added_at": [START - 900 * DAY] * 4,
        }
    )
    schema = DTYPES["decisions"]
    lake.append(
        "all",
        events=pl.DataFrame(
            numbered,
            schema_overrides={
                k: DTYPES["events"][k] for k in ("time", "creator_id", "decision_id", "slot")
            },
        ),
        decisions=pl.DataFrame(said, schema_overrides={k: schema[k] for k in said[0]})
        if said
        else None,
        items=items.cast({"added_at": DTYPES["items"]["added_at"]}),
        watermark=START + days * DAY,
    )
    return lake


# -- by hand
# ---------------------------------------------------------------------------------------------


def three_touches() -> tuple[Outcomes, Lake]:
    """One discovery at noon of day 8 from the home slate of that moment; shown at days 1 and 4
    before, elsewhere; active on days 9, 10 and 12."""
    noon = START + timedelta(hours=12)
    events = [play("u", "i3", START), play("u", "i1", noon + 8 * DAY, "recommended", "home")] + [
        play("u", "i2", noon + d * DAY) for d in (9, 10, 12)
    ]
    decisions = [
        slate("a", "u", noon + 1 * DAY, "i3", "i2", surface="shelf"),
        slate("b", "u", noon + 4 * DAY, "i1"),
        slate("c", "u", noon + 8 * DAY, "i3", "i1"),
        slate("late", "u", noon + 8 * DAY + timedelta(microseconds=1), "i1"),
        slate("other", "v", noon + 7 * DAY, "i1"),
    ]
    lake = lake_of(events, decisions)
    outcomes = HABIT.outcomes(lake)
    return outcomes.where(outcomes.keys == "c1"), lake


@pytest.mark.parametrize(
    ("rule", "credits"),
    [
        (last_touch(), {"c": 1.0}),
        (first_touch(), {"a": 1.0}),
        (discovery_touch(), {"c": 1.0}),
        (position(), {"a": 0.4, "b": 0.2, "c": 0.4}),
        (position(ends=0.5), {"a": 0.5, "c": 0.5}),
        (
            recency(half_life=4.0),
            {
                "a": 2**-1.75 / (2**-1.75 + 1.5),
                "b": 0.5 / (2**-1.75 + 1.5),
                "c": 1 / (2**-1.75 + 1.5),
            },
        ),
    ],
)
def test_a_reader_can_count_what_each_rule_gives(rule: Rule, credits: dict[str, float]) -> None:
    outcomes, lake = three_touches()
    found = lp.credit(outcomes, lake.decisions, rule)
    assert dict(
        zip(found.frame["decision_id"], found.frame["credit"], strict=True)
    ) == pytest.approx(credits)
    assert found.frame["credit"].sum() == 1.0  # to the bit
    assert found.credited == found.due == 1.0
    assert found.frame.filter(pl.col("decision_id") == "c")["slot"].to_list() == (
        [1] if "c" in credits else []
    )


def test_the_lookback_counts_calendar_days_and_its_first_day_is_inside() -> None:
    outcomes, lake = three_touches()
    for lookback, names in (
        (7, ["a", "b", "c"]),
        (6, ["b", "c"]),
        (4, ["b", "c"]),
        (3, ["c"]),
        (0, ["c"]),
    ):
        assert touches_of(outcomes, lake.decisions, lookback)["decision_id"].to_list() == names
    assert lp.credit(outcomes, lake.decisions, "first_touch", lookback=6).frame[
        "decision_id"
    ].to_list() == ["b"]


def test_at_the_same_moment_the_order_is_slot_then_decision_id() -> None:
    at = START + 8 * DAY
    lake = lake_of(
        [play("u", "i3", START), play("u", "i1", at)],
        [
            slate("z", "u", at, "i1", "i3"),
            slate("y", "u", at, "i3", "i2"),
            slate("x", "u", at, "i1"),
        ],
    )
    outcomes = HABIT.outcomes(lake)
    mine = outcomes.where(outcomes.keys == "c1")
    touches = touches_of(mine, lake.decisions)
    assert touches.select("decision_id", "slot", "position", "touches").rows() == [
        ("x", 0, 1, 3),
        ("z", 0, 2, 3),
        ("y", 1, 3, 3),
    ]
    assert lp.credit(mine, lake.decisions, "last_touch").frame["decision_id"].to_list() == ["y"]


@pytest.mark.parametrize(
    ("named", "credited"),
    [
        ({"decision_id": "b", "slot": 0}, [("b", 0)]),  # not c, the last one on the event's surface
        ({"decision_id": "a", "slot": 1}, [("a", 1)]),
        ({"decision_id": "d", "slot": 2}, [("d", 2)]),
        ({"decision_id": "d", "slot": 0}, [("d", 0)]),
        (
            {"decision_id": "d"},
            [("d", 0)],
        ),  # of d's slots with c1, the one with i1, which was played
        ({"decision_id": "d", "slot": 1}, [(None, None)]),  # another creator's slot
        ({"decision_id": "early", "slot": 0}, [(None, None)]),  # 40 days back: known, and no touch
        (
            {"decision_id": "lost", "slot": 0},
            [("c", 1)],
        ),  # none of the decisions given: the last touch on the event's surface
        ({"slot": 0}, [("c", 1)]),
        (
            {"decision_id": "b", "slot": 0, "origin": "organic"},
            [("b", 0)],
        ),  # the event's word counts, whatever its origin
        ({"decision_id": "lost", "slot": 0, "origin": "organic"}, [(None, None)]),
    ],
)
def test_a_discovery_is_credited_to_the_exposure_that_its_event_names(
    named: Row, credited: list[Any]
) -> None:
    noon = START + timedelta(hours=12)
    found = {**play("u", "i1", noon + 8 * DAY, "recommended", "home"), **named}
    events = [
        play("u", "i3", START - 40 * DAY),
        found,
        *(play("u", "i2", noon + d * DAY) for d in (9, 10, 12)),
    ]
    decisions = [
        slate("early", "u", noon - 32 * DAY, "i1"),
        slate("a", "u", noon + 1 * DAY, "i3", "i2", surface="shelf"),
        slate("b", "u", noon + 4 * DAY, "i1"),
        slate("d", "u", noon + 5 * DAY, "i1", "i3", "i2", surface="shelf"),
        slate("c", "u", noon + 8 * DAY, "i3", "i1"),
    ]
    lake = lake_of(events, decisions)
    outcomes = HABIT.outcomes(lake)
    mine = lp.credit(outcomes.where(outcomes.keys == "c1"), lake.decisions)
    assert mine.frame.select("decision_id", "slot").rows() == credited
    assert mine.frame["credit"].to_list() == [1.0]
    assert mine.due == 1.0


def test_an_organic_discovery_has_no_discovery_touch_and_goes_to_nobody() -> None:
    at = START + 8 * DAY
    events = [
        play("u", "i3", START),
        play("u", "i1", at),
        *(play("u", "i1", at + d * DAY) for d in (1, 2, 3)),
    ]
    lake = lake_of(events, [slate("a", "u", at - DAY, "i1")])
    outcomes = HABIT.outcomes(lake)
    found = lp.credit(outcomes.where(outcomes.keys == "c1"), lake.decisions, "discovery_touch")
    assert found.frame.select("decision_id", "slot", "touches", "credit").rows() == [
        (None, None, None, 1.0)
    ]
    assert (found.credited, found.due) == (0.0, 1.0)
    assert (
        lp.credit(outcomes.where(outcomes.keys == "c1"), lake.decisions, "last_touch").credited
        == 1.0
    )


def test_outcomes_of_users_are_shared_by_everything_the_user_was_shown() -> None:
    noon = START + timedelta(hours=12)
    lake = lake_of(
        [play("u", "i3", noon + d * DAY) for d in range(6)],
        [slate("a", "u", noon, "i1", "i4"), slate("b", "u", noon + DAY, "i3")],
    )
    signal = Signal("back", entry=user_day(), measure=active_days(), window=(1, 3))
    outcomes = signal.outcomes(lake)
    found = lp.credit(
        outcomes.entered(noon + DAY, noon + 2 * DAY), lake.decisions, recency(half_life=1.0)
    )
    assert found.frame.select("decision_id", "slot").rows() == [("a", 0), ("a", 1), ("b", 0)]
    assert found.frame["credit"].to_list() == pytest.approx(
        [3 / 4, 3 / 4, 3 / 2]
    )  # 3 days by 1 : 1 : 2
    assert found.totals("surface")["credit"].to_list() == [3.0]


def test_immature_outcomes_have_null_credit_and_never_0() -> None:
    _, lake = three_touches()
    young = HABIT.outcomes(lake, START + 20 * DAY)
    young = young.where(young.keys == "c1")
    for kind in RULE_KINDS:
        found = lp.credit(young, lake.decisions, kind)
        assert found.frame.height >= 1
        assert found.frame["credit"].null_count() == found.frame.height
        assert (found.due, found.credited, found.totals().height) == (0.0, 0.0, 0)
        assert "1 immature" in str(found)


def test_a_declared_baseline_is_taken_off_and_said() -> None:
    noon = START + timedelta(hours=12)
    lake = lake_of(
        [play("u", "i3", noon + d * DAY) for d in (0, 1, 2, 3, 4, 8)],
        [slate("a", "u", noon + 2 * DAY, "i1"), slate("b", "u", noon + 4 * DAY, "i3")],
    )
    outcomes = ABOVE.outcomes(lake)
    found = lp.credit(outcomes, lake.decisions, "last_touch")
    assert found.entries["outcome"].to_list() == [
        None,
        None,
        2.0,
        1.0,
        0.0,
        0.0,
    ]  # days 3 and 4; day 4; none
    assert found.entries["baseline"].to_list() == [
        None,
        None,
        3.0,
        3.0,
        3.0,
        0.0,
    ]  # 2 of 2 days before, times 3 / 2
    assert found.frame["credit"].to_list() == [None, None, -1.0, -2.0, -3.0, 0.0]
    assert found.frame["decision_id"].to_list() == [None, None, "a", "a", "b", "b"]
    assert "own rate in the 2 days before" in str(found)


def test_what_cannot_be_meant_is_refused() -> None:
    outcomes, lake = three_touches()
    for given_, match in (
        (
            lambda: lp.credit(outcomes, lake.decisions, "middle_touch"),
            "rule: kind='middle_touch' given, expected one of last_touch",
        ),
        (lambda: lp.credit(outcomes, lake.decisions, 3), "rule=3 given"),  # type: ignore[arg-type]
        (
            lambda: lp.credit(outcomes, lake.decisions, lookback=-1),
            "lookback=-1 given, expected 0 to 365",
        ),
        (lambda: lp.credit(outcomes, lake.decisions, lookback=True), "lookback=True given"),
        (lambda: recency(half_life=0), "half_life=0 given"),
        (lambda: position(ends=0.6), "ends=0.6 given"),
        (lambda: Rule("last_touch", half_life=3.0), "only recency has one"),
        (lambda: Rule("recency", ends=0.3), "only position has them"),
        (
            lambda: lp.credit(ABOVE.outcomes(lake), lake.decisions, "discovery_touch"),
            "entered by user_day; expected an entry by",
        ),
        (
            lambda: unexposed_baseline(ABOVE.outcomes(lake), lake, lake.decisions),
            "only discoveries have pairs",
        ),
        (lambda: lp.credit(outcomes, lake.decisions).totals("colour"), "by='colour' given"),
        (
            lambda: lp.credit(
                outcomes, lake.decisions, baseline=Unexposed(DAYS, 28, 1, 1, 1, 1, 1, 1)
            ),
            "learn one for each signal",
        ),
    ):
        with pytest.raises(ConfigError, match=match):
            given_()
    with pytest.raises(DataError, match="1 decision ids occur twice"):
        lp.credit(outcomes, pl.concat([lake.decisions, lake.decisions.head(1)]))
    assert not discovery_touch().fits(ACTIVE)
    assert discovery_touch().fits(
        Signal("saved", entry=event("save", of="creator"), measure=plays("creator"))
    )


# -- conservation
# ------------------------------------------------------------------------------------------


@given(
    st.lists(
        st.tuples(
            st.floats(-1e300, 1e300, allow_subnormal=False)
            | st.sampled_from((0.0, 1.0, 3.0, -2.5, 1 / 3)),
            st.lists(st.floats(0, 1e9), min_size=1, max_size=12),
        ),
        min_size=1,
        max_size=6,
    ),
    st.randoms(use_true_random=False),
)
def test_parts_sum_to_the_whole_exactly_in_any_order(
    groups: list[tuple[float, list[float]]], random: Any
) -> None:
    groups = [
        (due, weights if sum(weights) > 0 else [1.0] * len(weights))
        for due, weights in groups
        if due == 0 or abs(due) > 1e-280
    ]
    due_T = np.array([due for due, weights in groups for _ in weights])
    weight_T = np.array([weight for _, weights in groups for weight in weights])
    entry_T = np.array(
        [3 * g for g, (_, weights) in enumerate(groups) for _ in weights], dtype=np.int64
    )
    part_T = apportion(due_T, weight_T, entry_T)
    for g, (due, weights) in enumerate(groups):
        parts = part_T[entry_T == 3 * g].tolist()
        for _ in range(3):
            random.shuffle(parts)
            assert sum(parts) == due
            assert (np.array(parts) * np.sign(due) >= 0).all()
        exact = [due * (weight / math.fsum(weights)) for weight in weights]
        assert part_T[entry_T == 3 * g].tolist() == pytest.approx(
            exact, rel=1e-12, abs=abs(due) * 1e-14
        )


def test_the_naive_shares_do_not_conserve() -> None:
    """What the grid is for: 1 / 49 forty-nine times is not 1."""
    assert sum([1 / 49] * 49) != 1.0
    assert apportion(np.ones(49), np.ones(49), np.zeros(49, dtype=np.int64)).sum() == 1.0


MOMENT = st.integers(0, 8 * 48).map(
    lambda half_hours: timedelta(minutes=30 * half_hours)
)  # ties and midnights are common
PLAY = st.tuples(
    st.sampled_from("uv"),
    st.sampled_from(list(CREATORS)),
    MOMENT,
    st.sampled_from(("organic", "recommended")),
    st.sampled_from(("home", "shelf")),
)
SLATE = st.tuples(
    st.sampled_from("uvw"),
    MOMENT,
    st.lists(st.sampled_from(list(CREATORS)), unique=True, max_size=4),
    st.sampled_from(("home", "shelf")),
)
SIGNALS = (
    DAYS,
    Signal(
        "item", entry=discovery(novel_for=2, of="item"), measure=days_with("item"), window=(1, 3)
    ),
    Signal("slots", entry=exposure(), measure=plays("creator"), window=(0, 2)),
    Signal("share", entry=user_day(), measure=plays() / active_days(), window=(1, 3)),
    ABOVE,
    Signal("first", entry=enrolment(), measure=active_days(), window=(1, 3)),
)


NAMED = st.fixed_dictionaries(
    {
        "decision_id": st.sampled_from((None, "d0", "d1", "d2", "lost")),
        "slot": st.none() | st.integers(0, 3),
    }
)


@given(
    st.lists(st.tuples(PLAY, NAMED), min_size=1, max_size=15),
    st.lists(SLATE, min_size=1, max_size=10),
    st.sampled_from(SIGNALS),
    st.integers(0, 4),
    st.integers(4, 14),
)
@examples(40)
def test_credits_equal_plain_loops_and_conserve(
    played: list[Any], said: list[Any], signal: Signal, lookback: int, days: int
) -> None:
    events = [
        play(user, item, START + at, origin, surface, **named)
        for (user, item, at, origin, surface), named in played
    ]
    decisions = [
        slate(f"d{n}", user, START + at, *items, surface=surface)
        for n, (user, at, items, surface) in enumerate(said)
    ]
    lake = lake_of(events, decisions, days=40)
    try:
        outcomes = signal.outcomes(lake, START + days * DAY)
    except DataError:  # e.g. exposures without a slot; the engine's tests say when
        return
    entries = list(outcomes.frame.iter_rows(named=True))
    of = signal.entry.of
    for rule in (Rule(kind) for kind in RULE_KINDS):
        if not rule.fits(signal):
            continue
        found = lp.credit(outcomes, lake.decisions, rule, lookback=lookback)
        for number, entry in enumerate(entries):
            mine = found.frame.filter(pl.col("entry") == number)
            seen = sorted(
                (row["time"], slot, row["decision_id"], row["surface"])
                for row in decisions
                for slot, item in enumerate(row["slate"])
                if row["user_id"] == entry["user_id"]
                and row["time"] <= entry["time"]
                and row["time"].date() >= entry["time"].date() - lookback * DAY
                and (
                    of is None
                    or (
                        entry[f"{of}_id"] is not None
                        and {"item": item, "creator": CREATORS[item]}[of] == entry[f"{of}_id"]
                    )
                )
            )
            assert found.entries["due"][number] == entry["value"]
            weights = plain_weights(
                rule, seen, entry, {row["decision_id"]: row["slate"] for row in decisions}
            )
            if sum(weights) == 0:
                assert mine.select("decision_id", "credit").rows() == [(None, entry["value"])]
                continue
            kept = [
                (touch, weight) for touch, weight in zip(seen, weights, strict=True) if weight > 0
            ]
            assert mine.select("time", "slot", "decision_id", "surface").rows() == [
                touch for touch, _ in kept
            ]
            if entry["value"] is None:
                assert mine["credit"].null_count() == mine.height
                continue
            assert mine["credit"].sum() == entry["value"] == mine.reverse()["credit"].sum()
            assert mine["credit"].to_list() == pytest.approx(
                [entry["value"] * weight / sum(weights) for _, weight in kept]
            )
        known = [entry["value"] for entry in entries if entry["value"] is not None]
        assert found.due == math.fsum(known)
        for by in ("exposed", ["surface", "slot"], "user_id"):
            assert math.fsum(found.totals(by)["credit"]) == pytest.approx(
                math.fsum(known), abs=1e-12
            )
        assert math.fsum(found.frame["credit"].drop_nulls()) == math.fsum(known)


def plain_weights(
    rule: Rule, seen: list[Any], entry: Row, given: dict[str, list[str]]
) -> list[float]:
    """What each touch (time, slot, decision, surface) counts; `given`: the slate of every
    decision."""
    n = len(seen)
    if rule.kind == "last_touch":
        return [float(k == n - 1) for k in range(n)]
    if rule.kind == "first_touch":
        return [float(k == 0) for k in range(n)]
    if rule.kind == "position":
        return (
            [0.5] * n if n <= 2 else [0.4 if k in (0, n - 1) else 0.2 / (n - 2) for k in range(n)]
        )
    if rule.kind == "recency":
        return [0.5 ** ((entry["time"] - touch[0]) / DAY / 7) for touch in seen]
    fitting = [
        k
        for k, touch in enumerate(seen)
        if entry["origin"] == "recommended" and touch[3] == entry["surface"]
    ]
    if entry["decision_id"] in given:
        slots = {
            "item": [
                n for n, item in enumerate(given[entry["decision_id"]]) if item == entry["item_id"]
            ],
            "slot": [entry["slot"]],
        }
        named = slots["item" if entry["slot"] is None else "slot"]
        fitting = [
            k
            for k, touch in enumerate(seen)
            if touch[2] == entry["decision_id"] and touch[1] in named
        ]
    return [float(bool(fitting) and k == fitting[-1]) for k in range(n)]


# -- the learnt baseline
# -------------------------------------------------------------------------------------


@given(st.lists(PLAY, min_size=1, max_size=25), st.lists(SLATE, max_size=12), st.integers(0, 3))
@examples(40)
def test_exposed_and_unexposed_days_and_outcomes_equal_plain_loops(
    played: list[Any], said: list[Any], lookback: int
) -> None:
    signal = Signal(
        "two", entry=discovery(novel_for=2), measure=days_with("creator"), window=(1, 2)
    )
    events = [
        play(user, item, START + at, origin, surface) for user, item, at, origin, surface in played
    ]
    decisions = [
        slate(f"d{n}", user, START + at, *items, surface=surface)
        for n, (user, at, items, surface) in enumerate(said)
    ]
    lake = lake_of(events, decisions, days=10)
    try:
        outcomes = signal.outcomes(lake)
        found = unexposed_baseline(outcomes, lake, lake.decisions, lookback=lookback, least=0)
    except DataError:
        return

    def day(row: Row) -> int:
        return (row["time"] - START).days

    active = {(row["user_id"], day(row)) for row in [*events, *decisions]}
    came_again = {
        u for u, d in active if any(v == u and other != d for v, other in active)
    }  # a user of a single day teaches nothing
    events, decisions = (
        [row for row in rows if row["user_id"] in came_again] for rows in (events, decisions)
    )
    active = {(u, d) for u, d in active if u in came_again}
    touched = {(row["user_id"], row["creator_id"], day(row)) for row in events if row["creator_id"]}
    shown = {
        (row["user_id"], CREATORS[item], day(row))
        for row in decisions
        for item in row["slate"]
        if CREATORS[item]
    }
    days = range(
        min(d for _, d in active) + 2, 10 - 2
    )  # outcomes of day 8 and later have not matured
    creators = {c for _, c, _ in touched | shown}
    risk = {
        (u, c, d)
        for u in "uvw"
        for c in creators
        for d in range(-4, 12)
        if not any((u, c, d - k) in touched for k in (1, 2))
    }
    after = {(u, c, e + k) for u, c, e in shown for k in range(lookback + 1)}
    exposed = {(u, c, e + k) for u, c, e in shown & risk for k in range(lookback + 1)}
    exposed_days = sum((u, d) in active and d in days for u, c, d in exposed)
    free_days = sum((u, d) in active and d in days for u, c, d in risk - after)
    assert (found.exposed_days, found.unexposed_days) == (exposed_days, free_days)
    entries = [
        row
        for row in outcomes.frame.iter_rows(named=True)
        if row["value"] is not None and not row["truncated"] and row["creator_id"]
    ]
    entries = [row for row in entries if row["user_id"] in came_again]
    mine = [
        (row, (row["user_id"], row["creator_id"], day(row)) in after)
        for row in entries
        if day(row) in days
    ]
    assert found.organic == sum(
        row["value"] for row, behind in mine if behind and row["origin"] == "organic"
    )
    assert found.shown == sum(
        row["value"] for row, behind in mine if behind and row["origin"] != "organic"
    )
    assert found.unexposed == sum(row["value"] for row, behind in mine if not behind)
    days_of = {u: sum((u, d) in active for d in days) for u in {u for u, _ in active}}
    edges = np.quantile([n for n in days_of.values() if n] or [0], [0.2, 0.4, 0.6, 0.8])
    fifth = {u: int(np.searchsorted(edges, n)) for u, n in days_of.items()}
    free = [(u, c) for u, c, d in risk - after if (u, d) in active and d in days]
    rate = found.unexposed / max(len(free), 1)
    if rate > 0:
        came_of = [
            (row["user_id"], row["creator_id"], row["value"]) for row, behind in mine if not behind
        ]
        of_c = {
            c: (sum(v for _, k, v in came_of if k == c) + 1)
            / (sum(k == c for _, k in free) + 1 / rate)
            for c in creators
        }
        came_g = [sum(v for u, _, v in came_of if fifth[u] == g) + 1 for g in range(5)]
        factor = [
            came_g[g] / (sum(of_c[c] for u, c in free if fifth[u] == g) + 1) for g in range(5)
        ]
        assert found.expected == pytest.approx(
            sum(factor[fifth[u]] * of_c[c] for u, c, d in exposed if (u, d) in active and d in days)
        )
    came = sum(row["value"] > 0 for row, behind in mine if not behind)
    with pytest.raises(
        DataError, match=f"only {came} outcomes above 0 of pairs that were not exposed"
    ):
        unexposed_baseline(outcomes, lake, lake.decisions, lookback=lookback, least=came + 1)


def test_organic_outcomes_are_the_baseline_first_and_harm_is_negative_credit() -> None:
    base = Unexposed(
        None,
        28,
        expected=6.0,
        organic=4.0,
        shown=20.0,
        unexposed=1,
        unexposed_days=1,
        exposed_days=1,
    )
    assert (base.organic_share, base.shown_share) == (1.0, 0.1)
    assert replace(base, expected=1.0).organic_share == 0.25
    assert replace(base, expected=1.0).shown_share == 0.0
    assert (
        replace(base, expected=44.0).shown_share == 2.0
    )  # less came of showing than would have come without


def coins(seed: int, caused: float, carried: float) -> tuple[Lake, Signal]:
    """A service of coins: 400 users, 12 creators; everybody finds each creator with chance .01 a
    day. Half of them are shown two a day, each played at once with chance `caused` and then
    followed by a day with the creator with chance `carried`; what one finds, with chance .5."""
    rng = np.random.default_rng(seed)
    users, creators, days = 400, 12, 50
    plays_, said = [], []
    known = np.full((users, creators), -99)
    for d in range(days):
        for u in range(users):
            slots = rng.permutation(creators)[:2] if d >= 10 and u % 2 else ()
            at = START + d * DAY + timedelta(seconds=int(rng.integers(40_000)))
            if len(slots):
                said.append(slate(f"d{u}-{d}", f"u{u}", at, *(f"i{c}" for c in slots)))
            found = [(c, "recommended", caused, carried) for c in slots] + [
                (c, "organic", 0.01, 0.5) for c in range(creators)
            ]
            plays_.append((f"u{u}", None, at, "organic", "visit"))
            for c, origin, chance, lasts in found:
                if d - known[u, c] > 60 and rng.random() < chance:
                    known[u, c] = d
                    plays_.append((f"u{u}", f"i{c}", at + timedelta(seconds=60), origin, "play"))
                    if rng.random() < lasts:
                        plays_.append((f"u{u}", f"i{c}", at + DAY, "organic", "play"))
    lake = Lake.memory()
    catalogue = pl.DataFrame(
        {
            "item_id": [f"i{c}" for c in range(creators)],
            "creator_id": [f"c{c}" for c in range(creators)],
            "added_at": [START] * creators,
        }
    )
    frame = pl.DataFrame(
        plays_, schema=["user_id", "item_id", "time", "origin", "kind"], orient="row"
    ).with_columns(
        creator_id="c" + pl.col("item_id").str.slice(1),
        event_id=pl.int_range(pl.len()).cast(pl.String),
        surface=pl.lit("home"),
    )
    decisions = pl.DataFrame(said).with_columns(log_prob=pl.lit([0.0, 0.0]), policy=pl.lit("p@1"))
    lake.append(
        "all",
        events=frame,
        decisions=decisions,
        items=catalogue,
        watermark=START + (days + 1) * DAY,
    )
    return lake, Signal(
        "next", entry=discovery(novel_for=None), measure=days_with("creator"), window=(1, 2)
    )


def test_where_showing_does_nothing_only_a_debiased_rule_says_so_and_where_it_does_all_it_keeps_all() -> (
    None
):
    lake, signal = coins(1, caused=0.0, carried=0.0)
    outcomes = signal.outcomes(lake)
    base = unexposed_baseline(outcomes, lake, lake.decisions, lookback=3)
    naive = lp.credit(outcomes, lake.decisions, "last_touch", lookback=3)
    less = lp.credit(outcomes, lake.decisions, "last_touch", lookback=3, baseline=base)
    assert naive.credited > 50  # all of it false: nothing that was shown was ever played
    assert abs(less.credited) < 4 * math.sqrt(naive.credited)
    lake, signal = coins(1, caused=0.5, carried=0.5)
    outcomes = signal.outcomes(lake)
    base = unexposed_baseline(outcomes, lake, lake.decisions, lookback=0)
    last = lp.credit(outcomes, lake.decisions, "last_touch", lookback=0)
    found = lp.credit(outcomes, lake.decisions, "last_touch", lookback=0, baseline=base)
    assert (
        0.9 * last.credited < found.credited < last.credited
    )  # same-day discoveries: .01 against .5


def test_a_search_page_is_not_shown_unasked() -> None:
    lake = lp.World(users=100, items=200, seed=3).run(Popular(), days=30)
    assert set(lake.decisions["surface"]) == {"home", "new_releases", "search"}
    assert set(shown_unasked(lake)["surface"]) == {"home", "new_releases"}


def test_all_rules_stand_in_one_table() -> None:
    outcomes, lake = three_touches()
    table = compare_rules(outcomes, lake.decisions)
    assert table.frame["rule"].to_list() == list(RULE_KINDS)
    assert (
        table.frame["outcome"]
        == table.frame["to_exposures"] + table.frame["to_none"] + table.frame["baseline"]
    ).all()
    assert "discovery_touch" in str(table)
    assert "<table" in table._repr_html_()
    assert "<table" in table.credits[0]._repr_html_()
    assert compare_rules(outcomes, lake.decisions, [recency(1.0), "position"]).frame.height == 2


# -- a page of rows
# --------------------------------------------------------------------------------------------


def page_of(world: lp.World) -> Page:
    place = world.items["creator_id"].rank("dense")
    top, bottom = world.items.filter(place % 2 == 0), world.items.filter(place % 2 == 1)
    nothing = world.lake.events.clear()
    return Page(
        {
            "top": Popular(explore=0.3).adapt(top, nothing),
            "bottom": Uniform().adapt(bottom, nothing),
        },
        {"top": 3, "bottom": 2},
    )


def test_a_withheld_row_leaves_the_others_as_they_were_with_exact_propensities() -> None:
    world = lp.World(users=40, items=60, seed=2)
    page = page_of(world)
    contexts = Contexts.of(world.user_ids, START, slots=5)
    whole = page.decide(contexts, np.random.default_rng(1))
    for names, kept in (
        ((), slice(0, 5)),
        (("bottom",), slice(0, 3)),
        (("top",), slice(3, 5)),
        (("top", "bottom"), slice(0, 0)),
    ):
        part = page.without(*names)
        said = part.decide(contexts, np.random.default_rng(1))
        assert said.slates.to_list() == [row[kept] for row in whole.slates.to_list()]
        assert np.allclose(
            said.log_prob.reshape(len(contexts), -1), part.log_prob(contexts, said.slates)
        )
    assert len({page.name, page.without("top").name, page.without("bottom").name}) == 3
    with pytest.raises(ConfigError, match="no row 'middle'"):
        page.without("middle")
    with pytest.raises(ConfigError, match="at least one row"):
        Page({}, {})
    twice = Page(
        {
            "a": Uniform().adapt(world.items, world.lake.events),
            "b": Uniform().adapt(world.items, world.lake.events),
        },
        {"a": 30, "b": 31},
    )
    with pytest.raises(DataError, match="hold an item twice"):
        twice.decide(Contexts.of(world.user_ids, START, slots=61), np.random.default_rng(1))


def test_a_page_that_shows_nothing_is_lived_as_if_there_were_no_policy() -> None:
    config = lp.world.WorldConfig(shelf=0.0)
    nothing, none = (lp.World(users=60, items=60, seed=2, config=config) for _ in range(2))
    lake = nothing.run(page_of(nothing).without("top", "bottom"), days=6)
    assert lake.events.equals(none.run(None, days=6).events)
    home = lake.decisions.filter(pl.col("surface") == "home")
    assert home.height > 0
    assert home["slate"].list.len().sum() == 0


@dataclass(frozen=True)
class Odd(Frozen):
    """What the page says, with the first slate changed."""

    first: tuple[str, ...] = ()

    def decide(self, contexts: Contexts, rng: np.random.Generator) -> Decisions:
        said = self.policy.decide(contexts, rng).frame
        slates, log_prob = said["slate"].to_list(), said["log_prob"].to_list()
        slates[0], log_prob[0] = list(self.first), [0.0] * len(self.first)
        return Decisions(
            said.with_columns(
                slate=pl.Series(slates, dtype=pl.List(pl.String)),
                log_prob=pl.Series(log_prob, dtype=pl.List(pl.Float64)),
            )
        )


def test_slates_that_are_too_long_double_unknown_or_short_without_a_word_are_refused() -> None:
    world = lp.World(users=60, items=60, seed=2)
    page = page_of(world)
    ids = world.items["item_id"].to_list()
    short = page.without("top")
    for policy, match in (
        (Odd(short, tuple(ids[:6])), "slates of 6 slots, some maybe with an item twice, where 5"),
        (Odd(short, (ids[0], ids[0])), "an item twice in their slate"),
        (Odd(short, ("i999999",)), "item 'i999999' is not in"),
        (Odd(page, (ids[0],)), r"slates: lengths \[1, 5\] in one call"),
    ):
        with pytest.raises(DataError, match=match):
            world.run(policy, days=1)
    world.run(Odd(short, (ids[0],)), days=1)
    with pytest.raises(DataError, match="one_step"):
        world.truth(short, HABIT, days=2, estimand="one_step", logger=page)


def test_a_shorter_slate_is_played_as_the_same_slots_of_a_longer_one() -> None:
    config = lp.world.WorldConfig(shelf=0.0)
    long, short = (lp.World(users=200, items=60, seed=2, config=config) for _ in range(2))
    whole = long.run(page_of(long), days=1).events.filter(
        (pl.col("surface") == "home") & (pl.col("kind") == "play") & (pl.col("slot") < 3)
    )
    part = short.run(page_of(short).without("bottom"), days=1).events.filter(
        (pl.col("surface") == "home") & (pl.col("kind") == "play")
    )
    assert whole.height > 20
    assert part.select("user_id", "item_id", "slot").equals(
        whole.select("user_id", "item_id", "slot")
    )


# -- against the holdout
# -----------------------------------------------------------------------------------------

PARTS = {
    "top": ("without_top", pl.col("slot") < 3),
    "bottom": ("without_bottom", pl.col("slot") >= 3),
}


def held_out(
    name: str, users: int = 2_000, seed: int = 1, before: int = 30
) -> tuple[lp.Experiment, Lake]:
    world = lp.World.named(name, users=users, items=120, seed=seed)
    world.run(None, days=before)
    page = page_of(world)
    arms = {
        "nothing": page.without("top", "bottom"),
        "without_top": page.without("top"),
        "without_bottom": page.without("bottom"),
    }
    trial = lp.Experiment(
        control=page, treatment=arms, salt=f"holdout-{seed}", shares=(0.35, 0.35, 0.15, 0.15)
    )
    return trial, world.run(trial, days=44)


@pytest.fixture(scope="module")
def default() -> tuple[lp.Experiment, Lake]:
    return held_out("default")


@pytest.fixture(scope="module")
def judged(default: tuple[lp.Experiment, Lake]) -> Holdout:
    return against_holdout(*default, HABIT, nothing="nothing", parts=PARTS)


def test_the_discovery_touch_adds_up_to_what_a_holdout_says_and_giving_nothing_does_not(
    judged: Holdout,
) -> None:
    line = judged.line("discovery_touch")
    low, high = line.effect.interval()
    assert line.within
    assert abs(line.relative) < 0.25
    assert low > 0  # so a rule that leaves everything to the baseline is outside
    assert not low <= 0.0 <= high
    assert (high - low) / 2 < 0.35 * line.effect.value  # so not everything is inside
    naive = replace(line, credit=replace(line.credit, value=2 * line.effect.value))
    assert not naive.within


def test_the_table_names_the_closest_rule_the_gap_and_every_part(judged: Holdout) -> None:
    text = str(judged)
    assert "interaction gap" in text
    assert "closest: " in text
    assert "<table" in judged._repr_html_()
    assert judged.parts == (EVERYTHING, "top", "bottom")
    for rule in judged.rules:
        parts = [judged.line(rule, part).credit.value for part in judged.parts]
        assert parts[0] == pytest.approx(parts[1] + parts[2])
        assert rule in text
    total, top, bottom = (judged.line("last_touch", part).effect.value for part in judged.parts)
    assert judged.gap is not None
    assert judged.gap.value == pytest.approx(total - top - bottom)
    with pytest.raises(ConfigError, match="no line of rule 'middle'"):
        judged.line("middle")


def test_per_user_the_effect_is_that_of_a_plain_comparison_of_the_arms(
    default: tuple[lp.Experiment, Lake],
) -> None:
    trial, lake = default
    plain = against_holdout(
        trial, lake, HABIT, nothing="nothing", rules=["last_touch"], covariates=False
    ).line("last_touch")
    read = trial.analyze(lake, [HABIT], covariates=False)
    means = next(line for line in read.lines if line.arm == "nothing").effect.means  # type: ignore[union-attr]
    assert against_holdout(trial, lake, ACTIVE, nothing="nothing").gap is None
    assert plain.effect.value == pytest.approx(means.control - means.treatment)
    assert plain.effect.std_error == pytest.approx(means.contrast().std_error)
    enrolled = trial.enrolled(lake).filter(pl.col("arm") == "control")
    outcomes = HABIT.outcomes(lake)
    credits = lp.credit(outcomes, shown_unasked(lake), "last_touch")
    ours = lake.decisions.filter(pl.col("experiment").is_not_null())["decision_id"]
    total = 0.0
    mature = enrolled.filter(
        (pl.col("time") + 14 * DAY - timedelta(microseconds=1)).dt.truncate("1d") + 29 * DAY
        <= lake.watermark
    )
    when = dict(mature.select("user_id", "time").iter_rows())
    rows = credits.frame.join(credits.entries.select("entry", entered="time"), on="entry").filter(
        pl.col("decision_id").is_in(ours.implode())
    )
    for row in rows.iter_rows(named=True):
        opened = when.get(row["user_id"])
        if opened is not None and opened <= row["entered"] < opened + 14 * DAY:
            total += row["credit"] or 0.0
    assert plain.credit.value == pytest.approx(total / mature.height)


def test_in_the_null_world_undebiased_activity_is_all_false_credit() -> None:
    trial, lake = held_out("null", users=1_000)
    found = against_holdout(trial, lake, ACTIVE, nothing="nothing")
    for rule in found.rules:
        line = found.line(rule)
        assert not line.within
        assert line.z > 10
    assert "no rule is right" in found.sentence
    # nothing was shown before, so all rules give all of it to the trial's slots, and all are
    # equally wrong
    assert not found.decides
    own = replace(ACTIVE, name="above", measure=active_days().above_baseline(28))
    less = against_holdout(trial, lake, own, nothing="nothing").line("recency")
    assert abs(less.credit.value) < 0.15 * found.line("recency").credit.value


def test_a_holdout_that_was_not_randomised_or_held_nothing_out_is_refused(
    default: tuple[lp.Experiment, Lake],
) -> None:
    trial, lake = default
    for even, match in (
        (False, "not randomised as declared.*sample ratio"),
        (True, "not randomised as declared.*assignment"),
    ):
        with pytest.raises(DataError, match=match):
            against_holdout(
                trial,
                with_decisions(lake, chosen_by_activity(trial, lake, even)),
                HABIT,
                nothing="nothing",
            )
    with pytest.raises(
        DataError, match=r"'without_top' was shown .* slots of what it should withhold"
    ):
        against_holdout(trial, lake, HABIT, nothing="without_top")
    with pytest.raises(
        DataError, match=r"'without_top' was shown .* slots of what it should withhold"
    ):
        against_holdout(
            trial,
            lake,
            HABIT,
            nothing="nothing",
            parts={"top": ("without_top", pl.col("slot") >= 3)},
        )
    with pytest.raises(DataError, match="is no slot of the control's"):
        against_holdout(
            trial,
            lake,
            HABIT,
            nothing="nothing",
            parts={"top": ("without_top", pl.col("slot") > 9)},
        )
    with pytest.raises(ConfigError, match="arm 'none' given, expected one of nothing"):
        against_holdout(trial, lake, HABIT, nothing="none")
    with pytest.raises(DataError, match=r"not enough to learn a baseline.*debias=False"):
        against_holdout(
            trial,
            lake.before(lake.watermark),
            replace(HABIT, entry=discovery(novel_for=60)),
            nothing="nothing",
        )
    with pytest.raises(DataError, match="are mature"):
        against_holdout(trial, lake, HABIT, nothing="nothing", as_of=lake.watermark - 10 * DAY)


def chosen_by_activity(trial: lp.Experiment, lake: Lake, even: bool) -> pl.DataFrame:
    """The log as if the busiest users had been put into the control; `even`: and the others into
    the other arms in the declared shares."""
    ours = pl.col("experiment") == trial.label
    counts = (
        lake.decisions.filter(ours)
        .group_by("user_id")
        .len()
        .sort("len", "user_id", descending=[True, False])
    )
    edges = np.cumsum(trial.shares)[:-1] if even else [0.35]
    number = np.searchsorted(edges, (np.arange(counts.height) + 0.5) / counts.height)
    arms = dict(zip(counts["user_id"], (trial.arm_names[k] for k in number), strict=True))
    arm = pl.col("user_id").replace_strict(arms, default=None)
    return lake.decisions.with_columns(
        arm=pl.when(ours).then(
            arm if even else pl.when(arm == "control").then(arm).otherwise("arm")
        )
    )


def with_decisions(lake: Lake, decisions: pl.DataFrame) -> Lake:
    other = Lake.memory()
    other.append(
        "again", events=lake.events, decisions=decisions, items=lake.items, watermark=lake.watermark
    )
    return other


def test_a_holdout_too_small_to_tell_says_undecided() -> None:
    trial, lake = held_out("default", users=400, seed=5)
    found = against_holdout(trial, lake, HABIT, nothing="nothing", debias=False)
    assert sum(line.within for line in found.lines) > 3  # wide: nearly everything is inside
    assert not found.decides
    assert "undecided" in found.sentence


def test_without_a_rule_discoveries_go_to_the_discovery_touch_and_users_to_recent_ones() -> None:
    outcomes, lake = three_touches()
    assert lp.credit(outcomes, lake.decisions).rule == discovery_touch()
    assert lp.credit(ACTIVE.outcomes(lake), lake.decisions).rule == recency()


def test_only_engaged_events_make_days(default: tuple[lp.Experiment, Lake]) -> None:
    assert "skip" not in ENGAGED
    lake = lake_of(
        [play("u", "i3", START), play("u", "i1", START + 8 * DAY, kind="skip")],
        [slate("a", "u", START + 8 * DAY, "i1")],
    )
    assert lp.credit(HABIT.outcomes(lake), lake.decisions).frame["decision_id"].to_list() == [None]
