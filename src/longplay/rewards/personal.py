"""Progressive beliefs about creators, joined with what is particular of the item and of the user."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

import numpy as np
import polars as pl

from longplay.arrays import Float, Int
from longplay.belief import Belief
from longplay.decisions import Contexts, Decisions
from longplay.lake.lake import Lake
from longplay.rewards.early import certain_entries, decided
from longplay.rewards.particulars import Entries, Particulars, Pasts
from longplay.rewards.particulars_fit import catalogue_of, extended, fit_particulars
from longplay.rewards.progressive import ProgressiveReward
from longplay.rewards.showing import LakeView
from longplay.signals.outcomes.in_memory import Outcomes, slates_of

EVER = np.iinfo(np.int64).max


@dataclass(frozen=True, eq=False)
class PersonalReward(ProgressiveReward):
    """An early reward that knows items and users apart: the progressive belief about a creator, joined
    with what entries by each item, the item's entry rate and the user's earlier entries say
    (see `rewards.particulars`).

    Items of a creator differ in what they lead to, and an item that many try and few come back to is
    worth less than its creator. Where items and users do not differ, it believes what
    `ProgressiveReward` believes.

    Attributes:
        signal: what is believed in.
        particulars: what was learnt of items and users; null before `fit`.
    """

    particulars: Particulars | None = field(default=None, repr=False)
    _pasts: dict[object, Pasts] = field(default_factory=dict, init=False, repr=False)

    name: ClassVar[str] = "personal"

    def _with_particulars(
        self,
        lake: Lake | None,
        outcomes: Outcomes,
        certain: Outcomes,
        decisions: Decisions | pl.DataFrame | None,
        tell: Callable[..., None],
    ) -> Self:
        shown = None if decisions is None else slates_of("fit", decisions)
        catalogue = catalogue_of(lake, outcomes, shown, "items" in self.knows)
        particulars = fit_particulars(self.signal, self._fitted(), certain, catalogue)
        return replace(self, particulars=particulars)

    def observe(self, outcomes: Outcomes, age: int | None = None) -> Self:
        """See `EarlyModel.observe`: effects of items are updated as beliefs about creators are."""
        observed = super().observe(outcomes, age)
        particulars = self._learnt()
        if not particulars.parts:
            return observed
        heard = self._heard(outcomes)
        catalogue = extended(particulars.catalogue, heard)
        entries = Entries.of(heard, catalogue, age)
        amounts = particulars.amounts.observe(entries, catalogue)
        return replace(
            observed, particulars=replace(particulars, catalogue=catalogue, amounts=amounts)
        )

    def items(self, ids: pl.Series) -> Belief:
        """See `EarlyModel.items`: of a usual entry. Of creators, through an item that is as usual as
        the creator's others."""
        particulars = self._learnt()
        if not particulars.parts:
            return super().items(ids)
        catalogue = particulars.catalogue
        key_N = catalogue.keys.rows(ids)
        item_N = np.full(len(ids), -1)
        if self.signal.entry.of == "item":
            item_N = catalogue.items.rows(ids)
        mean_N, std_N = self._joined(item_N, key_N, np.full(len(ids), EVER), np.zeros(len(ids)))
        noise_N = np.full(len(ids), self._fitted().noise_std)
        keys = pl.DataFrame({f"{self.signal.entry.of or 'user'}_id": ids})
        return self._finish(mean_N, std_N, noise_N, -1, keys)

    def belief(self, outcomes: Outcomes, age: int) -> Belief:
        """See `EarlyModel.belief`. Users' earlier entries are looked up in `outcomes`; what is
        particular counts the less, the more days of an entry were observed."""
        progressive = super().belief(outcomes, age)
        particulars = self._learnt()
        if not particulars.parts:
            return progressive
        standing = self._fitted()
        catalogue = particulars.catalogue
        entries = Entries.of(outcomes, catalogue)
        user_ids = outcomes.frame["user_id"]
        pasts = Pasts.of(user_ids, entries, self.signal.days, particulars.amounts)
        user_N = pasts.rates(user_ids, entries.time_N, particulars.user_variance)
        joined_N, joined_std_N = self._joined(entries.item_N, entries.key_N, entries.time_N, user_N)
        observed_N = outcomes.observed(age)
        row_N = standing.index.rows(outcomes.keys)
        seen_mean_N, seen_std_N, noise_N = standing.entries(row_N, outcomes, observed_N)
        mean_N, std_N = particulars.aged(
            observed_N, seen_mean_N, seen_std_N, standing.items()[0][row_N], joined_N, joined_std_N
        )
        assert progressive.keys is not None
        belief = self._finish(mean_N, std_N, noise_N, age, progressive.keys)
        is_decided_N = ~np.isnan(decided(outcomes, observed_N))
        return replace(
            belief,
            mean=np.where(is_decided_N, progressive.mean, belief.mean),
            std=np.where(is_decided_N, progressive.std, belief.std),
            spread=np.where(is_decided_N, progressive.spread, belief.spread),
        )

    def _given_entry(
        self, contexts: Contexts, row_NS: Int, view: LakeView, lake: Lake
    ) -> tuple[Float, Float, Float]:
        particulars = self._learnt()
        if not particulars.parts:
            return super()._given_entry(contexts, row_NS, view, lake)
        catalogue = particulars.catalogue
        item_I = np.append(catalogue.items.rows(view.index.items.ids), -1)
        key_I = np.append(catalogue.keys.rows(view.index.key_ids_I), -1)
        slots = row_NS.shape[1]
        time_N = contexts.frame["time"].dt.epoch("us").to_numpy()
        user_N = np.zeros(len(contexts))
        if particulars.reads_users:
            user_N = self._past(lake).rates(
                contexts.frame["user_id"], time_N, particulars.user_variance
            )
        mean, std = self._joined(
            item_I[row_NS].ravel(),
            key_I[row_NS].ravel(),
            np.repeat(time_N, slots),
            np.repeat(user_N, slots),
        )
        noise = np.full(len(mean), self._fitted().noise_std)
        belief = self._finish(mean, std, noise, -1, pl.DataFrame({"slot": np.arange(len(mean))}))
        shape = row_NS.shape
        return belief.mean.reshape(shape), belief.std.reshape(shape), belief.spread.reshape(shape)

    def _joined(self, item_N: Int, key_N: Int, time_N: Int, user_N: Float) -> tuple[Float, Float]:
        """Mean and std of the outcome of a new entry by each user through each item, [N]."""
        particulars = self._learnt()
        standing = self._fitted()
        catalogue = particulars.catalogue
        amounts = particulars.amounts
        mean_I, std_I = standing.items()
        row_K = np.append(standing.index.rows(catalogue.keys.ids), -1)
        rate_N = np.zeros(len(item_N))
        if amounts.rate_weight:
            rate_N = catalogue.log_odds(item_N, key_N, time_N)
        return particulars.join(
            mean_I[row_K][key_N],
            std_I[row_K][key_N],
            amounts.log_amount(item_N, key_N, rate_N),
            amounts.uncertainty(item_N, key_N),
            user_N,
        )

    def _past(self, lake: Lake) -> Pasts:
        """Users' earlier entries in a lake, held-out users' included; kept for the last lake."""
        if lake.key not in self._pasts:
            particulars = self._learnt()
            outcomes = certain_entries(self.signal.outcomes(lake))
            entries = Entries.of(outcomes, particulars.catalogue)
            self._pasts.clear()
            self._pasts[lake.key] = Pasts.of(
                outcomes.frame["user_id"], entries, self.signal.days, particulars.amounts
            )
        return self._pasts[lake.key]

    def _learnt(self) -> Particulars:
        self._fitted()
        assert self.particulars is not None
        return self.particulars
