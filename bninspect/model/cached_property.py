"""Properties that are computed once, without the lock of `functools.cached_property`.

Python 3.12 gave that lock up. Taking it costs more than most properties of a layer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

__all__ = ["cached_property"]

if TYPE_CHECKING:
    from functools import cached_property
else:

    class cached_property:  # noqa: N801
        """A property whose value is computed at its first use, and kept in the object."""

        def __init__(self, function: Callable[[Any], Any]) -> None:
            """Take the function that computes the value."""
            self._function, self.__doc__ = function, function.__doc__
            self._name = function.__name__

        def __get__(self, instance: Any, owner: type) -> Any:
            """Return the value; the property itself for a class."""
            if instance is None:
                return self
            value = instance.__dict__[self._name] = self._function(instance)
            return value
