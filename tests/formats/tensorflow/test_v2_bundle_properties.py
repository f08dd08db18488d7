"""What holds for every V2 checkpoint: sound ones come back, damaged ones never as something else.

Damage comes in two kinds. Under a broken checksum nothing but the right values may be read. Under
a right one (a file made to mislead) other values are possible, but still no other exception.
"""

from __future__ import annotations

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
    snappy,
    table_of,
    write_bundle,
    write_index,
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


@pytest.fixture(scope="module")
def prefix(tmp_path_factory):
    """One place for all examples: each writes its files over those of the last."""
    return tmp_path_factory.mktemp("checkpoint") / "model.ckpt"


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
def test_what_was_written_is_read(prefix, data, variables):
    may_be_cut = [name for name, array in variables.items() if array.ndim and array.size]
    chosen = data.draw(st.sets(st.sampled_from(may_be_cut)) if may_be_cut else st.just(set()))
    write_bundle(
        prefix,
        variables,
        shards=data.draw(st.integers(1, 4), "shards"),
        big_endian=data.draw(st.booleans(), "big-endian"),
        slices={name: cut(data.draw, variables[name]) for name in sorted(chosen)},
        compress=data.draw(st.booleans(), "compress"),
        block_size=data.draw(st.integers(1, 400), "block size"),
        restart_interval=data.draw(st.integers(1, 20), "restart interval"),
    )
    with bninspect.open_checkpoint(str(prefix)) as checkpoint:
        assert set(checkpoint.variables) == set(variables)
        for name, written in variables.items():
            variable = checkpoint.variables[name]
            assert (variable.shape, variable.dtype) == (written.shape, written.dtype.name)
            read = variable.read()
            assert (read.shape, read.dtype) == (written.shape, written.dtype)
            assert read.tobytes() == written.tobytes()


def attempt(prefix, action):
    """What `action` returns, or None if it raises a ReadProblem, which must name the file."""
    try:
        return action()
    except ReadProblem as problem:
        path = problem.path
    assert str(prefix) in path
    return None


def read_all(prefix):
    """The variables that can be read, by name; any exception but a ReadProblem comes through."""
    checkpoint = attempt(prefix, lambda: bninspect.open_checkpoint(str(prefix)))
    if checkpoint is None:
        return {}
    found = {}
    with checkpoint:
        for name in checkpoint.variables:
            variable = attempt(prefix, lambda name=name: checkpoint.variables[name])
            values = variable and attempt(prefix, variable.read)
            if values is not None:
                assert values.shape == variable.shape
                found[name] = values
    return found


def assert_right_or_refused(prefix):
    for name, array in read_all(prefix).items():
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
def sound(request, prefix):
    """A checkpoint's index and shards, as bytes."""
    layout = {"compress": request.param, "block_size": 60, "shards": 2, "slices": SMALL_SLICES}
    write_bundle(prefix, SMALL, **layout)
    files = [index_path(prefix), shard_path(prefix, 0, 2), shard_path(prefix, 1, 2)]
    return {file: file.read_bytes() for file in files}


def test_the_sound_checkpoint_is_read(prefix, sound):
    for file, contents in sound.items():
        file.write_bytes(contents)
    found = read_all(prefix)
    assert found.keys() == SMALL.keys()
    assert_right_or_refused(prefix)


@ALWAYS_THE_SAME
@given(which=st.integers(0, 2), changes=st.lists(damages(), min_size=1, max_size=3))
def test_damage_gives_the_right_answer_or_a_problem(prefix, sound, which, changes):
    for number, (file, contents) in enumerate(sound.items()):
        damaged = contents
        for change in changes if number == which else ():
            damaged = change(damaged)
        file.write_bytes(damaged)
    assert_right_or_refused(prefix)


@ALWAYS_THE_SAME
@given(data=st.data())
def test_a_changed_entry_under_a_right_checksum_gives_an_answer_or_a_problem(prefix, data):
    entries = write_bundle(prefix, SMALL, slices=SMALL_SLICES, shards=2)
    for key in data.draw(st.sets(st.sampled_from(sorted(entries)), min_size=1), "keys"):
        entries[key] = data.draw(damages())(entries[key].encode())
    write_index(prefix, entries)
    read_all(prefix)


@ALWAYS_THE_SAME
@given(
    compression=st.sampled_from(["none", "before the damage", "behind the damage"]),
    changes=st.lists(damages(), min_size=1, max_size=3),
)
def test_a_changed_block_under_a_right_checksum_gives_an_answer_or_a_problem(
    prefix, compression, changes
):
    entries = write_bundle(prefix, SMALL, slices=SMALL_SLICES, shards=2)
    contents = block((key, entries[key].encode()) for key in sorted(entries))
    if compression == "before the damage":
        contents = snappy(contents)
    for change in changes:
        contents = change(contents)
    if compression == "behind the damage":
        contents = snappy(contents)
    data = sealed(contents, 0 if compression == "none" else SNAPPY)
    index_path(prefix).write_bytes(table_of([(b"z", data)]))
    read_all(prefix)
