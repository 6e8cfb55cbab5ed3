"""A service of another design, behind the adapter of examples/: it keeps every rule, and the whole loop
runs on it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from longplay.world import Forkable, Simulator, check_simulator

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@pytest.fixture(scope="module")
def video() -> Iterator[ModuleType]:
    sys.path.insert(0, str(EXAMPLES))
    yield import_module("video_loop")
    sys.path.remove(str(EXAMPLES))


def test_the_adapter_is_short() -> None:
    lines = (EXAMPLES / "video_adapter.py").read_text().splitlines()
    first = next(n for n, line in enumerate(lines) if line.startswith("class "))
    code = [line for line in lines[first:] if line.strip() and not line.strip().startswith("#")]
    assert len(code) <= 85
    assert "longplay" not in (EXAMPLES / "video_app.py").read_text().split('"""', 2)[2]


def test_the_adapted_service_keeps_every_rule(video: ModuleType) -> None:
    service = video.VideoService(users=80)
    assert isinstance(service, Simulator)
    assert isinstance(service, Forkable)
    report = check_simulator(service)
    assert report.ok, report
    assert report.open == ()


def test_a_service_in_the_middle_of_its_sessions_keeps_them_too(video: ModuleType) -> None:
    """At midnight some watch on: their events come later than the copies were made."""
    service = video.VideoService(users=200, seed=3)
    service.run(None, days=2)
    while not service.rows and service.day < 30:
        service.run(video.lp.Uniform(slate=6), days=1)
    assert service.rows
    report = check_simulator(service, days=2)
    assert report.ok, report


def test_luck_that_is_not_keyed_is_found(video: ModuleType) -> None:
    """The app as it comes has one generator, which what was shown moves on."""

    class Unkeyed(video.VideoService):
        def luck(self, phone, purpose):  # type: ignore[no-untyped-def]
            return self.phones[0].rng

    report = check_simulator(Unkeyed(users=80))
    assert report.failed == ("same shown",), report
    assert "never the next number of a generator" in report.line("same shown").advice


def test_the_loop_runs_on_it_and_the_experiment_finds_the_truth(video: ModuleType) -> None:
    readout, audit, truth = video.loop(video.VideoService(users=200))
    difference = truth.difference("treatment", signal="active")
    assert difference.interval()[0] > 0  # who is shown any video comes oftener than by popularity
    estimate = readout.line("active").difference
    assert estimate.interval()[0] < difference.value < estimate.interval()[1]
    # pairing by user with common luck leaves less noise than two halves of the users do
    assert difference.std_error < 0.5 * estimate.std_error
    verdict = audit.verdicts[0]
    assert verdict.signal.startswith("fan")
    assert verdict.late is not None
