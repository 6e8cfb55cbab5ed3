"""The functions that declare measures, one per kind: `days_with("creator")`, `minutes()`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from longplay.signals.declare.entry import Key
from longplay.signals.declare.measure import Measure


def active_days(
    *, event: str | None = None, surface: str | None = None, seconds: float | None = None
) -> Measure:
    """Measure: days on which the user is active, 0 to the window's length.

    Args:
        event: count only events of this kind: play, save, like, follow, purchase or visit.
        surface: count only events on this surface.
        seconds: count only events that last at least this long.
    """
    return Measure("active_days", event=event, surface=surface, seconds=seconds)


def returned(
    *, event: str | None = None, surface: str | None = None, seconds: float | None = None
) -> Measure:
    """Measure: whether the user is active on any day of the window, 0 or 1. Arguments as in
    `active_days`."""
    return Measure("returned", event=event, surface=surface, seconds=seconds)


def days_with(
    of: Key,
    *,
    event: str | None = None,
    surface: str | None = None,
    seconds: float | None = None,
) -> Measure:
    """Measure: days on which the user is active with the entry's own creator or item. Further
    arguments as in `active_days`."""
    return Measure("days_with", of, event=event, surface=surface, seconds=seconds)


def active_weeks(
    of: Key | None = None,
    *,
    event: str | None = None,
    surface: str | None = None,
    seconds: float | None = None,
) -> Measure:
    """Measure: weeks of the window with an active day, with anything or with the entry's own
    creator or item. Further arguments as in `active_days`.

    A week is 7 days of the window, counted from its first day; the last may be shorter.
    """
    return Measure("active_weeks", of, event=event, surface=surface, seconds=seconds)


def distinct(
    of: Key = "creator",
    *,
    event: str | None = None,
    surface: str | None = None,
    seconds: float | None = None,
) -> Measure:
    """Measure: number of different creators (or items) that the user engages with in the window.
    Further arguments as in `active_days`.

    Engagement of any origin counts unless the signal declares origins.
    """
    return Measure("distinct", of, event=event, surface=surface, seconds=seconds)


def time_to_return(
    of: Key | None = None,
    *,
    event: str | None = None,
    surface: str | None = None,
    seconds: float | None = None,
) -> Measure:
    """Measure: days from the entry to the first active day in the window, right-censored at the
    window's last day. Arguments as in `days_with`.

    The outcome is min(days, last day of the window); its mean is the restricted mean time to
    return. For survival models the frame of the outcomes also has `duration` and `event` (whether
    there was a return) for every entry, mature or not. `duration` is the number of days of the
    window that were observed: up to the return, that day included, or else all that have closed.
    Days before the window are not observed. So with window=(3, 28) a return on day 5 has duration
    3, and a user who never returns has 26.
    """
    return Measure("time_to_return", of, event=event, surface=surface, seconds=seconds)


def minutes(
    of: Key | None = None,
    *,
    event: str | None = None,
    surface: str | None = None,
    seconds: float | None = None,
) -> Measure:
    """Measure: minutes engaged, with anything or with the entry's own creator or item."""
    return Measure("minutes", of, event=event, surface=surface, seconds=seconds)


def plays(
    of: Key | None = None, *, surface: str | None = None, seconds: float | None = None
) -> Measure:
    """Measure: number of plays, of anything or of the entry's own creator or item."""
    return Measure("plays", of, surface=surface, seconds=seconds)


def saves(
    of: Key | None = None, *, surface: str | None = None, seconds: float | None = None
) -> Measure:
    """Measure: number of saves, of anything or of the entry's own creator or item."""
    return Measure("saves", of, surface=surface, seconds=seconds)


def skips(
    of: Key | None = None, *, surface: str | None = None, seconds: float | None = None
) -> Measure:
    """Measure: number of skips, of anything or of the entry's own creator or item."""
    return Measure("skips", of, surface=surface, seconds=seconds)


def cancelled() -> Measure:
    """Measure: whether the user cancels in the window, 0 or 1."""
    return Measure("cancelled")


def count(
    event: str,
    of: Key | None = None,
    *,
    surface: str | None = None,
    seconds: float | None = None,
) -> Measure:
    """Measure: number of events of a kind, about anything or about the entry's own creator or item.

    Counts of play, save and skip are `plays`, `saves` and `skips`.
    """
    return Measure("count", of, event=event, surface=surface, seconds=seconds)


def amount(
    event: str = "purchase", of: Key | None = None, *, surface: str | None = None
) -> Measure:
    """Measure: sum of the amounts of events of a kind, in the unit of the log's column `amount`:
    money or quantity.

    An event whose amount is not known adds 0.

    Args:
        event: the kind of event, e.g. "purchase" or "refund".
        of: count only events of the entry's own creator or item.
        surface: count only events on this surface.
    """
    return Measure("amount", of, event=event, surface=surface)


def sessions() -> Measure:
    """Measure: number of sessions that begin in the window.

    A session is a run of a user's engaged events with at most 30 minutes from one to the next; it
    belongs to the day on which it begins. The log's session_id is not read, because services end
    sessions differently.
    """
    return Measure("sessions")


def completion(of: Key | None = None, *, surface: str | None = None) -> Measure:
    """Measure: mean share of an item's length that is played, over the plays in the window; 0 to 1,
    null without plays.

    Counts only plays with `seconds`, of items with a `length` in the catalogue. A play longer than
    the item counts as 1.
    """
    return Measure("completion", of, surface=surface)


def habits(
    of: Key = "creator",
    days: int = 3,
    *,
    event: str | None = None,
    surface: str | None = None,
    seconds: float | None = None,
) -> Measure:
    """Measure: number of creators (or items) with which the user is active on at least `days` days
    of the window. Further arguments as in `active_days`."""
    return Measure("habits", of, days=days, event=event, surface=surface, seconds=seconds)


_DEFAULTS = {
    habits().kind: {"of": habits().of, "days": habits().days},
    distinct().kind: {"of": distinct().of},
    amount().kind: {"event": amount().event},
}


def measure_of(table: Mapping[str, Any]) -> Measure:
    """The measure of a parsed TOML table. Keys that are left out have the defaults of the kind's
    function.

    Args:
        table: the keys are the fields of `Measure`; `kind` is required, `per` is a table, too.

    >>> measure_of({"kind": "habits"}) == habits()
    True
    >>> print(measure_of({"kind": "plays", "per": {"kind": "sessions"}, "threshold": 2}).call)
    (plays() / sessions())
    """
    fields = _DEFAULTS.get(str(table["kind"]), {}) | dict(table)
    if "per" in fields:
        fields["per"] = measure_of(fields["per"])
    return Measure(**fields)
