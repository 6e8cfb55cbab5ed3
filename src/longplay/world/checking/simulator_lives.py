"""A simulator lived in: what it said before and after, what its policy was asked, and what it logged."""

from __future__ import annotations

import hashlib
import pickle
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property
from typing import cast

import polars as pl

from longplay.lake import Lake
from longplay.lake.schema import DTYPES, empty
from longplay.world.checking.simulator_probe import AdaptCall, DecideCall, Probe
from longplay.world.simulator import Forkable, Simulator
from longplay.world.truth.paired import far_seed

# large ones, as `paired_truth` gives: two copies share the first, and none is likely to be the service's
SEEDS = (far_seed(1), far_seed(1), far_seed(2))


@dataclass(frozen=True, eq=False)
class Stretch:
    """What one call of `run` left.

    Attributes:
        start: `now` before it.
        days: how many it was to live.
        now: what the simulator says afterwards.
        items: its items afterwards.
        returned: what `run` returned; null where it failed.
        probe: the policy; null: nothing was to be shown.
        error: what it raised; empty where it did not.
    """

    start: datetime
    days: int
    now: object
    items: object
    returned: object
    probe: Probe | None
    error: str = ""

    @property
    def end(self) -> datetime:
        """The midnight up to which it was to live."""
        return self.start + timedelta(days=self.days)

    @property
    def lake(self) -> Lake | None:
        """The log it returned, if it is one."""
        return self.returned if isinstance(self.returned, Lake) else None

    @cached_property
    def policy_contexts(self) -> pl.DataFrame:
        """The contexts that the policy was asked with, in order."""
        return self._calls("contexts")

    @cached_property
    def policy_decisions(self) -> pl.DataFrame:
        """The decisions that the policy returned, in order."""
        return self._calls("decisions")

    @cached_property
    def events(self) -> pl.DataFrame:
        """The logged events of these days."""
        return self.logged("events")

    @cached_property
    def played(self) -> pl.DataFrame:
        """The events that name a decision of the policy, with what that decision says of them:
        columns `shown_item`, `shown_user`, `shown_surface` and `shown_at`."""
        if self.events.is_empty() or self.policy_decisions.is_empty():
            return empty("events").with_columns(
                shown_item=pl.lit(None, dtype=pl.String),
                shown_user=pl.lit(None, dtype=pl.String),
                shown_surface=pl.lit(None, dtype=pl.String),
                shown_at=pl.lit(None, dtype=DTYPES["events"]["time"]),
            )
        decisions = self.policy_decisions.unique("decision_id", keep="last").select(
            "decision_id",
            "slate",
            shown_user="user_id",
            shown_surface="surface",
            shown_at="time",
        )
        slot = pl.when(pl.col("slot") >= 0).then("slot")
        return (
            self.events.join(decisions, on="decision_id", how="inner")
            .with_columns(shown_item=pl.col("slate").list.get(slot, null_on_oob=True))
            .drop("slate")
        )

    def logged(self, table: str) -> pl.DataFrame:
        """The rows of a table of the log with a time in these days."""
        if self.lake is None:
            return empty(table)
        frame = pl.DataFrame(
            {"events": self.lake.events, "decisions": self.lake.decisions}.get(
                table, self.lake.contexts
            )
        )
        return frame.filter((pl.col("time") >= self.start) & (pl.col("time") < self.end))

    def adapt_calls(self) -> list[AdaptCall]:
        """The calls of `adapt`."""
        calls = [] if self.probe is None else self.probe.calls
        return [call for call in calls if isinstance(call, AdaptCall)]

    def _calls(self, table: str) -> pl.DataFrame:
        calls = [] if self.probe is None else self.probe.calls
        frames = [
            call.contexts if table == "contexts" else call.decisions
            for call in calls
            if isinstance(call, DecideCall)
        ]
        return pl.concat([empty(table), *frames])


def run_stretch(simulator: Simulator, probe: Probe | None, days: int) -> Stretch:
    """Let a simulator live some days under a probe, or with nothing shown; errors are noted."""
    start = simulator.now
    returned = None
    error = ""
    try:
        returned = cast(object, simulator.run(probe, days))
    except Exception as raised:  # whatever a stranger's code raises is a finding
        error = described_error(raised)
    try:
        return Stretch(start, days, simulator.now, simulator.items, returned, probe, error)
    except Exception as raised:
        return Stretch(start, days, None, None, returned, probe, error or described_error(raised))


def described_error(error: Exception) -> str:
    """An error in one line, with its type."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"


@dataclass(frozen=True, eq=False)
class Evidence:
    """What rules are tried on.

    Attributes:
        now: `now` before anything was lived.
        items: the items then.
        first: lived under a probe.
        second: lived under the same probe afterwards.
        silent: lived afterwards with nothing shown.
        copies: what copies lived; null where the simulator cannot be copied.
        interaction: whether users influence each other.
    """

    now: datetime
    items: pl.DataFrame
    first: Stretch
    second: Stretch
    silent: Stretch
    copies: Copies | None
    interaction: bool

    @property
    def stretches(self) -> list[Stretch]:
        """All calls of `run` of one service, in order."""
        return [self.first, self.second, self.silent]

    @property
    def probed(self) -> list[Stretch]:
        """Those under a probe that returned a log."""
        return [stretch for stretch in (self.first, self.second) if stretch.lake is not None]

    @property
    def lake(self) -> Lake:
        """The log as of the last run under a probe."""
        lake = self.probed[-1].lake if self.probed else None
        return Lake.memory() if lake is None else lake


@dataclass(frozen=True, eq=False)
class Copies:
    """What copies of a simulator lived, each under a probe and for as many days as `Evidence.first`.

    Where a copy could not be made there is a text, which says why.

    Attributes:
        error: what is wrong with `fork()`; empty where it returns a copy.
        shared: names of the attributes of a copy that changed while another copy lived.
        sibling: a copy that was made before any other was run, and was run after them.
        late: a copy that was made after others were run.
        other: a copy under a probe that shows other items to half of the users.
        child: a copy of a copy that had lived.
        parent: the log of the copy that `child` is of.
        seeded: copies with other luck: two with one seed, then one with another seed.
        now: `now` of the simulator afterwards.
        items: its items afterwards.
    """

    error: str
    shared: tuple[str, ...] = ()
    sibling: Stretch | str | None = None
    late: Stretch | str | None = None
    other: Stretch | str | None = None
    child: Stretch | str | None = None
    parent: Lake | None = None
    seeded: tuple[Stretch | str, ...] = ()
    now: object = None
    items: object = None


def state_of(service: object, depth: int = 3) -> dict[str, object]:
    """A digest of every attribute of an object, by its name, which differs once it has changed.

    Null where an attribute cannot be pickled and has no attributes of its own.
    """
    try:
        attributes = vars(service)
    except TypeError:  # an object without a dictionary
        return {}
    return {name: _digest(value, depth) for name, value in attributes.items()}


def _digest(value: object, depth: int) -> object:
    if isinstance(value, Lake):
        return value.key
    try:
        return hashlib.sha256(pickle.dumps(value)).digest()
    except Exception:  # locks, open files, functions
        return state_of(value, depth - 1) if depth else None


def live_in(simulator: Simulator, days: int, history: int, interaction: bool) -> Evidence:
    """Let a simulator live under probes: a copy of it, and copies beside that one, where it can be
    copied; else the simulator itself.

    Args:
        simulator: its `now` is a time and its `items` a table.
        days: of each call of `run`.
        history: past items that the probes want to see.
        interaction: whether users influence each other.
    """
    now = simulator.now
    items = simulator.items
    if not isinstance(simulator, Forkable):
        return _live_alone(simulator, now, items, days, history, interaction)
    service = copy_of(simulator)
    sibling = copy_of(simulator)
    for copied in (service, sibling):
        if isinstance(copied, str):
            alone = _live_alone(simulator, now, items, days, history, interaction)
            return replace(alone, copies=Copies(copied))
    if isinstance(service, str) or isinstance(sibling, str):
        raise AssertionError("both are copies")
    earlier_state = state_of(sibling)
    evidence = _live_alone(service, now, items, days, history, interaction)
    later_state = state_of(sibling)
    shared = tuple(name for name, state in earlier_state.items() if later_state.get(name) != state)
    if evidence.first.lake is None:
        return replace(evidence, copies=Copies("", shared))
    child = _run_copy(copy_of(service), days, history)
    late = _run_copy(copy_of(simulator), days, history)
    return replace(
        evidence,
        copies=Copies(
            "",
            shared,
            sibling=run_stretch(sibling, Probe(history, sibling.items), days),
            late=late,
            other=_run_copy(copy_of(simulator), days, history, other=True),
            child=child,
            parent=_last_log(evidence),
            seeded=tuple(_run_copy(copy_of(simulator, seed), days, history) for seed in SEEDS),
            now=simulator.now,
            items=simulator.items,
        ),
    )


def _last_log(evidence: Evidence) -> Lake | None:
    logs = [stretch.lake for stretch in evidence.stretches if stretch.lake is not None]
    return logs[-1] if logs else None


def _live_alone(
    service: Simulator,
    now: datetime,
    items: pl.DataFrame,
    days: int,
    history: int,
    interaction: bool,
) -> Evidence:
    first = run_stretch(service, Probe(history, items), days)
    second = first
    silent = first
    if first.lake is not None and isinstance(first.now, datetime):
        second = run_stretch(service, Probe(history, service.items), days)
        silent = run_stretch(service, None, days)
    return Evidence(now, items, first, second, silent, None, interaction)


def copy_of(simulator: Forkable, seed: int | None = None) -> Forkable | str:
    """A copy of a simulator, or what is wrong with it."""
    try:
        copied = simulator.fork() if seed is None else simulator.fork(seed=seed)
    except Exception as raised:
        return f"raises {described_error(raised)}"
    if copied is simulator:
        return "returns the service itself"
    if not isinstance(cast(object, copied), Forkable):
        return f"returns a {type(copied).__name__}"
    return copied


def _run_copy(
    copied: Forkable | str, days: int, history: int, other: bool = False
) -> Stretch | str:
    if isinstance(copied, str):
        return copied
    return run_stretch(copied, Probe(history, copied.items, other), days)
