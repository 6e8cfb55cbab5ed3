"""`longplay demo --quick`: the demo without a language model, in a minute and without torch."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
from rich.text import Text

from longplay.cli.screen import wide
from longplay.decisions import contexts_at, ope_users
from longplay.display import plus_minus, text_table
from longplay.estimate import Estimate, Refusal, clustered_mean
from longplay.files import write_file
from longplay.lake import Lake
from longplay.lake.creators import item_creators
from longplay.lake.schema import ENGAGED
from longplay.ope import estimates
from longplay.policies.simple import Popular, Uniform
from longplay.ranking import creators_per_slate, exposure_metrics, rank_metrics, top_items
from longplay.report import render
from longplay.results import NotEstimable, RunResults
from longplay.results.offpolicy_figures import OffpolicyResult, PolicyEstimates
from longplay.results.ranking_figures import (
    EvaluateResult,
    MetricFigure,
    PolicyValue,
    TrueValues,
)
from longplay.run.engine import Ui, Work, read_stage
from longplay.run.runner import run_stages
from longplay.run.stages.reinforce import Reinforce
from longplay.run.stages.reward import objectives_of
from longplay.run.stages.simulate import Simulate, world_of
from longplay.run.tables import Configuration
from longplay.signals import Signal
from longplay.signals.outcomes.future import future_of

SIMPLE = Popular | Uniform
USERS, ITEMS, VISITS, VALUED = 2_000, 300, 500, 200
DEEPEST = 50
LEFT_OUT = (
    "left out: the language model, its reinforcement, the experiment and its audit; longplay demo "
    "runs them in a few minutes (needs pip install 'longplay[llm]')"
)


def quick_demo(config: Configuration, folder: Path, ui: Ui) -> Path:
    """Run the stages that need no language model, judge simple policies, and write the report.

    Args:
        config: of the demo, with its seed.
        folder: of the run.
        ui: what shows progress.

    Returns:
        The report.
    """
    world = config.of(Simulate).model_copy(update={"users": USERS, "items": ITEMS})
    name = config.run.model_copy(update={"name": "demo-quick"})
    config = config.model_copy(update={"run": name, "simulate": world, "experiment": None})
    now = datetime.now(UTC)
    places = run_stages(config, base=Path.cwd(), folder=folder, until="reward", ui=ui, now=now)
    results = {stage: read_stage(stage, place) for stage, place in places.items()}
    work = Work(config, folder, Path.cwd(), places, RunResults(results), ui, now)
    signal = next(iter(objectives_of(config).values()))
    policies = simple_policies(work.past, signal, config.of(Reinforce).slots)
    with ui.stage("evaluate"):
        ranked = _ranked(work, policies, signal)
    with ui.stage("offpolicy"):
        valued = _offpolicy(work, policies, signal)
    page = render("demo-quick", RunResults(results | {"evaluate": ranked, "offpolicy": valued}))
    write_file(folder / "report.html", page)
    out = wide()
    out.print()
    out.print(Text(_table(ranked, valued)))
    out.print(
        Text(
            f"Two questions, both per slot in habits formed ({signal.label}). Off-policy: one "
            "slot is drawn from the policy, then the incumbent goes on. True value: what showing "
            "adds where nothing is shown afterwards, known only because the service is "
            "simulated. Compare their order, not their sizes.",
            "dim",
        )
    )
    out.print(Text(LEFT_OUT), soft_wrap=True)
    return folder / "report.html"


def simple_policies(past: Lake, signal: Signal, slate: int) -> dict[str, SIMPLE]:
    """Three policies that learn by counting: any item, what is played, and what becomes a habit.

    Args:
        past: the log they learn from; held-out users' rows are not counted.
        signal: says which discoveries became a habit.
        slate: slots.
    """
    entries = signal.outcomes(past).frame.filter(pl.col("value") > 0)
    formed = entries.filter(~pl.Series(ope_users(entries["user_id"])))
    habits = formed.select("item_id", pl.lit("play").alias("kind"))
    return {
        "uniform": Uniform(slate=slate).fit(past),
        "popular": Popular(slate=slate).fit(past),
        "habit-forming": Popular(slate=slate).adapt(past.items, habits),
    }


def _ranked(work: Work, policies: dict[str, SIMPLE], signal: Signal) -> EvaluateResult:
    """How the policies rank what came next, and their true values in the simulated service."""
    config, past, slots = work.config, work.past, work.config.of(Reinforce).slots
    future = future_of(
        signal.outcomes(work.lake),
        work.lake,
        start=config.split.trained,
        end=config.split.evaluated,
        history=0,
        exclude="none",
        limit=VISITS,
        seed=config.run.seed,
    )
    events = past.events.filter(pl.col("kind").is_in(ENGAGED) & pl.col("item_id").is_not_null())
    plays = dict(events.group_by("item_id").len().sort("item_id").iter_rows())
    catalogue, creators = past.items.filter(pl.col("available"))["item_id"], item_creators(past)
    rows = []
    for name, policy in policies.items():
        tops = top_items(policy, future.contexts, DEEPEST, work.bar(f"ranking: {name}"))
        metrics = rank_metrics(tops, future)
        rows += [
            MetricFigure(name, metric, estimate.value, estimate)
            for metric, estimate in metrics.items()
        ]
        exposure = exposure_metrics(tops, catalogue, plays)
        exposure[f"creators per slate@{slots}"] = creators_per_slate(tops, creators, slots)
        rows += [MetricFigure(name, metric, value, None) for metric, value in exposure.items()]
    unknown = ~future.relevant["item_id"].is_in(past.items["item_id"].implode())
    return EvaluateResult(
        not_estimable={"language model": LEFT_OUT},
        signal=signal.label,
        visits=len(future.contexts),
        users=future.contexts.frame["user_id"].n_unique(),
        discoveries=future.relevant.height,
        habits=int((future.relevant["habit"] > 0).sum()),
        new_to_catalogue=int(unknown.sum()) / len(unknown),
        ranking=tuple(rows),
        differences=(),
        true_value=_true_values(work, policies, signal),
    )


def _true_values(work: Work, policies: dict[str, SIMPLE], signal: Signal) -> TrueValues:
    """What the world says that a slot of each policy is worth on the day training ends."""
    seed, slots = work.config.run.seed, work.config.of(Reinforce).slots
    world, lake = world_of(work, until=work.config.split.train_until)
    alive = world.users.filter(pl.col("alive"))["user_id"].sort()
    chosen = np.random.default_rng([seed, 11]).choice(
        len(alive), min(VALUED, len(alive)), replace=False
    )
    moments = pl.DataFrame({"user_id": alive.gather(np.sort(chosen))})
    moments = moments.with_columns(time=pl.lit(world.now))
    contexts = contexts_at(lake, moments, slots=slots, history=0, exclude="none")
    users = contexts.frame["user_id"]
    values = []
    for done, (name, policy) in enumerate(policies.items()):
        work.ui.progress("true values", done, len(policies))
        slates = policy.decide(contexts, np.random.default_rng([seed, 12])).slates
        value_N = world.true_value(users, slates, signal, together=True).mean(axis=1)
        what = f"true value of showing per slot ({signal.label})"
        values.append(PolicyValue(name, clustered_mean(value_N, estimand=what)))
    work.ui.progress("true values", len(policies), len(policies))
    return TrueValues(users=len(contexts), policies=tuple(values), differences=())


def _offpolicy(work: Work, policies: dict[str, SIMPLE], signal: Signal) -> OffpolicyResult:
    """What the policies' slots would have been worth, from the log alone."""
    past = work.past
    shown = signal.outcomes(past).on(past.decisions.filter(pl.col("surface") == "home"))
    scored = shown.frame.filter(pl.Series(ope_users(shown.frame["user_id"])))
    mature = scored.filter(pl.col("value").is_not_null())
    rows = []
    for done, (name, policy) in enumerate(policies.items()):
        work.ui.progress("off-policy", done, len(policies))
        diagnosis, answers = estimates(policy, past, shown, surface="home", draws=2)
        figures = {
            how: NotEstimable(str(answer)) if isinstance(answer, Refusal) else answer
            for how, answer in answers.items()
        }
        rows.append(PolicyEstimates(name, str(diagnosis), diagnosis.lacks, figures))
    work.ui.progress("off-policy", len(policies), len(policies))
    return OffpolicyResult(
        not_estimable=None,
        signal=signal.label,
        surface="home",
        slots=mature.height,
        users=mature["user_id"].n_unique(),
        logged=clustered_mean(mature["value"].to_numpy(), mature["user_id"].to_numpy()),
        policies=tuple(rows),
    )


def _table(ranked: EvaluateResult, valued: OffpolicyResult) -> str:
    """A line per policy: ranking, off-policy value, true value."""
    metrics = {(row.policy, row.metric): row.value for row in ranked.ranking}
    true = {}
    if ranked.true_value is not None:
        true = {row.policy: row.value for row in ranked.true_value.policies}
    rows = []
    for row in valued.policies:
        answer = row.estimates["doubly robust"]
        off = _cell(answer) if isinstance(answer, Estimate) else "not estimable"
        ndcg = metrics.get((row.policy, "habit NDCG@10"), float("nan"))
        rows.append((row.policy, f"{ndcg:.3f}", off, _cell(true[row.policy])))
    return text_table(("policy", "habit NDCG@10", "off-policy", "true value"), rows)


def _cell(estimate: Estimate) -> str:
    low, high = estimate.interval()
    return plus_minus(estimate.value, (high - low) / 2)
