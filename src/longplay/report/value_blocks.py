"""The models' values of showing in the report: what the slots that each ranks first came to, and whether
a baseline picks better ones than the chosen model."""

from __future__ import annotations

from longplay.display import Bounded, decimal, signed, span, with_interval
from longplay.report.blocks import Block, Heading, Table
from longplay.report.charts import MODEL_COLOURS
from longplay.report.phrases import MODEL_NAMES, listed_models, model_name
from longplay.results.reward_figures import PickedSlots, ValueFigures

_SWATCHES = {MODEL_NAMES[name]: colour for name, colour in MODEL_COLOURS.items()}


def gap(picked: PickedSlots) -> Bounded:
    """How much more the slots came to than those of the chosen model, with its 95% interval."""
    return Bounded.around(picked.difference, picked.difference_se)


def value_words(values: ValueFigures | None, chosen: str) -> list[str]:
    """Whether another model picks better slots than the chosen one, or worse ones."""
    if values is None:
        return []
    others = [score for score in values.scores if score.model != chosen]
    if not others:
        return []
    words = []
    better, worse = set(), set()
    for score in others:
        for picked, place in (
            (score.top, "the tenth of the slots that it values most"),
            (score.best, "the slot of each slate that it values most"),
        ):
            interval = gap(picked).interval
            if interval is not None and interval[0] > 0:
                better.add(score.model)
                words.append(
                    f"The {model_name(score.model)} reward picks better slots than the chosen "
                    f"{model_name(chosen)} one: {place} came to {signed(gap(picked))} more per slot "
                    f"({span(gap(picked))})."
                )
            if interval is not None and interval[1] < 0:
                worse.add(score.model)
    if not better:
        words.append(
            f"No other model picks better slots than the {model_name(chosen)} reward with an interval "
            f"that excludes zero, on {decimal(values.slots)} slots of held-out users."
        )
    beaten = [score.model for score in others if score.model in worse - better]
    if beaten:
        words.append(f"It picks better slots than {listed_models(beaten)}.")
    return words


def value_blocks(values: ValueFigures | None, chosen: str) -> list[Block]:
    """The models side by side: what the slots that each ranks first came to."""
    if values is None:
        return []
    text = (
        f"{decimal(values.slots)} slots of {decimal(values.slates)} slates, shown to "
        f"{decimal(values.users)} users who taught no model; each is mature and of a creator who was new "
        f"to the user. A slot comes to the outcome of the entry that its play opened, else to 0; a "
        f"usual one to {decimal(values.usual, 4)}. Intervals are by user, differences paired."
    )
    head = (
        "model",
        "top tenth (95% interval)",
        "less the chosen model's",
        "best of its slate (95% interval)",
        "less the chosen model's",
    )
    body = tuple(
        (
            model_name(score.model),
            *_cells(score.top, score.model == chosen),
            *_cells(score.best, score.model == chosen),
        )
        for score in values.scores
    )
    table = Table("Outcome per slot", head, body, "lrrrr", swatches=_SWATCHES)
    return [Heading("Which value of showing picks the better slots?", text), table]


def _cells(picked: PickedSlots, is_chosen: bool) -> tuple[str, str]:
    """The outcome per slot, and its difference to the chosen model's."""
    mean = with_interval(Bounded.around(picked.mean, picked.mean_se))
    difference = "reference" if is_chosen else f"{signed(gap(picked))} ({span(gap(picked))})"
    return mean, difference
