"""Isotonic recalibration: rising curves from a linear belief to the observed rate of a yes.

The best *linear* guess of a threshold's indicator is too careful where much has been seen and too
hopeful where nothing was: in a simulated service, two active days of three within a week were
believed in at .67 and came true at .82. One rising curve per age and count so far, through mature
entries, mends that (isotonic regression: Barlow et al. 1972; Zadrozny & Elkan 2002). The count says
how much is missing, the linear belief how recent it is and about which item.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from sklearn.isotonic import IsotonicRegression

from longplay.arrays import Float, Int

Knots = tuple[Float, Float]  # linear beliefs, ascending, and the rate at each

AGES = 12  # at which curves are drawn, at most
BINS = 20  # groups that a curve is drawn through, at most, of either kind of outcome
LEAST = 25  # outcomes of either kind per group


@dataclass(frozen=True, eq=False)
class Curves:
    """Rates by linear belief: `knots[a][l]` is the curve of entries after `ages[a]` observed days
    (ascending) with `l` so far. Between ages, curves are mixed.

    >>> one = Curves(np.array([2]), (((np.array([0.0, 1.0]), np.array([0.1, 0.9])),),))
    >>> nothing = np.zeros(2, dtype=int)
    >>> one(np.array([0.5, 0.5]), np.array([2, 0]), nothing).tolist()  # no day observed: the linear belief
    [0.5, 0.5]
    >>> one(np.array([0.25, 2.0]), np.array([2, 5]), nothing).round(3).tolist()
    [0.3, 0.9]
    """

    ages: Int
    knots: tuple[tuple[Knots, ...], ...]

    @classmethod
    def through(
        cls, ages: Int, linear_AN: Float, so_far_AN: Int, outcome_N: Float, counts: int
    ) -> Self:
        """Curves at these ages through entries whose outcomes (0 or 1) are known and were not used
        for their linear beliefs.

        so_far_AN: in 0 .. counts - 1. A count that too few entries have gets the curve of all
        entries of that age.
        """
        knots = []
        for linear_N, so_far_N in zip(linear_AN, so_far_AN, strict=True):
            everybody = _rising(linear_N, outcome_N)
            cells = [so_far_N == count for count in range(counts)]
            knots.append(
                tuple(
                    _rising(linear_N[cell], outcome_N[cell])
                    if cls.possible(outcome_N[cell])
                    else everybody
                    for cell in cells
                )
            )
        return cls(ages, tuple(knots))

    @staticmethod
    def possible(outcome_N: Float) -> bool:
        """Whether enough outcomes of both kinds are known for a curve to help."""
        return float(min(outcome_N.sum(), (1 - outcome_N).sum())) >= 2 * LEAST

    def __call__(self, linear_N: Float, observed_N: Int, so_far_N: Int) -> Float:
        """The rate at each linear belief, after so many observed days and with so much so far,
        [N]."""
        observed_N = np.minimum(observed_N, self.ages[-1])
        above_N = np.searchsorted(self.ages, observed_N)  # the first age that is not younger
        below_age_N = np.append(self.ages, 0)[
            above_N - 1
        ]  # before the first age stand 0 days, where the linear belief stands
        part_N = (observed_N - below_age_N) / (self.ages[above_N] - below_age_N)
        rate_N = np.empty(len(linear_N))
        cell_N = above_N * len(self.knots[0]) + so_far_N
        for cell in np.unique(cell_N):
            rows = np.flatnonzero(cell_N == cell)
            (above, count) = divmod(int(cell), len(self.knots[0]))
            linear_R = linear_N[rows]
            younger_R = np.interp(linear_R, *self.knots[above - 1][count]) if above else linear_R
            rate_N[rows] = (
                part_N[rows] * np.interp(linear_R, *self.knots[above][count])
                + (1 - part_N[rows]) * younger_R
            )
        return rate_N

    def bend(
        self, linear_N: Float, std_N: Float, observed_N: Int, so_far_N: Int
    ) -> tuple[Float, Float]:
        """Mean and std of the rate where the linear belief has the std `std_N`, both [N]; the std
        is half the difference between one std above and below."""
        low_N, mean_N, high_N = (
            self(linear_N + side * std_N, observed_N, so_far_N) for side in (-1, 0, 1)
        )
        return mean_N, (high_N - low_N) / 2


def ages_of(days: int) -> Int:
    """Ages between 1 and the last day before the window closes, denser where entries are young.

    >>> ages_of(28).tolist(), ages_of(3).tolist(), ages_of(1).tolist()
    ([1, 2, 3, 4, 6, 8, 11, 15, 20, 27], [1, 2], [])
    """
    return (
        np.unique(np.geomspace(1, days - 1, AGES).round().astype(np.int64))
        if days > 1
        else np.zeros(0, dtype=np.int64)
    )


def _rising(linear_N: Float, outcome_N: Float) -> Knots:
    """Knots of an ascending curve: groups of neighbouring beliefs, each at its mean belief and its
    rate (isotonic).

    Groups hold equally many of either outcome, not of all: most of a rare yes lies among the few
    highest beliefs.
    """
    groups = int(np.clip(min(outcome_N.sum(), (1 - outcome_N).sum()) / LEAST, 2, BINS))
    inner = np.linspace(0, 1, groups + 1)[1:-1]
    edges = np.unique(
        np.concatenate([np.quantile(linear_N[outcome_N == kind], inner) for kind in (0, 1)])
    )
    group_N = np.searchsorted(edges, linear_N, side="left")
    count_G = np.bincount(group_N)
    has_rows = count_G > 0
    count_K = count_G[has_rows]
    linear_K = np.bincount(group_N, weights=linear_N)[has_rows] / count_K
    rate_K = np.bincount(group_N, weights=outcome_N)[has_rows] / count_K
    return linear_K, IsotonicRegression().fit(linear_K, rate_K, sample_weight=count_K).predict(
        linear_K
    )
