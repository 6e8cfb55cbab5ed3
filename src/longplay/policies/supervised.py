"""Supervised training: the next item at every position of every history, in one packed pass."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from longplay.codes.trie import Allowed
from longplay.decisions import Contexts, ItemIndex, learners_events
from longplay.errors import DataError
from longplay.lake.lake import Lake
from longplay.lake.schema import ENGAGED
from longplay.policies.checkpoint import load_checkpoint, save_checkpoint
from longplay.policies.decoder import Decoder, Prompts, encode

Ints = NDArray[np.int64]
Progress = Callable[[int, int, dict[str, float]], None]  # step, of steps, figures

SAVE_EVERY = 50


@dataclass(frozen=True)
class Histories:
    """What every user engaged with, in order: `leaves[offsets[u]:offsets[u+1]]` are user u's items, oldest first.

    `held_out[U]` marks a twentieth of these users, by hash of their id, who are only watched: the loss on them says when to stop.
    """

    offsets: Ints
    leaves: Ints
    held_out: NDArray[np.bool_]


def histories_from_log(lake: Lake, index: ItemIndex, available: NDArray[np.bool_]) -> Histories:
    """The engaged items of every user in the order of their events, without items that are not `available[I]`.

    Events at the same instant (the lines of one invoice) have no order: they stand in that of a hash
    of their ids, so that no catalogue order is learned. Where the lake has logged decisions, users for whom
    `decisions.held_out` is true are left out: off-policy estimates score them, and a policy must not know their outcomes.

    Raises:
        DataError: no event has an item of the catalogue.
    """
    events = learners_events(lake).filter(pl.col("kind").is_in(ENGAGED) & pl.col("item_id").is_not_null())
    events = events.with_columns(tie=pl.col("event_id").hash(seed=1)).sort("user_id", "time", "tie")
    leaf = index.rows(events["item_id"])
    possible = (leaf >= 0) & available[np.maximum(leaf, 0)]
    events = events.select("user_id").with_columns(pl.Series("leaf", leaf)).filter(pl.Series(possible))
    if events.is_empty():
        raise DataError("train: no event has an available item of the catalogue, held-out users aside; is the log long enough?")
    users = events.group_by("user_id", maintain_order=True).len()
    offsets = np.concatenate([[0], np.cumsum(users["len"].to_numpy())]).astype(np.int64)
    watched = (users["user_id"].hash(seed=20).to_numpy() % np.uint64(20)) == 0
    return Histories(offsets, events["leaf"].to_numpy().astype(np.int64), watched if not watched.all() else ~watched)


def train_next_items(
    decoder: Decoder,
    histories: Histories,
    *,
    steps: int,
    history: int,
    batch: int = 64,
    lr: float = 3e-3,
    seed: int = 0,
    progress: Progress | None = None,
    checkpoint: Path | None = None,
) -> list[dict[str, float]]:
    """Maximise the constrained log-probability of the next item; changes `decoder.model` in place.

    The weights kept are those of the least held-out loss.

    Each step takes `batch` windows of up to `history` + 1 items that end at a random event of the log.

    Returns one row per `SAVE_EVERY` steps: step, loss, held_out (mean negative log-probability per item, nats).
    """
    owner = np.repeat(np.arange(len(histories.offsets) - 1), np.diff(histories.offsets))
    watched = histories.held_out[owner]
    train_ends, watch_ends = np.flatnonzero(~watched), np.flatnonzero(watched)

    def loss_of(ends: Ints, rng: np.random.Generator) -> Tensor:
        chosen = rng.choice(ends, size=min(batch, len(ends)), replace=False)
        leaves, real = windows(histories, owner, chosen, history + 1)
        nothing = Allowed.of(decoder.trie, np.zeros(len(chosen) + 1, dtype=np.int64), np.zeros(0, dtype=np.int64))
        return -decoder.sequence_log_prob(leaves, real, nothing).sum() / int(real.sum())

    def held_out() -> float:
        return float(np.mean([float(loss_of(watch_ends, np.random.default_rng([seed, part]))) for part in range(4)]))

    return descend(
        decoder, lambda rng: loss_of(train_ends, rng), held_out if len(watch_ends) else None,
        steps=steps, lr=lr, seed=seed, progress=progress, checkpoint=checkpoint,
    )  # fmt: skip


def windows(histories: Histories, owner: Ints, ends: Ints, length: int) -> tuple[Ints, NDArray[np.bool_]]:
    """The `length` items up to and including each event of `ends`, of the same user: leaves and which are real, [N, length].

    Shorter histories are padded at the end (leaf 0, not real).
    """
    first = np.maximum(histories.offsets[owner[ends]], ends - length + 1)
    place = first[:, None] + np.arange(length)
    real = place <= ends[:, None]
    return np.where(real, histories.leaves[np.minimum(place, ends[:, None])], 0), real


def descend(
    decoder: Decoder,
    loss_of_step: Callable[[np.random.Generator], Tensor],
    held_out: Callable[[], float] | None,
    *,
    steps: int,
    lr: float,
    seed: int,
    progress: Progress | None,
    checkpoint: Path | None,
) -> list[dict[str, float]]:
    """AdamW on `loss_of_step`, whose generator depends on (seed, step) alone: a resumed run is the same run.

    The rate warms up over 5% of the steps and falls to a tenth by a cosine; gradients are clipped at norm 1.
    With `held_out` the weights at the end are those of its least value: a small log is overfitted soon.
    """
    model, best = decoder.model, copy.deepcopy(decoder.model)
    both = nn.ModuleDict({"now": model, "best": best})
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.01)
    made_by = {"steps": steps, "lr": lr, "seed": seed}
    notes = load_checkpoint(checkpoint, both, optimizer, made_by) if checkpoint else None
    curve: list[dict[str, float]] = notes["curve"] if notes else []
    running: list[float] = []
    for step in range(notes["step"] if notes else 0, steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * _schedule(step, steps)
        loss = loss_of_step(np.random.default_rng([seed, step]))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        running.append(float(loss.detach()))
        if progress:
            progress(step + 1, steps, {"loss": float(np.mean(running))})
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == steps:
            row = {"step": step + 1, "loss": float(np.mean(running))}
            if held_out:
                with torch.no_grad():
                    row["held_out"] = held_out()
                if row["held_out"] <= min((past["held_out"] for past in curve), default=float("inf")):
                    best.load_state_dict(model.state_dict())
            curve.append(row)
            running = []
            if checkpoint:
                save_checkpoint(checkpoint, both, optimizer, made_by | {"step": step + 1, "curve": curve})
    if held_out and curve:
        model.load_state_dict(best.state_dict())
    return curve


def prompts_of(decoder: Decoder, index: ItemIndex, contexts: Contexts, history: int) -> Prompts:
    """The decoder's prompts for `contexts`: their history as tokens, their exclusions as what is allowed."""
    allowed = Allowed.of(decoder.trie, *index.ragged_rows(contexts.frame["exclusions"]))
    offsets, leaves = index.ragged_rows(contexts.frame["history"])
    return encode(decoder.trie, offsets, leaves, history, contexts.frame["temperature"].to_numpy().astype(float), allowed)


def _schedule(step: int, steps: int) -> float:
    warm = max(1, steps // 20)
    if step < warm:
        return (step + 1) / warm
    return 0.1 + 0.9 * 0.5 * (1 + float(np.cos(np.pi * (step - warm) / max(1, steps - warm))))
