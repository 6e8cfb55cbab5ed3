"""Logged visits with the items newly engaged with at each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from longplay.decisions import (
    Contexts,
    contexts_from_log,
    first_engagements,
    reads_users,
    showings_of,
)
from longplay.errors import DataError
from longplay.lake.lake import Lake
from longplay.learning.ragged import may_show
from longplay.learning.trainable import Trainable

MOST_EXCLUDED = (
    60_000_000  # items that the exclusions of all visits may name together: about a gigabyte
)
SAMPLED = 256  # visits whose exclusions are counted first


@dataclass(frozen=True)
class Visits:
    """Logged visits and the items newly engaged with at each, in order: those of context n are
    `leaves[offsets[n]:offsets[n+1]]`."""

    contexts: Contexts
    offsets: NDArray[np.int64]
    leaves: NDArray[np.int64]


def most_held(policy: Trainable, limit: int, drawn: Callable[[int], Contexts]) -> int:
    """The most contexts, up to `limit`, whose exclusions can be held at once.

    Args:
        policy: its catalogue bounds the exclusions of a context.
        limit: at least 1.
        drawn: draws at most so many contexts. A few of them show how many exclusions there are.
    """
    if len(policy.index) * limit <= MOST_EXCLUDED:
        return limit
    each = drawn(min(limit, SAMPLED)).frame["exclusions"].list.len().mean()
    return min(limit, max(int(MOST_EXCLUDED / max(float(each or 0.0), 1.0)), SAMPLED))  # type: ignore[arg-type]


def visits_from_log(policy: Trainable, lake: Lake, *, limit: int, seed: int) -> Visits:
    """At most `limit` user-days of the log with the newly engaged items that their contexts allow.

    Fewer where their exclusions would be more than `MOST_EXCLUDED` items: a creator of a large
    catalogue has thousands.

    Raises:
        DataError: no visit has a new item.
    """

    def drawn(most: int) -> Contexts:
        return contexts_from_log(
            lake,
            slots=1,
            history=policy.history,
            exclude=policy.exclude,
            limit=most,
            seed=seed,
            learners=True,
            showings=showings_of(policy),
            users=reads_users(policy),
        )

    contexts = drawn(most_held(policy, limit, drawn))
    day = pl.col("time").dt.date().alias("day")
    firsts = first_engagements(lake).select("user_id", "item_id", day, when="time")
    pairs = (
        contexts.frame.select("user_id", day)
        .with_row_index("row")
        .join(firsts, on=["user_id", "day"])
    )
    # the lines of one invoice have no order: a hash decides, so that not always the same item of a
    # creator comes first
    pairs = pairs.with_columns(tie=pl.struct("user_id", "item_id").hash(seed=1)).sort(
        "row", "when", "tie", "item_id"
    )
    row = pairs["row"].to_numpy().astype(np.int64)
    leaf = policy.index.rows(pairs["item_id"])
    keep = may_show(policy, contexts, row, leaf)
    if not keep.any():
        raise DataError(
            f"reward-weighted: none of {len(contexts):,} visits has a new item of the catalogue; "
            "is the log long enough?"
        )
    rows, counts = np.unique(row[keep], return_counts=True)
    return Visits(contexts.take(rows), np.concatenate([[0], np.cumsum(counts)]), leaf[keep])
