"""The run folder: each stage's result lies under a hash of its inputs and is written atomically.

runs/retail/
  train/3f9c02ab1d77/result.json   figures, equal for equal inputs train/3f9c02ab1d77/...
  what the stage made (a policy, a table) train/3f9c02ab1d77/depends.json  what the hash is of: the
  stage's version, its configuration, its inputs' hashes, the libraries' versions
  train/3f9c02ab1d77/timing.json   seconds and memory, which are never equal
  train/3f9c02ab1d77/files.json    SHA-256 of each of these files but timing.json: a result that was
  changed later is not used ingest/51c09a7e55d0/lake/        a log, with a files.json of its own,
  since its files are named anew by every run train/3f9c02ab1d77.partial/      a run that was
  stopped; the next one goes on from it
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from longplay.errors import DataError
from longplay.files import changed_file, digests_of, make_folder, sync_path, sync_tree, write_file

FILES = "files.json"
RESULT = "result.json"
DEPENDS = "depends.json"
TIMING = "timing.json"
LAKE = "lake"


@dataclass(frozen=True)
class StageKey:
    """The inputs that determine a stage's result: its version, configuration, earlier stages and
    libraries."""

    stage: str
    digest: str
    text: str = field(repr=False)  # JSON of all that the digest is of

    @classmethod
    def of(
        cls,
        stage: str,
        version: int,
        config: Any,
        inputs: Mapping[str, str],
        libraries: Mapping[str, str] | None = None,
    ) -> StageKey:
        """The key of a stage; `config` must be valid JSON, `libraries` holds installed versions by
        name."""
        parts = {
            "stage": stage,
            "version": version,
            "config": config,
            "inputs": dict(inputs),
            "libraries": dict(libraries or {}),
        }
        text = json.dumps(parts, sort_keys=True, default=str)
        return cls(stage, hashlib.sha256(text.encode()).hexdigest()[:12], text)


@dataclass(frozen=True)
class RunFolder:
    """The folder that holds the results of a run.

    Raises:
        DataError: a file lies where the run needs a folder.
    """

    path: Path

    def __post_init__(self) -> None:
        _refuse_file(self.path)

    def place(self, key: StageKey) -> Path:
        """The folder of a finished stage."""
        return self.path / key.stage / key.digest

    def partial(self, key: StageKey) -> Path:
        """The folder a stage works in until it is finished."""
        return self.path / key.stage / f"{key.digest}.partial"

    def done(self, key: StageKey) -> bool:
        """Whether the stage finished with exactly these inputs and its files are undamaged."""
        return self.place(key).is_dir() and self.damage(key) is None

    def damage(self, key: StageKey) -> str | None:
        """Why the result of a finished stage cannot be used; null where it can, or where there is
        none."""
        place = self.place(key)
        return damage_of(place) if os.path.lexists(place) else None

    def begin(self, key: StageKey, *, resumes: bool) -> Path:
        """The folder a stage works in: empty, or what a stopped run left where the stage
        resumes."""
        partial = self.partial(key)
        _refuse_file(partial.parent)
        if not resumes or not partial.is_dir():
            remove(partial)
        make_folder(partial)
        return partial

    def finish(self, key: StageKey, result: Mapping[str, Any], timing: Mapping[str, float]) -> Path:
        """Write the result and publish the stage's folder by one rename; it is on disk after the
        return.

        Every file of the stage is on disk before the rename, and the folder's name after it.
        """
        partial = self.partial(key)
        place = self.place(key)
        write_json(partial / RESULT, result)
        write_json(partial / DEPENDS, json.loads(key.text))
        write_json(partial / TIMING, timing)
        digests = {
            name: digest for name, digest in digests_of(partial).items() if not _differs(name)
        }
        if (partial / LAKE).is_dir():
            write_json(partial / LAKE / FILES, digests_of(partial / LAKE))
            digests[LAKE] = f"in {LAKE}/{FILES}"
        write_json(partial / FILES, digests)
        sync_tree(partial)
        remove(place)
        os.rename(partial, place)
        sync_path(place.parent)
        return place

    def result(self, key: StageKey) -> dict[str, Any]:
        """The result of a finished stage as JSON.

        Raises:
            DataError: they cannot be read.
        """
        return read_result(self.place(key))


def read_result(place: Path, name: str = RESULT) -> dict[str, Any]:
    """The figures in a finished stage's folder, as the stage wrote them.

    Args:
        place: the folder.
        name: of the JSON file in it.

    Raises:
        DataError: the file is not what the stage wrote, or cannot be read.
    """
    if (why := damage_of(place, only=(RESULT, name))) is not None:
        raise DataError(f"{why}; delete {place}, and the run makes it again")
    try:
        return _read_table(place / name)
    except DataError as error:  # of a folder without digests
        raise DataError(f"{error}; delete {place}, and the run makes it again") from error


def damage_of(place: Path, only: tuple[str, ...] | None = None) -> str | None:
    """Why the folder of a finished stage cannot be used; null where its files are as they were
    written.

    A folder of before `files.json` has no digests: its result must be JSON, and the rest is not
    checked.

    Args:
        place: the folder.
        only: names of files to check; default all.
    """
    if not place.is_dir():
        return f"{place}: is a file, expected a folder"
    try:
        _read_table(place / RESULT)
        if os.path.lexists(place / FILES):
            digests = _read_table(place / FILES)
        else:
            digests = _without_digests(place)
        if not digests:
            return None
        if RESULT not in digests:
            return f"{place / FILES}: does not list {RESULT}"
        if only is not None:
            return changed_file(
                place, {name: digest for name, digest in digests.items() if name in only}
            )
        has_lake = digests.pop(LAKE, None) is not None
        return changed_file(place, digests) or (_damage_of_lake(place / LAKE) if has_lake else None)
    except DataError as error:
        return str(error)


def _without_digests(place: Path) -> dict[str, Any]:
    """An empty table of digests, for stages written before digests existed.

    Raises:
        DataError: it had.
    """
    depends = place / DEPENDS
    if os.path.lexists(depends) and "libraries" in _read_table(depends):
        raise DataError(f"{place / FILES}: is missing")
    return {}


def _damage_of_lake(lake: Path) -> str | None:
    """Why the log of a stage cannot be used; files that were added to it count as damage, because
    all are read."""
    digests = _read_table(lake / FILES)
    added = [
        file
        for file in sorted(lake.rglob("_delta_log/*"))
        if file.relative_to(lake).as_posix() not in digests
    ]
    return changed_file(lake, digests) or (
        f"{added[0]}: was added after the stage had finished" if added else None
    )


def _differs(name: str) -> bool:
    """Whether a file may differ between runs of equal inputs: timings do, and so do the files of a
    log, which are checked by its own list."""
    return name == TIMING or name.partition("/")[0] == LAKE


def _read_table(file: Path) -> dict[str, Any]:
    """The JSON object that a file holds."""
    if not os.path.lexists(file):
        raise DataError(f"{file}: is missing")
    try:
        table = json.loads(file.read_bytes().decode())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{file}: cannot be read ({error})") from error
    if not isinstance(table, dict):
        raise DataError(f"{file}: holds {type(table).__name__}, expected an object")
    return table


def remove(path: Path) -> None:
    """Remove a file, a link or a whole folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif os.path.lexists(path):
        path.unlink()


def _refuse_file(folder: Path) -> None:
    """Raise an error where a file lies in the place of a folder."""
    for place in (folder, *folder.parents):
        if place.is_dir():
            return
        if os.path.lexists(place):
            raise DataError(
                f"{place} is a file, expected a folder for the run's results; move it away, or "
                "give another --folder"
            )


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically; it is on disk after the return."""
    write_file(path, json.dumps(value, indent=1, sort_keys=True, allow_nan=False))


class Stopwatch:
    """Measures wall seconds since it was created, and the CPU seconds and peak memory of this
    process."""

    def __init__(self) -> None:
        self._wall = time.perf_counter()
        self._cpu = time.process_time()

    def read(self) -> dict[str, float]:
        """The measurements so far: seconds, cpu_seconds, peak_gb."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        return {
            "seconds": time.perf_counter() - self._wall,
            "cpu_seconds": time.process_time() - self._cpu,
            "peak_gb": peak,
        }
