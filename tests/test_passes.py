"""Passes of inference against Transformers' own, on models from scratch of both classes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor
from transformers import (
    DynamicCache,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from longplay.policies.generative.fast.passes import HIDDEN, passable, states_of

SIZE: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "intermediate_size": 80,
}
LONG_ROPE = {
    "rope_type": "yarn",
    "factor": 4.0,
    "rope_theta": 10_000.0,
    "original_max_position_embeddings": 64,
}


def model_of(kind: str) -> PreTrainedModel:
    """A random model whose weights are far from where they begin, so that no part of a block is
    close to doing nothing."""
    torch.manual_seed(4)
    model: PreTrainedModel
    match kind:
        case "qwen3":
            model = Qwen3ForCausalLM(Qwen3Config(**SIZE, head_dim=16))
        case "qwen3, one block, a head for each":
            model = Qwen3ForCausalLM(
                Qwen3Config(**SIZE | {"num_hidden_layers": 1, "num_key_value_heads": 6}, head_dim=8)
            )
        case "llama":
            model = LlamaForCausalLM(LlamaConfig(**SIZE))
        case "llama with biases, stretched":
            model = LlamaForCausalLM(
                LlamaConfig(
                    **SIZE,
                    attention_bias=True,
                    mlp_bias=True,
                    rope_parameters=LONG_ROPE,
                    max_position_embeddings=256,
                )
            )
        case _:
            model = LlamaForCausalLM(LlamaConfig(**SIZE))
            inject_adapter_in_model(
                LoraConfig(r=4, target_modules=["q_proj", "down_proj", "o_proj"], lora_dropout=0.5),
                model,
            )
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(
                torch.randn_like(weight) * (0.3 if weight.ndim == 2 else 0.5) + (weight.ndim == 1)
            )
    return model.eval()


KINDS = (
    "qwen3",
    "qwen3, one block, a head for each",
    "llama",
    "llama with biases, stretched",
    "llama with LoRA",
)


def close(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, atol=1e-4)  # of numbers around 6, the roundings of both


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [7, 180])  # few rows, and so many that linear maps are oneDNN's
def test_states_keys_and_values_are_those_of_transformers(kind: str, length: int) -> None:
    body: Any = model_of(kind).base_model
    assert passable(body)
    tokens, count = torch.randint(0, 50, (3, length)), torch.tensor([length, 2, length - 3])
    position, row = torch.arange(length).expand(3, -1), torch.arange(3)
    with torch.inference_mode():
        theirs, ours, lasts = (DynamicCache(config=body.config) for _ in range(3))
        expected = body(
            input_ids=tokens, position_ids=position, past_key_values=theirs, use_cache=True
        ).last_hidden_state
        embedded = body.embed_tokens(tokens)
        assert close(states_of(body, embedded, None, position, ours), expected)
        assert close(
            states_of(body, embedded, None, position, lasts, count - 1)[:, 0],
            expected[row, count - 1],
        )
        assert close(states_of(body, embedded, None, position, None), expected)
        # beams: five tokens that see a part of the prompt and some of each other
        beams, place = (
            torch.randint(0, 50, (3, 5)),
            (count[:, None] + torch.tensor([0, 0, 1, 1, 2])),
        )
        mask = torch.full((3, 1, 5, length + 5), HIDDEN)
        mask[..., :length] = torch.where(torch.arange(length) < count[:, None], 0.0, HIDDEN)[
            :, None, None
        ]
        mask[..., length:] = torch.where(
            torch.eye(5) + torch.diag(torch.ones(3), -2) > 0, 0.0, HIDDEN
        )
        expected = body(
            input_ids=beams,
            attention_mask=mask,
            position_ids=place,
            past_key_values=theirs,
            use_cache=True,
        ).last_hidden_state
        for cache in (ours, lasts):
            assert close(states_of(body, body.embed_tokens(beams), mask, place, cache), expected)
    for layer, (one, other) in enumerate(zip(ours.layers, theirs.layers, strict=True)):
        assert close(one.keys, other.keys), layer
        assert close(one.values, other.values), layer


def test_other_models_are_left_to_transformers() -> None:
    model = model_of("qwen3")
    body: Any = model.base_model
    assert not passable(model)
    assert not passable(model_of("qwen3").base_model.to(torch.bfloat16))
    sliding = Qwen3ForCausalLM(
        Qwen3Config(**SIZE, use_sliding_window=True, sliding_window=4, max_window_layers=1)
    )
    assert not passable(sliding.base_model)
    assert not passable(LlamaForCausalLM(LlamaConfig(**SIZE, hidden_act="gelu")).base_model)
    dropping = LlamaForCausalLM(LlamaConfig(**SIZE, attention_dropout=0.1))
    assert not passable(dropping.train().base_model)
    assert passable(dropping.eval().base_model)
    assert passable(body)
