"""The true value of showing an item: what it changes in the outcome, by paired simulation.

Two virtual copies of a user live the same days with the same luck, one having been shown the item
on day 0 (the day that begins now; the user is here, so both copies visit on it), one not; nothing
is shown to either afterwards (the no-exposure path). An exposure that is not played changes nothing
in this world, so

    value = P(play | shown first) * E[outcome(played) - outcome(not shown)]

exactly, which replaces the coin of the play by its chance and removes most of the noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from longplay.arrays import Float, Int
from longplay.errors import ConfigError
from longplay.signals.outcomes.once import left_by_slots_above
from longplay.signals.signal import Signal
from longplay.world.catalogue import Catalogue, Market
from longplay.world.dynamics import HOME, Shown, live, play_chance, visitors, wake
from longplay.world.event_log import DayPlays
from longplay.world.listeners import Listeners, State
from longplay.world.luck import Luck
from longplay.world.parameters import WorldConfig
from longplay.world.surfaces import house_lists

_AGENTS = 60_000  # copies simulated at once: bounds memory at about 100 MB


@dataclass(frozen=True, eq=False)
class Touches:
    """The last day on which each user touched each creator or item, by sorted keys user * things +
    thing."""

    key: Int
    day: Int
    things: int

    @classmethod
    def of(cls, days: Sequence[DayPlays], catalogue: Catalogue, items: bool = False) -> Self:
        """Touches of creators, or with `items` of items, from the plays of all days in order."""
        if items:
            thing_I = np.arange(len(catalogue))
            things = len(catalogue)
        else:
            thing_I = catalogue.creator_I
            things = len(catalogue.creators)
        if not days:
            return cls(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64), things)
        key = np.concatenate(
            [
                day_plays.user_P.astype(np.int64) * things + thing_I[day_plays.item_P]
                for day_plays in days
            ]
        )
        when = np.concatenate([np.full(len(day_plays.user_P), day_plays.day) for day_plays in days])
        # reversed: the first occurrence is the latest
        unique, last = np.unique(key[::-1], return_index=True)
        return cls(unique, when[::-1][last], things)

    def last(self, user_N: Int, thing_N: Int) -> Int:
        """The day of the last touch, [N]; a day long before all others where there is none."""
        if len(self.key) == 0:
            return np.full(len(user_N), -(10**9))
        key_N = user_N * self.things + thing_N
        at_N = np.minimum(np.searchsorted(self.key, key_N), len(self.key) - 1)
        return np.where(self.key[at_N] == key_N, self.day[at_N], -(10**9))


def true_value(
    listeners: Listeners,
    market: Market,
    state: State,
    touches: Touches,
    user_N: Int,
    item_NS: Int,
    signal: Signal,
    day: int,
    luck: Luck,
    config: WorldConfig,
    replicates: int,
    together: bool = False,
) -> Float:
    """True value of showing `item_NS` to `user_N` on `day`, each in first position, shape [N, S].

    Each alone; or `together`, as one slate: then a slot that a discovery needs is worth what the
    slots of the same creator above it left, the chance that none of them was played.

    Signals by creator and entered by discovery: the entry is the first touch in `novel_for` days,
    on day 0; a creator touched more recently gives exactly 0, and the copy that is not shown
    counts as well if it discovers the creator by itself on day 0. Otherwise the entry is day 0 for
    both copies. The outcome is over organic days `signal.window` after the entry. Churned users: 0.
    """
    if replicates < 1:
        raise ConfigError(f"true_value: replicates={replicates} given, expected at least 1")
    by_creator = _checked(signal)
    slots = item_NS.shape[1]
    user_P = np.repeat(user_N, slots)
    item_P = item_NS.ravel()
    creator_P = market.catalogue.creator_I[item_P]
    worth_P = state.alive_R[user_P].copy()
    discovery = signal.entry.is_discovery
    if discovery:
        novel_for = signal.entry.novel_for
        worth_P &= touches.last(user_P, creator_P) < (
            day - novel_for if novel_for is not None else 0
        )
    value_P = np.zeros(len(user_P))
    todo = np.flatnonzero(worth_P)
    first_P = np.zeros(len(user_P), dtype=np.int64)
    chance_P = play_chance(
        listeners,
        listeners.taste(day, config),
        wake(state, config),
        market,
        user_P,
        item_P,
        first_P,
        config,
    )
    for part in np.array_split(todo, max(1, -(-len(todo) * replicates // _AGENTS))):
        if len(part) == 0:
            continue
        pair_R = np.repeat(part, replicates)
        agents = _Agents(
            listeners.take(user_P[pair_R]),
            state.take(user_P[pair_R]),
            luck.copies(user_P[pair_R], np.tile(np.arange(replicates), len(part))),
            creator_P[pair_R],
            by_creator=by_creator,
            gated=discovery,
        )
        shown_R = agents.outcome(market, item_P[pair_R], signal, day, luck, config)
        not_shown_R = agents.outcome(market, None, signal, day, luck, config)
        value_P[part] = chance_P[part] * (shown_R - not_shown_R).reshape(
            len(part), replicates
        ).mean(axis=1)
    value_NS = value_P.reshape(item_NS.shape)
    if not (together and discovery):
        return value_NS
    played_NS = np.where(worth_P, chance_P, 0.0).reshape(item_NS.shape)
    left_NS, _ = left_by_slots_above(creator_P.reshape(item_NS.shape).astype(np.int64), played_NS)
    return left_NS * value_NS


@dataclass(frozen=True, eq=False)
class _Agents:
    """R virtual copies of users as of now, with the creator each is watched for.

    `by_creator`: count organic days with that creator, else days of the user; `gated`: only after a
    touch of it on day 0.
    """

    listeners: Listeners
    state: State
    key_R: NDArray[np.uint64]
    creator_R: Int
    by_creator: bool
    gated: bool

    def outcome(
        self,
        market: Market,
        forced_R: Int | None,
        signal: Signal,
        day: int,
        luck: Luck,
        config: WorldConfig,
    ) -> Float:
        """The signal's outcome of each copy when it plays `forced_R` on day 0, or is shown nothing;
        shape [R]."""
        catalogue = market.catalogue
        n = len(self.state)
        everyone = np.arange(n)
        state = self.state
        low, high = signal.window
        count_R = np.zeros(n)
        entered_R = np.ones(n, dtype=bool)
        for days_later in range(high + 1):
            if day + days_later >= market.until:
                market = catalogue.market(day + days_later)
            today = luck.on(self.key_R, day + days_later)
            taste_RD = self.listeners.taste(day + days_later, config)
            state = wake(state, config)
            if days_later == 0:
                active_R = state.alive_R.copy()
            else:
                active_R = visitors(self.listeners, state, today, day + days_later, config)
            shown = house_lists(
                self.listeners,
                taste_RD,
                market,
                np.flatnonzero(active_R),
                day + days_later,
                today,
                config,
                shelf=False,
            )
            if forced_R is not None and days_later == 0:
                shown.append(Shown(HOME, everyone, forced_R[:, None], np.ones((n, 1), dtype=bool)))
            state, plays = live(
                self.listeners, taste_RD, market, state, active_R, shown, today, config
            )
            with_creator_P = catalogue.creator_I[plays.item_P] == self.creator_R[plays.row_P]
            if self.gated and days_later == 0:
                entered_R = np.zeros(n, dtype=bool)
                entered_R[plays.row_P[with_creator_P]] = True
            if days_later < low:
                continue
            if self.by_creator:
                hit_R = np.zeros(n, dtype=bool)
                hit_R[plays.row_P[with_creator_P & plays.organic]] = True
                count_R += hit_R
            else:
                count_R += active_R
        threshold = signal.threshold
        outcome_R = count_R if threshold is None else (count_R >= threshold).astype(np.float64)
        return np.where(entered_R, outcome_R, 0.0)


def _checked(signal: Signal) -> bool:
    """Whether the signal counts days with the creator, and not days of the user. Raises where the
    world knows no truth of the signal."""
    measure = signal.measure
    entry = signal.entry
    low, high = signal.window
    if not 0 <= low <= high:
        raise ConfigError(
            f"true_value: window={signal.window} given, expected 0 <= first day <= last day"
        )
    if entry.of == "item":
        raise ConfigError(
            f"true_value: {entry.kind} of an item given, expected of a creator: the world's "
            "habits are with creators"
        )
    if "organic" not in signal.origins:
        raise ConfigError(
            "true_value: the signal does not count organic days, but without exposure there are "
            "no others; add 'organic' to its origin"
        )
    if (
        measure.per is not None
        or measure.baseline is not None
        or entry.is_event
        or entry.dormant_for is not None
    ):
        raise ConfigError(
            f"true_value: {signal.name} given, expected a signal without ratio, baseline or "
            "dormancy, entered by discovery, exposure or user_day"
        )
    if measure.counts_days and measure.of != "item":
        return measure.of == "creator"
    raise ConfigError(
        f"true_value: measure {measure.kind} of {measure.of} has no truth here; expected "
        "days_with('creator'), active_days or returned"
    )
