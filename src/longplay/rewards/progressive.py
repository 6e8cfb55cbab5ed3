"""Progressive feedback: every day of an entry's trace sharpens the belief about its item and about
itself."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from scipy import sparse

from longplay.arrays import Float, Int, dense
from longplay.chance import keyed_uniform
from longplay.index import ItemIndex
from longplay.rewards.curves import Curves, ages_of
from longplay.rewards.early import EarlyModel, counts_below, prefix_hits, sum_by
from longplay.rewards.gaussian import (
    Prior,
    chunks,
    estimate_prior,
    expected_outcomes,
    own_prefix,
    summarise,
)
from longplay.signals.outcomes.in_memory import Outcomes
from longplay.signals.signal import Signal

CURVE_ENTRIES = 20_000  # per half of the users: more would not change a curve


@dataclass(frozen=True, eq=False)
class ProgressiveReward(EarlyModel):
    """An early reward that learns from every day of an entry: Gaussian progressive beliefs
    (Maystre, Russo & Zhao, arXiv 2307.09943 and 2501.07761).

    The trace of an entry is its daily amounts over the window; a signal with a threshold appends
    the outcome itself as one more coordinate, seen when the window closes, and is judged by that
    coordinate. Item means vary as N(mu, Sigma), entries around them as N(0, V), all estimated from
    past items. What an entry's own prefix says of a threshold is then bent to the rates seen
    (`rewards.curves`); beliefs about items stay Gaussian.
    """

    name: ClassVar[str] = "progressive"

    def _learn(self, outcomes: Outcomes) -> GaussianStanding:
        index, row_N = by_key(outcomes)
        trace_NC = _trace(outcomes, outcomes.observed())
        items = len(index)
        shape = (items, len(row_N))
        member_IN = sparse.csr_matrix(
            (np.ones(len(row_N)), (row_N, np.arange(len(row_N)))), shape=shape
        )
        target_C = np.ones(trace_NC.get_shape()[1])
        unit_C = np.ones(trace_NC.get_shape()[1])
        unit_C[: self.signal.days] = max(
            float(outcomes.hits[2].mean()) if len(outcomes.hits[2]) else 0.0, 1e-6
        )
        if self.signal.binary:
            target_C[:-1] = 0.0

        def cross(weight_I: Float) -> Float:
            weighted = sparse.csr_matrix(sparse.diags(weight_I[row_N]) @ trace_NC)
            return dense(trace_NC.T @ weighted)

        count_I = np.bincount(row_N, minlength=items).astype(float)
        squares_I = sum_by(row_N, outcomes.value**2, items)
        prior = estimate_prior(
            count_I, dense(member_IN @ trace_NC), squares_I, cross, target_C, unit_C
        )
        empty = np.zeros((0, len(target_C)))
        standing = GaussianStanding(
            self.signal,
            prior,
            ItemIndex([]),
            empty,
            empty,
            np.array([prior.outcome[0]]),
            np.array([prior.outcome[1]]),
        )
        return (
            replace(standing, curves=_curves(standing, outcomes))
            if self.signal.binary
            else standing
        )


@dataclass(frozen=True, eq=False)
class GaussianStanding:
    """Items' posteriors: `count_IC` and `white_IC` as in `gaussian.summarise`; mean and std [I +
    1], the prior last."""

    signal: Signal
    prior: Prior
    index: ItemIndex
    count_IC: Float
    white_IC: Float
    mean_I: Float
    std_I: Float
    curves: Curves | None = None

    @property
    def noise_std(self) -> float:
        """Std of single outcomes around their item's mean."""
        return self.prior.outcome[2]

    def items(self) -> tuple[Float, Float]:
        """See `ItemBeliefs`."""
        return self.mean_I, self.std_I

    def observe(self, outcomes: Outcomes, observed_N: Int) -> GaussianStanding:
        """Items' posteriors from the observed days of these entries. Entries without a key are left
        out."""
        index, row_N = by_key(outcomes)
        length_N = self._lengths(observed_N)
        coordinates = len(self.prior.mu_C)
        heard_N = row_N >= 0
        group_ids, group_N = np.unique(
            row_N[heard_N] * (coordinates + 1) + length_N[heard_N], return_inverse=True
        )
        row_G, length_G = np.divmod(group_ids, coordinates + 1)
        trace_NC = _trace(outcomes, observed_N)[np.flatnonzero(heard_N)]
        member_GN = sparse.csr_matrix(
            (np.ones(len(group_N)), (group_N, np.arange(len(group_N)))),
            shape=(len(group_ids), len(group_N)),
        )
        sum_GC = sparse.csr_matrix(member_GN @ trace_NC)
        n_G = np.bincount(group_N, minlength=len(group_ids)).astype(float)
        count_IC = np.zeros((len(index), coordinates))
        white_IC = np.zeros((len(index), coordinates))
        starts_I = np.searchsorted(row_G, np.arange(len(index) + 1))
        for items in chunks(
            len(index), coordinates * max(int(np.ceil(len(group_ids) / max(len(index), 1))), 1)
        ):
            groups = slice(starts_I[items.start], starts_I[items.stop])
            count_IC[items], white_IC[items] = summarise(
                self.prior,
                dense(sum_GC[groups]),
                n_G[groups],
                length_G[groups],
                starts_I[items] - starts_I[items.start],
            )
        mean_I, std_I = expected_outcomes(self.prior, count_IC, white_IC)
        prior_mean, prior_std, _ = self.prior.outcome
        return replace(
            self,
            index=index,
            count_IC=count_IC,
            white_IC=white_IC,
            mean_I=np.append(mean_I, prior_mean),
            std_I=np.append(std_I, prior_std),
        )

    def entries(
        self, row_N: Int, outcomes: Outcomes, observed_N: Int
    ) -> tuple[Float, Float, Float]:
        """See `ItemBeliefs`: the item's posterior, conditioned on the entry's own observed days.
        With a threshold it is corrected by the curves of observed rates."""
        mean_N, std_N, noise_N = self.linear(row_N, outcomes, observed_N)
        if self.curves is not None:
            mean_N, std_N = self.curves.bend(
                mean_N, std_N, observed_N, _so_far(outcomes, observed_N)
            )
        return mean_N, std_N, noise_N

    def linear(self, row_N: Int, outcomes: Outcomes, observed_N: Int) -> tuple[Float, Float, Float]:
        """`entries` without the correction by curves."""
        coordinates = len(self.prior.mu_C)
        length_N = self._lengths(observed_N)
        trace_NC = _trace(outcomes, observed_N)
        count_IC = np.vstack([self.count_IC, np.zeros((1, coordinates))])
        white_IC = np.vstack([self.white_IC, np.zeros((1, coordinates))])
        group_ids, group_N = np.unique(
            (row_N + 1) * (coordinates + 1) + length_N, return_inverse=True
        )
        row_G, length_G = np.divmod(group_ids, coordinates + 1)
        order = np.argsort(group_N, kind="stable")
        mean_N, std_N, noise_N = (np.empty(len(row_N)) for _ in range(3))
        for part in chunks(len(order), coordinates + self.prior.loading.shape[1] ** 2):
            rows = order[part]
            first, last = (group_N[rows[0]], group_N[rows[-1]]) if len(rows) else (0, -1)
            groups = slice(first, last + 1)
            mean_N[rows], std_N[rows], noise_N[rows] = own_prefix(
                self.prior,
                count_IC[row_G[groups] - 1],
                white_IC[row_G[groups] - 1],
                group_N[rows] - first,
                dense(trace_NC[rows]),
                length_G[groups],
            )
        return mean_N, std_N, noise_N

    def _lengths(self, observed_N: Int) -> Int:
        """Number of coordinates seen: the days observed, and all coordinates once the window has
        closed."""
        return np.where(observed_N >= self.signal.days, len(self.prior.mu_C), observed_N)


def _curves(standing: GaussianStanding, outcomes: Outcomes) -> Curves | None:
    """Curves through mature entries, whose beliefs come from the other half of the users; null
    where too few outcomes are known.

    Its own outcome must not be in an entry's belief: where items have few entries the curves would
    learn to trust it.
    """
    ages = ages_of(standing.signal.days)
    if not len(ages) or not Curves.possible(outcomes.value):
        return None
    half_N = keyed_uniform("longplay: curves", outcomes.frame["user_id"]) < 0.5
    linear_AN = np.zeros((len(ages), len(outcomes)))
    so_far_AN = np.zeros((len(ages), len(outcomes)), dtype=np.int64)
    is_read_N = np.zeros(len(outcomes), dtype=bool)
    for half in (half_N, ~half_N):
        other_half = outcomes.where(~half)
        rows = np.flatnonzero(half)
        is_sampled_N = np.zeros(len(outcomes), dtype=bool)
        is_sampled_N[rows[:: len(rows) // CURVE_ENTRIES + 1]] = True
        sampled = outcomes.where(is_sampled_N)
        other_beliefs = standing.observe(other_half, other_half.observed())
        row_N = other_beliefs.index.rows(sampled.keys)
        is_read_N |= is_sampled_N
        for a, age in enumerate(ages.tolist()):
            linear_AN[a, is_sampled_N] = other_beliefs.linear(
                row_N, sampled, sampled.observed(age)
            )[0]
            so_far_AN[a, is_sampled_N] = _so_far(sampled, sampled.observed(age))
    return Curves.through(
        ages,
        linear_AN[:, is_read_N],
        so_far_AN[:, is_read_N],
        outcomes.value[is_read_N],
        max(counts_below(standing.signal), 1),
    )


def _so_far(outcomes: Outcomes, observed_N: Int) -> Int:
    """The count of each entry in its observed days, as far as `counts_below` distinguishes counts,
    [N]."""
    row, _, amount = prefix_hits(outcomes, observed_N)
    return np.minimum(
        sum_by(row, amount, len(outcomes)), max(counts_below(outcomes.signal), 1) - 1
    ).astype(np.int64)


def by_key(outcomes: Outcomes) -> tuple[ItemIndex, Int]:
    """The distinct keys of the entries, sorted, and the row of each entry's key (-1 where it has
    none)."""
    index = ItemIndex(outcomes.keys.drop_nulls().unique().sort())
    row_N = index.rows(outcomes.keys) if len(outcomes) else np.zeros(0, dtype=np.int64)
    return index, np.where(outcomes.keys.is_null().to_numpy(), -1, row_N) if len(
        outcomes
    ) else row_N


def _trace(outcomes: Outcomes, observed_N: Int) -> sparse.csr_matrix:
    """Daily amounts within the observed days, sparse [N, C]. With a threshold, the last column is
    the outcome of closed windows."""
    signal = outcomes.signal
    row, day, amount = prefix_hits(outcomes, observed_N)
    if signal.threshold is None:
        return sparse.csr_matrix((amount, (row, day)), shape=(len(outcomes), signal.days))
    total_N = sum_by(row, amount, len(outcomes))
    positive = np.flatnonzero((observed_N >= signal.days) & (total_N >= signal.threshold - 1e-9))
    row = np.concatenate([row, positive])
    day = np.concatenate([day, np.full(len(positive), signal.days)])
    return sparse.csr_matrix(
        (np.concatenate([amount, np.ones(len(positive))]), (row, day)),
        shape=(len(outcomes), signal.days + 1),
    )
