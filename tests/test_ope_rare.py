"""Rare outcomes off-policy, biases that a log proves, and mass that it never saw."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from test_ope import ITEMS, LOGGER, TARGET, a_log, drawn_log, law, users_named

from longplay.decisions import Contexts
from longplay.display import with_interval
from longplay.errors import NotEstimable
from longplay.estimate import Estimate, Refusal
from longplay.intervals import log_interval
from longplay.ope import Diagnosis, diagnose, doubly_robust, estimates, ips, snips
from longplay.ope import value as value_module
from longplay.ope.diagnostics import outcome_range
from longplay.ope.estimators import dr_mean, effective_users, ips_mean, snips_mean
from longplay.report.blocks import Table
from longplay.report.sections import offpolicy
from longplay.results import NotEstimable as Refused
from longplay.results import RunResults
from longplay.results.offpolicy_figures import OffpolicyResult, PolicyEstimates
from longplay.signals import Signal, active_days, exposure, minutes, plays, returned

# five users, six slots: three of them with the outcome, two of these of one user
WEIGHT_N = np.array([4.0, 2.0, 1.0, 0.5, 0.5, 2.0])
OUTCOME_N = np.array([1.0, 1.0, 0.0, 0.0, 1.0, 0.0])
USERS = ["a", "a", "b", "c", "d", "e"]
# by user, weight x outcome: a 6, b 0, c 0, d .5, e 0
SUM, SQUARES = 6.5, 36.25
EFFECTIVE = SUM**2 / SQUARES
# one more outcome: of the weight that counts, (16 + 4 + 1 + .25 + .25 + 4) / 10
TYPICAL_WEIGHT = 2.55


def holds(pattern: str, texts: Sequence[str]) -> bool:
    """Whether one of these texts says so."""
    return any(re.search(pattern, text) for text in texts)


def t(df: float) -> float:
    return float(stats.t.ppf(0.975, df))


# -- the interval ----------------------------------------------------------------------------------


def test_the_log_scale_interval_by_hand() -> None:
    # .02 +- .005: a quarter of the value; 16 effective outcomes
    near, far = 0.02 * math.exp(-t(15) * 0.25), 0.02 * math.exp(t(15) * 0.25)
    assert Estimate(0.02, 0.005, 900, 900.0, "x", df=15, origin=0.0).interval() == pytest.approx(
        (near, far), rel=1e-12
    )
    # one more outcome would make it .0215, with the error of both and 1 / (1/16 (.02/.0215)^2 +
    # (.0015/.0215)^2) outcomes
    outcomes = 1 / ((0.02 / 0.0215) ** 2 / 16 + (0.0015 / 0.0215) ** 2)
    far = 0.0215 * math.exp(t(outcomes - 1) * math.hypot(0.005, 0.0015) / 0.0215)
    assert Estimate(
        0.02, 0.005, 900, 900.0, "x", df=15, origin=0.0, step=0.0015
    ).interval() == pytest.approx((near, far), rel=1e-12)
    # seen from 1 the same, mirrored
    mirrored = Estimate(0.98, 0.005, 900, 900.0, "x", df=15, origin=1.0, step=0.0015).interval()
    assert mirrored == pytest.approx((1 - far, 1 - near), rel=1e-12)


@given(
    st.floats(1e-6, 1e3),
    st.floats(0, 2),
    st.floats(0.01, 500),
    st.floats(0, 1),
    st.floats(0.5, 0.99),
)
def test_the_interval_holds_the_value_and_grows_with_the_level(
    distance: float, error: float, df: float, step: float, level: float
) -> None:
    near, far = log_interval(distance, error * distance, df, step * distance, level)
    assert 0 <= near <= distance * (1 + 1e-12)
    assert far >= distance * (1 - 1e-12)
    wider_near, wider_far = log_interval(
        distance, error * distance, df, step * distance, (1 + level) / 2
    )
    assert wider_near <= near
    assert wider_far >= far


def test_an_interval_of_no_outcome_or_of_one_has_no_end() -> None:
    # catches: 0 ± 0 where nothing happened, a quantile of no degrees of freedom
    for df in (0.0, -0.5):
        assert Estimate(0.02, 0.005, 900, 900.0, "x", df=df, origin=0.0).interval() == (
            0.0,
            math.inf,
        )
    assert Estimate(0.0, 0.0, 900, 900.0, "x", df=5, origin=0.0).interval() == (0.0, math.inf)
    assert Estimate(0.02, 0.005, 900, 900.0, "x", df=0.0, origin=0.0).as_json()["high"] is None


def test_an_interval_that_is_not_symmetric_prints_both_ends_everywhere() -> None:
    estimate = Estimate(0.02, 0.005, 900, 40.0, "habit per slot", df=15, origin=0.0, step=0.001)
    assert str(estimate) == "0.0200 (0.0117 to 0.0351; 95%, n=900)"
    assert "0.0117 to 0.0351" in estimate._repr_html_()
    assert with_interval(estimate.bounded()) == "0.0200 (0.0117 to 0.0351)"
    assert (
        str(replace(estimate, df=500, step=0.0, std_error=0.0005))
        == "0.02000 ± 0.00098 (95%, n=900)"
    )


def test_json_keeps_the_interval() -> None:
    estimate = Estimate(0.02, 0.005, 900, 40.0, "habit per slot", df=15, origin=0.0, step=0.001)
    row = json.loads(json.dumps(estimate.as_json(), allow_nan=False))
    back = Estimate.from_json(row)
    assert back == estimate
    assert back.interval(0.9) == estimate.interval(0.9)
    assert (row["low"], row["high"]) == pytest.approx(estimate.interval())
    symmetric = Estimate(0.02, 0.005, 900, 40.0, "x", df=3.0)
    assert symmetric.as_json().keys() == row.keys() == set(Estimate.JSON_KEYS)  # one shape
    assert symmetric.as_json()["low"] == pytest.approx(0.02 - t(3) * 0.005)
    alone = Estimate(0.02, math.inf, 1, 1.0, "x")  # of one user nothing is known of the error
    assert Estimate.from_json(json.loads(json.dumps(alone.as_json(), allow_nan=False))) == alone


# -- the estimators --------------------------------------------------------------------------------


def test_effective_outcomes_by_hand() -> None:
    said = Diagnosis.of(
        WEIGHT_N, OUTCOME_N, USERS
    )  # three slots with, three without: the most common outcome is 0, the least of both
    assert said.outcomes == pytest.approx(6.5**2 / (16 + 4 + 0.25))
    assert said.outcome_users == pytest.approx(EFFECTIVE)
    assert said.n_eff == pytest.approx(10**2 / 25.5)
    assert said.users_eff == pytest.approx(10**2 / (36 + 1 + 0.25 + 0.25 + 4))
    assert said.one_side


def test_ips_of_rare_outcomes_by_hand() -> None:
    said = ips_mean(WEIGHT_N, OUTCOME_N, USERS)
    mean = SUM / 6
    errors = np.array([6 - 2 * mean, -mean, -mean, 0.5 - mean, -mean])
    assert said.std_error == pytest.approx(math.sqrt(5 / 4 * (errors**2).sum()) / 6)
    assert (said.value, said.df, said.origin) == (
        pytest.approx(mean),
        pytest.approx(EFFECTIVE - 1),
        0.0,
    )
    assert said.step == pytest.approx(TYPICAL_WEIGHT / 6)
    assert said.interval()[0] == pytest.approx(
        mean * math.exp(-t(EFFECTIVE - 1) * said.std_error / mean)
    )


def test_snips_of_rare_outcomes_by_hand() -> None:
    said = snips_mean(WEIGHT_N, OUTCOME_N, USERS)
    assert (said.value, said.df, said.origin) == (
        pytest.approx(0.65),
        pytest.approx(EFFECTIVE - 1),
        0.0,
    )
    assert said.step == pytest.approx((SUM + TYPICAL_WEIGHT) / (10 + TYPICAL_WEIGHT) - 0.65)


def test_where_outcomes_are_rarely_missing_the_interval_is_the_mirror_image() -> None:
    # catches: a scale that only rare ones have; 97% that come back are as hard to tell as 3% that
    # do not
    rng = np.random.default_rng(3)
    weight_N = rng.choice([0.3, 5.0, 30.0], 4_000, p=[0.8, 0.17, 0.03])
    outcome_N = (rng.random(4_000) < 0.03).astype(float)
    user_N = rng.integers(0, 900, 4_000)
    model_N = np.full(4_000, 0.04)
    pairs = (
        (snips_mean(weight_N, outcome_N, user_N), snips_mean(weight_N, 1 - outcome_N, user_N)),
        (
            dr_mean(weight_N, outcome_N, model_N, model_N, user_N),
            dr_mean(weight_N, 1 - outcome_N, 1 - model_N, 1 - model_N, user_N),
        ),
    )
    for rare, common in pairs:
        assert common.origin == 1.0
        low, high = rare.interval()
        assert common.interval() == pytest.approx((1 - high, 1 - low), rel=1e-9)


def test_outcomes_on_both_sides_keep_students_interval() -> None:
    rng = np.random.default_rng(0)
    weight_N, reward_N, user_N = rng.uniform(0.5, 2, 300), rng.normal(size=300), np.arange(300)
    for said in (ips_mean(weight_N, reward_N, user_N), snips_mean(weight_N, reward_N, user_N)):
        assert (said.df, said.origin) == (None, None)
        assert said.interval()[1] - said.value == pytest.approx(t(299) * said.std_error)
    assert not Diagnosis.of(weight_N, np.round(reward_N), user_N).one_side
    counts = snips_mean(
        weight_N, np.abs(reward_N), user_N
    )  # none below 0, but no outcome that most have
    assert counts.origin == 0.0


def test_common_outcomes_keep_nearly_students_interval() -> None:
    rng = np.random.default_rng(0)
    weight_N, reward_N, user_N = (
        rng.uniform(0.5, 2, 9_000),
        rng.integers(0, 8, 9_000).astype(float),
        np.arange(9_000),
    )
    for said in (ips_mean(weight_N, reward_N, user_N), snips_mean(weight_N, reward_N, user_N)):
        low, high = said.interval()
        half = t(8_999) * said.std_error
        assert (said.value - low) / half == pytest.approx(1, abs=0.03)
        assert (high - said.value) / half == pytest.approx(1, abs=0.03)


LOGGER_I, WEIGHT_I = (
    np.array([0.01, 0.1, 0.89]),
    np.array([40.0, 4.0, 0.2 / 0.89]),
)  # the policy: .4, .4, .2
RATE = 0.02


@pytest.mark.parametrize("heavy", [False, True], ids=["a slot per user", "heavy users"])
def test_intervals_of_rare_outcomes_cover_the_truth_and_those_of_before_do_not(heavy: bool) -> None:
    # about 12 effective outcomes; before: a t interval from 10 on
    hits = {name: [] for name in ("IPS", "SNIPS", "doubly robust", "before")}
    errors = []
    draws = 400
    for draw in range(draws):
        rng = np.random.default_rng([5, draw])
        slots_U = (
            np.maximum(1, np.rint(rng.lognormal(1.6, 1.0, 1_500))).astype(int)
            if heavy
            else np.ones(10_000, dtype=int)
        )
        level_U = rng.lognormal(-0.125, 0.5, len(slots_U)) if heavy else np.ones(len(slots_U))
        user_N = np.repeat(np.arange(len(slots_U)), slots_U)
        item_N = rng.choice(3, len(user_N), p=LOGGER_I)
        weight_N = WEIGHT_I[item_N]
        outcome_N = (rng.random(len(user_N)) < RATE * level_U[user_N]).astype(float)
        checked = Diagnosis.of(weight_N, outcome_N, user_N)
        by = {
            "IPS": ips_mean(weight_N, outcome_N, user_N),
            "SNIPS": snips_mean(weight_N, outcome_N, user_N),
            "doubly robust": dr_mean(
                weight_N,
                outcome_N,
                np.full(len(user_N), 0.015),
                np.full(len(user_N), 0.015),
                user_N,
            ),
        }
        if checked.outcomes >= 10:
            low, high = replace(by["IPS"], df=None, origin=None).interval()
            hits["before"].append(low <= RATE <= high)
        if checked.estimable:
            errors.append(by["IPS"].value / RATE - 1)
            for name, said in by.items():
                low, high = said.interval()
                hits[name].append(low <= RATE <= high)
    assert len(hits["IPS"]) >= max(
        len(hits["before"]), 0.98 * draws
    )  # no trivial solution: nothing more is refused
    for name in ("IPS", "SNIPS", "doubly robust"):
        assert np.mean(hits[name]) > 0.92, (name, np.mean(hits[name]))
    assert np.mean(hits["before"]) < np.mean(hits["IPS"]) - 0.02
    assert abs(np.mean(errors)) < 0.05  # who is given an estimate was not lucky or unlucky


def test_few_outcomes_of_one_user_are_refused() -> None:
    # catches: slots counted where a user is one witness
    user_N = np.arange(2_000)
    outcome_N = np.zeros(2_000)
    outcome_N[:40] = 1
    assert Diagnosis.of(np.ones(2_000), outcome_N, user_N).estimable
    user_N[:40] = 0
    said = Diagnosis.of(np.ones(2_000), outcome_N, user_N)
    assert said.outcomes == 40
    assert said.outcome_users == 1
    assert holds(r"only 1\.0 effective users have another outcome", said.reasons)
    assert said.lacks == "1.0 effective outcomes"


def test_where_nothing_has_happened_the_refusal_bounds_the_value() -> None:
    users, slates, log_prob, _ = drawn_log(60, 20)
    log = a_log(users, slates, log_prob, [[0.0, 0.0]] * len(users))
    checked = diagnose(law(TARGET), *log)
    assert not checked.estimable
    low, high = checked.value_bounds or (1.0, 0.0)
    # e^-3.69 = .025: were more than 3.69 of the effective users to have had all 28 days, one would
    # have shown
    assert (low, high) == (
        0.0,
        pytest.approx(28 * (-math.log(0.025) / checked.users_eff + checked.unseen_at_most)),
    )
    assert holds(
        r"only 0\.0 effective slots .* Till then, the value lies between 0 and \d", checked.reasons
    )


# -- what the log proves ---------------------------------------------------------------------------


def biased_log(factor: float, visits: int = 150):
    """Slates of one, drawn right, with propensities `factor` times the true ones."""
    users = users_named(60) * visits
    said = law(LOGGER).decide(
        Contexts.of(users, ITEMS["added_at"][0], slots=1), np.random.default_rng(8)
    )
    value = [[float(int(name[1:]) >= 3)] for (name,) in said.slates.to_list()]
    return a_log(users, said.slates.to_list(), (said.log_prob + math.log(factor)).tolist(), value)


NEAR = [0.35, 0.2, 0.2, 0.12, 0.13]


def test_a_bias_that_the_log_proves_refuses_ips_clipped_or_not() -> None:
    # catches: a mean weight that is only looked at from a tenth off on
    log = biased_log(0.96)
    checked = diagnose(law(NEAR), *log)
    assert 0.005 < abs(checked.mean_weight - 1) < 0.1
    assert checked.estimable
    for answer in (
        ips(law(NEAR), *log),
        ips(law(NEAR), *log, clip=5.0),
        estimates(law(NEAR), *log)[1]["IPS"],
    ):
        assert isinstance(answer, Refusal)
        with pytest.raises(
            NotEstimable,
            match=r"the mean weight is 1\.0[34]\d\d ± 0\.00\d\d .* the logged propensities are too small",
        ):
            _ = answer.value
    assert "not by IPS" in str(checked)
    # a factor that all propensities share divides out
    assert snips(law(NEAR), *log).value == pytest.approx(
        snips(law(NEAR), *biased_log(1.0)).value, rel=1e-9
    )
    assert isinstance(doubly_robust(law(NEAR), *log), Estimate)


@pytest.mark.parametrize(
    ("off", "error", "proven"),
    [
        (0.0, 0.001, False),
        (0.0045, 0.0001, False),
        (0.006, 0.001, True),
        (0.006, 0.002, False),
        (-0.006, 0.001, True),
        (-0.09, 0.03, False),
    ],
)
def test_a_bias_is_proven_by_more_than_four_standard_errors_and_more_than_half_a_per_cent(
    off: float, error: float, proven: bool
) -> None:
    # 10,000 users of one slot, weights 1 + off +- spread in turn: the standard error is spread /
    # sqrt(9,999)
    spread = error * math.sqrt(9_999)
    weight_N = 1 + off + spread * np.tile([1.0, -1.0], 5_000)
    outcome_N = np.tile([0.0, 0.0, 1.0, 1.0], 2_500)
    said = Diagnosis.of(weight_N, outcome_N, np.arange(10_000))
    assert (said.mean_weight, said.mean_weight_std_error) == (
        pytest.approx(1 + off),
        pytest.approx(error),
    )
    assert said.estimable
    assert bool(said.bias) == proven
    # the same slots of 100 users, each with weights of one sign: ten times the error, and nothing
    # is proven
    of_few = Diagnosis.of(np.sort(weight_N), outcome_N, np.repeat(np.arange(100), 100))
    assert of_few.mean_weight_std_error == pytest.approx(error * math.sqrt(9_999 / 99))
    assert not of_few.bias


def test_unseen_mass_refuses_ips_and_is_printed_as_a_bound_that_holds_the_value() -> None:
    # the logger never shows i4, the policy does in 6% of slots; it is worth 28 there and less
    # elsewhere
    logger, target = np.array([0.4, 0.3, 0.2, 0.1, 0.0]), np.array([0.34, 0.3, 0.2, 0.1, 0.06])
    worth = np.array([1.0, 2.0, 0.0, 0.0, 28.0])
    users = users_named(60) * 100
    said = law(logger).decide(
        Contexts.of(users, ITEMS["added_at"][0], slots=1), np.random.default_rng(1)
    )
    log = a_log(
        users,
        said.slates.to_list(),
        said.log_prob.tolist(),
        [[worth[int(name[1:])]] for (name,) in said.slates.to_list()],
    )
    truth = float(target @ worth)
    checked, by = estimates(law(target), *log)
    assert checked.mean_weight == pytest.approx(0.94, abs=0.01)
    assert 0.06 <= checked.unseen_at_most < 0.07
    assert (checked.least, checked.most) == (0.0, 28.0)  # as the signal says: 28 days
    low, high = checked.value_bounds or (0.0, 0.0)
    assert (
        low
        <= float(target[:4] @ worth[:4])
        < truth
        <= high
        < float(target[:4] @ worth[:4]) + 0.08 * 28
    )
    printed = rf"the value lies between {low:.3g} and {high:.3g} \(95%, outcomes from 0 to 28\)"
    with pytest.raises(
        NotEstimable, match=r"never makes about [56]\.\d% of the policy's choices.*" + printed
    ):
        _ = by["IPS"].value
    for how in ("SNIPS", "doubly robust"):
        assert isinstance(by[how], Estimate)
        assert holds(r"[56]\.\d% of the choices are never logged.*" + printed, (by[how].estimand,))
    assert holds(
        r"unseen mass: the logger never makes at most 6\.\d% of its choices; whatever comes of these, "
        + printed,
        (str(checked),),
    )
    assert by["SNIPS"].interval()[1] < truth  # what it cannot know


def test_a_refusal_for_want_of_support_prints_the_bound() -> None:
    wide = law([0.3, 0.1, 0.1, 0.1, 0.1, 0.3], [f"i{k}" for k in range(6)])
    checked = diagnose(wide, *a_log(*drawn_log(60, 40)))
    low, high = checked.value_bounds or (0.0, 0.0)
    assert (
        0 < low < 0.5 + 0.3 * 28 < high <= 28
    )  # outcomes are uniform on [0, 1] where the log has looked, of at most 28 days
    assert holds(
        rf"only [67]\d% of what .* \(unseen mass\), the value lies between {low:.3g} and {high:.3g}",
        checked.reasons,
    )


def test_the_bound_is_wide_enough_by_enumeration() -> None:
    # the logger never draws item 3; its outcome may be anything in [0, 1]: every value lies within
    # the bound of nearly every log
    logger_I, target_I = np.array([0.5, 0.3, 0.2, 0.0]), np.array([0.4, 0.3, 0.2, 0.1])
    rate_I = np.array([0.2, 0.5, 0.1])
    seen = float(target_I[:3] @ rate_I)
    held = []
    for draw in range(200):
        rng = np.random.default_rng(draw)
        item_N = rng.choice(3, 2_000, p=logger_I[:3])
        weight_N = (target_I[:3] / logger_I[:3])[item_N]
        checked = Diagnosis.of(
            weight_N, (rng.random(2_000) < rate_I[item_N]).astype(float), np.arange(2_000)
        )
        low, high = checked.value_bounds or (1.0, 0.0)
        held += [low <= seen + 0.1 * unseen_rate <= high for unseen_rate in (0.0, 0.5, 1.0)]
    assert np.mean(held) > 0.97


def test_what_an_outcome_can_be() -> None:
    def signal(measure) -> Signal:
        return Signal("x", entry=exposure(), measure=measure, window=(2, 15))

    seen_N = np.array([0.0, 3.0, 40.0])
    assert outcome_range(signal(active_days()), seen_N) == (0.0, 14.0)
    assert outcome_range(signal(returned()), seen_N) == (0.0, 1.0)
    assert outcome_range(signal(plays() >= 3), seen_N) == (0.0, 1.0)
    assert outcome_range(signal(minutes()), seen_N) == (0.0, 40.0)
    assert outcome_range(signal(active_days().above_baseline(28)), np.array([-2.0, 3.0])) == (
        -2.0,
        3.0,
    )


def test_a_doubly_robust_value_beyond_every_outcome_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # catches: a rate of -1%
    log = biased_log(1.0)

    class Wrong:
        def predict(self, items: pl.Series) -> np.ndarray:
            return np.where(items.is_in(["i3", "i4"]).to_numpy(), 1.4, 0.0)

    monkeypatch.setattr(value_module, "fit_outcome_model", lambda *_: Wrong())
    monkeypatch.setattr(
        value_module, "_sampled", lambda _policy, logged, *_: np.full(len(logged), -0.2)
    )
    for answer in (doubly_robust(law(NEAR), *log), estimates(law(NEAR), *log)[1]["doubly robust"]):
        with pytest.raises(
            NotEstimable,
            match=r"doubly robust: -0\.\d+ lies below every outcome, expected beyond 0",
        ):
            _ = answer.value


# -- effective users -------------------------------------------------------------------------------


def effective_users_shown(estimates: dict[str, Estimate | Refused]) -> str:
    """The report's cell of a policy with these estimates."""
    policy = PolicyEstimates("popular", "", "", estimates)
    result = OffpolicyResult(None, "seen", "home", 0, 0, None, (policy,))
    (steps,) = offpolicy.SECTIONS
    section = steps.section(RunResults({"offpolicy": result}))
    assert section is not None
    table = next(block for block in section.blocks if isinstance(block, Table))
    assert table.head[-1] == "effective users"
    return table.rows[0][-1]


def test_effective_users_are_one_number_wherever_they_are_named() -> None:
    # users of 1 to 4 visits: the share of slots and the users by summed weight are two numbers, and
    # were both called so
    people = users_named(60)
    users = list(
        itertools.chain.from_iterable(
            [user] * (10 * (1 + row % 4)) for row, user in enumerate(people)
        )
    )
    said = law(LOGGER).decide(
        Contexts.of(users, ITEMS["added_at"][0], slots=2), np.random.default_rng(8)
    )
    value = np.random.default_rng(9).random((len(users), 2)).tolist()
    checked, by = estimates(
        law(TARGET), *a_log(users, said.slates.to_list(), said.log_prob.tolist(), value)
    )
    item_N = [int(name[1:]) for slate in said.slates.to_list() for name in slate]
    chance = [TARGET[first] / LOGGER[first] for first in item_N[::2]]
    weight_N = np.ravel(
        [
            (
                first_weight,
                TARGET[second] / (1 - TARGET[first]) / (LOGGER[second] / (1 - LOGGER[first])),
            )
            for first_weight, first, second in zip(chance, item_N[::2], item_N[1::2])
        ]
    )
    sums = [
        sum(weight for weight, user in zip(weight_N, np.repeat(users, 2)) if user == name)
        for name in people
    ]
    by_hand = sum(sums) ** 2 / sum(each**2 for each in sums)
    assert checked.users_eff == pytest.approx(by_hand)
    assert {how: estimate.n_eff for how, estimate in by.items()} == {
        how: pytest.approx(by_hand) for how in by
    }
    assert effective_users(weight_N, np.repeat(users, 2)) == pytest.approx(by_hand)
    assert f"{by_hand:,.0f} users" in str(checked)
    rows: dict[str, Estimate | Refused] = {
        how: estimate for how, estimate in by.items() if isinstance(estimate, Estimate)
    }
    assert effective_users_shown(rows) == f"{by_hand:,.0f}"


def test_the_column_of_effective_users_is_there_where_doubly_robust_is_refused() -> None:
    rows = {"IPS": Estimate(0.1, 0.02, 900, 41.0, "seen"), "doubly robust": Refused("why")}
    assert effective_users_shown(rows) == "41"
