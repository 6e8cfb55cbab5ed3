"""What a reward of showing is worth: greedy rankers without a language model, in true active days.

Every ranker scores the whole catalogue at every visit and draws a slate by Plackett-Luce. All are
equally soft: their first slot has the same effective number of items at every visit. They differ in
what they know of the chance of an entry, and of the outcome given one.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from remembered import remembered
from scipy import special
from sklearn.linear_model import Ridge

import longplay as lp
from longplay.decisions import Contexts, Decisions, context_chance
from longplay.index import ItemIndex
from longplay.lake.known import item_vectors, user_vectors
from longplay.policies.plackett import plackett_luce_log_prob
from longplay.rewards.showing_fit import fit_showing
from longplay.world import World, WorldConfig
from longplay.world.dynamics import wake
from longplay.world.parameters import named_world

Float = NDArray[np.float64]
Int = NDArray[np.int64]
Score = Callable[[World, Contexts], Float]

HABIT = lp.Signal(
    "habit", entry=lp.discovery(novel_for=28), measure=lp.days_with("creator") >= 3, window=(1, 28)
)
DAYS = lp.Signal(
    "days", entry=lp.discovery(novel_for=28), measure=lp.days_with("creator"), window=(1, 28)
)
EFFECTIVE = 20  # items in the first slot of every ranker
KNOWN = 0.85  # correlation of the factors that a service knows with the truth
LIVED = 56  # days
SHOWINGS = 200


# -- rankers ---------------------------------------------------------------------------------------


def softened(score_NI: Float, effective: float) -> Float:
    """Log-probabilities proportional to b x score, b such that 1 / sum p^2 is the same in every row."""
    can_NI = np.isfinite(score_NI)
    masked_NI = np.where(can_NI, score_NI, np.nan)
    spread_N1 = np.maximum(np.nanstd(masked_NI, axis=1, keepdims=True), 1e-12)
    z_NI = np.where(
        can_NI, (masked_NI - np.nanmax(masked_NI, axis=1, keepdims=True)) / spread_N1, -np.inf
    )
    low_N, high_N = np.full(len(z_NI), 1e-3), np.full(len(z_NI), 1e3)
    for _ in range(30):
        sharp_N = np.sqrt(low_N * high_N)
        weight_NI = np.exp(sharp_N[:, None] * z_NI)
        items_N = weight_NI.sum(axis=1) ** 2 / (weight_NI**2).sum(axis=1)
        too_many_N = items_N > effective
        low_N = np.where(too_many_N, sharp_N, low_N)
        high_N = np.where(too_many_N, high_N, sharp_N)
    log_NI = sharp_N[:, None] * z_NI
    return log_NI - np.logaddexp.reduce(log_NI, axis=1, keepdims=True)


@dataclass(eq=False)
class Ranker:
    """Slates by Plackett-Luce under a softened score of every item. `world` is where it decides: what
    insiders look at."""

    name: str
    index: ItemIndex = field(repr=False)
    score: Score = field(repr=False)
    history: int = 60
    showings: int = SHOWINGS
    reads_users: bool = True
    slate: int = 5
    effective: float = EFFECTIVE
    world: World | None = field(default=None, repr=False)

    def decide(self, contexts: Contexts, rng: np.random.Generator) -> Decisions:
        log_NI = self._log_p(contexts)
        chance = context_chance(contexts, rng)
        keys_NI = log_NI + chance.gumbel(
            np.arange(len(contexts)), np.arange(log_NI.shape[1])[None, :]
        )
        slate_NS = np.argsort(-keys_NI, axis=1)[:, : contexts.slots]
        chosen_NS = plackett_luce_log_prob(np.take_along_axis(log_NI, slate_NS, axis=1))
        return Decisions.of(contexts, self.index.slates(slate_NS), chosen_NS, self.name)

    def log_prob(self, contexts: Contexts, slates: pl.Series) -> Float:
        rows_NS = self.index.slate_rows(slates)
        return plackett_luce_log_prob(np.take_along_axis(self._log_p(contexts), rows_NS, axis=1))

    def _log_p(self, contexts: Contexts) -> Float:
        assert self.world is not None
        unreleased_I = self.world.catalogue.release_I > self.world.day
        score_NI = np.where(unreleased_I, -np.inf, self.score(self.world, contexts))
        return softened(score_NI, self.effective)


# -- insiders --------------------------------------------------------------------------------------


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


def known_match(world: World, contexts: Contexts, lake: lp.Lake) -> Float:
    """The match as the product of what the service knows of user and item predicts it, by least squares on
    these very pairs, [N, I]."""
    user_NV = user_vectors(lake, contexts.frame["user_id"], world.now)
    item_IV = np.nan_to_num(item_vectors(lake, world.catalogue.index.ids))
    product_NI, match_NI = user_NV @ item_IV.T, true_match(world, contexts)
    slope, level = np.polyfit(product_NI.ravel(), match_NI.ravel(), 1)
    return np.maximum(level + slope * product_NI, 1e-3)


# -- a plain ridge ---------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class TwoPartRidge:
    """Clicks x 28-day days with the creator, each a ridge regression on rates and factors.

    Features of a click: the item's smoothed rate (from the other half of the users in training) as
    odds and chance, the place, the user's and the item's factors, their products, their sum.
    """

    rate_I: Float
    outcome_C: Float
    creator_I: Int
    user_UV: Float
    item_IV: Float
    creator_CV: Float
    users: ItemIndex
    clicks: Ridge
    days: Ridge

    @classmethod
    def fit(cls, world: World, lake: lp.Lake, user_UV: Float) -> TwoPartRidge:
        index, creator_I = world.catalogue.index, world.catalogue.creator_I
        users = ItemIndex(world.user_ids)
        item_IV = item_vectors(lake, index.ids)
        item_IV = np.nan_to_num(item_IV)  # items that are released later
        shown = lake.decisions.filter(pl.col("surface") == "home").select(
            "decision_id", "user_id", "slate"
        )
        slots = shown.with_columns(slot=pl.int_ranges(0, pl.col("slate").list.len())).explode(
            "slate", "slot"
        )
        played = lake.events.filter(pl.col("kind") == "play", pl.col("decision_id").is_not_null())
        played = played.select("decision_id", slate="item_id", click=pl.lit(1.0)).unique()
        slots = slots.join(played, on=["decision_id", "slate"], how="left", maintain_order="left")
        click_N = slots["click"].fill_null(0.0).to_numpy()
        user_N, item_N = users.rows(slots["user_id"]), index.rows(slots["slate"])
        creators = ItemIndex(world.catalogue.creators)
        rate_I, rate_N = _rates(
            click_N,
            user_N,
            creator_I[item_N],
            len(world.catalogue.creators),
            50.0,
            item_N,
            creator_I,
        )
        clicks = Ridge(10.0).fit(
            _click_features(rate_N, slots["slot"].to_numpy(), user_UV[user_N], item_IV[item_N]),
            click_N,
        )
        outcomes = DAYS.outcomes(lake).certain()
        outcomes = outcomes.where(outcomes.known)
        key_N, owner_N = (
            creators.rows(outcomes.frame["creator_id"]),
            users.rows(outcomes.frame["user_id"]),
        )
        outcome_C, outcome_N = _rates(outcomes.value, owner_N, key_N, len(creators), 20.0)
        count_C = np.bincount(creator_I)
        creator_CV = np.stack(
            [np.bincount(creator_I, weights=column) / count_C for column in item_IV.T], axis=1
        )
        days = Ridge(10.0).fit(
            _day_features(outcome_N, user_UV[owner_N], creator_CV[key_N]), outcomes.value
        )
        return cls(rate_I, outcome_C, creator_I, user_UV, item_IV, creator_CV, users, clicks, days)

    def score(self, world: World, contexts: Contexts) -> Float:
        user_N = self.users.rows(contexts.frame["user_id"])
        n, items, creators = len(user_N), len(self.rate_I), len(self.outcome_C)
        owner, item = np.repeat(user_N, items), np.tile(np.arange(items), n)
        click = _click_features(
            self.rate_I[item], np.zeros(len(item)), self.user_UV[owner], self.item_IV[item]
        )
        owner_C, creator = np.repeat(user_N, creators), np.tile(np.arange(creators), n)
        days = _day_features(
            self.outcome_C[creator], self.user_UV[owner_C], self.creator_CV[creator]
        )
        chance_NI = np.maximum(self.clicks.predict(click).reshape(n, items), 1e-4)
        days_NC = np.maximum(self.days.predict(days).reshape(n, creators), 1e-4)
        return chance_NI * days_NC[:, self.creator_I]


def _rates(
    y_N: Float,
    user_N: Int,
    key_N: Int,
    keys: int,
    slots: float,
    item_N: Int | None = None,
    key_I: Int | None = None,
) -> tuple[Float, Float]:
    """Smoothed means by key (or by item, smoothed towards its key), of all users, and for each row of
    the users of the other half."""

    def means(rows: NDArray[np.bool_]) -> Float:
        def smoothed(level_N: Int, levels: int, prior: Float | float) -> Float:
            total = np.bincount(level_N[rows], weights=y_N[rows], minlength=levels)
            return (total + slots * prior) / (np.bincount(level_N[rows], minlength=levels) + slots)

        by_key = smoothed(key_N, keys, float(y_N.mean()))
        return (
            by_key
            if item_N is None or key_I is None
            else smoothed(item_N, len(key_I), by_key[key_I])
        )

    half_N = user_N % 2 == 0
    level_N = key_N if item_N is None else item_N
    return means(np.ones(len(y_N), dtype=bool)), np.where(
        half_N, means(~half_N)[level_N], means(half_N)[level_N]
    )


def _click_features(rate_N: Float, slot_N: NDArray[Any], user_NV: Float, item_NV: Float) -> Float:
    products = user_NV * item_NV
    match = products.sum(axis=1)
    columns = [
        special.logit(np.clip(rate_N, 1e-6, 1 - 1e-6)),
        rate_N,
        np.log1p(slot_N),
        match,
        rate_N * match,
    ]
    return np.column_stack([*columns, user_NV, item_NV, products])


def _day_features(mean_N: Float, user_NV: Float, creator_NV: Float) -> Float:
    products = user_NV * creator_NV
    match = products.sum(axis=1)
    return np.column_stack([mean_N, match, mean_N * match, user_NV, creator_NV, products])


# -- the table -------------------------------------------------------------------------------------


def active_days(world: World, policy: Any, users: Int, days: int, seed: int) -> Float:
    """Days on which each of these users visits, of the `days` lived under the policy, with luck that all
    policies share."""
    fork = world.fork(users, seed=seed + 7_919_000_000)
    if isinstance(policy, Ranker):
        policy = replace(policy, world=fork)
    lake = fork.run(policy, days, progress=False)
    visits = lake.events.filter(pl.col("kind") == "visit", pl.col("time") >= world.now)
    counted = visits.group_by("user_id").len()
    every = fork.user_ids.to_frame("user_id").join(
        counted, on="user_id", how="left", maintain_order="left"
    )
    return every["len"].fill_null(0).to_numpy().astype(float)


def personal(value_NI: Float, truth_NI: Float) -> float:
    """Correlation of log values with user and item means removed, over pairs of a positive value: what
    is familiar is worth 0."""
    pairs_NI = value_NI > 0
    ever_I = pairs_NI.any(axis=0)
    pairs_NI, value_NI, truth_NI = pairs_NI[:, ever_I], value_NI[:, ever_I], truth_NI[:, ever_I]

    def centred(x_NI: Float) -> Float:
        log_NI = np.where(pairs_NI, np.log(np.maximum(x_NI, 1e-12)), np.nan)
        for _ in range(20):  # means over unequal rows and columns
            log_NI = log_NI - np.nanmean(log_NI, axis=1, keepdims=True)
            log_NI = log_NI - np.nanmean(log_NI, axis=0, keepdims=True)
        return log_NI[pairs_NI]

    return float(np.corrcoef(centred(value_NI), centred(truth_NI))[0, 1])


@dataclass(frozen=True)
class Case:
    """A world with a log of `log_days`, in which rankers are judged by the `lived` days of `judged` users."""

    world: str
    users: int
    items: int
    judged: int
    log_days: int
    lived: int
    seed: int


@dataclass(eq=False)
class Logged:
    """A case after its log, and the models fitted on it."""

    case: Case
    service: World
    lake: lp.Lake
    outcomes: lp.Outcomes
    judged: Int
    early: dict[tuple[str, tuple[str, ...]], lp.ProgressiveReward] = field(default_factory=dict)

    def model(self, name: str = "progressive", knows: tuple[str, ...] = ()) -> lp.ProgressiveReward:
        """An early reward of habits, fitted once."""
        if (name, knows) not in self.early:
            kind = {"progressive": lp.ProgressiveReward, "personal": lp.PersonalReward}[name]
            self.early[name, knows] = kind(HABIT, knows=knows).fit(
                self.lake, self.outcomes, progress=False
            )
        return self.early[name, knows]


@lru_cache(maxsize=1)
def logged(case: Case) -> Logged:
    """The case's world, which knows something of users and items, and its log under popularity."""
    numbers = dict(named_world(case.world).numbers) | {"known": KNOWN}
    service = World(case.users, case.items, case.seed, WorldConfig.of(numbers))
    lake = service.run(lp.Popular(slate=5, explore=0.1), days=case.log_days, progress=False)
    alive = np.flatnonzero(service.state.alive_R)
    judged = min(case.judged, len(alive))
    chosen = np.sort(np.random.default_rng([case.seed, 3]).choice(alive, judged, replace=False))
    return Logged(case, service, lake, HABIT.outcomes(lake), chosen)


KNOWS = ("users", "items")
Made = Callable[[Logged], Score]


def by_value(model: str, knows: tuple[str, ...] = ()) -> Made:
    """The value of showing every item, as an early reward has it."""

    def made(log: Logged) -> Score:
        early, ids = log.model(model, knows), log.service.catalogue.index.ids
        return lambda world, contexts: early.item_value(contexts, ids, log.lake).mean

    return made


def by_parts(parts: tuple[str, ...]) -> Made:
    """The same with some parts of the chance of an entry alone."""

    def made(log: Logged) -> Score:
        showing = fit_showing(HABIT, log.lake, log.outcomes, parts=parts)
        early, ids = replace(log.model(), showing=showing), log.service.catalogue.index.ids
        return lambda world, contexts: early.item_value(contexts, ids, log.lake).mean

    return made


def by_chance(outcome: Callable[[World, Contexts], Float], knows: tuple[str, ...] = ()) -> Made:
    """Our chance of an entry times an outcome that nobody but the world knows."""

    def made(log: Logged) -> Score:
        showing = log.model(knows=knows).showing
        assert showing is not None

        def score(world: World, contexts: Contexts) -> Float:
            view = showing.view(log.lake)
            row_I = view.index.items.rows(world.catalogue.index.ids)
            return showing.catalogue_gain(contexts, view, row_I)[1] * outcome(world, contexts)

        return score

    return made


def by_ridge(shuffled: bool) -> Made:
    """The plain ridge, with the factors of users or with those of others."""

    def made(log: Logged) -> Score:
        user_UV = user_vectors(log.lake, log.service.user_ids, log.service.now)
        if shuffled:
            user_UV = user_UV[np.random.default_rng(log.case.seed).permutation(len(user_UV))]
        return TwoPartRidge.fit(log.service, log.lake, user_UV).score

    return made


def by_outcome(model: str, knows: tuple[str, ...] = ()) -> Made:
    """The true chance of a play times what an early reward believes of an entry."""

    def made(log: Logged) -> Score:
        early, catalogue = log.model(model, knows), log.service.catalogue
        showing = early.showing
        assert showing is not None
        usual_I = early.items(catalogue.frame["creator_id"]).mean

        def score(world: World, contexts: Contexts) -> Float:
            view = showing.view(log.lake)
            gain_NI = showing.catalogue_gain(
                contexts, view, view.index.items.rows(catalogue.index.ids)
            )[1]
            value_NI = early.item_value(contexts, catalogue.index.ids, log.lake).mean
            outcome_NI = np.divide(
                value_NI, gain_NI, where=gain_NI != 0, out=np.zeros(gain_NI.shape)
            )
            return true_chance(world, contexts) * np.where(gain_NI != 0, outcome_NI, usual_I)

        return score

    return made


def creator_mean(world: World, contexts: Contexts) -> Float:
    """Mean depth of each item's creator, [N, I]."""
    catalogue = world.catalogue
    depth_C = np.bincount(catalogue.creator_I, weights=catalogue.depth_I)
    depth_C /= np.maximum(np.bincount(catalogue.creator_I), 1)
    return np.tile(depth_C[catalogue.creator_I], (len(contexts), 1))


def same_five(log: Logged) -> Score:
    """The five best of the items released before the log ended, at every visit."""
    catalogue = log.service.catalogue
    worth_I = np.where(catalogue.release_I < 0, catalogue.appeal_I * catalogue.depth_I, 0.0)
    best_I = np.zeros(len(worth_I))
    best_I[np.argsort(-worth_I)[:5]] = 5.0
    return lambda world, contexts: np.tile(best_I, (len(contexts), 1))


def rotation(log: Logged) -> Score:
    """Appeal x depth, whoever visits."""
    catalogue = log.service.catalogue
    return lambda world, contexts: np.tile(
        catalogue.appeal_I * catalogue.depth_I, (len(contexts), 1)
    )


INSIDERS: dict[str, Made] = {  # nothing of them is a model of ours
    "the same five items": same_five,
    "rotation by appeal x depth": rotation,
    "true chance x creator": lambda log: lambda w, c: true_chance(w, c) * creator_mean(w, c),
    "full knowledge": lambda log: lambda w, c: true_chance(w, c) * true_worth(w, c),
}
RIDGES: dict[str, Made] = {
    "ridge, factors": by_ridge(shuffled=False),
    "ridge, factors shuffled": by_ridge(shuffled=True),
}
OURS: dict[str, Made] = {
    "rates": by_parts(("content", "rate")),
    "rates, repetition": by_parts(("content", "rate", "repetition")),
    "log": by_value("progressive"),
    "log, personal": by_value("personal"),
    "factors": by_value("progressive", KNOWS),
    "factors, personal": by_value("personal", KNOWS),
    "chance from the log x creator": by_chance(creator_mean),
    "chance from the log x true outcome": by_chance(true_worth),
    "chance with factors x true outcome": by_chance(true_worth, KNOWS),
    "true chance x belief": by_outcome("progressive"),
    "true chance x personal belief": by_outcome("personal", KNOWS),
}
VERSIONS = {"insiders": 1, "ridges": 1, "ours": 1}  # raised when what they compute changes


@remembered(version=1)
def lived(*, case: Case, ranker: str, version: int) -> list[int]:
    """Active days of each judged user under a ranker."""
    print(f"{case.world}, seed {case.seed}: {ranker}", file=sys.stderr, flush=True)
    log = logged(case)
    if ranker == "popular":
        policy: Any = lp.Popular(slate=5, explore=0.1).fit(log.lake)
    else:
        score = (INSIDERS | RIDGES | OURS)[ranker](log)
        effective = 5.05 if ranker == "the same five items" else EFFECTIVE
        policy = Ranker(f"{ranker}@1", log.service.catalogue.index, score, effective=effective)
    days = active_days(log.service, policy, log.judged, case.lived, case.seed)
    return [int(x) for x in days]


def gains(case: Case, groups: Sequence[str]) -> dict[str, Float]:
    """Active days over popularity of each judged user, under every ranker of these groups."""
    popular = np.array(lived(case=case, ranker="popular", version=VERSIONS["insiders"]))
    named = {"insiders": INSIDERS, "ridges": RIDGES, "ours": OURS}
    return {
        name: np.array(lived(case=case, ranker=name, version=VERSIONS[group])) - popular
        for group in groups
        for name in named[group]
    }


@remembered(version=2)
def correlations(*, case: Case, version: int) -> dict[str, float]:
    """Personal correlation with true chance x true outcome, of 200 users: of the value of showing, and of
    the best that could be known without a user's liking for a creator, which nothing tells."""
    log = logged(case)
    service, lake = log.service, log.lake
    sample = np.flatnonzero(service.state.alive_R)[:200]
    contexts = Contexts.of(service.user_ids.gather(sample), service.now, slots=5)
    ids = service.items["item_id"]
    released = service.catalogue.index.rows(ids)
    chance_NI, outcome_NI = true_chance(service, contexts), true_worth(service, contexts)
    truth_NI = (chance_NI * outcome_NI)[:, released]
    result = {}
    for name, model, knows in (
        ("log", "progressive", ()),
        ("factors", "progressive", KNOWS),
        ("log, personal", "personal", ()),
        ("factors, personal", "personal", KNOWS),
    ):
        value_NI = log.model(model, knows).item_value(contexts, ids, lake).mean
        result[name] = personal(value_NI, truth_NI)
    possible_NI = value_NI > 0
    match_NI, guess_NI = true_match(service, contexts), known_match(service, contexts, lake)
    depth_I, weight = service.catalogue.depth_I, service.config.match
    guessed_NI = special.expit(special.logit(chance_NI) + weight * (guess_NI - match_NI))
    for name, known_NI in (
        ("taste known exactly", chance_NI * match_NI * depth_I),
        ("taste known as the service knows it", guessed_NI * guess_NI * depth_I),
    ):
        result[name] = personal(np.where(possible_NI, known_NI[:, released], 0.0), truth_NI)
    return result


def interval_of(
    statistic: Callable[[list[dict[str, Float]]], float], per_seed: list[dict[str, Float]]
) -> tuple[float, float, float]:
    """The statistic of all seeds and its 95% interval: users of each seed drawn anew, 500 times."""
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(500):
        row_by_seed = [rng.integers(0, len(gain["log"]), len(gain["log"])) for gain in per_seed]
        drawn.append(
            statistic(
                [
                    {name: gain_U[rows] for name, gain_U in gain.items()}
                    for gain, rows in zip(per_seed, row_by_seed, strict=True)
                ]
            )
        )
    low, high = np.quantile(drawn, [0.025, 0.975])
    return statistic(per_seed), float(low), float(high)


def pooled(per_seed: list[dict[str, Float]], name: str) -> float:
    """Mean gain over seeds."""
    return float(np.mean([gain[name].mean() for gain in per_seed]))


BARS = (  # ratio of two rankers' gains, its bar, whether it is an aim
    ("log", "ridge, factors shuffled", 1.1, ">="),
    ("log", "ridge, factors", 0.7, ">="),
    ("factors", "ridge, factors", 1.0, ">="),
    ("log", "full knowledge", 0.4, "aim"),
    ("factors", "full knowledge", 0.6, "aim"),
    ("log, personal", "ridge, factors shuffled", 1.1, ">="),
    ("log, personal", "ridge, factors", 0.7, ">="),
    ("factors, personal", "ridge, factors", 1.0, ">="),
    ("log, personal", "full knowledge", 0.4, "aim"),
    ("factors, personal", "full knowledge", 0.6, "aim"),
)


def table(world: str, users: int, seeds: int, quick: bool) -> list[dict[str, Any]]:
    """Rows of one world."""
    sizes = (
        {"users": 200, "items": 60, "judged": 60, "log_days": 75, "lived": 5}
        if quick
        else {"users": users, "items": 2_000, "judged": 2_000, "log_days": 84, "lived": LIVED}
    )
    cases = [Case(world=world, seed=7 + seed, **sizes) for seed in range(seeds)]
    per_seed, personals = [], []
    for case in cases:  # a case at a time: its models are kept in memory
        per_seed.append(gains(case, ("insiders", "ridges", "ours")))
        personals.append(correlations(case=case, version=VERSIONS["ours"]))
    command = f"python bench/rewards.py --worlds {world} --seeds {seeds}"

    def row(
        claim: str, value: float, low: float, high: float, bar: str, ok: bool
    ) -> dict[str, Any]:
        return {
            "claim": f"rewards, {world}: {claim}",
            "value": value,
            "low": low,
            "high": high,
            "bar": bar,
            "ok": ok,
            "seeds": seeds,
            "command": command,
        }

    rows = []
    for name in per_seed[0]:
        ends = interval_of(lambda drawn, name=name: pooled(drawn, name), per_seed)
        rows.append(
            row(f"active days of {LIVED} over popularity, {name}", *ends, "none: reported", True)
        )
    for name, other, bar, kind in BARS:
        ends = interval_of(
            lambda drawn, name=name, other=other: (
                pooled(drawn, name) / (pooled(drawn, other) or 1.0)
            ),
            per_seed,
        )
        rows.append(row(f"{name}, over {other}", *ends, f"{kind} {bar:g}", ends[0] >= bar))
    if world == "weary":
        ends = interval_of(
            lambda drawn: pooled(drawn, "rates, repetition") - pooled(drawn, "rates"), per_seed
        )
        rows.append(row("repetition beyond rates, active days", *ends, ">= .10", ends[0] >= 0.1))
    bars = {"log": 0.1, "log, personal": 0.1, "factors": 0.65, "factors, personal": 0.65}
    for name in personals[0]:
        value_by_seed = [correlation[name] for correlation in personals]
        value, bar = float(np.mean(value_by_seed)), bars.get(name)
        rows.append(
            row(
                f"personal correlation, {name}",
                value,
                min(value_by_seed),
                max(value_by_seed),
                "none: reported" if bar is None else f">= {bar:g}",
                bar is None or value >= bar,
            )
        )
    return rows


WORLDS = {"weary": 15_000, "default": 5_000, "clickbait": 5_000}


def main() -> None:
    """Compute the rows, print them, and write them to a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", nargs="*", default=["gains"])
    parser.add_argument("--worlds", nargs="*", default=list(WORLDS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="small, for a test")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = []
    if "gains" in options.parts:
        for world in options.worlds[:1] if options.quick else options.worlds:
            rows += table(
                world, WORLDS[world], 1 if options.quick else options.seeds, options.quick
            )
    for row in rows:
        print(f"{row['value']:9.3f}  {row['claim']}  {row['bar']}")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
