"""Guardrails as constraints, enforced with Lagrange multipliers and measured against the start.

A guardrail says: at least `bound` of what the start achieves. Two things are known of it while
training: its *measurement*, on a fixed sample of moments with the same luck for every weight (so
that the start against itself is exactly 1), and its *estimate* on the slates of a step against
slates the start would draw there, by the same luck. The estimate moves the multiplier (dual ascent:
Tessler et al. 2018, arXiv 1805.11074); the measurement decides which weights are kept. A step has
few moments with many slates each, so where coverage has fallen its estimate reads lower than the
measurement: the multiplier errs on the side of the guardrail.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from longplay.arrays import Float, Int
from longplay.decisions import Contexts, context_chance
from longplay.errors import ConfigError, DataError
from longplay.lake.lake import Lake
from longplay.learning.rollout import (
    EarlyRewards,
    drawn_leaves,
    enough_left,
    finite,
    slates_of,
)
from longplay.learning.trainable import Trainable
from longplay.learning.variety import creator_of_leaves
from longplay.policies.generative.decoder import Decoder
from longplay.rewards import EarlyReward, Reward
from longplay.rewards.guardrails import TopCreator
from longplay.rewards.reward import item_value
from longplay.signals import Signal

SAMPLE = 256  # moments on which guardrails are measured
DRAWS = 4  # independent draws of the sample's slates, averaged; a single draw errs by about 1%
# of dual ascent: rise per step where the whole share is missing, in units of the reward's spread
RATE = 0.5
LEAST_FREQUENCY = 1e-6


def refuse_guardrails(way: str, reward: Reward) -> None:
    """Raise where a reward has guardrails, for ways of learning that enforce none.

    Args:
        way: what the error calls the way of learning.
        reward: what slots are paid.

    Raises:
        ConfigError: it has some.
    """
    if reward.guardrails:
        raise ConfigError(
            f"{way}: {len(reward.guardrails)} guardrail(s) given, but it enforces none; use "
            "reinforce, or give a reward without guardrails"
        )


class Guard(Protocol):
    """One guardrail: how its metric is measured on slates, and what a slot contributes to it."""

    @property
    def label(self) -> str:
        """Its name in rows of the curve."""
        ...

    @property
    def bound(self) -> float:
        """Share of the start's level that must be kept."""
        ...

    @property
    def places(self) -> int:
        """Number of slots per slate that it is measured on."""
        ...

    def level(self, contexts: Contexts, leaves: Int) -> float:
        """The metric of slates `leaves[N, G, places]`, averaged over the G draws, in the metric's
        unit."""
        ...

    def share(self, level: float, start: float) -> float:
        """Share of the start's level that is left: 1 where the levels are equal, more where this
        one is better."""
        ...

    def step(
        self, contexts: Contexts, leaves: Int, of_start: Int, start: float
    ) -> tuple[Float, float]:
        """Payment of each slot of `leaves[N, G, S]` per unit of multiplier, and the estimated share
        of the start's level.

        `of_start`: the slates of the start, same shape and luck. `start`: the start's measured
        level.
        """
        ...

    def items(self, contexts: Contexts, law_NI: Float, start: float) -> Float:
        """Payment of every item where all of them are compared, [N, I], per unit of multiplier; with
        the law under which items are shown now."""
        ...


class HigherIsBetter:
    """A guardrail on a metric of which more is better."""

    def share(self, level: float, start: float) -> float:
        """The level divided by the start's."""
        return level / start


@dataclass(frozen=True)
class CoverageGuard(HigherIsBetter):
    """coverage@k: share of the available catalogue in the first k places of one slate per sampled
    moment.

    What a slot is paid is a surrogate, *minus the log of its item's frequency in the batch*:
    coverage itself is no sum over slots. Its expectation is the entropy of what the batch shows,
    which rises as shows spread.
    """

    label: str
    bound: float
    places: int
    available: int

    def level(self, contexts: Contexts, leaves: Int) -> float:
        """Number of different items of a draw over the number of available items, in (0, 1]."""
        return (
            float(np.mean([len(np.unique(draw)) for draw in np.moveaxis(leaves, 1, 0)]))
            / self.available
        )

    def step(
        self, contexts: Contexts, leaves: Int, of_start: Int, start: float
    ) -> tuple[Float, float]:
        """The surrogate in nats, and the number of different items relative to the start's."""
        return minus_log_frequency(leaves), len(np.unique(leaves)) / len(np.unique(of_start))

    def items(self, contexts: Contexts, law_NI: Float, start: float) -> Float:
        """The surrogate of the expected frequencies."""
        return np.broadcast_to(minus_log(law_NI.mean(axis=0)), law_NI.shape)


@dataclass(frozen=True)
class CreatorGuard(HigherIsBetter):
    """Share of slots that are not of the policy's top creator.

    What a slot is paid is the surrogate of coverage, of creators: minus the log of its creator's
    frequency in the batch.
    """

    label: str
    bound: float
    places: int
    creator_I: Int

    def level(self, contexts: Contexts, leaves: Int) -> float:
        """1 less the share of slots of the most shown creator of a draw, in [0, 1)."""
        return float(np.mean([self._beyond(draw) for draw in np.moveaxis(leaves, 1, 0)]))

    def step(
        self, contexts: Contexts, leaves: Int, of_start: Int, start: float
    ) -> tuple[Float, float]:
        """The surrogate in nats, and the share of slots not of the top creator relative to the
        start's."""
        least = 1 / of_start.size  # where the start shows one creator alone in this batch
        return minus_log_frequency(self.creator_I[leaves]), self._beyond(leaves) / max(
            self._beyond(of_start), least
        )

    def items(self, contexts: Contexts, law_NI: Float, start: float) -> Float:
        """The surrogate of the creators' expected frequencies."""
        by_creator = np.bincount(self.creator_I, law_NI.mean(axis=0)).astype(float)
        return np.broadcast_to(minus_log(by_creator)[self.creator_I], law_NI.shape)

    def _beyond(self, leaves: Int) -> float:
        _, count = np.unique(self.creator_I[leaves], return_counts=True)
        return 1.0 - float(count.max()) / leaves.size


@dataclass(frozen=True)
class SignalGuard:
    """A guardrail on a signal: the mean value of showing per slot, as its early reward expects it.
    No caution is taken off, since both sides are estimates.

    Where lower is better it may rise by no more than 1 - bound of the start's.
    """

    label: str
    bound: float
    places: int
    policy: Trainable
    early: EarlyReward
    lake: Lake

    def level(self, contexts: Contexts, leaves: Int) -> float:
        """Mean value of showing per slot, in the signal's unit."""
        return float(self._value(contexts, leaves).mean())

    def share(self, level: float, start: float) -> float:
        """The level over the start's; where lower is better, 1 less its relative rise."""
        return 2 - level / start if self.early.signal.lower_is_better else level / start

    def step(
        self, contexts: Contexts, leaves: Int, of_start: Int, start: float
    ) -> tuple[Float, float]:
        """The slot's value over the start's mean, and 1 + the relative difference from the start's
        slates; signs are turned where lower is better."""
        sign = -1 if self.early.signal.lower_is_better else 1
        credit = sign * self._value(contexts, leaves) / start
        return credit, float(
            1 + credit.mean() - sign * self._value(contexts, of_start).mean() / start
        )

    def items(self, contexts: Contexts, law_NI: Float, start: float) -> Float:
        """Every item's value over the start's mean; signs are turned where lower is better."""
        sign = -1 if self.early.signal.lower_is_better else 1
        mean_NI = item_value(self.early, contexts, self.policy.index.ids, self.lake).mean
        return sign * finite(mean_NI, f"guardrail {self.label}") / start

    def _value(self, contexts: Contexts, leaves: Int) -> Float:
        mean = self.early.value(*slates_of(self.policy, contexts, leaves), self.lake).mean
        return finite(mean.reshape(leaves.shape), f"guardrail {self.label}")


def minus_log_frequency(leaves: Int) -> Float:
    """Minus the natural log of each leaf's share among `leaves`, same shape.

    >>> np.exp(-minus_log_frequency(np.array([[[3, 3, 3, 8]]]))).round(6).tolist()
    [[[0.75, 0.75, 0.75, 0.25]]]
    """
    _, inverse, count = np.unique(leaves, return_inverse=True, return_counts=True)
    return -np.log(count / leaves.size)[inverse].reshape(leaves.shape)


def minus_log(frequency: Float) -> Float:
    """Minus the natural log of frequencies; those below one in a million count as that."""
    return -np.log(np.maximum(frequency, LEAST_FREQUENCY))


@dataclass(frozen=True)
class Guardrails:
    """All guardrails of a reward, the moments they are measured on, and the start's levels."""

    guards: tuple[Guard, ...]
    policy: Trainable
    sample: Contexts
    seed: int
    start: Mapping[str, float]

    @classmethod
    def of(
        cls,
        policy: Trainable,
        reward: Reward,
        early: EarlyRewards,
        lake: Lake,
        moments: Contexts,
        slots: int,
        seed: int,
    ) -> Guardrails:
        """The reward's guardrails, measured on `policy` as the start.

        Raises:
            ConfigError: a signal without an early reward.
            DataError: no moment leaves as many items as a guardrail looks at, or the start's mean
                value of a signal is not above 0.
        """
        models = reward.guarded(early)
        guards: list[Guard] = []
        for metric, bound in reward.guardrails.items():
            if isinstance(metric, Signal):
                guards.append(SignalGuard(metric.label, bound, slots, policy, models[metric], lake))
            elif isinstance(metric, TopCreator):
                guards.append(
                    CreatorGuard(metric.label, bound, slots, creator_of_leaves(policy, lake))
                )
            else:
                guards.append(
                    CoverageGuard(
                        metric.label, bound, metric.k, int(policy.decoder.trie.available.sum())
                    )
                )
        room = enough_left(moments, policy, max(guard.places for guard in guards))
        rows = np.random.default_rng([seed, 2**32 - 2]).choice(
            len(room), size=min(SAMPLE, len(room)), replace=False
        )
        unmeasured = cls(tuple(guards), policy, room.take(rows), seed, {})
        start = unmeasured.levels(policy.decoder)
        for label, level in start.items():
            if not level > 0:
                what = "share of slots" if label == TopCreator().label else "mean value of showing"
                raise DataError(
                    f"guardrail {label}: the start's {what} is {level:.3g} per slot on "
                    f"{len(rows)} moments, "
                    "and a share of that protects nothing; drop the guardrail, or guard what the "
                    "start has some of"
                )
        return cls(unmeasured.guards, policy, unmeasured.sample, seed, start)

    def nothing_yet(self) -> dict[str, Any]:
        """The state before the first step, as JSON has it: multipliers, the latest measurement, and
        the step whose weights are kept (0: the start's)."""
        return {
            "multiplier": dict.fromkeys(self.start, 0.0),
            "share": dict.fromkeys(self.start, 1.0),
            "kept": 0,
        }

    def levels(self, decoder: Decoder) -> dict[str, float]:
        """Every metric of slates that `decoder` draws on the sample, by label; with the same random
        numbers at every call."""
        chance = context_chance(self.sample, np.random.default_rng([self.seed, 2**32 - 3]))
        most = max(guard.places for guard in self.guards)
        leaves = drawn_leaves(
            self.policy, decoder, self.sample, groups=DRAWS, slots=most, chance=chance
        )
        return {
            guard.label: guard.level(self.sample, leaves[:, :, : guard.places])
            for guard in self.guards
        }

    def shares(self, decoder: Decoder) -> dict[str, float]:
        """The share of the start's levels that is left, by label."""
        levels = self.levels(decoder)
        return {
            guard.label: guard.share(levels[guard.label], self.start[guard.label])
            for guard in self.guards
        }

    def hold(self, share: Mapping[str, float]) -> bool:
        """Whether every guardrail holds."""
        return all(share[guard.label] >= guard.bound for guard in self.guards)

    def step(
        self, contexts: Contexts, leaves: Int, of_start: Int
    ) -> dict[str, tuple[Float, float]]:
        """Per label: payment of each slot per unit of multiplier, and the estimated share of the
        start's level; see `Guard.step`."""
        return {
            guard.label: guard.step(contexts, leaves, of_start, self.start[guard.label])
            for guard in self.guards
        }

    def items(self, contexts: Contexts, law_NI: Float, multiplier: Mapping[str, float]) -> Float:
        """What every item is paid by all guardrails together, [N, I]. See `Guard.items`."""
        paid_NI = np.zeros(law_NI.shape)
        for guard in self.guards:
            if multiplier[guard.label] > 0:
                credit_NI = guard.items(contexts, law_NI, self.start[guard.label])
                paid_NI += multiplier[guard.label] * credit_NI
        return paid_NI

    def ascend(
        self, multiplier: Mapping[str, float], share: Mapping[str, float]
    ) -> dict[str, float]:
        """The multipliers after a step of dual ascent: they rise by `RATE` times what is missing,
        fall where there is slack, and stay at least 0."""
        return {
            guard.label: max(
                0.0, multiplier[guard.label] + RATE * (guard.bound - share[guard.label])
            )
            for guard in self.guards
        }

    def figures(
        self, guarded: Mapping[str, Any], estimate: Mapping[str, float]
    ) -> dict[str, float]:
        """The guardrails' columns of a row of the curve; see `reinforce`."""
        row = {"kept": guarded["kept"]}
        for label in self.start:
            row |= {
                label: guarded["share"][label],
                f"{label} estimate": estimate[label],
                f"{label} multiplier": guarded["multiplier"][label],
            }
        return row
