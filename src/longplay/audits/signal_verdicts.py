"""From the differences of one signal to its verdict: what is missing, what follows, and how many
users would settle what is open."""

from __future__ import annotations

import math
from collections.abc import Sequence

from longplay.audits.differences import EarlyDifferences
from longplay.audits.judgement import covariance_of, judgement_of
from longplay.audits.verdicts import Verdict
from longplay.display import value_and_ends
from longplay.estimate import Estimate
from longplay.experiments.enrolment import LEAST_USERS
from longplay.experiments.readout import Line
from longplay.experiments.statistics import Contrast, Means, ratio
from longplay.signals.signal import Signal

MOST_USERS = 10**9  # no experiment has more users than this


def verdict_on(
    signal: Signal,
    differences: EarlyDifferences,
    late: Line,
    star: Line,
    age: int,
    margin: float,
    level: float,
) -> Verdict:
    """The verdict on a signal: judged where all figures are there, else undecided with what is
    missing.

    Args:
        signal: what is audited.
        differences: of the beliefs.
        late: the experiment's line of the signal.
        star: the experiment's line of the north star.
        age: days of each entry that the beliefs had seen.
        margin: least relative gain of the north star worth having.
        level: of the intervals, in (0, 1).
    """
    early = _estimate(differences.early, f"as believed at entry age {age} days", late)
    gap = _estimate(differences.gap, "believed minus matured", late)
    if (
        differences.early is None
        or differences.gap is None
        or late.effect is None
        or star.effect is None
    ):
        return Verdict(
            signal.label,
            early,
            _difference(late),
            _difference(star),
            "unknown",
            "undecided",
            "; ".join(_missing(signal, differences, late, star, age)),
        )
    believed = differences.early.contrast()
    matured = late.effect.means.contrast()
    apart = differences.gap.contrast()
    rose = "rose"
    fell = "fell"
    if signal.lower_is_better:
        believed = -believed
        matured = -matured
        apart = -apart
        rose = "fell"
        fell = "rose"
    # the north star moves with itself: of its own early reward only the agreement counts
    is_north_star = signal.label.split("@")[1] == star.signal.split("@")[1]
    if is_north_star:
        gain = matured
        loss = matured
    else:
        gain = star.effect.gain_over(margin)
        loss = star.effect.gain_over(-margin)
    judgement = judgement_of(believed, matured, apart, gain, loss, level, rose, fell)
    difference = late.effect.difference
    reason = judgement.reason
    factor = None
    users = None
    if judgement.agreement == "off by a factor":
        quotient = ratio(matured, believed, covariance_of(believed, matured, apart))
        factor = Estimate(
            quotient.value,
            quotient.std_error,
            difference.n,
            difference.n_eff,
            f"policy: {signal.label}, late / early",
            quotient.df,
        )
        times, ends = value_and_ends(quotient.value, *quotient.interval(level))
        reason += f"; late is {times} times early ({ends})"
    if judgement.open:
        users = users_that_settle(judgement.open, difference.n, level)
        reason += f"; {_need(users)}"
    return Verdict(
        signal.label,
        early,
        difference,
        star.effect.difference,
        judgement.agreement,
        judgement.recommendation,
        reason,
        gap,
        factor,
        users,
    )


def users_that_settle(contrasts: Sequence[Contrast], users: int, level: float) -> int | None:
    """Number of users at which all these intervals would exclude 0 if the estimates stayed the
    same; null beyond `MOST_USERS`.

    Args:
        contrasts: differences whose intervals contain 0 now.
        users: in both arms together now.
        level: of the intervals, in (0, 1).

    >>> users_that_settle([Contrast(1.0, 1.0, 1e9)], 100, 0.95)          # 1.96^2 times as many
    385
    """
    most = 0.0
    for contrast in contrasts:
        if contrast.value == 0:
            return None
        low, high = contrast.interval(level)
        half = (high - low) / 2
        most = max(most, users * (half / contrast.value) ** 2)
    return math.ceil(most) if most <= MOST_USERS else None


def _need(users: int | None) -> str:
    enough = "more than a billion users"
    if users is not None:
        enough = f"about {users:,} users"
    return f"{enough} in these shares would settle it, were the estimates to stay as they are"


def _missing(
    signal: Signal, differences: EarlyDifferences, late: Line, star: Line, age: int
) -> list[str]:
    """Why there is no judgement, each reason once."""
    reasons = [line.reason for line in (late, star) if line.effect is None]
    if differences.reason:
        reasons.append(f"{signal.name}: {differences.reason}")
    elif differences.early is None:
        reasons.append(
            f"{signal.name}: an interval needs {LEAST_USERS} users in each arm whose entries "
            f"are all {age} days old"
        )
    return list(dict.fromkeys(reasons))


def _difference(line: Line) -> Estimate | None:
    return None if line.effect is None else line.effect.difference


def _estimate(means: Means | None, what: str, line: Line) -> Estimate | None:
    """The difference of two arms' means as an estimate; null where there are none."""
    if means is None:
        return None
    contrast = means.contrast()
    users = means.n_control + means.n_treatment
    return Estimate(
        contrast.value,
        contrast.std_error,
        users,
        float(users),
        f"policy: {line.signal} per enrolled user, {what}, {line.arm} minus control",
        contrast.df,
        contrast.skew,
    )
