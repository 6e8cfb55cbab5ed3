"""Rows of entries, each with the event that opened it."""

from __future__ import annotations

from longplay.lake.connection import Connection
from longplay.lake.creators import with_listed
from longplay.lake.daily import create_engaged, day_of
from longplay.signals.declare.entry import Entry
from longplay.signals.engine.compiler import ENROLS, ENTRY_DAYS, Compiler
from longplay.signals.engine.duckdb import first_by, first_or_null, null_of, record, slots
from longplay.signals.engine.parts import opening_events

_NO_TEXT = null_of("varchar")
_NO_NUMBER = null_of("integer")
_NO_KEYS = f"{_NO_TEXT} as item_id, {_NO_TEXT} as creator_id"
_NO_SLOT = f"{_NO_TEXT} as decision_id, {_NO_NUMBER} as slot"

EVENT_COLUMNS = ("item_id", "creator_id", "time", "origin", "surface", "decision_id", "slot")


def create_entries(con: Connection, compiler: Compiler, entry: Entry, by_catalogue: bool) -> None:
    """Create the table `entries`: row, user_id, item_id, creator_id, time, day, origin, surface,
    decision_id, slot, truncated.

    The columns are those of the event that opened the entry (of an exposure, of the slot), null
    where it has none.

    Args:
        con: has the views `events`, `items` and `decisions`, and the table `creators`.
        compiler: of the same connection.
        entry: what opens entries.
        by_catalogue: see `EventRows`.
    """
    events = with_listed("events") if by_catalogue else "events"
    create_engaged(con, events)
    if entry.is_new or entry.dormant_for is not None:
        compiler.create_entry_days(entry)
        body = _first_events_of_days(entry, events)
    elif entry.is_slot:
        body = _slots()
    elif entry.is_user_day:
        body = _active_days()
    elif entry.is_event:
        body = _events(entry, events)
    elif compiler.enrolled:
        body = _given_enrolments()
    else:
        body = _enrolments()
    con.execute(
        f"""
        create or replace temp table entries as
        select row_number() over (order by time, user_id, item_id, creator_id) - 1 as row, *
        from ({body}) order by row"""
    )


def _first_events_of_days(entry: Entry, events: str) -> str:
    """SQL of entries that are days of the table `ENTRY_DAYS`, with the first event of each day.

    Args:
        entry: what opened the days.
        events: SQL to select events from.
    """
    if entry.is_event:
        opening = f"(select *, {day_of('time')} as day from {events} where {_opens(entry)})"
    else:
        opening = "engaged"
    keys = ""
    about = _NO_KEYS
    same_key = ""
    if entry.of:
        keys = f"{ENTRY_DAYS}.{entry.of}_id, "
        about = "first.item_id, first.creator_id"
        same_key = f" and {ENTRY_DAYS}.{entry.of}_id = e.{entry.of}_id"
    first = first_by(record({name: f"e.{name}" for name in EVENT_COLUMNS}), "e.time, e.event_id")
    return f"""
        select user_id, {about}, first.time as time, day, first.origin as origin,
               first.surface as surface, first.decision_id as decision_id, first.slot as slot,
               truncated
        from (
            select {ENTRY_DAYS}.user_id, {keys}{ENTRY_DAYS}.day, {ENTRY_DAYS}.truncated,
                   {first} as first
            from {ENTRY_DAYS}
            join {opening} e
                on e.user_id = {ENTRY_DAYS}.user_id and e.day = {ENTRY_DAYS}.day{same_key}
            group by all
        )"""


def _slots() -> str:
    """SQL of entries that are slots shown."""
    return f"""
        select d.user_id, d.item_id, c.creator_id, d.time, {day_of("d.time")} as day,
               'recommended' as origin, d.surface, d.decision_id,
               cast(d.slot - 1 as integer) as slot, false as truncated
        from (select user_id, time, surface, decision_id, {slots()} from decisions) d
        left join creators c using (item_id)"""


def _active_days() -> str:
    """SQL of entries that are all active days, with the first event of each."""
    by_time = "time, event_id"
    origin = first_by("origin", by_time)
    surface, decision_id, slot = (
        first_or_null(column, by_time) for column in ("surface", "decision_id", "slot")
    )
    return f"""
        select user_id, {_NO_KEYS}, min(time) as time, day, {origin} as origin,
               {surface} as surface, {decision_id} as decision_id, {slot} as slot,
               false as truncated
        from engaged group by user_id, day"""


def _events(entry: Entry, events: str) -> str:
    """SQL of entries that are all events of a kind."""
    has_key = f" and {entry.of}_id is not null" if entry.of else ""
    about = "item_id, creator_id" if entry.of else _NO_KEYS
    return f"""
        select user_id, {about}, time, {day_of("time")} as day, origin, surface, decision_id, slot,
               false as truncated
        from {events} where {_opens(entry)}{has_key}"""


def _opens(entry: Entry) -> str:
    """SQL condition that an event opens an entry."""
    return opening_events(entry).test()


def _given_enrolments() -> str:
    """SQL of entries that are the enrolments of the view `enrolled`."""
    return f"""
        select user_id, {_NO_KEYS}, time, {day_of("time")} as day, 'organic' as origin,
               {_NO_TEXT} as surface, {_NO_SLOT}, false as truncated
        from enrolled"""


def _enrolments() -> str:
    """SQL of entries that are each user's first experiment, else first activity."""
    time = "coalesce(trial.time, first.time)"
    return f"""
        with trial as (
            select user_id, min(time) as time from decisions where {ENROLS} group by user_id
        ),
        first as (select user_id, min(time) as time from engaged group by user_id)
        select user_id, {_NO_KEYS}, {time} as time, {day_of(time)} as day, 'organic' as origin,
               {_NO_TEXT} as surface, {_NO_SLOT}, false as truncated
        from first full join trial using (user_id)"""
