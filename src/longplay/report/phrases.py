"""Figures as words: every sentence of the page is derived here from numbers and intervals, none is
written in advance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from longplay.estimate import LOPSIDED, Estimate
from longplay.results.outcome_figures import MaturityDay

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


@dataclass(frozen=True)
class Bounded:
    """A figure with the ends of its interval; null where it has none.

    >>> Bounded.of(Estimate(0.02, 0.005, n=900, n_eff=900, estimand="rate", df=15)).interval is None
    False
    """

    value: float
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, estimate: Estimate, level: float = 0.95) -> Bounded:
        """An estimate with its interval at a level; without one where an end is infinite."""
        low, high = estimate.interval(level)
        if math.isfinite(low) and math.isfinite(high):
            return cls(estimate.value, float(low), float(high))
        return cls(estimate.value)

    @classmethod
    def around(cls, value: float, std_error: float | None) -> Bounded:
        """A figure with the normal 95% interval of its standard error."""
        if std_error is None:
            return cls(value)
        return cls(value, value - 1.96 * std_error, value + 1.96 * std_error)

    @property
    def interval(self) -> tuple[float, float] | None:
        """Both ends."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    def scaled(self, factor: float) -> Bounded:
        """The figure and its ends in another unit."""
        low = None if self.low is None else self.low * factor
        high = None if self.high is None else self.high * factor
        return Bounded(self.value * factor, low, high)

    def row(self) -> dict[str, float | None]:
        """For a chart."""
        return {"value": self.value, "low": self.low, "high": self.high}


def number(value: float | None, decimals: int | None = None) -> str:
    """A number with thousands separators and a true minus sign; `n/a` where it is missing.

    >>> number(-1234.5, 1), number(0.012345), number(None)
    ('−1,234.5', '0.0123', 'n/a')
    """
    if value is None or not math.isfinite(value):
        return "n/a"
    if decimals is None:
        decimals = 0 if isinstance(value, int) or not value else max(0, 2 - _magnitude(value))
    text = f"{value:,.{min(decimals, 8)}f}"
    return text.replace("-", "−") if text.strip("-0.,") else text.lstrip("-")


def percent(value: float | None, decimals: int = 0) -> str:
    """A share in per cent.

    >>> percent(0.8427), percent(0.0042, 1), percent(None)
    ('84%', '0.4%', 'n/a')
    """
    if value is None or not math.isfinite(value):
        return "n/a"
    return f"{number(value * 100.0, decimals)}%"


def decimals_of(row: Bounded) -> int:
    """Decimals that show two significant digits of the half-width, and more where a bound near zero
    would round to it."""
    interval = row.interval
    if interval is None:
        return max(0, min(8, 2 - _magnitude(row.value))) if row.value else 0
    half = (interval[1] - interval[0]) / 2
    decimals = max(0, min(8, 1 - _magnitude(half))) if half > 0 else 3
    while decimals < 8 and any(bound != 0 and round(bound, decimals) == 0 for bound in interval):
        decimals += 1
    return decimals


def plus_minus(row: Bounded) -> str:
    """Value and half-width of its 95% interval, e.g. `0.031 ± 0.004`; the value alone where there
    is no interval.

    Both ends where the value does not lie in the middle.

    >>> plus_minus(Bounded(0.031, 0.027, 0.035)), plus_minus(Bounded(0.031, 0.02, 0.05))
    ('0.0310 ± 0.0040', '0.031 (0.020 to 0.050)')
    """
    interval, value = row.interval, row.value
    half = 0.0 if interval is None else (interval[1] - interval[0]) / 2
    if interval is None or half <= 0:
        return number(value) if value else "0"
    if abs(sum(interval) - 2 * value) > LOPSIDED * half:
        return f"{number(value, decimals_of(row))} ({span(row)})"
    digits = max(0, min(8, 1 - _magnitude(half)))
    return f"{number(value, digits)} ± {number(half, digits)}"


def interval_words(row: Bounded, *, share: bool = False) -> str:
    """`95% interval 0.010 to 0.031`, or that there is none."""
    interval = row.interval
    if interval is None:
        return "no interval: too few users"
    if share:
        return f"95% interval {share_of(interval[0], row)} to {share_of(interval[1], row)}"
    return f"95% interval {span(row)}"


def span(row: Bounded) -> str:
    """`0.010 to 0.031`, or nothing where there is no interval."""
    interval, digits = row.interval, decimals_of(row)
    return (
        ""
        if interval is None
        else f"{number(interval[0], digits)} to {number(interval[1], digits)}"
    )


def share_of(value: float, row: Bounded) -> str:
    """A share in per cent, in the decimals of the interval of `row`."""
    return percent(value, max(0, min(3, decimals_of(row) - 2)))


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


def signed(row: Bounded) -> str:
    """The value with its sign, in the decimals of its interval."""
    text = number(row.value, decimals_of(row))
    return f"+{text}" if row.value > 0 else text


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
    digits = decimals_of(gap)
    told = verdict(gap)
    before, after = number(values[1], digits), number(values[0], digits)
    if other == "start":
        verb = {"higher": "raised", "lower": "lowered", ZERO: "did not measurably change"}.get(
            told, "moved"
        )
        said = f"{first(POLICY_NAMES.get(name, name))} {verb} {metric}: from {before} to {after}"
    else:
        verb = {"higher": "is above", "lower": "is below", ZERO: "is not told apart from"}.get(
            told, "is beside"
        )
        said = (
            f"{first(POLICY_NAMES.get(name, name))} {verb} {POLICY_NAMES.get(other, other)} in "
            f"{metric}: {after} against {before}"
        )
    return f"{said} ({difference(gap)})."


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


def reached(curve: Sequence[MaturityDay], share: float) -> MaturityDay | None:
    """The first day of a maturity curve at `share` of its final value; null where the curve is
    empty or ends at 0."""
    last = curve[-1].value if curve else 0.0
    if not last:
        return None
    return next((row for row in curve if row.value >= share * last - 1e-12), None)


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
