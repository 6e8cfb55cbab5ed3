"""Outcomes in memory: a signal's value for every entry. Immature outcomes are null, never 0."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cache
from html import escape

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from longplay.decisions import Decisions
from longplay.errors import ConfigError, DataError
from longplay.estimate import Estimate, clustered_mean
from longplay.lake.connection import Connection
from longplay.lake.creators import prepare_creators
from longplay.lake.daily import EPOCH, first_row
from longplay.lake.lake import Lake
from longplay.lake.schema import TIME
from longplay.progress import ignore
from longplay.signals.declare.checks import described
from longplay.signals.declare.declaration import Declaration
from longplay.signals.engine.answerable import check_answerable, check_has_entries
from longplay.signals.engine.beginnings import beginnings_of, days_of_rows
from longplay.signals.engine.compiler import UNSURE_DAYS, Compiler
from longplay.signals.engine.dialect import Engine
from longplay.signals.engine.duckdb import DUCKDB
from longplay.signals.engine.entry_rows import create_entries
from longplay.signals.engine.event_source import EventRows
from longplay.signals.outcomes.daily_trace import Hits, Trace

ENTRY_HORIZON = timedelta(days=1)
ENTRY_COLUMNS = (
    "user_id",
    "item_id",
    "creator_id",
    "time",
    "day",
    "origin",
    "surface",
    "decision_id",
    "slot",
    "truncated",
)


@dataclass(frozen=True)
class Outcomes:
    """The values of a signal, one row per entry, as known at `as_of`.

    Attributes:
        signal: the declaration.
        frame: one row per entry, with the columns below.
        as_of: the moment of knowledge, UTC.
        daily: the daily amounts of the entries.
        creators: item_id and creator_id of the items that were shown or engaged with.
        rows: the entries' rows in `daily`, null where they are all of them.

    Columns of `frame`: user_id; item_id and creator_id of the entry's event (null where it has
    none); time of the entry; day (days since 1970-01-01); origin and surface of the entry's event;
    decision_id and slot that this event came from (of an exposure its own; null where the log does
    not say); truncated (the log begins less than `novel_for` days before, 28 where that is null, so
    the "first touch" is not certain; see `signals.engine.beginnings`); value (null while immature,
    or where it is unknown: a ratio of nothing, a baseline that the log does not cover, a creator
    whom nobody knows); matures_at; days_observed (whole days of the window that have closed). For
    time_to_return also duration and event, for a baseline also baseline (see docs/signals.md).
    """

    signal: Declaration
    frame: pl.DataFrame
    as_of: datetime
    daily: Trace = field(repr=False)
    creators: pl.DataFrame = field(repr=False)
    rows: NDArray[np.int64] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return self.frame.height

    @property
    def value(self) -> NDArray[np.float64]:
        """Outcome per entry, shape [N]; NaN where it is null."""
        return self.frame["value"].to_numpy().astype(float)

    @property
    def mature(self) -> NDArray[np.bool_]:
        """Whether each entry's window has closed, shape [N]."""
        return (self.frame["matures_at"] <= self.as_of).to_numpy()

    @property
    def known(self) -> NDArray[np.bool_]:
        """Whether each entry has a value, shape [N]: it is mature, and the value can be known."""
        return self.frame["value"].is_not_null().to_numpy()

    @property
    def keys(self) -> pl.Series:
        """The ids that entries are about: items or creators, or users where the signal's entry is
        about a user."""
        return self.frame[f"{self.signal.entry.of or 'user'}_id"]

    @property
    def hits(self) -> Hits:
        """The daily amounts: row of the entry, day of the window counted from 0, amount. `trace()`
        has them as a matrix."""
        return self._hits("total")

    def _hits(self, column: str) -> Hits:
        row, day, amount = self.daily.hits(column)
        if self.rows is None:
            return row, day, amount
        size = int(max(self.rows.max(initial=-1), row.max(initial=-1))) + 1
        place = np.full(size, -1, dtype=np.int64)
        place[self.rows] = np.arange(len(self.rows))
        keep = place[row] >= 0
        return place[row[keep]], day[keep], amount[keep]

    def trace(self, age: int | None = None, per: bool = False) -> sparse.csr_matrix:
        """The daily amounts, sparse [N, days of the window]; days not yet observed are 0.

        Args:
            age: only the first `age` days of the window; null: all. A younger entry has fewer (see
                `observed`).
            per: the amounts that a ratio is divided by; else those of its numerator.
        """
        row, day, amount = self._hits("per" if per else "total")
        shape = (len(self), self.signal.days)
        if age is not None:
            keep = day < age
            row = row[keep]
            day = day[keep]
            amount = amount[keep]
        return sparse.csr_matrix((amount, (row, day)), shape=shape)

    def observed(self, age: int | None = None) -> NDArray[np.int64]:
        """Number of days of the window observed per entry, shape [N], at most `age`."""
        days_N = self.frame["days_observed"].to_numpy().astype(np.int64)
        return days_N if age is None else np.minimum(days_N, age)

    def where(self, mask: NDArray[np.bool_] | pl.Series) -> Outcomes:
        """Only the entries where `mask[N]` holds."""
        mask_N = np.asarray(mask, dtype=bool)
        rows = np.flatnonzero(mask_N) if self.rows is None else self.rows[mask_N]
        return replace(self, frame=self.frame.filter(pl.Series(mask_N)), rows=rows)

    def entered(self, start: datetime | None = None, end: datetime | None = None) -> Outcomes:
        """Only entries with start <= time < end."""
        inside = pl.lit(True)
        if start is not None:
            inside = inside & (pl.col("time") >= start)
        if end is not None:
            inside = inside & (pl.col("time") < end)
        return self.where(
            self.frame.select(inside.alias("inside") & pl.col("time").is_not_null())["inside"]
        )

    @property
    def truncated(self) -> int:
        """Number of entries that may be none: the log begins so shortly before them that the "first
        touch" is not certain."""
        return int(self.frame["truncated"].sum())

    def certain(self) -> Outcomes:
        """Only the entries that are not truncated."""
        return self.where(~self.frame["truncated"]) if self.truncated else self

    def base_rate(self, *, truncated: bool = False) -> Estimate:
        """Mean value of the mature entries, clustered by user.

        Args:
            truncated: whether truncated entries count, too. In a log's first weeks a "first touch"
                is often an old habit, which goes on.

        Raises:
            DataError: no entry is mature, no mature entry has a value, or every mature entry with a
                value is truncated.
        """
        valued = self.frame.filter(pl.col("value").is_not_null())
        counted = valued if truncated else valued.filter(~pl.col("truncated"))
        if counted.is_empty():
            raise DataError(f"{self.signal.name}: {self._no_rate(valued.height)}")
        return clustered_mean(
            counted["value"].to_numpy(),
            counted["user_id"].to_numpy(),
            estimand=f"mean {self.signal.label} of mature entries",
        )

    def _no_rate(self, valued: int) -> str:
        """Why there is no base rate, where this number of entries have a value."""
        mature = int(self.mature.sum())
        if valued:
            days = self.signal.entry.novel_for or UNSURE_DAYS
            begins = f"the log begins less than {days} days before them"
            if self._nobody_came_again():
                begins = "no user was active on two days, so that nothing says when the log begins"
            return (
                f"all {valued:,} entries with a known outcome are truncated: {begins}, and what "
                "looks like a first touch may be an old habit; "
                "wait for later entries, or count them with truncated=True"
            )
        if mature:
            return (
                f"{mature:,} of {len(self):,} entries are mature, but none has a value: "
                "nothing to divide by, or a baseline before the log begins"
            )
        return (
            f"none of {len(self):,} entries is mature at {self.as_of:%Y-%m-%d}; wait, or "
            "shorten the window"
        )

    def _nobody_came_again(self) -> bool:
        """Whether it is known that no user was active on two days."""
        if self.daily.lake is None:
            return False
        with self.daily.engine.connect(self.daily.lake) as con:
            days = days_of_rows(con)
            return days is None or not beginnings_of(con, days).runs

    def maturity_curve(self, *, truncated: bool = False) -> pl.DataFrame:
        """How the outcome builds up: for each day of the window the mean value had the window ended
        there. Columns: day, value.

        Over mature entries that have a value by then.

        Args:
            truncated: whether truncated entries count, too.
        """
        if self.truncated and not truncated:
            return self.certain().maturity_curve()
        if not self.known.any():
            return pl.DataFrame(schema={"day": pl.Int64, "value": pl.Float64})
        entries = self.where(self.known)
        means = []
        for value_N in entries._values_by_day():
            value_M = value_N[~np.isnan(value_N)]
            means.append(self.signal.outcome_of(value_M).mean() if len(value_M) else None)
        return pl.DataFrame(
            {
                "day": np.arange(self.signal.days) + self.signal.window[0],
                "value": pl.Series(means, dtype=pl.Float64),
            }
        )

    def _values_by_day(self) -> Iterator[NDArray[np.float64]]:
        """Per day of the window the amounts [N] had it ended there; NaN where there is none."""
        measure = self.signal.measure
        start = self.signal.window[0]
        trace = self.trace().tocsc()
        per = self.trace(per=True).tocsc() if measure.is_ratio else None
        total_N = np.zeros(len(self))
        per_N = np.zeros(len(self))
        for day in range(self.signal.days):
            total_N = total_N + trace[:, [day]].toarray()[:, 0]
            if measure.record.is_first_day:
                first_N = self.frame["duration"].to_numpy() + start - 1
                yield np.minimum(first_N, start + day).astype(float)
            elif per is not None:
                per_N = per_N + per[:, [day]].toarray()[:, 0]
                no_value_N = np.full(len(self), np.nan)
                yield np.divide(total_N, per_N, out=no_value_N, where=per_N > 0)
            elif measure.baseline is not None:
                baseline_N = self.frame["baseline"].to_numpy().astype(float)
                yield total_N - baseline_N * (day + 1) / self.signal.days
            else:
                yield total_N

    def on(self, decisions: Decisions | pl.DataFrame) -> Shown:
        """The outcomes joined to the slots that were shown, one row per slot.

        A slot's outcome is that of an entry by the same user about the shown creator (or item)
        within one day of the slot. A slot without an entry has the value 0 once it is mature. Every
        slot matures when an entry made at the end of that day would have, whether or not there was
        one: otherwise recent slots would keep their zeros and lose their positives. A creator shown
        in several slots counts for each of them. Where the creator of the shown item is not known,
        the value is null.

        Args:
            decisions: `Decisions`, or a table with the columns of `lake.decisions`.

        Raises:
            DataError: the signal's entries are about users, so they belong to no slot.
        """
        of = self.signal.entry.of
        if of is None:
            raise DataError(
                f"{self.signal.name}: entries of kind {self.signal.entry.kind} are about a user; "
                "on() needs discovery or exposure"
            )
        frame = slates_of(f"{self.signal.name}.on", decisions)
        slots = (
            frame.select("decision_id", "context_id", "user_id", "time", "slate", "log_prob")
            .with_columns(slot=pl.int_ranges(0, pl.col("slate").list.len(), dtype=pl.Int32))
            .explode("slate", "log_prob", "slot", empty_as_null=False)
            .rename({"slate": "item_id"})
            .with_row_index("row")
            .join(self.creators, on="item_id", how="left")
        )
        key = f"{of}_id"
        entries = (
            self.frame.filter(pl.col(key).is_not_null())
            .select("user_id", key, pl.col("time").alias("entry_time"), "value")
            .sort("entry_time")
        )
        joined = slots.sort("time").join_asof(
            entries,
            left_on="time",
            right_on="entry_time",
            by=["user_id", key],
            strategy="forward",
            tolerance=ENTRY_HORIZON,
            check_sortedness=False,
        )
        entered = pl.col("entry_time").is_not_null() & (
            pl.col("entry_time") < pl.col("time") + ENTRY_HORIZON
        )
        last_day = (pl.col("time") + ENTRY_HORIZON).dt.truncate("1d")
        joined = joined.with_columns(
            entered=entered, matures_at=last_day + pl.duration(days=self.signal.window[1] + 1)
        ).with_columns(
            value=pl.when((pl.col("matures_at") <= self.as_of) & pl.col(key).is_not_null()).then(
                pl.when("entered").then(pl.col("value")).otherwise(0.0)
            )
        )
        columns = [
            "decision_id",
            "slot",
            "context_id",
            "user_id",
            "item_id",
            "creator_id",
            "time",
            "log_prob",
            "entered",
            "value",
            "matures_at",
        ]
        return Shown(self.signal, joined.sort("row").select(*columns), self.as_of)

    def __str__(self) -> str:
        text = (
            f"{self.signal.label} at {self.as_of:%Y-%m-%d %H:%M}: mature "
            f"{int(self.mature.sum()):,} of {len(self):,} entries"
        )
        if not self.mature.any():
            return text
        try:
            text += f", mean {self.base_rate()}"
        except DataError as reason:
            text += f", no mean: {str(reason).removeprefix(f'{self.signal.name}: ')}"
        if self.truncated:
            text += f"; {self.truncated:,} truncated entries left out of the mean"
        return text

    def _repr_html_(self) -> str:
        return f"<p>{escape(str(self))}</p>" + self.frame.head(10)._repr_html_()


@dataclass(frozen=True)
class Shown:
    """The outcomes of the slots that were shown; returned by `Outcomes.on`.

    Attributes:
        signal: the declaration.
        frame: one row per slot: decision_id, slot, context_id, user_id, item_id, creator_id, time,
            log_prob, entered (an entry followed within a day), value (null while immature, 0
            without an entry), matures_at.
        as_of: the moment of knowledge, UTC.
    """

    signal: Declaration
    frame: pl.DataFrame
    as_of: datetime

    def __len__(self) -> int:
        return self.frame.height

    def __str__(self) -> str:
        mature = self.frame.filter(pl.col("value").is_not_null())
        return (
            f"{self.signal.label} on {len(self):,} slots, {mature.height:,} mature; "
            f"an entry followed {self.frame['entered'].mean() or 0:.2%} of slots, value per "
            f"mature slot {mature['value'].mean() or 0:.4g}"
        )

    def _repr_html_(self) -> str:
        return f"<p>{escape(str(self))}</p>" + self.frame.head(10)._repr_html_()


def outcomes_of(
    signal: Declaration,
    lake: Lake,
    as_of: datetime | None = None,
    enrolled: pl.DataFrame | None = None,
    engine: Engine = DUCKDB,
    report: Callable[..., None] = ignore,
) -> Outcomes:
    """See `Signal.outcomes`.

    Args:
        signal: what is asked for.
        lake: the log.
        as_of: the moment of knowledge, UTC; default the lake's watermark.
        enrolled: columns user_id and time (UTC), one row per user. An `enrolment` entry opens there
            and nowhere else; entries of other kinds are what they always are. See
            `signals.outcomes.enrolled_sums`, which checks the table.
        engine: what computes it.
        report: called with (steps done, steps): the log is read, entries are found, values counted.
    """
    report(0, 3)
    as_of, view = checked_as_of(signal.name, lake, as_of)
    as_of_day = (as_of - EPOCH).days
    is_enrolled = enrolled is not None
    with engine.connect(view) as con:
        by_catalogue = prepare_creators(con, view, slots=True)
        span = days_of_log(con, view)
        if enrolled is not None:
            con.register("enrolled", enrolled.select("user_id", "time").to_arrow())
        days = span or (as_of_day, as_of_day)
        beginnings = cache(lambda: beginnings_of(con, days, needs_ends=is_enrolled))
        compiler = Compiler(
            con,
            event_rows(view, by_catalogue, engine),
            as_of_day,
            days,
            [signal],
            beginnings,
            enrolled=is_enrolled,
            dialect=engine.dialect,
        )
        compiler.plan_bitmaps({signal.entry: [signal]})
        report(1, 3)
        create_entries(con, compiler, signal.entry, by_catalogue)
        report(2, 3)
        if first_row(con, "select count(*) from entries") == (0,):
            check_has_entries(con, signal, lake, as_of)
        check_answerable(con, signal, lake, span, None if is_enrolled else beginnings, engine)
        values = compiler.values("entries", [signal])
        columns = ", ".join(ENTRY_COLUMNS)
        frame = con.sql(f"select {columns}{values.columns} from {values.source} order by row").pl()
        creators = con.sql("select * from creators order by item_id").pl()
    report(3, 3)
    frame = _with_maturity(_with_short_names(frame, signal), signal, as_of)
    entries = frame.select("user_id", "item_id", "creator_id", "day")
    return Outcomes(signal, frame, as_of, Trace(signal, view, entries, engine), creators)


def _with_short_names(frame: pl.DataFrame, signal: Declaration) -> pl.DataFrame:
    """The table with the column `LABEL` as `value`, and `LABEL duration` as `duration`."""
    return frame.rename(
        {
            name: name.removeprefix(f"{signal.label} ").replace(signal.label, "value")
            for name in frame.columns
        }
    )


def _with_maturity(frame: pl.DataFrame, signal: Declaration, as_of: datetime) -> pl.DataFrame:
    """The table with `matures_at` and `days_observed`, in the order of `Outcomes.frame`."""
    start, stop = signal.window
    window_opens = (pl.col("day") + start).cast(pl.Date).cast(TIME)
    observed_hours = (pl.lit(as_of, dtype=TIME) - window_opens).dt.total_hours()
    frame = frame.with_columns(
        pl.col("time").cast(TIME),
        matures_at=(pl.col("day") + stop + 1).cast(pl.Date).cast(TIME),
        days_observed=(observed_hours // 24).clip(0, signal.days).cast(pl.Int32),
    )
    columns = [*ENTRY_COLUMNS, "value", "matures_at", "days_observed"]
    return frame.select(*columns, *(name for name in frame.columns if name not in columns))


def checked_as_of(name: str, lake: Lake, as_of: datetime | None) -> tuple[datetime, Lake]:
    """The moment of knowledge of an outcome, and the view of the lake at it.

    Args:
        name: what error messages begin with.
        lake: the log.
        as_of: UTC; null: the lake's watermark. Then the view keeps the lake's own bounds.

    Raises:
        ConfigError: `as_of` is no time.
        DataError: it has no time zone, or lies after the lake's watermark.
    """
    check_lake(name, lake)
    if as_of is None:
        return lake.watermark, lake.fixed()
    if not isinstance(as_of, datetime):
        raise ConfigError(
            f"{name}: as_of={as_of!r} given, expected a time in UTC, e.g. datetime(2026, 3, 1, "
            "tzinfo=UTC)"
        )
    if as_of.tzinfo is None:
        raise DataError(f"{name}: as_of={as_of.isoformat()} has no time zone; give UTC")
    if as_of > lake.watermark:
        raise DataError(
            f"{name}: as_of={as_of:%Y-%m-%d %H:%M} lies after the lake's watermark "
            f"{lake.watermark:%Y-%m-%d %H:%M}; what came later is unknown"
        )
    return as_of, lake.before(as_of)


def check_lake(where: str, lake: object) -> None:
    """Raise a `ConfigError` unless it is a lake."""
    if isinstance(lake, Lake):
        return
    advice = ""
    if isinstance(lake, pl.DataFrame):
        advice = "; put its rows into one: lake = Lake.memory(); lake.append('all', events=frame)"
    raise ConfigError(f"{where}: {described(lake)} given, expected a Lake{advice}")


def check_signals(where: str, signals: object) -> None:
    """Raise a `ConfigError` unless it is a sequence of signals."""
    if isinstance(signals, Declaration) or not isinstance(signals, Sequence):
        raise ConfigError(
            f"{where}: {described(signals)} given, expected several signals: [signal]"
        )
    for signal in signals:
        if not isinstance(signal, Declaration):
            raise ConfigError(f"{where}: {described(signal)} given, expected signals alone")


def slates_of(where: str, decisions: Decisions | pl.DataFrame) -> pl.DataFrame:
    """The table of decisions, one row per slate.

    Raises:
        ConfigError: it is neither `Decisions` nor a table with slates.
    """
    frame = decisions.frame if isinstance(decisions, Decisions) else decisions
    columns = {"decision_id", "user_id", "time", "slate"}
    if isinstance(frame, pl.DataFrame) and columns <= set(frame.columns):
        return frame
    expected = "Decisions, or a table with the columns of lake.decisions"
    if isinstance(decisions, Lake):
        expected = "lake.decisions"
    raise ConfigError(f"{where}: {described(decisions)} given, expected {expected}")


def event_rows(lake: Lake, by_catalogue: bool, engine: Engine) -> EventRows:
    """The rows of a lake's events, in several parts where the engine reads large logs so.

    Args:
        lake: the log, for its size.
        by_catalogue: see `EventRows`.
        engine: what the SQL runs on.
    """
    return EventRows.of(lake.size() if engine.dialect.reads_in_parts else 0, by_catalogue)


def days_of_log(con: Connection, lake: Lake) -> tuple[int, int] | None:
    """First and last day (since 1970) of events and decisions; null without any.

    They are read from the statistics of the lake's files, which may reach further than the view of
    them in `con`; without such statistics from the log in `con`.
    """
    if (span := lake.span()) is not None:
        first, last = ((time - EPOCH).days for time in span)
        return first, last
    return days_of_rows(con)
