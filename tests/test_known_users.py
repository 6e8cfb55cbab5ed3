"""What a service knows of users and items, as a policy reads it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from test_learning import HABIT, REWARD_OF_HABIT, same_weights

import longplay as lp
from longplay.belief import Belief
from longplay.codes.vectors import item_vectors
from longplay.decisions import Contexts, as_read, contexts_from_log
from longplay.errors import ConfigError
from longplay.index import ItemIndex
from longplay.lake import Lake

torch.set_num_threads(1)
START = datetime(2026, 1, 1, tzinfo=UTC)
USERS, ITEMS = 120, 24


def taste_of(user: str) -> float:
    """+1 or -1, what the service knows of a user."""
    return 1.0 if int(user[1:]) % 2 else -1.0


def side_of(item: str) -> float:
    return 1.0 if int(item[1:]) % 2 else -1.0


@dataclass(frozen=True)
class Matches:
    """An early reward that is 1 where the user's and the item's side agree, else 0."""

    name: str = "matches"
    signal: lp.Signal = HABIT

    def value(self, contexts: Contexts, slates: pl.Series, lake: Lake) -> Belief:
        mean = np.array(
            [
                [float(taste_of(user) == side_of(item)) for item in slate]
                for user, slate in zip(contexts.frame["user_id"], slates.to_list(), strict=True)
            ]
        )
        return Belief(mean, np.zeros_like(mean), np.ones_like(mean), 7, HABIT.label)


@pytest.fixture(scope="module")
def lake() -> Lake:
    """Plays at random, so that histories say nothing of tastes; users and items come with vectors."""
    rng = np.random.default_rng(0)
    plays = [
        (f"u{user}", f"i{rng.integers(ITEMS)}", START + timedelta(days=day, hours=8, minutes=user))
        for user in range(USERS)
        for day in range(1, 7)
    ]
    user, item, time = zip(*plays, strict=True)
    lake = Lake.memory()
    lake.append(
        "all",
        events=pl.DataFrame(
            {
                "event_id": [f"e{k}" for k in range(len(plays))],
                "user_id": user,
                "item_id": item,
                "creator_id": ["c" + name[1:] for name in item],
                "kind": ["play"] * len(plays),
                "time": time,
            }
        ),
        items=pl.DataFrame(
            {
                "item_id": [f"i{k}" for k in range(ITEMS)],
                "creator_id": [f"c{k}" for k in range(ITEMS)],
                "added_at": [START] * ITEMS,
                "vector": [[side_of(f"i{k}"), float(rng.normal())] for k in range(ITEMS)],
            }
        ),
        users=pl.DataFrame(
            {
                "user_id": [f"u{k}" for k in range(USERS)],
                "vector": [[3 + 2 * taste_of(f"u{k}"), 5.0] for k in range(USERS)],
                "added_at": [START] * USERS,
            }
        ),
        watermark=START + timedelta(days=8),
    )
    return lake


@pytest.fixture(scope="module")
def start(lake: Lake) -> lp.Generative:
    return lp.Generative(seed=1, steps=20, exclude="none", knows=("users", "items")).fit(lake)


def moments_of(lake: Lake, policy: lp.Generative) -> Contexts:
    return contexts_from_log(
        lake, slots=3, history=policy.history, exclude="none", users=policy.reads_users
    )


@pytest.fixture(scope="module")
def tilted(lake: Lake, start: lp.Generative) -> lp.Generative:
    """Trained on a third of the users alone."""
    some = lake.events.filter(pl.col("user_id").str.slice(1).cast(pl.Int64) < USERS // 3)
    part = Lake.memory()
    part.append("part", events=some, items=lake.items, users=lake.descriptions("users"),
                watermark=lake.watermark)  # fmt: skip
    return lp.tilt(
        start, REWARD_OF_HABIT, Matches(), part, steps=150, seed=2, lr=3e-3, contexts=16, kl=1.0
    )


def matched(policy: lp.Generative, contexts: Contexts) -> float:
    """Probability of items of the user's own side, mean over contexts."""
    law = np.exp(policy.item_log_prob(contexts))
    side = np.array([side_of(item) for item in policy.index.ids])
    taste = np.array([taste_of(user) for user in contexts.frame["user_id"]])
    return float((law * (taste[:, None] == side)).sum(axis=1).mean())


def test_an_untrained_map_changes_no_law(lake: Lake, start: lp.Generative) -> None:
    contexts = moments_of(lake, start)
    assert contexts.frame["user_vector"].null_count() == 0
    assert matched(start, contexts) == pytest.approx(0.5, abs=0.1)
    without = start.item_log_prob(contexts.without(["user_vector"]))
    np.testing.assert_array_equal(start.item_log_prob(contexts), without)


def test_what_is_known_of_a_user_decides_for_users_never_trained_on(
    lake: Lake, start: lp.Generative, tilted: lp.Generative
) -> None:
    contexts = moments_of(lake, start)
    others = contexts.frame["user_id"].str.slice(1).cast(pl.Int64) >= USERS // 3
    unseen = contexts.take(np.flatnonzero(others.to_numpy()))
    assert matched(tilted, unseen) > 0.7
    # nothing else tells: without the vectors it knows no side
    assert matched(tilted, unseen.without(["user_vector"])) == pytest.approx(0.5, abs=0.1)


def test_slates_and_their_log_probabilities_read_the_user_alike(
    lake: Lake, tilted: lp.Generative
) -> None:
    contexts = moments_of(lake, tilted).take(np.arange(40))
    decisions = tilted.decide(contexts, np.random.default_rng(0))
    np.testing.assert_allclose(
        decisions.log_prob, tilted.log_prob(contexts, decisions.slates), atol=1e-4
    )
    first = tilted.index.rows(decisions.slates.list.first())
    np.testing.assert_allclose(
        decisions.log_prob[:, 0], tilted.item_log_prob(contexts)[np.arange(40), first], atol=1e-4
    )


def test_it_is_saved_and_read_as_it_is(
    lake: Lake, tilted: lp.Generative, start: lp.Generative, tmp_path: Path
) -> None:
    tilted.save(tmp_path)
    read = lp.Generative.load(tmp_path)
    contexts = moments_of(lake, tilted).take(np.arange(10))
    assert read.knows == ("users", "items")
    assert read.name == tilted.name != start.name
    np.testing.assert_array_equal(read.item_log_prob(contexts), tilted.item_log_prob(contexts))
    # another map is another policy
    assert tilted.known_users is not None
    other = torch.nn.Linear(2, 64, bias=False)
    changed = replace(tilted, known_users=tilted.known_users.with_map(other))
    assert replace(changed).name != tilted.name


def test_a_policy_that_reads_nothing_of_users_is_handed_nothing(
    lake: Lake, start: lp.Generative
) -> None:
    contexts = moments_of(lake, start)
    plain = lp.Generative(seed=1, steps=0, exclude="none").fit(lake)
    assert as_read(start, contexts).frame["user_vector"].null_count() == 0
    assert as_read(plain, contexts).frame["user_vector"].null_count() == len(contexts)
    assert same_weights(plain, lp.Generative(seed=1, steps=0, exclude="none").fit(lake))


def test_a_service_that_knows_nothing_is_no_error(lake: Lake, tmp_path: Path) -> None:
    bare = Lake.memory()
    bare.append(
        "bare", events=lake.events, items=lake.items.drop("vector"), watermark=lake.watermark
    )
    policy = lp.Generative(seed=1, steps=2, knows=("users", "items")).fit(bare)
    contexts = moments_of(bare, policy).take(np.arange(5))
    assert np.isfinite(policy.decide(contexts, np.random.default_rng(0)).log_prob).all()
    policy.save(tmp_path)
    assert lp.Generative.load(tmp_path).name == policy.name


def test_items_that_are_known_to_be_alike_share_a_code(start: lp.Generative, lake: Lake) -> None:
    side = pl.Series([f"{side_of(item):+}" for item in start.codebook.items])  # type: ignore[union-attr]
    plain = lp.Generative(seed=1, steps=0).with_codes(lake).codebook
    sides = pl.Series([f"{side_of(item):+}" for item in plain.items])  # type: ignore[union-attr]
    assert start.codebook.purity(side)[0] > 0.95  # type: ignore[union-attr]
    assert plain.purity(sides)[0] < 0.85  # type: ignore[union-attr]


@pytest.mark.parametrize("knows", ["users", ("user",), ["users"]])
def test_what_cannot_be_known_is_refused(knows: object) -> None:
    with pytest.raises(ConfigError, match="expected a tuple of some of users, items"):
        lp.Generative(knows=knows)  # type: ignore[arg-type]


@pytest.mark.parametrize("weight", [-1.0, float("nan")])
def test_a_weight_of_vectors_is_a_number(lake: Lake, weight: float) -> None:
    with pytest.raises(ConfigError, match="known_weight"):
        item_vectors(lake, ItemIndex(lake.items["item_id"]), known_weight=weight)
