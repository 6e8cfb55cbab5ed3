"""Signals: delayed outcomes, declared as data and computed in SQL."""

from longplay.signals.declare.entry import Entry, discovery, enrolment, event, exposure, user_day
from longplay.signals.declare.measure import Measure
from longplay.signals.declare.measure_functions import (
    active_days,
    active_weeks,
    amount,
    cancelled,
    completion,
    count,
    days_with,
    distinct,
    habits,
    minutes,
    plays,
    returned,
    saves,
    sessions,
    skips,
    time_to_return,
)
from longplay.signals.outcomes.in_memory import Outcomes, Shown
from longplay.signals.ready_signals import READY, ready
from longplay.signals.signal import Signal

__all__ = [
    "READY",
    "Entry",
    "Measure",
    "Outcomes",
    "Shown",
    "Signal",
    "active_days",
    "active_weeks",
    "amount",
    "cancelled",
    "completion",
    "count",
    "days_with",
    "discovery",
    "distinct",
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
