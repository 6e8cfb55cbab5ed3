"""Programs forked from a process that has imported what they need: importing is most of what a
short one does."""

from __future__ import annotations

import os
import runpy
import sys
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

from longplay.run import STAGES

# what a run's stages load, and what every command and every generative policy loads
IMPORTED = [
    *sorted({module for stage in STAGES for module in stage.loads}),
    "longplay.cli",
    "longplay.report",
    "longplay.world",
    "sklearn.cluster",
    "transformers.models.qwen3.modeling_qwen3",
]


def fork(
    program: str | Path,
    words: list[str],
    said: Path | None = None,
    env: dict[str, str] | None = None,
) -> BaseProcess:
    """Start a module or a script with these words, and `env` beside the environment; what it says,
    errors too, goes to the file `said`."""
    context = get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    process = context.Process(
        target=_become,
        args=(str(program), words, os.devnull if said is None else str(said), env or {}),
    )
    process.start()
    return process


def _become(program: str, words: list[str], said: str, env: dict[str, str]) -> None:
    with open(said, "a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.update(env)
    sys.argv = [program, *words]
    if program.endswith(".py"):
        sys.path.insert(0, str(Path(program).parent))
        runpy.run_path(program, run_name="__main__")
    else:
        runpy.run_module(program, run_name="__main__", alter_sys=True)
