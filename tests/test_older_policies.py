"""Policies, checkpoints, results and run.toml files from before names changed are still read."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_run import TINY
from test_supervised import fresh

from longplay.errors import ConfigError, DataError
from longplay.policies.generative.prompts import Windows
from longplay.policies.generative_policy import Generative
from longplay.policies.simple import Popular
from longplay.policies.training.checkpoint import load_checkpoint, save_checkpoint
from longplay.policies.training.descent import Watch, descend
from longplay.policies.training.next_item import negative_log_prob
from longplay.results import to_json
from longplay.results.record import from_json
from longplay.results.training_figures import TrainResult
from longplay.run import STAGES
from longplay.run.config import parse_config
from longplay.run.config_schema import config_schema
from longplay.world import World

GOLDEN = Path(__file__).parent / "golden" / "train.json"
TRAIN = next(stage for stage in STAGES if stage.name == "train")


def with_older_names(folder: Path) -> None:
    """Make a saved policy what longplay wrote before: `whole`, `known.parquet`, `held_out`."""
    settings: dict[str, Any] = json.loads((folder / "policy.json").read_text())
    settings["whole"] = settings.pop("item_tokens")
    for row in settings["curve"]:
        row["held_out"] = row.pop("validation")
    (folder / "items_with_token.parquet").rename(folder / "known.parquet")
    settings["files"]["known.parquet"] = settings["files"].pop("items_with_token.parquet")
    del settings["sha256"]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    (folder / "policy.json").write_text(json.dumps(settings | {"sha256": digest}))


def test_a_policy_saved_under_older_names_is_the_same_policy(tmp_path: Path) -> None:
    lake = World(users=60, items=40, seed=5).run(Popular(slate=3, explore=0.2), days=12)
    fitted = Generative(seed=1, steps=2, item_tokens=True).fit(lake)
    fitted.save(tmp_path / "policy")
    with_older_names(tmp_path / "policy")
    loaded = Generative.load(tmp_path / "policy")
    assert loaded.name == fitted.name
    assert loaded.item_tokens
    assert loaded.items_with_token is not None
    assert loaded.items_with_token.equals(fitted.codebook.items)  # type: ignore[union-attr]
    assert loaded.curve == fitted.curve
    assert "validation" in loaded.curve[-1]
    loaded.save(tmp_path / "again")
    assert not (tmp_path / "again" / "known.parquet").exists()
    assert Generative.load(tmp_path / "again").name == fitted.name


def test_a_setting_that_is_unknown_is_named(tmp_path: Path) -> None:
    lake = World(users=60, items=40, seed=5).run(Popular(slate=3, explore=0.2), days=12)
    Generative(seed=1).with_codes(lake).save(tmp_path)
    settings = json.loads((tmp_path / "policy.json").read_text())
    del settings["sha256"], settings["files"]
    (tmp_path / "policy.json").write_text(json.dumps(settings | {"wholly": True}))
    with pytest.raises(DataError, match=r"policy\.json: wholly is unknown"):
        Generative.load(tmp_path)


def test_a_training_goes_on_from_a_checkpoint_with_older_names(tmp_path: Path) -> None:
    # catches: a resumed training that looks for the best check under a name that is not there
    windows = Windows.of(np.arange(12).reshape(2, 6))

    def train(
        checkpoint: Path | None, stop: int = 100, checks_done: int = 0
    ) -> tuple[torch.Tensor, list[Any]]:
        decoder = fresh()
        losses = iter([1.0, 2.0, 3.0, 4.0][checks_done:])

        def loss_of_step(step: int) -> torch.Tensor:
            if step == stop:
                raise KeyboardInterrupt
            return negative_log_prob(decoder, windows)

        curve = descend(
            decoder,
            loss_of_step,
            Watch(lambda: {"validation": next(losses)}),
            steps=40,
            lr=1e-2,
            seed=0,
            check_every=10,
            checkpoint=checkpoint,
        )
        return torch.nn.utils.parameters_to_vector(decoder.model.parameters()), curve

    expected, curve = train(None)
    file = tmp_path / "checkpoint.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train(file, stop=20)
    _rename_in_checkpoint(file)
    weights, resumed = train(file, checks_done=2)
    assert resumed == curve
    assert torch.equal(weights, expected)  # those of the first check, which was the best


def _rename_in_checkpoint(file: Path) -> None:
    """Write a checkpoint again with `held_out` in the place of `validation`."""
    decoder = fresh()
    parameters = torch.nn.ParameterList(decoder.trainable())
    best = torch.nn.ParameterList([value.detach().clone() for value in parameters])
    weights = torch.nn.ModuleDict({"now": parameters, "best": best})
    optimizer = torch.optim.AdamW(list(parameters))
    notes = load_checkpoint(file, weights, [optimizer], {})
    assert notes is not None
    for row in notes["curve"]:
        row["held_out"] = row.pop("validation")
    save_checkpoint(file, weights, [optimizer], notes)


def test_a_result_with_older_names_is_read_and_written_under_todays() -> None:
    result = json.loads(GOLDEN.read_text())
    older = json.loads(GOLDEN.read_text().replace('"validation"', '"held_out"'))
    assert older != result
    assert json.loads(json.dumps(to_json(from_json(TrainResult, older, "x")))) == result
    twice = json.loads(GOLDEN.read_text())
    twice["curve"][0]["held_out"] = 1.0
    with pytest.raises(DataError, match=r"curve\.0: held_out is unknown"):
        from_json(TrainResult, twice, "x")


def test_the_older_key_of_run_toml_means_the_same_and_has_the_same_hash() -> None:
    def depends(line: str) -> Any:
        config = parse_config(TINY.replace("steps = 110", f"steps = 110\n{line}"), "tiny")
        return TRAIN.depends(config, Path())

    assert depends("whole = true") == depends("item_tokens = true")
    assert depends("item_tokens = true")["train"]["whole"] is True  # as finished runs were hashed
    assert depends("item_tokens = false") == depends("")
    assert "whole" not in depends("")["train"]
    with pytest.raises(ConfigError, match="train"):
        depends("whole = true\nitem_tokens = true")
    keys = config_schema()["$defs"]["Train"]["properties"]
    assert "item_tokens" in keys
    assert "whole" not in keys
