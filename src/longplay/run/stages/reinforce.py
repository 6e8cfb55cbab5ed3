"""Stage `reinforce`: reinforcement learning on the cautious value of showing, and its baselines."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from longplay.lake import Lake
from longplay.policies.simple import Popular
from longplay.results import from_json
from longplay.results.reinforcement_figures import (
    ReinforceResult,
    ReinforceStep,
    RivalFigures,
    WeightedFigures,
    WeightedStep,
)
from longplay.run.engine import LEARNERS, Stage, Work, depends_on
from longplay.run.stages.reward import RewardTable, early_of, reward_of
from longplay.run.tables import Positive, Table

if TYPE_CHECKING:
    from longplay.policies.generative_policy import Generative


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
    """Reinforce the trained start; train reward-weighted and on rival rewards for comparison."""
    import torch

    from longplay.learning.reinforce import reinforce
    from longplay.learning.reward_weighted import reward_weighted
    from longplay.policies.generative_policy import Generative

    torch.set_num_threads(work.config.run.threads)
    config = work.config
    past = work.past
    table = config.of(Reinforce)
    reward = reward_of(config)
    early = early_of(work, past)
    start = Generative.load(work.places["train"] / "policy")
    shared = {
        "steps": table.steps,
        "seed": config.run.seed,
        "lr": table.lr,
        "contexts": table.contexts,
        "group": table.group,
        "slots": table.slots,
    }
    tuned = reinforce(
        start,
        reward,
        early,
        past,
        **shared,
        kl=table.kl,
        progress=work.bar("reinforcing"),
        checkpoint=work.folder / "reinforce.safetensors",
    )
    tuned.save(work.folder / "tuned")
    rivals = {}
    for name in config.of(RewardTable).rivals:
        rival = reinforce(
            start,
            reward_of(config, name),
            early,
            past,
            **shared,
            kl=table.kl,
            progress=work.bar(f"reinforcing {name}"),
            checkpoint=work.folder / f"rival-{name}.safetensors",
        )
        rival.save(work.folder / "rivals" / name)
        rivals[name] = RivalFigures(
            policy=rival.name,
            objectives=config.of(RewardTable).rivals[name],
            curve=_steps(rival),
            alarms=tuple(rival.alarms),
        )
    weighted_kl = table.kl if table.weighted_kl is None else table.weighted_kl
    weighted = reward_weighted(  # it enforces no guardrail: see docs/methods.md
        start,
        replace(reward, guardrails={}),
        early,
        past,
        **shared,
        kl=weighted_kl,
        progress=work.bar("reward-weighted training"),
        checkpoint=work.folder / "weighted.safetensors",
    )
    weighted.save(work.folder / "weighted")
    for name in ("reinforce", "weighted", *(f"rival-{rival}" for rival in rivals)):
        (work.folder / f"{name}.safetensors").unlink(missing_ok=True)
    return ReinforceResult(
        policy=tuned.name,
        reward=reward.version,
        objectives={signal.label: weight for signal, weight in reward.objectives.items()},
        caution=reward.caution,
        guardrails={metric.label: bound for metric, bound in reward.guardrails.items()},
        alarms=tuple(tuned.alarms),
        exclude=tuned.exclude,
        kl_weight=table.kl,
        weighted_kl=weighted_kl,
        curve=_steps(tuned),
        weighted=WeightedFigures(
            weighted.name,
            tuple(WeightedStep(int(row["step"]), row["loss"]) for row in weighted.curve),
        ),
        rivals=rivals,
    )


def _steps(policy: Generative) -> tuple[ReinforceStep, ...]:
    """The learning curve of a reinforced policy."""
    return tuple(from_json(ReinforceStep, row, policy.name) for row in policy.curve)


def policies_of(work: Work, past: Lake, names: Iterable[str] | None = None) -> dict[str, Any]:
    """The policies of the run by name, the rivals last; only those in `names` are loaded (default
    all)."""
    from longplay.policies.generative_policy import Generative

    reinforced = work.places["reinforce"]
    folders = {
        "start": work.places["train"] / "policy",
        "reward-weighted": reinforced / "weighted",
        "reinforced": reinforced / "tuned",
        **{name: reinforced / "rivals" / name for name in work.config.of(RewardTable).rivals},
    }
    wanted = {"popular", *folders} if names is None else set(names)
    popular = {}
    if "popular" in wanted:
        popular["popular"] = Popular(slate=work.config.of(Reinforce).slots).fit(past)
    return popular | {
        name: Generative.load(folder) for name, folder in folders.items() if name in wanted
    }


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
    depends=depends_on("signals", "split.train_until", "reward", "reinforce", "train"),
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
