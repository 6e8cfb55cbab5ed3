"""The catalogue as a trie of semantic IDs, in compressed sparse row form."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from longplay.errors import DataError
from longplay.index import distinct_keys, ranges

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Trie:
    """Valid semantic IDs: L levels of `width` codes, one leaf per catalogue row.

    Nodes of a level are numbered in the order of their codes, so a child's number is its position
    in the CSR arrays and leaf n is row n of the catalogue, which must be sorted by code.

    Attributes:
        ptr: per level, shape [nodes of the level + 1]: children of node n are ptr[n]..ptr[n+1].
        code: per level, shape [nodes of the next level]: the code on the edge to that child.
        span: per level (leaves included), shape [nodes + 1]: leaves below node n are
            span[n]..span[n+1].
        width: K, codes per level.
        available: which leaves may be generated, shape [I].
        is_added: which leaves came after the codes were fitted, shape [I]; null: none.

    >>> trie = Trie.build(np.array([[0, 1], [0, 2], [3, 0]]), width=4)
    >>> trie.levels, len(trie), trie.ptr[0].tolist(), trie.code[1].tolist()
    (2, 3, [0, 2], [1, 2, 0])
    """

    ptr: tuple[Ints, ...]
    code: tuple[Ints, ...]
    span: tuple[Ints, ...]
    width: int
    available: NDArray[np.bool_]
    is_added: NDArray[np.bool_] | None = None

    @classmethod
    def build(
        cls,
        codes: NDArray[np.integer],
        width: int,
        available: NDArray[np.bool_] | None = None,
        is_added: NDArray[np.bool_] | None = None,
    ) -> Trie:
        """The trie of `codes[I, L]`, whose rows are distinct and sorted.

        Raises:
            DataError: rows out of order or repeated, or a code outside 0..width-1.
        """
        codes = np.asarray(codes, dtype=np.int64)
        if codes.ndim != 2 or codes.size == 0:
            raise DataError(
                f"Trie: codes of shape {codes.shape} given, expected at least one item with at "
                "least one level"
            )
        if codes.min() < 0 or codes.max() >= width:
            raise DataError(
                f"Trie: codes from {codes.min()} to {codes.max()} given, expected 0 to {width - 1}"
            )
        order = np.lexsort(codes.T[::-1])
        if not np.array_equal(order, np.arange(len(codes))) or (
            len(codes) > 1 and (np.diff(codes, axis=0) == 0).all(axis=1).any()
        ):
            raise DataError("Trie: rows of codes must be sorted and distinct, one per item")
        ptr = []
        code = []
        span = [np.array([0, len(codes)])]
        for level in range(codes.shape[1]):
            prefix = codes[:, : level + 1]
            first = np.flatnonzero(
                np.concatenate([[True], (np.diff(prefix, axis=0) != 0).any(axis=1)])
            )
            ptr.append(np.searchsorted(first, span[-1]))
            code.append(codes[first, level])
            span.append(np.append(first, len(codes)))
        if available is None:
            free = np.ones(len(codes), dtype=bool)
        else:
            free = np.asarray(available, dtype=bool)
        return cls(tuple(ptr), tuple(code), tuple(span), width, free, is_added)

    def __len__(self) -> int:
        return int(self.span[0][-1])

    @property
    def levels(self) -> int:
        """L, codes per item."""
        return len(self.ptr)

    @cached_property
    def codes(self) -> Ints:
        """Semantic ID of every leaf, shape [I, L]."""
        return np.stack(
            [
                self.code[level][self.node_of(level + 1, np.arange(len(self)))]
                for level in range(self.levels)
            ],
            axis=1,
        )

    @cached_property
    def version(self) -> str:
        """Eight hex digits that change when the valid IDs change."""
        digest = hashlib.sha256(np.int64(self.width).tobytes())
        for level in range(self.levels):
            digest.update(self.ptr[level].tobytes() + self.code[level].tobytes())
        digest.update(self.available.tobytes())
        return digest.hexdigest()[:8]

    def node_of(self, depth: int, leaves: Ints) -> Ints:
        """The node at `depth` (0: the root, L: the leaf itself) above each leaf, same shape as
        `leaves`."""
        return np.searchsorted(self.span[depth], leaves, side="right") - 1

    def nodes(self, depth: int) -> int:
        """Number of nodes at `depth`."""
        return len(self.span[depth]) - 1

    def child(self, level: int, node: Ints, code: Ints) -> Ints:
        """The child of `node` (at depth `level`) along `code`; same shape. The edge must exist."""
        return np.searchsorted(self._edges[level], node * self.width + code)

    def children(self, level: int, node: Ints) -> tuple[Ints, Ints, Ints]:
        """All children of nodes at depth `level`: per child the place of its parent in the flattened
        `node`, its number, and the code that leads to it."""
        node = np.ravel(node)
        first = self.ptr[level][node]
        count = self.ptr[level][node + 1] - first
        owner = np.repeat(np.arange(len(node)), count)
        skipped = first - np.concatenate([[0], np.cumsum(count)[:-1]])
        child = np.repeat(skipped, count) + np.arange(count.sum())
        return owner, child, self.code[level][child]

    def find(self, codes: NDArray[np.integer]) -> Ints:
        """The leaf of each semantic ID [..., L], shape [...]; -1 where no item has it.

        >>> Trie.build(np.array([[0, 1], [3, 0]]), width=4).find(np.array([[3, 0], [0, 0], [0, 9]])).tolist()
        [1, -1, -1]
        """
        codes = np.asarray(codes, dtype=np.int64)
        node = np.zeros(codes.shape[:-1], dtype=np.int64)
        exists = ((codes >= 0) & (codes < self.width)).all(axis=-1)
        for level, edges in enumerate(self._edges):
            edge = node * self.width + codes[..., level]
            node = np.minimum(np.searchsorted(edges, edge), len(edges) - 1)
            exists &= edges[node] == edge
        return np.where(exists, node, -1)

    @cached_property
    def luck_numbers(self) -> tuple[Ints, ...]:
        """Per depth 0..L-1, a number of each node that stays its own however many items are added:
        what is random below it is a function of this number.

        Nodes that were there at the fit are numbered in order; later ones come behind them, by
        their codes read as digits.

        >>> fitted = Trie.build(np.array([[0, 1], [3, 0]]), width=4)
        >>> grown = Trie.build(
        ...     np.array([[0, 1], [2, 2], [3, 0]]), width=4, is_added=np.array([False, True, False])
        ... )
        >>> fitted.luck_numbers[1].tolist(), grown.luck_numbers[1].tolist()
        ([0, 1], [0, 4, 1])
        """
        if self.is_added is None or not self.is_added.any():
            return tuple(np.arange(self.nodes(depth)) for depth in range(self.levels))
        fitted_before = np.concatenate([[0], np.cumsum(~self.is_added)])
        digits = np.zeros(1, dtype=np.int64)
        numbers = []
        for depth in range(self.levels):
            is_fitted = np.diff(fitted_before[self.span[depth]]) > 0
            behind = int(is_fitted.sum()) + digits
            numbers.append(np.where(is_fitted, np.cumsum(is_fitted) - 1, behind))
            digits = np.repeat(digits, np.diff(self.ptr[depth])) * self.width + self.code[depth]
        return tuple(numbers)

    @cached_property
    def _edges(self) -> tuple[Ints, ...]:
        """Per level, parent x width + code of every edge, ascending."""
        parents_by_level = [np.repeat(np.arange(len(ptr) - 1), np.diff(ptr)) for ptr in self.ptr]
        return tuple(
            parent * self.width + code
            for parent, code in zip(parents_by_level, self.code, strict=True)
        )

    @cached_property
    def _free_before(self) -> Ints:
        return np.concatenate([[0], np.cumsum(self.available)])


@dataclass(frozen=True)
class Allowed:
    """The leaves that each of N contexts may be shown: the available leaves less the context's
    exclusions.

    The exclusions are kept as one sorted array, so that the number left below any node is two
    binary searches, whatever the size of the catalogue.
    """

    trie: Trie
    blocked: Ints  # sorted context * I + leaf
    n: int

    @classmethod
    def of(cls, trie: Trie, offsets: Ints, leaves: Ints) -> Allowed:
        """Allowed leaves from ragged exclusions: context n excludes
        leaves[offsets[n]:offsets[n+1]]; -1 (unknown) is ignored."""
        context = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
        keep = (leaves >= 0) & trie.available[np.maximum(leaves, 0)]
        return cls(trie, distinct_keys(context[keep] * len(trie) + leaves[keep]), len(offsets) - 1)

    @classmethod
    def everything(cls, trie: Trie, n: int) -> Allowed:
        """All available leaves, for `n` contexts without exclusions."""
        return cls(trie, np.zeros(0, dtype=np.int64), n)

    def between(self, start: int, stop: int) -> Allowed:
        """The allowed leaves of contexts `start` to `stop` - 1."""
        low, high = np.searchsorted(self.blocked, (start * len(self.trie), stop * len(self.trie)))
        return Allowed(self.trie, self.blocked[low:high] - start * len(self.trie), stop - start)

    def take(self, rows: Ints) -> Allowed:
        """The allowed leaves of these contexts, in this order."""
        low, high = np.searchsorted(
            self.blocked, (rows * len(self.trie), (rows + 1) * len(self.trie))
        )
        leaf = self.blocked[ranges(low, high - low)] % len(self.trie)
        owner = np.repeat(np.arange(len(rows)), high - low)
        return Allowed(self.trie, owner * len(self.trie) + leaf, len(rows))

    def left(self, depth: int, context: Ints, node: Ints) -> Ints:
        """Number of allowed leaves below `node` at `depth` for `context`; shapes are broadcast."""
        low = self.trie.span[depth][node]
        high = self.trie.span[depth][node + 1]
        free = self.trie._free_before[high] - self.trie._free_before[low]
        start = context * len(self.trie)
        return free - (
            np.searchsorted(self.blocked, start + high) - np.searchsorted(self.blocked, start + low)
        )

    def mask(self, level: int, context: Ints, node: Ints) -> NDArray[np.bool_]:
        """Which codes lead from `node` (at depth `level`) to an allowed leaf; shape [..., K].

        A gather over the node's own children: the cost does not depend on the catalogue.
        """
        shape = np.broadcast_shapes(np.shape(context), np.shape(node))
        context = np.broadcast_to(context, shape).ravel()
        node = np.broadcast_to(node, shape).ravel()
        owner, child, code = self.trie.children(level, node)
        mask = np.zeros((len(node), self.trie.width), dtype=bool)
        mask[owner, code] = self.left(level + 1, context[owner], child) > 0
        return mask.reshape(*shape, self.trie.width)

    def count(self) -> Ints:
        """Number of allowed leaves of every context, shape [N]."""
        return self.left(0, np.arange(self.n), np.zeros(self.n, dtype=np.int64))

    def allows(self, context: Ints, leaves: Ints) -> NDArray[np.bool_]:
        """Whether each leaf may be shown in its context; shapes are broadcast."""
        return self.left(self.trie.levels, context, leaves) > 0
