"""Signals: what we hope for, declared as data and computed in SQL."""

from longplay.signals.catalogue import READY, ready
from longplay.signals.entry import Entry, discovery, enrolment, event, exposure, user_day
from longplay.signals.measure import (
    Measure,
    active_days,
    cancelled,
    completion,
    count,
    days_with,
    habits,
    minutes,
    plays,
    returned,
    saves,
    sessions,
    skips,
    time_to_return,
)
from longplay.signals.outcomes import Outcomes, Shown
from longplay.signals.signal import Signal

__all__ = [
    "READY",
    "Entry",
    "Measure",
    "Outcomes",
    "Shown",
    "Signal",
    "active_days",
    "cancelled",
    "completion",
    "count",
    "days_with",
    "discovery",
    "enrolment",
    "event",
    "exposure",
    "habits",
    "minutes",
    "plays",
    "ready",
    "returned",
    "saves",
    "sessions",
    "skips",
    "time_to_return",
    "user_day",
]
