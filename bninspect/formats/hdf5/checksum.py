"""The two checksums of HDF5: Jenkins's lookup3 of structure, Fletcher's of values.

Both are those of H5checksum.c of HDF5 (lookup3: Bob Jenkins, "hashlittle", 2006).
"""

from __future__ import annotations

import struct

_MASK = 0xFFFFFFFF
_START = 0xDEADBEEF
_WORDS = struct.Struct("<III")


def lookup3(data: bytes) -> int:
    """Return the checksum that HDF5 stores behind a block of structure."""
    a = b = c = (_START + len(data)) & _MASK
    if not data:
        return c
    last = (len(data) - 1) // _WORDS.size * _WORDS.size
    for x, y, z in _WORDS.iter_unpack(data[:last]):
        a, b, c = (a + x) & _MASK, (b + y) & _MASK, (c + z) & _MASK
        a = (a - c) & _MASK ^ (c << 4 & _MASK | c >> 28)
        c = (c + b) & _MASK
        b = (b - a) & _MASK ^ (a << 6 & _MASK | a >> 26)
        a = (a + c) & _MASK
        c = (c - b) & _MASK ^ (b << 8 & _MASK | b >> 24)
        b = (b + a) & _MASK
        a = (a - c) & _MASK ^ (c << 16 & _MASK | c >> 16)
        c = (c + b) & _MASK
        b = (b - a) & _MASK ^ (a << 19 & _MASK | a >> 13)
        a = (a + c) & _MASK
        c = (c - b) & _MASK ^ (b << 4 & _MASK | b >> 28)
        b = (b + a) & _MASK
    x, y, z = _WORDS.unpack(data[last:].ljust(_WORDS.size, b"\0"))
    a, b, c = (a + x) & _MASK, (b + y) & _MASK, (c + z) & _MASK
    c = (c ^ b) - (b << 14 & _MASK | b >> 18) & _MASK
    a = (a ^ c) - (c << 11 & _MASK | c >> 21) & _MASK
    b = (b ^ a) - (a << 25 & _MASK | a >> 7) & _MASK
    c = (c ^ b) - (b << 16 & _MASK | b >> 16) & _MASK
    a = (a ^ c) - (c << 4 & _MASK | c >> 28) & _MASK
    b = (b ^ a) - (a << 14 & _MASK | a >> 18) & _MASK
    checksum: int = (c ^ b) - (b << 24 & _MASK | b >> 8) & _MASK
    return checksum


def fletcher32(data: bytes) -> int:
    """Return the checksum that HDF5's Fletcher filter stores behind a chunk."""
    import numpy as np

    words = np.frombuffer(data + b"\0" * (len(data) % 2), ">u2").astype(np.uint64)
    weights = np.arange(len(words), 0, -1, dtype=np.uint64) % 0xFFFF
    first, second = int(words.sum()), int((words * weights % 0xFFFF).sum())
    return _folded(second) << 16 | _folded(first)


def _folded(total: int) -> int:
    """Return a sum in ones' complement: multiples of 65535 but 0 are 65535."""
    return (total - 1) % 0xFFFF + 1 if total else 0
