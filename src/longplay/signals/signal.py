"""A signal: a declaration with its computation."""

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
    outcome is immature: null, never 0. The table in docs/signals.md lists every such rule.

    Args:
        name: for people; not part of the version.
        entry: what opens the window.
        measure: what is counted in the window, with its threshold.
        window: first and last day, 0 <= first <= last <= 365. Measures of days with activity begin
            on day 1 or later.
        origin: the origins that count. The default is organic for measures of days with activity
            (active_days, returned, days_with, time_to_return, habits, active_weeks), because a
            policy must not manufacture days by showing; all origins for other measures.
        gameable: allows days with a creator or item to count when recommended or played by
            autoplay, which a policy can cause by showing it. Without it such a signal is refused.
        better: "higher" or "lower": what experiments and audits call a gain. The default is lower
            for skips, refunds, cancellations and the time to a return, else higher.

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
            lake: the log: events, and what else the declaration needs.
            as_of: the moment of knowledge, UTC; default the lake's watermark.
            engine: `lp.SparkEngine("local[2]")` or a SparkSession; default DuckDB, in this process.
                Values do not depend on it.
            progress: called with (steps done, steps); True or False: a progress line, or none;
                default: a line on a terminal or in a notebook.

        Raises:
            DataError: the lake cannot answer (no creators, no decisions, no event of the kind that
                is counted, a window longer than the log), or `as_of` lies after its watermark.
            ConfigError: `as_of` or `engine` is something else.
        """
        with reporting("Signal.outcomes", "steps", progress) as report:
            return outcomes_of(self, lake, as_of, engine=engine_of(engine), report=report)
