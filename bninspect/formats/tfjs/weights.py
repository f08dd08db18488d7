"""The values of a TensorFlow.js model: bytes in shards, read and dequantized when asked for.

The bytes of a group are those of its shards, one behind the other, cut anywhere (write_weights.py).
A string is its length in 4 bytes and its text, so what follows strings is found by reading them.
"""

from __future__ import annotations

import os
import struct
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bninspect.errors import Corrupt, Incomplete, NotFetched, NotFound, ReadProblem, Unsupported
from bninspect.formats.tfjs.manifest import DTYPES, Group, Manifest, Weight
from bninspect.model.checkpoint import Variable
from bninspect.storage import filesystem
from bninspect.storage.source import Budget, Source, prefetch_all

_LENGTH = struct.Struct("<I")  # of a string
_BLOCK = 1 << 18  # bytes that are read at once to find the ends of strings
_MOST_OPEN = 32  # shards that are kept open


class _Place(NamedTuple):
    """Where the bytes of a weight lie in its group; `end` is None if a missing shard hides it."""

    weight: Weight
    shards: _Shards
    start: int | None
    end: int | None


class TfjsWeights:
    """The weights of one model as variables; all shards are looked at, none is read.

    `path` is that of the JSON. `problem` is why values cannot be read: a shard that is missing or
    too short. Raises `Corrupt` if the shards hold more than the manifest counts.
    """

    def __init__(self, path: str, manifest: Manifest) -> None:
        self.path = path
        self._files = _OpenFiles()
        self._budget = Budget()
        self._places: dict[str, _Place] = {}
        self.problem: ReadProblem | None = None
        for group in manifest.groups:
            shards = _Shards(path, group.paths, self._files)
            self._budget.grant(shards.size)
            self._locate(group, shards)
            self.problem = self.problem or shards.problem

    def _locate(self, group: Group, shards: _Shards) -> None:
        """Find the place of each weight of a group; sets the problem of its shards."""
        at: int | None = 0
        for weight in group.weights:
            start, at = at, None if at is None else shards.end_of(weight, at)
            self._places[weight.name] = _Place(weight, shards, start, at)
        if at is not None and shards.problem is None:
            shards.require_end(at)

    @property
    def names(self) -> list[str]:
        """Return the name of each weight in the order of the manifest."""
        return [*self._places]

    def variable(self, name: str) -> Variable:
        """Return a weight as a variable of the type of its values."""
        place = self._places[name]
        weight = place.weight
        quantized = weight.quantization and weight.quantization.dtype
        load = partial(self._read, place)
        return Variable(name, weight.shape, weight.dtype, load, quantized=quantized)

    def _read(self, place: _Place) -> NDArray[Any]:
        weight = place.weight
        stored = DTYPES[weight.quantization.dtype if weight.quantization else weight.dtype]
        if stored is None:
            raise Unsupported(
                self.path, f"{weight.name} holds strings", "bninspect reads numbers only."
            )
        data = place.shards.read(place)
        self._budget.take(max(len(data), weight.size * 4), self.path)
        return _decoded(weight, np.frombuffer(data, stored)).reshape(weight.shape)

    # The looks of an HDF5 file are those at its structure: here the manifest has it all.
    def look_at(self, name: str) -> None:
        """Do nothing: the manifest says where the values of a weight are."""

    def prefetch_looks(self, looks: Iterable[object]) -> None:
        """Do nothing, as `look_at`."""

    def prefetch(self, names: Iterable[str]) -> None:
        """Prefetch the values of some weights (remote files only)."""
        places = (self._places[name] for name in names if name in self._places)
        ranges: dict[str, list[tuple[int, int]]] = {}
        for place in places:
            if place.end is not None and place.start is not None:
                for path, offset, length in place.shards.pieces(place.start, place.end):
                    ranges.setdefault(path, []).append((offset, length))
        self._files.prefetch(ranges)

    def close(self) -> None:
        """Close all shards."""
        self._files.close()


def _decoded(weight: Weight, stored: NDArray[Any]) -> NDArray[Any]:
    """Return the values of a weight from what is stored (quantization.py, dequantize_weights)."""
    quantization = weight.quantization
    if quantization is None:
        return stored.astype(bool) if weight.dtype == "bool" else stored
    if quantization.dtype == "float16":
        return stored.astype(np.float32)
    with np.errstate(all="ignore"):
        values = stored.astype(np.float64) * quantization.scale + quantization.minimum
        if weight.dtype == "int32":
            values = np.nan_to_num(np.round(values))
            return np.clip(values, -(2.0**31), 2.0**31 - 1).astype(np.int32)
        return values.astype(np.float32)


class _OpenFiles:
    """The shards that are open; the oldest is closed when there are too many."""

    def __init__(self) -> None:
        self._open: dict[str, Source] = {}

    def source(self, path: str) -> Source:
        """Return an open shard; raises as `Source` does."""
        if path not in self._open:
            if len(self._open) >= _MOST_OPEN:
                self._open.pop(next(iter(self._open))).close()
            self._open[path] = Source(path)
        return self._open[path]

    def prefetch(self, ranges: Mapping[str, list[tuple[int, int]]]) -> None:
        """Prefetch ranges of some shards, which are known to be there."""
        paths = [*ranges]
        for first in range(0, len(paths), _MOST_OPEN):
            some = paths[first : first + _MOST_OPEN]
            prefetch_all([(self.source(path), ranges[path]) for path in some])

    def close(self) -> None:
        """Close all."""
        for source in self._open.values():
            source.close()
        self._open.clear()


class _Shards:
    """The shards of a group as one row of bytes.

    `size` counts the bytes up to the first shard that is missing; `problem` says which that is, or
    that the bytes are too few.
    """

    def __init__(self, json_path: str, names: tuple[str, ...], files: _OpenFiles) -> None:
        self._json_path = json_path
        self._files = files
        self._paths: list[str] = []
        self.problem: ReadProblem | None = None
        sizes = []
        for name in names:
            path = filesystem.named_in(os.path.dirname(json_path), name)
            size = self._size_of(path)
            if size is None:
                break
            self._paths.append(path)
            sizes.append(size)
        self._starts = [0, *accumulate(sizes)]
        self.size = self._starts[-1]

    def _size_of(self, path: str) -> int | None:
        try:
            return self._files.source(path).size
        except NotFound:
            self.problem = Incomplete(
                path,
                "this shard of the weights is missing",
                f"Put it beside {os.path.basename(self._json_path)}.",
            )
        except NotFetched as problem:  # the manifest alone still gives the names
            self.problem = Incomplete(path, problem.message, problem.hint)
        return None

    def end_of(self, weight: Weight, start: int) -> int | None:
        """Return where the bytes of a weight end; None if that is beyond what is there."""
        stored = DTYPES[weight.quantization.dtype if weight.quantization else weight.dtype]
        if stored is not None:
            end: int | None = start + weight.size * np.dtype(stored).itemsize
        else:
            end = self._end_of_strings(start, weight.size)
        if end is not None and end <= self.size:
            return end
        self.problem = self.problem or self._too_short(weight.name)
        return None

    def _too_short(self, name: str) -> ReadProblem:
        path = self._paths[-1] if self._paths else self._json_path
        return Incomplete(
            path,
            f"the shards of its group end after {self.size} bytes, before {name} does",
            "A shard was cut short or belongs to another model; copy all of them again.",
        )

    def _end_of_strings(self, start: int, count: int) -> int | None:
        if start + count * _LENGTH.size > self.size:
            return None
        block, block_start = b"", start
        for _ in range(count):
            if start + _LENGTH.size > block_start + len(block):
                if start + _LENGTH.size > self.size:
                    return None
                block_start, end = start, min(start + _BLOCK, self.size)
                block = self._bytes(start, end)
            (length,) = _LENGTH.unpack_from(block, start - block_start)
            start += _LENGTH.size + length
        return start

    def require_end(self, end: int) -> None:
        """Raise `Corrupt` if there are bytes behind those of the last weight."""
        if end < self.size:
            raise Corrupt(
                self._json_path,
                f"its manifest counts {end} bytes of weights, and their shards have {self.size}",
                "The files belong to different models; copy all of them again.",
            )

    def read(self, place: _Place) -> bytes:
        """Return the bytes of a weight; raises `Incomplete` if they are not there."""
        if place.start is None or place.end is None:
            raise self.problem or self._too_short(place.weight.name)
        return self._bytes(place.start, place.end)

    def _bytes(self, start: int, end: int) -> bytes:
        return b"".join(
            self._files.source(path).read(offset, length, "a weight")
            for path, offset, length in self.pieces(start, end)
        )

    def pieces(self, start: int, end: int) -> Iterator[tuple[str, int, int]]:
        """Yield the path, the offset and the length of each part of some bytes."""
        number = max(bisect_right(self._starts, start) - 1, 0)
        while start < end:
            stop = min(end, self._starts[number + 1])
            if stop > start:
                yield self._paths[number], start - self._starts[number], stop - start
            start, number = stop, number + 1
