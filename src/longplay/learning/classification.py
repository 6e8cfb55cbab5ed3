"""Binary classification of logged slots: those worth more than the mean are made likelier, those
worth less are pushed down."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from longplay.lake.lake import Lake
from longplay.learning.enforcement import refuse_guardrails
from longplay.learning.exposures import Exposures
from longplay.learning.rollout import EarlyRewards
from longplay.learning.trainer import Learner, P, Recipe, Step, StepOf, Task, train
from longplay.progress import Progress, reporting
from longplay.rewards import Reward

LEAST_KL = 1e-6  # below it the loss is straight, to rounding
TINY = float(np.finfo(np.float64).tiny)


def weighted_classification(
    policy: P,
    reward: Reward,
    early: EarlyRewards,
    lake: Lake,
    *,
    steps: int = 200,
    seed: int = 0,
    kl: float = 0.2,
    nats: float | None = None,
    lr: float = 1e-3,
    contexts: int = 32,
    group: int = 8,
    slots: int | None = None,
    exclude: str | None = None,
    pool: int = 5_000,
    limit: int = 20_000,
    progress: Progress = None,
    checkpoint: Path | None = None,
) -> P:
    """Return `policy` after `steps` of weighted binary classification of logged slots, the
    post-training of GenPage (Wang et al. 2026, arXiv 2606.31031) on the reward of `reinforce`.

    Each step takes `contexts` x `group` logged slates, with up to `MOST_SLOTS` slots each. A slot's
    label is whether the cautious value of showing it, as it was logged, is above the mean of the
    step's slots; its weight is the distance from that mean, in units of the spread that `reinforce`
    uses. So a constant added to the reward changes nothing. The logit is kl x log(pi / start) of
    the slot's item at its moment (`classification_loss`): what a reward must be for the policy to
    be the optimum under the penalty of `reinforce`, up to a constant of the moment. This logit, and
    weights by a belief instead of by what a user did, are choices of this library.

    Slots count as often as the logger showed them: propensities are not read. A label says on which
    side of the start an item belongs, not how far from it, so there is no optimum in closed form,
    and nothing pulls back a policy that has gone far: steps and rate matter more than elsewhere.

    Args:
        policy: a fitted `Generative`; it is left as it is.
        reward: objectives and caution, without guardrails.
        early: one early reward, or one per signal.
        lake: the past; slots come from its decisions, those of held-out users and those that show
            what was asked for left out.
        steps: updates.
        seed: of slates and slots.
        kl: scale of the logit; more keeps the policy nearer to the start, but weakly. An example on
            its right side stops to matter at log-ratios of a few times 1 / kl. 0: none does;
            examples pull with half their weight however far the policy is.
        nats: divergence to end at, instead of a weight; see `reinforce`.
        lr: AdamW's rate; 0 changes nothing.
        contexts: per step, times `group`.
        group: see `contexts`; as many slates per step as `reinforce` draws.
        slots: of the slates on which spread and alarms are measured; default the policy's slate.
        exclude: what moments forbid, default as in the policy's training.
        pool: at most this many moments are drawn from to measure the spread and alarms.
        limit: at most this many logged slates are learned from.
        progress: called with step, steps, figures.
        checkpoint: file to save to and to go on from.

    Returns:
        The tuned policy; its `curve` has one row per step: step, loss (mean over slots of
        weight x cross-entropy, nats), accuracy (share of the step's weight on slots that the policy
        has moved to the right side). Its `alarms` are those of `reinforce`.

    Raises:
        ConfigError: a parameter out of range, a reward with guardrails, a signal without an early
            reward, or a checkpoint of another run.
        DataError: the lake has no decisions of learners, none of their slots could be filled by the
            policy, a reward is not finite, or the checkpoint is damaged.
    """
    way = "weighted_classification"
    refuse_guardrails(way, reward)
    task = Task.of(
        way,
        policy,
        reward,
        early,
        lake,
        slots=slots,
        exclude=exclude,
        pool=pool,
        seed=seed,
        steps=steps,
        lr=lr,
        kl=kl,
        nats=nats,
        contexts=contexts,
        group=group,
        limit=limit,
    )

    def prepare(learner: Learner) -> StepOf:
        # without dropout, the logit of every item is 0 at the start
        learner.decoder.model.eval()
        exposures = Exposures.from_log(
            way, policy, reward, early, lake, exclude=task.exclude, limit=limit, seed=seed
        )
        return lambda number, weights: _step(
            task, learner, exposures, number, slates=contexts * group, kl=weights.kl
        )

    with reporting(way, "steps", progress) as tell:
        return train(task, prepare, Recipe(), progress=tell, checkpoint=checkpoint)


def _step(
    task: Task[P], learner: Learner, exposures: Exposures, number: int, *, slates: int, kl: float
) -> Step:
    """Take logged slates, and return the loss of telling their better slots from the others."""
    batch = exposures.drawn(slates, np.random.default_rng([task.seed, number]))
    log_p, reference = batch.log_prob(task.policy, task.policy.decoder, learner.decoder)
    value = torch.from_numpy(exposures.value[batch.place])
    advantage = (value - value.mean()) / learner.unit
    log_ratio = log_p - reference
    loss = classification_loss(log_ratio, advantage, kl)
    weight = advantage.abs()
    is_right = log_ratio.detach() * advantage > 0
    return Step(
        loss,
        {
            "loss": float(loss.detach()) * max(kl, LEAST_KL),
            "accuracy": float(weight[is_right].sum() / weight.sum().clamp(min=TINY)),
        },
    )


def classification_loss(log_ratio: Tensor, advantage: Tensor, kl: float) -> Tensor:
    """Mean over slots of |advantage| x cross-entropy between [advantage > 0] and sigma(kl x
    log-ratio), divided by kl.

    The gradient in a log-ratio is |advantage| x (sigma(kl x log-ratio) - label): at the start minus
    half the advantage, whatever kl is.

    Args:
        log_ratio: log(pi / start) of each slot's item, [M], with gradient.
        advantage: value of each slot less a baseline, in units of the reward, [M].
        kl: scale of the logit; taken as `LEAST_KL` below that, where the loss is straight.

    By hand, at the start: 3 x log 2 and 1 x log 2, over 2 slots and kl = .5.

    >>> log_ratio = torch.zeros(2, requires_grad=True)
    >>> loss = classification_loss(log_ratio, torch.tensor([3.0, -1.0]), kl=0.5)
    >>> loss.backward()
    >>> round(float(loss.detach()), 3), log_ratio.grad.tolist()
    (2.773, [-0.75, 0.25])
    """
    scale = max(kl, LEAST_KL)
    label = (advantage > 0).to(log_ratio.dtype)
    return functional.binary_cross_entropy_with_logits(
        scale * log_ratio, label, weight=advantage.abs() / scale
    )
