"""Result of the stage `offpolicy`: the estimated value of policies' slots."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from longplay.estimate import Estimate
from longplay.results.record import NotEstimable, StageResult


@dataclass(frozen=True)
class PolicyEstimates:
    """The off-policy estimates of one policy.

    Attributes:
        policy: its name.
        diagnosis: how well the log supports them, in words.
        lacks: what the log lacks, in few words; empty where nothing.
        estimates: by estimator.
    """

    policy: str
    diagnosis: str
    lacks: str
    estimates: Mapping[str, Estimate | NotEstimable]


@dataclass(frozen=True)
class OffpolicyResult(StageResult, stage="offpolicy"):
    """Off-policy values per slot.

    Attributes:
        not_estimable: why the log cannot be asked at all; null where it can.
        signal: label of the signal that slots are valued by, null where it cannot be asked.
        surface: whose slots, null where it cannot be asked.
        slots: mature slots.
        users: of these slots.
        logged: value of the slots as logged, null where none is mature.
        policies: one row per policy.
    """

    not_estimable: str | None
    signal: str | None
    surface: str | None
    slots: int
    users: int
    logged: Estimate | None
    policies: tuple[PolicyEstimates, ...]
