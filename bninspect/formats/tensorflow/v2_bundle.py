"""V2 checkpoints: `PREFIX.index` and the shards `PREFIX.data-?????-of-?????`.

The index is a table (see `sstable`): the empty key holds a BundleHeader, every other key a
variable's name and a BundleEntry that says in which shard its bytes lie. A partitioned variable
has an entry with slices and one entry more for each slice, under a key made from the name and the
slice. Facts from tensorflow/core/util/tensor_bundle/tensor_bundle.{cc,proto},
tensorflow/core/util/saved_tensor_slice_util.cc and tensorflow/core/lib/strings/ordered_code.cc.

Opening a checkpoint reads only the index. A shard is opened when a variable in it is read; then
only the bytes of that variable are read and compared with their checksum.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from bninspect.errors import Corrupt, Incomplete, NotFetched, NotFound, ReadProblem, Unsupported
from bninspect.formats.tensorflow import OBJECT_GRAPH_KEY
from bninspect.formats.tensorflow.bundle_messages import (
    BundleEntry,
    BundleHeader,
    MessageError,
    parse_entry,
    parse_header,
)
from bninspect.formats.tensorflow.dtypes import DTYPES, corrupt, read_shape, widened
from bninspect.formats.tensorflow.ordered_code import slice_place
from bninspect.formats.tensorflow.sstable import Entries, masked_crc32c, read_table
from bninspect.frozen import NamedTuple
from bninspect.model.checkpoint import Checkpoint, Variable
from bninspect.storage.source import Budget, Source, prefetch_all
from bninspect.storage.urls import is_url
from bninspect.storage.varint import read_varint

if TYPE_CHECKING:
    from numpy.typing import NDArray

_HEADER_KEY = b""
_V1_CONTENTS = b"\x0a"  # SavedTensorSlices.meta, which the header's key holds in a V1 file
_NO_VARIABLES = (_HEADER_KEY, OBJECT_GRAPH_KEY.encode())
_SLICE_PREFIX = b"\0"  # every slice's key starts with it; no name does
_BIG_ENDIAN = 1
_MAX_READ_RANK = 32  # numpy's own limit before 2.0; a BN variable has five at most
_NEWEST_VERSION = 1


def open_tensor_bundle(path: str, prefix: str, notes: tuple[str, ...] = ()) -> Checkpoint:
    """Return the open V2 checkpoint at `prefix`, name-based or object-based.

    `path` is what the user typed. Raises a `ReadProblem` if the index, or the shard that holds the
    object graph, is missing, damaged or of a newer version of the format.
    """
    bundle = _Bundle(prefix)
    checkpoint = Checkpoint(
        path=path,
        resolved=prefix,
        format="tf-v2",
        variables=_Variables(bundle),
        notes=notes,
        prefetch=bundle.prefetch,
        close=bundle.close,
    )
    if OBJECT_GRAPH_KEY.encode() not in bundle.entries:
        return checkpoint
    from bninspect.formats.tensorflow.object_based import with_object_graph

    return with_object_graph(checkpoint, bundle.read_string)


def require_shards(prefix: str) -> None:
    """Raise a `ReadProblem` unless the shards hold all bytes that the index of `prefix` lists.

    No values are read: the offsets and sizes of the index are compared with the sizes of the files.
    """
    bundle = _Bundle(prefix)
    try:
        bundle.require_shards()
    finally:
        bundle.close()


class StoredPart(NamedTuple):
    """Bytes of a variable, or of one of its slices, in a shard, and where their checksum is.

    `key` is that of the index entry that has the checksum, `place` their position in the variable.
    """

    key: bytes
    shard: str
    offset: int
    size: int
    place: tuple[slice, ...]


class StoredVariable(NamedTuple):
    """A variable's shape, TensorFlow's name of its element type, and where its bytes lie.

    `disk_type` is the type of the elements as they are stored, bfloat16 as unsigned integers.
    """

    shape: tuple[int, ...]
    dtype: str
    disk_type: np.dtype[Any]
    parts: tuple[StoredPart, ...]


def find_variables(
    prefix: str, names: Iterable[str]
) -> tuple[list[str], dict[str, StoredVariable]]:
    """Return the path of each shard, and where the bytes of some variables lie in them.

    Raises a `ReadProblem` if a shard is missing or shorter than the index says.
    """
    bundle = _Bundle(prefix)
    try:
        bundle.require_shards()
        return bundle.shard_paths(), {name: bundle.stored(name) for name in names}
    finally:
        bundle.close()


class _Variables(Mapping[str, Variable]):
    """The variables of a checkpoint by name; the entry of each is parsed when it is looked up.

    A large checkpoint has thousands of variables, and few of them belong to BN layers.
    """

    def __init__(self, bundle: _Bundle) -> None:
        self._bundle = bundle
        self._keys = {
            key.decode("utf-8", "surrogateescape"): key
            for key in bundle.entries
            if key not in _NO_VARIABLES and not key.startswith(_SLICE_PREFIX)
        }

    def __getitem__(self, name: str) -> Variable:
        return self._bundle.variable(name, self._keys[name])

    def __contains__(self, name: object) -> bool:
        return name in self._keys

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


class _Bundle:
    """The entries of an index, the facts of its header, and the shards opened so far."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.index_path = prefix + ".index"
        with Source(self.index_path) as source:
            self.entries: Entries = read_table(source)
        self._shards: dict[int, Source] = {}
        self._budget = Budget()
        self._disk_types: dict[str, np.dtype[Any]] = {}
        self._shapes: dict[bytes, tuple[int, ...]] = {}
        header = self._header()
        if self.entries[_HEADER_KEY].startswith(_V1_CONTENTS):
            raise Unsupported(
                self.index_path,
                "this is a V1 checkpoint, though it is called like the index of a V2 checkpoint",
                "Give it a name that does not end in .index.",
            )
        if header.min_consumer > _NEWEST_VERSION:
            raise Unsupported(
                self.index_path,
                f"it needs a reader of version {header.min_consumer} of the format",
                "It was written by a newer TensorFlow; update bninspect.",
            )
        self._shard_count = header.num_shards
        self._byte_order = ">" if header.endianness == _BIG_ENDIAN else "<"

    def close(self) -> None:
        for shard in self._shards.values():
            shard.close()
        self._shards.clear()

    def require_shards(self) -> None:
        """Raise `Incomplete` unless each shard exists and is as long as its last entry needs."""
        last: dict[int, tuple[int, int, str]] = {}
        for key, encoded in self.entries.items():
            name = key.decode("utf-8", "replace")
            if key == _HEADER_KEY:
                continue
            entry = self._parse(encoded, name)
            end = entry.offset + entry.size
            if entry.size and end > sum(last.get(entry.shard_id, (0, 0))[:2]):
                last[entry.shard_id] = entry.offset, entry.size, name
        for number, (offset, size, name) in last.items():
            self._shard(number, name).require(offset, size, name)
            self._shards.pop(number).close()

    def prefetch(self, variables: Iterable[Variable]) -> None:
        """Prefetch the bytes of these variables (remote files only).

        Errors are ignored here; reading raises them.
        """
        if not is_url(self.prefix):
            return
        ranges_by_shard: dict[int, list[tuple[int, int]]] = {}
        for variable in variables:
            with suppress(Corrupt):
                for part in self._parts(variable):
                    ranges_by_shard.setdefault(part.shard_id, []).append((part.offset, part.size))
        ranges = []
        for number, wanted in sorted(ranges_by_shard.items()):
            with suppress(Corrupt, Incomplete):
                ranges.append((self._shard(number, "a variable"), wanted))
        prefetch_all(ranges)

    def shard_paths(self) -> list[str]:
        """Return the path of each shard, also of those without bytes of a variable."""
        return [self._shard_path(number) for number in range(self._shard_count)]

    def stored(self, name: str) -> StoredVariable:
        """Return where the bytes of a variable lie: in one part, or one for each slice."""
        key = name.encode("utf-8", "surrogateescape")
        variable = self.variable(name, key)
        shape, dtype = variable.shape, variable.dtype
        entry = self._entry(key, name)
        whole = (tuple(slice(0, size) for size in shape), key)
        slices = [slice_place(key, extents, shape) for extents in entry.slices] or [whole]
        parts = []
        for position, part_key in slices:
            if position is None:
                raise self._corrupt(f"a slice of {name} is outside its shape {list(shape)}")
            part = self._entry(part_key, name)
            shard = self._shard_path(part.shard_id)
            parts.append(StoredPart(part_key, shard, part.offset, part.size, position))
        disk_type = np.dtype(self._byte_order + (DTYPES[entry.dtype][1] or "V"))
        return StoredVariable(shape, dtype, disk_type, tuple(parts))

    def _parts(self, variable: Variable) -> Iterator[BundleEntry]:
        """Yield the entries of a variable's bytes: one, or one for each slice."""
        key = variable.name.encode("utf-8", "surrogateescape")
        entry = self._entry(key, variable.name)
        if not entry.slices:
            yield entry
        for stored_slice in entry.slices:
            position, slice_key = slice_place(key, stored_slice, variable.shape)
            if position is not None:
                yield self._entry(slice_key, variable.name)

    def variable(self, name: str, key: bytes) -> Variable:
        """Return the variable under `key`; checks shape and type, reads no values."""
        entry = self._parse(self.entries[key], name)
        encoded_shape = entry.shape
        shape = self._shapes.get(encoded_shape)
        if shape is None:
            shape = self._shapes[encoded_shape] = read_shape(self.index_path, encoded_shape, name)
        number = entry.dtype
        if number not in DTYPES:
            raise Unsupported(
                self.index_path,
                f"{name} has the element type {number}, which bninspect does not know",
                "Choose another variable, or update bninspect.",
            )
        return Variable(
            name, shape, DTYPES[number][0], partial(self._read, name, key, shape, entry)
        )

    def read_string(self, name: str) -> bytes:
        """Return the string of a scalar string tensor.

        Its length (varint), the masked checksum of the length, and its bytes are stored. The
        checksum of the entry covers the length as a fixed32 instead (WriteStringTensor).
        """
        entry = self._entry(name.encode(), name)
        shard = self._shard(entry.shard_id, name)
        shard.require(entry.offset, entry.size, name)
        self._budget.take(entry.size, self.index_path)
        data = shard.read(entry.offset, entry.size, name)
        something_else = self._corrupt(f"expected one string under {name}, got something else")
        try:
            length, start = read_varint(data, 0)
        except IndexError as error:
            raise something_else from error
        fixed = "<I" if self._byte_order == "<" else ">I"
        if length != entry.size - start - 4 or length >= 1 << 32:
            raise something_else
        if masked_crc32c(struct.pack(fixed, length) + data[start:]) != entry.crc32c:
            raise self._wrong_checksum(name, entry)
        return data[start + 4 :]

    def _header(self) -> BundleHeader:
        try:
            return parse_header(self._encoded(_HEADER_KEY, "the header"))
        except MessageError as error:
            raise self._corrupt("the entry of the header cannot be parsed") from error

    def _entry(self, key: bytes, name: str) -> BundleEntry:
        return self._parse(self._encoded(key, name), name)

    def _encoded(self, key: bytes, name: str) -> bytes:
        if key not in self.entries:
            raise self._corrupt(f"the entry of {name} is missing from the index")
        return self.entries[key]

    def _parse(self, encoded: bytes, name: str) -> BundleEntry:
        try:
            return parse_entry(encoded)
        except MessageError as error:
            raise self._corrupt(f"the entry of {name} cannot be parsed") from error

    def _read(
        self, name: str, key: bytes, shape: tuple[int, ...], entry: BundleEntry
    ) -> NDArray[Any]:
        dtype, code = DTYPES[entry.dtype]
        if code is None:
            raise Unsupported(
                self.index_path,
                f"{name} holds {dtype} elements, which have no numbers to read",
                "Choose another variable.",
            )
        disk_type = self._disk_types.get(code)
        if disk_type is None:
            disk_type = self._disk_types[code] = np.dtype(self._byte_order + code)
        if len(shape) > _MAX_READ_RANK or (0 in shape and _overflows(shape, disk_type)):
            raise Unsupported(
                self.index_path,
                f"{name} of shape {list(shape)} is larger than any array",
                "Choose another variable.",
            )
        if entry.slices:
            array = self._read_slices(name, key, shape, entry, disk_type)
        else:
            array = self._read_whole(name, shape, entry, disk_type)
        if not disk_type.isnative:
            array = array.astype(disk_type.newbyteorder("="))
        return widened(array, dtype)

    def _read_whole(
        self, name: str, shape: tuple[int, ...], entry: BundleEntry, disk_type: np.dtype[Any]
    ) -> NDArray[Any]:
        size = entry.size
        if size != math.prod(shape) * disk_type.itemsize:
            raise self._wrong_size(name, shape, size)
        data = b""  # an empty variable needs no shard
        if size:
            shard = self._shard(entry.shard_id, name)
            shard.require(entry.offset, size, name)
            self._budget.take(size, self.index_path)
            data = shard.read(entry.offset, size, name)
        if masked_crc32c(data) != entry.crc32c:
            raise self._wrong_checksum(name, entry)
        array = np.frombuffer(data, disk_type)
        return array if len(shape) == 1 else array.reshape(shape)

    def _read_slices(
        self,
        name: str,
        key: bytes,
        shape: tuple[int, ...],
        entry: BundleEntry,
        disk_type: np.dtype[Any],
    ) -> NDArray[Any]:
        """Return a partitioned variable, joined from its slices."""
        parts = []
        for stored_slice in entry.slices:
            position, slice_key = slice_place(key, stored_slice, shape)
            if position is None:
                raise self._corrupt(f"a slice of {name} is outside its shape {list(shape)}")
            part = self._entry(slice_key, f"a slice of {name}")
            if part.dtype != entry.dtype:
                raise self._corrupt(f"a slice of {name} has another element type")
            part_shape = tuple(side.stop - side.start for side in position)
            if part.size != math.prod(part_shape) * disk_type.itemsize:
                raise self._wrong_size(f"a slice of {name}", part_shape, part.size)
            parts.append((position, part_shape, part))
        if sum(math.prod(part_shape) for _, part_shape, _ in parts) != math.prod(shape):
            raise Incomplete(
                self.index_path,
                f"the slices of {name} do not add up to its shape {list(shape)}",
                "The checkpoint is incomplete; use another checkpoint of the run.",
            )
        self._require_slices(name, [part for _, part_shape, part in parts if 0 not in part_shape])
        whole = np.empty(shape, disk_type)
        covered = np.zeros(shape, bool)
        for position, part_shape, part in parts:
            whole[position] = self._read_whole(name, part_shape, part, disk_type)
            covered[position] = True
        if not covered.all():
            raise self._corrupt(f"the slices of {name} overlap")
        return whole

    def _require_slices(self, name: str, parts: list[BundleEntry]) -> None:
        """Raise a `ReadProblem` unless each slice has bytes of its own in the shards.

        Memory for the whole is allocated only then: slices that share bytes could claim any amount.
        """
        ends: dict[int, int] = {}
        for part in sorted(parts, key=lambda part: (part.shard_id, part.offset)):
            self._shard(part.shard_id, name).require(part.offset, part.size, f"a slice of {name}")
            if part.offset < ends.get(part.shard_id, 0):
                raise self._corrupt(f"the slices of {name} overlap in their shard")
            ends[part.shard_id] = part.offset + part.size

    def _shard_path(self, number: int) -> str:
        return f"{self.prefix}.data-{number:05d}-of-{self._shard_count:05d}"

    def _shard(self, number: int, name: str) -> Source:
        shard = self._shards.get(number)
        if shard is None:
            if not 0 <= number < self._shard_count:
                raise self._corrupt(f"{name} should be in shard {number} of {self._shard_count}")
            path = self._shard_path(number)
            try:
                shard = self._shards[number] = Source(path)
                self._budget.grant(shard.size)
            except NotFound as error:
                raise Incomplete(
                    path,
                    "this shard of the checkpoint is missing",
                    f"Put {os.path.basename(path)} beside {os.path.basename(self.index_path)}.",
                ) from error
            except NotFetched as problem:  # the index alone still gives the names
                raise Incomplete(problem.path, problem.message, problem.hint) from problem
        return shard

    def _wrong_size(self, name: str, shape: tuple[int, ...], size: int) -> ReadProblem:
        return self._corrupt(f"{name} of shape {list(shape)} has the wrong size of {size} bytes")

    def _wrong_checksum(self, name: str, entry: BundleEntry) -> ReadProblem:
        return corrupt(
            self._shard_path(entry.shard_id),
            f"{name} fails its checksum (offset {entry.offset}, {entry.size} bytes)",
        )

    def _corrupt(self, fault: str) -> ReadProblem:
        return corrupt(self.index_path, fault)


def _overflows(shape: tuple[int, ...], element: np.dtype[Any]) -> bool:
    """Return whether the bytes exceed numpy's limit, which counts empty dimensions as 1."""
    return math.prod(max(size, 1) for size in shape) * element.itemsize >= 2**63
