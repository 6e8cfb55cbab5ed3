"""Results are pinned to the version they were made with, and a new version leaves every one of them
as it is."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from test_report import looped
from test_run import TINY, Watching

import longplay as lp
from longplay.errors import ConfigError, DataError
from longplay.lake import Lake
from longplay.run import load_config, run_stages
from longplay.run.config import RunConfig, parse_config
from longplay.run.pins import (
    UNRECORDED,
    Pin,
    change_over,
    log_of,
    pins_of,
    runs_in,
    would_run_again,
)
from longplay.signals import READY, Signal, days_with
from longplay.signals.store.signal_store import SignalStore

OLD = parse_config(TINY, "tiny").declared()["habit"]
NEW = replace(OLD, measure=days_with("creator") >= 2)


def with_new(config: RunConfig) -> RunConfig:
    """The run of `TINY` after somebody pasted the new declaration."""
    text = TINY.replace(
        TINY[TINY.index("[signals.habit]") : TINY.index("[reward]")], NEW.to_toml() + "\n"
    )
    assert parse_config(text, "tiny").declared()["habit"] == NEW
    return parse_config(text, "tiny")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run up to its early rewards, finished with the old version."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    run_stages(parse_config(TINY, "tiny"), base=folder, folder=folder, until="reward")
    return folder


@pytest.fixture
def copied(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "runs/tiny"))


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def test_a_new_version_leaves_every_old_file_byte_equal(copied: Path) -> None:
    before = files(copied)
    assert f"outcomes/{next((copied / 'outcomes').iterdir()).name}/habit.parquet" in before
    lp.diff(OLD, NEW, Lake.open(log_of(copied)))  # a diff writes nothing at all
    assert files(copied) == before
    config = with_new(parse_config(TINY, "tiny"))
    ui = Watching()
    run_stages(config, base=copied, folder=copied, until="reward", ui=ui)
    after = files(copied)
    assert ui.ran == ["outcomes", "reward"]
    assert {name: after[name] for name in before} == before
    assert {pin.standing(OLD, NEW) for pin in pins_of(copied)} == {
        "old",
        "new",
        None,
    }  # active is another signal
    assert [pin.stage for pin in pins_of(copied) if pin.standing(OLD, NEW) == "new"] == [
        "outcomes",
        "reward",
    ]


def test_a_store_keeps_the_outcomes_of_the_old_version_byte_equal(
    run: Path, tmp_path: Path
) -> None:
    lake = Lake.open(log_of(run))
    SignalStore(tmp_path / "store", lake, [OLD]).update()
    before, rows = (
        files(tmp_path / "store/outcomes"),
        SignalStore(tmp_path / "store", lake, [OLD]).outcomes(OLD),
    )
    assert before
    store = SignalStore(tmp_path / "store", lake, [NEW])
    store.update()
    after = files(tmp_path / "store/outcomes")
    assert {name: after.get(name) for name in before} == before
    assert any(name.startswith(NEW.label) for name in after)
    assert store.outcomes(OLD).equals(rows)
    assert not store.outcomes(NEW)["value"].equals(rows["value"])


def test_what_is_said_to_run_again_is_what_runs(copied: Path) -> None:
    config = parse_config(TINY, "tiny")
    said = change_over(config, copied, copied, OLD, NEW)
    assert [stage for stage, fate in said.items() if fate == "stays"] == [
        "simulate",
        "codes",
        "train",
    ]
    assert "is there" not in said.values()
    ui = Watching()
    run_stages(with_new(config), base=copied, folder=copied, until="reward", ui=ui)
    assert (
        ui.ran
        == [stage for stage, fate in said.items() if fate == "runs"][:2]
        == ["outcomes", "reward"]
    )
    again = change_over(config, copied, copied, OLD, NEW)
    assert [stage for stage, fate in again.items() if fate == "is there"] == ["outcomes", "reward"]
    assert set(change_over(config, copied, copied, NEW, OLD).values()) == {
        "stays"
    }  # the run does not declare it


def test_a_finished_stage_says_what_its_hash_is_of(run: Path) -> None:
    (place,) = (run / "outcomes").iterdir()
    depends = json.loads((place / "depends.json").read_text())
    assert depends["stage"] == "outcomes"
    assert list(depends["inputs"]) == ["simulate"]
    assert Signal.from_mapping("habit", depends["config"]["config"]["signals"]["habit"]) == OLD


def test_pins_name_the_stage_its_role_and_the_files_that_hold_it(run: Path) -> None:
    outcomes, reward = [next((run / stage).iterdir()).name for stage in ("outcomes", "reward")]
    found = [pin for pin in pins_of(run) if pin.name == "habit"]
    assert found == [
        Pin(
            "outcomes",
            outcomes,
            OLD.label,
            ("computed",),
            (f"outcomes/{outcomes}/result.json", f"outcomes/{outcomes}/habit.parquet"),
        ),
        Pin(
            "reward",
            reward,
            OLD.label,
            ("early reward (personal)",),
            (f"reward/{reward}/result.json",),
        ),
    ]
    assert would_run_again(run, OLD) == ["outcomes", "reward"]
    assert would_run_again(run, NEW) == []


def test_a_stage_that_depends_on_a_signal_it_does_not_mention_runs_again(copied: Path) -> None:
    active = parse_config(TINY, "tiny").declared()["active"]
    assert "reward" not in {pin.stage for pin in pins_of(copied) if pin.name == "active"}
    assert would_run_again(copied, active) == [
        "outcomes",
        "reward",
    ]  # its key holds the whole table of signals
    for file in copied.rglob("depends.json"):
        file.unlink()
    assert would_run_again(copied, active) == ["outcomes", "reward"]  # reward needs the outcomes


@pytest.fixture
def trial(tmp_path: Path) -> Path:
    """The finished stages of a run with a trial, of before depends.json."""
    run = tmp_path / "runs/old"
    for stage, result in looped().items():
        (run / stage / "abc").mkdir(parents=True)
        (run / stage / "abc/result.json").write_text(json.dumps(result))
    for file in (run / "audit/abc/audit-reinforced.toml", run / "audit-reinforced.toml"):
        file.write_text('[[verdicts]]\nsignal = "habit@ba93f33d"\n')
    return run


def test_rewards_trials_and_audits_are_pinned(trial: Path) -> None:
    roles = {pin.stage: pin.roles for pin in pins_of(trial) if pin.label == "habit@ba93f33d"}
    assert roles == {
        "outcomes": ("computed",),
        "reward": ("early reward (progressive)",),
        "reinforce": ("objective of reward 92f22c97, weight 1: generative@2",),
        "evaluate": ("rankings are judged by it",),
        "offpolicy": ("slots are valued by it",),
        "audit": ("audited in reinforced: reweight",),
    }
    (audit,) = [pin for pin in pins_of(trial) if pin.stage == "audit" and pin.name == "habit"]
    assert audit.artefacts == (
        "audit/abc/result.json",
        "audit/abc/audit-reinforced.toml",
        "audit-reinforced.toml",
    )
    stars = [
        pin.roles
        for pin in pins_of(trial)
        if pin.label == "active@c45a2484" and pin.stage == "experiment"
    ]
    assert stars == [("north star of the experiment",)]


def test_a_rivals_version_is_said_to_be_unknown_where_nobody_wrote_it_down(trial: Path) -> None:
    (rival,) = [pin for pin in pins_of(trial) if pin.stage == "reinforce" and pin.name == "clicks"]
    assert rival.version == UNRECORDED
    assert rival.roles == ("objective of the rival reward clicks, weight 1: generative@4",)
    declared = {
        "config": {
            "config": {
                "signals": {"clicks": {"entry": "user_day", "measure": "plays", "window": [1, 7]}}
            }
        }
    }
    (trial / "reinforce/abc/depends.json").write_text(json.dumps(declared))
    (rival,) = [pin for pin in pins_of(trial) if pin.stage == "reinforce" and pin.name == "clicks"]
    assert (
        rival.version
        == Signal.from_mapping("clicks", declared["config"]["config"]["signals"]["clicks"]).version
    )


def test_the_verdict_of_a_version_nobody_asked_about_is_other(trial: Path) -> None:
    standings = {pin.stage: pin.standing(OLD, NEW) for pin in pins_of(trial) if pin.name == "habit"}
    assert set(standings.values()) == {"other"}
    moved = Pin("outcomes", "abc", f"other_name@{OLD.version}", (), ())
    assert moved.standing(OLD, NEW) == "old"  # a name is not part of a version


def test_a_result_that_cannot_be_read_is_named(trial: Path) -> None:
    (trial / "reward/abc/result.json").write_text("{")
    with pytest.raises(DataError, match=r"reward/abc/result.json: cannot be read"):
        pins_of(trial)


def test_run_folders_are_found_and_nothing_else_is_taken_for_one(
    trial: Path, tmp_path: Path
) -> None:
    (tmp_path / "runs/notes").mkdir()
    (tmp_path / "runs/half/train/abc.partial").mkdir(parents=True)
    (tmp_path / "runs/half/train/abc.partial/result.json").write_text("{}")
    assert runs_in(tmp_path / "runs") == [trial]
    assert runs_in(trial) == [trial]
    assert runs_in(tmp_path / "absent") == []


def test_a_log_is_found_from_its_lake_its_run_folder_and_its_run_file(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (simulated,) = (copied / "simulate").iterdir()
    lake = simulated / "lake"
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "tiny.toml"
    file.write_text(TINY)
    assert log_of(lake) == lake
    assert log_of(copied) == lake
    assert log_of(file).resolve() == lake
    assert READY["return_1d"].outcomes(Lake.open(log_of(file))).mature.any()
    file.write_text(TINY.replace("seed = 3", "seed = 4"))
    with pytest.raises(
        DataError, match=r"its log is not there yet; run `longplay simulate .*tiny.toml` first"
    ):
        log_of(file)
    shutil.copytree(simulated, copied / "simulate/another")
    with pytest.raises(ConfigError, match="holds 2 logs; give one of"):
        log_of(copied)
    for nothing in (tmp_path / "absent", tmp_path):
        with pytest.raises(ConfigError, match=r"give a lake folder, a run folder, or a run.toml"):
            log_of(nothing)
    assert load_config(file).run.seed == 4
