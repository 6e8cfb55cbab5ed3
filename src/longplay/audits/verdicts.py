"""What an audit says: a verdict per signal, which print as a table and travel as TOML."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from html import escape
from typing import Any, Self

from longplay.audits.judgement import Agreement, Recommendation
from longplay.audits.toml_text import TomlValue, toml_text
from longplay.display import html_table, percent, text_table, value_with_ends
from longplay.errors import ConfigError
from longplay.estimate import Estimate
from longplay.results.audit_figures import ArmAudit, VerdictFigures
from longplay.results.record import Json, to_json

_HEAD = ("signal", "early", "late", "north star", "early and late", "recommendation")


@dataclass(frozen=True)
class Verdict:
    """What an experiment says about the early reward of one signal.

    All differences are treatment minus control per enrolled user.

    Attributes:
        signal: label, `name@version`.
        early: difference of the beliefs at the given age; null where entries are not old enough.
        late: difference of the matured outcomes of the same users; null while they are immature.
        north_star: effect on the north star; null while immature.
        agreement: how early and late compare; see `judgement_of`.
        recommendation: keep, reweight, drop or undecided.
        reason: why, in words.
        gap: early minus late, paired by user.
        factor: late / early, where early is off by a factor: multiply the signal's weight by it.
        users: number of users, in both arms together, that would settle an undecided verdict if
            the estimates stayed the same; null where more users would not settle it.
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

    @property
    def name(self) -> str:
        """The signal's name without its version."""
        return self.signal.split("@")[0]

    def estimates(self) -> dict[str, Estimate | None]:
        """The estimates behind the verdict by name."""
        return {
            "early": self.early,
            "late": self.late,
            "north_star": self.north_star,
            "gap": self.gap,
            "factor": self.factor,
        }

    def figures(self) -> VerdictFigures:
        """The verdict as a run folder stores it."""
        return VerdictFigures(
            signal=self.signal,
            agreement=self.agreement,
            recommendation=self.recommendation,
            reason=self.reason,
            users=self.users,
            early=self.early,
            late=self.late,
            north_star=self.north_star,
            gap=self.gap,
            factor=self.factor,
        )


@dataclass(frozen=True)
class Audit:
    """One verdict per signal of an arm; prints as a table.

    `to_toml` is the file for whoever sets the weights of the signals.

    Attributes:
        experiment: label of the experiment.
        arm: the treatment that was compared with the control.
        north_star: label of the north star.
        margin: least relative gain of the north star worth having.
        age: days of each entry that the early reward had seen.
        level: of all intervals, e.g. 0.95.
        as_of: time up to which the log was read (UTC).
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
            f"{verdict.name}: {verdict.recommendation}: {verdict.reason}"
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

    def figures(self) -> ArmAudit:
        """The audit as a run folder stores it, the printed table included."""
        return ArmAudit(
            experiment=self.experiment,
            arm=self.arm,
            north_star=self.north_star,
            margin=self.margin,
            age=self.age,
            level=self.level,
            as_of=self.as_of,
            verdicts=tuple(verdict.figures() for verdict in self.verdicts),
            words=str(self),
        )

    def as_json(self) -> Json:
        """`figures` as values that JSON has."""
        return to_json(self.figures())

    def to_toml(self) -> str:
        """The audit as TOML: a table `[audit]`, and one `[[verdicts]]` per signal.

        `from_toml` reads it back.
        """
        lines = ["[audit]"]
        lines += [f"{key} = {toml_text(value)}" for key, value in self._settings().items()]
        lines += [f"as_of = {self.as_of.isoformat()}"]
        for verdict in self.verdicts:
            lines += ["", "[[verdicts]]"]
            lines += [f"{key} = {toml_text(value)}" for key, value in _toml_row(verdict).items()]
        return "\n".join(lines) + "\n"

    @classmethod
    def from_toml(cls, text: str) -> Self:
        """The audit that `to_toml` wrote.

        Args:
            text: the TOML.

        Raises:
            ConfigError: the text is not TOML, or not an audit.
        """
        try:
            tables = tomllib.loads(text)
            verdicts = tuple(_verdict_of(row) for row in tables.get("verdicts", []))
            return cls(**tables["audit"], verdicts=verdicts)
        except (tomllib.TOMLDecodeError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"audit: not a file that Audit.to_toml wrote: {error}") from error

    def _settings(self) -> dict[str, TomlValue]:
        return {
            "experiment": self.experiment,
            "arm": self.arm,
            "north_star": self.north_star,
            "margin": self.margin,
            "age": self.age,
            "level": self.level,
        }

    def _title(self) -> str:
        return (
            f"audit of {self.experiment}, {self.arm} against control, at "
            f"{self.as_of:%Y-%m-%d %H:%M}: beliefs at entry age {self.age} days, matured "
            f"outcomes of the same users, north star {self.north_star} "
            f"({percent(self.margin, signed=True)} is worth having)"
        )

    def _rows(self) -> list[list[str]]:
        return [
            [
                verdict.name,
                self._cell(verdict.early),
                self._cell(verdict.late),
                self._cell(verdict.north_star),
                verdict.agreement,
                verdict.recommendation,
            ]
            for verdict in self.verdicts
        ]

    def _cell(self, estimate: Estimate | None) -> str:
        if estimate is None:
            return "-"
        return value_with_ends(estimate.value, *estimate.interval(self.level))


def _toml_row(verdict: Verdict) -> dict[str, TomlValue]:
    """A verdict as a TOML table. TOML has no null: what is null is left out."""
    row: dict[str, TomlValue] = {
        "signal": verdict.signal,
        "agreement": verdict.agreement,
        "recommendation": verdict.recommendation,
        "reason": verdict.reason,
    }
    if verdict.users is not None:
        row["users"] = verdict.users
    for name, estimate in verdict.estimates().items():
        if estimate is not None:
            row[name] = _without_defaults(estimate)
    return row


def _verdict_of(row: Mapping[str, Any]) -> Verdict:
    """The verdict that `_toml_row` wrote."""
    values: dict[str, Any] = {"early": None, "late": None, "north_star": None, **row}
    for name in ("early", "late", "north_star", "gap", "factor"):
        if values.get(name) is not None:
            values[name] = Estimate(**values[name])
    return Verdict(**values)


def _without_defaults(estimate: Estimate) -> dict[str, TomlValue]:
    """The fields of an estimate that differ from their defaults."""
    values = {field.name: getattr(estimate, field.name) for field in fields(estimate)}
    defaults = {field.name: field.default for field in fields(estimate)}
    return {name: value for name, value in values.items() if value != defaults[name]}
