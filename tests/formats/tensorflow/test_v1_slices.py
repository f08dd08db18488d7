"""V1 checkpoints: TensorFlow says what is right, and each kind of wrong has its own sentence."""

from __future__ import annotations

import os
import re
import shutil

import numpy as np
import pytest

import bninspect
from bninspect.errors import Corrupt, Incomplete, NotFound, UnknownFormat, Unsupported
from bninspect.storage import source
from tests.conftest import FIXTURES
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
    TRAILER_SIZE,
    SliceMeta,
    block,
    bytes_field,
    footer,
    growing_block,
    handle,
    number_field,
    sealed,
    slice_data,
    slice_key,
    slices_meta,
    slices_path,
    snappy,
    table,
    table_of,
    tensor_values,
    varint,
    write_bundle,
    write_slices,
    write_table,
)

X = np.arange(6, dtype=np.float32).reshape(2, 3)
Y = np.arange(100, 104, dtype=np.int64)
ALL_OF_X = (None, None)
X_KEY = slice_key(b"x", ALL_OF_X)
LEFT, RIGHT = (None, (0, 1)), (None, (1, 2))
PETABYTE = 1 << 50

# What TensorFlow's V1 writer takes; the rest it refuses or dies of.
NUMBERS = sorted(DTYPES.keys() - {"bfloat16", "uint32", "uint64", "complex64", "complex128"})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.ckpt-7"


def save(tf, path, tensors, slices=()):
    """Write one V1 file; `slices` are triples (name, "shape slice", tensor)."""
    triples = [(name, "", tensor) for name, tensor in tensors.items()] + list(slices)
    names, specs, values = zip(*triples, strict=True)
    tf.raw_ops.SaveSlices(
        filename=str(path), tensor_names=names, shapes_and_slices=specs, data=values
    )


# --- TensorFlow writes, both read -----------------------------------------------------------------


@pytest.mark.framework
def test_every_element_type(tf, path):
    save(tf, path, {dtype: random_array(tf, dtype, (3, 5)) for dtype in NUMBERS})
    assert_agrees_with_tensorflow(tf, path, len(NUMBERS), "tf-v1")


@pytest.mark.framework
def test_scalars_empty_tensors_and_odd_names(tf, path):
    tensors = {
        "scalar": np.float64(0.1),
        "step": np.int64(-(2**62)),
        "one": np.ones((1, 1, 1), np.float16),
        "empty": np.zeros(0, np.float32),
        "no_rows": np.zeros((0, 3), np.int32),
        "größe/gamma": np.float32([1]),
        "層/正規化:0": np.float32([2]),
        " ": np.float32([3]),
        "x" * 3000: np.float32([4]),
    }
    save(tf, path, tensors)
    assert_agrees_with_tensorflow(tf, path, len(tensors), "tf-v1")


@pytest.mark.framework
def test_thousands_of_variables(tf, path):
    rng = np.random.default_rng(1)
    tensors = {
        f"model/block_{i // 50}/conv_{i}/kernel": rng.standard_normal(i % 700).astype(np.float32)
        for i in range(1500)
    }
    save(tf, path, tensors)
    assert_agrees_with_tensorflow(tf, path, 1500, "tf-v1")


@pytest.mark.framework
def test_slices_of_every_cut(tf, path):
    whole = np.arange(4 * 5 * 6, dtype=np.float32).reshape(4, 5, 6)
    slices = [
        ("rows", "4 5 6 0,1:-:-", whole[:1]),
        ("rows", "4 5 6 1,3:-:-", whole[1:]),
        ("corners", "4 5 6 0,2:0,2:-", whole[:2, :2]),
        ("corners", "4 5 6 2,2:0,2:0,6", whole[2:, :2]),
        ("corners", "4 5 6 0,4:2,3:-", whole[:, 2:]),
    ]
    save(tf, path, {"a": Y, "z": Y}, slices)
    assert_agrees_with_tensorflow(tf, path, 4, "tf-v1")
    np.testing.assert_array_equal(read(path, "corners"), whole)


@pytest.mark.framework
@pytest.mark.parametrize("sharded", [False, True])
def test_what_a_saver_leaves(tf, tmp_path, run, sharded):
    v1 = tf.compat.v1
    with v1.Graph().as_default(), v1.Session() as session:
        partitioner = v1.fixed_size_partitioner(3, axis=1)
        with v1.variable_scope("scope", partitioner=partitioner):
            v1.get_variable("cut", (4, 20), initializer=v1.random_uniform_initializer())
        v1.get_variable("bn/moving_mean", (5,), initializer=v1.random_uniform_initializer())
        v1.get_variable("bn/moving_variance", (5,), initializer=v1.random_uniform_initializer())
        session.run(v1.global_variables_initializer())
        saver = v1.train.Saver(write_version=v1.train.SaverDef.V1, sharded=sharded)
        saved = saver.save(session, str(tmp_path / "model.ckpt"), global_step=3)
    assert saved.endswith("model.ckpt-3-?????-of-00001" if sharded else "model.ckpt-3")
    typed = [tmp_path, tmp_path / "checkpoint", saved, tmp_path / "model.ckpt-3"]
    typed += [tmp_path / "model.ckpt-3.meta"]
    if sharded:
        typed += [tmp_path / "model.ckpt-3-00000-of-00001"]
    for one in typed:
        (checkpoint,) = run("list", one, "--format", "json").json["checkpoints"]
        assert (checkpoint["resolved"], checkpoint["format"]) == (saved, "tf-v1"), one
        assert [layer["name"] for layer in checkpoint["layers"]] == ["bn"]
    assert_agrees_with_tensorflow(tf, saved, 3, "tf-v1")


@pytest.mark.framework
def test_elements_that_are_no_numbers(tf, path):
    values = {
        "string": tf.constant(["a", "b"]),
        "complex64": tf.constant([1j], tf.complex64),
        "complex128": tf.constant([1j], tf.complex128),
        "qint8": tf.bitcast(np.int8([1]), tf.qint8),
        "quint8": tf.bitcast(np.uint8([1]), tf.quint8),
        "qint32": tf.bitcast(np.int32([1]), tf.qint32),
    }
    save(tf, path, values | {"x": X})
    for name in values:
        refused(path, Unsupported, path, f"{name} holds {name} elements", name=name)
    np.testing.assert_array_equal(read(path), X)


# --- The writer of the tests, which TensorFlow reads ----------------------------------------------


@pytest.mark.framework
@pytest.mark.parametrize("packed", [True, False], ids=["packed", "unpacked"])
@pytest.mark.parametrize("shards", [0, 3], ids=["one file", "shards"])
@pytest.mark.parametrize(
    "layout", [{"block_size": 100}, {"block_size": 1 << 20}, {"compress": True}], ids=str
)
def test_tensorflow_reads_what_the_writer_writes(tf, path, packed, shards, layout):
    variables = {f"größe/{dtype} a": random_array(tf, dtype, (2, 3)) for dtype in NUMBERS}
    variables |= {"scalar": np.array(3.5, np.float32), "empty": np.zeros((0, 2), np.float64)}
    variables |= {"cut": np.arange(600, dtype=np.int16).reshape(6, 100)}
    cut = {"cut": [((0, 4), None), ((4, 2), (0, 70)), ((4, 2), (70, 30))]}
    write_slices(path, variables, shards=shards, slices=cut, packed=packed, **layout)
    assert_agrees_with_tensorflow(tf, path, len(variables), "tf-v1")


@pytest.mark.framework
@pytest.mark.parametrize("dtype", ["bfloat16", "uint32", "uint64"])
def test_types_that_only_the_protocol_buffer_knows(tf, path, dtype):
    values = random_array(tf, dtype, (3, 5))
    write_slices(path, {"x": values})
    with np.errstate(invalid="ignore"):  # NaNs are among the bits
        expected = values.astype(np.float32) if dtype == "bfloat16" else values
    np.testing.assert_array_equal(read(path), expected)


# --- Only what is asked for is read ---------------------------------------------------------------


@pytest.mark.framework
def test_large_values_are_not_read(tf, tmp_path, run, monkeypatch):
    path = tmp_path / "model.ckpt"
    layer = {name: np.float32([1, 2, 3]) for name in ("beta", "moving_mean", "moving_variance")}
    variables = {f"conv{i}/bn/{name}": values for i in range(3) for name, values in layer.items()}
    for i in range(3):
        variables[f"conv{i}/aaa"] = np.zeros(1 << 20, np.float32)
        variables[f"conv{i}/kernel"] = np.zeros(1 << 20, np.float32)
    save(tf, path, variables)
    amount = 0
    original = source.Source.read

    def counted(self, offset, length, what):
        nonlocal amount
        amount += length
        return original(self, offset, length, what)

    monkeypatch.setattr(source.Source, "read", counted)
    outcome = run("check", path, "--format", "json")
    assert outcome.json["summary"]["layers"] == 3
    assert path.stat().st_size > 24 << 20
    assert 0 < amount < 10_000


@pytest.mark.processes
def test_a_hole_of_gigabytes_is_not_read(path):
    # A second block of four gigabytes, which take no room on the disk.
    (entries,) = write_slices(path, {"x": X})
    first = sealed(block(sorted(entries.items())))
    hole = handle(len(first), 4 << 30)
    index = block([(b"\1", handle(0, len(first) - TRAILER_SIZE)), (b"\2", hole)])
    with path.open("wb") as file:
        file.write(first)
        start = file.seek(len(first) + (4 << 30) + TRAILER_SIZE)
        file.write(sealed(index) + footer(handle(start, 0), handle(start, len(index))))
    assert read_with_little(path) == "read"


def test_each_block_is_read_once(path, monkeypatch):
    write_slices(path, {f"v{i}": X for i in range(100)}, block_size=300)
    offsets = []
    original = source.Source.read

    def noted(self, offset, length, what):
        offsets.append(offset)
        return original(self, offset, length, what)

    with bninspect.open_checkpoint(str(path)) as checkpoint:
        monkeypatch.setattr(source.Source, "read", noted)
        for _ in range(2):
            for name in checkpoint.variables:
                np.testing.assert_array_equal(checkpoint.variables[name].read(), X)
    assert len(offsets) == len(set(offsets)) > 10


def test_files_are_closed(path):
    before = open_files()
    write_slices(path, {"x": X, "y": Y}, shards=2)
    with bninspect.open_checkpoint(str(path)):
        assert open_files() == before + 2
    assert open_files() == before
    slices_path(path, 1, 2).unlink()
    with pytest.raises(Incomplete):
        bninspect.open_checkpoint(str(path))
    assert open_files() == before


# --- Which files are meant ------------------------------------------------------------------------


def test_any_shard_opens_the_whole(path):
    write_slices(path, {"x": X, "y": Y}, shards=2)
    for typed in (path, f"{path}-?????-of-00002", slices_path(path, 0, 2), slices_path(path, 1, 2)):
        with bninspect.open_checkpoint(str(typed)) as checkpoint:
            assert checkpoint.path == str(typed)
            assert checkpoint.resolved == f"{path}-?????-of-00002"
            assert set(checkpoint.variables) == {"x", "y"}


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_missing_shard_is_named(path, run, missing):
    write_slices(path, {"x": X, "y": Y, "z": Y}, shards=3)
    slices_path(path, missing, 3).unlink()
    for typed in (path, slices_path(path, (missing + 1) % 3, 3)):
        refused(typed, Incomplete, slices_path(path, missing, 3), "this shard", "missing")
    assert run("check", path).exit_code == 2


def test_a_file_that_is_only_called_like_a_shard(tmp_path):
    path = tmp_path / "trained-00002-of-00002"
    write_slices(path, {"x": X})
    np.testing.assert_array_equal(read(path), X)


def test_shards_of_two_checkpoints(path):
    write_slices(path, {"x": X, "y": Y}, shards=2)
    write_slices(path, {"x": X + 1, "y": Y}, shards=3)
    with pytest.raises(NotFound, match=re.escape(f"Name one of them: {path}-?????-of-00002, ")):
        read(path)
    np.testing.assert_array_equal(read(slices_path(path, 1, 3)), X + 1)


def test_the_state_file_of_another_machine(path):
    write_slices(path, {"x": X, "y": Y}, shards=2)
    state = path.parent / "checkpoint"
    state.write_text('model_checkpoint_path: "/far/away/model.ckpt-7-\\?\\?\\?\\?\\?-of-00002"\n')
    with bninspect.open_checkpoint(str(path.parent)) as checkpoint:
        assert checkpoint.resolved == f"{path}-?????-of-00002"
        assert "which is not there; opened" in checkpoint.notes[0]


def test_the_index_of_v2_that_lost_its_name(path, run):
    write_bundle(path, {"x": X})
    lost = path.with_name("lost")
    for compress in (False, True):
        write_bundle(path, {"x": X}, compress=compress)
        shutil.move(f"{path}.index", lost)
        refused(lost, Unsupported, lost, "the index of a TensorFlow V2 checkpoint that lost its")
    assert run("check", lost).exit_code == 2


def test_a_v1_file_that_is_called_like_an_index(path):
    write_slices(f"{path}.index", {"x": X})
    for typed in (path, f"{path}.index", path.parent):
        refused(typed, Unsupported, f"{path}.index", "a V1 checkpoint, though it is called")


@pytest.mark.parametrize(
    "entries", [{}, {b"key": b"value"}, {b"": b""}, {b"": slice_data(b"x", (), b"")}], ids=str
)
def test_a_table_of_another_program(path, entries):
    write_table(path, entries)
    refused(path, UnknownFormat, path, "a table, but not one of a TensorFlow checkpoint")


def test_a_cut_file_is_told_by_its_head(path, run):
    shutil.copy(FIXTURES / "tf1_v1_correct" / "model.ckpt-60", path)
    os.truncate(path, 3000)
    refused(path, Incomplete, path, "V1 checkpoint was cut short")
    assert run("check", path).exit_code == 2


def test_the_format_is_named(run):
    assert "TensorFlow V1 checkpoint" in run("list", FIXTURES / "tf1_v1_correct/model.ckpt-60").said


# --- What contradicts itself ----------------------------------------------------------------------


def with_meta(path, *metas):
    """Write `path` with x stored whole and soundly, but with this table of contents."""
    (stored,) = write_slices(path, {"x": X})
    write_table(path, stored | {b"": slices_meta(metas)})


@pytest.mark.processes
@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"shape": (1 << 40, 3)}, Corrupt, f"x, or a slice of it, should have {3 << 40} values"),
        ({"shape": (2, PETABYTE)}, Corrupt, "should have"),
        ({"shape": (2, 4)}, Corrupt, "should have 8 values of its element type, but has 6"),
        ({"shape": (1, 3)}, Corrupt, "should have 3 values of its element type, but has 6"),
        ({"shape": (1 << 62, 1 << 62)}, Corrupt, "should have"),
        ({"shape": (2, -3)}, Corrupt, "x has the impossible shape [2, -3]"),
        ({"shape": (-2, -3)}, Corrupt, "x has the impossible shape"),
        ({"shape": (1,) * 255}, Corrupt, "x has 255 dimensions"),
        ({"shape": (2, 3, 1)}, Corrupt, "a slice of x is outside its shape [2, 3, 1]"),
        ({"dtype": 2}, Corrupt, "should have 6 values of its element type, but has 0"),
        ({"dtype": 3}, Corrupt, "should have 6 values of its element type, but has 0"),
        ({"dtype": 0}, Unsupported, "x has the element type 0"),
        ({"dtype": 99}, Unsupported, "x has the element type 99"),
        ({"dtype": -1}, Unsupported, "x has the element type -1"),
        ({"dtype": 7}, Unsupported, "x holds string elements"),
        ({"slices": ()}, Incomplete, "the slices of x do not add up to its shape [2, 3]"),
        ({"slices": (LEFT,)}, Incomplete, "the slices of x do not add up"),
        ({"slices": (LEFT, RIGHT)}, Corrupt, "the values of x, or of a slice of it, are missing"),
        ({"slices": (ALL_OF_X, ALL_OF_X)}, Corrupt, "a slice of x is listed twice"),
        ({"slices": ((None,),)}, Corrupt, "a slice of x is outside its shape"),
        ({"slices": (((0, 3), None),)}, Corrupt, "a slice of x is outside its shape"),
        ({"slices": (((-1, 2), None),)}, Corrupt, "a slice of x is outside its shape"),
        ({"slices": (((1, -2), None),)}, Corrupt, "a slice of x is outside its shape"),
        ({"slices": (((2**63 - 1, 2**63 - 1), None),)}, Corrupt, "outside its shape"),
    ],
    ids=str,
)
def test_a_table_of_contents_that_makes_no_sense(path, changes, kind, words):
    meta = {"dtype": 1, "shape": (2, 3), "slices": (ALL_OF_X,)} | changes
    with_meta(path, SliceMeta(b"x", **meta))
    refused(path, kind, path, words)
    assert read_with_little(path).startswith(kind.__name__)


@pytest.mark.parametrize("shape", [(1,) * 65, (0, 1 << 62), (1 << 62, 1 << 62, 0)], ids=str)
def test_shapes_that_numpy_cannot_have(path, shape):
    values = np.zeros(0 if 0 in shape else 1, np.float32)
    part = (None,) * len(shape)
    entries = {b"": slices_meta([SliceMeta(b"x", 1, shape, (part,))])}
    entries[slice_key(b"x", part)] = slice_data(b"x", part, tensor_values(values))
    write_table(path, entries)
    refused(path, Unsupported, path, "x of shape", "is larger than any array")


@pytest.mark.framework
@pytest.mark.parametrize("count", [0, 1, 5, 7])
def test_a_tensor_of_too_few_or_too_many_values(tf, path, count):
    # One value elsewhere stands for all; TensorFlow's own reader does not take it here.
    (entries,) = write_slices(path, {"x": X})
    values = tensor_values(np.ones(count, np.float32))
    write_table(path, entries | {X_KEY: slice_data(b"x", ALL_OF_X, values)})
    refused(path, Corrupt, path, f"should have 6 values of its element type, but has {count}")
    with pytest.raises(tf.errors.OpError):
        tf.raw_ops.RestoreV2(
            prefix=str(path), tensor_names=["x"], shape_and_slices=[""], dtypes=[tf.float32]
        )


def test_a_tensor_as_bytes_is_not_what_the_writer_writes(path):
    (entries,) = write_slices(path, {"x": X})
    value = slice_data(b"x", ALL_OF_X, bytes_field(4, X.tobytes()))
    write_table(path, entries | {X_KEY: value})
    refused(path, Corrupt, path, "should have 6 values of its element type, but has 0")


@pytest.mark.framework
def test_narrow_integers_out_of_range_are_cut_as_tensorflow_cuts_them(tf, path):
    wide = np.array([300, -1, 70000], np.int32)
    (entries,) = write_slices(path, {"x": wide.astype(np.uint8)})
    entries[slice_key(b"x", (None,))] = slice_data(b"x", (None,), tensor_values(wide))
    write_table(path, entries)
    assert_agrees_with_tensorflow(tf, path, 1, "tf-v1")


def test_a_missing_slice(path):
    (entries,) = write_slices(path, {"x": X, "y": Y})
    del entries[X_KEY]
    write_table(path, entries)
    refused(path, Corrupt, path, "the values of x, or of a slice of it, are missing")
    np.testing.assert_array_equal(read(path, "y"), Y)


def test_slices_that_overlap(path):
    # Together they have 6 elements, as x has; but the middle column is there twice.
    write_slices(path, {"x": X}, slices={"x": [(None, (0, 2)), (None, (1, 1))]})
    refused(path, Corrupt, path, "the slices of x overlap")


def test_slices_that_leave_a_gap(path):
    write_slices(path, {"x": X}, slices={"x": [LEFT, (None, (2, 1))]})
    refused(path, Incomplete, path, "the slices of x do not add up to its shape [2, 3]")


def test_an_entry_that_cannot_be_parsed(path):
    (entries,) = write_slices(path, {"x": X})
    write_table(path, entries | {X_KEY: b"\x12\xff"})
    refused(path, Corrupt, path, "the entry of x cannot be parsed")
    write_table(path, entries | {b"": b"\x0a\xff"})
    refused(path, Corrupt, path, "its table of contents cannot be parsed")


@pytest.mark.processes
@pytest.mark.parametrize("key", [b"", X_KEY], ids=["table of contents", "values"])
def test_a_protocol_buffer_nested_deeply(path, key):
    # Each level needs a few bytes more; unknown fields and groups nest as deeply as the bytes do.
    (entries,) = write_slices(path, {"x": X})
    nested = b""
    while len(nested) < 60_000:
        nested = bytes_field(99, nested)
    groups = varint(99 << 3 | 3) * 50_000 + varint(99 << 3 | 4) * 50_000
    for hostile in (nested, groups, bytes_field(1, groups), bytes_field(2, groups)):
        write_table(path, entries | {key: entries[key] + hostile})
        assert read_with_little(path).startswith("read" if hostile is nested else "Corrupt")


def test_a_newer_format(path):
    (entries,) = write_slices(path, {"x": X})
    meta = SliceMeta(b"x", 1, (2, 3), (ALL_OF_X,))
    write_table(path, entries | {b"": slices_meta([meta], min_consumer=1)})
    np.testing.assert_array_equal(read(path), X)
    write_table(path, entries | {b"": slices_meta([meta], min_consumer=2)})
    refused(path, Unsupported, path, "it needs a reader of version 2 of the format")


# --- Shards that do not belong together -----------------------------------------------------------


def test_shards_that_changed_places_are_the_same_checkpoint(path):
    # A shard does not know its number; TensorFlow takes what each says it has, and so do we.
    write_slices(path, {"x": X, "y": Y}, shards=2, slices={"x": [LEFT, RIGHT]})
    first, second = slices_path(path, 0, 2), slices_path(path, 1, 2)
    contents = first.read_bytes(), second.read_bytes()
    first.write_bytes(contents[1])
    second.write_bytes(contents[0])
    np.testing.assert_array_equal(read(path), X)
    np.testing.assert_array_equal(read(path, "y"), Y)


def test_one_shard_twice(path):
    write_slices(path, {"x": X, "y": Y}, shards=2)
    shutil.copy(slices_path(path, 0, 2), slices_path(path, 1, 2))
    refused(path, Corrupt, slices_path(path, 1, 2), "a slice of x is listed twice")


@pytest.mark.parametrize("other", [X.astype(np.float64), X.reshape(3, 2)], ids=["dtype", "shape"])
def test_shards_of_different_checkpoints(path, other):
    slices = {"x": [LEFT, RIGHT]}
    write_slices(path, {"x": other}, shards=2, slices=slices)
    foreign = slices_path(path, 1, 2).read_bytes()
    write_slices(path, {"x": X}, shards=2, slices=slices)
    slices_path(path, 1, 2).write_bytes(foreign)
    refused(path, Corrupt, slices_path(path, 1, 2), "x has another shape or element type")


def test_a_shard_of_a_checkpoint_cut_otherwise(path):
    write_slices(path, {"x": X}, shards=2, slices={"x": [(None, (0, 2)), (None, (2, 1))]})
    foreign = slices_path(path, 1, 2).read_bytes()
    write_slices(path, {"x": X}, shards=2, slices={"x": [LEFT, RIGHT]})
    slices_path(path, 1, 2).write_bytes(foreign)
    refused(path, Incomplete, f"{path}-?????-of-00002", "the slices of x do not add up")


def test_a_shard_that_is_a_v2_file(path):
    write_slices(path, {"x": X, "y": Y}, shards=2)
    write_bundle(path, {"x": X})
    shutil.move(f"{path}.index", slices_path(path, 1, 2))
    refused(path, Unsupported, slices_path(path, 1, 2), "lost its name")


# --- Hostile files: small, but asking for much ----------------------------------------------------


@pytest.mark.processes
def test_the_reader_lives_with_little(path):
    write_slices(path, {f"scope/{i}": Y for i in range(5000)})
    assert read_with_little(path) == "read"


@pytest.mark.processes
@pytest.mark.parametrize("growth", [150, 1000, 10_000])
def test_keys_that_grow_to_gigabytes(path, growth):
    path.write_bytes(table_of([(b"z", sealed(growing_block(1 << 20, growth)))]))
    assert read_with_little(path).startswith(f"Corrupt {path}: an entry")


@pytest.mark.processes
def test_blocks_that_unpack_to_gigabytes(path):
    # Each block holds a sound variable, and zeros beside it of which snappy makes a twentieth.
    one, part = np.ones(1, np.float32), (None,)
    names = [b"v%04d" % i for i in range(300)]
    metas = [SliceMeta(name, 1, (1,), (part,)) for name in names]
    blocks = [(b"", sealed(block([(b"", slices_meta(metas))])))]
    for name in names:
        key = slice_key(name, part)
        sound = (key, slice_data(name, part, tensor_values(one)))
        contents = block([sound, (key + b"\0", bytes(4 << 20))])
        blocks.append((key + b"\0", sealed(snappy(contents), SNAPPY)))
    path.write_bytes(table_of(blocks))
    assert path.stat().st_size < 70 << 20
    assert "claim far more bytes than are stored" in read_with_little(path, 600 << 20)


def test_one_block_under_many_handles(path):
    data = sealed(bytes(4) * 250_000 + b"\x90\xd0\x03\x00")
    blocks = [(b"%06d" % i, sealed(block([]))) for i in range(20_000)]
    path.write_bytes(table_of([(b"", data), *blocks], {5: varint(0) + varint(len(data) - 5)}))
    refused(path, Corrupt, path, "two of its blocks overlap")


@pytest.mark.processes
@pytest.mark.parametrize("shape", [(0,) * 200_000, (1 << 62,) * 100_000])
def test_a_shape_of_very_many_dimensions(path, shape):
    with_meta(path, SliceMeta(b"x", 1, shape, ()))
    assert read_with_little(path).startswith(f"Corrupt {path}: the entry of x has {len(shape)}")


@pytest.mark.processes
def test_one_slice_named_very_often(path):
    part = ((0, 0),)
    entries = {b"": slices_meta([SliceMeta(b"x", 1, (0,), (part,) * 100_000)])}
    entries[slice_key(b"x", part)] = slice_data(b"x", part, bytes_field(8, bytes(1 << 20)))
    write_table(path, entries)
    assert "a slice of x is listed twice" in read_with_little(path)


@pytest.mark.processes
def test_very_many_names(path):
    metas = [SliceMeta(b"%x" % i) for i in range(100_000)]
    write_table(path, {b"": slices_meta(metas)})
    assert read_with_little(path).startswith("Incomplete")


@pytest.mark.processes
def test_integers_of_one_byte_each(path):
    # A byte of a varint becomes eight: TensorFlow's own growth, and no more than that.
    write_slices(path, {"x": np.zeros(1 << 20, np.int64)})
    assert path.stat().st_size < 1_100_000
    assert read_with_little(path) == "read"


def test_more_shards_than_there_are(tmp_path):
    path = tmp_path / "x-00000-of-99999999999999999999"
    path.write_bytes(table({b"": slices_meta([])}))
    missing = tmp_path / "x-00001-of-99999999999999999999"
    refused(path, Incomplete, missing, "this shard")


@pytest.mark.processes
def test_a_pipe_among_the_shards(path):
    write_slices(path, {"x": X, "y": Y}, shards=2)
    slices_path(path, 1, 2).unlink()
    os.mkfifo(slices_path(path, 1, 2))
    assert read_with_little(path).startswith(
        f"UnknownFormat {slices_path(path, 1, 2)}: this is not"
    )


def test_unknown_rank(path):
    (entries,) = write_slices(path, {"x": X})
    meta = bytes_field(1, b"x") + bytes_field(2, number_field(3, 1)) + number_field(3, 1)
    write_table(path, entries | {b"": bytes_field(1, bytes_field(1, meta))})
    refused(path, Corrupt, path, "x has the impossible shape")


def test_a_first_block_that_begins_like_json(tmp_path):
    """A compressed block begins with its length, and 123 is `{`."""
    for length in range(1, 200):
        path = tmp_path / f"model.ckpt-{length}"
        write_slices(path, {"n" * length: np.ones(2, np.float32)}, compress=True)
        if path.read_bytes().startswith(b"{"):
            break
    else:
        raise AssertionError("no name makes such a file")
    with bninspect.open_checkpoint(str(path)) as checkpoint:
        assert checkpoint.format == "tf-v1"
        assert list(checkpoint.variables) == ["n" * length]
