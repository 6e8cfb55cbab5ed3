"""What a service knows of users and items is read by whoever declares it, and by nobody else."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import polars as pl
import pytest

import longplay as lp
from longplay.decisions import Contexts, reads_users, showings_of
from longplay.lake import Lake
from longplay.lake.schema import APPENDED

HABIT = lp.Signal(
    "habit",
    entry=lp.discovery(novel_for=14),
    measure=lp.days_with("creator") >= 2,
    window=(1, 7),
)
NEW_COLUMNS = ("user_vector", "user_attributes", "shown", "shown_time", "vector", "attributes")


@pytest.fixture(scope="module")
def lakes() -> tuple[Lake, Lake]:
    """A log, and the same log with all that a service could know: how often each user came and each
    item was played, which tells much of what is to be predicted."""
    log = lp.World(users=70, items=40, seed=3).run(lp.Popular(slate=3, explore=0.3), days=42)
    tables = {table: getattr(log, table) for table in APPENDED}
    plain = {
        table: frame.drop(NEW_COLUMNS, strict=False)
        for table, frame in tables.items()
        if table != "users"
    }
    begin = log.events["time"].min() - timedelta(days=1)  # type: ignore[operator]
    counts = {
        key: log.events.drop_nulls(key).group_by(key).len().sort(key)
        for key in ("user_id", "item_id")
    }
    vector = pl.concat_list(pl.col("len").cast(pl.Float64), -pl.col("len").cast(pl.Float64))
    users = counts["user_id"].select(
        "user_id",
        vector=vector,
        attributes=pl.lit('{"events":') + pl.col("len").cast(pl.String) + pl.lit("}"),
        added_at=pl.lit(begin),
    )
    of_items = counts["item_id"].select("item_id", vector=vector)
    items = (
        plain["items"]
        .join(of_items, on="item_id", how="left")
        .with_columns(attributes=pl.lit('{"genre":"jazz"}'))
    )
    contexts = plain["contexts"].with_columns(
        shown=pl.lit(items["item_id"][:2].to_list(), dtype=pl.List(pl.String)),
        shown_time=pl.concat_list(
            pl.col("time") - pl.duration(days=2), pl.col("time") - pl.duration(days=1)
        ),
    )
    without = Lake.memory()
    without.append("log", **plain, watermark=log.watermark)
    beside = Lake.memory()
    known = plain | {"items": items, "users": users}
    known["contexts"] = Contexts(contexts).known_from(_users_alone(users, log)).frame
    beside.append("log", **known, watermark=log.watermark)
    assert beside.contexts["user_vector"].null_count() == 0
    assert without.contexts["user_vector"].null_count() == without.contexts.height > 300
    return without, beside


def _users_alone(users: pl.DataFrame, log: Lake) -> Lake:
    lake = Lake.memory()
    lake.append("users", users=users, watermark=log.watermark)
    return lake


def filled(lake: Lake, history: int) -> Contexts:
    contexts = lp.contexts_from_log(lake, slots=3, history=history, limit=80, seed=1)
    return contexts.known_from(lake)


def test_policies_and_early_rewards_learn_the_same_bit_for_bit(lakes: tuple[Lake, Lake]) -> None:
    values = []
    for lake in lakes:
        outcomes = HABIT.outcomes(lake)
        early = lp.ProgressiveReward(HABIT).fit(lake, outcomes)
        generative = lp.Generative(scale="tiny", steps=6, seed=5).fit(lake)
        tuned = lp.reinforce(generative, lp.Reward({HABIT: 1.0}), early, lake, steps=1, seed=5)
        popular = lp.Popular(slate=3).adapt(lake.items, lake.events)
        contexts = filled(lake, generative.history)
        rng = np.random.default_rng(2)
        slates = tuned.decide(contexts, rng)
        shown = outcomes.on(lake.decisions)
        values.append(
            {
                "popular": popular.log_prob(contexts, slates.slates),
                "generative": generative.item_log_prob(contexts),
                "tuned": slates.log_prob,
                "value": early.value(contexts, slates.slates, lake).mean,
                "off-policy": np.array(
                    [lp.doubly_robust(popular, lake, shown, users="all", surface=None).value]
                ),
            }
        )
        assert (reads_users(tuned), showings_of(tuned)) == (False, 0)
    for name, value in values[0].items():
        np.testing.assert_array_equal(value, values[1][name], err_msg=name)


def test_contexts_of_a_log_carry_nothing_unless_asked(lakes: tuple[Lake, Lake]) -> None:
    frame = lp.contexts_from_log(lakes[1], slots=3, history=5, limit=20).frame
    assert frame.select(NEW_COLUMNS[:4]).null_count().row(0) == (20,) * 4
