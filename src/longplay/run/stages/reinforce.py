"""Stage `reinforce`: reinforcement learning on the cautious value of showing, and its baselines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from longplay.errors import ConfigError
from longplay.lake import Lake
from longplay.results import from_json
from longplay.results.reinforcement_figures import (
    AddedPolicyFigures,
    ReinforceResult,
    ReinforceStep,
    RivalFigures,
    WeightedFigures,
    WeightedStep,
)
from longplay.run.engine import LEARNERS, Stage, Work, depends_on
from longplay.run.stages.reward import RewardTable, early_of, reward_of
from longplay.run.tables import Configuration, Positive, Table
from longplay.run_policies import (
    MAIN,
    START,
    RewardTraining,
    RunnablePolicy,
    RunPolicy,
    added_policies,
    rival,
    run_policies,
    run_policy,
)


class Reinforce(Table):
    """Leave-one-out policy gradient on the cautious value of showing."""

    steps: Annotated[int, Field(ge=0)] = 150
    kl: Annotated[float, Field(ge=0)] = 0.2
    weighted_kl: Annotated[float, Field(ge=0)] | None = (
        None  # of reward-weighted training; default the same
    )
    lr: Annotated[float, Field(ge=0)] = 1e-3
    contexts: Positive = 32
    group: Annotated[int, Field(ge=2)] = 8
    slots: Positive = 5


def run(work: Work) -> ReinforceResult:
    """Train every policy that learns from a reward: reinforcement from the trained start, the same
    on rival rewards, and what it is compared with."""
    import torch

    from longplay.policies.generative_policy import Generative

    torch.set_num_threads(work.config.run.threads)
    config = work.config
    past = work.past
    table = config.of(Reinforce)
    early = early_of(work)
    start = Generative.load(work.places["train"] / run_policy(START).folder)
    rivals = config.of(RewardTable).rivals
    weighted_kl = table.kl if table.weighted_kl is None else table.weighted_kl
    trained: dict[str, _Trained] = {}
    for record in _records(config):
        training = RewardTraining(
            start=start,
            reward=reward_of(config, record.name if record.name in rivals else MAIN),
            early=early,
            past=past,
            steps=table.steps,
            seed=config.run.seed,
            lr=table.lr,
            contexts=table.contexts,
            group=table.group,
            slots=table.slots,
            kl=table.kl,
            weighted_kl=weighted_kl,
            progress=work.bar(record.phrase),
            checkpoint=work.folder / f"{record.checkpoint}.safetensors",
        )
        trained[record.name] = _trained(record, training, work.folder / record.folder)
    for record in _records(config):
        (work.folder / f"{record.checkpoint}.safetensors").unlink(missing_ok=True)
    reward = reward_of(config)
    tuned = trained[MAIN]
    return ReinforceResult(
        policy=tuned.policy,
        reward=reward.version,
        objectives={signal.label: weight for signal, weight in reward.objectives.items()},
        caution=reward.caution,
        guardrails={metric.label: bound for metric, bound in reward.guardrails.items()},
        alarms=tuned.alarms,
        exclude=tuned.exclude,
        kl_weight=table.kl,
        weighted_kl=weighted_kl,
        curve=tuned.steps(),
        weighted=WeightedFigures(
            trained["reward-weighted"].policy, trained["reward-weighted"].losses()
        ),
        rivals={
            name: RivalFigures(
                policy=trained[name].policy,
                objectives=objectives,
                curve=trained[name].steps(),
                alarms=trained[name].alarms,
            )
            for name, objectives in rivals.items()
        },
        added=tuple(
            trained[record.name].added(record.name)
            for record in added_policies()
            if record.learns_from_reward
        ),
    )


@dataclass(frozen=True)
class _Trained:
    """What the result says of a policy that was trained; its weights are not kept in memory.

    Attributes:
        policy: `name@version`.
        curve: figures of its training.
        alarms: what fell far behind the start, in words.
        exclude: what it does not recommend: seen, creator or none.
    """

    policy: str
    curve: tuple[Mapping[str, float], ...]
    alarms: tuple[str, ...]
    exclude: str

    def steps(self) -> tuple[ReinforceStep, ...]:
        """The curve of a reinforced policy."""
        return tuple(from_json(ReinforceStep, row, self.policy) for row in self.curve)

    def losses(self) -> tuple[WeightedStep, ...]:
        """The loss at each check; empty where the curve states none."""
        return tuple(
            WeightedStep(int(row["step"]), row["loss"]) for row in self.curve if "loss" in row
        )

    def added(self, name: str) -> AddedPolicyFigures:
        """Its figures, where it is none of the first policies."""
        return AddedPolicyFigures(name, self.policy, self.losses(), self.alarms)


def _trained(record: RunPolicy, training: RewardTraining, folder: Path) -> _Trained:
    """Train a policy and save it in `folder`."""
    if record.train is None:
        raise ConfigError(f"policy {record.name!r}: its record says how it is loaded, not trained")
    policy = record.train(training)
    policy.save(folder)
    return _Trained(policy.name, tuple(policy.curve), tuple(policy.alarms), policy.exclude)


def _records(config: Configuration) -> list[RunPolicy]:
    """The records of the policies that this stage trains: the main one, its rivals, the others."""
    learners = [record for record in run_policies() if record.learns_from_reward]
    learners.sort(key=lambda record: record.name != MAIN)
    return [learners[0], *map(rival, config.of(RewardTable).rivals), *learners[1:]]


def policies_of(
    work: Work, past: Lake, names: Iterable[str] | None = None
) -> dict[str, RunnablePolicy]:
    """The policies of the run by name: those of the log first, the rivals last.

    Args:
        work: of a stage after this one.
        past: the log that policies of the log are fitted to.
        names: of the policies to load; null: all.
    """
    records = [*run_policies(), *map(rival, work.config.of(RewardTable).rivals)]
    wanted = {record.name for record in records} if names is None else set(names)
    policies: dict[str, RunnablePolicy] = {}
    for record in sorted(records, key=lambda record: record.stage != "log"):
        if record.name not in wanted:
            continue
        if record.fit is not None:
            policies[record.name] = record.fit(past, work.config.of(Reinforce).slots)
        else:
            policies[record.name] = record.load(work.places[record.stage] / record.folder)
    return policies


def _depends(config: Configuration, base: Path) -> Any:
    """Also on the names of policies that were added to the first ones, where there are such."""
    depends = depends_on("signals", "split.train_until", "reward", "reinforce", "train")
    names = [record.name for record in added_policies()]
    return depends(config, base) | ({"policies": names} if names else {})


def _line(result: ReinforceResult) -> str:
    if not result.curve:
        return f"{result.policy}: no steps"
    first = result.curve[0]
    last = result.curve[-1]
    alarm = f"ALARM, far behind the start: {'; '.join(result.alarms)}. " if result.alarms else ""
    return (
        f"{alarm}{result.policy}: reward per slot {first.reward:.4g} → {last.reward:.4g}, "
        f"KL {last.kl:.2f}"
    )


STAGE = Stage(
    name="reinforce",
    order=70,
    version=3,
    help="Reinforce it on the cautious value of showing, beside exponential reward-weighted "
    "training and rival rewards.",
    table=Reinforce,
    needs=("ingest", "simulate", "train"),
    depends=_depends,
    run=run,
    line=_line,
    resumes=True,
    libraries=LEARNERS,
    loads=(
        "torch",
        "transformers",
        "longplay.learning.reinforce",
        "longplay.learning.reward_weighted",
        "longplay.rewards.guardrails",
    ),
)
