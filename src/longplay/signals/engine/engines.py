"""Which engine computes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from longplay.errors import ConfigError
from longplay.signals.declare.checks import kind_of
from longplay.signals.engine.duckdb import DUCKDB, DuckDBEngine
from longplay.signals.engine.spark import SparkEngine, is_session

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

AnyEngine = DuckDBEngine | SparkEngine


def engine_of(given: AnyEngine | SparkSession | None) -> AnyEngine:
    """The engine that was asked for.

    Args:
        given: an engine; a running SparkSession; null: DuckDB, in this process.

    Raises:
        ConfigError: it is something else.

    >>> engine_of(None) is DUCKDB
    True
    """
    if given is None:
        return DUCKDB
    if isinstance(given, AnyEngine):
        return given
    if is_session(given):
        return SparkEngine(given)
    how = f"; did you mean lp.SparkEngine({given!r})?" if isinstance(given, str) else ""
    raise ConfigError(
        f"engine: {kind_of(given)} given, expected lp.SparkEngine(...), a SparkSession or None "
        f"(DuckDB){how}"
    )
