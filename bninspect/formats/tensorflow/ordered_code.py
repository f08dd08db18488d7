"""OrderedCode: the encoding of numbers and strings in the keys of tensor slices; it keeps order.

Facts from tensorflow/core/lib/strings/ordered_code.cc, and for the keys of slices, which V1 and V2
share, from tensorflow/core/util/saved_tensor_slice_util.cc.
"""

from __future__ import annotations

from bninspect.formats.tensorflow.bundle_messages import Extents


def encode_bytes(text: bytes) -> bytes:
    """Encode as OrderedCode::WriteString: bytes 0 and 255 are escaped, an end mark follows."""
    return b"\0\xff".join(part.replace(b"\xff", b"\xff\0") for part in text.split(b"\0")) + b"\0\1"


def encode_unsigned(number: int) -> bytes:
    """Encode as OrderedCode::WriteNumIncreasing: a length byte, then the big-endian bytes."""
    size = (number.bit_length() + 7) // 8
    return bytes([size]) + number.to_bytes(size, "big")


def encode_signed(number: int) -> bytes:
    """Encode as OrderedCode::WriteSignedNumIncreasing: n bytes for [-2^(7n-1), 2^(7n-1)).

    The first n bits are ones (zeros for a negative number), then the number in two's complement.
    """
    size = (number if number >= 0 else ~number).bit_length() // 7 + 1
    bits = number & ((1 << 8 * size) - 1)
    header = ((1 << size) - 1) << (7 * size)
    return (bits ^ header).to_bytes(size, "big")


def slice_place(
    name: bytes, extents: Extents, shape: tuple[int, ...]
) -> tuple[tuple[slice, ...] | None, bytes]:
    """Return the position of a slice in its variable (None if outside) and the key of its entry.

    In the key an extent that is the whole of its dimension is written as start 0, length -1
    (tensorflow/core/framework/tensor_slice.h).
    """
    if len(extents) != len(shape):
        return None, b""
    position = []
    code = bytearray(encode_unsigned(0))
    code += encode_bytes(name)
    code += encode_unsigned(len(shape))
    for (stored_start, stored_length), size in zip(extents, shape, strict=True):
        whole = stored_length is None
        start, length = (0, size) if stored_length is None else (stored_start, stored_length)
        if start < 0 or length < 0 or start + length > size:
            return None, b""
        position.append(slice(start, start + length))
        code += encode_signed(0 if whole else start) + encode_signed(-1 if whole else length)
    return tuple(position), bytes(code)
