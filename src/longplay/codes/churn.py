"""How much a new codebook moves the items of an older one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from longplay.codes.codebook import Codebook
from longplay.errors import DataError


@dataclass(frozen=True)
class Churn:
    """What became of the items that two codebooks share.

    Attributes:
        items: how many they share.
        changed: per level, the share of them whose code is another number.
        regrouped: per level, the share of them that left the items they had this code with: as
            `changed`, after the numbers of the level were matched as well as can be. k-means
            numbers its codes anew at every fit, so `changed` is near 1 even where no item moves.
    """

    items: int
    changed: tuple[float, ...]
    regrouped: tuple[float, ...]

    def __str__(self) -> str:
        levels = ", ".join(f"{share:.0%}" for share in self.regrouped)
        return f"{self.items:,} items in both codebooks; regrouped by level: {levels}"


def code_churn(older: Codebook, newer: Codebook) -> Churn:
    """How many of the items in both codebooks have another code, level by level.

    Raises:
        DataError: another number of levels, or no item in both.
    """
    if older.levels != newer.levels:
        raise DataError(
            f"churn: codebooks of {older.levels} and {newer.levels} levels given, expected "
            "equally many"
        )
    leaf_I = older.index.rows(newer.items)
    is_shared_I = leaf_I >= 0
    shared = int(is_shared_I.sum())
    if shared == 0:
        raise DataError("churn: the codebooks share no item; give two of the same service")
    was = older.codes[leaf_I[is_shared_I]]
    now = newer.codes[is_shared_I]
    return Churn(
        shared,
        tuple(float((was[:, level] != now[:, level]).mean()) for level in range(older.levels)),
        tuple(1 - _matched(was[:, level], now[:, level]) / shared for level in range(older.levels)),
    )


def _matched(was_I: NDArray[np.int64], now_I: NDArray[np.int64]) -> int:
    """Items whose code is the match of their earlier one, under the one-to-one matching of numbers
    that keeps most.

    >>> _matched(np.array([0, 0, 1, 1]), np.array([5, 5, 0, 5]))
    3
    """
    count = np.zeros((was_I.max() + 1, now_I.max() + 1), dtype=np.int64)
    np.add.at(count, (was_I, now_I), 1)
    return int(count[linear_sum_assignment(count, maximize=True)].sum())
