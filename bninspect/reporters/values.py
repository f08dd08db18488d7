"""`dump` for other programs: CSV a row a channel, NPZ an array a member."""

from __future__ import annotations

import csv
from typing import BinaryIO, TextIO

import numpy as np

from bninspect.model import ROLES, BNLayer, Inference


def write_csv(layers: list[tuple[BNLayer, Inference]], stream: TextIO) -> None:
    """Write one row a channel; numbers in full precision, what is not stored left empty."""
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["layer", "channel", *ROLES, "scale", "shift"])
    for layer, result in layers:
        columns = [
            *(layer.values[role].array if role in layer.values else None for role in ROLES),
            result.scale,
            result.shift,
        ]
        total = max((column.size for column in columns if column is not None), default=0)
        for channel in range(total):
            cells = (
                "" if column is None or channel >= column.size else repr(float(column[channel]))
                for column in columns
            )
            writer.writerow([layer.name, channel, *cells])


def write_npz(layers: list[tuple[BNLayer, Inference]], stream: BinaryIO) -> None:
    """Write a NumPy archive with `LAYER/gamma` … `LAYER/shift`, each of shape (C,)."""
    arrays = {}
    for layer, result in layers:
        for role, values in layer.values.items():
            arrays[f"{layer.name}/{role}"] = values.array
        if result.scale is not None and result.shift is not None:
            arrays[f"{layer.name}/scale"] = result.scale
            arrays[f"{layer.name}/shift"] = result.shift
    np.savez(stream, **arrays)  # type: ignore[arg-type]
