"""Read-outs of experiments: lines, checks and decisions, which print as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from html import escape
from typing import Literal

import numpy as np

from longplay.display import (
    html_table,
    number,
    percent,
    percent_and_ends,
    text_table,
    value_and_ends,
    value_with_ends,
)
from longplay.errors import ConfigError, NotEstimable
from longplay.estimate import Estimate
from longplay.experiments.enrolment import Check
from longplay.experiments.statistics import Contrast, Means, relative
from longplay.intervals import SLIGHT_SKEW
from longplay.results.experiment_figures import (
    ArmDecision,
    EffectFigures,
    ReadoutFigures,
    SignalLine,
)
from longplay.results.record import Json, to_json
from longplay.signals.declare.measure import Better

Standing = Literal["superior", "non-inferior", "deteriorates", "open", "not estimable"]


@dataclass(frozen=True)
class Effect:
    """A treatment against the control in one signal, on mature users. Intervals have Welch's
    degrees of freedom.

    Attributes:
        signal: label.
        arm: the treatment's name.
        level: of the intervals, e.g. 0.95.
        means: the arms' means per enrolled user, adjusted where covariates were used.
        plain: without adjustment.
        better: "higher" or "lower", which way is a gain.
    """

    signal: str
    arm: str
    level: float
    means: Means
    plain: Means
    better: Better = "higher"

    @property
    def control(self) -> Estimate:
        """Mean of the control per enrolled user, adjusted."""
        return Estimate(
            self.means.control,
            float(np.sqrt(self.means.var_control)),
            *self._n(self.means.n_control),
            f"policy: {self.signal}, control",
        )

    @property
    def treatment(self) -> Estimate:
        """Mean of the treatment per enrolled user, adjusted."""
        n = self._n(self.means.n_treatment)
        return Estimate(
            self.means.treatment,
            float(np.sqrt(self.means.var_treatment)),
            *n,
            f"policy: {self.signal}, {self.arm}",
        )

    @property
    def difference(self) -> Estimate:
        """Treatment minus control per enrolled user."""
        return self._estimate(
            self.means.contrast(),
            f"policy: {self.signal} per enrolled user, {self.arm} minus control",
        )

    @property
    def unadjusted(self) -> Estimate:
        """Treatment minus control per enrolled user, without adjustment."""
        return self._estimate(
            self.plain.contrast(),
            f"policy: {self.signal} per enrolled user, {self.arm} minus control, unadjusted",
        )

    @property
    def interval(self) -> tuple[float, float]:
        """The interval of the difference, at `level`."""
        return self.means.contrast().interval(self.level)

    @property
    def p_value(self) -> float:
        """Two-sided p-value of no difference; not adjusted for the number of metrics."""
        return self.means.contrast().p_value

    @property
    def relative(self) -> Estimate | None:
        """Treatment / control - 1, with the error of the delta method; null where the control's
        mean is not clearly above 0."""
        effect = relative(self.means)
        if effect is None:
            return None
        return self._estimate(
            effect, f"policy: relative effect on {self.signal}, {self.arm} over control"
        )

    @property
    def relative_interval(self) -> tuple[float, float] | None:
        """The interval of the relative effect, at `level`."""
        effect = relative(self.means)
        return None if effect is None else effect.interval(self.level)

    @property
    def variance_reduction(self) -> float:
        """Share of the difference's variance that the covariates took off; 0 without them."""
        plain = self.plain.contrast().std_error
        return 1 - (self.means.contrast().std_error / plain) ** 2 if plain else 0.0

    @property
    def gain(self) -> Contrast:
        """The difference, above 0 where the treatment is better."""
        return self.gain_over(0.0)

    def gain_over(self, margin: float) -> Contrast:
        """The gain minus a relative margin: above 0 where the gain exceeds it. Nothing is divided
        by a noisy mean.

        Treatment - (1 + margin) control; where lower is better (1 - margin) control - treatment.
        """
        if self.better == "lower":
            return self.means.contrast(1 - margin, -1.0)
        return self.means.contrast(-(1 + margin), 1.0)

    @property
    def corrected(self) -> bool:
        """Whether the interval is corrected for skewness."""
        return abs(self.means.contrast().skew) >= SLIGHT_SKEW

    def figures(self) -> EffectFigures:
        """The effect as a run folder stores it."""
        return EffectFigures(
            control=self.control,
            treatment=self.treatment,
            difference=self.difference,
            unadjusted=self.unadjusted,
            relative=self.relative,
            level=self.level,
            interval=self.interval,
            relative_interval=self.relative_interval,
            p_value=self.p_value,
            variance_reduction=self.variance_reduction,
            corrected_for_skewness=self.corrected,
        )

    def _estimate(self, contrast: Contrast, estimand: str) -> Estimate:
        users = self._n(self.means.n_control + self.means.n_treatment)
        return Estimate(
            contrast.value, contrast.std_error, *users, estimand, contrast.df, contrast.skew
        )

    def _n(self, users: int) -> tuple[int, float]:
        return users, float(users)


@dataclass(frozen=True)
class Line:
    """One signal of one treatment: its role, its users, its effect and what follows.

    Attributes:
        signal: label, `name@version`.
        arm: the treatment.
        role: success or guardrail.
        margin: relative loss a guardrail must rule out; null for a success metric.
        enrolled: users of (control, treatment).
        mature: users of (control, treatment).
        matures: when the last enrolled user will have matured (UTC).
        standing: what the numbers say.
        effect: the numbers; null where there are too few, or too skewed ones, for the `reason`
            given.
        reason: why there is no effect, in words.
        better: "higher" or "lower", which way is a gain.
    """

    signal: str
    arm: str
    role: Literal["success", "guardrail"]
    margin: float | None
    enrolled: tuple[int, int]
    mature: tuple[int, int]
    matures: datetime
    standing: Standing
    effect: Effect | None
    reason: str = ""
    better: Better = "higher"

    @property
    def name(self) -> str:
        """The signal's name without its version."""
        return self.signal.split("@")[0]

    @property
    def difference(self) -> Estimate:
        """Treatment minus control per enrolled user.

        Raises:
            NotEstimable: too few mature users; the message says how many and when.
        """
        if self.effect is None:
            raise NotEstimable(self.reason)
        return self.effect.difference

    def figures(self) -> SignalLine:
        """The line as a run folder stores it."""
        return SignalLine(
            signal=self.signal,
            arm=self.arm,
            role=self.role,
            margin=self.margin,
            better=self.better,
            enrolled=self.enrolled,
            mature=self.mature,
            matures=self.matures,
            standing=self.standing,
            reason=self.reason,
            effect=None if self.effect is None else self.effect.figures(),
        )


@dataclass(frozen=True)
class ShipDecision:
    """The decision about one treatment; prints as a sentence.

    Attributes:
        arm: the treatment.
        verdict: ship, do not ship or keep running.
        reason: why.
        users: in both arms, and further weeks, that would settle it, where that can be said.
        weeks: in both arms, and further weeks, that would settle it, where that can be said.
    """

    arm: str
    verdict: Literal["ship", "do not ship", "keep running"]
    reason: str
    users: int | None = None
    weeks: float | None = None

    def __str__(self) -> str:
        if self.verdict == "ship":
            return f"ship {self.arm}: {self.reason}"
        return f"{self.verdict}: {self.reason}"

    def _repr_html_(self) -> str:
        return f"<p><b>{escape(self.verdict)}</b> {escape(self.arm)}: {escape(self.reason)}</p>"

    def figures(self) -> ArmDecision:
        """The decision as a run folder stores it."""
        return ArmDecision(self.arm, self.verdict, self.reason, self.users, self.weeks)


_HEAD = ("control", "treatment", "difference", "relative", "p", "variance", "mature", "")


@dataclass(frozen=True)
class Readout:
    """An experiment's read-out: prints as a table in the terminal and in a notebook.

    Attributes:
        experiment: its label.
        as_of: time up to which the log was read (UTC).
        lines: one per signal and treatment.
        checks: quality checks.
        decisions: one per treatment.
        alpha: as given to `analyze`.
        power: as given to `analyze`.
        minimum_effect: as given to `analyze`.
    """

    experiment: str
    as_of: datetime
    lines: tuple[Line, ...]
    checks: tuple[Check, ...]
    decisions: tuple[ShipDecision, ...]
    alpha: float = field(default=0.05, kw_only=True)
    power: float = field(default=0.8, kw_only=True)
    minimum_effect: float = field(default=0.01, kw_only=True)

    @property
    def decision(self) -> ShipDecision:
        """The decision about the only treatment.

        Raises:
            ConfigError: there are several; see `decisions`.
        """
        if len(self.decisions) != 1:
            raise ConfigError(
                f"decision: {len(self.decisions)} treatments, expected one; read decisions, one "
                "per treatment"
            )
        return self.decisions[0]

    def line(self, signal: str, arm: str | None = None) -> Line:
        """The line of a signal, by its name or label, of the only treatment or the named one."""
        lines = [
            line
            for line in self.lines
            if signal in (line.signal, line.name) and arm in (None, line.arm)
        ]
        if len(lines) != 1:
            listed = ", ".join(f"{line.name} of {line.arm}" for line in self.lines)
            raise ConfigError(
                f"line: {len(lines)} lines of {signal!r}, arm {arm!r}; expected one of {listed}"
            )
        return lines[0]

    def __str__(self) -> str:
        parts = [f"experiment {self.experiment} at {self.as_of:%Y-%m-%d %H:%M}, per enrolled user"]
        for arm in self._arms():
            parts.append(text_table((f"{arm} against control", *_HEAD), self._rows(arm)))
        parts += [f"{_mark(check)} {check.name}: {check.words}" for check in self.checks]
        parts += [
            f"{decision.arm}: {decision}" if len(self.decisions) > 1 else str(decision)
            for decision in self.decisions
        ]
        return "\n".join(parts)

    def _repr_html_(self) -> str:
        tables = [
            html_table((f"{arm} against control", *_HEAD), self._rows(arm)) for arm in self._arms()
        ]
        checks = "".join(
            f"<li>{escape(f'{_mark(check)} {check.name}: {check.words}')}</li>"
            for check in self.checks
        )
        return "".join(
            [
                f"<p>experiment <b>{escape(self.experiment)}</b> at {self.as_of:%Y-%m-%d %H:%M}, "
                "per enrolled user</p>",
                *tables,
                f"<ul>{checks}</ul>",
                *[decision._repr_html_() for decision in self.decisions],
            ]
        )

    def figures(self) -> ReadoutFigures:
        """The read-out as a run folder stores it."""
        return ReadoutFigures(
            experiment=self.experiment,
            as_of=self.as_of,
            alpha=self.alpha,
            power=self.power,
            minimum_effect=self.minimum_effect,
            lines=tuple(line.figures() for line in self.lines),
            checks=tuple(check.figures() for check in self.checks),
            decisions=tuple(decision.figures() for decision in self.decisions),
        )

    def as_json(self) -> Json:
        """`figures` as values that JSON has."""
        return to_json(self.figures())

    def _arms(self) -> Sequence[str]:
        return list(dict.fromkeys(line.arm for line in self.lines))

    def _rows(self, arm: str) -> list[list[str]]:
        return [_cells(line) for line in self.lines if line.arm == arm]


def _cells(line: Line) -> list[str]:
    title = line.name
    if line.better == "lower":
        title += ", lower is better"
    if line.effect is not None:
        title += f", {percent(line.effect.level)}"
    if line.effect is not None and line.effect.corrected:
        title += ", corrected for skewness"
    if line.margin is not None:
        title += f", guardrail {percent(line.margin)}"
    mature = f"{sum(line.mature):,} of {sum(line.enrolled):,}"
    if line.effect is None:
        return [title, *["-"] * 6, mature, line.standing]
    effect = line.effect
    relative = "-"
    if effect.relative is not None and effect.relative_interval is not None:
        lift, ends = percent_and_ends(effect.relative.value, *effect.relative_interval)
        relative = f"{lift} ({ends})"
    return [
        title,
        _mean(effect.control),
        _mean(effect.treatment),
        value_with_ends(effect.difference.value, *effect.interval),
        relative,
        number(effect.p_value, 2),
        percent(-effect.variance_reduction, signed=True),
        mature,
        line.standing,
    ]


def _mean(estimate: Estimate) -> str:
    """The value of an estimate in the decimals of its interval."""
    return value_and_ends(estimate.value, *estimate.interval())[0]


def _mark(check: Check) -> str:
    if check.fails:
        return "FAILS"
    return "note:" if check.warns else "ok"
