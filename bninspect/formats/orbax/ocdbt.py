"""The index of an OCDBT database: its keys, and where their values lie.

Format: tensorstore/kvstore/ocdbt/index.rst. `manifest.ocdbt` refers to the root of a B+tree, whose
leaves hold small values themselves and refer to the others by file, offset and length. The files
are named relative to the database, and nothing keeps a name from leading out of it: such a name is
an error here. Nothing is allocated before it was compared with the sizes of the files.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

import cramjam
from google_crc32c import value as crc32c

from bninspect.errors import Corrupt, Incomplete, NotFound, Unsupported
from bninspect.storage.filesystem import name_below
from bninspect.storage.source import Budget, Source
from bninspect.storage.varint import read_varint

MANIFEST = "manifest.ocdbt"
DAMAGED = "The checkpoint is damaged or incomplete; copy it again."

_MANIFEST_MAGIC, _NODE_MAGIC = 0x0CDB3A2A, 0x0CDB20DE
_HEADER = 12  # bytes: the magic, then the length of all
_LARGEST_BODY = 128 << 20  # bytes; Orbax writes nodes of at most 100,000,000
_LARGEST_GROWTH = 64  # of a compressed body
_SINGLE = 0  # the kind of a manifest that is one file
_NO_NODE = (1 << 64) - 1  # the length of a root that is missing, as the tree is empty
_LONGEST_PATH = 4096


class _Reference(NamedTuple):
    """A part of a data file. `base` is the directory that names in a node there begin with."""

    file: str
    base: str
    offset: int
    length: int


class Database:
    """The newest version of the OCDBT database in `directory`.

    Raises a `ReadProblem` if its index is damaged, or refers to what is not there.
    """

    def __init__(self, directory: str, budget: Budget) -> None:
        self._directory = directory
        self._path = os.path.join(directory, MANIFEST)
        self.budget = budget
        self._granted: set[str] = set()
        self._values: dict[str, bytes | _Reference] = {}
        root = self._read_manifest()
        if root is not None:
            height, reference = root
            self._read_tree(reference, height)

    def names(self) -> Iterator[str]:
        """Yield the keys of all values."""
        return iter(self._values)

    def read(self, key: str, largest: int) -> bytes | None:
        """Return a value; None if the database has no such key.

        Raises `Corrupt` for a value of more than `largest` bytes.
        """
        stored = self._values.get(key)
        if stored is None or isinstance(stored, bytes):
            return stored
        if stored.length > largest:
            raise Corrupt(
                self._path, f"{key} should be {stored.length} bytes, which is too many", DAMAGED
            )
        return self._read_part(stored, key)

    def _read_manifest(self) -> tuple[int, _Reference] | None:
        """Return the height of the B+tree and its root; None if the database is empty."""
        with Source(self._path) as source:
            data = source.read(0, min(source.size, _LARGEST_BODY), "the manifest")
        fields = self._fields(data, _MANIFEST_MAGIC, "its manifest")
        with self._faults("its manifest"):
            fields.take(16)  # uuid
            if fields.number() != _SINGLE:
                raise Unsupported(
                    self._path,
                    "the versions of this database are in numbered manifests",
                    "Save the checkpoint again with Orbax's usual options.",
                )
            fields.numbers(2)  # max_inline_value_bytes, max_decoded_node_bytes
            fields.byte()  # version_tree_arity_log2
            if fields.number():
                fields.take(4)  # the level of compression
            files = fields.files("")
            count = fields.count()
            fields.numbers(count)  # generations
            heights = fields.take(count)
            parts = [fields.numbers(count) for _ in range(3)]
            if not count or parts[2][-1] == _NO_NODE:
                return None
            number, offset, length = (column[-1] for column in parts)
            return heights[-1], _reference(files[number], offset, length)

    def _read_tree(self, root: _Reference, height: int) -> None:
        ahead = [(root, height, b"")]
        seen = set()
        while ahead:
            reference, height, prefix = ahead.pop()
            what = f"a node of the index in {reference.file}"
            if reference in seen:  # or a small file could hold more keys than there is time for
                raise Corrupt(self._path, f"{what} stands in it more than once", DAMAGED)
            seen.add(reference)
            data = self._read_part(reference, what)
            fields = self._fields(data, _NODE_MAGIC, what)
            with self._faults(what):
                if fields.byte() != height:
                    raise ValueError
                files = fields.files(reference.base)
                count = fields.count()
                if height:
                    children = _read_children(fields, files, count)
                    ahead += [(part, height - 1, prefix + key) for part, key in children]
                else:
                    self._add_values(fields, files, count, prefix)

    def _add_values(
        self, fields: _Fields, files: list[tuple[str, str]], count: int, prefix: bytes
    ) -> None:
        shared, lengths = fields.numbers(max(count - 1, 0)), fields.numbers(count)
        keys = fields.joined(shared, lengths)
        sizes, kinds = fields.numbers(count), fields.numbers(count)
        outside = [index for index in range(count) if kinds[index]]
        numbers, offsets = fields.numbers(len(outside)), fields.numbers(len(outside))
        values: dict[int, bytes | _Reference] = {
            index: _reference(files[number], offset, sizes[index])
            for index, number, offset in zip(outside, numbers, offsets, strict=True)
        }
        for index in range(count):
            value = values[index] if kinds[index] else fields.take(sizes[index])
            self._values[os.fsdecode(prefix + keys[index])] = value

    def _read_part(self, part: _Reference, what: str) -> bytes:
        """Return the bytes of a part of a data file; raises `Incomplete` if it is not there."""
        path = os.path.join(self._directory, part.file)
        try:
            with Source(path) as source:
                if part.file not in self._granted:
                    self._granted.add(part.file)
                    self.budget.grant(source.size)
                self.budget.take(part.length, self._path)
                return source.read(part.offset, part.length, what)
        except NotFound as problem:
            raise Incomplete(
                self._path,
                f"{part.file}, which it names, does not exist",
                "Copy all files of the checkpoint.",
            ) from problem

    def _fields(self, data: bytes, magic: int, what: str) -> _Fields:
        """Return the fields of a manifest or node, whose checksum is verified."""
        with self._faults(what):
            if int.from_bytes(data[:4], "big") != magic:
                raise ValueError
            if int.from_bytes(data[4:_HEADER], "little") != len(data):
                raise Incomplete(
                    self._path,
                    f"{what} has {len(data)} bytes, not as many as it states",
                    DAMAGED,
                )
            if crc32c(data[:-4]) != int.from_bytes(data[-4:], "little"):
                raise Corrupt(self._path, f"{what} does not match its checksum (CRC-32C)", DAMAGED)
            header = _Fields(data, _HEADER)
            if header.number():
                raise Unsupported(
                    self._path,
                    f"{what} has a version that is not known",
                    "Use a newer version of bninspect.",
                )
            compression = header.number()
            body = data[header.position : -4]
            if compression:
                body = _uncompressed(body)
            self.budget.take(len(body), self._path)
            return _Fields(body)

    def _faults(self, what: str) -> _Faults:
        return _Faults(self._path, what)


class _Faults:
    """A context in which faults of the parser become a `Corrupt`."""

    def __init__(self, path: str, what: str) -> None:
        self._path, self._what = path, what

    def __enter__(self) -> None:
        """Enter the context."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, IndexError | ValueError | cramjam.DecompressionError):
            raise Corrupt(self._path, f"{self._what} is damaged", DAMAGED) from error


def _uncompressed(body: bytes) -> bytes:
    """Return a body that Zstandard compressed; raises cramjam.DecompressionError if it is larger.

    It may unpack to any size, so the room for it is limited before.
    """
    room = bytearray(min(_LARGEST_GROWTH * len(body) + (1 << 20), _LARGEST_BODY))
    size = cramjam.zstd.decompress_into(body, room)
    return bytes(memoryview(room)[:size])


def _read_children(
    fields: _Fields, files: list[tuple[str, str]], count: int
) -> list[tuple[_Reference, bytes]]:
    """Return the children of an inner node, each with the prefix that all of its keys have."""
    shared, lengths = fields.numbers(max(count - 1, 0)), fields.numbers(count)
    common = fields.numbers(count)
    keys = fields.joined(shared, lengths)
    numbers, offsets, sizes = (fields.numbers(count) for _ in range(3))
    return [
        (_reference(files[numbers[index]], offsets[index], sizes[index]), key[: common[index]])
        for index, key in enumerate(keys)
    ]


class _Fields:
    """The fields of a manifest or node, read one after the other.

    Raises IndexError or ValueError if they contradict the format.
    """

    def __init__(self, data: bytes, position: int = 0) -> None:
        self._data = data
        self.position = position

    def byte(self) -> int:
        """Return the next byte."""
        self.position += 1
        return self._data[self.position - 1]

    def take(self, length: int) -> bytes:
        """Return the next `length` bytes."""
        start = self.position
        if length > len(self._data) - start:
            raise IndexError
        self.position += length
        return self._data[start : self.position]

    def number(self) -> int:
        """Return the next base-128 number, of at most 64 bits."""
        number, self.position = read_varint(self._data, self.position)
        return number

    def count(self) -> int:
        """Return the next number, which counts things of at least one byte each."""
        count = self.number()
        if count > len(self._data) - self.position:
            raise IndexError
        return count

    def numbers(self, count: int) -> list[int]:
        """Return the next `count` numbers."""
        return [self.number() for _ in range(count)]

    def joined(self, shared: list[int], lengths: list[int]) -> list[bytes]:
        """Return byte strings that are stored without what they share with the one before."""
        strings: list[bytes] = []
        before = b""
        for common, length in zip([0, *shared], lengths, strict=False):
            if common > len(before):
                raise ValueError
            before = before[:common] + self.take(length)
            if len(before) > _LONGEST_PATH:
                raise ValueError
            strings.append(before)
        return strings

    def files(self, base: str) -> list[tuple[str, str]]:
        """Return the data files of a table, each with the base of the names in it.

        `base` is that of the node. All are relative to the database; none was checked.
        """
        count = self.count()
        shared, lengths = self.numbers(max(count - 1, 0)), self.numbers(count)
        bases = self.numbers(count)
        paths = [os.fsdecode(path) for path in self.joined(shared, lengths)]
        return [
            (base + path, base + os.fsdecode(os.fsencode(path)[:length]))
            for path, length in zip(paths, bases, strict=True)
        ]


def _reference(file: tuple[str, str], offset: int, length: int) -> _Reference:
    """Return a part of a data file; raises ValueError if its path may lead out of the database.

    Only what is used is checked: a version without keys refers to a file without a name.
    """
    path, base = file
    name = name_below(path)
    if name is None or len(path) > _LONGEST_PATH:
        raise ValueError
    return _Reference(name, base, offset, length)
