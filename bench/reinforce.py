"""In a simulated service, does learning from a reward raise the true value of what is shown? Parts:
"slots", true value per slot of reinforcement over seeds; "headline", true active days of users who
live under each way of learning (`ways`).

A seed is a catalogue, its listeners, their luck, the policy's weights and the order of training.
True values come from the world (`World.true_value`), which no policy sees.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from remembered import remembered
from rewards import merged
from ways import SIZES, headline_rows

import longplay as lp
from longplay.decisions import contexts_at
from longplay.estimate import Estimate, clustered_mean
from longplay.learning.rollout import enough_left

PARTS = ("slots", "headline")
HABIT = lp.Signal(
    "habit", entry=lp.discovery(novel_for=28), measure=lp.days_with("creator") >= 3, window=(1, 28)
)


@dataclass(frozen=True)
class Size:
    """How large one seed's world and training are."""

    users: int = 2_000
    items: int = 600
    days: int = 84
    train_steps: int = 400
    steps: int = 100
    judged_users: int = 2_000


FULL = Size()
SHORT = Size(
    train_steps=300, steps=15, judged_users=1_500
)  # the same world with less training: what `make test-all` can afford
ONE = Size(
    users=1_200, items=300, days=70, train_steps=80, steps=12, judged_users=600
)  # and `make test`, for one seed
QUICK = Size(users=150, items=60, days=40, train_steps=20, steps=3, judged_users=50)


def one_seed(
    seed: int, size: Size, *, lr: float = 1e-3, kl: float = 0.2, weighted: bool = True
) -> dict[str, float]:
    """True value per slot of popular, start, reinforced and reward-weighted slates, the KL and the
    believed values."""
    world = lp.World(users=size.users, items=size.items, seed=seed)
    lake = world.run(lp.Popular(slate=5, explore=0.2), days=size.days)
    early = lp.ProgressiveReward(HABIT).fit(lake, HABIT.outcomes(lake))
    start = lp.Generative(seed=seed, exclude="creator", steps=size.train_steps).fit(lake)
    reward = lp.Reward({HABIT: 1.0}, caution=1.0)
    policies = {"popular": lp.Popular().fit(lake), "start": start}
    policies["reinforced"] = lp.reinforce(
        start, reward, early, lake, steps=size.steps, seed=seed, kl=kl, lr=lr
    )
    if weighted:
        policies["reward-weighted"] = lp.reward_weighted(
            start, reward, early, lake, steps=size.steps, seed=seed, kl=kl, lr=lr
        )
    alive = world.users.filter(pl.col("alive"))["user_id"].sort()
    chosen = np.sort(
        np.random.default_rng(seed).choice(
            len(alive), min(size.judged_users, len(alive)), replace=False
        )
    )
    moments = pl.DataFrame({"user_id": alive.gather(chosen)}).with_columns(time=pl.lit(world.now))
    contexts = contexts_at(lake, moments, slots=5, history=start.history, exclude="creator")
    contexts = enough_left(contexts, start, 5)
    figures: dict[str, float] = {}
    value_U = {}
    for name, policy in policies.items():
        slates = policy.decide(contexts, np.random.default_rng([seed, 1])).slates
        value_U[name] = world.true_value(
            contexts.frame["user_id"], slates, HABIT, together=True
        ).mean(axis=1)
        figures[name] = float(value_U[name].mean())
        figures[f"{name}, believed"] = float(
            reward.combined(early, contexts, slates, lake).mean.mean()
        )
    figures["reinforced less start, low"] = clustered_mean(
        value_U["reinforced"] - value_U["start"]
    ).interval()[0]  # of this seed's users
    drawn = policies["reinforced"].decide(contexts, np.random.default_rng([seed, 2]))
    figures["kl"] = float((drawn.log_prob - start.log_prob(contexts, drawn.slates)).mean())
    return figures


@remembered(version=1)
def full_seed(seed: int, kl: float) -> dict[str, float]:
    """`one_seed` at full size, kept on disk: ten of them take a quarter of an hour."""
    return one_seed(seed, FULL, kl=kl)


def difference(rows: list[dict[str, float]], ours: str, base: str) -> Estimate:
    """Mean over seeds of the paired difference in true value per slot, with a Student interval over
    seeds."""
    return clustered_mean(
        [row[ours] - row[base] for row in rows],
        estimand=f"true value per slot, {ours} less {base}, over seeds",
    )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument(
        "--quick",
        action="store_true",
        help="two tiny seeds: shows that the script runs, proves nothing",
    )
    options.add_argument("--json", type=Path, help="write the rows here")
    options.add_argument("--parts", nargs="*", choices=PARTS, default=PARTS)
    options.add_argument("--worlds", nargs="*", default=list(SIZES), help="of the headline")
    options.add_argument("--seeds", type=int, default=10)
    options.add_argument("--kl", type=float, default=0.2)
    given = options.parse_args()
    torch.set_num_threads(1)
    answer = slot_rows(given) if "slots" in given.parts else []
    if "headline" in given.parts:
        worlds = given.worlds[:1] if given.quick else given.worlds
        rows = headline_rows(worlds, 1 if given.quick else given.seeds, quick=given.quick)
        for row in rows:
            print(f"{row['value']:9.3f}  {row['claim']}  {row['bar']}")
        answer += rows
    if given.json:
        given.json.write_text(json.dumps(merged(given.json, answer), indent=1) + "\n")


def slot_rows(given: argparse.Namespace) -> list[dict[str, Any]]:
    """True value per slot in a small service, over seeds."""
    command = f"python bench/reinforce.py --parts slots --seeds {given.seeds} --kl {given.kl:g}"
    seeds = 2 if given.quick else given.seeds
    rows = []
    for seed in range(1, seeds + 1):
        rows.append(
            one_seed(seed, QUICK, kl=given.kl) if given.quick else full_seed(seed=seed, kl=given.kl)
        )
        print(seed, {name: round(value, 5) for name, value in rows[-1].items()}, flush=True)
    claims = [
        ("reinforced less start", difference(rows, "reinforced", "start"), "interval above 0"),
        ("start less popular", difference(rows, "start", "popular"), "interval above 0"),
        (
            "reinforced less reward-weighted",
            difference(rows, "reinforced", "reward-weighted"),
            "none: reported either way",
        ),
        (
            "reward-weighted less start",
            difference(rows, "reward-weighted", "start"),
            "none: reported either way",
        ),
        ("KL to the start per slot, nats", clustered_mean([row["kl"] for row in rows]), "above 0"),
        (
            "believed less true value, reinforced",
            clustered_mean([row["reinforced, believed"] - row["reinforced"] for row in rows]),
            "none: over-optimism",
        ),
    ]
    answer = []
    for claim, estimate, bar in claims:
        low, high = estimate.interval()
        print(f"{claim}: {estimate.value:.5f} [{low:.5f}, {high:.5f}] over {seeds} seeds")
        answer.append(
            {
                "claim": f"small simulated service, true value of showing: {claim}",
                "value": estimate.value,
                "low": low,
                "high": high,
                "bar": bar,
                "ok": bool(low > 0 or bar.startswith("none")),
                "seeds": seeds,
                "command": command,
                "readme": True,
            }
        )
    return answer


if __name__ == "__main__":
    main()
