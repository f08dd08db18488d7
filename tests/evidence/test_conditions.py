"""Conditions before the updates of statistics, and what they leave proved."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from bninspect.evidence.graph.layer_evidence import graph_evidence
from bninspect.model.graph import Condition
from bninspect.model.rule import RuleContext
from bninspect.rules.causes import Proof, why_not_updated
from tests.conftest import FIXTURES
from tests.evidence.test_graph import STUCK_BN, drawn_layer, updates_of
from tests.support.layers_in_memory import bn, variable

BOTH = ("moving_mean", "moving_variance")


def chosen(drawing, variables, predicate):
    """Let `predicate` choose the share by which the updates move, as tf.layers does."""
    pivot = drawing.add("Identity", drawing.add("Switch", predicate, predicate))
    moving = drawing.add("Const", value=0.1, after=[pivot])
    still = drawing.add("Const", value=0.0, after=[pivot])
    share = drawing.add("Merge", moving, still)
    updates = updates_of(drawing, variables)
    for update in updates:
        product = drawing.inputs[update][1]
        drawing.inputs[product] = (drawing.inputs[product][0], share)
    return updates


def default_false(drawing):
    return drawing.add("PlaceholderWithDefault", drawing.add("Const", value=False), name="training")


def not_in_mode(drawing):
    mode = drawing.add("VarHandleOp", name="mode")
    return drawing.add("LogicalNot", drawing.add("ReadVariableOp", mode))


def before_step_2000(drawing):
    step = drawing.add("ReadVariableOp", drawing.add("VarHandleOp", name="global_step"))
    return drawing.add("Less", step, drawing.add("Const", value=2000))


PREDICATES = {
    "placeholder": lambda drawing: drawing.add("Placeholder", name="training"),
    "default": default_false,
    "variable": not_in_mode,
    "step": before_step_2000,
    "data": lambda drawing: drawing.add("IteratorGetNext", name="batch"),
    "constant False": lambda drawing: drawing.add("Const", value=False, name="never"),
    "constant True": lambda drawing: drawing.add("Identity", drawing.add("Const", value=True)),
}


FOUND = {
    "placeholder": [Condition("placeholder", "training")],
    "default": [Condition("placeholder", "training", value=False)],
    "variable": [Condition("variable", "mode", value=True, derived=True)],
    "step": [Condition("variable", "global_step", value=60, bound=2000, derived=True)],
    "data": [Condition("op", "batch")],
    "constant False": [Condition("constant", "never")],
    "constant True": [],
}


def evidence(drawing):
    layer = bn(**STUCK_BN)
    stored = {
        "mode": variable("mode", np.bool_(True)),
        "global_step": variable("global_step", np.int64(60)),
    }
    return graph_evidence([drawing.graph()], [layer], {}, stored)[layer.name]


def proof(found) -> Proof:
    return why_not_updated(bn(**STUCK_BN), RuleContext(graph=lambda _: found), BOTH)


@pytest.mark.parametrize("kind", FOUND)
def test_a_condition_is_named_by_what_it_reads(kind) -> None:
    drawing, variables = drawn_layer()
    chosen(drawing, variables, PREDICATES[kind](drawing))
    drawing.add("ResourceApplyGradientDescent", variables["gamma"], name="train")
    assert list(evidence(drawing).conditions) == FOUND[kind]


@pytest.mark.parametrize("kind", FOUND)
def test_updates_behind_a_condition_may_have_been_fetched_while_it_switched_them_off(kind) -> None:
    drawing, variables = drawn_layer()
    chosen(drawing, variables, PREDICATES[kind](drawing))
    drawing.add("ResourceApplyGradientDescent", variables["gamma"], name="train")
    found = proof(evidence(drawing))
    assert found.cause == (None if FOUND[kind] else "update-ops-not-run")
    for condition in FOUND[kind]:
        assert any(f"`{condition.name}`" in fact for fact in found.facts)
        assert f"`{condition.name}`" in found.fix
        assert "placeholder" not in found.fix


@pytest.mark.parametrize("kind", FOUND)
def test_a_condition_that_a_training_op_depends_on_is_named_too(kind) -> None:
    drawing, variables = drawn_layer()
    updates = chosen(drawing, variables, PREDICATES[kind](drawing))
    drawing.add("ResourceApplyGradientDescent", variables["gamma"], name="train", after=updates)
    found = proof(evidence(drawing))
    assert found.cause is None
    for condition in FOUND[kind]:
        assert f"`{condition.name}`" in found.fix
    if not FOUND[kind]:
        assert "no condition that switches them off was found" in found.fix


def test_the_predicate_of_a_branch_comes_through_the_arguments_of_functions() -> None:
    """`step(training, ...)` calls a branch that updates, chosen by its argument."""
    drawing, variables = drawn_layer()
    training = drawing.add("Placeholder", name="training")
    first = len(drawing.names)
    inner = {role: drawing.add("_Arg") for role in variables}
    updates_of(drawing, inner)
    drawing.function("branch", [*inner.values()], [], first)
    first = len(drawing.names)
    flag, *handles = (drawing.add("_Arg") for _ in range(5))
    branch = drawing.add("If", flag, *handles, then_branch=("branch",))
    drawing.function("step", [flag, *handles], [branch], first)
    drawing.add("PartitionedCall", training, *variables.values(), f=("step",))
    drawing.add("ResourceApplyGradientDescent", variables["gamma"], name="train")
    assert drawing.evidence().conditions == (Condition("placeholder", "training"),)


def test_a_share_that_is_fed_is_a_condition() -> None:
    drawing, variables = drawn_layer()
    share = drawing.add("PlaceholderWithDefault", drawing.add("Const", value=0.0), name="share")
    for update in updates_of(drawing, variables):
        product = drawing.inputs[update][1]
        drawing.inputs[product] = (drawing.inputs[product][0], share)
    drawing.add("ResourceApplyGradientDescent", variables["gamma"], name="train")
    assert drawing.evidence().conditions == (Condition("placeholder", "share", value=0.0),)


def test_the_predicate_of_a_loop_is_no_condition() -> None:
    drawing, variables = drawn_layer()
    looping = drawing.add("LoopCond", drawing.add("Placeholder", name="length"))
    for update in updates_of(drawing, variables):
        product = drawing.inputs[update][1]
        change, share = drawing.inputs[product]
        drawing.inputs[product] = (drawing.add("Switch", change, looping), share)
    drawing.add("ResourceApplyGradientDescent", variables["gamma"], name="train")
    assert drawing.evidence().conditions == ()


def test_updates_in_a_branch_that_nothing_takes_out_of_it_cannot_be_fetched() -> None:
    """TensorFlow lets no op of a tf.cond's branch be fetched: the condition does not matter."""
    drawing, variables = drawn_layer()
    training = drawing.add("Placeholder", name="training")
    switched = {role: drawing.add("Switch", one, training) for role, one in variables.items()}
    updates = updates_of(drawing, switched)
    drawing.add("ResourceApplyGradientDescent", variables["gamma"], name="train")
    found = drawing.evidence()
    assert [update.can_be_run for update in found.updates] == [False, False]
    assert found.conditions
    assert proof(found).cause == "update-ops-not-run"
    drawing.add("Merge", *updates)
    updates = list(drawing.evidence().updates)
    assert updates
    assert all(update.can_be_run for update in updates)
    assert proof(drawing.evidence()).cause is None


# --- What else a graph shows ----------------------------------------------------------------------


@pytest.mark.parametrize("assigned", ["copy", "average", "initial value", "trained"])
def test_gamma_that_is_assigned_from_another_variable_was_copied(assigned) -> None:
    drawing, variables = drawn_layer()
    source = drawing.add("VarHandleOp", name="online/gamma")
    read = drawing.add("ReadVariableOp", source)
    value = read
    if assigned == "average":
        own = drawing.add("ReadVariableOp", variables["gamma"])
        kept, taken = (
            drawing.add("Mul", one, drawing.add("Const", value=0.5)) for one in (own, read)
        )
        value = drawing.add("AddV2", kept, taken)
    if assigned == "initial value":
        value = drawing.add("Const", value=1.0)
    drawing.add("AssignVariableOp", variables["gamma"], value)
    trained = "gamma" if assigned == "trained" else None
    optimized = variables[trained] if trained else source
    drawing.add("ResourceApplyGradientDescent", optimized, drawing.add("Mul"), name="train")
    found = drawing.evidence()
    copied = assigned in ("copy", "average")
    assert found.assigned_from == (
        {"gamma": "online/gamma"} if copied or assigned == "trained" else {}
    )
    assert proof(found).cause == ("statistics-not-loaded" if copied else None)


def test_updates_of_another_network_are_not_what_is_trained() -> None:
    drawing, variables = drawn_layer()
    updates_of(drawing, variables)
    read = [drawing.add("ReadVariableOp", one) for one in variables.values()]
    fused = drawing.add("FusedBatchNormV3", drawing.add("Relu"), *read, is_training=False)
    drawing.add("ResourceApplyGradientDescent", variables["gamma"], fused, name="train")
    found = proof(drawing.evidence())
    assert found.cause == "built-with-training-false"
    assert any("is_training=False" in fact for fact in found.facts)
    assert "training=False" in found.fix


def test_an_update_that_reads_the_average_is_no_use_of_the_layer_in_inference_mode() -> None:
    drawing, variables = drawn_layer()
    mean, _ = updates_of(drawing, variables)
    drawing.add("ResourceApplyGradientDescent", variables["gamma"], name="train", after=[mean])
    found = drawing.evidence()
    assert not found.reads
    assert why_not_updated(
        bn(**STUCK_BN), RuleContext(graph=lambda _: found), ("moving_variance",)
    ).cause == ("update-ops-not-run")


@pytest.mark.parametrize("one_pass", [True, False])
def test_a_variance_of_one_pass_is_known_by_its_arithmetic(one_pass) -> None:
    drawing, variables = drawn_layer()
    x = drawing.add("Relu")
    mean = drawing.add("Mean", x)
    squares = drawing.add("Mean", drawing.add("Mul", x, x))
    variance = drawing.add("Mean", drawing.add("SquaredDifference", x, mean))
    if one_pass:
        variance = drawing.add("Sub", squares, drawing.add("Square", mean))
    read = drawing.add("ReadVariableOp", variables["moving_variance"])
    change = drawing.add("Sub", read, variance)
    product = drawing.add("Mul", change, drawing.add("Const", value=0.1))
    drawing.add("AssignSubVariableOp", variables["moving_variance"], product)
    assert drawing.evidence().one_pass is one_pass


def test_a_momentum_of_1_is_known_where_no_branch_moves_the_average() -> None:
    drawing, variables = drawn_layer()
    updates_of(drawing, variables, share=0.0)
    drawing.add("ResourceApplyGradientDescent", variables["gamma"], name="train")
    assert drawing.evidence().momentum == 1.0


def test_nodes_of_optimizers_that_write_a_statistic_are_found() -> None:
    drawing, variables = drawn_layer()
    drawing.add("ResourceApplyMomentum", variables["moving_variance"], name="Momentum/update")
    assert drawing.evidence().optimizer_writes == {"moving_variance": ("Momentum/update",)}
    assert not drawing.evidence().complete


# --- Comparisons ----------------------------------------------------------------------------------

BY_HAND = FIXTURES / "tf1_graph_history_by_hand"


def last_finding(outcome):
    return outcome.json["checkpoints"][-1]["findings"][0]


def test_statistics_that_moved_earlier_with_the_same_graph_leave_the_cause_open(run) -> None:
    outcome = run("check", BY_HAND, "--all-checkpoints", "--momentum", "0.5", "--format", "json")
    found = last_finding(outcome)
    assert (found["rule"], found["cause"]) == ("BN107", None)
    assert any("something ran the updates then" in fact for fact in found["evidence"])
    compared = run("compare", BY_HAND, "--format", "json").json
    (found,) = compared["findings"]
    assert found["cause"] is None
    assert "from step 20 to step 40" in found["fix"]


def test_another_graph_than_the_one_of_then_proves_its_cause(run, tmp_path) -> None:

    for path in BY_HAND.iterdir():
        shutil.copy(path, tmp_path)
    other = FIXTURES / "tf1_graph_two_networks" / "model.ckpt-60.meta"
    for step in (20, 40):
        shutil.copy(other, tmp_path / f"model.ckpt-{step}.meta")
    (found,) = run("compare", tmp_path, "--format", "json").json["findings"]
    assert found["cause"] == "update-ops-not-run"


# --- Statistics that an optimizer writes ----------------------------------------------------------


@pytest.mark.parametrize(
    ("stem", "severity"), [("trained_statistics", "error"), ("trained_statistics_updated", None)]
)
def test_without_the_graph_slots_show_statistics_that_an_optimizer_writes(
    stem, severity, run, tmp_path
) -> None:

    for path in (FIXTURES / f"tf1_graph_{stem}").iterdir():
        if path.suffix != ".meta":
            shutil.copy(path, tmp_path)
    (found,) = run("check", tmp_path / "model.ckpt-60", "--format", "json").json["checkpoints"]
    assert {one["rule"] for one in found["findings"]} == {"BN108"}
    assert {one["severity"] for one in found["findings"]} == {severity or "warning"}


def test_values_alone_do_not_show_what_an_optimizer_without_slots_writes(run, tmp_path) -> None:

    for path in (FIXTURES / "tf1_graph_trained_statistics_descent").iterdir():
        if path.suffix != ".meta":
            shutil.copy(path, tmp_path)
    (found,) = run("check", tmp_path / "model.ckpt-60", "--format", "json").json["checkpoints"]
    assert not found["findings"]
