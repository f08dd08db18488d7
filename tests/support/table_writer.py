"""Writes TensorFlow's checkpoints, sound ones and, block by block, ones that no Saver would write.

Made from the formats' specifications (LevelDB's table_format.md, tensor_bundle.proto,
saved_tensor_slice.proto, ordered_code.h) and on purpose not from the reader: it shares no code with
bninspect, so a mistake of the one does not hide a mistake of the other. That what it writes is
right, TensorFlow says: see the tests `test_tensorflow_reads_what_the_writer_writes`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cramjam
import google_crc32c
import numpy as np

MAGIC = 0xDB4775248B80FB57
TRAILER_SIZE = 5
FOOTER_SIZE = 48
NONE, SNAPPY = 0, 1

# DataType of tensorflow/core/framework/types.proto, by the name of the numpy type.
DTYPES = {
    "float32": 1,
    "float64": 2,
    "int32": 3,
    "uint8": 4,
    "int16": 5,
    "int8": 6,
    "complex64": 8,
    "int64": 9,
    "bool": 10,
    "bfloat16": 14,
    "uint16": 17,
    "complex128": 18,
    "float16": 19,
    "uint32": 22,
    "uint64": 23,
}

STRING = 7
OBJECT_GRAPH = b"_CHECKPOINTABLE_OBJECT_GRAPH"

# A slice of a variable: for each dimension (start, length), or None for all of it.
Slice = tuple[tuple[int, int] | None, ...]


# --- Numbers and protocol buffers -----------------------------------------------------------------


def varint(number: int) -> bytes:
    """Base 128, low groups first; negative numbers as 64-bit two's complement."""
    number &= (1 << 64) - 1
    groups = bytearray()
    while number >= 0x80:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes(groups) + bytes([number])


def number_field(field: int, value: int, *, even_zero: bool = False) -> bytes:
    """A varint field; zero is left out, as proto3 does, unless the field belongs to a oneof."""
    return varint(field << 3) + varint(value) if value or even_zero else b""


def bytes_field(field: int, value: bytes) -> bytes:
    """A length-delimited field: a string, or a message already encoded."""
    return varint(field << 3 | 2) + varint(len(value)) + value


def masked_crc32c(data: bytes) -> int:
    """The checksum of `data` as it is stored: rotated right by 15 bits, plus a constant."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) % (1 << 32)


# --- Tables ---------------------------------------------------------------------------------------


def block(entries: Iterable[tuple[bytes, bytes]], restart_interval: int = 16) -> bytes:
    """A block's contents: each key without what it shares with the last, then the restarts."""
    contents, restarts, last = bytearray(), [], b""
    for number, (key, value) in enumerate(entries):
        shared = 0
        if number % restart_interval == 0:
            restarts.append(len(contents))
        else:
            while shared < min(len(last), len(key)) and last[shared] == key[shared]:
                shared += 1
        contents += raw_entry(shared, key[shared:], value)
        last = key
    restarts = restarts or [0]
    return bytes(contents) + struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts))


def raw_entry(shared: int, unshared: bytes, value: bytes) -> bytes:
    """One entry of a block."""
    return varint(shared) + varint(len(unshared)) + varint(len(value)) + unshared + value


def growing_block(size: int, growth: int, start: bytes = b"") -> bytes:
    """A block of about `size` bytes whose keys take about `growth` times as much, all different.

    Each key is the first one and a tail behind it; the tails are 1 to 100 times the same byte, so
    that the block compresses well.
    """
    first = start + b"a" * (growth * 55 - len(start))
    entries, number = [raw_entry(0, first, b"")], 0
    while size > 0:
        tail = bytes([number // 100 + 1]) * (number % 100 + 1)
        entries.append(raw_entry(len(first), tail, b""))
        size -= len(entries[-1])
        number += 1
    return b"".join(entries) + struct.pack("<II", 0, 1)


def sealed(contents: bytes, compression: int = NONE) -> bytes:
    """A block as it lies in the file: with its compression and its checksum behind it.

    `contents` must be compressed already; `snappy` does that.
    """
    covered = contents + bytes([compression])
    return covered + struct.pack("<I", masked_crc32c(covered))


def snappy(contents: bytes) -> bytes:
    """`contents` in snappy's raw format."""
    return bytes(cramjam.snappy.compress_raw(contents))


def handle(offset: int, size: int) -> bytes:
    """Where a block lies; its trailer is not part of `size`."""
    return varint(offset) + varint(size)


def footer(metaindex: bytes, index: bytes) -> bytes:
    """The end of a table: two handles, padding, the magic number."""
    return (metaindex + index).ljust(FOOTER_SIZE - 8, b"\0") + struct.pack("<Q", MAGIC)


def table_of(
    blocks: Sequence[tuple[bytes, bytes]], handles: Mapping[int, bytes] | None = None
) -> bytes:
    """A table of sealed data blocks, each given with its last key.

    `handles` replaces the handle of the block of that number by another, or by garbage.
    """
    file, index = bytearray(), []
    for number, (last_key, data) in enumerate(blocks):
        true_handle = handle(len(file), len(data) - TRAILER_SIZE)
        index.append((last_key, (handles or {}).get(number, true_handle)))
        file += data
    ends = []
    for contents in (block([]), block(index, restart_interval=1)):
        ends.append(handle(len(file), len(contents)))
        file += sealed(contents)
    return bytes(file) + footer(*ends)


def table_of_pairs(
    pairs: Sequence[tuple[bytes, bytes]], entries_per_block: int, restart_interval: int = 16
) -> bytes:
    """A table of keys and values in the order given, repeated keys included."""
    parts = [pairs[i : i + entries_per_block] for i in range(0, len(pairs), entries_per_block)]
    return table_of([(part[-1][0], sealed(block(part, restart_interval))) for part in parts])


def table(
    entries: Mapping[bytes, bytes],
    *,
    block_size: int = 4096,
    restart_interval: int = 16,
    compress: bool = False,
) -> bytes:
    """A table of `entries`, which it sorts; a block is full when it takes `block_size` bytes."""
    blocks, pending, size = [], [], 0
    for number, key in enumerate(sorted(entries), start=1):
        pending.append((key, entries[key]))
        size += len(key) + len(entries[key])
        if size >= block_size or number == len(entries):
            contents = block(pending, restart_interval)
            data = sealed(snappy(contents), SNAPPY) if compress else sealed(contents)
            blocks.append((key, data))
            pending, size = [], 0
    return table_of(blocks)


# --- Bundles --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Header:
    """BundleHeaderProto, the value of the empty key."""

    shards: int = 1
    big_endian: bool = False
    min_consumer: int = 0

    def encode(self) -> bytes:
        version = number_field(1, 1) + number_field(2, self.min_consumer)
        return (
            number_field(1, self.shards)
            + number_field(2, int(self.big_endian))
            + bytes_field(3, version)
        )


@dataclass(frozen=True)
class Entry:
    """BundleEntryProto, the value of a variable's name or of a slice's key."""

    dtype: int = 1
    shape: tuple[int, ...] = ()
    shard: int = 0
    offset: int = 0
    size: int = 0
    crc: int = 0
    slices: tuple[Slice, ...] = ()

    def encode(self) -> bytes:
        return (
            number_field(1, self.dtype)
            + bytes_field(2, _encode_shape(self.shape))
            + number_field(3, self.shard)
            + number_field(4, self.offset)
            + number_field(5, self.size)
            + (varint(6 << 3 | 5) + struct.pack("<I", self.crc) if self.crc else b"")
            + b"".join(bytes_field(7, _encode_slice(part)) for part in self.slices)
        )


Entries = dict[bytes, Any]  # Header, Entry, or bytes for what is none of them


def _encode_shape(shape: Sequence[int]) -> bytes:
    """TensorShapeProto."""
    return b"".join(bytes_field(2, number_field(1, size)) for size in shape)


def _encode_slice(part: Slice) -> bytes:
    """TensorSliceProto; an extent that is all of its dimension has no length."""
    return b"".join(
        bytes_field(1, number_field(1, extent[0]) + number_field(2, extent[1], even_zero=True))
        if extent
        else bytes_field(1, b"")
        for extent in part
    )


def slice_key(name: bytes, part: Slice) -> bytes:
    """The key of a slice's own entry: 0, name, rank, then start and length of each dimension."""
    key = _ordered_number(0) + _ordered_string(name) + _ordered_number(len(part))
    for extent in part:
        start, length = extent or (0, -1)
        key += _ordered_signed(start) + _ordered_signed(length)
    return key


def _ordered_string(text: bytes) -> bytes:
    escapes = {0x00: b"\x00\xff", 0xFF: b"\xff\x00"}
    return b"".join(escapes.get(byte, bytes([byte])) for byte in text) + b"\x00\x01"


def _ordered_number(number: int) -> bytes:
    digits = number.to_bytes(8, "big").lstrip(b"\0")
    return bytes([len(digits)]) + digits


def _ordered_signed(number: int) -> bytes:
    """As many ones as it has bytes, then the number in the 7 bits a byte that are left.

    A negative number is the complement of its complement's code.
    """
    if number < 0:
        return bytes(0xFF - byte for byte in _ordered_signed(~number))
    size = 1
    while number >= 1 << (7 * size - 1):
        size += 1
    bits = "1" * size + format(number, f"0{7 * size}b")
    return int(bits, 2).to_bytes(size, "big")


def write_bundle(
    prefix: str | Path,
    variables: Mapping[str | bytes, np.ndarray],
    *,
    shards: int = 1,
    big_endian: bool = False,
    slices: Mapping[str, Sequence[Slice]] | None = None,
    object_graph: bytes | None = None,
    **layout: Any,
) -> Entries:
    """Write a checkpoint at `prefix`; its variables go to the shards in turn.

    `slices` cuts the variables of these names, and the slices go to the shards in turn.
    `object_graph` (see `graph_of`) makes the checkpoint object-based. `layout` is that of `table`.
    Returns the entries of the index, for a test to change and to give to `write_index`.
    """
    entries: Entries = {b"": Header(shards, big_endian)}
    contents = [bytearray() for _ in range(shards)]
    stored = 0

    def store(key: bytes, array: np.ndarray) -> None:
        nonlocal stored
        shard = stored % shards
        stored += 1
        data = stored_bytes(array, big_endian=big_endian)
        entries[key] = Entry(
            DTYPES[array.dtype.name],
            array.shape,
            shard,
            len(contents[shard]),
            len(data),
            masked_crc32c(data),
        )
        contents[shard] += data

    for name, array in variables.items():
        key = name if isinstance(name, bytes) else name.encode()
        parts = (slices or {}).get(name, ())
        for part in parts:
            store(slice_key(key, part), array[numpy_slice(part)])
        if parts:
            entries[key] = Entry(DTYPES[array.dtype.name], array.shape, slices=tuple(parts))
        else:
            store(key, array)
    if object_graph is not None:
        data, crc = string_scalar(object_graph)
        entries[OBJECT_GRAPH] = Entry(STRING, (), 0, len(contents[0]), len(data), crc)
        contents[0] += data
    for number, data in enumerate(contents):
        shard_path(prefix, number, shards).write_bytes(data)
    write_index(prefix, entries, **layout)
    return entries


def write_index(prefix: str | Path, entries: Entries, **layout: Any) -> None:
    """Write only the index of the checkpoint at `prefix`."""
    encoded = {
        key: value if isinstance(value, bytes) else value.encode() for key, value in entries.items()
    }
    index_path(prefix).write_bytes(table(encoded, **layout))


def index_path(prefix: str | Path) -> Path:
    """The path of the index of the checkpoint at `prefix`."""
    return Path(f"{prefix}.index")


def shard_path(prefix: str | Path, number: int = 0, shards: int = 1) -> Path:
    """The path of a shard of the checkpoint at `prefix`."""
    return Path(f"{prefix}.data-{number:05d}-of-{shards:05d}")


def numpy_slice(part: Slice) -> tuple[slice, ...]:
    """What numpy calls this slice."""
    return tuple(slice(e[0], e[0] + e[1]) if e else slice(None) for e in part)


def stored_bytes(array: np.ndarray, *, big_endian: bool = False) -> bytes:
    """The elements in row-major order, each number (of a complex one: each part) in byte order."""
    data = np.ascontiguousarray(array).tobytes()
    if not big_endian:
        return data
    width = array.dtype.itemsize // (2 if array.dtype.kind == "c" else 1)
    return np.frombuffer(data, f"u{width}").byteswap().tobytes()


def string_scalar(text: bytes) -> tuple[bytes, int]:
    """A tensor of one string as stored, and its checksum, for which the length is a fixed32."""
    length = struct.pack("<I", len(text))
    sealed_length = struct.pack("<I", masked_crc32c(length))
    return varint(len(text)) + sealed_length + text, masked_crc32c(length + sealed_length + text)


@dataclass(frozen=True)
class Node:
    """An object of a TrackableObjectGraph: what it holds, by attribute; its key as a variable."""

    children: Mapping[str, int] | Sequence[tuple[str, int]] = ()
    key: str | None = None
    full_name: str = ""
    slots: Sequence[int] = ()

    def encode(self) -> bytes:
        children = self.children.items() if isinstance(self.children, Mapping) else self.children
        held = b"".join(
            bytes_field(1, number_field(1, number) + bytes_field(2, name.encode()))
            for name, number in children
        )
        if self.key is not None:
            names = ("VARIABLE_VALUE", self.full_name, self.key)
            value = b"".join(bytes_field(i, name.encode()) for i, name in enumerate(names, 1))
            held += bytes_field(2, value)
        return held + b"".join(bytes_field(3, number_field(3, slot)) for slot in self.slots)


def graph_of(nodes: Iterable[Node]) -> bytes:
    """A TrackableObjectGraph; the first node is the root."""
    return b"".join(bytes_field(1, node.encode()) for node in nodes)


# --- V1 checkpoints -------------------------------------------------------------------------------


@dataclass(frozen=True)
class SliceMeta:
    """SavedSliceMeta: what a file of a V1 checkpoint says it has of one variable."""

    name: bytes
    dtype: int = 1
    shape: tuple[int, ...] = ()
    slices: tuple[Slice, ...] = ()

    def encode(self) -> bytes:
        return (
            bytes_field(1, self.name)
            + bytes_field(2, _encode_shape(self.shape))
            + number_field(3, self.dtype)
            + b"".join(bytes_field(4, _encode_slice(part)) for part in self.slices)
        )


def slices_meta(metas: Iterable[SliceMeta], min_consumer: int = 0) -> bytes:
    """The value of the empty key: a SavedTensorSlices with its SavedTensorSliceMeta."""
    version = number_field(1, 1) + number_field(2, min_consumer)
    tensors = b"".join(bytes_field(1, meta.encode()) for meta in metas)
    return bytes_field(1, tensors + bytes_field(2, version))


def slice_data(name: bytes, part: Slice, tensor: bytes) -> bytes:
    """The value of a slice's key: a SavedTensorSlices with its SavedSlice."""
    return bytes_field(
        2, bytes_field(1, name) + bytes_field(2, _encode_slice(part)) + bytes_field(3, tensor)
    )


def tensor_values(array: np.ndarray, dtype: int | None = None, *, packed: bool = True) -> bytes:
    """A TensorProto with its elements alone, in the field of their type (tensor.proto)."""
    dtype = dtype or DTYPES[array.dtype.name]
    flat = np.ascontiguousarray(array).reshape(-1)
    fields = {1: 5, 2: 6, 9: 10, 10: 11, 14: 13, 19: 13, 22: 16, 23: 17}
    field = fields.get(dtype, 7)
    if field in (5, 6):  # these lie as they are, the others as varints
        width, wire = flat.dtype.itemsize, 5 if field == 5 else 1
        items = [flat.tobytes()[i : i + width] for i in range(0, flat.nbytes, width)]
    else:
        wire = 0
        items = [varint(int(item)) for item in (flat.view("u2") if field == 13 else flat)]
    if not packed:
        return b"".join(varint(field << 3 | wire) + item for item in items)
    return bytes_field(field, b"".join(items)) if items else b""


def write_slices(
    path: str | Path,
    variables: Mapping[str | bytes, np.ndarray],
    *,
    shards: int = 0,
    slices: Mapping[str, Sequence[Slice]] | None = None,
    packed: bool = True,
    **layout: Any,
) -> list[dict[bytes, bytes]]:
    """Write a V1 checkpoint: one file, or so many shards, which the slices go to in turn.

    `slices` cuts the variables of these names. Returns the entries of each file, for a test to
    change and to give to `write_table`.
    """
    metas: list[dict[bytes, SliceMeta]] = [{} for _ in range(shards or 1)]
    files: list[dict[bytes, bytes]] = [{} for _ in range(shards or 1)]
    stored = 0
    for name, array in variables.items():
        key = name if isinstance(name, bytes) else name.encode()
        dtype = DTYPES[array.dtype.name]
        for part in (slices or {}).get(name, ((None,) * array.ndim,)):
            shard = stored % len(files)
            stored += 1
            old = metas[shard].get(key, SliceMeta(key, dtype, array.shape))
            metas[shard][key] = SliceMeta(key, dtype, array.shape, (*old.slices, part))
            values = tensor_values(array[numpy_slice(part)], packed=packed)
            files[shard][slice_key(key, part)] = slice_data(key, part, values)
    for number, (entries, meta) in enumerate(zip(files, metas, strict=True)):
        entries[b""] = slices_meta(meta.values())
        write_table(slices_path(path, number, shards), entries, **layout)
    return files


def write_table(path: str | Path, entries: Mapping[bytes, bytes], **layout: Any) -> None:
    """Write one file of a V1 checkpoint."""
    Path(path).write_bytes(table(entries, **layout))


def slices_path(path: str | Path, number: int = 0, shards: int = 0) -> Path:
    """The path of the V1 checkpoint `path`, or of one of its shards."""
    return Path(f"{path}-{number:05d}-of-{shards:05d}" if shards else path)
