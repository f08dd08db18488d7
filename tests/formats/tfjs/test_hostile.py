"""TensorFlow.js models that are damaged or made to mislead: one sentence, little memory."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bninspect import check, open_checkpoint
from bninspect.errors import ReadProblem
from tests.conftest import FIXTURES, ROOT
from tests.support.processes import PATIENCE

STEMS = sorted(path.name for path in FIXTURES.glob("tfjs*") if path.is_dir())
JSON = {stem: (FIXTURES / stem / "model.json").read_text(encoding="utf-8") for stem in STEMS}
SHARDS = {
    stem: {path.name: path.read_bytes() for path in (FIXTURES / stem).glob("*.bin")}
    for stem in STEMS
}
MEMORY = 250 << 20  # bytes; a check of anything takes some 45 MiB
CHECK = """
import re, resource, sys, bninspect
resource.setrlimit(resource.RLIMIT_CPU, (10, 10))
for report in bninspect.check(sys.argv[1]).checkpoints:
    print(report.error)
print(re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())[1])
"""


def read_all(path):
    """Judge a model and read all its values; a `ReadProblem` is fine, anything else is a defect."""
    check(str(path))
    try:
        with open_checkpoint(str(path)) as checkpoint:
            for variable in checkpoint.variables.values():
                with suppress(ReadProblem):
                    assert variable.read().shape == variable.shape
    except ReadProblem:
        return


def put(folder, stem, text, shards=None):
    folder.mkdir(exist_ok=True)
    (folder / "model.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    for name, data in (SHARDS[stem] if shards is None else shards).items():
        (folder / name).write_bytes(data)
    return folder / "model.json"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("model")


@given(st.data())
def test_flipped_and_cut_bytes(folder, data):
    """Any byte of the JSON may be another one, and any file may end early."""
    stem = data.draw(st.sampled_from(STEMS))
    text = bytearray(JSON[stem].encode())
    for _ in range(data.draw(st.integers(0, 3))):
        text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
    shards = {
        name: content[: data.draw(st.integers(0, len(content)))]
        if data.draw(st.booleans())
        else content
        for name, content in SHARDS[stem].items()
    }
    cut = data.draw(st.one_of(st.just(len(text)), st.integers(0, len(text))))
    read_all(put(folder / stem, stem, bytes(text[:cut]), shards))


VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(1 << 70), 1 << 70),
        st.floats(),
        st.text(max_size=5),
        st.sampled_from(
            ["float32", "string", "uint8", "bn1/gamma", "../x", "Identity", "model.json"]
        ),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


def places(node, path=()):
    """Yield the path to every value of a JSON document."""
    yield path
    if isinstance(node, dict | list):
        for key, child in node.items() if isinstance(node, dict) else enumerate(node):
            yield from places(child, (*path, key))


PLACES = {stem: [*places(json.loads(text))][1:] for stem, text in JSON.items()}


@given(st.data())
def test_any_value_may_be_another(folder, data):
    """Each value of the JSON, the manifest and the topology alike, may be of any type."""
    stem = data.draw(st.sampled_from(STEMS))
    contents = json.loads(JSON[stem])
    for _ in range(data.draw(st.integers(1, 3))):
        *path, last = data.draw(st.sampled_from(PLACES[stem]))
        node = contents
        try:
            for key in path:
                node = node[key]
            node[last] = data.draw(VALUES)
        except (TypeError, KeyError, IndexError):  # an earlier change removed it
            continue
    read_all(put(folder / stem, stem, json.dumps(contents)))


@given(st.data())
def test_dequantized_values_are_those_of_the_converter(folder, data):
    """As `dequantize_weights` of tensorflowjs/quantization.py: number * scale + min in float64."""
    dtype = data.draw(st.sampled_from(["uint8", "uint16"]))
    stored = data.draw(st.lists(st.integers(0, np.iinfo(dtype).max), max_size=8))
    finite = st.floats(-1e6, 1e6)
    scale, least = data.draw(finite), data.draw(finite)
    entry = {
        "name": "w",
        "shape": [len(stored)],
        "dtype": "float32",
        "quantization": {"dtype": dtype, "scale": scale, "min": least},
    }
    contents = {
        "modelTopology": None,
        "weightsManifest": [{"paths": ["weights.bin"], "weights": [entry]}],
    }
    array = np.array(stored, dtype)
    path = put(folder / "q", "", json.dumps(contents), {"weights.bin": array.tobytes()})
    with open_checkpoint(str(path)) as checkpoint:
        expected = (array.astype("f8") * scale + least).astype("f4")
        np.testing.assert_array_equal(checkpoint.variables["w"].read(), expected)


@pytest.mark.processes
@pytest.mark.parametrize(
    ("group", "shard"),
    [
        ({"name": "bn/moving_mean", "shape": [1 << 40], "dtype": "float32"}, b"\0" * 8),
        ({"name": "bn/moving_mean", "shape": [1 << 40], "dtype": "string"}, b"\0" * 8),
        ({"name": "bn/moving_mean", "shape": [1 << 21], "dtype": "string"}, b"\0" * (1 << 23)),
        ({"name": "bn/moving_mean", "shape": [2], "dtype": "string"}, b"\xff" * 64),
        ({"name": "bn/moving_mean", "shape": [1 << 62, 0], "dtype": "float32"}, b""),
    ],
    ids=["values", "strings", "many strings", "a long string", "nothing"],
)
def test_claims_cost_nothing(tmp_path, group, shard):
    contents = {
        "format": "layers-model",
        "modelTopology": None,
        "weightsManifest": [{"paths": ["weights.bin"], "weights": [group]}],
    }
    path = put(tmp_path, "", json.dumps(contents), {"weights.bin": shard})
    done = subprocess.run(
        [sys.executable, "-c", CHECK, str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout.splitlines()[-1]) << 10 < MEMORY


def test_a_topology_that_is_nested_without_end(tmp_path):
    text = JSON["tfjs_layers_correct"]
    deep = '{"class_name": "Model", "config": {"layers": [' * 3000 + "]}}" * 3000
    start = text.index('"modelTopology": ') + len('"modelTopology": ')
    end = text.index(', "weightsManifest"')
    path = put(tmp_path, "tfjs_layers_correct", text[:start] + deep + text[end:])
    (report,) = check(str(path)).checkpoints
    assert report.error is not None
    assert report.error.kind == "corrupt"
