"""HDF5 from afar: in how many rounds it comes, and that looking ahead changes no result.

A round is what is fetched at once; the next can only begin when it is here.
"""

from __future__ import annotations

import contextlib
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import h5py
import numpy as np
import pytest
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st

from bninspect.cli.main import run as run_program
from bninspect.errors import ReadProblem
from bninspect.formats.hdf5 import prefetch
from bninspect.formats.hdf5.file import Hdf5
from bninspect.storage.remote import cache, stores
from bninspect.storage.remote.ranges import Range
from bninspect.storage.run_scope import begin_run
from bninspect.storage.source import Window
from tests.conftest import Run, load_fixture
from tests.support.servers import Folder

MEMBERS = ("gamma", "beta", "moving_mean", "moving_variance")
LAYERS = 150
KERNEL = 24 << 10  # bytes; with the optimizer's, 7 MB
FORMS = ("model.h5", "model.weights.h5", "model.keras")


def vectors(number: int) -> dict[str, Any]:
    """The variables of a BN layer."""
    random = np.random.default_rng(number)
    return {name: random.uniform(0.5, 2, 16).astype(np.float32) for name in MEMBERS}


def kernel() -> Any:
    """The variable of a convolution."""
    return np.ones(KERNEL // 4, np.float32)


def write_legacy(path: Path) -> None:
    """Many layers as Keras 2 stores them, and their optimizer (keras_h5.py)."""
    with h5py.File(path, "w") as file:
        weights, names = file.create_group("model_weights"), []
        for number in range(LAYERS):
            convolution, norm = f"conv_{number}", f"conv_{number}_bn"
            names += [convolution, norm]
            weights[f"{convolution}/{convolution}/kernel:0"] = kernel()
            weights[convolution].attrs["weight_names"] = [f"{convolution}/kernel:0"]
            for name, values in vectors(number).items():
                weights[f"{norm}/{norm}/{name}:0"] = values
            weights[norm].attrs["weight_names"] = [f"{norm}/{name}:0" for name in MEMBERS]
        weights.attrs["layer_names"] = names
        slots = file.create_group("optimizer_weights/SGD")
        slots["iter:0"] = np.array(7)
        for number in range(LAYERS):
            slots[f"conv_{number}_momentum:0"] = kernel()
        file["optimizer_weights"].attrs["weight_names"] = [f"SGD/{name}" for name in slots]


def write_weights(path: Path) -> None:
    """The same as Keras 3 stores them (keras_weights.py)."""
    with h5py.File(path, "w") as file:
        for number in range(LAYERS):
            file[f"layers/conv2d_{number}/vars/0"] = kernel()
            group = file.create_group(f"layers/batch_normalization_{number}/vars")
            group.attrs["name"] = f"norm_{number}"
            for index, values in enumerate(vectors(number).values()):
                group[str(index)] = values
        file["optimizer/vars/0"] = np.array(7)
        for number in range(LAYERS):
            file[f"optimizer/vars/{number + 1}"] = kernel()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each of the forms, of 7 MB."""
    folder = tmp_path_factory.mktemp("forms")
    write_legacy(folder / "model.h5")
    write_weights(folder / "model.weights.h5")
    with zipfile.ZipFile(folder / "model.keras", "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.8.0"}))
        archive.writestr("config.json", json.dumps({"class_name": "Functional", "config": {}}))
        archive.write(folder / "model.weights.h5", "model.weights.h5")
    return folder


@pytest.fixture
def rounds(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[list[Range]]]:
    """The ranges of each round, while a test runs."""
    found: list[list[Range]] = []
    send = stores.fetch

    def fetch(url: str, ranges: list[Range], known: stores.Info) -> list[bytes]:
        found.append(ranges)
        return send(url, ranges, known)

    monkeypatch.setattr(stores, "fetch", fetch)
    begin_run()
    yield found
    begin_run()


@pytest.mark.servers
@pytest.mark.parametrize("name", FORMS)
def test_rounds_grow_with_the_depth_alone(
    folder: Path, rounds: list[list[Range]], run: Run, name: str
) -> None:
    """Beside them there are two: the first that tells the size, the last that it is the same."""
    with Folder(folder) as server:
        there = run("check", f"{server.url}/{name}", "--format", "json")
        sent = server.sent
        here = run("check", folder / name, "--format", "json")
        expected = here.out.replace('"verified": true', '"verified": false')  # of 7 MB
        assert there.out.replace(server.url, str(folder)) == expected
    (found,) = here.json["checkpoints"]
    assert len(found["layers"]) == LAYERS
    assert found["step"] == 7
    assert len(rounds) <= 8
    assert sent < 0.35 * (folder / name).stat().st_size


# --- Whatever the bytes are -----------------------------------------------------------------------


def report(place: str) -> str:
    """What a check says."""
    with contextlib.redirect_stdout(io.StringIO()) as out, pytest.raises(SystemExit):
        run_program(["check", place, "--format", "json", "--isolated"])
    return out.getvalue()


@pytest.mark.slow
@settings(deadline=None)
@drawn(
    st.sampled_from(["keras2_functional_correct", "keras3_history_weights", "keras3_zip_nested"]),
    st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), max_size=8),
)
def test_damage_is_told_as_of_a_file(
    tmp_path_factory: pytest.TempPathFactory, stem: str, damage: list[tuple[int, int]]
) -> None:
    path = load_fixture(stem).path
    data = bytearray(path.read_bytes())
    for at, byte in damage:
        data[at % len(data)] = byte
    copy = tmp_path_factory.mktemp("damaged") / path.name
    copy.write_bytes(data)
    fsspec.filesystem("memory").pipe_file(f"/damaged/{path.name}", bytes(data))
    begin_run()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache, "_SMALL", 0)  # else it comes whole
        patch.setattr(stores, "head_of", lambda _url: 64)
        patch.setattr(cache, "_BLOCK", 512)
        patch.setattr(prefetch, "_BLOCK", 512)
        patch.setattr(prefetch, "_LARGE_BLOCK", 512)
        patch.setattr(cache, "_LEAST_WASTE", 0)
        there = report(f"memory://damaged/{path.name}")
    assert there.replace("memory://damaged", str(copy.parent)) == report(str(copy))


@pytest.mark.slow
@drawn(st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), max_size=8))
def test_looks_end_whatever_they_find(damage: list[tuple[int, int]]) -> None:
    data = bytearray(load_fixture("keras3_history_weights").path.read_bytes())
    for at, byte in damage:
        data[at % len(data)] = byte
    here: set[int] = set()
    window = Window(lambda at, length: bytes(data[at : at + length]), len(data))
    window.is_fetched = lambda at, length: here >= set(range(at, at + length))
    window.prefetch = lambda places: here.update(*(range(at, at + n) for at, n in places))
    with contextlib.suppress(ReadProblem):
        file = Hdf5("model.weights.h5", window)
        file.prefetch_looks([file.groups_below("", "name")])
    assert window.misses is None
    assert all(0 <= at < len(data) for at in here)
