"""The audits in the report: sentences, the table of evidence, and the reasons."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from longplay.display import Bounded, decimal, percent, signed, span
from longplay.estimate import Estimate
from longplay.report.blocks import Block, Bullets, Heading, Table
from longplay.report.phrases import first
from longplay.report.policy_names import PolicyNames
from longplay.report.steps import Steps
from longplay.results import RunResults
from longplay.results.audit_figures import ArmAudit, AuditResult
from longplay.results.experiment_figures import ExperimentResult

SECTIONS: tuple[Steps[Any, Any], ...] = ()  # the audit stands in the section of the experiment


def audits_of(results: RunResults) -> dict[str, ArmAudit]:
    """The audit of each arm, in the order of the experiment."""
    audit, experiment = results.find(AuditResult), results.find(ExperimentResult)
    arms = {} if audit is None else audit.arms
    order = [] if experiment is None else [row.arm for row in experiment.arms]
    return dict(
        sorted(
            arms.items(),
            key=lambda pair: (order.index(pair[0]) if pair[0] in order else len(order), pair[0]),
        )
    )


def audit_sentences(arms: Mapping[str, ArmAudit], names: PolicyNames) -> list[str]:
    """A sentence per arm and signal: the early estimate, the matured one, and the
    recommendation."""
    return [
        f"{first(names[arm])}: at day {audit.age} the early reward of {short(verdict.signal)} said "
        f"{_at_95(verdict.early)} per user, {_at_95(verdict.late)} matured ({verdict.agreement}). "
        f"The audit says: {verdict.recommendation}."
        for arm, audit in arms.items()
        for verdict in audit.verdicts
    ]


def audit_cell(arms: Mapping[str, ArmAudit], arm: str) -> str:
    """Recommendations for all signals that an arm was rewarded for, as a table cell."""
    verdicts = arms[arm].verdicts if arm in arms else ()
    return (
        ", ".join(f"{short(verdict.signal)}: {verdict.recommendation}" for verdict in verdicts)
        or "none"
    )


def audit_words(arms: Mapping[str, ArmAudit], arm: str) -> str:
    """Recommendations as part of a sentence, `audit of habit: keep`; empty where nothing was
    audited."""
    verdicts = arms[arm].verdicts if arm in arms else ()
    return ", ".join(f"audit of {short(row.signal)}: {row.recommendation}" for row in verdicts)


def evidence(arms: Mapping[str, ArmAudit], names: PolicyNames) -> list[Block]:
    """The figures behind the recommendations in one table, and the reasons."""
    body, reasons = [], []
    for arm, audit in arms.items():
        for verdict in audit.verdicts:
            signal, advice = short(verdict.signal), verdict.recommendation
            estimates = (verdict.early, verdict.late, verdict.gap, verdict.north_star)
            cells = tuple(_cell(estimate, audit.level) for estimate in estimates)
            body.append((names[arm], signal, *cells, verdict.agreement, advice))
            reasons.append(f"{first(names[arm])}, {signal}: {advice}: {verdict.reason}.")
    if not body:
        return []
    terms = next(iter(arms.values()))
    text = (
        "Early: what the beliefs said of the arms' difference when each entry was "
        f"{decimal(terms.age)} days "
        "old, asked with what was known then. Late: what "
        "matured, on the same users; they agree while they may lie within a factor of 1.25. North "
        "star: the experiment's estimate; "
        f"{percent(terms.margin, 1)} is worth having. Keep: the early reward told the truth and "
        "it mattered. "
        "Reweight: right direction, wrong size. Drop: it can "
        "move without the north star, or pointed the wrong way."
    )
    head = (
        "arm",
        "signal",
        f"early, at day {decimal(terms.age)}",
        "late, matured",
        "early − late",
        "north star",
        "agreement",
        "audit",
    )
    table = Table(
        f"Differences from the incumbent per enrolled user, with {percent(terms.level)} intervals",
        head,
        tuple(body),
        "llrrrrll",
        swatches=names.swatches,
    )
    return [Heading("Was the early reward true?", text), table, Bullets("Why", tuple(reasons))]


def short(label: str) -> str:
    """A signal's name without its version."""
    return label.split("@")[0]


def gap_words(gap: Bounded) -> str:
    """A difference with its interval in brackets; alone where the interval has no width."""
    if gap.interval is None:
        return signed(gap)
    if gap.low == gap.high:
        return signed(Bounded(gap.value))
    return f"{signed(gap)} ({span(gap)})"


def _at_95(estimate: Estimate | None) -> str:
    """The value of an estimate with its sign, in the decimals of its 95% interval."""
    return "n/a" if estimate is None else signed(estimate.bounded())


def _cell(estimate: Estimate | None, level: float) -> str:
    """An estimate with its interval at `level`, as a table cell."""
    return "–" if estimate is None else gap_words(estimate.bounded(level))
