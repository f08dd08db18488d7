"""New values of variables as the bytes that a checkpoint stores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from bninspect.errors import Unsupported

if TYPE_CHECKING:
    from numpy.typing import NDArray

# The new values of variables by their stored name.
Values = Mapping[str, "NDArray[np.floating[Any]]"]

# The types of statistics, with numpy's name of what is stored; bfloat16 as its 16 bits.
FLOATS = {"float16": "f2", "bfloat16": "u2", "float32": "f4", "float64": "f8"}


def rounded(path: str, name: str, values: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Return values in an element type of a checkpoint; bfloat16 as unsigned integers of 16 bits.

    Raises `Unsupported`, naming file and variable, if the type has no such numbers.
    """
    if dtype not in FLOATS:
        raise Unsupported(
            path,
            f"{name} has the element type {dtype}, in which no statistics are written",
            "Save the checkpoint with statistics of a floating-point type.",
        )
    with np.errstate(over="ignore"):
        if dtype == "bfloat16":
            stored = _bfloat16(values.astype(np.float32))
            is_finite = np.isfinite((stored.astype(np.uint32) << 16).view(np.float32)).all()
        else:
            stored = values.astype(FLOATS[dtype])
            is_finite = np.isfinite(stored).all()
    if not is_finite:
        raise Unsupported(
            path,
            f"the largest new value of {name}, {np.abs(values).max():g}, does not fit into {dtype}",
            "Save the checkpoint with statistics of float32.",
        )
    return stored


def _bfloat16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Return the upper halves of float32 numbers, rounded to nearest, ties to even."""
    bits = values.view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
