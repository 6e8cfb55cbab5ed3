"""The embeddings of tokens that come to stand for something else: of new items, and of the codes
of another codebook."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from longplay.arrays import Float, Int
from longplay.codes.codebook import Codebook
from longplay.codes.trie import Trie
from longplay.errors import DataError
from longplay.index import ItemIndex
from longplay.policies.generative.pretrained import weight_of
from longplay.policies.generative.vocabulary import Vocabulary


def with_item_tokens(
    model: PreTrainedModel, vocabulary: Vocabulary, codebook: Codebook, items_with_token: pl.Series
) -> tuple[PreTrainedModel, pl.Series]:
    """The model with a token for every item of a codebook that has grown, and the items in the
    order of their tokens.

    A new item's token begins as the mean of those of the items under its prefix: a model that has
    not read it yet expects of it what it expects of its neighbours (see `rows_of_items`).

    Args:
        model: it is not changed.
        vocabulary: of the model as it is.
        codebook: the items as they are now.
        items_with_token: those that have one, in the order of their tokens.
    """
    place = ItemIndex(items_with_token).rows(codebook.items)
    without_token = place < 0
    if not without_token.any():
        return model, items_with_token

    def rows_of(table_TH: Float) -> Float:
        rows_IH = rows_of_items(codebook, place, table_TH[vocabulary.item :])
        return np.concatenate([table_TH[vocabulary.item :], rows_IH[without_token]])

    all_items = pl.concat([items_with_token, codebook.items.filter(pl.Series(without_token))])
    return with_rows(model, vocabulary.item, rows_of), all_items


def with_codes_of(
    model: PreTrainedModel,
    vocabulary: Vocabulary,
    codebook: Codebook,
    other: Codebook,
    items_with_token: pl.Series | None,
) -> PreTrainedModel:
    """The model with tokens for the codes of another codebook, and where items have tokens, for its
    items in their order. All other weights stay.

    Each code begins as the mean, over the items that have it and are in both codebooks, of the
    embeddings of the codes that they had at the same level; a code without such items begins as
    the mean over all of them. An item's token stays its own, and that of a new item begins as in
    `with_item_tokens`.

    Args:
        model: it is not changed.
        vocabulary: of the model as it is.
        codebook: the codes that it speaks.
        other: the codes that it shall speak; as many levels, of any width.
        items_with_token: items that have a token, in the order of their tokens; null: none has.

    Raises:
        DataError: another number of levels, or no item in common.
    """
    if other.levels != codebook.levels:
        raise DataError(
            f"recoded: a codebook of {other.levels} levels given for a model that speaks "
            f"{codebook.levels}; fit it with levels={codebook.levels}"
        )
    leaf_I = codebook.index.rows(other.items)
    is_shared_I = leaf_I >= 0
    if not is_shared_I.any():
        raise DataError(
            f"recoded: none of the {len(other.items):,} items given is among the "
            f"{len(codebook.items):,} of the policy; give a codebook of the same service"
        )
    first = vocabulary.code(0)
    has_token_I = None
    if items_with_token is not None:
        has_token_I = ItemIndex(items_with_token).rows(other.items)

    def rows_of(table_TH: Float) -> Float:
        parts = []
        for level in range(other.levels):
            begin = vocabulary.code(level)
            rows_KH = table_TH[begin : begin + codebook.width]
            parts.append(
                _mean_rows(
                    rows_KH[codebook.codes[leaf_I[is_shared_I], level]],
                    other.codes[is_shared_I, level],
                    other.width,
                )
            )
        if has_token_I is not None:
            parts.append(rows_of_items(other, has_token_I, table_TH[vocabulary.item :]))
        return np.concatenate(parts)

    return with_rows(model, first, rows_of)


def rows_of_items(codebook: Codebook, place_I: Int, rows_TH: Float) -> Float:
    """An embedding per item of the codebook, [I, H]: its own where it has one, `rows_TH[place_I]`;
    where `place_I` is -1, the mean of those under its longest prefix that has any.

    The mean is over items that the codes were fitted on, so that items added one night after
    another begin as they would all at once.
    """
    own_IH = np.where(place_I[:, None] >= 0, rows_TH[np.maximum(place_I, 0)], 0.0)
    teaches_I = place_I >= 0
    if codebook.is_added is not None:
        teaches_I &= ~codebook.is_added
    new = np.flatnonzero(place_I < 0)
    own_IH[new] = prefix_means(codebook.trie, teaches_I, own_IH, new)
    return own_IH


def prefix_means(
    trie: Trie, teaches_I: NDArray[np.bool_], rows_IH: Float, leaves: NDArray[np.integer]
) -> Float:
    """For each of `leaves[J]`, the mean of the rows of leaves that teach under its longest prefix
    with any, [J, H]; 0 where none teaches at all.

    >>> trie = Trie.build(np.array([[0, 0], [0, 1], [1, 0], [2, 0]]), width=3)
    >>> rows = np.array([[0.0], [4.0], [0.0], [1.0]])
    >>> prefix_means(trie, np.array([False, True, False, True]), rows, np.array([0, 2]))
    array([[4. ],
           [2.5]])
    """
    taught = np.where(teaches_I[:, None], rows_IH, 0.0)
    sum_before = np.concatenate([np.zeros((1, taught.shape[1])), np.cumsum(taught, axis=0)])
    count_before = np.concatenate([[0], np.cumsum(teaches_I)])
    mean = np.zeros((len(leaves), rows_IH.shape[1]))
    for depth in range(trie.levels):  # a longer prefix replaces what a shorter one says
        node = trie.node_of(depth, np.asarray(leaves, dtype=np.int64))
        low = trie.span[depth][node]
        high = trie.span[depth][node + 1]
        count = (count_before[high] - count_before[low])[:, None]
        total = sum_before[high] - sum_before[low]
        mean = np.where(count > 0, total / np.maximum(count, 1), mean)
    return mean


def with_rows(
    model: PreTrainedModel, first: int, rows_of: Callable[[Float], Float]
) -> PreTrainedModel:
    """A copy of the model whose embeddings from token `first` on are `rows_of` the table that it
    had, input and output alike; its vocabulary ends with them.

    Args:
        model: it is not changed.
        first: id of the first token that changes.
        rows_of: from a table [tokens, H] to the rows from `first` on.
    """
    changed = copy.deepcopy(model)
    tables = [rows_of(weight.detach().double().numpy()) for weight in _embeddings(model)]
    with torch.random.fork_rng(devices=[]):  # resizing draws numbers that are overwritten
        changed.resize_token_embeddings(first + len(tables[0]), mean_resizing=False)
    with torch.no_grad():
        for weight, rows in zip(_embeddings(changed), tables, strict=True):
            weight[first:] = torch.from_numpy(rows).to(weight.dtype)
    return changed.eval()


def _embeddings(model: PreTrainedModel) -> tuple[Tensor, Tensor]:
    """The input and the output embeddings, [tokens, H]; of a model that ties them, one table."""
    return weight_of(model.get_input_embeddings()), weight_of(model.get_output_embeddings())


def _mean_rows(rows_IH: Float, code_I: Int, width: int) -> Float:
    """The mean row of each code, [K, H], over items that have it; of a code without items, over
    all."""
    sums = np.zeros((width, rows_IH.shape[1]))
    np.add.at(sums, code_I, rows_IH)
    count = np.bincount(code_I, minlength=width)[:, None]
    return np.where(count > 0, sums / np.maximum(count, 1), rows_IH.mean(axis=0))
