"""The stages that make the log: ingest one, or simulate one; and how later stages look at it."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

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
)
from longplay.lake.adapters.logged_slates import SLATE_REASONS, dated, with_creators
from longplay.lake.adapters.record_files import CSV, PARQUET, find_files
from longplay.lake.glance import glance
from longplay.policies.simple import Popular
from longplay.run.config import FileTable, Ingest, RunConfig, midnight
from longplay.run.engine import Work
from longplay.world import World

_DAY = timedelta(days=1)


def lake_of(work: Work) -> Lake:
    """The run's whole log."""
    return Lake.open(work.places["simulate" if work.config.simulate else "ingest"] / "lake")


def past_of(work: Work) -> Lake:
    """The log as it was known when training ends."""
    return lake_of(work).before(work.config.split.trained)


def source_path(config: RunConfig, base: Path) -> Path:
    """Where the configuration's log lies."""
    if config.ingest is None:
        raise ConfigError("ingest: this run has no [ingest] table")
    return _existing("ingest.path", base / config.ingest.path)


def source_digest(config: RunConfig, base: Path) -> dict[str, str]:
    """SHA-256 of the files of the log, by what they hold."""
    digests = {"file": _digest(source_path(config, base))}
    for name in ("items", "decisions"):
        table = getattr(config.ingest, name)
        if table is not None:
            digests[name] = _digest(_existing(f"ingest.{name}.path", base / table.path))
    return digests


def _existing(key: str, path: Path) -> Path:
    """The file, folder or pattern at `path`; where there is none, the one file of that name with
    another ending that is read."""
    if path.exists() or set("*?[") & set(str(path)):
        return path
    others = [path.with_name(path.stem + ending) for ending in (*CSV, *PARQUET)]
    there = [other for other in others if other.is_file()]
    if path.suffix and len(there) == 1:
        return there[0]
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


def ingest(work: Work) -> dict[str, Any]:
    """Read the log through its adapter into a lake on disk."""
    table = work.config.ingest
    assert table is not None  # the stage is only there with the table
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
    closed = (
        source.complete_until
        if table.closed_through is None
        else midnight(table.closed_through) + _DAY
    )
    tables = source.tables
    appended = lake.append(
        "ingest",
        events=tables.get("events"),
        decisions=tables.get("decisions"),
        contexts=tables.get("contexts"),
        items=tables.get("items"),
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
        notes.append(
            f"{table.closed_through} is taken as complete (closed_through); the last event is at "
            f"{last:%H:%M} UTC"
            if isinstance(last, datetime)
            else ""
        )
    result = glance(lake) | {
        "source": {"format": table.format, "name": Path(table.path).name, "rows": source.rows},
        "rejected": dict(appended.rejected),
        "notes": notes,
        "has_origin": source.has_origin,
        "has_decisions": source.has_decisions,
    }
    bar(3, 3)
    return result


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
    return source


def _layout(key: str, table: FileTable, base: Path) -> tuple[Path, dict[str, str]]:
    return _existing(key, base / table.path), table.columns


def _how(table: FileTable) -> dict[str, Any]:
    names = ("constants", "time_format", "time_zone", "separator", "encoding")
    return {name: getattr(table, name) for name in names}


def _refuse_bad_slates(source: Source, max_bad_share: float) -> None:
    """Raise where more slates than allowed were set aside: what is left would not be what was
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


def simulate(work: Work) -> dict[str, Any]:
    """Simulate a service and write its log to a lake on disk."""
    world, lake = world_of(work)
    table = work.config.simulate
    assert table is not None  # world_of has said so
    on_disk = Lake.open(work.folder / "lake")
    on_disk.append(
        "simulate",
        events=lake.events,
        decisions=lake.decisions,
        contexts=lake.contexts,
        items=lake.items,
        watermark=world.now,
        now=world.now,
    )
    return glance(on_disk) | {
        "source": {
            "format": "simulated world",
            "name": f"seed {work.config.run.seed}",
            "rows": on_disk.events.height,
        },
        "rejected": {},
        "notes": [
            f"a simulated service, world {table.world!r}: {table.users:,} users, {table.items:,} "
            f"items, {table.days} days, "
            f"seed {work.config.run.seed}; its long-term truth is known",
            f"slates of {table.slate} by a popular policy with {table.explore:.0%} exploration, "
            "every propensity logged",
        ],
        "has_origin": True,
        "has_decisions": True,
        "exclude": table.exclude,
    }


def world_of(work: Work, until: date | None = None) -> tuple[World, Lake]:
    """The simulated service and its log, to the end or to the midnight that begins `until`; the
    same for the same configuration."""
    table = work.config.simulate
    if table is None:
        raise ConfigError("simulate: this run has no [simulate] table")
    stated = table.exclude if "exclude" in table.model_fields_set else None
    world = World(
        users=table.users,
        items=table.items,
        seed=work.config.run.seed,
        config=table.world_config(),
        exclude=stated,
    )
    days = table.days if until is None else (midnight(until) - world.now).days
    return world, world.run(
        Popular(slate=table.slate, explore=table.explore),
        days=days,
        progress=work.bar("simulating days"),
    )
