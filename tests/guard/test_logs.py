"""The code of docs/guard.md that logs a training, with the libraries that it logs to."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.documents.test_documents import TRAINING
from tests.support.documents import blocks

pytestmark = pytest.mark.framework

GUARD = ROOT / "docs" / "guard.md"

# The numbers of a step are those of the run once another one begins.
READ_SUMMARY = """
run.log({}, step=2)
logged = dict(run.summary)
for name, number in bninspect.scalars(guard.layers).items():
    assert logged[name] == number, name
for layer in guard.layers:
    for role, values in layer.values.items():
        histogram = logged[f"{layer.name}/{role}"]
        assert histogram["_type"] == "histogram"
        assert sum(histogram["values"]) == values.channels
print(len(logged), "of Weights & Biases")
"""
READ_EVENTS = """
import pathlib
from tensorflow.python.summary.summary_iterator import summary_iterator
(path,) = pathlib.Path("logs").iterdir()
logged = {
    (event.step, value.tag): tf.make_ndarray(value.tensor)
    for event in summary_iterator(str(path))
    for value in event.summary.value
}
for name, number in bninspect.scalars(guard.layers).items():
    assert logged[1, name] == numpy.float32(number), name
    assert (0, name) in logged
for layer in guard.layers:
    for role, values in layer.values.items():
        buckets = logged[1, f"{layer.name}/{role}"]
        assert buckets[:, 2].sum() == values.channels
print(len(logged), "of TensorBoard")
"""


@pytest.mark.parametrize(
    ("library", "last", "reads"),
    [
        ("wandb", "run.finish()\n", READ_SUMMARY + "run.finish()\n"),
        ("tf.summary", "writer.close()\n", "writer.close()\n" + READ_EVENTS),
    ],
    ids=["Weights & Biases", "TensorBoard"],
)
def test_the_libraries_get_the_numbers(library: str, last: str, reads: str, tmp_path: Path) -> None:
    (block,) = [one.text for one in blocks(GUARD, "python") if library in one.text]
    assert block.endswith(last)
    done = subprocess.run(
        [sys.executable, "-c", TRAINING + block.removesuffix(last) + reads],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "WANDB_SILENT": "true"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert " of " in done.stdout.splitlines()[-1]
