"""Bytes at an offset: the one room that knows where a file's bytes come from.

No more is read than asked for, and nothing is allocated before the request has been held against
the size of the file.
"""

from __future__ import annotations

import os
from types import TracebackType

from bninspect.errors import Incomplete, NotFound, ReadProblem


class Source:
    """A local file opened for reads at an offset.

    `path` is the file's name as it is to appear in messages, `size` its length in bytes.
    Raises `NotFound` if there is no such file, `ReadProblem` if it cannot be opened.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self._descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        except FileNotFoundError as error:
            raise NotFound(path, "no such file", "Check the path.") from error
        except OSError as error:
            raise ReadProblem(
                path,
                f"cannot be opened ({error.strerror or error})",
                "Check the file and its permissions.",
            ) from error
        self.size = os.fstat(self._descriptor).st_size

    def read(self, offset: int, length: int, what: str) -> bytes:
        """Return `length` bytes from `offset`; `what` names them in the error.

        Raises `Incomplete` if the file does not reach that far.
        """
        if offset < 0 or length < 0 or offset + length > self.size:
            raise Incomplete(
                self.path,
                f"{what} should be {length} bytes at offset {offset}, but the file has"
                f" {self.size} bytes",
                "The file was cut short or belongs to another checkpoint; copy it again.",
            )
        try:
            data = os.pread(self._descriptor, length, offset)
        except OSError as error:
            raise ReadProblem(
                self.path,
                f"reading {what} at offset {offset} failed ({error.strerror or error})",
                "Check the disk or the network file system, then try again.",
            ) from error
        if len(data) != length:
            raise Incomplete(
                self.path,
                f"{what} at offset {offset} ended after {len(data)} of {length} bytes",
                "The file changed while it was read; try again when it is complete.",
            )
        return data

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
