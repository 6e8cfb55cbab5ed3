"""The differences between the arms that an audit compares: what was believed early of each user,
less what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Self, cast

import numpy as np
import polars as pl
from numpy.typing import NDArray

from longplay.arrays import Float
from longplay.experiments import Experiment
from longplay.experiments.analysis import skewness_reason
from longplay.experiments.enrolment import LEAST_USERS
from longplay.experiments.readout import Line
from longplay.experiments.statistics import Means, compare
from longplay.lake.lake import Lake
from longplay.rewards.early import EarlyReward
from longplay.signals.outcomes.enrolled_sums import closes_at, sums_by_user
from longplay.signals.outcomes.in_memory import outcomes_of
from longplay.signals.signal import Signal


@dataclass(frozen=True)
class ComparedUsers:
    """The enrolled users of the control and of one treatment.

    Attributes:
        experiment: whose users they are.
        view: the log.
        users: one row per user, U rows.
        treated_U: whether each user is in the treatment.
        covariates_UK: what was known of each user before enrolment.
    """

    experiment: Experiment
    view: Lake
    users: pl.DataFrame
    treated_U: NDArray[np.bool_]
    covariates_UK: Float


@dataclass(frozen=True)
class EarlyDifferences:
    """Means per arm of what was believed early, and of early minus late of the same users.

    Attributes:
        early: of the beliefs; null where there are too few users, or their values are too skewed.
        gap: of early minus late; null also while late is immature.
        reason: why they are null, where users' values are too skewed.
    """

    early: Means | None = None
    gap: Means | None = None
    reason: str = ""

    @classmethod
    def of(
        cls,
        early_U: Float,
        late_U: Float | None,
        treated_U: NDArray[np.bool_],
        covariates_UK: Float,
    ) -> Self:
        """Compare the arms.

        Args:
            early_U: sum of each user's beliefs.
            late_U: sum of each user's matured outcomes; null while they are immature.
            treated_U: whether each user is in the treatment.
            covariates_UK: what was known of each user before enrolment.
        """
        early = compare(early_U, treated_U, covariates_UK)
        gap = None if late_U is None else compare(early_U - late_U, treated_U, covariates_UK)
        contrasts = [means.contrast() for means in (early, gap) if means is not None]
        reason = skewness_reason(*contrasts, users=len(early_U))
        if reason:
            return cls(reason=reason)
        return cls(early, gap)


def early_differences(
    model: EarlyReward, late: Line, sums: pl.DataFrame, arms: ComparedUsers, age: int
) -> EarlyDifferences:
    """Compare the arms in what `model` believed of the users' entries at `age` days.

    The users are those who are mature for the signal; while nobody is, those whose entries are old
    enough.

    Args:
        model: the early reward.
        late: the experiment's line of the model's signal.
        sums: the signal's sum per user, from `enrolled_sums`, U rows.
        arms: the users of both arms.
        age: days of each entry that the model may have seen.
    """
    if late.effect is not None:
        compared_U = sums["value"].is_not_null().to_numpy()
    else:
        old_at = old_enough_at(model.signal, arms.users, arms.experiment, age)
        compared_U = (old_at <= arms.view.watermark).to_numpy()
    treated_U = arms.treated_U[compared_U]
    if min(np.bincount(treated_U, minlength=2)) < LEAST_USERS:
        return EarlyDifferences()
    late_U = None
    if late.effect is not None:
        late_U = sums["value"].to_numpy()[compared_U].astype(float)
    users = arms.users.filter(pl.Series(compared_U))
    early_U = believed_sums(model, users, arms.experiment, arms.view, age)
    return EarlyDifferences.of(early_U, late_U, treated_U, arms.covariates_UK[compared_U])


def believed_sums(
    model: EarlyReward, users: pl.DataFrame, experiment: Experiment, lake: Lake, age: int
) -> Float:
    """Sum of each user's beliefs about the entries of the entry window, each at entry age `age`
    days, shape [U].

    The log is read as of the time at which the last user's last possible entry is that old, so
    nothing that happened or arrived later can leak into the beliefs.
    """
    signal = model.signal
    as_of = cast(datetime, old_enough_at(signal, users, experiment, age).max())
    outcomes = outcomes_of(signal, lake.before(as_of), None, users)
    # an entry's own day is day 0, so day `age` is its last complete one
    window_days = min(max(age + 1 - signal.window[0], 0), signal.days)
    belief_N = model.belief(outcomes, window_days).mean
    # entries of unknown creators count 0 early, as they do late
    mean_N = np.where(outcomes.keys.is_null().to_numpy(), 0.0, belief_N)
    return sums_by_user(outcomes.frame, mean_N, users, experiment.entry_days)


def old_enough_at(
    signal: Signal, users: pl.DataFrame, experiment: Experiment, age: int
) -> pl.Series:
    """Time at which each user's last possible entry is `age` complete days old, or its window
    closes."""
    return closes_at(signal, users, experiment.entry_days, min(age, signal.window[1]) + 1)
