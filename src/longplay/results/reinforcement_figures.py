"""Result of the stage `reinforce`: how the reinforced policies and their rivals learned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from longplay.errors import DataError
from longplay.results.record import StageResult, added_later, flattened


@dataclass(frozen=True)
class ReinforceStep:
    """Figures of one step of reinforcement; see `learning.reinforce`.

    Attributes:
        step: from 1.
        reward: mean early reward per slot.
        kl: mean distance to the start, nats per slot.
        kl_p95: its 95th percentile over contexts.
        zero_advantage: share of groups whose slates were worth the same.
        guarded: of each guardrail the share of the start's last measured under its label, the
            step's own estimate under `LABEL estimate` and the price under `LABEL multiplier`; and
            under `kept` the step whose weights are kept. Empty without guardrails.
    """

    step: int
    reward: float
    kl: float
    kl_p95: float
    zero_advantage: float
    guarded: Mapping[str, float] = flattened()


@dataclass(frozen=True)
class WeightedStep:
    """Loss at one check; of reward-weighted training in weighted nats per discovery."""

    step: int
    loss: float


@dataclass(frozen=True)
class AddedPolicyFigures:
    """A policy of the run beside the first ones (`longplay.run_policies`).

    Attributes:
        name: of its record.
        policy: `name@version`.
        curve: its loss at each check; empty where its training has none.
        alarms: what fell far behind the start, in words.
    """

    name: str
    policy: str
    curve: tuple[WeightedStep, ...]
    alarms: tuple[str, ...]


@dataclass(frozen=True)
class WeightedFigures:
    """Reward-weighted training from the same start.

    Attributes:
        policy: `name@version`.
        curve: one row per check.
    """

    policy: str
    curve: tuple[WeightedStep, ...]


@dataclass(frozen=True)
class RivalFigures:
    """A rival: the same start reinforced on another reward.

    Attributes:
        policy: `name@version`.
        objectives: weight by name of the signal.
        curve: one row per step.
        alarms: what fell far behind the start, in words.
    """

    policy: str
    objectives: Mapping[str, float]
    curve: tuple[ReinforceStep, ...]
    alarms: tuple[str, ...]


@dataclass(frozen=True)
class ReinforceResult(StageResult, stage="reinforce"):
    """The reinforced policy, and the policies that it is compared with.

    Attributes:
        policy: `name@version`.
        reward: version of the reward.
        objectives: weight by label of the signal.
        caution: std of belief that the reward subtracts.
        guardrails: share of the start's that is kept, by label.
        alarms: what fell far behind the start, in words.
        exclude: what the policy does not recommend: seen, creator or none.
        kl_weight: price of a nat of distance to the start.
        weighted_kl: the same of reward-weighted training.
        curve: one row per step.
        weighted: reward-weighted training.
        rivals: by name.
        added: policies beside these; empty where the table of policies holds no more.
    """

    policy: str
    reward: str
    objectives: Mapping[str, float]
    caution: float
    guardrails: Mapping[str, float]
    alarms: tuple[str, ...]
    exclude: str
    kl_weight: float
    weighted_kl: float
    curve: tuple[ReinforceStep, ...]
    weighted: WeightedFigures
    rivals: Mapping[str, RivalFigures]
    added: tuple[AddedPolicyFigures, ...] = added_later()

    def __post_init__(self) -> None:
        expected = {"kept"} if self.guardrails else set[str]()
        for label in self.guardrails:
            expected |= {label, f"{label} estimate", f"{label} multiplier"}
        for curve in (self.curve, *(rival.curve for rival in self.rivals.values())):
            for row in curve:
                if wrong := expected ^ row.guarded.keys():
                    raise DataError(
                        f"curve: step {row.step} has {sorted(row.guarded)}, expected "
                        f"{sorted(expected)} of the guardrails; {sorted(wrong)} differ"
                    )
