"""The slots of a log: who was shown what, where and when, whether an entry was possible, and whether
the slot was played.

A slot is played where an event of activity names its decision and its item. Where a log does not link
events to decisions, it is where the user touched the item within a day. Both leave out what the user
found without the slot: near 0 that would be most of what is seen of tired items, and hide how tired
they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from longplay.arrays import Bool, Float, Int
from longplay.decisions import is_asked
from longplay.index import ItemIndex
from longplay.lake.lake import Lake
from longplay.lake.schema import ENGAGED
from longplay.rewards.familiar import LakeIndex
from longplay.signals.outcomes.in_memory import ENTRY_HORIZON


@dataclass(frozen=True, eq=False)
class SlotLog:
    """N slots in the order of users, times, slates and positions.

    Attributes:
        users: users by row.
        user_N: row of each slot's user.
        time_N: when it was shown, microseconds.
        slate_N: number of its slate.
        position_N: its place in the slate, from 0.
        surfaces: surfaces by row.
        surface_N: row of each slot's surface.
        item_N: item row in the lake, -1 unknown.
        key_N: row of the creator (or item) that entries are about, -1 unknown.
        possible_N: whether it could open an entry: its creator is known, and new to the user.
        played_N: whether it was played, 0 or 1.
    """

    users: ItemIndex
    user_N: Int
    time_N: Int
    slate_N: Int
    position_N: Int
    surfaces: ItemIndex
    surface_N: Int
    item_N: Int
    key_N: Int
    possible_N: Bool
    played_N: Float

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
        columns = ["user_id", "time", "decision_id", "surface", "slate"]
        frame = decisions.select(columns).sort("user_id", "time", "decision_id")
        users = ItemIndex(frame["user_id"].unique().sort())
        surfaces = ItemIndex(frame["surface"].unique().sort())
        count = frame["slate"].list.len().to_numpy().astype(np.int64)
        slate_N = np.repeat(np.arange(frame.height), count)
        surface_N = surfaces.rows(frame["surface"])[slate_N] if len(frame) else slate_N
        _, item_N = index.items.ragged_rows(frame["slate"])
        time_N = frame["time"].dt.epoch("us").to_numpy()[slate_N]
        key_N = np.append(index.key_row_I, -1)[item_N]
        lake_user_N = index.users(frame["user_id"])[slate_N]
        possible_N = (key_N >= 0) & ~index.familiar(lake_user_N, key_N, time_N, novel_for)
        return cls(
            users=users,
            user_N=users.rows(frame["user_id"])[slate_N] if len(frame) else slate_N,
            time_N=time_N,
            slate_N=slate_N,
            position_N=np.arange(len(slate_N)) - np.repeat(np.cumsum(count) - count, count),
            surfaces=surfaces,
            surface_N=surface_N,
            item_N=item_N,
            key_N=key_N,
            possible_N=possible_N,
            played_N=played(index.lake, frame).astype(np.float64),
        )


def shown_unasked(lake: Lake, decisions: pl.DataFrame) -> pl.DataFrame:
    """The slates that nobody asked for. What a user searches for is what the user likes: such slots would
    teach that showing an item again makes it liked. Where all were asked for, all of them.

    Args:
        lake: the log.
        decisions: rows of its table.
    """
    unasked = decisions.filter(~is_asked(lake))
    return decisions if unasked.is_empty() else unasked


def played(lake: Lake, decisions: pl.DataFrame) -> NDArray[np.bool_]:
    """Whether each slot was played, in the order of the decisions and their slots, [N].

    Args:
        lake: the log.
        decisions: user_id, time, decision_id and slate of each slate.
    """
    slots = decisions.select("user_id", "time", "decision_id", item_id="slate").explode(
        "item_id", empty_as_null=False
    )
    events = lake.events.filter(pl.col("kind").is_in(ENGAGED) & pl.col("item_id").is_not_null())
    linked = events.filter(pl.col("decision_id").is_not_null())
    recommended = events.filter(pl.col("origin") == "recommended").height
    if 2 * linked.height >= max(recommended, 1):
        links = linked.select("decision_id", "item_id", played=pl.lit(True)).unique()
        joined = slots.join(links, on=["decision_id", "item_id"], how="left", maintain_order="left")
        return joined["played"].fill_null(False).to_numpy()
    touches = events.select("user_id", "item_id", touched=pl.col("time")).sort("touched")
    joined = (
        slots.with_row_index("row")
        .sort("time")
        .join_asof(
            touches,
            left_on="time",
            right_on="touched",
            by=["user_id", "item_id"],
            strategy="forward",
            tolerance=ENTRY_HORIZON,
            check_sortedness=False,
        )
        .sort("row")
    )
    return joined["touched"].is_not_null().to_numpy()
