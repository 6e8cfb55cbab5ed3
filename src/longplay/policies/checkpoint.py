"""Training state in one safetensors file, replaced atomically: a killed run goes on where it was."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from longplay.errors import ConfigError


def save_checkpoint(path: Path, module: nn.Module, optimizers: Sequence[torch.optim.Optimizer], notes: dict[str, Any]) -> None:
    """Write weights, optimizers' states and `notes` (JSON) to `path`; the old file stays until the new one is whole."""
    tensors = {f"model.{name}": value.contiguous().clone() for name, value in module.named_parameters()}
    for k, optimizer in enumerate(optimizers):
        for index, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{k}.{index}.{name}": value.contiguous().clone() for name, value in state.items() if isinstance(value, Tensor)}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file(tensors, partial, metadata={"notes": json.dumps(notes)})
    os.replace(partial, path)


def load_checkpoint(path: Path, module: nn.Module, optimizers: Sequence[torch.optim.Optimizer], made_by: Mapping[str, Any]) -> dict[str, Any] | None:
    """Restore what `save_checkpoint` wrote and return its notes; null where there is no file.

    Raises:
        ConfigError: the file's notes differ from `made_by`: it is another run's.
    """
    if not path.exists():
        return None
    with safe_open(path, framework="pt") as file:
        notes = json.loads((file.metadata() or {})["notes"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    for name, value in made_by.items():
        if notes.get(name) != value:
            raise ConfigError(f"checkpoint {path}: it was made with {name}={notes.get(name)}, this run has {value}; delete it or give another file")
    with torch.no_grad():
        for name, value in module.named_parameters():
            value.copy_(tensors[f"model.{name}"])
    for k, optimizer in enumerate(optimizers):
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith(f"optimizer.{k}."):
                _, _, index, key = name.split(".")
                state.setdefault(int(index), {})[key] = value
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return notes
