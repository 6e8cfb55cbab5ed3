"""Semantic IDs and the trie of valid ones; arrays only, no torch."""

from longplay.codes.churn import Churn, code_churn
from longplay.codes.codebook import Codebook, fit_codebook
from longplay.codes.new_items import placed_vectors, with_catalogue
from longplay.codes.text import clean, item_text
from longplay.codes.trie import Allowed, Trie
from longplay.codes.vectors import (
    behaviour_vectors,
    item2vec,
    item_vectors,
    sequence_vectors,
    text_vectors,
)

__all__ = [
    "Allowed",
    "Churn",
    "Codebook",
    "Trie",
    "behaviour_vectors",
    "clean",
    "code_churn",
    "fit_codebook",
    "item2vec",
    "item_text",
    "item_vectors",
    "placed_vectors",
    "sequence_vectors",
    "text_vectors",
    "with_catalogue",
]
