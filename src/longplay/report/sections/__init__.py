"""The sections of the page, one file per stage. Whatever file here holds `SECTIONS` is on every
page."""

from __future__ import annotations

import pkgutil
from importlib import import_module
from typing import Any

from longplay.report.steps import Steps


def _listed() -> tuple[Steps[Any, Any], ...]:
    """The sections of all files of this room, in their order."""
    modules = [import_module(f"{__name__}.{info.name}") for info in pkgutil.iter_modules(__path__)]
    steps: list[Steps[Any, Any]] = [section for module in modules for section in module.SECTIONS]
    return tuple(sorted(steps, key=lambda section: section.order))


SECTIONS = _listed()
