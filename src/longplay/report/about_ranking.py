"""Sections that compare policies: how they rank what came next, and what the simulated world says
showing is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from longplay.report import charts
from longplay.report.about_log import log_of
from longplay.report.blocks import Block, Grid, Heading, Note, Section, Table
from longplay.report.phrases import (
    ZERO,
    change,
    finite,
    number,
    percent,
    plus_minus,
    signed,
    span,
    verdict,
)
from longplay.report.policy_names import colours_of, names_of, rivals_of, swatches_of

Row = Mapping[str, Any]
Results = Mapping[str, Row]
POLICIES = ("popular", "start", "reward-weighted", "reinforced")
PAIRS = (
    ("reinforced", "reward-weighted"),
    ("reinforced", "start"),
    ("reward-weighted", "start"),
    ("start", "popular"),
)
METRICS = (
    *(f"{name}@{k}" for name in ("HR", "NDCG", "habit NDCG") for k in (1, 5, 10, 50)),
    "coverage@10",
    "cold-start share@10",
)
CREATORS = "creators per slate"


def ranking(results: Results) -> Section:
    """Ranking on the future, before and after reinforcement, with paired differences."""
    found, title = results.get("evaluate") or {}, "Ranking before and after"
    rows = list(found.get("ranking") or [])
    if not rows:
        why = (found.get("not_estimable") or {}).get(
            "ranking"
        ) or "the evaluate stage has no ranking"
        return Section("ranking", title, (f"Nothing was ranked: {why}.",))
    differences, names, colours = (
        list(found.get("differences") or []),
        names_of(results),
        colours_of(results),
    )
    answer = [
        word
        for metric in ("habit NDCG@10", "NDCG@10")
        for word in ranking_words(rows, differences, metric, _rivals(results))
    ]
    answer += _exposure_words(rows)
    blocks: list[Block] = []
    if results.get("simulate") or log_of(results).get("has_decisions"):
        text = (
            "Not a verdict on the policies. A logging policy chose what these users saw, so a "
            "ranking of what they then played "
            "favours whoever ranks like that policy"
        )
        text += " (here the popular one)." if results.get("simulate") else "."
        blocks.append(Note(text))
    visits = (
        f"{number(found.get('visits'))} visits of {number(found.get('users'))} users after "
        "training ended, "
        f"{number(found.get('discoveries'))} discoveries, of which {number(found.get('habits'))} "
        "became a habit "
        f"({found.get('signal', 'signal unknown')})."
    )
    unknown = finite(found.get("new_to_catalogue"))
    blocks.append(
        Heading(
            "",
            visits
            + (
                f" {percent(unknown, 1)} of the discovered items were not in the catalogue yet "
                "and cannot be hit."
                if unknown
                else ""
            ),
        )
    )
    policies = [name for name in POLICIES if any(row.get("policy") == name for row in rows)]
    policies += [
        name
        for name in dict.fromkeys(str(row.get("policy")) for row in rows)
        if name not in policies
    ]
    plots = [
        _dots(rows, policies, metric, colours, names)
        for metric in ("NDCG@10", "habit NDCG@10")
        if any(row.get("metric") == metric for row in rows)
    ]
    blocks += [Grid(tuple(plots))] if plots else []
    metrics = [metric for metric in METRICS if any(row.get("metric") == metric for row in rows)]
    metrics += dict.fromkeys(
        str(row.get("metric")) for row in rows if str(row.get("metric")).startswith(CREATORS)
    )
    cells = {(str(row.get("policy")), str(row.get("metric"))): row for row in rows}
    body = tuple(
        (
            metric,
            *(_cell(cells.get((name, metric)), metric) for name in policies),
            _n(cells, policies, metric),
        )
        for metric in metrics
    )
    said = tuple(names.get(name, name) for name in policies)
    caption = (
        "Ranking by policy: value ± half-width of the 95% interval, clustered by user; "
        "coverage and cold-start share are counts, without one"
    )
    blocks.append(
        Table(
            caption,
            ("metric", *said, "users"),
            body,
            "l" + "r" * (len(policies) + 1),
            swatches=swatches_of(results),
        )
    )
    if differences:
        blocks.append(_differences(differences, "Paired differences on the same visits", names))
    return Section("ranking", title, tuple(answer), tuple(blocks))


def ranking_words(
    rows: Sequence[Row],
    differences: Sequence[Row],
    metric: str,
    rivals: Mapping[str, str] | None = None,
) -> list[str]:
    """What reinforcement did to `metric`: against reward-weighted training, the start, and rivals
    (name: in words) where compared."""
    values = {
        str(row.get("policy")): row.get("value")
        for row in rows
        if row.get("metric", metric) == metric
    }
    words = []
    for ours, base in (*PAIRS[:2], *(("reinforced", rival) for rival in rivals or {})):
        row = next(
            (
                row
                for row in differences
                if (row.get("policy"), row.get("than")) == (ours, base)
                and row.get("metric", metric) == metric
            ),
            None,
        )
        if row is not None:
            if rivals and base in rivals:
                row = {**row, "than": rivals[base]}
            words.append(change(row, metric, values.get(ours), values.get(base)))
    return words


def truth(results: Results) -> Section | None:
    """What the simulated world says showing is worth; null where the log was not simulated."""
    if not results.get("simulate"):
        return None
    title = "The world knows: true value of showing"
    found = (results.get("evaluate") or {}).get("true_value") or {}
    rows, differences = list(found.get("policies") or []), list(found.get("differences") or [])
    if not rows:
        return Section(
            "truth", title, ("The log was simulated, but the evaluate stage has no true values.",)
        )
    signal = str((results.get("evaluate") or {}).get("signal", "the signal"))
    names = names_of(results)
    answer = ranking_words(rows, differences, "true value per slot", _rivals(results))
    believed = _last_reward(results)
    actual = next(
        (finite(row.get("value")) for row in rows if row.get("policy") == "reinforced"), None
    )
    if (
        believed is not None
        and actual
        and list((results.get("reinforce") or {}).get("objectives", {}).items()) == [(signal, 1.0)]
    ):
        answer.append(
            f"At its last steps reinforcement's own early reward read {number(believed)} per slot "
            "on the training moments; the "
            f"world says {number(actual)} on these users: {number(believed / actual, 1)} times."
        )
    plotted = [
        {
            "name": row["policy"],
            "value": row.get("value"),
            "low": row.get("low"),
            "high": row.get("high"),
            "text": plus_minus(row),
        }
        for row in rows
    ]
    plot = charts.dots(
        plotted,
        colours_of(results),
        "True value of showing by policy, with 95% interval over users",
        f"true value per slot shown ({signal})",
        names=names,
    )
    body = tuple(
        (
            names.get(str(row.get("policy")), str(row.get("policy"))),
            plus_minus(row),
            number(row.get("n")),
        )
        for row in rows
    )
    table = Table(
        f"True value per slot: extra {signal} outcomes caused by showing the slot",
        ("policy", "value ± 95%", "users"),
        body,
        "lrr",
        swatches=swatches_of(results),
    )
    text = (
        f"{number(found.get('users'))} users who were there when training ended, one slate each. "
        "The intervals cover the draw of "
        "users, not another training seed or another world."
    )
    return Section(
        "truth",
        title,
        tuple(answer),
        (
            Heading("", text),
            plot,
            table,
            _differences(differences, "Paired differences on the same users", names),
        ),
    )


def _rivals(results: Results) -> dict[str, str]:
    """Rivals by name as a sentence needs them: `reinforcement on clicks`."""
    names = names_of(results)
    return {
        name: names[name].replace("reinforced", "reinforcement", 1) for name in rivals_of(results)
    }


def _last_reward(results: Results) -> float | None:
    rewards = [
        value
        for row in (results.get("reinforce") or {}).get("curve") or []
        if (value := finite(row.get("reward"))) is not None
    ]
    part = max(1, min(10, len(rewards) // 5))
    return sum(rewards[-part:]) / part if rewards else None


def _exposure_words(rows: Sequence[Row]) -> list[str]:
    value = {
        str(row.get("policy")): finite(row.get("value"))
        for row in rows
        if row.get("metric") == "coverage@10"
    }
    before, after = value.get("start"), value.get("reinforced")
    if before is None or after is None:
        return []
    verb = "fell" if after < before else "rose" if after > before else "stayed"
    return [
        f"Coverage@10 {verb} from {percent(before)} of the catalogue at the start to "
        f"{percent(after)} after reinforcement."
    ]


def _dots(
    rows: Sequence[Row],
    policies: Sequence[str],
    metric: str,
    colours: Mapping[str, str],
    names: Mapping[str, str],
) -> Block:
    found = {str(row.get("policy")): row for row in rows if row.get("metric") == metric}
    plotted = [
        {
            "name": name,
            "value": row.get("value"),
            "low": row.get("low"),
            "high": row.get("high"),
            "text": plus_minus(row),
        }
        for name in policies
        if (row := found.get(name))
    ]
    return charts.dots(plotted, colours, f"{metric}, with 95% interval", metric, names=names)


def _cell(row: Row | None, metric: str) -> str:
    if row is None:
        return "n/a"
    return (
        percent(row.get("value"), 1) if metric.startswith(("coverage", "cold")) else plus_minus(row)
    )


def _n(cells: Mapping[tuple[str, str], Row], policies: Sequence[str], metric: str) -> str:
    counts = {
        int(n) for name in policies if (n := cells.get((name, metric), {}).get("n")) is not None
    }
    return " / ".join(number(count) for count in sorted(counts))


def _differences(rows: Sequence[Row], caption: str, names: Mapping[str, str]) -> Table:
    places = {pair: place for place, pair in enumerate(PAIRS)}
    ordered = sorted(
        rows,
        key=lambda row: places.get((str(row.get("policy")), str(row.get("than"))), len(places)),
    )
    body = tuple(
        (
            " − ".join(
                names.get(str(name), str(name)) for name in (row.get("policy"), row.get("than"))
            ),
            str(row.get("metric", "true value")),
            signed(row),
            span(row) or "none",
            number(row.get("n")),
            verdict(row),
        )
        for row in ordered
    )
    zero = sum(verdict(row) == ZERO for row in rows)
    note = (
        f"{caption}: {len(rows)} intervals at 95% each, not corrected for their number; {zero} "
        "of them include zero"
    )
    return Table(
        note,
        ("difference", "metric", "value", "95% interval", "users", "so the first is"),
        body,
        "llrlrl",
    )
