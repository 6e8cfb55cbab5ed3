"""Result of the stage `evaluate`: how policies rank future visits, and their true values where
known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from longplay.estimate import Estimate
from longplay.results.record import StageResult

TRUE_VALUE = "true value per slot"  # what the pairs of `TrueValues` are of


@dataclass(frozen=True)
class MetricFigure:
    """One metric of one policy.

    Attributes:
        policy: its name.
        metric: its name, e.g. NDCG@10.
        value: the figure.
        estimate: the figure with its error; null for one that is counted, not estimated.
    """

    policy: str
    metric: str
    value: float
    estimate: Estimate | None


@dataclass(frozen=True)
class PolicyPair:
    """A paired difference between two policies.

    Attributes:
        policy: the first.
        than: the second, which is subtracted.
        metric: of what.
        difference: over the same users.
    """

    policy: str
    than: str
    metric: str
    difference: Estimate


@dataclass(frozen=True)
class PolicyValue:
    """The true value of one policy."""

    policy: str
    value: Estimate


@dataclass(frozen=True)
class TrueValues:
    """True values of showing, in the simulated world.

    Attributes:
        users: asked.
        policies: value per slot of each.
        differences: between them, on the same users.
    """

    users: int
    policies: tuple[PolicyValue, ...]
    differences: tuple[PolicyPair, ...]


@dataclass(frozen=True)
class EvaluateResult(StageResult, stage="evaluate"):
    """How policies rank future visits.

    Attributes:
        not_estimable: what this data cannot answer, and why.
        signal: label of the signal that judges; null where nothing was ranked.
        visits: judged.
        users: of these visits.
        discoveries: first plays in them.
        habits: discoveries that became a habit.
        new_to_catalogue: share of discovered items that were not in the catalogue yet, null where
            nothing was ranked.
        ranking: metrics by policy; empty where nothing was ranked.
        differences: between policies, on the same visits.
        true_value: null where the world is not simulated or nothing was ranked.
    """

    not_estimable: Mapping[str, str]
    signal: str | None
    visits: int
    users: int
    discoveries: int
    habits: int
    new_to_catalogue: float | None
    ranking: tuple[MetricFigure, ...]
    differences: tuple[PolicyPair, ...]
    true_value: TrueValues | None
