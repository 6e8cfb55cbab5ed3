"""Text as tokens for a pretrained base: prompts and titles, kept apart from semantic IDs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from transformers import AutoTokenizer

from longplay.codes.text import TITLE_MOST, clean, cleaned
from longplay.index import ItemIndex
from longplay.policies.generative.prompts import Texts

PROMPT_MOST = 400  # characters of a prompt
TOKENS_MOST = 48  # tokens of a prompt or a description


@dataclass(frozen=True, eq=False)
class Words:
    """The tokenizer of a base. Texts become tokens without special ones, and no more than
    allowed."""

    tokenizer: Any

    @cached_property
    def special(self) -> frozenset[int]:
        """Ids that no text may produce: special tokens, and tokens added to the tokenizer's
        model."""
        return frozenset(self.tokenizer.all_special_ids) | frozenset(
            self.tokenizer.added_tokens_decoder
        )

    @classmethod
    def load(cls, folder: Path) -> Words:
        """The tokenizer of a model folder; no remote code."""
        return cls(
            AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        )

    def save(self, folder: Path) -> None:
        """Write the tokenizer beside its model."""
        self.tokenizer.save_pretrained(folder)

    def texts(self, texts: Sequence[str | None], most: int = TOKENS_MOST) -> Texts:
        """Tokens of each text, cleaned by `codes.text.clean`, at most `most` of them; null gives
        none.

        `split_special_tokens` keeps special tokens from being looked for; where the tokenizer's own
        model finds one as a piece, it is left out.
        """
        shown = cleaned(texts, PROMPT_MOST).to_list()
        token_lists = self.tokenizer(
            shown,
            add_special_tokens=False,
            split_special_tokens=True,
            truncation=True,
            max_length=most,
        )["input_ids"]
        return Texts.of(
            [[token for token in text if token not in self.special] for text in token_lists]
        )


@dataclass(frozen=True)
class Described:
    """The words that describe each leaf of a trie: title, text and tags; empty where there are
    none.

    `titles`, `texts`: length I; `tags`: I lists.
    """

    titles: list[str]
    texts: list[str]
    tags: list[list[str]]

    @classmethod
    def of(cls, items: pl.DataFrame, index: ItemIndex) -> Described:
        """The descriptions of the lake's items, in the order of `index`."""
        rows = pl.DataFrame({"item_id": index.ids}).join(
            items.select("item_id", "title", "text", "tags"),
            on="item_id",
            how="left",
            maintain_order="left",
        )
        titles = cleaned(rows["title"], TITLE_MOST).to_list()
        texts = cleaned(rows["text"], PROMPT_MOST).to_list()
        return cls(
            titles,
            texts,
            [[clean(tag, TITLE_MOST) for tag in tags or []] for tags in rows["tags"].to_list()],
        )

    def words(self, leaf: int) -> str:
        """The title, text and tags of an item in one string."""
        return " ".join(
            part
            for part in (self.titles[leaf], self.texts[leaf], " ".join(self.tags[leaf]))
            if part
        )

    def some(self, leaf: int, rng: np.random.Generator) -> str:
        """A random request for the item: its title, its text, or some of its tags in any order;
        empty where it has no description."""
        tags = self.tags[leaf]
        chosen = []
        if tags:
            shuffled = rng.permutation(len(tags))
            chosen = [tags[place] for place in shuffled[: 1 + int(rng.integers(len(tags)))]]
        ways = [
            way
            for way in (self.titles[leaf], self.texts[leaf], " ".join(chosen), " ".join(chosen))
            if way
        ]
        return ways[int(rng.integers(len(ways)))] if ways else ""
