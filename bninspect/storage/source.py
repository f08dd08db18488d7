"""Reading bytes of a file at an offset, from the local disk or from a server.

No more is read than requested, and nothing is allocated before the request has been compared with
the size of the file.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any

from bninspect.errors import (
    Corrupt,
    Incomplete,
    NotFetched,
    NotFound,
    Overwritten,
    ReadProblem,
    UnknownFormat,
)
from bninspect.storage.descriptors import is_locked, open_to_read, read_at
from bninspect.storage.overwrites import note_opened
from bninspect.storage.urls import is_url

# A pointer stands for a file of a repository until `git lfs` has fetched it. It is smaller than
# this (blobSizeCutoff of lfs/pointer.go), and begins so (docs/spec.md of Git LFS).
_POINTER_LIMIT = 1024
_POINTER_HEAD = b"version https://git-lfs"

_LOCAL_PIECE, _REMOTE_PIECE = 1 << 20, 16 << 20  # bytes of a long read

# A look into a file. It may return, among other things, further looks that it made possible.
Look = Callable[[], Any]


class Budget:
    """Limit on the bytes of values that are read from one checkpoint.

    Entries of an index may share bytes, and compressed data may unpack to any size, so a check of
    each variable alone does not limit their sum. A sound checkpoint stays far below the limit.
    """

    _FREE = 64 << 20
    _GROWTH = 4

    def __init__(self) -> None:
        self._left = self._FREE

    def grant(self, stored: int) -> None:
        """Raise the limit, as a file of the checkpoint has `stored` bytes."""
        self._left += self._GROWTH * stored

    def take(self, size: int, path: str) -> None:
        """Count `size` bytes that are read; raises `Corrupt` for `path` beyond the limit."""
        self._left -= size
        if self._left < 0:
            raise Corrupt(
                path,
                "its variables claim far more bytes than are stored",
                "The file is damaged or made to mislead; use another one.",
            )


class Source:
    """An open file, local or remote, read at offsets.

    `path` is the name that messages show, `size` the length in bytes. Raises `NotFound` without
    such a file, `UnknownFormat` for a directory, a pipe or a device, `NotFetched` for a Git LFS
    pointer, another `ReadProblem` if it cannot be opened.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._descriptor = -1
        self._object = None
        if is_url(path):
            from bninspect.storage.remote.cache import open_object

            self._object = open_object(path)
            self.size = self._object.size
        else:
            self._open(path)
        if self.size < _POINTER_LIMIT and self._is_pointer():
            self.close()
            raise NotFetched(
                path,
                "this is a Git LFS pointer, not the file itself",
                "Fetch the file with `git lfs pull`.",
            )

    def _open(self, path: str) -> None:
        try:
            self._descriptor = open_to_read(path)
        except FileNotFoundError as error:
            raise NotFound(path, "no such file", "Check the path.") from error
        except OSError as error:
            kind = NotFound if error.errno == errno.ELOOP else ReadProblem
            raise kind(
                path,
                f"cannot be opened ({error.strerror or error})",
                "Check the file and its permissions.",
            ) from error
        status = note_opened(path, self._descriptor)
        if not stat.S_ISREG(status.st_mode):
            self.close()
            raise UnknownFormat(
                path, "this is not a file but a device, a pipe or a directory", "Check the path."
            )
        self.size = status.st_size

    def _is_pointer(self) -> bool:
        if self._object is not None:
            length = min(self.size, len(_POINTER_HEAD))
            return length > 0 and self._object.read(0, length) == _POINTER_HEAD
        try:
            return read_at(self._descriptor, len(_POINTER_HEAD), 0) == _POINTER_HEAD
        except OSError:
            return False  # reading the file raises it

    def require(self, offset: int, length: int, what: str) -> None:
        """Raise `Incomplete` unless the file has `length` bytes at `offset`."""
        if offset < 0 or length < 0 or offset + length > self.size:
            raise Incomplete(
                self.path,
                f"{what} should be {length} bytes at offset {offset}, but the file has"
                f" {self.size} bytes",
                "The file was cut short or belongs to another checkpoint; copy it again.",
            )

    def read(self, offset: int, length: int, what: str) -> bytes:
        """Return `length` bytes from `offset`; `what` names them in the error.

        Raises `Incomplete` if the file does not reach that far.
        """
        self.require(offset, length, what)
        if self._object is not None:
            return self._object.read(offset, length)
        try:
            data = read_at(self._descriptor, length, offset)
            if len(data) < length:
                data = self._read_parts(data, offset, length)
        except OSError as error:
            raise ReadProblem(
                self.path,
                f"reading {what} at offset {offset} failed ({error.strerror or error})",
                "Check the disk or the network file system, then try again.",
            ) from error
        if len(data) != length:
            raise Overwritten(
                self.path,
                f"{what} at offset {offset} ended after {len(data)} of {length} bytes",
                "The file changed while it was read; try again when it is complete.",
            )
        return data

    def pieces(self, offset: int, length: int, what: str) -> Iterator[bytes]:
        """Yield `length` bytes from `offset` in pieces; of a remote file these are not kept.

        Raises as `read`.
        """
        self.require(offset, length, what)
        step = _LOCAL_PIECE if self._object is None else _REMOTE_PIECE
        for start in range(offset, offset + length, step):
            size = min(step, offset + length - start)
            if self._object is None:
                yield self.read(start, size, what)
            else:
                yield self._object.read_once(start, size)

    def prefetch(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Prefetch bytes that will be read, given as (offset, length). Does nothing locally."""
        if self._object is not None:
            self._object.prefetch((offset, offset + length) for offset, length in ranges)

    def _read_parts(self, data: bytes, offset: int, length: int) -> bytes:
        """Continue a read that ended early: some file systems serve a long one in parts."""
        parts = [data]
        got = len(data)
        while got < length and parts[-1]:
            parts.append(read_at(self._descriptor, length - got, offset + got))
            got += len(parts[-1])
        return b"".join(parts)

    def window(self, offset: int, size: int, what: str) -> Window:
        """Return the `size` bytes at `offset` as a file; raises `Incomplete` beyond the end."""
        self.require(offset, size, what)
        window = Window(lambda at, length: self.read(offset + at, length, what), size)
        if self._object is not None:
            is_cached = self._object.has
            window.prefetch = lambda ranges: self.prefetch((offset + at, n) for at, n in ranges)
            window.is_fetched = lambda at, length: is_cached(offset + at, length)
        return window

    def is_being_written(self) -> bool:
        """Return whether another program has the file locked for writing, as HDF5 locks it.

        To learn that, the file is locked for a moment: a program that opens it for writing then
        fails. False for remote files, on file systems without locks and on Windows.
        """
        if self._object is not None:
            return False
        return is_locked(self._descriptor)

    def close(self) -> None:
        """Close the file; closing twice is harmless."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def prefetch_all(ranges_of_sources: Sequence[tuple[Source, Sequence[tuple[int, int]]]]) -> None:
    """Prefetch from several sources at the same time."""
    if len(ranges_of_sources) == 1:
        _prefetch(ranges_of_sources[0])
    elif ranges_of_sources:
        from bninspect.storage.remote.read_ahead import in_threads

        in_threads(_prefetch, ranges_of_sources)


def _prefetch(ranges_of_source: tuple[Source, Sequence[tuple[int, int]]]) -> None:
    source, ranges = ranges_of_source
    source.prefetch(ranges)


class NotFetchedYet(OSError):
    """Bytes of a remote file are not fetched; raised only while a prefetch collects misses."""


class Window(io.RawIOBase):
    """A part of a file as a read-only file object, without a copy of it.

    `read` returns bytes by offset and length; a `ReadProblem` that it raises is passed on. Reading
    beyond the `size` is an OSError.

    `prefetch` is that of a `Source`, None for a local file. While `misses` is a list, bytes that
    would have to be fetched are added to it instead, and reading them raises OSError.
    """

    prefetch: Callable[[Iterable[tuple[int, int]]], None] | None = None
    is_fetched: Callable[[int, int], bool] | None = None
    misses: list[tuple[int, int]] | None = None

    def __init__(self, read: Callable[[int, int], bytes], size: int) -> None:
        super().__init__()
        self.size = size
        self._read_at = read
        self._position = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Set the position, from the start, the position or the end; return it."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}[whence]
        self._position = max(start + offset, 0)
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def read_at(self, offset: int, length: int) -> bytes:
        """Return the `length` bytes at `offset`; raises OSError beyond the end of the window."""
        if offset < 0 or length < 0 or offset + length > self.size:
            raise OSError(f"{length} bytes at offset {offset} lie beyond its end")
        if self.misses is not None and self.is_fetched and not self.is_fetched(offset, length):
            self.misses.append((offset, length))
            raise NotFetchedYet
        return self._read_at(offset, length)

    def read(self, size: int | None = -1, /) -> bytes:
        """Return at most `size` bytes from the position on, fewer at the end."""
        left = max(self.size - self._position, 0)
        length = left if size is None or size < 0 else min(size, left)
        data = self.read_at(self._position, length) if length else b""
        self._position += length
        return data
