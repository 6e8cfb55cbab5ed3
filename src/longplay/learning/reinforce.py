"""The loop: draw slates, believe their value, push the policy towards the better ones, stay near the start."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from longplay.decisions import Contexts, contexts_from_log
from longplay.errors import ConfigError, DataError
from longplay.lake.lake import Lake
from longplay.learning.loss import policy_loss, slate_log_prob
from longplay.policies.checkpoint import load_checkpoint, save_checkpoint
from longplay.policies.decoder import Decoder
from longplay.policies.generative import Generative
from longplay.policies.sampling import beam_slates
from longplay.policies.supervised import Progress, prompts_of
from longplay.rewards import EarlyReward, Reward
from longplay.signals import Signal

P = TypeVar("P", bound=Generative)
Early = EarlyReward | Mapping[Signal, EarlyReward]
SAVE_EVERY = 10
LEAST = {"steps": 0, "kl": 0, "lr": 0, "contexts": 1, "group": 2, "slots": 1, "pool": 1, "limit": 1}


def reinforce(
    policy: P,
    reward: Reward,
    early: Early,
    lake: Lake,
    *,
    steps: int = 200,
    seed: int = 0,
    kl: float = 0.3,
    lr: float = 1e-3,
    contexts: int = 32,
    group: int = 8,
    slots: int | None = None,
    exclude: str | None = None,
    pool: int = 5_000,
    progress: Progress | None = None,
    checkpoint: Path | None = None,
) -> P:
    """`policy` after `steps` of leave-one-out policy gradient on the cautious value of showing.

    Each step takes `contexts` logged moments, draws `group` independent slates for each under the
    trie, rewards every slot with `reward`'s lower bound of `early`'s value of showing, and follows
    the gradient of the constrained log-probabilities (RLOO; no division by the group's standard
    deviation, which biases). One update per draw, so no importance ratio is needed.

    Args:
        policy: a fitted `Generative`; it is left as it is. reward: objectives and caution.
        early: one early reward, or one per signal. lake: the past; contexts come from its visits.
        kl: weight of the divergence from the start, in units of the start's mean reward per slot. The
            optimum is start x exp(reward / (kl x mean reward)). Where beliefs are noisy, or the reward says
            nothing of the chance of an entry (`association`), more is better: on the retail log 4.
        lr: AdamW's rate; 0 changes nothing. contexts, group: per step. slots: default the policy's slate.
        exclude: what contexts forbid, default as in the policy's training (`Generative.exclude`).
        pool: at most this many logged moments are drawn from.
        progress: called with step, steps, figures. checkpoint: file to save to and to go on from.

    Returns:
        The tuned policy; its `curve` has one row per step: step, reward (mean per slot, in the
        signals' unit), kl (mean log-ratio to the start per slot, nats), kl_p95 (95th percentile of
        the contexts' means), zero_advantage (share of groups whose rewards are all equal).

    Raises:
        ConfigError: a parameter out of range. DataError: the lake has no visits.
    """
    slots = policy.slate if slots is None else slots
    check_ranges("reinforce", steps=steps, kl=kl, lr=lr, contexts=contexts, group=group, slots=slots, pool=pool)
    index = policy.index
    moments = contexts_from_log(
        lake, slots=slots, history=policy.history, exclude=policy.exclude if exclude is None else exclude, limit=pool, seed=seed
    )
    moments = enough_left(moments, policy, slots)
    start = policy.decoder
    tuned = Decoder(copy.deepcopy(start.model), start.trie)
    optimizer = torch.optim.AdamW(tuned.model.parameters(), lr=lr, weight_decay=0.0, betas=(0.9, 0.99))
    made_by = {"start": policy.name, "reward": reward.version, "steps": steps, "seed": seed, "kl": kl, "lr": lr, "contexts": contexts, "group": group}
    notes = load_checkpoint(checkpoint, tuned.model, optimizer, made_by) if checkpoint else None
    curve: list[dict[str, float]] = notes["curve"] if notes else []
    unit: float = notes["unit"] if notes else mean_reward(policy, reward, early, lake, moments, seed)
    tuned.model.eval()  # no dropout anywhere: what is drawn and what is trained are the same law
    for step in range(notes["step"] if notes else 0, steps):
        rng = np.random.default_rng([seed, step])
        rows = rng.choice(len(moments), size=min(contexts, len(moments)), replace=False)
        chosen = moments.take(rows)
        prompts = prompts_of(tuned, index, chosen, policy.history)
        draw = beam_slates(tuned, prompts, groups=group, slots=slots, rng=rng)
        value = slot_rewards(policy, reward, early, lake, chosen, draw.leaves)
        flat = draw.leaves.reshape(len(rows), group * slots)
        with torch.no_grad():
            reference = slate_log_prob(start.log_prob(prompts, flat).reshape(draw.leaves.shape))
        log_p = slate_log_prob(tuned.log_prob(prompts, flat).reshape(draw.leaves.shape))
        loss = policy_loss(log_p, torch.from_numpy(value / unit), reference, kl)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(tuned.model.parameters(), 1.0)
        optimizer.step()
        ratio = (log_p.detach() - reference).numpy().mean(axis=2)
        figures = {
            "step": step + 1,
            "reward": float(value.mean()),
            "kl": float(ratio.mean()),
            "kl_p95": float(np.quantile(ratio.mean(axis=1), 0.95)),
            "zero_advantage": float((np.ptp(value, axis=1) < 1e-12).all(axis=1).mean()),
        }
        curve.append(figures)
        if checkpoint and ((step + 1) % SAVE_EVERY == 0 or step + 1 == steps):
            save_checkpoint(checkpoint, tuned.model, optimizer, made_by | {"step": step + 1, "curve": curve, "unit": unit})
        if progress:
            progress(step + 1, steps, figures)
    return replace(policy.with_model(tuned.model), curve=tuple(curve))


def check_ranges(who: str, **given: float) -> None:
    """Refuse an argument that is not finite or below what makes sense."""
    for name, value in given.items():
        if not LEAST[name] <= value < float("inf"):
            raise ConfigError(f"{who}: {name}={value} given, expected a number of at least {LEAST[name]}")


def slot_rewards(policy: Generative, reward: Reward, early: Early, lake: Lake, contexts: Contexts, leaves: NDArray[np.int64]) -> NDArray[np.float64]:
    """The cautious value of showing each drawn item, [N, G, S], from `leaves[N, G, S]`."""
    n, groups, slots = leaves.shape
    repeated = contexts.take(np.repeat(np.arange(n), groups))
    slates = policy.index.slates(leaves.reshape(n * groups, slots))
    belief = reward.combined(early, repeated, slates, lake)
    value = belief.lower(reward.caution)
    if not np.isfinite(value).all():
        raise DataError(f"reinforce: {int((~np.isfinite(value)).sum())} rewards are not finite; check the early reward on these contexts")
    return value.reshape(n, groups, slots)


def mean_reward(policy: Generative, reward: Reward, early: Early, lake: Lake, moments: Contexts, seed: int) -> float:
    """The unit of rewards: mean |reward| per slot of the policy's own slates on up to 256 moments; 1 where it is 0."""
    rng = np.random.default_rng([seed, 2**32 - 1])
    chosen = moments.take(rng.choice(len(moments), size=min(256, len(moments)), replace=False))
    decoder = policy.decoder
    draw = beam_slates(decoder, prompts_of(decoder, policy.index, chosen, policy.history), groups=2, slots=moments.slots, rng=rng)
    return float(np.abs(slot_rewards(policy, reward, early, lake, chosen, draw.leaves)).mean()) or 1.0


def enough_left(moments: Contexts, policy: Generative, slots: int) -> Contexts:
    """The moments whose exclusions leave at least `slots` items; at least one must."""
    keep = np.flatnonzero(prompts_of(policy.decoder, policy.index, moments, 0).allowed.count() >= slots)
    if len(keep) == 0:
        raise DataError(f"reinforce: no logged moment leaves {slots} items to show; ask for fewer slots or exclude less")
    return moments.take(keep)
