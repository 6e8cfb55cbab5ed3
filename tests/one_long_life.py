"""A process of its own: peak memory of work on a log in which one user did everything. Prints
JSON."""

from __future__ import annotations

import json
import resource
import sys
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from longplay.decisions import contexts_at, contexts_from_log
from longplay.lake import Lake
from longplay.lake.schema import TIME

START = datetime(2026, 1, 1, tzinfo=UTC)
ITEMS = 200


def one_user(events: int, late: timedelta = timedelta(0)) -> Lake:
    """An event an hour of one user on 200 items."""
    number = np.arange(events)
    time = pl.Series("time", number * 3_600_000_000 + int(START.timestamp()) * 1_000_000).cast(TIME)
    frame = pl.DataFrame(
        {
            "event_id": [f"e{n}" for n in number],
            "item_id": [f"i{n}" for n in number * 7919 % ITEMS],
            "time": time,
        }
    )
    frame = frame.with_columns(
        user_id=pl.lit("u"),
        creator_id=pl.lit("c"),
        kind=pl.lit("play"),
        ingested_at=pl.col("time") + late,
    )
    lake = Lake.memory()
    items = pl.DataFrame(
        {"item_id": [f"i{n}" for n in range(ITEMS)], "creator_id": "c", "added_at": START}
    )
    lake.append("all", events=frame, items=items, watermark=START + timedelta(hours=events + 1))
    return lake


def work(events: int, name: str) -> None:
    """What a policy is asked with, from this log."""
    lake = one_user(events, timedelta(days=40) if name.endswith("late") else timedelta(0))
    if not events:
        return
    if name == "contexts_from_log":
        contexts_from_log(lake, slots=5, history=20)
    else:
        contexts_at(
            lake, lake.events.select("user_id", "time"), slots=5, history=20, exclude="none"
        )


if __name__ == "__main__":
    work(int(sys.argv[1]), sys.argv[2])
    print(json.dumps({"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
