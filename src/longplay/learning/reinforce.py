"""Reinforcement: draw slates, estimate their value, move the policy towards the better ones, stay
near the start."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from longplay.decisions import context_chance
from longplay.lake.lake import Lake
from longplay.learning.loss import divergence, policy_loss, slate_log_prob
from longplay.learning.rollout import ROUNDING, EarlyRewards, slot_rewards
from longplay.learning.trainer import Learner, P, Recipe, Step, StepOf, Task, Weights, train
from longplay.policies.generative.decoder import of_codes
from longplay.policies.generative.search import beam_slates
from longplay.progress import Progress, reporting
from longplay.rewards import Reward


def reinforce(
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
    """Return `policy` after `steps` of reinforcement (leave-one-out policy gradient) on the
    cautious value of showing.

    Each step takes `contexts` logged moments, draws `group` independent slates for each under the
    trie, rewards every slot with `reward`'s lower bound of `early`'s value of showing, and follows
    the gradient of the constrained log-probabilities (RLOO; no division by the group's standard
    deviation, which biases). One update per draw, so no importance ratio is needed.

    Guardrails of the reward are constraints: each step adds multiplier x surrogate to the slots'
    rewards, the multiplier rises while the policy is below its bound and falls when it is above
    (`learning.enforcement`). Every ten steps, and at the end, they are measured on a fixed
    sample of moments; what is returned are the last weights that kept all of them, which may be the
    start's.

    Args:
        policy: a fitted `Generative`; it is left as it is.
        reward: objectives, guardrails and caution.
        early: one early reward, or one per signal, those of guardrails included.
        lake: the past; contexts come from its visits.
        steps: updates.
        seed: of moments and slates.
        kl: weight of the divergence from the start, in units of the spread of a slot's reward
            within a group: of the slates that the start draws for one moment
            (`rollout.reward_spread`). The optimum is start x exp(reward / (kl x spread)); a
            constant added to the reward changes nothing. Where beliefs are noisy, or the reward
            says nothing of the chance of an entry (`association`), more is better: on the retail
            log 3.5.
        nats: the divergence to end at, instead of a weight: `kl` is then the weight to begin with,
            and follows. For comparisons: two rewards under one weight end at different divergences.
        lr: AdamW's rate; 0 changes nothing.
        contexts: per step.
        group: per step.
        slots: default the policy's slate.
        exclude: what contexts forbid, default as in the policy's training (`Generative.exclude`);
            the tuned policy keeps it as its own.
        pool: at most this many logged moments are drawn from.
        progress: called with step, steps, figures.
        checkpoint: file to save to and to go on from.

    Returns:
        The tuned policy; its `curve` has one row per step: step, reward (mean per slot, in the
        signals' unit), kl (mean log-ratio to the start per slot, nats), kl_p95 (95th percentile of
        the contexts' means), zero_advantage (share of groups whose rewards are all equal). Per
        guardrail, e.g. of coverage@10: `coverage@10` (the latest measurement), `coverage@10
        estimate` (of this step's slates; both as a share of the start's) and `coverage@10
        multiplier` (units of that spread); and `kept`, the last step whose weights broke no
        guardrail (0: the start), which in the last row names the weights returned. Its `alarms` say
        in words, and are logged as a warning, where coverage, distinct creators per slate or
        NDCG@10 fell to half of the start's or less (`learning.variety`).

    Raises:
        ConfigError: a parameter out of range, a signal without an early reward, a checkpoint of
            another run (other settings, another start, reward, early reward or lake).
        DataError: the lake has no visits, a guarded signal is worth nothing under the start, or the
            checkpoint is damaged.
    """
    task = Task.of(
        "reinforce",
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

    def prepare(learner: Learner) -> StepOf:
        # without dropout, slates are drawn from the same distribution that is trained
        learner.decoder.model.eval()
        return lambda number, weights: _step(
            task, learner, number, weights, contexts=contexts, group=group
        )

    with reporting("reinforce", "steps", progress) as tell:
        return train(task, prepare, Recipe(), progress=tell, checkpoint=checkpoint)


def _step(
    task: Task[P],
    learner: Learner,
    number: int,
    weights: Weights,
    *,
    contexts: int,
    group: int,
) -> Step:
    """Draw slates, compute their rewards, and return the loss that makes better slates more
    probable."""
    policy = task.policy
    slots = task.slots
    rng = np.random.default_rng([task.seed, number])
    chosen = task.drawn(contexts, rng)
    chance = context_chance(chosen, rng)
    prompts = policy.prompts(chosen)
    start = policy.decoder
    tuned = learner.decoder
    leaves = beam_slates(tuned, prompts, groups=group, slots=slots, chance=chance).leaves
    value = slot_rewards(policy, task.reward, task.early, task.lake, chosen, leaves)
    # what all members of a group are paid has no gradient, and would only round
    paid = (value - value.mean(axis=1, keepdims=True)) / learner.unit
    shares: dict[str, float] = {}
    if learner.guardrails:
        of_start = beam_slates(start, prompts, groups=group, slots=slots, chance=chance).leaves
        credits = learner.guardrails.step(chosen, leaves, of_start)
        for label, (credit, share) in credits.items():
            paid = paid + weights.multiplier[label] * credit
            shares[label] = share
    flat = leaves.reshape(len(chosen), group * slots)
    codes = torch.from_numpy(tuned.trie.codes[flat])
    law = [of_level.log_p for of_level in tuned.code_laws(prompts, flat)]
    with torch.no_grad():
        # of all slots, as above: equal weights then have equal laws to the last bit
        start_law = [of_level.log_p for of_level in start.code_laws(prompts, flat)]
    slot_log_prob = slate_log_prob(of_codes(law, codes).sum(dim=2).reshape(leaves.shape))
    # the first slot of a slate is drawn from the law of one item
    first = slice(None, None, slots)
    shape = len(chosen), group * slots, tuned.trie.width
    moved = divergence(
        [log_p.expand(shape)[:, first] for log_p in law],
        [log_p.expand(shape)[:, first] for log_p in start_law],
        codes[:, first],
    )
    loss = policy_loss(slot_log_prob, torch.from_numpy(paid)) + weights.kl * slots * moved.loss
    is_equal = np.ptp(value, axis=1) <= ROUNDING * np.abs(value).max()
    return Step(
        loss,
        {
            "reward": float(value.mean()),
            "kl": float(moved.per_draw.mean()),
            "kl_p95": float(np.quantile(moved.per_draw.mean(dim=1).numpy(), 0.95)),
            "zero_advantage": float(is_equal.all(axis=1).mean()),
        },
        shares,
    )
