"""Names of layers by their paths in a tree: train states of Flax, models of Keras."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bninspect.formats.orbax.flax_names import FlaxNames, flax_names
from bninspect.formats.orbax.keras_names import is_keras, keras_names
from bninspect.model.checkpoint import KerasLayer
from tests.support.work import LINEAR, growth

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
        (linen("net/bn", "params", "model_state/batch_stats"), "net/bn"),
        (linen("net/bn", "net/params", "net/state/batch_stats"), "net/net/bn"),
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


def test_two_models_with_states_of_their_own_keep_apart() -> None:
    names = names_of(
        *linen("bn", "generator/params", "generator/model_state/batch_stats"),
        *linen("bn", "critic/params", "critic/model_state/batch_stats"),
    )
    assert members(names, "generator/bn").keys() == {"scale", "beta", "mean", "var"}
    assert members(names, "critic/bn")["scale"] == "critic.params.bn.scale"


def test_many_scopes_of_one_name_take_no_longer_each() -> None:
    def prepare(count: int) -> Callable[[], object]:
        paths = {
            f"{part}_{number}.bn.{leaf}": (f"{part}_{number}", "bn", leaf)
            for number in range(count)
            for part, leaf in (("weights", "scale"), ("averages", "mean"), ("averages", "var"))
        }
        return lambda: flax_names(paths)

    assert growth(prepare, 50) < LINEAR


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


# --- Haiku, Equinox, and names of one's own -------------------------------------------------------


def haiku(module: str, params: str = "params", state: str = "state") -> dict[str, tuple[str, ...]]:
    """The stored names and paths of a layer of Haiku, whose modules have one key each."""
    leaves = [(params, module, leaf) for leaf in ("scale", "offset")]
    for average in ("mean_ema", "var_ema"):
        leaves += [
            (state, f"{module}/~/{average}", leaf) for leaf in ("average", "hidden", "counter")
        ]
    return {".".join(path): path for path in leaves}


@pytest.mark.parametrize(
    ("module", "params", "state"),
    [
        ("bn", "params", "state"),
        ("net/~/block_1/~/batch_norm", "params", "state"),
        ("bn", "0", "1"),  # a tuple
        ("bn", "weights", "averages"),
    ],
)
def test_a_layer_of_haiku_has_its_key_as_name(module: str, params: str, state: str) -> None:
    names = flax_names(haiku(module, params, state))
    assert names.known[f"{params}.{module}.scale"] == f"{module}/scale"
    assert names.known[f"{params}.{module}.offset"] == f"{module}/offset"
    for average in ("mean_ema", "var_ema"):
        for leaf in ("average", "hidden", "counter"):
            stored = f"{state}.{module}/~/{average}.{leaf}"
            assert names.known[stored] == f"{module}/{average}/{leaf}"
    assert not names.unchecked
    assert not names.partial


def test_averages_of_the_parameters_are_not_those_of_the_layer() -> None:
    names = flax_names(haiku("bn") | {"ema.bn.scale": ("ema", "bn", "scale")})
    assert names.known["params.bn.scale"] == "bn/scale"
    assert names.known["ema.bn.scale"] == "ema/bn/scale"


def test_two_models_of_haiku_keep_apart() -> None:
    names = flax_names(haiku("bn", "g_params", "g_state") | haiku("bn", "d_params", "d_state"))
    layers = {name.partition("/mean_ema")[0] for name in names.known.values() if "_ema" in name}
    assert len({layer for layer in layers if "var_ema" not in layer}) == 2


def test_a_layer_of_haiku_without_state_lacks_it() -> None:
    def params_of(module: str, *leaves: str) -> dict[str, tuple[str, ...]]:
        return {f"params.{module}.{leaf}": ("params", module, leaf) for leaf in leaves}

    assert flax_names(params_of("net/batch_norm_1", "scale", "offset")).partial == {
        "net/batch_norm_1"
    }
    assert not flax_names(params_of("net/layer_norm", "scale", "offset")).partial
    assert not flax_names(params_of("batch_norm", "scale", "bias")).partial


@pytest.mark.parametrize("mean", ["running_mean", "moving_mean"])
def test_names_of_other_frameworks_are_known(mean: str) -> None:
    variance = mean.replace("mean", "var")
    affine = ["params/bn/scale", "params/bn/bias"]
    names = names_of(*affine, f"batch_stats/bn/{mean}", f"batch_stats/bn/{variance}")
    assert members(names, "bn").keys() == {"scale", "beta", mean, variance}
    alone = names_of(f"normalizer/{mean}", f"normalizer/{variance}")
    assert [group.name for group in alone.unchecked] == ["normalizer"]


@pytest.mark.parametrize(
    ("paths", "groups"),
    [
        (["batch_stats/bn/ema_mean", "batch_stats/bn/ema_var"], ["batch_stats/bn"]),
        (["model/bn/pop_mean", "model/bn/pop_var"], ["model/bn"]),
        (["batch_stats/bn/a", "batch_stats/bn/b", *linen("other")], ["batch_stats/bn"]),
        (["batch_stats/codes/counter", "batch_stats/codes/step"], []),
        # flax.linen.SpectralNorm
        (["batch_stats/sn/kernel_u/u", "batch_stats/sn/kernel_u/sigma"], []),
        (["model/bn/pop_mean", "model/bn/kernel"], []),
    ],
)
def test_statistics_of_other_names_are_not_passed_over(paths: list[str], groups: list[str]) -> None:
    assert [group.name for group in names_of(*paths).unchecked] == groups


@pytest.mark.parametrize("attribute", ["state_index", "ema_state_index", "batch_state_index"])
def test_the_layers_of_equinox_are_named(attribute: str) -> None:
    """Their averages are numbered in a State; what leads to them is no array."""
    paths = {"model.bn.weight": ("model", "bn", "weight"), "state.1.0": ("state", "1", "0")}
    (group,) = flax_names(paths, [("model", "bn", attribute, "init")]).unchecked
    assert group.name == "model/bn"
    assert group.variables == ("model.bn.weight",)
    assert not group.nameable


def test_a_path_leads_to_the_averages_of_one_layer() -> None:
    """Else a path of many parts would make as many layers, with as many parts each."""
    path = ("bn", *["state_index"] * 1000)
    assert [group.name for group in flax_names({}, [path, path]).unchecked] == ["bn"]


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
