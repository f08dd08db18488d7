"""Texts of variable length in the attributes of an HDF5 file, read without the library.

HDF5 allocates the length that such an attribute claims before it looks at what is stored
(H5T__conv_vlen in H5Tconv_vlen.c), and runs for ever over a damaged heap (H5HGcache.c). So these
texts are taken from the bytes: File Format Specification of HDF5, III.E (global heap), IV.A (object
headers), IV.A.2.m (attribute message).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

# bytes at an address of the file; raises a ReadProblem if they are not there
Read = Callable[[int, int], bytes]

_ATTRIBUTE, _CONTINUATION = 0x0C, 0x10
_SHARED_MESSAGE = 0x02
_MOST_BLOCKS = 1000  # of one header

_VERSION_1 = struct.Struct("<BxHII4x")  # version, messages, references, size
_MESSAGE_1 = struct.Struct("<HHB3x")  # type, size, flags
_MESSAGE_2 = struct.Struct("<BHB")
_PLACE = struct.Struct("<QQ")  # address, length
_SIZES = struct.Struct("<BxHHH")  # version, and the sizes of name, type and space
_DESCRIPTOR = struct.Struct("<IQI")  # length, address of a heap, number of an object in it
_HEAP = struct.Struct("<4sB3xQ")  # signature, version, size
_OBJECT = struct.Struct("<H6xQ")  # number, size

_MAX_READ = 64 << 20  # bytes; headers and heaps of strings take some kilobytes


class _Damage(ValueError):
    """The bytes contradict the format."""


def stored_texts(
    read: Read, header: int, name: bytes, count: int, limit: int
) -> list[bytes] | None:
    """The `count` texts in an attribute of the object whose header lies at `header`.

    None if no such attribute is among the messages of the header: newer files may store it
    elsewhere. Raises ValueError if the bytes contradict the format, if a text is longer than what
    is stored, or all together are more than `limit` bytes.
    """
    read = _bounded(read)
    data = attribute_data(read, header, name)
    if data is None:
        return None
    heaps: dict[int, dict[int, bytes]] = {}
    texts: list[bytes] = []
    for index in range(count):
        length, address, number = _unpack(_DESCRIPTOR, data, index * _DESCRIPTOR.size)
        if not length or not address:
            texts.append(b"")
            continue
        if address not in heaps:
            heaps[address] = _heap(read, address)
        stored = heaps[address].get(number)
        if stored is None or len(stored) < length:
            raise _Damage(f"a text of {length} bytes that is not stored")
        limit -= length
        if limit < 0:
            raise _Damage("texts too large for any model")
        # HDF5 hands out what ends at the first NUL.
        texts.append(stored[:length].partition(b"\0")[0])
    return texts


def _bounded(read: Read) -> Read:
    """Reads of a few bytes altogether: parts that overlap could make any number of a file."""
    left = _MAX_READ

    def take(at: int, length: int) -> bytes:
        nonlocal left
        left -= length
        if left < 0:
            raise _Damage("headers or heaps of strings without end")
        return read(at, length)

    return take


def attribute_data(read: Read, header: int, name: bytes) -> bytes | None:
    """What an attribute holds, as it is stored; None if none is among the header's messages."""
    for kind, flags, body in messages(read, header):
        if kind != _ATTRIBUTE or flags & _SHARED_MESSAGE:
            continue
        version, *sizes = _unpack(_SIZES, body, 0)
        if version not in (1, 2, 3):
            raise _Damage(f"an attribute message of version {version}")
        at = _SIZES.size + (version == 3)
        if body[at : at + sizes[0]].partition(b"\0")[0] == name:
            # Version 1 pads each part.
            parts = [(size + 7) // 8 * 8 for size in sizes] if version == 1 else sizes
            return body[at + sum(parts) :]
    return None


def messages(read: Read, header: int) -> Iterator[tuple[int, int, bytes]]:
    """Type, flags and body of each message of an object header."""
    if read(header, 4) == b"OHDR":
        version, flags = read(header + 4, 2)
        if version != 2:
            raise _Damage(f"an object header of version {version}")
        width = 1 << (flags & 3)
        at = header + 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
        size = int.from_bytes(read(at, width), "little")
        blocks = [(at + width, size)]
    else:
        version, _, _, size = _VERSION_1.unpack(read(header, _VERSION_1.size))
        if version != 1:
            raise _Damage("no object header")
        flags = 0
        blocks = [(header + _VERSION_1.size, size)]
    layout = _MESSAGE_1 if version == 1 else _MESSAGE_2
    order = 2 if version == 2 and flags & 4 else 0
    for block, (start, length) in enumerate(blocks):
        if block >= _MOST_BLOCKS:
            raise _Damage("an object header without end")
        data = read(start, length)
        at = 0
        while at + layout.size + order <= len(data):
            kind, size, message_flags = layout.unpack_from(data, at)
            at += layout.size + order
            body = data[at : at + size]
            if len(body) < size:
                raise _Damage("a message longer than its header")
            at += size
            if kind == _CONTINUATION:
                place, room = _unpack(_PLACE, body, 0)
                # Version 2 puts a signature before and a checksum behind the messages.
                blocks.append((place, room) if version == 1 else (place + 4, room - 8))
            yield kind, message_flags, body


def _heap(read: Read, address: int) -> dict[int, bytes]:
    """The objects of a global heap by their number."""
    signature, version, size = _HEAP.unpack(read(address, _HEAP.size))
    if signature != b"GCOL" or version != 1:
        raise _Damage("no heap of strings where one should be")
    data = read(address, size)
    objects: dict[int, bytes] = {}
    at = _HEAP.size
    while at + _OBJECT.size <= len(data):
        number, length = _OBJECT.unpack_from(data, at)
        if not number:
            break  # free space up to the end
        at += _OBJECT.size
        if at + length > len(data):
            raise _Damage("a damaged heap of strings")
        objects[number] = data[at : at + length]
        at += (length + 7) // 8 * 8
    return objects


def _unpack(layout: struct.Struct, data: bytes, at: int) -> tuple[int, ...]:
    if at + layout.size > len(data):
        raise _Damage("a part of it is missing")
    return layout.unpack_from(data, at)
