"""What a reward of showing is worth: greedy rankers without a language model, in true active days.

Every ranker scores the whole catalogue at every visit and draws a slate by Plackett-Luce. All are
equally soft: their first slot has the same effective number of items at every visit. They differ in
what they know of the chance of an entry, and of the outcome given one.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from remembered import remembered
from reward_checks import calibration_rows, rank_rows
from reward_truth import Float, Int, true_chance, true_worth

import longplay as lp
from longplay.decisions import Contexts, Decisions, context_chance
from longplay.estimate import clustered_mean
from longplay.index import ItemIndex
from longplay.lake.storage import MemoryStore
from longplay.policies.plackett import plackett_luce_log_prob
from longplay.rewards.early import EarlyModel
from longplay.rewards.showing_fit import fit_showing
from longplay.world import World, WorldConfig
from longplay.world.parameters import named_world

Score = Callable[[World, Contexts], Float]

HABIT = lp.Signal(
    "habit", entry=lp.discovery(novel_for=28), measure=lp.days_with("creator") >= 3, window=(1, 28)
)
DAYS = lp.Signal(
    "days", entry=lp.discovery(novel_for=28), measure=lp.days_with("creator"), window=(1, 28)
)
EFFECTIVE = 20  # items in the first slot of every ranker
KNOWN = 0.85  # correlation of the factors that a service knows with the truth
LIVED = 56  # days
SHOWINGS = 200


# -- rankers ---------------------------------------------------------------------------------------


def softened(score_NI: Float, effective: float) -> Float:
    """Log-probabilities proportional to b x score, b such that 1 / sum p^2 is the same in every row."""
    can_NI = np.isfinite(score_NI)
    masked_NI = np.where(can_NI, score_NI, np.nan)
    spread_N1 = np.maximum(np.nanstd(masked_NI, axis=1, keepdims=True), 1e-12)
    z_NI = np.where(
        can_NI, (masked_NI - np.nanmax(masked_NI, axis=1, keepdims=True)) / spread_N1, -np.inf
    )
    low_N, high_N = np.full(len(z_NI), 1e-3), np.full(len(z_NI), 1e3)
    for _ in range(30):
        sharp_N = np.sqrt(low_N * high_N)
        weight_NI = np.exp(sharp_N[:, None] * z_NI)
        items_N = weight_NI.sum(axis=1) ** 2 / (weight_NI**2).sum(axis=1)
        too_many_N = items_N > effective
        low_N = np.where(too_many_N, sharp_N, low_N)
        high_N = np.where(too_many_N, high_N, sharp_N)
    log_NI = sharp_N[:, None] * z_NI
    return log_NI - np.logaddexp.reduce(log_NI, axis=1, keepdims=True)


@dataclass(eq=False)
class Ranker:
    """Slates by Plackett-Luce under a softened score of every item. `world` is where it decides: what
    insiders look at."""

    name: str
    index: ItemIndex = field(repr=False)
    score: Score = field(repr=False)
    history: int = 60
    showings: int = SHOWINGS
    reads_users: bool = True
    slate: int = 5
    effective: float = EFFECTIVE
    world: World | None = field(default=None, repr=False)

    def decide(self, contexts: Contexts, rng: np.random.Generator) -> Decisions:
        log_NI = self._log_p(contexts)
        chance = context_chance(contexts, rng)
        keys_NI = log_NI + chance.gumbel(
            np.arange(len(contexts)), np.arange(log_NI.shape[1])[None, :]
        )
        slate_NS = np.argsort(-keys_NI, axis=1)[:, : contexts.slots]
        chosen_NS = plackett_luce_log_prob(np.take_along_axis(log_NI, slate_NS, axis=1))
        return Decisions.of(contexts, self.index.slates(slate_NS), chosen_NS, self.name)

    def log_prob(self, contexts: Contexts, slates: pl.Series) -> Float:
        rows_NS = self.index.slate_rows(slates)
        return plackett_luce_log_prob(np.take_along_axis(self._log_p(contexts), rows_NS, axis=1))

    def _log_p(self, contexts: Contexts) -> Float:
        assert self.world is not None
        unreleased_I = self.world.catalogue.release_I > self.world.day
        score_NI = np.where(unreleased_I, -np.inf, self.score(self.world, contexts))
        return softened(score_NI, self.effective)


# -- the table -------------------------------------------------------------------------------------


def active_days(world: World, policy: Any, users: Int, days: int, seed: int) -> Float:
    """Days on which each of these users visits, of the `days` lived under the policy, with luck that all
    policies share."""
    fork = world.fork(users, seed=seed + 7_919_000_000)
    if isinstance(policy, Ranker):
        policy = replace(policy, world=fork)
    lake = fork.run(policy, days, progress=False)
    visits = lake.events.filter(pl.col("kind") == "visit", pl.col("time") >= world.now)
    counted = visits.group_by("user_id").len()
    every = fork.user_ids.to_frame("user_id").join(
        counted, on="user_id", how="left", maintain_order="left"
    )
    return every["len"].fill_null(0).to_numpy().astype(float)


def early_score(early: EarlyModel, index: ItemIndex, lake: lp.Lake, carried: bool = True) -> Score:
    """The value of showing every item, as an early reward has it.

    Args:
        early: fitted.
        index: of the items.
        lake: the log that it looks users up in.
        carried: whether it reads the users' factors that contexts carry; else those of the log.
    """

    def score(world: World, contexts: Contexts) -> Float:
        if not carried:
            contexts = contexts.without(["user_vector"])
        return early.item_value(contexts, index.ids, lake).mean

    return score


def personal(value_NI: Float, truth_NI: Float) -> float:
    """Correlation of log values with user and item means removed, over pairs of a positive value: what
    is familiar is worth 0."""
    pairs_NI = value_NI > 0
    ever_I = pairs_NI.any(axis=0)
    pairs_NI, value_NI, truth_NI = pairs_NI[:, ever_I], value_NI[:, ever_I], truth_NI[:, ever_I]

    def centred(x_NI: Float) -> Float:
        log_NI = np.where(pairs_NI, np.log(np.maximum(x_NI, 1e-12)), np.nan)
        for _ in range(20):  # means over unequal rows and columns
            log_NI = log_NI - np.nanmean(log_NI, axis=1, keepdims=True)
            log_NI = log_NI - np.nanmean(log_NI, axis=0, keepdims=True)
        return log_NI[pairs_NI]

    return float(np.corrcoef(centred(value_NI), centred(truth_NI))[0, 1])


def with_shuffled_users(lake: lp.Lake, seed: int) -> lp.Lake:
    """The same log, in which every user has the factors of another: as many numbers, nothing known."""
    users = lake.descriptions("users")
    order = np.random.default_rng(seed).permutation(users.height)
    store = MemoryStore()
    store.commit(
        "shuffled",
        {
            "events": lake.events,
            "decisions": lake.decisions,
            "contexts": lake.contexts,
            "items": lake.items,
            "users": users.with_columns(users["vector"].gather(order)),
        },
        lake.watermark,
    )
    return lp.Lake(store)


def logged(world: str, users: int, items: int, days: int, seed: int) -> tuple[World, lp.Lake]:
    """A world that knows something of users and items, and its log under popularity."""
    numbers = dict(named_world(world).numbers) | {"known": KNOWN}
    service = World(users, items, seed, WorldConfig.of(numbers))
    lake = service.run(lp.Popular(slate=5, explore=0.1), days=days, progress=False)
    return service, lake


@remembered(version=3)
def gains(
    *, world: str, users: int, items: int, judged: int, log_days: int, lived: int, seed: int
) -> dict[str, Any]:
    """Gains in active days over popularity of every ranker: mean and standard error."""
    service, lake = logged(world, users, items, log_days, seed)
    outcomes = HABIT.outcomes(lake)
    habit = float(outcomes.value[outcomes.known].mean())
    index = service.catalogue.index
    started = time.process_time()
    early = lp.ProgressiveReward(HABIT).fit(lake, outcomes, progress=False)
    seconds = time.process_time() - started
    informed = replace(early, showing=None, knows=("users", "items")).fit(
        lake, outcomes, progress=False
    )
    rates = replace(early, showing=fit_showing(HABIT, lake, outcomes, parts=("content", "rate")))
    again = replace(
        early, showing=fit_showing(HABIT, lake, outcomes, parts=("content", "rate", "repetition"))
    )
    ridge = lp.TwoPartRidge(DAYS, knows=("users", "items"))
    days = DAYS.outcomes(lake)
    shuffled_lake = with_shuffled_users(lake, seed)
    shuffled = ridge.fit(shuffled_lake, days, progress=False)
    belief_I = early.items(service.catalogue.frame["creator_id"]).mean
    depth_C = np.bincount(service.catalogue.creator_I, weights=service.catalogue.depth_I)
    depth_C /= np.bincount(service.catalogue.creator_I)
    released = service.catalogue.release_I < 0
    best = np.zeros(items)
    best[
        np.argsort(-np.where(released, service.catalogue.appeal_I * service.catalogue.depth_I, 0))[
            :5
        ]
    ] = 5.0

    def ranker(name: str, score: Score, effective: float = EFFECTIVE) -> Ranker:
        return Ranker(f"{name}@1", index, score, effective=effective)

    def of(model: EarlyModel) -> Score:
        return early_score(model, index, lake)

    rankers = {
        "the same five items": ranker("same", lambda w, c: np.tile(best, (len(c), 1)), 5.05),
        "rotation by appeal x depth": ranker(
            "rotation",
            lambda w, c: np.tile(w.catalogue.appeal_I * w.catalogue.depth_I, (len(c), 1)),
        ),
        "rates": ranker("rates", of(rates)),
        "rates, repetition": ranker("repetition", of(again)),
        "log": ranker("log", of(early)),
        "factors": ranker("factors", of(informed)),
        "ridge, factors": ranker("ridge", of(ridge.fit(lake, days, progress=False))),
        "ridge, factors shuffled": ranker(
            "shuffled", early_score(shuffled, index, shuffled_lake, carried=False)
        ),
        "true chance x belief": ranker("chance", lambda w, c: true_chance(w, c) * belief_I),
        "true chance x creator": ranker(
            "creator", lambda w, c: true_chance(w, c) * depth_C[w.catalogue.creator_I]
        ),
        "full knowledge": ranker("full", lambda w, c: true_chance(w, c) * true_worth(w, c)),
    }
    alive = np.flatnonzero(service.state.alive_R)
    chosen = np.sort(
        np.random.default_rng([seed, 3]).choice(alive, min(judged, len(alive)), replace=False)
    )
    popular = active_days(service, lp.Popular(slate=5, explore=0.1).fit(lake), chosen, lived, seed)
    result: dict[str, Any] = {
        "habit": habit,
        "fit_seconds": seconds,
        "popular": float(popular.mean()),
        "gains": {},
    }
    for name, policy in rankers.items():
        print(f"{world}, seed {seed}: {name}", file=sys.stderr, flush=True)
        gain = clustered_mean(
            active_days(service, policy, chosen, lived, seed) - popular, estimand=name
        )
        result["gains"][name] = [gain.value, gain.std_error]
    return result


@remembered(version=1)
def correlations(
    *, world: str, users: int, items: int, log_days: int, seed: int
) -> dict[str, float]:
    """Personal correlation of the value of showing with true chance x worth, of 200 users."""
    service, lake = logged(world, users, items, log_days, seed)
    outcomes = HABIT.outcomes(lake)
    sample = np.flatnonzero(service.state.alive_R)[:200]
    contexts = Contexts.of(service.user_ids.gather(sample), service.now, slots=5)
    ids = service.items["item_id"]
    released = service.catalogue.index.rows(ids)
    truth_NI = (true_chance(service, contexts) * true_worth(service, contexts))[:, released]
    result = {}
    for name, knows in (("log", ()), ("factors", ("users", "items"))):
        early = lp.ProgressiveReward(HABIT, knows=knows).fit(lake, outcomes, progress=False)
        value_NI = early.item_value(contexts, ids, lake).mean
        result[name] = personal(value_NI, truth_NI)
    return result


def ratio(value: float, other: float) -> float:
    """value / other; 0 where the other is 0, as in a quick run."""
    return value / other if other else 0.0


def table(world: str, users: int, seeds: int, quick: bool) -> list[dict[str, Any]]:
    """Rows of one world."""
    sizes = (
        {"items": 60, "judged": 60, "log_days": 75, "lived": 5}
        if quick
        else {
            "items": 2_000,
            "judged": 2_000,
            "log_days": 84,
            "lived": LIVED,
        }
    )
    results = [
        gains(world=world, users=200 if quick else users, seed=7 + seed, **sizes)
        for seed in range(seeds)
    ]
    command = f"python bench/rewards.py --worlds {world} --seeds {seeds}"

    def pooled(name: str) -> tuple[float, float]:
        values = np.array([result["gains"][name] for result in results])
        return float(values[:, 0].mean()), float(np.sqrt((values[:, 1] ** 2).sum()) / len(values))

    def row(
        claim: str, value: float, error: float | None, bar: str, ok: bool | None
    ) -> dict[str, Any]:
        ends = (None, None) if error is None else (value - 1.96 * error, value + 1.96 * error)
        return {
            "claim": f"rewards, {world}: {claim}",
            "value": value,
            "low": ends[0],
            "high": ends[1],
            "bar": bar,
            "ok": ok,
            "seeds": seeds,
            "command": command,
        }

    same = {key: value for key, value in sizes.items() if key not in ("judged", "lived")}
    personals = [
        correlations(world=world, users=200 if quick else users, seed=7 + seed, **same)
        for seed in range(seeds)
    ]
    rows = []
    for name in results[0]["gains"]:
        value, error = pooled(name)
        rows.append(
            row(
                f"active days of {LIVED} over popularity, {name}",
                value,
                error,
                "none: reported",
                True,
            )
        )
    log, factors = pooled("log")[0], pooled("factors")[0]
    ridge, shuffled = pooled("ridge, factors")[0], pooled("ridge, factors shuffled")[0]
    full = pooled("full knowledge")[0]
    repetition = pooled("rates, repetition")[0] - pooled("rates")[0]
    rows.append(
        row(
            "log over the shuffled ridge",
            ratio(log, shuffled),
            None,
            ">= 1.1",
            log >= 1.1 * shuffled,
        )
    )
    rows.append(
        row(
            "log over the ridge that sees factors",
            ratio(log, ridge),
            None,
            ">= .7",
            log >= 0.7 * ridge,
        )
    )
    rows.append(
        row(
            "factors over the ridge that sees them",
            ratio(factors, ridge),
            None,
            ">= 1",
            factors >= ridge,
        )
    )
    if world == "weary":
        rows.append(
            row(
                "repetition beyond rates, active days",
                repetition,
                None,
                ">= .10",
                repetition >= 0.1,
            )
        )
    rows.append(row("log over full knowledge", ratio(log, full), None, "aim .4", log >= 0.4 * full))
    rows.append(
        row(
            "factors over full knowledge",
            ratio(factors, full),
            None,
            "aim .6",
            factors >= 0.6 * full,
        )
    )
    for name, bar in (("log", 0.10), ("factors", 0.65)):
        value = float(np.mean([correlation[name] for correlation in personals]))
        rows.append(
            row(f"personal correlation, {name}", value, None, f">= {bar:.2f}", value >= bar)
        )
    return rows


WORLDS = {"weary": 15_000, "default": 5_000, "clickbait": 5_000}


def main() -> None:
    """Compute the rows, print them, and write them to a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", nargs="*", default=["gains", "calibration", "ranks"])
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
    for row in rows:
        print(f"{row['value']:9.3f}  {row['claim']}  {row['bar']}")
    if options.json:
        options.json.write_text(json.dumps(merged(options.json, rows), indent=1) + "\n")


def merged(file: Path, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of a file with these in place of those of the same claim: parts are run one by one."""
    older = json.loads(file.read_text()) if file.exists() else []
    fresh = {row["claim"]: row for row in rows}
    stays = [row for row in older if row["claim"] not in fresh]
    return stays + rows


if __name__ == "__main__":
    main()
