"""The loop that ways of learning share: progress, checkpoints, guardrails, alarms, seeds.

A way of learning is a file with a function such as `reinforce`. It says what a step's loss is and
how the weights follow it (`Recipe`); all else is here.
"""

from __future__ import annotations

import logging
import numbers as numbers_abc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from longplay.decisions import Contexts, contexts_from_log, reads_users, showings_of
from longplay.errors import ConfigError
from longplay.lake.lake import Lake
from longplay.learning.enforcement import Guardrails
from longplay.learning.leash import EVERY, Leash
from longplay.learning.rollout import EarlyRewards, enough_left, fingerprints, reward_spread
from longplay.learning.trainable import Trainable
from longplay.learning.variety import variety_alarms
from longplay.policies.generative.decoder import Decoder
from longplay.policies.training.checkpoint import load_checkpoint, save_checkpoint
from longplay.policies.training.descent import Pace, Progress
from longplay.rewards import Reward

logger = logging.getLogger(__name__)
P = TypeVar("P", bound=Trainable)
LEAST = {
    "steps": 0,
    "seed": 0,
    "kl": 0,
    "lr": 0,
    "contexts": 1,
    "group": 2,
    "slots": 1,
    "pool": 1,
    "limit": 1,
}
FRACTIONS = ("kl", "lr")  # the others are whole numbers
KINDS = {
    "step": int,
    "curve": list,
    "unit": float,
    "guarded": dict,
    "weight": float,
}  # of the notes in a checkpoint
MOST_NORM = 1.0  # gradients are clipped at this norm


@dataclass(frozen=True)
class Task(Generic[P]):
    """What is learned: policy, reward, log and numbers of a training.

    Attributes:
        way: name of the way of learning.
        policy: the start; it is left as it is.
        reward: what slots are paid.
        early: one early reward, or one per signal.
        lake: the past.
        moments: logged moments that leave enough items to show.
        slots: per slate.
        exclude: what contexts forbid.
        seed: of everything that is drawn.
        steps: of learning, at least 0.
        lr: learning rate; 0 changes nothing.
        settings: further numbers of the way, that a checkpoint must agree on.
        kl: weight of the divergence from the start; the first one where `nats` is aimed at.
        nats: divergence to aim at; null: the weight stays as it is.
    """

    way: str
    policy: P
    reward: Reward
    early: EarlyRewards
    lake: Lake
    moments: Contexts
    slots: int
    exclude: str
    seed: int
    steps: int
    lr: float
    settings: Mapping[str, float]
    kl: float
    nats: float | None = None

    @classmethod
    def of(
        cls,
        way: str,
        policy: P,
        reward: Reward,
        early: EarlyRewards,
        lake: Lake,
        *,
        slots: int | None,
        exclude: str | None,
        pool: int,
        seed: int,
        steps: int,
        lr: float,
        kl: float = 0.0,
        nats: float | None = None,
        **settings: float,
    ) -> Task[P]:
        """The task, after a check that its numbers are in range.

        Args:
            way: name of the way of learning, in errors and in checkpoints.
            policy: the start.
            reward: what slots are paid.
            early: one early reward, or one per signal.
            lake: the past; moments come from its visits.
            slots: per slate; default the policy's.
            exclude: what contexts forbid; default as in the policy's training.
            pool: at most this many logged moments.
            seed: of the moments, too.
            steps: at least 0.
            lr: learning rate, at least 0.
            kl: weight of the divergence, at least 0; above 0 where `nats` is given.
            nats: divergence to aim at, above 0.
            settings: the other numbers of the way.

        Raises:
            ConfigError: a number out of range.
            DataError: no moment leaves enough items to show.
        """
        slots = policy.slate if slots is None else slots
        exclude = policy.exclude if exclude is None else exclude
        check_ranges(way, steps=steps, seed=seed, lr=lr, kl=kl, **settings, slots=slots, pool=pool)
        if nats is not None and not (0 < nats < float("inf") and kl > 0):
            raise ConfigError(
                f"{way}: nats={nats}, kl={kl} given, expected a divergence above 0 to aim at, and a "
                "weight above 0 to begin with"
            )
        moments = contexts_from_log(
            lake,
            slots=slots,
            history=policy.history,
            exclude=exclude,
            limit=pool,
            seed=seed,
            learners=True,
            showings=showings_of(policy),
            users=reads_users(policy),
        )
        moments = enough_left(moments, policy, slots)
        return cls(
            way,
            policy,
            reward,
            early,
            lake,
            moments,
            slots,
            exclude,
            seed,
            steps,
            lr,
            {**settings, "pool": pool},
            kl,
            nats,
        )

    def drawn(self, contexts: int, rng: np.random.Generator) -> Contexts:
        """The moments of a step: `contexts` different ones, or all where there are fewer."""
        count = min(contexts, len(self.moments))
        return self.moments.take(rng.choice(len(self.moments), size=count, replace=False))

    def made_by(self) -> dict[str, object]:
        """The settings that a checkpoint must agree on, without the digests of the data."""
        return {
            "way": self.way,
            "start": self.policy.name,
            "reward": self.reward.version,
            "steps": self.steps,
            "seed": self.seed,
            "lr": self.lr,
            "kl": self.kl,
            **({} if self.nats is None else {"nats": self.nats}),
            "slots": self.slots,
            "exclude": self.exclude,
            **self.settings,
        }


@dataclass(frozen=True)
class Learner:
    """What a way of learning is given when training begins.

    Attributes:
        decoder: the weights that are trained.
        unit: spread of a slot's reward within a group, at the start (`rollout.reward_spread`).
        guardrails: of the reward, if it has any.
    """

    decoder: Decoder
    unit: float
    guardrails: Guardrails | None


@dataclass(frozen=True)
class Step:
    """One step of a way of learning.

    Attributes:
        loss: with gradient.
        figures: its columns of the curve.
        shares: per guardrail, the estimated share of the start's level on this step's slates.
        nats: the divergence from the start that the weight should follow, where the step knows it;
            null: that of the weights is measured every few steps (`leash`).
    """

    loss: Tensor
    figures: dict[str, float]
    shares: dict[str, float] = field(default_factory=dict)
    nats: float | None = None


@dataclass(frozen=True)
class Weights:
    """What a step's reward is weighed against.

    Attributes:
        kl: of the divergence from the start, in units of the reward's spread.
        multiplier: of each guardrail, by label.
    """

    kl: float
    multiplier: Mapping[str, float]


# a step of this number
StepOf = Callable[[int, Weights], Step]


def constant(step: int, steps: int) -> float:
    """The full learning rate at every step."""
    return 1.0


@dataclass(frozen=True)
class Recipe:
    """How weights follow a loss: AdamW, one step per loss.

    Attributes:
        weight_decay: AdamW's.
        betas: AdamW's.
        rate: share of the learning rate at step 0, 1, ... of so many.
        row_every: steps per row of the curve, which has the means of their figures.
        save_every: steps between checkpoints, and between measurements of guardrails; a multiple of
            `row_every`.
        alarms: whether the end is compared with the start (`learning.variety`).
    """

    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.99)
    rate: Callable[[int, int], float] = constant
    row_every: int = 1
    save_every: int = 10
    alarms: bool = True


def train(
    task: Task[P],
    prepare: Callable[[Learner], StepOf],
    recipe: Recipe,
    *,
    progress: Progress | None = None,
    checkpoint: Path | None = None,
) -> P:
    """Train a policy for the task's steps by a way of learning.

    A step depends on its number and the weights alone, so a resumed training is the same training.
    With guardrails the weights that are returned are the last that kept all of them, which may be
    the start's.

    Args:
        task: what is learned from.
        prepare: called once; gives the function of a step.
        recipe: how the weights follow the loss.
        progress: called with step, steps, figures.
        checkpoint: file to save to and to go on from.

    Raises:
        ConfigError: a checkpoint of another training.
        DataError: the checkpoint is damaged, or a guarded signal is worth nothing at the start.
    """
    policy = task.policy
    moments = task.moments
    steps = task.steps
    learned_from = (policy, task.reward, task.early, task.lake, moments)
    made_by = task.made_by()
    if checkpoint:
        made_by |= fingerprints(*learned_from)
    tuned = policy.learner(task.seed)
    now = nn.ParameterList(tuned.trainable())
    optimizer = torch.optim.AdamW(
        now, lr=task.lr, weight_decay=recipe.weight_decay, betas=recipe.betas
    )
    rails = None
    held = now
    saved: nn.Module = now
    if task.reward.guardrails:
        rails = Guardrails.of(*learned_from, task.slots, task.seed)
        # the last weights that broke no guardrail
        held = nn.ParameterList([parameter.detach().clone() for parameter in now])
        saved = nn.ModuleDict({"now": now, "kept": held})
    state = _State(guarded=rails.nothing_yet() if rails else {}, weight=task.kl)
    if checkpoint:
        notes = load_checkpoint(checkpoint, saved, [optimizer], made_by, KINDS)
        if notes:
            state = _State(**{name: notes[name] for name in KINDS})
    if state.unit is None:
        state.unit = reward_spread(*learned_from, task.seed)
    leash = None
    if task.nats is not None:
        leash = Leash.of(task.nats, policy, moments, task.seed)
    step_of = prepare(Learner(tuned, state.unit, rails))
    pace = Pace(tuned, state.step, steps)
    pending: list[dict[str, float]] = []
    while state.step < steps:
        for group in optimizer.param_groups:
            group["lr"] = task.lr * recipe.rate(state.step, steps)
        step = step_of(state.step, Weights(state.weight, state.guarded.get("multiplier", {})))
        optimizer.zero_grad(set_to_none=True)
        step.loss.backward()
        torch.nn.utils.clip_grad_norm_(now, MOST_NORM)
        optimizer.step()
        state.step += 1
        if leash and step.nats is not None:
            state.weight = leash.follow(state.weight, step.nats, 1)
        elif leash and state.step % EVERY == 0:
            state.weight = leash.follow(state.weight, leash.nats(tuned), EVERY)
        pending.append(step.figures)
        row = {"step": state.step} | _means(pending)
        is_last = state.step == steps
        is_check = state.step % recipe.save_every == 0 or is_last
        if rails:
            state.guarded["multiplier"] = rails.ascend(state.guarded["multiplier"], step.shares)
            if is_check:
                state.guarded["share"] = rails.shares(tuned)
                if rails.hold(state.guarded["share"]):
                    held.load_state_dict(now.state_dict())
                    state.guarded["kept"] = state.step
            row |= rails.figures(state.guarded, step.shares)
        if state.step % recipe.row_every == 0 or is_last:
            state.curve.append(row)
            pending = []
        if checkpoint and is_check:
            save_checkpoint(checkpoint, saved, [optimizer], made_by | vars(state))
        if progress:
            progress(state.step, steps, row | pace.figures(state.step))
    if rails:
        now.load_state_dict(held.state_dict())
    alarms: tuple[str, ...] = ()
    if recipe.alarms and steps:
        alarms = variety_alarms(policy, tuned, task.lake, moments, task.slots, task.seed)
    if alarms:
        logger.warning("%s", alarm_words(alarms, str(task.reward)))
    return policy.rewarded(tuned, exclude=task.exclude, curve=tuple(state.curve), alarms=alarms)


@dataclass
class _State:
    """What is carried from step to step, as JSON has it.

    Attributes:
        step: steps that are done.
        curve: rows of the curve.
        unit: see `Learner.unit`.
        guarded: see `Guardrails.nothing_yet`; empty without guardrails.
        weight: of the divergence now.
    """

    guarded: dict[str, Any]
    weight: float
    step: int = 0
    curve: list[dict[str, float]] = field(default_factory=list)
    unit: float | None = None


def _means(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of every figure over some steps.

    >>> _means([{"loss": 1.0}, {"loss": 3.0}])
    {'loss': 2.0}
    """
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def alarm_words(alarms: Sequence[str], reward: str) -> str:
    """One line about figures that fell far, and what to do."""
    return (
        f"ALARM: the policy reinforced on {reward} is far behind the start: {'; '.join(alarms)}. "
        "Raise kl, or give the reward (stricter) guardrails: {coverage(): 0.8, top_creator(): 0.8}"
    )


def check_ranges(way: str, **numbers: object) -> None:
    """Refuse what is no number, not whole where it must be, not finite, or below what makes sense.

    Args:
        way: what the error calls the way of learning.
        numbers: by the name of their argument.

    Raises:
        ConfigError: one of them.
    """
    for name, value in numbers.items():
        kind = numbers_abc.Real if name in FRACTIONS else numbers_abc.Integral
        is_number = isinstance(value, kind) and not isinstance(value, bool)
        if not is_number or not LEAST[name] <= value < float("inf"):  # type: ignore[operator]
            article = "a number" if name in FRACTIONS else "a whole number"
            raise ConfigError(
                f"{way}: {name}={value!r} given, expected {article} of at least {LEAST[name]}"
            )
