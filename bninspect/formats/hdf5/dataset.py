"""Datasets of HDF5: locating and reading their values (Specification, IV.A.2.i, j and l).

Values are in one piece, in the header itself (compact), or in chunks, which may be compressed. A
piece that was never written is not stored: HDF5 reads it as the fill value.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

from bninspect.formats.hdf5 import object_header
from bninspect.formats.hdf5.btree import CHUNK_NODES, read_leaves
from bninspect.formats.hdf5.checksum import fletcher32
from bninspect.formats.hdf5.datatype import Datatype, read_datatype, read_shape
from bninspect.formats.hdf5.object_header import Message
from bninspect.formats.hdf5.structure import UNDEFINED, Damage, NotRead, Structure
from bninspect.frozen import NamedTuple

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SHORT, _TWO_SHORTS, _ADDRESS = struct.Struct("<H"), struct.Struct("<HH"), struct.Struct("<Q")
_COMPACT, _CONTIGUOUS, _CHUNKED, _VIRTUAL = 0, 1, 2, 3
_CONTIGUOUS_PLACE = struct.Struct("<QQ")  # address, size
# Version 5, that of HDF5 2.0, differs from 4 in its indexes alone: the size of a filtered chunk has
# eight bytes there (H5Dlayout.c, H5Dfarray.c). Indexes state the size of their entries.
_VERSIONS = (3, 4, 5)
_LAYOUT_4 = struct.Struct("<BBB")  # flags, dimensions, bytes of each
_SINGLE_CHUNK, _FIXED_ARRAY = b"\x01", b"\x03"
_FILTERED_SINGLE = 0x02
_FILTERED = struct.Struct("<QI")  # size, filters that were skipped
# signature, version, client, size of an entry, bits of a page, entries, address of the block
_ARRAY = struct.Struct("<4sBBBBQQ")
_ARRAY_SIZE = _ARRAY.size + 4
_ARRAY_BLOCK_HEAD = 14  # signature, version, client, address of the header

_DEFLATE, _SHUFFLE, _FLETCHER32 = 1, 2, 3
_FILTER_NAMES = {4: "szip", 5: "nbit", 6: "scaleoffset", 32000: "lzf"}

# No filter of HDF5 expands a chunk more than deflate does (1032:1): a dataset that claims more than
# that from its stored bytes is not read, unless it is below the floor.
_MOST_GROWTH = 1032
_GROWTH_FLOOR = 1 << 20


class Piece(NamedTuple):
    """Values that are stored together: address, size, index of the first, skipped filters."""

    address: int
    size: int
    start: tuple[int, ...] = ()
    skipped: int = 0


class Dataset(NamedTuple):
    """A dataset, its values not yet read.

    `pieces` are those that were written: one that is whole, or chunks of shape `chunk`. `compact`
    holds the values of a compact one. `filters` are those of chunks in the order of writing.
    """

    shape: tuple[int, ...]
    type: Datatype
    pieces: Sequence[Piece]
    chunk: tuple[int, ...] = ()
    filters: tuple[int, ...] = ()
    compact: bytes | None = None
    fill: bytes = b""

    @property
    def unwritten(self) -> int:
        """Return the number of elements that were never written."""
        if self.compact is not None or len(self.pieces) == self.chunk_count:
            return 0
        return math.prod(self.shape) - sum(self._elements_of(piece) for piece in self.pieces)

    def _elements_of(self, piece: Piece) -> int:
        """Return the number of elements of a chunk within the shape."""
        edges = zip(self.shape, self.chunk, piece.start, strict=True)
        return math.prod(min(step, size - start) for size, step, start in edges)

    @property
    def chunk_count(self) -> int:
        """Return the number of chunks, written or not: one if it is whole, none if it is empty."""
        if not math.prod(self.shape):
            return 0
        sizes = zip(self.shape, self.chunk or self.shape, strict=True)
        return math.prod(-(-size // step) for size, step in sizes)

    @property
    def chunk_size(self) -> int:
        """Return the number of bytes in an uncompressed chunk."""
        return math.prod(self.chunk or self.shape) * self.type.size

    @property
    def claimed(self) -> int:
        """Return the number of bytes that reading it takes, its chunks unpacked whole."""
        return self.chunk_count * self.chunk_size


def parse_dataset(structure: Structure, messages: Sequence[Message]) -> Dataset | None:
    """Return the dataset with these messages, None if the object is none or has no elements.

    Raises `Damage`, or `NotRead` if values are in other files or stored as Keras never does.
    """
    by_kind = {message.kind: message for message in messages}
    layout = by_kind.get(object_header.LAYOUT)
    if layout is None or object_header.DATATYPE not in by_kind:
        return None
    if object_header.EXTERNAL_FILES in by_kind:
        raise NotRead("values lie in another file (external storage)")
    if by_kind[object_header.DATATYPE].shared:
        raise NotRead("values have a type that is stored apart")
    type_ = read_datatype(by_kind[object_header.DATATYPE].body)
    shape = read_shape(structure, _body(by_kind, object_header.DATASPACE))
    if shape is None:
        return None
    filters = _read_filters(structure, _body(by_kind, object_header.FILTERS))
    dataset = Dataset(shape, type_, (), filters=filters, fill=_fill_value(by_kind))
    return _with_layout(structure, dataset, layout.body)


def _body(by_kind: dict[int, Message], kind: int) -> bytes:
    return by_kind[kind].body if kind in by_kind else b""


def _fill_value(by_kind: dict[int, Message]) -> bytes:
    """Return the bytes of the fill value, none if it is 0."""
    body = _body(by_kind, object_header.FILL_VALUE)
    if not body:
        at, body = 0, _body(by_kind, object_header.OLD_FILL_VALUE)
    elif body[0] == 3:
        at = 2 if len(body) > 1 and body[1] & 0x20 else len(body)
    else:
        at = 4 if len(body) > 4 and body[3] else len(body)
    size = int.from_bytes(body[at : at + 4], "little")
    if size > len(body) - at - 4 and at < len(body):
        raise Damage("a fill value that is not stored")
    return body[at + 4 : at + 4 + size]


def _read_filters(structure: Structure, body: bytes) -> tuple[int, ...]:
    """Return the filters of chunks in the order of writing."""
    if not body:
        return ()
    version, count = body[0], body[1] if len(body) > 1 else 0
    at = 8 if version == 1 else 2
    filters = []
    for _ in range(count):
        (kind,) = structure.unpack(_SHORT, body, at)
        at += 2
        name_size = 0
        if version == 1 or kind >= 256:
            (name_size,) = structure.unpack(_SHORT, body, at)
            at += 2
        _, values = structure.unpack(_TWO_SHORTS, body, at)
        at += 4
        if version == 1:
            name_size = -(-name_size // 8) * 8
            values += values % 2
        at += name_size + 4 * values
        filters.append(kind)
    return tuple(filters)


def _with_layout(structure: Structure, dataset: Dataset, body: bytes) -> Dataset:
    """Return a dataset with the pieces of its values."""
    version, kind = body[:2] if len(body) >= 2 else (0, 0)
    if version not in _VERSIONS:
        raise NotRead("values are stored in a way that bninspect does not know")
    size = math.prod(dataset.shape) * dataset.type.size
    if kind == _COMPACT:
        (stored,) = structure.unpack(_SHORT, body, 2)
        data = body[4 : 4 + stored]
        if len(data) < size:
            raise Damage("values that are not stored whole")
        return dataset._replace(compact=data[:size])
    if kind == _CONTIGUOUS:
        address, stored = structure.unpack(_CONTIGUOUS_PLACE, body, 2)
        if address == UNDEFINED or not size:
            return dataset
        if stored < size:
            raise Damage("values that are not stored whole")
        return dataset._replace(pieces=(Piece(address, size),))
    if kind == _CHUNKED:
        chunked = _chunked_3 if version == 3 else _chunked_4
        return chunked(structure, dataset, body)
    if kind == _VIRTUAL:
        raise NotRead("values lie in another file (virtual dataset)")
    raise Damage("a dataset that cannot be")


def _chunked_3(structure: Structure, dataset: Dataset, body: bytes) -> Dataset:
    """Return a dataset whose chunks are in a B-tree of version 1."""
    count = body[2] if len(body) > 2 else 0
    (tree,) = structure.unpack(_ADDRESS, body, 3)
    chunk = structure.unpack(struct.Struct(f"<{count}I"), body, 11)
    dataset = _with_chunk(dataset, chunk)
    if tree == UNDEFINED:
        return dataset
    key = struct.Struct(f"<II{count}Q")
    pieces = []
    for leaf in read_leaves(structure, tree, CHUNK_NODES, key.size):
        size, skipped, *start = key.unpack(leaf.key)
        pieces.append(Piece(leaf.child, size, tuple(start[:-1]), skipped))
    return _with_pieces(dataset, pieces)


def _chunked_4(structure: Structure, dataset: Dataset, body: bytes) -> Dataset:
    """Return a dataset whose chunks are in one of the newer indexes."""
    flags, count, width = structure.unpack(_LAYOUT_4, body, 2)
    at = 5 + count * width
    sizes = [body[start : start + width] for start in range(5, at, width or 1)]
    dataset = _with_chunk(dataset, tuple(int.from_bytes(size, "little") for size in sizes))
    kind, at = body[at : at + 1], at + 1
    filtered: tuple[int, ...] = ()
    if kind == _SINGLE_CHUNK and flags & _FILTERED_SINGLE:
        filtered, at = structure.unpack(_FILTERED, body, at), at + _FILTERED.size
    elif kind == _FIXED_ARRAY:
        at += 1  # bits of a page
    elif kind != _SINGLE_CHUNK:
        raise NotRead("its chunks have an index that bninspect does not read")
    (address,) = structure.unpack(_ADDRESS, body, at)
    if address == UNDEFINED:
        return dataset
    if kind == _FIXED_ARRAY:
        return _with_pieces(dataset, _fixed_array(structure, dataset, address))
    size, skipped = filtered or (dataset.chunk_size, 0)
    first = (0,) * len(dataset.shape)
    return _with_pieces(dataset, [Piece(address, size, first, skipped)])


def _fixed_array(structure: Structure, dataset: Dataset, address: int) -> list[Piece]:
    """Return the chunks in a fixed array (Specification, III.F)."""
    head = structure.read_sealed(address, _ARRAY_SIZE, b"FAHD")
    _, _, filtered, entry, page, count, block = _ARRAY.unpack(head)
    if block == UNDEFINED:
        return []
    if count > 1 << page:
        raise NotRead("its chunks are too many")
    if entry < (8 + 1 + 4 if filtered else 8) or count != dataset.chunk_count:
        raise Damage("an index of chunks that cannot be")
    data = structure.read_sealed(block, _ARRAY_BLOCK_HEAD + count * entry + 4, b"FADB")
    starts = product(
        *(range(0, size, step) for size, step in zip(dataset.shape, dataset.chunk, strict=True))
    )
    pieces = []
    for number, start in enumerate(starts):
        cell = data[_ARRAY_BLOCK_HEAD + number * entry :][:entry]
        size = int.from_bytes(cell[8:-4], "little") if filtered else dataset.chunk_size
        skipped = int.from_bytes(cell[-4:], "little") if filtered else 0
        pieces.append(Piece(int.from_bytes(cell[:8], "little"), size, start, skipped))
    return pieces


def _with_chunk(dataset: Dataset, sizes: tuple[int, ...]) -> Dataset:
    """Return a dataset with the shape of its chunks; the size of an element is the last number."""
    chunk = sizes[:-1]
    if len(sizes) != len(dataset.shape) + 1 or not all(chunk) or sizes[-1] != dataset.type.size:
        raise Damage("chunks of another shape than the values")
    return dataset._replace(chunk=chunk)


def _with_pieces(dataset: Dataset, pieces: list[Piece]) -> Dataset:
    """Return a dataset with those of its chunks that were written."""
    written = [piece for piece in pieces if piece.address != UNDEFINED]
    starts = {piece.start for piece in written}
    # Chunks outside of the shape are left behind when a dataset is made smaller.
    if len(starts) < len(written) or not all(_is_on_grid(start, dataset) for start in starts):
        raise Damage("chunks that are not where they should be")
    return dataset._replace(pieces=tuple(written))


def _is_on_grid(start: tuple[int, ...], dataset: Dataset) -> bool:
    return all(
        at < size and at % step == 0
        for at, size, step in zip(start, dataset.shape, dataset.chunk, strict=True)
    )


def require_sound_claim(dataset: Dataset) -> None:
    """Raise `Damage` if a dataset claims far more bytes than it stores."""
    stored = sum(piece.size for piece in dataset.pieces)
    if dataset.compact is None and dataset.claimed > max(_GROWTH_FLOOR, _MOST_GROWTH * stored):
        raise Damage(f"it claims {dataset.claimed} bytes, but {stored} are stored")


def read_values(structure: Structure, dataset: Dataset) -> NDArray[Any]:
    """Return the values of a dataset of numbers, in the order of this machine's bytes.

    Raises `Damage` if they are not there or fail their checksum, `NotRead` if they are
    compressed in a way that Keras files are not.
    """
    import numpy as np

    type_ = np.dtype(dataset.type.number)
    values: NDArray[Any]
    if dataset.compact is not None:
        values = np.frombuffer(dataset.compact, type_).reshape(dataset.shape)
    elif dataset.pieces and not dataset.chunk:
        (piece,) = dataset.pieces
        data = structure.read_values(piece.address, piece.size)
        values = np.frombuffer(data, type_).reshape(dataset.shape)
    else:
        fill = np.frombuffer(dataset.fill, type_)[0] if len(dataset.fill) == type_.itemsize else 0
        values = np.full(dataset.shape, fill, type_)
        for piece in dataset.pieces:
            data = _unfiltered(structure, dataset, piece)
            chunk = np.frombuffer(data, type_).reshape(dataset.chunk)
            sizes = zip(piece.start, dataset.chunk, strict=True)
            part = values[tuple(slice(start, start + size) for start, size in sizes)]
            part[...] = chunk[tuple(slice(size) for size in part.shape)]
    if dataset.type.name == "bfloat16":
        return (values.astype("u4") << 16).view("f4")
    return values.astype(type_.newbyteorder("="), copy=False)


def _unfiltered(structure: Structure, dataset: Dataset, piece: Piece) -> bytes:
    """Return the bytes of a chunk: those stored, with its filters undone in reverse."""
    data = structure.read_values(piece.address, piece.size)
    # Only deflate makes bytes grow, to a chunk and its checksums at most.
    most = dataset.chunk_size + 4 * dataset.filters.count(_FLETCHER32)
    for number, kind in reversed([*enumerate(dataset.filters)]):
        if piece.skipped >> number & 1:
            continue
        if kind == _DEFLATE:
            data = _inflated(data, most)
        elif kind == _SHUFFLE:
            data = _unshuffled(data, dataset.type.size)
        elif kind == _FLETCHER32:
            data = _verified(data)
        else:
            name = _FILTER_NAMES.get(kind, f"filter {kind} of HDF5")
            raise NotRead(f"values are compressed by {name}, which Keras never uses")
    if len(data) != dataset.chunk_size:
        raise Damage(f"a chunk of {len(data)} bytes instead of {dataset.chunk_size}")
    return data


def _inflated(data: bytes, most: int) -> bytes:
    unpacker = zlib.decompressobj()
    try:
        unpacked = unpacker.decompress(data, most + 1)
    except zlib.error as error:
        raise Damage(f"a chunk that cannot be unpacked: {error}") from error
    if len(unpacked) > most:
        raise Damage("a chunk that unpacks to too much")
    if not unpacker.eof:
        raise Damage("a chunk that was cut short")
    return unpacked


def _unshuffled(data: bytes, size: int) -> bytes:
    """Return elements whose first bytes were stored first, then their second bytes, and so on."""
    import numpy as np

    whole = len(data) // size * size
    unshuffled: bytes = np.frombuffer(data[:whole], "u1").reshape(size, -1).T.tobytes()
    return unshuffled + data[whole:]


def _verified(data: bytes) -> bytes:
    """Return a chunk without the checksum behind it, or raise `Damage` if it is wrong."""
    values, stored = data[:-4], int.from_bytes(data[-4:], "little")
    if len(data) < 4 or fletcher32(values) != stored:
        raise Damage("a chunk that fails its checksum")
    return values
