"""Training state in one safetensors file, replaced atomically: a killed run goes on where it
was."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from longplay.errors import ConfigError, DataError
from longplay.files import make_folder, sync_path


def save_checkpoint(
    path: Path,
    module: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    notes: dict[str, Any],
) -> None:
    """Write weights, optimizers' states and `notes` (JSON) to `path`. The old file stays until the
    new one is on disk.

    Raises:
        DataError: the file cannot be written.
    """
    tensors = {
        f"model.{name}": value.contiguous().clone() for name, value in module.named_parameters()
    }
    for k, optimizer in enumerate(optimizers):
        for index, state in optimizer.state_dict()["state"].items():
            tensors |= {
                f"optimizer.{k}.{index}.{name}": value.contiguous().clone()
                for name, value in state.items()
                if isinstance(value, Tensor)
            }
    partial = path.with_suffix(".partial")
    text = json.dumps(notes)
    try:
        make_folder(path.parent)
        save_file(tensors, partial, metadata={"notes": text, "sha256": _digest(tensors, text)})
        sync_path(partial)
        os.replace(partial, path)
        sync_path(path.parent)
    except (OSError, SafetensorError) as error:
        raise DataError(
            f"checkpoint {path}: it cannot be written ({error}); make room, or give another file"
        ) from error


def load_checkpoint(
    path: Path,
    module: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    made_by: Mapping[str, Any],
    kinds: Mapping[str, type] = {},
) -> dict[str, Any] | None:
    """Restore what `save_checkpoint` wrote and return its notes; null where there is no file.

    Args:
        path: the file.
        module: gets the weights, in place.
        optimizers: get their state, in place.
        made_by: what the notes must agree on.
        kinds: notes that must be there beside these, and their types.

    Raises:
        ConfigError: the file's notes differ from `made_by`: it is another run's.
        DataError: the file is not as `save_checkpoint` wrote it.
    """
    if not os.path.lexists(path):
        return None
    notes, tensors = _read(path)
    for name, value in made_by.items():
        if notes.get(name) != value:
            raise ConfigError(
                f"checkpoint {path}: it was made with {name}={notes.get(name)}, this run has "
                f"{value}; delete it or give another file"
            )
    for name, kind in kinds.items():
        if type(notes.get(name)) is not kind:
            raise _damaged(
                path, f"its note {name} is {notes.get(name)!r}, expected {kind.__name__}"
            )
    try:
        _restore(tensors, module, optimizers)
    except (
        KeyError,
        IndexError,
        ValueError,
        RuntimeError,
    ) as error:
        # a file from before there were digests, or of a model of another shape
        raise _damaged(path, f"it does not fit this model ({error})") from error
    return notes


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Notes and tensors of a checkpoint, checked against its digest. A file from before there were
    digests is taken as it is."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        notes = json.loads(metadata["notes"])
    except (OSError, SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise _damaged(path, f"it cannot be read ({error})") from error
    if not isinstance(notes, dict):
        raise _damaged(
            path, f"its notes are {type(notes).__name__}, expected a table of names and values"
        )
    if metadata.get("sha256", "") not in ("", _digest(tensors, metadata["notes"])):
        raise _damaged(path, "it was changed after it was written")
    return notes, tensors


def _damaged(path: Path, why: str) -> DataError:
    return DataError(f"checkpoint {path}: {why}; delete it, and the training starts anew")


def _digest(tensors: Mapping[str, Tensor], notes: str) -> str:
    """SHA-256 of all that a checkpoint holds, in the order of names."""
    digest = hashlib.sha256(hashlib.sha256(notes.encode()).digest())
    for name, value in sorted(tensors.items()):
        head = f"{name} {value.dtype} {tuple(value.shape)}".encode()
        digest.update(len(head).to_bytes(8, "big") + head)
        if value.numel():
            digest.update(value.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _restore(
    tensors: Mapping[str, Tensor], module: nn.Module, optimizers: Sequence[torch.optim.Optimizer]
) -> None:
    """Put a checkpoint's tensors into a model and its optimizers; a ValueError where shapes
    differ."""
    with torch.no_grad():
        for name, value in module.named_parameters():
            saved = tensors[f"model.{name}"]
            if saved.shape != value.shape:
                raise ValueError(
                    f"{name} has shape {tuple(saved.shape)}, expected {tuple(value.shape)}"
                )
            value.copy_(saved)
    for k, optimizer in enumerate(optimizers):
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith(f"optimizer.{k}."):
                _, _, index, key = name.split(".")
                state.setdefault(int(index), {})[key] = value
        parameters = [each for group in optimizer.param_groups for each in group["params"]]
        for index, entries in state.items():
            for key, value in entries.items():
                if value.dim() and value.shape != parameters[index].shape:
                    raise ValueError(
                        f"{key} of parameter {index} has shape {tuple(value.shape)}, expected "
                        f"{tuple(parameters[index].shape)}"
                    )
        optimizer.load_state_dict(
            {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
        )
