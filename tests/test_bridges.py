"""The bridges to TRL and verl: completions stand for slates, rewards are longplay's, and
log-probabilities those of the constrained law."""

from __future__ import annotations

import importlib.util
import itertools
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import longplay as lp
from longplay.belief import Belief
from longplay.codes import Codebook, Trie
from longplay.decisions import Contexts
from longplay.errors import ConfigError, DataError
from longplay.lake import Lake
from longplay.learning.bridges.completions import Spelling, context_rows, prompt_rows
from longplay.learning.bridges.trl import (
    constrained_grpo_trainer,
    constrained_log_probs,
    trl_reward,
)
from longplay.learning.bridges.verl import verl_reward
from longplay.policies.generative.decoder import new_model

torch.set_num_threads(1)

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ITEMS = [f"i{k}" for k in range(6)]
CODES = np.array([[0, 0], [0, 2], [1, 1], [2, 0], [2, 1], [3, 3]])
WORTH = dict(zip(ITEMS, [1.0, 0.2, 0.0, 2.0, 0.5, -0.7], strict=True))
HABIT = lp.Signal("habit", lp.discovery(28), lp.days_with("creator") >= 2, (1, 7))
SLOTS = 2
WIDTH, LEVELS = 4, 2
GONE = "i4"


@dataclass
class Known:
    """An early reward that knows what every item is worth to every user; uncertain by `std`."""

    signal: lp.Signal = HABIT
    std: float = 0.1
    worth: Any = None

    def value(self, contexts: Contexts, slates: pl.Series, lake: Lake) -> Belief:
        worth = WORTH if self.worth is None else self.worth
        mean = np.array([[worth[item] for item in slate] for slate in slates.to_list()])
        return Belief(
            mean, np.full_like(mean, self.std), np.ones_like(mean), 7, HABIT.label, minimum=-1.0
        )


REWARD = lp.Reward({HABIT: 1.0}, caution=1.0)


@cache
def policy_of(kind: str) -> lp.Generative:
    """A random model with scaled-up weights over six items, one of them not available."""
    book = Codebook(pl.Series(ITEMS), CODES, WIDTH, np.array([item != GONE for item in ITEMS]))
    tokens = kind == "tokens"
    model = new_model("tiny", LEVELS, WIDTH, seed=3, items=len(ITEMS) if tokens else 0)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 2:
                weight.mul_(4.0)
    return lp.Generative(
        exclude="none",
        slate=SLOTS,
        codebook=book,
        model=model,
        item_tokens=tokens,
        items_with_token=pl.Series(ITEMS[::-1]) if tokens else None,
    )


@pytest.fixture(params=["codes", "tokens"])
def policy(request: pytest.FixtureRequest) -> lp.Generative:
    return policy_of(request.param)


def contexts_of(slots: int = SLOTS) -> Contexts:
    """Three contexts; the second excludes i0, the third has another temperature."""
    contexts = Contexts.of(
        ["u0", "u1", "u2"],
        NOON,
        slots=slots,
        history=[["i1", "i4"], [], ["i5"]],
        exclusions=[[], ["i0"], []],
        ids=["c0", "c1", "c2"],
    )
    return Contexts(contexts.frame.with_columns(temperature=pl.Series([1.0, 1.0, 0.7])))


def written(policy: lp.Generative, *slates: list[str]) -> list[list[int]]:
    """The token ids of slates, by hand: two markers, codes level by level, then items."""
    ids = []
    for slate in slates:
        tokens = []
        for item in slate:
            first, last = CODES[ITEMS.index(item)]
            own = 2 + LEVELS * WIDTH + ITEMS[::-1].index(item)
            tokens += [2 + first, own if policy.item_tokens else 2 + WIDTH + last]
        ids.append([int(token) for token in tokens])
    return ids


# -- completions


def test_every_slate_is_written_in_one_way_and_read_back(policy: lp.Generative) -> None:
    spelling = Spelling.of(policy)
    slates = [list(slate) for slate in itertools.product(ITEMS, repeat=2)]
    tokens = written(policy, *slates)
    leaves = spelling.slates(tokens, SLOTS)
    assert policy.index.slates(leaves).to_list() == slates
    assert spelling.tokens(leaves).tolist() == tokens
    pad = spelling.vocabulary.pad
    assert np.array_equal(spelling.slates([[*row, pad, pad] for row in tokens], SLOTS), leaves)
    tokenizer = spelling.tokenizer()
    texts = tokenizer.batch_decode(tokens, skip_special_tokens=True)
    assert [spelling.parsed(text) for text in texts] == tokens
    assert tokenizer(texts)["input_ids"] == tokens
    assert len(tokenizer) == policy.decoder.model.get_input_embeddings().weight.shape[0]
    if not policy.item_tokens:
        assert texts[1] == "<0:0> <1:0> <0:0> <1:2>"


def test_what_is_no_slate_is_told_from_what_is(policy: lp.Generative) -> None:
    spelling = Spelling.of(policy)
    (whole,) = written(policy, ["i0", "i3"])
    last = whole[3]
    wrong = [
        [],
        whole[:3],  # too short
        whole + whole[:2],  # too long
        [*whole[:2], 0, *whole[2:]],  # padding within
        [whole[1], whole[0], *whole[2:]],  # levels exchanged
        [*whole[:3], last + 10**6],  # no token
        [*whole[:3], -1],
        [whole[0], last, *whole[2:]] if policy.item_tokens else [2 + 1, 2 + 4 + 0, *whole[2:]],
        [*whole[:3], 2 + WIDTH + 0] if policy.item_tokens else [*whole[:3], 2 + WIDTH + 3],
    ]
    assert (spelling.slates(wrong, SLOTS) == -1).all()
    assert (spelling.slates([whole], SLOTS) >= 0).all()
    for text in ("", "i0", "<0:0> and <1:0>", "<0:0>\n<1:", "<0:0><1:0>!", "<00000000000:0>"):
        assert spelling.parsed(text) == []
    assert spelling.parsed(" <0:1><1:3>\n<pad>") == [3, 9]
    # a code beyond its level is not one of the next level
    assert spelling.parsed("<0:5> <7:0> <item:99>") == [-1, -1, -1]


def test_a_trie_finds_the_items_that_it_has_and_no_other() -> None:
    trie = Trie.build(CODES, WIDTH)
    every = np.array(list(itertools.product(range(-1, WIDTH + 1), repeat=2)))
    expected = [
        next((leaf for leaf, code in enumerate(CODES.tolist()) if code == ask), -1)
        for ask in every.tolist()
    ]
    assert trie.find(every).tolist() == expected


# -- TRL


def reward_of(policy: lp.Generative, **settings: Any) -> Any:
    return trl_reward(policy, REWARD, Known(), Lake.memory(), contexts_of(), **settings)  # type: ignore[arg-type]


def test_a_completions_reward_is_the_cautious_worth_of_its_slate(policy: lp.Generative) -> None:
    slates = [["i0", "i3"], ["i3", "i5"], ["i1", "i2"], ["i5", "i0"]]
    names = ["c0", "c1", "c2", "c0"]
    ids = written(policy, *slates)
    given = reward_of(policy)(["p"] * 4, [""] * 4, ids, context_id=names)
    by_hand = [sum(WORTH[item] - 0.1 for item in slate) for slate in slates]
    assert given == pytest.approx(by_hand)
    texts = Spelling.of(policy).tokenizer().batch_decode(ids)
    assert reward_of(policy)(["p"] * 4, texts, context_id=names) == given
    spoken = [[{"role": "assistant", "content": text}] for text in texts]
    assert reward_of(policy)(["p"] * 4, spoken, context_id=names, trainer_state=None) == given


def test_what_cannot_be_shown_has_no_reward_or_the_one_that_was_asked_for(
    policy: lp.Generative,
) -> None:
    cases = {
        "fine": (["i1", "i3"], "c1"),
        "twice": (["i3", "i3"], "c1"),
        "excluded": (["i3", "i0"], "c1"),
        "gone": (["i3", GONE], "c1"),
        "not excluded there": (["i3", "i0"], "c2"),
    }
    ids = written(policy, *(slate for slate, _ in cases.values()))
    ids.append(ids[0][:-1])
    names = [*(name for _, name in cases.values()), "c0"]
    logged: dict[str, float] = {}
    given = reward_of(policy)(
        ["p"] * 6, [""] * 6, ids, context_id=names, log_metric=logged.__setitem__
    )
    fine = pytest.approx(2.0)
    also = pytest.approx(2.8)
    assert given == [fine, None, None, None, also, None]
    assert logged == {"valid": pytest.approx(2 / 6)}
    bad = reward_of(policy, invalid=-3.0)(["p"] * 6, [""] * 6, ids, context_id=names)
    assert bad == [fine, -3.0, -3.0, -3.0, also, -3.0]


def test_calls_that_cannot_be_meant_are_refused_in_words() -> None:
    policy = policy_of("codes")
    ids = written(policy, ["i0", "i3"])
    reward = reward_of(policy)
    with pytest.raises(DataError, match=r"no column context_id.*prompt_rows"):
        reward(["p"], [""], ids)
    with pytest.raises(DataError, match="context 'c9' is not among the 3 contexts"):
        reward(["p"], [""], ids, context_id=["c9"])
    with pytest.raises(DataError, match="2 prompts but 1 completion_ids"):
        reward(["p", "p"], ["", ""], ids, context_id=["c0", "c0"])
    with pytest.raises(DataError, match="1 prompts but 2 context_id"):
        reward(["p"], [""], ids, context_id=["c0", "c0"])
    with pytest.raises(DataError, match="a completion is 5, expected text"):
        reward(["p"], [5], context_id=["c0"])
    endless = Known(worth=WORTH | {"i3": np.inf})
    with pytest.raises(DataError, match="rewards are not finite"):
        trl_reward(policy, REWARD, endless, Lake.memory(), contexts_of())(  # type: ignore[arg-type]
            ["p"], [""], ids, context_id=["c0"]
        )
    for number in (np.nan, np.inf):
        with pytest.raises(ConfigError, match="expected a finite number"):
            reward_of(policy, invalid=number)
    with pytest.raises(DataError, match="occur twice"):
        context_rows(contexts_of().take([0, 0]), ["c0"])
    assert reward([], [], [], context_id=[]) == []


def test_log_probs_of_completions_are_those_of_the_constrained_law(policy: lp.Generative) -> None:
    contexts = contexts_of()
    slates = [list(slate) for slate in itertools.permutations(ITEMS, 2)]
    for row in range(3):
        rows = np.full(len(slates), row)
        asked = contexts.take(rows)
        prompts = policy.prompts(asked)
        ids = written(policy, *slates)
        given = constrained_log_probs(policy, prompts, ids, slots=SLOTS)
        expected = policy.log_prob(asked, pl.Series(slates)).sum(axis=1)
        assert given.shape == (len(slates), SLOTS * LEVELS)
        total = given.sum(dim=1).detach().numpy()
        assert total == pytest.approx(expected, abs=1e-4)
        assert np.exp(total).sum() == pytest.approx(1.0, abs=1e-5)
        # the first code's is over the codes that lead to something that may be shown
        first = given[:, 0].detach().numpy()
        allowed = policy.allowed(contexts.take([row])).mask(0, np.array([0]), np.array([0]))[0]
        probability = {
            code: float(np.exp(first[k]))
            for k, code in enumerate(CODES[[ITEMS.index(slate[0]) for slate in slates], 0])
            if np.isfinite(first[k])
        }
        assert set(probability) == set(np.flatnonzero(allowed))
        assert sum(probability.values()) == pytest.approx(1.0)


def test_padding_counts_nothing_and_what_cannot_be_drawn_has_no_gradient() -> None:
    policy = policy_of("codes")
    contexts = contexts_of()
    whole = written(policy, ["i1", "i3"], ["i3", "i0"], ["i2", "i2"])
    padded = torch.tensor([[*row, 0, 0] for row in whole])
    decoder = policy.learner(0)
    log_p = constrained_log_probs(
        policy, policy.prompts(contexts), padded, slots=SLOTS, decoder=decoder
    )
    assert log_p[0, 4:].tolist() == [0.0, 0.0]
    assert torch.isneginf(log_p[1:]).all()
    log_p[0].sum().backward()
    gradients = [weight.grad for weight in decoder.trainable() if weight.grad is not None]
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    assert max(float(gradient.abs().max()) for gradient in gradients) > 0
    with pytest.raises(DataError, match="3 prompts but 1 completions"):
        constrained_log_probs(policy, policy.prompts(contexts), whole[:1], slots=SLOTS)
    with pytest.raises(DataError, match="completions of 2 tokens given, expected 2 slots x 2"):
        constrained_log_probs(
            policy, policy.prompts(contexts), [row[:2] for row in whole], slots=SLOTS
        )


def test_a_data_set_holds_the_prompts_that_the_policy_reads(policy: lp.Generative) -> None:
    contexts = contexts_of()
    rows = prompt_rows(policy, contexts)
    assert [row["context_id"] for row in rows] == ["c0", "c1", "c2"]
    tokenizer = Spelling.of(policy).tokenizer()
    prompts = policy.prompts(contexts)
    for row, tokens, real in zip(rows, prompts.tokens, prompts.real, strict=True):
        assert tokenizer(row["prompt"])["input_ids"] == tokens[real].tolist()
    assert rows[1]["prompt"] == "<bos>"


HAS_TRL = importlib.util.find_spec("trl") is not None


@pytest.mark.skipif(HAS_TRL, reason="TRL is installed")
def test_without_trl_the_trainer_says_what_is_missing() -> None:
    with pytest.raises(ConfigError, match=r"TRL is not installed: pip install"):
        constrained_grpo_trainer()


@pytest.mark.skipif(not HAS_TRL, reason="TRL is not installed")
@pytest.mark.parametrize("kind", ["codes", "tokens"])
@pytest.mark.filterwarnings("ignore")
def test_trl_trains_what_it_samples_and_the_reward_rises(kind: str, tmp_path: Path) -> None:
    from trl import GRPOConfig

    policy = policy_of(kind)
    contexts = contexts_of()
    args = GRPOConfig(
        output_dir=str(tmp_path),
        max_steps=12,
        learning_rate=3e-3,
        per_device_train_batch_size=24,
        num_generations=8,
        max_completion_length=SLOTS * LEVELS,
        beta=0.02,
        logging_steps=1,
        report_to=[],
        save_strategy="no",
        bf16=False,
        use_cpu=True,
        gradient_checkpointing=False,
        disable_tqdm=True,
    )
    with pytest.raises(DataError, match="'c1' asks for 5 slots but only 4 items may be shown"):
        constrained_grpo_trainer()(
            policy, REWARD, Known(), Lake.memory(), contexts_of(slots=5), args=args
        )
    trainer = constrained_grpo_trainer()(
        policy, REWARD, Known(), Lake.memory(), contexts, args=args, seed=1
    )
    trainer.train()
    history = trainer.state.log_history
    valid = [row["valid"] for row in history if "valid" in row]
    assert valid
    assert min(valid) == 1.0
    kl = [row["kl"] for row in history if "kl" in row]
    assert kl[0] == pytest.approx(0.0, abs=1e-4)  # the reference is the start
    assert kl[-1] > 0.01
    reward = [row["reward"] for row in history if "reward" in row]
    assert np.mean(reward[-3:]) > np.mean(reward[:3]) + 0.3
    tuned = trainer.tuned()
    assert tuned.name != policy.name
    slates = [list(slate) for slate in itertools.permutations(set(ITEMS) - {GONE}, 2)]
    asked = contexts.take([2] * len(slates))
    worth = np.array([sum(WORTH[item] for item in slate) for slate in slates])
    was, now = (
        np.exp(each.log_prob(asked, pl.Series(slates)).sum(axis=1)) @ worth
        for each in (policy, tuned)
    )
    assert now > was + 0.3
    # log-probabilities that TRL is handed are the tuned policy's own
    trainer.row_N = np.full(len(slates), 2)
    ids = torch.tensor(written(policy, *slates))
    handed, _, _ = trainer._get_per_token_logps_and_entropies(trainer.model, ids, ids, ids.shape[1])
    own = tuned.log_prob(asked, pl.Series(slates)).sum(axis=1)
    assert handed.sum(dim=1).detach().numpy() == pytest.approx(own, abs=1e-3)


# -- verl


def test_verls_score_is_trls_reward(policy: lp.Generative) -> None:
    contexts = contexts_of()
    compute_score = verl_reward(policy, REWARD, Known(), Lake.memory(), contexts, invalid=-5.0)  # type: ignore[arg-type]
    slates = [["i0", "i3"], ["i3", "i0"], ["i1", "i1"], ["i3", "i5"]]
    names = ["c0", "c1", "c2", "c1"]
    ids = written(policy, *slates)
    texts = Spelling.of(policy).tokenizer().batch_decode(ids, skip_special_tokens=True)
    of_trl = reward_of(policy, invalid=-5.0)([""] * 4, texts, ids, context_id=names)
    given = [
        compute_score(data_source="longplay", solution_str=text, ground_truth=name, extra_info={})
        for text, name in zip(texts, names, strict=True)
    ]
    assert given == of_trl
    assert given[1:3] == [-5.0, -5.0]
    assert compute_score("longplay", "I would play jazz", "c0") == -5.0
    assert (
        compute_score("longplay", texts[0], "", {"context_id": "c2"}, reward_router_address=None)
        == given[0]
    )
    with pytest.raises(DataError, match="context 'c9' is not among"):
        compute_score("longplay", texts[0], "c9")
    with pytest.raises(ConfigError, match="invalid=nan"):
        verl_reward(policy, REWARD, Known(), Lake.memory(), contexts, invalid=np.nan)  # type: ignore[arg-type]
