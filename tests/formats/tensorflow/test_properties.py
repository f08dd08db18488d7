"""What holds for every V1 and V2 checkpoint: sound ones come back, damaged ones never as others.

Damage comes in two kinds. Under a broken checksum nothing but the right values may be read. Under
a right one (a file made to mislead) other values are possible, but still no other exception.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bninspect
from bninspect.errors import ReadProblem
from tests.support.table_writer import (
    DTYPES,
    SNAPPY,
    block,
    index_path,
    sealed,
    shard_path,
    slices_path,
    snappy,
    table_of,
    write_bundle,
    write_index,
    write_slices,
    write_table,
)

# The same examples in every run; files make the time of one example vary, so it has no deadline.
ALWAYS_THE_SAME = settings(derandomize=True, deadline=None, max_examples=200)

SMALL = {
    "bn/beta": np.linspace(-1, 1, 4, dtype=np.float32),
    "bn/moving_mean": np.arange(12, dtype=np.float64).reshape(3, 4),
    "bn/moving_variance": np.array([1, 2, 3], np.int16),
    "global_step": np.array(7, np.int64),
}
SMALL_SLICES = {"bn/moving_mean": [((0, 3), (0, 1)), ((0, 1), (1, 3)), ((1, 2), (1, 3))]}

# Every name but the empty one, which is the header's, and those that start like a slice's key.
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40).filter(
    lambda name: not name.startswith("\0")
)
shapes = st.lists(st.integers(0, 4), max_size=4).map(tuple)


class V1:
    """The container of `tf.train.Saver(write_version=V1)`: slices in tables."""

    last_key = b"\xff"  # of the one block of a table

    @staticmethod
    def write(place, variables, *, draw=None, **options):
        """Write a checkpoint, with a layout that is drawn, and return its entries by key."""
        if draw is not None:
            options["shards"] = draw(st.integers(0, 4), "shards")
            options["packed"] = draw(st.booleans(), "packed")
        return write_slices(place, variables, **options)[0]

    @staticmethod
    def holds(array):
        return array.dtype.kind != "c"

    @staticmethod
    def files(place):
        return [slices_path(place, 0, 2), slices_path(place, 1, 2)]

    @staticmethod
    def encoded(entries):
        return dict(entries)

    table = staticmethod(lambda place: place)
    write_entries = staticmethod(write_table)


class V2:
    """The container of today: an index, which is a table, and shards."""

    last_key = b"z"

    @staticmethod
    def write(place, variables, *, draw=None, **options):
        """Write a checkpoint, with a layout that is drawn, and return its entries by key."""
        if draw is not None:
            options["shards"] = draw(st.integers(1, 4), "shards")
            options["big_endian"] = draw(st.booleans(), "big-endian")
        return write_bundle(place, variables, **{"shards": 2} | options)

    @staticmethod
    def holds(_array):
        return True

    @staticmethod
    def files(place):
        return [index_path(place), shard_path(place, 0, 2), shard_path(place, 1, 2)]

    @staticmethod
    def encoded(entries):
        return {key: entry.encode() for key, entry in entries.items()}

    table = staticmethod(index_path)
    write_entries = staticmethod(write_index)


class Checkpoint(NamedTuple):
    """Where a container lies."""

    container: type[V1] | type[V2]
    place: object


@pytest.fixture(scope="module", params=[V1, V2], ids=["v1", "v2"])
def checkpoint(request, tmp_path_factory):
    """One place for all examples of a container: each writes its files over those of the last."""
    return Checkpoint(request.param, tmp_path_factory.mktemp("checkpoint") / "model.ckpt")


def clear(place):
    """Remove the shards of the last example, which had another number of them."""
    for old in place.parent.iterdir():
        old.unlink()


@st.composite
def arrays(draw):
    """An array of any stored type that numpy knows, and of any bits."""
    dtype = np.dtype(draw(st.sampled_from(sorted(DTYPES.keys() - {"bfloat16"}))))
    shape = draw(shapes)
    size = int(np.prod(shape)) * dtype.itemsize
    data = np.random.default_rng(draw(st.integers(0, 2**32))).integers(0, 256, size, np.uint8)
    return (data % 2 if dtype.kind == "b" else data).view(dtype).reshape(shape)


def cut(draw, array):
    """Slices of `array`: its first dimension cut at random places, the others whole or not."""
    rows = array.shape[0]
    cuts = sorted(draw(st.sets(st.integers(1, max(rows - 1, 1)), max_size=3)) & set(range(1, rows)))
    rest = tuple(draw(st.sampled_from([None, (0, size)])) for size in array.shape[1:])
    return [((a, b - a), *rest) for a, b in zip([0, *cuts], [*cuts, rows], strict=True)]


@ALWAYS_THE_SAME
@given(data=st.data(), variables=st.dictionaries(names, arrays(), max_size=8))
def test_what_was_written_is_read(checkpoint, data, variables):
    container, place = checkpoint
    variables = {name: array for name, array in variables.items() if container.holds(array)}
    may_be_cut = [name for name, array in variables.items() if array.ndim and array.size]
    chosen = data.draw(st.sets(st.sampled_from(may_be_cut)) if may_be_cut else st.just(set()))
    clear(place)
    container.write(
        place,
        variables,
        draw=data.draw,
        slices={name: cut(data.draw, variables[name]) for name in sorted(chosen)},
        compress=data.draw(st.booleans(), "compress"),
        block_size=data.draw(st.integers(1, 400), "block size"),
        restart_interval=data.draw(st.integers(1, 20), "restart interval"),
    )
    with bninspect.open_checkpoint(str(place)) as opened:
        assert set(opened.variables) == set(variables)
        for name, written in variables.items():
            variable = opened.variables[name]
            assert (variable.shape, variable.dtype) == (written.shape, written.dtype.name)
            read = variable.read()
            assert (read.shape, read.dtype) == (written.shape, written.dtype)
            assert read.tobytes() == written.tobytes()


def attempt(place, action):
    """What `action` returns, or None if it raises a ReadProblem, which must name the file."""
    try:
        return action()
    except ReadProblem as problem:
        path = problem.path
    assert str(place) in path
    return None


def read_all(place):
    """The variables that can be read, by name; any exception but a ReadProblem comes through."""
    opened = attempt(place, lambda: bninspect.open_checkpoint(str(place)))
    if opened is None:
        return {}
    found = {}
    with opened:
        for name in opened.variables:
            variable = attempt(place, lambda name=name: opened.variables[name])
            values = variable and attempt(place, variable.read)
            if values is not None:
                assert values.shape == variable.shape
                found[name] = values
    return found


def assert_right_or_refused(place):
    for name, array in read_all(place).items():
        assert array.dtype == SMALL[name].dtype
        assert array.tobytes() == SMALL[name].tobytes()


@st.composite
def damages(draw):
    """A function from a file's bytes to others: cut off, flipped, overwritten, cut out, put in."""
    kind = draw(st.sampled_from(["cut off", "flip", "overwrite", "cut out", "put in"]))
    at, length = draw(st.floats(0, 1, exclude_max=True)), draw(st.integers(1, 30))
    bit, new = draw(st.integers(0, 7)), draw(st.binary(min_size=1, max_size=30))

    def damage(contents):
        place = int(at * len(contents))
        head, tail = contents[:place], contents[place:]
        if kind == "cut off":
            return head
        if kind == "flip":
            return head + bytes([tail[0] ^ 1 << bit]) + tail[1:] if tail else head
        if kind == "overwrite":
            return (head + new + tail[len(new) :])[: max(len(contents), 1)]
        return head + (tail[length:] if kind == "cut out" else new + tail)

    return damage


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "snappy"])
def sound(request, checkpoint, tmp_path_factory):
    """A checkpoint of two shards: its place, and the bytes of its files."""
    place = tmp_path_factory.mktemp("damaged") / "model.ckpt"
    layout = {"compress": request.param, "block_size": 60, "shards": 2, "slices": SMALL_SLICES}
    checkpoint.container.write(place, SMALL, **layout)
    return place, {file: file.read_bytes() for file in checkpoint.container.files(place)}


def test_the_sound_checkpoint_is_read(sound):
    place, files = sound
    for file, contents in files.items():
        file.write_bytes(contents)
    assert read_all(place).keys() == SMALL.keys()
    assert_right_or_refused(place)


@pytest.mark.slow
@ALWAYS_THE_SAME
@given(which=st.integers(0, 2), changes=st.lists(damages(), min_size=1, max_size=3))
def test_damage_gives_the_right_answer_or_a_problem(sound, which, changes):
    place, files = sound
    for number, (file, contents) in enumerate(files.items()):
        damaged = contents
        for change in changes if number == which % len(files) else ():
            damaged = change(damaged)
        file.write_bytes(damaged)
    assert_right_or_refused(place)


@pytest.mark.slow
def test_every_flipped_byte_and_every_cut_of_a_v1_file(tmp_path):
    place = tmp_path / "model.ckpt"
    write_slices(place, SMALL, slices=SMALL_SLICES, block_size=60)
    contents = place.read_bytes()
    assert contents
    for at in range(len(contents)):
        place.write_bytes(contents[:at])
        assert not read_all(place)
        place.write_bytes(contents[:at] + bytes([contents[at] ^ 0xFF]) + contents[at + 1 :])
        assert_right_or_refused(place)


@pytest.mark.slow
@ALWAYS_THE_SAME
@given(data=st.data())
def test_a_changed_entry_under_a_right_checksum_gives_an_answer_or_a_problem(checkpoint, data):
    container, place = checkpoint
    clear(place)
    entries = container.write(place, SMALL, slices=SMALL_SLICES)
    encoded = container.encoded(entries)
    for key in data.draw(st.sets(st.sampled_from(sorted(entries)), min_size=1), "keys"):
        entries[key] = data.draw(damages())(encoded[key])
    container.write_entries(place, entries)
    read_all(place)


@pytest.mark.slow
@ALWAYS_THE_SAME
@given(
    compression=st.sampled_from(["none", "before the damage", "behind the damage"]),
    changes=st.lists(damages(), min_size=1, max_size=3),
)
def test_a_changed_block_under_a_right_checksum_gives_an_answer_or_a_problem(
    checkpoint, compression, changes
):
    container, place = checkpoint
    clear(place)
    entries = container.write(place, SMALL, slices=SMALL_SLICES)
    contents = block(sorted(container.encoded(entries).items()))
    if compression == "before the damage":
        contents = snappy(contents)
    for change in changes:
        contents = change(contents)
    if compression == "behind the damage":
        contents = snappy(contents)
    data = sealed(contents, 0 if compression == "none" else SNAPPY)
    container.table(place).write_bytes(table_of([(container.last_key, data)]))
    read_all(place)


@ALWAYS_THE_SAME
@given(rows=st.integers(1, 6), drop=st.integers(0, 5), twice=st.integers(0, 5))
def test_slices_of_v1_are_complete_or_refused(tmp_path_factory, rows, drop, twice):
    place = tmp_path_factory.mktemp("slices") / "model.ckpt"
    array = np.arange(rows * 2, dtype=np.float32).reshape(rows, 2)
    parts = [((row, 1), None) for row in range(rows) if row != drop]
    parts += [((twice, 1), (0, 2))] if twice < rows else []
    write_slices(place, {"bn/beta": array}, slices={"bn/beta": parts})
    found = read_all(place)
    complete = drop >= rows and twice >= rows
    refilled = drop < rows and twice == drop
    assert bool(found) == (complete or refilled)
    if found:
        np.testing.assert_array_equal(found["bn/beta"], array)
