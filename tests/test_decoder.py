"""The law of an item, by enumeration against the plain Hugging Face model run on one sequence at a
time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from longplay.codes import Allowed, Trie
from longplay.errors import ConfigError
from longplay.policies.generative.decoder import Decoder, load_model, new_model, save_model
from longplay.policies.generative.fast.kernels import OneDnn
from longplay.policies.generative.prompts import Prompts, Windows, encode
from longplay.policies.generative.search import item_log_probs
from longplay.policies.generative.vocabulary import Vocabulary

torch.set_num_threads(1)

# Crowded and lonely prefixes, codes unused at every level.
CODES = {
    1: [[0], [1], [3], [4], [5], [6], [7], [9]],
    2: [[0, 0], [0, 3], [1, 1], [2, 0], [2, 1], [2, 2], [2, 3], [3, 2]],
    3: [
        [0, 0, 1],
        [0, 0, 3],
        [0, 2, 0],
        [1, 1, 1],
        [1, 1, 2],
        [1, 1, 3],
        [1, 3, 0],
        [2, 0, 0],
        [3, 3, 0],
        [3, 3, 2],
        [3, 3, 3],
    ],
}
WIDTH = {1: 10, 2: 4, 3: 4}
UNAVAILABLE = 2


@dataclass(frozen=True)
class Ask:
    """One context in plain Python: what was seen (oldest first), what is forbidden, how hot."""

    history: tuple[int, ...] = ()
    exclusions: tuple[int, ...] = ()
    temperature: float = 1.0


ASKS = [
    Ask(),
    Ask((0, 5, 1), (0, 5, 1), 0.5),
    Ask((3,), (4, 7), 1.7),
    Ask(
        (7, 6, 2, 2, 4, 1, 0), (6, 5), 0.8
    ),  # an unavailable item in the history, longer than what is kept
    Ask((-1, 3, -1), (-1, 3, 3), 1.0),  # unknown items
    Ask((1, 2), (0, 1), 2.5),  # a whole prefix is excluded or unavailable
]
KEPT = 5


def peaked(levels: int, seed: int = 3, scale: float = 6.0, *, whole: bool = False) -> Decoder:
    """A random model with scaled-up weights, so that its laws are peaked and depend on the history.
    `whole`: but for item 4, with own tokens."""
    items = len(CODES[levels])
    free = np.ones(items, dtype=bool)
    free[UNAVAILABLE] = False
    model = new_model("tiny", levels, WIDTH[levels], seed, items=items * whole)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 2:
                weight.mul_(scale)
    trie, vocabulary = (
        Trie.build(np.array(CODES[levels]), WIDTH[levels], free),
        Vocabulary(levels, WIDTH[levels], items=items * whole),
    )
    own = vocabulary.item + np.arange(items)
    own[4] = vocabulary.code(levels - 1) + CODES[levels][4][-1]
    return Decoder(model, trie, vocabulary, item_token_I=own if whole else None)


def prompts_for(decoder: Decoder, asks: list[Ask]) -> Prompts:
    excluded = np.array([leaf for ask in asks for leaf in ask.exclusions], dtype=np.int64)
    seen = np.array([leaf for ask in asks for leaf in ask.history], dtype=np.int64)
    allowed = Allowed.of(
        decoder.trie, np.cumsum([0, *(len(ask.exclusions) for ask in asks)]), excluded
    )
    offsets = np.cumsum([0, *(len(ask.history) for ask in asks)])
    return encode(
        decoder.trie,
        offsets,
        seen,
        KEPT,
        np.array([ask.temperature for ask in asks]),
        allowed,
        decoder.vocabulary,
        item_token_I=decoder.item_token_I,
    )


def reference(decoder: Decoder, ask: Ask, kept: int = KEPT) -> NDArray[np.float64]:
    """log pi of every item [I]: the whole model on prompt + ID, one sequence at a time, softmax
    over valid codes found by a loop."""
    codes, width = decoder.trie.codes.tolist(), decoder.trie.width
    tokens = [[2 + level * width + code for level, code in enumerate(item)] for item in codes]
    if decoder.item_token_I is not None:
        tokens = [
            [*before, int(own)]
            for (*before, _), own in zip(tokens, decoder.item_token_I, strict=True)
        ]
    open_items = [
        item
        for item in range(len(codes))
        if decoder.trie.available[item] and item not in ask.exclusions
    ]
    known = [item for item in ask.history if item >= 0][-kept:]
    prompt = [1] + [token for item in known for token in tokens[item]]
    answer = np.full(len(codes), -np.inf)
    for item in open_items:
        with torch.no_grad():
            logits = (
                decoder.model(input_ids=torch.tensor([prompt + tokens[item]]))
                .logits[0]
                .double()
                .numpy()
            )
        total = 0.0
        for level, token in enumerate(tokens[item]):
            valid = sorted(
                {
                    tokens[other][level]
                    for other in open_items
                    if codes[other][:level] == codes[item][:level]
                }
            )
            from_prompt = (
                decoder.item_token_I is not None and level == len(codes[item]) - 1
            )  # items with tokens of their own
            scores = (
                logits[len(prompt) - 1 + (0 if from_prompt else level), valid] / ask.temperature
            )
            scores -= scores.max()
            total += scores[valid.index(token)] - np.log(np.exp(scores).sum())
        answer[item] = total
    return answer


def agree(given: NDArray[np.float64], expected: NDArray[np.float64]) -> bool:
    return np.array_equal(np.isneginf(given), np.isneginf(expected)) and np.allclose(
        np.exp(given), np.exp(expected), rtol=1e-5, atol=1e-7
    )


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("levels", [1, 2, 3])
def test_item_laws_sum_to_one_and_are_those_of_the_plain_model(levels: int, whole: bool) -> None:
    decoder = peaked(levels, whole=whole)
    expected = np.stack([reference(decoder, ask) for ask in ASKS])
    assert np.exp(expected).max() > 0.5, "a flat law would hide mistakes"
    assert np.ptp(np.exp(expected), axis=0).max() > 0.1, (
        "laws that ignore the context would hide mistakes"
    )
    prompts = prompts_for(decoder, ASKS)
    for chunk in (256, 1):
        whole = item_log_probs(decoder, prompts, chunk=chunk)
        assert np.exp(whole).sum(axis=1) == pytest.approx(np.ones(len(ASKS)), abs=1e-9)
        assert agree(whole, expected)
    every = np.broadcast_to(np.arange(len(CODES[levels])), expected.shape)
    assert agree(decoder.log_prob(prompts, every).detach().numpy(), expected)
    some = np.random.default_rng(0).integers(
        len(CODES[levels]), size=(len(ASKS), 4)
    )  # any order, repeats
    assert agree(
        decoder.log_prob(prompts, some).detach().numpy(), np.take_along_axis(expected, some, axis=1)
    )


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("levels", [1, 2, 3])
def test_a_context_does_not_notice_its_batch(levels: int, whole: bool) -> None:
    decoder = peaked(levels, whole=whole)
    alone = np.concatenate([item_log_probs(decoder, prompts_for(decoder, [ask])) for ask in ASKS])
    turned = item_log_probs(decoder, prompts_for(decoder, ASKS[::-1]))[::-1]
    assert agree(turned, alone)
    every = np.arange(len(CODES[levels]))[None]
    one_by_one = np.concatenate(
        [decoder.log_prob(prompts_for(decoder, [ask]), every).detach().numpy() for ask in ASKS]
    )
    assert agree(one_by_one, alone)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("levels", [1, 2, 3])
def test_a_packed_history_gives_each_item_its_log_probability_after_the_items_before(
    levels: int, whole: bool
) -> None:
    decoder = peaked(levels, whole=whole)
    histories = [[0, 5, 1, 1, 4], [3], [7, 6, 0]]
    leaves, real = np.zeros((3, 5), dtype=np.int64), np.zeros((3, 5), dtype=bool)
    for row, items in enumerate(histories):
        leaves[row, : len(items)], real[row, : len(items)] = items, True
    exclusions = [(), (6,), (2,)]
    allowed = Allowed.of(
        decoder.trie,
        np.cumsum([0, *map(len, exclusions)]),
        np.array([leaf for part in exclusions for leaf in part]),
    )
    given = decoder.sequence_log_prob(Windows.of(leaves, real), allowed).detach().numpy()
    for row, items in enumerate(histories):
        for place, item in enumerate(items):
            expected = reference(decoder, Ask(tuple(items[:place]), exclusions[row]), kept=99)[item]
            assert given[row, place] == pytest.approx(expected, abs=1e-5)
    assert not given[~real].any()


def test_the_kernels_of_inference_say_what_those_of_training_say() -> None:
    decoder = peaked(3)
    prompts = prompts_for(decoder, ASKS * 2)
    every = np.broadcast_to(np.arange(len(CODES[3])), (len(prompts), len(CODES[3])))
    trained = decoder.log_prob(prompts, every).detach().numpy()
    with torch.inference_mode():
        inferred = decoder.log_prob(prompts, every).numpy()
    assert agree(inferred, trained)
    state, weight, bias = torch.randn(2, 70, 64), torch.randn(32, 64), torch.randn(32)
    with torch.inference_mode(), OneDnn():
        exact = state.double() @ weight.double().T + bias
        assert torch.allclose(
            torch.nn.functional.linear(state, weight, bias).double(), exact, atol=1e-4
        )
        for other in (torch.float64, torch.bfloat16):  # passed through
            assert torch.nn.functional.linear(state.to(other), weight.to(other)).dtype == other


@pytest.mark.parametrize("whole", [False, True])
def test_gradients_of_log_prob_are_those_of_the_plain_model(whole: bool) -> None:
    """Packing, masks and -inf must not leak into the gradient: compare with finite differences of
    the reference."""
    decoder = peaked(3, whole=whole)
    ask, item = ASKS[1], 8
    decoder.log_prob(prompts_for(decoder, [ask, ASKS[3]]), np.array([[item, 3], [1, 0]]))[
        0, 0
    ].backward()
    for name in (
        "model.layers.0.mlp.down_proj.weight",
        "model.layers.1.self_attn.q_proj.weight",
        "model.embed_tokens.weight",
    ):
        weight = decoder.model.get_parameter(name)
        gradient = weight.grad
        assert gradient is not None
        assert bool(torch.isfinite(gradient).all())
        direction = gradient / gradient.norm()
        step = 0.02 / float(gradient.norm())  # central differences: the error is of third order
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                weight.add_(direction, alpha=sign * step)
                ends.append(reference(decoder, ask)[item])
                weight.sub_(direction, alpha=sign * step)
        assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(float(gradient.norm()), rel=0.01)


def test_items_that_are_not_allowed_have_no_probability_and_no_gradient() -> None:
    decoder = peaked(2)
    log_p = decoder.log_prob(prompts_for(decoder, [ASKS[5]]), np.array([[UNAVAILABLE, 0, 1, 5]]))
    assert np.isneginf(log_p[0, :3].detach().numpy()).all()
    torch.where(torch.isfinite(log_p), log_p, 0.0).sum().backward()
    assert all(
        bool(torch.isfinite(weight.grad).all())
        for weight in decoder.model.parameters()
        if weight.grad is not None
    )


def test_prompts_are_the_last_items_after_a_beginning_token() -> None:
    decoder = peaked(2)
    prompts = prompts_for(decoder, ASKS[:5])
    assert prompts.tokens.shape == (5, 1 + KEPT * 2)
    assert prompts.real.sum(dim=1).tolist() == [1, 7, 3, 11, 3]  # unknown items take no room
    tokens_of = {item: [2 + CODES[2][item][0], 2 + 4 + CODES[2][item][1]] for item in range(8)}
    assert prompts.tokens[3].tolist() == [
        1,
        *(token for item in (2, 2, 4, 1, 0) for token in tokens_of[item]),
    ]
    assert prompts.tokens[2].tolist() == [0] * 8 + [1, *tokens_of[3]]
    nothing_kept = encode(
        decoder.trie, np.array([0, 2]), np.array([1, 2]), 0, np.ones(1), prompts.allowed
    )
    assert nothing_kept.tokens.tolist() == [[1]]


def test_a_new_model_depends_on_its_seed_alone_and_leaves_torch_s_generator() -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first = new_model("tiny", 3, 8, seed=1)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(99)
    again, other = new_model("tiny", 3, 8, seed=1), new_model("tiny", 3, 8, seed=2)
    pairs = list(zip(first.parameters(), again.parameters(), other.parameters(), strict=True))
    assert all(torch.equal(one, two) for one, two, _ in pairs)
    assert any(not torch.equal(one, three) for one, _, three in pairs)
    with pytest.raises(ConfigError, match="scale='huge' given, expected one of tiny, small"):
        new_model("huge", 3, 8, seed=1)


def test_a_saved_model_is_the_same_model(tmp_path: Path) -> None:
    folder = tmp_path
    decoder = peaked(3)
    save_model(decoder.model, folder)
    back = Decoder(load_model(folder), decoder.trie)
    prompts = prompts_for(decoder, ASKS)
    assert np.array_equal(item_log_probs(back, prompts), item_log_probs(decoder, prompts))
    assert list(folder.glob("*.safetensors"))
    assert not list(folder.glob("*.bin"))
