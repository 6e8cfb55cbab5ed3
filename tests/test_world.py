"""The simulated service: deterministic, causal, calibrated, and with a truth that an independent count confirms."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from longplay.decisions import Contexts, Decisions
from longplay.errors import ConfigError, DataError
from longplay.lake import Lake
from longplay.policies.simple import Popular, Uniform
from longplay.world import START, World, WorldConfig
from longplay.world.dynamics import ORGANIC, Shown, live, visitors, wake
from longplay.world.listeners import make_listeners
from longplay.world.luck import Luck, Stream


def signal(kind: str = "days_with", entry: str = "discovery", threshold: float | None = 3, window: tuple[int, int] = (1, 28)) -> Any:
    of = "creator" if kind == "days_with" else None
    return SimpleNamespace(
        window=window,
        measure=SimpleNamespace(kind=kind, of=of, threshold=threshold),
        entry=SimpleNamespace(kind=entry, of="creator" if entry == "discovery" else None, novel_for=28 if entry == "discovery" else None),
    )


def by_day(events: pl.DataFrame) -> pl.DataFrame:
    return events.with_columns(day=(pl.col("time") - pl.lit(START)).dt.total_days())


@pytest.fixture(scope="module")
def lived() -> tuple[World, Lake]:
    """2,000 users under Popular for 84 days."""
    world = World(users=2_000, items=2_000, seed=7)
    return world, world.run(Popular(slate=5, explore=0.1), days=84)


# -- determinism ---------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_lake_and_another_seed_does_not() -> None:
    lakes = [World(users=120, items=150, seed=seed).run(Popular(), days=6) for seed in (7, 7, 8)]
    for table in ("events", "decisions", "contexts", "items"):
        assert_frame_equal(getattr(lakes[0], table), getattr(lakes[1], table))
    assert not lakes[0].events.equals(lakes[2].events)
    assert not lakes[0].items.equals(lakes[2].items), "a seed varies the catalogue too, not luck alone"


@pytest.mark.parametrize("make", [Uniform, Popular, lambda: Watcher(history=4), lambda: None])
def test_ten_days_and_ten_more_are_twenty_days(make: Any) -> None:
    whole, halves = World(users=150, items=200, seed=3, exclude="seen"), World(users=150, items=200, seed=3, exclude="seen")
    twenty = whole.run(make(), days=20)
    halves.run(make(), days=10)
    both = halves.run(halves.policy, days=10)
    assert_frame_equal(twenty.events, both.events)
    assert_frame_equal(twenty.contexts, both.contexts)
    assert both.watermark == whole.now == START + timedelta(days=20)


def test_adding_users_leaves_the_luck_and_the_lives_of_the_others_alone() -> None:
    few, many = World(users=200, items=300, seed=5), World(users=300, items=300, seed=5)
    mine = few.user_ids.implode()
    assert_frame_equal(few.run(None, days=15).events, many.run(None, days=15).events.filter(pl.col("user_id").is_in(mine)))
    luck = Luck(5)
    rows = np.array([4, 250, 17])
    assert np.array_equal(luck.on(rows, 9).uniform(Stream.CLICK, 3), luck.on(np.arange(300), 9).uniform(Stream.CLICK, 3)[rows])
    short, long = make_listeners(10, 5, WorldConfig()), make_listeners(20, 5, WorldConfig())
    assert np.array_equal(short.taste_UD, long.taste_UD[:10])


def test_luck_is_uniform_and_its_streams_days_users_and_counters_are_unrelated() -> None:
    luck, users = Luck(1), np.arange(40_000)
    base = luck.on(users, 4).uniform(Stream.CLICK)
    assert abs(base.mean() - 0.5) < 0.01
    assert abs(base.var() - 1 / 12) < 0.002
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


# -- what the log says ---------------------------------------------------------------------------


def test_plays_join_to_their_decisions_and_never_come_before_them(lived: tuple[World, Lake]) -> None:
    _, lake = lived
    shown = lake.events.filter(pl.col("origin") == "recommended")
    joined = shown.join(lake.decisions.select("decision_id", "slate", decided="time", decider="user_id"), on="decision_id", how="inner")
    assert joined.height == shown.height > 1000
    assert (joined["time"] > joined["decided"]).all()
    assert (joined["user_id"] == joined["decider"]).all()
    assert (joined.select(pl.col("slate").list.get(pl.col("slot")))["slate"] == joined["item_id"]).all()
    organic = lake.events.filter(pl.col("origin") == "organic")
    assert organic["decision_id"].null_count() == organic["slot"].null_count() == organic.height
    assert lake.decisions["decision_id"].n_unique() == lake.decisions.height == lake.contexts.height
    assert lake.events["event_id"].n_unique() == lake.events.height
    assert lake.quarantine.is_empty()


def test_every_visit_is_one_session_within_its_day(lived: tuple[World, Lake]) -> None:
    world, lake = lived
    sessions = (
        by_day(lake.events)
        .group_by("session_id")
        .agg(
            pl.col("day").n_unique(),
            pl.col("user_id").n_unique(),
            visits=(pl.col("kind") == "visit").sum(),
            first=pl.col("kind").sort_by("time").first(),
        )
    )
    assert sessions.select(pl.col("day", "user_id", "visits").max()).row(0) == (1, 1, 1)
    assert (sessions["first"] == "visit").all()
    assert sessions.height == lake.decisions.height
    assert lake.watermark == world.now


def test_churned_users_never_act_again() -> None:
    world = World(users=400, items=200, seed=2, config=WorldConfig(churn=0.03))
    gone: set[str] = set()
    for _ in range(8):
        before = world.now
        lake = world.run(Uniform(), days=3)
        assert not set(lake.events.filter(pl.col("time") >= before)["user_id"]) & gone
        assert not set(lake.decisions.filter(pl.col("time") >= before)["user_id"]) & gone
        gone |= set(world.users.filter(~pl.col("alive"))["user_id"])
    assert len(gone) > 50


def test_without_exposures_people_still_listen_and_discover() -> None:
    world = World(users=500, items=500, seed=4)
    lake = world.run(None, days=40)
    assert lake.decisions.is_empty()
    plays = by_day(lake.events.filter(pl.col("kind") == "play"))
    assert (plays["origin"] == "organic").all()
    late = plays.filter(pl.col("day") >= 30)
    assert late.height > 200
    before = plays.filter(pl.col("day") < 30).select("user_id", "creator_id").unique()
    assert late.join(before, on=["user_id", "creator_id"], how="anti").height > 50, "new creators are found without any slate"


def test_rates_are_those_of_a_plausible_service(lived: tuple[World, Lake]) -> None:
    world, lake = lived
    users = len(world.user_ids)
    events = by_day(lake.events)
    visits, plays = events.filter(pl.col("kind") == "visit"), events.filter(pl.col("kind") == "play")
    assert 0.30 < visits.height / users / 84 < 0.45
    assert 1 < plays.height / visits.height < 5
    per_user = visits.filter(pl.col("day") >= 56).height / users
    assert 8 < per_user < 12
    assert 0.75 < world.state.alive_R.mean() < 0.97
    first = plays.group_by("user_id", "creator_id").agg(pl.col("day").min().alias("start")).filter(pl.col("start").is_between(28, 55))
    organic = plays.filter(pl.col("origin") == "organic").select("user_id", "creator_id", "day").unique()
    in_window = (pl.col("day") - pl.col("start")).is_between(1, 28).fill_null(False)
    days = first.join(organic, on=["user_id", "creator_id"], how="left").with_columns(hit=in_window)
    habits = days.group_by("user_id", "creator_id").agg(pl.col("hit").sum())
    assert 0.10 < (habits["hit"] >= 3).mean() < 0.17  # type: ignore[operator]
    weekday = visits.group_by(pl.col("day") % 7).len()["len"]
    assert weekday.max() / weekday.min() > 1.01  # type: ignore[operator]


@pytest.mark.parametrize("correlation", [-0.8, -0.2, 0.0, 0.6, 1.0])
def test_appeal_and_depth_correlate_as_configured(correlation: float) -> None:
    catalogue = World(users=1, items=600, seed=1, config=WorldConfig(appeal_depth_correlation=correlation)).catalogue
    logit_appeal = np.log(catalogue.appeal_I / (1 - catalogue.appeal_I))
    assert np.corrcoef(logit_appeal, np.log(catalogue.depth_I))[0, 1] == pytest.approx(correlation, abs=1e-6)


def test_stock_stays_bounded_and_a_deep_logger_gains_plausibly() -> None:
    active = {}
    for name in ("uniform", "deep"):
        world = World(users=800, items=400, seed=6)
        policy = Uniform() if name == "uniform" else Deep(world)
        lake = world.run(policy, days=70)
        active[name] = by_day(lake.events.filter(pl.col("kind") == "visit")).filter(pl.col("day") >= 42).height / 800
        assert world.state.stock_RM.max() <= 2 * world.config.habit_limit
        assert world.state.stock_RM.min() >= 0
    assert 1.04 < active["deep"] / active["uniform"] < 1.40


# -- what a policy is told -----------------------------------------------------------------------


def test_history_holds_the_last_plays_before_the_visit_oldest_first() -> None:
    world = World(users=60, items=80, seed=9)
    lake = world.run(Watcher(history=3), days=12)
    plays = lake.events.filter(pl.col("kind") == "play").select("user_id", "item_id", then="time")
    checked = 0
    for row in lake.contexts.iter_rows(named=True):
        past = plays.filter((pl.col("user_id") == row["user_id"]) & (pl.col("then") < row["time"])).sort("then")["item_id"].to_list()
        assert row["history"] == past[-3:]
        checked += len(past) > 3
    assert checked > 20
    assert World(users=60, items=80, seed=9).run(Uniform(), days=3).contexts["history"].list.len().max() == 0


@pytest.mark.parametrize("exclude", ["seen", "creator"])
def test_exclusions_are_what_was_played_before(exclude: str) -> None:
    lake = World(users=60, items=300, seed=9, exclude=exclude).run(Uniform(), days=12)
    plays = lake.events.filter(pl.col("kind") == "play").select("user_id", "item_id", "creator_id", then="time")
    for row in lake.contexts.sample(80, seed=0).iter_rows(named=True):
        past = plays.filter((pl.col("user_id") == row["user_id"]) & (pl.col("then") < row["time"]))
        works = lake.items.filter(pl.col("creator_id").is_in(past["creator_id"].unique().implode()))["item_id"]
        assert set(row["exclusions"]) == set(past["item_id"] if exclude == "seen" else works)
    banned = lake.contexts.join(lake.decisions.select("context_id", "slate"), on="context_id")
    assert banned.select(pl.col("slate").list.set_intersection("exclusions").list.len().sum()).item() == 0


def test_popular_learns_from_yesterday_and_the_log_allows_recomputing_its_propensities() -> None:
    world = World(users=200, items=100, seed=1)
    lake = world.run(Popular(explore=0.2), days=3)
    names = by_day(lake.decisions.select("time", "policy")).group_by("day").agg(pl.col("policy").unique()).sort("day")["policy"]
    assert names.list.len().to_list() == [1, 1, 1]
    assert names.explode().n_unique() == 3
    start_of_day_2 = START + timedelta(days=2)
    version = Popular(explore=0.2).fit(lake.before(start_of_day_2))
    third = lake.decisions.filter(pl.col("time") >= start_of_day_2)
    assert third["policy"].unique().to_list() == [version.name]
    contexts = Contexts(lake.contexts.filter(pl.col("time") >= start_of_day_2))
    aligned = contexts.frame.select("context_id").join(third, on="context_id", maintain_order="left")
    assert np.array_equal(version.log_prob(contexts, aligned["slate"]), np.stack(aligned["log_prob"].to_list()))


# -- the truth -----------------------------------------------------------------------------------


def test_deep_items_are_worth_more_than_shallow_ones_of_equal_appeal(lived: tuple[World, Lake]) -> None:
    world, _ = lived
    depth_I, appeal_I = world.catalogue.depth_I, world.catalogue.appeal_I
    middling = np.abs(appeal_I - np.median(appeal_I)) < 0.08
    deep, shallow = np.flatnonzero(middling & (depth_I > 2)), np.flatnonzero(middling & (depth_I < 0.5))
    assert min(len(deep), len(shallow)) > 20
    rng = np.random.default_rng(0)
    users = world.users.filter("alive")["user_id"].sample(400, seed=0)
    items = np.stack([rng.choice(deep, 400), rng.choice(shallow, 400)], axis=1)
    for each in (signal(), signal("active_days", "enrolment", None)):
        value_NS = world.true_value(users, world.catalogue.index.slates(items), each)
        assert value_NS.shape == (400, 2)
        gap_N = value_NS[:, 0] - value_NS[:, 1]
        assert gap_N.mean() > 3 * gap_N.std() / 20


def test_a_familiar_creator_is_worth_exactly_nothing_to_a_discovery_signal(lived: tuple[World, Lake]) -> None:
    world, lake = lived
    recent = lake.events.filter((pl.col("kind") == "play") & (pl.col("time") >= world.now - timedelta(days=28)))
    alive = world.users.filter("alive")["user_id"].implode()
    pairs = recent.filter(pl.col("user_id").is_in(alive)).select("user_id", "creator_id").unique(maintain_order=True).sample(300, seed=1)
    items = pairs.join(lake.items.unique("creator_id", keep="first", maintain_order=True), on="creator_id", maintain_order="left")["item_id"]
    lists = items.to_frame().select(pl.concat_list("item_id"))["item_id"]
    assert (world.true_value(pairs["user_id"], lists, signal()) == 0).all()
    exposure = SimpleNamespace(**{**vars(signal()), "entry": SimpleNamespace(kind="exposure", of="creator", novel_for=None)})
    assert (world.true_value(pairs["user_id"], lists, exposure) != 0).any()  # type: ignore[arg-type]
    churned = world.users.filter(~pl.col("alive"))["user_id"].head(20)
    some = world.catalogue.index.slates(np.arange(20)[:, None])
    assert (world.true_value(churned, some, signal("active_days", "enrolment", None)) == 0).all()


@pytest.mark.parametrize("kind", ["days_with", "active_days"])
def test_the_truth_agrees_with_a_naive_count_of_shown_and_not_shown_lives(kind: str) -> None:
    """Brute force: each pair lives many times with the slate, the coin of the play included, and many times without it."""
    world = World(users=300, items=200, seed=11, config=WorldConfig(habit_gain=0.6, activity=0.0))
    world.run(Uniform(), days=5)
    each = signal(kind, "discovery" if kind == "days_with" else "enrolment", 3 if kind == "days_with" else None, window=(1, 14))
    order = np.argsort(-world.catalogue.depth_I * world.catalogue.appeal_I)
    pairs = [(user, int(order[rank])) for user, rank in ((3, 0), (40, 5), (111, 9), (250, 199)) if world.state.alive_R[user]]
    assert len(pairs) >= 3
    for user, item in pairs:
        value = world.true_value([world.user_ids[user]], pl.Series([[world.catalogue.index.ids[item]]]), each, replicates=6_000)[0, 0]
        brute, error = naive_value(world, user, item, kind, 14, copies=6_000)
        # as many lives on both sides, and the truth has no coin of the play: its error is the smaller one
        assert abs(value - brute) < 3 * np.sqrt(2) * error, (user, item, value, brute, error)


def naive_value(world: World, user: int, item: int, kind: str, last_day: int, copies: int) -> tuple[float, float]:
    creator = int(world.catalogue.creator_I[item])
    outcomes = []
    for branch in (1, 0):
        rows = np.full(copies, user)
        who, state = world.listeners.take(rows), world.state.take(rows)
        touched, days = np.zeros(copies, dtype=bool), np.zeros(copies)
        for after in range(last_day + 1):
            luck = Luck(900).on(np.arange(copies), after)
            state = wake(state, world.config)
            day = int((world.now - START).days) + after
            visiting = state.alive_R.copy() if after == 0 else visitors(who, state, luck, day, world.config)
            slate = Shown(np.arange(copies), np.full((copies, 1), item)) if branch and after == 0 else None
            state, plays = live(who, world.catalogue, state, visiting, slate, luck, world.config)
            for row, played, slot in zip(plays.row_P, plays.item_P, plays.slot_P, strict=True) if after == 0 else ():
                touched[row] |= world.catalogue.creator_I[played] == creator
                assert slot in (ORGANIC, 0)
            if after > 0:
                mine = plays.row_P[(world.catalogue.creator_I[plays.item_P] == creator) & (plays.slot_P == ORGANIC)]
                days += (np.bincount(mine, minlength=copies) > 0) if kind == "days_with" else visiting
        outcomes.append((touched & (days >= 3)).astype(float) if kind == "days_with" else days)
    difference = outcomes[0] - outcomes[1]
    return float(difference.mean()), float(difference.std() / np.sqrt(copies))


# -- errors --------------------------------------------------------------------------------------


def test_errors_name_the_key_the_value_and_the_range() -> None:
    with pytest.raises(ConfigError, match=r"appeal_depth_correlation=1.5 given, expected a number in \[-1.0, 1.0\]"):
        WorldConfig(appeal_depth_correlation=1.5)
    with pytest.raises(ConfigError, match=r"habit_slots=2.5 given, expected a whole number"):
        WorldConfig(habit_slots=2.5)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="churn=nan"):
        WorldConfig(churn=float("nan"))
    with pytest.raises(ConfigError, match="users=0"):
        World(users=0)
    with pytest.raises(ConfigError, match="exclude='heard' given, expected one of none, seen, creator"):
        World(users=1, items=5, exclude="heard")
    world = World(users=5, items=10)
    with pytest.raises(ConfigError, match="days=0"):
        world.run(None, days=0)
    with pytest.raises(DataError, match="user 'bob' is not in this world of 5 users"):
        world.true_value(["bob"], [["i000001"]], signal())
    with pytest.raises(ConfigError, match="measure minutes of None has no truth"):
        world.true_value(["u0000001"], [["i000001"]], signal("minutes", "enrolment"))


def test_progress_is_reported_once_a_day() -> None:
    calls: list[tuple[int, int]] = []
    World(users=10, items=20).run(None, days=3, progress=lambda done, days: calls.append((done, days)))
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_a_small_world_whose_users_are_all_gone_goes_on() -> None:
    world = World(users=3, items=10, config=WorldConfig(churn=0.5, churn_shape=50.0, habit_activity=0.0))
    lake = world.run(Uniform(slate=2), days=60)
    assert not world.state.alive_R.any()
    assert lake.watermark == world.now


# -- policies for these tests --------------------------------------------------------------------


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


class Deep:
    """Knows depth and appeal: slates by Plackett-Luce on their product."""

    history = 0
    slate = 5
    name = "deep@1"

    def __init__(self, world: World) -> None:
        weight_I = np.round(1_000 * world.catalogue.depth_I * world.catalogue.appeal_I).astype(int)
        names = world.catalogue.index.ids.gather(np.repeat(np.arange(len(weight_I)), weight_I))
        self.inner = Popular(explore=0.0).adapt(world.items, pl.DataFrame({"item_id": names, "kind": ["play"] * len(names)}))

    def decide(self, contexts: Contexts, rng: np.random.Generator) -> Decisions:
        return self.inner.decide(contexts.at_temperature(0.4), rng)

    def log_prob(self, contexts: Contexts, slates: pl.Series) -> np.ndarray:
        return self.inner.log_prob(contexts.at_temperature(0.4), slates)
