"""Which days of a store share a file, and writing their rows.

A small file costs more to open than to read. So on a small log neighbouring days share a file, once
they are settled: few events still arrive late for them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from glob import glob
from pathlib import Path

import duckdb

from longplay.lake.daily import first_row, quoted
from longplay.signals.engine.rollups import has_many_days
from longplay.signals.store.manifest import Files

EVENTS_PER_QUERY = 20_000_000  # rolled up in one query
SHARED_DAYS = 16  # days of roll-ups that share a file
SETTLED_DAYS = 7  # days after which few events still arrive
MOST_SHARED_EVENTS = 250_000  # expected in a shared file; with more each day has its own
# a log with at most so many events a day shares files of outcomes, too, and of more days
SPARSE_EVENTS = 100
SPARSE_SHARED_DAYS = 64


class DayFiles:
    """The files of one update, by day.

    Args:
        con: runs the queries.
        folder: of the store.
        days: all days with data, in order.
        first: the first day of the log.
        until: the midnight up to which events are counted.
        events: number of events of the log; 0: not known.
    """

    def __init__(
        self,
        con: duckdb.DuckDBPyConnection,
        folder: Path,
        days: Sequence[int],
        first: int,
        until: int,
        events: int,
    ) -> None:
        self.con = con
        self.folder = folder
        self.days = days
        self.first = first
        self.until = until
        self.events_per_day = events / max(len(days), 1)
        self.written = set[str]()  # files, relative to the folder
        self._place = {day: place for place, day in enumerate(days)}

    # -- runs of days ------------------------------------------------------------------------------

    def runs(self, days: Sequence[int]) -> list[tuple[int, ...]]:
        """Days in runs between which no other day has data."""
        runs: list[list[int]] = []
        for day in days:
            if runs and self._place[day] == self._place[runs[-1][-1]] + 1:
                runs[-1].append(day)
            else:
                runs.append([day])
        return [tuple(run) for run in runs]

    def is_run(self, days: Sequence[int]) -> bool:
        """Whether these are all days with data from the first to the last of them."""
        return self._place[days[-1]] - self._place[days[0]] + 1 == len(days)

    def query_parts(self, days: Sequence[int]) -> list[list[int]]:
        """Days to roll up together: at most about `EVENTS_PER_QUERY` events, and no days far apart,
        which would read what lies between them."""
        if not days:
            return []
        if len(days) == 1:
            return [list(days)]
        events = (first_row(self.con, "select count(*) from _all_events") or (0,))[0]
        most_days = max(1, int(EVENTS_PER_QUERY * len(self.days) / max(events, 1)))
        parts: list[list[int]] = []
        for day in sorted(days):
            if (
                parts
                and len(parts[-1]) < most_days
                and self._place[day] - self._place[parts[-1][-1]] < 3
            ):
                parts[-1].append(day)
            else:
                parts.append([day])
        return parts

    # -- days that share a file --------------------------------------------------------------------

    def settled_groups(self, days: Iterable[int]) -> list[range]:
        """The groups of `SHARED_DAYS` days that may share a file of roll-ups: settled, and all of
        them among `days` as far as they have data. None on a large log."""
        if not 0 < self.events_per_day * SHARED_DAYS <= MOST_SHARED_EVENTS:
            return []

        def is_settled(group: range) -> bool:
            return group[0] >= self.first and group[-1] < self.until - SETTLED_DAYS

        return self._groups(days, SHARED_DAYS, is_settled)

    def matured_groups(self, days: Iterable[int], last_window_day: int) -> list[range]:
        """The groups of `SPARSE_SHARED_DAYS` days that may share a file of outcomes: matured, and
        all of them among `days` as far as they have data. None unless the log is sparse."""
        if not 0 < self.events_per_day <= SPARSE_EVENTS:
            return []

        def is_matured(group: range) -> bool:
            return group[-1] + last_window_day + 1 <= self.until

        return self._groups(days, SPARSE_SHARED_DAYS, is_matured)

    def _groups(
        self, days: Iterable[int], size: int, is_closed: Callable[[range], bool]
    ) -> list[range]:
        wanted = set(days)
        numbers = sorted({day // size for day in wanted})
        groups = [range(number * size, (number + 1) * size) for number in numbers]
        return [
            group
            for group in groups
            if is_closed(group) and all(day in wanted or day not in self._place for day in group)
        ]

    # -- writing -----------------------------------------------------------------------------------

    def write(
        self,
        rows: str,
        place: str,
        into: Files,
        days: Sequence[int],
        groups: Sequence[range] = (),
    ) -> None:
        """Write rows into one file (or a few) per day, or per group of days.

        Args:
            rows: SQL with the column `day`.
            place: the subfolder that gets the files.
            into: gets the files of each day.
            days: the days of the rows.
            groups: days that share a file.
        """
        folder = self.folder / place
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        size = len(groups[0]) if groups else SHARED_DAYS
        group_numbers = [group[0] // size for group in groups]
        is_one_group = len(groups) == 1 and all(day in groups[0] for day in days)
        if len(days) == 1 or is_one_group:
            # writing one file costs a quarter of writing by partition
            part = f"b{group_numbers[0]}" if groups else str(days[0])
            file = folder / f"part={part}" / "data_0.parquet"
            file.parent.mkdir()
            self.con.execute(f"copy ({rows}) to {quoted(file)} (format parquet, compression zstd)")
        else:
            parts = f"select *, {_part_sql(size, group_numbers)} as part from ({rows})"
            self.con.execute(
                f"copy ({parts}) to {quoted(folder)} (format parquet, partition_by (part), "
                "compression zstd)"
            )
        for path in sorted(glob("part=*/*.parquet", root_dir=folder)):
            file = os.path.join(place, path)
            number = int(os.path.dirname(path).removeprefix("part=").removeprefix("b"))
            days_of_file: Sequence[int] = [number]
            if has_many_days(file):
                days_of_file = range(number * size, (number + 1) * size)
            for day in days_of_file:
                if day in self._place:
                    into.setdefault(day, []).append(file)
            self.written.add(file)
        if not any(folder.iterdir()):  # no rows
            folder.rmdir()


def _part_sql(size: int, group_numbers: Sequence[int]) -> str:
    """SQL of the part that a row's day is written to: its day, or "b" and the number of its group.

    >>> _part_sql(16, [])
    'day'
    """
    if not group_numbers:
        return "day"
    number = f"cast(floor(day / {size}.0) as integer)"  # days before 1970 are negative
    return (
        f"case when {number} in ({', '.join(map(str, group_numbers))}) then 'b' || {number} "
        "else cast(day as varchar) end"
    )
