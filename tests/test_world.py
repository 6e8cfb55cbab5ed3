"""The simulated service: deterministic, causal, calibrated, and with a truth that an independent
count confirms."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import FrozenInstanceError, dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from scipy import stats

from longplay.decisions import Contexts, Decisions, Policy
from longplay.errors import ConfigError, DataError, NotEstimable
from longplay.index import ItemIndex
from longplay.lake import Lake
from longplay.policies.simple import Popular, Uniform
from longplay.signals import (
    Entry,
    Signal,
    active_days,
    days_with,
    discovery,
    enrolment,
    exposure,
    minutes,
)
from longplay.world import START, WORLDS, Catalogue, World, WorldConfig
from longplay.world.catalogue import AT_ONCE, LENGTH_S, NEW_FOR, make_catalogue
from longplay.world.dynamics import HOME, RESULTS, Shown, live, play_chance, visitors, wake
from longplay.world.facts import Facts, facts
from longplay.world.listeners import ZONES, State, make_listeners
from longplay.world.luck import Luck, Stream
from longplay.world.surfaces import SHELF_SLOTS, distinct, house_lists

HABIT = Signal(
    "habit", entry=discovery(novel_for=28), measure=days_with("creator") >= 3, window=(1, 28)
)
ACTIVE = Signal("active", entry=enrolment(), measure=active_days(), window=(1, 28))
BUSY = WorldConfig(churn=0.02, new_share=0.5, new_days=40, loop=0.5, search=0.3, shelf=0.5)
TABLES = ("events", "decisions", "contexts", "items")


def by_day(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(day=(pl.col("time") - pl.lit(START)).dt.total_days())


def of_kind(lake: Lake, kind: str) -> pl.DataFrame:
    return lake.events.filter(pl.col("kind") == kind)


def home(lake: Lake) -> pl.DataFrame:
    return lake.decisions.filter(pl.col("surface") == "home")


def assert_same(one: pl.DataFrame, other: pl.DataFrame, key: str = "event_id") -> None:
    assert one.height > 0
    assert_frame_equal(one.sort(key), other.sort(key))


def per_user(world: World, events: pl.DataFrame) -> np.ndarray:
    """Number of events of each user, shape [U]."""
    counts = world.user_ids.to_frame().join(
        events.group_by("user_id").len(), on="user_id", how="left", maintain_order="left"
    )
    return counts["len"].fill_null(0).to_numpy().astype(float)


@pytest.fixture(scope="module")
def lived() -> tuple[World, Lake]:
    """1,500 users of the default world under Popular for 15 weeks: what the world is calibrated
    on."""
    world = World(users=1_500, items=600, seed=3)
    return world, world.run(Popular(slate=5, explore=0.1), days=105)


@pytest.fixture(scope="module")
def busy() -> tuple[World, Lake]:
    """300 users for 45 days in a world where much happens: releases, searches, autoplay,
    farewells."""
    world = World(users=300, items=200, seed=2, config=BUSY)
    return world, world.run(Uniform(slate=4), days=45)


# -- determinism ---------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_lake_and_another_seed_does_not() -> None:
    lakes = [
        World(users=120, items=150, seed=seed, config=BUSY).run(Popular(), days=6)
        for seed in (7, 7, 8)
    ]
    for table in TABLES:
        assert_frame_equal(getattr(lakes[0], table), getattr(lakes[1], table))
    assert not lakes[0].events.equals(lakes[2].events)
    one, other = (World(users=1, items=150, seed=seed).catalogue for seed in (7, 8))
    for name in ("depth_I", "appeal_I", "taste_ID", "fame_I", "release_I", "loop_I"):
        assert not np.array_equal(getattr(one, name), getattr(other, name)), (
            "a seed varies the catalogue too, not luck alone"
        )


@pytest.mark.parametrize(
    "make",
    [Uniform, Popular, lambda: Watcher(history=4), lambda: None],
    ids=["uniform", "popular", "watcher", "none"],
)
def test_ten_days_and_ten_more_are_twenty_days(make: Callable[[], Policy | None]) -> None:
    whole, halves = (
        World(users=120, items=200, seed=3, config=BUSY, exclude="seen") for _ in range(2)
    )
    twenty = whole.run(make(), days=20)
    halves.run(make(), days=10)
    both = halves.run(halves.policy, days=10)
    for table in TABLES:
        assert_frame_equal(getattr(twenty, table), getattr(both, table))
    assert both.watermark == whole.now == START + timedelta(days=20)


def test_the_log_is_the_same_in_a_folder_and_however_often_it_is_flushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(folder: Path | None) -> Lake:
        return World(users=80, items=150, seed=3, config=BUSY, folder=folder).run(
            Popular(slate=3), days=12
        )

    at_once = run(None)
    monkeypatch.setattr("longplay.world.service._FLUSH_ROWS", 300)
    assert at_once.events.height > 4 * 300, "so that it is flushed several times"
    for flushed in (run(None), run(tmp_path / "lake")):
        for table, key in zip(
            TABLES, ("event_id", "decision_id", "context_id", "item_id"), strict=True
        ):
            assert_same(getattr(at_once, table), getattr(flushed, table), key)
        assert flushed.watermark == at_once.watermark
    with pytest.raises(ConfigError, match="holds a lake already"):
        World(users=80, items=150, folder=tmp_path / "lake")


@pytest.mark.parametrize("shown", ["nothing", "uniform", "fixed"])
def test_adding_users_leaves_the_lives_and_the_slates_of_the_others_alone(shown: str) -> None:
    few, many = (World(users=users, items=300, seed=5, config=BUSY) for users in (150, 230))
    policy = {
        "nothing": None,
        "uniform": Uniform(),
        "fixed": Fixed(Uniform().adapt(few.items, pl.DataFrame())),
    }[shown]
    mine = pl.col("user_id").is_in(few.user_ids.implode())
    one, other = few.run(policy, days=12), many.run(policy, days=12)
    assert_same(one.events, other.events.filter(mine))
    assert_same(one.decisions, other.decisions.filter(mine), "decision_id")
    assert (home(one).height > 0) == (policy is not None)


def test_adding_users_leaves_the_times_of_long_slates_alone() -> None:
    few, many = (World(users=users, items=300, seed=5) for users in (4, 200))
    mine = pl.col("user_id").is_in(few.user_ids.implode())
    assert_same(
        few.run(Uniform(slate=12), days=8).events,
        many.run(Uniform(slate=12), days=8).events.filter(mine),
    )


def test_traits_and_luck_are_functions_of_who_and_when() -> None:
    luck, rows = Luck(5), np.array([4, 250, 17])
    assert np.array_equal(
        luck.on(rows, 9).uniform(Stream.CLICK, 3),
        luck.on(np.arange(300), 9).uniform(Stream.CLICK, 3)[rows],
    )
    config = WorldConfig(drift=1.0)
    short, long = make_listeners(10, 5, config), make_listeners(20, 5, config)
    for one in fields(short):
        assert np.array_equal(getattr(short, one.name), getattr(long, one.name)[:10]), one.name
    creators = np.arange(10)
    assert np.array_equal(
        short.liking(creators, creators, config), long.liking(creators, creators, config)
    )


def test_luck_is_uniform_and_its_streams_days_users_and_counters_are_unrelated() -> None:
    luck, users = Luck(1), np.arange(40_000)
    base = luck.on(users, 4).uniform(Stream.CLICK)
    assert stats.kstest(base, "uniform").pvalue > 1e-3
    others = [
        luck.on(users, 4).uniform(Stream.VISIT),
        luck.on(users, 4).uniform(Stream.CLICK, 1),
        luck.on(users, 5).uniform(Stream.CLICK),
        luck.on(users + 1, 4).uniform(Stream.CLICK),
        Luck(2).on(users, 4).uniform(Stream.CLICK),
        luck.on(luck.copies(users, np.zeros(40_000, dtype=np.int64)), 4).uniform(Stream.CLICK),
    ]
    for other in others:
        assert abs(np.corrcoef(base, other)[0, 1]) < 0.02


def test_a_users_liking_of_a_creator_never_changes_and_is_worth_one_on_average() -> None:
    config = WorldConfig(liking_spread=0.8)
    listeners = make_listeners(200, 5, config)
    user, creator = (one.ravel() for one in np.meshgrid(np.arange(200), np.arange(300)))
    liking = listeners.liking(user, creator, config)
    order = np.random.default_rng(0).permutation(len(user))
    assert np.array_equal(liking[order], listeners.liking(user[order], creator[order], config)), (
        "whatever else is asked for"
    )
    assert liking.mean() == pytest.approx(1.0, abs=0.02)
    assert np.log(liking).std() == pytest.approx(0.8, abs=0.01)
    assert (listeners.liking(user, creator, WorldConfig(liking_spread=0.0)) == 1).all()


# -- no event before its cause -------------------------------------------------------------------


@pytest.fixture(params=["lived", "busy"])
def logged(request: pytest.FixtureRequest) -> tuple[World, Lake]:
    return request.getfixturevalue(request.param)


def test_the_log_is_clean_and_its_ids_are_unique(logged: tuple[World, Lake]) -> None:
    _, lake = logged
    assert lake.events["event_id"].n_unique() == lake.events.height
    assert (
        lake.decisions["decision_id"].n_unique()
        == lake.decisions["context_id"].n_unique()
        == lake.decisions.height
        == lake.contexts.height
    )
    assert set(lake.decisions["context_id"]) == set(lake.contexts["context_id"])
    assert lake.quarantine.is_empty()
    assert (lake.events["seconds"].drop_nulls() > 0).all()


@pytest.mark.parametrize("surface", ["home", "new_releases", "search"])
def test_listed_plays_come_after_their_decision_and_are_of_the_item_in_that_slot(
    logged: tuple[World, Lake], surface: str
) -> None:
    _, lake = logged
    listed = lake.events.filter(
        pl.col("decision_id").is_not_null() & (pl.col("surface") == surface)
    )
    columns = [
        "decision_id",
        "slate",
        pl.col("time").alias("decided"),
        pl.col("user_id").alias("decider"),
        pl.col("surface").alias("place"),
    ]
    joined = listed.join(lake.decisions.select(columns), on="decision_id")
    assert joined.height == listed.height > 300
    assert set(joined["kind"].unique()) == {"play", "skip", "save"}
    assert (joined["time"] > joined["decided"]).all()
    assert (joined["user_id"] == joined["decider"]).all()
    assert (joined["place"] == surface).all()
    assert (
        joined.select(pl.col("slate").list.get(pl.col("slot")))["slate"] == joined["item_id"]
    ).all()
    assert joined["origin"].unique().to_list() == [
        "organic" if surface == "search" else "recommended"
    ], "who looks for it, wants it"
    plays = joined.filter(pl.col("kind") == "play")
    assert plays.select("decision_id", "slot").is_unique().all()
    if surface == "search":
        assert plays["decision_id"].is_unique().all(), "a search ends with one play"


def test_what_no_list_caused_has_no_decision(logged: tuple[World, Lake]) -> None:
    _, lake = logged
    free = lake.events.filter(pl.col("decision_id").is_null())
    assert free["slot"].null_count() == free.height
    places = free.select("kind", "surface", "origin").unique().rows()
    assert set(places) == {
        ("visit", "home", "organic"),
        ("play", "library", "organic"),
        ("skip", "library", "organic"),
        ("save", "library", "organic"),
        ("play", "autoplay", "autoplay"),
        ("cancel", "account", "organic"),
    }


def test_skips_and_saves_follow_their_play(logged: tuple[World, Lake]) -> None:
    _, lake = logged
    plays = of_kind(lake, "play").select(
        "event_id",
        "item_id",
        "user_id",
        "slot",
        pl.col("time").alias("began"),
        pl.col("seconds").alias("lasted"),
    )
    after = lake.events.filter(pl.col("kind").is_in(["skip", "save"])).with_columns(
        play=pl.col("event_id").str.head(-2)
    )
    joined = after.join(plays, left_on="play", right_on="event_id", suffix="_play")
    assert joined.height == after.height > 500
    late = (joined["time"] - joined["began"]).dt.total_microseconds() / 1e6 - joined["lasted"]
    assert late.abs().max() < 1e-5, "as it ends"
    assert (joined["item_id"] == joined["item_id_play"]).all()
    assert (joined["user_id"] == joined["user_id_play"]).all()
    assert joined["slot"].equals(joined["slot_play"])
    assert joined["play"].is_unique().all(), "nothing is both skipped and saved"


def test_autoplay_follows_a_play_of_the_same_creator_on_that_day(
    logged: tuple[World, Lake],
) -> None:
    _, lake = logged
    plays = by_day(of_kind(lake, "play"))
    auto = plays.filter(pl.col("origin") == "autoplay")
    causes = (
        plays.filter(pl.col("origin") != "autoplay")
        .group_by("user_id", "day", "creator_id")
        .agg(pl.col("time").min().alias("cause"))
    )
    joined = auto.join(causes, on=["user_id", "day", "creator_id"])
    assert joined.height == auto.height > 300
    assert (joined["time"] > joined["cause"]).all()


def test_nothing_is_played_listed_or_excluded_before_it_is_released(
    logged: tuple[World, Lake],
) -> None:
    world, lake = logged
    assert (world.catalogue.release_I > AT_ONCE).sum() > 50, "so that something is released"
    added = lake.items.select("item_id", "added_at")
    plays = of_kind(lake, "play").join(added, on="item_id")
    assert plays.height == of_kind(lake, "play").height
    assert (plays["time"] > plays["added_at"]).all()
    shown = (
        lake.decisions.select("surface", "time", pl.col("slate").alias("item_id"))
        .explode("item_id")
        .join(added, on="item_id")
    )
    assert shown.height == lake.decisions["slate"].list.len().sum()
    assert set(shown["surface"]) == {"home", "new_releases", "search"}
    assert (shown["time"] > shown["added_at"]).all()
    new = shown.filter(pl.col("surface") == "new_releases")
    assert (new["time"] - new["added_at"]).max() < timedelta(days=NEW_FOR, hours=1)  # type: ignore[operator]
    assert world.items.height == int((world.catalogue.release_I <= (world.now - START).days).sum())


def test_every_item_has_a_length_and_no_play_is_longer(logged: tuple[World, Lake]) -> None:
    _, lake = logged
    assert (lake.items["length"] == LENGTH_S).all()
    assert lake.events["seconds"].max() <= LENGTH_S  # type: ignore[operator]


def test_exclusions_name_no_item_that_is_not_released_yet() -> None:
    world = World(users=60, items=200, seed=9, config=BUSY, exclude="creator")
    contexts = world.run(Uniform(slate=2), days=8).contexts
    day_of_item = pl.DataFrame(
        {"item_id": world.catalogue.index.ids, "released": world.catalogue.release_I}
    )
    excluded = (
        by_day(contexts)
        .select("day", pl.col("exclusions").alias("item_id"))
        .explode("item_id")
        .join(day_of_item, on="item_id")
    )
    assert (excluded["released"] <= excluded["day"]).all()


def test_every_visit_is_one_session_within_its_utc_day(logged: tuple[World, Lake]) -> None:
    world, lake = logged
    events = by_day(lake.events)
    first, last = pl.col("time").min(), pl.col("time").max()
    days = events.group_by("user_id", "day").agg(
        pl.col("session_id").drop_nulls().n_unique(), (last - first).alias("length")
    )
    assert days["session_id"].max() == 1
    assert days["length"].max() < timedelta(days=1)  # type: ignore[operator]
    sessions = (
        events.filter(pl.col("kind") != "cancel")
        .sort("time")
        .group_by("session_id", maintain_order=True)
    )
    visits = (pl.col("kind") == "visit").sum()
    each = sessions.agg(
        pl.col("day", "user_id").n_unique(), visits.alias("visits"), pl.col("kind").first()
    )
    assert each.select(pl.col("day", "user_id", "visits").max()).row(0) == (1, 1, 1)
    assert (each["kind"] == "visit").all()
    assert each.height == home(lake).height
    assert lake.watermark == world.now


def test_cancelling_is_the_last_thing_a_user_does_and_only_those_who_left_do_it(
    logged: tuple[World, Lake],
) -> None:
    world, lake = logged
    ends = of_kind(lake, "cancel").select("user_id", pl.col("time").alias("end"))
    assert ends["user_id"].is_unique().all()
    gone = world.users.filter(~pl.col("alive"))["user_id"]
    assert set(ends["user_id"]) < set(gone)
    last = lake.events.group_by("user_id").agg(pl.col("time").max()).join(ends, on="user_id")
    assert (last["time"] == last["end"]).all()
    assert stats.binomtest(ends.height, len(gone), WorldConfig().subscribers).pvalue > 1e-3, (
        "subscribers cancel, the others just stay away"
    )


def test_churned_users_never_act_again() -> None:
    world = World(users=400, items=200, seed=2, config=replace(BUSY, churn=0.03))
    gone: set[str] = set()
    for _ in range(8):
        before = world.now
        lake = world.run(Uniform(), days=3)
        for table in (lake.events, lake.decisions, lake.contexts):
            assert not set(table.filter(pl.col("time") >= before)["user_id"]) & gone
        gone |= set(world.users.filter(~pl.col("alive"))["user_id"])
    assert len(gone) > 50


# -- removing exposures --------------------------------------------------------------------------


def test_without_exposures_people_still_visit_search_listen_and_discover() -> None:
    world = World(users=500, items=500, seed=4)
    lake = world.run(None, days=40)
    assert lake.decisions["surface"].unique().to_list() == ["search"]
    events = by_day(lake.events)
    assert set(events["origin"]) == {"organic", "autoplay"}
    plays, late = of_kind(lake, "play"), events.filter(pl.col("day") >= 30)
    assert late.filter(pl.col("kind") == "visit").height > 500
    heard = late.filter((pl.col("kind") == "play") & (pl.col("origin") == "organic"))
    assert heard.filter(pl.col("surface") == "library").height > 200
    before = by_day(plays).filter(pl.col("day") < 30).select("user_id", "creator_id").unique()
    new = heard.join(before, on=["user_id", "creator_id"], how="anti")
    assert new.height > 50, "new creators are found without any slate"
    assert set(new["surface"]) == {"search", "library"}, "and become habits"


def organic_rows(world: World, policy: str) -> pl.DataFrame:
    lake = world.run(None if policy == "nothing" else best(world, policy), days=30)
    assert (home(lake).height > 0) == (policy != "nothing")
    organic = lake.events.filter(pl.col("origin") == "organic")
    return organic.select(
        "event_id", "user_id", "time", "item_id", "kind", "surface", "seconds", "slot"
    ).sort("event_id")


def test_in_null_no_policy_can_move_organic_activity_and_elsewhere_it_can() -> None:
    def three(name: str) -> list[pl.DataFrame]:
        return [
            organic_rows(World.named(name, users=250, items=200), policy)
            for policy in ("nothing", "depth_I", "appeal_I")
        ]

    nothing, deep, appealing = three("null")
    assert set(nothing["kind"]) == {"visit", "play", "skip", "save", "cancel"}
    assert_same(nothing, deep)
    assert_same(nothing, appealing)
    nothing, deep, appealing = three("default")
    assert not nothing.equals(deep), "so that the test can fail"
    assert not nothing.equals(appealing)
    assert not deep.equals(appealing)


def test_in_null_showing_is_worth_exactly_nothing_in_active_days() -> None:
    for name, nothing in (("null", True), ("default", False)):
        world = World.named(name, users=100, items=100)
        world.run(None, days=3)
        out = world.items["item_id"].to_list()
        items = [[out[place % len(out)]] for place in range(100)]
        value = world.true_value(world.user_ids, items, ACTIVE, replicates=2)
        assert (value == 0).all() == nothing


def test_retention_is_not_a_function_of_the_immediate_reward() -> None:
    """With habit and satisfaction off, more appealing slates are played more, and nobody comes or
    goes for it."""
    config = WorldConfig(habit_gain=0.0, satisfaction=0.0, churn=0.01)
    lakes = []
    for policy in ("appeal_I", "dull", "depth_I"):
        world = World(users=300, items=200, seed=6, config=config)
        lakes.append(world.run(best(world, policy), days=30))
    plays = [
        lake.events.filter((pl.col("kind") == "play") & (pl.col("surface") == "home")).height
        for lake in lakes
    ]
    assert plays[0] > 1.5 * plays[1]
    for kind in ("visit", "cancel"):
        for other in lakes[1:]:
            assert_same(of_kind(lakes[0], kind), of_kind(other, kind))


def test_deep_slates_bring_more_active_days_than_appealing_ones_where_appeal_is_bait() -> None:
    active = {}
    for policy in ("depth_I", "appeal_I"):
        world = World.named("clickbait", users=500, items=300, seed=6)
        visits = by_day(of_kind(world.run(best(world, policy), days=56), "visit"))
        active[policy] = per_user(world, visits.filter(pl.col("day") >= 28))
    gain = active["depth_I"] - active["appeal_I"]
    assert gain.mean() > 4 * gain.std() / np.sqrt(500)
    assert 1.05 < active["depth_I"].mean() / active["appeal_I"].mean() < 1.6


# -- what the house shows ------------------------------------------------------------------------


def test_house_propensities_are_exactly_those_of_the_rules(busy: tuple[World, Lake]) -> None:
    """Recomputed from the catalogue, decision by decision."""
    world, lake = busy
    catalogue = world.catalogue
    house = by_day(lake.decisions.filter(pl.col("surface") != "home"))
    assert house["policy"].unique().sort().to_list() == ["new-releases@world-2", "search@world-2"]
    small = 0
    for day, slate, log_prob, surface in house.select(
        "day", "slate", "log_prob", "surface"
    ).iter_rows():
        rows = catalogue.index.rows(pl.Series(slate))
        out_I = catalogue.release_I <= day
        assert len(set(rows)) == len(rows)
        assert out_I[rows].all()
        if surface == "new_releases":
            n = int(
                (
                    out_I & (catalogue.release_I > day - NEW_FOR) & (catalogue.release_I > AT_ONCE)
                ).sum()
            )
            expected = [1 / (n - j) for j in range(SHELF_SLOTS)]
        else:
            creator, genre_I = catalogue.creator_I[rows[0]], catalogue.genre_C[catalogue.creator_I]
            works = np.flatnonzero(out_I & (catalogue.creator_I == creator))
            shelf = np.flatnonzero(out_I & (genre_I == genre_I[rows[0]]))
            if len(shelf) <= RESULTS - 1:
                shelf, small = np.flatnonzero(out_I), small + 1
            assert np.isin(rows, shelf).all()
            expected = [
                catalogue.fame_I[rows[0]] / catalogue.fame_I[works].sum(),
                *(1 / (len(shelf) - 1 - j) for j in range(RESULTS - 1)),
            ]
        assert np.exp(log_prob) == pytest.approx(expected, rel=1e-9)
    assert house.height > 2_000
    prompts = lake.contexts.filter(pl.col("surface") == "search")
    assert prompts["prompt"].null_count() == 0


def test_what_is_sought_comes_up_as_often_as_its_propensity_says(lived: tuple[World, Lake]) -> None:
    world, lake = lived
    catalogue = world.catalogue
    likely: list[
        tuple[float, bool]
    ] = []  # chance of the most famous work of the creator sought, and whether it came first
    for day, slate in (
        by_day(lake.decisions.filter(pl.col("surface") == "search"))
        .select("day", "slate")
        .iter_rows()
    ):
        sought = catalogue.index.rows(pl.Series(slate))[0]
        works = np.flatnonzero(
            (catalogue.release_I <= day) & (catalogue.creator_I == catalogue.creator_I[sought])
        )
        if len(works) > 1:
            most = works[np.argmax(catalogue.fame_I[works])]
            likely.append(
                (catalogue.fame_I[most] / catalogue.fame_I[works].sum(), bool(sought == most))
            )
    chance, hit = np.array(likely).T
    assert len(likely) > 3_000
    assert abs((hit - chance).sum()) < 4 * np.sqrt((chance * (1 - chance)).sum())


@pytest.mark.parametrize(
    "surface",
    [
        "search",
        pytest.param(
            "new_releases",
        ),
    ],
)
def test_what_the_house_draws_uniformly_is_uniform_in_every_slot(
    lived: tuple[World, Lake], surface: str
) -> None:
    world, lake = lived
    catalogue, rng = world.catalogue, np.random.default_rng(0)
    genre_I, rows_I = catalogue.genre_C[catalogue.creator_I], np.arange(len(catalogue))
    drawn_from = 1 if surface == "search" else 0  # the first slot of a search is what was sought
    places: list[
        list[float]
    ] = []  # of each slot, where its item stood among those still possible, in [0, 1)
    for day, slate in (
        by_day(lake.decisions.filter(pl.col("surface") == surface))
        .select("day", "slate")
        .iter_rows()
    ):
        rows, out_I = catalogue.index.rows(pl.Series(slate)), catalogue.release_I <= day
        among = (
            genre_I == genre_I[rows[0]]
            if surface == "search"
            else catalogue.release_I > max(day - NEW_FOR, AT_ONCE)
        )
        possible, place = rows_I[out_I & among], []
        for slot, item in enumerate(rows):
            if slot >= drawn_from:
                place.append((np.searchsorted(possible, item) + rng.random()) / len(possible))
            possible = possible[possible != item]
        places.append(place)
    assert len(places) > 5_000
    for of_slot in np.array(places).T:
        assert stats.kstest(of_slot, "uniform").pvalue > 1e-3


@pytest.mark.parametrize(("n", "k"), [(4, 3), (3, 3), (6, 2), (5, 1)])
def test_distinct_draws_every_ordered_choice_equally_often(n: int, k: int) -> None:
    draws = 24_000
    drawn = distinct(np.full(draws, n), k, Luck(n).on(np.arange(draws), k), Stream.RESULT)
    choices = {choice: at for at, choice in enumerate(itertools.permutations(range(n), k))}
    counts = np.bincount([choices[tuple(row)] for row in drawn.tolist()], minlength=len(choices))
    assert stats.chisquare(counts).pvalue > 1e-3
    mixed = np.arange(draws) % 3 + n  # each agent its own n
    several = distinct(mixed, k, Luck(n).on(np.arange(draws), k), Stream.RESULT)
    assert np.array_equal(several[mixed == n], drawn[mixed == n]), (
        "an agent's draw depends on its own n alone"
    )
    assert (several < mixed[:, None]).all()
    assert all(len(set(row)) == k for row in several.tolist())


def test_searches_follow_taste_and_novelty_and_not_what_is_shown() -> None:
    config = WorldConfig(search=0.3, novelty_spread=1.5)
    world = World(users=4_000, items=400, seed=1, config=config)
    everyone, luck = np.arange(4_000), Luck(1).on(np.arange(4_000), 0)
    taste_RD, market = world.listeners.taste(0, config), world.catalogue.market(0)
    with_shelf, without = (
        house_lists(world.listeners, taste_RD, market, everyone, 0, luck, config, shelf=one)[-1]
        for one in (True, False)
    )
    assert np.array_equal(with_shelf.row_N, without.row_N)
    assert np.array_equal(with_shelf.item_NS, without.item_NS)
    searched = np.isin(everyone, without.row_N)
    curious = world.listeners.novelty_U > np.median(world.listeners.novelty_U)
    assert searched[curious].mean() > searched[~curious].mean() + 0.1
    favourite = (
        taste_RD[without.row_N].argmax(axis=1)
        == world.catalogue.genre_C[world.catalogue.creator_I[without.item_NS[:, 0]]]
    )
    assert favourite.mean() > 0.4 > 2 / config.genres


# -- names and rows mean nothing -----------------------------------------------------------------


def relabelled(catalogue: Catalogue, seed: int) -> Catalogue:
    """The same creators and items under other ids, in another order."""
    rng = np.random.default_rng(seed)
    creators = rng.permutation(len(catalogue.creators))
    rows = np.concatenate(
        [catalogue.first_C[c] + rng.permutation(catalogue.count_C[c]) for c in creators]
    )
    count_C = catalogue.count_C[creators]
    creator_I = np.repeat(np.arange(len(creators)), count_C)
    return replace(
        catalogue,
        frame=catalogue.frame[rows].with_columns(
            catalogue.index.ids, catalogue.creators.gather(creator_I).alias("creator_id")
        ),
        index=ItemIndex(catalogue.index.ids),
        names=catalogue.names.gather(creators),
        creator_I=creator_I,
        **{
            name: getattr(catalogue, name)[rows]
            for name in ("taste_ID", "appeal_I", "depth_I", "loop_I", "release_I", "fame_I")
        },
        **{name: getattr(catalogue, name)[creators] for name in ("taste_CD", "fame_C", "genre_C")},
        first_C=np.concatenate([[0], np.cumsum(count_C)[:-1]]),
        count_C=count_C,
    )


def test_relabelling_the_catalogue_changes_nothing_in_aggregate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def measured(change: Callable[[Catalogue, int], Catalogue]) -> np.ndarray:
        """Visits, plays of slates, organic plays, searches' plays and habit of each user, over
        three worlds; shape [U, 5]."""
        monkeypatch.setattr(
            "longplay.world.service.make_catalogue",
            lambda items, seed, config: change(make_catalogue(items, seed, config), seed),
        )
        columns = []
        for seed in (1, 2, 3):
            world = World(
                users=400, items=300, seed=seed, config=WorldConfig(new_share=0.3, search=0.2)
            )
            lake = world.run(Uniform(slate=5), days=30)
            plays = of_kind(lake, "play")
            kinds = [
                plays.filter(pl.col("surface") == surface)
                for surface in ("home", "library", "search")
            ]
            columns.append(
                np.stack(
                    [
                        per_user(world, of_kind(lake, "visit")),
                        *(per_user(world, one) for one in kinds),
                        world.state.habits,
                    ],
                    axis=1,
                )
            )
        return np.concatenate(columns)

    def z(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        gap = other - one
        return np.abs(gap.mean(axis=0)) / (gap.std(axis=0) / np.sqrt(len(gap)))

    as_made = measured(lambda catalogue, seed: catalogue)
    assert (z(as_made, measured(relabelled)) < 4).all()
    richer = measured(lambda catalogue, seed: replace(catalogue, depth_I=catalogue.depth_I * 1.3))
    assert z(as_made, richer).max() > 4, "so that the test can fail"


# -- what real logs look like --------------------------------------------------------------------


def test_the_default_world_has_the_facts_of_real_logs(lived: tuple[World, Lake]) -> None:
    found = facts(lived[1])
    assert found.discoveries > 3_000
    assert 0.25 <= found.day_two_correlation <= 0.45
    assert 0.08 <= found.return_30_59 <= 0.20
    assert found.first_days_explain > 0.5
    assert max(found.weekday) / min(found.weekday) > 1.03
    assert int(np.argmax(found.weekday)) in (4, 5, 6), "the weekend is the peak"
    assert found.convex
    assert 0.5 < found.retention[-1] < found.retention[0] < 1
    assert "convex" in str(found)
    assert Facts(**found.as_json()) == found
    assert list(found.explained) == sorted(found.explained)
    assert found.explained[-1] == pytest.approx(1.0)  # all days are the whole


def test_rates_are_those_of_a_plausible_service(lived: tuple[World, Lake]) -> None:
    world, lake = lived
    visits, plays = of_kind(lake, "visit"), of_kind(lake, "play")
    assert 0.25 < visits.height / len(world.user_ids) / 105 < 0.50
    assert 1.5 < plays.height / visits.height < 5
    assert 0.70 < world.state.alive_R.mean() < 0.95
    share = dict(plays.group_by("origin").len().rows())
    assert 0.05 < share["autoplay"] / plays.height < 0.25
    assert share["organic"] > share["recommended"]
    skips = of_kind(lake, "skip")
    assert 0.03 < skips.height / plays.height < 0.35


def hand_made() -> Lake:
    """600 users, whose days are known by arithmetic.

    Everyone visits on day 0, and the log ends on day 111. User u discovers creator u // 60 on day
    40, and is with it again the day after (u % 2 == 0), on day 29 after it (all), on day 30 after
    it (u % 5 == 0), on day 60 after it (all: too late to count). Of the visits: everybody in week
    0, half in week 1, a third in week 2, a quarter in week 3, .. and 100 more people who come in
    week 1 and every week from then on, whom retention does not ask about.
    """
    day = [(u, 40, "play") for u in range(600)]
    day += [(u, 41, "play") for u in range(600) if u % 2 == 0]
    day += [(u, 69, "play") for u in range(600)]
    day += [(u, 70, "play") for u in range(600) if u % 5 == 0]
    day += [(u, 100, "play") for u in range(600)]
    day += [
        (u, 7 * week, "visit") for week in range(16) for u in range(600) if u < 600 / (week + 1)
    ]
    day += [(u, 7 * week, "visit") for week in range(1, 16) for u in range(600, 700)]
    events = pl.DataFrame(
        {
            "event_id": [f"e{at}" for at in range(len(day))],
            "user_id": [f"u{u}" for u, _, _ in day],
            "creator_id": [f"c{u // 60}" if kind == "play" else None for u, _, kind in day],
            "kind": [kind for _, _, kind in day],
            "time": [
                datetime(2026, 1, 5, 12, tzinfo=UTC) + timedelta(days=one) for _, one, _ in day
            ],
        }
    )
    lake = Lake.memory()
    lake.append(
        "all", events=events, watermark=datetime(2026, 1, 5, tzinfo=UTC) + timedelta(days=112)
    )
    return lake


def test_facts_of_a_hand_made_log_are_those_of_arithmetic() -> None:
    found = facts(hand_made())
    assert found.discoveries == 600
    assert found.return_30_59 == pytest.approx(0.2)  # day 29 is too early, day 60 too late
    # the total is 1 + two independent coins, of variance 1/4 (known after a day) and 4/25 (in the
    # last days)
    assert found.day_two_correlation == pytest.approx(math.sqrt((1 / 4) / (1 / 4 + 4 / 25)))
    assert found.first_days_explain == pytest.approx((1 / 4) / (1 / 4 + 4 / 25))
    assert found.retention == pytest.approx(
        [1 / (week + 1) for week in range(1, 15)], abs=1 / 600
    )  # the last week may not be whole
    # days 1 (half of them), 29 (all) and 30 (a fifth); the same for every creator, so day 29
    # explains nothing
    assert found.active == pytest.approx([0.5] + 27 * [0.0] + [1.0, 0.2] + 29 * [0.0])
    assert found.explained == pytest.approx(29 * [(1 / 4) / (1 / 4 + 4 / 25)] + 30 * [1.0])
    assert found.at_least[0][:3] == pytest.approx([1.0, 0.2, 0.0])
    assert found.at_least[1][:4] == pytest.approx([1.0, 1.0, 0.2, 0.0])
    assert found.convex
    assert found.weekday == pytest.approx([7, 0, 0, 0, 0, 0, 0])  # all on Mondays
    with pytest.raises(
        NotEstimable, match="0 discoveries have been observed for 59 days, expected at least 500"
    ):
        facts(hand_made().before(datetime(2026, 3, 6, tzinfo=UTC)))


def test_a_week_without_anybody_of_the_first_is_a_retention_of_zero() -> None:
    from longplay.world.facts import _retention

    days = [0, 1, 7, 21, 28]  # weeks 0, 0, 1, 3, 4: nobody in week 2, and week 4 may not be whole
    visits = pl.DataFrame(
        {"user_id": ["a"] * 5, "time": [START + timedelta(days=day) for day in days]}
    )
    assert _retention(visits) == (1.0, 0.0, 1.0)


# -- the parts of a day --------------------------------------------------------------------------


def test_habit_satiety_and_satisfaction_halve_in_their_half_lives() -> None:
    config = WorldConfig(habit_half_life=4.0, satiety_half_life=8.0, satisfaction_half_life=2.0)
    state = one_state(stock=1.2, satiety=3.0, satisfaction=-0.8)
    for _ in range(4):
        state = wake(state, config)
    assert state.stock_RM[0, 0] == pytest.approx(0.6, rel=1e-5)
    assert state.satiety_RM[0, 0] == pytest.approx(3.0 / math.sqrt(2), rel=1e-5)
    assert state.satisfaction_R[0] == pytest.approx(-0.2, rel=1e-5)


def test_the_chance_of_a_play_is_appeal_by_match_novelty_satiety_and_attention() -> None:
    """Numbers by hand: appeal 1/2 has odds 1; a perfect match changes nothing; each further factor
    is an exponent."""
    world = World(users=1, items=12, seed=1)
    config = WorldConfig(position_decay=0.25, satiety=0.15)
    taste_RD = world.catalogue.taste_ID[:1].astype(np.float32)
    listeners = replace(world.listeners, click_U=np.ones(1), novelty_U=np.full(1, 0.4))
    market = replace(
        world.catalogue.market(0), catalogue=replace(world.catalogue, appeal_I=np.full(12, 0.5))
    )

    def chance(state: State, slot: int) -> float:
        return float(
            play_chance(
                listeners,
                taste_RD,
                state,
                market,
                np.array([0]),
                np.array([0]),
                np.array([slot]),
                config,
            )[0]
        )

    def odds(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    assert chance(one_state(creator=99), 0) == pytest.approx(odds(0.2), rel=1e-5)
    assert chance(one_state(creator=99), 2) == pytest.approx(odds(0.2) / 1.5, rel=1e-5)
    assert chance(one_state(creator=0, satiety=2.0), 0) == pytest.approx(odds(-0.2 - 0.3), rel=1e-5)


def test_visits_are_logistic_in_activity_season_absence_habit_and_satisfaction() -> None:
    config = WorldConfig(season=0.5, absence=0.3, habit_activity=0.45, satisfaction_activity=0.3)
    n = 60_000
    world = World(users=1, items=5)
    who = world.listeners.take(np.zeros(n, dtype=np.int64))
    who = replace(
        who,
        activity_U=np.full(n, -0.5),
        weekend_U=np.ones(n),
        zone_U=np.zeros(n, dtype=np.int64),
        hour_U=np.full(n, 43_200.0),
    )

    def share(state: State, day: int) -> float:
        return float(
            visitors(
                who,
                state.take(np.zeros(n, dtype=np.int64)),
                Luck(3).on(np.arange(n), day),
                day,
                config,
            ).mean()
        )

    def expected(x: float) -> Any:
        p = 1 / (1 + math.exp(-x))
        return pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / n))

    assert share(one_state(), 2) == expected(-0.5 + 0.5)  # Saturday noon
    assert share(one_state(), 4) == expected(-0.5 + 0.5 * math.cos(4 * math.pi / 7))
    assert share(one_state(stock=1.0), 2) == expected(-0.5 + 0.5 + 0.45 * math.log(2))
    assert share(one_state(away=5), 2) == expected(-0.5 + 0.5 - 0.3 * math.log(6))
    assert share(one_state(satisfaction=-1.0), 2) == expected(-0.5 + 0.5 + 0.3 * math.tanh(-1))
    assert share(replace(one_state(), alive_R=np.array([False])), 2) == 0


def test_the_hazard_of_leaving_is_that_of_the_user_less_by_habit_and_satisfaction() -> None:
    config = WorldConfig(churn_relief=1.0, satisfaction_churn=0.5)
    n = 60_000
    world = World(users=1, items=5)
    who = replace(world.listeners.take(np.zeros(n, dtype=np.int64)), churn_U=np.full(n, 0.2))
    market, nobody = world.catalogue.market(0), np.zeros(n, dtype=bool)

    def left(state: State) -> float:
        copies = state.take(np.zeros(n, dtype=np.int64))
        return float(
            1
            - live(
                who, who.taste_UD, market, copies, nobody, [], Luck(3).on(np.arange(n), 1), config
            )[0].alive_R.mean()
        )

    error = 4 * math.sqrt(0.2 * 0.8 / n)
    assert left(one_state()) == pytest.approx(0.2, abs=error)
    assert left(one_state(stock=1.0)) == pytest.approx(0.2 / (1 + math.log(2)), abs=error)
    assert left(one_state(satisfaction=1.0)) == pytest.approx(
        0.2 * math.exp(-0.5 * math.tanh(1)), abs=error
    )


def test_a_play_builds_habit_by_depth_match_and_liking_less_where_there_is_enough_of_it() -> None:
    world = World(users=1, items=12, seed=1, config=WorldConfig(liking_spread=0.0))
    config, catalogue = world.config, world.catalogue
    creator, depth = int(catalogue.creator_I[0]), float(catalogue.depth_I[0])
    match = float(world.listeners.taste_UD[0].astype(float) @ catalogue.taste_ID[0])
    shown = Shown(HOME, np.array([0]), np.array([[0]]), np.array([[True]]))
    still = replace(config, habit_drive=0.0)  # nothing else is played

    def stock_after(state: State) -> tuple[float, float]:
        after, plays = live(
            world.listeners,
            world.listeners.taste_UD,
            catalogue.market(0),
            state,
            np.array([True]),
            [shown],
            Luck(1).on(np.array([0]), 0),
            still,
        )
        assert plays.slot_P.tolist() == [0]
        at = after.creator_RM[0] == creator
        return float(after.stock_RM[0][at][0]), float(after.satiety_RM[0][at][0])

    gain = config.habit_gain * depth * match
    assert gain < config.habit_limit
    empty = one_state(creator=-1)
    assert stock_after(empty) == pytest.approx((gain, 1.0), rel=1e-4)
    tired = one_state(creator=creator, stock=0.6, satiety=2.0)
    assert stock_after(tired) == pytest.approx(
        (0.6 + gain * math.exp(-2 * config.satiety) * (1 - 0.6 / config.habit_limit), 3.0), rel=1e-4
    )
    full = one_state(creator=creator, stock=config.habit_limit)
    assert stock_after(full)[0] == pytest.approx(config.habit_limit)


def test_a_habit_is_lived_unasked_and_feeds_itself_once_a_day_less_when_it_is_satisfied() -> None:
    world = World(users=1, items=12, seed=1, config=WorldConfig(liking_spread=0.0))
    config, catalogue = (
        replace(world.config, habit_drive=100.0),
        world.catalogue,
    )  # so that it is certain
    creator = int(catalogue.creator_I[5])
    state = one_state(creator=creator, stock=0.6, satiety=2.0)
    after, plays = live(
        world.listeners,
        world.listeners.taste_UD,
        catalogue.market(0),
        state,
        np.array([True]),
        [],
        Luck(1).on(np.array([0]), 0),
        config,
    )
    assert len(plays) in (1, 2)
    assert (catalogue.creator_I[plays.item_P] == creator).all()
    assert plays.organic.all()
    match = float(world.listeners.taste_UD[0].astype(float) @ catalogue.taste_ID[plays.item_P[0]])
    gain = (
        config.habit_gain
        * float(catalogue.depth_I[plays.item_P[0]])
        * match
        * math.exp(-2 * config.satiety)
    )
    assert float(after.stock_RM[0, 0]) == pytest.approx(
        0.6 + gain * (1 - 0.6 / config.habit_limit), rel=1e-4
    )
    assert after.satiety_RM[0, 0] == 3.0
    assert after.satisfaction_R[0] == 0, "only slates please or disappoint"
    away, nothing = live(
        world.listeners,
        world.listeners.taste_UD,
        catalogue.market(0),
        state,
        np.array([False]),
        [],
        Luck(1).on(np.array([0]), 0),
        config,
    )
    assert len(nothing) == 0
    assert (after.away_R[0], away.away_R[0]) == (0, 1)


def test_stock_stays_within_its_limit() -> None:
    world = World(users=800, items=400, seed=6)
    world.run(Uniform(), days=40)
    assert world.state.stock_RM.min() >= 0
    assert world.state.stock_RM.max() <= 1.001 * world.config.habit_limit


def one_state(
    creator: int = 0,
    stock: float = 0.0,
    satiety: float = 0.0,
    satisfaction: float = 0.0,
    away: int = 0,
) -> State:
    """One agent with one habit."""
    creator_RM = np.full((1, 3), -1, dtype=np.int32)
    creator_RM[0, 0] = creator
    slot = np.array([[1.0, 0.0, 0.0]], dtype=np.float32)
    return State(
        np.ones(1, dtype=bool),
        creator_RM,
        np.float32(stock) * slot,
        np.float32(satiety) * slot,
        np.full(1, satisfaction, dtype=np.float32),
        np.full(1, away, dtype=np.int32),
    )


# -- where and when people live ------------------------------------------------------------------


def test_people_of_different_time_zones_come_at_different_utc_hours_and_keep_their_own(
    lived: tuple[World, Lake],
) -> None:
    world, lake = lived
    visits = by_day(of_kind(lake, "visit")).with_columns(
        hour=pl.col("time").dt.hour() + pl.col("time").dt.minute() / 60
    )
    zones = pl.DataFrame({"user_id": world.user_ids, "zone": world.listeners.zone_U})
    by_zone = (
        visits.group_by("user_id")
        .agg(pl.col("hour").mean())
        .join(zones, on="user_id")
        .group_by("zone")
        .agg(pl.col("hour").mean())
        .sort("zone")
    )
    assert by_zone["zone"].to_list() == sorted(set(ZONES))
    hours = by_zone["hour"].to_list()
    assert hours == sorted(hours, reverse=True), "further east, earlier in UTC"
    assert hours[0] - hours[-1] > 6
    half = (
        visits.group_by("user_id", pl.col("day") < 52)
        .agg(pl.col("hour").mean(), pl.len())
        .filter(pl.col("len") >= 8)
    )
    both = half.pivot(on="day", index="user_id", values="hour").drop_nulls()
    assert both.height > 500
    assert np.corrcoef(both["true"], both["false"])[0, 1] > 0.85


# -- the worlds that have a name -----------------------------------------------------------------


def depth_of_appeal(config: WorldConfig, items: int = 600) -> float:
    catalogue = World(users=1, items=items, seed=1, config=config).catalogue
    return float(
        np.corrcoef(
            np.log(catalogue.appeal_I / (1 - catalogue.appeal_I)), np.log(catalogue.depth_I)
        )[0, 1]
    )


@pytest.mark.parametrize("correlation", [-1.0, -0.8, -0.2, 0.0, 0.6, 1.0])
def test_appeal_and_depth_correlate_as_configured(correlation: float) -> None:
    assert depth_of_appeal(WorldConfig(appeal_depth_correlation=correlation)) == pytest.approx(
        correlation, abs=1e-6
    )


@pytest.mark.parametrize(
    ("name", "correlation"), [("default", -0.2), ("clickbait", -0.8), ("aligned", 1.0)]
)
def test_named_worlds_are_what_their_names_say_of_appeal_and_depth(
    name: str, correlation: float
) -> None:
    assert depth_of_appeal(WorldConfig.of(WORLDS[name].numbers)) == pytest.approx(
        correlation, abs=1e-6
    )


def test_drift_moves_tastes_as_far_as_it_says_and_only_drift_does() -> None:
    def similarity(config: WorldConfig) -> np.ndarray:
        listeners = make_listeners(500, 1, config)
        start_UD, end_UD = listeners.taste(0, config), listeners.taste(100, config)
        assert np.allclose(np.linalg.norm(end_UD, axis=1), 1, atol=1e-5)
        return (start_UD * end_UD).sum(axis=1)

    assert np.allclose(similarity(WorldConfig()), 1.0, atol=1e-6)
    little, much = (
        similarity(WorldConfig(drift=0.3)),
        similarity(WorldConfig.of(WORLDS["drift"].numbers)),
    )
    assert (much <= little + 1e-6).all()
    assert much.mean() < 0.9
    assert np.array_equal(
        make_listeners(9, 1, WorldConfig()).taste_UD,
        make_listeners(9, 1, WorldConfig(drift=2.0)).taste_UD,
    )


def test_cold_releases_most_items_while_it_runs_to_people_without_habits() -> None:
    cold = World.named("cold", users=10, items=300)
    assert cold.items.height < 0.45 * 300
    assert cold.state.habits.max() == 0
    soon = World(users=40, items=300, config=WorldConfig.of({"base": "cold", "new_days": 20}))
    lake = soon.run(Uniform(), days=20)
    assert soon.items.height == lake.items.height == 300
    assert lake.items.filter(pl.col("added_at") > START).height > 0.55 * 300
    assert soon.state.habits.max() > 0


def test_gamed_has_far_more_autoplay_and_it_comes_of_what_is_shown() -> None:
    def minutes_of(name: str, policy: str) -> tuple[float, float]:
        """Autoplay plays per other play, and organic visits."""
        world = World.named(name, users=250, items=200)
        lake = world.run(best(world, policy), days=20)
        auto = of_kind(lake, "play").filter(pl.col("origin") == "autoplay").height
        return auto / (of_kind(lake, "play").height - auto), of_kind(lake, "visit").height

    plain, gamed, looped = (
        minutes_of("default", "appeal_I"),
        minutes_of("gamed", "appeal_I"),
        minutes_of("gamed", "loop_I"),
    )
    assert gamed[0] > 5 * plain[0]
    assert looped[0] > 1.5 * gamed[0], "showing what loops inflates it"


def test_named_worlds_have_their_own_size_and_cannot_be_changed() -> None:
    assert (len(World.named("tiny").user_ids), len(World.named("tiny").catalogue)) == (300, 120)
    assert World.named("null", users=10, items=20).config == WorldConfig(lasting=0.0)
    assert len(World.named("null", users=10, items=20).user_ids) == 10
    for one in WORLDS.values():
        assert WorldConfig.of(one.numbers)
        assert one.about.endswith(".")
        with pytest.raises(FrozenInstanceError):
            one.users = 3  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        WorldConfig().churn = 0.1  # type: ignore[misc]


# -- what a policy is told -----------------------------------------------------------------------


def test_history_holds_the_last_engagements_before_the_visit_oldest_first() -> None:
    world = World(users=60, items=80, seed=9)
    lake = world.run(Watcher(history=3), days=12)
    engaged = (
        lake.events.filter(pl.col("kind").is_in(["play", "save"]))
        .select("user_id", "item_id", then="time")
        .sort("then")
    )
    contexts = lake.contexts.filter(pl.col("surface") == "home")
    checked = 0
    for row in contexts.iter_rows(named=True):
        past = engaged.filter(
            (pl.col("user_id") == row["user_id"]) & (pl.col("then") < row["time"])
        )["item_id"].to_list()
        assert row["history"] == past[-3:]
        checked += len(past) > 3
    assert checked > 20
    assert (
        World(users=60, items=80, seed=9)
        .run(Uniform(), days=3)
        .contexts["history"]
        .list.len()
        .max()
        == 0
    )


@pytest.mark.parametrize("exclude", ["seen", "creator"])
def test_exclusions_are_what_was_engaged_with_before(exclude: str) -> None:
    lake = World(
        users=60, items=300, seed=9, exclude=exclude, config=WorldConfig(new_share=0.0)
    ).run(Uniform(), days=12)
    plays = of_kind(lake, "play").select("user_id", "item_id", "creator_id", then="time")
    for row in (
        lake.contexts.filter(pl.col("surface") == "home").sample(80, seed=0).iter_rows(named=True)
    ):
        past = plays.filter((pl.col("user_id") == row["user_id"]) & (pl.col("then") < row["time"]))
        works = lake.items.filter(
            pl.col("creator_id").is_in(past["creator_id"].unique().implode())
        )["item_id"]
        assert set(row["exclusions"]) == set(past["item_id"] if exclude == "seen" else works)
    banned = lake.contexts.join(home(lake).select("context_id", "slate"), on="context_id")
    assert banned["exclusions"].list.len().sum() > 100
    assert (
        banned.select(pl.col("slate").list.set_intersection("exclusions").list.len().sum()).item()
        == 0
    )


def test_popular_learns_from_yesterday_and_the_log_allows_recomputing_its_propensities() -> None:
    world = World(users=200, items=100, seed=1)
    lake = world.run(Popular(explore=0.2), days=3)
    names = by_day(home(lake)).group_by("day").agg(pl.col("policy").unique()).sort("day")["policy"]
    assert names.list.len().to_list() == [1, 1, 1]
    assert names.explode().n_unique() == 3
    start_of_day_2 = START + timedelta(days=2)
    seen = lake.before(start_of_day_2)
    version = Popular(explore=0.2).adapt(
        world.catalogue.frame.filter(pl.Series(world.catalogue.release_I <= 2)), seen.events
    )
    third = home(lake).filter(pl.col("time") >= start_of_day_2)
    assert third["policy"].unique().to_list() == [version.name]
    contexts = Contexts(
        lake.contexts.filter((pl.col("time") >= start_of_day_2) & (pl.col("surface") == "home"))
    )
    aligned = contexts.frame.select("context_id").join(
        third, on="context_id", maintain_order="left"
    )
    assert np.array_equal(
        version.log_prob(contexts, aligned["slate"]), np.stack(aligned["log_prob"].to_list())
    )


def test_a_fork_under_the_same_policy_lives_the_same_life_and_leaves_the_world_alone() -> None:
    world = World(users=80, items=100, seed=3, config=BUSY, exclude="seen")
    world.run(Watcher(history=3), days=5)
    rows = np.array([70, 3, 20, 41])
    copies = world.fork(rows)
    policy = Fixed(Uniform(slate=3).adapt(world.items, pl.DataFrame()), history=3, slate=3)
    ahead = copies.run(policy, days=6)
    lake = world.run(policy, days=6)
    mine = pl.col("user_id").is_in(copies.user_ids.implode())
    assert_same(ahead.events, lake.events.filter(mine))
    later = pl.col("time") >= START + timedelta(days=5)
    assert_same(ahead.contexts, lake.contexts.filter(mine & later), "context_id")
    other = world.fork(rows, seed=99)
    assert not other.run(policy, days=6).events.equals(world.fork(rows).run(policy, days=6).events)


# -- the truth -----------------------------------------------------------------------------------


def test_deep_items_are_worth_more_than_shallow_ones_of_equal_appeal(
    lived: tuple[World, Lake],
) -> None:
    world, _ = lived
    depth_I, appeal_I, out_I = (
        world.catalogue.depth_I,
        world.catalogue.appeal_I,
        world.catalogue.release_I <= 105,
    )
    middling = out_I & (np.abs(appeal_I - np.median(appeal_I)) < 0.08)
    deep, shallow = (
        np.flatnonzero(middling & (depth_I > 1.6)),
        np.flatnonzero(middling & (depth_I < 0.6)),
    )
    assert min(len(deep), len(shallow)) > 20
    assert abs(appeal_I[deep].mean() - appeal_I[shallow].mean()) < 0.02
    rng = np.random.default_rng(0)
    users = world.users.filter("alive")["user_id"].sample(400, seed=0)
    items = np.stack([rng.choice(deep, 400), rng.choice(shallow, 400)], axis=1)
    for each in (HABIT, ACTIVE):
        value_NS = world.true_value(users, world.catalogue.index.slates(items), each)
        assert value_NS.shape == (400, 2)
        gap_N = value_NS[:, 0] - value_NS[:, 1]
        assert gap_N.mean() > 3 * gap_N.std() / 20


def test_a_familiar_creator_is_worth_exactly_nothing_to_a_discovery_signal(
    lived: tuple[World, Lake],
) -> None:
    world, lake = lived
    recent = lake.events.filter(
        pl.col("kind").is_in(["play", "save"]) & (pl.col("time") >= world.now - timedelta(days=28))
    )
    alive = world.users.filter("alive")["user_id"].implode()
    pairs = (
        recent.filter(pl.col("user_id").is_in(alive))
        .select("user_id", "creator_id")
        .unique(maintain_order=True)
        .sample(300, seed=1)
    )
    items = pairs.join(
        lake.items.unique("creator_id", keep="first", maintain_order=True),
        on="creator_id",
        maintain_order="left",
    )["item_id"]
    lists = items.to_frame().select(pl.concat_list("item_id"))["item_id"]
    assert (world.true_value(pairs["user_id"], lists, HABIT) == 0).all()
    exposed = replace(HABIT, name="exposed", entry=exposure())
    assert (world.true_value(pairs["user_id"], lists, exposed, replicates=2) != 0).any()
    churned = world.users.filter(~pl.col("alive"))["user_id"].head(20)
    some = world.catalogue.index.slates(np.arange(20)[:, None])
    assert (world.true_value(churned, some, ACTIVE) == 0).all()


def test_in_one_slate_a_creator_is_discovered_once(lived: tuple[World, Lake]) -> None:
    # catches: a policy that shows one artist in every slot is worth every one of them
    world, _ = lived
    works = (
        world.items.group_by("creator_id")
        .agg("item_id", count=pl.len())
        .filter(pl.col("count") >= 3)
        .sort("creator_id")
    )
    others = world.items.filter(pl.col("creator_id") == works["creator_id"][1])["item_id"]
    slate = [*works["item_id"][0].to_list()[:3], others[0]]
    users = world.users.filter("alive")["user_id"].head(200)
    lists = pl.Series([slate] * 200)
    alone, together = (
        world.true_value(users, lists, HABIT, together=one_slate) for one_slate in (False, True)
    )
    np.testing.assert_array_equal(together[:, [0, 3]], alone[:, [0, 3]])
    shares = together[:, 1:3] / np.where(alone[:, 1:3] == 0, np.nan, alone[:, 1:3])
    assert 0 < np.nanmax(shares) < 1
    assert (np.diff(shares, axis=1)[~np.isnan(shares).any(axis=1)] < 0).all()
    chance = (
        1 - shares[:, 0]
    )  # of the first slot being played; what it leaves to the third, the second has its part in
    assert (shares[:, 1] <= (1 - chance) + 1e-12)[~np.isnan(shares).any(axis=1)].all()
    np.testing.assert_array_equal(
        world.true_value(users, lists, ACTIVE, together=True),
        world.true_value(users, lists, ACTIVE),
    )


@pytest.mark.parametrize("kind", ["days_with", "active_days"])
def test_the_truth_agrees_with_a_naive_count_of_shown_and_not_shown_lives(kind: str) -> None:
    """Brute force: each pair lives many times with the slate, the coin of the play included, and
    many times without it."""
    world = World(
        users=300,
        items=200,
        seed=11,
        config=WorldConfig(
            habit_gain=0.6, activity=0.0, new_share=0.5, new_days=15, shelf=1.0, click=0.7
        ),
    )
    lake = world.run(Uniform(), days=5)
    each = replace(HABIT if kind == "days_with" else ACTIVE, window=(1, 10))
    worth_I = world.catalogue.depth_I * world.catalogue.appeal_I * (world.catalogue.release_I <= 5)
    known = of_kind(lake, "play").select("user_id", "creator_id").unique()
    pairs = []
    for user, rank in ((3, 0), (40, 5), (111, 9), (250, 40)):
        theirs = known.filter(pl.col("user_id") == world.user_ids[user])["creator_id"]
        new = ~world.catalogue.frame["creator_id"].is_in(theirs.implode()).to_numpy()
        assert world.state.alive_R[user]
        pairs.append((user, int(np.argsort(-worth_I * new)[rank])))
    found = []
    for user, item in pairs:
        value = world.true_value(
            [world.user_ids[user]],
            pl.Series([[world.catalogue.index.ids[item]]]),
            each,
            replicates=4_000,
        )[0, 0]
        brute, error = naive_value(world, user, item, kind, 10, copies=4_000)
        # as many lives on both sides, and the truth has no coin of the play: its error is the
        # smaller one
        assert abs(value - brute) <= 3.5 * np.sqrt(2) * error, (user, item, value, brute, error)
        found.append(abs(value) > 5 * error)
    assert any(found), "so that zero would not do"


def naive_value(
    world: World, user: int, item: int, kind: str, last_day: int, copies: int
) -> tuple[float, float]:
    config, creator = world.config, int(world.catalogue.creator_I[item])
    outcomes = []
    for branch in (1, 0):
        who, state = (
            world.listeners.take(np.full(copies, user)),
            world.state.take(np.full(copies, user)),
        )
        touched, days = np.zeros(copies, dtype=bool), np.zeros(copies)
        for after in range(last_day + 1):
            day = (world.now - START).days + after
            luck, market, taste = (
                Luck(900).on(np.arange(copies), after),
                world.catalogue.market(day),
                who.taste(day, config),
            )
            state = wake(state, config)
            visiting = (
                state.alive_R.copy() if after == 0 else visitors(who, state, luck, day, config)
            )
            shown = house_lists(
                who, taste, market, np.flatnonzero(visiting), day, luck, config, shelf=False
            )
            if branch and after == 0:
                shown.append(Shown(HOME, np.arange(copies), np.full((copies, 1), item)))
            state, plays = live(who, taste, market, state, visiting, shown, luck, config)
            mine = world.catalogue.creator_I[plays.item_P] == creator
            if after == 0:
                touched[plays.row_P[mine]] = True
                assert branch or not (plays.place_P == HOME).any()
            elif kind == "days_with":
                days += (
                    np.bincount(plays.row_P[mine & (plays.place_P > HOME)], minlength=copies) > 0
                )
            else:
                days += visiting
        outcomes.append((touched & (days >= 3)).astype(float) if kind == "days_with" else days)
    difference = outcomes[0] - outcomes[1]
    return float(difference.mean()), float(difference.std() / np.sqrt(copies))


# -- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        (
            {"appeal_depth_correlation": 1.5},
            r"appeal_depth_correlation=1.5 given, expected a number in \[-1.0, 1.0\]",
        ),
        ({"appeal_depth_correlation": -1.01}, r"appeal_depth_correlation=-1.01 given"),
        (
            {"habit_half_life": -9.0},
            r"habit_half_life=-9.0 given, expected a number in \[0.1, 1000.0\]; the default is 9.0",
        ),
        (
            {"satiety_half_life": 0},
            r"satiety_half_life=0 given, expected a number in \[0.1, 1000.0\]",
        ),
        ({"habit_slots": 2.5}, r"habit_slots=2.5 given, expected a whole number in \[1, 64\]"),
        ({"genres": True}, r"genres=True given, expected a whole number"),
        ({"lasting": 1.2}, r"lasting=1.2 given, expected a number in \[0.0, 1.0\]"),
        ({"churn": float("nan")}, r"churn=nan given"),
        ({"churn": "0.1"}, r"churn='0.1' given"),
        ({"start_habits": 20.0}, r"start_habits=20.0 given, expected at most habit_slots=12"),
    ],
)
def test_impossible_numbers_are_refused_with_key_value_and_range(
    numbers: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        WorldConfig(**numbers)


def test_a_configuration_comes_from_toml_on_top_of_a_named_world(tmp_path: Path) -> None:
    def read(text: str) -> WorldConfig:
        (tmp_path / "world.toml").write_text(text)
        return WorldConfig.from_toml(tmp_path / "world.toml")

    expected = replace(WorldConfig(**WORLDS["clickbait"].numbers), churn=0.01, habit_slots=6)
    assert read('base = "clickbait"\nchurn = 0.01\nhabit_slots = 6') == expected
    assert read('[world]\nbase = "clickbait"\nchurn = 0.01\nhabit_slots = 6') == expected
    assert read("") == WorldConfig()
    everything = "\n".join(
        f"{one.name} = {getattr(expected, one.name)}" for one in fields(expected)
    )
    assert read(everything) == expected
    for text, message in (
        (
            'base = "clickbait"\nchurm = 0.01',
            r"world.toml.churm: unknown key; did you mean 'churn'\?",
        ),
        (
            "wholly_unrelated = 1",
            r"wholly_unrelated: unknown key; expected some of genres, items_per_creator",
        ),
        ("churn = 0.9", r"world.toml: world: churn=0.9 given, expected a number in \[0.0, 0.5\]"),
        (
            'base = "clickbate"',
            "world: 'clickbate' given, expected one of default, clickbait, aligned, null, gamed, "
            "drift, cold, tiny",
        ),
        ("churn = ", r"world.toml is not TOML"),
    ):
        with pytest.raises(ConfigError, match=message):
            read(text)
    with pytest.raises(ConfigError, match=r"nowhere.toml cannot be read \(No such file"):
        WorldConfig.from_toml(tmp_path / "nowhere.toml")
    with pytest.raises(ConfigError, match="world: 'nil' given, expected one of default"):
        World.named("nil")


@pytest.mark.parametrize(
    "text", [b"\xff\xfe", b"world = 3", b'base = ["null"]', b"churn = 0.1\n[world]\nsearch = 0.2"]
)
def test_odd_files_are_refused_as_such(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "odd.toml").write_bytes(text)
    with pytest.raises(ConfigError, match=r"odd\.toml"):
        WorldConfig.from_toml(tmp_path / "odd.toml")


def test_a_world_says_what_it_cannot_be() -> None:
    for arguments, message in (
        ({"users": 0}, "users=0 given, expected a whole number from 1 to 10,000,000"),
        ({"users": 2.5}, "users=2.5 given, expected a whole number"),
        ({"users": 1, "items": 0}, "items=0 given, expected a whole number from 1 to 1,000,000"),
        ({"seed": -1}, "seed=-1 given, expected a whole number from 0"),
        ({"config": {"churn": 0.1}}, "config is a dict, expected a WorldConfig"),
        (
            {"users": 1, "items": 5, "exclude": "heard"},
            "exclude='heard' given, expected one of none, seen, creator",
        ),
    ):
        with pytest.raises(ConfigError, match=message):
            World(**arguments)
    world = World(users=5, items=10)
    with pytest.raises(ConfigError, match="days=0"):
        world.run(None, days=0)
    with pytest.raises(DataError, match="user 'bob' is not in this world of 5 users"):
        world.true_value(["bob"], [["i000001"]], ACTIVE)
    with pytest.raises(DataError, match="item 'i999999' is not in"):
        world.true_value(["u0000001"], [["i999999"]], ACTIVE)
    with pytest.raises(DataError, match="1 users but 2 lists of items"):
        world.true_value(["u0000001"], [["i000001"], ["i000002"]], ACTIVE)
    with pytest.raises(ConfigError, match="measure minutes of None has no truth"):
        world.true_value(
            ["u0000001"], [["i000001"]], Signal("m", entry=enrolment(), measure=minutes())
        )
    by_item = Signal("i", entry=Entry("discovery", of="item"), measure=days_with("item"))
    with pytest.raises(ConfigError, match="discovery of an item given"):
        world.true_value(["u0000001"], [["i000001"]], by_item)
    with pytest.raises(ConfigError, match="replicates=0"):
        world.true_value(["u0000001"], [["i000001"]], ACTIVE, replicates=0)


def test_a_user_goes_by_their_own_id_alone() -> None:
    with pytest.raises(DataError, match="user '3' is not in this world"):
        World(users=5, items=10).true_value(["3"], [["i000001"]], ACTIVE, replicates=1)


def test_an_item_that_is_not_released_yet_has_no_value_now() -> None:
    world = World(users=20, items=60, config=WorldConfig(new_share=0.8))
    late = np.flatnonzero(world.catalogue.release_I > 50)[:3]
    with pytest.raises(DataError, match="not released"):
        world.true_value(
            world.user_ids,
            world.catalogue.index.slates(np.tile(late, (20, 1))),
            ACTIVE,
            replicates=1,
        )


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (
            "unreleased",
            "odd@1: a slate of 2026-01-01 holds an item that is not released yet; take items from "
            "world.items",
        ),
        ("unknown", "item 'i999999' is not in"),
        ("reversed", "odd@1: its decisions are not one per context in the contexts' order"),
        ("one less", "odd@1: its decisions are not one per context in the contexts' order"),
        ("uneven", r"slates: lengths \[1, 2\] in one call, expected one length"),
    ],
)
def test_slates_that_cannot_be_shown_are_refused(said: str, message: str) -> None:
    world = World(users=40, items=60, seed=1, config=BUSY)
    late = world.catalogue.index.ids[int(np.flatnonzero(world.catalogue.release_I > 5)[0])]
    with pytest.raises(DataError, match=message):
        world.run(Odd(said, late), days=2)


@pytest.mark.parametrize("said", ["repeated", "another user", "another width"])
def test_decisions_that_are_not_of_their_contexts_are_refused(said: str) -> None:
    with pytest.raises(DataError, match="odd@1"):
        World(users=40, items=60, seed=1).run(Odd(said, ""), days=2)


def test_days_that_were_lived_are_in_the_log_when_a_policy_fails() -> None:
    # catches: state and clock that move on while the log does not, so that the next run leaves a
    # hole
    class Fails(Uniform):
        days = 0

        def decide(self, contexts: Contexts, rng: np.random.Generator) -> Decisions:
            type(self).days += 1
            if self.days == 4:
                raise RuntimeError("no more")
            return super().decide(contexts, rng)

    world, whole = World(60, 60, seed=1), World(60, 60, seed=1)
    with pytest.raises(RuntimeError, match="no more"):
        world.run(Fails(slate=3), days=9)
    assert world.now == START + 3 * timedelta(days=1)
    assert_same(world.lake.events, whole.run(Uniform(slate=3), days=3).events)
    assert_same(
        world.run(Uniform(slate=3), days=2).events, whole.run(Uniform(slate=3), days=2).events
    )


def test_a_creator_who_shares_everything_still_has_items_that_differ() -> None:
    for items in (6, 12, 60):  # one creator, two, ten
        catalogue = make_catalogue(items, 3, WorldConfig(creator_share=1.0))
        logit_I, depth_I = (
            np.log(catalogue.appeal_I / (1 - catalogue.appeal_I)),
            np.log(catalogue.depth_I),
        )
        assert np.isfinite(logit_I).all()
        assert np.isfinite(depth_I).all()
        assert np.corrcoef(logit_I, depth_I)[0, 1] == pytest.approx(-0.2, abs=1e-6)


def test_no_propensity_is_above_one_however_famous_one_item_is() -> None:
    lake = World(300, 2_000, config=WorldConfig(popularity_tail=0.5, search=1.0)).run(None, days=5)
    assert lake.decisions["log_prob"].explode().max() <= 0.0  # type: ignore[operator]


def test_copies_need_names_and_leave_their_past_behind() -> None:
    world = World(20, 40)
    world.run(Uniform(slate=3), days=3)
    with pytest.raises(ConfigError, match="a user is asked for twice"):
        world.fork(np.array([4, 4]))
    with pytest.raises(ConfigError, match="say history=False"):
        world.fork(np.array([4, 4]), ids=pl.Series(["a", "b"]))
    assert (
        world.fork(np.array([4, 4]), ids=pl.Series(["a", "b"]), history=False)
        .run(None, days=2)
        .events["user_id"]
        .is_in(["a", "b"])
        .all()
    )


def test_progress_is_reported_once_a_day() -> None:
    calls: list[tuple[int, int]] = []
    World(users=10, items=20).run(
        None, days=3, progress=lambda done, days: calls.append((done, days))
    )
    assert calls == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(("users", "items", "slate"), [(3, 10, 2), (2, 1, 1), (1, 2, 1)])
def test_a_small_world_whose_users_are_all_gone_goes_on(users: int, items: int, slate: int) -> None:
    world = World(
        users=users,
        items=items,
        config=WorldConfig(churn=0.5, churn_shape=50.0, habit_activity=0.0, new_share=0.0),
    )
    lake = world.run(Uniform(slate=slate), days=60)
    assert not world.state.alive_R.any()
    assert lake.watermark == world.now
    assert world.run(None, days=1).watermark == world.now
    assert repr(world).startswith(f"World({users} users (0 alive), {items} items")


@pytest.mark.parametrize(
    "numbers",
    [
        {"click": 0.0},
        {"click": 1.0},
        {"search": 1.0, "shelf": 1.0},
        {"search": 0.0, "shelf": 0.0},
        {"genres": 1},
        {"genres": 64},
        {"churn": 0.0},
        {"churn_shape": 0.01},
        {"popularity_tail": 0.5},
        {"loop": 10.0, "loop_spread": 3.0},
        {"drift": 10.0},
        {"satisfaction": 10.0},
        {"depth_spread": 3.0, "liking_spread": 3.0},
        {"new_share": 1.0, "new_days": 1},
        {"items_per_creator": 1.0},
        {"items_per_creator": 1000.0},
        {"activity": -10.0},
        {"activity": 10.0},
        {"habit_slots": 1, "start_habits": 0.0},
        {"habit_drive": 100.0},
        {"novelty": 5.0},
        {"lasting": 0.5},
    ],
    ids=str,
)
def test_the_ends_of_the_ranges_can_be_lived_in(numbers: dict[str, Any]) -> None:
    world = World(users=40, items=90, config=WorldConfig(**numbers))
    lake = world.run(Uniform(slate=2), days=6)
    assert lake.quarantine.is_empty()
    for values in (world.state.stock_RM, world.state.satiety_RM, world.state.satisfaction_R):
        assert np.isfinite(values).all()
    assert lake.decisions.select(pl.col("log_prob").list.max().max() <= 1e-12).item() in (
        True,
        None,
    )


# -- policies for these tests --------------------------------------------------------------------


def best(world: World, what: str) -> Policy:
    """Slates mostly of what has most of a hidden property ("dull": least appeal), of what was there
    from the beginning."""
    catalogue = world.catalogue
    value_I = -catalogue.appeal_I if what == "dull" else getattr(catalogue, what)
    rank_I = np.argsort(np.argsort(-np.where(catalogue.release_I == AT_ONCE, value_I, -np.inf)))
    weight_I = np.where(catalogue.release_I == AT_ONCE, np.maximum(1, 60 - 2 * rank_I), 0).astype(
        int
    )
    played = catalogue.index.ids.gather(np.repeat(np.arange(len(catalogue)), weight_I))
    frame = catalogue.frame.filter(pl.Series(catalogue.release_I == AT_ONCE))
    return Fixed(
        Popular(explore=0.0).adapt(
            frame, pl.DataFrame({"item_id": played, "kind": ["play"] * len(played)})
        )
    )


@dataclass(frozen=True)
class Fixed:
    """A fitted policy that learns no more."""

    inner: Any
    history: int = 0
    slate: int = 5
    name: str = "fixed@1"

    def decide(self, contexts: Contexts, rng: np.random.Generator) -> Decisions:
        return self.inner.decide(contexts, rng)

    def log_prob(self, contexts: Contexts, slates: pl.Series) -> np.ndarray:
        return self.inner.log_prob(contexts, slates)


@dataclass(frozen=True)
class Watcher:
    """Uniform slates, but it wants to see the history."""

    history: int
    slate: int = 2
    inner: Uniform = field(default_factory=Uniform)
    name: str = "watcher@1"

    def adapt(self, items: pl.DataFrame, events: pl.DataFrame) -> Watcher:
        return Watcher(self.history, self.slate, self.inner.adapt(items, events))

    def decide(self, contexts: Contexts, rng: np.random.Generator) -> Decisions:
        return self.inner.decide(contexts, rng)

    def log_prob(self, contexts: Contexts, slates: pl.Series) -> np.ndarray:
        return self.inner.log_prob(contexts, slates)


@dataclass(frozen=True)
class Odd:
    """Says something that cannot be meant."""

    said: str
    late: str
    history: int = 0
    slate: int = 2
    name: str = "odd@1"

    def decide(self, contexts: Contexts, rng: np.random.Generator) -> Decisions:
        n = len(contexts)
        assert n > 2
        slates = [["i000000", "i000001"]] * n
        if self.said in ("unreleased", "unknown", "repeated"):
            slates[1] = [
                "i000000",
                {"unreleased": self.late, "unknown": "i999999", "repeated": "i000000"}[self.said],
            ]
        elif self.said == "uneven":
            slates[1] = ["i000000"]
        elif self.said == "another width":
            slates = [["i000000"]] * n
        width = [len(slate) for slate in slates]
        decisions = (
            Decisions.of(contexts, pl.Series(slates), np.zeros((n, max(width))), self.name)
            if len(set(width)) == 1
            else self._uneven(contexts, slates)
        )
        if self.said == "reversed":
            return Decisions(decisions.frame.reverse())
        if self.said == "another user":
            return Decisions(decisions.frame.with_columns(user_id=pl.lit("bob")))
        return Decisions(decisions.frame.head(-1)) if self.said == "one less" else decisions

    def _uneven(self, contexts: Contexts, slates: list[list[str]]) -> Decisions:
        same = Decisions.of(
            contexts,
            pl.Series([["i000000"]] * len(contexts)),
            np.zeros((len(contexts), 1)),
            self.name,
        )
        return Decisions(
            same.frame.with_columns(
                slate=pl.Series(slates),
                log_prob=pl.Series([[0.0] * len(slate) for slate in slates]),
            )
        )

    def log_prob(self, contexts: Contexts, slates: pl.Series) -> np.ndarray:
        return np.zeros((len(contexts), self.slate))
