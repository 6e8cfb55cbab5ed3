"""Random numbers as a function of a key: the same key gives the same number, in any order and any
batch.

Assignment to arms, held-out users, the draws of policies and the luck of simulated listeners all
rest on it, so that adding rows, chunking work or starting again changes nobody's numbers. Strings
are hashed by keyed BLAKE2b (Aumasson et al. 2013), counters mixed by splitmix64 (Steele, Lea &
Flood 2014).
"""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
from numpy.typing import ArrayLike, NDArray

from longplay.frames import Column
from longplay.ids import ids_of

Float = NDArray[np.float64]
UInt = NDArray[np.uint64]

GAMMA = np.uint64(0x9E3779B97F4A7C15)


def mix(z: UInt) -> UInt:
    """Splitmix64's finaliser: 64 bits that look unrelated for related inputs; a bijection."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def uniform(bits: UInt) -> Float:
    """Numbers in (0, 1) from uniform bits, same shape: 53 bits at half steps, so never 0 and never
    1."""
    return ((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def keyed_bits(key: str, ids: Column) -> UInt:
    """64 bits per id, a function of (key, id) alone, shape [N]; stable over versions, machines and
    batches.

    Args:
        key: what the numbers are for.
        ids: a column of ids, whatever its type: 12345, 12345.0 and "12345" are one id (see
            `longplay.ids`).

    Raises:
        DataError: an id that is missing or has no exact text.
    """
    salt = blake2b(
        key.encode(), digest_size=32
    ).digest()  # a BLAKE2 key has at most 64 bytes; a name may be longer
    digests = b"".join(
        [
            blake2b(id_text.encode(), digest_size=8, key=salt).digest()
            for id_text in ids_of(ids, "ids").to_list()
        ]
    )
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def keyed_uniform(key: str, ids: Column) -> Float:
    """A uniform number in (0, 1) per id, a function of (key, id) alone, shape [N].

    >>> users = ["u1", "u2"]
    >>> bool((keyed_uniform("2026-11", users) == keyed_uniform("2026-11", users[::-1])[::-1]).all())
    True
    """
    return uniform(keyed_bits(key, ids))


class RowChance:
    """Independent uniform streams, one per row, each addressed by a counter: draw `k` of row `r` is
    always the same number.

    >>> rows = RowChance(np.array([3, 9], dtype=np.uint64))
    >>> bool(rows.uniform(np.array([1]), 5)[0] == rows.uniform(np.array([0, 1]), 5)[1])
    True
    """

    def __init__(self, base_N: UInt) -> None:
        self.base_N = base_N

    def __len__(self) -> int:
        return len(self.base_N)

    def take(self, rows: NDArray[np.integer]) -> RowChance:
        """The streams of these rows, in that order."""
        return RowChance(self.base_N[rows])

    def uniform(self, rows: NDArray[np.integer], k: ArrayLike) -> Float:
        """Draw `k` (>= 0) of each of `rows[M]`; `k` broadcasts with shape [M, 1, ..] where it has
        more axes than one."""
        k_ = np.asarray(k).astype(np.uint64)
        base = self.base_N[rows]
        base = base.reshape(base.shape + (1,) * max(k_.ndim - base.ndim, 0))
        with np.errstate(over="ignore"):
            return uniform(mix(base ^ (k_ * GAMMA + GAMMA)))

    def gumbel(self, rows: NDArray[np.integer], k: ArrayLike) -> Float:
        """Standard Gumbel noise, as `uniform`."""
        return -np.log(-np.log(self.uniform(rows, k)))
