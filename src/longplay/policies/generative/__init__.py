"""The network of the generative policy: tokens, prompts, decoder and the searches on the trie."""
