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
    """Look at a log and write a run.toml that fits it; say what it can answer and what not. An
    existing file is left alone.

    Without a log: a commented template. `longplay init NAME.toml` writes the template under that
    name.
    """

    def write() -> None:
        is_file_name = log is not None and file is None and log.endswith(".toml")
        place = Path(log) if is_file_name and log is not None else file or Path("run.toml")
        if place.exists():
            raise ConfigError(f"{place} exists already; give another name")
        if log is None or is_file_name:
            _write(place, resources.files("longplay.run").joinpath("template.toml").read_text())
            console.print(
                f"wrote {place}: set ingest.path and ingest.columns, then [bold]longplay run "
                f"{place}[/bold]"
            )
            return
        proposal = propose(Path(log), place)
        _write(place, proposal.text)
        _tell(proposal, place)

    guarded(write)


def _write(place: Path, text: str) -> None:
    if not place.parent.is_dir():
        raise ConfigError(
            f"{place}: the folder {place.parent} does not exist; make it first, or give another "
            "name"
        )
    write_file(place, text)


def _tell(proposal: Proposal, place: Path) -> None:
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
