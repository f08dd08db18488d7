"""What the first bytes of an HDF5 file say of the rest (File Format Specification, II.A)."""

from __future__ import annotations

from bninspect.errors import Incomplete
from bninspect.storage.signatures import HDF5_SIGNATURE
from bninspect.storage.source import Window

# Where the superblock has the address of the file's end, by its version; all fit in so many bytes.
_END_OF_FILE = {0: 40, 1: 44, 2: 28, 3: 28}
_SUPERBLOCK = 52


def require_closed(path: str, window: Window) -> None:
    """Raise `Incomplete` if a file has more bytes than its superblock tells of.

    HDF5 writes what is stored where it belongs, and at last the superblock, with the address where
    the file ends; it does so when it closes the file, or when it is told to flush it (H5F__flush of
    H5Fint.c; File Format Specification, II.A). So a longer file is still written.
    """
    head = window.read_at(0, min(window.size, _SUPERBLOCK))
    if len(head) < _SUPERBLOCK or not head.startswith(HDF5_SIGNATURE):
        return  # HDF5 tells of it
    version = head[len(HDF5_SIGNATURE)]
    at = _END_OF_FILE.get(version)
    address_size = head[9 if version > 1 else 13]
    if at is None or address_size != 8:
        return
    end = int.from_bytes(head[at : at + 8], "little")
    if window.size > end:
        raise Incomplete(
            path,
            f"who writes it has not closed it: it has {window.size} bytes and counts {end} of them",
            "If nothing writes it any more, it was left unfinished: use an earlier one.",
        )
