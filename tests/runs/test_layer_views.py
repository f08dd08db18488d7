"""Layers as views of one array: the numbers of all at once are those of each layer."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bninspect.model.checkpoint import Variable
from bninspect.model.layer import BNLayer
from bninspect.model.layer_views import Architecture, LayerViews, Member
from bninspect.model.roles import STATISTICS

# Normal and subnormal numbers of float32, from one magnitude or from all.
near = st.floats(0.5, 2.0, width=32)
numbers = near | st.floats(2.0**-149, 2.0**120, width=32) | st.integers(1, 2**24).map(float)
signs = st.sampled_from([1, -1])


def vectors(size: int) -> st.SearchStrategy[list[tuple[float, int]]]:
    """Magnitude and sign of each channel."""
    of_all = st.lists(st.tuples(numbers, signs), min_size=size, max_size=size)
    return of_all | st.lists(st.tuples(near, signs), min_size=size, max_size=size)


layers_drawn = st.lists(st.sampled_from([1, 2, 3, 4, 7, 8, 16]).flatmap(vectors), min_size=1)


def views_of(means: list[np.ndarray]) -> LayerViews:
    """Layers with these means, and with their magnitudes as variances."""
    layers, members, start = [], [], 0
    for role, initial in zip(STATISTICS, (0.0, 1.0), strict=True):
        for number, mean in enumerate(means):
            members.append(Member(f"bn_{number}/{role}", role, number, start, mean.size, initial))
            start += mean.size
    for number, mean in enumerate(means):
        variables = {
            role: Variable(f"bn_{number}/{role}", (mean.size,), "float32", lambda: np.zeros(0))
            for role in STATISTICS
        }
        layers.append(BNLayer(f"bn_{number}", "tf.layers", variables))
    values = np.concatenate([*means, *map(np.abs, means)])
    return LayerViews(Architecture(layers, members), values)


@given(layers_drawn)
def test_numbers_of_all_layers_are_those_of_each(drawn: list[list[tuple[float, int]]]) -> None:
    means = [np.array([size * sign for size, sign in layer], "f4") for layer in drawn]
    views = views_of(means)
    each = [
        number
        for layer in views
        for values in (layer.values[role] for role in STATISTICS)
        for number in (values.minimum, values.maximum, values.mean)
    ]
    assert views.statistics() == each


def test_a_property_is_computed_once() -> None:
    [layer] = views_of([np.ones(2, "f4")])
    assert layer.statistics is layer.statistics
    assert layer.with_fields(values={}).statistics is None
