"""The whole loop on the lowest versions that pyproject.toml allows; `make test-lowest` runs it in a
virtual environment of its own.

python tests/lowest.py pins            the lowest versions, one requirement per line, of the base
install python tests/lowest.py pins llm        those of an extra beside it python tests/lowest.py
smoke           the loop without torch, then with it where it is installed
"""

from __future__ import annotations

import csv
import re
import subprocess
import sys
import tempfile
import tomllib
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOWEST = re.compile(r"^(?P<name>[A-Za-z0-9_.-]+)>=(?P<version>[0-9.]+)(?P<marker>\s*;.*)?$")

OWN_LOG = """
[run]
name = "lowest"
seed = 3

[ingest]
path = "events.csv"

[ingest.columns]
user_id = "user"
item_id = "item"
time = "at"
kind = "action"

[split]
train_until = 2026-02-05
evaluate_until = 2026-02-14

[signals.habit]
entry = { kind = "discovery", of = "item" }
measure = { kind = "days_with", of = "item", threshold = 2 }
window = [1, 14]

[reward]
objectives = { habit = 1.0 }
age = 7
"""

SIMULATED = """
[run]
name = "lowest-simulated"
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

[signals.active]
entry = { kind = "enrolment" }
measure = { kind = "active_days" }
window = [1, 7]

[reward]
objectives = { habit = 1.0 }
age = 7

[train]
exclude = "creator"
steps = 20

[reinforce]
steps = 4
contexts = 8
group = 4

[evaluate]
visits = 100
true_value_users = 20

[experiment]
days = 24
north_star = "active"
true_users = 20
"""


def pins(requirements: list[str]) -> list[str]:
    """`name==lowest version` of every requirement.

    >>> pins(["numpy>=2.0", "pyspark>=4.0,<4.1"])
    Traceback (most recent call last):
    ...
    ValueError: 'pyspark>=4.0,<4.1' is not of the form name>=version
    >>> pins(["numpy>=2.0"])
    ['numpy==2.0']
    """
    lowest = []
    for requirement in requirements:
        match = LOWEST.match(requirement)
        if match is None:
            raise ValueError(f"{requirement!r} is not of the form name>=version")
        lowest.append(f"{match['name']}=={match['version']}{match['marker'] or ''}")
    return lowest


def write_log(file: Path) -> None:
    """A CSV log of 40 users and 40 items over 60 days; who plays an item tends to come back to
    it."""
    begin = datetime(2026, 1, 1, 12, tzinfo=UTC)
    with file.open("w", newline="") as handle:
        rows = csv.writer(handle)
        rows.writerow(["user", "item", "at", "action"])
        for user in range(40):
            for day in range(60):
                if (user * 7 + day * 5) % 3 == 0:
                    item = (user * 11 + day // (2 + user % 3)) % 40
                    rows.writerow(
                        [
                            f"u{user}",
                            f"i{item}",
                            (begin + timedelta(days=day, minutes=user)).isoformat(),
                            "play",
                        ]
                    )


def command(*words: str, folder: Path) -> str:
    """Run `longplay` with these words in `folder`; what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "longplay", *words], cwd=folder, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(
            f"longplay {' '.join(words)}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        )
    return done.stdout


def smoke(folder: Path) -> None:
    """Ingest, signals, early reward, simulation, off-policy, experiment, audit and report; the
    learners where torch is there."""
    import longplay as lp
    from longplay.decisions import Frozen
    from longplay.report import render
    from longplay.results import RunResults
    from longplay.run import load_config, run_stages
    from longplay.run.engine import read_stage

    command("--help", folder=folder)
    command("init", "mine.toml", folder=folder)
    (folder / "run.toml").write_text(OWN_LOG)
    write_log(folder / "events.csv")
    command("reward", "run.toml", folder=folder)
    command("signals", folder=folder)
    command("signals", "runs/lowest", folder=folder)
    places = run_stages(
        load_config(folder / "run.toml"), base=folder, folder=folder / "runs/lowest", until="reward"
    )
    page = render(
        "lowest",
        RunResults({name: read_stage(name, place) for name, place in places.items()}),
    )
    assert "<svg" in page or "vega" in page.lower()

    world = lp.World(users=240, items=120, seed=7)
    lake = world.run(lp.Popular(slate=5, explore=0.2), days=70)
    on_disk = lp.Lake.open(folder / "lake")
    on_disk.append(
        "log",
        events=lake.events,
        decisions=lake.decisions,
        contexts=lake.contexts,
        items=lake.items,
        watermark=world.now,
    )
    habit = lp.Signal(
        "habit",
        entry=lp.discovery(novel_for=28),
        measure=lp.days_with("creator") >= 3,
        window=(1, 20),
    )
    active = lp.Signal("active", entry=lp.enrolment(), measure=lp.active_days(), window=(1, 7))
    outcomes = habit.outcomes(lake, as_of=world.now)
    store = lp.SignalStore(folder / "store", on_disk, [habit, active])
    store.update()
    assert store.outcomes(habit).height == len(outcomes)
    early = lp.ProgressiveReward(habit).fit(lake, outcomes)
    uniform = lp.Uniform(slate=5).fit(lake)
    print(lp.doubly_robust(uniform, lake, outcomes.on(lake.decisions)))
    trial = lp.Experiment(control=Frozen(world.policy), treatment=uniform, salt="lowest")
    lake = world.run(trial, days=24)
    print(trial.analyze(lake, [habit, active]), lp.audit(early, trial, lake, north_star=active))
    print("without torch: whole")

    if find_spec("torch") is None:
        print("torch is not installed: the learners were left out")
        return
    (folder / "simulated.toml").write_text(SIMULATED)
    command("run", "simulated.toml", folder=folder)
    assert (folder / "runs/lowest-simulated/report.html").stat().st_size > 100_000
    print("with torch: whole")


def main(words: list[str]) -> None:
    """`pins [extra ...]` or `smoke`."""
    match words:
        case ["pins", *extras]:
            project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
            parts = [
                project["dependencies"],
                *(project["optional-dependencies"][extra] for extra in extras),
            ]
            print("\n".join(pins([requirement for part in parts for requirement in part])))
        case ["smoke"]:
            with tempfile.TemporaryDirectory() as folder:
                smoke(Path(folder))
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
