"""Stage `simulate`: a simulated service whose log becomes the run's lake."""

from __future__ import annotations

from datetime import date
from typing import Literal

from longplay.lake import Lake
from longplay.lake.glance import glance
from longplay.policies.simple import Popular
from longplay.results.log_figures import LogSource, SimulateResult
from longplay.run.engine import Stage, Work, depends_on
from longplay.run.stages.ingest import log_line
from longplay.run.tables import Configuration, Positive, Share, Table, midnight
from longplay.world import World, WorldConfig


class Simulate(Table):
    """A log from the simulated world, shown slates by a stochastic popular policy."""

    world: str = "default"  # the name of a world of docs/worlds.md
    numbers: dict[str, float] = {}  # of WorldConfig, where they differ from that world's
    users: Positive = 2_000
    items: Positive = 600
    days: Positive = 84
    slate: Positive = 5
    explore: Share = 0.2
    exclude: Literal["seen", "creator", "none"] = (
        "none"  # what home slates leave out; where it is given, the rule of training, too
    )

    def world_config(self) -> WorldConfig:
        """The world's numbers."""
        return WorldConfig.of(
            {"base": self.world, **{key: _whole(value) for key, value in self.numbers.items()}},
            "simulate.numbers",
        )


def _whole(value: float) -> float | int:
    return int(value) if value == int(value) else value


def run(work: Work) -> SimulateResult:
    """Simulate a service and write its log to a lake on disk."""
    world, lake = world_of(work)
    table = work.config.of(Simulate)
    on_disk = Lake.open(work.folder / "lake")
    on_disk.append(
        "simulate",
        events=lake.events,
        decisions=lake.decisions,
        contexts=lake.contexts,
        items=lake.items,
        users=None if lake.users.is_empty() else lake.users,
        watermark=world.now,
        now=world.now,
    )
    seed = work.config.run.seed
    return SimulateResult(
        **vars(glance(on_disk)),
        source=LogSource("simulated world", f"seed {seed}", on_disk.events.height),
        rejected={},
        notes=(
            f"a simulated service, world {table.world!r}: {table.users:,} users, {table.items:,} "
            f"items, {table.days} days, seed {seed}; its long-term truth is known",
            f"slates of {table.slate} by a popular policy with {table.explore:.0%} exploration, "
            "every propensity logged",
        ),
        has_origin=True,
        has_decisions=True,
        exclude=table.exclude,
    )


def world_of(work: Work, until: date | None = None) -> tuple[World, Lake]:
    """The simulated service and its log, up to the midnight that begins `until`, else to the end.

    Equal configurations give equal logs.
    """
    table = work.config.of(Simulate)
    stated = table.exclude if "exclude" in table.model_fields_set else None
    world = World(
        users=table.users,
        items=table.items,
        seed=work.config.run.seed,
        config=table.world_config(),
        exclude=stated,
    )
    days = table.days if until is None else (midnight(until) - world.now).days
    return world, world.run(
        Popular(slate=table.slate, explore=table.explore),
        days=days,
        progress=work.bar("simulating days"),
    )


def _check(config: Configuration) -> None:
    """Check that the world exists and has the numbers that are set."""
    if (table := config.find(Simulate)) is not None:
        table.world_config()


STAGE = Stage(
    name="simulate",
    order=20,
    version=3,
    help="Simulate a small service into a lake: users, items, habits, a logger with exact "
    "propensities.",
    table=Simulate,
    presence="optional",
    check=_check,
    applies=lambda config: config.find(Simulate) is not None,
    depends=depends_on("simulate"),
    run=run,
    line=log_line,
    settles=True,
)
