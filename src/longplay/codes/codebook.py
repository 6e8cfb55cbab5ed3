"""Semantic IDs: residual k-means over item vectors, one unique code per item."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import polars as pl
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans

from longplay.codes.trie import Trie
from longplay.errors import DataError
from longplay.files import sync_path
from longplay.index import ItemIndex
from longplay.results.code_figures import CodeFigures


@dataclass(frozen=True)
class Codebook:
    """Item <-> semantic ID. Items are kept in the order of their codes: row n is leaf n of the
    trie.

    Attributes:
        items: item ids, length I.
        codes: shape [I, L], values 0..width-1, rows sorted and distinct.
        width: values of a code.
        available: which items may be generated, shape [I].
        report: how well the codes describe the items they were fitted on; null where the codebook
            was loaded from files.
        centres: per level [K, dim], what each code stands for: what a vector has of it is taken off
            before the next level. Empty: not known.
        is_added: which items were added since the codes were fitted, shape [I]; null: not known,
            all of them count as fitted.
    """

    items: pl.Series
    codes: NDArray[np.int64]
    width: int
    available: NDArray[np.bool_]
    report: CodeFigures | None = None
    centres: tuple[NDArray[np.float64], ...] = ()
    is_added: NDArray[np.bool_] | None = None

    @property
    def added(self) -> int | None:
        """Items added by `with_items` since the codes were fitted; null where that is not known."""
        return None if self.is_added is None else int(self.is_added.sum())

    @property
    def levels(self) -> int:
        """L, codes per item."""
        return self.codes.shape[1]

    @cached_property
    def index(self) -> ItemIndex:
        """Item ids <-> leaves."""
        return ItemIndex(self.items)

    @cached_property
    def trie(self) -> Trie:
        """The valid semantic IDs."""
        return Trie.build(self.codes, self.width, self.available, self.is_added)

    @property
    def placed(self) -> NDArray[np.float64]:
        """Where each item's codes say that it lies: the sum of their centres, [I, dim].

        Raises:
            DataError: the codebook has no centres.
        """
        if not self.centres:
            raise _without_centres()
        return np.sum(
            [centres[self.codes[:, level]] for level, centres in enumerate(self.centres)], axis=0
        )

    def with_available(self, items: pl.Series) -> Self:
        """The same codes, restricted to `items` for generation. Items that are sold out, withdrawn,
        or not for this market are left out.

        Nothing of a model changes. The trie's version does, and with it the name of a policy:
        slates are logged under what could be shown.

        Raises:
            DataError: an id that has no code; give it one first (`with_items`).
        """
        ids = items.cast(pl.String)
        leaves = self.index.rows(ids)
        if unknown := ids.filter(pl.Series(leaves < 0, dtype=pl.Boolean)).unique().sort().to_list():
            raise DataError(
                f"codes: {len(unknown):,} of {len(ids):,} items have no code, first "
                f"{unknown[0]!r}; add them by with_items() first"
            )
        available = np.zeros(len(self.items), dtype=bool)
        available[leaves] = True
        view = replace(self, available=available)
        # what does not depend on it is not made again
        vars(view).update(index=self.index, trie=replace(self.trie, available=available))
        return view

    def with_items(
        self,
        items: pl.Series,
        vectors: NDArray[np.float64],
        available: NDArray[np.bool_] | None = None,
    ) -> Self:
        """The codebook with further items. No existing code changes, so that what a model has
        learnt of them stays true.

        Each new item, in the order given, takes the nearest code at every level below which an ID
        is still free. Their leaves lie among the others', so leaf numbers move. `report` stays that
        of the items the codes were fitted on.

        Args:
            items: new item ids, length J.
            vectors: [J, dim], of the space in which the codes were fitted.
            available: shape [J], default all.

        Raises:
            DataError: an id that is known or given twice, vectors of another shape, no centres, or
                no room left.
        """
        ids = items.cast(pl.String)
        all_items = pl.concat([self.items, ids])
        if doubled := all_items.filter(all_items.is_duplicated()).unique().sort().to_list():
            raise DataError(
                f"codes: {len(doubled):,} of {len(ids):,} new items are known or given twice, "
                f"first {doubled[0]!r}; give new ids only"
            )
        if not self.centres:
            raise _without_centres()
        new = np.asarray(vectors, dtype=float)
        if new.shape != (len(ids), self.centres[0].shape[1]):
            raise DataError(
                f"codes: vectors of shape {new.shape} given for {len(ids):,} items, expected "
                f"{(len(ids), self.centres[0].shape[1])}"
            )
        if available is not None and np.shape(available) != (len(ids),):
            raise DataError(
                f"codes: available of shape {np.shape(available)} given for {len(ids):,} new "
                "items, expected one for each"
            )
        if len(all_items) > self.width**self.levels:
            raise DataError(
                f"codes: {len(ids):,} new items do not fit: "
                f"{self.width**self.levels - len(self.items):,} of {self.width}^{self.levels} "
                "semantic IDs "
                "are free; fit anew with a larger width or more levels"
            )
        taken: Counter[tuple[int, ...]] = Counter()  # prefix -> new items below it
        added = np.array(
            [self._free_code(vector, taken) for vector in new], dtype=np.int64
        ).reshape(-1, self.levels)
        codes = np.concatenate([self.codes, added])
        order = np.lexsort(codes.T[::-1])
        if available is None:
            new_available = np.ones(len(ids), dtype=bool)
        else:
            new_available = np.asarray(available, dtype=bool)
        all_available = np.concatenate([self.available, new_available])
        fitted = np.zeros(len(self.items), dtype=bool)
        is_added = np.concatenate(
            [fitted if self.is_added is None else self.is_added, np.ones(len(ids), dtype=bool)]
        )
        return replace(
            self,
            items=all_items.gather(order),
            codes=codes[order],
            available=all_available[order],
            is_added=is_added[order],
        )

    def _free_code(
        self, vector: NDArray[np.float64], taken: Counter[tuple[int, ...]]
    ) -> tuple[int, ...]:
        """The nearest free ID, level by level. `taken` is updated with it."""
        prefix: tuple[int, ...] = ()
        node: int | None = 0  # of the trie; null where only new items are below
        for level, centres in enumerate(self.centres):
            near = np.argsort(((centres - vector) ** 2).sum(axis=1), kind="stable").tolist()
            child = {}
            below = np.zeros(self.width, dtype=np.int64)
            if node is not None:
                edges = range(*self.trie.ptr[level][node : node + 2].tolist())
                child = dict(
                    zip(
                        self.trie.code[level][edges.start : edges.stop].tolist(), edges, strict=True
                    )
                )
                below[list(child)] = np.diff(
                    self.trie.span[level + 1][edges.start : edges.stop + 1]
                )
            code = next(
                code
                for code in near
                if below[code] + taken[*prefix, code] < self.width ** (self.levels - level - 1)
            )
            prefix = (*prefix, code)
            node = child.get(code)
            taken[prefix] += 1
            vector = vector - centres[code]
        return prefix

    def purity(self, labels: pl.Series) -> list[float]:
        """Per level, the share of items that carry the most frequent label under their prefix of
        that length, 0..1.

        `labels[I]` say of each of `items` what it is (its creator, its genre); null: left out.
        Compare with the same of shuffled labels: short prefixes of a catalogue of one genre are
        pure, and so is every prefix of one item.

        Raises:
            DataError: as many labels as items are expected.
        """
        if len(labels) != len(self.items):
            raise DataError(
                f"codes: {len(labels):,} labels given for {len(self.items):,} items, expected one "
                "each, in the order of `items`"
            )
        table = pl.DataFrame(
            {"label": labels}
            | {f"code_{level}": self.codes[:, level] for level in range(self.levels)}
        ).drop_nulls("label")
        prefixes = [[f"code_{level}" for level in range(depth + 1)] for depth in range(self.levels)]
        most_frequent_by_level = [
            int(
                table.group_by(*prefix, "label")
                .len()
                .group_by(prefix)
                .agg(pl.col("len").max())["len"]
                .sum()
            )
            for prefix in prefixes
        ]
        return [most_frequent / max(table.height, 1) for most_frequent in most_frequent_by_level]

    def save(self, path: Path) -> None:
        """Write a Parquet file, and the centres to a `.safetensors` file with the same stem.
        Both are on disk after the return."""
        frame = pl.DataFrame(
            {"item_id": self.items, "available": self.available}
            | {f"code_{level}": self.codes[:, level] for level in range(self.levels)}
        )
        if self.is_added is not None:
            frame = frame.with_columns(added=pl.Series(self.is_added))
        centres_path = path.with_suffix(".safetensors")
        if self.centres:
            save_file(
                {
                    f"level_{level}": np.ascontiguousarray(centres)
                    for level, centres in enumerate(self.centres)
                },
                centres_path,
            )
            sync_path(centres_path)
        else:
            centres_path.unlink(missing_ok=True)
        frame.write_parquet(path, metadata={"sha256": self._digest()})
        sync_path(path)
        sync_path(path.parent)

    def _digest(self) -> str:
        """SHA-256 of the items, their codes, whether they are available and added, and the
        centres."""
        shapes = [list(part.shape) for part in (self.codes, *self.centres)]
        digest = hashlib.sha256(json.dumps([self.items.to_list(), shapes]).encode())
        for part in (self.codes.astype("<i8"), self.available.astype("u1"), *self.centres):
            digest.update(np.ascontiguousarray(part).tobytes())
        if self.is_added is not None:
            digest.update(self.is_added.astype("u1").tobytes())
        return digest.hexdigest()

    @classmethod
    def load(cls, path: Path, width: int) -> Self:
        """The codebook that `save` wrote.

        Raises:
            DataError: a file is missing, cannot be read, or is not as it was written.
        """
        centres_path = path.with_suffix(".safetensors")
        try:
            stated = pl.read_parquet_metadata(path).get("sha256")
            frame = pl.read_parquet(path)
            codes = frame.select(pl.selectors.starts_with("code_")).to_numpy().astype(np.int64)
            level_centres = load_file(centres_path) if centres_path.exists() else {}
            centres = tuple(level_centres[f"level_{level}"] for level in range(len(level_centres)))
            codebook = cls(
                frame["item_id"],
                codes,
                width,
                frame["available"].to_numpy(),
                centres=centres,
                is_added=frame["added"].to_numpy() if "added" in frame.columns else None,
            )
        except (
            OSError,
            KeyError,
            ValueError,
            pl.exceptions.PolarsError,
            pl.exceptions.PanicException,
            SafetensorError,
        ) as error:
            raise DataError(
                f"codes: {path} cannot be read ({error}); make the codes anew"
            ) from error
        if stated not in (None, codebook._digest()):
            raise DataError(
                f"codes: {path} or {centres_path.name} was changed after it was written; make the "
                "codes anew"
            )
        return codebook


def default_width(items: int, levels: int) -> int:
    """Codes per level: the least power of two, at least 8, whose IDs are four times the items.

    >>> default_width(2000, 3), default_width(3684, 3)
    (32, 32)
    """
    width = 8
    while width**levels < 4 * items:
        width *= 2
    return width


def fit_codebook(
    items: pl.Series,
    vectors: NDArray[np.float64],
    *,
    levels: int = 3,
    width: int | None = None,
    available: NDArray[np.bool_] | None = None,
    seed: int = 0,
) -> Codebook:
    """Codes for `items[I]` from `vectors[I, dim]` by residual k-means (RQ-KMeans).

    Each level clusters what the levels before left over. No node takes more items than IDs lie
    below it, and the last level is an assignment problem within its prefix, so codes are unique.

    The codebook's `report` says how well the codes describe the items.

    Raises:
        DataError: no items, no levels, or more items than width ** levels IDs.
    """
    n = len(items)
    if n == 0:
        raise DataError("codes: the catalogue is empty; ingest items or events with item ids first")
    if levels < 1:
        raise DataError(f"codes: levels={levels} given, expected at least 1")
    width = default_width(n, levels) if width is None else width
    if n > width**levels:
        raise DataError(
            f"codes: {n:,} items do not fit {width}^{levels} = {width**levels:,} semantic IDs; "
            "raise width or levels"
        )
    residual = np.asarray(vectors, dtype=float).copy()
    total = float(((residual - residual.mean(axis=0)) ** 2).sum())
    codes = np.zeros((n, levels), dtype=np.int64)
    parent = np.zeros(n, dtype=np.int64)
    moved = collided = 0
    used: list[NDArray[np.float64]] = []
    for level in range(levels):
        centres = _centres(residual, width, seed + level)
        # fewer centres than codes: the codes left over repeat them, for items that find theirs full
        centre_of_code = np.arange(width) % len(centres)
        distance = (
            ((residual**2).sum(axis=1)[:, None] - 2 * residual @ centres.T)
            + (centres**2).sum(axis=1)[None]
        )[:, centre_of_code]
        codes[:, level] = _assign(distance, parent, capacity=width ** (levels - level - 1))
        used.append(centres[centre_of_code])
        wished = np.unique(
            np.column_stack([parent, distance.argmin(axis=1)]), axis=0, return_counts=True
        )[1]
        collided = int(wished[wished > 1].sum())
        moved = int((distance[np.arange(n), codes[:, level]] > distance.min(axis=1) + 1e-9).sum())
        residual -= centres[centre_of_code[codes[:, level]]]
        parent = np.unique(np.column_stack([parent, codes[:, level]]), axis=0, return_inverse=True)[
            1
        ].ravel()
    order = np.lexsort(codes.T[::-1])
    report = CodeFigures(
        items=n,
        levels=levels,
        width=width,
        reconstruction=1 - float((residual**2).sum()) / total if total > 0 else 0.0,
        usage=tuple(len(np.unique(codes[:, level])) / width for level in range(levels)),
        collisions=collided / n,
        moved=moved / n,
        largest_prefix=int(np.bincount(codes[:, 0]).max()),
    )
    free = np.ones(n, dtype=bool) if available is None else np.asarray(available, dtype=bool)
    return Codebook(
        items.gather(order),
        codes[order],
        width,
        free[order],
        report,
        tuple(used),
        is_added=np.zeros(n, dtype=bool),
    )


def _without_centres() -> DataError:
    return DataError(
        "codes: this codebook was saved without its centres, so new items cannot be given codes; "
        "fit it anew, or let a policy stay as it is (decisions.Frozen)"
    )


def _centres(points: NDArray[np.float64], width: int, seed: int) -> NDArray[np.float64]:
    """`width` cluster centres; with fewer distinct points than that, the points themselves."""
    distinct = np.unique(points.round(12), axis=0)
    if len(distinct) <= width:
        return distinct
    return KMeans(width, max_iter=50, random_state=seed).fit(points).cluster_centers_


def _assign(
    distance: NDArray[np.float64], parent: NDArray[np.int64], capacity: int
) -> NDArray[np.int64]:
    """Nearest code for each row. At most `capacity` rows of a parent share a code."""
    choice = distance.argmin(axis=1)
    width = distance.shape[1]
    key, count = np.unique(parent * width + choice, return_counts=True)
    for crowded in np.unique(key[count > capacity] // width):
        rows = np.flatnonzero(parent == crowded)
        if capacity == 1:
            choice[rows] = linear_sum_assignment(distance[rows])[1]
            continue
        left = np.full(width, capacity)
        # who is closest to a code chooses first
        for row in rows[np.argsort(distance[rows].min(axis=1))]:
            code = next(code for code in np.argsort(distance[row], kind="stable") if left[code] > 0)
            choice[row] = code
            left[code] -= 1
    return choice
