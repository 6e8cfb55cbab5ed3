"""Every bench runs in its quick form and writes rows of the agreed shape."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
from forked import IMPORTED, fork

ROOT = Path(__file__).resolve().parents[1]


BENCHES = sorted(
    path.stem for path in (ROOT / "bench").glob("*.py") if '"--quick"' in path.read_text()
)
SLOW = (
    "attribution",
    "beauty",
    "demo",
    "rewards",
    "serving",
    "signals",
    "world",
)  # 12 to 60 seconds


@pytest.mark.parametrize("script", BENCHES)
def test_every_bench_starts_and_says_what_it_measures(script: str, tmp_path: Path) -> None:
    said = tmp_path / "said"
    process = fork(ROOT / "bench" / f"{script}.py", ["--help"], said)
    process.join()
    assert process.exitcode == 0, said.read_text()
    assert "--quick" in said.read_text()


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(script, marks=pytest.mark.slow) if script in SLOW else script
        for script in BENCHES
    ],
)
def test_every_bench_runs_quickly_and_writes_rows(script: str, tmp_path: Path) -> None:
    rows, said = tmp_path / "rows.json", tmp_path / "said"
    process = fork(ROOT / "bench" / f"{script}.py", ["--quick", "--json", str(rows)], said)
    process.join()
    last = (
        said.read_text().strip().rpartition("\n")[2]
    )  # what `sys.exit` says, not what the bench printed before
    if process.exitcode and "is not there" in last:
        pytest.skip(last)
    assert process.exitcode == 0, said.read_text()
    for row in json.loads(rows.read_text()):
        assert {"claim", "value", "low", "high", "bar", "ok", "seeds", "command"} <= set(row)


@pytest.mark.parametrize("module", IMPORTED)
def test_what_a_forked_program_finds_imported_is_there(module: str) -> None:
    """multiprocessing passes silently over modules that cannot be imported."""
    assert find_spec(module) is not None
