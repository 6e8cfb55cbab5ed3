"""Which users are learned from, and which are left to off-policy estimates."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from longplay.chance import keyed_uniform
from longplay.index import ItemIndex
from longplay.lake.lake import Lake
from longplay.lake.schema import ENGAGED

# share of users from whom nothing is learned where slates were logged: no reward, no weights, no
# codes, no play counts
OPE_SHARE = 0.2


def ope_users(user_ids: pl.Series) -> NDArray[np.bool_]:
    """Whether each user is held out for off-policy estimates, [N]. It follows from a hash of the id
    alone, so it never changes."""
    return keyed_uniform("longplay: held out", user_ids) < OPE_SHARE


def of_learners(frame: pl.DataFrame) -> pl.DataFrame:
    """The rows (column user_id) of users who are not held out, in order."""
    users = frame["user_id"].unique()
    learners = users.filter(pl.Series(~ope_users(users), dtype=pl.Boolean)).to_frame()
    return frame.join(learners, on="user_id", how="semi", maintain_order="left")


def learners_events(lake: Lake) -> pl.DataFrame:
    """The events that a policy may learn from if it is judged off-policy: where slates were logged,
    those of users who are not held out; else all."""
    return lake.events if lake.decisions.is_empty() else of_learners(lake.events)


def learners_histories(
    lake: Lake, index: ItemIndex, possible: NDArray[np.bool_] | None = None
) -> tuple[pl.DataFrame, NDArray[np.int64], NDArray[np.int64]]:
    """What each user engaged with, oldest first: events[E], offsets[U+1] and rows[E];
    `rows[offsets[u]:offsets[u+1]]` are user u's items.

    Only what may be learned from (`learners_events`), and only items of `index` that are
    `possible[I]`, default all; users without any are not there. Events at the same instant (the
    lines of one invoice) have no order: they stand in that of a hash of their ids, so that no
    catalogue order is learned.
    """
    events = learners_events(lake).filter(
        pl.col("kind").is_in(ENGAGED) & pl.col("item_id").is_not_null()
    )
    events = events.with_columns(tie=pl.col("event_id").hash(seed=1)).sort("user_id", "time", "tie")
    row_E = index.rows(events["item_id"])
    is_usable_E = row_E >= 0
    if possible is not None:
        is_usable_E &= possible[np.maximum(row_E, 0)]
    events = events.filter(pl.Series(is_usable_E, dtype=pl.Boolean))
    count = events.group_by("user_id", maintain_order=True).len()["len"].to_numpy()
    return events, np.concatenate([[0], np.cumsum(count)]).astype(np.int64), row_E[is_usable_E]
