"""Result of the stage `report`: the page."""

from __future__ import annotations

from dataclasses import dataclass

from longplay.results.record import StageResult


@dataclass(frozen=True)
class ReportResult(StageResult, stage="report"):
    """The report.

    Attributes:
        bytes: its size.
        page: its file name.
    """

    bytes: int
    page: str
