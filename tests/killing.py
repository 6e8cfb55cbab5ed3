"""Killing runs in the act, and comparing what they leave behind."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

from forked import fork
from safetensors.numpy import load_file

# the two that learn are killed after they saved their state, the others as soon as they are under
# way
SIGNS = {
    "train": "*.partial/checkpoint.safetensors",
    "reinforce": "*.partial/reinforce.safetensors",
}


def contents(folder: Path, stages: list[str]) -> dict[str, object]:
    """Everything a run found out: results, weights, codes and the report, by stage; not timing, not
    the lake's file names."""
    found: dict[str, object] = {}
    for stage in stages:
        (place,) = [path for path in (folder / stage).iterdir() if path.suffix != ".partial"]
        found[f"{stage} key"] = place.name
        for file in sorted(place.rglob("*")):
            name = f"{stage}/{file.relative_to(place)}"
            if file.suffix == ".safetensors":
                found[name] = {key: value.tobytes() for key, value in load_file(file).items()}
            elif file.is_file() and "lake" not in file.parts and file.name != "timing.json":
                found[name] = file.read_bytes()
    return found


def differences(one: dict[str, object], two: dict[str, object]) -> list[str]:
    """What `contents` of two runs do not share, by name; in JSON with the first few places and both
    values."""
    told = []
    for name in sorted(one.keys() | two.keys()):
        if name not in one or name not in two:
            told.append(f"{name}: only in the {'second' if name in two else 'first'}")
        elif one[name] != two[name]:
            told.append(f"{name}: {'; '.join(_places(name, one[name], two[name])[:5])}")
    return told


def _places(name: str, one: object, two: object) -> list[str]:
    if name.endswith(".json") and isinstance(one, bytes) and isinstance(two, bytes):
        one, two = json.loads(one), json.loads(two)
    if isinstance(one, dict) and isinstance(two, dict):
        return [
            f"{key}.{place}"
            for key in sorted(one.keys() | two.keys())
            for place in _places("", one.get(key), two.get(key))
        ]
    if isinstance(one, list) and isinstance(two, list) and len(one) == len(two):
        return [
            f"{row}.{place}" for row in range(len(one)) for place in _places("", one[row], two[row])
        ]
    if isinstance(one, bytes) or isinstance(two, bytes):
        return [] if one == two else ["other bytes"]
    return [] if one == two else [f"{one!r:.80} against {two!r:.80}"]


def kill_at_every_stage(file: Path, folder: Path, stages: list[str]) -> None:
    """SIGKILL the run of `file` once in every stage, each time starting it anew."""
    for stage in stages:
        assert kill_at(file, folder, stage, SIGNS.get(stage, "*.partial")), (
            f"{stage} could not be caught in the act"
        )
        assert not [path for path in (folder / stage).iterdir() if path.suffix != ".partial"], (
            f"{stage} had finished"
        )


def kill_at(file: Path, folder: Path, stage: str, sign: str, tries: int = 5) -> bool:
    """Start the run and SIGKILL it once `sign` appears in the stage's folder; true if the stage was
    not finished by then."""
    for _ in range(tries):
        process = fork("longplay", ["run", str(file), "--folder", str(folder)])
        while process.is_alive() and not list((folder / stage).glob(sign)):
            time.sleep(0.002)
        process.kill()
        process.join()
        if any(
            path.suffix != ".partial" for path in (folder / stage).iterdir()
        ):  # it was too quick: undo the stage
            shutil.rmtree(folder / stage)
            continue
        return True
    return False
