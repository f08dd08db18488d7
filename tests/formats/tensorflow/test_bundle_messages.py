"""The messages of a V2 index against TensorFlow's own declarations of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bninspect.formats.tensorflow.bundle_messages import (
    BundleEntry,
    BundleHeader,
    MessageError,
    parse_entry,
    parse_header,
)
from bninspect.formats.tensorflow.dtypes import read_shape

pytestmark = pytest.mark.framework

_INT32 = st.integers(-(2**31), 2**31 - 1)
_INT64 = st.integers(-(2**63), 2**63 - 1)
# As they are stored, and at the borders of the encoding.
_SIZES = st.one_of(st.integers(0, 300), _INT64)


@pytest.fixture(autouse=True, scope="module")
def _tensorflow_is_imported() -> None:
    """Import TensorFlow before hypothesis draws: it seeds random numbers."""
    from tensorflow.core.protobuf import tensor_bundle_pb2

    assert tensor_bundle_pb2.BundleEntryProto


@st.composite
def _entries(draw: st.DrawFn) -> Any:
    from tensorflow.core.protobuf import tensor_bundle_pb2

    entry = tensor_bundle_pb2.BundleEntryProto(
        dtype=draw(st.integers(0, 30)),
        shard_id=draw(_INT32),
        offset=draw(_SIZES),
        size=draw(_SIZES),
        crc32c=draw(st.integers(0, 2**32 - 1)),
    )
    for size in draw(st.lists(_SIZES, max_size=3)):
        entry.shape.dim.add(size=size, name=draw(st.sampled_from(["", "height"])))
    for extents in draw(st.lists(st.lists(st.tuples(_SIZES, _SIZES), max_size=2), max_size=2)):
        part = entry.slices.add()
        for start, length in extents:
            extent = part.extent.add(start=start)
            if length:
                extent.length = length
    return entry


def _as_ours(entry: Any) -> tuple[Any, ...]:
    """Return TensorFlow's entry in the form of `BundleEntry`, the shape as its dimensions."""
    slices = tuple(
        tuple(
            (
                extent.start,
                extent.length if extent.HasField("length") and extent.length != -1 else None,
            )
            for extent in part.extent
        )
        for part in entry.slices
    )
    shape = tuple(dimension.size for dimension in entry.shape.dim)
    numbers = (entry.shard_id, entry.offset, entry.size, entry.crc32c)
    return entry.dtype, shape, *numbers, slices


def _comparable(entry: BundleEntry) -> tuple[Any, ...]:
    numbers = (entry.shard_id, entry.offset, entry.size, entry.crc32c)
    return entry.dtype, read_shape("index", entry.shape, "a"), *numbers, entry.slices


@given(_entries())
def test_an_entry_is_what_tensorflow_parses(entry: Any) -> None:
    assume(all(dimension.size >= 0 for dimension in entry.shape.dim))
    encoded = entry.SerializeToString()
    parsed = parse_entry(encoded)
    assert _comparable(parsed) == _as_ours(entry)
    if entry.crc32c:
        assert parsed.crc32c_at is not None
        stored = encoded[parsed.crc32c_at : parsed.crc32c_at + 4]
        assert int.from_bytes(stored, "little") == entry.crc32c


@given(st.integers(0, 2**31 - 1), st.integers(0, 1), _INT32, _INT32)
def test_a_header_is_what_tensorflow_parses(
    shards: int, endianness: int, producer: int, min_consumer: int
) -> None:
    from tensorflow.core.protobuf import tensor_bundle_pb2

    header = tensor_bundle_pb2.BundleHeaderProto(num_shards=shards, endianness=endianness)
    header.version.producer, header.version.min_consumer = producer, min_consumer
    expected = BundleHeader(shards, endianness, min_consumer)
    assert parse_header(header.SerializeToString()) == expected


@given(_entries(), st.data())
def test_damaged_bytes_are_judged_as_by_tensorflow(entry: Any, data: st.DataObject) -> None:
    encoded = bytearray(entry.SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        if encoded:
            position = data.draw(st.integers(0, len(encoded) - 1))
            encoded[position] = data.draw(st.integers(0, 255))
    _compare(bytes(encoded), type(entry).FromString)


@given(st.binary(max_size=40))
def test_any_bytes_are_judged_as_by_tensorflow(encoded: bytes) -> None:
    from tensorflow.core.protobuf import tensor_bundle_pb2

    _compare(encoded, tensor_bundle_pb2.BundleEntryProto.FromString)


def _compare(encoded: bytes, parse: Callable[[bytes], Any]) -> None:
    from google.protobuf.message import DecodeError

    from bninspect.errors import Corrupt

    try:
        theirs: Any = parse(encoded)
    except DecodeError:
        theirs = None
    try:
        ours = parse_entry(encoded)
        comparable = _comparable(ours)
    except (MessageError, Corrupt):
        # We refuse groups, which protobuf passes over, and shapes that no tensor has.
        is_possible = theirs is not None and all(dim.size >= 0 for dim in theirs.shape.dim)
        assume(not (is_possible and (_has_group(encoded) or theirs.shape.unknown_rank)))
        assert not is_possible
        return
    # A shape, whose dimensions have names that must be UTF-8, is parsed when it is asked for.
    assume(theirs is not None or ours.shape)
    if theirs is not None:
        assert comparable == _as_ours(theirs)


def _has_group(encoded: bytes) -> bool:
    return any(byte & 7 in (3, 4) for byte in encoded)
