"""What policies may see of users' past: what they played last, and what they were last shown.

Both are ring buffers, one row per user. They are as long as the policy of the run reads, so a policy
that reads nothing costs nothing. Nothing else in the world looks at them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from longplay.arrays import Int
from longplay.decisions import Policy, reads_users, showings_of
from longplay.errors import ConfigError
from longplay.index import ItemIndex, ranges
from longplay.lake import Lake
from longplay.lake.schema import TIME
from longplay.world.dynamics import PUSHED, SURFACES, Shown
from longplay.world.event_log import KINDS, PLACES, DayPlays, midnight_us, ragged
from longplay.world.surfaces import OFFSET_S

_DAY_S = 86_400


@dataclass(frozen=True)
class Reading:
    """What policies read of the users of contexts.

    Attributes:
        plays: most past plays and saves (`history`).
        showings: most past showings (`shown`).
        users: whether the vectors that the service knows of users are read.
    """

    plays: int = 0
    showings: int = 0
    users: bool = False

    @classmethod
    def of(cls, *policies: Policy | None) -> Self:
        """What any of these policies reads.

        Raises:
            ConfigError: a policy's `showings` is no number of items.
        """
        present = [policy for policy in policies if policy is not None]
        for policy in present:
            showings = showings_of(policy)
            if isinstance(showings, bool) or not isinstance(showings, int) or showings < 0:
                raise ConfigError(
                    f"World: {policy.name} has showings={showings!r}, expected the number of past "
                    "showings that it reads in a context, 0 for none"
                )
        return cls(
            max((policy.history for policy in present), default=0),
            max(map(showings_of, present), default=0),
            any(map(reads_users, present)),
        )


class Ring:
    """The last `length` items of each user, with the second and a mark of each. It changes in
    place."""

    def __init__(self, users: int, length: int) -> None:
        self._item_UH = np.zeros((users, length), dtype=np.int32)
        self._second_UH = np.zeros((users, length), dtype=np.int64)  # since the world began
        self._mark_UH = np.zeros((users, length), dtype=np.uint8)
        self._count_U = np.zeros(users, dtype=np.int64)

    @property
    def length(self) -> int:
        """Most items of a user."""
        return self._item_UH.shape[1]

    def take(self, rows: NDArray[np.integer]) -> Ring:
        """The ring of these users, who may repeat."""
        other = Ring(0, self.length)
        other._item_UH = self._item_UH[rows]
        other._second_UH = self._second_UH[rows]
        other._mark_UH = self._mark_UH[rows]
        other._count_U = self._count_U[rows]
        return other

    def add(
        self,
        user_P: NDArray[np.integer],
        item_P: NDArray[np.integer],
        second_P: NDArray[np.integer],
        mark_P: NDArray[np.integer] | int = 0,
    ) -> None:
        """Add items, ordered by user and, for each user, by time; later than all before."""
        if self.length == 0:
            return
        nth_P = np.arange(len(user_P)) - np.searchsorted(user_P, user_P)
        # where a user has more than the ring holds, numpy keeps the last value assigned: the
        # latest
        place_P = (self._count_U[user_P] + nth_P) % self.length
        self._item_UH[user_P, place_P] = item_P
        self._second_UH[user_P, place_P] = second_P
        self._mark_UH[user_P, place_P] = mark_P
        self._count_U += np.bincount(user_P, minlength=len(self._count_U))

    def of_users(self, user_N: Int) -> tuple[Int, Int, Int, Int]:
        """Items, seconds and marks of these users, oldest first, all users one after the other; and
        where each user's begin, and the end [N + 1]."""
        have_N = np.minimum(self._count_U[user_N], self.length)
        first_N = self._count_U[user_N] - have_N
        place = np.repeat(user_N, have_N), ranges(first_N, have_N) % max(self.length, 1)
        return (
            self._item_UH[place].astype(np.int64),
            self._second_UH[place],
            self._mark_UH[place].astype(np.int64),
            np.concatenate([[0], np.cumsum(have_N)]),
        )


class Memory:
    """What contexts hand out of users' past: the last plays and saves, and the last showings on the
    surfaces on which the service shows unasked. It is as long as is read, and it changes in place.

    Attributes:
        reading: what is read of users.
    """

    def __init__(self, users: int, reading: Reading) -> None:
        """A memory in which nothing has happened yet.

        Args:
            users: number of users.
            reading: how much is remembered.
        """
        self.reading = reading
        self._plays = Ring(users, reading.plays)
        self._showings = Ring(users, reading.showings)

    @classmethod
    def of(
        cls,
        reading: Reading,
        user_ids: pl.Series,
        items: ItemIndex,
        played: Sequence[DayPlays],
        lakes: Sequence[Lake],
    ) -> Self:
        """The memory of all that happened before.

        Args:
            reading: how much is remembered.
            user_ids: the users.
            items: the catalogue.
            played: plays and saves, day by day.
            lakes: the logs with the decisions that were shown to these users. One begins where the
                one before it ends.
        """
        memory = cls(len(user_ids), reading)
        if reading.plays:
            for heard in played:
                memory._add_plays(heard)
        if reading.showings:
            for lake in lakes:
                last = _last_showings(lake, user_ids, items, reading.showings)
                memory._showings.add(*last)
        return memory

    def take(self, rows: NDArray[np.integer]) -> Memory:
        """The memory of these users, who may repeat."""
        other = Memory(0, self.reading)
        other._plays = self._plays.take(rows)
        other._showings = self._showings.take(rows)
        return other

    def add(self, heard: DayPlays, shown: Sequence[Shown], user_N: Int, second_N: Int) -> None:
        """Remember a day.

        Args:
            heard: its plays and saves.
            shown: what was shown.
            user_N: who visited, ascending.
            second_N: second of the day at which each visit began.
        """
        self._add_plays(heard)
        unasked = [surface for surface in shown if surface.place in PUSHED]
        if self.reading.showings == 0 or not unasked:
            return
        user_parts, item_parts, second_parts = [], [], []
        for surface in unasked:
            begin_R = second_N[np.searchsorted(user_N, surface.row_N)]
            slots = surface.item_NS.shape[1]
            user_parts.append(np.repeat(surface.row_N, slots))
            item_parts.append(surface.item_NS.ravel())
            second_parts.append(np.repeat(begin_R + OFFSET_S.get(surface.place, 0), slots))
        user_P = np.concatenate(user_parts)
        item_P = np.concatenate(item_parts)
        second_P = heard.day * _DAY_S + np.concatenate(second_parts)
        order = np.lexsort((second_P, user_P))  # stable: the items of a slate keep their order
        order = order[item_P[order] >= 0]  # a slate may be shorter than the page
        self._showings.add(user_P[order], item_P[order], second_P[order])

    def _add_plays(self, heard: DayPlays) -> None:
        second_P = heard.day * _DAY_S + heard.second_P.astype(np.int64)
        self._plays.add(heard.user_P, heard.item_P, second_P, heard.how_P)

    def histories(self, user_N: Int, item_ids: pl.Series) -> pl.DataFrame | None:
        """The histories of these users, oldest first: columns history, history_time (to the
        second), history_kind, history_surface; null where no plays are read."""
        if self.reading.plays == 0:
            return None
        item, second, how, offsets = self._plays.of_users(user_N)
        columns = {
            "history": item_ids.gather(item),
            "history_time": _times(second),
            "history_kind": pl.Series(KINDS, dtype=pl.String).gather(how // len(PLACES)),
            "history_surface": pl.Series(PLACES, dtype=pl.String).gather(how % len(PLACES)),
        }
        return pl.DataFrame({name: ragged(flat, offsets) for name, flat in columns.items()})

    def showings(self, user_N: Int, item_ids: pl.Series) -> Mapping[str, pl.Series]:
        """What these users were last shown unasked, oldest first: columns shown and shown_time (of
        the context that showed it); none where no showings are read."""
        if self.reading.showings == 0:
            return {}
        item, second, _, offsets = self._showings.of_users(user_N)
        columns = {"shown": item_ids.gather(item), "shown_time": _times(second)}
        return {name: ragged(flat, offsets) for name, flat in columns.items()}


def _times(second: Int) -> pl.Series:
    return pl.Series(midnight_us(0) + second * 1_000_000).cast(TIME)


def _last_showings(
    lake: Lake, user_ids: pl.Series, items: ItemIndex, most: int
) -> tuple[Int, Int, Int]:
    """The last showings in a log, at least `most` of each user where there are as many: rows of
    users, rows of items, and seconds since the world began, ordered by user and time."""
    surfaces = ", ".join(f"'{SURFACES[place]}'" for place in PUSHED)
    # a slate that is not empty holds an item at least, so the last `most` slates are enough
    with lake.connect() as con:
        slates = con.sql(
            f"""
            select user_id, epoch_us(time) as time_us, slate from decisions
            where surface in ({surfaces}) and len(slate) > 0
            qualify row_number() over (partition by user_id order by time desc) <= {most}
            """
        ).pl()
    row_N = ItemIndex(user_ids).rows(slates["user_id"])
    # a fork has some of the users only
    slates = slates.with_columns(row=pl.Series(row_N)).filter(pl.col("row") >= 0)
    showings = slates.sort("row", "time_us").explode("slate")
    second_P = (showings["time_us"].to_numpy() - midnight_us(0)) // 1_000_000
    return showings["row"].to_numpy(), items.rows(showings["slate"]), second_P
