"""Moments of live BN layers, against numpy and against what Keras itself stores."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bninspect.errors import RecalibrationRefused, UsageProblem
from bninspect.keras import recalibrate

pytestmark = [pytest.mark.framework, pytest.mark.slow, pytest.mark.xdist_group("recalibrate-keras")]

BOTH = ("keras", "tf_keras")


def engine_of(model: Any) -> Any:
    from bninspect.guard.live_layers import find_bn_layers
    from bninspect.recalibrate.engines.keras_model import KerasModelEngine, describe

    live = [
        describe(name, layer, f"{name}/moving_mean", f"{name}/moving_variance")
        for name, layer in find_bn_layers(model)
    ]
    return KerasModelEngine(model, live)


Builder = Callable[[Any], Any]


def normalized(shape: tuple[int, ...], **options: Any) -> Builder:
    def build(keras: Any) -> Any:
        inputs = keras.Input(shape)
        return keras.Model(inputs, keras.layers.BatchNormalization(momentum=0.0, **options)(inputs))

    return build


def masked(keras: Any) -> Any:
    inputs = keras.Input((5, 3))
    x = keras.layers.Masking(0.0)(inputs)
    # Keras 2 takes a mask only without the fused kernel, which it has for images alone.
    return keras.Model(inputs, keras.layers.BatchNormalization(momentum=0.0)(x))


MODELS: dict[str, tuple[Builder, tuple[int, ...], tuple[str, ...]]] = {
    "dense": (normalized((6,)), (6,), BOTH),
    "sequence": (normalized((5, 3)), (5, 3), BOTH),
    "image": (normalized((5, 4, 3)), (5, 4, 3), BOTH),
    "channels first": (normalized((3, 5, 4), axis=1), (3, 5, 4), BOTH),
    "middle axis": (normalized((5, 3, 4), axis=2), (5, 3, 4), BOTH),
    "volume": (normalized((3, 4, 5, 2)), (3, 4, 5, 2), BOTH),
    "not scaled": (normalized((6,), scale=False, center=False), (6,), BOTH),
    "mixed precision": (normalized((6,), dtype="mixed_float16"), (6,), BOTH),
    "synchronized": (normalized((6,), synchronized=True), (6,), BOTH),
    "several axes": (normalized((3, 4, 5), axis=[1, 3]), (3, 4, 5), ("tf_keras",)),
    "masked": (masked, (5, 3), BOTH),
}
CASES = [(module, name) for name, (_, _, modules) in MODELS.items() for module in modules]


@pytest.mark.parametrize(("module", "name"), CASES)
def test_moments_are_what_training_stores(module: str, name: str) -> None:
    """With momentum 0 an update stores the moments of its batch."""
    build, shape, _ = MODELS[name]
    model = build(importlib.import_module(module))
    x = np.random.default_rng(1).normal(3.0, 2.0, (37, *shape)).astype("f4")
    if name == "masked":
        x[5:20, 2:] = 0.0
    engine = engine_of(model)
    [layer] = engine.layers()
    assert layer.why_not is None
    key = engine.inputs()[0].name
    before = [np.array(one) for one in model.get_weights()]
    [moments] = engine.batch_moments({key: x}).values()
    assert all(map(np.array_equal, before, model.get_weights()))
    normalized = np.asarray(engine.outputs({key: x}, on_batch_statistics=True)[0], "f8")
    trained = np.asarray(model(x, training=True), "f8")
    # Half precision has three digits; the fused kernel of Keras 2 normalizes as the others do.
    np.testing.assert_allclose(normalized, trained, atol=5e-3 if "mixed" in name else 2e-4)
    stored = next(layer for layer in model.layers if hasattr(layer, "moving_mean"))
    variance = moments.variance * moments.count / (moments.count - layer.unbiased)
    # A mask is weighed with 1e-7 more than the number of its elements (Keras 3).
    np.testing.assert_allclose(moments.mean, np.ravel(stored.moving_mean), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(variance, np.ravel(stored.moving_variance), rtol=1e-3)


@pytest.mark.parametrize("module", BOTH)
def test_fused_kernels_of_keras_2_alone_are_unbiased(module: str) -> None:
    keras = importlib.import_module(module)
    for shape, fused in {(6,): False, (5, 4, 3): module == "tf_keras"}.items():
        [layer] = engine_of(normalized(shape)(keras)).layers()
        assert layer.unbiased is fused


@pytest.mark.parametrize("module", BOTH)
def test_every_time_step_counts(module: str) -> None:
    keras = importlib.import_module(module)
    inputs = keras.Input((4, 3))
    model = keras.Model(
        inputs, keras.layers.TimeDistributed(keras.layers.BatchNormalization())(inputs)
    )
    x = np.random.default_rng(2).normal(3.0, 2.0, (50, 4, 3)).astype("f4")
    engine = engine_of(model)
    [moments] = engine.batch_moments({engine.inputs()[0].name: x}).values()
    np.testing.assert_allclose(moments.mean, x.mean(axis=(0, 1)), rtol=1e-5)
    np.testing.assert_allclose(moments.variance, x.var(axis=(0, 1)), rtol=1e-4)


def shared(keras: Any) -> Any:
    first, second = keras.Input((3,), name="first"), keras.Input((3,), name="second")
    layer = keras.layers.BatchNormalization()
    return keras.Model([first, second], keras.layers.add([layer(first), layer(second)]))


@pytest.mark.parametrize("module", BOTH)
def test_calls_of_a_shared_layer_are_pooled(module: str) -> None:
    engine = engine_of(shared(importlib.import_module(module)))
    rng = np.random.default_rng(3)
    batch = {name: rng.normal(1.0, 2.0, (700, 3)).astype("f4") for name in ("second", "first")}
    [moments] = engine.batch_moments(batch).values()
    both = np.concatenate([*batch.values()])
    np.testing.assert_allclose(moments.mean, both.mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(moments.variance, both.var(axis=0), rtol=1e-4)


@pytest.mark.parametrize("module", BOTH)
def test_a_layer_shared_by_inputs_that_differ_is_refused(module: str) -> None:
    engine = engine_of(shared(importlib.import_module(module)))
    rng = np.random.default_rng(3)
    batch = {name: rng.normal(at, 1.0, (700, 3)) for name, at in (("first", 0.0), ("second", 5.0))}
    with pytest.raises(RecalibrationRefused, match="called 2 times on inputs so different"):
        engine.batch_moments({name: array.astype("f4") for name, array in batch.items()})


@pytest.mark.parametrize("module", BOTH)
def test_dropout_is_off_and_frozen_layers_keep_their_statistics(module: str) -> None:
    keras = importlib.import_module(module)
    inputs = keras.Input((6,))
    frozen = keras.layers.BatchNormalization(name="frozen", trainable=False)
    x = keras.layers.Dropout(0.5)(frozen(inputs))
    model = keras.Model(inputs, keras.layers.BatchNormalization(name="bn")(x))
    values = np.random.default_rng(4).normal(3.0, 2.0, (90, 6)).astype("f4")
    engine = engine_of(model)
    moments = engine.batch_moments({engine.inputs()[0].name: values})
    assert list(moments) == ["bn"]
    expected = values / np.sqrt(1.0 + 1e-3)
    np.testing.assert_allclose(moments["bn"].mean, expected.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(moments["bn"].variance, expected.var(axis=0), rtol=1e-4)


@pytest.mark.parametrize(
    ("module", "options", "words"),
    [
        ("keras", {"renorm": True}, "batch renormalization"),
        ("tf_keras", {"renorm": True}, "batch renormalization"),
        ("tf_keras", {"virtual_batch_size": 8}, "virtual batches"),
    ],
)
def test_other_normalizations_are_refused(module: str, options: dict[str, Any], words: str) -> None:
    [layer] = engine_of(normalized((6,), **options)(importlib.import_module(module))).layers()
    assert words in str(layer.why_not)


@pytest.mark.parametrize("module", BOTH)
def test_a_call_of_its_own_is_refused(module: str) -> None:
    keras = importlib.import_module(module)

    class Own(keras.layers.BatchNormalization):
        def call(self, inputs: Any, training: Any = None, mask: Any = None) -> Any:
            return super().call(inputs * 2.0, training=training, mask=mask)

    inputs = keras.Input((6,))
    [layer] = engine_of(keras.Model(inputs, Own()(inputs))).layers()
    assert "not Keras's own" in str(layer.why_not)


def test_a_compiled_call_is_run_eagerly() -> None:
    import keras
    import tensorflow

    class Net(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.bn = keras.layers.BatchNormalization()

        @tensorflow.function
        def call(self, inputs: Any, training: bool = False) -> Any:
            return self.bn(inputs, training=training)

    model = Net()
    x = np.random.default_rng(5).normal(3.0, 2.0, (90, 6)).astype("f4")
    model(x)
    [moments] = engine_of(model).batch_moments({"x": x}).values()
    np.testing.assert_allclose(moments.mean, x.mean(axis=0), rtol=1e-5)
    assert not tensorflow.config.functions_run_eagerly()


def test_inputs_that_do_not_fit_are_a_sentence() -> None:
    import keras

    engine = engine_of(normalized((6,))(keras))
    with pytest.raises(UsageProblem, match="cannot be run on the samples"):
        engine.batch_moments({"x": np.zeros((4, 5), "f4")})


def test_what_is_no_model_is_a_sentence() -> None:
    with pytest.raises(UsageProblem, match="expected a Keras model, got int"):
        recalibrate(3, np.zeros((4, 5)))


@pytest.mark.parametrize("module", BOTH)
@pytest.mark.parametrize("form", ["list", "dictionary", "other names"])
def test_inputs_are_nested_as_the_model_takes_them(module: str, form: str) -> None:
    keras = importlib.import_module(module)
    three, two = keras.Input((3,), name="three"), keras.Input((2,), name="a_two")
    forms: dict[str, Any] = {
        "list": [three, two],
        "dictionary": {"three": three, "a_two": two},
        "other names": {"first": three, "second": two},
    }
    x = keras.layers.BatchNormalization()(keras.layers.concatenate([three, two]))
    engine = engine_of(keras.Model(forms[form], x))
    batch = {"three": np.ones((8, 3), "f4"), "a_two": np.zeros((8, 2), "f4")}
    [moments] = engine.batch_moments(batch).values()
    assert moments.mean.tolist() == [1, 1, 1, 0, 0]
