"""How often items lead to an entry where they are shown, as was known at a moment.

Axes: P slots shown, N moments, I items, K keys (creators or items). The last row of items and keys stands
for unknown ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import polars as pl
from scipy import special

from longplay.arrays import Float, Int
from longplay.decisions import main_surface
from longplay.index import ItemIndex
from longplay.lake.lake import Lake
from longplay.rewards.familiar import LakeIndex
from longplay.rewards.running_sums import RunningSums
from longplay.signals.outcomes.in_memory import ENTRY_HORIZON, Outcomes

SMOOTHED_BY = (
    50.0  # slots at the creator's rate that an item begins with, and a creator at the usual
)


@dataclass(frozen=True, eq=False)
class EntryRates:
    """Entries and showings of items and keys, added up over time.

    Attributes:
        items: of showings and entries, by item.
        keys: the same by creator; entries about items: again by item.
        usual: entry rate of all slots.
    """

    items: RunningSums
    keys: RunningSums
    usual: float

    @classmethod
    def of(cls, item_P: Int, key_P: Int, entered_P: Float, known_P: Int) -> Self:
        """The rates from slots.

        Args:
            item_P: item row of each slot.
            key_P: row of its creator.
            entered_P: whether an entry followed, 0 or 1.
            known_P: when that was known, microseconds.
        """
        usual = (entered_P.sum() + 1.0) / (len(entered_P) + 2.0)
        amount_PC = np.column_stack([entered_P, np.ones(len(entered_P))])
        has_key_P = key_P >= 0
        items = RunningSums.of(item_P, known_P, amount_PC)
        return cls(
            items,
            RunningSums.of(key_P[has_key_P], known_P[has_key_P], amount_PC[has_key_P]),
            float(usual),
        )

    @classmethod
    def of_log(
        cls, view: Lake, outcomes: Outcomes, decisions: pl.DataFrame, items: ItemIndex, key_I: Int
    ) -> Self | None:
        """The rates of a log's main surface; None where nothing was shown that could open an entry.

        Args:
            view: the log as it was known.
            outcomes: of the signal.
            decisions: what was shown.
            items: items by row.
            key_I: row of each item's creator, -1 unknown.
        """
        if decisions.is_empty() or outcomes.signal.entry.of is None:
            return None
        slots = (
            decisions.filter(pl.col("surface") == main_surface(decisions))
            .filter(pl.col("time") + ENTRY_HORIZON <= outcomes.as_of)
            .select("user_id", "time", item_id="slate")
            .explode("item_id", empty_as_null=False)
            .sort("time")
        )
        # through this item: an entry through another item of the creator is another item's
        entries = outcomes.frame.select("user_id", "item_id", entry_time="time").sort("entry_time")
        slots = slots.join_asof(
            entries,
            left_on="time",
            right_on="entry_time",
            by=["user_id", "item_id"],
            strategy="forward",
            tolerance=ENTRY_HORIZON,
            check_sortedness=False,
        )
        index = LakeIndex(view, outcomes.signal.entry.of)
        time_P = slots["time"].dt.epoch("us").to_numpy()
        row_P = index.items.rows(slots["item_id"])
        familiar_P = index.familiar(
            index.users(slots["user_id"]),
            np.append(index.key_row_I, -1)[row_P],
            time_P,
            outcomes.signal.entry.novel_for,
        )
        item_P = items.rows(slots["item_id"])
        possible_P = (item_P >= 0) & ~familiar_P
        if not possible_P.any():
            return None
        item_P = item_P[possible_P]
        horizon = int(ENTRY_HORIZON.total_seconds() * 1e6)
        return cls.of(
            item_P,
            key_I[item_P],
            slots["entry_time"].is_not_null().to_numpy().astype(float)[possible_P],
            time_P[possible_P] + horizon,
        )

    def log_odds(self, item_N: Int, key_N: Int, time_N: Int) -> Float:
        """Log odds of each item's entry rate less those of the usual rate, from the slots whose entry
        or none was known by the moment, [N]. Unknown items stand at their creator's rate.

        Args:
            item_N: item rows, -1 unknown.
            key_N: rows of their creators, -1 unknown.
            time_N: the moments, microseconds.
        """
        key_entries_N, key_slots_N = self.keys.until(key_N, time_N).T
        key_rate_N = (key_entries_N + SMOOTHED_BY * self.usual) / (key_slots_N + SMOOTHED_BY)
        entries_N, slots_N = self.items.until(item_N, time_N).T
        rate_N = (entries_N + SMOOTHED_BY * key_rate_N) / (slots_N + SMOOTHED_BY)
        return special.logit(np.clip(rate_N, 1e-6, 1 - 1e-6)) - special.logit(self.usual)
