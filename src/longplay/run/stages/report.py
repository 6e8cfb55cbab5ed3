"""Stage `report`: one self-contained HTML page from the results of all stages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from longplay.results.page_figures import ReportResult
from longplay.run.engine import Stage, Work
from longplay.run.tables import Configuration


def run(work: Work) -> ReportResult:
    """Write one self-contained HTML page from the results of all stages."""
    from longplay.report import render

    page = render(work.config.run.name, work.results)
    (work.folder / "report.html").write_text(page, encoding="utf-8")
    return ReportResult(len(page.encode()), "report.html")


def _depends(config: Configuration, base: Path) -> Any:
    return {"name": config.run.name}


def _line(result: ReportResult) -> str:
    return f"{result.bytes / 1e6:.1f} MB, open report.html"


STAGE = Stage(
    name="report",
    order=1000,
    version=4,
    help="Write the report: one self-contained HTML page.",
    needs=None,  # every stage before it
    depends=_depends,
    run=run,
    line=_line,
    libraries=("altair", "jinja2", "vl-convert-python"),
)
