"""A run from its configuration to its report."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from longplay.errors import ConfigError, DataError
from longplay.files import write_file
from longplay.lake import Lake
from longplay.run.config import folder_of
from longplay.run.engine import Silent, Ui, execute, turn
from longplay.run.feasible import check_extras, settle
from longplay.run.folder import RunFolder
from longplay.run.stages import stages_of
from longplay.run.tables import Configuration


def run_stages(
    config: Configuration,
    *,
    base: Path,
    folder: Path | None = None,
    until: str | None = None,
    ui: Ui | None = None,
    now: datetime | None = None,
) -> dict[str, Path]:
    """Run every stage of `config` in order, up to and including `until`; return their folders by
    name.

    Args:
        config: the run, checked.
        base: where the configuration's relative paths start.
        folder: the run folder, default `runs/<name>`.
        until: the last stage to run; default all.
        ui: shows progress; default nothing does.
        now: the clock, UTC.
    """
    place = folder_of(config) if folder is None else folder
    stages = stages_of(config)
    if until is not None and until not in {stage.name for stage in stages}:
        raise ConfigError(
            f"stage {until!r} is not in this run; it has "
            f"{', '.join(stage.name for stage in stages)}"
        )
    names = [stage.name for stage in stages]
    check_extras(stages if until is None else stages[: names.index(until) + 1])
    ui = Silent() if ui is None else ui
    places = execute(
        stages,
        config,
        base=base,
        folder=RunFolder(place),
        settle=lambda config, log: settle(config, Lake.open(log / "lake")),
        until=until,
        ui=ui,
        now=now,
    )
    published = sorted(places["audit"].glob("*.toml")) if "audit" in places else []
    if "report" in places:
        published.append(places["report"] / "report.html")
    for file in published:
        _publish(file, place, ui)
    return places


def _publish(file: Path, folder: Path, ui: Ui) -> None:
    """Copy a stage's file to the top of the run folder, unless the same file is already there."""
    copy = folder / file.name
    content = file.read_bytes()
    if copy.is_file() and copy.read_bytes() == content:
        return
    with turn(folder, ui):
        if copy.is_dir():
            raise DataError(f"{copy} is a folder, expected a file of this run; move it away")
        write_file(copy, content)
