"""The learnt baseline: the outcomes that exposed pairs of user and creator would have had without an
exposure.

Without being shown a creator, some users would have discovered it anyway, now or a little later. How
many is estimated from pairs that were not exposed: their outcomes per day on which the user was
active and could have discovered the creator. This is the attributable fraction among the exposed
(Miettinen 1974), in person-time, creator by creator and among equally active users.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from longplay.arrays import Float, Int
from longplay.attribution.rules import LOOKBACK_DAYS
from longplay.decisions import Decisions
from longplay.errors import ConfigError, DataError
from longplay.index import ItemIndex
from longplay.lake.creators import named_events
from longplay.lake.daily import DAY_US
from longplay.lake.lake import Lake
from longplay.lake.schema import ENGAGED
from longplay.signals.declare.declaration import Declaration
from longplay.signals.engine.beginnings import SILENCE_DAYS
from longplay.signals.outcomes.in_memory import Outcomes, check_lake, slates_of

LEAST_OUTCOMES = 10
GROUPS = 5


@dataclass(frozen=True)
class Unexposed:
    """The outcomes expected of exposed pairs without exposure, learnt from unexposed pairs; returned
    by `unexposed_baseline`. A pair is a user and a creator (or item).

    Attributes:
        signal: the discovery signal.
        lookback: days that an exposure counts for.
        expected: sum of outcomes that exposed pairs would have had at the rate of unexposed ones.
        organic: sum of the outcomes of exposed pairs whose entry's own event was organic.
        shown: sum of the outcomes of exposed pairs whose entry's own event was not organic.
        unexposed: sum of the outcomes of unexposed pairs.
        unexposed_days: days of unexposed pairs on which the user was active and a discovery was
            possible.
        exposed_days: the same days of exposed pairs.

    >>> sums = {"expected": 6.0, "organic": 4.0, "shown": 20.0, "unexposed": 50.0}
    >>> base = Unexposed(None, 28, **sums, unexposed_days=5e4, exposed_days=6e3)
    >>> base.organic_share, base.shown_share  # the organic 4 first, the other 2 out of the 20 shown
    (1.0, 0.1)
    """

    signal: Declaration | None
    lookback: int
    expected: float
    organic: float
    shown: float
    unexposed: float
    unexposed_days: float
    exposed_days: float

    @property
    def organic_share(self) -> float:
        """Share of an organic entry's outcome that is baseline, 0 to 1. The expected outcomes are
        taken from organic entries first."""
        return min(1.0, self.expected / self.organic) if self.organic > 0 else 1.0

    @property
    def shown_share(self) -> float:
        """Share of the outcome of other entries that is baseline; above 1 where showing does
        harm."""
        return max(0.0, self.expected - self.organic) / self.shown if self.shown > 0 else 0.0

    def of(self, outcomes: Outcomes, touched_N: NDArray[np.bool_]) -> Float:
        """The baseline of each entry, shape [N]: 0 for entries without a touch, for which nobody is
        credited, and for unknown outcomes.

        Args:
            outcomes: N entries.
            touched_N: whether an entry has a touch.

        Raises:
            ConfigError: outcomes of another signal than it was learnt for.
        """
        if self.signal is not None and self.signal.version != outcomes.signal.version:
            raise ConfigError(
                f"credit: a baseline of {self.signal.label} given for outcomes of "
                f"{outcomes.signal.label}; learn one for each signal"
            )
        share_N = np.where(
            (outcomes.frame["origin"] == "organic").to_numpy(), self.organic_share, self.shown_share
        )
        return np.where(touched_N, np.nan_to_num(outcomes.value) * share_N, 0.0)

    def __str__(self) -> str:
        total = self.organic + self.shown
        share = f"{self.expected / total:.1%}" if total > 0 else "-"
        return (
            f"exposed pairs came to {total:,.1f} ({self.organic:,.1f} found organically) in "
            f"{self.exposed_days:,.0f} days; unexposed ones "
            f"came to {self.unexposed:,.1f} in {self.unexposed_days:,.0f}, at equal creators "
            f"{self.expected:,.1f} expected: {share} is baseline"
        )


def shown_unasked(lake: Lake) -> pl.DataFrame:
    """The decisions on surfaces whose plays are mostly recommended. Search results, which the user
    asked for, are left out."""
    events = lake.events.filter(pl.col("kind").is_in(ENGAGED) & pl.col("decision_id").is_not_null())
    requested_surfaces = (
        events.group_by("surface")
        .agg(share=(pl.col("origin") == "organic").mean())
        .filter(pl.col("share") > 0.5)["surface"]
    )
    return lake.decisions.filter(~pl.col("surface").is_in(requested_surfaces.implode()))


def unexposed_baseline(
    outcomes: Outcomes,
    lake: Lake,
    decisions: Decisions | pl.DataFrame,
    *,
    lookback: int = LOOKBACK_DAYS,
    users: pl.Series | None = None,
    least: int = LEAST_OUTCOMES,
) -> Unexposed:
    """Learn the baseline of a discovery signal from pairs (user, creator or item) without an
    exposure.

    A pair's day counts if the user was active on it, an entry on it would have matured, and a
    discovery was possible (no touch in the `novel_for` days before). The day is exposed if there was
    an exposure on it or in the `lookback` days before, even if the user followed that exposure: the
    question is what the user would have done on those days. Otherwise it is unexposed.

    Rates are by creator (or item), each smoothed by one outcome at the mean rate. They are
    multiplied by a factor for each fifth of the users by number of active days: frequent users are
    shown more, and have more outcomes per discovery. Users with a single active day are left out.

    The baseline assumes that, creator by creator, per active day and among equally active users,
    those who were not shown a creator are like those who were. A policy that knows the users' taste
    breaks this: it shows what they would look for, and the baseline is then too low.

    Args:
        outcomes: of a signal whose entries are discoveries.
        lake: the log.
        decisions: what was shown unasked (`shown_unasked(lake)`).
        lookback: days that an exposure counts for.
        users: learn from these alone; default everybody.
        least: number of outcomes above 0 that unexposed pairs must have. With few their rate is
            unreliable; without any it would be 0.

    Raises:
        ConfigError: entries that are not discoveries.
        DataError: no day of the log can be used, or unexposed pairs have too few outcomes.
    """
    signal = outcomes.signal
    entry = outcomes.signal.entry
    if not entry.is_discovery or entry.of is None:
        raise ConfigError(
            f"unexposed: {signal.name} is entered by {entry.kind}; only discoveries have pairs "
            "that were not exposed. Of users, declare their own "
            "baseline: measure.above_baseline(28)"
        )
    key = f"{entry.of}_id"
    novel = entry.novel_for or 365
    check_lake("unexposed", lake)
    shown = slates_of("unexposed", decisions)
    touched = named_events(lake).filter(
        pl.col("kind").is_in(ENGAGED) & (pl.col("time") < outcomes.as_of)
    )
    shown = shown.filter(pl.col("time") < outcomes.as_of)
    entered = outcomes.frame
    if users is not None:
        chosen_users = users.unique().to_frame("user_id")
        touched, shown, entered = (
            table.join(chosen_users, on="user_id", how="semi")
            for table in (touched, shown, entered)
        )
    day = (pl.col("time").dt.epoch("us") // DAY_US).alias("day")
    active = _days_seen_again(
        pl.concat([touched.select("user_id", day), shown.select("user_id", day)])
    )
    if active.is_empty():
        raise DataError(
            f"unexposed: {signal.name}: nobody is active on two days before "
            f"{outcomes.as_of:%Y-%m-%d}"
        )
    touched, shown, entered = (
        table.join(active, on="user_id", how="semi") for table in (touched, shown, entered)
    )
    first = int(active["day"].min()) + (entry.novel_for or LOOKBACK_DAYS)  # type: ignore[arg-type]
    last = int(outcomes.as_of.timestamp()) // 86_400 - signal.window[1] - 1
    if last < first:
        raise DataError(
            f"unexposed: {signal.name}: the log is too short: no outcome of a sure discovery has "
            "matured; wait, or shorten the window"
        )
    active_days = _ActiveDays(active, first, last)
    slots = (
        shown.select("user_id", "slate", day)
        .explode("slate", empty_as_null=False)
        .rename({"slate": "item_id"})
    )
    slots = (
        slots.join(outcomes.creators, on="item_id", how="left")
        .select("user_id", pl.col(key).alias("key"), "day")
        .drop_nulls()
        .unique()
    )
    touches = touched.select("user_id", pl.col(key).alias("key"), day).drop_nulls().unique()
    keys = ItemIndex(pl.concat([slots["key"], touches["key"]]).unique().sort())
    shown_P = active_days.pairs(slots, keys)
    shown_day = slots["day"].to_numpy()
    touch_P = active_days.pairs(touches, keys)
    touch_day = touches["day"].to_numpy()
    possible = ~_within(touch_P, touch_day, shown_P, shown_day, 1, novel)
    exposed_GK = active_days.count(
        shown_P[possible], shown_day[possible], shown_day[possible] + lookback, len(keys)
    )
    not_free_GK = active_days.count(
        np.concatenate([shown_P, touch_P]),
        np.concatenate([shown_day, touch_day + 1]),
        np.concatenate([shown_day + lookback, touch_day + novel]),
        len(keys),
    )
    free_GK = np.maximum(active_days.total_G[:, None] - not_free_GK, 0.0)
    matured = entered.filter(
        pl.col("value").is_not_null() & ~pl.col("truncated") & pl.col("day").is_between(first, last)
    )
    at = matured.select("user_id", pl.col(key).alias("key"), "day")
    pair_E = active_days.pairs(at, keys)
    value_E = matured["value"].to_numpy()
    organic_E = (matured["origin"] == "organic").to_numpy()
    after_E = _within(shown_P, shown_day, pair_E, at["day"].to_numpy(), 0, lookback)
    free_value_GK = active_days.by_group(pair_E[~after_E], value_E[~after_E], len(keys))
    unexposed_outcomes = int(np.count_nonzero(value_E[~after_E]))
    if unexposed_outcomes < least:
        raise DataError(
            f"unexposed: {signal.name}: only {unexposed_outcomes} outcomes above 0 of pairs that were not "
            f"exposed, in {free_GK.sum():,.0f} of their days, expected "
            f"at least {least}: where everybody is shown everything, nothing says what would come "
            "by itself; shorten the lookback, or hold "
            "exposures out"
        )
    rate_GK = _rates(free_value_GK, free_GK)
    return Unexposed(
        signal,
        lookback,
        expected=float((rate_GK * exposed_GK).sum()),
        organic=float(value_E[after_E & organic_E].sum()),
        shown=float(value_E[after_E & ~organic_E].sum()),
        unexposed=float(free_value_GK.sum()),
        unexposed_days=float(free_GK.sum()),
        exposed_days=float(exposed_GK.sum()),
    )


def _days_seen_again(active: pl.DataFrame) -> pl.DataFrame:
    """The distinct days (user_id, day) of users who were active on another day at most
    `SILENCE_DAYS` away. On these days the log was running."""
    in_order = active.unique().sort("user_id", "day")
    day = pl.col("day")
    since_previous = day - day.shift(1).over("user_id")
    until_next = day.shift(-1).over("user_id") - day
    return in_order.filter(
        (since_previous <= SILENCE_DAYS).fill_null(False)
        | (until_next <= SILENCE_DAYS).fill_null(False)
    )


def _rates(value_GK: Float, days_GK: Float) -> Float:
    """Outcomes per day by group and key, shape [G, K]: the key's rate, smoothed by one outcome at
    the mean rate, times the group's factor."""
    value_K = value_GK.sum(axis=0)
    days_K = days_GK.sum(axis=0)
    mean = float(value_K.sum() / max(days_K.sum(), 1.0))
    if mean == 0:
        return np.zeros_like(value_GK)
    rate_K = (value_K + 1.0) / (days_K + 1.0 / mean)
    factor_G = (value_GK.sum(axis=1) + 1.0) / ((days_GK * rate_K).sum(axis=1) + 1.0)
    return factor_G[:, None] * rate_K


class _ActiveDays:
    """Counts users' active days between two days, for many users at once. Users are grouped in fifths
    by their number of active days."""

    def __init__(self, active: pl.DataFrame, first: int, last: int) -> None:
        self.first = first
        self.last = last
        self.users = ItemIndex(active["user_id"].unique().sort())
        inside = active.filter(pl.col("day").is_between(first, last))
        user_M = self.users.rows(inside["user_id"])
        self.span = last - first + 3
        self.code = np.sort(user_M * self.span + (inside["day"].to_numpy() - first))
        days_U = np.bincount(user_M, minlength=len(self.users))
        bounds = np.zeros(GROUPS - 1)  # active days between one group and the next
        if len(user_M):
            bounds = np.quantile(days_U[days_U > 0], np.arange(1, GROUPS) / GROUPS)
        self.group_U = np.searchsorted(bounds, days_U)
        self.total_G = np.bincount(self.group_U, weights=days_U, minlength=GROUPS)

    def pairs(self, table: pl.DataFrame, keys: ItemIndex) -> Int:
        """A number for each (user, key) of the table."""
        return self.users.rows(table["user_id"]) * len(keys) + keys.rows(table["key"])

    def by_group(self, pair_M: Int, weight_M: NDArray[np.number], keys: int) -> Float:
        """Sum of the weights by group of the pair's user and by key, shape [G, K]."""
        code_M = self.group_U[pair_M // keys] * keys + pair_M % keys
        return (
            np.bincount(code_M, weights=weight_M, minlength=GROUPS * keys)
            .astype(float)
            .reshape(GROUPS, keys)
        )

    def count(self, pair_M: Int, start_M: Int, stop_M: Int, keys: int) -> Float:
        """Active days of the pair's user in the union of the pair's intervals [start, stop], within
        first to last; by group and key, [G, K]."""
        start_M = np.maximum(start_M, self.first)
        stop_M = np.minimum(stop_M, self.last)
        keep = start_M <= stop_M
        order = np.lexsort((start_M[keep], pair_M[keep]))
        pair_M, start_M, stop_M = (values[keep][order] for values in (pair_M, start_M, stop_M))
        if not len(pair_M):
            return np.zeros((GROUPS, keys))
        # what earlier intervals of the pair have covered: a running maximum that begins anew with
        # each pair
        shift = np.cumsum(np.append(0, pair_M[1:] != pair_M[:-1])) * (self.span + 1)
        reach_M = np.maximum.accumulate(stop_M - self.first + shift) - shift + self.first
        again = np.append(False, pair_M[1:] == pair_M[:-1])
        begin_M = np.where(again, np.maximum(start_M, np.append(0, reach_M[:-1]) + 1), start_M)
        user_M = pair_M // keys
        low = np.searchsorted(
            self.code, user_M * self.span + np.minimum(begin_M, stop_M + 1) - self.first
        )
        high = np.searchsorted(self.code, user_M * self.span + stop_M - self.first, side="right")
        return self.by_group(pair_M, np.maximum(high - low, 0), keys)


def _within(
    pair_E: Int, day_E: Int, pair_M: Int, day_M: Int, least: int, most: int
) -> NDArray[np.bool_]:
    """Whether the pair has an event E between `most` and `least` days before the day, shape [M]."""
    span = 2**20
    code_E = np.sort(pair_E * span + day_E)
    low = np.searchsorted(code_E, pair_M * span + day_M - most)
    high = np.searchsorted(code_E, pair_M * span + day_M - least, side="right")
    return high > low
