"""What a section of the page is made of: plain frozen values that the template knows how to
draw."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar


@dataclass(frozen=True)
class Table:
    """Rows of text under a head; the first cell of a row names it.

    Attributes:
        caption: what the table shows.
        head: names of the columns.
        rows: cells, row by row.
        align: one letter per column, `l` or `r`.
        strong: index of the row set in bold, if any.
        swatches: colour of the dot beside a head or first cell that holds this text.
    """

    kind: ClassVar[str] = "table"
    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    align: str
    strong: int | None = None
    swatches: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Chart:
    """A Vega-Lite specification with the words that stand for it where it cannot be seen."""

    kind: ClassVar[str] = "chart"
    title: str
    spec: Mapping[str, Any]
    height: int

    @property
    def description(self) -> str:
        """What a screen reader says of the chart."""
        return str(self.spec["description"])


@dataclass(frozen=True)
class Note:
    """A paragraph that must be seen; `tone` is `plain` or `caution`."""

    kind: ClassVar[str] = "note"
    text: str
    tone: str = "caution"


@dataclass(frozen=True)
class Bullets:
    """A short list under a heading of the third level."""

    kind: ClassVar[str] = "bullets"
    title: str
    items: tuple[str, ...]


@dataclass(frozen=True)
class Code:
    """Text to copy, folded away."""

    kind: ClassVar[str] = "code"
    summary: str
    text: str


@dataclass(frozen=True)
class Heading:
    """A heading of the third level, with an optional line under it."""

    kind: ClassVar[str] = "heading"
    title: str
    text: str = ""


@dataclass(frozen=True)
class Grid:
    """Blocks side by side where there is room."""

    kind: ClassVar[str] = "grid"
    blocks: tuple[Block, ...]
    columns: int = 2


Block = Table | Chart | Note | Bullets | Code | Heading | Grid


@dataclass(frozen=True)
class Section:
    """A part of the page: the answer in sentences, then the tables and charts behind it."""

    name: str
    title: str
    answer: tuple[str, ...]
    blocks: tuple[Block, ...] = ()


@dataclass(frozen=True)
class Fact:
    """One key figure of the summary: its name, its value, and its interval or sample."""

    label: str
    value: str
    detail: str


def charts_of(blocks: Iterable[Block]) -> list[Chart]:
    """Every chart in page order, those inside grids included."""
    charts: list[Chart] = []
    for block in blocks:
        if isinstance(block, Chart):
            charts.append(block)
        elif isinstance(block, Grid):
            charts += charts_of(block.blocks)
    return charts
