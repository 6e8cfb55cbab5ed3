"""Results are types: today's code reads what a run wrote and writes it again equal, and a field that
is missing, renamed or of another kind is an error that names it."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from test_report import looped
from test_run import SIMULATED, TINY, Watching

import longplay
from longplay.errors import DataError
from longplay.estimate import Estimate
from longplay.results import RunResults, StageResult, result_of, to_json
from longplay.results.experiment_figures import ExperimentResult
from longplay.results.record import from_json
from longplay.results.reward_figures import CalibrationFigures
from longplay.run import STAGES, run_stages
from longplay.run.config import parse_config
from longplay.run.engine import read_stage

GOLDEN = Path(__file__).parent / "golden"
STAGE_NAMES = [stage.name for stage in STAGES]
Path_ = tuple[str | int, ...]


def golden(stage: str) -> Any:
    """The result of a stage of a tiny run, long lists cut short."""
    return json.loads((GOLDEN / f"{stage}.json").read_text())


def samples() -> Iterator[tuple[str, Any]]:
    """Results of every stage: of a tiny run, and with all that a run can hold."""
    for stage in STAGE_NAMES:
        yield stage, golden(stage)
    yield from looped().items()


def fields_of(kind: Any, value: Any, path: Path_ = ()) -> Iterator[Path_]:
    """The place of every key in `value` that is a field of a type; keys that are data, such as the
    names of signals and policies, are left out."""
    options = [one for one in get_args(kind) or (kind,) if one is not NoneType]
    origin = get_origin(kind)
    if value is None:
        return
    if origin is tuple:
        for place, inner in enumerate(value):
            yield from fields_of(options[0], inner, (*path, place))
    elif isinstance(origin, type) and issubclass(origin, Mapping):
        for key, inner in value.items():
            yield from fields_of(options[1], inner, (*path, key))
    elif isinstance(value, dict):
        kinds = [one for one in options if is_dataclass(one)]
        kind = min(kinds, key=lambda one: len(names_of(one) ^ value.keys()))
        hints = get_type_hints(kind)
        for each in () if kind is Estimate else fields(kind):
            if each.metadata:  # its entries stand beside the other fields
                yield from fields_of(hints[each.name], value, path)
            else:
                yield (*path, each.name)
                yield from fields_of(hints[each.name], value[each.name], (*path, each.name))
        if kind is Estimate:
            yield from ((*path, key) for key in Estimate.JSON_KEYS)


def names_of(kind: Any) -> set[str]:
    if kind is Estimate:
        return set(Estimate.JSON_KEYS)
    return {each.name for each in fields(kind) if not each.metadata}


def inside(value: Any, path: Path_) -> Any:
    for key in path:
        value = value[key]
    return value


def test_every_stage_has_a_type_and_every_type_a_stage() -> None:
    assert set(StageResult.by_stage) == set(STAGE_NAMES)


@pytest.mark.parametrize("stage", STAGE_NAMES)
def test_what_a_run_wrote_is_read_and_written_again_equal(stage: str) -> None:
    result = result_of(stage, golden(stage), "golden")
    assert json.loads(json.dumps(to_json(result), allow_nan=False)) == golden(stage)


def test_removing_or_renaming_any_field_of_any_result_is_an_error_that_names_it() -> None:
    # catches: a renamed key that makes the page say "nothing was decided" of a trial that says ship
    count = 0
    for stage, sample in samples():
        for path in fields_of(StageResult.by_stage[stage], sample):
            *above, key = path
            removed = copy.deepcopy(sample)
            value = inside(removed, tuple(above)).pop(key)
            renamed = copy.deepcopy(removed)
            inside(renamed, tuple(above))[f"{key}_"] = value
            for broken in (removed, renamed):
                with pytest.raises(DataError) as error:
                    result_of(stage, broken, "runs/x/result.json")
                words = str(error.value)
                assert words.startswith(f"runs/x/result.json: {stage}: "), words
                assert f"{key} is missing" in words, (path, words)
            count += 1
    assert count > 1_000


def test_an_unknown_field_is_an_error_that_names_it() -> None:
    result = golden("experiment")
    result["readout"]["decisions"][0]["verdicts"] = "ship"
    with pytest.raises(
        DataError, match=r"x: experiment: readout\.decisions\.0: verdicts is unknown"
    ):
        result_of("experiment", result, "x")


@pytest.mark.parametrize(
    ("stage", "path", "value", "words"),
    [
        ("experiment", ("days",), "36", "days: '36' given, expected int"),
        ("experiment", ("days",), True, "days: True given, expected int"),
        ("experiment", ("users",), 1.5, "users: 1.5 given, expected int"),
        ("experiment", ("share",), None, "share: None given, expected float"),
        ("experiment", ("arms",), {}, "arms: {} given, expected a list"),
        ("experiment", ("readout",), [], "readout: [] given, expected a table"),
        ("experiment", ("readout", "as_of"), "soon", "readout.as_of: 'soon' given"),
        ("experiment", ("truth", 0, "level", "n"), 1.5, "truth.0.level: "),
        ("simulate", ("has_origin",), 1, "has_origin: 1 given, expected bool"),
        ("codes", ("usage", 0), "all", "usage.0: 'all' given, expected float"),
    ],
)
def test_a_value_of_another_kind_is_an_error_that_says_where(
    stage: str, path: Path_, value: object, words: str
) -> None:
    result = golden(stage)
    *above, key = path
    inside(result, tuple(above))[key] = value
    with pytest.raises(DataError) as error:
        result_of(stage, result, "x")
    assert words in str(error.value)


def test_steps_whose_guardrails_are_not_those_of_the_reward_are_refused() -> None:
    result = golden("reinforce")
    label = next(iter(result["guardrails"]))
    del result["curve"][0][f"{label} multiplier"]
    with pytest.raises(DataError, match=f"{label} multiplier"):
        result_of("reinforce", result, "x")


def test_a_table_of_a_union_is_read_as_the_type_whose_fields_it_has() -> None:
    figures = looped()["reward"]["habit"]["calibration"]
    assert isinstance(
        from_json(CalibrationFigures, figures["progressive"], "x"), CalibrationFigures
    )
    results = RunResults.of_json(looped())
    trial = results.of(ExperimentResult)
    assert trial.plan is not None
    assert to_json(trial.plan)["users"] == 51_000


def test_a_number_that_is_not_finite_is_not_written() -> None:
    with pytest.raises(DataError, match="nan"):
        to_json({"loss": float("nan")})


def test_a_result_of_another_version_is_named_and_its_stage_runs_again(tmp_path: Path) -> None:
    config = parse_config(TINY, "tiny")
    run_stages(config, base=tmp_path, folder=tmp_path, until="outcomes")
    (place,) = (tmp_path / "outcomes").iterdir()
    expected = json.loads((place / "result.json").read_text())
    older = copy.deepcopy(expected)
    older["habit"]["sample"] = older["habit"].pop("entries")
    (place / "result.json").write_text(json.dumps(older))
    (place / "files.json").unlink()  # as runs of before the digests
    depends = json.loads((place / "depends.json").read_text())
    del depends["libraries"]
    (place / "depends.json").write_text(json.dumps(depends))
    with pytest.raises(
        DataError,
        match=r"habit: entries is missing, sample is unknown.*another version of longplay",
    ):
        read_stage("outcomes", place)
    ui = Watching()
    run_stages(config, base=tmp_path, folder=tmp_path, until="outcomes", ui=ui)
    assert ui.skipped == SIMULATED[:1]
    assert ui.ran == ["outcomes"]
    assert "entries is missing" in ui.damages[0]
    assert json.loads((place / "result.json").read_text()) == expected


NEW_STAGE = {
    "results/weather_figures.py": '''"""Result of the stage `weather`."""

from dataclasses import dataclass

from longplay.results.record import StageResult


@dataclass(frozen=True)
class WeatherResult(StageResult, stage="weather"):
    """Degrees outside."""

    degrees: float
''',
    "run/stages/weather.py": '''"""Stage `weather`."""

from longplay.results.weather_figures import WeatherResult
from longplay.run.engine import Stage, depends_on
from longplay.run.tables import Table


class Weather(Table):
    """How warm it is."""

    degrees: float = 20.0


STAGE = Stage(
    name="weather",
    order=5,
    version=1,
    help="Look outside.",
    table=Weather,
    depends=depends_on("weather"),
    run=lambda work: WeatherResult(work.config.of(Weather).degrees),
    line=lambda result: f"{result.degrees:g} degrees",
)
''',
    "report/sections/weather.py": '''"""The weather."""

from longplay.report.blocks import Section
from longplay.report.steps import Steps
from longplay.results.weather_figures import WeatherResult


def render(weather, _):
    return Section("weather", "Weather", (f"It was {weather.degrees:g} degrees.",))


SECTIONS = (
    Steps(
        order=5,
        name="weather",
        title="Weather",
        absent="",
        collect=lambda results: results.find(WeatherResult),
        draw=lambda weather: None,
        render=render,
    ),
)
''',
}
USE = """
import sys
from pathlib import Path
from longplay.report import render
from longplay.results import RunResults
from longplay.run import run_stages
from longplay.run.config import parse_config
from longplay.run.engine import read_stage

config = parse_config(Path(sys.argv[1]).read_text() + "[weather]\\ndegrees = 31.0\\n", "run.toml")
here = Path(sys.argv[1]).parent
places = run_stages(config, base=here, folder=here / "run", until="weather")
results = RunResults({name: read_stage(name, place) for name, place in places.items()})
assert "It was 31 degrees." in render("run", results)
"""


def test_a_new_stage_with_its_section_takes_three_files(tmp_path: Path) -> None:
    # catches: a list of stages, verbs, tables, results or sections that somebody has to remember
    package = Path(longplay.__file__).parent
    shutil.copytree(package, tmp_path / "longplay", ignore=shutil.ignore_patterns("__pycache__"))
    for file, text in NEW_STAGE.items():
        (tmp_path / "longplay" / file).write_text(text)
    (tmp_path / "run.toml").write_text(TINY)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "NO_COLOR": "1"}
    script = [sys.executable, "-c", USE, str(tmp_path / "run.toml")]
    subprocess.run(script, env=environment, check=True, cwd=tmp_path)
    verb = [sys.executable, "-m", "longplay", "weather", "--help"]
    shown = subprocess.run(verb, env=environment, check=True, capture_output=True, text=True)
    assert "Look outside." in shown.stdout
