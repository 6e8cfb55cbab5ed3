"""Token ids: words of the base, markers, circumstances, codes, and items with a token of their own."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Vocabulary:
    """Token ids of a model that speaks semantic IDs of `levels` codes out of `width` each.

    Attributes:
        levels: codes of a semantic ID.
        width: values of a code.
        words: tokens of the base's own vocabulary, ids 0..words-1; 0: a model from scratch, which
            reads no words.
        circumstances: number of tokens of circumstances (`circumstances.Circumstances`), between
            the markers and the codes.
        items: items that have a token of their own, in place of their last code; behind the codes.

    >>> Vocabulary(levels=3, width=32).code(1), Vocabulary(levels=3, width=32, words=1000).bos
    (34, 1001)
    """

    levels: int
    width: int
    words: int = 0
    circumstances: int = 0
    items: int = 0

    @property
    def pad(self) -> int:
        """The token of padding, which no other token attends to."""
        return self.words

    @property
    def bos(self) -> int:
        """The token at the begin of a history."""
        return self.words + 1

    @property
    def title(self) -> int:
        """The token between an item and the words of its title."""
        return self.words + 2

    @property
    def circumstance(self) -> int:
        """The first token of circumstances."""
        return self.words + (3 if self.words else 2)

    def code(self, level: int) -> int:
        """The token of code 0 of this level; that of code k is k further on."""
        return self.circumstance + self.circumstances + level * self.width

    @property
    def item(self) -> int:
        """The token of the first item that has one."""
        return self.code(self.levels)

    def __len__(self) -> int:
        return self.item + self.items
