"""Families of outcomes: how an expected outcome follows from a sum of effects.

Both links are canonical, so one fit serves both: with theta = link(expected), the loss of an outcome y
is cumulant(theta) - y theta, and the information about theta is the variance of y.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import special

from longplay.arrays import Float

LARGEST_LOG = 30.0  # log of the largest expected outcome


@dataclass(frozen=True)
class Family:
    """A family of outcomes and its canonical link.

    Attributes:
        name: of the family.
        link: expected outcome -> theta.
        mean: theta -> expected outcome.
        variance: expected outcome -> variance, up to the dispersion; also the slope of `mean`.
        cumulant: theta -> the loss where nothing happens.
    """

    name: str
    link: Callable[[Float], Float]
    mean: Callable[[Float], Float]
    variance: Callable[[Float], Float]
    cumulant: Callable[[Float], Float]

    def loss(self, theta_N: Float, y_N: Float) -> Float:
        """Half the deviance of each outcome, but for a constant, [N]."""
        return self.cumulant(theta_N) - y_N * theta_N


def _logit(mean: Float) -> Float:
    return special.logit(np.clip(mean, 1e-6, 1 - 1e-6))


def _binary_variance(mean: Float) -> Float:
    return mean * (1 - mean)


def _log(mean: Float) -> Float:
    return np.log(np.maximum(mean, 1e-9))


def _exp(theta: Float) -> Float:
    return np.exp(np.minimum(theta, LARGEST_LOG))


def _softplus(theta: Float) -> Float:
    # several times faster than np.logaddexp
    return np.maximum(theta, 0.0) + np.log1p(np.exp(-np.abs(theta)))


def _itself(mean: Float) -> Float:
    return mean


BINOMIAL = Family("binomial", _logit, special.expit, _binary_variance, _softplus)
POISSON = Family("quasi-Poisson", _log, _exp, _itself, _exp)
