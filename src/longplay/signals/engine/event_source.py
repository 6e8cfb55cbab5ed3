"""The source of daily amounts: the events of a log."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from longplay.lake.creators import with_listed
from longplay.lake.daily import DAY_US, SHIFT_DAYS
from longplay.signals.engine.duckdb import instant, micros
from longplay.signals.engine.operators import SESSIONS, TOUCHED, Feature, widest

# events whose pairs are put together at once: more fall out of the caches, and then out of memory
AT_ONCE = 60_000_000
BIN_US = 1_800_000_000  # half an hour: events of one bin are of one session
# SQL of an event's time as microseconds above 0, so that division rounds down
TIME_US = f"({micros('time')} + {SHIFT_DAYS * DAY_US})"


class Rows(ABC):
    """Where daily amounts come from: events, or roll-ups made of them.

    Attributes:
        parts: in how many parts, by user, pairs are best put together; more than one on a log that
            is large for the machine.
        whole: a row says user, creator and item at once, so that pairs of a user and both can be
            asked for.
        pair: the unit of these: "pair", or "thing" where one key says both.
    """

    parts: int
    whole: ClassVar[bool]
    pair: ClassVar[str] = "pair"

    @abstractmethod
    def between(self, first: int, last: int) -> Rows:
        """The rows of these days; others are not read."""

    @abstractmethod
    def daily(
        self, unit: str, features: Sequence[Feature], where: str = "", flags: bool = False
    ) -> str:
        """SQL of (user_id, key, day, a column per feature), at least one row per day with anything;
        sums and bits do not care how many.

        With sessions it is one row per day.

        Args:
            unit: user (key is null), creator, item, pair: an item (key) with its event's `creator`;
                or what else `pair` is.
            features: what is summed, a column each.
            where: a further test, over user_id, key and day, e.g. "day >= 20000".
            flags: of each feature only whether the row has any.
        """

    @property
    def decisions(self) -> str:
        """Decisions, with ids as these rows have them: what can be selected from."""
        return "decisions"

    @property
    def creators(self) -> str:
        """The table of every item's creator (item_id, creator_id), with ids as these rows have
        them."""
        return "creators"

    @property
    def known_pairs(self) -> str:
        """What can be selected from: key (item) and creator, every pair of both that rows may have;
        empty: only words can tell."""
        return ""

    def pairs(self, words: str) -> str:
        """SQL of words of pairs by user_id, key (item) and creator, from words by the key of
        `pair`."""
        return words

    def named(self, body: str, keys: Sequence[str]) -> str:
        """SQL of `body` with the log's own ids in the columns `keys`."""
        return body


@dataclass(frozen=True)
class EventRows(Rows):
    """Rows straight from events: one per event, not yet summed.

    `events` is a name or SQL that can be selected from. `parts`: in how many parts pairs are best
    put together. `by_catalogue`: some events lack the creator of their item, which the table
    `listed` may know.
    """

    events: str = "events"
    parts: int = 1
    by_catalogue: bool = False
    whole: ClassVar[bool] = True
    micros: ClassVar[str] = TIME_US
    keys: ClassVar[dict[str, str]] = {
        "user": "cast(null as varchar)",
        "creator": "creator_id",
        "item": "item_id",
        "pair": "item_id",
    }

    @classmethod
    def of(cls, events: int, by_catalogue: bool = False) -> EventRows:
        """The rows of a log of so many events."""
        return cls(parts=-(-max(events, 1) // AT_ONCE), by_catalogue=by_catalogue)

    def between(self, first: int, last: int) -> EventRows:
        """See `Rows`."""
        low, high = (instant(day * DAY_US) for day in (first, last + 1))
        return replace(
            self, events=f"(select * from {self.events} where time >= {low} and time < {high})"
        )

    def daily(
        self, unit: str, features: Sequence[Feature], where: str = "", flags: bool = False
    ) -> str:
        """See `Rows`."""
        if SESSIONS in features:
            days = self._with_sessions([one for one in features if one is not SESSIONS])
            return f"select * from ({days}) where {where}" if where else days
        key = f"{self.keys[unit]} as key{', creator_id as creator' if unit == 'pair' else ''}"
        day = f"cast({self.micros} // {DAY_US} - {SHIFT_DAYS} as integer) as day"
        inner = (
            f"select user_id, {key}, {day}{self._amounts(features, flags)} from "
            f"{self._source(unit, features, flags)}"
        )
        return f"select * from ({inner}) where {where}" if where else inner

    def _source(self, unit: str, features: Sequence[Feature], flags: bool) -> str:
        """SQL of the events that any feature counts, with their item's length where one asks for
        it; what follows "from"."""
        named = self.by_catalogue and unit in ("creator", "pair")
        events = with_listed(self.events) if named else self.events
        return (
            f"{with_lengths(events, features)} where "
            f"{' or '.join(f'({one.test()})' for one in widest(features))}"
        )

    def _amounts(
        self, features: Sequence[Feature], flags: bool, read: Sequence[Feature] = ()
    ) -> str:
        """SQL of a column per feature: its amount, null where it does not count; or whether it
        does.

        Of the events that any of these counts, or any of `read`.
        """
        most = widest(read or features)
        passed = most[0] if len(most) == 1 else None  # what all rows pass is not asked twice

        def column(one: Feature) -> str:
            return (
                one.test(passed) if flags else f"case when {one.test(passed)} then {one.amount} end"
            )

        return "".join(f", {column(one)} as {one.name}" for one in features)

    def _with_sessions(self, features: Sequence[Feature]) -> str:
        """SQL of (user_id, key, day, sessions, a column per feature): sessions that begin on each
        day, and sums.

        Within half an hour of the clock no gap is longer than half an hour, so it is enough to look
        from one half hour with activity to the next: first event of one, last event of the one
        before.
        """
        only_activity = always_active(features)
        counted = (
            list(features)
            if only_activity
            else [TOUCHED, *(one for one in features if one != TOUCHED)]
        )
        when = "" if only_activity else f" filter ({TOUCHED.name} is not null)"
        sums = "".join(
            f", {'count' if one.amount == '1' else 'sum'}({one.name}) as {one.name}"
            for one in features
        )
        read = [TOUCHED, *features]
        placed = (
            f"select user_id, {self.micros} as micros{self._amounts(counted, False, read)} "
            f"from {self._source('user', read, False)}"
        )
        bins = f"""select user_id, micros // {BIN_US} as bin, min(micros){when} as first, max(micros){when} as last{sums}
            from ({placed}) group by user_id, bin"""
        names = "".join(f", {one.name}" for one in features)
        before = (
            f"lag(last{'' if only_activity else ' ignore nulls'}) over (partition by user_id "
            "order by bin)"
        )
        spans = f"select user_id, bin, first, {before} as before{names} from ({bins})"
        begun = (
            "cast(count(*) filter (first is not null and (before is null or first - before > "
            f"{BIN_US})) as bigint) as sessions"
        )
        totals = "".join(f", cast(sum({one.name}) as bigint) as {one.name}" for one in features)
        day = f"cast(bin // {DAY_US // BIN_US} - {SHIFT_DAYS} as integer)"
        return (
            f"select user_id, cast(null as varchar) as key, {day} as day, {begun}{totals} from "
            f"({spans}) group by user_id, 3"
        )


def with_lengths(events: str, features: Sequence[Feature]) -> str:
    """SQL of events, with their item's length where a feature asks for it; what follows "from"."""
    lengths = "left join (select item_id, length from items where length > 0) using (item_id)"
    return f"{events} {lengths}" if any(one.needs_length for one in features) else events


def always_active(features: Sequence[Feature]) -> bool:
    """Whether every event that any of these counts is activity."""
    return widest([TOUCHED, *(one for one in features if one is not SESSIONS)]) == [TOUCHED]
