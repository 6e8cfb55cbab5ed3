"""When a log begins: where activity starts, and where it starts again after a long silence.

A log that begins on a day says nothing of the days before it: a "first touch" just after may be an old habit. One event far away from all
others, a wrong clock or an imported purchase, must not move that day for anybody else. So each run of activity has a beginning of its own.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, replace

import duckdb

from longplay.lake.daily import ENGAGED_TEST, day_of

SILENCE_DAYS = 366  # a year, and longer than any window, baseline or novelty


@dataclass(frozen=True)
class Beginnings:
    """The runs of a log's activity: first and last day (since 1970) of each, with more than `SILENCE_DAYS` from the end of one to the next.

    >>> beginnings = Beginnings.of([12_784, 20_454, 20_455, 20_700])
    >>> beginnings.runs
    ((12784, 12784), (20454, 20700))
    >>> beginnings.covers(20_481, 28), beginnings.covers(20_482, 28)
    (False, True)
    """

    runs: tuple[tuple[int, int], ...] = ()
    stretches: tuple[tuple[int, int], ...] = ()  # as `runs`, of days with any event or decision; none: not known

    @classmethod
    def of(cls, days: Iterable[int]) -> Beginnings:
        """The runs of days on which anybody was active, in any order."""
        return cls().joined(days)

    def joined(self, days: Iterable[int]) -> Beginnings:
        """The runs of these and of further days of activity, in any order."""
        runs: list[tuple[int, int]] = []
        for first, last in sorted([*self.runs, *((day, day) for day in days)]):
            if runs and first - runs[-1][1] <= SILENCE_DAYS:
                runs[-1] = (runs[-1][0], max(runs[-1][1], last))
            else:
                runs.append((first, last))
        return Beginnings(tuple(runs), self.stretches)

    def begun(self, day: int) -> int | None:
        """The first day of the run that a day belongs to; null before any activity, and after a silence."""
        place = bisect_right(self.runs, (day, 10**9)) - 1
        if place < 0 or day - self.runs[place][1] > SILENCE_DAYS:
            return None
        return self.runs[place][0]

    def covers(self, day: int, days: int) -> bool:
        """Whether the run of `day` had begun at least so many `days` before it."""
        begun = self.begun(day)
        return begun is not None and day - begun >= days

    def covers_all(self, first: int, last: int, days: int) -> bool:
        """Whether it holds for every day of first..last."""
        return self.covers(first, days) and self.begun(first) == self.begun(last)

    def covers_sql(self, days: int) -> str:
        """SQL of `covers` for the column `day`.

        >>> Beginnings(((20_454, 20_700),)).covers_sql(28)
        '(day between 20482 and 21066)'
        """
        tests = [f"day between {first + days} and {last + SILENCE_DAYS}" for first, last in self.runs]
        return f"({' or '.join(tests)})" if tests else "false"


def beginnings_of(con: duckdb.DuckDBPyConnection, days: tuple[int, int]) -> Beginnings | None:
    """Those of the log in a connection's view `events`, read in one pass; null where its days (first, last) leave room for one run only."""
    if days[1] - days[0] <= SILENCE_DAYS:
        return None
    by_day = con.execute(f"select {day_of('time')}, bool_or({ENGAGED_TEST}) from events group by 1").fetchall()
    shown = con.execute(f"select distinct {day_of('time')} from decisions").fetchall()
    stretches = Beginnings.of([*(day for day, _ in by_day), *(day for (day,) in shown)]).runs
    return replace(Beginnings.of(day for day, active in by_day if active), stretches=stretches)
