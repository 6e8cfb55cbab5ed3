"""Lost power: what was acknowledged is on the disk.

A writer works on a file system in a loop device, whose journal is written only when somebody asks
for it (`commit=300`). A copy of the device's backing file holds what a disk would hold if power
failed at that moment: everything that was not synced is missing.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from test_lake import SOURCE, batches_by_table, tables

from longplay.lake import Lake
from longplay.lake.commits import COPY, FOLDER, CommitLog
from longplay.lake.repair import check

CUTS = 24
WRITER = """
import sys
sys.path[:0] = [{source!r}, {tests!r}]
from pathlib import Path
from test_lake import tables
from longplay.lake import Lake
print("ready", flush=True)
for number in range(1000):
    if number % 12 == 0:
        lake = Lake.open(Path({folder!r}) / f"lake{{number // 12}}")
    lake.append(f"b{{number}}", **tables(f"b{{number}}"))
    print(number, flush=True)
"""


@contextmanager
def mounted(image: Path, place: Path) -> Iterator[Path]:
    """The file system in `image`, at `place`."""
    place.mkdir(exist_ok=True)
    done = subprocess.run(
        ["mount", "-o", "loop,commit=300", str(image), str(place)], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"no loop device can be mounted here: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """An image of an empty file system."""
    if os.geteuid() != 0 or shutil.which("mkfs.ext4") is None or shutil.which("mount") is None:
        pytest.skip("loop devices need root, mount and mkfs.ext4")
    image = tmp_path / "disk.img"
    with image.open("wb") as handle:
        handle.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
    return image


def test_power_may_fail_at_any_moment(tmp_path: Path, disk: Path) -> None:
    rng = random.Random(7)
    acknowledged: list[int] = []
    with mounted(disk, tmp_path / "disk") as place:
        code = WRITER.format(
            source=str(SOURCE), tests=str(Path(__file__).parent), folder=str(place)
        )
        with subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "ready\n"
            for cut in range(CUTS):
                acknowledged.append(int(writer.stdout.readline()))
                time.sleep(rng.uniform(0.0, 0.1))
                writer.send_signal(signal.SIGSTOP)
                shutil.copyfile(disk, tmp_path / f"cut{cut}.img")
                writer.send_signal(signal.SIGCONT)
            writer.kill()
    for cut, last in enumerate(acknowledged):
        with mounted(tmp_path / f"cut{cut}.img", tmp_path / "cut") as place:
            there: set[str] = set()
            for folder in place.glob("lake*"):
                assert not check(folder).damages
                lake = Lake.open(folder)
                counts = batches_by_table(lake)
                whole = set(counts["events"])
                assert counts == {
                    table: dict.fromkeys(whole, rows)
                    for table, rows in (
                        ("events", 3),
                        ("decisions", 2),
                        ("contexts", 2),
                        ("items", 1),
                    )
                }
                there |= whole
            assert there >= {f"b{number}" for number in range(last + 1)}
            newest = Lake.open(place / f"lake{(last + 1) // 12}")
            newest.append("goes on", **tables("goes on"))
            assert "goes on" in batches_by_table(newest)["events"]
        (tmp_path / f"cut{cut}.img").unlink()


def test_a_cut_between_the_copies_of_a_commit_is_no_damage(tmp_path: Path) -> None:
    """The copy is written second: it may lack the newest commit, the first one too."""
    lake = Lake.open(tmp_path / "lake")
    copy = tmp_path / "lake" / FOLDER / COPY
    lake.append("first", **tables("first"))
    lines = copy.read_bytes().splitlines(keepends=True)
    assert len(lines) == 2  # the beginning and the batch
    copy.write_bytes(lines[0])
    assert not check(tmp_path / "lake").damages
    copy.write_bytes(b"")
    assert [damage.problem for damage in check(tmp_path / "lake").damages] == [
        "commit 0 is missing"
    ]


def test_a_cut_before_the_first_copy_is_no_damage(tmp_path: Path) -> None:
    CommitLog(tmp_path / "lake").begin()
    (tmp_path / "lake" / FOLDER / COPY).unlink()
    assert not check(tmp_path / "lake").damages
    lake = Lake.open(tmp_path / "lake")
    lake.append("first", **tables("first"))
    assert not check(tmp_path / "lake").damages
    assert set(batches_by_table(lake)["events"]) == {"first"}
