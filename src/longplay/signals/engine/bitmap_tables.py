"""Tables of activity bitmaps per unit: planned together, built when first read, dropped after their
last reader."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from longplay.lake.connection import Connection
from longplay.lake.daily import first_row
from longplay.signals.engine.calendar import BITS, Calendar
from longplay.signals.engine.day_bits import (
    UNITS,
    bitmaps_sql,
    coarser_bitmaps_sql,
    user_bitmaps_sql,
)
from longplay.signals.engine.duckdb import hashed
from longplay.signals.engine.event_source import Rows
from longplay.signals.engine.features import Feature


class BitmapTables:
    """The tables `bitmaps_UNIT` of a connection: user_id, key, and the words of every planned
    feature.

    Where rows have user, creator and item at once, the bitmaps of creators are computed from those
    of items, and those of users from either, wherever both are planned: there are fewer pairs than
    events.

    Args:
        con: where the tables are made.
        rows: what they are built from.
        calendar: the days that the bits stand for.
    """

    def __init__(self, con: Connection, rows: Rows, calendar: Calendar) -> None:
        self.con = con
        self.rows = rows
        self.calendar = calendar
        self._planned: dict[str, list[Feature]] = {}
        self._built: dict[str, str] = {}  # unit, or "pair" -> "table" or "view"

    def plan(self, needed: Mapping[str, Iterable[Feature]]) -> None:
        """Replace the plan by these features of each unit. Tables built before are dropped."""
        self.drop_others(())
        self._planned = {
            unit: list(dict.fromkeys(needed[unit])) for unit in UNITS if unit in needed
        }
        if "creator" in self._planned and self._finer_unit("creator") is not None:
            features = [*self._planned["item"], *self._planned["creator"]]
            self._planned["item"] = list(dict.fromkeys(features))

    def has(self, unit: str, features: Iterable[Feature]) -> bool:
        """Whether these features of a unit are planned."""
        return unit in self._planned and set(features) <= set(self._planned[unit])

    def table(self, unit: str) -> str:
        """The name of a planned unit's table, which is built if it is not there yet."""
        name = f"bitmaps_{unit}"
        if unit in self._built:
            return name
        finer_unit = self._finer_unit(unit)
        kind = "table"
        if finer_unit is None:
            self.create(name, unit, self._planned["item" if unit == "pair" else unit])
        else:
            if unit == "item" and self._has_single_creators(
                self.rows.all_pairs or self.table(finer_unit)
            ):
                kind = "view"
                body = f"select * exclude (creator) from {self.table(finer_unit)}"
            else:
                body = self._from_finer(unit, finer_unit, self._planned[unit])
            self.con.execute(f"create or replace temp {kind} {name} as {body}")
        self._built[unit] = kind
        return name

    def create(
        self,
        table: str,
        unit: str,
        features: Sequence[Feature],
        limits: str = "",
        by_key: bool = True,
    ) -> None:
        """Create a table of a unit's bitmaps from rows.

        Args:
            table: its name.
            unit: user, creator, item or pair.
            features: a bitmap each.
            limits: SQL of (user_id, key if `by_key`, first, last): the units and days to read;
                empty: all.
            by_key: whether `limits` has a key.
        """
        is_large = not limits and self.rows.parts > 1
        if is_large and unit == "user" and not self.calendar.is_long:
            self._create_by_word(table, features)
            return
        parts = self.rows.parts if is_large and unit != "user" else 1
        rows_unit = self.rows.pair if unit == "pair" else unit
        for part in range(parts):
            users_of_part = f"{hashed('user_id')} % {parts} = {part}" if parts > 1 else ""
            rows = self.rows.daily(rows_unit, features, users_of_part, flags=True)
            if limits:
                same_unit = "limits.user_id = rows.user_id"
                if by_key:
                    same_unit += " and limits.key = rows.key"
                rows = (
                    f"select rows.* from ({rows}) rows join ({limits}) limits on {same_unit} and "
                    "rows.day between limits.first and limits.last"
                )
            body = bitmaps_sql(rows_unit, rows, features, self.calendar)
            if unit == "pair":
                body = self.rows.with_item_and_creator(body)
            if part:
                self.con.execute(f"insert into {table} {body}")
            else:
                self.con.execute(f"create or replace temp table {table} as {body}")

    def _create_by_word(self, table: str, features: Sequence[Feature]) -> None:
        """Create the bitmaps of users, reading the days of each word separately."""
        rows_by_word = []
        for word in range(self.calendar.words):
            first = self.calendar.base + BITS * word
            days = self.rows.between(first, first + BITS - 1)
            rows_by_word.append(days.daily("user", features, flags=True))
        body = user_bitmaps_sql(rows_by_word, features, self.calendar)
        self.con.execute(f"create or replace temp table {table} as {body}")

    def drop_others(self, units: Iterable[str]) -> None:
        """Drop the tables of all units but these, after building what these need of the others."""
        needed_units = set(units)
        kept_units = [unit for unit in self._planned if unit in needed_units]
        dropped_units = [unit for unit in self._built if unit not in kept_units]
        if set(dropped_units) - {"pair"}:
            for unit in kept_units:
                if self._finer_unit(unit) in self._built:
                    self.table(unit)
        has_views = any(self._built.get(unit) == "view" for unit in kept_units)
        needs_pairs = has_views or ("creator" in kept_units and "creator" not in self._built)
        # views first: they read tables
        for unit in sorted(dropped_units, key=lambda unit: self._built[unit] == "table"):
            if unit != "pair" or not needs_pairs:
                self.con.execute(f"drop {self._built.pop(unit)} bitmaps_{unit}")
        self._planned = {unit: self._planned[unit] for unit in kept_units}

    def _finer_unit(self, unit: str) -> str | None:
        """The unit whose bitmaps this unit's are computed from; null: from rows."""
        if not self.rows.has_pairs or unit == "pair":
            return None
        if unit == "user":
            return next((finer for finer in ("creator", "item") if finer in self._planned), None)
        return "pair" if {"creator", "item"} <= self._planned.keys() else None

    def _from_finer(self, unit: str, finer_unit: str, features: Sequence[Feature]) -> str:
        """SQL of a unit's bitmaps from those of a finer unit. Features of users that the finer unit
        lacks come from rows."""
        column_unit = "item" if finer_unit == "pair" else finer_unit
        shared = [feature for feature in features if feature in self._planned[column_unit]]
        missing = [feature for feature in features if feature not in shared]
        body = coarser_bitmaps_sql(unit, self.table(finer_unit), column_unit, shared, self.calendar)
        if not missing:
            return body
        rows = self.rows.daily(unit, missing, flags=True)
        from_rows = bitmaps_sql(unit, rows, missing, self.calendar)
        columns = ", ".join(
            f"coalesce({column}, 0) as {column}"
            for feature in features
            for column in self.calendar.columns(unit, feature.name)
        )
        era = self.calendar.era_key
        return (
            f"select user_id, cast(null as varchar) as key{era}, {columns} from ({body}) full "
            f"join ({from_rows}) using (user_id{era})"
        )

    def _has_single_creators(self, pairs: str) -> bool:
        """Whether no item has two creators in these pairs. Then pairs of user and item need not be
        summed over creators."""
        has_several = (
            "having min(creator) is distinct from max(creator) or count(creator) not in (0, "
            "count(*))"
        )
        item = f"select 1 from (select key from {pairs} group by key {has_several} limit 1)"
        return first_row(self.con, item) is None
