"""The section that closes the loop: what was tried, what was decided, and whether the early reward
was true."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from longplay.report import charts
from longplay.report.about_trial import audited, audits_of, checks, planned, read_out
from longplay.report.blocks import Block, Heading, Section, Table
from longplay.report.charts import INK
from longplay.report.phrases import (
    ZERO,
    at_95,
    bounds,
    finite,
    first,
    listed,
    number,
    plus_minus,
    signed,
    span,
    verdict,
)
from longplay.report.policy_names import INCUMBENT, colours_of, names_of, swatches_of

Row = Mapping[str, Any]
Results = Mapping[str, Row]
TITLE = "The loop: what was tried, and was the early reward true"
HEAD = (
    "policy",
    "true level per user",
    "true difference",
    "off-policy, per slot",
    "trial, per user",
    "decision",
    "audit",
)


@dataclass(frozen=True)
class Cell:
    """A figure, and what stands beside it: its interval, or why there is none."""

    text: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.text} ({self.detail})" if self.detail else self.text


@dataclass(frozen=True)
class LoopRow:
    """One policy of a trial.

    Attributes:
        arm: its name in the trial.
        policy: its name in plain words.
        level: the north star per user that the world knows, and what it is more than under the
            incumbent.
        difference: the north star per user that the world knows, and what it is more than under the
            incumbent.
        offpolicy: doubly robust value per slot (estimand one_step); the incumbent's is the mean of
            the slots it logged.
        experiment: the trial's difference to the incumbent per enrolled user (estimand policy).
        decision: of the trial.
        audit: what follows for the signals its reward paid for.
    """

    arm: str
    policy: str
    level: Cell
    difference: Cell
    offpolicy: Cell
    experiment: Cell
    decision: str
    audit: str

    @property
    def cells(self) -> tuple[Cell, ...]:
        """In the order of `HEAD`."""
        return (
            Cell(self.policy),
            self.level,
            self.difference,
            self.offpolicy,
            self.experiment,
            Cell(self.decision),
            Cell(self.audit),
        )


def loop_rows(results: Results) -> list[LoopRow]:
    """One row per policy of the trial, the incumbent first; empty where no trial was run."""
    trial, names = results.get("experiment") or {}, names_of(results)
    truth = {str(row.get("arm")): row for row in trial.get("truth") or []}
    rows = []
    for arm in _arms(trial):
        incumbent, known = arm == INCUMBENT, truth.get(arm) or {}
        rows.append(
            LoopRow(
                arm,
                names.get(arm, arm),
                Cell(plus_minus(known.get("level") or {})),
                Cell("reference") if incumbent else _gap(known.get("difference") or {}),
                _logged(results) if incumbent else _off_policy(results, arm),
                Cell("reference") if incumbent else _tried(trial, arm),
                "runs now" if incumbent else str(_decision(trial, arm).get("verdict", "none")),
                "" if incumbent else _audit_words(results, arm),
            )
        )
    return rows


def decision_words(results: Results) -> list[str]:
    """One sentence per arm: what the trial decided and why, and what would settle it where it is
    open."""
    trial, names = results.get("experiment") or {}, names_of(results)
    said = []
    for row in (trial.get("readout") or {}).get("decisions") or []:
        arm, users, weeks = str(row.get("arm")), finite(row.get("users")), finite(row.get("weeks"))
        sentence = (
            f"{first(str(row.get('verdict', 'no decision on')))} {names.get(arm, arm)}: "
            f"{row.get('reason') or 'no reason was given'}."
        )
        if row.get("verdict") == "keep running" and users is not None:
            when = (
                f"{math.ceil(weeks)} more weeks"
                if weeks is not None
                else "more than come within two years"
            )
            sentence += f" To settle it: about {number(users, 0)} users in both arms, {when}."
        if (
            row.get("verdict") == "ship"
            and finite((found := _star_line(trial, arm)).get("value")) is not None
            and verdict(found) != "higher"
        ):
            sentence += (
                f" The north star itself is {verdict(found)}: "
                f"{_name(trial.get('north_star'))} {signed(found)} ({span(found)})."
            )
        said.append(sentence)
    return said


def loop(results: Results) -> Section | None:
    """The loop at a glance; null where no trial was run."""
    trial = results.get("experiment") or {}
    if not trial:
        return None
    rows, days = loop_rows(results), _star_days(results)
    answer = [
        _headline(trial, names_of(results)),
        *decision_words(results),
        *_truth_words(trial, names_of(results), days),
        *_audit_sentences(results),
    ]
    star = _name(trial.get("north_star"))
    body = tuple(tuple(str(cell) or "–" for cell in row.cells) for row in rows)
    caption = (
        f"What was tried: north star “{star}”{f' over {days} days' if days else ''}, with "
        "95% intervals"
    )
    blocks: list[Block] = [
        Table(caption, HEAD, body, "lrrrrll", swatches=swatches_of(results)),
        Heading("", estimands(results)),
    ]
    blocks += [plot for plot in (_beside(results, rows), _by_day(results)) if plot is not None]
    blocks += [*read_out(results), *audited(results), *checks(trial), *planned(trial)]
    return Section("loop", TITLE, tuple(answer), tuple(blocks))


def estimands(results: Results) -> str:
    """Why two columns of the table are not to be subtracted."""
    signal = _name((results.get("offpolicy") or {}).get("signal") or "the objective")
    star = _name((results.get("experiment") or {}).get("north_star"))
    return (
        f"Two questions, two units. Off-policy (estimand one_step): {signal} per slot, had one "
        "slot been drawn from the policy and the logger "
        "gone on; the incumbent's is the mean of its logged slots. Trial and truth (estimand "
        f"policy): {star} per user who lives under the policy "
        "throughout. Compare their signs and their order, not their sizes."
    )


def _headline(trial: Row, names: Mapping[str, str]) -> str:
    said = [
        f"{row.get('verdict')} {names.get(str(row.get('arm')), row.get('arm'))}"
        for row in (trial.get("readout") or {}).get("decisions") or []
    ]
    lines = (trial.get("readout") or {}).get("lines") or []
    pairs = {str(line.get("arm")): line.get("enrolled") or [0, 0] for line in lines}
    users = sum(pair[-1] for pair in pairs.values()) + max(
        (pair[0] for pair in pairs.values()), default=0
    )
    told = f"{number(users)} enrolled users" if users else f"{number(trial.get('users'))} users"
    return (
        f"A trial of {told} over {number(trial.get('days'))} days says: "
        f"{listed(said) or 'nothing was decided'}."
    )


def _truth_words(trial: Row, names: Mapping[str, str], days: int | None) -> list[str]:
    """Per arm what the world knows, and whether the trial found it."""
    star, said = _name(trial.get("north_star")), []
    levels = {str(row.get("arm")): row.get("level") or {} for row in trial.get("truth") or []}
    for row in trial.get("truth") or []:
        arm, gap = str(row.get("arm")), row.get("difference") or {}
        if arm == INCUMBENT or finite(gap.get("value")) is None:
            continue
        told = {
            "higher": "truly better than",
            "lower": "truly worse than",
            ZERO: "truly not told apart from",
        }.get(verdict(gap), "beside")
        over = f" over {days} days" if days else ""
        sentence = (
            f"{first(names.get(arm, arm))} is {told} the incumbent in the world that made the "
            f"data: {star} per user{over} {signed(gap)} "
            f"({span(gap) or 'no interval'}), from {plus_minus(levels.get(INCUMBENT) or {})} to "
            f"{plus_minus(levels.get(arm) or {})}"
        )
        tried = _star_line(trial, arm)
        said.append(f"{sentence}; {_found(tried, gap)}." if tried else f"{sentence}.")
    return said


def _found(tried: Row, gap: Row) -> str:
    """Whether the trial's difference and the true one agree within the errors of both."""
    ours, theirs = bounds(tried), bounds(gap)
    if ours is None or theirs is None:
        return "the trial has no interval beside it"
    error = math.hypot(ours[1] - ours[0], theirs[1] - theirs[0]) / 2
    told = (
        "agrees with it"
        if abs(float(tried["value"]) - float(gap["value"])) <= error
        else "does not agree with it"
    )
    return f"the trial's {signed(tried)} ({span(tried)}) {told}, within the errors of both"


def _audit_sentences(results: Results) -> list[str]:
    """Per arm and signal: what the early reward said, what came, and what the audit makes of it."""
    names, said = names_of(results), []
    for arm, found in audits_of(results).items():
        for one in found.get("verdicts") or []:
            early, late = (at_95(one.get(part)) for part in ("early", "late"))
            told = (
                f"at day {found.get('age', '?')} the early reward of "
                f"{_name(one.get('signal'))} said {signed(early)} per user, {signed(late)} matured"
            )
            agreement = str(one.get("agreement", "unknown"))
            advice = str(one.get("recommendation", "n/a"))
            said.append(
                f"{first(names.get(arm, arm))}: {told} ({agreement}). The audit says: {advice}."
            )
    return said


def _arms(trial: Row) -> list[str]:
    return [str(row.get("arm")) for row in trial.get("arms") or [] if row.get("arm") is not None]


def _decision(trial: Row, arm: str) -> Row:
    return next(
        (
            row
            for row in (trial.get("readout") or {}).get("decisions") or []
            if row.get("arm") == arm
        ),
        {},
    )


def _star_line(trial: Row, arm: str) -> Row:
    """The trial's difference in the north star with its 95% interval; empty where there is none."""
    for line in (trial.get("readout") or {}).get("lines") or []:
        if line.get("arm") == arm and line.get("signal") == trial.get("north_star"):
            return at_95((line.get("effect") or {}).get("difference"))
    return {}


def _tried(trial: Row, arm: str) -> Cell:
    found = _star_line(trial, arm)
    return _gap(found) if found else Cell("not estimable")


def _gap(row: Row) -> Cell:
    return Cell(signed(row), span(row))


def _logged(results: Results) -> Cell:
    found = (results.get("offpolicy") or {}).get("logged") or {}
    return (
        Cell(f"{number(found['value'])} as logged", span(found))
        if finite(found.get("value")) is not None
        else Cell("n/a")
    )


def _off_policy(results: Results, arm: str) -> Cell:
    found = results.get("offpolicy") or {}
    if "not_estimable" in found:
        return Cell("not estimable")
    row = next((row for row in found.get("policies") or [] if row.get("policy") == arm), {})
    said = (row.get("estimates") or {}).get("doubly robust") or {}
    if finite(said.get("value")) is not None:
        return Cell(number(said["value"]), span(said))
    return (
        Cell("not estimable", str(row.get("lacks") or ""))
        if "not_estimable" in said
        else Cell("n/a")
    )


def _audit_words(results: Results, arm: str) -> str:
    found = audits_of(results).get(arm) or {}
    said = [
        f"{_name(one.get('signal'))}: {one.get('recommendation', 'n/a')}"
        for one in found.get("verdicts") or []
    ]
    return ", ".join(said) or "none"


def _star_days(results: Results) -> int | None:
    """Days of the north star's window, where the outcomes stage says."""
    label = (results.get("experiment") or {}).get("north_star")
    days = next(
        (
            finite(one.get("days"))
            for one in (results.get("outcomes") or {}).values()
            if one.get("label") == label
        ),
        None,
    )
    return None if days is None else int(days)


def _beside(results: Results, rows: Sequence[LoopRow]) -> Block | None:
    """The trial's difference and the true one, per arm."""
    trial = results.get("experiment") or {}
    truth = {str(row.get("arm")): row.get("difference") or {} for row in trial.get("truth") or []}
    plotted, colours = [], colours_of(results)
    for row in rows:
        for how, found in (
            ("trial", _star_line(trial, row.arm)),
            ("true", truth.get(row.arm) or {}),
        ):
            if finite(found.get("value")) is not None:
                key = row.arm if how == "trial" else f"{row.arm}, true"
                colours[key] = colours.get(row.arm, INK) if how == "trial" else INK
                plotted.append(
                    {
                        "name": key,
                        "label": row.policy,
                        "how": how,
                        **_plain(found),
                        "text": f"{signed(found)} ({span(found)})",
                    }
                )
    if not plotted:
        return None
    title = (
        f"Difference from the incumbent in {_name(trial.get('north_star'))} per user: what "
        "the trial found, and what is true"
    )
    return charts.grouped(
        plotted,
        colours,
        title,
        "difference from the incumbent per user, with 95% interval",
        reference=(0.0, ""),
    )


def _by_day(results: Results) -> Block | None:
    """Share of each arm's users who visit, as trailing 7-day means."""
    trial, names, colours = results.get("experiment") or {}, names_of(results), colours_of(results)
    share: dict[str, dict[date, float]] = {}
    for row in trial.get("daily") or []:
        if row.get("day") and finite(row.get("share")) is not None:
            share.setdefault(str(row.get("arm")), {})[date.fromisoformat(str(row["day"])[:10])] = (
                float(row["share"])
            )
    if not share:
        return None
    first_day, last = (
        min(min(days) for days in share.values()),
        max(max(days) for days in share.values()),
    )
    days = [first_day + timedelta(days=place) for place in range((last - first_day).days + 1)]
    series = {}
    for arm in sorted(share, key=lambda arm: (*_arms(trial), arm).index(arm)):
        values = [share[arm].get(day, 0.0) for day in days]
        means = [
            (days[place].isoformat(), sum(values[place - 6 : place + 1]) / 7)
            for place in range(6, len(days))
        ]
        series[names.get(arm, arm)] = means
    if len(days) < 8:
        return None
    drawn = {names.get(arm, arm): colour for arm, colour in colours.items()}
    return charts.daily(
        series,
        drawn,
        "Share of each arm's users who visit on a day of the trial, mean of the last 7 days",
        "share who visit",
    )


def _plain(row: Row) -> dict[str, Any]:
    return {key: row.get(key) for key in ("value", "low", "high")}


def _name(label: Any) -> str:
    return str(label or "n/a").split("@")[0]
