"""The run: strict configuration, skipping, resuming after SIGKILL at any stage with equal
results."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from killing import contents, differences, kill_at_every_stage

from longplay.errors import ConfigError, DataError
from longplay.lake import Lake
from longplay.policies.generative_policy import Generative
from longplay.rewards import early
from longplay.rewards.guardrails import policy_metric
from longplay.rewards.showing import Showing
from longplay.rewards.showing_fit import fit_showing
from longplay.run import STAGES, load_config, run_stages
from longplay.run.config import parse_config
from longplay.run.engine import Silent
from longplay.run.stages.reward import FIGURE
from longplay.signals import Outcomes, Signal

TINY = """
[run]
name = "tiny"
seed = 3

[simulate]
users = 240
items = 120
days = 70

[split]
train_until = 2026-02-05
evaluate_until = 2026-02-12

[signals.habit]
entry = { kind = "discovery", of = "creator", novel_for = 28 }
measure = { kind = "days_with", of = "creator", threshold = 3 }
window = [1, 20]

[reward]
objectives = { habit = 1.0 }
guardrails = { coverage = 0.5, top_creator = 0.5 }
age = 7

[train]
exclude = "creator"
steps = 110

[reinforce]
steps = 24
contexts = 8
group = 4

[evaluate]
visits = 150
true_value_users = 20

[signals.active]
entry = { kind = "enrolment" }
measure = { kind = "active_days" }
window = [1, 7]

[experiment]
days = 24
north_star = "active"
true_users = 20
"""
SIMULATED = [stage.name for stage in STAGES if stage.name != "ingest"]


class Watching(Silent):
    """Remembers which stages ran and which were skipped."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.skipped: list[str] = []
        self.damages: list[str] = []

    def finished(self, name: str, line: str, place: Path, seconds: float | None) -> None:
        (self.skipped if seconds is None else self.ran).append(name)
        assert line

    def damaged(self, name: str, why: str) -> None:
        self.damages.append(f"{name}: {why}")


@pytest.fixture(scope="module")
def fits() -> list[tuple[str, datetime]]:
    """The signal and the last day of every model of showing that `clean` fitted, in order."""
    return []


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory, fits: list[tuple[str, datetime]]) -> Path:
    """A run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("clean")

    def counted(signal: Signal, lake: Lake, outcomes: Outcomes, *rest: Any) -> Showing:
        fits.append((signal.name, outcomes.as_of))
        return fit_showing(signal, lake, outcomes, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(early, "fit_showing", counted)
        run_stages(parse_config(TINY, "tiny"), base=folder, folder=folder)
    return folder


def test_a_run_fits_what_several_stages_need_once(
    clean: Path, fits: list[tuple[str, datetime]]
) -> None:
    # the stages reward, reinforce and audit read the same models
    assert len(fits) == len(set(fits)) > 0


def test_a_second_run_skips_every_stage(clean: Path) -> None:
    ui = Watching()
    run_stages(parse_config(TINY, "tiny"), base=clean, folder=clean, ui=ui)
    assert ui.ran == []
    assert ui.skipped == SIMULATED


def test_a_changed_key_reruns_its_stage_and_what_follows_only(clean: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(clean, folder)
    ui = Watching()
    run_stages(
        parse_config(TINY.replace("steps = 24", "steps = 2"), "tiny"),
        base=folder,
        folder=folder,
        ui=ui,
    )
    assert ui.ran == ["reinforce", "evaluate", "offpolicy", "experiment", "audit", "report"]


def test_the_limit_of_threads_reaches_what_a_stage_loads(tmp_path: Path) -> None:
    """k-means of more than 256 items has other last digits on two threads than on one: a run that
    goes on must not know which it was."""
    (tmp_path / "probe.py").write_text(
        "import sklearn.cluster\nfrom threadpoolctl import threadpool_info\n\n"
        "def counts(work):\n    return {'openmp': [one['num_threads'] for one in "
        "threadpool_info() if one['user_api'] == 'openmp']}\n"
    )
    script = (
        "import sys, types, longplay.run\nfrom threadpoolctl import threadpool_limits\nfrom "
        "longplay.run.engine import Stage, perform\n"
        "assert 'sklearn' not in sys.modules\n"
        f"sys.path.append({str(tmp_path)!r})\n"
        "def counts(work):\n    import probe\n    return probe.counts(work)\n"
        "stage = Stage(name='probe', order=0, version=1, help='', depends=None, line=str, "
        "run=counts, loads=('probe',))\n"
        "work = "
        "types.SimpleNamespace(config=types.SimpleNamespace(run=types.SimpleNamespace(threads=1)))\n"
        "with threadpool_limits(1):\n    print(perform(stage, work))\n"
    )
    free = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    said = subprocess.run(
        [sys.executable, "-c", script], env=free, check=True, capture_output=True, text=True
    ).stdout
    assert said == "{'openmp': [1]}\n"


def test_sigkill_at_every_stage_then_a_new_start_gives_results_equal_to_those_of_another_process(
    clean: Path, tmp_path: Path
) -> None:
    file = tmp_path / "run.toml"
    file.write_text(TINY)
    folder = tmp_path / "run"
    kill_at_every_stage(file, folder, SIMULATED)
    subprocess.run(
        [sys.executable, "-m", "longplay", "run", str(file), "--folder", str(folder)],
        check=True,
        capture_output=True,
    )
    assert differences(contents(folder, SIMULATED), contents(clean, SIMULATED)) == []


def test_the_run_learns_where_the_figures_are_small_and_honest(clean: Path) -> None:
    (evaluate,) = (clean / "evaluate").glob("*/result.json")
    result = json.loads(evaluate.read_text())
    names = {row["policy"] for row in result["ranking"]}
    assert names == {"popular", "start", "reward-weighted", "reinforced"}
    metrics = {row["metric"] for row in result["ranking"]}
    assert {f"{measure}@{k}" for measure in ("HR", "NDCG") for k in (1, 5, 10, 50)} <= metrics
    assert {"coverage@10", "cold-start share@10", "habit NDCG@10"} <= metrics
    assert set(result["true_value"]) == {"users", "policies", "differences"}
    (codes,) = (clean / "codes").glob("*/result.json")
    creator = json.loads(codes.read_text())["purity"]["creator"]
    assert (
        len(creator["found"])
        == len(creator["shuffled"])
        == json.loads(codes.read_text())["levels"] - 1
    )
    assert (
        creator["found"][-1] > creator["shuffled"][-1]
    )  # who is heard together, and described alike, stands together
    (reinforce,) = (clean / "reinforce").glob("*/result.json")
    assert json.loads(reinforce.read_text())["curve"][-1]["kl"] > 0
    assert json.loads(reinforce.read_text())["guardrails"] == {
        "coverage@10": 0.5,
        "beyond top creator": 0.5,
    }
    assert json.loads(reinforce.read_text())["curve"][-1]["beyond top creator"] > 0.5
    assert isinstance(json.loads(reinforce.read_text())["alarms"], list)
    shown = {
        row["policy"]: row["value"]
        for row in result["ranking"]
        if row["metric"] == "creators per slate@5"
    }
    assert set(shown) == names
    assert all(1 <= value <= 5 for value in shown.values())


def test_the_figures_that_a_run_may_guard_are_those_that_there_are() -> None:
    """Reading a run must not import what a stage does: the names stand in two places."""
    for name in (
        "coverage",
        "coverage@1",
        "coverage@10",
        "top_creator",
        "coverage@0",
        "coverage@",
        "coverage@x",
        "top",
        "habit",
        "coverage@05",
    ):
        assert (FIGURE.fullmatch(name) is not None) == (policy_metric(name) is not None), name


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("steps = 24", "stepz = 24", "reinforce.stepz: unknown key; did you mean 'steps'?"),
        (
            "coverage = 0.5",
            "coverag = 0.5",
            "expected one of coverage, coverage@5, top_creator, habit, active; did you mean "
            "'coverage'?",
        ),
        (
            "coverage = 0.5",
            "coverage = 1.5",
            "reward.guardrails.coverage: 1.5 given, expected a share of the start's value in (0, 1]",
        ),
        (
            "coverage = 0.5",
            "coverage = 0.0",
            "reward.guardrails.coverage: 0 given, expected a share",
        ),
        (
            "users = 240",
            "users = 240\nexclude = 'seen'",
            "simulate.exclude = 'seen', but train.exclude = 'creator'",
        ),
        ("users = 240", "users = 0", "simulate.users: 0 given"),
        ("users = 240", "users = '150'", "simulate.users: '150' given"),
        ("habit = 1.0", "habti = 1.0", "did you mean 'habit'?"),
        ("window = [1, 20]", "window = [1, 2]", "expected at most 2, the days of the window"),
        ("evaluate_until = 2026-02-12", "evaluate_until = 2026-02-01", "must come before"),
        ("[simulate]", "[ingest]\npath = 'x'\n[simulate]", "exactly one of [ingest]"),
        ('exclude = "creator"', 'exclude = "all"', "train.exclude"),
        ("[run]", "[run", "not TOML"),
        ("steps = 110", "reads = ['weather']", "train.reads"),
        (
            "steps = 110",
            "want = 'habti'",
            "train.want: no [signals.habti] is declared; did you mean 'habit'?",
        ),
        ("steps = 110", "ask = 1.0", "train.ask = 1.0 but no train.want"),
    ],
)
def test_a_bad_configuration_is_told_by_key_value_and_remedy(old: str, new: str, told: str) -> None:
    assert old in TINY
    with pytest.raises(ConfigError) as error:
        parse_config(TINY.replace(old, new, 1), "run.toml")
    assert told in str(error.value)


def test_an_absent_file_and_an_absent_log_are_usage_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"run\.toml"):
        load_config(tmp_path / "none.toml")
    simulate = "[simulate]\nusers = 240\nitems = 120\ndays = 70\n"
    config = parse_config(
        TINY.split("[experiment]")[0].replace(
            simulate, "[ingest]\npath = 'gone.parquet'\n[ingest.columns]\nuser_id = 'u'\n"
        ),
        "run.toml",
    )
    with pytest.raises(ConfigError, match=r"gone\.parquet does not exist"):
        run_stages(config, base=tmp_path, folder=tmp_path / "run")


def test_an_evaluation_that_cannot_mature_is_refused_with_the_last_day_that_can(
    tmp_path: Path,
) -> None:
    text = TINY.replace("2026-02-12", "2026-03-05")
    with pytest.raises(
        DataError, match="immature at 2026-03-12; end the evaluation by 2026-02-"
    ):  # before anything is trained
        run_stages(parse_config(text, "tiny"), base=tmp_path, folder=tmp_path, until="outcomes")


def test_moving_the_end_of_the_evaluation_trains_nothing_again(clean: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(clean, folder)
    ui = Watching()
    run_stages(
        parse_config(TINY.replace("2026-02-12", "2026-02-13"), "tiny"),
        base=folder,
        folder=folder,
        ui=ui,
    )
    assert ui.ran == ["outcomes", "reward", "evaluate", "report"]


def test_a_policy_reads_what_train_says_and_asks_for_the_outcome_it_wants(
    clean: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(clean, folder)
    ui = Watching()
    text = TINY.replace(
        "steps = 110", "steps = 10\nreads = ['gap', 'surface', 'kind']\nwant = 'habit'\nask = 1.0"
    ).replace("steps = 24", "steps = 2")
    run_stages(parse_config(text, "tiny"), base=folder, folder=folder, ui=ui, until="evaluate")
    assert ui.ran == ["train", "reinforce", "evaluate"]
    policies = {
        json.loads(path.read_text())["ask"] for path in folder.glob("train/*/policy/policy.json")
    }
    assert policies == {None, 1.0}
    (asking,) = (
        path.parent
        for path in folder.glob("train/*/policy/policy.json")
        if json.loads(path.read_text())["ask"] is not None
    )
    policy = Generative.load(asking)
    assert policy.circumstances.reads == ("gap", "surface", "want", "kind")
    assert len(policy.circumstances.edges) >= 1
    assert "home" in policy.circumstances.surfaces
