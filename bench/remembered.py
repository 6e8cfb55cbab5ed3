"""Results of long computations, kept by function, arguments and experiment version: a stopped bench
goes on where it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

Result = TypeVar("Result")  # that JSON can hold
CACHE = Path(__file__).resolve().parents[1] / ".bench-cache"


def remembered(version: int) -> Callable[[Callable[..., Result]], Callable[..., Result]]:
    """Keep the function's JSON results on disk; raise `version` whenever what it computes
    changes."""

    def wrap(function: Callable[..., Result]) -> Callable[..., Result]:
        def call(**arguments: Any) -> Result:
            # by file, not by module: a script that is run is another module than the same script
            # imported
            script = Path(function.__code__.co_filename).stem
            key = json.dumps(
                [script, function.__name__, version, arguments], sort_keys=True, default=str
            )
            file = (
                CACHE / f"{function.__name__}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"
            )
            if file.exists():
                return json.loads(file.read_text())
            result = function(**arguments)
            CACHE.mkdir(exist_ok=True)
            part = file.with_suffix(".part")
            part.write_text(json.dumps(result))
            part.replace(file)
            return result

        return call

    return wrap
