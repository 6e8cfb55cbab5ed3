"""A Hugging Face causal language model that speaks semantic IDs, under the trie.

The policy is the renormalised one: pi(code | prefix) is a softmax over the *valid children* of the
prefix, at the context's temperature, in sampling, training, logging and evaluation alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    DynamicCache,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from transformers.utils import logging as transformers_logging

from longplay.arrays import Int
from longplay.codes.trie import Allowed, Trie
from longplay.errors import ConfigError
from longplay.policies.generative.fast.compiled import Compiled
from longplay.policies.generative.fast.kernels import inference_kernels
from longplay.policies.generative.fast.passes import HIDDEN, passable, states_of
from longplay.policies.generative.prompts import Prompts, Texts, Windows, as_read
from longplay.policies.generative.vocabulary import Vocabulary

TOGETHER = 16  # states at one node whose logits are computed in one product


@dataclass(frozen=True)
class Size:
    """How large a language model from scratch is, and how much it reads.

    Attributes:
        hidden: width of its states, a multiple of 2 x heads.
        layers: transformer blocks.
        heads: of attention.
        inner: width between the two maps of a block's feed-forward part.
        history: items of a listener's past that it reads.
    """

    hidden: int
    layers: int
    heads: int
    inner: int
    history: int

    def __post_init__(self) -> None:
        if min(
            self.hidden, self.layers, self.heads, self.inner, self.history
        ) < 1 or self.hidden % (2 * self.heads):
            raise ConfigError(
                f"{self} given, expected positive numbers, hidden a multiple of 2 x heads"
            )


SCALES = {
    "tiny": Size(hidden=64, layers=2, heads=4, inner=128, history=19),
    "small": Size(hidden=256, layers=4, heads=4, inner=768, history=64),
}


def size_of(scale: str | Size) -> Size:
    """The size of this name; a `Size` is returned as it is.

    Raises:
        ConfigError: no size of that name.
    """
    if isinstance(scale, Size):
        return scale
    if scale not in SCALES:
        raise ConfigError(
            f"Generative: scale={scale!r} given, expected one of {', '.join(SCALES)}, or a Size"
        )
    return SCALES[scale]


def new_model(
    scale: str | Size, levels: int, width: int, seed: int, circumstances: int = 0, items: int = 0
) -> PreTrainedModel:
    """A causal LM from scratch (Qwen3 architecture) with tokens for semantic-ID codes,
    circumstances and items.

    `tiny` has about 80 thousand parameters, `small` about 3.4 million. Weights are drawn from
    `seed`.
    """
    size = size_of(scale)
    vocabulary = Vocabulary(levels, width, circumstances=circumstances, items=items)
    config = Qwen3Config(
        vocab_size=len(vocabulary),
        hidden_size=size.hidden,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=max(size.heads // 2, 1),
        head_dim=size.hidden // size.heads,
        intermediate_size=size.inner,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        attention_dropout=0.0,
        pad_token_id=vocabulary.pad,
        bos_token_id=vocabulary.bos,
        eos_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):  # no global generator: the caller's is left as it was
        torch.manual_seed(seed)
        model = Qwen3ForCausalLM(config)
    return model.eval()


transformers_logging.disable_progress_bar()  # callers show progress themselves


def save_model(model: PreTrainedModel, folder: Path) -> None:
    """Write weights (safetensors) and config to `folder`."""
    model.save_pretrained(folder)


def load_model(folder: Path) -> PreTrainedModel:
    """Read a model folder, in float32; safetensors only, no remote code."""
    return AutoModelForCausalLM.from_pretrained(
        folder,
        local_files_only=True,
        use_safetensors=True,
        trust_remote_code=False,
        dtype=torch.float32,
    ).eval()


@dataclass(frozen=True)
class CodeLaw:
    """Laws of the next code at some nodes of one level.

    Attributes:
        node: the nodes, [N, M]; [N, 1] at the root.
        log_p: log-probabilities of the K codes below each, [N, M, K]; -inf where none is allowed.
    """

    node: Int
    log_p: Tensor


def of_codes(log_p: Sequence[Tensor], codes: Tensor) -> Tensor:
    """Log-probabilities of the codes of items, [N, M, L].

    Args:
        log_p: per level, of all codes, [N, M, K] or [N, 1, K].
        codes: of the items, [N, M, L].
    """
    shape = *codes.shape[:2], log_p[0].shape[-1]
    return torch.cat(
        [
            of_level.expand(shape).gather(2, codes[:, :, level, None])
            for level, of_level in enumerate(log_p)
        ],
        dim=2,
    )


class Decoder:
    """Constrained next-code distributions of a causal LM, with the prompt encoded once for all
    completions.

    Attributes:
        model: an unmodified Hugging Face causal LM.
        trie: which codes may follow which.
        vocabulary: which token is which; default from scratch.
        rows: the embeddings of the tokens beyond the base's words where these are being trained and
            the model's own are not, [tokens, H].
        compiled: what encodes prompts where nothing is being trained, in place of the model
            (`compiled.Compiled`).
        item_token_I: the token that stands for each leaf's last code, read and said in its place;
            default that code.
        user_map: what reads users (`known_users.KnownUsers.map`); null where nothing does.
        tokens_read: how many tokens it has been given with gradients on: the pace of a training.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        trie: Trie,
        vocabulary: Vocabulary | None = None,
        rows: nn.Parameter | None = None,
        item_token_I: Int | None = None,
        compiled: Compiled | None = None,
        user_map: nn.Linear | None = None,
    ) -> None:
        self.model = model
        self.trie = trie
        self.vocabulary = vocabulary or Vocabulary(trie.levels, trie.width)
        self.rows = rows
        self.item_token_I = item_token_I
        self.compiled = compiled
        self.user_map = user_map
        self.tokens_read = 0

    def trainable(self) -> list[nn.Parameter]:
        """The parameters that training changes: all weights that require a gradient, tied ones
        once, `rows` and the map of users."""
        return [
            *(parameter for parameter in self.model.parameters() if parameter.requires_grad),
            *([] if self.rows is None else [self.rows]),
            *([] if self.user_map is None else self.user_map.parameters()),
        ]

    @property
    def layers(self) -> nn.ModuleList:
        """The model's transformer blocks."""
        return max(
            (module for module in self.model.modules() if isinstance(module, nn.ModuleList)),
            key=len,
        )

    def start(self, prompts: Prompts) -> Encoded:
        """Encode the prompts once; the cache is shared by every completion that follows.

        Padding is turned to the end first: what is causal then never sees it, so that no mask is
        needed and half of the attention is skipped.
        """
        n, length = prompts.tokens.shape
        count = prompts.real.sum(1)
        place = torch.arange(length)
        tokens = prompts.tokens.gather(1, (place + length - count[:, None]) % length)
        cache = DynamicCache(config=self.model.config)
        position = place.expand(n, length)
        if self.compiled is not None and torch.is_inference_mode_enabled():
            last = self.compiled(tokens, position, cache, count - 1)
        else:
            last = self._hidden(tokens, None, position, cache, count - 1, prompts.users)[:, 0]
        return Encoded(self, prompts, cache, last, count)

    def log_prob(self, prompts: Prompts, leaves: Tensor | Int) -> Tensor:
        """log pi(item | prompt) of `leaves[N, M]`, shape [N, M], float64, differentiable; -inf for
        items that are not allowed. The sum of `code_log_prob`."""
        return self.code_log_prob(prompts, leaves).sum(dim=2)

    def code_log_prob(self, prompts: Prompts, leaves: Tensor | Int) -> Tensor:
        """log pi of each code of `leaves[N, M]` given the codes before it, shape [N, M, L],
        float64, differentiable; -inf for codes from which no allowed item can be reached. See
        `code_laws` for its cost."""
        leaves_NM = np.asarray(leaves)
        return of_codes(
            [law.log_p for law in self.code_laws(prompts, leaves_NM)],
            torch.from_numpy(self.trie.codes[leaves_NM]),
        )

    def code_laws(self, prompts: Prompts, leaves_NM: Int) -> list[CodeLaw]:
        """The law of the next code at every prefix of `leaves_NM`, one per level, differentiable.

        One forward pass over prompt + M x (L - 1) tokens per context, M x (L - 2) of whole items:
        completions see the prompt and themselves, not each other. The root, which all share, has
        one place: its law is [N, 1, K], those of the other levels are [N, M, K].
        """
        n, m = leaves_NM.shape
        trie = self.trie
        levels = trie.levels
        codes = trie.codes[leaves_NM]  # [N, M, L]
        length = prompts.tokens.shape[1]
        # items with tokens are predicted from the prompt's state; no state after a prefix is needed
        inner = max(levels - 1 - self.has_item_tokens(levels - 1), 0)
        prompt_position = torch.clamp(prompts.real.long().cumsum(1) - 1, min=0)
        first = np.array([self.vocabulary.code(level) for level in range(inner)], dtype=np.int64)
        completion = torch.from_numpy(codes[:, :, :inner] + first).reshape(n, m * inner)
        tokens = torch.cat([prompts.tokens, completion], dim=1)
        position = torch.cat(
            [prompt_position, (prompt_position[:, -1:] + 1 + torch.arange(inner).repeat(m))], dim=1
        )
        mask = _packed_mask(prompts.real, m, inner)
        hidden = self._hidden(tokens, mask, position, None, users=prompts.users)
        at_prompt = hidden[:, length - 1 : length]
        at_completion = hidden[:, length:].unflatten(1, (m, inner))
        context = np.broadcast_to(np.arange(n)[:, None], (n, m))
        laws = []
        for level in range(levels):
            if level == 0:
                state = at_prompt
            elif self.has_item_tokens(level):
                state = at_prompt.expand(n, m, -1)
            else:
                state = at_completion[:, :, level - 1]
            node = (
                np.zeros((n, 1), dtype=np.int64) if level == 0 else trie.node_of(level, leaves_NM)
            )
            mask = prompts.allowed.mask(level, context[:, :1] if level == 0 else context, node)
            log_p = self.next_code(
                state,
                level,
                np.broadcast_to(node, state.shape[:-1]),
                mask,
                prompts.temperature[:, None],
            )
            laws.append(CodeLaw(node, log_p))
        return laws

    def sequence_log_prob(
        self, windows: Windows, allowed: Allowed, texts: Texts | None = None
    ) -> Tensor:
        """log pi of every item of `windows` given the text and the items before it, shape [N, T],
        float64, differentiable.

        One causal pass: every position of every history is a training example. Items that are not
        there get 0; temperature 1.
        """
        leaves = windows.leaves
        n, length = leaves.shape
        ahead = windows.leading.shape[2]
        trie = self.trie
        levels = trie.levels
        vocabulary = self.vocabulary
        texts = texts or Texts.none(n)
        codes = trie.codes[leaves]
        block = np.concatenate(
            [
                vocabulary.circumstance + windows.leading,
                as_read(trie, vocabulary, leaves, self.item_token_I),
                vocabulary.circumstance + windows.trailing,
            ],
            axis=2,
        )
        stride = block.shape[2]
        body = np.concatenate(
            [
                np.full((n, 1), vocabulary.bos),
                block.reshape(n, -1)[:, : (length - 1) * stride + ahead + levels - 1],
            ],
            axis=1,
        )
        tokens = np.full(
            (n, int(texts.count.max(initial=0)) + body.shape[1]), vocabulary.pad, dtype=np.int64
        )
        texts.write(tokens, np.zeros(n, dtype=np.int64))
        np.put_along_axis(tokens, texts.count[:, None] + np.arange(body.shape[1]), body, axis=1)
        state = self._hidden(
            torch.from_numpy(tokens), None, torch.arange(tokens.shape[1]).expand(n, -1), None
        )
        # the token of each item from whose state each of its codes is predicted
        predicting_token = (np.arange(length) * stride + ahead)[:, None] + np.arange(levels)
        place = torch.from_numpy(texts.count[:, None] + predicting_token.ravel())
        state = state.gather(1, place[..., None].expand(-1, -1, state.shape[2])).reshape(
            n, length, levels, -1
        )
        total = torch.zeros((n, length), dtype=torch.float64)
        context = np.broadcast_to(np.arange(n)[:, None], (n, length))
        for level in range(levels):
            node = trie.node_of(level, leaves)
            predicting_level = 0 if self.has_item_tokens(level) else level
            log_p = self.next_code(
                state[:, :, predicting_level],
                level,
                node,
                allowed.mask(level, context, node),
                torch.ones(n, length),
            )
            total = total + log_p.gather(2, torch.from_numpy(codes[:, :, level])[..., None])[..., 0]
        return torch.where(torch.from_numpy(windows.real), total, 0.0)

    def text_log_prob(self, tokens: Tensor, first: int, count: Tensor) -> Tensor:
        """Log-probability of each word of a text given all tokens before it, over the base's
        vocabulary, [N, T - first]. The text of row n is `tokens[n, first : first + count[n]]`;
        behind it stand zeros."""
        n, length = tokens.shape
        state = self._hidden(tokens, None, torch.arange(length).expand(n, -1), None)[
            :, first - 1 : -1
        ]
        logits = (state @ self._output_rows[: self.vocabulary.words].T).float()
        target = torch.clamp(tokens[:, first:], max=self.vocabulary.words - 1)
        log_p = torch.log_softmax(logits, dim=-1).gather(2, target[..., None])[..., 0]
        return torch.where(torch.arange(length - first) < count[:, None], log_p, 0.0)

    def has_item_tokens(self, level: int) -> bool:
        """Whether items have tokens of their own at this level. They are predicted from the state
        of the prompt, whatever the prefix.

        What comes next is in the prompt's state. One behind the prefix would have to find it again,
        at the cost of a pass, and does worse (LOG.md).
        """
        return self.item_token_I is not None and level + 1 == self.trie.levels

    def next_code(
        self, state: Tensor, level: int, node: Int, mask: NDArray[np.bool_], temperature: Tensor
    ) -> Tensor:
        """log pi over the K codes below `node[...]` (at depth `level`) from hidden states [..., H],
        float64; -inf where `mask[..., K]` is false."""
        if self.item_token_I is not None and self.has_item_tokens(level):
            logits = self._item_logits(state, node, self.item_token_I)
        else:
            rows = self._code_rows(level)
            logits = state.to(rows.dtype) @ rows.T
        logits = logits.double() / temperature[..., None].double()
        valid = torch.from_numpy(mask)
        # nothing is allowed below this prefix: -inf in place of 0 / 0
        dead = ~valid.any(dim=-1, keepdim=True)
        return torch.log_softmax(
            logits.masked_fill(~(valid | dead), -torch.inf), dim=-1
        ).masked_fill(~valid, -torch.inf)

    def _code_rows(self, level: int) -> Tensor:
        """The output embeddings of the codes of a level, [K, H]."""
        first = self.vocabulary.code(level)
        if self.rows is not None:
            first -= self.vocabulary.words
            return self.rows[first : first + self.trie.width]
        return self._output_rows[first : first + self.trie.width]

    @property
    def _output_rows(self) -> Tensor:
        """The model's own output embeddings, [tokens, H]."""
        head: Any = self.model.get_output_embeddings()
        return head.weight

    def _item_logits(self, state: Tensor, node: Int, item_token: Int) -> Tensor:
        """Logits [..., K] of the items below `node[...]` from states [..., H], by the output
        embeddings of the items' tokens.

        States at one node are multiplied by its items together, some at a time: the cost does not
        depend on the catalogue.
        """
        trie = self.trie
        order = np.argsort(node, axis=None, kind="stable")
        at = node.ravel()[order]
        _, start, count = np.unique(at, return_index=True, return_counts=True)
        place = np.arange(len(at)) - np.repeat(start, count)  # among the states at its node
        group_size = min(TOGETHER, int(count.max(initial=1)))
        opens = place % group_size == 0  # a group of at most `group_size` states at one node
        place_in_group = torch.from_numpy(place % group_size)
        group = torch.from_numpy(np.cumsum(opens) - 1)
        first = trie.ptr[-1][at[opens], None]
        stop = trie.ptr[-1][at[opens] + 1, None]
        child = first + np.arange(int((stop - first).max(initial=0)))
        leaf = np.minimum(child, len(trie) - 1)
        # [groups, children]; of none, one behind the last
        code = torch.from_numpy(np.where(child < stop, trie.code[-1][leaf], trie.width))
        rows = nn.functional.embedding(torch.from_numpy(item_token[leaf]), self._output_rows)
        grouped = state.new_zeros(len(leaf), group_size, state.shape[-1])
        grouped[group, place_in_group] = state.flatten(0, -2)[torch.from_numpy(order)]
        logits = grouped.to(rows.dtype) @ rows.mT
        spread = logits.new_zeros(len(leaf), group_size, trie.width + 1).scatter(
            2, code[:, None].expand(-1, group_size, -1), logits
        )[..., : trie.width]
        answer = spread[group, place_in_group][torch.from_numpy(np.argsort(order))]
        return answer.reshape(*node.shape, trie.width)

    def _hidden(
        self,
        tokens: Tensor,
        mask: Tensor | None,
        position: Tensor,
        cache: DynamicCache | None,
        at: Tensor | None = None,
        users: Tensor | None = None,
    ) -> Tensor:
        """Hidden states [N, T, H] of `tokens[N, T]`; with `at[N]`, of one token per row, [N, 1, H].
        Keys and values of all tokens are added to the cache. `users[N, K]` are read with the first
        token of a history."""
        body: Any = self.model.base_model
        if torch.is_grad_enabled():
            self.tokens_read += tokens.numel()
        if torch.is_inference_mode_enabled() and passable(body):
            return states_of(body, self._embedded(tokens, users), mask, position, cache, at)
        if self.rows is None and users is None:
            inputs = {"input_ids": tokens}
        else:
            inputs = {"inputs_embeds": self._embedded(tokens, users)}
        with inference_kernels(tokens.numel()):
            out = body(
                **inputs,
                attention_mask=mask,
                position_ids=position,
                past_key_values=cache,
                use_cache=cache is not None,
            )
        hidden = out.last_hidden_state
        return hidden if at is None else hidden[torch.arange(len(tokens)), at][:, None]

    def _embedded(self, tokens: Tensor, users: Tensor | None) -> Tensor:
        """Embeddings [N, T, H] of tokens: those of the model, and `rows` for tokens beyond the
        base's words where these are trained separately. What is known of a user is added to the
        token that begins the history."""
        embed = self.model.get_input_embeddings()
        if self.rows is None:
            embedded = embed(tokens)
        else:
            row = tokens - self.vocabulary.words
            words = embed(torch.clamp(tokens, max=self.vocabulary.words - 1))
            embedded = torch.where(
                (row >= 0)[..., None], self.rows[torch.clamp(row, min=0)].to(words.dtype), words
            )
        if users is None or self.user_map is None:
            return embedded
        begins = (tokens == self.vocabulary.bos)[..., None]
        return embedded + begins * self.user_map(users)[:, None].to(embedded.dtype)


@dataclass
class Encoded:
    """Prompts whose keys and values are cached; beams are appended to the cache level by level."""

    decoder: Decoder
    prompts: Prompts
    cache: DynamicCache
    last: Tensor  # hidden state at the prompt's last token, [N, H]
    count: Tensor  # tokens of each prompt, [N]: what comes next has that position

    def first_code(self) -> Tensor:
        """log pi over the first code, [N, K] float64."""
        n = len(self.prompts)
        root = np.zeros(n, dtype=np.int64)
        return self.decoder.next_code(
            self.last,
            0,
            root,
            self.prompts.allowed.mask(0, np.arange(n), root),
            self.prompts.temperature,
        )

    def extend(
        self, level: int, node: Int, code: Int, ancestors: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Feed `code[N, B]` (chosen at `level`, reaching `node[N, B]` at depth level + 1) for B
        beams.

        `ancestors[N, B, level]` are the cache columns of each beam's earlier codes. Returns log pi
        over the next code [N, B, K] and the beams' cache columns with the new one, [N, B, level +
        1]; none, [N, B, 0], if the next code is the last, when nothing is kept.
        """
        n, beams = code.shape
        allowed = self.prompts.allowed.mask(
            level + 1, np.broadcast_to(np.arange(n)[:, None], (n, beams)), node
        )
        if level + 2 == self.decoder.trie.levels:
            return self._last_code(level, node, code, ancestors, allowed), torch.zeros(
                (n, beams, 0), dtype=torch.int64
            )
        state, columns = self._feed(level, code, ancestors)
        return self.decoder.next_code(
            state, level + 1, node, allowed, self.prompts.temperature[:, None]
        ), columns

    def _last_code(
        self,
        level: int,
        node: Int,
        code: Int,
        ancestors: Tensor | None,
        allowed: NDArray[np.bool_],
    ) -> Tensor:
        """log pi over the last code, [N, B, K]. A code that is the only one allowed is certain, and
        items with tokens need no pass; the model computes the rest."""
        log_p = torch.where(torch.from_numpy(allowed), 0.0, -torch.inf).double()
        several = allowed.sum(axis=2) > 1
        undecided = int(several.sum(axis=1).max(initial=0))
        if undecided == 0:
            return log_p
        beam = np.argsort(~several, axis=1, kind="stable")[:, :undecided]
        row = np.arange(len(beam))[:, None]
        if self.decoder.has_item_tokens(level + 1):
            state = self.last[:, None].expand(-1, undecided, -1)
        else:
            state, _ = self._feed(
                level, code[row, beam], None if ancestors is None else ancestors[row, beam]
            )
            self.cache.crop(-undecided)
        log_p[row, beam] = self.decoder.next_code(
            state, level + 1, node[row, beam], allowed[row, beam], self.prompts.temperature[:, None]
        )
        return log_p

    def _feed(self, level: int, code: Int, ancestors: Tensor | None) -> tuple[Tensor, Tensor]:
        """Hidden states [N, B, H] after `code[N, B]` of `level`, and the cache columns of each
        beam, [N, B, level + 1]: those of its ancestors, then its own."""
        n, beams = code.shape
        past = self.cache.get_seq_length()
        length = self.prompts.tokens.shape[1]
        new_column = (past + torch.arange(beams)).expand(n, beams)[..., None]
        columns = new_column if ancestors is None else torch.cat([ancestors, new_column], dim=2)
        mask = torch.full((n, beams, past + beams), HIDDEN)
        mask[:, :, :length] = torch.where(torch.arange(length) < self.count[:, None], 0.0, HIDDEN)[
            :, None, :
        ]
        mask.scatter_(2, columns, 0.0)
        tokens = torch.from_numpy(code + self.decoder.vocabulary.code(level))
        position = (self.count + level)[:, None].expand(n, beams)
        return self.decoder._hidden(tokens, mask[:, None], position, self.cache), columns


def _prompt_mask(real: Tensor) -> Tensor:
    """Additive causal mask [N, 1, T, T] of left-padded prompts. Padding attends to itself, so that
    no row is empty."""
    length = real.shape[1]
    causal = torch.tril(torch.ones(length, length, dtype=torch.bool))
    seen = (causal & real[:, None, :]) | torch.eye(length, dtype=torch.bool)
    return torch.where(seen, 0.0, HIDDEN)[:, None]


def _packed_mask(real: Tensor, completions: int, inner: int) -> Tensor:
    """Additive mask [N, 1, T + M * inner, T + M * inner]: a completion attends to the prompt and to
    itself, not to other completions."""
    n, length = real.shape
    extra = completions * inner
    mask = torch.full((n, 1, length + extra, length + extra), HIDDEN)
    mask[:, :, :length, :length] = _prompt_mask(real)
    if extra:
        mask[:, :, length:, :length] = torch.where(real, 0.0, HIDDEN)[:, None, None, :]
        block = torch.kron(torch.eye(completions), torch.tril(torch.ones(inner, inner)))
        mask[:, :, length:, length:] = torch.where(block > 0, 0.0, HIDDEN)
    return mask
