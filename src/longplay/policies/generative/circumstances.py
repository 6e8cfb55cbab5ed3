"""Tokens beside the items of a history: how long ago, where, what was done, and the outcome asked
for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from longplay.arrays import Int
from longplay.decisions import Contexts
from longplay.errors import ConfigError
from longplay.lake.schema import ENGAGED

READS = ("gap", "surface", "want", "kind")  # kind stands after its item, the others stand before
# seconds at which the next bucket begins
GAPS = (
    300,
    3_600,
    6 * 3_600,
    86_400,
    3 * 86_400,
    7 * 86_400,
    28 * 86_400,
)
LEVELS = 4  # of what is wanted, about equally many outcomes in each


@dataclass(frozen=True)
class CircumstanceTokens:
    """Tokens of the circumstances of E items in N histories, counted from the first token of
    circumstances (`Vocabulary.circumstance`).

    Attributes:
        leading: tokens read before each item, [E, P].
        trailing: tokens read after each item, [E, S].
        upcoming: tokens read before the item that comes next, [N, P].
    """

    leading: Int
    trailing: Int
    upcoming: Int

    @classmethod
    def none(cls, items: int, histories: int) -> Self:
        """Empty tokens, for a model that reads items alone."""
        return cls(*(np.zeros((rows, 0), dtype=np.int64) for rows in (items, items, histories)))

    def take(self, items: Int, histories: Int) -> Self:
        """The tokens of the items and histories at these rows, in that order."""
        return replace(
            self,
            leading=self.leading[items],
            trailing=self.trailing[items],
            upcoming=self.upcoming[histories],
        )


@dataclass(frozen=True)
class Circumstances:
    """The circumstances that a model reads beside items, and the meaning of their tokens.

    A history is read as `gap surface want ITEM kind gap surface want ITEM kind ... gap surface
    want`, whatever `reads` has of these; then comes the item that is asked for. Token 0 of each
    stands for what is not known: the gap before the first item that is read, the surface of an
    event that names none, an outcome that nobody asks for.

    Attributes:
        reads: some of `READS`: seconds since the item before (in buckets that begin at `GAPS`),
            surface, wanted outcome, kind of the event.
        surfaces: those with a token of their own; any other is not known.
        edges: values of the wanted outcome that part its levels, ascending, at most LEVELS - 1:
            level k is (edges[k-1], edges[k]].
    """

    reads: tuple[str, ...] = ()
    surfaces: tuple[str, ...] = ()
    edges: tuple[float, ...] = ()
    _sizes: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "reads", tuple(name for name in READS if name in checked_reads(self.reads))
        )
        sizes = {
            "gap": 2 + len(GAPS),
            "surface": 1 + len(self.surfaces),
            "want": 1 + LEVELS,
            "kind": 1 + len(ENGAGED),
        }
        object.__setattr__(self, "_sizes", {name: sizes[name] for name in self.reads})

    @classmethod
    def of(cls, reads: Sequence[str], surfaces: pl.Series) -> Self:
        """The circumstances of a log, with its surfaces in alphabetical order. `wanting` adds the
        edges of a wanted outcome."""
        return cls(
            tuple(reads),
            tuple(surfaces.drop_nulls().unique().sort().to_list()) if "surface" in reads else (),
        )

    def wanting(self, values: NDArray[np.float64]) -> Self:
        """The circumstances with levels by quantiles of these outcomes: about equally many in each,
        and fewer levels where many are equal."""
        if not len(values):
            return self
        inner = np.quantile(values, np.arange(1, LEVELS) / LEVELS, method="lower")
        edges = np.unique(inner)
        return replace(self, edges=tuple(float(value) for value in edges[edges < values.max()]))

    @property
    def token_count(self) -> int:
        """Number of tokens that stand for circumstances."""
        return sum(self._sizes.values())

    @property
    def leading(self) -> tuple[str, ...]:
        """Names of the circumstances that are read before each item."""
        return tuple(name for name in self.reads if name != "kind")

    def _first(self, name: str) -> int:
        return sum(self._sizes[other] for other in self.reads[: self.reads.index(name)])

    def tokens_of(
        self,
        offsets: Int,
        time: NDArray[np.float64] | None,
        kind: pl.Series | None,
        surface: pl.Series | None,
        next_time: NDArray[np.float64] | None = None,
        next_surface: pl.Series | None = None,
        next_want: NDArray[np.float64] | None = None,
    ) -> CircumstanceTokens:
        """The tokens of N histories of E items together.

        Null and NaN stand for what is not known.

        Args:
            offsets: history n has the items offsets[n] to offsets[n + 1] - 1, [N + 1].
            time: of each item, microseconds, [E].
            kind: of each item's event, [E].
            surface: of each item's event, [E].
            next_time: of the item that comes next, microseconds, [N].
            next_surface: on which the next item is shown, [N].
            next_want: outcome that the next item should lead to, [N].
        """
        items = int(offsets[-1])
        n = len(offsets) - 1
        leading_tokens = {
            "gap": lambda: gaps(offsets, time),
            "surface": lambda: self._surface(surface, items),
            "want": lambda: np.zeros(items, dtype=np.int64),
        }
        upcoming_tokens = {
            "gap": lambda: _since_last(offsets, time, next_time),
            "surface": lambda: self._surface(next_surface, n),
            "want": lambda: self.level(np.full(n, np.nan) if next_want is None else next_want),
        }
        trailing_tokens = (
            [self._first("kind") + _place(kind, ENGAGED, items)] if "kind" in self.reads else []
        )
        return CircumstanceTokens(
            _columns([self._first(name) + leading_tokens[name]() for name in self.leading], items),
            _columns(trailing_tokens, items),
            _columns([self._first(name) + upcoming_tokens[name]() for name in self.leading], n),
        )

    def of_contexts(
        self, contexts: Contexts, offsets: Int, places: Int, ask: float | None = None
    ) -> CircumstanceTokens:
        """The tokens of the histories of contexts, for the items that are read.

        Args:
            contexts: N contexts.
            offsets: where the items that are read begin and end for each context, [N + 1].
            places: places of these items among all items of the histories, [E].
            ask: the outcome asked for where a context wants none; null: none.
        """
        frame = contexts.frame
        count = frame["history"].list.len()

        def flat(name: str) -> pl.Series | None:
            if frame[name].null_count() == len(frame):
                return None
            nulls = pl.lit(None, dtype=frame.schema[name].inner).repeat_by(count)  # pyright: ignore[reportAttributeAccessIssue]
            lists = frame.select(pl.col(name).fill_null(nulls))[name]
            return lists.explode(empty_as_null=False).gather(places) if count.sum() else None

        time = flat("history_time")
        return self.tokens_of(
            offsets,
            None if time is None else _microseconds(time),
            flat("history_kind"),
            flat("history_surface"),
            _microseconds(frame["time"]),
            frame["surface"],
            frame["want"].cast(pl.Float64).fill_null(np.nan if ask is None else ask).to_numpy(),
        )

    def level(self, want: NDArray[np.float64]) -> Int:
        """The level of each wanted outcome, from 1; 0 for NaN."""
        return np.where(
            np.isnan(want), 0, 1 + np.searchsorted(np.array(self.edges), want, side="left")
        )

    def first_read(self, leading: Int) -> Int:
        """`leading[..., P]` of the first item that is read: its gap is not known."""
        if "gap" not in self.reads:
            return leading
        leading = leading.copy()
        leading[..., 0] = self._first("gap")
        return leading

    def wanted(self, leading: Int, level: Int) -> Int:
        """A copy of `leading[N, P]` with wanted outcomes of these levels."""
        leading = leading.copy()
        leading[:, self.leading.index("want")] = self._first("want") + level
        return leading

    def _surface(self, names: pl.Series | None, length: int) -> Int:
        return _place(names, self.surfaces, length)

    def settings(self) -> dict[str, Any]:
        """The arguments from which `Circumstances(**settings)` is made again, as JSON has them."""
        return {
            "reads": list(self.reads),
            "surfaces": list(self.surfaces),
            "edges": list(self.edges),
        }


def checked_reads(reads: Sequence[str]) -> Sequence[str]:
    """`reads`, after a check that each is one of `READS`.

    Raises:
        ConfigError: it is not.
    """
    wrong = [name for name in reads if name not in READS]
    if isinstance(reads, str) or wrong:
        raise ConfigError(f"reads={reads!r} given, expected a list of some of {', '.join(READS)}")
    return reads


NOTHING = Circumstances()


def gaps(offsets: Int, time: NDArray[np.float64] | None) -> Int:
    """The bucket of the time since the previous item, from 1, [E]; 0 for the first item of each
    history and where times are unknown."""
    if time is None or not len(time):
        return np.zeros(int(offsets[-1]), dtype=np.int64)
    bucket = _bucket(np.diff(time, prepend=np.nan))
    bucket[offsets[:-1][np.diff(offsets) > 0]] = 0
    return bucket


def _since_last(
    offsets: Int, time: NDArray[np.float64] | None, now: NDArray[np.float64] | None
) -> Int:
    bucket = np.zeros(len(offsets) - 1, dtype=np.int64)
    if time is not None and now is not None:
        some = np.diff(offsets) > 0
        bucket[some] = _bucket(now[some] - time[offsets[1:][some] - 1])
    return bucket


def _bucket(microseconds: NDArray[np.float64]) -> Int:
    return np.where(
        np.isnan(microseconds),
        0,
        1 + np.searchsorted(np.array(GAPS) * 1e6, microseconds, side="right"),
    )


def _microseconds(time: pl.Series) -> NDArray[np.float64]:
    return time.dt.epoch("us").cast(pl.Float64).fill_null(np.nan).to_numpy()


def _place(names: pl.Series | None, surfaces: Sequence[str], length: int) -> Int:
    """Position of each name in `surfaces`, from 1; 0 for any other name."""
    if names is None or not length or not surfaces:
        return np.zeros(length, dtype=np.int64)
    return (
        names.replace_strict(
            list(surfaces), list(range(1, len(surfaces) + 1)), default=0, return_dtype=pl.Int64
        )
        .fill_null(0)
        .to_numpy()
    )


def _columns(columns: list[Int], rows: int) -> Int:
    return np.stack(columns, axis=1) if columns else np.zeros((rows, 0), dtype=np.int64)
