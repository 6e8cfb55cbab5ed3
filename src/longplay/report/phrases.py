"""Sentences of the report, each derived from numbers and intervals; none is written in advance."""

from __future__ import annotations

from collections.abc import Sequence

from longplay.display import Bounded, decimal, decimals_of, listed, percent, share_of, signed, span
from longplay.intervals import wilson
from longplay.run_policies import START, run_policies

ZERO = "not distinguishable from zero"
# verbs of "the tuned policy ... the metric", against its own start and against another policy
VERBS_FROM_START = {"higher": "raised", "lower": "lowered", ZERO: "did not measurably change"}
VERBS_TO_OTHER = {"higher": "is above", "lower": "is below", ZERO: "is not told apart from"}
MODEL_NAMES = {
    "prior alone": "prior alone",
    "progressive": "progressive",
    "personal": "personal",
    "sequence": "sequence model",
    "auto_surrogate": "auto-surrogate",
    "day_two": "day-two proxy",
    "matured_only": "matured only",
    "ridge": "two-part ridge",
}


def model_name(model: str) -> str:
    """A model of early rewards in words."""
    return MODEL_NAMES.get(model, model)


def listed_models(models: Sequence[str]) -> str:
    """Several models of early rewards in words."""
    return listed([model_name(model) for model in models])


LEAST_ITEMS = 30  # with fewer, neither calibration nor the best items are stated
TOO_FEW_ITEMS = "too few items to tell"


def too_few_items(items: int) -> str:
    """Why nothing can be stated about items; empty where there are enough.

    >>> too_few_items(12), too_few_items(30)
    ('too few items to tell (12; at least 30 are needed)', '')
    """
    if items >= LEAST_ITEMS:
        return ""
    return f"{TOO_FEW_ITEMS} ({items:,}; at least {LEAST_ITEMS} are needed)"


def interval_words(row: Bounded, *, share: bool = False) -> str:
    """`95% interval 0.010 to 0.031`, or that there is no interval."""
    interval = row.interval
    if interval is None:
        return "no interval: too few users"
    if share:
        return f"95% interval {share_of(interval[0], row)} to {share_of(interval[1], row)}"
    return f"95% interval {span(row)}"


def verdict(row: Bounded) -> str:
    """Where the interval of a difference lies: higher, lower, or not distinguishable from zero.

    >>> verdict(Bounded(0.009, -0.003, 0.021)), verdict(Bounded(1.0, 0.5, 1.5))
    ('not distinguishable from zero', 'higher')
    """
    interval = row.interval
    if interval is None:
        return "no interval"
    if interval[0] <= 0 <= interval[1]:
        return ZERO
    return "higher" if interval[0] > 0 else "lower"


def difference(row: Bounded) -> str:
    """A difference with its interval, and `not distinguishable from zero` exactly where the
    interval includes it.

    >>> difference(Bounded(0.009, -0.003, 0.021))
    'difference +0.009, 95% interval −0.003 to 0.021: not distinguishable from zero'
    """
    words = f"difference {signed(row)}, {interval_words(row)}"
    return f"{words}: {ZERO}" if verdict(row) == ZERO else words


def change(
    gap: Bounded, policies: tuple[str, str], metric: str, values: tuple[float | None, float | None]
) -> str:
    """One sentence on a paired difference between two policies.

    It has the same form whatever the result, so that a loss is as visible as a win.

    Args:
        gap: the difference, the first policy less the second.
        policies: the first and the second.
        metric: the name of what differs.
        values: of the first policy and of the second.
    """
    phrases = {record.name: record.phrase for record in run_policies()}
    name = first(phrases.get(policies[0], policies[0]))
    other = phrases.get(policies[1], policies[1])
    digits = decimals_of(gap)
    value = decimal(values[0], digits)
    other_value = decimal(values[1], digits)
    if policies[1] == START:
        verb = VERBS_FROM_START.get(verdict(gap), "moved")
        sentence = f"{name} {verb} {metric}: from {other_value} to {value}"
    else:
        verb = VERBS_TO_OTHER.get(verdict(gap), "is beside")
        sentence = f"{name} {verb} {other} in {metric}: {value} against {other_value}"
    return f"{sentence} ({difference(gap)})."


def coverage_words(model: str, level: float, share: float, items: int) -> str:
    """Whether intervals contained as many realised means as their level promises.

    Args:
        model: key of the model.
        level: nominal level of the intervals, 0..1.
        share: of items whose realised mean lay inside, 0..1.
        items: that were judged.
    """
    name = MODEL_NAMES.get(model, model)
    if few := too_few_items(items):
        return f"Whether the {percent(level)} intervals of {name} keep their promise: {few}."
    low, high = wilson(share, items)
    if level > high:
        finding = "they promise more than they keep (too narrow)"
    elif level < low:
        finding = "they are wider than they need to be"
    else:
        finding = f"consistent with {percent(level)}"
    return (
        f"The {percent(level)} intervals of {name} held the realised mean of {percent(share)} of "
        f"{items:,} unseen items (95% "
        f"interval {percent(low)} to {percent(high)}): {finding}."
    )


def first(text: str) -> str:
    """The text with a capital first letter."""
    return text[:1].upper() + text[1:]
