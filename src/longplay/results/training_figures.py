"""Result of the stage `train`: how the start learned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from longplay.results.record import Renamed, StageResult


@dataclass(frozen=True)
class TrainingCheck(Renamed):
    """Figures of next-item training at one step.

    Attributes:
        step: steps taken.
        loss: mean negative log-probability per item since the last check, nats.
        validation: the same of users who are not trained on, null where there are none.
        ndcg: of their last items, null where too few are asked for.
    """

    older_names: ClassVar[Mapping[str, str]] = {"held_out": "validation"}

    step: int
    loss: float
    validation: float | None
    ndcg: float | None


@dataclass(frozen=True)
class TrainResult(StageResult, stage="train"):
    """The trained start, from which policies are reinforced.

    Attributes:
        policy: `name@version`.
        scale: of the model, or that it began from a pretrained one.
        parameters: numbers in the model.
        steps: of training.
        curve: one row per check.
    """

    policy: str
    scale: str
    parameters: int
    steps: int
    curve: tuple[TrainingCheck, ...]
