"""Who gets which arm: a keyed hash of (salt, user), so that a user keeps an arm without anybody remembering it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from longplay.chance import keyed_uniform


def assign(salt: str, user_ids: pl.Series, shares: Sequence[float]) -> NDArray[np.int64]:
    """Arm number of each user, shape [N]: arm k for a share `shares[k]` of all users (positive, summing to 1).

    Decided by (salt, user) alone: the same on every machine, in any batch, and independent between salts.
    Growing one arm at the cost of its neighbour moves only the users between their edges.

    >>> users = pl.Series([f"u{n}" for n in range(1000)])
    >>> [int(n) for n in np.bincount(assign("2026-11", users, [0.9, 0.1]))]
    [890, 110]
    """
    edges = np.cumsum(shares)[:-1]  # without the last: the rounding of a sum must not leave anybody without an arm
    return np.searchsorted(edges, keyed_uniform(f"longplay: experiment {salt}", user_ids), side="right").astype(np.int64)
