"""Arrays of Zarr, version 2 and 3, as Orbax stores them: their shapes, types and values.

Formats: the Zarr specifications 2 and 3, tensorstore/driver/zarr/index.rst and zarr3/index.rst. The
metadata of an array is read and limited here. tensorstore then decodes the chunks, and it gets them
in memory: it opens no file and follows no reference.

A chunk that equals the fill value need not be stored. Orbax writes in `_METADATA` whether it stored
them nevertheless; then a missing one is damage.
"""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from bninspect.errors import Corrupt, Incomplete, NotFound, Unsupported
from bninspect.formats.orbax.ocdbt import DAMAGED, Database
from bninspect.storage import filesystem
from bninspect.storage.source import Budget, Source
from bninspect.wording import install_command

ZARR_2, ZARR_3 = ".zarray", "zarr.json"
_LARGEST_METADATA = 1 << 20  # bytes
_MOST_ELEMENTS = 1 << 24  # of an array that is read: a statistic has some thousand channels
_MOST_CHUNKS = 1 << 12
_MOST_DIMENSIONS = 32

_LETTERS = {"f": "float", "i": "int", "u": "uint", "c": "complex"}
_COMPRESSORS = {"zstd", "blosc", "gzip", "zlib", "bz2"}
_CODECS = {"bytes", "zstd", "blosc", "gzip", "crc32c", "transpose"}


class Store(Protocol):
    """A store of arrays by their names; `budget` limits the bytes of all values together."""

    budget: Budget

    def names(self) -> Iterator[str]:
        """Yield the keys of all values, such as `params.bn.scale/.zarray`."""

    def read(self, key: str, largest: int) -> bytes | None:
        """Return a value, of at most `largest` bytes; None if there is none."""


class Folder:
    """Arrays in a directory each: the keys are paths relative to `directory`."""

    def __init__(self, directory: str, budget: Budget) -> None:
        self._directory, self.budget = directory, budget

    def names(self) -> Iterator[str]:
        """Yield the keys of the metadata of arrays."""
        with suppress(OSError):
            for name, kind in filesystem.entries_in(self._directory):
                if kind != "file":
                    for metadata in (ZARR_2, ZARR_3):
                        if filesystem.is_file(os.path.join(self._directory, name, metadata)):
                            yield f"{name}/{metadata}"

    def read(self, key: str, largest: int) -> bytes | None:
        """Return the content of a file; None if there is none.

        Raises `Corrupt` if it has more than `largest` bytes.
        """
        name = filesystem.name_below(key)
        if name is None:
            return None
        path = os.path.join(self._directory, name)
        try:
            with Source(path) as source:
                if source.size > largest:
                    raise Corrupt(
                        path, f"it has {source.size} bytes, more than it can hold", DAMAGED
                    )
                self.budget.grant(source.size)
                return source.read(0, source.size, "the file")
        except NotFound:
            return None


class _Layout(NamedTuple):
    """The layout of an array, by its metadata.

    `spec` is the metadata as tensorstore gets it, without what is not known here. `separator` and
    `head` make the keys of chunks.
    """

    version: int
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: str
    item_size: int
    spec: Mapping[str, Any]
    head: str
    separator: str

    @property
    def chunk_count(self) -> int:
        """Return the number of chunks."""
        return math.prod(self._counts())

    def _counts(self) -> Iterator[int]:
        """Yield the number of chunks in each dimension."""
        return (-(-size // chunk) for size, chunk in zip(self.shape, self.chunks, strict=True))

    def chunk_keys(self) -> Iterator[str]:
        """Yield the keys of all chunks."""
        for indices in itertools.product(*map(range, self._counts())):
            numbers = [str(index) for index in indices]
            if self.head:
                yield self.separator.join([self.head, *numbers])
            else:
                yield self.separator.join(numbers) or "0"


class Array:
    """One array of a store; `path` is the checkpoint in messages, `name` the array's.

    `is_filled` says that the writer stored each chunk. Raises a `ReadProblem` if its metadata are
    missing or damaged, or ask for what is not supported.
    """

    def __init__(self, path: str, store: Store, name: str, *, is_filled: bool) -> None:
        self._path, self._store, self._name = path, store, name
        self._is_filled = is_filled
        self._layout = self._read_layout()

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape."""
        return self._layout.shape

    @property
    def dtype(self) -> str:
        """Return the element type, by TensorFlow's name."""
        return self._layout.dtype

    def _read_layout(self) -> _Layout:
        for parse, file in ((_zarr_3, ZARR_3), (_zarr_2, ZARR_2)):
            text = self._store.read(f"{self._name}/{file}", _LARGEST_METADATA)
            if text is None:
                continue
            try:
                return parse(json.loads(text))
            except (AttributeError, LookupError, TypeError, ValueError, RecursionError) as error:
                raise Corrupt(
                    self._path, f"the {file} of {self._name} is not valid", DAMAGED
                ) from error
            except NotImplementedError as error:
                raise Unsupported(
                    self._path,
                    f"the {file} of {self._name} asks for {error}, which is not supported",
                    "Save the checkpoint again with Orbax's usual options.",
                ) from error
        raise Incomplete(
            self._path,
            f"{self._name}, which its tree names, is not stored",
            "Copy all files of the checkpoint.",
        )

    def read(self) -> NDArray[Any]:
        """Return the values, bfloat16 as float32; raises a `ReadProblem`."""
        layout = self._layout
        elements = max(math.prod(layout.shape), math.prod(layout.chunks))
        if elements > _MOST_ELEMENTS or layout.chunk_count > _MOST_CHUNKS:
            raise Unsupported(
                self._path,
                f"{self._name} states {elements} elements in {layout.chunk_count} chunks, more"
                " than a member of a BN layer has",
                "If it has nothing to do with BN, give it another name.",
            )
        self._store.budget.take(elements * layout.item_size, self._path)
        chunks = dict(self._stored_chunks())
        values = _decode(self._path, self._name, layout, chunks)
        if values.dtype.name not in ("float16", "float32", "float64") and "float" in layout.dtype:
            values = values.astype(np.float32)
        return values

    def _stored_chunks(self) -> Iterator[tuple[str, bytes]]:
        """Yield the chunks that are stored, by their key below the array."""
        layout = self._layout
        whole = math.prod(layout.chunks) * layout.item_size
        for key in layout.chunk_keys():
            chunk = self._store.read(f"{self._name}/{key}", 2 * whole + _LARGEST_METADATA)
            if chunk is not None:
                yield key, chunk
            elif self._is_filled:
                raise Incomplete(
                    self._path,
                    f"a part of {self._name} ({key}) is missing",
                    "Copy all files of the checkpoint.",
                )


def _sizes(stored: Any, least: int) -> tuple[int, ...]:
    """Return the sizes of dimensions; raises ValueError or TypeError if they are none."""
    if not isinstance(stored, list) or len(stored) > _MOST_DIMENSIONS:
        raise ValueError
    for size in stored:
        if isinstance(size, bool) or not isinstance(size, int) or not least <= size < 1 << 63:
            raise ValueError
    return tuple(stored)


def _shapes(shape: Any, chunks: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the shapes of an array and of its chunks; raises as `_sizes`."""
    shapes = _sizes(shape, 0), _sizes(chunks, 1)
    if len(shapes[0]) != len(shapes[1]):
        raise ValueError
    return shapes


def _zarr_2(stored: Any) -> _Layout:
    shape, chunks = _shapes(stored["shape"], stored["chunks"])
    dtype, item_size = _type_2(stored["dtype"])
    compressor = stored.get("compressor")
    if compressor is not None and compressor["id"] not in _COMPRESSORS:
        raise NotImplementedError(f"the compressor {compressor['id']}")
    if stored.get("filters") is not None:
        raise NotImplementedError("filters")
    separator = stored.get("dimension_separator", ".")
    if stored["zarr_format"] != 2 or separator not in (".", "/"):
        raise ValueError
    known = ("zarr_format", "shape", "chunks", "dtype", "compressor", "fill_value", "order")
    spec = {key: stored[key] for key in known} | {
        "filters": None,
        "dimension_separator": separator,
    }
    return _Layout(2, shape, chunks, dtype, item_size, spec, "", separator)


def _type_2(stored: Any) -> tuple[str, int]:
    """Return the element type of a `.zarray`, `<f4` or `bfloat16`, and its size in bytes."""
    if stored == "bfloat16":
        return "bfloat16", 2
    if stored == "|b1":
        return "bool", 1
    order, letter, size = stored[0], stored[1], int(stored[2:])
    if order not in "<>|" or letter not in _LETTERS or size not in (1, 2, 4, 8, 16):
        raise NotImplementedError(f"elements of type {stored}")
    return f"{_LETTERS[letter]}{8 * size}", size


def _zarr_3(stored: Any) -> _Layout:
    grid = stored["chunk_grid"]
    shape, chunks = _shapes(stored["shape"], grid["configuration"]["chunk_shape"])
    dtype, item_size = _type_3(stored["data_type"])
    encoding = stored["chunk_key_encoding"]
    version_3 = encoding["name"] == "default"
    separator = (encoding.get("configuration") or {}).get("separator", "/" if version_3 else ".")
    if (
        stored["zarr_format"] != 3
        or stored["node_type"] != "array"
        or grid["name"] != "regular"
        or encoding["name"] not in ("default", "v2")
        or separator not in (".", "/")
    ):
        raise ValueError
    if stored.get("storage_transformers"):
        raise NotImplementedError("storage transformers")
    _check_codecs(stored["codecs"], chunks)
    known = ("zarr_format", "node_type", "shape", "data_type", "chunk_grid", "codecs", "fill_value")
    spec = {key: stored[key] for key in (*known, "chunk_key_encoding")}
    head = "c" if version_3 else ""
    return _Layout(3, shape, chunks, dtype, item_size, spec, head, separator)


def _type_3(stored: Any) -> tuple[str, int]:
    """Return the element type of a `zarr.json` and its size in bytes."""
    if stored == "bool":
        return "bool", 1
    bits = stored.lstrip("abcdefghijklmnopqrstuvwxyz").partition("_")[0]
    letters = stored[: len(stored) - len(stored.lstrip("abcdefghijklmnopqrstuvwxyz"))]
    if letters not in ("float", "bfloat", "int", "uint", "complex") or bits not in (
        *("4", "8", "16", "32", "64", "128"),
    ):
        raise NotImplementedError(f"elements of type {stored}")
    return stored, max(int(bits) // 8, 1)


def _check_codecs(codecs: Any, chunks: Sequence[int], *, is_shard: bool = False) -> None:
    """Raise NotImplementedError for codecs that are not known, ValueError for impossible ones."""
    for codec in codecs:
        name = codec["name"]
        if name == "sharding_indexed" and not is_shard:
            options = codec["configuration"]
            inner = _sizes(options["chunk_shape"], 1)
            if any(size % part for size, part in zip(chunks, inner, strict=True)):
                raise ValueError
            if math.prod(chunks) // math.prod(inner) > _MOST_CHUNKS:  # its index is of that size
                raise NotImplementedError("so many parts of a chunk")
            _check_codecs(options["codecs"], inner, is_shard=True)
            _check_codecs(options["index_codecs"], (), is_shard=True)
        elif name not in _CODECS:
            raise NotImplementedError(f"the codec {name}")


def require_tensorstore(path: str) -> None:
    """Raise `Unsupported` if tensorstore is not installed, or cannot be loaded."""
    error = _import_error()
    if error is not None:
        missing = isinstance(error, ModuleNotFoundError) and error.name == "tensorstore"
        fault = "is not installed" if missing else f"cannot be loaded ({error})"
        raise Unsupported(
            path,
            f"Orbax checkpoints are read with tensorstore, which {fault}",
            f"Install it with: {install_command('orbax')}.",
        ) from error


@cache
def _import_error() -> ImportError | None:
    """Import tensorstore, and return the error.

    Only once: a second attempt after one that failed aborts the process (its library sets the time
    zone of logs when it is loaded, which absl allows once: absl/log/internal/globals.cc).
    """
    try:
        import tensorstore  # noqa: F401
    except ImportError as error:
        return error
    return None


def _decode(path: str, name: str, layout: _Layout, chunks: Mapping[str, bytes]) -> NDArray[Any]:
    """Return the values of an array by its chunks, which are all of it that is stored."""
    import tensorstore

    context = tensorstore.Context(
        {
            "cache_pool": {"total_bytes_limit": 0},
            "data_copy_concurrency": {"limit": 1},
            "memory_key_value_store": {},
        }
    )
    metadata = ZARR_2 if layout.version == 2 else ZARR_3
    try:
        memory = tensorstore.KvStore.open({"driver": "memory"}, context=context).result()
        memory[metadata] = json.dumps(layout.spec).encode()
        for key, chunk in chunks.items():
            memory[key] = chunk
        driver = "zarr" if layout.version == 2 else "zarr3"
        spec = {"driver": driver, "kvstore": {"driver": "memory"}}
        opened = tensorstore.open(spec, context=context, open=True, read=True).result()
        values = np.asarray(opened.read().result())
    except (ValueError, TypeError, OverflowError) as error:
        raise Corrupt(path, f"the values of {name} cannot be decoded", DAMAGED) from error
    if values.shape != layout.shape:
        raise Corrupt(path, f"the values of {name} have another shape than it states", DAMAGED)
    return values


def open_store(directory: str, budget: Budget) -> Store:
    """Return the store of the arrays in a directory; raises a `ReadProblem`."""
    from bninspect.formats.orbax.ocdbt import MANIFEST

    if filesystem.is_file(os.path.join(directory, MANIFEST)):
        return Database(directory, budget)
    return Folder(directory, budget)
