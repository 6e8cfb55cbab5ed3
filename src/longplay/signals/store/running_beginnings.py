"""Where a store's log begins, updated from the days that an update rolled up."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import duckdb

from longplay.signals.engine.beginnings import SILENCE_DAYS, Beginnings, days_seen_again
from longplay.signals.engine.features import TOUCHED
from longplay.signals.engine.rollups import RollupRows


def updated_beginnings(
    con: duckdb.DuckDBPyConnection,
    folder: Path,
    rollups: Mapping[str, Mapping[int, Sequence[str]]],
    old: Beginnings,
    rolled: Sequence[int],
) -> Beginnings:
    """The beginnings of the log, now that some days are rolled up.

    Most often some user of a day was also there on the day next to it, so first only the new days
    and their neighbours are read. Some days may still lie outside all runs. Then a new day is
    compared with all days near it, and an earlier day with the new days near it, on which its users
    may have come again.

    Args:
        con: where the queries run.
        folder: of the store.
        rollups: roll-up -> day -> files.
        old: the beginnings before this update.
        rolled: the days that were rolled up, in order.
    """
    if not rolled:
        return old
    active_days = sorted(rollups["user"])
    beginnings = old.joined(
        _seen_again(con, folder, rollups, _with_neighbours(rolled, active_days))
    )
    outside = [day for day in active_days if not beginnings.has(day)]
    if not outside:
        return beginnings
    new_days = set(rolled)
    new_outside = [day for day in outside if day in new_days]
    near = {
        day
        for day in active_days
        if _is_near(day, new_outside) or (day in new_days and _is_near(day, outside))
    }
    return beginnings.joined(_seen_again(con, folder, rollups, {*outside, *near}, users_of=outside))


def _with_neighbours(days: Sequence[int], active_days: Sequence[int]) -> set[int]:
    """The active days among `days`, each with the active day before and after it."""
    place = {day: number for number, day in enumerate(active_days)}
    return {
        active_days[at]
        for day in days
        if day in place
        for at in range(max(place[day] - 1, 0), min(place[day] + 2, len(active_days)))
    }


def _seen_again(
    con: duckdb.DuckDBPyConnection,
    folder: Path,
    rollups: Mapping[str, Mapping[int, Sequence[str]]],
    days: Collection[int],
    users_of: Collection[int] = (),
) -> list[int]:
    """See `days_seen_again`, of the activity of these days.

    Args:
        con: where the queries run.
        folder: of the store.
        rollups: roll-up -> day -> files.
        days: whose activity is read.
        users_of: only users who were active on one of these days; empty: all users.
    """
    if not days:
        return []

    def active_on(some_days: Collection[int]) -> str:
        """SQL of user_id and day of the activity of some days."""
        span = {"user": (min(some_days), max(some_days))}
        rows = RollupRows(folder, rollups, span, only_days={"user": set(some_days)})
        name = TOUCHED.name
        return f"select user_id, day from ({rows.read('user', name)}) where {name} > 0"

    is_wanted = ""
    if users_of:
        is_wanted = f" where user_id in (select user_id from ({active_on(users_of)}))"
    return days_seen_again(con, f"select user_id, day from ({active_on(days)}){is_wanted}")


def _is_near(day: int, days: Sequence[int]) -> bool:
    """Whether a day lies at most `SILENCE_DAYS` from one of these, which are in order."""
    at = bisect_left(days, day - SILENCE_DAYS)
    return at < len(days) and days[at] <= day + SILENCE_DAYS
