"""Fitting the value of showing on a log: chances of entry with and without showing, and their ratio."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import cast

import numpy as np
import polars as pl

from longplay.arrays import Float, Int
from longplay.decisions import Decisions, main_surface
from longplay.errors import DataError
from longplay.lake.daily import DAY_US
from longplay.lake.lake import Lake
from longplay.lake.schema import ENGAGED
from longplay.rewards.entry_fit import PARTS, fit_entry_chance
from longplay.rewards.familiar import LakeIndex
from longplay.rewards.showing import Showing
from longplay.rewards.slot_log import SlotLog, shown_unasked
from longplay.signals.outcomes.in_memory import Outcomes
from longplay.signals.signal import Signal

MIN_EACH = 50  # mature entries of either origin before rho leaves 1
RHO_SPREAD = 0.5  # prior std of log rho


def fit_showing(
    signal: Signal,
    lake: Lake,
    outcomes: Outcomes,
    decisions: Decisions | pl.DataFrame | None = None,
    knows: Collection[str] = (),
    parts: Collection[str] = PARTS,
) -> Showing:
    """Fit the showing model on what was known at `outcomes.as_of`.

    Slots of every surface teach, but for those that show what users asked for (`shown_unasked`). A
    surface and the places on it have effects.

    Args:
        signal: whose entries are modelled.
        lake: the log.
        outcomes: of the signal; nothing after their `as_of` is read.
        decisions: the slates that teach; default those of the lake.
        knows: what the service knows and the model may read: "users" and "items", whose vectors
            are in the lake.
        parts: of the chance of an entry (`entry_fit.PARTS`); default all.

    Raises:
        DataError: none of the slots could have opened an entry.
    """
    view = lake.before(outcomes.as_of)
    teaching = teaching_slots(signal, view, outcomes, decisions)
    if teaching is None:
        return without_slots(signal)
    index = teaching.index
    return Showing(
        signal,
        association=False,
        rho=_organic_ratio(outcomes),
        slots=len(teaching.taught),
        surface=teaching.surface,
        keys=index.keys,
        entry=fit_entry_chance(view, index, teaching.slots, teaching.taught, knows, parts),
        organic_K=_organic_rates(view, index, outcomes),
    )


@dataclass(frozen=True, eq=False)
class TeachingSlots:
    """The slots of a log that a model of showing learns from.

    Attributes:
        index: look-ups in the log.
        surface: the one with the most of them.
        slots: all of them.
        taught: rows of those that could open an entry, and where it is known whether they did.
    """

    index: LakeIndex
    surface: str
    slots: SlotLog
    taught: Int


def teaching_slots(
    signal: Signal,
    view: Lake,
    outcomes: Outcomes,
    decisions: Decisions | pl.DataFrame | None,
) -> TeachingSlots | None:
    """The slots that teach; null where nothing was shown, or entries are no discoveries.

    Args:
        signal: whose entries are modelled.
        view: the log as it was known at `outcomes.as_of`.
        outcomes: of the signal.
        decisions: the slates; default those of the view.

    Raises:
        DataError: none of the slots could have opened an entry.
    """
    if decisions is None:
        decisions = view.decisions
    frame = decisions.frame if isinstance(decisions, Decisions) else decisions
    of = signal.entry.of
    if of is None or not signal.entry.is_discovery or frame.is_empty():
        return None
    index = LakeIndex(view, of)
    slots = SlotLog.of(index, shown_unasked(view, frame), signal.entry.novel_for)
    as_of = int(outcomes.as_of.timestamp() * 1_000_000)
    # later slots may still see an entry
    taught = np.flatnonzero(slots.possible_N & (slots.time_N + DAY_US <= as_of))
    if not len(taught):
        raise DataError(
            f"{signal.name}: none of the slots shown until {outcomes.as_of:%Y-%m-%d} could open "
            f"an entry (all familiar, or without a {of}); "
            "pass lake=None for beliefs alone"
        )
    return TeachingSlots(index, main_surface(frame), slots, taught)


def without_slots(signal: Signal) -> Showing:
    """What is known of showing where no slot teaches: an association, or nothing to know."""
    return Showing(signal, association=signal.entry.of is not None and signal.entry.is_discovery)


def _organic_rates(view: Lake, index: LakeIndex, outcomes: Outcomes) -> Float:
    """Rate of organic discoveries per active user-day at risk, [K + 1]; last the mean rate, of
    unknown keys.

    A user-day is active with an engaged event or a decision: the moments a slate competes with.
    Each entry takes its user out of risk for `novel_for` days (null: for good), at the user's mean
    frequency of active days.
    """
    signal = outcomes.signal
    of = signal.entry.of
    active = pl.concat(
        [
            view.events.filter(pl.col("kind").is_in(ENGAGED)).select("user_id", "time"),
            view.decisions.select("user_id", "time"),
        ]
    )
    days = active.select("user_id", pl.col("time").dt.date().alias("day")).unique()
    spans = days.group_by("user_id").agg(
        (pl.lit(outcomes.as_of).dt.date() - pl.col("day").min()).dt.total_days().alias("days")
    )
    frequency = min(days.height / max(float(spans["days"].sum()) + spans.height, 1.0), 1.0)
    entries = outcomes.frame.filter(pl.col(f"{of}_id").is_not_null())
    key_N = index.keys.rows(entries[f"{of}_id"])
    left_N = (outcomes.as_of.timestamp() // 86400 - entries["day"].to_numpy()).clip(
        0, signal.entry.novel_for
    )
    has_key = key_N >= 0
    off_K = (
        np.bincount(key_N[has_key], weights=left_N[has_key], minlength=len(index.keys)) * frequency
    )
    organic_K = np.bincount(
        key_N[has_key],
        weights=(entries["origin"] == "organic").to_numpy()[has_key],
        minlength=len(index.keys),
    )
    risk_K = np.maximum(days.height - off_K, 0.05 * days.height)
    rate = float((organic_K.sum() + 0.5) / (risk_K.sum() + 1))
    smoothed_K = (organic_K + 1) / (risk_K + 1 / rate)  # by one discovery at the mean rate
    return np.append(smoothed_K, rate)


def _organic_ratio(outcomes: Outcomes) -> float:
    """Mean outcome of organic over recommended entries of the same keys (Mantel & Haenszel 1959),
    shrunk to 1 by its error.

    Comparing within keys keeps "people find good things themselves" out of the ratio.
    """
    mature = outcomes.where(outcomes.known)
    frame = mature.frame.select("value", pl.col("origin") == "organic", mature.keys.alias("key"))
    # groups come in another order every time, and sums of floats depend on the order
    by_key = (
        frame.group_by("key")
        .agg(
            organic_n=pl.col("origin").sum().cast(pl.Float64),
            other_n=(~pl.col("origin")).sum().cast(pl.Float64),
            organic=pl.col("value").filter(pl.col("origin")).sum(),
            other=pl.col("value").filter(~pl.col("origin")).sum(),
        )
        .sort("key")
    )
    if by_key["organic_n"].sum() < MIN_EACH or by_key["other_n"].sum() < MIN_EACH:
        return 1.0
    n_o, n_r, sum_o, sum_r = (
        by_key[name].to_numpy() for name in ("organic_n", "other_n", "organic", "other")
    )
    weight = n_o + n_r
    top = float(np.sum(sum_o * n_r / weight))
    bottom = float(np.sum(sum_r * n_o / weight))
    if top <= 0 or bottom <= 0:
        return 1.0
    rho = top / bottom
    error_K = (sum_o * n_r - rho * sum_r * n_o) / weight  # linearised, clustered by key
    value_variance = cast(float, frame["value"].var() or 0.0)
    noise = np.sum((n_r / weight) ** 2 * n_o + (n_o / weight) ** 2 * n_r) * value_variance
    variance = max(float(np.sum(error_K**2)), float(noise)) / bottom**2
    return float(
        np.clip(np.exp(np.log(rho) * RHO_SPREAD**2 / (RHO_SPREAD**2 + variance)), 0.25, 4.0)
    )
