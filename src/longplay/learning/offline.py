"""The baseline that is hard to beat: exponential reward-weighted training on the logged choices."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np

from longplay.lake.lake import Lake
from longplay.learning.reinforce import Early, P, enough_left, mean_reward
from longplay.decisions import contexts_from_log
from longplay.policies.decoder import Decoder
from longplay.policies.supervised import Progress, examples_from_log, train_next_items
from longplay.rewards import Reward


def reward_weighted(
    policy: P,
    reward: Reward,
    early: Early,
    lake: Lake,
    *,
    steps: int = 200,
    seed: int = 0,
    kl: float = 0.3,
    lr: float = 1e-3,
    contexts: int = 32,
    slots: int | None = None,
    pool: int = 5_000,
    limit: int = 20_000,
    progress: Progress | None = None,
    checkpoint: Path | None = None,
) -> P:
    """`policy` trained on with weights exp(reward / lambda) on logged discoveries (arXiv 2603.10279).

    The same reward (the cautious value of showing, here of what was logged) and the same trade-off
    as `reinforce`: lambda = kl x the start's mean reward, so that both aim at start x exp(reward /
    lambda). Weights are capped at exp(10) of the least. Arguments as in `reinforce`.
    """
    decoder, index = policy.decoder, policy.index
    slots = policy.slate if slots is None else slots
    moments = contexts_from_log(lake, slots=slots, history=policy.history, exclude=policy.exclude, limit=pool, seed=seed)
    moments = enough_left(moments, policy, slots)
    scale = max(kl, 1e-6) * mean_reward(policy, reward, early, lake, moments, seed)
    examples = examples_from_log(lake, index, decoder.trie, history=policy.history, exclude=policy.exclude, limit=limit, seed=seed)
    row = np.repeat(np.arange(len(examples)), np.diff(examples.offsets))
    value = np.empty(len(row))
    for start in range(0, len(row), 50_000):
        part = slice(start, start + 50_000)
        slates = index.slates(examples.targets[part, None])
        belief = reward.combined(early, examples.contexts.take(row[part]), slates, lake)
        value[part] = belief.lower(reward.caution)[:, 0]
    weight = np.exp(np.minimum((value - value.min()) / scale, 10.0))
    weighted = replace(examples, weight=weight / weight.mean())
    tuned = Decoder(copy.deepcopy(decoder.model), decoder.trie)
    curve = train_next_items(
        tuned, index, weighted, steps=steps, history=policy.history, batch=contexts, lr=lr, seed=seed, progress=progress, checkpoint=checkpoint
    )
    return replace(policy.with_model(tuned.model), curve=tuple(curve))
