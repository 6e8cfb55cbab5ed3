"""The true value of following a policy, and differences of policies paired by user, in any
simulator that can be forked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import polars as pl

from longplay.decisions import Policy
from longplay.display import html_table, text_table
from longplay.errors import ConfigError, DataError
from longplay.estimate import Estimate, clustered_mean
from longplay.lake import Lake
from longplay.signals.outcomes.enrolled_sums import ENTRY_DAYS, enrolled_sums
from longplay.signals.signal import Signal
from longplay.world.simulator import Forkable


@dataclass(frozen=True, eq=False)
class PairedTruth:
    """What signals come to under several policies, for the same users with the same luck.

    It prints as a table: the value under each policy, and its difference from the first one.

    Attributes:
        policies: their names, in the order in which they were given.
        signals: what was measured.
        values: a row per signal, policy and enrolled user: columns signal (its name), policy,
            user_id and value.
    """

    policies: tuple[str, ...]
    signals: tuple[Signal, ...]
    values: pl.DataFrame

    def value(self, policy: str, signal: str | None = None) -> Estimate:
        """The signal per enrolled user under a policy.

        Args:
            policy: its name.
            signal: its name; null: the only one.
        """
        measured = self._signal(signal)
        return mean_value(self._of(policy, measured), measured)

    def difference(
        self, policy: str, other: str | None = None, signal: str | None = None
    ) -> Estimate:
        """The signal per enrolled user under a policy, less that under another one, paired by user.

        Args:
            policy: its name.
            other: name of the policy that it is compared with; null: the first one.
            signal: its name; null: the only one.

        Raises:
            DataError: other users visit under the one policy than under the other.
        """
        measured = self._signal(signal)
        compared = self.policies[0] if other is None else other
        return paired_difference(self._of(policy, measured), self._of(compared, measured), measured)

    def _signal(self, name: str | None) -> Signal:
        if name is None and len(self.signals) == 1:
            return self.signals[0]
        for signal in self.signals:
            if signal.name == name:
                return signal
        raise ConfigError(
            f"paired truth: signal {name!r} given, expected one of "
            f"{', '.join(signal.name for signal in self.signals)}"
        )

    def _of(self, policy: str, signal: Signal) -> pl.DataFrame:
        if policy not in self.policies:
            raise ConfigError(
                f"paired truth: policy {policy!r} given, expected one of {', '.join(self.policies)}"
            )
        rows = (pl.col("policy") == policy) & (pl.col("signal") == signal.name)
        return self.values.filter(rows).select("user_id", "value")

    def _table(self) -> tuple[list[str], list[list[str]]]:
        rows = [
            [
                signal.name,
                policy,
                str(self.value(policy, signal.name)),
                str(self.difference(policy, signal=signal.name)) if place else "",
            ]
            for signal in self.signals
            for place, policy in enumerate(self.policies)
        ]
        return ["signal", "policy", "per enrolled user", f"less {self.policies[0]}"], rows

    def __str__(self) -> str:
        return text_table(*self._table())

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return html_table(*self._table())


def paired_truth(
    simulator: Forkable,
    policies: Mapping[str, Policy | None],
    signals: Signal | Sequence[Signal],
    days: int | None = None,
    seed: int = 0,
) -> PairedTruth:
    """The true value of signals under several policies, each followed by everybody from now on, in
    any simulator that can be forked.

    Each policy gets a copy of the service with the same luck. The value is that of an experiment
    with everybody in one arm: per user who visits in the first 14 days, the sum of the signal over
    what is entered in the 14 days from that visit (`signals.outcomes.enrolled_sums`). So a visit is
    logged as an event of the kind `visit`. The simulator itself stays as it is.

    Args:
        simulator: `longplay.World`, or one of your own.
        policies: policy by name, the first of which the others are compared with; null: nothing is
            shown.
        signals: one, or several, which cost no further simulation.
        days: how long each copy lives; default as long as the signals need.
        seed: of the copies' luck. It is never that of the log.

    Raises:
        ConfigError: no policy, no signal, too few days for the signals to mature, or a simulator
            without `fork(seed=...)`.
        DataError: nobody visits.
    """
    measured = (signals,) if isinstance(signals, Signal) else tuple(signals)
    if not policies or not measured:
        raise ConfigError(
            f"paired_truth: {len(policies)} policies and {len(measured)} signals given, expected "
            "at least one of each"
        )
    names = [signal.name for signal in measured]
    if len(set(names)) < len(names):
        raise ConfigError(
            f"paired_truth: signals {', '.join(names)} given, expected a name for each"
        )
    if not isinstance(simulator, Forkable):
        raise ConfigError(
            f"paired_truth: a {type(simulator).__name__} given, expected a simulator that can be "
            "forked (now, items, run and fork(seed=...)); see docs/worlds.md"
        )
    days = days_to_live(measured, days)
    values = []
    for name, policy in policies.items():
        lake = _copy_of(simulator, seed).run(policy, days)
        for signal in measured:
            table = enrolled_values(lake, simulator.now, signal)
            values.append(
                table.select(
                    pl.lit(signal.name).alias("signal"),
                    pl.lit(name).alias("policy"),
                    "user_id",
                    "value",
                )
            )
    return PairedTruth(tuple(policies), measured, pl.concat(values))


def _copy_of(simulator: Forkable, seed: int) -> Forkable:
    try:
        return simulator.fork(seed=far_seed(seed))
    except TypeError as error:
        raise ConfigError(
            f"paired_truth: fork(seed=...) of {type(simulator).__name__} fails: {error}; try "
            "longplay.world.check_simulator"
        ) from error


def days_to_live(signals: Sequence[Signal], days: int | None) -> int:
    """How many days copies live: `days`, or as many as the signals need.

    Raises:
        ConfigError: fewer than a signal needs.
    """
    longest = 0
    for signal in signals:
        window = signal.window[1] + 1 + (0 if signal.entry.is_enrolment else ENTRY_DAYS)
        needed = ENTRY_DAYS + window
        longest = max(longest, needed)
        if days is not None and days < needed:
            raise ConfigError(
                f"truth: days={days} given, expected at least {needed}: {ENTRY_DAYS} to enrol and "
                f"{window} until {signal.label} has matured"
            )
    return longest if days is None else days


def enrolled_values(lake: Lake, start: datetime, signal: Signal) -> pl.DataFrame:
    """The signal's sum of each user who visits in the first 14 days from `start`: columns user_id
    and value, by user.

    Raises:
        DataError: nobody visits in these days.
    """
    visits = (
        lake.events.filter((pl.col("kind") == "visit") & (pl.col("time") >= start))
        .group_by("user_id")
        .agg(pl.col("time").min())
    )
    enrolled = visits.filter(pl.col("time") < start + timedelta(days=ENTRY_DAYS)).sort("user_id")
    if enrolled.is_empty():
        raise DataError(
            f"truth: nobody visits in the first {ENTRY_DAYS} days; has everybody left? A simulator "
            "logs an event of the kind visit when a user comes"
        )
    # on a log this is an error; here it is certain that there was nothing
    if _nothing_to_enter(signal, lake):
        return enrolled.select("user_id", value=pl.lit(0.0))
    return enrolled_sums(signal, lake, enrolled).select("user_id", "value")


def _nothing_to_enter(signal: Signal, lake: Lake) -> bool:
    """Whether nobody was shown, or played, anything at all."""
    entry = signal.entry
    if entry.is_slot:
        return lake.decisions.is_empty()
    return entry.is_discovery and lake.events[f"{entry.of}_id"].null_count() == lake.events.height


def mean_value(values: pl.DataFrame, signal: Signal) -> Estimate:
    """The mean of `enrolled_values`."""
    return clustered_mean(
        values["value"].to_numpy(), estimand=f"policy: {signal.label} per enrolled user, true"
    )


def paired_difference(values: pl.DataFrame, others: pl.DataFrame, signal: Signal) -> Estimate:
    """The mean of `enrolled_values` under one policy less that under another, paired by user.

    Raises:
        DataError: other users in the one than in the other.
    """
    if not values["user_id"].equals(others["user_id"]):
        raise DataError(
            "difference: other users visit under the one policy than under the other, expected the "
            "same in both; compare the values of each policy instead. Where luck is common, nobody's "
            "first visit depends on the policy: see check_simulator in docs/worlds.md"
        )
    return clustered_mean(
        (values["value"] - others["value"]).to_numpy(),
        estimand=f"policy: {signal.label} per enrolled user, true difference",
    )


def far_seed(seed: int) -> int:
    """A seed far from that of any log: the truth must not share random numbers with the log that
    it is compared with."""
    return seed + 7_919_000_000
