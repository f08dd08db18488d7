"""`dump` for other programs: CSV a row a channel, NPZ an array a member."""

from __future__ import annotations

import csv
from typing import BinaryIO, TextIO

import numpy as np

from bninspect.errors import UsageProblem
from bninspect.inference import Inference, columns
from bninspect.model import ROLES, BNLayer

_LONGEST_MEMBER = 65_000


def write_csv(layers: list[tuple[BNLayer, Inference]], stream: TextIO) -> None:
    """Write one row a channel; numbers in full precision, what is not stored left empty."""
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["layer", "channel", *ROLES, "scale", "shift"])
    for layer, result in layers:
        arrays = columns(layer, result).values()
        total = max((array.size for array in arrays if array is not None), default=0)
        for channel in range(total):
            cells = (
                "" if array is None or channel >= array.size else repr(float(array[channel]))
                for array in arrays
            )
            writer.writerow([layer.name, channel, *cells])


def write_npz(layers: list[tuple[BNLayer, Inference]], stream: BinaryIO) -> None:
    """Write a NumPy archive with `LAYER/gamma` … `LAYER/shift`, each of shape (C,)."""
    arrays = {}
    for layer, result in layers:
        for name, array in columns(layer, result).items():
            if array is not None:
                arrays[_member_name(f"{layer.name}/{name}")] = array
    np.savez(stream, **arrays)  # type: ignore[arg-type]


def _member_name(name: str) -> str:
    """A name for an archive member, which zip limits to 65535 bytes."""
    if len(name.encode("utf-8", "surrogateescape")) > _LONGEST_MEMBER:
        raise UsageProblem(f"A name of {len(name)} characters does not fit into an .npz file.")
    return name
