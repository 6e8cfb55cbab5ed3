"""The true value of a policy, by simulating lives under it.

Two estimands, two numbers. `policy`: everybody follows the policy throughout, which is
what an experiment estimates. `one_step`: deviate in one slot, then follow the logger, which is what
off-policy estimates from logged slots are of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray

from longplay.arrays import Int
from longplay.decisions import (
    Adaptive,
    Contexts,
    Decisions,
    Frozen,
    Policy,
    as_read,
    outside,
    slots_of,
)
from longplay.errors import ConfigError, DataError
from longplay.estimate import Estimate, clustered_mean
from longplay.lake import Lake
from longplay.lake.daily import DAY_US
from longplay.lake.schema import TIME, conform, empty
from longplay.signals.signal import Signal
from longplay.world.catalogue import START
from longplay.world.dynamics import HOME, Shown, coins
from longplay.world.event_log import Batch, midnight_us
from longplay.world.listeners import first_state
from longplay.world.memory import Memory, Reading
from longplay.world.service import Service
from longplay.world.truth.of_showing import Touches
from longplay.world.truth.paired import days_to_live, enrolled_values, far_seed

_LIVES = 6  # simulated lakes that are kept for the next question about the same policy
_DAYS = 12  # days whose visits are judged, spread over those asked for
_SAMPLES = 40_000  # visits judged


def policy_values(
    world: Service,
    policy: Policy | None,
    signal: Signal,
    days: int | None,
    users: int | None,
    seed: int,
) -> pl.DataFrame:
    """The signal's sum of each user who visits in the first 14 days under `policy`: columns user_id
    and value; see `World.truth`."""
    lake = _lived(world, policy, days_to_live([signal], days), users, seed)
    return enrolled_values(lake, world.now, signal)


def _lived(world: Service, policy: Policy | None, days: int, users: int | None, seed: int) -> Lake:
    """The lake after copies of the users have lived `days` days under `policy`. The last few lakes
    are cached."""
    # the id too: two unfitted policies share a name, and learn different counts later
    key = (None if policy is None else policy.name, id(policy), world.day, days, users, seed)
    if key not in world.lives:
        while len(world.lives) >= _LIVES:
            world.lives.pop(next(iter(world.lives)))
        alive = np.flatnonzero(world.state.alive_R)
        if users is not None:
            if users < 1:
                raise ConfigError(f"truth: users={users} given, expected at least 1")
            alive = np.sort(
                np.random.default_rng([seed, 3]).choice(
                    alive, min(users, len(alive)), replace=False
                )
            )
        copies = world.fork(alive, seed=far_seed(seed))
        copies.run(policy, days)
        # the policy is kept too, so that its id is not used again
        world.lives[key] = (policy, copies.lake)
    return world.lives[key][1]


def one_step_truth(
    world: Service,
    policy: Policy,
    logger: Policy,
    signal: Signal,
    start: datetime,
    days: int,
    users: int | None,
    seed: int,
) -> Estimate:
    """See `World.truth`.

    Each judged visit lives on twice, with the drawn slot played and not played, and the two
    outcomes are weighed by the chance of the play, which takes most of the noise out. Outcomes are
    counted by the signal itself.
    """
    if signal.entry.of is None:
        raise ConfigError(
            f"truth: {signal.label} is entered by {signal.entry.kind}, so no slot owns it; "
            "one_step needs discovery or exposure"
        )
    first_day = (start - START).days
    if days < 1 or first_day < 0:
        raise ConfigError(
            f"truth: start={start:%Y-%m-%d}, days={days} given, expected days >= 1 from "
            f"{START:%Y-%m-%d} on"
        )
    days_after = signal.window[1] + 3
    rng = np.random.default_rng([seed, 4])
    reborn = _reborn(world, users, seed)
    judged = {
        first_day + int(day)
        for day in np.unique(np.linspace(0, days - 1, min(days, _DAYS)).round())
    }
    branches = []
    loggers = []
    rate = 1.0
    memory = Memory(len(reborn.user_ids), Reading.of(policy, logger))
    if isinstance(logger, Adaptive):
        logger = logger.adapt(reborn.items, empty("events"))
    for day in range(max(judged) + days_after + 1):
        loggers.append(logger)
        # one rate for all days, so that every visit counts alike; people only become fewer
        if day == min(judged):
            rate = _SAMPLES / len(judged) / max(len(reborn.morning().user_N), 1)
        if (
            day in judged
            and (
                branches_of_day := _branch(
                    reborn, policy, logger, memory, rate, rng, seed, signal.entry.of == "item"
                )
            )
            is not None
        ):
            branches.append(branches_of_day)
        # afterwards only what the logger learns matters
        if day <= max(judged) or isinstance(logger, Adaptive):
            today = reborn.one_day(_Logger(logger), memory, Batch(day))
            if isinstance(logger, Adaptive):
                logger = logger.adapt(reborn.items, today)
    if not branches:
        raise DataError("truth: nobody visits on the days asked for; has everybody left?")
    events = pl.concat(
        [
            _follow(branches_of_day, loggers, days_after, signal.measure.of is None)
            for branches_of_day in branches
        ]
    )
    lake = Lake.memory()  # one user per branch, so that branches do not depend on each other
    until = START + timedelta(days=max(judged) + days_after + 1)
    lake.append(
        "lives",
        events=events,
        decisions=pl.concat([branches_of_day.decisions for branches_of_day in branches]),
        items=world.catalogue.frame,
        watermark=until,
        now=until,
    )
    outcome = signal.outcomes(lake).on(lake.decisions).frame.select("decision_id", "value")
    worth = pl.concat([branches_of_day.weights for branches_of_day in branches]).join(
        outcome, on="decision_id", how="left"
    )
    if worth["value"].null_count():
        raise DataError(
            f"truth: {worth['value'].null_count()} slots have no outcome of {signal.label}; is "
            "the window longer than a year?"
        )
    value = (
        worth.group_by("visit", "user_id")
        .agg((pl.col("weight") * pl.col("value")).sum())
        .sort("visit")
    )
    return clustered_mean(
        value["weight"].to_numpy(),
        value["user_id"].to_numpy(),
        estimand=f"one_step: {signal.label} per slot, true",
    )


def _reborn(world: Service, users: int | None, seed: int) -> Service:
    """The world on its first day with other random numbers, of all users or of a number of users
    drawn by `seed`."""
    if users is not None and users < 1:
        raise ConfigError(f"truth: users={users} given, expected at least 1")
    everybody = len(world.user_ids)
    rows = (
        np.arange(everybody)
        if users is None
        else np.sort(
            np.random.default_rng([seed, 3]).choice(everybody, min(users, everybody), replace=False)
        )
    )
    reborn = world.fork(rows, seed=far_seed(seed), history=False)
    reborn.day = 0
    reborn.market = reborn.catalogue.market(0)
    reborn.known_keys = np.empty(0, dtype=np.int64)
    reborn.state = first_state(
        reborn.listeners, reborn.number_U, reborn.market, world.seed, reborn.config
    )
    return reborn


@dataclass(frozen=True, eq=False)
class _Branches:
    """Some visits of one day, each as two branches: the first half plays a slot drawn from the
    policy, the second half does not.

    Attributes:
        lives: the world of these copies, as of the visit's morning.
        memory: what policies may see of the copies' past, as of then.
        slate_RS: what they are shown; played_RS: what they play of it.
        original_ids: the users whose lives these are.
        past: the copies' last touch of the judged creator, or item where items are discovered.
        decisions: the judged slot.
        weights: decision_id, visit, user_id, weight.
    """

    lives: Service
    memory: Memory
    slate_RS: Int
    played_RS: NDArray[np.bool_]
    creator_R: Int
    original_ids: pl.Series
    past: pl.DataFrame
    decisions: pl.DataFrame
    weights: pl.DataFrame


@dataclass(frozen=True, eq=False)
class _Logger(Frozen):
    """A logger that decides for copies of users. It is handed no more than it reads, and treats a
    copy as its original.

    So both copies of a visit meet the same slates, as long as the logger would show them, and an
    experiment keeps its arms.
    """

    copies: pl.Series | None = None
    original_ids: pl.Series | None = None

    def decide(self, contexts: Contexts, rng: np.random.Generator) -> Decisions:
        """The logger's decisions for the originals, under the names of the copies."""
        frame = contexts.frame
        visits = as_read(self, contexts).frame
        if self.copies is not None and self.original_ids is not None:
            real = pl.Series(
                "real", frame["user_id"].replace_strict(self.copies, self.original_ids)
            )
            rest = pl.col("context_id").str.slice(pl.col("user_id").str.len_chars())
            visits = (
                visits.with_columns(real)
                .with_columns(context_id=pl.col("real") + rest, user_id=pl.col("real"))
                .drop("real")
            )
        decisions = self.policy.decide(Contexts(visits), rng).frame
        return Decisions(
            decisions.with_columns(
                frame["user_id"], frame["context_id"], decision_id="d:" + frame["context_id"]
            )
        )


def _branch(
    world: Service,
    policy: Policy,
    logger: Policy,
    memory: Memory,
    rate: float,
    rng: np.random.Generator,
    seed: int,
    items: bool,
) -> _Branches | None:
    """Branches of a share `rate` of today's visits; null where there are none. With `items` a
    discovery is of an item, else of a creator."""
    morning = world.morning()
    day = world.day
    rows = np.flatnonzero(rng.random(len(morning.user_N)) < rate)
    if len(rows) == 0:
        return None
    user_M = morning.user_N[rows]
    m = len(rows)
    width = slots_of(logger)
    contexts = world.contexts_of(width, memory, user_M, morning.second_N[rows])
    # a policy of today may know items of tomorrow: they could not have been shown
    unborn = pl.lit(
        world.catalogue.index.ids.filter(pl.Series(world.catalogue.release_I > day)).implode()
    )
    possible = as_read(
        policy,
        Contexts(
            contexts.frame.with_columns(exclusions=pl.col("exclusions").list.set_union(unborn))
        ),
    )
    calls = ((_Logger(logger), contexts), (policy, possible), (_Logger(logger), contexts))
    slates = [
        world.slate_rows(
            decider,
            decider_contexts,
            decider.decide(decider_contexts, np.random.default_rng([seed, k, 5, day])),
        )
        for k, (decider, decider_contexts) in enumerate(calls)
    ]
    if any((slate_NS < 0).any() for slate_NS in slates):
        raise DataError(
            "truth: estimand='one_step' changes one slot of a full slate, but some slates are "
            "shorter than asked for"
        )
    logged, drawn, rest = slates
    slot_M = rng.integers(0, width, m)
    slate_MS = logged.copy()
    for slot in range(width):
        at = np.flatnonzero(slot_M == slot)
        slate_MS[at, slot] = outside(logged[at, :slot], drawn[at], 1)[:, 0]
        # the slots after it are the logger's, given what now stands before them
        if slot + 1 < width:
            slate_MS[at, slot + 1 :] = outside(slate_MS[at, : slot + 1], rest[at], width - slot - 1)
    item_M = slate_MS[np.arange(m), slot_M]
    creator_M = world.catalogue.creator_I[item_M]
    shown = Shown(HOME, user_M, slate_MS)
    chance_MS, play_MS = coins(
        world.listeners,
        morning.taste_RD,
        morning.state,
        world.open_market(),
        shown,
        morning.luck,
        world.config,
    )
    played = [play_MS.copy(), play_MS.copy()]
    for branch in (0, 1):
        played[branch][np.arange(m), slot_M] = branch == 0
    chance_M = chance_MS[np.arange(m), slot_M]
    both_users = np.concatenate([user_M, user_M])
    half = pl.Series(np.repeat(["y", "n"], m))
    ids = pl.select(
        (pl.Series(np.tile(np.arange(m), 2)).cast(pl.String) + f"-{day}" + half).alias("id")
    )["id"]
    last_M = Touches.of(world.played, world.catalogue, items).last(
        user_M, item_M if items else creator_M
    )
    catalogue = world.catalogue
    item_R = np.concatenate([item_M, item_M])
    past = pl.DataFrame(
        {
            "event_id": pl.select((ids + "-past").alias("id"))["id"],
            "user_id": ids,
            "item_id": catalogue.index.ids.gather(item_R),
            "creator_id": catalogue.frame["creator_id"].gather(item_R),
            "time": pl.Series(
                midnight_us(0) + np.tile(np.maximum(last_M, 0), 2) * DAY_US + 43_200_000_000
            ).cast(TIME),
        }
    ).filter(pl.Series(np.tile(last_M >= 0, 2)))
    decisions = pl.DataFrame(
        {
            "decision_id": ids,
            "context_id": ids,
            "user_id": ids,
            "time": contexts.frame["time"].gather(np.tile(np.arange(m), 2)),
        }
    ).with_columns(
        surface=pl.lit("home"),
        slate=pl.concat_list(catalogue.index.ids.gather(item_R)),
        log_prob=pl.lit([0.0], dtype=pl.List(pl.Float64)),
        policy=pl.lit(policy.name),
    )
    weights = pl.DataFrame(
        {
            "decision_id": ids,
            "visit": np.tile(np.arange(m), 2) + day * 10_000_000,
            "user_id": world.user_ids.gather(both_users),
            "weight": np.concatenate([chance_M, 1.0 - chance_M]),
        }
    )
    lives = world.fork(both_users, ids=ids, history=False)
    return _Branches(
        lives,
        memory.take(both_users),
        np.concatenate([slate_MS, slate_MS]),
        np.concatenate(played),
        np.concatenate([creator_M, creator_M]),
        world.user_ids.gather(both_users),
        past,
        decisions,
        weights,
    )


def _follow(
    branches: _Branches, loggers: Sequence[Policy], days_after: int, every_event: bool
) -> pl.DataFrame:
    """Events of the branches from their visit on: all with `every_event`, else those about the
    judged creator, and its last touch before."""
    world = branches.lives
    first = world.day
    watched = pl.DataFrame(
        {
            "user_id": world.user_ids,
            "creator_id": world.catalogue.creators.gather(branches.creator_R),
        }
    )
    events_by_day = [branches.past.with_columns(kind=pl.lit("play")).pipe(conform, "events")]
    for day in range(first, first + days_after):
        batch = Batch(day)
        if day == first:
            morning = world.morning()
            if len(morning.user_N) != len(world.user_ids):
                raise AssertionError("copies of visitors with the visitors' luck visit")
            shown = [
                *world.house(morning, batch, shelf=True),
                Shown(HOME, morning.user_N, branches.slate_RS, branches.played_RS),
            ]
            today = world.evening(morning, shown, branches.memory, batch)
        else:
            today = world.one_day(
                _Logger(loggers[day], world.user_ids, branches.original_ids), branches.memory, batch
            )
        events_by_day.append(
            today if every_event else today.join(watched, on=["user_id", "creator_id"], how="semi")
        )
    return pl.concat(events_by_day)
