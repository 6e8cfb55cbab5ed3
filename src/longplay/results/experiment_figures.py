"""Result of the stage `experiment`: the plan, the read-out, and the true effects where they are
known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from longplay.estimate import Estimate
from longplay.results.record import NotEstimable, StageResult


@dataclass(frozen=True)
class ArmPolicy:
    """The policy of an arm."""

    arm: str
    policy: str


@dataclass(frozen=True)
class PlanFigures:
    """The users and weeks that the experiment was expected to need; see `experiments.Plan`.

    Attributes:
        words: the plan as a sentence.
        signal: label of the north star.
        effect: relative difference to be found.
        mean: of the signal per user, in the past log.
        std: standard deviation of the signal per user.
        std_adjusted: the same after adjustment for what was known before.
        users: needed in all arms.
        weeks: until they are enrolled and mature; null beyond two years.
        enrolment: users per week, in the past log.
        users_at_hand: users that the experiment's weeks bring.
        detectable: minimum detectable effect of these users, relative; null where nothing is.
        wait_days: days from the last enrolment until all are mature.
        alpha: two-sided.
        power: probability that the effect is found.
        share: of the users in a treatment, of control and treatment.
        treatments: how many share alpha.
        beside: further success metrics.
        guardrails: signal -> margin.
        variance_reduction: by the adjustment, as a share.
    """

    words: str
    signal: str
    effect: float
    mean: float
    std: float
    std_adjusted: float
    users: int
    weeks: float | None
    enrolment: tuple[int, ...]
    users_at_hand: int
    detectable: float | None
    wait_days: int
    alpha: float
    power: float
    share: float
    treatments: int
    beside: tuple[str, ...]
    guardrails: Mapping[str, float]
    variance_reduction: float


@dataclass(frozen=True)
class EffectFigures:
    """A treatment against the control in one signal; see `experiments.Effect`.

    Attributes:
        control: mean per enrolled user, adjusted.
        treatment: mean per enrolled user, adjusted.
        difference: treatment less control, adjusted.
        unadjusted: the same without adjustment.
        relative: difference over the control's mean, null where that is near 0.
        level: of the intervals.
        interval: of the difference.
        relative_interval: of the relative difference, null where it is null.
        p_value: two-sided, of no difference.
        variance_reduction: share of the variance that the adjustment takes off.
        corrected_for_skewness: whether the interval is.
    """

    control: Estimate
    treatment: Estimate
    difference: Estimate
    unadjusted: Estimate
    relative: Estimate | None
    level: float
    interval: tuple[float, float]
    relative_interval: tuple[float, float] | None
    p_value: float
    variance_reduction: float
    corrected_for_skewness: bool


@dataclass(frozen=True)
class SignalLine:
    """One signal of one arm; see `experiments.Line`."""

    signal: str
    arm: str
    role: str
    margin: float | None
    better: str
    enrolled: tuple[int, int]
    mature: tuple[int, int]
    matures: datetime
    standing: str
    reason: str
    effect: EffectFigures | None


@dataclass(frozen=True)
class CheckFigures:
    """One quality check of the experiment; see `experiments.Check`."""

    name: str
    fails: bool
    warns: bool
    words: str


@dataclass(frozen=True)
class ArmDecision:
    """The decision about one arm; see `experiments.ShipDecision`."""

    arm: str
    verdict: str
    reason: str
    users: int | None
    weeks: float | None


@dataclass(frozen=True)
class ReadoutFigures:
    """The read-out of the north star; see `experiments.Readout`."""

    experiment: str
    as_of: datetime
    alpha: float
    power: float
    minimum_effect: float
    lines: tuple[SignalLine, ...]
    checks: tuple[CheckFigures, ...]
    decisions: tuple[ArmDecision, ...]


@dataclass(frozen=True)
class ArmTruth:
    """The true north star of an arm in the simulated world.

    Attributes:
        arm: its name.
        level: the north star per user under its policy.
        difference: to the incumbent; null for the incumbent itself.
    """

    arm: str
    level: Estimate
    difference: Estimate | None


@dataclass(frozen=True)
class ArmDay:
    """Share of an arm's enrolled users who visit on a day (ISO date)."""

    arm: str
    day: str
    share: float


@dataclass(frozen=True)
class ExperimentResult(StageResult, stage="experiment"):
    """An experiment with its plan, its read-out and its true effects.

    Attributes:
        north_star: label of the signal that decides.
        north_star_sentence: what it means.
        begun: when.
        days: for how long.
        arms: who decides in each, the incumbent first.
        users: of the service, or enrolled where the experiment was logged.
        share: of users in the control.
        plan: null where the experiment was logged.
        readout: of the north star.
        other_lines: of what the policies were trained on; read, but they decide nothing.
        words: the read-out as a table in words.
        truth: one row per arm; empty where the experiment was logged.
        daily: one row per arm and day.
    """

    north_star: str
    north_star_sentence: str
    begun: str
    days: int
    arms: tuple[ArmPolicy, ...]
    users: int
    share: float
    plan: PlanFigures | NotEstimable | None
    readout: ReadoutFigures
    other_lines: tuple[SignalLine, ...]
    words: str
    truth: tuple[ArmTruth, ...]
    daily: tuple[ArmDay, ...]
