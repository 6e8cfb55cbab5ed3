"""The daily hazard: the recursion against all traces, temporal consistency, and censored entries."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy import special

import longplay as lp
from longplay.errors import ConfigError
from longplay.rewards.sequence.daily_hazard import DailyHazard, DayPaths, counts_of, fit_hazard

DAYS = 6


def some_hazard(most: int, absorbing: bool, days: int = DAYS) -> DailyHazard:
    rng = np.random.default_rng(3)
    return DailyHazard(
        np.exp(0.3 * rng.normal(size=(days, most))), rng.normal(size=(days, most)) - 0.5, absorbing
    )


def chance_of(hazard: DailyHazard, trace: tuple[int, ...], score: float) -> float:
    """The chance of a whole trace, by multiplying its days; days after a threshold count 1 and 0."""
    chance = 1.0
    count = 0
    for day, active in enumerate(trace):
        if hazard.absorbing and count == hazard.most:
            chance *= 1.0 - active
            continue
        h = special.expit(score * hazard.scale_DC[day, count] + hazard.level_DC[day, count])
        chance *= h if active else 1.0 - h
        count += active
    return chance


@pytest.mark.parametrize(("most", "absorbing"), [(DAYS, False), (3, True)])
def test_the_recursion_gives_what_all_traces_of_a_window_add_up_to(most, absorbing):
    hazard = some_hazard(most, absorbing)
    scores = np.array([-1.5, 0.0, 2.0])
    by_hand = np.zeros((len(scores), most + 1))
    for trace in product((0, 1), repeat=DAYS):
        for n, score in enumerate(scores):
            by_hand[n, sum(trace) if sum(trace) < most else most] += chance_of(hazard, trace, score)
    np.testing.assert_allclose(hazard.distribution(scores), by_hand, atol=1e-12)
    counts = np.arange(most + 1)
    mean_N, variance_N = hazard.moments(scores)
    if absorbing:
        np.testing.assert_allclose(mean_N, by_hand[:, -1])
        np.testing.assert_allclose(variance_N, mean_N * (1 - mean_N))
    else:
        np.testing.assert_allclose(mean_N, by_hand @ counts)
        np.testing.assert_allclose(variance_N, by_hand @ counts**2 - mean_N**2)


@pytest.mark.parametrize(("most", "absorbing"), [(DAYS, False), (2, True)])
def test_the_belief_of_tomorrow_is_expected_to_be_that_of_today(most, absorbing):
    """Over all traces of a window: of those with the same first days, the mean of the belief a day later
    is the belief now."""
    hazard = some_hazard(most, absorbing)
    score = 0.7

    def belief(prefix: tuple[int, ...]) -> float:
        count = min(sum(prefix), most)
        return float(hazard.moments(np.array([score]), len(prefix), count)[0][0])

    traces = {
        trace: chance
        for trace in product((0, 1), repeat=DAYS)
        if (chance := chance_of(hazard, trace, score)) > 0
    }
    for age in range(DAYS):
        for prefix in {trace[:age] for trace in traces}:
            same = {t: p for t, p in traces.items() if t[:age] == prefix}
            total = sum(same.values())
            tomorrow = sum(p * belief(t[: age + 1]) for t, p in same.items()) / total
            assert tomorrow == pytest.approx(belief(prefix), abs=1e-12)


def test_beliefs_start_where_an_entry_stands():
    hazard = some_hazard(3, absorbing=True)
    assert hazard.moments(np.zeros(1), 4, 3)[0][0] == 1.0  # reached
    assert hazard.moments(np.zeros(1), DAYS, 2)[0][0] == 0.0  # the window has closed
    assert hazard.moments(np.zeros(1), DAYS - 1, 1)[0][0] == 0.0  # one day is left for two
    counted = some_hazard(DAYS, absorbing=False)
    assert counted.moments(np.zeros(1), DAYS, 2)[0][0] == 2.0
    last = special.expit(counted.level_DC[DAYS - 1, 2])
    assert counted.moments(np.zeros(1), DAYS - 1, 2)[0][0] == pytest.approx(2.0 + last)


def test_the_table_of_scores_is_as_good_as_the_recursion():
    hazard = some_hazard(DAYS, absorbing=False)
    score_N = np.random.default_rng(0).uniform(-8, 6, size=200)
    mean_N, slope_N, variance_N = hazard.outcome(score_N, 1, 1)
    exact_N, exact_variance_N = hazard.moments(score_N, 1, 1)
    np.testing.assert_allclose(mean_N, exact_N, atol=5e-5)
    np.testing.assert_allclose(variance_N, exact_variance_N, atol=2e-4)
    step = 1e-4
    slope = (hazard.moments(score_N + step, 1, 1)[0] - exact_N) / step
    np.testing.assert_allclose(slope_N, slope, atol=2e-2)


def paths_of(
    hazard: DailyHazard, score_N: np.ndarray, observed_N: np.ndarray, rng: np.random.Generator
) -> DayPaths:
    """Lived days of entries, seen for some days each."""
    n = len(score_N)
    days = hazard.days
    active_ND = np.zeros((n, days), dtype=bool)
    count_ND = np.zeros((n, days), dtype=np.int64)
    count_N = np.zeros(n, dtype=np.int64)
    for day in range(days):
        count_ND[:, day] = count_N
        odds = score_N * hazard.scale_DC[day, count_N] + hazard.level_DC[day, count_N]
        active_ND[:, day] = rng.random(n) < special.expit(odds)
        count_N = count_N + active_ND[:, day]
    seen_ND = np.arange(days) < observed_N[:, None]
    return DayPaths(active_ND & seen_ND, np.where(seen_ND, count_ND, 0), seen_ND)


def test_entries_that_are_not_mature_teach_the_hazard_without_bias():
    """Two thirds of the entries are cut off; a fit that took their missing days for inactive ones, or that
    left them out, would be wrong or unsure."""
    rng = np.random.default_rng(1)
    days = 8
    day = np.arange(days)[:, None]
    count = np.arange(days)[None, :]
    true = DailyHazard(np.ones((days, days)), -1.0 - 0.1 * day + 0.4 * np.log1p(count), False)
    score_N = rng.normal(size=60_000)
    observed_N = rng.integers(0, 3 * days, size=len(score_N)).clip(0, days)
    observed_N = np.where(rng.random(len(score_N)) < 0.5, observed_N // 3, observed_N)
    fitted = fit_hazard(paths_of(true, score_N, observed_N, rng), score_N, days, False)
    scores = np.array([-1.0, 0.0, 1.0])
    np.testing.assert_allclose(fitted.moments(scores)[0], true.moments(scores)[0], atol=0.08)


def test_the_likelihood_of_an_entry_is_the_product_of_its_observed_days():
    torch = pytest.importorskip("torch")
    from longplay.rewards.sequence.targets import DaysTarget

    hazard = some_hazard(3, absorbing=True)
    # active on days 0 and 2 of four observed; then nothing is known
    active = np.array([[True, False, True, False, False, False]])
    count = np.array([[0, 1, 1, 2, 2, 2]])
    teaches = np.arange(DAYS)[None, :] < 4
    target = DaysTarget.of(DayPaths(active, count, teaches), hazard, np.array([0]))
    score = 0.3
    chance = 1.0
    for day, (was_active, so_far) in enumerate([(1, 0), (0, 1), (1, 1), (0, 2)]):
        h = special.expit(score * hazard.scale_DC[day, so_far] + hazard.level_DC[day, so_far])
        chance *= h if was_active else 1 - h
    loss = target.loss(torch.tensor([score]), torch.tensor([0]))
    assert float(loss[0]) == pytest.approx(-np.log(chance), rel=1e-5)


def test_labels_are_fitted_by_the_belief_before_any_day():
    torch = pytest.importorskip("torch")
    from longplay.rewards.sequence.targets import MeanTarget

    hazard = some_hazard(DAYS, absorbing=False)
    score = 0.25
    mean = float(hazard.moments(np.array([score]))[0][0])
    target = MeanTarget.of(np.array([1.5, np.nan]), hazard)
    loss = target.loss(torch.tensor([score, score]), torch.tensor([0, 1]))
    share = mean / DAYS
    expected = -(0.25 * np.log(share) + 0.75 * np.log(1 - share))
    assert float(loss[0]) == pytest.approx(expected, rel=1e-4)
    assert float(loss[1]) == 0.0


def test_what_is_no_count_of_days_names_the_model_to_take():
    minutes = lp.Signal("m", entry=lp.discovery(), measure=lp.minutes("creator"), window=(1, 7))
    with pytest.raises(ConfigError, match=r"no count of days.*lp\.ProgressiveReward"):
        counts_of(minutes, "sequence")
    days = lp.Signal("d", entry=lp.discovery(), measure=lp.days_with("creator"), window=(1, 7))
    assert counts_of(days, "sequence") == (7, False)
    habit = lp.Signal(
        "h", entry=lp.discovery(), measure=lp.days_with("creator") >= 3, window=(1, 7)
    )
    assert counts_of(habit, "sequence") == (3, True)
