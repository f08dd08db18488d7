"""Names of layers by their paths in a tree: train states of Flax, models of Keras."""

from __future__ import annotations

from typing import Any

import pytest

from bninspect.formats.orbax.flax_names import FlaxNames, flax_names
from bninspect.formats.orbax.keras_names import is_keras, keras_names
from bninspect.model.checkpoint import KerasLayer

BN = ("scale", "bias", "mean", "var")


def names_of(*paths: str) -> FlaxNames:
    return flax_names({path.replace("/", "."): tuple(path.split("/")) for path in paths})


def members(names: FlaxNames, layer: str) -> dict[str, str]:
    """The stored names of a layer's members, by their last part."""
    return {
        known.rpartition("/")[2]: stored
        for stored, known in names.known.items()
        if known.rpartition("/")[0] == layer
    }


def linen(scope: str, params: str = "params", stats: str = "batch_stats") -> list[str]:
    affine = [f"{params}/{scope}/{leaf}" for leaf in BN[:2]]
    return [*affine, *(f"{stats}/{scope}/{leaf}" for leaf in BN[2:])]


@pytest.mark.parametrize(
    ("paths", "layer"),
    [
        (linen("Block_0/bn"), "Block_0/bn"),
        (linen("bn", "model/params", "model/batch_stats"), "model/bn"),
        (linen("bn", "weights", "averages"), "bn"),
        ([f"net/bn/{leaf}" for leaf in BN], "net/bn"),
        ([f"net/bn/{leaf}/value" for leaf in BN], "net/bn"),
        ([f"layers/0/{leaf}/raw_value" for leaf in BN], "layers/0"),
    ],
)
def test_members_are_found_in_one_scope_or_in_two_collections(paths: list[str], layer: str) -> None:
    names = names_of(*paths)
    assert members(names, layer).keys() == {"scale", "beta", "mean", "var"}
    assert not names.unchecked


def test_a_layer_without_scale_and_bias_needs_its_collection() -> None:
    names = names_of("batch_stats/bn/mean", "batch_stats/bn/var", "head/mean", "head/var")
    assert members(names, "bn").keys() == {"mean", "var"}
    assert not members(names, "head")
    assert [group.name for group in names.unchecked] == ["head"]


def test_an_input_normalizer_is_none() -> None:
    names = names_of("normalizer/mean", "normalizer/var", "normalizer/count")
    assert members(names, "normalizer").keys() == {"count"}
    assert not names.unchecked


def test_two_models_and_two_averages_keep_apart() -> None:
    names = names_of(
        "a_copy/bn/mean",
        "a_copy/bn/var",
        *linen("bn", "generator/params", "generator/batch_stats"),
        *linen("bn", "critic/params", "critic/batch_stats"),
        *linen("bn"),
    )
    assert members(names, "generator/bn")["mean"] == "generator.batch_stats.bn.mean"
    assert members(names, "critic/bn")["mean"] == "critic.batch_stats.bn.mean"
    assert members(names, "bn")["mean"] == "batch_stats.bn.mean"
    assert len(members(names, "bn")) == 4
    assert members(names, "a_copy/bn").keys() == {"mean", "var"}


def test_slots_of_an_optimizer_are_no_layers() -> None:
    names = names_of(*linen("BatchNorm_0"), "opt_state/0/mu/BatchNorm_0/scale", "opt_state/0/count")
    assert names.optimizer == {"opt_state.0.mu.BatchNorm_0.scale", "opt_state.0.count"}
    assert names.known["opt_state.0.count"] == "opt_state/0/iterations"


@pytest.mark.parametrize("path", ["step", "state/step"])
def test_the_step_of_a_train_state_counts_steps(path: str) -> None:
    names = names_of(*linen("BatchNorm_0"), path)
    assert names.known[path.replace("/", ".")] == path.replace("step", "iterations")


@pytest.mark.parametrize("path", ["params/step", "batch_stats/step", "model/encoder/step"])
def test_a_variable_called_step_is_no_count(path: str) -> None:
    names = names_of(*linen("BatchNorm_0"), path)
    assert names.known[path.replace("/", ".")] == path


def test_a_module_that_is_called_as_an_optimizer_is_a_module() -> None:
    names = names_of(*linen("opt/bn"), "opt_state/0/mu/params/opt/bn/scale")
    assert names.optimizer == {"opt_state.0.mu.params.opt.bn.scale"}
    assert members(names, "opt/bn").keys() == {"scale", "beta", "mean", "var"}


def test_a_layer_norm_lacks_no_statistics() -> None:
    names = names_of("params/LayerNorm_0/scale", "params/LayerNorm_0/bias", "params/bn/scale")
    assert not names.partial
    assert names_of("params/BatchNorm_0/scale").partial == {"BatchNorm_0"}


# --- Keras ----------------------------------------------------------------------------------------


def tree(*layers: str) -> dict[str, tuple[str, ...]]:
    paths = [f"trainable_variables/{layer}/gamma" for layer in layers]
    paths += [f"non_trainable_variables/{layer}/moving_mean" for layer in layers]
    return {path.replace("/", "."): tuple(path.split("/")) for path in paths}


def keras_layers(*names: str) -> dict[tuple[str, ...], KerasLayer]:
    layer = KerasLayer("BatchNormalization", True, inference_only=False, config={})
    return {tuple(name.split("/")): layer for name in names}


@pytest.mark.parametrize(
    ("stored", "configured", "names"),
    [
        (["bn1"], ["bn1"], ["bn1"]),
        (["net/bn1"], ["bn1"], ["bn1"]),  # a model that builds its layers
        (["bn"], ["inner/bn"], ["inner/bn"]),  # an inner model that was built before
        (["inner/bn"], ["inner/bn"], ["inner/bn"]),
        (["a/bn", "b/bn"], ["a/bn", "b/bn"], ["a/bn", "b/bn"]),
        (["net/a/bn", "net/b/bn"], ["a/bn", "b/bn"], ["a/bn", "b/bn"]),
        (["net/block/bn"], [], ["net/block/bn"]),
        # Two layers of the tree are never one of the configuration.
        (["block/bn", "bn"], ["bn"], ["block/bn", "bn"]),
        (["x/bn", "y/bn"], ["bn"], ["x/bn", "y/bn"]),
    ],
)
def test_layers_have_their_names_in_the_configuration(
    stored: list[str], configured: list[str], names: list[str]
) -> None:
    found: Any = keras_names(tree(*stored), keras_layers(*configured)).known
    layers = [found[f"trainable_variables.{path.replace('/', '.')}.gamma"] for path in stored]
    assert layers == [f"{name}/gamma" for name in names]


def test_a_tree_of_keras_has_its_parts() -> None:
    assert is_keras([("trainable_variables", "bn", "gamma"), ("optimizer_variables", "adam")])
    assert not is_keras([("params", "bn", "scale"), ("optimizer_variables", "adam")])
    assert not is_keras([("optimizer_variables", "adam")])
