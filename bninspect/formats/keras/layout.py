"""The layout of Keras's HDF5 files: all bytes that say what is stored where.

The files that one program saves of one architecture differ in values, times and checksums alone. So
the bytes that the ordinary reader saw of one file are kept, and compared with those of another file
of the same size. If they are the same, the ordinary reader would find the same in it: what it finds
depends on nothing else. Then only values are read, in as few reads as they lie together in.

Some bytes of an archive may differ: the times in the zip, which nothing reads; its checksums, which
are verified here; the time in metadata.json, whose version of Keras is compared; and the numbers in
config.json by which Keras knows shared objects again, which are addresses in the memory of the
program (`id(obj)` in keras/src/saving/serialization_lib.py).
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from bninspect.errors import Corrupt, Unsupported
from bninspect.formats.hdf5.file import Hdf5
from bninspect.formats.hdf5.structure import DAMAGED
from bninspect.formats.hdf5.superblock import open_for_writing
from bninspect.formats.keras.h5 import read_hdf5
from bninspect.formats.keras.stored_objects import may_be_shard
from bninspect.model.checkpoint import Checkpoint, Variable
from bninspect.model.target import Target
from bninspect.storage.source import Source, Window
from bninspect.storage.spans import Span, join_pieces

_MOST_BYTES = 16 << 20  # that are read of each file, those of an archive's checksum among them
# numpy's types of the values that can be read: of statistics, and of the step.
_NUMBERS = {"float32": "<f4", "int32": "<i4", "int64": "<i8"}
_TIME_IN_HEADER, _TIME_IN_DIRECTORY, _TIME_SIZE = 10, 12, 4  # PKWARE's APPNOTE 4.3.7 and 4.3.12
_CHECKSUM_SIZE = 4
_SHARED_OBJECT = re.compile(rb'(?<!\\)"shared_object_id": ([1-9][0-9]*)(?=[,}])')


class OpenKerasFile:
    """An HDF5 file or archive that is compared with the layouts of others.

    Raises a `ReadProblem` if it cannot be opened.
    """

    def __init__(self, target: Target) -> None:
        self.path, self.kind = target.path, target.kind
        self._source = Source(target.path)
        self.size = self._source.size
        self.data = b""  # that of the spans which were read last
        self._spans: Sequence[Span] = ()
        self._parts: Sequence[slice] = ()
        self._structure = b""

    def structure(self, spans: Sequence[Span], parts: Sequence[slice]) -> bytes:
        """Read the spans of a layout, and return the parts that are structure.

        Raises a `ReadProblem`, also if another program has the file open for writing.
        """
        self._read(spans)
        # Layouts of one size often differ in a text alone.
        if parts != self._parts:
            self._parts = parts
            self._structure = b"".join([self.data[part] for part in parts])
        return self._structure

    def _read(self, spans: Sequence[Span]) -> None:
        if not self._spans and self.kind == "hdf5" and self._source.is_being_written():
            raise open_for_writing(self.path)
        if spans == self._spans:
            return
        self._spans, self._parts = spans, ()
        parts = [self._source.read(offset, size, "a variable") for _, offset, size in spans]
        self.data = parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        """Close the file; bytes that were read are kept."""
        self._source.close()


class _Piece(NamedTuple):
    """Bytes of the file."""

    file: int
    offset: int
    size: int


class _Member(NamedTuple):
    """A member of an archive, and where the archive's directory has its checksum."""

    place: _Piece
    checksum: _Piece


class ArchiveMembers(NamedTuple):
    """The members of an archive that differ, as far as their checksums are verified.

    `metadata` is one of them, if there is one. `keras_version` is what it says. `objects` are the
    numbers of shared objects in the configuration.
    """

    verified: tuple[_Member, ...]
    metadata: _Piece | None
    objects: tuple[_Piece, ...]
    keras_version: str


class KerasLayout:
    """The layout of one file, by which the values of others are read.

    `size` is that of the file, `weight` that of what is kept of it, in bytes.
    """

    def __init__(
        self,
        kind: str,
        size: int,
        structure: Mapping[_Piece, bytes],
        variables: Iterable[_Piece],
        archive: ArchiveMembers | None,
    ) -> None:
        """Prepare to read `variables` of files with this `structure`; see `Recording.layout`."""
        self.kind, self.size = kind, size
        self._archive = archive
        variables = [*variables]
        pieces = [*structure, *variables]
        if archive is not None:
            pieces += archive.objects
            pieces += (piece for member in archive.verified for piece in member)
        self._spans, starts = join_pieces(pieces)
        self.read_size = sum(length for _, _, length in self._spans)
        self._fixed = b"".join(structure.values())
        self._fixed_parts = [slice(starts[one], starts[one] + one.size) for one in structure]
        self._parts = [slice(starts[one], starts[one] + one.size) for one in variables]
        self._starts = starts
        self.weight = len(self._fixed)

    def matches(self, file: OpenKerasFile) -> bool:
        """Return whether the structure of a file is the same; raises a `ReadProblem`."""
        if file.size != self.size or file.kind != self.kind:
            return False
        if file.structure(self._spans, self._fixed_parts) != self._fixed:
            return False
        # Of what may be one of several shards, layers may lack variables.
        return not may_be_shard(file.path)

    def read(self, file: OpenKerasFile) -> bytes | None:
        """Return the values of the variables that the layout was learned for, one after the other.

        The layout matches the file. Returns None if an archive was written by another version of
        Keras. Raises `Corrupt` if a checksum is wrong.
        """
        data = file.data
        if self._archive is not None and not self._is_alike(self._archive, file):
            return None
        return b"".join([data[part] for part in self._parts])

    def _is_alike(self, archive: ArchiveMembers, file: OpenKerasFile) -> bool:
        """Verify the members of an archive; return whether they say the same."""
        numbers = [self._bytes(file, piece) for piece in archive.objects]
        if any(not number.isdigit() or number.startswith(b"0") for number in numbers):
            return False
        for member in archive.verified:
            checksum = int.from_bytes(self._bytes(file, member.checksum), "little")
            if zlib.crc32(self._bytes(file, member.place)) != checksum:
                raise Corrupt(file.path, "a member does not match its checksum (CRC-32)", DAMAGED)
        if archive.metadata is None:
            return True
        from bninspect.formats.keras.archive import keras_version_of

        try:
            metadata = json.loads(self._bytes(file, archive.metadata))
        except (ValueError, RecursionError):
            return False
        return keras_version_of(metadata) == archive.keras_version

    def _bytes(self, file: OpenKerasFile, piece: _Piece) -> bytes:
        start = self._starts[piece]
        return file.data[start : start + piece.size]

    def read_others(self, _: OpenKerasFile) -> dict[str, bytes]:
        """Return no other variables: no layout is learned of a file that has such evidence."""
        return {}


class _LookedUp(Mapping[str, Variable]):
    """The variables of a file by name; once it is `closed`, those that were looked up."""

    def __init__(self, variables: Mapping[str, Variable]) -> None:
        self._variables = variables
        self._found: dict[str, Variable] = {}
        self.is_closed = False

    def __getitem__(self, name: str) -> Variable:
        if name not in self._found:
            if self.is_closed:
                raise KeyError(name)
            self._found[name] = self._variables[name]
        return self._found[name]

    def __contains__(self, name: object) -> bool:
        return name in self._variables

    def __iter__(self) -> Iterator[str]:
        return iter(self._variables)

    def __len__(self) -> int:
        return len(self._variables)


class Recording:
    """The open checkpoint of a target, and a record of all that its reader sees.

    Raises a `ReadProblem`. Variables that were looked up stay known when it is closed.
    """

    def __init__(self, path: str, target: Target) -> None:
        self._kind = target.kind
        self._record: dict[int, bytes] = {}  # offset → bytes that were read
        self._of_weights = self._record  # those of the weights, from `_start` on
        self._free: list[_Piece] = []  # bytes that may differ
        self._archive: ArchiveMembers | None = None
        self._source = Source(target.path)
        try:
            read = self._read_hdf5 if target.kind == "hdf5" else self._read_archive
            checkpoint = read(path, target)
        except BaseException:
            self._source.close()
            raise
        self._variables = _LookedUp(checkpoint.variables)
        self._optimizer = _LookedUp(checkpoint.optimizer)
        self.checkpoint = replace(checkpoint, variables=self._variables, optimizer=self._optimizer)

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, *_: object) -> None:
        self._variables.is_closed = self._optimizer.is_closed = True
        self.checkpoint.close()
        self._source.close()

    def _read_hdf5(self, path: str, target: Target) -> Checkpoint:
        self._start = 0
        self._file = Hdf5(target.path, self._whole("the file"), record=self._record)
        return read_hdf5(path, self._file, target.notes)

    def _read_archive(self, path: str, target: Target) -> Checkpoint:
        from bninspect.formats.keras import archive as archives

        archive = archives.Archive(
            self._source, _RecordedWindow(self._whole("the archive"), self._record)
        )
        self._of_weights = {}
        opened = archives.open_archive(archive, record=self._of_weights)
        self._file = opened.file
        checkpoint = archives.read_archive(path, opened, target.notes)
        verified, metadata = [], None
        objects: list[_Piece] = []
        for place in archive.places():
            checksum = _Piece(0, place.entry + archives.CHECKSUM_IN_DIRECTORY, _CHECKSUM_SIZE)
            self._may_differ(place.header + _TIME_IN_HEADER, _TIME_SIZE)
            self._may_differ(place.header + archives.CHECKSUM_IN_HEADER, _CHECKSUM_SIZE)
            self._may_differ(place.entry + _TIME_IN_DIRECTORY, _TIME_SIZE)
            if place.name == archives.WEIGHTS:
                if place.offset is None:
                    raise Unsupported(target.path, "its weights are compressed", "")
                self._start = place.offset
                header = self._source.read(place.header, archives.LOCAL_HEADER.size, "a header")
                self._keep(place.header, header)
                if opened.is_verified:
                    verified.append(_Member(_Piece(0, place.offset, place.size), checksum))
            elif place.name in (archives.METADATA, archives.CONFIG):
                if place.offset is None:
                    continue  # it is compared as it is
                whole = _Piece(0, place.offset, place.size)
                verified.append(_Member(whole, checksum))
                if place.name == archives.METADATA:
                    metadata = whole
                    self._free.append(whole)
                else:
                    objects += self._shared_objects(whole)
            self._free.append(checksum)
        self._free += objects
        self._archive = ArchiveMembers(
            tuple(verified), metadata, tuple(objects), opened.keras_version
        )
        return checkpoint

    def _shared_objects(self, config: _Piece) -> Iterator[_Piece]:
        """Yield the numbers of shared objects in the configuration."""
        data = self._source.read(config.offset, config.size, "its configuration")
        for match in _SHARED_OBJECT.finditer(data):
            start, end = match.span(1)
            yield _Piece(0, config.offset + start, end - start)

    def _whole(self, what: str) -> Window:
        return self._source.window(0, self._source.size, what)

    def _may_differ(self, offset: int, size: int) -> None:
        self._free.append(_Piece(0, offset, size))

    def _keep(self, offset: int, data: bytes) -> None:
        if len(data) > len(self._record.get(offset, b"")):
            self._record[offset] = data

    def layout(self, variables: Iterable[Variable]) -> KerasLayout | None:
        """Return the layout by which the values of these variables are read, in this order.

        None if one does not lie in one piece as a little-endian number, if values decide which
        variables are which, or if too many bytes must be read of each file. Raises a `ReadProblem`.
        """
        if self.checkpoint.roles_by_values:
            return None
        pieces = []
        for variable in variables:
            try:
                offset, number = self._file.place(variable.name)
            except Unsupported:
                return None
            if number != _NUMBERS.get(variable.dtype):
                return None
            size = variable.size * int(number[-1])
            pieces.append(_Piece(0, self._start + offset, size))
        for offset, data in [*self._of_weights.items()]:  # all that was read by now
            self._keep(self._start + offset, data)
        structure = _without(_joined(self._record), self._free)
        layout = KerasLayout(self._kind, self._source.size, structure, pieces, self._archive)
        return layout if layout.read_size <= _MOST_BYTES else None


class _RecordedWindow(Window):
    """A window that records the bytes which are read of it, by their offset."""

    def __init__(self, window: Window, record: dict[int, bytes]) -> None:
        super().__init__(window.read_at, window.size)
        self._record = record

    def read_at(self, offset: int, length: int) -> bytes:
        """Return the `length` bytes at `offset`, and record them."""
        data = super().read_at(offset, length)
        if len(data) > len(self._record.get(offset, b"")):
            self._record[offset] = data
        return data


def _joined(record: Mapping[int, bytes]) -> dict[int, bytes]:
    """Return a record without parts that overlap or touch each other."""
    joined: dict[int, bytearray] = {}
    start = end = -1
    for offset in sorted(record):
        data = record[offset]
        if offset > end or start < 0:
            start, end = offset, offset
            joined[start] = bytearray()
        joined[start] += data[end - offset :]
        end = max(end, offset + len(data))
    return {offset: bytes(data) for offset, data in joined.items()}


def _without(record: Mapping[int, bytes], free: Iterable[_Piece]) -> dict[_Piece, bytes]:
    """Return the parts of a record, without the pieces that may differ."""
    parts: dict[_Piece, bytes] = {}
    cuts = sorted(free, key=lambda piece: piece.offset)
    for start, data in record.items():
        at = start
        for piece in cuts:
            if piece.offset < start + len(data) and piece.offset + piece.size > at:
                _add_part(parts, at, data[at - start : max(piece.offset - start, 0)])
                at = max(at, piece.offset + piece.size)
        _add_part(parts, at, data[at - start :])
    return parts


def _add_part(parts: dict[_Piece, bytes], offset: int, data: bytes) -> None:
    if data:
        parts[_Piece(0, offset, len(data))] = data
