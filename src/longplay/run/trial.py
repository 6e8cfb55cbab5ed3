"""The stages that close the loop: what would have happened, what does happen in a trial, and
whether the early reward was true."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, cast

import numpy as np
import polars as pl
import torch

from longplay.audit import audit as audit_of
from longplay.chance import keyed_uniform
from longplay.decisions import Frozen, Policy, main_surface, ope_users
from longplay.errors import NotEstimable
from longplay.estimate import Estimate, Refusal, clustered_mean
from longplay.experiments import Experiment, plan
from longplay.lake import Lake
from longplay.lake.schema import ENGAGED
from longplay.ope import estimates
from longplay.policies.simple import Uniform
from longplay.run.beliefs import early_of, objectives_of, paid_signals, rewards_of
from longplay.run.config import ExperimentTable
from longplay.run.engine import Work, plain
from longplay.run.judge import policies_of
from longplay.run.log import lake_of, past_of, world_of
from longplay.signals.outcomes.in_memory import ENTRY_HORIZON

SCORED = 10_000  # logged slates that are scored at most: a language model takes its time for each
DRAWS = 2


def offpolicy(work: Work) -> dict[str, Any]:
    """What showing each policy's items would have been worth, from the logged slots of users nobody
    learned from."""
    torch.set_num_threads(work.config.run.threads)
    past = past_of(work)
    decisions = past.decisions
    if decisions.is_empty():
        return {
            "not_estimable": "this log has no propensities: it holds what people did, not what "
            "they were shown and how likely that was"
        }
    signal = next(
        (one for one in objectives_of(work.config).values() if one.entry.of is not None), None
    )
    if signal is None:
        return {
            "not_estimable": "no objective is entered by discovery or exposure, so no slot owns "
            "its outcome"
        }
    surface = main_surface(decisions)
    outcomes = signal.outcomes(past)
    mine = decisions.filter(
        (pl.col("surface") == surface) & pl.Series(ope_users(decisions["user_id"]))
    )
    # what can have matured; of more than enough a share that only the ids decide
    mine = mine.filter(
        pl.col("time") < past.watermark - ENTRY_HORIZON - timedelta(days=signal.window[1] + 1)
    )
    if mine.height > SCORED:
        mine = mine.filter(
            pl.Series(keyed_uniform("longplay: scored", mine["decision_id"]) < SCORED / mine.height)
        )
    shown = outcomes.on(mine)
    mature = shown.frame.filter(pl.col("value").is_not_null())
    result: dict[str, Any] = {
        "signal": signal.label,
        "surface": surface,
        "slots": mature.height,
        "users": mature["user_id"].n_unique(),
        "logged": plain(clustered_mean(mature["value"].to_numpy(), mature["user_id"].to_numpy()))
        if mature.height
        else None,
        "policies": [],
    }
    tried = (
        work.config.experiment if work.config.simulate else None
    )  # only what is tried, beside what it came from: each takes its time
    policies = policies_of(work, past, None if tried is None else ("popular", "start", *tried.arms))
    for done, (name, policy) in enumerate(policies.items()):
        work.ui.progress("off-policy", done, len(policies))
        diagnosis, found = estimates(policy, past, shown, surface=surface, draws=DRAWS)
        row = {
            "policy": name,
            "diagnosis": str(diagnosis),
            "lacks": diagnosis.lacks,
            "estimates": {how: _answer(said) for how, said in found.items()},
        }
        result["policies"].append(row)
    work.ui.progress("off-policy", len(policies), len(policies))
    return result


def _answer(said: Estimate | Refusal) -> dict[str, Any]:
    """An estimate or a refusal as JSON."""
    return (
        plain(said) | {"n_eff": said.n_eff}
        if isinstance(said, Estimate)
        else {"not_estimable": str(said)}
    )


def trial_of(table: ExperimentTable, control: Policy, arms: Mapping[str, Policy]) -> Experiment:
    """The configured trial: the incumbent against the arms, in the order of the configuration."""
    return Experiment(
        control=control, treatment={name: arms[name] for name in table.arms}, salt=table.salt
    )


def experiment(work: Work) -> dict[str, Any]:
    """A trial in the simulated service from the end of its log on, its plan before and its read-out
    after, and the truth beside it."""
    torch.set_num_threads(work.config.run.threads)
    config, table = work.config, work.config.experiment
    assert table is not None  # the stage is only there with the table
    if table.logged is not None:
        return _logged_experiment(work, table)
    world, log = world_of(work)
    signals = config.declared()
    star = signals[table.north_star]
    arms = len(table.arms) + 1
    try:
        planned: dict[str, Any] = {
            "words": str(
                prepared := plan(log, star, effect=table.minimum_effect, treatments=len(table.arms))
            ),
            **prepared.as_json(),
        }
    except NotEstimable as reason:
        planned = {"not_estimable": str(reason)}
    incumbent = Frozen(cast(Policy, world.policy))  # world_of has just run it
    trial = trial_of(table, incumbent, policies_of(work, past_of(work), table.arms))
    start, begun = world.fork(np.flatnonzero(world.state.alive_R)), world.now
    lake = world.run(trial, table.days, work.bar("trial days"))
    # what the policies were trained on would flatter them: the north star alone decides, the rest
    # is read
    read = trial.analyze(lake, [star], minimum_effect=table.minimum_effect)
    paid = [signal for signal in paid_signals(config) if signal != star]
    others = trial.analyze(lake, paid, minimum_effect=table.minimum_effect) if paid else None
    names = {"control": incumbent, **{arm: trial.arms[arm] for arm in trial.treatments}}
    truth = []
    for done, (arm, policy) in enumerate(names.items()):
        work.ui.progress("true values", done, len(names))
        level = start.truth(policy, star, users=table.true_users, seed=config.run.seed)
        row: dict[str, Any] = {"arm": arm, "level": plain(level)}
        if arm != "control":
            row["difference"] = plain(
                start.difference(
                    policy, incumbent, star, users=table.true_users, seed=config.run.seed
                )
            )
        truth.append(row)
    work.ui.progress("true values", len(names), len(names))
    _save(work, lake)
    return {
        "north_star": star.label,
        "north_star_sentence": str(star),
        "begun": begun.isoformat(),
        "days": table.days,
        "arms": [{"arm": arm, "policy": policy.name} for arm, policy in names.items()],
        "users": world.users.height,
        "share": 1 / arms,
        "plan": planned,
        "readout": read.as_json(),
        "other_lines": [] if others is None else others.as_json()["lines"],
        "words": str(read),
        "truth": truth,
        "daily": _daily(lake, trial, begun),
    }


def _logged_experiment(work: Work, table: ExperimentTable) -> dict[str, Any]:
    """What a trial says that one's own service ran: the same figures, without a plan and without
    the truth."""
    lake, signals = lake_of(work), work.config.declared()
    trial, star = (
        Experiment.logged(lake, table.logged, control=table.control),
        signals[table.north_star],
    )
    read = trial.analyze(lake, [star], minimum_effect=table.minimum_effect)
    paid = [signal for signal in paid_signals(work.config) if signal != star]
    others = trial.analyze(lake, paid, minimum_effect=table.minimum_effect) if paid else None
    enrolled = trial.enrolled(lake)
    begun = enrolled["time"].min()
    return {
        "north_star": star.label,
        "north_star_sentence": str(star),
        "begun": str(begun),
        "days": (lake.watermark - cast(datetime, begun)).days,
        "arms": [
            {"arm": "control", "policy": table.control},
            *({"arm": arm, "policy": trial.arms[arm].name} for arm in trial.treatments),
        ],
        "users": enrolled.height,
        "share": trial.shares[0],
        "plan": {},
        "readout": read.as_json(),
        "other_lines": [] if others is None else others.as_json()["lines"],
        "words": str(read),
        "truth": [],
        "daily": [
            {**row, "arm": "control" if row["arm"] == table.control else row["arm"]}
            for row in _daily(lake, trial, begun)
        ],
    }


def _save(work: Work, lake: Lake) -> None:
    Lake.open(work.folder / "lake").append(
        "trial",
        events=lake.events,
        decisions=lake.decisions,
        contexts=None,
        items=lake.items,
        watermark=lake.watermark,
        now=lake.watermark,
    )


def _daily(lake: Lake, trial: Experiment, begun: Any) -> list[dict[str, Any]]:
    """Share of each arm's enrolled users who visit, by day of the trial."""
    enrolled = trial.enrolled(lake).select("user_id", "arm")
    sizes = dict(enrolled.group_by("arm").len().iter_rows())
    there = (
        pl.col("kind") == "visit"
        if (lake.events["kind"] == "visit").any()
        else pl.col("kind").is_in(ENGAGED)
    )
    visits = lake.events.filter(there & (pl.col("time") >= begun)).join(enrolled, on="user_id")
    daily = (
        visits.group_by("arm", pl.col("time").dt.date().alias("day"))
        .agg(pl.col("user_id").n_unique().alias("users"))
        .sort("day", "arm")
    )
    return [
        {"arm": arm, "day": day.isoformat(), "share": users / sizes[arm]}
        for arm, day, users in daily.iter_rows()
    ]


def audit(work: Work) -> dict[str, Any]:
    """Was the early reward true? One audit per treatment, each written as TOML beside the
    report."""
    torch.set_num_threads(work.config.run.threads)
    config, table = work.config, work.config.experiment
    assert table is not None  # the stage is only there with the table
    if table.logged is not None:
        lake = lake_of(work)
        trial = Experiment.logged(lake, table.logged, control=table.control)
    else:
        lake = Lake.open(work.places["experiment"] / "lake")
        nobody = Uniform()  # who decided for an arm does not matter here, only who was in it
        trial = trial_of(table, nobody, dict.fromkeys(table.arms, nobody))
    models = early_of(work, past_of(work))
    star = config.declared()[table.north_star]
    answer: dict[str, Any] = {"arms": {}}
    for done, arm in enumerate(trial.treatments):
        work.ui.progress("audits", done, len(trial.treatments))
        paid = {
            config.declared()[name]
            for name in rewards_of(config).get(arm, config.reward.objectives)
        }
        early = {signal: model for signal, model in models.items() if signal in paid}
        found = audit_of(
            early, trial, lake, north_star=star, margin=table.margin, age=table.age, treatment=arm
        )
        (work.folder / f"audit-{arm}.toml").write_text(found.to_toml())
        answer["arms"][arm] = found.as_json() | {"words": str(found)}
    work.ui.progress("audits", len(trial.treatments), len(trial.treatments))
    return answer
