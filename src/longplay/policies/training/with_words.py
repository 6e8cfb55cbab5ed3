"""Supervised training of a pretrained base: next items, items described by words, and titles."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from longplay.arrays import Int
from longplay.codes.trie import Allowed
from longplay.policies.generative.decoder import Decoder
from longplay.policies.generative.texts import Described, Words
from longplay.policies.training.descent import VALIDATION, Progress, Watch, descend
from longplay.policies.training.histories import Histories
from longplay.policies.training.next_item import mean_loss, negative_log_prob

READ_ON = 8  # most items of history that are read behind a prompt in training
TITLE_TOKENS = 16
CHECKS = 10  # checks of a training, in equal steps


def train_with_words(
    decoder: Decoder,
    histories: Histories,
    described: Described,
    words: Words,
    *,
    steps: int,
    history: int,
    batch: int = 8,
    lr: float = 2e-3,
    seed: int = 0,
    patience: int = 0,
    progress: Progress | None = None,
    checkpoint: Path | None = None,
) -> list[dict[str, float]]:
    """Train the parameters of `decoder.trainable()` on three tasks; each step takes `batch`
    examples of each.

    The next item at every position of a history; the item that some words describe, half of them
    after a history (a prompted playlist); and, a quarter of `batch`, the title of an item. The mean
    log-probability per item of each of the first two counts once, that per token of the third a
    quarter. The weights kept are those of the least validation loss (of the next item alone).

    Returns one row per check: step, loss, validation (loss of the next item, nats).
    """
    training_rows = np.flatnonzero(~histories.validation_users)
    validation_rows = np.flatnonzero(histories.validation_users)
    batches = enumerate(histories.batches(training_rows, history + 1, batch, seed))
    validation_batches = []
    if len(validation_rows):
        endless = histories.batches(validation_rows, history + 1, 32, seed)
        validation_batches = list(islice(endless, 4))

    def loss_of_step(step: int) -> Tensor:
        rng = np.random.default_rng([seed, step])
        windows = next(batch_windows for number, batch_windows in batches if number == step)
        loss = negative_log_prob(decoder, windows) / windows.count
        loss = loss + asked_for(
            decoder, histories, described, words, rng.choice(training_rows, batch), rng
        )
        return loss + 0.25 * titled(
            decoder, described, words, rng.integers(len(decoder.trie), size=max(batch // 4, 1))
        )

    def measure() -> dict[str, float]:
        return {VALIDATION: mean_loss(decoder, validation_batches)}

    return descend(
        decoder,
        loss_of_step,
        Watch(measure, patience=patience) if validation_batches else None,
        steps=steps,
        lr=lr,
        seed=seed,
        progress=progress,
        checkpoint=checkpoint,
        check_every=max(steps // CHECKS, 1),
        made_by={
            "batch": batch,
            "history": history,
            "histories": histories.digest[:16],
            "codes": decoder.trie.version,
        },
    )


def asked_for(
    decoder: Decoder,
    histories: Histories,
    described: Described,
    words: Words,
    users: Int,
    rng: np.random.Generator,
) -> Tensor:
    """Mean negative log-probability of an item of each of these users, given words that describe it
    and, for half of them, the items before it."""
    low = histories.offsets[users]
    high = histories.offsets[users + 1]
    place = low + (rng.random(len(users)) * (high - low)).astype(np.int64)
    begin = np.where(rng.random(len(users)) < 0.5, place, np.maximum(place - READ_ON, low))
    windows = histories.window(begin, place + 1)
    target = histories.leaves[place]
    texts = words.texts([described.some(int(leaf), rng) for leaf in target])
    log_p = decoder.sequence_log_prob(windows, Allowed.everything(decoder.trie, len(users)), texts)
    return -log_p[torch.arange(len(users)), torch.from_numpy(place - begin)].mean()


def titled(decoder: Decoder, described: Described, words: Words, leaves: Int) -> Tensor:
    """Mean negative log-probability per token of the titles of these items, given their codes, over
    the base's vocabulary."""
    titles = words.texts([described.titles[int(leaf)] for leaf in leaves], TITLE_TOKENS)
    longest = int(titles.count.max(initial=0))
    if longest == 0:
        return torch.zeros((), dtype=torch.float64)
    vocabulary = decoder.vocabulary
    levels = decoder.trie.levels
    tokens = np.full((len(leaves), levels + 2 + longest), vocabulary.pad, dtype=np.int64)
    tokens[:, 0] = vocabulary.bos
    tokens[:, levels + 1] = vocabulary.title
    tokens[:, 1 : levels + 1] = decoder.trie.codes[leaves] + np.array(
        [vocabulary.code(level) for level in range(levels)]
    )
    titles.write(tokens, np.full(len(leaves), levels + 2))
    return -decoder.text_log_prob(
        torch.from_numpy(tokens), levels + 2, torch.from_numpy(titles.count)
    ).sum() / int(titles.count.sum())
