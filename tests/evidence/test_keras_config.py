"""What a stored Keras configuration says of a BN layer, wherever in the model it stands."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bninspect.batchnorm.find_layers import find_layers
from bninspect.evidence.keras_config import with_keras_config
from bninspect.formats.keras.model_config import keras_layers, keras_model, optimizer_class
from bninspect.model.roles import ROLES
from bninspect.opening import open_checkpoint
from tests.conftest import load_fixture
from tests.support.layers_in_memory import bn, checkpoint
from tests.support.work import LINEAR, growth

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

KERAS_2 = "2.15.0"
USUAL = {"gamma": (1.0,), "beta": (0.0,), "moving_mean": (0.0,), "moving_variance": (1.0,)}


def node(name, calls=None, class_name="BatchNormalization", **config):
    """A layer as a model stores it; a BN layer if nothing else is said."""
    if class_name == "BatchNormalization":
        config = {"momentum": 0.9, "epsilon": 1e-4} | config
    stored = {"class_name": class_name, "config": {"name": name, **config}}
    return stored if calls is None else stored | {"inbound_nodes": calls}


def model(name, *layers, class_name="Functional", **config):
    return {"class_name": class_name, "config": {"name": name, "layers": [*layers], **config}}


def configured_all(config, *scopes, version=KERAS_2):
    """The layers whose weights lie at `scopes`, each with what `config` says of it."""
    stored = checkpoint(
        [f"model_weights/{scope}/{role}:0" for scope in scopes for role in ROLES],
        format="keras-h5",
        keras_layers=keras_layers(config, version),
    )
    return with_keras_config(find_layers(stored), stored)


def configured(config, scope, version=KERAS_2):
    [layer] = configured_all(config, scope, version=version)
    return layer


def told(layer):
    return (layer.momentum, layer.epsilon, layer.trainable)


UNTOLD = (None, None, None)


# --- Finding the layer in the model ---------------------------------------------------------------


def test_without_a_configuration_nothing_is_told():
    layer = bn(mean=0.0, variance=1.0)
    assert with_keras_config([layer], checkpoint(["bn/gamma"])) == [layer]


def test_a_layer_of_a_functional_model():
    config = model(
        "m",
        node("input_1", class_name="InputLayer"),
        node("conv", class_name="Conv2D", epsilon=7.0),
        node("bn", momentum=0.75, epsilon=1e-5),
        node("bn_1", momentum=0.5),
    )
    first, second = configured_all(config, "bn/bn", "bn_1/bn_1")
    assert told(first) == (0.75, 1e-5, True)
    assert told(second) == (0.5, 1e-4, True)
    assert first.keras.class_name == "BatchNormalization"
    assert not first.keras.inference_only


def test_a_layer_that_the_model_does_not_have():
    config = model("m", node("bn"), node("conv", class_name="Conv2D"))
    assert told(configured(config, "other/other")) == UNTOLD
    assert told(configured(config, "conv/conv")) == UNTOLD


@pytest.mark.parametrize("class_name", ["Sequential", "Model", "Functional", "MyModel"])
def test_a_layer_of_any_kind_of_model(class_name):
    config = model("m", node("bn"), class_name=class_name)
    assert told(configured(config, "bn/bn")) == (0.9, 1e-4, True)


def test_a_sequential_whose_config_is_the_list_of_its_layers():
    config = {"class_name": "Sequential", "config": [node("bn", momentum=0.75)]}
    assert told(configured(config, "bn/bn")) == (0.75, 1e-4, True)
    nested = model("m", {"class_name": "Sequential", "name": "inner", "config": [node("bn")]})
    assert told(configured(nested, "inner/bn")) == (0.9, 1e-4, True)


@pytest.mark.parametrize(
    "class_name", ["SyncBatchNormalization", "FreezableBatchNorm", "Custom>BN"]
)
def test_a_layer_of_another_class_with_a_momentum(class_name):
    config = model("m", node("bn", class_name=class_name, momentum=0.75, epsilon=0.5))
    assert told(configured(config, "bn/bn")) == (0.75, 0.5, True)


def test_layers_of_the_same_name_in_two_models():
    config = model(
        "m",
        model("encoder", node("bn", momentum=0.75)),
        model("decoder", node("bn", momentum=0.5, trainable=False)),
        node("bn", momentum=0.25),
    )
    found = configured_all(config, "encoder/bn", "decoder/bn", "bn/bn")
    assert [told(layer) for layer in found] == [
        (0.75, 1e-4, True),
        (0.5, 1e-4, False),
        (0.25, 1e-4, True),
    ]


def test_a_layer_in_models_within_models():
    # The groups of HDF5 name the outermost model only, Keras 3 names them all.
    config = model("m", model("a", model("b", model("c", node("bn"), node("own", momentum=0.5)))))
    assert told(configured(config, "a/b/c/bn")) == (0.9, 1e-4, True)
    assert told(configured(config, "a/bn")) == (0.9, 1e-4, True)
    assert told(configured(config, "a/own")) == (0.5, 1e-4, True)
    assert told(configured(config, "b/bn")) == UNTOLD
    assert told(configured(config, "c/bn")) == UNTOLD


def test_a_layer_that_may_be_either_of_two_is_neither():
    config = model("m", model("a", model("b", node("bn")), model("c", node("bn", momentum=0.5))))
    assert told(configured(config, "a/bn")) == UNTOLD
    assert told(configured(config, "a/b/bn")) == (0.9, 1e-4, True)
    assert told(configured(config, "a/c/bn")) == (0.5, 1e-4, True)


def test_an_exact_path_comes_before_a_likely_one():
    config = model("m", model("a", model("b", node("bn", momentum=0.5)), node("bn", momentum=0.75)))
    assert told(configured(config, "a/bn")) == (0.75, 1e-4, True)


def test_a_layer_in_a_wrapper():
    wrapped = node("td", class_name="TimeDistributed", layer=node("bn", momentum=0.75))
    config = model("m", wrapped, node("bn", momentum=0.5))
    assert told(configured(config, "td/bn")) == (0.75, 1e-4, True)
    # Keras 2 names only the wrapper.
    assert told(configured(config, "td/td")) == (0.75, 1e-4, True)
    assert told(configured(config, "bn/bn")) == (0.5, 1e-4, True)


def test_a_model_in_a_wrapper():
    wrapped = node("td", class_name="TimeDistributed", layer=model("inner", node("bn")))
    assert told(configured(model("m", wrapped), "td/bn")) == (0.9, 1e-4, True)


def test_a_name_that_is_numbered_once_more_inside():
    config = model("m", node("bn_1", momentum=0.75), node("bn_2", momentum=0.5))
    assert told(configured(config, "bn_1/bn_1_3")) == (0.75, 1e-4, True)
    assert told(configured(config, "bn_2/bn_2_1")) == (0.5, 1e-4, True)
    assert told(configured(config, "bn_3/bn_1")) == UNTOLD


@pytest.mark.parametrize(
    ("inner", "layer", "expected"),
    [
        ({}, {}, True),
        ({"trainable": True}, {"trainable": True}, True),
        ({"trainable": False}, {}, False),
        ({"trainable": False}, {"trainable": True}, False),
        ({}, {"trainable": False}, False),
        ({"trainable": None}, {"trainable": 0}, True),
    ],
)
def test_a_layer_of_a_frozen_model_is_frozen(inner, layer, expected):
    config = model("m", model("a", model("b", node("bn", **layer)), **inner), node("after"))
    found, after = configured_all(config, "a/b/bn", "after/after")
    assert found.trainable is expected
    assert after.trainable is True


def test_all_of_a_frozen_model_is_frozen():
    assert configured(model("m", node("bn"), trainable=False), "bn/bn").trainable is False


def test_a_layer_of_a_frozen_wrapper_is_frozen():
    wrapped = node("td", class_name="TimeDistributed", layer=node("bn"), trainable=False)
    assert configured(model("m", wrapped), "td/bn").trainable is False


# --- Keras 1 --------------------------------------------------------------------------------------


def in_file(stem):
    with open_checkpoint(str(load_fixture(stem).path)) as stored:
        return {layer.name: layer for layer in with_keras_config(find_layers(stored), stored)}


@pytest.mark.parametrize(
    ("stem", "modes"),
    [
        ("keras1_correct", {"bn1": 0, "bn2": 0}),
        ("keras1_batch_statistics", {"bn1": 2, "bn2": 1}),
        ("keras1_nested", {"encoder/enc_bn1": 2, "encoder/enc_bn2": 0, "bn_out": 0}),
    ],
)
def test_the_mode_of_keras_1(stem, modes):
    layers = in_file(stem)
    assert {name: layer.keras.config["mode"] for name, layer in layers.items()} == modes
    for name, layer in layers.items():
        assert told(layer) == (0.9, 0.001, name != "bn_out")
        assert (layer.keras.calls, layer.keras.inference_only) == (1, False)
        assert layer.initial == USUAL


def test_weights_of_keras_1_tell_no_configuration():
    assert [told(layer) for layer in in_file("keras1_weights").values()] == [UNTOLD] * 2


def test_models_of_keras_1_in_each_other():
    # A Sequential's configuration is the list of its layers; calls have three parts, no arguments.
    inner = {"class_name": "Sequential", "name": "inner", "config": [node("ibn", mode=2)]}
    shared = node("shared", calls=[[["a", 0, 0]], [["b", 0, 0]]], mode=2)
    config = model("m", inner | {"inbound_nodes": [[["a", 0, 0]]]}, shared, class_name="Model")
    scopes = {"inner/ibn": 1, "shared/shared": 2}
    found = configured_all(config, *scopes, version="1.2.2")
    assert [layer.keras.config["mode"] for layer in found] == [2, 2]
    assert [layer.keras.calls for layer in found] == [*scopes.values()]
    assert not any(layer.keras.inference_only for layer in found)


# --- The model as a whole -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        ({"class_name": "Functional"}, ("Functional", False)),
        ({"class_name": "Sequential", "module": "keras"}, ("Sequential", False)),
        (
            {
                "class_name": "Functional",
                "module": "keras.src.engine.functional",
                "registered_name": "Functional",
            },
            ("Functional", False),
        ),
        ({"class_name": "Net", "module": "train", "registered_name": "Net"}, ("Net", True)),
        ({"class_name": "Net", "module": None, "registered_name": "own>Net"}, ("Net", True)),
        ({"class_name": "Model", "module": "keras_own"}, ("Model", True)),
        ({"class_name": "own>GAN"}, ("GAN", True)),
    ],
)
def test_whose_class_a_model_is_of(stored, expected):
    found = keras_model(stored, is_compiled=True)
    assert (found.class_name, found.has_own_class) == expected


@pytest.mark.parametrize("stored", [None, [], "Net", {}, {"class_name": None}])
def test_what_is_no_model(stored):
    assert keras_model(stored, is_compiled=True) is None


@pytest.mark.parametrize(
    ("stored", "name"),
    [
        ({"class_name": "Functional", "module": "keras", "registered_name": "Functional"}, None),
        ({"class_name": "Net", "module": "train", "registered_name": "Net"}, "Net"),
        ({"class_name": "Net", "module": None, "registered_name": "own>Net"}, "own>Net"),
        ({"class_name": "own>GAN"}, "own>GAN"),
        ({"class_name": "GAN"}, None),
        ({"class_name": "Net", "module": "train", "registered_name": 5}, None),
    ],
)
def test_the_name_that_a_class_is_registered_by(stored, name):
    assert keras_model(stored, is_compiled=True).registered_name == name


@pytest.mark.parametrize(
    ("training", "name"),
    [
        ({"optimizer": {"class_name": "AdamW", "config": {}}}, "AdamW"),
        ({"optimizer": "adam", "loss": "mse"}, "adam"),
        ({"optimizer_config": {"class_name": "SGD", "config": {}}}, "SGD"),
        ({"optimizer_config": {"class_name": "Custom>Lion", "config": {}}}, "Lion"),
        ({"loss": "mse"}, None),
        ({"optimizer": ["adam"]}, None),
        ({"optimizer": {"class_name": None}}, None),
        ({}, None),
        (None, None),
        ("adam", None),
    ],
)
def test_the_class_of_the_optimizer(training, name):
    assert optimizer_class(training) == name


@pytest.mark.parametrize(
    ("stem", "expected"),
    [
        ("keras1_correct", (True, "SGD", None)),
        ("keras2_frozen", (True, "SGD", "tensorflow")),
        ("keras3_converted", (False, None, "tensorflow")),
        ("keras3_zip_accumulation", (True, "AdamW", None)),
        ("saved_model_keras2_nested_frozen", (True, "SGD", "tensorflow")),
    ],
)
def test_how_a_model_was_compiled(stem, expected):
    with open_checkpoint(str(load_fixture(stem).path)) as stored:
        model = stored.keras_model
    assert (model.is_compiled, model.optimizer, model.backend) == expected


# --- What it says ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (0.99, 0.99),
        (0, 0.0),
        (1, 1.0),
        (None, None),
        (True, None),
        ("0.99", None),
        ([0.99], None),
        ({"value": 0.99}, None),
        (float("nan"), None),
        (float("inf"), None),
    ],
)
@pytest.mark.parametrize("option", ["momentum", "epsilon"])
def test_a_number_is_a_number_or_untold(option, stored, expected):
    value = getattr(configured(model("m", node("bn", **{option: stored})), "bn/bn"), option)
    assert value == expected
    assert value is None or type(value) is float


@pytest.mark.parametrize("option", ["momentum", "epsilon"])
def test_a_number_too_large_for_a_float_is_untold(option):
    layer = configured(model("m", node("bn", **{option: 10**400})), "bn/bn")
    assert getattr(layer, option) is None


def class_and_config(name, **config):
    return {"class_name": name, "config": config}


@pytest.mark.parametrize(
    ("initializer", "expected"),
    [
        ("zeros", (0.0,)),
        ("zero", (0.0,)),
        ("ones", (1.0,)),
        ("one", (1.0,)),
        ("Zeros", (0.0,)),
        (class_and_config("Zeros"), (0.0,)),
        (class_and_config("Ones"), (1.0,)),
        ({"module": "keras.initializers", **class_and_config("Ones"), "registered_name": None},
         (1.0,)),
        ({"class_name": "Ones"}, (1.0,)),
        ({"class_name": "Ones", "config": None}, (1.0,)),
        (class_and_config("Constant", value=0.5), (0.5,)),
        (class_and_config("Constant", value=2), (2.0,)),
        (class_and_config("Constant"), (0.0,)),
        (class_and_config("keras>Constant", value=-1.5), (-1.5,)),
        (class_and_config("Constant", value=[0.5, 0.25]), ()),
        (class_and_config("Constant", value=None), ()),
        (class_and_config("Constant", value=float("nan")), ()),
        ({"class_name": "Constant", "config": [0.5]}, ()),
        (class_and_config("RandomNormal", mean=1.0, stddev=0.02), ()),
        (class_and_config("Custom>Mine", value=0.5), ()),
        ("random_normal", ()),
        (None, ()),
        (7, ()),
        ([], ()),
        ({}, ()),
    ],
)  # fmt: skip
@pytest.mark.parametrize("role", ROLES)
def test_initial_values(role, initializer, expected):
    config = model("m", node("bn", **{f"{role}_initializer": initializer}))
    assert configured(config, "bn/bn").initial == USUAL | {role: expected}


def test_initial_values_that_are_not_told_are_those_of_the_family():
    assert configured(model("m", node("bn")), "bn/bn").initial == USUAL
    assert configured(model("m"), "bn/bn").initial == USUAL


CALL = ["input_1", 0, 0]
FALSE, TRUE, DEFAULT = {"training": False}, {"training": True}, {}


@pytest.mark.parametrize(
    ("calls", "expected"),
    [
        ([[[*CALL, FALSE]]], True),
        ([[[*CALL, FALSE]], [[*CALL, FALSE]]], True),
        ([[[*CALL, FALSE], [*CALL, FALSE]]], True),
        ([[[*CALL, TRUE]]], False),
        ([[[*CALL, DEFAULT]]], False),
        ([[[*CALL, {"training": None}]]], False),
        ([[[*CALL, {"training": 0}]]], False),
        ([[[*CALL, FALSE]], [[*CALL, DEFAULT]]], False),
        ([[[*CALL, DEFAULT]], [[*CALL, FALSE]]], False),
        ([[[*CALL]]], False),
        ([[[*CALL, None]]], False),
        ([[[*CALL, FALSE]], 7], False),
        ([], False),
        (None, False),
        ({"training": False}, False),
    ],
)
def test_a_layer_that_is_only_called_for_inference(calls, expected):
    config = model("m", node("bn", calls))
    assert configured(config, "bn/bn").keras.inference_only is expected


def test_a_layer_of_a_model_that_is_only_called_for_inference():
    inner = model("a", node("bn", [[[*CALL]]])) | {"inbound_nodes": [[[*CALL, FALSE]]]}
    found, after = configured_all(model("m", inner, node("after")), "a/bn", "after/after")
    assert (found.keras.inference_only, after.keras.inference_only) == (True, False)


def test_the_calls_of_a_layer_and_of_the_models_around_it_are_counted():
    twice, thrice = [[[*CALL]]] * 2, [[[*CALL]]] * 3
    inner = model("a", node("bn", thrice), node("once", [[[*CALL]]]))
    outer = model("m", inner | {"inbound_nodes": twice}, node("own", thrice), node("none"))
    found = configured_all(outer, "a/bn", "a/once", "own/own", "none/none")
    assert [layer.keras.calls for layer in found] == [6, 2, 3, 1]
    for wrong in ([], None, {"a": 1, "b": 2}, "text"):
        assert configured(model("m", node("bn", wrong)), "bn/bn").keras.calls == 1


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        *(("1.2.2", False), ("2.0.8-tf", False), ("2.1.2", False), ("", False)),
        *(("2.1.3", True), ("2.1.6-tf", True), ("2.2.4-tf", True), ("3.0.0", True)),
    ],
)
def test_a_layer_that_is_not_trainable_is_frozen_since_keras_2_1_3(version, expected):
    config = model("m", node("bn", trainable=False))
    found = configured(config, "bn/bn", version).keras
    assert (found.trainable, found.frozen) == (False, expected)


@pytest.mark.parametrize(
    ("version", "expected"),
    [("2.15.0", True), ("2.3.1", True), ("3.15.1", False), ("1.2.2", False), ("", False)],
)
def test_only_keras_2_keeps_to_training_false(version, expected):
    config = model("m", node("bn", [[[*CALL, FALSE]]]))
    assert configured(config, "bn/bn", version).keras.inference_only is expected
    nested = model("m", model("a", node("bn", [[[*CALL, FALSE]]])))
    assert configured(nested, "a/bn", version).keras.inference_only is expected


KERAS_3_CALL = {"args": [{"class_name": "__keras_tensor__", "config": {}}]}


@pytest.mark.parametrize(
    ("calls", "expected"),
    [
        ([KERAS_3_CALL | {"kwargs": FALSE}], True),
        ([KERAS_3_CALL | {"kwargs": FALSE}] * 2, True),
        ([KERAS_3_CALL | {"kwargs": FALSE}, KERAS_3_CALL | {"kwargs": {}}], False),
        ([KERAS_3_CALL | {"kwargs": {"training": None}}], False),
        ([KERAS_3_CALL | {"kwargs": {"training": 0}}], False),
        ([KERAS_3_CALL | {"kwargs": "training"}], False),
        ([KERAS_3_CALL], False),
        ([[[*CALL, FALSE]]], True),
    ],
)
def test_a_stored_call_for_inference_says_so_in_keras_3_too(calls, expected):
    found = configured(model("m", node("bn", calls)), "bn/bn", "3.15.1").keras
    assert (found.called_in_inference, found.inference_only) == (expected, False)


def test_the_mode_of_keras_1_is_kept():
    config = {"class_name": "Sequential", "config": [node("bn", mode=2)]}
    assert configured(config, "bn/bn", "1.2.2").keras.config["mode"] == 2


# --- As Keras itself says it ----------------------------------------------------------------------


def stored_by_keras(keras_model):
    """The configuration and the paths of the BN layers, as a file would hold them."""
    import keras

    return json.loads(keras_model.to_json()), keras.__version__


@pytest.mark.framework
def test_models_of_keras():
    from keras import Input, Model, Sequential, initializers, layers

    inner = Sequential(
        [Input((4,)), layers.BatchNormalization(name="bn", momentum=0.75)], name="inner"
    )
    deep_input = Input((4,))
    deep = Model(
        deep_input,
        layers.BatchNormalization(name="bn", momentum=0.5)(
            Sequential([Input((4,)), layers.BatchNormalization(name="low")], name="lowest")(
                deep_input
            )
        ),
        name="deep",
    )
    deep.trainable = False
    inputs = Input((4,))
    x = layers.BatchNormalization(
        name="bn",
        epsilon=0.5,
        moving_mean_initializer=initializers.Constant(0.25),
        moving_variance_initializer="zeros",
        gamma_initializer="random_normal",
    )(deep(inner(inputs)))
    x = layers.Reshape((2, 2))(x)
    x = layers.TimeDistributed(layers.BatchNormalization(name="td_bn", momentum=0.25), name="td")(x)
    config, version = stored_by_keras(Model(inputs, x))

    scopes = ["inner/bn", "deep/bn", "deep/low", "bn/bn", "td/td/td_bn"]
    found = configured_all(config, *scopes, version=version)
    assert [told(layer) for layer in found] == [
        (0.75, 1e-3, True),
        (0.5, 1e-3, False),
        (0.99, 1e-3, False),
        (0.99, 0.5, True),
        (0.25, 1e-3, True),
    ]
    assert found[3].initial == {
        "gamma": (),
        "beta": (0.0,),
        "moving_mean": (0.25,),
        "moving_variance": (0.0,),
    }
    assert [layer.initial for layer in (found[0], found[4])] == [USUAL, USUAL]


# --- Hostile configurations -----------------------------------------------------------------------


def nested(depth):
    config = node("bn")
    for _ in range(depth):
        config = model("m", config)
    return config


def test_models_nested_as_deep_as_people_nest_them():
    assert configured(nested(90), "/".join(["m", "m", "bn"])).momentum == 0.9


@pytest.mark.parametrize("depth", [102, 500, 5000])
def test_models_nested_deeper_are_refused(depth):
    with pytest.raises(RecursionError):
        keras_layers(nested(depth), KERAS_2)


WRONG = [None, True, 7, -1.5, "text", [], [[]], {}, {"config": 7}, [None, 7, "x", {}], {"a": []}]


@pytest.mark.parametrize("wrong", WRONG, ids=repr)
@pytest.mark.parametrize(
    "place", ["model", "config", "layers", "layer", "trainable", "name", "inbound_nodes"]
)
def test_a_wrong_type_anywhere_is_passed_over(place, wrong):
    config = {
        "model": lambda: wrong,
        "config": lambda: {"class_name": "Model", "config": wrong},
        "layers": lambda: {"class_name": "Model", "config": {"layers": wrong}},
        "layer": lambda: model("m", wrong, {"config": {"name": "td", "layer": wrong}}, node("bn")),
        "trainable": lambda: model("m", node("bn", trainable=wrong), trainable=wrong),
        "name": lambda: model("m", node(wrong), {"name": wrong, "config": [node("bn")]}),
        "inbound_nodes": lambda: model("m", node("bn", wrong), node("bn2", [wrong])),
    }[place]()
    layer = configured(config, "bn/bn")
    assert layer.name == "bn"
    if place in ("layer", "trainable", "inbound_nodes"):
        assert layer.momentum == 0.9


KEYS = st.sampled_from(
    [
        *("class_name", "config", "layers", "layer", "name", "trainable", "inbound_nodes", "value"),
        *("momentum", "epsilon", "mode", *(f"{role}_initializer" for role in ROLES)),
    ]
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["bn", "a", "Constant", "zeros", ""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=25,
)


@given(
    JSON
    | st.builds(lambda config: {"config": {"layers": [{"config": {"name": "bn"} | config}]}},
                st.dictionaries(KEYS, JSON, max_size=8))
    | st.builds(lambda layers: {"config": {"layers": layers}}, st.lists(JSON, max_size=4)),
    st.sampled_from(["2.15.0", "3.0.0", "\udcff", ""]),
)  # fmt: skip
def test_no_configuration_makes_trouble(config, version):
    layer = configured(config, "bn/bn", version)
    assert layer.momentum is None or type(layer.momentum) is float
    assert layer.epsilon is None or type(layer.epsilon) is float
    assert set(layer.initial) == set(ROLES)
    for values in layer.initial.values():
        assert all(type(value) is float for value in values)


def test_guesses_about_groups_are_for_groups_alone():
    """An object graph has exact names: its `bn/wrapped` is not the `bn` of the configuration."""
    config = model("m", node("bn", momentum=0.5))
    layers = keras_layers(config, KERAS_2)
    names = [f"bn/wrapped/{role}" for role in ROLES]
    stored = checkpoint(names, format="keras-h5", keras_layers=layers)
    (found,) = with_keras_config(find_layers(stored), stored)
    assert found.momentum == 0.5
    stored = replace(stored, format="tf-object")
    (found,) = with_keras_config(find_layers(stored), stored)
    assert found.momentum is None


def test_layers_cost_their_number():
    def configuring(size):
        config = model("m", *(node(f"bn{i}") for i in range(size)))
        stored = checkpoint(
            [f"bn{i}/{role}" for i in range(size) for role in ROLES],
            format="keras-h5",
            keras_layers=keras_layers(config, KERAS_2),
        )
        layers = find_layers(stored)
        return lambda: with_keras_config(layers, stored)

    found = configuring(100)()
    assert len(found) == 100
    assert all(layer.keras is not None for layer in found)
    assert growth(configuring, 100) < LINEAR
