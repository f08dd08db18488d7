"""Frozen dataclasses and named tuples that are defined fast, so that a program starts sooner.

`dataclasses` writes the source of the methods of each class and compiles it when the class is
defined, which takes some 0.6 ms. `typing.NamedTuple` compiles the annotation of each field, which
takes half of its time. A whole check takes some 80 ms, and loads some 50 of these classes.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from dataclasses import MISSING, Field, FrozenInstanceError, dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from typing import NamedTuple

    from typing_extensions import dataclass_transform
else:

    class _NamedTupleType(type):
        """The type of `NamedTuple`. A class whose base it is becomes a named tuple."""

        def __new__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> type:
            if not bases:
                return super().__new__(cls, name, bases, namespace)
            fields = namespace.pop("__annotations__", {})
            defaults = [namespace.pop(field) for field in fields if field in namespace]
            module = namespace.pop("__module__")
            made = namedtuple(name, fields, defaults=defaults, module=module)
            made.__annotations__ = fields
            for attribute, value in namespace.items():
                setattr(made, attribute, value)
            return made

    class NamedTuple(metaclass=_NamedTupleType):
        """The base of a class that is to be a named tuple, as `typing.NamedTuple` is."""

    def dataclass_transform(**_: Any) -> Any:
        """Return a decorator that does nothing: it exists for type checkers."""
        return lambda function: function


__all__ = ["NamedTuple", "frozen"]

_Class = TypeVar("_Class", bound=type)


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def frozen(*, eq: bool = True) -> Callable[[_Class], _Class]:
    """Return a decorator with the effect of `dataclass(frozen=True, eq=eq)`.

    The class is a dataclass for `dataclasses.replace` and `fields`, too.
    """

    def decorate(cls: _Class) -> _Class:
        methods: dict[str, Any] = {
            "__init__": _init,
            "__setattr__": _refuse,
            "__delattr__": _refuse,
        }
        if "__repr__" not in vars(cls):
            methods["__repr__"] = _repr
        if eq:
            methods |= {"__eq__": _eq, "__hash__": _hash}
        for name, method in methods.items():
            setattr(cls, name, method)
        dataclass(init=False, repr=False, eq=False)(cls)
        cls._parameters = _Parameters(cls)  # type: ignore[attr-defined]
        return cls

    return decorate


class _Parameters:
    """The parameters of the constructor of a frozen class: its fields, with their defaults."""

    def __init__(self, cls: Any) -> None:
        fields: list[Field[Any]] = [
            field for field in cls.__dataclass_fields__.values() if field.init
        ]
        self.names = tuple(field.name for field in fields)
        self.defaults = {
            field.name: field.default for field in fields if field.default is not MISSING
        }
        self.factories = {
            field.name: field.default_factory
            for field in fields
            if field.default_factory is not MISSING
        }
        self.prepares = hasattr(cls, "__post_init__")


def _init(self: Any, /, *values: Any, **named: Any) -> None:
    parameters: _Parameters = self._parameters
    names = parameters.names
    given = dict(zip(names, values, strict=False))
    if len(values) > len(names) or not given.keys().isdisjoint(named):
        raise TypeError(f"{type(self).__name__} got too many values")
    given.update(named)
    state = self.__dict__
    state.update(parameters.defaults)
    state.update(given)
    for name, make in parameters.factories.items():
        if name not in given:
            state[name] = make()
    if state.keys() != {*names}:
        raise TypeError(
            f"{type(self).__name__} lacks {[*{*names} - state.keys()]}"
            f" and has no {[*state.keys() - {*names}]}"
        )
    if parameters.prepares:
        self.__post_init__()


def _refuse(self: Any, name: str, *_: Any) -> None:
    raise FrozenInstanceError(f"{type(self).__name__} is immutable: {name} cannot be changed")


def _repr(self: Any) -> str:
    shown = (field.name for field in self.__dataclass_fields__.values() if field.repr)
    values = ", ".join(f"{name}={getattr(self, name)!r}" for name in shown)
    return f"{type(self).__qualname__}({values})"


def _compared(self: Any) -> tuple[Any, ...]:
    """Return the values of the fields that count when two objects are compared."""
    fields = self.__dataclass_fields__.values()
    return tuple(getattr(self, field.name) for field in fields if field.compare)


def _eq(self: Any, other: object) -> Any:
    if other.__class__ is not self.__class__:
        return NotImplemented
    return _compared(self) == _compared(other)


def _hash(self: Any) -> int:
    return hash(_compared(self))
