"""Descriptions of items: all are kept, each with its arrival time.

A view shows of each item the description that had arrived last by then, so a creator that changes
today does not change what was counted last month.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import polars as pl

from longplay.lake.schema import DTYPES

TICK = timedelta(microseconds=1)  # the shortest time between two arrivals
COMPARED = [name for name in DTYPES["items"] if name not in ("item_id", "added_at", "ingested_at")]


def as_known(items: pl.LazyFrame) -> pl.LazyFrame:
    """One row per item: its latest description, with its earliest `added_at`."""
    earliest = pl.col("added_at").min().over("item_id")
    return (
        items.with_columns(earliest)
        .sort("ingested_at", maintain_order=True)
        .unique("item_id", keep="last", maintain_order=True)
    )


def as_known_sql(table: str, arrived: str | None) -> str:
    """SQL that selects the rows of `as_known`.

    Args:
        table: with every description.
        arrived: condition that a description had arrived; null for all.

    >>> as_known_sql("described", None)[:44]
    'select item_id, creator_id, title, text, tag'
    """
    columns = ", ".join(
        "earliest as added_at" if name == "added_at" else name for name in DTYPES["items"]
    )
    latest = "row_number() over (partition by item_id order by ingested_at desc)"
    earliest = "min(added_at) over (partition by item_id)"
    where = "" if arrived is None else f" where {arrived}"
    return (
        f"select {columns} from (select *, {earliest} as earliest, {latest} as age from "
        f"{table}{where}) where age = 1"
    )


def new_descriptions(
    rows: pl.DataFrame, stored: pl.DataFrame, watermark: datetime | None, arrival_given: bool
) -> pl.DataFrame:
    """The descriptions that differ from what is stored, with their arrival times.

    Without an arrival of its own a description counts as known just after the log's watermark:
    whoever looked before saw another one. The first catalogue of a lake counts as known when its
    items were added.

    Args:
        rows: of the items table; of equal item and arrival the last counts.
        stored: the lake's items as `as_known` shows them.
        watermark: of the lake before this batch.
        arrival_given: whether `ingested_at` of `rows` is the caller's.
    """
    arriving = rows
    if not arrival_given and stored.height and watermark is not None:
        arriving = rows.with_columns(
            ingested_at=pl.max_horizontal("added_at", pl.lit(watermark + TICK))
        )
    arriving = arriving.unique(["item_id", "ingested_at"], keep="last", maintain_order=True)
    if stored.is_empty():
        return arriving.sort("item_id", "ingested_at")
    compared = arriving.join(
        stored.with_columns(described=True), on="item_id", how="left", suffix="_stored"
    )
    differs = pl.any_horizontal(
        pl.col("added_at") < pl.col("added_at_stored"), *(_differs(name) for name in COMPARED)
    )
    # two descriptions that arrive at one instant: the later batch counts, a microsecond later
    last = pl.col("ingested_at_stored")
    arrival = pl.when(pl.col("ingested_at") == last).then(last + TICK).otherwise("ingested_at")
    new = compared.filter(pl.col("described").is_null() | differs).with_columns(ingested_at=arrival)
    return new.select(DTYPES["items"].names()).sort("item_id", "ingested_at")


def _differs(name: str) -> pl.Expr:
    arriving = pl.col(name)
    stored = pl.col(f"{name}_stored")
    if isinstance(DTYPES["items"][name], pl.List):
        arriving, stored = (
            tags.list.eval(pl.element().fill_null("\0")).list.join("\x1f")
            for tags in (arriving, stored)
        )
    return arriving.ne_missing(stored)
