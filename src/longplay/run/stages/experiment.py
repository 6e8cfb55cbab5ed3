"""Stage `experiment`: a trial of the policies, its plan, its read-out, and the truth beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any, cast

import numpy as np
import polars as pl
from pydantic import Field

from longplay.decisions import Frozen, Policy
from longplay.errors import NotEstimable
from longplay.experiments import Experiment, Readout
from longplay.lake import Lake
from longplay.lake.schema import ENGAGED
from longplay.names import hint
from longplay.results import NotEstimable as Refused
from longplay.results import from_json
from longplay.results.trial_figures import (
    ArmDay,
    ArmPolicy,
    ArmTruth,
    ExperimentResult,
    PlanFigures,
    ReadoutFigures,
)
from longplay.run.engine import LEARNERS, Stage, Work, depends_on
from longplay.run.stages.reinforce import policies_of
from longplay.run.stages.reward import RewardTable, check_declared, paid_signals
from longplay.run.stages.simulate import Simulate, world_of
from longplay.run.stages.train import Train
from longplay.run.tables import Configuration, Positive, Table
from longplay.run_policies import MAIN, arm_names


class ExperimentTable(Table):
    """A trial and its audit: of the trained policies in the simulated service, or one that your own
    service ran and logged."""

    logged: str | None = (
        # its name in the log (column experiment of the decisions); then days, salt, arms and
        # true_users are its own
        None
    )
    control: str = "control"  # of a logged trial: the arm that the others are compared with
    days: Positive = 56
    north_star: str  # the signal that decides, e.g. active days
    salt: str = "trial"
    # beside the control, the incumbent: policies of `longplay.run_policies`, or rivals
    arms: list[str] = [MAIN]
    minimum_effect: Annotated[float, Field(gt=0)] = (
        0.02  # of the control's mean: what the trial should be able to find
    )
    margin: Annotated[float, Field(gt=0)] = (
        0.01  # of the control's mean: the least gain of the north star worth having
    )
    age: Positive = 7  # days of an entry that early values may have seen
    true_users: Positive = 1_000  # users whose lives under each arm give the true values


def run(work: Work) -> ExperimentResult:
    """A trial in the simulated service from the end of its log on, its plan before and its read-out
    after, and the truth beside it."""
    import torch

    from longplay.experiments import plan

    torch.set_num_threads(work.config.run.threads)
    config = work.config
    table = config.of(ExperimentTable)
    if table.logged is not None:
        return _logged_experiment(work, table)
    world, log = world_of(work)
    signals = config.declared()
    star = signals[table.north_star]
    arms = len(table.arms) + 1
    try:
        prepared = plan(log, star, effect=table.minimum_effect, treatments=len(table.arms))
        figures = {"words": str(prepared), **prepared.as_json()}
        planned = from_json(PlanFigures, figures, "plan")
    except NotEstimable as reason:
        planned = Refused(str(reason))
    incumbent = Frozen(cast(Policy, world.policy))  # world_of has just run it
    trial = trial_of(table, incumbent, policies_of(work, work.past, table.arms))
    start = world.fork(np.flatnonzero(world.state.alive_R))
    begun = world.now
    lake = world.run(trial, table.days, work.bar("trial days"))
    # what the policies were trained on would flatter them: the north star alone decides, the rest
    # is read
    read = trial.analyze(lake, [star], minimum_effect=table.minimum_effect)
    paid = [signal for signal in paid_signals(config) if signal != star]
    other_readout = trial.analyze(lake, paid, minimum_effect=table.minimum_effect) if paid else None
    names = {"control": incumbent, **{arm: trial.arms[arm] for arm in trial.treatments}}
    truth = []
    for done, (arm, policy) in enumerate(names.items()):
        work.ui.progress("true values", done, len(names))
        level = start.truth(policy, star, users=table.true_users, seed=config.run.seed)
        gap = None
        if arm != "control":
            gap = start.difference(
                policy, incumbent, star, users=table.true_users, seed=config.run.seed
            )
        truth.append(ArmTruth(arm, level, gap))
    work.ui.progress("true values", len(names), len(names))
    _save(work, lake)
    return ExperimentResult(
        north_star=star.label,
        north_star_sentence=str(star),
        begun=begun.isoformat(),
        days=table.days,
        arms=tuple(ArmPolicy(arm, policy.name) for arm, policy in names.items()),
        users=world.users.height,
        share=1 / arms,
        plan=planned,
        readout=_figures(read),
        other_lines=() if other_readout is None else _figures(other_readout).lines,
        words=str(read),
        truth=tuple(truth),
        daily=_daily(lake, trial, begun),
    )


def _figures(readout: Readout) -> ReadoutFigures:
    return from_json(ReadoutFigures, readout.as_json(), "readout")


def _logged_experiment(work: Work, table: ExperimentTable) -> ExperimentResult:
    """What a trial says that one's own service ran: the same figures, without a plan and without
    the truth."""
    lake = work.lake
    star = work.config.declared()[table.north_star]
    trial = Experiment.logged(lake, table.logged, control=table.control)
    read = trial.analyze(lake, [star], minimum_effect=table.minimum_effect)
    paid = [signal for signal in paid_signals(work.config) if signal != star]
    other_readout = trial.analyze(lake, paid, minimum_effect=table.minimum_effect) if paid else None
    enrolled = trial.enrolled(lake)
    begun = enrolled["time"].min()
    return ExperimentResult(
        north_star=star.label,
        north_star_sentence=str(star),
        begun=str(begun),
        days=(lake.watermark - cast(datetime, begun)).days,
        arms=(
            ArmPolicy("control", table.control),
            *(ArmPolicy(arm, trial.arms[arm].name) for arm in trial.treatments),
        ),
        users=enrolled.height,
        share=trial.shares[0],
        plan=None,
        readout=_figures(read),
        other_lines=() if other_readout is None else _figures(other_readout).lines,
        words=str(read),
        truth=(),
        daily=tuple(
            replace(row, arm="control") if row.arm == table.control else row
            for row in _daily(lake, trial, begun)
        ),
    )


def trial_of(table: ExperimentTable, control: Policy, arms: Mapping[str, Policy]) -> Experiment:
    """The configured trial: the incumbent against the arms, in the order of the configuration."""
    return Experiment(
        control=control, treatment={name: arms[name] for name in table.arms}, salt=table.salt
    )


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


def _daily(lake: Lake, trial: Experiment, begun: Any) -> tuple[ArmDay, ...]:
    """Share of each arm's enrolled users who visit, by day of the trial."""
    enrolled = trial.enrolled(lake).select("user_id", "arm")
    sizes = dict(enrolled.group_by("arm").len().iter_rows())
    if (lake.events["kind"] == "visit").any():
        is_visit = pl.col("kind") == "visit"
    else:
        is_visit = pl.col("kind").is_in(ENGAGED)
    visits = lake.events.filter(is_visit & (pl.col("time") >= begun)).join(enrolled, on="user_id")
    daily = (
        visits.group_by("arm", pl.col("time").dt.date().alias("day"))
        .agg(pl.col("user_id").n_unique().alias("users"))
        .sort("day", "arm")
    )
    return tuple(
        ArmDay(arm, day.isoformat(), users / sizes[arm]) for arm, day, users in daily.iter_rows()
    )


def _check(config: Configuration) -> None:
    """The north star is declared, the arms are policies of this run, and the trial is either
    simulated or logged."""
    trial = config.find(ExperimentTable)
    if trial is None:
        return
    check_declared(config, [("experiment.north_star", trial.north_star)])
    _check_source(trial, simulated=config.find(Simulate) is not None)
    _check_exclusions(config)
    allowed_arms = [*arm_names(), *config.of(RewardTable).rivals]
    for arm in trial.arms:
        if arm not in allowed_arms:
            raise ValueError(
                f"experiment.arms: {arm!r} given, expected some of {', '.join(allowed_arms)}"
                f"{hint(arm, allowed_arms)}"
            )


def _check_source(trial: ExperimentTable, *, simulated: bool) -> None:
    """A simulated service runs the trial; on a log of one's own it was run before."""
    if not simulated:
        if trial.logged is None:
            raise ValueError(
                "experiment.logged: missing; a trial on a log of your own is one that your "
                "service ran: give its name in the log (column "
                "experiment of the decisions), or leave [experiment] out"
            )
        foreign = [
            name
            for name in ("days", "salt", "arms", "true_users")
            if name in trial.model_fields_set
        ]
        if foreign:
            raise ValueError(
                f"experiment.{foreign[0]} is of a trial that is simulated, but "
                f"{trial.logged!r} was logged; leave it out"
            )
    elif trial.logged is not None:
        raise ValueError(
            f"experiment.logged = {trial.logged!r}, but this run simulates its trial; leave it out"
        )


def _check_exclusions(config: Configuration) -> None:
    """A trial under a rule that is given must be under the rule of training."""
    simulate = config.find(Simulate)
    train = config.of(Train)
    if (
        simulate is not None
        and "exclude" in simulate.model_fields_set
        and simulate.exclude != train.exclude
    ):
        raise ValueError(
            f"simulate.exclude = {simulate.exclude!r}, but train.exclude = "
            f"{train.exclude!r}: the trial would show policies under "
            "another rule of exclusions than they were trained under; give both the same"
        )


def _line(result: ExperimentResult) -> str:
    verdicts = [f"{row.arm}: {row.verdict}" for row in result.readout.decisions]
    return f"{result.users:,} users, {result.days} days: {'; '.join(verdicts)}"


STAGE = Stage(
    name="experiment",
    order=100,
    version=3,
    help="Run a trial of the policies in the simulated service, with its plan, its read-out and "
    "the truth beside it.",
    table=ExperimentTable,
    presence="optional",
    check=_check,
    applies=lambda config: config.find(ExperimentTable) is not None,
    needs=("ingest", "simulate", "train", "reinforce"),
    depends=depends_on(
        "simulate", "signals", "split.train_until", "reward", "reinforce.slots", "experiment"
    ),
    run=run,
    line=_line,
    libraries=LEARNERS,
    loads=("torch", "transformers", "longplay.experiments", "longplay.policies.generative_policy"),
)
