"""Supervised training: the next item at every position of every history, in one packed pass."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from longplay.arrays import Int
from longplay.codes.trie import Allowed
from longplay.policies.generative.decoder import Decoder
from longplay.policies.generative.prompts import Windows, encode
from longplay.policies.generative.search import best_items
from longplay.policies.training.descent import (
    SAVE_EVERY,
    VALIDATION,
    Progress,
    Team,
    Watch,
    descend,
)
from longplay.policies.training.histories import Histories, Questions

# from so many questions on, NDCG decides which weights are kept; with fewer its standard error is
# above .01, and the loss decides
ASKED = 1_000
MOST_ASKED = 5_000
DEPTH = 10
BEAMS = 20


def train_next_items(
    decoder: Decoder,
    histories: Histories,
    *,
    steps: int,
    history: int,
    batch: int = 64,
    lr: float = 3e-3,
    seed: int = 0,
    dropout: float = 0.0,
    thin: float = 0.0,
    weight_decay: float = 0.01,
    optimizer: str = "adamw",
    half: bool = False,
    patience: int = 0,
    check_every: int = SAVE_EVERY,
    questions: Questions | None = None,
    progress: Progress | None = None,
    checkpoint: Path | None = None,
    team: Team | None = None,
) -> list[dict[str, float]]:
    """Maximise the constrained log-probability of the next item; changes `decoder.model` in place.

    Each step takes `batch` windows of up to `history` + 1 items (`Histories.batches`). The weights
    kept are those of the best check: by NDCG@10 where at least `ASKED` questions can be asked of
    it, else by the validation loss.

    Args:
        decoder: whose model is trained.
        histories: what users engaged with, in order.
        steps: updates.
        history: most items read before the one to predict.
        batch: windows per step.
        lr: the highest learning rate.
        seed: of the order of windows and of dropout.
        dropout: share of activations dropped.
        thin: share of events that each epoch leaves out (see `Histories.batches`).
        weight_decay: of AdamW.
        optimizer: `adamw` or `muon` (see `descent.optimizers_of`).
        half: matrix products of training in bfloat16, the weights stay float32: a third quicker
            from 256 wide on, where the processor has it.
        patience: checks without a better one after which training stops; 0: never.
        check_every: steps between checks.
        questions: what the NDCG is of; default: the last item of every validation user. Of more than
            `MOST_ASKED`, a sample.
        progress: called with step, steps and figures.
        checkpoint: file to save to and to go on from.
        team: the processes that share each step; default: those that `accelerate launch` started,
            or this one alone.

    Returns:
        One row per check: step, loss, validation (both mean negative log-probability per item,
        nats; validation where there are validation users), ndcg (where there are enough questions).
    """
    team = Team.of_launcher() if team is None else team
    validation_rows = np.flatnonzero(histories.validation_users)
    training_rows = np.flatnonzero(~histories.validation_users)
    batches = enumerate(histories.batches(training_rows, history + 1, batch, seed, thin))
    validation_batches = []
    if len(validation_rows):
        endless = histories.batches(validation_rows, history + 1, batch, seed)
        validation_batches = list(islice(endless, 4))
    validation_questions = (
        Questions.last_items(histories, validation_rows) if questions is None else questions
    ).sample(MOST_ASKED, seed)

    def loss_of_step(step: int) -> Tensor:
        windows = next(batch_windows for number, batch_windows in batches if number == step)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            return (
                negative_log_prob(decoder, windows.part(slice(team.rank, None, team.size)))
                / windows.count
            )

    def measure() -> dict[str, float]:
        figures = {}
        if validation_batches:
            figures[VALIDATION] = mean_loss(decoder, validation_batches)
        if len(validation_questions) >= ASKED:
            figures["ndcg"] = float(
                ndcg_of(positions(decoder, validation_questions, history)).mean()
            )
        return figures

    made_by = {
        "batch": batch,
        "history": history,
        "thin": thin,
        "histories": histories.digest[:16],
        "codes": decoder.trie.version,
    }
    keep = VALIDATION if validation_batches else None
    if len(validation_questions) >= ASKED:
        keep = "ndcg"
    return descend(
        decoder,
        loss_of_step,
        Watch(measure, keep, patience) if keep else None,
        steps=steps,
        lr=lr,
        seed=seed,
        progress=progress,
        checkpoint=checkpoint,
        check_every=check_every,
        dropout=dropout,
        weight_decay=weight_decay,
        optimizer=optimizer,
        team=team,
        made_by=made_by,
    )


def negative_log_prob(decoder: Decoder, windows: Windows) -> Tensor:
    """Sum of -log pi of every item of `windows` given those before it, without exclusions; 0 where
    there are no windows."""
    if not len(windows):
        return torch.zeros((), dtype=torch.float64, requires_grad=True)
    return -decoder.sequence_log_prob(windows, Allowed.everything(decoder.trie, len(windows))).sum()


def mean_loss(decoder: Decoder, batches: Sequence[Windows]) -> float:
    """Mean over batches of the mean -log pi per item, nats; without gradients."""
    with torch.no_grad():
        return float(
            np.mean(
                [float(negative_log_prob(decoder, windows)) / windows.count for windows in batches]
            )
        )


def positions(
    decoder: Decoder,
    questions: Questions,
    history: int,
    *,
    beams: int = BEAMS,
    k: int = DEPTH,
    batch: int = 256,
    unseen: bool = False,
) -> Int:
    """Position (from 1) of the next item among the `k` items that the model ranks first, [N]; 0
    where it is not among them.

    By constrained beam search over the whole catalogue, nothing excluded; with `unseen`, but for
    all items of the history.
    """
    position = np.zeros(len(questions), dtype=np.int64)
    # prompts of equal length come together
    order = np.argsort(np.diff(questions.offsets), kind="stable")
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        part = questions.take(rows)
        if unseen:
            allowed = Allowed.of(decoder.trie, part.offsets, part.leaves)
        else:
            allowed = Allowed.everything(decoder.trie, len(rows))
        prompts = encode(
            decoder.trie,
            part.offsets,
            part.leaves,
            history,
            np.ones(len(rows)),
            allowed,
            decoder.vocabulary,
            circumstance_tokens=part.circumstance_tokens,
            item_token_I=decoder.item_token_I,
        )
        best = best_items(decoder, prompts, k, max(k, beams)).leaves[:, 0]
        hit = best == questions.target[rows][:, None]
        position[rows] = np.where(hit.any(axis=1), hit.argmax(axis=1) + 1, 0)
    return position


def ndcg_of(position: Int) -> NDArray[np.float64]:
    """NDCG of one relevant item at each position (from 1; 0: not shown): 1 / log2(position + 1), or
    0."""
    return np.where(position > 0, 1 / np.log2(np.maximum(position, 1) + 1), 0.0)
