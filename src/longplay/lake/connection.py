"""What executes the SQL of this package: DuckDB's own connections, and others that translate."""

from __future__ import annotations

from typing import Any, Protocol

import polars as pl


class Result(Protocol):
    """The rows of a statement."""

    @property
    def description(self) -> list[Any]:
        """A tuple per column, its name first."""
        ...

    def fetchall(self) -> list[Any]:
        """All rows as tuples."""
        ...

    def fetchnumpy(self) -> dict[str, Any]:
        """All rows as an array per column."""
        ...


class Relation(Protocol):
    """A query that can be read as a table."""

    def pl(self) -> pl.DataFrame:
        """All rows as a polars frame."""
        ...


class Connection(Protocol):
    """What executes SQL written for DuckDB."""

    def execute(self, query: str, /) -> Result:
        """Run one statement."""
        ...

    def sql(self, query: str, /) -> Relation:
        """A query whose rows are read as a table."""
        ...

    def register(self, view_name: str, python_object: Any, /) -> object:
        """Make an Arrow table readable under a name."""
        ...
