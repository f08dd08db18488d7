"""Keras archives, `.keras`: a zip of config.json, metadata.json and model.weights.h5.

Format: keras/src/saving/saving_lib.py. Nothing is unpacked to disk and nothing in the configuration
is executed or imported. Keras stores the weights as they are. To verify their checksum all of them
must be read, so that is done for small archives and on request; of others only the bytes that are
needed are read. A member that someone compressed is unpacked into memory, within limits.
"""

from __future__ import annotations

import json
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from bninspect.errors import Corrupt, ReadProblem, UnknownFormat, Unsupported
from bninspect.formats.hdf5.file import Hdf5
from bninspect.formats.hdf5.structure import DAMAGED
from bninspect.formats.keras.layer_before import with_layers_before
from bninspect.formats.keras.model_config import (
    keras_layers,
    keras_model,
    layer_groups,
    optimizer_class,
)
from bninspect.formats.keras.stored_objects import Configuration, Owner
from bninspect.formats.keras.weights_h5 import scan, stored_paths, weights_checkpoint
from bninspect.frozen import NamedTuple
from bninspect.model.checkpoint import Checkpoint
from bninspect.storage.source import Budget, Source, Window
from bninspect.storage.urls import is_url

CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"


class _Limit(NamedTuple):
    """Limits of a member that unpacks: `most` bytes, and above `floor` `growth` times its size."""

    most: int
    growth: int
    floor: int


# The configuration of a ResNet-152 takes 0.5 MB and shrinks to a fiftieth. The objects that Python
# makes of JSON take up to thirty times as much.
_JSON = _Limit(most=16 << 20, growth=100, floor=4 << 20)
# Weights shrink by a tenth; with nine of ten pruned to zero, to a seventh.
_UNPACKED = _Limit(most=2 << 30, growth=8, floor=64 << 20)

# Bytes of stored weights whose checksum is always verified: on the disk that takes 10 ms, and a
# remote file of that size is fetched whole anyway.
_VERIFIED_LOCAL, _VERIFIED_REMOTE = 16 << 20, 256 << 10

LOCAL_HEADER = struct.Struct("<4s22xHH")  # PKWARE's APPNOTE 4.3.7
_LOCAL_SIGNATURE = b"PK\x03\x04"
_ENCRYPTED, _HAS_DESCRIPTOR = 0x1, 0x8  # general purpose flags, 4.4.4
# The central directory, 4.3.12: signature, then the sizes of name, extra field and comment.
_DIRECTORY_ENTRY = struct.Struct("<4s24xHHH12x")
_DIRECTORY_SIGNATURE, _DESCRIPTOR_SIGNATURE = b"PK\x01\x02", b"PK\x07\x08"
CHECKSUM_IN_HEADER, CHECKSUM_IN_DIRECTORY = 14, 16


def open_keras_zip(
    path: str, file_path: str, notes: tuple[str, ...] = (), *, verify: bool = False
) -> Checkpoint:
    """Open the Keras archive at `file_path`; `path` is what the user typed.

    `verify` asks for the checksum of weights of any size. Raises a `ReadProblem` if it is a zip of
    something else, damaged, encrypted or a zip bomb.
    """
    source = Source(file_path)
    try:
        return read_archive(path, open_archive(Archive(source), verify=verify), notes)
    except BaseException:
        source.close()
        raise


class OpenArchive(NamedTuple):
    """The content of an archive: its configuration, the version of Keras, and its weights.

    `is_verified` says whether the checksum of the weights was verified.
    """

    archive: Archive
    config: Any
    keras_version: str
    file: Hdf5
    is_verified: bool


def open_archive(
    archive: Archive, *, verify: bool = False, record: dict[int, bytes] | None = None
) -> OpenArchive:
    """Return the content of an archive; raises a `ReadProblem`.

    `record` is that of `Hdf5` for the weights.
    """
    config = archive.json(CONFIG)
    version = keras_version_of(archive.json(METADATA)) if archive.has(METADATA) else ""
    budget = Budget()
    budget.grant(archive.source.size)
    weights, is_verified = archive.weights(verify=verify)
    file = Hdf5(archive.source.path, weights, budget, record=record)
    return OpenArchive(archive, config, version, file, is_verified)


def keras_version_of(metadata: Any) -> str:
    """Return the version of Keras in the metadata; empty without one."""
    return str(metadata.get("keras_version", "")) if isinstance(metadata, dict) else ""


def read_archive(path: str, opened: OpenArchive, notes: tuple[str, ...] = ()) -> Checkpoint:
    """Return the checkpoint in an archive, whose `path` is what the user typed.

    Closing it closes the archive. Raises a `ReadProblem`.
    """
    file, version = opened.file, opened.keras_version
    source = opened.archive.source

    def close() -> None:
        file.close()
        source.close()

    owners = scan(file)
    checkpoint = weights_checkpoint(
        path,
        source.path,
        "keras-zip",
        owners,
        dict.fromkeys(stored_paths(owners), file),
        configuration=_configuration(source.path, opened.config, version, owners),
        keras_version=version,
        notes=notes,
        close=close,
    )
    return replace(checkpoint, verified=opened.is_verified)


def _configuration(
    path: str, config: Any, version: str, owners: Mapping[str, Owner]
) -> Configuration:
    compiled = config.get("compile_config") if isinstance(config, dict) else None
    try:
        groups = layer_groups(config, version, owners)
        by_names = {names: group for group, names in groups.items()}

        def stored(names: tuple[str, ...], count: int) -> str | None:
            """Return the last of `count` variables of a layer, if it has so many."""
            group = by_names.get(names, "")
            members = owners[group].members if group in owners else ()
            return f"{group}/vars/{count - 1}" if len(members) == count else None

        return Configuration(
            with_layers_before(keras_layers(config, version), config, stored),
            groups,
            keras_model(config, is_compiled=bool(compiled), optimizer=optimizer_class(compiled)),
        )
    except RecursionError as error:
        raise Corrupt(path, f"its {CONFIG} is nested too deep for a model", DAMAGED) from error


class WeightsMember(NamedTuple):
    """Where the weights of an archive lie, and each place of their checksum (CRC-32)."""

    offset: int
    size: int
    checksums: tuple[int, ...]


def find_weights(source: Source) -> WeightsMember:
    """Return where the weights of an archive lie.

    Raises `Unsupported` if they are compressed, another `ReadProblem` if the archive is damaged.
    """
    return Archive(source).find_weights()


class MemberPlace(NamedTuple):
    """Where a member lies: its header, its entry in the directory, its bytes if it is stored."""

    name: str
    header: int
    entry: int
    offset: int | None
    size: int


class Archive:
    """The members of a zip, each looked up by its exact name."""

    def __init__(self, source: Source, window: Window | None = None) -> None:
        """Read the directory of the archive; `window` is all of it, read in another way."""
        self.source = source
        self._path = source.path
        window = window or source.window(0, source.size, "the archive")
        with _faults(self._path):
            self._zip = zipfile.ZipFile(window)
        self._names = [member.filename for member in self._zip.infolist()]
        for name in (CONFIG, METADATA, WEIGHTS):
            if self._names.count(name) > 1:
                raise Corrupt(
                    self._path,
                    f"it holds {name} more than once",
                    "Keras never writes this; save the model again.",
                )
        if not (self.has(WEIGHTS) and self.has(CONFIG)):
            raise _not_keras(self._path, self._names)

    def has(self, name: str) -> bool:
        """Return whether there is a member of exactly that name."""
        return name in self._names

    def json(self, name: str) -> Any:
        """Return a member as JSON; raises `Corrupt`."""
        try:
            return json.loads(self._read(self._member(name), _JSON))
        except (ValueError, RecursionError) as error:
            raise Corrupt(self._path, f"its {name} is not valid JSON ({error})", DAMAGED) from error

    def weights(self, *, verify: bool) -> tuple[Window, bool]:
        """Return the weights as a file, and whether their checksum was verified.

        That is their place in the archive, or their bytes if they are compressed.
        """
        member = self._member(WEIGHTS)
        if member.compress_type != zipfile.ZIP_STORED:
            data = self._read(member, _UNPACKED)
            return Window(lambda at, length: data[at : at + length], len(data)), True
        what = f"its {WEIGHTS}"
        offset = self._offset(member)
        window = self.source.window(offset, member.file_size, what)
        always = _VERIFIED_REMOTE if is_url(self._path) else _VERIFIED_LOCAL
        if not verify and member.file_size > always:
            return window, False
        checksum = 0
        for piece in self.source.pieces(offset, member.file_size, what):
            checksum = zlib.crc32(piece, checksum)
        if checksum != member.CRC:
            raise Corrupt(self._path, f"{what} does not match its checksum (CRC-32)", DAMAGED)
        return window, True

    def _offset(self, member: zipfile.ZipInfo) -> int:
        """Return where the bytes of a stored member begin; raises `Corrupt`."""
        what = f"its {member.filename}"
        header = self.source.read(member.header_offset, LOCAL_HEADER.size, f"the head of {what}")
        signature, name_size, extra_size = LOCAL_HEADER.unpack(header)
        if signature != _LOCAL_SIGNATURE or member.file_size != member.compress_size:
            raise Corrupt(self._path, f"{what} is not where the archive says", DAMAGED)
        return int(member.header_offset + LOCAL_HEADER.size + name_size + extra_size)

    def find_weights(self) -> WeightsMember:
        """Return where the stored weights lie, and each place of their checksum."""
        member = self._member(WEIGHTS)
        if member.compress_type != zipfile.ZIP_STORED:
            raise Unsupported(
                self._path,
                f"its {WEIGHTS} is compressed, so that no value in it can be replaced",
                "Pack the archive again without compression, as Keras does.",
            )
        offset = self._offset(member)
        end = offset + member.file_size
        checksums = [self._directory_entry(member) + CHECKSUM_IN_DIRECTORY]
        if member.flag_bits & _HAS_DESCRIPTOR:
            head = self.source.read(end, 4, "a data descriptor")
            checksums.append(end + 4 if head == _DESCRIPTOR_SIGNATURE else end)
        else:
            checksums.append(member.header_offset + CHECKSUM_IN_HEADER)
        for offset_of_checksum in checksums:
            if (
                int.from_bytes(self.source.read(offset_of_checksum, 4, "a checksum"), "little")
                != member.CRC
            ):
                raise Corrupt(self._path, f"the checksums of its {WEIGHTS} disagree", DAMAGED)
        return WeightsMember(offset, member.file_size, tuple(checksums))

    def places(self) -> Iterator[MemberPlace]:
        """Yield the place of each member; raises `Corrupt`."""
        for member in self._zip.infolist():
            is_stored = member.compress_type == zipfile.ZIP_STORED
            yield MemberPlace(
                member.filename,
                member.header_offset,
                self._directory_entry(member),
                self._offset(member) if is_stored else None,
                member.file_size,
            )

    def _directory_entry(self, member: zipfile.ZipInfo) -> int:
        """Return where the entry of a member is in the central directory; raises `Corrupt`."""
        at = self._zip.start_dir
        for _ in self._names:
            head = self.source.read(at, _DIRECTORY_ENTRY.size, "the archive's directory")
            signature, *sizes = _DIRECTORY_ENTRY.unpack(head)
            if signature != _DIRECTORY_SIGNATURE:
                break
            name = self.source.read(at + _DIRECTORY_ENTRY.size, sizes[0], "the name of a member")
            if name == member.orig_filename.encode():
                return at
            at += _DIRECTORY_ENTRY.size + sum(sizes)
        raise Corrupt(self._path, "the archive's directory is damaged", DAMAGED)

    def _member(self, name: str) -> zipfile.ZipInfo:
        member = self._zip.getinfo(name)
        if member.flag_bits & _ENCRYPTED:
            raise Unsupported(
                self._path, f"its {name} is encrypted", "Unpack it with its password, then check."
            )
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise Unsupported(
                self._path,
                f"its {name} is compressed by a method other than deflate",
                "Keras never writes this; pack the archive again without compression.",
            )
        return member

    def _read(self, member: zipfile.ZipInfo, limit: _Limit) -> bytes:
        """Return a member's bytes, whose checksum is verified; raises `Corrupt`."""
        what = f"its {member.filename}"
        # zipfile of Python 3.10 allocates as much as the member claims to take in the archive.
        self.source.require(member.header_offset, member.compress_size, what)
        if member.file_size > min(
            limit.most, max(limit.floor, limit.growth * member.compress_size)
        ):
            raise Corrupt(
                self._path,
                f"{what} claims to unpack {member.compress_size} bytes to {member.file_size}",
                "If it is not made to mislead, pack the archive again without compression.",
            )
        with _faults(self._path):
            return self._zip.read(member)


@contextmanager
def _faults(path: str) -> Iterator[None]:
    """Turn what zipfile raises about a damaged archive into a `Corrupt`."""
    try:
        yield
    except (
        zipfile.BadZipFile,
        zlib.error,
        struct.error,
        OSError,
        EOFError,
        RuntimeError,
        ValueError,
        LookupError,
        OverflowError,
    ) as error:
        raise Corrupt(path, f"this zip archive cannot be read ({error})", DAMAGED) from error


def _not_keras(path: str, names: list[str]) -> ReadProblem:
    """Return the error for an archive that lacks the members of Keras."""
    ends = {name.rpartition("/")[2] for name in names}
    if "data.pkl" in ends:
        message, hint = "this is a PyTorch file", "bninspect reads TensorFlow and Keras files."
    elif "model.weights.npz" in names:
        message = "this .keras archive keeps its weights as NumPy arrays (model.weights.npz)"
        return Unsupported(path, message, "Save the model again with weights_format='h5'.")
    elif any(name.endswith(".npy") for name in names):
        message, hint = "these are NumPy arrays", "bninspect reads TensorFlow and Keras files."
    elif inner := next((name for name in names if name.endswith((".keras", ".h5", ".index"))), ""):
        message = f"this is a zip archive that holds {inner}, but not as a .keras file does"
        hint = "Unpack it, then check that file."
    else:
        message = (
            "this is a zip archive, but not a .keras file (it lacks config.json or its weights)"
        )
        hint = "Check that it is the right file."
    return UnknownFormat(path, message, hint)
