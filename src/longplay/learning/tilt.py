"""Tilting: train the policy towards the start x exp(value / kl), over the whole catalogue.

The policy gradient sees the few items that it draws, and orders only those. Here every allowed item of
a moment has its value, so that the whole order is taught.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from scipy import special
from torch import Tensor

from longplay.arrays import Float, Int
from longplay.codes.trie import Trie
from longplay.decisions import Contexts, context_chance
from longplay.errors import DataError
from longplay.lake.lake import Lake
from longplay.learning.rollout import EarlyRewards, drawn_leaves, finite
from longplay.learning.trainable import Trainable
from longplay.learning.trainer import Learner, P, Recipe, Step, StepOf, Task, Weights, train
from longplay.policies.generative.decoder import CodeLaw
from longplay.policies.generative.search import item_log_probs
from longplay.progress import Progress, reporting
from longplay.rewards import Reward

LEAST_KL = 1e-6
LEAST_MASS = 1e-300
SHARED_DRAWS = 4  # slates per moment on which shares of guardrails are estimated


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

    Guardrails of the reward are constraints, as in `reinforce`: what they pay is added to the values.

    All items of the catalogue are valued at every step, so this is for catalogues of up to some tens
    of thousands of items.

    Args:
        policy: a fitted `Generative`; it is left as it is.
        reward: objectives, guardrails and caution.
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

    Returns:
        The tuned policy; its `curve` has one row per step: step, reward (mean value of an item under
        the tilted law, in the signals' unit), gap (KL(tilted law || policy), nats: what is left to
        learn), kl (KL(tilted law || start), nats). Guardrails' columns and `alarms` as in
        `reinforce`.

    Raises:
        ConfigError: a parameter out of range, a signal without an early reward, a checkpoint of
            another run.
        DataError: the lake has no visits, a value is not finite, or the checkpoint is damaged.
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
        # without dropout, the law that is trained is the one that is deployed
        learner.decoder.model.eval()
        return lambda number, weights: _step(
            task, learner, number, weights, contexts=contexts, group=group
        )

    with reporting("tilt", "steps", progress) as tell:
        return train(task, prepare, Recipe(), progress=tell, checkpoint=checkpoint)


def _step(
    task: Task[P], learner: Learner, number: int, weights: Weights, *, contexts: int, group: int
) -> Step:
    """Tilt the start's law of some moments, and return the loss of standing elsewhere."""
    policy = task.policy
    rng = np.random.default_rng([task.seed, number])
    chosen = task.drawn(contexts, rng)
    prompts = policy.prompts(chosen)
    start_NI = item_log_probs(policy.decoder, prompts)
    value_NI = item_values(policy, task.reward, task.early, task.lake, chosen)
    scale = max(weights.kl, LEAST_KL)
    target_NI = tilted(start_NI, value_NI / (scale * learner.unit))
    shares: dict[str, float] = {}
    if learner.guardrails:
        # what guardrails pay depends on what is shown, so on the tilted law itself: one step to it
        credit = learner.guardrails.items(chosen, np.exp(target_NI), weights.multiplier)
        target_NI = tilted(target_NI, credit / scale)
        shares = _shares(task, learner, chosen, rng)
    law_NI = np.exp(target_NI)
    laws = learner.decoder.code_laws(prompts, drawn(law_NI, group, rng))
    loss, entropy = cross_entropy(learner.decoder.trie, laws, law_NI)
    ratio_NI = np.subtract(target_NI, start_NI, where=law_NI > 0, out=np.zeros(law_NI.shape))
    nats = float((law_NI * ratio_NI).sum(axis=1).mean())
    return Step(
        loss,
        {
            "reward": float((law_NI * value_NI).sum(axis=1).mean()),
            "gap": float(loss.detach()) - entropy,
            "kl": nats,
        },
        shares,
        nats,
    )


def _shares(
    task: Task[P], learner: Learner, chosen: Contexts, rng: np.random.Generator
) -> dict[str, float]:
    """The guardrails' shares of the start's levels, on slates drawn for these moments."""
    assert learner.guardrails is not None
    chance = context_chance(chosen, rng)
    leaves, of_start = (
        drawn_leaves(
            task.policy, decoder, chosen, groups=SHARED_DRAWS, slots=task.slots, chance=chance
        )
        for decoder in (learner.decoder, task.policy.decoder)
    )
    credits = learner.guardrails.step(chosen, leaves, of_start)
    return {label: share for label, (_, share) in credits.items()}


def item_values(
    policy: Trainable, reward: Reward, early: EarlyRewards, lake: Lake, moments: Contexts
) -> Float:
    """The cautious value of showing every item alone in the first slot, [N, I], by leaf."""
    value_NI = reward.combined_items(early, moments, policy.index.ids, lake).lower(reward.caution)
    expected = len(moments), len(policy.index)
    if value_NI.shape != expected:
        raise DataError(
            f"tilt: values of shape {value_NI.shape} given for {expected[0]} moments and "
            f"{expected[1]} items; the early reward's item_value() must give one number for each"
        )
    return finite(value_NI, "tilt")


def tilted(start_NI: Float, advantage_NI: Float) -> Float:
    """Log-probabilities proportional to start x exp(advantage), [N, I]; -inf where the start has none.

    >>> np.exp(tilted(np.log([[0.5, 0.5]]), np.array([[np.log(3.0), 0.0]]))).round(6).tolist()
    [[0.75, 0.25]]
    """
    log_NI = start_NI + advantage_NI
    return log_NI - np.logaddexp.reduce(log_NI, axis=1, keepdims=True)


def drawn(law_NI: Float, count: int, rng: np.random.Generator) -> Int:
    """`count` independent items of each row's law, [N, count]."""
    below_NI = np.cumsum(law_NI, axis=1)
    u_NG = rng.random((len(law_NI), count)) * below_NI[:, -1:]
    return np.stack(
        [
            np.searchsorted(below_I, u_G, side="right")
            for below_I, u_G in zip(below_NI, u_NG, strict=True)
        ]
    )


def cross_entropy(trie: Trie, laws: list[CodeLaw], law_NI: Float) -> tuple[Tensor, float]:
    """The cross-entropy of a model to a law of items, nats, estimated from items drawn from that law;
    and the law's own entropy by the same estimate.

    At every prefix of a drawn item all codes are compared, not the drawn one alone: the same
    expectation with less noise.

    Args:
        trie: the catalogue.
        laws: the model's laws of the next code at the prefixes of the drawn items, one per level
            (`Decoder.code_laws`).
        law_NI: the law of items, by leaf.
    """
    below_NI = np.pad(np.cumsum(law_NI, axis=1), ((0, 0), (1, 0)))
    row_N1 = np.arange(len(law_NI))[:, None]
    loss = torch.zeros((), dtype=torch.float64)
    entropy = 0.0
    for level, law in enumerate(laws):
        owner, child, code = trie.children(level, law.node)
        row = np.broadcast_to(row_N1, law.node.shape).ravel()[owner]
        span = trie.span[level + 1]
        wanted_MK = np.zeros((law.node.size, trie.width))
        mass = below_NI[row, span[child + 1]] - below_NI[row, span[child]]
        wanted_MK[owner, code] = np.maximum(mass, 0.0)
        # of a prefix so rare that rounding leaves nothing below it, nothing is taught
        wanted_MK /= np.maximum(wanted_MK.sum(axis=1, keepdims=True), LEAST_MASS)
        entropy -= float(special.xlogy(wanted_MK, wanted_MK).sum(axis=1).mean())
        wanted = torch.from_numpy(wanted_MK.reshape(*law.node.shape, trie.width))
        log_p = torch.where(wanted > 0, law.log_p, 0.0)
        loss = loss - (wanted * log_p).sum(dim=-1).mean()
    return loss, entropy
