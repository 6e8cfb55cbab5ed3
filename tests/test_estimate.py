"""An estimate is as sure as its independent units allow, and prints so."""

from __future__ import annotations

import numpy as np
import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from longplay.errors import DataError
from longplay.estimate import Estimate, clustered_mean

VALUES = st.floats(-1e3, 1e3)


@given(st.lists(st.tuples(VALUES, st.sampled_from("abcde")), min_size=1, max_size=30))
@examples(80)
def test_the_standard_error_is_the_linearised_one_summed_cluster_by_cluster(
    rows: list[tuple[float, str]],
) -> None:
    values, clusters = [value for value, _ in rows], [cluster for _, cluster in rows]
    found = clustered_mean(values, clusters)
    mean = sum(values) / len(values)
    names = sorted(set(clusters))
    errors = [sum(value - mean for value, cluster in rows if cluster == name) for name in names]
    assert found.value == pytest.approx(mean, abs=1e-9)
    assert found.n == len(names) == found.n_eff
    if len(names) == 1:
        assert found.std_error == float("inf")
    else:
        expected = (len(names) / (len(names) - 1) * sum(error**2 for error in errors)) ** 0.5 / len(
            values
        )
        assert found.std_error == pytest.approx(expected, abs=1e-9)


@given(st.lists(st.tuples(VALUES, VALUES, VALUES), min_size=2, max_size=12))
@examples(60)
def test_with_equally_large_clusters_it_is_the_jackknife_that_leaves_one_cluster_out(
    groups: list[tuple[float, float, float]],
) -> None:
    n = len(groups)
    left_out = [
        np.mean([value for other, group in enumerate(groups) if other != one for value in group])
        for one in range(n)
    ]
    jackknife = np.sqrt((n - 1) / n * np.sum((np.array(left_out) - np.mean(left_out)) ** 2))
    found = clustered_mean(np.ravel(groups), np.repeat(np.arange(n), 3))
    assert found.std_error == pytest.approx(jackknife, rel=1e-6, abs=1e-6)


def test_without_clusters_it_is_the_textbook_standard_error() -> None:
    values = [1.0, 2.0, 3.0, 6.0]
    assert clustered_mean(values).std_error == pytest.approx(np.std(values, ddof=1) / 2)
    assert clustered_mean(values, ["a", "b", "c", "d"]).std_error == pytest.approx(
        np.std(values, ddof=1) / 2
    )


def uneven(rng: np.random.Generator, clusters: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of users who differ: user effect N(0, 1), row noise N(0, 1), 1 to 15 rows each, true
    mean 0."""
    rows = rng.integers(1, 16, clusters)
    user = np.repeat(np.arange(clusters), rows)
    return rng.normal(size=clusters)[user] + rng.normal(size=len(user)), user


def test_it_agrees_with_a_bootstrap_of_whole_clusters() -> None:
    rng = np.random.default_rng(1)
    value, user = uneven(rng, 300)
    total, rows = np.bincount(user, weights=value), np.bincount(user)
    drawn = rng.integers(0, 300, (4000, 300))
    bootstrap = (total[drawn].sum(1) / rows[drawn].sum(1)).std()
    assert clustered_mean(value, user).std_error == pytest.approx(
        bootstrap, rel=0.06
    )  # the bootstrap's own error is 1.1%


def test_its_intervals_cover_the_truth_95_percent_of_the_time_and_row_level_ones_do_not() -> None:
    rng = np.random.default_rng(2)
    ours = naive = 0
    runs = 1200
    for _ in range(runs):
        value, user = uneven(rng, 60)
        low, high = clustered_mean(value, user).interval()
        ours += low <= 0 <= high
        low, high = clustered_mean(value).interval()
        naive += low <= 0 <= high
    assert ours / runs == pytest.approx(
        0.95, abs=0.02
    )  # three standard errors of a share of 1,200 runs
    assert naive / runs < 0.75


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        (Estimate(0.314, 0.0204, 1204, 1204, "x"), "0.314 ± 0.040 (95%, n=1,204)"),
        (Estimate(1234.5, 100, 10_000, 10_000, "x"), "1234 ± 196 (95%, n=10,000)"),
        (
            Estimate(-0.00123, 0.00002, 1_000_000, 1e6, "x"),
            "-0.001230 ± 0.000039 (95%, n=1,000,000)",
        ),
        (Estimate(0.5, float("inf"), 1, 1, "x"), "0.5 ± inf (95%, n=1)"),
        (Estimate(1.0, 0.0, 12, 12, "x"), "1 ± 0 (95%, n=12)"),
        (
            Estimate(2.0, 0.1, 3, 3, "x"),
            "2.00 ± 0.43 (95%, n=3)",
        ),  # t with 2 degrees of freedom, not the normal's 0.20
    ],
)
def test_it_prints_two_digits_of_what_it_does_not_know(estimate: Estimate, text: str) -> None:
    assert str(estimate) == text
    assert text in estimate._repr_html_()


def test_the_interval_is_students_and_knows_nothing_from_one_unit() -> None:
    assert Estimate(2.0, 0.5, 5, 5, "x").interval(0.9) == pytest.approx(
        (2 - 0.5 * stats.t.ppf(0.95, 4), 2 + 0.5 * stats.t.ppf(0.95, 4))
    )
    assert Estimate(2.0, 0.5, 1, 1, "x").interval() == (-np.inf, np.inf)
    assert clustered_mean([1.0, 2.0], ["a", "a"]).interval() == (-np.inf, np.inf)


@pytest.mark.parametrize("level", [0, 1, -0.5, 95, float("nan")])
def test_a_level_that_is_no_share_is_refused(level: float) -> None:
    with pytest.raises(DataError, match=r"level=.* given, expected a number in \(0, 1\)"):
        Estimate(0, 1, 10, 10, "x").interval(level)


def test_nothing_unknown_or_uneven_is_averaged() -> None:
    with pytest.raises(DataError, match="at least one value"):
        clustered_mean([])
    with pytest.raises(DataError, match="in one axis"):
        clustered_mean(np.zeros((2, 2)))
    with pytest.raises(DataError, match="2 values are null or infinite; drop immature rows"):
        clustered_mean([1.0, float("nan"), float("inf")])
    with pytest.raises(DataError, match=r"\(2,\) values but \(3,\) clusters"):
        clustered_mean([1.0, 2.0], ["a", "b", "c"])
