"""Outcomes of many signals in one pass, written to files: for logs that do not fit into memory."""

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
from longplay.signals.engine.beginnings import Beginnings, beginnings_of
from longplay.signals.engine.coded_events import SharedNumber, coded, pays
from longplay.signals.engine.compiler import Compiler
from longplay.signals.engine.dialect import Dialect, Engine
from longplay.signals.engine.duckdb import DUCKDB, copied
from longplay.signals.engine.engines import AnyEngine, engine_of
from longplay.signals.engine.entry_rows import refuse
from longplay.signals.engine.event_source import Rows
from longplay.signals.engine.parts import asks_creators, entry_keys
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

    Columns: user_id, the entry's item_id and creator_id (as far as it has them), day (days since
    1970-01-01), truncated, value (null while immature), matures_at; for exposures decision_id and
    slot, for time_to_return duration and event, for baselines baseline. The rows are those of
    `Signal.outcomes`, without the entry's event and its time.

    Args:
        signals: what is asked, each label once.
        lake: the log.
        folder: gets a file per signal; it must be new or empty.
        as_of: UTC; default the lake's watermark.
        memory_limit: of DuckDB, e.g. "4GB"; beyond it, it spills to `folder`.
        engine: what computes it, as in `Signal.outcomes`. Spark writes a folder of Parquet files in
            the place of each file; its executors must reach `folder`.
        progress: called with (signals written, signals); True or False: a line that says how far it
            is, or none; default: a line on a terminal or in a notebook.

    Returns:
        label (name@version) -> file.

    Raises:
        DataError: what `Signal.outcomes` raises.
        ConfigError: no signals, or two of one name.
    """
    check_signals("write_outcomes", signals)
    as_of_at, view = checked_as_of("write_outcomes", lake, as_of)
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    written: dict[str, Path] = {}
    chosen = engine_of(engine)
    with (
        reporting("write_outcomes", "signals", progress) as tell,
        chosen.connect(view, memory_limit, place / "spill") as con,
    ):
        tables = outcome_tables(con, signals, lake, view, as_of_at, chosen)
        for signal, table in tables.items():
            file = place / f"{signal.label}.parquet"
            matures = f"{chosen.dialect.midnight(f'day + {signal.window[1] + 1}')} as matures_at"
            rows = f"select {', '.join(own_columns(con, signal, table))}, {matures} from {table}"
            new = Path(f"{file}.new")
            con.execute(copied(rows, new))
            if file.is_dir():  # what Spark wrote before
                shutil.rmtree(file)
            new.replace(file)
            written[signal.label] = file
            tell(len(written), len(tables))
    return written


@dataclass(frozen=True)
class BaseRate:
    """What a log says of a signal: how many entries there are, and the mean of their outcomes.

    Attributes:
        entries: how many there are, and how many have matured.
        mature: how many there are, and how many have matured.
        rate: mean value of those that count; null where none has one.
        truncated: how many entries the log may begin too late for; they do not count in `rate`
            unless asked for.
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
    """The base rate of every signal, in one pass over the log without holding its outcomes; or why
    the log cannot answer.

    Equal to those of `Signal.outcomes(lake, as_of)`.

    Args:
        signals: what is asked.
        lake: the log.
        as_of: UTC; default the lake's watermark.
        memory_limit: of DuckDB, e.g. "4GB"; beyond it, it spills to a temporary folder.
        truncated: whether truncated entries count in the rates, too.
        engine: what computes it, as in `Signal.outcomes`.
    """
    chosen = engine_of(engine)
    check_signals("base_rates", signals)
    found: dict[Declaration, BaseRate | LongplayError] = {}
    as_of_at, view = checked_as_of("base_rates", lake, as_of)
    with (
        tempfile.TemporaryDirectory(prefix="longplay-") as spill,
        chosen.connect(view, memory_limit, Path(spill)) as con,
    ):
        span, until, together = days_of_log(con, view), _day(as_of_at), list[Declaration]()
        days = span or (until, until)
        beginnings = cache(lambda: beginnings_of(con, days, whole=False))
        for signal in signals:
            try:
                refuse(con, signal, lake, span, beginnings, chosen)
                by_own_key(signal)
                together.append(signal)
            except LongplayError:
                found[signal] = _in_memory(signal, lake, as_of, truncated, chosen)
        tables: dict[Declaration, str] = {}
        if together:
            tables = _compiled(con, together, lake, days, until, beginnings, chosen)
        for signal, table in tables.items():
            closed = f"day + {signal.window[1] + 1} <= {until}"
            counts = (
                f"select count(*), count(*) filter ({closed}), count(*) filter (truncated) "
                f"from {table}"
            )
            entries, mature, unsure = first_row(con, counts) or (0, 0, 0)
            if not entries:
                found[signal] = _in_memory(signal, lake, as_of, truncated, chosen)
                continue
            value, counted = f'"{signal.label}"', "" if truncated else "where not truncated "
            of_users = (
                f"select sum({value}) as total, count({value}) as n from {table} "
                f"{counted}group by user_id having count({value}) > 0"
            )
            sums = con.execute(of_users).fetchnumpy()
            estimand = f"mean {signal.label} of mature entries"
            rate = (
                mean_of_sums(sums["total"], sums["n"], estimand=estimand)
                if len(sums["n"])
                else None
            )
            found[signal] = BaseRate(entries, mature, rate, unsure)
    return {signal: found[signal] for signal in signals}


def _in_memory(
    signal: Declaration, lake: Lake, as_of: datetime | None, truncated: bool, engine: Engine
) -> BaseRate | LongplayError:
    """What needs the entry's own event, has no entries, or cannot be answered: the reason is the
    one that `Signal.outcomes` gives."""
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
    """Temporary tables of `con`, which is connected to `view`: of each signal that of its entry,
    with a column of the signal's label.

    Signals that share an entry share a table. `lake` may reach further than the view: what is
    nowhere in it cannot be measured. `engine` is that of `con`.
    """
    for signal in signals:
        by_own_key(signal)
    span = days_of_log(con, view)
    days = span or (_day(as_of), _day(as_of))
    beginnings = cache(lambda: beginnings_of(con, days, whole=False))
    for signal in signals:
        refuse(con, signal, lake, span, beginnings, engine)
    return _compiled(con, signals, lake, days, _day(as_of), beginnings, engine)


def _day(time: datetime) -> int:
    return int(time.timestamp() // 86_400)


def _compiled(
    con: Connection,
    signals: Sequence[Declaration],
    lake: Lake,
    days: tuple[int, int],
    until: int,
    beginnings: Callable[[], Beginnings],
    engine: Engine,
) -> dict[Declaration, str]:
    """See `outcome_tables`, of signals that the log can answer."""
    if not signals or len({one.name for one in signals}) < len(signals):
        names = ", ".join(one.name for one in signals) or "none"
        raise ConfigError(
            f"outcomes: signals {names} given, expected one or more, each with a name of its own"
        )
    by_catalogue = False
    if any(asks_creators(one) for one in signals):
        by_catalogue = prepare_creators(con, lake, slots=any(one.entry.is_slot for one in signals))
    made: dict[Entry, str]
    as_they_are = [event_rows(lake, by_catalogue, engine)]
    parts: Iterable[Rows] = as_they_are
    if engine.dialect.codes_ids and pays(signals):
        parts = coded(con, signals, lake.size(), days, by_catalogue)
    try:
        made = _tables_of(con, signals, parts, days, until, beginnings, engine.dialect)
    except SharedNumber:
        made = _tables_of(con, signals, as_they_are, days, until, beginnings, engine.dialect)
    return {signal: made[signal.entry] for signal in signals}


def _tables_of(
    con: Connection,
    signals: Sequence[Declaration],
    parts: Iterable[Rows],
    days: tuple[int, int],
    until: int,
    beginnings: Callable[[], Beginnings],
    dialect: Dialect,
) -> dict[Entry, str]:
    """A table per entry, from rows of one part of the users after the other."""
    made: dict[Entry, str] = {}
    for part, rows in enumerate(parts):
        made = Compiler(
            con, rows, until, days, signals, beginnings, adds=part > 0, dialect=dialect
        ).compute()
    return made


def by_own_key(signal: Declaration) -> None:
    """Raise where the value depends on the very event that opened the entry, which days do not
    know."""
    of = [
        part.of
        for part in (signal.measure, signal.measure.per)
        if part is not None and part.of is not None
    ]
    if (
        signal.entry.of == "item"
        and not signal.entry.is_slot
        and not signal.measure.record.over_keys
        and "creator" in of
    ):
        raise ConfigError(
            f"{signal.name}: entered by item and measured by creator given: whose creator is said "
            "by the entry's event, which is not kept; "
            "enter by creator, or use outcomes_of(signal, lake)"
        )


def own_columns(con: Connection, signal: Declaration, table: str) -> list[str]:
    """SQL of one signal's columns of a table of its entry, under their short names."""
    names = {signal.label: "value"} | {
        f"{signal.label} {name}": name for name in ("duration", "event", "baseline")
    }
    has = {row[0] for row in con.execute(f"select * from {table} limit 0").description}
    slots = ["decision_id", "slot"] if signal.entry.is_slot else []
    return [
        *entry_keys(signal.entry),
        *slots,
        "day",
        "truncated",
        *(f'"{column}" as {name}' for column, name in names.items() if column in has),
    ]
