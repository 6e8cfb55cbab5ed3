"""Showings that tire, fashion without taste, wrong labels: the mechanics of the world `weary`, each
alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

import longplay as lp
from longplay.decisions import Frozen
from longplay.policies.simple import Uniform
from longplay.world import WORLDS, World, WorldConfig
from longplay.world.dynamics import HOME, Shown, live, play_chance, wake, weariness
from longplay.world.listeners import SHOWINGS, explore
from longplay.world.luck import Luck

NO_TASTE = {
    "match": 0.0,
    "novelty": 0.0,
    "novelty_spread": 0.0,
    "position_decay": 0.0,
    "satiety": 0.0,
}


def shown_daily(world: World, item_days: list[list[int]]) -> World:
    """The world after these items were shown to everybody, day by day, and none was played."""
    nobody = np.zeros(len(world.state), dtype=bool)
    everybody = np.arange(len(world.state))
    state = world.state
    for day, items in enumerate(item_days):
        slate = np.tile(items, (len(everybody), 1))
        shown = [Shown(HOME, everybody, slate, np.zeros(slate.shape, dtype=bool))] if items else []
        luck = Luck(1).on(everybody, day)
        taste = world.listeners.taste(day, world.config)
        state, plays = live(
            world.listeners,
            taste,
            world.market,
            wake(state, world.config),
            nobody,
            shown,
            luck,
            world.config,
        )
        assert len(plays) == 0
    world.state = state
    return world


def log_odds(chance: np.ndarray) -> np.ndarray:
    return np.log(chance / (1 - chance))


def test_a_showing_that_was_not_played_tires_by_item_by_creator_and_at_all() -> None:
    config = WorldConfig(
        weariness=0.7,
        creator_weariness=0.2,
        page_weariness=0.05,
        weariness_half_life=10.0,
        churn=0.0,
        **NO_TASTE,
    )
    fresh = World(users=3, items=12, seed=2, config=config)
    creator_I = fresh.catalogue.creator_I
    item = int(np.flatnonzero(creator_I == creator_I[0])[0])
    sibling = int(np.flatnonzero(creator_I == creator_I[0])[1])
    stranger = int(np.flatnonzero(creator_I != creator_I[0])[0])
    # two showings, 2 mornings and 1 morning ago
    tired = shown_daily(World(users=3, items=12, seed=2, config=config), [[item], [item, stranger]])

    def chance(world: World, shown: int) -> float:
        row = np.zeros(1, dtype=np.int64)
        taste = world.listeners.taste(0, config)
        state = wake(world.state, config)
        return float(
            play_chance(
                world.listeners, taste, state, world.market, row, np.array([shown]), row, config
            )[0]
        )

    two_days, one_day = 0.5**0.2, 0.5**0.1
    page = 0.05 * (two_days + 2 * one_day)
    expected = {
        item: 0.7 * (two_days + one_day) + 0.2 * (two_days + one_day) + page,
        sibling: 0.2 * (two_days + one_day) + page,
        stranger: 0.7 * one_day + 0.2 * one_day + page,
    }
    for row, loss in expected.items():
        change = log_odds(np.array(chance(fresh, row))) - log_odds(np.array(chance(tired, row)))
        assert change == pytest.approx(loss, abs=1e-6)


def test_weariness_halves_in_its_half_life_and_only_the_last_showings_are_remembered() -> None:
    config = WorldConfig(weariness=1.0, weariness_half_life=7.0, churn=0.0)
    world = shown_daily(World(users=2, items=12, seed=1, config=config), [[3]] + [[]] * 6)
    row, item = np.zeros(1, dtype=np.int64), np.array([3])
    assert weariness(
        wake(world.state, config), world.catalogue, row, item, config
    ) == pytest.approx(0.5)
    # enough later showings push it out
    later = shown_daily(world, [[0, 1, 2, 4, 5]] * (SHOWINGS // 5))
    assert weariness(wake(later.state, config), world.catalogue, row, item, config) == 0


def test_a_world_that_does_not_tire_remembers_no_showing() -> None:
    world = World(users=20, items=30)
    world.run(Uniform(), days=3)
    assert world.state.shown_RK.shape == (20, 0)
    assert replace(WorldConfig(), page_weariness=0.1).tires


def test_the_same_five_items_every_day_are_played_less_and_less_than_a_rotation() -> None:
    numbers = dict(WORLDS["weary"].numbers) | {"new_share": 0.0}
    world = World(users=400, items=60, seed=3, config=WorldConfig.of(numbers))

    def played(width: int, days: int = 40) -> np.ndarray:
        """Home plays per showing in the first and second half, of a law over the first `width` items."""
        copy = world.fork(np.arange(400))
        lake = copy.run(Frozen(Uniform().fit(_catalogue(world, width))), days=days)
        rate = (
            lake.decisions.filter(pl.col("surface") == "home")
            .explode("slate")
            .join(
                lake.events.filter(pl.col("kind") == "play").select(
                    "decision_id", slate="item_id", hit=1
                ),
                on=["decision_id", "slate"],
                how="left",
            )
            .group_by((pl.col("time") > pl.col("time").mean()).alias("late"))
            .agg(pl.col("hit").fill_null(0).mean())
            .sort("late")
        )
        return rate["hit"].to_numpy()

    same, rotation = played(5), played(60)
    assert same[1] < 0.5 * same[0]
    assert same[1] < 0.5 * rotation[1]


def _catalogue(world: World, width: int) -> lp.Lake:
    lake = lp.Lake.memory()
    lake.append(
        "catalogue", items=world.items.head(width), events=None, watermark=world.now, now=world.now
    )
    return lake


def test_fashion_makes_discoveries_follow_fame_whatever_the_taste() -> None:
    def share_of_own_genre(fashion: float) -> float:
        config = WorldConfig(fashion=fashion, new_share=0.0)
        world = World(users=4_000, items=600, seed=4, config=config)
        taste = world.listeners.taste_UD
        luck = Luck(9).on(np.arange(4_000), 0)
        creator = explore(taste, world.market, luck, config)
        return float((world.catalogue.genre_C[creator] == taste.argmax(axis=1)).mean())

    by_taste, by_fame = share_of_own_genre(0.0), share_of_own_genre(1.0)
    world = World(users=4_000, items=600, seed=4, config=WorldConfig(new_share=0.0))
    fame = world.catalogue.fame_C / world.catalogue.fame_C.sum()
    genre_fame = np.bincount(world.catalogue.genre_C, weights=fame, minlength=8)
    # without taste, the chance of the favourite genre is the fame of that genre
    expected = genre_fame[world.listeners.taste_UD.argmax(axis=1)].mean()
    assert by_fame == pytest.approx(expected, abs=0.03)
    assert by_taste > by_fame + 0.2


def test_mislabelled_is_the_share_of_plays_with_the_wrong_origin_and_changes_nothing_else() -> None:
    def life(share: float) -> pl.DataFrame:
        world = World(users=300, items=80, seed=6, config=WorldConfig(mislabelled=share))
        return world.run(Uniform(), days=20).events

    right, wrong = life(0.0), life(0.25)
    assert right.drop("origin").equals(wrong.drop("origin"))
    plays = (right["kind"] == "play") & (right["surface"] != "autoplay")
    changed = (right["origin"] != wrong["origin"]).filter(plays).mean()
    assert changed == pytest.approx(0.25, abs=0.02)
    others = ~plays & ~right["kind"].is_in(["save", "skip"])  # what follows a play has its label
    assert (right["origin"] == wrong["origin"]).filter(others).all()


def test_weary_has_rare_habits_no_shelf_and_a_tenth_of_releases_to_come() -> None:
    assert WORLDS["weary"].users >= 15_000
    world = World.named("weary", users=1_500, items=600, seed=5)
    assert 0.03 < (world.catalogue.release_I > 0).mean() < 0.2
    lake = world.run(lp.Popular(slate=5, explore=0.1), days=70)
    habit = lp.Signal(
        "habit",
        entry=lp.discovery(novel_for=28),
        measure=lp.days_with("creator") >= 3,
        window=(1, 28),
    )
    outcomes = habit.outcomes(lake)
    assert 0 < outcomes.value[outcomes.known].mean() < 0.05
    assert "new_releases" not in lake.decisions["surface"].unique()
