"""Parts of signals: each is one number that an outcome is computed from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from longplay.lake.schema import ORIGINS
from longplay.signals.declare.declaration import Declaration
from longplay.signals.declare.entry import Entry
from longplay.signals.engine.features import (
    TOUCHED,
    Feature,
    divisor_of,
    events_of,
    feature_of,
    narrowed,
)


@dataclass(frozen=True)
class Part:
    """One number that an outcome is computed from: a feature of a unit, over days around the entry.

    Attributes:
        column: "total"; "per" for what a ratio is divided by; "base" for a baseline.
        feature: what is counted or summed.
        unit: user, creator or item.
        how: `days` (number of days with anything), `first` (the first such day), `weeks` (number of
            weeks with anything), `sum`, or `habits` (number of keys with enough days).
        low: first day, counted from the entry's.
        high: last day, included.
        days: the days that make a key count, for `habits`.
        is_reduced: the measure counts events, but the outcome only asks on which days there were
            any, so `how` is `days`.
    """

    column: str
    feature: Feature
    unit: str
    how: str
    low: int
    high: int
    days: int = 0
    is_reduced: bool = False

    @property
    def reads_bitmaps(self) -> bool:
        """Whether the entry's own day bitmap answers it."""
        return self.how in ("days", "first", "weeks")


def parts_of(signal: Declaration) -> list[Part]:
    """The parts that a signal's value is computed from: `total`, and `per` or `base` where the
    measure has a divisor or a baseline."""
    measure = signal.measure
    low, high = signal.window
    how: str = measure.record.how
    is_plain = measure.per is None and measure.baseline is None
    # "at least one event" is "at least one day with an event": bitmaps answer it
    is_reduced = measure.counted is not None and (signal.threshold or 2) <= 1 and is_plain
    if is_reduced:
        how = "days"
    feature = feature_of(measure, signal.origins)
    unit = measure.of or "user"
    habit_days = measure.days or measure.record.fixed_days or 0
    parts = [Part("total", feature, unit, how, low, high, habit_days, is_reduced)]
    if (divisor := divisor_of(measure, signal.origins)) is not None:
        denominator = measure if measure.per is None else measure.per
        how_divided = denominator.record.how
        parts.append(Part("per", divisor, denominator.of or "user", how_divided, low, high))
    if measure.baseline is not None:
        parts.append(Part("base", feature, unit, how, -measure.baseline, -1))
    return parts


def reads_creators(signal: Declaration) -> bool:
    """Whether the signal depends on who the creator of an event's or a slot's item is."""
    return (
        signal.entry.of == "creator"
        or signal.entry.is_slot
        or any(part.unit == "creator" for part in parts_of(signal))
    )


def may_lack_creator(signal: Declaration) -> bool:
    """Whether the signal counts events of the entry's creator, and some entries may have none. The
    outcome of these is null, never 0."""
    about_items = signal.entry.is_slot or signal.entry.of == "item"
    return about_items and any(
        part.unit == "creator" and part.how != "habits" for part in parts_of(signal)
    )


def is_unknown(signal: Declaration, entry_day: int, as_of_day: int) -> bool:
    """Whether entries of `entry_day` and later have nothing but nulls at midnight `as_of_day`."""
    is_immature = entry_day + signal.window[1] + 1 > as_of_day
    return (
        is_immature and not signal.measure.record.is_first_day and signal.measure.baseline is None
    )


def reach_of(signals: Iterable[Declaration]) -> tuple[int, int]:
    """How many days before and after an entry's day these signals read."""
    days_before = 0
    days_after = 0
    for signal in signals:
        entry = signal.entry
        first_day = min(part.low for part in parts_of(signal))
        days_before = max(days_before, entry.novel_for or 0, entry.dormant_for or 0, -first_day)
        days_after = max(days_after, *(part.high for part in parts_of(signal)))
    return days_before, days_after


def entry_bitmap(entry: Entry) -> tuple[str, Feature] | None:
    """The unit and feature whose bitmap says on which days there are entries; null where no bitmap
    does."""
    if entry.record.opened_by == "activity":
        return entry.of or "user", TOUCHED
    if entry.is_event and entry.novel_for is not None:
        return entry.of or "user", opening_events(entry)
    return None


def opening_events(entry: Entry) -> Feature:
    """The feature that counts the events that open an entry."""
    origins = ORIGINS if entry.origin is None else (entry.origin,)
    return narrowed(events_of(str(entry.event), origins), entry)


def entry_keys(entry: Entry) -> list[str]:
    """The columns that say whom and what an entry is about."""
    if entry.is_slot:
        return ["user_id", "item_id", "creator_id"]
    return ["user_id"] if entry.of is None else ["user_id", f"{entry.of}_id"]
