"""The interface between signals and the engine that computes them.

The engine's SQL is written once, for DuckDB. An `Engine` opens a lake as a connection that executes
it: DuckDB directly, Spark in translation. A `Dialect` has the few queries that differ in more than
spelling.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from longplay.lake.connection import Connection
from longplay.lake.lake import Lake

# From the stem of the names of the previous step's words, SQL of every word of the next step.
Step = Callable[[str], Sequence[str]]


class Dialect(Protocol):
    """Choices and queries that differ between engines, for the same numbers."""

    @property
    def codes_ids(self) -> bool:
        """Whether ids are replaced by numbers first, where many signals read the log."""
        ...

    @property
    def reads_in_parts(self) -> bool:
        """Whether a large log is read in parts, to fit the memory of one machine."""
        ...

    @property
    def peels_days(self) -> bool:
        """Whether entry days are read from bitmaps one by one, a statement each. That is cheap where
        few are set and a statement costs little. Else one query reads all days."""
        ...

    def midnight(self, day: str) -> str:
        """SQL of the moment at which a day (SQL, days since 1970) begins."""
        ...

    def window_sums(
        self, amounts: Mapping[str, str], over: str, first: int
    ) -> tuple[list[str], dict[str, str]]:
        """SQL of sums of whole numbers over one window.

        Args:
            amounts: name of the sum -> column that is summed.
            over: SQL of the window, from "over" on.
            first: number of the first inner column, `added_NUMBER`.

        Returns:
            SQL of the inner columns, and per sum SQL of its column, which reads the inner ones.
        """
        ...

    def in_steps(self, source: str, name: str, first: Sequence[str], later: Sequence[Step]) -> str:
        """SQL of `source` with words that are computed in steps, each step from the words of the
        step before.

        Args:
            source: SQL of a table.
            name: stem of the words' names: `NAME_0`, `NAME_1`, ...
            first: SQL of every word of the first step, from the columns of `source`.
            later: the further steps.
        """
        ...


class Engine(Protocol):
    """A database engine that computes signals."""

    @property
    def dialect(self) -> Dialect:
        """The queries that are its own."""
        ...

    def connect(
        self, lake: Lake, memory_limit: str | None = None, spill: Path | None = None
    ) -> AbstractContextManager[Connection]:
        """A connection with a view per table of the lake, bounded as the lake is.

        Args:
            lake: the log.
            memory_limit: e.g. "4GB"; null: the engine's own.
            spill: folder for what does not fit into memory; null: none.
        """
        ...
