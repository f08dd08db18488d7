"""Copies with new statistics: byte by byte, by the frameworks, refused, and interrupted."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import bninspect
from bninspect.errors import BninspectError, Unsupported, UsageProblem
from bninspect.recalibrate.writing import copies, require_writable, write_statistics
from bninspect.recalibrate.writing.values import rounded
from tests.conftest import FIXTURE_STEMS, FIXTURES, Fixture, load_fixture, unmeasured_environment
from tests.support.processes import SIGNALS_AS_IN_A_TERMINAL
from tests.support.table_writer import write_bundle

STATISTICS = ("moving_mean", "moving_variance")
DTYPES = ("float16", "bfloat16", "float32", "float64")
# Files whose statistics were never written, or lie compressed: there are no bytes to replace.
REFUSED = (
    *("keras3_h5_not_written", "keras3_weights_sharded", "keras3_zip_custom_loop_stuck"),
    "saved_model_tf1_constants",
)
REFUSED_FORMATS = ("onnx", "tf-v1", "tfjs", "graph-def", "orbax")


def new_values(fixture: Fixture) -> dict[str, np.ndarray]:
    """Return new statistics for every layer of a fixture, by the stored name."""
    random = np.random.default_rng(7)
    return {
        layer["stored"][role]: random.uniform(0.1, 3, layer["channels"])
        for layer in fixture.expected["layers"]
        for role in STATISTICS
        if layer["stored"][role]
    }


def copy_of(fixture: Fixture, directory: Path) -> Path:
    """Return the path of a copy with new statistics; it has the ending of its source."""
    with bninspect.open_checkpoint(str(fixture.path)) as checkpoint:
        is_file = checkpoint.format.startswith("keras")
        ending = "".join(Path(checkpoint.resolved).suffixes) if is_file else ""
        output = directory / f"copy{ending}"
        write_statistics(checkpoint, output, new_values(fixture))
    return output


def is_written(fixture: Fixture) -> bool:
    return fixture.expected["format"] not in REFUSED_FORMATS and fixture.stem not in REFUSED


def written(*formats: str) -> list[str]:
    """Return the fixtures of some formats that have statistics and of which copies are written."""
    fixtures = [load_fixture(stem) for stem in FIXTURE_STEMS]
    return [
        fixture.stem
        for fixture in fixtures
        if fixture.expected["format"] in formats and is_written(fixture) and new_values(fixture)
    ]


def files_below(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


# --- Bytes ----------------------------------------------------------------------------------------


@st.composite
def bundles(draw: st.DrawFn) -> dict[str, Any]:
    """Return a checkpoint of some variables, new values of some of them, and how it is written."""
    size = draw(st.integers(1, 40))
    names = draw(st.lists(st.text("ab/_é", min_size=1, max_size=9), min_size=1, unique=True))
    random = np.random.default_rng(draw(st.integers(0, 999)))

    def array(dtype: str) -> np.ndarray:
        values = random.normal(0, 9, (size, 1) if draw(st.booleans()) else size)
        return values.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)

    variables = {name: array(draw(st.sampled_from(DTYPES))) for name in names}
    chosen = draw(st.lists(st.sampled_from(names), unique=True))
    cut = draw(st.integers(0, size))
    ends = [(0, cut), (cut, size - cut)]
    return {
        "variables": variables,
        "new": {name: random.normal(0, 9, variables[name].shape) for name in chosen},
        "written": {
            "shards": draw(st.integers(1, 3)),
            "big_endian": draw(st.booleans()),
            "block_size": draw(st.sampled_from((1, 200, 4096))),
            "restart_interval": draw(st.integers(1, 16)),
            "slices": {
                name: [(end, *[None] * (variables[name].ndim - 1)) for end in ends]
                for name in names[: draw(st.integers(0, 2))]
                if 0 < cut < size
            },
        },
    }


@given(bundle=bundles())
def test_a_bundle_is_as_if_written_with_the_new_values(
    bundle: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The writer of the tests shares no code with bninspect; TensorFlow reads what it writes."""
    directory = tmp_path_factory.mktemp("bundles")
    before, new = bundle["variables"], bundle["new"]
    after = {
        name: new[name].astype(np.float32).astype(array.dtype)
        if array.dtype == ml_dtypes.bfloat16 and name in new
        else new.get(name, array).astype(array.dtype)
        for name, array in before.items()
    }
    write_bundle(directory / "model", before, **bundle["written"])
    (directory / "expected").mkdir()
    write_bundle(directory / "expected" / "copy", after, **bundle["written"])
    (directory / "model.meta").write_bytes(b"graph")
    (directory / "expected" / "copy.meta").write_bytes(b"graph")
    with bninspect.open_checkpoint(str(directory / "model")) as checkpoint:
        write_statistics(checkpoint, directory / "copy", new)
    expected = files_below(directory / "expected")
    assert {name: (directory / name).read_bytes() for name in expected} == expected


def test_new_statistics_are_read_from_every_container(fixture: Fixture, tmp_path: Path) -> None:
    if not is_written(fixture):
        with pytest.raises(Unsupported):
            copy_of(fixture, tmp_path)
        assert not any(tmp_path.iterdir())
        return
    before = files_below(FIXTURES / fixture.stem)
    output = copy_of(fixture, tmp_path)
    assert files_below(FIXTURES / fixture.stem) == before
    with bninspect.open_checkpoint(str(output)) as copy:
        for name, values in new_values(fixture).items():
            dtype = copy.variables[name].dtype
            dtype = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.dtype(dtype)
            found = copy.variables[name].read().ravel()
            np.testing.assert_array_equal(found, values.astype(dtype).astype(found.dtype))


@pytest.mark.parametrize("stem", written("keras-h5", "keras-weights-h5"))
def test_an_hdf5_file_differs_in_the_statistics_alone(stem: str, tmp_path: Path) -> None:
    fixture = load_fixture(stem)
    output = copy_of(fixture, tmp_path)
    places = set(statistics_bytes(output, new_values(fixture)))
    assert different(fixture.path, output) <= places


@pytest.mark.parametrize("stem", written("keras-zip"))
def test_an_archive_differs_in_the_statistics_and_their_checksums(
    stem: str, tmp_path: Path
) -> None:
    fixture = load_fixture(stem)
    output = copy_of(fixture, tmp_path)
    assert different(fixture.path, output) <= archive_places(output, new_values(fixture), tmp_path)
    with zipfile.ZipFile(output) as archive:
        assert archive.testzip() is None


class _Pipe:
    """A stream that knows no positions."""

    content = b""

    def write(self, data: bytes) -> int:
        self.content += bytes(data)
        return len(data)

    def flush(self) -> None:
        pass


def test_an_archive_that_was_written_to_a_pipe(tmp_path: Path) -> None:
    """Its checksum stands behind the member, in a data descriptor."""
    fixture = load_fixture("keras3_zip_nested")
    piped = tmp_path / "piped.keras"
    pipe = _Pipe()
    with zipfile.ZipFile(fixture.path) as source, zipfile.ZipFile(pipe, "w") as archive:
        for name in source.namelist():
            archive.writestr(name, source.read(name))
    piped.write_bytes(pipe.content)
    with zipfile.ZipFile(piped) as archive:
        assert archive.getinfo("model.weights.h5").flag_bits & 8
    output = tmp_path / "copy.keras"
    with bninspect.open_checkpoint(str(piped)) as checkpoint:
        write_statistics(checkpoint, output, new_values(fixture))
    with zipfile.ZipFile(output) as archive:
        assert archive.testzip() is None
        member = archive.getinfo("model.weights.h5")
    end = member.header_offset + 30 + len(member.filename) + member.file_size
    descriptor = output.read_bytes()[end : end + 8]
    assert descriptor == b"PK\x07\x08" + member.CRC.to_bytes(4, "little")


def statistics_bytes(path: Path, values: Mapping[str, object]) -> Iterator[int]:
    """Yield the offset of each byte of some datasets, by the HDF5 library."""
    with h5py.File(path) as file:
        for name in values:
            offset = file[name].id.get_offset()
            yield from range(offset, offset + file[name].nbytes)


def archive_places(path: Path, values: Mapping[str, object], directory: Path) -> set[int]:
    """Return the offsets of the bytes of statistics and of the checksums of their member."""
    content = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo("model.weights.h5")
        archive.extract(member, directory)
    start = content.index((directory / member.filename).read_bytes())
    entry = content.rindex(b"PK\x01\x02", 0, content.rindex(member.filename.encode()))
    checksums = [*range(member.header_offset + 14, member.header_offset + 18)]
    checksums += range(entry + 16, entry + 20)
    inner = statistics_bytes(directory / member.filename, values)
    return {*checksums, *(start + at for at in inner)}


def different(one: Path, other: Path) -> set[int]:
    before, after = (np.frombuffer(path.read_bytes(), np.uint8) for path in (one, other))
    assert before.size == after.size
    return {*np.flatnonzero(before != after).tolist()}


# --- The frameworks -------------------------------------------------------------------------------


@pytest.mark.framework
@pytest.mark.parametrize("stem", written("tf-v2", "tf-object", "saved-model"))
def test_tensorflow_reads_the_copy(stem: str, tmp_path: Path) -> None:
    """It verifies the checksum of every block of the index and of every tensor that it reads."""
    import tensorflow as tf

    fixture = load_fixture(stem)
    output = copy_of(fixture, tmp_path)
    with bninspect.open_checkpoint(str(fixture.path)) as checkpoint:
        prefixes = [checkpoint.resolved, str(output)]
    if fixture.expected["format"] == "saved-model":
        inside = "variables" if stem == "saved_model_tf1_flat" else "variables/variables"
        prefixes = [f"{prefix}/{inside}" for prefix in prefixes]
    source, copy = (tf.train.load_checkpoint(prefix) for prefix in prefixes)
    assert source.get_variable_to_dtype_map() == copy.get_variable_to_dtype_map()
    new = new_values(fixture)
    for name in source.get_variable_to_shape_map():
        found, before = copy.get_tensor(name), source.get_tensor(name)
        if name in new:
            np.testing.assert_array_equal(found.ravel(), new[name].astype(found.dtype))
        elif isinstance(before, bytes):
            assert found == before
        else:
            assert np.asarray(found).tobytes() == np.asarray(before).tobytes()


@pytest.mark.framework
@pytest.mark.parametrize("stem", ["keras3_zip_nested", "keras3_nested_correct"])
def test_keras_loads_the_copy(stem: str, tmp_path: Path) -> None:
    import keras

    fixture = load_fixture(stem)
    before = keras.models.load_model(fixture.path, compile=False)
    after = keras.models.load_model(copy_of(fixture, tmp_path), compile=False)
    new = [*new_values(fixture).values()]
    assert new
    for old, variable in zip(before.weights, after.weights, strict=True):
        values = np.asarray(variable)
        if old.name.startswith("moving"):
            assert any(np.array_equal(values, one.astype(values.dtype)) for one in new)
        else:
            assert values.tobytes() == np.asarray(old).tobytes()


@pytest.mark.framework
@pytest.mark.parametrize("stem", ["saved_model_keras2_traced", "saved_model_keras3_export"])
def test_tensorflow_loads_the_copy_of_a_saved_model(stem: str, tmp_path: Path) -> None:
    import tensorflow as tf

    fixture = load_fixture(stem)
    output = copy_of(fixture, tmp_path)
    assert not (output / "fingerprint.pb").exists()
    loaded = tf.saved_model.load(str(output))
    found = [variable.numpy() for variable in loaded.variables if "moving" in variable.name]
    new = [values.astype("f4") for values in new_values(fixture).values()]
    assert len(found) >= len(new) > 0
    assert all(any(np.array_equal(one, other) for other in found) for one in new)


@pytest.mark.framework
def test_tensorflow_1_loads_the_copy_of_a_saved_model(tmp_path: Path) -> None:
    import tensorflow as tf

    fixture = load_fixture("saved_model_tf1_stuck")
    output = copy_of(fixture, tmp_path)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.compat.v1.saved_model.load(session, ["serve"], str(output))
        for name, values in new_values(fixture).items():
            np.testing.assert_array_equal(session.run(f"{name}:0"), values.astype("f4"))


# --- Refusals -------------------------------------------------------------------------------------


def refused(path: Path | str, output: Path | str, values: Mapping[str, Any] | None = None) -> str:
    """Return the sentence with which a copy is refused."""
    with (
        bninspect.open_checkpoint(str(path)) as checkpoint,
        pytest.raises(BninspectError) as problem,
    ):
        write_statistics(checkpoint, output, values or {})
    return str(problem.value)


def test_an_output_that_exists_is_refused(tmp_path: Path) -> None:
    keras, tensorflow, saved_model = (
        load_fixture(stem)
        for stem in ("keras3_zip_nested", "tf1_graph_correct", "saved_model_tf1_stuck")
    )
    (tmp_path / "model.keras").write_text("mine")
    assert "Refusing to overwrite" in refused(keras.path, tmp_path / "model.keras")
    os.symlink(tmp_path / "nowhere", tmp_path / "link.keras")
    assert "Refusing to overwrite" in refused(keras.path, tmp_path / "link.keras")
    (tmp_path / "model.meta").write_text("mine")
    assert "Refusing to overwrite" in refused(tensorflow.path, tmp_path / "model")
    assert "Refusing to overwrite" in refused(saved_model.path, tmp_path)
    assert files_below(tmp_path) == {"model.keras": b"mine", "model.meta": b"mine"}


@pytest.mark.parametrize(
    "stem",
    ["keras3_zip_nested", "keras3_nested_correct", "tf1_graph_correct", "saved_model_tf1_stuck"],
)
def test_the_source_is_never_the_output(stem: str, tmp_path: Path) -> None:
    shutil.copytree(FIXTURES / stem, tmp_path / stem)
    fixture = load_fixture(stem)
    source = tmp_path / stem / fixture.expected["checkpoint"]
    before = files_below(tmp_path)
    assert "Refusing to overwrite" in refused(source, source)
    assert files_below(tmp_path) == before


def test_a_copy_within_the_saved_model_is_refused(tmp_path: Path) -> None:
    shutil.copytree(FIXTURES / "saved_model_tf1_stuck", tmp_path / "model")
    assert "it is in the SavedModel" in refused(tmp_path / "model", tmp_path / "model" / "copy")


@pytest.mark.parametrize(
    ("stem", "output", "sentence"),
    [
        ("keras3_zip_nested", "copy.h5", "the copy needs .keras"),
        ("keras2_functional_correct", "copy.keras", "the copy needs .h5 or .hdf5"),
        ("keras3_weights_lookalikes", "copy.h5", "the copy needs .weights.h5"),
        ("keras3_nested_correct", "copy", "the copy needs .h5 or .hdf5"),
        ("tf1_graph_correct", "copy.index", "needs a prefix"),
        ("tf1_graph_correct", "missing/copy", "there is no directory"),
        ("tf1_graph_correct", "copy/", "not of a directory"),
        ("tf1_graph_v1", "copy", "cannot be replaced in a V1 checkpoint"),
        ("keras3_weights_sharded", "copy.weights.h5", "sharded"),
        ("keras3_zip_custom_loop_stuck", "copy.keras", "is compressed"),
    ],
)
def test_what_is_not_written(stem: str, output: str, sentence: str, tmp_path: Path) -> None:
    fixture = load_fixture(stem)
    copy = f"{tmp_path}/{output}"
    assert sentence in refused(fixture.path, copy)
    with (
        bninspect.open_checkpoint(str(fixture.path)) as checkpoint,
        pytest.raises((Unsupported, UsageProblem), match=sentence),
    ):
        require_writable(checkpoint, copy)
    assert not any(tmp_path.iterdir())


def test_a_url_is_refused() -> None:
    fixture = load_fixture("keras3_zip_nested")
    assert "it is a URL" in refused(fixture.path, "s3://bucket/copy.keras")


@pytest.mark.parametrize(
    "stored",
    [
        {"chunks": (4,)},
        {"chunks": (4,), "compression": "gzip"},
        {"chunks": (4,), "fletcher32": True},
    ],
)
def test_datasets_in_chunks_are_refused(stored: dict[str, Any], tmp_path: Path) -> None:
    fixture = load_fixture("keras3_nested_correct")
    path = tmp_path / "model.h5"
    shutil.copy(fixture.path, path)
    [name, *_] = new_values(fixture)
    with h5py.File(path, "r+") as file:
        values = file[name][()]
        del file[name]
        file.create_dataset(name, data=np.resize(values, values.shape), **stored)
    assert "not stored in one piece" in refused(path, tmp_path / "copy.h5", new_values(fixture))
    with (
        bninspect.open_checkpoint(str(path)) as checkpoint,
        pytest.raises(Unsupported, match="not stored in one piece"),
    ):
        require_writable(checkpoint, tmp_path / "copy.h5", [name])


def test_a_compressed_index_is_refused(tmp_path: Path) -> None:
    values = np.arange(8, dtype="f4")
    write_bundle(tmp_path / "model", {"bn/moving_mean": values}, compress=True)
    sentence = refused(tmp_path / "model", tmp_path / "copy", {"bn/moving_mean": values + 1})
    assert "is compressed" in sentence


def test_numbers_that_the_stored_type_lacks_are_refused(tmp_path: Path) -> None:
    values = np.ones(8, "f2")
    write_bundle(tmp_path / "model", {"bn/moving_variance": values})
    new = {"bn/moving_variance": np.full(8, 7e4)}
    assert "70000, does not fit into float16" in refused(tmp_path / "model", tmp_path / "copy", new)


@given(bits=st.lists(st.integers(0, 0x7F7F7FFF), min_size=1))
def test_bfloat16_is_rounded_as_its_library_rounds(bits: list[int]) -> None:
    values = np.array(bits, np.uint32).view(np.float32)
    stored = rounded("model", "bn/moving_mean", values, "bfloat16")
    np.testing.assert_array_equal(stored, values.astype(ml_dtypes.bfloat16).view(np.uint16))


def test_variables_that_share_bytes_are_refused(tmp_path: Path) -> None:
    """A change of the one would be one of the other."""
    from dataclasses import replace

    from tests.support.table_writer import write_index

    values = np.ones(8, "f4")
    variables = {"bn/moving_mean": values, "kernel": values}
    entries = write_bundle(tmp_path / "model", variables)
    entries[b"kernel"] = replace(entries[b"kernel"], offset=entries[b"bn/moving_mean"].offset)
    write_index(tmp_path / "model", entries)
    before = files_below(tmp_path)
    sentence = refused(tmp_path / "model", tmp_path / "copy", {"bn/moving_mean": values + 1})
    assert "kernel fails its checksum" in sentence
    assert files_below(tmp_path) == before


# --- Interruptions --------------------------------------------------------------------------------

WRITTEN = ("keras3_zip_nested", "tf1_graph_correct", "saved_model_tf1_stuck")


@pytest.mark.parametrize("stem", WRITTEN)
@pytest.mark.parametrize("place", ["shutil.copyfile", "os.fsync", "os.rename"])
@pytest.mark.parametrize("call", range(4))
def test_an_interrupted_copy_leaves_nothing(
    stem: str, place: str, call: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The interrupt comes after what the call has done, at each of the first calls."""
    module, name = place.split(".")
    real: Callable[..., Any] = getattr(getattr(copies, module), name)
    calls = iter(range(99))

    def interrupted(*arguments: Any, **options: Any) -> Any:
        result = real(*arguments, **options)
        if next(calls) == call:
            raise KeyboardInterrupt
        return result

    fixture = load_fixture(stem)
    monkeypatch.setattr(getattr(copies, module), name, interrupted)
    try:
        copy_of(fixture, tmp_path)
    except KeyboardInterrupt:
        assert not any(tmp_path.iterdir())
    else:
        assert next(calls) <= call


def test_what_another_program_writes_in_between_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "copy"

    def refused_rename(_: Path, target: Path) -> None:
        target.mkdir()
        (target / "theirs").touch()
        raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))

    monkeypatch.setattr(copies.os, "rename", refused_rename)
    with pytest.raises(UsageProblem, match="not empty"):
        copy_of(load_fixture("saved_model_tf1_stuck"), tmp_path)
    assert (output / "theirs").exists()


def test_the_index_comes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of a program that is killed between two files: without an index it is no checkpoint."""
    renamed = []
    real = os.rename
    monkeypatch.setattr(
        copies.os, "rename", lambda one, other: (renamed.append(Path(other).name), real(one, other))
    )
    copy_of(load_fixture("tf1_graph_correct"), tmp_path)
    assert len(renamed) > 2
    assert renamed[-1] == "copy.index"


@pytest.mark.processes
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_terminated_program_leaves_nothing(number: int, tmp_path: Path) -> None:
    script = f"""{SIGNALS_AS_IN_A_TERMINAL}
import os, bninspect
from pathlib import Path
from bninspect.recalibrate.writing import copies, write_statistics
copies.os.fsync = lambda _: os.kill(os.getpid(), {int(number)})
with bninspect.open_checkpoint({str(load_fixture("tf1_graph_correct").path)!r}) as checkpoint:
    write_statistics(checkpoint, Path({str(tmp_path / "copy")!r}), {{}})
"""
    done = subprocess.run([sys.executable, "-c", script], env=unmeasured_environment(), check=False)
    assert done.returncode == 128 + number
    assert not any(tmp_path.iterdir())


def test_a_copy_that_is_not_read_back_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a disk that loses bytes."""
    real = shutil.copyfile

    def lossy(source: str, target: str) -> None:
        real(source, target)
        with open(target, "r+b") as file:
            file.seek(-9, os.SEEK_END)
            byte = file.read(1)
            file.seek(-9, os.SEEK_END)
            file.write(bytes([byte[0] ^ 1]))

    monkeypatch.setattr(copies.shutil, "copyfile", lossy)
    for stem in WRITTEN:
        with pytest.raises(BninspectError):
            copy_of(load_fixture(stem), tmp_path)
    assert not any(tmp_path.iterdir())
