"""Tables: sorted key-value blocks, the format of V2 indexes and of V1 checkpoints.

The format is LevelDB's, in TensorFlow's own edition (tensorflow/core/lib/io/format.cc, block.cc,
table_builder.cc): data blocks, an index block of (last key, block handle), a footer of 48 bytes.

    block    entries, restart offsets (fixed32 each), their number (fixed32)
    entry    varint shared, varint unshared, varint value length, unshared key bytes, value bytes
    trailer  1 byte compression (0 none, 1 snappy), fixed32 masked CRC32C of block and that byte
    footer   two block handles (varint offset, varint size each), zero padding, fixed64 magic

`read_table` reads a whole table, as an index is read. A `Table` reads only the blocks of its keys.
Of two entries with one key TensorFlow reads the first, and where keys are not in order it does not
find them: seen with tf.train.load_checkpoint of TensorFlow 2.21.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Container, Iterable, Iterator

import numpy as np
from google_crc32c import value as crc32c

from bninspect.errors import ReadProblem, UnknownFormat, Unsupported
from bninspect.formats.tensorflow.dtypes import corrupt
from bninspect.frozen import NamedTuple
from bninspect.storage.signatures import TABLE_MAGIC
from bninspect.storage.source import Budget, Source
from bninspect.storage.varint import read_varint

FOOTER_SIZE = 48

_TRAILER_SIZE = 5
_ENDS = 64 << 10  # bytes at the ends of a V1 file, where its contents and its index block are
_UNCOMPRESSED, _SNAPPY = 0, 1

# Names share prefixes, so all keys together are longer than the file; in a real index less than
# twentyfold. Snappy cannot expand more than about 21 times (a 64-byte copy takes 3 bytes).
_MAX_KEY_GROWTH = 100
_MAX_SNAPPY_GROWTH = 32

_MASK_DELTA = 0xA282EAD8  # kMaskDelta of tensorflow/core/lib/hash/crc32c.h

Entries = dict[bytes, bytes]


def masked_crc32c(data: bytes) -> int:
    """Return the CRC32C of `data`, rotated and offset as TensorFlow does (lib/hash/crc32c.h)."""
    crc: int = crc32c(data)
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF


def masked_crc32c_of(parts: Iterable[bytes]) -> bytes:
    """Return the `masked_crc32c` of each part, as little-endian numbers one after the other."""
    crc = np.array([crc32c(part) for part in parts], np.uint32)
    masked = ((crc >> np.uint32(15)) | (crc << np.uint32(17))) + np.uint32(_MASK_DELTA)
    little_endian: bytes = masked.astype("<u4").tobytes()
    return little_endian


def read_table(source: Source) -> Entries:
    """Return all keys and values of the table, in the table's order.

    Raises `UnknownFormat` if the file does not end like a table, `Corrupt` if a block fails its
    checksum or contradicts the format, `Incomplete` if a block lies beyond the end of the file.
    """
    source.prefetch([(0, source.size)])
    index_handle = _read_footer(source)
    entries: Entries = {}
    key_budget = _MAX_KEY_GROWTH * source.size
    expected_offset = 0
    previous = b""
    for separator, handle in _parse_block(source, index_handle, key_budget).items():
        offset, size = _parse_handle(source, handle)
        if offset < expected_offset:
            raise _corrupt(source, offset, "two of its blocks overlap")
        expected_offset = offset + size
        block = _parse_block(source, (offset, size), key_budget)
        _require_order(source, offset, block, previous, separator)
        previous = separator
        key_budget -= sum(map(len, block))
        if block and (first := next(iter(block))) in entries:
            del block[first]
        entries.update(block)
    return entries


def _require_order(
    source: Source, offset: int, block: Entries, previous: bytes, separator: bytes
) -> None:
    """Raise `Corrupt` unless the index finds each key of a block that it names `separator`.

    `previous` is the separator of the block before.
    """
    if block and not previous <= next(iter(block)) <= next(reversed(block)) <= separator:
        raise _corrupt(source, offset, "the keys of its table are not in order")


class StoredValue(NamedTuple):
    """Offset and length of a value in its file, and of the block that it is in."""

    offset: int
    size: int
    block: tuple[int, int]


def find_values(source: Source, keys: Container[bytes] | None = None) -> dict[bytes, StoredValue]:
    """Return where the values of some keys lie in the file of a table, or those of all.

    Raises `Unsupported` if one of their blocks is compressed, and as `read_table` does. TensorFlow
    writes indexes without compression (BundleWriter of tensor_bundle.cc).
    """
    values: dict[bytes, StoredValue] = {}
    for offset, size in block_handles(source)[:-1]:
        block = _read_block(source, (offset, size))
        is_plain = source.read(offset + size, 1, "a block's trailer")[0] == _UNCOMPRESSED
        for key, start, length in _value_offsets(block):
            if (keys is not None and key not in keys) or key in values:
                continue
            if not is_plain:
                raise Unsupported(
                    source.path,
                    "a block of its table is compressed, so that no value in it can be replaced",
                    "Save the checkpoint again with tf.train.Saver or tf.train.Checkpoint.",
                )
            values[key] = StoredValue(offset + start, length, (offset, size))
    return values


def block_handles(source: Source) -> list[tuple[int, int]]:
    """Return offset and size of each block of a table, the index block last.

    Raises as `read_table` does.
    """
    index = _read_footer(source)
    handles = _parse_block(source, index, _MAX_KEY_GROWTH * source.size).values()
    return [*(_parse_handle(source, handle) for handle in handles), index]


def reseal_block(block: bytes) -> bytes:
    """Return the trailer of an uncompressed block: its compression and its masked checksum."""
    kind = bytes([_UNCOMPRESSED])
    return kind + masked_crc32c(block + kind).to_bytes(4, "little")


def _value_offsets(block: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield key, offset and length of each value of a block that `_parse_block` has accepted."""
    end = len(block) - 4 - 4 * int.from_bytes(block[-4:], "little")
    key = b""
    position = 0
    while position < end:
        shared, start = read_varint(block, position)
        unshared, start = read_varint(block, start)
        length, start = read_varint(block, start)
        key = key[:shared] + block[start : start + unshared]
        yield key, start + unshared, length
        position = start + unshared + length


class Table:
    """A table that reads only the blocks of the requested keys.

    TensorFlow gives a value of 512 kB or more a block of its own (TableBuilder::Add of
    table_builder.cc), so a small value never costs the bytes of a large one.
    """

    def __init__(self, source: Source) -> None:
        """Read footer and index block of `source`, which the caller closes.

        Raises as `read_table` does.
        """
        self._source = source
        ends = min(_ENDS, source.size)  # the index block stands before the footer
        source.prefetch([(0, ends), (source.size - ends, ends)])
        self._key_budget = _MAX_KEY_GROWTH * source.size
        self._budget = Budget()
        self._budget.grant(source.size)
        self._blocks: dict[int, Entries] = {}
        index = _parse_block(source, _read_footer(source), self._key_budget)
        self._last_keys = list(index)
        self._handles = [_parse_handle(source, handle) for handle in index.values()]
        end = 0
        for offset, size in self._handles:
            if offset < end:
                raise _corrupt(source, offset, "two of its blocks overlap")
            end = offset + size

    def get(self, key: bytes) -> bytes | None:
        """Return the value under `key`, or None; raises a `ReadProblem` if its block is damaged."""
        number = bisect_left(self._last_keys, key)
        if number == len(self._handles):
            return None
        if number not in self._blocks:
            self._blocks[number] = self._read_block(number)
        return self._blocks[number].get(key)

    def ranges(self, key: bytes) -> list[tuple[int, int]]:
        """Return (offset, length) of the bytes that `get` will read for a key; none if cached."""
        number = bisect_left(self._last_keys, key)
        if number == len(self._handles) or number in self._blocks:
            return []
        offset, size = self._handles[number]
        return [(offset, size + _TRAILER_SIZE)]

    def _read_block(self, number: int) -> Entries:
        """Return a block's entries; `get` keeps them, since a layer's variables lie together."""
        handle = self._handles[number]
        block = _parse_block(self._source, handle, self._key_budget)
        previous = self._last_keys[number - 1] if number else b""
        _require_order(self._source, handle[0], block, previous, self._last_keys[number])
        self._key_budget -= sum(map(len, block))
        self._budget.take(sum(map(len, block.values())), self._source.path)
        return block


def _read_footer(source: Source) -> tuple[int, int]:
    """Return the handle (offset, size) of the index block."""
    if source.size < FOOTER_SIZE:
        raise _not_a_table(source)
    footer = source.read(source.size - FOOTER_SIZE, FOOTER_SIZE, "the footer")
    if not footer.endswith(TABLE_MAGIC):
        raise _not_a_table(source)
    try:
        _, position = read_varint(footer, 0)  # the metaindex block's handle: nothing is kept there
        _, position = read_varint(footer, position)
        return _parse_handle(source, footer[position:-8])
    except IndexError as error:
        raise _corrupt(source, source.size - FOOTER_SIZE, "its footer is damaged") from error


def _parse_handle(source: Source, handle: bytes) -> tuple[int, int]:
    try:
        offset, position = read_varint(handle, 0)
        size, _ = read_varint(handle, position)
    except IndexError as error:
        raise _corrupt(source, source.size, "a block handle is damaged") from error
    return offset, size


def _parse_block(source: Source, handle: tuple[int, int], key_budget: int) -> Entries:
    """Return the entries of the block at `handle`; its keys may take `key_budget` bytes in all."""
    block = _read_block(source, handle)
    if len(block) < 4:
        raise _corrupt(source, handle[0], "a block is too short")
    restarts = int.from_bytes(block[-4:], "little")
    end = len(block) - 4 - 4 * restarts
    if end < 0:
        raise _corrupt(source, handle[0], "a block's restart table is longer than the block")
    try:
        return _parse_entries(block, end, key_budget)
    except _NotInOrderError as error:
        raise _corrupt(source, handle[0], "the keys of its table are not in order") from error
    except (IndexError, ValueError) as error:
        raise _corrupt(source, handle[0], "an entry of a block is damaged") from error


class _NotInOrderError(Exception):
    """A key that is smaller than the key before it."""


def _parse_entries(block: bytes, end: int, key_budget: int) -> Entries:
    """Unpack prefix-compressed entries; of those with one key the first counts.

    Raises IndexError or ValueError if they make no sense, `_NotInOrderError` if keys descend.

    A name's fields are nearly always below 128, one byte each. That case has its own code, since
    reading a large index spends its time in this loop.
    """
    entries: Entries = {}
    key = b""
    position = 0
    while position < end:
        shared, unshared, length = block[position], block[position + 1], block[position + 2]
        if (shared | unshared | length) < 0x80:
            start = position + 3
        else:
            shared, start = read_varint(block, position)
            unshared, start = read_varint(block, start)
            length, start = read_varint(block, start)
        split = start + unshared
        position = split + length
        if shared > len(key) or position > end:
            raise ValueError
        last, key = key, key[:shared] + block[start:split]
        key_budget -= len(key)
        if key_budget < 0:
            raise ValueError
        if key > last or not entries:
            entries[key] = block[split:position]
        elif key < last:
            raise _NotInOrderError
    return entries


def _read_block(source: Source, handle: tuple[int, int]) -> bytes:
    offset, size = handle
    data = source.read(offset, size + _TRAILER_SIZE, "a block of the table")
    stored = int.from_bytes(data[-4:], "little")
    if masked_crc32c(data[:-4]) != stored:
        raise _corrupt(source, offset, "a block of its table fails its checksum")
    compression = data[size]
    block = data[:size]
    if compression == _UNCOMPRESSED:
        return block
    if compression == _SNAPPY:
        return _uncompress(source, offset, block)
    raise _corrupt(source, offset, f"a block has the unknown compression {compression}")


def _uncompress(source: Source, offset: int, block: bytes) -> bytes:
    import cramjam

    try:
        length, _ = read_varint(block, 0)  # the uncompressed length leads the data
        if length > _MAX_SNAPPY_GROWTH * len(block):
            raise ValueError
        return bytes(cramjam.snappy.decompress_raw(block))
    except (IndexError, ValueError, cramjam.DecompressionError) as error:
        raise _corrupt(source, offset, "a snappy block cannot be uncompressed") from error


def _not_a_table(source: Source) -> ReadProblem:
    if not source.size:
        return UnknownFormat(source.path, "this file is empty", "Copy it again.")
    return UnknownFormat(
        source.path,
        "this is not a TensorFlow checkpoint (it does not end like one)",
        "Check that the file is complete and was written by TensorFlow's Saver.",
    )


def _corrupt(source: Source, offset: int, fault: str) -> ReadProblem:
    return corrupt(source.path, f"{fault} (offset {offset})")
