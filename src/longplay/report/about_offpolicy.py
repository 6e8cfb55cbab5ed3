"""The section on what showing each policy's items would have been worth, from the logged slots
alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from longplay.report import charts
from longplay.report.blocks import Block, Code, Heading, Section, Table
from longplay.report.phrases import (
    bounds,
    finite,
    first,
    interval_words,
    listed,
    number,
    plus_minus,
    span,
)
from longplay.report.policy_names import colours_of, names_of, swatches_of

Row = Mapping[str, Any]
Results = Mapping[str, Row]
BEST = "doubly robust"


def offpolicy(results: Results) -> Section | None:
    """Off-policy values beside what was logged; null where the log could not be asked (the reason
    stands among the refusals)."""
    found = results.get("offpolicy") or {}
    rows = list(found.get("policies") or [])
    if not rows:
        return None
    names, colours, logged = names_of(results), colours_of(results), found.get("logged") or {}
    signal = str(found.get("signal", "the objective"))
    said = {names.get(str(row.get("policy")), str(row.get("policy"))): _best(row) for row in rows}
    refused = [name for name, one in said.items() if "not_estimable" in one]
    known = {name: one for name, one in said.items() if finite(one.get("value")) is not None}
    answer = [
        f"The log can value {len(known)} of {len(rows)} policies"
        + (f"; not {listed(refused)}, for reasons given below." if refused else ".")
    ]
    answer += [_against(name, one, logged, signal) for name, one in known.items()]
    text = (
        f"The question (estimand one_step): the {signal} of a slot, had it been drawn from the "
        "policy and the logger gone on. Answered from "
        f"{number(found.get('slots'))} mature slots on “{found.get('surface', 'any surface')}” of "
        f"{number(found.get('users'))} users nobody learned "
        "from. IPS weighs logged slots by how much likelier the policy is to show them; SNIPS "
        "divides by the mean weight; doubly robust adds a "
        "model of the outcome and is less noisy where that model is good. A slot's outcome counts "
        "whether or not it would have come anyway, "
        "so this is not the value of showing."
    )
    blocks: list[Block] = [Heading("", text)]
    plotted = [
        {
            "name": str(row.get("policy")),
            "label": names.get(str(row.get("policy")), str(row.get("policy"))),
            "how": how,
            **{key: one.get(key) for key in ("value", "low", "high")},
            "text": plus_minus(one),
        }
        for row in rows
        for how, one in (row.get("estimates") or {}).items()
        if finite(one.get("value")) is not None
    ]
    if plotted:
        value = finite(logged.get("value"))
        reference = None if value is None else (value, f"as logged {number(value)}")
        title = "Off-policy value per slot by policy and estimator, with 95% interval over users"
        blocks.append(
            charts.grouped(
                plotted, colours, title, f"value per slot ({signal})", reference=reference
            )
        )
    ways = list(dict.fromkeys(str(how) for row in rows for how in row.get("estimates") or {}))
    body = tuple(_line(row, names, ways) for row in rows)
    caption = f"Value per slot with 95% interval over users; the slots as logged: {_cell(logged)}"
    blocks.append(
        Table(
            caption,
            ("policy", *ways, "effective users"),
            body,
            "l" + "r" * (len(ways) + 1),
            swatches=swatches_of(results),
        )
    )
    diagnoses = "\n\n".join(str(row["diagnosis"]) for row in rows if row.get("diagnosis"))
    blocks += (
        [Code("Diagnosis: weights, overlap and support of every policy", diagnoses)]
        if diagnoses
        else []
    )
    return Section(
        "offpolicy",
        "Off-policy: what the log says about policies it has not seen",
        tuple(answer),
        tuple(blocks),
    )


def off_policy_refusals(results: Results) -> dict[str, str]:
    """Off-policy questions the log could not answer, one per policy and reason."""
    found, names, reasons = results.get("offpolicy") or {}, names_of(results), {}
    if "not_estimable" in found:
        reasons["off-policy value"] = str(found["not_estimable"])
    for row in found.get("policies") or []:
        name, ways = (
            names.get(str(row.get("policy")), str(row.get("policy"))),
            row.get("estimates") or {},
        )
        refused = {
            str(how): str(one["not_estimable"])
            for how, one in ways.items()
            if "not_estimable" in one
        }
        for reason in dict.fromkeys(refused.values()):
            same = [how for how, why in refused.items() if why == reason]
            reasons[
                f"off-policy value of {name}"
                + ("" if len(same) == len(ways) else f", {listed(same)}")
            ] = reason
    return reasons


def _best(row: Row) -> Row:
    return (row.get("estimates") or {}).get(BEST) or {}


def _against(name: str, one: Row, logged: Row, signal: str) -> str:
    """Where the estimate lies to what was logged: said only where their intervals do not
    overlap."""
    ours, theirs = bounds(one), bounds(logged)
    told = (
        ""
        if ours is None or theirs is None
        else "; its interval overlaps that of the slots as logged"
    )
    if ours is not None and theirs is not None and ours[0] > theirs[1]:
        told = f", above the {number(logged['value'])} of the slots as logged"
    elif ours is not None and theirs is not None and ours[1] < theirs[0]:
        told = f", below the {number(logged['value'])} of the slots as logged"
    return (
        f"{first(name)}: {number(one['value'])} {signal.split('@')[0]} per slot, doubly robust "
        f"({interval_words(one)}){told}."
    )


def _line(row: Row, names: Mapping[str, str], ways: list[str]) -> tuple[str, ...]:
    name, said = str(row.get("policy")), row.get("estimates") or {}
    users = next(
        (
            one["n_eff"]
            for one in (said.get(BEST) or {}, *said.values())
            if finite(one.get("n_eff")) is not None
        ),
        None,
    )
    return (
        names.get(name, name),
        *(_cell(said.get(how) or {}) for how in ways),
        "–" if users is None else number(users, 0),
    )


def _cell(one: Row) -> str:
    if finite(one.get("value")) is None:
        return "not estimable" if "not_estimable" in one else "n/a"
    return f"{number(one['value'])} ({span(one)})" if bounds(one) else number(one["value"])
