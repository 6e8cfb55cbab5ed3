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
_AMOUNTS = {
    "active_days": "days active",
    "returned": "days active",
    "days_with": "days active",
}  # the others are called what their kind is


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
    if signal.binary or measure.kind == "completion":
        return "share"
    if measure.counts_days or measure.kind == "time_to_return":
        many = "days"
    else:
        many = f"{measure.of}s" if measure.kind == "habits" else _amount(measure)
    return many if measure.per is None else f"{many} per {_amount(measure.per, one=True)}"


def _entry(entry: Entry) -> str:
    article = "an" if entry.of == "item" else "a"
    match entry.kind:
        case "discovery":
            first = (
                "first touch in the log"
                if entry.novel_for is None
                else f"first touch in {entry.novel_for} days"
            )
            return f"of a user's discoveries of {article} {entry.of} ({first})"
        case "exposure":
            return f"of the slots that show a user some {entry.of}"
        case "user_day":
            after = (
                f" after {_days(entry.dormant_for)} or more without activity"
                if entry.dormant_for is not None
                else ""
            )
            return f"of the days on which a user is active{after}"
        case "event":
            of = f" of {article} {entry.of}" if entry.of else ""
            first = (
                f" (the first in {_days(entry.novel_for)})" if entry.novel_for is not None else ""
            )
            return f"of a user's {_EVENTS[str(entry.event)]}{of}{first}"
        case _:
            return "of users, from their enrolment (first exposure in a trial, else first event)"


def _measure(measure: Measure, threshold: float | None, how: str, window: tuple[int, int]) -> str:
    ours = _ours(measure)
    if measure.kind == "cancelled":
        return f"the share where the user cancels{how}"
    if measure.kind == "time_to_return":
        return (
            f"the mean number of days until the user is active again{ours}{how} at most "
            f"{window[1]},"
        )
    if measure.kind == "completion":
        what = f"the mean share of an item that a play{ours} lasts{how}"
        return (
            what
            if threshold is None
            else f"the share where plays{ours} last at least {_number(threshold)} of an item on "
            f"average{how}"
        )
    if measure.per is not None:
        each = f"{_amount(measure)}{ours} per {_amount(measure.per, one=True)}" + _ours(measure.per)
        return (
            f"the mean number of {each}{how}"
            if threshold is None
            else f"the share with at least {_number(threshold)} {each}{how}"
        )
    base = (
        f" above the user's own rate in the {_days(measure.baseline)} before"
        if measure.baseline is not None
        else ""
    )
    if measure.kind == "returned":
        times = "" if threshold in (None, 1) else f" on at least {_number(threshold or 0)} days"
        return f"the share where the user is active again{times}{how}"
    if threshold is None:
        return f"the mean number of {_amount(measure)}{ours}{base}{how}"
    if measure.counts_days:
        return (
            f"the share where the user is active{ours} on at least {_number(threshold)} "
            f"{'day' if threshold == 1 else 'days'}{base}{how}"
        )
    return (
        f"the share with at least {_number(threshold)} "
        f"{_amount(measure, one=threshold == 1)}{ours}{base}{how}"
    )


def _ours(measure: Measure) -> str:
    """Which creator or item it is about: one is active with it, events are of it."""
    if measure.of is None or measure.kind == "habits":
        return ""
    return (
        f" {'of' if measure.counted or measure.kind == 'completion' else 'with'} that {measure.of}"
    )


def _amount(measure: Measure, one: bool = False) -> str:
    """What is counted, in words; `one`: of one of them."""
    if measure.kind == "habits":
        of = measure.of if one else f"{measure.of}s"
        return f"{of} that the user is active with on at least {_days(measure.days)}"
    if measure.counts_days:
        return "day active" if one else _AMOUNTS[measure.kind]
    many = _EVENTS[str(measure.event)] if measure.kind == "count" else measure.kind
    return many[:-1] if one else many


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
