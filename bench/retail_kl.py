"""How much divergence from the start pays on the retail log, chosen without looking at its future.

Everything happens before the retail run's own cut (2011-06-01): a shorter signal (bought again
within 28 days), trained on events before 2011-04-01, judged on discoveries to 2011-05-02, whose
windows close by 2011-05-31. Both ways of learning get the same grid.
"""

from __future__ import annotations

import argparse
import json
import sys
from datetime import UTC, datetime
from pathlib import Path

import torch

import longplay as lp
from longplay.lake.adapters import read_retail
from longplay.ranking import paired_difference

LOG = Path(__file__).resolve().parents[2] / "shared/data/online_retail/online_retail.parquet"
GRID = (1.0, 2.0, 4.0, 8.0, 16.0)
CUT, END, KNOWN = (
    datetime(2011, month, day, tzinfo=UTC) for month, day in ((4, 1), (5, 3), (6, 1))
)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument(
        "--quick", action="store_true", help="one grid point, few steps: shows that the script runs"
    )
    options.add_argument("--json", type=Path, help="write the rows here")
    options.add_argument("--seed", type=int, default=7)
    given = options.parse_args()
    if not LOG.exists():
        sys.exit(f"{LOG} is not there; see docs/data.md")
    torch.set_num_threads(1)
    rows = run(
        (GRID[1],) if given.quick else GRID,
        5 if given.quick else 600,
        3 if given.quick else 150,
        given.seed,
        40 if given.quick else None,
    )
    for row in rows:
        print(f"{row['claim']}: {row['value']:.4f} [{row['low']:.4f}, {row['high']:.4f}]")
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1))


def run(
    grid: tuple[float, ...], train_steps: int, steps: int, seed: int, visits: int | None
) -> list[dict[str, object]]:
    source = read_retail(LOG)
    lake = lp.Lake.memory()
    lake.append(
        "retail",
        events=source.events,
        items=source.items,
        rejected=source.rejected,
        max_bad_share=0.26,
    )
    known = lake.before(KNOWN)
    past = known.before(CUT)
    habit = lp.Signal(
        "again", entry=lp.discovery(None, "item"), measure=lp.days_with("item") >= 1, window=(1, 28)
    )
    early = lp.ProgressiveReward(habit).fit(past, habit.outcomes(past))
    start = lp.Generative(seed=seed, steps=train_steps).fit(past)
    future = lp.future_of(
        habit.outcomes(known), known, start=CUT, end=END, history=start.history, limit=visits
    )
    reward = lp.Reward({habit: 1.0}, caution=1.0)
    base = lp.top_items(start, future.contexts, 50)
    rows = [_row("start", lp.rank_metrics(base, future)["habit NDCG@10"], seed)]
    for kl in grid:
        for name, learn in (("reinforced", lp.reinforce), ("reward-weighted", lp.reward_weighted)):
            tuned = learn(start, reward, early, past, steps=steps, seed=seed, kl=kl)
            top = lp.top_items(tuned, future.contexts, 50)
            rows.append(
                _row(f"{name}, kl {kl:g}", lp.rank_metrics(top, future)["habit NDCG@10"], seed)
            )
            rows.append(
                _row(
                    f"{name}, kl {kl:g}, less the start",
                    paired_difference(top, base, future, 10, habit=True),
                    seed,
                )
            )
            print(f"{rows[-2]['claim']} {rows[-2]['value']:.4f}", file=sys.stderr)
    return rows


def _row(claim: str, estimate: lp.Estimate, seed: int) -> dict[str, object]:
    low, high = estimate.interval()
    return {
        "claim": f"retail, validation before 2011-06: habit NDCG@10, {claim}",
        "value": estimate.value,
        "low": low,
        "high": high,
        "bar": "none: chooses kl",
        "ok": True,
        "seeds": 1,
        "command": f"python bench/retail_kl.py --seed {seed}",
    }


if __name__ == "__main__":
    main()
