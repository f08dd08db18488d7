"""Varints (base-128 numbers), in which protocol buffers and other formats state lengths.

https://protobuf.dev/programming-guides/encoding/#varints
"""

from __future__ import annotations

LONGEST_VARINT = 10  # bytes: of a number of 64 bits
_64_BITS = (1 << 64) - 1


def read_varint(data: bytes, position: int, longest: int = LONGEST_VARINT) -> tuple[int, int]:
    """Return the varint at a position, of 64 bits, and the position behind it.

    Raises IndexError if it does not end within `data` and its `longest` bytes. Higher bits are
    dropped, as protocol buffers do.
    """
    number = shift = 0
    for byte in data[position : position + longest]:
        position += 1
        if byte < 0x80:
            return (number | byte << shift) & _64_BITS, position
        number |= (byte & 0x7F) << shift
        shift += 7
    raise IndexError


def encoded_varint(number: int) -> bytes:
    """Return the varint of a number that is not negative."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
