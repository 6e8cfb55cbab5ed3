"""The policy gradient against enumeration, and the loops on a small log."""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor

from longplay.belief import Belief
from longplay.codes import Allowed, Trie
from longplay.decisions import Contexts, context_chance, contexts_from_log
from longplay.errors import ConfigError, DataError
from longplay.lake import Lake
from longplay.learning import enforcement as guardrails
from longplay.learning import rollout
from longplay.learning import visits as logged_visits
from longplay.learning.enforcement import CoverageGuard, CreatorGuard, Guardrails, SignalGuard
from longplay.learning.loss import (
    divergence,
    leave_one_out,
    policy_loss,
    reward_to_go,
    slate_log_prob,
)
from longplay.learning.reinforce import reinforce
from longplay.learning.reward_weighted import _values, reward_weighted, visits_from_log
from longplay.learning.rollout import (
    drawn_leaves,
    enough_left,
    reward_spread,
    slot_rewards,
    spread_within_groups,
)
from longplay.learning.trainer import Learner, Recipe, Step, StepOf, Task, train
from longplay.learning.variety import creator_of_leaves, distinct, ndcg
from longplay.policies.generative.decoder import Decoder, new_model
from longplay.policies.generative.prompts import Prompts, encode
from longplay.policies.generative.search import beam_slates
from longplay.policies.generative_policy import Generative
from longplay.policies.plackett import plackett_luce_log_prob
from longplay.policies.training.checkpoint import load_checkpoint, save_checkpoint
from longplay.policies.training.descent import descend
from longplay.policies.training.histories import histories_from_log
from longplay.policies.training.next_item import train_next_items
from longplay.ranking import fallen
from longplay.rewards import MaturedOnly, Reward
from longplay.rewards.guardrails import Coverage, coverage, top_creator
from longplay.signals import Signal, days_with, discovery

torch.set_num_threads(1)

US = pl.Datetime("us", "UTC")
START = datetime(2026, 1, 1, tzinfo=UTC)
HABIT = Signal("habit", discovery(28), days_with("creator") >= 2, (1, 7))


# -- mathematics ---------------------------------------------------------------------------------


def test_slate_log_prob_is_the_plackett_luce_law() -> None:
    rng = np.random.default_rng(0)
    for scale in (1.0, 5.0, 15.0):
        logits = scale * rng.normal(size=(50, 9))
        log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        for slots in (1, 3, 5):
            given = slate_log_prob(torch.from_numpy(log_p[:, :slots]))
            expected = plackett_luce_log_prob(log_p[:, :slots])
            assert given.dtype == torch.float64
            left = np.exp(log_p[:, :slots] - expected)  # known to 1e-15, however the sum is taken
            assert (np.abs(given.numpy() - expected) < 1e-9 + 1e-15 / left).all()


def test_a_slate_that_holds_nearly_everything_has_no_positive_log_probability() -> None:
    """One item has all mass but rounding; the next slots divide the crumbs (by hand: 1/4 and 3/4 of
    what is left, then 1)."""
    log_p = torch.tensor([0.0, -60.0, -60.0 + np.log(3.0)], dtype=torch.float64, requires_grad=True)
    given = slate_log_prob(log_p)
    assert given.detach().tolist() == pytest.approx([0.0, np.log(0.25), 0.0], abs=1e-12)
    given.sum().backward()
    assert log_p.grad is not None
    assert bool(torch.isfinite(log_p.grad).all())
    too_much = slate_log_prob(
        torch.log(torch.tensor([0.7, 0.3 + 1e-7, 1e-10], dtype=torch.float64))
    )  # single-precision sums
    assert bool((too_much <= 0).all())


def test_the_gradient_of_slate_log_prob_is_that_of_finite_differences() -> None:
    logits = torch.randn(
        2, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True
    )
    assert torch.autograd.gradcheck(
        lambda scores: slate_log_prob(torch.log_softmax(scores, dim=-1)[..., :4]), logits
    )
    assert torch.autograd.gradcheck(
        lambda scores: slate_log_prob(torch.log_softmax(scores, dim=-1)[..., :1]), logits
    )


def test_rewards_to_go_and_leave_one_out_by_hand() -> None:
    assert reward_to_go(torch.tensor([[1.0, 2.0, 4.0], [0.0, -1.0, 3.0]])).tolist() == [
        [7.0, 6.0, 4.0],
        [2.0, 2.0, 3.0],
    ]
    value = torch.tensor([[[1.0, 4.0], [3.0, 0.0], [5.0, 2.0]]])
    assert leave_one_out(value).tolist() == [
        [[-3.0, 3.0], [0.0, -3.0], [3.0, 0.0]]
    ]  # 1 - (3 + 5) / 2 and so on
    with pytest.raises(DataError, match="groups of 1 given, expected at least 2"):
        leave_one_out(torch.ones(2, 1, 3))


# -- the policy gradient by enumeration -----------------------------------------------------------

CODES = np.array([[0, 0], [0, 2], [1, 1], [2, 0], [2, 1], [3, 3]])
REWARD = np.array([1.0, 0.2, 0.0, 2.0, 0.5, -0.7])
SLATES = np.array(list(itertools.permutations(range(6), 2)))  # 30 ordered slates
HISTORY = [1, 4, 0]
TEMPERATURE = 0.8


@dataclass
class Enumerated:
    """A tiny policy with every ordered slate: what is drawn, what is exact, and how wrong variants
    would estimate it."""

    decoder: Decoder
    start: Decoder

    @classmethod
    def make(cls) -> Enumerated:
        models = []
        for seed in (1, 2):
            model = new_model("tiny", 2, 4, seed)
            with torch.no_grad():
                for weight in model.parameters():
                    if weight.ndim == 2:
                        weight.mul_(4.0)
            models.append(model)
        trie = Trie.build(CODES, 4)
        return cls(Decoder(models[0], trie), Decoder(models[1], trie))

    def prompts(self, decoder: Decoder) -> Prompts:
        nothing = np.zeros(0, dtype=np.int64)
        allowed = Allowed.of(decoder.trie, np.zeros(2, dtype=np.int64), nothing)
        return encode(
            decoder.trie,
            np.array([0, len(HISTORY)]),
            np.array(HISTORY),
            9,
            np.array([TEMPERATURE]),
            allowed,
        )

    def item_log_prob(self, decoder: Decoder) -> Tensor:
        return decoder.log_prob(self.prompts(decoder), np.arange(6)[None])[0]

    def plain_log_prob(self, decoder: Decoder, *, constrained: bool) -> Tensor:
        """The same law from the plain model, one full sequence per item, differentiable; optionally
        over the full vocabulary."""
        prompt = [1] + [
            2 + level * 4 + int(code) for item in HISTORY for level, code in enumerate(CODES[item])
        ]
        answer = []
        for codes in CODES.tolist():
            tokens = prompt + [2 + level * 4 + code for level, code in enumerate(codes)]
            logits = (
                decoder.model(input_ids=torch.tensor([tokens])).logits[0].double() / TEMPERATURE
            )
            total = torch.zeros((), dtype=torch.float64)
            for level, code in enumerate(codes):
                valid = sorted(
                    {
                        int(other[level])
                        for other in CODES
                        if other[:level].tolist() == codes[:level]
                    }
                )
                row = logits[len(prompt) - 1 + level]
                others = row[[2 + level * 4 + each for each in valid]] if constrained else row
                total = total + row[2 + level * 4 + code] - torch.logsumexp(others, dim=0)
            answer.append(total)
        return torch.stack(answer)

    def exact(self) -> Tensor:
        """Gradient of E[sum r], by autograd through all 30 probabilities."""
        p = torch.exp(self.plain_log_prob(self.decoder, constrained=True))
        law = p[SLATES[:, 0]] * p[SLATES[:, 1]] / (1 - p[SLATES[:, 0]])
        return self.gradient((law * torch.from_numpy(REWARD[SLATES].sum(axis=1))).sum())

    def code_laws(self, decoder: Decoder, leaves: np.ndarray) -> list[Tensor]:
        """Per level, the law of the next code at the prefixes of `leaves[1, G]`, [1, G, K]."""
        prompts = self.prompts(decoder)
        shape = *leaves.shape, decoder.trie.width
        return [law.log_p.expand(shape) for law in decoder.code_laws(prompts, leaves)]

    def gradient(self, value: Tensor) -> Tensor:
        parts = torch.autograd.grad(value, list(self.decoder.model.parameters()), allow_unused=True)
        return torch.cat([part.ravel().double() for part in parts if part is not None])

    def estimated(
        self, estimator: Callable[[Tensor, Tensor], Tensor], slot_log_prob: Tensor
    ) -> Tensor:
        """Minus the mean gradient of `estimator`'s loss over every pair of slates (G = 2), weighted
        by its probability.

        Drawn under the true law; `slot_log_prob[30, 2]` is what the estimator differentiates.
        """
        true_slot = slate_log_prob(self.item_log_prob(self.decoder)[SLATES]).detach()
        law = torch.exp(true_slot.sum(dim=1))
        assert float(law.sum()) == pytest.approx(1, abs=1e-6)
        reward = torch.from_numpy(REWARD[SLATES])
        loss = torch.zeros((), dtype=torch.float64)
        for one, two in itertools.product(range(len(SLATES)), repeat=2):
            pair = [one, two]
            loss = loss + law[one] * law[two] * estimator(
                slot_log_prob[pair][None], reward[pair][None]
            )
        return -self.gradient(loss)


@pytest.fixture(scope="module")
def tiny() -> Enumerated:
    return Enumerated.make()


def cosine(a: Tensor, b: Tensor) -> float:
    return float(a @ b / (a.norm() * b.norm()))


def test_the_policy_gradient_is_unbiased(tiny: Enumerated) -> None:
    exact = tiny.exact()
    given = tiny.estimated(policy_loss, slate_log_prob(tiny.item_log_prob(tiny.decoder)[SLATES]))
    assert float((given - exact).norm() / exact.norm()) < 1e-5


def test_the_divergence_and_its_gradient_are_unbiased(tiny: Enumerated) -> None:
    """Over all 36 pairs of drawn items, weighted by their probability, beside the sum over items."""
    log_p = tiny.plain_log_prob(tiny.decoder, constrained=True)
    log_start = tiny.plain_log_prob(tiny.start, constrained=True).detach()
    exact = (log_p.exp() * (log_p - log_start)).sum()
    law = torch.exp(tiny.item_log_prob(tiny.decoder)).detach()
    loss = torch.zeros((), dtype=torch.float64)
    mean = 0.0
    for pair in itertools.product(range(6), repeat=2):
        leaves = np.array([pair])
        moved = divergence(
            tiny.code_laws(tiny.decoder, leaves),
            [of_level.detach() for of_level in tiny.code_laws(tiny.start, leaves)],
            torch.from_numpy(CODES[leaves]),
        )
        weight = law[pair[0]] * law[pair[1]]
        mean += float(weight * moved.per_draw.mean())
        loss = loss + weight * moved.loss
    assert mean == pytest.approx(float(exact.detach()), rel=1e-5)
    given, expected = tiny.gradient(loss), tiny.gradient(exact)
    assert float((given - expected).norm() / expected.norm()) < 1e-4


def test_equal_laws_diverge_by_nothing_whatever_is_drawn(tiny: Enumerated) -> None:
    leaves = np.array([[0, 3, 3]])
    law = tiny.code_laws(tiny.decoder, leaves)
    moved = divergence(law, [level.detach() for level in law], torch.from_numpy(CODES[leaves]))
    assert moved.per_draw.abs().max() < 1e-12
    assert tiny.gradient(moved.loss).abs().max() < 1e-6


def over_std(slot_log_prob: Tensor, reward: Tensor) -> Tensor:
    advantage = leave_one_out(reward_to_go(reward))
    return (
        -(advantage / (advantage.std(dim=1, keepdim=True) + 1e-8) * slot_log_prob)
        .sum(dim=-1)
        .mean()
    )


@pytest.mark.parametrize("wrong", ["no denominators", "full vocabulary", "group std"])
def test_variants_known_to_be_biased_do_disagree(tiny: Enumerated, wrong: str) -> None:
    exact = tiny.exact()
    if wrong == "no denominators":
        given = tiny.estimated(policy_loss, tiny.item_log_prob(tiny.decoder)[SLATES])
    elif wrong == "full vocabulary":
        given = tiny.estimated(
            policy_loss,
            slate_log_prob(tiny.plain_log_prob(tiny.decoder, constrained=False)[SLATES]),
        )
    else:
        given = tiny.estimated(over_std, slate_log_prob(tiny.item_log_prob(tiny.decoder)[SLATES]))
    similarity = cosine(given, exact)
    print(f"{wrong}: cosine {similarity:.4f}")
    assert similarity < 0.999


# -- the loops -----------------------------------------------------------------------------------

USERS, ITEMS, GOOD = 60, 40, ("i3", "i17", "i31")


@dataclass(frozen=True)
class Likes:
    """An early reward that believes in fixed items: `best` for the good ones, `rest` for the
    others."""

    best: float = 1.0
    rest: float = 0.0
    name: str = "likes"
    signal: Signal = HABIT
    good: tuple[str, ...] = GOOD

    def value(self, contexts: Contexts, slates: pl.Series, lake: Lake) -> Belief:
        good = np.array([[item in self.good for item in slate] for slate in slates.to_list()])
        mean = np.where(good, self.best, self.rest)
        return Belief(mean, np.zeros_like(mean), np.ones_like(mean), 7, HABIT.label)


@pytest.fixture(scope="module")
def lake() -> Lake:
    """Each user plays two items on each of six days, mostly of their own tenth of the catalogue."""
    rng = np.random.default_rng(0)
    rows = []
    for user, day, visit in itertools.product(range(USERS), range(6), range(2)):
        item = (
            (user % 10) * 4 + int(rng.integers(4))
            if rng.random() < 0.6
            else int(rng.integers(ITEMS))
        )
        rows.append(
            (f"u{user}", f"i{item}", START + timedelta(days=day, hours=8 + visit, minutes=user))
        )
    user, item, time = zip(*rows, strict=True)
    events = pl.DataFrame(
        {
            "event_id": [f"e{k}" for k in range(len(rows))],
            "user_id": user,
            "item_id": item,
            "creator_id": ["c" + name[1:] for name in item],
            "kind": ["play"] * len(rows),
            "time": pl.Series(time, dtype=US),
        }
    )
    names = [f"i{k}" for k in range(ITEMS)]
    items = pl.DataFrame(
        {
            "item_id": names,
            "creator_id": [f"c{k}" for k in range(ITEMS)],
            "added_at": pl.Series([START] * ITEMS, dtype=US),
        }
    )
    lake = Lake.memory()
    lake.append("all", events=events, items=items, watermark=START + timedelta(days=7))
    return lake


@pytest.fixture(scope="module")
def policy(lake: Lake) -> Generative:
    return Generative(seed=1, slate=3, steps=20).fit(lake)


REWARD_OF_HABIT = Reward({HABIT: 1.0})


def tune(policy: Generative, lake: Lake, **changes: object) -> Generative:
    settings: dict = {"steps": 12, "seed": 3, "contexts": 8, "group": 4, "lr": 1e-3} | changes
    return reinforce(
        policy,
        settings.pop("reward", REWARD_OF_HABIT),
        settings.pop("early", Likes()),
        lake,
        **settings,
    )  # type: ignore[arg-type]


def weigh(policy: Generative, lake: Lake, **changes: object) -> Generative:
    settings: dict = {"steps": 60, "seed": 3, "contexts": 4, "group": 2, "lr": 1e-3} | changes
    return reward_weighted(
        policy,
        settings.pop("reward", REWARD_OF_HABIT),
        settings.pop("early", Likes()),
        lake,
        **settings,
    )  # type: ignore[arg-type]


def good_share(policy: Generative, lake: Lake, exclude: str = "none") -> float:
    """Probability of a good item in the first slot, mean over logged moments."""
    contexts = contexts_from_log(lake, slots=3, history=policy.history, limit=60, exclude=exclude)
    return float(
        np.exp(policy.item_log_prob(contexts))[:, policy.index.rows(pl.Series(GOOD))]
        .sum(axis=1)
        .mean()
    )


def same_weights(one: Generative, two: Generative) -> bool:
    pairs = zip(one.decoder.model.parameters(), two.decoder.model.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_reinforce_raises_the_probability_of_what_is_rewarded(
    policy: Generative, lake: Lake
) -> None:
    weights = {name: value.clone() for name, value in policy.decoder.model.state_dict().items()}
    name, before = policy.name, good_share(policy, lake)
    tuned = tune(policy, lake, steps=60, lr=3e-3, kl=0.1)
    assert good_share(tuned, lake) > 2 * before
    assert all(
        torch.equal(value, weights[key]) for key, value in policy.decoder.model.state_dict().items()
    )
    assert replace_name(policy) == name != tuned.name
    assert tuned.curve[-1]["kl"] > 0.05
    early, late = (
        [row["reward"] for row in part] for part in (tuned.curve[:10], tuned.curve[-10:])
    )
    assert np.mean(late) > 1.5 * np.mean(early)
    assert [row["step"] for row in tuned.curve] == list(range(1, 61))
    assert all(
        set(row) == {"step", "reward", "kl", "kl_p95", "zero_advantage"} for row in tuned.curve
    )
    assert all(0 <= row["zero_advantage"] <= 1 for row in tuned.curve)
    assert tuned.curve[0]["kl"] == pytest.approx(0, abs=1e-5)  # the first draw is the start's own


def replace_name(policy: Generative) -> str:
    """The name computed afresh, not the cached one."""
    return policy.with_model(policy.decoder.model).name


def test_a_strong_penalty_keeps_it_near_the_start(policy: Generative, lake: Lake) -> None:
    free = tune(policy, lake, steps=40, lr=3e-3, kl=0.0)
    held = tune(policy, lake, steps=40, lr=3e-3, kl=1000.0)

    def divergence(tuned: Generative) -> float:
        contexts = contexts_from_log(
            lake, slots=3, history=policy.history, limit=60, exclude="none"
        )
        p, q = tuned.item_log_prob(contexts), policy.item_log_prob(contexts)
        return float((np.exp(p) * (p - q)).sum(axis=1).mean())

    assert divergence(held) < 0.2 * divergence(free)
    assert divergence(free) > 0.02


def test_rate_zero_and_no_steps_change_nothing(policy: Generative, lake: Lake) -> None:
    still = tune(policy, lake, steps=3, lr=0.0)
    assert same_weights(still, policy)
    assert still.name == policy.name
    assert len(still.curve) == 3
    none = tune(policy, lake, steps=0)
    assert same_weights(none, policy)
    assert none.curve == ()


def test_the_seed_alone_decides(policy: Generative, lake: Lake) -> None:
    torch.manual_seed(1)
    one = tune(policy, lake, steps=4)
    torch.manual_seed(2)
    assert same_weights(one, tune(policy, lake, steps=4))
    assert not same_weights(one, tune(policy, lake, steps=4, seed=4))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", -1),
        ("steps", 2.5),
        ("steps", True),
        ("seed", -1),
        ("kl", -0.1),
        ("kl", "0.2"),
        ("kl", float("nan")),
        ("lr", -1e-9),
        ("contexts", 0),
        ("group", 1),
        ("slots", 0),
        ("pool", 0),
    ],
)
def test_parameters_out_of_range_are_named(
    policy: Generative, lake: Lake, name: str, value: float
) -> None:
    with pytest.raises(
        ConfigError,
        match=rf"reinforce: {name}={value!r} given, expected a (whole )?number of at least",
    ):
        tune(policy, lake, **{name: value})
    with pytest.raises(ConfigError, match=f"reward_weighted: {name}={value!r} given"):
        weigh(policy, lake, **{name: value})


def test_more_slots_than_any_moment_leaves_are_refused(policy: Generative, lake: Lake) -> None:
    with pytest.raises(DataError, match="no logged moment leaves 41 items"):
        tune(policy, lake, slots=41)


def test_rewards_that_are_not_finite_are_refused(policy: Generative, lake: Lake) -> None:
    with pytest.raises(DataError, match="rewards are not finite"):
        tune(policy, lake, early=Likes(rest=float("nan")))


@pytest.mark.parametrize("constant", [30.0, pytest.param(0.5, marks=pytest.mark.slow)])
@pytest.mark.parametrize("learn", [tune, weigh])
def test_a_constant_added_to_the_reward_changes_nothing(
    policy: Generative, lake: Lake, learn: Callable[..., Generative], constant: float
) -> None:
    # catches: a unit that grows with the constant, so that the penalty drowns what is rewarded
    settings = {"steps": 40, "lr": 3e-3, "kl": 0.1}
    plain = learn(policy, lake, early=Likes(1.0, 0.0), **settings)
    shifted = learn(policy, lake, early=Likes(1.0 + constant, constant), **settings)
    exclude = "none" if learn is tune else "seen"
    assert good_share(plain, lake, exclude) > 2 * good_share(policy, lake, exclude)
    assert good_share(shifted, lake, exclude) == pytest.approx(
        good_share(plain, lake, exclude), rel=1e-3
    )
    tenfold = learn(policy, lake, early=Likes(10.0, 0.0), **settings)
    assert good_share(tenfold, lake, exclude) == pytest.approx(
        good_share(plain, lake, exclude), rel=1e-3
    )


def test_the_unit_is_the_spread_of_a_slot_within_a_group_by_hand() -> None:
    value = np.array(
        [[[1.0, 5.0], [3.0, 5.0]], [[-2.0, 0.0], [2.0, 4.0]]]
    )  # variances 2 and 0, 8 and 8
    assert spread_within_groups(value) == pytest.approx(np.sqrt(18 / 4))
    assert spread_within_groups(value + np.array([[[7.0, -3.0]], [[100.0, 0.5]]])) == pytest.approx(
        np.sqrt(18 / 4)
    )
    assert spread_within_groups(np.full((2, 4, 3), 0.1) + 1e-16 * np.arange(4)[:, None]) == 1.0


def test_equal_rewards_leave_no_advantage_but_the_penalty(policy: Generative, lake: Lake) -> None:
    tuned = tune(policy, lake, steps=3, early=Likes(0.4, 0.4), kl=0.0)
    assert [row["zero_advantage"] for row in tuned.curve] == [1.0] * 3
    assert same_weights(tuned, policy)


class Stop(Exception):
    pass


def stop_at(step: int) -> Callable[[int, int, dict[str, float]], None]:
    def progress(done: int, of: int, figures: dict[str, float]) -> None:
        if done == step:
            raise Stop

    return progress


@pytest.mark.parametrize("kind", ["reinforce", "guarded", "reward_weighted", "next_items", "muon"])
def test_a_stopped_run_goes_on_to_the_same_weights(
    policy: Generative, lake: Lake, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guardrails, "RATE", 0.005)
    file = tmp_path / "state" / "run.safetensors"
    first, steps, stopped = {"reinforce": (11, 14, 12), "guarded": (31, 34, 32)}.get(
        kind, (51, 56, 53)
    )

    def run(**how: object) -> Generative:
        if kind == "reinforce":
            return tune(policy, lake, steps=steps, **how)
        if (
            kind == "guarded"
            # the weights of step 10 are kept, those of 20, 30 and 34 break the bound: all of it must be
            # in the file
        ):
            return guard(policy, lake, {coverage(3): 0.85}, steps=steps, **how)
        if kind == "reward_weighted":
            return weigh(policy, lake, steps=steps, contexts=2, **how)
        untrained, optimizer = (
            Generative(seed=2).with_codes(lake, policy.codebook),
            "muon" if kind == "muon" else "adamw",
        )
        histories = histories_from_log(lake, policy.index, untrained.codebook.available)  # type: ignore[union-attr]
        curve = train_next_items(
            untrained.decoder,
            histories,
            steps=steps,
            history=5,
            batch=8,
            seed=3,
            optimizer=optimizer,
            **how,
        )  # type: ignore[arg-type]
        return Generative(
            seed=2, codebook=policy.codebook, model=untrained.model, curve=tuple(curve)
        )

    whole = run()
    with pytest.raises(Stop):
        run(checkpoint=file, progress=stop_at(stopped))
    assert file.exists()
    assert not list(file.parent.glob("*.partial"))
    first_step: list[int] = []
    resumed = run(checkpoint=file, progress=lambda step, of, figures: first_step.append(step))
    assert first_step[0] == first, "it began again instead of going on"
    assert kind != "guarded" or (
        whole.curve[-1]["kept"] == 10 and whole.curve[-1]["coverage@3 multiplier"] > 0
    )
    assert same_weights(resumed, whole)
    assert resumed.curve == whole.curve
    assert same_weights(run(checkpoint=file), whole)  # finished: nothing is left to do


def one_more_event(lake: Lake) -> Lake:
    other = Lake.memory()
    more = lake.events.head(1).with_columns(
        event_id=pl.lit("more"), time=pl.col("time") + timedelta(minutes=7), item_id=pl.lit("i5")
    )
    other.append(
        "all",
        events=pl.concat([lake.events, more]).drop("ingested_at"),
        items=lake.items.drop("ingested_at"),
        watermark=lake.watermark,
    )
    return other


@pytest.mark.parametrize("kind", ["reinforce", "reward_weighted"])
@pytest.mark.parametrize("change", ["early", "lake", "kl", "guarded early"])
def test_a_run_that_learns_from_something_else_does_not_go_on_from_a_checkpoint(
    policy: Generative, lake: Lake, tmp_path: Path, kind: str, change: str
) -> None:
    # catches: half of a policy learned from one early reward or log, half from another, under the
    # name of the second
    learn, steps, first = (tune, 12, 10) if kind == "reinforce" else (weigh, 53, 50)
    file = tmp_path / "run.safetensors"
    early, other = SOFT, OTHERS
    settings: dict = {"early": early, "steps": steps, "contexts": 2}
    if change == "guarded early":
        if kind == "reward_weighted":
            pytest.skip("it takes no guardrails")
        settings |= {
            "early": {HABIT: early, OTHER: other},
            "reward": Reward({HABIT: 1.0}, {OTHER: 0.01}),
        }
    with pytest.raises(Stop):
        learn(policy, lake, checkpoint=file, progress=stop_at(first + 1), **settings)
    started: list[int] = []
    learn(
        policy,
        lake.before(lake.watermark),
        checkpoint=file,
        progress=lambda step, of, figures: started.append(step),
        **settings,
    )
    assert started[0] == first + 1  # the same rows in another view of the lake go on
    changed: dict = {
        "early": {"early": replace(early, rest=0.2)},
        "guarded early": {"early": {HABIT: early, OTHER: replace(other, rest=0.05)}},
        "kl": {"kl": 0.5},
        "lake": {},
    }[change]
    log, what = (
        (one_more_event(lake), "lake")
        if change == "lake"
        else (lake, "kl" if change == "kl" else "early rewards")
    )
    with pytest.raises(
        ConfigError,
        match=f"run.safetensors: it was made with {what}=.*, this run has .*; delete it or give "
        "another file",
    ):
        learn(policy, log, checkpoint=file, **settings | changed)


def test_next_item_training_on_other_histories_does_not_go_on_from_a_checkpoint(
    policy: Generative, lake: Lake, tmp_path: Path
) -> None:
    file = tmp_path / "run.safetensors"
    untrained = Generative(seed=2, steps=53).with_codes(lake, policy.codebook)  # type: ignore[arg-type]
    with pytest.raises(Stop):
        untrained.train(lake, checkpoint=file, progress=stop_at(51))
    with pytest.raises(
        ConfigError, match=r"it was made with histories=.*, this run has .*; delete it"
    ):
        untrained.train(one_more_event(lake), checkpoint=file)
    assert untrained.train(lake, checkpoint=file).curve[-1]["step"] == 53


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    module = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(module.parameters())
    save_checkpoint(tmp_path / "one", module, [optimizer], {"step": 1, "seed": 3})
    with pytest.raises(ConfigError, match=r"seed=3, this run has 4; delete it"):
        load_checkpoint(tmp_path / "one", module, [optimizer], {"seed": 4})


def test_a_checkpoint_brings_back_weights_optimizer_and_notes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.1)
    assert load_checkpoint(tmp_path / "none", module, [optimizer], {}) is None
    module(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    save_checkpoint(
        tmp_path / "one", module, [optimizer], {"step": 1, "curve": [{"loss": 0.1 + 0.2}]}
    )
    other = torch.nn.Linear(3, 2)
    fresh = torch.optim.AdamW(other.parameters(), lr=0.1)
    assert load_checkpoint(tmp_path / "one", other, [fresh], {"step": 1}) == {
        "step": 1,
        "curve": [{"loss": 0.1 + 0.2}],
    }
    for each, its in ((module, optimizer), (other, fresh)):
        its.zero_grad()
        each(torch.full((1, 3), 2.0)).square().sum().backward()
        its.step()
    assert torch.equal(module.weight, other.weight)
    assert torch.equal(module.bias, other.bias)


# -- guardrails ------------------------------------------------------------------------------------

SOFT = Likes(rest=0.1)  # a start of this size is worth 0.17 per slot
OTHER = Signal("other", discovery(28), days_with("creator") >= 3, (1, 14))
OTHERS = Likes(rest=0.1, signal=OTHER, good=("i5", "i6", "i22", "i28", "i36"))


def guard(policy: Generative, lake: Lake, guardrails: dict, **changes: object) -> Generative:
    settings: dict = {
        "reward": Reward({HABIT: 1.0}, guardrails),
        "early": SOFT,
        "steps": 60,
        "lr": 3e-3,
        "kl": 0.07,
    } | changes
    return tune(policy, lake, **settings)


def measured(
    policy: Generative, lake: Lake, guardrails: dict, early: object = SOFT, seed: int = 99
) -> Guardrails:
    """The guardrails with `policy` as the start, on another sample and with other luck than in
    training (there the seed is 3)."""
    moments = enough_left(
        contexts_from_log(lake, slots=3, history=policy.history, exclude="seen"), policy, 3
    )
    return Guardrails.of(policy, Reward({HABIT: 1.0}, guardrails), early, lake, moments, 3, seed)  # type: ignore[arg-type]


def value_of(tuned: Generative, rails: Guardrails, lake: Lake) -> float:
    chance = context_chance(rails.sample, np.random.default_rng(5))
    leaves = drawn_leaves(tuned, tuned.decoder, rails.sample, groups=1, slots=3, chance=chance)
    return float(slot_rewards(tuned, REWARD_OF_HABIT, SOFT, lake, rails.sample, leaves).mean())


def test_with_a_guardrail_value_rises_and_coverage_stays_and_without_it_coverage_breaks(
    policy: Generative, lake: Lake
) -> None:
    bound = {coverage(1): 0.9}
    free, held = guard(policy, lake, {}), guard(policy, lake, bound)
    rails = measured(policy, lake, bound)
    assert rails.shares(policy.decoder) == {"coverage@1": 1.0}  # exactly: the same luck
    assert rails.shares(free.decoder)["coverage@1"] < 0.5
    assert (
        rails.shares(held.decoder)["coverage@1"] >= 0.88
    )  # also where it was not measured in training, up to an item of the 40
    assert value_of(held, rails, lake) > 1.5 * value_of(policy, rails, lake), (
        "standing still would keep it, too"
    )
    last = held.curve[-1]
    assert last["coverage@1"] >= 0.9
    assert last["coverage@1 multiplier"] > 0
    assert last["kept"] == 60
    assert set(last) == {
        "step",
        "reward",
        "kl",
        "kl_p95",
        "zero_advantage",
        "kept",
        "coverage@1",
        "coverage@1 estimate",
        "coverage@1 multiplier",
    }


def test_a_signal_can_be_a_guardrail(policy: Generative, lake: Lake) -> None:
    bound, early = {OTHER: 0.9}, {HABIT: SOFT, OTHER: OTHERS}
    free, held = guard(policy, lake, {}), guard(policy, lake, bound, early=early)
    rails = measured(policy, lake, bound, early)
    assert rails.shares(free.decoder)[OTHER.label] < 0.75
    assert rails.shares(held.decoder)[OTHER.label] > 0.85
    assert (
        held.curve[held.curve[-1]["kept"] - 1][OTHER.label] >= 0.9
    )  # the multiplier swings: later steps may break it
    assert value_of(held, rails, lake) > 2 * value_of(policy, rails, lake)


def test_weights_that_break_a_guardrail_are_refused_and_the_last_that_did_not_are_returned(
    policy: Generative, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guardrails, "RATE", 0.005)  # too little, too late
    tuned = guard(policy, lake, {coverage(3): 0.85}, steps=30)
    assert [row["kept"] for row in tuned.curve[9::10]] == [10, 10, 10]
    assert [row["coverage@3"] >= 0.85 for row in tuned.curve[9::10]] == [True, False, False]
    assert same_weights(tuned, guard(policy, lake, {coverage(3): 0.85}, steps=10))


def test_where_only_the_start_keeps_them_the_start_is_returned_and_the_curve_says_so(
    policy: Generative, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guardrails, "RATE", 0.0)  # nobody pays
    tuned = guard(policy, lake, {coverage(1): 1.0}, steps=20)
    assert same_weights(tuned, policy)
    assert tuned.name == policy.name
    assert tuned.curve[-1]["kept"] == 0
    assert tuned.curve[-1]["coverage@1"] < 1.0
    assert tuned.curve[-1]["coverage@1 multiplier"] == 0.0


def test_a_guardrail_with_room_to_spare_costs_nothing(policy: Generative, lake: Lake) -> None:
    loose = guard(policy, lake, {coverage(3): 0.01}, steps=12)
    assert same_weights(loose, guard(policy, lake, {}, steps=12))
    assert {row["coverage@3 multiplier"] for row in loose.curve} == {0.0}
    assert loose.curve[-1]["kept"] == 12


def test_the_steps_of_guardrails_by_hand(policy: Generative, lake: Lake) -> None:
    leaves, before = np.array([[[0, 1], [0, 2]]]), np.array([[[0, 1], [2, 3]]])
    contexts = contexts_from_log(lake, slots=2, history=0, limit=1)
    wide = CoverageGuard("coverage@2", 0.9, 2, available=6)
    credit, share = wide.step(contexts, leaves, before, start=0.5)
    assert np.exp(-credit) == pytest.approx(np.array([[[0.5, 0.25], [0.5, 0.25]]]))
    assert share == 3 / 4
    assert wide.level(contexts, leaves) == 2 / 6  # two items in either draw
    names = policy.index.ids
    kept = SignalGuard("other", 0.9, 2, policy, Likes(2.0, 0.5, good=(names[1],)), lake)  # type: ignore[arg-type]
    credit, share = kept.step(contexts, leaves, before, start=0.8)
    assert credit == pytest.approx(np.array([[[0.5, 2.0], [0.5, 0.5]]]) / 0.8)
    assert share == pytest.approx(1 + (3.5 / 4 - 3.5 / 4) / 0.8)
    assert kept.level(contexts, leaves) == pytest.approx(3.5 / 4)
    fewer = replace(HABIT, better="lower")  # the same belief of what there should be less of
    lower = SignalGuard(
        "other", 0.9, 2, policy, Likes(2.0, 0.5, signal=fewer, good=(names[1],)), lake
    )  # type: ignore[arg-type]
    credit, share = lower.step(contexts, leaves, np.array([[[0, 2], [2, 3]]]), start=0.8)
    assert credit == pytest.approx(-np.array([[[0.5, 2.0], [0.5, 0.5]]]) / 0.8)
    assert share == pytest.approx(1 - (3.5 / 4 - 0.5) / 0.8)
    assert (lower.share(0.88, 0.8), lower.share(0.4, 0.8)) == (
        pytest.approx(0.9),
        pytest.approx(1.5),
    )  # a rise by a tenth keeps .9
    assert kept.share(0.4, 0.8) == pytest.approx(0.5)
    rails = Guardrails((wide, kept), policy, contexts, 0, {"coverage@2": 0.5, "other": 0.8})
    up = rails.ascend({"coverage@2": 0.1, "other": 0.01}, {"coverage@2": 0.5, "other": 1.0})
    assert up == pytest.approx({"coverage@2": 0.1 + 0.5 * 0.4, "other": 0.0})
    assert rails.hold({"coverage@2": 0.9, "other": 0.9})
    assert not rails.hold({"coverage@2": 0.9, "other": 0.89})


def test_guardrails_are_part_of_a_reward() -> None:
    plain, held = (
        Reward({HABIT: 1.0}),
        Reward({HABIT: 1.0}, guardrails={coverage(): 0.95, OTHER: 1}),
    )
    same = Reward({HABIT: 1.0}, guardrails={OTHER: 1.0, Coverage(10): 0.95})
    assert (held, hash(held), held.version) == (same, hash(same), same.version)
    versions = {
        plain.version,
        held.version,
        Reward({HABIT: 1.0}, {coverage(): 0.9}).version,
        Reward({HABIT: 1.0}, {coverage(5): 0.9}).version,
    }
    assert len(versions) == 4
    assert pickle.loads(pickle.dumps(held)) == held
    assert (
        str(held)
        == f"1 x {HABIT.label}, caution 1, coverage@10 >= 95% of the start's, {OTHER.label} >= "
        "100% of the start's"
    )


@pytest.mark.parametrize(
    ("guardrails", "message"),
    [
        ({"coverage": 0.9}, "guardrail 'coverage' given, .* expected a Signal, coverage"),
        (
            {coverage(): 1.2},
            r"bound 1.2 of guardrail coverage@10 given, expected a share .* in \(0, 1\]; .* make it an objective",
        ),
        ({coverage(): 0.0}, r"bound 0.0 of guardrail coverage@10 given, expected a share"),
        ({coverage(): True}, "bound True of guardrail"),
        ({coverage(): float("nan")}, "bound nan of guardrail"),
        (
            {OTHER: 0.9, replace(OTHER, name="again"): 0.8},
            "the same definition under different names",
        ),
    ],
)
def test_guardrails_that_cannot_be_meant_are_refused(guardrails: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Reward({HABIT: 1.0}, guardrails)


def test_guardrails_that_cannot_be_kept_are_refused_before_any_step(
    policy: Generative, lake: Lake
) -> None:
    with pytest.raises(ConfigError, match=r"coverage: k=0 given"):
        coverage(0)
    with pytest.raises(
        ConfigError, match=f"no early reward for {OTHER.label} .* one per guardrail"
    ):
        guard(policy, lake, {OTHER: 0.9})
    with pytest.raises(
        DataError,
        match=f"guardrail {OTHER.label}: the start's mean value of showing is 0 per slot on 256 "
        "moments",
    ):
        guard(policy, lake, {OTHER: 0.9}, early={HABIT: SOFT, OTHER: Likes(0.0, signal=OTHER)})
    with pytest.raises(DataError, match="no logged moment leaves 41 items"):
        guard(policy, lake, {coverage(41): 0.9})
    with pytest.raises(ConfigError, match=r"reward_weighted: 1 guardrail.* use reinforce"):
        reward_weighted(policy, Reward({HABIT: 1.0}, {coverage(): 0.9}), SOFT, lake)  # type: ignore[arg-type]


# -- collapse
# ---------------------------------------------------------------------------------------


def of_few_creators(lake: Lake) -> Lake:
    """The same log; items 0 to 7 are of one creator, every further four of another."""
    other = Lake.memory()
    number = pl.col("item_id").str.slice(1).cast(pl.Int64)
    creator = pl.format("c{}", pl.max_horizontal(number // 4 - 1, pl.lit(0)))
    events, items = (
        table.drop("ingested_at").with_columns(creator_id=creator)
        for table in (lake.events, lake.items)
    )
    other.append("all", events=events, items=items, watermark=lake.watermark)
    return other


def test_the_share_beyond_the_top_creator_by_hand(policy: Generative, lake: Lake) -> None:
    contexts = contexts_from_log(lake, slots=2, history=0, limit=1)
    beside = CreatorGuard("beyond top creator", 0.8, 2, creator_I=np.array([0, 0, 1, 2]))
    leaves, before = np.array([[[0, 1], [0, 2]]]), np.array([[[0, 2], [3, 2]]])
    assert beside.level(contexts, leaves) == pytest.approx((0 + 1 / 2) / 2)  # of the two draws
    credit, share = beside.step(contexts, leaves, before, start=0.5)
    assert np.exp(-credit) == pytest.approx(np.array([[[0.75, 0.75], [0.75, 0.25]]]))
    assert share == pytest.approx((1 / 4) / (2 / 4))
    assert beside.step(contexts, leaves, np.zeros((1, 2, 2), dtype=int), start=0.5)[
        1
    ] == pytest.approx((1 / 4) / (1 / 4))
    few = of_few_creators(lake)
    creator_I = creator_of_leaves(policy, few)
    leaf = policy.index.rows(pl.Series(["i0", "i7", "i8", "i11", "i12", "i39"]))
    assert len(set(creator_I[leaf][[0, 1]])) == len(set(creator_I[leaf][[2, 3]])) == 1
    assert len(set(creator_I[leaf])) == 4
    nameless = Lake.memory()
    nameless.append(
        "all", events=lake.events.drop("ingested_at", "creator_id"), watermark=lake.watermark
    )
    assert (
        len(set(creator_of_leaves(policy, nameless))) == ITEMS
    )  # nobody knows whose they are: each is its own


def test_a_guardrail_keeps_others_beside_the_top_creator(policy: Generative, lake: Lake) -> None:
    log, one = (
        of_few_creators(lake),
        Likes(1.0, 0.1, good=("i0", "i1", "i2", "i3", "i4", "i5", "i6", "i7")),
    )
    settings: dict = {"early": one, "steps": 40, "lr": 3e-3, "kl": 0.2}
    free = tune(policy, log, **settings)
    held = tune(policy, log, reward=Reward({HABIT: 1.0}, {top_creator(): 0.8}), **settings)
    measured = Guardrails.of(
        policy, Reward({HABIT: 1.0}, {top_creator(): 0.8}), one, log, moments_of(policy, log), 3, 99
    )  # type: ignore[arg-type]
    assert measured.shares(free.decoder)["beyond top creator"] < 0.5
    assert 0.75 < measured.shares(held.decoder)["beyond top creator"] < 0.95
    assert held.curve[-1]["kept"] > 0
    assert held.curve[-1]["beyond top creator multiplier"] > 0
    assert any("distinct creators per slate" in alarm for alarm in free.alarms)


def moments_of(policy: Generative, lake: Lake) -> Contexts:
    return contexts_from_log(
        lake, slots=3, history=policy.history, exclude="seen", limit=200, seed=5
    )


def test_a_collapse_is_said_in_words_and_kept_with_the_policy(
    policy: Generative, lake: Lake, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # catches: a policy that shows three items to everybody and says nothing about it
    tuned = tune(policy, lake, steps=60, lr=3e-3, kl=0.0)
    alarms = {alarm.split(" fell by ")[0] for alarm in tuned.alarms}
    assert {"coverage", "NDCG@10"} <= alarms
    assert any(
        " is far behind the start: coverage fell by" in record.getMessage()
        for record in caplog.records
    )
    tuned.save(tmp_path / "policy")
    assert Generative.load(tmp_path / "policy").alarms == tuned.alarms
    caplog.clear()
    calm = tune(policy, lake, steps=12, kl=10.0)
    assert calm.alarms == ()
    assert not caplog.records


def test_the_figures_of_variety_by_hand(policy: Generative, lake: Lake) -> None:
    assert (
        distinct(np.array([[[1, 1, 1], [1, 2, 3]], [[5, 5, 6], [7, 7, 7]]])) == (1 + 3 + 2 + 1) / 4
    )
    visits = visits_from_log(policy, lake, limit=40, seed=0)
    ranked = policy.item_log_prob(visits.contexts)
    total = 0.0
    for n in range(len(visits.contexts)):
        relevant = set(visits.leaves[visits.offsets[n] : visits.offsets[n + 1]].tolist())
        best = [
            leaf
            for leaf in np.argsort(-ranked[n], kind="stable")[:10].tolist()
            if np.isfinite(ranked[n, leaf])
        ]
        gained = sum(1 / np.log2(place + 2) for place, leaf in enumerate(best) if leaf in relevant)
        total += gained / sum(1 / np.log2(place + 2) for place in range(min(len(relevant), 10)))
    assert ndcg(policy, policy.decoder, visits) == pytest.approx(
        total / len(visits.contexts), rel=0.02
    )  # a search with 20 beams of 40 items
    assert fallen({"a": 1.0, "b": 1.0, "c": 0.0, "d": 1.0}, {"a": 0.5, "b": 0.51, "c": 0.0}) == (
        "a fell by 50%, from 1 to 0.5",
    )


# -- the loop that ways of learning share ----------------------------------------------------------


def test_reinforcement_is_a_plain_loop_of_adamw_over_the_policy_loss(
    policy: Generative, lake: Lake
) -> None:
    """Written out once more, to rounding: no schedule, no decay, clipped at norm 1."""
    tuned = tune(policy, lake, steps=3)
    moments = contexts_from_log(
        lake,
        slots=policy.slate,
        history=policy.history,
        exclude=policy.exclude,
        limit=5_000,
        seed=3,
        learners=True,
    )
    reward, early = REWARD_OF_HABIT, Likes()
    moments = enough_left(moments, policy, policy.slate)
    unit = reward_spread(policy, reward, early, lake, moments, 3)
    decoder = policy.learner(3)
    decoder.model.eval()
    weights = list(decoder.trainable())
    optimizer = torch.optim.AdamW(weights, lr=1e-3, weight_decay=0.0, betas=(0.9, 0.99))
    for step in range(3):
        rng = np.random.default_rng([3, step])
        chosen = moments.take(rng.choice(len(moments), size=8, replace=False))
        prompts = policy.prompts(chosen)
        leaves = beam_slates(
            decoder, prompts, groups=4, slots=policy.slate, chance=context_chance(chosen, rng)
        ).leaves
        value = slot_rewards(policy, reward, early, lake, chosen, leaves)
        paid = torch.from_numpy((value - value.mean(axis=1, keepdims=True)) / unit)
        flat = leaves.reshape(8, -1)
        log_p = slate_log_prob(decoder.log_prob(prompts, flat).reshape(leaves.shape))
        first = leaves[:, :, 0]
        codes = torch.from_numpy(decoder.trie.codes[first])
        law, start = [
            [level.log_p.expand(8, 4, -1) for level in of.code_laws(prompts, first)]
            for of in (decoder, policy.decoder)
        ]
        moved = divergence(law, [level.detach() for level in start], codes)
        optimizer.zero_grad()
        (policy_loss(log_p, paid) + 0.2 * policy.slate * moved.loss).backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
    for given, expected in zip(tuned.decoder.trainable(), weights, strict=True):
        torch.testing.assert_close(given, expected, rtol=0, atol=2e-5)


def likelier_first_slot(
    policy: Generative, lake: Lake, steps: int, checkpoint: Path | None = None, progress: Any = None
) -> Generative:
    """A way of learning of a few lines: make one item likelier everywhere. All that is not its own
    comes from `trainer`."""
    task = Task.of(
        "likelier",
        policy,
        REWARD_OF_HABIT,
        Likes(),
        lake,
        slots=None,
        exclude="none",
        pool=50,
        seed=3,
        steps=steps,
        lr=1e-2,
    )

    def prepare(learner: Learner) -> StepOf:
        prompts = policy.prompts(task.moments)
        leaves = np.zeros((len(task.moments), 1), dtype=np.int64)

        def step(number: int, multiplier: Mapping[str, float]) -> Step:
            loss = -learner.decoder.log_prob(prompts, leaves).mean()
            return Step(loss, {"loss": float(loss.detach())})

        return step

    recipe = Recipe(row_every=2, save_every=4, alarms=False)
    return train(task, prepare, recipe, checkpoint=checkpoint, progress=progress)


def test_a_new_way_of_learning_says_only_its_loss(
    policy: Generative, lake: Lake, tmp_path: Path
) -> None:
    tuned = likelier_first_slot(policy, lake, 6)
    assert [row["step"] for row in tuned.curve] == [2, 4, 6]
    assert tuned.curve[-1]["loss"] < tuned.curve[0]["loss"]
    assert (tuned.exclude, tuned.rule) == ("none", "none")
    file = tmp_path / "checkpoint"
    with pytest.raises(Stop):
        likelier_first_slot(policy, lake, 6, file, stop_at(5))
    resumed = likelier_first_slot(policy, lake, 6, file)
    assert same_weights(tuned, resumed)
    assert resumed.curve == tuned.curve
    with pytest.raises(ConfigError, match="steps=6, this run has 7"):
        likelier_first_slot(policy, lake, 7, file)


# -- reward-weighted training ----------------------------------------------------------------------


def test_reward_weighted_training_raises_the_probability_of_what_is_rewarded(
    policy: Generative, lake: Lake
) -> None:
    weighted = good_share(weigh(policy, lake), lake, exclude="seen")
    assert weighted > 1.5 * good_share(policy, lake, exclude="seen")
    assert weighted > 1.5 * good_share(
        weigh(policy, lake, early=Likes(0.5, 0.5)), lake, exclude="seen"
    )


def test_constant_rewards_are_plain_training_on_discoveries(policy: Generative, lake: Lake) -> None:
    """The loss by hand: the mean over visits of the mean over their discoveries of -log pi."""
    given = weigh(policy, lake, early=Likes(0.5, 0.5), steps=8)
    assert same_weights(given, weigh(policy, lake, early=Likes(3.0, 3.0), steps=8))
    visits = visits_from_log(policy, lake, limit=20_000, seed=3)
    fresh = policy.with_model(
        new_model("tiny", policy.decoder.trie.levels, policy.decoder.trie.width, 0)
    )
    fresh.decoder.model.load_state_dict(policy.decoder.model.state_dict())

    def loss_of_step(step: int) -> Tensor:
        rows = np.random.default_rng([3, step]).choice(len(visits.contexts), size=8, replace=False)
        losses = []
        for row in rows:
            own = visits.leaves[visits.offsets[row] : visits.offsets[row + 1]]
            assert len(own) <= 2  # two plays a day: none is left out
            prompts = policy.prompts(visits.contexts.take([row]))
            losses.append(-fresh.decoder.log_prob(prompts, own[None]).mean())
        return torch.stack(losses).mean()

    descend(fresh.decoder, loss_of_step, steps=8, lr=1e-3, seed=3)
    weights = [
        torch.nn.utils.parameters_to_vector(each.decoder.model.parameters()).detach()
        for each in (policy, given, fresh)
    ]
    assert float((weights[1] - weights[2]).norm()) < 0.02 * float((weights[1] - weights[0]).norm())


def test_a_visit_that_met_one_creator_four_times_is_paid_once(
    lake: Lake, policy: Generative
) -> None:
    """Four items of one new creator in one visit are one discovery, paid to the first of them; the
    other creator's item is paid as ever."""
    names = [f"i{k}" for k in range(ITEMS)]
    rows = [
        (f"u{user}", day, item)
        for user in range(USERS)
        for day, item in ((0, 20), (1, 20), (2, 20), (3, 8), (3, 9), (3, 10), (3, 11), (3, 30))
    ]
    user, days, item = zip(*rows, strict=True)
    minutes = [-k if k < 12 else k for k in item]  # i11 is the first of its creator
    times = [
        START + timedelta(days=d, hours=8, minutes=m) for d, m in zip(days, minutes, strict=True)
    ]
    events = pl.DataFrame(
        {
            "event_id": [f"e{k}" for k in range(len(rows))],
            "user_id": user,
            "item_id": [f"i{k}" for k in item],
            "creator_id": [f"c{k // 4}" for k in item],
            "kind": ["play"] * len(rows),
            "time": pl.Series(times, dtype=US),
        }
    )
    items = pl.DataFrame(
        {
            "item_id": names,
            "creator_id": [f"c{k // 4}" for k in range(ITEMS)],
            "added_at": pl.Series([START] * ITEMS, dtype=US),
        }
    )
    log = Lake.memory()
    log.append("all", events=events, items=items, watermark=START + timedelta(days=20))
    returns = Signal("returns", discovery(28), days_with("creator"), (1, 7))
    early = MaturedOnly(returns).fit(log, returns.outcomes(log))
    visits = visits_from_log(policy, log, limit=1_000, seed=0)
    value = _values(policy, Reward({returns: 1.0}, caution=0.0), early, log, visits)
    place = visits.offsets[:-1][np.diff(visits.offsets) == 5]
    assert len(place) == USERS
    assert policy.index.ids.gather(visits.leaves[place]).unique().to_list() == ["i11"]
    c2, c7 = early.items(pl.Series(["c2", "c7"])).mean
    np.testing.assert_allclose(
        value[place[:, None] + np.arange(5)], np.tile([c2, 0, 0, 0, c7], (USERS, 1))
    )
    assert c2 > 0


def test_visits_hold_only_first_engagements_that_were_allowed(
    policy: Generative, lake: Lake
) -> None:
    visits = visits_from_log(policy, lake, limit=200, seed=0)
    seen: dict[str, dict[str, datetime]] = {}
    for row in lake.events.sort("time").iter_rows(named=True):
        seen.setdefault(row["user_id"], {}).setdefault(row["item_id"], row["time"])
    for n, context in enumerate(visits.contexts.frame.iter_rows(named=True)):
        new = policy.index.ids.gather(visits.leaves[visits.offsets[n] : visits.offsets[n + 1]])
        expected = {
            item
            for item, time in seen[context["user_id"]].items()
            if time.date() == context["time"].date() and time >= context["time"]
        }
        assert set(new) == expected
        assert len(new) == len(expected) > 0
        assert not set(new) & set(context["exclusions"])


def test_many_exclusions_are_looked_at_in_parts_and_leave_what_they_left(
    policy: Generative, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A creator of a large catalogue has thousands of items: what all visits exclude may not be
    written out at once."""
    moments = contexts_from_log(lake, slots=3, history=policy.history, exclude="seen")
    before, visits = (
        enough_left(moments, policy, 3),
        visits_from_log(policy, lake, limit=20_000, seed=3),
    )
    value = _values(policy, REWARD_OF_HABIT, Likes(), lake, visits)
    monkeypatch.setattr(rollout, "AT_ONCE", 7)
    assert len(rollout.in_parts(moments, np.arange(len(moments)))) > 10
    assert enough_left(moments, policy, 3).frame.equals(before.frame)
    again = visits_from_log(policy, lake, limit=20_000, seed=3)
    assert again.contexts.frame.equals(visits.contexts.frame)
    assert (again.leaves.tolist(), again.offsets.tolist()) == (
        visits.leaves.tolist(),
        visits.offsets.tolist(),
    )
    assert _values(policy, REWARD_OF_HABIT, Likes(), lake, again).tolist() == value.tolist()
    monkeypatch.setattr(logged_visits, "MOST_EXCLUDED", 100)
    monkeypatch.setattr(logged_visits, "SAMPLED", 20)
    few = visits_from_log(policy, lake, limit=20_000, seed=3)
    assert 0 < len(few.contexts) < len(visits.contexts)
