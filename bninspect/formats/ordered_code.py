"""OrderedCode: numbers and strings as bytes that sort as they do; keys of tensor slices use it.

Facts from tensorflow/core/lib/strings/ordered_code.cc.
"""

from __future__ import annotations


def encode_bytes(text: bytes) -> bytes:
    """OrderedCode::WriteString: bytes 0 and 255 escaped, an end mark behind."""
    return b"\0\xff".join(part.replace(b"\xff", b"\xff\0") for part in text.split(b"\0")) + b"\0\1"


def encode_unsigned(number: int) -> bytes:
    """OrderedCode::WriteNumIncreasing: a length byte, then the big-endian bytes."""
    size = (number.bit_length() + 7) // 8
    return bytes([size]) + number.to_bytes(size, "big")


def encode_signed(number: int) -> bytes:
    """OrderedCode::WriteSignedNumIncreasing: n bytes for [-2^(7n-1), 2^(7n-1)).

    The first n bits are ones (zeros for a negative number), then the number in two's complement.
    """
    size = (number if number >= 0 else ~number).bit_length() // 7 + 1
    bits = number & ((1 << 8 * size) - 1)
    header = ((1 << size) - 1) << (7 * size)
    return (bits ^ header).to_bytes(size, "big")
