"""What the sequence model learns from: slots that were played or not, and the days of entries, each with
its moment in a user's history and with what is believed without the sequence.

Axes: M moments (visits and entries), N slots, E entries, W windows of users' events.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy import special

from longplay.arrays import Bool, Float, Int
from longplay.chance import keyed_uniform
from longplay.lake.daily import DAY_US
from longplay.lake.lake import Lake
from longplay.rewards.entry_chance import log_features, logged_chance
from longplay.rewards.sequence.event_tokens import (
    EventTokens,
    Vocabulary,
    Windows,
    moment_features,
)
from longplay.rewards.showing import Showing
from longplay.rewards.slot_log import SlotLog, shown_unasked
from longplay.signals.outcomes.in_memory import Outcomes

MOST_SLATES = 100_000  # that teach; of a larger log, some drawn by chance
VALIDATION = 0.1  # share of users on whom the weight of the sequence is fitted


@dataclass(frozen=True, eq=False)
class SlotLessons:
    """Slots that could open an entry.

    Attributes:
        moment_N: the slate's moment.
        item_N: item row in the vocabulary, -1 unknown.
        key_N: key row, -1 unknown.
        odds_N: log odds of a play without the sequence.
        played_N: 0 or 1.
    """

    moment_N: Int
    item_N: Int
    key_N: Int
    odds_N: Float
    played_N: Float


@dataclass(frozen=True, eq=False)
class EntryLessons:
    """Entries.

    Attributes:
        moment_E: the entry's moment.
        item_E: item row in the vocabulary, -1 unknown.
        key_E: key row, -1 unknown.
        link_E: link of the outcome believed in without the sequence.
        organic_E: 1 where the user came unasked.
    """

    moment_E: Int
    item_E: Int
    key_E: Int
    link_E: Float
    organic_E: Float


@dataclass(frozen=True, eq=False)
class Lessons:
    """Slots and entries at moments of users' histories, both in the order of windows.

    Attributes:
        windows: of users' events.
        feature_MF: see `moment_features`.
        user_MV: what the service knows of each moment's user, scaled.
        validation_W: whether the window's user does not teach the network.
        slots: slots.
        entries: entries.
        entry_rows: rows of the entries in the outcomes that they are from.
    """

    windows: Windows
    feature_MF: Float
    user_MV: Float
    validation_W: Bool
    slots: SlotLessons
    entries: EntryLessons
    entry_rows: Int

    @property
    def slot_windows(self) -> Int:
        """The window of each slot."""
        return self.windows.window_N[self.slots.moment_N]

    @property
    def entry_windows(self) -> Int:
        """The window of each entry."""
        return self.windows.window_N[self.entries.moment_E]


def no_slates() -> tuple[pl.Series, Int, SlotLessons]:
    """`slates_taught` where nothing was shown."""
    nothing = np.zeros(0, dtype=np.int64)
    slots = SlotLessons(nothing, nothing, nothing, np.zeros(0), np.zeros(0))
    return pl.Series([], dtype=pl.String), nothing, slots


def slates_taught(
    showing: Showing,
    lake: Lake,
    decisions: pl.DataFrame,
    as_of: int,
    vocabulary: Vocabulary,
    seed: int,
) -> tuple[pl.Series, Int, SlotLessons]:
    """Users and times of slates, and their slots, of which `moment_N` is the slate.

    Args:
        showing: the fitted model of showing, which says what is believed without the sequence.
        lake: the log.
        decisions: what was shown.
        as_of: until when slots may have closed, microseconds.
        vocabulary: numbers of items and keys.
        seed: of the slates that are drawn.
    """
    model = showing.entry
    if model is None or decisions.is_empty():
        return no_slates()
    view = showing.view(lake)
    assert view.facts is not None
    assert view.tastes is not None
    frame = shown_unasked(lake, decisions)
    slots = SlotLog.of(view.index, frame, showing.signal.entry.novel_for)
    can_teach_N = slots.possible_N & (slots.time_N + DAY_US <= as_of)
    slates = np.unique(slots.slate_N[can_teach_N])
    if len(slates) > MOST_SLATES:
        rng = np.random.default_rng(seed)
        slates = np.sort(rng.choice(slates, MOST_SLATES, replace=False))
    rows = np.flatnonzero(can_teach_N & np.isin(slots.slate_N, slates))
    first_M = np.searchsorted(slots.slate_N, slates)
    user_ids = slots.users.ids.gather(slots.user_N[first_M])
    time_M = slots.time_N[first_M]
    x_NF = log_features(slots, view.facts.key_I)[rows]
    chance_N = logged_chance(model, lake, view.index, view.tastes, slots, rows, x_NF)
    owner_N = np.searchsorted(slates, slots.slate_N[rows])
    lessons = SlotLessons(
        owner_N,
        _rows(vocabulary.items.rows(view.index.items.ids), slots.item_N[rows]),
        _rows(vocabulary.keys.rows(view.index.keys.ids), slots.key_N[rows]),
        special.logit(np.clip(chance_N, 1e-9, 1 - 1e-9)),
        slots.played_N[rows],
    )
    return user_ids, time_M, lessons


def _rows(row_I: Int, item_N: Int) -> Int:
    return np.append(row_I, -1)[item_N]


def lessons_of(
    tokens: EventTokens,
    slates: tuple[pl.Series, Int, SlotLessons],
    outcomes: Outcomes,
    entries: EntryLessons,
    user_MV: Float,
) -> Lessons:
    """Slots and entries with their moments.

    Args:
        tokens: users' events.
        slates: see `slates_taught`.
        outcomes: the entries.
        entries: the same, in the same order; their moments are not read.
        user_MV: vectors of the users of all slates, then of all entries.
    """
    slate_users, slate_time, slots = slates
    user_ids = pl.concat([slate_users.alias("user_id"), outcomes.frame["user_id"]])
    time_M = np.concatenate([slate_time, outcomes.frame["time"].dt.epoch("us").to_numpy()])
    windows = tokens.windows(user_ids, time_M)
    name_W = np.zeros(len(windows.user_W), dtype=np.int64)
    name_W[windows.window_N] = np.arange(len(user_ids))
    validation_W = keyed_uniform("longplay: sequence", user_ids.gather(name_W)) < VALIDATION
    entry_moment = len(slate_users) + np.arange(len(outcomes))
    order_N = np.argsort(windows.window_N[slots.moment_N], kind="stable")
    order_E = np.argsort(windows.window_N[entry_moment], kind="stable")
    return Lessons(
        windows,
        moment_features(windows.events, windows.place_N, windows.window_N, time_M),
        user_MV,
        validation_W,
        SlotLessons(
            slots.moment_N[order_N],
            slots.item_N[order_N],
            slots.key_N[order_N],
            slots.odds_N[order_N],
            slots.played_N[order_N],
        ),
        EntryLessons(
            entry_moment[order_E],
            entries.item_E[order_E],
            entries.key_E[order_E],
            entries.link_E[order_E],
            entries.organic_E[order_E],
        ),
        order_E,
    )
