"""The value of showing: what a slot adds to the chance of an entry, times what an entry is worth.

Value = P(entry within a day | shown) E[Y | entry] - P(entry within a day | not shown) rho E[Y |
entry]: the same day in both, so a merely delayed organic discovery counts for nothing.
P(entry | shown) is a logistic regression on the log's slots, P(entry | not shown) the organic
discovery rate of that creator or item per active user-day at risk, and rho the ratio of what
organic entries come to, to what recommended ones do.

A creator can be discovered once. In a slate, a slot is paid for the chance that it causes the entry
and no slot of the same creator above it did; what would have happened anyway is taken off once. So
the slots of a creator sum to what the slate adds, P(entry | slate) E[Y | entry] - P(entry | not
shown) rho E[Y | entry].
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse, special

from longplay.arrays import Float, Int
from longplay.belief import Belief
from longplay.decisions import Contexts
from longplay.errors import ConfigError, DataError
from longplay.index import ItemIndex
from longplay.lake.lake import Lake
from longplay.rewards.familiar import LakeIndex
from longplay.signals.outcomes.once import left_by_slots_above
from longplay.signals.signal import Signal

HISTORY = 60  # items of history that make a user's taste
DIMS = 16  # of an item vector
FEATURES = ("position", "item_rate", "affinity", "no_history", "popularity")


@dataclass(frozen=True, eq=False)
class LakeView:
    """A lake's look-ups, and where its items and keys stand in a fitted model.

    Attributes:
        index: the look-ups.
        item_row_I: row in the model of each item of the lake, -1 for items that the model does not
            know; the last is -1, for items that the lake does not know.
        key_row_K: the same of creators or items that entries are about.
    """

    index: LakeIndex
    item_row_I: Int
    key_row_K: Int


@dataclass(frozen=True, eq=False)
class Showing:
    """The fitted model of showing for one signal.

    Attributes:
        signal: whose entries are modelled.
        association: True where the log had no decisions: P(entry | shown) is unknown, `gain` is 1
            for the unfamiliar, and the value says what goes with a discovery, not what showing
            causes.
        rho: mean outcome of organic entries over that of recommended ones, same keys.
        slots: slots the entry model was fitted on.
        items: items the model knows, by row.
        keys: creators or items the entries are about, by row.
        weights_F: of the entry model's features.
        intercept: of the entry model, logit.
        range_2F: least and most of each feature in training; values beyond are cut.
        rate_logit_I: how often an item leads to an entry where it is shown, logit.
        popularity_I: log of 1 plus the users who touched the item.
        vector_IR: item vectors, for how near an item is to a history.
        organic_K: chance of an entry within a day without showing.
    """

    signal: Signal
    association: bool
    rho: float = 1.0
    slots: int = 0
    items: ItemIndex = field(default_factory=lambda: ItemIndex([]), repr=False)
    keys: ItemIndex = field(default_factory=lambda: ItemIndex([]), repr=False)
    weights_F: Float = field(default_factory=lambda: np.zeros(len(FEATURES)))
    intercept: float = 0.0
    range_2F: Float = field(default_factory=lambda: np.array([[-np.inf], [np.inf]]), repr=False)
    rate_logit_I: Float = field(default_factory=lambda: np.zeros(1), repr=False)
    popularity_I: Float = field(default_factory=lambda: np.zeros(1), repr=False)
    vector_IR: Float = field(default_factory=lambda: np.zeros((1, DIMS)), repr=False)
    organic_K: Float = field(default_factory=lambda: np.zeros(1), repr=False)
    _views: dict[object, LakeView] = field(default_factory=dict, init=False, repr=False)

    def view(self, lake: Lake) -> LakeView:
        """The lake's look-ups, built once per view of the lake; the last two are kept."""
        key = lake.key
        if key not in self._views:
            while len(self._views) > 1:
                self._views.pop(next(iter(self._views)))
            index = LakeIndex(lake, self.signal.entry.of)
            item_row_I = np.append(self.items.rows(index.items.ids), -1)
            key_row_K = np.append(self.keys.rows(index.keys.ids), -1)
            self._views[key] = LakeView(index, item_row_I, key_row_K)
        return self._views[key]

    def gain(
        self, contexts: Contexts, slates: pl.Series, view: LakeView
    ) -> tuple[Int, Float, Float]:
        """Catalogue row (-1 unknown), the chance that the slot has the entry, and the factor on E[Y
        | entry]; each [N, S].

        The first slot of a creator has the entry with the chance P(entry | shown) and the factor
        p_shown - rho p_not; a later one has what the slots above it left: see `paid_once`. A
        familiar creator or item cannot be discovered: chance and factor are exactly 0. So are they
        for an item whose creator is unknown, where entries are about creators. Without decisions
        the outcome is given a discovery: the first slot of a creator counts 1, later ones 0.

        Raises:
            DataError: slates of different lengths, or not one per context.
            ConfigError: the signal's entries are about users.
        """
        entry = self.signal.entry
        index = view.index
        if entry.of is None or entry.is_event:
            about = (
                "events, of which showing is one cause among others"
                if entry.is_event
                else "about a user, so no slot owns them"
            )
            raise ConfigError(
                f"{self.signal.name}: entries of kind {entry.kind} are {about}; value() needs "
                "discovery or exposure"
            )
        lengths = slates.list.len().unique().to_list()
        if len(slates) != len(contexts) or len(lengths) > 1:
            raise DataError(
                f"value: {len(slates)} slates of lengths {lengths} for {len(contexts)} contexts; "
                "expected one slate per context, equally long"
            )
        slots = int(lengths[0]) if lengths else 0
        row_N = index.slots(slates) if slots else np.zeros(0, dtype=np.int64)
        row_NS = row_N.reshape(len(slates), slots)
        if entry.is_slot:
            return row_NS, np.ones(row_NS.shape), np.ones(row_NS.shape)
        frame = contexts.frame
        user_N = index.users(frame["user_id"])
        time_N = frame["time"].dt.epoch("us").to_numpy()
        owner_N = np.repeat(np.arange(len(slates)), slots)
        key_N = np.append(index.key_row_I, -1)[row_N]
        familiar_N = index.familiar(user_N[owner_N], key_N, time_N[owner_N], entry.novel_for)
        without_creator_N = (row_N >= 0) & (key_N < 0)
        key_NS = key_N.reshape(row_NS.shape)
        impossible_NS = (familiar_N | without_creator_N).reshape(row_NS.shape)
        if self.association:
            possible_NS = np.where(impossible_NS, 0.0, 1.0)
            return row_NS, *paid_once(key_NS, possible_NS, np.zeros(row_NS.shape), rho=1.0)
        taste_NR, empty_N = self.taste(frame["history"], user_N, time_N, view)
        shown_N = self._entry_chance(
            view.item_row_I[row_N],
            np.tile(np.arange(slots), len(slates)),
            taste_NR[owner_N],
            empty_N[owner_N],
        )
        not_shown_N = self.organic_K[view.key_row_K[key_N]]
        shown_NS = np.where(impossible_NS, 0.0, shown_N.reshape(row_NS.shape))
        not_shown_NS = np.where(impossible_NS, 0.0, not_shown_N.reshape(row_NS.shape))
        return row_NS, *paid_once(key_NS, shown_NS, not_shown_NS, self.rho)

    def taste(
        self, history: pl.Series, user_N: Int, time_N: Int, view: LakeView
    ) -> tuple[Float, NDArray[np.bool_]]:
        """Mean item vector of each context's history [N, R], and whether there is none [N].

        The history is that of the context. A policy that looks at no history logs none; then it is
        the user's last events in the lake before the context.
        """
        count_NI = view.index.histories(history, HISTORY)
        has_history_N = np.diff(count_NI.indptr) > 0
        if not has_history_N.all():
            rest = np.flatnonzero(~has_history_N)
            select = sparse.csr_matrix(
                (np.ones(len(rest)), (rest, np.arange(len(rest)))),
                shape=(len(has_history_N), len(rest)),
            )
            count_NI = (
                count_NI + select @ view.index.recent(user_N[rest], time_N[rest], HISTORY)
            ).tocsr()
        size_N = np.asarray(count_NI.sum(axis=1)).ravel()
        sum_NR = np.asarray(count_NI @ self.vector_IR[view.item_row_I[:-1]])
        return sum_NR / np.maximum(size_N, 1)[:, None], size_N == 0

    def _entry_chance(
        self, item_N: Int, position_N: Int, taste_NR: Float, empty_N: NDArray[np.bool_]
    ) -> Float:
        features_NF = features(
            item_N,
            position_N,
            taste_NR,
            empty_N,
            self.rate_logit_I[item_N],
            self.popularity_I,
            self.vector_IR,
        )
        # cut to the range of training: no extrapolation to items unlike all that were shown
        features_NF = np.clip(features_NF, *self.range_2F)
        return special.expit(features_NF @ self.weights_F + self.intercept)


def features(
    item_N: Int,
    position_N: Int,
    taste_NR: Float,
    empty_N: NDArray[np.bool_],
    rate_logit_N: Float,
    popularity_I: Float,
    vector_IR: Float,
) -> Float:
    """The entry model's features [N, F], in the order of FEATURES.

    log(1 + slot), log-odds of the item's entry rate, cosine of taste and item, no history (0 or 1),
    log(1 + users).
    """
    vector_NR = vector_IR[item_N]
    norm_N = np.linalg.norm(vector_NR, axis=1) * np.linalg.norm(taste_NR, axis=1)
    affinity_N = np.einsum("nr,nr->n", vector_NR, taste_NR) / np.maximum(norm_N, 1e-12)
    return np.column_stack(
        [
            np.log1p(position_N),
            rate_logit_N,
            affinity_N,
            empty_N.astype(float),
            popularity_I[item_N],
        ]
    )


def paid_once(key_NS: Int, shown_NS: Float, not_shown_NS: Float, rho: float) -> tuple[Float, Float]:
    """The chance that each slot has the entry, and the factor on E[Y | entry] that it is paid; both
    [N, S].

    Slots of one key cause its entry independently of each other and of an organic entry: slot k
    with chance c_k = (p_k - q) / (1 - q). With U_k, the product of 1 - c_j over the slots j above k
    of the same key, the first slot of a key has the chance p_1 and is paid p_1 - rho q, a later one
    has and is paid U_k (p_k - q). The chances of a key sum to P(entry | slate) = 1 - (1 - q) x
    product of all its 1 - c_k, in any order of its slots; the factors to that less rho q: what
    would have happened anyway is taken off once.

    Args:
        key_NS: row of each slot's creator or item; -1, unknown, is nobody else's.
        shown_NS: P(entry within a day | shown alone), p.
        not_shown_NS: P(entry within a day | not shown), q.
        rho: mean outcome of organic entries over that of recommended ones.

    >>> key, shown = np.array([[7, 7, 2, 7]]), np.array([[0.5, 0.4, 0.3, 0.2]])
    >>> chance, factor = paid_once(key, shown, np.zeros((1, 4)), rho=1.0)
    >>> factor.round(3).tolist()                      # .5, then .4 x .5, another creator, and .2 x .5 x .6
    [[0.5, 0.2, 0.3, 0.06]]
    >>> float(factor[0, [0, 1, 3]].sum().round(3)), 1 - 0.5 * 0.6 * 0.8
    (0.76, 0.76)
    """
    # a slot that lowers the chance of an entry leaves no more to those below than there was
    caused_NS = np.clip((shown_NS - not_shown_NS) / np.maximum(1.0 - not_shown_NS, 1e-12), 0.0, 1.0)
    left_NS, repeated_NS = left_by_slots_above(key_NS, caused_NS)
    later_NS = left_NS * (shown_NS - not_shown_NS)
    chance_NS = np.where(repeated_NS, np.maximum(later_NS, 0.0), shown_NS)
    return chance_NS, np.where(repeated_NS, later_NS, shown_NS - rho * not_shown_NS)


def worth(
    gain_NS: Float,
    chance_NS: Float,
    mean_NS: Float,
    std_NS: Float,
    spread_NS: Float,
    most: float,
    label: str,
) -> Belief:
    """Beliefs about the outcome given an entry, turned into beliefs about the value of showing; all
    [N, S].

    The bound of the product is the product of the bound: std scales with |gain| and the floor is
    gain times the least outcome (0; the largest, `most`, where showing harms), so `lower` is gain x
    max(mean - caution std, 0): it never falls when the chance of an entry rises.

    >>> outcome = np.array([[[0.4, 0.4]], [[0.1, 0.1]], [[0.5, 0.5]]])     # mean, std, spread of two slots
    >>> worth(np.array([[0.5, -0.1]]), np.array([[0.6, 0.1]]), *outcome, 1.0, "habit").lower(1.0).round(3)
    array([[ 0.15, -0.05]])
    """
    value_std_NS = np.abs(gain_NS) * std_NS
    # of a product: whether there is an entry, and its outcome
    variance_NS = chance_NS * (spread_NS**2 + mean_NS**2) - (chance_NS * mean_NS) ** 2
    if np.isfinite(most):
        extreme_NS = gain_NS * most
    else:
        extreme_NS = np.where(gain_NS == 0, 0.0, np.copysign(np.inf, gain_NS))
    return Belief(
        mean=gain_NS * mean_NS,
        std=value_std_NS,
        spread=np.maximum(np.sqrt(np.maximum(variance_NS, 0.0)), value_std_NS),
        age=-1,
        signal=label,
        minimum=np.minimum(extreme_NS, 0.0),
        maximum=np.maximum(extreme_NS, 0.0),
    )
