"""What serving costs: the most probable items beside Hugging Face's constrained `generate`, slates
per CPU-second, and ways to encode prompts faster.

CPU seconds on one thread, interleaved in one run; ratios are medians of ratios within a round.
Weights are random: what a pass costs does not depend on them. All catalogues have IDs of three
codes of 256, so that only the catalogue varies, and all prompts are as long as `small` reads.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime
from functools import partial
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from claims import timed
from numpy.typing import NDArray
from remembered import remembered
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from longplay.chance import RowChance
from longplay.codes import Allowed, Codebook, Trie
from longplay.decisions import Contexts
from longplay.policies.generative.decoder import SCALES, Decoder, new_model
from longplay.policies.generative.fast.compiled import Compiled, FirstPassCache, traceable
from longplay.policies.generative.fast.kernels import OneDnn
from longplay.policies.generative.prompts import Prompts, encode
from longplay.policies.generative.scoring import BATCH
from longplay.policies.generative.search import beam_slates, best_items, item_log_probs
from longplay.policies.generative.vocabulary import Vocabulary
from longplay.policies.generative_policy import Generative

LEVELS, WIDTH = 3, 256
ITEMS = {10_000: "10k", 100_000: "100k", 1_000_000: "1M"}
BATCHES, BEAMS = (1, 8, 64), (10, 50)
ROUNDS = {1: 9, 8: 5, 64: 3}
# sequences in one call of `generate`: with more of them each costs it more (400 at once: half as
# much again)
AT_ONCE = 80
# random weights are multiplied by this where laws are compared: those trained on Beauty are as
# large, .05 instead of .02
LARGER = 2.5
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
COMMAND = "python bench/serving.py"
claim = partial(timed, COMMAND)

Ints = NDArray[np.int64]
Rounds = list[list[float]]


# -- what is served ------------------------------------------------------------------------------


def catalogue(items: int, width: int = WIDTH) -> Trie:
    """`items` of the width^3 IDs, drawn evenly."""
    numbers = np.sort(np.random.default_rng(items).choice(width**LEVELS, items, replace=False))
    return Trie.build(
        np.stack(
            [numbers // width ** (LEVELS - 1 - level) % width for level in range(LEVELS)], axis=1
        ),
        width,
    )


def histories(trie: Trie, n: int, items: int) -> tuple[Ints, Ints]:
    """Ragged histories of `items` random items for each of `n` listeners: offsets and leaves."""
    return np.arange(n + 1) * items, np.random.default_rng(n).integers(0, len(trie), n * items)


def prompts(
    trie: Trie,
    n: int,
    items: int = SCALES["small"].history,
    *,
    excluded: bool = False,
    own: Ints | None = None,
) -> Prompts:
    """`n` prompts of `items` items each; these items are excluded, or none is."""
    offsets, leaves = histories(trie, n, items)
    allowed = Allowed.of(trie, offsets, leaves if excluded else np.full_like(leaves, -1))
    return encode(
        trie,
        offsets,
        leaves,
        items,
        np.ones(n),
        allowed,
        None if own is None else Vocabulary(LEVELS, trie.width, items=len(own)),
        item_token_I=own,
    )


def larger(model: PreTrainedModel) -> PreTrainedModel:
    """The model with maps as large as trained ones, whose laws have favourites."""
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 2:
                weight.mul_(LARGER)
    return model


def cpu(work: Callable[[], Any]) -> float:
    """CPU seconds of `work`."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


# -- the rival -----------------------------------------------------------------------------------


def followers(decoder: Decoder) -> dict[tuple[int, ...], list[int]]:
    """Tokens that may follow every prefix of an ID: what `prefix_allowed_tokens_fn` looks up."""
    trie = decoder.trie
    first = np.array([decoder.vocabulary.code(level) for level in range(LEVELS)])
    tokens = trie.codes + first
    table = {}
    for level in range(LEVELS):
        ends, below = trie.ptr[level].tolist(), (trie.code[level] + first[level]).tolist()
        for node, prefix in enumerate(tokens[trie.span[level][:-1], :level].tolist()):
            table[tuple(prefix)] = below[ends[node] : ends[node + 1]]
    return table


def hugging_face(
    model: PreTrainedModel,
    asked: Prompts,
    beams: int,
    table: dict[tuple[int, ...], list[int]],
    *,
    helped: bool = False,
) -> Tensor:
    """The tokens of the `beams` best IDs of every prompt, [N, beams, L], by `generate` in parts of
    at most `AT_ONCE` sequences.

    It repeats the prompt for every beam. `helped` is its best form, not what it does when asked
    plainly: it is handed prompts encoded once, their caches repeated, and our kernels.
    """
    length, found = asked.tokens.shape[1], []
    step = max(1, AT_ONCE // beams)
    for start in range(0, len(asked), step):
        part = asked.between(start, min(start + step, len(asked)))
        attention, given = part.real.long(), {}
        with torch.inference_mode(), OneDnn() if helped else nullcontext():
            if helped:
                cache = DynamicCache(config=model.config)
                model.base_model(
                    input_ids=part.tokens[:, :-1],
                    attention_mask=attention[:, :-1],
                    past_key_values=cache,
                    use_cache=True,
                )
                cache.batch_repeat_interleave(beams)
                given = {"past_key_values": cache}
            generate: Any = model.generate
            answer = generate(
                input_ids=part.tokens,
                attention_mask=attention,
                num_beams=beams,
                num_return_sequences=beams,
                max_new_tokens=LEVELS,
                do_sample=False,
                use_cache=True,
                prefix_allowed_tokens_fn=lambda _, tokens: table[tuple(tokens[length:].tolist())],
                length_penalty=0.0,
                **given,
            )
        found.append(answer[:, length:].reshape(len(part), beams, LEVELS))
    return torch.cat(found)


@remembered(version=2)
def beams_of(batch: int, beams: int) -> dict[str, Any]:
    """See `measure_beams`."""
    return measure_beams(batch, beams, tuple(ITEMS), ROUNDS[batch])


def measure_beams(
    batch: int, beams: int, catalogues: tuple[int, ...], rounds: int
) -> dict[str, Any]:
    """CPU seconds per round of ours, `generate`, and `generate` with all our help, by catalogue;
    tokens of a prompt.

    "compiled" is ours in the smallest catalogue with prompts encoded by OpenVINO, where that is
    installed.
    """
    model = new_model("small", LEVELS, WIDTH, seed=0)
    decoders = {items: Decoder(model, catalogue(items)) for items in catalogues}
    asked = {items: prompts(decoder.trie, batch) for items, decoder in decoders.items()}
    tables = {items: followers(decoder) for items, decoder in decoders.items()}
    ways: dict[str, Callable[[], Any]] = {}
    for items, decoder in decoders.items():
        ways[f"ours {items}"] = partial(best_items, decoder, asked[items], beams)
    if find_spec("openvino") is not None:  # an extra: pip install 'longplay[openvino]'
        least = min(catalogues)
        ways["ours compiled"] = partial(
            best_items,
            Decoder(model, decoders[least].trie, compiled=Compiled(model)),
            asked[least],
            beams,
        )
    for items in decoders:
        ways[f"generate {items}"] = partial(hugging_face, model, asked[items], beams, tables[items])
        ways[f"helped {items}"] = partial(
            hugging_face, model, asked[items], beams, tables[items], helped=True
        )
    times: dict[str, list[float]] = {name: [] for name in ways}
    for way in (
        way
        for name, way in ways.items()
        if name.startswith("ours") or name.endswith(f" {min(catalogues)}")
    ):
        way()  # nothing is measured the first time
    for _ in range(rounds):
        for name, way in ways.items():
            again = 5 if batch == 1 and name.startswith("ours") else 1
            times[name].append(statistics.median(cpu(way) for _ in range(again)))
    print(
        f"batch {batch}, {beams} beams: "
        + ", ".join(f"{name} {statistics.median(each):.3f}" for name, each in times.items()),
        flush=True,
    )
    return {"seconds": times, "tokens": next(iter(asked.values())).tokens.shape[1]}


@remembered(version=2)
def whole_items(batch: int, beams: int, items: int) -> Rounds:
    """See `measure_whole_items`."""
    return measure_whole_items(batch, beams, items, ROUNDS[batch])


def measure_whole_items(batch: int, beams: int, items: int, rounds: int) -> Rounds:
    """CPU seconds of the same search, [of last codes, of items with tokens of their own], round by
    round."""
    trie, vocabulary = catalogue(items), Vocabulary(LEVELS, WIDTH, items=items)
    model, own = (
        new_model("small", LEVELS, WIDTH, seed=0, items=items),
        vocabulary.item + np.arange(items),
    )
    decoders = [
        Decoder(model, trie, vocabulary),
        Decoder(model, trie, vocabulary, item_token_I=own),
    ]
    return side_by_side(
        decoders,
        [prompts(trie, batch, own=decoder.item_token_I) for decoder in decoders],
        beams,
        rounds,
    )


def side_by_side(decoders: list[Decoder], asked: list[Prompts], beams: int, rounds: int) -> Rounds:
    """CPU seconds of `best_items` by each decoder of what it is asked, round by round."""
    times: Rounds = [[] for _ in decoders]
    for done in range(rounds + 1):
        for spent, decoder, one in zip(times, decoders, asked, strict=True):
            seconds = statistics.median(
                cpu(partial(best_items, decoder, one, beams))
                for _ in range(5 if len(one) == 1 else 1)
            )
            if done:  # nothing is measured the first time
                spent.append(seconds)
    return times


@remembered(version=3)
def agreement(contexts: int, items: int) -> dict[str, float]:
    """See `measure_agreement`."""
    return measure_agreement(contexts, items)


def measure_agreement(contexts: int, items: int) -> dict[str, float]:
    """Share of the ten most probable items, by enumeration, that each finds first, and how much of
    the law these ten hold.

    Errors of log-probabilities: of items found against enumeration, and of items drawn against
    `Decoder.log_prob`.
    """
    model = larger(new_model("small", LEVELS, WIDTH, seed=0))
    decoder = Decoder(model, catalogue(items))
    asked = prompts(decoder.trie, contexts)
    law = item_log_probs(decoder, asked)
    best = np.argsort(-law, axis=1, kind="stable")[:, :10]
    first = np.array([decoder.vocabulary.code(level) for level in range(LEVELS)])
    leaf_of = {tuple(code): leaf for leaf, code in enumerate(decoder.trie.codes.tolist())}
    answer = {"top ten": float(np.exp(np.take_along_axis(law, best, axis=1)).sum(axis=1).mean())}
    for beams in BEAMS:
        ours = best_items(decoder, asked, 10, beams)
        theirs = hugging_face(model, asked, beams, followers(decoder))[:, :10].numpy() - first
        leaves = np.array([[leaf_of[tuple(code)] for code in row] for row in theirs.tolist()])
        answer[f"ours {beams}"] = recall(ours.leaves[:, 0], best)
        answer[f"generate {beams}"] = recall(leaves, best)
        error = np.abs(
            ours.item_log_prob[:, 0] - np.take_along_axis(law, ours.leaves[:, 0], axis=1)
        )
        answer[f"error {beams}"] = float(error.max())
    chance = RowChance(np.random.default_rng(0).integers(0, 2**64, contexts, dtype=np.uint64))
    drawn = beam_slates(decoder, asked, groups=20, slots=5, chance=chance)
    with torch.inference_mode():
        again = decoder.log_prob(asked, drawn.leaves.reshape(contexts, -1)).numpy()
    answer["recomputed"] = float(np.abs(again - drawn.item_log_prob.reshape(contexts, -1)).max())
    return answer


def recall(found: Ints, best: Ints) -> float:
    """Mean share of `best[N, k]` among `found[N, k]`."""
    return float(
        np.mean(
            [
                len(np.intersect1d(one, other)) / len(other)
                for one, other in zip(found, best, strict=True)
            ]
        )
    )


# -- slates --------------------------------------------------------------------------------------


def policy_of(scale: str, items: int, width: int) -> Generative:
    """A policy of random weights over a `catalogue`."""
    trie = catalogue(items, width)
    book = Codebook(
        pl.Series([f"i{k}" for k in range(items)]),
        trie.codes,
        width,
        np.ones(items, dtype=bool),
    )
    return Generative(scale=scale, codebook=book, model=new_model(scale, LEVELS, width, seed=0))


def contexts_of(policy: Generative, n: int) -> Contexts:
    """`n` listeners whose histories are full, and excluded."""
    trie = policy.decoder.trie
    ids = (
        policy.index.ids.gather(histories(trie, n, policy.history)[1])
        .to_numpy()
        .reshape(n, policy.history)
        .tolist()
    )
    return Contexts.of([f"u{k}" for k in range(n)], NOON, slots=5, history=ids, exclusions=ids)


@remembered(version=2)
def requests(batch: int) -> dict[str, Rounds]:
    """See `measure_requests`."""
    return measure_requests(batch, (min(ITEMS), max(ITEMS)), ROUNDS[batch])


def measure_requests(batch: int, catalogues: tuple[int, int], rounds: int) -> dict[str, Rounds]:
    """CPU seconds of what a service calls, ids and contexts in, ids out, by `small`: of each call
    [in the one catalogue, in the other]."""
    policies = [policy_of("small", items, WIDTH) for items in catalogues]
    asked = [contexts_of(policy, batch) for policy in policies]
    calls: dict[str, Callable[[Generative, Contexts], Any]] = {
        "ranked, 10 beams": lambda policy, contexts: policy.ranked(contexts, 10, beams=10),
        "decide, 5 slots": lambda policy, contexts: policy.decide(
            contexts, np.random.default_rng(0)
        ),
    }
    times: dict[str, Rounds] = {name: [[], []] for name in calls}
    for done in range(rounds + 1):
        for name, call in calls.items():
            for which, (policy, contexts) in enumerate(zip(policies, asked, strict=True)):
                spent = statistics.median(
                    cpu(partial(call, policy, contexts)) for _ in range(5 if batch == 1 else 1)
                )
                if done:  # nothing is measured the first time
                    times[name][which].append(spent)
    return times


@remembered(version=2)
def slates(contexts: int, items: int, width: int) -> dict[str, list[float]]:
    """See `measure_slates`."""
    return measure_slates(contexts, items, width, rounds=9)


def measure_slates(contexts: int, items: int, width: int, rounds: int) -> dict[str, list[float]]:
    """Slates of five per CPU-second by `tiny`, whose listeners' histories are full and excluded:
    through `decide`, and of the draws alone."""
    policy = policy_of("tiny", items, width)
    decoder, read = policy.decoder, SCALES["tiny"].history
    asked, whole = (
        contexts_of(policy, contexts),
        prompts(decoder.trie, contexts, read, excluded=True),
    )
    chance = RowChance(np.random.default_rng(0).integers(0, 2**64, BATCH, dtype=np.uint64))

    def draw() -> None:
        for start in range(0, contexts, BATCH):
            part = whole.between(start, min(start + BATCH, contexts))
            beam_slates(decoder, part, groups=1, slots=5, chance=chance.take(np.arange(len(part))))

    def decide() -> None:
        policy.decide(asked, np.random.default_rng(0))

    draw()
    decide()
    seconds = [(cpu(decide), cpu(draw)) for _ in range(rounds)]
    return {
        "decide": [contexts / one for one, _ in seconds],
        "draws": [contexts / one for _, one in seconds],
    }


# -- encoding prompts ----------------------------------------------------------------------------


Encode = Callable[[Tensor, Tensor], Tensor]


def ways_to_encode(decoder: Decoder, slow: bool) -> dict[str, Encode]:
    """Ways to the state after the last token; with `slow` also those that must be compiled
    first."""
    model = decoder.model
    twin: Any = copy.deepcopy(model)
    half = twin.to(torch.bfloat16)

    def transformers(model: PreTrainedModel, tokens: Tensor, position: Tensor) -> Tensor:
        cache = DynamicCache(config=model.config)
        return model.base_model(
            input_ids=tokens, position_ids=position, past_key_values=cache, use_cache=True
        ).last_hidden_state[:, -1]

    def autocast(tokens: Tensor, position: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return transformers(model, tokens, position)

    ways: dict[str, Encode] = {
        "Transformers as it is": partial(transformers, model),
        "Transformers, bfloat16 by autocast": autocast,
        "Transformers, bfloat16 weights": partial(transformers, half),
    }
    if not slow:
        return ways
    import torch._inductor.config as inductor

    inductor.freezing = True  # weights as constants: packed once

    def whole(tokens: Tensor, position: Tensor) -> tuple[Tensor, ...]:
        kept = FirstPassCache()
        return (traceable(model.base_model, tokens, position, kept)[:, -1], *kept.tensors)

    compiled = torch.compile(whole, dynamic=True)
    ways["Transformers by torch.compile, frozen"] = lambda *given: compiled(*given)[0]
    if find_spec("openvino") is None:
        return ways
    for words, precision in (("OpenVINO", "f32"), ("OpenVINO bfloat16", "bf16")):
        ready = Compiled(model, precision)
        ways[words] = lambda tokens, position, ready=ready: ready(
            tokens, position, DynamicCache(config=model.config), position[:, -1]
        )
    return ways


@remembered(version=3)
def encoding() -> dict[str, Any]:
    """See `measure_encoding`."""
    return measure_encoding(BATCHES, {1: 15, 8: 9, 64: 5}, slow=True)


def measure_encoding(
    batches: tuple[int, ...], rounds: dict[int, int], *, slow: bool
) -> dict[str, Any]:
    """CPU seconds per batch of `Decoder.start` and of other ways, and the largest error of a first
    code's log-probability."""
    decoder = Decoder(larger(new_model("small", LEVELS, WIDTH, seed=0)), catalogue(10_000))
    embeddings: Any = decoder.model.get_input_embeddings()
    head = embeddings.weight
    asked = {batch: prompts(decoder.trie, batch) for batch in batches}
    given = {
        batch: (one.tokens, torch.arange(one.tokens.shape[1]).expand(batch, -1).contiguous())
        for batch, one in asked.items()
    }
    found: dict[str, Any] = {"seconds": {}, "error": {}}

    def law(state: Tensor) -> Tensor:
        return torch.log_softmax((state.to(head.dtype) @ head.T).double(), dim=-1)

    def inference(work: Callable[..., Any], *of: Any) -> Any:
        with torch.inference_mode():
            return work(*of)

    with torch.no_grad():
        ways = ways_to_encode(decoder, slow)
        for batch in batches:
            exact = law(inference(decoder.start, asked[batch]).last)
            for name, way in ways.items():
                found["error"][name] = max(
                    found["error"].get(name, 0.0),
                    float((law(way(*given[batch])) - exact).abs().max()),
                )
            all_ways = {"now": partial(inference, decoder.start, asked[batch])} | {
                name: partial(way, *given[batch]) for name, way in ways.items()
            }
            seconds = {name: [] for name in all_ways}
            for _ in range(rounds[batch]):
                for name, way in all_ways.items():
                    seconds[name].append(cpu(way))
            found["seconds"][str(batch)] = seconds
    return found


# -- claims --------------------------------------------------------------------------------------


def rows_of_beams(
    found: dict[tuple[int, int], dict[str, Any]], catalogues: tuple[int, ...]
) -> list[dict[str, Any]]:
    """What every cell of batch x beams x catalogue costs, beside the rival and beside the smallest
    catalogue."""
    rows = []
    least, most = min(catalogues), max(catalogues)
    for (batch, beams), cell in found.items():
        seconds = cell["seconds"]
        head = f"small, {cell['tokens']}-token prompts, batch {batch}, {beams} beams"
        for items in catalogues:
            name = f"{head}, {ITEMS.get(items, f'{items:,}')} items"
            ours = seconds[f"ours {items}"]
            bar, met = (
                (">= 8", lambda x: x >= 8) if items == least else ("none: reported", lambda x: True)
            )
            rows += [
                claim(
                    f"{name}: CPU milliseconds per context",
                    [1e3 * one / batch for one in ours],
                    "none: reported",
                    lambda x: True,
                ),
                claim(
                    f"{name}: CPU of Hugging Face generate over ours",
                    ratios(seconds[f"generate {items}"], ours),
                    bar,
                    met,
                ),
            ]
            if items == least:
                words = (
                    f"{name}: CPU of generate, handed prompts encoded once and our kernels, "
                    "over ours"
                )
                rows.append(
                    claim(
                        words,
                        ratios(seconds[f"helped {items}"], ours),
                        "none: reported",
                        lambda x: True,
                    )
                )
                if "ours compiled" in seconds:
                    words = f"{name}: CPU of Hugging Face generate over ours, prompts by OpenVINO"
                    rows.append(
                        claim(
                            words,
                            ratios(seconds[f"generate {items}"], seconds["ours compiled"]),
                            ">= 8",
                            lambda x: x >= 8,
                        )
                    )
        growth = ratios(seconds[f"ours {most}"], seconds[f"ours {least}"])
        words = (
            f"{head}: CPU at {ITEMS.get(most, f'{most:,}')} over that at "
            f"{ITEMS.get(least, f'{least:,}')} items"
        )
        rows.append(claim(words, growth, "<= 1.3", lambda x: x <= 1.3))
    return rows


def rows_of_whole_items(found: dict[tuple[int, int], Rounds], items: int) -> list[dict[str, Any]]:
    """Items said by tokens of their own beside those said by last codes."""
    return [
        claim(
            f"small, batch {batch}, {beams} beams, {ITEMS.get(items, f'{items:,}')} items: CPU of "
            "items with tokens of their own over last codes",
            ratios(own, codes),
            "none: reported",
            lambda x: True,
        )
        for (batch, beams), (codes, own) in found.items()
    ]


def rows_of_agreement(found: dict[str, float]) -> list[dict[str, Any]]:
    """Who finds the ten most probable items."""
    rows = [
        claim(
            "10k items, random weights as large as trained ones: share of the law in its ten best "
            "items",
            [found["top ten"]],
            "none: reported",
            lambda x: True,
        )
    ]
    for beams in BEAMS:
        name = (
            f"10k items, random weights as large as trained ones, {beams} beams: share of the "
            "ten best items found"
        )
        rows += [
            claim(f"{name}, ours", [found[f"ours {beams}"]], "none: reported", lambda x: True),
            claim(
                f"{name}, generate (ranks by the mass of the whole vocabulary)",
                [found[f"generate {beams}"]],
                "none: reported",
                lambda x: True,
            ),
        ]
    errors = {
        "a found item's log-probability against enumeration": max(
            found[f"error {beams}"] for beams in BEAMS
        ),
        "a drawn item's log-probability computed again": found["recomputed"],
    }
    for words, error in errors.items():
        rows.append(
            claim(
                f"10k items, random weights as large as trained ones: largest error of {words}",
                [error],
                "<= 1e-5",
                lambda x: x <= 1e-5,
            )
        )
    return rows


def rows_of_slates(found: dict[str, list[float]], name: str) -> list[dict[str, Any]]:
    """Slates per CPU-second."""
    return [
        claim(
            f"tiny, {name}: slates of five per CPU-second, through decide",
            found["decide"],
            ">= 1,000",
            lambda x: x >= 1000,
        ),
        claim(
            f"tiny, {name}: slates of five per CPU-second, of the draws alone",
            found["draws"],
            "none: reported",
            lambda x: True,
        ),
    ]


def rows_of_requests(
    found: dict[int, dict[str, Rounds]], catalogues: tuple[int, int]
) -> list[dict[str, Any]]:
    """What a call of the policy costs, and how that grows with the catalogue."""
    one, other = (ITEMS.get(items, f"{items:,}") for items in catalogues)
    rows = []
    for batch, calls in found.items():
        for name, (few, many) in calls.items():
            head = f"small, policy.{name}, batch {batch}"
            rows += [
                claim(
                    f"{head}, {one} items: CPU milliseconds per context",
                    [1e3 * spent / batch for spent in few],
                    "none: reported",
                    lambda x: True,
                ),
                claim(
                    f"{head}: CPU at {other} over that at {one} items",
                    ratios(many, few),
                    "<= 1.3",
                    lambda x: x <= 1.3,
                ),
            ]
    return rows


def rows_of_encoding(found: dict[str, Any]) -> list[dict[str, Any]]:
    """What encoding a prompt costs, and other ways: that of Transformers, and others that were
    tried."""
    rows = []
    for batch, seconds in found["seconds"].items():
        words = f"small, encoding a prompt, batch {batch}: CPU milliseconds per context, as it is"
        rows.append(
            claim(
                words,
                [1e3 * one / int(batch) for one in seconds["now"]],
                "none: reported",
                lambda x: True,
            )
        )
        for name in found["error"]:
            words = f"small, encoding a prompt, batch {batch}: CPU of {name} over that"
            rows.append(
                claim(
                    words, ratios(seconds[name], seconds["now"]), "none: reported", lambda x: True
                )
            )
    for name, error in found["error"].items():
        rows.append(
            claim(
                f"small, encoding a prompt: largest error of a log-probability, {name}",
                [error],
                "none: 1e-5 is allowed",
                lambda x: True,
            )
        )
    return rows


def ratios(one: list[float], other: list[float]) -> list[float]:
    """Round by round."""
    return [a / b for a, b in zip(one, other, strict=True)]


PARTS = ("beams", "whole", "agreement", "slates", "requests", "encoding")


def measured(part: str, *, quick: bool) -> list[dict[str, Any]]:
    """The claims of one part."""
    cells = [(1, 10)] if quick else list(product(BATCHES, BEAMS))
    few, many = (2_000, 10_000) if quick else (min(ITEMS), max(ITEMS))
    match part:
        case "beams":
            found = {
                cell: measure_beams(*cell, (few, many), 1)
                if quick
                else beams_of(batch=cell[0], beams=cell[1])
                for cell in cells
            }
            return rows_of_beams(found, (few, many) if quick else tuple(ITEMS))
        case "whole":
            found = {
                cell: measure_whole_items(*cell, few, 1)
                if quick
                else whole_items(batch=cell[0], beams=cell[1], items=few)
                for cell in cells
            }
            return rows_of_whole_items(found, few)
        case "agreement":
            return rows_of_agreement(
                measure_agreement(1, few) if quick else agreement(contexts=32, items=few)
            )
        case "slates":
            if quick:
                return rows_of_slates(measure_slates(64, few, 32, 1), "batch 64, 2,000 items")
            return rows_of_slates(
                slates(contexts=1024, items=few, width=32), f"batches of {BATCH}, 10k items"
            )
        case "requests":
            batches = (1,) if quick else BATCHES
            return rows_of_requests(
                {
                    one: measure_requests(one, (few, many), 1) if quick else requests(batch=one)
                    for one in batches
                },
                (few, many),
            )
        case _:
            return rows_of_encoding(
                measure_encoding((1,), {1: 1}, slow=False) if quick else encoding()
            )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument(
        "--quick",
        action="store_true",
        help="one small cell of everything, nothing remembered: shows that it runs, proves nothing",
    )
    options.add_argument("--json", type=Path, help="write the rows here")
    options.add_argument(
        "--only",
        choices=PARTS,
        action="append",
        help="measure this alone, may be given several times; other rows of --json stay",
    )
    given = options.parse_args()
    torch.set_num_threads(1)
    rows = []
    for part in given.only or PARTS:
        for row in measured(part, quick=given.quick):
            spread = "" if row["low"] is None else f" ({row['low']:.4g} to {row['high']:.4g})"
            print(f"{row['claim']}: {row['value']:.4g}{spread}, bar {row['bar']}", flush=True)
            row["readme"] = " 10 beams, 10k items: CPU of" in row["claim"] or row[
                "claim"
            ].startswith("tiny")
            rows.append(row | {"of": part})
    if given.json:
        kept = json.loads(given.json.read_text()) if given.only else []
        rows += [row for row in kept if row["of"] not in given.only]
        given.json.write_text(
            json.dumps(sorted(rows, key=lambda row: PARTS.index(row["of"])), indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
