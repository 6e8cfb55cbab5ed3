"""Rows of entries with the event that opened each, and why a log may have none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from longplay.errors import DataError
from longplay.lake.connection import Connection
from longplay.lake.creators import prepare_creators, with_listed
from longplay.lake.daily import create_engaged, day_of, first_row, quoted
from longplay.lake.lake import Lake
from longplay.lake.schema import ORIGINS
from longplay.signals.declare.declaration import Declaration
from longplay.signals.declare.entry import Entry
from longplay.signals.declare.sentence import where_in_words
from longplay.signals.engine.beginnings import Beginnings, days_of_rows, first_day_seen_again
from longplay.signals.engine.compiler import ENROLS, Compiler
from longplay.signals.engine.dialect import Engine
from longplay.signals.engine.duckdb import DUCKDB, first_by, first_or_null, nothing, record, slots
from longplay.signals.engine.operators import Feature, divisor, feature
from longplay.signals.engine.parts import opening_events

_NO_TEXT, _NO_NUMBER = nothing("varchar"), nothing("integer")
_NOTHING = f"{_NO_TEXT} as item_id, {_NO_TEXT} as creator_id"
_NO_SLOT = f"{_NO_TEXT} as decision_id, {_NO_NUMBER} as slot"

EVENT_COLUMNS = ("item_id", "creator_id", "time", "origin", "surface", "decision_id", "slot")


def create_entries(con: Connection, compiler: Compiler, entry: Entry, by_catalogue: bool) -> None:
    """Create `entries`: row, user_id, item_id, creator_id, time, day, origin, surface, decision_id,
    slot, truncated.

    They are those of the event that opened the entry (of an exposure, of the slot), or null where
    there is none.

    by_catalogue: see `EventRows`.
    """
    named = with_listed("events") if by_catalogue else "events"
    create_engaged(con, named)
    if entry.is_new or entry.dormant_for is not None:
        compiler.find(entry, "found")
        kinds = (
            "engaged"
            if not entry.is_event
            else f"(select *, {day_of('time')} as day from {named} where {opening_events(entry).test()})"
        )
        same = f" and found.{entry.of}_id = e.{entry.of}_id" if entry.of else ""
        about = "first.item_id, first.creator_id" if entry.of else _NOTHING
        columns = {name: f"e.{name}" for name in EVENT_COLUMNS}
        first = first_by(record(columns), "e.time, e.event_id")
        keys = (
            f"found.user_id, {f'found.{entry.of}_id, ' if entry.of else ''}found.day, "
            "found.truncated"
        )
        body = f"""
            select user_id, {about}, first.time as time, day, first.origin as origin, first.surface as surface,
                   first.decision_id as decision_id, first.slot as slot, truncated
            from (select {keys}, {first} as first from found join {kinds} e on e.user_id = found.user_id and e.day = found.day{same} group by all)"""
    elif entry.is_slot:
        body = f"""
            select d.user_id, d.item_id, c.creator_id, d.time, {day_of("d.time")} as day, 'recommended' as origin, d.surface,
                   d.decision_id, cast(d.slot - 1 as integer) as slot, false as truncated
            from (select user_id, time, surface, decision_id, {slots()} from decisions) d
            left join creators c using (item_id)"""
    elif entry.is_user_day:
        by_time = "time, event_id"
        first = {
            name: first_or_null(name, by_time) for name in ("surface", "decision_id", "slot")
        } | {"origin": first_by("origin", by_time)}
        body = f"""
            select user_id, {_NOTHING}, min(time) as time, day,
                   {first["origin"]} as origin, {first["surface"]} as surface,
                   {first["decision_id"]} as decision_id, {first["slot"]} as slot, false as truncated
            from engaged group by user_id, day"""
    elif entry.is_event:
        has_key = f" and {entry.of}_id is not null" if entry.of else ""
        about = "item_id, creator_id" if entry.of else _NOTHING
        body = f"""select user_id, {about}, time, {day_of("time")} as day, origin, surface, decision_id, slot, false as truncated
            from {named} where {opening_events(entry).test()}{has_key}"""
    elif compiler.enrolled:
        body = f"""
            select user_id, {_NOTHING}, time, {day_of("time")} as day, 'organic' as origin, {_NO_TEXT} as surface, {_NO_SLOT}, false as truncated
            from enrolled"""
    else:
        body = f"""
            with trial as (select user_id, min(time) as time from decisions where {ENROLS} group by user_id),
            first as (select user_id, min(time) as time from engaged group by user_id)
            select user_id, {_NOTHING}, coalesce(trial.time, first.time) as time,
                   {day_of("coalesce(trial.time, first.time)")} as day, 'organic' as origin, {_NO_TEXT} as surface, {_NO_SLOT}, false as truncated
            from first full join trial using (user_id)"""
    con.execute(
        f"""create or replace temp table entries as
        select row_number() over (order by time, user_id, item_id, creator_id) - 1 as row, * from ({body}) order by row"""
    )


def refuse(
    con: Connection,
    signal: Declaration,
    lake: Lake,
    days: tuple[int, int] | None,
    beginnings: Callable[[], Beginnings] | None,
    engine: Engine = DUCKDB,
) -> None:
    """Raise where the log cannot answer, whatever entries it has.

    Args:
        con: connected to what is known at the time asked for; `lake` may reach further.
        signal: what is asked.
        lake: for what the log holds in all, and for words of the error.
        days: first and last day of the log, null where it is empty.
        beginnings: of the log in `con`; null where a short log is no error, because entries are
            given or mature later.
        engine: that `con` belongs to.
    """
    if days is None and _is_empty(lake, engine):
        return
    if beginnings is not None:
        _refuse_window(signal, lake, beginnings(), engine)
    asked: list[Feature] = [feature(signal.measure, signal.origins)]
    if (per := divisor(signal.measure, signal.origins)) is not None:
        asked.append(per)
    opening = opening_events(signal.entry) if signal.entry.is_event else None
    for kind in sorted({kind for one in [*asked, *filter(None, [opening])] for kind in one.needs}):
        if _logged(con, lake, engine, f"kind = '{kind}'"):
            continue
        what = (
            "nothing opens it"
            if kind == signal.entry.event
            else "the outcome of everybody would be the same because nobody logged it"
        )
        raise DataError(
            f"{signal.name}: the log has no event of kind {kind!r}, so {what}; map that kind when "
            "the log is read, or measure something else"
        )
    if any(part.needs_seconds for part in asked) and not _logged(
        con, lake, engine, "seconds is not null"
    ):
        raise DataError(
            f"{signal.name}: the log has no event with seconds, so the minutes of everybody would "
            "be 0 because nobody logged them; "
            "map a column to seconds when the log is read, or measure plays"
        )
    for part in asked:
        if part.needs_amount and not _logged(con, lake, engine, f"{part.test()} and amount is not null"):
            raise DataError(
                f"{signal.name}: the log has no {part.kinds[0]} with an amount, so the sum of "
                "everybody would be 0 because nobody logged it; map a column to amount when the "
                "log is read, or count events"
            )
    if opening is not None and not _logged(con, lake, engine, opening.test()):
        raise DataError(
            f"{signal.name}: the log has no event that opens an entry, of kind "
            f"{signal.entry.event!r}{where_in_words(signal.entry)}; leave origin and surface out, "
            "or map them when the log is read"
        )
    for surface in sorted({one.needs_surface for one in asked if one.needs_surface is not None}):
        if not _logged(con, lake, engine, f"surface = {quoted(surface)}"):
            raise DataError(
                f"{signal.name}: the log has no event on surface {surface!r}, so the outcome of "
                "everybody would be the same because nobody logged it; map that surface when the "
                "log is read"
            )
    some_origins = " or ".join(f"origin = '{origin}'" for origin in signal.origins)
    may_lack = signal.origin is not None or (
        set(signal.origins) < set(ORIGINS) and _logged(con, lake, engine, "true")
    )  # decisions alone: nothing is odd
    if may_lack and not _logged(con, lake, engine, some_origins):
        raise DataError(f"{signal.name}: {_no_origin(signal, lake, engine)}")
    if signal.measure.needs_lengths and first_row(
        con, "select count(*) from items where length > 0"
    ) == (0,):
        raise DataError(
            f"{signal.name}: no item of the catalogue has a length (seconds), so no share of it "
            "is known; map a column to items.length"
        )


def _refuse_window(signal: Declaration, lake: Lake, beginnings: Beginnings, engine: Engine) -> None:
    """Raise where the log is too short for an outcome to be known of a user who came again, or else
    of anybody."""
    stop = signal.window[1]

    def midnight(day: int) -> datetime:
        return datetime.fromtimestamp(day * 86_400, UTC)

    def is_short(day: int) -> bool:
        return midnight(day + stop + 1) > lake.watermark

    if beginnings.runs and not is_short(beginnings.runs[0][0]):
        return
    # a decision, or what arrives after the time asked for, may lie earlier
    with engine.connect(lake) as whole:
        days = days_of_rows(whole)
        begins = first_day_seen_again(whole, days)
    if days is None:
        return
    stray = ""
    if begins is None:
        begins = days[0]
    elif days[0] < begins:
        stray = (
            f", with users who came again (before, from {midnight(days[0]):%Y-%m-%d} on, "
            "nobody did),"
        )
    if is_short(begins):
        raise DataError(
            f"{signal.name}: the window ends {stop} days after an entry, but the log begins on "
            f"{midnight(begins):%Y-%m-%d}{stray} and ends on "
            f"{lake.watermark:%Y-%m-%d}: no outcome can be known before "
            f"{midnight(begins + stop + 1):%Y-%m-%d}; wait, or shorten the window"
        )


def unanswerable(signals: Sequence[Declaration], lake: Lake) -> dict[Declaration, str]:
    """The signals that a log cannot answer however long it is, and why; cheap, as no outcome is
    computed."""
    reasons: dict[Declaration, str] = {}
    as_of = lake.watermark
    with lake.connect() as con:
        create_engaged(con, with_listed("events") if prepare_creators(con, lake) else "events")
        for signal in signals:
            try:
                explain_no_entries(con, signal, lake, as_of)
                refuse(con, signal, lake, (0, 0), beginnings=None)
            except DataError as reason:
                reasons[signal] = str(reason)
    return reasons


def explain_no_entries(con: Connection, signal: Declaration, lake: Lake, as_of: datetime) -> None:
    """Say why there is nothing to measure, where a reason can be known."""
    if not _has(con, "true"):
        late = lake.before(as_of, known_at=datetime.max.replace(tzinfo=UTC)).events
        arrived = late["ingested_at"].min()
        if (
            isinstance(arrived, datetime) and arrived > lake.watermark
        ):  # everything came after the log had ended: a bulk load
            raise DataError(
                f"{signal.name}: {late.height:,} events happened before {as_of:%Y-%m-%d %H:%M} "
                "but none had arrived by then (ingested_at); "
                "leave ingested_at out if the log was loaded in bulk, or give "
                "signal.outcomes(lake.before(t, known_at=later))"
            )
    of = signal.entry.of
    if signal.entry.is_slot and first_row(con, "select count(*) from decisions") == (0,):
        raise DataError(
            f"{signal.name}: the log has no decisions, so there are no exposures; enter by "
            "discovery() or user_day()"
        )
    if of is not None:
        counts = first_row(con, f"select count(*), count({of}_id) from engaged")
        if counts and counts[0] and not counts[1]:
            raise DataError(
                f"{signal.name}: no event of this log has a {of}; map a column to {of}_id, or use "
                "the other of creator and item"
            )


def _has(con: Connection, test: str) -> bool:
    return first_row(con, f"select 1 from events where {test} limit 1") is not None


def _logged(con: Connection, lake: Lake, engine: Engine, test: str) -> bool:
    """Whether any event that is known, or else any of the lake, passes a test (SQL)."""
    if _has(con, test):
        return True
    with engine.connect(lake) as whole:
        return _has(whole, test)


def _no_origin(signal: Declaration, lake: Lake, engine: Engine) -> str:
    """Why a log that has no event of the signal's origins cannot answer it, and what to do."""
    with engine.connect(lake) as con:
        logged = [
            repr(origin)
            for (origin,) in con.execute(
                "select distinct origin from events order by origin"
            ).fetchall()
        ]
    by_default = "" if signal.origin is not None else ", which this measure counts by default"
    has = f"its events are {' and '.join(logged)}" if logged else "it has no event at all"
    other = f", or declare origin=({', '.join(logged)},)" if logged else ""
    return (
        f"the log has no event of origin {' or '.join(map(repr, signal.origins))}{by_default} "
        f"({has}), so the outcome of everybody would be the same "
        f"because nobody logged it; map that origin when the log is read{other}"
    )


def _is_empty(lake: Lake, engine: Engine) -> bool:
    """Whether the lake shows neither an event nor a decision."""
    with engine.connect(lake) as con:
        return days_of_rows(con) is None
