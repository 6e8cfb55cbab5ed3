"""Item vectors, from behaviour and from words, so that new items have one too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.utils.extmath import randomized_svd

from longplay.codes.text import item_text
from longplay.decisions import learners_events, learners_histories
from longplay.errors import ConfigError, DataError
from longplay.index import ItemIndex
from longplay.lake.known import Scaling
from longplay.lake.known import item_vectors as lake_item_vectors
from longplay.lake.lake import Lake
from longplay.lake.schema import ENGAGED

DIMS = {"svd": 32, "item2vec": 64, "none": 32}  # by kind of behaviour
CONTEXT_POWER = 0.75  # smooths how often a neighbour is met, so that rare ones do not look special


def behaviour_vectors(
    lake: Lake, index: ItemIndex, dim: int = 32, seed: int = 0
) -> NDArray[np.float64]:
    """Unit vectors [I, dim] of items from the users they share; zero rows for items nobody engaged
    with.

    Truncated SVD of the user x item matrix, each user's row scaled to unit length so that heavy
    users do not dominate, each item's column by 1 / sqrt(users) so that popular items do not. Where
    slates were logged, users for whom `decisions.ope_users` is true are left out: off-policy
    estimates score them.
    """
    pairs = (
        learners_events(lake)
        .filter(pl.col("kind").is_in(ENGAGED) & pl.col("item_id").is_not_null())
        .group_by("user_id", "item_id")
        .len()
        .sort("user_id", "item_id")
    )
    item = index.rows(pairs["item_id"])
    user = pairs["user_id"].rank("dense").to_numpy().astype(np.int64) - 1
    in_catalogue = item >= 0
    if not in_catalogue.any():
        return np.zeros((len(index), dim))
    matrix = sparse.csr_matrix(
        (np.log1p(pairs["len"].to_numpy())[in_catalogue], (user[in_catalogue], item[in_catalogue])),
        shape=(user.max() + 1, len(index)),
    )
    per_user = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
    per_item = np.sqrt(np.maximum(matrix.getnnz(axis=0), 1))
    scaled = sparse.diags(1 / np.maximum(per_user, 1e-12)) @ matrix @ sparse.diags(1 / per_item)
    return _principal(scaled.T, dim, seed)


def sequence_vectors(
    lake: Lake, index: ItemIndex, dim: int = 64, window: int = 5, seed: int = 0
) -> NDArray[np.float64]:
    """Unit vectors [I, dim] of items from their neighbours in users' histories (`item2vec`); zero
    rows for items without neighbours.

    Users and events are those that policies learn histories from (`decisions.learners_histories`):
    none who is held out.
    """
    _, offsets, rows = learners_histories(lake, index)
    return item2vec(offsets, rows, len(index), dim, window, seed)


def item2vec(
    offsets: NDArray[np.int64],
    leaves: NDArray[np.int64],
    items: int,
    dim: int = 64,
    window: int = 5,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Unit vectors [I, dim] of items that stand near one another in histories; zero rows for items
    without neighbours.

    Skip-grams with negative sampling over items (item2vec: Barkan & Koenigstein 2016, arXiv
    1603.04259) factorise the matrix of pointwise mutual information (Levy & Goldberg 2014,
    NeurIPS), so that is done at once, without steps or a learning rate: truncated SVD of

        max(0, log(pairs(i, j) / (pairs(i) * share(j))))    pairs(i) = sum over j of pairs(i, j)
        share(j) ~ pairs(j) ** .75

    where a pair of different items at most `window` places apart in one user's history, in either
    order, counts 1 / distance. The power .75 and vectors of `left * sqrt(singular value)` are from
    Levy, Goldberg & Dagan 2015 (TACL 3). k negative samples would subtract log k; here k = 1.

    Args:
        offsets: user u's items, oldest first, are `leaves[offsets[u]:offsets[u+1]]`, each in
            0..items-1.
        leaves: user u's items, oldest first, are `leaves[offsets[u]:offsets[u+1]]`, each in
            0..items-1.
        items: I.
        dim: columns; those beyond the matrix's rank are zero.
        window: places to either side.
        seed: of the truncated decomposition.

    Raises:
        DataError: offsets that are not of these leaves, leaves outside the catalogue, no window or
            no dimension.

    >>> leaves = np.array([0, 1, 2, 1])  # two histories: items 0 and 2 both stand beside item 1
    >>> first, second, third = item2vec(np.array([0, 2, 4]), leaves, items=3, dim=2)
    >>> bool(np.isclose(first @ third, 1)), bool(abs(first @ second) < 1e-9)
    (True, True)
    """
    if window < 1 or dim < 1:
        raise DataError(f"item2vec: window={window} and dim={dim} given, expected at least 1 each")
    if (
        not len(offsets)
        or offsets[0] != 0
        or offsets[-1] != len(leaves)
        or (np.diff(offsets) < 0).any()
    ):
        raise DataError(
            f"item2vec: offsets do not rise from 0 to the {len(leaves):,} leaves; user u's items "
            "are leaves[offsets[u]:offsets[u+1]]"
        )
    if len(leaves) and not 0 <= leaves.min() <= leaves.max() < items:
        raise DataError(
            f"item2vec: leaves {leaves.min()} to {leaves.max()} given, expected 0 to {items - 1}; "
            "leave unknown items out first"
        )
    pairs = _pairs(offsets, leaves, items, window)
    vectors = np.zeros((items, dim))
    if not pairs.nnz:
        return vectors
    met = np.asarray(pairs.sum(axis=1)).ravel()
    share = met**CONTEXT_POWER / (met**CONTEXT_POWER).sum()
    pairs = pairs.tocoo()
    information = np.log(pairs.data / (met[pairs.row] * share[pairs.col]))
    informative = information > 0
    matrix = sparse.csr_matrix(
        (information[informative], (pairs.row[informative], pairs.col[informative])),
        shape=(items, items),
    )
    left, size = _largest(matrix, dim, seed)
    some = np.diff(matrix.indptr) > 0  # an empty row has a direction by rounding alone
    vectors[some, : len(size)] = left[some] * np.sqrt(size)
    return _unit(vectors)


def _pairs(
    offsets: NDArray[np.int64], leaves: NDArray[np.int64], items: int, window: int
) -> sparse.csr_matrix:
    """Pairs of different items at most `window` apart in one history, [I, I], symmetric; each
    counts 1 / distance."""
    user = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    counted = sparse.csr_matrix((items, items))
    for distance in range(1, window + 1):
        first_leaf = leaves[:-distance]
        second_leaf = leaves[distance:]
        # pairs of an item with itself say nothing about others
        is_pair = (user[:-distance] == user[distance:]) & (first_leaf != second_leaf)
        cells = (first_leaf[is_pair], second_leaf[is_pair])
        counted = counted + sparse.csr_matrix(
            (np.full(int(is_pair.sum()), 1 / distance), cells), shape=(items, items)
        )
    return sparse.csr_matrix(counted + counted.T)


@dataclass(frozen=True, eq=False)
class WordSpace:
    """A space of words, in which items that come later have a place too: TF-IDF, then the largest
    singular directions of the items that it was made of.

    Attributes:
        dim: columns of a vector.
        weighting: the words and their weights; None: the items had no words.
        direction_WD: the directions.
    """

    dim: int
    weighting: TfidfVectorizer | None
    direction_WD: NDArray[np.float64]

    @classmethod
    def of(cls, items: pl.DataFrame, index: ItemIndex, dim: int = 16, seed: int = 0) -> Self:
        """The space of these items' titles, texts and tags."""
        weighting = TfidfVectorizer(max_features=20_000, sublinear_tf=True)
        try:
            counts = weighting.fit_transform(item_text(items, index).to_list())
        except ValueError:  # no words at all
            return cls(dim, None, np.zeros((0, dim)))
        _, _, right = randomized_svd(counts, min(dim, *counts.shape), random_state=seed)
        direction_WD = np.zeros((counts.shape[1], dim))
        direction_WD[:, : len(right)] = right.T
        return cls(dim, weighting, direction_WD)

    def vectors(self, items: pl.DataFrame, index: ItemIndex) -> NDArray[np.float64]:
        """Unit vectors [I, dim] of items; zero rows without words that the space knows."""
        if self.weighting is None or not len(index):
            return np.zeros((len(index), self.dim))
        counts = sparse.csr_matrix(self.weighting.transform(item_text(items, index).to_list()))
        return _unit(np.asarray(counts @ self.direction_WD))


def text_vectors(
    items: pl.DataFrame, index: ItemIndex, dim: int = 16, seed: int = 0
) -> NDArray[np.float64]:
    """Unit vectors [I, dim] of items from title, text and tags (TF-IDF, then truncated SVD); zero
    rows without words."""
    try:
        counts = TfidfVectorizer(max_features=20_000, sublinear_tf=True).fit_transform(
            item_text(items, index).to_list()
        )
    except ValueError:  # no words at all
        return np.zeros((len(index), dim))
    return _principal(counts, dim, seed)


def item_vectors(
    lake: Lake,
    index: ItemIndex,
    dim: int | None = None,
    seed: int = 0,
    *,
    behaviour: str = "svd",
    words: str | NDArray[np.floating] = "tfidf",
    words_weight: float = 0.5,
    known_weight: float = 0.0,
) -> NDArray[np.float64]:
    """Behaviour and word vectors side by side, [I, dim + dim of words]. Words weigh .5, so that
    they decide only where behaviour is silent. With a weight, the vectors that the service gave its
    items stand beside them.

    Args:
        lake: the log.
        index: the catalogue's items by row.
        dim: of behaviour, default 32, for "item2vec" 64; TF-IDF has half of it.
        seed: of the behaviour vectors.
        behaviour: "svd" (`behaviour_vectors`), "item2vec" (`sequence_vectors`) or "none".
        words: "tfidf" (`text_vectors`), vectors [I, D] of your own, such as
            `models.sentence_encoder.sentence_vectors`, or "none".
        words_weight: what the words' vectors are multiplied with.
        known_weight: what the items' own vectors (`vector` of the lake's items, columns scaled to a
            mean square length of 1) are multiplied with; 0: they are not read.

    Raises:
        ConfigError: another word for behaviour or words, nothing of all, a negative weight.
        DataError: words' vectors that are not [I, D] finite numbers.
    """
    if behaviour not in DIMS:
        raise ConfigError(
            f"item_vectors: behaviour={behaviour!r} given, expected one of {', '.join(DIMS)}"
        )
    if isinstance(words, str) and words not in ("tfidf", "none"):
        raise ConfigError(
            f"item_vectors: words={words!r} given, expected tfidf, none or vectors, e.g. those of "
            f"sentence_vectors(texts, {words!r})"
        )
    for name, weight in (("words_weight", words_weight), ("known_weight", known_weight)):
        if not 0 <= weight < np.inf:
            raise ConfigError(f"item_vectors: {name}={weight} given, expected at least 0")
    dim = DIMS[behaviour] if dim is None else dim
    parts: list[NDArray[np.float64]] = []
    if behaviour == "svd":
        parts.append(behaviour_vectors(lake, index, dim, seed))
    elif behaviour == "item2vec":
        parts.append(sequence_vectors(lake, index, dim, seed=seed))
    if not isinstance(words, str):
        word_vectors = np.asarray(words, dtype=float)
        if (
            word_vectors.ndim != 2
            or len(word_vectors) != len(index)
            or not np.isfinite(word_vectors).all()
        ):
            raise DataError(
                f"item_vectors: words of shape {word_vectors.shape} given, expected finite "
                f"numbers of shape ({len(index)}, D), a row per item"
            )
        parts.append(words_weight * word_vectors)
    elif words == "tfidf":
        parts.append(words_weight * text_vectors(lake.items, index, dim // 2, seed))
    if known_weight > 0:
        known = lake_item_vectors(lake, index.ids)
        scaled = Scaling.of(known).scaled(known) / np.sqrt(max(known.shape[1], 1))
        parts.append(known_weight * scaled)
    if not parts:
        raise ConfigError(
            "item_vectors: behaviour='none' and words='none' leave nothing to tell items apart "
            "by; give one of them"
        )
    return np.hstack(parts)


def _principal(rows: sparse.spmatrix, dim: int, seed: int) -> NDArray[np.float64]:
    """Unit vectors [I, dim] of the matrix's rows along its largest singular directions; columns
    beyond its rank are zero."""
    left, size = _largest(rows, dim, seed)
    vectors = np.zeros((left.shape[0], dim))
    vectors[:, : len(size)] = left * size
    return _unit(vectors)


def _largest(
    rows: sparse.spmatrix, dim: int, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The left singular vectors [I, K] of the K <= dim largest singular values [K]."""
    left, size, _ = randomized_svd(rows, min(dim, *rows.shape), random_state=seed)
    return left, size


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
