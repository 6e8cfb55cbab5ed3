"""Signals: what we hope for, declared as data and computed in SQL."""

from longplay.signals.outcomes import Outcomes, Shown
from longplay.signals.signal import (
    Entry,
    Measure,
    Signal,
    active_days,
    days_with,
    discovery,
    enrolment,
    exposure,
    minutes,
    plays,
    returned,
    user_day,
)

__all__ = [
    "Entry",
    "Measure",
    "Outcomes",
    "Shown",
    "Signal",
    "active_days",
    "days_with",
    "discovery",
    "enrolment",
    "exposure",
    "minutes",
    "plays",
    "returned",
    "user_day",
]
