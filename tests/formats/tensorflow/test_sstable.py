"""The table format: what a sound table gives, and what each kind of damage is called."""

from __future__ import annotations

import struct

import pytest

from bninspect.errors import Corrupt, Incomplete, NotFound, UnknownFormat
from bninspect.formats.tensorflow.sstable import Table, read_table
from bninspect.storage.source import Source
from tests.support.readers import assert_refused
from tests.support.table_writer import (
    FOOTER_SIZE,
    MAGIC,
    SNAPPY,
    TRAILER_SIZE,
    block,
    footer,
    handle,
    raw_entry,
    sealed,
    snappy,
    table,
    table_of,
    table_of_pairs,
    varint,
)

SCOPES = {f"model/block_{i // 7}/layer_{i}/kernel".encode(): b"value %d" % i for i in range(100)}
SMALL = {b"alpha": b"1", b"alphabet": b"22", b"beta": b"", b"betamax": b"4444"}


def read(path):
    with Source(str(path)) as source:
        return read_table(source)


def look_up(path, keys):
    """The values of these keys, each looked up by itself as in a V1 checkpoint."""
    with Source(str(path)) as source:
        lookup = Table(source)
        return {key: lookup.get(key) for key in keys}


def refused(path, kind, *words):
    assert_refused(lambda: read(path), kind, path, *words)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "some.index"


# --- Sound tables ---------------------------------------------------------------------------------


@pytest.mark.parametrize("compress", [False, True], ids=["plain", "snappy"])
@pytest.mark.parametrize("block_size", [1, 100, 100_000])
@pytest.mark.parametrize("restart_interval", [1, 2, 16])
def test_entries_come_back_in_order(path, compress, block_size, restart_interval):
    layout = {"block_size": block_size, "restart_interval": restart_interval}
    path.write_bytes(table(SCOPES, compress=compress, **layout))
    assert list(read(path).items()) == sorted(SCOPES.items())


@pytest.mark.parametrize(
    "entries",
    [
        pytest.param({}, id="no entries"),
        pytest.param({b"": b""}, id="empty key and value"),
        pytest.param({b"k": b"", b"l": b"v"}, id="empty value"),
        pytest.param({b"\0\1\xff": b"\0", b"\0\2": b"\xff"}, id="binary keys"),
        pytest.param(
            {b"a" * n: b"v" * n for n in (127, 128, 129, 300, 20_000)}, id="lengths of many bytes"
        ),
        pytest.param({b"k" * 200: b"", b"k" * 200 + b"l": b"x"}, id="only the shared length long"),
        pytest.param({b"k" * 200: b""}, id="only the unshared length long"),
        pytest.param({b"k": b"v" * 200}, id="only the value's length long"),
        pytest.param({b"": b"v" * 128}, id="no key, and a value of 128 bytes"),
    ],
)
@pytest.mark.parametrize("restart_interval", [1, 16])
def test_unusual_entries(path, entries, restart_interval):
    path.write_bytes(table(entries, restart_interval=restart_interval))
    assert read(path) == entries


def test_names_with_long_common_prefixes_are_no_bomb(path):
    # Every 16th key is written whole: more than sixteenfold a real writer's keys cannot grow.
    entries = {b"s/" * 5000 + b"%05d" % i: b"v" for i in range(320)}
    path.write_bytes(table(entries, block_size=10**9))
    assert path.stat().st_size * 15 < sum(map(len, entries))
    assert read(path) == entries


def test_a_block_that_compresses_well_is_no_bomb(path):
    entries = {b"key": b"\0" * 1_000_000}
    path.write_bytes(table(entries, compress=True))
    assert path.stat().st_size * 20 < 1_000_000
    assert read(path) == entries


# --- No table -------------------------------------------------------------------------------------


def test_missing_file(path):
    refused(path, NotFound, "no such file")


@pytest.mark.parametrize(
    "contents",
    [
        pytest.param(struct.pack("<Q", MAGIC), id="only the magic number"),
        pytest.param(b"\0" * 39 + struct.pack("<Q", MAGIC), id="one byte shorter than a footer"),
        pytest.param(b"<!DOCTYPE html>" * 100, id="web page"),
        pytest.param(table(SMALL)[:-8] + struct.pack(">Q", MAGIC), id="magic number turned round"),
    ],
)
def test_no_table_at_all(path, contents):
    path.write_bytes(contents)
    refused(path, UnknownFormat, "not a TensorFlow checkpoint")


def test_an_empty_file(path):
    path.write_bytes(b"")
    refused(path, UnknownFormat, "this file is empty")


@pytest.mark.parametrize("compress", [False, True], ids=["plain", "snappy"])
def test_cut_short_anywhere(path, compress):
    whole = table(SMALL, block_size=1, compress=compress)
    for length in range(1, len(whole)):
        path.write_bytes(whole[:length])
        refused(path, UnknownFormat, "does not end like one")


def test_a_piece_lost_before_the_footer(path):
    whole = table(SMALL, block_size=1)
    for length in range(len(whole) - FOOTER_SIZE):
        path.write_bytes(whole[:length] + whole[-FOOTER_SIZE:])
        with pytest.raises((Corrupt, Incomplete)) as caught:
            read(path)
        assert caught.value.path == str(path)


# --- Checksums ------------------------------------------------------------------------------------


@pytest.mark.parametrize("bit", [0x01, 0x80])
@pytest.mark.parametrize("compress", [False, True], ids=["plain", "snappy"])
def test_a_flipped_bit_in_any_block_is_noticed(path, compress, bit):
    whole = table(SMALL, block_size=8, compress=compress)
    index_size = len(whole) - FOOTER_SIZE
    metaindex_size = len(sealed(block([])))  # kept for LevelDB's filters, never read
    metaindex = whole.index(sealed(block([])))
    for position in range(index_size):
        if metaindex <= position < metaindex + metaindex_size:
            continue
        damaged = bytearray(whole)
        damaged[position] ^= bit
        path.write_bytes(damaged)
        refused(path, Corrupt, "checksum", "offset ")


def test_a_failed_checksum_says_where(path):
    first = sealed(block([(b"a", b"1")]))
    second = bytearray(sealed(block([(b"b", b"2")])))
    second[0] ^= 1
    path.write_bytes(table_of([(b"a", first), (b"b", bytes(second))]))
    refused(path, Corrupt, f"fails its checksum (offset {len(first)})")


# --- Handles --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("damage", "kind", "words"),
    [
        pytest.param(handle(10**6, 10), Incomplete, "offset 1000000", id="beyond the file"),
        pytest.param(handle(0, 1 << 50), Incomplete, "offset 0", id="a petabyte long"),
        pytest.param(handle(2**64 - 1, 2**64 - 1), Incomplete, str(2**64 - 1), id="64 bits"),
        pytest.param(b"", Corrupt, "block handle is damaged", id="empty"),
        pytest.param(varint(0), Corrupt, "block handle is damaged", id="no size"),
        pytest.param(b"\xff" * 5, Corrupt, "block handle is damaged", id="endless number"),
        pytest.param(b"\xff" * 50 + b"\1\1", Corrupt, "block handle", id="number of 350 bits"),
        pytest.param(b"\x80" * 50 + b"\0\1", Corrupt, "block handle", id="zero in 51 bytes"),
    ],
)
def test_bad_handle_of_a_data_block(path, damage, kind, words):
    path.write_bytes(table_of([(b"a", sealed(block([(b"a", b"1")])))], {0: damage}))
    refused(path, kind, words)


@pytest.mark.parametrize(
    ("ends", "kind", "words"),
    [
        pytest.param((handle(0, 8), handle(10**6, 8)), Incomplete, "1000000", id="beyond the file"),
        pytest.param((handle(0, 8), handle(0, 1 << 50)), Incomplete, "offset 0", id="a petabyte"),
        pytest.param((b"\xff" * 40, b""), Corrupt, "footer", id="endless metaindex number"),
        pytest.param((handle(0, 8), b"\xff" * 20), Corrupt, "handle", id="endless index number"),
    ],
)
def test_bad_footer(path, ends, kind, words):
    path.write_bytes(table(SMALL)[:-FOOTER_SIZE] + footer(*ends))
    refused(path, kind, words)


def test_blocks_that_overlap(path):
    one, two = sealed(block([(b"a", b"1")])), sealed(block([(b"b", b"2")]))
    same_again = {1: handle(0, len(one) - TRAILER_SIZE)}
    path.write_bytes(table_of([(b"a", one), (b"b", two)], same_again))
    refused(path, Corrupt, "overlap", "offset 0")


# --- Keys that repeat or are out of order ---------------------------------------------------------


@pytest.mark.parametrize("entries_per_block", [1, 2, 3, 8])
@pytest.mark.parametrize("restart_interval", [1, 16])
def test_the_first_of_two_entries_with_one_key_counts(path, entries_per_block, restart_interval):
    pairs = [(b"", b"0"), (b"a", b"1"), (b"b", b"first"), (b"b", b"second"), (b"c", b"3")]
    path.write_bytes(table_of_pairs(pairs, entries_per_block, restart_interval))
    expected = {b"": b"0", b"a": b"1", b"b": b"first", b"c": b"3"}
    assert read(path) == expected
    assert [*read(path)] == [*expected]
    assert look_up(path, expected) == expected


@pytest.mark.parametrize("entries_per_block", [1, 2, 3, 8])
@pytest.mark.parametrize("keys", ["acb", "bac", "cba", "abca"])
def test_keys_out_of_order_are_damage(path, keys, entries_per_block):
    pairs = [(key.encode(), b"1") for key in keys]
    path.write_bytes(table_of_pairs(pairs, entries_per_block))
    refused(path, Corrupt, "keys of its table are not in order")
    with pytest.raises(Corrupt, match="not in order"):
        look_up(path, [key.encode() for key in keys])


@pytest.mark.parametrize("separator", [b"a", b"d"])
def test_an_index_that_does_not_lead_to_a_key_is_damage(path, separator):
    first, second = sealed(block([(b"b", b"1")])), sealed(block([(b"c", b"2")]))
    path.write_bytes(table_of([(separator, first), (b"e", second)]))
    refused(path, Corrupt, "keys of its table are not in order")


# --- Blocks that are damaged though their checksum is right ---------------------------------------

NO_RESTARTS = struct.pack("<I", 0)


@pytest.mark.parametrize(
    ("contents", "words"),
    [
        pytest.param(b"", "too short", id="nothing in it"),
        pytest.param(b"\0\0\0", "too short", id="three bytes"),
        pytest.param(struct.pack("<I", 1), "restart table", id="one restart too many"),
        pytest.param(b"\0" * 8 + b"\xff" * 4, "restart table", id="billions of restarts"),
        pytest.param(raw_entry(1, b"a", b"") + NO_RESTARTS, "entry", id="shares with no key"),
        pytest.param(
            raw_entry(0, b"ab", b"") + raw_entry(3, b"c", b"") + NO_RESTARTS,
            "entry",
            id="shares more than the last key has",
        ),
        pytest.param(b"\0\5\0abc" + NO_RESTARTS, "entry", id="key runs out of the block"),
        pytest.param(b"\0\1\5abc" + NO_RESTARTS, "entry", id="value runs out of the block"),
        pytest.param(b"\0" + NO_RESTARTS, "entry", id="cut in its numbers"),
        pytest.param(b"\xff" * 7 + NO_RESTARTS, "entry", id="number without an end"),
        pytest.param(
            varint(0) + varint(2**63) + varint(0) + b"a" + NO_RESTARTS, "entry", id="key of 2^63"
        ),
        pytest.param(
            varint(0) + varint(1) + varint(2**64 - 1) + b"a" + NO_RESTARTS,
            "entry",
            id="value of 2^64",
        ),
        pytest.param(b"\x80" * 20 + b"\0" + b"\1\0a" + NO_RESTARTS, "entry", id="zero in 21 bytes"),
    ],
)
@pytest.mark.parametrize("compress", [False, True], ids=["plain", "snappy"])
def test_damaged_block(path, contents, words, compress):
    good = sealed(block([(b"a", b"1")]))
    bad = sealed(snappy(contents), SNAPPY) if compress else sealed(contents)
    path.write_bytes(table_of([(b"a", good), (b"b", bad)]))
    refused(path, Corrupt, words, f"offset {len(good)}")


@pytest.mark.parametrize("compression", [2, 4, 255])
def test_unknown_compression(path, compression):
    path.write_bytes(table_of([(b"a", sealed(block([(b"a", b"1")]), compression))]))
    refused(path, Corrupt, f"unknown compression {compression}", "offset 0")


SOUND_SNAPPY = snappy(block(sorted(SCOPES.items())))


@pytest.mark.parametrize(
    "contents",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\xff" * 12, id="endless length"),
        pytest.param(b"\x80" * 4, id="length without an end"),
        pytest.param(varint(100) + b"garbage", id="garbage"),
        pytest.param(SOUND_SNAPPY[:-1], id="cut short"),
        pytest.param(SOUND_SNAPPY + b"\0", id="one byte too many"),
        pytest.param(varint(5) + b"\0a", id="less than it says"),
        pytest.param(varint(1) + b"\x10abcde", id="more than it says"),
        pytest.param(varint(8) + b"\x00a\x09\x00", id="copies from nowhere"),
        pytest.param(varint(8) + b"\x00a\x09\x20", id="copies from before the start"),
        pytest.param(varint(2**32 - 1) + SOUND_SNAPPY, id="claims 4 GiB"),
        pytest.param(varint(2**63) + SOUND_SNAPPY, id="claims 2^63 bytes"),
    ],
)
def test_bad_snappy_block(path, contents):
    path.write_bytes(table_of([(b"a", sealed(contents, SNAPPY))]))
    refused(path, Corrupt, "snappy block cannot be uncompressed", "offset 0")
