"""The simulated service as a Gymnasium environment: one step is one day, an action is the slate of
that day.

`WorldVectorEnv` lives many listeners at once, `WorldEnv` one. An agent sees what a service sees
(who is here today, the weekday, what was played, how long they were away), never tastes, habits,
satisfaction, depth or appeal. The dynamics are those of `World.run`, draw for draw: `reset(seed=u)`
is listener `u` of `World(users, items, seed, config)`, who lives the same days if shown the same
slates. Importing this module registers `WorldEnv` and `WorldVectorEnv` as "longplay/World-v0".

>>> envs = WorldVectorEnv(3, users=50, items=40, slots=2, days=30)
>>> seen, info = envs.reset(seed=0)
>>> seen, reward, terminated, truncated, info = envs.step(envs.action_space.sample())
>>> seen["history"].shape, reward.shape, info["available"].shape
((3, 10), (3,), (3, 40))
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from longplay.arrays import Bool, Int
from longplay.chance import GAMMA, mix
from longplay.errors import ConfigError, DataError, MissingExtra
from longplay.world.catalogue import START, Catalogue, Market, make_catalogue
from longplay.world.dynamics import HOME, Plays, Shown, coins, live, visitors, wake
from longplay.world.listeners import Listeners, State, first_state, make_listeners
from longplay.world.luck import Luck
from longplay.world.parameters import WorldConfig, named_world
from longplay.world.surfaces import house_lists

try:
    import gymnasium
    from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete
    from gymnasium.vector import AutoresetMode, VectorEnv
    from gymnasium.vector.utils import batch_space
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "gymnasium":
        raise
    raise MissingExtra("longplay.world.gym needs gymnasium: pip install 'longplay[gym]'") from error

Observations = dict[str, NDArray[Any]]

ID = "longplay/World-v0"
LONGEST_AWAY = 10_000  # days; the world counts no longer absence
_REWARDS = ("active", "plays")


def register() -> None:
    """Make `gymnasium.make("longplay/World-v0")` and `gymnasium.make_vec` of it work.

    Importing this module does it too; calling it again changes nothing.
    """
    if ID not in gymnasium.registry:
        gymnasium.register(
            ID,
            entry_point="longplay.world.gym:WorldEnv",
            vector_entry_point="longplay.world.gym:WorldVectorEnv",
        )


class WorldVectorEnv(VectorEnv[Observations, Int, NDArray[Any]]):
    """`num_envs` listeners of one service, each shown a slate a day. A listener's days do not
    depend on the others.

    Action, MultiDiscrete([items] * slots): the item rows of today's slate, first slot first. It
    matters only where `visits` is 1. A slot stays empty where its item is not released yet (see
    `info["available"]`) or already stands further up: a repeated item is shown once. The others
    keep their positions.

    Observation, of the day that the next action is for:
        visits: whether the listener is here today. weekday: 0 is Monday. history: the last
        `history` items played, by whatever way except autoplay, as item row + 1, latest first; 0:
        none. away: whole days between the last visit and today; 0 if that was yesterday.

    Reward: "active": 1.0 on a day with a visit, so that an episode's return is its active days
    (today's slate is paid for by the visits of later days); "plays": how many slots of today's
    slate were played.

    An episode begins on the world's day 0. It is terminated when the listener leaves for good,
    truncated after `days` days. Next-step autoreset: the step after an episode's last ignores the
    action, rewards 0 and begins another listener's episode. Listeners on different days are lived
    one day at a time, so steps become slower, up to `days` groups, once episodes have ended at
    different times.

    `info`: available [N, I], the items released on the observed day; played [N, S], the slots of
    the last slate that were played; each with its mask, as Gymnasium has it.

    Attributes:
        catalogue: the hidden truth, for judging agents, not for them; `catalogue.frame` may be
            shown to them.
        metadata: as Gymnasium has it.
        days: length of an episode.
        reward: what a step is paid, "active" or "plays".
        num_envs: listeners lived side by side.
        single_action_space: a listener's slate.
        single_observation_space: what is seen of a listener.
        action_space: the slates of all listeners.
        observation_space: what is seen of all listeners.
    """

    metadata: dict[str, Any] = {"render_modes": [], "autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(
        self,
        num_envs: int = 1,
        *,
        config: WorldConfig | str = "default",
        users: int = 5_000,
        items: int = 2_000,
        seed: int = 7,
        slots: int = 5,
        days: int = 60,
        history: int = 10,
        reward: str = "active",
    ) -> None:
        """Seats for `num_envs` listeners; call `reset` first.

        Args:
            config: the world's numbers, or the name of a world, e.g. "clickbait".
            users: as of `World`: the catalogue, and the listeners that episodes are of.
            items: as of `World`: the catalogue, and the listeners that episodes are of.
            seed: as of `World`: the catalogue, and the listeners that episodes are of.
            slots: slots of a slate.
            days: length of an episode.
            history: item rows in an observation.
        """
        least = {
            "num_envs": (num_envs, 1),
            "users": (users, 1),
            "items": (items, 1),
            "slots": (slots, 1),
            "days": (days, 2),
            "history": (history, 1),
        }
        for name, (value, low) in least.items():
            if value < low:
                raise ConfigError(
                    f"{type(self).__name__}: {name}={value} given, expected at least {low}"
                )
        if reward not in _REWARDS:
            raise ConfigError(
                f"{type(self).__name__}: reward={reward!r} given, expected one of "
                f"{', '.join(_REWARDS)}"
            )
        self.num_envs = num_envs
        self.days = days
        self.reward = reward
        self._service = _service(
            users,
            items,
            seed,
            WorldConfig.of(named_world(config).numbers) if isinstance(config, str) else config,
        )
        self.single_action_space = MultiDiscrete(np.full(slots, items))
        self.single_observation_space = Dict(
            visits=Discrete(2),
            weekday=Discrete(7),
            history=MultiDiscrete(np.full(history, items + 1)),
            away=Box(0, LONGEST_AWAY, shape=(1,), dtype=np.float32),
        )
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self._first_N: NDArray[np.uint64] | None = None
        self._episode_N = np.zeros(num_envs, dtype=np.uint64)
        self._user_N = np.zeros(num_envs, dtype=np.int64)
        self._key_N = np.zeros(num_envs, dtype=np.uint64)
        self._day_N = np.zeros(num_envs, dtype=np.int64)
        self._done_N = np.zeros(num_envs, dtype=bool)
        self._here_N = np.zeros(num_envs, dtype=bool)
        self._state = self._service.first.take(self._user_N)
        self._history_NH = np.zeros((num_envs, history), dtype=np.int64)

    @property
    def catalogue(self) -> Catalogue:
        """The catalogue, with what is hidden from agents."""
        return self._service.catalogue

    def reset(
        self, *, seed: int | Sequence[int] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observations, dict[str, Any]]:
        """Begin an episode in every environment, and return the first observations.

        Args:
            seed: environment i gets listener `seed + i` (or `seed[i]`): below `users` with the luck
                that listener has in `World.run`, from there on the same listeners with other luck.
                None: each environment's next listener; drawn anew if there was none yet.
            options: none are known.
        """
        super().reset(seed=int(seed) if isinstance(seed, int | np.integer) else None)
        if seed is None and self._first_N is not None:
            self._episode_N += np.uint64(1)
        else:
            self._first_N = self._numbers(
                int(self.np_random.integers(2**32)) if seed is None else seed
            )
            self._episode_N = np.zeros(self.num_envs, dtype=np.uint64)
        self._begin(np.arange(self.num_envs))
        return self._observed(), self._info()

    def step(
        self, actions: Int
    ) -> tuple[Observations, NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """Live a day: observations of the next day, rewards [N], terminated [N], truncated [N] and
        info."""
        if self._first_N is None:
            raise gymnasium.error.ResetNeeded(
                f"{type(self).__name__}: step() before reset(); call reset() first"
            )
        item_NS = self._checked(actions)
        again_N = self._done_N
        played_NS = np.zeros(item_NS.shape, dtype=bool)
        reward_N = np.where(again_N, 0.0, self._here_N)
        for day, rows in self._by_day(np.flatnonzero(~again_N)):
            played_NS[rows] = self._live(day, rows, item_NS[rows])
        if self.reward == "plays":
            reward_N = played_NS.sum(axis=1, dtype=np.float64)
        terminated_N = ~again_N & ~self._state.alive_R
        truncated_N = ~again_N & ~terminated_N & (self._day_N >= self.days)
        self._done_N = terminated_N | truncated_N
        if again_N.any():
            self._episode_N = self._episode_N + again_N.astype(np.uint64)
            self._begin(np.flatnonzero(again_N))
        return (
            self._observed(),
            reward_N,
            terminated_N,
            truncated_N,
            self._info(played_NS, ~again_N),
        )

    def _numbers(self, seed: int | Sequence[int]) -> NDArray[np.uint64]:
        if isinstance(seed, int | np.integer):
            numbers = [int(seed) + number for number in range(self.num_envs)]
        else:
            numbers = [int(environment_seed) for environment_seed in seed]
        if len(numbers) != self.num_envs or min(numbers) < 0:
            raise ConfigError(
                f"{type(self).__name__}.reset: seed={seed!r} given, expected a whole number >= 0, "
                f"or one for each of {self.num_envs} environments"
            )
        return np.array([number % 2**63 for number in numbers], dtype=np.uint64)

    def _checked(self, actions: Int) -> Int:
        item_NS = np.asarray(actions)
        shape = self.action_space.shape
        items = len(self.catalogue)
        if item_NS.shape != shape or not np.issubdtype(item_NS.dtype, np.integer):
            raise DataError(
                f"{type(self).__name__}.step: actions of shape {item_NS.shape} and type "
                f"{item_NS.dtype} given, expected {shape} item rows"
            )
        if not 0 <= item_NS.min() <= item_NS.max() < items:
            raise DataError(
                f"{type(self).__name__}.step: item rows {item_NS.min()} to {item_NS.max()} given, "
                f"expected 0 to {items - 1}"
            )
        return item_NS.astype(np.int64)

    def _by_day(self, rows: Int) -> Iterator[tuple[int, Int]]:
        """The environments `rows`, grouped by the day of their listener."""
        day_R = self._day_N[rows]  # a copy, since living a day moves environments to the next day
        for day in np.unique(day_R):
            yield int(day), rows[day_R == day]

    def _begin(self, rows: Int) -> None:
        """Put a new listener into each of these environments, on the morning of day 0."""
        assert self._first_N is not None
        number_R = _number(self._first_N[rows], self._episode_N[rows])
        users = np.uint64(len(self._service.listeners))
        user_R = (number_R % users).astype(np.int64)
        fate_R = number_R // users
        self._user_N[rows] = user_R
        self._key_N[rows] = np.where(
            fate_R == 0,
            user_R.astype(np.uint64),
            Luck.copies(user_R, (fate_R - np.uint64(1)).astype(np.int64)),
        )
        self._day_N[rows] = 0
        self._done_N[rows] = False
        self._history_NH[rows] = 0
        self._wake(0, rows, self._service.first.take(user_R))

    def _wake(self, day: int, rows: Int, night: State) -> None:
        """Begin the morning of `day` in these environments: habits fade over night, and some
        listeners visit."""
        config = self._service.config
        morning = wake(night, config)
        luck = self._service.luck.on(self._key_N[rows], day)
        self._here_N[rows] = visitors(
            self._service.listeners.take(self._user_N[rows]), morning, luck, day, config
        )
        self._state = _put(self._state, rows, morning)

    def _live(self, day: int, rows: Int, item_RS: Int) -> Bool:
        """Live the rest of `day` in these environments and begin the next morning. Returns which
        slots were played, [R, S]."""
        config = self._service.config
        market = self._service.market(day)
        listeners = self._service.listeners.take(self._user_N[rows])
        state = self._state.take(rows)
        luck = self._service.luck.on(self._key_N[rows], day)
        taste_RD = listeners.taste(day, config)
        visiting = np.flatnonzero(self._here_N[rows])
        shown = house_lists(listeners, taste_RD, market, visiting, day, luck, config, shelf=True)
        home = Shown(HOME, visiting, item_RS[visiting])
        click_HS = coins(listeners, taste_RD, state, market, home, luck, config)[1]
        open_HS = (market.catalogue.release_I[home.item_NS] <= day) & ~_repeated(home.item_NS)
        shown.append(replace(home, play_NS=click_HS & open_HS))
        next_state, plays = live(
            listeners, taste_RD, market, state, self._here_N[rows], shown, luck, config
        )
        self._history_NH[rows] = _pushed(self._history_NH[rows], plays)
        self._day_N[rows] = day + 1
        self._wake(day + 1, rows, next_state)
        played_RS = np.zeros(item_RS.shape, dtype=bool)
        listed = plays.where(plays.place_P == HOME)
        played_RS[listed.row_P, listed.slot_P] = True
        return played_RS

    def _observed(self) -> Observations:
        return {
            "visits": self._here_N.astype(np.int64),
            "weekday": (START.weekday() + self._day_N) % 7,
            "history": self._history_NH.copy(),
            "away": np.minimum(self._state.away_R, LONGEST_AWAY).astype(np.float32)[:, None],
        }

    def _info(self, played_NS: Bool | None = None, lived_N: Bool | None = None) -> dict[str, Any]:
        available_NI = self.catalogue.release_I[None, :] <= self._day_N[:, None]
        info: dict[str, Any] = {
            "available": available_NI,
            "_available": np.ones(self.num_envs, dtype=bool),
        }
        if played_NS is None or lived_N is None:
            return info
        return info | {"played": played_NS, "_played": lived_N}


class WorldEnv(gymnasium.Env[dict[str, Any], Int]):
    """One listener of the service, shown a slate a day. Spaces, rewards and episodes are those of
    `WorldVectorEnv` without the axis of environments."""

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012

    def __init__(
        self,
        *,
        config: WorldConfig | str = "default",
        users: int = 5_000,
        items: int = 2_000,
        seed: int = 7,
        slots: int = 5,
        days: int = 60,
        history: int = 10,
        reward: str = "active",
    ) -> None:
        """An environment with one listener; call `reset` first. Arguments as of `WorldVectorEnv`."""
        self._vector_env = WorldVectorEnv(
            1,
            config=config,
            users=users,
            items=items,
            seed=seed,
            slots=slots,
            days=days,
            history=history,
            reward=reward,
        )
        self.action_space = self._vector_env.single_action_space
        self.observation_space = self._vector_env.single_observation_space
        self._begun = False
        self._over = True

    @property
    def catalogue(self) -> Catalogue:
        """The catalogue, with what is hidden from agents."""
        return self._vector_env.catalogue

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Begin the first day of listener `seed`, without a seed that of the next listener; see
        `WorldVectorEnv.reset`."""
        super().reset(seed=seed)
        seen, info = self._vector_env.reset(
            seed=int(self.np_random.integers(2**32)) if seed is None and not self._begun else seed
        )
        self._begun = True
        self._over = False
        return _first(seen), _only(info)

    def step(self, action: Int) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Live a day: observation of the next day, reward, terminated, truncated and info."""
        if self._over:
            raise gymnasium.error.ResetNeeded(
                "WorldEnv: step() without an episode; call reset() first"
            )
        seen, reward_N, terminated_N, truncated_N, info = self._vector_env.step(
            np.asarray(action)[None]
        )
        terminated = bool(terminated_N[0])
        truncated = bool(truncated_N[0])
        self._over = terminated or truncated
        return _first(seen), float(reward_N[0]), terminated, truncated, _only(info)


@dataclass(frozen=True, eq=False)
class _Service:
    """What all environments share; nothing in it changes."""

    config: WorldConfig
    catalogue: Catalogue
    listeners: Listeners
    first: State
    luck: Luck

    def market(self, day: int) -> Market:
        """The released part of the catalogue on `day`."""
        out_I = self.catalogue.release_I <= day
        return _market(self.catalogue, int(self.catalogue.release_I[out_I].max()))


@lru_cache(maxsize=4)
def _service(users: int, items: int, seed: int, config: WorldConfig) -> _Service:
    """The service of these arguments. It is cached, so that environments that are made separately
    share it."""
    catalogue = make_catalogue(items, seed, config)
    listeners = make_listeners(users, seed, config)
    return _Service(
        config,
        catalogue,
        listeners,
        first_state(listeners, np.arange(users), catalogue.market(0), seed, config),
        Luck(seed),
    )


@lru_cache(maxsize=128)
def _market(catalogue: Catalogue, day: int) -> Market:
    return catalogue.market(day)


def _number(first_N: NDArray[np.uint64], episode_N: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The seed of each environment's current episode, [N].

    The first episode has the environment's own seed; later ones have seeds mixed from it.
    """
    with np.errstate(over="ignore"):
        later_N = mix(mix(first_N + GAMMA) + episode_N * GAMMA) >> np.uint64(1)
    return np.where(episode_N == 0, first_N, later_N)


def _put(into: State, rows: Int, part: State) -> State:
    """`into` with these rows replaced; row numbers ascend."""
    if len(rows) == len(into):
        return part
    columns = {
        part_field.name: getattr(into, part_field.name).copy() for part_field in fields(into)
    }
    for name, column in columns.items():
        column[rows] = getattr(part, name)
    return State(**columns)


def _pushed(history_RH: Int, plays: Plays) -> Int:
    """Histories with these plays added at the front. Histories hold item row + 1, latest first, and
    0 for none; plays are ordered by row and time.

    >>> none = np.zeros(3, dtype=np.int64)
    >>> _pushed(np.array([[8, 0], [9, 7]]), Plays(np.array([0, 0, 0]), np.array([3, 4, 5]), none, none)).tolist()
    [[6, 5], [9, 7]]
    """
    length = history_RH.shape[1]
    count_R = np.bincount(plays.row_P, minlength=len(history_RH))
    from_RH = np.arange(length) - count_R[:, None]
    pushed_RH = np.where(
        from_RH >= 0, np.take_along_axis(history_RH, np.maximum(from_RH, 0), axis=1), 0
    )
    back_P = np.cumsum(count_R)[plays.row_P] - 1 - np.arange(len(plays))
    late_P = back_P < length
    pushed_RH[plays.row_P[late_P], back_P[late_P]] = plays.item_P[late_P] + 1
    return pushed_RH


def _repeated(item_NS: Int) -> Bool:
    """Whether each slot holds an item that stands further up in its slate, [N, S].

    >>> _repeated(np.array([[4, 4, 2, 4]])).tolist()
    [[False, True, False, True]]
    """
    same_NSS = item_NS[:, :, None] == item_NS[:, None, :]
    return np.tril(same_NSS, -1).any(axis=2)


def _first(seen: Observations) -> dict[str, Any]:
    return {name: values[0] for name, values in seen.items()}


def _only(info: dict[str, Any]) -> dict[str, Any]:
    return {name: values[0] for name, values in info.items() if not name.startswith("_")}


register()
