"""The package as it is installed and read: imports, the public door, names of files."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import longplay
from longplay.run import load_config

ROOT = Path(__file__).resolve().parents[1]


def test_import_is_under_a_second_and_brings_no_torch() -> None:
    code = (
        "import time; t = time.perf_counter(); import longplay, sys; print(time.perf_counter() "
        "- t, 'torch' in sys.modules)"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.split()
        for _ in range(3)
    ]
    assert all(torch == "False" for _, torch in runs)
    assert min(float(seconds) for seconds, _ in runs) < 1


def test_signals_rewards_and_the_world_need_no_torch() -> None:
    code = (
        "import longplay as lp, sys; lp.World, lp.Signal, lp.ProgressiveReward, lp.Popular, "
        "lp.load_config; print('torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False"]


@pytest.mark.parametrize("name", longplay.__all__)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    value = getattr(longplay, name)
    if name != "__version__":
        assert value.__doc__, f"{name} has no docstring"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        longplay.no_such_name  # noqa: B018


@pytest.mark.parametrize(
    ("written", "meant"),
    [("Signall", "Signal"), ("Wolrd", "World"), ("reinforced", "reinforce"), ("snip", "snips")],
)
def test_a_mistyped_name_is_told_the_name_that_is_meant(written: str, meant: str) -> None:
    with pytest.raises(AttributeError) as error:
        getattr(longplay, written)
    assert str(error.value).endswith(f"no attribute {written!r}; did you mean {meant}?")


def test_names_that_nothing_is_close_to_and_private_names_get_no_hint() -> None:
    for name in ("zzz", "_Signal", "__path_hooks__"):
        with pytest.raises(AttributeError) as error:
            getattr(longplay, name)
        assert str(error.value).endswith(f"no attribute {name!r}")


def test_a_file_name_occurs_once() -> None:
    """So that a name says which file is meant. Rooms whose files are named by stage are left out."""
    package = ROOT / "src" / "longplay"
    by_stage = {package / "run" / "stages", package / "report" / "sections"}
    names = Counter(
        path.name
        for path in package.rglob("*.py")
        if path.name != "__init__.py" and path.parent not in by_stage
    )
    assert [name for name, count in names.items() if count > 1] == []


@pytest.mark.parametrize(
    "file", sorted((ROOT / "examples").glob("*.toml")), ids=lambda file: file.name
)
def test_an_example_is_a_configuration_that_can_run(file: Path) -> None:
    load_config(file)
