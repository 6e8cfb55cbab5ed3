"""Tilting: towards start x exp(value / kl) over the whole catalogue, against enumeration."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from test_learning import GOOD, HABIT, REWARD_OF_HABIT, Likes, Stop, same_weights, stop_at
from test_learning import lake as lake  # a fixture
from test_learning import policy as policy  # a fixture

from longplay.belief import Belief
from longplay.codes import Trie
from longplay.decisions import Contexts, contexts_from_log
from longplay.errors import ConfigError, DataError
from longplay.lake import Lake
from longplay.learning.enforcement import Guardrails
from longplay.learning.leash import Leash
from longplay.learning.reinforce import reinforce
from longplay.learning.rollout import reward_spread
from longplay.learning.tilt import cross_entropy, drawn, item_values, tilt, tilted
from longplay.policies.generative.decoder import CodeLaw
from longplay.policies.generative_policy import Generative
from longplay.rewards import Reward
from longplay.rewards.guardrails import coverage, top_creator

torch.set_num_threads(1)

CODES = np.array([[0, 0], [0, 2], [1, 1], [2, 0], [2, 1], [2, 3]])


def tuned(policy: Generative, lake: Lake, **changes: object) -> Generative:
    settings: dict = {
        "steps": 12,
        "seed": 3,
        "contexts": 8,
        "group": 4,
        "exclude": "none",
    } | changes
    reward = settings.pop("reward", REWARD_OF_HABIT)
    return tilt(policy, reward, settings.pop("early", Likes()), lake, **settings)


def moments_of(policy: Generative, lake: Lake) -> Contexts:
    return contexts_from_log(lake, slots=3, history=policy.history, limit=60, exclude="none")


@dataclass(frozen=True)
class Spread(Likes):
    """Believes that item number k is worth k / 10 plus a constant, times a unit."""

    constant: float = 0.0
    unit: float = 1.0

    def value(self, contexts: Contexts, slates: pl.Series, lake: Lake) -> Belief:
        number = np.array([[int(item[1:]) for item in slate] for slate in slates.to_list()])
        mean = self.unit * (number / 10 + self.constant)
        return Belief(mean, np.zeros_like(mean), np.ones_like(mean), 7, HABIT.label, minimum=-99.0)


# -- mathematics -----------------------------------------------------------------------------------


def random_laws(seed: int, trie: Trie, law_I: np.ndarray) -> tuple[list[torch.Tensor], np.ndarray]:
    """Random conditional laws of a model at every node, with gradient, and its law of items."""
    rng = np.random.default_rng(seed)
    logits = [
        torch.tensor(rng.normal(size=(trie.nodes(level), trie.width)), requires_grad=True)
        for level in range(trie.levels)
    ]
    log_p = []
    for level, of_level in enumerate(logits):
        is_child = torch.zeros(of_level.shape, dtype=torch.bool)
        owner, _, code = trie.children(level, np.arange(trie.nodes(level)))
        is_child[owner, code] = True
        log_p.append(torch.log_softmax(of_level.masked_fill(~is_child, -torch.inf), dim=-1))
    item = sum(
        log_p[level][trie.node_of(level, np.arange(len(trie))), trie.codes[:, level]]
        for level in range(trie.levels)
    )
    return log_p, item


def test_the_cross_entropy_over_draws_is_that_over_items() -> None:
    """Over all 36 pairs of drawn items, weighted by their probability: value, gradient, entropy."""
    trie = Trie.build(CODES, 4)
    law_I = np.array([0.05, 0.3, 0.15, 0.2, 0.3, 0.0])  # one item is not in the law at all
    log_p, item_log_p = random_laws(0, trie, law_I)
    exact = -(torch.from_numpy(law_I) * item_log_p).sum()
    loss, entropy = torch.zeros((), dtype=torch.float64), 0.0
    for one in range(6):
        for two in range(6):
            leaves = np.array([[one, two]])
            laws = []
            for level in range(2):
                node = trie.node_of(level, leaves)[:, : 1 if level == 0 else 2]
                laws.append(CodeLaw(node, log_p[level][torch.from_numpy(node)]))
            part, part_entropy = cross_entropy(trie, laws, law_I[None])
            weight = law_I[one] * law_I[two]
            loss, entropy = loss + weight * part, entropy + weight * part_entropy
    assert float(loss.detach()) == pytest.approx(float(exact.detach()))
    positive = law_I[law_I > 0]
    assert entropy == pytest.approx(-(positive * np.log(positive)).sum())
    for given, expected in zip(
        torch.autograd.grad(loss, log_p, retain_graph=True),
        torch.autograd.grad(exact, log_p),
        strict=True,
    ):
        torch.testing.assert_close(given, expected)


def test_items_are_drawn_from_the_law() -> None:
    law_NI = np.array([[0.5, 0.0, 0.3, 0.2], [0.0, 0.0, 0.0, 1.0]])
    leaves = drawn(law_NI, 20_000, np.random.default_rng(0))
    share = np.stack([np.bincount(row, minlength=4) / 20_000 for row in leaves])
    assert np.abs(share - law_NI).max() < 4 * np.sqrt(0.25 / 20_000)
    assert not share[law_NI == 0].any()


# -- the way of learning ---------------------------------------------------------------------------


def test_it_arrives_at_the_tilted_law(policy: Generative, lake: Lake) -> None:
    """The law learned is start x exp(value / (kl x spread)), by enumeration."""
    early, kl = Spread(), 0.7
    given = tuned(policy, lake, early=early, kl=kl, steps=250, lr=3e-3, contexts=32, group=8)
    moments = moments_of(policy, lake)
    unit = reward_spread(policy, REWARD_OF_HABIT, early, lake, moments, 3)
    value = item_values(policy, REWARD_OF_HABIT, early, lake, moments)
    start = policy.item_log_prob(moments)
    aimed = tilted(start, value / (kl * unit))
    log_p = given.item_log_prob(moments)

    def distance(from_law: np.ndarray) -> float:
        return float((np.exp(aimed) * (aimed - from_law)).sum(axis=1).mean())

    assert distance(start) > 0.4
    assert distance(log_p) < 0.03
    assert given.curve[-1]["gap"] < 0.1 < given.curve[0]["gap"]


@pytest.mark.parametrize("change", [{"constant": 5.0}, {"unit": 10.0}])
def test_the_unit_and_the_zero_of_the_reward_change_nothing(
    policy: Generative, lake: Lake, change: dict[str, float]
) -> None:
    plain, changed = (tuned(policy, lake, early=early) for early in (Spread(), Spread(**change)))
    moments = moments_of(policy, lake)
    np.testing.assert_allclose(
        plain.item_log_prob(moments), changed.item_log_prob(moments), atol=1e-4
    )


def test_what_is_excluded_is_never_taught(policy: Generative, lake: Lake) -> None:
    """Its probability under `seen` contexts stays 0, and no loss is infinite."""
    given = tuned(policy, lake, exclude="seen", early=Spread())
    contexts = contexts_from_log(lake, slots=3, history=policy.history, limit=20, exclude="seen")
    log_p = given.item_log_prob(contexts)
    rows = [given.index.rows(items) for items in contexts.frame["exclusions"]]
    assert all(np.isneginf(log_p[n, row]).all() for n, row in enumerate(rows))
    assert all(np.isfinite(row["gap"]) for row in given.curve)


def test_without_steps_or_rate_it_is_the_start(policy: Generative, lake: Lake) -> None:
    assert same_weights(tuned(policy, lake, steps=0), policy)
    assert same_weights(tuned(policy, lake, lr=0.0), policy)


def test_a_stopped_run_goes_on_to_the_same_weights_and_not_as_another_way(
    policy: Generative, lake: Lake, tmp_path: Path
) -> None:
    file = tmp_path / "tilt"
    settings: dict = {"nats": 0.5, "steps": 24}
    whole = tuned(policy, lake, **settings)
    with pytest.raises(Stop):
        tuned(policy, lake, **settings, checkpoint=file, progress=stop_at(22))
    with pytest.raises(ConfigError, match="it was made with way=tilt, this run has reinforce"):
        reinforce(policy, REWARD_OF_HABIT, Likes(), lake, steps=24, seed=3, checkpoint=file)
    resumed = tuned(policy, lake, **settings, checkpoint=file)
    assert same_weights(resumed, whole)
    assert resumed.curve == whole.curve


def test_values_that_are_not_finite_are_refused(policy: Generative, lake: Lake) -> None:
    with pytest.raises(DataError, match="rewards are not finite"):
        tuned(policy, lake, early=Likes(best=float("nan")))


@dataclass(frozen=True)
class TooMany(Likes):
    """Gives a number more than there are slots."""

    def value(self, contexts: Contexts, slates: pl.Series, lake: Lake) -> Belief:
        belief = super().value(contexts, slates, lake)
        wider = np.pad(belief.mean, ((0, 0), (0, 1)))
        return Belief(wider, np.zeros_like(wider), np.ones_like(wider), 7, HABIT.label)


@pytest.mark.parametrize("way", [tilt, reinforce])
def test_rewards_of_the_wrong_length_are_refused_before_any_step(
    policy: Generative, lake: Lake, way: object
) -> None:
    with pytest.raises(DataError, match=r"value\(\) must give one number for each slot"):
        way(policy, REWARD_OF_HABIT, TooMany(), lake, steps=2)  # type: ignore[operator]


@pytest.mark.parametrize(
    "wrong", [{"steps": 2.5}, {"seed": -1}, {"group": 1}, {"kl": float("inf")}]
)
def test_numbers_out_of_range_are_refused(
    policy: Generative, lake: Lake, wrong: dict[str, float]
) -> None:
    with pytest.raises(ConfigError, match=r"tilt: .* given, expected"):
        tuned(policy, lake, **wrong)


@pytest.mark.parametrize("way", [tilt, reinforce])
def test_a_catalogue_of_one_item_leaves_nothing_to_choose(lake: Lake, way: object) -> None:
    only = lake.events["item_id"][0]
    one = Lake.memory()
    one.append("one", events=lake.events.filter(pl.col("item_id") == only),
               items=lake.items.filter(pl.col("item_id") == only), watermark=lake.watermark)  # fmt: skip
    policy = Generative(seed=1, slate=1, steps=2, exclude="none").fit(one)
    given = way(policy, REWARD_OF_HABIT, Likes(), one, steps=3, slots=1)  # type: ignore[operator]
    contexts = contexts_from_log(one, slots=1, history=policy.history, exclude="none")
    np.testing.assert_allclose(given.item_log_prob(contexts), 0.0, atol=1e-9)


@pytest.mark.parametrize("guardrail", [coverage(3), top_creator()])
def test_guardrails_hold(policy: Generative, lake: Lake, guardrail: object) -> None:
    """Without one the figure falls below the bound."""
    settings: dict = {"steps": 80, "lr": 3e-3, "kl": 0.05, "contexts": 16}
    reward = Reward({HABIT: 1.0}, {guardrail: 0.9})  # type: ignore[dict-item]
    free = tuned(policy, lake, **settings)
    held = tuned(policy, lake, reward=reward, **settings)
    rails = Guardrails.of(policy, reward, Likes(), lake, moments_of(policy, lake), 3, seed=99)
    label = rails.guards[0].label
    assert rails.shares(free.decoder)[label] < 0.8
    assert rails.shares(held.decoder)[label] > 0.86  # on another sample and with other luck
    assert held.curve[-1]["kept"] > 0


# -- the leash -------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", [tilt, reinforce])
def test_two_rewards_end_at_the_divergence_aimed_at(
    policy: Generative, lake: Lake, way: object
) -> None:
    """Under one weight they end far apart; `Spread` moves further than `Likes`, which likes three items."""
    moments = moments_of(policy, lake)
    leash = Leash.of(0.4, policy, moments, seed=99)
    settings: dict = {
        "steps": 150, "seed": 3, "lr": 3e-3, "kl": 1.0, "exclude": "none", "contexts": 16,
    }  # fmt: skip
    for early in (Likes(), Spread()):
        given = way(policy, REWARD_OF_HABIT, early, lake, nats=0.4, **settings)  # type: ignore[operator]
        log_p, start = given.item_log_prob(moments), policy.item_log_prob(moments)
        exact = float((np.exp(log_p) * (log_p - start)).sum(axis=1).mean())
        assert exact == pytest.approx(0.4, rel=0.4)
        assert leash.nats(given.decoder) == pytest.approx(exact, rel=0.15)


@pytest.mark.parametrize("wrong", [{"nats": 0.0}, {"nats": -1.0}, {"nats": 0.4, "kl": 0.0}])
def test_a_divergence_that_cannot_be_aimed_at_is_refused(
    policy: Generative, lake: Lake, wrong: dict[str, float]
) -> None:
    with pytest.raises(ConfigError, match="expected a divergence above 0"):
        tuned(policy, lake, **wrong)


def test_good_items_are_the_likeliest(policy: Generative, lake: Lake) -> None:
    log_p = tuned(policy, lake, steps=80, lr=3e-3).item_log_prob(moments_of(policy, lake))
    best = np.argsort(-log_p, axis=1)[:, :3]
    good = policy.index.rows(pl.Series(GOOD))
    assert np.isin(best, good).mean() > 0.9
    assert replace(policy).name == policy.name
