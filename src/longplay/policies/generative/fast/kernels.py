"""Linear maps by oneDNN for inference, where that is faster and the numbers are the same."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.overrides import TorchFunctionMode


def mapped(states: Tensor, by: nn.Module) -> Tensor:
    """`by(states)`, computed by oneDNN where `by` is a plain linear map of many rows. Without
    gradients."""
    if type(by) is not nn.Linear:
        return by(states)
    if states.numel() >= _MANY * states.shape[-1] and _BOTH:
        return _by_onednn(states, by.weight, by.bias)
    return linear(states, by.weight, by.bias)


class OneDnn(TorchFunctionMode):
    """Context in which linear maps of plain float32 matrices are computed by oneDNN. Without
    gradients.

    PyTorch itself takes MKL for them, which has AVX-512 for its maker's processors alone. The
    operator is the one that `torch.compile` calls.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is linear and not kwargs and all(_plain(argument) for argument in args[:2]):
            return _by_onednn(*args)
        return func(*args, **(kwargs or {}))


def inference_kernels(rows: int) -> AbstractContextManager[object]:
    """The context `OneDnn` where maps have many `rows` and this build of PyTorch has both
    libraries; otherwise a context that changes nothing."""
    return (
        OneDnn() if rows >= _MANY and torch.is_inference_mode_enabled() and _BOTH else nullcontext()
    )


def _by_onednn(states: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(states, weight, bias, "none", [], "")


def _plain(argument: Any) -> bool:
    return (
        type(argument) in (Tensor, nn.Parameter)
        and argument.dtype == torch.float32
        and argument.device.type == "cpu"
    )


def _has_fused_linear() -> bool:
    """Whether this build of PyTorch has oneDNN's linear map with an activation."""
    try:
        return torch.ops.mkldnn._linear_pointwise is not None
    except AttributeError:
        return False


# number of rows: without AVX-512, MKL's maps of fewer rows are a twentieth faster; with it, MKL may
# take twice as long
_MANY = 64 if "AVX512" in torch.backends.cpu.get_cpu_capability() else 512
_BOTH = (
    torch.backends.mkl.is_available()
    and torch.backends.mkldnn.is_available()
    and _has_fused_linear()
)
