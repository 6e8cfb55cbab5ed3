"""Supervised training: the items a user newly engages with at a visit, given the history before it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from longplay.codes.trie import Allowed, Trie
from longplay.decisions import Contexts, ItemIndex, contexts_from_log
from longplay.errors import DataError
from longplay.lake.lake import Lake
from longplay.lake.schema import ENGAGED
from longplay.policies.checkpoint import load_checkpoint, save_checkpoint
from longplay.policies.decoder import Decoder, encode

Ints = NDArray[np.int64]
Progress = Callable[[int, int, dict[str, float]], None]  # step, of steps, figures

SAVE_EVERY = 50


@dataclass(frozen=True)
class Examples:
    """Visits with the items newly engaged with at each: `targets[offsets[n]:offsets[n+1]]` are leaves of context n.

    `weight` is per target; training maximises the weighted mean log-probability.
    """

    contexts: Contexts
    offsets: Ints
    targets: Ints
    weight: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.contexts)


def examples_from_log(
    lake: Lake, index: ItemIndex, trie: Trie, *, history: int, exclude: str, limit: int, seed: int, weights: pl.DataFrame | None = None, end: datetime | None = None
) -> Examples:
    """Visits (user-days) of the log as training examples.

    A visit's targets are the items of the day that the user had not engaged with before it and that
    the context does not exclude: repeats are what habits produce without help. Each context sees
    only events before its own time.

    Args:
        weights: optional columns user_id, item_id, weight: the weight of that user's discovery of that
            item; targets without one weigh 0 (exponential reward-weighting, see `learning.offline`).
        limit: at most this many visits, drawn by `seed`.

    Raises:
        DataError: no visit has a new item.
    """
    contexts = contexts_from_log(lake, slots=1, history=history, exclude=exclude, limit=limit, seed=seed, end=end)
    visits = contexts.frame.select("user_id", "time").with_row_index("row").with_columns(day=pl.col("time").dt.date())
    firsts = (
        lake.events.filter(pl.col("kind").is_in(ENGAGED) & pl.col("item_id").is_not_null())
        .group_by("user_id", "item_id")
        .agg(pl.col("time").min())
        .with_columns(day=pl.col("time").dt.date())
        .drop("time")
    )
    pairs = visits.join(firsts, on=["user_id", "day"]).sort("row", "item_id")
    if weights is None:
        pairs = pairs.with_columns(weight=pl.lit(1.0))
    else:
        pairs = pairs.join(weights.select("user_id", "item_id", "weight"), on=["user_id", "item_id"], how="left").with_columns(pl.col("weight").fill_null(0.0))
    leaf = index.rows(pairs["item_id"])
    allowed = Allowed.of(trie, *index.ragged_rows(contexts.frame["exclusions"]))
    possible = (leaf >= 0) & allowed.allows(pairs["row"].to_numpy().astype(np.int64), np.maximum(leaf, 0))
    pairs = pairs.with_columns(pl.Series("leaf", leaf)).filter(pl.Series(possible) & (pl.col("weight") > 0)).sort("row", "leaf")
    if pairs.is_empty():
        raise DataError(f"train: none of {len(contexts):,} visits has a new item of the catalogue; is the log long enough?")
    rows, counts = np.unique(pairs["row"].to_numpy(), return_counts=True)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    return Examples(contexts.take(rows), offsets, pairs["leaf"].to_numpy().astype(np.int64), pairs["weight"].to_numpy().astype(float))


def train_next_items(
    decoder: Decoder,
    index: ItemIndex,
    examples: Examples,
    *,
    steps: int,
    history: int,
    batch: int = 64,
    targets: int = 8,
    lr: float = 3e-3,
    seed: int = 0,
    progress: Progress | None = None,
    checkpoint: Path | None = None,
) -> list[dict[str, float]]:
    """Maximise the constrained log-probability of the targets; changes `decoder.model` in place.

    Each step takes `batch` visits and up to `targets` items of each, drawn without replacement by
    (seed, step), so that a resumed run is the same run. AdamW; the rate warms up over 5% of the
    steps and falls to a tenth by a cosine. A twentieth of the users is held out to watch.

    Returns one row per `SAVE_EVERY` steps: step, loss, held_out (mean negative log-probability per item, nats).
    """
    model = decoder.model
    watched = _held_out(examples)
    train_rows, watch_rows = np.flatnonzero(~watched), np.flatnonzero(watched)[:256]
    if len(train_rows) == 0:
        train_rows = np.arange(len(examples))
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.01)
    notes = load_checkpoint(checkpoint, model, optimizer) if checkpoint else None
    curve: list[dict[str, float]] = notes["curve"] if notes else []
    running: list[float] = notes["running"] if notes else []
    model.train()
    for step in range(notes["step"] if notes else 0, steps):
        rng = np.random.default_rng([seed, step])
        for group in optimizer.param_groups:
            group["lr"] = lr * _schedule(step, steps)
        rows = rng.choice(train_rows, size=min(batch, len(train_rows)), replace=False)
        loss = _loss(decoder, index, examples, rows, history, targets, rng)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        running.append(float(loss.detach()))
        figures = {"loss": float(np.mean(running))}
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == steps:
            model.eval()
            with torch.no_grad():
                held = float(_loss(decoder, index, examples, watch_rows, history, targets, np.random.default_rng(seed))) if len(watch_rows) else float("nan")
            model.train()
            curve.append({"step": step + 1, "loss": float(np.mean(running)), "held_out": held})
            running = []
            if checkpoint:
                save_checkpoint(checkpoint, model, optimizer, {"step": step + 1, "curve": curve, "running": running})
        if progress:
            progress(step + 1, steps, figures)
    model.eval()
    return curve


def _loss(decoder: Decoder, index: ItemIndex, examples: Examples, rows: Ints, history: int, targets: int, rng: np.random.Generator) -> torch.Tensor:
    """Weighted mean negative log-probability per target of the visits `rows`."""
    leaves, weight = np.zeros((len(rows), targets), dtype=np.int64), np.zeros((len(rows), targets))
    for place, row in enumerate(rows):
        start, stop = examples.offsets[row], examples.offsets[row + 1]
        chosen = start + rng.permutation(stop - start)[:targets]
        # a visit counts once however many of its items were drawn: heavy baskets must not drown the rest
        leaves[place, : len(chosen)] = examples.targets[chosen]
        weight[place, : len(chosen)] = examples.weight[chosen] / len(chosen)
        leaves[place, len(chosen) :] = examples.targets[chosen[0]]
    prompts = prompts_of(decoder, index, examples.contexts.take(rows), history)
    log_p = decoder.log_prob(prompts, leaves)
    weighted = torch.from_numpy(weight)
    return -(torch.where(weighted > 0, log_p, 0.0) * weighted).sum() / weighted.sum()


def prompts_of(decoder: Decoder, index: ItemIndex, contexts: Contexts, history: int):
    """The decoder's prompts for `contexts`: their history as tokens, their exclusions as what is allowed."""
    allowed = Allowed.of(decoder.trie, *index.ragged_rows(contexts.frame["exclusions"]))
    offsets, leaves = index.ragged_rows(contexts.frame["history"])
    return encode(decoder.trie, offsets, leaves, history, contexts.frame["temperature"].to_numpy().astype(float), allowed)


def _held_out(examples: Examples) -> NDArray[np.bool_]:
    """A twentieth of the users, by hash of their id, so that it does not depend on the order of the log."""
    users: Any = examples.contexts.frame["user_id"]
    return (users.hash(seed=20).to_numpy() % np.uint64(20)) == 0


def _schedule(step: int, steps: int) -> float:
    warm = max(1, steps // 20)
    if step < warm:
        return (step + 1) / warm
    return 0.1 + 0.9 * 0.5 * (1 + float(np.cos(np.pi * (step - warm) / max(1, steps - warm))))
