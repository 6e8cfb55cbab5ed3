"""How many examples a property is tried on: a third of what it deserves in `make test`, all of them
where new ones are drawn (`make test-all`)."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from hypothesis import settings

PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "repeatable")


def examples(most: int, *, share: int = 3) -> Callable[[Any], Any]:
    """The number of examples of the property that follows.

    Args:
        most: at most so many where new ones are drawn.
        share: `make test` tries this part of them: a third, or a sixth where an example takes long.
    """
    return settings(max_examples=most if PROFILE == "wild" else -(-most // share))
