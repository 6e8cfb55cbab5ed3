"""The source of daily amounts: the events of a log, a row each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from longplay.lake.creators import with_listed
from longplay.lake.daily import DAY_US, SHIFT_DAYS
from longplay.signals.engine.duckdb import instant, micros
from longplay.signals.engine.features import SESSIONS, TOUCHED, Feature, widest

# events whose pairs are built at once: more fall out of the caches, and then out of memory
EVENTS_PER_PART = 60_000_000
BIN_US = 1_800_000_000  # half an hour: events of one bin are of one session
# SQL of an event's time as microseconds above 0, so that division rounds down
TIME_US = f"({micros('time')} + {SHIFT_DAYS * DAY_US})"


class Rows(ABC):
    """The source of daily amounts: events, or roll-ups made of them.

    Attributes:
        parts: in how many parts, by user, pairs are best built; more than one on a log that is
            large for the machine.
        has_pairs: a row has user, creator and item at once, so bitmaps of pairs can be built.
        pair: the unit of these pairs: "pair", or "item_creator" where one key stands for both.
    """

    parts: int
    has_pairs: ClassVar[bool]
    pair: ClassVar[str] = "pair"

    @abstractmethod
    def between(self, first: int, last: int) -> Rows:
        """The rows of these days; others are not read."""

    @abstractmethod
    def daily(
        self, unit: str, features: Sequence[Feature], where: str = "", flags: bool = False
    ) -> str:
        """SQL of user_id, key, day and a column per feature: at least one row per unit and day with
        anything. With `SESSIONS` it is exactly one row per day.

        Args:
            unit: user (key is null), creator, item, or `pair`. The key of "pair" is the item, and
                its rows also have the event's `creator`.
            features: what is summed, a column each.
            where: a further SQL condition over user_id, key and day, e.g. "day >= 20000".
            flags: a column says only whether the row has any of the feature.
        """

    @property
    def decisions(self) -> str:
        """SQL to select decisions from, with ids as these rows have them."""
        return "decisions"

    @property
    def creators(self) -> str:
        """The table of every item's creator (item_id, creator_id), with ids as these rows have
        them."""
        return "creators"

    @property
    def all_pairs(self) -> str:
        """SQL to select every pair of key (item) and creator from that rows may have; empty: only
        the bitmaps of pairs can tell."""
        return ""

    def with_item_and_creator(self, bitmaps: str) -> str:
        """SQL of bitmaps by user_id, key (item) and creator, from bitmaps by the key of `pair`."""
        return bitmaps

    def with_log_ids(self, body: str, keys: Sequence[str]) -> str:
        """SQL of `body` with the log's own ids in the columns `keys`."""
        return body


@dataclass(frozen=True)
class EventRows(Rows):
    """Rows straight from events: one per event, not yet summed.

    Attributes:
        events: a name or SQL that can be selected from.
        parts: as in `Rows`.
        by_catalogue: some events lack the creator of their item, and the table `listed` has it.
    """

    events: str = "events"
    parts: int = 1
    by_catalogue: bool = False
    has_pairs: ClassVar[bool] = True
    micros: ClassVar[str] = TIME_US
    keys: ClassVar[dict[str, str]] = {
        "user": "cast(null as varchar)",
        "creator": "creator_id",
        "item": "item_id",
        "pair": "item_id",
    }

    @classmethod
    def of(cls, events: int, by_catalogue: bool = False) -> EventRows:
        """The rows of a log with this number of events."""
        return cls(parts=-(-max(events, 1) // EVENTS_PER_PART), by_catalogue=by_catalogue)

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
            body = self._with_sessions([feature for feature in features if feature is not SESSIONS])
        else:
            key = f"{self.keys[unit]} as key{', creator_id as creator' if unit == 'pair' else ''}"
            day = f"cast({self.micros} // {DAY_US} - {SHIFT_DAYS} as integer) as day"
            body = (
                f"select user_id, {key}, {day}{self._amounts(features, flags)} from "
                f"{self._source(unit, features, flags)}"
            )
        return f"select * from ({body}) where {where}" if where else body

    def _source(self, unit: str, features: Sequence[Feature], flags: bool) -> str:
        """SQL, from after "from" on, of the events that match any feature; with their item's length
        where a feature reads it."""
        needs_catalogue = self.by_catalogue and unit in ("creator", "pair")
        events = with_listed(self.events) if needs_catalogue else self.events
        tests = " or ".join(f"({feature.test()})" for feature in widest(features))
        return f"{with_lengths(events, features)} where {tests}"

    def _amounts(
        self, features: Sequence[Feature], flags: bool, read: Sequence[Feature] = ()
    ) -> str:
        """SQL of a column per feature, each with a comma before it: the event's amount, null where
        it does not match; with `flags` whether it matches.

        Args:
            features: a column each.
            flags: see `Rows.daily`.
            read: the features whose events are read; empty: `features`.
        """
        read_features = widest(read or features)
        # a filter that all rows have passed is left out
        passed = read_features[0] if len(read_features) == 1 else None

        def column(feature: Feature) -> str:
            test = feature.test(passed)
            return test if flags else f"case when {test} then {feature.amount} end"

        return "".join(f", {column(feature)} as {feature.name}" for feature in features)

    def _with_sessions(self, features: Sequence[Feature]) -> str:
        """SQL of user_id, key, day, the sessions that begin on the day, and the sum of every
        feature.

        Events of one half hour of the clock are of one session. So it is enough to compare each
        half hour's first event with the last event of the half hour before.
        """
        only_activity = always_active(features)
        summed_features = list(features)
        of_activity = ""
        in_order = "last"
        if not only_activity:
            other_features = (feature for feature in features if feature != TOUCHED)
            summed_features = [TOUCHED, *other_features]
            of_activity = f" filter ({TOUCHED.name} is not null)"
            in_order = "last ignore nulls"
        sums = "".join(f", {_total(feature)} as {feature.name}" for feature in features)
        read = [TOUCHED, *features]
        events = (
            f"select user_id, {self.micros} as micros{self._amounts(summed_features, False, read)} "
            f"from {self._source('user', read, False)}"
        )
        half_hours = (
            f"select user_id, micros // {BIN_US} as bin, min(micros){of_activity} as first, "
            f"max(micros){of_activity} as last{sums} from ({events}) group by user_id, bin"
        )
        names = "".join(f", {feature.name}" for feature in features)
        previous = f"lag({in_order}) over (partition by user_id order by bin)"
        gaps = f"select user_id, bin, first, {previous} as previous{names} from ({half_hours})"
        begins = f"first is not null and (previous is null or first - previous > {BIN_US})"
        sessions = f"cast(count(*) filter ({begins}) as bigint) as sessions"
        totals = "".join(
            f", cast(sum({feature.name}) as bigint) as {feature.name}" for feature in features
        )
        day = f"cast(bin // {DAY_US // BIN_US} - {SHIFT_DAYS} as integer)"
        return (
            f"select user_id, cast(null as varchar) as key, {day} as day, {sessions}{totals} from "
            f"({gaps}) group by user_id, 3"
        )


def _total(feature: Feature) -> str:
    """SQL of the sum of a feature's column, which is null where an event does not match."""
    return f"{'count' if feature.amount == '1' else 'sum'}({feature.name})"


def with_lengths(events: str, features: Sequence[Feature]) -> str:
    """SQL, from after "from" on, of events with their item's length where a feature reads it."""
    lengths = "left join (select item_id, length from items where length > 0) using (item_id)"
    return f"{events} {lengths}" if any(feature.needs_length for feature in features) else events


def always_active(features: Sequence[Feature]) -> bool:
    """Whether every event that any of these features matches is activity."""
    other_features = (feature for feature in features if feature is not SESSIONS)
    return widest([TOUCHED, *other_features]) == [TOUCHED]
