"""The command line, as a newcomer meets it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console
from test_report import looped
from typer.testing import CliRunner

from longplay import cli
from longplay.cli import app, screen
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


def test_the_demo_takes_a_seed_and_changes_nothing_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = []
    monkeypatch.setattr(cli, "run_stages", lambda config, **_: asked.append(config) or {})
    for words in ([], ["--seed", "3"]):
        assert invoke("demo", "--folder", str(tmp_path), *words).exit_code == 0
    assert [config.run.seed for config in asked] == [7, 3]
    assert asked[0].model_copy(update={"run": asked[1].run}) == asked[1]
    assert invoke("demo", "--seed", "-1").exit_code == 2


@pytest.fixture
def finished(tmp_path: Path) -> dict[str, Path]:
    """The stages' folders of a run with a trial, as `run_stages` returns them."""
    places = {}
    for stage, result in looped("[bold]not markup[/bold]").items():
        places[stage] = tmp_path / stage
        places[stage].mkdir()
        (places[stage] / "result.json").write_text(json.dumps(result))
    for arm in ("reinforced", "clicks"):
        (places["audit"] / f"audit-{arm}.toml").write_text("[audit]\n")
    return places


def test_a_finished_trial_is_told_as_a_table_that_fits_100_columns(finished, capsys) -> None:
    cli._tell_loop(finished, Path("runs/demo"))
    text = capsys.readouterr().out
    assert max(len(line.rstrip()) for line in text.splitlines() if "runs/demo" not in line) <= 100
    words = " ".join(text.split())
    assert "popular" in words
    for figure in (
        "10.60 ± 0.40",
        "+0.55",
        "0.44 to 0.66",
        "not estimable",
        "n_eff 41",
        "−0.53",
        "−0.84 to −0.22",
        "0.0131 as logged",
        "0.0121 to 0.0141",
    ):
        assert figure in text
    assert "\x1b" not in text  # a pipe gets no colours
    assert "Keep running reinforced on habit: active is open [bold]not markup[/bold]." in words
    assert "Do not ship reinforced on clicks: active deteriorates." in words
    assert "estimand one_step" in words
    assert "audit runs/demo/audit-reinforced.toml" in text


def test_a_narrow_terminal_gets_the_same_figures_as_a_list(finished, capsys, monkeypatch) -> None:
    monkeypatch.setattr(screen, "console", Console(width=72, force_terminal=True, no_color=True, highlight=False))
    cli._tell_loop(finished, Path("runs/demo"))
    text = capsys.readouterr().out
    assert "  true difference       +0.55 (0.44 to 0.66)" in text
    assert "  audit                 habit: reweight" in text
