"""The weights format of Keras 3: what its groups and numbers tell, and what they do not."""

from __future__ import annotations

import contextlib
import json

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bninspect import check, find_layers, open_checkpoint
from bninspect.errors import Corrupt, Incomplete, ReadProblem, UnknownFormat, Unsupported
from tests.conftest import FIXTURES

USES_FILES = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    deadline=None,
    derandomize=True,
    max_examples=150,
)
BN = "layers/batch_normalization"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.weights.h5"


def vector(seed, size=3, dtype="float32"):
    return (np.arange(size) + seed + 0.5).astype(dtype)


def write(path, groups, names=None):
    """A weights file: group → its variables, or how many vectors it has; group → its name."""
    with h5py.File(path, "w") as file:
        for group, members in groups.items():
            below = file.create_group(f"{group}/vars")
            vectors = [*map(vector, range(members))] if isinstance(members, int) else members
            for number, values in enumerate(vectors):
                below[str(number)] = values
            if names and group in names:
                below.attrs["name"] = names[group]
    return path


def layers(path):
    """Layer → role → number of the variable."""
    with open_checkpoint(str(path)) as checkpoint:
        return {
            layer.name: {
                role: int(variable.name.rpartition("/")[2])
                for role, variable in {**layer.variables, **layer.helpers}.items()
            }
            for layer in find_layers(checkpoint)
        }


def notes(path):
    return " ".join(check(path).checkpoints[0].notes)


STATISTICS = ("moving_mean", "moving_variance")
RENORM = ("moving_stddev", "renorm_mean", "renorm_stddev")


@pytest.mark.parametrize(
    ("count", "roles"),
    [
        (2, STATISTICS),
        (3, ("?", *STATISTICS)),
        (4, ("gamma", "beta", *STATISTICS)),
        (5, (*STATISTICS, *RENORM)),
        (6, ("?", *STATISTICS, *RENORM)),
        (7, ("gamma", "beta", *STATISTICS, *RENORM)),
    ],
)
def test_the_number_of_variables_tells_their_roles(path, count, roles):
    members = [*map(vector, range(count))]
    if count > 4:  # with renorm the variance is made from the standard deviation behind it
        members[-4] = members[-3] ** 2
    found = layers(write(path, {BN: members}))
    assert found == {BN: {role: i for i, role in enumerate(roles) if role != "?"}}
    assert ("either gamma or beta" in notes(path)) == ("?" in roles)


@pytest.mark.parametrize(
    ("group", "count"),
    [
        ("layers/layer_normalization", 2),
        ("layers/group_normalization_3", 2),
        ("metrics/auc", 4),
        ("layers/dense", 5),
        ("layers/lstm/cell", 3),
    ],
)
def test_vectors_that_need_not_be_of_bn(path, group, count):
    assert layers(write(path, {group: count})) == {}
    assert not check(path).checkpoints[0].unchecked


@pytest.mark.parametrize("group", ["norm", "bn", "head", "vars"])
def test_four_equal_vectors_are_bn_whatever_attribute_holds_them(path, group):
    assert list(layers(write(path, {group: 4}))[group]) == ["gamma", "beta", *STATISTICS]


def test_four_vectors_are_told_as_a_guess_and_a_counter_hides_none(path):
    scalar = np.float32(3)
    write(path, {"gate": [*map(vector, range(4)), scalar], BN: 4})
    assert set(layers(path)) == {"gate", BN}
    assert "gate: taken for batch normalization by the layout alone" in notes(path)
    assert BN not in notes(path)


def test_two_scales_and_shifts_are_no_bn(path):
    """A variance is never below 0, so what is has other values."""
    write(path, {"two_scales": [vector(0), vector(1), vector(2), -vector(3)]})
    assert layers(path) == {}


@pytest.mark.parametrize("name", ["symmetric_layers", "geometric", "autoclave"])
def test_a_metric_is_a_word_of_its_own(path, name):
    assert set(layers(write(path, {name: 4}))) == {name}


def test_an_attribute_called_bn_that_holds_another_norm(path):
    write(path, {"bn1": 2}, {"bn1": "group_normalization_4"})
    assert layers(path) == {}
    write(path, {"norm": 2}, {"norm": "batch_normalization_4"})
    assert list(layers(path)) == ["batch_normalization_4"]


def test_a_bn_of_ones_own_with_a_counter(path):
    members = [vector(0), vector(1), -vector(2), vector(3), np.float32(3)]
    write(path, {"layers/my_batch_norm": members})
    assert layers(path) == {"layers/my_batch_norm": {"moving_mean": 2, "moving_variance": 3}}


def test_a_bn_of_ones_own_whose_roles_nothing_proves(path):
    write(path, {"layers/my_batch_norm": 9, BN: 4})
    assert list(layers(path)) == [BN]
    (group,) = check(path).checkpoints[0].unchecked
    assert group.name == "layers/my_batch_norm"
    assert group.variables == tuple(f"layers/my_batch_norm/vars/{i}" for i in range(9))
    assert "layers/my_batch_norm" in notes(path)


def test_patterns_name_what_nothing_proves(path):
    write(path, {"layers/my_batch_norm": 4})
    patterns = [f"{role}=/vars/{i}$" for role, i in zip(STATISTICS, (3, 2), strict=True)]
    (report,) = check(path, patterns=patterns).checkpoints
    assert not report.unchecked
    (layer,) = report.layers
    assert layer.variables["moving_variance"].name == "layers/my_batch_norm/vars/2"


def test_vectors_of_several_lengths_that_are_called_batch_norm(path):
    write(path, {"layers/my_batch_norm": [vector(0), vector(1, size=5)]})
    assert layers(path) == {}
    assert [one.name for one in check(path).checkpoints[0].unchecked] == ["layers/my_batch_norm"]


def test_the_class_proves_its_order_once(path):
    """A layer whose mean is nowhere below 0 is read as the others of its class are."""
    groups = {
        "layers/my_batch_norm": [vector(0), vector(1), -vector(2), vector(3)],
        "layers/my_batch_norm_1": 4,
        "layers/other_batch_norm": 4,
    }
    assert list(layers(write(path, groups))) == ["layers/my_batch_norm", "layers/my_batch_norm_1"]
    (group,) = check(path).checkpoints[0].unchecked
    assert group.name == "layers/other_batch_norm"


def trained_by_adam(model):
    """An optimizer that has two slots for each of these variables."""
    return [np.int64(7), np.float32(1e-3), *(np.zeros_like(one) for one in model for _ in "mv")]


KERNEL = np.ones((2, 3), "float32")


@pytest.mark.parametrize("called", ["norm", "bn1", "wrapper/layer"])
@pytest.mark.parametrize("count", [2, 3])
def test_slots_prove_what_so_few_vectors_do_not(path, called, count):
    """In Keras's order the last two vectors are the statistics, and nothing trains those."""
    members = [vector(0)] * (count - 2) + [-vector(1), vector(2)]
    model = {"dense": [KERNEL, vector(9)], called: members, "wrapper": 0}
    trained = [KERNEL, vector(9), *members[:-2]]
    write(path, {**model, "optimizer": trained_by_adam(trained)})
    expected = dict(zip(STATISTICS, (count - 2, count - 1), strict=True))
    assert layers(path) == {called: expected}
    write(path, {**model, "optimizer": trained_by_adam([KERNEL, vector(9), *members])})
    assert layers(path) == {}


def test_slots_of_a_network_that_is_frozen_in_part_prove_nothing(path):
    model = {"dense": [KERNEL], "frozen": [KERNEL[:1]], "norm": [-vector(1), vector(2)]}
    write(path, {**model, "optimizer": trained_by_adam([KERNEL])})
    assert layers(path) == {}
    assert [one.name for one in check(path).checkpoints[0].unchecked] == ["norm"]


def test_slots_that_are_fewer_than_the_biases_prove_nothing(path):
    model = {"dense": [KERNEL, vector(9)], "norm": [-vector(1), vector(2)]}
    write(path, {**model, "optimizer": trained_by_adam([KERNEL])})
    assert layers(path) == {}
    assert [one.name for one in check(path).checkpoints[0].unchecked] == ["norm"]


def test_a_file_of_what_may_be_bn_is_no_pass(path, run):
    write(path, {"norm1": 3, "norm2": 3, "dense": [KERNEL]})
    outcome = run("check", path)
    assert outcome.exit_code == 3
    assert "PASS" not in outcome.out
    assert "norm1, norm2" in outcome.out
    assert "norm1, norm2" in run("check", path, "--quiet").out
    assert "norm1/vars/2" in run("list", path, "--verbose").out
    (checkpoint,) = run("check", path, "--format", "json").json["checkpoints"]
    assert [group["name"] for group in checkpoint["unchecked"]] == ["norm1", "norm2"]


def test_what_is_not_checked_is_said_beside_what_passes(path, run):
    write(path, {"norm1": 3, BN: 4})
    for options in ((), ("--quiet",), *(("--format", one) for one in ("concise", "junit"))):
        outcome = run("check", path, *options)
        assert outcome.exit_code == 0
        assert "norm1" in outcome.out, options
    assert "norm1" in run("check", path, "--format", "github").out
    assert "norm1" in run("check", path, "--format", "sarif").out


def test_names_of_models_around_and_names_said_twice(path):
    groups = {"": 0, "layers/sequential": 0, "layers/sequential/layers/batch_normalization": 4}
    names = dict(zip(groups, ("net", "encoder", "bn"), strict=True))
    assert list(layers(write(path, groups, names))) == ["encoder/bn"]
    twice = {"a/batch_normalization": 4, "b/batch_normalization": 4}
    write(path, twice, dict.fromkeys(twice, "bn"))
    assert list(layers(path)) == list(twice)


def test_a_name_that_is_the_group_of_another_layer_is_not_taken(path):
    names = {"batch_normalization_1": "batch_normalization", "batch_normalization": "other"}
    found = layers(write(path, dict.fromkeys(names, 4), names))
    assert set(found) == {"batch_normalization_1", "other"}


def test_layers_of_a_class_come_in_their_order(path):
    write(path, {f"{BN}_{number}": 4 for number in (10, 9, 2, 1)} | {BN: 4})
    assert list(layers(path)) == [BN, *(f"{BN}_{number}" for number in (1, 2, 9, 10))]


def test_shapes_that_are_not_vectors(path):
    write(path, {BN: [vector(n).reshape(1, 1, 1, 3) for n in range(4)]})
    assert len(layers(path)[BN]) == 4


def test_the_count_of_steps(path):
    write(path, {BN: 4, "optimizer": [np.int64(7), vector(0)]})
    assert check(path).checkpoints[0].step == 7
    scaler = {"optimizer": [np.int64(0)], "optimizer/inner_optimizer": [np.int64(8), vector(0)]}
    write(path, {BN: 4} | scaler)
    report = check(path).checkpoints[0]
    assert (report.step, report.variable_count) == (8, 4)


def test_the_steps_of_a_model_within_the_model_are_not_those_of_this_training(path):
    inner = {"layers/sequential/optimizer": [np.int64(80), vector(0)]}
    write(path, {BN: 4, "optimizer": [np.int64(32), vector(0)]} | inner)
    assert check(path).checkpoints[0].step == 32
    write(path, {BN: 4} | inner)  # saved without the outer optimizer
    assert check(path).checkpoints[0].step == 80


def test_an_unbuilt_layer_is_no_fault(path):
    assert layers(write(path, {BN: 0, f"{BN}_1": 4}, {BN: "unused"})) == {
        f"{BN}_1": dict(zip(("gamma", "beta", *STATISTICS), range(4), strict=True))
    }


def refused(path, kind, words):
    with pytest.raises(kind, match=words) as caught:
        layers(path)
    assert str(path.parent) in caught.value.path
    assert check(path).checkpoints[0].error is not None


def test_a_variable_that_is_missing(path):
    with h5py.File(write(path, {BN: 4}), "r+") as file:
        del file[f"{BN}/vars/1"]
    refused(path, Incomplete, "0, 2, 3")


@pytest.mark.parametrize("link", [h5py.SoftLink("/x"), h5py.ExternalLink("other.h5", "/x")])
@pytest.mark.parametrize("place", ["layers/x", f"{BN}/vars/1"])
def test_a_link_is_refused(path, link, place):
    with h5py.File(write(path, {BN: 4}), "r+") as file:
        if place in file:
            del file[place]
        file[place] = link
    refused(path, Unsupported, "link")


def test_groups_that_hold_themselves_end(path):
    with h5py.File(write(path, {BN: 4}), "r+") as file:
        file["layers/again"] = file["layers"]
    assert len(layers(path)) == 1


def test_groups_nested_without_end(path):
    with h5py.File(path, "w") as file:
        file.create_group("/".join("a" * 300))
    refused(path, Corrupt, "deeper")


def test_a_group_in_place_of_a_variable(path):
    with h5py.File(write(path, {BN: 4}), "r+") as file:
        del file[f"{BN}/vars/2"]
        file.create_group(f"{BN}/vars/2")
    refused(path, Corrupt, "dataset")


def test_an_hdf5_file_of_something_else(path):
    with h5py.File(path, "w") as file:
        file["table/rows"] = np.zeros(3)
    refused(path, UnknownFormat, "not written by Keras")


# --- Several files --------------------------------------------------------------------------------

SHARDED = FIXTURES / "keras3_weights_sharded"


@pytest.fixture
def sharded(tmp_path):
    for file in SHARDED.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path / "model.weights.json"


def test_one_shard_stands_for_all(sharded):
    shard = sharded.with_name("model_00001.weights.h5")
    assert layers(shard) == layers(sharded)
    assert "one of the files of" in notes(shard)
    sharded.with_name("model_00007.weights.h5").write_bytes(shard.read_bytes())
    refused(sharded.with_name("model_00007.weights.h5"), Incomplete, "shards")


@pytest.mark.parametrize("number", ["00000", "00001"])
def test_a_shard_alone_does_not_pass_for_a_whole(tmp_path, number):
    """gamma and beta, whose statistics lie in the next shard, look like two statistics."""
    write(tmp_path / "model_00000.weights.h5", {"dense": 2})
    shard = tmp_path / f"model_{number}.weights.h5"
    refused(write(shard, {BN: 2}), Incomplete, "shards")
    assert list(layers(write(shard, {BN: 4}))) == [BN]


def test_epochs_are_numbered_like_shards(tmp_path):
    path = write(tmp_path / "epoch_00010.weights.h5", {BN: 2})
    assert layers(path) == {BN: {"moving_mean": 0, "moving_variance": 1}}


def test_shards_of_a_name_beyond_ascii(sharded):
    """Keras's JSON has the name escaped."""
    text = sharded.read_text()
    for shard in list(sharded.parent.glob("*.h5")):
        shard.rename(shard.with_name(shard.name.replace("model", "modèle")))
        text = text.replace(shard.name, json.dumps(shard.name.replace("model", "modèle"))[1:-1])
    sharded.with_name("modèle.weights.json").write_text(text)
    assert "one of the files of" in notes(sharded.with_name("modèle_00001.weights.h5"))


def test_what_a_map_leaves_out_is_read_all_the_same(sharded):
    found = layers(sharded)
    contents = json.loads(sharded.read_text())
    listed = contents["weight_map"]
    contents["weight_map"] = {key: shard for key, shard in listed.items() if "norm" not in key}
    assert len(contents["weight_map"]) < len(listed)
    sharded.write_text(json.dumps(contents))
    assert layers(sharded) == found


def test_a_shard_that_is_missing(sharded):
    sharded.with_name("model_00001.weights.h5").unlink()
    refused(sharded, Incomplete, "model_00001.weights.h5")


@pytest.mark.parametrize("name", ["../model.weights.h5", "/etc/x.h5", "a\\b.h5", "\0.h5"])
def test_a_map_that_leads_elsewhere(sharded, name):
    sharded.write_text(json.dumps({"weight_map": {f"/{BN}/vars": name}}))
    refused(sharded, Corrupt, "own directory")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("{", Corrupt),
        ("{" * 100_000, Corrupt),
        ("{}", UnknownFormat),
        ('{"weight_map": {"h.0.weight": "model-00001.safetensors"}}', UnknownFormat),
        ('{"weight_map": {"/layers": "model_00000.weights.h5"}}', Corrupt),
        ('{"weight_map": {"/no/vars": "model_00000.weights.h5"}}', Incomplete),
        ('{"weight_map": {"/no/vars": [3]}}', UnknownFormat),
    ],
)
def test_a_map_that_is_none(sharded, text, kind):
    sharded.write_text(text)
    refused(sharded, kind, r"\.weights\.(json|h5): ")


# --- Damage ---------------------------------------------------------------------------------------

SOUND = FIXTURES / "keras3_weights_subclassed" / "model.weights.h5"


def read_all(path):
    with open_checkpoint(str(path)) as checkpoint:
        for name in checkpoint.variables:
            checkpoint.variables[name].read()


def test_a_file_cut_short_anywhere(path):
    sound = SOUND.read_bytes()
    for size in [*range(0, 100, 7), *range(100, len(sound), 997), len(sound) - 1]:
        path.write_bytes(sound[:size])
        with pytest.raises(ReadProblem):
            layers(path)


@USES_FILES
@given(
    changes=st.lists(
        st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), min_size=1, max_size=3
    )
)
def test_damage_anywhere_is_read_or_refused(path, changes):
    damaged = bytearray(SOUND.read_bytes())
    for where, byte in changes:
        damaged[where % len(damaged)] = byte
    path.write_bytes(damaged)
    with contextlib.suppress(ReadProblem):
        read_all(path)


@pytest.mark.parametrize(("at", "byte"), [(8, 255), (9, 17), (16 + 8, 255), (120, 255), (144, 0)])
def test_a_damaged_heap_of_names_ends(path, at, byte):
    """Over such a heap HDF5 itself runs for ever."""
    damaged = bytearray(SOUND.read_bytes())
    damaged[damaged.index(b"GCOL") + at] = byte
    path.write_bytes(damaged)
    with contextlib.suppress(ReadProblem):
        layers(path)
