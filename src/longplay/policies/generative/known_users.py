"""What a service knows of its users, read by the language model as part of the first token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

from longplay.errors import ConfigError
from longplay.lake.known import Scaling, as_matrix
from longplay.lake.lake import Lake

KNOWS = ("users", "items")  # what a policy can be told to read of a service


def check_knows(knows: object) -> None:
    """Refuse what is not some of `KNOWS`.

    Raises:
        ConfigError: it is not.
    """
    if not isinstance(knows, tuple) or any(name not in KNOWS for name in knows):
        raise ConfigError(
            f"Generative: knows={knows!r} given, expected a tuple of some of {', '.join(KNOWS)}"
        )


@dataclass(frozen=True, eq=False)
class KnownUsers:
    """A linear map from users' vectors to the width of the model's states; it is added to the
    embedding of the token that begins a history.

    It begins with zeros, so that an untrained map changes no law. A user of whom nothing is known is
    read as the mean user.

    Attributes:
        scaling: of the vectors' K columns.
        map: K numbers to the width H, without intercept.
    """

    scaling: Scaling
    map: nn.Linear

    @classmethod
    def of(cls, lake: Lake, width: int) -> Self | None:
        """The untrained map for the vectors that the lake has of users now; null where it has
        none."""
        users = lake.descriptions("users")
        newest = users.sort("added_at", maintain_order=True).unique("user_id", keep="last")
        vectors = as_matrix(newest["vector"], newest["user_id"])
        return cls._zeros(Scaling.of(vectors), width) if vectors.shape[1] else None

    @classmethod
    def _zeros(cls, scaling: Scaling, width: int) -> Self:
        linear = nn.Linear(len(scaling.mean_C), width, bias=False)
        nn.init.zeros_(linear.weight)
        return cls(scaling, linear)

    def read(self, user_vector: pl.Series, user_ids: pl.Series) -> Tensor:
        """The scaled vectors of N users, [N, K]; zeros where nothing is known.

        Args:
            user_vector: [N] lists of numbers, or null.
            user_ids: [N] whose they are, for errors.
        """
        return torch.from_numpy(self.scaling.scaled(as_matrix(user_vector, user_ids))).float()

    def with_map(self, learned: nn.Linear) -> Self:
        """The same scaling with a map that was trained."""
        return type(self)(self.scaling, learned)

    def tensors(self) -> dict[str, Tensor]:
        """All numbers, by name, to be saved."""
        return {
            "map": self.map.weight.detach(),
            "mean": torch.from_numpy(self.scaling.mean_C),
            "scale": torch.from_numpy(self.scaling.scale_C),
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Self:
        """What `tensors` gave."""
        scaling = Scaling(
            *(np.asarray(tensors[name].numpy(), dtype=np.float64) for name in ("mean", "scale"))
        )
        known = cls._zeros(scaling, len(tensors["map"]))
        with torch.no_grad():
            known.map.weight.copy_(tensors["map"])
        return known
