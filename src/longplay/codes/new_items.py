"""The catalogue grows after the codes were fitted: where its new items belong among them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from longplay.codes.codebook import Codebook
from longplay.codes.vectors import WordSpace
from longplay.errors import DataError
from longplay.ids import ids_of
from longplay.index import ItemIndex
from longplay.lake.known import as_matrix
from longplay.lake.schema import DTYPES

WORDS_DIM = 16  # columns of a description's words
RIDGE = 1.0  # penalty on weights of words, whose vectors have unit length, and of known vectors
CREATOR_DOUBT = 0.5  # a creator's own items count n / (n + this) against what words say
LEARNED_FROM = 50_000  # items, at most, from which the weights are learned
DESCRIPTION = ("creator_id", "title", "text", "tags", "vector")


def with_catalogue(codebook: Codebook, items: pl.DataFrame) -> Codebook:
    """The codebook over a catalogue as it is now: every item has a code, and those that can be
    shown are available.

    No existing code changes. New items get codes in the order of `added_at`, so one night after
    another comes to the same as all at once (as long as the descriptions of older items stay as
    they are). Items of the codebook that the catalogue lacks are not available.

    Args:
        codebook: items and their semantic IDs.
        items: the catalogue, as `lake.items` or `World.items`: column item_id; default of
            available: true; creator_id, title, text, tags and vector are read where they are there.

    Returns:
        The same object where nothing changed.

    Raises:
        DataError: the catalogue holds none of the codebook's items or an item twice, the codebook
            has no centres, or no semantic ID is free.
    """
    ids = ids_of(items["item_id"], "item_id")
    if doubled := ids.filter(ids.is_duplicated()).unique().sort().to_list():
        raise DataError(
            f"codes: {len(doubled):,} items occur twice in the catalogue, first {doubled[0]!r}; "
            "give one description of each, as lake.items has it"
        )
    leaves = codebook.index.rows(ids)
    is_known = leaves >= 0
    if not is_known.any():
        raise DataError(
            f"codes: none of the codebook's {len(codebook.items):,} items is among the "
            f"{items.height:,} of this catalogue; give all items of the service, older ones too"
        )
    if "available" in items.columns:
        is_available = items["available"].to_numpy().astype(bool)
    else:
        is_available = np.ones(items.height, dtype=bool)
    if not is_known.all():
        of_new = items.with_columns(is_available=pl.Series(is_available)).filter(
            pl.Series(~is_known)
        )
        if "added_at" in of_new.columns:
            of_new = of_new.sort("added_at", "item_id")
        codebook = codebook.with_items(
            of_new["item_id"],
            placed_vectors(codebook, items, of_new),
            of_new["is_available"].to_numpy(),
        )
        leaves = codebook.index.rows(ids)
    available = np.zeros(len(codebook.items), dtype=bool)
    available[leaves] = is_available
    if np.array_equal(available, codebook.available):
        return codebook
    return codebook.with_available(codebook.items.filter(pl.Series(available)))


def placed_vectors(
    codebook: Codebook, items: pl.DataFrame, new_items: pl.DataFrame
) -> NDArray[np.float64]:
    """Where new items lie in the space of the codes, [J, dim], as `Codebook.with_items` takes them.

    The vectors that codes were fitted on cannot be computed of a later log: behaviour and words
    turn with it. So an item of the fit lies where its codes say (`Codebook.placed`), and two
    things are learned of that: what words and known vectors say of it, by ridge regression, and
    how far each creator's items lie from there on average, shrunk to 0 by `CREATOR_DOUBT`. A new
    item lies at their sum; one of which nothing is known lies at the mean.

    Items that were added since the fit teach nothing: where they lie was itself predicted.

    Args:
        codebook: items and their semantic IDs, with centres.
        items: the catalogue; what it says of the codebook's items is learned from.
        new_items: J items; columns as in `items`.

    Raises:
        DataError: the codebook has no centres, or the catalogue none of its items.
    """
    fitted = codebook.items
    if codebook.is_added is not None:
        fitted = fitted.filter(pl.Series(~codebook.is_added))
    # in the order of the codebook: rows in another order are the same catalogue
    known = fitted.to_frame("item_id").join(
        _described(items), on="item_id", how="inner", maintain_order="left"
    )
    if known.is_empty():
        raise DataError(
            "codes: the catalogue describes none of the items that the codes were fitted on; give "
            "all items of the service, older ones too"
        )
    placed = codebook.placed[codebook.index.rows(known["item_id"])]
    described = _described(new_items)
    some = np.unique(np.linspace(0, known.height - 1, min(known.height, LEARNED_FROM)).astype(int))
    features = _Features.of(known[some])
    mean = placed.mean(axis=0)
    of_some = features.of_items(known[some])
    weight = np.linalg.solve(
        of_some.T @ of_some + RIDGE * np.eye(of_some.shape[1]), of_some.T @ (placed[some] - mean)
    )
    creators = described["creator_id"].unique().drop_nulls().sort()
    row = ItemIndex(creators).rows(known["creator_id"])
    theirs = np.flatnonzero(row >= 0)
    apart = placed[theirs] - mean - features.of_items(known[theirs]) @ weight
    sums = np.zeros((len(creators) + 1, placed.shape[1]))  # the last row is of no creator
    np.add.at(sums, row[theirs], apart)
    count = np.bincount(row[theirs], minlength=len(sums))[:, None]
    of_creator = sums / (count + CREATOR_DOUBT)
    return (
        mean
        + features.of_items(described) @ weight
        + of_creator[ItemIndex(creators).rows(described["creator_id"])]
    )


@dataclass(frozen=True, eq=False)
class _Features:
    """Numbers of a description: its words in `words`, and its known vector less `centre`, divided
    by `scale`. What is not known is 0."""

    words: WordSpace
    centre: NDArray[np.float64]
    scale: float

    @classmethod
    def of(cls, items: pl.DataFrame) -> Self:
        """The space of these items (columns as `_described` returns them), I of them."""
        vector_IR = as_matrix(items["vector"], items["item_id"])
        vector_IR = vector_IR[~np.isnan(vector_IR).any(axis=1)]
        words = WordSpace.of(items, ItemIndex(items["item_id"]), WORDS_DIM)
        if not len(vector_IR):
            return cls(words, np.zeros(vector_IR.shape[1]), 1.0)
        centre = vector_IR.mean(axis=0)
        # so that vectors have length 1, as words have, and one penalty serves both
        scale = float(np.sqrt(((vector_IR - centre) ** 2).sum(axis=1).mean()))
        return cls(words, centre, max(scale, 1e-12))

    def of_items(self, items: pl.DataFrame) -> NDArray[np.float64]:
        """The numbers of these items, [I, F]."""
        words = self.words.vectors(items, ItemIndex(items["item_id"]))
        vector_IR = as_matrix(items["vector"], items["item_id"])
        if vector_IR.shape[1] != len(self.centre):
            vector_IR = np.full((items.height, len(self.centre)), np.nan)
        return np.hstack([words, np.nan_to_num((vector_IR - self.centre) / self.scale)])


def _described(items: pl.DataFrame) -> pl.DataFrame:
    """Items with exactly the columns item_id and `DESCRIPTION`; null where `items` lacks them."""
    types = {name: DTYPES["items"][name] for name in DESCRIPTION}
    missing = [
        pl.lit(None, dtype=dtype).alias(name)
        for name, dtype in types.items()
        if name not in items.columns
    ]
    return items.with_columns(ids_of(items["item_id"], "item_id"), *missing).select(
        "item_id", *(pl.col(name).cast(dtype) for name, dtype in types.items())
    )
