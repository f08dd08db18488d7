"""The header of an HDF5 object, a group or a dataset: a list of messages (Specification, IV.A)."""

from __future__ import annotations

import struct

from bninspect.formats.hdf5.structure import Damage, Structure
from bninspect.frozen import NamedTuple

DATASPACE, LINK_INFO, DATATYPE = 0x01, 0x02, 0x03
OLD_FILL_VALUE, FILL_VALUE, LINK = 0x04, 0x05, 0x06
EXTERNAL_FILES, LAYOUT, FILTERS, ATTRIBUTE = 0x07, 0x08, 0x0B, 0x0C
CONTINUATION, SYMBOL_TABLE, ATTRIBUTE_INFO = 0x10, 0x11, 0x15

_SHARED = 0x02
_MOST_BLOCKS = 1000  # of one header
_READ_FIRST = 512  # bytes, as H5O_SPEC_READ_SIZE of HDF5
_PREFIX = 34  # bytes before the messages, at most

_VERSION_1 = struct.Struct("<BxHII4x")  # version, messages, references, size
_MESSAGE_1 = struct.Struct("<HHB3x")  # type, size, flags
_MESSAGE_2 = struct.Struct("<BHB")
_PLACE = struct.Struct("<QQ")  # address, length


class Message(NamedTuple):
    """One message: its type, and its body. `shared` says that the body is stored elsewhere."""

    kind: int
    shared: bool
    body: bytes


def read_header(structure: Structure, address: int) -> list[Message]:
    """Return the messages of the object with the header at an address; raises `Damage`."""
    head = structure.read_up_to(address, _READ_FIRST, _PREFIX)
    if head.startswith(b"OHDR"):
        return _version_2(structure, address, head)
    version, _, _, size = structure.unpack(_VERSION_1, head)
    if version != 1:
        raise Damage(f"no object header at {address}")
    block = structure.read_rest(address, head, _VERSION_1.size, size)
    messages: list[Message] = []
    waiting = _messages(structure, block, _MESSAGE_1, 0, messages)
    for number, (start, length) in enumerate(waiting):  # which grows
        _require_few(number)
        block = structure.read(start, length)
        waiting += _messages(structure, block, _MESSAGE_1, 0, messages)
    return messages


def _version_2(structure: Structure, address: int, head: bytes) -> list[Message]:
    if len(head) < 8 or head[4] != 2:
        raise Damage(f"no object header that is known at {address}")
    flags = head[5]
    at = 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)  # times, phase change values
    width = 1 << (flags & 3)
    size = int.from_bytes(head[at : at + width], "little")
    order = 2 if flags & 0x04 else 0  # bytes of the creation order of each message
    block = structure.read_sealed(address, at + width + size + 4, b"OHDR")
    messages: list[Message] = []
    waiting = _messages(structure, block[at + width :], _MESSAGE_2, order, messages)
    for number, (start, length) in enumerate(waiting):  # which grows
        _require_few(number)
        block = structure.read_sealed(start, length, b"OCHK")
        waiting += _messages(structure, block[4:], _MESSAGE_2, order, messages)
    return messages


def _messages(
    structure: Structure, block: bytes, layout: struct.Struct, order: int, messages: list[Message]
) -> list[tuple[int, int]]:
    """Append the messages in a block to `messages`; return address and length of further blocks."""
    continued = []
    at, head, end = 0, layout.size + order, len(block)
    while at + head <= end:
        kind, size, flags = layout.unpack_from(block, at)
        start = at + head
        at = start + size
        if at > end:
            raise Damage("a message is longer than its header")
        body = block[start:at]
        if kind == CONTINUATION:
            address, length = structure.unpack(_PLACE, body)
            continued.append((address, length))
        else:
            messages.append(Message(kind, bool(flags & _SHARED), body))
    return continued


def _require_few(block: int) -> None:
    if block >= _MOST_BLOCKS:
        raise Damage("an object header without end")
