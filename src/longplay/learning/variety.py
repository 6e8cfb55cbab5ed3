"""Variety: how much of the catalogue a policy shows, compared with the start, to notice a collapse."""

from __future__ import annotations

import numpy as np
import polars as pl

from longplay.arrays import Int
from longplay.decisions import Contexts, context_chance
from longplay.errors import DataError
from longplay.lake.creators import item_creators
from longplay.lake.lake import Lake
from longplay.learning.rollout import SAMPLE, drawn_leaves
from longplay.learning.trainable import Trainable
from longplay.learning.visits import Visits, visits_from_log
from longplay.policies.generative.decoder import Decoder
from longplay.policies.generative.search import best_items
from longplay.ranking import fallen

DRAWS = 4  # slates drawn for each moment
DEPTH = 10
BEAMS = 20


def creator_of_leaves(policy: Trainable, lake: Lake) -> Int:
    """Number of each leaf's creator, [I]; an item without a known creator has a number of its own.

    The creator is the catalogue's, else that of the item's events.
    """
    creators = item_creators(lake).select(
        "item_id", pl.coalesce("creator_id", pl.lit("item: ") + pl.col("item_id")).alias("creator")
    )
    items = policy.index.ids.to_frame("item_id").join(
        creators, on="item_id", how="left", maintain_order="left"
    )
    alone = pl.lit("item: ") + pl.col("item_id")
    return (
        items.select(pl.coalesce("creator", alone).rank("dense").cast(pl.Int64) - 1)
        .to_series()
        .to_numpy()
    )


def variety_alarms(
    policy: Trainable, tuned: Decoder, lake: Lake, moments: Contexts, slots: int, seed: int
) -> tuple[str, ...]:
    """Figures that fell by half or more from the start `policy` to the weights `tuned`, in words;
    empty where none did.

    Coverage and distinct creators per slate on up to `SAMPLE` of the `moments` with the same luck
    for both, NDCG@10 on as many logged visits where the log has any with new items.
    """
    rows = np.random.default_rng([seed, 2**32 - 5]).choice(
        len(moments), size=min(SAMPLE, len(moments)), replace=False
    )
    sample = moments.take(rows)
    creator_I = creator_of_leaves(policy, lake)
    try:
        visits = visits_from_log(policy, lake, limit=SAMPLE, seed=seed)
    except DataError:  # no user engaged with anything new
        visits = None
    start_variety = variety(policy, policy.decoder, sample, creator_I, visits, slots, seed)
    tuned_variety = variety(policy, tuned, sample, creator_I, visits, slots, seed)
    return fallen(start_variety, tuned_variety)


def variety(
    policy: Trainable,
    decoder: Decoder,
    sample: Contexts,
    creator_I: Int,
    visits: Visits | None,
    slots: int,
    seed: int,
) -> dict[str, float]:
    """Coverage, distinct creators per slate and NDCG@10 of slates drawn with `decoder`, whose
    weights are over `policy`'s codes."""
    chance = context_chance(sample, np.random.default_rng([seed, 2**32 - 6]))
    leaves = drawn_leaves(policy, decoder, sample, groups=DRAWS, slots=slots, chance=chance)
    figures = {
        "coverage": len(np.unique(leaves)) / int(decoder.trie.available.sum()),
        "distinct creators per slate": distinct(creator_I[leaves]),
    }
    return figures if visits is None else figures | {f"NDCG@{DEPTH}": ndcg(policy, decoder, visits)}


def distinct(row_NGS: Int) -> float:
    """Mean number of different values in the last axis.

    >>> distinct(np.array([[[3, 3, 5], [4, 4, 4]]]))
    1.5
    """
    in_order = np.sort(row_NGS, axis=-1)
    return float((1 + (np.diff(in_order, axis=-1) != 0).sum(axis=-1)).mean())


def ndcg(policy: Trainable, decoder: Decoder, visits: Visits) -> float:
    """Mean NDCG@10 of the newly engaged items of each visit among the items that `decoder` ranks
    first."""
    best = best_items(decoder, policy.prompts(visits.contexts), DEPTH, BEAMS).leaves[:, 0]
    gain = 1 / np.log2(np.arange(DEPTH) + 2)
    owner = np.repeat(np.arange(len(visits.contexts)), np.diff(visits.offsets))
    relevant = np.zeros((len(visits.contexts), len(policy.index)), dtype=bool)
    relevant[owner, visits.leaves] = True
    hit = np.take_along_axis(relevant, np.maximum(best, 0), axis=1) & (best >= 0)
    ideal = np.cumsum(gain)[np.minimum(relevant.sum(axis=1), DEPTH) - 1]
    return float(((hit * gain).sum(axis=1) / ideal).mean())
