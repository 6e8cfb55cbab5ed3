"""Power analysis: users and weeks that an experiment needs, and its minimum detectable effect."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from html import escape

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import stats

from longplay.display import percent
from longplay.errors import ConfigError, NotEstimable
from longplay.experiments.enrolment import covariates_of
from longplay.experiments.shipping import Metric, Rule, Shipping
from longplay.experiments.statistics import pooled_skewness
from longplay.intervals import MOST_SKEW
from longplay.lake.lake import Lake
from longplay.lake.schema import ENGAGED
from longplay.progress import Progress, reporting
from longplay.results.experiment_figures import PlanFigures
from longplay.results.record import Json, to_json
from longplay.signals.outcomes.enrolled_sums import ENTRY_DAYS, enrolled_sums
from longplay.signals.signal import Signal

MOST_WEEKS = 104  # what takes longer is not promised


def users_needed(
    std: float,
    effect: float,
    *,
    alpha: float = 0.05,
    power: float = 0.8,
    share: float = 0.5,
    std_treatment: float | None = None,
) -> int:
    """Users in both arms together that find a difference of `effect` with probability `power`,
    two-sided at `alpha`.

    N = (z_{1-alpha/2} + z_power)^2 (std^2 / (1 - share) + std_treatment^2 / share) / effect^2,
    normal approximation (Lachin 1981).

    Args:
        std: standard deviation of one user's outcome, after adjustment.
        effect: absolute, same unit.
        alpha: two-sided.
        power: in (alpha / 2, 1).
        share: the treatment's share of the two arms' users.
        std_treatment: as `std`, of a user of the treatment; None: the same. An effect that
            multiplies outcomes multiplies it, too.

    >>> users_needed(std=1.0, effect=0.2)                      # 4 (1.960 + 0.842)^2 / 0.04 = 784.9
    785
    """
    _check(std, alpha, power, share)
    if not (math.isfinite(effect) and effect != 0):
        raise ConfigError(
            f"users_needed: effect={effect} given, expected a finite number that is not 0"
        )
    if std_treatment is None:
        std_treatment = std
    _check(std_treatment, alpha, power, share)
    return math.ceil(
        _z(alpha, power) ** 2 * (std**2 / (1 - share) + std_treatment**2 / share) / effect**2
    )


def detectable(
    std: float, users: float, *, alpha: float = 0.05, power: float = 0.8, share: float = 0.5
) -> float:
    """The absolute difference that `users` in both arms together find with probability `power`,
    two-sided at `alpha`.

    >>> round(detectable(std=1.0, users=785), 3)
    0.2
    """
    _check(std, alpha, power, share)
    if not users > 0:
        raise ConfigError(f"detectable: users={users} given, expected a positive number")
    return _z(alpha, power) * std / math.sqrt(users * share * (1 - share))


def weeks_until(users: float, weekly: Sequence[int]) -> float | None:
    """Weeks of enrolment until `users` have come: at the rates of the past weeks, then at the last
    one's.

    Null where they never come, or not within two years.

    >>> weeks_until(150, [100, 40]), weeks_until(100, [100, 40]), weeks_until(200, [100, 40, 0])
    (2.25, 1.0, None)
    """
    come = np.concatenate([[0], np.cumsum(weekly)])
    if users <= come[-1]:
        week = int(np.searchsorted(come, users))  # the first edge by which they have come
        return (
            float(week - (come[week] - users) / max(come[week] - come[week - 1], 1))
            if week
            else 0.0
        )
    rate = weekly[-1] if len(weekly) else 0
    weeks = len(weekly) + (users - come[-1]) / rate if rate else math.inf
    return float(weeks) if weeks <= MOST_WEEKS else None


@dataclass(frozen=True)
class Plan:
    """The users and weeks that an experiment needs, estimated from a past log; prints as a
    sentence.

    Attributes:
        signal: label of the success metric that needs the most users.
        effect: relative gain of it that is to be found.
        mean: of one user's sum.
        std: of one user's sum.
        std_adjusted: of what pre-enrolment covariates leave of one user's sum.
        users: needed in all arms together.
        weeks: from the first enrolment to the read-out, null where not within two years.
        enrolment: new users in each week of the past period.
        users_at_hand: all of them.
        detectable: relative effect that they would find; infinite where none.
        wait_days: from the last enrolment to the read-out.
        alpha: as given.
        power: as given.
        share: as given.
        treatments: as given.
        beside: labels of the other success metrics.
        guardrails: margin per label.
    """

    signal: str
    effect: float
    mean: float
    std: float
    std_adjusted: float
    users: int
    weeks: float | None
    enrolment: tuple[int, ...]
    users_at_hand: int
    detectable: float
    wait_days: int
    alpha: float
    power: float
    share: float
    treatments: int = 1
    beside: tuple[str, ...] = ()
    guardrails: Mapping[str, float] = field(default_factory=dict)

    @property
    def variance_reduction(self) -> float:
        """Share of the variance that the covariates take off."""
        return 1 - self.std_adjusted**2 / self.std**2

    def __str__(self) -> str:
        when = (
            f"about {math.ceil(self.weeks)} weeks, of which {self.wait_days} days of waiting "
            "after the last enrolment"
            if self.weeks is not None
            else f"which are not to be had within two years: {self.enrolment[-1]:,} new users "
            f"came in the last of {len(self.enrolment)} weeks"
        )
        shared = f", shared by {self.treatments} treatments" if self.treatments > 1 else ""
        if self.beside:
            shared += f", {len(self.beside) + 1} success metrics"
        if self.guardrails:
            shared += f", {len(self.guardrails)} guardrails"
        at_hand = percent(self.detectable) if math.isfinite(self.detectable) else "nothing"
        return (
            f"{self.signal}: to find {percent(self.effect)} of a mean of {self.mean:.4g} (std "
            f"{self.std:.4g}, {self.std_adjusted:.4g} adjusted) with "
            f"power {self.power:.0%} at alpha {self.alpha:g}{shared}: {self.users:,} users, "
            f"{when}; the {self.users_at_hand:,} users of "
            f"{len(self.enrolment)} weeks would find {at_hand}"
        )

    def _repr_html_(self) -> str:
        return f"<p>{escape(str(self))}</p>"

    def figures(self) -> PlanFigures:
        """The plan as a run folder stores it, its sentence included."""
        return PlanFigures(
            words=str(self),
            signal=self.signal,
            effect=self.effect,
            mean=self.mean,
            std=self.std,
            std_adjusted=self.std_adjusted,
            users=self.users,
            weeks=self.weeks,
            enrolment=self.enrolment,
            users_at_hand=self.users_at_hand,
            detectable=self.detectable if math.isfinite(self.detectable) else None,
            wait_days=self.wait_days,
            alpha=self.alpha,
            power=self.power,
            share=self.share,
            treatments=self.treatments,
            beside=self.beside,
            guardrails=self.guardrails,
            variance_reduction=self.variance_reduction,
        )

    def as_json(self) -> Json:
        """`figures` as values that JSON has."""
        return to_json(self.figures())


def plan(
    lake: Lake,
    signals: Signal | Sequence[Signal],
    *,
    guardrails: Mapping[Signal, float] | None = None,
    effect: float = 0.01,
    weeks: int = 4,
    entry_days: int = ENTRY_DAYS,
    alpha: float = 0.05,
    power: float = 0.8,
    share: float = 0.5,
    treatments: int = 1,
    end: datetime | None = None,
    progress: Progress = None,
) -> Plan:
    """Estimate the users and weeks that an experiment needs to ship a good treatment.

    A good treatment gains a relative `effect` in one success metric and moves no other metric.

    Users are enrolled in the past, at their first engaged event of the last period whose enrolments
    have all matured by `end`; their sums and covariates are those an experiment would have. More
    users than came in that period are taken to come at the last week's rate. Counted are: alpha
    shared out as `Experiment.analyze` does; guardrails that must be non-inferior; metrics that
    deteriorate by chance, with their correlation; the larger spread of a treatment that multiplies
    what users do; and the users from which an interval is given although outcomes are skewed.

    Args:
        lake: the past log.
        signals: success metrics; with several the plan is for whichever of them needs the most
            users.
        guardrails: signal -> margin, as in `Experiment.analyze`.
        effect: relative gain that is to be found, positive.
        weeks: of past enrolment to judge by.
        entry_days: days from a user's first exposure in which entries count.
        alpha: two-sided.
        power: the chance that such a treatment ships, in [0.5, 1).
        share: a treatment's share of its own and the control's users.
        treatments: each is compared with the one control.
        end: UTC; default the lake's watermark.
        progress: called with (steps done, steps); True or False: a progress line, or none;
            default: a line on a terminal or in a notebook.

    Raises:
        NotEstimable: the log is too short for one week of enrolment, nobody has any of a signal, or
            no number of users is enough.
        ConfigError: an effect that is not positive, no signal, or one twice.
    """
    success, margins = (
        [signals] if isinstance(signals, Signal) else list(signals),
        dict(guardrails or {}),
    )
    check_metrics("plan", success, margins, alpha, power)
    if not (math.isfinite(effect) and effect > 0):
        raise ConfigError(
            f"plan: effect={effect} given, expected a positive relative effect, e.g. 0.01"
        )
    if effect >= 1 and any(signal.lower_is_better for signal in success):
        raise ConfigError(
            f"plan: effect={effect} given, expected less than 1 where lower is better: nothing "
            "falls below 0"
        )
    if treatments < 1:
        raise ConfigError(f"plan: treatments={treatments} given, expected at least 1")
    if weeks < 1:
        raise ConfigError(f"plan: weeks={weeks} given, expected at least 1")
    if not 0 < share < 1:
        raise ConfigError(
            f"plan: share={share} given, expected the treatment's share of both arms' users, in "
            "(0, 1)"
        )
    everything = [*success, *margins]
    with reporting("plan", "steps", progress) as report:
        report(0, 3)
        view = lake if end is None else lake.before(end)
        wait_days = max(
            signal.window[1] + 1 + (0 if signal.entry.is_enrolment else entry_days)
            for signal in everything
        )
        enrolled, start, weeks = _past_enrolment(
            view, [signal.name for signal in everything], wait_days, weeks
        )
        weekly = np.bincount(
            (enrolled["time"] - start).dt.total_days().to_numpy() // 7, minlength=weeks
        )
        design_UK = np.column_stack([np.ones(enrolled.height), covariates_of(view, enrolled)])
        sums = enrolled_sums(everything, view, enrolled, entry_days=entry_days)
        report(1, 3)
        metrics, left = [], []
        for signal in everything:
            value_U = sums[signal]["value"].to_numpy().astype(float)
            if len(value_U) < 2 or value_U.mean() <= 0 or value_U.std() == 0:
                users_in_words = f"all {len(value_U):,} users who came from {start:%Y-%m-%d}"
                raise NotEstimable(
                    f"plan: {signal.name} is the same for {users_in_words}; there is nothing to find"
                )
            beta_K, _, rank, _ = np.linalg.lstsq(design_UK, value_U, rcond=None)
            left_U = value_U - design_UK @ beta_K
            std = float(value_U.std(ddof=1))
            adjusted = min(
                math.sqrt(float(np.sum(left_U**2)) / max(len(value_U) - int(rank), 1)), std
            )
            sign = -1 if signal.lower_is_better else 1
            metrics.append(
                Metric(
                    signal.label, float(value_U.mean()), std, adjusted, margins.get(signal), sign
                )
            )
            left.append(left_U)
        rule = Rule(alpha, alpha / (len(success) * treatments), share)
        correlation_MM = _correlation(np.array(left))
        report(2, 3)
        per_pair = 1 + share * (
            treatments - 1
        )  # users of all arms per user of the control and one treatment
        needs = []
        for gaining in range(len(success)):
            order = [gaining, *(place for place in range(len(metrics)) if place != gaining)]
            shipping = Shipping(
                [metrics[place] for place in order], correlation_MM[np.ix_(order, order)], rule
            )
            needs.append(
                (
                    max(shipping.users(effect, power), _users_of_skewness(left, share)),
                    gaining,
                    shipping,
                )
            )
        of_two, gaining, shipping = max(needs, key=lambda need: need[0])
        metric, users = metrics[gaining], math.ceil(of_two * per_pair)
        enrolling = weeks_until(users, weekly.tolist())
        report(3, 3)
        return Plan(
            metric.name,
            effect,
            metric.mean,
            metric.std,
            metric.std_adjusted,
            users,
            None if enrolling is None else enrolling + wait_days / 7,
            tuple(weekly.tolist()),
            enrolled.height,
            shipping.detectable(enrolled.height / per_pair, power),
            wait_days,
            alpha,
            power,
            share,
            treatments,
            tuple(
                other.name
                for place, other in enumerate(metrics[: len(success)])
                if place != gaining
            ),
            {other.name: other.margin for other in metrics if other.margin is not None},
        )


def check_metrics(
    where: str,
    success: Sequence[Signal],
    guardrails: Mapping[Signal, float],
    alpha: float,
    power: float,
) -> None:
    """Raise a ConfigError unless these metrics can be judged in one experiment."""
    if not success:
        raise ConfigError(f"{where}: no signal given, expected at least one success metric")
    versions = [signal.version for signal in (*success, *guardrails)]
    if doubled := [
        signal.name for signal in (*success, *guardrails) if versions.count(signal.version) > 1
    ]:
        raise ConfigError(
            f"{where}: {', '.join(doubled)} are one and the same definition; give each signal "
            "once, as success metric or as guardrail"
        )
    for signal, margin in guardrails.items():
        if not 0 < margin < 1:
            raise ConfigError(
                f"{where}: margin {margin} of {signal.name} given, expected the relative loss to "
                "rule out, in (0, 1), e.g. 0.02"
            )
    if not 0 < alpha < 1 or not 0.5 <= power < 1:
        raise ConfigError(
            f"{where}: alpha={alpha}, power={power} given, expected alpha in (0, 1) and power in "
            "[0.5, 1)"
        )


def _past_enrolment(
    view: Lake, names: Sequence[str], wait_days: int, weeks: int
) -> tuple[pl.DataFrame, datetime, int]:
    """Users at their first engaged event of the last `weeks` weeks that have matured, when these
    begin, and how many there are."""
    events = view.events.filter(pl.col("kind").is_in(ENGAGED))
    closed = view.watermark.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(
        days=wait_days
    )
    first = events["time"].min()
    if not isinstance(first, datetime):
        raise NotEstimable("plan: the log has no event")
    available = (closed - first).days // 7
    if available < 1:
        raise NotEstimable(
            f"plan: {', '.join(names)} needs {wait_days} days after enrolment, so one week of "
            f"enrolment needs a log of {wait_days + 7} days before "
            f"{view.watermark:%Y-%m-%d}; it begins {first:%Y-%m-%d}"
        )
    weeks = min(weeks, available)
    start = closed - timedelta(days=7 * weeks)
    inside = events.filter((pl.col("time") >= start) & (pl.col("time") < closed))
    return (
        inside.group_by("user_id").agg(pl.col("time").min()).sort("time", "user_id"),
        start,
        weeks,
    )


def _correlation(left_MU: NDArray[np.float64]) -> NDArray[np.float64]:
    """Correlation between the metrics' residuals after adjustment, shape [M, M]; 0 where nothing is
    left."""
    deviation_MU = left_MU - left_MU.mean(axis=1, keepdims=True)
    norm_M = np.sqrt(np.sum(deviation_MU**2, axis=1))
    correlation_MM = deviation_MU @ deviation_MU.T / np.maximum(np.outer(norm_M, norm_M), 1e-300)
    np.fill_diagonal(correlation_MM, 1.0)
    return correlation_MM


def _users_of_skewness(left: Sequence[NDArray[np.float64]], share: float) -> int:
    """Users of both arms together that are enough for no metric to be refused as too skewed."""
    apart = abs(1 / share**2 - 1 / (1 - share) ** 2) / (1 / share + 1 / (1 - share)) ** 1.5
    return math.ceil(max((pooled_skewness(left_U) * apart / MOST_SKEW) ** 2 for left_U in left))


def _z(alpha: float, power: float) -> float:
    return float(stats.norm.ppf(1 - alpha / 2) + stats.norm.ppf(power))


def _check(std: float, alpha: float, power: float, share: float) -> None:
    if not (math.isfinite(std) and std > 0):
        raise ConfigError(
            f"power: std={std} given, expected a positive number, in the outcome's unit"
        )
    if not 0 < alpha < 1 or not alpha / 2 < power < 1:
        raise ConfigError(
            f"power: alpha={alpha}, power={power} given, expected 0 < alpha / 2 < power < 1"
        )
    if not 0 < share < 1:
        raise ConfigError(
            f"power: share={share} given, expected the treatment's share of both arms' users, in "
            "(0, 1)"
        )
