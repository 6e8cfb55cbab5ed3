"""What an entry comes to, day by day: the chance that each day of the window is active.

On day k of an entry, of which c days were active so far, the next is active with the chance

    h(k, c, score) = expit(scale(k, c) x score + level(k, c))

and one score of an entry holds all that is known of its user and item. The likelihood of the days that
were observed is a product, so an entry that is not mature teaches by exactly the days it has. The
distribution of the count follows by recursion over days. Because a belief after a days is the expectation
of that one process from where the entry stands, E[belief after a + 1 days | a days] = belief after a days.

Axes: N entries, D days of the window, C counts that may still rise, G points of a grid of scores.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy import optimize, special

from longplay.arrays import Bool, Float, Int
from longplay.errors import ConfigError
from longplay.rewards.early import prefix_hits
from longplay.signals.outcomes.in_memory import Outcomes
from longplay.signals.signal import Signal

LEAST_SCORE, MOST_SCORE = -12.0, 8.0
GRID = np.linspace(LEAST_SCORE, MOST_SCORE, 2_001)
BINS = 64  # of scores, where scale and level are fitted
PENALTY = 1e-3  # on weights, per entry and day
LEAST_SHARE = 1e-4  # beliefs are taken to be this far from 0 and from the most possible


def link(mean: Float, largest: float) -> Float:
    """Log odds of an expected outcome as a share of the largest possible, in the shape of `mean`.

    >>> link(np.array([14.0]), largest=28.0).tolist()
    [0.0]
    """
    return special.logit(np.clip(mean / largest, LEAST_SHARE, 1.0 - LEAST_SHARE))


def link_std(mean: Float, std: Float, largest: float) -> Float:
    """Std of `link`, from that of the outcome expected."""
    share = np.clip(mean / largest, LEAST_SHARE, 1.0 - LEAST_SHARE)
    return std / largest / (share * (1.0 - share))


@dataclass(frozen=True, eq=False)
class DailyHazard:
    """The chance of an active day, by day and count so far.

    Attributes:
        scale_DC: what a score is multiplied with, above 0.
        level_DC: what is added.
        absorbing: whether the process ends at count C, because a threshold is reached.
    """

    scale_DC: Float
    level_DC: Float
    absorbing: bool
    _tables: dict[tuple[int, int], tuple[Float, Float]] = field(
        default_factory=dict, init=False, repr=False
    )

    @property
    def days(self) -> int:
        """Days of the window."""
        return len(self.scale_DC)

    @property
    def most(self) -> int:
        """The largest count that is told apart."""
        return self.scale_DC.shape[1]

    @property
    def largest(self) -> float:
        """The largest outcome: 1 where a threshold ends the process, else the days."""
        return 1.0 if self.absorbing else float(self.most)

    def distribution(self, score_N: Float, age: int = 0, count: int = 0) -> Float:
        """Chance of every final count 0 .. C, [N, C + 1].

        Args:
            score_N: of the entries.
            age: days observed, 0 to D.
            count: active days among them, at most `age`; where a threshold ends the process, more
                than C counts as C.

        >>> fair = DailyHazard(np.zeros((2, 2)), np.zeros((2, 2)), absorbing=False)
        >>> fair.distribution(np.zeros(1))[0].tolist(), fair.distribution(np.zeros(1), 1, 1)[0].tolist()
        ([0.25, 0.5, 0.25], [0.0, 0.5, 0.5])
        """
        chance_NC = np.zeros((len(score_N), self.most + 1))
        chance_NC[:, min(count, self.most)] = 1.0
        for day in range(age, self.days):
            active_NC = special.expit(score_N[:, None] * self.scale_DC[day] + self.level_DC[day])
            rises_NC = chance_NC[:, :-1] * active_NC
            chance_NC[:, :-1] -= rises_NC
            chance_NC[:, 1:] += rises_NC
        return chance_NC

    def moments(self, score_N: Float, age: int = 0, count: int = 0) -> tuple[Float, Float]:
        """Mean and variance of the outcome, each [N]: of the count, or of whether it reaches C."""
        chance_NC = self.distribution(score_N, age, count)
        if self.absorbing:
            reached_N = chance_NC[:, -1]
            return reached_N, reached_N * (1.0 - reached_N)
        counts = np.arange(self.most + 1)
        mean_N = chance_NC @ counts
        return mean_N, np.maximum(chance_NC @ counts**2 - mean_N**2, 0.0)

    def table(self, age: int = 0, count: int = 0) -> tuple[Float, Float]:
        """`moments` on the scores of `GRID`, each [G]; computed once."""
        state = (age, min(count, self.most))
        if state not in self._tables:
            self._tables[state] = self.moments(GRID, *state)
        return self._tables[state]

    def outcome(self, score: Float, age: int = 0, count: int = 0) -> tuple[Float, Float, Float]:
        """Mean of the outcome, its slope in the score, and its variance, each in the shape of `score`;
        between points of `GRID` by straight lines."""
        mean_G, variance_G = self.table(age, count)
        step = GRID[1] - GRID[0]
        place = (np.clip(score, LEAST_SCORE, MOST_SCORE) - LEAST_SCORE) / step
        low = np.minimum(place.astype(np.int64), len(GRID) - 2)
        part = place - low
        slope = np.diff(mean_G) / step
        mean = mean_G[low] + part * (mean_G[low + 1] - mean_G[low])
        variance = variance_G[low] + part * (variance_G[low + 1] - variance_G[low])
        return mean, slope[low], variance


@dataclass(frozen=True, eq=False)
class DayPaths:
    """The observed days of entries.

    Attributes:
        active_ND: whether each day was active; False where it was not observed.
        count_ND: active days before each day.
        teaches_ND: whether the day is observed, and the outcome still open before it.
    """

    active_ND: Bool
    count_ND: Int
    teaches_ND: Bool

    @classmethod
    def of(cls, outcomes: Outcomes, most: int, absorbing: bool) -> DayPaths:
        """The days of these entries as far as they were observed."""
        observed_N = outcomes.observed()
        days = outcomes.signal.days
        row, day, _ = prefix_hits(outcomes, observed_N)
        active_ND = np.zeros((len(outcomes), days), dtype=bool)
        active_ND[row, day] = True
        count_ND = np.cumsum(active_ND, axis=1) - active_ND
        teaches_ND = np.arange(days) < observed_N[:, None]
        if absorbing:
            teaches_ND &= count_ND < most
        return cls(active_ND, np.minimum(count_ND, most - 1), teaches_ND)


def counts_of(signal: Signal, model: str) -> tuple[int, bool]:
    """The largest count that is told apart, and whether a threshold ends the process.

    Raises:
        ConfigError: the signal's measure is no count of days.
    """
    if not signal.measure.counts_days or not signal.additive:
        raise ConfigError(
            f"{model}: {signal.label} is no count of days, and this model believes in days; take "
            "lp.ProgressiveReward or lp.PersonalReward, or a signal of days (days_with, active_days, "
            "returned)"
        )
    if signal.threshold is None:
        return signal.days, False
    return min(int(np.ceil(signal.threshold - 1e-9)), signal.days), True


def state_features(days: int, most: int) -> Float:
    """What scale and level of each day and count are made of, [D, C, F]."""
    day = np.arange(days)[:, None] * np.ones(most)
    count = np.ones((days, 1)) * np.arange(most)
    late = np.log1p(day) / np.log1p(days)
    return np.stack(
        [
            np.ones_like(day),
            day / days,
            late,
            np.log1p(count),
            np.log1p(count) * late,
            (count == 0).astype(float),
            (count == 0) * late,
        ],
        axis=2,
    )


def fit_hazard(paths: DayPaths, score_N: Float, most: int, absorbing: bool) -> DailyHazard:
    """Scale and level of each day and count, by penalised maximum likelihood.

    Args:
        paths: observed days of entries.
        score_N: their scores.
        most: see `counts_of`.
        absorbing: see `counts_of`.
    """
    days = paths.active_ND.shape[1]
    x_SF = state_features(days, most).reshape(days * most, -1)
    edges = np.unique(np.quantile(score_N, np.linspace(0, 1, BINS + 1)[1:-1]))
    bin_N = np.searchsorted(edges, score_N)
    size = np.maximum(np.bincount(bin_N, minlength=BINS), 1)
    mean_B = np.bincount(bin_N, weights=score_N, minlength=BINS) / size
    entry, day = np.nonzero(paths.teaches_ND)
    state = day * most + paths.count_ND[entry, day]
    cell = state * BINS + bin_N[entry]
    trials = np.bincount(cell, minlength=len(x_SF) * BINS).astype(float)
    hits = np.bincount(cell, weights=paths.active_ND[entry, day], minlength=len(trials))
    used = np.flatnonzero(trials)
    x_UF = x_SF[used // BINS]
    score_U = mean_B[used % BINS]
    trials_U = trials[used]
    hits_U = hits[used]
    features = x_SF.shape[1]
    total = max(trials_U.sum(), 1.0)
    rate = (hits_U.sum() + 0.5) / (total + 1.0)
    start = np.zeros(2 * features)
    start[features] = special.logit(rate) - float(score_N.mean())

    def loss(weights: Float) -> tuple[float, Float]:
        scale_U = np.exp(np.clip(x_UF @ weights[:features], -5, 3))
        odds_U = scale_U * score_U + x_UF @ weights[features:]
        surplus_U = trials_U * special.expit(odds_U) - hits_U
        value = (trials_U * np.logaddexp(0, odds_U) - hits_U * odds_U).sum() / total
        shrunk = weights.copy()
        shrunk[features] = 0.0
        gradient = np.concatenate([x_UF.T @ (surplus_U * scale_U * score_U), x_UF.T @ surplus_U])
        return value + 0.5 * PENALTY * shrunk @ shrunk, gradient / total + PENALTY * shrunk

    weights = optimize.minimize(loss, start, jac=True, method="L-BFGS-B").x
    scale_S = np.exp(np.clip(x_SF @ weights[:features], -5, 3))
    level_S = x_SF @ weights[features:]
    return DailyHazard(scale_S.reshape(days, most), level_S.reshape(days, most), absorbing)
