"""What holds for every V1 checkpoint, as `test_v2_bundle_properties` says it of V2."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import bninspect
from tests.formats.tensorflow.test_v2_bundle_properties import (
    ALWAYS_THE_SAME,
    SMALL,
    SMALL_SLICES,
    arrays,
    assert_right_or_refused,
    cut,
    damages,
    names,
    read_all,
)
from tests.support.table_writer import (
    SNAPPY,
    block,
    sealed,
    slices_path,
    snappy,
    table_of,
    write_slices,
    write_table,
)


@pytest.fixture(scope="module")
def prefix(tmp_path_factory):
    """One place for all examples: each writes its files over those of the last."""
    return tmp_path_factory.mktemp("checkpoint") / "model.ckpt"


def clear(prefix):
    """Remove the shards of the last example, which had another number of them."""
    for old in prefix.parent.iterdir():
        old.unlink()


@ALWAYS_THE_SAME
@given(data=st.data(), variables=st.dictionaries(names, arrays(), max_size=8))
def test_what_was_written_is_read(prefix, data, variables):
    variables = {name: array for name, array in variables.items() if array.dtype.kind != "c"}
    may_be_cut = [name for name, array in variables.items() if array.ndim and array.size]
    chosen = data.draw(st.sets(st.sampled_from(may_be_cut)) if may_be_cut else st.just(set()))
    shards = data.draw(st.integers(0, 4), "shards")
    clear(prefix)
    write_slices(
        prefix,
        variables,
        shards=shards,
        slices={name: cut(data.draw, variables[name]) for name in sorted(chosen)},
        packed=data.draw(st.booleans(), "packed"),
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


@pytest.fixture(scope="module", params=["plain", "snappy"])
def sound(request, tmp_path_factory):
    """A checkpoint of two shards, as the place of the whole and the shards' bytes."""
    place = tmp_path_factory.mktemp("damaged") / "model.ckpt"
    compress = request.param == "snappy"
    write_slices(place, SMALL, shards=2, slices=SMALL_SLICES, compress=compress, block_size=60)
    files = [slices_path(place, 0, 2), slices_path(place, 1, 2)]
    return place, {file: file.read_bytes() for file in files}


def test_the_sound_checkpoint_is_read(sound):
    place, files = sound
    for file, contents in files.items():
        file.write_bytes(contents)
    assert read_all(place).keys() == SMALL.keys()
    assert_right_or_refused(place)


@ALWAYS_THE_SAME
@given(which=st.integers(0, 1), changes=st.lists(damages(), min_size=1, max_size=3))
def test_damage_gives_the_right_answer_or_a_problem(sound, which, changes):
    place, files = sound
    for number, (file, contents) in enumerate(files.items()):
        damaged = contents
        for change in changes if number == which else ():
            damaged = change(damaged)
        file.write_bytes(damaged)
    assert_right_or_refused(place)


def test_every_flipped_byte_and_every_cut(tmp_path):
    place = tmp_path / "model.ckpt"
    write_slices(place, SMALL, slices=SMALL_SLICES, block_size=60)
    contents = place.read_bytes()
    for at in range(len(contents)):
        place.write_bytes(contents[:at])
        assert not read_all(place)
        place.write_bytes(contents[:at] + bytes([contents[at] ^ 0xFF]) + contents[at + 1 :])
        assert_right_or_refused(place)


@ALWAYS_THE_SAME
@given(data=st.data())
def test_a_changed_entry_under_a_right_checksum_gives_an_answer_or_a_problem(prefix, data):
    clear(prefix)
    (entries,) = write_slices(prefix, SMALL, slices=SMALL_SLICES)
    for key in data.draw(st.sets(st.sampled_from(sorted(entries)), min_size=1), "keys"):
        entries[key] = data.draw(damages())(entries[key])
    write_table(prefix, entries)
    read_all(prefix)


@ALWAYS_THE_SAME
@given(
    compression=st.sampled_from(["none", "before the damage", "behind the damage"]),
    changes=st.lists(damages(), min_size=1, max_size=3),
)
def test_a_changed_block_under_a_right_checksum_gives_an_answer_or_a_problem(
    prefix, compression, changes
):
    clear(prefix)
    (entries,) = write_slices(prefix, SMALL, slices=SMALL_SLICES)
    contents = block(sorted(entries.items()))
    if compression == "before the damage":
        contents = snappy(contents)
    for change in changes:
        contents = change(contents)
    if compression == "behind the damage":
        contents = snappy(contents)
    prefix.write_bytes(
        table_of([(b"\xff", sealed(contents, 0 if compression == "none" else SNAPPY))])
    )
    read_all(prefix)


@ALWAYS_THE_SAME
@given(rows=st.integers(1, 6), drop=st.integers(0, 5), twice=st.integers(0, 5))
def test_slices_are_complete_or_refused(prefix, rows, drop, twice):
    clear(prefix)
    array = np.arange(rows * 2, dtype=np.float32).reshape(rows, 2)
    parts = [((row, 1), None) for row in range(rows) if row != drop]
    parts += [((twice, 1), (0, 2))] if twice < rows else []
    write_slices(prefix, {"bn/beta": array}, slices={"bn/beta": parts})
    found = read_all(prefix)
    complete = drop >= rows and twice >= rows
    refilled = drop < rows and twice == drop
    assert bool(found) == (complete or refilled)
    if found:
        np.testing.assert_array_equal(found["bn/beta"], array)
