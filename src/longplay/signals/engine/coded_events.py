"""Events read once for many signals, as a compact table of numbers.

Rolling up strings costs twice what rolling up numbers does, and every roll-up reads the log again.
For one or two roll-ups that is still less than a table of the log; for more it is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from longplay.lake.connection import Connection
from longplay.lake.creators import with_listed
from longplay.lake.daily import first_row
from longplay.lake.schema import KINDS, ORIGINS
from longplay.signals.declare.declaration import Declaration
from longplay.signals.engine.duckdb import each, elements, hashed
from longplay.signals.engine.event_source import TIME_US, EventRows, with_lengths
from longplay.signals.engine.operators import TOUCHED, Feature, widest
from longplay.signals.engine.parts import entry_words, opening_events, parts_of
from longplay.signals.engine.rollups import needed

CODE = hashed(
    "{}"
)  # SQL of the number of an id, or of several; that no two ids share one is checked
AT_ONCE = 20_000_000  # events of one part: with the words made of them about 3 GB
LEAST = 3  # roll-ups from which on the table pays
LISTED = 0.1  # rows of a catalogue per event up to which it is asked for ids first
BITS = {8: "utinyint", 16: "usmallint", 32: "uinteger", 64: "ubigint"}


def _code(*ids: str) -> str:
    return CODE.format(", ".join(ids))


@dataclass(frozen=True)
class CodedRows(EventRows):
    """Rows of a table that `read` makes: user_id, thing (place of item and creator in `things`),
    micros, marks, and amounts that are no counts.

    Attributes:
        features: bit n of `marks` says whether the event counts in the nth.
        users: SQL of whether the user of a number ({}) is among these rows.
        things: whether items and creators are asked for.
    """

    features: tuple[Feature, ...] = ()
    users: str = "true"
    things: bool = True
    pair: ClassVar[str] = "thing"
    micros: ClassVar[str] = "micros"
    keys: ClassVar[dict[str, str]] = {
        "user": "cast(null as ubigint)",
        "creator": "creator",
        "item": "item",
        "thing": "thing",
    }

    @property
    def decisions(self) -> str:
        """See `Rows`."""
        slate = f"{each('slate', 'shown', _code('shown'))} as slate"
        columns = f"{_code('user_id')} as user_id, decision_id, time, experiment, {slate}"
        return f"(select {columns} from decisions where {self.users.format(_code('user_id'))})"

    @property
    def creators(self) -> str:
        """See `Rows`."""
        return "coded_creators"

    def between(self, first: int, last: int) -> EventRows:
        """See `Rows`: the table is read whole, which costs little."""
        return self

    @property
    def known_pairs(self) -> str:
        """See `Rows`."""
        return "(select item as key, creator from things)"

    def pairs(self, words: str) -> str:
        """See `Rows`."""
        return (
            "select w.user_id, t.item as key, t.creator, w.* exclude (user_id, key) from "
            f"({words}) w join things t on t.thing = w.key"
        )

    def named(self, body: str, keys: Sequence[str]) -> str:
        """See `Rows`."""
        units = [key.removesuffix("_id") for key in keys]
        ids = ", ".join(f"ids_{unit}.id as {unit}_id" for unit in units)
        joins = "".join(f" left join ids_{unit} on ids_{unit}.code = e.{unit}_id" for unit in units)
        return f"select {ids}, e.* exclude ({', '.join(keys)}) from ({body}) e{joins}"

    def read(self, con: Connection, log: str, into: str) -> None:
        """Create the table `into` of the events of `log`, of all users; what `things` lacks is null
        there."""
        amounts = "".join(
            f", case when {one.test()} then {one.amount} end as {one.name}"
            for one in self.features
            if one.amount != "1"
        )
        code = f", {_code('item_id', 'creator_id')} as code" if self.things else ""
        columns = (
            f"{_code('user_id')} as user_id{code}, {TIME_US} as micros, {self._marks()} as "
            f"marks{amounts}"
        )
        named = with_listed(log) if self.by_catalogue else log
        body = f"select {columns} from {with_lengths(named, self.features)}"
        if self.things:
            body = (
                f"select e.* exclude (code), things.thing from ({body}) e left join things on "
                "things.code = e.code"
            )
        con.execute(f"create or replace temp table {into} as {body}")

    def _marks(self) -> str:
        """SQL of the bits: those that the kind allows and the origin, each said once per value,
        without those whose further test fails."""
        kind = next(name for most, name in BITS.items() if len(self.features) <= most)

        def number(allowed: Sequence[bool]) -> str:
            return f"{sum(1 << place for place, does in enumerate(allowed) if does)}::{kind}"

        def by_value(
            column: str, values: Sequence[str], allowed: dict[str, list[bool]], other: list[bool]
        ) -> str:
            whens = " ".join(f"when '{value}' then {number(allowed[value])}" for value in values)
            return f"case {column} {whens} else {number(other)} end"

        none = [False] * len(self.features)
        marks = by_value(
            "kind",
            KINDS,
            {value: [value in one.kinds for one in self.features] for value in KINDS},
            none,
        )
        if not all(one.any_origin for one in self.features):
            origins = {value: [value in one.origins for one in self.features] for value in ORIGINS}
            marks += (
                " & "
                f"{by_value('origin', ORIGINS, origins, [one.any_origin for one in self.features])}"
            )
        for also in dict.fromkeys(one.also for one in self.features if one.also):
            marks += (
                f" & case when {also} then {number([True] * len(self.features))} else "
                f"{number([one.also != also for one in self.features])} end"
            )
        return marks

    def _bits(self, features: Sequence[Feature]) -> int:
        return sum(1 << self.features.index(one) for one in set(features))

    def _source(self, unit: str, features: Sequence[Feature], flags: bool) -> str:
        of_key = "" if unit in ("user", "thing") else " join things using (thing)"
        return f"{self.events}{of_key}{'' if self._all(features, flags) else f' where marks & {self._bits(features)} <> 0'}"

    def _all(self, features: Sequence[Feature], flags: bool) -> bool:
        """Whether rows that none of these counts are read, too: where nearly all count, passing
        over the others costs more."""
        return flags and TOUCHED in features

    def _amounts(
        self, features: Sequence[Feature], flags: bool, read: Sequence[Feature] = ()
    ) -> str:
        passed = [] if self._all(features, flags) else widest(read or features)

        def column(one: Feature) -> str:
            counts = "true" if passed == [one] else f"marks & {self._bits([one])} <> 0"
            return (
                counts
                if flags
                else one.name
                if one.amount != "1"
                else f"case when {counts} then 1 end"
            )

        return "".join(f", {column(one)} as {one.name}" for one in features)


class SharedNumber(Exception):
    """Two ids have the same number: the log is to be read as it is."""


def pays(signals: Sequence[Declaration]) -> bool:
    """Whether so many roll-ups are asked for that a table of numbers costs less than reading the
    log for each."""
    found = set[tuple[str, ...]]()
    for signal in signals:
        if entry_words(signal.entry) is not None:
            found.add(("words",))
        elif signal.entry.is_event:
            found.add(("event", opening_events(signal.entry).name, str(signal.entry.of)))
        for part in parts_of(signal):
            found.add((part.unit, "sums") if part.how == "sum" else ("words",))
            if (
                part.in_words
                and part.unit == "user"
                and set(part.feature.kinds) != set(TOUCHED.kinds)
            ):
                found.add(("words of users", part.feature.name))  # what pairs do not know
    return len(found) >= LEAST and len(_features(signals)) <= max(BITS)


def coded(
    con: Connection,
    signals: Sequence[Declaration],
    events: int,
    days: tuple[int, int],
    by_catalogue: bool = False,
) -> Iterator[CodedRows]:
    """The rows of a log of so many `events`, all of these days (first, last), for these signals:
    one part of its users after the other.

    The log is read once, some days at a time. Makes the tables `things` (thing, code, item,
    creator), `ids_user`, `ids_item` and `ids_creator` (code, id), and one of each part's events,
    which DuckDB keeps on disk while there is no room for it; all are gone after the last part.
    `by_catalogue`: see `EventRows`.

    Raises:
        SharedNumber: two ids of users, of items, of creators or of things. A thing that no
            catalogue lists and that shares its number with one that is listed would not be noticed:
            for a million of each the probability is below 1e-7.
    """
    shown = any(signal.entry.is_slot for signal in signals)
    things = shown or not needed(signals).keys() <= {"user", "sessions"}
    ids, features, among = (
        _Ids(con, shown, by_catalogue),
        _features(signals),
        -(-max(events, 1) // AT_ONCE),
    )
    users = [_share(part, among) if among > 1 else "true" for part in range(among)]
    parts = [
        CodedRows(
            f"coded_events_{part}",
            by_catalogue=by_catalogue,
            features=features,
            users=of_part,
            things=things,
        )
        for part, of_part in enumerate(users)
    ]
    try:
        ids.of_users(shown or any(signal.entry.is_enrolment for signal in signals))
        for pairs in ids.pairs(events):
            if things:
                ids.of_things(pairs)
            if _read(con, parts, days):
                break
        for rows in parts:
            yield rows
            con.execute(f"drop table {rows.events}")
    finally:
        for table in ("coded_turn", *(rows.events for rows in parts), *ids.made):
            con.execute(f"drop table if exists {table}")


def _read(con: Connection, parts: Sequence[CodedRows], days: tuple[int, int]) -> bool:
    """Make the tables of these parts from a log of these days; false: it has something that
    `things` lacks."""
    read = parts[0].events if len(parts) == 1 else "coded_turn"
    for turn, log in enumerate(_in_turn(days, len(parts))):
        parts[0].read(con, log, read)
        if (
            parts[0].things
            and first_row(con, f"select 1 from {read} where thing is null limit 1") is not None
        ):
            return False
        for rows in parts if len(parts) > 1 else ():
            own = f"select * from {read} where {rows.users.format('user_id')}"
            con.execute(
                f"insert into {rows.events} {own}"
                if turn
                else f"create or replace temp table {rows.events} as {own}"
            )
    con.execute("drop table if exists coded_turn")
    return True


def _share(part: int, among: int) -> str:
    """SQL of whether a number of 64 bits lies in this one of so many equal ranges."""
    low, high = (2**64 * bound // among for bound in (part, part + 1))
    return f"{{0}} >= {low}::ubigint{f' and {{0}} < {high}::ubigint' if high < 2**64 else ''}"


def _in_turn(days: tuple[int, int], turns: int) -> Iterator[str]:
    """What can be selected from: the events of these days, some days after the others."""
    first, count = days[0], days[1] - days[0] + 1
    bounds = sorted({first + count * turn // turns for turn in range(turns + 1)})
    for begin, end in pairwise(bounds):
        yield EventRows().between(begin, end - 1).events if turns > 1 else "events"


def _features(signals: Sequence[Declaration]) -> tuple[Feature, ...]:
    return tuple(
        {one.name: one for of_unit in needed(signals).values() for one in of_unit}.values()
    )


class _Ids:
    """The tables that say which id a number stands for. shown: also of what decisions show.
    by_catalogue: see `EventRows`."""

    def __init__(self, con: Connection, shown: bool, by_catalogue: bool) -> None:
        self.con, self.shown, self.made = con, shown, list[str]()
        self.events = with_listed("events") if by_catalogue else "events"

    def of_users(self, in_trials: bool) -> None:
        """Those of events, and of decisions."""
        ids = "select distinct user_id from events" + (
            " union select user_id from decisions" if in_trials else ""
        )
        self._create(
            "ids_user", f"select {_code('user_id')} as code, user_id as id from ({ids})", "code"
        )

    def pairs(self, events: int) -> Iterator[str]:
        """SQL of pairs of item and creator, to be tried until all of the log are known: those of a
        catalogue small beside it, then its own."""
        listed = first_row(self.con, "select count(*) from items")
        if listed is not None and 0 < listed[0] <= LISTED * events:
            yield "select distinct item_id, creator_id from items union all select null, null"
        yield f"select distinct item_id, creator_id from {self.events}"

    def of_things(self, found: str) -> None:
        """Those of items and creators, from SQL of all pairs of both."""
        self._create("pairs_of_ids", found)
        item, creator = (
            f"case when {unit}_id is not null then {_code(f'{unit}_id')} end as {unit}"
            for unit in ("item", "creator")
        )
        place = "cast(row_number() over () - 1 as uinteger) as thing"
        self._create(
            "things",
            f"select {place}, {_code('item_id', 'creator_id')} as code, {item}, {creator} from "
            "pairs_of_ids",
            "code",
        )
        more = {"item": "", "creator": ""}
        if self.shown:
            more = {
                "item": f" union select {elements('slate')} from decisions",
                "creator": " union select creator_id from creators",
            }
            self._create(
                "coded_creators",
                f"select {_code('item_id')} as item_id, {_code('creator_id')} as creator_id from "
                "creators",
            )
        for unit, others in more.items():
            ids = (
                f"select distinct {unit}_id as id from pairs_of_ids where {unit}_id is not "
                f"null{others}"
            )
            self._create(f"ids_{unit}", f"select {_code('id')} as code, id from ({ids})", "code")

    def _create(self, table: str, body: str, code: str | None = None) -> None:
        self.con.execute(f"create or replace temp table {table} as {body}")
        self.made = list(dict.fromkeys([*self.made, table]))
        if code is not None and first_row(
            self.con, f"select count(*) = count(distinct {code}) from {table}"
        ) != (True,):
            raise SharedNumber
