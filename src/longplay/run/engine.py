"""Stages in order: skipped when nothing changed, resumed after a kill, one line of result each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from threadpoolctl import threadpool_limits

from longplay.estimate import Estimate
from longplay.files import writer_lock
from longplay.run.config import RunConfig
from longplay.run.folder import RunFolder, StageKey, Stopwatch

LIBRARIES = (
    "longplay",
    "duckdb",
    "numpy",
    "polars",
    "scipy",
)  # their versions can change every stage's result
WAIT_SECONDS = 0.2


class Ui(Protocol):
    """What a stage tells the person who waits."""

    def progress(
        self, label: str, done: int, total: int, figures: Mapping[str, float] | None = None
    ) -> None:
        """`done` of `total` of what `label` names; calls with a new label start a new bar."""
        ...

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """A stage runs inside."""
        ...

    def finished(self, name: str, line: str, place: Path, seconds: float | None) -> None:
        """A stage is done; `seconds` is null where it was skipped."""
        ...

    def note(self, line: str) -> None:
        """What was decided for the person who waits, in a line."""
        ...

    def waiting(self, folder: Path) -> None:
        """Another run works in the same run folder, and this one waits for it."""
        ...

    def damaged(self, name: str, why: str) -> None:
        """A finished stage's result is not what the stage wrote, so the stage runs again."""
        ...


class Silent:
    """Says nothing: for tests and notebooks."""

    def progress(
        self, label: str, done: int, total: int, figures: Mapping[str, float] | None = None
    ) -> None:
        """Nothing."""

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Nothing around it."""
        yield

    def finished(self, name: str, line: str, place: Path, seconds: float | None) -> None:
        """Nothing."""

    def note(self, line: str) -> None:
        """Nothing."""

    def waiting(self, folder: Path) -> None:
        """Nothing."""

    def damaged(self, name: str, why: str) -> None:
        """Nothing."""


@dataclass(frozen=True)
class Work:
    """What a stage's function gets: the configuration, its own folder, the finished stages before
    it."""

    config: RunConfig
    folder: Path
    base: Path  # relative paths of the configuration start here
    places: Mapping[str, Path]
    results: Mapping[str, dict[str, Any]]
    ui: Ui
    now: datetime | None  # the clock's time, for "future" rows; null: no such check

    def bar(self, label: str) -> Callable[..., None]:
        """A progress callback (done, total, figures) under this label."""

        def tell(done: int, total: int, figures: Mapping[str, float] | None = None) -> None:
            self.ui.progress(label, done, total, figures)

        return tell


@dataclass(frozen=True)
class Stage:
    """One stage: what it needs, what of the configuration it depends on, how its result reads in
    one line.

    `version` is raised whenever the same inputs would give another result. `libraries` are the
    packages whose installed versions can change the result, beside `LIBRARIES`.
    """

    name: str
    version: int
    needs: tuple[str, ...]
    depends: Callable[[RunConfig, Path], Any]
    run: Callable[[Work], dict[str, Any]]
    line: Callable[[dict[str, Any]], str]
    resumes: bool = False
    settles: Callable[[RunConfig, Path], tuple[RunConfig, str]] | None = (
        None  # the configuration once this stage is done, and a line about it
    )
    libraries: tuple[str, ...] = ()


def execute(
    stages: tuple[Stage, ...],
    config: RunConfig,
    *,
    base: Path,
    folder: RunFolder,
    until: str | None = None,
    ui: Ui | None = None,
    now: datetime | None = None,
) -> dict[str, Path]:
    """Run `stages` in order up to and including `until`; the finished stages' folders by name.

    A stage whose key (version, configuration, inputs) has a finished result is skipped; one that
    was killed starts again, or goes on if it saves its state. Numerical libraries use
    `config.run.threads` threads, so that one thread gives bit-equal results.

    One run at a time works on a stage of a run folder; another waits, and skips what was finished
    meanwhile. A finished stage is read without waiting. One whose files were changed or damaged
    since is named and runs again.
    """
    ui = Silent() if ui is None else ui
    keys: dict[str, StageKey] = {}
    places: dict[str, Path] = {}
    results: dict[str, dict[str, Any]] = {}
    for stage in stages:
        key = keys[stage.name] = key_of(stage, config, base, keys)
        seconds = None
        if not folder.done(key):
            with turn(folder.path, ui, lambda key=key: folder.done(key)) as mine:
                if mine:
                    if (why := folder.damage(key)) is not None:
                        ui.damaged(stage.name, why)
                    watch = Stopwatch()
                    partial = folder.begin(key, resumes=stage.resumes)
                    with ui.stage(stage.name), threadpool_limits(config.run.threads):
                        result = stage.run(
                            Work(config, partial, base, dict(places), dict(results), ui, now)
                        )
                    timing = watch.read()
                    folder.finish(key, result, timing)
                    seconds = timing["seconds"]
        places[stage.name] = folder.place(key)
        results[stage.name] = folder.result(key)
        ui.finished(stage.name, stage.line(results[stage.name]), places[stage.name], seconds)
        if stage.name == until:
            break
        if stage.settles is not None:
            config, line = stage.settles(config, places[stage.name])
            if line:
                ui.note(line)
    return places


@contextmanager
def turn(folder: Path, ui: Ui, done: Callable[[], bool] = lambda: False) -> Iterator[bool]:
    """Wait for the other run in `folder`, if there is one, and hold its lock meanwhile.

    Args:
        folder: the run folder.
        ui: is told once that this run waits.
        done: whether the work has been done, by the other run.

    Yields:
        Whether the lock is held and there is work to do; false where the other run has done it.
    """
    told = False
    while True:
        with writer_lock(folder, wait=False) as mine:
            if mine:
                yield not done()
                return
        if not told:
            ui.waiting(folder)
            told = True
        time.sleep(WAIT_SECONDS)
        if done():
            yield False
            return


def key_of(stage: Stage, config: RunConfig, base: Path, keys: Mapping[str, StageKey]) -> StageKey:
    """A stage's key, given those of the stages before it."""
    depends = {"config": stage.depends(config, base), "threads": config.run.threads}
    inputs = {name: keys[name].digest for name in stage.needs if name in keys}
    return StageKey.of(
        stage.name, stage.version, depends, inputs, versions((*LIBRARIES, *stage.libraries))
    )


def versions(libraries: Iterable[str]) -> dict[str, str]:
    """Installed versions by package, without importing any: "absent" where one is not installed."""
    found = {}
    for name in libraries:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


def keys_of(stages: tuple[Stage, ...], config: RunConfig, base: Path) -> dict[str, StageKey]:
    """Every stage's key, in order, without running any."""
    keys: dict[str, StageKey] = {}
    for stage in stages:
        keys[stage.name] = key_of(stage, config, base, keys)
    return keys


def plain(estimate: Estimate) -> dict[str, Any]:
    """An estimate as JSON: value, low and high (95%), n; no interval where an end of it is
    infinite."""
    low, high = estimate.interval()
    finite = np.isfinite(low) and np.isfinite(high)
    return {
        "value": estimate.value,
        "low": low if finite else None,
        "high": high if finite else None,
        "n": estimate.n,
    }
