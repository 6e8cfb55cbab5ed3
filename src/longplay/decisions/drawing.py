"""Random numbers per context, and drawing without the items that a prefix holds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from longplay.chance import RowChance, keyed_bits, mix
from longplay.decisions.contexts import Contexts


def context_chance(contexts: Contexts, rng: np.random.Generator) -> RowChance:
    """One stream of random numbers per context, which follows from `rng`'s next number and the
    context's id alone.

    So a policy's slate for a context does not depend on what else is in the batch; contexts with
    equal ids get equal slates within one call.
    """
    bits = keyed_bits("longplay: context", contexts.frame["context_id"])
    return RowChance(mix(bits ^ rng.integers(0, 2**64, dtype=np.uint64)))


def outside(
    prefix_NK: NDArray[np.integer], drawn_NS: NDArray[np.integer], want: int
) -> NDArray[np.integer]:
    """The first `want` items of each drawn slate that are not in its prefix, [N, want]. At least so
    many must be left.

    Drawing without replacement is skipping repeats of independent draws (Plackett-Luce). So
    skipping the prefix, too, leaves independent draws restricted to its complement: what remains
    follows the same law given that the prefix is taken, first p(a) / (1 - sum of p over the
    prefix). A slate longer than its prefix always leaves some.

    >>> outside(np.array([[1, 2]]), np.array([[2, 7, 1, 4]]), 2).tolist()
    [[7, 4]]
    """
    taken_NS = (drawn_NS[:, :, None] == prefix_NK[:, None, :]).any(axis=2)
    # those outside first, in the order they were drawn
    order_NS = np.argsort(taken_NS, axis=1, kind="stable")
    return np.take_along_axis(drawn_NS, order_NS, axis=1)[:, :want]
