"""Stage `codes`: a semantic ID for every item."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
import polars as pl
from pydantic import Field

from longplay.files import tree_digest
from longplay.index import ItemIndex
from longplay.results.code_figures import CodesResult, Purity, Shelf, VectorFigures
from longplay.run.engine import Stage, Work, depends_on, versions
from longplay.run.tables import Configuration, Positive, Table

if TYPE_CHECKING:
    from longplay.codes import Codebook


class Codes(Table):
    """Semantic IDs."""

    levels: Positive = 3
    width: Positive | None = None  # codes per level; default by catalogue size
    behaviour: Literal["svd", "item2vec", "none"] = (
        "svd"  # vectors from who shares items, or from what follows what
    )
    words: Annotated[str, Field(min_length=1)] = (
        # or "none", or a sentence encoder: its folder, relative to the run.toml, or package
        "tfidf"
    )
    words_weight: Annotated[float, Field(ge=0)] = 0.5  # beside behaviour

    younger: ClassVar[frozenset[str]] = frozenset({"behaviour", "words", "words_weight"})


def run(work: Work) -> CodesResult:
    """Fit semantic IDs to the catalogue as of the end of training, and list the largest groups of
    items."""
    import torch

    from longplay.codes import fit_codebook, item_text, item_vectors
    from longplay.models.sentence_encoder import encoder_folder, sentence_vectors

    past = work.past
    table = work.config.of(Codes)
    items = past.items
    index = ItemIndex(items["item_id"])
    words = table.words
    if words not in ("tfidf", "none"):
        torch.set_num_threads(work.config.run.threads)
        words = sentence_vectors(
            item_text(items, index),
            encoder_folder(words, work.base),
            progress=work.bar("reading items"),
        )
    vectors = item_vectors(
        past,
        index,
        seed=work.config.run.seed,
        behaviour=table.behaviour,
        words=words,
        words_weight=table.words_weight,
    )
    codebook = fit_codebook(
        items["item_id"],
        vectors,
        levels=table.levels,
        width=table.width,
        available=items["available"].to_numpy(),
        seed=work.config.run.seed,
    )
    codebook.save(work.folder / "codes.parquet")
    titles = pl.DataFrame({"item_id": codebook.items}).join(
        items.select("item_id", "title"), on="item_id", how="left", maintain_order="left"
    )["title"]
    prefix, count = np.unique(codebook.codes[:, :2], axis=0, return_counts=True)
    shelves = []
    for place in np.argsort(-count, kind="stable")[:6]:
        inside = np.flatnonzero((codebook.codes[:, :2] == prefix[place]).all(axis=1))
        shelves.append(
            Shelf(
                prefix=tuple(prefix[place].tolist()),
                items=int(count[place]),
                titles=tuple(titles[int(row)] or codebook.items[int(row)] for row in inside[:6]),
            )
        )
    assert codebook.report is not None  # it was just fitted
    return CodesResult(
        **vars(codebook.report),
        version=codebook.trie.version,
        vectors=VectorFigures(table.behaviour, table.words, table.words_weight, vectors.shape[1]),
        shelves=tuple(shelves),
        purity=_purity(codebook, items),
    )


def _purity(codebook: Codebook, items: pl.DataFrame) -> dict[str, Purity]:
    """How well prefixes of IDs agree with creators and first tags, compared with shuffled
    labels."""
    about = items.select("item_id", creator="creator_id", tag=pl.col("tags").list.first())
    labels = pl.DataFrame({"item_id": codebook.items}).join(
        about, on="item_id", how="left", maintain_order="left"
    )
    rng = np.random.default_rng(0)
    purity: dict[str, Purity] = {}
    for name in ("creator", "tag"):
        if labels[name].drop_nulls().n_unique() > 1:
            shuffled = labels[name].gather(rng.permutation(len(labels)))
            purity[name] = Purity(
                found=tuple(codebook.purity(labels[name])[:-1]),
                shuffled=tuple(codebook.purity(shuffled)[:-1]),
            )
    return purity


def _check(config: Configuration) -> None:
    """Check that at least one source of vectors tells items apart."""
    table = config.of(Codes)
    if table.behaviour == "none" and table.words == "none":
        raise ValueError(
            "codes: behaviour = 'none' and words = 'none' leave nothing to tell items apart by; "
            "give one of them"
        )


def _depends(config: Configuration, base: Path) -> Any:
    """What the result depends on, an encoder's files included."""
    depends = depends_on("split.train_until")(config, base) | {"codes": config.of(Codes).hashed()}
    if config.of(Codes).words in ("tfidf", "none"):
        return depends
    from longplay.models.sentence_encoder import encoder_folder

    libraries = ("sentence-transformers", "tokenizers", "torch", "transformers", "accelerate")
    return depends | {
        "encoder": tree_digest(encoder_folder(config.of(Codes).words, base)),
        "libraries": versions(libraries),
    }


def _line(result: CodesResult) -> str:
    vectors = result.vectors
    return (
        f"{result.items:,} items, {result.levels} levels of {result.width} codes; behaviour "
        f"{vectors.behaviour}, words {vectors.words}"
    )


STAGE = Stage(
    name="codes",
    order=50,
    version=3,
    help="Give every item a semantic ID by residual k-means.",
    table=Codes,
    check=_check,
    needs=("ingest", "simulate"),
    depends=_depends,
    run=run,
    line=_line,
    libraries=("scikit-learn",),
    loads=("torch", "transformers", "longplay.codes", "longplay.models.sentence_encoder"),
)
