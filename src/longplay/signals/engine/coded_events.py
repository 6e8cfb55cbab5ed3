"""Events read once for many signals, as a compact table of numbers.

Rolling up strings costs twice what rolling up numbers does, and every roll-up reads the log again.
For one or two roll-ups that is still less than a table of the log; for more it is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from longplay.lake.connection import Connection
from longplay.lake.creators import with_listed
from longplay.lake.daily import first_row
from longplay.lake.schema import KINDS, ORIGINS
from longplay.signals.declare.declaration import Declaration
from longplay.signals.engine.duckdb import elements, hashed, mapped
from longplay.signals.engine.event_source import TIME_US, EventRows, with_lengths
from longplay.signals.engine.features import TOUCHED, Feature, widest
from longplay.signals.engine.parts import entry_bitmap, opening_events, parts_of
from longplay.signals.engine.rollups import needed_rollups

EVENTS_PER_PART = 20_000_000  # with the bitmaps made of them about 3 GB
LEAST_ROLLUPS = 3  # from so many on the table costs less
CATALOGUE_SHARE = 0.1  # rows of a catalogue per event up to which its ids are tried first
INTEGER_TYPES = {8: "utinyint", 16: "usmallint", 32: "uinteger", 64: "ubigint"}  # by bits
CODE = hashed("{}")  # SQL of the number of an id, or of several


def _code(*ids: str) -> str:
    """SQL of the number of an id, or of several. That no two ids share one is checked."""
    return CODE.format(", ".join(ids))


@dataclass(frozen=True)
class CodedRows(EventRows):
    """Rows of a table of numbers that `read` creates.

    Its columns: user_id; item_creator, the number of a pair of item and creator in the table
    `item_creators`; micros;
    marks, of which bit n says whether the event matches the nth feature; and the amounts of
    features that add more than 1.

    Attributes:
        features: in the order of the bits of `marks`.
        users: SQL condition that the user of a number ({}) is among these rows.
        has_item_creators: whether items and creators are needed.
    """

    features: tuple[Feature, ...] = ()
    users: str = "true"
    has_item_creators: bool = True
    pair: ClassVar[str] = "item_creator"
    micros: ClassVar[str] = "micros"
    keys: ClassVar[dict[str, str]] = {
        "user": "cast(null as ubigint)",
        "creator": "creator",
        "item": "item",
        "item_creator": "item_creator",
    }

    @property
    def decisions(self) -> str:
        """See `Rows`."""
        slate = f"{mapped('slate', 'shown', _code('shown'))} as slate"
        columns = f"{_code('user_id')} as user_id, decision_id, time, experiment, {slate}"
        return f"(select {columns} from decisions where {self.users.format(_code('user_id'))})"

    @property
    def creators(self) -> str:
        """See `Rows`."""
        return "coded_creators"

    def between(self, first: int, last: int) -> EventRows:
        """See `Rows`. The table is read in full, which costs little."""
        return self

    @property
    def all_pairs(self) -> str:
        """See `Rows`."""
        return "(select item as key, creator from item_creators)"

    def with_item_and_creator(self, bitmaps: str) -> str:
        """See `Rows`."""
        return (
            "select w.user_id, t.item as key, t.creator, w.* exclude (user_id, key) from "
            f"({bitmaps}) w join item_creators t on t.item_creator = w.key"
        )

    def with_log_ids(self, body: str, keys: Sequence[str]) -> str:
        """See `Rows`."""
        units = [key.removesuffix("_id") for key in keys]
        ids = ", ".join(f"ids_{unit}.id as {unit}_id" for unit in units)
        joins = "".join(f" left join ids_{unit} on ids_{unit}.code = e.{unit}_id" for unit in units)
        return f"select {ids}, e.* exclude ({', '.join(keys)}) from ({body}) e{joins}"

    def read(self, con: Connection, log: str, into: str) -> None:
        """Create the table `into` of the events of `log`, of all users. Where the table
        `item_creators` lacks an event's item and creator, `item_creator` is null."""
        amounts = "".join(
            f", case when {feature.test()} then {feature.amount} end as {feature.name}"
            for feature in self.features
            if feature.amount != "1"
        )
        code = f", {_code('item_id', 'creator_id')} as code" if self.has_item_creators else ""
        columns = (
            f"{_code('user_id')} as user_id{code}, {TIME_US} as micros, "
            f"{marks_sql(self.features)} as marks{amounts}"
        )
        events = with_listed(log) if self.by_catalogue else log
        body = f"select {columns} from {with_lengths(events, self.features)}"
        if self.has_item_creators:
            body = (
                f"select e.* exclude (code), item_creators.item_creator from ({body}) e "
                "left join item_creators on item_creators.code = e.code"
            )
        con.execute(f"create or replace temp table {into} as {body}")

    def _source(self, unit: str, features: Sequence[Feature], flags: bool) -> str:
        join = (
            "" if unit in ("user", "item_creator") else " join item_creators using (item_creator)"
        )
        where = "" if self._reads_all(features, flags) else f" where {self._matches(features)}"
        return f"{self.events}{join}{where}"

    def _amounts(
        self, features: Sequence[Feature], flags: bool, read: Sequence[Feature] = ()
    ) -> str:
        passed = [] if self._reads_all(features, flags) else widest(read or features)

        def column(feature: Feature) -> str:
            matches = "true" if passed == [feature] else self._matches([feature])
            if flags:
                return matches
            if feature.amount != "1":
                return feature.name
            return f"case when {matches} then 1 end"

        return "".join(f", {column(feature)} as {feature.name}" for feature in features)

    def _matches(self, features: Sequence[Feature]) -> str:
        """SQL condition that an event matches any of these features."""
        bits = sum(1 << self.features.index(feature) for feature in set(features))
        return f"marks & {bits} <> 0"

    def _reads_all(self, features: Sequence[Feature], flags: bool) -> bool:
        """Whether rows that match no feature are read, too. Where nearly all match, a filter costs
        more than it saves."""
        return flags and TOUCHED in features


def marks_sql(features: Sequence[Feature]) -> str:
    """SQL of an integer whose bit n says whether an event matches the nth feature.

    It is the "and" of three masks: the features that match the event's kind, those that match its
    origin, and for each further condition those that the event does not fail by it.

    >>> marks_sql([Feature("loud", ("play",), condition="seconds > 30")]).split(" & ")[1]
    'case when seconds > 30 then 1::utinyint else 0::utinyint end'
    """
    kind = next(name for bits, name in INTEGER_TYPES.items() if len(features) <= bits)

    def mask(matches: Sequence[bool]) -> str:
        bits = sum(1 << place for place, does_match in enumerate(matches) if does_match)
        return f"{bits}::{kind}"

    def by_value(column: str, matches: Mapping[str, Sequence[bool]], other: Sequence[bool]) -> str:
        whens = " ".join(f"when '{value}' then {mask(matches[value])}" for value in matches)
        return f"case {column} {whens} else {mask(other)} end"

    none = [False] * len(features)
    everything = [True] * len(features)
    of_kinds = {value: [value in feature.kinds for feature in features] for value in KINDS}
    masks = [by_value("kind", of_kinds, none)]
    if not all(feature.any_origin for feature in features):
        of_origins = {
            value: [value in feature.origins for feature in features] for value in ORIGINS
        }
        of_no_origin = [feature.any_origin for feature in features]
        masks.append(by_value("origin", of_origins, of_no_origin))
    for condition in dict.fromkeys(feature.condition for feature in features if feature.condition):
        without_it = [feature.condition != condition for feature in features]
        masks.append(f"case when {condition} then {mask(everything)} else {mask(without_it)} end")
    return " & ".join(masks)


class SharedNumber(Exception):
    """Two ids have the same number: the log must be read without a table of numbers."""


def pays(signals: Sequence[Declaration]) -> bool:
    """Whether these signals need so many roll-ups that a table of numbers costs less than reading
    the log for each."""
    rollups = set[tuple[str, ...]]()
    for signal in signals:
        if entry_bitmap(signal.entry) is not None:
            rollups.add(("bitmaps",))
        elif signal.entry.is_event:
            rollups.add(("event", opening_events(signal.entry).name, str(signal.entry.of)))
        for part in parts_of(signal):
            rollups.add((part.unit, "sums") if part.how == "sum" else ("bitmaps",))
            is_of_other_kinds = set(part.feature.kinds) != set(TOUCHED.kinds)
            if part.reads_bitmaps and part.unit == "user" and is_of_other_kinds:
                # the bitmaps of pairs do not have it
                rollups.add(("bitmaps of users", part.feature.name))
    return len(rollups) >= LEAST_ROLLUPS and len(_features(signals)) <= max(INTEGER_TYPES)


def coded_rows(
    con: Connection,
    signals: Sequence[Declaration],
    events: int,
    days: tuple[int, int],
    by_catalogue: bool = False,
) -> Iterator[CodedRows]:
    """Read a log once, some days at a time, and yield its rows: one part of its users after the
    other.

    Creates the tables `item_creators` (item_creator, code, item, creator), `ids_user`, `ids_item`
    and `ids_creator` (code, id), and one of each part's events, which DuckDB spills to disk while there
    is no room for it. All are dropped after the last part.

    Args:
        con: has the views of the log.
        signals: what the rows are read for.
        events: number of events of the log.
        days: first and last day of the log.
        by_catalogue: see `EventRows`.

    Raises:
        SharedNumber: two users, items, creators or pairs of item and creator have one number. A pair
            that no catalogue lists and that shares its number with one that is listed would not be
            noticed: for a million of each the probability is below 1e-7.
    """
    shows_slots = any(signal.entry.is_slot for signal in signals)
    has_item_creators = shows_slots or not needed_rollups(signals).keys() <= {"user", "sessions"}
    ids = _Ids(con, shows_slots, by_catalogue)
    features = _features(signals)
    n_parts = -(-max(events, 1) // EVENTS_PER_PART)
    parts = [
        CodedRows(
            f"coded_events_{part}",
            by_catalogue=by_catalogue,
            features=features,
            users=_is_in_part(part, n_parts) if n_parts > 1 else "true",
            has_item_creators=has_item_creators,
        )
        for part in range(n_parts)
    ]
    try:
        ids.create_users(shows_slots or any(signal.entry.is_enrolment for signal in signals))
        for pairs in ids.candidate_pairs(events):
            if has_item_creators:
                ids.create_item_creators(pairs)
            if _read(con, parts, days):
                break
        for rows in parts:
            yield rows
            con.execute(f"drop table {rows.events}")
    finally:
        for table in ("coded_turn", *(rows.events for rows in parts), *ids.tables):
            con.execute(f"drop table if exists {table}")


def _read(con: Connection, parts: Sequence[CodedRows], days: tuple[int, int]) -> bool:
    """Create the tables of these parts from a log of these days; false where it has an item and
    creator that `item_creators` lacks."""
    table = parts[0].events if len(parts) == 1 else "coded_turn"
    for turn, log in enumerate(_logs_in_turn(days, len(parts))):
        parts[0].read(con, log, table)
        lacking = f"select 1 from {table} where item_creator is null limit 1"
        if parts[0].has_item_creators and first_row(con, lacking) is not None:
            return False
        for rows in parts if len(parts) > 1 else ():
            body = f"select * from {table} where {rows.users.format('user_id')}"
            if turn:
                con.execute(f"insert into {rows.events} {body}")
            else:
                con.execute(f"create or replace temp table {rows.events} as {body}")
    con.execute("drop table if exists coded_turn")
    return True


def _is_in_part(part: int, n_parts: int) -> str:
    """SQL condition that a 64-bit number ({0}) lies in this one of `n_parts` equal ranges.

    >>> _is_in_part(0, 2), _is_in_part(1, 2)
    ('{0} >= 0::ubigint and {0} < 9223372036854775808::ubigint', '{0} >= 9223372036854775808::ubigint')
    """
    low = 2**64 * part // n_parts
    high = 2**64 * (part + 1) // n_parts
    is_below = f" and {{0}} < {high}::ubigint" if high < 2**64 else ""
    return f"{{0}} >= {low}::ubigint{is_below}"


def _logs_in_turn(days: tuple[int, int], turns: int) -> Iterator[str]:
    """SQL to select events from, for consecutive stretches of these days."""
    first = days[0]
    n_days = days[1] - days[0] + 1
    bounds = sorted({first + n_days * turn // turns for turn in range(turns + 1)})
    for begin, end in pairwise(bounds):
        yield EventRows().between(begin, end - 1).events if turns > 1 else "events"


def _features(signals: Sequence[Declaration]) -> tuple[Feature, ...]:
    """All features that these signals read, each once."""
    by_name = {
        feature.name: feature
        for features in needed_rollups(signals).values()
        for feature in features
    }
    return tuple(by_name.values())


class _Ids:
    """The tables that say which id a number stands for.

    Args:
        con: where they are made.
        shows_slots: they also have the ids of what decisions show.
        by_catalogue: see `EventRows`.
    """

    def __init__(self, con: Connection, shows_slots: bool, by_catalogue: bool) -> None:
        self.con = con
        self.shows_slots = shows_slots
        self.tables = list[str]()
        self.events = with_listed("events") if by_catalogue else "events"

    def create_users(self, of_decisions: bool) -> None:
        """Create `ids_user`, of the users of events, and where asked of decisions."""
        ids = "select distinct user_id from events"
        if of_decisions:
            ids += " union select user_id from decisions"
        self._create(
            "ids_user", f"select {_code('user_id')} as code, user_id as id from ({ids})", "code"
        )

    def candidate_pairs(self, events: int) -> Iterator[str]:
        """SQL of pairs of item and creator, to be tried until they have all of the log: first those
        of a catalogue that is small beside the log, then the log's own."""
        items = first_row(self.con, "select count(*) from items")
        if items is not None and 0 < items[0] <= CATALOGUE_SHARE * events:
            yield "select distinct item_id, creator_id from items union all select null, null"
        yield f"select distinct item_id, creator_id from {self.events}"

    def create_item_creators(self, pairs: str) -> None:
        """Create `item_creators`, `ids_item` and `ids_creator` from SQL of pairs of item and creator;
        with slots also `coded_creators`."""
        self._create("pairs_of_ids", pairs)
        item, creator = (
            f"case when {unit}_id is not null then {_code(f'{unit}_id')} end as {unit}"
            for unit in ("item", "creator")
        )
        number = "cast(row_number() over () - 1 as uinteger) as item_creator"
        self._create(
            "item_creators",
            f"select {number}, {_code('item_id', 'creator_id')} as code, {item}, {creator} from "
            "pairs_of_ids",
            "code",
        )
        ids_of_slots = {"item": "", "creator": ""}
        if self.shows_slots:
            ids_of_slots = {
                "item": f" union select {elements('slate')} from decisions",
                "creator": " union select creator_id from creators",
            }
            self._create(
                "coded_creators",
                f"select {_code('item_id')} as item_id, {_code('creator_id')} as creator_id from "
                "creators",
            )
        for unit, more_ids in ids_of_slots.items():
            ids = (
                f"select distinct {unit}_id as id from pairs_of_ids where {unit}_id is not "
                f"null{more_ids}"
            )
            self._create(f"ids_{unit}", f"select {_code('id')} as code, id from ({ids})", "code")

    def _create(self, table: str, body: str, code: str | None = None) -> None:
        """Create a table; raise `SharedNumber` where two rows have one `code`."""
        self.con.execute(f"create or replace temp table {table} as {body}")
        self.tables = list(dict.fromkeys([*self.tables, table]))
        if code is None:
            return
        is_unique = f"select count(*) = count(distinct {code}) from {table}"
        if first_row(self.con, is_unique) != (True,):
            raise SharedNumber
