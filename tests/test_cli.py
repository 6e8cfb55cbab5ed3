"""The command line, as a newcomer meets it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from rich.console import Console
from test_report import looped
from test_run import TINY
from typer.testing import CliRunner

import longplay as lp
from longplay import cli
from longplay.cli import app, screen
from longplay.cli import signal_commands as signals_cli
from longplay.lake import Lake
from longplay.policies.simple import Popular
from longplay.run import STAGES, load_config
from longplay.signals import READY, Signal
from longplay.signals.ready_signals import CATALOGUE
from longplay.world import World

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = [
    "run",
    "demo",
    "init",
    "schema",
    "signals",
    "signal diff",
    "signal keep",
    "lm convert",
    *[stage.name for stage in STAGES],
]


def invoke(*words: str):
    return CliRunner().invoke(app, list(words))


def test_help_teaches_where_to_start_and_names_every_command() -> None:
    text = invoke("--help").output
    assert "longplay demo" in text
    assert "longplay init" in text
    assert "Exit codes" in text
    for command in COMMANDS:
        assert command.split()[0] in text


def test_the_version_is_printed_before_anything_is_asked() -> None:
    result = invoke("--version")
    assert (result.exit_code, result.output) == (0, f"longplay {lp.__version__}\n")
    assert invoke("--version", "no-such-command").exit_code == 0


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_the_commands(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a shell asks: its own variable says what has been typed."""
    monkeypatch.setenv("_LONGPLAY_COMPLETE", f"complete_{shell}")
    monkeypatch.setenv("COMP_WORDS", "longplay expe")
    monkeypatch.setenv("COMP_CWORD", "1")
    monkeypatch.setenv("_TYPER_COMPLETE_ARGS", "longplay expe")
    monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
    result = CliRunner().invoke(app, [], prog_name="longplay")
    assert "experiment" in result.output
    assert "ingest" not in result.output


def test_a_mistyped_command_is_told_the_command_that_is_meant() -> None:
    result = invoke("expriment", "run.toml")
    assert result.exit_code == 2
    assert "Did you mean 'experiment'?" in result.output


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_documented_and_has_help(command: str) -> None:
    assert f"`longplay {command}" in (ROOT / "docs/cli.md").read_text()
    result = invoke(*command.split(), "--help")
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
    log.write_text(
        "user,item,timestamp\n"
        + "\n".join(f",i{n},2025-01-0{n % 9 + 1}T10:00:00Z" for n in range(20))
    )
    file = tmp_path / "run.toml"
    invoke("init", str(file))
    file.write_text(file.read_text().replace("events.parquet", "events.csv"))
    refused = invoke("ingest", str(file), "--folder", str(tmp_path / "run"))
    assert refused.exit_code == 1, refused.output
    assert "missing user" in refused.output
    assert "max_bad_share" in refused.output


def test_ingest_of_a_mapped_csv_reports_quarantine(tmp_path: Path) -> None:
    rows = [f"u{n % 7},i{n % 5},2025-01-{n % 28 + 1:02d}T10:00:00Z" for n in range(200)] + [
        "u1,i1,not a time"
    ]
    (tmp_path / "events.csv").write_text("user,item,timestamp\n" + "\n".join(rows))
    file = tmp_path / "run.toml"
    invoke("init", str(file))
    file.write_text(file.read_text().replace("events.parquet", "events.csv"))
    result = invoke("ingest", str(file), "--folder", str(tmp_path / "run"))
    assert result.exit_code == 0, result.output
    assert "200 events" in result.output
    assert "1 rows quarantined" in result.output


def test_the_demo_takes_a_seed_and_changes_nothing_else(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = []
    monkeypatch.setattr(cli, "run_stages", lambda config, **_: asked.append(config) or {})
    for words in ([], ["--seed", "3"]):
        assert invoke("demo", "--folder", str(tmp_path), *words).exit_code == 0
    assert [config.run.seed for config in asked] == [7, 3]
    assert asked[0].model_copy(update={"run": asked[1].run}) == asked[1]
    assert invoke("demo", "--seed", "-1").exit_code == 2


# -- signals ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world_lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The log of a small service, in a folder."""
    world = World(users=60, items=60, seed=5)
    log, folder = (
        world.run(Popular(slate=3, explore=0.3), days=90),
        tmp_path_factory.mktemp("log") / "lake",
    )
    made = Lake.open(folder).append(
        "log",
        events=log.events,
        decisions=log.decisions,
        contexts=log.contexts,
        items=log.items,
        watermark=world.now,
    )
    assert made.rows["events"] == log.events.height
    return folder


@pytest.fixture
def bare_lake(tmp_path: Path) -> Path:
    """A log of plays alone, without creators, of eight days."""
    rows = [
        (f"e{n}", f"u{n % 3}", f"i{n % 4}", datetime(2026, 1, 1 + n % 8, 12, tzinfo=UTC))
        for n in range(24)
    ]
    events = pl.DataFrame(
        rows, schema=["event_id", "user_id", "item_id", "time"], orient="row"
    ).with_columns(kind=pl.lit("play"))
    Lake.open(tmp_path / "bare").append(
        "log", events=events, watermark=datetime(2026, 1, 9, tzinfo=UTC)
    )
    return tmp_path / "bare"


def test_the_catalogue_lists_every_signal_with_its_sentence_version_and_unit() -> None:
    text = " ".join(invoke("signals").output.split())
    for one in CATALOGUE:
        signal = one.signal
        for words in (signal.name, f"@{signal.version}", signal.entry.unit, one.use, one.trap):
            assert all(word in text for word in words.split()), (signal.name, words)
    assert "longplay signals --toml NAME" in text


def test_a_declaration_is_printed_to_paste_and_reads_back() -> None:
    text = invoke("signals", "--toml", "habit", "--toml", "regret").output
    assert Signal.all_from_toml(text) == [READY["habit"], READY["regret"]]
    unknown = invoke("signals", "--toml", "habbit")
    assert unknown.exit_code == 2
    assert "did you mean 'habit'?" in unknown.output


def test_a_log_says_of_every_ready_signal_how_much_is_mature_and_how_often(
    world_lake: Path,
) -> None:
    result = invoke("signals", str(world_lake))
    assert result.exit_code == 0, result.output
    rows = {line.split()[0]: line.split() for line in result.output.splitlines() if line.split()}
    for name, signal in READY.items():
        outcomes = signal.outcomes(Lake.open(world_lake))
        assert rows[name][1:3] == [f"{len(outcomes):,}", f"{outcomes.mature.sum():,}"], name
        if outcomes.certain().frame["value"].is_not_null().any():
            assert rows[name][3:6] == str(outcomes.base_rate()).split(" (")[0].split(), name
    habit, item = (
        READY[name].outcomes(Lake.open(world_lake)).truncated for name in ("habit", "regret")
    )
    numbers = f"habit: {habit}; stickiness_60d: {habit}; lasting_discovery: {habit}; regret: {item}"
    assert f"left out of the base rates (--truncated counts them). {numbers}" in " ".join(
        result.output.split()
    )
    with_them = invoke("signals", str(world_lake), "--truncated").output
    assert "counted in the base rates" in " ".join(with_them.split())
    cells = next(line.split() for line in with_them.splitlines() if line.startswith("habit "))
    assert (
        cells[3:6]
        == str(READY["habit"].outcomes(Lake.open(world_lake)).base_rate(truncated=True))
        .split(" (")[0]
        .split()
    )
    assert max(map(len, result.output.splitlines()[1:])) <= 80


def test_what_a_log_cannot_answer_is_listed_with_the_reason(bare_lake: Path) -> None:
    result = invoke("signals", str(bare_lake))
    assert result.exit_code == 0, result.output
    asked, refused = result.output.split("cannot be computed on this log")
    assert "return_1d" in asked
    assert "session_depth" in asked
    for name in READY:
        assert (f"\n{name} " in refused) != (f"\n{name} " in asked), name
    reasons = {
        name: refused.split(f"\n{name} ")[1].split("\n")[0]
        for name in ("habit", "return_28d", "regret")
    }
    assert "no event of this log has a creator" in reasons["habit"]
    assert "the window ends 28 days after an entry" in reasons["return_28d"]
    assert "no event of kind 'skip'" in reasons["regret"]


def test_a_log_that_answers_nothing_ends_with_1(bare_lake: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text(READY["habit"].to_toml())
    result = invoke("signals", str(bare_lake), "--file", str(own))
    assert result.exit_code == 1
    assert "none of 1 signals can be computed" in result.output


def test_own_declarations_take_the_place_of_the_ready_ones(
    world_lake: Path, tmp_path: Path
) -> None:
    own = tmp_path / "own.toml"
    own.write_text(replace(READY["habit"], name="mine", window=(1, 14)).to_toml())
    text = invoke("signals", str(world_lake), "--file", str(own)).output
    assert "mine" in text
    assert "return_1d" not in text
    assert "mine" in invoke("signals", "--file", str(own)).output
    assert "mine" in invoke("signals", "--file", str(own), "--toml", "mine").output
    own.write_text("[signals]")
    for words, said in (
        ([str(own)], "declares no signal"),
        ([str(tmp_path / "none.toml")], "cannot be read"),
    ):
        refused = invoke("signals", "--file", *words)
        assert refused.exit_code == 2
        assert said in refused.output
    own.write_text("[signals.x]\nentry = 'user_day'\nmeasure = 'nothing'")
    assert (
        "own.toml: signal x: measure: kind='nothing' given"
        in invoke("signals", "--file", str(own)).output
    )


def test_a_place_without_a_log_is_a_usage_error(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "none", tmp_path / "none.toml"):
        result = invoke("signals", str(place))
        assert result.exit_code == 2, place
        assert "usage" in result.output


def test_a_diff_tells_the_definition_the_log_the_pins_and_the_backfill(
    world_lake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    new = replace(READY["habit"], window=(1, 14))
    Path("new.toml").write_text(new.to_toml())
    alone = invoke("signal", "diff", "habit", "new.toml")
    assert alone.exit_code == 0, alone.output
    for words in (
        "changed window: days 1 to 28, now days 1 to 14",
        "no run folder here",
        "window = [1, 14]",
        "byte for byte",
    ):
        assert words in " ".join(alone.output.split())
    found = lp.diff(READY["habit"], new, Lake.open(world_lake))
    text = " ".join(
        invoke("signal", "diff", "habit", "new.toml", "--lake", str(world_lake)).output.split()
    )
    for words in (
        "ON THE LOG",
        f"{found.counts['newly known']:,} newly known",
        f"base rate new: {found.new_rate}",
        "surface home",
        "month 2026-01",
    ):
        assert words in text
    assert " ".join(str(found.backfill).split()) in text
    same = invoke("signal", "diff", "habit", "habit")
    assert "the same definition" in same.output
    assert "BACKFILL" not in same.output


def test_a_diff_of_a_run_says_what_is_pinned_and_what_would_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tiny.toml").write_text(TINY)
    assert invoke("outcomes", "tiny.toml").exit_code == 0
    Path("new.toml").write_text(TINY.replace("threshold = 3", "threshold = 2"))
    old, new = (
        load_config(Path("tiny.toml")).declared()["habit"],
        load_config(Path("new.toml")).declared()["habit"],
    )
    result = invoke("signal", "diff", "tiny.toml:habit", "new.toml", "--run", "tiny.toml")
    assert result.exit_code == 0, result.output
    text = " ".join(result.output.split())
    for words in (
        f"runs/tiny holds old {old.label}",
        "computed (habit.parquet)",
        "put this in the place of [signals.habit]",
        "threshold = 2.0",
        "then: longplay run tiny.toml run again: outcomes, reward, reinforce, evaluate, "
        "offpolicy, experiment, audit, report",
        "kept, they do not depend on it: simulate, codes, train",
    ):
        assert words in text
    other = " ".join(
        invoke(
            "signal", "diff", "tiny.toml:habit", "new.toml", "--lake", "runs/tiny"
        ).output.split()
    )
    assert (
        "runs/tiny would run again: outcomes; with: longplay run RUN.toml --folder runs/tiny"
        in other
    )
    moved = " ".join(
        invoke("signal", "diff", "tiny.toml:habit", "new.toml", "--run", "new.toml").output.split()
    )
    assert (
        f"does not declare {old.label}, so nothing of it runs again; it declares {new.label} "
        "already" in moved
    )
    elsewhere = invoke("signal", "diff", "habit", "regret", "--runs", "runs")
    assert "without either" not in elsewhere.output  # another version called habit is told
    assert f"holds other {old.label}" in elsewhere.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("habbit", "habit"), "did you mean 'habit'?"),
        (("habit", "none.toml"), "cannot be read"),
        (("two.toml", "two.toml"), "give two.toml:NAME"),
        (("two.toml:return_1d", "two.toml:none"), "there are habit, return_1d"),
        (("habit", "regret", "--lake", "a", "--run", "b.toml"), "expected one of them"),
        (("habit", "regret", "--runs", "none"), "no run folder there"),
        (("habit", "regret", "--lake", "none"), "give a lake folder"),
    ],
)
def test_a_diff_that_cannot_be_asked_says_what_to_give(
    words: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("two.toml").write_text(READY["habit"].to_toml() + READY["return_1d"].to_toml())
    result = invoke("signal", "diff", *words)
    assert result.exit_code == 2, result.output
    assert said in " ".join(result.output.split())


def test_of_a_file_with_several_the_one_of_the_same_name_is_meant(tmp_path: Path) -> None:
    two = tmp_path / "two.toml"
    two.write_text(replace(READY["habit"], window=(1, 7)).to_toml() + READY["return_1d"].to_toml())
    assert "now days 1 to 7" in " ".join(invoke("signal", "diff", "habit", str(two)).output.split())
    assert "days 1 to 7, now days 1 to 28" in " ".join(
        invoke("signal", "diff", str(two), "habit").output.split()
    )


@pytest.mark.parametrize("width", [80, 120])
def test_nothing_about_signals_is_wider_than_the_terminal(
    width: int, world_lake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("new.toml").write_text(replace(READY["habit"], window=(1, 14)).to_toml())
    terminal = Console(width=width, force_terminal=True, no_color=True, highlight=False)
    monkeypatch.setattr(screen, "console", terminal)
    monkeypatch.setattr(signals_cli, "console", terminal)
    for words in ((), (str(world_lake),)):
        text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|\r", "\n", invoke("signals", *words).output)
        assert (
            max(len(line.rstrip()) for line in text.splitlines() if str(world_lake) not in line)
            <= width
        )
    text = re.sub(
        r"\x1b\[[0-9;?]*[a-zA-Z]|\r",
        "\n",
        invoke("signal", "diff", "habit", "new.toml", "--lake", str(world_lake)).output,
    )
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width


# -- a finished trial ------------------------------------------------------------------------------


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
    monkeypatch.setattr(
        screen, "console", Console(width=72, force_terminal=True, no_color=True, highlight=False)
    )
    cli._tell_loop(finished, Path("runs/demo"))
    text = capsys.readouterr().out
    assert "  true difference       +0.55 (0.44 to 0.66)" in text
    assert "  audit                 habit: reweight" in text
