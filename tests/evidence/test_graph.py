"""The graph beside a checkpoint: read whole or not at all, walked to its end, and only if asked."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bninspect
from bninspect.errors import ReadProblem
from bninspect.evidence.graph.layer_evidence import graph_evidence
from bninspect.evidence.progress import read_optimizer_steps
from bninspect.formats.tensorflow.graph_def import read_graphs
from bninspect.model.graph import Function, Graph
from bninspect.model.layer import OptimizerSteps
from bninspect.model.roles import STATISTICS
from bninspect.model.rule import RuleContext
from bninspect.rules import RULES, apply_rules
from bninspect.rules.causes import why_not_updated
from tests.conftest import FIXTURES, Outcome
from tests.support.layers_in_memory import bn, checkpoint, findings, variable
from tests.support.work import LINEAR, growth

STUCK = FIXTURES / "tf1_graph_update_ops_forgotten" / "model.ckpt-60"
CORRECT = FIXTURES / "tf1_graph_correct" / "model.ckpt-60"
STUCK_BN = {"mean": 0.0, "variance": 1.0, "gamma": (1.0, 1.5, 2.0), "beta": 0.0}


class Drawing:
    """A graph drawn node by node: `a = add("Const", value=0.1)`, `add("Mul", a, b)`."""

    def __init__(self):
        self.names, self.operations, self.inputs, self.controls = [], [], [], []
        self.attributes, self.functions, self.collections = [], {}, {}

    def add(self, operation, *inputs, name=None, after=(), **attributes):
        number = len(self.names)
        self.names.append(name or f"n{number}")
        self.operations.append(operation)
        self.inputs.append(inputs)
        self.controls.append(tuple(after))
        self.attributes.append(attributes)
        return number

    def function(self, name, arguments, results, first):
        nodes = range(first, len(self.names))
        self.functions[name] = Function(arguments, nodes, results)

    def graph(self):
        return Graph(
            "drawn",
            self.names,
            self.operations,
            self.inputs,
            self.controls,
            self.functions,
            self.collections,
            lambda node, name: self.attributes[node].get(name),
        )

    def evidence(self, layer=None):
        layer = layer or bn(**STUCK_BN)
        return graph_evidence([self.graph()], [layer], {})[layer.name]


def drawn_layer():
    """A drawing of a layer's four variables, each with its initialiser."""
    drawing = Drawing()
    variables = {}
    for role in ("gamma", "beta", "moving_mean", "moving_variance"):
        one = drawing.add("VarHandleOp", name=f"bn/{role}")
        drawing.add("AssignVariableOp", one, drawing.add("Const"), name=f"bn/{role}/Assign")
        variables[role] = one
    return drawing, variables


def updates_of(drawing, variables, share=0.1):
    found = []
    for role in ("moving_mean", "moving_variance"):
        read = drawing.add("ReadVariableOp", variables[role])
        change = drawing.add("Sub", read, drawing.add("Mean"))
        product = drawing.add("Mul", change, drawing.add("Const", value=share))
        found.append(drawing.add("AssignSubVariableOp", variables[role], product))
    return found


@pytest.mark.framework
def test_every_declared_field_is_where_tensorflow_has_it() -> None:
    from tensorflow.core.framework import (
        attr_value_pb2,
        function_pb2,
        graph_pb2,
        node_def_pb2,
        op_def_pb2,
        tensor_pb2,
    )
    from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

    from bninspect.formats.tensorflow.protos import _MESSAGES

    pairs = {
        "SavedModel": saved_model_pb2.SavedModel,
        "MetaGraph": meta_graph_pb2.MetaGraphDef,
        "Collection": meta_graph_pb2.CollectionDef,
        "NodeNames": meta_graph_pb2.CollectionDef.NodeList,
        "GraphDef": graph_pb2.GraphDef,
        "FunctionLibrary": function_pb2.FunctionDefLibrary,
        "FunctionDef": function_pb2.FunctionDef,
        "Signature": op_def_pb2.OpDef,
        "NodeDef": node_def_pb2.NodeDef,
        "AttributeValue": attr_value_pb2.AttrValue,
        "AttributeList": attr_value_pb2.AttrValue.ListValue,
        "FunctionName": attr_value_pb2.NameAttrList,
        "ConstantTensor": tensor_pb2.TensorProto,
        "Argument": op_def_pb2.OpDef.ArgDef,
    }
    for ours, theirs in pairs.items():
        numbers = {field.name: field.number for field in theirs.DESCRIPTOR.fields}
        for name, number, _, repeated in _MESSAGES[ours]:
            if name.startswith("long_"):  # written by reduced_graph alone
                assert number not in numbers.values()
                continue
            assert numbers[name] == number, (ours, name)
            field = theirs.DESCRIPTOR.fields_by_name[name]
            if hasattr(field, "is_repeated"):
                assert field.is_repeated == repeated, (ours, name)


@pytest.mark.framework
@pytest.mark.parametrize("stem", sorted({path.parent.name for path in FIXTURES.glob("*/*.meta")}))
def test_nodes_are_those_that_tensorflow_reads(stem: str) -> None:
    from tensorflow.core.protobuf import meta_graph_pb2

    path = max((FIXTURES / stem).glob("*.meta"))
    (graph,) = read_graphs(str(path))
    theirs = meta_graph_pb2.MetaGraphDef.FromString(path.read_bytes())
    nodes = list(theirs.graph_def.node)
    assert list(graph.names[: len(nodes)]) == [node.name for node in nodes]
    assert list(graph.operations[: len(nodes)]) == [node.op for node in nodes]
    for number, node in enumerate(nodes):
        inputs = [graph.names[one] for one in graph.inputs[number]]
        controls = [graph.names[one] for one in graph.controls[number]]
        assert inputs == [one.partition(":")[0] for one in node.input if one[0] != "^"]
        assert controls == [one[1:] for one in node.input if one[0] == "^"]
        if "is_training" in node.attr:
            assert graph.attribute(number, "is_training") is node.attr["is_training"].b
    assert set(graph.functions) == {one.signature.name for one in theirs.graph_def.library.function}


def test_an_update_that_nothing_depends_on_does_not_run() -> None:
    drawing, variables = drawn_layer()
    updates_of(drawing, variables)
    drawing.add("ResourceApplyGradientDescent", variables["gamma"], name="train")
    found = drawing.evidence()
    assert [update.run_by for update in found.updates] == [(), ()]
    assert (found.training_ops, found.total, found.total_run) == (("train",), 2, 0)
    assert found.momentum == 0.9


@pytest.mark.parametrize("kept_by", ["AssignAddVariableOp", "AccumulatorApplyGradient"])
def test_a_step_that_accumulates_gradients_may_run_the_updates(kept_by: str) -> None:
    """The optimizer reads what another step accumulated; no optimizer depends on that step."""
    drawing, variables = drawn_layer()
    updates = updates_of(drawing, variables)
    accumulated = drawing.add("VarHandleOp")
    drawing.add(kept_by, accumulated, drawing.add("Mul"), after=updates)
    drawing.add(
        "ResourceApplyGradientDescent",
        variables["gamma"],
        drawing.add("ReadVariableOp", accumulated),
    )
    found = drawing.evidence()
    assert found.stored
    assert why(found) == (None, None)


def test_a_write_of_another_kind_may_be_an_update() -> None:
    drawing, variables = drawn_layer()
    drawing.add("ResourceScatterUpdate", variables["moving_mean"], drawing.add("Mean"))
    read = [drawing.add("ReadVariableOp", one) for one in variables.values()]
    product = drawing.add("Mul", *read)
    drawing.add("ResourceApplyGradientDescent", variables["gamma"], product)
    assert not drawing.evidence().complete
    assert why(drawing.evidence()) == (None, None)


def test_a_write_whose_variable_is_not_known_may_be_an_update() -> None:
    drawing, variables = drawn_layer()
    first = len(drawing.names)
    argument = drawing.add("_Arg")
    written = drawing.add("ResourceScatterUpdate", argument, drawing.add("Mean"))
    drawing.function("write", [argument], [written], first)
    for role in ("moving_mean", "moving_variance"):
        drawing.add("PartitionedCall", variables[role], f=("write",))
    read = [drawing.add("ReadVariableOp", one) for one in variables.values()]
    drawing.add("ResourceApplyGradientDescent", variables["gamma"], drawing.add("Mul", *read))
    assert not drawing.evidence().complete
    assert why(drawing.evidence()) == (None, None)


@pytest.mark.parametrize("way", ["plain", "a condition", "moments of the batch"])
def test_a_layer_is_in_inference_mode_only_if_nothing_else_may_normalise(way: str) -> None:
    drawing, variables = drawn_layer()
    read = [drawing.add("ReadVariableOp", one) for one in variables.values()]
    if way == "a condition":
        read = [drawing.add("Merge", one, drawing.add("Mean")) for one in read]
    if way == "moments of the batch":
        mean = drawing.add("StopGradient", drawing.add("Mean"))
        read.append(drawing.add("SquaredDifference", mean, drawing.add("Relu")))
    drawing.add("ResourceApplyGradientDescent", variables["gamma"], drawing.add("Mul", *read))
    cause = "built-with-training-false" if way == "plain" else None
    assert why(drawing.evidence())[0] == cause


@pytest.mark.parametrize("after", ["average of all variables", "evaluation"])
def test_what_comes_after_the_optimizer_is_no_training_in_inference_mode(after: str) -> None:
    """A layer of one's own that never updates: batches are normalised by their own moments."""
    drawing, variables = drawn_layer()
    apply = drawing.add("ResourceApplyGradientDescent", variables["gamma"], drawing.add("Mul"))
    for role in ("moving_mean", "moving_variance"):
        read = drawing.add("ReadVariableOp", variables[role], after=[apply])
        used = drawing.add("Sub", read, drawing.add("Relu"))
        if after == "average of all variables":
            shadow = drawing.add("VarHandleOp", name=f"bn/{role}/ExponentialMovingAverage")
            drawing.add("AssignSubVariableOp", shadow, used)
    found = drawing.evidence()
    assert not found.reads
    assert why(found)[0] is None


def test_a_layer_whose_gamma_moved_is_not_frozen() -> None:
    drawing, variables = drawn_layer()
    read = [drawing.add("ReadVariableOp", one) for one in variables.values()]
    other = drawing.add("VarHandleOp")
    drawing.add("ResourceApplyGradientDescent", other, drawing.add("Mul", *read))
    assert why(drawing.evidence())[0] is None


def why(found):
    """The cause and the fix of BN101 for a layer with this graph, whose gamma moved."""
    layer = bn(**STUCK_BN)
    proof = why_not_updated(
        layer, RuleContext(graph=lambda _: found), ("moving_mean", "moving_variance")
    )
    return proof.cause, proof.fix


@pytest.mark.parametrize("shape", ["one variable often", "many variables", "many results"])
def test_calls_cost_the_number_of_their_inputs(shape: str) -> None:
    def walking(size: int) -> Callable[[], object]:
        drawing, variables = drawn_layer()
        first = len(drawing.names)
        arguments = [drawing.add("_Arg") for _ in range(size)]
        drawing.function("f", arguments, arguments, first)
        if shape == "many variables":
            given_to = [drawing.add("VarHandleOp") for _ in range(size)]
        else:
            given_to = [variables["gamma"]] * size
        for _ in range(size if shape == "many results" else 1):
            inputs = given_to[:1] if shape == "many results" else given_to
            drawing.add("PartitionedCall", *inputs, f=("f",))
        drawing.add("ResourceApplyGradientDescent", variables["gamma"], len(drawing.names) - 1)
        return drawing.evidence

    assert growth(walking, 200) < LINEAR


def test_functions_that_update_cost_their_number() -> None:
    def walking(size: int) -> Callable[[], object]:
        drawing, variables = drawn_layer()
        for number in range(size):
            first = len(drawing.names)
            argument = drawing.add("_Arg")
            update = drawing.add("AssignSubVariableOp", argument, drawing.add("Mean"))
            drawing.function(f"f{number}", [argument], [update], first)
            drawing.add("PartitionedCall", variables["moving_mean"], f=(f"f{number}",))
        drawing.add("ResourceApplyGradientDescent", variables["gamma"], name="train")
        return lambda: len(drawing.evidence().updates)

    assert walking(200)() == 200
    assert growth(walking, 200) < LINEAR


def test_ends_that_add_nothing_cost_their_number() -> None:
    def walking(size: int) -> Callable[[], object]:
        drawing, variables = drawn_layer()
        drawing.add("ResourceApplyGradientDescent", variables["beta"], name="other")
        long = drawing.add("Const")
        for _ in range(size):
            long = drawing.add("Mul", long)
        apply = drawing.add("ResourceApplyGradientDescent", variables["gamma"], long)
        for _ in range(size):
            drawing.add("Identity", apply)
        drawing.collections["train_op"] = [drawing.add("NoOp", after=[apply], name="train")]
        return lambda: drawing.evidence().training_ops

    assert walking(200)() == ("other", "train")
    assert growth(walking, 200) < LINEAR


def test_no_optimizer_proves_nothing() -> None:
    drawing, variables = drawn_layer()
    updates_of(drawing, variables)
    assert drawing.evidence().training_ops == ()


def test_two_optimizers_are_told_apart() -> None:
    drawing, variables = drawn_layer()
    updates = updates_of(drawing, variables)
    drawing.add("ResourceApplyAdam", variables["gamma"], name="d_train", after=updates)
    drawing.add("ResourceApplyAdam", drawing.add("VarHandleOp"), name="g_train")
    found = drawing.evidence()
    assert found.training_ops == ("d_train", "g_train")
    assert {update.run_by for update in found.updates} == {("d_train",)}


def function_that_optimizes(operation, **more):
    """A call of a function that updates a layer, and returns only the optimizer's work."""
    drawing, variables = drawn_layer()
    first = len(drawing.names)
    arguments = {role: drawing.add("_Arg") for role in variables}
    updates = updates_of(drawing, arguments)
    apply = drawing.add("ResourceApplyGradientDescent", arguments["gamma"])
    drawing.function("step", list(arguments.values()), [apply], first)
    given_to = [*variables.values()]
    if operation == "If":
        given_to.insert(0, drawing.add("Placeholder"))
    keys = {"While": "body", "If": "then_branch"}
    attributes = {keys.get(operation, "f"): ("step",), **more}
    drawing.add(operation, *given_to, name="call", **attributes)
    return drawing, apply, updates


@pytest.mark.parametrize("operation", ["StatefulPartitionedCall", "While", "If"])
def test_functions_are_walked_into(operation: str) -> None:
    drawing, apply, updates = function_that_optimizes(operation, _lower_using_switch_merge=True)
    found = drawing.evidence()
    assert found.training_ops == ("call",)
    assert [update.run_by for update in found.updates] == [(), ()]
    drawing.functions["step"] = drawing.functions["step"]._replace(results=[apply, *updates])
    assert {update.run_by for update in drawing.evidence().updates} == {("call",)}


@pytest.mark.parametrize("operation", ["step", "While", "If", "RemoteCall"])
def test_some_calls_run_all_that_their_functions_write(operation: str) -> None:
    """As the runtime does with functions of the old way, and with branches that it keeps."""
    drawing, _, _ = function_that_optimizes(operation)
    found = drawing.evidence()
    assert found.training_ops == ("call",)
    assert [update.run_by for update in found.updates] == [("call",), ("call",)]


@pytest.mark.parametrize("way", ["frames", "a function", "a function of a function", "no loop"])
def test_how_often_a_loop_updates_is_not_known(way: str) -> None:
    drawing, variables = drawn_layer()
    into = "Enter" if way == "frames" else "_Arg" if "function" in way else "Identity"
    first = len(drawing.names)
    inside = {role: drawing.add(into, one) for role, one in variables.items()}
    updates = updates_of(drawing, inside, share=0.01)
    if "function" in way:
        arguments = [*inside.values()]
        drawing.inputs[first : first + 4] = [()] * 4
        drawing.function("body", arguments, updates, first)
        if way == "a function of a function":
            first = len(drawing.names)
            outer = [drawing.add("_Arg") for _ in variables]
            call = drawing.add("PartitionedCall", *outer, f=("body",))
            drawing.function("outer", outer, [call], first)
        body = "body" if way == "a function" else "outer"
        updates = [drawing.add("While", *variables.values(), body=(body,))]
    drawing.add("ResourceApplyGradientDescent", variables["gamma"], name="train", after=updates)
    layer = bn(mean=0.5, variance=2.0, gamma=1.5)
    found = drawing.evidence(layer)
    assert [update.run_by for update in found.updates] == [("train",), ("train",)]
    context = RuleContext(step=20, graph=lambda _: found)
    cold = [one.rule.code for one in apply_rules([layer], RULES, context)]
    assert cold == (["BN106"] if way == "no loop" else [])


def test_a_function_that_two_layers_share_proves_no_absence() -> None:
    drawing, variables = drawn_layer()
    first = len(drawing.names)
    argument = drawing.add("_Arg")
    change = drawing.add("Mul", argument, argument)
    update = drawing.add("AssignSubVariableOp", argument, change)
    drawing.function("shared", [argument], [update], first)
    for role in ("moving_mean", "moving_variance"):
        drawing.add("PartitionedCall", variables[role], f=("shared",))
    drawing.add("ResourceApplyGradientDescent", variables["gamma"])
    found = drawing.evidence()
    assert not found.updates
    assert not found.complete


@pytest.mark.slow
@pytest.mark.parametrize("length", [3, 20_000])
def test_rings_and_long_chains_come_to_an_end(length: int) -> None:
    drawing, variables = drawn_layer()
    first = len(drawing.names)
    for number in range(length):
        before = first + (number - 1) % length
        drawing.add("Identity", before if number else first + length - 1, after=[before])
    last = variables["moving_mean"]
    for _ in range(length):
        last = drawing.add("Identity", last)
    for _ in range(length):
        drawing.add("AssignSubVariableOp", last, last)
    drawing.add("ResourceApplyGradientDescent", variables["gamma"], first, after=[last])
    found = drawing.evidence()
    assert found.total == length
    assert found.total_run == 0


def adam_with_reads():
    """An optimizer that groups its work as `Adam`, and leaves reads that nothing takes."""
    drawing, variables = drawn_layer()
    updates = updates_of(drawing, variables)
    applies = [
        drawing.add("ResourceApplyAdam", variables[role], name=f"Adam/{role}")
        for role in ("gamma", "beta")
    ]
    for role, apply in zip(("gamma", "beta"), applies, strict=True):
        drawing.add("ReadVariableOp", variables[role], name=f"Adam/{role}/Read", after=[apply])
    group = drawing.add("NoOp", name="Adam", after=applies)
    drawing.add("ReadVariableOp", variables["beta"], name="Adam/Read_1", after=applies)
    return drawing, updates, group


@pytest.mark.parametrize("collected", [True, False])
def test_the_fix_names_the_collection_only_where_it_has_the_updates(collected: bool) -> None:
    drawing, variables = drawn_layer()
    updates = updates_of(drawing, variables)
    if collected:
        drawing.collections["update_ops"] = tuple(updates)
    drawing.add("ResourceApplyGradientDescent", variables["gamma"], name="train")
    cause, fix = why(drawing.evidence())
    assert cause == "update-ops-not-run"
    assert ("UPDATE_OPS) does not hold these" in fix) == (not collected)
    assert ("tf.get_collection(tf.GraphKeys.UPDATE_OPS)" in fix) == collected


def test_an_update_that_the_collection_lacks_is_named() -> None:
    drawing, variables = drawn_layer()
    _, variance = updates_of(drawing, variables)
    drawing.collections["update_ops"] = (variance,)
    drawing.add("ResourceApplyGradientDescent", variables["gamma"], name="train")
    evidence = drawing.evidence()
    assert [update.collected for update in evidence.updates] == [False, True]
    names = [update.node for update in evidence.updates]
    layer = bn(mean=0.0, variance=1.0, gamma=(1.0, 1.5, 2.0))
    stuck = why_not_updated(layer, RuleContext(graph=lambda _: evidence), STATISTICS)
    held = f"UPDATE_OPS holds `{names[1]}`, but not `{names[0]}`"
    assert any(held in fact for fact in stuck.facts)
    assert "UPDATE_OPS) does not hold these" in (stuck.fix or "")
    half = why_not_updated(layer, RuleContext(graph=lambda _: evidence), ("moving_mean",))
    absent = f"UPDATE_OPS does not hold those of moving_mean of `{layer.name}`: `{names[0]}`"
    assert absent in half.facts


@pytest.mark.parametrize("collected", [True, False])
def test_what_a_user_calls_the_training_op_is_named(collected: bool) -> None:
    drawing, _, group = adam_with_reads()
    if collected:
        drawing.collections["train_op"] = (group,)
    assert drawing.evidence().training_ops == ("Adam",)


def test_what_is_made_of_a_training_op_is_named_too() -> None:
    drawing, updates, group = adam_with_reads()
    drawing.collections["train_op"] = (group,)
    drawing.add("NoOp", name="train", after=[group, *updates])
    found = drawing.evidence()
    assert found.training_ops == ("Adam", "train")
    assert {update.run_by for update in found.updates} == {("train",)}


def test_an_update_behind_a_nameless_end_runs_all_the_same() -> None:
    drawing, updates, group = adam_with_reads()
    drawing.collections["train_op"] = (group,)
    drawing.controls[drawing.names.index("Adam/Read_1")] += tuple(updates)
    found = drawing.evidence()
    assert found.training_ops == ("Adam",)
    assert found.updates
    assert all(update.run_by for update in found.updates)
    assert why(found)[0] is None


def test_optimizers_without_a_group_are_all_named() -> None:
    drawing, variables = drawn_layer()
    for number in range(30):
        drawing.add("ResourceApplyAdam", variables["gamma"], name=f"apply_{number}")
    named = drawing.evidence().training_ops
    assert named[:2] == ("apply_22", "apply_23")
    assert len(named) <= 9


@pytest.mark.parametrize("way", ["Merge", "Select", "branch of If", "negated", "dropout alone"])
def test_the_placeholder_that_switches_updates_is_named(way: str) -> None:
    drawing, variables = drawn_layer()
    fed = drawing.add("Placeholder", name="training")
    chosen = drawing.add("LogicalNot", fed) if way == "negated" else fed
    first = len(drawing.names)
    if way == "branch of If":
        arguments = {role: drawing.add("_Arg") for role in variables}
        updates_of(drawing, arguments)
        drawing.function("train", [*arguments.values()], [], first)
        drawing.add("If", chosen, *variables.values(), then_branch=("train",))
    elif way == "dropout alone":
        kept = drawing.add("Merge", drawing.add("Switch", drawing.add("Relu"), chosen))
        for update in updates_of(drawing, variables):
            product = drawing.inputs[update][1]
            change = drawing.inputs[product][0]
            drawing.inputs[drawing.inputs[change][1]] = (kept,)
    else:
        pivot = drawing.add("Identity", drawing.add("Switch", chosen, chosen))
        share = drawing.add("Const", after=[pivot])
        share = drawing.add(
            *(("Select", chosen, share, share) if way == "Select" else ("Merge", share, share))
        )
        for update in updates_of(drawing, variables):
            product = drawing.inputs[update][1]
            drawing.inputs[product] = (drawing.inputs[product][0], share)
    drawing.add("ResourceApplyGradientDescent", variables["gamma"], name="train")
    found = drawing.evidence()
    assert len(found.updates) == 2
    conditions = [(one.kind, one.name) for one in found.conditions]
    assert conditions == ([] if way == "dropout alone" else [("placeholder", "training")])


def test_functions_that_call_each_other_come_to_an_end() -> None:
    drawing, variables = drawn_layer()
    for name, other in (("a", "b"), ("b", "a")):
        first = len(drawing.names)
        argument = drawing.add("_Arg")
        call = drawing.add("PartitionedCall", argument, f=(other,))
        apply = drawing.add("ResourceApplyGradientDescent", argument)
        drawing.function(name, [argument], [call, apply], first)
    drawing.add("PartitionedCall", variables["gamma"], f=("a",), name="call")
    found = drawing.evidence()
    assert found.training_ops == ("call",)
    assert found.optimized


@pytest.mark.parametrize("value", ["Placeholder", "RestoreV2", "Const"])
def test_setting_a_value_by_hand_is_no_update(value: str) -> None:
    drawing, variables = drawn_layer()
    for role in ("moving_mean", "moving_variance"):
        drawing.add("AssignVariableOp", variables[role], drawing.add(value))
    read = [drawing.add("ReadVariableOp", one) for one in variables.values()]
    fused = drawing.add("FusedBatchNormV3", drawing.add("Relu"), *read, is_training=False)
    drawing.add("ResourceApplyGradientDescent", variables["gamma"], fused, name="train")
    found = drawing.evidence()
    assert not found.updates
    assert found.complete
    assert found.reads
    assert found.modes == {False}


def test_a_stripped_is_training_is_true() -> None:
    drawing, variables = drawn_layer()
    read = [drawing.add("ReadVariableOp", one) for one in variables.values()]
    fused = drawing.add("FusedBatchNormV3", drawing.add("Relu"), *read)
    drawing.add("ResourceApplyGradientDescent", variables["gamma"], fused)
    assert drawing.evidence().modes == {True}


def copied(prefix: Path, folder: Path) -> Path:
    for path in prefix.parent.glob(prefix.name + "*"):
        shutil.copy(path, folder)
    return folder / prefix.name


@pytest.mark.parametrize(
    "damage", [lambda meta: meta[: len(meta) // 2], lambda _: b"\xff" * 99, lambda _: b"\n"]
)
def test_a_damaged_graph_leaves_the_checkpoint_readable(damage, tmp_path, run) -> None:
    prefix = copied(STUCK, tmp_path)
    meta = prefix.with_name(prefix.name + ".meta")
    meta.write_bytes(damage(meta.read_bytes()))
    outcome: Outcome = run("check", prefix, "--format", "json")
    assert outcome.exit_code == 1
    (found,) = outcome.json["checkpoints"]
    assert found["error"] is None
    assert {finding["rule"] for finding in found["findings"]} == {"BN101"}
    assert {finding["cause"] for finding in found["findings"]} == {None}
    (note,) = found["notes"]
    assert note.startswith(f"the graph beside it cannot be read: {meta}")


@pytest.mark.parametrize(
    ("size", "why"), [(0, "the file is empty"), (1 << 31, "larger than any graph")]
)
def test_a_file_that_no_graph_fits_in_is_not_read(size, why, tmp_path, run) -> None:
    prefix = copied(STUCK, tmp_path)
    os.truncate(f"{prefix}.meta", 0)
    os.truncate(f"{prefix}.meta", size)  # without the disk's blocks
    outcome = run("check", prefix, "--format", "json")
    assert outcome.exit_code == 1
    (note,) = outcome.json["checkpoints"][0]["notes"]
    assert why in note


def test_a_graph_of_another_model_is_said(tmp_path, run) -> None:
    prefix = copied(STUCK, tmp_path)
    other = FIXTURES / "tf1_graph_gan_alternating" / "model.ckpt-120.meta"
    shutil.copy(other, f"{prefix}.meta")
    (found,) = run("check", prefix, "--format", "json").json["checkpoints"]
    assert {finding["cause"] for finding in found["findings"]} == {None}
    (note,) = found["notes"]
    assert note.endswith("is it of another model?")


def test_functions_without_a_node_take_no_memory_each(tmp_path) -> None:
    meta = tmp_path / "model.meta"
    functions = b"\x0a\x00" * 200_000  # FunctionDefLibrary.function, each empty
    library = b"\x12" + _varint(len(functions)) + functions
    meta.write_bytes(b"\x12" + _varint(len(library)) + library)
    tracemalloc.start()
    with pytest.raises(ReadProblem, match="the graph cannot be parsed"):
        read_graphs(str(meta))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20 << 20


def _varint(number: int) -> bytes:
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + _varint(rest) if rest else bytes([low])


def test_a_graph_that_may_not_be_opened_is_a_note(tmp_path, run) -> None:
    prefix = copied(STUCK, tmp_path)
    meta = prefix.with_name(prefix.name + ".meta")
    meta.unlink()
    meta.mkdir()
    (found,) = run("check", prefix, "--format", "json").json["checkpoints"]
    assert len(found["notes"]) == 1
    assert {finding["cause"] for finding in found["findings"]} == {None}


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_flipped_and_cut_graphs_are_read_or_refused(data) -> None:
    meta = bytearray((STUCK.parent / (STUCK.name + ".meta")).read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        meta[data.draw(st.integers(0, len(meta) - 1))] = data.draw(st.integers(0, 255))
    del meta[data.draw(st.integers(len(meta) // 2, len(meta))) :]
    with bninspect.open_checkpoint(str(STUCK)) as opened:
        layers = bninspect.find_layers(opened)
    Path(FLIPPED).write_bytes(meta)
    try:
        graph_evidence(read_graphs(FLIPPED, saved_model=data.draw(st.booleans())), layers, {})
    except ReadProblem as problem:
        assert problem.path == FLIPPED  # noqa: PT017 - or it was read


@pytest.fixture(autouse=True)
def _place_for_flipped(tmp_path):
    global FLIPPED  # noqa: PLW0603 - hypothesis calls the test many times with one fixture
    FLIPPED = str(tmp_path / "flipped")


FLIPPED = ""


@pytest.mark.processes
def test_a_healthy_checkpoint_leaves_its_graph_alone() -> None:
    program = (
        "import sys, os\n"
        "opened = []\n"
        "sys.addaudithook(lambda event, a: event == 'open' and opened.append(str(a[0])))\n"
        "import bninspect\n"
        f"report = bninspect.check({str(CORRECT)!r}, momentum=0.9)\n"
        "assert not report.findings\n"
        "assert not [name for name in opened if name.endswith('.meta')], opened\n"
        "assert 'bninspect.formats.tensorflow.graph_def' not in sys.modules\n"
        "assert 'bninspect.evidence.graph.layer_evidence' not in sys.modules\n"
        "assert 'bninspect.model.graph' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.processes
def test_without_a_graph_nothing_is_imported_for_it() -> None:
    stuck = FIXTURES / "tf1_layers_update_ops_forgotten" / "model.ckpt-60"
    program = (
        "import sys, bninspect\n"
        f"assert bninspect.check({str(stuck)!r}).findings\n"
        "assert 'bninspect.formats.tensorflow.graph_def' not in sys.modules\n"
        "assert 'bninspect.evidence.graph.layer_evidence' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.framework
def test_the_engine_of_tensorflow_gets_the_same_causes(run) -> None:
    native = run("check", STUCK, "--format", "json").json["checkpoints"][0]
    theirs = run("check", STUCK, "--format", "json", "--engine", "tensorflow")
    assert theirs.json["checkpoints"][0]["findings"] == native["findings"]


def test_the_sentence_that_ends_the_search(run) -> None:
    (found,) = run("check", STUCK, "--format", "json").json["checkpoints"]
    assert found["findings"][0]["evidence"][0] == (
        "the graph has 4 update ops, but `GradientDescent` does not depend on them"
    )


def test_a_fact_of_one_layer_names_it_and_is_not_counted(run) -> None:
    said = run("check", STUCK, "--verbose").said
    assert "UPDATE_OPS holds those of `dense/out`: `dense/out/AssignMovingAvg`" in said
    assert "this layer" not in said
    assert "(1 layer)" not in said


def test_internals_of_an_optimizer_are_not_named(run) -> None:
    stuck = FIXTURES / "tf1_graph_adam_forgotten" / "model.ckpt-60"
    (found,) = run("check", stuck, "--format", "json").json["checkpoints"]
    assert "but `Adam` does not depend on them" in found["findings"][0]["evidence"][0]


def test_no_more_is_said_of_a_graph_without_an_optimizers_op_than_is_known(run) -> None:
    stuck = FIXTURES / "tf1_graph_handwritten_sgd_forgotten" / "model.ckpt-60"
    (found,) = run("check", stuck, "--format", "json").json["checkpoints"]
    assert found["findings"][0]["evidence"][0] == (
        "no optimizer op (Apply…) is in the graph beside it: what a training step runs cannot be"
        " told from that"
    )


@pytest.mark.parametrize("stem", ["placeholder_false", "placeholder_fetched_false"])
def test_a_placeholder_that_may_have_been_fed_false_is_named(stem, run) -> None:
    stuck = next((FIXTURES / f"tf1_graph_{stem}").glob("*.index"))
    (found,) = run("check", stuck, "--format", "json").json["checkpoints"]
    (finding,) = found["findings"]
    fed = "the placeholder `training` can switch them off; what it was fed is not stored"
    assert fed in finding["evidence"]
    if stem == "placeholder_false":
        assert "look at what the training loop feeds `training`" in finding["fix"]


# --- how many updates there were ------------------------------------------------------------------


def adam(steps, beta_1=0.9, beta_2=0.999):
    first, second = np.float32(beta_1), np.float32(beta_2)
    powers = [first, second]
    for _ in range(steps):
        powers = [powers[0] * first, powers[1] * second]
    return checkpoint({"beta1_power": powers[0], "beta2_power": powers[1]})


def momentum_of_share(share_of):
    """The momentum of updates whose share is what `share_of` draws."""
    drawing, variables = drawn_layer()
    for role in ("moving_mean", "moving_variance"):
        read = drawing.add("ReadVariableOp", variables[role])
        change = drawing.add("Sub", read, drawing.add("Mean"))
        product = drawing.add("Mul", change, share_of(drawing))
        drawing.add("AssignSubVariableOp", variables[role], product)
    return drawing.evidence().momentum


@pytest.mark.parametrize("operation", ["Select", "SelectV2", "Merge"])
@pytest.mark.parametrize(
    ("shares", "momentum"),
    [((0.1, 0.1), 0.9), ((0.1, 0.2), None), ((0.0, 0.2), 0.8), ((0.2, 0.0), 0.8)],
)
def test_a_share_that_is_chosen_is_known_where_all_choices_agree(
    operation, shares, momentum
) -> None:
    """A share of 0 beside another is the branch for inference."""

    def chosen(drawing):
        one, two = (drawing.add("Const", value=share) for share in shares)
        if operation.startswith("Select"):
            return drawing.add(operation, drawing.add("Placeholder"), one, two)
        return drawing.add("Merge", one, two)

    assert momentum_of_share(chosen) == momentum


def test_a_share_of_which_one_choice_is_no_constant_is_not_known() -> None:
    def chosen(drawing):
        one = drawing.add("Const", value=0.1)
        return drawing.add("SelectV2", drawing.add("Placeholder"), one, drawing.add("Mean"))

    assert momentum_of_share(chosen) is None


def test_a_share_that_is_made_of_itself_is_not_known() -> None:
    def ring(drawing):
        merge = len(drawing.names)
        return drawing.add("Merge", merge, merge)

    assert momentum_of_share(ring) is None


BETAS = [(one, two) for one in (0.9, 0.5) for two in (0.999, 0.9, 0.99, 0.9999, 0.98) if one != two]


@pytest.mark.parametrize("betas", BETAS)
@pytest.mark.parametrize("steps", [0, 1, 7, 60, 100])
def test_adam_counts_its_steps(betas, steps) -> None:
    (found,) = read_optimizer_steps(adam(steps, *betas))
    assert (found.steps, found.exact) == (steps, True)


def test_adam_counts_up_to_where_it_underflows() -> None:
    (found,) = read_optimizer_steps(adam(800))
    assert (found.steps, found.exact) == (800, True)


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.5, 0.9), (0.0, 0.9), (0.0, 0.999)])
@pytest.mark.parametrize("steps", [1, 150, 300, 3000])
def test_where_a_power_underflows_no_more_steps_are_told_than_there_were(betas, steps) -> None:
    for found in read_optimizer_steps(adam(steps, *betas)):
        assert found.steps <= steps * 1.001
        if found.steps != steps:
            assert not found.exact
            assert str(found).startswith("`beta1_power` shows at least ")


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.5, 0.9), (0.0, 0.9)])
def test_an_optimizer_that_took_no_step_is_no_sign_of_training(betas) -> None:
    (found,) = read_optimizer_steps(adam(0, *betas))
    assert found.steps == 0


@pytest.mark.parametrize(
    ("updated", "cause"),
    [("run", "half-precision"), ("not run", "update-ops-not-run"), ("never", None)],
)
def test_the_type_is_no_reason_where_the_graph_has_another(updated, cause) -> None:
    drawing, variables = drawn_layer()
    first, second = updates_of(drawing, variables, share=0.001)
    if updated == "never":
        drawing.operations[second] = "NoOp"
    after = [first, second] if updated == "run" else [first]
    drawing.add("ResourceApplyGradientDescent", variables["gamma"], name="train", after=after)
    layer = bn(mean=0.5, variance=1.0, gamma=1.5, dtype="bfloat16")
    graph = drawing.evidence(layer)
    context = RuleContext(step=60, momentum=0.999, graph=lambda _: graph)
    found = {one.rule.code: one.cause for one in apply_rules([layer], RULES, context)}
    assert found["BN103"] == cause


def test_no_layer_is_cold_by_a_least_number_of_steps() -> None:
    layer = bn(mean=0.5, variance=2.0, gamma=1.5)
    steps = OptimizerSteps("beta1_power", 200, exact=False)
    context = RuleContext(momentum=0.99, optimizer_steps=(steps,))
    assert not apply_rules([layer], RULES, context)
    exact = context._replace(optimizer_steps=(steps._replace(exact=True),))
    assert [one.rule.code for one in apply_rules([layer], RULES, exact)] == ["BN106"]


@pytest.mark.parametrize("powers", [(0.3, 0.5), (1.0, 1.0), (0.0, 0.0), (np.nan, 0.9), (2.0, 0.9)])
def test_powers_that_do_not_agree_tell_nothing(powers) -> None:
    stored = {"beta1_power": np.float32(powers[0]), "beta2_power": np.float32(powers[1])}
    assert read_optimizer_steps(checkpoint(stored)) == ()


def test_dead_channels_count_the_updates_that_there_were() -> None:
    variance = np.float32([0.99**50, 0.99**50, 0.8])
    layer = {"mean": (0.0, 0.0, 0.4), "variance": variance, "gamma": (1.0, 2.0, 3.0)}
    (cold,) = (
        one for one in findings(**layer, step=1000, momentum=0.99) if one.rule.code == "BN106"
    )
    assert cold.cause == "too-few-updates"
    assert "after 50 updates" in cold.message
    assert "it was updated in 50 of 1000 steps only" in " ".join(cold.evidence)


def test_an_own_count_that_contradicts_is_said() -> None:
    helpers = {"moving_mean/local_step": np.float32(60)}
    helpers = {name: variable(name, value) for name, value in helpers.items()}
    (found,) = findings(**STUCK_BN, step=60, helpers=helpers)
    assert found.evidence[:2] == (
        "its own count says 60 updates: they did not reach what stands still",
        "the stored step is 60",
    )
    waiting = {"mean": 0.0, "variance": 0.0, "family": "compare_gan", "gamma": (1.0, 1.5, 2.0)}
    (found,) = findings(**waiting, initial={"moving_variance": (0.0,)}, step=60, helpers=helpers)
    assert not [fact for fact in found.evidence if "own count" in fact]
