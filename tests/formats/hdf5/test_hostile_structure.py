"""HDF5 files whose structure leads to itself, overlaps or is damaged: each read ends, and soon.

HDF5 itself follows such a structure for ever, or takes gigabytes for it.
"""

from __future__ import annotations

import contextlib
import io
import struct
from collections.abc import Callable, Iterator
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bninspect.errors import Corrupt, ReadProblem
from bninspect.formats.hdf5.checksum import lookup3
from bninspect.formats.hdf5.file import Hdf5, join
from bninspect.formats.hdf5.structure import Structure
from bninspect.formats.keras.h5 import is_keras_h5, read_keras_h5
from bninspect.formats.keras.weights_h5 import read_keras_weights
from bninspect.storage.source import Window

BLOCKS = (b"TREE", b"HEAP", b"SNOD", b"GCOL", b"OHDR", b"OCHK", b"FRHP", b"FHDB", b"FHIB")
BLOCKS += (b"BTHD", b"BTIN", b"BTLF", b"FAHD", b"FADB")
NODE = struct.Struct("<4sBBHQQ")  # signature, type, level, entries, left and right sibling
SYMBOL_SIZE = 40


def written(write: Callable[[Any], None], **options: Any) -> bytearray:
    """Return the HDF5 file that a function writes by h5py."""
    stored = io.BytesIO()
    with h5py.File(stored, "w", **options) as file:
        write(file)
    return bytearray(stored.getvalue())


def many_groups(count: int) -> Callable[[Any], None]:
    def write(file: Any) -> None:
        for number in range(count):
            file.create_group(f"group{number:05}")

    return write


def layers(**options: Any) -> Callable[[Any], None]:
    """Write what Keras 3 stores of a layer, in chunks by options, and many layers without."""

    def write(file: Any) -> None:
        group = file.create_group("layers/batch_normalization/vars")
        group.attrs["name"] = "bn"
        for number in range(4):
            values = np.arange(8, dtype="f4") + number
            group.create_dataset(str(number), data=values, **options)
        for number in range(40):
            file.create_group(f"layers/dense_{number}")
        for number in range(12):
            group.attrs[f"more{number}"] = "text" * number

    return write


def legacy(file: Any) -> None:
    """Write what Keras 2 stores of a layer."""
    file.attrs["layer_names"] = [b"bn"]
    names = ("gamma:0", "beta:0", "moving_mean:0", "moving_variance:0")
    file.create_group("bn").attrs["weight_names"] = [name.encode() for name in names]
    for name in names:
        file["bn"][name] = np.arange(8, dtype="f4")


def places_of(data: bytes, signature: bytes) -> Iterator[int]:
    at = data.find(signature)
    while at >= 0:
        yield at
        at = data.find(signature, at + 1)


def read_all(data: bytes) -> int:
    """Read whatever the file names; return how many bytes were read for it."""
    count = 0

    def read(at: int, length: int) -> bytes:
        nonlocal count
        count += length
        return bytes(data[at : at + length])

    with contextlib.suppress(ReadProblem):
        file = Hdf5("model.h5", Window(read, len(data)))
        is_h5 = is_keras_h5(file)
        checkpoint = (read_keras_h5 if is_h5 else read_keras_weights)("model.h5", file)
        for variables in (checkpoint.variables, checkpoint.optimizer):
            for name in variables:
                with contextlib.suppress(ReadProblem):
                    assert variables[name].read().shape == variables[name].shape
    return count


def opened(data: bytes) -> Hdf5:
    return Hdf5("model.h5", Window(lambda at, length: bytes(data[at : at + length]), len(data)))


def refused(data: bytes, words: str) -> None:
    file = opened(data)
    with pytest.raises(Corrupt, match=words):
        [file.variable(join(path, name)) for path, others in file.walk() for name in others]


# --- Circles --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("count", [4, 600])
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_node_that_is_its_own_sibling(count: int, side: str) -> None:
    data = written(many_groups(count))
    nodes = [*places_of(data, b"TREE")]
    assert nodes
    for at in nodes:
        changed = bytearray(data)
        struct.pack_into("<Q", changed, at + (8 if side == "left" else 16), at)
        refused(changed, "a damaged node of a B-tree")


def test_a_node_below_itself() -> None:
    data = written(many_groups(600))
    above = [at for at in places_of(data, b"TREE") if data[at + 5]]
    assert above
    for at in above:
        children = data[at + 6]
        for child in range(children):
            changed = bytearray(data)
            struct.pack_into("<Q", changed, at + NODE.size + 8 + 16 * child, at)
            refused(changed, "a B-tree that leads to itself|a damaged node")


def test_a_tree_without_leaves() -> None:
    data = written(many_groups(600))
    above = [at for at in places_of(data, b"TREE") if data[at + 5]]
    assert above
    for at in above:
        data[at + 6 : at + 8] = bytes(2)
    refused(data, "a B-tree without leaves")


def test_leaves_that_are_one() -> None:
    data = written(many_groups(20))
    (root,) = (at for at in places_of(data, b"TREE") if data[at + 6] > 1)
    first = data[root + NODE.size + 8 :][:8]
    data[root + NODE.size + 24 : root + NODE.size + 32] = first
    refused(data, "two leaves of a group that are one")


def sealed(data: bytearray, at: int, length: int) -> None:
    """Give a block of `length` bytes, its checksum among them, a right checksum."""
    struct.pack_into("<I", data, at + length - 4, lookup3(bytes(data[at : at + length - 4])))


def test_a_node_of_a_newer_tree_below_itself() -> None:
    data = written(many_groups(500), libver="latest")
    (head,) = places_of(data, b"BTHD")
    root, records = struct.unpack_from("<QH", data, head + 16)
    assert data[root : root + 4] == b"BTIN"
    record, pointer = 11, 8 + 1
    struct.pack_into("<Q", data, root + 6 + records * record, root)
    sealed(data, root, 6 + records * record + (records + 1) * pointer + 4)
    refused(data, "a B-tree that leads to itself|no BTLF block")


def test_a_header_that_goes_on_in_itself() -> None:
    data = written(legacy)
    continued = struct.pack("<HHBxxx", 0x10, 16, 0)
    (at, *_) = places_of(data, continued)
    address, length = struct.unpack_from("<QQ", data, at + 8)
    data[address : address + 24] = data[at : at + 24]
    struct.pack_into("<QQ", data, address + 8, address, length)
    refused(data, "without end")


# --- Parts that overlap ---------------------------------------------------------------------------


def test_names_that_are_the_ends_of_one() -> None:
    """Each of 2,000 names is some 30 kB long, all of them lie in 60 kB."""

    def write(file: Any) -> None:
        many_groups(2000)(file)
        file.create_group("x" * 60_000)

    data = written(write)
    (long,) = places_of(data, b"x" * 60_000)
    heap = max(places_of(data, b"HEAP"), key=lambda at: struct.unpack_from("<Q", data, at + 8))
    (names,) = struct.unpack_from("<Q", data, heap + 24)
    number = 0
    for node in places_of(data, b"SNOD"):
        for entry in range(data[node + 6]):
            number += 1
            place = long - names + 30 * number
            struct.pack_into("<Q", data, node + 8 + SYMBOL_SIZE * entry, place)
    assert number == 2001
    refused(data, "without end")


def test_groups_that_share_what_is_in_them() -> None:
    """Each of 2,000 groups has a header of its own, and the 2,000 members of one table."""
    data = written(many_groups(2000))
    (root,) = struct.unpack_from("<Q", data, 64)
    table = struct.unpack_from("<QQ", data, 80)
    assert data[root] == 1
    message = struct.pack("<HHBxxx", 0x11, 16, 0)
    headers = [at for at in places_of(data, message) if at - 16 != root]
    assert len(headers) == 2000
    for at in headers:
        struct.pack_into("<QQ", data, at + 8, *table)
    refused(data, "without end")


def test_paths_that_are_longer_than_the_file() -> None:
    """A hundred groups within each other, with names of 10 kB, and thousands in the last."""

    def write(file: Any) -> None:
        group = file
        for _ in range(90):
            group = group.create_group("n" * 10_000)
        many_groups(5000)(group)

    refused(written(write), "without end")


def test_names_that_are_given_again_and_again() -> None:
    """Thousands of layers that are one, with thousands of weights each that are one."""

    def write(file: Any) -> None:
        file.attrs["layer_names"] = np.array([b"layer_with_a_name"] * 3000)
        group = file.create_group("layer_with_a_name")
        group.attrs["weight_names"] = np.array([b"w"] * 30_000)
        group["w"] = np.zeros(3)

    file = opened(written(write))
    with pytest.raises(Corrupt, match="without end"):
        read_keras_h5("model.h5", file)


# --- Damage of any kind ---------------------------------------------------------------------------

FILES = [
    written(legacy),
    written(layers()),
    written(layers(chunks=(3,))),
    written(layers(chunks=(3,), compression="gzip", shuffle=True, fletcher32=True)),
    written(layers(), libver=("v108", "v108"), track_order=True),
    written(legacy, libver="latest"),
    written(layers(chunks=(3,)), libver="latest"),
    written(layers(chunks=(8,), compression="gzip"), libver="latest"),
]


@st.composite
def damaged(draw: Any) -> bytes:
    """A file in whose structure addresses, counts and sizes were overwritten."""
    data = bytearray(draw(st.sampled_from(FILES)))
    blocks = [at for signature in BLOCKS for at in places_of(data, signature)]
    headers = [16 * at for at in range(len(data) // 16)]
    numbers = st.sampled_from([0, 1, 2, 255, 65535, (1 << 31) - 1, (1 << 63) - 1, (1 << 64) - 1])
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.sampled_from(blocks)) + draw(st.integers(0, 200))
        width = draw(st.sampled_from([1, 2, 4, 8]))
        number = draw(st.sampled_from(blocks) | st.sampled_from(headers) | numbers)
        part = number.to_bytes(8, "little")[:width]
        data[at : at + width] = part[: max(len(data) - at, 0)]
    return bytes(data)


@pytest.mark.parametrize("checksums_are_right", [False, True])
@given(data=damaged())
def test_damage_is_read_or_refused(checksums_are_right: bool, data: bytes) -> None:
    """With right checksums damage gets as far as a hostile file can go."""
    with pytest.MonkeyPatch.context() as patch:
        if checksums_are_right:
            patch.setattr(Structure, "verify", lambda *_: None)
        assert read_all(data) < (1 << 20) + 5 * len(data)
