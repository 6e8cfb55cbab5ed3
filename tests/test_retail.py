"""The retail run on a slice of the real log: from invoice lines to a report that says what it
cannot know."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from killing import contents, kill_at_every_stage

from longplay.run import STAGES, run_stages
from longplay.run.config import parse_config

ROOT = Path(__file__).resolve().parents[1]
LOG = ROOT.parent / "shared/data/online_retail/online_retail.parquet"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example's own configuration on every sixth customer, with few steps."""
    if not LOG.exists():
        pytest.skip(f"the retail log is not at {LOG}; see docs/data.md")
    folder = tmp_path_factory.mktemp("retail")
    log = pl.read_parquet(LOG)
    log.filter(
        pl.col("user_id").is_null() & (pl.int_range(pl.len()) % 7 == 0)
        | (pl.col("user_id") % 6 == 0)
    ).write_parquet(folder / "slice.parquet")
    text = (ROOT / "examples/retail.toml").read_text()
    for old, new in (
        ("../../shared/data/online_retail/online_retail.parquet", "slice.parquet"),
        ("steps = 600", "steps = 30"),
        ("steps = 150", "steps = 3"),
        ("[reinforce]", "[evaluate]\nvisits = 300\n\n[reinforce]"),
    ):
        assert old in text
        text = text.replace(old, new)
    run_stages(parse_config(text, "retail.toml"), base=folder, folder=folder)
    return folder


def result(run: Path, stage: str) -> dict:
    (file,) = run.glob(f"{stage}/*/result.json")
    return json.loads(file.read_text())


def test_cancellations_and_rows_without_customer_are_handled_and_reported(run: Path) -> None:
    ingest = result(run, "ingest")
    log = pl.read_parquet(run / "slice.parquet")
    assert ingest["rejected"]["missing user"] == log["user_id"].null_count()
    cancelled = log.filter(
        pl.col("user_id").is_not_null()
        & (pl.col("invoice").str.starts_with("C") | (pl.col("quantity") < 0))
    ).height
    assert ingest["kinds"]["refund"] == cancelled
    assert (
        ingest["kinds"]["purchase"]
        == log.filter(pl.col("user_id").is_not_null()).height - cancelled
    )
    assert any("refund" in note for note in ingest["notes"])


def test_what_a_log_without_decisions_cannot_say_is_said(run: Path) -> None:
    page = (run / "report.html").read_text()
    evaluate = result(run, "evaluate")
    assert evaluate["not_estimable"]["off-policy value"].startswith(
        "not estimable, this log has no propensities"
    )
    assert "not estimable, this log has no propensities" in page
    assert "an association, not an effect" in page
    assert "all events count as organic" in page
    assert result(run, "reward")["habit"]["association"] is True


def test_training_and_early_rewards_saw_nothing_after_the_cut(run: Path) -> None:
    outcomes = result(run, "outcomes")["habit"]
    assert outcomes["at_training"]["as_of"].startswith("2011-06-01")
    codes = pl.read_parquet(next(run.glob("codes/*/codes.parquet")))
    log = pl.read_parquet(run / "slice.parquet")
    first_seen = dict(
        log.filter(pl.col("user_id").is_not_null())
        .group_by("item_id")
        .agg(pl.col("ts").min())
        .iter_rows()
    )
    assert max(first_seen[item] for item in codes["item_id"]).isoformat() < "2011-06-01"


def test_every_habit_that_judges_the_ranking_has_matured(run: Path) -> None:
    evaluate = result(run, "evaluate")
    assert evaluate["habits"] > 0
    assert {"popular", "start", "reward-weighted", "reinforced"} == {
        row["policy"] for row in evaluate["ranking"]
    }


@pytest.mark.slow
def test_the_whole_run_is_killed_at_every_stage_and_ends_as_if_it_had_not_been(
    tmp_path: Path,
) -> None:
    if not LOG.exists():
        pytest.skip(f"the retail log is not at {LOG}; see docs/data.md")
    stages = [
        stage.name for stage in STAGES if stage.name not in ("simulate", "experiment", "audit")
    ]
    words = [
        sys.executable,
        "-m",
        "longplay",
        "run",
        str(ROOT / "examples/retail.toml"),
        "--folder",
    ]
    subprocess.run([*words, str(tmp_path / "clean")], check=True, capture_output=True)
    kill_at_every_stage(ROOT / "examples/retail.toml", tmp_path / "killed", stages)
    subprocess.run([*words, str(tmp_path / "killed")], check=True, capture_output=True)
    assert contents(tmp_path / "killed", stages) == contents(tmp_path / "clean", stages)
