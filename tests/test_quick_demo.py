"""`longplay demo --quick`: a minute, no torch, and what it leaves out is said."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

# packages of the extra `llm` cannot be imported, as on a machine that does not have them
WITHOUT_TORCH = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers", "sentence_transformers", "peft"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
from longplay.cli import app, quick
"""


def demo(folder: Path, settings: str = "", *words: str) -> subprocess.CompletedProcess[str]:
    code = f"{WITHOUT_TORCH}{settings}\napp()"
    command = [sys.executable, "-c", code, "demo", "--quick", "--folder", str(folder), *words]
    return subprocess.run(command, capture_output=True, text=True)


def test_it_runs_to_a_report_without_torch_and_says_what_it_leaves_out(tmp_path: Path) -> None:
    small = "quick.USERS, quick.ITEMS, quick.VISITS, quick.VALUED = 300, 100, 60, 40"
    run = demo(tmp_path / "run", small, "--seed", "3")
    assert run.returncode == 0, run.stdout + run.stderr
    output = " ".join(run.stdout.split())
    for stage in ("simulate", "outcomes", "reward"):
        assert re.search(rf"✓ {stage}", output)
    for policy in ("uniform", "popular", "habit-forming"):
        assert re.search(rf"{policy} \d\.\d+ ", output)
    assert "Two questions, both per slot" in output  # the two columns differ by more than an error
    assert "left out: the language model, its reinforcement, the experiment and its audit" in output
    assert not re.search(r"\d+%|remaining|\r", run.stdout), "no bar of progress in a log"
    page = (tmp_path / "run" / "report.html").read_text()
    assert "habit-forming" in page
    assert "longplay demo --quick" in page


def test_the_whole_demo_without_torch_says_what_to_install(tmp_path: Path) -> None:
    code = f"{WITHOUT_TORCH}\napp()"
    command = [sys.executable, "-c", code, "demo", "--folder", str(tmp_path / "run")]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 2
    assert "pip install 'longplay[llm]'" in run.stderr
    assert "longplay demo --quick" in run.stderr


@pytest.mark.slow
def test_it_takes_a_minute_of_a_processor(tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert demo(tmp_path / "run").returncode == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 60
