"""Ridge regression on features of a pair: rates of an item, factors of item and user, and a place.

Given the item, every feature is affine in the *state* of a visit: (1, the user's factors, log(1 + slot)).
So a prediction for all pairs of visits and items is one matrix product, and so is its variance.

Axes: L items (or creators), N pairs, F features, Z numbers of a state, V of a user's factors, W of an
item's, R rates of an item.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from longplay.arrays import Float, Int

PENALTIES = (1.0, 10.0, 100.0, 1e3, 1e4, 1e5)  # tried, on features of variance 1
FOLDS = 5  # of users
BLOCK = 50_000  # pairs at a time: bounds memory


def states(user_NV: Float, slot_N: Int) -> Float:
    """The state of each visit: 1, the user's factors and the place, [N, V + 2].

    >>> states(np.array([[0.5, -1.0]]), np.array([0]))
    array([[ 1. ,  0.5, -1. ,  0. ]])
    """
    return np.column_stack([np.ones(len(user_NV)), user_NV, np.log1p(slot_N)])


def designs(rate_LR: Float, item_LW: Float, width: int) -> Float:
    """What turns a state into the features of a pair: features = design of the item @ state, [L, F, Z].

    The features are 1, the item's rates, the item's factors, the user's factors and the place; where
    both factors are equally long also their scalar product, that times the last rate, and the products
    of their coordinates.

    Args:
        rate_LR: rates of each item.
        item_LW: factors of each item; W may be 0.
        width: V, the length of users' factors; may be 0.

    >>> item = designs(np.array([[0.2]]), np.array([[2.0]]), width=1)[0]
    >>> (item @ [1.0, 3.0, 0.7]).round(2).tolist()      # 1, rate, item, user, place, match, rate x match, product
    [1.0, 0.2, 2.0, 3.0, 0.7, 6.0, 1.2, 6.0]
    """
    items, rates = rate_LR.shape
    item_width = item_LW.shape[1]
    first_user = 1 + rates + item_width
    place = first_user + width
    matches = width > 0 and width == item_width
    features = place + 1 + (2 + width if matches else 0)
    design_LFZ = np.zeros((items, features, width + 2))
    design_LFZ[:, 0, 0] = 1.0
    design_LFZ[:, 1 : 1 + rates, 0] = rate_LR
    design_LFZ[:, 1 + rates : first_user, 0] = item_LW
    design_LFZ[:, first_user:place, 1 : 1 + width] = np.eye(width)
    design_LFZ[:, place, -1] = 1.0
    if matches:
        design_LFZ[:, place + 1, 1:-1] = item_LW
        design_LFZ[:, place + 2, 1:-1] = rate_LR[:, -1:] * item_LW
        for v in range(width):
            design_LFZ[:, place + 3 + v, 1 + v] = item_LW[:, v]
    return design_LFZ


@dataclass(frozen=True, eq=False)
class RidgeFit:
    """A ridge regression; the first feature is 1 and is not penalised.

    Attributes:
        weight_F: of the features.
        covariance_FF: of the weights: residual variance x (X'X + penalty)^-1.
        noise_std: of the residuals.
        penalty: the one of `PENALTIES` that predicted the users of other folds best.
    """

    weight_F: Float
    covariance_FF: Float
    noise_std: float
    penalty: float

    @classmethod
    def of(
        cls, design_HLFZ: Float, half_N: Int, row_N: Int, state_NZ: Float, y_N: Float, fold_N: Int
    ) -> Self:
        """The regression of y on the features of pairs.

        Args:
            design_HLFZ: designs of every item, in H versions.
            half_N: the version that each pair takes.
            row_N: the item of each pair.
            state_NZ: the state of each pair.
            y_N: what is predicted.
            fold_N: 0 to FOLDS - 1: the fold of the pair's user.
        """
        features = design_HLFZ.shape[2]
        gram_KFF = np.zeros((FOLDS, features, features))
        slope_KF = np.zeros((FOLDS, features))
        for start in range(0, len(y_N), BLOCK):
            part = slice(start, start + BLOCK)
            x_NF = np.einsum(
                "nfz,nz->nf", design_HLFZ[half_N[part], row_N[part]], state_NZ[part], optimize=True
            )
            for fold in range(FOLDS):
                rows = fold_N[part] == fold
                gram_KFF[fold] += x_NF[rows].T @ x_NF[rows]
                slope_KF[fold] += x_NF[rows].T @ y_N[part][rows]
        gram_FF = gram_KFF.sum(axis=0)
        slope_F = slope_KF.sum(axis=0)

        def unexplained(penalty: float) -> float:
            """Squared error on the users of each fold, of weights from the other folds, less the sum of
            the squares of y."""
            error = 0.0
            for fold_gram_FF, fold_slope_F in zip(gram_KFF, slope_KF, strict=True):
                weight_F, _ = _solved(gram_FF - fold_gram_FF, slope_F - fold_slope_F, penalty)
                error += weight_F @ fold_gram_FF @ weight_F - 2 * fold_slope_F @ weight_F
            return float(error)

        penalty = min(PENALTIES, key=unexplained)
        weight_F, inverse_FF = _solved(gram_FF, slope_F, penalty)
        squares = float(y_N @ y_N + weight_F @ gram_FF @ weight_F - 2 * slope_F @ weight_F)
        variance = max(squares, 0.0) / max(len(y_N), 1)
        return cls(weight_F, variance * inverse_FF, float(np.sqrt(variance)), penalty)

    def forms(self, design_LFZ: Float, error_L: Float) -> Forms:
        """Predictions about items as forms of the state.

        Args:
            design_LFZ: of the items.
            error_L: standard error of each item's own rate, which the covariance does not hold.
        """
        mean_LZ = np.einsum("lfz,f->lz", design_LFZ, self.weight_F)
        spread_LFZ = np.einsum("fg,lgz->lfz", self.covariance_FF, design_LFZ)
        variance_LZZ = np.einsum("lfy,lfz->lyz", design_LFZ, spread_LFZ)
        variance_LZZ[:, 0, 0] += error_L**2
        return Forms(mean_LZ, variance_LZZ)


@dataclass(frozen=True, eq=False)
class Forms:
    """Predictions about items: the mean is linear in the state, its variance quadratic."""

    mean_LZ: Float
    variance_LZZ: Float

    def all_pairs(self, state_NZ: Float) -> tuple[Float, Float]:
        """Mean and variance of every item at every visit, both [N, L]."""
        items, width = self.mean_LZ.shape
        squares = (state_NZ[:, :, None] * state_NZ[:, None, :]).reshape(-1, width**2)
        variance_NL = squares @ self.variance_LZZ.reshape(items, width**2).T
        return state_NZ @ self.mean_LZ.T, np.maximum(variance_NL, 0.0)

    def pairs(self, state_NZ: Float, row_N: Int) -> tuple[Float, Float]:
        """Mean and variance of one item at each visit, both [N]."""
        mean_N = np.einsum("nz,nz->n", state_NZ, self.mean_LZ[row_N])
        variance_N = np.einsum("ny,nyz,nz->n", state_NZ, self.variance_LZZ[row_N], state_NZ)
        return mean_N, np.maximum(variance_N, 0.0)


def _solved(gram_FF: Float, slope_F: Float, penalty: float) -> tuple[Float, Float]:
    """Weights, and the inverse of the penalised Gram matrix, where the first feature is 1 and every other
    is penalised in units of its standard deviation."""
    rows = max(float(gram_FF[0, 0]), 1.0)
    mean_F = gram_FF[0] / rows
    variance_F = np.diag(gram_FF) / rows - mean_F**2
    scale_F = np.where(variance_F > 1e-12 * np.maximum(mean_F**2, 1e-12), variance_F, np.inf)
    penalty_F = np.where(np.isfinite(scale_F), penalty * scale_F, 1.0)
    centred_FF = gram_FF - rows * np.outer(mean_F, mean_F)
    constant_F = ~np.isfinite(scale_F)  # the first feature, and what never varies
    centred_FF[constant_F] = 0.0
    centred_FF[:, constant_F] = 0.0
    inverse_FF = np.linalg.inv(centred_FF + np.diag(penalty_F))
    inverse_FF[constant_F] = 0.0
    inverse_FF[:, constant_F] = 0.0
    weight_F = inverse_FF @ (slope_F - mean_F * slope_F[0])
    weight_F[0] = (slope_F[0] / rows) - mean_F @ weight_F
    # of deviations from the mean to features with an intercept
    centring_FF = np.eye(len(mean_F))
    centring_FF[:, 0] -= mean_F
    covariance_FF = centring_FF.T @ inverse_FF @ centring_FF
    covariance_FF[0, 0] += 1.0 / rows
    return weight_F, covariance_FF
