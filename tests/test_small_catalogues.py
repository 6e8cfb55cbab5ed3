"""Whole policies on any small catalogue, by enumeration: one item, one level, equal titles,
prefixes whose children have all gone."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest
import torch
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from longplay.codes import Codebook, fit_codebook, item_vectors
from longplay.decisions import Contexts
from longplay.errors import DataError
from longplay.index import ItemIndex
from longplay.lake import Lake
from longplay.policies.generative_policy import Generative

torch.set_num_threads(1)

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def lake_of(
    items: list[str], plays: list[tuple[str, str]], titles: list[str | None] | None = None
) -> Lake:
    """Items, and plays (user, item) one second apart."""
    lake = Lake.memory()
    n = len(plays)
    events = pl.DataFrame(
        {
            "event_id": [f"e{k}" for k in range(n)],
            "user_id": [user for user, _ in plays],
            "item_id": [item for _, item in plays],
            "creator_id": ["c"] * n,
            "kind": ["play"] * n,
            "time": [NOON.replace(second=k % 60, minute=k // 60) for k in range(n)],
        }
    )
    shown = pl.DataFrame(
        {
            "item_id": items,
            "added_at": [NOON] * len(items),
            "title": pl.Series(titles or [None] * len(items), dtype=pl.String),
        }
    )
    lake.append("log", events=events, items=shown)
    return lake


@st.composite
def catalogues(draw: st.DrawFn) -> tuple[np.ndarray, int, np.ndarray]:
    """Distinct codes of 1 to 9 items, 1 to 3 levels of 1 to 4; which are available, at least
    one."""
    levels, width = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    every = list(itertools.product(range(width), repeat=levels))
    codes = draw(st.lists(st.sampled_from(every), min_size=1, max_size=9, unique=True))
    available = draw(st.lists(st.booleans(), min_size=len(codes), max_size=len(codes)).filter(any))
    return np.array(sorted(codes)), width, np.array(available)


@examples(60)
@given(catalogues(), st.data())
def test_slates_are_inside_and_their_probabilities_sum_to_one(
    catalogue: tuple[np.ndarray, int, np.ndarray], data: st.DataObject
) -> None:
    codes, width, available = catalogue
    items = [f"i{k}" for k in range(len(codes))]
    policy = Generative(seed=2, item_tokens=data.draw(st.booleans())).with_codes(
        lake_of(items, [("u", "i0")]),
        Codebook(pl.Series("item_id", items), codes, width, available),
    )
    with torch.no_grad():
        for weight in policy.decoder.model.parameters():
            if weight.ndim == 2:
                weight.mul_(4)
    free = [item for item, there in zip(items, available, strict=True) if there]
    excluded = data.draw(
        st.lists(st.sampled_from([*items, "gone"]), max_size=len(items)).filter(
            lambda some: set(free) - set(some)
        )
    )
    left = [item for item in free if item not in excluded]
    slots = data.draw(st.integers(1, min(len(left), 3)))
    history = data.draw(st.lists(st.sampled_from([*items, "gone"]), max_size=4))
    temperature = data.draw(st.sampled_from([0.5, 1.0, 2.0]))
    context = Contexts.of(
        ["u"], NOON, slots=slots, history=[history], exclusions=[excluded], temperature=temperature
    )

    law = policy.item_log_prob(context)[0]
    assert np.flatnonzero(np.isfinite(law)).tolist() == [items.index(item) for item in left]
    assert np.exp(law).sum() == pytest.approx(1, abs=1e-9)
    slates = list(itertools.permutations(left, slots))
    every = Contexts(pl.concat([context.frame] * len(slates)))
    log_prob = policy.log_prob(every, pl.Series(slates, dtype=pl.List(pl.String)))
    assert np.exp(log_prob.sum(axis=1)).sum() == pytest.approx(1, abs=1e-6)
    for slate, given_ in zip(
        slates, log_prob, strict=True
    ):  # the Plackett-Luce law, from the enumerated item law
        p = np.exp(law[[items.index(item) for item in slate]])
        rest = [
            sum(np.exp(law[items.index(other)]) for other in left if other not in slate[:place])
            for place in range(slots)
        ]
        assert np.exp(given_) == pytest.approx(p / rest, rel=1e-4, abs=1e-6)

    many = Contexts(
        pl.concat([context.frame] * 20).with_columns(context_id=pl.int_range(20).cast(pl.String))
    )
    said = policy.decide(many, np.random.default_rng(data.draw(st.integers(0, 99))))
    for slate, given_ in zip(said.slates.to_list(), said.log_prob, strict=True):
        assert len(set(slate)) == slots
        assert set(slate) <= set(left)
        assert given_ == pytest.approx(log_prob[slates.index(tuple(slate))], abs=1e-5)
    best = policy.ranked(context, k=5, beams=16)["item_id"].to_list()
    assert set(best) <= set(left)
    assert len(best) == min(5, len(left))
    assert law[[items.index(item) for item in best]] == pytest.approx(
        -np.sort(-law)[: len(best)], abs=1e-5
    )
    with pytest.raises(DataError, match="asks for"):
        policy.decide(
            Contexts(context.frame.with_columns(slots=pl.lit(len(left) + 1, dtype=pl.Int32))),
            np.random.default_rng(0),
        )


@pytest.mark.parametrize("levels", [1, 2, 3])
@pytest.mark.parametrize("items", [1, 2, 7])
def test_a_catalogue_of_equal_titles_is_fitted_and_every_item_can_be_shown(
    items: int, levels: int
) -> None:
    """Nothing tells these items apart but who played them; of one item there is nothing to
    learn."""
    ids = [f"i{k}" for k in range(items)]
    lake = lake_of(
        ids, [(f"u{k % 5}", ids[k % items]) for k in range(40)], ["the same song"] * items
    )
    book = fit_codebook(
        lake.items["item_id"], item_vectors(lake, ItemIndex(lake.items["item_id"])), levels=levels
    )
    policy = Generative(steps=12, exclude="none").with_codes(lake, book).train(lake)
    context = Contexts.of(["u0"], NOON, slots=items, history=[["i0"]])
    law = np.exp(policy.item_log_prob(context)[0])
    assert (law > 0).all()
    assert law.sum() == pytest.approx(1, abs=1e-9)
    said = policy.decide(context, np.random.default_rng(0))
    assert sorted(said.slates[0]) == sorted(ids)
    assert said.log_prob[0, -1] == pytest.approx(0, abs=1e-6)
    assert policy.log_prob(context, said.slates) == pytest.approx(said.log_prob, abs=1e-5)
