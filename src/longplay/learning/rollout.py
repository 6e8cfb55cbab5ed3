"""What a step of learning looks at: logged moments with room for a slate, slates drawn for them, and what those are worth."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl
from numpy.typing import NDArray

from longplay.chance import RowChance
from longplay.decisions import Contexts, context_chance
from longplay.errors import DataError
from longplay.lake.lake import Lake
from longplay.policies.decoder import Decoder
from longplay.policies.generative import Generative
from longplay.policies.sampling import beam_slates
from longplay.rewards import EarlyReward, Reward
from longplay.signals import Signal

Early = EarlyReward | Mapping[Signal, EarlyReward]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
AT_ONCE = 2_000_000  # excluded items


def enough_left(moments: Contexts, policy: Generative, slots: int) -> Contexts:
    """The moments whose exclusions leave at least `slots` items; at least one must.

    Looked at in parts, as a large catalogue's creators have thousands of items each.
    """
    every = np.arange(len(moments))
    left_N = np.concatenate([policy.allowed(moments.take(part)).count() for part in in_parts(moments, every)])
    keep = np.flatnonzero(left_N >= slots)
    if len(keep) == 0:
        raise DataError(f"reinforce: no logged moment leaves {slots} items to show; ask for fewer slots (or places of coverage) or exclude less")
    return moments.take(keep)


def in_parts(contexts: Contexts, rows: Ints) -> list[Ints]:
    """These rows of `contexts`, in order, in parts whose exclusions together are about `AT_ONCE` items: they are written out when taken."""
    excluded_N = contexts.frame["exclusions"].list.len().fill_null(0).to_numpy().astype(np.int64)
    return np.split(rows, np.flatnonzero(np.diff(np.cumsum(excluded_N[rows]) // AT_ONCE)) + 1)


def drawn_leaves(policy: Generative, decoder: Decoder, contexts: Contexts, *, groups: int, slots: int, chance: RowChance) -> Ints:
    """`groups` slates per context drawn by `decoder` (weights over `policy`'s codes), as leaves [N, G, S]."""
    return beam_slates(decoder, policy.prompts(contexts), groups=groups, slots=slots, chance=chance).leaves


def slates_of(policy: Generative, contexts: Contexts, leaves: Ints) -> tuple[Contexts, pl.Series]:
    """The contexts of `leaves[N, G, S]` repeated for every group, and the slates as item ids: both N x G long."""
    n, groups, slots = leaves.shape
    return contexts.take(np.repeat(np.arange(n), groups)), policy.index.slates(leaves.reshape(n * groups, slots))


def slot_rewards(policy: Generative, reward: Reward, early: Early, lake: Lake, contexts: Contexts, leaves: Ints) -> Floats:
    """The cautious value of showing each drawn item, [N, G, S], from `leaves[N, G, S]`."""
    value = reward.combined(early, *slates_of(policy, contexts, leaves), lake).lower(reward.caution)
    return finite(value.reshape(leaves.shape), "reinforce")


def mean_reward(policy: Generative, reward: Reward, early: Early, lake: Lake, moments: Contexts, seed: int) -> float:
    """The unit of rewards: mean |reward| per slot of the policy's own slates on up to 256 moments; 1 where it is 0."""
    rng = np.random.default_rng([seed, 2**32 - 1])
    chosen = moments.take(rng.choice(len(moments), size=min(256, len(moments)), replace=False))
    leaves = drawn_leaves(policy, policy.decoder, chosen, groups=2, slots=moments.slots, chance=context_chance(chosen, rng))
    return float(np.abs(slot_rewards(policy, reward, early, lake, chosen, leaves)).mean()) or 1.0


def finite(value: Floats, who: str) -> Floats:
    """`value` if all of it is finite.

    Raises:
        DataError: some of it is not.
    """
    if not np.isfinite(value).all():
        raise DataError(f"{who}: {int((~np.isfinite(value)).sum())} rewards are not finite; check the early reward on these contexts")
    return value
