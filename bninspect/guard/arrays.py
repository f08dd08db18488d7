"""Arrays of a live model as NumPy's."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def copied_values(array: Any) -> NDArray[Any]:
    """Return a copy of an array's values: training may write to its memory, or give it away.

    bfloat16, for which NumPy has no type of its own, becomes float32.
    """
    values = np.asarray(array)
    return values.astype(np.float32) if values.dtype.kind == "V" else values.copy()
