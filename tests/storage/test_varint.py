"""Varints are read where they stand, and no further than they may reach."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bninspect.storage.varint import encoded_varint, read_varint
from tests.support.table_writer import varint


@given(st.integers(0, (1 << 64) - 1), st.binary(max_size=3), st.binary(max_size=3))
def test_a_varint_is_read_where_it_stands(number: int, before: bytes, behind: bytes) -> None:
    encoded = encoded_varint(number)
    assert encoded == varint(number)
    data = before + encoded + behind
    assert read_varint(data, len(before)) == (number, len(before + encoded))
    with pytest.raises(IndexError):
        read_varint(data[: len(before + encoded) - 1], len(before))
    with pytest.raises(IndexError):
        read_varint(data, len(before), len(encoded) - 1)


def test_a_varint_has_at_most_64_bits() -> None:
    assert read_varint(b"\xff" * 9 + b"\x7f", 0) == ((1 << 64) - 1, 10)
    with pytest.raises(IndexError):
        read_varint(b"\xff" * 11, 0)
