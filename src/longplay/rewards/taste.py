"""What a user's past slots say of their taste: ridge regression of what was played beyond what was
expected, on item vectors.

A raw decomposition of counts is popularity before it is taste. The residual taste of a user is

    t = m + (P + sum p (1 - p) x x')^-1 sum (y - p - p (1 - p) x'm) x

over the slots shown to the user before a moment, with x the item's vector (first a constant, so that t
begins with the user's own rate), y whether the slot had an entry, p its chance without taste, m the
taste that is usual for users like this one, and P the precision of tastes around it. Popularity and
exposure are in p, so nothing of them is left in t.

Axes: N moments, P past slots, R dimensions of an item vector, V of a user vector.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from longplay.arrays import Bool, Float, Int

LEAST_VARIANCE = 1e-6
BLOCK = 2_000  # moments at a time: bounds memory


@dataclass(frozen=True, eq=False)
class TasteLaw:
    """How tastes vary over users.

    Attributes:
        variance_R: of each coordinate of taste around what is usual.
        usual_VR: usual taste = vector of the user @ usual_VR; no rows where users have no vectors.
    """

    variance_R: Float
    usual_VR: Float

    def usual(self, user_NV: Float) -> Float:
        """The usual taste of users with these vectors, [N, R]."""
        return user_NV @ self.usual_VR

    def taste(
        self, x_PR: Float, excess_P: Float, information_P: Float, start_N: Int, user_NV: Float
    ) -> Float:
        """The taste of the user at each moment, [N, R].

        Args:
            x_PR: vectors of the past slots' items, moment by moment.
            excess_P: y - p of each.
            information_P: p (1 - p) of each.
            start_N: where each moment's past begins, and the end: [N + 1].
            user_NV: vectors of the users.
        """
        moments = len(start_N) - 1
        usual_NR = self.usual(user_NV)
        taste_NR = usual_NR.copy()
        used = self.variance_R > LEAST_VARIANCE
        if not used.any():
            return taste_NR
        precision_RR = np.diag(1.0 / self.variance_R[used])
        for first in range(0, moments, BLOCK):
            rows = np.arange(first, min(first + BLOCK, moments))
            low, high = start_N[rows[0]], start_N[rows[-1] + 1]
            owner = np.repeat(rows, np.diff(start_N)[rows])
            x = x_PR[low:high]
            left = excess_P[low:high] - information_P[low:high] * np.einsum(
                "pr,pr->p", x, usual_NR[owner]
            )
            x = x[:, used]
            has = np.diff(start_N)[rows] > 0
            cuts = (start_N[rows[has]] - low).astype(np.int64)
            if not len(cuts):
                continue
            gradient = np.add.reduceat(x * left[:, None], cuts, axis=0)
            gram = np.stack(
                [
                    (x[a:b] * information_P[low + a : low + b, None]).T @ x[a:b]
                    for a, b in zip(cuts, np.append(cuts[1:], high - low), strict=True)
                ]
            )
            step = np.linalg.solve(gram + precision_RR, gradient[..., None])[..., 0]
            block = taste_NR[rows[has]]
            block[:, used] += step
            taste_NR[rows[has]] = block
        return taste_NR


def fit_tastes(
    x_PR: Float,
    excess_P: Float,
    information_P: Float,
    user_P: Int,
    users: int,
    user_UV: Float,
    shared: slice | None = None,
) -> TasteLaw:
    """The law of tastes from slots of many users.

    The variance of each coordinate is from moments: E[(sum (y - p) x)^2] = sum p (1 - p) x^2 +
    variance (sum p (1 - p) x^2)^2. The usual taste is a ridge regression on products of user and item
    vectors; its penalty is the one that explains the other half of the users best. Where both vectors
    may be of one space, their scalar product goes first, with one weight.

    Args:
        x_PR: vectors of the slots' items.
        excess_P: whether the slot had an entry, less its chance without taste.
        information_P: chance x (1 - chance).
        user_P: row of the slot's user.
        users: U.
        user_UV: vectors of the users.
        shared: columns of `x_PR` that may be of the users' space; None: there are none.
    """
    usual_VR = np.zeros((user_UV.shape[1], x_PR.shape[1]))
    if shared is not None:
        usual_VR[:, shared] = np.eye(user_UV.shape[1])
        match_P = np.einsum("pr,pr->p", x_PR, (user_UV @ usual_VR)[user_P])
        usual_VR *= _match_weight(match_P, excess_P, information_P, user_P // 2 % 2 == 0)

    def left() -> Float:
        """What usual tastes leave of the excess."""
        return excess_P - information_P * np.einsum("pr,pr->p", x_PR, (user_UV @ usual_VR)[user_P])

    usual_VR += _usual(x_PR, left(), information_P, user_P, user_UV)
    left_P = left()
    variance_R = np.empty(x_PR.shape[1])
    for r, x_P in enumerate(x_PR.T):
        gradient_U = np.bincount(user_P, weights=left_P * x_P, minlength=users)
        information_U = np.bincount(user_P, weights=information_P * x_P**2, minlength=users)
        variance_R[r] = (gradient_U**2 - information_U).sum() / max(
            float((information_U**2).sum()), 1e-12
        )
        if r == 0:  # the user's own rate goes first: the other coordinates are about what is left
            rate_U = gradient_U / (information_U + 1.0 / max(variance_R[0], LEAST_VARIANCE))
            left_P = left_P - information_P * rate_U[user_P]
    return TasteLaw(np.maximum(variance_R, 0.0), usual_VR)


def _match_weight(match_P: Float, excess_P: Float, information_P: Float, half_P: Bool) -> float:
    """What a unit of the scalar product adds to the log odds; 0 where the halves of the users disagree
    about its sign."""
    slopes = []
    for rows in (half_P, ~half_P):
        information = float((information_P * match_P**2)[rows].sum())
        slopes.append(float((excess_P * match_P)[rows].sum()) / max(information, 1e-12))
    return float(np.mean(slopes)) if slopes[0] * slopes[1] > 0 else 0.0


PENALTIES = (3.0, 10.0, 30.0, 100.0, 300.0, 1_000.0, 1e4, 1e6)
MOST_SLOTS = 300_000


def _usual(
    x_PR: Float, excess_P: Float, information_P: Float, user_P: Int, user_UV: Float
) -> Float:
    """Weights of products of user and item vectors, [V, R]."""
    width = user_UV.shape[1]
    dims = x_PR.shape[1]
    if not width:
        return np.zeros((width, dims))
    rows = np.arange(len(user_P))
    if len(rows) > MOST_SLOTS:
        rows = np.sort(np.random.default_rng(0).choice(rows, MOST_SLOTS, replace=False))
    gram = np.zeros((2, width * dims, width * dims))
    slope = np.zeros((2, width * dims))
    for part in np.array_split(rows, max(1, len(rows) * width * dims // 20_000_000)):
        product = (user_UV[user_P[part]][:, :, None] * x_PR[part][:, None, :]).reshape(
            len(part), -1
        )
        for half in (0, 1):
            mine = user_P[part] // 2 % 2 == half
            gram[half] += (product[mine] * information_P[part][mine, None]).T @ product[mine]
            slope[half] += excess_P[part][mine] @ product[mine]
    unit = np.eye(width * dims)

    def unexplained(penalty: float) -> float:
        total = 0.0
        for half in (0, 1):
            weight = np.linalg.solve(gram[half] + penalty * unit, slope[half])
            total += weight @ gram[1 - half] @ weight - 2 * slope[1 - half] @ weight
        return total

    penalty = min(PENALTIES, key=unexplained)
    if unexplained(penalty) >= 0:
        return np.zeros((width, dims))
    return np.linalg.solve(gram.sum(axis=0) + penalty * unit, slope.sum(axis=0)).reshape(
        width, dims
    )
