"""Keras files that are small and ask for much: memory, time, open files."""

from __future__ import annotations

import contextlib
import json
import re
import resource
import struct
import subprocess
import sys
import zipfile
import zlib

import h5py
import numpy as np
import pytest

from bninspect import check, open_checkpoint
from bninspect.errors import Corrupt, ReadProblem
from bninspect.formats.hdf5.file import Hdf5
from bninspect.storage.source import Window
from tests.conftest import FIXTURES, ROOT
from tests.support.processes import PATIENCE

MEMORY = 200 << 20  # bytes; a check of anything takes some 45 MiB
SECONDS = 10  # of the processor's time
CHECK = """
import re, resource, sys, bninspect
resource.setrlimit(resource.RLIMIT_CPU, (int(sys.argv[2]),) * 2)
for report in bninspect.check(sys.argv[1]).checkpoints:
    print(report.error)
print(re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())[1])
"""
BN = "layers/batch_normalization"

with zipfile.ZipFile(FIXTURES / "keras3_zip_nested" / "model.keras") as archive:
    MEMBERS = {name: archive.read(name) for name in archive.namelist()}


def assert_small(path, words):
    """Check a file in a process of its own: refused with these words, in little memory."""
    done = subprocess.run(
        [sys.executable, "-c", CHECK, str(path), str(SECONDS)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    error, peak = done.stdout.splitlines()
    assert re.search(words, error), error
    assert int(peak) << 10 < MEMORY


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.weights.h5"


def write(path, **options):
    """One BN layer with a name of variable length, as Keras writes it."""
    with h5py.File(path, "w", **options) as file:
        below = file.create_group(f"{BN}/vars")
        for number in range(4):
            below[str(number)] = np.arange(3, dtype="float32") + number + 0.5
        below.attrs["name"] = "bn"
    return path


# --- Texts of variable length ---------------------------------------------------------------------


def descriptor(data, length):
    """Where the bytes lead to a text of this length: length, address of a heap, number in it."""
    at = data.index(struct.pack("<I", length))
    while data[int.from_bytes(data[at + 4 : at + 12], "little") :][:4] != b"GCOL":
        at = data.index(struct.pack("<I", length), at + 1)
    return at


@pytest.mark.processes
def test_a_text_that_claims_a_length(path):
    data = bytearray(write(path).read_bytes())
    at = descriptor(data, 2)
    data[at : at + 4] = struct.pack("<I", 0xFFFFFFF0)
    path.write_bytes(data)
    assert_small(path, "a text of 4294967280 bytes that is not stored")


@pytest.mark.parametrize("options", [{}, {"libver": "latest"}, {"track_order": True}], ids=str)
def test_texts_are_those_that_hdf5_reads(path, options):
    names = ["bn", "größer", "", "x" * 5000, "a longer name"]
    groups = [name or "none" for name in names]
    with h5py.File(path, "w", **options) as file:
        file.attrs.create("backend", "tensorflow")
        file.attrs.create("layer_names", groups, dtype=h5py.string_dtype())
        for group in groups:
            file.create_group(group, track_order=True).attrs["weight_names"] = names[:3]
            for name in filter(None, names[:3]):
                file[f"{group}/{name}"] = np.zeros(1)
    with h5py.File(path) as file:
        expected = list(file.attrs["layer_names"])
        assert list(file["bn"].attrs["weight_names"]) == names[:3]
    with contextlib.closing(Hdf5(str(path))) as found:
        assert found.text_list("", "layer_names") == expected == groups
        assert found.texts("", "backend") == ["tensorflow"]
        for group in groups:
            assert found.text_list(group, "weight_names") == names[:3]


def test_texts_behind_a_user_block(path, tmp_path):
    """Addresses count from its end; zip archives alone get that far."""
    data = write(path, userblock_size=512).read_bytes()
    [report] = check(packed(tmp_path, config="{}", model=data)).checkpoints
    assert [layer.name for layer in report.layers] == ["bn"]


@pytest.mark.processes
def test_one_text_told_many_times(path):
    """Each is stored and no larger than the heap; all together would take gigabytes."""
    with h5py.File(path, "w") as file:
        file.attrs.create("layer_names", ["x" * 1_000_000] + [""] * 4000, dtype=h5py.string_dtype())
    data = bytearray(path.read_bytes())
    at = descriptor(data, 1_000_000)
    data[at : at + 4001 * 16] = data[at : at + 16] * 4001
    path.write_bytes(data)
    assert_small(path, "texts too large")


def test_texts_outside_of_the_header(path):
    """More than eight attributes of the newest layout lie in a heap of their own."""
    with h5py.File(write(path, libver="latest"), "r+", libver="latest") as file:
        for number in range(20):
            file[f"{BN}/vars"].attrs[f"more{number}"] = number
    [report] = check(path).checkpoints
    assert [layer.name for layer in report.layers] == ["bn"]


@pytest.mark.processes
def test_a_large_configuration(tmp_path):
    path = tmp_path / "model.h5"
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = np.array([], "S1")
        file.attrs["model_config"] = "[" + "{}," * (6 << 20) + "{}]"
    assert_small(path, "texts too large")


def test_an_empty_attribute_says_nothing(path):
    with h5py.File(write(path), "r+") as file:
        file[f"{BN}/vars"].attrs["name"] = h5py.Empty("S1")
    [report] = check(path).checkpoints
    assert report.error is None
    assert [layer.name for layer in report.layers] == [BN]


# --- Values ---------------------------------------------------------------------------------------


def deflated(path, length, claimed, **options):
    """A layer whose variances lie in a chunk of `claimed` elements that unpacks to `length`."""
    with h5py.File(write(path), "r+") as file:
        del file[f"{BN}/vars/3"]
        dataset = file[f"{BN}/vars"].create_dataset(
            "3", (3,), "float32", chunks=(claimed,), maxshape=(None,), compression="gzip", **options
        )
        packer = zlib.compressobj(9)
        chunk = b"".join(packer.compress(bytes(1 << 22)) for _ in range(length >> 22))
        dataset.id.write_direct_chunk((0,), chunk + packer.flush())
    return path


@pytest.mark.processes
def test_values_whose_chunk_is_larger(path):
    assert_small(deflated(path, 256 << 20, 1 << 26), "claim far more bytes than are stored")


@pytest.mark.processes
def test_a_chunk_that_unpacks_to_more(path):
    """HDF5 unpacks to the end whatever the chunk should hold."""
    assert_small(deflated(path, 256 << 20, 1024), "unpacks to too much")
    assert_small(deflated(path, 256 << 20, 1024, shuffle=True), "unpacks to too much")


def shards(path, count, layers):
    """A checkpoint of `count` files, each written by `layers`, which returns their groups."""
    stored = {}
    for number in range(count):
        shard = path.with_name(f"model_{number:05d}.weights.h5")
        with h5py.File(shard, "w") as file:
            stored |= {f"/{group}/vars": shard.name for group in layers(file, number)}
    path.write_text(json.dumps({"weight_map": stored}))
    return path


@pytest.mark.processes
def test_shards_that_are_filled_in(tmp_path):
    """No single one claims too much."""

    def layers(file, number):
        groups = [f"{BN}_{number * 100 + index}" for index in range(14)]
        for group in groups:
            for name in "0123":
                file.create_dataset(
                    f"{group}/vars/{name}", (1 << 18,), "float32", chunks=(1024,), fillvalue=1.5
                )
        return groups

    assert_small(
        shards(tmp_path / "model.weights.json", 8, layers), "claim far more bytes than are stored"
    )


def one_bn(file, number):
    group = f"{BN}_{number}"
    for name in "0123":
        file[f"{group}/vars/{name}"] = np.arange(3, dtype="float32") + 0.5
    return [group]


def test_variables_keep_nothing_open(tmp_path):
    """To close a file h5py visits all that is open: many shards would take time by their square."""
    map_path = shards(tmp_path / "model.weights.json", 5, one_bn)
    before = h5py.h5f.get_obj_count(types=h5py.h5f.OBJ_DATASET | h5py.h5f.OBJ_GROUP)
    with open_checkpoint(str(map_path)) as checkpoint:
        variables = list(checkpoint.variables.values())
        assert len([variable.read() for variable in variables]) == 20
        after = h5py.h5f.get_obj_count(types=h5py.h5f.OBJ_DATASET | h5py.h5f.OBJ_GROUP)
    # Of each file at most the group that was asked last.
    assert after - before <= 5


def test_more_shards_than_files_may_be_open(tmp_path):
    map_path = shards(tmp_path / "model.weights.json", 40, one_bn)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with open("/dev/null", "rb") as file:
        resource.setrlimit(resource.RLIMIT_NOFILE, (file.fileno() + 20, hard))
        try:
            with pytest.raises(ReadProblem, match="Too many open files") as caught:
                open_checkpoint(str(map_path))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert not isinstance(caught.value, Corrupt)
    assert "damaged" not in str(caught.value)


# --- Archives -------------------------------------------------------------------------------------


def packed(tmp_path, **changes):
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in MEMBERS.items():
            file.writestr(name, changes.get(name.partition(".")[0], data))
    return path


@pytest.mark.processes
@pytest.mark.parametrize(
    "member",
    [{"config": "[" + "{}," * (5 << 20) + "1]"}, {"model": bytes(80 << 20)}],
    ids=["config", "weights"],
)
def test_members_that_unpack_to_much(tmp_path, member):
    assert_small(packed(tmp_path, **member), "claims to unpack")


def test_a_configuration_that_packs_well_is_read(tmp_path):
    """That of a ResNet-152 shrinks to a fiftieth."""
    config = json.loads(MEMBERS["config.json"])
    config["config"]["layers"] += config["config"]["layers"] * 100
    [report] = check(packed(tmp_path, config=json.dumps(config))).checkpoints
    assert report.error is None


@pytest.mark.processes
@pytest.mark.parametrize("name", MEMBERS)
def test_a_member_that_claims_to_take_much(tmp_path, name):
    """zipfile of Python 3.10 allocates what the directory of the archive says."""
    path = packed(tmp_path)
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as file:
        at = file.start_dir
    while data[at + 46 :][: len(name)] != name.encode():
        at = data.index(b"PK\x01\x02", at + 4)
    data[at + 20 : at + 24] = struct.pack("<I", 0xFFFFFFFE)
    path.write_bytes(data)
    assert_small(path, "4294967294 bytes at offset|not where the archive says")


def test_a_window_reads_what_is_left():
    window = Window(lambda at, length: b"0123456789"[at : at + length], 10)
    window.seek(7)
    assert window.read(1 << 62) == b"789"
    assert window.read(5) == b""
    window.seek(2)
    assert (window.read(3), window.tell(), window.read()) == (b"234", 5, b"56789")
