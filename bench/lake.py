"""What it costs to append a batch and have it on disk, beside an earlier version of the lake.

    git worktree add /tmp/earlier cfeed7b
    python bench/lake.py --earlier /tmp/earlier --json bench/results/lake.json

Both versions append equal batches to lakes of their own, in turns of one batch, so that other load
meets both. The earlier version syncs nothing and records no digests.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from claims import timed

ROOT = Path(__file__).resolve().parents[1]
EARLIER = "cfeed7b"  # the last version before batches were synced
SIZES = {3: 40, 10_000: 15, 200_000: 7}  # events of a batch -> batches
COMMAND = f"python bench/lake.py --earlier WORKTREE_OF_{EARLIER}"
# a worker appends a batch for every line that it reads, and answers with wall and CPU seconds
WORKER = """
import sys, time
sys.path.insert(0, {source!r})
from datetime import UTC, datetime, timedelta
import numpy as np
import polars as pl
from longplay.lake import Lake

START, ROWS = datetime(2026, 3, 1, tzinfo=UTC), {rows}
lake = Lake.open({folder!r})
rng = np.random.default_rng(7)
number = 0
for line in sys.stdin:
    begin = START + number * timedelta(days=1)
    second = np.sort(rng.integers(0, 86_400, ROWS))
    events = pl.DataFrame({{
        "event_id": [f"e{{number}}-{{row}}" for row in range(ROWS)],
        "user_id": [f"u{{user}}" for user in rng.integers(0, 5_000, ROWS)],
        "item_id": [f"i{{item}}" for item in rng.integers(0, 2_000, ROWS)],
        "kind": "play",
        "seconds": rng.uniform(30, 300, ROWS),
        "time": pl.Series(second, dtype=pl.Int64) * 1_000_000,
    }})
    begin_us = pl.lit(begin).cast(pl.Datetime("us", "UTC")).to_physical()
    events = events.with_columns(time=(pl.col("time") + begin_us).cast(pl.Datetime("us", "UTC")))
    decisions = events.head(max(ROWS // 20, 1)).select(
        decision_id="event_id", context_id="event_id", user_id="user_id", time="time", surface=pl.lit("home"),
        slate=pl.concat_list("item_id"), log_prob=pl.concat_list(pl.lit(-1.0)), policy=pl.lit("p@1"))
    added_at = pl.Series([begin], dtype=pl.Datetime("us", "UTC"))
    items = pl.DataFrame({{"item_id": [f"i{{number}}"], "added_at": added_at}})
    wall, cpu = time.perf_counter(), time.process_time()
    lake.append(f"b{{number}}", events=events, decisions=decisions, items=items, watermark=begin + timedelta(days=1))
    print(time.perf_counter() - wall, time.process_time() - cpu, flush=True)
    number += 1
"""


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--earlier", type=Path, required=True, help=f"a checkout of {EARLIER}")
    options.add_argument("--json", type=Path, help="where the rows are written")
    chosen = options.parse_args()
    rows = []
    for size, batches in SIZES.items():
        wall, cpu = measure(chosen.earlier.resolve(), size, batches)
        rows.append(
            timed(
                COMMAND,
                f"append of {size:,} events, synced, over the earlier version: wall seconds",
                wall,
                "<= 1.3",
                lambda value: value <= 1.3,
            )
        )
        rows.append(
            timed(
                COMMAND,
                f"append of {size:,} events, synced, over the earlier version: CPU seconds",
                cpu,
                "<= 1.3",
                lambda value: value <= 1.3,
            )
        )
        print(size, "wall", rows[-2]["value"], "cpu", rows[-1]["value"], flush=True)
    if chosen.json:
        chosen.json.write_text(json.dumps(rows, indent=1) + "\n")


def measure(earlier: Path, size: int, batches: int) -> tuple[list[float], list[float]]:
    """Ratios of now to earlier, wall and CPU, one a round of three batches each; the first three
    batches are left out."""
    with tempfile.TemporaryDirectory() as place:
        workers = [
            start(source, Path(place) / name, size)
            for name, source in (("now", ROOT), ("earlier", earlier))
        ]
        times = [
            [turn(worker) for worker in (workers if batch % 2 else workers[::-1])][
                :: 1 if batch % 2 else -1
            ]
            for batch in range(batches)
        ]
        for worker in workers:
            worker.communicate()
    wall, cpu = (
        [
            statistics.median(now[at] / before[at] for now, before in times[first : first + 3])
            for first in range(3, batches - 2, 3)
        ]
        for at in (0, 1)
    )
    return wall, cpu


def start(source: Path, folder: Path, rows: int) -> subprocess.Popen[str]:
    code = WORKER.format(source=str(source / "src"), folder=str(folder), rows=rows)
    return subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def turn(worker: subprocess.Popen[str]) -> tuple[float, float]:
    """One batch: wall and CPU seconds."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write("\n")
    worker.stdin.flush()
    wall, cpu = worker.stdout.readline().split()
    return float(wall), float(cpu)


if __name__ == "__main__":
    main()
