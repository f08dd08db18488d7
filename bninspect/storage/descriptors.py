"""Opening, reading and locking a local file by its descriptor, also where POSIX calls are missing.

Windows has neither `pread` nor `flock`; there a read moves the position of the descriptor, so reads
of different threads must not interleave.
"""

from __future__ import annotations

import os
import threading

try:
    import fcntl
except ImportError:
    _HAS_LOCKS = False
else:
    _HAS_LOCKS = True

# O_NONBLOCK: opening a named pipe would wait for its writer. O_BINARY: Windows translates the ends
# of lines without it.
_FLAGS = os.O_RDONLY
for _name in ("O_NONBLOCK", "O_CLOEXEC", "O_BINARY"):
    _FLAGS |= getattr(os, _name, 0)
_HAS_PREAD = hasattr(os, "pread")
_one_at_a_time = threading.Lock()


def open_to_read(path: str) -> int:
    """Open a file to read its bytes; raises OSError."""
    return os.open(path, _FLAGS)


def read_at(descriptor: int, length: int, offset: int) -> bytes:
    """Return at most `length` bytes from `offset`; raises OSError."""
    if _HAS_PREAD:
        return os.pread(descriptor, length, offset)
    with _one_at_a_time:
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.read(descriptor, length)


def is_locked(descriptor: int) -> bool:
    """Return whether another program holds the file's lock for writing.

    To learn that, the file is locked for a moment. False where there are no such locks.
    """
    if not _HAS_LOCKS:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return False
