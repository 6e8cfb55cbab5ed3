"""Sections on policies before they are judged: their codes, how they learned; and what this data
cannot answer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from longplay.report import charts
from longplay.report.about_offpolicy import off_policy_refusals
from longplay.report.about_trial import trial_refusals
from longplay.report.blocks import Block, Bullets, Grid, Heading, Section, Table
from longplay.report.charts import FAINT, POLICY_COLOURS
from longplay.report.phrases import finite, first, number, percent
from longplay.report.policy_names import colours_of, names_of, rivals_of, swatches_of

Row = Mapping[str, Any]
Results = Mapping[str, Row]


def codes(results: Results) -> Section:
    """Semantic IDs: how well they describe the items, and what stands together."""
    found, title = results.get("codes") or {}, "Semantic IDs"
    if not found:
        return Section(
            "codes", title, ("No semantic IDs were made: the codes stage has no result.",)
        )
    answer = (
        f"{number(found.get('levels'))} codes of {number(found.get('width'))} name each of "
        f"{number(found.get('items'))} items; "
        f"they explain {percent(found.get('reconstruction'))} of the variance of the items' "
        f"vectors, and {percent(found.get('moved'))} of the items "
        "did not get their nearest last code because it was taken.",
    )
    usage = ", ".join(percent(share) for share in found.get("usage") or [])
    rows = [
        ("version", str(found.get("version", "n/a"))),
        ("items in the largest first code", number(found.get("largest_prefix"))),
    ]
    rows += [("codes in use, by level", usage)] if usage else []
    made_of = found.get("vectors") or {}
    kinds = ("behaviour", "words")
    rows += (
        [("made of", "; ".join(f"{kind}: {made_of[kind]}" for kind in kinds if kind in made_of))]
        if made_of
        else []
    )
    shelves = [
        Bullets(
            f"Shelf {'·'.join(str(code) for code in shelf.get('prefix') or [])}: "
            f"{number(shelf.get('items'))} items",
            tuple(str(name).strip() for name in shelf.get("titles") or []),
        )
        for shelf in found.get("shelves") or []
    ]
    blocks: list[Block] = [
        Table("The codebook", ("figure", "value"), tuple(rows), "lr"),
        *_purity(found.get("purity") or {}),
    ]
    if shelves:
        blocks += [
            Heading(
                "Shelves: items that share their first two codes",
                "The largest ones, with at most six titles each. Read them as a person would: do "
                "they belong together?",
            ),
            Grid(tuple(shelves), columns=3),
        ]
    return Section("codes", title, answer, tuple(blocks))


def _purity(found: Mapping[str, Mapping[str, Sequence[float]]]) -> list[Block]:
    """How well prefixes agree with creators and tags, beside the same of shuffled labels."""
    lengths = max((len(one.get("found") or []) for one in found.values()), default=0)
    if not lengths:
        return []
    rows = [
        (
            f"{name}, {words}" if words == "shuffled" else name,
            *(percent(share) for share in one.get(words) or []),
        )
        for name, one in found.items()
        for words in ("found", "shuffled")
    ]
    head = (
        "label",
        *(
            f"first {length} codes" if length > 1 else "first code"
            for length in range(1, lengths + 1)
        ),
    )
    caption = (
        "Share of items that carry the most frequent creator or tag of their first codes; "
        "shuffled: by chance"
    )
    return [Table(caption, head, tuple(rows), "l" + "r" * lengths)]


def training(results: Results) -> Section:
    """Training curves of the start, of reinforcement and of reward-weighted training."""
    start, tuned = results.get("train") or {}, results.get("reinforce") or {}
    title = "Training curves"
    if not start and not tuned:
        return Section(
            "training",
            title,
            ("Nothing was trained: the train and reinforce stages have no result.",),
        )
    answer = (
        _start_words(start, results.get("codes") or {})
        + _tuned_words(tuned)
        + _rival_words(results)
    )
    plots: list[Block] = []
    curve, colour = list(start.get("curve") or []), POLICY_COLOURS["start"]
    if len(curve) > 1:
        series = {"train": _points(curve, "loss"), "held out": _points(curve, "held_out")}
        series = {name: points for name, points in series.items() if points}
        plots.append(
            charts.lines(
                series,
                {"train": FAINT, "held out": colour},
                "The start: next-item loss",
                "nats per item",
                zero=False,
            )
        )
    plots += _reinforced_plots(results)
    curve, colour = (
        list((tuned.get("weighted") or {}).get("curve") or []),
        POLICY_COLOURS["reward-weighted"],
    )
    if len(curve) > 2:
        plots.append(
            charts.lines(
                {"loss": _points(curve, "loss")},
                {"loss": colour},
                "Reward-weighted training: loss",
                "weighted nats per discovery",
                zero=False,
            )
        )
    body = [
        (name, str(version))
        for name, version in (
            ("start", start.get("policy")),
            ("reinforced", tuned.get("policy")),
            ("reward-weighted", (tuned.get("weighted") or {}).get("policy")),
            *((name, one.get("policy")) for name, one in rivals_of(results).items()),
        )
        if version
    ]
    names = names_of(results)
    body = [(names.get(name, name), version) for name, version in body]
    sizes = (
        [("parameters", number(start.get("parameters"))), ("scale", str(start.get("scale")))]
        if start
        else []
    )
    goals = (
        [
            (
                "objectives",
                ", ".join(
                    f"{weight:g} × {name}"
                    for name, weight in (tuned.get("objectives") or {}).items()
                ),
            ),
            ("caution (std subtracted)", number(tuned.get("caution"))),
            *_guardrail_rows(tuned),
            ("KL weight, reinforced", number(tuned.get("kl_weight"))),
            (
                "KL weight, reward-weighted",
                number(tuned.get("weighted_kl", tuned.get("kl_weight"))),
            ),
        ]
        if tuned
        else []
    )
    table = Table(
        "What was trained",
        ("what", "version or value"),
        tuple(body + sizes + goals),
        "lr",
        swatches=swatches_of(results),
    )
    return Section(
        "training", title, tuple(answer), (*((Grid(tuple(plots)),) if plots else ()), table)
    )


def _guardrail_rows(tuned: Row) -> list[tuple[str, str]]:
    """Each guardrail with what was asked and what the weights that were kept have; and the step
    they are of."""
    last = (list(tuned.get("curve") or []) or [{}])[-1]
    rows = [
        (
            f"guardrail {label}",
            f"at least {percent(bound)} of the start's; last measured {percent(last.get(label))}",
        )
        for label, bound in (tuned.get("guardrails") or {}).items()
    ]
    return [*rows, ("weights kept are of step", number(last.get("kept")))] if rows else []


def _reinforced_plots(results: Results) -> list[Block]:
    """Reward, KL and silent groups of reinforcement; every rival has a reward of its own and joins
    the other two."""
    tuned, names, colours = results.get("reinforce") or {}, names_of(results), colours_of(results)
    runs = {
        name: list(one.get("curve") or [])
        for name, one in (("reinforced", tuned), *rivals_of(results).items())
    }
    runs = {name: curve for name, curve in runs.items() if len(curve) > 1}
    if not runs:
        return []
    plots: list[Block] = []
    for name, curve in runs.items():
        raw = _points(curve, "reward")
        window = max(1, min(10, len(raw) // 5))
        series = (
            {"each step": raw, "mean": _smooth(raw, window)} if window > 1 else {"each step": raw}
        )
        drawn = {"each step": FAINT if window > 1 else colours[name], "mean": colours[name]}
        who = "Reinforcement" if len(runs) == 1 else first(names[name])
        said = f"{who}: early reward per slot" + (
            f", each step (thin) and mean of {window}" if window > 1 else ""
        )
        plots.append(
            charts.lines(
                series,
                drawn,
                said,
                "cautious value of showing, per slot",
                faint="each step" if window > 1 else None,
            )
        )
    several = len(runs) > 1
    drawn = {names[name]: colours[name] for name in runs}
    if several:
        distance = {names[name]: _points(curve, "kl") for name, curve in runs.items()}
        silent = {names[name]: _points(curve, "zero_advantage") for name, curve in runs.items()}
    else:
        name, curve = next(iter(runs.items()))
        distance = {"mean": _points(curve, "kl"), "95th percentile": _points(curve, "kl_p95")}
        silent = {"zero advantage": _points(curve, "zero_advantage")}
        drawn |= {"mean": colours[name], "95th percentile": FAINT, "zero advantage": colours[name]}
    distance = {name: points for name, points in distance.items() if points}
    plots.append(
        charts.lines(
            distance, drawn, "Reinforcement: KL to the start", "nats per slot", legend=several
        )
    )
    title = "Reinforcement: groups that teach nothing"
    plots.append(
        charts.lines(silent, drawn, title, "share with zero advantage", share=True, legend=several)
    )
    return plots


def refusals(results: Results) -> Section:
    """What this data cannot answer, and why."""
    reasons = {
        str(what): str(why)
        for what, why in ((results.get("evaluate") or {}).get("not_estimable") or {}).items()
    }
    for name, one in (results.get("reward") or {}).items():
        for model, found in (one.get("calibration") or {}).items():
            if found and "not_estimable" in found:
                reasons[f"calibration of {model} on {one.get('label', name)}"] = str(
                    found["not_estimable"]
                )
    for question, why in (
        off_policy_refusals(results) | trial_refusals(results.get("experiment") or {})
    ).items():
        reasons.setdefault(question, why)
    title = "Not estimable, and why"
    if not reasons:
        return Section("refusals", title, ("Nothing was refused.",))
    table = Table("What was not answered", ("question", "reason"), tuple(reasons.items()), "ll")
    return Section(
        "refusals",
        title,
        (
            f"{len(reasons)} {'question' if len(reasons) == 1 else 'questions'} this page does "
            "not answer.",
        ),
        (table,),
    )


def _start_words(start: Row, found: Row) -> list[str]:
    curve = [row for row in start.get("curve") or [] if finite(row.get("held_out")) is not None]
    if len(curve) < 2:
        return [] if not start else ["The start has no held-out curve."]
    begun, last, least = curve[0], curve[-1], min(curve, key=lambda row: row["held_out"])
    verb = "fell" if last["held_out"] < begun["held_out"] else "rose"
    items = found.get("items")
    chance = (
        f" (guessing among {number(items)} items: {number(math.log(items), 2)})"
        if items and items > 1
        else ""
    )
    late = (
        ""
        if last["held_out"] - least["held_out"] < 0.005
        else f"; it was least, {number(least['held_out'], 2)}, at step {least['step']}"
    )
    return [
        f"The start's held-out loss {verb} from {number(begun['held_out'], 2)} to "
        f"{number(last['held_out'], 2)} nats per item{chance}{late}."
    ]


def _tuned_words(tuned: Row) -> list[str]:
    curve = list(tuned.get("curve") or [])
    if not curve:
        return ["No policy was reinforced: the reinforce stage has no steps."]
    rewards = [value for row in curve if (value := finite(row.get("reward"))) is not None]
    part = max(1, min(10, len(rewards) // 5))
    words = []
    if rewards:
        begun, last = sum(rewards[:part]) / part, sum(rewards[-part:]) / part
        verb = "rose" if last > begun else "fell"
        words.append(
            f"The early reward per slot {verb} from {number(begun)} to {number(last)} (means of "
            f"the first and last {part} steps). "
            "That is the reward's own opinion, not an outcome."
        )
    end, silent = (
        curve[-1],
        [value for row in curve if (value := finite(row.get("zero_advantage"))) is not None],
    )
    if finite(end.get("kl")) is not None:
        words.append(
            f"The policy ended {number(end['kl'], 2)} nats per slot from the start (95th "
            "percentile "
            f"{number(end.get('kl_p95'), 2)}); "
            f"{percent(sum(silent) / len(silent) if silent else None, 1)} of groups had equal "
            "rewards and taught nothing."
        )
    return words


def _rival_words(results: Results) -> list[str]:
    """How far each rival came in its own reward, which is another unit."""
    names, words = names_of(results), []
    for name, one in rivals_of(results).items():
        curve = list(one.get("curve") or [])
        rewards = [value for row in curve if (value := finite(row.get("reward"))) is not None]
        if rewards:
            part = max(1, min(10, len(rewards) // 5))
            begun, ended = sum(rewards[:part]) / part, sum(rewards[-part:]) / part
            words.append(
                f"{first(names[name])}, the same start went from {number(begun)} to "
                f"{number(ended)} of its own reward per slot, and "
                f"{number(curve[-1].get('kl'), 2)} nats per slot from the start."
            )
    return words


def _points(curve: Sequence[Row], key: str) -> list[tuple[float, float]]:
    return [(row["step"], value) for row in curve if (value := finite(row.get(key))) is not None]


def _smooth(points: Sequence[tuple[float, float]], window: int) -> list[tuple[float, float]]:
    """Trailing means over `window` points."""
    return [
        (
            points[place][0],
            sum(value for _, value in points[place - window + 1 : place + 1]) / window,
        )
        for place in range(window - 1, len(points))
    ]
