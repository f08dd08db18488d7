"""V2 checkpoints: TensorFlow says what is right; of what is wrong, each kind has its own sentence.

Hostile files are opened in a process of their own, with little memory and little time.
"""

from __future__ import annotations

import errno
import os
import struct
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

import bninspect
from bninspect.errors import Corrupt, Incomplete, NotFound, ReadProblem, UnknownFormat, Unsupported
from bninspect.storage import source
from tests.support.readers import (
    assert_agrees_with_tensorflow,
    open_files,
    random_array,
    read,
    read_with_little,
    refused,
)
from tests.support.table_writer import (
    DTYPES,
    SNAPPY,
    Entry,
    Header,
    bytes_field,
    growing_block,
    index_path,
    masked_crc32c,
    number_field,
    sealed,
    shard_path,
    slice_key,
    snappy,
    table_of,
    table_of_pairs,
    varint,
    write_bundle,
    write_index,
)

# What a checkpoint of two variables looks like before a test damages it.
X = np.arange(6, dtype=np.float32).reshape(2, 3)
Y = np.arange(100, 104, dtype=np.int64)


@pytest.fixture
def prefix(tmp_path):
    return tmp_path / "model.ckpt-7"


def save(tf, prefix, tensors, slices=()):
    """Write a checkpoint as tf.train.Saver does: SaveV2, then MergeV2Checkpoints.

    `slices` are triples (name, "shape slice", tensor), the slices of partitioned variables.
    """
    triples = [(name, "", tensor) for name, tensor in tensors.items()] + list(slices)
    names, specs, values = zip(*triples, strict=True)
    part = f"{prefix}_temp"
    tf.raw_ops.SaveV2(prefix=part, tensor_names=names, shape_and_slices=specs, tensors=values)
    tf.raw_ops.MergeV2Checkpoints(
        checkpoint_prefixes=[part], destination_prefix=str(prefix), delete_old_dirs=False
    )


# --- TensorFlow writes, both read -----------------------------------------------------------------


@pytest.mark.framework
def test_more_than_ten_thousand_variables(tf, prefix):
    rng = np.random.default_rng(1)
    tensors = {
        f"model/block_{i // 50}/conv_{i}/kernel": rng.standard_normal(i % 4).astype(np.float32)
        for i in range(10_500)
    }
    save(tf, prefix, tensors)
    assert_agrees_with_tensorflow(tf, prefix, 10_500)


@pytest.mark.framework
def test_every_element_type(tf, prefix):
    save(tf, prefix, {dtype: random_array(tf, dtype, (3, 5)) for dtype in DTYPES})
    assert_agrees_with_tensorflow(tf, prefix, len(DTYPES))


@pytest.mark.framework
@pytest.mark.parametrize(
    ("quantized", "plain"),
    [
        ("qint8", "int8"),
        ("quint8", "uint8"),
        ("qint16", "int16"),
        ("quint16", "uint16"),
        ("qint32", "int32"),
    ],
)
def test_quantized_types_are_read_as_their_integers(tf, prefix, quantized, plain):
    values = random_array(tf, plain, (7,))
    save(tf, prefix, {"x": tf.bitcast(values, quantized)})
    with bninspect.open_checkpoint(str(prefix)) as checkpoint:
        assert checkpoint.variables["x"].dtype == quantized
        ours = checkpoint.variables["x"].read()
    assert ours.dtype == values.dtype
    assert ours.tolist() == values.tolist()


@pytest.mark.framework
def test_scalars_and_empty_tensors(tf, prefix):
    tensors = {
        "scalar": np.float64(0.1),
        "step": np.int64(-(2**62)),
        "one": np.ones((1, 1, 1), np.float16),
        "empty": np.zeros(0, np.float32),
        "no_rows": np.zeros((0, 3), np.int32),
        "no_columns": np.zeros((3, 0, 2), np.complex64),
        "no_bfloat16": np.zeros(0, tf.bfloat16.as_numpy_dtype),
    }
    save(tf, prefix, tensors)
    assert_agrees_with_tensorflow(tf, prefix, len(tensors))


@pytest.mark.framework
def test_names_with_spaces_and_non_ascii(tf, prefix):
    names = [
        "a b",
        "größe/gamma",
        "層/正規化:0",
        "😀",
        " ",
        "tab\there",
        "x" * 3000,
        "\x7f",
        "\x01",
    ]
    save(tf, prefix, {name: np.float32([i]) for i, name in enumerate(names)})
    assert_agrees_with_tensorflow(tf, prefix, len(names))


@pytest.mark.framework
def test_deep_scopes(tf, prefix):
    save(tf, prefix, {"scope/" * 500 + f"v{i}": np.float32(i) for i in range(500)})
    assert_agrees_with_tensorflow(tf, prefix, 500)


@pytest.mark.framework
def test_a_string_tensor_disturbs_no_other(tf, prefix):
    save(tf, prefix, {"a": X, "labels": tf.constant(["cat", "", "dog" * 99]), "z": Y})
    assert_agrees_with_tensorflow(tf, prefix, 3)
    refused(prefix, Unsupported, index_path(prefix), "labels holds string", name="labels")


@pytest.mark.framework
def test_a_sharded_saver(tf, prefix):
    v1 = tf.compat.v1
    with v1.Graph().as_default():
        for i in range(12):
            with v1.device(f"/job:localhost/replica:0/task:0/device:CPU:{i % 3}"):
                v1.get_variable(f"v{i}", initializer=np.full((i, 2), i, np.float32))
        with v1.Session(config=v1.ConfigProto(device_count={"CPU": 3})) as session:
            session.run(v1.global_variables_initializer())
            v1.train.Saver(sharded=True).save(session, str(prefix))
    assert shard_path(prefix, 2, 3).exists()
    assert_agrees_with_tensorflow(tf, prefix, 12)


@pytest.mark.framework
def test_a_partitioned_variable_of_a_saver(tf, prefix):
    v1 = tf.compat.v1
    with v1.Graph().as_default():
        partitioner = v1.fixed_size_partitioner(3, axis=1)
        with v1.variable_scope("scope", partitioner=partitioner):
            v1.get_variable("cut", (4, 20), initializer=v1.random_uniform_initializer())
        with v1.Session() as session:
            session.run(v1.global_variables_initializer())
            v1.train.Saver().save(session, str(prefix))
    assert_agrees_with_tensorflow(tf, prefix, 1)
    assert read(prefix, "scope/cut").shape == (4, 20)


# Offsets and lengths on both sides of each change of the ordered code's width (2^6, 2^13, 2^20).
CUTS = [0, 1, 63, 64, 127, 128, 8191, 8192, 16_384, 16_385, 2**20 - 1, 2**20, 2**21 + 5]


@pytest.mark.framework
@pytest.mark.parametrize("name", ["x", "größe a/b", "ends with \x7f", "\x01"])
def test_slices_of_one_dimension(tf, prefix, name):
    whole = random_array(tf, "uint8", (CUTS[-1],))
    slices = [
        (name, f"{CUTS[-1]} {start},{stop - start}", whole[start:stop])
        for start, stop in pairwise(CUTS)
    ]
    save(tf, prefix, {"other": X}, slices)
    assert_agrees_with_tensorflow(tf, prefix, 2)
    np.testing.assert_array_equal(read(prefix, name), whole)


@pytest.mark.framework
def test_slices_of_two_dimensions(tf, prefix):
    whole = random_array(tf, "int32", (70, 300))
    slices = [
        ("x", f"70 300 {row},{rows}:{column},{columns}", whole[row:, column:][:rows, :columns])
        for row, rows in [(0, 1), (1, 64), (65, 5)]
        for column, columns in [(0, 100), (100, 100), (200, 100)]
    ]
    columns = [("y", f"70 300 -:{at},150", whole[:, at : at + 150]) for at in (0, 150)]
    rows = [("z", f"70 300 {at},35:-", whole[at : at + 35]) for at in (0, 35)]
    save(tf, prefix, {}, slices + columns + rows)
    assert_agrees_with_tensorflow(tf, prefix, 3)
    for name in "xyz":
        np.testing.assert_array_equal(read(prefix, name), whole)


@pytest.mark.framework
def test_one_slice_that_is_everything(tf, prefix):
    save(tf, prefix, {}, [("x", "2 3 -:-", X), ("y", "4 0,4", Y)])
    assert_agrees_with_tensorflow(tf, prefix, 2)


@pytest.mark.framework
def test_ten_thousand_slices(tf, prefix):
    values = np.arange(10_000, dtype=np.float32)
    slices = [("x", f"10000 {i},1", values[i : i + 1]) for i in range(10_000)]
    save(tf, prefix, {}, slices)
    assert_agrees_with_tensorflow(tf, prefix, 1)


@pytest.mark.framework
@pytest.mark.parametrize("bits", [27, 34, 41, 48, 55, 61])
def test_slices_with_offsets_of_many_bytes(tf, prefix, bits):
    # Variables without elements may be as long as one likes; the offsets are in the keys.
    half = 1 << bits
    part = tf.zeros((half, 0), tf.int8)
    slices = [("x", f"{2 * half} 0 {at},{half}:-", part) for at in (0, half)]
    save(tf, prefix, {}, slices)
    assert_agrees_with_tensorflow(tf, prefix, 1)


# --- Our writer writes, both read -----------------------------------------------------------------


@pytest.mark.framework
@pytest.mark.parametrize("block_size", [1, 150, 10**6])
@pytest.mark.parametrize("shards", [1, 4])
@pytest.mark.parametrize("compress", [False, True], ids=["plain", "snappy"])
@pytest.mark.parametrize("big_endian", [False, True], ids=["little", "big"])
def test_tensorflow_reads_what_the_writer_writes(
    tf, prefix, big_endian, compress, shards, block_size
):
    variables = {f"größe/{dtype} a": random_array(tf, dtype, (2, 3)) for dtype in DTYPES}
    variables |= {
        "scalar": np.array(3.5, np.float32),
        "empty": np.zeros((0, 2), np.float64),
        "cut": np.arange(600, dtype=np.int16).reshape(6, 100),
    }
    cut = [((0, 4), None), ((4, 2), (0, 70)), ((4, 2), (70, 30))]
    write_bundle(
        prefix,
        variables,
        big_endian=big_endian,
        compress=compress,
        shards=shards,
        block_size=block_size,
        slices={"cut": cut},
    )
    assert_agrees_with_tensorflow(tf, prefix, len(variables))


@pytest.mark.framework
@pytest.mark.parametrize("entries_per_block", [1, 2, 3, 8])
@pytest.mark.parametrize("first", ["x", "again"])
def test_tensorflow_reads_the_first_of_two_entries_with_one_key(
    tf, prefix, first, entries_per_block
):
    entries = write_bundle(prefix, {"x": X, "again": X + 10})
    pairs = [(b"", entries[b""]), (b"x", entries[first.encode()])]
    pairs += [(b"x", entries[{"x": b"again", "again": b"x"}[first]])]
    encoded = [(key, value.encode()) for key, value in pairs]
    index_path(prefix).write_bytes(table_of_pairs(encoded, entries_per_block))
    assert_agrees_with_tensorflow(tf, prefix, 1)
    with bninspect.open_checkpoint(prefix) as checkpoint:
        assert checkpoint.variables["x"].read()[0, 0] == {"x": 0, "again": 10}[first]


@pytest.mark.framework
@pytest.mark.parametrize("entries_per_block", [1, 8])
def test_tensorflow_does_not_find_keys_out_of_order(tf, prefix, entries_per_block):
    entries = write_bundle(prefix, {"a": X, "b": X, "c": X})
    pairs = [(key.encode(), entries[key.encode()].encode()) for key in ("", "c", "b", "a")]
    index_path(prefix).write_bytes(table_of_pairs(pairs, entries_per_block))
    reader = tf.train.load_checkpoint(str(prefix))
    with pytest.raises(Exception, match="Key a not found in checkpoint"):
        reader.get_tensor("a")
    with pytest.raises(Corrupt, match="not in order"):
        bninspect.open_checkpoint(prefix)


@pytest.mark.framework
def test_a_slice_that_says_it_is_everything(tf, prefix):
    # No length stands for all of a dimension; TensorFlow takes a length of -1 for the same.
    entries = write_bundle(prefix, {"x": X}, slices={"x": [(None, (0, 1)), (None, (1, 2))]})
    explicit = (((0, -1), (0, 1)), ((0, -1), (1, 2)))
    write_index(prefix, entries | {b"x": replace(entries[b"x"], slices=explicit)})
    assert_agrees_with_tensorflow(tf, prefix, 1)


def test_opened_checkpoint_says_what_it_is(prefix):
    write_bundle(prefix, {"y": Y, "x": X})
    with bninspect.open_checkpoint(str(prefix)) as checkpoint:
        assert checkpoint.format == "tf-v2"
        assert checkpoint.path == checkpoint.resolved == str(prefix)
        assert list(checkpoint.variables) == ["x", "y"]
        assert "z" not in checkpoint.variables
        assert "" not in checkpoint.variables


def test_a_name_that_is_not_utf8_is_still_read(prefix):
    write_bundle(prefix, {b"caf\xe9": X})
    np.testing.assert_array_equal(read(prefix, "caf\udce9"), X)


def test_no_name_hides_another_by_the_way_it_is_shown(prefix, run):
    layer = {"moving_mean": X, "moving_variance": X}
    stored = {
        name + role.encode(): x for name in (b"a\xff/", rb"a\xff/") for role, x in layer.items()
    }
    write_bundle(prefix, stored)
    (checkpoint,) = run("list", prefix, "--format", "json").json["checkpoints"]
    assert [layer["name"] for layer in checkpoint["layers"]] == [r"a\xff", "a\udcff"]
    assert run("list", prefix).exit_code == 0


@pytest.mark.parametrize("name", [b"a\0b", b"\xff", b"a\xff\0\xffb", b"\xff\xff"])
def test_slices_of_a_name_with_bytes_that_are_escaped(prefix, name):
    shown = name.decode("utf-8", "surrogateescape")
    part = ((0, 4),)
    entries = write_bundle(prefix, {"y": Y})
    entries |= {name: Entry(9, (4,), slices=(part,)), slice_key(name, part): entries.pop(b"y")}
    write_index(prefix, entries)
    np.testing.assert_array_equal(read(prefix, shown), Y)


def test_closing_closes_every_file(prefix):
    write_bundle(prefix, {str(i): Y for i in range(8)}, shards=8)
    before = open_files()
    checkpoint = bninspect.open_checkpoint(str(prefix))
    assert open_files() == before
    for variable in checkpoint.variables.values():
        variable.read()
        variable.read()
    assert open_files() == before + 8
    checkpoint.close()
    assert open_files() == before
    checkpoint.close()


def test_a_read_that_the_system_serves_in_pieces(prefix, monkeypatch):
    # Linux gives at most 2 GiB less a page at a time, network file systems often less.
    write_bundle(prefix, {"x": X})
    pread = os.pread
    monkeypatch.setattr(
        source.os, "pread", lambda file, length, offset: pread(file, min(length, 7), offset)
    )
    np.testing.assert_array_equal(read(prefix), X)


def test_a_disk_that_fails(prefix, monkeypatch):
    def fail(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    write_bundle(prefix, {"x": X})
    with bninspect.open_checkpoint(str(prefix)) as checkpoint:
        monkeypatch.setattr(source.os, "pread", fail)
        with pytest.raises(ReadProblem, match="reading x at offset 0 failed") as caught:
            checkpoint.variables["x"].read()
    assert caught.value.path == str(shard_path(prefix))
    assert os.strerror(errno.EIO) in caught.value.message


def test_a_shard_that_shrinks_while_it_is_read(prefix):
    write_bundle(prefix, {"x": X, "z": Y})
    with bninspect.open_checkpoint(str(prefix)) as checkpoint:
        checkpoint.variables["x"].read()
        os.truncate(shard_path(prefix), X.nbytes + 5)
        with pytest.raises(Incomplete, match="z at offset 24 ended after 5 of 32") as caught:
            checkpoint.variables["z"].read()
    assert caught.value.path == str(shard_path(prefix))


# --- Only what is asked for is read ---------------------------------------------------------------


def test_opening_needs_no_shard(prefix):
    write_bundle(prefix, {"x": X, "y": Y}, shards=2)
    for number in range(2):
        shard_path(prefix, number, 2).unlink()
    with bninspect.open_checkpoint(str(prefix)) as checkpoint:
        found = [(v.name, v.shape, v.dtype, v.size) for v in checkpoint.variables.values()]
    assert found == [("x", (2, 3), "float32", 6), ("y", (4,), "int64", 4)]


def test_other_variables_bytes_do_not_matter(prefix):
    entries = write_bundle(prefix, {"a": Y, "x": X, "z": Y})
    start = entries[b"x"].offset
    shard = shard_path(prefix)
    shard.write_bytes(b"\xee" * start + X.tobytes() + b"\xee" * len(Y.tobytes()))
    np.testing.assert_array_equal(read(prefix), X)
    refused(prefix, Corrupt, shard, "a fails its checksum", name="a")
    refused(prefix, Corrupt, shard, "z fails its checksum", name="z")


def test_a_shard_that_ends_behind_the_variable_is_enough(prefix):
    write_bundle(prefix, {"x": X, "z": Y})
    os.truncate(shard_path(prefix), X.nbytes)
    np.testing.assert_array_equal(read(prefix), X)
    refused(prefix, Incomplete, shard_path(prefix), "z ", "24 bytes", name="z")


def test_a_shard_that_is_not_needed_may_be_missing(prefix):
    write_bundle(prefix, {"x": X, "y": Y}, shards=2)
    shard_path(prefix, 1, 2).unlink()
    np.testing.assert_array_equal(read(prefix), X)
    refused(prefix, Incomplete, shard_path(prefix, 1, 2), "missing", name="y")


def test_an_empty_variable_needs_no_shard(prefix):
    write_bundle(prefix, {"x": np.zeros((0, 3), np.float32)})
    shard_path(prefix).unlink()
    assert read(prefix).shape == (0, 3)


def test_an_empty_slice_needs_no_shard(prefix):
    write_bundle(prefix, {"y": Y}, slices={"y": [((0, 4),), ((4, 0),)]}, shards=2)
    shard_path(prefix, 1, 2).unlink()
    np.testing.assert_array_equal(read(prefix, "y"), Y)


def test_another_variables_damaged_entry_does_not_matter(prefix):
    entries = write_bundle(prefix, {"x": X})
    write_index(prefix, entries | {b"y": b"\xff\xff\xff", b"z": Entry(dtype=99)})
    np.testing.assert_array_equal(read(prefix), X)
    refused(prefix, Corrupt, index_path(prefix), "the entry of y", name="y")
    refused(prefix, Unsupported, index_path(prefix), "z has the element type", name="z")


# --- Files missing or damaged ---------------------------------------------------------------------


def test_nothing_there(prefix):
    refused(prefix, NotFound, prefix, "no such checkpoint")


def test_missing_index(prefix):
    write_bundle(prefix, {"x": X})
    index_path(prefix).unlink()
    refused(prefix, Incomplete, prefix, ".index file is missing")


@pytest.mark.parametrize("number", [0, 1])
def test_missing_shard(prefix, number):
    write_bundle(prefix, {"x": X, "y": Y}, shards=2)
    lost = shard_path(prefix, number, 2)
    lost.unlink()
    refused(prefix, Incomplete, lost, "shard", "missing", name="xy"[number])


@pytest.mark.parametrize("keep", [0, 1, 23])
def test_truncated_shard(prefix, keep):
    write_bundle(prefix, {"x": X})
    os.truncate(shard_path(prefix), keep)
    refused(
        prefix, Incomplete, shard_path(prefix), "x should be 24 bytes at offset 0", f"has {keep} "
    )


def test_a_shard_that_is_a_directory(prefix):
    write_bundle(prefix, {"x": X})
    shard_path(prefix).unlink()
    shard_path(prefix).mkdir()
    before = open_files()
    refused(prefix, UnknownFormat, shard_path(prefix), "not a file")
    assert open_files() == before


@pytest.mark.parametrize("bit", [0x01, 0x80])
def test_every_flipped_bit_in_a_variable_is_noticed(prefix, bit):
    entries = write_bundle(prefix, {"a": Y, "x": X})
    sound = shard_path(prefix).read_bytes()
    for position in range(entries[b"x"].offset, len(sound)):
        damaged = bytearray(sound)
        damaged[position] ^= bit
        shard_path(prefix).write_bytes(damaged)
        refused(prefix, Corrupt, shard_path(prefix), "x fails its checksum (offset 32, 24 bytes)")


def test_big_endian_values_are_checked_as_they_are_stored(prefix):
    entries = write_bundle(prefix, {"x": X}, big_endian=True)
    swapped = masked_crc32c(X.tobytes())
    write_index(prefix, entries | {b"x": replace(entries[b"x"], crc=swapped)})
    refused(prefix, Corrupt, shard_path(prefix), "checksum")


# --- The index: header and entries ----------------------------------------------------------------


def test_index_without_header(prefix):
    entries = write_bundle(prefix, {"x": X})
    del entries[b""]
    write_index(prefix, entries)
    refused(prefix, Corrupt, index_path(prefix), "header is missing")


@pytest.mark.parametrize(
    "garbage",
    [
        pytest.param(b"\xff" * 8, id="endless tag"),
        pytest.param(b"\x08", id="number cut off"),
        pytest.param(bytes_field(3, b"\x08"), id="version cut off"),
        pytest.param(b"\x1a\x7f", id="version longer than the header"),
    ],
)
def test_header_that_is_garbage(prefix, garbage):
    entries = write_bundle(prefix, {"x": X})
    write_index(prefix, entries | {b"": garbage})
    refused(prefix, Corrupt, index_path(prefix), "header cannot be parsed")


@pytest.mark.parametrize("version", [2, 2**31 - 1])
def test_a_newer_format(prefix, version):
    entries = write_bundle(prefix, {"x": X})
    write_index(prefix, entries | {b"": Header(min_consumer=version)})
    refused(prefix, Unsupported, index_path(prefix), f"version {version}")


@pytest.mark.parametrize("version", [0, 1])
def test_the_present_format(prefix, version):
    entries = write_bundle(prefix, {"x": X})
    write_index(prefix, entries | {b"": Header(min_consumer=version)})
    np.testing.assert_array_equal(read(prefix), X)


@pytest.mark.parametrize("shards", [0, -1, 2**31 - 1])
def test_a_wrong_number_of_shards(prefix, shards):
    entries = write_bundle(prefix, {"x": X})
    write_index(prefix, entries | {b"": Header(shards)})
    with pytest.raises((Corrupt, Incomplete)) as caught:
        read(prefix)
    assert str(prefix) in caught.value.path


@pytest.mark.parametrize(
    "garbage",
    [
        pytest.param(b"\xff" * 8, id="endless tag"),
        pytest.param(b"\x08", id="number cut off"),
        pytest.param(b"\x12\x7f", id="shape longer than the entry"),
        pytest.param(bytes_field(2, bytes_field(2, b"\x08")), id="dimension cut off"),
        pytest.param(b"\x35\0\0", id="checksum cut off"),
        pytest.param(bytes_field(7, b"\x0a\x05"), id="slice cut off"),
        pytest.param(b"\x0b" * 5000, id="groups in groups"),
    ],
)
def test_entry_that_is_garbage(prefix, garbage):
    entries = write_bundle(prefix, {"x": X})
    write_index(prefix, entries | {b"x": garbage})
    refused(prefix, Corrupt, index_path(prefix), "the entry of x cannot be parsed")


PETABYTE = 1 << 50


@pytest.mark.parametrize(
    ("changes", "kind", "in_index", "words"),
    [
        pytest.param({"size": PETABYTE}, Corrupt, True, f"{PETABYTE} bytes", id="size of a PB"),
        pytest.param({"size": -24}, Corrupt, True, "-24 bytes", id="negative size"),
        pytest.param({"size": 0}, Corrupt, True, "0 bytes", id="size of nothing"),
        pytest.param({"size": 23}, Corrupt, True, "23 bytes", id="size one too small"),
        pytest.param({"shape": (1 << 48,)}, Corrupt, True, str(1 << 48), id="shape of a PB"),
        pytest.param(
            {"shape": (1 << 48,), "size": PETABYTE},
            Incomplete,
            False,
            f"x should be {PETABYTE} bytes at offset 0",
            id="shape and size of a PB",
        ),
        pytest.param(
            {"shape": (1 << 62, 1 << 62)}, Corrupt, True, "x of shape", id="shape beyond 64 bits"
        ),
        pytest.param(
            # 2^64 + 6 elements: what is left of them in 64 bits would fit.
            {"shape": (2, 2**63 - 1), "size": 2**63 - 8},
            Corrupt,
            True,
            "x of shape",
            id="shape that overflows 64 bits",
        ),
        pytest.param({"offset": 1 << 60}, Incomplete, False, str(1 << 60), id="offset far off"),
        pytest.param({"offset": 1}, Incomplete, False, "offset 1", id="offset one too large"),
        pytest.param({"offset": -24}, Incomplete, False, "offset -24", id="negative offset"),
        pytest.param(
            {"offset": 4, "shape": (5,), "size": 20}, Corrupt, False, "offset 4, 20", id="shifted"
        ),
        pytest.param({"crc": 0}, Corrupt, False, "checksum", id="no checksum"),
        pytest.param({"shape": (-2, -3)}, Corrupt, True, "[-2, -3]", id="negative dimensions"),
        pytest.param({"shape": (2, -3)}, Corrupt, True, "[2, -3]", id="negative dimension"),
        pytest.param(
            {"shape": (0, -1), "size": 0}, Corrupt, True, "[0, -1]", id="negative and empty"
        ),
        pytest.param({"shard": 1}, Corrupt, True, "shard 1 of 1", id="shard too high"),
        pytest.param({"shard": -1}, Corrupt, True, "shard -1 of 1", id="negative shard"),
        pytest.param({"dtype": 0}, Unsupported, True, "element type 0", id="no dtype"),
        pytest.param({"dtype": 99}, Unsupported, True, "element type 99", id="unknown dtype"),
        pytest.param({"dtype": 101}, Unsupported, True, "element type 101", id="reference dtype"),
        pytest.param({"dtype": -1}, Unsupported, True, "element type -1", id="negative dtype"),
        pytest.param({"dtype": 7}, Unsupported, True, "string", id="string"),
        pytest.param({"dtype": 20}, Unsupported, True, "resource", id="resource"),
        pytest.param({"dtype": 21}, Unsupported, True, "variant", id="variant"),
        pytest.param({"dtype": 2}, Corrupt, True, "24 bytes", id="wider dtype"),
    ],
)
def test_entry_that_makes_no_sense(prefix, changes, kind, in_index, words):
    entries = write_bundle(prefix, {"x": X})
    write_index(prefix, entries | {b"x": replace(entries[b"x"], **changes)})
    file = index_path(prefix) if in_index else shard_path(prefix)
    refused(prefix, kind, file, "x ", words)


def test_unknown_rank(prefix):
    entries = write_bundle(prefix, {"x": X})
    entry = number_field(1, 1) + bytes_field(2, number_field(3, 1))
    write_index(prefix, entries | {b"x": entry})
    refused(prefix, Corrupt, index_path(prefix), "the entry of x has the impossible shape")


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param((1,) * 65, id="more dimensions than numpy has"),
        pytest.param((1,) * 255, id="more dimensions than TensorFlow has"),
        pytest.param((0, 1 << 62), id="empty, but too large for numpy"),
        pytest.param((1 << 62, 1 << 62, 0), id="empty, but beyond 64 bits"),
    ],
)
@pytest.mark.parametrize("sliced", [False, True], ids=["whole", "sliced"])
def test_shapes_that_numpy_cannot_have(prefix, shape, sliced):
    data = X.tobytes()[: 0 if 0 in shape else 4]
    stored = Entry(1, shape, size=len(data), crc=masked_crc32c(data))
    entries = write_bundle(prefix, {"x": X}) | {b"x": stored}
    if sliced:
        part = tuple((0, size) for size in shape)
        entries |= {b"x": Entry(1, shape, slices=(part,)), slice_key(b"x", part): stored}
    write_index(prefix, entries)
    refused(prefix, (Corrupt, Unsupported), index_path(prefix), "x ")


# --- Slices ---------------------------------------------------------------------------------------

LEFT, RIGHT = ((0, 2), (0, 1)), ((0, 2), (1, 2))


@pytest.fixture
def sliced(prefix):
    """The entries of a checkpoint whose x is cut into LEFT and RIGHT, in shards 0 and 1."""
    return write_bundle(prefix, {"x": X}, slices={"x": [LEFT, RIGHT]}, shards=2)


def with_slices(entries, *slices, **changes):
    return entries | {b"x": replace(entries[b"x"], slices=slices, **changes)}


def test_the_slices_are_read(prefix, sliced):
    np.testing.assert_array_equal(read(prefix), X)


@pytest.mark.parametrize("number", [0, 1])
def test_a_slice_whose_shard_is_missing(prefix, sliced, number):
    shard_path(prefix, number, 2).unlink()
    refused(prefix, Incomplete, shard_path(prefix, number, 2), "missing")


@pytest.mark.parametrize("number", [0, 1])
def test_a_slice_whose_shard_is_cut_short(prefix, sliced, number):
    path = shard_path(prefix, number, 2)
    os.truncate(path, 5)
    refused(prefix, Incomplete, path, "x ", "offset 0", "has 5 bytes")


@pytest.mark.parametrize("number", [0, 1])
def test_a_slice_whose_bytes_are_damaged(prefix, sliced, number):
    path = shard_path(prefix, number, 2)
    path.write_bytes(b"\xee" * path.stat().st_size)
    refused(prefix, Corrupt, path, "x fails its checksum")


@pytest.mark.parametrize("lost", [LEFT, RIGHT], ids=["first", "second"])
def test_a_slice_without_an_entry(prefix, sliced, lost):
    del sliced[slice_key(b"x", lost)]
    write_index(prefix, sliced)
    refused(prefix, (Corrupt, Incomplete), index_path(prefix), "slice of x is missing")


def test_a_slice_that_is_not_listed(prefix, sliced):
    write_index(prefix, with_slices(sliced, LEFT))
    refused(prefix, Incomplete, index_path(prefix), "slices of x do not add up", "[2, 3]")


def test_slices_of_a_larger_variable(prefix, sliced):
    write_index(prefix, with_slices(sliced, LEFT, RIGHT, shape=(1 << 40, 1 << 10)))
    refused(prefix, Incomplete, index_path(prefix), "slices of x do not add up")


def test_slices_that_overlap(prefix):
    # Together they have 6 elements, as x has; but the middle column is there twice.
    parts = [((0, 2), (0, 2)), ((0, 2), (1, 1))]
    write_bundle(prefix, {"x": X}, slices={"x": parts})
    refused(prefix, (Corrupt, Incomplete), index_path(prefix), "slices of x overlap")


def test_a_slice_listed_twice(prefix, sliced):
    write_index(prefix, with_slices(sliced, LEFT, RIGHT, RIGHT))
    refused(prefix, (Corrupt, Incomplete), index_path(prefix), "slices of x")


@pytest.mark.parametrize(
    "part",
    [
        pytest.param(((0, 2), (2, 2)), id="one column too far"),
        pytest.param(((0, 3), (1, 2)), id="one row too many"),
        pytest.param(((0, 2), (-1, 2)), id="negative start"),
        pytest.param(((0, 2), (1, -2)), id="negative length"),
        pytest.param(((1 << 62, 2), (1, 2)), id="far outside"),
        pytest.param(((2**63 - 1, 2**63 - 1), (1, 2)), id="start and length beyond 64 bits"),
        pytest.param(((0, 2),), id="too few dimensions"),
        pytest.param(((0, 2), (1, 2), (0, 1)), id="too many dimensions"),
        pytest.param((), id="no dimensions"),
    ],
)
def test_a_slice_outside_the_shape(prefix, sliced, part):
    write_index(prefix, with_slices(sliced, LEFT, part))
    refused(prefix, Corrupt, index_path(prefix), "a slice of x is outside its shape [2, 3]")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param({"dtype": 3}, "another element type", id="another element type"),
        pytest.param({"size": 8}, "8 bytes", id="another size"),
        pytest.param({"size": PETABYTE}, str(PETABYTE), id="size of a petabyte"),
        pytest.param({"shard": 2}, "shard 2 of 2", id="shard out of range"),
    ],
)
def test_a_slice_whose_entry_makes_no_sense(prefix, sliced, changes, words):
    key = slice_key(b"x", RIGHT)
    write_index(prefix, sliced | {key: replace(sliced[key], **changes)})
    refused(prefix, Corrupt, index_path(prefix), "x", words)


def test_a_slice_whose_entry_is_garbage(prefix, sliced):
    write_index(prefix, sliced | {slice_key(b"x", RIGHT): b"\xff\xff"})
    refused(prefix, Corrupt, index_path(prefix), "a slice of x cannot be parsed")


# --- Hostile files: small, but asking for much ----------------------------------------------------


@pytest.mark.processes
def test_the_reader_lives_with_little(prefix):
    write_bundle(prefix, {f"scope/{i}": Y for i in range(5000)})
    assert read_with_little(prefix) == "read"


@pytest.mark.processes
@pytest.mark.parametrize("growth", [150, 1000, 10_000])
def test_keys_that_grow_to_gigabytes(prefix, growth):
    index_path(prefix).write_bytes(table_of([(b"z", sealed(growing_block(1 << 20, growth)))]))
    assert index_path(prefix).stat().st_size < 2 << 20
    assert read_with_little(prefix).startswith(f"Corrupt {index_path(prefix)}: an entry")


@pytest.mark.processes
def test_keys_that_grow_when_they_have_been_uncompressed(prefix):
    # Neither factor is absurd by itself; together they make half a gigabyte of a megabyte.
    blocks = []
    for number in range(70):
        name = b"%05d" % number
        blocks.append((name, sealed(snappy(growing_block(100_000, 75, name)), SNAPPY)))
    index_path(prefix).write_bytes(table_of(blocks))
    assert index_path(prefix).stat().st_size < 1_200_000
    assert read_with_little(prefix).startswith(f"Corrupt {index_path(prefix)}: ")


@pytest.mark.processes
@pytest.mark.parametrize("claim", [1 << 30, 2**32 - 1, 2**40])
def test_a_snappy_block_that_claims_gigabytes(prefix, claim):
    sound = snappy(bytes(1000))
    block = varint(claim) + sound[2:]
    index_path(prefix).write_bytes(table_of([(b"z", sealed(block, SNAPPY))]))
    assert read_with_little(prefix).startswith(f"Corrupt {index_path(prefix)}: a snappy block")


@pytest.mark.processes
def test_one_block_under_many_handles(prefix):
    data = sealed(bytes(4) * 250_000 + struct.pack("<I", 250_000))
    again = dict.fromkeys(range(1, 20_000), varint(0) + varint(len(data) - 5))
    empty = sealed(struct.pack("<II", 0, 1))
    blocks = [(b"0", data)] + [(b"%06d" % i, empty) for i in range(1, 20_000)]
    index_path(prefix).write_bytes(table_of(blocks, again))
    assert "two of its blocks overlap" in read_with_little(prefix)


@pytest.mark.processes
@pytest.mark.parametrize(
    "shape", [(1 << 62,) * 100_000, (0,) * 1_000_000, (1,) * 1_000_000, (-1,) * 100_000]
)
def test_a_shape_of_very_many_dimensions(prefix, shape):
    entries = write_bundle(prefix, {"x": X})
    write_index(prefix, entries | {b"x": replace(entries[b"x"], shape=shape)})
    answer = read_with_little(prefix)
    assert answer.startswith(
        (f"Corrupt {index_path(prefix)}: ", f"Unsupported {index_path(prefix)}: ")
    )
    assert "x " in answer


@pytest.mark.processes
@pytest.mark.parametrize("same_slice", [True, False], ids=["one slice", "one place in the shard"])
def test_slices_that_all_have_the_same_bytes(prefix, same_slice):
    # A shard of one megabyte, and an index of some kilobytes that makes a gigabyte of it.
    data = np.zeros(1 << 18, np.float32)
    stored = write_bundle(prefix, {"x": data})[b"x"]
    parts = [((0 if same_slice else i << 18, 1 << 18),) for i in range(1024)]
    entries = {b"": Header(), b"x": Entry(1, (1 << 28,), slices=tuple(parts))}
    write_index(prefix, entries | {slice_key(b"x", part): stored for part in parts})
    answer = read_with_little(prefix)
    assert answer.startswith(
        (f"Corrupt {index_path(prefix)}: ", f"Incomplete {index_path(prefix)}: ")
    )
    assert "x " in answer


@pytest.mark.processes
def test_slices_of_a_terabyte_of_which_one_is_there(prefix):
    entries = write_bundle(prefix, {"x": X}, slices={"x": [LEFT, RIGHT]})
    write_index(prefix, with_slices(entries, LEFT, RIGHT, shape=(1 << 20, 1 << 20)))
    assert read_with_little(prefix).startswith(f"Incomplete {index_path(prefix)}: the slices of x")


@pytest.mark.processes
def test_slices_of_a_petabyte_that_add_up(prefix):
    entries = write_bundle(prefix, {"x": X})
    parts = [((0, 1 << 47),), ((1 << 47, 1 << 47),)]
    for number, part in enumerate(parts):
        entries[slice_key(b"x", part)] = Entry(1, (1 << 47,), 0, number << 49, 1 << 49)
    write_index(prefix, entries | {b"x": Entry(1, (1 << 48,), slices=tuple(parts))})
    answer = read_with_little(prefix)
    assert answer.startswith(f"Incomplete {shard_path(prefix)}: ")
    assert f"x should be {1 << 49} bytes at offset 0" in answer


@pytest.mark.processes
def test_a_large_shard_is_not_read_as_a_whole(prefix):
    write_bundle(prefix, {"x": X, "y": Y})
    os.truncate(shard_path(prefix), 4 << 30)  # a hole, which takes no room on the disk
    assert read_with_little(prefix) == "read"


@pytest.mark.processes
@pytest.mark.parametrize("part", ["index", "shard"])
def test_a_pipe_does_not_make_the_reader_wait(prefix, part):
    write_bundle(prefix, {"x": X})
    pipe = index_path(prefix) if part == "index" else shard_path(prefix)
    pipe.unlink()
    os.mkfifo(pipe)
    assert read_with_little(prefix).startswith(f"UnknownFormat {pipe}: this is not a file")
