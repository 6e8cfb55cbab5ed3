"""Beliefs: estimates of outcomes that have not matured, with their uncertainty, and checks of their
calibration."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import stats

from longplay.display import table_html
from longplay.errors import DataError
from longplay.results.record import Json, to_json
from longplay.results.reward_figures import CalibrationFigures, ReliabilityBin

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Belief:
    """Estimates of the outcomes of N entries (or of N x S slots shown) before they mature, with
    their uncertainty.

    Attributes:
        mean: expected outcome, shape [N] or [N, S], in the signal's unit.
        std: how unsure we are of the *expected* outcome (epistemic), same shape, >= 0.
        spread: how much single outcomes vary around what we expect (predictive standard
            deviation, epistemic part included), same shape, >= std.
        age: days of the entry's window that were observed; -1 where it differs by row.
        signal: `name@version` of the signal believed in.
        minimum: the least value the outcome can take: number or array of the same shape.
        keys: one row per belief (item_id, or user_id and time, ...), or null for slots.
        maximum: the largest value the outcome can take; what a negative weight turns into the
            minimum.

    >>> mean, std, spread = np.array([0.4, 0.1]), np.array([0.1, 0.2]), np.array([0.5, 0.4])
    >>> b = Belief(mean=mean, std=std, spread=spread, age=14, signal="habit@1")
    >>> b.lower(1.0).round(3).tolist()     # floored at the outcome's minimum, here 0
    [0.3, 0.0]
    """

    mean: Array
    std: Array
    spread: Array
    age: int
    signal: str
    minimum: float | Array = 0.0
    keys: pl.DataFrame | None = field(default=None, repr=False)
    maximum: float | Array = np.inf

    def __post_init__(self) -> None:
        shapes = {np.shape(self.mean), np.shape(self.std), np.shape(self.spread)}
        if len(shapes) != 1:
            raise DataError(
                f"Belief: mean, std and spread have shapes {sorted(shapes)}; expected one shape"
            )
        if self.keys is not None and self.keys.height != len(self.mean):
            raise DataError(f"Belief: {len(self.mean)} beliefs but {self.keys.height} keys")

    def __len__(self) -> int:
        return len(self.mean)

    def lower(self, caution: float) -> Array:
        """The cautious value, mean - caution * std, never below `minimum`; same shape as `mean`.

        Caution counts *epistemic* standard deviations. Using the spread of single outcomes would
        invert the order of rare habits (p - sqrt(p (1-p)) falls until p = .146).
        """
        if caution < 0:
            raise DataError(
                f"lower: caution={caution} given, expected >= 0 (how many std to subtract)"
            )
        return np.maximum(self.mean - caution * self.std, self.minimum)

    def table(self) -> pl.DataFrame:
        """One row per belief: the keys, then mean, std and spread. One-axis beliefs only."""
        if np.ndim(self.mean) != 1:
            raise DataError(f"Belief.table: shape {np.shape(self.mean)} given, expected one axis")
        columns = pl.DataFrame({"mean": self.mean, "std": self.std, "spread": self.spread})
        return columns if self.keys is None else pl.concat([self.keys, columns], how="horizontal")

    def __str__(self) -> str:
        when = f"{self.age} days observed" if self.age >= 0 else "mixed ages"
        return (
            f"{self.signal}: {np.size(self.mean):,} beliefs, {when}: "
            f"mean {np.mean(self.mean):.4g}, std {np.mean(self.std):.2g}, spread "
            f"{np.mean(self.spread):.2g}"
        )

    def __repr__(self) -> str:
        return f"Belief({self})"

    def _repr_html_(self) -> str:
        if np.ndim(self.mean) != 1:
            return f"<p>{escape(str(self))}</p>"
        return table_html(str(self), self.table())


@dataclass(frozen=True)
class Calibration:
    """How well calibrated beliefs are: coverage of their intervals, error and sharpness
    (docs/methods.md, "Calibration").

    Attributes:
        coverage: level -> share of groups whose realised *mean* fell into the central interval at
            that level; the interval includes the sampling noise of the realised mean.
        groups: number of groups (items) judged, each with at least `min_entries` mature entries.
        min_entries: entries a group needed.
        pit: randomised probability integral transforms of single outcomes, shape [N], uniform if
            calibrated.
        reliability: table of predicted (mean belief), realised (mean outcome), std_error, n by bin
            of belief.
        mae: mean absolute error of the groups' means.
        prior_mae: the same of the prior alone (one number for all), the error of knowing nothing.
        sharpness: mean predictive standard deviation of the groups' means without sampling noise.
        prior_sharpness: the same of the prior alone.
    """

    coverage: dict[float, float]
    groups: int
    min_entries: int
    pit: Array
    reliability: pl.DataFrame
    mae: float
    prior_mae: float
    sharpness: float
    prior_sharpness: float

    def __str__(self) -> str:
        levels = ", ".join(f"{level:.0%}: {share:.0%}" for level, share in self.coverage.items())
        return (
            f"coverage of realised means over {self.groups} items ({levels}); "
            f"MAE {self.mae:.4g} (prior alone {self.prior_mae:.4g}), sharpness "
            f"{self.sharpness:.4g} (prior alone {self.prior_sharpness:.4g})"
        )

    def figures(self) -> CalibrationFigures:
        """The calibration as a run folder stores it; the PIT as a histogram of ten bins."""
        return CalibrationFigures(
            coverage={f"{level:g}": share for level, share in self.coverage.items()},
            groups=self.groups,
            min_entries=self.min_entries,
            pit=tuple(np.histogram(self.pit, bins=10, range=(0, 1))[0].tolist()),
            reliability=tuple(ReliabilityBin(**row) for row in self.reliability.to_dicts()),
            mae=self.mae,
            prior_mae=self.prior_mae,
            sharpness=self.sharpness,
            prior_sharpness=self.prior_sharpness,
        )

    def as_json(self) -> Json:
        """`figures` as values that JSON has."""
        return to_json(self.figures())


def coverage_of_means(
    mean_G: Array,
    std_G: Array,
    realised_G: Array,
    noise_std_G: Array,
    levels: tuple[float, ...] = (0.5, 0.8, 0.9, 0.95),
) -> dict[float, float]:
    """Share of groups whose realised mean lies in the central interval of N(mean, std^2 +
    noise_std^2).

    `noise_std_G` is the sampling error of the realised mean (spread of single outcomes / sqrt(n)).

    >>> coverage_of_means(np.zeros(3), np.ones(3), np.array([0.0, 1.0, 5.0]), np.zeros(3), levels=(0.9,))
    {0.9: 0.6666666666666666}
    """
    z_G = np.abs(realised_G - mean_G) / np.sqrt(std_G**2 + noise_std_G**2)
    return {level: float(np.mean(z_G <= stats.norm.ppf(0.5 + level / 2))) for level in levels}


def randomised_pit(
    mean_N: Array, spread_N: Array, outcome_N: Array, rng: np.random.Generator, *, binary: bool
) -> Array:
    """Randomised probability integral transform of single outcomes, shape [N], uniform on (0, 1) if
    calibrated.

    Binary outcomes are Bernoulli(mean) and the jump is filled with a uniform draw (Czado, Gneiting
    & Held 2009); others are taken as normal with the predictive spread.
    """
    if binary:
        p_N = np.clip(mean_N, 0, 1)
        u_N = rng.random(len(p_N))
        return np.where(outcome_N > 0, 1 - p_N + u_N * p_N, u_N * (1 - p_N))
    return stats.norm.cdf((outcome_N - mean_N) / np.maximum(spread_N, 1e-12))


def reliability(mean_N: Array, outcome_N: Array, bins: int = 10) -> pl.DataFrame:
    """Predicted against realised means in `bins` equally filled bins of belief.

    Columns: predicted, realised, std_error (of realised), n. Ties in belief share a bin.
    """
    if len(mean_N) != len(outcome_N):
        raise DataError(f"reliability: {len(mean_N)} beliefs but {len(outcome_N)} outcomes")
    edges = np.unique(np.quantile(mean_N, np.linspace(0, 1, bins + 1)[1:-1]))
    bin_N = np.searchsorted(edges, mean_N, side="left")
    return (
        pl.DataFrame({"bin": bin_N, "predicted": mean_N, "outcome": outcome_N})
        .group_by("bin")
        .agg(
            pl.col("predicted").mean(),
            pl.col("outcome").mean().alias("realised"),
            (pl.col("outcome").std() / pl.len().sqrt()).fill_null(0.0).alias("std_error"),
            pl.len().alias("n"),
        )
        .sort("bin")
        .drop("bin")
    )
