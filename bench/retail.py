"""The retail run, end to end, in a folder of its own: what it costs, and what came of it."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from longplay.results.ranking_figures import EvaluateResult
from longplay.results.reward_figures import RewardResult
from longplay.run.engine import read_stage

ROOT = Path(__file__).resolve().parents[1]
RUN = ROOT / "examples" / "retail.toml"
LOG = ROOT.parent / "shared/data/online_retail/online_retail.parquet"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true", help="the log and its signals only")
    options.add_argument("--json", type=Path, help="write the rows here")
    given = options.parse_args()
    if not LOG.exists():
        sys.exit(f"{LOG} is not there; see docs/data.md")
    with tempfile.TemporaryDirectory() as folder:
        verb = "outcomes" if given.quick else "run"
        begun = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "longplay", verb, str(RUN), "--folder", folder], check=True
        )
        seconds = time.perf_counter() - begun
        begun = time.perf_counter()
        again = subprocess.run(
            [sys.executable, "-m", "longplay", verb, str(RUN), "--folder", folder],
            check=True,
            capture_output=True,
            text=True,
        )
        rows = costs(Path(folder), seconds, time.perf_counter() - begun, again.stdout) + (
            [] if given.quick else findings(Path(folder))
        )
    for row in rows:
        print(f"{row['claim']}: {row['value']:.4g} ({row['low']}, {row['high']})")
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1))


def costs(folder: Path, seconds: float, again: float, lines: str) -> list[dict[str, Any]]:
    """Wall time and memory of a first run, and whether a second skipped everything."""
    timings = [json.loads(path.read_text()) for path in folder.glob("*/*/timing.json")]
    finished = [line for line in lines.splitlines() if line.startswith(("✓", "·"))]
    return [
        row("first run, seconds", seconds, "under 600", seconds < 600),
        row(
            "first run, peak memory, GB",
            max(timing["peak_gb"] for timing in timings),
            "under 8",
            max(timing["peak_gb"] for timing in timings) < 8,
        ),
        row(
            "second run, stages that ran again",
            sum(line.startswith("✓") for line in finished),
            "0",
            all(line.startswith("·") for line in finished),
        ),
        row("second run, seconds", again, "none: reported", True),
    ]


def findings(folder: Path) -> list[dict[str, Any]]:
    """Ranking on the future, with user-clustered intervals, and the early rewards' losses."""
    (place,) = folder.glob("evaluate/*")
    result = read_stage("evaluate", place)
    assert isinstance(result, EvaluateResult)
    rows = [
        row(
            f"{figure.metric}, {figure.policy}",
            figure.value,
            "none: reported",
            True,
            *figure.estimate.interval(),
        )
        for figure in result.ranking
        if figure.metric in ("NDCG@10", "habit NDCG@10")
    ]
    for pair in result.differences:
        bar = (
            "interval above 0"
            if (pair.policy, pair.than) == ("start", "popular")
            else "none: reported either way"
        )
        low, high = pair.difference.interval()
        ok = low > 0 or bar.startswith("none")
        claim = f"{pair.metric}, {pair.policy} less {pair.than}"
        rows.append(row(claim, pair.difference.value, bar, ok, low, high))
    (place,) = folder.glob("reward/*")
    rewards = read_stage("reward", place)
    assert isinstance(rewards, RewardResult)
    for score in rewards.signals["habit"].comparison:
        half = 1.96 * score.difference_se
        rows.append(
            row(
                f"log loss at age 14, {score.model} less the prior alone",
                score.difference,
                "none: reported",
                True,
                score.difference - half,
                score.difference + half,
            )
        )
    return rows


def row(
    claim: str,
    value: float,
    bar: str,
    ok: bool,
    low: float | None = None,
    high: float | None = None,
) -> dict[str, Any]:
    return {
        "claim": f"retail: {claim}",
        "value": float(value),
        "low": low,
        "high": high,
        "bar": bar,
        "ok": bool(ok),
        "seeds": 1,
        "command": "python bench/retail.py",
        "readme": "habit NDCG@10" in claim or "first run" in claim,
    }


if __name__ == "__main__":
    main()
