"""Quarantine: bad events are set aside with line and reason."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import polars as pl

from longplay.lake.daily import DAY_SECONDS, EPOCH
from longplay.lake.schema import KINDS, ORIGINS, TABLES

# logs of what users did on-line do not reach further back
EARLIEST = datetime(1990, 1, 1, tzinfo=UTC)
YEAR_2 = datetime(2, 1, 1, tzinfo=UTC)
YEAR_9999 = datetime(9999, 1, 1, tzinfo=UTC)

MOST_AMOUNT = 1_000_000_000  # larger amounts would make sums inexact

# what to do about a reason, by how it begins
ADVICE = {
    "negative amount": "what was paid back is a refund with an amount above 0",
    "seconds above a day": 'the unit may be milliseconds: read them with seconds_unit = "ms"',
    "unparsable seconds": "write numbers with a decimal point and without separators of thousands",
    "wrong encoding": 'give the encoding of the file, e.g. encoding = "windows-1252"',
    "time before": 'the unit of the times may be wrong (time_format = "epoch_s" or "epoch_ms"); '
    "state `earliest` if the log is that old",
}


def sift(
    events: pl.DataFrame,
    known_ids: pl.Series,
    now: datetime | None,
    lines: pl.Series | None = None,
    earliest: datetime = EARLIEST,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Split conformed events into good events, and rejected rows with `line` and `reason`.

    The first reason that applies is given: missing event id, missing user, unparsable time,
    sentinel time (exactly 1970-01-01 00:00:00 unless `earliest` is no later, or in year 1 or 9999:
    what software writes for "not known"), time before `earliest`, future time (after its arrival,
    or it or its arrival after `now`), negative seconds, seconds not finite, seconds above a day,
    negative amount, amount not finite, amount above 1,000,000,000, unknown kind, unknown origin,
    duplicate id (within the batch the first good row stays; or already in `known_ids`).

    Args:
        events: rows of `schema.TABLES["events"]`.
        known_ids: event ids that the lake has already.
        now: no time and no arrival is later than this, whatever the skew of clocks that is allowed;
            None: not checked.
        lines: the rows' lines in their source; None: a row's line is its position from 1.
        earliest: no time is before this; it has a time zone.
    """
    earliest = earliest.astimezone(UTC)
    both_times = (pl.col("time"), pl.col("ingested_at"))
    future = pl.col("time") > pl.col("ingested_at")
    if now is not None:
        future = future | pl.any_horizontal(time > now for time in both_times)
    seconds = pl.col("seconds")
    amount = pl.col("amount")
    if len(known_ids):
        is_known = pl.col("event_id").is_in(known_ids.implode())
    else:
        is_known = pl.lit(False)
    checks = {
        "missing event id": pl.col("event_id").is_null() | (pl.col("event_id") == ""),
        "missing user": pl.col("user_id").is_null() | (pl.col("user_id") == ""),
        "unparsable time": pl.any_horizontal(time.is_null() for time in both_times),
        "sentinel time": pl.any_horizontal(_is_sentinel(time, earliest) for time in both_times),
        f"time before {_day_words(earliest)}": pl.any_horizontal(
            time < earliest for time in both_times
        ),
        "future time": future,
        "negative seconds": seconds < 0,
        "seconds not finite": ~seconds.is_finite(),
        "seconds above a day": seconds > DAY_SECONDS,
        "negative amount": amount < 0,
        "amount not finite": ~amount.is_finite(),
        f"amount above {MOST_AMOUNT:,}": amount > MOST_AMOUNT,
        "unknown kind": ~pl.col("kind").is_in(KINDS) | pl.col("kind").is_null(),
        "unknown origin": ~pl.col("origin").is_in(ORIGINS) | pl.col("origin").is_null(),
        "duplicate id": is_known,
    }
    reason = pl.coalesce(
        *(pl.when(test.fill_null(False)).then(pl.lit(name)) for name, test in checks.items())
    )
    line = pl.int_range(1, pl.len() + 1, dtype=pl.Int64) if lines is None else lines.cast(pl.Int64)
    judged = events.with_columns(line.alias("line"), reason.alias("reason"))
    # a bad line must not shadow a good one of the same id: only good lines compete for "first"
    fine = judged.filter(pl.col("reason").is_null())
    first = fine["event_id"].is_first_distinct()
    again = fine.filter(~first).with_columns(reason=pl.lit("duplicate id"))
    rejected = pl.concat([judged.filter(pl.col("reason").is_not_null()), again]).sort(
        "line", maintain_order=True
    )
    return fine.filter(first).select(*TABLES["events"]), rejected


def advice(reasons: Mapping[str, int]) -> str:
    """What to do about rejected rows, as the end of a sentence; empty where the reasons say enough.

    Args:
        reasons: rows by reason, the reasons as `sift` names them.

    >>> advice({"seconds above a day": 12, "missing user": 1})
    'seconds above a day: the unit may be milliseconds: read them with seconds_unit = "ms"'
    >>> advice({"missing user": 1})
    ''
    """
    matching_advice = (
        (reason, words)
        for reason in reasons
        for start, words in ADVICE.items()
        if reason.startswith(start)
    )
    return "; ".join(f"{reason}: {words}" for reason, words in matching_advice)


def quarantine_rows(rejected: pl.DataFrame, batch: str) -> pl.DataFrame:
    """Rejected rows in the shape of the quarantine table, each with its source row as JSON."""
    row = pl.struct(*TABLES["events"]).struct.json_encode()
    return rejected.select(pl.lit(batch).alias("batch"), "line", "reason", row.alias("row"))


def _is_sentinel(time: pl.Expr, earliest: datetime) -> pl.Expr:
    outside = (time < YEAR_2) | (time >= YEAR_9999)
    # where `earliest` says that a log reaches back beyond 1970, its first second is a usual time
    return outside | (time == EPOCH) if earliest > EPOCH else outside


def _day_words(time: datetime) -> str:
    """The day, and the time of day where it is not midnight.

    >>> _day_words(EARLIEST)
    '1990-01-01'
    """
    text = time.isoformat(sep=" ")
    return text.removesuffix(" 00:00:00+00:00")
