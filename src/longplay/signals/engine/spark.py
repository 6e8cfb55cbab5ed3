"""Spark, the distributed engine: SQL written for DuckDB, translated and run on a SparkSession.

`spark_sql` translates. A connection has a session of its own (`newSession`), in UTC: the caller's
settings and views stay as they are.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import polars as pl
import pyarrow as pa

from longplay.errors import ConfigError, LongplayError, MissingExtra
from longplay.lake.daily import DAY_US
from longplay.lake.lake import Lake, TableSource
from longplay.lake.schema import DTYPES
from longplay.signals.engine.dialect import Dialect, Step
from longplay.signals.engine.duckdb import mapped, record

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from longplay.signals.engine.spark_sql import Statement

SETTINGS = {
    "spark.sql.session.timeZone": "UTC",  # days are UTC days, whatever the machine's zone
    "spark.sql.ansi.enabled": "true",  # an overflow is an error, as in DuckDB
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",  # with a zone, as in the lake
    "spark.sql.caseSensitive": "false",
    "spark.sql.groupByAliases": "true",
    "spark.sql.groupByOrdinal": "true",
    "spark.sql.orderByOrdinal": "true",
}
QUIET = {  # of a session that is started here; the caller's settings come after
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
}
TYPES = {  # polars' name of a column's type -> Spark's
    "String": "string",
    "Boolean": "boolean",
    "Int32": "int",
    "UInt32": "bigint",
    "Int64": "bigint",
    "Float64": "double",
}
SUCCESS_FILES = "mapreduce.fileoutputcommitter.marksuccessfuljobs"
JAVA = (17, 21)  # oldest and newest Java that Spark 4.0 runs on
PIP = 'pip install "longplay[spark]"'


class SparkRows:
    """The rows of a query, computed when first fetched."""

    def __init__(self, frame: DataFrame) -> None:
        self._frame = frame

    @property
    def description(self) -> list[tuple[str, str]]:
        """Name and type of every column."""
        return self._frame.dtypes

    @cached_property
    def _rows(self) -> pl.DataFrame:
        with _failures():
            rows = pl.from_arrow(self._frame.toArrow())
        assert isinstance(rows, pl.DataFrame)
        return rows

    def pl(self) -> pl.DataFrame:
        """All rows as a polars frame."""
        return self._rows

    def fetchall(self) -> list[tuple[Any, ...]]:
        """All rows as tuples."""
        return self._rows.rows()

    def fetchnumpy(self) -> dict[str, Any]:
        """All rows as an array per column."""
        return {column.name: column.to_numpy() for column in self._rows}


class SparkConnection:
    """Executes statements written for DuckDB on Spark.

    Tables are computed once, when they are created (a checkpoint), so that a statement does not
    repeat the work of the statements before it. They are stored in the session's checkpoint folder
    if it has one, else on the executors. A query that is repeated before anything changes runs
    once: many signals need the same facts of a log.
    """

    def __init__(self, session: SparkSession, folder: Path) -> None:
        self._session = session
        self._folder = folder
        self._durable = session.sparkContext.getCheckpointDir() is not None
        self._files = 0
        self._answers: dict[str, SparkRows] = {}

    def execute(self, query: str) -> SparkRows:
        """Run a statement; rows are computed when they are fetched."""
        if query in self._answers:
            return self._answers[query]
        from longplay.signals.engine.spark_sql import translated

        statement = translated(query)
        with _failures():
            if statement.verb == "select":
                rows = self._answers[query] = SparkRows(self._session.sql(statement.text))
                return rows
            self._answers.clear()
            return SparkRows(self._changed(statement))

    def _changed(self, statement: Statement) -> DataFrame:
        """Run a statement that creates, fills or drops a table or view, or writes files."""
        name = statement.name
        if statement.verb == "drop":
            self._session.catalog.dropTempView(name)
            return self._session.range(0).toDF("empty")
        rows = self._session.sql(statement.text)
        if statement.verb == "view":
            rows.createOrReplaceTempView(name)
        elif statement.verb == "table":
            self._computed(rows).createOrReplaceTempView(name)
        elif statement.verb == "insert":
            all_rows = self._session.table(name).unionByName(self._computed(rows))
            all_rows.createOrReplaceTempView(name)
        elif statement.verb == "copy":
            writer = rows.write.mode("overwrite").option("compression", "zstd")
            writer.option(SUCCESS_FILES, "false").parquet(name)
            for checksum in Path(name).glob(".*.crc"):  # readers of the folder expect Parquet alone
                checksum.unlink()
        return rows

    def sql(self, query: str) -> SparkRows:
        """A query whose rows are computed when they are read."""
        return self.execute(query)

    def register(self, name: str, rows: pa.Table) -> None:
        """Register a table of this process under a name."""
        frame = pl.from_arrow(rows)
        assert isinstance(frame, pl.DataFrame)
        self.read(name, [self._written(frame)], frame.schema)

    def read(self, name: str, files: Sequence[str], schema: Mapping[str, pl.DataType]) -> None:
        """Register Parquet files under a name. A column that a file lacks is null."""
        columns = ", ".join(f"`{column}` {_type(dtype)}" for column, dtype in schema.items())
        reader = self._session.read.schema(columns).option("datetimeRebaseMode", "CORRECTED")
        reader = reader.option("recursiveFileLookup", "false")
        with _failures():
            frame = reader.parquet(*map(_as_pattern, files))
            frame.createOrReplaceTempView(name)

    def add(self, source: TableSource) -> None:
        """Register a lake's table: all stored rows as `_all_TABLE`, the visible ones as `TABLE`."""
        files = list(source.files) or [self._written(source.rows)]
        self.read(f"_stored_{source.table}", files, DTYPES[source.table])
        stored = f"select {source.columns} from _stored_{source.table}"
        self.execute(f"create view _all_{source.table} as {stored}")
        self.execute(f"create view {source.table} as {source.visible}")

    def _computed(self, frame: DataFrame) -> DataFrame:
        """The frame, computed now and stored."""
        return frame.checkpoint() if self._durable else frame.localCheckpoint()

    def _written(self, rows: pl.DataFrame) -> str:
        """Write rows into a temporary file; its path."""
        self._files += 1
        file = str(self._folder / f"{self._files}.parquet")
        rows.write_parquet(file)
        return file


def _as_pattern(file: str) -> str:
    """A path with braces and backslashes escaped, which Spark would read as a pattern."""
    return re.sub(r"([{}\\])", r"\\\1", file)


def _type(dtype: object) -> str:
    """Spark's name of a column's type."""
    if isinstance(dtype, pl.List):
        return f"array<{_type(dtype.inner)}>"
    if isinstance(dtype, pl.Datetime):
        return "timestamp"
    return TYPES[str(dtype)]


class SparkFailure(LongplayError, OSError):
    """Spark could not run a statement."""


@contextmanager
def _failures() -> Iterator[None]:
    """Turn errors of Spark into a `SparkFailure` with their first line."""
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException

    try:
        yield
    except (PySparkException, Py4JError) as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), repr(error))
        raise SparkFailure(f"Spark: {reason}") from error


@dataclass(frozen=True)
class SparkDialect:
    """See `Dialect`."""

    codes_ids: bool = False  # Spark keeps no table in one process's memory, so numbers save nothing
    reads_in_parts: bool = False
    peels_days: bool = False

    def midnight(self, day: str) -> str:
        """See `Dialect`.

        >>> SparkDialect().midnight("day + 1")
        'make_timestamptz(cast(day + 1 as bigint) * 86400000000)'
        """
        return f"make_timestamptz(cast({day} as bigint) * {DAY_US})"

    def window_sums(
        self, amounts: Mapping[str, str], over: str, first: int
    ) -> tuple[list[str], dict[str, str]]:
        """See `Dialect`. A column per sum: Spark has no integers of 128 bits, and computes all sums
        of a window in one pass.

        >>> SparkDialect().window_sums({"sum_0": "plays"}, "over w", 0)
        (['coalesce(sum(cast(plays as double)) over w, 0) as added_0'], {'sum_0': 'added_0 as sum_0'})
        """
        windows = list[str]()
        sum_columns = dict[str, str]()
        for number, (name, amount) in enumerate(amounts.items(), first):
            window = f"added_{number}"
            windows.append(f"coalesce(sum(cast({amount} as double)) {over}, 0) as {window}")
            sum_columns[name] = f"{window} as {name}"
        return windows, sum_columns

    def in_steps(self, source: str, name: str, first: Sequence[str], later: Sequence[Step]) -> str:
        """See `Dialect`: a list with one struct of words, transformed step by step.

        Spark's optimizer would inline nested selects, and write a word as often as later steps read
        it: three times as often with every step. A lambda's argument is written once.

        >>> SparkDialect().in_steps("t", "s", ["a"], [lambda s: [f"-{s}_0"]]).split("(select *, ")[1]
        "list_transform([{'s_0': a}], lambda step: {'s_0': -step.s_0}) as stepped from t))"
        """
        names = [f"{name}_{number}" for number in range(len(first))]

        def words(step: Sequence[str]) -> str:
            return record(dict(zip(names, step, strict=True)))

        steps = f"[{words(first)}]"
        for step in later:
            steps = mapped(steps, "step", words(step(f"step.{name}")))
        columns = ", ".join(f"stepped[1].{column} as {column}" for column in names)
        return (
            f"(select * exclude (stepped), {columns} from (select *, {steps} as stepped from "
            f"{source}))"
        )


class SparkEngine:
    """Computes signals on Spark, for logs that outgrow one machine; values are those of DuckDB.

    Args:
        session: a running SparkSession, or the master to start one on, e.g. "local[2]".
        settings: of a session that is started here, e.g. {"spark.driver.memory": "4g"}.

    Raises:
        MissingExtra: pyspark, sqlglot or Java is not installed.
        ConfigError: Java is too old or too new; another Spark runs in this process; the session
            is one of Spark Connect.
    """

    dialect: Dialect = SparkDialect()

    def __init__(
        self, session: SparkSession | str = "local[*]", settings: Mapping[str, str] | None = None
    ) -> None:
        check_packages()
        self._started_here = False
        if isinstance(session, str):
            check_java()
            self._started_here = not _runs()
            session = _started(session, settings or {})
        elif settings:
            raise ConfigError(
                f"SparkEngine: settings={dict(settings)!r} given with a running session; set them "
                "when that session is built"
            )
        if "connect" in type(session).__module__:
            raise ConfigError(
                "SparkEngine: a session of Spark Connect given, expected a classic SparkSession "
                "(spark-submit, or SparkSession.builder.master(...))"
            )
        self.session = session

    @contextmanager
    def connect(
        self, lake: Lake, memory_limit: str | None = None, spill: Path | None = None
    ) -> Iterator[SparkConnection]:
        """See `Engine`."""
        if memory_limit is not None:
            raise ConfigError(
                f"memory_limit={memory_limit!r} given for Spark, expected none: set "
                "spark.driver.memory and spark.executor.memory of the session"
            )
        with tempfile.TemporaryDirectory(prefix="longplay-") as folder, lake.sources() as sources:
            session = self.session.newSession()
            for name, value in SETTINGS.items():
                session.conf.set(name, value)
            con = SparkConnection(session, Path(folder))
            for source in sources:
                con.add(source)
            yield con

    def close(self) -> None:
        """Stop the Spark session if this engine started it; a session that was running stays."""
        if self._started_here:
            self.session.stop()


def is_session(value: object) -> TypeGuard[SparkSession]:
    """Whether a value is a session of pyspark. Checking it does not import pyspark."""
    kinds = type(value).__mro__
    return any(
        kind.__name__ == "SparkSession" and kind.__module__.startswith("pyspark.") for kind in kinds
    )


def check_packages() -> None:
    """Raise where pyspark or sqlglot is missing."""
    for package in ("pyspark", "sqlglot"):
        if find_spec(package) is None:
            raise MissingExtra(f"SparkEngine: {package} is not installed; {PIP}")


def check_java() -> None:
    """Raise where there is no Java that Spark runs on."""
    home = os.environ.get("JAVA_HOME")
    java = f"{home}/bin/java" if home else shutil.which("java")
    if java is None or not Path(java).exists():
        where = f"JAVA_HOME={home}" if home else "no java on the PATH"
        raise MissingExtra(
            f"SparkEngine: {where}: Java is not installed there; install Java {JAVA[0]} or "
            f"{JAVA[1]} (on Debian openjdk-17-jre-headless) and set JAVA_HOME"
        )
    printed = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)
    version = java_version(printed.stderr + printed.stdout)
    if version is None or not JAVA[0] <= version <= JAVA[1]:
        raise ConfigError(
            f"SparkEngine: {java} is Java {version or 'of an unknown version'}, expected "
            f"{JAVA[0]} to {JAVA[1]}; set JAVA_HOME to one"
        )


def java_version(text: str) -> int | None:
    """The major version in what `java -version` prints; null where it prints none.

    >>> java_version('openjdk version "17.0.15" 2025-04-15'), java_version('java version "1.8.0_292"')
    (17, 8)
    """
    match = re.search(r'version "(?:1\.)?(\d+)', text)
    return None if match is None else int(match[1])


def _runs() -> bool:
    """Whether a Spark session runs in this process, in any thread."""
    from pyspark.errors import PySparkRuntimeError
    from pyspark.sql import SparkSession

    try:
        SparkSession.active()
    except PySparkRuntimeError:
        return False
    return True


def _started(master: str, settings: Mapping[str, str]) -> SparkSession:
    """A session on a Spark master, started unless one runs already."""
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.master(master).appName("longplay")
    for name, value in (QUIET | SETTINGS | dict(settings)).items():
        builder = builder.config(name, value)
    with _failures():
        session = builder.getOrCreate()
    running = session.sparkContext.master
    if running != master:
        raise ConfigError(
            f"SparkEngine: master {master!r} given, but a session on {running!r} runs in this "
            "process; give that session: SparkEngine(session), or stop it first"
        )
    return session
