"""A section of the page in three steps: collect its figures, draw its charts, render both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from longplay.report.blocks import Section
from longplay.results import RunResults

Figures = TypeVar("Figures")
Charts = TypeVar("Charts")


@dataclass(frozen=True)
class Steps(Generic[Figures, Charts]):
    """The three steps that make a section.

    Attributes:
        order: its place on the page, from the least to the greatest.
        name: the anchor of its heading.
        title: its heading.
        absent: what the page says where there is nothing to collect; empty: the section is left
            out.
        collect: picks the figures of a run that the section shows; null where there are none.
        draw: makes charts of the figures.
        render: makes sentences and tables of the figures, and puts the charts among them.
    """

    order: int
    name: str
    title: str
    absent: str
    collect: Callable[[RunResults], Figures | None]
    draw: Callable[[Figures], Charts]
    render: Callable[[Figures, Charts], Section]

    def section(self, results: RunResults) -> Section | None:
        """The section of a run; null where it is left out."""
        figures = self.collect(results)
        if figures is not None:
            return self.render(figures, self.draw(figures))
        return Section(self.name, self.title, (self.absent,)) if self.absent else None
