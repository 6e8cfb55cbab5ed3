"""Exclusions in training and in deployment are one rule: another one is refused where it is stated,
and said where it is not."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import longplay as lp
from longplay.decisions import Contexts, Frozen, contexts_at, contexts_from_log
from longplay.errors import ConfigError, DataError
from longplay.lake import Lake

HABIT = lp.Signal(
    "habit", entry=lp.discovery(novel_for=28), measure=lp.days_with("creator") >= 2, window=(1, 7)
)
START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def lake() -> Lake:
    return lp.World(users=60, items=80, seed=3).run(lp.Popular(slate=3, explore=0.3), days=25)


@pytest.fixture(scope="module")
def policy(lake: Lake) -> lp.Generative:
    start = lp.Generative(seed=1, slate=3, steps=3, exclude="creator").fit(lake)
    assert (
        len(start.decide(moments(lake, "none"), np.random.default_rng(0))) == 20
    )  # next-item training excludes nothing: any rule is its own
    return replace(start, rule="creator")


def moments(lake: Lake, exclude: str | None) -> Contexts:
    return contexts_from_log(lake, slots=3, history=20, limit=20, exclude=exclude)


def test_contexts_state_the_rule_that_was_given(lake: Lake) -> None:
    for exclude in ("seen", "creator", "none"):
        assert moments(lake, exclude).frame["exclusion_rule"].unique().to_list() == [exclude]
        assert (
            moments(lake, exclude)
            .take([0, 1])
            .reading(3)
            .with_slots(2)
            .frame["exclusion_rule"]
            .to_list()
            == [exclude] * 2
        )
    unsaid = moments(lake, None)
    assert unsaid.frame["exclusion_rule"].null_count() == len(unsaid)
    assert unsaid.frame["exclusions"].equals(moments(lake, "seen").frame["exclusions"])
    with pytest.raises(
        ConfigError,
        match=r"Contexts.of: exclude='heard' given, expected one of seen, creator, none",
    ):
        Contexts.of(["u"], START, slots=1, exclude="heard")
    with pytest.raises(DataError, match="unknown rule of exclusions"):
        Contexts(unsaid.frame.with_columns(exclusion_rule=pl.lit("heard")))


def test_a_policy_refuses_contexts_made_under_another_rule(
    lake: Lake, policy: lp.Generative, tmp_path: Path
) -> None:
    # catches: a policy that learned where familiar creators are left out, deployed where they are
    # not, and nobody is told
    rng = np.random.default_rng(0)
    for wrapped in (policy, Frozen(policy), lp.Page({"all": policy}, {"all": 3})):
        assert len(wrapped.decide(moments(lake, "creator"), rng)) == 20
        assert len(wrapped.decide(moments(lake, None), rng)) == 20  # nobody knows which rule
        for other in ("seen", "none"):
            with pytest.raises(
                ConfigError,
                match=f"{policy.name} was trained under exclude='creator' and is deployed under "
                f"exclude='{other}'.*under",
            ):
                wrapped.decide(moments(lake, other), rng)
    policy.save(tmp_path / "policy")
    with pytest.raises(ConfigError, match="trained under exclude='creator'"):
        lp.Generative.load(tmp_path / "policy").decide(moments(lake, "seen"), rng)


def test_another_rule_that_is_meant_is_in_the_name(
    lake: Lake, policy: lp.Generative, tmp_path: Path
) -> None:
    meant = policy.under("none")
    assert meant.name == policy.name.replace("generative@", "generative-creator-under-none@")
    decided = meant.decide(moments(lake, "none"), np.random.default_rng(0))
    assert decided.frame["policy"].unique().to_list() == [meant.name]
    with pytest.raises(ConfigError, match="deployed under exclude='seen'"):
        meant.decide(moments(lake, "seen"), np.random.default_rng(0))
    meant.save(tmp_path / "policy")
    assert lp.Generative.load(tmp_path / "policy").name == meant.name
    assert policy.under("creator").name == policy.name
    with pytest.raises(
        ConfigError,
        match=r"Generative.under: exclude='all' given, expected one of seen, creator, none",
    ):
        policy.under("all")
    with pytest.raises(ConfigError, match="Generative: exclude='all' given"):
        lp.Generative(exclude="all")


def test_a_world_that_states_its_rule_refuses_and_one_that_does_not_says_so(
    lake: Lake, policy: lp.Generative, caplog: pytest.LogCaptureFixture
) -> None:
    strict = lp.World(users=20, items=80, seed=3, exclude="none")
    trial = lp.Experiment(control=policy, treatment=replace(policy, seed=2), salt="a")
    for run in (policy, trial):
        with pytest.raises(
            ConfigError,
            match="was trained under exclude='creator' and is deployed under exclude='none'",
        ):
            strict.run(run, days=1)
    assert not caplog.records
    told = lp.World(users=20, items=80, seed=3)
    with caplog.at_level(logging.WARNING):
        told.run(trial, days=1)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1
    assert said[0].startswith(
        f"{policy.name} was trained under exclude='creator' and is deployed under exclude='none'"
    )
    caplog.clear()
    same = lp.World(users=20, items=400, seed=3, exclude="creator")
    same.run(lp.Popular(slate=3), days=2)  # a policy without a rule fits any
    assert same.lake.contexts.filter(pl.col("surface") == "home")[
        "exclusion_rule"
    ].unique().to_list() == ["creator"]
    assert not caplog.records


def test_a_policy_keeps_the_rule_that_it_was_reinforced_under(
    lake: Lake, policy: lp.Generative
) -> None:
    early = lp.MaturedOnly(HABIT).fit(lake, HABIT.outcomes(lake))
    settings: dict = {"steps": 1, "contexts": 2, "group": 2}
    reward = lp.Reward({HABIT: 1.0})
    assert lp.reinforce(policy, reward, early, lake, **settings).rule == "creator"
    assert lp.reward_weighted(policy, reward, early, lake, **settings).rule == "creator"
    other = lp.reinforce(policy, reward, early, lake, exclude="none", **settings)
    assert (other.rule, other.exclude) == ("none", "none")
    assert len(other.decide(moments(lake, "none"), np.random.default_rng(0))) == 20
    with pytest.raises(ConfigError, match="trained under exclude='none'"):
        other.decide(moments(lake, "creator"), np.random.default_rng(0))


def test_a_lake_keeps_the_rule(tmp_path: Path, lake: Lake) -> None:
    log = Lake.open(tmp_path / "lake")
    users = pl.DataFrame(
        {"user_id": lake.events["user_id"].head(1), "time": [lake.watermark - timedelta(days=1)]}
    )
    log.append(
        "one",
        contexts=contexts_at(lake, users, slots=2, history=3, exclude="seen").frame,
        watermark=lake.watermark,
    )
    assert Lake.open(tmp_path / "lake").contexts["exclusion_rule"].to_list() == ["seen"]
