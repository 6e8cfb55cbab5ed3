"""Measures: what is counted in a signal's window."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from numbers import Number, Real
from typing import Any

from longplay.errors import ConfigError
from longplay.lake.schema import ENGAGED
from longplay.signals.declare.checks import days, one_of
from longplay.signals.declare.entry import KEYS, Key
from longplay.signals.declare.measure_kinds import MEASURES, Better, MeasureKind

BETTER: tuple[Better, ...] = ("higher", "lower")
MEASURE_KINDS = tuple(MEASURES)
HARMS = ("skip", "refund", "cancel")  # kinds of events of which fewer are better


@dataclass(frozen=True)
class Measure:
    """What is counted in the window; `measure >= k` makes it a yes or no, `measure / measure` a
    ratio.

    Attributes:
        kind: a name of `MEASURES`, each with a function of its name.
        of: count only what concerns the entry's own creator or item (of habits: what the habits are
            with); null: whatever the user does.
        threshold: null for the amount itself, else the outcome is 1 where the amount reaches it, 0
            where not.
        event: the kind of event, for kind="count".
        days: the days that make a habit, for kind="habits".
        per: what the amount is divided by; the outcome is null where that is 0.
        baseline: days before the entry's day; the amount is less what it would be at their daily
            rate.
    """

    kind: str
    of: Key | None = None
    threshold: float | None = None
    event: str | None = None
    days: int | None = None
    per: Measure | None = None
    baseline: int | None = None

    def __post_init__(self) -> None:
        one_of("measure", "kind", self.kind, MEASURE_KINDS)
        if self.of is not None and "of" not in self.record.fields:
            instead = self.record.about_key
            raise ConfigError(
                f"measure: of={self.of!r} given, expected none: {self.kind} counts whatever the "
                f"user does{f'; use {instead}' if instead else ''}"
            )
        if self.of is not None or "of" in self.record.required:
            one_of("measure", "of", self.of, KEYS)
        self._check_event()
        if "days" in self.record.required:
            object.__setattr__(self, "days", days("measure", "days", self.days))
        elif self.days is not None:
            raise ConfigError(
                f"measure: days={self.days!r} given, expected none: only habits are made of days, "
                f"not {self.kind}"
            )
        if self.baseline is not None:
            object.__setattr__(self, "baseline", days("measure", "baseline", self.baseline))
            if not self.record.has_rate or self.per is not None:
                what = "a ratio" if self.per is not None else self.kind
                raise ConfigError(
                    f"measure: baseline={self.baseline} given, expected none: {what} has no daily "
                    "rate; use days, minutes or counts"
                )
        if self.per is not None:
            self._check_ratio(self.per)
        if self.threshold is not None:
            self._check_threshold(self.threshold)

    def __ge__(self, threshold: float | Measure | None) -> Measure:
        if isinstance(threshold, Measure):
            raise ConfigError(
                f"measure: {self.call} >= {threshold.call} given, expected a positive number"
            )
        if threshold is None:
            raise ConfigError(
                "measure: threshold=None given, expected a positive number; leave it out for the "
                "amount itself"
            )
        if self.threshold is not None:
            raise ConfigError(
                f"measure: threshold={threshold!r} given, expected none: {self.kind} has the "
                f"threshold {self.threshold:g} already"
            )
        return replace(self, threshold=threshold)

    def __eq__(self, other: object) -> bool:
        if isinstance(
            other, Number
        ):  # never a comparison of declarations: `measure == 3` is meant as a threshold
            raise ConfigError(
                f"measure: {self.call} == {other!r} given, expected {self.call} >= {other!r}: an "
                "outcome is 1 where the amount reaches a threshold. "
                "Exactly so many cannot be declared: take the amount itself, or two signals"
            )
        if not isinstance(other, Measure):
            return NotImplemented
        return all(getattr(self, part.name) == getattr(other, part.name) for part in fields(self))

    def __gt__(self, threshold: float) -> Measure:
        raise ConfigError(
            f"measure: {self.call} > {threshold!r} given, expected {self._above(threshold)}"
        )

    def __le__(self, threshold: float) -> Measure:
        raise ConfigError(
            f"measure: {self.call} <= {threshold!r} given, expected {self._above(threshold)}, and "
            "read 1 less its mean: the rest"
        )

    def __lt__(self, threshold: float) -> Measure:
        raise ConfigError(
            f"measure: {self.call} < {threshold!r} given, expected {self.call} >= {threshold!r}, "
            "and read 1 less its mean: the rest"
        )

    def __bool__(self) -> bool:
        raise ConfigError(
            f"measure: {self.call} asked whether it is true (by `if`, `and`, or a chain such as 1 "
            f"<= {self.call} <= 3), expected one threshold, "
            f"{self.call} >= 1; two bounds are two signals"
        )

    def _no_arithmetic(self, other: object) -> Measure:
        raise ConfigError(
            f"measure: arithmetic of {self.call} and {getattr(other, 'call', repr(other))} given, "
            "expected a ratio of two measures (a / b) or "
            "above_baseline(); to add outcomes, declare a signal for each and weight them in a "
            "reward"
        )

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __rtruediv__ = __floordiv__ = (
        __mod__
    ) = __pow__ = _no_arithmetic

    def _above(self, threshold: object) -> str:
        """What to write in the place of "more than": of whole numbers the next one."""
        if (
            not self.in_whole_numbers
            or not isinstance(threshold, Real)
            or not math.isfinite(threshold)
        ):
            return f"{self.call} >= the smallest amount that is enough"
        return f"{self.call} >= {math.floor(float(threshold)) + 1}"

    @property
    def call(self) -> str:
        """How it is written in Python, without threshold and baseline: `days_with('creator')`."""
        given = [repr(part) for part in (self.event, self.of) if part is not None] + (
            [f"days={self.days}"] if self.days is not None else []
        )
        words = f"{self.kind}({', '.join(given)})"
        return words if self.per is None else f"({words} / {self.per.call})"

    @property
    def in_whole_numbers(self) -> bool:
        """Whether the amount is a whole number: of days, events, sessions or habits."""
        return self.record.whole_numbers and self.per is None and self.baseline is None

    def __truediv__(self, per: Measure) -> Measure:
        if not isinstance(per, Measure):
            raise ConfigError(
                f"measure: per={per!r} given, expected another measure, e.g. plays() / sessions()"
            )
        if self.per is not None:
            raise ConfigError(
                f"measure: {self.kind} is a ratio already; expected one numerator and one "
                "denominator"
            )
        if self.threshold is not None:
            raise ConfigError(
                f"measure: {self.kind} has the threshold {self.threshold:g}; expected the ratio "
                f"first: (a / b) >= {self.threshold:g}"
            )
        return replace(self, per=per)

    def above_baseline(self, days: int = 28) -> Measure:
        """The amount less what it would be at the user's own daily rate in the `days` days before
        the entry's day.

        The entry's own day is in neither. The outcome is null where the log does not reach so far
        back.
        """
        if self.baseline is not None:
            raise ConfigError(
                f"measure: {self.kind} has a baseline of {self.baseline} days already; expected one"
            )
        return replace(self, baseline=days)

    @property
    def record(self) -> MeasureKind:
        """What is true of every measure of this kind."""
        return MEASURES[self.kind]

    @property
    def counts_days(self) -> bool:
        """Whether the daily amount is 0 or 1 (was the user active that day) rather than a
        quantity."""
        return self.record.counts_days

    @property
    def of_activity(self) -> bool:
        """Whether it asks on which days there was activity: then only organic activity counts by
        default."""
        return self.record.organic

    @property
    def needs_activity(self) -> bool:
        """Whether a day without activity has nothing of it: skips, refunds and cancellations are no
        activity."""
        return self.counted is None or self.counted in ENGAGED

    @property
    def counted(self) -> str | None:
        """The kind of event it counts, where it counts events of one kind."""
        return self.record.event or self.event

    @property
    def counts_sessions(self) -> bool:
        """Whether it counts sessions, which are runs of whatever the user does."""
        return self.record.reads == "sessions"

    @property
    def needs_seconds(self) -> bool:
        """Whether it says nothing of a log whose events have no durations."""
        return self.record.reads in ("seconds", "shares")

    @property
    def needs_lengths(self) -> bool:
        """Whether it says nothing of a log whose items have no lengths."""
        return self.record.reads == "shares"

    @property
    def is_ratio(self) -> bool:
        """Whether the outcome is a quotient, of which sums mean nothing."""
        return self.per is not None or self.record.is_mean

    @property
    def better(self) -> Better:
        """Which way is better: lower for skips, refunds, cancellations and the time to a return,
        else higher; of a ratio its numerator's."""
        if self.record.better is not None:
            return self.record.better
        return "lower" if self.counted in HARMS else "higher"

    def definition(self) -> dict[str, Any]:
        """What it is, as a table without its nulls."""
        table = {
            name: getattr(self, name)
            for name in ("kind", "of", "threshold", "event", "days", "baseline")
        }
        return {name: value for name, value in table.items() if value is not None} | (
            {"per": self.per.definition()} if self.per is not None else {}
        )

    def _check_event(self) -> None:
        if "event" in self.record.required:
            one_of("measure", "event", self.event, self.record.events)
            self._use_its_name(str(self.event))
        elif self.event is not None:
            raise ConfigError(
                f"measure: event={self.event!r} given, expected none: only a count has one, not "
                f"{self.kind}"
            )

    def _use_its_name(self, event: str) -> None:
        """One meaning has one name, so that it has one version: a count of plays is `plays`."""
        once = (
            self.threshold == 1
            and not isinstance(self.threshold, bool)
            and self.of is None
            and self.per is None
            and self.baseline is None
        )
        for record in MEASURES.values():
            if record.mapped(event) and (once or not record.binary):
                object.__setattr__(self, "kind", record.name)
                object.__setattr__(self, "event", None)
                if record.binary:
                    object.__setattr__(self, "threshold", None)
                return

    def _check_ratio(self, per: Measure) -> None:
        for part in (self, per):
            if not part.record.has_rate:
                raise ConfigError(
                    f"measure: {part.kind} in a ratio given, expected amounts: days, minutes, "
                    "sessions or counts of events"
                )
        if per.threshold is not None or per.per is not None or per.baseline is not None:
            raise ConfigError(
                f"measure: per={per.kind} has a threshold, ratio or baseline of its own; expected "
                "a plain amount"
            )
        if per == replace(self, threshold=None, per=None):
            raise ConfigError(
                f"measure: {self.kind} per {per.kind} given, expected two different amounts: this "
                "is always 1"
            )

    def _check_threshold(self, threshold: float) -> None:
        try:
            number = (
                float(threshold)
                if isinstance(threshold, Real) and not isinstance(threshold, bool)
                else math.nan
            )
        except OverflowError:
            number = math.inf
        if not 0 < number < math.inf:
            raise ConfigError(
                f"measure: threshold={threshold!r} given, expected a positive number: 0 is always "
                "reached"
            )
        if not self.record.takes_threshold:
            instead = (
                "cancelled is a yes or no already"
                if self.record.binary
                else "for a return within k days use returned() and window=(1, k)"
            )
            raise ConfigError(f"measure: threshold={threshold:g} given, expected none: {instead}")
        if self.record.is_share and threshold > 1:
            raise ConfigError(
                f"measure: threshold={threshold:g} given, expected at most 1: a share of what was "
                "played is never more"
            )
        object.__setattr__(
            self, "threshold", number
        )  # 3 and 3.0 are one definition, so one version


def active_days() -> Measure:
    """Measure: days on which the user is active, 0 to the window's length."""
    return Measure("active_days")


def returned() -> Measure:
    """Measure: whether the user is active on any day of the window, 0 or 1."""
    return Measure("returned")


def days_with(of: Key) -> Measure:
    """Measure: days on which the user is active with the entry's own creator or item."""
    return Measure("days_with", of)


def time_to_return(of: Key | None = None) -> Measure:
    """Measure: days from the entry to the first active day in the window, right-censored at its
    last day.

    The outcome is min(days, last day of the window), whose mean is the restricted mean time to
    return. The frame of the outcomes also has `duration` and `event` for every entry, mature or
    not: what a survival model is fitted on. `duration` counts the days of the window that were
    observed: up to the return, that day included, else all that have closed. Days before the window
    are not observed, so that with window=(3, 28) a return on day 5 has duration 3, and who never
    returns has 26.
    """
    return Measure("time_to_return", of)


def minutes(of: Key | None = None) -> Measure:
    """Measure: minutes engaged, of everything or of the entry's own creator or item."""
    return Measure("minutes", of)


def plays(of: Key | None = None) -> Measure:
    """Measure: number of plays, of everything or of the entry's own creator or item."""
    return Measure("plays", of)


def saves(of: Key | None = None) -> Measure:
    """Measure: number of saves, of everything or of the entry's own creator or item."""
    return Measure("saves", of)


def skips(of: Key | None = None) -> Measure:
    """Measure: number of skips, of everything or of the entry's own creator or item."""
    return Measure("skips", of)


def cancelled() -> Measure:
    """Measure: whether the user cancels in the window, 0 or 1."""
    return Measure("cancelled")


def count(event: str, of: Key | None = None) -> Measure:
    """Measure: number of events of a kind; of everything or of the entry's own creator or item.

    Counts of play, save and skip are `plays`, `saves` and `skips`.
    """
    return Measure("count", of, event=event)


def sessions() -> Measure:
    """Measure: number of sessions that begin in the window.

    A session is a run of a user's engaged events with at most 30 minutes from one to the next; it
    belongs to the day on which it begins. The log's session_id is not asked: services end sessions
    differently.
    """
    return Measure("sessions")


def completion(of: Key | None = None) -> Measure:
    """Measure: mean share of an item's length that plays last, over plays in the window; 0 to 1,
    null without plays.

    Only plays with `seconds`, of items with a `length` in the catalogue; a play longer than the
    item counts as 1.
    """
    return Measure("completion", of)


def habits(of: Key = "creator", days: int = 3) -> Measure:
    """Measure: with how many creators (or items) the user is active on at least `days` days of the
    window."""
    return Measure("habits", of, days=days)


_DEFAULTS = {habits().kind: {"of": habits().of, "days": habits().days}}


def measure_of(table: Mapping[str, Any]) -> Measure:
    """The measure of a parsed TOML table with the key `kind`, and `per` as a table of its own; what
    else is left out is as in Python's call.

    >>> measure_of({"kind": "habits"}) == habits()
    True
    >>> measure_of({"kind": "plays", "per": {"kind": "sessions"}, "threshold": 2}) == (plays() / sessions() >= 2)
    True
    """
    given = _DEFAULTS.get(str(table["kind"]), {}) | dict(table)
    if "per" in given:
        given["per"] = measure_of(given["per"])
    return Measure(**given)
