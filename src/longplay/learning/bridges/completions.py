"""Completions of a language model, as token ids or as text: the slates that they stand for, and
what these are worth."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from longplay.arrays import Float, Int
from longplay.codes.trie import Trie
from longplay.decisions import Contexts
from longplay.errors import DataError
from longplay.index import ItemIndex
from longplay.lake.lake import Lake
from longplay.learning.rollout import EarlyRewards, slot_rewards
from longplay.learning.trainable import Trainable
from longplay.policies.generative.prompts import as_read
from longplay.policies.generative.vocabulary import Vocabulary
from longplay.rewards import Reward

PAD = "<pad>"
_TOKEN = re.compile(r"<([0-9]{1,9}|item):([0-9]{1,9})>")
_TEXT = re.compile(rf"\s*(?:{_TOKEN.pattern}\s*)*(?:{PAD}\s*)*")


@dataclass(frozen=True, eq=False)
class Spelling:
    """How a policy's slates are written: as token ids of its model, and as text.

    A slate of S items is S x L tokens, item after item, code after code. As text, code k of level l
    is `<l:k>`, and the token of an item that has one is `<item:n>`, n being its place among them.
    Padding may follow.

    Attributes:
        trie: the semantic IDs.
        vocabulary: which token stands for what.
        item_token_I: the token that stands for each leaf's last code; null: the code's own.
    """

    trie: Trie
    vocabulary: Vocabulary
    item_token_I: Int | None

    @classmethod
    def of(cls, policy: Trainable) -> Spelling:
        """The spelling of a fitted policy."""
        decoder = policy.decoder
        return cls(decoder.trie, decoder.vocabulary, decoder.item_token_I)

    def tokens(self, leaves_NS: Int) -> Int:
        """The token ids of slates, [N, S x L]."""
        tokens = as_read(self.trie, self.vocabulary, leaves_NS, self.item_token_I)
        return tokens.reshape(len(leaves_NS), -1)

    def slates(self, completions: Sequence[Sequence[int]], slots: int) -> Int:
        """The leaves that completions stand for, [N, slots]; -1 in a whole row whose completion is
        no slate: too long or too short, or with an ID that no item has.

        Args:
            completions: N lists of token ids; padding at their end is left out.
            slots: items per slate.
        """
        length = slots * self.trie.levels
        tokens = np.full((len(completions), length), -1, dtype=np.int64)
        for row, completion in enumerate(completions):
            ids = list(completion)
            while ids and ids[-1] == self.vocabulary.pad:
                ids.pop()
            if len(ids) == length:
                tokens[row] = ids
        leaves_NS = self._leaves(tokens.reshape(len(completions), slots, self.trie.levels))
        return np.where((leaves_NS >= 0).all(axis=1, keepdims=True), leaves_NS, -1)

    def _leaves(self, tokens: Int) -> Int:
        """The leaf that each L tokens [..., L] stand for; -1 where they are no item's."""
        first = np.array([self.vocabulary.code(level) for level in range(self.trie.levels)])
        codes = tokens - first
        if self.item_token_I is not None:
            order = np.argsort(self.item_token_I, kind="stable")
            place = np.searchsorted(self.item_token_I[order], tokens[..., -1])
            leaf = order[np.minimum(place, len(order) - 1)]
            is_items_own = (tokens[..., -1] >= self.vocabulary.item) & (
                self.item_token_I[leaf] == tokens[..., -1]
            )
            codes[..., -1] = np.where(is_items_own, self.trie.codes[leaf, -1], codes[..., -1])
        leaves = self.trie.find(codes)
        if self.item_token_I is None:
            return leaves
        # one way of writing each item: that which the model was trained on
        written = as_read(self.trie, self.vocabulary, np.maximum(leaves, 0), self.item_token_I)
        return np.where((written == tokens).all(axis=-1), leaves, -1)

    def parsed(self, text: str) -> list[int]:
        """The token ids of a completion's text; empty where it is anything but codes."""
        if _TEXT.fullmatch(text) is None:
            return []
        vocabulary = self.vocabulary
        first = {str(level): vocabulary.code(level) for level in range(vocabulary.levels)}
        first["item"] = vocabulary.item
        count = dict.fromkeys(first, vocabulary.width) | {"item": vocabulary.items}
        # -1, which is no token, stands for what there is not
        return [
            first[kind] + int(number) if int(number) < count.get(kind, 0) else -1
            for kind, number in _TOKEN.findall(text)
        ]

    @property
    def names(self) -> list[str]:
        """What each token is called, by id. Words of a base are only numbered: texts of a trainer
        hold codes, and its prompts are tokenised by the policy."""
        vocabulary = self.vocabulary
        markers = [PAD, "<bos>", "<title>"][: vocabulary.circumstance - vocabulary.words]
        return [
            *(f"<word:{number}>" for number in range(vocabulary.words)),
            *markers,
            *(f"<circumstance:{number}>" for number in range(vocabulary.circumstances)),
            *(
                f"<{level}:{code}>"
                for level in range(vocabulary.levels)
                for code in range(vocabulary.width)
            ),
            *(f"<item:{number}>" for number in range(vocabulary.items)),
        ]

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """A tokenizer whose ids are the model's and whose words are `names`, for trainers that need
        one. Padding also ends a completion."""
        numbered = {name: number for number, name in enumerate(self.names)}
        words = Tokenizer(models.WordLevel(numbered, unk_token=PAD))
        words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # type: ignore[assignment]
        return PreTrainedTokenizerFast(
            tokenizer_object=words, pad_token=PAD, eos_token=PAD, padding_side="left"
        )


def prompt_rows(policy: Trainable, contexts: Contexts) -> list[dict[str, str]]:
    """A data set for a trainer: one row per context, with its `prompt` as text (`Spelling.names`)
    and its `context_id`, by which rewards find it again."""
    names = np.array(Spelling.of(policy).names)
    prompts = policy.prompts(contexts)
    texts = [
        " ".join(names[tokens[real].numpy()])
        for tokens, real in zip(prompts.tokens, prompts.real, strict=True)
    ]
    return [
        {"prompt": text, "context_id": name}
        for text, name in zip(texts, contexts.frame["context_id"].to_list(), strict=True)
    ]


def context_rows(contexts: Contexts, context_ids: Sequence[object]) -> Int:
    """The row of each context, [N].

    Raises:
        DataError: a context that is not there, or contexts with one id.
    """
    index = ItemIndex(contexts.frame["context_id"])
    asked = pl.Series("context_id", context_ids, dtype=pl.String, strict=False)
    row_N = index.rows(asked)
    if (row_N < 0).any():
        unknown = asked[int(np.flatnonzero(row_N < 0)[0])]
        raise DataError(
            f"bridge: context {unknown!r} is not among the {len(contexts):,} contexts that the "
            "reward was made with; make the data set of the same ones (prompt_rows)"
        )
    return row_N


def slate_worth(
    policy: Trainable,
    reward: Reward,
    early: EarlyRewards,
    lake: Lake,
    contexts: Contexts,
    leaves_NS: Int,
) -> Float:
    """The cautious value of showing each slate, summed over its slots, [N]; NaN of a slate that the
    policy cannot show: not whole, an item twice, or one that is excluded or not available.

    Args:
        policy: whose leaves these are.
        reward: objectives and caution; its guardrails are not part of it.
        early: one early reward, or one per signal.
        lake: the past, as of which items are familiar.
        contexts: N of them.
        leaves_NS: a slate each; -1: none.

    Raises:
        DataError: values that are not finite.
    """
    in_order_NS = np.sort(leaves_NS, axis=1)
    row_N1 = np.arange(len(contexts))[:, None]
    is_slate_N = (
        (leaves_NS >= 0).all(axis=1)
        & (in_order_NS[:, 1:] != in_order_NS[:, :-1]).all(axis=1)
        & policy.allowed(contexts).allows(row_N1, np.maximum(leaves_NS, 0)).all(axis=1)
    )
    worth_N = np.full(len(contexts), np.nan)
    valid = np.flatnonzero(is_slate_N)
    if len(valid):
        value_N1S = slot_rewards(
            policy, reward, early, lake, contexts.take(valid), leaves_NS[valid][:, None]
        )
        worth_N[valid] = value_N1S[:, 0].sum(axis=1)
    return worth_N
