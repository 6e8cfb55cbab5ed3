"""What is true of a policy in a simulated service, against plain counts and against the log
itself."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

import longplay as lp
from longplay.decisions import Frozen
from longplay.errors import ConfigError, DataError
from longplay.estimate import clustered_mean
from longplay.policies.simple import ItemLaw, Popular, Uniform
from longplay.world import Forkable, World, WorldConfig, paired_truth
from longplay.world.truth.paired import far_seed

HABIT = lp.Signal(
    "habit", entry=lp.discovery(novel_for=28), measure=lp.days_with("creator") >= 2, window=(1, 14)
)
ACTIVE = lp.Signal("active", entry=lp.enrolment(), measure=lp.active_days(), window=(1, 14))


class Law:
    """Slates from one item law for everybody."""

    history, slate = 0, 3

    def __init__(self, name: str, world: World, score_I: np.ndarray) -> None:
        out_I = world.catalogue.release_I < 0
        log_p_I = np.where(out_I, 3.0 * (score_I - score_I.mean()) / score_I.std(), -np.inf)
        self.name, self.law = (
            f"{name}@1",
            ItemLaw(
                world.catalogue.index,
                log_p_I - np.logaddexp.reduce(log_p_I),
                np.zeros(len(log_p_I)),
            ),
        )

    def decide(self, contexts: lp.Contexts, rng: np.random.Generator) -> lp.Decisions:
        return self.law.decide(contexts, rng, self.name)

    def log_prob(self, contexts: lp.Contexts, slates: pl.Series) -> np.ndarray:
        return self.law.log_prob(contexts, slates)


@pytest.fixture(scope="module")
def world() -> World:
    world = World(users=600, items=150, seed=4)
    world.run(Popular(slate=3), days=20)
    return world


def test_the_truth_of_a_policy_is_a_plain_count_over_lives_lived_under_it(world: World) -> None:
    policy = Frozen(world.policy)  # type: ignore[arg-type]
    said = world.truth(policy, ACTIVE, seed=3)
    lives = world.fork(np.flatnonzero(world.state.alive_R), seed=far_seed(3))
    visits = lives.run(policy, days=14 + 15).events.filter(
        (pl.col("kind") == "visit") & (pl.col("time") >= world.now)
    )
    days = visits.select("user_id", day=(pl.col("time") - world.now).dt.total_days())
    first = (
        days.group_by("user_id")
        .agg(pl.col("day").min().alias("first"))
        .filter(pl.col("first") < 14)
    )
    later = days.join(first, on="user_id").filter(
        (pl.col("day") > pl.col("first")) & (pl.col("day") <= pl.col("first") + 14)
    )
    assert said.n == first.height > 300
    assert said.value == pytest.approx(later.height / first.height)


def test_a_longer_run_and_other_users_change_nobody_else(world: World) -> None:
    policy = Frozen(world.policy)  # type: ignore[arg-type]
    assert (
        world.truth(policy, ACTIVE, seed=3).value
        == world.truth(policy, ACTIVE, days=40, seed=3).value
    )
    assert (
        world.truth(policy, ACTIVE, users=100, seed=3).n
        < 100
        < world.truth(policy, ACTIVE, seed=3).n
    )


def test_differences_share_luck_and_deep_slates_beat_shallow_ones(world: World) -> None:
    deep, shallow = (
        Law(name, world, sign * np.log(world.catalogue.depth_I))
        for name, sign in (("deep", 1), ("shallow", -1))
    )
    paired = world.difference(deep, shallow, ACTIVE, days=60)
    assert paired.interval()[0] > 0
    alone = [world.truth(policy, ACTIVE, days=60) for policy in (deep, shallow)]
    assert paired.value == pytest.approx(alone[0].value - alone[1].value)
    assert paired.std_error < 0.6 * np.hypot(alone[0].std_error, alone[1].std_error)
    assert world.difference(deep, deep, ACTIVE, days=60).value == 0
    assert world.incremental(deep, HABIT).interval()[0] > 0  # discoveries that only showing made


def test_in_null_no_difference_is_anything_but_zero() -> None:
    null = World.named("null", users=150, items=80)
    null.run(Popular(slate=3), days=5)
    deep, shallow = (
        Law(name, null, sign * np.log(null.catalogue.depth_I))
        for name, sign in (("deep", 1), ("shallow", -1))
    )
    for other in (shallow, None):
        same = null.difference(deep, other, ACTIVE)
        assert same.value == same.std_error == 0


def test_one_step_into_the_loggers_own_choice_is_what_the_log_says() -> None:
    world = World(users=1_200, items=120, seed=5)
    logger = Uniform(slate=3)
    lake = world.run(logger, days=46)
    shown = HABIT.outcomes(lake).on(lake.decisions.filter(pl.col("surface") == "home")).frame
    mature = shown.filter(pl.col("value").is_not_null())
    logged = clustered_mean(mature["value"].to_numpy(), mature["user_id"].to_numpy())
    days = (mature["time"].max() - mature["time"].min()) // timedelta(days=1)  # type: ignore[operator]
    own = world.truth(
        Uniform(slate=3).fit(lake), HABIT, days=days + 1, estimand="one_step", logger=logger
    )
    assert abs(own.value - logged.value) < 4 * np.hypot(own.std_error, logged.std_error)
    assert own.value > 6 * own.std_error
    deep = world.truth(
        Law("deep", world, np.log(world.catalogue.depth_I)),
        HABIT,
        days=days + 1,
        estimand="one_step",
        logger=logger,
    )
    assert deep.value - own.value > 2 * np.hypot(own.std_error, deep.std_error)
    assert "one_step" in own.estimand


ITEM = lp.Signal(
    "item", entry=lp.discovery(novel_for=28, of="item"), measure=lp.days_with("item"), window=(1, 7)
)
KEPT = lp.Signal("kept", entry=lp.exposure(), measure=lp.days_with("creator"), window=(1, 7))


def one_step_against_the_log(
    world: World,
    logger: lp.decisions.Policy,
    own: lp.decisions.Policy,
    signal: lp.Signal,
    users: int,
) -> float:
    """(one_step value of the logger's own choice - what its log says) / standard error of both."""
    lake = world.run(logger, days=30)
    shown = (
        signal.outcomes(lake)
        .on(lake.decisions.filter(pl.col("surface") == "home"))
        .frame.filter(pl.col("value").is_not_null())
    )
    logged = clustered_mean(shown["value"].to_numpy(), shown["user_id"].to_numpy())
    days = (shown["time"].max() - shown["time"].min()) // timedelta(days=1) + 1  # type: ignore[operator]
    said = world.truth(own, signal, days=days, estimand="one_step", logger=logger, users=users)
    assert logged.value > 8 * logged.std_error
    return (said.value - logged.value) / float(np.hypot(said.std_error, logged.std_error))


def test_one_step_knows_a_known_item_from_a_known_creator() -> None:
    # catches: the last touch of the creator taken for one of the item, so that no new item of a
    # known creator is discovered (z -4.9)
    config = WorldConfig(habit_gain=0.6, activity=0.5, items_per_creator=10.0, new_share=0.0)
    world = World(users=500, items=80, seed=5, config=config)
    own = Uniform(slate=3).adapt(world.items, pl.DataFrame())
    assert abs(one_step_against_the_log(world, Uniform(slate=3), own, ITEM, users=300)) < 3.5


def test_one_step_lets_an_experiment_go_on_with_every_user_in_their_arm() -> None:
    # catches: a logger that hashes users is asked about copies under other names, which change arms
    # (z -3.1)
    config = WorldConfig(habit_gain=0.8, new_share=0.0, activity=0.5, popularity_tail=10.0)
    world = World(users=900, items=60, seed=5, config=config)
    arms = [
        Law(f"c{one}", world, (world.catalogue.creator_I == one).astype(float)) for one in (1, 2)
    ]  # each repeats one creator for ever
    trial = lp.Experiment(control=arms[0], treatment=arms[1], salt="x")
    assert abs(one_step_against_the_log(world, trial, trial, KEPT, users=500)) < 2.5


@dataclass
class Spy:
    """Notes what it is asked."""

    inner: lp.decisions.Policy
    history: int
    name: str = "spy@1"
    slate: int = 3
    asked: list[pl.DataFrame] = field(default_factory=list)

    def decide(
        self, contexts: lp.decisions.Contexts, rng: np.random.Generator
    ) -> lp.decisions.Decisions:
        self.asked.append(contexts.frame)
        return self.inner.decide(contexts, rng)

    def log_prob(self, contexts: lp.decisions.Contexts, slates: pl.Series) -> np.ndarray:
        return self.inner.log_prob(contexts, slates)


def test_one_step_asks_the_logger_about_its_users_and_no_more_history_than_it_wants() -> None:
    world = World(users=80, items=80, seed=3, config=WorldConfig(new_share=0.0))
    inner = Uniform(slate=3).adapt(world.items, pl.DataFrame())

    def asked(seed: int) -> tuple[set[str], int, int, pl.DataFrame]:
        logger, policy = Spy(inner, 2), Spy(inner, 9)
        world.truth(policy, HABIT, estimand="one_step", logger=logger, days=3, users=20, seed=seed)
        longest = [
            int(pl.concat(spy.asked)["history"].list.len().max() or 0) for spy in (logger, policy)
        ]  # type: ignore[arg-type]
        return set(pl.concat(logger.asked)["user_id"]), *longest, pl.concat(policy.asked)

    users, short, long, _ = asked(0)
    assert users <= set(world.user_ids)
    assert users != set(world.user_ids[:20])  # drawn, not the first
    assert users != asked(1)[0]
    assert short == 2
    assert long > 2


def test_what_was_never_shown_or_played_comes_to_zero(world: World) -> None:
    # catches: an error where the world knows that there was nothing
    silent = World(users=80, items=60, config=WorldConfig(search=0.0, start_habits=0.0))
    uniform = Uniform(slate=3).adapt(silent.items, pl.DataFrame())
    for signal in (HABIT, KEPT):
        assert silent.truth(None, signal).value == 0.0
        assert silent.incremental(uniform, signal).value == silent.truth(uniform, signal).value > 0


def test_what_cannot_be_answered_is_said(world: World) -> None:
    policy = Frozen(world.policy)  # type: ignore[arg-type]
    with pytest.raises(
        ConfigError, match="days=20 given, expected at least 29: 14 to enrol and 15 until active"
    ):
        world.truth(policy, ACTIVE, days=20)
    with pytest.raises(ConfigError, match="estimand='both' given"):
        world.truth(policy, ACTIVE, estimand="both")
    with pytest.raises(ConfigError, match=r"give policy and logger"):
        world.truth(policy, HABIT, estimand="one_step")
    with pytest.raises(ConfigError, match="logger and start are of estimand='one_step'"):
        world.truth(policy, ACTIVE, logger=policy)
    with pytest.raises(ConfigError, match="users=0 given"):
        world.truth(policy, HABIT, estimand="one_step", logger=policy, users=0)
    with pytest.raises(ConfigError, match="no slot owns it"):
        world.truth(policy, ACTIVE, estimand="one_step", logger=policy)


# -- in any simulator that can be forked ----------------------------------------------------------

CALM = lp.Signal("calm", lp.enrolment(), lp.active_days(), (1, 3))
BUSY = lp.Signal("busy", lp.enrolment(), lp.active_days(), (1, 5))
SEEN = lp.Signal("seen", lp.exposure("item"), lp.returned(), (1, 3))


class Clockwork:
    """User n comes on every (n + 1)-th day, and on each day after the item `good` was first shown.

    Nobody of `late` users comes before the third week. A seed changes nothing: there is no luck.
    """

    def __init__(self, users: int = 3, late: int = 0) -> None:
        self.day = 0
        self.late = late
        self.convinced = np.zeros(users, dtype=bool)
        self.lake = lp.Lake.memory()
        self.forks: list[int | None] = []

    start = datetime(2026, 1, 1, tzinfo=UTC)
    items = pl.DataFrame({"item_id": ["bad", "good"], "added_at": [start, start]})

    @property
    def now(self) -> datetime:
        return self.start + timedelta(days=self.day)

    def fork(self, *, seed: int | None = None) -> Clockwork:
        self.forks.append(seed)
        return copy.deepcopy(self)

    def run(self, policy, days, progress=None) -> lp.Lake:  # type: ignore[no-untyped-def]
        log: dict[str, list[pl.DataFrame]] = {"events": [], "contexts": [], "decisions": []}
        for _ in range(days):
            number = np.arange(len(self.convinced))
            due = (self.day % (number + 1) == 0) | self.convinced
            here = np.flatnonzero(due & ((number >= self.late) | (self.day >= 21)))
            names = pl.Series([f"u{n}" for n in here], dtype=pl.String)
            time = self.now + timedelta(hours=9)
            visit = pl.DataFrame({"event_id": names + f"@{self.day}", "user_id": names})
            log["events"].append(visit.with_columns(kind=pl.lit("visit"), time=pl.lit(time)))
            if policy is not None and len(here):
                contexts = lp.Contexts.of(names, time, slots=1, ids=names + f"-{self.day}")
                decisions = policy.decide(contexts, np.random.default_rng(self.day))
                self.convinced[here] |= decisions.slates.list.first().to_numpy() == "good"
                log["contexts"].append(contexts.frame)
                log["decisions"].append(decisions.frame)
            self.day += 1
        tables = {name: pl.concat(frames) for name, frames in log.items() if frames}
        self.lake.append(f"{self.day}", items=self.items, watermark=self.now, **tables)
        return self.lake.before(self.now)


class Shows:
    """Shows one item to everybody."""

    history, slate = 0, 1

    def __init__(self, item: str) -> None:
        self.item, self.name = item, f"shows-{item}@1"

    def decide(self, contexts: lp.Contexts, rng: np.random.Generator) -> lp.Decisions:
        slates = pl.Series("slate", [[self.item]]).new_from_index(0, len(contexts))
        return lp.Decisions.of(contexts, slates, np.zeros((len(contexts), 1)), self.name)

    def log_prob(self, contexts: lp.Contexts, slates: pl.Series) -> np.ndarray:
        return np.where(slates.list.first().to_numpy()[:, None] == self.item, 0.0, -np.inf)


def test_the_paired_truth_of_a_clockwork_is_counted_by_hand() -> None:
    service = Clockwork()
    assert isinstance(service, Forkable)
    truth = paired_truth(
        service, {"bad": Shows("bad"), "good": Shows("good"), "none": None}, [CALM, BUSY, SEEN]
    )
    # all enrol on day 0. Days 1 to 3: u0 comes on 3, u1 on day 2, u2 on day 3; once convinced, on 3.
    # Days 1 to 5: u0 on 5, u1 on days 2 and 4, u2 on day 3; once convinced, on 5.
    assert truth.value("bad", "calm").value == pytest.approx((3 + 1 + 1) / 3)
    assert truth.value("good", "calm").value == 3
    assert truth.difference("good", signal="calm").value == pytest.approx(4 / 3)
    # differences 0, 2 and 2: their standard error is that of three numbers
    assert truth.difference("good", signal="calm").std_error == pytest.approx(
        np.std([0, 2, 2], ddof=1) / np.sqrt(3)
    )
    assert truth.value("bad", "busy").value == pytest.approx((5 + 2 + 1) / 3)
    assert truth.difference("bad", "good", "busy").value == pytest.approx(-(15 - 8) / 3)
    # exposures of 14 days: u0 is shown 14 slots, u1 7 and u2 5, and each comes back within 3 days
    assert truth.value("bad", "seen").value == pytest.approx((14 + 7 + 5) / 3)
    assert truth.value("none", "seen").value == 0
    assert truth.difference("none", signal="calm").value == 0
    assert truth.difference("none", signal="calm").n == 3
    # the service has not moved; each policy had a copy of it, with one seed that is not the log's
    assert service.day == 0
    assert len(service.forks) == 3
    assert len(set(service.forks)) == 1
    assert service.forks[0] not in (None, 0)


def test_a_paired_truth_prints_as_a_table() -> None:
    truth = paired_truth(Clockwork(), {"bad": Shows("bad"), "good": Shows("good")}, CALM)
    head, bad, good = str(truth).splitlines()
    assert head.split()[:2] == ["signal", "policy"]
    assert head.endswith("less bad")
    assert bad.startswith("calm")
    assert "1.3" in good
    assert "<table>" in truth._repr_html_()
    assert truth.value("good").value == 3  # the only signal need not be named


def test_the_paired_truth_of_a_world_is_its_own_truth_and_difference_to_the_bit(
    world: World,
) -> None:
    deep, shallow = (
        Law(name, world, sign * np.log(world.catalogue.depth_I))
        for name, sign in (("deep", 1), ("shallow", -1))
    )
    assert isinstance(world, Forkable)
    policies = {"shallow": shallow, "deep": deep, "nothing": None}
    truth = paired_truth(world, policies, [ACTIVE, HABIT], days=50, seed=2)
    for signal in (ACTIVE, HABIT):
        for name, policy in policies.items():
            assert truth.value(name, signal.name) == world.truth(policy, signal, days=50, seed=2)
        assert truth.difference("deep", signal=signal.name) == world.difference(
            deep, shallow, signal, days=50, seed=2
        )
        assert truth.difference("deep", "nothing", signal.name) == world.incremental(
            deep, signal, days=50, seed=2
        )


def test_a_fork_of_all_users_is_the_fork_of_their_rows(world: World) -> None:
    policy = Frozen(world.policy)  # type: ignore[arg-type]
    rows = np.arange(len(world.user_ids))
    for seed in (None, 9):
        every = world.fork(seed=seed).run(policy, days=3)
        assert every.events.equals(world.fork(rows, seed=seed).run(policy, days=3).events)
        assert every.events.height > world.lake.events.height


def test_a_paired_truth_says_what_it_cannot_answer() -> None:
    policies = {"bad": Shows("bad")}
    with pytest.raises(
        ConfigError, match=r"days=17 given, expected at least 18: 14 to enrol and 4"
    ):
        paired_truth(Clockwork(), policies, CALM, days=17)
    with pytest.raises(ConfigError, match="0 policies and 1 signals given"):
        paired_truth(Clockwork(), {}, CALM)
    with pytest.raises(ConfigError, match="signals calm, calm given, expected a name for each"):
        paired_truth(Clockwork(), policies, [CALM, CALM])
    with pytest.raises(DataError, match="nobody visits in the first 14 days"):
        paired_truth(Clockwork(late=3), policies, CALM)
    truth = paired_truth(Clockwork(), policies, [CALM, BUSY])
    with pytest.raises(ConfigError, match="signal None given, expected one of calm, busy"):
        truth.value("bad")
    with pytest.raises(ConfigError, match="policy 'good' given, expected one of bad"):
        truth.difference("good", signal="calm")

    class Fixed(Clockwork):
        def fork(self) -> Fixed:  # type: ignore[override]
            return copy.deepcopy(self)

    with pytest.raises(ConfigError, match=r"fork\(seed=\.\.\.\) of Fixed fails.*check_simulator"):
        paired_truth(Fixed(), policies, CALM)


def test_other_visitors_under_the_one_policy_than_under_the_other_are_refused() -> None:
    """Where luck is common this cannot be: a first visit comes before anything is shown."""

    class Fickle(Clockwork):
        def run(self, policy, days, progress=None) -> lp.Lake:  # type: ignore[no-untyped-def]
            self.late = 2 if policy.item == "good" else 0
            return super().run(policy, days, progress)

    policies = {"bad": Shows("bad"), "good": Shows("good")}
    truth = paired_truth(Fickle(), policies, CALM)
    with pytest.raises(DataError, match="other users visit under the one policy"):
        truth.difference("good")
