"""Prompts encoded by OpenVINO, an optional extra that needs less CPU time."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from longplay.errors import ConfigError
from longplay.policies.generative.fast.passes import HIDDEN, passable, states_of


class FirstPassCache:
    """Stands in for a cache that is empty before the pass, in a form that tracers can follow. It
    records keys and values."""

    is_compileable = False

    def __init__(self) -> None:
        self.tensors: list[Tensor] = []

    def update(self, keys: Tensor, values: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
        """Record the keys and values of a layer, and return them: none were there before."""
        self.tensors += [keys, values]
        return keys, values

    def get_seq_length(self, *_: Any) -> int:
        """Number of tokens cached before the pass: 0."""
        return 0


class Encoder(nn.Module):
    """A module that maps tokens [N, T], their positions and a place `at[N]` to the hidden states
    [N, H] at these places, and to the keys and values of every layer."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.body: Any = model.base_model

    def forward(self, tokens: Tensor, position: Tensor, at: Tensor) -> tuple[Tensor, ...]:
        """A causal pass over prompts that are padded at the end."""
        cache: Any = FirstPassCache()
        if passable(self.body):
            last = states_of(self.body, self.body.embed_tokens(tokens), None, position, cache, at)[
                :, 0
            ]
        else:
            last = traceable(self.body, tokens, position, cache)[torch.arange(tokens.shape[0]), at]
        return (last, *cache.tensors)


def traceable(body: Any, tokens: Tensor, position: Tensor, cache: Any) -> Tensor:
    """The causal pass of Transformers with an explicit mask, as tracers need it: hidden states [N,
    T, H]. Keys and values go into `cache`, a `FirstPassCache`."""
    length = tokens.shape[1]
    mask = torch.triu(torch.full((length, length), HIDDEN), 1)[None, None].to(body.dtype)
    return body(
        input_ids=tokens,
        attention_mask=mask,
        position_ids=position,
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state


class Compiled:
    """`Encoder` as an OpenVINO program on the CPU, for any number and length of prompts. The
    weights are those that `model` has now.

    Args:
        model: the Hugging Face model to compile.
        precision: `f32`, or `bf16`, with which propensities cannot be computed again to 1e-5.

    Raises:
        ConfigError: OpenVINO is not installed.
    """

    def __init__(self, model: PreTrainedModel, precision: str = "f32") -> None:
        try:
            import openvino
        except ImportError as error:
            raise ConfigError(
                "OpenVINO is not installed, expected for compiled prompts: pip install "
                "'longplay[openvino]'"
            ) from error
        example = (
            torch.zeros((2, 8), dtype=torch.int64),
            torch.arange(8).expand(2, -1),
            torch.tensor([3, 7]),
        )
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
                # the tracer that OpenVINO calls is deprecated, and warns of intended constants
            )
            program = openvino.convert_model(Encoder(model), example_input=example)
        threads = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "NUM_STREAMS": 1}
        self._run = openvino.Core().compile_model(
            program, "CPU", {"INFERENCE_PRECISION_HINT": precision, **threads}
        )

    def __call__(self, tokens: Tensor, position: Tensor, cache: DynamicCache, at: Tensor) -> Tensor:
        """Hidden states [N, H] of the tokens `at[N]` of prompts that are padded at the end; all
        their keys and values go into the empty `cache`."""
        inputs = {0: tokens.numpy(), 1: position.contiguous().numpy(), 2: at.numpy()}
        last, *rest = (
            torch.from_numpy(output)
            for output in self._run(inputs, share_inputs=True, share_outputs=False).values()
        )
        for layer, (keys, values) in enumerate(zip(rest[::2], rest[1::2], strict=True)):
            cache.update(keys, values, layer)
        return last
