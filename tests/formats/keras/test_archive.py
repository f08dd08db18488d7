"""Keras archives: read in place, told from other zips, and archives made to do harm."""

from __future__ import annotations

import contextlib
import io
import json
import os
import zipfile

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bninspect import check, find_layers, list_layers, open_checkpoint
from bninspect.errors import Corrupt, ReadProblem, UnknownFormat, Unsupported
from bninspect.formats.keras import archive
from bninspect.storage import source
from bninspect.storage.remote import stores
from tests.conftest import FIXTURES

SOUND = FIXTURES / "keras3_zip_nested" / "model.keras"
with zipfile.ZipFile(SOUND) as opened:
    MEMBERS = {name: opened.read(name) for name in opened.namelist()}
CONFIG = json.loads(MEMBERS["config.json"])


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.keras"


def write(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return path


def read(path):
    with open_checkpoint(str(path)) as checkpoint:
        return {
            layer.name: {role: one.read().tobytes() for role, one in layer.variables.items()}
            for layer in find_layers(checkpoint)
        }


EXPECTED = read(SOUND)


def refused(path, kind, words):
    with pytest.raises(kind, match=words) as caught:
        read(path)
    assert str(path) == caught.value.path
    assert check(path).checkpoints[0].error is not None


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_stored_or_deflated(path, compression):
    assert read(write(path, MEMBERS, compression)) == EXPECTED
    assert len(EXPECTED) == 5


def test_what_else_lies_in_the_archive_is_left_alone(path, tmp_path):
    more = {"assets/vocabulary.txt": "a", "../evil": "b", "/etc/evil": "c"}
    assert read(write(path, more | MEMBERS)) == EXPECTED
    assert os.listdir(tmp_path) == ["model.keras"]
    assert not (tmp_path.parent / "evil").exists()


def test_a_large_archive_form(path):
    with zipfile.ZipFile(path, "w") as file:
        for name, data in MEMBERS.items():
            with file.open(name, "w", force_zip64=True) as member:
                member.write(data)
    assert read(path) == EXPECTED


def test_only_what_is_needed_is_read(path, monkeypatch):
    ballast = os.urandom(4 << 20)
    write(path, MEMBERS | {"assets/ballast": ballast})
    taken = []
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda *a: taken.append(a[1]) or pread(*a))
    assert read(path) == EXPECTED
    assert sum(taken) < len(ballast) / 2


def test_the_configuration_of_each_layer():
    [report] = list_layers(SOUND).checkpoints
    assert [(layer.name, layer.momentum, layer.trainable) for layer in report.layers] == [
        ("encoder/enc_bn1", 0.9, True),
        ("encoder/enc_bn2", 0.9, True),
        ("bn_out", 0.9, True),
        ("bn_plain", 0.9, True),
        ("steps/bn_step", 0.8, True),
    ]


def test_code_in_the_configuration_is_not_run(path, tmp_path):
    trap = {
        "module": "os",
        "class_name": "system",
        "config": {"name": "trap", "function": f"touch {tmp_path}/ran"},
        "registered_name": "os>system",
    }
    config = json.loads(json.dumps(CONFIG))
    config["config"]["layers"].append(trap)
    assert read(write(path, MEMBERS | {"config.json": json.dumps(config)})) == EXPECTED
    assert os.listdir(tmp_path) == ["model.keras"]


def test_keras_2_names_with_a_slash(path):
    with zipfile.ZipFile(FIXTURES / "keras2_zip_nested" / "model.keras") as file:
        members = {name: file.read(name) for name in file.namelist()}
    members["config.json"] = members["config.json"].replace(b'"bn_out"', b'"conv1/bn"')
    [report] = list_layers(write(path, members)).checkpoints
    assert [layer.momentum for layer in report.layers if layer.name == "conv1/bn"] == [0.9]


@pytest.mark.parametrize("name", ["config.json", "model.weights.h5"])
def test_a_member_that_is_missing(path, name):
    write(path, {key: data for key, data in MEMBERS.items() if key != name})
    refused(path, UnknownFormat, "zip archive")


def test_metadata_may_be_missing(path):
    write(path, {key: data for key, data in MEMBERS.items() if key != "metadata.json"})
    assert read(path) == EXPECTED


@pytest.mark.parametrize(
    ("members", "kind", "words"),
    [
        ({"archive/data.pkl": b"", "archive/version": b"3"}, UnknownFormat, "PyTorch"),
        ({"a.npy": b""}, UnknownFormat, "NumPy"),
        ({"model.weights.npz": b"", "config.json": b"{}"}, Unsupported, "NumPy"),
        ({"inner/model.keras": SOUND.read_bytes()}, UnknownFormat, "inner/model.keras"),
        ({"../model.weights.h5": b"", "../config.json": b"{}"}, UnknownFormat, "holds"),
        ({"word/document.xml": b""}, UnknownFormat, "not a .keras file"),
        ({}, UnknownFormat, "not a .keras file"),
    ],
)
def test_other_archives(path, members, kind, words):
    refused(write(path, members), kind, words)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_that_is_there_twice(path):
    write(path, MEMBERS)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("config.json", "{}")
    refused(path, Corrupt, "more than once")


def test_an_encrypted_member(path):
    data = bytearray(write(path, MEMBERS).read_bytes())
    with zipfile.ZipFile(path) as file:
        start = file.start_dir
    while (start := data.find(b"PK\x01\x02", start)) >= 0:
        data[start + 8] |= 1
        start += 4
    path.write_bytes(data)
    refused(path, Unsupported, "encrypted")


def test_another_compression(path):
    refused(write(path, MEMBERS, zipfile.ZIP_BZIP2), Unsupported, "deflate")


@pytest.mark.parametrize("name", ["config.json", "model.weights.h5"])
def test_a_bomb(path, name):
    write(path, MEMBERS | {name: bytes(65 << 20)}, zipfile.ZIP_DEFLATED)
    refused(path, Corrupt, "claims to unpack")


@pytest.mark.parametrize("config", [b"", b"{", b"\xff\xfe{", b"[" * 100_000])
def test_a_configuration_that_is_no_json(path, config):
    refused(write(path, MEMBERS | {"config.json": config}), Corrupt, "JSON")


@pytest.mark.parametrize("config", ["3", "[]", '{"config": {"layers": [3, {"config": 4}]}}'])
def test_a_configuration_that_says_nothing(path, config):
    found = read(write(path, MEMBERS | {"config.json": config}))
    # Names come from the groups' attributes; gamma and beta cannot be told where one is stored.
    assert set(found) == set(EXPECTED)
    assert set(found["bn_out"]) == {"moving_mean", "moving_variance"}


def test_weights_that_are_no_hdf5(path):
    refused(write(path, MEMBERS | {"model.weights.h5": b"x" * 1000}), Corrupt, "HDF5")


def test_a_file_cut_short_anywhere(path):
    sound = SOUND.read_bytes()
    for size in [*range(0, 100, 9), *range(100, len(sound), 2011), len(sound) - 1]:
        path.write_bytes(sound[:size])
        with pytest.raises(ReadProblem):
            read(path)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    deadline=None,
    derandomize=True,
    max_examples=150,
)
@given(
    deflated=st.booleans(),
    changes=st.lists(
        st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), min_size=1, max_size=3
    ),
)
def test_damage_anywhere_is_read_or_refused(path, deflated, changes):
    write(path, MEMBERS, zipfile.ZIP_DEFLATED if deflated else zipfile.ZIP_STORED)
    damaged = bytearray(path.read_bytes())
    for where, byte in changes:
        damaged[where % len(damaged)] = byte
    path.write_bytes(damaged)
    with contextlib.suppress(ReadProblem):
        found = read(path)
        if deflated and found.keys() == EXPECTED.keys():
            # Its checksum covers every byte of a deflated member.
            weights = {name: set(roles.values()) for name, roles in found.items()}
            assert all(weights[name] <= set(EXPECTED[name].values()) for name in weights)


def test_the_file_is_closed(path):
    with open_checkpoint(str(write(path, MEMBERS))) as checkpoint:
        variable = next(iter(checkpoint.variables.values()))
        assert np.isfinite(variable.read()).all()
    with pytest.raises(ReadProblem):
        variable.read()


# --- The checksum of the weights ------------------------------------------------------------------


def with_zeros(path):
    """Overwrite all values of a layer in the archive, and nothing else."""
    weights = MEMBERS["model.weights.h5"]
    for values in next(iter(EXPECTED.values())).values():
        assert weights.count(values) == 1
        weights = weights.replace(values, bytes(len(values)))
    data = write(path, MEMBERS).read_bytes()
    path.write_bytes(data.replace(MEMBERS["model.weights.h5"], weights))
    with zipfile.ZipFile(path) as file, pytest.raises(zipfile.BadZipFile, match="CRC-32"):
        file.read("model.weights.h5")  # so does Keras
    return path


def verified(path, **options):
    [report] = check(path, **options).checkpoints
    assert report.error is None
    return report.verified


def test_changed_values_are_refused(path):
    refused(with_zeros(path), Corrupt, "does not match its checksum")


def test_only_what_was_verified_is_called_so(path, monkeypatch):
    size = len(MEMBERS["model.weights.h5"])
    assert verified(SOUND) is True
    assert verified(write(path, MEMBERS, zipfile.ZIP_DEFLATED)) is True
    with_zeros(path)
    monkeypatch.setattr(archive, "_VERIFIED_LOCAL", size - 1)
    assert verified(SOUND) is False
    assert verified(SOUND, verify=True) is True
    assert verified(path) is False
    [report] = check(path, verify=True).checkpoints
    assert isinstance(report.error, Corrupt)
    assert verified(FIXTURES / "keras2_functional_correct" / "model.h5") is None
    assert verified(FIXTURES / "tf1_layers_correct" / "model.ckpt-60") is True


def test_verification_that_is_not_possible_is_said():
    [report] = check(FIXTURES / "keras2_functional_correct/model.h5", verify=True).checkpoints
    assert report.verified is None
    assert any("HDF5 files have no checksums" in note for note in report.notes)


def test_remote_weights_are_read_whole_on_request_alone(path, monkeypatch):
    fsspec = pytest.importorskip("fsspec", reason="needs bninspect[remote]")
    fetched = []
    send = stores.fetch

    def fetch(url, ranges, known):
        fetched.extend(ranges)
        return send(url, ranges, known)

    monkeypatch.setattr(stores, "fetch", fetch)
    monkeypatch.setattr(source, "_REMOTE_PIECE", 300_000)
    weights = io.BytesIO(MEMBERS["model.weights.h5"])
    with h5py.File(weights, "r+") as file:
        file["layers/embedding/vars/0"] = np.ones(1_000_000, "f4")
    large = MEMBERS | {"model.weights.h5": weights.getvalue()}
    data = write(path, large).read_bytes()
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/archives/model.keras", data)
    memory.pipe_file("/archives/changed.keras", data[:2_000_000] + b"?" + data[2_000_001:])
    sizes = {}
    for verify in (False, True):
        fetched.clear()
        assert verified("memory://archives/model.keras", verify=verify) is verify
        sizes[verify] = sum(end - start for start, end in fetched)
    assert sizes[False] < len(data) / 4 < len(data) <= sizes[True]
    assert verified("memory://archives/changed.keras") is False
    [report] = check("memory://archives/changed.keras", verify=True).checkpoints
    assert isinstance(report.error, Corrupt)
