"""Parts "labels" and "cost" of `bench/rewards.py`: what the sequence reward learns from, and what a pair of
user and item costs."""

from __future__ import annotations

import sys
import time
from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl
from rankers import HABIT, Case, logged
from remembered import remembered

import longplay as lp
from longplay.decisions import Contexts
from longplay.estimate import clustered_mean
from longplay.rewards.sequence.event_tokens import EventTokens

LABELS = ("days", "teacher", "matured")


@remembered(version=1)
def label_losses(
    *, world: str, users: int, items: int, log_days: int, later_days: int, members: int, seed: int
) -> dict[str, list[float]]:
    """Log-loss of beliefs in new entries before any day of them, by what the sequence reward learnt from:
    mean, and mean and standard error of what it loses beyond mature outcomes alone. Entries are of the 12
    days after the log that it is fitted on."""
    lake = logged(Case(world, users, items, 0, log_days + later_days, 0, seed)).lake
    split = lake.watermark - timedelta(days=later_days)
    later = HABIT.outcomes(lake).entered(split, split + timedelta(days=12))
    later = later.where(later.known)
    past = lake.before(split)
    outcomes = HABIT.outcomes(past)
    losses = {}
    for labels in LABELS[::-1]:
        print(f"{world}, seed {seed}: labels={labels}", file=sys.stderr, flush=True)
        early = lp.SequenceReward(HABIT, members=members, labels=labels)
        early = early.fit(past, outcomes, progress=False)
        mean_N = np.clip(early.belief(later, 0).mean, 1e-4, 1 - 1e-4)
        losses[labels] = -np.where(later.value > 0, np.log(mean_N), np.log1p(-mean_N))
    user_N = later.frame["user_id"].to_numpy()
    result = {}
    for labels, loss_N in losses.items():
        beyond = clustered_mean(loss_N - losses["matured"], user_N, estimand=labels)
        result[labels] = [float(loss_N.mean()), beyond.value, beyond.std_error]
    return result


@remembered(version=1)
def pair_costs(
    *, world: str, users: int, items: int, log_days: int, visits: int, again: int, seed: int
) -> dict[str, float]:
    """CPU microseconds per (user, item) pair: the value of a whole catalogue by the sequence reward, and
    the same networks reading history and candidate as one sequence for every pair. Medians of runs in
    turn."""
    log = logged(Case(world, users, items, 0, log_days, 0, seed))
    service, lake = log.service, log.lake
    early = lp.SequenceReward(HABIT, steps=20).fit(lake, HABIT.outcomes(lake), progress=False)
    ids = service.items["item_id"]
    alive = np.flatnonzero(service.state.alive_R)
    assert early.ensemble is not None
    tokens = EventTokens.of(lake, early.ensemble.vocabulary)
    by_turn: dict[str, list[float]] = {"state once": [], "every pair": []}
    early.item_value(
        Contexts.of(service.user_ids.gather(alive[:1]), service.now, slots=5), ids, lake
    )
    for turn in range(5):
        first = 1 + turn * (visits + again)
        for name, rows in (
            ("state once", alive[first : first + visits]),
            ("every pair", alive[first + visits : first + visits + again]),
        ):
            contexts = Contexts.of(service.user_ids.gather(rows), service.now, slots=5)
            started = time.process_time()
            if name == "state once":
                early.item_value(contexts, ids, lake)
            else:
                encode_every_pair(early, contexts, ids, tokens)
            seconds = time.process_time() - started
            by_turn[name].append(1e6 * seconds / (len(rows) * len(ids)))
    return {name: float(np.median(costs)) for name, costs in by_turn.items()}


def encode_every_pair(
    early: lp.SequenceReward, contexts: Contexts, items: pl.Series, tokens: EventTokens
) -> None:
    """Read each user's history with each candidate behind it, by every network of the ensemble."""
    import torch

    from longplay.rewards.sequence.network import MOMENT, Batch, as_batch

    ensemble = early.ensemble
    assert ensemble is not None
    vocabulary = ensemble.vocabulary
    time_N = contexts.frame["time"].dt.epoch("us").to_numpy()
    events = tokens.before(tokens.users.rows(contexts.frame["user_id"]), time_N)
    item_I = torch.as_tensor(vocabulary.items.rows(items))
    key_I = torch.as_tensor(vocabulary.key_I)[item_I] + 1
    play = int(vocabulary.kind(pl.Series(["play"]))[0])
    with torch.no_grad():
        for visit in range(len(events)):
            history = as_batch(events.take(np.array([visit])))
            day = history.day[:, -1:] if history.day.shape[1] else torch.zeros(1, 1)
            for part in torch.arange(len(item_I)).split(512):
                columns = [column.expand(len(part), -1) for column in history]
                last = Batch(
                    torch.full((len(part), 1), play),
                    torch.zeros(len(part), 1, dtype=torch.long),
                    torch.zeros(len(part), 1, dtype=torch.long),
                    key_I[part, None],
                    item_I[part, None],
                    torch.zeros(len(part), 1),
                    day.expand(len(part), 1),
                )
                batch = Batch(*(torch.cat(pair, 1) for pair in zip(columns, last, strict=True)))
                for member in ensemble.members:
                    state = member.states(batch)[:, -1]
                    member.of_moments(
                        state, torch.zeros(len(part), MOMENT), torch.zeros(len(part), 0)
                    )


def label_rows(quick: bool) -> list[dict[str, Any]]:
    """Whether the labels of a teacher, who sees the first days of entries, teach more than mature outcomes."""
    sizes = {"users": 8_000, "items": 2_000, "log_days": 84, "later_days": 42, "members": 2}
    if quick:
        sizes = {"users": 200, "items": 60, "log_days": 75, "later_days": 42, "members": 1}
    losses = label_losses(world="weary", seed=7, **sizes)
    rows = []
    for labels in LABELS[:-1]:
        _, value, error = losses[labels]
        rows.append(
            {
                "claim": f"rewards, weary: log-loss of new entries beyond mature outcomes, {labels}",
                "value": value,
                "low": value - 1.96 * error,
                "high": value + 1.96 * error,
                "bar": "< 0",
                "ok": value + 1.96 * error < 0,
                "seeds": 1,
                "command": "python bench/rewards.py --parts labels",
            }
        )
    return rows


def cost_rows(quick: bool) -> list[dict[str, Any]]:
    """What a pair of the sequence reward costs, and how much less that is than to read the history again
    for every pair."""
    sizes = {"users": 4_000, "items": 2_000, "log_days": 84, "visits": 200, "again": 4}
    if quick:
        sizes = {"users": 200, "items": 60, "log_days": 75, "visits": 10, "again": 2}
    costs = pair_costs(world="weary", seed=7, **sizes)
    times = costs["every pair"] / costs["state once"]
    row = {"low": None, "high": None, "seeds": 1, "command": "python bench/rewards.py --parts cost"}
    return [
        {
            "claim": "rewards: CPU microseconds per (user, item) pair, sequence reward",
            "value": costs["state once"],
            "bar": "none: reported",
            "ok": True,
            **row,
        },
        {
            "claim": "rewards: history and candidate read as one sequence, times as much per pair",
            "value": times,
            "bar": ">= 20",
            "ok": times >= 20,
            **row,
        },
    ]
