"""Tables of activity bitmaps per unit, planned together, built lazily, dropped after their last
reader."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from longplay.lake.connection import Connection
from longplay.lake.daily import first_row
from longplay.signals.engine.duckdb import hashed
from longplay.signals.engine.event_source import Rows
from longplay.signals.engine.operators import (
    BITS,
    UNITS,
    Calendar,
    Feature,
    coarser,
    words,
    words_by_block,
)


class Bitmaps:
    """The tables `words_UNIT` of a connection: user_id, key, and words of every planned feature.

    From whole rows, words of creators are put together from those of items, and those of users from
    either, wherever both are planned: there are fewer pairs than events.
    """

    def __init__(self, con: Connection, rows: Rows, calendar: Calendar) -> None:
        self.con, self.rows, self.calendar = con, rows, calendar
        self._planned: dict[str, list[Feature]] = {}
        self._made: dict[str, str] = {}  # unit, or pair -> "table" or "view"

    def plan(self, needed: Mapping[str, Iterable[Feature]]) -> None:
        """Say which features of which units will be asked for, instead of what was planned
        before."""
        self.keep(())
        self._planned = {
            unit: list(dict.fromkeys(needed[unit])) for unit in UNITS if unit in needed
        }
        if "creator" in self._planned and self._finer("creator") is not None:
            self._planned["item"] = list(
                dict.fromkeys([*self._planned["item"], *self._planned["creator"]])
            )

    def has(self, unit: str, features: Iterable[Feature]) -> bool:
        """Whether these are planned."""
        return unit in self._planned and set(features) <= set(self._planned[unit])

    def table(self, unit: str) -> str:
        """The name of a planned unit's table, which is made if need be."""
        name, finer, kind = f"words_{unit}", self._finer(unit), "table"
        if unit in self._made:
            return name
        if finer is None:
            self.create(name, unit, self._planned["item" if unit == "pair" else unit])
        else:
            if unit == "item" and self._one_creator_each(
                self.rows.known_pairs or self.table(finer)
            ):
                body, kind = f"select * exclude (creator) from {self.table(finer)}", "view"
            else:
                body = self._together(unit, finer, self._planned[unit])
            self.con.execute(f"create or replace temp {kind} {name} as {body}")
        self._made[unit] = kind
        return name

    def create(
        self,
        table: str,
        unit: str,
        features: Sequence[Feature],
        limits: str = "",
        by_key: bool = True,
    ) -> None:
        """Create a table of a unit's words from rows.

        Args:
            table: its name.
            unit: user, creator or item.
            features: a bitmap each.
            limits: SQL of (user_id, key if `by_key`, first, last): the units and days that matter;
                empty: all.
            by_key: whether `limits` has a key.
        """
        large = not limits and self.rows.parts > 1
        if large and unit == "user" and not self.calendar.long:
            first, days = (
                self.calendar.base,
                (BITS * block for block in range(self.calendar.blocks)),
            )
            blocks = [
                self.rows.between(first + day, first + day + BITS - 1).daily(
                    unit, features, flags=True
                )
                for day in days
            ]
            self.con.execute(
                f"create or replace temp table {table} as "
                f"{words_by_block(blocks, features, self.calendar)}"
            )
            return
        parts, read = (
            self.rows.parts if large and unit != "user" else 1,
            self.rows.pair if unit == "pair" else unit,
        )
        for part in range(parts):
            rows = self.rows.daily(
                read,
                features,
                f"{hashed('user_id')} % {parts} = {part}" if parts > 1 else "",
                flags=True,
            )
            if limits:
                same = "limits.user_id = rows.user_id" + (
                    " and limits.key = rows.key" if by_key else ""
                )
                rows = (
                    f"select rows.* from ({rows}) rows join ({limits}) limits on {same} and "
                    "rows.day between limits.first and limits.last"
                )
            body = words(read, rows, features, self.calendar)
            if unit == "pair":
                body = self.rows.pairs(body)
            self.con.execute(
                f"insert into {table} {body}"
                if part
                else f"create or replace temp table {table} as {body}"
            )

    def keep(self, units: Iterable[str]) -> None:
        """Drop the tables of other units, once what these need of them has been made."""
        wanted = set(units)
        kept = [unit for unit in self._planned if unit in wanted]
        gone = [unit for unit in self._made if unit not in kept]
        if set(gone) - {"pair"}:
            for unit in kept:
                if self._finer(unit) in self._made:
                    self.table(unit)
        views = [unit for unit in kept if self._made.get(unit) == "view"]
        for unit in sorted(gone, key=lambda unit: self._made[unit] == "table"):  # views first
            to_be_read = views or ("creator" in kept and "creator" not in self._made)
            if unit != "pair" or not to_be_read:
                self.con.execute(f"drop {self._made.pop(unit)} words_{unit}")
        self._planned = {unit: self._planned[unit] for unit in kept}

    def _finer(self, unit: str) -> str | None:
        """The table a unit's words are put together from; null: from rows."""
        if not self.rows.whole or unit == "pair":
            return None
        if unit == "user":
            return next((finer for finer in ("creator", "item") if finer in self._planned), None)
        return "pair" if {"creator", "item"} <= self._planned.keys() else None

    def _together(self, unit: str, finer: str, features: Sequence[Feature]) -> str:
        """SQL of a unit's words from those of a finer unit; of users also features that these lack,
        from rows."""
        named = "item" if finer == "pair" else finer
        have = [one for one in features if one in self._planned[named]]
        lack = [one for one in features if one not in have]
        found = coarser(unit, self.table(finer), named, have, self.calendar)
        if not lack:
            return found
        others = words(unit, self.rows.daily(unit, lack, flags=True), lack, self.calendar)
        columns = ", ".join(
            f"coalesce({column}, 0) as {column}"
            for one in features
            for column in self.calendar.columns(unit, one.name)
        )
        era = self.calendar.era_key
        return (
            f"select user_id, cast(null as varchar) as key{era}, {columns} from ({found}) full "
            f"join ({others}) using (user_id{era})"
        )

    def _one_creator_each(self, pairs: str) -> bool:
        """Whether no item has two creators in these pairs, so that pairs of user and item are not
        cut up."""
        doubled = (
            "having min(creator) is distinct from max(creator) or count(creator) not in (0, "
            "count(*))"
        )
        return (
            first_row(
                self.con, f"select 1 from (select key from {pairs} group by key {doubled} limit 1)"
            )
            is None
        )
