"""One day of the service: who visits, what is played, how habits change, who leaves.

The chain of cause is: shown -> played (appeal, taste, novelty, position) -> habit and satisfaction
(depth, taste) -> organic plays, visits and staying. Nothing after the habit and the satisfaction
looks at slates, plays or their reward, so retention is not a function of the immediate reward.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from longplay.arrays import Bool, Float, Int
from longplay.world.catalogue import Catalogue, Market
from longplay.world.listeners import Listeners, State, explore
from longplay.world.luck import DayLuck, Stream
from longplay.world.parameters import WorldConfig

ORGANIC = -1  # the slot of a play that no list of results caused
HOME, SHELF, SEARCH, LIBRARY = range(4)  # places, in the order of a visit
SURFACES = ("home", "new_releases", "search", "library")
# what the service shows unasked: its plays are recommended, those of a search are not
PUSHED = (
    HOME,
    SHELF,
)
OLDEST = 10_000  # days: a showing as old as this no longer ages
RESULTS = 5  # slots of a page of search results
SHELF_SLOTS = 3  # of the new releases


@dataclass(frozen=True, eq=False)
class Plays:
    """The plays of one day: P rows, ordered by agent and, within it, by time.

    Attributes:
        row_P: agent (row of the state).
        item_P: item row.
        place_P: HOME, SHELF, SEARCH or LIBRARY.
        slot_P: slot of the place's list, or `ORGANIC`.
    """

    row_P: Int
    item_P: Int
    place_P: Int
    slot_P: Int

    def __len__(self) -> int:
        return len(self.row_P)

    @property
    def organic(self) -> Bool:
        """Whether the user looked for the item, in the library or by a search."""
        return self.place_P >= SEARCH

    def where(self, keep_P: Bool) -> Plays:
        """The plays at which the mask holds."""
        return Plays(
            self.row_P[keep_P], self.item_P[keep_P], self.place_P[keep_P], self.slot_P[keep_P]
        )


@dataclass(frozen=True, eq=False)
class Shown:
    """The items shown today at one place: rows `item_NS` (-1: nothing) to the agents `row_N`,
    ascending and each once.

    `play_NS`, where given, says which slots are played; otherwise appeal, taste and luck decide.
    """

    place: int
    row_N: Int
    item_NS: Int
    play_NS: Bool | None = None


def wake(state: State, config: WorldConfig) -> State:
    """The state in the morning of a day, after a night of forgetting."""
    return replace(
        state,
        stock_RM=state.stock_RM * np.float32(0.5 ** (1.0 / config.habit_half_life)),
        satiety_RM=state.satiety_RM * np.float32(0.5 ** (1.0 / config.satiety_half_life)),
        satisfaction_R=state.satisfaction_R
        * np.float32(0.5 ** (1.0 / config.satisfaction_half_life)),
        shown_age_RK=np.minimum(state.shown_age_RK, OLDEST - 1) + np.int16(1),
    )


def visitors(
    listeners: Listeners, state: State, luck: DayLuck, day: int, config: WorldConfig
) -> Bool:
    """Whether each agent visits on `day`, [R], given the state of that morning."""
    # day 0 is a Thursday: the peak is on Saturday, where the user lives
    season_R = np.cos(
        2 * np.pi * (day + (listeners.hour_U / 3600 + listeners.zone_U) / 24 - 2.5) / 7
    )
    logit_R = (
        listeners.activity_U
        + config.season * season_R * listeners.weekend_U
        - config.absence * np.log1p(state.away_R)
        + config.habit_activity * np.log1p(state.habits)
        + config.satisfaction_activity * np.tanh(state.satisfaction_R)
    )
    return state.alive_R & (luck.uniform(Stream.VISIT) < expit(logit_R))


def play_chance(
    listeners: Listeners,
    taste_RD: NDArray[np.float32],
    state: State,
    market: Market,
    row_R: Int,
    item_R: Int,
    slot_R: Int,
    config: WorldConfig,
) -> Float:
    """Chance that each shown item is played, shape [R].

    Appeal x taste match x novelty (as odds), less where the listener has had enough of the creator or
    has been shown it often of late, times the attention its position gets.
    """
    catalogue = market.catalogue
    match_R = np.einsum("rd,rd->r", taste_RD[row_R], catalogue.taste_ID[item_R])
    same_RM = state.creator_RM[row_R] == catalogue.creator_I[item_R][:, None]
    known_R = np.where(same_RM.any(axis=1), -0.5, 0.5)
    satiety_R = np.where(same_RM, state.satiety_RM[row_R], 0.0).sum(axis=1)
    odds_R = (
        logit(catalogue.appeal_I[item_R])
        + np.log(listeners.click_U[row_R])
        + config.match * (match_R - 1.0)
    )
    odds_R += known_R * listeners.novelty_U[row_R] - config.satiety * satiety_R
    if config.tires:
        odds_R -= weariness(state, catalogue, row_R, item_R, config)
    return expit(odds_R) / (1.0 + config.position_decay * slot_R)


def weariness(
    state: State, catalogue: Catalogue, row_R: Int, item_R: Int, config: WorldConfig
) -> Float:
    """How much recent showings of the item, of its creator and of anything take off the logit of a
    play, [R]."""
    shown_RK = state.shown_RK[row_R]
    recency_RK = np.where(
        shown_RK >= 0, 0.5 ** (state.shown_age_RK[row_R] / config.weariness_half_life), 0.0
    )
    of_item_R = np.where(shown_RK == item_R[:, None], recency_RK, 0.0).sum(axis=1)
    same_RK = catalogue.creator_I[shown_RK] == catalogue.creator_I[item_R][:, None]
    of_creator_R = np.where(same_RK, recency_RK, 0.0).sum(axis=1)
    return (
        config.weariness * of_item_R
        + config.creator_weariness * of_creator_R
        + config.page_weariness * recency_RK.sum(axis=1)
    )


def _remember(state: State, shown: Sequence[Shown]) -> State:
    """The state after these lists were shown: what the service shows unasked is remembered, latest
    first, played or not."""
    shown_RK = state.shown_RK.copy()
    age_RK = state.shown_age_RK.copy()
    for showing in shown:
        if showing.place not in PUSHED:
            continue
        row = showing.row_N
        new_NS = showing.item_NS.astype(np.int32)
        most = shown_RK.shape[1]
        shown_RK[row] = np.concatenate([new_NS, shown_RK[row]], axis=1)[:, :most]
        new_age_NS = np.zeros(new_NS.shape, dtype=np.int16)
        age_RK[row] = np.concatenate([new_age_NS, age_RK[row]], axis=1)[:, :most]
    return replace(state, shown_RK=shown_RK, shown_age_RK=age_RK)


def searches(
    listeners: Listeners,
    taste_RD: NDArray[np.float32],
    market: Market,
    row_N: Int,
    luck: DayLuck,
    config: WorldConfig,
) -> tuple[Int, Int]:
    """The visitors among `row_N` who search, and the creators they look for. Searches are organic:
    what is shown elsewhere does not change them."""
    chance_N = (
        expit(
            logit(np.clip(config.search, 1e-9, 1 - 1e-9))
            + listeners.novelty_U[row_N]
            - config.novelty
        )
        if config.search > 0
        else 0.0
    )
    row = row_N[luck.take(row_N).uniform(Stream.DISCOVER) < chance_N]
    creator = explore(taste_RD[row], market, luck.take(row), config)
    return row[creator >= 0], creator[creator >= 0]


def live(
    listeners: Listeners,
    taste_RD: NDArray[np.float32],
    market: Market,
    state: State,
    active_R: Bool,
    shown: Sequence[Shown],
    luck: DayLuck,
    config: WorldConfig,
) -> tuple[State, Plays]:
    """The state at night and the plays of a day, given who visits and what visitors are shown.

    Args:
        listeners: the agents' static traits.
        taste_RD: `listeners.taste` of the day.
        market: what is released.
        state: the state of that morning (`wake`).
        active_R: who visits.
        shown: the day's slates and results, at most one `Shown` per place.
        luck: random numbers of the day.
        config: the world's numbers.
    """
    row_N = np.flatnonzero(active_R)
    parts = [
        _play_list(listeners, taste_RD, state, market, showing, luck, config) for showing in shown
    ]
    habitual, habit_m = _play_habits(market, state, row_N, luck, config)
    plays = _merge(*parts, habitual)

    creator_RM = state.creator_RM.copy()
    stock_RM = state.stock_RM.copy()
    satiety_RM = state.satiety_RM.copy()
    satisfaction_R = state.satisfaction_R.copy()
    # several plays of a creator from habit build one day's habit: the first of each (agent, habit
    # slot) counts
    first = np.ones(len(habitual), dtype=bool)
    first[1:] = (habitual.row_P[1:] != habitual.row_P[:-1]) | (habit_m[1:] != habit_m[:-1])
    row = habitual.row_P[first]
    m = habit_m[first]
    worth = _worth(listeners, taste_RD, market, row, habitual.item_P[first], config)
    gain = np.minimum(
        config.habit_gain * worth * np.exp(-config.satiety * satiety_RM[row, m]), config.habit_limit
    )
    stock_RM[row, m] += _room(stock_RM[row, m], config) * gain
    satiety_RM[row, m] += 1.0
    # a search is the user's own: it comes first
    for showing, played in sorted(zip(shown, parts), key=lambda pair: -pair[0].place):
        place = showing.place
        share = config.lasting if place in PUSHED else 1.0
        if share == 0:
            continue
        # one play per agent at a time, so that no agent is written to twice at once; a search ends
        # with one play at most
        rounds = [played]
        if place in PUSHED:
            slots = range(showing.item_NS.shape[1])
            rounds = [played.where(played.slot_P == slot) for slot in slots]
        for now in rounds:
            worth = _worth(listeners, taste_RD, market, now.row_P, now.item_P, config)
            _build(
                market,
                creator_RM,
                stock_RM,
                satiety_RM,
                now,
                share * config.habit_gain * worth,
                share,
                config,
            )
            if place in PUSHED:
                pleasure = np.tanh(np.log(np.maximum(worth, 1e-9) / USUAL_WORTH))
                satisfaction_R[now.row_P] += (share * config.satisfaction * pleasure).astype(
                    np.float32
                )

    next_state = State(
        state.alive_R,
        creator_RM,
        stock_RM,
        satiety_RM,
        satisfaction_R,
        np.where(active_R, 0, np.minimum(state.away_R + 1, 10_000)).astype(np.int32),
        state.shown_RK,
        state.shown_age_RK,
    )
    if config.tires:
        next_state = _remember(next_state, shown)
    relief_R = (1.0 + config.churn_relief * np.log1p(next_state.habits)) * np.exp(
        config.satisfaction_churn * np.tanh(next_state.satisfaction_R)
    )
    alive_R = state.alive_R & (luck.uniform(Stream.CHURN) >= listeners.churn_U / relief_R)
    return replace(next_state, alive_R=alive_R), plays


USUAL_WORTH = 0.45  # worth of a usual play on a slate, which neither pleases nor disappoints


def _play_list(
    listeners: Listeners,
    taste_RD: NDArray[np.float32],
    state: State,
    market: Market,
    shown: Shown,
    luck: DayLuck,
    config: WorldConfig,
) -> Plays:
    slots = shown.item_NS.shape[1]
    row = np.repeat(shown.row_N, slots)
    slot = np.tile(np.arange(slots), len(shown.row_N))
    item = shown.item_NS.ravel()
    if shown.play_NS is not None:
        played = shown.play_NS.ravel()
    elif shown.place == SEARCH:
        played = _pick(shown, luck, config).ravel()
    else:
        played = coins(listeners, taste_RD, state, market, shown, luck, config)[1].ravel()
    return Plays(row[played], item[played], np.full(int(played.sum()), shown.place), slot[played])


def coins(
    listeners: Listeners,
    taste_RD: NDArray[np.float32],
    state: State,
    market: Market,
    shown: Shown,
    luck: DayLuck,
    config: WorldConfig,
) -> tuple[Float, Bool]:
    """The chance that each slot of a slate is played, and whether it is played, each [N, S]."""
    slots = shown.item_NS.shape[1]
    row = np.repeat(shown.row_N, slots)
    slot = np.tile(np.arange(slots), len(shown.row_N))
    item = shown.item_NS.ravel()
    empty = item < 0  # a slate may be shorter than the page
    item = np.maximum(item, 0)
    chance = np.where(
        empty, 0.0, play_chance(listeners, taste_RD, state, market, row, item, slot, config)
    )
    # keyed by the item, so that paired policies that show the same item draw the same numbers
    u = luck.take(row).uniform(Stream.CLICK if shown.place == HOME else Stream.SHELF_ITEM, item)
    return chance.reshape(shown.item_NS.shape), (u < chance).reshape(shown.item_NS.shape)


def _pick(shown: Shown, luck: DayLuck, config: WorldConfig) -> Bool:
    """Which results searches end with, [N, S]: mostly what was looked for (slot 0), sometimes
    another result high up, sometimes none."""
    slots = shown.item_NS.shape[1]
    weight_S = np.where(np.arange(slots) == 0, 1.0, 0.08) / (
        1.0 + config.position_decay * np.arange(slots)
    )
    cumulative_S = np.cumsum(weight_S) / (weight_S.sum() * 1.1)
    u_N = luck.take(shown.row_N).uniform(Stream.PICK)
    chosen_N = (u_N[:, None] >= cumulative_S).sum(axis=1)
    return np.arange(slots) == chosen_N[:, None]


def _play_habits(
    market: Market, state: State, row_N: Int, luck: DayLuck, config: WorldConfig
) -> tuple[Plays, Int]:
    """The organic plays that follow from this morning's habits, and the habit slot of each play."""
    stock_NM = state.stock_RM[row_N]
    crowd_N = 1.0 + stock_NM.sum(axis=1) / config.attention
    chance_NM = -np.expm1(-config.habit_drive * stock_NM / crowd_N[:, None])
    n, m = np.nonzero(chance_NM > 1e-4)
    creator = state.creator_RM[row_N[n], m].astype(np.int64)
    # keyed by the creator, not the slot, so that a branch with one more habit draws the same
    # numbers for the others
    hit = luck.take(row_N[n]).uniform(Stream.ORGANIC, creator) < chance_NM[n, m]
    row = row_N[n[hit]]
    m = m[hit]
    creator = creator[hit]
    play_luck = luck.take(row)
    times = 1 + (play_luck.uniform(Stream.REPEAT, creator) < 0.35)
    row = np.repeat(row, times)
    m = np.repeat(m, times)
    creator = np.repeat(creator, times)
    nth = np.arange(len(row)) - np.repeat(np.cumsum(times) - times, times)
    item = market.item_of(creator, luck.take(row).uniform(Stream.ORGANIC_ITEM, creator * 2 + nth))
    return Plays(row, item, np.full(len(row), LIBRARY), np.full(len(row), ORGANIC)), m


def _worth(
    listeners: Listeners,
    taste_RD: NDArray[np.float32],
    market: Market,
    row_P: Int,
    item_P: Int,
    config: WorldConfig,
) -> Float:
    """How strongly a play adds to a habit: depth x taste match x the user's liking of the creator,
    [P]."""
    catalogue = market.catalogue
    return usual_worth(taste_RD, catalogue, row_P, item_P) * listeners.liking(
        row_P, catalogue.creator_I[item_P], config
    )


def usual_worth(
    taste_RD: NDArray[np.float32], catalogue: Catalogue, row_P: Int, item_P: Int
) -> Float:
    """How strongly a play adds to the habit of an average user with this taste: depth x taste
    match, [P]."""
    return catalogue.depth_I[item_P] * np.einsum(
        "pd,pd->p", taste_RD[row_P], catalogue.taste_ID[item_P]
    )


def _room(stock_P: NDArray[np.float32], config: WorldConfig) -> Float:
    """Share of a gain that still counts, from 1 without a habit to 0 at the limit."""
    return np.maximum(0.0, 1.0 - stock_P / config.habit_limit)


def _build(
    market: Market,
    creator_RM: NDArray[np.int32],
    stock_RM: NDArray[np.float32],
    satiety_RM: NDArray[np.float32],
    plays: Plays,
    gain_P: Float,
    tire: float,
    config: WorldConfig,
) -> None:
    """Add plays (at most one per agent) to copies of the habits, in place. A new creator takes the
    weakest slot if it is stronger."""
    if len(plays) == 0:
        return
    row_P = plays.row_P
    creator_P = market.catalogue.creator_I[plays.item_P]
    same_PM = creator_RM[row_P] == creator_P[:, None]
    known_P = same_PM.any(axis=1)
    m_P = np.where(known_P, same_PM.argmax(axis=1), stock_RM[row_P].argmin(axis=1))
    stock_P = np.where(known_P, stock_RM[row_P, m_P], 0.0)
    satiety_P = np.where(known_P, satiety_RM[row_P, m_P], 0.0)
    grown_P = stock_P + np.minimum(
        gain_P * np.exp(-config.satiety * satiety_P), config.habit_limit
    ) * _room(stock_P, config)
    keep_P = known_P | (grown_P > stock_RM[row_P, m_P])
    row = row_P[keep_P]
    m = m_P[keep_P]
    creator_RM[row, m] = creator_P[keep_P]
    stock_RM[row, m] = grown_P[keep_P]
    satiety_RM[row, m] = satiety_P[keep_P] + tire


def _merge(*parts: Plays) -> Plays:
    """All plays of the day, sorted by agent and, within an agent, by place and slot."""
    row = np.concatenate([part.row_P for part in parts])
    place = np.concatenate([part.place_P for part in parts])
    slot = np.concatenate([part.slot_P for part in parts])
    item = np.concatenate([part.item_P for part in parts])
    order = np.lexsort((slot, place, row))  # stable: plays from habit keep their order
    return Plays(row[order], item[order], place[order], slot[order])
