"""Titles and other text of items, cleaned so that they are safe to show to a model, an encoder or a
reader.

Clean text is Unicode NFKC, one line, without anything that cannot be seen, and no longer than it
may be. What stays is what a reader sees: letters and marks of every script, punctuation, emoji.
What words say is not judged: an instruction in a title stays one, and "[SEP]" stays five
characters, so whoever shows text to a model tokenises it with special tokens disabled.
"""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl

from longplay.errors import DataError
from longplay.index import ItemIndex

TITLE_MOST = 300  # characters of an item's title
# of its text: about a thousand words of English tokens, four times what most sentence encoders read
TEXT_MOST = 4_000
TAGS_MOST = 600  # of all its tags together
BETWEEN = "; "  # title, text and tags
WHOLE_MOST = TITLE_MOST + TEXT_MOST + TAGS_MOST + 2 * len(BETWEEN)

# Controls, format characters (bidi, zero width, joiners, tags), private use, noncharacters, and
# letters and marks that are invisible by definition (fillers, variation selectors); not the
# controls that are white space. NFKC makes none of these from anything else.
_UNSEEN = r"[\p{Cc}\p{Cf}\p{Co}\p{Default_Ignorable_Code_Point}\p{Noncharacter_Code_Point}--\s]+"
_SPACES = r"\s\s+|[\s--\x20]"
# NFKC would join these to the word or number before: Sony™ to SonyTM, 1½ to 11/2, L´Oréal to L,
# space, accent
_APART = {"™": " ", "℠": " ", "´": "'"} | {
    fraction: f" {fraction}" for fraction in "¼½¾⅐⅑⅒⅓⅔⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞⅟↉"
}
_SHRINKS = 4  # characters that NFKC makes one of, at most: a letter with three marks


def clean(text: str, most: int) -> str:
    """`text` as it may be shown to a model: NFKC, on one line, without invisible characters, at
    most `most` characters.

    Cleaning twice changes nothing. Unseen is: controls, bidi and other format characters, zero
    width ones, variation selectors, private use, noncharacters, lone surrogates. So emoji that are
    joined fall apart into the emoji they are made of, and Persian and Indic words lose joiners that
    only shape letters.

    Raises:
        DataError: `most` is negative.

    >>> clean("Ｐｉａｎｏ\\u200b \\n Sonata\\u202e ①", 100), clean("👩‍🚀 東京 1½", 100), clean("far too long", 7)
    ('Piano Sonata 1', '👩🚀 東京 1 1⁄2', 'far too')
    """
    if most >= 0 and text.isascii() and text.isprintable():  # the same, a hundred times faster
        return " ".join(text.split())[:most].rstrip()
    return cleaned([text], most)[0]


def cleaned(texts: pl.Series | Iterable[str | None], most: int) -> pl.Series:
    """`clean` of many texts, in order; null stays null. A million titles take two seconds on one
    thread, a million texts of 500 bytes sixteen."""
    if most < 0:
        raise DataError(f"text: at most {most} characters asked for, expected 0 or more")
    if not isinstance(texts, pl.Series):  # a lone surrogate is no text, and cannot be stored as any
        texts = pl.Series(
            [None if text is None else text.encode("utf-8", "ignore").decode() for text in texts],
            dtype=pl.String,
        )
    return texts.to_frame("text").select(_cleaned(pl.col("text"), most)).to_series()


def item_text(items: pl.DataFrame, index: ItemIndex | None = None) -> pl.Series:
    """One text per item: its cleaned and shortened title, text and tags, as "title; text; tag,
    tag"; empty where it has none.

    Args:
        items: columns item_id, title, text, tags.
        index: texts in this order of items, empty where `items` has none; default the order of
            `items`.

    >>> nocturnes = {"item_id": "i0", "title": "Nocturnes ", "text": None, "tags": ["piano", "calm"]}
    >>> item_text(pl.DataFrame([nocturnes])).to_list()
    ['Nocturnes; piano, calm']
    """
    tags = pl.col("tags").cast(pl.List(pl.String)).list.join(", ")
    parts = [(pl.col("title"), TITLE_MOST), (pl.col("text"), TEXT_MOST), (tags, TAGS_MOST)]
    shown = [_cleaned(part.cast(pl.String), most).replace("", None) for part, most in parts]
    words = items.select(
        "item_id", pl.concat_str(shown, separator=BETWEEN, ignore_nulls=True).alias("words")
    )
    if index is not None:
        words = pl.DataFrame({"item_id": index.ids}).join(
            words, on="item_id", how="left", maintain_order="left"
        )
    return words["words"].fill_null("")


def _cleaned(text: pl.Expr, most: int) -> pl.Expr:
    seen = (
        text.fill_null("")
        .str.replace_many(_APART)
        .str.replace_all(_UNSEEN, "")
        .str.replace_all(_SPACES, " ")
        .str.strip_chars()
    )
    folded = (
        seen.str.slice(0, _SHRINKS * most)
        .str.normalize("NFKC")
        .str.replace_all(_SPACES, " ")
        .str.strip_chars()
    )
    return folded.str.slice(0, most).str.strip_chars()
