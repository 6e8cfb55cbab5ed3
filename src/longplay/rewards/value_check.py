"""Which model's value of showing picks the better slots, on users that taught none of them?

Slots of held-out users are valued by every model from what was known before their visit. What a slot came
to is the outcome of the entry that its play opened, 0 without one, and null while an entry at the end of
its day would not have matured: such slots are left out. Slots of familiar creators are left out, too: no
entry is possible there.

Axes: N judged slots.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl
from numpy.typing import NDArray

from longplay.arrays import Float, Int
from longplay.decisions import Contexts, ope_users
from longplay.estimate import clustered_mean
from longplay.lake.lake import Lake
from longplay.results.reward_figures import PickedSlots, SlotScore, ValueFigures
from longplay.rewards.early import EarlyModel
from longplay.rewards.slot_log import SlotLog
from longplay.signals.outcomes.in_memory import Outcomes

MOST_SLATES = 4_000
LEAST_SLOTS = 200
TOP = 0.1  # share of the slots that a model ranks first


def check_values(
    models: Mapping[str, EarlyModel], chosen: str, lake: Lake, outcomes: Outcomes
) -> ValueFigures | None:
    """What the slots that each model ranks first came to; null where the log had no decisions, entries
    are no discoveries, or fewer than 200 slots are mature.

    Args:
        models: early rewards by name, fitted on `lake`.
        chosen: the one that the others are compared with.
        lake: the log that they were fitted on.
        outcomes: of their signal, as known at the end of the log or later.
    """
    showing = models[chosen].showing
    if showing is None or showing.surface is None:
        return None
    index = showing.view(lake).index
    decisions = _sampled(lake.decisions.filter(pl.col("surface") == showing.surface))
    slots = SlotLog.of(index, decisions, showing.signal.entry.novel_for)
    realised_N = outcomes.on(decisions).frame["value"].cast(pl.Float64).to_numpy()
    judged = np.flatnonzero(slots.possible_N & ~np.isnan(realised_N))
    if len(judged) < LEAST_SLOTS:
        return None
    came_to_N = (realised_N * slots.played_N)[judged]
    slate_N = slots.slate_N[judged]
    user_N = slots.user_N[judged]
    length = int(decisions["slate"].list.len()[0])
    contexts = Contexts.of(
        decisions["user_id"], decisions["time"], slots=length, surface=showing.surface
    )
    weights = {}
    for name, model in models.items():
        value_N = model.value(contexts, decisions["slate"], lake).mean.ravel()[judged]
        weights[name] = top_weights(value_N, TOP), best_weights(value_N, slate_N)
    scores = []
    for name in models:
        top, best = (
            _picked(weights[name][k], weights[chosen][k], came_to_N, user_N) for k in (0, 1)
        )
        scores.append(SlotScore(name, top, best))
    return ValueFigures(
        slots=len(judged),
        slates=len(np.unique(slate_N)),
        users=len(np.unique(user_N)),
        usual=float(came_to_N.mean()),
        scores=tuple(scores),
    )


def top_weights(value_N: Float, share: float) -> Float:
    """Weights of the `share` of the slots of greatest value, which sum to 1; those tied for the last
    places share them.

    >>> top_weights(np.array([3.0, 1.0, 2.0, 2.0]), 0.5).tolist()
    [0.5, 0.0, 0.25, 0.25]
    """
    places = share * len(value_N)
    level_N, tied_L = np.unique(-value_N, return_inverse=True, return_counts=True)[1:]
    before_L = np.cumsum(tied_L) - tied_L
    weight_L = np.clip(places - before_L, 0.0, tied_L) / tied_L / places
    return weight_L[level_N]


def best_weights(value_N: Float, slate_N: Int) -> Float:
    """Weights of the slot of greatest value in each slate, which sum to 1; those tied share.

    >>> best_weights(np.array([3.0, 1.0, 2.0, 2.0]), np.array([0, 0, 1, 1])).tolist()
    [0.5, 0.0, 0.25, 0.25]
    """
    slates, row_N = np.unique(slate_N, return_inverse=True)
    most_L = np.full(len(slates), -np.inf)
    np.maximum.at(most_L, row_N, value_N)
    is_best_N = value_N == most_L[row_N]
    tied_L = np.bincount(row_N, weights=is_best_N, minlength=len(slates))
    return np.where(is_best_N, 1.0 / tied_L[row_N], 0.0) / len(slates)


def _picked(
    weight_N: Float, chosen_N: Float, came_to_N: Float, user_N: NDArray[np.int64]
) -> PickedSlots:
    """What the weighted slots came to, and how much more than those of the chosen model."""
    n = len(came_to_N)
    usual = float(came_to_N.mean())
    # weights sum to 1, so what is usual can be taken off first: it would only add noise
    beyond_N = n * (came_to_N - usual)
    mean = clustered_mean(weight_N * beyond_N + usual, user_N)
    difference = clustered_mean((weight_N - chosen_N) * beyond_N, user_N)
    error = difference.std_error
    return PickedSlots(
        mean.value,
        mean.std_error if np.isfinite(mean.std_error) else None,
        difference.value,
        error if np.isfinite(error) else None,
    )


def _sampled(decisions: pl.DataFrame) -> pl.DataFrame:
    """Slates of held-out users, of the length that most have, in the order of users and times."""
    held_out = decisions.filter(pl.Series(ope_users(decisions["user_id"])))
    lengths = held_out["slate"].list.len()
    common = lengths.value_counts().sort("count", "slate", descending=True)["slate"]
    slates = held_out.filter(lengths == common[0]) if len(common) else held_out
    slates = slates.sort("user_id", "time", "decision_id")
    if slates.height > MOST_SLATES:
        rng = np.random.default_rng(0)
        slates = slates[np.sort(rng.choice(slates.height, MOST_SLATES, replace=False))]
    return slates
