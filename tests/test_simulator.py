"""Anybody's simulator plugs into trials, read-outs and audits: here a service of coins whose effect
is known exactly."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

import longplay as lp
from longplay.chance import keyed_uniform
from longplay.decisions import Adaptive, Contexts, Policy
from longplay.lake.schema import conform, empty
from longplay.world import Simulator, World

START = datetime(2026, 1, 1, tzinfo=UTC)
USERS, ITEMS = 4_000, 20


class Coins:
    """Users come on a day with chance .3, and .4 for four weeks after the item `good` was first
    shown to them."""

    def __init__(self) -> None:
        self.day = 0
        self.lake = lp.Lake.memory()
        self.users = pl.Series([f"u{u}" for u in range(USERS)])
        self.better_from = np.full(USERS, 10**6)
        ids = pl.Series("item_id", [f"i{i:02d}" for i in range(ITEMS)])
        self.items = pl.DataFrame(
            {"item_id": ids, "creator_id": ids.str.replace("i", "c")}
        ).with_columns(added_at=pl.lit(START - timedelta(days=1)), available=pl.lit(True))

    @property
    def now(self) -> datetime:
        return START + timedelta(days=self.day)

    def run(
        self, policy: Policy | None, days: int, progress: Callable[[int, int], None] | None = None
    ) -> lp.Lake:
        first, events, decisions, contexts = self.day, [], [], []
        today = empty("events")
        for _ in range(days):
            if isinstance(policy, Adaptive):
                policy = policy.adapt(self.items, today)
            since = self.day - self.better_from
            u = keyed_uniform(f"coin {self.day}", self.users)
            here = np.flatnonzero(u < np.where((since >= 1) & (since <= 28), 0.4, 0.3))
            names, time = self.users.gather(here), self.now + timedelta(hours=12)
            if policy is not None:
                asked = Contexts.of(names, time, slots=1, ids=names + f"-{self.day}")
                said = policy.decide(asked, np.random.default_rng(self.day))
                good = said.slates.list.first().to_numpy() == "i00"
                self.better_from[here[good]] = np.minimum(self.better_from[here[good]], self.day)
                contexts.append(asked.frame)
                decisions.append(said.frame)
            visits = pl.DataFrame(
                {
                    "event_id": names + f"@{self.day}",
                    "user_id": names,
                    "item_id": None,
                    "kind": "visit",
                }
            )
            today = conform(
                visits.with_columns(time=pl.lit(time), item_id=pl.lit(None, dtype=pl.String)),
                "events",
            )
            events.append(today)
            self.day += 1
        frames = {"events": pl.concat(events), "items": self.items}
        if policy is not None:
            frames |= {"decisions": pl.concat(decisions), "contexts": pl.concat(contexts)}
        self.lake.append(f"{first}", watermark=self.now, **frames)
        return self.lake.before(self.now)


class Only:
    """Shows one item."""

    history, slate = 0, 1

    def __init__(self, item: str) -> None:
        self.item, self.name = item, f"only-{item}@1"

    def decide(self, contexts: Contexts, rng: np.random.Generator) -> lp.Decisions:
        slates = pl.Series("slate", [[self.item]]).new_from_index(0, len(contexts))
        return lp.Decisions.of(contexts, slates, np.zeros((len(contexts), 1)), self.name)

    def log_prob(self, contexts: Contexts, slates: pl.Series) -> np.ndarray:
        return np.where(slates.list.first().to_numpy()[:, None] == self.item, 0.0, -np.inf)


def test_the_world_and_a_stranger_are_both_simulators() -> None:
    assert isinstance(Coins(), Simulator)
    assert isinstance(World(users=3, items=6), Simulator)


def test_a_trial_in_a_strangers_simulator_finds_its_known_effect_and_an_audit_reads_it() -> None:
    active = lp.Signal("active", entry=lp.enrolment(), measure=lp.active_days(), window=(1, 28))
    back = lp.Signal("back", entry=lp.exposure("item"), measure=lp.returned(), window=(1, 7))
    service: Simulator = Coins()
    service.run(None, days=28)
    log = service.run(Only("i01"), days=40)
    early = lp.ProgressiveReward(back).fit(log, back.outcomes(log))
    trial = lp.Experiment(control=Only("i01"), treatment=Only("i00"), salt="coins")
    lake = service.run(trial, days=50)
    line = trial.analyze(lake, [active]).line("active")
    # everybody is enrolled at a visit and shown the item then: 28 days at .4 instead of .3
    low, high = line.difference.interval()
    assert low < 2.8 < high
    assert high - low < 0.6
    found = lp.audit(early, trial, lake, north_star=active).verdicts[0]
    assert found.north_star is not None
    assert found.late is not None
    assert found.late.value > 0  # more slots are shown, and more of them bring people back
