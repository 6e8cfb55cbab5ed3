"""The loggers' propensities are exact: every test counts or enumerates."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from longplay.chance import RowChance
from longplay.decisions import Adaptive, Contexts, Policy
from longplay.errors import ConfigError, DataError
from longplay.lake import Lake
from longplay.policies import plackett
from longplay.policies.plackett import draw_slates, log1mexp, plackett_luce_log_prob, repeats
from longplay.policies.simple import Popular, Uniform

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ITEMS = pl.DataFrame({"item_id": [f"i{n}" for n in range(5)], "available": [True] * 5})
NOTHING = pl.DataFrame(schema={"item_id": pl.String, "kind": pl.String})


def plays(*counts: int) -> pl.DataFrame:
    names = [f"i{item}" for item, count in enumerate(counts) for _ in range(count)]
    return pl.DataFrame({"item_id": names, "kind": ["play"] * len(names)}, schema=NOTHING.schema)


def asked(
    n: int, slots: int, exclusions: list[str] | None = None, temperature: float = 1.0
) -> Contexts:
    ids = [f"u{row}" for row in range(n)]
    return Contexts.of(
        ids, NOON, slots=slots, exclusions=[exclusions or []] * n, temperature=temperature
    )


def streams(n: int, seed: int) -> RowChance:
    return RowChance(np.random.default_rng(seed).integers(0, 2**64, n, dtype=np.uint64))


def all_slates(names: list[str], slots: int) -> pl.Series:
    return pl.Series(
        [list(slate) for slate in itertools.permutations(names, slots)], dtype=pl.List(pl.String)
    )


POLICIES = {
    "uniform": Uniform().adapt(ITEMS, NOTHING),
    "popular": Popular(explore=0.1).adapt(ITEMS, plays(60, 25, 10, 4, 1)),
    "peaked": Popular(explore=0.0).adapt(ITEMS, plays(100_000, 20, 5, 1, 1)),
}


@pytest.mark.parametrize("kind", POLICIES)
@pytest.mark.parametrize(
    ("excluded", "temperature"), [([], 1.0), (["i0"], 1.0), (["i1", "unknown"], 0.5), ([], 3.0)]
)
def test_the_probabilities_of_all_slates_sum_to_one(
    kind: str, excluded: list[str], temperature: float
) -> None:
    slates = all_slates(ITEMS["item_id"].to_list(), 3)
    log_prob_NS = POLICIES[kind].log_prob(asked(len(slates), 3, excluded, temperature), slates)
    assert abs(np.exp(log_prob_NS.sum(axis=1)).sum() - 1) < 1e-12
    holds_excluded = slates.list.eval(pl.element().is_in(excluded)).list.any().to_numpy()
    assert np.isneginf(log_prob_NS.sum(axis=1))[holds_excluded].all()
    assert np.isfinite(log_prob_NS.sum(axis=1))[~holds_excluded].all()


def test_popular_has_the_probabilities_a_reader_computes_by_hand() -> None:
    policy = Popular(explore=0.5).adapt(ITEMS, plays(3, 1))
    p_I = [0.5 * 0.75 + 0.1, 0.5 * 0.25 + 0.1, 0.1, 0.1, 0.1]
    assert np.exp(policy.item_log_prob(asked(1, 1))[0]) == pytest.approx(p_I, rel=1e-12)
    given_slate = pl.Series([["i1", "i0", "i4"]])
    by_hand = [p_I[1], p_I[0] / (1 - p_I[1]), p_I[4] / (1 - p_I[1] - p_I[0])]
    assert np.exp(policy.log_prob(asked(1, 3), given_slate)[0]) == pytest.approx(by_hand, rel=1e-12)
    hot = np.array(p_I) ** 0.5
    assert np.exp(policy.item_log_prob(asked(1, 1, temperature=2.0))[0]) == pytest.approx(
        hot / hot.sum(), rel=1e-12
    )
    without = np.where(np.arange(5) == 0, 0.0, p_I) / (1 - p_I[0])
    assert np.exp(policy.item_log_prob(asked(1, 1, ["i0"]))[0]) == pytest.approx(without, rel=1e-12)


@pytest.mark.parametrize("kind", POLICIES)
@pytest.mark.parametrize("excluded", [[], ["i2"]])
def test_reported_log_probabilities_are_those_of_log_prob(kind: str, excluded: list[str]) -> None:
    contexts = Contexts(
        pl.concat([asked(200, 3, excluded).frame, asked(200, 3, excluded, 0.7).frame])
    )
    said = POLICIES[kind].decide(contexts, np.random.default_rng(1))
    assert np.array_equal(said.log_prob, POLICIES[kind].log_prob(contexts, said.slates))
    assert (said.slates.list.n_unique() == 3).all()
    assert not said.slates.explode().is_in(excluded).any()
    assert said.frame["policy"].unique().to_list() == [POLICIES[kind].name]


@pytest.mark.parametrize("passes", [0, 1, 6], ids=["gumbel", "one pass, then gumbel", "rejection"])
@pytest.mark.parametrize("banned", [False, True])
def test_draws_follow_the_law_by_either_method(passes: int, banned: bool) -> None:
    log_p_I = np.log(np.array([0.70, 0.2, 0.06, 0.03, 0.01]))
    n = 60_000
    given_banned = (np.arange(n + 1), np.ones(n, dtype=np.int64)) if banned else None
    drawn_NS = draw_slates(log_p_I, n, 3, streams(n, 3), given_banned, passes=passes)
    if banned:
        log_p_I = np.where(np.arange(5) == 1, -np.inf, log_p_I) - np.log(0.8)
    slates = np.array([s for s in itertools.permutations(range(5), 3) if not (banned and 1 in s)])
    expected = n * np.exp(plackett_luce_log_prob(log_p_I[slates]).sum(axis=1))
    code = drawn_NS @ [25, 5, 1]
    seen = np.array([(code == slate @ [25, 5, 1]).sum() for slate in slates])
    assert seen.sum() == n
    rare = expected < 10
    seen_G, expected_G = (np.append(x[~rare], x[rare].sum()) for x in (seen, expected))
    assert stats.chisquare(seen_G, expected_G).pvalue > 1e-3


@pytest.mark.parametrize("kind", POLICIES)
def test_a_context_s_slate_is_its_own(kind: str) -> None:
    """Not that of its place, its batch or who joined later; `peaked` needs the Gumbel finish."""
    policy, rows = POLICIES[kind], np.random.default_rng(0).permutation(300)
    contexts = Contexts(
        pl.concat(
            [
                asked(600, 3, ["i2"]).frame,
                asked(100, 3, temperature=0.7).frame.with_columns(
                    context_id="x" + pl.col("context_id")
                ),
            ]
        )
    )

    def slates(of: Contexts, seed: int = 1) -> list[list[str]]:
        return policy.decide(of, np.random.default_rng(seed)).slates.to_list()

    whole = slates(contexts)
    assert slates(contexts.take(rows)) == [whole[row] for row in rows]
    assert slates(contexts.take([650])) == [whole[650]]
    assert slates(asked(100, 3, ["i2"])) == whole[:100]  # others were added behind them
    assert slates(contexts) == whole
    other = slates(contexts, seed=2)
    same = np.mean([one == two for one, two in zip(whole, other, strict=True)])
    assert same < (0.9 if kind == "peaked" else 0.3), "another generator, the same slates"


def test_contexts_are_known_by_their_id() -> None:
    contexts = asked(50, 3)
    twice = Contexts(pl.concat([contexts.frame, contexts.frame]))
    slates = POLICIES["uniform"].decide(twice, np.random.default_rng(0)).slates.to_list()
    assert slates[:50] == slates[50:]
    assert len(set(map(tuple, slates))) > 20  # of 60


def test_neither_chunks_nor_passes_of_others_change_a_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    log_p_I, chance = np.log(np.array([0.97, 0.01, 0.01, 0.009, 0.001])), streams(200, 5)
    whole = {passes: draw_slates(log_p_I, 200, 3, chance, passes=passes) for passes in (0, 2)}
    monkeypatch.setattr(plackett, "_GUMBEL_CELLS", 35)  # seven rows at a time
    for passes, slates in whole.items():
        assert np.array_equal(draw_slates(log_p_I, 200, 3, chance, passes=passes), slates)
        assert not repeats(slates).any()
        alone = [
            draw_slates(log_p_I, 1, 3, chance.take(np.array([row])), passes=passes)[0]
            for row in range(40)
        ]
        assert np.array_equal(alone, slates[:40])


def test_log_probabilities_stay_exact_when_nothing_is_left() -> None:
    policy = POLICIES["peaked"]
    whole = pl.Series([["i0", "i1", "i2", "i3", "i4"], ["i0", "i1", "i2", "i4", "i3"]])
    log_prob_NS = policy.log_prob(asked(2, 5), whole)
    assert log_prob_NS[:, 4] == pytest.approx([0.0, 0.0], abs=1e-12)
    assert np.exp(log_prob_NS[:, 3]) == pytest.approx([0.5, 0.5], rel=1e-12)
    tiny = np.log(np.array([[1.0, 1e-30, 3e-30]]))
    log_prob_S = plackett_luce_log_prob(tiny, np.array([-np.inf]))[0]
    assert np.exp(log_prob_S) == pytest.approx([1.0, 0.25, 1.0], rel=1e-12)


@given(st.lists(st.floats(1e-6, 1.0), min_size=4, max_size=7), st.integers(1, 4))
@examples(60)
def test_the_last_free_slot_is_certain_and_no_log_probability_is_positive(
    weights: list[float], slots: int
) -> None:
    log_p = np.log(np.array(weights) / sum(weights))
    orders = np.array(list(itertools.permutations(range(len(weights)), slots)))
    log_prob_NS = plackett_luce_log_prob(log_p[orders])
    assert (log_prob_NS <= 1e-12).all()
    assert abs(np.exp(log_prob_NS.sum(axis=1)).sum() - 1) < 1e-9
    full = plackett_luce_log_prob(log_p[None, :], np.array([-np.inf]))
    assert abs(full[0, -1]) < 1e-12


@given(st.floats(-700, -1e-12))
def test_log1mexp_inverts_itself(x: float) -> None:
    y = float(log1mexp(np.array([x]))[0])
    assert y <= 0
    assert np.exp(x) + np.exp(y) == pytest.approx(1.0, abs=1e-15)


def test_a_repeated_or_unavailable_item_has_no_probability() -> None:
    gone = ITEMS.with_columns(available=pl.col("item_id") != "i3")
    policy = Popular().adapt(gone, plays(1, 1, 1, 50, 1))
    slates = pl.Series([["i0", "i0"], ["i3", "i0"], ["i0", "i1"]])
    assert np.isneginf(policy.log_prob(asked(3, 2), slates)).tolist() == [
        [False, True],
        [True, False],
        [False, False],
    ]
    assert (
        "i3"
        not in policy.decide(asked(500, 4), np.random.default_rng(0)).slates.explode().to_list()
    )
    assert np.isneginf(policy.item_log_prob(asked(1, 1))[0]).tolist() == [
        False,
        False,
        False,
        True,
        False,
    ]


def test_adapt_adds_plays_changes_the_name_and_leaves_the_old_version_alone() -> None:
    first = Popular(explore=0.2).adapt(ITEMS, plays(3, 1))
    second = first.adapt(ITEMS, plays(0, 2))
    assert second.plays.tolist() == [3, 3, 0, 0, 0]
    assert first.plays.tolist() == [3, 1, 0, 0, 0]
    assert second.name != first.name
    assert first.adapt(ITEMS, NOTHING).name == first.name
    assert Popular(explore=0.3).adapt(ITEMS, plays(3, 1)).name != first.name
    ignored = pl.DataFrame(
        {"item_id": ["i0", None, "other"], "kind": ["skip", "visit", "play"]}, schema=NOTHING.schema
    )
    assert first.adapt(ITEMS, ignored).name == first.name
    assert isinstance(first, Policy)
    assert isinstance(first, Adaptive)
    assert isinstance(Uniform(), Adaptive)


def test_a_replaced_catalogue_keeps_the_counts_of_the_items_that_stay() -> None:
    other = pl.DataFrame({"item_id": ["new", "i1", "i0"]})
    policy = Popular().adapt(ITEMS, plays(3, 1)).adapt(other, NOTHING)
    assert policy.plays.tolist() == [0, 1, 3]
    assert Uniform().adapt(ITEMS, NOTHING).name != Uniform().adapt(other, NOTHING).name


def test_fit_counts_the_lake_from_zero() -> None:
    lake = Lake.memory()
    rows = (
        plays(2, 0, 1)
        .with_row_index("event_id")
        .with_columns(pl.col("event_id").cast(pl.String), user_id=pl.lit("u"), time=pl.lit(NOON))
    )
    items = ITEMS.with_columns(added_at=pl.lit(datetime(2026, 1, 1, tzinfo=UTC)))
    lake.append("b", events=rows, items=items)
    policy = Popular().fit(lake)
    assert policy.plays.tolist() == [2, 0, 1, 0, 0]
    assert policy.fit(lake).name == policy.name


def test_errors_say_who_how_many_and_what_to_do() -> None:
    with pytest.raises(DataError, match=r"no catalogue yet; call .fit\(lake\)"):
        Popular().decide(asked(1, 1), np.random.default_rng(0))
    few = Contexts.of(["ann", "bob"], NOON, slots=3, exclusions=[[], ["i0", "i1", "i2"]])
    with pytest.raises(DataError, match="'bob' asks for 3 slots but only 2 of 5 items"):
        POLICIES["uniform"].decide(few, np.random.default_rng(0))
    with pytest.raises(DataError, match="only 2 of 5"):
        Popular(explore=0.0).adapt(ITEMS, plays(3, 1)).decide(asked(1, 3), np.random.default_rng(0))
    with pytest.raises(DataError, match="not in this policy's catalogue"):
        POLICIES["uniform"].log_prob(asked(1, 1), pl.Series([["nope"]]))
    with pytest.raises(ConfigError, match=r"explore=1.5 given, expected a share in \[0, 1\]"):
        Popular(explore=1.5)
    with pytest.raises(ConfigError, match="slate=0"):
        Uniform(slate=0)


def test_no_contexts_give_no_decisions() -> None:
    assert (
        len(
            POLICIES["popular"].decide(
                Contexts(asked(1, 2).frame.clear()), np.random.default_rng(0)
            )
        )
        == 0
    )
