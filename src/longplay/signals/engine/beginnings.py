"""When a log begins: the first day of a user who was seen again; and where it begins anew after a
long silence.

A log that begins on a day says nothing of the days before it: a "first touch" just after may be an
old habit. A stray event (a wrong clock, an imported purchase) must not move that day for other
users. So only users who were active on another day at most `SILENCE_DAYS` away say when the log was
running, and each run of such days has a beginning of its own.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from longplay.lake.connection import Connection
from longplay.lake.daily import DAY_US, ENGAGED_TEST, SHIFT_DAYS, day_of, first_row, quoted
from longplay.signals.engine.duckdb import elements, instant

SILENCE_DAYS = 366  # a year, and longer than any window, baseline or novelty
# SQL of the number of a span of `SILENCE_DAYS` + 1 calendar days: no silence fits into one
SPAN = f"(day + {SHIFT_DAYS}) // {SILENCE_DAYS + 1}"
# Before all users are read, a few days' users are sampled: most often one of them came again.
USERS_SAMPLED = 100  # per day
ROWS_SAMPLED = 1_000
DAYS_SAMPLED = 4


@dataclass(frozen=True)
class Beginnings:
    """The runs of a log's activity, with more than `SILENCE_DAYS` days from the end of one to the
    next.

    Attributes:
        runs: first and last day (since 1970) of each run, in order.
        stretches: the same, of days with any event or decision; empty: not known.

    >>> beginnings = Beginnings.of([12_784, 20_454, 20_455, 20_700])
    >>> beginnings.runs
    ((12784, 12784), (20454, 20700))
    >>> beginnings.covers(20_481, 28), beginnings.covers(20_482, 28)
    (False, True)
    """

    runs: tuple[tuple[int, int], ...] = ()
    stretches: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, days: Iterable[int]) -> Beginnings:
        """The runs of these days, in any order."""
        return cls().joined(days)

    def joined(self, days: Iterable[int]) -> Beginnings:
        """These runs with further days added, in any order."""
        runs: list[tuple[int, int]] = []
        for first, last in sorted([*self.runs, *((day, day) for day in days)]):
            if runs and first - runs[-1][1] <= SILENCE_DAYS:
                runs[-1] = (runs[-1][0], max(runs[-1][1], last))
            else:
                runs.append((first, last))
        return Beginnings(tuple(runs), self.stretches)

    def begun(self, day: int) -> int | None:
        """The first day of the run that a day belongs to; null before all runs, and after a
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
        """Whether the run of `day` began at least `days` days before it."""
        begun = self.begun(day)
        return begun is not None and day - begun >= days

    def covers_all(self, first: int, last: int, days: int) -> bool:
        """Whether `covers` holds for every day of first..last."""
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


def beginnings_of(con: Connection, days: tuple[int, int], *, needs_ends: bool = True) -> Beginnings:
    """The beginnings of a log.

    Args:
        con: has the views `events` and `decisions` of the log.
        days: first and last day of the log.
        needs_ends: the last day of a run must be exact, which matters only to days outside the log.
            Without it a short log is sampled rather than read, unless nobody of its first day came
            again.
    """
    activity = f"select user_id, time from events where {ENGAGED_TEST}"
    if not is_long(days):
        if not needs_ends and (first := _first_if_sampled(con, activity, days[0])) is not None:
            return Beginnings(((first, days[1]),))
        return Beginnings.of(days_seen_again(con, _by_day(activity)))
    con.execute(f"create or replace temp table spans_of_users as {_spans_sql()}")
    days_of_spans = (
        f"select {elements('[first, last]')} from spans_of_users union select {day_of('time')} from "
        "decisions"
    )
    stretches = Beginnings.of(day for (day,) in con.execute(days_of_spans).fetchall()).runs
    active_days = (
        f"select user_id, {elements('[first_active, last_active]')} as day from spans_of_users "
        "where first_active is not null"
    )
    runs = Beginnings.of(days_seen_again(con, active_days)).runs
    con.execute("drop table spans_of_users")
    return Beginnings(runs, stretches)


def _spans_sql() -> str:
    """SQL of each user's first and last day with any event, and with activity, per `SPAN`."""
    days = f"select user_id, kind, {day_of('time')} as day from events"
    active = (
        f"min(day) filter ({ENGAGED_TEST}) as first_active, "
        f"max(day) filter ({ENGAGED_TEST}) as last_active"
    )
    return (
        f"select user_id, min(day) as first, max(day) as last, {active} from ({days}) group by "
        f"user_id, {SPAN}"
    )


def first_day_seen_again(con: Connection, days: tuple[int, int] | None) -> int | None:
    """First day (since 1970) of a user whom the log has on another day, too, by an event or a
    decision; null without one.

    Args:
        con: has the views `events` and `decisions` of the log.
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
    bounds = " union all ".join(
        f"select min(time) as first, max(time) as last from {table}"
        for table in ("events", "decisions")
    )
    days = first_row(con, f"select {day_of('min(first)')}, {day_of('max(last)')} from ({bounds})")
    return None if days is None or days[0] is None else (int(days[0]), int(days[1]))


def days_seen_again(con: Connection, rows: str) -> list[int]:
    """Days of users who were there on another day at most `SILENCE_DAYS` away.

    Not all such days: the first and the last of each user and span are enough, because days between
    them bridge no silence. `Beginnings.of` these has the runs of all.

    Args:
        con: where the query runs.
        rows: SQL of user_id and day.
    """
    spans = (
        f"select user_id, {SPAN} as span, min(day) as first, max(day) as last from ({rows}) "
        "group by user_id, span"
    )
    days = con.execute(
        f"""
        with spans as ({spans}),
        neighbours as (
            select first, last, lag(last) over by_user as previous, lead(first) over by_user as next
            from spans window by_user as (partition by user_id order by span)
        )
        select distinct {elements("[first, last]")} from neighbours
        where first < last
            or first - previous <= {SILENCE_DAYS}
            or next - last <= {SILENCE_DAYS}
        """
    ).fetchall()
    return [day for (day,) in days]


def _by_day(rows: str) -> str:
    """SQL of user_id and day from SQL of user_id and time."""
    return f"select user_id, {day_of('time')} as day from ({rows})"


def _is_between(first: int, last: int) -> str:
    """SQL condition that `time` lies on one of the days first..last."""
    return f"time >= {instant(first * DAY_US)} and time < {instant((last + 1) * DAY_US)}"


def _first_if_sampled(con: Connection, rows: str, first_day: int) -> int | None:
    """The first day of a user who came again within `SILENCE_DAYS`, where a sample of users shows
    it; null where it does not.

    Args:
        con: where the queries run.
        rows: SQL of user_id and time.
        first_day: no row lies before it.
    """
    day = first_day
    for _ in range(DAYS_SAMPLED):
        for users, is_everybody in _samples(con, rows, day):
            came_again = (
                f"user_id in ({', '.join(map(quoted, users))}) and "
                f"{_is_between(day + 1, day + SILENCE_DAYS)}"
            )
            if users:
                row = first_row(con, f"select 1 from ({rows}) where {came_again} limit 1")
                if row is not None:
                    return day
            if is_everybody:
                break
        else:  # other users of the day may have come again
            return None
        next_day = first_row(
            con,
            f"select {day_of('min(time)')} from ({rows}) where time >= "
            f"{instant((day + 1) * DAY_US)}",
        )
        if next_day is None or next_day[0] is None:
            return None
        day = int(next_day[0])
    return None


def _samples(con: Connection, rows: str, day: int) -> Iterator[tuple[list[str], bool]]:
    """Samples of a day's users, each with whether it is all of them.

    The first is of users in the first rows as they are stored, which costs least.
    """
    stored = con.execute(
        f"select user_id, {day_of('time')} from ({rows}) limit {ROWS_SAMPLED}"
    ).fetchall()
    if users := sorted({user for user, day_of_row in stored if day_of_row == day}):
        has_all_rows = len(stored) < ROWS_SAMPLED
        yield users[:USERS_SAMPLED], has_all_rows and len(users) <= USERS_SAMPLED
    sample = con.execute(
        f"select distinct user_id from ({rows}) where {_is_between(day, day)} "
        f"limit {USERS_SAMPLED + 1}"
    ).fetchall()
    yield [user for (user,) in sample], len(sample) <= USERS_SAMPLED
