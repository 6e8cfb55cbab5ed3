"""Reinforcement: draw slates, estimate their value, move the policy towards the better ones, stay
near the start."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from longplay.decisions import context_chance, contexts_from_log
from longplay.errors import ConfigError
from longplay.lake.lake import Lake
from longplay.learning.enforcement import Guardrails
from longplay.learning.loss import policy_loss, slate_log_prob
from longplay.learning.rollout import (
    ROUNDING,
    Early,
    enough_left,
    fingerprints,
    reward_spread,
    slot_rewards,
)
from longplay.learning.variety import variety_alarms
from longplay.policies.generative.search import beam_slates
from longplay.policies.generative_policy import Generative
from longplay.policies.training.checkpoint import load_checkpoint, save_checkpoint
from longplay.policies.training.descent import Progress
from longplay.rewards import Reward

logger = logging.getLogger(__name__)
P = TypeVar("P", bound=Generative)
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
    kl: float = 0.2,
    lr: float = 1e-3,
    contexts: int = 32,
    group: int = 8,
    slots: int | None = None,
    exclude: str | None = None,
    pool: int = 5_000,
    progress: Progress | None = None,
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
    (`learning.enforcement`). Every `SAVE_EVERY` steps, and at the end, they are measured on a fixed
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
    slots = policy.slate if slots is None else slots
    check_ranges(
        "reinforce",
        steps=steps,
        kl=kl,
        lr=lr,
        contexts=contexts,
        group=group,
        slots=slots,
        pool=pool,
    )
    exclude = policy.exclude if exclude is None else exclude
    moments = contexts_from_log(
        lake,
        slots=slots,
        history=policy.history,
        exclude=exclude,
        limit=pool,
        seed=seed,
        learners=True,
    )
    moments = enough_left(moments, policy, slots)
    start = policy.decoder
    tuned = policy.learner(seed)
    now = nn.ParameterList(tuned.trainable())
    optimizer = torch.optim.AdamW(now, lr=lr, weight_decay=0.0, betas=(0.9, 0.99))
    made_by = {
        "start": policy.name,
        "reward": reward.version,
        "steps": steps,
        "seed": seed,
        "kl": kl,
        "lr": lr,
        "contexts": contexts,
        "group": group,
    }
    made_by |= {"slots": slots, "exclude": exclude, "pool": pool}
    if checkpoint:
        made_by |= fingerprints(policy, reward, early, lake, moments)
    rails = (
        Guardrails.of(policy, reward, early, lake, moments, slots, seed)
        if reward.guardrails
        else None
    )
    kept = (
        nn.ParameterList([one.detach().clone() for one in now]) if rails else now
    )  # the last weights that broke no guardrail
    saved = nn.ModuleDict({"now": now, "kept": kept}) if rails else now
    kinds = {"step": int, "curve": list, "unit": float, "guarded": dict}
    notes = load_checkpoint(checkpoint, saved, [optimizer], made_by, kinds) if checkpoint else None
    curve: list[dict[str, float]] = notes["curve"] if notes else []
    unit: float = (
        notes["unit"] if notes else reward_spread(policy, reward, early, lake, moments, seed)
    )
    guarded: dict[str, Any] = notes["guarded"] if notes else rails.nothing_yet() if rails else {}
    tuned.model.eval()  # no dropout anywhere: what is drawn and what is trained are the same law
    for step in range(notes["step"] if notes else 0, steps):
        rng = np.random.default_rng([seed, step])
        rows = rng.choice(len(moments), size=min(contexts, len(moments)), replace=False)
        chosen = moments.take(rows)
        chance = context_chance(chosen, rng)
        prompts = policy.prompts(chosen)
        leaves = beam_slates(tuned, prompts, groups=group, slots=slots, chance=chance).leaves
        value = slot_rewards(policy, reward, early, lake, chosen, leaves)
        # what all members of a group are paid has no gradient, and would only round
        paid, estimate = (value - value.mean(axis=1, keepdims=True)) / unit, {}
        if rails:
            before = beam_slates(start, prompts, groups=group, slots=slots, chance=chance).leaves
            for label, (credit, share) in rails.step(chosen, leaves, before).items():
                paid, estimate[label] = paid + guarded["multiplier"][label] * credit, share
        flat = leaves.reshape(len(rows), group * slots)
        with torch.no_grad():
            reference = slate_log_prob(start.log_prob(prompts, flat).reshape(leaves.shape))
        log_p = slate_log_prob(tuned.log_prob(prompts, flat).reshape(leaves.shape))
        loss = policy_loss(log_p, torch.from_numpy(paid), reference, kl)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(now, 1.0)
        optimizer.step()
        ratio = (log_p.detach() - reference).numpy().mean(axis=2)
        figures = {
            "step": step + 1,
            "reward": float(value.mean()),
            "kl": float(ratio.mean()),
            "kl_p95": float(np.quantile(ratio.mean(axis=1), 0.95)),
            "zero_advantage": float(
                (np.ptp(value, axis=1) <= ROUNDING * np.abs(value).max()).all(axis=1).mean()
            ),
        }
        looked = (step + 1) % SAVE_EVERY == 0 or step + 1 == steps
        if rails:
            guarded["multiplier"] = rails.ascend(guarded["multiplier"], estimate)
            if looked:
                guarded["share"] = rails.shares(tuned)
                if rails.hold(guarded["share"]):
                    kept.load_state_dict(now.state_dict())
                    guarded["kept"] = step + 1
            figures |= rails.figures(guarded, estimate)
        curve.append(figures)
        if checkpoint and looked:
            save_checkpoint(
                checkpoint,
                saved,
                [optimizer],
                made_by | {"step": step + 1, "curve": curve, "unit": unit, "guarded": guarded},
            )
        if progress:
            progress(step + 1, steps, figures)
    if rails:
        now.load_state_dict(kept.state_dict())
    alarms = variety_alarms(policy, tuned, lake, moments, slots, seed) if steps else ()
    if alarms:
        logger.warning("%s", alarm_words(alarms, str(reward)))
    return replace(
        policy.settled(tuned),
        exclude=exclude,
        rule=exclude,
        also_under=None,
        curve=tuple(curve),
        alarms=alarms,
    )


def alarm_words(alarms: Sequence[str], reward: str) -> str:
    """What fell, and what to do about it, in one line."""
    return (
        f"ALARM: the policy reinforced on {reward} is far behind the start: {'; '.join(alarms)}. "
        "Raise kl, or give the reward (stricter) guardrails: {coverage(): 0.8, top_creator(): 0.8}"
    )


def check_ranges(who: str, **given: float) -> None:
    """Refuse an argument that is not finite or below what makes sense."""
    for name, value in given.items():
        if not LEAST[name] <= value < float("inf"):
            raise ConfigError(
                f"{who}: {name}={value} given, expected a number of at least {LEAST[name]}"
            )
