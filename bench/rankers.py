"""Greedy rankers without a language model, and the true active days of users who live under them.

Every ranker scores the whole catalogue at every visit and draws a slate by Plackett-Luce. All are
equally soft: their first slot has the same effective number of items at every visit. They differ in
what they know of the chance of an entry, and of the outcome given one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
import polars as pl
from remembered import remembered
from reward_truth import Float, Int, known_match, true_chance, true_match, true_worth
from scipy import special

import longplay as lp
from longplay.decisions import Contexts, Decisions, context_chance
from longplay.index import ItemIndex
from longplay.lake.storage import MemoryStore
from longplay.policies.plackett import plackett_luce_log_prob
from longplay.rewards.early import EarlyModel
from longplay.rewards.showing_fit import fit_showing
from longplay.world import World, WorldConfig
from longplay.world.parameters import named_world

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


def softened(score_NI: Float, effective: float) -> Float:
    """Log-probabilities proportional to b x score, b such that 1 / sum p^2 is the same in every row."""
    can_NI = np.isfinite(score_NI)
    masked_NI = np.where(can_NI, score_NI, np.nan)
    spread_N1 = np.maximum(np.nanstd(masked_NI, axis=1, keepdims=True), 1e-12)
    z_NI = np.where(
        can_NI, (masked_NI - np.nanmax(masked_NI, axis=1, keepdims=True)) / spread_N1, -np.inf
    )
    low_N, high_N = np.full(len(z_NI), 1e-3), np.full(len(z_NI), 1e3)
    sharp_N = np.sqrt(low_N * high_N)
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


MODELS: dict[str, type[EarlyModel]] = {
    "progressive": lp.ProgressiveReward,
    "personal": lp.PersonalReward,
    "sequence": lp.SequenceReward,
}


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
    early: dict[tuple[str, tuple[str, ...]], EarlyModel] = field(default_factory=dict)

    def model(self, name: str = "progressive", knows: tuple[str, ...] = ()) -> EarlyModel:
        """An early reward of habits, fitted once; MODELS by name."""
        if (name, knows) not in self.early:
            model = MODELS[name](HABIT, knows=knows)
            self.early[name, knows] = model.fit(self.lake, self.outcomes, progress=False)
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
    """The plain ridge of plays x days, with the factors of users or with those of others."""

    def made(log: Logged) -> Score:
        lake = with_shuffled_users(log.lake, log.case.seed) if shuffled else log.lake
        ridge = lp.TwoPartRidge(DAYS, knows=KNOWS).fit(lake, DAYS.outcomes(lake), progress=False)
        ids = log.service.catalogue.index.ids

        def score(world: World, contexts: Contexts) -> Float:
            # contexts carry the users' true factors
            known = contexts.without(["user_vector"]) if shuffled else contexts
            return ridge.item_value(known, ids, lake).mean

        return score

    return made


def with_shuffled_users(lake: lp.Lake, seed: int) -> lp.Lake:
    """The same log, in which every user has the factors of another: as many numbers, nothing known."""
    users = lake.descriptions("users")
    order = np.random.default_rng(seed).permutation(users.height)
    store = MemoryStore()
    store.commit(
        "shuffled",
        {
            "events": lake.events,
            "decisions": lake.decisions,
            "contexts": lake.contexts,
            "items": lake.items,
            "users": users.with_columns(users["vector"].gather(order)),
        },
        lake.watermark,
    )
    return lp.Lake(store)


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
SEQUENCES: dict[str, Made] = {
    "log, sequence": by_value("sequence"),
    "factors, sequence": by_value("sequence", KNOWS),
}
GROUPS = {"insiders": INSIDERS, "ridges": RIDGES, "ours": OURS, "sequences": SEQUENCES}
VERSIONS = {
    "insiders": 1,
    "ridges": 2,
    "ours": 2,
    "sequences": 1,
}  # raised when what they compute changes


@remembered(version=1)
def lived(*, case: Case, ranker: str, version: int) -> list[int]:
    """Active days of each judged user under a ranker."""
    print(f"{case.world}, seed {case.seed}: {ranker}", file=sys.stderr, flush=True)
    log = logged(case)
    if ranker == "popular":
        policy: Any = lp.Popular(slate=5, explore=0.1).fit(log.lake)
    else:
        score = (INSIDERS | RIDGES | OURS | SEQUENCES)[ranker](log)
        effective = 5.05 if ranker == "the same five items" else EFFECTIVE
        policy = Ranker(f"{ranker}@1", log.service.catalogue.index, score, effective=effective)
    days = active_days(log.service, policy, log.judged, case.lived, case.seed)
    return [int(x) for x in days]


def gains(case: Case, groups: Sequence[str]) -> dict[str, Float]:
    """Active days over popularity of each judged user, under every ranker of these groups."""
    popular = np.array(lived(case=case, ranker="popular", version=VERSIONS["insiders"]))
    return {
        name: np.array(lived(case=case, ranker=name, version=VERSIONS[group])) - popular
        for group in groups
        for name in GROUPS[group]
    }


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
