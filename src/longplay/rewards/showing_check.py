"""Is the chance of an entry right, and what is each of its parts worth, on users that taught it nothing?

Slots of held-out users are predicted from what was known before each of their visits. Calibration
compares predicted and realised entries by bin of prediction. A part is worth what the best slot of a
slate, by the whole model, came to beyond the best slot by the model without it: entries x belief,
over logged slates, so that nothing but the choice within a slate differs. The user's rate is equal in
all slots of a slate and chooses none: calibration judges it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from longplay.arrays import Float, Int
from longplay.belief import reliability
from longplay.decisions import ope_users
from longplay.estimate import clustered_mean
from longplay.lake.daily import DAY_US
from longplay.lake.lake import Lake
from longplay.results.reward_figures import PartWorth, ReliabilityBin, ShowingFigures
from longplay.rewards.early import EarlyModel
from longplay.rewards.entry_chance import (
    ABOVE,
    FEATURES,
    EntryChance,
    log_features,
    logged_chance,
)
from longplay.rewards.slot_log import SlotLog, shown_unasked

# parts that can change which slot of a slate is best
JUDGED = ("items", "repetition", "above", "taste")
MOST_SLATES = 20_000
LEAST_SLATES = 50


def check_showing(early: EarlyModel, lake: Lake) -> ShowingFigures | None:
    """Weights, calibration and worth of the parts of a fitted chance of an entry; null where the log
    had no decisions, or entries are slots.

    Args:
        early: a fitted early reward.
        lake: the log, complete up to its watermark.
    """
    showing = early.showing
    if showing is None or showing.entry is None or lake.watermark is None:
        return None
    model = showing.entry
    view = showing.view(lake)
    slots = SlotLog.of(
        view.index, shown_unasked(lake, lake.decisions), showing.signal.entry.novel_for
    )
    held_out_U = ope_users(slots.users.ids)
    closed = int(lake.watermark.timestamp() * 1_000_000) - DAY_US
    judged_N = slots.possible_N & (slots.time_N <= closed) & held_out_U[slots.user_N]
    slates = np.unique(slots.slate_N[judged_N])
    if len(slates) > MOST_SLATES:
        slates = np.sort(np.random.default_rng(0).choice(slates, MOST_SLATES, replace=False))
    rows = np.flatnonzero(judged_N & np.isin(slots.slate_N, slates))
    weights = dict(zip(FEATURES, model.weight_F.tolist(), strict=True))
    weights |= {"user's own rate": float(model.slope_3[1]), "user's taste": float(model.slope_3[2])}
    weights |= dict(zip(ABOVE, model.above_A.tolist(), strict=True))
    if len(slates) < LEAST_SLATES:
        return ShowingFigures(showing.surface or "", showing.slots, len(slates), weights, (), {})
    x_NF = log_features(slots, np.append(view.index.key_row_I, -1))[rows]
    assert view.tastes is not None
    parts = [part for part in JUDGED if part != "above" or model.above_A.any()]
    chances = {
        part: logged_chance(_without(model, part), lake, view.index, view.tastes, slots, rows, x_NF)
        for part in ("", *parts)
    }
    worth_N = slots.played_N[rows] * early.items(view.index.keys.ids.gather(slots.key_N[rows])).mean
    bins = reliability(chances[""], slots.played_N[rows])
    return ShowingFigures(
        surface=showing.surface or "",
        slots=showing.slots,
        judged=len(slates),
        weights=weights,
        reliability=tuple(ReliabilityBin(**row) for row in bins.to_dicts()),
        parts={part: _worth(chances[""], chances[part], worth_N, slots, rows) for part in parts},
    )


def _without(model: EntryChance, part: str) -> EntryChance:
    """The model without one of its parts; "" leaves all."""
    if part == "items":
        return replace(
            model,
            item_I=np.zeros_like(model.item_I),
            key_K=np.zeros_like(model.key_K),
            content_C=np.zeros_like(model.content_C),
        )
    weight_F = model.weight_F.copy()
    slope_3 = model.slope_3.copy()
    if part == "repetition":
        weight_F[1:] = 0.0
    if part == "taste":
        slope_3[2] = 0.0
    above_A = np.zeros_like(model.above_A) if part == "above" else model.above_A
    return replace(model, weight_F=weight_F, slope_3=slope_3, above_A=above_A)


def _worth(whole_N: Float, part_N: Float, worth_N: Float, slots: SlotLog, rows: Int) -> PartWorth:
    """What the best slot of a slate by the whole model comes to beyond the best by the other one."""
    slate_N = slots.slate_N[rows]
    first = np.flatnonzero(np.diff(slate_N, prepend=-1))

    def chosen(chance_N: Float) -> Float:
        order = np.lexsort((-chance_N, slate_N))
        return worth_N[order[first]]

    gain = clustered_mean(chosen(whole_N) - chosen(part_N), slots.user_N[rows[first]], estimand="")
    usual = float(np.mean(np.add.reduceat(worth_N, first) / np.diff(np.append(first, len(rows)))))
    return PartWorth(gain.value, gain.std_error, usual)
