"""The sentence a signal means."""

from __future__ import annotations

from typing import Protocol

from longplay.lake.schema import ORIGINS
from longplay.signals.declare.entry import Entry
from longplay.signals.declare.measure import Measure


class Declared(Protocol):
    """What a sentence is made of; a `Declaration` has it."""

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
        """Whether showing makes it."""
        ...

    @property
    def better(self) -> str | None:
        """Which way is a gain."""
        ...

    @property
    def origins(self) -> tuple[str, ...]:
        """Origins that count."""
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
    """What the signal is, in one sentence."""
    origin = (
        f", {' or '.join(_ORIGINS[one] for one in signal.origins)},"
        if len(signal.origins) < len(ORIGINS)
        else ""
    )
    warned = "; a policy can manufacture it by showing" if signal.gameable else ""
    direction = f"; {signal.better} is better" if signal.better != signal.measure.better else ""
    return (
        f"{_entry(signal.entry)}, "
        f"{_measure(signal.measure, signal.threshold, origin, signal.window)} "
        f"{_window(signal.window)}{warned}{direction}"
    )


def unit(signal: Declared) -> str:
    """What a value of it is a number of: `share`, `days`, `plays per session`."""
    measure = signal.measure
    if signal.binary:
        return "share"
    many = _filled(measure.record.unit or measure.record.plural, measure)
    return many if measure.per is None else f"{many} per {_amount(measure.per, one=True)}"


def opener(entry: Entry) -> str:
    """What opens an entry, in a list of parts: `a discovery`, `a save`."""
    return entry.record.title.format(event=entry.event, where=where_in_words(entry))


def title(measure: Measure) -> str:
    """What a measure is called in a list of parts: `plays of that creator`."""
    record = measure.record
    name = record.title or record.name.replace("_", " ")
    if measure.of is not None:
        name = record.title_of or f"{name} of that {measure.of}"
    words = name.format(event=measure.event, of=measure.of, days=_days(measure.days))
    return f"{words}{_only(measure)}"


def _entry(entry: Entry) -> str:
    first = "first touch in the log"
    first_event, dormant = "", ""
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
    """Which events open an entry, where not all of their kind do."""
    words = [entry.origin] if entry.origin is not None else []
    words += [f"on {entry.surface!r}"] if entry.surface is not None else []
    return f" ({', '.join(words)})" if words else ""


def _only(measure: Measure) -> str:
    """Which events count, where not all that the measure reads do."""
    declared_event = measure.event if "event" not in measure.record.required else None
    words = [_EVENTS[declared_event]] if declared_event is not None else []
    words += [f"on {measure.surface!r}"] if measure.surface is not None else []
    words += [f"of {_number(measure.seconds)} s or more"] if measure.seconds is not None else []
    return f" (only {' '.join(words)})" if words else ""


def bound_in_words(measure: Measure, threshold: float | None) -> str:
    """What the amount is compared with: `at least 3`, `at most 0`; empty where with nothing."""
    if measure.at_most is not None:
        return f"at most {_number(measure.at_most)}"
    return "" if threshold is None else f"at least {_number(threshold)}"


def _measure(measure: Measure, threshold: float | None, how: str, window: tuple[int, int]) -> str:
    about, bound, more, base = _about(measure), bound_in_words(measure, threshold), "", ""
    is_one = 1 in (threshold, measure.at_most)
    if measure.per is not None:
        each = f"{_amount(measure)}{about} per {_amount(measure.per, one=True)}"
        each += _about(measure.per)
        words = measure.record.share_ratio if bound else measure.record.mean_ratio
        return words.format(each=each, bound=bound, how=how)
    if threshold is not None and not is_one:
        more = f" on {bound} days"
    if measure.baseline is not None:
        base = f" above the user's own rate in the {_days(measure.baseline)} before"
    words = measure.record.share if bound else measure.record.mean
    return words.format(
        amount=_amount(measure, one=is_one),
        about=about,
        base=base,
        bound=bound,
        days="day" if is_one else "days",
        weeks="week" if is_one else "weeks",
        how=how,
        more=more,
        stop=window[1],
    )


def _about(measure: Measure) -> str:
    """Which creator or item it is about (one is active with it, events are of it), and which events
    count."""
    if measure.of is None or measure.record.over_keys:
        return _only(measure)
    return f" {measure.record.linked} that {measure.of}{_only(measure)}"


def _amount(measure: Measure, one: bool = False) -> str:
    """What is counted, in words; `one`: of one of them."""
    return _filled(measure.record.singular if one else measure.record.plural, measure)


def _filled(words: str, measure: Measure) -> str:
    """`words` with what the measure declares in its places."""
    many = _EVENTS.get(str(measure.event), "")
    return words.format(
        of=measure.of, days=_days(measure.days), events=many, event=many.removesuffix("s")
    )


def _number(threshold: float) -> str:
    return (
        str(int(threshold)) if threshold.is_integer() else repr(threshold)
    )  # every digit: the sentence is the definition


def _days(count: int | None) -> str:
    return "1 day" if count == 1 else f"{count} days"


def _window(window: tuple[int, int]) -> str:
    start, stop = window
    if start == stop:
        return f"on day {start} after" if start else "on the same day"
    return f"in days {start} to {stop} after"
