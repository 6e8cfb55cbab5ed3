"""The package as it is installed and read: imports, the public door, the README."""

from __future__ import annotations

import doctest
import subprocess
import sys
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


@pytest.mark.parametrize("page", ["README.md", "docs/semantic-ids.md", "docs/signals.md"])
def test_a_page_with_code_runs(page: str) -> None:
    failures, tried = doctest.testfile(str(ROOT / page), module_relative=False)
    assert tried > 5
    assert failures == 0


def test_the_readme_ends_in_the_file_tree() -> None:
    tree = (ROOT / "README.md").read_text().rsplit("```", 2)[1]
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    for file in tracked:
        if (
            file.startswith(("src/", "tests/", "bench/", "docs/", "examples/"))
            and "results/" not in file
        ):
            assert Path(file).name in tree, f"{file} is not in the README's tree"


@pytest.mark.parametrize(
    "file", sorted((ROOT / "examples").glob("*.toml")), ids=lambda file: file.name
)
def test_an_example_is_a_configuration_that_can_run(file: Path) -> None:
    load_config(file)


def test_contributing_is_short() -> None:
    assert len((ROOT / "CONTRIBUTING.md").read_text().splitlines()) <= 45
