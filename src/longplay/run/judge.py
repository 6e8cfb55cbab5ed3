"""The stage that judges: ranking on the future, true values where the world knows them, what is not
estimable."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import polars as pl
import torch

from longplay.decisions import contexts_at
from longplay.errors import DataError
from longplay.estimate import clustered_mean
from longplay.lake import Lake
from longplay.lake.creators import item_creators
from longplay.lake.schema import ENGAGED
from longplay.learning.rollout import enough_left
from longplay.policies.generative_policy import Generative
from longplay.policies.simple import Popular
from longplay.ranking import (
    Ranker,
    creators_per_slate,
    exposure_metrics,
    paired_difference,
    rank_metrics,
    top_items,
)
from longplay.run.beliefs import objectives_of
from longplay.run.engine import Work, plain
from longplay.run.log import lake_of, past_of, world_of
from longplay.signals import Signal
from longplay.signals.outcomes.future import future_of

DEEPEST = 50  # places of a ranking that are kept
PAIRS = (
    ("start", "popular"),
    ("reinforced", "start"),
    ("reward-weighted", "start"),
    ("reinforced", "reward-weighted"),
)


def policies_of(work: Work, past: Lake, names: Iterable[str] | None = None) -> dict[str, Any]:
    """The policies of the run by name, the rivals last; default all of them. Only those asked for
    are loaded."""
    reinforced = work.places["reinforce"]
    folders = {
        "start": work.places["train"] / "policy",
        "reward-weighted": reinforced / "weighted",
        "reinforced": reinforced / "tuned",
        **{name: reinforced / "rivals" / name for name in work.config.reward.rivals},
    }
    wanted = {"popular", *folders} if names is None else set(names)
    popular = (
        {"popular": Popular(slate=work.config.reinforce.slots).fit(past)}
        if "popular" in wanted
        else {}
    )
    return popular | {
        name: Generative.load(folder) for name, folder in folders.items() if name in wanted
    }


def evaluate(work: Work) -> dict[str, Any]:
    """Rank the future, ask the world for true values where it is simulated, and say what cannot be
    estimated."""
    torch.set_num_threads(work.config.run.threads)
    config, lake, past = work.config, lake_of(work), past_of(work)
    policies = policies_of(work, past)
    result: dict[str, Any] = {"not_estimable": _not_estimable(work)}
    judged = next(
        (signal for signal in objectives_of(config).values() if signal.entry.is_discovery),
        None,
    )
    if judged is None:
        result["not_estimable"]["ranking"] = (
            "no objective is entered by discovery, so nothing says which recommended items would "
            "have become habits"
        )
        return result
    try:
        future = future_of(
            judged.outcomes(lake),
            lake,
            start=config.split.trained,
            end=config.split.evaluated,
            history=policies["start"].history,
            exclude=config.train.exclude,
            limit=config.evaluate.visits,
            seed=config.run.seed,
        )
    except DataError as reason:  # nobody came, or nobody met anything new
        result["not_estimable"]["ranking"] = str(reason)
        return result
    plays = dict(
        past.events.filter(pl.col("kind").is_in(ENGAGED) & pl.col("item_id").is_not_null())
        .group_by("item_id")
        .len()
        .sort("item_id")
        .iter_rows()
    )
    catalogue = past.items.filter(pl.col("available"))["item_id"]
    creators, slots = item_creators(past), config.reinforce.slots
    tops: dict[str, pl.DataFrame] = {}
    rows = []
    for name, policy in policies.items():
        ranker: Ranker = policy
        tops[name] = top_items(ranker, future.contexts, DEEPEST, work.bar(f"ranking: {name}"))
        metrics = rank_metrics(tops[name], future)
        rows += [
            {"policy": name, "metric": metric, **plain(estimate)}
            for metric, estimate in metrics.items()
        ]
        rows += [
            {"policy": name, "metric": metric, "value": value}
            for metric, value in exposure_metrics(tops[name], catalogue, plays).items()
        ]
        rows.append(
            {
                "policy": name,
                "metric": f"creators per slate@{slots}",
                "value": creators_per_slate(tops[name], creators, slots),
            }
        )
    habits = int((future.relevant["habit"] > 0).sum())
    if not habits:
        result["not_estimable"]["habit NDCG"] = (
            f"none of {future.relevant.height:,} discoveries after the cut became a habit"
        )
    differences = [
        {
            "policy": ours,
            "than": base,
            "metric": f"{'habit ' if habit else ''}NDCG@{k}",
            **plain(paired_difference(tops[ours], tops[base], future, k, habit=habit)),
        }
        for ours, base in PAIRS
        for k in (10, 50)
        for habit in ((False, True) if habits else (False,))
    ]
    unknown = ~future.relevant["item_id"].is_in(past.items["item_id"].implode())
    result |= {
        "signal": judged.label,
        "visits": len(future.contexts),
        "users": future.contexts.frame["user_id"].n_unique(),
        "discoveries": future.relevant.height,
        "habits": habits,
        "new_to_catalogue": int(unknown.sum()) / len(unknown),
        "ranking": rows,
        "differences": differences,
    }
    if config.simulate:
        result["true_value"] = _true_values(work, policies, judged)
    return result


def _true_values(work: Work, policies: dict[str, Any], signal: Signal) -> dict[str, Any]:
    """What the world says the policies' slates are worth to its users on the day training ends."""
    config = work.config
    world, lake = world_of(work, until=config.split.train_until)
    alive = world.users.filter(pl.col("alive"))["user_id"].sort()
    n = min(config.evaluate.true_value_users, len(alive))
    users = alive.gather(
        np.sort(np.random.default_rng([config.run.seed, 11]).choice(len(alive), n, replace=False))
    )
    moments = pl.DataFrame({"user_id": users}).with_columns(time=pl.lit(world.now))
    contexts = contexts_at(
        lake,
        moments,
        slots=config.reinforce.slots,
        history=policies["start"].history,
        exclude=config.train.exclude,
    )
    contexts = enough_left(contexts, policies["start"], config.reinforce.slots)
    value_U = {}
    for done, (name, policy) in enumerate(policies.items()):
        work.ui.progress("true values", done, len(policies))
        slates = policy.decide(contexts, np.random.default_rng([config.run.seed, 12])).slates
        value_U[name] = world.true_value(
            contexts.frame["user_id"], slates, signal, together=True
        ).mean(axis=1)
    work.ui.progress("true values", len(policies), len(policies))
    what = f"true value of showing per slot ({signal.label})"
    differences = [
        {
            "policy": ours,
            "than": base,
            **plain(
                clustered_mean(value_U[ours] - value_U[base], estimand=f"difference in {what}")
            ),
        }
        for ours, base in PAIRS
    ]
    return {
        "users": len(contexts),
        "policies": [
            {"policy": name, **plain(clustered_mean(value, estimand=what))}
            for name, value in value_U.items()
        ],
        "differences": differences,
    }


def _not_estimable(work: Work) -> dict[str, str]:
    """What this data (or this version) cannot answer, and why."""
    log = work.results["simulate" if work.config.simulate else "ingest"]
    reasons = {}
    if not log["has_decisions"]:
        reasons["off-policy value"] = (
            "not estimable, this log has no propensities: it holds what people did, not what they "
            "were shown and how likely that was"
        )
        reasons["P(entry | shown)"] = (
            "unknown without decisions: the reward is E[outcome | discovery] over items new to "
            "the user, an association, not an effect of showing"
        )
    if not log["has_origin"]:
        reasons["organic activity"] = (
            "the log has no origin column: all events count as organic, recommended ones included"
        )
    if work.config.experiment is None:
        reasons["experiment"] = (
            "no trial was run on this log, so what the policies would do to later activity is not "
            "measured"
        )
    return reasons
