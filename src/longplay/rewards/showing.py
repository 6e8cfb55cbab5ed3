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

import hashlib
from dataclasses import dataclass, field, replace
from typing import cast

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse, special
from sklearn.linear_model import LogisticRegression
from sklearn.utils.extmath import randomized_svd

from longplay.arrays import Float, Int
from longplay.belief import Belief
from longplay.decisions import Contexts, Decisions, main_surface
from longplay.errors import ConfigError, DataError
from longplay.index import ItemIndex
from longplay.lake.lake import Lake
from longplay.lake.schema import ENGAGED
from longplay.rewards.familiar import LakeIndex
from longplay.signals.outcomes.in_memory import ENTRY_HORIZON, Outcomes
from longplay.signals.outcomes.once import left_by_slots_above
from longplay.signals.signal import Signal

HISTORY = 60  # items of history that make a user's taste
DIMS = 16
RATE_SLOTS = (
    50.0  # an item's entry rate is smoothed as if it had been shown this often at the base rate
)
FOLDS = 5
MAX_SLOTS = 200_000  # slots the logistic regression is fitted on
LEAST_ALONE = (
    1_000  # slots alone with their creator below which those that share a slate teach, too
)
MIN_EACH = 50  # mature entries of either origin before rho leaves 1
RHO_SPREAD = 0.5  # prior std of log rho
FEATURES = ("position", "item_rate", "affinity", "no_history", "popularity")


@dataclass(frozen=True, eq=False)
class LakeView:
    """A lake's look-ups, with the rows of its items and keys in the fitted model; last, as
    everywhere, -1 for the unknown."""

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
            item_row_I, key_row_K = self.items.rows(index.items.ids), self.keys.rows(index.keys.ids)
            self._views[key] = LakeView(index, np.append(item_row_I, -1), np.append(key_row_K, -1))
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
        entry, index = self.signal.entry, view.index
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
        user_N, time_N = index.users(frame["user_id"]), frame["time"].dt.epoch("us").to_numpy()
        owner_N = np.repeat(np.arange(len(slates)), slots)
        key_N = np.append(index.key_row_I, -1)[row_N]
        impossible_N = index.familiar(user_N[owner_N], key_N, time_N[owner_N], entry.novel_for) | (
            (row_N >= 0) & (key_N < 0)
        )
        key_NS, impossible_NS = key_N.reshape(row_NS.shape), impossible_N.reshape(row_NS.shape)
        if self.association:
            possible_NS = np.where(impossible_NS, 0.0, 1.0)
            return row_NS, *paid_once(key_NS, possible_NS, np.zeros(row_NS.shape), rho=1.0)
        taste_NR, empty_N = self._taste(frame["history"], user_N, time_N, view)
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

    def _taste(
        self, history: pl.Series, user_N: Int, time_N: Int, view: LakeView
    ) -> tuple[Float, NDArray[np.bool_]]:
        """Mean item vector of each context's history [N, R], and whether there is none.

        The context's own history where it has one, else the user's events in the lake strictly
        before it (a policy that looks at no history logs none).
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
        return np.asarray(count_NI @ self.vector_IR[view.item_row_I[:-1]]) / np.maximum(size_N, 1)[
            :, None
        ], size_N == 0

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
        features_NF = np.clip(
            features_NF, *self.range_2F
        )  # a new item must not be judged by a line drawn far from all that was shown
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
    variance_NS = (
        chance_NS * (spread_NS**2 + mean_NS**2) - (chance_NS * mean_NS) ** 2
    )  # an entry by chance, then its outcome
    extreme_NS = (
        gain_NS * most
        if np.isfinite(most)
        else np.where(gain_NS == 0, 0.0, np.copysign(np.inf, gain_NS))
    )
    return Belief(
        mean=gain_NS * mean_NS,
        std=value_std_NS,
        spread=np.maximum(np.sqrt(np.maximum(variance_NS, 0.0)), value_std_NS),
        age=-1,
        signal=label,
        minimum=np.minimum(extreme_NS, 0.0),
        maximum=np.maximum(extreme_NS, 0.0),
    )


def fit_showing(
    signal: Signal,
    lake: Lake,
    outcomes: Outcomes,
    decisions: Decisions | pl.DataFrame | None = None,
) -> Showing:
    """The showing model as of `outcomes.as_of`: nothing later is looked at. Slots count on the
    surface that has the most.

    Item vectors come from one half of the users and the regression from the other half's slots; an
    item's entry rate comes, for each slot, from users of other folds: no slot sees its own label.
    Where a creator has several slots of a slate, nobody knows which of them caused its entry: see
    `_single_labels`.
    """
    view = lake.before(outcomes.as_of)
    if decisions is None:
        decisions = view.decisions
    frame = decisions.frame if isinstance(decisions, Decisions) else decisions
    of = signal.entry.of
    if of is None or not signal.entry.is_discovery or frame.is_empty():
        return Showing(signal, association=of is not None and signal.entry.is_discovery)
    frame = frame.filter(
        pl.col("surface") == main_surface(frame)
    )  # a search result is entered far more often than a slot nobody asked for
    index = LakeIndex(view, of)
    slots = outcomes.on(frame).frame.filter(
        pl.col("time") + ENTRY_HORIZON <= outcomes.as_of
    )  # later ones may still see an entry
    row_N = index.slots(slots.select(pl.concat_list("item_id"))["item_id"])
    key_N = np.append(index.key_row_I, -1)[row_N]
    time_N = slots["time"].dt.epoch("us").to_numpy()
    possible_N = (key_N >= 0) & ~index.familiar(
        index.users(slots["user_id"]), key_N, time_N, signal.entry.novel_for
    )
    slots, row_N, time_N = (
        slots.filter(pl.Series(possible_N)),
        row_N[possible_N],
        time_N[possible_N],
    )
    if slots.is_empty():
        raise DataError(
            f"{signal.name}: none of the slots shown until {outcomes.as_of:%Y-%m-%d} could open "
            f"an entry (all familiar, or without a {of}); "
            "pass lake=None for beliefs alone"
        )
    taught_N, entered_N = _single_labels(
        slots.select("decision_id", "entered", key=pl.Series(key_N[possible_N]))
    )
    slots, row_N, time_N = slots.filter(pl.Series(taught_N)), row_N[taught_N], time_N[taught_N]
    bucket_of = user_buckets(
        pl.concat([slots["user_id"], pl.Series(list(index.user_row), dtype=pl.String)]), 2 * FOLDS
    )
    bucket_N = slots["user_id"].replace_strict(bucket_of, return_dtype=pl.Int64).to_numpy()
    vector_IR, popularity_I = _item_vectors(view, index, bucket_of)
    rate_logit_I, rate_logit_N = _entry_rates(row_N, entered_N, bucket_N // 2, len(index.items))
    showing = Showing(
        signal,
        association=False,
        rho=_organic_ratio(outcomes),
        slots=len(row_N),
        items=index.items,
        keys=index.keys,
        rate_logit_I=rate_logit_I,
        popularity_I=np.append(
            popularity_I, popularity_I[row_N].mean()
        ),  # an unknown item counts as a usual one
        vector_IR=vector_IR,
        organic_K=_organic_rates(view, index, outcomes),
    )
    use = np.flatnonzero(bucket_N % 2 == 1)
    if len(use) < 100:  # too few users to spare half of them
        use = np.arange(len(row_N))
    if len(use) > MAX_SLOTS:
        use = np.sort(np.random.default_rng(0).choice(use, MAX_SLOTS, replace=False))
    moments = (
        slots[use]
        .select("context_id", "user_id", "time")
        .unique("context_id", keep="first", maintain_order=True)
    )
    logged = view.contexts.select("context_id", "history").unique("context_id")
    history = moments.join(logged, on="context_id", how="left", maintain_order="left")["history"]
    user_M, time_M = index.users(moments["user_id"]), moments["time"].dt.epoch("us").to_numpy()
    own_view = LakeView(
        index, np.append(np.arange(len(index.items)), -1), np.append(np.arange(len(index.keys)), -1)
    )
    taste_MR, empty_M = showing._taste(history.fill_null([]), user_M, time_M, own_view)
    moment_N = ItemIndex(moments["context_id"]).rows(slots[use]["context_id"])
    x_NF = features(
        row_N[use],
        slots["slot"].to_numpy()[use],
        taste_MR[moment_N],
        empty_M[moment_N],
        rate_logit_N[use],
        popularity_I,
        vector_IR,
    )
    weights_F, intercept = _logistic(x_NF, entered_N[use])
    return replace(
        showing,
        weights_F=weights_F,
        intercept=intercept,
        range_2F=np.quantile(x_NF, [0.01, 0.99], axis=0),
    )


def _single_labels(slots: pl.DataFrame) -> tuple[NDArray[np.bool_], Float]:
    """Which slots teach the chance of an entry of one slot, [N], and what each of those counts as,
    0 to 1, [taught].

    Every slot of a creator has seen the creator's entry, whichever of them caused it. So the slots
    that are alone with their creator in their slate teach. Where they are fewer than `LEAST_ALONE`,
    all do and share the entry equally, which is too low a chance rather than too high.

    Args:
        slots: decision_id, entered and key (row of the creator or item), one row per slot.
    """
    together_N = slots.select(pl.len().over("decision_id", "key"))["len"].to_numpy()
    entered_N = slots["entered"].to_numpy().astype(float)
    alone_N = together_N == 1
    if alone_N.sum() >= LEAST_ALONE:
        return alone_N, entered_N[alone_N]
    return np.ones(len(slots), dtype=bool), entered_N / together_N


def _logistic(x_NF: Float, entered_N: Float) -> tuple[Float, float]:
    """Weights and intercept of the entry model on raw features; the base rate alone where only one
    class was seen.

    A slot that shares its entry with others counts as that part of an entry, and as the rest of
    none.
    """
    part_N = (entered_N > 0) & (entered_N < 1)
    weight_N = np.where(part_N, entered_N, 1.0)
    if part_N.any():
        x_NF = np.vstack([x_NF, x_NF[part_N]])
        weight_N = np.append(weight_N, 1.0 - entered_N[part_N])
        entered_N = np.append(entered_N > 0, np.zeros(part_N.sum())).astype(float)
    entries = entered_N.sum()
    if not 0 < entries < len(entered_N):
        return np.zeros(x_NF.shape[1]), float(special.logit((entries + 0.5) / (len(entered_N) + 1)))
    centre_F, scale_F = x_NF.mean(0), np.maximum(x_NF.std(0), 1e-9)
    model = LogisticRegression(C=1.0, max_iter=500).fit(
        (x_NF - centre_F) / scale_F, entered_N, sample_weight=weight_N
    )
    weights_F = np.where(x_NF.std(0) > 1e-9, model.coef_[0] / scale_F, 0.0)
    return weights_F, float(model.intercept_[0] - weights_F @ centre_F)


def _item_vectors(view: Lake, index: LakeIndex, bucket_of: dict[str, int]) -> tuple[Float, Float]:
    """Truncated SVD of log engagement counts and log(1 + users) per item, from the even half of the
    users; the vectors' last row: unknown items."""
    engaged = view.events.filter(pl.col("kind").is_in(ENGAGED) & pl.col("item_id").is_not_null())
    events = engaged.group_by("user_id", "item_id").len().sort("user_id", "item_id")
    events = (
        events.filter(pl.col("user_id").replace_strict(bucket_of, return_dtype=pl.Int64) % 2 == 0)
        if len(events)
        else events
    )
    user_E, item_E = (
        index.users(events["user_id"]),
        index.items.rows(events["item_id"]) if len(events) else np.zeros(0, dtype=np.int64),
    )
    shape = (max(len(index.user_row), 1), len(index.items))
    count = sparse.csr_matrix(
        (np.log1p(events["len"].to_numpy().astype(float)), (user_E, item_E)), shape=shape
    )
    users_I = np.bincount(item_E, minlength=len(index.items)).astype(float)
    dims = min(DIMS, min(shape) - 1)
    vector_IR = np.zeros((len(index.items) + 1, DIMS))
    if dims > 0 and count.nnz:
        _, singular_R, right_RI = randomized_svd(count, dims, random_state=0)
        vector_IR[:-1, :dims] = right_RI.T * singular_R
    return vector_IR, np.log1p(users_I)


def _entry_rates(row_N: Int, entered_N: Float, fold_N: Int, items: int) -> tuple[Float, Float]:
    """Log-odds of smoothed entry rates: per item over everyone (unknown last), and per slot from
    the other folds' users."""
    base = float((entered_N.sum() + 0.5) / (len(entered_N) + 1))
    entries_FI, shown_FI = np.zeros((FOLDS, items)), np.zeros((FOLDS, items))
    np.add.at(entries_FI, (fold_N, row_N), entered_N)
    np.add.at(shown_FI, (fold_N, row_N), 1.0)

    def log_odds(entries: Float, shown: Float) -> Float:
        return special.logit((entries + RATE_SLOTS * base) / (shown + RATE_SLOTS))

    other_FI = log_odds(entries_FI.sum(0) - entries_FI, shown_FI.sum(0) - shown_FI)
    return np.append(log_odds(entries_FI.sum(0), shown_FI.sum(0)), special.logit(base)), other_FI[
        fold_N, row_N
    ]


def _organic_rates(view: Lake, index: LakeIndex, outcomes: Outcomes) -> Float:
    """Organic discoveries per active user-day on which the user could have made one, per key
    (unknown last: the mean rate).

    A user-day is active with an engaged event or a decision: the moments a slate competes with.
    Each entry takes its user out of risk for `novel_for` days (null: for good), at the user's mean
    frequency of active days.
    """
    signal, of = outcomes.signal, outcomes.signal.entry.of
    active = pl.concat(
        [
            view.events.filter(pl.col("kind").is_in(ENGAGED)).select("user_id", "time"),
            view.decisions.select("user_id", "time"),
        ]
    )
    days = active.select("user_id", pl.col("time").dt.date().alias("day")).unique()
    spans = days.group_by("user_id").agg(
        (pl.lit(outcomes.as_of).dt.date() - pl.col("day").min()).dt.total_days().alias("days")
    )
    frequency = min(days.height / max(float(spans["days"].sum()) + spans.height, 1.0), 1.0)
    entries = outcomes.frame.filter(pl.col(f"{of}_id").is_not_null())
    key_N = index.keys.rows(entries[f"{of}_id"])
    left_N = (outcomes.as_of.timestamp() // 86400 - entries["day"].to_numpy()).clip(
        0, signal.entry.novel_for
    )
    has_key = key_N >= 0
    off_K = (
        np.bincount(key_N[has_key], weights=left_N[has_key], minlength=len(index.keys)) * frequency
    )
    organic_K = np.bincount(
        key_N[has_key],
        weights=(entries["origin"] == "organic").to_numpy()[has_key],
        minlength=len(index.keys),
    )
    risk_K = np.maximum(days.height - off_K, 0.05 * days.height)
    rate = float((organic_K.sum() + 0.5) / (risk_K.sum() + 1))
    return np.append(
        (organic_K + 1) / (risk_K + 1 / rate), rate
    )  # smoothed by one discovery at the mean rate


def _organic_ratio(outcomes: Outcomes) -> float:
    """Mean outcome of organic over recommended entries of the same keys (Mantel & Haenszel 1959),
    shrunk to 1 by its error.

    Comparing within keys keeps "people find good things themselves" out of the ratio.
    """
    mature = outcomes.where(outcomes.known)
    frame = mature.frame.select("value", pl.col("origin") == "organic", mature.keys.alias("key"))
    by_key = (
        frame.group_by("key")
        .agg(
            organic_n=pl.col("origin").sum().cast(pl.Float64),
            other_n=(~pl.col("origin")).sum().cast(pl.Float64),
            organic=pl.col("value").filter(pl.col("origin")).sum(),
            other=pl.col("value").filter(~pl.col("origin")).sum(),
        )
        .sort("key")
    )  # groups come in another order every time, and sums of floats remember theirs
    if by_key["organic_n"].sum() < MIN_EACH or by_key["other_n"].sum() < MIN_EACH:
        return 1.0
    n_o, n_r, sum_o, sum_r = (
        by_key[name].to_numpy() for name in ("organic_n", "other_n", "organic", "other")
    )
    weight = n_o + n_r
    top, bottom = float(np.sum(sum_o * n_r / weight)), float(np.sum(sum_r * n_o / weight))
    if top <= 0 or bottom <= 0:
        return 1.0
    rho = top / bottom
    error_K = (sum_o * n_r - rho * sum_r * n_o) / weight  # linearised, clustered by key
    value_variance = cast(float, frame["value"].var() or 0.0)
    noise = np.sum((n_r / weight) ** 2 * n_o + (n_o / weight) ** 2 * n_r) * value_variance
    variance = max(float(np.sum(error_K**2)), float(noise)) / bottom**2
    return float(
        np.clip(np.exp(np.log(rho) * RHO_SPREAD**2 / (RHO_SPREAD**2 + variance)), 0.25, 4.0)
    )


def user_buckets(user_ids: pl.Series, buckets: int, seed: int = 0) -> dict[str, int]:
    """Bucket 0..buckets-1 of every distinct user by a keyed hash: the same in every process and
    library version."""
    key = str(seed).encode()
    return {
        user: int.from_bytes(hashlib.blake2b(user.encode(), digest_size=8, key=key).digest(), "big")
        % buckets
        for user in user_ids.unique()
    }
