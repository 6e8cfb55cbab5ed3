"""Baselines of early rewards: matured-only, day-two, auto-surrogate.

Each reads one number x off an entry's prefix and averages it per item. At every age m the reading
has, between items, a loading on the true item mean (x = centre + loading (theta - mu) + drift) and
noise within items; from these the expected outcome is a normal-normal posterior whose std includes
what the reading misses.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from longplay.arrays import Float, Int
from longplay.index import ItemIndex
from longplay.rewards.early import EarlyModel, counts_below, prefix_hits, sum_by
from longplay.rewards.gaussian import between_items, estimate_prior
from longplay.rewards.progressive import by_key
from longplay.signals.outcomes.in_memory import Outcomes

Reader = Callable[
    [Outcomes, Int], Float
]  # the reading of each entry from its observed days, [N]; 0 where there is none


@dataclass(frozen=True, eq=False)
class Averaged(EarlyModel):
    """An early reward that reads one number from every entry and averages it by item."""

    @abstractmethod
    def _reader(self, outcomes: Outcomes) -> tuple[Reader, Int]:
        """The reading of an entry, and the ages (days, >= 1) from which on it is informative."""

    def _learn(self, outcomes: Outcomes) -> AveragedStanding:
        reader, ages = self._reader(outcomes)
        days = self.signal.days
        (index, row_N) = by_key(outcomes)
        outcome_N = outcomes.value
        n_I = np.bincount(row_N, minlength=len(index)).astype(float)

        def sums(x_NC: Float) -> tuple[Float, Callable[[Float], Float]]:
            sum_IC = np.column_stack([sum_by(row_N, x_N, len(index)) for x_N in x_NC.T])
            return sum_IC, lambda weight_I: (x_NC.T * weight_I[row_N]) @ x_NC

        sum_IC, cross = sums(outcome_N[:, None])
        prior = estimate_prior(
            n_I, sum_IC, sum_by(row_N, outcome_N**2, len(index)), cross, np.ones(1)
        )
        mean, item_std, noise_std = prior.outcome
        weight_I = n_I / (n_I + noise_std**2 / item_std**2) if item_std else n_I
        table = np.zeros((6, days + 1))  # centre, loading, drift, noise, slope, leftover by age
        table[5] = noise_std**2
        for age in range(1, days + 1):
            if age not in ages:
                continue
            x_N = reader(outcomes, np.full(len(outcomes), age))
            if age == days and np.allclose(x_N, outcome_N):  # the outcome itself
                table[:, age] = mean, 1.0, 0.0, noise_std**2, 1.0, 0.0
                continue
            sum_IC, cross = sums(np.column_stack([x_N, outcome_N]))
            between = between_items(n_I, sum_IC, cross, weight_I)
            within = (cross(np.ones(len(index))) - (sum_IC.T / n_I) @ sum_IC) / max(
                len(outcomes) - len(index), 1
            )
            between_x = max(float(between[0, 0]), 0.0)
            loading = (
                float(
                    np.clip(
                        between[0, 1], -np.sqrt(between_x) * item_std, np.sqrt(between_x) * item_std
                    )
                )
                / item_std**2
                if item_std
                else 0.0
            )
            slope = float(within[0, 1] / within[0, 0]) if within[0, 0] > 1e-12 else 0.0
            centre = float(np.average(sum_IC[:, 0] / n_I, weights=weight_I))
            drift = np.sqrt(max(between_x - loading**2 * item_std**2, 0.0))
            leftover = max(float(within[1, 1] - slope * within[0, 1]), 0.0)
            table[:, age] = centre, loading, drift, max(float(within[0, 0]), 1e-12), slope, leftover
        return AveragedStanding(
            reader,
            table,
            mean,
            item_std,
            noise_std,
            ItemIndex([]),
            np.array([mean]),
            np.array([item_std]),
        )


@dataclass(frozen=True, eq=False)
class AveragedStanding:
    """Items' posteriors from averaged readings. `table` [6, days + 1] holds centre, loading, drift,
    noise, slope and leftover by age."""

    reader: Reader
    table: Float
    prior_mean: float
    prior_std: float
    noise_std: float
    index: ItemIndex
    mean_I: Float
    std_I: Float

    def items(self) -> tuple[Float, Float]:
        """See `ItemBeliefs`."""
        return self.mean_I, self.std_I

    def observe(self, outcomes: Outcomes, observed_N: Int) -> AveragedStanding:
        """Posteriors of theta given the mean of x - centre per item. Loading and drift are averaged
        over the item's ages, noise over its entries.

        Drifts of different ages are taken as one and the same, the careful reading.
        """
        index, row_N = by_key(outcomes)
        heard = row_N >= 0
        row_N = row_N[heard]
        age_N = observed_N[heard]
        n = len(index)
        centre_N, loading_N, drift_N, noise_N, _, _ = self.table[:, age_N]
        away_N = self.reader(outcomes, observed_N)[heard] - centre_N
        entries_I = np.maximum(np.bincount(row_N, minlength=n), 1)
        away_I, loading_I, drift_I = (
            sum_by(row_N, x, n) / entries_I for x in (away_N, loading_N, drift_N)
        )
        error_I = sum_by(row_N, noise_N, n) / entries_I**2 + drift_I**2
        gain_I = (
            loading_I
            * self.prior_std**2
            / np.maximum(loading_I**2 * self.prior_std**2 + error_I, 1e-300)
        )
        mean_I = self.prior_mean + gain_I * away_I
        std_I = self.prior_std * np.sqrt(np.clip(1 - gain_I * loading_I, 0.0, 1.0))
        return replace(
            self,
            index=index,
            mean_I=np.append(mean_I, self.prior_mean),
            std_I=np.append(std_I, self.prior_std),
        )

    def entries(
        self, row_N: Int, outcomes: Outcomes, observed_N: Int
    ) -> tuple[Float, Float, Float]:
        """See `ItemBeliefs`: within an item, the entry's own reading corrects the item's mean by a
        regression."""
        centre_N, loading_N, _, _, slope_N, leftover_N = self.table[:, observed_N]
        item_N = self.mean_I[row_N]
        surprise_N = (
            self.reader(outcomes, observed_N) - centre_N - loading_N * (item_N - self.prior_mean)
        )
        return (
            item_N + slope_N * surprise_N,
            self.std_I[row_N] * np.abs(1 - slope_N * loading_N),
            np.sqrt(leftover_N),
        )


@dataclass(frozen=True, eq=False)
class MaturedOnly(Averaged):
    """The simplest baseline: an item's mean over its mature entries, shrunk to the mean of all.
    Other entries are ignored."""

    name: ClassVar[str] = "matured only"

    def _reader(self, outcomes: Outcomes) -> tuple[Reader, Int]:
        days = self.signal.days

        def read(outcomes: Outcomes, observed_N: Int) -> Float:
            return np.where(observed_N >= days, _outcome(outcomes, observed_N), 0.0)

        return read, np.array([days])


@dataclass(frozen=True, eq=False)
class DayTwo(Averaged):
    """A simple baseline: a regression by item on the activity of the window's first day (0 or 1
    where days are counted)."""

    name: ClassVar[str] = "day two"

    def _reader(self, outcomes: Outcomes) -> tuple[Reader, Int]:
        def read(outcomes: Outcomes, observed_N: Int) -> Float:
            row, day, amount = prefix_hits(outcomes, observed_N)
            return sum_by(row[day == 0], amount[day == 0], len(outcomes))

        return read, np.arange(1, self.signal.days + 1)


@dataclass(frozen=True, eq=False)
class AutoSurrogate(Averaged):
    """A strong baseline: the same measure over an entry's first days, regressed to the full window,
    then averaged by item and shrunk.

    The regression is per age: mean outcome by level of the count so far where a few days make the
    threshold, else least squares on the amount so far (and whether it reaches the threshold).
    """

    name: ClassVar[str] = "auto-surrogate"

    def _reader(self, outcomes: Outcomes) -> tuple[Reader, Int]:
        days = self.signal.days
        threshold = self.signal.threshold
        top = counts_below(self.signal)
        by_level = top > 0
        outcome_N = outcomes.value
        # per age: the mean outcome of each level of the count, or three coefficients of `_design`
        fit_DL = np.zeros((days + 1, top + 1 if by_level else 3))
        for age in range(1, days + 1):
            so_far_N = _amount(outcomes, np.full(len(outcomes), age))
            if by_level:
                level_N = np.minimum(so_far_N, top).astype(np.int64)
                sum_L = sum_by(level_N, outcome_N, top + 1)
                n_L = np.bincount(level_N, minlength=top + 1)
                fit_DL[age] = (sum_L + outcome_N.mean()) / (n_L + 1)
                fit_DL[age, top] = 1.0
            else:
                design_N3 = _design(so_far_N, threshold)
                fit_DL[age] = np.linalg.lstsq(design_N3, outcome_N, rcond=None)[0]

        def read(outcomes: Outcomes, observed_N: Int) -> Float:
            """The expected outcome by the regression of each entry's age: the outcome itself once
            the window has closed, 0 before the first day."""
            so_far_N = _amount(outcomes, observed_N)
            if by_level:
                expected_N = fit_DL[observed_N, np.minimum(so_far_N, top).astype(np.int64)]
            else:
                expected_N = np.sum(_design(so_far_N, threshold) * fit_DL[observed_N], axis=1)
            reading_N = np.where(observed_N > 0, expected_N, 0.0)
            return np.where(observed_N >= days, _outcome(outcomes, observed_N), reading_N)

        return read, np.arange(1, days + 1)


def _design(so_far_N: Float, threshold: float | None) -> Float:
    """Columns of the regression, [N, 3]: 1, the amount so far, and whether it reaches the
    threshold."""
    reached_N = np.zeros(len(so_far_N))
    if threshold is not None:
        reached_N = (so_far_N >= threshold - 1e-9).astype(float)
    return np.column_stack([np.ones(len(so_far_N)), so_far_N, reached_N])


def _amount(outcomes: Outcomes, observed_N: Int) -> Float:
    """Sum of each entry's hits in its observed days, [N]."""
    row, _, amount = prefix_hits(outcomes, observed_N)
    return sum_by(row, amount, len(outcomes))


def _outcome(outcomes: Outcomes, observed_N: Int) -> Float:
    """The signal's value if the window had closed after the observed days."""
    total_N = _amount(outcomes, observed_N)
    threshold = outcomes.signal.threshold
    return total_N if threshold is None else (total_N >= threshold - 1e-9).astype(float)
