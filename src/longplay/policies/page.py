"""A page of rows, each filled by its own policy; an experiment can withhold a row."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from longplay.arrays import Float
from longplay.decisions import (
    Contexts,
    Decisions,
    Policy,
    as_read,
    check_one_each,
    reads_users,
    rules_of,
    showings_of,
)
from longplay.display import facts_html, facts_text
from longplay.errors import ConfigError, DataError


@dataclass(frozen=True, eq=False)
class Page:
    """A slate made of rows, top to bottom: `slots[name]` items from `policies[name]` for each row.

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
        """Slots of the whole page, withheld rows included, since all arms of an experiment are
        asked for equally many."""
        return sum(self.slots.values())

    @property
    def shorter(self) -> bool:
        """Whether slates may be shorter than asked for: yes where rows are withheld. A world
        refuses short slates from policies that do not say so."""
        return bool(self.withheld)

    @property
    def history(self) -> int:
        """The longest history that any of its policies reads."""
        return max(policy.history for policy in self.policies.values())

    @property
    def showings(self) -> int:
        """The largest number of past showings that any row reads."""
        return max(map(showings_of, self.policies.values()))

    @property
    def reads_users(self) -> bool:
        """Whether any row reads what the service knows of users."""
        return any(map(reads_users, self.policies.values()))

    @property
    def trained_under(self) -> Mapping[str, str]:
        """The rules of exclusions that its policies were trained under, for those that state
        one."""
        return rules_of(self.policies.values())

    @property
    def name(self) -> str:
        """`rows@` and a digest of the rows' names, slots and policies, and of which rows are
        shown."""
        parts = [
            [name, self.slots[name], policy.name, name in self.withheld]
            for name, policy in self.policies.items()
        ]
        return f"rows@{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:8]}"

    def without(self, *names: str) -> Page:
        """The page with these rows withheld; with all of them withheld it shows nothing.

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
        """One slate per context, with exact log-probabilities: as many slots from the top of the
        page as the context asks for.

        Shorter than asked for where rows are withheld or the page has fewer slots.

        Raises:
            DataError: a row cannot fill its slots, or two rows have an item in common.
        """
        seed = int(rng.integers(2**63))
        slots = contexts.slots if len(contexts) else self.slate
        numbers = {name: row for row, name in enumerate(self.policies)}
        parts = [
            self.policies[name].decide(
                _with_slots(contexts, count, self.policies[name]),
                np.random.default_rng([seed, numbers[name]]),
            )
            for name, count in self._rows_within(slots)
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
        """Log-probability of every slot given the slots before it, shape [N, S]; -inf in slots
        beyond those of the page.

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
        for name, count in self._rows_within(slots):
            policy = self.policies[name]
            parts.append(
                policy.log_prob(
                    _with_slots(contexts, count, policy), slates.list.slice(first, count)
                )
            )
            first += count
        parts.append(np.full((len(contexts), slots - first), -np.inf))
        return np.concatenate(parts, axis=1)

    def _rows_within(self, slots: int) -> list[tuple[str, int]]:
        """The rows shown in the first `slots` slots, from the top, and the number of slots of
        each."""
        slots_of_row = []
        left = slots
        for name in self.shown:
            count = min(self.slots[name], left)
            if count:
                slots_of_row.append((name, count))
            left -= count
        return slots_of_row


def _with_slots(contexts: Contexts, slots: int, policy: Policy) -> Contexts:
    """The same contexts with so many slots, and no more of their users than the policy reads."""
    return as_read(policy, contexts).with_slots(slots)
