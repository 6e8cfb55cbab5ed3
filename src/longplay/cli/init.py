"""`longplay init`: write a run.toml, from a template or for a given log."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from longplay.cli.screen import console, guarded, wide
from longplay.errors import ConfigError
from longplay.files import write_file
from longplay.run.proposal import Proposal, propose

LogOrFile = Annotated[
    str | None,
    typer.Argument(
        metavar="[LOG]",
        help="Your log: a Parquet or CSV file, a folder, a pattern, or a lake. Without it: a "
        "template.",
    ),
]
RunFile = Annotated[
    Path | None,
    typer.Argument(metavar="[RUN.toml]", help="The file to write. Default: run.toml here."),
]


def init(log: LogOrFile = None, file: RunFile = None) -> None:
    """Write a run.toml that fits a log, and list what the log can answer and what it cannot.

    Without a log a commented template is written; `longplay init NAME.toml` writes it under that
    name. An existing file is never overwritten.
    """

    def write() -> None:
        place = file or Path("run.toml")
        wants_template = log is None
        if log is not None and file is None and log.endswith(".toml"):
            place = Path(log)
            wants_template = True
        if place.exists():
            raise ConfigError(f"{place} exists already; give another name")
        if log is None or wants_template:
            _write(place, resources.files("longplay.run").joinpath("template.toml").read_text())
            console.print(
                f"wrote {place}: set ingest.path and ingest.columns, then [bold]longplay run "
                f"{place}[/bold]"
            )
            return
        proposal = propose(Path(log), place)
        _write(place, proposal.text)
        _print_proposal(proposal, place)

    guarded(write)


def _write(place: Path, text: str) -> None:
    if not place.parent.is_dir():
        raise ConfigError(
            f"{place}: the folder {place.parent} does not exist; make it first, or give another "
            "name"
        )
    write_file(place, text)


def _print_proposal(proposal: Proposal, place: Path) -> None:
    out = wide()
    for sentence in proposal.seen:
        out.print(Text(sentence), soft_wrap=True)
    for head, sentences in (("this log can answer", proposal.can), ("it cannot", proposal.cannot)):
        out.print(Text(f"\n{head}", "bold"))
        for sentence in sentences:
            out.print(Text(f"- {sentence}"), soft_wrap=True)
    out.print(
        Text.assemble(f"\nwrote {place}: read it, then ", (f"longplay run {place}", "bold")),
        soft_wrap=True,
    )
