"""What an outcome given entry owes to the item that was entered by and to the user who entered.

Two regressions. The first is of *amounts*, what an entry has come to in the days observed of it: an
immature entry teaches by its first days, and days teach more than whether a threshold was reached.

    log E[amount] = log share of the window's amount that usually falls into these days
                    + intercept + effect of the item + effect of its creator
                    + weight x log odds of the item's entry rate + weight x (the user came unasked)

(quasi-Poisson; effects shrunk to what content says, variances by empirical Bayes, see `effects`). The
second joins this with the belief about the creator, on mature entries of users who taught neither:

    link E[outcome] = intercept + slope x ((1 - b) link(belief about the creator) + b log E[amount])
                      + user's rate

with log as the link of sums and log odds as that of thresholds. The weights sum to 1 (a logarithmic
opinion pool: Genest & Zidek 1986), so that where items do not differ the two agree and the belief stays
what it was; b is a half and the slope is 1 unless entries say otherwise. The user's rate is how much the user's
earlier entries came to beyond what was expected of them, shrunk; only those count whose window had
closed. Every part is kept where it lowers the deviance of entries of users who did not teach it.

Axes: N entries, I items (last: unknown), K creators or items that entries are about (last: unknown),
D days of the window plus 1, A ages, C columns of content.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from longplay.arrays import Bool, Float, Int
from longplay.index import ItemIndex
from longplay.rewards.early import prefix_hits, sum_by
from longplay.rewards.effects import Group, fit_effects
from longplay.rewards.entry_rates import EntryRates
from longplay.rewards.families import BINOMIAL, POISSON, Family
from longplay.rewards.running_sums import RunningSums
from longplay.signals.outcomes.in_memory import Outcomes
from longplay.signals.signal import Signal

PARTS = ("items", "entry rates", "content", "user's rate")  # in the order in which they are tried
LEAST_SHARE = 1e-3  # of the window's amount: days in which less falls teach nothing
STEPS = 20  # of Newton, for effects in turn
LEAST_BELIEF = 0.02  # of the prior mean: what a belief is at least, as Gaussian ones can fall to 0


@dataclass(frozen=True, eq=False)
class Catalogue:
    """Items, what entries are about, and what is known of items.

    Attributes:
        items: items by row.
        keys: creators (or items) by row.
        key_I: row of each item's key, -1 unknown; last: of unknown items.
        content_IC: what is known of the items, a last row of zeros for unknown ones; no columns:
            nothing.
        rates: entry rates; None where nothing was shown.
    """

    items: ItemIndex
    keys: ItemIndex
    key_I: Int
    content_IC: Float
    rates: EntryRates | None

    def content_of_keys(self) -> Float:
        """Mean content of each key's items; last: zeros."""
        n = len(self.keys) + 1
        known = self.key_I >= 0
        member = self.key_I[known]
        count_K = np.maximum(np.bincount(member, minlength=n), 1)
        columns = [
            np.bincount(member, weights=x_I[known], minlength=n) / count_K
            for x_I in self.content_IC.T
        ]
        return np.column_stack(columns) if columns else np.zeros((n, 0))

    def log_odds(self, item_N: Int, key_N: Int, time_N: Int) -> Float:
        """Log odds of the items' entry rates at a moment, less the usual ones, [N]."""
        if self.rates is None:
            return np.zeros(len(item_N))
        return self.rates.log_odds(item_N, key_N, time_N)


@dataclass(frozen=True, eq=False)
class Entries:
    """Entries as the regressions read them, [N] each.

    Attributes:
        item_N: item rows, -1 unknown.
        key_N: rows of what the entries are about, -1 unknown.
        time_N: when they were, microseconds.
        closes_N: when their windows closed, or will.
        organic_N: 1 where the user came unasked, else 0.
        rate_N: log odds of the item's entry rate at the entry.
        observed_N: days of the window observed.
        amount_N: what they came to in these days.
    """

    item_N: Int
    key_N: Int
    time_N: Int
    closes_N: Int
    organic_N: Float
    rate_N: Float
    observed_N: Int
    amount_N: Float

    @classmethod
    def of(cls, outcomes: Outcomes, catalogue: Catalogue, age: int | None = None) -> Entries:
        """The entries in the order of `outcomes`, each seen for at most `age` days."""
        frame = outcomes.frame
        observed_N = outcomes.observed(age)
        row, _, amount = prefix_hits(outcomes, observed_N)
        item_N = catalogue.items.rows(frame["item_id"])
        key_N = catalogue.keys.rows(outcomes.keys)
        time_N = frame["time"].dt.epoch("us").to_numpy()
        return cls(
            item_N,
            key_N,
            time_N,
            frame["matures_at"].dt.epoch("us").to_numpy(),
            (frame["origin"] == "organic").fill_null(False).to_numpy().astype(float),
            catalogue.log_odds(item_N, key_N, time_N),
            observed_N,
            sum_by(row, amount, len(outcomes)),
        )

    def taught(self, share_D: Float) -> Entries:
        """The entries of which enough of the window was observed to teach an amount."""
        return self.where(share_D[self.observed_N] > LEAST_SHARE)

    def where(self, mask_N: Bool) -> Entries:
        """The entries at which the mask holds."""
        return Entries(
            self.item_N[mask_N],
            self.key_N[mask_N],
            self.time_N[mask_N],
            self.closes_N[mask_N],
            self.organic_N[mask_N],
            self.rate_N[mask_N],
            self.observed_N[mask_N],
            self.amount_N[mask_N],
        )


@dataclass(frozen=True, eq=False)
class Amounts:
    """The regression of amounts.

    Attributes:
        share_D: share of the window's amount that usually falls into the first days.
        dispersion: variance of amounts over what Poisson ones have.
        intercept: log amount of a usual entry that the service led to.
        rate_weight: of the log odds of the entry rate; 0 where it is not used.
        organic_weight: of entries that the user came to unasked.
        items: effects of items.
        keys: effects of creators.
    """

    share_D: Float
    dispersion: float
    intercept: float
    rate_weight: float
    organic_weight: float
    items: Level
    keys: Level

    @classmethod
    def nothing(cls, share_D: Float, catalogue: Catalogue) -> Amounts:
        """No effects, where entries teach none."""
        items = len(catalogue.key_I)
        keys = len(catalogue.keys) + 1
        return cls(share_D, 1.0, 0.0, 0.0, 0.0, Level.none(items), Level.none(keys))

    def log_amount(self, item_N: Int, key_N: Int, rate_N: Float) -> Float:
        """Log of the amount expected of an entry that the service led to, [N]."""
        effect_N = self.items.effect_L[item_N] + self.keys.effect_L[key_N]
        return self.intercept + effect_N + self.rate_weight * rate_N

    def expected(self, entries: Entries) -> Float:
        """The amount expected of each entry in the days observed of it, [N]."""
        log_N = self.log_amount(entries.item_N, entries.key_N, entries.rate_N)
        log_N = log_N + self.organic_weight * entries.organic_N
        return np.exp(log_N) * self.share_D[entries.observed_N]

    def uncertainty(self, item_N: Int, key_N: Int) -> Float:
        """Variance of `log_amount`, [N]."""
        return self.items.posterior_L[item_N] + self.keys.posterior_L[key_N]

    def observe(self, entries: Entries, catalogue: Catalogue) -> Amounts:
        """The same weights and variances, with effects from these entries alone: the most probable
        ones, by Newton's steps in turn."""
        taught = entries.taught(self.share_D)
        items = self.items.forgotten(len(catalogue.key_I))
        keys = self.keys.forgotten(len(catalogue.keys) + 1)
        fresh = replace(self, items=items, keys=keys)
        for _ in range(STEPS):
            expected_N = fresh.expected(taught)
            fresh = replace(
                fresh,
                keys=fresh.keys.step(taught.key_N, taught.amount_N, expected_N, self.dispersion),
            )
            expected_N = fresh.expected(taught)
            fresh = replace(
                fresh,
                items=fresh.items.step(taught.item_N, taught.amount_N, expected_N, self.dispersion),
            )
        return fresh


@dataclass(frozen=True, eq=False)
class Level:
    """Effects of items, or of creators; the last is that of unknown ones.

    Attributes:
        mean_L: what effects are shrunk to.
        variance: of effects around it; 0: there are none.
        effect_L: the effects.
        posterior_L: variance of each effect given the entries.
    """

    mean_L: Float
    variance: float
    effect_L: Float
    posterior_L: Float

    @classmethod
    def none(cls, size: int) -> Level:
        """No effects."""
        zero_L = np.zeros(size)
        return cls(zero_L, 0.0, zero_L, zero_L)

    def forgotten(self, size: int) -> Level:
        """As before any entry, for this many levels; new ones have the mean of unknown ones."""
        last = self.mean_L[-1]
        mean_L = np.full(size, last)
        mean_L[: len(self.mean_L) - 1] = self.mean_L[:-1]
        return Level(mean_L, self.variance, mean_L, np.full(size, self.variance))

    def step(self, level_N: Int, amount_N: Float, expected_N: Float, dispersion: float) -> Level:
        """Effects a Newton's step nearer to the most probable ones."""
        if self.variance <= 0:
            return self
        size = len(self.mean_L)
        level_N = level_N % size
        surplus_L = sum_by(level_N, amount_N - expected_N, size) / dispersion
        information_L = sum_by(level_N, expected_N, size) / dispersion
        precision = 1.0 / self.variance
        slope_L = surplus_L - precision * (self.effect_L - self.mean_L)
        step_L = np.clip(slope_L / (information_L + precision), -1.0, 1.0)
        return replace(
            self,
            effect_L=self.effect_L + step_L,
            posterior_L=1.0 / (information_L + precision),
        )


def fit_amounts(
    entries: Entries, catalogue: Catalogue, share_D: Float, parts: tuple[str, ...]
) -> Amounts:
    """The regression of amounts with these parts of it."""
    taught = entries.taught(share_D)
    offset_N = np.log(share_D[taught.observed_N])
    items = len(catalogue.key_I)
    keys = len(catalogue.keys) + 1
    has_items = "items" in parts
    has_content = "content" in parts
    content_KC = catalogue.content_of_keys() if has_content else None
    content_IC = None
    if has_content:
        content_IC = catalogue.content_IC - catalogue.content_of_keys()[catalogue.key_I]
    groups = [Group(taught.key_N % keys, keys, content_KC)]  # unknown ones share the last row
    if has_items:
        groups.append(Group(taught.item_N % items, items, content_IC))
    columns = [taught.organic_N]
    if "entry rates" in parts:
        columns.append(taught.rate_N)
    usual_N = taught.amount_N.sum() / np.exp(offset_N).sum() * np.exp(offset_N)

    def fit(dispersion: float) -> Amounts:
        effects = fit_effects(
            np.column_stack(columns),
            groups,
            taught.amount_N,
            np.full(len(offset_N), 1.0 / dispersion),
            POISSON,
            offset_N,
        )
        levels = [
            Level(mean_L, variance, effect_L, posterior_L)
            for mean_L, variance, effect_L, posterior_L in zip(
                effects.mean_L, effects.variance, effects.effect_L, effects.posterior_L, strict=True
            )
        ]
        return Amounts(
            share_D=share_D,
            dispersion=dispersion,
            intercept=effects.intercept,
            rate_weight=float(effects.weight_F[1]) if len(columns) > 1 else 0.0,
            organic_weight=float(effects.weight_F[0]),
            items=levels[1] if has_items else Level.none(items),
            keys=levels[0],
        )

    # the dispersion is around what is expected, which depends on it
    amounts = fit(_dispersion(taught.amount_N, usual_N))
    return fit(_dispersion(taught.amount_N, amounts.expected(taught)))


def _dispersion(amount_N: Float, expected_N: Float) -> float:
    """Variance of amounts over that of Poisson ones (Pearson)."""
    return max(float(((amount_N - expected_N) ** 2 / expected_N).mean()), 1e-6)


def shares(outcomes: Outcomes) -> Float:
    """Share of the window's amount that falls into the first 0 .. D - 1 days, from mature entries."""
    row, day, amount = outcomes.hits
    counted = outcomes.mature[row]
    by_day = np.bincount(day[counted], weights=amount[counted], minlength=outcomes.signal.days)
    total = by_day.sum()
    if total <= 0:
        return np.linspace(0.0, 1.0, outcomes.signal.days + 1)
    return np.append(0.0, np.cumsum(by_day) / total)


@dataclass(frozen=True, eq=False)
class Pasts:
    """What users' earlier entries came to, beside what was expected of them.

    Attributes:
        users: by row.
        sums: of surplus and of what was expected, added when windows closed, in units of the
            dispersion.
    """

    users: ItemIndex
    sums: RunningSums

    @classmethod
    def of(cls, user_ids: pl.Series, entries: Entries, days: int, amounts: Amounts) -> Pasts:
        """The pasts in these entries; only those whose window has closed count.

        Args:
            user_ids: of the entries.
            entries: of any users.
            days: of the window.
            amounts: says what was expected.
        """
        users = ItemIndex(user_ids.unique().sort())
        closed_N = entries.observed_N >= days
        closed = entries.where(closed_N)
        expected_N = amounts.expected(closed)
        both_N2 = np.column_stack([closed.amount_N - expected_N, expected_N]) / amounts.dispersion
        user_N = users.rows(user_ids)[closed_N] if len(users) else np.zeros(0, dtype=np.int64)
        return cls(users, RunningSums.of(user_N, closed.closes_N, both_N2))

    def variance(self) -> float:
        """Between users, of the log of their rate, by moments: E[surplus^2] = expected + variance x
        expected^2."""
        last_U = np.full(len(self.users), np.iinfo(np.int64).max)
        surplus_U, expected_U = self.sums.until(np.arange(len(self.users)), last_U).T
        squares = float((expected_U**2).sum())
        return max(float((surplus_U**2 - expected_U).sum()) / squares, 0.0) if squares else 0.0

    def rates(self, user_ids: pl.Series, time_N: Int, variance: float) -> Float:
        """Log of how much more a user's entries come to than others', as of a moment, shrunk, [N]; 0
        for users without closed entries."""
        surplus_N, expected_N = self.sums.until(self.users.rows(user_ids), time_N).T
        return variance * surplus_N / (1.0 + variance * expected_N)


@dataclass(frozen=True, eq=False)
class Particulars:
    """What is particular of items and users, joined with beliefs about creators.

    Attributes:
        signal: whose outcomes.
        catalogue: items and creators.
        parts: which of `PARTS` are used; none: beliefs about creators stay as they are.
        amounts: the regression of amounts.
        intercept: of the outcome's link.
        slope: of the outcome's link in the pool.
        amount_weight: of the log amount, b, 0 to 1; the rest is the belief's about the creator.
        user_variance: of users' rates; 0: they are not used.
        least: beliefs about creators are taken to be at least this.
        ages: days observed of an entry.
        age_weight_A: share of what is particular that is left at each age, beside what the entry's
            own days say.
    """

    signal: Signal
    catalogue: Catalogue
    parts: tuple[str, ...]
    amounts: Amounts
    intercept: float
    slope: float
    amount_weight: float
    user_variance: float
    least: float
    ages: Int
    age_weight_A: Float

    @property
    def family(self) -> Family:
        """Of the outcomes."""
        return BINOMIAL if self.signal.binary else POISSON

    @property
    def reads_users(self) -> bool:
        """Whether users' earlier entries matter."""
        return "user's rate" in self.parts

    def join(
        self, mean_N: Float, std_N: Float, log_amount_N: Float, uncertainty_N: Float, user_N: Float
    ) -> tuple[Float, Float]:
        """Mean and std of the outcome expected of new entries, any shape.

        Args:
            mean_N: belief about the creator.
            std_N: its std.
            log_amount_N: see `Amounts`.
            uncertainty_N: its variance.
            user_N: the user's rate.
        """
        family = self.family
        mean_N = np.maximum(mean_N, self.least)
        belief_weight = self.slope * (1.0 - self.amount_weight)
        amount_weight = self.slope * self.amount_weight
        link_N = (
            self.intercept
            + belief_weight * family.link(mean_N)
            + amount_weight * log_amount_N
            + user_N
        )
        joined_N = family.mean(link_N)
        link_variance_N = (
            belief_weight * std_N / np.maximum(family.variance(mean_N), 1e-12)
        ) ** 2 + amount_weight**2 * uncertainty_N
        return joined_N, family.variance(joined_N) * np.sqrt(link_variance_N)

    def aged(
        self,
        observed_N: Int,
        seen_mean_N: Float,
        seen_std_N: Float,
        key_mean_N: Float,
        joined_N: Float,
        joined_std_N: Float,
    ) -> tuple[Float, Float]:
        """Mean and std of the outcome of entries of which some days were observed.

        Args:
            observed_N: how many.
            seen_mean_N: what the creator and these days say.
            seen_std_N: its std.
            key_mean_N: what the creator alone says.
            joined_N: what the creator, the item and the user say.
            joined_std_N: its std.
        """
        weight_N = np.interp(observed_N, np.append(0, self.ages), np.append(1.0, self.age_weight_A))
        mean_N = self.moved(seen_mean_N, key_mean_N, joined_N, weight_N)
        std_N = (1.0 - weight_N) * seen_std_N + weight_N * joined_std_N
        new_N = observed_N == 0
        return np.where(new_N, joined_N, mean_N), np.where(new_N, joined_std_N, std_N)

    def moved(self, seen_N: Float, key_N: Float, joined_N: Float, weight_N: Float) -> Float:
        """Beliefs about entries, moved by this share of what the item and the user add to the belief
        about the creator: added to a sum, as days observed are; to the log odds of a threshold."""
        if not self.signal.binary:
            return np.maximum(seen_N + weight_N * (joined_N - key_N), 0.0)
        link = self.family.link
        key_N = np.maximum(key_N, self.least)
        particular_N = link(joined_N) - link(key_N)
        return self.family.mean(link(seen_N) + weight_N * particular_N)
