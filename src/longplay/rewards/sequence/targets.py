"""What scores of entries are fitted to: the days of the entries, or expected outcomes.

Axes: E entries, D days.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from longplay.arrays import Float, Int
from longplay.rewards.sequence.daily_hazard import GRID, DailyHazard, DayPaths


class EntryTarget(Protocol):
    """A loss of scores."""

    def loss(self, score: Tensor, rows: Tensor) -> Tensor:
        """The loss of each of these entries with these scores."""
        ...


@dataclass(frozen=True, eq=False)
class DaysTarget:
    """The likelihood of the days that were observed; an entry without any teaches nothing.

    Attributes:
        active_ED: see `DayPaths`, as the rest.
        teaches_ED: which days count.
        scale_ED: of the hazard on the way.
        level_ED: of the hazard on the way.
    """

    active_ED: Tensor
    teaches_ED: Tensor
    scale_ED: Tensor
    level_ED: Tensor

    @classmethod
    def of(cls, paths: DayPaths, hazard: DailyHazard, rows: Int) -> DaysTarget:
        """The target of these rows of the paths."""
        count_ED = torch.as_tensor(paths.count_ND[rows])
        day_D = torch.arange(hazard.days)

        def on_the_way(table_DC: Float) -> Tensor:
            return torch.as_tensor(table_DC, dtype=torch.float32)[day_D, count_ED]

        return cls(
            torch.as_tensor(paths.active_ND[rows]).float(),
            torch.as_tensor(paths.teaches_ND[rows]).float(),
            on_the_way(hazard.scale_DC),
            on_the_way(hazard.level_DC),
        )

    def loss(self, score: Tensor, rows: Tensor) -> Tensor:
        """See `EntryTarget`."""
        odds = score[:, None] * self.scale_ED[rows] + self.level_ED[rows]
        days = functional.binary_cross_entropy_with_logits(
            odds, self.active_ED[rows], reduction="none"
        )
        return (days * self.teaches_ED[rows]).sum(1)


@dataclass(frozen=True, eq=False)
class MeanTarget:
    """Expected outcomes, as labels of the belief before any day of an entry.

    Attributes:
        share_E: expected outcome over the most possible; NaN: none, and the entry teaches nothing.
        mean_G: what scores of `GRID` come to, over the most possible.
    """

    share_E: Tensor
    mean_G: Tensor

    @classmethod
    def of(cls, label_E: Float, hazard: DailyHazard) -> MeanTarget:
        """The target of these labels; NaN: none."""
        mean_G = hazard.table()[0] / hazard.largest
        return cls(
            torch.as_tensor(label_E / hazard.largest, dtype=torch.float32),
            torch.as_tensor(mean_G, dtype=torch.float32),
        )

    def loss(self, score: Tensor, rows: Tensor) -> Tensor:
        """See `EntryTarget`."""
        share = self.share_E[rows]
        has_label = ~share.isnan()
        step = GRID[1] - GRID[0]
        place = ((score.clamp(GRID[0], GRID[-1]) - GRID[0]) / step).clamp_max(len(GRID) - 1.001)
        low = place.detach().long()
        part = place - low
        mean = self.mean_G[low] * (1 - part) + self.mean_G[low + 1] * part
        loss = functional.binary_cross_entropy(
            mean.clamp(1e-6, 1 - 1e-6), share.nan_to_num(0.0).clamp(0, 1), reduction="none"
        )
        return torch.where(has_label, loss, 0.0)
