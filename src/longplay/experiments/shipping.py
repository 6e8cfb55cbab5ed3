"""The probability that a good treatment ships, over all tests that must pass or can stop it
jointly.

A plan for one metric promises too much. Beside the metric that gains, every guardrail must be
non-inferior, and every line may deteriorate by chance. The tests share users, so their errors are
correlated. Axes: M metrics, the one that gains first; P points of a quasi-random sequence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from longplay.arrays import Float
from longplay.display import percent
from longplay.errors import NotEstimable

POINTS_LOG2 = 13  # of a Sobol sequence: the chance is exact to about .001
MOST_USERS = 1e12


@dataclass(frozen=True)
class Metric:
    """Mean and spread of one metric in a past log.

    Attributes:
        name: of its signal.
        mean: of one user's sum.
        std: of one user's sum.
        std_adjusted: of what covariates leave of it.
        margin: relative loss that a guardrail must rule out; None: a success metric.
        sign: 1 where higher is better, -1 where lower is.
    """

    name: str
    mean: float
    std: float
    std_adjusted: float
    margin: float | None = None
    sign: int = 1


@dataclass(frozen=True)
class Rule:
    """The levels and shares by which an experiment decides.

    Attributes:
        alpha: two-sided, of guardrails and of deterioration.
        success_alpha: two-sided, of one success metric.
        share: the treatment's share of both arms' users.
    """

    alpha: float
    success_alpha: float
    share: float


class Shipping:
    """The probability of shipping a treatment whose first metric gains a relative effect while the
    others stay the same."""

    def __init__(self, metrics: Sequence[Metric], correlation_MM: Float, rule: Rule) -> None:
        """Draw correlated errors of all metrics from a Sobol sequence.

        Args:
            metrics: M of them, the one that gains first.
            correlation_MM: between what covariates leave of one user's sums.
            rule: of the decision.
        """
        self.metrics, self.rule = tuple(metrics), rule
        values, vectors_MM = np.linalg.eigh(correlation_MM)
        root_MM = vectors_MM * np.sqrt(np.maximum(values, 0.0))
        count = len(self.metrics)
        points_PK = stats.qmc.Sobol(2 * count, scramble=False).random_base2(POINTS_LOG2)
        normal_PK = stats.norm.ppf(points_PK + 0.5 / len(points_PK))  # the first point is 0
        self.control_PM = normal_PK[:, :count] @ root_MM.T
        self.treatment_PM = normal_PK[:, count:] @ root_MM.T

    def chance(self, users: float, effect: float) -> float:
        """The probability of shipping, with so many users in both arms and this relative gain of
        the first metric."""
        rule, passed, superior = self.rule, True, False
        harm_z, success_z = (
            float(stats.norm.ppf(1 - alpha / 2)) for alpha in (rule.alpha, rule.success_alpha)
        )
        for place, metric in enumerate(self.metrics):
            gain = effect if place == 0 else 0.0
            times = (
                1 + metric.sign * gain
            )  # a relative effect multiplies what a user does, the spread included
            mixed = (
                (metric.sign * gain) ** 2 * max(metric.std**2 - metric.std_adjusted**2, 0.0) / users
            )
            control_error = metric.std_adjusted / math.sqrt(users * (1 - rule.share))
            treatment_error = math.sqrt(
                (times * metric.std_adjusted) ** 2 / (users * rule.share) + mixed
            )
            control_P = metric.mean + control_error * self.control_PM[:, place]
            treatment_P = times * metric.mean + treatment_error * self.treatment_PM[:, place]
            error = math.hypot(control_error, treatment_error)
            gain_P = metric.sign * (treatment_P - control_P)
            passed = passed & (gain_P > -harm_z * error)
            if metric.margin is None:
                superior = superior | (gain_P > success_z * error)
                continue
            bound = 1 - metric.sign * metric.margin
            bound_error = math.hypot(bound * control_error, treatment_error)
            passed = passed & (
                metric.sign * (treatment_P - bound * control_P) > harm_z * bound_error
            )
        return float(np.mean(passed & superior))

    def users(self, effect: float, power: float) -> int:
        """The users in both arms together with which the treatment ships with probability `power`.

        Raises:
            NotEstimable: no number of users is enough.
        """
        if (most := self.chance(MOST_USERS, effect)) < power:
            raise NotEstimable(
                f"plan: with {len(self.metrics)} metrics a good treatment ships in at most "
                f"{percent(most)} of experiments, however many users there "
                f"are, because each may deteriorate by chance; expected power below {most:.2f}, "
                "fewer metrics or a smaller alpha"
            )
        low, high = 0.0, math.log(MOST_USERS)
        while high - low > 1e-5:
            middle = (low + high) / 2
            low, high = (
                (low, middle) if self.chance(math.exp(middle), effect) >= power else (middle, high)
            )
        return math.ceil(math.exp(high))

    def detectable(self, users: float, power: float) -> float:
        """The relative gain with which the treatment ships with probability `power`; infinite where
        none is enough."""
        most = 1.0 if self.metrics[0].sign < 0 else 64.0
        if self.chance(users, most) < power:
            return math.inf
        low, high = 0.0, most
        while high - low > 1e-6 * high:
            middle = (low + high) / 2
            low, high = (low, middle) if self.chance(users, middle) >= power else (middle, high)
        return high


def power_of_each(power: float, alpha: float, *, lines: int, guardrails: int) -> float:
    """The power that one metric needs, so that a good treatment ships with probability `power`.

    The metric that gains and every guardrail must pass, and none of the other lines may deteriorate
    by chance; taken as independent.

    Args:
        power: of the decision.
        alpha: two-sided, of deterioration.
        lines: of the treatment, success metrics and guardrails.
        guardrails: how many of them are guardrails.

    >>> power_of_each(0.8, 0.05, lines=1, guardrails=0)
    0.8
    >>> round(power_of_each(0.8, 0.05, lines=2, guardrails=1), 4)          # (.8 / .975) ** (1 / 2)
    0.9058
    """
    share_left = (1 - alpha / 2) ** (lines - 1)
    return min((power / share_left) ** (1 / (1 + guardrails)), 0.999)
