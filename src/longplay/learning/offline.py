"""The baseline that is hard to beat: exponential reward-weighted training on the logged choices."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from longplay.codes.trie import Allowed
from longplay.decisions import Contexts, contexts_from_log, first_engagements
from longplay.errors import ConfigError, DataError
from longplay.lake.lake import Lake
from longplay.learning.reinforce import P, check_ranges
from longplay.learning.rollout import Early, enough_left, finite, mean_reward
from longplay.policies.decoder import Decoder
from longplay.policies.descent import Progress, descend
from longplay.policies.generative import Generative
from longplay.rewards import Reward

TARGETS = 8  # discoveries of a visit per step
AT_ONCE = 50_000  # discoveries valued at once: bounds memory
MOST = 10.0  # cap on reward / lambda above the least reward, so that no single discovery rules


@dataclass(frozen=True)
class Visits:
    """Logged visits with what was newly engaged with at each, in that order: `leaves[offsets[n]:offsets[n+1]]` of context n."""

    contexts: Contexts
    offsets: NDArray[np.int64]
    leaves: NDArray[np.int64]


def visits_from_log(policy: Generative, lake: Lake, *, limit: int, seed: int) -> Visits:
    """At most `limit` user-days of the log with the items newly engaged with that their contexts allow.

    Raises:
        DataError: no visit has a new item.
    """
    contexts = contexts_from_log(lake, slots=1, history=policy.history, exclude=policy.exclude, limit=limit, seed=seed, learners=True)
    day = pl.col("time").dt.date().alias("day")
    firsts = first_engagements(lake).select("user_id", "item_id", day, when="time")
    pairs = contexts.frame.select("user_id", day).with_row_index("row").join(firsts, on=["user_id", "day"])
    # the lines of one invoice have no order: a hash's, so that of a creator's items none is always the first
    pairs = pairs.with_columns(tie=pl.struct("user_id", "item_id").hash(seed=1)).sort("row", "when", "tie", "item_id")
    row, leaf = pairs["row"].to_numpy().astype(np.int64), policy.index.rows(pairs["item_id"])
    allowed = Allowed.of(policy.decoder.trie, *policy.index.ragged_rows(contexts.frame["exclusions"]))
    keep = (leaf >= 0) & allowed.allows(row, np.maximum(leaf, 0))
    if not keep.any():
        raise DataError(f"reward-weighted: none of {len(contexts):,} visits has a new item of the catalogue; is the log long enough?")
    rows, counts = np.unique(row[keep], return_counts=True)
    return Visits(contexts.take(rows), np.concatenate([[0], np.cumsum(counts)]), leaf[keep])


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
    group: int = 8,
    slots: int | None = None,
    pool: int = 5_000,
    limit: int = 20_000,
    progress: Progress | None = None,
    checkpoint: Path | None = None,
) -> P:
    """`policy` trained on with weights exp(reward / lambda) on logged discoveries (arXiv 2603.10279).

    The same reward (the cautious value of showing, here of what was logged), the same trade-off and as
    many completions per step as `reinforce`: lambda = kl x the start's mean reward, so that both aim at logged
    choices (or the start) x exp(reward / lambda), and `contexts` x `group` visits per step, with up to
    `TARGETS` discoveries each. Arguments as in `reinforce`.

    Raises:
        ConfigError: a parameter out of range, or a reward with guardrails. DataError: no visit has a new item.
    """
    if reward.guardrails:
        raise ConfigError(
            f"reward_weighted: {len(reward.guardrails)} guardrail(s) given, but it trains on logged choices alone and enforces none; "
            "use reinforce, or give a reward without guardrails"
        )
    slots = policy.slate if slots is None else slots
    check_ranges("reward_weighted", steps=steps, kl=kl, lr=lr, contexts=contexts, group=group, slots=slots, pool=pool, limit=limit)
    moments = contexts_from_log(lake, slots=slots, history=policy.history, exclude=policy.exclude, limit=pool, seed=seed, learners=True)
    scale = max(kl, 1e-6) * mean_reward(policy, reward, early, lake, enough_left(moments, policy, slots), seed)
    visits = visits_from_log(policy, lake, limit=limit, seed=seed)
    value = _values(policy, reward, early, lake, visits)
    weight = np.exp(np.minimum((value - value.min()) / scale, MOST))
    weight /= weight.mean()
    tuned = policy.learner(seed)

    def loss_of_step(step: int) -> Tensor:
        rng = np.random.default_rng([seed, step])
        rows = rng.choice(len(visits.contexts), size=min(contexts * group, len(visits.contexts)), replace=False)
        return _loss(tuned, policy, visits, weight, rows, rng)

    curve = descend(tuned, loss_of_step, steps=steps, lr=lr, seed=seed, progress=progress, checkpoint=checkpoint)
    return replace(policy.settled(tuned), curve=tuple(curve))


def _values(policy: Generative, reward: Reward, early: Early, lake: Lake, visits: Visits) -> NDArray[np.float64]:
    """The cautious value of showing each logged discovery, those of a visit as one slate: a creator is discovered once in it."""
    value, count_N = np.empty(len(visits.leaves)), np.diff(visits.offsets)
    for count in np.unique(count_N):
        for rows in np.array_split(np.flatnonzero(count_N == count), 1 + int((count_N == count).sum() * count) // AT_ONCE):
            place_NS = visits.offsets[rows, None] + np.arange(count)
            slates = policy.index.slates(visits.leaves[place_NS])
            value[place_NS] = reward.combined(early, visits.contexts.take(rows), slates, lake).lower(reward.caution)
    return finite(value, "reward_weighted")


def _loss(
    decoder: Decoder, policy: Generative, visits: Visits, weight: NDArray[np.float64], rows: NDArray[np.int64], rng: np.random.Generator
) -> Tensor:
    """Weighted mean negative log-probability of discoveries of the visits `rows`, under their exclusions."""
    leaves, share = np.zeros((len(rows), TARGETS), dtype=np.int64), np.zeros((len(rows), TARGETS))
    for place, row in enumerate(rows):
        start, stop = visits.offsets[row], visits.offsets[row + 1]
        chosen = start + rng.permutation(stop - start)[:TARGETS]
        # a visit counts once however many of its items were drawn: heavy baskets must not drown the rest
        leaves[place, : len(chosen)] = visits.leaves[chosen]
        share[place, : len(chosen)] = weight[chosen] / len(chosen)
        leaves[place, len(chosen) :] = visits.leaves[chosen[0]]
    log_p = decoder.log_prob(policy.prompts(visits.contexts.take(rows)), leaves)
    shares = torch.from_numpy(share)
    return -(log_p * shares).sum() / len(rows)
