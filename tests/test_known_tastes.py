"""What a simulated service knows of tastes by itself: noisy factors of users and items."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

import longplay as lp
from longplay.decisions import Contexts, Decisions
from longplay.errors import ConfigError
from longplay.lake import Lake
from longplay.lake.known import as_matrix, item_vectors, user_vectors
from longplay.policies.simple import Popular, Uniform
from longplay.world import START, WORLDS, World, WorldConfig

TRIED = lp.Signal("tried", entry=lp.exposure("item"), measure=lp.days_with("item"), window=(1, 2))
# items share nothing with each other
WIDE = WorldConfig(items_per_creator=1.0, new_share=0.3, appeal_depth_correlation=0.0)


@dataclass(frozen=True)
class Reader(Uniform):
    """Shows anything, reads what is known of users, and keeps the contexts it was handed."""

    reads_users: bool = True
    seen: list[Contexts] = field(default_factory=list, compare=False)

    def decide(self, contexts: Contexts, rng: np.random.Generator) -> Decisions:
        self.seen.append(contexts)
        return super().decide(contexts, rng)


def user_matrix(world: World) -> np.ndarray:
    """The vectors of all users in the world's lake, [U, K]."""
    assert world.lake.users["user_id"].equals(world.user_ids)
    return as_matrix(world.lake.users["vector"], world.user_ids)


def item_matrix(world: World) -> np.ndarray:
    """The vectors of the whole catalogue, [I, K]."""
    return as_matrix(world.catalogue.frame["vector"], world.catalogue.index.ids)


def standard(x_RD: np.ndarray) -> np.ndarray:
    return (x_RD - x_RD.mean(axis=0)) / x_RD.std(axis=0)


def turned_back(vector_RD: np.ndarray, z_RD: np.ndarray) -> np.ndarray:
    """The orthogonal matrix that brings the vectors closest to z (Schoenemann 1966)."""
    left, _, right = np.linalg.svd(vector_RD.T @ z_RD)
    return left @ right


@pytest.mark.parametrize("known", [0.3, 0.8, 1.0])
def test_known_is_the_correlation_of_every_coordinate_with_the_true_taste(known: float) -> None:
    config = replace(WIDE, genres=5, known=known)
    world = World(users=6_000, items=6_000, seed=9, config=config)
    world.run(None, days=1)
    user_UK, item_IK = user_matrix(world), item_matrix(world)
    z_UD, z_ID = standard(world.listeners.taste_UD), standard(world.catalogue.taste_ID)
    back = turned_back(user_UK, z_UD)
    assert np.abs(back - np.eye(5)).max() > 0.3, "no coordinate is a genre"
    for vector, z in ((user_UK, z_UD), (item_IK, z_ID)):
        # the rotation that is found on the users holds for the items
        factor = vector @ back
        for coordinate in range(5):
            correlation = np.corrcoef(factor[:, coordinate], z[:, coordinate])[0, 1]
            assert correlation == pytest.approx(known, abs=0.04)
        # the noise is new for every row and coordinate
        noise = factor - known * z
        spread = np.sqrt(1 - known**2)
        assert noise.std(axis=0) == pytest.approx(np.full(5, spread), abs=0.04)
        if known < 1:
            correlations = np.corrcoef(noise.T) - np.eye(5)
            assert np.abs(correlations).max() < 0.06
    # the two agree on what goes with what
    product, match = user_UK @ item_IK.T, world.listeners.taste_UD @ world.catalogue.taste_ID.T
    expected = known**2 * np.corrcoef((z_UD @ z_ID.T).ravel(), match.ravel())[0, 1]
    assert np.corrcoef(product.ravel(), match.ravel())[0, 1] == pytest.approx(expected, abs=0.03)
    assert expected > 0.8 * known**2


def test_nothing_else_that_is_hidden_is_in_a_vector() -> None:
    config = replace(WIDE, genres=4, known=0.9)
    world = World(users=4_000, items=4_000, seed=3, config=config)
    world.run(None, days=1)
    items, users, row = world.catalogue, world.listeners, np.arange(4_000)
    hidden_I = [items.appeal_I, np.log(items.depth_I), items.loop_I, np.log(items.fame_I)]
    hidden_U = [
        users.activity_U,
        users.churn_U,
        users.novelty_U,
        np.log(users.click_U),
        np.log(users.liking(row, row % 7, config)),
    ]
    for vector_RK, hidden in ((item_matrix(world), hidden_I), (user_matrix(world), hidden_U)):
        for values in hidden:
            for coordinate in vector_RK.T:
                assert abs(np.corrcoef(coordinate, values)[0, 1]) < 0.065  # four standard errors


def test_vectors_depend_on_the_user_and_the_seed_alone() -> None:
    def users_of(users: int = 40, items: int = 60, seed: int = 5, drift: float = 0.0) -> np.ndarray:
        config = WorldConfig(known=0.6, drift=drift)
        world = World(users=users, items=items, seed=seed, config=config)
        world.run(None, days=2)
        return user_matrix(world)

    usual = users_of()
    assert np.array_equal(usual, users_of(users=150)[:40]), "more users change nobody's vector"
    assert np.array_equal(usual, users_of(items=90)), "nor do more items"
    assert np.array_equal(usual, users_of(drift=1.5)), (
        "a drifting taste is known as it was at first"
    )
    assert not np.isclose(usual, users_of(seed=6)).any()
    few, many = (
        item_matrix(World(users=users, items=60, seed=5, config=WorldConfig(known=0.6)))
        for users in (10, 80)
    )
    assert np.array_equal(few, many)


@pytest.mark.parametrize("name", ["default", "weary", "drift"])
def test_lives_are_the_same_however_much_is_known(name: str) -> None:
    def life(known: float) -> Lake:
        numbers = dict(WORLDS[name].numbers) | {"known": known}
        world = World(users=80, items=60, seed=2, config=WorldConfig.of(numbers))
        return world.run(Popular(slate=3, explore=0.2), days=6)

    nothing, much = life(0.0), life(0.7)
    for table in ("events", "decisions", "contexts"):
        assert_frame_equal(getattr(nothing, table), getattr(much, table))
    assert_frame_equal(nothing.items.drop("vector"), much.items.drop("vector"))
    assert nothing.users.is_empty()
    assert nothing.items["vector"].null_count() == nothing.items.height
    assert much.items["vector"].null_count() == 0


@pytest.mark.parametrize("on_disk", [False, True])
def test_what_is_known_is_there_before_it_is_needed(on_disk: bool, tmp_path: Path) -> None:
    config = WorldConfig(known=0.5, new_share=0.5, new_days=10)
    folder = tmp_path / "lake" if on_disk else None
    world = World(users=50, items=60, seed=4, config=config, folder=folder)
    assert world.items["vector"].null_count() == 0
    world.run(Uniform(slate=3), days=4)
    middle = world.now
    lake = world.run(Reader(slate=3), days=4)
    assert lake.users.height == 50
    assert (lake.users["ingested_at"] < START).all()
    first = lake.before(START + timedelta(microseconds=1))
    assert not np.isnan(user_vectors(first, world.user_ids, START)).any()
    assert not np.isnan(item_vectors(first, first.items["item_id"])).any()
    assert lake.descriptions("users").height == 50, "described once, however often it runs"
    assert lake.items.height == world.items.height > first.items.height
    assert lake.items["ingested_at"].equals(lake.items["added_at"])
    home = lake.contexts.filter(pl.col("surface") == "home")
    read = home.filter(pl.col("time") >= middle)
    unread = lake.contexts.join(read, on="context_id", how="anti")
    assert unread["user_vector"].null_count() == unread.height
    expected = user_vectors(lake, read["user_id"], read["time"])
    assert np.array_equal(as_matrix(read["user_vector"], read["user_id"]), expected)
    assert read.height > 20


def test_policies_that_read_users_get_nothing_where_nothing_is_known() -> None:
    lake = World(users=30, items=40).run(Reader(slate=3), days=2)
    assert lake.contexts["user_vector"].null_count() == lake.contexts.height > 0


def test_forks_keep_what_is_known_of_their_users() -> None:
    world = World(users=40, items=60, seed=4, config=WorldConfig(known=0.5))
    rows = np.array([31, 4, 17])
    early = world.fork(rows, seed=1)
    world.run(Uniform(slate=3), days=3)
    vectors = dict(world.lake.users.select("user_id", "vector").iter_rows())
    names = pl.Series(["x", "y", "z"])
    for fork in (
        early,
        world.fork(rows, seed=1),
        world.fork(rows, history=False),
        world.fork(rows).fork(np.array([2, 0])),
    ):
        lake = fork.run(Reader(slate=3), days=5)
        home = lake.contexts.filter(pl.col("surface") == "home")
        assert home.height > 0
        for user, vector in home.select("user_id", "user_vector").iter_rows():
            assert vector == vectors[user]
        assert dict(lake.users.select("user_id", "vector").iter_rows()) == {
            user: vectors[user] for user in fork.user_ids
        }
    copies = world.fork(rows, ids=names, history=False)
    users = copies.run(Uniform(slate=3), days=1).users
    assert users["user_id"].equals(names)
    assert users["vector"].to_list() == [vectors[user] for user in world.user_ids.gather(rows)]


def test_truth_hands_out_what_is_known_of_the_copied_users() -> None:
    config = WorldConfig(known=0.5, new_share=0.0)
    world = World(users=20, items=40, seed=4, config=config)
    lake = world.run(Uniform(slate=3), days=2)
    logger, target = (Reader(slate=3).fit(lake) for _ in range(2))
    silent = Reader(slate=3, reads_users=False).fit(lake)
    world.truth(target, TRIED, days=1, estimand="one_step", logger=logger)
    world.truth(silent, TRIED, days=1, estimand="one_step", logger=logger)
    vectors = dict(lake.users.select("user_id", "vector").iter_rows())
    for policy in (logger, target):
        handed_out = pl.concat([contexts.frame for contexts in policy.seen])
        for user, vector in handed_out.select("user_id", "user_vector").iter_rows():
            assert vector == vectors[user]
    assert silent.seen
    assert all(part.frame["user_vector"].null_count() == len(part) for part in silent.seen)


@pytest.mark.parametrize(("genres", "items"), [(1, 1), (1, 30), (3, 2), (64, 30)])
def test_small_worlds_have_finite_vectors(genres: int, items: int) -> None:
    config = WorldConfig(known=1.0, genres=genres, new_share=0.0)
    world = World(users=3, items=items, seed=1, config=config)
    world.run(None, days=1)
    for vector_RK in (user_matrix(world), item_matrix(world)):
        assert vector_RK.shape[1] == genres
        assert np.isfinite(vector_RK).all()
        assert np.abs(vector_RK).max() < 50


@pytest.mark.parametrize("known", [-0.1, 1.5, float("nan"), "much", True])
def test_known_is_a_share(known: object) -> None:
    with pytest.raises(ConfigError, match=r"known=.* given, expected a number in \[0.0, 1.0\]"):
        WorldConfig(known=known)  # type: ignore[arg-type]
