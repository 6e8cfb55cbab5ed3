"""Linear maps by oneDNN where nothing is being trained: single precision as by MKL, in half the time on processors that MKL serves less well."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, silu
from torch.overrides import TorchFunctionMode


def mapped(states: Tensor, by: nn.Module, then: Literal["none", "swish", "mul", "add"] = "none", other: Tensor | None = None) -> Tensor:
    """`by(states)`, swished, or times or plus `other`: one operator of oneDNN for many rows of a plain linear map. Without gradients."""
    if type(by) is nn.Linear and states.numel() >= _MANY * states.shape[-1] and _BOTH:
        if other is None:
            return torch.ops.mkldnn._linear_pointwise(states, by.weight, by.bias, then, [], "")
        return torch.ops.mkldnn._linear_pointwise.binary(states, other, by.weight, by.bias, then)
    found: Tensor = linear(states, by.weight, by.bias) if type(by) is nn.Linear else by(states)
    if then == "swish":
        return silu(found)
    if other is None:
        return found
    return found * other if then == "mul" else found + other


class OneDnn(TorchFunctionMode):
    """Within it, linear maps of plain float32 matrices are oneDNN's; everything else is as it was. Without gradients.

    PyTorch itself takes MKL for them, which has AVX-512 for its maker's processors alone. The operator is the one that `torch.compile` calls.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is linear and not kwargs and all(_plain(one) for one in args[:2]):
            return torch.ops.mkldnn._linear_pointwise(args[0], args[1], args[2] if len(args) > 2 else None, "none", [], "")
        return func(*args, **(kwargs or {}))


def inference_kernels(rows: int) -> AbstractContextManager[object]:
    """`OneDnn` under `torch.inference_mode` for maps of many `rows`, on a build that has both libraries; otherwise nothing changes."""
    return OneDnn() if rows >= _MANY and torch.is_inference_mode_enabled() and _BOTH else nullcontext()


def _plain(one: Any) -> bool:
    return type(one) in (Tensor, nn.Parameter) and one.dtype == torch.float32 and one.device.type == "cpu"


_MANY = 64  # a mode costs each pass a millisecond of Python, which fewer rows do not bring back
_BOTH = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
