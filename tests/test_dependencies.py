"""What the package imports is what pyproject.toml declares, at versions that are tested (`make
test-lowest`)."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections import defaultdict
from pathlib import Path

import pytest
from lowest import pins

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "longplay"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DISTRIBUTION = {
    "sklearn": "scikit-learn",
    "vl_convert": "vl-convert-python",
}  # where it is not the import's name
NEEDS_AN_EXTRA = (
    "models/",
    "policies/",
    "learning/",
    "rewards/sequence/",
    "run/learn.py",
    "run/judge.py",
    "run/trial.py",
    "signals/engine/spark_sql.py",
    "world/gym.py",
)


def names_of(requirements: list[str]) -> set[str]:
    return {
        re.split(r"[<>=!~ ;\[]", requirement)[0].lower().replace("_", "-")
        for requirement in requirements
    }


BASE = names_of(PROJECT["dependencies"])
EXTRAS = {
    name: names_of(requirements)
    for name, requirements in PROJECT["optional-dependencies"].items()
    if name != "dev"
}


def imports_of(tree: ast.Module, always: bool) -> set[str]:
    """Distributions that a module imports: at its top level, where they are always needed, or
    anywhere in it."""
    nodes = tree.body if always else list(ast.walk(tree))
    roots = set[str]()
    for node in nodes:
        if isinstance(node, ast.Import):
            roots |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            roots.add(node.module.partition(".")[0])
    return {
        DISTRIBUTION.get(root, root).lower().replace("_", "-")
        for root in roots - sys.stdlib_module_names - {"longplay"}
    }


def by_distribution(always: bool) -> dict[str, set[str]]:
    """Distribution -> the modules that import it."""
    users: dict[str, set[str]] = defaultdict(set)
    for file in sorted(SOURCE.rglob("*.py")):
        for distribution in imports_of(ast.parse(file.read_text(encoding="utf-8")), always):
            users[distribution].add(file.relative_to(SOURCE).as_posix())
    return users


def test_everything_imported_is_declared() -> None:
    declared = BASE.union(*EXTRAS.values())
    assert {
        name: users for name, users in by_distribution(always=False).items() if name not in declared
    } == {}


def test_what_the_base_install_imports_is_in_the_base_install() -> None:
    needed = by_distribution(always=True)
    outside = {
        name: {user for user in users if not user.startswith(NEEDS_AN_EXTRA)}
        for name, users in needed.items()
        if name not in BASE
    }
    assert {name: users for name, users in outside.items() if users} == {}


def test_everything_declared_for_the_base_is_imported() -> None:
    assert BASE - by_distribution(always=False).keys() == set()


def test_an_extra_repeats_nothing_of_the_base() -> None:
    assert {name: packages & BASE for name, packages in EXTRAS.items() if packages & BASE} == {}


@pytest.mark.parametrize("extra", ["", "llm", "gym", "openvino"])
def test_every_bound_has_a_lowest_version(extra: str) -> None:
    requirements = PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"]
    assert all(re.fullmatch(r"[\w.-]+==[\d.]+", pin) for pin in pins(requirements))
