"""The network: a causal transformer over a user's events, and two cheap heads.

The state of a moment is encoded once, candidates once per catalogue. What a moment and a candidate come
to together is one scalar product for each head, so a pair costs as much as in matrix factorisation.

Axes: B windows, L places, N moments, I candidates, R learnt coordinates of a head, C coordinates: R, two
that are added, and those of vectors that users and items share.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from longplay.arrays import Float, Int
from longplay.lake.daily import DAY_US
from longplay.lake.schema import KINDS, ORIGINS
from longplay.rewards.sequence.event_tokens import EarlierEvents

RANK = 16  # coordinates of a head
LAYERS = 2
HEADS = 2
MOMENT = 4  # columns of `moment_features`
PLAY, ENTRY = 0, 1  # the heads: is it played, and what does an entry come to


@dataclass(frozen=True)
class Shape:
    """What a network is built for.

    Attributes:
        width: of the transformer.
        surfaces: number of surfaces that are told apart.
        keys: number of creators (or items).
        content: columns of what is known of items.
        user: columns of users' vectors.
        shared: how many columns, the last of `content` and all of `user`, may be of one space; 0: none.
    """

    width: int
    surfaces: int
    keys: int
    content: int
    user: int
    shared: int = 0


class Batch(NamedTuple):
    """Windows as padded tensors, each [B, L]."""

    kind: Tensor
    surface: Tensor
    origin: Tensor
    key: Tensor
    item: Tensor
    gap: Tensor
    day: Tensor


def as_batch(events: EarlierEvents) -> Batch:
    """The events of each window, padded at the end."""
    lengths = events.lengths
    width = int(lengths.max(initial=0))
    owner = events.owners
    place = np.arange(len(owner)) - events.offsets[owner]
    first_N = (
        events.time_P[np.minimum(events.offsets[:-1], max(len(owner) - 1, 0))]
        if len(owner)
        else None
    )

    def padded(values_P: Int | Float, dtype: torch.dtype) -> Tensor:
        cells = np.zeros((len(events), width), dtype=np.float64)
        cells[owner, place] = values_P
        return torch.as_tensor(cells).to(dtype)

    day_P = np.zeros(0) if first_N is None else (events.time_P - first_N[owner]) / DAY_US
    return Batch(
        padded(events.kind_P, torch.long),
        padded(events.surface_P, torch.long),
        padded(events.origin_P, torch.long),
        padded(events.key_P + 1, torch.long),
        padded(events.item_P, torch.long),
        padded(np.log1p(events.gaps()), torch.float32),
        padded(day_P, torch.float32),
    )


class Block(nn.Module):
    """A layer of attention and a feed-forward one, each normalised before. Attention fades with the
    days between events."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(width)
        self.norm_forward = nn.LayerNorm(width)
        self.projections = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.forward_in = nn.Linear(width, 2 * width)
        self.forward_out = nn.Linear(2 * width, width)
        self.fading = nn.Parameter(torch.tensor([-2.0, 0.0]))

    def forward(self, x: Tensor, apart: Tensor, ahead: Tensor) -> Tensor:
        """The next states, [B, L, W].

        Args:
            x: states.
            apart: log of the days between events, [B, L, L].
            ahead: whether the second event comes after the first, [L, L].
        """
        batch, length, width = x.shape
        parts = self.projections(self.norm_attention(x)).view(batch, length, 3, HEADS, -1)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        scores = query @ key.transpose(-1, -2) / (width / HEADS) ** 0.5
        fading = functional.softplus(self.fading)[None, :, None, None]
        scores = scores - fading * apart[:, None]
        scores = scores.masked_fill(ahead, -torch.inf)
        mixed = (scores.softmax(-1) @ value).transpose(1, 2).reshape(batch, length, width)
        x = x + self.out(mixed)
        return x + self.forward_out(functional.gelu(self.forward_in(self.norm_forward(x))))


class Tower(nn.Module):
    """A straight and a bent map from what is known to the coordinates of both heads."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.straight = nn.Linear(inputs, 2 * (RANK + 1))
        self.bent_in = nn.Linear(inputs, width)
        self.bent_out = nn.Linear(width, 2 * (RANK + 1))

    def forward(self, x: Tensor) -> Tensor:
        """Coordinates of both heads, [..., 2, R + 1]; the last is not multiplied."""
        bent = self.bent_out(functional.gelu(self.bent_in(x)))
        return (self.straight(x) + bent).unflatten(-1, (2, RANK + 1))


class SequenceNetwork(nn.Module):
    """States of moments, coordinates of candidates.

    Args:
        shape: what it is built for.
        content_IC: what is known of items; a last row of zeros for unknown ones.
    """

    content_IC: Tensor

    def __init__(self, shape: Shape, content_IC: Float) -> None:
        super().__init__()
        width = shape.width
        self.register_buffer("content_IC", torch.as_tensor(content_IC, dtype=torch.float32))
        self.kinds = nn.Embedding(len(KINDS) + 1, width)
        self.surfaces = nn.Embedding(shape.surfaces + 1, width)
        self.origins = nn.Embedding(len(ORIGINS) + 1, width)
        self.keys = nn.Embedding(shape.keys + 1, width)
        self.content = nn.Linear(shape.content + 1, width)  # and the gap
        self.begin = nn.Parameter(0.1 * torch.randn(width))
        self.blocks = nn.ModuleList([Block(width) for _ in range(LAYERS)])
        self.norm = nn.LayerNorm(width)
        self.shared = shape.shared
        self.coordinates = RANK + 2 + shape.shared
        self.match = nn.Parameter(torch.zeros(2, 1))  # weight of the product of vectors, by head
        self.organic = nn.Parameter(torch.zeros(()))  # what is added where the user came unasked
        self.moments = Tower(width + MOMENT + shape.user, width)
        self.candidates = Tower(width + shape.content, width)
        for embedding in (self.kinds, self.surfaces, self.origins, self.keys):
            nn.init.normal_(embedding.weight, std=0.1)
            with torch.no_grad():  # unknown ones are as others are on average
                embedding.weight[0].zero_()
        # at first nothing is added to what is believed without the sequence
        for last in (self.candidates.straight, self.candidates.bent_out):
            nn.init.normal_(last.weight, std=0.01)
            nn.init.zeros_(last.bias)
        for last in (self.moments.straight, self.moments.bent_out):
            nn.init.zeros_(last.bias)
            with torch.no_grad():  # what is added to every candidate alike starts at 0
                last.weight.view(2, RANK + 1, -1)[:, RANK].zero_()

    def states(self, batch: Batch) -> Tensor:
        """The state before the first event and after each, [B, L + 1, W]; none sees a later event."""
        x = (
            self.kinds(batch.kind)
            + self.surfaces(batch.surface)
            + self.origins(batch.origin)
            + self.keys(batch.key)
            + self.content(torch.cat([self.content_IC[batch.item], batch.gap[..., None]], -1))
        )
        windows, places = batch.kind.shape
        x = torch.cat([self.begin.expand(windows, 1, -1), x], 1)
        day = torch.cat([torch.zeros(windows, 1), batch.day], 1)
        apart = torch.log1p((day[:, :, None] - day[:, None, :]).clamp_min(0))
        ahead = torch.ones(places + 1, places + 1, dtype=torch.bool).triu(1)
        for block in self.blocks:
            x = block(x, apart, ahead)
        return self.norm(x)

    def of_moments(self, state: Tensor, moment: Tensor, user: Tensor) -> Tensor:
        """Coordinates of moments for both heads, [N, 2, C].

        Args:
            state: their states, [N, W].
            moment: see `event_tokens.moment_features`.
            user: what the service knows of their users.
        """
        learnt = self.moments(torch.cat([state, moment, user], -1))
        vector = user[:, None, user.shape[1] - self.shared :] * self.match
        one = torch.ones_like(learnt[..., :1])
        return torch.cat([learnt[..., :RANK] / RANK**0.5, learnt[..., RANK:], one, vector], -1)

    def of_candidates(self, item: Tensor, key: Tensor) -> Tensor:
        """Coordinates of candidates for both heads, [I, 2, C]. A pair's score is their scalar product with
        those of the moment.

        Args:
            item: item rows, -1 unknown.
            key: rows of creators (or items), -1 unknown.
        """
        content = self.content_IC[item]
        learnt = self.candidates(torch.cat([self.keys(key + 1), content], -1))
        vector = content[:, None, content.shape[1] - self.shared :].expand(-1, 2, -1)
        one = torch.ones_like(learnt[..., :1])
        return torch.cat([learnt[..., :RANK], one, learnt[..., RANK:], vector], -1)
