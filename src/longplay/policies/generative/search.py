"""Searches on the trie: slates without replacement, the most probable items, the whole
distribution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from longplay.arrays import Float, Int
from longplay.chance import RowChance
from longplay.codes.trie import Trie
from longplay.errors import ConfigError, DataError
from longplay.policies.generative.decoder import Decoder
from longplay.policies.generative.prompts import Prompts
from longplay.policies.plackett import log1mexp

KeyOf = Callable[[Int, int, Int, Float, Float], Float]

_EDGES = 2**40  # counters of a stream per level, one for each edge of the trie
_AT_ONCE = (
    2**19
    # numbers of a hidden state of all prompts in one pass: more of them fall out of the processor's
    # cache
)


@dataclass(frozen=True)
class Draw:
    """G slates of S items for each of N contexts, in draw order: leaves and log pi(item), both [N,
    G, S]."""

    leaves: Int
    item_log_prob: Float


def beam_slates(
    decoder: Decoder, prompts: Prompts, *, groups: int, slots: int, chance: RowChance
) -> Draw:
    """Draw `groups` independent slates per context, each of `slots` distinct items.

    Stochastic beam search (Kool, van Hoof & Welling 2019, arXiv 1903.06059): every partial ID
    carries a Gumbel-perturbed log-probability, conditioned on its parent's; the `slots` largest at
    the leaves, largest first, are a sample without replacement, ordered by the Plackett-Luce law
    of the item distribution. Contexts must allow at least `slots` items.

    The noise of a partial ID is decided by its context's stream in `chance`, its group and its edge
    of the trie alone. So a context's slates do not depend on what else is in the batch (but for the
    rounding of its log-probabilities), fewer slots are the first of more, and two models over one
    trie, or over a trie and what it has grown to (`Codebook.with_items`), share their luck path by
    path: they differ in their slates only as far as they differ in their laws.

    Raises:
        DataError: not one stream per prompt.
    """
    trie = decoder.trie
    n = len(prompts)
    if len(chance) != n:
        raise DataError(
            f"beam_slates: {len(chance)} streams of chance given for {n} prompts; expected one each"
        )

    def key_of(rows: Int, level: int, node: Int, total: Float, parent_key: Float) -> Float:
        return _children_given_parent(
            total, _noise(chance.take(rows), trie, level, node, total), parent_key, root=level == 0
        )

    return _search(decoder, prompts, groups, slots, key_of)


def best_items(decoder: Decoder, prompts: Prompts, k: int, beams: int | None = None) -> Draw:
    """The `k` most probable items of every context, best first, by constrained beam search: one
    group.

    Partial IDs are ranked by the renormalised log pi, so that none is kept for mass that lies
    outside the catalogue, and none is lost to a dead end. A context that allows fewer than `k`
    items, or whose beams reach fewer, has leaf -1 and -inf in the places left over. Of two items of
    equal probability the one with the smaller code comes first, among those that the beams reach.

    Args:
        decoder: the model under the trie.
        prompts: contexts as tokens.
        k: items per context.
        beams: partial IDs kept per level, at least `k`; default `k`. With as many as the trie has
            nodes at any level the answer is exact.

    Raises:
        ConfigError: k below 1, or fewer beams than k.
    """
    width = k if beams is None else beams
    if k < 1 or width < k:
        raise ConfigError(f"best_items: k={k}, beams={beams} given, expected 1 <= k <= beams")
    best = _search(decoder, prompts, 1, width, lambda rows, level, node, total, parent_key: total)
    leaves = best.leaves[:, :, :k]
    log_p = best.item_log_prob[:, :, :k]
    short = ((0, 0), (0, 0), (0, k - leaves.shape[2]))
    log_p = np.pad(log_p, short, constant_values=-np.inf)
    return Draw(np.where(np.isfinite(log_p), np.pad(leaves, short, constant_values=-1), -1), log_p)


def _search(decoder: Decoder, prompts: Prompts, groups: int, beams: int, key_of: KeyOf) -> Draw:
    """Beam search on the trie: at every level the `beams` children with the largest keys, largest
    first. Contexts are searched some at a time.

    `key_of(row[N], level, node[N, G, B], total[N, G, B, K], parent_key[N, G, B])` gives the
    children's keys [N, G, B, K] of contexts `row` from their log-probabilities `total`, -inf where
    there is no child.
    """
    parts = [
        _search_part(
            decoder, prompts.between(*part), groups, beams, partial(key_of, np.arange(*part))
        )
        for part in _parts(decoder, prompts)
    ]
    return Draw(
        np.concatenate([part.leaves for part in parts]),
        np.concatenate([part.item_log_prob for part in parts]),
    )


def _parts(decoder: Decoder, prompts: Prompts) -> list[tuple[int, int]]:
    """Bounds of the parts of the prompts that fit the processor's cache: first row, last row +
    1."""
    n = len(prompts)
    step = max(1, _AT_ONCE // (prompts.tokens.shape[1] * decoder.model.config.hidden_size))
    return [(start, min(start + step, n)) for start in range(0, max(n, 1), step)]


def chosen_log_probs(decoder: Decoder, prompts: Prompts, leaves: Int) -> Float:
    """log pi of `leaves[N, M]` for every context, [N, M]; -inf where not allowed.

    As `Decoder.log_prob`, by the computations of a search instead of those of training: what was
    drawn is found again to half the rounding.
    """
    trie = decoder.trie
    parts = []
    codes = trie.codes[leaves]
    with torch.inference_mode():
        for start, stop in _parts(decoder, prompts):
            encoded = decoder.start(prompts.between(start, stop))
            part_leaves = leaves[start:stop]
            code = codes[start:stop]
            total = np.take_along_axis(encoded.first_code().numpy(), code[:, :, 0], axis=1)
            columns = None
            for level in range(trie.levels - 1):
                log_p, columns = encoded.extend(
                    level, trie.node_of(level + 1, part_leaves), code[:, :, level], columns
                )
                total = (
                    total
                    + np.take_along_axis(log_p.numpy(), code[:, :, level + 1, None], axis=2)[
                        :, :, 0
                    ]
                )
            parts.append(total)
    return np.concatenate(parts)


def _search_part(
    decoder: Decoder,
    prompts: Prompts,
    groups: int,
    beams: int,
    key_of: Callable[[int, Int, Float, Float], Float],
) -> Draw:
    """`_search` of contexts that fit the processor's cache at once."""
    trie = decoder.trie
    n = len(prompts)
    with torch.inference_mode():
        encoded = decoder.start(prompts)
        first = encoded.first_code().numpy()  # [N, K]
        log_p = np.broadcast_to(first[:, None, None, :], (n, groups, 1, trie.width))
        prefix = np.zeros((n, groups, 1))
        beam_key = np.zeros((n, groups, 1))
        node = np.zeros((n, groups, 1), dtype=np.int64)
        columns = None
        for level in range(trie.levels):
            total = prefix[..., None] + log_p  # [N, G, B, K]
            flat = key_of(level, node, total, beam_key).reshape(n, groups, -1)
            take = min(beams, flat.shape[2])
            if take < flat.shape[2]:
                best = np.argpartition(-flat, take - 1, axis=2)[:, :, :take]
            else:
                best = np.broadcast_to(np.arange(take), (n, groups, take))
            best = np.take_along_axis(
                best, np.argsort(-np.take_along_axis(flat, best, 2), axis=2, kind="stable"), 2
            )
            beam_key = np.take_along_axis(flat, best, 2)
            prefix = np.take_along_axis(total.reshape(n, groups, -1), best, 2)
            beam = best // trie.width
            code = best % trie.width
            alive = np.isfinite(beam_key)
            parent = np.take_along_axis(node, beam, 2)
            # dead beams (fewer children than beams) follow the first one, which is alive, and keep
            # -inf
            parent = np.where(alive, parent, parent[:, :, :1])
            code = np.where(alive, code, code[:, :, :1])
            node = trie.child(level, parent, code)
            if level + 1 < trie.levels:
                if columns is not None:
                    index = torch.from_numpy(beam)[..., None].expand(-1, -1, -1, columns.shape[3])
                    columns = columns.gather(2, index)
                flat_columns = None if columns is None else columns.reshape(n, groups * take, -1)
                next_log_p, new_columns = encoded.extend(
                    level, node.reshape(n, -1), code.reshape(n, -1), flat_columns
                )
                log_p = next_log_p.numpy().reshape(n, groups, take, trie.width)
                columns = new_columns.reshape(n, groups, take, -1)
    return Draw(node, prefix)


def _noise(chance: RowChance, trie: Trie, level: int, node: Int, total: Float) -> Float:
    """Gumbel noise [N, G, B, K] of the codes that may follow `node[N, G, B]`; 0 where `total` is
    -inf.

    A counter is (group, level, edge of the trie below that level). The edge is the parent's
    `Trie.luck_numbers` and the code, so that items that are added change no other item's noise.
    """
    noise = np.zeros(total.shape)
    row, group, beam, code = np.nonzero(np.isfinite(total))
    edge = trie.luck_numbers[level][node[row, group, beam]] * trie.width + code
    noise[row, group, beam, code] = chance.gumbel(
        row, (group * trie.levels + level) * _EDGES + edge
    )
    return noise


def _children_given_parent(total: Float, noise: Float, parent_key: Float, *, root: bool) -> Float:
    """Perturbed log-probabilities [..., B, K] of children whose maximum equals the parent's key
    [..., B].

    At the root the maximum is free: plain Gumbel noise. Otherwise the truncated Gumbel of Kool et
    al. (2019, appendix B.3), which is stable where keys are far apart. Impossible children stay
    -inf.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        key = total + noise
        if root:
            return key
        largest = key.max(axis=-1, keepdims=True)
        excess = parent_key[..., None] - key + log1mexp(key - largest)
        shifted = parent_key[..., None] - np.maximum(excess, 0) - np.log1p(np.exp(-np.abs(excess)))
    return np.where(np.isneginf(key) | np.isneginf(parent_key)[..., None], -np.inf, shifted)


def item_log_probs(decoder: Decoder, prompts: Prompts, chunk: int = 256) -> Float:
    """log pi of every item for every context, [N, I]; -inf where not allowed. Enumerates the
    trie."""
    trie = decoder.trie
    n = len(prompts)
    with torch.inference_mode():
        encoded = decoder.start(prompts)
        log_p = np.full((n, trie.nodes(0), trie.width), -np.inf)
        log_p[:, 0] = encoded.first_code().numpy()
        total = np.zeros((n, 1))
        columns_above: torch.Tensor | None = None
        for level in range(trie.levels):
            owner = np.repeat(np.arange(trie.nodes(level)), np.diff(trie.ptr[level]))
            code = trie.code[level]
            total = total[:, owner] + log_p[:, owner, code]
            if level + 1 == trie.levels:
                return total
            children = trie.nodes(level + 1)
            log_p = np.empty((n, children, trie.width))
            columns = []
            for start in range(0, children, chunk):
                part = np.arange(start, min(start + chunk, children))
                above = None if columns_above is None else columns_above[:, owner[part]]
                wide = np.broadcast_to(part, (n, len(part)))
                answer, new_columns = encoded.extend(
                    level, wide, np.broadcast_to(code[part], wide.shape).copy(), above
                )
                log_p[:, part] = answer.numpy()
                columns.append(new_columns)
            columns_above = torch.cat(columns, dim=1)
    raise AssertionError("a trie has at least one level")
