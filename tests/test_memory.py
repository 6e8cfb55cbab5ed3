"""What policies see of users' past in a simulated service: past showings, against a plain loop over
the decisions of the log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import longplay as lp
from longplay.decisions import Contexts, Decisions, Frozen, as_read
from longplay.errors import ConfigError
from longplay.lake import Lake
from longplay.policies.page import Page
from longplay.policies.simple import Popular, Uniform
from longplay.world import START, World, WorldConfig, paired_truth
from longplay.world import memory as memory_module
from longplay.world.memory import Reading

BUSY = WorldConfig(churn=0.01, new_share=0.5, new_days=20, search=0.3, shelf=0.6)
ACTIVE = lp.Signal("active", entry=lp.enrolment(), measure=lp.active_days(), window=(1, 3))
TRIED = lp.Signal("tried", entry=lp.exposure("item"), measure=lp.days_with("item"), window=(1, 2))


@dataclass(frozen=True)
class Reader(Uniform):
    """Shows anything, reads the last showings, and keeps the contexts it was handed."""

    showings: int = 7
    seen: list[Contexts] = field(default_factory=list, compare=False)

    def decide(self, contexts: Contexts, rng: np.random.Generator) -> Decisions:
        self.seen.append(contexts)
        return super().decide(contexts, rng)


@dataclass(frozen=True)
class Short(Reader):
    """Shows one item less to every other user, and nothing to every fifth."""

    @property
    def shorter(self) -> bool:
        return True

    def decide(self, contexts: Contexts, rng: np.random.Generator) -> Decisions:
        frame = super().decide(contexts, rng).frame
        number = pl.col("user_id").str.slice(1).cast(pl.Int64)
        count = pl.when(number % 5 == 0).then(0).when(number % 2 == 0).then(2).otherwise(3)
        heads = [pl.col(name).list.head(count) for name in ("slate", "log_prob")]
        return Decisions(frame.with_columns(heads))


def shown_before(decisions: pl.DataFrame, most: int) -> dict[str, tuple[list, list]]:
    """For each home context of these decisions, what was shown unasked before: items and times."""
    past: dict[str, list[tuple[str, datetime]]] = {}
    expected = {}
    for row in decisions.sort("time").iter_rows(named=True):
        shown = past.setdefault(row["user_id"], [])
        if row["surface"] == "home":
            last = shown[-most:]
            expected[row["context_id"]] = ([item for item, _ in last], [time for _, time in last])
        if row["surface"] in ("home", "new_releases"):
            shown += [(item, row["time"]) for item in row["slate"]]
    return expected


def assert_handed_out(contexts: pl.DataFrame, decisions: pl.DataFrame, most: int) -> None:
    expected = shown_before(decisions, most)
    home = contexts.filter(pl.col("surface") == "home")
    assert home.height > 50
    for row in home.iter_rows(named=True):
        assert (row["shown"], row["shown_time"]) == expected[row["context_id"]]
    length = home["shown"].list.len().to_numpy()
    assert length.max() == most, "some users were shown as much as is read"
    assert length.min() < most, "and some were not"


@pytest.mark.parametrize("make", [Reader, Short])
@pytest.mark.parametrize("on_disk", [False, True])
def test_past_showings_are_those_of_the_log_over_two_runs_on_both_surfaces(
    make: type[Reader], on_disk: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("longplay.world.service._FLUSH_ROWS", 500)
    folder = tmp_path / "lake" if on_disk else None
    world = World(users=60, items=90, seed=3, config=BUSY, folder=folder)
    world.run(Popular(slate=3, explore=0.2), days=12)
    world.run(None, days=2)
    middle = world.now
    world.run(make(slate=3, showings=9), days=6)
    last = world.now
    lake = world.run(make(slate=2 if make is Reader else 3, showings=30), days=6)
    contexts = lake.contexts
    home = pl.col("surface") == "home"
    assert contexts.filter(home & (pl.col("time") < middle))["shown"].null_count() > 0
    assert contexts.filter(~home)["shown"].null_count() == contexts.filter(~home).height
    between = (pl.col("time") >= middle) & (pl.col("time") < last)
    assert_handed_out(contexts.filter(between), lake.decisions.filter(pl.col("time") < last), 9)
    assert_handed_out(contexts.filter(pl.col("time") >= last), lake.decisions, 30)
    surfaces = set(lake.decisions["surface"])
    assert surfaces == {"home", "new_releases", "search"}, (
        "a search is asked for: it does not count"
    )


def test_a_fork_sees_what_its_original_was_shown_before_it_and_what_it_was_shown_itself() -> None:
    world = World(users=80, items=90, seed=5, config=BUSY)
    world.run(Popular(slate=3, explore=0.2), days=8)
    past = world.lake.decisions
    rows = np.arange(10, 70)
    fork = world.fork(rows, seed=1)
    world.run(Uniform(slate=4), days=3)  # the original lives on: the copies do not see it
    assert fork.lake.decisions.is_empty()
    fork.run(Uniform(slate=3), days=4)
    of_fork = fork.lake.decisions
    second = fork.fork(np.arange(0, 50), seed=2)
    lake = second.run(Reader(slate=3, showings=25), days=5)
    ids = pl.col("user_id").is_in(world.user_ids.gather(rows[:50]).implode())
    decisions = pl.concat([past, of_fork, lake.decisions]).filter(ids)
    assert_handed_out(lake.contexts, decisions, 25)


def test_truth_and_paired_truth_hand_out_the_showings_of_the_log() -> None:
    world = World(users=60, items=60, seed=5, config=BUSY)
    lake = world.run(Uniform(slate=3), days=10)
    readers = [Reader(slate=3, showings=12) for _ in range(3)]
    world.truth(readers[0], ACTIVE)
    world.difference(readers[1], Uniform(slate=3), ACTIVE, seed=1)
    paired_truth(world, {"reader": readers[2]}, ACTIVE)
    for reader in readers:
        first = reader.seen[0].frame
        expected = shown_before(pl.concat([lake.decisions, _as_decisions(first)]), 12)
        handed_out = dict(
            zip(
                first["context_id"],
                zip(first["shown"].to_list(), first["shown_time"].to_list(), strict=True),
                strict=True,
            )
        )
        assert handed_out == {name: expected[name] for name in first["context_id"]}
        assert first["shown"].list.len().max() == 12


def _as_decisions(contexts: pl.DataFrame) -> pl.DataFrame:
    slates = pl.Series("slate", [[]] * contexts.height, dtype=pl.List(pl.String))
    ids = Contexts(contexts)
    return Decisions.of(ids, slates, np.zeros((contexts.height, 0)), "none@1").frame.select(
        World(users=1, items=9).lake.decisions.columns
    )


@dataclass(frozen=True)
class Daily:
    """Shows everybody the items of the day, and keeps the contexts it was handed."""

    items: pl.Series
    slate: int
    width: int
    showings: int
    seen: list[Contexts] = field(default_factory=list, compare=False)
    history: int = 0

    @property
    def name(self) -> str:
        return f"daily@{self.width}"

    def of_day(self, day: int) -> list[str]:
        return [self.items[(day * self.slate + slot) % self.width] for slot in range(self.slate)]

    def decide(self, contexts: Contexts, rng: np.random.Generator) -> Decisions:
        self.seen.append(contexts)
        day = (contexts.frame["time"] - START).dt.total_days()
        slates = pl.Series("slate", [self.of_day(of) for of in day], dtype=pl.List(pl.String))
        return Decisions.of(contexts, slates, np.zeros((len(contexts), self.slate)), self.name)

    def log_prob(self, contexts: Contexts, slates: pl.Series) -> np.ndarray:
        return np.zeros((len(contexts), self.slate))


def test_branches_of_one_step_were_shown_the_changed_slate_and_all_else_that_the_logger_showed() -> (
    None
):
    config = WorldConfig(new_share=0.0, churn=0.0, shelf=0.0, activity=1.0)
    world = World(users=25, items=60, seed=2, config=config)
    ids = world.items["item_id"]
    logger = Daily(ids[:40], slate=3, width=40, showings=1_000)
    target = Daily(ids[40:], slate=3, width=20, showings=4)
    world.truth(
        target, TRIED, days=2, estimand="one_step", logger=logger, start=START + timedelta(2)
    )
    new = set(ids[40:])

    # on the main line only the logger decides
    visits: dict[str, dict[datetime, list[str]]] = {}
    after_branching = []
    for contexts in logger.seen:
        rows = contexts.frame.select("user_id", "time", "shown", "shown_time").rows()
        changed = [sum(item in new for item in shown) for _, _, shown, _ in rows]
        if not any(changed):
            for user, time, _, _ in rows:
                visits.setdefault(user, {})[time] = logger.of_day((time - START).days)
        else:
            assert set(changed) == {1}, "each copy was shown one slot of the policy"
            after_branching.append(rows)
    for contexts in logger.seen:
        for user, time, shown, shown_time in contexts.frame.select(
            "user_id", "time", "shown", "shown_time"
        ).rows():
            if not set(shown) & new:
                before = sorted(past for past in visits[user] if past < time)
                assert shown == [item for past in before for item in visits[user][past]]
                assert shown_time == [past for past in before for _ in range(3)]
    assert len(after_branching) >= 4
    for rows in after_branching:
        for user, time, shown, shown_time in rows:
            slates = _by_time(shown, shown_time)
            judged = [past for past, slate in slates.items() if set(slate) & new]
            assert len(judged) == 1
            assert 2 <= (judged[0] - START).days <= 3
            for past, slate in slates.items():
                assert past < time
                assert len(slate) == 3
                usual = logger.of_day((past - START).days)
                if past != judged[0]:
                    assert slate == usual
                else:
                    slot = next(k for k, item in enumerate(slate) if item in new)
                    assert slate[:slot] == usual[:slot]
                    assert past in visits[user]
            main = {past for past in visits[user] if past <= judged[0]}
            assert {past for past in slates if past <= judged[0]} == main
    # the policy reads less than the logger, and is handed no more
    handed_out = pl.concat([contexts.frame for contexts in target.seen])
    assert handed_out["shown"].list.len().max() == 4
    for user, time, shown in handed_out.select("user_id", "time", "shown").rows():
        before = sorted(past for past in visits[user] if past < time)
        assert shown == [item for past in before for item in visits[user][past]][-4:]


def _by_time(shown: Sequence[str], shown_time: Sequence[datetime]) -> dict[datetime, list[str]]:
    slates: dict[datetime, list[str]] = {}
    for item, time in zip(shown, shown_time, strict=True):
        slates.setdefault(time, []).append(item)
    return slates


def test_nothing_is_read_or_handed_out_for_policies_that_read_no_showings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the log is read for a policy that reads no showings")

    monkeypatch.setattr(memory_module, "_last_showings", refuse)
    world = World(users=30, items=40, seed=1, config=BUSY)
    for policy in (Popular(slate=3), None, Uniform(slate=2)):
        world.run(policy, days=2)
    world.fork(np.arange(30)).run(Frozen(Uniform().fit(world.lake)), days=1)
    lake = world.lake
    assert lake.contexts["shown"].null_count() == lake.contexts.height
    assert lake.contexts["shown_time"].null_count() == lake.contexts.height


def test_reading_showings_changes_nobodys_life() -> None:
    lakes = [
        World(users=50, items=40, seed=1, config=BUSY).run(policy, days=8)
        for policy in (Uniform(slate=3), Reader(slate=3))
    ]
    assert lakes[0].events.equals(lakes[1].events)
    assert lakes[0].decisions.equals(lakes[1].decisions)
    columns = [name for name in lakes[0].contexts.columns if not name.startswith("shown")]
    assert lakes[0].contexts.select(columns).equals(lakes[1].contexts.select(columns))


def test_an_experiment_and_a_page_see_what_any_of_their_policies_reads() -> None:
    world = World(users=60, items=40, seed=1, config=BUSY)
    trial = lp.Experiment(Uniform(slate=3), Reader(slate=3, showings=5), salt="s")
    lake = world.run(trial, days=8)
    assert_handed_out(lake.contexts, lake.decisions, 5)
    nothing = lake.events.clear()
    silent = Reader(showings=0).adapt(world.items.head(9), nothing)
    reader = Reader(showings=5).adapt(world.items.tail(9), nothing)
    start = world.now
    page = Page({"a": silent, "b": reader}, {"a": 1, "b": 2})
    lake = world.run(page, days=3)
    assert_handed_out(lake.contexts.filter(pl.col("time") >= start), lake.decisions, 5)
    assert all(part.frame["shown"].null_count() == len(part) for part in silent.seen)
    assert pl.concat([part.frame for part in reader.seen])["shown"].null_count() == 0


def test_a_policy_is_handed_its_part_of_contexts_that_were_made_for_several() -> None:
    noon = START + timedelta(hours=12)
    times = [START + timedelta(hours=hour) for hour in (1, 2)]
    contexts = Contexts.of(
        ["u"],
        noon,
        slots=2,
        history=[["a", "b"]],
        user_vector=[[1.0]],
        user_attributes=['{"country": "SE"}'],
        shown=[["c", "d"]],
        shown_time=[times],
    )
    columns = ("history", "user_vector", "user_attributes", "shown", "shown_time")
    nothing = as_read(Uniform(), contexts).frame.select(columns).rows()
    assert nothing == [([], None, None, None, None)]
    last = as_read(Reader(showings=1), contexts).frame.select(columns).rows()
    assert last == [([], None, None, ["d"], times[1:])]


@pytest.mark.parametrize("showings", [-1, 2.5, "all", True])
def test_a_number_of_showings_that_is_none_is_an_error(showings: object) -> None:
    policy = Reader(showings=showings)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"showings=.*expected the number of past showings"):
        World(users=5, items=20).run(policy, days=1)
    assert Reading.of(None, Reader(showings=3), Uniform()) == Reading(0, 3, False)


def test_lakes_without_decisions_have_no_showings() -> None:
    world = World(users=30, items=40, seed=1)
    lake: Lake = world.run(Reader(slate=3), days=1)
    home = lake.contexts.filter(pl.col("surface") == "home")
    assert home["shown"].to_list() == [[]] * home.height
