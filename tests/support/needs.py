"""What a test needs besides Python: noted while it runs, and held against its markers.

The markers are `framework`, `servers`, `browser` and `processes` (pyproject.toml describes them). A
test without any of them is `quick`, unless it is `slow`.
"""

from __future__ import annotations

from threading import current_thread, main_thread
from typing import Any

import pytest

MARKERS = ("framework", "servers", "browser", "processes")
# What a marker stands for besides itself: a framework tries sockets out when it is imported.
_IMPLIED = {
    "framework": {"processes", "servers"},
    "servers": {"processes"},
    "browser": {"processes"},
}
_FRAMEWORKS = {"tensorflow", "keras", "tf_keras", "tf_slim", "jax"}
_STARTS = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.exec"}
_SOCKETS = {"socket.bind", "socket.connect"}

noted: set[str] = set()


def note_event(event: str, arguments: tuple[Any, ...]) -> None:
    """Note which marker an audit event of Python asks for (docs.python.org, audit events table)."""
    if event == "import":
        if arguments[0].partition(".")[0] in _FRAMEWORKS:
            noted.add("framework")
    elif event in _STARTS:
        noted.add("processes")
    elif event in _SOCKETS and current_thread() is main_thread():
        # What a thread does may be of the test before: a server ends, a client gives up its pool.
        # An address on the network is a tuple. That of the forkserver is a path.
        noted.add("servers" if isinstance(arguments[1], tuple) else "processes")


def unmarked(item: pytest.Item) -> set[str]:
    """Return the markers that a test lacks, by what was noted while it ran."""
    has = {marker.name for marker in item.iter_markers()} & set(MARKERS)
    return noted - has.union(*(_IMPLIED.get(marker, ()) for marker in has))
