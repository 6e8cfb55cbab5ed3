"""A policy that stays as it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from longplay.decisions.contexts import Contexts
from longplay.decisions.protocols import (
    Policy,
    index_of,
    reads_users,
    rules_of,
    showings_of,
    shows_fewer,
    slots_of,
)
from longplay.decisions.slates import Decisions
from longplay.display import facts_html
from longplay.index import ItemIndex


@dataclass(frozen=True, eq=False)
class Frozen:
    """A policy that no longer adapts, whatever a world or a service would let it do. An
    experiment's control should be one."""

    policy: Policy

    def _repr_html_(self) -> str:
        return facts_html(self.name, {"adapts": "no: it stays as it is"})

    @property
    def name(self) -> str:
        """The policy's own name."""
        return self.policy.name

    @property
    def history(self) -> int:
        """Past item ids it wants to see in a context."""
        return self.policy.history

    @property
    def showings(self) -> int:
        """Past showings it reads in a context."""
        return showings_of(self.policy)

    @property
    def reads_users(self) -> bool:
        """Whether it reads what the service knows of users."""
        return reads_users(self.policy)

    @property
    def slate(self) -> int:
        """Slots a world or a service asks for by default."""
        return slots_of(self.policy)

    @property
    def trained_under(self) -> Mapping[str, str]:
        """The rule of exclusions that the policy was trained under, where it states one."""
        return rules_of([self.policy])

    @property
    def shorter(self) -> bool:
        """Whether the policy shows less than is asked for."""
        return shows_fewer(self.policy)

    @property
    def index(self) -> ItemIndex | None:
        """The policy's catalogue, where it states one."""
        return index_of(self.policy)

    def decide(self, contexts: Contexts, rng: np.random.Generator) -> Decisions:
        """One slate per context, with exact log-probabilities."""
        return self.policy.decide(contexts, rng)

    def log_prob(self, contexts: Contexts, slates: pl.Series) -> NDArray[np.float64]:
        """Log-probability of every slot given the slots before it, shape [N, S]."""
        return self.policy.log_prob(contexts, slates)
