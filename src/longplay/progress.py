"""Progress of calls that usually take over two seconds: a line on a terminal or in a notebook, and
nothing in logs, pipes and tests."""

from __future__ import annotations

import math
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TextIO

from longplay.errors import ConfigError

WAIT_SECONDS = 2.0  # what takes less time needs no line
REDRAW_SECONDS = 0.5
# What a caller may give: a function that is told how far the call is, True for a line wherever it
# runs, False for none, None for a line where somebody is watching.
Progress = Callable[..., None] | bool | None

_silent: ContextVar[bool] = ContextVar("_silent", default=False)


@contextmanager
def silent() -> Iterator[None]:
    """Inside, nothing draws a line by itself: somebody else says how far the work is."""
    token = _silent.set(True)
    try:
        yield
    finally:
        _silent.reset(token)


@contextmanager
def reporting(what: str, unit: str, progress: Progress = None) -> Iterator[Callable[..., None]]:
    """Yield the function to call with (done, total) or (done, total, figures) on the way.

    It is the caller's own function where one is given. Otherwise it feeds a line on standard error
    that appears after two seconds and goes away at the end. Calls inside draw no line of their own.

    Args:
        what: name of the call.
        unit: what is counted, e.g. "days".
        progress: of the caller, see `Progress`.

    Raises:
        ConfigError: `progress` is of another type.
    """
    if callable(progress):
        with silent():
            yield progress
        return
    if not (progress is None or isinstance(progress, bool)):
        raise ConfigError(
            f"{what}: progress={progress!r} given, expected a function, True, False or None"
        )
    is_drawn = _is_watched() and not _silent.get() if progress is None else progress
    with silent():
        if not is_drawn:
            yield ignore
            return
        line = _Line(what, unit, sys.stderr)
        try:
            yield line
        finally:
            line.close()


def progress_text(
    what: str,
    unit: str,
    done: int,
    total: int,
    seconds: float,
    figures: Mapping[str, float] | None = None,
) -> str:
    """How far a call is: what is counted, of how many, and about how long the rest takes.

    Args:
        what: name of the call.
        unit: what is counted.
        done: how many are done.
        total: of how many; 0: not known yet.
        seconds: since the call began.
        figures: of the last step; `seconds_left`, where it is there, is the time left.

    >>> progress_text("World.run", "days", 30, 90, 12.0)
    'World.run: 30 of 90 days done, about 24 s left'
    >>> progress_text("World.run", "days", 1, 90, 6.0)
    'World.run: 1 of 90 days done, about 9 min left'
    >>> progress_text("reinforce", "steps", 5, 100, 9.0, {"reward": 0.51234, "seconds_left": 80.2})
    'reinforce: 5 of 100 steps done, about 81 s left; reward 0.5123'
    >>> progress_text("audit", "signals", 0, 2, 3.4), progress_text("audit", "signals", 2, 2, 7.2)
    ('audit: 0 of 2 signals done after 3 s', 'audit: 2 of 2 signals done after 7 s')
    >>> progress_text("audit", "signals", 0, 0, 3.4)
    'audit: no signals done yet after 3 s'
    """
    figures = figures or {}
    if not total:
        return f"{what}: no {unit} done yet after {seconds:.0f} s"
    text = f"{what}: {done:,} of {total:,} {unit} done"
    if 0 < done < total:
        left = figures.get("seconds_left", seconds * (total - done) / done)
        text += f", about {_duration(left)} left"
    else:
        text += f" after {seconds:.0f} s"
    words = figure_words(figures)
    return f"{text}; {words}" if words else text


def figure_words(figures: Mapping[str, float]) -> str:
    """Figures of a step in words; the step and the time left have places of their own.

    >>> figure_words({"step": 3, "loss": 6.91234, "tokens_per_second": 12345.6, "seconds_left": 200.4})
    'loss 6.912, 12,346 tokens/s'
    """
    shown = {name: value for name, value in figures.items() if name not in ("step", "seconds_left")}
    return ", ".join(
        f"{value:,.0f} tokens/s" if name == "tokens_per_second" else f"{name} {value:.4g}"
        for name, value in shown.items()
    )


def _duration(seconds: float) -> str:
    """Whole seconds or minutes, rounded up: it never says that nothing is left."""
    if not math.isfinite(seconds):
        return "an unknown time"
    if seconds <= 120:
        return f"{max(1, math.ceil(seconds))} s"
    return f"{math.ceil(seconds / 60)} min"


def ignore(*_: object) -> None:
    """Take a report of progress and do nothing: nobody is watching."""


def _is_watched() -> bool:
    """Whether standard error is a terminal or a notebook's cell."""
    ipython = sys.modules.get("IPython")
    if ipython is not None:
        shell = ipython.get_ipython()
        if shell is not None and type(shell).__name__ == "ZMQInteractiveShell":
            return True
    return sys.stderr is not None and sys.stderr.isatty()


class _Line:
    """One line that a thread writes anew twice a second, so that it moves while a single long step
    runs.

    Args:
        what: name of the call.
        unit: what is counted.
        out: where it is written.
    """

    def __init__(self, what: str, unit: str, out: TextIO) -> None:
        self._what, self._unit, self._out = what, unit, out
        self._state: tuple[int, int, Mapping[str, float]] = (0, 0, {})
        self._begun, self._part, self._width = time.monotonic(), "", 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._draw_on, daemon=True)
        self._thread.start()

    def __call__(
        self,
        done: int,
        total: int,
        figures: Mapping[str, float] | None = None,
        part: str = "",
    ) -> None:
        """`done` of `total` of this part of the work are done; figures of the last step."""
        if part != self._part:
            self._part, self._begun = part, time.monotonic()
        self._state = (done, total, figures or {})

    def close(self) -> None:
        """End the thread and take the line away."""
        self._ended.set()
        self._thread.join()
        if self._width:
            self._write("")

    def _draw_on(self) -> None:
        wait = WAIT_SECONDS
        while not self._ended.wait(wait):
            done, total, figures = self._state
            seconds = time.monotonic() - self._begun
            what = f"{self._what}, {self._part}" if self._part else self._what
            text = progress_text(what, self._unit, done, total, seconds, figures)
            if not self._write(text):
                return
            wait = REDRAW_SECONDS

    def _write(self, text: str) -> bool:
        """Write over what stands there; false where nothing can be written any more."""
        text = text[: shutil.get_terminal_size().columns - 1]
        padded = text.ljust(self._width)
        self._width = len(text)
        try:
            self._out.write(f"\r{padded}" if text else f"\r{padded}\r")
            self._out.flush()
        except (OSError, ValueError):  # the stream was closed
            return False
        return True
