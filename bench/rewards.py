"""What a reward of showing is worth, whether it keeps its word, and what it costs.

Parts: "gains", of greedy rankers in true active days (`rankers`); "calibration" and "ranks", by age
(`reward_checks`); "labels" and "cost" of the sequence reward (`sequence_reward`).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rankers import LIVED, VERSIONS, Case, correlations, gains
from reward_checks import calibration_rows, rank_rows
from reward_truth import Float
from sequence_reward import cost_rows, label_rows


def interval_of(
    statistic: Callable[[list[dict[str, Float]]], float], per_seed: list[dict[str, Float]]
) -> tuple[float, float, float]:
    """The statistic of all seeds and its 95% interval: users of each seed drawn anew, 500 times."""
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(500):
        row_by_seed = [rng.integers(0, len(gain["log"]), len(gain["log"])) for gain in per_seed]
        drawn.append(
            statistic(
                [
                    {name: gain_U[rows] for name, gain_U in gain.items()}
                    for gain, rows in zip(per_seed, row_by_seed, strict=True)
                ]
            )
        )
    low, high = np.quantile(drawn, [0.025, 0.975])
    return statistic(per_seed), float(low), float(high)


def pooled(per_seed: list[dict[str, Float]], name: str) -> float:
    """Mean gain over seeds."""
    return float(np.mean([gain[name].mean() for gain in per_seed]))


BARS = (  # ratio of two rankers' gains, its bar, whether it is an aim
    ("log", "ridge, factors shuffled", 1.1, ">="),
    ("log", "ridge, factors", 0.7, ">="),
    ("factors", "ridge, factors", 1.0, ">="),
    ("log", "full knowledge", 0.4, "aim"),
    ("factors", "full knowledge", 0.6, "aim"),
    ("log, personal", "ridge, factors shuffled", 1.1, ">="),
    ("log, personal", "ridge, factors", 0.7, ">="),
    ("factors, personal", "ridge, factors", 1.0, ">="),
    ("log, personal", "full knowledge", 0.4, "aim"),
    ("factors, personal", "full knowledge", 0.6, "aim"),
)


def table(world: str, users: int, seeds: int, quick: bool) -> list[dict[str, Any]]:
    """Rows of one world."""
    sizes = (
        {"users": 200, "items": 60, "judged": 60, "log_days": 75, "lived": 5}
        if quick
        else {"users": users, "items": 2_000, "judged": 1_000, "log_days": 84, "lived": LIVED}
    )
    # the sequence reward takes a minute to fit, and is judged where histories are thin
    groups = ("insiders", "ridges", "ours", *(["sequences"] if world == "weary" else []))
    cases = [Case(world=world, seed=7 + seed, **sizes) for seed in range(seeds)]
    per_seed, personals = [], []
    for case in cases:  # a case at a time: its models are kept in memory
        per_seed.append(gains(case, groups))
        personals.append(correlations(case=case, version=VERSIONS["ours"]))
    command = f"python bench/rewards.py --parts gains --worlds {world} --seeds {seeds}"

    def row(
        claim: str, value: float, low: float, high: float, bar: str, ok: bool
    ) -> dict[str, Any]:
        return {
            "claim": f"rewards, {world}: {claim}",
            "value": value,
            "low": low,
            "high": high,
            "bar": bar,
            "ok": ok,
            "seeds": seeds,
            "command": command,
        }

    rows = []
    for name in per_seed[0]:
        ends = interval_of(lambda drawn, name=name: pooled(drawn, name), per_seed)
        rows.append(
            row(f"active days of {LIVED} over popularity, {name}", *ends, "none: reported", True)
        )
    for name, other, bar, kind in BARS:
        ends = interval_of(
            lambda drawn, name=name, other=other: (
                pooled(drawn, name) / (pooled(drawn, other) or 1.0)
            ),
            per_seed,
        )
        rows.append(row(f"{name}, over {other}", *ends, f"{kind} {bar:g}", ends[0] >= bar))
    if world == "weary":
        ends = interval_of(
            lambda drawn: pooled(drawn, "rates, repetition") - pooled(drawn, "rates"), per_seed
        )
        rows.append(row("repetition beyond rates, active days", *ends, ">= .10", ends[0] >= 0.1))
    bars = {"log": 0.1, "log, personal": 0.1, "factors": 0.65, "factors, personal": 0.65}
    for name in personals[0]:
        value_by_seed = [correlation[name] for correlation in personals]
        value, bar = float(np.mean(value_by_seed)), bars.get(name)
        rows.append(
            row(
                f"personal correlation, {name}",
                value,
                min(value_by_seed),
                max(value_by_seed),
                "none: reported" if bar is None else f">= {bar:g}",
                bar is None or value >= bar,
            )
        )
    return rows


PARTS = ("gains", "calibration", "ranks", "labels", "cost")
WORLDS = {"weary": 15_000, "default": 5_000, "clickbait": 5_000}


def main() -> None:
    """Compute the rows, print them, and write them to a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=PARTS)
    parser.add_argument("--worlds", nargs="*", default=[*WORLDS, "retail"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="small, for a test")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = []
    worlds = [world for world in options.worlds if world in WORLDS]
    seeds = options.seeds
    sizes = {world: {"users": WORLDS[world], "items": 2_000, "days": 84} for world in worlds}
    logs = dict(sizes)
    if "retail" in options.worlds:
        logs["retail"] = {"users": 0, "items": 0, "days": 0}
    if options.quick:
        worlds, seeds = worlds[:1], 1
        sizes = logs = {world: {"users": 300, "items": 60, "days": 60} for world in worlds}
    if "gains" in options.parts:
        for world in worlds:
            rows += table(world, WORLDS[world], seeds, options.quick)
    if "calibration" in options.parts:
        rows += calibration_rows(logs, seeds)
    if "ranks" in options.parts:
        few = {"draws": 20} if options.quick else {}
        rows += rank_rows({world: size | few for world, size in sizes.items()}, seeds)
    if "labels" in options.parts:
        rows += label_rows(options.quick)
    if "cost" in options.parts:
        rows += cost_rows(options.quick)
    for row in rows:
        print(f"{row['value']:9.3f}  {row['claim']}  {row['bar']}")
    if options.json:
        options.json.write_text(json.dumps(merged(options.json, rows), indent=1) + "\n")


def merged(file: Path, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of a file with these in place of all that the same commands wrote, with any seeds."""
    older = json.loads(file.read_text()) if file.exists() else []

    def written_by(row: dict[str, Any]) -> str:
        return row["command"].split(" --seeds")[0]

    fresh = {written_by(row) for row in rows}
    return [row for row in older if written_by(row) not in fresh] + rows


if __name__ == "__main__":
    main()
