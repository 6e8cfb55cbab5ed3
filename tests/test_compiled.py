"""Prompts encoded by OpenVINO: the law is the model's own, and whoever trains from it trains the
model."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
import torch
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

from longplay.decisions import Contexts
from longplay.errors import ConfigError
from longplay.policies.generative.fast.compiled import Compiled
from longplay.policies.generative_policy import Generative
from longplay.policies.simple import Uniform
from longplay.world import World

torch.set_num_threads(1)

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def contexts(items: list[str]) -> Contexts:
    """Histories of no, one, several and more items than are read."""
    histories = [[], items[:1], items[5:11], (items * 2)[:70]]
    return Contexts.of(
        ["a", "b", "c", "d"],
        NOON,
        slots=3,
        history=histories,
        exclusions=[items[:2], [], items[3:4], []],
    )


def test_what_openvino_encodes_is_the_law_of_the_model() -> None:
    pytest.importorskip("openvino", reason="pip install 'longplay[openvino]'")
    lake = World(users=60, items=40, seed=1).run(Uniform(), days=6)
    plain = Generative(steps=30, seed=3).fit(lake)
    with torch.no_grad():
        for weight in plain.decoder.model.parameters():
            if weight.ndim == 2:
                weight.mul_(3)  # a peaked law: a flat one would hide mistakes
    quick = plain.compiled()
    asked = contexts(lake.items["item_id"].to_list())
    law, expected = quick.item_log_prob(asked), plain.item_log_prob(asked)
    assert np.exp(expected).max() > 0.3
    assert np.array_equal(np.isneginf(law), np.isneginf(expected))
    assert np.exp(law) == pytest.approx(np.exp(expected), abs=1e-5)
    assert not np.array_equal(law, expected), "OpenVINO was not asked"
    assert quick.name == plain.name
    said = quick.decide(asked, np.random.default_rng(0))
    assert plain.log_prob(asked, said.slates) == pytest.approx(
        said.log_prob, abs=1e-5
    )  # who reads the log needs no OpenVINO
    assert np.array_equal(quick.ranked(asked, 5)["item_id"], plain.ranked(asked, 5)["item_id"])
    other = quick.with_model(plain.learner(0).model)
    assert other.encoder is None  # of these weights no more
    assert np.array_equal(other.item_log_prob(asked), expected)


def test_a_model_of_another_kind_is_encoded_as_transformers_does() -> None:
    pytest.importorskip("openvino", reason="pip install 'longplay[openvino]'")
    torch.manual_seed(2)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=40,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=64,
            hidden_act="gelu",
        )
    ).eval()
    tokens, position, at = (
        torch.randint(0, 40, (3, 9)),
        torch.arange(9).expand(3, -1),
        torch.tensor([8, 1, 5]),
    )
    ours, theirs = DynamicCache(config=model.config), DynamicCache(config=model.config)
    with torch.inference_mode():
        last = Compiled(model)(tokens, position, ours, at)
        body: Any = model.base_model
        expected = body(
            input_ids=tokens, position_ids=position, past_key_values=theirs, use_cache=True
        ).last_hidden_state
    assert torch.allclose(last, expected[torch.arange(3), at], atol=1e-5)
    for one, other in zip(ours.layers, theirs.layers, strict=True):
        assert torch.allclose(one.keys, other.keys, atol=1e-5)
        assert torch.allclose(one.values, other.values, atol=1e-5)


def test_without_openvino_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    lake = World(users=20, items=20, seed=1).run(Uniform(), days=2)
    with pytest.raises(ConfigError, match=r"pip install 'longplay\[openvino\]'"):
        Generative(steps=1).with_codes(lake).compiled()
