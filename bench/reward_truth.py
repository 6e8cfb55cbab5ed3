"""What insiders of a simulated service know: the chance of a play, and what it is worth."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import special

from longplay.decisions import Contexts
from longplay.index import ItemIndex
from longplay.lake import Lake
from longplay.lake.known import item_vectors, user_vectors
from longplay.world import World
from longplay.world.dynamics import wake

Float = NDArray[np.float64]
Int = NDArray[np.int64]


def rows_of(world: World, contexts: Contexts) -> Int:
    """Rows of the contexts' users in the world."""
    return ItemIndex(world.user_ids).rows(contexts.frame["user_id"])


def true_chance(world: World, contexts: Contexts) -> Float:
    """The chance that each item is played in the first slot, [N, I]; `dynamics.play_chance` for all
    pairs at once."""
    rows, config, catalogue = rows_of(world, contexts), world.config, world.catalogue
    state = wake(world.state, config).take(rows)
    listeners = world.listeners.take(rows)
    n, creators = len(rows), len(catalogue.creators)
    odds_NI = special.logit(catalogue.appeal_I) + np.log(listeners.click_U)[:, None]
    odds_NI = odds_NI + config.match * (true_match(world, contexts) - 1.0)
    known_NC, satiety_NC = np.zeros((n, creators), dtype=bool), np.zeros((n, creators))
    slot = state.creator_RM >= 0
    of = np.nonzero(slot)[0], state.creator_RM[slot]
    known_NC[of] = True
    satiety_NC[of] = state.satiety_RM[slot]
    novelty_NC = (
        np.where(known_NC, -0.5, 0.5) * listeners.novelty_U[:, None] - config.satiety * satiety_NC
    )
    odds_NI += novelty_NC[:, catalogue.creator_I]
    if config.tires:
        shown = state.shown_RK >= 0
        owner, item = np.nonzero(shown)[0], state.shown_RK[shown]
        recency = 0.5 ** (state.shown_age_RK[shown] / config.weariness_half_life)
        item_NI, creator_NC = np.zeros((n, len(catalogue))), np.zeros((n, creators))
        np.add.at(item_NI, (owner, item), recency)
        np.add.at(creator_NC, (owner, catalogue.creator_I[item]), recency)
        page_N = np.bincount(owner, weights=recency, minlength=n)
        odds_NI -= (
            config.weariness * item_NI
            + config.creator_weariness * creator_NC[:, catalogue.creator_I]
        )
        odds_NI -= config.page_weariness * page_N[:, None]
    return special.expit(odds_NI)


def true_match(world: World, contexts: Contexts) -> Float:
    """How well each item matches each user's taste: 1 is usual, [N, I]."""
    taste_ND = world.listeners.taste(world.day, world.config)[rows_of(world, contexts)].astype(
        float
    )
    return taste_ND @ world.catalogue.taste_ID.T


def true_worth(world: World, contexts: Contexts) -> Float:
    """What a play of each item adds to a habit: depth x match x liking, [N, I]."""
    rows, catalogue = rows_of(world, contexts), world.catalogue
    creators = len(catalogue.creators)
    pairs = np.repeat(rows, creators), np.tile(np.arange(creators), len(rows))
    liking_NC = world.listeners.liking(*pairs, world.config).reshape(len(rows), creators)
    return catalogue.depth_I * true_match(world, contexts) * liking_NC[:, catalogue.creator_I]


def known_match(world: World, contexts: Contexts, lake: Lake) -> Float:
    """The match as the product of what the service knows of user and item predicts it, by least squares on
    these very pairs, [N, I]."""
    user_NV = user_vectors(lake, contexts.frame["user_id"], world.now)
    item_IV = np.nan_to_num(item_vectors(lake, world.catalogue.index.ids))
    product_NI, match_NI = user_NV @ item_IV.T, true_match(world, contexts)
    slope, level = np.polyfit(product_NI.ravel(), match_NI.ravel(), 1)
    return np.maximum(level + slope * product_NI, 1e-3)
