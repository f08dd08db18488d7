"""The mode of training, proved by the bias right before a BN layer, and what is not claimed."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bninspect.evidence.training_mode import TrainingModes
from bninspect.formats.keras.layer_before import with_layers_before
from bninspect.model.checkpoint import KerasLayer
from bninspect.model.graph import GraphEvidence, Update
from bninspect.model.layer import Change, ModeProof, Since
from bninspect.model.rule import RuleContext
from bninspect.rules.causes import why_not_updated
from tests.conftest import FIXTURES, load_fixture
from tests.evidence.test_graph import drawn_layer
from tests.support.layers_in_memory import bn, checkpoint, keras_layer

BETA = np.array([0.3, -0.2, 0.25, 0.1, -0.4])
GAMMA = np.array([1.1, 0.9, 1.2, 1.0, 0.8])
NOISE = np.array([3e-7, -1e-7, 2e-7, 0.0, 4e-7])
BOTH = ("moving_mean", "moving_variance")


def mode(bias, slots=None, gamma=GAMMA, beta=BETA, variance=1.0, **fields):
    """The mode that a bias before a layer of five channels proves; `slots` by their names."""
    ones = np.ones(5)
    layer = bn(mean=0.0 * ones, variance=variance * ones, gamma=gamma, beta=beta, **fields)
    stored = {"conv/bias": np.asarray(bias, "f4")}
    stored |= {name: np.asarray(values, "f4") for name, values in (slots or {}).items()}
    graph = GraphEvidence("graph", bias_before="conv/bias")
    found = TrainingModes(checkpoint(stored), lambda _: graph).of(layer)
    return None if found is None else found.mode


@pytest.mark.parametrize(
    ("bias", "expected"),
    [
        (NOISE, "batch"),
        (BETA, "inference"),
        (BETA * GAMMA, "inference"),
        (BETA * 1.04, "inference"),
        (NOISE * 1e3, None),  # Adam turns noise into steps
        (BETA * 0.5, None),  # mixed modes
        (BETA * 1.2, None),
        (np.zeros(5), None),  # frozen
        (-BETA, None),
        (BETA + 0.1, None),  # started elsewhere
        (np.full(5, np.nan), None),
    ],
)
def test_values_prove_a_mode_only_far_from_each_other(bias, expected) -> None:
    assert mode(bias) == expected


@pytest.mark.parametrize(
    ("slot", "bias", "beta", "expected"),
    [
        ("Adam_1", NOISE**2, BETA**2, "batch"),
        ("Momentum", NOISE, BETA, "batch"),
        ("RMSProp", NOISE**2, BETA**2, "batch"),
        ("Adam_1", BETA**2, BETA**2, None),  # mixed modes look like that at last
        ("Adam_1", 1e-3 * BETA**2, BETA**2, None),
        ("Adam_1", 0.0 * BETA, BETA**2, None),  # never had a gradient: frozen
        ("Adam_1", NOISE**2, 0.0 * BETA, None),
        ("ExponentialMovingAverage", NOISE, BETA, None),
    ],
)
def test_slots_at_noise_prove_batch_statistics_whatever_the_bias(
    slot, bias, beta, expected
) -> None:
    slots = {f"conv/bias/{slot}": bias, f"bn/beta/{slot}": beta}
    assert mode(BETA * 0.5, slots) == expected


def test_a_small_gamma_makes_small_gradients_in_inference_mode_too() -> None:
    gamma = np.full(5, 0.005)
    slots = {"conv/bias/Adam_1": (gamma * BETA) ** 2, "bn/beta/Adam_1": BETA**2}
    assert mode(BETA * 0.5, slots, gamma=gamma) is None
    assert mode(gamma * BETA, gamma=gamma) == "inference"


def test_a_large_variance_makes_small_gradients_in_inference_mode_too() -> None:
    slots = {"conv/bias/Momentum": BETA * 1e-3, "bn/beta/Momentum": BETA}
    assert mode(BETA * 0.5, slots, gamma=np.ones(5), variance=1e6) is None


def test_a_beta_that_did_not_start_at_0_proves_nothing_by_its_value() -> None:
    assert mode(NOISE, initial={"beta": (0.5,)}) is None
    assert mode(BETA, initial={"beta": ()}) is None


def test_values_prove_nothing_of_the_time_since_an_earlier_checkpoint() -> None:
    since = Since("before", {"moving_mean": Change(False, 0.0)})
    assert mode(NOISE, since=since) is None
    slots = {"conv/bias/Adam_1": NOISE**2, "bn/beta/Adam_1": BETA**2}
    assert mode(NOISE, slots, since=since) == "batch"


def test_few_channels_may_be_alike_by_chance() -> None:
    assert mode([0.3, 0.0, 0.0, 0.0, 0.0], beta=[0.3, 0.0, 0.0, 0.0, 0.0]) is None


def test_a_bias_of_another_length_is_that_of_another_layer() -> None:
    assert mode([1e-7, 1e-7]) is None


@given(st.lists(st.floats(0.02, 0.9), min_size=5, max_size=5))
def test_mixed_modes_are_between_the_proofs(shares) -> None:
    """In each channel the share of steps in inference mode moved the bias as beta."""
    shares = np.array(shares)
    assert mode(BETA * shares * 0.9) is None


# --- What is done with it -------------------------------------------------------------------------

UPDATES = tuple(Update(f"update_{role}", role, ()) for role in BOTH)
STUCK_BN = {"mean": 0.0, "variance": 1.0, "gamma": (1.0, 1.5, 2.0), "beta": (0.1, 0.2, 0.3)}


def proved(mode, graph=None, **fields):
    layer = bn(**STUCK_BN, **fields)
    context = RuleContext(
        graph=lambda _: graph, mode=lambda _: None if mode is None else ModeProof(mode, "the fact")
    )
    found = why_not_updated(layer, context, BOTH)
    assert ("the fact" in found.facts) == (mode is not None)
    return found


def graph(**fields):
    return GraphEvidence("graph", training_ops=("train",), updates=UPDATES, total=2, **fields)


def test_the_mode_decides_what_a_condition_leaves_open() -> None:
    from bninspect.model.graph import Condition

    behind = graph(conditions=(Condition("placeholder", "training"),))
    assert proved(None, behind).cause is None
    assert proved("batch", behind).cause == "update-ops-not-run"
    inference = proved("inference", behind)
    assert inference.cause == "trained-in-inference-mode"
    assert "what the training loop feeds `training`" in inference.fix
    assert "Do not re-estimate" in inference.fix


def test_updates_that_a_training_op_runs_are_not_called_not_run() -> None:
    reached = tuple(one._replace(run_by=("train",)) for one in UPDATES)
    found = proved("batch", graph()._replace(updates=reached))
    assert found.cause is None


def test_batch_statistics_without_a_graph_are_no_cause_but_tell_what_to_do() -> None:
    found = proved("batch", family="keras", keras_version="3.12.0")
    assert found.cause is None
    assert "the weights are good" in found.fix
    assert "non-trainable" in found.fix
    assert "JAX" not in proved("batch", family="keras", keras_version="2.15.0").fix


def test_one_statistic_that_moved_is_no_inference_mode() -> None:
    layer = bn(**STUCK_BN)
    context = RuleContext(mode=lambda _: ModeProof("inference", "the fact"))
    found = why_not_updated(layer, context, ("moving_mean",))
    assert (found.cause, found.facts) == (None, ("the fact",))


# --- Where the bias is ----------------------------------------------------------------------------


def sequential(*layers):
    return {"class_name": "Sequential", "config": {"name": "model", "layers": [*layers]}}


def layer_json(class_name, name, **config):
    return {"class_name": class_name, "config": {"name": name, **config}}


BN_JSON = layer_json("BatchNormalization", "bn", momentum=0.9)


def biases(model, *names):
    layers: dict[tuple[str, ...], KerasLayer] = {("bn",): keras_layer(momentum=0.9)}
    for class_name, name, config in names:
        layers[(name,)] = keras_layer(**config)._replace(class_name=class_name)
    found = with_layers_before(layers, model, lambda path, count: f"{'/'.join(path)}/{count - 1}")
    return found[("bn",)].bias_before


@pytest.mark.parametrize(
    ("class_name", "config", "expected"),
    [
        ("Dense", {"activation": "linear", "use_bias": True}, "before/1"),
        ("Conv2D", {"activation": None, "use_bias": True}, "before/1"),
        ("SeparableConv2D", {"activation": "linear", "use_bias": True}, "before/2"),
        ("Dense", {"activation": "relu", "use_bias": True}, None),
        ("Dense", {"activation": "linear", "use_bias": False}, None),
        ("LayerNormalization", {}, None),
        ("Dropout", {}, None),
    ],
)
def test_a_layer_with_a_bias_and_no_activation_is_found(class_name, config, expected) -> None:
    model = sequential(layer_json(class_name, "before", **config), BN_JSON)
    assert biases(model, (class_name, "before", config)) == expected


def functional(calls):
    return {
        "class_name": "Functional",
        "config": {
            "name": "model",
            "layers": [
                layer_json("Dense", "one") | {"inbound_nodes": [[["images", 0, 0, {}]]]},
                layer_json("Dense", "two") | {"inbound_nodes": [[["one", 0, 0, {}]]]},
                BN_JSON | {"inbound_nodes": calls},
            ],
        },
    }


def keras_3_tensor(name):
    return {"class_name": "__keras_tensor__", "config": {"keras_history": [name, 0, 0]}}


@pytest.mark.parametrize(
    ("calls", "expected"),
    [
        ([[["one", 0, 0, {}]]], "one/1"),
        ([[["one", 0, 0, {}]], [["one", 1, 0, {}]]], "one/1"),
        ([[["one", 0, 0, {}]], [["two", 0, 0, {}]]], None),
        ([{"args": [keras_3_tensor("one")], "kwargs": {}}], "one/1"),
        ([{"args": [keras_3_tensor("one")]}, {"args": [keras_3_tensor("two")]}], None),
        ([], None),
        ("odd", None),
        ([7, {"args": 7}, [7]], None),
    ],
)
def test_calls_of_a_functional_model_name_the_layer_before(calls, expected) -> None:
    config = {"activation": "linear", "use_bias": True}
    found = biases(functional(calls), ("Dense", "one", config), ("Dense", "two", config))
    assert found == expected


@pytest.mark.parametrize("model", [None, [], {}, {"config": 7}, {"config": {"layers": 7}}])
def test_a_configuration_that_is_none_names_no_layer(model) -> None:
    assert biases(model) is None


def test_a_model_nested_without_end_names_no_layer() -> None:
    model = layer_json("Sequential", "model", layers=[BN_JSON])
    for _ in range(500):
        model = layer_json("Sequential", "model", layers=[model])
    assert biases(model) is None


def fused(drawing, variables, x):
    read = [drawing.add("ReadVariableOp", one) for one in variables.values()]
    return drawing.add("FusedBatchNormV3", x, *read)


def biased(drawing, name="conv/bias"):
    bias = drawing.add("ReadVariableOp", drawing.add("VarHandleOp", name=name))
    return drawing.add("BiasAdd", drawing.add("Conv2D"), bias)


def test_the_graph_shows_the_bias_that_is_added_to_the_input() -> None:
    drawing, variables = drawn_layer()
    fused(drawing, variables, drawing.add("Identity", biased(drawing)))
    assert drawing.evidence().bias_before == "conv/bias"


def test_the_graph_shows_the_bias_before_batch_normalization_by_arithmetic() -> None:
    drawing, variables = drawn_layer()
    scale = drawing.add("Mul", drawing.add("Rsqrt"), drawing.add("Const"))
    product = drawing.add("Mul", biased(drawing), scale)
    beta = drawing.add("ReadVariableOp", variables["beta"])
    shift = drawing.add("Sub", beta, drawing.add("Mul", drawing.add("Mean"), scale))
    drawing.add("AddV2", product, shift)
    assert drawing.evidence().bias_before == "conv/bias"


def test_an_activation_between_hides_the_bias() -> None:
    drawing, variables = drawn_layer()
    fused(drawing, variables, drawing.add("Relu", biased(drawing)))
    assert drawing.evidence().bias_before is None


def test_a_layer_with_two_inputs_has_no_one_bias() -> None:
    drawing, variables = drawn_layer()
    fused(drawing, variables, biased(drawing))
    fused(drawing, variables, biased(drawing, "other/bias"))
    assert drawing.evidence().bias_before is None


# --- Files ----------------------------------------------------------------------------------------


def test_slots_of_a_keras_file_are_found_by_their_names(run) -> None:
    path = FIXTURES / "keras315_h5_updates_dropped" / "model.h5"
    (found,) = run("check", path, "--format", "json").json["checkpoints"]
    assert len(found["findings"]) == 2
    for one in found["findings"]:
        assert any("rounding noise in the last steps" in fact for fact in one["evidence"])
        assert "re-estimate them" in one["fix"]


def test_without_a_graph_a_name_based_checkpoint_shows_no_bias(run, tmp_path) -> None:
    for path in (FIXTURES / "tf1_graph_mode_fed_false").iterdir():
        if path.suffix != ".meta":
            shutil.copy(path, tmp_path)
    outcome = run("check", tmp_path / "model.ckpt-60", "--format", "json")
    assert [one["cause"] for one in outcome.json["checkpoints"][0]["findings"]] == [None]


@pytest.mark.parametrize("stem", ["keras2_functional_correct", "tf1_graph_correct"])
def test_a_healthy_file_is_not_asked_for_its_bias(stem, run, monkeypatch) -> None:
    def asked(*_):
        raise AssertionError

    monkeypatch.setattr(TrainingModes, "of", asked)
    fixture = load_fixture(stem)
    assert run("check", fixture.path, *fixture.expected["options"]).exit_code == 0


@pytest.mark.parametrize(
    ("history", "expected"),
    [(["before", 0, 0], "before/1"), ([], None), ("before", None), (None, None), ({}, None)],
)
def test_calls_of_keras_3_name_the_layer_before(history, expected) -> None:
    """What is no history names none."""
    tensor = {"class_name": "__keras_tensor__", "config": {"keras_history": history}}
    call = {"args": [tensor], "kwargs": {}}
    model = {
        "class_name": "Functional",
        "config": {"layers": [layer_json("Dense", "before"), {**BN_JSON, "inbound_nodes": [call]}]},
    }
    assert biases(model, ("Dense", "before", {})) == expected
