"""The HDF5 reader against h5py: it reads what h5py wrote, in all ways that HDF5 stores it."""

from __future__ import annotations

import contextlib
import io
import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bninspect.errors import Unsupported
from bninspect.formats.hdf5.file import Hdf5, join
from bninspect.storage.source import Window
from tests.conftest import FIXTURES

ALWAYS_THE_SAME = settings(derandomize=True, deadline=None)

LAYOUTS = [None, ("earliest", "v108"), ("v108", "v108"), ("v110", "v110"), "latest"]
DTYPES = ["<f2", "<f4", "<f8", ">f4", "|i1", "<u2", ">i4", "<i8", "?"]

names = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0/"), min_size=1, max_size=40
).filter(lambda name: name not in (".", ".."))
texts = st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=20))


@st.composite
def arrays(draw: Any) -> tuple[np.ndarray, dict[str, Any]]:
    """An array of numbers, and how h5py is to store it."""
    shape = tuple(draw(st.lists(st.integers(0, 9), max_size=3)))
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    seed = draw(st.integers(0, 1000))
    data = np.random.default_rng(seed).integers(0, 256, math.prod(shape) * dtype.itemsize, "u1")
    values = (data % 2 if dtype.kind == "b" else data).view(dtype).reshape(shape)
    if not values.size or not shape or draw(st.booleans()):
        return values, {}
    options: dict[str, Any] = {
        "chunks": tuple(draw(st.integers(1, size)) for size in shape),
        "shuffle": draw(st.booleans()),
        "fletcher32": draw(st.booleans()),
        "compression": draw(st.sampled_from([None, "gzip"])),
    }
    return values, options


groups = st.recursive(
    st.fixed_dictionaries({"texts": st.dictionaries(names, texts, max_size=3)}),
    lambda below: st.fixed_dictionaries(
        {
            "texts": st.dictionaries(names, texts, max_size=12),
            "members": st.dictionaries(names, arrays() | below, max_size=20),
        }
    ),
    max_leaves=8,
)


def write(group: Any, content: dict[str, Any]) -> None:
    for name, strings in content["texts"].items():
        group.attrs.create(name, strings, (len(strings),), h5py.string_dtype())
    for name, member in content.get("members", {}).items():
        if isinstance(member, dict):
            write(group.create_group(name), member)
        else:
            group.create_dataset(name, data=member[0], **member[1])


@contextlib.contextmanager
def opened(data: bytes) -> Iterator[Hdf5]:
    file = Hdf5("model.h5", Window(lambda at, length: data[at : at + length], len(data)))
    yield file
    file.close()


def assert_as_h5py(data: bytes) -> int:
    """Hold groups, texts and values against h5py; return how many datasets there are."""
    expected: dict[str, set[str]] = {}
    with h5py.File(io.BytesIO(data)) as theirs, opened(data) as ours:

        def visit(name: str, found: Any) -> None:
            if isinstance(found, h5py.Group):
                expected.setdefault(name, set())
            else:
                head, _, last = name.rpartition("/")
                expected.setdefault(head, set()).add(last)

        expected[""] = set()
        theirs.visititems(visit)
        walked = {path: set(others) for path, others in ours.walk()}
        assert walked == expected
        paths = [join(path, name) for path, others in walked.items() for name in others]
        for path in walked:
            assert_texts(theirs[path or "/"].attrs, path, ours)
        for path in paths:
            assert_values(theirs[path], ours.variable(path))
        return len(paths)


def assert_texts(attributes: Any, path: str, ours: Hdf5) -> None:
    for name in attributes:
        assert ours.has_attribute(path, name)
        if attributes.get_id(name).dtype.kind not in "OS":
            continue
        stored = np.atleast_1d(attributes[name]).tolist()
        expected = [one.decode() if isinstance(one, bytes) else one for one in stored]
        assert ours.texts(path, name) == expected


def assert_values(theirs: Any, variable: Any) -> None:
    expected = theirs[()]
    assert variable.shape == theirs.shape
    found = variable.read()
    if expected.dtype.kind == "V":  # bfloat16
        expected = (np.asarray(expected).view("<u2").astype("u4") << 16).view("f4")
    assert found.dtype == expected.dtype.newbyteorder("=")
    assert found.astype(expected.dtype).tobytes() == expected.tobytes()


def hdf5_of(path: Path) -> bytes | None:
    """Return the HDF5 file at a path, or the one in the archive there."""
    if path.suffix == ".h5":
        return path.read_bytes()
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            return archive.read("model.weights.h5")
    return None


# --- What h5py wrote ------------------------------------------------------------------------------


def test_every_fixture() -> None:
    found = [data for path in sorted(FIXTURES.rglob("*")) if (data := hdf5_of(path))]
    assert len(found) > 40
    assert sum(map(assert_as_h5py, found)) > 1000


@pytest.mark.slow
@ALWAYS_THE_SAME
@given(
    content=groups,
    layout=st.sampled_from(LAYOUTS),
    in_order=st.booleans(),
    user_block=st.sampled_from([0, 512, 4096]),
)
def test_whatever_h5py_writes(
    content: dict[str, Any], layout: Any, in_order: bool, user_block: int
) -> None:
    stored = io.BytesIO()
    with h5py.File(
        stored, "w", libver=layout, track_order=in_order, userblock_size=user_block
    ) as file:
        write(file, content)
    assert_as_h5py(stored.getvalue())


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("count", [8, 9, 300, 3000])
def test_groups_of_any_size(layout: Any, count: int) -> None:
    """One leaf, several, and B-trees of two levels; links in the header and in a heap."""
    stored = io.BytesIO()
    with h5py.File(stored, "w", libver=layout) as file:
        for number in range(count):
            file.create_group(f"{'name' * (number % 40)}_{number}")
    with opened(stored.getvalue()) as ours:
        assert ours.has(f"_{count // 40 * 40 - 40}" if count > 40 else "_0")
        assert len([*ours.walk()]) == count + 1


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_more_attributes_than_a_header_takes(layout: Any) -> None:
    stored = io.BytesIO()
    with h5py.File(stored, "w", libver=layout) as file:
        for number in range(200):
            file.attrs[f"name{number}"] = [b"x" * number, b"y"]
    assert_as_h5py(stored.getvalue())


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("options", [{}, {"compression": "gzip", "shuffle": True}], ids=str)
def test_many_chunks(layout: Any, options: dict[str, Any]) -> None:
    stored = io.BytesIO()
    values = np.random.default_rng(3).normal(size=(900, 7)).astype("f4")
    with h5py.File(stored, "w", libver=layout) as file:
        file.create_dataset("values", data=values, chunks=(2, 3), **options)
        file.create_dataset("one", data=values, chunks=(1000, 7), maxshape=(1000, 7), **options)
    with opened(stored.getvalue()) as ours:
        assert ours.variable("one").read().tobytes() == values.tobytes()
        if layout in ("latest", ("v110", "v110")):
            with pytest.raises(Unsupported, match="chunks"):
                ours.variable("values")
        else:
            assert ours.variable("values").read().tobytes() == values.tobytes()


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("options", [{}, {"compression": "gzip"}, {"fletcher32": True}], ids=str)
def test_chunks_that_no_filter_shrinks(layout: Any, options: dict[str, Any]) -> None:
    """They take more bytes than their values, one chunk alone and many."""
    stored = io.BytesIO()
    values = np.random.default_rng(5).integers(0, 256, (40, 7), "u1")
    with h5py.File(stored, "w", libver=layout) as file:
        for name, chunks in (("one", values.shape), ("many", (3, 2)), ("bytes", (1, 1))):
            file.create_dataset(name, data=values, chunks=chunks, **options)
        file.create_dataset("unwritten", values.shape, "u1", chunks=(3, 2), **options)
    assert assert_as_h5py(stored.getvalue()) == 4


def test_the_newest_layout_message() -> None:
    """The other tests read the version that the installed HDF5 writes: see requirements-dev.txt.

    HDF5 2.0 writes version 5 where chunks are filtered, else version 4.
    """
    stored = io.BytesIO()
    with h5py.File(stored, "w", libver="latest") as file:
        values = np.arange(5, dtype="f4")
        file.create_dataset("values", data=values, chunks=(2,), compression="gzip")
    header = stored.getvalue().partition(b"OHDR")[2]
    newest = 5 if h5py.version.hdf5_version_tuple >= (2, 0, 0) else 4
    # In the message are the kind, chunked, its flags, two dimensions and the bytes of each.
    assert bytes([newest, 2, 0, 2, 1, 2, 4]) in header
    assert assert_as_h5py(stored.getvalue()) == 1


def test_compact_values() -> None:
    stored = io.BytesIO()
    with h5py.File(stored, "w") as file:
        options = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        options.set_layout(h5py.h5d.COMPACT)
        space = h5py.h5s.create_simple((5,))
        made = h5py.h5d.create(file.id, b"compact", h5py.h5t.IEEE_F32LE, space, options)
        made.write(h5py.h5s.ALL, h5py.h5s.ALL, np.arange(5, dtype="f4"))
    assert assert_as_h5py(stored.getvalue()) == 1


@pytest.mark.parametrize(("size", "name"), [(2, "bfloat16"), (3, "opaque24"), (16, "opaque128")])
def test_opaque_values_are_bfloat16_in_two_bytes_alone(size: int, name: str) -> None:
    stored = io.BytesIO()
    with h5py.File(stored, "w") as file:
        file.create_dataset("values", data=np.zeros(4, f"V{size}"))
    with opened(stored.getvalue()) as ours:
        assert (ours.variable("values").dtype, ours.variable("values").shape) == (name, (4,))
    if size == 2:
        assert assert_as_h5py(stored.getvalue()) == 1
