"""Lines of progress: drawn where somebody is watching and a call takes long, and nowhere else."""

from __future__ import annotations

import inspect
import io
import os
import pty
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import longplay as lp
from longplay import progress as progress_module
from longplay.errors import ConfigError
from longplay.experiments import plan
from longplay.learning.reinforce import reinforce
from longplay.learning.reward_weighted import reward_weighted
from longplay.ope import diagnose, estimates
from longplay.policies.generative_policy import Generative
from longplay.policies.simple import Popular
from longplay.progress import reporting, silent
from longplay.rewards.calibration import calibration, compare
from longplay.signals.store.signal_store import SignalStore
from longplay.world import World

HABIT = lp.Signal(
    "habit",
    entry=lp.discovery(novel_for=14),
    measure=lp.days_with("creator") >= 2,
    window=(1, 10),
)
LONG_CALLS = [
    World.run,
    lp.ProgressiveReward.fit,
    Generative.fit,
    Generative.train,
    reinforce,
    reward_weighted,
    lp.off_policy_gradient,
    lp.weighted_classification,
    lp.preference_pairs,
    lp.write_outcomes,
    SignalStore.update,
    lp.audit,
    lp.top_items,
    lp.Signal.outcomes,
    lp.Experiment.analyze,
    calibration,
    compare,
    plan,
    lp.against_holdout,
    lp.ips,
    lp.snips,
    lp.doubly_robust,
    estimates,
    diagnose,
]


class Screen(io.StringIO):
    """A terminal, or not, that keeps what was written."""

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal

    def lines(self) -> list[str]:
        """Every text that stood on the line."""
        return [text.rstrip() for text in self.getvalue().split("\r") if text.strip()]


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_module, "WAIT_SECONDS", 0.02)
    monkeypatch.setattr(progress_module, "REDRAW_SECONDS", 0.01)


def screen(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> Screen:
    made = Screen(terminal)
    monkeypatch.setattr(sys, "stderr", made)
    return made


def work(progress: Any = None, seconds: float = 0.1) -> None:
    with reporting("work", "days", progress) as tell:
        tell(1, 4)
        time.sleep(seconds)
        tell(4, 4)


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(
    ("terminal", "progress", "drawn"),
    [
        (True, None, True),
        (True, True, True),
        (True, False, False),
        (False, None, False),
        (False, True, True),
        (False, False, False),
    ],
)
def test_a_line_is_drawn_where_somebody_is_watching_or_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, progress: bool | None, drawn: bool
) -> None:
    out = screen(monkeypatch, terminal)
    work(progress)
    assert bool(out.getvalue()) == drawn
    if drawn:
        assert out.lines()[0].startswith("work: 1 of 4 days done, about ")
        assert out.getvalue().endswith("\r"), "and is taken away at the end"


def test_a_short_call_draws_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    out = screen(monkeypatch, terminal=True)
    work(seconds=0.01)
    assert out.getvalue() == ""


@pytest.mark.usefixtures("at_once")
def test_a_call_inside_draws_no_line_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    out = screen(monkeypatch, terminal=True)
    with reporting("outer", "steps") as tell:
        tell(1, 2)
        work()
    assert {line.partition(":")[0] for line in out.lines()} == {"outer"}
    out = screen(monkeypatch, terminal=True)
    with silent():
        work()
    assert out.getvalue() == ""
    work()
    assert out.lines(), "and afterwards lines are drawn again"


@pytest.mark.usefixtures("at_once")
def test_a_function_is_called_and_nothing_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    out, calls = screen(monkeypatch, terminal=True), []
    work(lambda *figures: calls.append(figures))
    assert calls == [(1, 4), (4, 4)]
    assert out.getvalue() == ""


@pytest.mark.usefixtures("at_once")
def test_a_failure_takes_the_line_away_and_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        with reporting("work", "days"):
            time.sleep(0.1)
            raise KeyError("nobody")

    out = screen(monkeypatch, terminal=True)
    with pytest.raises(KeyError, match="nobody"):
        fail()
    assert out.getvalue().endswith("\r")


@pytest.mark.usefixtures("at_once")
def test_a_terminal_that_goes_away_stops_the_line_not_the_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = screen(monkeypatch, terminal=True)
    with reporting("work", "days") as tell:
        tell(1, 4)
        time.sleep(0.05)
        out.close()
        time.sleep(0.05)
        tell(4, 4)


@pytest.mark.usefixtures("at_once")
def test_a_line_is_never_wider_than_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    out = screen(monkeypatch, terminal=True)
    work()
    assert max(map(len, out.getvalue().split("\r"))) <= 19


def test_what_is_no_progress_is_refused() -> None:
    with pytest.raises(ConfigError, match="progress=3 given, expected a function, True, False"):
        work(3)


@pytest.mark.parametrize("call", LONG_CALLS, ids=lambda call: call.__qualname__)
def test_long_calls_take_progress_and_are_watched_by_default(call: Any) -> None:
    assert inspect.signature(call).parameters["progress"].default is None


@pytest.mark.usefixtures("at_once")
def test_the_library_draws_for_a_terminal_and_is_silent_for_a_log(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = screen(monkeypatch, terminal=True)
    World(users=60, items=40, seed=5).run(Popular(slate=5, explore=0.2), days=20)
    assert out.lines()
    assert all(line.startswith("World.run: ") for line in out.lines())
    out = screen(monkeypatch, terminal=False)
    lake = World(users=60, items=40, seed=5).run(Popular(slate=5, explore=0.2), days=20)
    lp.ProgressiveReward(HABIT).fit(lake, HABIT.outcomes(lake))
    assert out.getvalue() == ""


def test_the_same_figures_come_out_whoever_watches(tmp_path: Path) -> None:
    lakes = []
    for progress in (True, False, lambda done, days: None):
        world = World(users=60, items=40, seed=5)
        lakes.append(world.run(Popular(slate=5, explore=0.2), days=20, progress=progress))
    assert lakes[0].events.equals(lakes[1].events)
    assert lakes[0].events.equals(lakes[2].events)
    calls: list[tuple[int, int]] = []
    lp.write_outcomes(
        [HABIT, lp.Signal("back", entry=lp.user_day(), measure=lp.returned(), window=(1, 7))],
        lakes[0],
        tmp_path / "out",
        progress=lambda *told: calls.append(told),
    )
    assert calls == [(1, 2), (2, 2)]


def test_outcomes_and_read_outs_count_their_steps_to_the_last() -> None:
    # catches: a bar that stands at two thirds when the call returns, or counts beyond its end
    def ends_whole(call: Callable[..., object], steps: int) -> None:
        calls: list[tuple[int, int]] = []
        call(lambda *told: calls.append(told))
        assert calls == [(step, steps) for step in range(steps + 1)]

    uniform, popular = Popular(slate=5, explore=0.5), Popular(slate=5, explore=0.1)
    world = World(users=200, items=40, seed=5)
    world.run(uniform, days=14)
    experiment = lp.Experiment(control=popular, treatment=uniform, salt="x")
    lake = world.run(experiment, days=14)
    active = lp.Signal("active", entry=lp.enrolment(), measure=lp.active_days(), window=(1, 7))
    ends_whole(lambda progress: HABIT.outcomes(lake, progress=progress), 3)
    # users, covariates, sums, and one treatment
    ends_whole(lambda progress: experiment.analyze(lake, active, progress=progress), 4)
    # users, sums, and how often it would ship
    ends_whole(lambda progress: plan(lake, active, weeks=1, progress=progress), 3)


def test_a_store_says_which_part_it_is_at(tmp_path: Path) -> None:
    world = World(users=60, items=40, seed=5, folder=tmp_path / "lake")
    lake = world.run(Popular(slate=5, explore=0.2), days=20)
    told: list[tuple[str, int, int]] = []
    SignalStore(tmp_path / "store", lake, [HABIT]).update(
        progress=lambda what, done, of: told.append((what, done, of))
    )
    assert {what.partition(" ")[0] for what, _, _ in told} == {"roll-up", "outcomes"}
    assert all(0 <= done < of for _, done, of in told)


def test_in_a_real_terminal_the_line_stands_on_standard_error_alone() -> None:
    """A subprocess with a terminal for errors and a pipe for output, as in `python job.py > log`."""
    code = (
        "import time, longplay.progress as p; p.WAIT_SECONDS = 0.1\n"
        "with p.reporting('job', 'days') as tell:\n"
        "    tell(2, 8); time.sleep(0.5)\n"
        "print('done')"
    )
    ours, theirs = pty.openpty()
    run = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=theirs)
    os.close(theirs)
    drawn = os.read(ours, 10_000).decode()
    os.close(ours)
    assert run.stdout == b"done\n"
    assert "\rjob: 2 of 8 days done, about " in drawn
