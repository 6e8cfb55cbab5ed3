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
    stored: pl.LazyFrame,
    table: str,
    watermark: datetime | None,
    arrival_given: bool,
) -> pl.DataFrame:
    """The descriptions that say something new, with their arrival times.

    A description that says what was known already when it arrived is left out. Without an arrival
    of its own a description counts as known just after the log's watermark: whoever looked before
    saw another one. The first catalogue of a lake counts as known when its items were added, and
    its first users when they were. Of two batches whose descriptions arrive at one instant the
    later one counts, a microsecond later.

    Args:
        rows: descriptions; of equal item or user and arrival the last counts.
        stored: every description in the lake.
        table: the table they are of, a key of `DESCRIBED`.
        watermark: of the lake before this batch.
        arrival_given: whether `ingested_at` of `rows` is the caller's.
    """
    key = DESCRIBED[table]
    arriving = rows
    is_first = stored.head(1).collect().is_empty()
    if not arrival_given and not is_first and watermark is not None:
        arriving = rows.with_columns(
            ingested_at=pl.max_horizontal("added_at", pl.lit(watermark + TICK))
        )
    arriving = arriving.unique([key, "ingested_at"], keep="last", maintain_order=True)
    arriving = arriving.sort(key, "ingested_at")
    if is_first:
        return arriving
    of_these = stored.join(arriving.lazy().select(key).unique(), on=key, how="semi").collect()
    arriving = _after_equal_arrivals(arriving, of_these, key)
    # in the order of arrival, each beside the one before it
    described = pl.concat(
        [of_these.with_columns(is_new=False), arriving.with_columns(is_new=True)]
    ).sort(key, "ingested_at", maintain_order=True)
    content = pl.struct(pl.exclude(key, "added_at", "ingested_at", "is_new"))
    earliest = pl.col("added_at").cum_min().over(key)
    says_new = (
        (pl.col(key) != pl.col(key).shift(1)).fill_null(True)
        | content.ne_missing(content.shift(1))
        | (pl.col("added_at") < earliest.shift(1))
    )
    return described.filter(pl.col("is_new") & says_new).drop("is_new")


def _after_equal_arrivals(arriving: pl.DataFrame, stored: pl.DataFrame, key: str) -> pl.DataFrame:
    """The arriving descriptions, moved on by a microsecond for as long as another one of the same
    key arrives at the same instant.

    Args:
        arriving: descriptions in the order of key and arrival.
        stored: descriptions that are in the lake.
        key: the id of what is described.
    """
    taken_arrivals = stored.select(key, "ingested_at", is_stored=True).unique()
    same_key = pl.col(key) == pl.col(key).shift(1)
    follows_equal = same_key & (pl.col("ingested_at") == pl.col("ingested_at").shift(1))
    while True:
        is_taken = arriving.join(
            taken_arrivals, on=[key, "ingested_at"], how="left", maintain_order="left"
        ).select(pl.col("is_stored").fill_null(False) | follows_equal.fill_null(False))
        if not is_taken.to_series().any():
            return arriving
        moved = arriving["ingested_at"] + is_taken.to_series().cast(pl.Int64) * TICK
        arriving = arriving.with_columns(moved.alias("ingested_at"))
