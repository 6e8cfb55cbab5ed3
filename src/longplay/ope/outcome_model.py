"""The outcome model of the doubly robust estimate: the expected outcome of any item in a slot.

It is a model of its own, not the early reward a policy was trained on: a policy exploits its
reward's errors, and would be praised for them twice. Cross-fitted by user: nobody's outcomes speak
for themselves. It only has to be useful; where it is wrong the estimate stays unbiased and its
interval grows. Axes: N slots, D decisions, F folds, I items, K keys (items or creators, by the
signal's entry), C features. The last row of arrays over items or keys, at -1, stands for the
unknown.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from longplay.arrays import Float, Int
from longplay.chance import keyed_bits
from longplay.decisions import learners_events
from longplay.lake.daily import DAY_US
from longplay.lake.lake import Lake
from longplay.lake.schema import ENGAGED
from longplay.ope.logged import Logged
from longplay.rewards.familiar import NEVER, LakeIndex
from longplay.signals.declare.declaration import Declaration

Predictor = Callable[[Float], Float]  # features [N, C] -> expected outcome [N]

FOLDS = 5
# a mean counts as if seen this often at the mean above it: item below key below everything
MEAN_SLOTS = 50.0
RIDGE_SLOTS = 1_000.0  # ridge penalty, as so many further slots without information
RECENT = 60  # engaged events that tell how active a user has been
LONG_AGO = 400.0  # days; a key never touched counts as touched then


@dataclass(frozen=True, eq=False)
class OutcomeModel:
    """q(x, slot, item): expected outcomes; each slot is predicted from users of other folds.
    `lines[f]` is null where fold f had no data."""

    slots: SlotFeatures
    means: FoldMeans
    fold_N: Int
    lines: tuple[Predictor | None, ...]

    def predict(self, items: pl.Series) -> Float:
        """Expected outcome of showing `items[n]` in slot n instead of what was shown, shape [N], in
        the outcome's unit.

        0 where an entry is impossible: what is familiar cannot be discovered.
        """
        item_N = self.slots.index.items.rows(items)
        possible_N = self.slots.possible(np.arange(len(item_N)), item_N)
        q_N = np.zeros(len(item_N))
        for fold, line in enumerate(self.lines):
            rows = np.flatnonzero((self.fold_N == fold) & possible_N)
            if line is not None and len(rows):
                q_N[rows] = line(self.slots.features(rows, item_N[rows], *self.means.without(fold)))
        return q_N


def fit_outcome_model(lake: Lake, signal: Declaration, logged: Logged) -> OutcomeModel:
    """The model of every fold: a ridge regression on features and their products, on the slots of
    the other folds.

    A training slot's own fold is left out of its item's and creator's means as well: no slot ever
    sees its own label.
    """
    slots = SlotFeatures.of(lake, signal, logged)
    item_N = slots.index.items.rows(logged.items)
    users = logged.contexts.frame["user_id"]
    fold_N = (keyed_bits("longplay: ope fold", users) % np.uint64(FOLDS)).astype(np.int64)[
        logged.decision_N
    ]
    possible_N = slots.possible(np.arange(len(logged)), item_N)
    means = FoldMeans.of(slots, item_N, logged.reward_N, fold_N, possible_N)
    lines: list[Predictor | None] = []
    for fold in range(FOLDS):
        other_folds = [
            (other, np.flatnonzero(possible_N & (fold_N == other)))
            for other in range(FOLDS)
            if other != fold
        ]
        rows = np.concatenate([rows for _, rows in other_folds])
        x_NC = np.concatenate(
            [
                slots.features(rows, item_N[rows], *means.without(fold, other))
                for other, rows in other_folds
            ]
        )
        lines.append(_ridge(x_NC, logged.reward_N[rows]) if len(rows) else None)
    return OutcomeModel(slots, means, fold_N, tuple(lines))


@dataclass(frozen=True, eq=False)
class SlotFeatures:
    """Features of any item in the logged slots, from data before the slate was drawn.

    `popularity_I`: log(1 + users who engaged), counted over users who are not scored, so that
    nobody's later plays leak; 0 where all are scored.
    """

    signal: Declaration
    index: LakeIndex
    popularity_I: Float
    user_N: Int
    time_N: Int
    slot_N: Int
    activity_N: Float

    @classmethod
    def of(cls, lake: Lake, signal: Declaration, logged: Logged) -> SlotFeatures:
        """The features of these logged slots."""
        index = LakeIndex(lake, signal.entry.of)
        frame = logged.contexts.frame
        user_D = index.users(frame["user_id"])
        time_D = frame["time"].dt.epoch("us").to_numpy()
        activity_D = np.log1p(np.diff(index.recent(user_D, time_D, RECENT).indptr))
        d_N = logged.decision_N
        if logged.users == "held out":
            popularity_I = _popularity(lake, index)
        else:
            popularity_I = np.zeros(len(index.items) + 1)
        return cls(
            signal, index, popularity_I, user_D[d_N], time_D[d_N], logged.slot_N, activity_D[d_N]
        )

    def keys(self, item_N: Int) -> Int:
        """Key of each item; -1 where it has none or is unknown."""
        return np.append(self.index.key_row_I, -1)[item_N]

    def possible(self, rows: Int, item_N: Int) -> NDArray[np.bool_]:
        """Whether showing `item_N` in the slots `rows` can lead to an entry."""
        if not self.signal.entry.is_discovery:
            return np.ones(len(rows), dtype=bool)
        key_N = self.keys(item_N)
        familiar_N = self.index.familiar(
            self.user_N[rows], key_N, self.time_N[rows], self.signal.entry.novel_for
        )
        return ~familiar_N & ~((item_N >= 0) & (key_N < 0))

    def features(self, rows: Int, item_N: Int, item_mean_I: Float, key_mean_K: Float) -> Float:
        """[N, C] of `item_N` in the slots `rows`: slot, item mean, key mean, popularity, days since
        the key's last touch, activity, day."""
        key_N = self.keys(item_N)
        time_N = self.time_N[rows]
        last_N = self.index.last_touch(self.user_N[rows], key_N, time_N)
        ago_N = np.where(
            last_N == NEVER,
            LONG_AGO,
            np.minimum((time_N - np.maximum(last_N, 0)) / DAY_US, LONG_AGO),
        )
        columns = (
            self.slot_N[rows],
            item_mean_I[item_N],
            key_mean_K[key_N],
            self.popularity_I[item_N],
            np.log1p(ago_N),
        )
        return np.column_stack([*columns, self.activity_N[rows], time_N / DAY_US]).astype(float)


@dataclass(frozen=True, eq=False)
class FoldMeans:
    """Number of slots and sum of outcomes per fold, for every item and every key."""

    count_FI: Float
    sum_FI: Float
    count_FK: Float
    sum_FK: Float
    key_I: Int

    @classmethod
    def of(
        cls,
        slots: SlotFeatures,
        item_N: Int,
        reward_N: Float,
        fold_N: Int,
        use_N: NDArray[np.bool_],
    ) -> FoldMeans:
        """The sums over the logged slots where `use_N` holds."""

        def by_fold(row_N: Int, amount_N: Float, n: int) -> Float:
            # -1 % n is the last
            cells = np.bincount(
                fold_N[use_N] * n + row_N[use_N] % n, weights=amount_N[use_N], minlength=FOLDS * n
            )
            return cells.astype(float).reshape(FOLDS, n)

        ones_N = np.ones(len(item_N))
        key_N = slots.keys(item_N)
        key_I = np.append(slots.index.key_row_I, -1)
        items = len(slots.index.items) + 1
        keys = len(slots.index.keys) + 1
        item = by_fold(item_N, ones_N, items), by_fold(item_N, reward_N, items)
        return cls(*item, by_fold(key_N, ones_N, keys), by_fold(key_N, reward_N, keys), key_I)

    def without(self, *folds: int) -> tuple[Float, Float]:
        """Mean outcome per slot of every item [I + 1] and key [K + 1] over the other folds, each
        shrunk to the level above."""
        keep = np.setdiff1d(np.arange(FOLDS), folds)
        count_K = self.count_FK[keep].sum(0)
        sum_K = self.sum_FK[keep].sum(0)
        base = sum_K.sum() / max(count_K.sum(), 1.0)
        key_mean_K = (sum_K + MEAN_SLOTS * base) / (count_K + MEAN_SLOTS)
        count_I = self.count_FI[keep].sum(0)
        sum_I = self.sum_FI[keep].sum(0)
        return (sum_I + MEAN_SLOTS * key_mean_K[self.key_I]) / (count_I + MEAN_SLOTS), key_mean_K


def _popularity(lake: Lake, index: LakeIndex) -> Float:
    engaged = learners_events(lake).filter(
        pl.col("kind").is_in(ENGAGED) & pl.col("item_id").is_not_null()
    )
    counts = engaged.select("user_id", "item_id").unique().group_by("item_id").len()
    popularity_I = np.zeros(len(index.items) + 1)
    popularity_I[index.items.rows(counts["item_id"])] = np.log1p(counts["len"].to_numpy())
    return popularity_I


def _ridge(x_NC: Float, y_N: Float) -> Predictor:
    """Ridge regression (Hoerl & Kennard 1970) on standardised features and their products.
    Predictions do not extrapolate beyond the features seen."""
    low_C, high_C = np.quantile(x_NC, [0.01, 0.99], axis=0)
    clipped_NC = np.clip(x_NC, low_C, high_C)
    centre_C = clipped_NC.mean(0)
    scale_C = np.maximum(clipped_NC.std(0), 1e-9)
    left, right = np.triu_indices(x_NC.shape[1])

    def expand(x_NC: Float) -> Float:
        z_NC = (np.clip(x_NC, low_C, high_C) - centre_C) / scale_C
        return np.hstack([z_NC, z_NC[:, left] * z_NC[:, right]])

    design_NC = expand(x_NC)
    middle_C = design_NC.mean(0)
    mean = float(y_N.mean())
    design_NC -= middle_C
    weight_C = np.linalg.solve(
        design_NC.T @ design_NC + RIDGE_SLOTS * np.eye(design_NC.shape[1]),
        design_NC.T @ (y_N - mean),
    )
    return lambda x_NC: mean + (expand(x_NC) - middle_C) @ weight_C
