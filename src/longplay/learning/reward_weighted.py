"""Reward-weighted training on logged choices, a baseline that is hard to beat."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from longplay.frames import as_lists
from longplay.lake.lake import Lake
from longplay.learning.enforcement import refuse_guardrails
from longplay.learning.ragged import drawn_places, values_of_lists
from longplay.learning.rollout import EarlyRewards
from longplay.learning.trainable import Trainable
from longplay.learning.trainer import (
    Learner,
    P,
    Recipe,
    Step,
    StepOf,
    Task,
    Weights,
    train,
)
from longplay.learning.visits import Visits, visits_from_log
from longplay.policies.generative.decoder import Decoder
from longplay.policies.training.descent import SAVE_EVERY, warmed_cosine
from longplay.progress import Progress, reporting
from longplay.rewards import Reward

# as in next-item training
RECIPE = Recipe(
    weight_decay=0.01,
    betas=(0.9, 0.999),
    rate=warmed_cosine,
    row_every=SAVE_EVERY,
    save_every=SAVE_EVERY,
    alarms=False,
)
TARGETS = 8  # discoveries of a visit per step
MOST = 10.0  # cap on reward / lambda above the least reward, so that no single discovery rules


def reward_weighted(
    policy: P,
    reward: Reward,
    early: EarlyRewards,
    lake: Lake,
    *,
    steps: int = 200,
    seed: int = 0,
    kl: float = 0.2,
    nats: float | None = None,
    lr: float = 1e-3,
    contexts: int = 32,
    group: int = 8,
    slots: int | None = None,
    pool: int = 5_000,
    limit: int = 20_000,
    progress: Progress = None,
    checkpoint: Path | None = None,
) -> P:
    """Return `policy` trained further on logged discoveries, with weights exp(reward / lambda)
    (arXiv 2603.10279).

    The same reward (the cautious value of showing, here of what was logged), the same trade-off and
    as many completions per step as `reinforce`: lambda = kl x the spread of the start's rewards
    within a group, so that both aim at logged choices (or the start) x exp(reward / lambda), and
    `contexts` x `group` visits per step, with up to `TARGETS` discoveries each. Arguments as in
    `reinforce`.

    Raises:
        ConfigError: a parameter out of range, or a reward with guardrails.
        DataError: no visit has a new item.
    """
    refuse_guardrails("reward_weighted", reward)
    task = Task.of(
        "reward_weighted",
        policy,
        reward,
        early,
        lake,
        slots=slots,
        exclude=None,
        pool=pool,
        seed=seed,
        steps=steps,
        lr=lr,
        kl=kl,
        nats=nats,
        contexts=contexts,
        group=group,
        limit=limit,
    )

    def prepare(learner: Learner) -> StepOf:
        visits = visits_from_log(policy, lake, limit=limit, seed=seed)
        value = _values(policy, reward, early, lake, visits)
        worth = (value - value.min()) / learner.unit
        count = min(contexts * group, len(visits.contexts))

        def step(number: int, weights: Weights) -> Step:
            rng = np.random.default_rng([seed, number])
            rows = rng.choice(len(visits.contexts), size=count, replace=False)
            weight = np.exp(np.minimum(worth / max(weights.kl, 1e-6), MOST))
            weight /= weight.mean()
            loss = _loss(learner.decoder, policy, visits, weight, rows, rng)
            return Step(loss, {"loss": float(loss.detach())})

        return step

    with reporting("reward_weighted", "steps", progress) as tell:
        return train(task, prepare, RECIPE, progress=tell, checkpoint=checkpoint)


def _values(
    policy: Trainable, reward: Reward, early: EarlyRewards, lake: Lake, visits: Visits
) -> NDArray[np.float64]:
    """The cautious value of showing each logged discovery. The discoveries of a visit are treated
    as one slate, so that a creator is discovered once in it."""
    lists = as_lists("slate", policy.index.ids.gather(visits.leaves), visits.offsets)
    return values_of_lists(reward, early, lake, visits.contexts, lists, "reward_weighted")


def _loss(
    decoder: Decoder,
    policy: Trainable,
    visits: Visits,
    weight: NDArray[np.float64],
    rows: NDArray[np.int64],
    rng: np.random.Generator,
) -> Tensor:
    """Weighted mean negative log-probability of discoveries of the visits `rows`, under their
    exclusions."""
    place, is_there = drawn_places(visits.offsets, rows, TARGETS, rng)
    leaves = visits.leaves[place]
    # every visit counts once, however many items were drawn: large baskets must not dominate
    share = np.where(is_there, weight[place], 0.0) / is_there.sum(axis=1, keepdims=True)
    log_p = decoder.log_prob(policy.prompts(visits.contexts.take(rows)), leaves)
    shares = torch.from_numpy(share)
    return -(log_p * shares).sum() / len(rows)
