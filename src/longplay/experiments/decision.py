"""The decision rule, and the users and weeks that would settle an open experiment."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from longplay.display import number, percent, percent_and_ends
from longplay.experiments.enrolment import Check
from longplay.experiments.power import MOST_WEEKS, detectable, users_needed
from longplay.experiments.readout import Effect, Line, ShipDecision, Standing
from longplay.experiments.shipping import power_of_each


@dataclass(frozen=True)
class Terms:
    """The terms of the decision, fixed before the data is looked at.

    Attributes:
        alpha: two-sided, of guardrails and of deterioration.
        success_alpha: of one success metric of one treatment.
        power: of finding what is to be found in every metric that must pass, shared out.
        minimum_effect: relative.
        as_of: of the look.
        last: when the last user of control and treatment came.
        rate: how many come a week by now.
    """

    alpha: float
    success_alpha: float
    power: float
    minimum_effect: float
    as_of: datetime
    last: datetime
    rate: float


def standing_of(effect: Effect, margin: float | None, alpha: float) -> Standing:
    """The standing of a line: superior, non-inferior, deteriorates or open.

    deteriorates: the gain lies below 0, two-sided at `alpha`, never at the stricter level of a
    success metric: harm needs no share of alpha. superior: the interval (at the line's own level)
    lies above 0. non-inferior: for a guardrail, a relative loss of the margin lies outside the
    interval. Which way is a gain the signal says.
    """
    if effect.gain.interval(1 - alpha)[1] < 0:
        return "deteriorates"
    if margin is not None:
        return "non-inferior" if effect.gain_over(-margin).interval(effect.level)[0] > 0 else "open"
    return "superior" if effect.gain.interval(effect.level)[0] > 0 else "open"


def decide(arm: str, lines: Sequence[Line], checks: Sequence[Check], terms: Terms) -> ShipDecision:
    """Ship if and only if the checks pass, nothing deteriorates, some success metric is superior
    and every guardrail non-inferior.

    The rule of Schultzberg, Ankargren & Franberg (2024). That nothing deteriorates is not known
    while some line is not estimable: then nothing ships. Otherwise do not ship where that is known
    (a check fails, something deteriorates, or no success metric can still gain `minimum_effect`),
    else keep running.
    """
    failed = [f"{check.name}: {check.words}" for check in checks if check.fails]
    if failed:
        return ShipDecision(
            arm, "do not ship", "the experiment cannot be trusted; " + "; ".join(failed)
        )
    worse = [
        f"{line.name} deteriorates ({_size(line.effect)})"
        for line in lines
        if line.standing == "deteriorates" and line.effect is not None
    ]
    if worse:
        return ShipDecision(arm, "do not ship", "; ".join(worse))
    success = [line for line in lines if line.role == "success"]
    guardrails = [line for line in lines if line.role == "guardrail"]
    better = [line for line in success if line.standing == "superior"]
    open_guardrails = [line for line in guardrails if line.standing != "non-inferior"]
    unknown = [line for line in success if line.effect is None]
    if better and not open_guardrails and not unknown:
        gains = "; ".join(
            f"{line.name} is superior ({_size(line.effect)})"
            for line in better
            if line.effect is not None
        )
        held = ", ".join(
            f"{line.name} {'rises' if line.better == 'lower' else 'loses'} less than "
            f"{percent(line.margin or 0)}"
            for line in guardrails
        )
        return ShipDecision(arm, "ship", f"{gains}{'; ' + held if held else ''}")
    hopeful = [line for line in success if not _hopeless(line, terms.minimum_effect)]
    if not better and not hopeful:
        what = ", ".join(line.name for line in success)
        return ShipDecision(
            arm,
            "do not ship",
            f"no gain of {percent(terms.minimum_effect)} is left for {what} ({_bounds(success)})",
        )
    power = power_of_each(terms.power, terms.alpha, lines=len(lines), guardrails=len(guardrails))
    return _keep_running(arm, unknown if better else hopeful, open_guardrails, power, terms)


def _keep_running(
    arm: str, success: list[Line], guardrails: list[Line], power: float, terms: Terms
) -> ShipDecision:
    """The decision to keep running: what is open, what can be detected now, and what would settle
    it."""
    reasons = []
    needs = []
    for line in [*success, *guardrails]:
        if line.effect is None:
            reasons.append(line.reason)
            continue
        alpha = terms.success_alpha if line.margin is None else terms.alpha
        target = terms.minimum_effect if line.margin is None else line.margin
        harm = "rise" if line.better == "lower" else "loss"
        state = f"the interval of {line.name} holds 0"
        if line.margin is not None:
            state = f"a {harm} of {percent(line.margin)} of {line.name} is not ruled out"
        need = _needs(line.effect, target, alpha, power)
        if need is None:
            reasons.append(f"{state}; its mean is too close to 0 for a relative effect")
            continue
        sees, users = need
        mature = sum(line.mature)
        reasons.append(
            f"{state}; {mature:,} mature users can tell {percent(sees)}, {percent(target)} needs "
            f"about {users:,} users"
        )
        if (
            users <= mature
            # they have matured, and it is open all the same: the truth lies between what was looked
            # for
            # and nothing
        ):
            users = _settles(line.effect, line.margin, terms.minimum_effect)
            reasons.append(
                f"that many have matured; were the estimate to stay as it is, about {users:,} "
                "would settle it"
            )
        needs.append((line, users))
    # one success metric is enough, every guardrail must hold
    one_of = [need for need in needs if need[0].role == "success"]
    wanted = ([min(one_of, key=lambda need: need[1])] if one_of else []) + [
        need for need in needs if need[0].role == "guardrail"
    ]
    is_complete = len(wanted) == (1 if success else 0) + len(guardrails)
    users = max((users for _, users in wanted), default=None) if is_complete else None
    weeks = None
    if wanted and users is not None:
        line = max(wanted, key=lambda need: need[1])[0]
        weeks = _further_weeks(line, users, terms)
        come = sum(line.enrolled)
        if users <= come:
            reasons.append(
                f"{come:,} are enrolled: they will all have matured by {line.matures:%Y-%m-%d}"
            )
        elif weeks is None:
            reasons.append(
                f"more than come within two years ({come:,} so far, now {number(terms.rate)} a "
                "week)"
            )
        else:
            reasons.append(f"some {math.ceil(weeks)} more weeks")
    waiting = [
        line
        for line in [*success, *guardrails]
        if line.effect is not None and sum(line.mature) < sum(line.enrolled)
    ]
    if waiting and (users is None or users > sum(waiting[0].enrolled)):
        last = max(line.matures for line in waiting)
        reasons.append(f"the users enrolled so far will all have matured by {last:%Y-%m-%d}")
    return ShipDecision(arm, "keep running", "; ".join(reasons), users, weeks)


def _needs(effect: Effect, target: float, alpha: float, power: float) -> tuple[float, int] | None:
    """The relative effect that is detectable now, and the users needed to detect `target`.

    Null where the control's mean is too near 0 for a relative effect.

    Never the power at the effect seen, which says no more than the p-value does (Hoenig & Heisey
    2001).
    """
    if effect.relative is None:
        return None
    means = effect.means
    n = means.n_control + means.n_treatment
    share = means.n_treatment / n
    std = means.contrast().std_error * math.sqrt(n * share * (1 - share))
    sees = detectable(std, n, alpha=alpha, power=power, share=share) / means.control
    return sees, users_needed(std, target * means.control, alpha=alpha, power=power, share=share)


def _settles(effect: Effect, margin: float | None, minimum_effect: float) -> int:
    """Mature users at which the interval, shrunk around the estimate as it is, would leave one of
    the two bounds it holds.

    For a success metric these are no difference and the minimum effect; for a guardrail no
    difference and its margin.
    """
    n = effect.means.n_control + effect.means.n_treatment
    bounds = (
        effect.gain_over(0.0),
        effect.gain_over(minimum_effect if margin is None else -margin),
    )
    halves = [(bound.interval(effect.level)[1] - bound.value, abs(bound.value)) for bound in bounds]
    return math.ceil(n * min((half / away) ** 2 for half, away in halves if away > 0))


def _further_weeks(line: Line, users: int, terms: Terms) -> float | None:
    """Weeks from now until so many users are mature, at the present rate of enrolment."""
    week = 7 * 86_400
    come = sum(line.enrolled)
    if users <= come:
        return max((line.matures - terms.as_of).total_seconds() / week, 0.0)
    weeks = (
        (users - come) / terms.rate + (line.matures - terms.last).total_seconds() / week
        if terms.rate > 0
        else math.inf
    )
    return weeks if weeks <= MOST_WEEKS else None


def _hopeless(line: Line, minimum_effect: float) -> bool:
    """Whether even the upper end of the interval gains less than the minimum effect."""
    return (
        line.effect is not None
        and line.effect.gain_over(minimum_effect).interval(line.effect.level)[1] < 0
    )


def _size(effect: Effect) -> str:
    relative = effect.relative
    ends = effect.relative_interval
    if relative is None or ends is None:
        return str(effect.difference)
    return ", ".join(percent_and_ends(relative.value, *ends))


def _bounds(lines: Sequence[Line]) -> str:
    """How large a gain can be at most, per success metric."""
    words = []
    for line in lines:
        ends = None if line.effect is None else line.effect.relative_interval
        if ends is None:
            words.append("at most 0")
        elif line.better == "lower":
            words.append(f"at least {percent(ends[0], signed=True)}")
        else:
            words.append(f"at most {percent(ends[1], signed=True)}")
    return ", ".join(words)
