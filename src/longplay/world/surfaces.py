"""Surfaces beside the policy's slates: search results and a shelf of new releases.

Both are logged as decisions with exact propensities, under policies of the house. A search lists
what was looked for, then other items of its genre drawn uniformly; the shelf draws uniformly from
the releases of the last four weeks. Their draws are luck of the user, so they do not depend on the
policy under test, nor on who else there is.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from longplay.arrays import Int
from longplay.decisions import Contexts, Decisions
from longplay.lake.schema import TIME
from longplay.world.catalogue import Market
from longplay.world.dynamics import RESULTS, SEARCH, SHELF, SHELF_SLOTS, SURFACES, Shown, searches
from longplay.world.event_log import midnight_us
from longplay.world.listeners import Listeners
from longplay.world.luck import DayLuck, Stream
from longplay.world.parameters import WorldConfig

# seconds after the visit's begin; the home slate comes first
OFFSET_S = {SHELF: 1_200, SEARCH: 2_000}
LETTER = {SHELF: "n", SEARCH: "s"}


def house_lists(
    listeners: Listeners,
    taste_RD: NDArray[np.float32],
    market: Market,
    row_N: Int,
    day: int,
    luck: DayLuck,
    config: WorldConfig,
    shelf: bool,
) -> list[Shown]:
    """The search results of the day and, with `shelf`, the new releases, for those of the visitors
    `row_N` who look at them."""
    lists = []
    new = (
        market.catalogue.new_on(day) if shelf and config.shelf > 0 else np.empty(0, dtype=np.int64)
    )
    if len(new) >= SHELF_SLOTS:
        row = row_N[luck.take(row_N).uniform(Stream.SHELF) < config.shelf]
        lists.append(
            Shown(
                SHELF,
                row,
                new[
                    distinct(
                        np.full(len(row), len(new)), SHELF_SLOTS, luck.take(row), Stream.SHELF_PLACE
                    )
                ],
            )
        )
    row, creator = searches(listeners, taste_RD, market, row_N, luck, config)
    sought = market.item_of(creator, luck.take(row).uniform(Stream.ITEM))
    first, count, count_others = market.shelf_of(creator, RESULTS - 1)
    drawn = distinct(count - 1, count_others, luck.take(row), Stream.RESULT) + first[:, None]
    # the others: places from the sought item's own on move up by one
    drawn += drawn >= market.place_I[sought][:, None]
    lists.append(
        Shown(SEARCH, row, np.concatenate([sought[:, None], market.item_by_genre[drawn]], axis=1))
    )
    return lists


def distinct(n_R: Int, k: int, luck: DayLuck, stream: Stream) -> Int:
    """`k` different numbers below n_R (>= k) for each agent, [R, k]; every ordered choice is
    equally likely."""
    drawn_RK = np.empty((len(n_R), k), dtype=np.int64)
    for j in range(k):
        now_R = (luck.uniform(stream, j) * (n_R - j)).astype(np.int64)
        for earlier in np.sort(drawn_RK[:, :j], axis=1).T:  # the now-th of those not drawn yet
            now_R += now_R >= earlier
        drawn_RK[:, j] = now_R
    return drawn_RK


def house_decisions(
    shown: Shown, market: Market, day: int, second_R: Int, user_ids: pl.Series, version: str
) -> tuple[Contexts, Decisions]:
    """Contexts and decisions of a house policy. `second_R` is the begin of the visits of the agents
    `shown.row_N`."""
    names = user_ids.gather(shown.row_N)
    times = pl.Series(
        "time", midnight_us(day) + (second_R + OFFSET_S[shown.place]) * 1_000_000
    ).cast(TIME)
    slots = shown.item_NS.shape[1]
    contexts = Contexts.of(
        names,
        times,
        slots=slots,
        surface=SURFACES[shown.place],
        ids=visit_ids(names, day, LETTER[shown.place]),
    )
    if shown.place == SHELF:
        log_prob_NS = np.broadcast_to(
            -np.log(len(market.catalogue.new_on(day)) - np.arange(slots)), shown.item_NS.shape
        )
        name = "new-releases"
    else:
        catalogue = market.catalogue
        sought = shown.item_NS[:, 0]
        creator = catalogue.creator_I[sought]
        _, count, _ = market.shelf_of(creator, RESULTS - 1)
        # a difference of sums may fall short
        first_N = np.minimum(np.log(catalogue.fame_I[sought] / market.fame_of(creator)), 0.0)
        log_prob_NS = np.concatenate(
            [first_N[:, None], -np.log(count[:, None] - 1 - np.arange(slots - 1))], axis=1
        )
        contexts = Contexts(
            contexts.frame.with_columns(
                prompt=pl.format(
                    "{} {}", catalogue.names.gather(creator), catalogue.creators.gather(creator)
                )
            )
        )
        name = "search"
    return contexts, Decisions.of(
        contexts,
        market.catalogue.index.slates(shown.item_NS),
        np.ascontiguousarray(log_prob_NS),
        f"{name}@{version}",
    )


def visit_ids(names: pl.Series, day: int, letter: str) -> pl.Series:
    """Ids of what is shown at a visit, from user, day and a letter for the surface. They do not
    depend on other users."""
    return pl.select((names + f"-{day:04d}{letter}").alias("context_id"))["context_id"]
