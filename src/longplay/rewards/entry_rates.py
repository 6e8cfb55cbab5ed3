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
from longplay.rewards.slot_log import SlotLog
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
        """The rates of a log's main surface; None where nothing was shown that could open an entry. A slot
        has an entry where it could open one and was played (`slot_log`).

        Args:
            view: the log as it was known.
            outcomes: of the signal.
            decisions: what was shown.
            items: items by row.
            key_I: row of each item's creator, -1 unknown.
        """
        entry = outcomes.signal.entry
        if decisions.is_empty() or entry.of is None:
            return None
        horizon = int(ENTRY_HORIZON.total_seconds() * 1e6)
        index = LakeIndex(view, entry.of)
        main = decisions.filter(pl.col("surface") == main_surface(decisions))
        slots = SlotLog.of(index, main, entry.novel_for)
        as_of = int(outcomes.as_of.timestamp() * 1e6)
        item_P = np.append(items.rows(index.items.ids), -1)[slots.item_N]
        teaches = (item_P >= 0) & slots.possible_N & (slots.time_N + horizon <= as_of)
        if not teaches.any():
            return None
        item_P = item_P[teaches]
        known_P = slots.time_N[teaches] + horizon
        return cls.of(item_P, key_I[item_P], slots.played_N[teaches], known_P)

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
