"""Item vectors: from who engaged with what, and from words, so that new items have one too."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.utils.extmath import randomized_svd

from longplay.decisions import ItemIndex, learners_events
from longplay.lake.lake import Lake
from longplay.lake.schema import ENGAGED


def behaviour_vectors(lake: Lake, index: ItemIndex, dim: int = 32, seed: int = 0) -> NDArray[np.float64]:
    """Unit vectors [I, dim] of items from the users they share; zero rows for items nobody engaged with.

    Truncated SVD of the user x item matrix, each user's row scaled to unit length so that heavy
    users do not dominate, each item's column by 1 / sqrt(users) so that popular items do not. Where slates were
    logged, users for whom `decisions.held_out` is true are left out: off-policy estimates score them.
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
    known = item >= 0
    if not known.any():
        return np.zeros((len(index), dim))
    matrix = sparse.csr_matrix((np.log1p(pairs["len"].to_numpy())[known], (user[known], item[known])), shape=(user.max() + 1, len(index)))
    per_user = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
    per_item = np.sqrt(np.maximum(matrix.getnnz(axis=0), 1))
    scaled = sparse.diags(1 / np.maximum(per_user, 1e-12)) @ matrix @ sparse.diags(1 / per_item)
    return _principal(scaled.T, dim, seed)


def text_vectors(items: pl.DataFrame, index: ItemIndex, dim: int = 16, seed: int = 0) -> NDArray[np.float64]:
    """Unit vectors [I, dim] of items from title, text and tags (TF-IDF, then truncated SVD); zero rows without words."""
    words = items.select(
        "item_id",
        pl.concat_str(pl.col("title").fill_null(""), pl.col("text").fill_null(""), pl.col("tags").list.join(" ").fill_null(""), separator=" ").alias(
            "words"
        ),
    )
    by_row = pl.DataFrame({"item_id": index.ids}).join(words, on="item_id", how="left", maintain_order="left")["words"].fill_null("")
    try:
        counts = TfidfVectorizer(max_features=20_000, sublinear_tf=True).fit_transform(by_row.to_list())
    except ValueError:  # no words at all
        return np.zeros((len(index), dim))
    return _principal(counts, dim, seed)


def item_vectors(lake: Lake, index: ItemIndex, dim: int = 32, seed: int = 0) -> NDArray[np.float64]:
    """Behaviour beside words, [I, dim + dim / 2]; words weigh .5, so that they decide only where behaviour is silent."""
    return np.hstack([behaviour_vectors(lake, index, dim, seed), 0.5 * text_vectors(lake.items, index, dim // 2, seed)])


def _principal(rows: sparse.spmatrix, dim: int, seed: int) -> NDArray[np.float64]:
    """Unit vectors [I, dim] of the matrix's rows along its largest singular directions; columns beyond its rank are zero."""
    rank = min(dim, *rows.shape)
    left, size, _ = randomized_svd(rows, rank, random_state=seed)
    vectors = np.zeros((rows.shape[0], dim))
    vectors[:, :rank] = left * size
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
