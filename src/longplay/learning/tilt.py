"""Tilting: train the policy towards the start x exp(value / kl), over the whole catalogue.

The policy gradient sees the few items that it draws, and orders only those. Here every allowed item of
a moment has its value, so that the whole order is taught.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from longplay.arrays import Float, Int
from longplay.codes.trie import Trie
from longplay.decisions import Contexts
from longplay.lake.lake import Lake
from longplay.learning.rollout import EarlyRewards, finite
from longplay.learning.trainable import Trainable
from longplay.learning.trainer import Learner, P, Recipe, Step, StepOf, Task, Weights, train
from longplay.policies.generative.decoder import CodeLaw
from longplay.policies.generative.search import item_log_probs
from longplay.progress import Progress, reporting
from longplay.rewards import Reward


def tilt(
    policy: P,
    reward: Reward,
    early: EarlyRewards,
    lake: Lake,
    *,
    steps: int = 400,
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
    """Return `policy` after `steps` towards its tilted law: start x exp(value / (kl x spread)).

    That law is the optimum that `reinforce` climbs to. With the value of every item known it need
    not be searched: each step takes `contexts` logged moments, draws `group` items of each from the
    tilted law, and lowers the cross-entropy to it at every code on their way.

    Args:
        policy: a fitted `Generative`; it is left as it is.
        reward: objectives and caution.
        early: one early reward, or one per signal.
        lake: the past; contexts come from its visits.
        steps: updates.
        seed: of moments and items.
        kl: weight of the divergence from the start, as in `reinforce`.
        nats: the tilted law's divergence from the start to aim at, instead of a weight; see
            `reinforce`.
        lr: AdamW's rate; 0 changes nothing.
        contexts: per step.
        group: items drawn per context.
        slots: default the policy's slate.
        exclude: what contexts forbid, default as in the policy's training (`Generative.exclude`).
        pool: at most this many logged moments are drawn from.
        progress: called with step, steps, figures.
        checkpoint: file to save to and to go on from.
    """
    task = Task.of(
        "tilt",
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
        learner.decoder.model.eval()
        count = min(contexts, len(task.moments))

        def step(number: int, weights: Weights) -> Step:
            rng = np.random.default_rng([seed, number])
            rows = rng.choice(len(task.moments), size=count, replace=False)
            scale = max(weights.kl, 1e-6) * learner.unit
            return _step(task, learner, task.moments.take(rows), scale, group, rng)

        return step

    with reporting("tilt", "steps", progress) as tell:
        return train(task, prepare, Recipe(), progress=tell, checkpoint=checkpoint)


def _step(
    task: Task[P],
    learner: Learner,
    moments: Contexts,
    scale: float,
    group: int,
    rng: np.random.Generator,
) -> Step:
    prompts = task.policy.prompts(moments)
    start_NI = item_log_probs(task.policy.decoder, prompts)
    value_NI = item_values(task.policy, task.reward, task.early, task.lake, moments)
    target_NI = tilted(start_NI, value_NI / scale)
    leaves_NG = drawn(target_NI, group, rng)
    laws = learner.decoder.code_laws(prompts, leaves_NG)
    loss, entropy = cross_entropy(learner.decoder.trie, laws, target_NI)
    law_NI = np.exp(target_NI)
    moved_N = np.where(law_NI > 0, law_NI * (target_NI - np.where(law_NI > 0, start_NI, 0)), 0)
    nats = float(moved_N.sum(axis=1).mean())
    return Step(
        loss,
        {
            "reward": float((law_NI * value_NI).sum(axis=1).mean()),
            "gap": float(loss.detach()) - entropy,
            "kl": nats,
        },
        nats=nats,
    )


def item_values(
    policy: Trainable, reward: Reward, early: EarlyRewards, lake: Lake, moments: Contexts
) -> Float:
    """The cautious value of showing every item alone in the first slot, [N, I], by leaf."""
    belief = reward.combined_items(early, moments, policy.index.ids, lake)
    return finite(belief.lower(reward.caution), "tilt")


def tilted(start_NI: Float, advantage_NI: Float) -> Float:
    """Log-probabilities proportional to start x exp(advantage), [N, I]; -inf where the start has none.

    >>> np.exp(tilted(np.log([[0.5, 0.5]]), np.array([[np.log(3.0), 0.0]]))).round(6).tolist()
    [[0.75, 0.25]]
    """
    log_NI = start_NI + advantage_NI
    return log_NI - np.logaddexp.reduce(log_NI, axis=1, keepdims=True)


def drawn(log_p_NI: Float, count: int, rng: np.random.Generator) -> Int:
    """`count` independent items of each row's law, [N, count]."""
    below_NI = np.cumsum(np.exp(log_p_NI), axis=1)
    u_NG = rng.random((len(log_p_NI), count)) * below_NI[:, -1:]
    return np.stack(
        [
            np.searchsorted(below_I, u_G, side="right")
            for below_I, u_G in zip(below_NI, u_NG, strict=True)
        ]
    )


def cross_entropy(trie: Trie, laws: list[CodeLaw], target_NI: Float) -> tuple[Tensor, float]:
    """The cross-entropy to a law of items, estimated from items drawn from it, and the entropy of that
    law by the same estimate.

    At every prefix of a drawn item all codes are compared, not the drawn one alone: the same
    expectation with less noise.
    """
    below_NI = np.pad(np.cumsum(np.exp(target_NI), axis=1), ((0, 0), (1, 0)))
    row_N1 = np.arange(len(target_NI))[:, None]
    loss = torch.zeros((), dtype=torch.float64)
    entropy = 0.0
    for level, law in enumerate(laws):
        owner, child, code = trie.children(level, law.node)
        row = np.broadcast_to(row_N1, law.node.shape).ravel()[owner]
        span = trie.span[level + 1]
        mass = below_NI[row, span[child + 1]] - below_NI[row, span[child]]
        mass_MK = np.zeros((law.node.size, trie.width))
        mass_MK[owner, code] = np.maximum(mass, 0.0)
        mass_MK /= mass_MK.sum(axis=1, keepdims=True)
        wanted = torch.from_numpy(mass_MK.reshape(*law.node.shape, trie.width))
        log_p = torch.where(wanted > 0, law.log_p, 0.0)
        loss = loss - (wanted * log_p).sum(-1).mean()
        entropy -= float(
            np.where(mass_MK > 0, mass_MK * np.log(np.maximum(mass_MK, 1e-300)), 0.0).sum(1).mean()
        )
    return loss, entropy
