"""Objects that live as long as a run, such as the cache of remote listings.

A run is one command, one call of a public function, or one look of a watch: remote files may have
changed when the next one begins.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

_T = TypeVar("_T")

_objects: dict[Callable[[], Any], Any] = {}


def begin_run() -> None:
    """Begin a run: drop the objects of the previous one, in all threads."""
    _objects.clear()


def of_run(make: Callable[[], _T]) -> _T:
    """Return the object of this run that `make` makes; it is called once."""
    if make not in _objects:
        _objects.setdefault(make, make())  # another thread may have been faster
    made: _T = _objects[make]
    return made
