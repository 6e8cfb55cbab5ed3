"""Statistics of comparing two arms: pure functions of one number per user.

Suffixes: U users of one arm, K covariates.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from longplay.arrays import Float
from longplay.errors import DataError
from longplay.intervals import t_interval, t_p_value

USERS_PER_COVARIATE = 10  # an arm with fewer users per fitted number is compared without covariates
SURELY_SKEWED = 2.0  # standard errors, sqrt(6 / users), from which the skewness of a sample counts
# standard errors of a control mean above 0 from which a relative interval covers .94; at 3 it
# covers .85
SURELY_POSITIVE = 5.0


@dataclass(frozen=True)
class Contrast:
    """A weighted sum of two arms' means.

    Attributes:
        value: the sum, in the outcome's unit.
        std_error: its standard error, same unit.
        df: degrees of freedom (Student's t).
        skew: its own skewness, where both arms' users have the same; see `longplay.intervals`.
    """

    value: float
    std_error: float
    df: float
    skew: float = 0.0

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """The two-sided interval at `level` in (0, 1), corrected for skewness."""
        return t_interval(self.value, self.std_error, self.df, level, self.skew)

    @property
    def p_value(self) -> float:
        """Two-sided, of the value being 0; without any noise 0 or 1."""
        return t_p_value(self.value, self.std_error, self.df, self.skew)

    def __neg__(self) -> Contrast:
        """The same with the other sign: what is better where less is better."""
        return Contrast(-self.value, self.std_error, self.df, -self.skew)


@dataclass(frozen=True)
class Means:
    """Two arms' means with what is known of their errors.

    Attributes:
        control: means, in the outcome's unit; where adjusted, at the covariate mean of both arms
            together.
        treatment: means, in the outcome's unit; where adjusted, at the covariate mean of both arms
            together.
        var_control: of these two estimates. The covariance is 0 without adjustment.
        var_treatment: of these two estimates. The covariance is 0 without adjustment.
        covariance: of these two estimates. The covariance is 0 without adjustment.
        df: degrees of freedom of their difference.
        n_control: users.
        n_treatment: users.
        covariates: how many were used.
        skewness: of one user's outcome (adjusted: of what is left of it), pooled over the arms.
    """

    control: float
    treatment: float
    var_control: float
    var_treatment: float
    covariance: float
    df: float
    n_control: int
    n_treatment: int
    covariates: int = 0
    skewness: float = 0.0

    def contrast(self, control: float = -1.0, treatment: float = 1.0) -> Contrast:
        """`control` times the control's mean + `treatment` times the treatment's; by default the
        difference.

        Its skewness is that of arms whose users are alike: skewness (b^3 / n1^2 + a^3 / n0^2) /
        (b^2 / n1 + a^2 / n0)^1.5 for weights a, b. It depends on the sizes of the arms, not on
        which of them luck gave the larger values. Skewness that may be chance counts as none.
        """
        variance = (
            control**2 * self.var_control
            + treatment**2 * self.var_treatment
            + 2 * control * treatment * self.covariance
        )
        value = control * self.control + treatment * self.treatment
        return Contrast(
            value, float(np.sqrt(max(variance, 0.0))), self.df, self._skew(control, treatment)
        )

    def _skew(self, control: float, treatment: float) -> float:
        """The skewness of the contrast with these weights."""
        if abs(self.skewness) < SURELY_SKEWED * np.sqrt(6 / (self.n_control + self.n_treatment)):
            return 0.0
        third = treatment**3 / self.n_treatment**2 + control**3 / self.n_control**2
        second = treatment**2 / self.n_treatment + control**2 / self.n_control
        return self.skewness * third / second**1.5 if second > 0 else 0.0


def welch(control_U: ArrayLike, treatment_U: ArrayLike) -> Means:
    """The arms' plain means, each with its own variance s^2 / n; degrees of freedom of Welch
    (1947).

    It is also the regression on an arm indicator with HC2 errors (MacKinnon & White 1985).

    >>> means = welch([1.0, 3.0], [4.0, 8.0])
    >>> means.control, means.treatment, means.var_control, means.var_treatment
    (2.0, 6.0, 1.0, 4.0)
    >>> round(means.contrast().std_error ** 2, 6), round(means.df, 6)      # 1 + 4; (1 + 4)^2 / (1 / 1 + 16 / 1)
    (5.0, 1.470588)

    Raises:
        DataError: an arm of fewer than two users, or a value that is not finite.
    """
    y0_U, y1_U = _values(control_U, "control"), _values(treatment_U, "treatment")
    v0, v1 = (float(y_U.var(ddof=1)) / len(y_U) for y_U in (y0_U, y1_U))
    df = _welch_df(v0, len(y0_U) - 1, v1, len(y1_U) - 1)
    return Means(float(y0_U.mean()), float(y1_U.mean()), v0, v1, 0.0, df, len(y0_U), len(y1_U))


def lin_adjusted(
    control_U: ArrayLike, treatment_U: ArrayLike, control_UK: ArrayLike, treatment_UK: ArrayLike
) -> Means:
    """The arms' means adjusted for covariates known before treatment: a regression in each arm,
    read at the pooled covariate mean.

    That is the fully interacted regression of Lin (2013), of which CUPED (Deng et al. 2013) is the
    case of one covariate and one slope: never less precise than the plain difference in large
    samples. Errors are HC2 (MacKinnon & White 1985), plus what the pooled covariate mean varies by
    itself, slope' S slope / N (Negi & Wooldridge 2021): HC2 alone is the error for exactly these
    users, which is too small for users like them where the effect differs by covariate. Covariates
    that do not vary in an arm, or repeat others, are left out; with fewer than 10 users per fitted
    number in an arm all are, which gives the plain means.

    Args:
        control_U: outcomes.
        treatment_U: outcomes.
        control_UK: covariates, the same K in both arms.
        treatment_UK: covariates, the same K in both arms.

    >>> x = np.arange(40.0)[:, None]
    >>> means = lin_adjusted(x[:20, 0], x[20:, 0] + 1.0, x[:20], x[20:])    # the outcome is x, treatment adds 1
    >>> round(means.contrast().value, 6), round(means.contrast().std_error, 6), round(means.control, 6)
    (1.0, 0.0, 19.5)
    """
    y0_U, y1_U = _values(control_U, "control"), _values(treatment_U, "treatment")
    x0_UK = _covariates(control_UK, len(y0_U), "control")
    x1_UK = _covariates(treatment_UK, len(y1_U), "treatment")
    if x0_UK.shape[1] != x1_UK.shape[1]:
        raise DataError(
            f"lin_adjusted: {x0_UK.shape[1]} covariates for control but {x1_UK.shape[1]} for "
            "treatment; expected the same"
        )
    x_UK = np.concatenate([x0_UK, x1_UK])
    scale_K = x_UK.std(axis=0)
    x_UK = (x_UK - x_UK.mean(axis=0)) / np.where(scale_K > 0, scale_K, 1.0)
    columns = _independent(x_UK[: len(y0_U)], x_UK[len(y0_U) :])
    if not columns or min(len(y0_U), len(y1_U)) < USERS_PER_COVARIATE * (len(columns) + 1):
        return _plain(y0_U, y1_U)
    x_UK = x_UK[:, columns]
    mean0, v0, slope0_K, left0_U = _regression(y0_U, x_UK[: len(y0_U)])
    mean1, v1, slope1_K, left1_U = _regression(y1_U, x_UK[len(y0_U) :])
    pooled_KK = np.cov(x_UK, rowvar=False).reshape(len(columns), len(columns)) / len(x_UK)
    df = _welch_df(v0, len(y0_U) - len(columns) - 1, v1, len(y1_U) - len(columns) - 1)
    return Means(
        mean0,
        mean1,
        v0 + float(slope0_K @ pooled_KK @ slope0_K),
        v1 + float(slope1_K @ pooled_KK @ slope1_K),
        float(slope0_K @ pooled_KK @ slope1_K),
        df,
        len(y0_U),
        len(y1_U),
        len(columns),
        pooled_skewness(left0_U, left1_U),
    )


def pooled_skewness(*deviations: Float) -> float:
    """The skewness of a user's outcome, averaged over arms by their number of users; 0 where
    nothing varies.

    Of each arm n / ((n - 1) (n - 2)) sum (deviation / s)^3 (Fisher's G1).

    Args:
        deviations: of each arm, from its mean or its regression, shape [U].

    >>> round(pooled_skewness(np.array([-1.0, -1.0, 2.0])), 6)
    1.732051
    """
    weighted, users = 0.0, 0
    for deviation_U in deviations:
        n = len(deviation_U)
        users += n
        square_U = deviation_U * deviation_U
        variance = float(np.sum(square_U)) / (n - 1)
        if n > 2 and variance > 0:
            weighted += n * n / ((n - 1) * (n - 2)) * float(square_U @ deviation_U) / variance**1.5
    return weighted / users


def compare(
    value_U: ArrayLike, treated_U: ArrayLike, covariate_UK: ArrayLike | None = None
) -> Means:
    """`welch`, or `lin_adjusted` where there are covariates, of one column of outcomes and one of
    arms; corrected for skewness.

    Args:
        value_U: outcomes, shape [U].
        treated_U: who is of the treatment, shape [U]: truth values, or 0 and 1.
        covariate_UK: known before treatment, shape [U, K]; None: compare plain means.

    >>> compare([1.0, 4.0, 3.0, 8.0], [0, 1, 0, 1]).contrast().value
    4.0

    Raises:
        DataError: arms that are neither truth values nor 0 and 1, lengths that differ, or an arm of
            fewer than two users.
    """
    y_U, treated = np.asarray(value_U), _treated(treated_U)
    if y_U.shape != treated.shape:
        raise DataError(
            f"compare: values of shape {y_U.shape} and arms of shape {treated.shape} given, "
            "expected one arm per value"
        )
    x_UK = None if covariate_UK is None else np.asarray(covariate_UK)
    if x_UK is None or x_UK.shape[1:] == (0,):
        return _plain(y_U[~treated], y_U[treated])
    if x_UK.ndim != 2 or len(x_UK) != len(y_U):
        raise DataError(
            f"compare: covariates of shape {x_UK.shape} given, expected [{len(y_U)}, K]"
        )
    return lin_adjusted(y_U[~treated], y_U[treated], x_UK[~treated], x_UK[treated])


def relative(means: Means) -> Contrast | None:
    """treatment / control - 1 by the delta method, or null where the control's mean is not surely
    above 0.

    The gradient of t / c - 1 is (-t / c^2, 1 / c), so the control's own noise counts:
    dividing the absolute interval by the control's mean ignores it. Null below 5 standard errors:
    there the linearisation is wrong and the interval of Fieller (1954) is about to be unbounded.

    >>> sizes = {"df": 100, "n_control": 51, "n_treatment": 51}
    >>> means = Means(10.0, 12.0, var_control=1.0, var_treatment=1.0, covariance=0.0, **sizes)
    >>> change = relative(means)
    >>> round(change.value, 6), round(change.std_error ** 2, 6)            # 0.12^2 * 1 + 0.1^2 * 1
    (0.2, 0.0244)
    """
    if means.control <= 0 or means.control < SURELY_POSITIVE * np.sqrt(means.var_control):
        return None
    slope = means.contrast(-means.treatment / means.control**2, 1 / means.control)
    return Contrast(means.treatment / means.control - 1, slope.std_error, means.df)


def ratio(over: Contrast, under: Contrast, covariance: float) -> Contrast:
    """over / under by the delta method, for two estimates with this covariance.

    >>> found = ratio(Contrast(6.0, 1.0, 50), Contrast(3.0, 1.0, 50), covariance=0.0)
    >>> found.value, round(found.std_error ** 2, 6)                        # 1 / 9 + 36 / 81
    (2.0, 0.555556)
    """
    value = over.value / under.value
    variance = (
        over.std_error**2 + value**2 * under.std_error**2 - 2 * value * covariance
    ) / under.value**2
    return Contrast(value, float(np.sqrt(max(variance, 0.0))), min(over.df, under.df))


def sample_ratio(counts: ArrayLike, shares: ArrayLike) -> float:
    """p-value of users arriving in these numbers under the declared shares: chi-square (Pearson
    1900).

    Fabijan et al. (2019) recommend to distrust an experiment below a p-value of .001 or less.

    Args:
        counts: users of each arm, whole numbers >= 0, at least one user in all.
        shares: of each arm, positive; only their proportions count, so [1, 1] and [0.5, 0.5] say
            the same.

    >>> # 10^2 / 50 + 10^2 / 50 = 4
    >>> round(sample_ratio([60, 40], [0.5, 0.5]), 6), round(sample_ratio([60, 40], [1, 1]), 6)
    (0.0455, 0.0455)

    Raises:
        DataError: counts that are no numbers of users, shares that are not positive, or not one of
            each per arm.
    """
    count_A, share_A = _numbers(counts, "counts"), _numbers(shares, "shares")
    if count_A.shape != share_A.shape or count_A.ndim != 1 or len(count_A) < 2:
        raise DataError(
            f"sample_ratio: counts {counts} for shares {shares} given, expected one count per "
            "arm, and at least two arms"
        )
    if (count_A < 0).any() or (count_A != np.round(count_A)).any() or count_A.sum() < 1:
        raise DataError(
            f"sample_ratio: counts {counts} given, expected whole numbers of users, none "
            "negative, at least one above 0"
        )
    if (share_A <= 0).any():
        raise DataError(
            f"sample_ratio: shares {shares} given, expected positive numbers, e.g. [0.5, 0.5]"
        )
    expected_A = share_A / share_A.sum() * count_A.sum()
    return float(stats.chi2.sf(np.sum((count_A - expected_A) ** 2 / expected_A), len(count_A) - 1))


def _plain(y0_U: Float, y1_U: Float) -> Means:
    """`welch`, with the skewness."""
    y0_U, y1_U = _values(y0_U, "control"), _values(y1_U, "treatment")
    means = welch(y0_U, y1_U)
    return replace(means, skewness=pooled_skewness(y0_U - means.control, y1_U - means.treatment))


def _regression(y_U: Float, x_UK: Float) -> tuple[float, float, Float, Float]:
    """Intercept, its HC2 variance, the slopes [K] and what is left [U] of y on x by least
    squares."""
    design_UK = np.column_stack([np.ones(len(y_U)), x_UK])
    q_UK, r_KK = np.linalg.qr(design_UK)
    weight_KU = np.linalg.solve(r_KK, q_UK.T)
    beta_K = weight_KU @ y_U
    left_U = y_U - design_UK @ beta_K
    leverage_U = np.minimum(
        np.sum(q_UK**2, axis=1), 1 - 1e-12
    )  # at 1 the user is fitted exactly: nothing is left, and 0 / 0 is avoided
    variance = float(np.sum(weight_KU[0] ** 2 * left_U**2 / (1 - leverage_U)))
    return float(beta_K[0]), variance, beta_K[1:], left_U


def _independent(x0_UK: Float, x1_UK: Float, tolerance: float = 1e-6) -> list[int]:
    """Columns (scaled to variance 1) that in both arms hold something the columns before them do
    not."""
    columns: list[int] = []
    for k in range(x0_UK.shape[1]):
        adds = True
        for x_UK in (x0_UK, x1_UK):
            design_UK = np.column_stack([np.ones(len(x_UK)), x_UK[:, columns]])
            left_U = x_UK[:, k] - design_UK @ np.linalg.lstsq(design_UK, x_UK[:, k], rcond=None)[0]
            adds = adds and float(np.mean(left_U**2)) > tolerance
        if adds:
            columns.append(k)
    return columns


def _welch_df(v0: float, df0: int, v1: float, df1: int) -> float:
    """Degrees of freedom of a sum of two variances (Satterthwaite 1946)."""
    if v0 + v1 == 0:
        return float(df0 + df1)
    return (v0 + v1) ** 2 / (v0**2 / df0 + v1**2 / df1)


def _numbers(values: ArrayLike, name: str) -> Float:
    """Finite numbers, or a DataError."""
    try:
        numbers = np.asarray(values, dtype=float)
    except (TypeError, ValueError) as error:
        raise DataError(f"sample_ratio: {name} {values} given, expected numbers") from error
    if not np.isfinite(numbers).all():
        raise DataError(f"sample_ratio: {name} {values} given, expected finite numbers")
    return numbers


def _treated(treated_U: ArrayLike) -> NDArray[np.bool_]:
    """Arms as truth values: `~` of the integers 0 and 1 would be -1 and -2, which count from the
    end."""
    arms_U = np.asarray(treated_U)
    if arms_U.dtype == bool:
        return arms_U
    arms = arms_U.ravel().tolist()
    if not all(isinstance(arm, int | float) and arm in (0, 1) for arm in arms):
        values = ", ".join(list(dict.fromkeys(map(repr, arms)))[:4])
        raise DataError(
            f"compare: arms {values} given, expected True and False, or 1 for the treatment and 0 "
            "for the control"
        )
    return arms_U.astype(bool)


def _values(values_U: ArrayLike, arm: str) -> Float:
    y_U = np.asarray(values_U, dtype=float)
    if y_U.ndim != 1 or len(y_U) < 2:
        raise DataError(
            f"{arm}: values of shape {y_U.shape} given, expected at least two users in one axis"
        )
    if not np.isfinite(y_U).all():
        raise DataError(
            f"{arm}: {int((~np.isfinite(y_U)).sum())} of {len(y_U):,} values are null or "
            "infinite; leave immature users out first"
        )
    return y_U


def _covariates(values_UK: ArrayLike, n: int, arm: str) -> Float:
    x_UK = np.asarray(values_UK, dtype=float)
    if x_UK.ndim != 2 or len(x_UK) != n or not np.isfinite(x_UK).all():
        raise DataError(
            f"{arm}: covariates of shape {x_UK.shape} given, expected finite numbers of shape "
            f"[{n}, K]"
        )
    return x_UK
