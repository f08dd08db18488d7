"""V1 checkpoints: one file of any name, or the shards `PREFIX-?????-of-0000N`.

Each file is a table (see `sstable`). Its empty key holds the table of contents: the name, full
shape and element type of each variable, and which of its slices this file has (most variables are
one slice). Every other key is made from a name and a slice; its value holds the elements of the
slice in the typed fields of a TensorProto. The slices of a variable may be in several shards. Facts
from tensorflow/core/util/saved_tensor_slice.proto, saved_tensor_slice_util.{h,cc} and
tensor_slice_{reader,set,writer}.{h,cc} beside it.

Opening a checkpoint reads the tables of contents. Values are read when a variable is read. The
blocks of the table have the checksums, so reading a value reads its whole block.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bninspect.errors import Corrupt, Incomplete, NotFound, UnknownFormat, Unsupported
from bninspect.formats.tensorflow.bundle_messages import MessageError, parse_slice
from bninspect.formats.tensorflow.dtypes import DTYPES, corrupt, read_shape, widened
from bninspect.formats.tensorflow.ordered_code import slice_place
from bninspect.formats.tensorflow.protos import DecodeError, declare
from bninspect.formats.tensorflow.sstable import Table
from bninspect.model.checkpoint import Checkpoint, Variable
from bninspect.model.filenames import ALL_V1_SHARDS
from bninspect.storage.source import Source, prefetch_all
from bninspect.storage.urls import is_url

if TYPE_CHECKING:
    from numpy.typing import NDArray

(SavedTensorSlices,) = declare("SavedTensorSlices")

_CONTENTS_KEY = b""
_BUNDLE_HEADER = b"\x08"  # BundleHeader.num_shards, which leads the first value of a V2 index
_NEWEST_VERSION = 1

# Which field of the TensorProto holds the elements, by their DataType (saved_tensor_slice_util.h).
# V1 writers do not support bfloat16, uint32 and uint64, but the fields for them exist. Other types
# are not read.
_FIELD_OF = {
    1: "float_val",
    2: "double_val",
    9: "int64_val",
    10: "bool_val",
    14: "half_val",
    19: "half_val",
    22: "uint32_val",
    23: "uint64_val",
} | dict.fromkeys((3, 4, 5, 6, 17), "int_val")
# The types of the fields: the bits of floating-point numbers, wider integers for narrow ones.
_FIELDS = {
    "float_val": "u4",
    "double_val": "u8",
    "int_val": "i4",
    "int64_val": "i8",
    "bool_val": "?",
    "half_val": "i4",
    "uint32_val": "u4",
    "uint64_val": "u8",
}


def open_tensor_slices(path: str, location: str, notes: tuple[str, ...] = ()) -> Checkpoint:
    """Return the open V1 checkpoint at `location`: a file, or shards as `PREFIX-?????-of-0000N`.

    `path` is what the user typed. Raises a `ReadProblem` if a file is missing, damaged or of a
    newer version of the format, if two shards disagree, and for the index of a V2 checkpoint.
    """
    variables = _Variables(location)
    return Checkpoint(
        path=path,
        resolved=location,
        format="tf-v1",
        variables=variables,
        notes=notes,
        prefetch=variables.prefetch,
        close=variables.close,
    )


class _StoredSlice(NamedTuple):
    """A slice in the table of contents of a file; `encoded` is its TensorSlice."""

    file: Source
    table: Table
    encoded: bytes


class _Stored(NamedTuple):
    """One variable in the tables of contents; `shape` is its TensorShape, encoded."""

    key: bytes
    shape: bytes
    dtype: int
    slices: list[_StoredSlice]


class _Variables(Mapping[str, Variable]):
    """The variables of all files by name; a shape is decoded when its variable is looked up."""

    def __init__(self, location: str) -> None:
        self._location = location
        self._files: list[Source] = []
        self._stored: dict[str, _Stored] = {}
        try:
            for file in _open_files(location):
                self._files.append(file)
                self._add_contents(file)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        for file in self._files:
            file.close()

    def prefetch(self, variables: Iterable[Variable]) -> None:
        """Prefetch the blocks of these variables (remote files only).

        Errors are ignored here; reading raises them.
        """
        if not is_url(self._location):
            return
        ranges: dict[Table, tuple[Source, list[tuple[int, int]]]] = {}
        for variable in variables:
            stored = self._stored[variable.name]
            for item in stored.slices:
                with suppress(Corrupt):
                    _, key = _position_of(item, variable.name, stored.key, variable.shape)
                    wanted = ranges.setdefault(item.table, (item.file, []))[1]
                    wanted += item.table.ranges(key)
        prefetch_all(list(ranges.values()))

    def __getitem__(self, name: str) -> Variable:
        stored = self._stored[name]
        path = self._path(stored)
        if stored.dtype not in DTYPES:
            raise Unsupported(
                path,
                f"{name} has the element type {stored.dtype}, which bninspect does not know",
                "Choose another variable, or update bninspect.",
            )
        shape = read_shape(path, stored.shape, name)
        load = partial(self._read, name, stored, shape)
        return Variable(name, shape, DTYPES[stored.dtype][0], load)

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)

    def _add_contents(self, file: Source) -> None:
        """Add the variables and slices in the table of contents of `file`."""
        table = Table(file)
        contents = _contents(file, table)
        if contents.versions.min_consumer > _NEWEST_VERSION:
            raise Unsupported(
                file.path,
                f"it needs a reader of version {contents.versions.min_consumer} of the format",
                "It was written by a newer TensorFlow; update bninspect.",
            )
        for entry in contents.tensor:
            name = entry.name.decode("utf-8", "surrogateescape")
            stored = self._stored.setdefault(name, _Stored(entry.name, entry.shape, entry.type, []))
            if (entry.shape, entry.type) != (stored.shape, stored.dtype):
                raise corrupt(
                    file.path, f"{name} has another shape or element type in another entry"
                )
            stored.slices.extend(_StoredSlice(file, table, encoded) for encoded in entry.slice)

    def _path(self, stored: _Stored) -> str:
        """Return the file to name in an error about a whole variable."""
        files = {item.file.path for item in stored.slices}
        return files.pop() if len(files) == 1 else self._location

    def _read(self, name: str, stored: _Stored, shape: tuple[int, ...]) -> NDArray[Any]:
        dtype, code = DTYPES[stored.dtype]
        field = _FIELD_OF.get(stored.dtype)
        if field is None or code is None:
            raise Unsupported(
                self._path(stored),
                f"{name} holds {dtype} elements, which have no numbers to read",
                "Choose another variable.",
            )
        # All parts are read before memory for the whole is allocated: a claim allocates nothing.
        parts = self._read_parts(name, stored, shape, field, code)
        try:
            array = parts[0][1] if len(parts) == 1 else np.empty(shape, code)
            array = array.reshape(shape)
        except ValueError as error:
            raise Unsupported(
                self._path(stored),
                f"{name} of shape {list(shape)} is larger than any array",
                "Choose another variable.",
            ) from error
        if len(parts) > 1:
            self._fill(name, stored, parts, array)
        return widened(array, dtype)

    def _read_parts(
        self, name: str, stored: _Stored, shape: tuple[int, ...], field: str, code: str
    ) -> list[tuple[tuple[slice, ...], NDArray[Any]]]:
        """Return the position and elements of each slice; together as many as `shape` has."""
        # By position: keys hold the whole name, so all keys together could take any memory.
        by_bounds: dict[tuple[tuple[int, int], ...], _StoredSlice] = {}
        total = 0
        for item in stored.slices:
            position, _ = _position_of(item, name, stored.key, shape)
            bounds = tuple((side.start, side.stop) for side in position)
            if bounds in by_bounds:
                raise corrupt(item.file.path, f"a slice of {name} is listed twice")
            by_bounds[bounds] = item
            total += _size(position)
        if total != math.prod(shape):
            raise Incomplete(
                self._path(stored),
                f"the slices of {name} do not add up to its shape {list(shape)}",
                "The checkpoint is incomplete; use another checkpoint of the run.",
            )
        parts = []
        for item in by_bounds.values():
            position, key = _position_of(item, name, stored.key, shape)
            parts.append((position, _read_elements(item, name, key, position, field, code)))
        return parts

    def _fill(
        self,
        name: str,
        stored: _Stored,
        parts: list[tuple[tuple[slice, ...], NDArray[Any]]],
        whole: NDArray[Any],
    ) -> None:
        """Fill `whole` with the slices of a partitioned variable."""
        covered = np.zeros(whole.shape, bool)
        for position, elements in parts:
            whole[position] = elements.reshape(whole[position].shape)
            covered[position] = True
        if not covered.all():
            raise corrupt(self._path(stored), f"the slices of {name} overlap")


def _open_files(location: str) -> Iterator[Source]:
    """Yield the one file, or each shard of `PREFIX-?????-of-0000N`."""
    pattern = ALL_V1_SHARDS.fullmatch(location)
    if pattern is None:
        yield Source(location)
        return
    prefix, count = pattern.groups()
    for number in range(int(count)):
        path = f"{prefix}-{number:05d}-of-{count}"
        try:
            yield Source(path)
        except NotFound as error:
            raise Incomplete(
                path,
                "this shard of the checkpoint is missing",
                f"All {int(count)} shards are needed; put it beside the others.",
            ) from error


def _contents(file: Source, table: Table) -> Any:
    """Return the table of contents of `file`, a SavedTensorSliceMeta."""
    encoded = table.get(_CONTENTS_KEY)
    if encoded is not None and encoded.startswith(_BUNDLE_HEADER):
        raise Unsupported(
            file.path,
            "this is the index of a TensorFlow V2 checkpoint that lost its name",
            "Call it NAME.index again, beside NAME.data-00000-of-00001.",
        )
    message = None if encoded is None else _parse(file.path, "", SavedTensorSlices, encoded)
    if message is None or not message.HasField("meta"):
        raise UnknownFormat(
            file.path,
            "this is a table, but not one of a TensorFlow checkpoint",
            "Check that it is the right file.",
        )
    return message.meta


def _position_of(
    item: _StoredSlice, name: str, variable_key: bytes, shape: tuple[int, ...]
) -> tuple[tuple[slice, ...], bytes]:
    """Return the position of a slice in its variable, and the key of its elements."""
    try:
        extents = parse_slice(item.encoded)
    except MessageError as error:
        raise corrupt(item.file.path, f"the entry of {name} cannot be parsed") from error
    position, key = slice_place(variable_key, extents, shape)
    if position is None:
        raise corrupt(item.file.path, f"a slice of {name} is outside its shape {list(shape)}")
    return position, key


def _read_elements(
    item: _StoredSlice, name: str, key: bytes, position: tuple[slice, ...], field: str, code: str
) -> NDArray[Any]:
    """Return the elements of one slice, of shape (n,); raises `Corrupt` if there are not n.

    Elsewhere a TensorProto may hold one value for many elements. TensorFlow's reader of slices
    refuses a TensorProto with too few or too many (tensor_slice_reader.h, CopySliceData).
    """
    encoded = item.table.get(key)
    if encoded is None:
        raise corrupt(item.file.path, f"the values of {name}, or of a slice of it, are missing")
    message = _parse(item.file.path, name, SavedTensorSlices, encoded)
    values = getattr(message.data.data, field)
    if len(values) != _size(position):
        raise corrupt(
            item.file.path,
            f"{name}, or a slice of it, should have {_size(position)} values of its element type,"
            f" but has {len(values)}",
        )
    elements: NDArray[Any] = np.fromiter(values, _FIELDS[field], len(values))
    return elements.astype(f"u{np.dtype(code).itemsize}", copy=False).view(code)


def _size(position: tuple[slice, ...]) -> int:
    return math.prod(side.stop - side.start for side in position)


def _parse(path: str, name: str, message: Any, encoded: bytes) -> Any:
    try:
        return message.FromString(encoded)
    except DecodeError as error:
        entry = f"the entry of {name}" if name else "its table of contents"
        raise corrupt(path, f"{entry} cannot be parsed") from error
