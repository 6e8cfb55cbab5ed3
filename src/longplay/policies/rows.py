"""A page of rows, each filled by a policy of its own; a row can be withheld, so that an experiment's arms show all, parts, or nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from longplay.decisions import Contexts, Decisions, Policy
from longplay.errors import ConfigError, DataError

Float = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Rows:
    """A slate made of rows, one below the other: row by row `slots[name]` items from `policies[name]`.

    `without` leaves rows out: nothing is shown in their place, and what stood below them moves up. Rows draw
    independently of each other, so a row shows the same items whether or not another is withheld, and every
    log-probability is that of the row's own policy: exact. Its policies stay as they are; their
    catalogues must have no item in common.

    >>> from longplay.policies.simple import Uniform
    >>> page = Rows({"known": Uniform(), "new": Uniform()}, {"known": 3, "new": 2})
    >>> page.slate, page.without("new").shown, page.without("known", "new").shown
    (5, ('known',), ())
    """

    policies: Mapping[str, Policy]
    slots: Mapping[str, int]
    withheld: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if not self.policies or set(self.policies) != set(self.slots) or min(self.slots.values()) < 1:
            raise ConfigError(
                f"Rows: policies {', '.join(self.policies)} and slots {dict(self.slots)} given, expected at least one row, each with at least 1 slot"
            )

    @property
    def shown(self) -> tuple[str, ...]:
        """Names of the rows that are shown, from the top."""
        return tuple(name for name in self.policies if name not in self.withheld)

    @property
    def slate(self) -> int:
        """Slots of the whole page, withheld rows included: arms of an experiment are asked for equally many."""
        return sum(self.slots.values())

    @property
    def shorter(self) -> bool:
        """That its slates are shorter than asked for: a world refuses such slates from whoever does not say so."""
        return bool(self.withheld)

    @property
    def history(self) -> int:
        """The most that any row wants to see."""
        return max(policy.history for policy in self.policies.values())

    @property
    def name(self) -> str:
        """`rows@` and a digest of the rows' names, slots and policies, and of which are shown."""
        parts = [[name, self.slots[name], policy.name, name in self.withheld] for name, policy in self.policies.items()]
        return f"rows@{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:8]}"

    def without(self, *names: str) -> Rows:
        """The page without these rows; without all of them it shows nothing.

        Raises:
            ConfigError: no row of that name.
        """
        for name in names:
            if name not in self.policies:
                raise ConfigError(f"Rows: no row {name!r}; expected some of {', '.join(self.policies)}")
        return replace(self, withheld=self.withheld | frozenset(names))

    def decide(self, contexts: Contexts, rng: np.random.Generator) -> Decisions:
        """One slate per context, shorter where rows are withheld, with exact log-probabilities."""
        seed = int(rng.integers(2**63))
        said = [
            self.policies[name].decide(_asking(contexts, self.slots[name], self.policies[name]), np.random.default_rng([seed, row]))
            for row, name in enumerate(self.policies)
            if name not in self.withheld
        ]
        nothing = pl.Series("slate", [[]], dtype=pl.List(pl.String)).new_from_index(0, len(contexts))
        slates = pl.select(pl.concat_list(nothing, *(one.slates for one in said)).alias("slate"))["slate"]
        if (doubled := (slates.list.n_unique() < slates.list.len()).sum()) > 0:
            raise DataError(f"Rows: {doubled:,} of {len(contexts):,} pages hold an item twice; give the rows catalogues without common items")
        log_prob_NS = np.concatenate([np.empty((len(contexts), 0)), *(one.log_prob for one in said)], axis=1)
        return Decisions.of(contexts, slates, log_prob_NS, self.name)

    def log_prob(self, contexts: Contexts, slates: pl.Series) -> Float:
        """Log-probability of every slot given the slots before it, shape [N, slots shown]."""
        parts, first = [np.empty((len(contexts), 0))], 0
        for name in self.shown:
            policy, count = self.policies[name], self.slots[name]
            parts.append(policy.log_prob(_asking(contexts, count, policy), slates.list.slice(first, count)))
            first += count
        return np.concatenate(parts, axis=1)


def _asking(contexts: Contexts, slots: int, policy: Policy) -> Contexts:
    """The same moments, asking for so many slots; the policy reads no more history than it wants."""
    return Contexts(contexts.reading(policy.history).frame.with_columns(slots=pl.lit(slots, dtype=pl.Int32)))
