"""The policies that a run trains and compares: one record each. A new policy is one more record.

Stages train and load what the records say, `run.toml` accepts their names as arms of an experiment,
and the report takes their names, phrases, colours and comparisons from them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from longplay.decisions import Policy
from longplay.errors import ConfigError
from longplay.lake import Lake
from longplay.policies.simple import Popular
from longplay.progress import Progress
from longplay.ranking import Ranker

if TYPE_CHECKING:
    from longplay.learning.rollout import EarlyRewards
    from longplay.policies.generative_policy import Generative
    from longplay.rewards import Reward

POPULAR = "popular"  # what a simulated service shows before the run
START = "start"  # what next-item training gives, and every training on a reward begins with
MAIN = "reinforced"  # the policy that the run is about


class RunnablePolicy(Policy, Ranker, Protocol):
    """What stages ask of a policy of a run: slates with propensities, and a score of every item."""


class TrainedPolicy(RunnablePolicy, Protocol):
    """What stage `reinforce` asks of a policy that it has trained."""

    @property
    def curve(self) -> Sequence[Mapping[str, float]]:
        """Figures of its training, row by row: `step`, and `loss` where there is one."""
        ...

    @property
    def alarms(self) -> Sequence[str]:
        """What fell far behind the start in training, in words."""
        ...

    @property
    def exclude(self) -> str:
        """The rule of exclusions that it was trained under: seen, creator or none."""
        ...

    def save(self, folder: Path) -> None:
        """Write it to a folder that its record's `load` reads."""
        ...


@dataclass(frozen=True)
class RewardTraining:
    """What a policy that learns from a reward is trained with.

    Attributes:
        start: the policy to begin with.
        reward: what is paid; the guardrails are those of the run.
        early: the early reward of each signal that pays or is guarded.
        past: the log as it was known when training ends.
        steps: of training.
        seed: of the run.
        lr: learning rate.
        contexts: per step.
        group: slates per context.
        slots: per slate.
        kl: price of a nat of distance to the start.
        weighted_kl: the same in reward-weighted training.
        progress: of the steps.
        checkpoint: file that a stopped training goes on from.
    """

    start: Generative
    reward: Reward
    early: EarlyRewards
    past: Lake
    steps: int
    seed: int
    lr: float
    contexts: int
    group: int
    slots: int
    kl: float
    weighted_kl: float
    progress: Progress
    checkpoint: Path


Fit: TypeAlias = Callable[[Lake, int], RunnablePolicy]
Train: TypeAlias = Callable[[RewardTraining], TrainedPolicy]
Load: TypeAlias = Callable[[Path], RunnablePolicy]


def load_generative(folder: Path) -> RunnablePolicy:
    """The generative policy that a stage saved in `folder`."""
    from longplay.policies.generative_policy import Generative

    return Generative.load(folder)


@dataclass(frozen=True, kw_only=True)
class RunPolicy:
    """A policy of a run, and all that stages, run.toml and the report need to know of it.

    Attributes:
        name: in run.toml, in results and in tables.
        phrase: its name in a sentence, such as "the popular policy".
        sentence: what it is, for readers of the command line's schema and of the report.
        colour: in charts, as CSS writes it.
        stage: what makes it: `train` and `reinforce` save it in their folders; `log` says that it
            is fitted to the log wherever it is needed.
        fit: makes it of the log and of a number of slots; where `stage` is `log`.
        train: trains it on the run's reward; where `stage` is `reinforce`.
        folder: where its stage saves it, below the folder of the stage.
        checkpoint: name of the file that its training goes on from.
        load: reads what was saved.
        compared_with: policies from which its differences are computed.
        in_answer: whether the report compares it in sentences, beside tables and charts.
        is_arm: whether an experiment may try it.
    """

    name: str
    phrase: str
    sentence: str
    colour: str
    stage: Literal["log", "train", "reinforce"]
    fit: Fit | None = None
    train: Train | None = None
    folder: str = ""
    checkpoint: str = ""
    load: Load = load_generative
    compared_with: tuple[str, ...] = ()
    in_answer: bool = True
    is_arm: bool = True

    def __post_init__(self) -> None:
        needed = {
            "log": {"fit": self.fit},
            "train": {"folder": self.folder},
            "reinforce": {
                "train": self.train,
                "folder": self.folder,
                "checkpoint": self.checkpoint,
            },
        }[self.stage]
        if missing := [field for field, value in needed.items() if not value]:
            raise ConfigError(
                f"RunPolicy {self.name!r}: stage={self.stage!r} given, but no {missing[0]}; a "
                f"policy of this stage needs {', '.join(needed)}"
            )

    @property
    def learns_from_reward(self) -> bool:
        """Whether it was trained on a reward; the others are baselines."""
        return self.stage == "reinforce"


def fit_popular(past: Lake, slots: int) -> RunnablePolicy:
    """The popular policy of a log."""
    return Popular(slate=slots).fit(past)


def train_reward_weighted(training: RewardTraining) -> TrainedPolicy:
    """Reward-weighted training from the start; it enforces no guardrail (docs/methods.md)."""
    from longplay.learning.reward_weighted import reward_weighted

    reward = replace(training.reward, guardrails={})
    return _trained_by(reward_weighted, training, reward, training.weighted_kl)


def train_reinforced(training: RewardTraining) -> Generative:
    """Reinforcement from the start."""
    from longplay.learning.reinforce import reinforce

    return _trained_by(reinforce, training, training.reward, training.kl)


def _trained_by(
    learn: Callable[..., Generative], training: RewardTraining, reward: Reward, kl: float
) -> Generative:
    """The start after training by `learn`, with the settings that all ways of learning share."""
    return learn(
        training.start,
        reward,
        training.early,
        training.past,
        steps=training.steps,
        seed=training.seed,
        kl=kl,
        lr=training.lr,
        contexts=training.contexts,
        group=training.group,
        slots=training.slots,
        progress=training.progress,
        checkpoint=training.checkpoint,
    )


RUN_POLICIES = (
    RunPolicy(
        name=POPULAR,
        phrase="the popular policy",
        sentence="what was played most, and any item now and then",
        colour="#858b94",
        stage="log",
        fit=fit_popular,
        is_arm=False,  # a simulated service shows it already: it is the control
    ),
    RunPolicy(
        name=START,
        phrase="the start",
        sentence="the generative policy after next-item training",
        colour="#3a7ec2",
        stage="train",
        folder="policy",
        compared_with=(POPULAR,),
        in_answer=False,
    ),
    RunPolicy(
        name="reward-weighted",
        phrase="reward-weighted training",
        sentence="the start, trained on logged choices weighted by their reward",
        colour="#d97a06",
        stage="reinforce",
        train=train_reward_weighted,
        folder="weighted",
        checkpoint="weighted",
        compared_with=(START,),
        in_answer=False,
    ),
    RunPolicy(
        name=MAIN,
        phrase="reinforcement",
        sentence="the start, reinforced on the run's reward",
        colour="#109678",
        stage="reinforce",
        train=train_reinforced,
        folder="tuned",
        checkpoint="reinforce",
        compared_with=("reward-weighted", START),
    ),
)
# runs with these alone keep the hash that they had before there was a table
_FIRST_POLICIES = frozenset({POPULAR, START, "reward-weighted", MAIN})


def run_policies() -> tuple[RunPolicy, ...]:
    """The records of all policies, those that others begin with first."""
    return RUN_POLICIES


def run_policy(name: str) -> RunPolicy:
    """The record of a policy.

    >>> run_policy("start").phrase
    'the start'

    Raises:
        KeyError: there is none of this name.
    """
    return {record.name: record for record in run_policies()}[name]


def run_policy_names() -> tuple[str, ...]:
    """The names of all policies, in the order of the table."""
    return tuple(record.name for record in run_policies())


def arm_names() -> tuple[str, ...]:
    """The names of policies that an experiment may try."""
    return tuple(record.name for record in run_policies() if record.is_arm)


def baseline_names() -> tuple[str, ...]:
    """The names of policies that learned from no reward."""
    return tuple(record.name for record in run_policies() if not record.learns_from_reward)


def added_policies() -> tuple[RunPolicy, ...]:
    """The records of policies that were added to the first four."""
    return tuple(record for record in run_policies() if record.name not in _FIRST_POLICIES)


def rival(name: str) -> RunPolicy:
    """The record of the policy that is reinforced on another reward, called a rival.

    >>> rival("clicks").folder
    'rivals/clicks'
    """
    return replace(
        run_policy(MAIN),
        name=name,
        phrase=f"reinforcement on {name}",
        folder=f"rivals/{name}",
        checkpoint=f"rival-{name}",
        compared_with=(),
    )


def comparisons() -> tuple[tuple[str, str], ...]:
    """Pairs of policies whose difference is reported, the first less the second: those of the main
    policy first, then from the last record to the first.

    >>> comparisons()[:2]
    (('reinforced', 'reward-weighted'), ('reinforced', 'start'))
    """
    from_the_last = reversed(run_policies())
    records = sorted(from_the_last, key=lambda record: record.name != MAIN)
    return tuple((record.name, other) for record in records for other in record.compared_with)
