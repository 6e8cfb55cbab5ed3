"""Figures as words: every sentence of the page is derived here from numbers and intervals, none is
written in advance."""

from __future__ import annotations

from longplay.display import Bounded, decimal, decimals_of, percent, share_of, signed, span
from longplay.intervals import wilson
from longplay.run_policies import START, run_policies

ZERO = "not distinguishable from zero"
MODEL_NAMES = {
    "prior alone": "prior alone",
    "progressive": "progressive",
    "auto_surrogate": "auto-surrogate",
    "day_two": "day-two proxy",
    "matured_only": "matured only",
}


LEAST_ITEMS = 30  # fewer say nothing of items: neither calibration, nor which are best
TOO_FEW_ITEMS = "too few items to tell"


def too_few_items(items: int) -> str:
    """Why nothing is said of items; empty where there are enough.

    >>> too_few_items(12), too_few_items(30)
    ('too few items to tell (12; at least 30 are needed)', '')
    """
    if items >= LEAST_ITEMS:
        return ""
    return f"{TOO_FEW_ITEMS} ({items:,}; at least {LEAST_ITEMS} are needed)"


def interval_words(row: Bounded, *, share: bool = False) -> str:
    """`95% interval 0.010 to 0.031`, or that there is none."""
    interval = row.interval
    if interval is None:
        return "no interval: too few users"
    if share:
        return f"95% interval {share_of(interval[0], row)} to {share_of(interval[1], row)}"
    return f"95% interval {span(row)}"


def verdict(row: Bounded) -> str:
    """What an interval of a difference says: higher, lower, or not distinguishable from zero.

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
    said = verdict(row)
    return f"difference {signed(row)}, {interval_words(row)}" + (
        f": {ZERO}" if said == ZERO else ""
    )


def change(
    gap: Bounded, policies: tuple[str, str], metric: str, values: tuple[float | None, float | None]
) -> str:
    """One sentence on a paired difference between two policies, from their values and its interval.

    The same form whatever the result, so that a loss reads as loud as a win.

    Args:
        gap: the difference, the first policy less the second.
        policies: the first and the second.
        metric: of what.
        values: of the first and of the second.
    """
    name, other = policies
    phrases = {record.name: record.phrase for record in run_policies()}
    policy = first(phrases.get(name, name))
    digits = decimals_of(gap)
    told = verdict(gap)
    before, after = decimal(values[1], digits), decimal(values[0], digits)
    if other == START:
        verb = {"higher": "raised", "lower": "lowered", ZERO: "did not measurably change"}.get(
            told, "moved"
        )
        said = f"{policy} {verb} {metric}: from {before} to {after}"
    else:
        verb = {"higher": "is above", "lower": "is below", ZERO: "is not told apart from"}.get(
            told, "is beside"
        )
        said = f"{policy} {verb} {phrases.get(other, other)} in {metric}: {after} against {before}"
    return f"{said} ({difference(gap)})."


def coverage_words(model: str, level: float, share: float, items: int) -> str:
    """Whether intervals at a nominal level held as many realised means as they promise."""
    name = MODEL_NAMES.get(model, model)
    if few := too_few_items(items):
        return f"Whether the {percent(level)} intervals of {name} keep their promise: {few}."
    low, high = wilson(share, items)
    if level > high:
        said = "they promise more than they keep (too narrow)"
    elif level < low:
        said = "they are wider than they need to be"
    else:
        said = f"consistent with {percent(level)}"
    return (
        f"The {percent(level)} intervals of {name} held the realised mean of {percent(share)} of "
        f"{items:,} unseen items (95% "
        f"interval {percent(low)} to {percent(high)}): {said}."
    )


def first(text: str) -> str:
    """With a capital letter."""
    return text[:1].upper() + text[1:]
