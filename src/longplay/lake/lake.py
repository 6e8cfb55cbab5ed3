"""The lake: events, decisions, contexts, items and users, written once and looked at as of a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal, Self

import duckdb
import polars as pl

from longplay.display import facts_html, facts_text
from longplay.errors import ConfigError, DataError
from longplay.frames import Table, polars_frame
from longplay.lake.content import content_digest
from longplay.lake.database import connected
from longplay.lake.descriptions import as_known, as_known_sql, new_descriptions
from longplay.lake.row_checks import VECTORS, refuse_long_slates, refuse_other_lengths
from longplay.lake.schema import (
    DESCRIBED,
    ORDER,
    TABLES,
    TIME_COLUMN,
    conform,
    conform_events,
    empty,
)
from longplay.lake.sift import EARLIEST, advice, quarantine_rows, sift
from longplay.lake.snapshot import ARRIVED, Snapshot
from longplay.lake.storage import FolderStore, MemoryStore, Store

SKEW = timedelta(hours=1)  # how far the clocks of a service may differ


@dataclass(frozen=True)
class Appended:
    """Result of `Lake.append`: rows per table, and rejected rows by reason. `already` says that the
    batch was in the lake before."""

    batch: str
    rows: Mapping[str, int]
    rejected: Mapping[str, int] = field(default_factory=dict)
    already: bool = False

    def __str__(self) -> str:
        if self.already:
            return f"batch {self.batch}: already in the lake, nothing written"
        rows = ", ".join(
            f"{count:,} {table}" for table, count in self.rows.items() if table != "quarantine"
        )
        bad = ", ".join(f"{count:,} {reason}" for reason, count in self.rejected.items())
        return f"batch {self.batch}: {rows or 'nothing'}" + (
            f"; quarantined {sum(self.rejected.values()):,} ({bad})" if bad else ""
        )


@dataclass(frozen=True)
class TableSource:
    """The location of a table, for an engine other than DuckDB, and the condition of the rows that
    a view shows.

    Attributes:
        table: its name.
        files: Parquet files; none in memory.
        rows: those of a lake in memory; no rows where there are files.
        columns: SQL of what to select from these files or rows.
        visible: SQL of the rows that the view shows, from `_all_TABLE`, which has all.
    """

    table: str
    files: Sequence[str]
    rows: pl.DataFrame
    columns: str
    visible: str


class Lake:
    """The event log and its companions (events, decisions, contexts, items, users), in a folder
    (Delta Lake) or in memory, with the same methods.

    Reading goes through a bounded view: `lake.before(t)`; the lake itself is the view before its
    own watermark. A view never shows what happened at or after its time, nor what arrived later.
    Of an item or user whose row was replaced it shows the row that held when the view was made.

    >>> lake = Lake.memory()
    >>> noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    >>> rows = pl.DataFrame({"event_id": ["e1"], "user_id": ["u1"], "item_id": ["i1"]})
    >>> rows = rows.with_columns(kind=pl.lit("play"), time=pl.lit(noon, pl.Datetime("us", "UTC")))
    >>> print(lake.append("day-1", events=rows))
    batch day-1: 1 events
    >>> lake.before(noon).events.height
    0
    """

    def __init__(
        self,
        store: Store,
        snapshot: Snapshot | None = None,
        until: datetime | None = None,
        known_at: datetime | None = None,
    ) -> None:
        self._store = store
        self._fixed = snapshot
        self._until = until
        self._known_at = known_at
        self._cache: dict[str, tuple[tuple[int, ...], pl.DataFrame]] = {}

    @classmethod
    def memory(cls) -> Self:
        """An empty lake that lives as long as the object."""
        return cls(MemoryStore())

    @classmethod
    def open(cls, folder: str | Path) -> Self:
        """The lake in `folder`; an absent or empty folder is an empty lake."""
        return cls(FolderStore(Path(folder)))

    # -- looking ---------------------------------------------------------------------------------

    def before(self, t: datetime, known_at: datetime | None = None) -> Lake:
        """The lake as it was known: rows with time < `t` that had arrived by `known_at` (default
        `t`).

        Both are UTC datetimes. A view of a view only narrows. The view is fixed: later appends do
        not show.
        """
        t = _utc(t, "t")
        arrived_by = t if known_at is None else _utc(known_at, "known_at")
        if self._until is not None:
            t = min(t, self._until)
        if self._known_at is not None:
            arrived_by = min(arrived_by, self._known_at)
        return Lake(self._store, self._snapshot(), t, arrived_by)

    def fixed(self) -> Lake:
        """The lake as it is now, with the same bounds: later appends do not show."""
        return Lake(self._store, self._snapshot(), self._until, self._known_at)

    @property
    def watermark(self) -> datetime:
        """The time up to which the log is complete: the view's bound, else what the last batch
        declared."""
        stored = self._snapshot().watermark
        if stored is None:
            raise DataError("lake: it is empty, so it has no watermark; append a batch first")
        return stored if self._until is None else min(self._until, stored)

    @property
    def key(self) -> tuple[int, tuple[int, ...], datetime | None, datetime | None]:
        """Identifies what this view shows, for caches."""
        return (self._store.id, self._snapshot().version, self._until, self._known_at)

    @property
    def events(self) -> pl.DataFrame:
        """Visible events, oldest first; columns of `schema.TABLES["events"]`."""
        return self._frame("events")

    @property
    def decisions(self) -> pl.DataFrame:
        """Visible decisions, oldest first."""
        return self._frame("decisions")

    @property
    def contexts(self) -> pl.DataFrame:
        """Visible contexts, oldest first."""
        return self._frame("contexts")

    @property
    def items(self) -> pl.DataFrame:
        """The catalogue as it was known at the view's time, by item id. Items added later are not
        in it.

        Of an item that was described several times, the description that had arrived last.
        """
        return self._frame("items")

    @property
    def users(self) -> pl.DataFrame:
        """What the service knew of its users at the view's time, by user id: attributes and
        vectors.

        Of a user that was described several times, the description that had arrived last. Users
        that no description names are not in it, whatever they did.
        """
        return self._frame("users")

    def descriptions(self, table: str) -> pl.DataFrame:
        """Every description of items or users that this view may see, by id and arrival; `items`
        and `users` show the last of each. `added_at` is the earliest that was known at its arrival.

        Args:
            table: "items" or "users".
        """
        if table not in DESCRIBED:
            raise ConfigError(
                f"descriptions: {table!r} given, expected one of {', '.join(DESCRIBED)}"
            )
        snapshot = self._snapshot()
        with snapshot.reading():
            tests = self._tests(table, snapshot)
            arrived = snapshot.scan(table).filter(tests.pop("ingested_at", True))
            earliest = pl.col("added_at").cum_min().over(DESCRIBED[table])
            ordered = arrived.sort(DESCRIBED[table], "ingested_at", maintain_order=True)
            return ordered.with_columns(earliest).filter(*tests.values()).collect()

    @property
    def quarantine(self) -> pl.DataFrame:
        """Rows that were refused, with batch, line, reason and the row itself as JSON."""
        return self._frame("quarantine")

    @property
    def on_disk(self) -> bool:
        """Whether the lake is in a folder, not in memory."""
        return isinstance(self._store, FolderStore)

    def files(self, table: str, between: tuple[datetime, datetime] | None = None) -> list[str]:
        """Parquet files of a table, ignoring the bounds of this view; none in memory. A batch adds
        files and changes none.

        Args:
            table: its name.
            between: leaves out files that hold no row from the first of these times until before
                the second, where all of a table's files say so.
        """
        snapshot = self._snapshot()
        files = snapshot.paths(table)
        statistics = snapshot.statistics.get(table) if between is not None else None
        if statistics is None or between is None:
            return files
        cut = timedelta(milliseconds=1)  # statistics of files are cut to the millisecond
        near = set(
            statistics.filter(pl.col("first") < between[1], pl.col("last") > between[0] - cut)[
                "name"
            ]
        )
        return [file for file in files if Path(file).name in near]

    def span(self) -> tuple[datetime, datetime] | None:
        """First and last time in the files of events and decisions, to the millisecond, from the
        files' statistics. The bounds of this view are ignored.

        Null in memory, for an empty lake, and where a file has no statistics.
        """
        snapshot = self._snapshot()
        tables = [table for table in ("events", "decisions") if snapshot.files.get(table)]
        statistics = snapshot.statistics
        if not tables or not set(tables) <= statistics.keys():
            return None
        first, last = (
            pl.concat(statistics[table] for table in tables)
            .select(pl.col("first").min(), pl.col("last").max())
            .row(0)
        )
        return first, last

    def size(self) -> int:
        """Number of stored events, ignoring the bounds of this view; 0 where the files have no
        statistics."""
        snapshot = self._snapshot()
        if snapshot.files.get("events"):
            if "events" in snapshot.statistics:
                return int(snapshot.statistics["events"]["rows"].sum())
            return 0
        return snapshot.frames.get("events", empty("events")).height

    @contextmanager
    def connect(
        self, threads: int | None = None, memory_limit: str | None = None, spill: Path | None = None
    ) -> Iterator[duckdb.DuckDBPyConnection]:
        """A DuckDB connection with one view per table, bounded like this lake, and one without
        bounds, such as `_all_events`.

        Args:
            threads: of DuckDB; default its own choice.
            memory_limit: e.g. "4GB", of DuckDB's buffers; beyond it, it spills to the folder
                `spill`.
            spill: folder for what does not fit into memory.

        Raises:
            ConfigError: see `database.connected`, whose settings are locked.
        """
        snapshot = self._snapshot()
        con = connected(threads, memory_limit, spill)
        try:
            for table in TABLES:
                snapshot.register(con, table, f"_all_{table}")
                con.execute(f"create view {table} as {self._visible_sql(table, snapshot)}")
            with snapshot.reading():
                yield con
        finally:
            con.close()

    @contextmanager
    def sources(self) -> Iterator[list[TableSource]]:
        """Location of every table, for an engine other than DuckDB.

        Raises:
            DataError: the engine raised an OSError, and files are missing or damaged.
        """
        snapshot = self._snapshot()
        with snapshot.reading():
            yield [
                TableSource(
                    table,
                    snapshot.paths(table),
                    snapshot.frames.get(table, empty(table)),
                    ARRIVED if table == "items" else "*",
                    self._visible_sql(table, snapshot),
                )
                for table in TABLES
            ]

    def _snapshot(self) -> Snapshot:
        return self._fixed if self._fixed is not None else self._store.snapshot()

    def _bounds(
        self, table: str, snapshot: Snapshot
    ) -> list[tuple[str, Literal["<", "<="], datetime]]:
        """Conditions of every visible row, as (column, sign, bound). No other code decides what
        a view hides."""
        if table not in TIME_COLUMN:
            return []
        bounds: list[tuple[str, Literal["<", "<="], datetime]] = []
        until = self._until if self._until is not None else snapshot.watermark
        if until is not None:
            bounds.append((TIME_COLUMN[table], "<", until))
        if self._known_at is not None:
            # a table without arrival times cannot have been known before it happened
            bounds.append(
                (
                    "ingested_at" if "ingested_at" in TABLES[table] else TIME_COLUMN[table],
                    "<=",
                    self._known_at,
                )
            )
        return bounds

    def _visible_sql(self, table: str, snapshot: Snapshot) -> str:
        """SQL of the rows of a table that this view shows."""
        tests = {
            column: f"{column} {sign} {_sql_time(bound)}"
            for column, sign, bound in self._bounds(table, snapshot)
        }
        source = f"_all_{table}"
        if table in DESCRIBED and table not in snapshot.described_once:
            source = f"({as_known_sql(source, table, tests.pop('ingested_at', None))})"
        where = " where " + " and ".join(tests.values()) if tests else ""
        return f"select * from {source}{where}"

    def _tests(self, table: str, snapshot: Snapshot) -> dict[str, pl.Expr]:
        """The conditions of `_bounds` by column."""
        return {
            column: pl.col(column) < bound if sign == "<" else pl.col(column) <= bound
            for column, sign, bound in self._bounds(table, snapshot)
        }

    def _visible(self, table: str, snapshot: Snapshot) -> pl.LazyFrame:
        """The rows of a table that this view shows."""
        rows = snapshot.scan(table)
        tests = self._tests(table, snapshot)
        if table in DESCRIBED:
            rows = as_known(rows.filter(tests.pop("ingested_at", True)), table)
        return rows.filter(*tests.values())

    def _frame(self, table: str) -> pl.DataFrame:
        snapshot = self._snapshot()
        if table not in self._cache or self._cache[table][0] != snapshot.version:
            visible = self._visible(table, snapshot)
            with snapshot.reading():
                rows = visible.sort(ORDER[table], maintain_order=True).collect()
            self._cache[table] = (snapshot.version, rows)
        return self._cache[table][1]

    def _facts(self) -> dict[str, str]:
        """Text about the lake's content, from statistics alone: no row of a table in a folder is
        read."""
        snapshot = self._snapshot()
        unit = "rows" if self._until is None else "rows stored"
        facts = {}
        for table in TABLES:
            in_files = sum(file.rows for file in snapshot.files.get(table, {}).values())
            in_memory = snapshot.frames[table].height if table in snapshot.frames else 0
            if in_files or in_memory:
                facts[table] = f"{in_files + in_memory:,} {unit}"
        watermark = snapshot.watermark
        facts["complete before"] = "empty" if watermark is None else f"{watermark:%Y-%m-%d %H:%M}"
        if self._until is not None:
            facts["this view shows"] = f"what happened before {self._until:%Y-%m-%d %H:%M}"
        if self._known_at is not None:
            facts["and had arrived by"] = f"{self._known_at:%Y-%m-%d %H:%M}"
        return facts

    def _title(self) -> str:
        place = self._store.path if isinstance(self._store, FolderStore) else "memory"
        return f"{'Lake' if self._until is None else 'View of a lake'} in {place}"

    def __repr__(self) -> str:
        try:
            return facts_text(self._title(), self._facts())
        except DataError as error:
            return f"{self._title()}: {error}"

    def _repr_html_(self) -> str:
        try:
            return facts_html(self._title(), self._facts())
        except DataError as error:
            return facts_html(self._title(), {"cannot be read": str(error)})

    # -- writing ---------------------------------------------------------------------------------

    def append(
        self,
        batch: str,
        *,
        events: Table | None = None,
        decisions: Table | None = None,
        contexts: Table | None = None,
        items: Table | None = None,
        users: Table | None = None,
        watermark: datetime | None = None,
        now: datetime | None = None,
        skew: timedelta = SKEW,
        earliest: datetime = EARLIEST,
        max_bad_share: float = 0.05,
        rejected: Table | None = None,
    ) -> Appended:
        """Write one batch: all of it or nothing, and only once per `batch` id.

        Tables are frames of polars (lazy ones too), pandas or pyarrow. Nothing about them is
        guessed: values that do not convert exactly to the columns' types are refused, with the
        expression that converts them (see `schema.conform`). An id is text: 12345, 12345.0 and
        "12345" are one id (see `longplay.ids`).

        Args:
            batch: names this batch for good; a second append of the same id and content writes
                nothing, of other content is refused.
            events: rows to add. Events may carry a column `line`, their line in the source, which
                the quarantine then names; without it a row's position from 1 is its line.
            decisions: rows to add.
            contexts: rows to add.
            items: descriptions; of each item the one that arrived last holds, and the earliest
                `added_at`. A description without an arrival (`ingested_at`) is known just after the
                lake's watermark, in the lake's first catalogue from `added_at` on.
            users: descriptions of what the service knows of users, under the rules of `items`.
            watermark: the log is complete before this time; default: just after the last event or
                decision.
            now: events later than this are set aside as future, contexts and decisions refuse the
                batch; default: the clock and `skew`, or a watermark beyond it, declared now or
                before, as simulated services have.
            skew: how far the service's clocks may be ahead of this machine's.
            earliest: events before this are set aside: most are a missing time that somebody filled
                in.
            max_bad_share: the batch is refused when a larger share of its events is bad.
            rejected: rows an adapter already set aside, in the shape of
                `schema.TABLES["quarantine"]` without `batch`; they count as bad events.

        Raises:
            DataError: a table does not fit its schema, too many bad rows, or the id of a batch with
                other content. Nothing was written.
        """
        if self._until is not None:
            raise DataError("append: this is a view made by before(); append to the lake itself")
        if not batch:
            raise DataError(
                "append: batch='' given, expected a name that stays the same when the batch is "
                "retried"
            )
        described = {
            table: polars_frame(rows, table)
            for table, rows in (("items", items), ("users", users))
            if rows is not None
        }
        optional_tables = {"decisions": decisions, "contexts": contexts, **described}
        frames = {
            table: conform(frame, table)
            for table, frame in optional_tables.items()
            if frame is not None
        }
        refuse_long_slates(frames.get("decisions"), frames.get("contexts"))
        candidates, lines = (None, None) if events is None else conform_events(events)
        if rejected is None:
            aside = None
        else:
            aside = conform(
                polars_frame(rejected, "rejected").with_columns(batch=pl.lit(batch)), "quarantine"
            )
        latest = _latest(now, skew, watermark, self._store.snapshot().watermark)
        for table in ("decisions", "contexts"):
            if table in frames:
                _refuse_future(frames[table], table, latest, batch)
        optional = {"events": candidates, "rejected": aside}
        content = content_digest(
            frames | {name: frame for name, frame in optional.items() if frame is not None},
            watermark,
        )
        with self._store.writing():
            batches = self._store.batches()
            if batch in batches:
                if batches[batch] not in (None, content):
                    raise DataError(
                        f"batch {batch}: already in the lake with other content; a batch is "
                        "written once. Nothing was written; "
                        "give what is new another batch id"
                    )
                return Appended(batch, {}, already=True)
            for table in ("decisions", "contexts"):
                if table in frames:
                    self._refuse_doubles(frames[table], table, batch)
            refuse_long_slates(frames.get("decisions"), self._stored_slots(frames.get("decisions")))
            refused = empty("quarantine") if aside is None else aside
            if candidates is not None:
                frames["events"], bad = sift(
                    candidates,
                    self._known("events", candidates["event_id"]),
                    latest,
                    lines,
                    _utc(earliest, "earliest"),
                )
                refused = pl.concat([refused, quarantine_rows(bad, batch)]).sort(
                    "line", maintain_order=True
                )
            reasons = _count_reasons(refused, frames.get("events"), max_bad_share, batch)
            if refused.height:
                frames["quarantine"] = refused
            snapshot = self._store.snapshot()
            for table, rows in described.items():
                with snapshot.reading():
                    frames[table] = new_descriptions(
                        frames[table],
                        snapshot.scan(table),
                        table,
                        snapshot.watermark,
                        "ingested_at" in rows.columns,
                    )
            for table, column in VECTORS.items():
                if table in frames and frames[table][column].null_count() < frames[table].height:
                    with snapshot.reading():
                        stored_length = snapshot.vector_length(table)
                    refuse_other_lengths(frames[table], table, stored_length)
            self._store.commit(batch, frames, self._next_watermark(frames, watermark), content)
        return Appended(batch, {table: frame.height for table, frame in frames.items()}, reasons)

    def _known(self, table: str, ids: pl.Series) -> pl.Series:
        """Those of `ids`, a table's id column, that the lake already has."""
        snapshot = self._store.snapshot()
        if snapshot.seq == 0 or ids.is_empty():
            return ids.clear()
        with snapshot.reading(), connected() as con:
            snapshot.register(con, table, "stored")
            con.register("given", ids.to_frame().to_arrow())
            return con.sql(
                f"select distinct {ids.name} from given semi join stored using ({ids.name})"
            ).pl()[ids.name]

    def _stored_slots(self, decisions: pl.DataFrame | None) -> pl.DataFrame | None:
        """Columns context_id and slots of stored contexts that these decisions refer to. None
        without decisions."""
        snapshot = self._store.snapshot()
        if decisions is None or decisions.is_empty() or snapshot.seq == 0:
            return None
        with snapshot.reading(), connected() as con:
            snapshot.register(con, "contexts", "stored")
            con.register("given", decisions.select("context_id").unique().to_arrow())
            return con.sql(
                "select context_id, slots from stored semi join given using (context_id)"
            ).pl()

    def _refuse_doubles(self, frame: pl.DataFrame, table: str, batch: str) -> None:
        """Raise when an id is given twice or already stored. A doubled decision would double its
        slots."""
        ids = frame[f"{table[:-1]}_id"]
        doubled = pl.concat([ids.filter(ids.is_duplicated()), self._known(table, ids)]).sort()
        if len(doubled):
            raise DataError(
                f"batch {batch}: {doubled.n_unique():,} of {frame.height:,} {table} have an id "
                "that is given twice or already in the lake, first "
                f"{doubled[0]!r}; expected every {ids.name} to be new. Nothing was written; to "
                "retry a batch, give it its first name"
            )

    def _next_watermark(
        self, frames: Mapping[str, pl.DataFrame], declared: datetime | None
    ) -> datetime | None:
        times = [self._store.snapshot().watermark]
        if declared is not None:
            times.append(_utc(declared, "watermark"))
        else:
            for table in ("events", "decisions"):
                last = frames[table]["time"].max() if table in frames else None
                if isinstance(last, datetime):
                    times.append(last + timedelta(microseconds=1))
        candidates = [time for time in times if time is not None]
        return max(candidates) if candidates else None


def _latest(
    now: datetime | None, skew: timedelta, declared: datetime | None, stored: datetime | None
) -> datetime:
    """The latest time that a row may have, from the watermarks that are declared and stored.

    A watermark declared beyond the clock says that the log is simulated, and no row moves it.
    """
    if now is not None:
        return _utc(now, "now")
    clock = datetime.now(UTC) + skew
    if declared is not None and _utc(declared, "watermark") > clock:
        return datetime.max.replace(tzinfo=UTC)
    return clock if stored is None else max(clock, stored)


def _refuse_future(frame: pl.DataFrame, table: str, latest: datetime, batch: str) -> None:
    """Raise where a row is later than the clock allows. It would move the watermark past data
    still to come."""
    future = frame.filter(pl.col("time") > latest)
    if future.height:
        raise DataError(
            f"batch {batch}: {future.height:,} of {frame.height:,} {table} are later than "
            f"{latest:%Y-%m-%d %H:%M} UTC, first {future['time'][0]}. "
            "Nothing was written; mend their clock, or give `now`"
        )


def _count_reasons(
    refused: pl.DataFrame, good: pl.DataFrame | None, max_bad_share: float, batch: str
) -> dict[str, int]:
    """Rejected rows by reason, most frequent first. Raises where they exceed the allowed share."""
    if refused.is_empty():
        return {}
    counts = refused.group_by("reason").len().sort("len", "reason", descending=[True, False])
    reasons = dict(zip(counts["reason"], counts["len"], strict=True))
    total = refused.height + (0 if good is None else good.height)
    if refused.height > max_bad_share * total:
        listed = ", ".join(f"{count:,} {reason}" for reason, count in reasons.items())
        example = refused.row(0, named=True)
        hint = f" ({words})" if (words := advice(reasons)) else ""
        raise DataError(
            f"batch {batch}: {refused.height:,} of {total:,} events are bad "
            f"({refused.height / total:.1%}; {listed}), "
            f"allowed {max_bad_share:.1%}. First: line {example['line']}, {example['reason']}: "
            f"{example['row'][:200]}. "
            f"Nothing was written; mend the source{hint}, or raise max_bad_share if this is "
            "expected"
        )
    return reasons


def _utc(t: datetime, name: str) -> datetime:
    if t.tzinfo is None:
        raise DataError(
            f"{name}: {t.isoformat()} has no time zone; give UTC, e.g. datetime(..., tzinfo=UTC)"
        )
    return t.astimezone(UTC)


def _sql_time(t: datetime) -> str:
    return f"timestamptz '{t.astimezone(UTC).strftime('%Y-%m-%d %H:%M:%S.%f')}+00'"
