"""A simulated service with a known long-term truth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import NDArray

from longplay.decisions import Adaptive, Contexts, Decisions, Policy
from longplay.errors import ConfigError, DataError
from longplay.lake import Lake
from longplay.lake.schema import TIME, empty
from longplay.world.catalogue import START, Catalogue, make_catalogue
from longplay.world.config import WorldConfig
from longplay.world.dynamics import Plays, Shown, live, visit_seconds, visitors, wake
from longplay.world.listeners import State, first_state, make_listeners
from longplay.world.log import DayPlays, Recent, events_of_day, midnight_us, ragged_ids, ranges
from longplay.world.luck import Luck
from longplay.world.truth import Touches, true_value

if TYPE_CHECKING:
    from longplay.signals.signal import Signal

Int = NDArray[np.int64]
Float = NDArray[np.float64]

_EXCLUDE = ("none", "seen", "creator")


class World:
    """A service of `users` listeners and `items` items that lives day by day under the policies it is given.

    Everything follows from (users, items, seed, config, the policies run so far). Adding users
    changes nobody else's traits and luck.

    Attributes:
        now: UTC midnight up to which the world has lived. catalogue, listeners: the hidden truth.
        policy: the last policy run, as adapted so far; `world.run(world.policy, n)` goes on with it.
        state: habits and who is still there, as of `now`.

    >>> world = World(users=50, items=60, seed=7)
    >>> lake = world.run(None, days=2)          # no policy: nothing is shown
    >>> world.now.isoformat(), lake.decisions.height
    ('2026-01-03T00:00:00+00:00', 0)
    """

    def __init__(self, users: int = 5_000, items: int = 2_000, seed: int = 7, config: WorldConfig | None = None, exclude: str = "none") -> None:
        """`exclude`: what slates must not hold: "none", items already "seen" (played), or all items of a "creator" already played."""
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
        self.state: State = first_state(self.listeners, self.catalogue, seed, self.config)
        self.policy: Policy | None = None
        self.user_ids = pl.select((pl.lit("u") + pl.int_range(users).cast(pl.String).str.zfill(7)).alias("user_id"))["user_id"]
        self._luck = Luck(seed)
        self._day = 0
        self._lake = Lake.memory()
        self._played: list[DayPlays] = []
        self._known_keys = np.empty(0, dtype=np.int64)

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
        """The items table, as a policy may see it."""
        return self.catalogue.frame

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
        events, contexts, decisions = [], [], []
        for done in range(1, days + 1):
            today, asked, said = self._one_day(policy, ring)
            events.append(today)
            if said is not None and asked is not None:
                contexts.append(asked.frame)
                decisions.append(said.frame)
            if isinstance(policy, Adaptive):
                policy = policy.adapt(self.items, today)
            if progress is not None:
                progress(done, days)
        self.policy = policy
        self._lake.append(
            f"world-{self._day - days}-{self._day}",
            events=pl.concat(events),
            contexts=pl.concat(contexts) if contexts else None,
            decisions=pl.concat(decisions) if decisions else None,
            items=self.items,
            watermark=self.now,
        )
        return self.lake

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
            self.listeners, self.catalogue, self.state, touches, user_N, item_NS, signal, self._day, self._luck, self.config, replicates
        )

    def _one_day(self, policy: Policy | None, ring: Recent | None) -> tuple[pl.DataFrame, Contexts | None, Decisions | None]:
        """Live one day: its events, what the policy was asked and what it said."""
        luck = self._luck.on(np.arange(len(self.user_ids)), self._day)
        morning = wake(self.state, self.config)
        active_U = visitors(self.listeners, morning, luck, self._day, self.config)
        user_N = np.flatnonzero(active_U)
        second_N = visit_seconds(self.listeners, luck, user_N)
        shown = asked = said = None
        if policy is not None and len(user_N):
            asked = self._contexts(policy, ring, user_N, second_N)
            said = policy.decide(asked, np.random.default_rng([self.seed, 2, self._day]))
            if not said.frame["context_id"].equals(asked.frame["context_id"]):
                raise DataError(f"{policy.name}: its decisions are not one per context in the contexts' order; decide() must keep the rows")
            shown = Shown(user_N, self.catalogue.index.slate_rows(said.slates))
        self.state, plays = live(self.listeners, self.catalogue, morning, active_U, shown, luck, self.config)
        events = events_of_day(self._day, user_N, second_N, plays, luck, self.user_ids, self.catalogue, said)
        self._played.append(DayPlays(self._day, plays.row_P.astype(np.int32), plays.item_P.astype(np.int32)))
        if ring is not None:
            ring.add(plays.row_P, plays.item_P)
        self._remember(plays)
        self._day += 1
        return events, asked, said

    def _contexts(self, policy: Policy, ring: Recent | None, user_N: Int, second_N: Int) -> Contexts:
        times = pl.Series("time", midnight_us(self._day) + second_N * 1_000_000).cast(TIME)
        slots = getattr(policy, "slate", 5)
        nothing = pl.Series("none", [[]], dtype=pl.List(pl.String)).new_from_index(0, len(user_N))
        history = nothing if ring is None else ragged_ids(self.catalogue.index.ids, *ring.of_users(user_N))
        exclusions = nothing if self.exclude == "none" else ragged_ids(self.catalogue.index.ids, *self._excluded(user_N))
        return Contexts.of(self.user_ids.gather(user_N), times, slots=slots, history=history, exclusions=exclusions)  # pyright: ignore[reportArgumentType]

    def _remember(self, plays: Plays) -> None:
        """Keep (user, item) or (user, creator) keys of what was played, sorted; only if slates must avoid them."""
        if self.exclude == "none":
            return
        thing_P = plays.item_P if self.exclude == "seen" else self.catalogue.creator_I[plays.item_P]
        key = np.unique(plays.row_P * len(self.catalogue) + thing_P)
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
