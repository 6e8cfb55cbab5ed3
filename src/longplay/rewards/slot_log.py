"""The slots of a log: who was shown what, where and when, whether an entry was possible, and whether
there was one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from longplay.arrays import Float, Int
from longplay.index import ItemIndex
from longplay.lake.daily import DAY_US
from longplay.rewards.familiar import LakeIndex


@dataclass(frozen=True, eq=False)
class SlotLog:
    """N slots in the order of users, times, slates and positions.

    Attributes:
        users: users by row.
        user_N: row of each slot's user.
        time_N: when it was shown, microseconds.
        slate_N: number of its slate.
        position_N: its place in the slate, from 0.
        item_N: item row in the lake, -1 unknown.
        key_N: row of the creator (or item) that entries are about, -1 unknown.
        together_N: slots of the slate with the same creator, itself included.
        possible_N: whether it could open an entry: its creator is known, and new to the user.
        label_N: whether the user touched the creator within a day, shared by the slots together.
    """

    users: ItemIndex
    user_N: Int
    time_N: Int
    slate_N: Int
    position_N: Int
    item_N: Int
    key_N: Int
    together_N: Int
    possible_N: NDArray[np.bool_]
    label_N: Float

    def __len__(self) -> int:
        return len(self.user_N)

    @classmethod
    def of(cls, index: LakeIndex, decisions: pl.DataFrame, novel_for: int | None) -> Self:
        """The slots of these decisions, with what the lake says of each.

        Args:
            index: look-ups in the lake.
            decisions: rows of the lake's table.
            novel_for: days without a touch after which a creator is new again; null: never.
        """
        frame = decisions.select("user_id", "time", "decision_id", "slate").sort(
            "user_id", "time", "decision_id"
        )
        users = ItemIndex(frame["user_id"].unique().sort())
        count = frame["slate"].list.len().to_numpy().astype(np.int64)
        slate_N = np.repeat(np.arange(frame.height), count)
        item_N = index.slots(frame["slate"])
        time_N = frame["time"].dt.epoch("us").to_numpy()[slate_N]
        key_N = np.append(index.key_row_I, -1)[item_N]
        lake_user_N = index.users(frame["user_id"])[slate_N]
        possible_N = (key_N >= 0) & ~index.familiar(lake_user_N, key_N, time_N, novel_for)
        touched_N = index.touched(lake_user_N, key_N, time_N, time_N + DAY_US)
        same = slate_N * (len(index.keys) + 1) + key_N
        _, group, size = np.unique(same, return_inverse=True, return_counts=True)
        together_N = np.where(key_N >= 0, size[group], 1)
        return cls(
            users=users,
            user_N=users.rows(frame["user_id"])[slate_N] if len(frame) else slate_N,
            time_N=time_N,
            slate_N=slate_N,
            position_N=np.arange(len(slate_N)) - np.repeat(np.cumsum(count) - count, count),
            item_N=item_N,
            key_N=key_N,
            together_N=together_N,
            possible_N=possible_N,
            label_N=touched_N / together_N,
        )
