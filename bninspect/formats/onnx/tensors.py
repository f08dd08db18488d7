"""Tensors of an ONNX file: their names and places, and their values on demand.

Fields are those of TensorProto in onnx/onnx.proto. The values are in `raw_data` (little-endian), in
a field by their type (float16 and bfloat16 as bits in `int32_data`), or in another file, which
`external_data` names by a path relative to the model (onnx/docs/ExternalData.md).
"""

from __future__ import annotations

import math
import os
from array import array
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bninspect.errors import Corrupt, Incomplete, NotFound, ReadProblem, Unsupported
from bninspect.formats.message_file import LENGTH, VARINT, Field, MessageFile, Place
from bninspect.storage import filesystem
from bninspect.storage.source import Budget, Source

# Fields of TensorProto.
_DIMS, _DATA_TYPE, _SEGMENT, _NAME, _RAW, _EXTERNAL, _LOCATION = 1, 2, 3, 8, 9, 13, 14
_KEY, _VALUE = 1, 2  # of StringStringEntryProto
_EXTERNAL_LOCATION = 1  # DataLocation
# TensorProto.DataType: the name of the type, by its number.
DTYPES: Mapping[int, str] = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    8: "string",
    9: "bool",
    10: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
    14: "complex64",
    15: "complex128",
    16: "bfloat16",
}
_NUMPY = {"float32": "<f4", "float64": "<f8", "float16": "<f2", "bfloat16": "<u2"}
_NUMPY |= {"int32": "<i4", "int64": "<i8", "uint8": "<u1", "int8": "<i1", "bool": "<u1"}
_NUMPY |= {"uint16": "<u2", "int16": "<i2", "uint32": "<u4", "uint64": "<u8"}
# The field that holds the values of a type without raw_data: float_data, int32_data, int64_data,
# double_data, uint64_data.
_FIELD_OF = {"float32": 4, "int64": 7, "float64": 10, "uint32": 11, "uint64": 11}
_INT32_DATA = 5
_MOST_DIMENSIONS = 64
_MOST_ENTRIES = 32  # of external_data
_LARGEST = 1 << 63
# Without raw_data, float16 and integers take a byte or more each: such tensors are small.
_MOST_INTEGERS = 1 << 20


class Tensor(NamedTuple):
    """A stored tensor; its values are read only when asked for.

    `place` is that of its message in the file, `raw` that of its raw_data, `external` has the
    entries of external_data, `field` is the number of the field with its values, if not that of
    their type. Each of the latter is None without it.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    place: Place
    raw: Place | None = None
    external: Mapping[str, str] | None = None
    field: int | None = None

    @property
    def size(self) -> int:
        """Return the number of elements."""
        return math.prod(self.shape)


def read_tensor(file: MessageFile, place: Place) -> Tensor:
    """Return the tensor whose message is at a place, without its values; raises `Corrupt`."""
    name, dtype, raw = "", 0, None
    is_external = False
    shape: list[int] = []
    entries: dict[str, str] = {}
    for field in file.fields(place):
        if field.number == _DIMS:
            shape += islice(_numbers(file, field), _MOST_DIMENSIONS + 1)
            _require_shape(file, shape)
        elif field.number == _DATA_TYPE and field.wire == VARINT:
            dtype = field.value
        elif field.number == _NAME:
            name = file.text(field)
        elif field.number == _RAW and field.wire == LENGTH:
            raw = field.place
        elif field.number == _EXTERNAL and field.wire == LENGTH:
            key, value = read_entry(file, field.place)
            entries[key] = value
            if len(entries) > _MOST_ENTRIES:
                raise file.corrupt("a tensor has too many entries of external data")
        elif field.number == _LOCATION and field.wire == VARINT:
            is_external = field.value == _EXTERNAL_LOCATION
        elif field.number == _SEGMENT:
            dtype = 0  # a part of a tensor, which nothing writes
    return Tensor(
        name,
        tuple(shape),
        DTYPES.get(dtype, f"type {dtype}"),
        place,
        raw,
        entries if is_external else None,
    )


def read_entry(file: MessageFile, place: Place) -> tuple[str, str]:
    """Return key and value of a StringStringEntryProto; raises `Corrupt`."""
    texts = {_KEY: "", _VALUE: ""}
    for field in file.fields(place):
        if field.number in texts:
            texts[field.number] = file.text(field)
    return texts[_KEY], texts[_VALUE]


def _numbers(file: MessageFile, field: Field) -> Iterator[int]:
    """Yield the integers of a repeated field, which may be packed."""
    if field.wire == VARINT:
        yield field.value
    elif field.wire == LENGTH:
        yield from file.varints(field.place)


def _require_shape(file: MessageFile, shape: list[int]) -> None:
    """Raise `Corrupt` if a shape is none that an array can have."""
    count = math.prod(max(dimension, 1) for dimension in shape)
    if len(shape) > _MOST_DIMENSIONS or count >= _LARGEST:
        raise file.corrupt("a tensor is larger than any can be")


class TensorFiles:
    """The files that hold the values of a model: the model itself and those beside it."""

    def __init__(self, file: MessageFile) -> None:
        self._file = file
        self._budget = Budget()
        self._budget.grant(file.size)
        self._granted: set[str] = set()

    def prefetch(self, tensors: list[Tensor]) -> None:
        """Prefetch the values of tensors (remote files only); errors are left to `read`."""
        inside = [tensor.raw or tensor.place for tensor in tensors if tensor.external is None]
        self._file.source.prefetch((place.start, place.size) for place in inside)
        outside: dict[str, list[tuple[int, int]]] = {}
        for tensor in tensors:
            if tensor.external is not None:
                with suppress(ReadProblem):
                    name, offset, size = self._extent(tensor, tensor.external)
                    outside.setdefault(name, []).append((offset, size))
        for name, ranges in outside.items():
            with suppress(ReadProblem), self._open(name) as source:
                source.prefetch(ranges)

    def read(self, tensor: Tensor) -> NDArray[Any]:
        """Return the values of a tensor, bfloat16 as float32; raises a `ReadProblem`."""
        if tensor.dtype not in _NUMPY:
            raise Unsupported(
                self._file.source.path,
                f"{tensor.name} holds elements of {tensor.dtype}, which are not read",
                "Check the model that it was exported from.",
            )
        dtype = np.dtype(_NUMPY[tensor.dtype])
        size = tensor.size * dtype.itemsize
        if tensor.external is not None:
            values = np.frombuffer(self._read_external(tensor, tensor.external, size), dtype)
        elif tensor.raw is not None:
            self._require_size(tensor, tensor.raw.size, size)
            values = np.frombuffer(self._read_inside(tensor.raw), dtype)
        else:
            values = self._read_fields(tensor, dtype)
        if tensor.dtype == "bfloat16":
            values = (values.astype("<u4") << 16).view("<f4")
        return values.reshape(tensor.shape)

    def _require_size(self, tensor: Tensor, stored: int, expected: int) -> None:
        if stored != expected:
            raise Corrupt(
                self._file.source.path,
                f"{tensor.name} of shape {list(tensor.shape)} takes {expected} bytes of"
                f" {tensor.dtype}, but {stored} are stored",
                "The file is damaged; export or copy it again.",
            )

    def _read_inside(self, place: Place) -> bytes:
        self._budget.take(place.size, self._file.source.path)
        return self._file.bytes_of(place, "the values of a tensor")

    def _read_fields(self, tensor: Tensor, dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return the values that are stored in the field of their type."""
        number = tensor.field or _FIELD_OF.get(tensor.dtype, _INT32_DATA)
        is_float = dtype.kind == "f" and dtype.itemsize > 2
        if not is_float and tensor.size > _MOST_INTEGERS:
            raise Unsupported(
                self._file.source.path,
                f"{tensor.name} has {tensor.size} elements as integers of any length",
                "No BN layer has so many; use another file.",
            )
        values = array("Q")
        chunks: list[bytes] = []
        self._budget.take(tensor.place.size, self._file.source.path)
        for field in self._file.fields(tensor.place):
            if field.number != number:
                continue
            if is_float:
                chunks.append(self._file.bytes_of(field.place, "the values of a tensor"))
                continue
            values.extend(islice(_numbers(self._file, field), tensor.size + 1 - len(values)))
        if values:
            # Negative numbers are 64-bit integers on the wire, whatever their type.
            stored = np.frombuffer(values, "<u8")
            chunks = [stored.astype(f"<u{dtype.itemsize}").tobytes()]
        data = b"".join(chunks)
        self._require_size(tensor, len(data), tensor.size * dtype.itemsize)
        return np.frombuffer(data, dtype)

    def _read_external(self, tensor: Tensor, entries: Mapping[str, str], expected: int) -> bytes:
        """Return the bytes of a tensor that another file holds."""
        name, offset, size = self._extent(tensor, entries)
        if "length" in entries:
            self._require_size(tensor, size, expected)
        with self._open(name) as source:
            self._budget.take(expected, source.path)
            return source.read(offset, expected, f"the values of {tensor.name}")

    def _extent(self, tensor: Tensor, entries: Mapping[str, str]) -> tuple[str, int, int]:
        """Return the file name, offset and length that external_data states; raises `Corrupt`."""
        numbers = [entries.get("offset", "0"), entries.get("length", "0")]
        if not all(
            number.isascii() and number.isdecimal() and len(number) < 20 for number in numbers
        ):
            raise self._file.corrupt(
                f"the external data of {tensor.name} has offset {numbers[0]!r} and length"
                f" {numbers[1]!r}"
            )
        return entries.get("location", ""), int(numbers[0]), int(numbers[1])

    def _open(self, name: str) -> Source:
        """Open the file of external data of a name; raises `Incomplete` if there is none.

        An exporter may write a file for each tensor, more than a process may keep open.
        """
        model = self._file.source.path
        path = filesystem.named_in(os.path.dirname(model), self._inside(name))
        try:
            source = Source(path)
        except NotFound as error:
            raise Incomplete(
                model,
                f"its values are in {name}, which does not exist",
                "Copy the files of external data too, to where the model names them.",
            ) from error
        if name not in self._granted:
            self._granted.add(name)
            self._budget.grant(source.size)
        return source

    def _inside(self, name: str) -> str:
        """Return the name of a file of external data; raises `Corrupt` if it may lie elsewhere.

        Only files in the model's directory or below it are opened.
        """
        below = filesystem.name_below(name)
        if below is None:
            raise Corrupt(
                self._file.source.path,
                f"its values are in {name!r}, which is not in the directory of the model",
                "No exporter writes this; use another file.",
            )
        return below
