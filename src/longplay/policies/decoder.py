"""A Hugging Face causal language model that speaks semantic IDs, under the trie.

The policy is the renormalised one: pi(code | prefix) is a softmax over the *valid children* of the
prefix, at the context's temperature, in sampling, training, logging and evaluation alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel, Qwen3Config, Qwen3ForCausalLM
from transformers.utils import logging as transformers_logging

from longplay.codes.trie import Allowed, Trie
from longplay.errors import ConfigError

PAD, BOS = 0, 1
FIRST_CODE = 2  # token of code k at level l: FIRST_CODE + l * K + k
HIDDEN = -1e9  # additive attention mask


@dataclass(frozen=True)
class Size:
    """How large a language model from scratch is, and how much it reads.

    Attributes:
        hidden: width of its states, a multiple of 2 x heads. layers: transformer blocks. heads: of attention. inner: width between the two maps of
            a block's feed-forward part. history: items of a listener's past that it reads.
    """

    hidden: int
    layers: int
    heads: int
    inner: int
    history: int

    def __post_init__(self) -> None:
        if min(self.hidden, self.layers, self.heads, self.inner, self.history) < 1 or self.hidden % (2 * self.heads):
            raise ConfigError(f"{self} given, expected positive numbers, hidden a multiple of 2 x heads")


SCALES = {"tiny": Size(hidden=64, layers=2, heads=4, inner=128, history=19), "small": Size(hidden=256, layers=4, heads=4, inner=768, history=64)}

Ints = NDArray[np.int64]


def size_of(scale: str | Size) -> Size:
    """The size of that name, or the one given.

    Raises:
        ConfigError: no size of that name.
    """
    if isinstance(scale, Size):
        return scale
    if scale not in SCALES:
        raise ConfigError(f"Generative: scale={scale!r} given, expected one of {', '.join(SCALES)}, or a Size")
    return SCALES[scale]


def new_model(scale: str | Size, levels: int, width: int, seed: int) -> PreTrainedModel:
    """A causal LM from scratch (Qwen3 architecture) whose vocabulary is the semantic-ID codes.

    `tiny` has about 80 thousand parameters, `small` about 3.4 million. Weights are drawn from `seed`.
    """
    size = size_of(scale)
    config = Qwen3Config(
        vocab_size=FIRST_CODE + levels * width,
        hidden_size=size.hidden,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=max(size.heads // 2, 1),
        head_dim=size.hidden // size.heads,
        intermediate_size=size.inner,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        attention_dropout=0.0,
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):  # no global generator: the caller's is left as it was
        torch.manual_seed(seed)
        model = Qwen3ForCausalLM(config)
    return model.eval()


transformers_logging.disable_progress_bar()  # progress belongs to whoever runs us


def save_model(model: PreTrainedModel, folder: Path) -> None:
    """Write weights (safetensors) and config to `folder`."""
    model.save_pretrained(folder)


def load_model(folder: Path) -> PreTrainedModel:
    """Read a model folder; safetensors only, no remote code."""
    return Qwen3ForCausalLM.from_pretrained(folder, local_files_only=True, use_safetensors=True).eval()


@dataclass(frozen=True)
class Prompts:
    """N tokenised prompts, left-padded: tokens [N, T] and which are real, with temperature [N] and what is allowed."""

    tokens: Tensor
    real: Tensor
    temperature: Tensor
    allowed: Allowed

    def __len__(self) -> int:
        return len(self.tokens)


def encode(trie: Trie, offsets: Ints, leaves: Ints, history: int, temperature_N: NDArray[np.float64], allowed: Allowed) -> Prompts:
    """Prompts from ragged histories of leaves (oldest first; -1 is skipped): BOS, then L tokens per item.

    Only the last `history` items are kept.
    """
    n, levels = len(offsets) - 1, trie.levels
    owner = np.repeat(np.arange(n), np.diff(offsets))
    known = leaves >= 0
    owner, leaves = owner[known], leaves[known]
    count = np.bincount(owner, minlength=n)
    from_end = np.concatenate([[0], np.cumsum(count)])[1:][owner] - np.arange(len(owner))  # 1 = the latest item
    keep = from_end <= history
    owner, leaves, from_end = owner[keep], leaves[keep], from_end[keep]
    longest = int(from_end.max()) if len(from_end) else 0
    width = 1 + longest * levels
    tokens = np.full((n, width), PAD, dtype=np.int64)
    column = width - from_end * levels
    for level in range(levels):
        tokens[owner, column + level] = FIRST_CODE + level * trie.width + trie.codes[leaves, level]
    tokens[np.arange(n), width - 1 - levels * np.minimum(count, history)] = BOS
    return Prompts(torch.from_numpy(tokens), torch.from_numpy(tokens != PAD), torch.from_numpy(temperature_N), allowed)


class Decoder:
    """Constrained next-code distributions of a causal LM, with the prompt encoded once for all completions.

    `model` is an unmodified Hugging Face causal LM; `trie` says which codes may follow which.
    """

    def __init__(self, model: PreTrainedModel, trie: Trie) -> None:
        self.model = model
        self.trie = trie

    @property
    def layers(self) -> nn.ModuleList:
        """The model's transformer blocks."""
        return max((one for one in self.model.modules() if isinstance(one, nn.ModuleList)), key=len)

    def start(self, prompts: Prompts) -> Encoded:
        """Encode the prompts once; the cache is shared by every completion that follows."""
        cache = DynamicCache(config=self.model.config)
        position = torch.clamp(prompts.real.long().cumsum(1) - 1, min=0)
        mask = _prompt_mask(prompts.real)
        hidden = self._hidden(prompts.tokens, mask, position, cache)
        return Encoded(self, prompts, cache, hidden[:, -1], position[:, -1] + 1)

    def log_prob(self, prompts: Prompts, leaves: Tensor | Ints) -> Tensor:
        """log pi(item | prompt) of `leaves[N, M]`, shape [N, M], float64, differentiable.

        One forward pass over prompt + M x (L - 1) tokens per context: completions see the prompt
        and themselves, not each other. Items that are not allowed have -inf.
        """
        leaves_NM = np.asarray(leaves)
        n, m = leaves_NM.shape
        trie, levels = self.trie, self.trie.levels
        codes = trie.codes[leaves_NM]  # [N, M, L]
        length, inner = prompts.tokens.shape[1], levels - 1
        prompt_position = torch.clamp(prompts.real.long().cumsum(1) - 1, min=0)
        completion = torch.from_numpy(codes[:, :, :inner] + FIRST_CODE + np.arange(inner) * trie.width).reshape(n, m * inner)
        tokens = torch.cat([prompts.tokens, completion], dim=1)
        position = torch.cat([prompt_position, (prompt_position[:, -1:] + 1 + torch.arange(inner).repeat(m))], dim=1)
        hidden = self._hidden(tokens, _packed_mask(prompts.real, m, inner), position, None)
        at_prompt, at_completion = hidden[:, length - 1 : length], hidden[:, length:].unflatten(1, (m, inner))
        context = np.broadcast_to(np.arange(n)[:, None], (n, m))
        total = torch.zeros((n, m), dtype=torch.float64)
        for level in range(levels):
            state = at_prompt if level == 0 else at_completion[:, :, level - 1]
            node = np.zeros((n, 1), dtype=np.int64) if level == 0 else trie.node_of(level, leaves_NM)
            mask = prompts.allowed.mask(level, context[:, :1] if level == 0 else context, node)
            log_p = self.next_code(state, level, mask, prompts.temperature[:, None])
            picked = torch.from_numpy(codes[:, :, level])[..., None]
            total = total + log_p.expand(n, m, trie.width).gather(2, picked)[..., 0]
        return total

    def sequence_log_prob(self, leaves: Ints, real: NDArray[np.bool_], allowed: Allowed) -> Tensor:
        """log pi of every item of `leaves[N, T]` given the items before it, shape [N, T], float64, differentiable.

        One causal pass: every position of every history is a training example. `real[N, T]` marks the
        items that are there (the rest is padding at the end and gets 0); temperature 1.
        """
        n, length = leaves.shape
        trie, levels = self.trie, self.trie.levels
        codes = trie.codes[leaves]
        body = (codes + FIRST_CODE + np.arange(levels) * trie.width).reshape(n, length * levels)
        tokens = torch.from_numpy(np.concatenate([np.full((n, 1), BOS), body[:, :-1]], axis=1))
        there = torch.from_numpy(np.repeat(real, levels, axis=1))
        position = torch.arange(length * levels).expand(n, -1)
        state = self._hidden(tokens, _prompt_mask(there), position, None).reshape(n, length, levels, -1)
        total = torch.zeros((n, length), dtype=torch.float64)
        context = np.broadcast_to(np.arange(n)[:, None], (n, length))
        for level in range(levels):
            mask = allowed.mask(level, context, trie.node_of(level, leaves))
            log_p = self.next_code(state[:, :, level], level, mask, torch.ones(n, length))
            total = total + log_p.gather(2, torch.from_numpy(codes[:, :, level])[..., None])[..., 0]
        return torch.where(torch.from_numpy(real), total, 0.0)

    def next_code(self, state: Tensor, level: int, mask: NDArray[np.bool_], temperature: Tensor) -> Tensor:
        """log pi over the K codes of `level` from hidden states [..., H], float64; -inf where `mask[..., K]` is false."""
        first = FIRST_CODE + level * self.trie.width
        head: Any = self.model.get_output_embeddings()
        rows = head.weight[first : first + self.trie.width]
        logits = (state @ rows.T).double() / temperature[..., None].double()
        valid = torch.from_numpy(mask)
        dead = ~valid.any(dim=-1, keepdim=True)  # nothing allowed below this prefix: -inf, not 0 / 0
        return torch.log_softmax(logits.masked_fill(~(valid | dead), -torch.inf), dim=-1).masked_fill(~valid, -torch.inf)

    def _hidden(self, tokens: Tensor, mask: Tensor, position: Tensor, cache: DynamicCache | None) -> Tensor:
        body: Any = self.model.base_model
        out = body(input_ids=tokens, attention_mask=mask, position_ids=position, past_key_values=cache, use_cache=cache is not None)
        return out.last_hidden_state


@dataclass
class Encoded:
    """Prompts whose keys and values are cached; beams are appended to the cache level by level."""

    decoder: Decoder
    prompts: Prompts
    cache: DynamicCache
    last: Tensor  # hidden state at the prompt's last token, [N, H]
    next_position: Tensor  # [N]

    def first_code(self) -> Tensor:
        """log pi over the first code, [N, K] float64."""
        n = len(self.prompts)
        mask = self.prompts.allowed.mask(0, np.arange(n), np.zeros(n, dtype=np.int64))
        return self.decoder.next_code(self.last, 0, mask, self.prompts.temperature)

    def extend(self, level: int, node: Ints, code: Ints, ancestors: Tensor | None) -> tuple[Tensor, Tensor]:
        """Feed `code[N, B]` (chosen at `level`, reaching `node[N, B]` at depth level + 1) for B beams.

        `ancestors[N, B, level]` are the cache columns of each beam's earlier codes. Returns log pi
        over the next code [N, B, K] and the beams' cache columns with the new one, [N, B, level + 1].
        """
        n, beams = code.shape
        past = self.cache.get_seq_length()
        own = (past + torch.arange(beams)).expand(n, beams)[..., None]
        columns = own if ancestors is None else torch.cat([ancestors, own], dim=2)
        mask = torch.full((n, beams, past + beams), HIDDEN)
        length = self.prompts.tokens.shape[1]
        mask[:, :, :length] = torch.where(self.prompts.real, 0.0, HIDDEN)[:, None, :]
        mask.scatter_(2, columns, 0.0)
        tokens = torch.from_numpy(code + FIRST_CODE + level * self.decoder.trie.width)
        position = (self.next_position + level)[:, None].expand(n, beams)
        state = self.decoder._hidden(tokens, mask[:, None], position, self.cache)
        allowed = self.prompts.allowed.mask(level + 1, np.broadcast_to(np.arange(n)[:, None], (n, beams)), node)
        return self.decoder.next_code(state, level + 1, allowed, self.prompts.temperature[:, None]), columns

    def forget(self, beams: int) -> None:
        """Drop the last `beams` columns of the cache."""
        self.cache.crop(-beams)


def _prompt_mask(real: Tensor) -> Tensor:
    """Additive causal mask [N, 1, T, T] of left-padded prompts; padding sees itself, so that no row is empty."""
    length = real.shape[1]
    causal = torch.tril(torch.ones(length, length, dtype=torch.bool))
    seen = (causal & real[:, None, :]) | torch.eye(length, dtype=torch.bool)
    return torch.where(seen, 0.0, HIDDEN)[:, None]


def _packed_mask(real: Tensor, completions: int, inner: int) -> Tensor:
    """Additive mask [N, 1, T + M * inner, same]: completions see the prompt and themselves only."""
    n, length = real.shape
    extra = completions * inner
    mask = torch.full((n, 1, length + extra, length + extra), HIDDEN)
    mask[:, :, :length, :length] = _prompt_mask(real)
    if extra:
        mask[:, :, length:, :length] = torch.where(real, 0.0, HIDDEN)[:, None, None, :]
        block = torch.kron(torch.eye(completions), torch.tril(torch.ones(inner, inner)))
        mask[:, :, length:, length:] = torch.where(block > 0, 0.0, HIDDEN)
    return mask
