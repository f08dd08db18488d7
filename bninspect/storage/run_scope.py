"""Objects that live as long as a run, such as the cache of what remote directories hold.

A run is one command, one call of a public function, or one look of a watch: what is behind a URL
may have changed when the next one begins.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

_T = TypeVar("_T")

_objects: dict[Callable[[], Any], Any] = {}


def begin_run() -> None:
    """Begin a run: drop the objects of the one before, in all threads."""
    _objects.clear()


def of_run(make: Callable[[], _T]) -> _T:
    """Return the object of this run that `make` makes when it is first asked for."""
    found = _objects.get(make)
    if found is None:
        found = _objects.setdefault(make, make())
    made: _T = found
    return made
