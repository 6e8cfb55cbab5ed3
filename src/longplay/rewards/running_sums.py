"""Sums over rows of a log up to a moment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from longplay.arrays import Float, Int
from longplay.index import distinct_keys


@dataclass(frozen=True, eq=False)
class RunningSums:
    """Running sums by row and time. Axes: P additions, C columns, N look-ups.

    Attributes:
        moments: distinct times, microseconds, ascending.
        code_P: row and time of each addition as a single number, ascending.
        sum_PC: sums up to each addition, over all rows; the first are 0: [P + 1, C].

    >>> sums = RunningSums.of(np.array([1, 0, 1]), np.array([5, 5, 9]), np.array([[2.0], [7.0], [3.0]]))
    >>> sums.until(np.array([1, 1, 1, -1]), np.array([4, 5, 9, 9]))[:, 0].tolist()
    [0.0, 2.0, 5.0, 0.0]
    """

    moments: Int
    code_P: Int
    sum_PC: Float

    @classmethod
    def of(cls, row_P: Int, time_P: Int, amount_PC: Float) -> Self:
        """The sums of amounts that were added to rows (at least 0) at times (microseconds)."""
        moments = distinct_keys(time_P)
        code_P = row_P * (len(moments) + 1) + np.searchsorted(moments, time_P)
        order = np.argsort(code_P, kind="stable")
        start = np.zeros((1, amount_PC.shape[1]))
        return cls(moments, code_P[order], np.vstack([start, np.cumsum(amount_PC[order], axis=0)]))

    def until(self, row_N: Int, time_N: Int) -> Float:
        """Sums of what was added to each row until a moment, included, [N, C]; 0 for row -1."""
        base = len(self.moments) + 1
        rank_N = np.searchsorted(self.moments, time_N, side="right")
        start_N = np.searchsorted(self.code_P, row_N * base)
        stop_N = np.searchsorted(self.code_P, row_N * base + rank_N)
        return self.sum_PC[np.where(row_N < 0, start_N, stop_N)] - self.sum_PC[start_N]
