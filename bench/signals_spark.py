"""What signals cost on Spark: all ready ones in one pass, beside DuckDB, and whether the rows are
equal.

CPU seconds of this process and of Java, on the logs of `biglog`: a first pass in a new process and a
second one.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
from biglog import big_log
from claims import timed
from remembered import CACHE, remembered

from longplay.lake import Lake
from longplay.signals.engine.dialect import Engine
from longplay.signals.engine.duckdb import DUCKDB
from longplay.signals.engine.spark import SparkEngine
from longplay.signals.outcomes.in_files import outcome_tables
from longplay.signals.ready_signals import ready

SIZES = (50_000, 1_000_000)
WORDS = {50_000: "50k", 1_000_000: "1M"}
MASTER = "local[2]"
COMMAND = "python bench/signals.py --engine spark"
claim = partial(timed, COMMAND)


def java_cpu() -> float:
    """CPU seconds of the Java process that this one started: all of Spark in local mode."""
    ticks = os.sysconf("SC_CLK_TCK")
    for process in Path("/proc").glob("[0-9]*/stat"):
        name, fields = process.read_text().split("(", 1)[1].rsplit(")", 1)
        state = fields.split()
        if name == "java" and int(state[1]) == os.getpid():
            return (int(state[11]) + int(state[12])) / ticks
    return 0.0


def on_engine(engine: Engine, lake: Lake) -> list[pl.DataFrame]:
    """The tables of all ready signals from one pass, in an order that no engine chooses."""
    with engine.connect(lake) as con:
        made = outcome_tables(con, list(ready()), lake, lake, lake.watermark, engine)
        frames = [con.sql(f"select * from {table}").pl() for table in dict.fromkeys(made.values())]
    return [frame.select(sorted(frame.columns)).sort(sorted(frame.columns)) for frame in frames]


def timed_pass(engine: Engine, lake: Lake) -> tuple[list[pl.DataFrame], float, float]:
    """The tables of `on_engine`, with the CPU and wall seconds of this process."""
    begun, wall = time.process_time(), time.perf_counter()
    frames = on_engine(engine, lake)
    return frames, time.process_time() - begun, time.perf_counter() - wall


@remembered(version=1)
def beside_spark(events: int, master: str) -> dict[str, Any]:
    """CPU and wall seconds of all ready signals in one pass, fetched, on DuckDB and on Spark: its
    first pass in a new process and its second; and whether the rows are equal."""
    lake = big_log(events, CACHE / f"signals-log-{events}")
    found: dict[str, Any] = {"duckdb": [], "spark": [], "equal": True}
    begun = time.perf_counter()
    engine = SparkEngine(master, {"spark.driver.memory": "4g", "spark.sql.shuffle.partitions": "4"})
    found["start"] = time.perf_counter() - begun
    for turn in range(2):
        expected, here, wall = timed_pass(DUCKDB, lake)
        found["duckdb"].append((here, wall))
        before = java_cpu()
        got, here, wall = timed_pass(engine, lake)
        found["spark"].append((here + java_cpu() - before, wall))
        for left, right in zip(expected, got, strict=True):
            found["equal"] &= left.equals(right.cast(left.schema))
        print(f"pass {turn + 1} of 2: {found}", flush=True)
    engine.close()
    return found


def rows_of_size(word: str, found: dict[str, Any]) -> list[dict[str, Any]]:
    """What Spark costs on one size, beside DuckDB."""
    rows = [
        claim(
            f"{word} events: rows of all 13 on Spark equal DuckDB's",
            [float(found["equal"])],
            "1",
            lambda x: x == 1,
        )
    ]
    for engine in ("DuckDB", "Spark"):
        for unit, place in (("CPU", 0), ("wall", 1)):
            seconds = [one[place] for one in found[engine.lower()]]
            words = f"{word} events: {unit} seconds of all 13 in one pass on {engine}, two passes"
            rows.append(claim(words, seconds, "none", lambda x: True))
    return rows


def rows_of(sizes: tuple[int, ...], master: str) -> list[dict[str, Any]]:
    """The claims on all sizes."""
    rows = []
    for events in sizes:
        found = beside_spark(events=events, master=master)
        rows += rows_of_size(WORDS.get(events, f"{events:,}"), found)
    return rows


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--json", type=Path)
    options.add_argument("--sizes", type=int, nargs="*", default=list(SIZES))
    options.add_argument("--master", default=MASTER, help="where Spark runs")
    given = options.parse_args()
    rows = rows_of(tuple(given.sizes), given.master)
    for row in rows:
        print(f"{row['claim']}: {row['value']:.3g}, bar {row['bar']}")
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
