"""Audit of an early reward: its estimates of an experiment at day 7, against what matured, against
the north star."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from html import escape
from typing import Any, Literal, Self, cast

import numpy as np
import polars as pl
from numpy.typing import NDArray

from longplay.arrays import Float
from longplay.display import html_table, interval, number, percent, text_table
from longplay.errors import ConfigError
from longplay.estimate import Estimate
from longplay.experiments import Experiment
from longplay.experiments.analysis import line_of, skewness_reason
from longplay.experiments.enrolment import LEAST_USERS, analysed, covariates_of, quality_of
from longplay.experiments.readout import Line
from longplay.experiments.statistics import Contrast, Means, compare, ratio
from longplay.lake.lake import Lake
from longplay.progress import Progress, reporting
from longplay.rewards.early import EarlyReward
from longplay.signals.outcomes.enrolled_sums import closes_at, enrolled_sums, sums_by_user
from longplay.signals.outcomes.in_memory import outcomes_of
from longplay.signals.signal import Signal

Recommendation = Literal["keep", "reweight", "drop", "undecided"]
Agreement = Literal["agrees", "off by a factor", "opposite", "differs", "unknown"]

# early and late agree where neither is surely more than this much larger than the other: nobody
# reweights for less
TOLERANCE = 0.25
FOLLOWS = 0.5  # late follows early unless it is surely less than this share of it
MOST_USERS = 10**9  # beyond this many no experiment is run

_ESTIMATES = ("early", "late", "north_star", "gap", "factor")
_HEAD = ("signal", "early", "late", "north star", "early and late", "recommendation")


@dataclass(frozen=True)
class Verdict:
    """What an experiment says of one signal's early reward. Differences are treatment minus control
    per enrolled user.

    Attributes:
        signal: label, `name@version`.
        early: of the beliefs at the given age; null where not everybody asked is that old yet.
        late: of the matured outcomes of the same users; null while they are immature.
        north_star: effect on the north star; null while immature.
        agreement: of early and late; see `judge`.
        recommendation: keep, reweight, drop or undecided, with the reason in words.
        reason: why, in words.
        gap: early minus late, of the paired differences per user.
        factor: late / early, where early is off by a factor: what to multiply the signal's weight
            with.
        users: how many would settle what is undecided, in both arms, were the estimates to stay as
            they are; null where it is not undecided for want of users.
    """

    signal: str
    early: Estimate | None
    late: Estimate | None
    north_star: Estimate | None
    agreement: Agreement
    recommendation: Recommendation
    reason: str
    gap: Estimate | None = None
    factor: Estimate | None = None
    users: int | None = None

    def _estimates(self) -> dict[str, Estimate | None]:
        return {
            "early": self.early,
            "late": self.late,
            "north_star": self.north_star,
            "gap": self.gap,
            "factor": self.factor,
        }

    def as_json(self) -> dict[str, Any]:
        """Plain values for the run folder."""
        return self._words() | {
            name: None if estimate is None else estimate.as_json()
            for name, estimate in self._estimates().items()
        }

    def as_toml(self) -> dict[str, Any]:
        """Plain values for `Audit.to_toml`; of an estimate those that differ from its defaults."""
        return self._words() | {
            name: None if estimate is None else _without_defaults(estimate)
            for name, estimate in self._estimates().items()
        }

    def _words(self) -> dict[str, Any]:
        return {
            "signal": self.signal,
            "agreement": self.agreement,
            "recommendation": self.recommendation,
            "reason": self.reason,
            "users": self.users,
        }


@dataclass(frozen=True)
class Audit:
    """One verdict per signal; prints as a table. `to_toml` is the file that goes back to whoever
    weighs the signals.

    Attributes:
        experiment: what was tried.
        arm: what was tried.
        north_star: label.
        margin: least relative gain worth having.
        age: whole days since each entry's day that the early reward had seen.
        level: of all intervals.
        as_of: what was known.
        verdicts: one per signal.
    """

    experiment: str
    arm: str
    north_star: str
    margin: float
    age: int
    level: float
    as_of: datetime
    verdicts: tuple[Verdict, ...]

    def __str__(self) -> str:
        reasons = [
            f"{verdict.signal.split('@')[0]}: {verdict.recommendation}: {verdict.reason}"
            for verdict in self.verdicts
        ]
        return "\n".join([self._title(), text_table(_HEAD, self._rows()), *reasons])

    def _repr_html_(self) -> str:
        reasons = "".join(
            f"<li><b>{escape(verdict.recommendation)}</b> {escape(verdict.signal)}: "
            f"{escape(verdict.reason)}</li>"
            for verdict in self.verdicts
        )
        return f"<p>{escape(self._title())}</p>{html_table(_HEAD, self._rows())}<ul>{reasons}</ul>"

    def as_json(self) -> dict[str, Any]:
        """Plain values for the run folder and the report."""
        return {
            **self._terms(),
            "as_of": self.as_of.isoformat(),
            "verdicts": [verdict.as_json() for verdict in self.verdicts],
        }

    def to_toml(self) -> str:
        """The audit as TOML: a table `[audit]` and one `[[verdicts]]` per signal; `from_toml` reads
        it back."""
        lines = [
            "[audit]",
            *(f"{key} = {_toml(value)}" for key, value in self._terms().items()),
            f"as_of = {self.as_of.isoformat()}",
        ]
        for verdict in self.verdicts:
            lines += [
                "",
                "[[verdicts]]",
                *(
                    f"{key} = {_toml(value)}"
                    for key, value in verdict.as_toml().items()
                    if value is not None
                ),
            ]
        return "\n".join(lines) + "\n"

    @classmethod
    def from_toml(cls, text: str) -> Self:
        """The audit that `to_toml` wrote.

        Raises:
            ConfigError: not TOML, or not an audit.
        """
        try:
            tables = tomllib.loads(text)
            return cls(
                **tables["audit"],
                verdicts=tuple(_verdict(row) for row in tables.get("verdicts", [])),
            )
        except (tomllib.TOMLDecodeError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"audit: not a file that Audit.to_toml wrote: {error}") from error

    def _terms(self) -> dict[str, Any]:
        return {
            name: getattr(self, name)
            for name in ("experiment", "arm", "north_star", "margin", "age", "level")
        }

    def _title(self) -> str:
        return (
            f"audit of {self.experiment}, {self.arm} against control, at "
            f"{self.as_of:%Y-%m-%d %H:%M}: beliefs at entry age {self.age} days, matured "
            f"outcomes of the same users, north star {self.north_star} "
            f"({percent(self.margin, signed=True)} is worth having)"
        )

    def _rows(self) -> list[list[str]]:
        def cell(estimate: Estimate | None) -> str:
            if estimate is None:
                return "-"
            return f"{number(estimate.value)} ({interval(*estimate.interval(self.level))})"

        return [
            [
                row.signal.split("@")[0],
                cell(row.early),
                cell(row.late),
                cell(row.north_star),
                row.agreement,
                row.recommendation,
            ]
            for row in self.verdicts
        ]


def audit(
    early: EarlyReward | Mapping[Signal, EarlyReward],
    experiment: Experiment,
    lake: Lake,
    *,
    north_star: Signal,
    signals: Sequence[Signal] | None = None,
    margin: float = 0.01,
    age: int = 7,
    alpha: float = 0.05,
    treatment: str | None = None,
    as_of: datetime | None = None,
    progress: Progress = None,
) -> Audit:
    """Check whether `early` was right about an experiment, and whether the signal mattered to the
    north star.

    For each signal three differences between treatment and control per enrolled user, adjusted for
    the same covariates: early, the sums of the beliefs that `early` held of the users' entries in
    the entry window when each entry was `age` days old; late, the sums of their matured outcomes;
    and the experiment's own estimate of the north star. Early and late are of the same users, those
    who are mature for the signal (while nobody is, early is of those who are old enough). Beliefs are
    asked through `lake.before` the moment at which the last possible entry of the last of these
    users is `age` days old, so nothing later can leak into them. The std errors are those of users,
    not of the fit of `early`: that is what the comparison with late is for.

    `judge` says what follows.

    Args:
        early: one early reward or {signal: early reward}, fitted on what was known before the
            experiment.
        experiment: the experiment whose users are looked at.
        lake: the log, the experiment's weeks included.
        north_star: what all signals are meant to move, e.g. active days from enrolment.
        signals: which to audit; default all that `early` has.
        margin: least gain of the north star worth having, relative to the control's mean.
        age: whole days since the entry's own day: of a window from day 1 on the belief has seen
            `age` days, of one from day 30 on none.
        alpha: two-sided, of every interval.
        treatment: the arm; default the only one.
        as_of: UTC; default the lake's watermark.
        progress: called with (signals audited, signals); True or False: a line that says how far it
            is, or none; default: a line on a terminal or in a notebook.

    Raises:
        ConfigError: a signal without early reward, an unknown arm, a margin outside [0, 1).
        DataError: the lake has no decision of the experiment, or cannot answer a signal.
    """
    models = _models(early, signals)
    arm = _arm(experiment, treatment)
    if not 0 <= margin < 1 or not 0 < alpha < 1:
        raise ConfigError(
            f"audit: margin={margin}, alpha={alpha} given, expected a relative gain in [0, 1) and "
            "a level in (0, 1)"
        )
    if not isinstance(age, int) or age < 0:
        raise ConfigError(f"audit: age={age!r} given, expected whole days >= 0")
    view = lake if as_of is None else lake.before(as_of)
    with reporting("audit", "signals", progress) as tell:
        return _audit(models, experiment, arm, view, north_star, margin, age, alpha, tell)


def _audit(
    models: Mapping[Signal, EarlyReward],
    experiment: Experiment,
    arm: str,
    view: Lake,
    north_star: Signal,
    margin: float,
    age: int,
    alpha: float,
    tell: Callable[..., None],
) -> Audit:
    """See `audit`; its arguments have been checked."""
    everybody = experiment.enrolled(view)
    distrusted = "; ".join(
        f"{check.name}: {check.words}" for check in quality_of(experiment, everybody) if check.fails
    )
    users = analysed(experiment, everybody).filter(
        pl.col("arm").is_in([experiment.arm_names[0], arm])
    )
    treated_U = (users["arm"] == arm).to_numpy()
    covariates_UK = covariates_of(view, users)
    all_sums = enrolled_sums([north_star, *models], view, users, entry_days=experiment.entry_days)
    star = line_of(
        north_star,
        all_sums[north_star],
        treated_U,
        covariates_UK,
        arm,
        None,
        alpha,
        alpha,
    )
    verdicts = []
    for signal, model in models.items():
        sums = all_sums[signal]
        late = line_of(signal, sums, treated_U, covariates_UK, arm, None, alpha, alpha)
        if late.effect:
            compared_U = sums["value"].is_not_null().to_numpy()
        else:
            compared_U = (_old_enough(signal, users, experiment, age) <= view.watermark).to_numpy()
        contrasts = _Differences(None, None)
        if min(np.bincount(treated_U[compared_U], minlength=2)) >= LEAST_USERS:
            value_U = sums["value"].to_numpy()[compared_U].astype(float) if late.effect else None
            early_U = believed_sums(
                model, users.filter(pl.Series(compared_U)), experiment, view, age
            )
            contrasts = _Differences.of(
                early_U, value_U, treated_U[compared_U], covariates_UK[compared_U]
            )
        verdict = _verdict_on(signal, contrasts, late, star, age, margin, 1 - alpha)
        if distrusted:
            verdict = replace(
                verdict,
                recommendation="undecided",
                reason=f"the experiment cannot be trusted; {distrusted}",
            )
        verdicts.append(verdict)
        tell(len(verdicts), len(models))
    return Audit(
        experiment.label,
        arm,
        north_star.label,
        margin,
        age,
        1 - alpha,
        view.watermark,
        tuple(verdicts),
    )


@dataclass(frozen=True)
class _Differences:
    """The arms' means of early, and of early minus late of the same users; null where there are too
    few, or late is immature."""

    early: Means | None
    gap: Means | None
    reason: str = ""

    @classmethod
    def of(
        cls,
        early_U: Float,
        late_U: Float | None,
        treated_U: NDArray[np.bool_],
        covariates_UK: Float,
    ) -> Self:
        early = compare(early_U, treated_U, covariates_UK)
        gap = None if late_U is None else compare(early_U - late_U, treated_U, covariates_UK)
        contrasts = [means.contrast() for means in (early, gap) if means is not None]
        if reason := skewness_reason(*contrasts, users=len(early_U)):
            return cls(None, None, reason)
        return cls(early, gap)


def believed_sums(
    model: EarlyReward, users: pl.DataFrame, experiment: Experiment, lake: Lake, age: int
) -> Float:
    """Sum of each user's beliefs about the entries of the entry window, each at entry age `age`
    days, shape [U].

    Nothing is looked at that happened or arrived after the last user's last possible entry was that
    old.
    """
    signal = model.signal
    then = cast(datetime, _old_enough(signal, users, experiment, age).max())
    outcomes = outcomes_of(signal, lake.before(then), None, users)
    # an entry's own day is day 0, so day `age` is its last whole one
    window_days = min(max(age + 1 - signal.window[0], 0), signal.days)
    # about nothing: late counts 0
    mean_N = np.where(
        outcomes.keys.is_null().to_numpy(), 0.0, model.belief(outcomes, window_days).mean
    )
    return sums_by_user(outcomes.frame, mean_N, users, experiment.entry_days)


@dataclass(frozen=True)
class Judgement:
    """The conclusion from the differences of an audit.

    Attributes:
        agreement: of early and late.
        recommendation: keep, reweight, drop or undecided.
        reason: in words.
        open: differences whose intervals would have to leave 0; empty where nothing is open.
    """

    agreement: Agreement
    recommendation: Recommendation
    reason: str
    open: tuple[Contrast, ...] = ()


def judge(
    early: Contrast, late: Contrast, gap: Contrast, gain: Contrast, loss: Contrast, level: float
) -> tuple[Agreement, Recommendation, str]:
    """Decide agreement, recommendation and reason; see `judgement_of`."""
    judgement = judgement_of(early, late, gap, gain, loss, level)
    return judgement.agreement, judgement.recommendation, judgement.reason


def judgement_of(
    early: Contrast,
    late: Contrast,
    gap: Contrast,
    gain: Contrast,
    loss: Contrast,
    level: float,
    rose: str = "rose",
    fell: str = "fell",
) -> Judgement:
    """Decide what follows from five differences and their intervals at `level`. Nothing is kept,
    reweighted or dropped without evidence.

    Args:
        early: of the signal, above 0 where it got better.
        late: of the signal, above 0 where it got better.
        gap: early minus late, paired.
        gain: of the north star over its margin, treatment - (1 + margin) control: above 0 where it
            gained what is worth having.
        loss: treatment - (1 - margin) control: below 0 where the north star lost as much.
        level: of the intervals, in (0, 1).
        rose: what the signal does where it gets better and worse.
        fell: what the signal does where it gets better and worse.

    Agreement, in this order: early's interval holds 0: "differs" (it saw nothing, or is too noisy);
    early and late lie on different sides of 0: "opposite"; late's interval holds 0: "differs"; the
    gap's holds 0, or late / early surely lies within a factor of 1 + `TOLERANCE` of 1: "agrees"; it
    surely lies beyond: "off by a factor"; else "differs".

    | late    | north star                | early and late   | recommendation   | because                             |
    |---------|---------------------------|------------------|------------------|-------------------------------------|
    | holds 0 | any                       | any              | undecided        | the trial did not move the signal   |
    | rose    | spans +margin             | any              | undecided        | it is not known whether it mattered |
    | rose    | below +margin             | any              | drop             | it can rise without the north star  |
    | rose    | above +margin             | agrees           | keep             | early was right, and it mattered    |
    | rose    | above +margin             | off by a factor  | reweight         | right direction, wrong size: factor |
    | rose    | above +margin             | opposite         | drop             | early would have stopped a gain     |
    | rose    | above +margin             | differs          | undecided        | early is too noisy, or saw nothing  |
    | fell    | spans -margin             | any              | undecided        | it is not known whether it mattered |
    | fell    | above -margin, or it rose | any              | drop             | it can fall without the north star  |
    | fell    | below -margin             | as where it rose | as where it rose | they fell together                  |

    What this leaves undecided is dropped where it is a false alarm: early's interval lies off 0,
    late is surely less than half of early and not on its side, and the north star surely fell short
    of its margin on that side. A signal that fell while the north star rose is dropped, not given a
    negative weight: one trial shows that it can be given up, not that pushing it down would help.
    Of the north star's own early reward only the agreement is asked. Where late or the north star
    is immature the caller says undecided.
    """
    agreement, unsure = _agreement(early, late, gap, level)
    early_side = _side(early, level)
    late_side = _side(late, level)
    star = loss if late_side < 0 else gain
    star_side = -_side(loss, level) if late_side < 0 else _side(gain, level)
    if (late_side == 0 or star_side == 0) and _false_alarm(early, late, gap, gain, loss, level):
        words = (
            f"a false alarm: early certainly {rose if early_side > 0 else fell}, late and the "
            "north "
            "star certainly did not follow"
        )
        return Judgement(agreement, "drop", words)
    if late_side == 0:
        return Judgement(
            agreement,
            "undecided",
            "the trial did not move the signal: its late interval holds 0",
            (late,),
        )
    movement, star_verb = (rose, "gained") if late_side > 0 else (fell, "lost")
    if star_side == 0:
        words = (
            f"it {movement}, but whether the north star {star_verb} its margin is not known: the "
            "interval spans it"
        )
        return Judgement(agreement, "undecided", words, (star, *unsure))
    if star_side < 0:
        return Judgement(
            agreement,
            "drop",
            f"it {movement} while the north star certainly {star_verb} less than its margin: it "
            "can be "
            "moved without it",
        )
    signal_and_star = f"it {movement} and the north star {star_verb} its margin"
    if agreement == "agrees":
        factor = f"{1 + TOLERANCE:g}"
        return Judgement(
            agreement,
            "keep",
            f"{signal_and_star}; early and late agree, up to their errors or a factor of {factor}",
        )
    if agreement == "off by a factor":
        return Judgement(agreement, "reweight", f"{signal_and_star}, but early was off by a factor")
    if agreement == "opposite":
        return Judgement(
            agreement,
            "drop",
            f"{signal_and_star}, but early pointed the other way: as a reward it would have led "
            "astray",
        )
    if early_side == 0:
        return Judgement(
            agreement,
            "undecided",
            f"{signal_and_star}, but early did not see it: too noisy at this age, or blind to it",
            unsure,
        )
    return Judgement(
        agreement,
        "undecided",
        f"{signal_and_star}, but by what factor early is off is not known well enough",
        unsure,
    )


def _verdict_on(
    signal: Signal,
    contrasts: _Differences,
    late: Line,
    star: Line,
    age: int,
    margin: float,
    level: float,
) -> Verdict:
    """The verdict on a signal, or undecided with what is missing."""
    early = _estimate(contrasts.early, f"as believed at entry age {age} days", late)
    gap = _estimate(contrasts.gap, "believed minus matured", late)
    if (
        contrasts.early is None
        or contrasts.gap is None
        or late.effect is None
        or star.effect is None
    ):
        missing = [line.reason for line in (late, star) if line.effect is None]
        if contrasts.reason:
            missing.append(f"{signal.name}: {contrasts.reason}")
        elif contrasts.early is None:
            missing.append(
                f"{signal.name}: an interval needs {LEAST_USERS} users in each arm whose entries "
                f"are all {age} days old"
            )
        matured, moved = (line.effect.difference if line.effect else None for line in (late, star))
        return Verdict(
            signal.label,
            early,
            matured,
            moved,
            "unknown",
            "undecided",
            "; ".join(dict.fromkeys(missing)),
        )
    believed = contrasts.early.contrast()
    matured = late.effect.means.contrast()
    apart = contrasts.gap.contrast()
    rose = "rose"
    fell = "fell"
    if signal.lower_is_better:
        believed = -believed
        matured = -matured
        apart = -apart
        rose = "fell"
        fell = "rose"
    # of the north star itself it is only asked whether early agrees: it moved with itself, by
    # whatever it moved
    itself = signal.label.split("@")[1] == star.signal.split("@")[1]
    if itself:
        gain = matured
        loss = matured
    else:
        gain = star.effect.gain_over(margin)
        loss = star.effect.gain_over(-margin)
    judgement = judgement_of(believed, matured, apart, gain, loss, level, rose, fell)
    reason = judgement.reason
    factor = None
    users = None
    n = late.effect.difference.n
    if judgement.agreement == "off by a factor":
        times = ratio(matured, believed, _covariance(believed, matured, apart))
        factor = Estimate(
            times.value,
            times.std_error,
            n,
            late.effect.difference.n_eff,
            f"policy: {signal.label}, late / early",
            times.df,
        )
        reason += (
            f"; late is {number(times.value)} times early ({interval(*times.interval(level))})"
        )
    if judgement.open:
        users = _users_that_settle(judgement.open, n, level)
        enough = "more users than can be named" if users is None else f"about {users:,} users"
        reason += (
            f"; {enough} in these shares would settle it, were the estimates to stay as they are"
        )
    estimates = early, late.effect.difference, star.effect.difference
    return Verdict(
        signal.label,
        *estimates,
        judgement.agreement,
        judgement.recommendation,
        reason,
        gap,
        factor,
        users,
    )


def _agreement(
    early: Contrast, late: Contrast, gap: Contrast, level: float
) -> tuple[Agreement, tuple[Contrast, ...]]:
    """Whether early and late agree, and which differences leave it open."""
    early_side = _side(early, level)
    late_side = _side(late, level)
    if early_side == 0:
        return "differs", (early,)
    if late_side == 0:
        return "differs", (late,)
    if early_side != late_side:
        return "opposite", ()
    if _side(gap, level) == 0:
        return "agrees", ()
    most = 1 + TOLERANCE
    # above 0 on their side: beyond the tolerance
    apart = [
        _less(late, early, most, gap),
        _less(early, late, most, gap),
    ]
    sides = [_side(contrast, level) * early_side for contrast in apart]
    if max(sides) > 0:
        return "off by a factor", ()
    if max(sides) < 0:  # both surely within
        return "agrees", ()
    return "differs", tuple(contrast for contrast, side in zip(apart, sides) if side == 0)


def _false_alarm(
    early: Contrast, late: Contrast, gap: Contrast, gain: Contrast, loss: Contrast, level: float
) -> bool:
    """Whether early certainly moved, late certainly moved less than half as much, and the north
    star certainly missed its margin on early's side."""
    early_side = _side(early, level)
    if early_side == 0 or _side(late, level) == early_side:
        return False
    star_short = _side(gain, level) < 0 if early_side > 0 else _side(loss, level) > 0
    return star_short and _side(_less(late, early, FOLLOWS, gap), level) == -early_side


def _less(contrast: Contrast, other: Contrast, times: float, gap: Contrast) -> Contrast:
    """The contrast minus `times` times the other, for early and late in either order."""
    variance = (
        contrast.std_error**2
        + times**2 * other.std_error**2
        - 2 * times * _covariance(contrast, other, gap)
    )
    return Contrast(
        contrast.value - times * other.value,
        math.sqrt(max(variance, 0.0)),
        min(contrast.df, other.df),
    )


def _covariance(early: Contrast, late: Contrast, gap: Contrast) -> float:
    """Covariance of early and late, from the error of their paired gap."""
    return (early.std_error**2 + late.std_error**2 - gap.std_error**2) / 2


def _users_that_settle(contrasts: tuple[Contrast, ...], users: int, level: float) -> int | None:
    """Number of users at which all these intervals would exclude 0 if the estimates stayed. Null
    beyond a billion."""
    most = 0.0
    for contrast in contrasts:
        low, high = contrast.interval(level)
        if contrast.value == 0:
            return None
        most = max(most, users * ((high - low) / 2 / contrast.value) ** 2)
    return math.ceil(most) if most <= MOST_USERS else None


def _side(contrast: Contrast, level: float) -> int:
    """1 where the interval lies above 0, -1 where it lies below, 0 where it contains 0."""
    low, high = contrast.interval(level)
    return int(low > 0) - int(high < 0)


def _estimate(means: Means | None, what: str, line: Line) -> Estimate | None:
    if means is None:
        return None
    contrast = means.contrast()
    n = means.n_control + means.n_treatment
    estimand = f"policy: {line.signal} per enrolled user, {what}, {line.arm} minus control"
    return Estimate(
        contrast.value, contrast.std_error, n, float(n), estimand, contrast.df, contrast.skew
    )


def _old_enough(signal: Signal, users: pl.DataFrame, experiment: Experiment, age: int) -> pl.Series:
    """Time at which each user's last possible entry is `age` whole days old, or its window
    closes."""
    return closes_at(signal, users, experiment.entry_days, min(age, signal.window[1]) + 1)


def _models(
    early: EarlyReward | Mapping[Signal, EarlyReward], signals: Sequence[Signal] | None
) -> dict[Signal, EarlyReward]:
    models = dict(early) if isinstance(early, Mapping) else {early.signal: early}
    for signal, model in models.items():
        if model.signal.version != signal.version:
            raise ConfigError(
                f"audit: an early reward of {model.signal.label} is given for {signal.label}; "
                "expected one of that signal"
            )
    by_version = {signal.version: signal for signal in models}
    wanted = list(models) if signals is None else list(signals)
    for signal in wanted:
        if signal.version not in by_version:
            raise ConfigError(
                f"audit: no early reward of {signal.label}; given "
                f"{', '.join(signal.label for signal in models)}"
            )
    if not wanted:
        raise ConfigError("audit: no signal given, expected at least one with an early reward")
    return {signal: models[by_version[signal.version]] for signal in wanted}


def _arm(experiment: Experiment, treatment: str | None) -> str:
    if treatment is None and len(experiment.treatments) == 1:
        return experiment.treatments[0]
    if treatment not in experiment.treatments:
        raise ConfigError(
            f"audit: treatment={treatment!r} given, expected one of {', '.join(experiment.treatments)}"
        )
    return treatment


def _verdict(row: Mapping[str, Any]) -> Verdict:
    fields: dict[str, Any] = {
        name: Estimate(**value) if name in _ESTIMATES else value for name, value in row.items()
    }
    return Verdict(**{"early": None, "late": None, "north_star": None, **fields})


def _without_defaults(estimate: Estimate) -> dict[str, Any]:
    return {
        each.name: value
        for each in fields(estimate)
        if (value := getattr(estimate, each.name)) != each.default
    }


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return (
            "{ "
            + ", ".join(
                f"{key} = {_toml(inner)}" for key, inner in cast(dict[str, object], value).items()
            )
            + " }"
        )
    if isinstance(value, float):
        return "nan" if math.isnan(value) else repr(float(value))
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
