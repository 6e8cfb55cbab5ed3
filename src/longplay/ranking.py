"""Ranking measured on what happened next: hit rate, NDCG, habit-weighted NDCG, coverage, cold-start
share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from longplay.decisions import Contexts, Ranker
from longplay.errors import DataError
from longplay.estimate import Estimate, clustered_mean
from longplay.progress import Progress, reporting

DEPTHS = (1, 5, 10, 50)
CHUNK = 256
LEAST_LEFT = 0.5  # share of the start's figure at which an alarm is raised


@dataclass(frozen=True)
class Future:
    """What users did after each of N contexts: the relevant items, and whether they became habits.

    Attributes:
        contexts: the moments at which a ranking is asked for.
        relevant: columns row (0..N-1), item_id, habit (1 where the item became a habit, else 0;
            null where that is not known).
    """

    contexts: Contexts
    relevant: pl.DataFrame

    def __post_init__(self) -> None:
        if len(self.contexts) == 0 or self.relevant.is_empty():
            raise DataError(
                "ranking: no context or no relevant item after the cut; move the cut earlier or "
                "the end later"
            )


def top_items(
    ranker: Ranker, contexts: Contexts, k: int, progress: Progress = None
) -> pl.DataFrame:
    """Return the `k` items that each context would rank first: columns row, position (from 1),
    item_id.

    Ties are broken by item id, so that a ranking does not depend on the order of a catalogue.

    Args:
        ranker: gives every item's log-probability.
        contexts: the visits.
        k: places per visit.
        progress: called with (visits ranked, visits); True or False: a line that says how far it
            is, or none; default: a line on a terminal or in a notebook.
    """
    with reporting("top_items", "visits", progress) as tell:
        return _top_items(ranker, contexts, k, tell)


def _top_items(
    ranker: Ranker, contexts: Contexts, k: int, tell: Callable[[int, int], None]
) -> pl.DataFrame:
    ids = ranker.index.ids
    by_id = np.argsort(ids.to_numpy(), kind="stable")
    k = min(k, len(ids))
    frames = []
    for start in range(0, len(contexts), CHUNK):
        part = Contexts(contexts.frame[start : start + CHUNK])
        score = ranker.item_log_prob(part)[:, by_id]
        order = _first(-score, k)
        shown = np.isfinite(np.take_along_axis(score, order, 1))
        row = np.broadcast_to(start + np.arange(len(part))[:, None], order.shape)
        position = np.broadcast_to(np.arange(1, k + 1), order.shape)
        frames.append(
            pl.DataFrame(
                {
                    "row": row[shown],
                    "position": position[shown],
                    "item_id": ids.gather(by_id[order[shown]]),
                }
            )
        )
        tell(min(start + CHUNK, len(contexts)), len(contexts))
    return pl.concat(frames)


def _first(value_NI: NDArray[np.float64], k: int) -> NDArray[np.int64]:
    """Columns of the `k` smallest values of each row, in order, ties by column, [N, k]. The
    catalogue is not sorted as a whole."""
    order_NK = np.empty((len(value_NI), k), dtype=np.int64)
    if k == 0:
        return order_NK
    bound_N = np.partition(value_NI, k - 1, axis=1)[:, k - 1]
    for row, (value_I, bound) in enumerate(zip(value_NI, bound_N)):
        # at least k, with those that tie with the last
        columns = np.flatnonzero(~(value_I > bound))
        order_NK[row] = columns[np.argsort(value_I[columns], kind="stable")[:k]]
    return order_NK


def rank_metrics(
    top: pl.DataFrame, future: Future, *, depths: Sequence[int] = DEPTHS
) -> dict[str, Estimate]:
    """Compute HR@k, NDCG@k and habit-weighted NDCG@k with intervals that are clustered by user.

    HR@k: share of contexts with a relevant item among the first k. NDCG@k (Jarvelin & Kekalainen
    2002): sum of gain / log2(position + 1) over the first k, divided by the best possible sum;
    gain 1 for relevant items. Habit-weighted NDCG gives gain only to items that became habits and
    is a mean over contexts that had at least one such item (elsewhere it is undefined).

    Args:
        top: columns row, position, item_id (see `top_items`).
        future: what is relevant in each context (`future_of`).
        depths: values of k.
    """
    users = future.contexts.frame["user_id"].to_numpy()
    measures = {"NDCG": future.relevant.with_columns(gain=pl.lit(1.0))}
    habits = future.relevant.filter(pl.col("habit") > 0).with_columns(
        gain=pl.col("habit").cast(pl.Float64)
    )
    measures["habit NDCG"] = habits
    hits = top.join(measures["NDCG"], on=["row", "item_id"])
    rows = future.relevant["row"].unique().sort().to_numpy()
    answer: dict[str, Estimate] = {}
    for k in depths:
        hit = np.isin(rows, hits.filter(pl.col("position") <= k)["row"].unique().to_numpy()).astype(
            float
        )
        answer[f"HR@{k}"] = clustered_mean(
            hit, users[rows], estimand=f"share of visits with a hit in the first {k}"
        )
    for name, relevant in measures.items():
        for k in depths:
            if relevant.is_empty():
                continue
            value = _ndcg(top, relevant, k)
            answer[f"{name}@{k}"] = clustered_mean(
                value["ndcg"].to_numpy(),
                users[value["row"].to_numpy()],
                estimand=f"{name}@{k} over visits with a relevant item",
            )
    return answer


def ndcg_by_context(top: pl.DataFrame, future: Future, k: int, *, habit: bool) -> pl.DataFrame:
    """NDCG@k (habit-weighted or not) of each context that has a relevant item: columns row, ndcg.
    For paired comparisons."""
    relevant = future.relevant.filter(pl.col("habit") > 0) if habit else future.relevant
    gain = pl.col("habit").cast(pl.Float64) if habit else pl.lit(1.0)
    return _ndcg(top, relevant.with_columns(gain=gain), k)


def paired_difference(
    top: pl.DataFrame, base: pl.DataFrame, future: Future, k: int, *, habit: bool
) -> Estimate:
    """Difference in NDCG@k between two rankings of the same contexts, clustered by user."""
    ndcg = ndcg_by_context(top, future, k, habit=habit)
    base_ndcg = ndcg_by_context(base, future, k, habit=habit).rename({"ndcg": "base"})
    pairs = ndcg.join(base_ndcg, on="row").sort("row")
    users = future.contexts.frame["user_id"].to_numpy()[pairs["row"].to_numpy()]
    name = "habit NDCG" if habit else "NDCG"
    return clustered_mean(
        (pairs["ndcg"] - pairs["base"]).to_numpy(), users, estimand=f"difference in {name}@{k}"
    )


def _ndcg(top: pl.DataFrame, relevant: pl.DataFrame, k: int) -> pl.DataFrame:
    """Columns row, ndcg for every row of `relevant` (columns row, item_id, gain)."""
    best = (
        relevant.sort("row", "gain", descending=[False, True])
        .with_columns(place=pl.int_range(pl.len()).over("row"))
        .filter(pl.col("place") < k)
        .with_columns(ideal=pl.col("gain") / (pl.col("place") + 2).log(2))
        .group_by("row")
        .agg(pl.col("ideal").sum())
    )
    got = (
        top.filter(pl.col("position") <= k)
        .join(relevant, on=["row", "item_id"])
        .with_columns(gained=pl.col("gain") / (pl.col("position") + 1).log(2))
        .group_by("row")
        .agg(pl.col("gained").sum())
    )
    return (
        best.join(got, on="row", how="left")
        .with_columns(ndcg=pl.col("gained").fill_null(0.0) / pl.col("ideal"))
        .select("row", "ndcg")
        .sort("row")
    )


def fallen(earlier: Mapping[str, float], later: Mapping[str, float]) -> tuple[str, ...]:
    """Each figure that fell to half or less, in words; figures that only one side has are left
    out.

    >>> fallen({"coverage": 0.46, "NDCG@10": 0.1}, {"coverage": 0.03, "NDCG@10": 0.06})
    ('coverage fell by 93%, from 0.46 to 0.03',)
    """
    return tuple(
        f"{name} fell by {1 - later[name] / value:.0%}, from {value:.3g} to {later[name]:.3g}"
        for name, value in earlier.items()
        if name in later and value > 0 and later[name] <= LEAST_LEFT * value
    )


def creators_per_slate(top: pl.DataFrame, creators: pl.DataFrame, k: int) -> float:
    """Mean number of different creators among the first `k` of each context that has any.

    Args:
        top: columns row, position, item_id (see `top_items`).
        creators: columns item_id, creator_id; an item without one counts as its own.
        k: items looked at, from the first.
    """
    first = top.filter(pl.col("position") <= k).join(
        creators.select("item_id", "creator_id"), on="item_id", how="left"
    )
    shown = first.select(
        "row", pl.coalesce("creator_id", pl.lit("item: ") + pl.col("item_id")).alias("creator")
    )
    return float(shown.group_by("row").agg(pl.col("creator").n_unique())["creator"].mean() or 0.0)  # type: ignore[arg-type]


def exposure_metrics(
    top: pl.DataFrame,
    catalogue: Sequence[str] | pl.Series,
    plays: Mapping[str, int],
    *,
    k: int = 10,
    cold: int = 10,
) -> dict[str, float]:
    """Coverage@k and cold-start share@k of a ranking, both in [0, 1].

    Coverage: share of the catalogue that is in at least one context's first k. Cold-start share:
    share of those places held by items with fewer than `cold` plays in the training log.
    """
    first = top.filter(pl.col("position") <= k)["item_id"]
    items = pl.Series(catalogue)
    played = pl.DataFrame(
        {"item_id": list(plays), "plays": list(plays.values())},
        schema={"item_id": pl.String, "plays": pl.Int64},
    )
    counts = first.to_frame().join(played, on="item_id", how="left")["plays"].fill_null(0)
    return {
        f"coverage@{k}": int(first.unique().is_in(items.implode()).sum()) / max(len(items), 1),
        f"cold-start share@{k}": int((counts < cold).sum()) / max(len(counts), 1),
    }
