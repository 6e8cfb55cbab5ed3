"""Semantic IDs, the trie and its masks against plain Python."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from longplay.codes import (
    Allowed,
    Codebook,
    Trie,
    behaviour_vectors,
    fit_codebook,
    item_vectors,
    text_vectors,
)
from longplay.codes.codebook import default_width
from longplay.errors import DataError
from longplay.index import ItemIndex
from longplay.lake import Lake
from longplay.run.stages.codes import _purity

START = datetime(2026, 1, 1, tzinfo=UTC)
US = pl.Datetime("us", "UTC")


def names(n: int) -> pl.Series:
    return pl.Series([f"i{k}" for k in range(n)], dtype=pl.String)


@st.composite
def vectors_and_sizes(draw: st.DrawFn) -> tuple[NDArray[np.float64], int, int]:
    """Vectors with many ties, levels and width; sometimes exactly as many items as IDs."""
    levels, width = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    n = draw(st.one_of(st.just(width**levels), st.integers(1, width**levels)))
    kinds = draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    return rng.normal(size=(kinds, 3))[rng.integers(kinds, size=n)], levels, width


@st.composite
def sorted_codes(draw: st.DrawFn) -> tuple[NDArray[np.int64], int]:
    levels, width = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    every = list(itertools.product(range(width), repeat=levels))
    chosen = draw(st.lists(st.sampled_from(every), min_size=1, max_size=len(every), unique=True))
    return np.array(sorted(chosen)), width


# -- codes ---------------------------------------------------------------------------------------


@given(vectors_and_sizes())
@examples(60)
def test_every_item_has_a_code_of_its_own_within_width(
    given_: tuple[NDArray[np.float64], int, int],
) -> None:
    vectors, levels, width = given_
    book = fit_codebook(names(len(vectors)), vectors, levels=levels, width=width)
    assert sorted(book.items) == sorted(names(len(vectors)))
    assert book.codes.shape == (len(vectors), levels)
    assert len(np.unique(book.codes, axis=0)) == len(vectors)
    assert book.codes.min() >= 0
    assert book.codes.max() < width
    assert np.array_equal(book.trie.codes, book.codes)  # rows are the leaves: sorted
    assert book.report.reconstruction <= 1 + 1e-9
    assert all(0 < share <= 1 for share in book.report.usage)


@given(st.integers(0, 100))
@examples(10)
def test_identical_items_fill_every_id_exactly(seed: int) -> None:
    book = fit_codebook(names(27), np.full((27, 4), float(seed)), levels=3, width=3, seed=seed)
    assert book.codes.tolist() == [list(code) for code in itertools.product(range(3), repeat=3)]


def test_one_item_and_one_level_work() -> None:
    assert fit_codebook(names(1), np.ones((1, 2))).codes.shape == (1, 3)
    assert sorted(fit_codebook(names(5), np.eye(5), levels=1, width=5).codes[:, 0]) == [
        0,
        1,
        2,
        3,
        4,
    ]


@pytest.mark.parametrize(
    ("n", "levels", "message"),
    [
        (0, 3, "empty"),
        (9, 1, "9 items do not fit 8.1 = 8 .* raise width or levels"),
        (3, 0, "levels=0"),
    ],
)
def test_items_that_do_not_fit_are_refused(n: int, levels: int, message: str) -> None:
    with pytest.raises(DataError, match=message):
        fit_codebook(names(n), np.zeros((n, 2)), levels=levels, width=8)


@pytest.mark.parametrize(("items", "levels"), [(1, 3), (2_000, 3), (40, 1), (1_000_000, 3)])
def test_default_width_leaves_three_of_four_ids_free(items: int, levels: int) -> None:
    width = default_width(items, levels)
    assert width**levels >= 4 * items
    assert width == 8 or (width // 2) ** levels < 4 * items


def test_crowded_items_take_ids_next_to_their_like_and_codes_still_explain_them() -> None:
    """Two kinds of six items each on 4 x 4 IDs: each kind overflows its first code, and neither
    mixes with the other."""
    vectors = np.repeat(np.eye(2), 6, axis=0)
    book = fit_codebook(names(12), vectors, levels=2, width=4)
    kind = book.items.str.slice(1).cast(pl.Int64).to_numpy() // 6
    assert all(len(set(kind[book.codes[:, 0] == code])) == 1 for code in set(book.codes[:, 0]))
    assert book.report.reconstruction == pytest.approx(1)
    assert book.report.moved == 0
    assert book.report.largest_prefix == 4


def test_similar_items_share_prefixes_more_than_dissimilar_ones() -> None:
    rng = np.random.default_rng(0)
    kind = rng.permutation(np.repeat(np.arange(20), 20))
    vectors = rng.normal(size=(20, 8))[kind] + 0.1 * rng.normal(size=(400, 8))
    book = fit_codebook(names(400), vectors, seed=1)
    kind = kind[book.items.str.slice(1).cast(pl.Int64).to_numpy()]
    same_kind = kind[:, None] == kind[None]
    same_code = book.codes[:, None, 0] == book.codes[None, :, 0]
    off = ~np.eye(400, dtype=bool)
    assert same_code[same_kind & off].mean() > 0.8
    assert same_code[~same_kind].mean() < 0.1
    assert book.report.reconstruction > 0.9
    again = fit_codebook(names(400), vectors, seed=1)
    assert np.array_equal(again.codes, book.codes)
    assert again.items.equals(book.items)


def test_a_saved_codebook_comes_back_whole(tmp_path: Path) -> None:
    free = np.arange(40) % 7 != 0
    book = fit_codebook(names(40), np.random.default_rng(0).normal(size=(40, 3)), available=free)
    book.save(tmp_path / "codes.parquet")
    back = Codebook.load(tmp_path / "codes.parquet", book.width)
    assert back.items.equals(book.items)
    assert np.array_equal(back.codes, book.codes)
    assert back.trie.version == book.trie.version
    blocked = set(back.items.filter(pl.Series(~back.available)))
    assert blocked == {f"i{k}" for k in range(0, 40, 7)}  # availability travels with its item


@given(vectors_and_sizes(), st.integers(0, 8), st.integers(0, 100))
@examples(60)
def test_new_items_take_free_codes_and_move_none(
    given_: tuple[NDArray[np.float64], int, int], more: int, seed: int
) -> None:
    vectors, levels, width = given_
    book = fit_codebook(names(len(vectors)), vectors, levels=levels, width=width)
    more = min(more, width**levels - len(vectors))
    new = np.random.default_rng(seed).normal(size=(more, 3))
    wider = book.with_items(
        pl.Series([f"n{k}" for k in range(more)], dtype=pl.String), new, np.arange(more) % 2 == 0
    )
    old = dict(zip(book.items, book.codes.tolist(), strict=True))
    now = dict(zip(wider.items, wider.codes.tolist(), strict=True))
    assert {item: now[item] for item in old} == old
    assert len({tuple(code) for code in now.values()}) == len(vectors) + more
    assert np.array_equal(wider.trie.codes, wider.codes)
    assert set(wider.items.filter(pl.Series(~wider.available))) == {
        f"n{k}" for k in range(1, more, 2)
    }
    if more:
        assert wider.added == more
        in_two = book.with_items(pl.Series(["n0"]), new[:1]).with_items(
            pl.Series([f"n{k}" for k in range(1, more)], dtype=pl.String), new[1:]
        )
        assert np.array_equal(in_two.codes, wider.codes)  # one night after another, or both at once


def test_a_new_item_goes_where_its_like_is() -> None:
    rng = np.random.default_rng(3)
    kind = np.repeat(np.arange(8), 10)
    centres = 5 * rng.normal(size=(8, 6))
    book = fit_codebook(
        names(80), centres[kind] + 0.1 * rng.normal(size=(80, 6)), levels=3, width=8
    )
    first = dict(zip(book.items, book.codes[:, 0], strict=True))
    new = book.with_items(pl.Series([f"n{k}" for k in range(8)]), centres)
    now = dict(zip(new.items, new.codes[:, 0], strict=True))
    assert [now[f"n{k}"] for k in range(8)] == [first[f"i{10 * k}"] for k in range(8)]


def test_new_items_that_cannot_be_added_are_refused(tmp_path: Path) -> None:
    book = fit_codebook(names(6), np.eye(6), levels=1, width=8)
    for items, vectors, message in (
        (["i3"], np.eye(6)[:1], "first 'i3'"),
        (["n", "n"], np.eye(6)[:2], "given twice"),
        (["n"], np.ones((1, 5)), r"shape \(1, 5\) given for 1 items, expected \(1, 6\)"),
        (["a", "b", "c"], np.eye(6)[:3], "2 of 8.1 semantic IDs are free"),
    ):
        with pytest.raises(DataError, match=message):
            book.with_items(pl.Series(items), vectors)
    with pytest.raises(DataError, match=r"available of shape \(2,\) given for 1 new items"):
        book.with_items(pl.Series(["n"]), np.eye(6)[:1], np.ones(2, dtype=bool))
    book.save(tmp_path / "codes.parquet")
    assert (
        len(
            Codebook.load(tmp_path / "codes.parquet", 8)
            .with_items(pl.Series(["n"]), np.eye(6)[:1])
            .items
        )
        == 7
    )
    (tmp_path / "codes.safetensors").unlink()
    with pytest.raises(DataError, match="was changed after it was written"):
        Codebook.load(tmp_path / "codes.parquet", 8)
    pl.read_parquet(tmp_path / "codes.parquet").write_parquet(
        tmp_path / "codes.parquet"
    )  # an older folder, without a digest
    with pytest.raises(DataError, match="without its centres"):
        Codebook.load(tmp_path / "codes.parquet", 8).with_items(pl.Series(["n"]), np.eye(6)[:1])


def test_purity_and_collisions_by_hand() -> None:
    codes = np.array([[0, 0], [0, 1], [0, 2], [1, 0], [1, 1]])
    book = Codebook(names(5), codes, 3, np.ones(5, dtype=bool))
    assert book.purity(pl.Series(["a", "a", "b", "b", "b"])) == [4 / 5, 1.0]
    assert book.purity(pl.Series(["a", None, "b", "b", "a"])) == [2 / 4, 1.0]
    with pytest.raises(DataError, match="4 labels given for 5 items"):
        book.purity(pl.Series(["a"] * 4))
    twins = fit_codebook(names(4), np.array([[0.0, 0], [0, 0], [0, 5], [9, 0]]), levels=1, width=4)
    assert (twins.report.collisions, twins.report.moved) == (
        2 / 4,
        0,
    )  # the code left over repeats their centre, so neither had to move


# -- trie ----------------------------------------------------------------------------------------


def dict_trie(codes: NDArray[np.int64]) -> dict[int, Any]:
    root: dict[int, Any] = {}
    for row in codes.tolist():
        node = root
        for code in row:
            node = node.setdefault(code, {})
    return root


@given(sorted_codes())
@examples(60)
def test_the_trie_is_a_dict_of_dicts(given_: tuple[NDArray[np.int64], int]) -> None:
    codes, width = given_
    trie, levels = Trie.build(codes, width), codes.shape[1]
    assert np.array_equal(trie.codes, codes)
    assert trie.levels == levels
    layer = [((), dict_trie(codes))]  # every node of a depth: its prefix and its children
    for level in range(levels):
        assert trie.nodes(level) == len(layer)
        below = []
        for node, (prefix, children) in enumerate(layer):
            first, last = trie.ptr[level][node], trie.ptr[level][node + 1]
            assert trie.code[level][first:last].tolist() == sorted(children)
            for code, child in sorted(children.items()):
                assert trie.child(level, np.array([node]), np.array([code])).tolist() == [
                    len(below)
                ]
                below.append(((*prefix, code), child))
            leaves = [
                leaf for leaf, row in enumerate(codes.tolist()) if tuple(row[:level]) == prefix
            ]
            assert list(range(trie.span[level][node], trie.span[level][node + 1])) == leaves
            assert (trie.node_of(level, np.array(leaves)) == node).all()
        layer = below
    assert [list(prefix) for prefix, _ in layer] == codes.tolist()
    assert np.array_equal(trie.node_of(levels, np.arange(len(codes))), np.arange(len(codes)))


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        ([[1, 0], [0, 1]], "sorted and distinct"),
        ([[0, 1], [0, 1]], "sorted and distinct"),
        ([[0, 4]], "codes from 0 to 4 given, expected 0 to 3"),
        ([[-1, 0]], "codes from -1"),
        ([], "at least one item"),
    ],
)
def test_codes_that_are_no_trie_are_refused(codes: list[list[int]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Trie.build(np.array(codes, dtype=np.int64), 4)


def test_the_version_changes_with_codes_width_and_availability_and_only_then() -> None:
    codes = np.array([[0, 1], [0, 2], [3, 0]])
    versions = [
        Trie.build(codes, 4).version,
        Trie.build(codes, 5).version,
        Trie.build(codes, 4, np.array([True, False, True])).version,
        Trie.build(np.array([[0, 1], [0, 3], [3, 0]]), 4).version,
        Trie.build(np.array([[0, 1], [1, 2], [3, 0]]), 4).version,
    ]
    assert len(set(versions)) == 5
    assert Trie.build(codes.copy(), 4, np.ones(3, dtype=bool)).version == versions[0]


@given(sorted_codes(), st.data())
@examples(80)
def test_what_is_allowed_is_what_a_loop_over_the_catalogue_finds(
    given_: tuple[NDArray[np.int64], int], data: st.DataObject
) -> None:
    codes, width = given_
    n_items = len(codes)
    free = np.array(data.draw(st.lists(st.booleans(), min_size=n_items, max_size=n_items)))
    exclusions = data.draw(
        st.lists(st.lists(st.integers(-1, n_items - 1), max_size=6), min_size=1, max_size=3)
    )  # -1: unknown; repeats too
    trie = Trie.build(codes, width, free)
    flat = np.array([leaf for part in exclusions for leaf in part], dtype=np.int64)
    allowed = Allowed.of(trie, np.cumsum([0, *map(len, exclusions)]), flat)
    for context, excluded in enumerate(exclusions):
        open_leaves = [leaf for leaf in range(n_items) if free[leaf] and leaf not in excluded]
        assert (
            np.flatnonzero(allowed.allows(np.full(n_items, context), np.arange(n_items))).tolist()
            == open_leaves
        )
        for level in range(trie.levels + 1):
            nodes = np.arange(trie.nodes(level))
            node_of_open = trie.node_of(level, np.array(open_leaves, dtype=np.int64))
            count = np.bincount(node_of_open, minlength=len(nodes))
            assert allowed.left(level, np.array(context), nodes).tolist() == count.tolist()
            if level < trie.levels:
                mask = allowed.mask(level, np.array(context), nodes)
                expected = np.zeros((len(nodes), width), dtype=bool)
                expected[node_of_open, codes[open_leaves, level]] = True
                assert np.array_equal(mask, expected)
    assert allowed.count().tolist() == [
        len({leaf for leaf in range(n_items) if free[leaf]} - set(excluded))
        for excluded in exclusions
    ]
    all_contexts = np.arange(len(exclusions))[:, None]
    together = allowed.mask(0, all_contexts, np.zeros((1, 2), dtype=np.int64))
    assert together.shape == (len(exclusions), 2, width)
    assert np.array_equal(
        together[:, 1],
        allowed.mask(0, all_contexts[:, 0], np.zeros(len(exclusions), dtype=np.int64)),
    )


# -- vectors -------------------------------------------------------------------------------------


def small_lake(titles: Sequence[str | None], plays: list[tuple[int, int]]) -> Lake:
    """Items i0.. with these titles; (user, item) plays, one per minute."""
    lake = Lake.memory()
    items = pl.DataFrame(
        {
            "item_id": names(len(titles)),
            "title": pl.Series(titles, dtype=pl.String),
            "added_at": pl.Series([START] * len(titles), dtype=US),
        }
    )
    events = pl.DataFrame(
        {
            "event_id": [f"e{k}" for k in range(len(plays))],
            "user_id": [f"u{user}" for user, _ in plays],
            "item_id": [f"i{item}" for _, item in plays],
            "kind": ["play"] * len(plays),
            "time": pl.Series([START + timedelta(minutes=k) for k in range(len(plays))], dtype=US),
        }
    )
    lake.append(
        "all", items=items, events=events if plays else None, watermark=START + timedelta(days=9)
    )
    return lake


def test_items_nobody_played_get_the_vector_of_their_words() -> None:
    """Rock and jazz listeners never mix; i6 is a new rock item, i7 a new jazz one."""
    plays = [(user, item) for user in range(12) for item in ([0, 1, 2] if user % 2 else [3, 4, 5])]
    lake = small_lake(["loud rock"] * 3 + ["cool jazz"] * 3 + ["loud rock", "cool jazz"], plays)
    index = ItemIndex(lake.items["item_id"])
    behaviour, both = behaviour_vectors(lake, index), item_vectors(lake, index)
    row = {item: k for k, item in enumerate(index.ids)}
    assert not behaviour[[row["i6"], row["i7"]]].any()
    likeness = both @ both.T
    assert likeness[row["i6"], row["i0"]] > likeness[row["i6"], row["i3"]] + 0.1
    assert likeness[row["i7"], row["i3"]] > likeness[row["i7"], row["i0"]] + 0.1
    assert likeness[row["i0"], row["i1"]] > likeness[row["i0"], row["i3"]] + 0.5
    assert np.linalg.norm(behaviour[row["i0"]]) == pytest.approx(1)
    assert np.array_equal(both, item_vectors(lake, index))


@pytest.mark.parametrize("titles", [[None] * 4, ["the same song"] * 4, [""] * 3 + ["word"]])
@pytest.mark.parametrize(
    "plays",
    [
        [],
        [(0, 0), (0, 1), (1, 0), (1, 1)],
        [(0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (1, 2), (2, 0), (2, 1), (2, 2)],
    ],
)
def test_a_catalogue_without_variety_still_has_finite_vectors_and_codes(
    titles: list[str | None], plays: list[tuple[int, int]]
) -> None:
    lake = small_lake(titles, plays)
    index = ItemIndex(lake.items["item_id"])
    vectors = item_vectors(lake, index)
    assert vectors.shape == (4, 48)
    assert np.isfinite(vectors).all()
    assert len(np.unique(fit_codebook(index.ids, vectors).codes, axis=0)) == 4


def test_text_vectors_follow_the_index_not_the_table() -> None:
    items = small_lake(["rock", "jazz", "rock", "jazz"], []).items
    forward = text_vectors(items, ItemIndex(["i0", "i1", "i2", "i3", "unlisted"]))
    assert np.allclose(forward[0], forward[2])
    assert abs(forward[0] @ forward[1]) < 1e-9
    assert not forward[4].any()
    turned = text_vectors(items[[3, 2, 1, 0]], ItemIndex(["i1", "i0"]))
    assert abs(turned[0] @ turned[1]) < 1e-9


def test_a_run_compares_codes_with_two_creators_and_with_nothing_where_one_made_all() -> None:
    book = Codebook(names(4), np.array([[0, 0], [0, 1], [1, 0], [1, 1]]), 2, np.ones(4, dtype=bool))
    items = pl.DataFrame(
        {
            "item_id": names(4),
            "creator_id": ["a", "a", "b", "b"],
            "tags": [["x"], ["x"], None, ["x"]],
        }
    )
    found = _purity(book, items)
    assert found.keys() == {"creator"}  # one tag tells nothing
    assert found["creator"].found == (1.0,)
