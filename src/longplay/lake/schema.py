"""Every table's columns, in one place, and the one door that checks them."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from longplay.errors import DataError

TIME = pl.Datetime("us", "UTC")

# What a user can do. Only ENGAGED kinds are activity: they open discoveries and count in measures.
KINDS = ("play", "skip", "save", "like", "follow", "purchase", "refund", "visit", "cancel")
ENGAGED = ("play", "save", "like", "follow", "purchase", "visit")
ORIGINS = ("organic", "recommended", "autoplay")


@dataclass(frozen=True)
class Column:
    """One column: its type, whether null is allowed, and the value filled in where it is left out."""

    dtype: pl.DataType | type[pl.DataType]
    null: bool = False
    default: object = None


TABLES: dict[str, dict[str, Column]] = {
    "events": {
        "event_id": Column(pl.String),
        "user_id": Column(pl.String),
        "item_id": Column(pl.String, null=True),
        "creator_id": Column(pl.String, null=True),
        "kind": Column(pl.String),
        "time": Column(TIME),
        "seconds": Column(pl.Float64, null=True),
        "surface": Column(pl.String, null=True),
        "origin": Column(pl.String, default="organic"),
        "session_id": Column(pl.String, null=True),
        "decision_id": Column(pl.String, null=True),
        "slot": Column(pl.Int32, null=True),
        "ingested_at": Column(TIME),  # defaults to `time`: a log without arrival times arrived at once
    },
    "decisions": {
        "decision_id": Column(pl.String),
        "context_id": Column(pl.String),
        "user_id": Column(pl.String),
        "time": Column(TIME),
        "surface": Column(pl.String),
        "slate": Column(pl.List(pl.String)),  # in draw order
        "log_prob": Column(pl.List(pl.Float64)),  # per slot, conditional on the slots before
        "policy": Column(pl.String),  # name@version
        "reward_version": Column(pl.String, null=True),
        "trie_version": Column(pl.String, null=True),
        "temperature": Column(pl.Float64, default=1.0),
        "experiment": Column(pl.String, null=True),
        "arm": Column(pl.String, null=True),
        "arm_prob": Column(pl.Float64, null=True),
        "fallback": Column(pl.Boolean, default=False),
        "ingested_at": Column(TIME),
    },
    "contexts": {
        "context_id": Column(pl.String),
        "user_id": Column(pl.String),
        "time": Column(TIME),
        "surface": Column(pl.String),
        "slots": Column(pl.Int32),
        "prompt": Column(pl.String, null=True),
        "exclusions": Column(pl.List(pl.String)),
        "temperature": Column(pl.Float64, default=1.0),
        "trie_version": Column(pl.String, null=True),
        "history": Column(pl.List(pl.String)),  # item ids as the policy saw them, oldest first
        "history_until": Column(TIME),
        "history_time": Column(pl.List(TIME), null=True),  # of each item of the history: when, what was done, on which surface
        "history_kind": Column(pl.List(pl.String), null=True),
        "history_surface": Column(pl.List(pl.String), null=True),
        "want": Column(pl.Float64, null=True),  # the outcome that is asked for, in its signal's unit
    },
    "items": {
        "item_id": Column(pl.String),
        "creator_id": Column(pl.String, null=True),
        "title": Column(pl.String, null=True),
        "text": Column(pl.String, null=True),
        "tags": Column(pl.List(pl.String), null=True),
        "length": Column(pl.Float64, null=True),  # seconds
        "added_at": Column(TIME),
        "available": Column(pl.Boolean, default=True),
        "ingested_at": Column(TIME),  # when this description arrived; defaults to `added_at`, see Lake.append
    },
    "quarantine": {
        "batch": Column(pl.String),
        "line": Column(pl.Int64),  # line of the source, counted from 1
        "reason": Column(pl.String),
        "row": Column(pl.String),  # the whole row as JSON, so that nothing is lost
    },
}

TIME_COLUMN = {"events": "time", "decisions": "time", "contexts": "time", "items": "added_at"}
DTYPES = {table: pl.Schema({name: column.dtype for name, column in columns.items()}) for table, columns in TABLES.items()}


def empty(table: str) -> pl.DataFrame:
    """The table with no rows and every column."""
    return pl.DataFrame(schema=DTYPES[table])


def conform(frame: pl.DataFrame, table: str) -> pl.DataFrame:
    """`frame` with exactly the table's columns, types and order; optional columns are filled in.

    Raises:
        DataError: a column that is unknown or missing, a type that does not convert, or (except in
            events, whose rows are sifted one by one) a null where none is allowed.
    """
    columns = TABLES[table]
    if unknown := [name for name in frame.columns if name not in columns]:
        raise DataError(f"{table}: unknown column {unknown[0]!r}; expected some of {', '.join(columns)}")
    happened = TIME_COLUMN.get(table)
    if "ingested_at" in columns and "ingested_at" not in frame.columns and happened in frame.columns:
        frame = frame.with_columns(ingested_at=pl.col(happened))
    for name, column in columns.items():
        if name not in frame.columns:
            if not column.null and column.default is None:
                raise DataError(f"{table}: column {name!r} is missing; given {', '.join(frame.columns) or 'no columns'}")
            frame = frame.with_columns(pl.lit(column.default, dtype=column.dtype).alias(name))
        elif frame.schema[name] != column.dtype:
            if column.dtype == TIME and frame.schema[name] == pl.Datetime("us"):
                raise DataError(f"{table}: column {name!r} has no time zone; give UTC, e.g. .dt.replace_time_zone('UTC')")
            try:
                frame = frame.with_columns(pl.col(name).cast(column.dtype, strict=True))
            except pl.exceptions.PolarsError as error:
                raise DataError(f"{table}: column {name!r} is {frame.schema[name]}, expected {column.dtype}: {error}") from error
        if not column.null and table != "events" and (nulls := frame[name].null_count()):
            raise DataError(f"{table}: {nulls} of {frame.height} rows have no {name!r}; expected every row to have one")
    if table == "items" and (wrong := frame.filter((pl.col("length") <= 0) | ~pl.col("length").is_finite())).height:
        first = wrong.row(0, named=True)
        raise DataError(
            f"items: {wrong.height} of {frame.height} rows have a length that is no duration, first {first['item_id']!r} with {first['length']}; "
            "expected seconds above 0, or null where it is not known"
        )
    return frame.select(*columns)
