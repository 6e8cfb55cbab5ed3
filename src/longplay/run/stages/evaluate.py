"""Stage `evaluate`: how policies rank the future, their true values in a simulated service, and
what cannot be estimated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from longplay.decisions import as_read, contexts_at, reads_users, showings_of
from longplay.errors import DataError
from longplay.estimate import clustered_mean
from longplay.lake.creators import item_creators
from longplay.lake.schema import ENGAGED
from longplay.ranking import (
    Ranker,
    creators_per_slate,
    exposure_metrics,
    paired_difference,
    rank_metrics,
    top_items,
)
from longplay.results.log_figures import LogResult
from longplay.results.ranking_figures import (
    TRUE_VALUE,
    EvaluateResult,
    MetricFigure,
    PolicyPair,
    PolicyValue,
    TrueValues,
)
from longplay.run.engine import LEARNERS, Stage, Work, depends_on
from longplay.run.stages.experiment import ExperimentTable
from longplay.run.stages.reinforce import Reinforce, policies_of
from longplay.run.stages.reward import objectives_of
from longplay.run.stages.simulate import Simulate, world_of
from longplay.run.stages.train import Train
from longplay.run.tables import Positive, Table
from longplay.run_policies import START, comparisons, run_policy_names
from longplay.signals import Signal
from longplay.signals.outcomes.future import future_of

DEEPEST = 50  # places of a ranking that are kept


class Evaluate(Table):
    """Ranking on the future part of the log."""

    visits: Positive = 3_000  # at most this many, drawn by the run's seed
    true_value_users: Positive = (
        500  # simulated logs only: users whose slates are valued by the world
    )


def run(work: Work) -> EvaluateResult:
    """Rank future visits, compute true values in a simulated world, and list what cannot be
    estimated."""
    import torch

    torch.set_num_threads(work.config.run.threads)
    config = work.config
    lake = work.lake
    past = work.past
    policies = policies_of(work, past)
    refused = _not_estimable(work)
    judged = next(
        (signal for signal in objectives_of(config).values() if signal.entry.is_discovery),
        None,
    )
    if judged is None:
        reason = (
            "no objective is entered by discovery, so nothing says which recommended items would "
            "have become habits"
        )
        return _unranked(refused | {"ranking": reason})
    try:
        future = future_of(
            judged.outcomes(lake),
            lake,
            start=config.split.trained,
            end=config.split.evaluated,
            history=policies[START].history,
            exclude=config.of(Train).exclude,
            limit=config.of(Evaluate).visits,
            seed=config.run.seed,
            showings=max(map(showings_of, policies.values())),
            users=any(map(reads_users, policies.values())),
        )
    except DataError as error:  # nobody came, or nobody met anything new
        return _unranked(refused | {"ranking": str(error)})
    plays = dict(
        past.events.filter(pl.col("kind").is_in(ENGAGED) & pl.col("item_id").is_not_null())
        .group_by("item_id")
        .len()
        .sort("item_id")
        .iter_rows()
    )
    catalogue = past.items.filter(pl.col("available"))["item_id"]
    creators = item_creators(past)
    slots = config.of(Reinforce).slots
    tops: dict[str, pl.DataFrame] = {}
    rows: list[MetricFigure] = []
    for name, policy in policies.items():
        ranker: Ranker = policy
        tops[name] = top_items(ranker, future.contexts, DEEPEST, work.bar(f"ranking: {name}"))
        metrics = rank_metrics(tops[name], future)
        rows += [
            MetricFigure(name, metric, estimate.value, estimate)
            for metric, estimate in metrics.items()
        ]
        rows += [
            MetricFigure(name, metric, value, None)
            for metric, value in exposure_metrics(tops[name], catalogue, plays).items()
        ]
        shown = creators_per_slate(tops[name], creators, slots)
        rows.append(MetricFigure(name, f"creators per slate@{slots}", shown, None))
    habits = int((future.relevant["habit"] > 0).sum())
    if not habits:
        refused["habit NDCG"] = (
            f"none of {future.relevant.height:,} discoveries after the cut became a habit"
        )
    differences = tuple(
        PolicyPair(
            policy,
            than,
            f"{'habit ' if habit else ''}NDCG@{k}",
            paired_difference(tops[policy], tops[than], future, k, habit=habit),
        )
        for policy, than in _pairs()
        for k in (10, 50)
        for habit in ((False, True) if habits else (False,))
    )
    unknown = ~future.relevant["item_id"].is_in(past.items["item_id"].implode())
    return EvaluateResult(
        not_estimable=refused,
        signal=judged.label,
        visits=len(future.contexts),
        users=future.contexts.frame["user_id"].n_unique(),
        discoveries=future.relevant.height,
        habits=habits,
        new_to_catalogue=int(unknown.sum()) / len(unknown),
        ranking=tuple(rows),
        differences=differences,
        true_value=_true_values(work, policies, judged) if config.find(Simulate) else None,
    )


def _pairs() -> list[tuple[str, str]]:
    """Policies that are compared, in the order of what they are compared with."""
    names = run_policy_names()
    return sorted(comparisons(), key=lambda pair: names.index(pair[1]))


def _unranked(refused: Mapping[str, str]) -> EvaluateResult:
    """The result where there is nothing to rank."""
    return EvaluateResult(
        not_estimable=refused,
        signal=None,
        visits=0,
        users=0,
        discoveries=0,
        habits=0,
        new_to_catalogue=None,
        ranking=(),
        differences=(),
        true_value=None,
    )


def _true_values(work: Work, policies: dict[str, Any], signal: Signal) -> TrueValues:
    """The true value of the policies' slates to the users of the world on the day training ends."""
    from longplay.learning.rollout import enough_left

    config = work.config
    world, lake = world_of(work, until=config.split.train_until)
    alive = world.users.filter(pl.col("alive"))["user_id"].sort()
    n = min(config.of(Evaluate).true_value_users, len(alive))
    users = alive.gather(
        np.sort(np.random.default_rng([config.run.seed, 11]).choice(len(alive), n, replace=False))
    )
    moments = pl.DataFrame({"user_id": users}).with_columns(time=pl.lit(world.now))
    contexts = contexts_at(
        lake,
        moments,
        slots=config.of(Reinforce).slots,
        history=policies[START].history,
        exclude=config.of(Train).exclude,
        showings=max(map(showings_of, policies.values())),
        users=any(map(reads_users, policies.values())),
    )
    contexts = enough_left(contexts, policies[START], config.of(Reinforce).slots)
    value_U = {}
    for done, (name, policy) in enumerate(policies.items()):
        work.ui.progress("true values", done, len(policies))
        seen = as_read(policy, contexts)
        slates = policy.decide(seen, np.random.default_rng([config.run.seed, 12])).slates
        value_U[name] = world.true_value(
            contexts.frame["user_id"], slates, signal, together=True
        ).mean(axis=1)
    work.ui.progress("true values", len(policies), len(policies))
    what = f"true value of showing per slot ({signal.label})"
    differences = tuple(
        PolicyPair(
            policy,
            than,
            TRUE_VALUE,
            clustered_mean(value_U[policy] - value_U[than], estimand=f"difference in {what}"),
        )
        for policy, than in _pairs()
    )
    return TrueValues(
        users=len(contexts),
        policies=tuple(
            PolicyValue(name, clustered_mean(value, estimand=what))
            for name, value in value_U.items()
        ),
        differences=differences,
    )


def _not_estimable(work: Work) -> dict[str, str]:
    """Questions that this data cannot answer, with the reasons."""
    log = work.results.of(LogResult)
    reasons: dict[str, str] = {}
    if not log.has_decisions:
        reasons["off-policy value"] = (
            "not estimable, this log has no propensities: it holds what people did, not what they "
            "were shown and how likely that was"
        )
        reasons["P(entry | shown)"] = (
            "unknown without decisions: the reward is E[outcome | discovery] over items new to "
            "the user, an association, not an effect of showing"
        )
    if not log.has_origin:
        reasons["organic activity"] = (
            "the log has no origin column: all events count as organic, recommended ones included"
        )
    if work.config.find(ExperimentTable) is None:
        reasons["experiment"] = (
            "no experiment was run on this log, so what the policies would do to later activity is not "
            "measured"
        )
    return reasons


def _cell(result: EvaluateResult, policy: str, metric: str) -> str:
    value = next(
        (row.value for row in result.ranking if (row.policy, row.metric) == (policy, metric)), None
    )
    return "n/a" if value is None else f"{value:.3f}"


def _line(result: EvaluateResult) -> str:
    if not result.ranking:
        return f"nothing to rank: {result.not_estimable['ranking']}"
    metric = "habit NDCG@10"
    return f"{metric}: " + ", ".join(
        f"{name} {_cell(result, name, metric)}" for name in run_policy_names()
    )


STAGE = Stage(
    name="evaluate",
    order=80,
    version=5,
    help="Rank the future part of the log: HR, NDCG, habit-weighted NDCG, coverage, with "
    "intervals.",
    table=Evaluate,
    needs=("ingest", "simulate", "train", "reinforce"),
    depends=depends_on("signals", "split", "evaluate", "reward", "reinforce", "train"),
    run=run,
    line=_line,
    libraries=LEARNERS,
    loads=("torch", "transformers", "longplay.policies.generative_policy"),
)
