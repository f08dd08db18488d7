"""Names that files give of other files lead to nothing outside of their directory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bninspect.storage.filesystem import name_below


@pytest.mark.parametrize(
    ("name", "below"),
    [
        ("shard.bin", "shard.bin"),
        ("./shard.bin", "shard.bin"),
        ("weights//a/./shard.bin", "weights/a/shard.bin"),
        ("..shard", "..shard"),
    ],
)
def test_a_name_below_the_directory_is_kept(name: str, below: str) -> None:
    assert name_below(name) == below


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../shard.bin",
        "weights/../../shard.bin",
        "weights/..",
        "weights/",
        "weights/.",
        "/shard.bin",
        "\ud800.bin",
        "..\\shard.bin",
        "shard\0.bin",
        "https://example.com/shard.bin",
        "file:///etc/passwd",
    ],
)
def test_a_name_that_leads_elsewhere_is_refused(name: str) -> None:
    assert name_below(name) is None


@given(st.lists(st.sampled_from(["..", ".", "", "a", "b.bin", "\\", "c:"])).map("/".join))
def test_every_kept_name_is_below(name: str) -> None:
    below = name_below(name)
    if below is not None:
        directory = Path("/made/up")
        path = Path(os.path.normpath(directory / below))
        assert path.is_relative_to(directory)
        assert path != directory
