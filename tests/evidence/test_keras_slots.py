"""Optimizer slots of statistics in Keras files, by their names or by how many there are."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest

from bninspect.evidence.keras_slots import (
    name_parts,
    optimized_statistics,
    slot_keys,
    weight_name,
)
from bninspect.evidence.optimizer_slots import with_signs_of_optimizers
from bninspect.model.checkpoint import Checkpoint
from bninspect.model.roles import ROLES
from tests.conftest import load_fixture
from tests.support.layers_in_memory import bn, unread, variable

KERNEL, VECTOR = np.ones((2, 3), "f4"), np.ones(3, "f4")
BOTH = ("moving_mean", "moving_variance")
STILL = np.zeros(3, "f4")


def optimized(format_, model, optimizer, *names):
    """The statistics of the layers `names` that an optimizer moved, by the stored variables."""
    stored = {name: variable(name, values) for name, values in model.items()}
    found = Checkpoint(
        path="m",
        resolved="m",
        format=format_,
        variables=stored,
        optimizer={
            name: unread(name, (3,)) if values is None else variable(name, values)
            for name, values in optimizer.items()
        },
        named_by="object",
    )
    layers = [bn(0.5, 1.5, 1.5, 0.5, name=name) for name in names]
    if format_ == "keras-h5":
        layers = [
            type(one)(
                **{
                    **vars(one),
                    "variables": {
                        role: stored[f"model_weights/{one.name}/{one.name}/{role}:0"]
                        for role in ROLES
                    },
                }
            )
            for one in layers
        ]
    marked = with_signs_of_optimizers(found, layers)
    assert all(one.may_be_optimized == bool(one.training.optimized) for one in marked)
    return {one.name: one.training.optimized for one in marked}


def h5(*names):
    return {f"model_weights/{name}/{name}/{role}:0": VECTOR for name in names for role in ROLES}


@pytest.mark.parametrize(
    "slot",
    [
        "optimizer_weights/adam/bn_{}_momentum",
        "optimizer_weights/adam/bn_{}_velocity",
        "optimizer_weights/Adam/m/bn/{}:0",
        "optimizer_weights/training/Adam/bn/{}/m:0",
    ],
)
def test_the_names_of_slots_hold_those_of_the_weights(slot) -> None:
    slots = {slot.format(role): VECTOR for role in ROLES}
    assert optimized("keras-h5", h5("bn", "bn2"), slots, "bn", "bn2") == {"bn": BOTH, "bn2": ()}
    one = {slot.format("moving_mean"): STILL, slot.format("moving_variance"): VECTOR}
    assert optimized("keras-h5", h5("bn"), one, "bn") == {"bn": ("moving_variance",)}
    still = {slot.format(role): STILL for role in ROLES}
    assert optimized("keras-h5", h5("bn"), still, "bn") == {"bn": ()}


def test_no_slot_is_read_where_statistics_have_none() -> None:
    slots = {f"optimizer_weights/adam/bn_{role}_momentum": None for role in ("gamma", "beta")}
    assert optimized("keras-h5", h5("bn"), slots, "bn") == {"bn": ()}


MODEL = {
    "layers/dense/vars/0": KERNEL,
    "layers/dense/vars/1": VECTOR,
    **{f"layers/bn/vars/{number}": VECTOR for number in range(4)},
}


def numbered(shapes, each=1, **changed):
    """The variables of an optimizer: two counters, then `each` slots for each of `shapes`."""
    slots = chain.from_iterable([shape] * each for shape in shapes)
    values = [np.int64(5), np.float32(0.1), *slots]
    found = {f"optimizer/vars/{number}": value for number, value in enumerate(values)}
    return found | {f"optimizer/vars/{name[1:]}": value for name, value in changed.items()}


@pytest.mark.parametrize("format_", ["keras-zip", "keras-weights-h5"])
@pytest.mark.parametrize("each", [1, 2, 3])
def test_an_optimizer_with_slots_for_everything_trains_the_statistics(format_, each) -> None:
    slots = numbered(MODEL.values(), each)
    assert optimized(format_, MODEL, slots, "bn") == {"bn": BOTH}


def test_seeds_and_metrics_are_not_trained() -> None:
    others = {"seed_generator/vars/0": np.zeros(2, "u4"), "metrics/mean/vars/0": np.float32(1)}
    slots = numbered(MODEL.values(), 2)
    assert optimized("keras-zip", MODEL | others, slots, "bn") == {"bn": BOTH}


@pytest.mark.parametrize(
    "slots",
    [
        {},
        numbered([KERNEL, VECTOR, VECTOR, VECTOR], 2),  # a healthy training
        numbered([KERNEL, VECTOR, VECTOR, VECTOR], 1),
        numbered(MODEL.values(), 1, _7=STILL),  # that of a statistic, perhaps
        numbered([KERNEL, KERNEL, *[VECTOR] * 4]),  # of another model
        numbered([KERNEL, VECTOR, VECTOR, VECTOR], 1) | {"discriminator/vars/0": VECTOR},
    ],
    ids=range(6),
)
def test_other_slots_prove_nothing(slots) -> None:
    assert optimized("keras-zip", MODEL, slots, "bn") == {"bn": ()}


def test_slots_of_half_of_the_model_are_not_those_of_the_whole() -> None:
    # As many as one for each variable: Adam, which keeps two, with half of each shape frozen.
    model = {f"a/vars/{n}": KERNEL for n in range(2)} | {f"bn/vars/{n}": VECTOR for n in range(4)}
    slots = numbered([KERNEL, VECTOR, VECTOR], 2)
    assert optimized("keras-zip", model, slots, "bn") == {"bn": ()}


@pytest.mark.parametrize(
    "stem", ["keras3_functional_correct", "keras3_zip_accumulation", "keras2_functional_correct"]
)
def test_a_healthy_file_shows_none(stem) -> None:
    import bninspect

    (report,) = bninspect.check(str(load_fixture(stem).path)).checkpoints
    assert not any(layer.training.optimized for layer in report.layers)


def test_orbax_names_slots_by_the_weights_path():
    gamma = "trainable_variables.net.bn.gamma"
    assert weight_name(gamma) == "net_bn_gamma"
    slot = "optimizer_variables.adam.net_bn_gamma_momentum"
    assert ("net_bn_gamma", "momentum") in slot_keys(name_parts(slot))
    mean = "non_trainable_variables.net.bn.moving_mean"
    layer = bn(0.5, 1.5, 1.5, 0.5, name="bn")
    layer = type(layer)(**{**vars(layer), "variables": {"moving_mean": variable(mean, [0.5])}})
    for value, found in ((0.1, {"bn": ("moving_mean",)}), (0.0, {})):
        slots = variable(f"optimizer_variables.adam.{weight_name(mean)}_velocity", [value])
        checkpoint = Checkpoint(
            path="m",
            resolved="m",
            format="orbax",
            variables=dict(layer.variables),
            optimizer={slots.name: slots},
            named_by="object",
        )
        assert optimized_statistics(checkpoint, [layer]) == found
