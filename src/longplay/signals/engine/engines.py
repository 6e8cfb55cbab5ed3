"""The choice of the engine that computes signals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from longplay.errors import ConfigError
from longplay.signals.declare.checks import described
from longplay.signals.engine.duckdb import DUCKDB, DuckDBEngine
from longplay.signals.engine.spark import SparkEngine, is_session

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

AnyEngine = DuckDBEngine | SparkEngine


def engine_of(engine: AnyEngine | SparkSession | None) -> AnyEngine:
    """The engine that was asked for.

    Args:
        engine: an engine; a running SparkSession; null: DuckDB, in this process.

    Raises:
        ConfigError: it is something else.

    >>> engine_of(None) is DUCKDB
    True
    """
    if engine is None:
        return DUCKDB
    if isinstance(engine, AnyEngine):
        return engine
    if is_session(engine):
        return SparkEngine(engine)
    suggestion = f"; did you mean lp.SparkEngine({engine!r})?" if isinstance(engine, str) else ""
    raise ConfigError(
        f"engine: {described(engine)} given, expected lp.SparkEngine(...), a SparkSession or None "
        f"(DuckDB){suggestion}"
    )
