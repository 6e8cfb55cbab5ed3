"""The engine of a run: executes stages in order, skips those that did not change, and resumes after
a kill."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, Generic, Literal, Protocol, TypeVar

from threadpoolctl import threadpool_limits

from longplay.errors import DataError, MissingExtra
from longplay.files import writer_lock
from longplay.lake import Lake
from longplay.progress import silent
from longplay.results import RunResults, StageResult, result_of, to_json
from longplay.run.folder import RESULT, RunFolder, StageKey, Stopwatch, read_result
from longplay.run.tables import Configuration, Table

LOG_STAGES = ("ingest", "simulate")  # a run has one of them
# sets what is fitted to the log in a stage's folder, and says it in a line
Settle = Callable[[Configuration, Path], tuple[Configuration, str]]
LEARNERS = ("scikit-learn", "torch", "transformers", "accelerate")  # of all that is trained
LIBRARIES = (
    "longplay",
    "duckdb",
    "numpy",
    "polars",
    "scipy",
)  # their versions can change every stage's result
WAIT_SECONDS = 0.2


class Ui(Protocol):
    """The interface through which stages report progress and results to the user."""

    def progress(
        self, label: str, done: int, total: int, figures: Mapping[str, float] | None = None
    ) -> None:
        """Report that `done` of `total` are done under `label`; a new label starts a new bar."""
        ...

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """A context within which a stage runs."""
        ...

    def finished(self, name: str, line: str, place: Path, seconds: float | None) -> None:
        """Report that a stage is finished; `seconds` is null where it was skipped."""
        ...

    def note(self, line: str) -> None:
        """Report a decision that was made for the user, in one line."""
        ...

    def waiting(self, folder: Path) -> None:
        """Report that this run waits for another one in the same run folder."""
        ...

    def damaged(self, name: str, why: str) -> None:
        """Report that a result was changed or damaged since it was written, so that its stage runs
        again."""
        ...


class Silent:
    """An interface that reports nothing, for tests and notebooks."""

    def progress(
        self, label: str, done: int, total: int, figures: Mapping[str, float] | None = None
    ) -> None:
        """Report nothing."""

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Run the stage without any display."""
        yield

    def finished(self, name: str, line: str, place: Path, seconds: float | None) -> None:
        """Report nothing."""

    def note(self, line: str) -> None:
        """Report nothing."""

    def waiting(self, folder: Path) -> None:
        """Report nothing."""

    def damaged(self, name: str, why: str) -> None:
        """Report nothing."""


Fitted = TypeVar("Fitted")


class Memory:
    """What a stage has fitted and later stages of the same process need again. A run that goes on in
    another process fits it again, to the same numbers."""

    def __init__(self) -> None:
        self._fitted: dict[Hashable, Any] = {}

    def once(self, key: Hashable, fit: Callable[[], Fitted]) -> Fitted:
        """The fitted value under this key.

        Args:
            key: everything that the value depends on.
            fit: computes the value, the first time.
        """
        if key not in self._fitted:
            self._fitted[key] = fit()
        return self._fitted[key]


@dataclass(frozen=True)
class Work:
    """The inputs of a stage: the configuration, a folder to write to, and the results of earlier
    stages."""

    config: Configuration
    folder: Path
    base: Path  # relative paths of the configuration start here
    places: Mapping[str, Path]
    results: RunResults
    ui: Ui
    now: datetime | None  # the clock's time, for "future" rows; null: no such check
    memory: Memory = field(default_factory=Memory)

    @property
    def lake(self) -> Lake:
        """The complete log of the run."""
        (log,) = (self.places[name] for name in LOG_STAGES if name in self.places)
        return Lake.open(log / "lake")

    @property
    def past(self) -> Lake:
        """The log as it was known when training ends."""
        return self.lake.before(self.config.split.trained)

    def bar(self, label: str) -> Callable[..., None]:
        """A progress callback (done, total, figures) under this label."""

        def tell(done: int, total: int, figures: Mapping[str, float] | None = None) -> None:
            self.ui.progress(label, done, total, figures)

        return tell


AnyResult = TypeVar("AnyResult", bound=StageResult)
Presence = Literal["required", "defaulted", "optional"]


def _nothing_to_check(config: Configuration) -> None:
    """Accept any configuration."""


@dataclass(frozen=True, kw_only=True)
class Stage(Generic[AnyResult]):
    """One stage of a run.

    Attributes:
        name: the name of its file, of its verb on the command line and of its table in run.toml.
        order: its place in a run: stages run from the least to the greatest.
        version: raised whenever the same inputs would give another result.
        help: what it does, a sentence for the command line.
        depends: what of the configuration the result depends on, as plain values for a hash.
        run: does the work and returns the figures.
        line: the figures in one line.
        needs: names of the stages whose results it reads; null: of all before it.
        table: the type of its table in run.toml; null where it has none.
        presence: whether run.toml must hold the table, may leave it to its defaults, or may do
            without it.
        check: raises `ValueError` where its table does not fit the others.
        applies: whether a run with this configuration has the stage.
        resumes: whether a stopped run goes on from what it left.
        settles: whether windows and days are fitted to the log once the stage is done.
        libraries: packages whose versions can change the result, beside `LIBRARIES`.
        loads: modules imported before the limit of threads is set, which does not reach what is
            imported later; nothing else needs to wait for them.
    """

    name: str
    order: int
    version: int
    help: str
    depends: Callable[[Configuration, Path], Any]
    run: Callable[[Work], AnyResult]
    line: Callable[[AnyResult], str]
    needs: tuple[str, ...] | None = ()
    table: type[Table] | None = None
    presence: Presence = "defaulted"
    check: Callable[[Configuration], None] = _nothing_to_check
    applies: Callable[[Configuration], bool] = lambda config: True
    resumes: bool = False
    settles: bool = False
    libraries: tuple[str, ...] = ()
    loads: tuple[str, ...] = ()

    def field(self) -> tuple[Any, Any]:
        """The stage's table as a field of a pydantic model: annotation and default."""
        if self.table is None or self.presence == "required":
            return self.table, ...
        if self.presence == "optional":
            return self.table | None, None
        return self.table, self.table()


def depends_on(*paths: str) -> Callable[[Configuration, Path], Any]:
    """Return a function that lists what a stage's result depends on: the seed and these parts of
    run.toml.

    A part is a table or a key, "table" or "table.key".
    """

    def depends(config: Configuration, base: Path) -> Any:
        tables = config.hashed()
        parts: dict[str, Any] = {}
        for path in paths:
            table, _, key = path.partition(".")
            parts[path] = tables[table][key] if key else tables[table]
        return parts | {"seed": config.run.seed}

    return depends


def perform(stage: Stage[AnyResult], work: Work) -> AnyResult:
    """Run a stage with the threads that its configuration allows.

    Raises:
        MissingExtra: a package that the stage needs is not installed.
    """
    try:
        for module in stage.loads:
            import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"the stage {stage.name!r} needs {error.name}: pip install 'longplay[llm]'"
        ) from error
    with threadpool_limits(work.config.run.threads), silent():  # the stage's own bars say it
        return stage.run(work)


def execute(
    stages: tuple[Stage[Any], ...],
    config: Configuration,
    *,
    base: Path,
    folder: RunFolder,
    settle: Settle | None = None,
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
    results: dict[str, StageResult] = {}
    memory = Memory()
    for stage in stages:
        key = keys[stage.name] = key_of(stage, config, base, keys)
        seconds = None
        if not is_done(folder, key):
            with turn(folder.path, ui, lambda key=key: is_done(folder, key)) as must_run:
                if must_run:
                    if (why := unusable(folder, key)) is not None:
                        ui.damaged(stage.name, why)
                    watch = Stopwatch()
                    partial = folder.begin(key, resumes=stage.resumes)
                    with ui.stage(stage.name), threadpool_limits(config.run.threads):
                        finished = RunResults(dict(results))
                        work = Work(config, partial, base, dict(places), finished, ui, now, memory)
                        result = perform(stage, work)
                    timing = watch.read()
                    folder.finish(key, to_json(result), timing)
                    seconds = timing["seconds"]
        places[stage.name] = folder.place(key)
        results[stage.name] = read_stage(stage.name, folder.place(key))
        ui.finished(stage.name, stage.line(results[stage.name]), places[stage.name], seconds)
        if stage.name == until:
            break
        if stage.settles and settle is not None:
            config, line = settle(config, places[stage.name])
            if line:
                ui.note(line)
    return places


def read_stage(stage: str, place: Path) -> StageResult:
    """The result of a finished stage.

    Args:
        stage: its name.
        place: its folder.

    Raises:
        DataError: the file is damaged, or was written by another version of longplay.
    """
    value = read_result(place)
    try:
        return result_of(stage, value, place / RESULT)
    except DataError as error:
        raise DataError(
            f"{error}. It was written by another version of longplay; delete {place}, and the run "
            "makes it again"
        ) from error


def unusable(folder: RunFolder, key: StageKey) -> str | None:
    """Why the result of a finished stage cannot be used; null where it can, or where there is
    none."""
    why = folder.damage(key)
    if why is not None or not folder.place(key).is_dir():
        return why
    try:
        read_stage(key.stage, folder.place(key))
    except DataError as error:
        return str(error)
    return None


def is_done(folder: RunFolder, key: StageKey) -> bool:
    """Whether the stage has finished with exactly these inputs and its result can be read."""
    return folder.place(key).is_dir() and unusable(folder, key) is None


@contextmanager
def turn(folder: Path, ui: Ui, done: Callable[[], bool] = lambda: False) -> Iterator[bool]:
    """Wait until no other run works in `folder`, then hold its lock.

    Args:
        folder: the run folder.
        ui: is told once that this run waits.
        done: whether the work has been done, by the other run.

    Yields:
        Whether the lock is held and there is work to do; false where the other run has done it.
    """
    waiting = False
    while True:
        with writer_lock(folder, wait=False) as locked:
            if locked:
                yield not done()
                return
        if not waiting:
            ui.waiting(folder)
            waiting = True
        time.sleep(WAIT_SECONDS)
        if done():
            yield False
            return


def key_of(
    stage: Stage[Any], config: Configuration, base: Path, keys: Mapping[str, StageKey]
) -> StageKey:
    """The key of a stage, from its inputs and the keys of the stages before it."""
    depends = {"config": stage.depends(config, base), "threads": config.run.threads}
    inputs = {name: keys[name].digest for name in stage.needs or () if name in keys}
    return StageKey.of(
        stage.name, stage.version, depends, inputs, versions((*LIBRARIES, *stage.libraries))
    )


def versions(libraries: Iterable[str]) -> dict[str, str]:
    """Installed versions by package, without importing any: "absent" where one is not installed."""
    installed = {}
    for name in libraries:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            installed[name] = "absent"
    return installed


def keys_of(
    stages: tuple[Stage[Any], ...], config: Configuration, base: Path
) -> dict[str, StageKey]:
    """The key of every stage, in order; no stage is run."""
    keys: dict[str, StageKey] = {}
    for stage in stages:
        keys[stage.name] = key_of(stage, config, base, keys)
    return keys
