"""A page of rows, each filled by its own policy; an experiment can withhold a row."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from longplay.arrays import Float
from longplay.decisions import Contexts, Decisions, Policy, check_one_each, rules_of
from longplay.display import facts_html, facts_text
from longplay.errors import ConfigError, DataError


@dataclass(frozen=True, eq=False)
class Page:
    """A slate made of rows, one below the other: row by row `slots[name]` items from
    `policies[name]`.

    `without` leaves rows out: nothing is shown in their place, and what stood below them moves up.
    Rows draw independently of each other, so a row shows the same items whether or not another is
    withheld, and every log-probability is that of the row's own policy: exact. Its policies stay as
    they are; their catalogues must have no item in common.

    >>> from longplay.policies.simple import Uniform
    >>> page = Page({"known": Uniform(), "new": Uniform()}, {"known": 3, "new": 2})
    >>> page.slate, page.without("new").shown, page.without("known", "new").shown
    (5, ('known',), ())
    """

    policies: Mapping[str, Policy]
    slots: Mapping[str, int]
    withheld: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if (
            not self.policies
            or set(self.policies) != set(self.slots)
            or min(self.slots.values()) < 1
        ):
            raise ConfigError(
                f"Page: policies {', '.join(self.policies)} and slots {dict(self.slots)} given, "
                "expected at least one row, each with at least 1 slot"
            )

    def _facts(self) -> dict[str, str]:
        """A line per row of the page."""
        facts = {}
        for name, policy in self.policies.items():
            if name in self.withheld:
                facts[name] = "withheld"
            else:
                facts[name] = f"{self.slots[name]} slots by {policy.name}"
        return facts

    def __repr__(self) -> str:
        return facts_text(self.name, self._facts())

    def _repr_html_(self) -> str:
        return facts_html(self.name, self._facts())

    @property
    def shown(self) -> tuple[str, ...]:
        """Names of the rows that are shown, from the top."""
        return tuple(name for name in self.policies if name not in self.withheld)

    @property
    def slate(self) -> int:
        """Slots of the whole page, withheld rows included: arms of an experiment are asked for
        equally many."""
        return sum(self.slots.values())

    @property
    def shorter(self) -> bool:
        """That its slates are shorter than asked for: a world refuses such slates from whoever does
        not say so."""
        return bool(self.withheld)

    @property
    def history(self) -> int:
        """The most that any row wants to see."""
        return max(policy.history for policy in self.policies.values())

    @property
    def trained_under(self) -> Mapping[str, str]:
        """The rules of exclusions that its policies were trained under, of those that say so."""
        return rules_of(self.policies.values())

    @property
    def name(self) -> str:
        """`rows@` and a digest of the rows' names, slots and policies, and of which are shown."""
        parts = [
            [name, self.slots[name], policy.name, name in self.withheld]
            for name, policy in self.policies.items()
        ]
        return f"rows@{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:8]}"

    def without(self, *names: str) -> Page:
        """The page without these rows; without all of them it shows nothing.

        Raises:
            ConfigError: no row of that name.
        """
        for name in names:
            if name not in self.policies:
                raise ConfigError(
                    f"Page: no row {name!r}; expected some of {', '.join(self.policies)}"
                )
        return replace(self, withheld=self.withheld | frozenset(names))

    def decide(self, contexts: Contexts, rng: np.random.Generator) -> Decisions:
        """One slate per context, with exact log-probabilities: the top of the page, as far as the
        contexts have slots.

        Shorter than asked for where rows are withheld or the page has fewer slots.

        Raises:
            DataError: a row cannot fill its slots, or two rows have an item in common.
        """
        seed = int(rng.integers(2**63))
        slots = contexts.slots if len(contexts) else self.slate
        numbers = {name: row for row, name in enumerate(self.policies)}
        parts = [
            self.policies[name].decide(
                _asking(contexts, count, self.policies[name]),
                np.random.default_rng([seed, numbers[name]]),
            )
            for name, count in self._asked(slots)
        ]
        nothing = pl.Series("slate", [[]], dtype=pl.List(pl.String)).new_from_index(
            0, len(contexts)
        )
        slates = pl.select(
            pl.concat_list(nothing, *(part.slates for part in parts)).alias("slate")
        )["slate"]
        if (doubled := (slates.list.n_unique() < slates.list.len()).sum()) > 0:
            raise DataError(
                f"Page: {doubled:,} of {len(contexts):,} pages hold an item twice; give the rows "
                "catalogues without common items"
            )
        log_prob_NS = np.concatenate(
            [np.empty((len(contexts), 0)), *(part.log_prob for part in parts)], axis=1
        )
        return Decisions.of(contexts, slates, log_prob_NS, self.name)

    def log_prob(self, contexts: Contexts, slates: pl.Series) -> Float:
        """Log-probability of every slot given the slots before it, shape [N, S]; -inf from the
        first slot on that the page does not have.

        Raises:
            DataError: not one slate per context, slates of different lengths, or an item that is
                not of its row.
        """
        check_one_each(contexts, slates)
        lengths = slates.list.len().unique().to_list()
        if len(lengths) > 1:
            raise DataError(f"slates: lengths {sorted(lengths)} in one call, expected one length")
        slots = int(lengths[0]) if lengths else 0
        parts = [np.empty((len(contexts), 0))]
        first = 0
        for name, count in self._asked(slots):
            policy = self.policies[name]
            parts.append(
                policy.log_prob(_asking(contexts, count, policy), slates.list.slice(first, count))
            )
            first += count
        parts.append(np.full((len(contexts), slots - first), -np.inf))
        return np.concatenate(parts, axis=1)

    def _asked(self, slots: int) -> list[tuple[str, int]]:
        """The rows that are shown in so many slots, from the top, and how many slots each has."""
        slots_of_row = []
        left = slots
        for name in self.shown:
            count = min(self.slots[name], left)
            if count:
                slots_of_row.append((name, count))
            left -= count
        return slots_of_row


def _asking(contexts: Contexts, slots: int, policy: Policy) -> Contexts:
    """The same moments, asking for so many slots; the policy reads no more history than it
    wants."""
    return contexts.reading(policy.history).with_slots(slots)
