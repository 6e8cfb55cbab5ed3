"""Logs of nobody, of one or two users, items, creators and entries: a number, a refusal, or an
error in words; never a division by zero.

Warnings are errors in this suite, numpy's among them.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import longplay as lp
from longplay.errors import LongplayError, NotEstimable
from longplay.estimate import Estimate, Refusal
from longplay.ope.estimators import snips_mean
from longplay.rewards.gaussian import between_items

spec = importlib.util.spec_from_file_location("small_logs", Path(__file__).parent / "small_logs.py")
assert spec is not None
assert spec.loader is not None
small_logs = importlib.util.module_from_spec(spec)
sys.modules["small_logs"] = small_logs
spec.loader.exec_module(small_logs)
Small, lake_of = small_logs.Small, small_logs.lake_of

torch.set_num_threads(1)

LOGS = [
    Small(users=0, items=2, creators=1, days=2, shown=False),
    Small(users=1, items=1, creators=1, days=12, shown=False),
    Small(users=1, items=2, creators=2, days=12, shown=True),
    Small(users=1, items=1, creators=0, days=2, shown=True, learners=False),
    Small(users=2, items=3, creators=1, days=12, shown=True),
    Small(users=2, items=2, creators=2, days=12, shown=False, learners=False),
]


def in_words(error: LongplayError) -> None:
    """An error that says something."""
    assert len(str(error)) > 20


def check(answer: Any) -> None:
    """A number, or a refusal that says why."""
    if isinstance(answer, Refusal):
        assert answer.reason
    elif isinstance(answer, Estimate):
        assert np.isfinite(answer.value)
        assert answer.std_error >= 0 or np.isnan(answer.std_error)
    elif isinstance(answer, np.ndarray):
        assert np.isfinite(answer).all()
    else:
        assert answer is not None


@pytest.mark.parametrize("small", LOGS, ids=str)
def test_whatever_is_asked_of_a_small_log_is_answered_or_refused_in_words(small: Any) -> None:
    lake = lake_of(small)
    for name, ask in small_logs.questions(lake):
        try:
            check(ask())
        except LongplayError as error:
            in_words(error)
        except Exception as error:
            pytest.fail(f"{small}: {name}: {type(error).__name__}: {error}")


@pytest.mark.parametrize(
    "small",
    [
        Small(users=1, items=1, creators=1, days=1, shown=False),
        Small(users=1, items=1, creators=1, days=8, shown=False),
        Small(users=1, items=3, creators=1, days=8, shown=True),
        Small(users=2, items=2, creators=2, days=8, shown=True, learners=False),
        Small(users=0, items=1, creators=1, days=1, shown=False),
    ],
    ids=str,
)
def test_a_model_learns_from_a_small_log_or_says_why_not(small: Any) -> None:
    lake = lake_of(small)
    signal = small_logs.SIGNALS["days"]
    try:
        policy = lp.Generative(steps=2, slate=1, exclude="none").fit(lake)
        contexts = lp.Contexts.of(["u", "v"], lake.watermark, slots=1)
        check(policy.decide(contexts, np.random.default_rng(0)).log_prob)
        early = lp.MaturedOnly(signal).fit(lake, signal.outcomes(lake))
        tuned = lp.reinforce(
            policy, lp.Reward({signal: 1.0}), early, lake, steps=2, contexts=2, group=2
        )
        check(tuned.item_log_prob(contexts))
        weighted = lp.reward_weighted(policy, lp.Reward({signal: 1.0}), early, lake, steps=2)
        check(weighted.item_log_prob(contexts))
    except LongplayError as error:
        in_words(error)
        return
    for learn in (lp.preference_pairs, lp.off_policy_gradient, lp.weighted_classification):
        try:
            learned = learn(policy, lp.Reward({signal: 1.0}), early, lake, steps=2, slots=1)
            check(learned.item_log_prob(contexts))
        except LongplayError as error:
            in_words(error)


@pytest.mark.parametrize("weight_N", [np.zeros(0), np.zeros(2)])
def test_a_ratio_of_nothing_is_not_estimable(weight_N: np.ndarray) -> None:
    with pytest.raises(NotEstimable, match="slots has weight"):
        snips_mean(weight_N, np.ones(len(weight_N)), np.arange(len(weight_N)))


def test_items_with_one_entry_each_do_not_vary_as_far_as_can_be_seen() -> None:
    ones = np.ones(3)
    nothing = between_items(
        ones,
        np.array([[0.0], [1.0], [5.0]]),
        lambda weight_I: np.array([[weight_I @ np.array([0.0, 1.0, 25.0])]]),
        ones,
    )
    assert nothing.tolist() == [[0.0]]


def test_every_reading_of_users_with_one_entry_each_is_a_number() -> None:
    lake = lake_of(Small(users=2, items=3, creators=1, days=12, shown=False, learners=False))
    signal = small_logs.SIGNALS["per user"]
    fitted = lp.AutoSurrogate(signal).fit(lake, signal.outcomes(lake))
    assert np.isfinite(fitted.items(pl.Series(["nobody"])).mean).all()
