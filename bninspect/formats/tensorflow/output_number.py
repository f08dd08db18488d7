"""Numbers of outputs in the references by which the nodes of a graph name their inputs."""

from __future__ import annotations

_LONGEST_NUMBER = 10  # digits
# In functions an output is referred to by the name of its argument (tensorflow/core/ops/nn_ops.cc,
# control_flow_ops.cc); outputs of other operations are numbered by the last part.
_OUTPUTS = {b"batch_mean": 1, b"batch_variance": 2, b"output_true": 1, b"value_index": 1}


def output_number(reference: bytes) -> int:
    """Return the number of the output in a reference such as `a`, `a:1` and `a:batch_mean:0`."""
    parts = reference.split(b":")
    is_number = len(parts) > 1 and parts[-1].isdigit() and len(parts[-1]) < _LONGEST_NUMBER
    last = int(parts[-1]) if is_number else 0
    return last + _OUTPUTS.get(parts[1], 0) if len(parts) > 2 else last
