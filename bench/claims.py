"""One row of bench/results: a claim, its value, what it was held to."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any


def timed(
    command: str,
    words: str,
    values: list[float] | dict[str, float],
    bar: str,
    met: Callable[[float], bool],
) -> dict[str, Any]:
    """The median of rounds or of cases, with the least and the most beside it."""
    numbers = list(values.values()) if isinstance(values, dict) else values
    value, several = statistics.median(numbers), len(numbers) > 1
    return {
        "claim": words,
        "value": value,
        "low": min(numbers) if several else None,
        "high": max(numbers) if several else None,
        "bar": bar,
        "ok": bool(met(value)),
        "seeds": 1,
        "command": command,
    }
