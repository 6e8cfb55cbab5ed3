"""Who an empty slate enrols in an experiment: nobody where every arm shows something; everybody, in
all arms, where one arm shows nothing."""

from __future__ import annotations

from datetime import timedelta

import polars as pl
from hypothesis import assume, given
from hypothesis import strategies as st
from reference import DAY, LEAP, decisions_frame

from longplay.experiments.enrolment import enrolled_of
from longplay.lake import Lake
from longplay.lake.schema import DTYPES

Shown = tuple[str, float, str, list[str]]  # user, day, arm, slate


def lake_of(*shown: Shown) -> Lake:
    rows = [
        {
            "decision_id": f"d{number}",
            "context_id": f"k{number}",
            "user_id": user,
            "time": LEAP + day * DAY,
            "surface": "home",
            "slate": slate,
            "log_prob": [-1.0] * len(slate),
            "policy": "p@1",
            "experiment": "trial",
            "ingested_at": LEAP + day * DAY,
        }
        for number, (user, day, _, slate) in enumerate(shown)
    ]
    arms = pl.Series("arm", [arm for _, _, arm, _ in shown], dtype=DTYPES["decisions"]["arm"])
    lake = Lake.memory()
    lake.append(
        "all", decisions=decisions_frame(rows).with_columns(arms), watermark=LEAP + 40 * DAY
    )
    return lake


def enrolled(*shown: Shown) -> list[tuple[str, float, str]]:
    frame = enrolled_of(lake_of(*shown), "trial", ("a", "b"))
    return sorted(
        (user, (time - LEAP) / timedelta(days=1), arm)
        for user, time, arm in frame.select("user_id", "time", "arm").rows()
    )


def test_an_occasional_empty_slate_enrols_in_no_arm() -> None:
    shown = [
        ("u", 0.0, "a", []),
        ("u", 2.0, "a", ["i1"]),
        ("v", 0.0, "b", []),
        ("v", 3.0, "b", ["i1"]),
        ("w", 1.0, "a", []),
        ("x", 1.0, "b", []),
    ]
    assert enrolled(*shown) == [("u", 2, "a"), ("v", 3, "b")]


def test_where_an_arm_shows_nothing_at_all_empty_slates_enrol_in_every_arm() -> None:
    shown = [
        ("u", 0.0, "a", []),
        ("u", 2.0, "a", ["i1"]),
        ("w", 1.0, "a", []),
        ("v", 0.5, "b", []),
        ("v", 3.0, "b", []),
    ]
    assert enrolled(*shown) == [("u", 0, "a"), ("v", 0.5, "b"), ("w", 1, "a")]


def test_without_empty_slates_the_first_decision_enrols() -> None:
    assert enrolled(("u", 2.0, "a", ["i1"]), ("u", 1.0, "a", ["i2"]), ("v", 4.0, "b", ["i1"])) == [
        ("u", 1, "a"),
        ("v", 4, "b"),
    ]


def test_an_empty_slate_of_another_arm_is_another_arm_all_the_same() -> None:
    frame = enrolled_of(
        lake_of(("u", 0.0, "b", []), ("u", 1.0, "a", ["i1"]), ("v", 0.0, "b", ["i1"])),
        "trial",
        ("a", "b"),
    )
    assert frame.sort("user_id").select("user_id", "arm", "arms", "decisions").rows() == [
        ("u", "a", 2, 2),
        ("v", "b", 1, 1),
    ]


SHOWN = st.tuples(
    st.sampled_from("uvwx"),
    st.sampled_from((0.0, 0.5, 1.0, 2.0)),
    st.sampled_from("ab"),
    st.sampled_from(([], ["i1"])),
)


@given(st.lists(SHOWN, min_size=1, max_size=8))
def test_enrolment_is_the_same_rule_in_both_arms(shown: list[Shown]) -> None:
    """Arms named the other way round enrol the same users at the same times."""
    assume(len({(user, day) for user, day, _, _ in shown}) == len(shown))
    shows = {
        arm: any(slate for _, _, other, slate in shown if other == arm) for _, _, arm, _ in shown
    }
    expected: dict[str, tuple[float, str]] = {}
    for user, day, arm, slate in sorted(shown, key=lambda row: row[1]):
        if slate or not all(shows.values()):
            expected.setdefault(user, (day, arm))
    assert enrolled(*shown) == sorted((user, *when) for user, when in expected.items())
    other = {"a": "b", "b": "a"}
    swapped = enrolled(*((user, day, other[arm], slate) for user, day, arm, slate in shown))
    assert swapped == [(user, day, other[arm]) for user, day, arm in enrolled(*shown)]
