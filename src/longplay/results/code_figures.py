"""Result of the stage `codes`: how well semantic IDs describe the items."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from longplay.results.record import StageResult


@dataclass(frozen=True)
class VectorFigures:
    """How the vectors of items were built.

    Attributes:
        behaviour: the way from who shares items, or what follows what.
        words: the way from their descriptions.
        words_weight: of words beside behaviour.
        dim: numbers per item.
    """

    behaviour: str
    words: str
    words_weight: float
    dim: int


@dataclass(frozen=True)
class Shelf:
    """Items that share their first two codes.

    Attributes:
        prefix: the codes.
        items: how many.
        titles: of some of them.
    """

    prefix: tuple[int, ...]
    items: int
    titles: tuple[str, ...]


@dataclass(frozen=True)
class Purity:
    """Share of items that carry the most frequent label of their first codes, by the number of
    codes.

    Attributes:
        found: of the labels.
        shuffled: of the same labels shuffled.
    """

    found: tuple[float, ...]
    shuffled: tuple[float, ...]


@dataclass(frozen=True)
class CodeFigures:
    """How well semantic IDs describe the items they were fitted on; see `codes.fit_codebook`.

    Attributes:
        items: items with an ID.
        levels: codes per ID.
        width: codes to choose from per level.
        reconstruction: share of the vectors' variance that the codes explain, 0..1.
        usage: share of codes in use, by level.
        collisions: share of items whose nearest ID was taken.
        moved: share of items that did not get their nearest last code.
        largest_prefix: items under the fullest first code.
    """

    items: int
    levels: int
    width: int
    reconstruction: float
    usage: tuple[float, ...]
    collisions: float
    moved: float
    largest_prefix: int


@dataclass(frozen=True)
class CodesResult(CodeFigures, StageResult, stage="codes"):
    """Semantic IDs, the vectors behind them, and the items that they group.

    Attributes:
        version: of the trie of valid IDs.
        vectors: how the items' vectors were built.
        shelves: the largest groups of items that share their first two codes.
        purity: how pure prefixes are, by kind of label: creator or tag.
    """

    version: str
    vectors: VectorFigures
    shelves: tuple[Shelf, ...]
    purity: Mapping[str, Purity]
