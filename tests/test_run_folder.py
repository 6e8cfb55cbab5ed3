"""One run folder: two runs at once, what is on disk when, keys, and how a command ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch
from test_cli import invoke
from test_damage import ACTIVE, HABIT, LOG
from test_run import Watching

from longplay import cli
from longplay.cli import screen
from longplay.codes import Codebook
from longplay.errors import ConfigError, DataError, MissingExtra
from longplay.files import writer_lock
from longplay.lake import Lake
from longplay.policies.generative_policy import Generative
from longplay.policies.simple import Popular
from longplay.policies.training.checkpoint import save_checkpoint
from longplay.run import load_config, run_stages
from longplay.run.config import parse_config
from longplay.run.engine import key_of, versions
from longplay.run.folder import RunFolder, StageKey
from longplay.run.stages import STAGES, stages_of
from longplay.signals.store.manifest import Manifest
from longplay.signals.store.signal_store import SignalStore
from longplay.world import World

SMALL = LOG.replace("users = 120", "users = 60").replace("items = 60", "items = 40")

# -- two runs at once
# ----------------------------------------------------------------------------------


def start(place: Path, verb: str = "reward") -> subprocess.Popen[str]:
    words = [
        sys.executable,
        "-m",
        "longplay",
        verb,
        str(place / "run.toml"),
        "--folder",
        str(place / "run"),
    ]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def figures_of(run: Path) -> dict[str, str]:
    return {
        file.relative_to(run).as_posix(): file.read_text()
        for file in sorted(run.glob("*/*/result.json"))
    }


def test_two_runs_of_one_folder_both_end_well_and_find_out_the_same(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(SMALL)
    run_stages(
        load_config(tmp_path / "run.toml"), base=tmp_path, folder=tmp_path / "alone", until="reward"
    )
    for _ in range(2):
        both = [start(tmp_path), start(tmp_path)]
        outputs = [process.communicate(timeout=300)[0] for process in both]
        assert [process.returncode for process in both] == [0, 0], outputs
        assert figures_of(tmp_path / "run") == figures_of(tmp_path / "alone")
        ran = [output.count("✓") for output in outputs]
        assert sum(ran) in (3, 0)  # every stage once, by either of them; on the second round none
    assert not list(tmp_path.glob("run/*/*.partial"))


def test_the_second_run_says_that_it_waits_and_goes_on(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(SMALL)
    with writer_lock(tmp_path / "run"):
        process = start(tmp_path, "simulate")
        assert process.stdout is not None
        lines = [process.stdout.readline(), process.stdout.readline()]
        assert any(f"another run works in {tmp_path / 'run'}; waiting" in line for line in lines), (
            lines
        )
        assert process.poll() is None
        assert not list(tmp_path.glob("run/simulate/*"))
    rest = process.communicate(timeout=300)[0]
    assert process.returncode == 0, rest
    assert "waiting" not in rest


def test_a_finished_stage_is_read_without_the_lock(tmp_path: Path) -> None:
    config = parse_config(SMALL, "run.toml")
    run_stages(config, base=tmp_path, folder=tmp_path / "run", until="simulate")
    ui = Watching()
    with writer_lock(tmp_path / "run"):  # would wait for ever
        run_stages(config, base=tmp_path, folder=tmp_path / "run", until="simulate", ui=ui)
    assert ui.skipped == ["simulate"]


# -- what is on disk when
# ------------------------------------------------------------------------------


class Disk:
    """Notes the order of syncs and renames, by path: a stand-in for a power failure at any
    moment."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.synced: dict[
            str, list[tuple[int, int]]
        ] = {}  # path -> when it was synced, and its size then
        self.renamed: dict[str, int] = {}  # new name -> when
        self.clock = 0
        fsync, replace, rename = os.fsync, os.replace, os.rename

        def noted_fsync(handle: int) -> None:
            fsync(handle)
            path = os.readlink(f"/proc/self/fd/{handle}")
            self.synced.setdefault(path, []).append((self._tick(), os.fstat(handle).st_size))

        def noted(move):  # type: ignore[no-untyped-def]
            def moved(old, new, **how):  # type: ignore[no-untyped-def]
                move(old, new, **how)
                now, old, new = self._tick(), os.path.abspath(old), os.path.abspath(new)
                self.renamed[new] = now
                # what was below the old name is below the new one
                for path in [
                    path for path in self.synced if path == old or path.startswith(old + "/")
                ]:
                    self.synced[new + path[len(old) :]] = self.synced.pop(path)

            return moved

        patch.setattr(os, "fsync", noted_fsync)
        patch.setattr(os, "replace", noted(replace))
        patch.setattr(os, "rename", noted(rename))

    def _tick(self) -> int:
        self.clock += 1
        return self.clock

    def safe(self, file: Path, before: int) -> bool:
        """Whether all of a file, and its name in its folder, were synced before a moment."""
        whole = any(
            when < before and size == file.stat().st_size
            for when, size in self.synced.get(str(file), [])
        )
        return whole and any(when < before for when, _ in self.synced.get(str(file.parent), []))

    def unsafe(self, files: list[Path], published: Path) -> list[Path]:
        """Files that were not on disk when `published` got its name, or that name itself where its
        folder was not synced after."""
        when = self.renamed[str(published)]
        lost = [file for file in files if not self.safe(file, when)]
        after = any(synced > when for synced, _ in self.synced.get(str(published.parent), []))
        return lost if after else [*lost, published]


needs_proc = pytest.mark.skipif(
    not Path("/proc/self/fd").is_dir(), reason="names of open files are read from /proc"
)


@needs_proc
def test_every_file_of_a_finished_stage_is_on_disk_before_its_folder_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)
    places = run_stages(
        parse_config(SMALL, "run.toml"), base=tmp_path, folder=tmp_path / "run", until="reward"
    )
    for place in places.values():
        files = [file for file in place.rglob("*") if file.is_file() and file.name != ".writer"]
        assert len(files) >= 4
        assert disk.unsafe(files, place) == []


@needs_proc
def test_every_file_that_a_manifest_names_is_on_disk_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(users=60, items=30, seed=5)
    log = world.run(Popular(slate=5, explore=0.2), days=20)
    lake = Lake.open(tmp_path / "lake")
    lake.append(
        "log", events=log.events, decisions=log.decisions, items=log.items, watermark=world.now
    )
    disk = Disk(monkeypatch)
    store = SignalStore(tmp_path / "store", lake, [HABIT, ACTIVE])
    store.update()
    manifest = Manifest.read(store.folder)
    assert len(manifest.files()) > 10
    assert manifest.digests.keys() == manifest.files()
    assert (
        disk.unsafe(
            [store.folder / file for file in manifest.files()], store.folder / "manifest.json"
        )
        == []
    )


@needs_proc
def test_checkpoints_and_policies_are_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = World(users=60, items=40, seed=5).run(Popular(slate=3, explore=0.2), days=12)
    policy = Generative(scale="tiny", seed=1, steps=1).fit(lake)
    disk = Disk(monkeypatch)
    policy.save(tmp_path / "policy")
    files = [file for file in (tmp_path / "policy").iterdir() if file.name != "policy.json"]
    assert disk.unsafe(files, tmp_path / "policy/policy.json") == []
    model = torch.nn.Linear(4, 3)
    save_checkpoint(
        tmp_path / "state.safetensors", model, [torch.optim.AdamW(model.parameters())], {"step": 1}
    )
    file = tmp_path / "state.safetensors"
    assert (
        disk.synced[str(file)][0][0] < disk.renamed[str(file)] < disk.synced[str(tmp_path)][-1][0]
    )
    Codebook.load(
        tmp_path / "policy/codes.parquet", policy.codebook.width if policy.codebook else 0
    ).save(tmp_path / "codes.parquet")
    assert str(tmp_path / "codes.parquet") in disk.synced


def test_a_killed_update_does_not_change_what_is_known_of_the_catalogue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the next update would find the new lengths there already, and count nothing
    again."""
    from longplay.signals import completion, exposure
    from longplay.signals.signal import Signal
    from longplay.signals.store.nightly import NightlyUpdate

    world = World(users=60, items=30, seed=5)
    log = world.run(Popular(slate=5, explore=0.2), days=12)
    played = Signal("played", entry=exposure(of="item"), measure=completion("item"), window=(0, 2))
    lake = Lake.open(tmp_path / "lake")
    items = log.items.with_columns(length=200.0)
    lake.append("log", events=log.events, decisions=log.decisions, items=items, watermark=world.now)
    SignalStore(tmp_path / "store", lake, [played]).update()
    lake.append("lengths", items=items.with_columns(length=100.0))
    with monkeypatch.context() as patched:
        patched.setattr(NightlyUpdate, "_compute", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            SignalStore(tmp_path / "store", lake, [played]).update()
    store, fresh = (SignalStore(tmp_path / name, lake, [played]) for name in ("store", "fresh"))
    store.update()
    fresh.update()
    assert store.outcomes(played).equals(fresh.outcomes(played), null_equal=True)
    assert store.outcomes(played)["value"].sum() > 0


# -- keys
# ----------------------------------------------------------------------------------------------


def test_keys_cover_the_versions_of_what_can_change_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = parse_config(SMALL, "run.toml")

    def digests() -> dict[str, str]:
        keys: dict[str, StageKey] = {}
        for stage in stages_of(config):
            keys[stage.name] = key_of(stage, config, tmp_path, keys)
        return {name: key.digest for name, key in keys.items()}

    before, installed = digests(), metadata.version
    changed = {}
    for library in (
        "longplay",
        "numpy",
        "duckdb",
        "polars",
        "scikit-learn",
        "torch",
        "altair",
        "rich",
    ):
        with monkeypatch.context() as patched:
            patched.setattr(
                metadata,
                "version",
                lambda name, library=library: "999" if name == library else installed(name),
            )
            changed[library] = [
                name for name, digest in digests().items() if digest != before[name]
            ]
    everything = list(before)
    assert everything == [name for name in (stage.name for stage in STAGES) if name in before]
    for library in ("longplay", "numpy", "duckdb", "polars"):
        assert changed[library] == everything, library
    assert changed["torch"] == everything[everything.index("train") :]
    assert changed["scikit-learn"] == everything[everything.index("reward") :]
    assert changed["altair"] == ["report"]
    assert changed["rich"] == []


def test_versions_of_what_is_not_installed_are_absent_and_nothing_is_imported() -> None:
    assert versions(["longplay", "no-such-package"]) == {
        "longplay": metadata.version("longplay"),
        "no-such-package": "absent",
    }
    script = (
        "import sys; from longplay.run.engine import versions; versions(['torch']); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


def test_the_key_is_recorded_beside_the_result(tmp_path: Path) -> None:
    places = run_stages(
        parse_config(SMALL, "run.toml"), base=tmp_path, folder=tmp_path / "run", until="simulate"
    )
    depends = json.loads((places["simulate"] / "depends.json").read_text())
    assert depends["libraries"]["numpy"] == metadata.version("numpy")
    assert RunFolder(tmp_path / "run").path.is_dir()


# -- how a command ends
# --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (DataError("no rows"), 1, "the data says no: no rows"),
        (ConfigError("a typo"), 2, "usage: a typo"),
        (
            MissingExtra("needs torch: pip install 'longplay[llm]'"),
            2,
            "usage: needs torch: pip install 'longplay[llm]'",
        ),
        (KeyError("surprise [bold]"), 3, "a fault of longplay: KeyError: 'surprise [bold]'"),
        (OSError(28, "No space left on device"), 3, "OSError: [Errno 28] No space left on device"),
        (KeyboardInterrupt(), 130, "the same command goes on"),
    ],
)
def test_exit_codes(
    error: BaseException, code: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run.toml").write_text(SMALL)
    (tmp_path / "run").mkdir()

    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(cli, "run_stages", fails)
    result = invoke("run", str(tmp_path / "run.toml"), "--folder", str(tmp_path / "run"))
    shown = " ".join(result.output.split())
    assert result.exit_code == code
    assert words in shown
    assert "Traceback" not in result.output
    traces = list((tmp_path / "run").glob("fault-*.txt"))
    assert len(traces) == (code == 3)
    if traces:
        assert str(traces[0]) in result.output.replace("\n", "")
        assert "Traceback" in traces[0].read_text()
        assert "in fails" in traces[0].read_text()


def test_a_fault_without_a_run_folder_goes_to_the_temporary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(cli.signals, "_print_catalogue", lambda *_: 1 / 0)
    result = invoke("signals")
    assert result.exit_code == 3
    (trace,) = tmp_path.glob("fault-*.txt")
    assert "ZeroDivisionError" in trace.read_text()
    assert "ZeroDivisionError" in result.output


def test_a_panic_of_a_compiled_library_is_a_fault_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import polars as pl

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def panics(*_: object) -> None:
        raise pl.exceptions.PanicException("index out of bounds")

    monkeypatch.setattr(cli.signals, "_print_catalogue", panics)
    assert invoke("signals").exit_code == 3


def test_exit_codes_are_documented() -> None:
    page = (Path(__file__).resolve().parents[1] / "docs/cli.md").read_text()
    helped = " ".join(invoke("--help").output.replace("│", " ").split())
    assert screen.EXIT_CODES in helped
    for code in (0, 1, 2, 3, 130):
        assert f"| {code} |" in page
