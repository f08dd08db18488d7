"""What tests of readers share: TensorFlow as the oracle, refusals, reading with little memory."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import bninspect
from bninspect.errors import ReadProblem
from tests.conftest import ROOT
from tests.support.processes import PATIENCE

MEMORY = 200 << 20
SECONDS = 10  # of the processor's time
# Reads every variable with no more than so many bytes beyond what the imports took.
READ_ALL = """
import resource, sys
import cramjam, bninspect
from bninspect import errors
from bninspect.formats.tensorflow import v1_slices, v2_bundle

with open("/proc/self/statm") as file:
    taken = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + int(sys.argv[2]),) * 2)
resource.setrlimit(resource.RLIMIT_CPU, (int(sys.argv[3]),) * 2)
try:
    with bninspect.open_checkpoint(sys.argv[1]) as checkpoint:
        for variable in checkpoint.variables.values():
            variable.read()
    print("read")
except errors.ReadProblem as problem:
    print(type(problem).__name__, problem)
"""


def read(path: object, name: str = "x") -> np.ndarray:
    with bninspect.open_checkpoint(str(path)) as checkpoint:
        return checkpoint.variables[name].read()


def refused(
    path: object,
    kind: type[ReadProblem] | tuple[type[ReadProblem], ...],
    file: object,
    *words: str,
    name: str = "x",
) -> None:
    """Assert that reading `name` raises exactly `kind`, in one line with the file and `words`."""
    assert_refused(lambda: read(path, name), kind, file, *words)


def assert_refused(
    reading: Callable[[], object],
    kind: type[ReadProblem] | tuple[type[ReadProblem], ...],
    file: object,
    *words: str,
) -> ReadProblem:
    """Return the problem that a reading raises, of exactly `kind`, in one line with the file."""
    with pytest.raises(ReadProblem) as caught:
        reading()
    problem = caught.value
    assert type(problem) in (kind if isinstance(kind, tuple) else (kind,)), repr(problem)
    assert problem.path == str(file)
    assert str(problem).startswith(f"{file}: ")
    assert "\n" not in str(problem)
    assert len(problem.message) < 300
    for word in words:
        assert word in problem.message
    return problem


def assert_agrees_with_tensorflow(tf: Any, path: object, count: int, form: str = "tf-v2") -> None:
    """Compare all `count` variables with what TensorFlow restores: dtype, shape and every bit."""
    with bninspect.open_checkpoint(str(path)) as checkpoint:
        reader = tf.train.load_checkpoint(checkpoint.resolved)
        shapes, dtypes = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
        assert checkpoint.format == form
        assert sorted(checkpoint.variables) == sorted(shapes)
        assert len(checkpoint.variables) == count
        numbers = [name for name, dtype in dtypes.items() if dtype != tf.string]
        restored = tf.raw_ops.RestoreV2(
            prefix=checkpoint.resolved,
            tensor_names=numbers,
            shape_and_slices=[""] * len(numbers),
            dtypes=[dtypes[name] for name in numbers],
        )
        for name, variable in checkpoint.variables.items():
            assert variable.name == name
            assert list(variable.shape) == shapes[name]
            assert variable.dtype == dtypes[name].name
        for name, tensor in zip(numbers, restored, strict=True):
            ours, theirs = checkpoint.variables[name].read(), tensor.numpy()
            if dtypes[name] == tf.bfloat16:
                theirs = theirs.astype(np.float32)
            assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
            assert ours.dtype.isnative
            assert ours.tobytes() == theirs.tobytes()


def random_array(tf: Any, dtype: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Any bits at all, NaNs and infinities among them."""
    kind = tf.as_dtype(dtype).as_numpy_dtype
    rng = np.random.default_rng(seed)
    if dtype == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    count = int(np.prod(shape))
    return np.frombuffer(rng.bytes(count * np.dtype(kind).itemsize), kind).reshape(shape)


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def read_with_little(path: object, memory: int = MEMORY) -> str:
    """What happens when all is read with little memory: "read", or the problem's class and text."""
    done = subprocess.run(
        [sys.executable, "-c", READ_ALL, str(path), str(memory), str(SECONDS)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(done.stdout) < 2000
    return done.stdout.strip()
