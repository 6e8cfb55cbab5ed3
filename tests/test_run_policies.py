"""A new policy in a run is one record: stages, run.toml, the experiment and the report take it from
there, and runs without it stay as they were."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_run import TINY

from longplay import run_policies
from longplay.errors import ConfigError
from longplay.lake import Lake
from longplay.policies.simple import Uniform
from longplay.results.record import from_json, to_json
from longplay.results.reinforcement_figures import ReinforceResult
from longplay.run import STAGES, run_stages
from longplay.run.config import parse_config
from longplay.run.config_schema import config_schema
from longplay.run.engine import depends_on, keys_of
from longplay.run_policies import (
    RewardTraining,
    RunnablePolicy,
    RunPolicy,
    TrainedPolicy,
    comparisons,
    train_reward_weighted,
)

PLACE = Path()
ADDED = ("uniform", "hasty")


def fit_uniform(past: Lake, slots: int) -> RunnablePolicy:
    return Uniform(slate=slots).fit(past)


def train_hasty(training: RewardTraining) -> TrainedPolicy:
    return train_reward_weighted(replace(training, steps=3, weighted_kl=5.0))


UNIFORM = RunPolicy(
    name="uniform",
    phrase="the uniform policy",
    sentence="every item alike",
    colour="#123456",
    stage="log",
    fit=fit_uniform,
)
HASTY = RunPolicy(
    name="hasty",
    phrase="hasty training",
    sentence="the start, trained in few steps",
    colour="#654321",
    stage="reinforce",
    train=train_hasty,
    folder="hasty",
    checkpoint="hasty",
    compared_with=("start", "uniform"),
)


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table with two more policies: one fitted to the log, one trained on the reward."""
    table = (*run_policies.RUN_POLICIES, UNIFORM, HASTY)
    monkeypatch.setattr(run_policies, "RUN_POLICIES", table)


def test_records_alone_add_a_policy_to_stages_experiment_and_report(
    added: None, tmp_path: Path
) -> None:
    # catches: a name that is still written out in a stage, in the check of arms or in the report
    arms = 'north_star = "active"\narms = ["reinforced", "hasty", "uniform"]'
    text = TINY.replace('north_star = "active"', arms).replace("steps = 110", "steps = 4")
    for large, small in (
        ("users = 240", "users = 120"),
        ("steps = 24", "steps = 2"),
        ("visits = 150", "visits = 40"),
        ("true_value_users = 20", "true_value_users = 5"),
        ("true_users = 20", "true_users = 4"),
        ("days = 24", "days = 9"),
    ):
        text = text.replace(large, small)
    config = parse_config(text, "tiny")
    places = run_stages(config, base=tmp_path, folder=tmp_path)

    def result(stage: str) -> Any:
        return json.loads((places[stage] / "result.json").read_text())

    (reinforced,) = result("reinforce")["added"]
    assert reinforced["name"] == "hasty"
    assert [row["step"] for row in reinforced["curve"]] == [3]
    names = {"popular", "start", "reward-weighted", "reinforced", "uniform", "hasty"}
    evaluated = result("evaluate")
    assert {row["policy"] for row in evaluated["ranking"]} == names
    assert {row["policy"] for row in evaluated["true_value"]["policies"]} == names
    pairs = {(row["policy"], row["than"]) for row in evaluated["true_value"]["differences"]}
    assert {("hasty", "start"), ("hasty", "uniform")} < pairs
    # off-policy: the baselines and what is tried
    assert {row["policy"] for row in result("offpolicy")["policies"]} == names - {"reward-weighted"}
    assert [row["arm"] for row in result("experiment")["arms"]] == [
        "control",
        "reinforced",
        "hasty",
        "uniform",
    ]
    assert set(result("audit")["arms"]) == {"reinforced", "hasty", "uniform"}
    (page,) = places["report"].glob("*.html")
    html = page.read_text()
    assert HASTY.colour in html
    assert UNIFORM.colour in html
    assert "Hasty training" in html
    assert reinforced["policy"] in html


def test_the_schema_of_run_toml_and_its_check_name_an_added_arm(added: None) -> None:
    arms = config_schema()["$defs"]["ExperimentTable"]["properties"]["arms"]
    assert arms["items"]["examples"] == ["start", "reward-weighted", "reinforced", *ADDED]
    assert "hasty: the start, trained in few steps" in arms["description"]
    text = TINY.replace('north_star = "active"', 'north_star = "active"\narms = ["hastty"]')
    with pytest.raises(ConfigError, match=r"did you mean 'hasty'"):
        parse_config(text, "tiny")


def test_comparisons_begin_with_those_of_the_main_policy(added: None) -> None:
    assert comparisons() == (
        ("reinforced", "reward-weighted"),
        ("reinforced", "start"),
        ("hasty", "start"),
        ("hasty", "uniform"),
        ("reward-weighted", "start"),
        ("start", "popular"),
    )


def test_an_added_policy_reruns_the_stage_that_trains_and_no_earlier_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = parse_config(TINY, "tiny")
    alone = keys_of(STAGES[1:], config, PLACE)
    monkeypatch.setattr(run_policies, "RUN_POLICIES", (*run_policies.RUN_POLICIES, UNIFORM))
    added = keys_of(STAGES[1:], config, PLACE)
    changed = [stage for stage in alone if alone[stage].digest != added[stage].digest]
    assert changed == ["reinforce", "evaluate", "offpolicy", "experiment", "audit", "report"]


def test_without_added_policies_a_finished_run_keeps_its_hash_and_its_result() -> None:
    config = parse_config(TINY, "tiny")
    stage = next(stage for stage in STAGES if stage.name == "reinforce")
    tables = ("signals", "split.train_until", "reward", "reinforce", "train")
    assert stage.depends(config, PLACE) == depends_on(*tables)(config, PLACE)
    golden = json.loads((Path(__file__).parent / "golden" / "reinforce.json").read_text())
    result = from_json(ReinforceResult, golden, "golden")
    assert result.added == ()
    assert "added" not in to_json(result)


def test_a_result_with_an_added_policy_is_read_and_written_again_equal() -> None:
    golden = json.loads((Path(__file__).parent / "golden" / "reinforce.json").read_text())
    curve = [{"step": 50, "loss": 2.5}]
    golden["added"] = [{"name": "hasty", "policy": "hasty@1", "curve": curve, "alarms": []}]
    result = from_json(ReinforceResult, golden, "golden")
    assert json.loads(json.dumps(to_json(result))) == golden


@pytest.mark.parametrize(
    ("missing", "record"),
    [({"fit": None}, UNIFORM), ({"train": None}, HASTY), ({"folder": ""}, HASTY)],
)
def test_a_record_without_what_its_stage_needs_is_refused(
    missing: dict[str, Any], record: RunPolicy
) -> None:
    with pytest.raises(ConfigError, match=rf"but no {next(iter(missing))}; a policy of this stage"):
        replace(record, **missing)
