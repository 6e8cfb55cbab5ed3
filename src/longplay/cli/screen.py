"""The screen: where commands print, how wide a table may be, how an error ends a command."""

from __future__ import annotations

from collections.abc import Callable

import typer
from rich.console import Console
from rich.markup import escape

from longplay.errors import ConfigError, LongplayError

TABLE_WIDTH = 100  # columns that the widest tables need, and of a pipe, which has no width of its own
console = Console(stderr=False, highlight=False)


def wide() -> Console:
    """The terminal, or a pipe of `TABLE_WIDTH` columns."""
    return console if console.is_terminal else Console(highlight=False, width=TABLE_WIDTH)


def guarded(action: Callable[[], None]) -> None:
    """Run; errors raised on purpose become one message and an exit code."""
    try:
        action()
    except LongplayError as error:
        kind = "usage" if isinstance(error, ConfigError) else "the data says no"
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"[bold red]{kind}:[/bold red] {escape(str(error))}")
        raise typer.Exit(2 if isinstance(error, ConfigError) else 1) from error
    except KeyboardInterrupt:
        Console(stderr=True).print("stopped; the same command goes on from here")
        raise typer.Exit(130) from None
