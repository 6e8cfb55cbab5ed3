"""One day: who visits, what of a slate is played, what habits do by themselves, who leaves.

The chain of cause is: shown -> played (appeal, taste) -> habit (depth, taste) -> organic plays,
visits and staying. Nothing after the habit looks at slates, plays or their reward, so retention is
not a function of the immediate reward.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from longplay.world.catalogue import Catalogue
from longplay.world.config import WorldConfig
from longplay.world.listeners import Listeners, State, explore, play_chance
from longplay.world.luck import DayLuck, Stream

Float = NDArray[np.float64]
Int = NDArray[np.int64]
Bool = NDArray[np.bool_]

ORGANIC = -1  # the slot of a play that no slate caused


@dataclass(frozen=True, eq=False)
class Plays:
    """The plays of one day: P rows, ordered by agent and, within it, by time.

    Attributes:
        row_P: agent (row of the state). item_P: item row. slot_P: slot of the slate, or `ORGANIC`.
    """

    row_P: Int
    item_P: Int
    slot_P: Int

    def __len__(self) -> int:
        return len(self.row_P)


@dataclass(frozen=True, eq=False)
class Shown:
    """What is shown today: `item_NS` item rows to the agents `row_N` (ascending, each once).

    `forced` shown items are played for certain: the truth conditions on the play.
    """

    row_N: Int
    item_NS: Int
    forced: bool = False


def wake(state: State, config: WorldConfig) -> State:
    """The state as the day begins: a night of forgetting later."""
    return State(
        state.alive_R,
        state.creator_RM,
        state.stock_RM * np.float32(0.5 ** (1.0 / config.habit_half_life)),
        state.satiety_RM * np.float32(0.5 ** (1.0 / config.satiety_half_life)),
    )


def visitors(listeners: Listeners, state: State, luck: DayLuck, day: int, config: WorldConfig) -> Bool:
    """Which agents visit on `day`, shape [R], given the state of that morning."""
    season = np.cos(2 * np.pi * (day - 2) / 7)  # day 0 is a Thursday: the peak is on Saturday
    logit_R = listeners.activity_U + config.season * season * listeners.weekend_U + config.habit_activity * np.log1p(_total(state))
    return state.alive_R & (luck.uniform(Stream.VISIT) < expit(logit_R))


def visit_seconds(listeners: Listeners, luck: DayLuck, row_N: Int) -> Int:
    """Seconds after midnight (UTC) at which the visits of these agents begin, within [6 h, 20 h]; shape [N]."""
    z_N = listeners.hour_z_U[row_N] + 0.8 * luck.take(row_N).normal(Stream.HOUR)
    return (3600 * (6.0 + 14.0 * expit(z_N))).astype(np.int64)


def live(
    listeners: Listeners,
    catalogue: Catalogue,
    state: State,
    active_R: Bool,
    shown: Shown | None,
    luck: DayLuck,
    config: WorldConfig,
) -> tuple[State, Plays]:
    """The rest of the day of the agents, given who visits and what those are shown: (state at night, plays).

    Args:
        state: the state of that morning (`wake`). active_R: who visits. shown: slates, or None.
    """
    row_N = np.flatnonzero(active_R)
    clicked = _play_slates(listeners, catalogue, shown, luck, config)
    habitual, habit_m = _play_habits(catalogue, state, row_N, luck, config)
    found = _discover(listeners, catalogue, row_N, luck, config)

    creator_RM, stock_RM, satiety_RM = state.creator_RM.copy(), state.stock_RM.copy(), state.satiety_RM.copy()
    # several plays of a creator on an organic day build one day's habit: the first of each (agent, slot) counts
    first = np.ones(len(habitual), dtype=bool)
    first[1:] = (habitual.row_P[1:] != habitual.row_P[:-1]) | (habit_m[1:] != habit_m[:-1])
    row, m = habitual.row_P[first], habit_m[first]
    gain = _gain(listeners, catalogue, row, habitual.item_P[first], config)
    stock_RM[row, m] += _room(stock_RM[row, m], config) * gain * np.exp(-config.satiety * satiety_RM[row, m])
    satiety_RM[row, m] += 1.0
    # then one play per agent at a time, so that no agent is written to twice at once
    for slot in range(0 if shown is None else shown.item_NS.shape[1]):
        now = clicked.slot_P == slot
        _build(listeners, catalogue, creator_RM, stock_RM, satiety_RM, clicked.row_P[now], clicked.item_P[now], config)
    _build(listeners, catalogue, creator_RM, stock_RM, satiety_RM, found.row_P, found.item_P, config)

    after = State(state.alive_R, creator_RM, stock_RM, satiety_RM)
    hazard_R = listeners.churn_U / (1.0 + config.churn_relief * np.log1p(_total(after)))
    alive_R = state.alive_R & (luck.uniform(Stream.CHURN) >= hazard_R)
    return State(alive_R, creator_RM, stock_RM, satiety_RM), _merge(clicked, habitual, found)


def _total(state: State) -> Float:
    """All habit an agent has, shape [R]."""
    return state.stock_RM.sum(axis=1, dtype=np.float64)


def _play_slates(listeners: Listeners, catalogue: Catalogue, shown: Shown | None, luck: DayLuck, config: WorldConfig) -> Plays:
    if shown is None or len(shown.row_N) == 0:
        return _no_plays()
    slots = shown.item_NS.shape[1]
    row, slot, item = np.repeat(shown.row_N, slots), np.tile(np.arange(slots), len(shown.row_N)), shown.item_NS.ravel()
    if shown.forced:
        return Plays(row, item, slot)
    chance = play_chance(listeners, catalogue, row, item, slot, config)
    # keyed by the item: paired policies that show the same item meet the same luck
    played = luck.take(row).uniform(Stream.CLICK, item) < chance
    return Plays(row[played], item[played], slot[played])


def _play_habits(catalogue: Catalogue, state: State, row_N: Int, luck: DayLuck, config: WorldConfig) -> tuple[Plays, Int]:
    """Organic plays from the habits of this morning, and the habit slot of each play."""
    stock_NM = state.stock_RM[row_N]
    crowd_N = 1.0 + stock_NM.sum(axis=1) / config.attention
    chance_NM = -np.expm1(-config.habit_drive * stock_NM / crowd_N[:, None])
    n, m = np.nonzero(chance_NM > 1e-4)
    creator = state.creator_RM[row_N[n], m].astype(np.int64)
    # keyed by the creator, not the slot: a branch with one habit more leaves the luck of the others alone
    hit = luck.take(row_N[n]).uniform(Stream.ORGANIC, creator) < chance_NM[n, m]
    row, m, creator = row_N[n[hit]], m[hit], creator[hit]
    own = luck.take(row)
    times = 1 + (own.uniform(Stream.REPEAT, creator) < 0.35)
    row, m, creator = np.repeat(row, times), np.repeat(m, times), np.repeat(creator, times)
    nth = np.arange(len(row)) - np.repeat(np.cumsum(times) - times, times)
    item = catalogue.item_of(creator, luck.take(row).uniform(Stream.ORGANIC_ITEM, creator * 2 + nth))
    return Plays(row, item, np.full(len(row), ORGANIC)), m


def _discover(listeners: Listeners, catalogue: Catalogue, row_N: Int, luck: DayLuck, config: WorldConfig) -> Plays:
    """Organic plays of creators met outside any slate: by a friend, a search, the radio."""
    row = row_N[luck.take(row_N).uniform(Stream.DISCOVER) < config.discovery]
    creator = explore(listeners.take(row), catalogue, luck.take(row))
    row, creator = row[creator >= 0], creator[creator >= 0]
    item = catalogue.item_of(creator, luck.take(row).uniform(Stream.ITEM))
    return Plays(row, item, np.full(len(row), ORGANIC))


def _gain(listeners: Listeners, catalogue: Catalogue, row_P: Int, item_P: Int, config: WorldConfig) -> Float:
    """Stock a play adds to an empty habit: depth x taste match, shape [P]."""
    match_P = np.einsum("pd,pd->p", listeners.taste_UD[row_P], catalogue.taste_ID[item_P])
    return config.habit_gain * catalogue.depth_I[item_P] * match_P


def _room(stock_P: NDArray[np.float32], config: WorldConfig) -> Float:
    """Share of a gain that still counts: 1 for no habit, 0 at the limit."""
    return np.maximum(0.0, 1.0 - stock_P / config.habit_limit)


def _build(
    listeners: Listeners,
    catalogue: Catalogue,
    creator_RM: NDArray[np.int32],
    stock_RM: NDArray[np.float32],
    satiety_RM: NDArray[np.float32],
    row_P: Int,
    item_P: Int,
    config: WorldConfig,
) -> None:
    """Add plays (at most one per agent) to copies of the habits in place; a new creator takes the weakest slot if it is stronger."""
    if len(row_P) == 0:
        return
    creator_P = catalogue.creator_I[item_P]
    same_PM = creator_RM[row_P] == creator_P[:, None]
    known_P = same_PM.any(axis=1)
    m_P = np.where(known_P, same_PM.argmax(axis=1), stock_RM[row_P].argmin(axis=1))
    stock_P = np.where(known_P, stock_RM[row_P, m_P], 0.0)
    satiety_P = np.where(known_P, satiety_RM[row_P, m_P], 0.0)
    gain_P = _gain(listeners, catalogue, row_P, item_P, config) * np.exp(-config.satiety * satiety_P)
    grown_P = stock_P + np.minimum(gain_P, config.habit_limit) * _room(stock_P, config)
    keep_P = known_P | (grown_P > stock_RM[row_P, m_P])
    row, m = row_P[keep_P], m_P[keep_P]
    creator_RM[row, m] = creator_P[keep_P]
    stock_RM[row, m] = grown_P[keep_P]
    satiety_RM[row, m] = satiety_P[keep_P]


def _merge(*parts: Plays) -> Plays:
    """All plays of the day by agent; within an agent in the order of the parts."""
    row = np.concatenate([part.row_P for part in parts])
    order = np.argsort(row, kind="stable")
    item = np.concatenate([part.item_P for part in parts])
    slot = np.concatenate([part.slot_P for part in parts])
    return Plays(row[order], item[order], slot[order])


def _no_plays() -> Plays:
    nothing = np.empty(0, dtype=np.int64)
    return Plays(nothing, nothing, nothing)
