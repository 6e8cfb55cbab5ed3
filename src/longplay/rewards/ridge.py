"""The plain two-part ridge: the baseline that anyone would build first.

Value = chance that a slot is played x outcome given an entry. Each is a ridge regression on smoothed
rates, and on what the service knows of users and items where that is declared. Nothing of a visit is
used but its user and the place: no earlier showings, no early evidence, no organic entries.

Axes: N contexts, S slots of a slate, I items; others as in `longplay.rewards.ridge_regression`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

import numpy as np
import polars as pl

from longplay.arrays import Float, Int
from longplay.belief import Belief
from longplay.decisions import Contexts, Decisions
from longplay.frames import as_lists
from longplay.index import ItemIndex
from longplay.lake.lake import Lake
from longplay.rewards.early import EarlyModel, most_possible
from longplay.rewards.familiar import LakeIndex
from longplay.rewards.ridge_parts import (
    NOTHING,
    Clicks,
    Known,
    RidgeStanding,
    fit_clicks,
    fit_outcomes,
)
from longplay.rewards.ridge_regression import Forms, states
from longplay.rewards.showing import LakeView, Showing, paid_once, worth
from longplay.rewards.showing_fit import teaching_slots, without_slots
from longplay.signals.outcomes.in_memory import Outcomes

LEAST = 1e-4  # of a chance or an outcome: products of negative numbers would mean nothing


@dataclass(frozen=True, eq=False)
class TwoPartRidge(EarlyModel):
    """A baseline: the chance that a slot is played x the outcome given an entry, two ridge regressions.

    Features of the chance: the item's rate of plays (smoothed by 50 slots towards the creator's) as log
    odds and as chance, and the place. Feature of the outcome: the creator's mean over mature entries,
    smoothed by 20. In training, rates come from the other half of the users. With
    `knows=("users", "items")` both see the user's factors, the item's (a creator's are the mean of its
    items'), the products of their coordinates, the scalar product, and that times the rate; who or what
    has no factors gets the mean. It sees the data that the other early rewards see, and either penalty is
    the one that predicts the users of other folds best, so it is a fair peer. A familiar creator is worth
    0, and a slot is paid once for a creator, as everywhere.

    `std` is from the covariance of the weights (residual variance x (X'X + penalty)^-1) and the error of
    the rates themselves: of a rate of plays that of a binomial, of a creator's mean that of a normal
    around the usual mean. That rates are estimated in training, too, is left out.
    """

    clicks: Clicks | None = field(default=None, repr=False)
    known: Known = field(default=NOTHING, repr=False)
    _views: dict[int, tuple[LakeView, Forms | None, Forms]] = field(
        default_factory=dict, init=False, repr=False
    )

    name: ClassVar[str] = "two-part ridge"
    shares_showing: ClassVar[bool] = False

    def _learn(self, outcomes: Outcomes) -> RidgeStanding:
        nobody = np.zeros((len(outcomes), 0))
        return fit_outcomes(outcomes, nobody, ItemIndex([]), np.zeros((1, 0)))

    def _with_particulars(
        self,
        lake: Lake | None,
        outcomes: Outcomes,
        certain: Outcomes,
        decisions: Decisions | pl.DataFrame | None,
        tell: Callable[..., None],
    ) -> Self:
        if lake is None:
            return self
        view = lake.before(outcomes.as_of)
        teaching = teaching_slots(self.signal, view, outcomes, decisions)
        if teaching is None and not self.knows:
            return replace(self, showing=without_slots(self.signal))
        index = LakeIndex(view, self.signal.entry.of) if teaching is None else teaching.index
        known = Known.of(view, index, self.knows)
        item_IW, key_KW = known.of_items(view, index)
        fitted = replace(self, known=known)
        if self.knows and self.signal.entry.of is not None:
            usable = certain.where(certain.known & certain.keys.is_not_null().to_numpy())
            user_NV = known.of_log(view, usable.frame["user_id"])
            standing = fit_outcomes(usable, user_NV, index.keys, key_KW)
            fitted = replace(fitted, standing=standing)
        if teaching is None:
            return replace(fitted, showing=without_slots(self.signal))
        slots = teaching.slots
        rows = teaching.taught
        clicks = fit_clicks(
            index,
            item_IW,
            slots.item_N[rows],
            slots.position_N[rows],
            slots.user_N[rows],
            slots.users,
            known.of_log(view, slots.users.ids),
            slots.played_N[rows],
        )
        showing = Showing(self.signal, association=False, slots=len(rows), surface=teaching.surface)
        return replace(fitted, showing=showing, clicks=clicks)

    def _slots(
        self, contexts: Contexts, slates: pl.Series, lake: Lake
    ) -> tuple[Int, Belief, Float]:
        showing = self._shown()
        view = showing.view(lake)
        row_NS, possible_NS, _ = showing.gain(contexts, slates, view)
        shape = row_NS.shape
        # alone, a slot is possible where its creator is not familiar, whatever stands above it
        owner_N = np.repeat(np.arange(shape[0]), shape[1])
        row_N = row_NS.ravel()
        if row_N.size and not showing.signal.entry.is_slot:
            flat = slates.explode(empty_as_null=False)
            alone = as_lists("slate", flat, np.arange(len(flat) + 1))
            possible_NS = showing.gain(contexts.take(owner_N), alone, view)[1].reshape(shape)
        clicks, days = self._forms(view)
        user_NV = self.known.of_users(contexts, lake)
        place_N = np.tile(np.arange(shape[1]), shape[0])
        key_N = np.append(view.index.key_row_I, -1)[row_N]
        state_NZ = states(user_NV[owner_N], np.zeros(len(owner_N), int))
        outcome = days.pairs(state_NZ, key_N)
        chance = np.ones(len(row_N)), np.zeros(len(row_N))
        if clicks is not None:
            chance = clicks.pairs(states(user_NV[owner_N], place_N), row_N)
        chance_NS, variance_NS, outcome_NS, outcome_variance_NS = (
            part.reshape(shape) for part in (*chance, *outcome)
        )
        key_NS = key_N.reshape(shape)
        value, comes_to_NS = self._product(
            key_NS, possible_NS, (chance_NS, variance_NS), (outcome_NS, outcome_variance_NS)
        )
        return key_NS, value, comes_to_NS

    def item_value(self, contexts: Contexts, items: pl.Series, lake: Lake) -> Belief:
        """See `EarlyModel.item_value`."""
        showing = self._shown()
        view = showing.view(lake)
        row_I = view.index.items.rows(items)
        possible_NI, _ = showing.catalogue_gain(contexts, view, row_I)
        clicks, days = self._forms(view)
        user_NV = self.known.of_users(contexts, lake)
        state_NZ = states(user_NV, np.zeros(len(user_NV), int))
        key_I = np.append(view.index.key_row_I, -1)[row_I]
        outcome_NK, variance_NK = days.all_pairs(state_NZ)
        chance = np.ones(possible_NI.shape), np.zeros(possible_NI.shape)
        if clicks is not None:
            chance_NI, variance_NI = clicks.all_pairs(state_NZ)
            chance = chance_NI[:, row_I], variance_NI[:, row_I]
        value, _ = self._product(
            None, possible_NI, chance, (outcome_NK[:, key_I], variance_NK[:, key_I])
        )
        return value

    def _product(
        self,
        key_NS: Int | None,
        possible_NS: Float,
        chance: tuple[Float, Float],
        outcome: tuple[Float, Float],
    ) -> tuple[Belief, Float]:
        """Values, and what entries come to (chance x mean), from means and variances of both parts, all
        [N, S].

        Args:
            key_NS: creators, where the slots of a row are shown together; None: each is alone.
            possible_NS: whether an entry is possible, 0 or 1.
            chance: that the slot is played.
            outcome: given an entry.
        """
        most = most_possible(self.signal)
        chance_NS = np.clip(chance[0], LEAST, 1.0)
        mean_NS = np.clip(outcome[0], LEAST, most)
        shown_NS = possible_NS * chance_NS
        gain_NS = shown_NS
        if key_NS is not None and not self.signal.entry.is_slot:
            shown_NS, gain_NS = paid_once(key_NS, shown_NS, np.zeros(shown_NS.shape), rho=1.0)
        # of a product: the relative errors of both
        std_NS = np.sqrt(outcome[1] + chance[1] * (mean_NS / chance_NS) ** 2)
        spread_NS = np.sqrt(outcome[1] + self._fitted().noise_std ** 2)
        if self.signal.binary:
            spread_NS = np.sqrt(mean_NS * (1.0 - mean_NS))
        value = worth(gain_NS, shown_NS, mean_NS, std_NS, spread_NS, most, self.signal.label)
        return value, shown_NS * mean_NS

    def _forms(self, view: LakeView) -> tuple[Forms | None, Forms]:
        """Predictions of plays by item and of outcomes by key in this view; kept for the last one."""
        if id(view) not in self._views:
            standing = self.standing
            assert isinstance(standing, RidgeStanding)
            index = view.index
            item_IW, key_KW = self.known.of_items(index.lake, index)
            keys = index.keys.ids.extend_constant(None, 1)
            clicks = None
            if self.clicks is not None:
                clicks = self.clicks.forms(index, item_IW, self.known.width)
            self._views.clear()
            self._views[id(view)] = view, clicks, standing.forms(keys, key_KW)
        return self._views[id(view)][1:]
