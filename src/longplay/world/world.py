"""A simulated service with a known long-term truth."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import numpy as np
import polars as pl

from longplay.arrays import Float
from longplay.decisions import Policy
from longplay.errors import ConfigError, DataError
from longplay.estimate import Estimate
from longplay.index import ItemIndex
from longplay.signals.signal import Signal
from longplay.world.catalogue import START
from longplay.world.service import Service
from longplay.world.truth.of_policy import one_step_truth, policy_values
from longplay.world.truth.of_showing import Touches, true_value
from longplay.world.truth.paired import mean_value, paired_difference


class World(Service):
    """A simulated service with `users` listeners and `items` items, which lives day by day under
    the policies it is given.

    Everything follows from (users, items, seed, config, the policies run so far). Adding users
    changes nobody else's traits, luck or slates, as long as the policy does not mix users.

    Attributes:
        now: UTC midnight up to which the world has lived. catalogue, listeners: the hidden truth.
        policy: the last policy run, as adapted so far; `world.run(world.policy, n)` goes on with
            it.
        state: habits and who is still there, as of `now`.

    >>> world = World(users=50, items=60, seed=7)
    >>> lake = world.run(None, days=2)          # no policy: nothing is shown unasked
    >>> world.now.isoformat(), lake.decisions["surface"].unique().to_list()
    ('2026-01-03T00:00:00+00:00', ['search'])
    """

    def truth(
        self,
        policy: Policy | None,
        signal: Signal,
        days: int | None = None,
        users: int | None = None,
        seed: int = 0,
        estimand: str = "policy",
        *,
        logger: Policy | None = None,
        start: datetime | None = None,
    ) -> Estimate:
        """The true expected value of a signal under a policy, by simulating what follows.

        estimand="policy": everybody alive now lives on under `policy` (null: nothing is shown
        unasked), with luck from `seed`. The value is that of an experiment with everyone in one
        arm: per user who visits in the first 14 days, the sum of the signal over what is entered in
        the 14 days from that visit (`signals.outcomes.enrolled_sums`). Calls with equal seeds share
        all luck, so that differences of policies have small errors: see `difference`.

        estimand="one_step": deviate once, then follow the logger, per slot; what off-policy
        estimates are of. The world is lived anew from its first day under `logger`; at visits from
        `start` on, during `days`, one slot is drawn from `policy` given the slots before it as
        logged, and `logger` goes on. Needs a signal that slots own (discovery or exposure).

        Args:
            policy: what decides the slates; null: nothing is shown unasked.
            signal: whose value is asked for, in its unit.
            days: how long; default as long as the signal needs (policy), or 28 days of visits
                (one_step).
            users: how many users, drawn by `seed`; default all. Policies that learn from all users
                need all.
            seed: of the luck, and of the draw of `users`.
            estimand: `policy` or `one_step`, as above.
            logger: the policy deviated from; one_step only.
            start: UTC midnight, default the world's first day; one_step only.

        Raises:
            ConfigError: too few days for the signal to mature, an unknown estimand, or no logger
                for one_step.
        """
        if estimand == "one_step":
            if logger is None or policy is None:
                raise ConfigError(
                    "truth: estimand='one_step' deviates from a logger once; give policy and "
                    "logger=..."
                )
            return one_step_truth(
                self,
                policy,
                logger,
                signal,
                START if start is None else start,
                28 if days is None else days,
                users,
                seed,
            )
        if estimand != "policy":
            raise ConfigError(
                f"truth: estimand={estimand!r} given, expected 'policy' or 'one_step'"
            )
        if logger is not None or start is not None:
            raise ConfigError(
                "truth: logger and start are of estimand='one_step'; lives under a policy have no "
                "logger and begin now"
            )
        values = policy_values(self, policy, signal, days, users, seed)
        return mean_value(values, signal)

    def difference(
        self,
        policy: Policy | None,
        other: Policy | None,
        signal: Signal,
        days: int | None = None,
        users: int | None = None,
        seed: int = 0,
    ) -> Estimate:
        """`truth` of `policy` less that of `other`, on the same users with the same random numbers,
        which makes the error small."""
        of_policy, of_other = (
            policy_values(self, each, signal, days, users, seed) for each in (policy, other)
        )
        return paired_difference(of_policy, of_other, signal)

    def incremental(
        self,
        policy: Policy,
        signal: Signal,
        days: int | None = None,
        users: int | None = None,
        seed: int = 0,
    ) -> Estimate:
        """What the policy's slates add: `difference` from a service that shows nothing."""
        return self.difference(policy, None, signal, days, users, seed)

    def true_value(
        self,
        users: Sequence[str] | pl.Series,
        items: pl.Series | Sequence[Sequence[str]],
        signal: Signal,
        replicates: int = 8,
        *,
        together: bool = False,
    ) -> Float:
        """The true value of showing each item to its user now in first position, [N, S], in the
        signal's unit.

        The expected outcome shown minus not shown when nothing is shown afterwards, from
        `replicates` pairs of virtual copies of the user that share their luck; see
        `world.truth.of_showing`.

        Args:
            users: N user ids (repeats allowed).
            items: N lists of S item ids.
            signal: its measure is days_with("creator"), active_days or returned.
            replicates: pairs of virtual copies per user and item.
            together: whether each list is one slate, in which a creator can be discovered once, so
                that a later slot of a creator is worth only what those above it leave. Default:
                every item as if it were shown alone.
        """
        names = pl.Series("user_id", users, dtype=pl.String)
        user_N = ItemIndex(self.user_ids).rows(names)
        if (user_N < 0).any():
            bad = names[int(np.flatnonzero(user_N < 0)[0])]
            raise DataError(
                f"true_value: user {bad!r} is not in this world of {len(self.user_ids):,} users; "
                "take ids from world.users"
            )
        item_NS = self.catalogue.index.slate_rows(
            pl.Series("slate", items, dtype=pl.List(pl.String))
        )
        if len(item_NS) != len(user_N):
            raise DataError(
                f"true_value: {len(user_N)} users but {len(item_NS)} lists of items; expected one "
                "list each"
            )
        if item_NS.size and self.catalogue.release_I[item_NS].max() > self.day:
            raise DataError(
                f"true_value: an item is not released yet on {self.now:%Y-%m-%d}; take items from "
                "world.items"
            )
        touches = Touches.of(self.played, self.catalogue)
        return true_value(
            self.listeners,
            self.open_market(),
            self.state,
            touches,
            user_N,
            item_NS,
            signal,
            self.day,
            self.luck,
            self.config,
            replicates,
            together,
        )
