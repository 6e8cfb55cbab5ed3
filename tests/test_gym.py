"""The Gymnasium interface: it passes Gymnasium's checks, leaks nothing, and lives the days that
`World.run` lives."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl
import pytest

gymnasium = pytest.importorskip("gymnasium")

from gymnasium.utils.env_checker import check_env, data_equivalence  # noqa: E402
from gymnasium.utils.env_match import check_environments_match  # noqa: E402
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv  # noqa: E402

from longplay.errors import ConfigError, DataError, MissingExtra  # noqa: E402
from longplay.lake import Lake  # noqa: E402
from longplay.policies.simple import Uniform  # noqa: E402
from longplay.world import START, WORLDS, World, WorldConfig  # noqa: E402
from longplay.world.gym import ID, WorldEnv, WorldVectorEnv, register  # noqa: E402

SMALL: dict[str, Any] = {"users": 40, "items": 60, "slots": 3, "history": 4}
RESTLESS = WorldConfig(churn=0.1, new_share=0.4, new_days=20)


@pytest.fixture
def registered() -> Iterator[None]:
    register()
    register()  # twice is once: Gymnasium would warn of an overridden id
    yield
    gymnasium.registry.pop(ID)


# -- Gymnasium's own checks ----------------------------------------------------------------------


@pytest.mark.parametrize("reward", ["active", "plays"])
def test_one_listener_passes_the_checker_without_a_warning(registered: None, reward: str) -> None:
    check_env(
        WorldEnv(**SMALL, reward=reward), skip_render_check=True
    )  # without a spec it cannot look for renderings
    check_env(gymnasium.make(ID, **SMALL, reward=reward).unwrapped)
    one, other = (gymnasium.make(ID, **SMALL, config=RESTLESS, days=20) for _ in range(2))
    check_environments_match(one, other, num_steps=60)


def test_it_is_made_by_its_id_alone_and_as_a_vector(registered: None) -> None:
    env = gymnasium.make(ID, items=50, users=20)
    seen, info = env.reset(seed=1)
    assert seen in env.observation_space
    assert info["available"].shape == (50,)
    many = gymnasium.make_vec(
        ID, num_envs=6, vectorization_mode="vector_entry_point", config="clickbait", **SMALL
    )
    assert isinstance(many, WorldVectorEnv)
    assert many.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    assert isinstance(
        gymnasium.make_vec(ID, num_envs=2, vectorization_mode="sync", **SMALL), SyncVectorEnv
    )


@pytest.mark.parametrize(
    ("imports", "name"),
    [("import longplay.world.gym", ID), ("import gymnasium", f"longplay.world.gym:{ID}")],
    ids=["imported", "module-in-the-id"],
)
def test_importing_the_module_registers_the_environment(imports: str, name: str) -> None:
    """In a fresh interpreter: nothing but an import stands before `gymnasium.make`."""
    code = f"""
{imports}
import gymnasium
env = gymnasium.make({name!r}, users=20, items=50)
seen, info = env.reset(seed=1)
print(env.spec.id, seen in env.observation_space, info["available"].shape)
"""
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    assert run.stdout == f"{ID} True (50,)\n"


def test_what_a_vector_returns_lies_in_its_spaces() -> None:
    many = WorldVectorEnv(30, **SMALL, config=RESTLESS, days=15)
    many.action_space.seed(1)
    seen, info = many.reset(seed=0)
    weekdays = set()
    for _ in range(40):
        assert seen in many.observation_space
        assert all(one in many.single_observation_space for one in split(seen, 30))
        assert info["available"].shape == (30, 60)
        weekdays |= set(seen["weekday"].tolist())
        seen, reward, terminated, truncated, info = many.step(many.action_space.sample())
        assert reward.shape == terminated.shape == truncated.shape == (30,)
        assert reward.dtype == np.float64
        assert not (terminated & truncated).any()
        assert set(reward.tolist()) <= {0.0, 1.0}
    assert weekdays == set(range(7))


def split(seen: dict[str, np.ndarray], n: int) -> list[dict[str, Any]]:
    return [{name: values[seat] for name, values in seen.items()} for seat in range(n)]


# -- nobody's days depend on who else is there ---------------------------------------------------


@pytest.mark.parametrize(
    "config", [RESTLESS, WorldConfig(drift=1.0, churn=0.05)], ids=["restless", "drift"]
)
def test_a_vector_of_n_equals_n_single_listeners_over_several_episodes(config: WorldConfig) -> None:
    n, options = 12, {**SMALL, "config": config, "days": 9}
    many: VectorEnv = WorldVectorEnv(n, **options)
    singles = SyncVectorEnv([lambda: WorldEnv(**options)] * n)
    many.action_space.seed(3)
    assert_alike(many.reset(seed=5), singles.reset(seed=5))
    ends = np.zeros(2)
    for _ in range(45):
        actions = many.action_space.sample()
        here, there = many.step(actions), singles.step(actions)
        assert_alike(here[:4], there[:4])
        assert_infos_alike(here[4], there[4])
        ends += here[2].sum(), here[3].sum()
    assert (ends > 10).all(), "episodes ended in both ways, and others began"
    assert_alike(many.reset(), singles.reset())


def assert_alike(here: tuple[Any, ...], there: tuple[Any, ...]) -> None:
    assert len(here) == len(there)
    for one, other in zip(here, there, strict=True):
        if isinstance(one, dict) and "visits" not in one:
            assert_infos_alike(one, other)
        else:
            assert data_equivalence(one, other, exact=True)


def assert_infos_alike(one: dict[str, Any], other: dict[str, Any]) -> None:
    for key in other:
        values = one[key] if key.startswith("_") else one[key][one["_" + key]]
        expected = other[key] if key.startswith("_") else other[key][other["_" + key]]
        assert np.array_equal(values, expected), key


def test_a_listener_is_the_same_in_any_environment() -> None:
    options = {**SMALL, "config": RESTLESS, "days": 25}
    many, some = WorldVectorEnv(6, **options), WorldVectorEnv(3, **options)
    everyone, seats = [3, 8, 21, 30, 45, 1000], np.array([4, 1, 0])
    many.reset(seed=everyone)
    some.reset(seed=[everyone[seat] for seat in seats])
    many.action_space.seed(1)
    for _ in range(60):
        actions = many.action_space.sample()
        here, there = many.step(actions), some.step(actions[seats])
        for name, values in there[0].items():
            assert np.array_equal(here[0][name][seats], values), name
        for one, other in zip(here[1:4], there[1:4], strict=True):
            assert np.array_equal(one[seats], other)


def test_seeds_are_listeners_and_other_seeds_other_lives() -> None:
    def days(seed: int) -> list[int]:
        env = WorldEnv(**SMALL, days=40)
        seen, _ = env.reset(seed=seed)
        visits = [seen["visits"]]
        for _ in range(39):
            visits.append(env.step(np.array([1, 2, 3]))[0]["visits"])
        return [int(one) for one in visits]

    assert days(2) == days(2)
    lives = [days(seed) for seed in (2, 3, 42)]  # 42 is listener 2 of 40 again, with other luck
    assert lives[0] != lives[1]
    assert lives[0] != lives[2]


def test_an_unseeded_reset_is_another_listener_and_the_seed_before_says_which() -> None:
    env = WorldEnv(**SMALL)
    histories = []
    for _ in range(2):
        env.reset(seed=4)
        starts = [env.reset()[0] for _ in range(8)]
        histories.append([(int(seen["visits"]), float(seen["away"][0])) for seen in starts])
        assert all(int(seen["weekday"]) == START.weekday() for seen in starts), (
            "every episode begins on day 0"
        )
        assert not any(seen["history"].any() for seen in starts)
    assert histories[0] == histories[1]
    assert len(set(histories[0])) > 2


# -- the days of World.run -----------------------------------------------------------------------


def test_the_days_are_those_of_a_world_that_shows_the_same_slates() -> None:
    users, days, history = 120, 25, 6
    world = World(users=users, items=100, seed=11, config=RESTLESS)
    lake = world.run(Uniform(slate=4), days=days)
    slates, visits, plays = logged(world, lake, days)
    many = WorldVectorEnv(
        users,
        config=RESTLESS,
        users=users,
        items=100,
        seed=11,
        slots=4,
        days=days + 1,
        history=history,
    )
    seen, info = many.reset(seed=0)
    gone = np.zeros(users, dtype=bool)
    for day in range(days):
        assert np.array_equal(np.where(gone, 0, seen["visits"]), visits[day])
        assert (info["available"] == (world.catalogue.release_I <= day))[~gone].all()
        assert_history(world, lake, seen["history"], ~gone, day)
        seen, reward, terminated, truncated, info = many.step(slates[day])
        assert np.array_equal(np.where(gone, 0, reward), visits[day])
        assert np.array_equal(np.where(gone[:, None], False, info["played"]), plays[day])
        assert not truncated.any()
        gone |= terminated
    assert np.array_equal(~gone, world.state.alive_R)
    assert gone.sum() > 20
    assert plays.sum() > 300


def logged(world: World, lake: Lake, days: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(slates [T, U, S] as item rows, 0 where there is none; visits [T, U]; which slots were played
    [T, U, S])."""
    users = len(world.user_ids)

    def where(frame: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        day = (frame["time"] - START).dt.total_days().to_numpy()
        return day, frame["user_id"].str.strip_prefix("u").cast(pl.Int64).to_numpy()

    home = lake.decisions.filter(pl.col("surface") == "home")
    slates, visits, plays = (
        np.zeros((days, users, 4), dtype=np.int64),
        np.zeros((days, users), dtype=np.int64),
        np.zeros((days, users, 4), dtype=bool),
    )
    slates[where(home)] = world.catalogue.index.slate_rows(home["slate"])
    visits[where(lake.events.filter(pl.col("kind") == "visit"))] = 1
    played = lake.events.filter((pl.col("kind") == "play") & (pl.col("surface") == "home"))
    plays[(*where(played), played["slot"].to_numpy())] = True
    return slates, visits, plays


def assert_history(
    world: World, lake: Lake, history_UH: np.ndarray, there_U: np.ndarray, day: int
) -> None:
    """The last plays before this day, autoplay aside, latest first."""
    if day % 6:
        return
    plays = lake.events.filter((pl.col("kind") == "play") & (pl.col("origin") != "autoplay"))
    past = plays.filter((pl.col("time") - START).dt.total_days() < day).sort(
        "time", descending=True
    )
    last = dict(
        past.group_by("user_id", maintain_order=True)
        .agg(pl.col("item_id").head(history_UH.shape[1]))
        .rows()
    )
    for user in np.flatnonzero(there_U):
        items = last.get(world.user_ids[int(user)], [])
        expected = world.catalogue.index.rows(pl.Series(items, dtype=pl.String)) + 1
        assert history_UH[user].tolist() == expected.tolist() + [0] * (
            history_UH.shape[1] - len(items)
        )


def test_away_counts_the_days_since_the_last_visit() -> None:
    env = WorldEnv(**SMALL, days=50)
    seen, _ = env.reset(seed=6)
    since = float(seen["away"][0])
    for _ in range(49):
        here = seen["visits"]
        seen = env.step(np.array([0, 1, 2]))[0]
        since = 0.0 if here else since + 1
        assert seen["away"][0] == since


# -- what an action does -------------------------------------------------------------------------


def test_a_repeated_item_is_shown_once_and_an_unreleased_one_not_at_all() -> None:
    options: dict[str, Any] = {
        **SMALL,
        "users": 200,
        "config": WorldConfig(click=0.9, new_share=0.3),
        "days": 30,
    }
    envs = [WorldVectorEnv(200, **options) for _ in range(2)]
    (seen, info), _ = (env.reset(seed=0) for env in envs)
    late_I = envs[0].catalogue.release_I
    unreleased, later = np.flatnonzero(late_I > 40)[:2]
    first, second = np.flatnonzero(late_I < 0)[:2]
    played = np.zeros((2, 3))
    for _ in range(25):
        slates = (np.array([first, first, second]), np.array([first, unreleased, second]))
        (seen, _, terminated, _, info), other = (
            env.step(np.tile(slate, (200, 1))) for env, slate in zip(envs, slates, strict=True)
        )
        assert not info["available"][:, unreleased].any()
        assert np.array_equal(seen["history"], other[0]["history"]), (
            "an empty slot is an empty slot"
        )
        assert np.array_equal(seen["visits"], other[0]["visits"])
        assert np.array_equal(terminated, other[2])
        played += info["played"].sum(axis=0), other[4]["played"].sum(axis=0)
    assert (played[:, 1] == 0).all()
    assert (played[:, [0, 2]] > 100).all()
    assert later != unreleased


def test_an_action_matters_only_where_the_listener_is_here() -> None:
    options = {**SMALL, "users": 200, "days": 30}
    one, other = WorldVectorEnv(200, **options), WorldVectorEnv(200, **options)
    seen, _ = one.reset(seed=0)
    other.reset(seed=0)
    rng = np.random.default_rng(0)
    for _ in range(20):
        slates, noise = rng.integers(0, 60, (2, 200, 3))
        here = seen["visits"].astype(bool)[:, None]
        seen, reward, *_ = one.step(slates)
        also, same_reward, *_ = other.step(np.where(here, slates, noise))
        assert data_equivalence(seen, also, exact=True)
        assert np.array_equal(reward, same_reward)


def test_plays_are_rewarded_if_plays_are_asked_for() -> None:
    active, plays = (WorldVectorEnv(60, **SMALL, reward=reward) for reward in ("active", "plays"))
    active.reset(seed=0)
    plays.reset(seed=0)
    active.action_space.seed(1)
    total = 0.0
    for _ in range(15):
        actions = active.action_space.sample()
        (_, visited, _, _, _), (_, reward, _, _, info) = active.step(actions), plays.step(actions)
        assert np.array_equal(reward, info["played"].sum(axis=1))
        assert (reward[visited == 0] == 0).all()
        total += reward.sum()
    assert total > 50


# -- episodes ------------------------------------------------------------------------------------


def test_leaving_terminates_days_truncate_and_the_next_step_begins_anew() -> None:
    many = WorldVectorEnv(80, **SMALL, config=RESTLESS, days=12)
    many.action_space.seed(0)
    seen, _ = many.reset(seed=0)
    age, over = np.zeros(80, dtype=int), np.zeros(80, dtype=bool)
    ends = np.zeros(2)
    for _ in range(50):
        before, was_over = seen, over
        seen, reward, terminated, truncated, info = many.step(many.action_space.sample())
        age = np.where(was_over, 0, age + 1)
        assert np.array_equal(info["_played"], ~was_over)
        assert (reward[was_over] == 0).all()
        assert not (terminated | truncated)[was_over].any()
        assert not seen["history"][was_over].any()
        assert (seen["weekday"] == (START.weekday() + age) % 7).all()
        assert np.array_equal(truncated, (age == 12) & ~terminated)
        assert not seen["visits"][terminated].any()
        assert np.array_equal(reward[~was_over], before["visits"][~was_over])
        over = terminated | truncated
        ends += terminated.sum(), truncated.sum()
    assert (ends > 30).all()


def test_a_deeper_slate_policy_gets_more_active_days_than_an_appealing_one_where_appeal_is_bait() -> (
    None
):
    def active_days(what: str, config: str, listeners: int, days: int) -> np.ndarray:
        """Active days of listeners in their first `days` days, under the same luck; shape [N]."""
        many = WorldVectorEnv(listeners, config=config, users=listeners, items=300, days=days + 1)
        many.reset(seed=0)
        rng, released = np.random.default_rng(0), many.catalogue.release_I < 0
        best = np.argsort(-np.where(released, getattr(many.catalogue, what), -np.inf))[:40]
        total, there = np.zeros(listeners), np.ones(listeners, dtype=bool)
        for _ in range(days):
            _, reward, terminated, _, _ = many.step(
                best[rng.random((listeners, 40)).argsort(axis=1)[:, :5]]
            )
            total += reward * there
            there &= ~terminated
        return total

    gain = active_days("depth_I", "clickbait", 400, 60) - active_days(
        "appeal_I", "clickbait", 400, 60
    )
    assert gain.mean() > 4 * gain.std() / 20
    in_null = [active_days(what, "null", 100, 20) for what in ("depth_I", "appeal_I")]
    assert np.array_equal(*in_null), "where nothing lasts nothing can be gained"


# -- errors --------------------------------------------------------------------------------------


def test_errors_say_what_was_given_and_expected() -> None:
    for options, message in (
        ({"slots": 0}, "slots=0 given, expected at least 1"),
        ({"days": 1}, "days=1 given, expected at least 2"),
        ({"num_envs": 0}, "num_envs=0 given, expected at least 1"),
        ({"reward": "clicks"}, "reward='clicks' given, expected one of active, plays"),
        ({"config": "clickbate"}, "'clickbate' given, expected one of default, clickbait"),
    ):
        with pytest.raises(ConfigError, match=message):
            WorldVectorEnv(**(SMALL | options))
    many = WorldVectorEnv(2, **SMALL)
    with pytest.raises(gymnasium.error.ResetNeeded, match="call reset"):
        many.step(np.zeros((2, 3), dtype=int))
    many.reset(seed=0)
    with pytest.raises(
        DataError,
        match=r"actions of shape \(3,\) and type int64 given, expected \(2, 3\) item rows",
    ):
        many.step(np.zeros(3, dtype=int))
    with pytest.raises(DataError, match="item rows 0 to 60 given, expected 0 to 59"):
        many.step(np.array([[0, 1, 2], [0, 1, 60]]))
    with pytest.raises(
        ConfigError,
        match=r"seed=\[1, 2, 3\] given, expected a whole number >= 0, or one for each of 2 environments",
    ):
        many.reset(seed=[1, 2, 3])
    env = WorldEnv(**SMALL, config=WorldConfig(churn=0.5, churn_shape=50.0))
    env.reset(seed=0)
    while not env.step(np.array([0, 1, 2]))[2]:
        pass
    with pytest.raises(gymnasium.error.ResetNeeded, match="call reset"):
        env.step(np.array([0, 1, 2]))


def test_the_numbers_of_a_world_may_be_given_by_its_name() -> None:
    by_name, by_numbers = (
        WorldVectorEnv(2, **SMALL, config="clickbait"),
        WorldVectorEnv(2, **SMALL, config=WorldConfig.of(WORLDS["clickbait"].numbers)),
    )
    assert by_name.catalogue is by_numbers.catalogue, "and what does not change is made once"
    assert np.array_equal(
        by_name.catalogue.depth_I, World.named("clickbait", users=1, items=60).catalogue.depth_I
    )


def test_without_gymnasium_one_sentence_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    monkeypatch.delitem(sys.modules, "longplay.world.gym")
    with pytest.raises(
        MissingExtra, match=r"longplay.world.gym needs gymnasium: pip install 'longplay\[gym\]'"
    ):
        importlib.import_module("longplay.world.gym")
    importlib.import_module("longplay.world")  # the world itself does without
