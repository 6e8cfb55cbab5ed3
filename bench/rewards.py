"""What a reward of showing is worth: greedy rankers without a language model, in true active days.

Every ranker scores the whole catalogue at every visit and draws a slate by Plackett-Luce. All are
equally soft: their first slot has the same effective number of items at every visit. They differ in
what they know of the chance of an entry, and of the outcome given one.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
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
from longplay.estimate import clustered_mean
from longplay.index import ItemIndex
from longplay.lake.known import item_vectors, user_vectors
from longplay.policies.plackett import plackett_luce_log_prob
from longplay.rewards.sequence.event_tokens import EventTokens
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
    taste_ND = world.listeners.taste(world.day, config)[rows].astype(float)
    odds_NI = special.logit(catalogue.appeal_I) + np.log(listeners.click_U)[:, None]
    odds_NI = odds_NI + config.match * (taste_ND @ catalogue.taste_ID.T - 1.0)
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


def true_worth(world: World, contexts: Contexts) -> Float:
    """What a play of each item adds to a habit: depth x match x liking, [N, I]."""
    rows, catalogue = rows_of(world, contexts), world.catalogue
    taste_ND = world.listeners.taste(world.day, world.config)[rows].astype(float)
    creators = len(catalogue.creators)
    pairs = np.repeat(rows, creators), np.tile(np.arange(creators), len(rows))
    liking_NC = world.listeners.liking(*pairs, world.config).reshape(len(rows), creators)
    return catalogue.depth_I * (taste_ND @ catalogue.taste_ID.T) * liking_NC[:, catalogue.creator_I]


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


def early_score(early: lp.ProgressiveReward, index: ItemIndex, lake: lp.Lake) -> Score:
    """The value of showing every item, as an early reward has it."""

    def score(world: World, contexts: Contexts) -> Float:
        return early.item_value(contexts, index.ids, lake).mean

    return score


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


def logged(world: str, users: int, items: int, days: int, seed: int) -> tuple[World, lp.Lake]:
    """A world that knows something of users and items, and its log under popularity."""
    numbers = dict(named_world(world).numbers) | {"known": KNOWN}
    service = World(users, items, seed, WorldConfig.of(numbers))
    lake = service.run(lp.Popular(slate=5, explore=0.1), days=days, progress=False)
    return service, lake


@remembered(version=2)
def gains(
    *, world: str, users: int, items: int, judged: int, log_days: int, lived: int, seed: int
) -> dict[str, Any]:
    """Gains in active days over popularity of every ranker: mean and standard error."""
    service, lake = logged(world, users, items, log_days, seed)
    outcomes = HABIT.outcomes(lake)
    habit = float(outcomes.value[outcomes.known].mean())
    index = service.catalogue.index
    started = time.process_time()
    early = lp.ProgressiveReward(HABIT).fit(lake, outcomes, progress=False)
    seconds = time.process_time() - started
    informed = replace(early, showing=None, knows=("users", "items")).fit(
        lake, outcomes, progress=False
    )
    rates = replace(early, showing=fit_showing(HABIT, lake, outcomes, parts=("content", "rate")))
    again = replace(
        early, showing=fit_showing(HABIT, lake, outcomes, parts=("content", "rate", "repetition"))
    )
    user_UV = user_vectors(lake, service.user_ids, service.now)
    shuffled = np.random.default_rng(seed).permutation(len(user_UV))
    belief_I = early.items(service.catalogue.frame["creator_id"]).mean
    depth_C = np.bincount(service.catalogue.creator_I, weights=service.catalogue.depth_I)
    depth_C /= np.bincount(service.catalogue.creator_I)
    released = service.catalogue.release_I < 0
    best = np.zeros(items)
    best[
        np.argsort(-np.where(released, service.catalogue.appeal_I * service.catalogue.depth_I, 0))[
            :5
        ]
    ] = 5.0

    def ranker(name: str, score: Score, effective: float = EFFECTIVE) -> Ranker:
        return Ranker(f"{name}@1", index, score, effective=effective)

    def of(model: lp.ProgressiveReward) -> Score:
        return early_score(model, index, lake)

    rankers = {
        "the same five items": ranker("same", lambda w, c: np.tile(best, (len(c), 1)), 5.05),
        "rotation by appeal x depth": ranker(
            "rotation",
            lambda w, c: np.tile(w.catalogue.appeal_I * w.catalogue.depth_I, (len(c), 1)),
        ),
        "rates": ranker("rates", of(rates)),
        "rates, repetition": ranker("repetition", of(again)),
        "log": ranker("log", of(early)),
        "factors": ranker("factors", of(informed)),
        "ridge, factors": ranker("ridge", TwoPartRidge.fit(service, lake, user_UV).score),
        "ridge, factors shuffled": ranker(
            "shuffled", TwoPartRidge.fit(service, lake, user_UV[shuffled]).score
        ),
        "true chance x belief": ranker("chance", lambda w, c: true_chance(w, c) * belief_I),
        "true chance x creator": ranker(
            "creator", lambda w, c: true_chance(w, c) * depth_C[w.catalogue.creator_I]
        ),
        "full knowledge": ranker("full", lambda w, c: true_chance(w, c) * true_worth(w, c)),
    }
    alive = np.flatnonzero(service.state.alive_R)
    chosen = np.sort(
        np.random.default_rng([seed, 3]).choice(alive, min(judged, len(alive)), replace=False)
    )
    popular = active_days(service, lp.Popular(slate=5, explore=0.1).fit(lake), chosen, lived, seed)
    result: dict[str, Any] = {
        "habit": habit,
        "fit_seconds": seconds,
        "popular": float(popular.mean()),
        "gains": {},
    }
    for name, policy in rankers.items():
        print(f"{world}, seed {seed}: {name}", file=sys.stderr, flush=True)
        gain = clustered_mean(
            active_days(service, policy, chosen, lived, seed) - popular, estimand=name
        )
        result["gains"][name] = [gain.value, gain.std_error]
    return result


def judged_users(service: World, judged: int, seed: int) -> Int:
    """Rows of the users on whom rankers are judged."""
    alive = np.flatnonzero(service.state.alive_R)
    rng = np.random.default_rng([seed, 3])
    return np.sort(rng.choice(alive, min(judged, len(alive)), replace=False))


SEQUENCE_ROWS = {
    "personal": (lp.PersonalReward, ()),
    "personal, factors": (lp.PersonalReward, ("users", "items")),
    "sequence": (lp.SequenceReward, ()),
    "sequence, factors": (lp.SequenceReward, ("users", "items")),
}


@remembered(version=1)
def sequence_gain(
    *,
    model: str,
    world: str,
    users: int,
    items: int,
    judged: int,
    log_days: int,
    lived: int,
    seed: int,
) -> dict[str, float]:
    """As `gains`, of one of `SEQUENCE_ROWS`: the sequence reward, and the personal one that it starts
    from."""
    print(f"{world}, seed {seed}: {model}", file=sys.stderr, flush=True)
    service, lake = logged(world, users, items, log_days, seed)
    outcomes = HABIT.outcomes(lake)
    chosen = judged_users(service, judged, seed)
    popular = active_days(service, lp.Popular(slate=5, explore=0.1).fit(lake), chosen, lived, seed)
    reward, knows = SEQUENCE_ROWS[model]
    started = time.process_time()
    early = reward(HABIT, knows=knows).fit(lake, outcomes, progress=False)
    seconds = time.process_time() - started
    index = service.catalogue.index
    ranker = Ranker("sequence@1", index, early_score(early, index, lake))
    days = active_days(service, ranker, chosen, lived, seed)
    gain = clustered_mean(days - popular, estimand=model)
    return {"gain": gain.value, "std_error": gain.std_error, "fit_seconds": seconds}


LABELS = ("days", "teacher", "matured")


@remembered(version=1)
def label_losses(
    *, world: str, users: int, items: int, log_days: int, later_days: int, members: int, seed: int
) -> dict[str, list[float]]:
    """Log-loss of beliefs in new entries before any day of them, by what the sequence reward learnt from:
    mean, and mean and standard error of what it loses beyond mature outcomes alone. Entries are of the 12
    days after the log that it is fitted on."""
    _, lake = logged(world, users, items, log_days + later_days, seed)
    split = lake.watermark - timedelta(days=later_days)
    later = HABIT.outcomes(lake).entered(split, split + timedelta(days=12))
    later = later.where(later.known)
    past = lake.before(split)
    outcomes = HABIT.outcomes(past)
    losses = {}
    for labels in LABELS[::-1]:
        print(f"{world}, seed {seed}: labels={labels}", file=sys.stderr, flush=True)
        early = lp.SequenceReward(HABIT, members=members, labels=labels)
        early = early.fit(past, outcomes, progress=False)
        mean_N = np.clip(early.belief(later, 0).mean, 1e-4, 1 - 1e-4)
        losses[labels] = -np.where(later.value > 0, np.log(mean_N), np.log1p(-mean_N))
    user_N = later.frame["user_id"].to_numpy()
    result = {}
    for labels, loss_N in losses.items():
        beyond = clustered_mean(loss_N - losses["matured"], user_N, estimand=labels)
        result[labels] = [float(loss_N.mean()), beyond.value, beyond.std_error]
    return result


@remembered(version=1)
def pair_costs(
    *, world: str, users: int, items: int, log_days: int, visits: int, again: int, seed: int
) -> dict[str, float]:
    """CPU microseconds per (user, item) pair: the value of a whole catalogue by the sequence reward, and
    the same networks reading history and candidate as one sequence for every pair. Medians of runs in
    turn."""
    service, lake = logged(world, users, items, log_days, seed)
    early = lp.SequenceReward(HABIT, steps=20).fit(lake, HABIT.outcomes(lake), progress=False)
    ids = service.items["item_id"]
    alive = np.flatnonzero(service.state.alive_R)
    assert early.ensemble is not None
    tokens = EventTokens.of(lake, early.ensemble.vocabulary)
    by_turn: dict[str, list[float]] = {"state once": [], "every pair": []}
    early.item_value(
        Contexts.of(service.user_ids.gather(alive[:1]), service.now, slots=5), ids, lake
    )
    for turn in range(5):
        first = 1 + turn * (visits + again)
        for name, rows in (
            ("state once", alive[first : first + visits]),
            ("every pair", alive[first + visits : first + visits + again]),
        ):
            contexts = Contexts.of(service.user_ids.gather(rows), service.now, slots=5)
            started = time.process_time()
            if name == "state once":
                early.item_value(contexts, ids, lake)
            else:
                encode_every_pair(early, contexts, ids, tokens)
            seconds = time.process_time() - started
            by_turn[name].append(1e6 * seconds / (len(rows) * len(ids)))
    return {name: float(np.median(costs)) for name, costs in by_turn.items()}


def encode_every_pair(
    early: lp.SequenceReward, contexts: Contexts, items: pl.Series, tokens: EventTokens
) -> None:
    """Read each user's history with each candidate behind it, by every network of the ensemble."""
    import torch

    from longplay.rewards.sequence.network import MOMENT, Batch, as_batch

    ensemble = early.ensemble
    assert ensemble is not None
    vocabulary = ensemble.vocabulary
    time_N = contexts.frame["time"].dt.epoch("us").to_numpy()
    events = tokens.before(tokens.users.rows(contexts.frame["user_id"]), time_N)
    item_I = torch.as_tensor(vocabulary.items.rows(items))
    key_I = torch.as_tensor(vocabulary.key_I)[item_I] + 1
    play = int(vocabulary.kind(pl.Series(["play"]))[0])
    with torch.no_grad():
        for visit in range(len(events)):
            history = as_batch(events.take(np.array([visit])))
            day = history.day[:, -1:] if history.day.shape[1] else torch.zeros(1, 1)
            for part in torch.arange(len(item_I)).split(512):
                columns = [column.expand(len(part), -1) for column in history]
                last = Batch(
                    torch.full((len(part), 1), play),
                    torch.zeros(len(part), 1, dtype=torch.long),
                    torch.zeros(len(part), 1, dtype=torch.long),
                    key_I[part, None],
                    item_I[part, None],
                    torch.zeros(len(part), 1),
                    day.expand(len(part), 1),
                )
                batch = Batch(*(torch.cat(pair, 1) for pair in zip(columns, last, strict=True)))
                for member in ensemble.members:
                    state = member.states(batch)[:, -1]
                    member.of_moments(
                        state, torch.zeros(len(part), MOMENT), torch.zeros(len(part), 0)
                    )


@remembered(version=1)
def correlations(
    *, world: str, users: int, items: int, log_days: int, seed: int
) -> dict[str, float]:
    """Personal correlation of the value of showing with true chance x worth, of 200 users."""
    service, lake = logged(world, users, items, log_days, seed)
    outcomes = HABIT.outcomes(lake)
    sample = np.flatnonzero(service.state.alive_R)[:200]
    contexts = Contexts.of(service.user_ids.gather(sample), service.now, slots=5)
    ids = service.items["item_id"]
    released = service.catalogue.index.rows(ids)
    truth_NI = (true_chance(service, contexts) * true_worth(service, contexts))[:, released]
    result = {}
    for name, knows in (("log", ()), ("factors", ("users", "items"))):
        early = lp.ProgressiveReward(HABIT, knows=knows).fit(lake, outcomes, progress=False)
        value_NI = early.item_value(contexts, ids, lake).mean
        result[name] = personal(value_NI, truth_NI)
    return result


def ratio(value: float, other: float) -> float:
    """value / other; 0 where the other is 0, as in a quick run."""
    return value / other if other else 0.0


def table(world: str, users: int, seeds: int, quick: bool) -> list[dict[str, Any]]:
    """Rows of one world."""
    sizes = (
        {"items": 60, "judged": 60, "log_days": 75, "lived": 5}
        if quick
        else {
            "items": 2_000,
            "judged": 2_000,
            "log_days": 84,
            "lived": LIVED,
        }
    )
    results = [
        gains(world=world, users=200 if quick else users, seed=7 + seed, **sizes)
        for seed in range(seeds)
    ]
    command = f"python bench/rewards.py --worlds {world} --seeds {seeds}"

    def pooled(name: str) -> tuple[float, float]:
        values = np.array([result["gains"][name] for result in results])
        return float(values[:, 0].mean()), float(np.sqrt((values[:, 1] ** 2).sum()) / len(values))

    def row(
        claim: str, value: float, error: float | None, bar: str, ok: bool | None
    ) -> dict[str, Any]:
        ends = (None, None) if error is None else (value - 1.96 * error, value + 1.96 * error)
        return {
            "claim": f"rewards, {world}: {claim}",
            "value": value,
            "low": ends[0],
            "high": ends[1],
            "bar": bar,
            "ok": ok,
            "seeds": seeds,
            "command": command,
        }

    same = {key: value for key, value in sizes.items() if key not in ("judged", "lived")}
    personals = [
        correlations(world=world, users=200 if quick else users, seed=7 + seed, **same)
        for seed in range(seeds)
    ]
    rows = []
    for name in results[0]["gains"]:
        value, error = pooled(name)
        rows.append(
            row(
                f"active days of {LIVED} over popularity, {name}",
                value,
                error,
                "none: reported",
                True,
            )
        )
    log, factors = pooled("log")[0], pooled("factors")[0]
    ridge, shuffled = pooled("ridge, factors")[0], pooled("ridge, factors shuffled")[0]
    full = pooled("full knowledge")[0]
    repetition = pooled("rates, repetition")[0] - pooled("rates")[0]
    rows.append(
        row(
            "log over the shuffled ridge",
            ratio(log, shuffled),
            None,
            ">= 1.1",
            log >= 1.1 * shuffled,
        )
    )
    rows.append(
        row(
            "log over the ridge that sees factors",
            ratio(log, ridge),
            None,
            ">= .7",
            log >= 0.7 * ridge,
        )
    )
    rows.append(
        row(
            "factors over the ridge that sees them",
            ratio(factors, ridge),
            None,
            ">= 1",
            factors >= ridge,
        )
    )
    if world == "weary":
        rows.append(
            row(
                "repetition beyond rates, active days",
                repetition,
                None,
                ">= .10",
                repetition >= 0.1,
            )
        )
    rows.append(row("log over full knowledge", ratio(log, full), None, "aim .4", log >= 0.4 * full))
    rows.append(
        row(
            "factors over full knowledge",
            ratio(factors, full),
            None,
            "aim .6",
            factors >= 0.6 * full,
        )
    )
    for name, bar in (("log", 0.10), ("factors", 0.65)):
        value = float(np.mean([correlation[name] for correlation in personals]))
        rows.append(
            row(f"personal correlation, {name}", value, None, f">= {bar:.2f}", value >= bar)
        )
    return rows


WORLDS = {"weary": 15_000, "default": 5_000, "clickbait": 5_000}


def sequence_rows(world: str, users: int, seeds: int, quick: bool) -> list[dict[str, Any]]:
    """Rows of the sequence reward and of the personal one that it starts from."""
    sizes = {"items": 2_000, "judged": 2_000, "log_days": 84, "lived": LIVED}
    if quick:
        sizes = {"items": 60, "judged": 30, "log_days": 75, "lived": 2}
    rows = []
    for name in SEQUENCE_ROWS:
        size = {"users": 200 if quick else users, **sizes}
        results = [
            sequence_gain(model=name, world=world, seed=7 + seed, **size) for seed in range(seeds)
        ]
        values = np.array([[result["gain"], result["std_error"]] for result in results])
        value = float(values[:, 0].mean())
        error = float(np.sqrt((values[:, 1] ** 2).sum()) / len(values))
        rows.append(
            {
                "claim": f"rewards, {world}: active days of {LIVED} over popularity, {name}",
                "value": value,
                "low": value - 1.96 * error,
                "high": value + 1.96 * error,
                "bar": "none: reported",
                "ok": True,
                "seeds": seeds,
                "command": f"python bench/rewards.py --parts sequence --worlds {world} --seeds {seeds}",
            }
        )
    return rows


def label_rows(quick: bool) -> list[dict[str, Any]]:
    """Whether the labels of a teacher, who sees the first days of entries, teach more than mature outcomes."""
    sizes = {"users": 8_000, "items": 2_000, "log_days": 84, "later_days": 42, "members": 2}
    if quick:
        sizes = {"users": 200, "items": 60, "log_days": 75, "later_days": 42, "members": 1}
    losses = label_losses(world="weary", seed=7, **sizes)
    rows = []
    for labels in LABELS[:-1]:
        _, value, error = losses[labels]
        rows.append(
            {
                "claim": f"rewards, weary: log-loss of new entries beyond mature outcomes, {labels}",
                "value": value,
                "low": value - 1.96 * error,
                "high": value + 1.96 * error,
                "bar": "< 0",
                "ok": value + 1.96 * error < 0,
                "seeds": 1,
                "command": "python bench/rewards.py --parts labels",
            }
        )
    return rows


def cost_rows(quick: bool) -> list[dict[str, Any]]:
    """What a pair of the sequence reward costs, and how much less that is than to read the history again
    for every pair."""
    sizes = {"users": 4_000, "items": 2_000, "log_days": 84, "visits": 200, "again": 4}
    if quick:
        sizes = {"users": 200, "items": 60, "log_days": 75, "visits": 10, "again": 2}
    costs = pair_costs(world="weary", seed=7, **sizes)
    times = ratio(costs["every pair"], costs["state once"])
    row = {"low": None, "high": None, "seeds": 1, "command": "python bench/rewards.py --parts cost"}
    return [
        {
            "claim": "rewards: CPU microseconds per (user, item) pair, sequence reward",
            "value": costs["state once"],
            "bar": "none: reported",
            "ok": True,
            **row,
        },
        {
            "claim": "rewards: history and candidate read as one sequence, times as much per pair",
            "value": times,
            "bar": ">= 20",
            "ok": times >= 20,
            **row,
        },
    ]


def main() -> None:
    """Compute the rows, print them, and write them to a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--parts", nargs="*", default=["gains"], help="gains, sequence, labels, cost"
    )
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
    if "sequence" in options.parts:
        for world in options.worlds[:1]:
            users = WORLDS[world]
            rows += sequence_rows(
                world, users, 1 if options.quick else options.seeds, options.quick
            )
    if "labels" in options.parts:
        rows += label_rows(options.quick)
    if "cost" in options.parts:
        rows += cost_rows(options.quick)
    for row in rows:
        print(f"{row['value']:9.3f}  {row['claim']}  {row['bar']}")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
