"""`bninspect.scalars`: the numbers of a report's JSON, by name."""

from __future__ import annotations

import json
import math

import bninspect
from bninspect.batchnorm.measure import measure
from bninspect.model.layer import BNLayer
from tests.conftest import CLEAN, STUCK
from tests.support.layers_in_memory import variable


def test_they_are_the_numbers_of_json(run) -> None:
    for path in (CLEAN, STUCK):
        numbers = bninspect.scalars(bninspect.check(path).checkpoints[0].layers)
        (document,) = json.loads(run("check", path, "--format", "json").out)["checkpoints"]
        assert numbers == {
            f"{layer['name']}/{role}/{name}": number
            for layer in document["layers"]
            for role, statistic in layer["statistics"].items()
            for name, number in statistic.items()
        }
        assert numbers
        assert {type(number) for number in numbers.values()} == {float}


def layer(**members) -> BNLayer:
    variables = {role: variable(role, values) for role, values in members.items()}
    values = measure([(each.read(), ()) for each in variables.values()])
    return BNLayer("bn", "keras", variables, values=dict(zip(variables, values, strict=True)))


def test_what_is_not_known_is_left_out() -> None:
    """A statistic that is not stored, and the number of channels at an unknown initial value."""
    assert bninspect.scalars([layer(moving_mean=[1.0, 3.0])]) == {
        "bn/moving_mean/min": 1.0,
        "bn/moving_mean/max": 3.0,
        "bn/moving_mean/mean": 2.0,
    }
    assert bninspect.scalars([]) == {}


def test_what_is_not_finite_is_nan() -> None:
    numbers = bninspect.scalars([layer(moving_variance=[1.0, math.nan])])
    assert len(numbers) == 3
    assert all(map(math.isnan, numbers.values()))
