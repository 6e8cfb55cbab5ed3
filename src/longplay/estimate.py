"""Estimates: a number with its standard error, as every evaluation returns it, off-policy and
on-line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from longplay.display import LOPSIDED, Bounded, plus_minus, value_and_ends
from longplay.errors import DataError, NotEstimable
from longplay.intervals import log_interval, t_interval


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its standard error and its interval, as every evaluation returns it.

    Attributes:
        value: the estimate, in the unit of what was measured.
        std_error: its standard error, same unit, >= 0.
        n: independent units behind it (users, or seeds), not rows.
        n_eff: effective number of these units after weighting (effective users); `n` where nothing
            is weighted.
        estimand: what the number is a number of, in words.
        df: degrees of freedom of its interval; null: n - 1.
        skew: the estimate's own skewness, for which the interval is corrected; see
            `longplay.intervals`.
        origin: of a rare outcome, what the value would be had the outcome never happened; the
            interval is then on the log scale of the distance from here, of which df + 1 outcomes
            tell. Null: the interval is symmetric, Student's t.
        step: how much further from `origin` one more outcome of typical weight would bring the
            value, >= 0.

    >>> print(Estimate(0.314, 0.0204, n=1204, n_eff=1204, estimand="return rate"))
    0.314 ± 0.040 (95%, n=1,204)
    >>> print(Estimate(0.02, 0.005, n=900, n_eff=900, estimand="habit rate", df=15, origin=0.0, step=0.001))
    0.0200 (0.0117 to 0.0351; 95%, n=900)
    """

    JSON_KEYS: ClassVar[tuple[str, ...]] = (
        "value",
        "low",
        "high",
        "std_error",
        "n",
        "n_eff",
        "estimand",
        "df",
        "skew",
        "origin",
        "step",
    )

    value: float
    std_error: float
    n: int
    n_eff: float
    estimand: str
    df: float | None = None
    skew: float = 0.0
    origin: float | None = None
    step: float = 0.0

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """The two-sided interval at `level` in (0, 1): Student's t with `df` degrees of freedom,
        corrected for skewness.

        With one unit nothing is known of the error and the interval is infinite. Where `origin` is
        given, the interval is `log_interval` of the distance from it.
        """
        if self.n < 2 and 0 < level < 1:
            return (-np.inf, np.inf)
        df = self.n - 1 if self.df is None else self.df
        if self.origin is not None:
            near, far = log_interval(
                abs(self.value - self.origin), self.std_error, df, self.step, level
            )
            if self.value >= self.origin:
                return (self.origin + near, self.origin + far)
            return (self.origin - far, self.origin - near)
        return t_interval(self.value, self.std_error, df, level, self.skew)

    def bounded(self, level: float = 0.95) -> Bounded:
        """The value with its interval at `level`; without one where an end is infinite.

        >>> Estimate(0.3, 0.1, n=1, n_eff=1, estimand="rate").bounded().interval is None
        True
        """
        low, high = self.interval(level)
        if np.isfinite(low) and np.isfinite(high):
            return Bounded(self.value, float(low), float(high))
        return Bounded(self.value)

    def as_json(self) -> dict[str, float | int | str | None]:
        """The fields of the estimate and its 95% interval, by name; always the same keys.

        An end of the interval and the standard error are null where they are infinite. This is the
        shape of an estimate in every file.

        >>> list(Estimate(0.31, 0.02, n=90, n_eff=90, estimand="rate").as_json())[:4]
        ['value', 'low', 'high', 'std_error']
        """
        return {
            **self.bounded().row(),
            "std_error": self.std_error if np.isfinite(self.std_error) else None,
            "n": self.n,
            "n_eff": self.n_eff,
            "estimand": self.estimand,
            "df": self.df,
            "skew": self.skew,
            "origin": self.origin,
            "step": self.step,
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Estimate:
        """The estimate of which `as_json` wrote `row`; the interval follows from the rest.

        Raises:
            TypeError: a figure is no number.
        """
        numbers = {
            key: None if row[key] is None else float(row[key])
            for key in ("value", "std_error", "n_eff", "df", "skew", "origin", "step")
        }
        std_error = numbers.pop("std_error")
        if not isinstance(row["n"], int) or not isinstance(row["estimand"], str):
            raise TypeError("n must be a whole number and estimand a text")
        for key in ("value", "n_eff", "skew", "step"):
            if numbers[key] is None:
                raise TypeError(f"{key} is null")
        fields: dict[str, Any] = {"n": row["n"], "estimand": row["estimand"], **numbers}
        return cls(std_error=float("inf") if std_error is None else std_error, **fields)

    def __str__(self) -> str:
        low, high = self.interval()
        half = (high - low) / 2
        if abs(low + high - 2 * self.value) > LOPSIDED * half:
            value, ends = value_and_ends(self.value, low, high)
            return f"{value} ({ends}; 95%, n={self.n:,})"
        return f"{plus_minus(self.value, half)} (95%, n={self.n:,})"

    def _repr_html_(self) -> str:
        return f"<span title='{escape(self.estimand)}'>{escape(str(self))}</span>"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A refused estimate: it prints the reason, and raises it where a number is needed.

    >>> print(Refusal("not estimable: n_eff = 12 of 10,000 slots", estimand="one_step value"))
    not estimable: n_eff = 12 of 10,000 slots
    """

    reason: str
    estimand: str

    @property
    def value(self) -> float:
        """Raises `NotEstimable` with the reason, as do all figures of a refusal."""
        raise NotEstimable(self.reason)

    @property
    def std_error(self) -> float:
        """See `value`."""
        raise NotEstimable(self.reason)

    @property
    def n(self) -> int:
        """See `value`."""
        raise NotEstimable(self.reason)

    @property
    def n_eff(self) -> float:
        """See `value`."""
        raise NotEstimable(self.reason)

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """See `value`."""
        raise NotEstimable(self.reason)

    def __str__(self) -> str:
        return self.reason

    def _repr_html_(self) -> str:
        return f"<span title='{escape(self.estimand)}'>{escape(self.reason)}</span>"


def clustered_mean(
    values: ArrayLike, clusters: ArrayLike | None = None, *, estimand: str = "mean"
) -> Estimate:
    """The mean of `values[N]` with a standard error clustered by `clusters[N]` (usually the user).

    Rows of one cluster may depend on each other in any way; clusters are independent. The variance
    is the linearised one of a ratio of cluster sums, G/(G-1) sum_g e_g^2 / N^2 with e_g the summed
    deviations of cluster g (Liang & Zeger 1986). Without clusters every row is its own.

    >>> clustered_mean([1.0, 2.0, 3.0, 6.0]).value
    3.0
    >>> round(clustered_mean([1.0, 1.0, 3.0, 3.0], ["a", "a", "b", "b"]).std_error, 6)
    1.0

    Raises:
        DataError: no values, lengths that differ, or a value that is not finite.
    """
    value_N = np.asarray(values, dtype=float)
    if value_N.ndim != 1 or len(value_N) == 0:
        raise DataError(
            f"clustered_mean: values of shape {value_N.shape} given, expected at least one value "
            "in one axis"
        )
    if not np.isfinite(value_N).all():
        raise DataError(
            f"clustered_mean: {int((~np.isfinite(value_N)).sum())} values are null or infinite; "
            "drop immature rows first"
        )
    if clusters is None:
        cluster_N = np.arange(len(value_N))
        n_clusters = len(value_N)
    else:
        names = np.asarray(clusters)
        if names.shape != value_N.shape:
            raise DataError(f"clustered_mean: {value_N.shape} values but {names.shape} clusters")
        unique, cluster_N = np.unique(names, return_inverse=True)
        n_clusters = len(unique)
    sums_C = np.bincount(cluster_N, weights=value_N, minlength=n_clusters)
    return mean_of_sums(sums_C, np.bincount(cluster_N, minlength=n_clusters), estimand=estimand)


def mean_of_sums(sums: ArrayLike, counts: ArrayLike, *, estimand: str = "mean") -> Estimate:
    """`clustered_mean` from the sum and the number of values of every cluster, both shape [G].

    >>> mean_of_sums([2.0, 6.0], [2, 2]) == clustered_mean([1.0, 1.0, 3.0, 3.0], ["a", "a", "b", "b"])
    True

    Raises:
        DataError: no values.
    """
    sum_C = np.asarray(sums, dtype=float)
    count_C = np.asarray(counts, dtype=float)
    if not count_C.sum() > 0:
        raise DataError(
            f"mean_of_sums: {len(count_C)} clusters of no values given, expected at least one value"
        )
    mean = float(sum_C.sum() / count_C.sum())
    n_clusters = len(count_C)
    error_C = sum_C - mean * count_C
    if n_clusters > 1:
        std_error = float(
            np.sqrt(n_clusters / (n_clusters - 1) * np.sum(error_C**2)) / count_C.sum()
        )
    else:
        std_error = float("inf")
    return Estimate(mean, std_error, n=n_clusters, n_eff=float(n_clusters), estimand=estimand)
