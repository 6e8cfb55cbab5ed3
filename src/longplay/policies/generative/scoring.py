"""Slates and scores of many contexts, batch by batch, so that memory stays bounded."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import polars as pl

from longplay.arrays import Float, Int
from longplay.chance import RowChance
from longplay.decisions import Contexts
from longplay.errors import DataError
from longplay.policies.generative.decoder import Decoder
from longplay.policies.generative.prompts import Prompts
from longplay.policies.generative.search import (
    beam_slates,
    best_items,
    chosen_log_probs,
    item_log_probs,
)
from longplay.policies.plackett import impossible_from_repeats, log1mexp, plackett_luce_log_prob

BATCH = 256  # contexts per forward pass
PromptsOf = Callable[[Contexts], Prompts]


def draw_slates(
    decoder: Decoder, prompts_of: PromptsOf, contexts: Contexts, slots: int, chance: RowChance
) -> tuple[Int, Float]:
    """Draw a slate per context without replacement.

    Args:
        decoder: the model under the trie.
        prompts_of: makes prompts of contexts.
        contexts: N contexts.
        slots: items per slate, S, at least 1.
        chance: a stream of random numbers per context.

    Returns:
        Leaves [N, S], and the log-probability of each item in the first slot [N, S].

    Raises:
        DataError: a context allows fewer items than `slots`.
    """
    leaves = [np.zeros((0, slots), dtype=np.int64)]
    item_log_prob = [np.zeros((0, slots))]
    for rows, batch in batches(contexts):
        prompts = prompts_of(batch)
        _check_enough(batch, prompts.allowed.count(), slots)
        draw = beam_slates(decoder, prompts, groups=1, slots=slots, chance=chance.take(rows))
        leaves.append(draw.leaves[:, 0])
        item_log_prob.append(draw.item_log_prob[:, 0])
    return np.concatenate(leaves), np.concatenate(item_log_prob)


def slate_log_probs(
    decoder: Decoder, prompts_of: PromptsOf, contexts: Contexts, leaves_NS: Int
) -> Float:
    """Log-probability of every slot given the slots before it, [N, S].

    -inf for an item that is not allowed, and from the first repeat on.

    Args:
        decoder: the model under the trie.
        prompts_of: makes prompts of contexts.
        contexts: N contexts.
        leaves_NS: the slate of each, S at least 1.
    """
    slots = leaves_NS.shape[1]
    parts = [np.zeros((0, slots))]
    for rows, batch in batches(contexts):
        leaves = leaves_NS[rows]
        prompts = prompts_of(batch)
        item_NS = chosen_log_probs(decoder, prompts, leaves)
        outside_N = prompts.allowed.count() - slots
        # a slate of everything allowed leaves nothing, which 1 - sum of single-precision numbers
        # would miss
        log_rest_N = np.where(
            outside_N > 0, log1mexp(np.logaddexp.reduce(item_NS, axis=1)), -np.inf
        )
        log_prob_NS = plackett_luce_log_prob(item_NS, log_rest_N)
        parts.append(impossible_from_repeats(log_prob_NS, leaves))
    return np.concatenate(parts)


def catalogue_log_probs(decoder: Decoder, prompts_of: PromptsOf, contexts: Contexts) -> Float:
    """Log-probability of every item in the first slot, [N, I]; -inf where it cannot be shown."""
    items = len(decoder.trie.codes)
    parts = [item_log_probs(decoder, prompts_of(batch)) for _, batch in batches(contexts)]
    return np.concatenate([np.zeros((0, items)), *parts])


def most_probable_items(
    decoder: Decoder, prompts_of: PromptsOf, contexts: Contexts, ids: pl.Series, k: int, beams: int
) -> pl.DataFrame:
    """The `k` most probable items of every context; see `search.best_items`.

    Args:
        decoder: the model under the trie.
        prompts_of: makes prompts of contexts.
        contexts: N contexts.
        ids: item id of every leaf.
        k: items per context; fewer where a context allows fewer.
        beams: partial IDs that are searched per level, at least k.

    Returns:
        Columns row (of the context), position (from 1), item_id and log_prob (of the first slot).
    """
    schema = {"row": pl.Int64, "position": pl.Int64, "item_id": pl.String, "log_prob": pl.Float64}
    frames = [pl.DataFrame(schema=schema)]
    for rows, batch in batches(contexts):
        best = best_items(decoder, prompts_of(batch), k, beams)
        leaves = best.leaves[:, 0]
        row, place = np.nonzero(leaves >= 0)
        columns = {
            "row": rows[row],
            "position": place + 1,
            "item_id": ids.gather(leaves[row, place]),
            "log_prob": best.item_log_prob[:, 0][row, place],
        }
        frames.append(pl.DataFrame(columns, schema=schema))
    return pl.concat(frames)


def batches(contexts: Contexts) -> Iterator[tuple[Int, Contexts]]:
    """The rows of each batch, and its contexts."""
    rows = np.arange(len(contexts))
    for start in range(0, len(contexts), BATCH):
        part = rows[start : start + BATCH]
        yield part, contexts.take(part)


def _check_enough(contexts: Contexts, allowed_N: Int, slots: int) -> None:
    if allowed_N.min() < slots:
        row = int(np.argmin(allowed_N))
        raise DataError(
            f"decide: user {contexts.frame['user_id'][row]!r} asks for {slots} slots but only "
            f"{int(allowed_N[row])} items of the catalogue are available and not excluded; ask for "
            "fewer slots or exclude less"
        )
