"""What a lake has gained since the last update of a store: files, days, and late rows."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import duckdb

from longplay.lake.daily import EPOCH, day_of
from longplay.lake.lake import Lake
from longplay.signals.engine.rollups import files_sql
from longplay.signals.store.manifest import Manifest


class LakeChanges:
    """A lake beside what a store has counted of it.

    Args:
        con: connected to the lake.
        lake: bounded by the midnight `until`.
        old: the last manifest.
        until: the midnight up to which to count, days since 1970.
    """

    def __init__(
        self, con: duckdb.DuckDBPyConnection, lake: Lake, old: Manifest, until: int
    ) -> None:
        self.con = con
        self.lake = lake
        self.until = until
        # by name, because a lake may be moved to another folder
        self.files = {
            table: {Path(file).name: file for file in lake.files(table)}
            for table in ("events", "decisions")
        }
        self._seen = {table: set(old.seen.get(table, [])) for table in self.files}
        self._is_first = old.until is None

    @property
    def file_names(self) -> dict[str, list[str]]:
        """Table of the lake -> the names of its files, in order."""
        return {table: sorted(files) for table, files in self.files.items()}

    def forget(self) -> None:
        """Treat all of the lake as not counted yet."""
        self._is_first = True

    def has_lost_files(self) -> bool:
        """Whether files that were counted are gone: rewritten, so that what they held is not
        known."""
        return any(self._seen[table] - files.keys() for table, files in self.files.items())

    def new_files(self, table: str) -> list[str]:
        """Files since the last update; none on the first."""
        if self._is_first:
            return []
        return [file for name, file in self.files[table].items() if name not in self._seen[table]]

    def files_since(self, table: str, is_known: bool) -> list[str]:
        """Files since the last update, if what earlier files say is known; else all files."""
        if not is_known or self._is_first:
            return list(self.files[table].values())
        return self.new_files(table)

    def days_with(self, table: str, since: int) -> set[int]:
        """Days from `since` until now with rows of a table."""
        if since >= self.until:
            return set()
        files = self.lake.files(table, midnights(since, self.until))
        if not files:
            return set()
        rows = self.con.execute(
            f"select distinct {day_of('time')} from {files_sql(files)} where "
            f"{is_between(since, self.until - 1)}"
        ).fetchall()
        return {day for (day,) in rows}

    def days_with_decisions(self, since: int) -> set[int]:
        """Days from `since` until now with a decision, and earlier days of decisions that arrived
        since the last update."""
        files = self.new_files("decisions")
        late_days: set[int] = set()
        if files:
            day = day_of("time")
            rows = self.con.execute(
                f"select distinct {day} from {files_sql(files)} where {day} < {since}"
            ).fetchall()
            late_days = {late_day for (late_day,) in rows}
        return self.days_with("decisions", since) | late_days

    def find_late(self, since: int, first_day: int) -> set[int]:
        """Days before `since` that got late events since the last update.

        Creates the tables `late` and `late_shown` (user_id, day): the users whose outcomes may have
        changed, by late events and by late decisions, and from which day on.

        Args:
            since: the midnight up to which was counted.
            first_day: the first day of the log.
        """
        events = self.new_files("events")
        day = day_of("time")
        self.con.execute("create or replace temp table late (user_id varchar, day integer)")
        late_days: set[int] = set()
        if events:
            self.con.execute(
                f"insert into late select distinct user_id, {day} as day from "
                f"{files_sql(events)} where {day} < {since}"
            )
            rows = self.con.execute("select distinct day from late").fetchall()
            late_days = {late_day for (late_day,) in rows}
        decisions = self.new_files("decisions")
        self.con.execute("create or replace temp table late_shown (user_id varchar, day integer)")
        if decisions:
            # a first experiment moves a user's enrolment, a late slate adds exposures
            self.con.execute(
                f"""
                insert into late_shown
                select user_id,
                       min(case when experiment is not null then {first_day} else {day} end)
                           as day
                from {files_sql(decisions)}
                where experiment is not null or {day} < {since} group by user_id"""
            )
        return late_days


def midnights(first: int, stop: int) -> tuple[datetime, datetime]:
    """The midnights that begin two days (since 1970)."""
    return EPOCH + timedelta(days=first), EPOCH + timedelta(days=stop)


def is_between(first: int, last: int) -> str:
    """SQL condition that `time` lies on one of the days first..last.

    >>> is_between(0, 1)
    "time >= timestamptz '1970-01-01 00:00:00+00' and time < timestamptz '1970-01-03 00:00:00+00'"
    """
    low, stop = (
        f"timestamptz '{time:%Y-%m-%d} 00:00:00+00'" for time in midnights(first, last + 1)
    )
    return f"time >= {low} and time < {stop}"
