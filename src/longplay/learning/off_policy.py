"""Off-policy policy gradient on logged slots, with the top-K correction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from longplay.lake.lake import Lake
from longplay.learning.enforcement import refuse_guardrails
from longplay.learning.exposures import Exposures
from longplay.learning.rollout import EarlyRewards
from longplay.learning.trainer import Learner, P, Recipe, Step, StepOf, Task, train
from longplay.progress import Progress, reporting
from longplay.rewards import Reward

CAP = float(np.exp(3))  # of an importance weight: about 20


def off_policy_gradient(
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
    """Return `policy` after `steps` of the top-K off-policy policy gradient on logged slots (Chen
    et al. 2019, arXiv 1812.02353).

    Nothing is drawn from the policy: each step takes `contexts` x `group` logged slates, with up to
    `MOST_SLOTS` slots each, and follows the gradient that `off_policy_loss` estimates. A slot is
    paid the cautious value of showing that slot as it was logged (`early`'s belief), less the mean
    of the step's slots, in units of the spread that `reinforce` uses; so a constant added to the
    reward changes nothing. With K above 1 the baseline takes part in what is learned: items of
    less than the mean value are shown less.

    Estimates are unbiased for the items that the logger could show in the slot, while no weight
    reaches its cap. In a later slot these are the items that are not above it.

    Args:
        policy: a fitted `Generative`; it is left as it is.
        reward: objectives and caution, without guardrails.
        early: one early reward, or one per signal.
        lake: the past; slots come from its decisions, those of held-out users and those that show
            what was asked for left out.
        steps: updates.
        seed: of slates and slots.
        kl: weight of the divergence from the start, in the unit of `reinforce`. It is `slots` x
            KL(policy || start) of the item law, about that of a slate, so that the optimum is
            again start x exp(reward / (kl x spread)) while each item has a small probability.
            Estimated on logged slots with the capped weights.
        nats: divergence to end at, instead of a weight; see `reinforce`.
        lr: AdamW's rate; 0 changes nothing.
        contexts: per step, times `group`.
        group: see `contexts`; as many slates per step as `reinforce` draws.
        slots: K, the slots that the policy fills; default the policy's slate.
        exclude: what moments forbid, default as in the policy's training.
        pool: at most this many moments are drawn from to measure the spread and alarms.
        limit: at most this many logged slates are learned from.
        progress: called with step, steps, figures.
        checkpoint: file to save to and to go on from.

    Returns:
        The tuned policy; its `curve` has one row per step: step, reward (mean over the step's slots,
        by their importance weights, in the signals' unit), kl (estimate of KL(policy || start) of
        the item law, nats: `estimated_divergence`), weight (mean importance weight), capped (share
        of slots whose weight is at its cap). Its `alarms` are those of `reinforce`.

    Raises:
        ConfigError: a parameter out of range, a reward with guardrails, a signal without an early
            reward, or a checkpoint of another run.
        DataError: the lake has no decisions (slates with propensities) of learners, none of their
            slots could be filled by the policy, a reward is not finite, or the checkpoint is
            damaged.
    """
    way = "off_policy_gradient"
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
        # without dropout, the weights are those of the distribution that is trained
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
    """Take logged slates, and return the loss whose gradient corrects for who showed them."""
    batch = exposures.drawn(slates, np.random.default_rng([task.seed, number]))
    log_p, reference = batch.log_prob(task.policy, task.policy.decoder, learner.decoder)
    log_propensity = torch.from_numpy(exposures.log_propensity[batch.place])
    value = torch.from_numpy(exposures.value[batch.place])
    advantage = (value - value.mean()) / learner.unit
    weight = importance_weight(log_p, log_propensity)
    return Step(
        off_policy_loss(log_p, weight, advantage, reference, slots=task.slots, kl=kl),
        {
            "reward": float((weight * value).sum() / weight.sum()),
            "kl": float(estimated_divergence(log_p, weight, reference)),
            "weight": float(weight.mean()),
            "capped": float((weight == CAP).double().mean()),
        },
    )


def importance_weight(log_prob: Tensor, log_propensity: Tensor, cap: float = CAP) -> Tensor:
    """pi(item) / propensity of each slot, at most `cap`, without gradient, [M].

    >>> importance_weight(torch.tensor([0.5, 0.5]).log(), torch.tensor([0.25, 0.001]).log(), 4.0).tolist()
    [2.0, 4.0]
    """
    return torch.exp(log_prob.detach() - log_propensity).clamp(max=cap)


def off_policy_loss(
    log_prob: Tensor,
    weight: Tensor,
    advantage: Tensor,
    reference: Tensor,
    *,
    slots: int,
    kl: float,
) -> Tensor:
    """The loss whose gradient, over slots drawn by the logger, is minus that of

    sum over items of (1 - (1 - pi)^K) x advantage - kl x K x KL(pi || start).

    1 - (1 - pi)^K is the chance that an item is among K independent draws; its derivative is
    lambda_K = K (1 - pi)^(K - 1) (Chen et al. 2019, arXiv 1812.02353, section 4.3). The gradient of
    the divergence is that of pi x log(pi / start). Both are estimated with the importance weights:
    weight, lambda_K and log-ratio are constants, only the last log pi has gradient.

    Args:
        log_prob: log pi of each slot's item under the policy, [M], with gradient.
        weight: pi / propensity of each slot, [M] (`importance_weight`).
        advantage: reward of each slot less a baseline, [M].
        reference: log pi under the start, [M].
        slots: K.
        kl: weight of the divergence, in the unit of the reward.

    By hand: pi = .5, propensity .25, K = 2; weight 2, lambda_K = 2 x .5, advantage 3: 2 x 1 x 3.

    >>> log_p = torch.tensor([0.5]).log().requires_grad_()
    >>> off_policy_loss(log_p, torch.tensor([2.0]), torch.tensor([3.0]), log_p.detach(), slots=2, kl=0.1).backward()
    >>> log_p.grad.tolist()
    [-6.0]
    """
    now = log_prob.detach()
    lambda_k = slots * (1 - torch.exp(now)).clamp(min=0) ** (slots - 1)
    paid = lambda_k * advantage - slots * kl * (now - reference)
    return -(weight * paid * log_prob).mean()


def estimated_divergence(log_prob: Tensor, weight: Tensor, reference: Tensor) -> Tensor:
    """KL(policy || start) of the item law, in nats, estimated on logged slots: the mean of weight x
    (log rho - 1 + 1 / rho) with rho = pi / start, of which no term is below 0 (Schulman 2020). Its
    gradient is that of the divergence in `off_policy_loss`.

    By hand: pi = start in the first slot; rho = 2 in the second, weight 2: 2 x (.693 - .5) / 2.

    >>> log_p, start = torch.tensor([0.5, 0.5]).log(), torch.tensor([0.5, 0.25]).log()
    >>> round(float(estimated_divergence(log_p, torch.tensor([1.0, 2.0]), start)), 3)
    0.193
    """
    log_ratio = log_prob.detach() - reference
    return (weight * (log_ratio - 1 + torch.exp(-log_ratio))).mean()
