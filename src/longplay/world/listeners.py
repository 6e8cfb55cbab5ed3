"""Who listens: static traits, and the state that days change."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, expit, logit

from longplay.world.catalogue import Catalogue
from longplay.world.config import WorldConfig
from longplay.world.luck import DayLuck, Luck, Stream

Float = NDArray[np.float64]
Int = NDArray[np.int64]
Bool = NDArray[np.bool_]

NOBODY = -1  # an empty habit slot


@dataclass(frozen=True, eq=False)
class Listeners:
    """Static traits of U users; row u depends on (seed, u) alone, so adding users changes nobody.

    Attributes:
        taste_UD: unit taste vectors, >= 0. genre_cdf_UD: cumulative chances of exploring each genre.
        activity_U: logit of the daily chance of a visit without habits. weekend_U: how the week swings it (-1..1).
        churn_U: daily chance of leaving without habits. click_U: odds multiplier of playing what is shown.
        hour_z_U: usual time of the visit: logit of its place between 6:00 and 20:00 UTC.
    """

    taste_UD: Float
    genre_cdf_UD: Float
    activity_U: Float
    weekend_U: Float
    churn_U: Float
    click_U: Float
    hour_z_U: Float

    def __len__(self) -> int:
        return len(self.activity_U)

    def take(self, rows: NDArray[np.integer]) -> Self:
        """These rows, in that order, repeats allowed (virtual copies of users)."""
        return type(self)(**{one.name: getattr(self, one.name)[rows] for one in fields(self)})


@dataclass(frozen=True, eq=False)
class State:
    """What days change, for R agents with M habit slots each; arrays are never written to once in a state.

    Attributes:
        alive_R: False once churned, for good.
        creator_RM: creator number of each habit slot, -1 empty. stock_RM: habit stock, >= 0.
        satiety_RM: recent organic days with that creator, decayed.
    """

    alive_R: Bool
    creator_RM: NDArray[np.int32]
    stock_RM: NDArray[np.float32]
    satiety_RM: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.alive_R)

    def take(self, rows: NDArray[np.integer]) -> Self:
        """These rows, in that order, repeats allowed (virtual copies of users)."""
        return type(self)(**{one.name: getattr(self, one.name)[rows] for one in fields(self)})


def make_listeners(users: int, seed: int, config: WorldConfig) -> Listeners:
    """The traits of `users` users drawn from (config, seed, user)."""
    luck = Luck(seed).on(np.arange(users), day=-1)
    genres = np.arange(config.genres)[None, :]
    # a few strong tastes per user: exponentials to the third power, as peaked as a Dirichlet(0.3)
    interest_UD = (-np.log(luck.uniform(Stream.TRAIT, genres))) ** 3 / np.sqrt(genres + 1.0) + 1e-9
    chance_UD = interest_UD / interest_UD.sum(axis=1, keepdims=True)
    z = luck.normal(Stream.TRAIT, 100 + np.arange(4)[None, :])
    mean, shape = config.churn, config.churn_shape
    churn_U = betaincinv(shape, shape * (1 / mean - 1), luck.uniform(Stream.TRAIT, 200)) if mean > 0 else np.zeros(users)
    return Listeners(
        taste_UD=np.sqrt(chance_UD),
        genre_cdf_UD=np.cumsum(chance_UD, axis=1),
        activity_U=config.activity + config.activity_spread * z[:, 0],
        weekend_U=np.tanh(z[:, 1]),
        churn_U=churn_U,
        click_U=np.exp(0.4 * z[:, 2]),
        hour_z_U=0.5 + z[:, 3],
    )


def first_state(listeners: Listeners, catalogue: Catalogue, seed: int, config: WorldConfig) -> State:
    """Everyone alive, with a few habits that began before the log does."""
    n, slots = len(listeners), config.habit_slots
    luck = Luck(seed).on(np.arange(n), day=-2)
    k = np.arange(slots)[None, :]
    has_UM = luck.uniform(Stream.START, k) < config.start_habits / slots
    creator_UM = np.full((n, slots), NOBODY, dtype=np.int32)
    stock_UM = np.zeros((n, slots), dtype=np.float32)
    for slot in range(slots):
        creator_U = explore(listeners, catalogue, luck, slot)
        known_U = (creator_UM == creator_U[:, None]).any(axis=1)
        keep_U = has_UM[:, slot] & ~known_U & (creator_U >= 0)
        creator_UM[keep_U, slot] = creator_U[keep_U]
        stock_UM[keep_U, slot] = (-0.5 * np.log(luck.uniform(Stream.START, 100 + slot)))[keep_U]
    stock_UM = np.minimum(stock_UM, np.float32(config.habit_limit))
    return State(np.ones(n, dtype=bool), creator_UM, stock_UM, np.zeros((n, slots), dtype=np.float32))


def explore(listeners: Listeners, catalogue: Catalogue, luck: DayLuck, k: int = 0) -> Int:
    """A creator per listener by taste x fame, as met outside any slate; -1 where the genre is empty; shape [R]."""
    u_R = luck.uniform(Stream.GENRE, k)[:, None] * listeners.genre_cdf_UD[:, -1:]
    genre_R = np.minimum((u_R >= listeners.genre_cdf_UD).sum(axis=1), listeners.genre_cdf_UD.shape[1] - 1)
    return catalogue.creator_by_fame(genre_R, luck.uniform(Stream.CREATOR, k))


def play_chance(listeners: Listeners, catalogue: Catalogue, user_R: Int, item_R: Int, slot_R: Int, config: WorldConfig) -> Float:
    """Chance that each shown item is played: appeal x taste match (as odds), times the attention its position gets; shape [R]."""
    match_R = np.einsum("rd,rd->r", listeners.taste_UD[user_R], catalogue.taste_ID[item_R])
    odds_R = logit(catalogue.appeal_I[item_R]) + np.log(listeners.click_U[user_R]) + 2.5 * (match_R - 1.0)
    return expit(odds_R) / (1.0 + config.position_decay * slot_R)
