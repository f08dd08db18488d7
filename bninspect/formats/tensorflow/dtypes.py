"""Element types and shapes of tensors, which V1 and V2 checkpoints store in the same way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bninspect.errors import Corrupt, ReadProblem
from bninspect.formats.tensorflow.bundle_messages import MessageError, parse_shape

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MAX_RANK = 254  # TensorShape::MaxDimensions (tensorflow/core/framework/tensor_shape.h)

# DataType of tensorflow/core/framework/types.proto: TensorFlow's name and numpy's type on disk.
# bfloat16, unknown to numpy, is the upper half of a float32. None: values are not read.
DTYPES: dict[int, tuple[str, str | None]] = {
    1: ("float32", "f4"),
    2: ("float64", "f8"),
    3: ("int32", "i4"),
    4: ("uint8", "u1"),
    5: ("int16", "i2"),
    6: ("int8", "i1"),
    7: ("string", None),
    8: ("complex64", "c8"),
    9: ("int64", "i8"),
    10: ("bool", "?"),
    11: ("qint8", "i1"),
    12: ("quint8", "u1"),
    13: ("qint32", "i4"),
    14: ("bfloat16", "u2"),
    15: ("qint16", "i2"),
    16: ("quint16", "u2"),
    17: ("uint16", "u2"),
    18: ("complex128", "c16"),
    19: ("float16", "f2"),
    20: ("resource", None),
    21: ("variant", None),
    22: ("uint32", "u4"),
    23: ("uint64", "u8"),
}


def read_shape(path: str, encoded: bytes, name: str) -> tuple[int, ...]:
    """Return the shape in the TensorShapeProto of a variable; raises `Corrupt`, naming `path`."""
    try:
        shape, is_unknown = parse_shape(encoded)
    except MessageError as error:
        raise corrupt(path, f"the entry of {name} cannot be parsed") from error
    if len(shape) > _MAX_RANK:
        raise corrupt(path, f"the entry of {name} has {len(shape)} dimensions")
    if is_unknown or min(shape, default=0) < 0:
        raise corrupt(path, f"the entry of {name} has the impossible shape {list(shape)}")
    return shape


def widened(array: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Return bfloat16 numbers as float32, which holds them exactly; other arrays as they are."""
    if dtype != "bfloat16":
        return array
    wide: NDArray[Any] = (array.astype(np.uint32) << 16).view(np.float32)
    return wide


def corrupt(path: str, fault: str) -> ReadProblem:
    """Return the error for a damaged file of a checkpoint."""
    return Corrupt(
        path, fault, "The file is damaged; copy it again or use another checkpoint of the run."
    )
