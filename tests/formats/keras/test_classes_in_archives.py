"""Classes in the configuration of a `.keras` file: read by position, or only if proved."""

from __future__ import annotations

import io
import json
import zipfile

import h5py
import numpy as np
import pytest

from bninspect import check, find_layers, open_checkpoint
from bninspect.model.roles import ROLES


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.keras"


OWN_INITIALIZERS = {
    "moving_mean_initializer": "zeros",
    "moving_variance_initializer": "ones",
}
GAMMA, BETA = np.array([1.5, 0.5, 1.0], "f4"), np.array([0.5, -0.5, 0.25], "f4")
MEAN, VARIANCE = np.array([-1.0, 2.0, 0.5], "f4"), np.array([0.25, 2.0, 0.5], "f4")
POSITIVE = VARIANCE + 1


def archive_of(path, stored, group, vectors):
    """A `.keras` file of a model with one layer, as stored, and its vectors."""
    weights = io.BytesIO()
    with h5py.File(weights, "w") as file:
        file.create_group("vars")
        below = file.create_group(f"layers/{group}/vars")
        for number, values in enumerate(vectors):
            below[str(number)] = values
    model = {"class_name": "Functional", "module": "keras", "config": {"layers": [stored]}}
    members = {
        "config.json": json.dumps(model),
        "metadata.json": json.dumps({"keras_version": "3.15.1"}),
        "model.weights.h5": weights.getvalue(),
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def stored_layer(class_name, module, registered_name, **config):
    config = {"name": "one", **config}
    return {
        "class_name": class_name,
        "module": module,
        "registered_name": registered_name,
        "config": config,
    }


def places(path):
    """Layer → role → number of the variable."""
    with open_checkpoint(str(path)) as checkpoint:
        return {
            layer.name: {role: one.name[-1] for role, one in layer.variables.items()}
            for layer in find_layers(checkpoint)
        }


IN_ORDER = dict(zip(ROLES, "0123", strict=True))


@pytest.mark.parametrize(
    "own",
    [
        ("BatchNormalization", "keras.layers", None),
        ("SyncBN", None, "mine>SyncBN"),
        ("Whatever", "train", "Whatever"),
    ],
)
@pytest.mark.parametrize("last", [(MEAN, VARIANCE), (VARIANCE, MEAN), (POSITIVE, POSITIVE)])
def test_a_class_whose_configuration_shows_the_initializers_is_read_by_position(path, own, last):
    stored = stored_layer(*own, **OWN_INITIALIZERS)
    group = {"BatchNormalization": "batch_normalization", "SyncBN": "sync_bn"}.get(
        own[0], "whatever"
    )
    archive_of(path, stored, group, (GAMMA, BETA, *last))
    assert places(path) == {"one": IN_ORDER}


@pytest.mark.parametrize("last", [(VARIANCE, MEAN), (POSITIVE, POSITIVE)])
def test_a_class_of_ones_own_called_like_that_of_keras(path, last):
    stored = stored_layer("BatchNormalization", None, "mine>BatchNormalization")
    archive_of(path, stored, "batch_normalization", (GAMMA, BETA, *last))
    assert places(path) == {}
    (group,) = check(path).checkpoints[0].unchecked
    assert (group.name, "BatchNormalization is not Keras's" in group.reason) == ("one", True)


def test_a_subclass_with_a_vector_more(path):
    stored = stored_layer("CountingBN", None, "mine>CountingBN", **OWN_INITIALIZERS)
    archive_of(path, stored, "counting_bn", (GAMMA, BETA, VARIANCE, MEAN, POSITIVE))
    assert places(path) == {}
    assert [one.name for one in check(path).checkpoints[0].unchecked] == ["one"]


def test_other_layers_of_keras_and_wrappers_of_its_bn_are_no_suspects(path):
    two_vectors = (np.abs(GAMMA), np.abs(BETA))
    other = stored_layer("LayerScale", "keras.layers", None)
    archive_of(path, other, "layer_scale", (*two_vectors, *two_vectors))
    assert not check(path).checkpoints[0].unchecked
    inner = stored_layer("BatchNormalization", "keras.layers", None, **OWN_INITIALIZERS)
    wrapper = stored_layer("Quantize", None, "mot>Quantize", layer=inner) | {"name": "quant_bn"}
    wrapper["config"]["name"] = "quant_bn"
    archive_of(path, wrapper, "quantize", two_vectors)
    assert not check(path).checkpoints[0].unchecked
    wrapper["config"]["layer"] = None
    archive_of(path, wrapper, "quantize", two_vectors)
    assert [one.name for one in check(path).checkpoints[0].unchecked] == ["quant_bn"]
