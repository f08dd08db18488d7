"""Comparison of a copy with its source, by the readers of the formats and byte by byte."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bninspect.errors import Corrupt, ReadProblem, Unsupported
from bninspect.formats.opening import open_target
from bninspect.model.checkpoint import Checkpoint, Variable
from bninspect.recalibrate.writing.copies import FileCopy, Plan
from bninspect.recalibrate.writing.values import Values, rounded
from bninspect.storage.source import Source

_PIECE = 1 << 20


def verify_copy(plan: Plan, copy: Path, values: Values) -> None:
    """Raise `Corrupt` unless a copy is its source but for the new values.

    The new values are read back, all other variables are compared bit by bit, and all bytes that
    were not replaced with those of the source.
    """
    for file in plan.files:
        _compare_bytes(plan, file, copy.parent / file.name)
    target = plan.source._replace(path=str(copy))
    with (
        open_target(plan.source.path, plan.source) as source,
        open_target(str(plan.output), target, verify=True) as written,
    ):
        before, after = _all_variables(source), _all_variables(written)
        if before.keys() != after.keys():
            raise _differs(plan, "the copy has other variables")
        for name in before:
            expected = _read(before[name])
            if name in values and expected is not None:
                expected = _as_read(plan.source.path, before[name], values[name])
            if not _equal(expected, _read(after[name])):
                raise _differs(plan, f"{name} of the copy has not the expected values")


def _compare_bytes(plan: Plan, file: FileCopy, copy: Path) -> None:
    """Compare a file with its copy outside of what was replaced, and that with the new bytes."""
    with Source(file.source) as old, Source(os.fspath(copy)) as new:
        at = 0
        for offset, data in sorted(file.patches):
            _compare_range(plan, old, new, at, offset - at)
            if new.read(offset, len(data), "new bytes") != data:
                raise _differs(plan, f"{file.name} has not the bytes that were written")
            at = offset + len(data)
        _compare_range(plan, old, new, at, max(old.size, new.size) - at)


def _compare_range(plan: Plan, old: Source, new: Source, offset: int, length: int) -> None:
    pieces = zip(
        old.pieces(offset, length, "its bytes"),
        new.pieces(offset, length, "its bytes"),
        strict=True,
    )
    if any(before != after for before, after in pieces):
        raise _differs(plan, f"{old.path} and its copy differ where nothing was replaced")


def _all_variables(checkpoint: Checkpoint) -> Mapping[str, Variable]:
    return {**checkpoint.variables, **checkpoint.optimizer}


def _read(variable: Variable) -> NDArray[Any] | None:
    """Return the values of a variable; None for strings and resources, which have none."""
    try:
        return variable.read()
    except Unsupported:
        return None


def _as_read(path: str, variable: Variable, values: NDArray[Any]) -> NDArray[Any]:
    """Return new values as a reader gives them, bfloat16 as float32."""
    stored = rounded(path, variable.name, values.reshape(variable.shape), variable.dtype)
    if variable.dtype != "bfloat16":
        return stored
    return (stored.astype(np.uint32) << 16).view(np.float32)


def _equal(expected: NDArray[Any] | None, read: NDArray[Any] | None) -> bool:
    if expected is None or read is None:
        return expected is read
    return (expected.dtype, expected.shape) == (
        read.dtype,
        read.shape,
    ) and expected.tobytes() == read.tobytes()


def _differs(plan: Plan, what: str) -> ReadProblem:
    return Corrupt(
        str(plan.output),
        f"{what}, so it was removed",
        "Check the disk, and that no program writes the source; then try again.",
    )
