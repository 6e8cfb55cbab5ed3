"""Ready signals: thirteen declarations, each checked by hand on one listener's half year, and drawn
in the docs as they are."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from longplay.lake import Lake
from longplay.signals import READY, Signal, ready
from longplay.signals.declare.sentence import unit
from longplay.signals.ready_signals import CATALOGUE, markdown

ROOT = Path(__file__).resolve().parents[1]
START = datetime(2026, 1, 1, tzinfo=UTC)

# day of the log, minute of the day, kind, item; the first letter of an item is its creator
LIFE = [
    (0, 600, "play", "a1"),
    (0, 605, "skip", "a1"),
    (1, 600, "play", "a1"),
    (3, 600, "play", "a1"),
    (3, 610, "play", "a2"),
    (3, 620, "play", "a2"),
    (5, 600, "save", "a1"),
    (35, 600, "play", "a1"),
    (70, 600, "play", "b1"),
    (70, 601, "skip", "c1"),
    (71, 600, "play", "b1"),
    (71, 602, "save", "b1"),
    (72, 600, "play", "b1"),
    (74, 600, "play", "b1"),
    (80, 600, "cancel", None),
]

# by day of entry (and what it is with): the outcome, counted by hand
BY_HAND = {
    "return_1d": {0: 1, 1: 0, 3: 0, 5: 0, 35: 0, 70: 1, 71: 1, 72: 0, 74: 0},
    "return_7d": {0: 1, 1: 1, 3: 1, 5: 0, 35: 0, 70: 1, 71: 1, 72: 1, 74: 0},
    "return_28d": {
        0: 1,
        1: 1,
        3: 1,
        5: 0,
        35: 0,
        70: 1,
        71: 1,
        72: 1,
        74: 0,
    },  # 35 is day 30 after 5
    "active_days_28d": {0: 3},
    "habit": {(0, "a"): 1, (35, "a"): 0, (70, "b"): 1},
    "stickiness_60d": {(0, "a"): 4, (35, "a"): 0, (70, "b"): 3},
    "lasting_discovery": {(0, "a"): 1, (35, "a"): 0, (70, "b"): 0},
    "session_depth": {0: 4 / 3, 1: 3 / 2, 3: 0, 5: None, 35: None, 70: 1, 71: 1, 72: 1, 74: None},
    "save_and_return": {(5, "a1"): 0, (71, "b1"): 1},
    "dormant_reactivation": {35: 0, 70: 1},
    "diversity_of_habits": {0: 1},
    "regret": {(0, "a1"): 1, (3, "a2"): 0, (35, "a1"): 0, (70, "b1"): 0},
    "cancel_60d": {0: 0, 1: 0, 3: 0, 5: 0, 35: 1, 70: 1, 71: 1, 72: 1, 74: 1},
}


@pytest.fixture(scope="module")
def life() -> Lake:
    lake = Lake.memory()
    rows = [
        {
            "event_id": f"e{n}",
            "user_id": "u",
            "item_id": item,
            "creator_id": item and item[0],
            "kind": kind,
            "time": START + timedelta(days=day, minutes=minute),
        }
        for n, (day, minute, kind, item) in enumerate(LIFE)
    ]
    lake.append("life", events=pl.DataFrame(rows), watermark=START + timedelta(days=151))
    return lake


@pytest.mark.parametrize("name", READY)
def test_a_ready_signal_counts_what_a_hand_counts(name: str, life: Lake) -> None:
    signal = READY[name]
    of = signal.entry.of
    frame = signal.outcomes(life).frame.sort("time")
    days = [(time - START).days for time in frame["time"]]
    keys = days if of is None else list(zip(days, frame[f"{of}_id"]))
    assert dict(zip(keys, frame["value"])) == {
        key: value if value is None else pytest.approx(value)
        for key, value in BY_HAND[name].items()
    }


def test_the_catalogue_is_these_thirteen_in_this_order() -> None:
    assert list(READY) == list(BY_HAND)
    assert [signal.name for signal in ready()] == list(READY)
    assert len({signal.version for signal in ready()}) == len(READY)
    with pytest.raises(TypeError):
        READY["habit"] = READY["regret"]  # type: ignore[index]


@pytest.mark.parametrize("one", CATALOGUE, ids=lambda one: one.signal.name)
def test_a_ready_signal_says_in_one_line_each_what_it_is_for_and_how_it_misleads(one) -> None:
    for words in (one.use, one.trap):
        assert re.fullmatch(r"[A-Z][^\n|]{20,150}\.", words)
    assert Signal.from_toml(one.signal.to_toml()) == one.signal
    assert not re.search(r"in day \d|day 0 after|with that item on the same", str(one.signal))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("habit", "share"),
        ("stickiness_60d", "days"),
        ("session_depth", "plays per session"),
        ("diversity_of_habits", "creators"),
        ("active_days_28d", "days"),
        ("cancel_60d", "share"),
        ("return_1d", "share"),
    ],
)
def test_a_value_is_a_number_of_something(name: str, words: str) -> None:
    assert unit(READY[name]) == words


def test_the_docs_show_the_catalogue_as_it_is() -> None:
    page = (ROOT / "docs/signals.md").read_text()
    again = (
        "draw it anew: python -c 'from longplay.signals.ready_signals import markdown; "
        "print(markdown())'"
    )
    assert markdown() in page, (
        f"the table under 'Ready signals' in docs/signals.md is not that of the code; {again}"
    )
