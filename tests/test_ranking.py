"""Rankings are measured by what users did next, with intervals that know users from visits."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from math import log2

import numpy as np
import polars as pl
import pytest
from examples import examples
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from longplay.decisions import Contexts
from longplay.errors import DataError
from longplay.estimate import clustered_mean
from longplay.index import ItemIndex
from longplay.ranking import (
    CHUNK,
    Future,
    exposure_metrics,
    ndcg_by_context,
    paired_difference,
    rank_metrics,
    top_items,
)

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ITEMS = [f"i{number}" for number in range(6)]
Relevant = dict[int, dict[str, float | None]]


def future_with(relevant: Relevant, users: list[str] | None = None) -> Future:
    """Contexts 0..N-1 and {row: {item: habit}}."""
    n = max(relevant, default=-1) + 1 if users is None else len(users)
    rows = [(row, item, habit) for row, items in relevant.items() for item, habit in items.items()]
    frame = pl.DataFrame(
        rows, schema={"row": pl.Int64, "item_id": pl.String, "habit": pl.Float64}, orient="row"
    )
    return Future(Contexts.of(users or [f"u{row}" for row in range(n)], NOON, slots=1), frame)


def ranked(*orders: list[str]) -> pl.DataFrame:
    """A ranking by context, best first."""
    rows = [
        (row, place + 1, item)
        for row, order in enumerate(orders)
        for place, item in enumerate(order)
    ]
    return pl.DataFrame(
        rows, schema={"row": pl.Int64, "position": pl.Int64, "item_id": pl.String}, orient="row"
    )


@dataclass(frozen=True)
class Scores:
    """A ranker that scores by a table: what a user of `Ranker` would write, and one call's contexts
    are whole chunks."""

    index: ItemIndex
    by_user: dict[str, list[float]]

    def item_log_prob(self, contexts: Contexts) -> np.ndarray:
        assert len(contexts) <= CHUNK
        return np.array([self.by_user[user] for user in contexts.frame["user_id"]])


# -- by hand
# -------------------------------------------------------------------------------------------------


def test_hit_rate_and_ndcg_of_three_visits_are_those_counted_by_hand() -> None:
    future = future_with({0: {"i0": 1.0, "i3": 0.0}, 1: {"i2": 0.0}, 2: {"i9": 1.0}})
    top = ranked(["i1", "i0", "i3"], ["i2", "i0", "i1"], ["i0", "i1", "i2"])
    values = {
        name: estimate.value
        for name, estimate in rank_metrics(top, future, depths=(1, 2, 3)).items()
    }
    assert values["HR@1"] == pytest.approx(1 / 3)  # only the second visit hits at once
    assert values["HR@2"] == values["HR@3"] == pytest.approx(2 / 3)
    ideal = 1 + 1 / log2(3)  # two relevant items in the first two places
    assert values["NDCG@1"] == pytest.approx((0 + 1 + 0) / 3)
    assert values["NDCG@2"] == pytest.approx(((1 / log2(3)) / ideal + 1 + 0) / 3)
    assert values["NDCG@3"] == pytest.approx(((1 / log2(3) + 1 / log2(4)) / ideal + 1 + 0) / 3)
    # habits: the first visit's i0 stands second, the third's i9 nowhere; the second visit has none
    # and is left out
    assert values["habit NDCG@1"] == 0
    assert values["habit NDCG@3"] == pytest.approx((1 / log2(3) + 0) / 2)


def test_a_perfect_ranking_is_one_and_an_irrelevant_one_zero() -> None:
    future = future_with({0: {"i0": 1.0, "i1": 1.0}, 1: {"i2": 1.0}})
    perfect = rank_metrics(ranked(["i1", "i0", "i5"], ["i2", "i5", "i4"]), future, depths=(1, 2, 3))
    assert [estimate.value for estimate in perfect.values()] == [1.0] * 9
    nothing = rank_metrics(ranked(["i5", "i4"], ["i5", "i4"]), future, depths=(1, 2))
    assert [estimate.value for estimate in nothing.values()] == [0.0] * 6


def test_without_any_habit_there_is_no_habit_ndcg_rather_than_a_zero() -> None:
    answer = rank_metrics(ranked(["i0"]), future_with({0: {"i0": 0.0, "i1": None}}), depths=(1,))
    assert set(answer) == {"HR@1", "NDCG@1"}


def test_no_context_or_no_relevant_item_is_refused() -> None:
    with pytest.raises(DataError, match="move the cut earlier or the end later"):
        future_with({}, users=["u1"])
    with pytest.raises(DataError, match="move the cut earlier or the end later"):
        future_with({0: {"i0": 1.0}}, users=[])


def test_exposure_is_what_the_first_places_are_made_of() -> None:
    top = ranked(["i0", "i1", "i2"], ["i0", "i3", "i4"])
    plays = {"i0": 50, "i1": 10, "i3": 9}
    assert exposure_metrics(top, ITEMS, plays, k=2, cold=10) == {
        "coverage@2": 3 / 6,
        "cold-start share@2": 1 / 4,
    }  # i0 i1 i3; i3 of four places
    assert exposure_metrics(top, ITEMS, plays, k=3, cold=10) == {
        "coverage@3": 5 / 6,
        "cold-start share@3": 3 / 6,
    }  # i2 and i4 were never played
    assert exposure_metrics(top, ["i0", "x"], {}, k=1) == {
        "coverage@1": 1 / 2,
        "cold-start share@1": 1.0,
    }


# -- top_items
# -------------------------------------------------------------------------------------------------


def test_ties_are_broken_by_item_id_whatever_the_order_of_the_catalogue() -> None:
    contexts = Contexts.of(["u"], NOON, slots=1)
    for catalogue in (["i2", "i0", "i1"], ["i0", "i1", "i2"], ["i1", "i2", "i0"]):
        top = top_items(Scores(ItemIndex(catalogue), {"u": [0.5, 0.5, 0.5]}), contexts, 2)
        assert top.rows() == [(0, 1, "i0"), (0, 2, "i1")]


def test_the_first_of_a_large_catalogue_are_those_of_a_whole_sort() -> None:
    rng = np.random.default_rng(0)
    for items, k in ((200, 20), (200, 200), (3, 9)):
        scores = rng.integers(0, 30, items).astype(float)  # many ties, some where the last place is
        scores[rng.random(items) < 0.2] = -np.inf
        ids = [f"i{n:03}" for n in rng.permutation(items)]
        top = top_items(
            Scores(ItemIndex(ids), {"u": scores.tolist()}), Contexts.of(["u"], NOON, slots=1), k
        )
        expected = sorted(
            (-score, item) for score, item in zip(scores, ids, strict=True) if np.isfinite(score)
        )[:k]
        assert top["item_id"].to_list() == [item for _, item in expected]


def test_what_cannot_be_shown_is_not_ranked() -> None:
    top = top_items(
        Scores(ItemIndex(["a", "b", "c"]), {"u": [-np.inf, -3.0, -1.0]}),
        Contexts.of(["u"], NOON, slots=1),
        10,
    )
    assert top.rows() == [(0, 1, "c"), (0, 2, "b")]


def test_contexts_keep_their_numbers_across_chunks() -> None:
    users = [f"u{row}" for row in range(CHUNK + 3)]
    best = {user: row % 3 for row, user in enumerate(users)}
    ranker = Scores(
        ItemIndex(["a", "b", "c"]),
        {user: [float(item == best[user]) for item in range(3)] for user in users},
    )
    seen: list[tuple[int, int]] = []
    top = top_items(
        ranker,
        Contexts.of(users, NOON, slots=1),
        1,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert top["row"].to_list() == list(range(CHUNK + 3))
    assert top["item_id"].to_list() == ["abc"[row % 3] for row in range(CHUNK + 3)]
    assert seen == [(CHUNK, CHUNK + 3), (CHUNK + 3, CHUNK + 3)]


# -- against independent implementations
# ---------------------------------------------------------------------------


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[list[str]], Relevant, list[str]]:
    n = draw(st.integers(1, 5))
    orders = [draw(st.permutations(ITEMS))[: draw(st.integers(1, 6))] for _ in range(n)]
    habit = st.sampled_from((0.0, 1.0, 1.0, None))
    relevant = {
        row: draw(st.dictionaries(st.sampled_from((*ITEMS, "i9")), habit, max_size=4))
        for row in range(n)
    }
    assume(any(relevant.values()))
    return orders, relevant, [draw(st.sampled_from(("a", "b", "c"))) for _ in range(n)]


def ndcg(order: list[str], gains: dict[str, float], k: int) -> float:
    best = sum(
        gain / log2(place + 2)
        for place, gain in enumerate(sorted(gains.values(), reverse=True)[:k])
    )
    return (
        sum(gains.get(item, 0.0) / log2(place + 2) for place, item in enumerate(order[:k])) / best
    )


@given(cases(), st.integers(1, 7))
@examples(120)
def test_the_metrics_equal_a_plain_loop_over_the_visits(
    case: tuple[list[list[str]], Relevant, list[str]], k: int
) -> None:
    orders, relevant, users = case
    top, future = ranked(*orders), future_with(relevant, users)
    answer = rank_metrics(top, future, depths=(k,))
    all_gains = {row: dict.fromkeys(items, 1.0) for row, items in relevant.items() if items}
    habit_gains = {
        row: {item: 1.0 for item, habit in items.items() if habit}
        for row, items in relevant.items()
    }
    hits = {
        row: float(any(item in gains for item in orders[row][:k]))
        for row, gains in all_gains.items()
    }
    expected = {
        f"HR@{k}": hits,
        f"NDCG@{k}": {row: ndcg(orders[row], gains, k) for row, gains in all_gains.items()},
    }
    if any(habit_gains.values()):
        expected[f"habit NDCG@{k}"] = {
            row: ndcg(orders[row], gains, k) for row, gains in habit_gains.items() if gains
        }
    assert set(answer) == set(expected)
    for name, by_row in expected.items():
        rows = sorted(by_row)
        mean = clustered_mean([by_row[row] for row in rows], [users[row] for row in rows])
        assert answer[name].value == pytest.approx(mean.value)
        assert answer[name].std_error == pytest.approx(mean.std_error, abs=1e-9)
        assert answer[name].n == len({users[row] for row in rows})
    for habit in (False, True):
        by_row = expected.get(f"{'habit ' if habit else ''}NDCG@{k}", {})
        found = ndcg_by_context(top, future, k, habit=habit)
        assert found["row"].to_list() == sorted(by_row)
        assert found["ndcg"].to_list() == pytest.approx([by_row[row] for row in sorted(by_row)])


@given(st.lists(st.permutations(range(6)), min_size=1, max_size=4), st.integers(1, 6), st.data())
@examples(60)
def test_ndcg_equals_scikit_learns(scores: list[list[int]], k: int, data: st.DataObject) -> None:
    truth = [
        data.draw(st.lists(st.sampled_from((0, 1)), min_size=6, max_size=6).filter(any))
        for _ in scores
    ]
    users = [f"u{row}" for row in range(len(scores))]
    ranker = Scores(
        ItemIndex(ITEMS),
        {user: [float(x) for x in row] for user, row in zip(users, scores, strict=True)},
    )
    future = future_with(
        {
            row: {item: float(hit) for item, hit in zip(ITEMS, hits, strict=True) if hit}
            for row, hits in enumerate(truth)
        },
        users,
    )
    answer = rank_metrics(top_items(ranker, future.contexts, k), future, depths=(k,))
    theirs = ndcg_score(np.array(truth), np.array(scores, dtype=float), k=k)
    assert answer[f"NDCG@{k}"].value == pytest.approx(theirs)
    assert answer[f"habit NDCG@{k}"].value == pytest.approx(theirs)


# -- how sure
# -----------------------------------------------------------------------------------------------------------


def test_visits_of_one_user_are_not_independent_evidence() -> None:
    """Four users with 25 equal visits each: 100 rows, but four units. By rows the interval would be
    five times too narrow."""
    users = [f"u{row % 4}" for row in range(100)]
    future = future_with({row: {"i0": 1.0} for row in range(100)}, users)
    top = ranked(*[["i0"] if row % 4 < 2 else ["i1"] for row in range(100)])
    clustered = rank_metrics(top, future, depths=(1,))["HR@1"]
    by_row = rank_metrics(top, future_with({row: {"i0": 1.0} for row in range(100)}), depths=(1,))[
        "HR@1"
    ]
    assert (clustered.value, clustered.n) == (by_row.value, 4)
    assert clustered.std_error == pytest.approx(np.sqrt(1 / 3) / 2)  # of the four means 1, 1, 0, 0
    assert clustered.std_error > 5 * by_row.std_error


def test_the_paired_difference_is_taken_visit_by_visit() -> None:
    future = future_with({0: {"i0": 1.0}, 1: {"i1": 0.0}, 2: {"i2": 1.0}}, ["a", "a", "b"])
    ours, base = ranked(["i0"], ["i1"], ["i5"]), ranked(["i5"], ["i1"], ["i2"])
    assert paired_difference(ours, ours, future, 1, habit=False) == clustered_mean(
        [0.0] * 3, ["a", "a", "b"], estimand="difference in NDCG@1"
    )
    assert paired_difference(ours, base, future, 1, habit=False) == clustered_mean(
        [1.0, 0.0, -1.0], ["a", "a", "b"], estimand="difference in NDCG@1"
    )
    habit = paired_difference(ours, base, future, 1, habit=True)  # the second visit has no habit
    assert habit == clustered_mean([1.0, -1.0], ["a", "b"], estimand="difference in habit NDCG@1")
