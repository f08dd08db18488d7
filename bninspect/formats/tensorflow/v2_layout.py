"""The layout of V2 checkpoints: what an index says, but for its checksums.

The checkpoints that one program saves of one architecture have the same names, shapes and types,
and their values lie at the same offsets: their indexes differ in checksums alone. No entry of such
a checkpoint needs to be parsed, and the bytes of many variables come in one read. Every checksum
that an ordinary reader verifies is verified here, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bninspect.errors import Unsupported
from bninspect.formats.tensorflow.bundle_messages import (
    BundleEntry,
    MessageError,
    parse_entry,
    parse_header,
)
from bninspect.formats.tensorflow.dtypes import corrupt
from bninspect.formats.tensorflow.sstable import (
    block_handles,
    find_values,
    masked_crc32c,
    masked_crc32c_of,
)
from bninspect.model.cached_property import cached_property
from bninspect.storage.source import Source
from bninspect.storage.spans import join_pieces

if TYPE_CHECKING:
    from numpy.typing import NDArray

_HEADER_KEY = b""
_LARGEST_INDEX = 1 << 24  # bytes
_LARGEST_CONSTANT = 1 << 22  # bytes of an object graph
_CHECKSUM = np.arange(4)


class BundleLayout:
    """The layout of one checkpoint, by which the values of others are read.

    `size` is that of the index in bytes.
    """

    def __init__(
        self,
        index: _Index,
        variables: Sequence[_Stored],
        others: Mapping[str, _Stored],
        constants: Mapping[_Stored, bytes],
    ) -> None:
        """Prepare to read `variables` at once, and `others`; see `learn_layout`."""
        self.size = self.weight = len(index.data)
        self._blocks = index.blocks
        self._mask = np.full(self.size, 0xFF, np.uint8)
        self._mask[index.checksums(without=constants)] = 0
        self._fixed = self._masked(index.data)
        self._variables = _Pieces(index.shard_count, variables, constants)
        self._others = tuple(others)
        self._pieces_of_others = _Pieces(index.shard_count, [*others.values()], {})

    def matches(self, index: OpenIndex) -> bool:
        """Return whether an index is the same but for checksums; raises a `ReadProblem`."""
        if index.size != self.size:
            return False
        return self._masked(index.data) == self._fixed

    def _masked(self, index: bytes) -> bytes:
        """Return the bytes of an index without its checksums."""
        return (np.frombuffer(index, np.uint8) & self._mask).tobytes()

    def read(self, opened: OpenIndex) -> bytes | None:
        """Return the values of the variables that the layout was learned for, one after the other.

        The layout matches the index. Returns None if a constant differs. Raises a `ReadProblem` if
        a shard is missing or too short, or if a checksum is wrong.
        """
        prefix, index = opened.prefix, opened.data
        for offset, size in self._blocks:
            end = offset + size + 1  # the type of compression is covered, too
            if masked_crc32c(index[offset:end]) != int.from_bytes(index[end : end + 4], "little"):
                raise corrupt(prefix, "a block of its index fails its checksum")
        parts = self._variables.read(prefix, index)
        return None if parts is None else b"".join(parts)

    def read_others(self, index: OpenIndex) -> dict[str, bytes]:
        """Return the bytes of the other variables that the layout was learned for, by name.

        Raises a `ReadProblem` as `read` does, which must have been called before.
        """
        parts = self._pieces_of_others.read(index.prefix, index.data) or []
        return dict(zip(self._others, parts, strict=True))


class _Pieces:
    """The bytes of some variables of a layout, read in as few reads as they lie together in."""

    def __init__(
        self,
        shard_count: int,
        variables: Sequence[_Stored],
        constants: Mapping[_Stored, bytes],
    ) -> None:
        self._shard_count = shard_count
        self._spans, starts = join_pieces([*variables, *constants])
        self._parts = [(starts[stored], starts[stored] + stored.size) for stored in variables]
        self._constants = [
            (starts[stored], starts[stored] + stored.size, data)
            for stored, data in constants.items()
        ]
        self._checksums = _four_bytes_at(stored.checksum for stored in variables)

    def read(self, prefix: str, index: bytes) -> list[bytes] | None:
        """Return the bytes of each variable; None if a constant differs."""
        data = self._read_spans(prefix)
        if any(data[start:end] != constant for start, end, constant in self._constants):
            return None
        parts = [data[start:end] for start, end in self._parts]
        stored = np.frombuffer(index, np.uint8)[self._checksums]
        if masked_crc32c_of(parts) != stored.tobytes():
            raise corrupt(prefix, "a variable fails its checksum")
        return parts

    def _read_spans(self, prefix: str) -> bytes:
        parts = []
        with ExitStack() as opened:
            shards: dict[int, Source] = {}
            for number, offset, size in self._spans:
                if number not in shards:
                    path = _shard_path(prefix, number, self._shard_count)
                    shards[number] = opened.enter_context(Source(path))
                parts.append(shards[number].read(offset, size, "a variable"))
        return b"".join(parts)


class _Stored(NamedTuple):
    """Where a variable's bytes lie: shard (`file`), offset, size; and its checksum in the index."""

    file: int
    offset: int
    size: int
    checksum: int


class _Index(NamedTuple):
    """A parsed index: its bytes, its blocks, and its entries with their offsets by key."""

    data: bytes
    blocks: list[tuple[int, int]]
    entries: dict[bytes, tuple[BundleEntry, int]]
    shard_count: int

    def stored(self, name: str) -> _Stored | None:
        """Return where a variable lies; None if its bytes are not one piece with a checksum."""
        entry, at = self.entries[name.encode("utf-8", "surrogateescape")]
        if entry.slices or entry.crc32c_at is None or not entry.size:
            return None
        return _Stored(entry.shard_id, entry.offset, entry.size, at + entry.crc32c_at)

    def checksums(self, without: Iterable[_Stored]) -> NDArray[np.intp]:
        """Return the offsets of the bytes of all checksums but those `without`."""
        apart = {stored.checksum for stored in without}
        of_entries = (
            at + entry.crc32c_at
            for entry, at in self.entries.values()
            if entry.crc32c_at is not None and at + entry.crc32c_at not in apart
        )
        of_blocks = (offset + size + 1 for offset, size in self.blocks)
        return _four_bytes_at([*of_blocks, *of_entries])


def learn_layout(
    prefix: str, names: Iterable[str], others: Iterable[str] = (), constants: Iterable[str] = ()
) -> BundleLayout | None:
    """Return the layout of a checkpoint that an ordinary reader has read without a problem.

    `names` are the variables whose values its `read` returns, `others` those of its `read_others`.
    The bytes of `constants` must be the same in each checkpoint of this layout. None if there is no
    such layout: of a big-endian checkpoint, a compressed index, a partitioned variable. Raises a
    `ReadProblem`.
    """
    index = _parse_index(prefix)
    if index is None:
        return None
    variables = [index.stored(name) for name in names]
    besides = {name: index.stored(name) for name in others}
    fixed = [index.stored(name) for name in constants]
    if None in (*variables, *besides.values(), *fixed):
        return None
    contents = {}
    for stored in filter(None, fixed):
        if stored.size > _LARGEST_CONSTANT:
            return None
        with Source(_shard_path(prefix, stored.file, index.shard_count)) as shard:
            contents[stored] = shard.read(stored.offset, stored.size, "the object graph")
    return BundleLayout(
        index,
        list(filter(None, variables)),
        {name: stored for name, stored in besides.items() if stored is not None},
        contents,
    )


class OpenIndex:
    """The index of the checkpoint at a prefix; raises a `ReadProblem` if it cannot be opened."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self._source = Source(prefix + ".index")
        self.size = self._source.size

    @cached_property
    def data(self) -> bytes:
        """Return all bytes; raises a `ReadProblem`."""
        return self._source.read(0, self.size, "the index")

    def close(self) -> None:
        """Close the file; bytes that were read are kept."""
        self._source.close()


def _parse_index(prefix: str) -> _Index | None:
    """Return the index of a checkpoint; None if its values are big-endian or it is compressed."""
    with Source(prefix + ".index") as source:
        if source.size > _LARGEST_INDEX:
            return None
        data = source.read(0, source.size, "the index")
        try:
            values = find_values(source)
        except Unsupported:
            return None
        blocks = block_handles(source)
    encoded = {
        key: (data[value.offset : value.offset + value.size], value.offset)
        for key, value in values.items()
    }
    try:
        header = parse_header(encoded.pop(_HEADER_KEY)[0])
        entries = {key: (parse_entry(message), at) for key, (message, at) in encoded.items()}
    except (KeyError, MessageError):
        return None
    return None if header.endianness else _Index(data, blocks, entries, header.num_shards)


def _shard_path(prefix: str, number: int, count: int) -> str:
    return f"{prefix}.data-{number:05d}-of-{count:05d}"


def _four_bytes_at(offsets: Iterable[int]) -> NDArray[np.intp]:
    return (np.array([*offsets], np.intp)[:, None] + _CHECKSUM).ravel()
