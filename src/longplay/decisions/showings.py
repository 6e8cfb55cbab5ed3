"""What was shown to users before a moment, across slates."""

from __future__ import annotations

import polars as pl

from longplay.lake.lake import Lake
from longplay.lake.schema import ENGAGED


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
