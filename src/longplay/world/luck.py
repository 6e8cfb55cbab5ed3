"""Random numbers of the world, as a function of who, when and what for.

A draw is keyed by (seed, stream, who, day, k). So a user's luck does not change when users are
added, when work is chunked, or when another policy acts: two runs of a world share it (common
random numbers), and a pair of simulated branches differs only by what was done.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from longplay.arrays import Float
from longplay.chance import GAMMA, mix, uniform

UInt = NDArray[np.uint64]

_STREAM = np.uint64(0xD1B54A32D192ED03)
_KEY = np.uint64(0x8CB92BA72F3D8DD7)


class Stream(IntEnum):
    """The purpose of a draw. Draws of different streams are independent."""

    TRAIT = 1
    VISIT = 2
    HOUR = 3
    CLICK = 4
    ORGANIC = 5
    REPEAT = 6
    ITEM = 7
    DISCOVER = 8
    GENRE = 9
    CREATOR = 10
    CHURN = 11
    SECONDS = 12
    START = 13
    ORGANIC_ITEM = 14
    SHELF = 15
    SHELF_ITEM = 16
    RESULT = 17
    PICK = 18
    LOOP = 19
    AFTER = 20
    LIKING = 21
    SHELF_PLACE = 22
    FASHION = 23
    LABEL = 24
    USER_FACTOR = 25
    ITEM_FACTOR = 26


@dataclass(frozen=True)
class DayLuck:
    """The random numbers of R agents on one day. `base_R` is mixed from seed, agent and day."""

    base_R: UInt

    def take(self, rows: NDArray[np.integer]) -> DayLuck:
        """The random numbers of these rows, in that order; rows may repeat."""
        return DayLuck(self.base_R[rows])

    def uniform(self, stream: Stream, k: ArrayLike = 0) -> Float:
        """Uniform draws in (0, 1), shape [R] broadcast with `k` (so k of shape [1, K] or [R, K]
        needs no reshaping)."""
        k_ = np.asarray(k).astype(np.uint64)
        base = self.base_R[:, None] if k_.ndim == 2 else self.base_R
        with np.errstate(over="ignore"):
            return uniform(mix(base ^ (np.uint64(int(stream)) * _STREAM) + k_ * _KEY))

    def normal(self, stream: Stream, k: ArrayLike = 0) -> Float:
        """Standard normal draws, in the same shapes as `uniform`."""
        return ndtri(self.uniform(stream, k))


@dataclass(frozen=True)
class Luck:
    """All random numbers of one world.

    >>> luck = Luck(seed=7)
    >>> few, many = luck.on(np.arange(2), day=3), luck.on(np.arange(9), day=3)
    >>> bool((few.uniform(Stream.CLICK, 1) == many.uniform(Stream.CLICK, 1)[:2]).all())
    True
    """

    seed: int

    def on(self, key_R: NDArray[np.integer], day: int) -> DayLuck:
        """The random numbers on `day` (any integer) of the agents with the keys `key_R` (user
        numbers, or keys from `copies`)."""
        with np.errstate(over="ignore"):
            seeded = mix(np.array([self.seed & (2**64 - 1)], dtype=np.uint64) + GAMMA)
            agent_R = mix(seeded + np.asarray(key_R).astype(np.uint64) * GAMMA)
            return DayLuck(mix(agent_R + np.uint64(day & (2**64 - 1)) * GAMMA))

    @staticmethod
    def copies(user_R: NDArray[np.integer], replicate_R: NDArray[np.integer]) -> UInt:
        """Keys of virtual copies of users, whose random numbers differ from the user's and from
        other copies'."""
        with np.errstate(over="ignore"):
            return mix(
                np.asarray(user_R).astype(np.uint64) * _KEY
                + (np.asarray(replicate_R).astype(np.uint64) + np.uint64(1)) * _STREAM
            )
