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
from longplay.lake.repair import Progress as FileProgress
from longplay.lake.repair import check, repair
from longplay.run.pins import log_of

lake = typer.Typer(no_args_is_help=True, help="Check a lake for damage, and repair it.")
Log = Annotated[
    Path,
    typer.Argument(
        metavar="LAKE", help="A lake folder, or a run folder or run.toml whose log is checked."
    ),
]


@lake.command(name="check")
def check_lake(source: Log) -> None:
    """Check every file of a lake against its commits, and list all damage. Nothing is changed.

    The exit code is 1 if something is damaged.
    """

    def compare() -> None:
        with _bar("compared") as report:
            checked = check(_folder(source), report)
        console.print(escape(str(checked)), soft_wrap=True)
        if checked.damages:
            raise DataError(
                f"{len(checked.damages)} damaged; `longplay lake repair {source}` goes back to "
                "the last complete batch"
            )

    guarded(compare)


@lake.command(name="repair")
def repair_lake(source: Log) -> None:
    """Go back to the last complete batch, and list the batches to append again. Nothing is
    deleted."""

    def go_back() -> None:
        with _bar("compared") as report:
            repaired = repair(_folder(source), report)
        console.print(escape(str(repaired)), soft_wrap=True)

    guarded(go_back)


def _folder(source: Path) -> Path:
    """The lake's folder: `source` itself where it holds tables, else the log of that run."""
    holds_tables = any((source / name).is_dir() for name in ("commits", "events"))
    return source if holds_tables else log_of(source)


@contextmanager
def _bar(label: str) -> Iterator[FileProgress]:
    """A progress bar on a terminal; yields the function to call with (files done, files)."""
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
