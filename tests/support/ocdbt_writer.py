"""Nodes and manifests of OCDBT with a right checksum, for databases that no program writes.

Format: tensorstore/kvstore/ocdbt/index.rst.
"""

from __future__ import annotations

from collections.abc import Sequence

from google_crc32c import value as crc32c

MANIFEST, NODE = 0x0CDB3A2A, 0x0CDB20DE


def number(value: int) -> bytes:
    """A base-128 number."""
    digits = bytearray()
    while value >= 0x80:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*digits, value])


def numbers(values: Sequence[int]) -> bytes:
    return b"".join(map(number, values))


def sealed(magic: int, body: bytes, *, compression: int = 0, version: int = 0) -> bytes:
    """A manifest or node around a body."""
    rest = number(version) + number(compression) + body
    head = magic.to_bytes(4, "big") + (12 + len(rest) + 4).to_bytes(8, "little")
    return head + rest + crc32c(head + rest).to_bytes(4, "little")


def files(*paths: str) -> bytes:
    """A table of data files, without bases."""
    names = [path.encode() for path in paths]
    return b"".join(
        [
            number(len(names)),
            bytes(max(len(names) - 1, 0)),
            numbers([len(name) for name in names]),
            bytes(len(names)),
            *names,
        ]
    )


def manifest(file: str, offset: int, length: int, *, height: int = 0, kind: int = 0) -> bytes:
    """A manifest with one version, whose root is at a place of a file."""
    config = bytes(16) + number(kind) + numbers([1024, 1 << 20]) + bytes([4]) + number(0)
    version = numbers([1, 1]) + bytes([height]) + numbers([0, offset, length, 1, length, 0])
    return sealed(MANIFEST, config + files(file) + version + bytes(8) + number(0))


def leaf(keys: Sequence[str], *, file: str, offset: int, size: int) -> bytes:
    """A leaf whose values are all at one place of a file."""
    count = len(keys)
    names = [key.encode() for key in keys]
    body = b"".join(
        [
            bytes([0]),
            files(file),
            number(count),
            bytes(max(count - 1, 0)),
            numbers([len(name) for name in names]),
            *names,
            numbers([size] * count),
            bytes([1] * count),
            bytes(count),
            numbers([offset] * count),
        ]
    )
    return sealed(NODE, body)


def inner(height: int, count: int, *, file: str, offset: int, length: int) -> bytes:
    """An inner node of `count` children, which are all the same node."""
    body = b"".join(
        [
            bytes([height]),
            files(file),
            number(count),
            bytes(count - 1),
            bytes(count),
            bytes(count),
            bytes(count),
            numbers([offset] * count),
            numbers([length] * count),
            bytes(3 * count),
        ]
    )
    return sealed(NODE, body)
