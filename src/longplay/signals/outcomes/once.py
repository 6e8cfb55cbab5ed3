"""A creator can be discovered only once: what later slots of a slate can still add."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def left_by_slots_above(
    key_NS: NDArray[np.int64], caused_NS: Array
) -> tuple[Array, NDArray[np.bool_]]:
    """The probability that no slot above has caused the entry of a slot's key, and whether there is
    such a slot; both [N, S].

    Slots cause entries independently: for slot k it is the product of 1 - c_j over the slots j
    above it with the same key.

    Args:
        key_NS: number of the creator or item that each slot is about; below 0: unknown, and equal
            to no other.
        caused_NS: the probability that the slot causes an entry where nothing else does, 0 to 1.

    >>> left, repeated = left_by_slots_above(np.array([[7, 7, 2, 7]]), np.array([[0.5, 0.4, 0.3, 0.2]]))
    >>> left.round(3).tolist(), repeated.tolist()
    ([[1.0, 0.5, 1.0, 0.3]], [[False, True, False, True]])
    """
    left_NS = np.ones(key_NS.shape)
    repeated_NS = np.zeros(key_NS.shape, dtype=bool)
    for slot in range(1, key_NS.shape[1]):
        same_NJ = (key_NS[:, :slot] == key_NS[:, slot, None]) & (key_NS[:, slot, None] >= 0)
        left_NS[:, slot] = np.where(same_NJ, 1.0 - caused_NS[:, :slot], 1.0).prod(axis=1)
        repeated_NS[:, slot] = same_NJ.any(axis=1)
    return left_NS, repeated_NS
