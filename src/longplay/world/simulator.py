"""The protocols of a simulated service, for simulators of your own."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Protocol, Self, runtime_checkable

import polars as pl

from longplay.decisions import Policy
from longplay.lake import Lake


@runtime_checkable
class Simulator(Protocol):
    """A service that lives day by day under a policy and keeps a lake.

    `run` asks `policy.decide` once or more per user-day with contexts whose ids never repeat, logs
    what it was told (decisions, contexts) and what people did (events), and returns the full
    history so far, complete up to `now`. It calls `policy.adapt` at midnight where the policy has
    it (`Adaptive`).
    """

    @property
    def now(self) -> datetime:
        """The UTC midnight up to which it has lived."""
        ...

    @property
    def items(self) -> pl.DataFrame:
        """The items table, as a policy may see it today."""
        ...

    def run(
        self, policy: Policy | None, days: int, progress: Callable[[int, int], None] | None = None
    ) -> Lake:
        """Live `days` more days under `policy` (null: nothing is recommended) and return the whole
        log."""
        ...


@runtime_checkable
class Forkable(Simulator, Protocol):
    """A simulator that can be copied as of now, so that the truth of policies is known.

    Luck is common: the same policy on two copies lives the same life, event by event, and what
    differs between two copies under two policies was caused by what was shown. So a random number
    is a function of (seed, purpose, user, day, counter), or of whatever else does not depend on
    what was shown before. `check_simulator` tries this.
    """

    def fork(self, *, seed: int | None = None) -> Self:
        """A copy of the service as of now, with its past, which lives on separately. Nothing that
        happens to one changes the other.

        Args:
            seed: of the copy's luck from now on, a whole number of up to 63 bits: equal seeds give
                equal luck. Null: the luck that the service itself will have. A truth takes a seed
                of its own, so that it shares no luck with the log that it is compared with.
        """
        ...
