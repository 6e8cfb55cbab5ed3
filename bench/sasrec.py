"""The sequential peer of the generative recommender: SASRec trained with a full softmax, as a plain
PyTorch model.

Kang & McAuley 2018 (arXiv 1808.09781): a causal transformer over item embeddings, whose last state
scores every item by inner product. The original loss samples one negative; with cross-entropy over
the whole catalogue it is a far stronger baseline (Klenitskiy & Vasilev 2023, arXiv 2309.07602).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Shape:
    """What is tuned: hidden size, blocks, heads, dropout; and how much it reads."""

    hidden: int = 64
    blocks: int = 2
    heads: int = 2
    dropout: float = 0.5
    longest: int = 50


class SASRec(nn.Module):
    """Scores [N, T, I] of the next item at every position of `items[N, T]` (0..I-1, padded at the
    end)."""

    def __init__(self, items: int, size: Shape) -> None:
        super().__init__()
        self.tokens_read = 0  # not counted: the pace of training is not compared
        self.item = nn.Embedding(items, size.hidden)
        self.place = nn.Embedding(size.longest, size.hidden)
        nn.init.normal_(self.item.weight, std=0.02)
        nn.init.normal_(self.place.weight, std=0.02)
        block = nn.TransformerEncoderLayer(
            size.hidden,
            size.heads,
            4 * size.hidden,
            size.dropout,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.body = nn.TransformerEncoder(
            block, size.blocks, nn.LayerNorm(size.hidden), enable_nested_tensor=False
        )
        self.drop = nn.Dropout(size.dropout)

    def states(self, items: Tensor) -> Tensor:
        """Hidden states [N, T, H]."""
        length = items.shape[1]
        state = self.drop(
            self.item(items) * self.item.embedding_dim**0.5 + self.place.weight[:length]
        )
        return self.body(
            state, mask=nn.Transformer.generate_square_subsequent_mask(length), is_causal=True
        )

    def loss(self, items: Tensor, real: Tensor) -> Tensor:
        """Mean cross-entropy over the whole catalogue of every item given those before it."""
        state = self.states(items[:, :-1])[real[:, 1:]]
        return nn.functional.cross_entropy(state @ self.item.weight.T, items[:, 1:][real[:, 1:]])

    def trainable(self) -> list[nn.Parameter]:
        """What `descend` trains."""
        return list(self.parameters())

    @torch.inference_mode()
    def last_scores(self, items: Tensor, real: Tensor) -> Tensor:
        """Scores [N, I] of what follows the last real item."""
        state = self.states(items)
        last = state[torch.arange(len(items)), real.sum(1) - 1]
        return last @ self.item.weight.T
