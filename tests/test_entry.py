"""From a stranger's files to a report on the command line."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

import longplay as lp
from longplay.cli import app
from longplay.errors import ConfigError, DataError
from longplay.lake import Lake
from longplay.lake.adapters import read_decisions, read_items
from longplay.ope import ips
from longplay.policies.simple import Popular, Uniform
from longplay.run.config import parse_config
from longplay.world import World

QUICK = {"steps = 600": "steps = 20", "steps = 150": "steps = 2"}


def invoke(*words: str):
    return CliRunner().invoke(app, list(words))


def quicken(file: Path, name: str = "quick.toml") -> Path:
    """The same run with few steps of learning."""
    text = file.read_text()
    for slow, quick in QUICK.items():
        assert slow in text
        text = text.replace(slow, quick)
    quick_file = file.with_name(name)
    quick_file.write_text(text)
    return quick_file


def a_log(
    days: int,
    users: int = 40,
    items: int = 30,
    seed: int = 1,
    begin: datetime = datetime(2026, 3, 1, tzinfo=UTC),
) -> pl.DataFrame:
    """Users who come on a third of the days and mostly take what they like."""
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(users):
        liked = rng.integers(items, size=4)
        for day in range(days):
            if rng.random() < 0.35:
                for _ in range(rng.integers(1, 4)):
                    item = rng.choice(liked) if rng.random() < 0.6 else rng.integers(items)
                    rows.append(
                        (
                            f"u{user}",
                            f"i{item}",
                            begin + timedelta(days=day, seconds=int(rng.integers(86_400))),
                        )
                    )
    return pl.DataFrame(rows, schema=["user", "item", "timestamp"], orient="row").sort("timestamp")


# -- the README's minimum
# ----------------------------------------------------------------------------


@pytest.mark.parametrize("days", [40, 9])
def test_user_item_time_and_the_template_go_to_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days: int
) -> None:
    monkeypatch.chdir(tmp_path)
    a_log(days).with_columns(pl.col("timestamp").dt.strftime("%Y-%m-%dT%H:%M:%SZ")).write_csv(
        "events.csv"
    )
    assert invoke("init").exit_code == 0
    result = invoke("run", str(quicken(tmp_path / "run.toml")))
    assert result.exit_code == 0, result.output
    assert "30 items" in result.output
    assert "fitted to the log: train_until" in result.output
    assert (tmp_path / "runs/mine/report.html").stat().st_size > 10_000


# -- decisions
# ---------------------------------------------------------------------------------------

CLICK = lp.Signal(
    "click", entry=lp.exposure(of="item"), measure=lp.plays("item") >= 1, window=(0, 0)
)
RUN = """
[run]
name = "own"
[ingest]
path = "events.parquet"
closed_through = LAST
[ingest.columns]
event_id = "event_id"
user_id = "user_id"
item_id = "item_id"
creator_id = "creator_id"
kind = "kind"
time = "time"
origin = "origin"
surface = "surface"
decision_id = "decision_id"
slot = "slot"
[ingest.items]
path = "items.csv"
columns = { item_id = "id", creator_id = "by", title = "name", added_at = "since" }
[ingest.decisions]
path = "shown.csv"
[ingest.decisions.columns]
decision_id = "decision"
user_id = "user"
time = "at"
slot = "place"
item_id = "item"
propensity = "p"
surface = "where"
[signals.click]
entry = { kind = "exposure", of = "item" }
measure = { kind = "plays", of = "item", threshold = 1 }
window = [0, 0]
[reward]
objectives = { click = 1.0 }
age = 1
[train]
exclude = "none"
steps = 20
[reinforce]
steps = 2
slots = 3
"""


@pytest.fixture(scope="module")
def service() -> Lake:
    world = World(users=400, items=60, seed=5)
    return world.run(Popular(slate=3, explore=0.5), days=35)


def long_shape(decisions: pl.DataFrame) -> pl.DataFrame:
    """One row per slot, in no order."""
    slots = decisions.with_columns(place=pl.int_ranges(pl.col("slate").list.len())).explode(
        "slate", "log_prob", "place", empty_as_null=False
    )
    return slots.select(
        decision="decision_id",
        user="user_id",
        at="time",
        place="place",
        item="slate",
        p=pl.col("log_prob").exp(),
        where="surface",
    ).sample(fraction=1.0, shuffle=True, seed=1)


@pytest.fixture(scope="module")
def own_files(service: Lake, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    service.events.drop("ingested_at", "session_id", "seconds").write_parquet(
        folder / "events.parquet"
    )
    service.items.select(id="item_id", by="creator_id", name="title", since="added_at").write_csv(
        folder / "items.csv"
    )
    long_shape(service.decisions).write_csv(folder / "shown.csv")
    (folder / "run.toml").write_text(
        RUN.replace("LAST", str(service.watermark.date() - timedelta(days=1)))
    )
    return folder


def ingested(folder: Path, run: Path) -> Lake:
    result = invoke("ingest", str(folder / "run.toml"), "--folder", str(run))
    assert result.exit_code == 0, result.output
    (lake,) = (run / "ingest").glob("*/lake")
    return Lake.open(lake)


def test_decisions_of_ones_own_give_the_off_policy_value_of_the_service_they_came_from(
    own_files: Path, service: Lake, tmp_path: Path
) -> None:
    lake = ingested(own_files, tmp_path)
    assert lake.decisions.height == service.decisions.height
    assert lake.items["title"].to_list() == service.items["title"].to_list()
    policy = Uniform(slate=3).fit(service)
    there, here = (
        ips(policy, log, CLICK.outcomes(log).on(log.decisions)) for log in (service, lake)
    )
    assert here.value == pytest.approx(there.value, rel=1e-9)
    assert here.std_error == pytest.approx(there.std_error, rel=1e-9)


def test_the_off_policy_stage_runs_on_a_log_of_ones_own(own_files: Path, tmp_path: Path) -> None:
    result = invoke("run", str(own_files / "run.toml"), "--folder", str(tmp_path))
    assert result.exit_code == 0, result.output
    (file,) = (tmp_path / "offpolicy").glob("*/result.json")
    found = json.loads(file.read_text())
    assert {row["policy"] for row in found["policies"]} >= {"popular", "start", "reinforced"}
    assert any("value" in row["estimates"]["IPS"] for row in found["policies"])


def test_slates_as_lists_are_the_same_decisions(service: Lake, tmp_path: Path) -> None:
    long_shape(service.decisions).write_csv(tmp_path / "long.csv")
    service.decisions.select(
        "decision_id", "user_id", "time", "surface", "slate", "log_prob"
    ).write_parquet(tmp_path / "lists.parquet")
    same = {
        "user_id": "user_id",
        "time": "time",
        "surface": "surface",
        "decision_id": "decision_id",
        "item_id": "slate",
        "log_prob": "log_prob",
    }
    lists = read_decisions(tmp_path / "lists.parquet", same)
    columns = {
        "decision_id": "decision",
        "user_id": "user",
        "time": "at",
        "slot": "place",
        "item_id": "item",
        "propensity": "p",
        "surface": "where",
    }
    long = read_decisions(tmp_path / "long.csv", columns)
    assert lists.rejected.is_empty()
    assert long.rejected.is_empty()
    assert lists.decisions is not None
    assert long.decisions is not None
    assert long.decisions.drop("log_prob").equals(lists.decisions.drop("log_prob"))
    flat = [frame["log_prob"].explode().to_numpy() for frame in (long.decisions, lists.decisions)]
    assert flat[0] == pytest.approx(flat[1], abs=1e-12)
    assert lists.contexts is not None
    assert lists.contexts["slots"].to_list() == lists.decisions["slate"].list.len().to_list()


BAD_SLATES = {
    "no propensity in (0, 1]": [("u", "a", 0, "0.5"), ("u", "b", 1, "1.5")],
    "slots are not 0, 1, 2, ...": [("u", "a", 0, "0.5"), ("u", "b", 2, "0.5")],
    "an item twice in a slate": [("u", "a", 0, "0.5"), ("u", "a", 1, "0.5")],
    "rows of a slate disagree": [("u", "a", 0, "0.5"), ("v", "b", 1, "0.5")],
    "missing user": [("", "a", 0, "0.5")],
    "missing item": [("u", "", 0, "0.5")],
}


@pytest.mark.parametrize("reason", BAD_SLATES)
def test_a_bad_slate_is_set_aside_whole_with_its_reason(tmp_path: Path, reason: str) -> None:
    good = [(f"good{n}", f"u{n}", "a", 0, "0.25") for n in range(3)]
    rows = [*good, *(("bad", *row) for row in BAD_SLATES[reason])]
    text = "id,user,item,slot,p,at\n" + "".join(
        f"{i},{u},{a},{s},{p},2026-03-01T10:00:00Z\n" for i, u, a, s, p in rows
    )
    (tmp_path / "shown.csv").write_text(text)
    columns = {
        "decision_id": "id",
        "user_id": "user",
        "item_id": "item",
        "slot": "slot",
        "propensity": "p",
        "time": "at",
    }
    source = read_decisions(tmp_path / "shown.csv", columns)
    assert source.decisions is not None
    assert source.decisions["decision_id"].to_list() == ["good0", "good1", "good2"]
    assert source.decisions["log_prob"].to_list() == [[np.log(0.25)]] * 3
    assert source.rejected["reason"].to_list() == [reason] * len(BAD_SLATES[reason])
    assert source.rejected["line"].to_list() == list(range(4, 4 + len(BAD_SLATES[reason])))


def test_a_probability_above_zero_as_logarithm_and_a_zero_propensity_are_no_slots(
    tmp_path: Path,
) -> None:
    (tmp_path / "a.csv").write_text(
        "u,i,l,t\nu,a,0.1,2026-03-01\nu,a,-0.5,2026-03-01\nu,a,0,2026-03-01\n"
    )
    columns = {"user_id": "u", "item_id": "i", "time": "t"}
    as_log = read_decisions(tmp_path / "a.csv", columns | {"log_prob": "l"})
    assert as_log.rejected["line"].to_list() == [1]
    assert as_log.decisions is not None
    assert as_log.decisions["log_prob"].explode().sort().to_list() == [-0.5, 0.0]
    as_share = read_decisions(tmp_path / "a.csv", columns | {"propensity": "l"})
    assert as_share.rejected["line"].to_list() == [2, 3]
    with pytest.raises(ConfigError, match="neither is mapped"):
        read_decisions(tmp_path / "a.csv", columns)


def test_items_of_a_catalogue_are_there_from_their_first_sight(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("id,name\na,first\nb,never seen\n,nobody\na,again\n")
    source = read_items(tmp_path / "items.csv", {"item_id": "id", "title": "name"})
    assert source.items is not None
    assert dict(source.items.select("item_id", "title").iter_rows()) == {
        "a": "again",
        "b": "never seen",
    }
    assert source.rejected.select("line", "reason").rows() == [(3, "missing item")]


def test_a_lake_is_copied_and_left_as_it_was(service: Lake, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    Lake.open(kept).append(
        "log",
        events=service.events,
        decisions=service.decisions,
        contexts=service.contexts,
        items=service.items,
        watermark=service.watermark,
    )
    before = {file: file.read_bytes() for file in kept.rglob("*") if file.is_file()}
    tables = RUN[RUN.index("[signals.click]") :]
    (tmp_path / "run.toml").write_text(
        f'[run]\nname = "copy"\n[ingest]\nformat = "lake"\npath = "kept"\n{tables}'
    )
    lake = ingested(tmp_path, tmp_path / "run")
    assert lake.watermark == service.watermark
    for table in ("events", "decisions", "contexts", "items"):
        assert getattr(lake, table).equals(getattr(service, table)), table
    assert {file: file.read_bytes() for file in kept.rglob("*") if file.is_file()} == before


# -- feasibility
# -------------------------------------------------------------------------------------

OWN = """
[run]
name = "own"
[ingest]
path = "events.parquet"
[ingest.columns]
user_id = "user"
item_id = "item"
time = "timestamp"
[ingest.constants]
kind = "play"
[signals.habit]
entry = { kind = "discovery", of = "item" }
measure = { kind = "days_with", of = "item", threshold = 2 }
window = [1, 14]
[reward]
objectives = { habit = 1.0 }
"""


def refused(folder: Path, text: str, days: int = 41, until: str = "run", **changes: str) -> str:
    """What a run of a log of `days` days says, that must not start to learn."""
    a_log(days).write_parquet(folder / "events.parquet")
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    (folder / "run.toml").write_text(text)
    result = invoke(until, str(folder / "run.toml"), "--folder", str(folder / "out"))
    assert result.exit_code == 1, result.output
    assert not (folder / "out" / "outcomes").exists()
    return " ".join(result.output.split())


def remedied(folder: Path, text: str) -> None:
    """The run is accepted."""
    (folder / "run.toml").write_text(text)
    result = invoke("outcomes", str(folder / "run.toml"), "--folder", str(folder / "out"))
    assert result.exit_code == 0, result.output


def test_a_window_longer_than_the_log_is_refused_with_one_that_works(tmp_path: Path) -> None:
    text = OWN.replace("[1, 14]", "[1, 60]")
    said = refused(tmp_path, text)
    assert (
        "signals.habit.window = [1, 60] needs 60 complete days after the day of an entry, the log "
        "has 40 days in all: set window = [1, 14]" in said
    )
    remedied(tmp_path, text.replace("[1, 60]", "[1, 14]"))


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    text = (
        OWN.replace("[1, 14]", "[1, 60]")
        + "[split]\ntrain_until = 2025-10-01\nevaluate_until = 2025-11-01\n[reinforce]\nslots = "
        "40\n"
    )
    text += (
        '[signals.regret]\nentry = { kind = "discovery", of = "item" }\nmeasure = { kind = '
        '"skips", of = "item", threshold = 1 }\nwindow = [0, 0]\n'
    )
    text += '[signals.minutes]\nentry = "user_day"\nmeasure = "minutes"\nwindow = [1, 7]\n'
    text += (
        '[signals.loyal]\nentry = { kind = "discovery", of = "creator" }\nmeasure = { kind = '
        '"days_with", of = "creator" }\nwindow = [1, 7]\n'
    )
    said = refused(tmp_path, text)
    for part in (
        "signals.habit.window = [1, 60]",
        "set window = [1, 14]",
        "split.train_until = 2025-10-01 does not lie inside the log: set train_until = 2026-03-",
        "split.evaluate_until = 2025-11-01 does not lie inside the log: set evaluate_until = "
        "2026-03-",
        "regret: the log has no event of kind 'skip'",
        "minutes: the log has no event with seconds",
        "loyal: no event of this log has a creator; map a column to creator_id",
        "reinforce.slots = 40, but the catalogue has 30 items that can be shown: set slots = 15",
    ):
        assert part in said, part


def test_an_evaluation_that_cannot_mature_names_the_last_day_that_can(tmp_path: Path) -> None:
    # the log is complete up to 2026-04-10: entries before 2026-03-27 mature in 14 days
    text = OWN + "[split]\ntrain_until = 2026-03-20\nevaluate_until = 2026-04-05\n"
    said = refused(tmp_path, text)
    assert (
        "split.evaluate_until = 2026-04-05: entries of habit are immature at 2026-04-10; end the "
        "evaluation by 2026-03-27" in said
    )
    assert "set evaluate_until = 2026-03-27" in said
    remedied(tmp_path, text.replace("2026-04-05", "2026-03-27"))


def test_training_that_knows_no_outcome_is_refused(tmp_path: Path) -> None:
    text = OWN + "[split]\ntrain_until = 2026-03-10\nevaluate_until = 2026-03-20\n"
    said = refused(tmp_path, text)
    assert (
        "signals.habit.window = [1, 14]: no outcome is known before 2026-03-16, but training ends "
        "at split.train_until = 2026-03-10" in said
    )
    days = [part.split(":")[0].strip(" -,;") for part in said.split("set ")[1:]]
    assert days


@pytest.mark.parametrize("days", [1, 2, 3])
def test_a_log_of_a_few_days_is_refused_in_words(tmp_path: Path, days: int) -> None:
    said = refused(tmp_path, OWN.replace("[1, 14]", '"fit"'), days=days)
    assert f"{days - 1} complete days" in said
    assert "at least" in said


def test_a_missing_extra_is_said_before_the_log_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_log(41).write_parquet(tmp_path / "events.parquet")
    (tmp_path / "run.toml").write_text(OWN)
    monkeypatch.setitem(sys.modules, "torch", None)
    result = invoke("run", str(tmp_path / "run.toml"), "--folder", str(tmp_path / "out"))
    assert result.exit_code == 2
    assert "torch" in result.output
    assert "pip install 'longplay[llm]'" in result.output
    assert not (tmp_path / "out" / "ingest").exists()
    assert (
        invoke("reward", str(tmp_path / "run.toml"), "--folder", str(tmp_path / "out")).exit_code
        == 0
    )


# -- what comes from outside
# -------------------------------------------------------------------------


def test_a_log_of_one_user_or_one_item_or_no_event_is_told_in_words(tmp_path: Path) -> None:
    template = OWN.replace("[1, 14]", '"fit"')
    for name, log in {
        "one user": a_log(40, users=1),
        "one item": a_log(40, items=1),
    }.items():
        folder = tmp_path / name
        folder.mkdir()
        log.write_parquet(folder / "events.parquet")
        (folder / "run.toml").write_text(template + "[train]\nsteps = 5\n[reinforce]\nsteps = 1\n")
        result = invoke("run", str(folder / "run.toml"), "--folder", str(folder / "out"))
        assert result.exit_code in (0, 1), (name, result.output)
        assert result.exception is None or isinstance(result.exception, SystemExit), (
            name,
            result.output,
            result.exception,
        )


@pytest.mark.parametrize("case", ["folder", "empty folder", "binary", "header"])
def test_hostile_logs_end_a_run_with_words(tmp_path: Path, case: str) -> None:
    place = tmp_path / "events.csv"
    if "folder" in case:
        place.mkdir()
    if case == "folder":
        (place / "readme.md").write_text("nothing")
    if case == "binary":
        place.write_bytes(bytes(range(256)) * 40)
    if case == "header":
        place.write_text("user,item,timestamp\n")
    (tmp_path / "run.toml").write_text(OWN.replace("events.parquet", "events.csv"))
    result = invoke("run", str(tmp_path / "run.toml"), "--folder", str(tmp_path / "out"))
    assert result.exit_code in (1, 2), result.output
    assert isinstance(result.exception, SystemExit), result.exception
    assert "events.csv" in result.output.replace("\n", "") or "no event" in result.output


# -- an experiment of ones own
# -----------------------------------------------------------------------

ACTIVE = lp.Signal("active", entry=lp.enrolment(), measure=lp.active_days(), window=(1, 14))
TRIED = RUN.replace(
    'surface = "where"\n',
    'surface = "where"\nexperiment = "trial"\narm = "arm"\narm_prob = "share"\n',
) + (
    '[signals.active]\nentry = "enrolment"\nmeasure = "active_days"\nwindow = [1, 14]\n'
    '[experiment]\nlogged = "spring"\ncontrol = "old"\nnorth_star = "active"\n'
)


@pytest.fixture(scope="module")
def tried_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, lp.Experiment, Lake]:
    """A trial in a service, exported as another system would log it: with arms of its own names."""
    world = World(users=300, items=60, seed=5)
    world.run(Popular(slate=3, explore=0.5), days=30)
    trial = lp.Experiment(
        control=Popular(slate=3, explore=0.5), treatment=Uniform(slate=3), salt="spring"
    )
    lake = world.run(trial, days=35)
    folder = tmp_path_factory.mktemp("tried")
    lake.events.drop("ingested_at", "session_id", "seconds").write_parquet(
        folder / "events.parquet"
    )
    lake.items.select(id="item_id", by="creator_id", name="title", since="added_at").write_csv(
        folder / "items.csv"
    )
    arms = {"control": "old", "treatment": "new"}
    marks = lake.decisions.select(
        decision="decision_id",
        trial="experiment",
        arm=pl.col("arm").replace(arms),
        share="arm_prob",
    )
    long_shape(lake.decisions).join(marks, on="decision", how="left").write_csv(
        folder / "shown.csv"
    )
    (folder / "run.toml").write_text(
        TRIED.replace("LAST", str(lake.watermark.date() - timedelta(days=1)))
    )
    return folder, trial, lake


def difference_in(readout: dict[str, Any]) -> dict[str, float]:
    """The figures of the first line."""
    return {
        name: value
        for name, value in readout["lines"][0]["effect"]["difference"].items()
        if isinstance(value, float)
    }


def test_a_trial_of_another_system_reads_as_it_did_where_it_was_run(
    tried_files: tuple[Path, lp.Experiment, Lake], tmp_path: Path
) -> None:
    folder, trial, there = tried_files
    here = ingested(folder, tmp_path)
    logged = lp.Experiment.logged(here, control="old")
    assert logged.label == "spring"
    assert logged.arm_names == ("old", "new")
    ours, theirs = trial.analyze(there, [ACTIVE]), logged.analyze(here, [ACTIVE])
    assert difference_in(theirs.as_json()) == pytest.approx(difference_in(ours.as_json()), rel=1e-9)
    checks = {check.name: check for check in theirs.checks}
    assert not any(check.fails for check in checks.values())
    assert "not checked" in checks["assignment"].words
    with pytest.raises(DataError, match="no arm 'control', it has new, old"):
        lp.Experiment.logged(here)
    with pytest.raises(DataError, match="not in this log; it has spring"):
        lp.Experiment.logged(here, "summer", control="old")


def test_the_experiment_stage_reads_a_trial_of_ones_own(
    tried_files: tuple[Path, lp.Experiment, Lake], tmp_path: Path
) -> None:
    folder, trial, there = tried_files
    result = invoke("run", str(folder / "run.toml"), "--folder", str(tmp_path))
    assert result.exit_code == 0, result.output
    assert "new: " in result.output
    (file,) = (tmp_path / "experiment").glob("*/result.json")
    found = json.loads(file.read_text())
    expected = trial.analyze(there, [ACTIVE]).as_json()
    assert difference_in(found["readout"]) == pytest.approx(difference_in(expected), rel=1e-9)
    page = (tmp_path / "report.html").read_text()
    assert "Read-out of" in page


def test_a_trial_needs_its_name_in_the_log(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"experiment\.logged"):
        parse_config(
            TRIED.replace('logged = "spring"\n', "").replace("LAST", "2026-03-01"), "run.toml"
        )
