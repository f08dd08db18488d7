"""The superblock of an HDF5 file (Specification, II.A): begin and end of its structure."""

from __future__ import annotations

import struct

from bninspect.errors import Corrupt, Incomplete, Unsupported
from bninspect.formats.hdf5.checksum import lookup3
from bninspect.formats.hdf5.structure import DAMAGED, SAVE_AGAIN
from bninspect.frozen import NamedTuple
from bninspect.storage.signatures import HDF5_SIGNATURE, hdf5_offset
from bninspect.storage.source import Window

_SIZE = 100  # bytes, of the longest version
_WRITING = 0x1 | 0x4  # consistency flags of version 3: open for writing, for one writer
_FIELDS = {  # version → offset of the sizes, fields of the end of the file and the root's header
    0: (13, struct.Struct("<40xQ16xQ")),
    1: (13, struct.Struct("<44xQ16xQ")),
    2: (9, struct.Struct("<28xQQI")),
    3: (9, struct.Struct("<28xQQI")),
}


class Superblock(NamedTuple):
    """The begin of the structure: `base` in the window, the root group's header from there.

    `end` is where the superblock ends in the window.
    """

    base: int
    root: int
    end: int


def read_superblock(path: str, window: Window, *, live: bool) -> Superblock:
    """Return the superblock of the HDF5 file in a window; `path` names it in messages.

    Raises `Corrupt` if there is none or the file was cut short, `Incomplete` if it is open for
    writing, `Unsupported` if its addresses do not have eight bytes.

    A `live` file that is longer than its superblock says is still being written. HDF5 writes the
    superblock, which has the end of the file, after everything else: when it closes or flushes the
    file (H5F__flush of H5Fint.c).
    """
    base = hdf5_offset(window.size, window.read_at)
    head = window.read_at(base or 0, min(window.size - (base or 0), _SIZE))
    version = head[len(HDF5_SIGNATURE)] if base is not None and len(head) > 8 else -1
    if base is None or version not in _FIELDS:
        raise Corrupt(path, "it has no HDF5 superblock", DAMAGED)
    sizes, fields = _FIELDS[version]
    if len(head) < fields.size:
        raise _cut_short(path, window.size)
    end, root, *checksum = fields.unpack_from(head)
    if head[sizes : sizes + 2] != b"\x08\x08":
        raise Unsupported(path, "it has no addresses of eight bytes", SAVE_AGAIN)
    if checksum and lookup3(head[: fields.size - 4]) != checksum[0]:
        raise Corrupt(path, "its HDF5 superblock fails its checksum", DAMAGED)
    if window.size < end:
        raise _cut_short(path, window.size, end)
    if version == 3 and head[11] & _WRITING:
        raise _unfinished(path, "its header says so")
    if live and window.size > end:
        raise _unfinished(path, f"{window.size} bytes on disk, {end} recorded in its header")
    return Superblock(base, root, base + fields.size)


def open_for_writing(path: str) -> Incomplete:
    """Return the error for a file that another program writes."""
    return Incomplete(
        path,
        "it is open for writing in another program",
        "Try again when that program has closed it.",
    )


def _unfinished(path: str, sign: str) -> Incomplete:
    return Incomplete(
        path,
        f"the HDF5 file is still open for writing ({sign})",
        "If nothing writes it any more, it was left unfinished: use an earlier one.",
    )


def _cut_short(path: str, size: int, end: int | None = None) -> Corrupt:
    recorded = "" if end is None else f" of the {end} that its header records"
    return Corrupt(path, f"it was cut short: it has {size} bytes{recorded}", DAMAGED)
