"""Rollouts: logged moments, slates drawn for them, and the value of each slot."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import polars as pl

from longplay.arrays import Float, Int
from longplay.chance import RowChance
from longplay.decisions import Contexts, context_chance
from longplay.errors import DataError
from longplay.lake.content import content_digest
from longplay.lake.lake import Lake
from longplay.learning.trainable import Trainable
from longplay.policies.generative.decoder import Decoder
from longplay.policies.generative.search import beam_slates
from longplay.rewards import EarlyReward, Reward
from longplay.signals import Signal

EarlyRewards = EarlyReward | Mapping[Signal, EarlyReward]
AT_ONCE = 2_000_000  # excluded items that are held at once

SAMPLE = 256  # moments on which rewards are measured
GROUP = 8  # slates drawn for each of them
ROUNDING = 1e-9  # share of the largest reward below which rewards do not differ


def enough_left(moments: Contexts, policy: Trainable, slots: int) -> Contexts:
    """The moments whose exclusions leave at least `slots` items.

    Contexts are looked at in parts, since creators of a large catalogue have thousands of items.

    Raises:
        DataError: no moment leaves so many items.
    """
    every = np.arange(len(moments))
    left_N = np.concatenate(
        [policy.allowed(moments.take(part)).count() for part in in_parts(moments, every)]
    )
    keep = np.flatnonzero(left_N >= slots)
    if len(keep) == 0:
        raise DataError(
            f"reinforce: no logged moment leaves {slots} items to show; ask for fewer slots (or "
            "places of coverage) or exclude less"
        )
    return moments.take(keep)


def in_parts(contexts: Contexts, rows: Int) -> list[Int]:
    """The rows of `contexts` in parts whose exclusions together are about `AT_ONCE` items, which
    bounds memory."""
    excluded_N = contexts.frame["exclusions"].list.len().fill_null(0).to_numpy().astype(np.int64)
    return np.split(rows, np.flatnonzero(np.diff(np.cumsum(excluded_N[rows]) // AT_ONCE)) + 1)


def drawn_leaves(
    policy: Trainable,
    decoder: Decoder,
    contexts: Contexts,
    *,
    groups: int,
    slots: int,
    chance: RowChance,
) -> Int:
    """`groups` slates per context drawn by `decoder` (weights over `policy`'s codes), as leaves [N,
    G, S]."""
    return beam_slates(
        decoder, policy.prompts(contexts), groups=groups, slots=slots, chance=chance
    ).leaves


def slates_of(policy: Trainable, contexts: Contexts, leaves: Int) -> tuple[Contexts, pl.Series]:
    """The contexts of `leaves[N, G, S]`, each repeated for its G groups, and the slates as item
    ids. Both are N x G long."""
    n, groups, slots = leaves.shape
    return contexts.take(np.repeat(np.arange(n), groups)), policy.index.slates(
        leaves.reshape(n * groups, slots)
    )


def slot_rewards(
    policy: Trainable,
    reward: Reward,
    early: EarlyRewards,
    lake: Lake,
    contexts: Contexts,
    leaves: Int,
) -> Float:
    """The cautious value of showing each drawn item, [N, G, S], from `leaves[N, G, S]`."""
    given, slates = slates_of(policy, contexts, leaves)
    value = reward.combined(early, given, slates, lake).lower(reward.caution)
    expected = len(given), leaves.shape[2]
    if value.shape != expected:
        raise DataError(
            f"rewards of shape {value.shape} given for {expected[0]} slates of {expected[1]} slots; "
            "the early reward's value() must give one number for each slot"
        )
    return finite(value.reshape(leaves.shape), "reinforce")


def reward_spread(
    policy: Trainable, reward: Reward, early: EarlyRewards, lake: Lake, moments: Contexts, seed: int
) -> float:
    """The unit of rewards: standard deviation of a slot's reward within a group, under the start.

    A group is the slates that the policy draws for one moment: `GROUP` of them for each of up to
    `SAMPLE` moments, slot by slot. What is added to all rewards, or to all of one moment, changes
    neither this nor what is learned. 1 where rewards do not vary.
    """
    rng = np.random.default_rng([seed, 2**32 - 1])
    chosen = moments.take(rng.choice(len(moments), size=min(SAMPLE, len(moments)), replace=False))
    leaves = drawn_leaves(
        policy,
        policy.decoder,
        chosen,
        groups=GROUP,
        slots=moments.slots,
        chance=context_chance(chosen, rng),
    )
    return spread_within_groups(slot_rewards(policy, reward, early, lake, chosen, leaves))


def spread_within_groups(value_NGS: Float) -> float:
    """Root of the mean variance within a group, in the unit of `value_NGS`; 1 where values vary by
    no more than rounding.

    >>> spread_within_groups(np.array([[[1.0], [3.0]], [[31.0], [31.0]]]))      # variances 2 and 0
    1.0
    >>> spread_within_groups(np.full((4, 8, 5), 0.3) + 1e-17)
    1.0
    """
    spread = float(np.sqrt(value_NGS.var(axis=1, ddof=1).mean()))
    return spread if spread > ROUNDING * float(np.abs(value_NGS).max()) else 1.0


def fingerprints(
    policy: Trainable, reward: Reward, early: EarlyRewards, lake: Lake, moments: Contexts
) -> dict[str, str]:
    """Digests of what a run learns from, for its checkpoint: the rows of the lake, and the early
    rewards' beliefs.

    Early rewards are told apart by what they say, of objectives and of guardrails: mean, std and
    bounds of slates drawn from the whole catalogue on up to `SAMPLE` moments, to nine digits.
    """
    tables = {"events": lake.events, "decisions": lake.decisions, "items": lake.items}
    rng = np.random.default_rng(2**32 - 4)
    chosen = moments.take(rng.choice(len(moments), size=min(SAMPLE, len(moments)), replace=False))
    shown = np.flatnonzero(policy.decoder.trie.available)
    leaves = shown[rng.integers(len(shown), size=(len(chosen), 1, moments.slots))]
    contexts, slates = slates_of(policy, chosen, leaves)
    models = list(early.values()) if isinstance(early, Mapping) else [early]
    beliefs = hashlib.sha256(reward.version.encode())
    for model in sorted(models, key=lambda model: model.signal.version):
        belief = model.value(contexts, slates, lake)
        for part in (belief.mean, belief.std, belief.minimum, belief.maximum):
            beliefs.update(
                b"".join(
                    f"{number:.9g} ".encode()
                    for number in np.broadcast_to(part, belief.mean.shape).ravel()
                )
            )
    return {
        "lake": content_digest(tables, lake.watermark)[:16],
        "early rewards": beliefs.hexdigest()[:16],
    }


def finite(value: Float, way: str) -> Float:
    """`value`, after a check that all of it is finite.

    Raises:
        DataError: some of it is not.
    """
    if not np.isfinite(value).all():
        raise DataError(
            f"{way}: {int((~np.isfinite(value)).sum())} rewards are not finite; check the early "
            "reward on these contexts"
        )
    return value
