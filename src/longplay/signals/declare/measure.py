"""The type of a measure: what is counted in a signal's window, with its threshold, divisor or
baseline."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from numbers import Number, Real
from typing import Any

from longplay.errors import ConfigError
from longplay.lake.schema import ENGAGED
from longplay.signals.declare.checks import check_choice, checked_days
from longplay.signals.declare.entry import KEYS, Key
from longplay.signals.declare.measure_kinds import MEASURES, NARROWED, Better, MeasureKind

DAY_SECONDS = 86_400
BETTER: tuple[Better, ...] = ("higher", "lower")
MEASURE_KINDS = tuple(MEASURES)
HARMS = ("skip", "refund", "cancel")  # kinds of events of which fewer are better


@dataclass(frozen=True)
class Measure:
    """What is counted in the window. `measure >= k` makes the outcome 0 or 1, `measure / measure` a
    ratio.

    Attributes:
        kind: a name of `MEASURES`. Each kind has a function of its name.
        of: count only events of the entry's own creator or item; of habits and `distinct`: what is
            counted, creators or items. Null: all that the user does.
        threshold: the outcome is 1 where the amount reaches it, else 0; null: the outcome is the
            amount.
        event: for kind="count" and kind="amount" the kind of event; else count only events of this
            kind.
        days: for kind="habits" the days that make a habit.
        per: what the amount is divided by; the outcome is null where that is 0.
        baseline: subtract what the amount would be at the user's daily rate in this number of days
            before the entry's day.
        at_most: the outcome is 1 where the amount is no more than this, else 0.
        surface: count only events on this surface.
        seconds: count only events that last at least this long.
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
        check_choice("measure", "kind", self.kind, MEASURE_KINDS)
        if self.of is not None and "of" not in self.record.fields:
            instead = self.record.about_key
            raise ConfigError(
                f"measure: of={self.of!r} given, expected none: {self.kind} counts whatever the "
                f"user does{f'; use {instead}' if instead else ''}"
            )
        if self.of is not None or "of" in self.record.required:
            check_choice("measure", "of", self.of, KEYS)
        self._check_event()
        self._check_narrowed()
        if "days" in self.record.required:
            object.__setattr__(self, "days", checked_days("measure", "days", self.days))
        elif self.days is not None:
            raise ConfigError(
                f"measure: days={self.days!r} given, expected none: only habits are made of days, "
                f"not {self.kind}"
            )
        if self.baseline is not None:
            object.__setattr__(self, "baseline", checked_days("measure", "baseline", self.baseline))
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
        if isinstance(other, Number):  # `measure == 3` is meant as a threshold
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
        """What to write in the place of `measure > threshold`."""
        if (
            not self.in_whole_numbers
            or not isinstance(threshold, Real)
            or not math.isfinite(threshold)
        ):
            return f"{self.call} >= the smallest amount that is enough"
        return f"{self.call} >= {math.floor(float(threshold)) + 1}"

    def _below(self, threshold: object) -> str:
        """What to write in the place of `measure < threshold`."""
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
        """The number that the amount is compared with: `threshold` or `at_most`."""
        return self.at_most if self.threshold is None else self.threshold

    @property
    def call(self) -> str:
        """The Python call that declares it, without threshold and baseline: `days_with('creator')`."""
        is_event_first = "event" in self.record.required
        arguments = [repr(self.event)] if is_event_first else []
        if self.of is not None:
            arguments.append(repr(self.of))
        keywords = {"days": self.days, "surface": self.surface, "seconds": self.seconds}
        if not is_event_first:
            keywords = {"event": self.event, **keywords}
        arguments += [f"{name}={value!r}" for name, value in keywords.items() if value is not None]
        text = f"{self.kind}({', '.join(arguments)})"
        return text if self.per is None else f"({text} / {self.per.call})"

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
        """The amount above the user's baseline: less what it would be at the user's own daily rate
        before the entry's day.

        The entry's own day is in neither. The outcome is null where the log does not reach back far
        enough.

        Args:
            days: length of the period before the entry's day.
        """
        if self.baseline is not None:
            raise ConfigError(
                f"measure: {self.kind} has a baseline of {self.baseline} days already; expected one"
            )
        return replace(self, baseline=days)

    @property
    def record(self) -> MeasureKind:
        """The properties of the measure's kind."""
        return MEASURES[self.kind]

    @property
    def counts_days(self) -> bool:
        """Whether the daily amount is 0 or 1: was the user active on that day."""
        return self.record.counts_days

    @property
    def of_activity(self) -> bool:
        """Whether it is about the days with activity. Then only organic activity counts by
        default."""
        return self.record.organic

    @property
    def needs_activity(self) -> bool:
        """Whether it is 0 on days without activity. Skips, refunds and cancellations are no
        activity."""
        event = self.record.event or self.event
        return event is None or event in ENGAGED

    @property
    def counted(self) -> str | None:
        """The kind of event that it counts; null where it does not count events of one kind."""
        return (self.record.event or self.event) if self.record.reads == "events" else None

    @property
    def asked_kinds(self) -> tuple[str, ...]:
        """The kinds of event that a log must have, or it cannot answer."""
        event = self.record.event or self.event
        return () if event is None else (event,)

    @property
    def counts_sessions(self) -> bool:
        """Whether it counts sessions, which are runs of all that the user does."""
        return self.record.reads == "sessions"

    @property
    def needs_seconds(self) -> bool:
        """Whether a log must have durations of events (`seconds`), or it cannot answer."""
        return self.record.reads in ("seconds", "shares") or self.seconds is not None

    @property
    def needs_lengths(self) -> bool:
        """Whether the catalogue must have lengths of items, or the log cannot answer."""
        return self.record.reads == "shares"

    @property
    def needs_amounts(self) -> bool:
        """Whether a log must have amounts of events, or it cannot answer."""
        return self.record.reads == "amounts"

    @property
    def is_ratio(self) -> bool:
        """Whether the outcome is a ratio, which means nothing when summed."""
        return self.per is not None or self.record.is_mean

    @property
    def better(self) -> Better:
        """Which direction is better: "lower" for skips, refunds, cancellations and the time to a
        return, else "higher". A ratio has its numerator's direction, `<= k` the opposite one."""
        event = self.record.event or self.event
        less_is_better = self.record.better == "lower" or event in HARMS
        if self.at_most is not None:
            less_is_better = not less_is_better
        return "lower" if less_is_better else "higher"

    def definition(self) -> dict[str, Any]:
        """The declaration as a table, without nulls."""
        fields_without_per = (name for name in MEASURE_FIELDS if name != "per")
        table = {name: getattr(self, name) for name in fields_without_per}
        table = {name: value for name, value in table.items() if value is not None}
        if self.per is not None:
            table["per"] = self.per.definition()
        return table

    def _check_event(self) -> None:
        if "event" in self.record.required or (
            self.event is not None and "event" in self.record.fields
        ):
            check_choice("measure", "event", self.event, self.record.events)
        if "event" in self.record.required and self.record.reads == "events":
            self._use_its_name(str(self.event))

    def _check_narrowed(self) -> None:
        for name in NARROWED:
            value = getattr(self, name)
            if value is not None and name not in self.record.fields:
                reason = f"{self.kind} does not ask for the {name} of events"
                if name == "event":
                    reason = f"only a count and measures of activity have one, not {self.kind}"
                raise ConfigError(f"measure: {name}={value!r} given, expected none: {reason}")
        if self.surface is not None and (not isinstance(self.surface, str) or not self.surface):
            raise ConfigError(
                f"measure: surface={self.surface!r} given, expected the name of a surface"
            )
        if self.seconds is not None:
            number = _as_float(self.seconds)
            if not 0 < number <= DAY_SECONDS:
                raise ConfigError(
                    f"measure: seconds={self.seconds!r} given, expected the least that an event "
                    f"lasts, above 0 and at most {DAY_SECONDS:,}"
                )
            object.__setattr__(self, "seconds", number)

    def _use_its_name(self, event: str) -> None:
        """Rename `count("play")` to `plays()`: one meaning has one name, so that it has one
        version."""
        is_at_least_once = self.threshold == 1 and not isinstance(self.threshold, bool)
        narrowing = ("of", "per", "baseline", "at_most", "surface", "seconds")
        is_yes_or_no = is_at_least_once and all(getattr(self, name) is None for name in narrowing)
        for record in MEASURES.values():
            if record.counts_events_of(event) and (is_yes_or_no or not record.binary):
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
        number = _as_float(threshold)
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
        # 3 and 3.0 are one definition, so they have one version
        object.__setattr__(self, "threshold", number)

    def _check_at_most(self, at_most: float) -> None:
        number = _as_float(at_most)
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


def _as_float(value: object) -> float:
    """A number as a float; infinity where it is too large, NaN where it is no number."""
    if not isinstance(value, Real) or isinstance(value, bool):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.inf


MEASURE_FIELDS = tuple(part.name for part in fields(Measure))
