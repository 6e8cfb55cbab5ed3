"""Intervals of an estimate: Student's t, corrected for the skewness of what was averaged, and the
log scale for rare outcomes.

T = (estimate - truth) / standard error. The error is estimated from the same values, so where these
are skewed a high mean comes with a high error: T itself is skewed, and a symmetric interval misses
on one side.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import special

from longplay.errors import DataError

# of the estimate; below it a t interval errs by at most .0275 on a side, and stays as it is
SLIGHT_SKEW = 0.03
# beyond it a t interval is predicted to err by more than .06 on a side: no interval
MOST_SKEW = 0.035 / 0.0845


def one_sided_error(skew: float) -> float:
    """The predicted chance that a 95% t interval misses on its worse side: .025 without skewness.

    The first term of the Edgeworth expansion of T at 1.96: |skew| (2 1.96^2 + 1) phi(1.96) / 6
    (Hall 1992).

    Args:
        skew: the estimate's own skewness, e.g. that of a mean of n values is their skewness /
            sqrt(n).

    >>> round(one_sided_error(0.0), 4), round(one_sided_error(-0.2), 4)
    (0.025, 0.0419)
    """
    return 0.025 + 0.0845 * abs(skew)


def t_interval(
    value: float, std_error: float, df: float, level: float, skew: float = 0.0
) -> tuple[float, float]:
    """The two-sided interval of an estimate.

    Args:
        value: the estimate.
        std_error: its standard error, same unit.
        df: degrees of freedom of Student's t.
        level: in (0, 1).
        skew: the estimate's own skewness. From `SLIGHT_SKEW` on the quantiles of T are those of
            Hall's monotone cubic transformation (Hall 1992, "On the removal of skewness by
            transformation").

    >>> low, high = t_interval(1.0, 0.1, df=1e9, level=0.95, skew=0.2)
    >>> round(low, 4), round(high, 4)
    (0.8278, 1.2339)

    Raises:
        DataError: a level outside (0, 1).
    """
    quantile = float(special.stdtrit(df, 0.5 + _checked(level) / 2))
    return value - _statistic(quantile, skew) * std_error, value - _statistic(
        -quantile, skew
    ) * std_error


def t_p_value(value: float, std_error: float, df: float, skew: float = 0.0) -> float:
    """Two-sided p-value of the hypothesis that the truth is 0. Below alpha where `t_interval` at 1
    - alpha excludes 0. Without noise 0 or 1.

    Args:
        value: the estimate.
        std_error: its standard error, same unit.
        df: degrees of freedom of Student's t.
        skew: the estimate's own skewness.

    >>> round(t_p_value(1.96, 1.0, df=1e9), 3), round(t_p_value(1.96, 1.0, df=1e9, skew=0.2), 3)
    (0.05, 0.024)
    """
    if std_error == 0:
        return float(value == 0)
    return float(2 * special.stdtr(df, -abs(_symmetric(value / std_error, skew))))


def log_interval(
    distance: float, std_error: float, df: float, step: float, level: float
) -> tuple[float, float]:
    """The interval of a positive quantity with few outcomes, on its log scale (delta method).

    Few rare outcomes of unequal weight make a skewed sum: where by luck the heavy ones did not
    happen, the sum and its standard error are both too small. So the near end is `distance` exp(-t
    se / `distance`), with a degree of freedom less than there are effective outcomes; the far end
    is the same of the sum as it would be with one more outcome of typical weight (as Fay & Feuer
    1997 do for weighted sums of counts, who add one of the largest weight).

    Args:
        distance: the estimate, > 0, in the unit of what was measured.
        std_error: its standard error, same unit, >= 0.
        df: effective outcomes less 1; at 0 or below nothing is known and the interval has no end.
        step: what one more outcome would add to `distance`, >= 0.
        level: in (0, 1).

    >>> [round(end, 4) for end in log_interval(0.02, 0.005, 15, 0.0, 0.95)]     # .02 exp(-+ 2.131 x .25)
    [0.0117, 0.0341]
    """
    if not distance > 0 or not df > 0:
        return (0.0, np.inf)
    more = distance + step
    more_error = float(np.hypot(std_error, step))
    more_outcomes = more**2 / (distance**2 / (df + 1) + step**2)
    quantile = 0.5 + _checked(level) / 2
    near = distance * float(np.exp(-special.stdtrit(df, quantile) * std_error / distance))
    with np.errstate(over="ignore"):
        far = more * float(np.exp(special.stdtrit(more_outcomes - 1, quantile) * more_error / more))
    return (near, far)


def _checked(level: float) -> float:
    if not 0 < level < 1:
        raise DataError(f"interval: level={level} given, expected a number in (0, 1), e.g. 0.95")
    return level


def _symmetric(statistic: float, skew: float) -> float:
    """T transformed to a statistic without skewness, increasing in T: ((1 + skew T / 3)^3 - 1) /
    skew + skew / 6."""
    if abs(skew) < SLIGHT_SKEW:
        return statistic
    return ((1 + skew * statistic / 3) ** 3 - 1) / skew + skew / 6


def _statistic(symmetric: float, skew: float) -> float:
    """The inverse of `_symmetric`: the T of a transformed statistic."""
    if abs(skew) < SLIGHT_SKEW:
        return symmetric
    return 3 * (math.cbrt(1 + skew * (symmetric - skew / 6)) - 1) / skew


def wilson(share: float, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's 95% interval of a share of `n` independent cases (Wilson 1927).

    >>> [round(bound, 3) for bound in wilson(0.5, 100)]
    [0.404, 0.596]
    """
    if n <= 0:
        return (0.0, 1.0)
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(max(share * (1 - share), 0.0) / n + z * z / (4 * n * n))
    return (max(0.0, middle - half), min(1.0, middle + half))
