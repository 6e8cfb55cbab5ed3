"""The seam between signals and the engine that computes them.

The engine's SQL is written once, for DuckDB. An `Engine` opens a lake as a connection that executes
it: DuckDB as it stands, Spark in translation. A `Dialect` has the few statements that are not the
same query in other words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from longplay.lake.connection import Connection
from longplay.lake.lake import Lake

# SQL of every word of a step, from what the names of the words before it begin with.
Step = Callable[[str], Sequence[str]]


class Dialect(Protocol):
    """Where engines need different queries for the same numbers."""

    @property
    def codes_ids(self) -> bool:
        """Whether ids are turned into numbers first where many signals read the log."""
        ...

    @property
    def cuts_up(self) -> bool:
        """Whether a large log is put together in parts, for the memory of one machine."""
        ...

    @property
    def peels_days(self) -> bool:
        """Whether the days of an entry are taken from its words one by one, each in a statement of
        its own, which is cheap where few are set and a statement costs little."""
        ...

    def midnight(self, day: str) -> str:
        """SQL of the time at which a day (SQL, days since 1970) begins."""
        ...

    def window_sums(
        self, amounts: Mapping[str, str], over: str, first: int
    ) -> tuple[list[str], dict[str, str]]:
        """Sums of whole numbers over one window.

        Args:
            amounts: column to make -> column to sum.
            over: SQL of the window, from "over" on.
            first: number of the first of the inner columns, `added_NUMBER`.

        Returns:
            SQL of the inner columns, and of each column to make from them.
        """
        ...

    def in_steps(self, source: str, name: str, first: Sequence[str], later: Sequence[Step]) -> str:
        """SQL of `source` with words that are computed in steps, each from those of the step
        before.

        Args:
            source: SQL of a table.
            name: of the words: `NAME_0`, `NAME_1`, ...
            first: SQL of every word of the first step, from the columns of `source`.
            later: the further steps.
        """
        ...


class Engine(Protocol):
    """What computes signals."""

    @property
    def dialect(self) -> Dialect:
        """Its own queries."""
        ...

    def connect(
        self, lake: Lake, memory_limit: str | None = None, spill: Path | None = None
    ) -> AbstractContextManager[Connection]:
        """A connection in which the tables' names are views bounded like the lake."""
        ...
