"""A simulated service with a known long-term truth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from longplay.decisions import Adaptive, Contexts, Decisions, Policy
from longplay.errors import ConfigError, DataError
from longplay.estimate import Estimate
from longplay.lake import Lake
from longplay.lake.schema import TIME, empty
from longplay.world.catalogue import START, Catalogue, Market, make_catalogue
from longplay.world.config import WorldConfig, named_world
from longplay.world.dynamics import HOME, Plays, Shown, live, visitors, wake
from longplay.world.listeners import State, first_state, make_listeners, visit_seconds
from longplay.world.log import DayPlays, Recent, events_of_day, midnight_us, ragged_ids, ranges
from longplay.world.luck import Luck
from longplay.world.surfaces import house_decisions, house_lists, visit_ids
from longplay.world.truth import Touches, true_value

if TYPE_CHECKING:
    from longplay.signals.signal import Signal

Int = NDArray[np.int64]
Float = NDArray[np.float64]

_EXCLUDE = ("none", "seen", "creator")
_FLUSH_ROWS = 2_000_000  # rows of events kept back before they go to the lake


@dataclass
class _Batch:
    """Tables of days not yet in the lake."""

    first_day: int
    events: list[pl.DataFrame] = field(default_factory=list)
    contexts: list[pl.DataFrame] = field(default_factory=list)
    decisions: list[pl.DataFrame] = field(default_factory=list)

    def rows(self) -> int:
        return sum(one.height for one in self.events)


class World:
    """A service of `users` listeners and `items` items that lives day by day under the policies it is given.

    Everything follows from (users, items, seed, config, the policies run so far). Adding users
    changes nobody else's traits, luck or slates, as long as the policy does not mix users.

    Attributes:
        now: UTC midnight up to which the world has lived. catalogue, listeners: the hidden truth.
        policy: the last policy run, as adapted so far; `world.run(world.policy, n)` goes on with it.
        state: habits and who is still there, as of `now`.

    >>> world = World(users=50, items=60, seed=7)
    >>> lake = world.run(None, days=2)          # no policy: nothing is shown unasked
    >>> world.now.isoformat(), lake.decisions["surface"].unique().to_list()
    ('2026-01-03T00:00:00+00:00', ['search'])
    """

    def __init__(
        self,
        users: int = 5_000,
        items: int = 2_000,
        seed: int = 7,
        config: WorldConfig | None = None,
        exclude: str = "none",
        folder: str | Path | None = None,
    ) -> None:
        """A new world on its first day.

        Args:
            exclude: what slates must not hold: "none", items already "seen" (engaged with), or all items of a "creator" already engaged with.
            folder: where the log is kept (Delta Lake; must hold no lake yet); default in memory. For worlds of more than about 30,000 users.
        """
        if users < 1 or users > 10_000_000:
            raise ConfigError(f"World: users={users} given, expected 1 to 10,000,000")
        if items < 1 or items > 1_000_000:
            raise ConfigError(f"World: items={items} given, expected 1 to 1,000,000")
        if exclude not in _EXCLUDE:
            raise ConfigError(f"World: exclude={exclude!r} given, expected one of {', '.join(_EXCLUDE)}")
        self.config = WorldConfig() if config is None else config
        self.seed = seed
        self.exclude = exclude
        self.catalogue: Catalogue = make_catalogue(items, seed, self.config)
        self.listeners = make_listeners(users, seed, self.config)
        self._market: Market = self.catalogue.market(0)
        self.state: State = first_state(self.listeners, self._market, seed, self.config)
        self.policy: Policy | None = None
        self.user_ids = pl.select((pl.lit("u") + pl.int_range(users).cast(pl.String).str.zfill(7)).alias("user_id"))["user_id"]
        self._number_U = np.arange(users)  # who a row is: what luck is keyed by
        self._luck = Luck(seed)
        self._day = 0
        self._lake = Lake.memory() if folder is None else Lake.open(folder)
        if folder is not None and self._lake.key[1]:
            raise ConfigError(f"World: the folder {folder} holds a lake already; give a new or empty one")
        self._played: list[DayPlays] = []
        self._known_keys = np.empty(0, dtype=np.int64)

    @classmethod
    def named(
        cls, name: str, *, users: int | None = None, items: int | None = None, seed: int = 7, exclude: str = "none", folder: str | Path | None = None
    ) -> Self:
        """One of the worlds of docs/worlds.md: default, clickbait, aligned, null, gamed, drift, cold or tiny, at its own size or the one given.

        >>> World.named("tiny")
        World(300 users (300 alive), 120 items, seed 7, 2026-01-01)
        """
        one = named_world(name)
        return cls(one.users if users is None else users, one.items if items is None else items, seed, WorldConfig.of(one.numbers), exclude, folder)

    @property
    def now(self) -> datetime:
        """UTC midnight that ends the last simulated day."""
        return START + timedelta(days=self._day)

    @property
    def users(self) -> pl.DataFrame:
        """user_id and whether the user is still there."""
        return pl.DataFrame({"user_id": self.user_ids, "alive": self.state.alive_R})

    @property
    def items(self) -> pl.DataFrame:
        """The items table, as a policy may see it: what has been released."""
        out_I = self.catalogue.release_I <= self._day
        return self.catalogue.frame if out_I.all() else self.catalogue.frame.filter(pl.Series(out_I))

    @property
    def lake(self) -> Lake:
        """The full history up to `now`, a fixed view: later runs do not change it."""
        return self._lake.before(self.now)

    def __repr__(self) -> str:
        alive = int(self.state.alive_R.sum())
        return f"World({len(self.user_ids):,} users ({alive:,} alive), {len(self.catalogue):,} items, seed {self.seed}, {self.now.date()})"

    def run(self, policy: Policy | None, days: int, progress: Callable[[int, int], None] | None = None) -> Lake:
        """Live `days` more days under `policy` and return the full history so far.

        An `Adaptive` policy is given the catalogue at once and, at every midnight, the day's events
        (its last version is `world.policy`). With `policy=None` nothing is shown: the no-exposure path.

        Args:
            progress: called after each day with (days done, days).
        """
        if days < 1:
            raise ConfigError(f"World.run: days={days} given, expected at least 1")
        if isinstance(policy, Adaptive):
            policy = policy.adapt(self.items, empty("events"))
        ring = Recent.of(self._played, len(self.user_ids), policy.history) if policy is not None and policy.history > 0 else None
        batch = _Batch(self._day)
        for done in range(1, days + 1):
            today = self._one_day(policy, ring, batch)
            if isinstance(policy, Adaptive):
                policy = policy.adapt(self.items, today)
            if done == days or batch.rows() > _FLUSH_ROWS:
                self._append(batch)
                batch = _Batch(self._day)
            if progress is not None:
                progress(done, days)
        self.policy = policy
        return self.lake

    def _append(self, batch: _Batch) -> None:
        self._lake.append(
            f"world-{batch.first_day}-{self._day}",
            events=pl.concat(batch.events),
            contexts=pl.concat(batch.contexts) if batch.contexts else None,
            decisions=pl.concat(batch.decisions) if batch.decisions else None,
            items=self.items,
            watermark=self.now,
        )

    def true_value(self, users: Sequence[str] | pl.Series, items: pl.Series | Sequence[Sequence[str]], signal: Signal, replicates: int = 8) -> Float:
        """True value of showing each item to its user now, alone in first position, shape [N, S], in the signal's unit.

        The expected outcome shown minus not shown when nothing is shown afterwards, from
        `replicates` pairs of virtual copies of the user that share their luck; see `world.truth`.

        Args:
            users: N user ids (repeats allowed). items: N lists of S item ids.
            signal: its measure is days_with("creator"), active_days or returned.
        """
        names = pl.Series("user_id", users, dtype=pl.String)
        user_N = names.str.strip_prefix("u").cast(pl.Int64, strict=False).fill_null(-1).to_numpy()
        if ((user_N < 0) | (user_N >= len(self.user_ids))).any():
            bad = names[int(np.flatnonzero((user_N < 0) | (user_N >= len(self.user_ids)))[0])]
            raise DataError(f"true_value: user {bad!r} is not in this world of {len(self.user_ids):,} users; take ids from world.users")
        item_NS = self.catalogue.index.slate_rows(pl.Series("slate", items, dtype=pl.List(pl.String)))
        if len(item_NS) != len(user_N):
            raise DataError(f"true_value: {len(user_N)} users but {len(item_NS)} lists of items; expected one list each")
        touches = Touches.of(self._played, self.catalogue)
        return true_value(
            self.listeners, self._open(), self.state, touches, user_N, item_NS, signal, self._day, self._luck, self.config, replicates
        )

    def _open(self) -> Market:
        """What can be found today."""
        if self._day >= self._market.until:
            self._market = self.catalogue.market(self._day)
        return self._market

    def _one_day(self, policy: Policy | None, ring: Recent | None, batch: _Batch) -> pl.DataFrame:
        """Live one day: its tables go to `batch`, its events are returned."""
        day, config, market = self._day, self.config, self._open()
        luck = self._luck.on(self._number_U, day)
        taste_RD = self.listeners.taste(day, config)
        morning = wake(self.state, config)
        active_U = visitors(self.listeners, morning, luck, day, config)
        user_N = np.flatnonzero(active_U)
        second_N = visit_seconds(self.listeners, luck, user_N)
        shown = house_lists(self.listeners, taste_RD, market, user_N, day, luck, config, shelf=policy is not None)
        for one in shown:
            if len(one.row_N):
                second_R = second_N[np.searchsorted(user_N, one.row_N)]
                asked, said = house_decisions(one, market, day, second_R, self.user_ids, self._version)
                batch.contexts.append(asked.frame)
                batch.decisions.append(said.frame)
        if policy is not None and len(user_N):
            asked = self._contexts(policy, ring, user_N, second_N)
            said = policy.decide(asked, np.random.default_rng([self.seed, 2, day]))
            batch.contexts.append(asked.frame)
            batch.decisions.append(said.frame)
            shown.append(Shown(HOME, user_N, self._slate_rows(policy, asked, said)))
        self.state, plays = live(self.listeners, taste_RD, market, morning, active_U, shown, luck, config)
        left_R = np.flatnonzero(morning.alive_R & ~self.state.alive_R)
        events, heard = events_of_day(
            day, user_N, second_N, plays, left_R, taste_RD, self.listeners.subscriber_U, luck, self.user_ids, market
        )  # fmt: skip
        batch.events.append(events)
        self._played.append(heard)
        if ring is not None:
            ring.add(heard.user_P, heard.item_P)
        self._remember(heard)
        self._day += 1
        return events

    @property
    def _version(self) -> str:
        return f"world-{self.seed}"

    def _slate_rows(self, policy: Policy, asked: Contexts, said: Decisions) -> Int:
        """The item rows of the slates said, checked."""
        if not said.frame["context_id"].equals(asked.frame["context_id"]):
            raise DataError(f"{policy.name}: its decisions are not one per context in the contexts' order; decide() must keep the rows")
        item_NS = self.catalogue.index.slate_rows(said.slates)
        if item_NS.size and self.catalogue.release_I[item_NS].max() > self._day:
            raise DataError(f"{policy.name}: a slate of {self.now:%Y-%m-%d} holds an item that is not released yet; take items from world.items")
        return item_NS

    def _contexts(self, policy: Policy, ring: Recent | None, user_N: Int, second_N: Int) -> Contexts:
        times = pl.Series("time", midnight_us(self._day) + second_N * 1_000_000).cast(TIME)
        slots, names = getattr(policy, "slate", 5), self.user_ids.gather(user_N)
        nothing = pl.Series("none", [[]], dtype=pl.List(pl.String)).new_from_index(0, len(user_N))
        history = nothing if ring is None else ragged_ids(self.catalogue.index.ids, *ring.of_users(user_N))
        exclusions = nothing if self.exclude == "none" else ragged_ids(self.catalogue.index.ids, *self._excluded(user_N))
        return Contexts.of(names, times, slots=slots, history=history, exclusions=exclusions, ids=visit_ids(names, self._day, "h"))

    def _remember(self, heard: DayPlays) -> None:
        """Keep (user, item) or (user, creator) keys of what was played, sorted; only if slates must avoid them."""
        if self.exclude == "none":
            return
        thing_P = heard.item_P if self.exclude == "seen" else self.catalogue.creator_I[heard.item_P]
        key = np.unique(heard.user_P.astype(np.int64) * len(self.catalogue) + thing_P)
        at = np.searchsorted(self._known_keys, key)
        if len(self._known_keys):
            new = self._known_keys[np.minimum(at, len(self._known_keys) - 1)] != key
            key, at = key[new], at[new]
        self._known_keys = np.insert(self._known_keys, at, key)

    def _excluded(self, user_N: Int) -> tuple[Int, Int]:
        """(offsets[N+1], item rows) that the slates of these users must not hold."""
        n_items = len(self.catalogue)
        low_N, high_N = np.searchsorted(self._known_keys, user_N * n_items), np.searchsorted(self._known_keys, (user_N + 1) * n_items)
        thing = self._known_keys[ranges(low_N, high_N - low_N)] % n_items
        if self.exclude == "seen":
            return np.concatenate([[0], np.cumsum(high_N - low_N)]), thing
        works = self.catalogue.count_C[thing]
        owner = np.repeat(np.arange(len(user_N)), high_N - low_N)
        per_user = np.bincount(owner, weights=works, minlength=len(user_N)).astype(np.int64)
        return np.concatenate([[0], np.cumsum(per_user)]), ranges(self.catalogue.first_C[thing], works)
