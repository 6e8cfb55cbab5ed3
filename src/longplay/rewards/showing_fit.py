"""Fitting the value of showing on a log: chances of entry with and without showing, and their ratio."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import cast

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse, special
from sklearn.linear_model import LogisticRegression
from sklearn.utils.extmath import randomized_svd

from longplay.arrays import Float, Int
from longplay.decisions import Decisions, main_surface
from longplay.errors import DataError
from longplay.index import ItemIndex
from longplay.lake.lake import Lake
from longplay.lake.schema import ENGAGED
from longplay.rewards.familiar import LakeIndex
from longplay.rewards.showing import DIMS, LakeView, Showing, features
from longplay.signals.outcomes.in_memory import ENTRY_HORIZON, Outcomes
from longplay.signals.signal import Signal

RATE_SLOTS = 50.0  # an item's entry rate is smoothed by so many slots at the base rate
FOLDS = 5
MAX_SLOTS = 200_000  # slots that the logistic regression is fitted on
# slots that are alone with their creator: where they are fewer, slots that share a slate teach too
LEAST_ALONE = 1_000
MIN_EACH = 50  # mature entries of either origin before rho leaves 1
RHO_SPREAD = 0.5  # prior std of log rho


def fit_showing(
    signal: Signal,
    lake: Lake,
    outcomes: Outcomes,
    decisions: Decisions | pl.DataFrame | None = None,
) -> Showing:
    """Fit the showing model on what was known at `outcomes.as_of`.

    Only slots on the surface with the most slots teach. Item vectors come from one half of the
    users, and the regression from the slots of the other half. An item's entry rate comes, for each
    slot, from users of other folds, so that no slot sees its own label. Where a creator has several
    slots of a slate, nobody knows which of them caused its entry: see `_single_labels`.

    Args:
        signal: whose entries are modelled.
        lake: the log.
        outcomes: of the signal; nothing after their `as_of` is read.
        decisions: the slates that teach; default those of the lake.

    Raises:
        DataError: none of the slots could have opened an entry.
    """
    view = lake.before(outcomes.as_of)
    if decisions is None:
        decisions = view.decisions
    frame = decisions.frame if isinstance(decisions, Decisions) else decisions
    of = signal.entry.of
    if of is None or not signal.entry.is_discovery or frame.is_empty():
        return Showing(signal, association=of is not None and signal.entry.is_discovery)
    # search results lead to entries far more often than slots that nobody asked for
    frame = frame.filter(pl.col("surface") == main_surface(frame))
    index = LakeIndex(view, of)
    # later slots may still see an entry
    slots = outcomes.on(frame).frame.filter(pl.col("time") + ENTRY_HORIZON <= outcomes.as_of)
    row_N = index.slots(slots.select(pl.concat_list("item_id"))["item_id"])
    key_N = np.append(index.key_row_I, -1)[row_N]
    time_N = slots["time"].dt.epoch("us").to_numpy()
    possible_N = (key_N >= 0) & ~index.familiar(
        index.users(slots["user_id"]), key_N, time_N, signal.entry.novel_for
    )
    slots = slots.filter(pl.Series(possible_N))
    row_N = row_N[possible_N]
    if slots.is_empty():
        raise DataError(
            f"{signal.name}: none of the slots shown until {outcomes.as_of:%Y-%m-%d} could open "
            f"an entry (all familiar, or without a {of}); "
            "pass lake=None for beliefs alone"
        )
    taught_N, entered_N = _single_labels(
        slots.select("decision_id", "entered", key=pl.Series(key_N[possible_N]))
    )
    slots = slots.filter(pl.Series(taught_N))
    row_N = row_N[taught_N]
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
        # an unknown item counts as a usual one
        popularity_I=np.append(popularity_I, popularity_I[row_N].mean()),
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
    user_M = index.users(moments["user_id"])
    time_M = moments["time"].dt.epoch("us").to_numpy()
    item_rows = np.arange(len(index.items))
    key_rows = np.arange(len(index.keys))
    fitted_view = LakeView(index, np.append(item_rows, -1), np.append(key_rows, -1))
    taste_MR, empty_M = showing.taste(history.fill_null([]), user_M, time_M, fitted_view)
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
    """Which slots teach the chance of an entry, [N], and the label of each of those, 0 to 1.

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
    """Weights and intercept of the entry model on raw features.

    Where all slots have an entry, or none has, the intercept is the base rate and weights are 0. A
    slot with a label between 0 and 1 counts as two slots, weighted by label and 1 - label.
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
    centre_F = x_NF.mean(0)
    scale_F = np.maximum(x_NF.std(0), 1e-9)
    model = LogisticRegression(C=1.0, max_iter=500).fit(
        (x_NF - centre_F) / scale_F, entered_N, sample_weight=weight_N
    )
    weights_F = np.where(x_NF.std(0) > 1e-9, model.coef_[0] / scale_F, 0.0)
    return weights_F, float(model.intercept_[0] - weights_F @ centre_F)


def _item_vectors(view: Lake, index: LakeIndex, bucket_of: dict[str, int]) -> tuple[Float, Float]:
    """Item vectors [I + 1, DIMS] and log(1 + users) per item [I], from users of even buckets.

    Vectors are a truncated SVD of log engagement counts; the last row is of unknown items.
    """
    engaged = view.events.filter(pl.col("kind").is_in(ENGAGED) & pl.col("item_id").is_not_null())
    events = engaged.group_by("user_id", "item_id").len().sort("user_id", "item_id")
    item_E = np.zeros(0, dtype=np.int64)
    if len(events):
        bucket = pl.col("user_id").replace_strict(bucket_of, return_dtype=pl.Int64)
        events = events.filter(bucket % 2 == 0)
        item_E = index.items.rows(events["item_id"])
    user_E = index.users(events["user_id"])
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
    """Log-odds of smoothed entry rates: of every item from all users, [I + 1] with unknown items
    last, and of every slot's item from users of other folds, [N]."""
    base = float((entered_N.sum() + 0.5) / (len(entered_N) + 1))
    entries_FI = np.zeros((FOLDS, items))
    shown_FI = np.zeros((FOLDS, items))
    np.add.at(entries_FI, (fold_N, row_N), entered_N)
    np.add.at(shown_FI, (fold_N, row_N), 1.0)

    def log_odds(entries: Float, shown: Float) -> Float:
        return special.logit((entries + RATE_SLOTS * base) / (shown + RATE_SLOTS))

    other_FI = log_odds(entries_FI.sum(0) - entries_FI, shown_FI.sum(0) - shown_FI)
    rate_I = np.append(log_odds(entries_FI.sum(0), shown_FI.sum(0)), special.logit(base))
    return rate_I, other_FI[fold_N, row_N]


def _organic_rates(view: Lake, index: LakeIndex, outcomes: Outcomes) -> Float:
    """Rate of organic discoveries per active user-day at risk, [K + 1]; last the mean rate, of
    unknown keys.

    A user-day is active with an engaged event or a decision: the moments a slate competes with.
    Each entry takes its user out of risk for `novel_for` days (null: for good), at the user's mean
    frequency of active days.
    """
    signal = outcomes.signal
    of = signal.entry.of
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
    smoothed_K = (organic_K + 1) / (risk_K + 1 / rate)  # by one discovery at the mean rate
    return np.append(smoothed_K, rate)


def _organic_ratio(outcomes: Outcomes) -> float:
    """Mean outcome of organic over recommended entries of the same keys (Mantel & Haenszel 1959),
    shrunk to 1 by its error.

    Comparing within keys keeps "people find good things themselves" out of the ratio.
    """
    mature = outcomes.where(outcomes.known)
    frame = mature.frame.select("value", pl.col("origin") == "organic", mature.keys.alias("key"))
    # groups come in another order every time, and sums of floats depend on the order
    by_key = (
        frame.group_by("key")
        .agg(
            organic_n=pl.col("origin").sum().cast(pl.Float64),
            other_n=(~pl.col("origin")).sum().cast(pl.Float64),
            organic=pl.col("value").filter(pl.col("origin")).sum(),
            other=pl.col("value").filter(~pl.col("origin")).sum(),
        )
        .sort("key")
    )
    if by_key["organic_n"].sum() < MIN_EACH or by_key["other_n"].sum() < MIN_EACH:
        return 1.0
    n_o, n_r, sum_o, sum_r = (
        by_key[name].to_numpy() for name in ("organic_n", "other_n", "organic", "other")
    )
    weight = n_o + n_r
    top = float(np.sum(sum_o * n_r / weight))
    bottom = float(np.sum(sum_r * n_o / weight))
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
