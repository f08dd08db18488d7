"""Registry of the caches that hold for one run: what remote directories and files contain."""

from __future__ import annotations

from collections.abc import Callable

_clear_functions: list[Callable[[], None]] = []


def register(clear: Callable[[], None]) -> Callable[[], None]:
    """Register a function that clears a cache (as a decorator). It is called once per run."""
    _clear_functions.append(clear)
    return clear


def clear_all() -> None:
    """Clear every registered cache, as when a run begins: remote files may have changed."""
    for clear in _clear_functions:
        clear()
