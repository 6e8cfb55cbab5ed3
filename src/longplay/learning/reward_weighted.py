"""Reward-weighted training on logged choices, a baseline that is hard to beat."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from longplay.decisions import contexts_from_log
from longplay.errors import ConfigError
from longplay.lake.lake import Lake
from longplay.learning.reinforce import P, check_ranges
from longplay.learning.rollout import (
    Early,
    enough_left,
    fingerprints,
    finite,
    in_parts,
    reward_spread,
)
from longplay.learning.visits import Visits, visits_from_log
from longplay.policies.generative.decoder import Decoder
from longplay.policies.generative_policy import Generative
from longplay.policies.training.descent import Progress, descend
from longplay.rewards import Reward

TARGETS = 8  # discoveries of a visit per step
AT_ONCE = 50_000  # discoveries valued at once: bounds memory
MOST = 10.0  # cap on reward / lambda above the least reward, so that no single discovery rules


def reward_weighted(
    policy: P,
    reward: Reward,
    early: Early,
    lake: Lake,
    *,
    steps: int = 200,
    seed: int = 0,
    kl: float = 0.2,
    lr: float = 1e-3,
    contexts: int = 32,
    group: int = 8,
    slots: int | None = None,
    pool: int = 5_000,
    limit: int = 20_000,
    progress: Progress | None = None,
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
    if reward.guardrails:
        raise ConfigError(
            f"reward_weighted: {len(reward.guardrails)} guardrail(s) given, but it trains on "
            "logged choices alone and enforces none; "
            "use reinforce, or give a reward without guardrails"
        )
    slots = policy.slate if slots is None else slots
    check_ranges(
        "reward_weighted",
        steps=steps,
        kl=kl,
        lr=lr,
        contexts=contexts,
        group=group,
        slots=slots,
        pool=pool,
        limit=limit,
    )
    moments = contexts_from_log(
        lake,
        slots=slots,
        history=policy.history,
        exclude=policy.exclude,
        limit=pool,
        seed=seed,
        learners=True,
    )
    moments = enough_left(moments, policy, slots)
    scale = max(kl, 1e-6) * reward_spread(policy, reward, early, lake, moments, seed)
    visits = visits_from_log(policy, lake, limit=limit, seed=seed)
    value = _values(policy, reward, early, lake, visits)
    weight = np.exp(np.minimum((value - value.min()) / scale, MOST))
    weight /= weight.mean()
    tuned = policy.learner(seed)

    def loss_of_step(step: int) -> Tensor:
        rng = np.random.default_rng([seed, step])
        rows = rng.choice(
            len(visits.contexts), size=min(contexts * group, len(visits.contexts)), replace=False
        )
        return _loss(tuned, policy, visits, weight, rows, rng)

    made_by: dict[str, object] = {}
    if checkpoint:
        made_by = {
            "start": policy.name,
            "reward": reward.version,
            "kl": kl,
            "contexts": contexts,
            "group": group,
        }
        made_by |= {
            "slots": slots,
            "pool": pool,
            "limit": limit,
            **fingerprints(policy, reward, early, lake, moments),
        }
    curve = descend(
        tuned,
        loss_of_step,
        steps=steps,
        lr=lr,
        seed=seed,
        progress=progress,
        checkpoint=checkpoint,
        made_by=made_by,
    )
    return replace(
        policy.settled(tuned), curve=tuple(curve), alarms=(), rule=policy.exclude, also_under=None
    )


def _values(
    policy: Generative, reward: Reward, early: Early, lake: Lake, visits: Visits
) -> NDArray[np.float64]:
    """The cautious value of showing each logged discovery, those of a visit as one slate: a creator
    is discovered once in it."""
    value, count_N = np.empty(len(visits.leaves)), np.diff(visits.offsets)
    for count in np.unique(count_N):
        for part in in_parts(visits.contexts, np.flatnonzero(count_N == count)):
            for rows in np.array_split(part, 1 + len(part) * int(count) // AT_ONCE):
                place_NS = visits.offsets[rows, None] + np.arange(count)
                slates = policy.index.slates(visits.leaves[place_NS])
                value[place_NS] = reward.combined(
                    early, visits.contexts.take(rows), slates, lake
                ).lower(reward.caution)
    return finite(value, "reward_weighted")


def _loss(
    decoder: Decoder,
    policy: Generative,
    visits: Visits,
    weight: NDArray[np.float64],
    rows: NDArray[np.int64],
    rng: np.random.Generator,
) -> Tensor:
    """Weighted mean negative log-probability of discoveries of the visits `rows`, under their
    exclusions."""
    leaves, share = np.zeros((len(rows), TARGETS), dtype=np.int64), np.zeros((len(rows), TARGETS))
    for place, row in enumerate(rows):
        start, stop = visits.offsets[row], visits.offsets[row + 1]
        chosen = start + rng.permutation(stop - start)[:TARGETS]
        # a visit counts once however many of its items were drawn: heavy baskets must not drown the
        # rest
        leaves[place, : len(chosen)] = visits.leaves[chosen]
        share[place, : len(chosen)] = weight[chosen] / len(chosen)
        leaves[place, len(chosen) :] = visits.leaves[chosen[0]]
    log_p = decoder.log_prob(policy.prompts(visits.contexts.take(rows)), leaves)
    shares = torch.from_numpy(share)
    return -(log_p * shares).sum() / len(rows)
