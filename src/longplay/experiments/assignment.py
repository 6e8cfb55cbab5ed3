"""Assignment of users to arms by a keyed hash of (salt, user), so that no table is needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from longplay.chance import keyed_uniform
from longplay.frames import Column
from longplay.ids import ids_of


class Design(Protocol):
    """The design of an experiment, as its analysis needs it; an `Experiment` is one."""

    @property
    def label(self) -> str:
        """The name of the experiment in the log."""
        ...

    @property
    def salt(self) -> str:
        """The salt of the hash."""
        ...

    @property
    def hashed(self) -> bool:
        """Whether users are assigned by the hash of a known salt."""
        ...

    @property
    def arm_names(self) -> tuple[str, ...]:
        """Names of the arms, the control first."""
        ...

    @property
    def shares(self) -> tuple[float, ...]:
        """Share of users of each arm."""
        ...

    @property
    def entry_days(self) -> int:
        """Days from a user's first exposure in which entries of signals count."""
        ...


def assign(salt: str, user_ids: Column, shares: Sequence[float]) -> NDArray[np.int64]:
    """Arm number of each user, shape [N]: arm k for a share `shares[k]` of all users (positive,
    summing to 1).

    Decided by (salt, user) alone: the same on every machine, in any batch, and independent between
    salts. Growing one arm at the cost of its neighbour moves only the users between their edges.

    Args:
        salt: what the hash is keyed with.
        user_ids: [N] ids as a list, a numpy array, or a Series of polars or pandas. Their type does
            not matter: 12345, 12345.0 and "12345" are one user (see `longplay.ids`).
        shares: of each arm.

    >>> users = [f"u{n}" for n in range(1000)]
    >>> [int(n) for n in np.bincount(assign("2026-11", users, [0.9, 0.1]))]
    [890, 110]
    >>> len({int(assign("2026-11", [user], [0.5, 0.5])[0]) for user in (12345, 12345.0, "12345", np.int64(12345))})
    1

    Raises:
        DataError: an id that is missing or has no exact text, such as a truth value or a float from
            2**53 on.
    """
    edges = np.cumsum(shares)[
        :-1
    ]  # without the last: the rounding of a sum must not leave anybody without an arm
    return np.searchsorted(
        edges, keyed_uniform(f"longplay: experiment {salt}", ids_of(user_ids)), side="right"
    ).astype(np.int64)
