"""Prompts encoded by OpenVINO, an extra: the same pass in single precision, in less CPU time; what follows the prompts stays PyTorch's."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from longplay.errors import ConfigError

HIDDEN = -1e9  # additive attention mask


class Kept:
    """The keys and values of one pass, in the place of a cache: what tracers can follow."""

    is_compileable = False

    def __init__(self) -> None:
        self.tensors: list[Tensor] = []

    def update(self, keys: Tensor, values: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
        """As of a cache that was empty."""
        self.tensors += [keys, values]
        return keys, values

    def get_seq_length(self, *_: Any) -> int:
        """Nothing was there."""
        return 0


class Encoder(nn.Module):
    """Tokens [N, T] and their positions to hidden states [N, T, H], and the keys and values of every layer."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.body: Any = model.base_model

    def forward(self, tokens: Tensor, position: Tensor) -> tuple[Tensor, ...]:
        """A causal pass over prompts that are padded at the end."""
        kept, length = Kept(), tokens.shape[1]
        mask = torch.triu(torch.full((length, length), HIDDEN), 1)[None, None].to(self.body.dtype)
        out = self.body(input_ids=tokens, attention_mask=mask, position_ids=position, past_key_values=kept, use_cache=True)
        return (out.last_hidden_state, *kept.tensors)


class Compiled:
    """`Encoder` as an OpenVINO program on the CPU, for prompts of any number and length; weights are those of `model` now.

    Args:
        precision: `f32`, or `bf16`, with which propensities cannot be computed again to 1e-5.

    Raises:
        ConfigError: OpenVINO is not installed.
    """

    def __init__(self, model: PreTrainedModel, precision: str = "f32") -> None:
        try:
            import openvino
        except ImportError as error:
            raise ConfigError("OpenVINO is not installed, expected for compiled prompts: pip install 'longplay[openvino]'") from error
        example = (torch.zeros((2, 8), dtype=torch.int64), torch.arange(8).expand(2, -1))
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the tracer that OpenVINO calls: deprecated, and wary of constants that are meant to be constant
            program = openvino.convert_model(Encoder(model), example_input=example)
        threads = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "NUM_STREAMS": 1}
        self._run = openvino.Core().compile_model(program, "CPU", {"INFERENCE_PRECISION_HINT": precision, **threads})

    def __call__(self, tokens: Tensor, position: Tensor, cache: DynamicCache) -> Tensor:
        """Hidden states [N, T, H] of prompts that are padded at the end; their keys and values go into `cache`, which is empty."""
        found = self._run({0: tokens.numpy(), 1: position.contiguous().numpy()}, share_inputs=True, share_outputs=False)
        hidden, *rest = (torch.from_numpy(one) for one in found.values())
        for layer, (keys, values) in enumerate(zip(rest[::2], rest[1::2], strict=True)):
            cache.update(keys, values, layer)
        return hidden
