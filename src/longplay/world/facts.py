"""What real listening logs look like, measured on any lake: the facts that the default world is
calibrated to."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl

from longplay.errors import NotEstimable
from longplay.lake import Lake
from longplay.signals import Signal, days_with, discovery

FIRST_DAYS = 10
LEAST_DISCOVERIES = 500


@dataclass(frozen=True)
class Facts:
    """Figures of a log, each with its plausible range (docs/worlds.md).

    Attributes:
        discoveries: discoveries of a creator (first touch in 28 days) whose 59 days have been
            observed.
        day_two_correlation: of activity with the creator on the day after, and active days with it
            in days 1-59 (.25 to .45).
        return_30_59: share of the discoveries that are active with the creator on any of days 30-59
            (.08 to .20).
        first_days_explain: share of the variance of the 59-day total around its creator's mean that
            the first 10 days explain (over .50).
        weekday: visits by weekday, Monday first, relative to their mean: a season.
        retention: share of the users of the log's first week who are active again k weeks later (k
            = 1, 2, ..): convex.
        explained: what the first k days explain, k = 1 .. 59; `first_days_explain` is that of k =
            10.
        active: share of the discoveries that are active with the creator on day k, k = 1 .. 59.
        at_least: share of the discoveries with at least k active days, k = 1 .. 59: of those
            inactive on day two, and active.
    """

    discoveries: int
    day_two_correlation: float
    return_30_59: float
    first_days_explain: float
    weekday: tuple[float, ...]
    retention: tuple[float, ...]
    explained: tuple[float, ...]
    active: tuple[float, ...]
    at_least: tuple[tuple[float, ...], tuple[float, ...]]

    @property
    def convex(self) -> bool:
        """Whether retention falls ever more slowly: more in the first half of the curve than in the
        second."""
        start, middle, end = np.interp(
            np.linspace(0, len(self.retention) - 1, 3),
            np.arange(len(self.retention)),
            self.retention,
        )
        return bool(start - middle > middle - end)

    def as_json(self) -> dict[str, Any]:
        """The figures as JSON has them."""
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"{self.discoveries:,} discoveries: day-two correlation "
            f"{self.day_two_correlation:.2f}, {self.return_30_59:.1%} return in days 30-59, "
            f"the first {FIRST_DAYS} days explain {self.first_days_explain:.0%} of the noise; "
            f"weekday {min(self.weekday):.2f} to {max(self.weekday):.2f}, "
            f"retention {self.retention[0]:.2f} to {self.retention[-1]:.2f}, "
            f"{'convex' if self.convex else 'not convex'}"
        )


def facts(lake: Lake) -> Facts:
    """Compute the facts of a log of at least 28 + 60 days.

    Raises:
        NotEstimable: too few discoveries whose 59 days have been observed.
    """
    signal = Signal(
        "stickiness", entry=discovery(novel_for=28), measure=days_with("creator"), window=(1, 59)
    )
    outcomes = signal.outcomes(lake)
    outcomes = outcomes.where(outcomes.mature & ~outcomes.frame["truncated"].to_numpy())
    if len(outcomes) < LEAST_DISCOVERIES:
        raise NotEstimable(
            f"facts: {len(outcomes)} discoveries have been observed for 59 days, expected at "
            f"least {LEAST_DISCOVERIES}; "
            "the log needs 90 days and more users"
        )
    trace_ND = outcomes.trace().toarray().astype(float)
    total_N = trace_ND.sum(axis=1)
    day_two_N = trace_ND[:, 0]
    _, creator_N = np.unique(outcomes.keys.to_numpy(), return_inverse=True)
    events = lake.events.filter(pl.col("kind") == "visit").select("user_id", "time")
    explained = _explained(_within(trace_ND, creator_N), _within(total_N[:, None], creator_N)[:, 0])
    return Facts(
        discoveries=len(outcomes),
        day_two_correlation=float(np.corrcoef(day_two_N, total_N)[0, 1]),
        return_30_59=float(trace_ND[:, 29:].any(axis=1).mean()),
        first_days_explain=explained[FIRST_DAYS - 1],
        weekday=_weekdays(events),
        retention=_retention(events),
        explained=explained,
        active=tuple(trace_ND.mean(axis=0).tolist()),
        at_least=(_at_least(total_N[day_two_N == 0]), _at_least(total_N[day_two_N == 1])),
    )


def _within(x_NF: np.ndarray, group_N: np.ndarray) -> np.ndarray:
    """Deviations from the group's mean, [N, F]."""
    count_G = np.bincount(group_N)
    means = np.stack([np.bincount(group_N, weights=column) / count_G for column in x_NF.T], axis=1)
    return x_NF - means[group_N]


def _explained(x_ND: np.ndarray, y_N: np.ndarray) -> tuple[float, ...]:
    """Return R squared of D least-squares fits: on column 1, on columns 1 and 2, up to all D."""
    if not y_N.any():
        return (0.0,) * x_ND.shape[1]
    gram_DD = x_ND.T @ x_ND
    with_y_D = x_ND.T @ y_N
    own_D = np.sum(x_ND**2, axis=0)
    added_D = np.zeros(len(own_D))
    # elimination: residuals of each column and of y after the columns before
    for d in range(len(own_D)):
        left = gram_DD[d, d]
        if left > 1e-9 * own_D[d]:  # else the column only repeats those before it
            added_D[d] = with_y_D[d] ** 2 / left
            with_y_D = with_y_D - gram_DD[d] * with_y_D[d] / left
            gram_DD = gram_DD - np.outer(gram_DD[d], gram_DD[d]) / left
    return tuple((np.cumsum(added_D) / (y_N**2).sum()).tolist())


def _at_least(total_N: np.ndarray) -> tuple[float, ...]:
    """Shares of the totals that are at least 1, 2, ... 59."""
    return (
        tuple((total_N[:, None] >= np.arange(1, 60)).mean(axis=0).tolist())
        if len(total_N)
        else (0.0,) * 59
    )


def _weekdays(visits: pl.DataFrame) -> tuple[float, ...]:
    """Visits per day of each weekday, relative to the mean, over whole weeks."""
    daily = (
        visits.group_by(pl.col("time").dt.date().alias("day"))
        .len()
        .sort("day")
        .upsample("day", every="1d")
        .with_columns(pl.col("len").fill_null(0))
    )
    daily = daily.tail(daily.height // 7 * 7)
    by_day = (
        daily.group_by(pl.col("day").dt.weekday().alias("weekday"))
        .agg(pl.col("len").mean())
        .sort("weekday")["len"]
    )
    return tuple((by_day / by_day.mean()).to_list())


def _retention(visits: pl.DataFrame) -> tuple[float, ...]:
    """Shares of the first week's users who are active in week 1, 2, ... after it."""
    start = visits["time"].dt.truncate("1d").min()
    weeks = visits.with_columns(week=(pl.col("time") - start).dt.total_days() // 7)
    cohort = weeks.filter(pl.col("week") == 0)["user_id"].unique()
    counts = (
        weeks.filter(pl.col("user_id").is_in(cohort.implode()))
        .group_by("week")
        .agg(pl.col("user_id").n_unique())
        .sort("week")
    )
    by_week = dict(counts.iter_rows())
    # the last week may not be whole
    return tuple(
        by_week.get(week, 0) / len(cohort) for week in range(1, int(weeks["week"].to_numpy().max()))
    )
