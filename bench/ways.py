"""Ways of learning from a reward, in true active days of users who live under what they learned.

A case is a world, its catalogue, users and luck. Every policy starts from the same language model and
learns from the same log; language models end near one divergence from the start (`NATS`), rankers have
the same effective number of items. `insiders` know the world and bound what can be reached.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import polars as pl
import torch
from rankers import (
    HABIT,
    KNOWS,
    LIVED,
    Case,
    Logged,
    Ranker,
    Score,
    active_days,
    by_value,
    logged,
)
from remembered import remembered
from reward_truth import Float, true_chance, true_worth

import longplay as lp
from longplay.belief import Belief
from longplay.decisions import Contexts, contexts_from_log
from longplay.index import ItemIndex
from longplay.lake.storage import MemoryStore
from longplay.learning.leash import Leash
from longplay.learning.rollout import SAMPLE
from longplay.learning.variety import creator_of_leaves, variety
from longplay.learning.visits import visits_from_log
from longplay.rewards import EarlyReward

NATS = 2.0  # divergence from the start that every language model aims at
START_STEPS = 600
PLAYS = lp.Signal(
    "plays",
    entry=lp.exposure(of="item"),
    measure=lp.plays("item") >= 1,
    window=(0, 0),
    origin=("recommended",),
)
# steps of each way that take about as many CPU seconds as 400 of tilting
STEPS = {
    "tilt": 400,
    "reinforce": 190,
    "weighted_classification": 85,
    "reward_weighted": 100,
    "off_policy_gradient": 85,
    "preference_pairs": 180,
}
SMALL = 1_000  # users; cases with fewer show that the script runs, in a few steps
WAYS: Mapping[str, Callable[..., lp.Generative]] = {
    "tilt": lp.tilt,
    "reinforce": lp.reinforce,
    "weighted_classification": lp.weighted_classification,
    "reward_weighted": lp.reward_weighted,
    "off_policy_gradient": lp.off_policy_gradient,
    "preference_pairs": lp.preference_pairs,
}


@dataclass(frozen=True)
class Truth:
    """An early reward that knows the chance and the outcome of an entry as of the log's end, for every
    user and item, or for the mean user."""

    log: Logged
    is_of_users: bool = True
    name: str = "truth"
    signal: lp.Signal = HABIT
    association: bool = False

    def item_value(self, contexts: Contexts, items: pl.Series, lake: lp.Lake) -> Belief:
        """The true value of showing each item, [N, I]."""
        world = self.log.service
        column = world.catalogue.index.rows(items)
        if self.is_of_users:
            value_NI = (true_chance(world, contexts) * true_worth(world, contexts))[:, column]
        else:
            value_NI = np.tile(mean_value(self.log.case)[column], (len(contexts), 1))
        return Belief(
            value_NI, np.zeros_like(value_NI), np.zeros_like(value_NI), 0, self.signal.label
        )

    def value(self, contexts: Contexts, slates: pl.Series, lake: lp.Lake) -> Belief:
        """The true value of showing each slot's item, [N, S]."""
        catalogue = self.log.service.catalogue
        names = contexts.frame["user_id"].to_numpy()
        _, first, user_N = np.unique(names, return_index=True, return_inverse=True)
        value_UI = self.item_value(contexts.take(first), catalogue.index.ids, lake).mean
        value_NS = value_UI[user_N[:, None], catalogue.index.slate_rows(slates)]
        return Belief(
            value_NS, np.zeros_like(value_NS), np.zeros_like(value_NS), 0, self.signal.label
        )


@lru_cache(maxsize=2)
def mean_value(case: Case) -> Float:
    """The true value of showing each item to the mean of 1,000 users, [I]."""
    world = logged(case).service
    alive = np.flatnonzero(world.state.alive_R)[:1_000]
    contexts = Contexts.of(world.user_ids.gather(alive), world.now, slots=5)
    return (true_chance(world, contexts) * true_worth(world, contexts)).mean(axis=0)


@lru_cache(maxsize=2)
def log_of_others(case: Case) -> lp.Lake:
    """The log without the users who are judged: nobody is judged whom a language model was trained on.
    Early rewards are fitted on the log of all, as in a service."""
    log = logged(case)
    is_other = ~pl.col("user_id").is_in(log.service.user_ids.gather(log.judged).implode())
    store = MemoryStore()
    store.commit(
        "others",
        {
            "events": log.lake.events.filter(is_other),
            "decisions": log.lake.decisions.filter(is_other),
            "contexts": log.lake.contexts.filter(is_other),
            "items": log.lake.items,
            "users": log.lake.descriptions("users").filter(is_other),
        },
        log.lake.watermark,
    )
    return lp.Lake(store)


@lru_cache(maxsize=2)
def start_of(case: Case, knows: tuple[str, ...]) -> lp.Generative:
    """The language model trained on next items."""
    torch.set_num_threads(1)
    steps = START_STEPS if case.users >= SMALL else 5
    policy = lp.Generative(seed=case.seed, exclude="none", steps=steps, knows=knows)
    return policy.fit(log_of_others(case), progress=False)


@dataclass(frozen=True)
class Learned:
    """A row in which a language model learns.

    Attributes:
        way: name in `WAYS`.
        early: model of the early reward, "truth" or "mean truth".
        knows: what the service knows, for both.
        signal: what is believed in.
    """

    way: str = "tilt"
    early: str = "personal"
    knows: tuple[str, ...] = ()
    signal: lp.Signal = HABIT


MODELS: Mapping[str, type] = {
    "personal": lp.PersonalReward,
    "progressive": lp.ProgressiveReward,
    "auto_surrogate": lp.AutoSurrogate,
    "day_two": lp.DayTwo,
    "matured_only": lp.MaturedOnly,
}


def early_of(log: Logged, row: Learned) -> EarlyReward:
    """The early reward of a row."""
    if row.early in ("truth", "mean truth"):
        return Truth(log, row.early == "truth")
    if row.signal is HABIT and row.early in ("personal", "progressive"):
        return log.model(row.early, row.knows)
    model = MODELS[row.early](row.signal)
    return model.fit(log.lake, row.signal.outcomes(log.lake), progress=False)


def learned(log: Logged, row: Learned, nats: float | None = NATS) -> lp.Generative:
    """The policy of a row."""
    reward = lp.Reward({row.signal: 1.0}, caution=0.0)
    return WAYS[row.way](
        start_of(log.case, row.knows),
        reward,
        early_of(log, row),
        log_of_others(log.case),
        steps=STEPS[row.way] if log.case.users >= SMALL else 2,
        seed=log.case.seed,
        nats=nats,
        progress=False,
    )


def by_truth(is_of_users: bool, is_now: bool) -> Callable[[Logged], Score]:
    """The true value of showing: of users or of the mean user, at every visit or as of the log's end."""

    def made(log: Logged) -> Score:
        if not is_of_users:
            value_I = mean_value(log.case)
            return lambda world, contexts: np.tile(value_I, (len(contexts), 1))
        if is_now:
            return lambda world, contexts: (
                true_chance(world, contexts) * true_worth(world, contexts)
            )
        service = log.service
        users = ItemIndex(service.user_ids.gather(log.judged))
        contexts = Contexts.of(users.ids, service.now, slots=5)
        value_UI = true_chance(service, contexts) * true_worth(service, contexts)
        return lambda world, contexts: value_UI[users.rows(contexts.frame["user_id"])]

    return made


LEARNED: Mapping[str, Learned] = {
    "tilt, early": Learned(),
    "tilt, plays": Learned(early="matured_only", signal=PLAYS),
    "tilt, matured only": Learned(early="matured_only"),
    "tilt, day two": Learned(early="day_two"),
    "tilt, auto-surrogate": Learned(early="auto_surrogate"),
    "tilt, truth": Learned(early="truth"),
    "tilt, mean truth": Learned(early="mean truth"),
    "reinforce, early": Learned("reinforce"),
    "reinforce, truth": Learned("reinforce", early="truth"),
    "weighted classification, early": Learned("weighted_classification"),
    "reward-weighted, early": Learned("reward_weighted"),
    "off-policy gradient, early": Learned("off_policy_gradient"),
    "preference pairs, early": Learned("preference_pairs"),
    "tilt, early, factors": Learned(knows=KNOWS),
    "tilt, truth, factors": Learned(early="truth", knows=KNOWS),
}
RANKED: Mapping[str, Callable[[Logged], Score]] = {
    "ranker, early": by_value("personal"),
    "ranker, early, factors": by_value("personal", KNOWS),
    "ranker, mean truth": by_truth(is_of_users=False, is_now=False),
    "ranker, truth at the log's end": by_truth(is_of_users=True, is_now=False),
    "full knowledge": by_truth(is_of_users=True, is_now=True),
}
ROWS = ("popular", "start", *LEARNED, *RANKED)


@remembered(version=1)
def judged(*, case: Case, row: str, nats: float) -> dict[str, Any]:
    """Active days of each judged user under a policy, and what it shows."""
    print(f"{case.world}, seed {case.seed}: {row}", file=sys.stderr, flush=True)
    log = logged(case)
    begun = time.process_time()
    figures: dict[str, float] = {}
    if row == "popular":
        policy: Any = lp.Popular(slate=5, explore=0.1).fit(log.lake)
    elif row in RANKED:
        policy = Ranker(f"{row}@1", log.service.catalogue.index, RANKED[row](log))
    else:
        knows = LEARNED[row].knows if row in LEARNED else ()
        start = start_of(case, knows)
        begun = time.process_time()
        policy = learned(log, LEARNED[row], nats) if row in LEARNED else start
        figures = {"seconds": time.process_time() - begun} | shown(log, start, policy)
    days = active_days(log.service, policy, log.judged, case.lived, case.seed)
    return {"days": [int(x) for x in days], **figures}


def shown(log: Logged, start: lp.Generative, policy: lp.Generative) -> dict[str, float]:
    """Divergence from the start (nats), effective items of the first slot, coverage, creators per slate
    and NDCG@10 of a policy, on moments of the log."""
    moments = contexts_from_log(
        log.lake,
        slots=5,
        history=start.history,
        limit=SAMPLE,
        seed=log.case.seed,
        exclude="none",
        users=start.reads_users,
    )
    law_NI = np.exp(policy.item_log_prob(moments))
    visits = visits_from_log(start, log.lake, limit=SAMPLE, seed=log.case.seed)
    creator_I = creator_of_leaves(start, log.lake)
    return {
        "nats": Leash.of(1.0, start, moments, log.case.seed).nats(policy.decoder),
        "effective": float((1 / (law_NI**2).sum(axis=1)).mean()),
    } | variety(start, policy.decoder, moments, creator_I, visits, 5, log.case.seed)


SIZES = {
    "weary": {"users": 6_000, "items": 800},
    "default": {"users": 4_000, "items": 800},
    "clickbait": {"users": 4_000, "items": 800},
}
QUICK = {"users": 200, "items": 60, "judged": 50, "log_days": 75, "lived": 5}
BARS = (  # ratio of two rows' gains, and its bar
    ("tilt, mean truth", "ranker, mean truth", 0.9),
    ("tilt, truth, factors", "ranker, truth at the log's end", 0.7),
    ("tilt, early", "ranker, early", 0.8),
    ("tilt, early, factors", "ranker, early, factors", 0.8),
    ("reinforce, early", "ranker, early", 0.8),
)


def headline_rows(
    worlds: list[str], seeds: int, rows: tuple[str, ...] = ROWS, quick: bool = False
) -> list[dict[str, Any]]:
    """Rows of results of some worlds."""
    result = []
    for world in worlds:
        size = QUICK if quick else SIZES[world] | {"judged": 1_000, "log_days": 84, "lived": LIVED}
        cases = [Case(world=world, seed=7 + seed, **size) for seed in range(seeds)]
        found = {row: [judged(case=case, row=row, nats=NATS) for case in cases] for row in rows}
        result += table(world, seeds, found)
    return result


def table(
    world: str, seeds: int, found: Mapping[str, list[dict[str, Any]]]
) -> list[dict[str, Any]]:
    """Gains over popularity, their ratios and what policies show, in one world."""
    command = f"python bench/reinforce.py --parts headline --worlds {world} --seeds {seeds}"
    popular = [np.array(result["days"]) for result in found["popular"]]
    gain = {
        row: [
            np.array(result["days"]) - base for result, base in zip(results, popular, strict=True)
        ]
        for row, results in found.items()
        if row != "popular"
    }

    def claim(text: str, ends: tuple[float, float, float], bar: str, ok: bool) -> dict[str, Any]:
        value, low, high = ends
        return {
            "claim": f"learning, {world}: {text}",
            "value": value,
            "low": low,
            "high": high,
            "bar": bar,
            "ok": ok,
            "seeds": seeds,
            "command": command,
        }

    rows = []
    for row in gain:
        ends = interval(lambda drawn, row=row: pooled(drawn, row), gain)
        rows.append(
            claim(f"active days of {LIVED} over popularity, {row}", ends, "none: reported", True)
        )
    for row, other, bar in BARS:
        ends = interval(
            lambda drawn, row=row, other=other: pooled(drawn, row) / (pooled(drawn, other) or 1.0),
            gain,
        )
        rows.append(claim(f"{row}, over {other}", ends, f">= {bar:g}", ends[0] >= bar))
    ends = interval(lambda drawn: pooled(drawn, "tilt, early") - pooled(drawn, "tilt, plays"), gain)
    rows.append(claim("tilt, early less plays, active days", ends, "interval above 0", ends[1] > 0))
    for row, results in found.items():
        for name in ("nats", "effective", "coverage", "NDCG@10", "seconds"):
            if name in results[0]:
                values = [result[name] for result in results]
                ends = float(np.mean(values)), min(values), max(values)
                rows.append(claim(f"{name}, {row}", ends, "none: reported", True))
    return rows


Gains = Mapping[str, list[Float]]


def pooled(gain: Gains, row: str) -> float:
    """Mean gain over seeds."""
    return float(np.mean([days.mean() for days in gain[row]]))


def interval(statistic: Callable[[Gains], float], gain: Gains) -> tuple[float, float, float]:
    """The statistic and its 95% interval: users of each seed drawn anew, 500 times."""
    rng = np.random.default_rng(0)
    counts = [len(days) for days in next(iter(gain.values()))]
    drawn = []
    for _ in range(500):
        rows = [rng.integers(0, count, count) for count in counts]
        drawn.append(
            statistic(
                {
                    row: [days[chosen] for days, chosen in zip(of_seeds, rows, strict=True)]
                    for row, of_seeds in gain.items()
                }
            )
        )
    low, high = np.quantile(drawn, [0.025, 0.975])
    return statistic(gain), float(low), float(high)
