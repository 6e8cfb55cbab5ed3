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
from longplay.signals.declare.measure_kinds import MEASURES, NARROWED, Better, MeasureKind

DAY_SECONDS = 86_400
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
        event: the kind of event, for kind="count"; else count only events of this kind.
        days: the days that make a habit, for kind="habits".
        per: what the amount is divided by; the outcome is null where that is 0.
        baseline: days before the entry's day; the amount is less what it would be at their daily
            rate.
        at_most: the outcome is 1 where the amount is no more than this, 0 where it is more.
        surface: count only events on this surface.
        seconds: count only events that last at least so long.
    """

    kind: str
    of: Key | None = None
    threshold: float | None = None
    event: str | None = None
    days: int | None = None
    per: Measure | None = None
    baseline: int | None = None
    at_most: float | None = None
    surface: str | None = None
    seconds: float | None = None

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
        self._check_narrowed()
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
        if self.threshold is not None and self.at_most is not None:
            raise ConfigError(
                f"measure: threshold={self.threshold!r} and at_most={self.at_most!r} given, "
                "expected one of them; two bounds are two signals"
            )
        if self.threshold is not None:
            self._check_threshold(self.threshold)
        if self.at_most is not None:
            self._check_at_most(self.at_most)

    def __ge__(self, threshold: float | Measure | None) -> Measure:
        self._check_bound(">=", threshold)
        return replace(self, threshold=threshold)

    def __le__(self, at_most: float | Measure | None) -> Measure:
        self._check_bound("<=", at_most)
        return replace(self, at_most=at_most)

    def _check_bound(self, sign: str, bound: float | Measure | None) -> None:
        if isinstance(bound, Measure):
            raise ConfigError(
                f"measure: {self.call} {sign} {bound.call} given, expected a positive number"
            )
        if bound is None:
            raise ConfigError(
                "measure: threshold=None given, expected a positive number; leave it out for the "
                "amount itself"
            )
        if self.bound is not None:
            raise ConfigError(
                f"measure: threshold={bound!r} given, expected none: {self.kind} has the "
                f"threshold {self.bound:g} already"
            )

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

    def __lt__(self, threshold: float) -> Measure:
        raise ConfigError(
            f"measure: {self.call} < {threshold!r} given, expected {self._below(threshold)}"
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

    def _below(self, threshold: object) -> str:
        """What to write in the place of "less than": of whole numbers the one before."""
        if (
            not self.in_whole_numbers
            or not isinstance(threshold, Real)
            or not math.isfinite(threshold)
            or threshold <= 0
        ):
            return f"{self.call} <= the largest amount that is still little enough"
        return f"{self.call} <= {math.ceil(float(threshold)) - 1}"

    @property
    def bound(self) -> float | None:
        """The number that the amount is compared with, from either side."""
        return self.at_most if self.threshold is None else self.threshold

    @property
    def call(self) -> str:
        """How it is written in Python, without threshold and baseline: `days_with('creator')`."""
        event_first = "event" in self.record.required
        given = [repr(self.event)] if event_first else []
        given += [repr(self.of)] if self.of is not None else []
        more = {"days": self.days, "surface": self.surface, "seconds": self.seconds}
        if not event_first:
            more = {"event": self.event, **more}
        given += [f"{name}={value!r}" for name, value in more.items() if value is not None]
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
        if self.bound is not None:
            sign = ">=" if self.at_most is None else "<="
            raise ConfigError(
                f"measure: {self.kind} has the threshold {self.bound:g}; expected the ratio "
                f"first: (a / b) {sign} {self.bound:g}"
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
        event = self.record.event or self.event
        return event is None or event in ENGAGED

    @property
    def counted(self) -> str | None:
        """The kind of event it counts, where it counts events of one kind."""
        return (self.record.event or self.event) if self.record.reads == "events" else None

    @property
    def asked_kinds(self) -> tuple[str, ...]:
        """The kinds of event without which the log says nothing of it, declared or its own."""
        event = self.record.event or self.event
        return () if event is None else (event,)

    @property
    def counts_sessions(self) -> bool:
        """Whether it counts sessions, which are runs of whatever the user does."""
        return self.record.reads == "sessions"

    @property
    def needs_seconds(self) -> bool:
        """Whether it says nothing of a log whose events have no durations."""
        return self.record.reads in ("seconds", "shares") or self.seconds is not None

    @property
    def needs_lengths(self) -> bool:
        """Whether it says nothing of a log whose items have no lengths."""
        return self.record.reads == "shares"

    @property
    def needs_amounts(self) -> bool:
        """Whether it says nothing of a log whose events have no amounts."""
        return self.record.reads == "amounts"

    @property
    def is_ratio(self) -> bool:
        """Whether the outcome is a quotient, of which sums mean nothing."""
        return self.per is not None or self.record.is_mean

    @property
    def better(self) -> Better:
        """Which way is better: lower for skips, refunds, cancellations and the time to a return,
        else higher; of a ratio its numerator's; of `<= k` the other way."""
        event = self.record.event or self.event
        less_is_better = self.record.better == "lower" or event in HARMS
        if self.at_most is not None:
            less_is_better = not less_is_better
        return "lower" if less_is_better else "higher"

    def definition(self) -> dict[str, Any]:
        """What it is, as a table without its nulls."""
        table = {name: getattr(self, name) for name in MEASURE_FIELDS if name != "per"}
        return {name: value for name, value in table.items() if value is not None} | (
            {"per": self.per.definition()} if self.per is not None else {}
        )

    def _check_event(self) -> None:
        if "event" in self.record.required or (
            self.event is not None and "event" in self.record.fields
        ):
            one_of("measure", "event", self.event, self.record.events)
        if "event" in self.record.required and self.record.reads == "events":
            self._use_its_name(str(self.event))

    def _check_narrowed(self) -> None:
        for name in NARROWED:
            value = getattr(self, name)
            if value is not None and name not in self.record.fields:
                why = f"{self.kind} does not ask for the {name} of events"
                if name == "event":
                    why = f"only a count and measures of activity have one, not {self.kind}"
                raise ConfigError(f"measure: {name}={value!r} given, expected none: {why}")
        if self.surface is not None and (not isinstance(self.surface, str) or not self.surface):
            raise ConfigError(
                f"measure: surface={self.surface!r} given, expected the name of a surface"
            )
        if self.seconds is not None:
            number = _finite(self.seconds)
            if not 0 < number <= DAY_SECONDS:
                raise ConfigError(
                    f"measure: seconds={self.seconds!r} given, expected the least that an event "
                    f"lasts, above 0 and at most {DAY_SECONDS:,}"
                )
            object.__setattr__(self, "seconds", number)

    def _use_its_name(self, event: str) -> None:
        """One meaning has one name, so that it has one version: a count of plays is `plays`."""
        once = (
            self.threshold == 1
            and not isinstance(self.threshold, bool)
            and not any(
                getattr(self, name) is not None
                for name in ("of", "per", "baseline", "at_most", "surface", "seconds")
            )
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
        if per.bound is not None or per.per is not None or per.baseline is not None:
            raise ConfigError(
                f"measure: per={per.kind} has a threshold, ratio or baseline of its own; expected "
                "a plain amount"
            )
        if per == replace(self, threshold=None, at_most=None, per=None):
            raise ConfigError(
                f"measure: {self.kind} per {per.kind} given, expected two different amounts: this "
                "is always 1"
            )

    def _check_threshold(self, threshold: float) -> None:
        number = _finite(threshold)
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

    def _check_at_most(self, at_most: float) -> None:
        number = _finite(at_most)
        if not 0 <= number < math.inf:
            raise ConfigError(
                f"measure: at_most={at_most!r} given, expected a number that is at least 0"
            )
        if not self.record.takes_threshold or self.record.binary:
            instead = "a yes or no already; use active_days() <= k"
            if not self.record.binary:
                instead = "no threshold; use returned() and window=(1, k)"
            elif not self.record.takes_threshold:
                instead = "a yes or no already; use count('cancel') <= 0"
            raise ConfigError(
                f"measure: at_most={at_most:g} given, expected none: {self.kind} has {instead}"
            )
        if self.record.is_share and number >= 1:
            raise ConfigError(
                f"measure: at_most={at_most:g} given, expected less than 1: a share of what was "
                "played is never more"
            )
        object.__setattr__(self, "at_most", number)


def _finite(given: object) -> float:
    """The number that was given, infinity where it is too large, NaN where it is none."""
    if not isinstance(given, Real) or isinstance(given, bool):
        return math.nan
    try:
        return float(given)
    except OverflowError:
        return math.inf


MEASURE_FIELDS = tuple(part.name for part in fields(Measure))


def active_days(
    *, event: str | None = None, surface: str | None = None, seconds: float | None = None
) -> Measure:
    """Measure: days on which the user is active, 0 to the window's length.

    Args:
        event: only by events of this kind: play, save, like, follow, purchase or visit.
        surface: only by events on this surface.
        seconds: only by events that last at least so long.
    """
    return Measure("active_days", event=event, surface=surface, seconds=seconds)


def returned(
    *, event: str | None = None, surface: str | None = None, seconds: float | None = None
) -> Measure:
    """Measure: whether the user is active on any day of the window, 0 or 1; narrowed as
    `active_days` is."""
    return Measure("returned", event=event, surface=surface, seconds=seconds)


def days_with(
    of: Key,
    *,
    event: str | None = None,
    surface: str | None = None,
    seconds: float | None = None,
) -> Measure:
    """Measure: days on which the user is active with the entry's own creator or item; narrowed as
    `active_days` is."""
    return Measure("days_with", of, event=event, surface=surface, seconds=seconds)


def active_weeks(
    of: Key | None = None,
    *,
    event: str | None = None,
    surface: str | None = None,
    seconds: float | None = None,
) -> Measure:
    """Measure: weeks of the window with an active day; of everything or of the entry's own creator
    or item; narrowed as `active_days` is.

    A week is 7 days of the window, counted from its first day; the last may be shorter.
    """
    return Measure("active_weeks", of, event=event, surface=surface, seconds=seconds)


def distinct(
    of: Key = "creator",
    *,
    event: str | None = None,
    surface: str | None = None,
    seconds: float | None = None,
) -> Measure:
    """Measure: number of different creators (or items) that the user engages with in the window;
    narrowed as `active_days` is.

    Engagement of any origin counts unless the signal says otherwise.
    """
    return Measure("distinct", of, event=event, surface=surface, seconds=seconds)


def time_to_return(
    of: Key | None = None,
    *,
    event: str | None = None,
    surface: str | None = None,
    seconds: float | None = None,
) -> Measure:
    """Measure: days from the entry to the first active day in the window, right-censored at its
    last day.

    The outcome is min(days, last day of the window), whose mean is the restricted mean time to
    return. The frame of the outcomes also has `duration` and `event` for every entry, mature or
    not: what a survival model is fitted on. `duration` counts the days of the window that were
    observed: up to the return, that day included, else all that have closed. Days before the window
    are not observed, so that with window=(3, 28) a return on day 5 has duration 3, and who never
    returns has 26.
    """
    return Measure("time_to_return", of, event=event, surface=surface, seconds=seconds)


def minutes(
    of: Key | None = None,
    *,
    event: str | None = None,
    surface: str | None = None,
    seconds: float | None = None,
) -> Measure:
    """Measure: minutes engaged, of everything or of the entry's own creator or item."""
    return Measure("minutes", of, event=event, surface=surface, seconds=seconds)


def plays(
    of: Key | None = None, *, surface: str | None = None, seconds: float | None = None
) -> Measure:
    """Measure: number of plays, of everything or of the entry's own creator or item."""
    return Measure("plays", of, surface=surface, seconds=seconds)


def saves(
    of: Key | None = None, *, surface: str | None = None, seconds: float | None = None
) -> Measure:
    """Measure: number of saves, of everything or of the entry's own creator or item."""
    return Measure("saves", of, surface=surface, seconds=seconds)


def skips(
    of: Key | None = None, *, surface: str | None = None, seconds: float | None = None
) -> Measure:
    """Measure: number of skips, of everything or of the entry's own creator or item."""
    return Measure("skips", of, surface=surface, seconds=seconds)


def cancelled() -> Measure:
    """Measure: whether the user cancels in the window, 0 or 1."""
    return Measure("cancelled")


def count(
    event: str,
    of: Key | None = None,
    *,
    surface: str | None = None,
    seconds: float | None = None,
) -> Measure:
    """Measure: number of events of a kind; of everything or of the entry's own creator or item.

    Counts of play, save and skip are `plays`, `saves` and `skips`.
    """
    return Measure("count", of, event=event, surface=surface, seconds=seconds)


def amount(
    event: str = "purchase", of: Key | None = None, *, surface: str | None = None
) -> Measure:
    """Measure: sum of the amounts of events of a kind, in the unit of the log's column `amount`:
    money or quantity.

    An event whose amount is not known adds 0.

    Args:
        event: the kind of event, e.g. "purchase" or "refund".
        of: only of the entry's own creator or item.
        surface: only events on this surface.
    """
    return Measure("amount", of, event=event, surface=surface)


def sessions() -> Measure:
    """Measure: number of sessions that begin in the window.

    A session is a run of a user's engaged events with at most 30 minutes from one to the next; it
    belongs to the day on which it begins. The log's session_id is not asked: services end sessions
    differently.
    """
    return Measure("sessions")


def completion(of: Key | None = None, *, surface: str | None = None) -> Measure:
    """Measure: mean share of an item's length that plays last, over plays in the window; 0 to 1,
    null without plays.

    Only plays with `seconds`, of items with a `length` in the catalogue; a play longer than the
    item counts as 1.
    """
    return Measure("completion", of, surface=surface)


def habits(
    of: Key = "creator",
    days: int = 3,
    *,
    event: str | None = None,
    surface: str | None = None,
    seconds: float | None = None,
) -> Measure:
    """Measure: with how many creators (or items) the user is active on at least `days` days of the
    window."""
    return Measure("habits", of, days=days, event=event, surface=surface, seconds=seconds)


_DEFAULTS = {
    habits().kind: {"of": habits().of, "days": habits().days},
    distinct().kind: {"of": distinct().of},
    amount().kind: {"event": amount().event},
}


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
