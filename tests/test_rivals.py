"""Ways of learning beside reinforcement: off-policy gradient, weighted classification and preference
pairs, against enumeration and on a log whose better items are known."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from test_learning import HABIT, REWARD_OF_HABIT, US, Stop, same_weights, stop_at
from torch import Tensor

import longplay as lp
from longplay.belief import Belief
from longplay.decisions import Contexts, contexts_from_log, ope_users
from longplay.errors import ConfigError, DataError
from longplay.lake import Lake
from longplay.learning.classification import classification_loss, weighted_classification
from longplay.learning.exposures import Exposures
from longplay.learning.off_policy import (
    CAP,
    _step,
    estimated_divergence,
    importance_weight,
    off_policy_gradient,
    off_policy_loss,
)
from longplay.learning.preferences import preference_loss, preference_pairs
from longplay.learning.rollout import reward_spread
from longplay.learning.trainer import Learner, Task
from longplay.policies.generative_policy import Generative
from longplay.policies.plackett import plackett_luce_log_prob
from longplay.rewards import Reward
from longplay.rewards.guardrails import coverage

torch.set_num_threads(1)

START = datetime(2026, 1, 1, tzinfo=UTC)
ITEMS = [f"i{k}" for k in range(6)]
WORTH = {"i0": 0.9, "i1": 0.1, "i2": 0.3, "i3": 0.0, "i4": 0.6, "i5": 0.2}
LOGGER = np.array([1, 2, 3, 4, 5, 5]) / 20  # the logger's law of the first slot
SLOTS = 2
LEARNERS = [user for user in map("u{}".format, range(60)) if not ope_users(pl.Series([user]))[0]]
WAYS: dict[str, Callable[..., Generative]] = {
    "off_policy_gradient": off_policy_gradient,
    "weighted_classification": weighted_classification,
    "preference_pairs": preference_pairs,
}
LOGGED = ("off_policy_gradient", "weighted_classification")  # ways that learn from logged slots
every_way = pytest.mark.parametrize("way", WAYS)


@dataclass(frozen=True)
class Believes:
    """An early reward that knows what each item is worth, whoever is shown it, plus a constant."""

    worth: Mapping[str, float] = field(default_factory=lambda: WORTH)
    constant: float = 0.0
    name: str = "believes"
    signal: lp.Signal = HABIT

    def value(self, contexts: Contexts, slates: pl.Series, lake: Lake) -> Belief:
        mean = np.array([[self.worth[item] for item in slate] for slate in slates.to_list()])
        mean = mean + self.constant
        return Belief(mean, np.zeros_like(mean), np.ones_like(mean), 7, HABIT.label, minimum=-9.0)


class ByPlace(Believes):
    """An early reward that tells users, items, places and slates apart."""

    def value(self, contexts: Contexts, slates: pl.Series, lake: Lake) -> Belief:
        mean = np.array(
            [
                [self.of(user, surface, slate, place) for place in range(len(slate))]
                for user, surface, slate in zip(
                    contexts.frame["user_id"], contexts.frame["surface"], slates.to_list()
                )
            ]
        )
        return Belief(mean, np.zeros_like(mean), np.ones_like(mean), 7, HABIT.label)

    def of(self, user: str, surface: str, slate: list[str], place: int) -> float:
        above = sum(int(item[1:]) for item in slate[:place])
        return int(user[1:]) + int(slate[place][1:]) / 10 + above / 1_000 + len(surface) / 10_000


def lake_of(slates: list[dict[str, object]]) -> Lake:
    """Users who play items on days 1 to 5, and these slates, which were shown on days 0 to 4."""
    rng = np.random.default_rng(0)
    plays = [
        (user, ITEMS[int(rng.integers(6))], START + timedelta(days=day, hours=9))
        for user, day in itertools.product([f"u{k}" for k in range(60)], range(1, 6))
    ]
    user, item, time = zip(*plays, strict=True)
    lake = Lake.memory()
    lake.append(
        "all",
        events=pl.DataFrame(
            {
                "event_id": [f"e{k}" for k in range(len(plays))],
                "user_id": user,
                "item_id": item,
                "creator_id": ["c" + name[1:] for name in item],
                "kind": ["play"] * len(plays),
                "time": pl.Series(time, dtype=US),
            }
        ),
        items=pl.DataFrame(
            {
                "item_id": ITEMS,
                "creator_id": [f"c{k}" for k in range(6)],
                "added_at": pl.Series([START] * 6, dtype=US),
            }
        ),
        decisions=pl.DataFrame(slates).with_columns(pl.col("time").cast(US)) if slates else None,
        watermark=START + timedelta(days=8),
    )
    return lake


def slate(number: int, user: str, day: int, items: list[str], log_prob: list[float]) -> dict:
    return {
        "decision_id": f"d{number}",
        "context_id": f"x{number}",
        "user_id": user,
        "time": START + timedelta(days=day, hours=8),
        "surface": "home" if number % 3 else "shelf",
        "slate": items,
        "log_prob": log_prob,
        "policy": "logger@1",
    }


@pytest.fixture(scope="module")
def lake() -> Lake:
    """Slates of up to three slots, drawn without replacement from `LOGGER`; some with an item that
    the catalogue does not have."""
    rng = np.random.default_rng(1)
    slates = []
    for user, day in itertools.product([f"u{k}" for k in range(60)], range(5)):
        count = int(rng.integers(1, 4))
        rows = rng.choice(6, size=count, replace=False, p=LOGGER)
        log_prob = plackett_luce_log_prob(np.log(LOGGER[rows])[None])[0].tolist()
        slates.append(
            slate(len(slates), user, day, [ITEMS[row] for row in rows], log_prob),
        )
    return lake_of(slates)


@pytest.fixture(scope="module")
def policy(lake: Lake) -> Generative:
    return Generative(seed=1, slate=SLOTS, steps=20, exclude="none").fit(lake)


def learned(way: str, policy: Generative, lake: Lake, **changes: object) -> Generative:
    settings: dict = {"steps": 40, "seed": 3, "contexts": 8, "group": 4, "lr": 3e-3} | changes
    reward = settings.pop("reward", REWARD_OF_HABIT)
    return WAYS[way](policy, reward, settings.pop("early", Believes()), lake, **settings)


def law(policy: Generative, lake: Lake) -> np.ndarray:
    """Probability of each of `ITEMS` in the first slot, by logged moment."""
    contexts = contexts_from_log(
        lake, slots=SLOTS, history=policy.history, limit=60, exclude="none"
    )
    return np.exp(policy.item_log_prob(contexts))[:, policy.index.rows(pl.Series(ITEMS))]


def worth_of(policy: Generative, lake: Lake) -> float:
    """The true mean value of a first slot."""
    return float((law(policy, lake) @ np.array([WORTH[item] for item in ITEMS])).mean())


def divergence(policy: Generative, start: Generative, lake: Lake) -> float:
    p, q = law(policy, lake), law(start, lake)
    return float((p * np.log(p / q)).sum(axis=1).mean())


# -- mathematics -----------------------------------------------------------------------------------


def population() -> np.ndarray:
    """Rows of items as often as `LOGGER` shows them: a mean over them is an expectation."""
    return np.repeat(np.arange(6), (20 * LOGGER).round().astype(int))


@pytest.mark.parametrize("slots", [1, 3])
@pytest.mark.parametrize("kl", [0.0, 0.7])
def test_the_off_policy_gradient_is_that_of_the_chance_to_be_among_k_draws(
    slots: int, kl: float
) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, dtype=torch.float64, generator=generator, requires_grad=True)
    start = torch.log_softmax(torch.randn(6, dtype=torch.float64, generator=generator), dim=0)
    advantage = torch.randn(6, dtype=torch.float64, generator=generator)
    shown = population()

    def exact(slots: int, kl: float) -> Tensor:
        log_p = torch.log_softmax(logits, dim=0)
        p = log_p.exp()
        among = 1 - (1 - p) ** slots
        gain = (among * advantage).sum() - kl * slots * (p * (log_p - start)).sum()
        return torch.autograd.grad(gain, logits)[0]

    def estimated(cap: float) -> Tensor:
        log_p = torch.log_softmax(logits, dim=0)[shown]
        weight = importance_weight(log_p, torch.from_numpy(np.log(LOGGER[shown])), cap)
        loss = off_policy_loss(log_p, weight, advantage[shown], start[shown], slots=slots, kl=kl)
        return -torch.autograd.grad(loss, logits)[0]

    torch.testing.assert_close(estimated(CAP), exact(slots, kl))
    # a weight that reaches its cap, another number of slots and another price are told apart
    assert not torch.allclose(estimated(0.5), exact(slots, kl), rtol=0.05)
    assert not torch.allclose(estimated(CAP), exact(4 - slots, kl), rtol=0.05)
    assert not torch.allclose(estimated(CAP), exact(slots, 0.7 - kl), rtol=0.05)


def test_the_divergence_is_estimated_from_what_the_logger_showed() -> None:
    generator = torch.Generator().manual_seed(0)
    log_p, start = torch.log_softmax(
        torch.randn(2, 6, dtype=torch.float64, generator=generator), dim=1
    )
    shown = population()
    weight = importance_weight(log_p[shown], torch.from_numpy(np.log(LOGGER[shown])))
    exact = (log_p.exp() * (log_p - start)).sum()
    torch.testing.assert_close(estimated_divergence(log_p[shown], weight, start[shown]), exact)
    for row in shown:  # no term is below 0: a mean of few slots is not either
        assert estimated_divergence(log_p[[row]], weight[:1], start[[row]]) > 0


@pytest.mark.parametrize("kl", [0.3, 2.0])
def test_classification_is_weighted_cross_entropy(kl: float) -> None:
    generator = torch.Generator().manual_seed(0)
    log_ratio, advantage = torch.randn(2, 50, dtype=torch.float64, generator=generator)
    log_ratio.requires_grad_()
    total = 0.0
    for ratio, each in zip(log_ratio.tolist(), advantage.tolist(), strict=True):
        chance = 1 / (1 + np.exp(-kl * ratio))
        total -= abs(each) * np.log(chance if each > 0 else 1 - chance)
    loss = classification_loss(log_ratio, advantage, kl)
    assert float(loss.detach()) == pytest.approx(total / 50 / kl)
    loss.backward()
    assert log_ratio.grad is not None
    # an item of negative advantage is pushed down, the other up
    assert torch.equal(torch.sign(log_ratio.grad), -torch.sign(advantage))


def test_without_a_price_of_distance_classification_pulls_with_half_the_advantage() -> None:
    log_ratio = torch.tensor([-30.0, 0.0, 8.0], dtype=torch.float64, requires_grad=True)
    advantage = torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64)
    classification_loss(log_ratio, advantage, kl=0.0).backward()
    torch.testing.assert_close(log_ratio.grad, -advantage / 2 / 3, rtol=1e-4, atol=0)


def test_preferences_agree_with_beliefs_at_the_closed_form_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    worth = torch.randn(4, 3, 5, dtype=torch.float64, generator=generator)
    moment = torch.randn(4, 3, 1, dtype=torch.float64, generator=generator)
    best = (worth / 0.3 + moment).requires_grad_()
    loss, least = preference_loss(best, worth, kl=0.3)
    (slope,) = torch.autograd.grad(loss, best)
    assert float(loss.detach() - least) == pytest.approx(0, abs=1e-12)
    assert slope.abs().max() < 1e-12
    for other in (best.detach() * 0.9, best.detach().flip(-1)):
        assert preference_loss(other, worth, kl=0.3)[0] > least + 1e-4


def test_every_two_items_of_a_slate_are_a_pair_and_no_others() -> None:
    log_ratio, worth = torch.randn(
        2, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    losses = []
    for n, (i, j) in itertools.product(range(2), [(0, 1), (0, 2), (1, 2)]):
        label = torch.sigmoid((worth[n, i] - worth[n, j]) / 0.5)
        stated = torch.sigmoid(log_ratio[n, i] - log_ratio[n, j])
        losses.append(-label * stated.log() - (1 - label) * (1 - stated).log())
    torch.testing.assert_close(
        preference_loss(log_ratio, worth, kl=0.5)[0], torch.stack(losses).mean()
    )


# -- logged slots ----------------------------------------------------------------------------------


def exposures_of(policy: Generative, lake: Lake, **changes: object) -> Exposures:
    settings: dict = {"early": ByPlace(), "exclude": "seen", "limit": 10_000} | changes
    return Exposures.from_log(
        "way", policy, REWARD_OF_HABIT, settings.pop("early"), lake, seed=3, **settings
    )


def test_logged_slots_are_those_of_learners_that_the_policy_could_fill(
    policy: Generative, lake: Lake
) -> None:
    """Read once more, slot by slot, with plain loops."""
    exposures = exposures_of(policy, lake)
    plays = list(lake.events.iter_rows(named=True))
    expected = []
    for row in lake.decisions.iter_rows(named=True):
        if row["user_id"] not in LEARNERS:
            continue
        seen = {
            play["item_id"]
            for play in plays
            if play["user_id"] == row["user_id"] and play["time"] < row["time"]
        }
        for place, item in enumerate(row["slate"]):
            value = ByPlace().of(row["user_id"], row["surface"], row["slate"], place)
            if item not in seen:
                expected.append((row["user_id"], row["time"], item, row["log_prob"][place], value))
    row = np.repeat(np.arange(len(exposures)), np.diff(exposures.offsets))
    frame = exposures.contexts.frame[row]
    given = zip(
        frame["user_id"],
        frame["time"],
        policy.index.ids.gather(exposures.leaves),
        exposures.log_propensity.tolist(),
        exposures.value.tolist(),
        strict=True,
    )
    assert sorted(given) == sorted(expected)
    assert 100 < len(expected) < lake.decisions["slate"].list.len().sum()


def test_as_many_slates_as_are_asked_for_are_drawn(policy: Generative, lake: Lake) -> None:
    some = exposures_of(policy, lake, exclude="none", limit=50)
    assert len(some) == 50
    assert some.contexts.frame["time"].n_unique() > 3, "not the first ones"
    batch = some.drawn(20, np.random.default_rng(0))
    assert batch.contexts.frame["context_id"].n_unique() == 20
    assert len(set(batch.place.tolist())) == len(batch.place) == batch.is_there.sum()
    assert batch.leaves[batch.is_there].tolist() == some.leaves[batch.place].tolist()
    assert len(some.drawn(1_000, np.random.default_rng(0)).place) == len(some.leaves)


def test_items_that_the_policy_does_not_know_are_left_out_but_count_in_their_slate(
    policy: Generative, lake: Lake
) -> None:
    few = policy.with_available(pl.Series(["i1", "i2"]))
    exposures = exposures_of(few, lake, exclude="none")
    everything = exposures_of(policy, lake, exclude="none")
    kept = np.isin(everything.leaves, policy.index.rows(pl.Series(["i1", "i2"])))
    assert 0 < kept.sum() < len(kept)
    assert exposures.value.tolist() == everything.value[kept].tolist()


def test_what_was_asked_for_is_not_learned_from(policy: Generative, lake: Lake) -> None:
    """Most plays of slates on the surface `shelf` are organic, as those of search results are."""
    shelf = lake.decisions.filter(pl.col("surface") == "shelf")
    searched = shelf.select(
        pl.format("s{}", "decision_id").alias("event_id"),
        "user_id",
        pl.col("slate").list.first().alias("item_id"),
        "time",
        "decision_id",
        kind=pl.lit("play"),
    )
    log = Lake.memory()
    events = pl.concat([lake.events.drop("ingested_at"), searched], how="diagonal").with_columns(
        pl.col("origin").fill_null("organic")
    )
    log.append(
        "all",
        events=events,
        items=lake.items.drop("ingested_at"),
        decisions=lake.decisions.drop("ingested_at"),
        watermark=lake.watermark,
    )
    surfaces = [
        set(exposures_of(policy, each, exclude="none").contexts.frame["surface"])
        for each in (lake, log)
    ]
    assert surfaces == [{"home", "shelf"}, {"home"}]


@pytest.mark.parametrize("way", LOGGED)
def test_a_log_that_says_nothing_of_the_policy_is_refused_in_words(
    way: str, policy: Generative, lake: Lake
) -> None:
    with pytest.raises(DataError, match=f"{way}: the lake has no decisions, .* log_prob"):
        learned(way, policy, lake_of([]))
    held_out = next(name for name in map("u{}".format, range(60)) if name not in LEARNERS)
    with pytest.raises(DataError, match=f"{way}: 1 decisions given, but all of them are"):
        learned(way, policy, lake_of([slate(1, held_out, 0, ["i1"], [-1.0])]))
    unknown = lake_of([slate(1, LEARNERS[0], 0, ["elsewhere"], [-1.0])])
    early = Believes(WORTH | {"elsewhere": 0.0})
    with pytest.raises(DataError, match=f"{way}: none of 1 logged slots has an item"):
        learned(way, policy, unknown, early=early)


def test_the_gradient_of_a_log_is_the_enumerated_one(policy: Generative) -> None:
    """Each of twenty users without a past was shown one item, as often as `LOGGER` says: the mean
    over the log is the expectation, through lake, prompts, trie and weights."""
    shown = population()
    log = lake_of(
        [
            slate(n, user, 0, [ITEMS[row]], [float(np.log(LOGGER[row]))])
            for n, (user, row) in enumerate(zip(LEARNERS, shown))
        ]
    )
    assert log.decisions.height == 20
    kl, unit = 0.4, 0.25
    task = Task.of(
        "way",
        policy,
        REWARD_OF_HABIT,
        Believes(),
        log,
        slots=3,
        exclude="none",
        pool=50,
        seed=3,
        steps=1,
        lr=0.0,
    )
    tuned = policy.learner(0)
    with torch.no_grad():  # not the start, so that the divergence has a gradient
        for weight in tuned.trainable():
            weight.add_(0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
    exposures = exposures_of(policy, log, early=Believes(), exclude="none")
    step = _step(task, Learner(tuned, unit, None), exposures, 0, slates=20, kl=kl)
    assert step.figures["capped"] == 0

    def gradient(value: Tensor) -> Tensor:
        parts = torch.autograd.grad(value, tuned.trainable(), retain_graph=True, allow_unused=True)
        return torch.cat([part.ravel() for part in parts if part is not None])

    prompts = policy.prompts(exposures.contexts.take([0]))
    leaves = policy.index.rows(pl.Series(ITEMS))[None]
    log_p = tuned.log_prob(prompts, leaves)[0]
    start = policy.decoder.log_prob(prompts, leaves)[0].detach()
    worth = torch.tensor([WORTH[item] for item in ITEMS], dtype=torch.float64)
    logger = torch.from_numpy(LOGGER)
    advantage = (worth - logger @ worth) / unit
    p = log_p.exp()
    distance = (p * (log_p - start)).sum()
    gain = ((1 - (1 - p) ** 3) * advantage).sum() - 3 * kl * distance
    exact = gradient(gain)
    assert float((gradient(-step.loss) - exact).norm() / exact.norm()) < 1e-4
    assert float(distance.detach()) > 0.02
    assert step.figures["kl"] == pytest.approx(float(distance.detach()), rel=1e-4)
    assert step.figures["reward"] == pytest.approx(float(p.detach() @ worth), rel=1e-4)
    assert step.figures["weight"] == pytest.approx(1, rel=1e-4)
    # as drawn by the logger, without weights, the gradient is another one
    unweighted = logger * ((1 - p) ** 2 * 3).detach() * advantage
    assert float((gradient((unweighted * log_p).sum()) - exact).norm() / exact.norm()) > 0.3


# -- the loops -------------------------------------------------------------------------------------


@every_way
def test_each_way_raises_the_value_of_what_is_shown(
    way: str, policy: Generative, lake: Lake
) -> None:
    before = worth_of(policy, lake)
    tuned = learned(way, policy, lake)
    p, q = law(policy, lake).mean(axis=0), law(tuned, lake).mean(axis=0)
    assert worth_of(tuned, lake) > before + 0.1
    assert q[0] > 1.3 * p[0], "the best item gains"
    assert q[3] < 0.7 * p[3], "the worst loses"
    upside_down = Believes({item: -worth for item, worth in WORTH.items()})
    assert worth_of(learned(way, policy, lake, early=upside_down), lake) < before - 0.1
    assert [row["step"] for row in tuned.curve] == list(range(1, 41))
    assert all(np.isfinite(list(row.values())).all() for row in tuned.curve)
    assert (tuned.exclude, tuned.rule) == ("none", "none")


@pytest.mark.parametrize(
    ("way", "left"),
    [
        ("off_policy_gradient", 0.15),
        # nothing pulls back a policy that is on the right side: kl only ends the pull outwards
        ("weighted_classification", 0.7),
        ("preference_pairs", 0.15),
    ],
)
def test_more_of_kl_keeps_the_policy_nearer_to_the_start(
    way: str, left: float, policy: Generative, lake: Lake
) -> None:
    free, usual, held = (
        divergence(learned(way, policy, lake, kl=kl), policy, lake) for kl in (0.0, 1.0, 30.0)
    )
    print(f"{way}: {free:.3f}, {usual:.3f}, {held:.3f} nats")
    assert free > 1.1 * usual > 1.2 * held
    assert 0 < held < left * free


@every_way
def test_a_constant_added_to_the_reward_changes_nothing(
    way: str, policy: Generative, lake: Lake
) -> None:
    plain = learned(way, policy, lake, steps=12)
    shifted = learned(way, policy, lake, steps=12, early=Believes(constant=30.0))
    assert np.abs(law(plain, lake) - law(policy, lake)).max() > 0.05
    assert np.abs(law(plain, lake) - law(shifted, lake)).max() < 1e-4
    tenfold = Believes({item: 10 * worth for item, worth in WORTH.items()})
    scaled = learned(way, policy, lake, steps=12, early=tenfold)
    assert np.abs(law(plain, lake) - law(scaled, lake)).max() < 1e-4


@every_way
def test_rate_zero_and_no_steps_change_nothing(way: str, policy: Generative, lake: Lake) -> None:
    still = learned(way, policy, lake, steps=2, lr=0.0)
    assert same_weights(still, policy)
    assert len(still.curve) == 2
    none = learned(way, policy, lake, steps=0)
    assert same_weights(none, policy)
    assert none.curve == ()


@every_way
def test_the_seed_alone_decides(way: str, policy: Generative, lake: Lake) -> None:
    torch.manual_seed(1)
    one = learned(way, policy, lake, steps=3)
    torch.manual_seed(2)
    assert same_weights(one, learned(way, policy, lake, steps=3))
    assert not same_weights(one, learned(way, policy, lake, steps=3, seed=4))


@every_way
def test_a_stopped_run_goes_on_to_the_same_weights_and_in_no_other_way(
    way: str, policy: Generative, lake: Lake, tmp_path: Path
) -> None:
    file = tmp_path / "checkpoint"
    whole = learned(way, policy, lake, steps=13)
    with pytest.raises(Stop):
        learned(way, policy, lake, steps=13, checkpoint=file, progress=stop_at(12))
    for other in set(WAYS) - {way}:
        with pytest.raises(ConfigError, match=r"it was made with way="):
            learned(other, policy, lake, steps=13, checkpoint=file)
    first: list[int] = []
    resumed = learned(
        way,
        policy,
        lake,
        steps=13,
        checkpoint=file,
        progress=lambda step, of, figures: first.append(step),
    )
    assert first[0] == 11, "it began again instead of going on"
    assert same_weights(resumed, whole)
    assert resumed.curve == whole.curve


@every_way
def test_what_cannot_be_learned_is_refused_before_any_step(
    way: str, policy: Generative, lake: Lake
) -> None:
    guarded = Reward({HABIT: 1.0}, {coverage(): 0.9})
    with pytest.raises(ConfigError, match=rf"{way}: 1 guardrail\(s\) given, .* use reinforce"):
        learned(way, policy, lake, reward=guarded)
    limits = {"limit": 0} if way in LOGGED else {}
    ranges = {"steps": -1, "kl": -0.1, "lr": -1.0, "contexts": 0, "group": 1, "slots": 0, "pool": 0}
    for name, value in (ranges | limits).items():
        with pytest.raises(ConfigError, match=f"{way}: {name}={value} given"):
            learned(way, policy, lake, **{name: value})
    told: list[int] = []
    nothing = Believes(WORTH | {"i2": float("nan")})
    with pytest.raises(DataError, match="rewards are not finite"):
        learned(way, policy, lake, early=nothing, progress=lambda *row: told.append(row[0]))
    assert told == []


def test_a_value_of_a_logged_slot_that_is_not_finite_is_refused(
    policy: Generative, lake: Lake
) -> None:
    with pytest.raises(DataError, match=r"way: .* rewards are not finite"):
        exposures_of(policy, lake, early=Believes(WORTH | {"i2": float("nan")}))


def test_one_slot_is_enough_for_pairs(policy: Generative, lake: Lake) -> None:
    one = replace(policy, slate=1)
    tuned = learned("preference_pairs", one, lake, steps=15)
    assert worth_of(tuned, lake) > worth_of(one, lake) + 0.1


def test_preferences_converge_to_the_closed_form(policy: Generative, lake: Lake) -> None:
    """start x exp(value / (kl x spread)), item by item at every moment that was learned from."""
    kl = 1.5
    settings = {"pool": 6, "contexts": 6, "group": 8}
    tuned = learned("preference_pairs", policy, lake, kl=kl, steps=200, lr=1e-3, **settings)
    moments = contexts_from_log(
        lake,
        slots=SLOTS,
        history=policy.history,
        exclude="none",
        limit=6,
        seed=3,
        learners=True,
    )
    unit = reward_spread(policy, REWARD_OF_HABIT, Believes(), lake, moments, 3)
    worth_I = np.array([WORTH[item] for item in policy.index.ids])
    start_NI = np.exp(policy.item_log_prob(moments))
    optimum_NI = start_NI * np.exp(worth_I / (kl * unit))
    optimum_NI /= optimum_NI.sum(axis=1, keepdims=True)
    error_NI = np.abs(np.exp(tuned.item_log_prob(moments)) - optimum_NI)
    print(f"largest error {error_NI.max():.5f}, excess {tuned.curve[-1]['excess']:.2g}")
    assert np.abs(optimum_NI - start_NI).max() > 0.1
    assert error_NI.max() < 0.005
    assert tuned.curve[-1]["excess"] < 1e-4
