"""Result of the stage `audit`: was the early reward right?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from longplay.estimate import Estimate
from longplay.results.record import StageResult


@dataclass(frozen=True)
class VerdictFigures:
    """The audit of one signal; see `audits.Verdict`."""

    signal: str
    agreement: str
    recommendation: str
    reason: str
    users: int | None
    early: Estimate | None
    late: Estimate | None
    north_star: Estimate | None
    gap: Estimate | None
    factor: Estimate | None


@dataclass(frozen=True)
class ArmAudit:
    """The audit of one arm; see `audits.Audit`.

    Attributes:
        experiment: its name.
        arm: the treatment.
        north_star: label.
        margin: least relative gain worth having.
        age: days of each entry that the early reward had seen.
        level: of all intervals, e.g. 0.95.
        as_of: time up to which the log was read (UTC).
        verdicts: one per signal.
        words: the audit as printed.
    """

    experiment: str
    arm: str
    north_star: str
    margin: float
    age: int
    level: float
    as_of: datetime
    verdicts: tuple[VerdictFigures, ...]
    words: str


@dataclass(frozen=True)
class AuditResult(StageResult, stage="audit"):
    """The audit of every arm by name."""

    arms: Mapping[str, ArmAudit]
