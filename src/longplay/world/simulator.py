"""The protocol of a simulated service, for simulators of your own."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Protocol, runtime_checkable

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
