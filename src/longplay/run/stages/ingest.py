"""Stage `ingest`: a log of your own becomes the run's lake."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import polars as pl
from pydantic import Field, model_validator

from longplay.errors import ConfigError, DataError
from longplay.files import tree_digest
from longplay.lake import Lake
from longplay.lake.adapters import (
    Source,
    read_decisions,
    read_items,
    read_lake,
    read_open_bandit,
    read_retail,
    read_table,
    read_users,
)
from longplay.lake.adapters.logged_slates import SLATE_REASONS, dated, with_creators
from longplay.lake.adapters.record_files import CSV, PARQUET, find_files
from longplay.lake.adapters.user_files import dated_users
from longplay.lake.glance import glance
from longplay.lake.sift import EARLIEST
from longplay.results.log_figures import IngestResult, LogResult, LogSource
from longplay.run.engine import Stage, Work
from longplay.run.tables import Configuration, Share, Table, midnight

LengthUnit = Literal["us", "ms", "s", "min"]
_DAY = timedelta(days=1)


class FileTable(Table):
    """One kind of rows in files of its own, with a column mapping."""

    path: str  # relative to the run.toml
    columns: dict[str, str] = {}
    constants: dict[str, str] = {}
    time_format: str | None = None
    time_zone: str = "UTC"
    separator: Annotated[str, Field(min_length=1, max_length=1)] | None = (
        None  # of CSV files; default: found
    )
    encoding: str | None = None  # of CSV files; default: found


class ItemsTable(FileTable):
    """The catalogue, where it has files of its own."""

    length_unit: LengthUnit = "s"


class UsersTable(FileTable):
    """What the service knows of its users, where it is written down."""


class DecisionsTable(FileTable):
    """What was shown, with propensities, where it was logged."""


class Ingest(FileTable):
    """A log of your own: `format = "table"` with a column mapping, or a named adapter."""

    format: Literal["table", "retail", "open-bandit", "lake"] = "table"
    kinds: dict[str, str] = {}
    origins: dict[str, str] = {}
    seconds_unit: LengthUnit = "s"
    length_unit: LengthUnit = "s"
    items: ItemsTable | None = None
    users: UsersTable | None = None
    decisions: DecisionsTable | None = None
    max_bad_share: Share = 0.05
    closed_through: date | None = (
        None  # the last day that counts as complete; default: the moment of the last event
    )
    earliest: date = EARLIEST.date()  # events before this day are set aside
    skew: Annotated[float, Field(ge=0)] = (
        1.0  # hours that the service's clocks may be ahead of this machine's
    )

    younger: ClassVar[frozenset[str]] = frozenset(
        {
            "separator",
            "encoding",
            "origins",
            "seconds_unit",
            "length_unit",
            "items",
            "users",
            "decisions",
            "earliest",
            "skew",
        }
    )

    @model_validator(mode="after")
    def _of_one_format(self) -> Ingest:
        if self.format == "table":
            return self
        read = {"format", "path", "max_bad_share", "closed_through", "earliest", "skew"}
        if unread := sorted(name for name in self.model_fields_set if name not in read):
            raise ValueError(
                f"{unread[0]} is given, but format = {self.format!r} has columns of its own; "
                "leave it out, or set format = 'table'"
            )
        return self


def run(work: Work) -> IngestResult:
    """Read the log through its adapter into a lake on disk."""
    table = work.config.of(Ingest)
    bar = work.bar("reading")
    bar(0, 3)
    source = read_source(table, work.base)
    _refuse_bad_slates(source, table.max_bad_share)
    if not source.rejected.height and not sum(
        source.tables[name].height for name in ("events", "decisions") if name in source.tables
    ):
        raise DataError(
            f"ingest.path: {table.path} holds no event: {source.rows:,} rows; give a log in which "
            "something happens"
        )
    bar(1, 3)
    lake = Lake.open(work.folder / "lake")
    if table.closed_through is None:
        closed = source.complete_until
    else:
        closed = midnight(table.closed_through) + _DAY
    tables = source.tables
    appended = lake.append(
        "ingest",
        events=tables.get("events"),
        decisions=tables.get("decisions"),
        contexts=tables.get("contexts"),
        items=tables.get("items"),
        users=tables.get("users"),
        rejected=source.rejected,
        watermark=closed,
        now=None if work.now is None else work.now + timedelta(hours=table.skew),
        earliest=midnight(table.earliest),
        max_bad_share=table.max_bad_share,
    )
    bar(2, 3)
    notes = list(source.notes)
    if table.closed_through is not None:
        last = lake.events["time"].max()
        note = ""
        if isinstance(last, datetime):
            note = (
                f"{table.closed_through} is taken as complete (closed_through); the last event is "
                f"at {last:%H:%M} UTC"
            )
        notes.append(note)
    result = IngestResult(
        **vars(glance(lake)),
        source=LogSource(table.format, Path(table.path).name, source.rows),
        rejected=dict(appended.rejected),
        notes=tuple(notes),
        has_origin=source.has_origin,
        has_decisions=source.has_decisions,
    )
    bar(3, 3)
    return result


def source_path(config: Configuration, base: Path) -> Path:
    """The path of the configuration's log."""
    return _existing("ingest.path", base / config.of(Ingest).path)


def source_digest(config: Configuration, base: Path) -> dict[str, str]:
    """SHA-256 of the files of the log, by kind of table."""
    digests = {"file": _digest(source_path(config, base))}
    ingest = config.of(Ingest)
    companions = {"items": ingest.items, "users": ingest.users, "decisions": ingest.decisions}
    for name, table in companions.items():
        if table is not None:
            digests[name] = _digest(_existing(f"ingest.{name}.path", base / table.path))
    return digests


def _existing(key: str, path: Path) -> Path:
    """The file, folder or pattern at `path`; else the only file of that name with another readable
    ending."""
    if path.exists() or set("*?[") & set(str(path)):
        return path
    candidates = [path.with_name(path.stem + ending) for ending in (*CSV, *PARQUET)]
    existing = [candidate for candidate in candidates if candidate.is_file()]
    if path.suffix and len(existing) == 1:
        return existing[0]
    raise ConfigError(
        f"{key}: {path} does not exist; paths are relative to the run.toml. `longplay init LOG` "
        "writes one for a log that is there"
    )


def _digest(path: Path) -> str:
    if path.exists():
        return tree_digest(path)
    root, files = find_files(path)
    return hashlib.sha256(
        "".join(f"{file.relative_to(root)} {tree_digest(file)}\n" for file in files).encode()
    ).hexdigest()


def read_source(table: Ingest, base: Path) -> Source:
    """The log that [ingest] describes, as its adapters read it.

    Args:
        table: the table [ingest].
        base: where relative paths start.
    """
    path = _existing("ingest.path", base / table.path)
    if table.format == "retail":
        return read_retail(path)
    if table.format == "open-bandit":
        return read_open_bandit(path)
    if table.format == "lake":
        return read_lake(path)
    how = {
        "constants": table.constants,
        "time_format": table.time_format,
        "time_zone": table.time_zone,
    }
    source = read_table(
        path,
        table.columns,
        **how,
        kinds=table.kinds or None,
        origins=table.origins or None,
        separator=table.separator,
        encoding=table.encoding,
        seconds_unit=table.seconds_unit,
        length_unit=table.length_unit,
        earliest=midnight(table.earliest),
    )
    if table.decisions is not None:
        source = source.joined(
            read_decisions(
                *_layout("ingest.decisions.path", table.decisions, base), **_how(table.decisions)
            )
        )
    if table.items is not None:
        layout = _layout("ingest.items.path", table.items, base)
        catalogue = read_items(*layout, **_how(table.items), length_unit=table.items.length_unit)
        assert catalogue.items is not None  # it has read them
        items = dated(catalogue.items, source.events, source.decisions)
        source = with_creators(source.joined(replace(catalogue, items=items)))
    if table.users is not None:
        described = read_users(
            *_layout("ingest.users.path", table.users, base), **_how(table.users)
        )
        assert described.users is not None  # it has read them
        users, notes = dated_users(described.users, source.events)
        source = source.joined(replace(described, users=users, notes=(*described.notes, *notes)))
    return source


def _layout(key: str, table: FileTable, base: Path) -> tuple[Path, dict[str, str]]:
    return _existing(key, base / table.path), table.columns


def _how(table: FileTable) -> dict[str, Any]:
    names = ("constants", "time_format", "time_zone", "separator", "encoding")
    return {name: getattr(table, name) for name in names}


def _refuse_bad_slates(source: Source, max_bad_share: float) -> None:
    """Raise an error where too many slates were set aside: the rest would not be what users were
    shown."""
    if source.decisions is None:
        return
    bad = source.rejected.filter(pl.col("reason").is_in(SLATE_REASONS))
    total = bad.height + int(source.decisions["slate"].list.len().sum())
    if bad.height > max_bad_share * total:
        counts = bad.group_by("reason").len().sort("len", "reason", descending=[True, False])
        listed = ", ".join(f"{count:,} {reason}" for reason, count in counts.iter_rows())
        first = bad.row(0, named=True)
        raise DataError(
            f"ingest.decisions: {bad.height:,} of {total:,} slots are in slates that cannot be "
            f"used ({listed}), allowed {max_bad_share:.1%}. "
            f"First: line {first['line']}, {first['reason']}: {first['row'][:200]}. Mend the "
            "source, or raise max_bad_share if this is expected"
        )


def _depends(config: Configuration, base: Path) -> Any:
    return {"ingest": config.of(Ingest).hashed(), **source_digest(config, base)}


def log_line(result: LogResult) -> str:
    """One line on the size of the log and the rows that were set aside."""
    bad = f", {result.quarantined:,} rows quarantined" if result.quarantined else ""
    return f"{result.events:,} events of {result.users:,} users, {result.items:,} items{bad}"


STAGE = Stage(
    name="ingest",
    order=10,
    version=3,
    help="Read a log into the lake; bad rows go to quarantine with reason and line.",
    table=Ingest,
    presence="optional",
    applies=lambda config: config.find(Ingest) is not None,
    depends=_depends,
    run=run,
    line=log_line,
    settles=True,
)
