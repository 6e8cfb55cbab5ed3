"""A signal: a declaration that computes itself."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from longplay.lake.lake import Lake
from longplay.progress import Progress, reporting
from longplay.signals.declare.declaration import Declaration
from longplay.signals.engine.engines import AnyEngine, engine_of
from longplay.signals.outcomes.in_memory import Outcomes, outcomes_of

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


class Signal(Declaration):
    """A delayed outcome, declared as data, that can be computed on any lake.

    Days are UTC calendar days counted from the entry's own day, which is day 0; `window=(1, 28)`
    is days 1 to 28, both included, and closes at the midnight that ends day 28. Until then the
    outcome is immature: null, never 0. Every such choice is in the table of docs/signals.md.

    Args:
        name: what people call it; not part of the version.
        entry: what opens the window.
        measure: what is counted in the window, with its threshold.
        window: first and last day, 0 <= first <= last <= 365; from 1 on for measures that ask on
            which days there was activity.
        origin: which origins count; default organic for active_days, returned, days_with,
            time_to_return and habits (a policy must not manufacture days by showing), all origins
            for amounts.
        gameable: says that one knows: days with a creator or item that also count when recommended
            or played by autoplay are made by showing it. Without it such a signal is refused.
        better: "higher" or "lower", which way experiments and audits call a gain; default what its
            measure says: lower for skips, refunds, cancellations and the time to a return.

    Raises:
        ConfigError: a definition that is impossible, that its own entry guarantees, or that can
            never be reached.

    >>> from longplay.signals import days_with, discovery
    >>> habit = Signal("habit", entry=discovery(novel_for=28), measure=days_with("creator") >= 3, window=(1, 28))
    >>> print(habit)  # doctest: +NORMALIZE_WHITESPACE
    habit: of a user's discoveries of a creator (first touch in 28 days), the share where the user is active with
    that creator on at least 3 days, organically, in days 1 to 28 after
    >>> Signal.from_toml(habit.to_toml()) == habit
    True
    """

    def outcomes(
        self,
        lake: Lake,
        as_of: datetime | None = None,
        engine: AnyEngine | SparkSession | None = None,
        progress: Progress = None,
    ) -> Outcomes:
        """The signal's value for every entry known at `as_of`; immature ones are null.

        Args:
            lake: events, and whatever else the declaration asks for.
            as_of: the moment of knowledge, UTC; default the lake's watermark.
            engine: what computes it: `lp.SparkEngine("local[2]")` or a SparkSession; default
                DuckDB, in this process. Values do not depend on it.
            progress: called with (steps done, steps); True or False: a progress line, or none;
                default: a line on a terminal or in a notebook.

        Raises:
            DataError: the lake cannot answer (no creators, no decisions, no event of the kind that
                is counted, a window longer than the log), or `as_of` lies after its watermark.
        """
        with reporting("Signal.outcomes", "steps", progress) as report:
            return outcomes_of(self, lake, as_of, engine=engine_of(engine), report=report)
