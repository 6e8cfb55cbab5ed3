"""Files that were damaged or edited: every kind is named in words, none gives a wrong result, and
none a raw exception."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
import torch
from safetensors.torch import save_file
from test_cli import invoke
from test_run import Watching

from longplay.errors import DataError, LongplayError
from longplay.files import tree_digest
from longplay.lake import Lake
from longplay.policies.generative_policy import Generative
from longplay.policies.simple import Popular
from longplay.policies.training.checkpoint import load_checkpoint, save_checkpoint
from longplay.run import load_config, run_stages
from longplay.run.pins import log_of, pins_of
from longplay.signals import Signal, active_days, days_with, discovery, enrolment
from longplay.signals.store.signal_store import SignalStore
from longplay.world import World

LOG = """
[run]
name = "damaged"
seed = 3

[simulate]
users = 120
items = 60
days = 50

[split]
train_until = 2026-01-31
evaluate_until = 2026-02-05

[signals.habit]
entry = { kind = "discovery", of = "creator", novel_for = 14 }
measure = { kind = "days_with", of = "creator", threshold = 2 }
window = [1, 10]

[reward]
objectives = { habit = 1.0 }
age = 7
"""
HABIT = Signal(
    "habit", entry=discovery(novel_for=14), measure=days_with("creator") >= 2, window=(1, 10)
)
ACTIVE = Signal("active", entry=enrolment(), measure=active_days(), window=(1, 7))


# -- kinds of damage
# -----------------------------------------------------------------------------------


def emptied(file: Path) -> None:
    file.write_bytes(b"")


def halved(file: Path) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])


def flipped(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))


def last_bit_flipped(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-1] ^= 128
    file.write_bytes(bytes(data))


def deleted(file: Path) -> None:
    file.unlink()


def made_a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def not_utf8(file: Path) -> None:
    file.write_bytes(b"\xff\xfe{\x80}")


def of_another_type(file: Path) -> None:
    file.write_text("[1, 2]")


def edited(file: Path) -> None:
    """One digit of the text, which stays valid."""
    text = file.read_text()
    place = max(text.rfind(digit) for digit in "123456789")
    file.write_text(text[:place] + ("1" if text[place] != "1" else "2") + text[place + 1 :])


BINARY = (emptied, halved, flipped, last_bit_flipped, deleted, made_a_folder)
TEXT = (emptied, halved, edited, deleted, made_a_folder, not_utf8, of_another_type)


def cases(*files: tuple[str, tuple[Callable[[Path], None], ...]]) -> list:
    return [
        pytest.param(name, damage, id=f"{damage.__name__}-{name}")
        for name, kinds in files
        for damage in kinds
    ]


def check_words(error: BaseException, *words: str) -> None:
    """An error on purpose, which says one of these."""
    assert isinstance(error, LongplayError), f"{type(error).__name__}: {error}"
    assert any(word in str(error) for word in words), error


# -- a run folder
# --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run up to its early rewards."""
    place = tmp_path_factory.mktemp("damage")
    (place / "run.toml").write_text(LOG)
    run_stages(load_config(place / "run.toml"), base=place, folder=place / "run", until="reward")
    return place


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "copy")
    return tmp_path / "copy"


def results_of(run: Path) -> dict[str, object]:
    """What the stages found out, and the rows of the tables."""
    found: dict[str, object] = {
        file.parent.parent.name: json.loads(file.read_text())
        for file in sorted(run.glob("run/*/*/result.json"))
    }
    tables = {
        file.name: pl.read_parquet(file).to_dicts()
        for file in sorted(run.glob("run/outcomes/*/*.parquet"))
    }
    return found | tables


def go_on(run: Path) -> Watching:
    ui = Watching()
    run_stages(load_config(run / "run.toml"), base=run, folder=run / "run", until="reward", ui=ui)
    return ui


IN_RUN = cases(
    ("outcomes/*/result.json", TEXT),
    ("outcomes/*/depends.json", (emptied, edited, deleted)),
    ("outcomes/*/files.json", TEXT),
    ("outcomes/*/habit.parquet", BINARY),
    ("reward/*/result.json", (emptied, edited)),
    ("simulate/*/lake/events/*.parquet", BINARY),
    ("simulate/*/lake/commits/*.jsonl", (emptied, edited, deleted)),
    ("simulate/*/lake/files.json", (emptied, deleted)),
)


@pytest.mark.parametrize(("name", "damage"), IN_RUN)
def test_a_damaged_result_of_a_finished_stage_is_named_and_the_stage_runs_again(
    name: str, damage: Callable[[Path], None], finished: Path, run: Path
) -> None:
    expected = results_of(finished)
    file = sorted((run / "run").glob(name))[0]
    damage(file)
    ui = go_on(run)
    assert ui.ran == [name.partition("/")[0]]
    # of an edited list it cannot be told which of the two files is right
    named = file.parent if file.name == "files.json" else file
    assert [line for line in ui.damages if str(named) in line], ui.damages
    assert results_of(run) == expected
    assert go_on(run).ran == []


@pytest.mark.parametrize(("name", "damage"), IN_RUN)
def test_whoever_reads_a_damaged_run_folder_is_told_in_words(
    name: str, damage: Callable[[Path], None], run: Path
) -> None:
    def pinned() -> list[tuple[str, tuple[str, ...]]]:
        return [(pin.label, pin.roles) for pin in pins_of(run / "run")]

    whole = pinned(), log_of(run / "run")
    file = sorted((run / "run").glob(name))[0]
    damage(file)
    for read in (pinned, lambda: log_of(run / "run")):
        try:
            answer = read()
        except Exception as error:
            check_words(error, "delete")
        else:
            assert answer in whole


def test_an_event_added_to_the_log_of_a_finished_stage_is_not_used(run: Path) -> None:
    (place,) = (run / "run/simulate").iterdir()
    lake = Lake.open(place / "lake")
    lake.append("more", events=lake.events.head(1).with_columns(event_id=pl.lit("another")))
    assert go_on(run).ran == ["simulate"]
    assert "another" not in Lake.open(place / "lake").events["event_id"]


def test_files_of_others_beside_a_result_are_left_alone(run: Path) -> None:
    (place,) = (run / "run/reward").iterdir()
    (place / "my notes.txt").write_text("precious")
    assert go_on(run).ran == []
    assert (place / "my notes.txt").read_text() == "precious"


def test_a_run_folder_of_before_digests_opens(run: Path) -> None:
    for file in [*run.glob("run/*/*/files.json"), *run.glob("run/*/*/lake/files.json")]:
        file.unlink()
    for file in run.glob("run/*/*/depends.json"):
        table = json.loads(file.read_text())
        del table["libraries"]
        file.write_text(json.dumps(table))
    assert {pin.name for pin in pins_of(run / "run")} == {"habit"}
    assert len(Lake.open(log_of(run / "run")).events)
    assert go_on(run).ran == []  # what it holds is JSON, and its key is the same
    (result,) = run.glob("run/reward/*/result.json")
    halved(result)
    assert go_on(run).ran == ["reward"]


@pytest.mark.parametrize("name", ["run", "run/reward", "run/simulate"])
def test_a_file_in_the_place_of_a_folder_is_refused_in_words(name: str, run: Path) -> None:
    shutil.rmtree(run / name)
    (run / name).write_text("a file")
    with pytest.raises(DataError, match="is a file, expected a folder"):
        go_on(run)
    result = invoke(
        "outcomes" if name != "run/reward" else "reward",
        str(run / "run.toml"),
        "--folder",
        str(run / "run"),
    )
    assert (result.exit_code, "is a file" in result.output) == (1, True)


# -- a store of outcomes
# -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("kept")
    world = World(users=80, items=40, seed=5)
    log = world.run(Popular(slate=5, explore=0.2), days=30)
    lake = Lake.open(place / "lake")
    lake.append(
        "log",
        events=log.events,
        decisions=log.decisions,
        contexts=log.contexts,
        items=log.items,
        watermark=world.now,
    )
    SignalStore(place / "store", lake, [HABIT, ACTIVE]).update()
    return place


IN_STORE = cases(
    ("manifest.json", TEXT),
    ("outcomes/habit@*/**/*.parquet", BINARY),
    ("rollups/user/**/*.parquet", BINARY),
)


@pytest.mark.parametrize(("name", "damage"), IN_STORE)
def test_a_damaged_store_of_outcomes_is_named_or_built_anew(
    name: str, damage: Callable[[Path], None], kept: Path, tmp_path: Path
) -> None:
    shutil.copytree(kept, tmp_path / "copy")
    lake = Lake.open(tmp_path / "copy/lake")
    expected = SignalStore(kept / "store", Lake.open(kept / "lake"), [HABIT, ACTIVE]).outcomes(
        HABIT
    )
    file = sorted((tmp_path / "copy/store").glob(name))[0]
    damage(file)

    def read(update: bool) -> pl.DataFrame:
        store = SignalStore(tmp_path / "copy/store", lake, [HABIT, ACTIVE])
        if update:
            store.update()
        return store.outcomes(HABIT)

    for update in (False, True):
        try:
            rows = read(update)
        except Exception as error:
            check_words(error, file.name, "call update()")
        else:
            assert rows.equals(expected, null_equal=True)
    shutil.rmtree(tmp_path / "copy/store")  # what the message says
    assert read(update=True).equals(expected, null_equal=True)


# -- policies and checkpoints
# --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    lake = World(users=60, items=40, seed=5).run(Popular(slate=3, explore=0.2), days=12)
    fitted = Generative(scale="tiny", seed=1, steps=2, item_tokens=True).fit(lake)
    folder = tmp_path_factory.mktemp("policy") / "saved"
    fitted.save(folder)
    return folder, fitted.name


IN_POLICY = cases(
    ("policy.json", TEXT),
    ("codes.parquet", BINARY),
    ("codes.safetensors", (flipped, deleted)),
    ("items_with_token.parquet", (flipped, emptied)),
    ("model.safetensors", BINARY),
    ("config.json", TEXT),
)


@pytest.mark.parametrize(("name", "damage"), IN_POLICY)
def test_a_damaged_policy_is_named(
    name: str, damage: Callable[[Path], None], policy: tuple[Path, str], tmp_path: Path
) -> None:
    folder, fitted_name = policy
    assert Generative.load(folder).name == fitted_name
    shutil.copytree(folder, tmp_path / "copy")
    damage(tmp_path / "copy" / name)
    with pytest.raises(DataError, match=name):
        Generative.load(tmp_path / "copy")


@pytest.mark.parametrize(
    ("name", "damage"),
    cases(
        ("model.safetensors", (emptied, halved, deleted)),
        ("config.json", TEXT[:2]),
        ("codes.parquet", BINARY),
    ),
)
def test_a_policy_of_before_digests_opens_and_what_cannot_be_read_is_told(
    name: str, damage: Callable[[Path], None], policy: tuple[Path, str], tmp_path: Path
) -> None:
    folder, fitted_name = policy
    shutil.copytree(folder, tmp_path / "copy")
    settings = json.loads((tmp_path / "copy/policy.json").read_text())
    del settings["files"], settings["sha256"]
    (tmp_path / "copy/policy.json").write_text(json.dumps(settings))
    assert Generative.load(tmp_path / "copy").name == fitted_name
    damage(tmp_path / "copy" / name)
    try:
        loaded = Generative.load(tmp_path / "copy")
    except Exception as error:
        check_words(error, str(tmp_path))
    else:  # a bit that no reader looks at; the codes have a digest of their own
        assert (name, loaded.name) == ("codes.parquet", fitted_name)


BROKEN: dict[str, Callable[[Path, torch.nn.Module], None]] = {
    "notes that are a list": lambda file, model: save_file(
        {"x": torch.ones(1)}, file, metadata={"notes": "[1, 2]"}
    ),
    "notes that are no JSON": lambda file, model: save_file(
        {"x": torch.ones(1)}, file, metadata={"notes": "{"}
    ),
    "no notes": lambda file, model: save_file({"x": torch.ones(1)}, file),
    "no step": lambda file, model: save_checkpoint(file, model, [], {"seed": 1}),
    "a step in words": lambda file, model: save_checkpoint(
        file, model, [], {"seed": 1, "step": "seven"}
    ),
    "a truth value as step": lambda file, model: save_checkpoint(
        file, model, [], {"seed": 1, "step": True}
    ),
    "another shape": lambda file, model: save_checkpoint(
        file, torch.nn.Linear(2, 2), [], {"seed": 1, "step": 7}
    ),
    "a shape that would be repeated": lambda file, model: save_checkpoint(
        file, torch.nn.Linear(1, 1), [], {"seed": 1, "step": 7}
    ),
    "an optimizer of another shape": lambda file, model: save_checkpoint(
        file, model, [stepped(torch.nn.Linear(2, 2))], {"seed": 1, "step": 7}
    ),
    "an optimizer of more parameters": lambda file, model: save_checkpoint(
        file, model, [stepped(deeper())], {"seed": 1, "step": 7}
    ),
    "a folder": lambda file, model: file.mkdir(),
    "an empty file": lambda file, model: file.touch(),
}


def stepped(model: torch.nn.Module) -> torch.optim.Optimizer:
    optimizer = torch.optim.AdamW(model.parameters())
    for weight in model.parameters():
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    return optimizer


def deeper() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 3))


@pytest.mark.parametrize("kind", BROKEN)
def test_a_checkpoint_that_is_whole_but_wrong_is_named(kind: str, tmp_path: Path) -> None:
    # catches: AttributeError of notes that are no table, a weight repeated over a matrix, an
    # optimizer that fails at the next step
    file, model = tmp_path / "checkpoint.safetensors", torch.nn.Linear(4, 3)
    BROKEN[kind](file, model)
    before = [value.detach().clone() for value in model.parameters()]
    with pytest.raises(
        DataError, match=r"checkpoint.safetensors: .*; delete it, and the training starts anew"
    ):
        load_checkpoint(
            file,
            model,
            [torch.optim.AdamW(model.parameters())],
            {"seed": 1} if "notes" not in kind else {},
            {"step": int},
        )
    assert all(torch.equal(one, two) for one, two in zip(before, model.parameters(), strict=True))


def test_a_checkpoint_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    model = torch.nn.Linear(2, 2)
    with pytest.raises(
        DataError,
        match=r"checkpoint .*file/state.*: it cannot be written .*; make room, or give another file",
    ):
        save_checkpoint(tmp_path / "file" / "state.safetensors", model, [], {})


@pytest.mark.parametrize("damage", BINARY)
def test_a_damaged_checkpoint_is_named(damage: Callable[[Path], None], tmp_path: Path) -> None:
    file = tmp_path / "checkpoint.safetensors"
    model = torch.nn.Linear(4, 3)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    save_checkpoint(file, model, [optimizer], {"seed": 1, "step": 7})
    other = torch.nn.Linear(4, 3)
    notes = load_checkpoint(file, other, [torch.optim.AdamW(other.parameters())], {"seed": 1})
    assert notes is not None
    assert notes["step"] == 7
    assert torch.equal(other.weight, model.weight)
    damage(file)
    if damage is deleted:
        assert load_checkpoint(file, other, [], {"seed": 1}) is None
        return
    with pytest.raises(DataError, match=r"checkpoint.safetensors.*delete it"):
        load_checkpoint(file, other, [torch.optim.AdamW(other.parameters())], {"seed": 1})


# -- digests of folders
# --------------------------------------------------------------------------------


def test_digests_of_folders_tell_names_from_contents(tmp_path: Path) -> None:
    """Two files, and one file whose content is theirs run together; a nested folder; a file against
    a folder of it."""
    trees = {
        "two": {"1.csv": "A", "2.csv": "B"},
        "one": {"1.csv": "A2.csvB"},
        "swapped": {"1.csv": "B", "2.csv": "A"},
        "nested": {"1.csv/2.csv": "AB"},
        "empty": {"1.csv": "", "2.csv": "AB"},
        "shifted": {"1.csv": "A2", "csvB": ""},
    }
    for name, files in trees.items():
        for path, text in files.items():
            (tmp_path / name / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / path).write_text(text)
    digests = {name: tree_digest(tmp_path / name) for name in trees} | {
        "file": tree_digest(tmp_path / "one/1.csv")
    }
    assert len(set(digests.values())) == len(digests)
    shutil.copytree(tmp_path / "two", tmp_path / "elsewhere")
    assert tree_digest(tmp_path / "elsewhere") == digests["two"]
