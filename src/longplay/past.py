"""What was known at a moment: a user's last events before it, and the keys seen by then.

Memory grows with events, moments and what is handed out, never with their product.
Axes: E events, U users, N moments, P distinct (user, key) pairs. Times are microseconds since 1970.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from longplay.index import distinct_keys, ranges

Rows = NDArray[np.int64]

LEVELS = 9  # of the table of least arrivals: skips of 1, 2, 4 .. 256 events


@dataclass(frozen=True, eq=False)
class Past:
    """Events in the order of their users, and of each user in the order of their times.

    An event is known at a moment when it happened before it and had arrived by then.

    Attributes:
        user_E: row of each event's user, ascending.
        time_E: when it happened.
        arrived_E: when it arrived, not before it happened.
    """

    user_E: Rows
    time_E: Rows
    arrived_E: Rows

    def last(self, user_N: Rows, time_N: Rows, most: int) -> tuple[Rows, Rows]:
        """The last `most` events that were known at each moment, oldest first: offsets[N+1] and
        event numbers.

        Args:
            user_N: row of each moment's user, -1 for a user without events.
            time_N: the moments.
            most: at least 0.

        >>> past = Past(np.array([0, 0, 0]), np.array([10, 20, 30]), np.array([10, 99, 30]))
        >>> [rows.tolist() for rows in past.last(np.array([0, 0]), np.array([40, 30]), 2)]
        [[0, 2, 3], [0, 2, 0]]
        """
        start_N = np.searchsorted(self.user_E, user_N)
        stop_N = np.searchsorted(
            self._codes, user_N * self._base + np.searchsorted(self._moments, time_N)
        )
        stop_N = np.where(user_N < 0, start_N, stop_N)
        if (self.arrived_E <= self.time_E).all():
            count_N = np.minimum(stop_N - start_N, most)
            return np.concatenate([[0], np.cumsum(count_N)]), ranges(stop_N - count_N, count_N)
        return self._last_arrived(start_N, stop_N, time_N, most)

    def _last_arrived(
        self, start_N: Rows, stop_N: Rows, time_N: Rows, most: int
    ) -> tuple[Rows, Rows]:
        """`last` where some events arrived late: from each moment backwards, one known event of all
        moments at a time."""
        left_N = np.arange(len(time_N))  # moments that may know more
        at_N = stop_N - 1
        moments: list[Rows] = []
        events: list[Rows] = []
        for _ in range(most):
            at_N = self._back_to_arrived(at_N, start_N[left_N], time_N[left_N])
            more = at_N >= start_N[left_N]
            left_N = left_N[more]
            at_N = at_N[more]
            if not len(left_N):
                break
            moments.append(left_N)
            events.append(at_N)
            at_N = at_N - 1
        moment_M = np.concatenate([np.zeros(0, dtype=np.int64), *moments])
        event_M = np.concatenate([np.zeros(0, dtype=np.int64), *events])
        order_M = np.lexsort((event_M, moment_M))
        return np.searchsorted(moment_M[order_M], np.arange(len(time_N) + 1)), event_M[order_M]

    def _back_to_arrived(self, at_N: Rows, start_N: Rows, time_N: Rows) -> Rows:
        """The last event not after `at_N` that had arrived by the time; a number below `start_N`
        where there is none."""
        at_N = at_N.copy()
        for level in range(LEVELS - 1, -1, -1):
            late = np.flatnonzero(at_N >= start_N)
            while len(late := late[self._least[level][at_N[late]] > time_N[late]]):
                at_N[late] -= 2**level
                late = late[at_N[late] >= start_N[late]]
        return at_N

    @cached_property
    def _least(self) -> list[Rows]:
        """Earliest arrival of the 2**level events up to each event, by level."""
        least = [self.arrived_E]
        for level in range(LEVELS - 1):
            last = least[-1]
            earlier = np.concatenate(
                [np.full(min(2**level, len(last)), np.iinfo(np.int64).max), last[: -(2**level)]]
            )
            least.append(np.minimum(last, earlier))
        return least

    @cached_property
    def _moments(self) -> Rows:
        return distinct_keys(self.time_E)

    @property
    def _base(self) -> int:
        return len(self._moments) + 1

    @cached_property
    def _codes(self) -> Rows:
        """A number per event that sorts by user, then time."""
        return self.user_E * self._base + np.searchsorted(self._moments, self.time_E)


@dataclass(frozen=True, eq=False)
class Met:
    """When each user's keys (items or creators) first became known: P pairs in order of user,
    then of that time."""

    user_P: Rows
    known_P: Rows
    key_P: Rows

    @classmethod
    def of(cls, past: Past, key_E: Rows) -> Met:
        """The pairs of these events' users and keys; -1: an event without a key.

        >>> past = Past(np.array([0, 0, 0]), np.array([10, 20, 30]), np.array([10, 99, 30]))
        >>> met = Met.of(past, np.array([5, 6, 5]))
        >>> met.known_P.tolist(), met.key_P.tolist()
        ([11, 99], [5, 6])
        """
        has_key = key_E >= 0
        user_E = past.user_E[has_key]
        key_E = key_E[has_key]
        known_E = np.maximum(past.time_E + 1, past.arrived_E)[has_key]  # from this microsecond on
        by_pair = np.lexsort((known_E, key_E, user_E))
        user_E = user_E[by_pair]
        key_E = key_E[by_pair]
        known_E = known_E[by_pair]
        first = np.ones(len(user_E), dtype=bool)
        first[1:] = (user_E[1:] != user_E[:-1]) | (key_E[1:] != key_E[:-1])
        user_P = user_E[first]
        key_P = key_E[first]
        known_P = known_E[first]
        by_time = np.lexsort((key_P, known_P, user_P))
        return cls(user_P[by_time], known_P[by_time], key_P[by_time])

    def by(self, user_N: Rows, time_N: Rows) -> tuple[Rows, Rows]:
        """Where the pairs known at each moment lie among P: first and count, both [N]. -1: a
        user without events."""
        first_N = np.searchsorted(self.user_P, user_N)
        moments = distinct_keys(self.known_P)
        base = len(moments) + 1
        code_P = self.user_P * base + np.searchsorted(moments, self.known_P)
        stop_N = np.searchsorted(
            code_P, user_N * base + np.searchsorted(moments, time_N, side="right")
        )
        return first_N, np.where(user_N < 0, 0, stop_N - first_N)
