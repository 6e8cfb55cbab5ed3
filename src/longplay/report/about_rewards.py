"""The section on early rewards: which model, whether it keeps its word, what it believes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from longplay.report import charts
from longplay.report.blocks import Block, Grid, Heading, Note, Section, Table
from longplay.report.charts import MODEL_COLOURS
from longplay.report.phrases import (
    MODEL_NAMES,
    coverage_words,
    difference,
    finite,
    listed,
    number,
    percent,
    plus_minus,
    signed,
    span,
    verdict,
    wilson,
)

Row = Mapping[str, Any]
PRIOR = "prior alone"
_SWATCHES = {MODEL_NAMES[name]: colour for name, colour in MODEL_COLOURS.items()}


def rewards(results: Mapping[str, Row]) -> Section:
    """Early rewards: models side by side on later entries, calibration, beliefs."""
    reward = results.get("reward") or {}
    if not reward:
        return Section(
            "rewards",
            "Early rewards",
            ("No early reward was fitted: the reward stage has no result.",),
        )
    answer: list[str] = []
    blocks: list[Block] = []
    for name, one in reward.items():
        binary = bool((results.get("outcomes") or {}).get(name, {}).get("binary", True))
        if len(reward) > 1:
            blocks.append(Heading(str(one.get("label", name))))
        answer += comparison_words(one, binary) + calibration_words(one)
        blocks += [*_standing(one), *_comparison(one, binary), *_calibration(one), *_beliefs(one)]
    return Section("rewards", "Early rewards", tuple(answer), tuple(blocks))


def loss_difference(row: Row) -> dict[str, Any]:
    """The paired difference of a model's loss to the prior alone, with its 95% interval (value,
    low, high)."""
    value, error = finite(row.get("difference")), finite(row.get("difference_se"))
    if value is None or error is None:
        return {"value": value, "low": None, "high": None}
    return {"value": value, "low": value - 1.96 * error, "high": value + 1.96 * error}


def clear_best(rows: Sequence[Row]) -> Row | None:
    """The model of least loss, if its interval of the difference to the prior ends below where the
    next one's begins."""
    ranked = sorted(
        (row for row in rows if finite(row.get("difference")) is not None),
        key=lambda row: row["difference"],
    )
    if len(ranked) < 2:
        return None
    best, following = loss_difference(ranked[0]), loss_difference(ranked[1])
    return (
        ranked[0]
        if best["high"] is not None
        and following["low"] is not None
        and best["high"] < following["low"]
        else None
    )


def comparison_words(one: Row, binary: bool) -> list[str]:
    """Whether the chosen model beats knowing nothing, and whether another beats it."""
    rows = {str(row.get("model")): row for row in one.get("comparison") or []}
    chosen = str(one.get("chosen", ""))
    if chosen not in rows:
        return []
    ours, loss = loss_difference(rows[chosen]), "log loss" if binary else "squared error"
    said = {
        "lower": "predicts later outcomes better than the prior alone",
        "higher": "predicts later outcomes worse than the prior alone",
    }
    name = MODEL_NAMES.get(chosen, chosen)
    words = [
        f"After {one.get('age', '?')} days the {name} reward "
        f"{said.get(verdict(ours), 'is not told apart from the prior alone')}: "
        f"{loss} {difference(ours)}, on {number(rows[chosen].get('entries'))} later entries."
    ]
    ranked = sorted(
        (row for row in rows.values() if finite(row.get("loss")) is not None),
        key=lambda row: row["loss"],
    )
    if ranked and ranked[0]["model"] != chosen:
        first = str(ranked[0]["model"])
        clear = clear_best(list(rows.values()))
        sure = (
            "its interval excludes the next"
            if clear is not None and clear["model"] == first
            else "but the intervals overlap"
        )
        words.append(
            f"The least {loss} is {MODEL_NAMES.get(first, first)}'s "
            f"({number(ranked[0]['loss'], 4)} against "
            f"{number(rows[chosen].get('loss'), 4)}), not the chosen one's; {sure}."
        )
    ours_mae, prior_mae = (
        finite(rows[chosen].get("item_mae")),
        finite((rows.get(PRIOR) or {}).get("item_mae")),
    )
    if ours_mae is not None and prior_mae is not None:
        told = "nearer than" if ours_mae < prior_mae else "no nearer than"
        words.append(
            f"Its beliefs about {number(rows[chosen].get('items'))} items are {told} one number "
            "for all: mean absolute error "
            f"{number(ours_mae, 4)} against {number(prior_mae, 4)} (no interval)."
        )
    return words


def calibration_words(one: Row) -> list[str]:
    """Whether the chosen model's intervals keep their promise, or why that is not known."""
    checked, chosen = one.get("calibration") or {}, str(one.get("chosen", ""))
    mine = checked.get(chosen)
    if not mine:
        return []
    if "not_estimable" in mine:
        return [f"Calibration is not estimable: {mine['not_estimable']}."]
    shares = {float(level): share for level, share in (mine.get("coverage") or {}).items()}
    items = int(mine.get("groups") or 0)
    if not shares or not items:
        return []
    level = max(shares)
    return [coverage_words(chosen, level, float(shares[level]), items)]


def _standing(one: Row) -> list[Block]:
    known, later = one.get("known") or {}, one.get("later") or {}
    blocks: list[Block] = []
    if one.get("association"):
        text = (
            "An association, not an effect. The log does not say what was shown, so the reward is "
            "what discoveries were followed "
            "by, not what showing would cause."
        )
        blocks.append(Note(text))
    elif "association" in one:
        blocks.append(
            Note(
                "The log holds what was shown and how likely that was, so the reward of a slot is "
                "estimated as an effect of showing, "
                "not as an association.",
                "plain",
            )
        )
    if known and later:
        learnt = f" The chosen model {one['learnt']}." if one.get("learnt") else ""
        text = (
            f"Fitted on what was known when training ended: {number(known.get('mature'))} mature "
            f"of {number(known.get('entries'))} entries.{learnt} "
            f"Judged on {number(later.get('mature'))} mature of {number(later.get('entries'))} "
            "entries that came later, each "
            f"observed for {one.get('age', '?')} days."
        )
        blocks.append(Heading("Models side by side", text))
    return blocks


def _comparison(one: Row, binary: bool) -> list[Block]:
    rows = list(one.get("comparison") or [])
    if not rows:
        return []
    loss = "log loss" if binary else "squared error"
    plotted, body = [], []
    for row in rows:
        name, gap = str(row.get("model")), loss_difference(row)
        alone = name == PRIOR
        if not alone:
            plotted.append({"name": name, **gap, "text": signed(gap)})
        error = finite(row.get("loss_se"))
        value = finite(row.get("loss"))
        own = (
            {"value": value, "low": None, "high": None}
            if value is None or error is None
            else {"value": value, "low": value - 1.96 * error, "high": value + 1.96 * error}
        )
        versus = "reference" if alone else f"{signed(gap)} ({span(gap)})"
        body.append(
            (
                MODEL_NAMES.get(name, name),
                plus_minus(own),
                versus,
                "" if alone else verdict(gap),
                number(row.get("rmse"), 4),
                number(row.get("concordance"), 3),
                f"{number(row.get('item_mae'), 4)} ({number(row.get('items'))})",
            )
        )
    best = clear_best(rows)
    head = (
        "model",
        f"{loss} ± 95%",
        "difference to the prior (95% interval)",
        "so it is",
        "RMSE",
        "concordance",
        "item MAE (items)",
    )
    caption = (
        f"Early rewards on later entries; lower {loss}, RMSE and MAE are better, "
        "concordance 0.5 is chance"
    )
    caption += (
        ""
        if best is not None
        else ". No model is set in bold: the best one's interval does not exclude the next"
    )
    strong = None if best is None else rows.index(best)
    table = Table(caption, head, tuple(body), "lrrlrrr", strong=strong, swatches=_SWATCHES)
    plot = charts.dots(
        plotted,
        MODEL_COLOURS,
        f"Difference in {loss} to the prior alone, with 95% interval (left is better)",
        f"difference in {loss}",
        zero_line=True,
        names=MODEL_NAMES,
    )
    return [plot, table] if plotted else [table]


def _calibration(one: Row) -> list[Block]:
    checked = {str(name): found for name, found in (one.get("calibration") or {}).items() if found}
    order = list(MODEL_COLOURS)
    ranked = sorted(
        checked.items(),
        key=lambda pair: (order.index(pair[0]) if pair[0] in order else len(order), pair[0]),
    )
    judged = {name: found for name, found in ranked if "not_estimable" not in found}
    blocks: list[Block] = []
    if judged:
        counts = sorted(
            {
                (int(found.get("groups") or 0), int(found.get("min_entries") or 0))
                for found in judged.values()
            }
        )
        sizes = listed(
            [f"{items} items with at least {least} mature entries each" for items, least in counts]
        )
        text = (
            f"Judged on {sizes}. Each item's prior was fitted without it; half of its users are "
            f"observed for {one.get('age', '?')} "
            "days, the other half say what came of it. "
            "Bars are 95% intervals, items and entries taken as independent."
        )
        blocks.append(Heading("Do beliefs keep their word about unseen items?", text))
        body = []
        for name, found in judged.items():
            colour, said = MODEL_COLOURS.get(name, charts.FAINT), MODEL_NAMES.get(name, name)
            blocks.append(Grid(tuple(_plots(found, colour, said)), columns=3))
            kept = ", ".join(
                f"{percent(float(level))}: {percent(share)}"
                for level, share in (found.get("coverage") or {}).items()
            )
            errors = (
                number(found.get("mae"), 4),
                number(found.get("prior_mae"), 4),
                number(found.get("sharpness"), 4),
                number(found.get("prior_sharpness"), 4),
            )
            body.append((said, f"{found.get('groups', 'n/a')}", kept, *errors))
        head = (
            "model",
            "items",
            "promised: kept",
            "MAE",
            "MAE of the prior",
            "std",
            "std of the prior",
        )
        blocks.append(
            Table(
                "Calibration of item means: coverage, error, and how unsure (std) beside the "
                "prior alone",
                head,
                tuple(body),
                "lrlrrrr",
                swatches=_SWATCHES,
            )
        )
    for name, found in checked.items():
        if "not_estimable" in found:
            blocks.append(
                Note(
                    f"{MODEL_NAMES.get(name, name)}: calibration not estimable. "
                    f"{found['not_estimable']}"
                )
            )
    return blocks


def _plots(found: Row, colour: str, name: str) -> list[Block]:
    plots: list[Block] = []
    bins = []
    for row in found.get("reliability") or []:
        error = finite(row.get("std_error")) or 0.0
        bins.append(
            {
                **row,
                "low": max(0.0, row["realised"] - 1.96 * error)
                if row["realised"] >= 0
                else row["realised"] - 1.96 * error,
                "high": row["realised"] + 1.96 * error,
            }
        )
    if bins:
        plots.append(charts.reliability(bins, colour, name))
    items, levels = int(found.get("groups") or 0), []
    for level, share in (found.get("coverage") or {}).items():
        low, high = wilson(float(share), items)
        levels.append(
            {"level": float(level), "share": share, "low": low, "high": high, "items": items}
        )
    if levels:
        plots.append(charts.coverage(levels, colour, name))
    counts = found.get("pit") or []
    if sum(counts):
        expected = sum(counts) / len(counts)
        plots.append(
            charts.pit(
                [
                    {
                        "low": k / len(counts),
                        "high": (k + 1) / len(counts),
                        "ratio": n / expected,
                        "n": n,
                    }
                    for k, n in enumerate(counts)
                ],
                colour,
                name,
            )
        )
    return plots


def _beliefs(one: Row) -> list[Block]:
    rows = list(one.get("beliefs") or [])
    if not rows:
        return []
    half = len(rows) // 2 if len(rows) >= 16 else len(rows)

    def table(caption: str, part: Sequence[Row]) -> Table:
        body = tuple(
            (
                str(row.get("title") or row.get("key")),
                number(row.get("entries")),
                f"{number(row.get('mean'), 3)} ± {number(row.get('std'), 3)}",
            )
            for row in part
        )
        return Table(caption, ("item or creator", "entries", "mean ± std"), body, "lrr")

    text = (
        "Among those with at least 30 entries; ± is one std, how unsure the model is of the "
        "expected outcome. The extremes of "
        "many noisy figures flatter themselves."
    )
    tables = [table("Believed in most", rows[:half])] + (
        [table("Believed in least", rows[half:])] if half < len(rows) else []
    )
    return [
        Heading(
            f"What the {MODEL_NAMES.get(str(one.get('chosen')), str(one.get('chosen')))} reward "
            "believes",
            text,
        ),
        Grid(tuple(tables)),
    ]
