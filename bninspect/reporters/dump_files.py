"""`dump` for other programs: CSV with one row per channel, NPZ with one array per member."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from typing import BinaryIO, TextIO

import numpy as np

from bninspect.batchnorm.inference import Dump, Inference, columns
from bninspect.errors import UsageProblem
from bninspect.model.layer import BNLayer
from bninspect.model.roles import ROLES
from bninspect.reporters.escapes import csv_text, printable

_LONGEST_MEMBER = 65_000


def write_csv(dumps: Sequence[Dump], stream: TextIO, *, several: bool = False) -> None:
    """Write one row per channel; numbers in full precision, empty cells for what is not stored.

    Of several checkpoints, the first column is the checkpoint's path. Control characters of names
    and paths are escaped, and what a spreadsheet would take for a formula gets a `'` before it.
    """
    writer = csv.writer(stream, lineterminator="\n")
    first = ["checkpoint"] if several else []
    writer.writerow([*first, "layer", "channel", *ROLES, "scale", "shift"])
    for path, layer, result in _results(dumps):
        first = [csv_text(path)] if several else []
        name = csv_text(layer.name)
        arrays = columns(layer, result).values()
        total = max((array.size for array in arrays if array is not None), default=0)
        for channel in range(total):
            cells = (
                "" if array is None or channel >= array.size else repr(float(array[channel]))
                for array in arrays
            )
            writer.writerow([*first, name, channel, *cells])


def write_npz(dumps: Sequence[Dump], stream: BinaryIO, *, several: bool = False) -> None:
    """Write a NumPy archive with `LAYER/gamma` … `LAYER/shift`, each of shape (C,).

    Of several checkpoints, the names begin with the checkpoint's path.
    """
    arrays = {}
    for path, layer, result in _results(dumps):
        group = f"{printable(path)}/{layer.name}" if several else layer.name
        for name, array in columns(layer, result).items():
            if array is not None:
                arrays[_member_name(f"{group}/{name}")] = array
    np.savez(stream, **arrays)  # type: ignore[arg-type]


def _results(dumps: Sequence[Dump]) -> Iterator[tuple[str, BNLayer, Inference]]:
    return ((item.path, layer, result) for item, layers in dumps for layer, result in layers)


def _member_name(name: str) -> str:
    """Return a name for an archive member, which zip limits to 65535 bytes of UTF-8."""
    name = printable(name)
    if len(name.encode()) > _LONGEST_MEMBER:
        raise UsageProblem(f"A name of {len(name)} characters does not fit into an .npz file.")
    return name
