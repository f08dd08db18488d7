"""Names that are left in a graph where a tool folded a BN layer into other operations.

tf.nn.batch_normalization calls its operations `batchnorm/mul`, `batchnorm/mul_1` and
`batchnorm/add_1` (tensorflow/python/ops/nn_impl.py), a kernel is called `FusedBatchNorm…`. Tools
that fold constants keep these names for what is left, or make names from them: the sum in the place
of a kernel has the kernel's name (tensorflow/tools/graph_transforms/fold_old_batch_norms.cc) or
adds a constant `…_bn_offset` (tensorflow/python/tools/optimize_for_inference_lib.py).
"""

from __future__ import annotations

import re
from functools import cache

KERNEL = r"FusedBatchNorm(?:V\d)?(?:_\d+)?"
KERNEL_OFFSET = rf"{KERNEL}/Offset"
ANY_PRODUCT = r"batchnorm(?:_\d+)?/mul(?:_\d+)?"
PRODUCT = r"batchnorm(?:_\d+)?/mul_1"  # of the input and the scale
SUM = r"batchnorm(?:_\d+)?/add_1"


def folded_layer(name: str, *leaves: str) -> str | None:
    """Return the layer of an operation or constant `LAYER/LEAF`; None if it has no such leaf.

    `leaves` are constants of this module. In ONNX the number of an output may follow. The name
    itself stands for a layer without a name.
    """
    match = _pattern(leaves).fullmatch(name)
    return None if match is None else match["layer"] or name


def layer_of_offset(name: str) -> str | None:
    """Return the layer of a constant `…_bn_offset` that optimize_for_inference made; else None."""
    return name.removesuffix("_bn_offset") if name.endswith("_bn_offset") else None


@cache
def _pattern(leaves: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(rf"(?s)(?:(?P<layer>.*)/)?(?:{'|'.join(leaves)})(?::\d+)?")
