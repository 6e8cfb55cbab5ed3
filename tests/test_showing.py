"""What objects say of themselves in a notebook and on a terminal: few lines, with the figures."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import longplay as lp
from longplay.decisions import Contexts, Decisions, Frozen
from longplay.lake import Lake
from longplay.policies.generative_policy import Generative
from longplay.policies.simple import Popular, Uniform
from longplay.world import World

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HABIT = lp.Signal(
    "habit",
    entry=lp.discovery(novel_for=14),
    measure=lp.days_with("creator") >= 2,
    window=(1, 10),
)


@pytest.fixture(scope="module")
def world() -> World:
    world = World(users=80, items=40, seed=5)
    world.run(Popular(slate=5, explore=0.2), days=30)
    return world


def lines(shown: object) -> list[str]:
    return [" ".join(line.split()) for line in repr(shown).splitlines()]


def test_a_lake_says_how_many_rows_and_until_when(world: World, tmp_path: Path) -> None:
    lake = Lake.open(tmp_path / "lake")
    assert lines(lake) == [f"Lake in {tmp_path / 'lake'}", "complete before empty"]
    log = world.lake
    lake.append("log", events=log.events, items=log.items, watermark=world.now, now=world.now)
    assert lines(lake) == [
        f"Lake in {tmp_path / 'lake'}",
        f"events {log.events.height:,} rows",
        f"items {log.items.height:,} rows",
        "complete before 2026-01-31 00:00",
    ]
    view = lake.before(datetime(2026, 1, 5, tzinfo=UTC))
    assert lines(view)[0] == f"View of a lake in {tmp_path / 'lake'}"
    assert f"events {log.events.height:,} rows stored" in lines(view)
    assert "this view shows what happened before 2026-01-05 00:00" in lines(view)


def test_a_lake_that_cannot_be_read_says_so_and_raises_nothing(
    world: World, tmp_path: Path
) -> None:
    lake = Lake.open(tmp_path / "lake")
    lake.append("log", events=world.lake.events, watermark=world.now, now=world.now)
    for file in (tmp_path / "lake" / "events").glob("*.parquet"):
        file.unlink()
    again = Lake.open(tmp_path / "lake")
    assert "missing" in repr(again) or "damaged" in repr(again)
    assert "cannot be read" in again._repr_html_()


def test_contexts_and_decisions_are_counted() -> None:
    contexts = Contexts.of(
        ["u1", "u2", "u1"], NOON, slots=3, history=[["i1"], ["i1", "i2"], []], surface="shelf"
    )
    assert str(contexts) == (
        "3 contexts of 2 users, 2026-03-01, on shelf; 3 slots, up to 2 items of history"
    )
    slates = pl.Series([["i1", "i2"], ["i3", "i1"], ["i2", "i3"]])
    decisions = Decisions.of(contexts, slates, np.log([[0.5, 0.1], [0.5, 0.1], [0.5, 0.1]]), "p@1")
    assert str(decisions) == ("3 decisions, 6 slots, by p@1; mean probability of a slot 0.3")
    assert repr(decisions) == f"Decisions({decisions})"
    assert str(Decisions.none()) == "no decisions"
    assert str(Contexts(contexts.frame.clear())) == "no contexts"


def test_a_world_says_who_is_there_and_what_was_lived(world: World) -> None:
    alive = world.users["alive"].sum()
    page = world._repr_html_()
    assert f"80, {alive} of them still there" in page
    assert "2026-01-31, 30 days lived" in page
    assert f"{world.items.height} released of 40" in page


def test_simple_policies_say_what_they_choose_from(world: World) -> None:
    assert "not fitted" in Uniform()._repr_html_()
    assert f"{world.items.height} can be shown" in Uniform().fit(world.lake)._repr_html_()
    popular = Popular(explore=0.25).fit(world.lake)
    page = popular._repr_html_()
    assert popular.name in page
    assert "25% of slots" in page
    assert f"{popular.plays.sum():,.0f}" in page
    assert popular.index.ids[int(np.argmax(popular.plays))] in page
    assert popular.name in Frozen(popular)._repr_html_()
    assert lines(lp.Page({"top": popular}, {"top": 3}))[1:] == [f"top 3 slots by {popular.name}"]


def test_a_generative_policy_is_a_few_lines(world: World) -> None:
    policy = Generative(steps=2, exclude="creator")
    assert lines(policy) == [
        "generative, not fitted",
        "scale tiny",
        "history reads the last 19 items",
        "exclusions items of creators engaged with are excluded",
        "slate 5 slots",
    ]
    trained = policy.fit(world.lake)
    shown = lines(trained)
    assert len(shown) <= 10
    assert shown[0] == trained.name
    assert f"parameters {trained.decoder.model.num_parameters():,}" in shown
    codebook = trained.codebook
    assert codebook is not None
    assert (
        f"codes {codebook.levels} levels of {codebook.width} for {len(codebook.items)} items, "
        f"{codebook.available.sum()} of them available"
    ) in shown
    assert any(line.startswith("trained 2 steps; loss ") for line in shown)


def test_alarms_are_shown() -> None:
    policy = Generative(alarms=("coverage@10 fell by half",))
    assert lines(policy)[-1] == "ALARM coverage@10 fell by half"


def test_rewards_say_weights_guardrails_and_caution(world: World) -> None:
    reward = lp.Reward({HABIT: 2.0}, guardrails={lp.coverage(): 0.9}, caution=0.5)
    assert repr(reward) == f"Reward({reward})"
    page = reward._repr_html_()
    for text in (f"2 x {HABIT.label}", "at least 90% of the start", "0.5 std of belief"):
        assert text in page
    assert "not fitted" in lp.ProgressiveReward(HABIT)._repr_html_()
    early = lp.ProgressiveReward(HABIT).fit(world.lake, HABIT.outcomes(world.lake))
    assert str(early.learnt) in early._repr_html_()
    belief = early.items(world.lake.items["item_id"])
    assert repr(belief) == f"Belief({belief})"
    assert "\n" not in repr(belief)
