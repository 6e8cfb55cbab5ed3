"""What signals cost: each ready one beside the best SQL by hand and a scan of its columns; all in
one pass; a night of a store; what years add. With `--engine spark`: see `signals_spark`.

CPU seconds, interleaved in one run, under a memory limit of 4 GB; ratios are of medians. A log of
180 days is made once per size and kept in .bench-cache.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import signals_spark
from biglog import DAYS, START, append_day, big_log, day_of_events
from claims import timed
from handwritten import HAND, macros
from remembered import CACHE, remembered

from longplay.lake import Lake
from longplay.lake.storage import FolderStore
from longplay.signals.outcomes.in_files import outcome_tables
from longplay.signals.ready_signals import ready
from longplay.signals.signal import Signal
from longplay.signals.store.signal_store import SignalStore

MEMORY = "4GB"
REPEATS = {1_000_000: 5, 10_000_000: 3, 100_000_000: 1}
SIZES = tuple(REPEATS)
WORDS = {1_000_000: "1M", 10_000_000: "10M", 100_000_000: "100M"}
QUICK_DAYS = 70
NEAR_DAYS, YEARS_DAYS = (
    120,
    7_600,
)  # of a log of some months, and of one of 21 years with as many events
SPAN_EVENTS = 100_000
FAR = datetime(2005, 1, 1, tzinfo=UTC)
COMMAND = "python bench/signals.py"
claim = partial(timed, COMMAND)
BASE = (START - START.replace(year=1970, month=1, day=1)).days


@contextmanager
def connected(lake: Lake, days: int = DAYS) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection under the memory limit, with what the queries by hand name."""
    spill = Path(tempfile.mkdtemp(prefix="spill"))
    try:
        with lake.connect(memory_limit=MEMORY, spill=spill) as con:
            for macro in macros(BASE, days):
                con.execute(macro)
            yield con
    finally:
        shutil.rmtree(spill, ignore_errors=True)


def cpu(work: Callable[[], Any]) -> tuple[float, float]:
    """CPU and wall seconds of `work`."""
    begun, wall = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - begun, time.perf_counter() - wall


def scan(con: duckdb.DuckDBPyConnection, signal: Signal) -> None:
    """A plain scan of the columns that a signal reads."""
    of = {signal.entry.of, signal.measure.of} - {None}
    columns = [
        "user_id",
        "kind",
        "time",
        "origin",
        *(f"{one}_id" for one in sorted(str(one) for one in of)),
    ]
    con.execute(
        f"select {', '.join(f'max({column})' for column in columns)} from events"
    ).fetchall()


@remembered(version=8)
def speed(events: int) -> dict[str, Any]:
    """See `measure_speed`, on the kept log of this size."""
    return measure_speed(big_log(events, CACHE / f"signals-log-{events}"), REPEATS.get(events, 1))


def measure_speed(lake: Lake, repeats: int, days: int = DAYS) -> dict[str, Any]:
    """CPU and wall seconds per signal: ours, by hand (every way), the scan; of all signals in one
    pass, before and after these; peak memory (GB)."""
    signals: dict[str, dict[str, Any]] = {}
    shared: list[tuple[float, float]] = []

    def pass_over_all() -> None:
        with connected(lake) as con:
            shared.append(
                cpu(partial(outcome_tables, con, list(ready()), lake, lake, lake.watermark))
            )

    pass_over_all()
    for repeat in range(repeats):
        for signal in ready():
            kept = signals.setdefault(
                signal.name, {"ours": [], "scan": [], "hand": [[] for _ in HAND[signal.name]]}
            )
            with connected(lake) as con:
                kept["scan"].append(cpu(partial(scan, con, signal)))
            with connected(lake) as con:
                kept["ours"].append(
                    cpu(partial(outcome_tables, con, [signal], lake, lake, lake.watermark))
                )
                ours = facts(con, "outcomes_0", f'"{signal.label}"')
            for way, query in enumerate(HAND[signal.name]):
                with connected(lake, days) as con:
                    kept["hand"][way].append(cpu(partial(con.execute, query)))
                    theirs = facts(con, "hand", "value")
                assert agree(ours, theirs), (signal.name, way, ours, theirs)
            kept["entries"], kept["mature"], kept["mean"] = ours
            print(
                f"{signal.name} {repeat + 1} of {repeats}: {kept['ours'][-1][0]:.2f} CPU s, by "
                f"hand {[f'{way[-1][0]:.2f}' for way in kept['hand']]}",
                flush=True,
            )
        pass_over_all()
    return {"signals": signals, "shared": shared, "peak_gb": peak_gb()}


@remembered(version=1)
def growth(few: int, many: int) -> dict[str, float]:
    """CPU seconds of each signal on a log of `many` events over those on one of `few`, taken just
    before and just after: a machine drifts."""
    found: dict[str, float] = {}
    for signal in ready():
        times: dict[int, list[float]] = {few: [], many: []}
        for events in (few, many, few):
            lake = big_log(events, CACHE / f"signals-log-{events}")
            with connected(lake) as con:
                times[events].append(
                    cpu(partial(outcome_tables, con, [signal], lake, lake, lake.watermark))[0]
                )
        found[signal.name] = times[many][0] / statistics.mean(times[few])
        print(f"{signal.name}: {times[many][0]:.1f} CPU s beside {times[few]}", flush=True)
    return found


def agree(ours: tuple[int, int, float | None], theirs: tuple[int, int, float | None]) -> bool:
    """Whether two tables have the same entries, as many of them mature, and the same mean."""
    return ours[:2] == theirs[:2] and (
        ours[2] == theirs[2] or abs((ours[2] or 0.0) - (theirs[2] or 0.0)) < 1e-9
    )


def facts(con: duckdb.DuckDBPyConnection, table: str, column: str) -> tuple[int, int, float | None]:
    """Entries, mature entries, and their mean."""
    return con.execute(f"select count(*), count({column}), avg({column}) from {table}").fetchall()[
        0
    ]


def peak_gb() -> float:
    """The most memory this process has had."""
    status = Path("/proc/self/status").read_text()
    return (
        int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])
        / 2**20
    )


@remembered(version=4)
def night(events: int) -> dict[str, Any]:
    """See `measure_night`; the log is made anew."""
    with tempfile.TemporaryDirectory(dir=CACHE) as name:
        return measure_night(events, Path(name), DAYS, REPEATS.get(events, 1))


def measure_night(events: int, place: Path, days: int, repeats: int) -> dict[str, Any]:
    """A store of all ready signals of a log without its last day; that day is appended, later late
    events of three days: each beside a rebuild.

    CPU and wall seconds of the updates, and whether the rows are those of the rebuild.
    """
    found: dict[str, Any] = {"update": [], "rebuild": []}
    lake, lake_of, signals = (
        big_log(events, place / "lake", days - 1),
        FolderStore(place / "lake"),
        list(ready()),
    )
    SignalStore(place / "before", lake, signals).update(memory_limit=MEMORY)
    append_day(lake_of, events, days - 1)
    kept, fresh = (SignalStore(place / folder, lake, signals) for folder in ("kept", "fresh"))
    for repeat in range(repeats):
        for folder in ("kept", "fresh"):
            shutil.rmtree(place / folder, ignore_errors=True)
        shutil.copytree(place / "before", place / "kept")
        found["update"].append(cpu(partial(kept.update, memory_limit=MEMORY)))
        found["rebuild"].append(cpu(partial(fresh.update, memory_limit=MEMORY)))
        print(
            f"night {repeat + 1} of {repeats}: {found['update'][-1]} beside {found['rebuild'][-1]}",
            flush=True,
        )
    found["equal"] = all(same(kept, fresh, signal) for signal in signals)
    shutil.rmtree(place / "fresh")
    late_days = tuple(sorted({days // 3, days - 30, days - 2}))
    late = [day_of_events(events, day).sample(20, seed=day) for day in late_days]
    with lake_of.writing():
        lake_of.commit(
            "late",
            {
                "events": pl.concat(late).with_columns(
                    ("late-" + pl.col("event_id")).alias("event_id")
                )
            },
            lake.watermark,
        )
    done = None

    def count_late() -> None:
        nonlocal done
        done = kept.update(memory_limit=MEMORY)

    found["late"] = [cpu(count_late)]
    found["late_opens"] = {
        "days": [day - BASE for day in done.late],
        "rolled": [day - BASE for day in done.rolled],
        "users": done.users,
    }
    found["late_as_asked"] = (
        found["late_opens"]["days"] == found["late_opens"]["rolled"] == list(late_days)
    )
    fresh.update(memory_limit=MEMORY)
    found["late_equal"] = all(same(kept, fresh, signal) for signal in signals)
    return found


@remembered(version=1)
def span(events: int) -> dict[str, Any]:
    """See `measure_span`; the logs are made anew."""
    with tempfile.TemporaryDirectory(dir=CACHE) as name:
        return measure_span(events, Path(name), 3)


def measure_span(events: int, place: Path, repeats: int) -> dict[str, Any]:
    """CPU and wall seconds of every ready signal and of all in one pass, on three logs in turn.

    near: `events` events of four months. far: these and one of 2005. years: as many, spread over 21
    years.
    """
    near = pl.concat([day_of_events(events * DAYS // NEAR_DAYS, day) for day in range(NEAR_DAYS)])
    rare = (
        pl.int_range(pl.len()) == 0
    )  # a small log may have no cancellation, which a signal counts
    near = near.with_columns(kind=pl.when(rare).then(pl.lit("cancel")).otherwise("kind"))
    day = pl.int_range(pl.len()) * 7_919 % YEARS_DAYS  # each event on a day of its own choice
    moved = (
        pl.lit(START) + pl.duration(days=day) + (pl.col("time") - pl.col("time").dt.truncate("1d"))
    )
    stranger = near.head(1).with_columns(
        event_id=pl.lit("far"),
        user_id=pl.lit("stranger"),
        time=pl.lit(FAR).cast(near.schema["time"]),
    )
    logs = {
        "near": near,
        "far": pl.concat([near, stranger]),
        "years": near.with_columns(time=moved, ingested_at=moved),
    }
    found: dict[str, Any] = {name: {} for name in logs}
    lakes: dict[str, Lake] = {}
    for name, frame in logs.items():
        lakes[name] = Lake.open(place / name)
        lakes[name].append(
            "all",
            events=frame,
            watermark=START + timedelta(days=YEARS_DAYS if name == "years" else NEAR_DAYS),
        )
    for _ in range(repeats):
        for signals in [*([one] for one in ready()), list(ready())]:
            word = signals[0].name if len(signals) == 1 else "all"
            for name, lake in lakes.items():
                with connected(lake) as con:
                    found[name].setdefault(word, []).append(
                        cpu(partial(outcome_tables, con, signals, lake, lake, lake.watermark))
                    )
    return found


def same(one: SignalStore, other: SignalStore, signal: Signal) -> bool:
    """Whether two stores hold the same rows of a signal."""
    with duckdb.connect() as con:
        sides = (one.sql(signal), other.sql(signal))
        return all(
            con.execute(f"select count(*) from ({a} except all {b})").fetchall() == [(0,)]
            for a, b in (sides, sides[::-1])
        )


def median(times: list[list[float]] | list[tuple[float, float]]) -> float:
    """Median CPU seconds."""
    return statistics.median(cpu_seconds for cpu_seconds, _ in times)


def rows_of_speed(word: str, found: dict[str, Any]) -> list[dict[str, Any]]:
    """The claims on one size."""
    ours = {name: median(one["ours"]) for name, one in found["signals"].items()}
    hand = {name: min(median(way) for way in one["hand"]) for name, one in found["signals"].items()}
    scans = {name: median(one["scan"]) for name, one in found["signals"].items()}
    to_hand, to_scan = (
        {name: ours[name] / other[name] for name in ours} for other in (hand, scans)
    )
    one_pass = median(found["shared"])
    return [
        claim(
            f"{word} events: CPU of a ready signal over the best SQL by hand, median of 13",
            to_hand,
            "<= 1.3",
            lambda x: x <= 1.3,
        ),
        claim(
            f"{word} events: CPU of a ready signal over a scan of its columns, median of 13",
            to_scan,
            "<= 7",
            lambda x: x <= 7,
        ),
        claim(
            f"{word} events: all 13 in one pass over the sum of their separate costs",
            [one_pass / sum(ours.values())],
            "<= .40",
            lambda x: x <= 0.4,
        ),
        claim(
            f"{word} events: CPU seconds of all 13 in one pass", [one_pass], "none", lambda x: True
        ),
    ]


def rows_of_night(word: str, found: dict[str, Any]) -> list[dict[str, Any]]:
    """The claims on the night of one size."""
    share = [one[0] / other[0] for one, other in zip(found["update"], found["rebuild"])]
    late = [found["late"][0][0] / median(found["rebuild"])]
    return [
        claim(
            f"{word} events: one day appended to 179, CPU over that of a rebuild",
            share,
            "<= .10",
            lambda x: x <= 0.1,
        ),
        claim(
            f"{word} events: rows after that day equal a rebuild's",
            [float(found["equal"])],
            "1",
            lambda x: x == 1,
        ),
        claim(
            f"{word} events: late events of three days re-open these days only, rows equal a "
            "rebuild's",
            [float(found["late_equal"] and found["late_as_asked"])],
            "1",
            lambda x: x == 1,
        ),
        claim(
            f"{word} events: an update with late events of three days, CPU over that of a rebuild",
            late,
            "none",
            lambda x: True,
        ),
    ]


def rows_of_span(word: str, found: dict[str, Any]) -> list[dict[str, Any]]:
    """The claims on what years add."""
    cost = {
        name: {signal: median(times) for signal, times in by_signal.items()}
        for name, by_signal in found.items()
    }
    far, years = (
        {one.name: cost[name][one.name] / cost["near"][one.name] for one in ready()}
        for name in ("far", "years")
    )
    together = [cost["years"]["all"] / cost["near"]["all"]]
    return [
        claim(
            f"{word} events of 120 days and one of 2005: CPU of a ready signal over that without "
            "it, median of 13",
            far,
            "<= 2",
            lambda x: x <= 2,
        ),
        claim(
            f"{word} events over 21 years: CPU of a ready signal over that of as many in 120 "
            "days, median of 13",
            years,
            "<= 5",
            lambda x: x <= 5,
        ),
        claim(
            f"{word} events over 21 years: CPU of all 13 in one pass over that of as many in 120 "
            "days",
            together,
            "<= 5",
            lambda x: x <= 5,
        ),
    ]


def rows_of(
    sizes: tuple[int, ...], nights: tuple[int, ...], spans: tuple[int, ...] = ()
) -> list[dict[str, Any]]:
    """The claims on all sizes."""
    rows = []
    for events in sizes:
        rows += rows_of_speed(WORDS.get(events, f"{events:,}"), speed(events=events))
    if {10_000_000, 100_000_000} <= set(sizes):
        by_signal = growth(few=10_000_000, many=100_000_000)
        rows.append(
            claim(
                "growth of CPU from 10M to 100M events, median of 13",
                by_signal,
                "<= 12",
                lambda x: x <= 12,
            )
        )
        words = "100M events, DuckDB held to 4 GB: peak memory of the process, Python included, GB"
        rows.append(
            claim(
                words,
                [speed(events=100_000_000)["peak_gb"]],
                "none: it ran through within the limit",
                lambda x: True,
            )
        )
    for events in nights:
        rows += rows_of_night(WORDS.get(events, f"{events:,}"), night(events=events))
    for events in spans:
        rows += rows_of_span(f"{events // 1_000}k", span(events=events))
    for row in rows:  # what the README quotes
        row["readme"] = row["claim"].startswith(
            ("10M events: CPU of a ready signal", "10M events: one day")
        )
    return rows


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true", help="a small log, nothing remembered")
    options.add_argument("--json", type=Path)
    options.add_argument("--sizes", type=int, nargs="*", default=list(SIZES))
    options.add_argument("--nights", type=int, nargs="*", default=list(SIZES))
    options.add_argument("--spans", type=int, nargs="*", default=[SPAN_EVENTS])
    options.add_argument("--engine", choices=["duckdb", "spark"], default="duckdb")
    options.add_argument("--master", default="local[2]", help="where Spark runs")
    given = options.parse_args()
    if given.engine == "spark":
        sizes = signals_spark.SIZES if given.sizes == list(SIZES) else tuple(given.sizes)
        rows = signals_spark.rows_of(sizes, given.master)
    elif given.quick:
        with tempfile.TemporaryDirectory() as name:
            place, events = Path(name), 60_000
            big_log(events, place / "lake", QUICK_DAYS - 1)  # what `measure_night` begins with
            shutil.copytree(place / "lake", place / "speed")
            append_day(FolderStore(place / "speed"), events, QUICK_DAYS - 1)
            rows = rows_of_speed("60k", measure_speed(Lake.open(place / "speed"), 1, QUICK_DAYS))
            rows += rows_of_night("60k", measure_night(events, place, QUICK_DAYS, 1))
            rows += rows_of_span("6k", measure_span(6_000, place / "spans", 1))
    else:
        rows = rows_of(tuple(given.sizes), tuple(given.nights), tuple(given.spans))
    for row in rows:
        print(
            f"{row['claim']}: {row['value']:.3g}"
            + (f" ({row['low']:.3g} to {row['high']:.3g})" if row["low"] is not None else "")
            + f", bar {row['bar']}"
        )
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
