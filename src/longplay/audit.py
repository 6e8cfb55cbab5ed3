"""Was the early reward true? What it said of an experiment at day 7, against what matured, against the north star."""

from __future__ import annotations

import json
import math
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from html import escape
from types import ModuleType
from typing import Any, Literal, Self, cast

import numpy as np
import polars as pl
from numpy.typing import NDArray

from longplay.errors import ConfigError
from longplay.estimate import Estimate
from longplay.experiments import Experiment
from longplay.experiments.analysis import line_of
from longplay.experiments.enrolment import LEAST_USERS, covariates_of, quality_of
from longplay.experiments.readout import Line, estimate_json
from longplay.experiments.statistics import Contrast, Means, compare, ratio
from longplay.lake.lake import Lake
from longplay.rewards.early import EarlyReward
from longplay.signals.enrolled import closes_at, enrolled_sums, sums_by_user
from longplay.signals.outcomes import outcomes_of
from longplay.signals.signal import Signal
from longplay.words import html_table, interval, number, percent, text_table

Float = NDArray[np.float64]
Recommendation = Literal["keep", "reweight", "drop", "undecided"]
Agreement = Literal["agrees", "off by a factor", "opposite", "differs", "unknown"]

TOLERANCE = 0.25  # early and late agree while one may be less than this much larger than the other: nobody reweights for less

_ESTIMATES = ("early", "late", "north_star", "gap", "factor")
_HEAD = ("signal", "early", "late", "north star", "early and late", "recommendation")


@dataclass(frozen=True)
class Verdict:
    """What an experiment says of one signal's early reward. Differences are treatment minus control per enrolled user.

    Attributes:
        signal: label, `name@version`. early: of the beliefs at the given age; null where not everybody asked is that old yet.
        late: of the matured outcomes of the same users; null while they are immature.
        north_star: effect on the north star; null while immature.
        agreement: of early and late; see `judge`.
        recommendation: keep, reweight, drop or undecided, with the reason in words.
        gap: early minus late, of the paired differences per user.
        factor: late / early, where early is off by a factor: what to multiply the signal's weight with.
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

    def as_json(self) -> dict[str, Any]:
        """Plain values for the run folder."""
        estimates = {name: estimate_json(getattr(self, name)) for name in _ESTIMATES}
        return {"signal": self.signal, "agreement": self.agreement, "recommendation": self.recommendation, "reason": self.reason, **estimates}


@dataclass(frozen=True)
class Audit:
    """One verdict per signal; prints as a table. `to_toml` is the file that goes back to whoever weighs the signals.

    Attributes:
        experiment, arm: what was tried. north_star: label. margin: least relative gain worth having.
        age: whole days since each entry's day that the early reward had seen. level: of all intervals. as_of: what was known.
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
        reasons = [f"{verdict.signal.split('@')[0]}: {verdict.recommendation}: {verdict.reason}" for verdict in self.verdicts]
        return "\n".join([self._title(), text_table(_HEAD, self._rows()), *reasons])

    def _repr_html_(self) -> str:
        reasons = "".join(
            f"<li><b>{escape(verdict.recommendation)}</b> {escape(verdict.signal)}: {escape(verdict.reason)}</li>" for verdict in self.verdicts
        )
        return f"<p>{escape(self._title())}</p>{html_table(_HEAD, self._rows())}<ul>{reasons}</ul>"

    def as_json(self) -> dict[str, Any]:
        """Plain values for the run folder and the report."""
        return {**self._terms(), "as_of": self.as_of.isoformat(), "verdicts": [verdict.as_json() for verdict in self.verdicts]}

    def to_toml(self) -> str:
        """The audit as TOML: a table `[audit]` and one `[[verdicts]]` per signal; `from_toml` reads it back."""
        lines = ["[audit]", *(f"{key} = {_toml(value)}" for key, value in self._terms().items()), f"as_of = {self.as_of.isoformat()}"]
        for verdict in self.verdicts:
            lines += ["", "[[verdicts]]", *(f"{key} = {_toml(value)}" for key, value in verdict.as_json().items() if value is not None)]
        return "\n".join(lines) + "\n"

    @classmethod
    def from_toml(cls, text: str) -> Self:
        """What `to_toml` wrote.

        Raises:
            ConfigError: not TOML, or not an audit.
        """
        try:
            tables = tomllib.loads(text)
            return cls(**tables["audit"], verdicts=tuple(_verdict(row) for row in tables.get("verdicts", [])))
        except (tomllib.TOMLDecodeError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"audit: not a file that Audit.to_toml wrote: {error}") from error

    def _terms(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("experiment", "arm", "north_star", "margin", "age", "level")}

    def _title(self) -> str:
        return (
            f"audit of {self.experiment}, {self.arm} against control, at {self.as_of:%Y-%m-%d %H:%M}: beliefs at entry age {self.age} days, matured "
            f"outcomes of the same users, north star {self.north_star} ({percent(self.margin, signed=True)} is worth having)"
        )

    def _rows(self) -> list[list[str]]:
        def cell(estimate: Estimate | None) -> str:
            return "-" if estimate is None else f"{number(estimate.value)} {interval(*estimate.interval(self.level))}"

        return [
            [row.signal.split("@")[0], cell(row.early), cell(row.late), cell(row.north_star), row.agreement, row.recommendation]
            for row in self.verdicts
        ]


def audit(
    early: EarlyReward | Mapping[Signal, EarlyReward],
    trial: Experiment,
    lake: Lake,
    *,
    north_star: Signal,
    signals: Sequence[Signal] | None = None,
    margin: float = 0.01,
    age: int = 7,
    alpha: float = 0.05,
    treatment: str | None = None,
    as_of: datetime | None = None,
) -> Audit:
    """Whether what `early` said of a trial came true, and whether it mattered to the north star.

    For each signal three differences between treatment and control per enrolled user, adjusted for the same covariates:
    early, the sums of the beliefs that `early` held of the users' entries in the entry window when each entry was `age`
    days old; late, the sums of their matured outcomes; and the trial's own estimate of the north star. Early
    and late are of the same users, those who are mature for the signal (while nobody is, early is of those who are old
    enough). Beliefs are asked through `lake.before` the moment at which the last possible entry of the last
    of these users is `age` days old, so nothing later can leak into them. The std errors are those of
    users, not of the fit of `early`: that is what the comparison with late is for.

    `judge` says what follows.

    Args:
        early: one early reward or {signal: early reward}, fitted on what was known before the trial.
        north_star: what all signals are meant to move, e.g. active days from enrolment.
        signals: which to audit; default all that `early` has.
        margin: least gain of the north star worth having, relative to the control's mean.
        age: whole days since the entry's own day: of a window from day 1 on the belief has seen `age` days, of one from day 30 on none.
        alpha: two-sided, of every interval. treatment: the arm; default the only one.
        as_of: UTC; default the lake's watermark.

    Raises:
        ConfigError: a signal without early reward, an unknown arm, a margin outside [0, 1).
        DataError: the lake has no decision of the trial, or cannot answer a signal.
    """
    models = _models(early, signals)
    arm = _arm(trial, treatment)
    if not 0 <= margin < 1 or not 0 < alpha < 1:
        raise ConfigError(f"audit: margin={margin}, alpha={alpha} given, expected a relative gain in [0, 1) and a level in (0, 1)")
    if not isinstance(age, int) or age < 0:
        raise ConfigError(f"audit: age={age!r} given, expected whole days >= 0")
    view = lake if as_of is None else lake.before(as_of)
    everybody = trial.enrolled(view)
    distrusted = "; ".join(f"{check.name}: {check.words}" for check in quality_of(trial, everybody) if check.fails)
    users = everybody.filter(pl.col("arm").is_in([trial.arm_names[0], arm]))
    treated_U, known_UK = (users["arm"] == arm).to_numpy(), covariates_of(view, users)
    star = line_of(north_star, enrolled_sums(north_star, view, users, entry_days=trial.entry_days), treated_U, known_UK, arm, None, alpha, alpha)
    verdicts = []
    for signal, model in models.items():
        sums = enrolled_sums(signal, view, users, entry_days=trial.entry_days)
        late = line_of(signal, sums, treated_U, known_UK, arm, None, alpha, alpha)
        asked_U = sums["value"].is_not_null().to_numpy() if late.effect else (_old_enough(signal, users, trial, age) <= view.watermark).to_numpy()
        asked = _Asked(None, None)
        if min(np.bincount(treated_U[asked_U], minlength=2)) >= LEAST_USERS:
            value_U = sums["value"].to_numpy()[asked_U].astype(float) if late.effect else None
            early_U = believed_sums(model, users.filter(pl.Series(asked_U)), trial, view, age)
            asked = _Asked.of(early_U, value_U, treated_U[asked_U], known_UK[asked_U])
        verdict = _verdict_on(signal, asked, late, star, age, margin, 1 - alpha)
        if distrusted:
            verdict = replace(verdict, recommendation="undecided", reason=f"the experiment cannot be trusted; {distrusted}")
        verdicts.append(verdict)
    return Audit(trial.label, arm, north_star.label, margin, age, 1 - alpha, view.watermark, tuple(verdicts))


@dataclass(frozen=True)
class _Asked:
    """The arms' means of early, and of early minus late of the same users; null where there are too few, or late is immature."""

    early: Means | None
    gap: Means | None

    @classmethod
    def of(cls, early_U: Float, late_U: Float | None, treated_U: NDArray[np.bool_], known_UK: Float) -> Self:
        return cls(compare(early_U, treated_U, known_UK), None if late_U is None else compare(early_U - late_U, treated_U, known_UK))


def believed_sums(model: EarlyReward, users: pl.DataFrame, trial: Experiment, lake: Lake, age: int) -> Float:
    """Per user the sum of the beliefs about the entries of the entry window, each at entry age `age` days, shape [U].

    Nothing is looked at that happened or arrived after the last user's last possible entry was that old.
    """
    signal = model.signal
    then = cast(datetime, _old_enough(signal, users, trial, age).max())
    outcomes = outcomes_of(signal, lake.before(then), None, users)
    window_days = min(max(age + 1 - signal.window[0], 0), signal.days)  # an entry's own day is day 0, so day `age` is its last whole one
    mean_N = np.where(outcomes.keys.is_null().to_numpy(), 0.0, model.belief(outcomes, window_days).mean)  # about nothing: late counts 0
    return sums_by_user(outcomes.frame, mean_N, users, trial.entry_days)


def judge(early: Contrast, late: Contrast, gap: Contrast, gain: Contrast, loss: Contrast, level: float) -> tuple[Agreement, Recommendation, str]:
    """Agreement, recommendation and reason, from five differences and their intervals at `level`.

    early, late: of the signal. gap: early minus late, paired. gain: treatment - (1 + margin) control of the north star, above 0
    where it gained what is worth having; loss: treatment - (1 - margin) control, below 0 where it lost as much.

    Agreement, in this order: the gap holds 0 and early and late have one sign: "agrees"; the gap holds 0, signs differ:
    "differs" (too noisy to say); early's interval lies on late's side: "off by a factor", unless the factor may be
    within `TOLERANCE` of 1, then "agrees" (with enough users any early reward is off by a hair); on the other:
    "opposite"; early holds 0 while the gap does not: "differs" (it saw nothing of it).

    | late      | north star                         | early and late  | recommendation | because                                 |
    |-----------|------------------------------------|-----------------|----------------|-----------------------------------------|
    | holds 0   | any                                | any             | undecided      | the trial did not move the signal       |
    | rose      | spans +margin                      | any             | undecided      | it is not known whether it mattered     |
    | rose      | below +margin                      | any             | drop           | it can rise without the north star      |
    | rose      | above +margin                      | agrees          | keep           | early told the truth, and it mattered   |
    | rose      | above +margin                      | off by a factor | reweight       | right direction, wrong size: factor     |
    | rose      | above +margin                      | opposite        | drop           | early would have stopped a good change  |
    | rose      | above +margin                      | differs         | undecided      | early is too noisy, or saw nothing      |
    | fell      | spans -margin                      | any             | undecided      | it is not known whether it mattered     |
    | fell      | above -margin, also if it rose     | any             | drop           | it can fall without the north star      |
    | fell      | below -margin                      | as where it rose | keep, reweight, drop or undecided, as there | they fell together |

    A signal that fell while the north star rose is dropped, not given a negative weight: one trial shows that it can be
    given up, not that pushing it down would help. Of the north star's own early reward only the agreement is asked.
    Where late or the north star is immature the caller says undecided.
    """
    agreement = _agreement(early, late, gap, level)
    moved, star = _side(late, level), _side(gain, level)
    if moved == 0:
        return agreement, "undecided", "the trial did not move the signal: its late interval holds 0"
    if moved < 0:
        star = -_side(loss, level)
    rose, kept = ("rose", "gained") if moved > 0 else ("fell", "lost")
    if star == 0:
        return agreement, "undecided", f"it {rose}, but whether the north star {kept} its margin is not known: the interval spans it"
    if star < 0:
        return agreement, "drop", f"it {rose} while the north star certainly {kept} less than its margin: it can be moved without it"
    reasons: dict[Agreement, tuple[Recommendation, str]] = {
        "agrees": (
            "keep",
            f"it {rose}, the north star {kept} its margin, and early and late agree, up to their errors and a factor of {1 + TOLERANCE:g}",
        ),
        "off by a factor": ("reweight", f"it {rose}, the north star {kept} its margin, but early was off by a factor"),
        "opposite": (
            "drop",
            f"it {rose} and the north star {kept} its margin, but early pointed the other way: as a reward it would have led astray",
        ),
    }
    recommendation, reason = reasons.get(
        agreement, ("undecided", f"it {rose} and the north star {kept} its margin, but early did not see it: too noisy at this age, or blind to it")
    )
    return agreement, recommendation, reason


def _verdict_on(signal: Signal, asked: _Asked, late: Line, star: Line, age: int, margin: float, level: float) -> Verdict:
    """The verdict, or undecided with what is missing."""
    early, gap = _estimate(asked.early, f"as believed at entry age {age} days", late), _estimate(asked.gap, "believed minus matured", late)
    if asked.early is None or asked.gap is None or late.effect is None or star.effect is None:
        missing = [line.reason for line in (late, star) if line.effect is None]
        if asked.early is None:
            missing.append(f"{signal.name}: an interval needs {LEAST_USERS} users in each arm whose entries are all {age} days old")
        matured, moved = (line.effect.difference if line.effect else None for line in (late, star))
        return Verdict(signal.label, early, matured, moved, "unknown", "undecided", "; ".join(dict.fromkeys(missing)))
    believed, matured, apart = asked.early.contrast(), late.effect.means.contrast(), asked.gap.contrast()
    # of the north star itself it is only asked whether early agrees: it moved with itself, by whatever it moved
    itself = signal.label.split("@")[1] == star.signal.split("@")[1]
    gain, loss = (matured, matured) if itself else (star.effect.gain_over(margin), star.effect.gain_over(-margin))
    agreement, recommendation, reason = judge(believed, matured, apart, gain, loss, level)
    factor = None
    if agreement == "off by a factor":
        times = _times(believed, matured, apart)
        factor = Estimate(
            times.value, times.std_error, late.effect.difference.n, late.effect.difference.n_eff, f"policy: {signal.label}, late / early", times.df
        )
        reason += f"; late is {number(times.value)} times early {interval(*times.interval(level))}"
    return Verdict(signal.label, early, late.effect.difference, star.effect.difference, agreement, recommendation, reason, gap, factor)


def _agreement(early: Contrast, late: Contrast, gap: Contrast, level: float) -> Agreement:
    if _side(gap, level) == 0:
        return "agrees" if early.value * late.value > 0 else "differs"
    if _side(early, level) == 0 or _side(late, level) == 0:
        return "differs"
    if _side(early, level) != _side(late, level):
        return "opposite"
    low, high = _times(early, late, gap).interval(level)
    return "off by a factor" if low > 1 + TOLERANCE or high < 1 / (1 + TOLERANCE) else "agrees"


def _times(early: Contrast, late: Contrast, gap: Contrast) -> Contrast:
    """late / early; their covariance follows from the paired gap."""
    return ratio(late, early, (early.std_error**2 + late.std_error**2 - gap.std_error**2) / 2)


def _side(contrast: Contrast, level: float) -> int:
    """1 where the interval lies above 0, -1 below, 0 where it holds it."""
    low, high = contrast.interval(level)
    return int(low > 0) - int(high < 0)


def _estimate(means: Means | None, what: str, line: Line) -> Estimate | None:
    if means is None:
        return None
    found, n = means.contrast(), means.n_control + means.n_treatment
    return Estimate(found.value, found.std_error, n, float(n), f"policy: {line.signal} per enrolled user, {what}, {line.arm} minus control", found.df)


def _old_enough(signal: Signal, users: pl.DataFrame, trial: Experiment, age: int) -> pl.Series:
    """When each user's last possible entry is `age` whole days old, or its window closed."""
    return closes_at(signal, users, trial.entry_days, min(age, signal.window[1]) + 1)


def _models(early: EarlyReward | Mapping[Signal, EarlyReward], signals: Sequence[Signal] | None) -> dict[Signal, EarlyReward]:
    models = dict(early) if isinstance(early, Mapping) else {early.signal: early}
    for signal, model in models.items():
        if model.signal.version != signal.version:
            raise ConfigError(f"audit: an early reward of {model.signal.label} is given for {signal.label}; expected one of that signal")
    by_version = {signal.version: signal for signal in models}
    wanted = list(models) if signals is None else list(signals)
    for signal in wanted:
        if signal.version not in by_version:
            raise ConfigError(f"audit: no early reward of {signal.label}; given {', '.join(signal.label for signal in models)}")
    if not wanted:
        raise ConfigError("audit: no signal given, expected at least one with an early reward")
    return {signal: models[by_version[signal.version]] for signal in wanted}


def _arm(trial: Experiment, treatment: str | None) -> str:
    if treatment is None and len(trial.treatments) == 1:
        return trial.treatments[0]
    if treatment not in trial.treatments:
        raise ConfigError(f"audit: treatment={treatment!r} given, expected one of {', '.join(trial.treatments)}")
    return treatment


def _verdict(row: Mapping[str, Any]) -> Verdict:
    given: dict[str, Any] = {name: Estimate(**value) if name in _ESTIMATES else value for name, value in row.items()}
    return Verdict(**{"early": None, "late": None, "north_star": None, **given})


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(inner)}" for key, inner in cast(dict[str, object], value).items()) + " }"
    if isinstance(value, float):
        return "nan" if math.isnan(value) else repr(float(value))
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


class _Door(ModuleType):
    """This module, callable: importing it binds `longplay.audit` to the module, where `lp.audit(...)` is meant to be the function."""

    def __call__(self, *args: Any, **kwargs: Any) -> Audit:
        return audit(*args, **kwargs)


sys.modules[__name__].__class__ = _Door
