"""Parts of signals: features of a unit, over days around the entry."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from longplay.lake.schema import ORIGINS
from longplay.signals.declare.declaration import Declaration
from longplay.signals.declare.entry import Entry
from longplay.signals.engine.operators import (
    TOUCHED,
    Feature,
    divisor,
    events_of,
    feature,
    narrowed,
)


@dataclass(frozen=True)
class Part:
    """One number that an outcome is made of: a feature over the days low..high after the entry, for
    a unit.

    how: `days` (with anything), `first` (such day), `weeks` (with anything), `sum`, or `habits`
    (keys with enough days). counted: the daily amount is a number of events, of which the value
    asks no more than on which days there were any.
    """

    column: str
    feature: Feature
    unit: str
    how: str
    low: int
    high: int
    days: int = 0
    counted: bool = False

    @property
    def in_words(self) -> bool:
        """Whether words of days answer it."""
        return self.how in ("days", "first", "weeks")


def parts_of(signal: Declaration) -> list[Part]:
    """What a signal's value is computed from; columns `total`, and `per` or `base` where it has
    them."""
    measure, (low, high) = signal.measure, signal.window
    plain = measure.per is None and measure.baseline is None
    how: str = measure.record.how
    counted = measure.counted is not None and (signal.threshold or 2) <= 1 and plain
    if counted:
        how = "days"  # on which days is enough: no need of how many
    one, unit = feature(measure, signal.origins), measure.of or "user"
    least_days = measure.days or measure.record.fixed_days or 0
    parts = [Part("total", one, unit, how, low, high, least_days, counted)]
    if (per := divisor(measure, signal.origins)) is not None:
        part = measure if measure.per is None else measure.per
        parts.append(Part("per", per, part.of or "user", part.record.how, low, high))
    if measure.baseline is not None:
        parts.append(Part("base", one, unit, how, -measure.baseline, -1))
    return parts


def asks_creators(signal: Declaration) -> bool:
    """Whether the signal asks whose work an event or a slot is about."""
    return (
        signal.entry.of == "creator"
        or signal.entry.is_slot
        or any(part.unit == "creator" for part in parts_of(signal))
    )


def may_lack_creator(signal: Declaration) -> bool:
    """Whether the signal asks of an entry's creator, and entries may have none: then their outcome
    is null, never 0."""
    about_items = signal.entry.is_slot or signal.entry.of == "item"
    return about_items and any(
        part.unit == "creator" and part.how != "habits" for part in parts_of(signal)
    )


def is_unknown(signal: Declaration, entered: int, as_of_day: int) -> bool:
    """Whether nothing is known of an entry of that day (or a later one) at midnight `as_of_day`,
    but that it is one."""
    open_yet = entered + signal.window[1] + 1 > as_of_day
    return open_yet and not signal.measure.record.is_first_day and signal.measure.baseline is None


def reach_of(signals: Iterable[Declaration]) -> tuple[int, int]:
    """How many days before and after an entry's these signals ask of."""
    before, after = 0, 0
    for signal in signals:
        entry = signal.entry
        lows = [part.low for part in parts_of(signal)]
        before = max(before, entry.novel_for or 0, entry.dormant_for or 0, -min(lows))
        after = max(after, *(part.high for part in parts_of(signal)))
    return before, after


def entry_words(entry: Entry) -> tuple[str, Feature] | None:
    """The unit and feature whose days an entry's days are; null where words do not know them."""
    if entry.record.opened_by == "activity":
        return entry.of or "user", TOUCHED
    if entry.is_event and entry.novel_for is not None:
        return entry.of or "user", opening_events(entry)
    return None


def opening_events(entry: Entry) -> Feature:
    """The events that open an entry."""
    origins = ORIGINS if entry.origin is None else (entry.origin,)
    return narrowed(events_of(str(entry.event), origins), entry)


def entry_keys(entry: Entry) -> list[str]:
    """The columns that say what an entry is about."""
    return (
        ["user_id", "item_id", "creator_id"]
        if entry.is_slot
        else ["user_id", *([f"{entry.of}_id"] if entry.of else [])]
    )
