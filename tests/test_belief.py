"""Beliefs and their calibration: the bound, and checks that notice intervals of the wrong width."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from longplay.belief import Belief, Calibration, coverage_of_means, randomised_pit, reliability
from longplay.errors import DataError

UNIT = st.floats(0, 1)


def belief(mean, std, spread=None, **more):
    mean, std = (
        np.atleast_1d(np.asarray(mean, dtype=float)),
        np.atleast_1d(np.asarray(std, dtype=float)),
    )
    return Belief(
        mean,
        std,
        std if spread is None else np.atleast_1d(np.asarray(spread, dtype=float)),
        7,
        "habit@1",
        **more,
    )


@given(low=UNIT, more=UNIT, std=UNIT, caution=st.floats(0, 5), floor=st.floats(-1, 0))
def test_lower_rises_with_the_mean_and_never_falls_below_the_minimum(
    low, more, std, caution, floor
):
    # catches: a bound that is not floored, or that penalises by the spread of single outcomes
    first, second = (
        belief(mean, std, minimum=floor).lower(caution)[0] for mean in (low, low + more)
    )
    assert floor <= first <= second


def test_caution_counts_epistemic_std_only():
    # catches: p - sqrt(p (1 - p)), which ranks rare habits upside down
    rare, common = (belief(p, 0.01, np.sqrt(p * (1 - p))).lower(1.0)[0] for p in (0.02, 0.1))
    assert rare < common


def test_belief_refuses_shapes_that_do_not_fit():
    with pytest.raises(DataError, match="expected one shape"):
        Belief(np.zeros(2), np.zeros(3), np.zeros(2), 7, "habit@1")
    with pytest.raises(DataError, match="2 beliefs but 1 keys"):
        Belief(
            np.zeros(2),
            np.zeros(2),
            np.zeros(2),
            7,
            "habit@1",
            keys=pl.DataFrame({"item_id": ["a"]}),
        )
    with pytest.raises(DataError, match="caution=-1"):
        belief(0.1, 0.1).lower(-1)


def test_table_lists_keys_with_their_beliefs():
    table = belief([0.4], [0.1], [0.5], keys=pl.DataFrame({"item_id": ["a"]})).table()
    assert table.row(0) == ("a", 0.4, 0.1, 0.5)


def test_pit_is_uniform_for_true_probabilities_and_not_for_overconfident_ones():
    # catches: a PIT that is uniform whatever the belief (for instance by randomising too much)
    rng = np.random.default_rng(0)
    p_N = rng.beta(1, 6, 20_000)
    outcome_N = (rng.random(20_000) < p_N).astype(float)

    def uniform(mean_N):
        return stats.kstest(
            randomised_pit(
                mean_N, np.zeros_like(mean_N), outcome_N, np.random.default_rng(1), binary=True
            ),
            "uniform",
        ).pvalue

    assert uniform(p_N) > 0.01
    assert uniform(p_N / 2) < 1e-6


def test_pit_of_amounts_judges_the_spread():
    # catches: the epistemic std used where the predictive spread belongs
    rng = np.random.default_rng(0)
    outcome_N = rng.normal(3.0, 2.0, 5_000)

    def uniform(spread):
        return stats.kstest(
            randomised_pit(
                np.full(5_000, 3.0), np.full(5_000, spread), outcome_N, rng, binary=False
            ),
            "uniform",
        ).pvalue

    assert uniform(2.0) > 0.01
    assert max(uniform(6.0), uniform(2 / 3)) < 1e-6


def test_coverage_includes_the_sampling_noise_of_the_realised_mean():
    # catches: realised means taken as the truth, which makes honest beliefs look overconfident
    rng = np.random.default_rng(0)
    truth_G, noise_G = rng.normal(0, 1, 4_000), np.full(4_000, 0.7)
    realised_G = truth_G + rng.normal(0, 0.7, 4_000)
    believed_G, std_G = np.zeros(4_000), np.ones(4_000)
    assert coverage_of_means(believed_G, std_G, realised_G, noise_G)[0.8] == pytest.approx(
        0.8, abs=0.02
    )
    assert coverage_of_means(believed_G, std_G, realised_G, 0 * noise_G)[0.8] < 0.75


def test_reliability_bins_hold_everyone_and_ties_share_a_bin():
    table = reliability(np.array([0.1] * 50 + [0.5] * 50), np.array([0.0] * 50 + [1.0, 0.0] * 25))
    assert table["n"].sum() == 100
    assert table.height == 2
    assert table["realised"].to_list() == [0.0, 0.5]


def test_calibration_goes_into_json():
    result = Calibration(
        {0.9: 0.88},
        12,
        100,
        np.array([0.05, 0.95]),
        reliability(np.array([0.1]), np.array([0.0])),
        0.1,
        0.2,
        0.05,
        0.1,
    )
    plain = json.loads(json.dumps(result.as_json()))
    assert plain["coverage"] == {"0.9": 0.88}
    assert sum(plain["pit"]) == 2
    assert "12 items" in str(result)
