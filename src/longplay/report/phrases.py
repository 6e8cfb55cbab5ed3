"""Figures as words: every sentence of the page is derived here from numbers and intervals, none is
written in advance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from longplay.estimate import LOPSIDED, Estimate

Row = Mapping[str, Any]

ZERO = "not distinguishable from zero"
POLICY_NAMES = {
    "popular": "the popular policy",
    "start": "the start",
    "reward-weighted": "reward-weighted training",
    "reinforced": "reinforcement",
}
MODEL_NAMES = {
    "prior alone": "prior alone",
    "progressive": "progressive",
    "auto_surrogate": "auto-surrogate",
    "day_two": "day-two proxy",
    "matured_only": "matured only",
}


def finite(value: Any) -> float | None:
    """`value` as a float, or null where it is missing or not a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def bounds(row: Row) -> tuple[float, float] | None:
    """The interval of an estimate, or null where it has none."""
    low, high = finite(row.get("low")), finite(row.get("high"))
    return None if low is None or high is None else (low, high)


def at_level(estimate: Row | None, level: float) -> dict[str, Any]:
    """An estimate given as JSON (`experiments.readout.estimate_json`) as value, low and high; empty
    where there is none.

    >>> row = {"value": 0.02, "std_error": 0.005, "n": 900, "df": 15, "origin": 0.0, "step": 0.0}
    >>> {end: round(x, 4) for end, x in at_level(row, 0.95).items()}
    {'value': 0.02, 'low': 0.0117, 'high': 0.0341}
    """
    row = estimate or {}
    value, error, n = (row.get(key) for key in ("value", "std_error", "n"))
    if finite(value) is None:
        return {}
    if finite(error) is None or finite(n) is None or not 0 < level < 1:
        return {"value": value, "low": None, "high": None}
    known = Estimate(
        value=float(value or 0),
        std_error=float(error or 0),
        n=int(n or 0),
        n_eff=float(n or 0),
        estimand="",
        df=finite(row.get("df")),
        skew=finite(row.get("skew")) or 0.0,
        origin=finite(row.get("origin")),
        step=finite(row.get("step")) or 0.0,
    )
    low, high = known.interval(level)
    return {"value": value, "low": low, "high": high}


def at_95(estimate: Row | None) -> dict[str, Any]:
    """`at_level` at 95%."""
    return at_level(estimate, 0.95)


def number(value: Any, decimals: int | None = None) -> str:
    """A number with thousands separators and a true minus sign; `n/a` where it is missing.

    >>> number(-1234.5, 1), number(0.012345), number(None)
    ('−1,234.5', '0.0123', 'n/a')
    """
    known = finite(value)
    if known is None:
        return "n/a"
    if decimals is None:
        decimals = 0 if isinstance(value, int) else max(0, 2 - _magnitude(known)) if known else 0
    text = f"{known:,.{min(decimals, 8)}f}"
    return text.replace("-", "−") if text.strip("-0.,") else text.lstrip("-")


def percent(value: Any, decimals: int = 0) -> str:
    """A share in per cent.

    >>> percent(0.8427), percent(0.0042, 1), percent(None)
    ('84%', '0.4%', 'n/a')
    """
    known = finite(value)
    return "n/a" if known is None else f"{number(known * 100, decimals)}%"


def decimals_of(row: Row) -> int:
    """Decimals that show two significant digits of the half-width, and more where a bound near zero
    would round to it."""
    interval = bounds(row)
    if interval is None:
        value = finite(row.get("value"))
        return 0 if not value else max(0, min(8, 2 - _magnitude(value)))
    half = (interval[1] - interval[0]) / 2
    decimals = max(0, min(8, 1 - _magnitude(half))) if half > 0 else 3
    while decimals < 8 and any(bound != 0 and round(bound, decimals) == 0 for bound in interval):
        decimals += 1
    return decimals


def plus_minus(row: Row) -> str:
    """Value and half-width of its 95% interval, e.g. `0.031 ± 0.004`; the value alone where there
    is no interval.

    Both ends where the value does not lie in the middle.

    >>> plus_minus({"value": 0.031, "low": 0.027, "high": 0.035}), plus_minus({"value": 0.031, "low": 0.02, "high": 0.05})
    ('0.0310 ± 0.0040', '0.031 (0.020 to 0.050)')
    """
    interval, value = bounds(row), finite(row.get("value"))
    if value is None:
        return "n/a"
    half = 0.0 if interval is None else (interval[1] - interval[0]) / 2
    if interval is None or half <= 0:
        return number(value) if value else "0"
    if abs(sum(interval) - 2 * value) > LOPSIDED * half:
        return f"{number(value, decimals_of(row))} ({span(row)})"
    digits = max(0, min(8, 1 - _magnitude(half)))
    return f"{number(value, digits)} ± {number(half, digits)}"


def interval_words(row: Row, *, share: bool = False) -> str:
    """`95% interval 0.010 to 0.031`, or that there is none."""
    interval = bounds(row)
    if interval is None:
        return "no interval: too few users"
    if share:
        return f"95% interval {share_of(row, 'low')} to {share_of(row, 'high')}"
    return f"95% interval {span(row)}"


def span(row: Row) -> str:
    """`0.010 to 0.031`, or nothing where there is no interval."""
    interval, digits = bounds(row), decimals_of(row)
    return (
        ""
        if interval is None
        else f"{number(interval[0], digits)} to {number(interval[1], digits)}"
    )


def share_of(row: Row, key: str = "value") -> str:
    """A share in per cent, in the decimals of its interval."""
    return percent(row.get(key), max(0, min(3, decimals_of(row) - 2)))


def verdict(row: Row) -> str:
    """What an interval of a difference says: higher, lower, or not distinguishable from zero.

    >>> verdict({"value": 0.009, "low": -0.003, "high": 0.021}), verdict({"value": 1.0, "low": 0.5, "high": 1.5})
    ('not distinguishable from zero', 'higher')
    """
    interval = bounds(row)
    if interval is None:
        return "no interval"
    if interval[0] <= 0 <= interval[1]:
        return ZERO
    return "higher" if interval[0] > 0 else "lower"


def difference(row: Row) -> str:
    """A difference with its interval, and `not distinguishable from zero` exactly where the
    interval includes it.

    >>> difference({"value": 0.009, "low": -0.003, "high": 0.021})
    'difference +0.009, 95% interval −0.003 to 0.021: not distinguishable from zero'
    """
    said = verdict(row)
    return f"difference {signed(row)}, {interval_words(row)}" + (
        f": {ZERO}" if said == ZERO else ""
    )


def signed(row: Row) -> str:
    """The value with its sign, in the decimals of its interval."""
    value = finite(row.get("value"))
    if value is None:
        return "n/a"
    text = number(value, decimals_of(row))
    return f"+{text}" if value > 0 else text


def change(row: Row, metric: str, ours: Any, base: Any) -> str:
    """One sentence on a paired difference between two policies, from their values and its interval.

    The same form whatever the result, so that a loss reads as loud as a win.
    """
    name, other = str(row.get("policy")), str(row.get("than"))
    digits = decimals_of(row)
    told, values = verdict(row), (number(base, digits), number(ours, digits))
    if other == "start":
        verb = {"higher": "raised", "lower": "lowered", ZERO: "did not measurably change"}.get(
            told, "moved"
        )
        said = (
            f"{first(POLICY_NAMES.get(name, name))} {verb} {metric}: from {values[0]} to "
            f"{values[1]}"
        )
    else:
        verb = {"higher": "is above", "lower": "is below", ZERO: "is not told apart from"}.get(
            told, "is beside"
        )
        said = (
            f"{first(POLICY_NAMES.get(name, name))} {verb} {POLICY_NAMES.get(other, other)} in "
            f"{metric}: {values[1]} against {values[0]}"
        )
    return f"{said} ({difference(row)})."


def wilson(share: float, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's 95% interval of a share of `n` independent cases (Wilson 1927).

    >>> [round(bound, 3) for bound in wilson(0.5, 100)]
    [0.404, 0.596]
    """
    if n <= 0:
        return (0.0, 1.0)
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(max(share * (1 - share), 0.0) / n + z * z / (4 * n * n))
    return (max(0.0, middle - half), min(1.0, middle + half))


def coverage_words(model: str, level: float, share: float, items: int) -> str:
    """Whether intervals at a nominal level held as many realised means as they promise."""
    low, high = wilson(share, items)
    if level > high:
        said = "they promise more than they keep (too narrow)"
    elif level < low:
        said = "they are wider than they need to be"
    else:
        said = f"consistent with {percent(level)}"
    name = MODEL_NAMES.get(model, model)
    return (
        f"The {percent(level)} intervals of {name} held the realised mean of {percent(share)} of "
        f"{items:,} unseen items (95% "
        f"interval {percent(low)} to {percent(high)}): {said}."
    )


def reached(curve: Sequence[Row], share: float) -> Row | None:
    """The first row of a maturity curve at `share` of its final value; null where the curve is
    empty or ends at 0."""
    last = finite(curve[-1].get("value")) if curve else None
    if not last:
        return None
    return next(
        (row for row in curve if (finite(row.get("value")) or 0.0) >= share * last - 1e-12), None
    )


def listed(words: Sequence[str]) -> str:
    """`a, b and c`."""
    return (
        words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""
    )


def first(text: str) -> str:
    """With a capital letter."""
    return text[:1].upper() + text[1:]


def _magnitude(value: float) -> int:
    return math.floor(math.log10(abs(value)))
