"""A small simulator of one's own, which can be forked: `python examples/own_simulator.py`.

A newsstand. People come on some days and read some of what they are shown. Who likes a paper comes
oftener and reads it without being asked. docs/worlds.md says why each line is there.
"""

from __future__ import annotations

import copy
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

import longplay as lp
from longplay.chance import keyed_uniform
from longplay.decisions import Adaptive, slots_of
from longplay.world import check_simulator, paired_truth

START = datetime(2026, 1, 1, tzinfo=UTC)
EVENT = {"event_id": pl.String, "user_id": pl.String, "item_id": pl.String, "creator_id": pl.String}
EVENT |= {"kind": pl.String, "time": pl.Datetime("us", "UTC"), "surface": pl.String}
EVENT |= {"origin": pl.String, "decision_id": pl.String, "slot": pl.Int32}
APPEAL = [0.2, 0.3, 0.4, 0.5, 0.6, 0.7]  # of the six papers: chance that a shown article is read
DEPTH = [1.0, 0.8, 0.6, 0.4, 0.2, 0.0]  # how much a read article makes a reader like the paper


def paper_of(item: str) -> int:
    return int(item.rsplit("-", 1)[1])


class Newsstand:
    def __init__(self, users: int = 200, seed: int = 7) -> None:
        self.seed = seed
        self.day = 0
        self.lake = lp.Lake.memory()
        self.users = pl.Series("user_id", [f"u{n}" for n in range(users)])
        self.read: list[list[str]] = [[] for _ in range(users)]
        self.likes = np.zeros((users, len(APPEAL)))

    @property
    def now(self) -> datetime:
        return START + timedelta(days=self.day)

    @property
    def items(self) -> pl.DataFrame:
        rows = [
            (f"a{n}-{paper}", f"p{paper}", START + timedelta(days=n))
            for n in range(-30, self.day + 1)  # one more article of each paper every day
            for paper in range(len(APPEAL))
        ]
        return pl.DataFrame(rows, schema=["item_id", "creator_id", "added_at"], orient="row")

    def luck(self, purpose: str, counter: int = 0) -> np.ndarray:
        """A number in (0, 1) for each user, which follows from the key alone."""
        return keyed_uniform(f"{self.seed} {purpose} {self.day} {counter}", self.users)

    def fork(self, *, seed: int | None = None) -> Newsstand:
        other = copy.deepcopy(self)
        other.seed = self.seed if seed is None else seed
        return other

    def run(self, policy, days, progress=None) -> lp.Lake:
        tables = {"events": [], "contexts": [], "decisions": []}
        events = pl.DataFrame(schema=EVENT)
        for done in range(1, days + 1):
            if isinstance(policy, Adaptive):
                policy = policy.adapt(self.items, events)
            events = self.live_a_day(policy, tables)
            if progress is not None:
                progress(done, days)
        log = {name: pl.concat(frames) for name, frames in tables.items() if frames}
        self.lake.append(
            f"until-{self.day}", items=self.items, watermark=self.now, now=self.now, **log
        )
        return self.lake.before(self.now)

    def live_a_day(self, policy, tables) -> pl.DataFrame:
        came = np.flatnonzero(self.luck("visit") < 0.3 + 0.5 * np.tanh(self.likes.sum(axis=1)))
        times = [self.now + timedelta(hours=6 + 12 * hour) for hour in self.luck("hour")[came]]
        rows = []
        for user, time in zip(came, times):
            rows.append(self.event(user, time, "visit", "organic", "home"))
        reads = []
        if policy is not None and len(came):
            contexts = lp.Contexts.of(
                self.users.gather(came),
                [time + timedelta(minutes=1) for time in times],
                slots=slots_of(policy),
                ids=self.users.gather(came) + f"-{self.day}",
                history=[self.past(user, policy.history) for user in came],
                exclusions=[sorted(set(self.read[user])) for user in came],
                exclude="seen",
            )
            decisions = policy.decide(contexts, np.random.default_rng([self.seed, self.day]))
            tables["contexts"].append(contexts.frame)
            tables["decisions"].append(decisions.frame)
            reads += self.shown_reading(came, decisions, rows)
        reads += self.own_reading(came, times, rows)
        self.likes *= 0.9
        for user, item in reads:
            paper = paper_of(item)
            self.likes[user, paper] += 0.5 * DEPTH[paper]
            self.read[user].append(item)
        events = pl.DataFrame(rows, schema=EVENT)
        tables["events"].append(events)
        self.day += 1
        return events

    def past(self, user: int, length: int) -> list[str]:
        return self.read[user][max(len(self.read[user]) - length, 0) :] if length else []

    def own_reading(self, came, times, rows) -> list[tuple[int, str]]:
        """Everybody may read the newest article of the paper they like best."""
        luck = self.luck("own")
        reads = []
        for user, time in zip(came, times):
            paper = int(self.likes[user].argmax())
            item = f"a{self.day}-{paper}"
            if luck[user] < np.tanh(self.likes[user, paper]) and item not in self.read[user]:
                later = time + timedelta(hours=1)
                rows.append(self.event(user, later, "play", "organic", "library", item))
                reads.append((user, item))
        return reads

    def shown_reading(self, came, decisions, rows) -> list[tuple[int, str]]:
        """What is read of each slate. Slots have their own luck, whatever is in them."""
        reads = []
        longest = decisions.frame["slate"].list.len().max()
        luck = [self.luck("slot", slot) for slot in range(longest)]
        for user, decision in zip(came, decisions.frame.iter_rows(named=True)):
            for slot, item in enumerate(decision["slate"]):
                if luck[slot][user] < APPEAL[paper_of(item)]:
                    later = decision["time"] + timedelta(minutes=1 + slot)
                    place = {"decision_id": decision["decision_id"], "slot": slot}
                    rows.append(self.event(user, later, "play", "recommended", "home", item, place))
                    reads.append((user, item))
        return reads

    def event(self, user, time, kind, origin, surface, item=None, place=None) -> dict:
        where = "" if place is None else f"-{place['slot']}"
        return {
            "event_id": f"{self.users[int(user)]}-{self.day}-{surface}-{kind}{where}",
            "user_id": self.users[int(user)],
            "item_id": item,
            "creator_id": None if item is None else f"p{paper_of(item)}",
            "kind": kind,
            "time": time,
            "surface": surface,
            "origin": origin,
            **(place or {}),
        }


if __name__ == "__main__":
    print(check_simulator(Newsstand()))
    active = lp.Signal("active", lp.enrolment(), lp.active_days(), (1, 28))
    policies = {"uniform": lp.Uniform(slate=3), "popular": lp.Popular(slate=3)}
    print(paired_truth(Newsstand(), policies, active))
