"""Logged slots that a policy could fill, with their propensities and the value of showing them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from torch import Tensor

from longplay.arrays import Float, Int
from longplay.decisions import Contexts, contexts_at, of_learners, reads_users, showings_of
from longplay.errors import DataError
from longplay.lake.lake import Lake
from longplay.learning.ragged import drawn_places, may_show, values_of_lists
from longplay.learning.rollout import EarlyRewards
from longplay.learning.trainable import Trainable
from longplay.learning.visits import most_held
from longplay.policies.generative.decoder import Decoder
from longplay.rewards import Reward
from longplay.rewards.slot_log import shown_unasked

MOST_SLOTS = 20  # slots of one slate per step


@dataclass(frozen=True, eq=False)
class Exposures:
    """Slots of logged slates that a policy could fill.

    Attributes:
        contexts: the moments of N slates, each with at least one such slot.
        offsets: slots of slate n are the places offsets[n] to offsets[n+1] - 1, [N+1].
        leaves: what was shown in each slot, [M].
        log_propensity: natural log of the logger's probability of the slot's item, given the
            slots above it, [M].
        value: the cautious value of showing of each slot, in its slate as logged, [M].
    """

    contexts: Contexts
    offsets: Int
    leaves: Int
    log_propensity: Float
    value: Float

    @classmethod
    def from_log(
        cls,
        way: str,
        policy: Trainable,
        reward: Reward,
        early: EarlyRewards,
        lake: Lake,
        *,
        exclude: str,
        limit: int,
        seed: int,
    ) -> Exposures:
        """The slots of at most `limit` logged slates that `policy` could fill at their moments.

        Slates of users who are held out for off-policy estimates are left out, and those that show
        what was asked for (`shown_unasked`). A moment is as the policy would have seen it: the
        slate's user, time and surface, with history and exclusions from the log. Slots whose item
        the policy does not know, or may not show there, are left out after slates were valued.

        Args:
            way: what errors call the way of learning.
            policy: whose catalogue and history are meant.
            reward: what slots are paid.
            early: one early reward, or one per signal.
            lake: the log.
            exclude: what moments forbid.
            limit: slates.
            seed: decides which slates, where there are more.

        Raises:
            DataError: the log has no decisions of learners, none with an item that the policy
                could have shown, or a value is not finite.
        """
        decisions = _slates_of_learners(way, lake)

        def drawn(most: int) -> pl.DataFrame:
            if decisions.height <= most:
                return decisions
            rows = np.random.default_rng(seed).choice(decisions.height, most, replace=False)
            return decisions[np.sort(rows)]

        def moments(most: int) -> Contexts:
            slates = drawn(most)
            contexts = contexts_at(
                lake,
                slates.select("user_id", "time"),
                slots=1,
                history=policy.history,
                exclude=exclude,
                showings=showings_of(policy),
                users=reads_users(policy),
            )
            return Contexts(contexts.frame.with_columns(slates["surface"]))

        most = most_held(policy, limit, moments)
        slates = drawn(most)
        contexts = moments(most)
        offsets, leaf = policy.index.ragged_rows(slates["slate"])
        row = np.repeat(np.arange(len(contexts)), np.diff(offsets))
        keep = may_show(policy, contexts, row, leaf)
        if not keep.any():
            raise DataError(
                f"{way}: none of {len(leaf):,} logged slots has an item that the policy could show "
                f"there under exclude={exclude!r}; exclude less, or fit it to the items that were "
                "shown"
            )
        value = values_of_lists(reward, early, lake, contexts, slates["slate"], way)
        log_propensity = slates["log_prob"].explode(empty_as_null=False).to_numpy()
        rows, counts = np.unique(row[keep], return_counts=True)
        return cls(
            contexts.take(rows),
            np.concatenate([[0], np.cumsum(counts)]),
            leaf[keep],
            log_propensity[keep],
            value[keep],
        )

    def __len__(self) -> int:
        return len(self.contexts)

    def drawn(self, slates: int, rng: np.random.Generator) -> Batch:
        """Up to `MOST_SLOTS` slots of each of up to `slates` slates, drawn without replacement."""
        rows = rng.choice(len(self), size=min(slates, len(self)), replace=False)
        longest = int(np.diff(self.offsets).max())
        place, is_there = drawn_places(self.offsets, rows, min(longest, MOST_SLOTS), rng)
        return Batch(self.contexts.take(rows), self.leaves[place], is_there, place[is_there])


@dataclass(frozen=True, eq=False)
class Batch:
    """The slots that a step learns from.

    Attributes:
        contexts: the moments of R slates.
        leaves: items to look up, [R, S].
        is_there: which of them are slots; the others only fill rows, [R, S].
        place: place of each of the M slots among all exposures, slate by slate.
    """

    contexts: Contexts
    leaves: Int
    is_there: np.ndarray
    place: Int

    def log_prob(self, policy: Trainable, start: Decoder, tuned: Decoder) -> tuple[Tensor, Tensor]:
        """log pi of each slot's item at its moment, under `tuned` with gradient and under `start`
        without; both [M]."""
        prompts = policy.prompts(self.contexts)
        is_there = torch.from_numpy(self.is_there)
        with torch.no_grad():
            reference = start.log_prob(prompts, self.leaves)[is_there]
        return tuned.log_prob(prompts, self.leaves)[is_there], reference


def _slates_of_learners(way: str, lake: Lake) -> pl.DataFrame:
    """The logged slates that may be learned from, in the order of the lake's table.

    Raises:
        DataError: there are none.
    """
    if lake.decisions.is_empty():
        raise DataError(
            f"{way}: the lake has no decisions, so it does not say what was shown; log slates with "
            "the log_prob of every slot, or use reinforce, preference_pairs or reward_weighted"
        )
    decisions = shown_unasked(lake, of_learners(lake.decisions))
    decisions = decisions.filter(pl.col("slate").list.len() > 0)
    if decisions.is_empty():
        raise DataError(
            f"{way}: {lake.decisions.height:,} decisions given, but all of them are empty or of "
            "users who are held out for off-policy estimates; log more users"
        )
    return decisions
