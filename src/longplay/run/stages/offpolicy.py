"""Stage `offpolicy`: the value of each policy's slots, estimated from the logged ones."""

from __future__ import annotations

from datetime import timedelta

import polars as pl

from longplay.chance import keyed_uniform
from longplay.decisions import main_surface, ope_users
from longplay.estimate import Estimate, Refusal, clustered_mean
from longplay.results import NotEstimable
from longplay.results.offpolicy_figures import OffpolicyResult, PolicyEstimates
from longplay.run.engine import LEARNERS, Stage, Work, depends_on
from longplay.run.stages.experiment import ExperimentTable
from longplay.run.stages.reinforce import policies_of
from longplay.run.stages.reward import objectives_of
from longplay.run.stages.simulate import Simulate
from longplay.run_policies import baseline_names
from longplay.signals.outcomes.in_memory import ENTRY_HORIZON

SCORED = 10_000  # logged slates that are scored at most: a language model takes its time for each
DRAWS = 2


def run(work: Work) -> OffpolicyResult:
    """Estimate the value of each policy's slots off-policy, on users that no model learned from."""
    import torch

    from longplay.ope import estimates

    torch.set_num_threads(work.config.run.threads)
    past = work.past
    decisions = past.decisions
    if decisions.is_empty():
        return _refused(
            "this log has no propensities: it holds what people did, not what they were shown and "
            "how likely that was"
        )
    signal = next(
        (
            objective
            for objective in objectives_of(work.config).values()
            if objective.entry.of is not None
        ),
        None,
    )
    if signal is None:
        return _refused(
            "no objective is entered by discovery or exposure, so no slot owns its outcome"
        )
    surface = main_surface(decisions)
    outcomes = signal.outcomes(past)
    logged_slates = decisions.filter(
        (pl.col("surface") == surface) & pl.Series(ope_users(decisions["user_id"]))
    )
    # what can have matured; of more than enough a share that only the ids decide
    logged_slates = logged_slates.filter(
        pl.col("time") < past.watermark - ENTRY_HORIZON - timedelta(days=signal.window[1] + 1)
    )
    if logged_slates.height > SCORED:
        logged_slates = logged_slates.filter(
            pl.Series(
                keyed_uniform("longplay: scored", logged_slates["decision_id"])
                < SCORED / logged_slates.height
            )
        )
    shown = outcomes.on(logged_slates)
    mature = shown.frame.filter(pl.col("value").is_not_null())
    logged = None
    if mature.height:
        logged = clustered_mean(mature["value"].to_numpy(), mature["user_id"].to_numpy())
    tried = (
        work.config.find(ExperimentTable) if work.config.find(Simulate) else None
    )  # only what is tried, beside what it came from: each takes its time
    policies = policies_of(work, past, None if tried is None else (*baseline_names(), *tried.arms))
    rows = []
    for done, (name, policy) in enumerate(policies.items()):
        work.ui.progress("off-policy", done, len(policies))
        diagnosis, answers = estimates(policy, past, shown, surface=surface, draws=DRAWS)
        rows.append(
            PolicyEstimates(
                policy=name,
                diagnosis=str(diagnosis),
                lacks=diagnosis.lacks,
                estimates={
                    how: NotEstimable(str(answer)) if isinstance(answer, Refusal) else answer
                    for how, answer in answers.items()
                },
            )
        )
    work.ui.progress("off-policy", len(policies), len(policies))
    return OffpolicyResult(
        not_estimable=None,
        signal=signal.label,
        surface=surface,
        slots=mature.height,
        users=mature["user_id"].n_unique(),
        logged=logged,
        policies=tuple(rows),
    )


def _refused(reason: str) -> OffpolicyResult:
    """The result where the log does not support off-policy estimates."""
    return OffpolicyResult(
        not_estimable=reason,
        signal=None,
        surface=None,
        slots=0,
        users=0,
        logged=None,
        policies=(),
    )


def _line(result: OffpolicyResult) -> str:
    if result.not_estimable is not None:
        return f"not estimable: {result.not_estimable}"
    cells = []
    for row in result.policies:
        answer = row.estimates["doubly robust"]
        value = f"{answer.value:.4f}" if isinstance(answer, Estimate) else "not estimable"
        cells.append(f"{row.policy} {value}")
    return f"{result.signal} per slot, doubly robust: {', '.join(cells)}"


STAGE = Stage(
    name="offpolicy",
    order=90,
    version=5,
    help="Estimate from logged slots what each policy's slots would have been worth; say where "
    "the log cannot tell.",
    needs=("ingest", "simulate", "train", "reinforce"),
    depends=depends_on("signals", "split.train_until", "reward", "reinforce.slots", "experiment"),
    run=run,
    line=_line,
    libraries=LEARNERS,
    loads=("torch", "transformers", "longplay.ope", "longplay.policies.generative_policy"),
)
