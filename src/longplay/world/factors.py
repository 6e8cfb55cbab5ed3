"""What a service knows of tastes: noisy factors of users and items, as a recommender's own model has
them.

A vector is the standardised taste, blurred by noise of its own and turned by a random rotation that
users and items share. So the products of users and items are those before the rotation, and no
coordinate is a genre. Nothing else that is hidden is in a vector.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from longplay.arrays import Float
from longplay.world.luck import Luck, Stream
from longplay.world.parameters import WorldConfig

_DAY = -3  # of the noise: before the traits of users (-1) and their first state (-2)
_LEAST_SPREAD = 1e-6  # a coordinate that varies less is taken to be constant


def standardised(taste_RD: NDArray[np.floating], reference_RD: NDArray[np.floating]) -> Float:
    """Coordinates less their mean, over their standard deviation, both taken in a reference; 0 where
    the reference does not vary. [R, D].

    >>> standardised(np.array([[3.0, 1.0]]), np.array([[1.0, 1.0], [2.0, 1.0], [3.0, 1.0]])).round(3)
    array([[1.225, 0.   ]])
    """
    mean_D = reference_RD.mean(axis=0, dtype=np.float64)
    spread_D = reference_RD.std(axis=0, dtype=np.float64)
    varies_D = spread_D > _LEAST_SPREAD
    return np.where(varies_D, (taste_RD - mean_D) / np.where(varies_D, spread_D, 1.0), 0.0)


def known_factors(z_RD: Float, stream: Stream, seed: int, config: WorldConfig) -> Float:
    """What the service knows of standardised tastes: `known` of them and the rest of noise, in
    variance, rotated. [R, D]; no columns where nothing is known.

    Row r depends on its taste and on (seed, r) alone, so that further rows do not change it.

    Args:
        z_RD: standardised tastes.
        stream: of the noise.
        seed: of the world.
        config: the world's numbers.
    """
    rows, genres = z_RD.shape
    if config.known == 0:
        return np.zeros((rows, 0))
    luck = Luck(seed).on(np.arange(rows), day=_DAY)
    noise_RD = luck.normal(stream, np.arange(genres)[None, :])
    factor_RD = config.known * z_RD + np.sqrt(1.0 - config.known**2) * noise_RD
    # einsum, because a product of matrices may round a row differently when there are more rows
    return np.einsum("rd,dk->rk", factor_RD, rotation(genres, seed))


def rotation(genres: int, seed: int) -> Float:
    """The random orthogonal matrix of a world, [D, D], uniform over all of them (Mezzadri 2007,
    arXiv:math-ph/0609050)."""
    normal_DD = np.random.default_rng([seed, 7]).normal(size=(genres, genres))
    q_DD, r_DD = np.linalg.qr(normal_DD)
    return q_DD * np.sign(np.diag(r_DD))
