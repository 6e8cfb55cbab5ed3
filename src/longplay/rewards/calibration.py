"""Calibration of early rewards on unseen items, and a comparison of models on later entries."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import stats
from sklearn.metrics import roc_auc_score

from longplay.arrays import Float
from longplay.belief import Calibration, coverage_of_means, randomised_pit, reliability
from longplay.errors import ConfigError, NotEstimable
from longplay.estimate import clustered_mean
from longplay.progress import Progress, reporting
from longplay.rewards.early import EarlyModel, EarlyReward, certain_entries
from longplay.signals.outcomes.in_memory import Outcomes

ENOUGH_ITEMS = 10
FEWER_ENTRIES = (50, 30, 20)  # tried in turn where too few items have `min_entries`
# probabilities are kept this far from 0 and 1, so that one certain miss costs 6.9 and not infinity
CLIP = 1e-3


@dataclass(frozen=True)
class _Judged:
    """Results of one fold's unseen items: per item, and per entry of the held-out half."""

    mean_I: Float
    std_I: Float
    noise_I: Float
    realised_I: Float
    prior_mean_I: Float
    prior_std_I: Float
    mean_N: Float
    spread_N: Float
    outcome_N: Float


def calibration(
    early: EarlyReward,
    lake: object,
    outcomes: Outcomes,
    age: int,
    seed: int = 0,
    folds: int = 5,
    min_entries: int = 100,
    progress: Progress = None,
) -> Calibration:
    """Check whether beliefs at `age` days are calibrated for items that the prior has never seen.

    Items are split into `folds`; the prior is fitted on the other folds' items. Of an unseen item
    half the users' entries are observed up to `age` days; the other half's mature entries say what
    came of it. Where fewer than 10 items have `min_entries` of those, 50, 30, then 20 are enough;
    the result says which.

    Args:
        early: any early reward, fitted or not: it is fitted anew.
        lake: kept for symmetry with `fit`; showing is not judged here.
        outcomes: of the early reward's signal.
        age: days of each entry that the beliefs have seen.
        seed: of the split of users and items.
        folds: at least 2.
        min_entries: mature entries an item must have to be judged.
        progress: called with (folds done, folds); True or False: a progress line, or none; default:
            a line on a terminal or in a notebook.

    Raises:
        NotEstimable: too few items with enough mature entries.
        ConfigError: fewer than two folds.
    """
    if folds < 2:
        raise ConfigError(f"calibration: folds={folds} given, expected at least 2")
    if age < 0:
        raise ConfigError(f"calibration: age={age} given, expected days >= 0")
    usable = certain_entries(outcomes.where(outcomes.keys.is_not_null()))
    seen_half_N = _buckets(usable.frame["user_id"], 2, seed) == 0
    judge_N = ~seen_half_N & usable.known
    counts = (
        pl.DataFrame({"key": usable.keys, "judged": judge_N})
        .group_by("key")
        .agg(pl.col("judged").sum())
        .sort("key")
    )
    needed = next(
        (
            k
            for k in (min_entries, *(f for f in FEWER_ENTRIES if f < min_entries))
            if (counts["judged"] >= k).sum() >= ENOUGH_ITEMS
        ),
        None,
    )
    if needed is None:
        most = counts["judged"].max() or 0
        raise NotEstimable(
            f"calibration: of {counts.height:,} items fewer than {ENOUGH_ITEMS} have "
            f"{min(FEWER_ENTRIES)} mature entries by the held-out "
            f"half of users (the most: {most}); wait for more outcomes, or judge a signal by "
            "creator instead of item"
        )
    chosen = set(counts.filter(pl.col("judged") >= needed)["key"])
    fold_of = user_buckets(counts["key"], folds, seed + 1)
    fold_N = usable.keys.replace_strict(fold_of, return_dtype=pl.Int64).to_numpy()
    judged_item_N = usable.keys.is_in(list(chosen)).to_numpy()
    parts: list[_Judged] = []
    with reporting("calibration", "folds", progress) as report:
        for fold in range(folds):
            report(fold, folds)
            inside_N = (fold_N == fold) & judged_item_N
            if inside_N.any():
                model = early.fit(None, usable.where(fold_N != fold))
                seen = usable.where(inside_N & seen_half_N)
                parts.append(_judge(model, seen, usable.where(inside_N & judge_N), age))
        report(folds, folds)

    def all_of(name: str) -> Float:
        return np.concatenate([getattr(part, name) for part in parts])

    mean_I, std_I, realised_I, prior_mean_I, prior_std_I = (
        all_of(name) for name in ("mean_I", "std_I", "realised_I", "prior_mean_I", "prior_std_I")
    )
    mean_N = all_of("mean_N")
    outcome_N = all_of("outcome_N")
    return Calibration(
        coverage=coverage_of_means(mean_I, std_I, realised_I, all_of("noise_I")),
        groups=len(mean_I),
        min_entries=needed,
        pit=randomised_pit(
            mean_N,
            all_of("spread_N"),
            outcome_N,
            np.random.default_rng(seed),
            binary=outcomes.signal.binary,
        ),
        reliability=reliability(mean_N, outcome_N),
        mae=float(np.mean(np.abs(mean_I - realised_I))),
        prior_mae=float(np.mean(np.abs(prior_mean_I - realised_I))),
        sharpness=float(np.mean(std_I)),
        prior_sharpness=float(np.mean(prior_std_I)),
    )


def compare(
    models: Mapping[str, EarlyReward],
    train_outcomes: Outcomes,
    test_outcomes: Outcomes,
    age: int,
    *,
    min_entries: int = 20,
    progress: Progress = None,
) -> pl.DataFrame:
    """Compare models on later entries whose outcomes are known, at `age` days. Models that are not
    fitted are fitted on `train_outcomes`.

    Entries of the test set that are immature or about nothing are left out. Columns: model,
    entries, loss (log loss of binary outcomes, else squared error), loss_se, rmse (root of the
    Brier score where binary), concordance (chance that the entry with the larger outcome had the
    larger belief, ties half), difference and difference_se (of the loss to the prior alone, paired;
    negative is better), item_mae (over items with >= `min_entries` test entries; each belief is the
    item's before any test entry), items. Standard errors are clustered by user.

    Args:
        models: early rewards by name, fitted or not.
        train_outcomes: what those that are not fitted learn from.
        test_outcomes: later entries, which are judged.
        age: days of each entry that the beliefs have seen.
        min_entries: test entries that an item must have to count in item_mae.
        progress: called with (models done, models); True or False: a progress line, or none;
            default: a line on a terminal or in a notebook.

    Raises:
        NotEstimable: no mature test entry.
    """
    test = test_outcomes.where(test_outcomes.known & test_outcomes.keys.is_not_null().to_numpy())
    if not len(test):
        raise NotEstimable(
            f"compare: none of {len(test_outcomes):,} test entries is mature at "
            f"{test_outcomes.as_of:%Y-%m-%d}; use a later as_of"
        )
    outcome_N = test.value
    users = test.frame["user_id"].to_numpy()
    # of what the models learn from
    prior = float(certain_entries(train_outcomes).base_rate(truncated=True).value)
    alone_N = _loss(np.full(len(test), prior), outcome_N, test.signal.binary)
    rows = [
        _score("prior alone", np.full(len(test), prior), outcome_N, alone_N, users, test)
        | _item_error(test, None, prior, min_entries)
    ]
    with reporting("compare", "models", progress) as report:
        for name, model in models.items():
            report(len(rows) - 1, len(models))
            unfitted = isinstance(model, EarlyModel) and model.standing is None
            fitted = model.fit(None, train_outcomes) if unfitted else model
            rows.append(
                _score(name, fitted.belief(test, age).mean, outcome_N, alone_N, users, test)
                | _item_error(test, fitted, prior, min_entries)
            )
        report(len(models), len(models))
    return pl.DataFrame(rows)


def _judge(model: EarlyReward, seen: Outcomes, judged: Outcomes, age: int) -> _Judged:
    standing = model.observe(seen, age)
    realised = (
        pl.DataFrame({"key": judged.keys, "value": judged.value})
        .group_by("key")
        .agg(pl.col("value").mean(), pl.len().alias("n"))
        .sort("key")
    )
    belief = standing.items(realised["key"])
    prior = model.observe(seen.where(np.zeros(len(seen), dtype=bool))).items(realised["key"])
    noise_I = np.sqrt(np.maximum(belief.spread**2 - belief.std**2, 0.0) / realised["n"].to_numpy())
    single = standing.belief(judged, age)
    return _Judged(
        belief.mean,
        belief.std,
        noise_I,
        realised["value"].to_numpy(),
        prior.mean,
        prior.std,
        single.mean,
        single.spread,
        judged.value,
    )


def _score(
    name: str,
    mean_N: Float,
    outcome_N: Float,
    alone_N: Float,
    users: NDArray[np.object_],
    test: Outcomes,
) -> dict[str, object]:
    loss_N = _loss(mean_N, outcome_N, test.signal.binary)
    loss = clustered_mean(loss_N, users)
    difference = clustered_mean(loss_N - alone_N, users)
    return {
        "model": name,
        "entries": len(test),
        "loss": loss.value,
        "loss_se": loss.std_error,
        "rmse": float(np.sqrt(np.mean((mean_N - outcome_N) ** 2))),
        "concordance": concordance(mean_N, outcome_N, test.signal.binary),
        "difference": difference.value,
        "difference_se": difference.std_error,
    }


def _item_error(
    test: Outcomes, fitted: EarlyReward | None, prior: float, min_entries: int
) -> dict[str, object]:
    by_item = (
        pl.DataFrame({"key": test.keys, "value": test.value})
        .group_by("key")
        .agg(pl.col("value").mean(), pl.len().alias("n"))
    )
    by_item = by_item.filter(pl.col("n") >= min_entries).sort("key")
    if by_item.is_empty():
        return {"item_mae": None, "items": 0}
    mean_I = np.full(by_item.height, prior) if fitted is None else fitted.items(by_item["key"]).mean
    return {
        "item_mae": float(np.mean(np.abs(mean_I - by_item["value"].to_numpy()))),
        "items": by_item.height,
    }


def _loss(mean_N: Float, outcome_N: Float, binary: bool) -> Float:
    if not binary:
        return (mean_N - outcome_N) ** 2
    p_N = np.clip(mean_N, CLIP, 1 - CLIP)
    return -np.where(outcome_N > 0, np.log(p_N), np.log1p(-p_N))


def concordance(mean_N: Float, outcome_N: Float, binary: bool) -> float | None:
    """Chance that the entry with the larger outcome of two had the larger belief, ties counting
    half; null where all outcomes are equal.

    >>> concordance(np.array([0.1, 0.3, 0.1]), np.array([0.0, 1.0, 2.0]), binary=False)    # right, tie, wrong
    0.5
    """
    if np.ptp(outcome_N) == 0:
        return None
    if binary:
        return float(roc_auc_score(outcome_N, mean_N))
    if np.ptp(mean_N) == 0:
        return 0.5
    n = len(mean_N)
    pairs = n * (n - 1) / 2
    tied = pairs - float(
        sum(count * (count - 1) / 2 for count in np.unique(outcome_N, return_counts=True)[1])
    )
    tau = float(np.asarray(stats.kendalltau(mean_N, outcome_N))[0])
    tied_belief = pairs - float(
        sum(count * (count - 1) / 2 for count in np.unique(mean_N, return_counts=True)[1])
    )
    # tau-b back to (concordant - discordant) / untied outcomes
    return 0.5 + 0.5 * tau * float(np.sqrt(tied * tied_belief)) / tied


def _buckets(ids: pl.Series, buckets: int, seed: int) -> NDArray[np.int64]:
    return (
        ids.replace_strict(user_buckets(ids, buckets, seed), return_dtype=pl.Int64).to_numpy()
        if len(ids)
        else np.zeros(0, dtype=np.int64)
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
