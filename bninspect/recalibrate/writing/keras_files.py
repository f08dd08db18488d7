"""Copies of Keras files: bytes of HDF5 datasets, and the checksums of the archive around them."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path

from bninspect.errors import UsageProblem
from bninspect.formats.hdf5.file import Hdf5
from bninspect.formats.keras.archive import WeightsMember, find_weights
from bninspect.model.target import Target
from bninspect.recalibrate.writing.copies import FileCopy, Patch, Plan, require_free
from bninspect.recalibrate.writing.values import Values, rounded
from bninspect.storage.source import Source

# The endings by which Keras tells how to load a file (keras/src/saving/saving_api.py).
_WEIGHTS, _ARCHIVE, _HDF5 = (".weights.h5",), (".keras",), (".h5", ".hdf5")


def plan_hdf5(path: str, output: Path, values: Values) -> Plan:
    """Return the plan of copying an HDF5 file, a whole model or weights."""
    _require_ending(path, output, _WEIGHTS if path.endswith(_WEIGHTS) else _HDF5)
    require_free(output, [])
    file = Hdf5(path)
    try:
        patches = _patches(file, values)
    finally:
        file.close()
    return _one_file(Target("hdf5", path), output, patches)


def plan_archive(path: str, output: Path, values: Values) -> Plan:
    """Return the plan of copying a .keras archive: the member's bytes and its checksums."""
    _require_ending(path, output, _ARCHIVE)
    require_free(output, [])
    with Source(path) as source:
        member = find_weights(source)
        window = source.window(member.offset, member.size, "its weights")
        in_member = _patches(Hdf5(path, window), values)
        patches = [patch._replace(offset=member.offset + patch.offset) for patch in in_member]
        checksum = _checksum(source, member, patches).to_bytes(4, "little")
    patches += [Patch(place, checksum) for place in member.checksums]
    return _one_file(Target("keras-zip", path), output, patches)


def _one_file(source: Target, output: Path, patches: Sequence[Patch]) -> Plan:
    copy = FileCopy(source.path, output.name, patches)
    return Plan(source, output, [copy], [output.name])


def _require_ending(path: str, output: Path, endings: tuple[str, ...]) -> None:
    """Raise `UsageProblem` unless Keras can tell from the output's name what it is."""
    own_ending = "" if path.endswith(endings) else Path(path).suffix
    if not str(output).endswith(endings) and not (own_ending and output.suffix == own_ending):
        raise UsageProblem(
            f"Cannot write {output}: Keras tells files apart by their ending, so the copy needs"
            f" {' or '.join(endings)}."
        )


def _patches(file: Hdf5, values: Values) -> list[Patch]:
    patches = []
    for name, new in values.items():
        offset, disk_type = file.place(name)
        variable = file.variable(name)
        data = rounded(file.path, name, new.reshape(variable.shape), variable.dtype)
        patches.append(Patch(offset, data.astype(disk_type).tobytes()))
    return patches


def _checksum(source: Source, member: WeightsMember, patches: Sequence[Patch]) -> int:
    """Return the CRC-32 of the member with its bytes replaced."""
    checksum = 0
    at = member.offset
    for piece in source.pieces(member.offset, member.size, "its weights"):
        new = bytearray(piece)
        for offset, data in patches:
            start, end = max(offset, at), min(offset + len(data), at + len(piece))
            if start < end:
                new[start - at : end - at] = data[start - offset : end - offset]
        checksum = zlib.crc32(new, checksum)
        at += len(piece)
    return checksum
