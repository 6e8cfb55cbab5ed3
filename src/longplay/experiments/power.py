"""How many users an experiment needs, how long that takes, and what it can see; also from a past log."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from html import escape
from typing import Any

import numpy as np
import polars as pl
from scipy import stats

from longplay.errors import ConfigError, NotEstimable
from longplay.experiments.enrolment import covariates_of
from longplay.lake.lake import Lake
from longplay.lake.schema import ENGAGED
from longplay.signals.enrolled import ENTRY_DAYS, enrolled_sums
from longplay.signals.signal import Signal
from longplay.words import percent

MOST_WEEKS = 104  # what takes longer is not promised


def users_needed(std: float, effect: float, *, alpha: float = 0.05, power: float = 0.8, share: float = 0.5) -> int:
    """Users in both arms together to find a difference of `effect` with probability `power`, two-sided at `alpha`.

    N = (z_{1-alpha/2} + z_power)^2 std^2 / (effect^2 share (1 - share)), normal approximation (Lachin 1981).

    Args:
        std: standard deviation of one user's outcome, after adjustment. effect: absolute, same unit.
        share: the treatment's share of the two arms' users.

    >>> users_needed(std=1.0, effect=0.2)                      # 4 (1.960 + 0.842)^2 / 0.04 = 784.9
    785
    """
    _check(std, alpha, power, share)
    if not (math.isfinite(effect) and effect != 0):
        raise ConfigError(f"users_needed: effect={effect} given, expected a finite number that is not 0")
    return math.ceil(_z(alpha, power) ** 2 * std**2 / (effect**2 * share * (1 - share)))


def detectable(std: float, users: float, *, alpha: float = 0.05, power: float = 0.8, share: float = 0.5) -> float:
    """The absolute difference that `users` in both arms together find with probability `power`, two-sided at `alpha`.

    >>> round(detectable(std=1.0, users=785), 3)
    0.2
    """
    _check(std, alpha, power, share)
    if not users > 0:
        raise ConfigError(f"detectable: users={users} given, expected a positive number")
    return _z(alpha, power) * std / math.sqrt(users * share * (1 - share))


def weeks_until(users: float, weekly: Sequence[int]) -> float | None:
    """Weeks of enrolment until `users` have come, given the new users of each past week and then the last week's again and again.

    Null where they never come, or not within two years.

    >>> weeks_until(150, [100, 40]), weeks_until(100, [100, 40]), weeks_until(200, [100, 40, 0])
    (2.25, 1.0, None)
    """
    come = np.concatenate([[0], np.cumsum(weekly)])
    if users <= come[-1]:
        week = int(np.searchsorted(come, users))  # the first edge by which they have come
        return float(week - (come[week] - users) / max(come[week] - come[week - 1], 1)) if week else 0.0
    rate = weekly[-1] if len(weekly) else 0
    weeks = len(weekly) + (users - come[-1]) / rate if rate else math.inf
    return float(weeks) if weeks <= MOST_WEEKS else None


@dataclass(frozen=True)
class Plan:
    """What an experiment on a signal would need, judged by a past log; prints as a sentence.

    Attributes:
        signal: its label. effect: relative, of the mean. mean: of one user's sum.
        std, std_adjusted: of one user's sum, and of what pre-enrolment covariates leave of it.
        users: needed in all arms together. weeks: from the first enrolment to the read-out, null where not within two years.
        enrolment: new users in each week of the past period.
        users_at_hand: all of them. detectable: relative effect that they would find.
        wait_days: from the last enrolment to the read-out. alpha, power, share, treatments: as given.
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

    @property
    def variance_reduction(self) -> float:
        """Share of the variance that the covariates take off."""
        return 1 - self.std_adjusted**2 / self.std**2

    def __str__(self) -> str:
        when = (
            f"about {math.ceil(self.weeks)} weeks, of which {self.wait_days} days of waiting after the last enrolment"
            if self.weeks is not None
            else f"which are not to be had within two years: {self.enrolment[-1]:,} new users came in the last of {len(self.enrolment)} weeks"
        )
        shared = f", shared by {self.treatments} treatments" if self.treatments > 1 else ""
        return (
            f"{self.signal}: to find {percent(self.effect)} of a mean of {self.mean:.4g} (std {self.std:.4g}, {self.std_adjusted:.4g} adjusted) with "
            f"power {self.power:.0%} at alpha {self.alpha:g}{shared}: {self.users:,} users, {when}; the {self.users_at_hand:,} users of "
            f"{len(self.enrolment)} weeks would find {percent(self.detectable)}"
        )

    def _repr_html_(self) -> str:
        return f"<p>{escape(str(self))}</p>"

    def as_json(self) -> dict[str, Any]:
        """Plain numbers for the run folder."""
        return asdict(self) | {"enrolment": list(self.enrolment), "variance_reduction": self.variance_reduction}


def plan(
    lake: Lake,
    signal: Signal,
    *,
    effect: float = 0.01,
    weeks: int = 4,
    entry_days: int = ENTRY_DAYS,
    alpha: float = 0.05,
    power: float = 0.8,
    share: float = 0.5,
    treatments: int = 1,
    end: datetime | None = None,
) -> Plan:
    """What an experiment would need to find a relative `effect`, had it begun `weeks` weeks of enrolment before all was mature.

    Users are enrolled in the past, at their first engaged event of the last period whose enrolments have all matured
    by `end` (default the lake's watermark); their sums and covariates are those an experiment would have.
    More users than came in that period are taken to come at the last week's rate.

    Args:
        share: a treatment's share of its own and the control's users. treatments: each is compared with the one control, and alpha
            is shared out over them, as `Experiment.analyze` does with one success metric.

    Raises:
        NotEstimable: the log is too short for one week of enrolment, or nobody has any of the signal.
    """
    if not (math.isfinite(effect) and effect > 0):
        raise ConfigError(f"plan: effect={effect} given, expected a positive relative effect, e.g. 0.01")
    if treatments < 1:
        raise ConfigError(f"plan: treatments={treatments} given, expected at least 1")
    if weeks < 1:
        raise ConfigError(f"plan: weeks={weeks} given, expected at least 1")
    view = lake if end is None else lake.before(end)
    events = view.events.filter(pl.col("kind").is_in(ENGAGED))
    wait_days = signal.window[1] + 1 + (0 if signal.entry.kind == "enrolment" else entry_days)
    closed = view.watermark.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=wait_days)
    first = events["time"].min()
    available = (closed - first).days // 7 if isinstance(first, datetime) else 0
    if available < 1:
        raise NotEstimable(
            f"plan: {signal.name} needs {wait_days} days after enrolment, so one week of enrolment needs a log of {wait_days + 7} days before "
            f"{view.watermark:%Y-%m-%d}; it begins {first:%Y-%m-%d}" if isinstance(first, datetime) else "plan: the log has no event"
        )  # fmt: skip
    weeks = min(weeks, available)
    start = closed - timedelta(days=7 * weeks)
    inside = events.filter((pl.col("time") >= start) & (pl.col("time") < closed))
    enrolled = inside.group_by("user_id").agg(pl.col("time").min()).sort("time", "user_id")
    value_U = enrolled_sums(signal, view, enrolled, entry_days=entry_days)["value"].to_numpy().astype(float)
    if len(value_U) < 2 or value_U.mean() <= 0 or value_U.std() == 0:
        raise NotEstimable(f"plan: {signal.name} is the same for all {len(value_U):,} users who came from {start:%Y-%m-%d}; there is nothing to find")
    weekly = np.bincount((enrolled["time"] - start).dt.total_days().to_numpy() // 7, minlength=weeks)
    design_UK = np.column_stack([np.ones(len(value_U)), covariates_of(view, enrolled)])
    beta_K, _, rank, _ = np.linalg.lstsq(design_UK, value_U, rcond=None)
    left = float(np.sum((value_U - design_UK @ beta_K) ** 2))
    std, mean = float(value_U.std(ddof=1)), float(value_U.mean())
    adjusted = min(math.sqrt(left / max(len(value_U) - int(rank), 1)), std)
    per_pair = 1 + share * (treatments - 1)  # users of all arms per user of the control and one treatment
    of_two = users_needed(adjusted, effect * mean, alpha=alpha / treatments, power=power, share=share)
    users = math.ceil(of_two * per_pair)
    enrolling = weeks_until(users, weekly.tolist())
    return Plan(
        signal.label,
        effect,
        mean,
        std,
        adjusted,
        users,
        None if enrolling is None else enrolling + wait_days / 7,
        tuple(weekly.tolist()),
        len(value_U),
        detectable(adjusted, len(value_U) / per_pair, alpha=alpha / treatments, power=power, share=share) / mean,
        wait_days,
        alpha,
        power,
        share,
        treatments,
    )


def _z(alpha: float, power: float) -> float:
    return float(stats.norm.ppf(1 - alpha / 2) + stats.norm.ppf(power))


def _check(std: float, alpha: float, power: float, share: float) -> None:
    if not (math.isfinite(std) and std > 0):
        raise ConfigError(f"power: std={std} given, expected a positive number, in the outcome's unit")
    if not 0 < alpha < 1 or not alpha / 2 < power < 1:
        raise ConfigError(f"power: alpha={alpha}, power={power} given, expected 0 < alpha / 2 < power < 1")
    if not 0 < share < 1:
        raise ConfigError(f"power: share={share} given, expected the treatment's share of both arms' users, in (0, 1)")
