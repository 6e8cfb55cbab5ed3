"""What real listening logs look like, measured on any lake: the facts that the default world is calibrated to."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl

from longplay.errors import NotEstimable
from longplay.lake import Lake
from longplay.signals.signal import Signal, days_with, discovery

FIRST_DAYS = 10
LEAST_DISCOVERIES = 500


@dataclass(frozen=True)
class Facts:
    """Figures of a log, with what METHODS 6 asks of a plausible one.

    Attributes:
        discoveries: discoveries of a creator (first touch in 28 days) whose 59 days have been observed.
        day_two_correlation: of activity with the creator on the day after, and active days with it in days 1-59 (.25 to .45).
        return_30_59: share of the discoveries that are active with the creator on any of days 30-59 (.08 to .20).
        first_days_explain: share of the variance of the 59-day total around its creator's mean that the first 10 days explain (over .50).
        weekday: visits by weekday, Monday first, relative to their mean: a season.
        retention: share of the users of the log's first week who are active again k weeks later (k = 1, 2, ..): convex.
    """

    discoveries: int
    day_two_correlation: float
    return_30_59: float
    first_days_explain: float
    weekday: tuple[float, ...]
    retention: tuple[float, ...]

    @property
    def convex(self) -> bool:
        """Whether retention falls ever more slowly: the first half of the curve falls by more than the second."""
        start, middle, end = np.interp(np.linspace(0, len(self.retention) - 1, 3), np.arange(len(self.retention)), self.retention)
        return bool(start - middle > middle - end)

    def as_json(self) -> dict[str, Any]:
        """Plain numbers."""
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"{self.discoveries:,} discoveries: day-two correlation {self.day_two_correlation:.2f}, {self.return_30_59:.1%} return in days 30-59, "
            f"the first {FIRST_DAYS} days explain {self.first_days_explain:.0%} of the noise; "
            f"weekday {min(self.weekday):.2f} to {max(self.weekday):.2f}, "
            f"retention {self.retention[0]:.2f} to {self.retention[-1]:.2f}, {'convex' if self.convex else 'not convex'}"
        )


def facts(lake: Lake) -> Facts:
    """The facts of a log of at least 28 + 60 days.

    Raises:
        NotEstimable: too few discoveries whose 59 days have been observed.
    """
    signal = Signal("stickiness", entry=discovery(novel_for=28), measure=days_with("creator"), window=(1, 59))
    outcomes = signal.outcomes(lake)
    outcomes = outcomes.where(outcomes.mature & ~outcomes.frame["truncated"].to_numpy())
    if len(outcomes) < LEAST_DISCOVERIES:
        raise NotEstimable(
            f"facts: {len(outcomes)} discoveries have been observed for 59 days, expected at least {LEAST_DISCOVERIES}; "
            "the log needs 90 days and more users"
        )
    trace = outcomes.trace()
    total_N, first_N = np.asarray(trace.sum(axis=1)).ravel(), trace[:, :FIRST_DAYS].toarray()
    _, creator_N = np.unique(outcomes.keys.to_numpy(), return_inverse=True)
    events = lake.events.filter(pl.col("kind") == "visit").select("user_id", "time")
    day_two_N = first_N[:, 0]
    return Facts(
        discoveries=len(outcomes),
        day_two_correlation=float(np.corrcoef(day_two_N, total_N)[0, 1]),
        return_30_59=float((np.asarray(trace[:, 29:].sum(axis=1)).ravel() > 0).mean()),
        first_days_explain=_explained(_within(first_N, creator_N), _within(total_N[:, None], creator_N)[:, 0]),
        weekday=_weekdays(events),
        retention=_retention(events),
    )


def _within(x_NF: np.ndarray, group_N: np.ndarray) -> np.ndarray:
    """Deviations from the group's mean, [N, F]."""
    count_G = np.bincount(group_N)
    means = np.stack([np.bincount(group_N, weights=column) / count_G for column in x_NF.T], axis=1)
    return x_NF - means[group_N]


def _explained(x_NF: np.ndarray, y_N: np.ndarray) -> float:
    """R squared of the least-squares fit."""
    if not y_N.any():
        return 0.0
    fit_F = np.linalg.lstsq(x_NF, y_N, rcond=None)[0]
    return float(1 - ((y_N - x_NF @ fit_F) ** 2).sum() / (y_N**2).sum())


def _weekdays(visits: pl.DataFrame) -> tuple[float, ...]:
    """Visits per day of each weekday, relative to the mean, over whole weeks."""
    daily = (
        visits.group_by(pl.col("time").dt.date().alias("day")).len().sort("day").upsample("day", every="1d").with_columns(pl.col("len").fill_null(0))
    )
    daily = daily.tail(daily.height // 7 * 7)
    by_day = daily.group_by(pl.col("day").dt.weekday().alias("weekday")).agg(pl.col("len").mean()).sort("weekday")["len"]
    return tuple((by_day / by_day.mean()).to_list())


def _retention(visits: pl.DataFrame) -> tuple[float, ...]:
    """Share of the first week's users who are active in week 1, 2, .. after it."""
    start = visits["time"].dt.truncate("1d").min()
    weeks = visits.with_columns(week=(pl.col("time") - start).dt.total_days() // 7)
    cohort = weeks.filter(pl.col("week") == 0)["user_id"].unique()
    counts = weeks.filter(pl.col("user_id").is_in(cohort.implode())).group_by("week").agg(pl.col("user_id").n_unique()).sort("week")
    by_week = dict(counts.iter_rows())
    return tuple(by_week.get(week, 0) / len(cohort) for week in range(1, int(weeks["week"].to_numpy().max())))  # the last week may not be whole
