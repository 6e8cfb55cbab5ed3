"""Events read once for many signals: ids as numbers, tests as bits of one, in a table that fits into memory.

Rolling up strings costs twice what rolling up numbers does, and every roll-up reads the log again. For one or two roll-ups that is still
less than a table of the log; for more it is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import duckdb

from longplay.lake.daily import first_row
from longplay.lake.schema import KINDS, ORIGINS
from longplay.signals.operators import TOUCHED, Feature, widest
from longplay.signals.parts import entry_words, parts_of
from longplay.signals.rollups import needed
from longplay.signals.rows import LENGTHS, MICROS, EventRows
from longplay.signals.signal import Signal

CODE = "hash({})"  # SQL of the number of an id, or of several; that no two ids share one is checked
AT_ONCE = 40_000_000  # events in one table
LEAST = 3  # roll-ups from which on the table pays
BITS = {8: "utinyint", 16: "usmallint", 32: "uinteger", 64: "ubigint"}


def _code(*ids: str) -> str:
    return CODE.format(", ".join(ids))


@dataclass(frozen=True)
class CodedRows(EventRows):
    """Rows of the table `coded_events`: user_id, thing (item and creator), micros, marks, and amounts that are no counts.

    Attributes:
        features: bit n of `marks` says whether the event counts in the nth. part, of: the users whose number leaves `part` when divided by `of`.
        things: whether items and creators are asked for.
    """

    events: str = "coded_events"
    features: tuple[Feature, ...] = ()
    part: int = 0
    of: int = 1
    things: bool = True
    pair: ClassVar[str] = "thing"
    creators: ClassVar[str] = "coded_creators"
    micros: ClassVar[str] = "micros"
    keys: ClassVar[dict[str, str]] = {"user": "cast(null as ubigint)", "creator": "creator", "item": "item", "thing": "thing"}

    @property
    def decisions(self) -> str:
        """See `Rows`."""
        slate = f"list_transform(slate, lambda shown: {_code('shown')}) as slate"
        columns = f"{_code('user_id')} as user_id, decision_id, time, experiment, {slate}"
        return f"(select {columns} from decisions where {self._is_part()})"

    def between(self, first: int, last: int) -> EventRows:
        """See `Rows`: the table is read whole, which costs little."""
        return self

    def pairs(self, words: str) -> str:
        """See `Rows`."""
        return f"select w.user_id, t.item as key, t.creator, w.* exclude (user_id, key) from ({words}) w join things t on t.thing = w.key"

    def named(self, body: str, keys: Sequence[str]) -> str:
        """See `Rows`."""
        units = [key.removesuffix("_id") for key in keys]
        ids = ", ".join(f"ids_{unit}.id as {unit}_id" for unit in units)
        joins = "".join(f" left join ids_{unit} on ids_{unit}.code = e.{unit}_id" for unit in units)
        return f"select {ids}, e.* exclude ({', '.join(keys)}) from ({body}) e{joins}"

    def create(self, con: duckdb.DuckDBPyConnection) -> None:
        """Create the table, of these users."""
        amounts = "".join(f", case when {one.test()} then {one.amount} end as {one.name}" for one in self.features if one.amount != "1")
        lengths = f" {LENGTHS}" if any(one.also for one in self.features) else ""
        where = f" where {self._is_part()}" if self.of > 1 else ""
        thing = f", {_code('item_id', 'creator_id')} as thing" if self.things else ""
        columns = f"{_code('user_id')} as user_id{thing}, {MICROS} as micros, {self._marks()} as marks{amounts}"
        con.execute(f"create or replace temp table {self.events} as select {columns} from events{lengths}{where}")

    def _is_part(self) -> str:
        return f"{_code('user_id')} % {self.of} = {self.part}"

    def _marks(self) -> str:
        """SQL of the bits: those that the kind allows and the origin, each said once per value, without those whose further test fails."""
        kind = next(name for most, name in BITS.items() if len(self.features) <= most)

        def number(allowed: Sequence[bool]) -> str:
            return f"{sum(1 << place for place, does in enumerate(allowed) if does)}::{kind}"

        def by_value(column: str, values: Sequence[str], allowed: dict[str, list[bool]], other: list[bool]) -> str:
            whens = " ".join(f"when '{value}' then {number(allowed[value])}" for value in values)
            return f"case {column} {whens} else {number(other)} end"

        none = [False] * len(self.features)
        marks = by_value("kind", KINDS, {value: [value in one.kinds for one in self.features] for value in KINDS}, none)
        if not all(one.any_origin for one in self.features):
            origins = {value: [value in one.origins for one in self.features] for value in ORIGINS}
            marks += f" & {by_value('origin', ORIGINS, origins, [one.any_origin for one in self.features])}"
        for also in dict.fromkeys(one.also for one in self.features if one.also):
            marks += f" & case when {also} then {number([True] * len(self.features))} else {number([one.also != also for one in self.features])} end"
        return marks

    def _bits(self, features: Sequence[Feature]) -> int:
        return sum(1 << self.features.index(one) for one in set(features))

    def _source(self, unit: str, features: Sequence[Feature], flags: bool) -> str:
        of_key = "" if unit in ("user", "thing") else " join things using (thing)"
        return f"{self.events}{of_key}{'' if self._all(features, flags) else f' where marks & {self._bits(features)} <> 0'}"

    def _all(self, features: Sequence[Feature], flags: bool) -> bool:
        """Whether rows that none of these counts are read, too: where nearly all count, passing over the others costs more."""
        return flags and TOUCHED in features

    def _amounts(self, features: Sequence[Feature], flags: bool, read: Sequence[Feature] = ()) -> str:
        passed = [] if self._all(features, flags) else widest(read or features)

        def column(one: Feature) -> str:
            counts = "true" if passed == [one] else f"marks & {self._bits([one])} <> 0"
            return counts if flags else one.name if one.amount != "1" else f"case when {counts} then 1 end"

        return "".join(f", {column(one)} as {one.name}" for one in features)


def coded(con: duckdb.DuckDBPyConnection, signals: Sequence[Signal], events: int) -> Iterator[CodedRows] | None:
    """The rows of a log of so many `events` for these signals, one part of its users after the other; null where plain ones are as good.

    Makes the tables `things` (thing, item, creator), `ids_user`, `ids_item` and `ids_creator` (code, id), and `coded_events` anew for every part; all
    are gone after the last.
    """
    features = tuple({one.name: one for of_unit in needed(signals).values() for one in of_unit}.values())
    if len(features) > max(BITS) or _rollups(signals) < LEAST:
        return None
    made = _create_ids(con, signals)
    codes = {"things": "thing"} | {table: "code" for table in made if table.startswith("ids_")}
    if any(first_row(con, f"select count(*) <> count(distinct {codes[table]}) from {table}") != (False,) for table in made if table in codes):
        _drop(con, made)  # two ids have the same number
        return None
    of = -(-max(events, 1) // AT_ONCE)
    return _parts(con, [CodedRows(features=features, part=part, of=of, things="things" in made) for part in range(of)], made)


def _parts(con: duckdb.DuckDBPyConnection, parts: Sequence[CodedRows], made: Sequence[str]) -> Iterator[CodedRows]:
    for rows in parts:
        rows.create(con)
        yield rows
    _drop(con, ["coded_events", *made])


def _rollups(signals: Sequence[Signal]) -> int:
    """About how many roll-ups of events these signals take without a table of them."""
    found = set[tuple[str, ...]]()
    for signal in signals:
        if entry_words(signal.entry) is not None:
            found.add(("words",))
        elif signal.entry.kind == "event":
            found.add(("event", str(signal.entry.event), str(signal.entry.of)))
        for part in parts_of(signal):
            found.add((part.unit, "sums") if part.how == "sum" else ("words",))
            if part.in_words and part.unit == "user" and set(part.feature.kinds) != set(TOUCHED.kinds):
                found.add(("words of users", part.feature.name))  # what pairs do not know
    return len(found)


def _create_ids(con: duckdb.DuckDBPyConnection, signals: Sequence[Signal]) -> list[str]:
    """Make the tables that say which id a number stands for; their names."""
    shown = any(signal.entry.kind == "exposure" for signal in signals)
    in_trial = shown or any(signal.entry.kind == "enrolment" for signal in signals)
    units = {part.unit for signal in signals for part in parts_of(signal)} | {signal.entry.of or "user" for signal in signals}
    users = f"select distinct user_id from events{_and('user_id', 'decisions', in_trial)}"
    made: dict[str, str] = {}
    if shown or units != {"user"}:
        made["found_ids"] = """select user_id, item_id, creator_id, grouping(user_id) = 0 as of_user from events
            group by grouping sets ((user_id), (item_id, creator_id))"""
        users = f"select user_id from found_ids where of_user{_and('user_id', 'decisions', in_trial)}"
        item, creator = (f"case when {unit}_id is not null then {_code(f'{unit}_id')} end as {unit}" for unit in ("item", "creator"))
        made["things"] = f"select {_code('item_id', 'creator_id')} as thing, {item}, {creator} from found_ids where not of_user"
        if shown:
            made["coded_creators"] = f"select {_code('item_id')} as item_id, {_code('creator_id')} as creator_id from creators"
        slates = _and("item_id", "(select unnest(slate) as item_id from decisions)", shown)
        for unit, more in (("item", slates), ("creator", _and("creator_id", "creators", shown))):
            ids = f"select distinct {unit}_id from found_ids where {unit}_id is not null{more}"
            made[f"ids_{unit}"] = f"select {_code(f'{unit}_id')} as code, {unit}_id as id from ({ids})"
    made["ids_user"] = f"select {_code('user_id')} as code, user_id as id from ({users})"
    for table, body in made.items():
        con.execute(f"create or replace temp table {table} as {body}")
    return list(made)


def _and(column: str, table: str, wanted: bool) -> str:
    return f" union select {column} from {table}" if wanted else ""


def _drop(con: duckdb.DuckDBPyConnection, tables: Sequence[str]) -> None:
    for table in tables:
        con.execute(f"drop table if exists {table}")
