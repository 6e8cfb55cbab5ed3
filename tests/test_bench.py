"""Every bench runs in its quick form and writes rows of the agreed shape."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    "script",
    sorted(path.stem for path in (ROOT / "bench").glob("*.py") if '"--quick"' in path.read_text()),
)
def test_every_bench_runs_quickly_and_writes_rows(script: str, tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    result = subprocess.run([sys.executable, str(ROOT / "bench" / f"{script}.py"), "--quick", "--json", str(file)], capture_output=True, text=True)
    if result.returncode and "is not there" in result.stderr:
        pytest.skip(result.stderr.strip())
    assert result.returncode == 0, result.stderr
    for row in json.loads(file.read_text()):
        assert {"claim", "value", "low", "high", "bar", "ok", "seeds", "command"} <= set(row)
