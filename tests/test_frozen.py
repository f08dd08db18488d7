"""Frozen classes and named tuples against those of the standard library whose place they take."""

from __future__ import annotations

import copy
import typing
from collections.abc import Callable, Mapping
from dataclasses import FrozenInstanceError, dataclass, field, fields, replace
from typing import Any

import pytest

from bninspect import frozen as fast
from bninspect.frozen import frozen
from bninspect.model.target import Training


def declare(decorate: Callable[[type], type]) -> Any:
    """Declare the same class with `frozen` or as a dataclass."""

    @decorate
    class Layer:
        """A layer."""

        name: str
        size: int = 0
        members: Mapping[str, int] = field(default_factory=dict, compare=False)
        close: Callable[[], None] = field(default=lambda: None, repr=False, compare=False)
        upper: str = field(init=False, repr=False)

        def __post_init__(self) -> None:
            object.__setattr__(self, "upper", self.name.upper())

    Layer.__qualname__ = "Layer"
    return Layer


Frozen, Dataclass = declare(frozen()), declare(dataclass(frozen=True))
each_kind = pytest.mark.parametrize("kind", [Frozen, Dataclass], ids=["frozen", "dataclass"])


@frozen()
class Place:
    """A place that `pickle` finds by its name."""

    path: str
    offset: int = 0


@each_kind
def test_takes_values_by_place_and_by_name(kind: Any) -> None:
    layer = kind("bn", size=3)
    assert (layer.name, layer.size, layer.members, layer.upper) == ("bn", 3, {}, "BN")
    assert layer.close() is None


@each_kind
def test_makes_a_default_for_each_object(kind: Any) -> None:
    assert kind("a").members is not kind("b").members


@each_kind
@pytest.mark.parametrize(
    ("values", "named"),
    [
        ((), {}),
        ((), {"size": 3}),
        (("bn", 3, {}, None, "BN"), {}),
        (("bn",), {"name": "bn"}),
        (("bn",), {"channels": 3}),
        (("bn",), {"upper": "BN"}),
    ],
    ids=["nothing", "one missing", "too many", "twice", "unknown", "not of the constructor"],
)
def test_refuses_other_values(kind: Any, values: tuple[Any, ...], named: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        kind(*values, **named)


@each_kind
def test_cannot_be_changed(kind: Any) -> None:
    layer = kind("bn")
    with pytest.raises(FrozenInstanceError):
        layer.size = 3
    with pytest.raises(FrozenInstanceError):
        layer.channels = 3
    with pytest.raises(FrozenInstanceError):
        del layer.size
    assert layer.size == 0


@each_kind
def test_is_equal_by_the_compared_fields(kind: Any) -> None:
    assert kind("bn", 3, {"gamma": 1}) == kind("bn", 3, {"gamma": 2})
    assert hash(kind("bn", 3, {"gamma": 1})) == hash(kind("bn", 3, {"gamma": 2}))
    assert kind("bn", 3) != kind("bn", 4)
    assert kind("bn", 3) != ("bn", 3)


def test_is_equal_by_identity_if_asked_for() -> None:
    by_identity = declare(frozen(eq=False))
    layer = by_identity("bn")
    assert layer in {layer}
    assert layer != by_identity("bn")


def test_is_shown_as_a_dataclass_is() -> None:
    assert (
        repr(Frozen("bn", 3)) == repr(Dataclass("bn", 3)) == "Layer(name='bn', size=3, members={})"
    )


def test_keeps_a_representation_of_its_own() -> None:
    @frozen()
    class Layer:
        """A layer."""

        def __repr__(self) -> str:
            return "<Layer>"

    assert repr(Layer()) == "<Layer>"


@each_kind
def test_is_a_dataclass(kind: Any) -> None:
    assert [one.name for one in fields(kind)] == ["name", "size", "members", "close", "upper"]
    layer = replace(kind("bn", 3), name="norm")
    assert (layer.name, layer.size, layer.upper) == ("norm", 3, "NORM")


def test_travels_as_pickle_does_it() -> None:
    place = Place("model", 8)
    assert copy.copy(place) == place
    assert copy.copy(place) is not place


def declare_tuple(base: Any) -> Any:
    """Declare the same class with the fast `NamedTuple` or that of `typing`."""

    class Member(base):  # type: ignore[misc] # which base it is, a type checker cannot know
        """A member."""

        name: str
        size: int = 0
        shape: tuple[int, ...] = ()

        @property
        def last(self) -> str:
            return str(self.name.rpartition("/")[2])

        def __repr__(self) -> str:
            return f"<{self.name}>"

        @classmethod
        def empty(cls) -> Any:
            return cls("")

    return Member


each_base = pytest.mark.parametrize(
    "base", [fast.NamedTuple, typing.NamedTuple], ids=["fast", "typing"]
)


@each_base
def test_a_named_tuple_has_fields_defaults_and_methods(base: Any) -> None:
    kind = declare_tuple(base)
    member = kind("bn/gamma", shape=(3,))
    assert member == ("bn/gamma", 0, (3,))
    assert member._replace(size=3)[1:] == (3, (3,))
    assert (member.last, repr(member), kind.empty().name) == ("gamma", "<bn/gamma>", "")
    assert kind._fields == ("name", "size", "shape")
    assert kind._field_defaults == {"size": 0, "shape": ()}
    assert list(kind.__annotations__) == ["name", "size", "shape"]
    assert (kind.__name__, kind.__doc__, kind.__module__) == ("Member", "A member.", __name__)
    assert kind.__qualname__ == "declare_tuple.<locals>.Member"
    assert issubclass(kind, tuple)


@each_base
def test_a_named_tuple_refuses_other_values(base: Any) -> None:
    kind = declare_tuple(base)
    for values in ((), ("a", 1, (), 4)):
        with pytest.raises(TypeError):
            kind(*values)
    with pytest.raises(AttributeError):
        kind("a").name = "b"


def test_a_named_tuple_travels_as_pickle_does_it() -> None:
    training = Training("runs", "model.ckpt-#")
    assert copy.copy(training) == training
