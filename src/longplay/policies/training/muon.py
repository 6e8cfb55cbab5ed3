"""The Muon optimizer: steps of equal size in all directions of a matrix."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

MOMENTUM = 0.95
DECAY = 0.1
TURNS = 5
# Jordan et al.: the steepest at 0 that keeps singular values within about .7..1.2
POLYNOMIAL = (
    3.4445,
    -4.7750,
    2.0315,
)
RMS = 0.2  # of AdamW's updates, by which Muon's are scaled: one rate serves both


class Muon(torch.optim.Optimizer):
    """Optimizer of matrices: Nesterov momentum, orthogonalised (Jordan et al. 2024), scaled to the
    size of AdamW's updates (Liu et al. 2025, arXiv 2502.16982).

    As `torch.optim.Muon` with `adjust_lr_fn="match_rms_adamw"`, but in the gradient's own
    precision: torch's rounds to bfloat16, which processors without instructions for it emulate, at
    a fifth of the speed of float32.

    Args:
        params: matrices [m, n].
        lr: the rate AdamW would have.
        weight_decay: decoupled, as in AdamW.
    """

    def __init__(
        self, params: Iterable[nn.Parameter], lr: float, weight_decay: float = DECAY
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take one step along the gradients."""
        loss = closure() if closure else None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(parameter)
                momentum = state["momentum"]
                momentum.lerp_(parameter.grad, 1 - MOMENTUM)
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(
                    orthogonal(parameter.grad.lerp(momentum, MOMENTUM)),
                    alpha=-group["lr"] * RMS * max(parameter.shape) ** 0.5,
                )
        return loss


def orthogonal(matrix: Tensor) -> Tensor:
    """U V' of a matrix U S V', approximately: `TURNS` Newton-Schulz steps leave singular values
    near 1."""
    if matrix.shape[0] > matrix.shape[1]:
        return orthogonal(matrix.T).T
    result = matrix / matrix.norm().clamp(min=1e-7)
    a, b, c = POLYNOMIAL
    for _ in range(TURNS):
        gram = result @ result.T
        result = torch.addmm(result, torch.addmm(gram, gram, gram, beta=b, alpha=c), result, beta=a)
    return result
