"""What a file is by its first and its last bytes, and what to say of one that is not ours."""

from __future__ import annotations

import struct
from collections.abc import Callable

from bninspect.errors import ReadProblem, UnknownFormat
from bninspect.storage.source import Source
from bninspect.storage.urls import is_url

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
ZIP_SIGNATURES = (b"PK\x03\x04", b"PK\x05\x06")  # the second is that of an empty archive
_HEAD, _TAIL = 64, 8  # bytes
_SMALLEST_USER_BLOCK = 512  # bytes

_OURS = "bninspect reads TensorFlow checkpoints and Keras files."
_FOREIGN_HEADS: tuple[tuple[bytes, str], ...] = (
    (b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19", "this is a PyTorch file"),
    (b"\x80", "this is a Python pickle, which bninspect never loads"),
    (b"\x93NUMPY", "this is a NumPy array"),
)


def ends(path: str) -> tuple[bytes, bytes]:
    """The first 64 and the last 8 bytes of a file, or less of a shorter one; raises as `Source`.

    Of what begins as HDF5 does, the end tells nothing and is left out.
    """
    if is_url(path):
        from bninspect.storage.remote.cache import fetch_ends

        fetch_ends(path, _HEAD)
    with Source(path) as source:
        head = source.read(0, min(source.size, _HEAD), "the head of the file")
        tail = 0 if head.startswith(HDF5_SIGNATURE) else min(source.size, _TAIL)
        return head, source.read(source.size - tail, tail, "the end of the file")


def hdf5_offset(size: int, read: Callable[[int, int], bytes]) -> int | None:
    """Return where the HDF5 file in `size` bytes begins, None if there is none.

    A user block of 512 bytes, or of twice as many and so on, may precede it (File Format
    Specification of HDF5, II.A). `read` returns bytes by offset and length.
    """
    offset = 0
    while offset + len(HDF5_SIGNATURE) <= size:
        if read(offset, len(HDF5_SIGNATURE)) == HDF5_SIGNATURE:
            return offset
        offset = max(2 * offset, _SMALLEST_USER_BLOCK)
    return None


def foreign(path: str, head: bytes) -> ReadProblem:
    """Why a file that is no checkpoint is none."""
    if not head:
        return UnknownFormat(path, "this file is empty", "Copy it again.")
    for signature, message in _FOREIGN_HEADS:
        if head.startswith(signature):
            return UnknownFormat(path, message, _OURS)
    kind = "a text file" if is_text(head) else "neither a TensorFlow checkpoint nor a Keras file"
    return UnknownFormat(
        path,
        f"this is {kind}",
        "Check that the download is complete and that this is the right file.",
    )


def is_text(head: bytes) -> bool:
    """Whether a file that begins with `head` is one for people."""
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        text = head[: error.start].decode("utf-8")
        if len(head) - error.start > 3:  # more than a character cut in two
            return False
    return all(character.isprintable() or character in "\r\n\t" for character in text)


TABLE_MAGIC = struct.pack("<Q", 0xDB4775248B80FB57)
