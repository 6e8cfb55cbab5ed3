"""Signals: what we hope for, declared as data and computed in SQL."""

from longplay.signals.attribution import Comparison, Credits, compare_rules
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
from longplay.signals.sharing import Rule
from longplay.signals.signal import Signal
from longplay.signals.unexposed import Unexposed, shown_unasked, unexposed_baseline

__all__ = [
    "READY",
    "Comparison",
    "Credits",
    "Entry",
    "Measure",
    "Outcomes",
    "Rule",
    "Shown",
    "Signal",
    "Unexposed",
    "active_days",
    "cancelled",
    "compare_rules",
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
    "shown_unasked",
    "skips",
    "time_to_return",
    "unexposed_baseline",
    "user_day",
]
