"""The simulated service: users and items that live day by day under a policy."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from longplay.arrays import Int
from longplay.decisions import (
    Adaptive,
    Contexts,
    Decisions,
    Policy,
    rule_words,
    rules_of,
    shows_fewer,
    slots_of,
)
from longplay.display import facts_html
from longplay.errors import ConfigError, DataError
from longplay.index import distinct_keys, ranges
from longplay.lake import Lake
from longplay.lake.schema import TIME, empty
from longplay.progress import Progress, reporting
from longplay.world.catalogue import (
    ANNOUNCED,
    AT_ONCE,
    START,
    Catalogue,
    Market,
    make_catalogue,
    vectors,
)
from longplay.world.dynamics import HOME, Shown, live, visitors, wake
from longplay.world.event_log import Batch, DayPlays, events_of_day, midnight_us, ragged
from longplay.world.listeners import State, first_state, make_listeners, visit_seconds
from longplay.world.luck import DayLuck, Luck
from longplay.world.memory import Memory, Reading
from longplay.world.parameters import WorldConfig, named_world
from longplay.world.surfaces import house_decisions, house_lists, visit_ids

logger = logging.getLogger(__name__)
_FLUSH_ROWS = 2_000_000  # events that are collected before they go to the lake


@dataclass(frozen=True, eq=False)
class Morning:
    """A day before anything is shown: the users' random numbers, tastes and state, who visits
    (rows, ascending) and when (second of the day)."""

    luck: DayLuck
    taste_RD: NDArray[np.float32]
    state: State
    user_N: Int
    second_N: Int


class Service:
    """A service of `users` listeners and `items` items that lives day by day under the policies it
    is given.

    Users create a `longplay.World`, which adds what is true of policies and of showing an item.
    What begins without an underscore here and is not documented there is for the rooms of `world`
    alone.
    """

    def __init__(
        self,
        users: int = 5_000,
        items: int = 2_000,
        seed: int = 7,
        config: WorldConfig | None = None,
        exclude: str | None = None,
        folder: str | Path | None = None,
    ) -> None:
        """A new world on its first day.

        Args:
            exclude: what home slates must not hold: "none", items already "seen" (engaged with), or
                all items of a "creator" already engaged with. A rule that is given is stated in the
                contexts, and a policy that was trained under another one refuses them. Default:
                "none", not stated: such a policy runs, and a warning is logged.
            folder: where the log is kept (Delta Lake; must hold no lake yet); default in memory.
                For worlds of more than about 30,000 users.
        """
        for name, value, least, most in (
            ("users", users, 1, 10_000_000),
            ("items", items, 1, 1_000_000),
            ("seed", seed, 0, 2**63 - 1),
        ):
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
                raise ConfigError(
                    f"World: {name}={value!r} given, expected a whole number from {least:,} to "
                    f"{most:,}"
                )
        if config is not None and not isinstance(config, WorldConfig):
            raise ConfigError(
                f"World: config is a {type(config).__name__}, expected a WorldConfig; from a "
                f"mapping: WorldConfig.of({{...}})"
            )
        if exclude not in (None, "none", "seen", "creator"):
            raise ConfigError(
                f"World: exclude={exclude!r} given, expected one of none, seen, creator"
            )
        self.config = WorldConfig() if config is None else config
        self.seed = seed
        self.exclude = "none" if exclude is None else exclude
        self._stated = exclude
        # policies of which a warning was logged, by this world or one that it was forked from
        self._warned_of: set[str] = set()
        self.catalogue: Catalogue = make_catalogue(items, seed, self.config)
        self.listeners = make_listeners(users, seed, self.config)
        self.market: Market = self.catalogue.market(0)
        self.state: State = first_state(
            self.listeners, np.arange(users), self.market, seed, self.config
        )
        self.policy: Policy | None = None
        self.user_ids = pl.select(
            (pl.lit("u") + pl.int_range(users).cast(pl.String).str.zfill(7)).alias("user_id")
        )["user_id"]
        self.number_U = np.arange(
            users
        )  # number of the user in each row, by which random numbers are keyed
        self.luck = Luck(seed)
        self.day = 0
        self._lake = Lake.memory() if folder is None else Lake.open(folder)
        if folder is not None and self._lake.key[1][0]:
            raise ConfigError(
                f"World: the folder {folder} holds a lake already; give a new or empty one"
            )
        self._earlier: tuple[Lake, ...] = ()  # of a fork: the logs with what was shown before it
        self.played: list[DayPlays] = []
        self.known_keys = np.empty(0, dtype=np.int64)
        self.lives: dict[
            object, tuple[Policy | None, Lake]
        ] = {}  # the last few lakes that `truth` simulated

    @classmethod
    def named(
        cls,
        name: str,
        *,
        users: int | None = None,
        items: int | None = None,
        seed: int = 7,
        exclude: str | None = None,
        folder: str | Path | None = None,
    ) -> Self:
        """One of the worlds of docs/worlds.md: default, clickbait, aligned, null, gamed, drift,
        cold, weary or tiny, at its own size or the one given.

        >>> from longplay.world import World
        >>> World.named("tiny")
        World(300 users (300 alive), 120 items, seed 7, 2026-01-01)
        """
        defaults = named_world(name)
        return cls(
            defaults.users if users is None else users,
            defaults.items if items is None else items,
            seed,
            WorldConfig.of(defaults.numbers),
            exclude,
            folder,
        )

    @property
    def now(self) -> datetime:
        """The UTC midnight that ends the last simulated day."""
        return START + timedelta(days=self.day)

    @property
    def users(self) -> pl.DataFrame:
        """The users: columns user_id and whether the user is still there."""
        return pl.DataFrame({"user_id": self.user_ids, "alive": self.state.alive_R})

    @property
    def items(self) -> pl.DataFrame:
        """The items table, as a policy may see it: what has been released."""
        out_I = self.catalogue.release_I <= self.day
        return (
            self.catalogue.frame if out_I.all() else self.catalogue.frame.filter(pl.Series(out_I))
        )

    @property
    def lake(self) -> Lake:
        """The full history up to `now`, a fixed view: later runs do not change it."""
        return self._lake.before(self.now)

    def __repr__(self) -> str:
        alive = int(self.state.alive_R.sum())
        return (
            f"World({len(self.user_ids):,} users ({alive:,} alive), {len(self.catalogue):,} "
            f"items, seed {self.seed}, {self.now.date()})"
        )

    def _repr_html_(self) -> str:
        alive = int(self.state.alive_R.sum())
        facts = {
            "users": f"{len(self.user_ids):,}, {alive:,} of them still there",
            "items": f"{self.items.height:,} released of {len(self.catalogue):,}",
            "today": f"{self.now.date()}, {self.day:,} days lived",
            "last policy": "none yet" if self.policy is None else self.policy.name,
            "home slates leave out": {"none": "nothing", "seen": "items engaged with"}.get(
                self.exclude, "items of creators engaged with"
            ),
        }
        return facts_html(f"World, seed {self.seed}", facts)

    def run(self, policy: Policy | None, days: int, progress: Progress = None) -> Lake:
        """Live `days` more days under `policy` and return the full history so far.

        An `Adaptive` policy is given the catalogue at once and, at every midnight, the day's events
        (its last version is `world.policy`). With `policy=None` nothing is shown: the no-exposure
        path.

        Args:
            policy: what decides the slates; null: nothing is shown.
            days: how long, at least 1.
            progress: called after each day with (days done, days); True or False: a line that says
                how far it is, or none; default: a line on a terminal or in a notebook.
        """
        if days < 1:
            raise ConfigError(f"World.run: days={days} given, expected at least 1")
        # before it adapts: by the name that the caller knows, and once for all its versions
        for name, rule in rules_of([policy]).items():
            if self._stated is None and rule != self.exclude and name not in self._warned_of:
                self._warned_of.add(name)
                logger.warning(
                    "%s; give the world exclude=%r, or train with exclude=%r",
                    rule_words(name, rule, self.exclude),
                    rule,
                    self.exclude,
                )
        if isinstance(policy, Adaptive):
            policy = policy.adapt(self.items, empty("events"))
        memory = Memory.of(
            Reading.of(policy),
            self.user_ids,
            self.catalogue.index,
            self.played,
            (*self._earlier, self.lake),
        )
        with reporting("World.run", "days", progress) as tell:
            self.policy = self._live(policy, memory, days, tell)
        return self.lake

    def _live(
        self, policy: Policy | None, memory: Memory, days: int, tell: Callable[..., None]
    ) -> Policy | None:
        """Live these days and log them. Returns the policy as it is at their end."""
        batch = Batch(self.day)
        try:
            for done in range(1, days + 1):
                new = Batch(self.day)
                today = self.one_day(policy, memory, new)
                batch.add(new)
                if isinstance(policy, Adaptive):
                    policy = policy.adapt(self.items, today)
                if batch.rows() > _FLUSH_ROWS:
                    self._append(batch)
                    batch = Batch(self.day)
                tell(done, days)
        finally:
            # also where the policy fails: the days that were lived are in the log, and the day on
            # which it failed was not lived
            self._append(batch)
        return policy

    def _append(self, batch: Batch) -> None:
        if not batch.events:
            return
        self._lake.append(
            f"world-{batch.first_day}-{self.day}",
            events=pl.concat(batch.events),
            contexts=pl.concat(batch.contexts) if batch.contexts else None,
            decisions=pl.concat(batch.decisions) if batch.decisions else None,
            items=self.items,
            users=self._described_users(),
            watermark=self.now,
            now=self.now,
        )

    def _described_users(self) -> pl.DataFrame | None:
        """What the service knows of its users, as the lake's table; null where it knows nothing, or
        where the lake has it already."""
        if self.config.known == 0 or not self._lake.users.is_empty():
            return None
        known_since = START + timedelta(days=AT_ONCE) - ANNOUNCED
        return pl.DataFrame(
            [
                self.user_ids.alias("user_id"),
                vectors(self.listeners.vector_UK),
            ]
        ).with_columns(
            pl.lit(known_since, dtype=TIME).alias(name) for name in ("added_at", "ingested_at")
        )

    def fork(
        self,
        rows: NDArray[np.integer] | None = None,
        *,
        seed: int | None = None,
        ids: pl.Series | None = None,
        history: bool = True,
    ) -> Self:
        """A world of copies of these users as of now, which lives on separately. It serves to judge
        policies, not to log.

        Args:
            rows: users by row, repeats allowed if `ids` gives each copy a name of its own; null:
                all users.
            seed: of the copies' further luck; default their own, so that a copy under the same
                policy lives the same life.
            ids: new user ids, one per row; default the users' own.
            history: whether the copies' past goes with them: their events in the lake, and all that
                policies see of it, which what they were shown is part of; with `ids` it cannot.
        """
        if rows is None:
            rows = np.arange(len(self.user_ids))
        if ids is None and len(np.unique(rows)) < len(rows):
            raise ConfigError(
                "fork: a user is asked for twice; give each copy a name of its own (ids)"
            )
        if ids is not None and history and self.day:
            raise ConfigError(
                "fork: copies under other names have no past in the lake; say history=False"
            )
        other = copy.copy(self)
        other.listeners = self.listeners.take(rows)
        other.state = self.state.take(rows)
        other.user_ids = self.user_ids.gather(rows) if ids is None else ids
        other.number_U = self.number_U[rows]
        other.luck = self.luck if seed is None else Luck(seed)
        other._lake = Lake.memory()
        n_items = len(self.catalogue)
        low = np.searchsorted(self.known_keys, rows * n_items)
        high = np.searchsorted(self.known_keys, (rows + 1) * n_items)
        other.known_keys = (
            np.repeat(np.arange(len(rows)), high - low) * n_items
            + self.known_keys[ranges(low, high - low)] % n_items
        )
        other.played = []
        other._earlier = ()
        other.lives = {}
        if history and self.day:
            # the copies' own lake holds events only
            other._earlier = (*self._earlier, self.lake)
            row_of = np.full(len(self.user_ids), -1)
            row_of[rows] = np.arange(len(rows))
            other.played = [day.of_users(row_of) for day in self.played]
            events_of_users = self.lake.events.filter(
                pl.col("user_id").is_in(other.user_ids.implode())
            )
            other._lake.append(
                "history",
                events=events_of_users,
                items=self.items,
                users=other._described_users(),
                watermark=self.now,
                now=self.now,
            )
        return other

    def open_market(self) -> Market:
        """The released part of the catalogue today."""
        if self.day >= self.market.until:
            self.market = self.catalogue.market(self.day)
        return self.market

    def morning(self) -> Morning:
        """Who visits today, and the day's random numbers. Nothing changes."""
        luck = self.luck.on(self.number_U, self.day)
        state = wake(self.state, self.config)
        user_N = np.flatnonzero(visitors(self.listeners, state, luck, self.day, self.config))
        return Morning(
            luck,
            self.listeners.taste(self.day, self.config),
            state,
            user_N,
            visit_seconds(self.listeners, luck, user_N),
        )

    def one_day(self, policy: Policy | None, memory: Memory, batch: Batch) -> pl.DataFrame:
        """Live one day under `policy`: tables are added to `batch`, events are returned."""
        morning = self.morning()
        shown = self.house(morning, batch, shelf=policy is not None)
        if policy is not None and len(morning.user_N):
            contexts = self.contexts_of(slots_of(policy), memory, morning.user_N, morning.second_N)
            decisions = policy.decide(
                contexts, np.random.default_rng([self.luck.seed, 2, self.day])
            )
            batch.contexts.append(contexts.frame)
            batch.decisions.append(decisions.frame)
            shown.append(Shown(HOME, morning.user_N, self.slate_rows(policy, contexts, decisions)))
        return self.evening(morning, shown, memory, batch)

    def house(self, morning: Morning, batch: Batch, shelf: bool) -> list[Shown]:
        """What the service itself shows today (search results, new releases), logged in `batch`."""
        market = self.open_market()
        day = self.day
        shown = house_lists(
            self.listeners,
            morning.taste_RD,
            market,
            morning.user_N,
            day,
            morning.luck,
            self.config,
            shelf=shelf,
        )
        for surface in shown:
            if len(surface.row_N):
                second_R = morning.second_N[np.searchsorted(morning.user_N, surface.row_N)]
                contexts, decisions = house_decisions(
                    surface, market, day, second_R, self.user_ids, f"world-{self.seed}"
                )
                batch.contexts.append(contexts.frame)
                batch.decisions.append(decisions.frame)
        return shown

    def evening(
        self, morning: Morning, shown: list[Shown], memory: Memory, batch: Batch
    ) -> pl.DataFrame:
        """Finish the day, given all that was shown, and begin the next one. Returns the day's
        events."""
        active_U = np.zeros(len(self.user_ids), dtype=bool)
        active_U[morning.user_N] = True
        market = self.open_market()
        luck = morning.luck
        self.state, plays = live(
            self.listeners,
            morning.taste_RD,
            market,
            morning.state,
            active_U,
            shown,
            luck,
            self.config,
        )
        left_R = np.flatnonzero(morning.state.alive_R & ~self.state.alive_R)
        events, heard = events_of_day(
            self.day,
            morning.user_N,
            morning.second_N,
            plays,
            left_R,
            morning.taste_RD,
            self.listeners.subscriber_U,
            luck,
            self.user_ids,
            market,
            max(
                (surface.item_NS.shape[1] for surface in shown if surface.place == HOME), default=1
            ),
            self.config.mislabelled,
        )
        batch.events.append(events)
        self.played.append(heard)
        memory.add(heard, shown, morning.user_N, morning.second_N)
        self._remember(heard)
        self.day += 1
        return events

    def slate_rows(self, policy: Policy, contexts: Contexts, decisions: Decisions) -> Int:
        """Item rows of checked slates, [N, S]; -1 where a policy that may show less shows
        nothing."""
        if not decisions.frame["context_id"].equals(contexts.frame["context_id"]):
            raise DataError(
                f"{policy.name}: its decisions are not one per context in the contexts' order; "
                "decide() must keep the rows"
            )
        if not decisions.frame["user_id"].equals(contexts.frame["user_id"]):
            raise DataError(
                f"{policy.name}: its decisions are for other users than asked; decide() must keep "
                "the contexts' users"
            )
        if shows_fewer(policy):
            item_NS = self._short_rows(decisions.slates, contexts.slots)
        else:
            item_NS = self.catalogue.index.slate_rows(decisions.slates)
        in_order_NS = np.sort(item_NS, axis=1)
        if (
            item_NS.shape[1] != contexts.slots
            or ((in_order_NS[:, 1:] == in_order_NS[:, :-1]) & (in_order_NS[:, 1:] >= 0)).any()
        ):
            raise DataError(
                f"{policy.name}: slates of {item_NS.shape[1]} slots, some maybe with an item "
                f"twice, where {contexts.slots} different ones were asked for"
            )
        if (
            item_NS.size
            and self.catalogue.release_I[item_NS[item_NS >= 0]].max(initial=0) > self.day
        ):
            raise DataError(
                f"{policy.name}: a slate of {self.now:%Y-%m-%d} holds an item that is not "
                "released yet; take items from world.items"
            )
        return item_NS

    def _short_rows(self, slates: pl.Series, slots: int) -> Int:
        """Slates of up to `slots` items as rows [N, slots], padded with -1. Where a slate is
        longer, all rows are as wide as the longest."""
        count_N = slates.list.len().to_numpy()
        item_NS = np.full((len(slates), max(slots, int(count_N.max(initial=0)))), -1)
        item_P = (
            self.catalogue.index.slate_rows(
                slates.explode(empty_as_null=False).reshape((-1, 1)).arr.to_list()
            )
            if count_N.sum()
            else -1
        )
        item_NS[np.arange(item_NS.shape[1]) < count_N[:, None]] = np.ravel(item_P)
        return item_NS

    def contexts_of(self, slots: int, memory: Memory, user_N: Int, second_N: Int) -> Contexts:
        """The contexts of these users' visits: home slates of `slots` items, with what `memory`
        hands out."""
        times = pl.Series("time", midnight_us(self.day) + second_N * 1_000_000).cast(TIME)
        names = self.user_ids.gather(user_N)
        nothing = pl.Series("none", [[]], dtype=pl.List(pl.String)).new_from_index(0, len(user_N))
        past = memory.columns(user_N, self.catalogue.index.ids)
        knows_users = memory.reading.users and self.config.known > 0
        exclusions = nothing
        if self.exclude != "none":
            offsets, item = self._excluded(user_N)
            exclusions = ragged(self.catalogue.index.ids.gather(item), offsets)
        return Contexts.of(
            names,
            times,
            slots=slots,
            history=past.get("history", nothing),
            exclusions=exclusions,
            ids=visit_ids(names, self.day, "h"),
            history_columns=pl.DataFrame(past) if past else None,
            exclude=self._stated,
            shown=past.get("shown"),
            shown_time=past.get("shown_time"),
            user_vector=self.listeners.vector_UK[user_N] if knows_users else None,
        )

    def _remember(self, heard: DayPlays) -> None:
        """Add today's (user, item) or (user, creator) keys to those that slates must avoid, sorted;
        only where there is such a rule."""
        if self.exclude == "none":
            return
        thing_P = heard.item_P if self.exclude == "seen" else self.catalogue.creator_I[heard.item_P]
        key = distinct_keys(heard.user_P.astype(np.int64) * len(self.catalogue) + thing_P)
        at = np.searchsorted(self.known_keys, key)
        if len(self.known_keys):
            new = self.known_keys[np.minimum(at, len(self.known_keys) - 1)] != key
            key = key[new]
            at = at[new]
        self.known_keys = np.insert(self.known_keys, at, key)

    def _excluded(self, user_N: Int) -> tuple[Int, Int]:
        """Items that the slates of these users must not hold: offsets [N + 1] and item rows."""
        n_items = len(self.catalogue)
        low_N = np.searchsorted(self.known_keys, user_N * n_items)
        high_N = np.searchsorted(self.known_keys, (user_N + 1) * n_items)
        thing = self.known_keys[ranges(low_N, high_N - low_N)] % n_items
        if self.exclude == "seen":
            return np.concatenate([[0], np.cumsum(high_N - low_N)]), thing
        works = self.catalogue.count_C[thing]
        item = ranges(self.catalogue.first_C[thing], works)
        owner = np.repeat(np.repeat(np.arange(len(user_N)), high_N - low_N), works)
        out = (
            self.catalogue.release_I[item] <= self.day
        )  # items that are not released yet must not be named
        per_user = np.bincount(owner[out], minlength=len(user_N))
        return np.concatenate([[0], np.cumsum(per_user)]), item[out]
