"""What holds for every policy: one law, said the same before and after, and errors in words where
it cannot answer."""

from __future__ import annotations

import importlib.util
import itertools
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import longplay as lp
from longplay.decisions import Contexts, Decisions, Frozen, Policy
from longplay.errors import ConfigError, DataError, LongplayError
from longplay.lake import Lake

torch.set_num_threads(1)

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ITEMS = [f"i{n}" for n in range(6)]
GONE = "gone"  # in the catalogue, not available
SLOTS = 2
EXACT = 1e-12
SINGLE = 1e-5  # of models in single precision


def lake_of(items: list[str], available: bool = True) -> Lake:
    """Three users who play each item, some oftener, over a week; `GONE` is no longer there."""
    plays = [
        (user, item, hour)
        for user in ("u1", "u2", "u3")
        for hour, item in enumerate(items * 2 + items[:2])
    ]
    names = [*items, GONE]
    frame = pl.DataFrame(
        {
            "item_id": names,
            "creator_id": [f"c{n % 2}" for n in range(len(names))],
            "added_at": [NOON - timedelta(days=30)] * len(names),
        }
    )
    frame = frame.with_columns(available=pl.lit(available) & (pl.col("item_id") != GONE))
    events = pl.DataFrame(
        {
            "event_id": [f"e{n}" for n in range(len(plays))],
            "user_id": [play[0] for play in plays],
            "item_id": [play[1] for play in plays],
        }
    ).with_columns(
        kind=pl.lit("play"),
        time=pl.Series([NOON - timedelta(days=7) + timedelta(hours=play[2]) for play in plays]),
    )
    lake = Lake.memory()
    lake.append("all", events=events, items=frame, watermark=NOON)
    return lake


def peaked(policy: lp.Generative) -> lp.Generative:
    """With larger weights: the law of a model that has hardly been trained is flat, and would hide
    mistakes."""
    with torch.no_grad():
        for weight in policy.decoder.model.parameters():
            if weight.ndim == 2:
                weight.mul_(4)
    return policy


@cache
def generative() -> lp.Generative:
    return peaked(lp.Generative(steps=2, seed=3, slate=SLOTS, exclude="none").fit(lake_of(ITEMS)))


def reinforced() -> Policy:
    signal = lp.Signal(
        "again",
        entry=lp.discovery(novel_for=1, of="item"),
        measure=lp.days_with("item"),
        window=(1, 1),
    )
    lake = lake_of(ITEMS)
    early = lp.MaturedOnly(signal).fit(lake, signal.outcomes(lake))
    return lp.reinforce(
        generative(), lp.Reward({signal: 1.0}), early, lake, steps=2, seed=1, contexts=4, group=2
    )


def page() -> Policy:
    rows = {
        "top": lp.Popular(explore=0.3).fit(lake_of(ITEMS[:3])),
        "bottom": lp.Uniform().fit(lake_of(ITEMS[3:]).before(NOON)),
    }
    return lp.Page(rows, {"top": 1, "bottom": 1})


POLICIES: dict[str, Any] = {
    "uniform": lambda: lp.Uniform(slate=SLOTS).fit(lake_of(ITEMS)),
    "popular": lambda: lp.Popular(slate=SLOTS, explore=0.2).fit(lake_of(ITEMS)),
    "greedy": lambda: lp.Popular(slate=SLOTS, explore=0.0).fit(lake_of(ITEMS)),
    "frozen": lambda: Frozen(lp.Popular(slate=SLOTS).fit(lake_of(ITEMS))),
    "rows": page,
    "experiment": lambda: lp.Experiment(
        lp.Uniform(slate=SLOTS).fit(lake_of(ITEMS)),
        lp.Popular(slate=SLOTS).fit(lake_of(ITEMS)),
        salt="s",
    ),
    "generative": generative,
    "generative with a token per item": lambda: peaked(
        lp.Generative(steps=2, slate=SLOTS, item_tokens=True).fit(lake_of(ITEMS))
    ),
    "untrained": lambda: lp.Generative(slate=SLOTS).with_codes(lake_of(ITEMS)),
    "frozen generative": lambda: Frozen(generative()),
    "experiment of both": lambda: lp.Experiment(
        lp.Uniform(slate=SLOTS).fit(lake_of(ITEMS)), generative(), salt="s"
    ),
    "reinforced": reinforced,
}
if importlib.util.find_spec("openvino"):
    POLICIES["compiled"] = lambda: generative().compiled()
FILLS_ANY = [name for name in POLICIES if name != "rows"]  # a page has as many slots as its rows


@cache
def policy_of(name: str) -> Policy:
    return POLICIES[name]()


def asked(
    n: int = 4, slots: int = SLOTS, exclusions: list[str] | None = None, temperature: float = 1.0
) -> Contexts:
    histories = [ITEMS[: n % 4] for n in range(n)]
    users = [f"u{row}" for row in range(n)]
    contexts = Contexts.of(
        users,
        NOON,
        slots=max(slots, 1),
        history=histories,
        exclusions=[exclusions or []] * n,
        temperature=temperature,
    )
    return Contexts(contexts.frame.with_columns(slots=pl.lit(slots, dtype=pl.Int32)))


def tolerance(name: str) -> float:
    return (
        SINGLE
        if any(
            word in name for word in ("generative", "both", "reinforced", "compiled", "untrained")
        )
        else EXACT
    )


def slates_of(name: str, slots: int = SLOTS) -> pl.Series:
    """Every slate that the policy could be asked about; of a page, those with each row's own
    items."""
    slates = [list(slate) for slate in itertools.permutations(ITEMS, slots)]
    if name == "rows":
        slates = [slate for slate in slates if slate[0] in ITEMS[:3] and slate[1] in ITEMS[3:]]
    return pl.Series("slate", slates, dtype=pl.List(pl.String))


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("temperature", [1.0, 0.5, 3.0])
def test_what_was_drawn_has_the_probability_that_is_said_of_it_afterwards(
    name: str, temperature: float
) -> None:
    policy, contexts = policy_of(name), asked(20, temperature=temperature)
    drawn = policy.decide(contexts, np.random.default_rng(7))
    assert drawn.frame["context_id"].equals(contexts.frame["context_id"])
    assert drawn.log_prob == pytest.approx(
        policy.log_prob(contexts, drawn.slates), abs=tolerance(name)
    )
    assert (drawn.slates.list.len() == SLOTS).all()
    assert (drawn.log_prob <= 0).all()


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize(("excluded", "temperature"), [([], 1.0), (["i0", "never heard of"], 0.7)])
def test_the_probabilities_of_all_slates_sum_to_one(
    name: str, excluded: list[str], temperature: float
) -> None:
    slates = slates_of(name)
    context = asked(1, exclusions=excluded, temperature=temperature)
    log_prob_NS = policy_of(name).log_prob(context.take([0] * len(slates)), slates)
    assert np.exp(log_prob_NS.sum(axis=1)).sum() == pytest.approx(
        1.0, abs=max(tolerance(name), 1e-10)
    )
    holds_excluded = slates.list.contains("i0").to_numpy() & bool(excluded)
    assert np.isneginf(log_prob_NS.sum(axis=1))[holds_excluded].all()


@pytest.mark.parametrize("name", FILLS_ANY)
def test_nothing_can_be_drawn_from_the_slot_on_that_repeats_an_item(name: str) -> None:
    slates = pl.Series([["i0", "i0", "i1"], ["i0", "i1", "i0"], ["i0", "i1", "i2"]])
    impossible = np.isneginf(policy_of(name).log_prob(asked(1, 3).take([0, 0, 0]), slates))
    assert impossible.tolist() == [[False, True, True], [False, False, True], [False, False, False]]


@pytest.mark.parametrize("name", POLICIES)
def test_the_same_generator_gives_the_same_slates_and_another_gives_others(name: str) -> None:
    policy, contexts = policy_of(name), asked(40)
    first, second, other = (
        policy.decide(contexts, np.random.default_rng(seed)).frame for seed in (1, 1, 2)
    )
    assert first.equals(second)
    assert not first["slate"].equals(other["slate"])


@pytest.mark.parametrize("name", POLICIES)
def test_what_is_excluded_or_gone_is_never_shown_and_no_item_twice(name: str) -> None:
    drawn = policy_of(name).decide(
        asked(100, exclusions=["i1", "i4", "never heard of"]), np.random.default_rng(3)
    )
    assert not set(drawn.slates.explode()) & {"i1", "i4", GONE}
    assert (drawn.slates.list.n_unique() == SLOTS).all()


@pytest.mark.parametrize("name", POLICIES)
def test_no_slots_are_answered_with_empty_slates(name: str) -> None:
    policy, contexts = policy_of(name), asked(3, slots=0)
    drawn = policy.decide(contexts, np.random.default_rng(0))
    assert drawn.slates.to_list() == [[], [], []]
    assert drawn.log_prob.shape == policy.log_prob(contexts, drawn.slates).shape == (3, 0)


@pytest.mark.parametrize("name", POLICIES)
def test_no_contexts_are_answered_with_no_decisions(name: str) -> None:
    policy, contexts = policy_of(name), asked(1).take([])
    drawn = policy.decide(contexts, np.random.default_rng(0))
    assert (len(drawn), len(policy.log_prob(contexts, drawn.slates))) == (0, 0)


@pytest.mark.parametrize("name", FILLS_ANY)
@pytest.mark.parametrize(("slots", "exclusions"), [(7, []), (5, ["i0", "i1"]), (1, ITEMS)])
def test_more_slots_than_items_are_refused_in_words(
    name: str, slots: int, exclusions: list[str]
) -> None:
    with pytest.raises(DataError, match=rf"asks for {slots} slots but only {6 - len(exclusions)} "):
        policy_of(name).decide(asked(2, slots, exclusions), np.random.default_rng(0))


@pytest.mark.parametrize("name", FILLS_ANY)
def test_a_slate_of_the_whole_catalogue_has_a_certain_last_slot(name: str) -> None:
    policy, contexts = policy_of(name), asked(5, 6)
    drawn = policy.decide(contexts, np.random.default_rng(0))
    assert drawn.log_prob[:, -1] == pytest.approx(np.zeros(5), abs=tolerance(name))
    assert policy.log_prob(contexts, drawn.slates) == pytest.approx(
        drawn.log_prob, abs=10 * tolerance(name)
    )


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize(
    "slates", [[["never heard of", "i5"]], [["i0", "i5"], ["i0", "i5"]], [["i0", None]]]
)
def test_slates_that_cannot_be_meant_are_refused_in_words(name: str, slates: list) -> None:
    with pytest.raises(DataError, match=r"not in this policy's catalogue|expected one each"):
        policy_of(name).log_prob(asked(1), pl.Series(slates))


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_no_policy_is_asked_at_a_temperature_that_cannot_be(name: str, temperature: float) -> None:
    policy = policy_of(name)
    for contexts in (
        lambda: asked(1, temperature=temperature),
        lambda: asked(1).at_temperature(temperature),
        lambda: Contexts(asked(1).frame.with_columns(temperature=pl.lit(temperature))),
    ):
        with pytest.raises((DataError, ConfigError), match="temperature"):
            policy.decide(contexts(), np.random.default_rng(0))


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("temperature", [1e-9, 1e9])
def test_extreme_temperatures_are_greedy_and_uniform_and_no_number_is_lost(
    name: str, temperature: float
) -> None:
    policy, contexts = policy_of(name), asked(20, temperature=temperature)
    drawn = policy.decide(contexts, np.random.default_rng(0))
    again = policy.log_prob(contexts, drawn.slates)
    assert np.isfinite(drawn.log_prob).all()
    assert again == pytest.approx(drawn.log_prob, abs=1e-3)
    if temperature > 1 and name != "rows":
        assert drawn.log_prob[:, 0] == pytest.approx(np.full(20, -np.log(6)), abs=1e-4)


@pytest.mark.parametrize(
    "fit",
    [
        lambda lake: lp.Uniform().fit(lake),
        lambda lake: lp.Popular().fit(lake),
        lambda lake: lp.Generative().with_codes(lake),
        lambda lake: lp.Generative(steps=1).fit(lake),
    ],
)
def test_an_empty_catalogue_is_refused_in_words(fit: Any) -> None:
    with pytest.raises(LongplayError, match=r"(?i)catalogue|items"):
        fit(Lake.memory())


@pytest.mark.parametrize(
    "make",
    [
        lambda: lp.Uniform(),
        lambda: lp.Popular(),
        lambda: lp.Generative(),
        lambda: Frozen(lp.Uniform()),
    ],
)
def test_a_policy_that_was_not_fitted_says_so(make: Any) -> None:
    with pytest.raises(DataError, match=r"\.fit\(lake\)"):
        make().decide(asked(1), np.random.default_rng(0))


@pytest.mark.parametrize("kind", [lp.Uniform, lp.Popular])
def test_a_catalogue_of_which_nothing_is_available_shows_nothing(kind: Any) -> None:
    policy = kind().fit(lake_of(ITEMS, available=False))
    with pytest.raises(DataError, match="asks for 2 slots but only 0 of 7 items can be shown"):
        policy.decide(asked(2), np.random.default_rng(0))
    assert np.isneginf(policy.log_prob(asked(1), pl.Series([["i0", "i1"]]))).all()
    assert policy.decide(asked(2, 0), np.random.default_rng(0)).slates.to_list() == [[], []]


def test_a_page_shows_its_top_where_there_are_fewer_slots_and_no_more_than_it_has() -> None:
    policy, rng = policy_of("rows"), np.random.default_rng
    whole, top = policy.decide(asked(30), rng(5)), policy.decide(asked(30, 1), rng(5))
    assert top.slates.to_list() == [slate[:1] for slate in whole.slates.to_list()]
    assert policy.log_prob(asked(30, 1), top.slates) == pytest.approx(top.log_prob, abs=EXACT)
    longer = policy.decide(asked(30, 4), rng(5))
    assert longer.slates.to_list() == whole.slates.to_list()
    beyond = policy.log_prob(asked(1, 3), pl.Series([["i0", "i3", "i4"]]))
    assert np.isneginf(beyond).tolist() == [[False, False, True]]


def test_decisions_of_every_policy_enter_a_lake_and_come_back() -> None:
    for name in POLICIES:
        contexts = asked(5)
        drawn = policy_of(name).decide(contexts, np.random.default_rng(0))
        lake = Lake.memory()
        lake.append("b", contexts=contexts.frame, decisions=drawn.frame)
        stored = Decisions(lake.decisions)
        logged = Contexts(lake.contexts)
        assert policy_of(name).log_prob(logged, stored.slates) == pytest.approx(
            stored.log_prob, abs=tolerance(name)
        )


def test_a_new_model_of_one_item_can_only_show_it() -> None:
    lake = lake_of(["i0"])
    policy = lp.Generative(slate=1).with_codes(lake)
    drawn = policy.decide(asked(3, 1), np.random.default_rng(0))
    assert drawn.slates.to_list() == [["i0"]] * 3
    assert drawn.log_prob == pytest.approx(np.zeros((3, 1)), abs=SINGLE)
