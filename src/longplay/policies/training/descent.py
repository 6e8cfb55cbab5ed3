"""Gradient descent that can be killed, resumed, watched, stopped early and spread over
processes."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from longplay.errors import ConfigError
from longplay.policies.generative.decoder import Decoder
from longplay.policies.generative.policy_files import current_figures
from longplay.policies.training.checkpoint import load_checkpoint, save_checkpoint
from longplay.policies.training.muon import Muon

Progress = Callable[[int, int, dict[str, float]], None]  # step, of steps, figures

OPTIMIZERS = ("adamw", "muon")
SAVE_EVERY = 50
VALIDATION = "validation"  # the loss on users who are not trained on


@dataclass(frozen=True)
class Team:
    """The processes that share every step: this one is `rank` of `size`; alone it is 0 of 1.

    Started by `accelerate launch` (or torchrun), `Team.of_launcher()` joins the others; each takes
    its share of a batch, gradients are summed.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def of_launcher(cls) -> Team:
        """The team that this process was launched into; alone where there was no launcher."""
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls()
        from accelerate import (
            PartialState,
        )  # imported here: it is slow to import, and one process does not need it

        state = PartialState(cpu=not torch.cuda.is_available())
        return cls(state.process_index, state.num_processes)

    @property
    def leads(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def add_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Sum every parameter's gradient over the processes, in one message."""
        if self.size == 1:
            return
        from accelerate.utils import reduce

        grads = [
            torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            for parameter in parameters
        ]
        total = reduce(torch.cat([grad.flatten() for grad in grads]), reduction="sum")
        assert isinstance(total, Tensor)
        for parameter, part in zip(
            parameters, total.split([grad.numel() for grad in grads]), strict=True
        ):
            parameter.grad = part.view_as(parameter)

    def wait(self) -> None:
        """Wait until all processes of the team are here."""
        if self.size > 1:
            from accelerate import PartialState

            PartialState().wait_for_everyone()


@dataclass(frozen=True)
class Watch:
    """Figures measured on users who are not trained on. One of them, `keep`, decides which weights
    are kept.

    Attributes:
        measure: what is measured at each check: figures by name.
        keep: `validation` (a loss: the least is best) or another figure (the largest is best).
        patience: checks without a better one, after which training stops; 0: never.
    """

    measure: Callable[[], Mapping[str, float]]
    keep: str = VALIDATION
    patience: int = 0

    def best(self, curve: list[dict[str, float]]) -> int:
        """The best row of the curve; the latest of equals."""
        sign = -1 if self.keep == VALIDATION else 1
        return max(range(len(curve)), key=lambda row: (sign * curve[row][self.keep], row))


class Pace:
    """The speed of a training that begins now."""

    def __init__(self, decoder: Decoder, first: int, steps: int) -> None:
        """
        Args:
            decoder: counts the tokens it reads.
            first: steps that were done before.
            steps: of the whole training.
        """
        self._decoder = decoder
        self._first = first
        self._steps = steps
        self._began = time.monotonic()
        self._read_before = decoder.tokens_read

    def figures(self, done: int) -> dict[str, float]:
        """tokens_per_second of this process, once it has read any, and seconds_left, after `done`
        steps."""
        spent = max(time.monotonic() - self._began, 1e-9)
        read = self._decoder.tokens_read - self._read_before
        left = (self._steps - done) * spent / (done - self._first)
        return ({"tokens_per_second": read / spent} if read else {}) | {"seconds_left": left}


def descend(
    decoder: Decoder,
    loss_of_step: Callable[[int], Tensor],
    watch: Watch | None = None,
    *,
    steps: int,
    lr: float,
    seed: int,
    progress: Progress | None = None,
    checkpoint: Path | None = None,
    check_every: int = SAVE_EVERY,
    dropout: float = 0.0,
    weight_decay: float = 0.01,
    optimizer: str = "adamw",
    team: Team = Team(),
    made_by: Mapping[str, object] | None = None,
) -> list[dict[str, float]]:
    """Minimise `loss_of_step(step)`. The loss depends on the step's number alone, so that a resumed
    run equals one that was not stopped.

    The rate warms up over 5% of the steps and falls to a tenth by a cosine; gradients are clipped
    at norm 1. With `watch`, the weights at the end are those of its best check: a small log is
    overfitted soon. With a `team`, `loss_of_step` is this process's share of a loss.

    Args:
        decoder: whose weights change, in place.
        loss_of_step: step -> loss.
        watch: what is measured on the way, and which weights are the best.
        steps: updates.
        lr: the highest learning rate.
        seed: of dropout.
        progress: called with step, steps and figures.
        checkpoint: file to save to and to go on from.
        weight_decay: of AdamW.
        optimizer: `adamw`, or `muon` for the matrices of the decoder's layers with AdamW for the
            rest (see `optimizers_of`).
        check_every: steps between checks and checkpoints.
        dropout: share of activations dropped (see `dropped_out`).
        team: the processes that share each step.
        made_by: what a checkpoint must agree on beside steps, lr, seed, dropout, weight_decay and
            optimizer.

    Returns one row per check: step, loss and what `watch` measures. `progress` also gets
    tokens_per_second (of this process, where the decoder counts them) and seconds_left.
    """
    now = nn.ParameterList(decoder.trainable())
    best = nn.ParameterList([parameter.detach().clone() for parameter in now])
    weights = nn.ModuleDict({"now": now, "best": best})
    optimizers = optimizers_of(decoder, now, optimizer, lr, weight_decay)
    made_by = {
        "steps": steps,
        "lr": lr,
        "seed": seed,
        "dropout": dropout,
        "weight_decay": weight_decay,
        "optimizer": optimizer,
        **(made_by or {}),
    }
    notes = None
    if checkpoint:
        fields = {"step": int, "curve": list}
        notes = load_checkpoint(checkpoint, weights, optimizers, made_by, fields)
    curve = current_figures(notes["curve"]) if notes else []
    first = notes["step"] if notes else 0
    running: list[float] = []
    pace = Pace(decoder, first, steps)
    for step in range(first, steps):
        if (
            watch
            and watch.patience
            and curve
            and len(curve) - 1 - watch.best(curve) >= watch.patience
        ):
            break
        for updater in optimizers:
            for group in updater.param_groups:
                group["lr"] = lr * warmed_cosine(step, steps)
            updater.zero_grad(set_to_none=True)
        with dropped_out(decoder, dropout, [seed, step, team.rank]) if dropout else nullcontext():
            loss = loss_of_step(step)
        loss.backward()
        team.add_gradients(list(now))
        torch.nn.utils.clip_grad_norm_(now, 1.0)
        for updater in optimizers:
            updater.step()
        running.append(float(loss.detach()))
        if progress:
            progress(step + 1, steps, {"loss": float(np.mean(running)), **pace.figures(step + 1)})
        if (step + 1) % check_every == 0 or step + 1 == steps:
            row = {"step": step + 1, "loss": float(np.mean(running))}
            if watch:
                with torch.no_grad():
                    row |= watch.measure()
            curve.append(row)
            if watch and watch.best(curve) == len(curve) - 1:
                best.load_state_dict(now.state_dict())
            running = []
            if checkpoint and team.leads:
                save_checkpoint(
                    checkpoint, weights, optimizers, {**made_by, "step": step + 1, "curve": curve}
                )
    if watch and curve:
        now.load_state_dict(best.state_dict())
    team.wait()
    return curve


def optimizers_of(
    decoder: Decoder, trained: Iterable[nn.Parameter], name: str, lr: float, weight_decay: float
) -> list[torch.optim.Optimizer]:
    """The optimizers of a training: `adamw` alone, or `muon` for the matrices of the decoder's
    layers with AdamW for the rest (embeddings, norms).

    See `muon.Muon`, which takes AdamW's rate. Models of 256 wide learned as much in two thirds of
    the CPU time (LOG.md).

    Raises:
        ConfigError: no optimizer of that name.
    """
    if name not in OPTIMIZERS:
        raise ConfigError(f"optimizer={name!r} given, expected one of {', '.join(OPTIMIZERS)}")
    inside = (
        {id(parameter) for parameter in decoder.layers.parameters()} if name == "muon" else set()
    )
    matrices = [
        parameter for parameter in trained if id(parameter) in inside and parameter.ndim == 2
    ]
    rest = [
        parameter for parameter in trained if not (id(parameter) in inside and parameter.ndim == 2)
    ]
    optimizers: list[torch.optim.Optimizer] = (
        [torch.optim.AdamW(rest, lr=lr, weight_decay=weight_decay)] if rest else []
    )
    return optimizers + ([Muon(matrices, lr)] if matrices else [])


@contextmanager
def dropped_out(decoder: Decoder, share: float, seed: list[int]) -> Iterator[None]:
    """Context that drops this share (0 to 1) of the embeddings, and of the output of every
    attention and feed-forward layer. Its random numbers are its own.

    Hooks do it, from outside: the model stays the Hugging Face model that it is, whatever its
    family, and its weights are saved without a trace.
    """

    def drop(
        module: nn.Module, _inputs: object, out: Tensor | tuple[Tensor, ...]
    ) -> Tensor | tuple[Tensor, ...]:
        if isinstance(out, tuple):
            return (nn.functional.dropout(out[0], share), *out[1:])
        return nn.functional.dropout(out, share)

    places = [decoder.model.get_input_embeddings()]
    places += [
        part
        for layer in decoder.layers
        for name, part in layer.named_children()
        if name in ("self_attn", "mlp")
    ]
    hooks = [place.register_forward_hook(drop) for place in places]
    try:
        # no global generator: the caller's is left as it was
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(np.random.default_rng(seed).integers(2**63)))
            yield
    finally:
        for hook in hooks:
            hook.remove()


def warmed_cosine(step: int, steps: int) -> float:
    """Share of the learning rate at a step: it rises over the first 5% of steps, then falls to a
    tenth by a cosine."""
    warm = max(1, steps // 20)
    if step < warm:
        return (step + 1) / warm
    return 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))
