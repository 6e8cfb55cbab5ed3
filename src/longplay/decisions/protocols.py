"""What callers may ask of a policy, one protocol per question."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol, runtime_checkable

import numpy as np
import polars as pl
from numpy.typing import NDArray

from longplay.decisions.contexts import Contexts
from longplay.decisions.slates import Decisions
from longplay.index import ItemIndex

DEFAULT_SLOTS = 5  # of a policy that does not say how many it shows


@runtime_checkable
class Policy(Protocol):
    """What every policy can do: decide slates, and state the log-probability of any slate.

    `history` is the number of past item ids the policy wants to see in a context (0: none). Every
    policy of longplay keeps this contract (tests/test_policy_contract.py): no item twice in a
    slate, no excluded and no unavailable one; contexts without slots get empty slates; and where a
    slate cannot be filled, or an item is not in its catalogue, a `DataError` says so.
    """

    @property
    def name(self) -> str:
        """`name@version`: the version changes when any probability could."""
        ...

    @property
    def history(self) -> int:
        """Number of past item ids that it reads in a context."""
        ...

    def decide(self, contexts: Contexts, rng: np.random.Generator) -> Decisions:
        """One slate per context, drawn with `rng`, with exact log-probabilities."""
        ...

    def log_prob(self, contexts: Contexts, slates: pl.Series) -> NDArray[np.float64]:
        """Log-probability of every slot given the slots before it, shape [N, S].

        -inf in the slot of an item that cannot be shown, and from the slot on that repeats an item.
        """
        ...


@runtime_checkable
class Slated(Protocol):
    """A policy that says how many slots it shows by default."""

    @property
    def slate(self) -> int:
        """Slots that a world or a service asks for by default, at least 1."""
        ...


@runtime_checkable
class MayShowFewer(Protocol):
    """A policy that says whether its slates may be shorter than asked for."""

    @property
    def shorter(self) -> bool:
        """Whether its slates may be shorter than asked for."""
        ...


@runtime_checkable
class Catalogued(Protocol):
    """A policy that says which items it can show."""

    @property
    def index(self) -> ItemIndex | None:
        """Its items; None where it cannot say."""
        ...


@runtime_checkable
class Ranker(Protocol):
    """Anything that scores its whole catalogue for a context."""

    @property
    def index(self) -> ItemIndex:
        """Item ids <-> columns of the scores."""
        ...

    def item_log_prob(self, contexts: Contexts) -> NDArray[np.float64]:
        """Scores [N, I]; -inf where an item cannot be shown."""
        ...


@runtime_checkable
class Adaptive(Protocol):
    """A policy that takes over the catalogue, learns, or both, between decisions; a service (or the
    world) calls `adapt` before the first decision and once a day."""

    def adapt(self, items: pl.DataFrame, events: pl.DataFrame) -> Policy:
        """The next version, after the catalogue became `items` and `events` arrived since the last
        call."""
        ...


@runtime_checkable
class Trained(Protocol):
    """A policy that was trained under a rule of exclusions, or holds policies that were."""

    @property
    def trained_under(self) -> Mapping[str, str]:
        """Policy name -> rule: seen, creator or none."""
        ...


@runtime_checkable
class ReadsShowings(Protocol):
    """A policy that reads what was shown to the user before (`shown` and `shown_time`)."""

    @property
    def showings(self) -> int:
        """Number of past showings that it reads in a context; 0: none."""
        ...


@runtime_checkable
class ReadsUsers(Protocol):
    """A policy that reads what the service knows of users (`user_vector`, `user_attributes`)."""

    @property
    def reads_users(self) -> bool:
        """Whether it reads what the service knows of the user of a context."""
        ...


def showings_of(policy: object) -> int:
    """Number of past showings that a policy reads in a context; 0 where it does not say."""
    return policy.showings if isinstance(policy, ReadsShowings) else 0


def reads_users(policy: object) -> bool:
    """Whether a policy says that it reads what the service knows of users."""
    return isinstance(policy, ReadsUsers) and policy.reads_users


def as_read(policy: Policy, contexts: Contexts) -> Contexts:
    """The contexts with no more of their users than a policy reads: its length of history, its number
    of past showings, and what the service knows of users only where it says that it reads that.

    A caller that makes contexts for several policies at once hands each its part.
    """
    showings = showings_of(policy)
    hidden = []
    if showings == 0:
        hidden += ["shown", "shown_time"]
    if not reads_users(policy):
        hidden += ["user_vector", "user_attributes"]
    return contexts.reading(policy.history, showings).without(hidden)


def slots_of(policy: object) -> int:
    """Number of slots to ask a policy for: what it states, else `DEFAULT_SLOTS`."""
    return policy.slate if isinstance(policy, Slated) else DEFAULT_SLOTS


def shows_fewer(policy: object) -> bool:
    """Whether a policy says that its slates may be shorter than asked for."""
    return isinstance(policy, MayShowFewer) and policy.shorter


def index_of(policy: object) -> ItemIndex | None:
    """The items that a policy can show; null where it does not say."""
    if not isinstance(policy, Catalogued):
        return None
    # a policy that is not longplay's may use this name for something else
    return policy.index if isinstance(policy.index, ItemIndex) else None


def rules_of(policies: Iterable[object]) -> dict[str, str]:
    """The rules of exclusions that these policies were trained under, by policy name, for those
    that state one."""
    return {
        name: rule
        for policy in policies
        if isinstance(policy, Trained)
        for name, rule in policy.trained_under.items()
    }
