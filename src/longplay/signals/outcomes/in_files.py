"""Outcomes of many signals in one pass over the log, written to files: for logs that do not fit into
memory."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from longplay.errors import ConfigError, LongplayError
from longplay.estimate import Estimate, mean_of_sums
from longplay.lake.connection import Connection
from longplay.lake.creators import prepare_creators
from longplay.lake.daily import first_row
from longplay.lake.lake import Lake
from longplay.progress import Progress, reporting
from longplay.signals.declare.declaration import Declaration
from longplay.signals.declare.entry import Entry
from longplay.signals.engine.answerable import check_answerable
from longplay.signals.engine.beginnings import Beginnings, beginnings_of
from longplay.signals.engine.coded_events import SharedNumber, coded_rows, pays
from longplay.signals.engine.compiler import Compiler
from longplay.signals.engine.dialect import Engine
from longplay.signals.engine.duckdb import DUCKDB, copied
from longplay.signals.engine.engines import AnyEngine, engine_of
from longplay.signals.engine.event_source import Rows
from longplay.signals.engine.parts import entry_keys, reads_creators
from longplay.signals.outcomes.in_memory import (
    check_signals,
    checked_as_of,
    days_of_log,
    event_rows,
    outcomes_of,
)

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def write_outcomes(
    signals: Sequence[Declaration],
    lake: Lake,
    folder: str | Path,
    as_of: datetime | None = None,
    *,
    memory_limit: str | None = None,
    engine: AnyEngine | SparkSession | None = None,
    progress: Progress = None,
) -> dict[str, Path]:
    """Compute signals in one pass over the log and write one Parquet file each,
    `folder`/name@version.parquet, without holding outcomes in memory.

    Columns: user_id, the entry's item_id and creator_id (where it has them), day (days since
    1970-01-01), truncated, value (null while immature), matures_at; for exposures decision_id and
    slot, for time_to_return duration and event, for baselines baseline. The rows are those of
    `Signal.outcomes`, without the entry's event and its time.

    Args:
        signals: what to compute, each name once.
        lake: the log.
        folder: gets a file per signal.
        as_of: the moment of knowledge, UTC; default the lake's watermark.
        memory_limit: of DuckDB, e.g. "4GB"; beyond it, DuckDB spills to `folder`.
        engine: what computes it, as in `Signal.outcomes`. Spark writes a folder of Parquet files in
            the place of each file; its executors must reach `folder`.
        progress: called with (signals written, signals); True or False: with or without a progress
            line; default: a line on a terminal or in a notebook.

    Returns:
        label (name@version) -> file.

    Raises:
        DataError: what `Signal.outcomes` raises.
        ConfigError: no signals, or two with one name.
    """
    check_signals("write_outcomes", signals)
    as_of, view = checked_as_of("write_outcomes", lake, as_of)
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    written: dict[str, Path] = {}
    chosen_engine = engine_of(engine)
    with (
        reporting("write_outcomes", "signals", progress) as report,
        chosen_engine.connect(view, memory_limit, target / "spill") as con,
    ):
        tables = outcome_tables(con, signals, lake, view, as_of, chosen_engine)
        for signal, table in tables.items():
            file = target / f"{signal.label}.parquet"
            closes = chosen_engine.dialect.midnight(f"day + {signal.window[1] + 1}")
            columns = ", ".join(signal_columns(con, signal, table))
            new_file = Path(f"{file}.new")
            con.execute(copied(f"select {columns}, {closes} as matures_at from {table}", new_file))
            if file.is_dir():  # what Spark wrote before
                shutil.rmtree(file)
            new_file.replace(file)
            written[signal.label] = file
            report(len(written), len(tables))
    return written


@dataclass(frozen=True)
class BaseRate:
    """A signal's number of entries on a log, and the mean of their outcomes.

    Attributes:
        entries: number of entries.
        mature: number of entries whose window has closed.
        rate: mean value of the mature entries; null where none has a value.
        truncated: number of entries that may be none, because the log begins too late for them.
            `rate` leaves them out unless asked.
    """

    entries: int
    mature: int
    rate: Estimate | None
    truncated: int = 0


def base_rates(
    signals: Sequence[Declaration],
    lake: Lake,
    as_of: datetime | None = None,
    *,
    memory_limit: str | None = None,
    truncated: bool = False,
    engine: AnyEngine | SparkSession | None = None,
) -> dict[Declaration, BaseRate | LongplayError]:
    """The base rate of every signal, or the error that says why the log cannot answer it; in one
    pass over the log, without holding its outcomes.

    Equal to the base rates of `Signal.outcomes(lake, as_of)`.

    Args:
        signals: what to compute.
        lake: the log.
        as_of: the moment of knowledge, UTC; default the lake's watermark.
        memory_limit: of DuckDB, e.g. "4GB"; beyond it, DuckDB spills to a temporary folder.
        truncated: truncated entries count in the rates, too.
        engine: what computes it, as in `Signal.outcomes`.
    """
    chosen_engine = engine_of(engine)
    check_signals("base_rates", signals)
    rates: dict[Declaration, BaseRate | LongplayError] = {}
    as_of_time, view = checked_as_of("base_rates", lake, as_of)
    as_of_day = _day(as_of_time)
    with (
        tempfile.TemporaryDirectory(prefix="longplay-") as spill,
        chosen_engine.connect(view, memory_limit, Path(spill)) as con,
    ):
        span = days_of_log(con, view)
        days = span or (as_of_day, as_of_day)
        beginnings = cache(lambda: beginnings_of(con, days, needs_ends=False))
        compiled_signals = list[Declaration]()
        for signal in signals:
            try:
                check_answerable(con, signal, lake, span, beginnings, chosen_engine)
                check_computable_by_day(signal)
                compiled_signals.append(signal)
            except LongplayError:
                rates[signal] = _rate_in_memory(signal, lake, as_of, truncated, chosen_engine)
        tables: dict[Declaration, str] = {}
        if compiled_signals:
            tables = _compiled(
                con, compiled_signals, lake, days, as_of_day, beginnings, chosen_engine
            )
        for signal, table in tables.items():
            rate = _rate_of_table(con, signal, table, as_of_day, truncated)
            if rate is None:
                rate = _rate_in_memory(signal, lake, as_of, truncated, chosen_engine)
            rates[signal] = rate
    return {signal: rates[signal] for signal in signals}


def _rate_of_table(
    con: Connection, signal: Declaration, table: str, as_of_day: int, truncated: bool
) -> BaseRate | None:
    """A signal's base rate from the table of its entry; null without entries."""
    is_mature = f"day + {signal.window[1] + 1} <= {as_of_day}"
    counts = (
        f"select count(*), count(*) filter ({is_mature}), count(*) filter (truncated) from {table}"
    )
    entries, mature, truncated_entries = first_row(con, counts) or (0, 0, 0)
    if not entries:
        return None
    value = f'"{signal.label}"'
    is_counted = "" if truncated else "where not truncated "
    sums_by_user = (
        f"select sum({value}) as total, count({value}) as n from {table} "
        f"{is_counted}group by user_id having count({value}) > 0"
    )
    sums = con.execute(sums_by_user).fetchnumpy()
    rate = None
    if len(sums["n"]):
        estimand = f"mean {signal.label} of mature entries"
        rate = mean_of_sums(sums["total"], sums["n"], estimand=estimand)
    return BaseRate(entries, mature, rate, truncated_entries)


def _rate_in_memory(
    signal: Declaration, lake: Lake, as_of: datetime | None, truncated: bool, engine: Engine
) -> BaseRate | LongplayError:
    """A base rate by way of `Signal.outcomes`: of signals that need the entry's own event, have no
    entries, or cannot be answered. Then the error is the one that `Signal.outcomes` raises."""
    try:
        outcomes = outcomes_of(signal, lake, as_of, engine=engine)
        counted = outcomes if truncated else outcomes.certain()
        has_value = not counted.frame["value"].is_null().all()
        rate = outcomes.base_rate(truncated=truncated) if has_value else None
        return BaseRate(len(outcomes), int(outcomes.mature.sum()), rate, outcomes.truncated)
    except LongplayError as reason:
        return reason


def outcome_tables(
    con: Connection,
    signals: Sequence[Declaration],
    lake: Lake,
    view: Lake,
    as_of: datetime,
    engine: Engine = DUCKDB,
) -> dict[Declaration, str]:
    """Create temporary tables of outcomes: per signal the table of its entry, with a column of the
    signal's label. Signals that share an entry share a table.

    Args:
        con: connected to `view`.
        signals: what to compute.
        lake: may reach further than the view. What is nowhere in it cannot be measured.
        view: what was known at `as_of`.
        as_of: the moment of knowledge, UTC.
        engine: that `con` belongs to.
    """
    for signal in signals:
        check_computable_by_day(signal)
    span = days_of_log(con, view)
    days = span or (_day(as_of), _day(as_of))
    beginnings = cache(lambda: beginnings_of(con, days, needs_ends=False))
    for signal in signals:
        check_answerable(con, signal, lake, span, beginnings, engine)
    return _compiled(con, signals, lake, days, _day(as_of), beginnings, engine)


def _day(time: datetime) -> int:
    return int(time.timestamp() // 86_400)


def _compiled(
    con: Connection,
    signals: Sequence[Declaration],
    lake: Lake,
    days: tuple[int, int],
    as_of_day: int,
    beginnings: Callable[[], Beginnings],
    engine: Engine,
) -> dict[Declaration, str]:
    """See `outcome_tables`, of signals that the log can answer."""
    if not signals or len({signal.name for signal in signals}) < len(signals):
        names = ", ".join(signal.name for signal in signals) or "none"
        raise ConfigError(
            f"outcomes: signals {names} given, expected one or more, each with a name of its own"
        )
    by_catalogue = False
    if any(reads_creators(signal) for signal in signals):
        shows_slots = any(signal.entry.is_slot for signal in signals)
        by_catalogue = prepare_creators(con, lake, slots=shows_slots)

    def tables_from(parts: Iterable[Rows]) -> dict[Entry, str]:
        """Create a table per entry, from one part of the users after the other."""
        tables: dict[Entry, str] = {}
        for part, rows in enumerate(parts):
            tables = Compiler(
                con,
                rows,
                as_of_day,
                days,
                signals,
                beginnings,
                adds=part > 0,
                dialect=engine.dialect,
            ).compute()
        return tables

    from_events = [event_rows(lake, by_catalogue, engine)]
    if engine.dialect.codes_ids and pays(signals):
        try:
            tables = tables_from(coded_rows(con, signals, lake.size(), days, by_catalogue))
        except SharedNumber:
            tables = tables_from(from_events)
    else:
        tables = tables_from(from_events)
    return {signal: tables[signal.entry] for signal in signals}


def check_computable_by_day(signal: Declaration) -> None:
    """Raise where the value depends on which event opened the entry, which daily amounts do not
    tell.

    Raises:
        ConfigError: entries are about items, and the measure about their creators.
    """
    measures = (signal.measure, signal.measure.per)
    counts_creators = any(part is not None and part.of == "creator" for part in measures)
    if (
        signal.entry.of == "item"
        and not signal.entry.is_slot
        and not signal.measure.record.over_keys
        and counts_creators
    ):
        raise ConfigError(
            f"{signal.name}: entered by item and measured by creator given: the creator is that of "
            "the entry's own event, which is not stored here; "
            "enter by creator, or use signal.outcomes(lake)"
        )


def signal_columns(con: Connection, signal: Declaration, table: str) -> list[str]:
    """SQL of one signal's columns in a table of its entry, under their short names."""
    short_names = {signal.label: "value"}
    for name in ("duration", "event", "baseline"):
        short_names[f"{signal.label} {name}"] = name
    columns = {row[0] for row in con.execute(f"select * from {table} limit 0").description}
    slot = ["decision_id", "slot"] if signal.entry.is_slot else []
    values = [f'"{column}" as {name}' for column, name in short_names.items() if column in columns]
    return [*entry_keys(signal.entry), *slot, "day", "truncated", *values]
