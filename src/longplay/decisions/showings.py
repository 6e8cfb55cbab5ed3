"""What was shown to users before a moment, across slates."""

from __future__ import annotations

import numpy as np
import polars as pl

from longplay.frames import as_lists
from longplay.index import ItemIndex
from longplay.lake.lake import Lake
from longplay.lake.schema import ENGAGED
from longplay.past import Past


def asked_surfaces(lake: Lake) -> list[str]:
    """Surfaces that show what users asked for, such as search results: those where most of the activity
    that names a decision is organic. What was asked for does not count as a showing.

    Args:
        lake: the log.
    """
    activity = lake.events.filter(
        pl.col("kind").is_in(ENGAGED), pl.col("decision_id").is_not_null()
    ).select("decision_id", organic=pl.col("origin") == "organic")
    surfaces = lake.decisions.select("decision_id", "surface")
    organic = activity.join(surfaces, on="decision_id").group_by("surface")
    share = organic.agg(pl.col("organic").mean()).filter(pl.col("organic") > 0.5)
    return share["surface"].drop_nulls().sort().to_list()


def is_asked(lake: Lake) -> pl.Expr:
    """Whether a decision's slate shows what the user asked for (`asked_surfaces`)."""
    return pl.col("surface").is_in(asked_surfaces(lake)).fill_null(False)


def shown_before(
    lake: Lake, users: pl.Series, time: pl.Series, most: int
) -> tuple[pl.Series, pl.Series]:
    """The last `most` items shown to each user strictly before a moment, across slates, oldest first, and
    when each was shown: the columns `shown` and `shown_time` of contexts.

    Only slates that had arrived by the moment count, and none of the surfaces that show what was asked
    for (`asked_surfaces`).

    Args:
        lake: the log.
        users: [N] ids of users.
        time: [N] moments, UTC.
        most: at least 0.
    """
    slots = (
        lake.decisions.filter(~is_asked(lake))
        .sort("user_id", "time", "decision_id")
        .select("user_id", "time", "ingested_at", item_id="slate")
        .explode("item_id", empty_as_null=False)
    )
    index = ItemIndex(slots["user_id"].unique(maintain_order=True))
    time_P, arrived_P = (slots[name].dt.epoch("us").to_numpy() for name in ("time", "ingested_at"))
    past = Past(index.rows(slots["user_id"]), time_P, arrived_P)
    moment_N = time.dt.epoch("us").to_numpy()
    offsets, rows = past.last(index.rows(users), moment_N, most)
    recent = slots[np.asarray(rows)]
    return (
        as_lists("shown", recent["item_id"], offsets),
        as_lists("shown_time", recent["time"], offsets),
    )
