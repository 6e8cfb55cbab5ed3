"""Who listens: static traits, and the state that days change."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, logit

from longplay.arrays import Bool, Float, Int
from longplay.world.catalogue import Market
from longplay.world.factors import known_factors, standardised
from longplay.world.luck import DayLuck, Luck, Stream
from longplay.world.parameters import WorldConfig

NOBODY = -1  # an empty habit slot
NOTHING = -1  # where fewer items have been shown
SHOWINGS = 100  # the showings that a listener remembers
REFERENCE = 20_000  # users whose tastes say what is usual; they are the same in all worlds
ZONES = (-5, -3, 0, 0, 1, 1, 1, 2, 5, 8)  # users' hours from UTC, equally likely
DAY_S = 86_400
LAST_START_S = 71_000  # a visit that begins later would not end on its UTC day


@dataclass(frozen=True, eq=False)
class Listeners:
    """Fixed traits of U users. Row u depends on (seed, u) alone, so that further users do not
    change the others.

    Attributes:
        taste_UD: unit taste vectors, >= 0; squares are the chances of exploring each genre.
        later_UD: the same of the taste that `drift` moves them to; no columns without drift.
        activity_U: logit of the daily chance of a visit without habits.
        weekend_U: how the week swings it (-1..1).
        churn_U: daily chance of leaving without habits.
        click_U: odds multiplier of playing what is shown.
        novelty_U: log odds by which unknown creators are preferred to known ones.
        zone_U: hours from UTC.
        hour_U: usual second of the UTC day at which the visit begins.
        subscriber_U: whether leaving shows as a `cancel` event.
        self_U: what the user's own liking of each creator is drawn from.
        vector_UK: what the service knows of their taste (`factors`); no columns where it knows
            nothing.
    """

    taste_UD: NDArray[np.float32]
    later_UD: NDArray[np.float32]
    activity_U: Float
    weekend_U: Float
    churn_U: Float
    click_U: Float
    novelty_U: Float
    zone_U: Int
    hour_U: Float
    subscriber_U: Bool
    self_U: NDArray[np.uint64]
    vector_UK: Float

    def __len__(self) -> int:
        return len(self.activity_U)

    def liking(self, row_P: Int, creator_P: Int, config: WorldConfig) -> Float:
        """How much more than by taste alone these agents like these creators (log-normal, mean 1),
        [P]; it never changes."""
        if config.liking_spread == 0:
            return np.ones(len(row_P))
        z_P = DayLuck(self.self_U[row_P]).normal(Stream.LIKING, creator_P)
        return np.exp(config.liking_spread * z_P - config.liking_spread**2 / 2)

    def take(self, rows: NDArray[np.integer]) -> Self:
        """These rows, in that order; rows may repeat, as virtual copies of users do."""
        return type(self)(**{trait.name: getattr(self, trait.name)[rows] for trait in fields(self)})

    def taste(self, day: int, config: WorldConfig) -> NDArray[np.float32]:
        """Unit taste vectors on `day`, shape [U, D]."""
        if config.drift == 0:
            return self.taste_UD
        moved_UD = self.taste_UD + np.float32(config.drift * max(day, 0) / 100) * self.later_UD
        return moved_UD / np.linalg.norm(moved_UD, axis=1, keepdims=True)


@dataclass(frozen=True, eq=False)
class State:
    """What changes from day to day, for R agents with M habit slots each. The arrays of a state are
    never written to.

    Attributes:
        alive_R: False once churned, for good.
        creator_RM: creator number of each habit slot, -1 empty.
        stock_RM: habit stock, >= 0.
        satiety_RM: recent days with that creator, decayed.
        satisfaction_R: what recent plays of slates left behind, decayed; may be negative.
        away_R: days since the last visit; 0 if that was yesterday.
        shown_RK: item rows of the last showings, latest first, -1 empty; no columns where showings
            do not tire.
        shown_age_RK: days since each of them.
    """

    alive_R: Bool
    creator_RM: NDArray[np.int32]
    stock_RM: NDArray[np.float32]
    satiety_RM: NDArray[np.float32]
    satisfaction_R: NDArray[np.float32]
    away_R: NDArray[np.int32]
    shown_RK: NDArray[np.int32] = field(default_factory=lambda: np.zeros((0, 0), dtype=np.int32))
    shown_age_RK: NDArray[np.int16] = field(
        default_factory=lambda: np.zeros((0, 0), dtype=np.int16)
    )

    def __post_init__(self) -> None:
        if self.shown_RK.shape == (0, 0):
            # without showings: a row of nothing for each agent
            nothing = (len(self), 0)
            object.__setattr__(self, "shown_RK", self.shown_RK.reshape(nothing))
            object.__setattr__(self, "shown_age_RK", self.shown_age_RK.reshape(nothing))

    def __len__(self) -> int:
        return len(self.alive_R)

    def take(self, rows: NDArray[np.integer]) -> Self:
        """These rows, in that order; rows may repeat, as virtual copies of users do."""
        return type(self)(**{trait.name: getattr(self, trait.name)[rows] for trait in fields(self)})

    @property
    def habits(self) -> Float:
        """Sum of an agent's habits, [R]."""
        return self.stock_RM.sum(axis=1, dtype=np.float64)


def make_listeners(users: int, seed: int, config: WorldConfig) -> Listeners:
    """The traits of `users` users drawn from (config, seed, user)."""
    luck = Luck(seed).on(np.arange(users), day=-1)
    z = luck.normal(Stream.TRAIT, 100 + np.arange(5)[None, :])
    mean = config.churn
    shape = config.churn_shape
    churn_U = (
        betaincinv(shape, shape * (1 / mean - 1), luck.uniform(Stream.TRAIT, 200))
        if mean > 1e-12
        else np.zeros(users)
    )
    taste_UD = _tastes(luck, 0, config.genres)
    zone_U = np.array(ZONES)[(luck.uniform(Stream.TRAIT, 201) * len(ZONES)).astype(np.int64)]
    return Listeners(
        taste_UD=taste_UD,
        later_UD=_tastes(luck, 300, config.genres)
        if config.drift > 0
        else np.zeros((users, 0), dtype=np.float32),
        activity_U=config.activity + config.activity_spread * z[:, 0],
        weekend_U=np.tanh(0.8 + z[:, 1]),
        churn_U=churn_U,
        click_U=np.exp(0.4 * z[:, 2]),
        novelty_U=config.novelty + config.novelty_spread * z[:, 4],
        zone_U=zone_U,
        hour_U=np.clip(
            (14 + 3 * z[:, 3] - zone_U) % 24 * 3600.0, 0.04 * LAST_START_S, 0.96 * LAST_START_S
        ),
        subscriber_U=luck.uniform(Stream.TRAIT, 202) < config.subscribers,
        self_U=luck.base_R,
        vector_UK=_known(taste_UD, seed, config),
    )


def _known(taste_UD: NDArray[np.float32], seed: int, config: WorldConfig) -> Float:
    """What the service knows of these tastes. They are standardised over users of no world, so that
    further users change nobody's vector."""
    if config.known == 0:
        return np.zeros((len(taste_UD), 0))
    reference_UD = _tastes(Luck(0).on(np.arange(REFERENCE), day=-3), 0, config.genres)
    z_UD = standardised(taste_UD, reference_UD)
    return known_factors(z_UD, Stream.USER_FACTOR, seed, config)


def _tastes(luck: DayLuck, k: int, genres: int) -> NDArray[np.float32]:
    """Unit taste vectors from draws k, k + 1, ... Users have a few strong tastes, as peaked as a
    Dirichlet(0.3)."""
    genre = np.arange(genres)[None, :]
    interest_UD = (-np.log(luck.uniform(Stream.TRAIT, k + genre))) ** 3 / np.sqrt(
        genre + 1.0
    ) + 1e-9
    return np.sqrt(interest_UD / interest_UD.sum(axis=1, keepdims=True)).astype(np.float32)


def first_state(
    listeners: Listeners, number_U: Int, market: Market, seed: int, config: WorldConfig
) -> State:
    """The state on the first day: everyone is alive, with a few habits from before the log.
    `number_U` is each listener's number."""
    n = len(listeners)
    slots = config.habit_slots
    luck = Luck(seed).on(number_U, day=-2)
    k = np.arange(slots)[None, :]
    has_UM = luck.uniform(Stream.START, k) < config.start_habits / slots
    creator_UM = np.full((n, slots), NOBODY, dtype=np.int32)
    stock_UM = np.zeros((n, slots), dtype=np.float32)
    for slot in range(slots):
        creator_U = explore(listeners.taste_UD, market, luck, config, slot)
        known_U = (creator_UM == creator_U[:, None]).any(axis=1)
        keep_U = has_UM[:, slot] & ~known_U & (creator_U >= 0)
        creator_UM[keep_U, slot] = creator_U[keep_U]
        stock_UM[keep_U, slot] = (-0.5 * np.log(luck.uniform(Stream.START, 100 + slot)))[keep_U]
    stock_UM = np.minimum(stock_UM, np.float32(config.habit_limit))
    remembered = (n, SHOWINGS if config.tires else 0)
    away_U = np.minimum(-3.0 * np.log(luck.uniform(Stream.START, 200)), 60.0).astype(np.int32)
    return State(
        np.ones(n, dtype=bool),
        creator_UM,
        stock_UM,
        np.zeros((n, slots), dtype=np.float32),
        np.zeros(n, dtype=np.float32),
        away_U,
        np.full(remembered, NOTHING, dtype=np.int32),
        np.zeros(remembered, dtype=np.int16),
    )


def explore(
    taste_RD: NDArray[np.float32], market: Market, luck: DayLuck, config: WorldConfig, k: int = 0
) -> Int:
    """A creator that each listener meets outside of slates, drawn by taste x fame, or with the chance
    `fashion` by fame alone, [R]; -1 where the genre is empty."""
    cumulative_RD = np.cumsum(taste_RD.astype(np.float64) ** 2, axis=1)
    u_R = luck.uniform(Stream.GENRE, k)[:, None] * cumulative_RD[:, -1:]
    genre_R = np.minimum((u_R >= cumulative_RD).sum(axis=1), taste_RD.shape[1] - 1)
    if config.fashion > 0:
        genre_R = np.where(luck.uniform(Stream.FASHION, k) < config.fashion, -1, genre_R)
    return market.creator_by_fame(genre_R, luck.uniform(Stream.CREATOR, k))


def visit_seconds(listeners: Listeners, luck: DayLuck, row_N: Int) -> Int:
    """The second after midnight (UTC) at which each agent's visit begins, in [0, LAST_START_S],
    [N]."""
    z_N = logit(listeners.hour_U[row_N] / LAST_START_S) + 0.5 * luck.take(row_N).normal(Stream.HOUR)
    return (LAST_START_S / (1.0 + np.exp(-z_N))).astype(np.int64)
