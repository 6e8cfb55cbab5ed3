"""Whether a log can answer a signal, and the errors that say why it cannot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from longplay.errors import DataError
from longplay.lake.connection import Connection
from longplay.lake.creators import prepare_creators, with_listed
from longplay.lake.daily import create_engaged, first_row, quoted
from longplay.lake.lake import Lake
from longplay.lake.schema import ORIGINS
from longplay.signals.declare.declaration import Declaration
from longplay.signals.declare.sentence import where_in_words
from longplay.signals.engine.beginnings import Beginnings, days_of_rows, first_day_seen_again
from longplay.signals.engine.dialect import Engine
from longplay.signals.engine.duckdb import DUCKDB
from longplay.signals.engine.features import Feature, divisor_of, feature_of
from longplay.signals.engine.parts import opening_events


def check_answerable(
    con: Connection,
    signal: Declaration,
    lake: Lake,
    days: tuple[int, int] | None,
    beginnings: Callable[[], Beginnings] | None,
    engine: Engine = DUCKDB,
) -> None:
    """Raise where the log cannot answer a signal, whatever entries it has.

    Args:
        con: connected to what is known at the time asked for; `lake` may reach further.
        signal: what is asked.
        lake: the log. What is nowhere in it cannot be measured.
        days: first and last day of the log, null where it is empty.
        beginnings: of the log in `con`; null where a short log is no error, because entries are
            given or mature later.
        engine: that `con` belongs to.

    Raises:
        DataError: the window is longer than the log, or the log lacks what the signal counts.
    """
    if days is None and _is_empty(lake, engine):
        return
    if beginnings is not None:
        _check_window(signal, lake, beginnings(), engine)
    log = _Log(con, lake, engine)
    features = [feature_of(signal.measure, signal.origins)]
    if (divisor := divisor_of(signal.measure, signal.origins)) is not None:
        features.append(divisor)
    opening = opening_events(signal.entry) if signal.entry.is_event else None
    _check_kinds(signal, log, features if opening is None else [*features, opening])
    _check_values(signal, log, features)
    if opening is not None and not log.has(opening.test()):
        raise DataError(
            f"{signal.name}: the log has no event that opens an entry, of kind "
            f"{signal.entry.event!r}{where_in_words(signal.entry)}; leave origin and surface out, "
            "or map them when the log is read"
        )
    _check_places(signal, log, features)
    if signal.measure.needs_lengths and first_row(
        con, "select count(*) from items where length > 0"
    ) == (0,):
        raise DataError(
            f"{signal.name}: no item of the catalogue has a length (seconds), so no share of it "
            "is known; map a column to items.length"
        )


class _Log:
    """Looks for events in what is known, and then in all of a lake."""

    def __init__(self, con: Connection, lake: Lake, engine: Engine) -> None:
        self.con = con
        self.lake = lake
        self.engine = engine

    def has(self, test: str) -> bool:
        """Whether any event that is known, or else any of the lake, passes a test (SQL)."""
        if _has_event(self.con, test):
            return True
        with self.engine.connect(self.lake) as con:
            return _has_event(con, test)

    def origins(self) -> list[str]:
        """The origins of all events of the lake, in order."""
        with self.engine.connect(self.lake) as con:
            rows = con.execute("select distinct origin from events order by origin").fetchall()
        return [origin for (origin,) in rows]


def _check_kinds(signal: Declaration, log: _Log, features: Sequence[Feature]) -> None:
    """Raise where the log lacks events of a kind that is counted or opens entries."""
    for kind in sorted({kind for feature in features for kind in feature.needs}):
        if log.has(f"kind = '{kind}'"):
            continue
        consequence = "the outcome of everybody would be the same because nobody logged it"
        if kind == signal.entry.event:
            consequence = "nothing opens it"
        raise DataError(
            f"{signal.name}: the log has no event of kind {kind!r}, so {consequence}; map that "
            "kind when the log is read, or measure something else"
        )


def _check_values(signal: Declaration, log: _Log, features: Sequence[Feature]) -> None:
    """Raise where the log lacks seconds or amounts that are summed."""
    if any(feature.needs_seconds for feature in features) and not log.has("seconds is not null"):
        raise DataError(
            f"{signal.name}: the log has no event with seconds, so the minutes of everybody would "
            "be 0 because nobody logged them; "
            "map a column to seconds when the log is read, or measure plays"
        )
    for feature in features:
        if feature.needs_amount and not log.has(f"{feature.test()} and amount is not null"):
            raise DataError(
                f"{signal.name}: the log has no {feature.kinds[0]} with an amount, so the sum of "
                "everybody would be 0 because nobody logged it; map a column to amount when the "
                "log is read, or count events"
            )


def _check_places(signal: Declaration, log: _Log, features: Sequence[Feature]) -> None:
    """Raise where the log lacks events on a surface, or of the origins, that are counted."""
    surfaces = {feature.needs_surface for feature in features if feature.needs_surface is not None}
    for surface in sorted(surfaces):
        if not log.has(f"surface = {quoted(surface)}"):
            raise DataError(
                f"{signal.name}: the log has no event on surface {surface!r}, so the outcome of "
                "everybody would be the same because nobody logged it; map that surface when the "
                "log is read"
            )
    # by default only some origins count; a log of decisions alone lacks them for a good reason
    are_expected = signal.origin is not None or (
        set(signal.origins) < set(ORIGINS) and log.has("true")
    )
    counted_origins = " or ".join(f"origin = '{origin}'" for origin in signal.origins)
    if are_expected and not log.has(counted_origins):
        raise DataError(f"{signal.name}: {_no_origin(signal, log)}")


def _no_origin(signal: Declaration, log: _Log) -> str:
    """Why a log that has no event of the signal's origins cannot answer it, and what to do."""
    logged = [repr(origin) for origin in log.origins()]
    by_default = "" if signal.origin is not None else ", which this measure counts by default"
    if logged:
        has = f"its events are {' and '.join(logged)}"
        other = f", or declare origin=({', '.join(logged)},)"
    else:
        has = "it has no event at all"
        other = ""
    return (
        f"the log has no event of origin {' or '.join(map(repr, signal.origins))}{by_default} "
        f"({has}), so the outcome of everybody would be the same "
        f"because nobody logged it; map that origin when the log is read{other}"
    )


def _check_window(signal: Declaration, lake: Lake, beginnings: Beginnings, engine: Engine) -> None:
    """Raise where the log is too short for any outcome: of a user who came again, or where nobody
    did, of anybody."""
    window_days = signal.window[1]

    def midnight(day: int) -> datetime:
        return datetime.fromtimestamp(day * 86_400, UTC)

    def is_short(begin: int) -> bool:
        return midnight(begin + window_days + 1) > lake.watermark

    if beginnings.runs and not is_short(beginnings.runs[0][0]):
        return
    # a decision, or what arrives after the time asked for, may lie earlier
    with engine.connect(lake) as con:
        days = days_of_rows(con)
        begin = first_day_seen_again(con, days)
    if days is None:
        return
    strays = ""
    if begin is None:
        begin = days[0]
    elif days[0] < begin:
        strays = (
            f", with users who came again (before, from {midnight(days[0]):%Y-%m-%d} on, "
            "nobody did),"
        )
    if is_short(begin):
        raise DataError(
            f"{signal.name}: the window ends {window_days} days after an entry, but the log begins "
            f"on {midnight(begin):%Y-%m-%d}{strays} and ends on "
            f"{lake.watermark:%Y-%m-%d}: no outcome can be known before "
            f"{midnight(begin + window_days + 1):%Y-%m-%d}; wait, or shorten the window"
        )


def unanswerable(signals: Sequence[Declaration], lake: Lake) -> dict[Declaration, str]:
    """The signals that a log cannot answer however long it is, each with the reason. Cheap: no
    outcome is computed."""
    reasons: dict[Declaration, str] = {}
    as_of = lake.watermark
    with lake.connect() as con:
        create_engaged(con, with_listed("events") if prepare_creators(con, lake) else "events")
        for signal in signals:
            try:
                check_has_entries(con, signal, lake, as_of)
                check_answerable(con, signal, lake, (0, 0), beginnings=None)
            except DataError as reason:
                reasons[signal] = str(reason)
    return reasons


def check_has_entries(con: Connection, signal: Declaration, lake: Lake, as_of: datetime) -> None:
    """Raise where a reason is known why a log has no entries.

    Args:
        con: has the views `events`, `decisions` and `engaged`, of what is known at `as_of`.
        signal: whose entries are missing.
        lake: the log.
        as_of: the moment of knowledge.

    Raises:
        DataError: no event had arrived by then, or the log lacks decisions or keys.
    """
    if not _has_event(con, "true"):
        late = lake.before(as_of, known_at=datetime.max.replace(tzinfo=UTC)).events
        arrived = late["ingested_at"].min()
        if isinstance(arrived, datetime) and arrived > lake.watermark:  # a bulk load
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


def _has_event(con: Connection, test: str) -> bool:
    """Whether any event passes a test (SQL)."""
    return first_row(con, f"select 1 from events where {test} limit 1") is not None


def _is_empty(lake: Lake, engine: Engine) -> bool:
    """Whether the lake has neither an event nor a decision."""
    with engine.connect(lake) as con:
        return days_of_rows(con) is None
