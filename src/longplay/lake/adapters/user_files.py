"""Files that say what a service knows of its users: one row per user, or per description."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import polars as pl

from longplay.errors import ConfigError, DataError
from longplay.lake.adapters.cells import constant_time, ids, times
from longplay.lake.adapters.known_columns import attributes_of, columns_like, is_plain, vector_of
from longplay.lake.adapters.layout import close, header_advice
from longplay.lake.adapters.logged_slates import as_rejected, unreadable
from longplay.lake.adapters.record_files import ADDED, FAULT, read_rows
from longplay.lake.adapters.source import Source
from longplay.lake.schema import TABLES, TIME, conform

USER_COLUMNS = tuple(TABLES["users"])
TIMES = ("added_at", "ingested_at")


def read_users(
    path: str | Path,
    columns: Mapping[str, str] = {},
    *,
    constants: Mapping[str, str] = {},
    time_format: str | None = None,
    time_zone: str = "UTC",
    separator: str | None = None,
    encoding: str | None = None,
) -> Source:
    """Descriptions of users: attributes and vectors. Rows that cannot be read go to `rejected`.

    Args:
        path: a file, a folder or a pattern of Parquet or CSV files, or a file with a JSON object
            per line (.jsonl, .ndjson).
        columns: longplay column -> source column; those not named are taken from columns of their
            own names. `vector` is a column of lists, of text such as "0.1 -2", or a pattern of
            numeric columns such as "factor_*". `attributes` is a column of JSON objects, or a
            pattern or list of columns such as "country, plan"; default: all columns of text,
            numbers and truth values that have no other role. `added_at` and `ingested_at` may be
            there; without them see `dated_users`.
        constants: `added_at` or `ingested_at` -> the time of every row in ISO 8601, e.g.
            {"added_at": "2026-03-01"}: what the file says was known from then on.
        time_format: as of `read_table`.
        time_zone: as of `read_table`.
        separator: as of `read_table`.
        encoding: as of `read_table`.

    Raises:
        ConfigError: the mapping names what is not there.
        DataError: a file cannot be read, no column holds the users, or vectors are of different
            lengths.
    """
    read = read_rows(path, separator=separator, encoding=encoding, json_lines=True)
    rows = read.filter(pl.col(FAULT).is_null())
    has = [name for name in rows.columns if name not in ADDED]
    mapped = _mapped(path, has, columns, constants)
    reasons = pl.Series("reason", [None], dtype=pl.String).new_from_index(0, rows.height)
    filled = {"user_id": ids(rows[mapped["user_id"]])}
    reasons = _with_reason(reasons, filled["user_id"].is_null(), "missing user")
    for name in TIMES:
        if name in constants:
            filled[name] = constant_time(name, constants[name], time_zone, rows.height)
        elif name in mapped:
            filled[name] = times(rows[mapped[name]], time_format, time_zone)
            reasons = _with_reason(reasons, filled[name].is_null(), f"unparsable {name}")
        else:
            filled[name] = pl.Series(name, [None], dtype=TIME).new_from_index(0, rows.height)
    vector_columns = columns_like(mapped["vector"], has) if "vector" in mapped else []
    if vector_columns:
        filled["vector"], bad = vector_of(rows, vector_columns)
        reasons = _with_reason(reasons, bad, "unparsable vector")
    if "attributes" in mapped:
        attribute_columns = columns_like(mapped["attributes"], has)
    else:
        taken = {*mapped.values(), *vector_columns}
        attribute_columns = [name for name in has if name not in taken and is_plain(rows[name])]
    if attribute_columns:
        filled["attributes"], bad = attributes_of(rows, attribute_columns)
        reasons = _with_reason(reasons, bad, "unparsable attributes")
    users = pl.DataFrame([values.alias(name) for name, values in filled.items()])
    is_bad = reasons.is_not_null()
    rejected = as_rejected(rows.filter(is_bad), pl.lit(reasons.filter(is_bad)))
    return Source(
        events=None,
        items=None,
        users=users.filter(~is_bad),
        rejected=pl.concat([unreadable(read), rejected]),
        rows=read.height,
        notes=(_note(users.filter(~is_bad), attribute_columns),),
        has_origin=False,
        has_decisions=False,
    )


def dated_users(
    users: pl.DataFrame,
    events: pl.DataFrame | None,
    complete_until: datetime | None = None,
) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """Descriptions of which each has its times, and notes on them.

    A description with `added_at` has arrived then, unless it says when. One without any time has
    arrived at the end of the log: what a service writes out today may come from all of the log, and
    nothing that happened before may see it.

    Args:
        users: as `read_users` gives them.
        events: of the log.
        complete_until: the end of the log; None: its last event.

    Raises:
        DataError: nothing says when the log ends.
    """
    notes = []
    end = complete_until
    if end is None and events is not None:
        end = events["time"].max()
    undated = users["added_at"].is_null() & users["ingested_at"].is_null()
    if undated.any():
        if end is None:
            raise DataError(
                "users: no event says when the log ends; map added_at, the time from which a "
                "description was known"
            )
        notes.append(
            f"{int(undated.sum()):,} descriptions of users have no time: they count as known from "
            "the end of the log on, and nothing before it sees them; map added_at to say from when "
            "they were known"
        )
    last = pl.lit(end, dtype=TIME)
    dated = users.with_columns(
        added_at=pl.coalesce("added_at", "ingested_at", last),
        ingested_at=pl.coalesce("ingested_at", "added_at", last),
    )
    return conform(dated, "users"), tuple(notes)


def _mapped(
    path: str | Path, has: list[str], columns: Mapping[str, str], constants: Mapping[str, str]
) -> dict[str, str]:
    """longplay column -> source column, those of their own names included."""
    for name in constants:
        if name not in TIMES or name in columns:
            raise ConfigError(
                f"constants: {name!r} cannot be the same in every row here; expected some of "
                f"{', '.join(TIMES)} that are not mapped"
            )
    for name in columns:
        if name not in USER_COLUMNS:
            raise ConfigError(
                f"columns: {name!r} is no column of users{close(name, USER_COLUMNS)}; expected "
                f"some of {', '.join(USER_COLUMNS)}"
            )
    mapped = {name: name for name in USER_COLUMNS if name in has} | dict(columns)
    for name in ("user_id", *TIMES):
        source = mapped.get(name)
        if source is not None and source not in has:
            raise ConfigError(
                f"columns: {name} = {source!r}, but {path} has no column "
                f"{source!r}{close(source, has)}; it has {', '.join(has)}{header_advice(has)}"
            )
    if "user_id" not in mapped:
        raise ConfigError(
            f"columns: 'user_id' is not mapped; name the column of {path} that holds it. It has "
            f"{', '.join(has)}"
        )
    return mapped


def _note(users: pl.DataFrame, attribute_columns: list[str]) -> str:
    """A sentence on how many descriptions there are, and of what."""
    words = [f"{users.height:,} descriptions of users"]
    if "attributes" in users.columns and (count := users["attributes"].drop_nulls().len()):
        words.append(f"{count:,} with attributes ({', '.join(attribute_columns)})")
    if "vector" in users.columns and (vectors := users["vector"].drop_nulls()).len():
        words.append(f"{vectors.len():,} with vectors of {len(vectors[0])} numbers")
    return ", ".join(words)


def _with_reason(reasons: pl.Series, bad: pl.Series, reason: str) -> pl.Series:
    """The reasons, with this one for bad rows that have none yet."""
    return reasons.set(bad & reasons.is_null(), reason)
