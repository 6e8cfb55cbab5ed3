"""When a log begins: the first day of a user who was seen again; and where it begins anew after a
long silence.

A log that begins on a day says nothing of the days before it: a "first touch" just after may be an
old habit. A stray event, by a wrong clock or an imported purchase, must not move that day for
anybody else. So only users who were active on another day at most `SILENCE_DAYS` away say when the
log was there, and each run of such days has a beginning of its own.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from longplay.lake.connection import Connection
from longplay.lake.daily import DAY_US, ENGAGED_TEST, SHIFT_DAYS, day_of, first_row, quoted
from longplay.signals.engine.duckdb import elements, instant

SILENCE_DAYS = 366  # a year, and longer than any window, baseline or novelty
# SQL of a number that days share of which none are parted by a silence
SPAN = f"(day + {SHIFT_DAYS}) // {SILENCE_DAYS + 1}"
SAMPLE = 100  # users of a day who are asked whether they came again, before all users are
ROWS_SAMPLED = 1_000
DAYS_SAMPLED = 4  # days on which nobody did before all users are asked


@dataclass(frozen=True)
class Beginnings:
    """The runs of a log's activity: first and last day (since 1970) of each, with more than
    `SILENCE_DAYS` from the end of one to the next.

    >>> beginnings = Beginnings.of([12_784, 20_454, 20_455, 20_700])
    >>> beginnings.runs
    ((12784, 12784), (20454, 20700))
    >>> beginnings.covers(20_481, 28), beginnings.covers(20_482, 28)
    (False, True)
    """

    runs: tuple[tuple[int, int], ...] = ()
    stretches: tuple[
        tuple[int, int], ...
    ] = ()  # as `runs`, of days with any event or decision; none: not known

    @classmethod
    def of(cls, days: Iterable[int]) -> Beginnings:
        """The runs of these days, in any order."""
        return cls().joined(days)

    def joined(self, days: Iterable[int]) -> Beginnings:
        """The runs of these and of further days, in any order."""
        runs: list[tuple[int, int]] = []
        for first, last in sorted([*self.runs, *((day, day) for day in days)]):
            if runs and first - runs[-1][1] <= SILENCE_DAYS:
                runs[-1] = (runs[-1][0], max(runs[-1][1], last))
            else:
                runs.append((first, last))
        return Beginnings(tuple(runs), self.stretches)

    def begun(self, day: int) -> int | None:
        """The first day of the run that a day belongs to; null before any run, and after a
        silence."""
        place = bisect_right(self.runs, (day, 10**9)) - 1
        if place < 0 or day - self.runs[place][1] > SILENCE_DAYS:
            return None
        return self.runs[place][0]

    def has(self, day: int) -> bool:
        """Whether a day lies in a run, its first and last day included."""
        place = bisect_right(self.runs, (day, 10**9)) - 1
        return place >= 0 and day <= self.runs[place][1]

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
        tests = [
            f"day between {first + days} and {last + SILENCE_DAYS}" for first, last in self.runs
        ]
        return f"({' or '.join(tests)})" if tests else "false"


def is_long(days: tuple[int, int]) -> bool:
    """Whether a log of these days (first, last) has room for more than one run."""
    return days[1] - days[0] > SILENCE_DAYS


def beginnings_of(con: Connection, days: tuple[int, int], *, whole: bool = True) -> Beginnings:
    """Those of the log in a connection's views `events` and `decisions`.

    Args:
        con: has the view `events`.
        days: first and last day of the log.
        whole: also say where a run ends, which matters to days outside the log alone; a short log
            that is not asked for it is not read whole, unless nobody of its first day came again.
    """
    activity = f"select user_id, time from events where {ENGAGED_TEST}"
    if not is_long(days):
        if not whole and (first := _first_if_sampled(con, activity, days[0])) is not None:
            return Beginnings(((first, days[1]),))
        return Beginnings.of(days_seen_again(con, _by_day(activity)))
    # one pass over the events tells both: of each user and span of days the first and last with
    # anything, and with activity
    day = f"select user_id, kind, {day_of('time')} as day from events"
    active = (
        f"min(day) filter ({ENGAGED_TEST}) as first_active, max(day) filter ({ENGAGED_TEST}) "
        "as last_active"
    )
    spans = (
        f"select user_id, min(day) as first, max(day) as last, {active} from ({day}) group by "
        f"user_id, {SPAN}"
    )
    con.execute(f"create or replace temp table spans_of_users as {spans}")
    every = (
        f"select {elements('[first, last]')} from spans_of_users union select {day_of('time')} from "
        "decisions"
    )
    stretches = Beginnings.of(found for (found,) in con.execute(every).fetchall()).runs
    seen = (
        f"select user_id, {elements('[first_active, last_active]')} as day from spans_of_users "
        "where first_active is not null"
    )
    runs = Beginnings.of(days_seen_again(con, seen)).runs
    con.execute("drop table spans_of_users")
    return Beginnings(runs, stretches)


def first_day_seen_again(con: Connection, days: tuple[int, int] | None) -> int | None:
    """First day (since 1970) of a user whom the log in a connection has on another day, too, by an
    event or a decision; null without one.

    Args:
        con: has the view `events`.
        days: first and last day of the log; null where it is empty.
    """
    if days is None:
        return None
    rows = "select user_id, time from events union all select user_id, time from decisions"
    if (first := _first_if_sampled(con, rows, days[0])) is not None:
        return first
    return min(days_seen_again(con, _by_day(rows)), default=None)


def days_of_rows(con: Connection) -> tuple[int, int] | None:
    """First and last day (since 1970) of the events and decisions in a connection; null without
    any."""
    parts = " union all ".join(
        f"select min(time) as first, max(time) as last from {table}"
        for table in ("events", "decisions")
    )
    found = first_row(con, f"select {day_of('min(first)')}, {day_of('max(last)')} from ({parts})")
    return None if found is None or found[0] is None else (int(found[0]), int(found[1]))


def days_seen_again(con: Connection, rows: str) -> list[int]:
    """Days on which a user was there who was there on another day at most `SILENCE_DAYS` away: as
    many of them as say what the runs of all are.

    Of each user and `SILENCE_DAYS` + 1 days of the calendar the first and the last are enough: what
    lies between them bridges no silence.

    Args:
        con: has the view `events`.
        rows: SQL of user_id and day.
    """
    found = con.execute(
        f"""
        with spans as (
            select user_id, {SPAN} as span, min(day) as first, max(day) as last from ({rows}) group by user_id, span
        ),
        beside as (
            select first, last, lag(last) over by_user as before, lead(first) over by_user as after
            from spans window by_user as (partition by user_id order by span)
        )
        select distinct {elements("[first, last]")} from beside
        where first < last or first - before <= {SILENCE_DAYS} or after - last <= {SILENCE_DAYS}
        """
    ).fetchall()
    return [day for (day,) in found]


def _by_day(rows: str) -> str:
    return f"select user_id, {day_of('time')} as day from ({rows})"


def _between(first: int, last: int) -> str:
    """SQL of whether `time` lies on these days or between them."""
    return f"time >= {instant(first * DAY_US)} and time < {instant((last + 1) * DAY_US)}"


def _first_if_sampled(con: Connection, rows: str, likely: int) -> int | None:
    """The first day of a user who came again within `SILENCE_DAYS`, where few users need to be
    asked; null where that is not known.

    Args:
        rows: SQL of user_id and time.
        likely: a day that none lies before.
    """
    day = likely
    for _ in range(DAYS_SAMPLED):
        for users, is_whole in _samples(con, rows, day):
            again = (
                f"user_id in ({', '.join(map(quoted, users))}) and "
                f"{_between(day + 1, day + SILENCE_DAYS)}"
            )
            if (
                users
                and first_row(con, f"select 1 from ({rows}) where {again} limit 1") is not None
            ):
                return day
            if is_whole:
                break
        else:  # others of the day may have come again
            return None
        found = first_row(
            con,
            f"select {day_of('min(time)')} from ({rows}) where time >= "
            f"{instant((day + 1) * DAY_US)}",
        )
        if found is None or found[0] is None:
            return None
        day = int(found[0])
    return None


def _samples(con: Connection, rows: str, day: int) -> Iterator[tuple[list[str], bool]]:
    """Users of a day, and whether they are all of it: those among the first rows as they lie, which
    costs least, then as many as are asked for."""
    lying = con.execute(
        f"select user_id, {day_of('time')} from ({rows}) limit {ROWS_SAMPLED}"
    ).fetchall()
    if users := sorted({user for user, of_day in lying if of_day == day}):
        yield (
            users[:SAMPLE],
            len(lying) < ROWS_SAMPLED and len(users) <= SAMPLE,
        )  # few rows are all there are
    found = con.execute(
        f"select distinct user_id from ({rows}) where {_between(day, day)} limit {SAMPLE + 1}"
    ).fetchall()
    yield [user for (user,) in found], len(found) <= SAMPLE
