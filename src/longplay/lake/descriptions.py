"""Descriptions of items and users: all are kept, each with its arrival time.

A view shows of each item and user the description that had arrived last by then, so a creator that
changes today does not change what was counted last month.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import polars as pl

from longplay.lake.schema import DESCRIBED, DTYPES

TICK = timedelta(microseconds=1)  # the shortest time between two arrivals


def as_known(rows: pl.LazyFrame, table: str) -> pl.LazyFrame:
    """One row per item or user: its latest description, with its earliest `added_at`.

    Args:
        rows: every description.
        table: the table they are of, a key of `DESCRIBED`.
    """
    key = DESCRIBED[table]
    earliest = pl.col("added_at").min().over(key)
    return (
        rows.with_columns(earliest)
        .sort("ingested_at", maintain_order=True)
        .unique(key, keep="last", maintain_order=True)
    )


def as_known_sql(source: str, table: str, arrived: str | None) -> str:
    """SQL that selects the rows of `as_known`.

    Args:
        source: name of a table with every description.
        table: the table of the schema they are of, a key of `DESCRIBED`.
        arrived: condition that a description had arrived; null for all.

    >>> as_known_sql("described", "users", None)[:55]
    'select user_id, attributes, vector, earliest as added_a'
    """
    key = DESCRIBED[table]
    columns = ", ".join(
        "earliest as added_at" if name == "added_at" else name for name in DTYPES[table]
    )
    latest = f"row_number() over (partition by {key} order by ingested_at desc)"
    earliest = f"min(added_at) over (partition by {key})"
    where = "" if arrived is None else f" where {arrived}"
    return (
        f"select {columns} from (select *, {earliest} as earliest, {latest} as age from "
        f"{source}{where}) where age = 1"
    )


def new_descriptions(
    rows: pl.DataFrame,
    stored: pl.DataFrame,
    table: str,
    watermark: datetime | None,
    arrival_given: bool,
) -> pl.DataFrame:
    """The descriptions that differ from what is stored, with their arrival times.

    Without an arrival of its own a description counts as known just after the log's watermark:
    whoever looked before saw another one. The first catalogue of a lake counts as known when its
    items were added, and its first users when they were.

    Args:
        rows: descriptions; of equal item or user and arrival the last counts.
        stored: the lake's rows as `as_known` shows them.
        table: the table they are of, a key of `DESCRIBED`.
        watermark: of the lake before this batch.
        arrival_given: whether `ingested_at` of `rows` is the caller's.
    """
    key = DESCRIBED[table]
    dtypes = DTYPES[table]
    compared_columns = [name for name in dtypes if name not in (key, "added_at", "ingested_at")]
    arriving = rows
    if not arrival_given and stored.height and watermark is not None:
        arriving = rows.with_columns(
            ingested_at=pl.max_horizontal("added_at", pl.lit(watermark + TICK))
        )
    arriving = arriving.unique([key, "ingested_at"], keep="last", maintain_order=True)
    if stored.is_empty():
        return arriving.sort(key, "ingested_at")
    compared = arriving.join(
        stored.with_columns(described=True), on=key, how="left", suffix="_stored"
    )
    differs = pl.any_horizontal(
        pl.col("added_at") < pl.col("added_at_stored"),
        *(_differs(name, dtypes[name]) for name in compared_columns),
    )
    # two descriptions that arrive at one instant: the later batch counts, a microsecond later
    last = pl.col("ingested_at_stored")
    arrival = pl.when(pl.col("ingested_at") == last).then(last + TICK).otherwise("ingested_at")
    new = compared.filter(pl.col("described").is_null() | differs).with_columns(ingested_at=arrival)
    return new.select(dtypes.names()).sort(key, "ingested_at")


def _differs(name: str, dtype: pl.DataType) -> pl.Expr:
    arriving = pl.col(name)
    stored = pl.col(f"{name}_stored")
    if dtype == pl.List(pl.String):
        arriving, stored = (
            texts.list.eval(pl.element().fill_null("\0")).list.join("\x1f")
            for texts in (arriving, stored)
        )
    elif isinstance(dtype, pl.List):
        # numbers are compared as they are: their text could be rounded
        same_length = arriving.list.len().eq_missing(stored.list.len())
        return ~same_length | (arriving != stored).fill_null(False)
    return arriving.ne_missing(stored)
