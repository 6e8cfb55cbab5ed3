"""Bad events are set aside with their reason and line; nothing is dropped silently."""

from __future__ import annotations

from datetime import datetime

import polars as pl

from longplay.lake.schema import KINDS, ORIGINS, TABLES


def sift(events: pl.DataFrame, known_ids: pl.Series, now: datetime | None, lines: pl.Series | None = None) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Split conformed events into (good events, rejected rows with `line` and `reason`).

    The first reason that applies is given: missing event id, missing user, unparsable time, future
    time (after its arrival, or after `now`), negative seconds, seconds not finite, unknown kind,
    unknown origin, duplicate id (within the batch the first good row stays; or already in `known_ids`).
    `lines` are the rows' lines in their source; without them a row's line is its position from 1.
    """
    future = pl.col("time") > pl.col("ingested_at")
    if now is not None:
        future = future | (pl.col("time") > now)
    checks = {
        "missing event id": pl.col("event_id").is_null() | (pl.col("event_id") == ""),
        "missing user": pl.col("user_id").is_null() | (pl.col("user_id") == ""),
        "unparsable time": pl.col("time").is_null() | pl.col("ingested_at").is_null(),
        "future time": future,
        "negative seconds": pl.col("seconds") < 0,
        "seconds not finite": ~pl.col("seconds").is_finite(),
        "unknown kind": ~pl.col("kind").is_in(KINDS) | pl.col("kind").is_null(),
        "unknown origin": ~pl.col("origin").is_in(ORIGINS) | pl.col("origin").is_null(),
        "duplicate id": pl.col("event_id").is_in(known_ids.implode()) if len(known_ids) else pl.lit(False),
    }
    reason = pl.coalesce(*(pl.when(test.fill_null(False)).then(pl.lit(name)) for name, test in checks.items()))
    line = pl.int_range(1, pl.len() + 1, dtype=pl.Int64) if lines is None else lines.cast(pl.Int64)
    judged = events.with_columns(line.alias("line"), reason.alias("reason"))
    # a bad line must not shadow a good one of the same id: only good lines compete for "first"
    fine = judged.filter(pl.col("reason").is_null())
    first = fine["event_id"].is_first_distinct()
    again = fine.filter(~first).with_columns(reason=pl.lit("duplicate id"))
    rejected = pl.concat([judged.filter(pl.col("reason").is_not_null()), again]).sort("line", maintain_order=True)
    return fine.filter(first).select(*TABLES["events"]), rejected


def quarantine_rows(rejected: pl.DataFrame, batch: str) -> pl.DataFrame:
    """Rejected rows in the shape of the quarantine table, the whole row kept as JSON."""
    row = pl.struct(*TABLES["events"]).struct.json_encode()
    return rejected.select(pl.lit(batch).alias("batch"), "line", "reason", row.alias("row"))
