"""`longplay lake check` and `longplay lake repair`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from longplay.cli.screen import console, guarded
from longplay.errors import DataError
from longplay.lake.repair import Progress as Told
from longplay.lake.repair import check, repair
from longplay.run.pins import log_of

lake = typer.Typer(
    no_args_is_help=True, help="Is a lake as it was written, and back to its last whole batch."
)
Log = Annotated[
    Path,
    typer.Argument(
        metavar="LAKE", help="A lake's folder, or a run folder or run.toml whose log it is."
    ),
]


@lake.command(name="check")
def check_lake(source: Log) -> None:
    """Compare every file with what the log of commits says of it, and name all damage; nothing is
    changed.

    Exit code 1 where something is damaged.
    """

    def compare() -> None:
        with _bar("compared") as told:
            checked = check(_folder(source), told)
        console.print(escape(str(checked)), soft_wrap=True)
        if checked.damages:
            raise DataError(
                f"{len(checked.damages)} damaged; `longplay lake repair {source}` goes back to "
                "the last whole batch"
            )

    guarded(compare)


@lake.command(name="repair")
def repair_lake(source: Log) -> None:
    """Go back to the last whole batch, and say which batches to append again; nothing is
    deleted."""

    def go_back() -> None:
        with _bar("compared") as told:
            repaired = repair(_folder(source), told)
        console.print(escape(str(repaired)), soft_wrap=True)

    guarded(go_back)


def _folder(source: Path) -> Path:
    """The lake's folder: what is given, where it holds tables, else the log of a run."""
    holds_tables = any((source / name).is_dir() for name in ("commits", "events"))
    return source if holds_tables else log_of(source)


@contextmanager
def _bar(label: str) -> Iterator[Told]:
    """A bar on a terminal, told how many of how many files are done."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not sys.stdout.isatty()
    ) as bars:
        task = bars.add_task(label, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)
