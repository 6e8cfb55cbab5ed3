"""Text of items is safe to show: nothing unseen survives, nothing is longer than it may be, and
what a reader sees stays."""

from __future__ import annotations

import time
import unicodedata

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.utils.extmath import randomized_svd

from longplay.codes import clean, fit_codebook, item_text, text_vectors
from longplay.codes.text import TAGS_MOST, TEXT_MOST, TITLE_MOST, WHOLE_MOST, cleaned
from longplay.errors import DataError
from longplay.index import ItemIndex

REMOVED = {"Cc", "Cf", "Co", "Cs", "Zl", "Zp"}
# letters, marks and unassigned places that Unicode calls default ignorable
# (DerivedCoreProperties.txt)
INVISIBLE = {
    *[0x34F, 0x2065, 0x3164, 0xFFA0],
    *range(0x115F, 0x1161),
    *range(0x17B4, 0x17B6),
    *range(0x180B, 0x1810),
    *range(0xFE00, 0xFE10),
    *range(0xFFF0, 0xFFF9),
    *range(0xE0000, 0xE1000),
}
HOSTILE = [
    "[SEP]",
    "<s>",
    "</s>",
    "<|im_end|>",
    "<c0_17>",
    "\u202e",
    "\u2066",
    "\u200b",
    "\u200d",
    "\ufeff",
    "\x00",
    "\x1b[31m",
    "\r\n",
    "\u2028",
    "\x85",
    "\ud800",
    "\udfff",
    "\ue000",
    "\U000e0041",
    "\ufe0f",
    "\U000e0100",
    "\u3164",
    "\ufdfa",
    "\u0301",
    "\u0323",
    "\u3000",
    "½",
    "™",
    "´",
    "¨",
    "ｶﾞ",
    "👩‍🚀",
    "ﬁ",
    " ",
    "a",
]
ANYTHING = st.lists(
    st.one_of(st.sampled_from(HOSTILE), st.text(st.characters(exclude_categories=()), max_size=8)),
    max_size=30,
).map("".join)


def unsafe(text: str) -> set[str]:
    """Characters of it that must not be there."""
    return {
        c
        for c in text
        if unicodedata.category(c) in REMOVED
        or ord(c) in INVISIBLE
        or ord(c) & 0xFFFE == 0xFFFE
        or 0xFDD0 <= ord(c) <= 0xFDEF
    }


def table(
    titles: list[str | None],
    texts: list[str | None] | None = None,
    tags: list[list[str] | None] | None = None,
) -> pl.DataFrame:
    none = [None] * len(titles)
    return pl.DataFrame(
        {
            "item_id": [f"i{k}" for k in range(len(titles))],
            "title": titles,
            "text": texts or none,
            "tags": tags or none,
        },
        schema={
            "item_id": pl.String,
            "title": pl.String,
            "text": pl.String,
            "tags": pl.List(pl.String),
        },
    )


@given(ANYTHING, st.integers(0, 40))
def test_clean_text_is_one_short_line_of_what_can_be_seen_and_cleaning_it_again_changes_nothing(
    text: str, most: int
) -> None:
    shown = clean(text, most)
    assert len(shown) <= most
    assert not unsafe(shown)
    assert shown == " ".join(shown.split())
    assert unicodedata.is_normalized("NFKC", shown)
    assert clean(shown, most) == shown
    assert cleaned([text], most)[0] == shown


@given(st.text(st.characters(codec="ascii", exclude_categories=["Cc"])), st.integers(0, 40))
def test_plain_text_takes_a_short_way_to_the_same(text: str, most: int) -> None:
    assert clean(text, most) == cleaned([text], most)[0]


def test_of_all_characters_there_are_none_that_must_not_survives() -> None:
    every = [chr(number) for number in range(0x110000)]
    shown = cleaned(every, 40)
    assert not unsafe("".join(shown))
    assert cleaned(shown, 40).equals(shown)
    kept = {character for character, text in zip(every, shown, strict=True) if text}
    visible = {"L", "M", "N", "P", "S"}  # letters, marks, numbers, punctuation, symbols
    lost = {
        c
        for c in every
        if c not in kept and unicodedata.category(c)[0] in visible and ord(c) not in INVISIBLE
    }
    assert lost == {"™", "℠"}


@pytest.mark.parametrize(
    "text",
    [
        "Nocturnes, Op. 9 - No. 2 (Remastered) [Live] & more; 50% off!",
        "C++ & C#",
        "price: 5€",
        "👍🏽 🇯🇵 🎧",
        "東京の夜・交響曲第5番",
        "音楽",
        "한국 음악",
        "Война и мир",
        "Ελληνική μουσική",
        "Tiếng Việt",
        "Straße Ægir Łódź İstanbul",
        "ქართული",
        "مكتبة الموسيقى",
        "ספר השירים",
        "हिन्दी संगीत",
        "เพลงไทย",
    ],
)
def test_ordinary_text_of_many_scripts_stays_as_it_is(text: str) -> None:
    assert clean(text, 100) == text
    assert clean(f"\u202e {text}\x00\n", 100) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("👨‍👩‍👧 family", "👨👩👧 family"),  # joined emoji fall apart into what they are made of
        (
            "❤️ 1️⃣",
            "❤ 1⃣",
        ),  # the selectors that ask for colour are invisible, and a channel for hidden text
        ("🏴󠁧󠁢󠁥󠁮󠁧󠁿 flag", "🏴 flag"),  # so are tags
        ("می‌خواهم", "میخواهم"),
        ("cafe\u0301", "café"),
        ("e\u200b\u0301", "é"),  # what was kept apart by nothing comes together
        ("ｶﾞｲﾄﾞ Ｆｕｌｌ　ｗｉｄｔｈ", "ガイド Full width"),
        ("ﬁne № ㎏", "fine No kg"),
        ("Sony™ radio", "Sony radio"),  # NFKC alone would say SonyTM
        ("1½ cups", "1 1⁄2 cups"),  # and 11⁄2
        ("L´Oréal", "L'Oréal"),
        ("two\x0blines\x85\u2028here", "two lines here"),
        ("a\ud800b", "ab"),
        ("", ""),
        (" \t\u200b ", ""),
    ],
)
def test_what_is_folded_and_what_falls_away(text: str, shown: str) -> None:
    assert clean(text, 100) == shown


def test_text_is_cut_after_it_is_clean() -> None:
    assert clean("\u200b" * 1000 + "  the   title" + "\u202e" * 1000, 7) == "the tit"
    assert clean("the title", 4) == "the"
    assert clean("title", 0) == ""
    assert clean("\u0061\u0323\u0307" * 10, 10) == clean(
        "\u1ea1\u0307" * 10, 10
    )  # composed before it is counted
    with pytest.raises(DataError, match="at most -1 characters asked for"):
        clean("title", -1)
    with pytest.raises(DataError, match="at most -1 characters asked for"):
        clean("été", -1)


def test_huge_hostile_titles_cost_little() -> None:
    # catches: normalising before cutting; sorting a million accents takes Python's own normaliser
    # minutes
    started = time.process_time()
    for text in (
        "\u200b" * 10**6 + "a",
        " " * 10**6,
        "a" + "\u0301\u0323" * 10**6,
        "\ufdfa" * 10**6,
        "[SEP]" * 10**6,
    ):
        assert len(clean(text, 300)) <= 300
    assert time.process_time() - started < 5


def test_an_item_says_its_title_text_and_tags_each_within_its_own_cap() -> None:
    items = table(
        ["Nocturnes\n", None, "t" * 100_000, None],
        ["for  piano", "only text", "x" * 100_000, None],
        [["calm", "night"], None, ["y" * 500] * 500, []],
    )
    said = item_text(items)
    assert said[0] == "Nocturnes; for piano; calm, night"
    assert said[1] == "only text"
    assert said[3] == ""
    assert [len(part) for part in said[2].split("; ")] == [TITLE_MOST, TEXT_MOST, TAGS_MOST]
    assert len(said[2]) == WHOLE_MOST
    assert all(clean(one, WHOLE_MOST) == one for one in said)


def test_texts_follow_the_index_not_the_table() -> None:
    items = table(["zero", "one", "two"])
    assert item_text(items, ItemIndex(["i2", "unlisted", "i0"])).to_list() == ["two", "", "zero"]


def test_word_vectors_of_an_ordinary_catalogue_are_those_of_its_raw_words() -> None:
    # catches: separators or folding that change what TF-IDF counts, and with it the codes of every
    # catalogue
    titles = [
        "Hidden Rivers (chamber)",
        "L'Oréal Sony™ hair_dryer 2000W",
        "東京の夜",
        "Война и мир",
        None,
        "rock & roll - best of",
        "sedu ionic flat",
    ]
    texts = [
        "hidden chamber by Cleo Kovac",
        None,
        "交響曲",
        "roman; novel",
        None,
        "x, y & loud",
        "ionic",
    ]
    tags = [["chamber", "hidden"], ["hair care"], None, [], None, ["rock", "loud"], ["flat iron"]]
    words = [
        " ".join([title or "", text or "", " ".join(tag or [])])
        for title, text, tag in zip(titles, texts, tags, strict=True)
    ]
    left, size, _ = randomized_svd(
        TfidfVectorizer(max_features=20_000, sublinear_tf=True).fit_transform(words),
        4,
        random_state=0,
    )
    raw = left * size / np.maximum(np.linalg.norm(left * size, axis=1, keepdims=True), 1e-12)
    assert np.array_equal(
        text_vectors(table(titles, texts, tags), ItemIndex([f"i{k}" for k in range(7)]), dim=4), raw
    )


def test_a_hostile_catalogue_has_vectors_and_a_code_for_every_item() -> None:
    titles = [
        text.encode("utf-8", "ignore").decode() * repeats
        for text in HOSTILE
        for repeats in (1, 100, 20_000)
    ]
    index = ItemIndex([f"i{k}" for k in range(len(titles))])
    vectors = text_vectors(table(titles, titles, [[title] for title in titles]), index)
    assert np.isfinite(vectors).all()
    assert len(np.unique(fit_codebook(index.ids, vectors).codes, axis=0)) == len(titles)
