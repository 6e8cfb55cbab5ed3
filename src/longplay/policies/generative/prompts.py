"""Token sequences: prompts to continue, and windows of histories to learn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from longplay.arrays import Int
from longplay.codes.trie import Allowed, Trie
from longplay.policies.generative.circumstances import CircumstanceTokens
from longplay.policies.generative.vocabulary import Vocabulary


@dataclass(frozen=True)
class Prompts:
    """N tokenised prompts, left-padded.

    Attributes:
        tokens: token ids, [N, T].
        real: which tokens are no padding, [N, T].
        temperature: of the softmax over codes, [N], above 0.
        allowed: what each context may be shown.
        users: what is known of the users, [N, K]; null where the model does not read it.
    """

    tokens: Tensor
    real: Tensor
    temperature: Tensor
    allowed: Allowed
    users: Tensor | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    def take(self, rows: Int) -> Prompts:
        """The prompts of these rows, in this order."""
        part = torch.from_numpy(rows)
        return Prompts(
            self.tokens[part], self.real[part], self.temperature[part], self.allowed.take(rows)
        )

    def between(self, start: int, stop: int) -> Prompts:
        """The prompts from `start` to `stop` - 1, as a view."""
        part = slice(start, stop)
        return Prompts(
            self.tokens[part],
            self.real[part],
            self.temperature[part],
            self.allowed.between(start, stop),
            None if self.users is None else self.users[part],
        )


@dataclass(frozen=True)
class Texts:
    """N texts as tokens: text n is `tokens[offsets[n]:offsets[n+1]]`."""

    offsets: Int
    tokens: Int

    @classmethod
    def none(cls, n: int) -> Texts:
        """N empty texts."""
        return cls(np.zeros(n + 1, dtype=np.int64), np.zeros(0, dtype=np.int64))

    @classmethod
    def of(cls, tokens: Sequence[Sequence[int]]) -> Texts:
        """Texts from lists of token ids."""
        offsets = np.cumsum([0, *map(len, tokens)])
        return cls(offsets, np.array([token for text in tokens for token in text], dtype=np.int64))

    @property
    def count(self) -> Int:
        """Number of tokens of each text, [N]."""
        return np.diff(self.offsets)

    def write(self, into: Int, first: Int) -> None:
        """Write text n into row n of `into`, from column `first[n]` on."""
        row = np.repeat(np.arange(len(first)), self.count)
        into[row, first[row] + np.arange(len(self.tokens)) - self.offsets[row]] = self.tokens


@dataclass(frozen=True)
class Windows:
    """N stretches of histories of up to T items, padded at the end with leaf 0.

    Attributes:
        leaves: [N, T].
        real: which are there, [N, T].
        leading: tokens of circumstances before each, [N, T, P]; default none.
        trailing: tokens of circumstances after each, [N, T, S]; default none.
    """

    leaves: Int
    real: NDArray[np.bool_]
    leading: Int
    trailing: Int

    @classmethod
    def of(cls, leaves: Int, real: NDArray[np.bool_] | None = None) -> Windows:
        """Windows of items without circumstances; default all real."""
        nothing = np.zeros((*leaves.shape, 0), dtype=np.int64)
        return cls(
            leaves, np.ones(leaves.shape, dtype=bool) if real is None else real, nothing, nothing
        )

    def __len__(self) -> int:
        return len(self.leaves)

    @property
    def count(self) -> int:
        """The number of real items, padding left out."""
        return int(self.real.sum())

    def part(self, rows: slice) -> Windows:
        """The windows of these rows."""
        return Windows(self.leaves[rows], self.real[rows], self.leading[rows], self.trailing[rows])


def as_read(trie: Trie, vocabulary: Vocabulary, leaves: Int, item_token_I: Int | None) -> Int:
    """The tokens of items, [..., L]: their codes; the last is `item_token_I[leaf]` where items have
    tokens."""
    tokens = trie.codes[leaves] + np.array([vocabulary.code(level) for level in range(trie.levels)])
    if item_token_I is not None:
        tokens[..., -1] = item_token_I[leaves]
    return tokens


def latest(offsets: Int, leaves: Int, most: int) -> tuple[Int, Int]:
    """The last `most` known items (leaf >= 0) of each history: offsets [N + 1], and their places in
    `leaves`."""
    place = np.flatnonzero(leaves >= 0)
    owner = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))[place]
    count = np.bincount(owner, minlength=len(offsets) - 1)
    from_end = np.cumsum(count)[owner] - np.arange(len(owner))  # 1 = the latest item
    return np.concatenate([[0], np.cumsum(np.minimum(count, most))]), place[from_end <= most]


def encode(
    trie: Trie,
    offsets: Int,
    leaves: Int,
    history: int,
    temperature_N: NDArray[np.float64],
    allowed: Allowed,
    vocabulary: Vocabulary | None = None,
    texts: Texts | None = None,
    circumstance_tokens: CircumstanceTokens | None = None,
    item_token_I: Int | None = None,
) -> Prompts:
    """Prompts from ragged histories: the words of a text, BOS, then each item with its circumstances.

    Args:
        trie: semantic IDs of the catalogue.
        offsets: where each history begins and ends, [N + 1].
        leaves: items of all histories, oldest first; -1 is skipped.
        history: only so many of the last items are read.
        temperature_N: of the softmax over codes, above 0.
        allowed: what each context may be shown.
        vocabulary: which token is which; default that of a model from scratch.
        texts: words read before the history; default none.
        circumstance_tokens: of all items in `leaves`; default none.
        item_token_I: the token that stands for each leaf's last code; default that code.
    """
    n = len(offsets) - 1
    levels = trie.levels
    vocabulary = vocabulary or Vocabulary(levels, trie.width)
    texts = texts or Texts.none(n)
    offsets, place = latest(offsets, leaves, history)
    if circumstance_tokens is None:
        circumstance_tokens = CircumstanceTokens.none(len(place), n)
    else:
        circumstance_tokens = circumstance_tokens.take(place, np.arange(n))
    ahead = circumstance_tokens.upcoming.shape[1]
    count = np.diff(offsets)
    block = np.concatenate(
        [
            vocabulary.circumstance + circumstance_tokens.leading,
            as_read(trie, vocabulary, leaves[place], item_token_I),
            vocabulary.circumstance + circumstance_tokens.trailing,
        ],
        axis=1,
    )
    used = texts.count + 1 + count * block.shape[1] + ahead
    width = int(used.max()) if n else 1
    tokens = np.full((n, width), vocabulary.pad, dtype=np.int64)
    owner = np.repeat(np.arange(n), count)
    column = width - ahead - (offsets[1:][owner] - np.arange(len(place))) * block.shape[1]
    tokens[owner[:, None], column[:, None] + np.arange(block.shape[1])] = block
    tokens[:, width - ahead :] = vocabulary.circumstance + circumstance_tokens.upcoming
    tokens[np.arange(n), width - used + texts.count] = vocabulary.bos
    texts.write(tokens, width - used)
    return Prompts(
        torch.from_numpy(tokens),
        torch.from_numpy(tokens != vocabulary.pad),
        torch.from_numpy(temperature_N),
        allowed,
    )
