"""Stages in order: skipped when nothing changed, resumed after a kill, one line of result each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from threadpoolctl import threadpool_limits

from longplay.estimate import Estimate
from longplay.run.config import RunConfig
from longplay.run.folder import RunFolder, StageKey, Stopwatch


class Ui(Protocol):
    """What a stage tells the person who waits."""

    def progress(self, label: str, done: int, total: int, figures: Mapping[str, float] | None = None) -> None:
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


class Silent:
    """Says nothing: for tests and notebooks."""

    def progress(self, label: str, done: int, total: int, figures: Mapping[str, float] | None = None) -> None:
        """Nothing."""

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Nothing around it."""
        yield

    def finished(self, name: str, line: str, place: Path, seconds: float | None) -> None:
        """Nothing."""

    def note(self, line: str) -> None:
        """Nothing."""


@dataclass(frozen=True)
class Work:
    """What a stage's function gets: the configuration, its own folder, the finished stages before it."""

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
    """One stage: what it needs, what of the configuration it depends on, how its result reads in one line.

    `version` is raised whenever the same inputs would give another result.
    """

    name: str
    version: int
    needs: tuple[str, ...]
    depends: Callable[[RunConfig, Path], Any]
    run: Callable[[Work], dict[str, Any]]
    line: Callable[[dict[str, Any]], str]
    resumes: bool = False
    settles: Callable[[RunConfig, Path], tuple[RunConfig, str]] | None = None  # the configuration once this stage is done, and a line about it


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
    """
    ui = Silent() if ui is None else ui
    keys: dict[str, StageKey] = {}
    places: dict[str, Path] = {}
    results: dict[str, dict[str, Any]] = {}
    for stage in stages:
        key = keys[stage.name] = key_of(stage, config, base, keys)
        seconds = None
        if not folder.done(key):
            watch = Stopwatch()
            partial = folder.begin(key, resumes=stage.resumes)
            with ui.stage(stage.name), threadpool_limits(config.run.threads):
                result = stage.run(Work(config, partial, base, dict(places), dict(results), ui, now))
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


def key_of(stage: Stage, config: RunConfig, base: Path, keys: Mapping[str, StageKey]) -> StageKey:
    """A stage's key, given those of the stages before it."""
    depends = {"config": stage.depends(config, base), "threads": config.run.threads}
    return StageKey.of(stage.name, stage.version, depends, {name: keys[name].digest for name in stage.needs if name in keys})


def keys_of(stages: tuple[Stage, ...], config: RunConfig, base: Path) -> dict[str, StageKey]:
    """Every stage's key, in order, without running any."""
    keys: dict[str, StageKey] = {}
    for stage in stages:
        keys[stage.name] = key_of(stage, config, base, keys)
    return keys


def plain(estimate: Estimate) -> dict[str, Any]:
    """An estimate as JSON: value, low and high (95%), n."""
    low, high = estimate.interval()
    finite = np.isfinite(low)
    return {"value": estimate.value, "low": low if finite else None, "high": high if finite else None, "n": estimate.n}
