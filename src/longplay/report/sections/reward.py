"""Early rewards: comparison of models, calibration, and extreme beliefs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from longplay.display import Bounded, decimal, listed, percent, signed, span, with_interval
from longplay.intervals import wilson
from longplay.report import charts
from longplay.report.blocks import Block, Chart, Grid, Heading, Note, Section, Table
from longplay.report.charts import MODEL_COLOURS
from longplay.report.phrases import (
    LEAST_ITEMS,
    MODEL_NAMES,
    TOO_FEW_ITEMS,
    coverage_words,
    difference,
    model_name,
    too_few_items,
    verdict,
)
from longplay.report.showing_blocks import reliability_bins, showing_blocks, showing_plot
from longplay.report.steps import Steps
from longplay.report.value_blocks import value_blocks, value_words
from longplay.results import NotEstimable, RunResults
from longplay.results.outcome_figures import OutcomesResult
from longplay.results.reward_figures import (
    CalibrationFigures,
    EarlyRewardFigures,
    ItemBelief,
    ModelScore,
    RewardResult,
)

NAME, TITLE = "rewards", "Early rewards"
PRIOR = "prior alone"
_SWATCHES = {MODEL_NAMES[name]: colour for name, colour in MODEL_COLOURS.items()}


@dataclass(frozen=True)
class EarlyReward:
    """The early reward of one signal.

    Attributes:
        figures: of its stage.
        loss: the name of the loss that models are judged by.
    """

    figures: EarlyRewardFigures
    loss: str


@dataclass(frozen=True)
class RewardPlots:
    """The charts of one signal's early reward: the comparison of models, the calibration of each, and
    that of the chance of an entry."""

    comparison: Chart | None
    calibration: Mapping[str, tuple[Chart, ...]]
    showing: Chart | None


def collect(results: RunResults) -> tuple[EarlyReward, ...] | None:
    """The early reward of every objective."""
    rewards, outcomes = results.find(RewardResult), results.find(OutcomesResult)
    if rewards is None or not rewards.signals:
        return None
    signals = {} if outcomes is None else outcomes.signals
    return tuple(
        EarlyReward(figures, loss_name(name not in signals or signals[name].binary))
        for name, figures in rewards.signals.items()
    )


def draw(rewards: Sequence[EarlyReward]) -> tuple[RewardPlots, ...]:
    """Losses of the models, and the calibration of their intervals."""
    return tuple(
        RewardPlots(
            _comparison_plot(reward),
            {
                name: _calibration_plots(judged, name)
                for name, judged in _judged(reward.figures).items()
            },
            showing_plot(reward.figures.showing),
        )
        for reward in rewards
    )


def render(rewards: Sequence[EarlyReward], plots: Sequence[RewardPlots]) -> Section:
    """The models compared on later entries, their calibration, and the extreme beliefs."""
    answer: list[str] = []
    blocks: list[Block] = []
    for reward, drawn in zip(rewards, plots, strict=True):
        figures = reward.figures
        if len(rewards) > 1:
            blocks.append(Heading(figures.label))
        answer += comparison_words(figures, reward.loss) + calibration_words(figures)
        answer += value_words(figures.values, figures.chosen)
        blocks += _standing(figures)
        blocks += [] if drawn.comparison is None else [drawn.comparison]
        blocks += _comparison(reward)
        blocks += _calibration(figures, drawn.calibration)
        blocks += showing_blocks(figures.showing, drawn.showing)
        blocks += value_blocks(figures.values, figures.chosen)
        blocks += _beliefs(figures)
    return Section(NAME, TITLE, tuple(answer), tuple(blocks))


def loss_name(binary: bool) -> str:
    """The loss of a signal's models in words."""
    return "log loss" if binary else "squared error"


def loss_difference(row: ModelScore) -> Bounded:
    """The paired difference of a model's loss to the prior alone, with its 95% interval."""
    return Bounded.around(row.difference, row.difference_se)


def clear_best(rows: Sequence[ModelScore]) -> ModelScore | None:
    """The model of least loss, if its interval of the difference to the prior ends below where the
    next one's begins."""
    ranked = sorted(rows, key=lambda row: row.difference)
    if len(ranked) < 2:
        return None
    best, following = loss_difference(ranked[0]).interval, loss_difference(ranked[1]).interval
    clear = best is not None and following is not None and best[1] < following[0]
    return ranked[0] if clear else None


def comparison_words(figures: EarlyRewardFigures, loss: str) -> list[str]:
    """Whether the chosen model beats the prior alone, and whether another model beats it."""
    rows = {row.model: row for row in figures.comparison}
    chosen = rows.get(figures.chosen)
    if chosen is None:
        return []
    gap = loss_difference(chosen)
    against_prior = {
        "lower": "predicts later outcomes better than the prior alone",
        "higher": "predicts later outcomes worse than the prior alone",
    }.get(verdict(gap), "is not told apart from the prior alone")
    words = [
        f"After {figures.age} days the {model_name(figures.chosen)} reward {against_prior}: "
        f"{loss} {difference(gap)}, on {decimal(chosen.entries)} later entries."
    ]
    best = min(figures.comparison, key=lambda row: row.loss)
    if best.model != chosen.model:
        clear = clear_best(figures.comparison)
        sure = "but the intervals overlap"
        if clear is not None and clear.model == best.model:
            sure = "its interval excludes the next"
        words.append(
            f"The least {loss} is {model_name(best.model)}'s ({decimal(best.loss, 4)} against "
            f"{decimal(chosen.loss, 4)}), not the chosen one's; {sure}."
        )
    prior = rows.get(PRIOR)
    if prior is not None and prior.item_mae is not None and chosen.item_mae is not None:
        few = too_few_items(chosen.items or 0)
        if few:
            words.append(f"Whether its beliefs about items are near: {few}.")
            return words
        nearer = "nearer than" if chosen.item_mae < prior.item_mae else "no nearer than"
        words.append(
            f"Its beliefs about {decimal(chosen.items)} items are {nearer} one number for all: "
            f"mean absolute error {decimal(chosen.item_mae, 4)} against "
            f"{decimal(prior.item_mae, 4)} (no interval)."
        )
    return words


def calibration_words(figures: EarlyRewardFigures) -> list[str]:
    """Whether the chosen model's intervals are calibrated, or why that is not known."""
    checked = figures.calibration.get(figures.chosen)
    if isinstance(checked, NotEstimable):
        return [f"Calibration is not estimable: {checked.not_estimable}."]
    widest = None if checked is None else widest_coverage(checked)
    if checked is None or widest is None:
        return []
    level, share = widest
    return [coverage_words(figures.chosen, level, share, checked.groups)]


def widest_coverage(checked: CalibrationFigures) -> tuple[float, float] | None:
    """The greatest level that was checked, and the share of items that its intervals hold; null
    where no item was judged."""
    if not checked.coverage or not checked.groups:
        return None
    shares = {float(level): share for level, share in checked.coverage.items()}
    level = max(shares)
    return level, shares[level]


def _judged(figures: EarlyRewardFigures) -> dict[str, CalibrationFigures]:
    """The models that could be judged, in the order of their colours."""
    order = list(MODEL_COLOURS)
    ranked = sorted(
        figures.calibration.items(),
        key=lambda pair: (order.index(pair[0]) if pair[0] in order else len(order), pair[0]),
    )
    return {name: checked for name, checked in ranked if isinstance(checked, CalibrationFigures)}


def _standing(figures: EarlyRewardFigures) -> list[Block]:
    """Whether the reward is an effect or an association, and what it was fitted and judged on."""
    training = figures.known
    later = figures.later
    if figures.association:
        note = Note(
            "An association, not an effect. The log does not say what was shown, so the reward is "
            "what discoveries were followed "
            "by, not what showing would cause."
        )
    else:
        note = Note(
            "The log holds what was shown and how likely that was, so the reward of a slot is "
            "estimated as an effect of showing, "
            "not as an association.",
            "plain",
        )
    learnt = f" The chosen model {figures.learnt}." if figures.learnt else ""
    text = (
        f"Fitted on what was known when training ended: {decimal(training.mature)} mature "
        f"of {decimal(training.entries)} entries.{learnt} "
        f"Judged on {decimal(later.mature)} mature of {decimal(later.entries)} "
        "entries that came later, each "
        f"observed for {figures.age} days."
    )
    return [note, Heading("Models side by side", text)]


def _comparison_plot(reward: EarlyReward) -> Chart | None:
    """Chart of each model's loss less that of the prior alone."""
    rows = [row for row in reward.figures.comparison if row.model != PRIOR]
    if not rows:
        return None
    plotted: list[dict[str, Any]] = []
    for row in rows:
        gap = loss_difference(row)
        plotted.append({"name": row.model, **gap.row(), "text": signed(gap)})
    return charts.dots(
        plotted,
        MODEL_COLOURS,
        f"Difference in {reward.loss} to the prior alone, with 95% interval (left is better)",
        f"difference in {reward.loss}",
        zero_line=True,
        names=MODEL_NAMES,
    )


def _comparison(reward: EarlyReward) -> list[Block]:
    """The models in one table; the best is set in bold where its interval excludes the next."""
    rows, loss = reward.figures.comparison, reward.loss
    if not rows:
        return []
    best = clear_best(rows)
    head = (
        "model",
        f"{loss} (95% interval)",
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
    if best is None:
        caption += ". No model is set in bold: the best one's interval does not exclude the next"
    strong = None if best is None else rows.index(best)
    body = tuple(_score_cells(row) for row in rows)
    return [Table(caption, head, body, "lrrlrrr", strong=strong, swatches=_SWATCHES)]


def _score_cells(row: ModelScore) -> tuple[str, ...]:
    """The scores of a model as a table row."""
    gap, alone = loss_difference(row), row.model == PRIOR
    error = TOO_FEW_ITEMS if row.items < LEAST_ITEMS else decimal(row.item_mae, 4)
    return (
        model_name(row.model),
        with_interval(Bounded.around(row.loss, row.loss_se)),
        "reference" if alone else f"{signed(gap)} ({span(gap)})",
        "" if alone else verdict(gap),
        decimal(row.rmse, 4),
        decimal(row.concordance, 3),
        f"{error} ({decimal(row.items)})",
    )


def _calibration(
    figures: EarlyRewardFigures, plots: Mapping[str, tuple[Chart, ...]]
) -> list[Block]:
    """Calibration on unseen items: charts per model, a table, and what was not estimable."""
    judged = _judged(figures)
    blocks: list[Block] = []
    if judged:
        counts = sorted({(model.groups, model.min_entries) for model in judged.values()})
        sizes = listed(
            [f"{items} items with at least {least} mature entries each" for items, least in counts]
        )
        text = (
            f"Judged on {sizes}. Each item's prior was fitted without it; half of its users are "
            f"observed for {figures.age} "
            "days, the other half say what came of it. "
            "Bars are 95% intervals, items and entries taken as independent."
        )
        blocks.append(Heading("Do beliefs keep their word about unseen items?", text))
        blocks += [Grid(plots[name], columns=3) for name in judged]
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
                tuple(_calibration_cells(name, model) for name, model in judged.items()),
                "lrlrrrr",
                swatches=_SWATCHES,
            )
        )
    for name, checked in figures.calibration.items():
        if isinstance(checked, NotEstimable):
            words = f"{model_name(name)}: calibration not estimable. {checked.not_estimable}"
            blocks.append(Note(words))
    return blocks


def _calibration_cells(name: str, judged: CalibrationFigures) -> tuple[str, ...]:
    """The calibration of a model as a table row."""
    held = ", ".join(
        f"{percent(float(level))}: {percent(share)}" for level, share in judged.coverage.items()
    )
    return (
        model_name(name),
        f"{judged.groups}",
        TOO_FEW_ITEMS if judged.groups < LEAST_ITEMS else held,
        decimal(judged.mae, 4),
        decimal(judged.prior_mae, 4),
        decimal(judged.sharpness, 4),
        decimal(judged.prior_sharpness, 4),
    )


def _calibration_plots(judged: CalibrationFigures, model: str) -> tuple[Chart, ...]:
    """Reliability, coverage of item means, and the histogram of single outcomes."""
    colour, name = MODEL_COLOURS.get(model, charts.FAINT), model_name(model)
    plots: list[Chart] = []
    bins = reliability_bins(judged.reliability)
    if bins:
        plots.append(charts.reliability(bins, colour, name))
    levels = []
    for level, share in judged.coverage.items():
        low, high = wilson(share, judged.groups)
        levels.append(
            {
                "level": float(level),
                "share": share,
                "low": low,
                "high": high,
                "items": judged.groups,
            }
        )
    if levels:
        plots.append(charts.coverage(levels, colour, name))
    total, places = sum(judged.pit), len(judged.pit)
    if total:
        ratios = [
            {"low": k / places, "high": (k + 1) / places, "ratio": n / (total / places), "n": n}
            for k, n in enumerate(judged.pit)
        ]
        plots.append(charts.pit(ratios, colour, name))
    return tuple(plots)


def _beliefs(figures: EarlyRewardFigures) -> list[Block]:
    """The items that the chosen model expects most and least of, as two tables."""
    rows = figures.beliefs
    if not rows:
        return []
    title = f"What the {model_name(figures.chosen)} reward believes"
    if few := too_few_items(_items_believed_in(figures)):
        return [Heading(title, f"Which items it believes in most: {few}.")]
    half = len(rows) // 2
    text = (
        "Among those with at least 30 entries; std: how unsure the model is of the "
        "expected outcome. The extremes of "
        "many noisy figures flatter themselves."
    )
    tables = [
        _belief_table("Believed in most", rows[:half]),
        _belief_table("Believed in least", rows[half:]),
    ]
    return [Heading(title, text), Grid(tuple(tables))]


def _items_believed_in(figures: EarlyRewardFigures) -> int:
    """At least how many items the extremes were picked from: fewer than 16 are listed whole, of
    more the model was judged on those with enough later entries."""
    listed_items = len(figures.beliefs)
    judged = [row.items for row in figures.comparison if row.model == figures.chosen]
    return listed_items if listed_items < 16 else max(listed_items, *judged, 0)


def _belief_table(caption: str, rows: Sequence[ItemBelief]) -> Table:
    """Beliefs about items as a table."""
    body = tuple(
        (
            row.title or row.key,
            decimal(row.entries),
            decimal(row.mean, 3),
            decimal(row.std, 3),
        )
        for row in rows
    )
    return Table(caption, ("item or creator", "entries", "mean", "std"), body, "lrrr")


SECTIONS = (
    Steps(
        order=40,
        name=NAME,
        title=TITLE,
        absent="No early reward was fitted: the reward stage has no result.",
        collect=collect,
        draw=draw,
        render=render,
    ),
)
