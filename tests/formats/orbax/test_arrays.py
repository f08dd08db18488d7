"""Zarr arrays: what tensorstore writes comes back, what a file states is limited before."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorstore
from hypothesis import given, settings
from hypothesis import strategies as st

from bninspect.errors import Corrupt, Incomplete, ReadProblem, Unsupported
from bninspect.formats.orbax.arrays import Array, Folder
from bninspect.storage.source import Budget

ALWAYS_THE_SAME = settings(derandomize=True, deadline=None, max_examples=100)

ZSTD = {"name": "zstd", "configuration": {"level": 3}}
BYTES = {"name": "bytes", "configuration": {"endian": "little"}}
V2 = {
    "zarr_format": 2,
    "shape": [4],
    "chunks": [4],
    "dtype": "<f4",
    "compressor": {"id": "zstd", "level": 1},
    "fill_value": None,
    "filters": None,
    "order": "C",
    "dimension_separator": ".",
}
V3 = {
    "zarr_format": 3,
    "node_type": "array",
    "shape": [4],
    "data_type": "float32",
    "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [4]}},
    "chunk_key_encoding": {"name": "default"},
    "codecs": [BYTES, ZSTD],
    "fill_value": 0.0,
}


def sharded(inner: list[int]) -> list[dict[str, Any]]:
    index = [BYTES, {"name": "crc32c"}]
    options = {"chunk_shape": inner, "codecs": [BYTES, ZSTD], "index_codecs": index}
    return [{"name": "sharding_indexed", "configuration": options}]


def write(folder: Path, driver: str, metadata: dict[str, Any], values: Any) -> None:
    kept = {key: value for key, value in metadata.items() if key != "node_type"}
    store = tensorstore.open(
        {
            "driver": driver,
            "kvstore": f"file://{folder}/array/",
            "metadata": kept,
        },
        context=tensorstore.Context({"file_io_sync": False}),
        create=True,
        delete_existing=True,
    ).result()
    store.write(np.asarray(values).astype(store.dtype.numpy_dtype)).result()


def state(folder: Path, metadata: dict[str, Any]) -> None:
    """Write metadata alone."""
    (folder / "array").mkdir(exist_ok=True)
    file = "zarr.json" if metadata.get("zarr_format") == 3 else ".zarray"
    (folder / "array" / file).write_text(json.dumps(metadata), encoding="utf-8")


def opened(folder: Path, *, is_filled: bool = False) -> Array:
    return Array("checkpoint", Folder(str(folder), Budget()), "array", is_filled=is_filled)


@ALWAYS_THE_SAME
@given(
    st.lists(st.integers(1, 5), max_size=3),
    st.integers(1, 3),
    st.sampled_from(["<f4", "<f8", "<f2", ">f4", "<i4", "<i8", "|u1", "|b1", "bfloat16"]),
    st.sampled_from([None, {"id": "zstd", "level": 1}, {"id": "blosc"}, {"id": "zlib"}]),
    st.sampled_from([".", "/"]),
)
def test_zarr_2_comes_back(
    tmp_path_factory: pytest.TempPathFactory,
    shape: list[int],
    chunk: int,
    dtype: str,
    compressor: Any,
    separator: str,
) -> None:
    folder = tmp_path_factory.mktemp("zarr")
    values = np.arange(1, 1 + np.prod(shape, dtype=int)).reshape(shape) % 200
    metadata = V2 | {
        "shape": shape,
        "chunks": [min(chunk, size) for size in shape],
        "dtype": dtype,
        "compressor": compressor,
        "dimension_separator": separator,
    }
    write(folder, "zarr", metadata, values)
    array = opened(folder)
    assert array.shape == tuple(shape)
    assert "float" in array.dtype or "int" in array.dtype or array.dtype == "bool"
    np.testing.assert_array_equal(array.read(), values.astype(bool) if dtype == "|b1" else values)


@ALWAYS_THE_SAME
@given(
    st.lists(st.integers(1, 3), max_size=3),
    st.sampled_from(["float32", "bfloat16", "float16", "int32", "uint8", "bool"]),
    st.booleans(),
    st.sampled_from(["default", "v2"]),
)
def test_zarr_3_comes_back(
    tmp_path_factory: pytest.TempPathFactory,
    inner: list[int],
    dtype: str,
    is_sharded: bool,
    encoding: str,
) -> None:
    folder = tmp_path_factory.mktemp("zarr")
    chunk = [2 * size for size in inner]
    shape = [3 * size for size in inner]
    values = np.arange(1, 1 + np.prod(shape, dtype=int)).reshape(shape) % 200
    metadata = V3 | {
        "shape": shape,
        "data_type": dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk}},
        "chunk_key_encoding": {"name": encoding},
        "codecs": sharded(inner) if is_sharded else [BYTES, ZSTD],
        "fill_value": False if dtype == "bool" else 0,
    }
    write(folder, "zarr3", metadata, values.astype(bool) if dtype == "bool" else values)
    array = opened(folder)
    assert array.dtype == dtype
    np.testing.assert_array_equal(array.read(), values.astype(bool) if dtype == "bool" else values)


@pytest.mark.parametrize(("driver", "metadata"), [("zarr", V2), ("zarr3", V3)])
def test_a_chunk_that_is_not_stored_is_the_fill_value(
    tmp_path: Path, driver: str, metadata: dict[str, Any]
) -> None:
    """Unless the writer stored those, too: then it is damage."""
    write(tmp_path, driver, metadata, np.ones(4, "f4"))
    (tmp_path / "array" / ("0" if driver == "zarr" else "c/0")).unlink()
    assert opened(tmp_path).read().tolist() == [0.0] * 4
    with pytest.raises(Incomplete, match="a part of array"):
        opened(tmp_path, is_filled=True).read()


def test_an_array_that_is_missing_is_incomplete(tmp_path: Path) -> None:
    with pytest.raises(Incomplete, match="array, which its tree names, is not stored"):
        opened(tmp_path)


HUGE = 1 << 60


@pytest.mark.parametrize(
    "changes",
    [
        {"shape": [HUGE], "chunks": [HUGE]},
        {"shape": [HUGE], "chunks": [1]},
        {"shape": [4], "chunks": [HUGE]},
        {"shape": [1 << 20], "chunks": [1]},
        {"shape": [1 << 20] * 3, "chunks": [1 << 20] * 3},
    ],
)
def test_nothing_is_allocated_on_the_word_of_a_shape(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    state(tmp_path, V2 | changes)
    with pytest.raises(Unsupported, match=r"states \d+ elements in \d+ chunks"):
        opened(tmp_path).read()
    grid = {"name": "regular", "configuration": {"chunk_shape": changes["chunks"]}}
    (tmp_path / "array" / ".zarray").unlink()
    state(tmp_path, V3 | {"shape": changes["shape"], "chunk_grid": grid})
    with pytest.raises(Unsupported, match=r"states \d+ elements in \d+ chunks"):
        opened(tmp_path).read()


def test_parts_of_a_chunk_are_limited(tmp_path: Path) -> None:
    grid = {"name": "regular", "configuration": {"chunk_shape": [1 << 20]}}
    state(tmp_path, V3 | {"shape": [1 << 20], "chunk_grid": grid, "codecs": sharded([1])})
    with pytest.raises(Unsupported, match="so many parts of a chunk"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("base", "changes", "words"),
    [
        (V2, {"dtype": "|O"}, "is not valid|elements of type"),
        (V2, {"dtype": "<M8"}, "elements of type"),
        (V2, {"compressor": {"id": "mine"}}, "the compressor mine"),
        (V2, {"filters": [{"id": "delta"}]}, "filters"),
        (V3, {"data_type": "string"}, "elements of type string"),
        (V3, {"codecs": [BYTES, {"name": "mine"}]}, "the codec mine"),
        (V3, {"storage_transformers": [{"name": "mine"}]}, "storage transformers"),
    ],
)
def test_what_is_not_supported_is_said(
    tmp_path: Path, base: dict[str, Any], changes: dict[str, Any], words: str
) -> None:
    state(tmp_path, base | changes)
    with pytest.raises((Unsupported, Corrupt), match=words):
        opened(tmp_path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 1 << 65) | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=2)
    ),
    max_leaves=4,
)


@settings(ALWAYS_THE_SAME, max_examples=250)
@given(st.sampled_from([V2, V3]), st.data())
def test_no_metadata_but_gives_an_array_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, base: dict[str, Any], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("zarr")
    key = data.draw(st.sampled_from(sorted(base)))
    state(folder, base | {"zarr_format": base["zarr_format"], key: data.draw(json_values)})
    with suppress(ReadProblem):
        array = opened(folder)
        assert array.read().shape == array.shape


@settings(ALWAYS_THE_SAME, max_examples=150)
@given(st.sampled_from(["zarr", "zarr3"]), st.binary(max_size=64))
def test_any_chunk_is_decoded_or_refused(
    tmp_path_factory: pytest.TempPathFactory, driver: str, chunk: bytes
) -> None:
    folder = tmp_path_factory.mktemp("zarr")
    state(folder, V2 if driver == "zarr" else V3)
    place = folder / "array" / ("0" if driver == "zarr" else "c/0")
    place.parent.mkdir(exist_ok=True)
    place.write_bytes(chunk)
    with suppress(ReadProblem):
        assert opened(folder).read().shape == (4,)


def test_arrays_of_fill_values_alone_are_limited_together(tmp_path: Path) -> None:
    """Their metadata take some hundred bytes, and state any size."""
    state(tmp_path, {**V2, "shape": [1 << 22], "chunks": [1 << 22], "dtype": "<f4"})
    store = Folder(str(tmp_path), Budget())
    array = Array("checkpoint", store, "array", is_filled=False)
    for _ in range(4):
        array.read()
    with pytest.raises(Corrupt, match="far more bytes than are stored"):
        array.read()


def test_keys_never_leave_the_directory(tmp_path: Path) -> None:
    folder = tmp_path / "step"
    folder.mkdir()
    state(tmp_path, V2)
    for name in ("../array", "../step/../array", "/" + str(tmp_path / "array")):
        with pytest.raises(Incomplete, match="is not stored"):
            Array("checkpoint", Folder(str(folder), Budget()), name, is_filled=False)
