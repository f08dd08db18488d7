"""OCDBT databases: sound ones come back, damaged and hostile ones are refused."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import cramjam
import pytest
import tensorstore
from hypothesis import given, settings
from hypothesis import strategies as st

from bninspect.errors import Corrupt, Incomplete, ReadProblem, Unsupported
from bninspect.formats.orbax.ocdbt import Database
from bninspect.storage.source import Budget
from tests.support import ocdbt_writer as writer

ALWAYS_THE_SAME = settings(derandomize=True, deadline=None, max_examples=40)

keys = st.text("ab/.01é", min_size=1, max_size=12)
values = st.binary(max_size=40).filter(lambda value: not value.startswith(b"version"))  # Git LFS's
contents = st.dictionaries(keys, values, min_size=1, max_size=60)


def write(folder: Path, values: dict[str, bytes], **config: object) -> None:
    context = tensorstore.Context({"file_io_sync": False})
    store = tensorstore.KvStore.open(
        {"driver": "ocdbt", "base": f"file://{folder}/", "config": config}, context=context
    ).result()
    with tensorstore.Transaction() as transaction:
        for key, value in values.items():
            store.with_transaction(transaction)[key] = value


def read(folder: Path) -> dict[str, bytes | None]:
    database = Database(str(folder), Budget())
    return {key: database.read(key, 1 << 20) for key in database.names()}


@ALWAYS_THE_SAME
@given(contents, contents, st.sampled_from([None, {"id": "zstd"}]), st.sampled_from([200, 1 << 20]))
def test_all_values_come_back(
    tmp_path_factory: pytest.TempPathFactory,
    first: dict[str, bytes],
    second: dict[str, bytes],
    compression: object,
    node: int,
) -> None:
    """The values of the newest version: trees of one node or of many, inline values and others."""
    folder = tmp_path_factory.mktemp("database")
    config = {
        "compression": compression,
        "max_inline_value_bytes": 10,
        "max_decoded_node_bytes": node,
    }
    write(folder, first, **config)
    write(folder, second, **config)
    assert read(folder) == first | second


def test_many_versions_have_a_newest(tmp_path: Path) -> None:
    for number in range(40):  # the older ones move into a tree of versions
        write(tmp_path, {"a": b"%d" % number})
    assert read(tmp_path) == {"a": b"39"}


def test_an_empty_database_has_no_keys(tmp_path: Path) -> None:
    store = tensorstore.KvStore.open({"driver": "ocdbt", "base": f"file://{tmp_path}/"}).result()
    store["a"] = b"1"
    del store["a"]
    assert read(tmp_path) == {}


@settings(ALWAYS_THE_SAME, max_examples=100)
@given(st.data())
def test_damage_gives_the_right_values_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("database")
    values = {f"layer{number}/mean": bytes([number]) * number for number in range(30)}
    write(folder, values, max_decoded_node_bytes=200)
    # The names and sizes of files are not the same in each run.
    files = sorted((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    file = files[data.draw(st.integers(0, 99)) % len(files)]
    whole = file.read_bytes()
    at = data.draw(st.integers(0, 1 << 20)) % len(whole)
    if data.draw(st.booleans()):
        file.write_bytes(whole[:at])
    else:
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
    try:
        found = read(folder)
    except ReadProblem:
        return
    assert found == values


@settings(ALWAYS_THE_SAME, max_examples=150)
@given(st.binary(max_size=60), st.sampled_from([0, 1, 2]), st.booleans())
def test_any_body_with_a_right_checksum_is_refused_in_words(
    tmp_path_factory: pytest.TempPathFactory, body: bytes, compression: int, of_node: bool
) -> None:
    folder = tmp_path_factory.mktemp("database")
    node = writer.sealed(writer.NODE, body, compression=compression)
    (folder / "data").write_bytes(node)
    whole = writer.manifest("data", 0, len(node))
    if not of_node:
        whole = writer.sealed(writer.MANIFEST, body, compression=compression)
    (folder / "manifest.ocdbt").write_bytes(whole)
    with suppress(ReadProblem):
        read(folder)


@pytest.mark.parametrize(
    "path", ["../secret", "d/../../secret", "/etc/hostname", "s3://b/secret", "d/", "", "nul\0"]
)
def test_no_name_leads_out_of_the_database(tmp_path: Path, path: str) -> None:
    folder = tmp_path / "database"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(b"secret")
    node = writer.leaf(["a"], file=path, offset=0, size=6)
    (folder / "data").write_bytes(node)
    (folder / "manifest.ocdbt").write_bytes(writer.manifest("data", 0, len(node)))
    with pytest.raises(Corrupt, match="is damaged"):
        read(folder)
    (folder / "manifest.ocdbt").write_bytes(writer.manifest(path, 0, 6))
    with pytest.raises(Corrupt, match="its manifest is damaged"):
        read(folder)


def test_a_data_file_that_is_missing_is_named(tmp_path: Path) -> None:
    (tmp_path / "manifest.ocdbt").write_bytes(writer.manifest("d/gone", 0, 100))
    with pytest.raises(Incomplete, match="d/gone, which it names, does not exist"):
        read(tmp_path)


def test_a_value_beyond_the_end_of_its_file_is_incomplete(tmp_path: Path) -> None:
    node = writer.leaf(["a"], file="data", offset=1 << 40, size=6)
    (tmp_path / "data").write_bytes(node)
    (tmp_path / "manifest.ocdbt").write_bytes(writer.manifest("data", 0, len(node)))
    with pytest.raises(Incomplete):
        read(tmp_path)


def test_a_value_that_is_too_long_is_not_read(tmp_path: Path) -> None:
    node = writer.leaf(["a"], file="data", offset=0, size=1 << 50)
    (tmp_path / "data").write_bytes(node)
    (tmp_path / "manifest.ocdbt").write_bytes(writer.manifest("data", 0, len(node)))
    with pytest.raises(Corrupt, match="too many"):
        read(tmp_path)


def test_a_tree_that_shares_its_nodes_ends(tmp_path: Path) -> None:
    """60 levels of 200 children are more nodes than there is time for."""
    parts = [writer.leaf(["a"], file="data", offset=0, size=1)]
    for height in range(1, 60):
        start = sum(map(len, parts[:-1]))
        parts.append(writer.inner(height, 200, file="data", offset=start, length=len(parts[-1])))
    data = b"".join(parts)
    (tmp_path / "data").write_bytes(data)
    size = len(parts[-1])
    whole = writer.manifest("data", len(data) - size, size, height=59)
    (tmp_path / "manifest.ocdbt").write_bytes(whole)
    with pytest.raises(Corrupt, match="stands in it more than once"):
        read(tmp_path)


def test_a_body_that_unpacks_to_gigabytes_is_refused(tmp_path: Path) -> None:
    bomb = bytes(cramjam.zstd.compress(bytes(200 << 20)))
    node = writer.sealed(writer.NODE, bomb, compression=1)
    (tmp_path / "data").write_bytes(node)
    (tmp_path / "manifest.ocdbt").write_bytes(writer.manifest("data", 0, len(node)))
    with pytest.raises(Corrupt, match="is damaged"):
        read(tmp_path)


def test_what_is_not_supported_is_said(tmp_path: Path) -> None:
    (tmp_path / "manifest.ocdbt").write_bytes(writer.manifest("data", 0, 1, kind=1))
    with pytest.raises(Unsupported, match="numbered manifests"):
        read(tmp_path)
    (tmp_path / "manifest.ocdbt").write_bytes(writer.sealed(writer.MANIFEST, b"", version=7))
    with pytest.raises(Unsupported, match="version that is not known"):
        read(tmp_path)
