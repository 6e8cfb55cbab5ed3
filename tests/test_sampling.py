"""Slates by stochastic beam search follow the Plackett-Luce law: every ordered slate is enumerated
and counted."""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats

from longplay.chance import RowChance
from longplay.codes import Allowed, Codebook
from longplay.decisions import Contexts, Policy
from longplay.errors import ConfigError, DataError
from longplay.policies.generative.decoder import Decoder, new_model
from longplay.policies.generative.prompts import Prompts, encode
from longplay.policies.generative.search import (
    _AT_ONCE,
    _noise,
    beam_slates,
    best_items,
    item_log_probs,
)
from longplay.policies.generative_policy import Generative
from longplay.policies.plackett import plackett_luce_log_prob

torch.set_num_threads(1)

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
CODES = np.array(
    [[0, 0, 1], [0, 0, 3], [0, 2, 0], [1, 1, 1], [1, 1, 2], [1, 3, 0], [2, 0, 0], [3, 3, 3]]
)
FREE = np.array([True, True, False, True, True, True, True, True])
ITEMS = [f"i{k}" for k in range(8)]
# (history, exclusions, temperature): six, seven and three items allowed
ASKS = [([0, 5, 7], [1, 2], 0.7), ([], [], 1.5), ([3, 3], [0, 1, 5, 7], 1.0)]


@pytest.fixture(scope="module")
def policy() -> Generative:
    """A random model with scaled-up weights over eight items, one of them unavailable."""
    model = new_model("tiny", 3, 4, seed=3)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 2:
                weight.mul_(5.0)
    return Generative(codebook=Codebook(pl.Series(ITEMS), CODES, 4, FREE), model=model)


def prompts_for(decoder: Decoder, asks: list[tuple[list[int], list[int], float]]) -> Prompts:
    history, exclusions, temperature = zip(*asks, strict=True)

    def flat(lists: tuple[list[int], ...]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        return np.cumsum([0, *map(len, lists)]), np.array(
            list(itertools.chain(*lists)), dtype=np.int64
        )

    return encode(
        decoder.trie,
        *flat(history),
        19,
        np.array(temperature),
        Allowed.of(decoder.trie, *flat(exclusions)),
    )


def streams(n: int, seed: int) -> RowChance:
    return RowChance(np.random.default_rng(seed).integers(0, 2**64, n, dtype=np.uint64))


def contexts_for(
    asks: list[tuple[list[int], list[int], float]], slots: int, n: int = 1
) -> Contexts:
    frames = [
        Contexts.of(
            [f"u{number}.{row}" for row in range(n)],
            NOON,
            slots=slots,
            temperature=temperature,
            history=[[ITEMS[item] for item in history]] * n,
            exclusions=[[ITEMS[item] for item in excluded]] * n,
        ).frame
        for number, (history, excluded, temperature) in enumerate(asks)
    ]
    return Contexts(pl.concat(frames))


def slate_law(
    log_p_I: NDArray[np.float64], slots: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Every ordered slate of allowed items [M, S] and its probability, by multiplying p / (1 - what
    is gone)."""
    open_items = np.flatnonzero(np.isfinite(log_p_I))
    slates = np.array(list(itertools.permutations(open_items.tolist(), slots)))
    law = []
    for slate in slates:
        left = set(open_items.tolist())
        probability = 1.0
        for item in slate:
            probability *= np.exp(log_p_I[item]) / sum(np.exp(log_p_I[other]) for other in left)
            left.remove(int(item))
        law.append(probability)
    return slates, np.array(law)


def chi_square_p(count: NDArray[np.float64], probability: NDArray[np.float64]) -> float:
    """P of counts at least this far from the law; cells below five expected are pooled."""
    expected = probability * count.sum()
    small = expected < 5
    observed_cells, expected_cells = count[~small], expected[~small]
    if small.any():
        observed_cells, expected_cells = (
            np.append(observed_cells, count[small].sum()),
            np.append(expected_cells, expected[small].sum()),
        )
    return float(
        stats.chi2.sf(
            ((observed_cells - expected_cells) ** 2 / expected_cells).sum(), len(expected_cells) - 1
        )
    )


def key_of(slates: NDArray[np.int64]) -> NDArray[np.int64]:
    return slates @ (8 ** np.arange(slates.shape[-1]))


@pytest.fixture(scope="module")
def drawn(policy: Generative) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Leaves [2 contexts, 50,000, 3 slots] and log pi of each; 50 copies of each context x 20
    groups at a time."""
    copies, groups, rounds = 50, 20, 50
    prompts = prompts_for(policy.decoder, [ask for ask in ASKS[:2] for _ in range(copies)])
    parts = [
        beam_slates(
            policy.decoder, prompts, groups=groups, slots=3, chance=streams(len(prompts), seed)
        )
        for seed in range(rounds)
    ]
    leaves = np.stack([part.leaves.reshape(2, copies, groups, 3) for part in parts], axis=1)
    log_p = np.stack([part.item_log_prob.reshape(2, copies, groups, 3) for part in parts], axis=1)
    return leaves.reshape(2, -1, 3), log_p.reshape(2, -1, 3)


def test_plackett_luce_probabilities_of_all_slates_sum_to_one(policy: Generative) -> None:
    log_p_NI = item_log_probs(policy.decoder, prompts_for(policy.decoder, ASKS))
    for log_p_I in log_p_NI:
        slates, law = slate_law(log_p_I, 3)
        given = np.exp(plackett_luce_log_prob(log_p_I[slates]).sum(axis=1))
        assert given.sum() == pytest.approx(1, abs=1e-9)
        assert given == pytest.approx(law, rel=1e-9)


@pytest.mark.parametrize("context", range(2))
def test_slates_are_drawn_with_the_frequencies_of_their_law(
    policy: Generative, drawn: tuple, context: int
) -> None:
    leaves, item_log_prob = drawn[0][context], drawn[1][context]
    log_p_I = item_log_probs(policy.decoder, prompts_for(policy.decoder, [ASKS[context]]))[0]
    slates, law = slate_law(log_p_I, 3)
    cells = {int(key): cell for cell, key in enumerate(key_of(slates))}
    count = np.bincount([cells[int(key)] for key in key_of(leaves)], minlength=len(slates)).astype(
        float
    )  # a KeyError: not allowed
    assert law.max() / law.min() > 10, "a flat law would hide mistakes"
    assert chi_square_p(count, law) > 1e-4
    ranked = np.take_along_axis(slates, np.argsort(-log_p_I[slates], axis=1), axis=1)
    sorted_law = np.zeros(len(slates))
    np.add.at(sorted_law, [cells[int(key)] for key in key_of(ranked)], law)
    assert chi_square_p(count, np.maximum(sorted_law, 1e-12)) < 1e-9, (
        "slates sorted by probability follow another law"
    )
    assert item_log_prob == pytest.approx(log_p_I[leaves], abs=1e-5)


@pytest.mark.parametrize("context", range(2))
def test_items_are_included_as_often_as_their_law_says(
    policy: Generative, drawn: tuple, context: int
) -> None:
    leaves = drawn[0][context]
    slates, law = slate_law(
        item_log_probs(policy.decoder, prompts_for(policy.decoder, [ASKS[context]]))[0], 3
    )
    for item in range(8):
        inclusion = law[(slates == item).any(axis=1)].sum()
        share = (leaves == item).any(axis=1).mean()
        assert abs(share - inclusion) <= 4.5 * np.sqrt(inclusion * (1 - inclusion) / len(leaves))
    assert not np.isin(leaves, [2, *ASKS[context][1]]).any()
    assert (leaves[:, 0] != leaves[:, 1]).all()
    assert (leaves[:, 2:] != leaves[:, :2]).all()


def test_groups_of_one_context_are_independent(policy: Generative, drawn: tuple) -> None:
    """The first items of neighbouring groups: as often equal as two independent draws are."""
    first = drawn[0][0][:, 0].reshape(-1, 2)
    p_I = np.exp(item_log_probs(policy.decoder, prompts_for(policy.decoder, [ASKS[0]]))[0])
    joint = np.bincount(first[:, 0] * 8 + first[:, 1], minlength=64).astype(float)
    law = np.outer(p_I, p_I).ravel()
    assert chi_square_p(joint[law > 0], law[law > 0]) > 1e-4


@pytest.mark.parametrize(("context", "slots"), [(0, 6), (1, 7), (2, 3)])
def test_a_slate_of_everything_allowed_is_an_ordering_of_it(
    policy: Generative, context: int, slots: int
) -> None:
    prompts = prompts_for(policy.decoder, [ASKS[context]])
    draw = beam_slates(policy.decoder, prompts, groups=40, slots=slots, chance=streams(1, 0))
    log_p_I = item_log_probs(policy.decoder, prompts)[0]
    open_items = np.flatnonzero(np.isfinite(log_p_I))
    assert (np.sort(draw.leaves[0], axis=1) == open_items).all()
    log_prob = plackett_luce_log_prob(draw.item_log_prob[0])
    assert np.isfinite(log_prob).all()
    assert log_prob[:, -1] == pytest.approx(np.zeros(40), abs=1e-9)  # only one item is left
    slates, law = slate_law(log_p_I, slots)
    given = np.exp(plackett_luce_log_prob(log_p_I[slates]).sum(axis=1))
    assert given.sum() == pytest.approx(1, abs=1e-9)
    assert given == pytest.approx(law, rel=1e-6)


@pytest.mark.parametrize("slots", [3, 4])
def test_a_trie_with_fewer_branches_than_slots_fills_them_from_below(slots: int) -> None:
    """Two branches at the root, codes unused after the last one: beams without a child must not
    walk off the trie."""
    codes = np.array([[0, 0, 0], [0, 1, 0], [1, 0, 0], [1, 0, 1]])
    decoder = Decoder(
        new_model("tiny", 3, 4, seed=0),
        Codebook(pl.Series(ITEMS[:4]), codes, 4, np.ones(4, dtype=bool)).trie,
    )
    prompts = prompts_for(decoder, [([], [], 1.0)])
    draw = beam_slates(decoder, prompts, groups=400, slots=slots, chance=streams(1, 2))
    slates, law = slate_law(item_log_probs(decoder, prompts)[0], slots)
    cells = {int(key): cell for cell, key in enumerate(key_of(slates))}
    count = np.bincount(
        [cells[int(key)] for key in key_of(draw.leaves[0])], minlength=len(slates)
    ).astype(float)
    assert chi_square_p(count, law) > 1e-4


def test_draws_depend_on_their_streams_alone(policy: Generative) -> None:
    prompts = prompts_for(policy.decoder, ASKS)
    torch.manual_seed(1)
    one = beam_slates(policy.decoder, prompts, groups=4, slots=3, chance=streams(3, 5))
    torch.manual_seed(2)
    np.random.seed(3)
    two = beam_slates(policy.decoder, prompts, groups=4, slots=3, chance=streams(3, 5))
    other = beam_slates(policy.decoder, prompts, groups=4, slots=3, chance=streams(3, 6))
    assert np.array_equal(one.leaves, two.leaves)
    assert np.array_equal(one.item_log_prob, two.item_log_prob)
    assert not np.array_equal(one.leaves, other.leaves)
    with pytest.raises(DataError, match="2 streams of chance given for 3 prompts"):
        beam_slates(policy.decoder, prompts, groups=4, slots=3, chance=streams(2, 5))


def test_contexts_searched_apart_are_those_searched_alone(policy: Generative) -> None:
    """More prompts than are searched at once, each with its own exclusions and luck."""
    prompts, chance = prompts_for(policy.decoder, ASKS * 300), streams(900, 3)
    assert prompts.tokens.numel() * 64 > _AT_ONCE
    slates = beam_slates(policy.decoder, prompts, groups=2, slots=3, chance=chance)
    best = best_items(policy.decoder, prompts, 3, 8)
    assert slates.leaves.shape == (900, 2, 3)
    assert np.array_equal(best.leaves, np.tile(best.leaves[:3], (300, 1, 1)))
    for row in (0, 500, 817, 818, 819, 820, 899):
        alone = beam_slates(
            policy.decoder,
            prompts.between(row, row + 1),
            groups=2,
            slots=3,
            chance=chance.take(np.array([row])),
        )
        assert np.array_equal(slates.leaves[row], alone.leaves[0])
        assert slates.item_log_prob[row] == pytest.approx(alone.item_log_prob[0], abs=1e-5)


def test_fewer_slots_are_the_first_of_more_and_fewer_groups_too(policy: Generative) -> None:
    prompts, chance = prompts_for(policy.decoder, ASKS[:2] * 50), streams(100, 7)
    most = beam_slates(policy.decoder, prompts, groups=6, slots=6, chance=chance)
    for groups, slots in ((6, 1), (2, 3), (1, 5)):
        fewer = beam_slates(policy.decoder, prompts, groups=groups, slots=slots, chance=chance)
        assert np.array_equal(fewer.leaves, most.leaves[:, :groups, :slots])


def test_noise_belongs_to_the_path_not_to_the_beam_that_holds_it(policy: Generative) -> None:
    trie, chance, total = policy.decoder.trie, streams(2, 1), np.zeros((2, 3, 4, 4))
    node = np.broadcast_to(np.array([0, 3, 1, 2]), (2, 3, 4))
    order = np.array([2, 0, 3, 1])
    noise = _noise(chance, trie, 1, node, total)
    assert np.array_equal(_noise(chance, trie, 1, node[..., order], total), noise[:, :, order])
    assert len(np.unique(noise)) == noise.size
    assert not np.isin(_noise(chance, trie, 2, node, total), noise).any()


def test_policies_over_one_trie_share_their_luck(policy: Generative) -> None:
    """Weights a little off: nearly the same slates by the same luck, though two draws of one policy
    mostly differ."""
    other = policy.with_model(copy.deepcopy(policy.decoder.model))
    with torch.no_grad():
        for weight in other.decoder.model.parameters():
            weight.mul_(1.01)
    prompts, chance = prompts_for(policy.decoder, [ASKS[1]] * 300), streams(300, 3)

    def first(of: Generative, chance: RowChance) -> NDArray[np.int64]:
        return beam_slates(of.decoder, prompts, groups=1, slots=3, chance=chance).leaves[:, 0]

    shared = (first(policy, chance) == first(other, chance)).all(axis=1).mean()
    apart = (first(policy, chance) == first(other, streams(300, 4))).all(axis=1).mean()
    assert shared > 0.9
    assert apart < 0.3


# -- the policy ----------------------------------------------------------------------------------


@pytest.mark.parametrize("slots", [1, 3])
def test_logged_probabilities_are_recomputed_by_the_policy_read_from_its_folder(
    policy: Generative, tmp_path: Path, slots: int
) -> None:
    contexts = contexts_for(ASKS, slots, n=120)  # more than one batch
    said = policy.decide(contexts, np.random.default_rng(1))
    policy.save(tmp_path)
    back = Generative.load(tmp_path)
    assert isinstance(back, Policy)
    assert back.name == policy.name
    assert said.frame["policy"].unique().to_list() == [back.name]
    assert said.frame["trie_version"].unique().to_list() == [back.decoder.trie.version]
    assert (said.slates.list.n_unique() == slots).all()
    assert back.log_prob(contexts, said.slates) == pytest.approx(said.log_prob, abs=1e-5)
    assert back.decide(contexts, np.random.default_rng(1)).frame.equals(said.frame)
    law = back.item_log_prob(contexts)
    rows = back.index.slate_rows(said.slates)
    assert plackett_luce_log_prob(np.take_along_axis(law, rows, axis=1)) == pytest.approx(
        said.log_prob, abs=1e-5
    )


def test_a_context_s_slate_is_its_own(policy: Generative) -> None:
    """Not that of its place, its batch or who joined later; equal ids have equal luck."""
    contexts = contexts_for(ASKS, 3, n=120)  # more than one batch

    def decide(of: Contexts, seed: int = 1) -> tuple[list[list[str]], NDArray[np.float64]]:
        said = policy.decide(of, np.random.default_rng(seed))
        return said.slates.to_list(), said.log_prob

    whole, log_prob = decide(contexts)
    rows = np.random.default_rng(0).permutation(len(contexts))
    for some in (rows, rows[:17], [300], np.arange(100, 340)):
        slates, its = decide(contexts.take(some))
        assert slates == [whole[row] for row in some]
        assert its == pytest.approx(log_prob[some], abs=1e-5)
    again, _ = decide(contexts.take([*range(60), *range(60)]))
    assert again[:60] == again[60:] == whole[:60]
    other, _ = decide(contexts, seed=2)
    assert np.mean([one == two for one, two in zip(whole, other, strict=True)]) < 0.3


def test_probabilities_of_all_slates_sum_to_one_through_the_policy(policy: Generative) -> None:
    slates = pl.Series([list(slate) for slate in itertools.permutations(ITEMS, 3)])
    for ask in ASKS:
        log_prob = policy.log_prob(contexts_for([ask], 3, n=len(slates)), slates).sum(axis=1)
        forbidden = (
            slates.list.eval(pl.element().is_in([ITEMS[item] for item in [2, *ask[1]]]))
            .list.any()
            .to_numpy()
        )
        assert np.isneginf(log_prob[forbidden]).all()
        assert np.exp(log_prob).sum() == pytest.approx(1, abs=1e-5)


def test_a_slate_of_everything_has_the_probability_that_was_logged(policy: Generative) -> None:
    """The mass left for the last slots is all rounding unless it is known that nothing lies outside
    the slate."""
    for slots, ask in ((6, ASKS[0]), (7, ASKS[1]), (3, ASKS[2])):
        cold = (ask[0], ask[1], 0.25)
        contexts = contexts_for([cold], slots, n=50)
        said = policy.decide(contexts, np.random.default_rng(1))
        again = policy.log_prob(contexts, said.slates)
        assert again[:, -1] == pytest.approx(np.zeros(50), abs=1e-9)
        assert again == pytest.approx(said.log_prob, abs=1e-2)


def test_fewer_allowed_items_than_slots_are_refused_by_name_with_a_way_out(
    policy: Generative,
) -> None:
    contexts = contexts_for(ASKS, 4, n=2)
    with pytest.raises(
        DataError,
        match=r"user 'u2.0' asks for 4 slots but only 3 items .* ask for fewer slots or exclude less",
    ):
        policy.decide(contexts, np.random.default_rng(0))


def test_no_contexts_get_no_answers(policy: Generative) -> None:
    nobody = contexts_for(ASKS, 3).take([])
    said = policy.decide(nobody, np.random.default_rng(0))
    assert len(said) == 0
    assert policy.log_prob(nobody, said.slates).shape[0] == 0
    assert policy.item_log_prob(nobody).shape == (0, 8)


def test_the_name_changes_with_weights_codes_availability_and_items(policy: Generative) -> None:
    book = policy.codebook
    assert book is not None
    other_model = new_model("tiny", 3, 4, seed=4)
    others = [
        policy.with_model(other_model),
        replace(policy, codebook=replace(book, available=~FREE)),
        replace(
            policy, codebook=replace(book, items=pl.Series(ITEMS[::-1]))
        ),  # the same IDs stand for other items
        replace(policy, codebook=replace(book, codes=np.array([*CODES[:-1].tolist(), [3, 3, 2]]))),
    ]
    names = {policy.name, *(other.name for other in others)}
    assert len(names) == 5
    assert replace(policy).name == policy.name


# -- the most probable items
# -------------------------------------------------------------------------


def test_enough_beams_find_the_most_probable_items_in_their_order(policy: Generative) -> None:
    prompts = prompts_for(policy.decoder, ASKS)
    log_p_NI = item_log_probs(policy.decoder, prompts)
    for k in (1, 3, 8):
        found = best_items(policy.decoder, prompts, k, 8)
        for row, log_p_I in enumerate(log_p_NI):
            possible = int(np.isfinite(log_p_I).sum())
            best = np.argsort(-log_p_I, kind="stable")[: min(k, possible)]
            assert found.leaves[row, 0].tolist() == [*best, *[-1] * (k - len(best))]
            assert found.item_log_prob[row, 0, : len(best)] == pytest.approx(
                log_p_I[best], abs=1e-5
            )
            assert np.isneginf(found.item_log_prob[row, 0, len(best) :]).all()


def test_a_narrow_beam_ranks_by_what_is_valid_and_stays_inside(policy: Generative) -> None:
    """One beam follows the most probable valid code of every level: the renormalised score, not
    that of the whole vocabulary."""
    prompts = prompts_for(policy.decoder, ASKS)
    log_p_NI = item_log_probs(policy.decoder, prompts)
    found = best_items(policy.decoder, prompts, 1)
    for row, log_p_I in enumerate(log_p_NI):
        inside = np.arange(8)
        for level in range(3):
            codes = CODES[inside, level]
            mass = [np.exp(log_p_I[inside[codes == code]]).sum() for code in np.unique(codes)]
            inside = inside[codes == np.unique(codes)[int(np.argmax(mass))]]
        assert found.leaves[row, 0].tolist() == inside.tolist()
    wide = best_items(policy.decoder, prompts, 2, 3)
    assert np.isfinite(np.take_along_axis(log_p_NI, wide.leaves[:, 0], 1)).all()
    assert (np.diff(wide.item_log_prob[:, 0], axis=1) <= 0).all()


def test_ranked_items_are_named_and_their_propensities_are_those_of_the_first_slot(
    policy: Generative,
) -> None:
    contexts = contexts_for(ASKS, 1)
    table = policy.ranked(contexts, 5, beams=8)
    assert table["row"].unique().sort().to_list() == [0, 1, 2]
    assert table.filter(pl.col("row") == 2).height == 3  # three items allowed
    whole = policy.item_log_prob(contexts)
    for row, position, item, log_p in table.rows():
        assert log_p == pytest.approx(whole[row, ITEMS.index(item)], abs=1e-5)
        assert position == 1 + int((whole[row] > whole[row, ITEMS.index(item)]).sum())
    assert policy.ranked(Contexts(contexts.frame[:0])).is_empty()
    with pytest.raises(ConfigError, match="k=3, beams=2"):
        best_items(policy.decoder, prompts_for(policy.decoder, ASKS), 3, 2)


def test_what_is_withdrawn_is_not_shown_and_the_rest_shares_its_probability(
    policy: Generative,
) -> None:
    contexts, left = contexts_for(ASKS, 2), ["i0", "i3", "i4", "i6"]
    fewer = policy.with_available(pl.Series(left))
    was, now = np.exp(policy.item_log_prob(contexts)), np.exp(fewer.item_log_prob(contexts))
    gone = ~policy.index.ids.is_in(left).to_numpy()
    assert (now[:, gone] == 0).all()
    assert now.sum(axis=1) == pytest.approx(1)
    assert ((now > 0) == ((was > 0) & ~gone)).all()
    assert fewer.name != policy.name
    assert policy.with_available(policy.index.ids.filter(pl.Series(FREE))).name == policy.name
    slates = (
        fewer.decide(contexts, np.random.default_rng(0)).frame["slate"].explode(empty_as_null=False)
    )
    assert set(slates) <= set(left)
    with pytest.raises(DataError, match="1 of 2 items have no code, first 'x'"):
        policy.with_available(pl.Series(["i0", "x"]))
    book = fewer.codebook
    assert book is not None
    assert (
        book.trie.version == replace(book).trie.version
    )  # the trie that is handed on is the one that would be built
