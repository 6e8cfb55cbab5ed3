"""One file per stage: its table of run.toml, its version, what it depends on, what it does, its
line of result and its help. Whatever file here holds a `STAGE` is a stage of every run."""

from __future__ import annotations

import pkgutil
from dataclasses import replace
from importlib import import_module
from typing import Any

from longplay.run.engine import Stage
from longplay.run.tables import Configuration


def _listed() -> tuple[Stage[Any], ...]:
    """The stages of all files of this room, in their order."""
    modules = [import_module(f"{__name__}.{info.name}") for info in pkgutil.iter_modules(__path__)]
    stages: list[Stage[Any]] = sorted(
        (module.STAGE for module in modules), key=lambda stage: stage.order
    )
    names = [stage.name for stage in stages]
    return tuple(
        replace(stage, needs=tuple(names[:place])) if stage.needs is None else stage
        for place, stage in enumerate(stages)
    )


STAGES = _listed()


def stages_of(config: Configuration) -> tuple[Stage[Any], ...]:
    """The stages of this run, in order."""
    return tuple(stage for stage in STAGES if stage.applies(config))
