"""Object-based checkpoints: whose a variable is, what people call it, and graphs that mislead."""

from __future__ import annotations

import shutil
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bninspect
from bninspect.errors import ReadProblem
from tests.conftest import load_fixture
from tests.support.table_writer import (
    OBJECT_GRAPH,
    Entry,
    Node,
    graph_of,
    shard_path,
    write_bundle,
    write_index,
)
from tests.support.work import LINEAR, growth

ROLES = ("gamma", "beta", "moving_mean", "moving_variance")
VALUES = {
    "gamma": np.float32([1.5, 0.5, 1.0]),
    "beta": np.float32([0.1, 0.2, 0.3]),
    "moving_mean": np.float32([0, 0, 0]),
    "moving_variance": np.float32([1, 1, 1]),
}


class Objects:
    """An object graph under construction, and the variables its nodes stand for."""

    def __init__(self):
        self.nodes = [{}]  # the children of each; the root is there
        self.variables = {}  # number → (key, full name)
        self.values = {}

    def add(self, holder, attribute):
        """A new object, held by another under this name."""
        self.nodes.append({})
        self.nodes[holder][attribute] = len(self.nodes) - 1
        return len(self.nodes) - 1

    def variable(self, holder, attribute, key, full_name, values=None):
        number = self.add(holder, attribute)
        self.variables[number] = (key, full_name)
        self.values[key] = np.float32([1, 2, 3]) if values is None else values
        return number

    def layer(self, holder, attribute, scope, key=None, roles=ROLES):
        """A BN object with its variables, never updated but for gamma and beta."""
        number = self.add(holder, attribute)
        for role in roles:
            path = f"{key or attribute}/{role}/.ATTRIBUTES/VARIABLE_VALUE"
            self.variable(number, role, path, f"{scope}/{role}", VALUES[role])
        return number

    def write(self, prefix, **more):
        nodes = [
            Node(children, *self.variables.get(number, (None,)))
            for number, children in enumerate(self.nodes)
        ]
        return write_bundle(prefix, self.values, object_graph=graph_of(nodes), **more)


@pytest.fixture
def prefix(tmp_path):
    return tmp_path / "ckpt-1"


@pytest.fixture
def objects():
    return Objects()


def layers_in(prefix):
    with bninspect.open_checkpoint(prefix) as checkpoint:
        return {
            layer.name: {role: variable.name for role, variable in layer.variables.items()}
            for layer in bninspect.find_layers(checkpoint)
        }


def keys(start, roles=ROLES):
    return {role: f"{start}/{role}/.ATTRIBUTES/VARIABLE_VALUE" for role in roles}


def test_a_layer_goes_by_its_full_name(objects, prefix):
    objects.layer(0, "layer_with_weights-11", "batch_normalization_5")
    objects.write(prefix)
    assert layers_in(prefix) == {"batch_normalization_5": keys("layer_with_weights-11")}


def test_layers_whose_full_names_are_the_same_go_by_their_attributes(objects, prefix):
    net = objects.add(0, "net")
    objects.layer(net, "first", "net", "net/first")
    blocks = objects.add(net, "blocks")
    objects.layer(blocks, "0", "net", "net/blocks/0")
    objects.layer(blocks, "1", "net", "net/blocks/1")
    objects.layer(net, "own", "net/own", "net/own")
    objects.write(prefix)
    assert set(layers_in(prefix)) == {"net/first", "net/blocks/0", "net/blocks/1", "net/own"}
    assert layers_in(prefix)["net/blocks/1"] == keys("net/blocks/1")


def test_attributes_that_keras_made_up_give_way_to_the_layers_name(objects, prefix):
    """Two functional models with an inner layer of the same name."""
    for model in ("encoder", "decoder"):
        number = objects.add(0, model)
        objects.layer(number, "layer_with_weights-1", "bn", f"{model}/layer_with_weights-1")
        operations = objects.add(objects.add(number, "_functional"), "_operations")
        objects.layer(operations, "2", "bn_3", f"{model}/_functional/_operations/2")
    objects.write(prefix)
    assert set(layers_in(prefix)) == {
        f"{model}/{name}" for model in ("encoder", "decoder") for name in ("bn", "bn_3")
    }


def test_variables_without_a_full_name_go_by_attributes(objects, prefix):
    module = objects.add(0, "module")
    number = objects.add(module, "norm")
    for role in ROLES:
        objects.variable(number, role, f"module/norm/{role}", "", VALUES[role])
    objects.write(prefix)
    assert set(layers_in(prefix)) == {"module/norm"}


def test_a_layer_that_two_attributes_hold_is_one(objects, prefix):
    layer = objects.layer(0, "bn", "bn")
    objects.nodes[0]["again"] = layer
    objects.write(prefix)
    assert layers_in(prefix) == {"bn": keys("bn")}


def keras_3_optimizer(objects, trained, slots=()):
    """An optimizer with the list of what it trains, and lists of slots as (name, full names)."""
    optimizer = objects.add(0, "optimizer")
    objects.variable(optimizer, "_iterations", "optimizer/_iterations", "adam/iteration")
    objects.values["optimizer/_iterations"] = np.array(60, np.int64)
    trainables = objects.add(optimizer, "_trainable_variables")
    for place, (number, full_name) in enumerate(trained):
        if number is None:
            key = f"optimizer/_trainable_variables/{place}"
            objects.variable(trainables, str(place), key, full_name)
        else:
            objects.nodes[trainables][str(place)] = number
    for name, full_names in slots:
        held = objects.add(optimizer, name)
        for place, full_name in enumerate(full_names):
            objects.variable(held, str(place), f"optimizer/{name}/{place}", full_name)


LOST = [(None, "net/gamma"), (None, "net/beta"), (None, "net/gamma"), (None, "net/beta")]
SLOTS = [
    f"adam/net_batch_normalization{layer}_{role}_momentum"
    for layer in ("", "_1")
    for role in ("gamma", "beta")
]


def test_layers_that_only_the_optimizer_holds_are_missing_their_statistics(objects, prefix, run):
    """Keras 3 layers in a plain Python list: tf.train.Checkpoint does not see them."""
    net = objects.add(0, "net")
    layer = objects.layer(net, "bn", "net", "net/bn")
    known = [(objects.nodes[layer][role], "") for role in ("gamma", "beta")]
    names = [*SLOTS, *(f"adam/net_batch_normalization_2_{role}_momentum" for role in VALUES)][:6]
    keras_3_optimizer(objects, [*LOST, *known], [("_momentums", names)])
    objects.write(prefix)
    outcome = run("check", prefix, "--format", "json")
    (checkpoint,) = outcome.json["checkpoints"]
    assert [(f["rule"], f["layer"]) for f in checkpoint["findings"]] == [
        ("BN101", "net/bn"),
        ("BN201", "net_batch_normalization"),
        ("BN201", "net_batch_normalization_1"),
    ]
    assert "an optimizer trains 4 variables of layers that the checkpoint does not hold" in (
        " ".join(checkpoint["notes"])
    )
    assert checkpoint["step"] == 60


def test_without_slots_the_loss_is_told_but_no_layer_is_named(objects, prefix, run):
    layer = objects.layer(objects.add(0, "net"), "bn", "net", "net/bn")
    keras_3_optimizer(objects, [*LOST, (objects.nodes[layer]["gamma"], "")])
    objects.write(prefix)
    (checkpoint,) = run("check", prefix, "--format", "json").json["checkpoints"]
    assert [(f["rule"], f["layer"]) for f in checkpoint["findings"]] == [("BN101", "net/bn")]
    assert "(net/gamma, net/beta" in " ".join(checkpoint["notes"])


@pytest.mark.parametrize("generator", [False, True])
def test_an_optimizer_whose_model_is_elsewhere_has_lost_nothing(objects, prefix, run, generator):
    """A checkpoint of the optimizer alone, or of a generator with both optimizers of a GAN."""
    objects.variable(0, "save_counter", "save_counter", "save_counter")
    if generator:
        objects.layer(0, "generator", "bn")
    keras_3_optimizer(objects, LOST, [("_momentums", SLOTS)])
    objects.write(prefix)
    (checkpoint,) = run("check", prefix, "--format", "json").json["checkpoints"]
    assert not any("an optimizer trains" in note for note in checkpoint["notes"])
    assert [finding["layer"] for finding in checkpoint["findings"]] == ["bn"] * generator


def test_slots_make_no_layer(objects, prefix):
    """New optimizers keep slots in lists; their full names end like the variables'."""
    layer = objects.layer(0, "model", "bn")
    known = [(objects.nodes[layer]["gamma"], "")]
    slots = [
        ("_variables", ["Adam/m/batch_normalization/gamma", "Adam/v/batch_normalization/gamma"])
    ]
    keras_3_optimizer(objects, known, slots)
    objects.write(prefix)
    assert set(layers_in(prefix)) == {"bn"}


def exported(objects, names, trainable):
    """What model.export writes: variables in lists, each twice, and nothing that holds them."""
    variables = objects.add(0, "variables")
    trainables = objects.add(0, "trainable_variables")
    for place, name in enumerate(names):
        number = objects.variable(variables, str(place), f"variables/{place}", name)
        if name.rpartition("/")[2] in trainable:
            objects.nodes[trainables][str(len(objects.nodes[trainables]))] = number
    copies = objects.add(0, "_all_variables")
    for place, name in enumerate(reversed(names)):
        objects.variable(copies, str(place), f"_all_variables/{place}", name)


def test_an_export_is_grouped_by_full_names_and_counted_once(objects, prefix):
    exported(objects, [f"bn1/{role}" for role in ROLES], trainable=("gamma", "beta"))
    objects.write(prefix)
    assert layers_in(prefix) == {"bn1": {r: f"variables/{i}" for i, r in enumerate(ROLES)}}


@pytest.mark.parametrize("order", ["layer by layer", "trainable first"])
def test_an_export_whose_full_names_are_the_same_is_numbered(objects, prefix, order, run):
    """Keras 3 lists layer after layer, Keras 2 all that is trainable in a composite layer first."""
    names = [f"net/{role}" for _ in range(3) for role in ROLES]
    if order == "trainable first":
        names = [
            f"net/{role}" for pair in (ROLES[:2], ROLES[2:]) for _ in range(3) for role in pair
        ]
    exported(objects, names, trainable=("gamma", "beta"))
    objects.write(prefix)

    def key(role, number):
        places = [place for place, name in enumerate(names) if name == f"net/{role}"]
        return f"variables/{places[number - 1]}"

    assert layers_in(prefix) == {
        f"net#{number}of3": {role: key(role, number) for role in ROLES} for number in (1, 2, 3)
    }
    assert "several layers have the name net in this file" in run("check", prefix).said


def test_an_export_with_one_bn_layer_of_a_name_is_not_numbered(objects, prefix, run):
    """Beside it are dense layers: all variables of a class of one's own have its name."""
    dense = ["net/kernel", "net/bias"]
    names = [*dense, *(f"net/{role}" for role in ROLES), *dense]
    exported(objects, names, trainable=("gamma", "beta"))
    objects.write(prefix)
    assert [*layers_in(prefix)] == ["net"]
    assert "several layers have" not in run("check", prefix).said


def test_what_not_all_layers_of_a_name_have_goes_to_none(objects, prefix):
    """Two of three layers have a gamma: whose they are cannot be told."""
    layers = [ROLES[2:], ("gamma", *ROLES[2:]), ("gamma", *ROLES[2:])]
    names = [f"net/{role}" for roles in layers for role in roles]
    exported(objects, names, trainable=("gamma", "beta"))
    objects.write(prefix)
    assert [*layers_in(prefix).items()] == [
        ("net#1of3", {"moving_mean": "variables/0", "moving_variance": "variables/1"}),
        ("net#2of3", {"moving_mean": "variables/3", "moving_variance": "variables/4"}),
        ("net#3of3", {"moving_mean": "variables/6", "moving_variance": "variables/7"}),
    ]


def test_no_layer_hides_another(objects, prefix):
    """Keras 3: a Sequential in a subclassed model, where all full names begin alike."""
    net = objects.add(0, "model")
    features = objects.add(net, "features")
    operations = objects.add(features, "_operations")
    for place in "024":
        path = f"model/features/_operations/{place}"
        objects.layer(operations, place, "net", path)
    objects.layer(net, "bn", "net", "model/bn")
    objects.write(prefix)
    assert set(layers_in(prefix)) == {
        "model/features/0",
        "model/features/2",
        "model/features/4",
        "model/bn",
    }


def test_a_path_that_is_another_layers_name(objects, prefix):
    model = objects.add(0, "model")
    objects.layer(model, "layer_with_weights-0", "bn", "model/layer_with_weights-0")
    objects.layer(0, "bn", "", "bn")
    objects.layer(model, "bn", "", "model/bn")
    objects.write(prefix)
    assert set(layers_in(prefix)) == {"bn", "bn#2", "model/bn"}


@pytest.mark.parametrize("aliases", [("regularized", "_scale"), ("all_scales", "_all_offsets")])
def test_an_alias_takes_nothing_from_a_layer(objects, prefix, aliases):
    trainer = objects.add(0, "trainer")
    layer = objects.layer(0, "bn", "bn")
    for alias, role in zip(aliases, ("gamma", "beta"), strict=True):
        objects.nodes[trainer][alias] = objects.nodes[layer][role]
    objects.write(prefix)
    assert layers_in(prefix) == {"bn": keys("bn")}


def test_a_module_whose_attributes_say_nothing_goes_by_its_variables_names(objects, prefix):
    module = objects.add(0, "norm")
    for attribute, role in zip(("g", "b", "mu", "_moving_variance"), ROLES, strict=True):
        objects.variable(module, attribute, f"norm/{attribute}", f"net/bn/{role}", VALUES[role])
    objects.variable(module, "copy", "norm/copy", "net/bn/gamma", VALUES["gamma"])
    objects.write(prefix)
    (found,) = layers_in(prefix).values()
    assert set(found) == set(ROLES)


def test_a_module_with_scale_and_offset(objects, prefix):
    module = objects.add(0, "norm")
    attributes = ("scale", "offset", "moving_mean", "moving_variance")
    for attribute, role in zip(attributes, ROLES, strict=True):
        objects.variable(module, attribute, f"norm/{attribute}", "Variable", VALUES[role])
    objects.write(prefix)
    assert layers_in(prefix) == {
        "norm": {
            role: f"norm/{attribute}" for attribute, role in zip(attributes, ROLES, strict=True)
        }
    }


def test_an_object_that_counts_is_no_optimizer(objects, prefix):
    trainer = objects.add(0, "trainer")
    objects.variable(trainer, "iterations", "trainer/iterations", "Variable")
    weights = objects.add(trainer, "weights")
    for place, role in enumerate(ROLES):
        objects.variable(weights, str(place), f"trainer/weights/{place}", f"bn/{role}")
    objects.write(prefix)
    assert set(layers_in(prefix)) == {"bn"}


@pytest.mark.parametrize(
    "holder", ["optimizer/iter", "optimizer/step", "step", "trainer/_iterations"]
)
def test_the_step_is_found_by_its_attribute(objects, prefix, holder):
    objects.layer(0, "bn", "bn")
    *before, attribute = holder.split("/")
    owner = objects.add(0, before[0]) if before else 0
    objects.variable(owner, attribute, holder, "Variable", np.array(7, np.int64))
    objects.variable(0, "save_counter", "save_counter", "save_counter", np.array(1, np.int64))
    objects.write(prefix)
    (checkpoint,) = bninspect.check(prefix).checkpoints
    assert checkpoint.step == 7


def test_circles_and_objects_that_nothing_holds(objects, prefix):
    net = objects.add(0, "net")
    layer = objects.layer(net, "bn", "bn", "net/bn")
    objects.nodes[layer]["model"] = net
    objects.nodes[net]["root"] = 0
    objects.nodes[net]["self"] = net
    alone = objects.layer(0, "apart", "apart")
    del objects.nodes[0]["apart"]
    objects.nodes[alone]["self"] = alone
    objects.write(prefix)
    assert set(layers_in(prefix)) == {"bn", "apart"}


@pytest.mark.slow
@pytest.mark.parametrize("length", [100, 100_000])
def test_a_chain_of_objects_longer_than_any_stack(objects, prefix, length, run):
    holder = 0
    for _ in range(length):
        holder = objects.add(holder, "x")
    objects.layer(holder, "bn", "bn")
    objects.write(prefix)
    outcome = run("check", prefix)
    assert outcome.exit_code == (1 if length == 100 else 2), outcome.out


def test_names_that_would_fill_the_memory_are_refused(objects, prefix):
    holder = objects.add(0, "x" * 100_000)
    for _ in range(2000):
        holder = objects.add(holder, "y")
    objects.write(prefix)
    tracemalloc.start()
    with pytest.raises(ReadProblem, match="object graph"):
        bninspect.open_checkpoint(prefix)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 200 * 2**20


@pytest.mark.parametrize(
    "graph",
    [
        b"\xff\xff\xff no protocol buffer",
        graph_of([Node({"model": 7})]),
        graph_of([Node({"model": -1})]),
        b"\x0a" * 100_000,
    ],
    ids=["garbage", "number too large", "number below 0", "nested"],
)
def test_a_graph_that_makes_no_sense_is_refused(prefix, graph, run):
    write_bundle(prefix, VALUES, object_graph=graph)
    outcome = run("check", prefix)
    assert outcome.exit_code == 2
    assert "the object graph, which holds the layers' names, cannot be parsed" in outcome.said


@pytest.mark.parametrize("suffix", ["", "/.ATTRIBUTES/VARIABLE_VALUE"])
def test_what_the_graph_does_not_know_goes_by_its_keys(objects, prefix, suffix, run):
    objects.layer(0, "bn", "bn")
    objects.values |= {f"other/{role}{suffix}": VALUES[role] for role in ROLES}
    objects.write(prefix)
    assert set(layers_in(prefix)) == {"bn", "other"}
    (checkpoint,) = run("check", prefix, "--format", "json").json["checkpoints"]
    assert "4 variables are not in the object graph (other/beta" in " ".join(checkpoint["notes"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"crc": 1}, "fails its checksum"),
        ({"size": 5}, "expected one string under"),
        ({"size": 0}, "expected one string under"),
        ({"size": 1 << 40}, "bytes at offset"),
        ({"offset": 1 << 40}, "bytes at offset"),
        ({"shard": 3}, "should be in shard 3 of 1"),
    ],
    ids=["checksum", "size", "empty", "terabyte", "offset", "shard"],
)
def test_a_damaged_entry_of_the_graph_is_a_problem(objects, prefix, change, message):
    objects.layer(0, "bn", "bn")
    entries = objects.write(prefix)
    fields = {**vars(entries[OBJECT_GRAPH]), **change}
    write_index(prefix, {**entries, OBJECT_GRAPH: Entry(**fields)})
    if "bytes at offset" in message:  # cut short: the keys are all there is
        (checkpoint,) = bninspect.check(prefix).checkpoints
        assert message in str(checkpoint.error)
    else:
        with pytest.raises(ReadProblem, match=message):
            bninspect.open_checkpoint(prefix)


@pytest.mark.parametrize("size", range(8))
def test_a_length_that_never_ends_is_a_problem(objects, prefix, size):
    """A varint whose every byte announces another one."""
    objects.layer(0, "bn", "bn")
    entries = objects.write(prefix)
    entry = entries[OBJECT_GRAPH]
    shard = shard_path(prefix)
    data = bytearray(shard.read_bytes())
    data[entry.offset : entry.offset + size] = b"\xff" * size
    shard.write_bytes(data)
    write_index(prefix, {**entries, OBJECT_GRAPH: Entry(**{**vars(entry), "size": size})})
    with pytest.raises(ReadProblem, match="expected one string under"):
        bninspect.open_checkpoint(prefix)


def test_without_the_shard_layers_are_listed_by_their_keys(objects, prefix, run):
    objects.layer(0, "layer_with_weights-3", "bn", "model/layer_with_weights-3")
    objects.write(prefix)
    shard_path(prefix).unlink()
    listed = run("list", prefix, "--format", "json").json["checkpoints"][0]
    assert [layer["name"] for layer in listed["layers"]] == ["model/layer_with_weights-3"]
    assert "the object graph is missing" in " ".join(listed["notes"])
    assert "the values are missing" in " ".join(listed["notes"])
    outcome = run("check", prefix)
    assert outcome.exit_code == 2
    assert "this shard of the checkpoint is missing" in outcome.said


def test_lists_that_contradict_each_other(objects, prefix):
    layer = objects.layer(0, "bn", "bn")
    keras_3_optimizer(objects, [*LOST, (objects.nodes[layer]["gamma"], "")])
    optimizer = objects.nodes[0]["optimizer"]
    short = objects.add(optimizer, "short")
    nodes = [
        Node(
            [*children.items(), *([("_trainable_variables", short)] if n == optimizer else [])],
            *objects.variables.get(n, (None,)),
        )
        for n, children in enumerate(objects.nodes)
    ]
    write_bundle(prefix, objects.values, object_graph=graph_of(nodes))
    assert "bn" in layers_in(prefix)


@pytest.mark.parametrize("name", ["_trainable_variables", "_momentums"])
def test_one_list_held_many_times_costs_its_length_once(prefix, name):
    def reading(size):
        variables = [Node(key=f"v/{n}", full_name=f"net/v{n}") for n in range(size)]
        listed = Node([(str(n), n + 4) for n in range(size)])
        optimizer = Node([("_iterations", 3), ("_variables", 2), *[(name, 2)] * size])
        graph = graph_of(
            [Node({"optimizer": 1}), optimizer, listed, Node(key="i", full_name="i"), *variables]
        )
        place = prefix.with_name(f"model-{size}")
        write_bundle(place, {}, object_graph=graph)
        return lambda: layers_in(place)

    assert reading(100)() == {}
    assert growth(reading, 100) < LINEAR


@st.composite
def graphs(draw):
    """Any graph at all: objects, lists, optimizers and variables that hold each other."""
    count = draw(st.integers(1, 12))
    lists = ["_variables", "_trainable_variables", "_momentums", "variables", "_operations"]
    others = ["a", "0", "1", "_iterations", "learning_rate", "layer-1"]
    attributes = st.sampled_from([*lists, *others, "gamma", "moving_mean", "moving_variance"])
    children = st.lists(st.tuples(attributes, st.integers(0, count)), max_size=6)
    names = st.sampled_from(["", "net/gamma", "net/moving_mean", "net/moving_variance", "gamma"])
    nodes = []
    for number in range(count):
        key = f"key{number}" if draw(st.booleans()) else None
        slots = draw(st.lists(st.integers(0, count), max_size=2))
        nodes.append(Node(draw(children), key, draw(names), slots))
    return nodes


@pytest.mark.slow
@settings(derandomize=True, deadline=None, max_examples=500)
@given(nodes=graphs())
def test_any_graph_gives_layers_or_a_problem(tmp_path_factory, nodes):
    prefix = tmp_path_factory.getbasetemp() / "any-graph"
    values = {node.key: np.float32([1, 2]) for node in nodes if node.key}
    write_bundle(prefix, values, object_graph=graph_of(nodes))
    try:
        found = layers_in(prefix)
    except ReadProblem:
        return
    members = [key for layer in found.values() for key in layer.values()]
    assert len(members) == len(set(members))


ALWAYS_THE_SAME = settings(derandomize=True, deadline=None, max_examples=150)


@pytest.fixture(scope="module")
def copy_of(tmp_path_factory):
    """A place for the files of a fixture, written anew by every example."""
    folder = tmp_path_factory.mktemp("fixture")

    def copy(stem):
        path = load_fixture(stem).path
        if not (folder / stem).exists():
            shutil.copytree(path.parent, folder / stem)
        return folder / stem / path.name

    return copy


@pytest.mark.slow
@pytest.mark.parametrize("stem", ["keras3_ckpt_correct", "keras2_ckpt_legacy_stuck"])
@ALWAYS_THE_SAME
@given(data=st.data())
def test_a_flipped_or_missing_end_gives_the_right_answer_or_a_problem(copy_of, stem, data):
    prefix = copy_of(stem)
    sound = {path: path.read_bytes() for path in prefix.parent.iterdir()}
    damaged = data.draw(st.sampled_from(sorted(sound)), "file")
    place = data.draw(st.integers(0, len(sound[damaged]) - 1), "place")
    contents = bytearray(sound[damaged])
    if data.draw(st.booleans(), "cut off"):
        del contents[place:]
    else:
        contents[place] ^= 1 << data.draw(st.integers(0, 7), "bit")
    expected = bninspect.check(load_fixture(stem).path)
    try:
        damaged.write_bytes(contents)
        found = bninspect.check(prefix)
    finally:
        damaged.write_bytes(sound[damaged])
    assert found.unreadable or _told(found) == _told(expected)


def _told(report):
    return [
        (layer.name, {role: values.array.tolist() for role, values in layer.values.items()})
        for checkpoint in report.checkpoints
        for layer in checkpoint.layers
    ]
