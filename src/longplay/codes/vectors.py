"""Item vectors: from who engaged with what, and from words, so that new items have one too."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from longplay.decisions import ItemIndex
from longplay.lake.lake import Lake
from longplay.lake.schema import ENGAGED


def behaviour_vectors(lake: Lake, index: ItemIndex, dim: int = 32, seed: int = 0) -> NDArray[np.float64]:
    """Unit vectors [I, dim] of items from the users they share; zero rows for items nobody engaged with.

    Truncated SVD of the user x item matrix, each user's row scaled to unit length so that heavy
    users do not dominate, each item's column by 1 / sqrt(users) so that popular items do not.
    """
    pairs = (
        lake.events.filter(pl.col("kind").is_in(ENGAGED) & pl.col("item_id").is_not_null())
        .group_by("user_id", "item_id")
        .len()
        .sort("user_id", "item_id")
    )
    item = index.rows(pairs["item_id"])
    user = pairs["user_id"].rank("dense").to_numpy().astype(np.int64) - 1
    known = item >= 0
    vectors = np.zeros((len(index), dim))
    if not known.any():
        return vectors
    matrix = sparse.csr_matrix((np.log1p(pairs["len"].to_numpy())[known], (user[known], item[known])), shape=(user.max() + 1, len(index)))
    per_user = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
    per_item = np.sqrt(np.maximum(np.asarray((matrix > 0).sum(axis=0)).ravel(), 1))
    scaled = sparse.diags(1 / np.maximum(per_user, 1e-12)) @ matrix @ sparse.diags(1 / per_item)
    rank = min(dim, min(scaled.shape) - 1)
    if rank >= 1:
        svd = TruncatedSVD(rank, random_state=seed).fit(scaled)
        vectors[:, :rank] = (svd.components_ * svd.singular_values_[:, None]).T
    return _unit(vectors)


def text_vectors(items: pl.DataFrame, index: ItemIndex, dim: int = 16, seed: int = 0) -> NDArray[np.float64]:
    """Unit vectors [I, dim] of items from title, text and tags (TF-IDF, then truncated SVD); zero rows without words."""
    words = items.select(
        "item_id",
        pl.concat_str(pl.col("title").fill_null(""), pl.col("text").fill_null(""), pl.col("tags").list.join(" ").fill_null(""), separator=" ").alias(
            "words"
        ),
    )
    by_row = pl.DataFrame({"item_id": index.ids}).join(words, on="item_id", how="left", maintain_order="left")["words"].fill_null("")
    vectors = np.zeros((len(index), dim))
    try:
        counts = TfidfVectorizer(max_features=20_000, sublinear_tf=True).fit_transform(by_row.to_list())
    except ValueError:  # no words at all
        return vectors
    rank = min(dim, min(counts.shape) - 1)
    if rank >= 1:
        vectors[:, :rank] = TruncatedSVD(rank, random_state=seed).fit_transform(counts)
    return _unit(vectors)


def item_vectors(lake: Lake, index: ItemIndex, dim: int = 32, seed: int = 0) -> NDArray[np.float64]:
    """Behaviour beside words, [I, dim + dim / 2]; words weigh .5, so that they decide only where behaviour is silent."""
    return np.hstack([behaviour_vectors(lake, index, dim, seed), 0.5 * text_vectors(lake.items, index, dim // 2, seed)])


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
