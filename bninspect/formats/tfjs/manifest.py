"""The JSON of a TensorFlow.js model: its topology, and the manifest of its weights.

    {"format": "layers-model" | "graph-model", "generatedBy": …, "convertedBy": …,
     "modelTopology": a Keras configuration, or a GraphDef as JSON,
     "weightsManifest": [{"paths": [SHARD, …], "weights": [{"name": …, "shape": […], "dtype": …,
        "quantization": {"dtype": "uint8", "scale": …, "min": …}}, …]}, …]}

Sources: tfjs-core/src/io/types.ts and tfjs-converter/python/tensorflowjs/write_weights.py of
tensorflow/tfjs. Only shards in the JSON's own directory, or below it, are opened.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, TypeGuard

from bninspect.errors import Corrupt, ReadProblem, UnknownFormat, Unsupported
from bninspect.storage.filesystem import name_below
from bninspect.storage.json_file import read_json

_MAX_JSON = 32 << 20  # bytes
_MAX_SHARDS = 10_000
_MAX_RANK = 32  # numpy's own limit before 2.0
_DAMAGED = "The file is damaged; convert the model again."

# numpy's type on disk (DTYPE_VALUE_SIZE_MAP of types.ts; write_weights.py writes numpy's own bytes
# on machines that are little-endian). The elements of strings have no fixed size.
DTYPES: Mapping[str, str | None] = {
    "float32": "<f4",
    "float16": "<f2",
    "int32": "<i4",
    "uint16": "<u2",
    "uint8": "u1",
    "bool": "u1",
    "complex64": "<c8",
    "string": None,
}
_QUANTIZED = ("uint8", "uint16", "float16")


class Quantization(NamedTuple):
    """The quantization of a weight: a stored number stands for number * `scale` + `minimum`.

    `dtype` is uint8 or uint16, or float16, which has neither (quantization.py of the converter).
    """

    dtype: str
    scale: float = 1.0
    minimum: float = 0.0


class Weight(NamedTuple):
    """One entry of the manifest; `dtype` is that of the values, not of what is stored."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    quantization: Quantization | None = None

    @property
    def size(self) -> int:
        """Return the number of elements, which the JSON may claim to be of any size."""
        return math.prod(self.shape)


class Group(NamedTuple):
    """Weights whose bytes lie one behind the other in some shards."""

    paths: tuple[str, ...]
    weights: tuple[Weight, ...]


class Manifest(NamedTuple):
    """The JSON of a model: its groups of weights, and its topology as it is stored."""

    topology: Any
    groups: tuple[Group, ...]

    @property
    def quantizations(self) -> list[str]:
        """Return the types to which weights are quantized."""
        weights = (weight for group in self.groups for weight in group.weights)
        return sorted({weight.quantization.dtype for weight in weights if weight.quantization})


def read_manifest(path: str) -> Manifest:
    """Return the JSON of a model; raises a `ReadProblem` if it is not one, or is damaged."""
    contents = read_json(path, "the JSON of a model", _MAX_JSON, _DAMAGED)
    groups = contents.get("weightsManifest") if isinstance(contents, dict) else None
    if not isinstance(groups, list):
        raise UnknownFormat(
            path,
            "this is JSON, but not a TensorFlow.js model (it has no weightsManifest)",
            "Check that it is the right file.",
        )
    manifest = Manifest(contents.get("modelTopology"), tuple(_group(path, one) for one in groups))
    if sum(len(group.paths) for group in manifest.groups) > _MAX_SHARDS:
        raise Corrupt(path, f"it names more than {_MAX_SHARDS} shards", _DAMAGED)
    _require_unique_names(path, manifest.groups)
    return manifest


def _require_unique_names(path: str, groups: tuple[Group, ...]) -> None:
    """Raise `Corrupt` if two weights have one name, which the converter refuses to write."""
    names: set[str] = set()
    for group in groups:
        for weight in group.weights:
            if weight.name in names:
                raise Corrupt(path, f"its manifest has {weight.name} more than once", _DAMAGED)
            names.add(weight.name)


def _group(path: str, stored: Any) -> Group:
    paths = stored.get("paths") if isinstance(stored, dict) else None
    weights = stored.get("weights") if isinstance(stored, dict) else None
    if not isinstance(paths, list) or not isinstance(weights, list):
        raise Corrupt(path, "a group of its manifest has no list of paths or of weights", _DAMAGED)
    return Group(
        tuple(_shard_name(path, name) for name in paths),
        tuple(_weight(path, weight) for weight in weights),
    )


def _shard_name(path: str, name: Any) -> str:
    """Return the name of a shard; raises `Corrupt` if it leads out of the model's directory."""
    shard = name_below(name) if isinstance(name, str) else None
    if shard is None:
        raise Corrupt(
            path,
            f"it names {name!r}, which is not a file in its own directory or below it",
            "TensorFlow.js never writes this; use another file.",
        )
    return shard


def _weight(path: str, stored: Any) -> Weight:
    if not isinstance(stored, dict) or not isinstance(stored.get("name"), str):
        raise Corrupt(path, "its manifest has a weight without a name", _DAMAGED)
    name: str = stored["name"]
    shape, dtype = stored.get("shape"), stored.get("dtype")
    if not _is_shape(shape):
        raise Corrupt(path, f"{name} has no possible shape in its manifest", _DAMAGED)
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise _unknown_type(path, name, dtype)
    quantization = stored.get("quantization")
    return Weight(
        name,
        tuple(shape),
        dtype,
        None if quantization is None else _quantization(path, name, dtype, quantization),
    )


def _is_shape(shape: Any) -> TypeGuard[list[int]]:
    if not isinstance(shape, list) or len(shape) > _MAX_RANK:
        return False
    return all(type(size) is int and 0 <= size < 1 << 63 for size in shape)


def _quantization(path: str, name: str, dtype: str, stored: Any) -> Quantization:
    kind = stored.get("dtype") if isinstance(stored, dict) else None
    if not isinstance(kind, str) or kind not in _QUANTIZED:
        raise _unknown_type(path, name, kind)
    if dtype not in ("float32", "int32"):  # decodeWeights of io_utils.ts
        raise Corrupt(path, f"{name} is quantized, and holds {dtype} elements", _DAMAGED)
    if kind == "float16":
        return Quantization(kind)
    numbers = [*_numbers(stored, "scale", "min")]
    if len(numbers) < 2:
        raise Corrupt(path, f"{name} is quantized without a scale and a minimum", _DAMAGED)
    return Quantization(kind, *numbers)


def _numbers(stored: Mapping[str, Any], *names: str) -> Iterator[float]:
    for name in names:
        value = stored.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            try:
                yield float(value)
            except OverflowError:  # JSON's integers have no limit
                return


def _unknown_type(path: str, name: str, dtype: Any) -> ReadProblem:
    return Unsupported(
        path,
        f"{name} is stored as {dtype!r}, a type that bninspect does not know",
        "Convert the model again, with the tensorflowjs of today.",
    )
