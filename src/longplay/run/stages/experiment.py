"""Stage `experiment`: run an experiment, plan it before, read it out after, and compute true
effects."""

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
from longplay.experiments import Experiment
from longplay.lake import Lake
from longplay.lake.schema import ENGAGED
from longplay.names import hint
from longplay.results import NotEstimable as Refused
from longplay.results.experiment_figures import (
    ArmDay,
    ArmPolicy,
    ArmTruth,
    ExperimentResult,
)
from longplay.run.engine import LEARNERS, Stage, Work, depends_on
from longplay.run.stages.reinforce import policies_of
from longplay.run.stages.reward import RewardTable, check_declared, paid_signals
from longplay.run.stages.simulate import Simulate, world_of
from longplay.run.stages.train import Train
from longplay.run.tables import Configuration, Positive, Table
from longplay.run_policies import MAIN, arm_names


class ExperimentTable(Table):
    """An experiment and its audit: of the trained policies in the simulated service, or one that
    your own service ran and logged."""

    logged: str | None = (
        # its name in the log (column experiment of the decisions); then days, salt, arms and
        # true_users are its own
        None
    )
    control: str = "control"  # of a logged experiment: the arm that the others are compared with
    days: Positive = 56
    north_star: str  # the signal that decides, e.g. active days
    salt: str = "trial"
    # beside the control, the incumbent: policies of `longplay.run_policies`, or rivals
    arms: list[str] = [MAIN]
    minimum_effect: Annotated[float, Field(gt=0)] = (
        0.02  # of the control's mean: what the experiment should be able to find
    )
    margin: Annotated[float, Field(gt=0)] = (
        0.01  # of the control's mean: the least gain of the north star worth having
    )
    age: Positive = 7  # days of an entry that early values may have seen
    true_users: Positive = 1_000  # users whose lives under each arm give the true values


def run(work: Work) -> ExperimentResult:
    """Run an experiment in the simulated service after its log ends; plan it before, read it out
    after, and compute the true effects."""
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
        planned = prepared.figures()
    except NotEstimable as reason:
        planned = Refused(str(reason))
    incumbent = Frozen(cast(Policy, world.policy))  # world_of has just run it
    experiment = experiment_of(table, incumbent, policies_of(work, work.past, table.arms))
    start = world.fork(np.flatnonzero(world.state.alive_R))
    begun = world.now
    lake = world.run(experiment, table.days, work.bar("experiment days"))
    # what the policies were trained on would flatter them: the north star alone decides, the rest
    # is read
    read = experiment.analyze(lake, [star], minimum_effect=table.minimum_effect)
    paid = [signal for signal in paid_signals(config) if signal != star]
    other_readout = (
        experiment.analyze(lake, paid, minimum_effect=table.minimum_effect) if paid else None
    )
    names = {"control": incumbent, **{arm: experiment.arms[arm] for arm in experiment.treatments}}
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
        readout=read.figures(),
        other_lines=() if other_readout is None else other_readout.figures().lines,
        words=str(read),
        truth=tuple(truth),
        daily=_daily(lake, experiment, begun),
    )


def _logged_experiment(work: Work, table: ExperimentTable) -> ExperimentResult:
    """Read out an experiment that the user's own service ran; it has no plan and no true
    effects."""
    lake = work.lake
    star = work.config.declared()[table.north_star]
    experiment = Experiment.logged(lake, table.logged, control=table.control)
    read = experiment.analyze(lake, [star], minimum_effect=table.minimum_effect)
    paid = [signal for signal in paid_signals(work.config) if signal != star]
    other_readout = (
        experiment.analyze(lake, paid, minimum_effect=table.minimum_effect) if paid else None
    )
    enrolled = experiment.enrolled(lake)
    begun = enrolled["time"].min()
    return ExperimentResult(
        north_star=star.label,
        north_star_sentence=str(star),
        begun=str(begun),
        days=(lake.watermark - cast(datetime, begun)).days,
        arms=(
            ArmPolicy("control", table.control),
            *(ArmPolicy(arm, experiment.arms[arm].name) for arm in experiment.treatments),
        ),
        users=enrolled.height,
        share=experiment.shares[0],
        plan=None,
        readout=read.figures(),
        other_lines=() if other_readout is None else other_readout.figures().lines,
        words=str(read),
        truth=(),
        daily=tuple(
            replace(row, arm="control") if row.arm == table.control else row
            for row in _daily(lake, experiment, begun)
        ),
    )


def experiment_of(
    table: ExperimentTable, control: Policy, arms: Mapping[str, Policy]
) -> Experiment:
    """The experiment of the configuration: the incumbent against the arms, in their order."""
    return Experiment(
        control=control, treatment={name: arms[name] for name in table.arms}, salt=table.salt
    )


def _save(work: Work, lake: Lake) -> None:
    Lake.open(work.folder / "lake").append(
        "experiment",
        events=lake.events,
        decisions=lake.decisions,
        contexts=None,
        items=lake.items,
        users=None if lake.users.is_empty() else lake.users,
        watermark=lake.watermark,
        now=lake.watermark,
    )


def _daily(lake: Lake, experiment: Experiment, begun: Any) -> tuple[ArmDay, ...]:
    """Share of each arm's enrolled users who visit, by day of the experiment."""
    enrolled = experiment.enrolled(lake).select("user_id", "arm")
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
    """Check that the north star is declared, the arms are policies, and the experiment is simulated
    or logged."""
    experiment = config.find(ExperimentTable)
    if experiment is None:
        return
    check_declared(config, [("experiment.north_star", experiment.north_star)])
    _check_source(experiment, simulated=config.find(Simulate) is not None)
    _check_exclusions(config)
    allowed_arms = [*arm_names(), *config.of(RewardTable).rivals]
    for arm in experiment.arms:
        if arm not in allowed_arms:
            raise ValueError(
                f"experiment.arms: {arm!r} given, expected some of {', '.join(allowed_arms)}"
                f"{hint(arm, allowed_arms)}"
            )


def _check_source(experiment: ExperimentTable, *, simulated: bool) -> None:
    """Check that a simulated run has a simulated experiment, and a run on a log a logged one."""
    if not simulated:
        if experiment.logged is None:
            raise ValueError(
                "experiment.logged: missing; an experiment on a log of your own is one that your "
                "service ran: give its name in the log (column "
                "experiment of the decisions), or leave [experiment] out"
            )
        foreign = [
            name
            for name in ("days", "salt", "arms", "true_users")
            if name in experiment.model_fields_set
        ]
        if foreign:
            raise ValueError(
                f"experiment.{foreign[0]} is of an experiment that is simulated, but "
                f"{experiment.logged!r} was logged; leave it out"
            )
    elif experiment.logged is not None:
        raise ValueError(
            f"experiment.logged = {experiment.logged!r}, but this run simulates its experiment; leave it out"
        )


def _check_exclusions(config: Configuration) -> None:
    """Check that the experiment excludes items by the same rule as training, where a rule is
    set."""
    simulate = config.find(Simulate)
    train = config.of(Train)
    if (
        simulate is not None
        and "exclude" in simulate.model_fields_set
        and simulate.exclude != train.exclude
    ):
        raise ValueError(
            f"simulate.exclude = {simulate.exclude!r}, but train.exclude = "
            f"{train.exclude!r}: the experiment would show policies under "
            "another rule of exclusions than they were trained under; give both the same"
        )


def _line(result: ExperimentResult) -> str:
    verdicts = [f"{row.arm}: {row.verdict}" for row in result.readout.decisions]
    return f"{result.users:,} users, {result.days} days: {'; '.join(verdicts)}"


STAGE = Stage(
    name="experiment",
    order=100,
    version=4,
    help="Run an experiment of the policies in the simulated service, with its plan, its read-out and "
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
