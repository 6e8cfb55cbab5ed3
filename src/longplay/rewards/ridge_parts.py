"""The parts of the two-part ridge: smoothed rates, what is known of users and items, and the regressions on
them.

Axes as in `longplay.rewards.ridge_regression`; I items and K creators (or items that entries are about)
of a lake, whose last row stands for unknown ones.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import polars as pl
from scipy import special

from longplay.arrays import Bool, Float, Int
from longplay.chance import keyed_uniform
from longplay.decisions import Contexts
from longplay.index import ItemIndex
from longplay.lake.known import Scaling, as_matrix, item_vectors, user_vectors
from longplay.lake.lake import Lake
from longplay.rewards.early import sum_by
from longplay.rewards.familiar import LakeIndex
from longplay.rewards.progressive import by_key
from longplay.rewards.ridge_regression import FOLDS, Forms, RidgeFit, designs, states
from longplay.signals.outcomes.in_memory import Outcomes

SMOOTHING_SLOTS = 50.0  # slots at the creator's rate that an item begins with
SMOOTHING_ENTRIES = 20.0  # entries at the mean outcome that a creator begins with


@dataclass(frozen=True, eq=False)
class Known:
    """What the service knows of users and items, as far as it was declared, in one scale."""

    users: Scaling
    items: Scaling

    @classmethod
    def of(cls, lake: Lake, index: LakeIndex, knows: Collection[str]) -> Self:
        """The scales of the vectors in a lake, as far as they were declared.

        Args:
            lake: where users and items are described.
            index: its items.
            knows: "users" and "items", whose vectors may be read.
        """
        user_UV = np.zeros((0, 0))
        item_IW = np.zeros((0, 0))
        if "users" in knows and lake.watermark is not None:
            users = lake.descriptions("users")["user_id"].unique().sort()
            user_UV = user_vectors(lake, users, lake.watermark)
        if "items" in knows:
            item_IW = item_vectors(lake, index.items.ids)
        return cls(Scaling.of(user_UV), Scaling.of(item_IW))

    @property
    def width(self) -> int:
        """V, the length of users' factors."""
        return len(self.users.mean_C)

    def of_items(self, lake: Lake, index: LakeIndex) -> tuple[Float, Float]:
        """Factors of the lake's items and of its creators, [I + 1, W] and [K + 1, W]; those of a
        creator are the mean of the items'. What is not known is 0, the mean."""
        width = len(self.items.mean_C)
        item_IW = np.zeros((len(index.items) + 1, width))
        key_KW = np.zeros((len(index.keys) + 1, width))
        if not width:
            return item_IW, key_KW
        item_IW[:-1] = self.items.scaled(item_vectors(lake, index.items.ids))
        has_key = index.key_row_I >= 0
        key_I = index.key_row_I[has_key]
        count_K = np.maximum(np.bincount(key_I, minlength=len(index.keys)), 1)
        for w in range(width):
            key_KW[:-1, w] = sum_by(key_I, item_IW[:-1][has_key, w], len(index.keys)) / count_K
        return item_IW, key_KW

    def of_log(self, lake: Lake, user_ids: pl.Series) -> Float:
        """Factors of users as they are known at the end of a log, [N, V]."""
        if not self.width:
            return np.zeros((len(user_ids), 0))
        assert lake.watermark is not None  # the lake has users
        return self.users.scaled(user_vectors(lake, user_ids, lake.watermark))

    def of_users(self, contexts: Contexts, lake: Lake) -> Float:
        """Factors of the contexts' users as they were known at the time, [N, V]."""
        if not self.width:
            return np.zeros((len(contexts), 0))
        frame = contexts.known_from(lake).frame
        return self.users.scaled(as_matrix(frame["user_vector"], frame["user_id"]))


NOTHING = Known(Scaling(np.zeros(0), np.ones(0)), Scaling(np.zeros(0), np.ones(0)))


@dataclass(frozen=True, eq=False)
class RidgeStanding:
    """The outcome given an entry, by creator (or item).

    Attributes:
        fit: the regression of outcomes.
        base: mean of all mature outcomes.
        ratio: variance of outcomes between keys over that within.
        width: length of users' factors.
        known: keys whose factors were known when the regression was fitted, by row.
        known_KW: their factors, and last the mean.
        index: keys with mature entries, by row.
        mean_K: their smoothed means, and last `base`.
        entries_K: number of their mature entries, and last 0.
    """

    fit: RidgeFit
    base: float
    ratio: float
    width: int
    known: ItemIndex
    known_KW: Float
    index: ItemIndex
    mean_K: Float
    entries_K: Float

    @property
    def noise_std(self) -> float:
        """Std of single outcomes around what is predicted."""
        return self.fit.noise_std

    def observe(self, outcomes: Outcomes, observed_N: Int) -> RidgeStanding:
        """Smoothed means of the entries whose window has closed; others say nothing."""
        mature = outcomes.where(
            (observed_N >= outcomes.signal.days)
            & outcomes.known
            & outcomes.keys.is_not_null().to_numpy()
        )
        index, row_N = by_key(mature)
        entries_K = np.bincount(row_N, minlength=len(index)).astype(float)
        total_K = sum_by(row_N, mature.value, len(index))
        return replace(
            self,
            index=index,
            mean_K=np.append(smoothed(total_K, entries_K, self.base, SMOOTHING_ENTRIES), self.base),
            entries_K=np.append(entries_K, 0.0),
        )

    def forms(self, ids: pl.Series, vector_KW: Float) -> Forms:
        """Predictions about these keys with these factors."""
        row_K = self.index.rows(ids)
        information_K = 1.0 + self.entries_K[row_K] * self.ratio
        error_K = self.noise_std * np.sqrt(self.ratio / information_K)
        return self.fit.forms(designs(self.mean_K[row_K][:, None], vector_KW, self.width), error_K)

    def items(self) -> tuple[Float, Float]:
        """See `ItemBeliefs`: for a usual user."""
        ids = self.index.ids.extend_constant(None, 1)
        forms = self.forms(ids, self.known_KW[self.known.rows(ids)])
        mean_K, variance_K = forms.all_pairs(states(np.zeros((1, self.width)), np.zeros(1, int)))
        return mean_K[0], np.sqrt(variance_K[0])

    def entries(
        self, row_N: Int, outcomes: Outcomes, observed_N: Int
    ) -> tuple[Float, Float, Float]:
        """See `ItemBeliefs`: the observed days of an open window say nothing."""
        mean_K, std_K = self.items()
        return mean_K[row_N], std_K[row_N], np.full(len(row_N), self.noise_std)


@dataclass(frozen=True, eq=False)
class ClickRates:
    """How often items were played where they were shown.

    Attributes:
        items: items by row.
        rate_I: plays per slot of each item, smoothed towards its creator's.
        slots_I: slots that it was shown in.
        keys: creators by row.
        rate_K: plays per slot of each creator, smoothed towards the usual; last the usual.
    """

    items: ItemIndex
    rate_I: Float
    slots_I: Float
    keys: ItemIndex
    rate_K: Float

    def rates(self, index: LakeIndex) -> tuple[Float, Float]:
        """The rate of each of the lake's items and its standard error, both [I + 1]; last, of unknown
        items."""
        row_I = np.append(self.items.rows(index.items.ids), -1)
        model_key_K = np.append(self.keys.rows(index.keys.ids), -1)
        key_I = model_key_K[np.append(index.key_row_I, -1)]
        rate_I = np.where(row_I < 0, self.rate_K[key_I], np.append(self.rate_I, 0.0)[row_I])
        slots_I = np.append(self.slots_I, 0.0)[row_I]
        return rate_I, np.sqrt(rate_I * (1.0 - rate_I) / (slots_I + SMOOTHING_SLOTS))


@dataclass(frozen=True, eq=False)
class Clicks:
    """The chance that a slot is played: rates of items, and the regression on them."""

    rates: ClickRates
    fit: RidgeFit

    def forms(self, index: LakeIndex, item_IW: Float, width: int) -> Forms:
        """Predictions about the lake's items, and last about unknown ones."""
        rate_I, error_I = self.rates.rates(index)
        return self.fit.forms(designs(_rate_features(rate_I), item_IW, width), error_I)


def fit_outcomes(
    outcomes: Outcomes, user_NV: Float, known: ItemIndex, known_KW: Float
) -> RidgeStanding:
    """The ridge regression of mature outcomes on their creators' means and what is known.

    Args:
        outcomes: N of them, all with a value and a key.
        user_NV: factors of their users.
        known: keys that factors are known of, by row.
        known_KW: these factors, and last the mean.
    """
    y_N = outcomes.value
    base = float(y_N.mean())
    index, row_N = by_key(outcomes)
    vector_KW = known_KW[known.rows(index.ids)]
    half_N, fold_N = _halves_and_folds(outcomes.frame["user_id"])
    versions = []
    for half in (0, 1):
        other = half_N != half
        total_K = sum_by(row_N[other], y_N[other], len(index))
        entries_K = np.bincount(row_N[other], minlength=len(index))
        mean_K = smoothed(total_K, entries_K, base, SMOOTHING_ENTRIES)
        versions.append(designs(mean_K[:, None], vector_KW, user_NV.shape[1]))
    state_NZ = states(user_NV, np.zeros(len(y_N), int))
    fit = RidgeFit.of(np.stack(versions), half_N, row_N, state_NZ, y_N, fold_N)
    standing = RidgeStanding(
        fit,
        base,
        between_over_within(row_N, y_N),
        user_NV.shape[1],
        known,
        known_KW,
        ItemIndex([]),
        np.array([base]),
        np.zeros(1),
    )
    return standing.observe(outcomes, outcomes.observed())


def fit_clicks(
    index: LakeIndex,
    item_IW: Float,
    item_N: Int,
    slot_N: Int,
    user_N: Int,
    users: ItemIndex,
    user_UV: Float,
    played_N: Float,
) -> Clicks:
    """The ridge regression of plays on rates and what is known.

    Args:
        index: of the lake.
        item_IW: factors of its items; last the mean.
        item_N: row of each slot's item, whose creator is known.
        slot_N: place of each slot.
        user_N: row of its user.
        users: users by row.
        user_UV: factors of the users.
        played_N: whether the slot was played, 0 or 1.
    """
    half_U, fold_U = _halves_and_folds(users.ids)
    half_N = half_U[user_N]
    everyone = _click_rates(index, item_N, played_N, np.ones(len(item_N), dtype=bool))
    versions = []
    for half in (0, 1):
        rates = _click_rates(index, item_N, played_N, half_N != half)
        rate_I, _ = rates.rates(index)
        versions.append(designs(_rate_features(rate_I), item_IW, user_UV.shape[1]))
    state_NZ = states(user_UV[user_N], slot_N)
    fit = RidgeFit.of(np.stack(versions), half_N, item_N, state_NZ, played_N, fold_U[user_N])
    return Clicks(everyone, fit)


def smoothed(total_L: Float, count_L: Float | Int, prior_L: Float | float, weight: float) -> Float:
    """Means that begin with `weight` observations at the prior.

    >>> smoothed(np.array([3.0, 0.0]), np.array([4.0, 0.0]), 0.25, 4.0).tolist()
    [0.5, 0.25]
    """
    return (total_L + weight * prior_L) / (count_L + weight)


def between_over_within(row_N: Int, y_N: Float) -> float:
    """Variance of y between groups over that within, from moments (one-way analysis of variance)."""
    count_K = np.bincount(row_N).astype(float)
    mean_K = np.bincount(row_N, weights=y_N) / count_K
    n, groups = len(y_N), len(count_K)
    within = float(((y_N - mean_K[row_N]) ** 2).sum()) / max(n - groups, 1)
    between = float((count_K * (mean_K - y_N.mean()) ** 2).sum())
    size = n - float((count_K**2).sum()) / n
    if within <= 0 or size <= 0:
        return 0.0
    return max(between - (groups - 1) * within, 0.0) / size / within


def _click_rates(index: LakeIndex, item_N: Int, played_N: Float, used_N: Bool) -> ClickRates:
    """Rates of the lake's items from the slots that are used."""
    rows, y_N = item_N[used_N], played_N[used_N]
    keys = len(index.keys)
    usual = float((y_N.sum() + 0.5) / (len(y_N) + 1.0))
    key_N = index.key_row_I[rows]
    key_plays_K, key_slots_K = sum_by(key_N, y_N, keys), np.bincount(key_N, minlength=keys)
    rate_K = np.append(smoothed(key_plays_K, key_slots_K, usual, SMOOTHING_SLOTS), usual)
    slots_I = np.bincount(rows, minlength=len(index.items)).astype(float)
    plays_I = sum_by(rows, y_N, len(index.items))
    rate_I = smoothed(plays_I, slots_I, rate_K[index.key_row_I], SMOOTHING_SLOTS)
    return ClickRates(index.items, rate_I, slots_I, index.keys, rate_K)


def _rate_features(rate_I: Float) -> Float:
    """Log odds and chance of a play, [I, 2]."""
    return np.column_stack([special.logit(np.clip(rate_I, 1e-6, 1 - 1e-6)), rate_I])


def _halves_and_folds(user_ids: pl.Series) -> tuple[Int, Int]:
    """Half (0 or 1) and fold of each user, by a hash of the id."""
    half_N = (keyed_uniform("longplay: halves of a ridge", user_ids) < 0.5).astype(np.int64)
    fold_N = (keyed_uniform("longplay: folds of a ridge", user_ids) * FOLDS).astype(np.int64)
    return half_N, fold_N
