"""Terminal output of the commands: the width of tables, and how errors end a command."""

from __future__ import annotations

import os
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import typer
from rich.console import Console
from rich.markup import escape

from longplay.errors import ConfigError, LongplayError, MissingExtra

TABLE_WIDTH = (
    100  # columns that the widest tables need, and of a pipe, which has no width of its own
)
MOST_WORDS = 300  # characters of an exception that are shown
DATA_SAYS_NO, USAGE, OUR_FAULT, STOPPED = 1, 2, 3, 130
EXIT_CODES = "Exit codes: 0 done, 1 the data says no, 2 usage, 3 a fault of longplay itself."
# end a command on purpose; Exit and Abort are RuntimeErrors, a closed pipe is left to typer
ENDINGS = (typer.Exit, typer.Abort, typer.BadParameter, BrokenPipeError, SystemExit, GeneratorExit)
console = Console(stderr=False, highlight=False)


def wide() -> Console:
    """The terminal, or a pipe of `TABLE_WIDTH` columns."""
    return console if console.is_terminal else Console(highlight=False, width=TABLE_WIDTH)


def guarded(action: Callable[[], None]) -> None:
    """Run a command. Every error becomes one message and an exit code, never a traceback on the
    screen.

    Args:
        action: the command.

    Raises:
        typer.Exit: with the exit code.
    """
    try:
        with faults_in(None):
            action()
    except LongplayError as error:
        usage = isinstance(error, ConfigError | MissingExtra)
        _complain("usage" if usage else "the data says no", str(error))
        raise typer.Exit(USAGE if usage else DATA_SAYS_NO) from error
    except KeyboardInterrupt:
        Console(stderr=True).print("stopped; the same command goes on from here")
        raise typer.Exit(STOPPED) from None


@contextmanager
def faults_in(folder: Path | None) -> Iterator[None]:
    """Write an unexpected exception to a file, and end the command with one sentence and exit code
    3.

    Args:
        folder: where the file with the traceback goes; the temporary folder where this is null or
            cannot be written to.
    """
    try:
        yield
    except (LongplayError, KeyboardInterrupt, *ENDINGS):
        raise
    except BaseException as error:  # also panics of compiled libraries, which are no `Exception`
        place = _written(folder, traceback.format_exc())
        words = " ".join(f"{type(error).__name__}: {error}".split())
        words = words if len(words) <= MOST_WORDS else words[:MOST_WORDS] + "..."
        _complain(
            "a fault of longplay", f"{words}. The full traceback is in {place}; please report it"
        )
        raise typer.Exit(OUR_FAULT) from error


def _complain(kind: str, words: str) -> None:
    Console(stderr=True, highlight=False, soft_wrap=True).print(
        f"[bold red]{kind}:[/bold red] {escape(words)}"
    )


def _written(folder: Path | None, text: str) -> str:
    """Write the text to a new file in the folder, else in the temporary one; return its path."""
    name = f"fault-{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.getpid()}.txt"
    for place in (folder, Path(tempfile.gettempdir())):
        if place is not None and place.is_dir():
            try:
                (place / name).write_text(text, encoding="utf-8", errors="backslashreplace")
                return str(place / name)
            except OSError:
                continue
    return "no file, since none could be written"
