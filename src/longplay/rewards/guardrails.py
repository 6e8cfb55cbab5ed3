"""Guardrails: what a policy must keep while it is trained. `learning.enforcement` measures and
enforces it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from longplay.errors import ConfigError
from longplay.signals.signal import Signal


@dataclass(frozen=True)
class Coverage:
    """Share of the available catalogue in the first `k` places of a policy's slates, over many
    contexts.

    >>> print(coverage(), Coverage(5) == coverage(k=5))
    coverage@10 True
    """

    k: int = 10

    def __post_init__(self) -> None:
        if isinstance(self.k, bool) or not isinstance(self.k, int) or self.k < 1:
            raise ConfigError(
                f"coverage: k={self.k!r} given, expected a whole number of places, at least 1"
            )

    @property
    def label(self) -> str:
        """Its name in rows and errors."""
        return f"coverage@{self.k}"

    def __str__(self) -> str:
        return self.label


def coverage(k: int = 10) -> Coverage:
    """A guardrail on variety: `{coverage(): 0.95}` keeps at least 95% of the start's coverage@10."""
    return Coverage(k)


@dataclass(frozen=True)
class TopCreator:
    """Share of a policy's slots that are *not* of its most shown creator.

    >>> print(top_creator(), TopCreator() == top_creator())
    beyond top creator True
    """

    @property
    def label(self) -> str:
        """Its name in rows and errors."""
        return "beyond top creator"

    def __str__(self) -> str:
        return self.label


def top_creator() -> TopCreator:
    """A guardrail against showing one creator everywhere: `{top_creator(): 0.8}` keeps at least 80%
    of what the start gives to all other creators.

    If the start's top creator has 10% of the slots, it may have no more than 28%: the others keep
    80% of their 90%.
    """
    return TopCreator()


PolicyMetric = Coverage | TopCreator
Guarded = Signal | PolicyMetric


def policy_metric(name: str) -> PolicyMetric | None:
    """The policy metric that a run.toml calls `coverage`, `coverage@k` or `top_creator`; null for
    any other name.

    >>> print(policy_metric("coverage"), policy_metric("coverage@5"), policy_metric("habit"))
    coverage@10 coverage@5 None
    >>> print(policy_metric("top_creator"))
    beyond top creator
    """
    if name == "coverage":
        return Coverage()
    if name == "top_creator":
        return TopCreator()
    places = re.fullmatch(r"coverage@([1-9][0-9]*)", name)
    return Coverage(int(places.group(1))) if places else None


def check_guardrails(guardrails: Mapping[Guarded, float]) -> None:
    """Raise where a guardrail cannot be kept.

    Raises:
        ConfigError: a key that is no signal or policy metric, a bound outside (0, 1], a signal
            given twice.
    """
    for metric, bound in guardrails.items():
        if not isinstance(metric, Guarded):
            raise ConfigError(
                f"reward: guardrail {metric!r} given, and longplay does not enforce what it "
                "cannot measure; "
                "expected a Signal, coverage(k) or top_creator()"
            )
        if (
            isinstance(bound, bool)
            or not isinstance(bound, int | float)
            or not np.isfinite(bound)
            or bound <= 0
        ):
            raise ConfigError(
                f"reward: bound {bound!r} of guardrail {metric.label} given, expected a share of "
                "the start's value in (0, 1]"
            )
        if bound > 1:
            raise ConfigError(
                f"reward: bound {bound!r} of guardrail {metric.label} given, expected a share of "
                "the start's value in (0, 1]; "
                "a guardrail keeps what the start has, to ask for more make it an objective"
            )
    if len(set(map(guard_key, guardrails))) < len(guardrails):
        raise ConfigError(
            "reward: two guardrails have the same definition under different names; give the "
            "stricter one"
        )


def guard_key(metric: Guarded) -> str:
    """A guardrail as the reward's version has it: the signal's version, or the policy metric's
    label."""
    return metric.version if isinstance(metric, Signal) else metric.label
