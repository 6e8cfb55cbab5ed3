"""Semantic IDs and the trie of valid ones; arrays only, no torch."""

from longplay.codes.codebook import Codebook, fit_codebook
from longplay.codes.trie import Allowed, Trie
from longplay.codes.vectors import behaviour_vectors, item_vectors, text_vectors

__all__ = ["Allowed", "Codebook", "Trie", "behaviour_vectors", "fit_codebook", "item_vectors", "text_vectors"]
