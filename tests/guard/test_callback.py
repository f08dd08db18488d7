"""BatchNormGuard under each Keras: quiet in a healthy training, and clear in a broken one."""

from __future__ import annotations

import copy
import functools
import json
import os
import subprocess
import sys
import warnings

import numpy as np
import pytest

from bninspect import UsageProblem
from bninspect.keras import GUARD_RULES, BatchNormGuard, BatchNormWarning
from bninspect.rules import RULES
from tests.conftest import ROOT
from tests.trainings import guarded

# (what is imported, its backend) → the trainings that run there
FRAMEWORKS = {
    ("keras", "tensorflow"): guarded.TENSORFLOW,
    ("keras", "jax"): guarded.JAX,
    ("tf_keras", "tensorflow"): guarded.TENSORFLOW,
}
THREE = ["top", "inner/bn", "each/bn"]
HEALTHY = {
    "healthy",
    "healthy_float16_policy",
    "healthy_without_gamma_and_beta",
    "healthy_zero_gammas",
    "healthy_two_fits",
    "frozen_backbone",
    "frozen_and_new",
    "not_called",
    "come_to_rest",
    "fine_tuned_in_inference_mode",
    "inference_ignored",
    "call_in_training_mode",
    "stateless_kept",
}
NO_TRAINING = ("the `call` of Own has no parameter `training`", "call-without-training")
# training → (rule, layers, what the warning says besides, the cause if one is proved)
BROKEN = {
    "inference_from_the_start": ("BN101", THREE, "gamma moved away from 1"),
    "inference_from_the_start_stopped": ("BN101", THREE, "training is stopped at batch 3"),
    "inference_without_gamma_and_beta": ("BN101", THREE, "training went on from the start"),
    "inference_after_a_training": ("BN107", THREE, "what they were at the start of the training"),
    "momentum_of_one": ("BN101", THREE, "the layer has momentum 1", "momentum-one"),
    "frozen_with_other_weights": (
        "BN101",
        ["top"],
        "the layer has trainable=False",
        "layer-frozen",
    ),
    "call_that_passes_false_on": ("BN101", ["bn"], "the `call` of Own is its own"),
    "reset": ("BN101", ["top"], "1 of 3 BN layers"),
    "stopped_in_the_middle": ("BN107", THREE, "what they were at the end of epoch 2"),
    "diverged": ("BN301", THREE, "training is stopped at the end of epoch 1"),
    "own_loop_with_a_callback_list": ("BN101", ["bn"], "gamma moved away from 1"),
    "own_step": ("BN101", THREE, "Forgetful has its own `train_step`: it may"),
    "stateless_dropped": ("BN101", THREE, "keeps the non-trainable variables that are returned"),
}
# Keras 2 keeps BN in float32, Keras 3 overrides the training=False of a definition in `fit`.
BY_VERSION = {
    "half_precision": {"keras": ("BN305", THREE, "stored as float16"), "tf_keras": None},
    "training_false_in_the_definition": {
        "keras": None,
        "tf_keras": ("BN101", ["bn"], "the model calls the layer", "built-with-training-false"),
    },
    "training_false_inside": {
        "keras": None,
        "tf_keras": (
            "BN101",
            ["inner/bn"],
            "the model calls the layer with training=False",
            "built-with-training-false",
        ),
    },
    # Keras 3 tells the mode only to a `call` that takes it.
    "call_without_training": {"keras": ("BN101", ["bn"], *NO_TRAINING), "tf_keras": None},
    "call_with_other_arguments": {"keras": ("BN101", ["bn"], *NO_TRAINING), "tf_keras": None},
}
# On JAX Keras 3 calls `call` itself, whose layers then do not know the mode.
BY_BACKEND = {
    "call_that_passes_nothing_on": {
        "tensorflow": None,
        "jax": ("BN101", ["bn"], "with JAX it has to pass `training` on to each layer"),
    },
}
# What needs the trainings of one framework runs in one worker, where they run once.
GROUPS = {framework: pytest.mark.xdist_group("-".join(framework)) for framework in FRAMEWORKS}
CASES = [
    pytest.param(*framework, name, marks=GROUPS[framework])
    for framework, names in FRAMEWORKS.items()
    for name in names
]
each_framework = pytest.mark.parametrize(
    ("framework", "backend"), [pytest.param(*each, marks=GROUPS[each]) for each in FRAMEWORKS]
)


@pytest.fixture(autouse=True, scope="module")
def names_start_anew():
    """Keras numbers what has no name, `adam_1`: other tests must not see what these have made."""
    yield
    if "keras" in sys.modules:
        sys.modules["keras"].utils.clear_session()


def outcome(framework: str, backend: str, name: str) -> dict:
    """What the guard did in a training; another Keras than this process's has its own process."""
    if (framework, backend) == ("keras", "tensorflow"):
        return in_this_process(name)
    done = in_another_process(framework, backend)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])[name]


@functools.cache
def in_this_process(name: str) -> dict:
    import keras

    return guarded.run(keras, [name])[name]


@functools.cache
def in_another_process(framework: str, backend: str) -> subprocess.CompletedProcess[str]:
    names = FRAMEWORKS[framework, backend]
    return subprocess.run(
        [sys.executable, "-m", "tests.trainings.guarded", framework, *names],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": backend},
    )


def expected(framework: str, backend: str, name: str):
    if name in BY_BACKEND:
        return BY_BACKEND[name][backend]
    return BY_VERSION[name][framework] if name in BY_VERSION else BROKEN.get(name)


def test_every_training_has_an_expectation() -> None:
    ran = {name for names in FRAMEWORKS.values() for name in names}
    assert ran == HEALTHY | BROKEN.keys() | BY_VERSION.keys() | BY_BACKEND.keys()


@pytest.mark.framework
@pytest.mark.parametrize(("framework", "backend", "name"), CASES)
def test_what_the_guard_says(framework: str, backend: str, name: str) -> None:
    told = outcome(framework, backend, name)
    expectation = expected(framework, backend, name)
    if expectation is None:
        assert told["warnings"] == []
        assert {severity for _, _, severity, _ in told["findings"]} <= {"note"}
        return
    code, layers, phrase, *cause = expectation
    (warning,) = told["warnings"]
    said = " ".join(warning.split())
    assert phrase in said
    assert f"({code})" in said.partition(" - ")[0]
    assert f"more bninspect rule {code}" in said
    assert [layer for layer in THREE if f"- {layer}: " in said] == [
        layer for layer in THREE if layer in layers
    ]
    proved = cause[0] if cause else None
    assert [(layer, found, why) for layer, found, _, why in told["findings"]] == [
        (layer, code, proved) for layer in layers
    ]


@pytest.mark.framework
@each_framework
def test_stopping_and_not(framework: str, backend: str) -> None:
    epochs = {
        "inference_from_the_start": 2,
        "inference_from_the_start_stopped": 1,
        "diverged": 1,
        "half_precision": 2,  # a warning is no error
    }
    for name, count in epochs.items():
        assert outcome(framework, backend, name)["epochs"] == count, name


@pytest.mark.framework
@each_framework
def test_frozen_on_purpose_is_a_note(framework: str, backend: str) -> None:
    frozen = outcome(framework, backend, "frozen_backbone")["findings"]
    assert frozen == [[layer, "BN107", "note", "layer-frozen"] for layer in THREE]


def small(**options):
    import keras

    x = keras.Input((3,))
    h = keras.layers.BatchNormalization(name="bn", **options)(x)
    return keras.Model(x, keras.layers.Dense(1)(h))


@pytest.mark.processes
def test_needs_no_keras() -> None:
    program = "import sys, bninspect.keras; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert not set(done.stdout.split()) & {"keras", "tf_keras", "tensorflow", "jax", "h5py", "rich"}


def test_the_rules_of_a_guard_are_rules() -> None:
    assert set(GUARD_RULES) < {rule.code for rule in RULES}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"after_batches": 0}, "after_batches"),
        ({"action": "raise"}, "warn, stop"),
        ({"select": "BN106"}, "BN101"),
        ({"ignore": "BN"}, "BN101"),
        ({"select": "BN999"}, "BN999"),
    ],
    ids=str,
)
def test_wrong_options(options, told) -> None:
    with pytest.raises(UsageProblem, match=told):
        BatchNormGuard(**options)


def test_other_hooks_do_nothing_and_other_names_are_none() -> None:
    guard = copy.deepcopy(BatchNormGuard())  # as tuners do
    guard.on_predict_batch_end(3, logs={})
    guard.on_test_begin()
    with pytest.raises(AttributeError, match="of_course"):
        guard.of_course  # noqa: B018


def test_a_guard_without_a_model_says_so() -> None:
    with pytest.raises(UsageProblem, match="set_model"):
        BatchNormGuard().on_train_begin()


@pytest.mark.framework
def test_each_layer_and_rule_is_told_once_for_a_model() -> None:
    guard = BatchNormGuard()
    for _ in range(2):
        model = small(momentum=1.0)
        model.compile("sgd", "mse")
        x = np.random.default_rng(1).normal(size=(8, 3))
        with pytest.warns(BatchNormWarning) as caught:
            model.fit(x, x[:, :1], epochs=3, callbacks=[guard], verbose=0)
        assert len([one for one in caught if one.category is BatchNormWarning]) == 1


def by_hand(guard, model, train, epochs=1, batches=2) -> list[str]:
    guard.set_model(model)
    guard.on_train_begin()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for epoch in range(epochs):
            guard.on_epoch_begin(epoch)
            for batch in range(batches):
                guard.on_train_batch_begin(batch)
                train()
            guard.on_epoch_end(epoch)
    return [str(one.message) for one in caught]


@pytest.mark.framework
def test_half_of_the_statistics() -> None:
    model = small()
    layer = model.get_layer("bn")

    def train() -> None:
        layer.gamma.assign_add([0.1, 0.2, 0.3])
        layer.moving_variance.assign_add([0.1, 0.2, 0.3])

    (said,) = by_hand(BatchNormGuard(), model, train)
    assert "BN102 mean-never-updated" in said


@pytest.mark.framework
def test_initial_values_of_ones_own() -> None:
    model = small(moving_mean_initializer="ones", moving_variance_initializer="zeros")
    layer = model.get_layer("bn")
    (said,) = by_hand(BatchNormGuard(), model, lambda: layer.beta.assign_add([0.1, 0.2, 0.3]))
    assert "moving_mean is still 1 and moving_variance still 0 in all 3 channels" in said


@pytest.mark.framework
def test_layers_of_one_path_are_numbered() -> None:
    import keras

    class Pair(keras.layers.Layer):
        def __init__(self):
            super().__init__(name="pair")
            self.blocks = [keras.layers.BatchNormalization(name="bn") for _ in range(2)]
            self.kept = {"deep": keras.layers.BatchNormalization(name="other")}

        def call(self, x, training=None):
            for block in (*self.blocks, self.kept["deep"]):
                x = block(x, training=training)
            return x

    x = keras.Input((3,))
    model = keras.Model(x, Pair()(x))
    layers = model.get_layer("pair").blocks
    guard = BatchNormGuard()
    (said,) = by_hand(guard, model, lambda: layers[1].beta.assign_add([0.1, 0.2, 0.3]))
    assert "- pair/bn#2of2: " in said
    assert "bn#1of2" not in said


@pytest.mark.framework
def test_a_layer_that_a_person_wrote() -> None:
    import keras

    class OwnNorm(keras.layers.Layer):
        def __init__(self, size):  # and no get_config that could give it back
            super().__init__(name="own")
            self.size = size

        def build(self, shape):
            self.gamma = self.add_weight(shape=shape[-1:], initializer="ones", name="g")
            options = {"shape": shape[-1:], "trainable": False}
            self.moving_mean = self.add_weight(initializer="zeros", name="m", **options)
            self.moving_variance = self.add_weight(initializer="ones", name="v", **options)
            self.counter = self.add_weight(initializer="zeros", name="c", **options)

        def call(self, x):
            return self.gamma * x

    x = keras.Input((3,))
    model = keras.Model(x, OwnNorm(3)(x))
    gamma = model.get_layer("own").gamma
    (said,) = by_hand(BatchNormGuard(), model, lambda: gamma.assign_add([0.1, 0.2, 0.3]))
    assert "- own: moving_mean is still 0" in said


@pytest.mark.framework
def test_bfloat16_and_renorm_are_read() -> None:
    model = small(dtype="bfloat16", renorm=True) if _has_renorm() else small(dtype="bfloat16")
    (said,) = by_hand(BatchNormGuard(), model, lambda: None)
    assert "stored as bfloat16" in said
    assert "BN101" not in said  # nothing was trained


def _has_renorm() -> bool:
    import inspect

    import keras

    return "renorm" in inspect.signature(keras.layers.BatchNormalization).parameters
