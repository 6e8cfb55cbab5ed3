"""The sentence that a signal means, and the names of its parts in lists."""

from __future__ import annotations

from typing import Protocol

from longplay.lake.schema import ORIGINS
from longplay.signals.declare.entry import Entry
from longplay.signals.declare.measure import Measure


class Declared(Protocol):
    """What a sentence is made of; a `Declaration` has all of it."""

    @property
    def entry(self) -> Entry:
        """What opens the window."""
        ...

    @property
    def measure(self) -> Measure:
        """What is counted in it."""
        ...

    @property
    def window(self) -> tuple[int, int]:
        """First and last day after the entry."""
        ...

    @property
    def gameable(self) -> bool:
        """Whether a policy can cause the outcome by showing."""
        ...

    @property
    def better(self) -> str | None:
        """Which direction is better."""
        ...

    @property
    def origins(self) -> tuple[str, ...]:
        """The origins that count."""
        ...

    @property
    def threshold(self) -> float | None:
        """The amount that makes the outcome 1."""
        ...

    @property
    def binary(self) -> bool:
        """Whether the outcome is 0 or 1."""
        ...


_ORIGINS = {"organic": "organically", "recommended": "when recommended", "autoplay": "by autoplay"}
_EVENTS = {
    "play": "plays",
    "skip": "skips",
    "save": "saves",
    "like": "likes",
    "follow": "follows",
    "purchase": "purchases",
    "refund": "refunds",
    "visit": "visits",
    "cancel": "cancellations",
}


def sentence(signal: Declared) -> str:
    """A signal's meaning in one sentence."""
    origin = ""
    if len(signal.origins) < len(ORIGINS):
        origin = f", {' or '.join(_ORIGINS[origin] for origin in signal.origins)},"
    warning = "; a policy can manufacture it by showing" if signal.gameable else ""
    direction = f"; {signal.better} is better" if signal.better != signal.measure.better else ""
    return (
        f"{_entry(signal.entry)}, "
        f"{_measure(signal.measure, signal.threshold, origin, signal.window)} "
        f"{_window(signal.window)}{warning}{direction}"
    )


def unit(signal: Declared) -> str:
    """The unit of a signal's values: `share`, `days`, `plays per session`."""
    measure = signal.measure
    if signal.binary:
        return "share"
    name = _filled(measure.record.unit or measure.record.plural, measure)
    return name if measure.per is None else f"{name} per {_singular(measure.per)}"


def opener(entry: Entry) -> str:
    """The name of an entry in a list of parts: `a discovery`, `a save`."""
    return entry.record.title.format(event=entry.event, where=where_in_words(entry))


def title(measure: Measure) -> str:
    """The name of a measure in a list of parts: `plays of that creator`."""
    record = measure.record
    name = record.title or record.name.replace("_", " ")
    if measure.of is not None:
        name = record.title_of or f"{name} of that {measure.of}"
    text = name.format(event=measure.event, of=measure.of, days=_days(measure.days))
    return f"{text}{_only(measure)}"


def _entry(entry: Entry) -> str:
    first = "first touch in the log"
    first_event = ""
    dormant = ""
    if entry.novel_for is not None:
        first = f"first touch in {entry.novel_for} days"
        first_event = f" (the first in {_days(entry.novel_for)})"
    if entry.dormant_for is not None:
        dormant = f" after {_days(entry.dormant_for)} or more without activity"
    article = "an" if entry.of == "item" else "a"
    return entry.record.sentence.format(
        a=article,
        of=entry.of,
        first=first,
        dormant=dormant,
        events=_EVENTS.get(str(entry.event)),
        where=where_in_words(entry),
        of_key=f" of {article} {entry.of}" if entry.of else "",
        first_event=first_event,
    )


def where_in_words(entry: Entry) -> str:
    """The origin and surface of the events that open an entry, in brackets; empty where any do."""
    parts = []
    if entry.origin is not None:
        parts.append(entry.origin)
    if entry.surface is not None:
        parts.append(f"on {entry.surface!r}")
    return f" ({', '.join(parts)})" if parts else ""


def _only(measure: Measure) -> str:
    """What a narrowed measure counts, in brackets; empty where it is not narrowed."""
    parts = []
    if measure.event is not None and "event" not in measure.record.required:
        parts.append(_EVENTS[measure.event])
    if measure.surface is not None:
        parts.append(f"on {measure.surface!r}")
    if measure.seconds is not None:
        parts.append(f"of {_number(measure.seconds)} s or more")
    return f" (only {' '.join(parts)})" if parts else ""


def bound_in_words(measure: Measure, threshold: float | None) -> str:
    """The bound that the amount is compared with: `at least 3`, `at most 0`; empty without one."""
    if measure.at_most is not None:
        return f"at most {_number(measure.at_most)}"
    return "" if threshold is None else f"at least {_number(threshold)}"


def _measure(measure: Measure, threshold: float | None, how: str, window: tuple[int, int]) -> str:
    """The part of the sentence about the measure.

    Args:
        measure: what is counted.
        threshold: of the signal.
        how: of which origins, in words.
        window: first and last day.
    """
    bound = bound_in_words(measure, threshold)
    if measure.per is not None:
        each = f"{_plural(measure)}{_about(measure)} per {_singular(measure.per)}"
        each += _about(measure.per)
        template = measure.record.share_ratio if bound else measure.record.mean_ratio
        return template.format(each=each, bound=bound, how=how)
    is_one = 1 in (threshold, measure.at_most)
    more_days = ""
    if threshold is not None and not is_one:
        more_days = f" on {bound} days"
    baseline = ""
    if measure.baseline is not None:
        baseline = f" above the user's own rate in the {_days(measure.baseline)} before"
    template = measure.record.share if bound else measure.record.mean
    return template.format(
        amount=_singular(measure) if is_one else _plural(measure),
        about=_about(measure),
        base=baseline,
        bound=bound,
        days="day" if is_one else "days",
        weeks="week" if is_one else "weeks",
        how=how,
        more=more_days,
        stop=window[1],
    )


def _about(measure: Measure) -> str:
    """The creator or item that a measure is about, and what it is narrowed to: ` with that
    creator`."""
    if measure.of is None or measure.record.over_keys:
        return _only(measure)
    return f" {measure.record.linked} that {measure.of}{_only(measure)}"


def _plural(measure: Measure) -> str:
    """What is counted: `plays`."""
    return _filled(measure.record.plural, measure)


def _singular(measure: Measure) -> str:
    """What is counted, of one: `play`."""
    return _filled(measure.record.singular, measure)


def _filled(template: str, measure: Measure) -> str:
    """A text of the measure's kind, with what the measure declares filled in."""
    events = _EVENTS.get(str(measure.event), "")
    return template.format(
        of=measure.of, days=_days(measure.days), events=events, event=events.removesuffix("s")
    )


def _number(number: float) -> str:
    """A number with every digit, because the sentence is the definition.

    >>> _number(3.0), _number(0.1 + 0.2)
    ('3', '0.30000000000000004')
    """
    return str(int(number)) if number.is_integer() else repr(number)


def _days(count: int | None) -> str:
    return "1 day" if count == 1 else f"{count} days"


def _window(window: tuple[int, int]) -> str:
    start, stop = window
    if start == stop:
        return f"on day {start} after" if start else "on the same day"
    return f"in days {start} to {stop} after"
