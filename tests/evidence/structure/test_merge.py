"""Layers found by names and by the graph: which of them are one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from bninspect.evidence.structure.frozen import KnownLayers, merge_frozen
from bninspect.evidence.structure.layers import merge
from bninspect.model.layer import BNLayer
from bninspect.model.roles import ROLES
from tests.support.layers_in_memory import variable
from tests.support.work import LINEAR, growth

VALUES = {role: np.array([0.5, 1.5, place], np.float32) for place, role in enumerate(ROLES)}


def layer(name: str, prefix: str, values: dict[str, np.ndarray]) -> BNLayer:
    """A layer of an export, whose variables are numbered below `prefix`."""
    variables = {
        role: variable(f"{prefix}/{place}/.ATTRIBUTES/VARIABLE_VALUE", array)
        for place, (role, array) in enumerate(values.items())
    }
    return BNLayer(name, "keras", variables)


def test_the_copies_of_a_keras_3_export_are_no_second_layer():
    named = layer("batch_normalization", "variables", VALUES)
    copy = layer("_all_variables", "_all_variables", VALUES)
    merged = merge([named], [copy])
    assert merged.layers == [named]
    assert merged.notes == ()


@pytest.mark.parametrize(
    "other",
    [
        layer("_all_variables", "_all_variables", VALUES | {"gamma": VALUES["gamma"] + 1}),
        layer("own", "own", VALUES),
    ],
)
def test_another_layer_stays(other):
    named = layer("batch_normalization", "variables", VALUES)
    assert merge([named], [other]).layers == [named, other]


def test_different_roles_of_a_variable_are_said_and_the_names_count():
    named = layer("bn", "bn", VALUES)
    mean, variance = named.variables["moving_mean"], named.variables["moving_variance"]
    swapped = {"moving_mean": variance, "moving_variance": mean}
    merged = merge([named], [replace(named, variables=named.variables | swapped)])
    assert merged.layers == [named]
    assert merged.notes == tuple(
        f"the graph beside it uses {variable.name} as {role}; it is judged by its name, as {other}"
        for role, other, variable in (
            ("moving_mean", "moving_variance", variance),
            ("moving_variance", "moving_mean", mean),
        )
    )


def test_a_layer_that_only_names_show_is_said():
    named, other = layer("bn", "bn", VALUES), layer("bn2", "bn2", VALUES)
    merged = merge([named, other], [named])
    assert merged.layers == [named, other]
    assert merged.computed == {"bn": named}
    (note,) = merged.notes
    assert note == (
        "1 BN layer found by names alone; no normalization with their variables was found in the"
        " graph beside it: bn2"
    )


def test_a_frozen_layer_is_the_known_one_whose_members_have_its_roles():
    first, second = layer("first", "first", VALUES), layer("second", "second", VALUES)
    known = KnownLayers([first, replace(second, name="again"), second])
    statistics = ("moving_mean", "moving_variance")
    alone = replace(second, variables={role: second.variables[role] for role in statistics})
    assert known.same_as(first) is first
    assert known.same_as(alone).name == "again"
    swapped = dict(zip(statistics, reversed([*alone.variables.values()]), strict=True))
    assert known.same_as(replace(second, variables=second.variables | swapped)) is None
    assert KnownLayers([alone]).same_as(second) is None


def test_many_frozen_layers_take_no_longer_each():
    def prepare(count: int) -> Callable[[], object]:
        layers = [layer(f"bn_{number}", f"bn_{number}", VALUES) for number in range(count)]
        return lambda: merge_frozen(layers, layers, ())

    assert growth(prepare, 25) < LINEAR
