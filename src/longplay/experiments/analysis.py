"""From a lake to a read-out: enrolled users, their outcomes, and the differences between arms."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Literal, cast

import numpy as np
import polars as pl
from numpy.typing import NDArray

from longplay.arrays import Float
from longplay.display import number, percent
from longplay.errors import ConfigError
from longplay.experiments.assignment import Design
from longplay.experiments.decision import Terms, decide, standing_of
from longplay.experiments.enrolment import (
    LEAST_OTHERS,
    LEAST_USERS,
    analysed,
    covariates_in,
    enrolled_in,
    quality_of,
)
from longplay.experiments.power import check_metrics
from longplay.experiments.readout import Effect, Line, Readout
from longplay.experiments.statistics import Contrast, compare
from longplay.intervals import MOST_SKEW, one_sided_error
from longplay.lake.lake import Lake
from longplay.progress import ignore
from longplay.signals.outcomes.enrolled_sums import checked_enrolled, sums_in
from longplay.signals.signal import Signal


def analyze(
    design: Design,
    lake: Lake,
    signals: Signal | Sequence[Signal],
    guardrails: Mapping[Signal, float],
    alpha: float,
    power: float,
    as_of: datetime | None,
    covariates: bool,
    minimum_effect: float,
    report: Callable[..., None] = ignore,
) -> Readout:
    """See `Experiment.analyze`.

    `report` is called with (steps done, steps): users are enrolled, covariates and sums counted,
    arms compared.
    """
    success = [signals] if isinstance(signals, Signal) else list(signals)
    check_metrics("analyze", success, guardrails, alpha, power)
    if not (math.isfinite(minimum_effect) and minimum_effect > 0):
        raise ConfigError(
            f"analyze: minimum_effect={minimum_effect} given, expected a positive relative gain, "
            "e.g. 0.01"
        )
    treatments = design.arm_names[1:]
    view = (lake if as_of is None else lake.before(as_of)).fixed()
    metrics = [*success, *guardrails]
    steps = 3 + len(treatments)
    report(0, steps)
    with view.connect() as con:  # one, in which every query reads the log
        everybody = enrolled_in(con, design.label, design.arm_names)
        checks = quality_of(design, everybody)
        enrolled = analysed(design, everybody)
        report(1, steps)
        covariates_UK = covariates_in(con, enrolled) if covariates else None
        report(2, steps)
        sums = sums_in(
            con,
            metrics,
            view,
            view,
            checked_enrolled(enrolled),
            design.entry_days,
            view.watermark,
        )
    report(3, steps)
    success_alpha = alpha / (len(success) * len(treatments))
    lines: list[Line] = []
    decisions = []
    for number_of, arm in enumerate(treatments, start=1):
        pair_U = np.isin(enrolled["arm_number"].to_numpy(), (0, number_of))
        treated_U = enrolled["arm_number"].to_numpy()[pair_U] == number_of
        pair_covariates_UK = None if covariates_UK is None else covariates_UK[pair_U]
        arm_lines = [
            line_of(
                signal,
                sums[signal].filter(pl.Series(pair_U)),
                treated_U,
                pair_covariates_UK,
                arm,
                guardrails.get(signal),
                alpha,
                success_alpha,
            )
            for signal in sums
        ]
        times = enrolled.filter(pl.Series(pair_U))["time"]
        terms = Terms(
            alpha,
            success_alpha,
            power,
            minimum_effect,
            view.watermark,
            cast(datetime, times.max()),
            _rate(times, view.watermark),
        )
        decisions.append(decide(arm, arm_lines, checks, terms))
        lines += arm_lines
        report(3 + number_of, steps)
    return Readout(
        design.label,
        view.watermark,
        tuple(lines),
        checks,
        tuple(decisions),
        alpha=alpha,
        power=power,
        minimum_effect=minimum_effect,
    )


def line_of(
    signal: Signal,
    sums: pl.DataFrame,
    treated_U: NDArray[np.bool_],
    covariates_UK: Float | None,
    arm: str,
    margin: float | None,
    alpha: float,
    success_alpha: float,
) -> Line:
    """Compare one signal of one treatment with the control.

    Args:
        signal: what is compared.
        sums: of `enrolled_sums`, the control's and the treatment's users.
        treated_U: which are the treatment's.
        covariates_UK: covariates, or null.
        arm: the treatment's name.
        margin: a guardrail's, or null.
        alpha: two-sided, of a guardrail.
        success_alpha: two-sided, of a success metric, after sharing out.
    """
    mature_U = sums["value"].is_not_null().to_numpy()
    enrolled = _by_arm(treated_U, np.ones_like(mature_U))
    mature = _by_arm(treated_U, mature_U)
    last = cast(datetime, sums["matures_at"].max())
    role: Literal["success", "guardrail"] = "success" if margin is None else "guardrail"
    value_U, treated = sums["value"].to_numpy()[mature_U].astype(float), treated_U[mature_U]
    reason = ""
    if min(mature) < LEAST_USERS:
        reason = (
            f"{signal.name}: {mature[0]:,} of {enrolled[0]:,} users of the control and "
            f"{mature[1]:,} of {enrolled[1]:,} of {arm} are mature, "
            f"an interval needs {LEAST_USERS} in each; all who are enrolled will be by "
            f"{last:%Y-%m-%d}"
        )
    elif reason_of := _too_little(value_U, treated):
        reason = f"{signal.name}: {reason_of}"
    better = "lower" if signal.lower_is_better else "higher"
    effect = None
    if not reason:
        means = compare(
            value_U, treated, None if covariates_UK is None else covariates_UK[mature_U]
        )
        effect = Effect(
            signal.label,
            arm,
            1 - (success_alpha if margin is None else alpha),
            means,
            compare(value_U, treated),
            better,
        )
        if too_skewed := skewness_reason(
            effect.gain,
            effect.gain_over(-(margin or 0.0)),
            users=means.n_control + means.n_treatment,
        ):
            reason, effect = f"{signal.name}: {too_skewed}", None
    standing = "not estimable" if effect is None else standing_of(effect, margin, alpha)
    return Line(
        signal.label, arm, role, margin, enrolled, mature, last, standing, effect, reason, better
    )


def skewness_reason(*contrasts: Contrast, users: int) -> str:
    """Why these contrasts are too skewed for an interval; empty where they are not.

    Args:
        contrasts: all that are read.
        users: mature users of both arms together.
    """
    most = max(abs(contrast.skew) for contrast in contrasts)
    if most <= MOST_SKEW:
        return ""
    needed = math.ceil(users * (most / MOST_SKEW) ** 2)
    return (
        "users' values are too skewed for arms of these sizes: a 95% interval would miss on one "
        f"side in about {percent(one_sided_error(most))} of "
        f"experiments instead of 2.5%, more than {percent(one_sided_error(MOST_SKEW))} is refused; "
        f"about {needed:,} mature users in these shares are enough, or arms of more equal size"
    )


def _too_little(value_U: Float, treated_U: NDArray[np.bool_]) -> str:
    """Why these values do not support an interval; empty where they do.

    With a yes of 5% and 50 users in one arm of two, a t interval finds a difference in 11 of 100
    nulls; with 10 expected in the smaller arm in 6.
    """
    values, counts = np.unique(value_U, return_counts=True)
    other = int(len(value_U) - counts.max())
    smaller = min(int(treated_U.sum()), int((~treated_U).sum()))
    if other / len(value_U) * smaller < LEAST_OTHERS:
        common = number(float(values[counts.argmax()]))
        return (
            f"only {other:,} of {len(value_U):,} mature users have anything but {common}; "
            f"an interval needs {LEAST_OTHERS} of them to be expected in the smaller arm"
        )
    if np.ptp(value_U[treated_U]) == 0 and np.ptp(value_U[~treated_U]) == 0:
        return "within each arm all users have the same value, so nothing is known of the error"
    return ""


def _by_arm(treated_U: NDArray[np.bool_], mask_U: NDArray[np.bool_]) -> tuple[int, int]:
    return int((mask_U & ~treated_U).sum()), int((mask_U & treated_U).sum())


def _rate(times: pl.Series, now: datetime) -> float:
    """New users per week at present: of the last seven days, or of the time so far where that is
    shorter."""
    days = min((now - cast(datetime, times.min())).total_seconds() / 86_400, 7.0)
    return float((times >= now - timedelta(days=days)).sum()) * 7.0 / days if days > 0 else 0.0
