"""What the trial and its audit rest on: read-outs per arm, the audit's evidence, quality checks,
the plan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from longplay.report.blocks import Block, Bullets, Heading, Note, Table
from longplay.report.phrases import at_level, bounds, finite, first, number, percent, signed, span
from longplay.report.policy_names import names_of, swatches_of

Row = Mapping[str, Any]
Results = Mapping[str, Row]


def read_out(results: Results) -> list[Block]:
    """A table per arm: every signal, its difference, and how many users are mature."""
    trial, names = results.get("experiment") or {}, names_of(results)
    lines = [*((trial.get("readout") or {}).get("lines") or []), *(trial.get("other_lines") or [])]
    blocks: list[Block] = []
    for arm in dict.fromkeys(str(line.get("arm")) for line in lines):
        mine = [line for line in lines if str(line.get("arm")) == arm]
        levels = {finite((line.get("effect") or {}).get("level")) for line in mine} - {None}
        head = (
            "signal",
            "incumbent",
            "this arm",
            "difference (interval)",
            "relative",
            "p",
            "variance",
            "mature users",
            "so it is",
        )
        level = (
            "; intervals at " + " and ".join(percent(level, 1) for level in sorted(levels, key=str))
            if levels
            else ""
        )
        caption = (
            f"Read-out of {names.get(arm, arm)} against the incumbent, per enrolled user{level}"
        )
        blocks.append(Table(caption, head, tuple(_line(line) for line in mine), "lrrrrrrrl"))
    if blocks:
        text = (
            "The north star alone decides: an arm ships if it is superior. What the policies were "
            "trained on is read, but cannot ship them. The "
            "intervals share 5% of error over the arms (and the other signals among themselves), "
            "so they are wider than the 95% intervals above. "
            "Means are adjusted for what was known of users before the trial; variance says what "
            "that saved. A user counts once the signal's "
            "window has closed: mature of enrolled."
        )
        blocks.insert(0, Heading("What the trial measured", text))
    return blocks


def audits_of(results: Results) -> dict[str, Row]:
    """The audit of each arm, in the order of the trial."""
    found = {
        str(arm): one or {} for arm, one in ((results.get("audit") or {}).get("arms") or {}).items()
    }
    order = [str(row.get("arm")) for row in (results.get("experiment") or {}).get("arms") or []]
    return dict(
        sorted(
            found.items(),
            key=lambda pair: (order.index(pair[0]) if pair[0] in order else len(order), pair[0]),
        )
    )


def audited(results: Results) -> list[Block]:
    """The audit's evidence in one table, and its reasons."""
    arms, names = audits_of(results), names_of(results)
    body, reasons, terms = [], [], {}
    for arm, found in arms.items():
        level = finite(found.get("level")) or 0.95
        terms = terms or found
        for one in found.get("verdicts") or []:
            said, signal = names.get(arm, arm), _name(one.get("signal"))
            four = (_cell(one.get(part), level) for part in ("early", "late", "gap", "north_star"))
            advice = str(one.get("recommendation", "n/a"))
            body.append((said, signal, *four, str(one.get("agreement", "n/a")), advice))
            reasons.append(
                f"{first(said)}, {signal}: {advice}: {one.get('reason') or 'no reason was given'}."
            )
    if not body:
        return []
    age, margin = number(terms.get("age")), percent(terms.get("margin"), 1)
    text = (
        f"Early: what the beliefs said of the arms' difference when each entry was {age} days "
        "old, asked with what was known then. Late: what "
        "matured, on the same users; they agree while they may lie within a factor of 1.25. North "
        "star: the trial's estimate; "
        f"{margin} is worth having. Keep: the early reward told the truth and it mattered. "
        "Reweight: right direction, wrong size. Drop: it can "
        "move without the north star, or pointed the wrong way."
    )
    head = (
        "arm",
        "signal",
        f"early, at day {age}",
        "late, matured",
        "early − late",
        "north star",
        "agreement",
        "audit",
    )
    table = Table(
        "Differences from the incumbent per enrolled user, with "
        f"{percent(finite(terms.get('level')) or 0.95)} intervals",
        head,
        tuple(body),
        "llrrrrll",
        swatches=swatches_of(results),
    )
    return [Heading("Was the early reward true?", text), table, Bullets("Why", tuple(reasons))]


def checks(trial: Row) -> list[Block]:
    """Whether the trial was run as declared; a failed check is set apart."""
    rows = (trial.get("readout") or {}).get("checks") or []
    failed = [f"{row.get('name')}: {row.get('words')}" for row in rows if row.get("fails")]
    blocks: list[Block] = (
        [Note(f"The trial cannot be trusted. {'; '.join(failed)}")] if failed else []
    )
    body = tuple(
        (
            str(row.get("name", "n/a")),
            "fails" if row.get("fails") else "note" if row.get("warns") else "ok",
            str(row.get("words", "")),
        )
        for row in rows
    )
    return (
        [
            *blocks,
            Table(
                "Quality checks of the trial", ("check", "result", "what was found"), body, "lll"
            ),
        ]
        if body
        else blocks
    )


def planned(trial: Row) -> list[Block]:
    """What the trial was expected to need, before it was run."""
    plan = trial.get("plan") or {}
    said = (
        f"Not estimable: {plan['not_estimable']}"
        if "not_estimable" in plan
        else str(plan.get("words", ""))
    )
    return [Heading("The plan made before the trial", f"{said}.")] if said else []


def trial_refusals(trial: Row) -> dict[str, str]:
    """Questions about the trial that it could not answer, with their reasons."""
    reasons = {}
    for line in (trial.get("readout") or {}).get("lines") or []:
        if not line.get("effect") and line.get("reason"):
            reasons[f"effect of {line.get('arm')} on {_name(line.get('signal'))}"] = str(
                line["reason"]
            )
    plan = trial.get("plan") or {}
    return reasons | (
        {"plan of the trial": str(plan["not_estimable"])} if "not_estimable" in plan else {}
    )


def _line(line: Row) -> tuple[str, ...]:
    effect = line.get("effect") or {}
    mature = f"{number(sum(line.get('mature') or []))} of {number(sum(line.get('enrolled') or []))}"
    if not effect:
        return (_name(line.get("signal")), *["–"] * 6, mature, str(line.get("standing", "n/a")))
    gap, ends = effect.get("difference") or {}, effect.get("interval") or [None, None]
    found = {"value": gap.get("value"), "low": ends[0], "high": ends[-1]}
    share, sides = effect.get("relative") or {}, effect.get("relative_interval") or [None, None]
    saved = finite(effect.get("variance_reduction"))
    return (
        _name(line.get("signal")),
        number((effect.get("control") or {}).get("value")),
        number((effect.get("treatment") or {}).get("value")),
        _with(found),
        _percents({"value": share.get("value"), "low": sides[0], "high": sides[-1]}),
        number(effect.get("p_value"), 3)
        if (finite(effect.get("p_value")) or 1.0) >= 0.001
        else "< 0.001",
        "n/a" if saved is None else percent(-saved),
        mature,
        str(line.get("standing", "n/a")),
    )


def _percents(row: Row) -> str:
    scaled = {
        key: None if (known := finite(row.get(key))) is None else 100 * known
        for key in ("value", "low", "high")
    }
    return (
        "–"
        if scaled["value"] is None
        else f"{signed(scaled)}%"
        + (f" ({span(scaled).replace(' to ', '% to ')}%)" if bounds(scaled) else "")
    )


def _cell(estimate: Row | None, level: float) -> str:
    return _with(at_level(estimate, level)) if estimate else "–"


def _with(row: Row) -> str:
    ends = bounds(row)
    if ends is not None and ends[0] == ends[1]:
        return signed({"value": row.get("value")})
    return f"{signed(row)} ({span(row)})" if ends else signed(row)


def _name(label: Any) -> str:
    return str(label or "n/a").split("@")[0]
