"""Names of array types: one for each kind of number."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
Int = NDArray[np.int64]
Bool = NDArray[np.bool_]


def dense(matrix: Any) -> Float:
    """A sparse matrix as a plain array of floats."""
    return np.asarray(matrix.toarray(), dtype=float)
