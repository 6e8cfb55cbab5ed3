"""Preferences between items of one moment, as early beliefs have them (DPO with soft labels)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from longplay.decisions import context_chance
from longplay.lake.lake import Lake
from longplay.learning.enforcement import refuse_guardrails
from longplay.learning.rollout import EarlyRewards, drawn_leaves, enough_left, slot_rewards
from longplay.learning.trainer import Learner, P, Recipe, Step, StepOf, Task, train
from longplay.progress import Progress, reporting
from longplay.rewards import Reward

LEAST_KL = 1e-6  # below it labels are yes or no, to rounding


def preference_pairs(
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
    progress: Progress = None,
    checkpoint: Path | None = None,
) -> P:
    """Return `policy` after `steps` of direct preference optimisation on pairs of items (DPO:
    Rafailov et al. 2023, arXiv 2305.18290), with preferences from early beliefs.

    Each step takes `contexts` logged moments and draws `group` slates for each from the *start's*
    constrained law. Any two items of a slate are a pair. The first is preferred with probability
    sigma((v1 - v2) / (kl x spread)), where v is the cautious value of showing the item alone in the
    first slot, as `early` believes it, and the spread is that of `reinforce`. This probability is
    the label, instead of a draw of it. The policy states sigma(log(pi / start)(1) - log(pi /
    start)(2)), and the loss is the mean cross-entropy. It is least where the two agree for all
    pairs, which is start x exp(v / (kl x spread)), the optimum of `reinforce` with one slot. A
    constant added to the reward of a moment changes nothing.

    Args:
        policy: a fitted `Generative`; it is left as it is.
        reward: objectives and caution, without guardrails.
        early: one early reward, or one per signal.
        lake: the past; contexts come from its visits.
        steps: updates.
        seed: of moments and slates.
        kl: temperature of the preferences, in the unit of `reinforce`; more keeps the policy nearer
            to the start. 0: the better item is always preferred, and the policy goes as far as
            steps and rate let it.
        nats: divergence to end at, instead of a weight; see `reinforce`.
        lr: AdamW's rate; 0 changes nothing.
        contexts: per step.
        group: per step.
        slots: items per drawn slate, at least 2 of them; default the policy's slate.
        exclude: what contexts forbid, default as in the policy's training.
        pool: at most this many logged moments are drawn from.
        progress: called with step, steps, figures.
        checkpoint: file to save to and to go on from.

    Returns:
        The tuned policy; its `curve` has one row per step: step, loss (mean cross-entropy, nats),
        excess (what the loss is above the least that labels allow, nats; 0 at the optimum). Its
        `alarms` are those of `reinforce`.

    Raises:
        ConfigError: a parameter out of range, a reward with guardrails, a signal without an early
            reward, or a checkpoint of another run.
        DataError: the lake has no visits, no moment leaves two items, a reward is not finite, or
            the checkpoint is damaged.
    """
    way = "preference_pairs"
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
    )
    if task.slots < 2:
        task = replace(task, moments=enough_left(task.moments, policy, 2))

    def prepare(learner: Learner) -> StepOf:
        # without dropout, every log-ratio is 0 at the start
        learner.decoder.model.eval()
        return lambda number, weights: _step(
            task, learner, number, contexts=contexts, group=group, kl=weights.kl
        )

    with reporting(way, "steps", progress) as tell:
        return train(task, prepare, Recipe(), progress=tell, checkpoint=checkpoint)


def _step(
    task: Task[P], learner: Learner, number: int, *, contexts: int, group: int, kl: float
) -> Step:
    """Draw slates from the start, and return the loss of telling which of two items is better."""
    policy = task.policy
    start = policy.decoder
    rng = np.random.default_rng([task.seed, number])
    chosen = task.drawn(contexts, rng)
    leaves_NGS = drawn_leaves(
        policy,
        start,
        chosen,
        groups=group,
        slots=max(task.slots, 2),
        chance=context_chance(chosen, rng),
    )
    flat = leaves_NGS.reshape(len(chosen), -1)
    value = slot_rewards(policy, task.reward, task.early, task.lake, chosen, flat[..., None])
    prompts = policy.prompts(chosen)
    with torch.no_grad():
        reference = start.log_prob(prompts, flat)
    log_ratio = learner.decoder.log_prob(prompts, flat) - reference
    worth = torch.from_numpy(value.reshape(leaves_NGS.shape) / learner.unit)
    loss, least = preference_loss(log_ratio.reshape(leaves_NGS.shape), worth, kl)
    return Step(loss, {"loss": float(loss.detach()), "excess": float(loss.detach() - least)})


def preference_loss(log_ratio: Tensor, worth: Tensor, kl: float) -> tuple[Tensor, Tensor]:
    """Mean over pairs of a slate's items of the cross-entropy between sigma((w1 - w2) / kl) and
    sigma(r1 - r2), and its least value: the mean entropy of the former.

    Args:
        log_ratio: r, log(pi / start) of each item, [..., S], with gradient.
        worth: w, the value of each item in units of the reward, [..., S].
        kl: temperature of the preferences; taken as `LEAST_KL` below that.

    By hand, one pair at the start: log 2; the label is sigma(log 3) = 3/4, whose entropy is .562.

    >>> log_ratio = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    >>> worth = torch.tensor([[3.0, 1.0]], dtype=torch.float64).log()
    >>> loss, least = preference_loss(log_ratio, worth, kl=1.0)
    >>> loss.backward()
    >>> round(float(loss.detach()), 3), round(float(least), 3), log_ratio.grad.round(decimals=6).tolist()
    (0.693, 0.562, [[-0.25, 0.25]])
    """
    items = worth.shape[-1]
    first, second = torch.triu_indices(items, items, offset=1)
    preferred = (worth[..., first] - worth[..., second]) / max(kl, LEAST_KL)
    label = torch.sigmoid(preferred)
    stated = log_ratio[..., first] - log_ratio[..., second]
    loss = functional.binary_cross_entropy_with_logits(stated, label)
    least = functional.binary_cross_entropy_with_logits(preferred, label)
    return loss, least
