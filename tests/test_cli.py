"""The command line, as a newcomer meets it."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from longplay.cli import app
from longplay.run import STAGES, load_config

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = ["run", "demo", "init", *[stage.name for stage in STAGES]]


def invoke(*words: str):
    return CliRunner().invoke(app, list(words))


def test_help_teaches_where_to_start_and_names_every_command() -> None:
    text = invoke("--help").output
    assert "longplay demo" in text
    assert "longplay init" in text
    assert "Exit codes" in text
    for command in COMMANDS:
        assert command in text


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_documented_and_has_help(command: str) -> None:
    assert f"`longplay {command}" in (ROOT / "docs/cli.md").read_text()
    result = invoke(command, "--help")
    assert result.exit_code == 0
    assert len(result.output) > 100


def test_init_writes_a_run_that_parses_and_never_overwrites(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    assert invoke("init", str(file)).exit_code == 0
    assert load_config(file).run.name == "mine"
    file.write_text("mine")
    assert invoke("init", str(file)).exit_code == 2
    assert file.read_text() == "mine"


def test_usage_errors_exit_with_2_and_data_errors_with_1(tmp_path: Path) -> None:
    absent = invoke("run", str(tmp_path / "none.toml"))
    assert absent.exit_code == 2
    assert "none.toml" in absent.output
    log = tmp_path / "events.csv"
    log.write_text("user,item,timestamp\n" + "\n".join(f",i{n},2025-01-0{n % 9 + 1}T10:00:00Z" for n in range(20)))
    file = tmp_path / "run.toml"
    invoke("init", str(file))
    file.write_text(file.read_text().replace("events.parquet", "events.csv"))
    refused = invoke("ingest", str(file), "--folder", str(tmp_path / "run"))
    assert refused.exit_code == 1, refused.output
    assert "missing user" in refused.output
    assert "max_bad_share" in refused.output


def test_ingest_of_a_mapped_csv_reports_quarantine(tmp_path: Path) -> None:
    rows = [f"u{n % 7},i{n % 5},2025-01-{n % 28 + 1:02d}T10:00:00Z" for n in range(200)] + ["u1,i1,not a time"]
    (tmp_path / "events.csv").write_text("user,item,timestamp\n" + "\n".join(rows))
    file = tmp_path / "run.toml"
    invoke("init", str(file))
    file.write_text(file.read_text().replace("events.parquet", "events.csv"))
    result = invoke("ingest", str(file), "--folder", str(tmp_path / "run"))
    assert result.exit_code == 0, result.output
    assert "200 events" in result.output
    assert "1 rows quarantined" in result.output
