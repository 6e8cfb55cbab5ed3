"""Semantic IDs and the trie of valid ones; arrays only, no torch."""

from longplay.codes.codebook import Codebook, fit_codebook
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
    "Codebook",
    "Trie",
    "behaviour_vectors",
    "clean",
    "fit_codebook",
    "item2vec",
    "item_text",
    "item_vectors",
    "sequence_vectors",
    "text_vectors",
]
