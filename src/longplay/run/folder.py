"""The run folder: every stage's result under a hash of what it depends on, written whole or not at all.

runs/retail/
  train/3f9c02ab1d77/result.json   figures, equal for equal inputs
  train/3f9c02ab1d77/...           what the stage made (a policy, a table)
  train/3f9c02ab1d77/depends.json  what the hash is of: the stage's version, its configuration, its inputs' hashes
  train/3f9c02ab1d77/timing.json   seconds and memory, which are never equal
  train/3f9c02ab1d77.partial/      a run that was stopped; the next one goes on from it
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


@dataclass(frozen=True)
class StageKey:
    """What a stage's result depends on: its own version, its configuration and its inputs' keys."""

    stage: str
    digest: str
    text: str = field(repr=False)  # JSON of all that the digest is of

    @classmethod
    def of(cls, stage: str, version: int, config: Any, inputs: Mapping[str, str]) -> StageKey:
        """The key; `config` must be JSON-able."""
        text = json.dumps({"stage": stage, "version": version, "config": config, "inputs": dict(inputs)}, sort_keys=True, default=str)
        return cls(stage, hashlib.sha256(text.encode()).hexdigest()[:12], text)


@dataclass(frozen=True)
class RunFolder:
    """Where a run's results lie."""

    path: Path

    def place(self, key: StageKey) -> Path:
        """The folder of a finished stage."""
        return self.path / key.stage / key.digest

    def partial(self, key: StageKey) -> Path:
        """The folder a stage works in until it is finished."""
        return self.path / key.stage / f"{key.digest}.partial"

    def done(self, key: StageKey) -> bool:
        """Whether the stage has finished with exactly these inputs."""
        return (self.place(key) / "result.json").exists()

    def begin(self, key: StageKey, *, resumes: bool) -> Path:
        """An empty folder to work in, or, for a stage that resumes, what a stopped run left."""
        partial = self.partial(key)
        if partial.exists() and not resumes:
            shutil.rmtree(partial)
        partial.mkdir(parents=True, exist_ok=True)
        return partial

    def finish(self, key: StageKey, result: Mapping[str, Any], timing: Mapping[str, float]) -> Path:
        """Write the result and make the stage's folder final in one rename."""
        partial, place = self.partial(key), self.place(key)
        write_json(partial / "result.json", result)
        write_json(partial / "depends.json", json.loads(key.text))
        write_json(partial / "timing.json", timing)
        if place.exists():
            shutil.rmtree(place)
        os.rename(partial, place)
        return place

    def result(self, key: StageKey) -> dict[str, Any]:
        """A finished stage's figures."""
        return json.loads((self.place(key) / "result.json").read_text())


def write_json(path: Path, value: Any) -> None:
    """Write JSON through a temporary file, so that a reader never sees half of it."""
    partial = path.with_name(path.name + ".writing")
    partial.write_text(json.dumps(value, indent=1, sort_keys=True, allow_nan=False))
    os.replace(partial, path)


def file_digest(path: Path) -> str:
    """SHA-256 of a file, or of all files below a folder with their names."""
    digest = hashlib.sha256()
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    for file in files:
        digest.update(str(file.relative_to(path) if path.is_dir() else file.name).encode())
        with file.open("rb") as handle:
            while block := handle.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


class Stopwatch:
    """Wall seconds since it was made, and this process's CPU seconds and peak memory."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def read(self) -> dict[str, float]:
        """seconds, cpu_seconds, peak_gb."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        return {"seconds": time.perf_counter() - self._wall, "cpu_seconds": time.process_time() - self._cpu, "peak_gb": peak}
