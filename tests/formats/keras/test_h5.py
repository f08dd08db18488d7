"""The HDF5 reader: files written by h5py and by Keras itself, and files made to do harm."""

from __future__ import annotations

import contextlib
import json
import os
import struct

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bninspect import check, find_layers, list_layers, open_checkpoint
from bninspect.errors import Corrupt, Incomplete, ReadProblem, UnknownFormat, Unsupported
from bninspect.model.roles import ROLES
from tests.support.readers import assert_refused
from tests.support.work import work_of

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

VALUES = {
    "gamma": [1.5, 0.5, 1.0],
    "beta": [0.25, -0.25, 0.0],
    "moving_mean": [0.1, -7.25, 1e-3],
    "moving_variance": [0.3, 2.5, 1e3],
}
SEQUENTIAL = {"class_name": "Sequential", "config": {"layers": []}}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.h5"


def fixed(names):
    """Names as strings of one length, kept in the header itself."""
    return np.array([name.encode() for name in names])


def write(path, layers, *, prefix="", names=fixed, config=None, version=None, **options):
    """A Keras file: `layers` is layer → weight → values; `options` are those of each dataset."""
    with h5py.File(path, "w") as file:
        group = file.create_group(prefix) if prefix else file
        group.attrs["layer_names"] = names(layers)
        for layer, weights in layers.items():
            below = group.create_group(layer)
            below.attrs["weight_names"] = names(weights) if weights else np.array([], "S1")
            for name, values in weights.items():
                below.create_dataset(name, data=values, **options)
        if config is not None:
            file.attrs["model_config"] = config
        if version is not None:
            file.attrs["keras_version"] = version
    return path


def members(scope, suffix=":0", dtype="float32"):
    return {f"{scope}/{role}{suffix}": np.array(VALUES[role], dtype) for role in ROLES}


def one_layer(path, **options):
    return write(path, {"conv": {}, "bn": members("bn")}, **options)


def read(path):
    """Layer → role → values of everything found."""
    with open_checkpoint(str(path)) as checkpoint:
        return {
            layer.name: {role: variable.read() for role, variable in layer.variables.items()}
            for layer in find_layers(checkpoint)
        }


def assert_values(found, dtype="float32"):
    assert list(found) == list(ROLES)
    for role, values in found.items():
        expected = np.array(VALUES[role], dtype)
        assert values.dtype == expected.dtype
        assert values.tobytes() == expected.tobytes()


def read_all(path):
    """Open a file and read whatever it names."""
    with open_checkpoint(str(path)) as checkpoint:
        for variable in checkpoint.variables.values():
            # HDF5 has no checksums of its own: after damage these may be wrong values.
            assert variable.read().shape == variable.shape


def refused(path, kind, *words):
    """Assert that `path` is refused as `kind` when it is opened or read, in words of its own."""
    problem = assert_refused(lambda: read(path), kind, path, *words)
    assert problem.hint.endswith(".")
    [report] = check(path).checkpoints
    assert type(report.error) is kind
    return problem


# --- Files as they should be ----------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "model_weights"])
def test_whole_models_and_weights_alone(path, prefix):
    with open_checkpoint(str(one_layer(path, prefix=prefix))) as checkpoint:
        assert checkpoint.format == "keras-h5"
        assert checkpoint.resolved == checkpoint.path == str(path)
        assert checkpoint.in_order
        assert checkpoint.keras_layers is None
        expected = [f"{prefix}/bn/bn/{role}:0".lstrip("/") for role in ROLES]
        assert list(checkpoint.variables) == expected
        assert len(checkpoint.variables) == 4
        assert "other" not in checkpoint.variables
        assert checkpoint.variables
        for name, variable in checkpoint.variables.items():
            assert (variable.name, variable.shape, variable.dtype) == (name, (3,), "float32")
        assert len(checkpoint.optimizer) == 0
    assert list(read(path)) == ["bn"]
    assert_values(read(path)["bn"])


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("options", [{}, {"compression": "gzip", "shuffle": True}], ids=str)
def test_types_and_compression(path, dtype, options):
    write(path, {"bn": members("bn", dtype=dtype)}, **options)
    assert_values(read(path)["bn"], dtype)
    [report] = check(path).checkpoints
    assert report.error is None
    assert [layer.dtype for layer in report.layers] == [dtype]


def test_numbers_of_a_big_endian_machine(path):
    write(path, {"bn": members("bn", dtype=">f4")})
    [report] = check(path).checkpoints
    assert [(layer.name, layer.dtype) for layer in report.layers] == [("bn", "float32")]
    assert report.layers[0].values["moving_variance"].array.tolist() == (
        np.array(VALUES["moving_variance"], "float32").tolist()
    )
    stuck = {f"bn/{r}": np.full(3, float(r == "moving_variance"), ">f4") for r in ROLES[2:]}
    write(path, {"bn": stuck})
    assert [finding.rule.code for finding in check(path).findings] == ["BN101"]


def test_numbers_wider_than_any_framework_has(path):
    write(path, {"bn": members("bn", dtype=np.longdouble)})
    [report] = check(path).checkpoints  # an answer of either kind, no exception
    assert report.error is None or isinstance(report.error, Unsupported)


STRINGS = {
    "fixed": fixed,
    "bytes": lambda names: [name.encode() for name in names],
    "str": list,
    "objects": lambda names: np.array(list(names), dtype=h5py.string_dtype()),
}


@pytest.mark.parametrize("names", STRINGS.values(), ids=STRINGS)
def test_names_of_any_kind_of_string(path, names):
    assert_values(read(one_layer(path, names=names))["bn"])


def test_names_beyond_ascii(path):
    def utf8(names):
        return np.array([name.encode() for name in names])

    write(path, {"schön/层": members("層")}, names=utf8)
    assert list(read(path)) == ["schön/层/層"]


def test_keras_1_names(path):
    def weights(scope, suffix):
        leaves = dict(zip(ROLES, ("gamma", "beta", "running_mean", "running_std"), strict=True))
        return {
            f"{scope}_{leaf}{suffix}": np.array(VALUES[role], "float32")
            for role, leaf in leaves.items()
        }

    write(
        path,
        {
            "bn_0_freq": weights("bn_0_freq", ""),
            "batchnormalization_10": weights("batchnormalization_10", "_1:0"),
            "batchnormalization_2": weights("batchnormalization_2", ":0"),
            "ConvBNElu_5layer": {
                **weights("batchnormalization_7", "_1:0"),
                **weights("batchnormalization_8", "_1:0"),
            },
        },
    )
    found = read(path)
    assert list(found) == [
        "bn_0_freq",
        "batchnormalization_10",
        "batchnormalization_2",
        "ConvBNElu_5layer/batchnormalization_7",
        "ConvBNElu_5layer/batchnormalization_8",
    ]
    for layer in found.values():
        assert_values(layer)


def test_groups_within_groups(path):
    write(
        path,
        {"decoder": {**members("batch_normalization_3"), **members("inner/deep/bn")}},
        prefix="model_weights",
    )
    found = read(path)
    assert list(found) == ["decoder/batch_normalization_3", "decoder/inner/deep/bn"]
    for layer in found.values():
        assert_values(layer)


def cut(attributes, name, names):
    """Store names as Keras does where they are too many for one attribute."""
    del attributes[name]
    for index, part in enumerate(np.array_split(names, 3)):
        attributes[f"{name}{index}"] = part


def test_names_cut_over_several_attributes(path):
    layers = {f"bn_{index}": members(f"bn_{index}") for index in range(20)}
    layers["bn_0"] = {f"w{index}": np.zeros(1) for index in range(5)} | members("bn_0")
    write(path, layers)
    with h5py.File(path, "r+") as file:
        cut(file.attrs, "layer_names", fixed(layers))
        cut(file["bn_0"].attrs, "weight_names", fixed(layers["bn_0"]))
    found = read(path)
    assert list(found) == [f"bn_{index}" for index in range(20)]
    for layer in found.values():
        assert_values(layer)


def test_no_layers_is_no_fault(path):
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = np.array([], "S1")
    [report] = check(path).checkpoints
    assert (report.error, report.layers, report.variable_count) == (None, (), 0)


def test_the_weights_of_the_optimizer_are_set_apart(path):
    one_layer(path, prefix="model_weights")
    with h5py.File(path, "r+") as file:
        group = file.create_group("optimizer_weights")
        stored = {"Adam/iter:0": np.int64(37), "Adam/m/bn/gamma:0": np.zeros(3, "float32")}
        group.attrs["weight_names"] = fixed(stored)
        for name, values in stored.items():
            group[name] = values
    with open_checkpoint(str(path)) as checkpoint:
        assert list(checkpoint.optimizer) == [f"optimizer_weights/{name}" for name in stored]
        assert len(checkpoint.variables) == 4
    assert check(path).checkpoints[0].step == 37


def test_scalars_and_empty_weights(path):
    write(path, {"x": {"scalar": np.float32(3.5), "empty": np.zeros((0, 4), "float32")}})
    with open_checkpoint(str(path)) as checkpoint:
        scalar, empty = checkpoint.variables["x/scalar"], checkpoint.variables["x/empty"]
        assert (scalar.shape, float(scalar.read())) == ((), 3.5)
        assert (empty.shape, empty.size, empty.read().shape) == ((0, 4), 0, (0, 4))


def test_a_value_that_is_filled_in_and_not_stored(path):
    # HDF5 does not store chunks that hold the fill value alone.
    write(path, {"bn": {}})
    with h5py.File(path, "r+") as file:
        file["bn"].attrs["weight_names"] = fixed(f"bn/{role}" for role in ROLES)
        for role in ROLES:
            file["bn"].create_dataset(
                f"bn/{role}", (3,), "float32", chunks=(3,), fillvalue=VALUES[role][0]
            )
    assert read(path)["bn"]["moving_variance"].tolist() == [np.float32(0.3)] * 3


def test_a_well_compressed_weight_is_read(path):
    ones = np.ones(4_000_000, "float32")
    write(path, {"bn": {"bn/moving_mean": ones, "bn/moving_variance": ones}}, compression="gzip")
    assert os.path.getsize(path) < ones.nbytes / 100
    assert (read(path)["bn"]["moving_mean"] == ones).all()


@pytest.mark.parametrize("kind", [str, bytes, np.bytes_])
def test_the_stored_configuration(path, kind):
    layer = {"class_name": "BatchNormalization", "config": {"name": "bn", "momentum": 0.75}}
    layer["inbound_nodes"] = [[["x", 0, 0, {"training": False}]]]
    text = json.dumps({"class_name": "Functional", "config": {"layers": [layer]}})
    stored = text if kind is str else kind(text.encode())
    for version, inference_only in (("2.9.0", True), ("3.1.0", False)):
        one_layer(path, config=stored, version=version if kind is str else kind(version.encode()))
        [found] = check(path).checkpoints[0].layers
        assert (found.momentum, found.trainable) == (0.75, True)
        assert found.keras.inference_only is inference_only


@pytest.mark.parametrize("name", ["model.h5", "model"])
@pytest.mark.parametrize("size", [512, 4096])
def test_a_user_block_before_the_file(tmp_path, name, size):
    """Bytes of another program, as MATLAB puts them there, made by HDF5 or put before a file."""
    path = tmp_path / name
    data = one_layer(path).read_bytes()
    path.write_bytes(b"for people".ljust(size) + data)
    assert_values(read(path)["bn"])
    with h5py.File(path) as file:
        assert file["bn/bn/beta:0"].shape == (3,)
    path.write_bytes(b"for people".ljust(size + 1) + data)
    refused(path, UnknownFormat)


def test_the_file_is_closed(path):
    one_layer(path)
    with open_checkpoint(str(path)) as checkpoint:
        variable = checkpoint.variables["bn/bn/gamma:0"]
    with pytest.raises(ReadProblem):
        variable.read()
    with h5py.File(path, "r+"):  # HDF5 would refuse, were it still open for reading
        pass


@pytest.mark.parametrize("roles", [(), ("gamma", "beta"), ("gamma", "beta", "moving_mean")])
@pytest.mark.parametrize("name", ["bn", "keras1"])
def test_statistics_that_no_attribute_lists(path, roles, name):
    names = {"bn": "bn/{}:0", "keras1": "bn_{}"}[name]
    weights = {names.format(role): np.array(VALUES[role], "f4") for role in ROLES}
    if name == "keras1":
        renamed = {"moving_mean": "running_mean", "moving_variance": "running_std"}
        weights = {renamed.get(k[3:], k[3:]): v for k, v in weights.items()}
        weights = {f"bn_{k}": v for k, v in weights.items()}
    write(path, {"dense": {"kernel:0": np.ones((2, 2))}, "bn": weights})
    whole = read(path)
    assert not check(path).checkpoints[0].notes
    with h5py.File(path, "r+") as file:
        kept = [one for one in weights if any(role in one for role in roles)]
        del file["bn"].attrs["weight_names"]
        file["bn"].attrs["weight_names"] = fixed(kept) if kept else np.array([], "S1")
    found = read(path)
    assert [*found] == [*whole] == ["bn"]
    np.testing.assert_array_equal(found["bn"]["moving_mean"], whole["bn"]["moving_mean"])
    (note,) = check(path).checkpoints[0].notes
    assert "does not load what is not listed" in note


STILL = {
    "gamma": np.array([1.5, 0.5, 1.25]),
    "moving_mean": np.zeros(3),
    "moving_variance": np.ones(3),
}


@pytest.mark.parametrize("is_compiled", [True, False])
@pytest.mark.parametrize("class_name", ["Functional", "own>GAN"])
def test_what_the_model_says_stands_among_the_evidence(path, class_name, is_compiled):
    weights = {f"bn/{role}:0": values.astype("f4") for role, values in STILL.items()}
    config = json.dumps({"class_name": class_name, "config": {"layers": []}})
    write(path, {"bn": weights}, config=config, version="2.15.0")
    if is_compiled:
        with h5py.File(path, "r+") as file:
            file.attrs["training_config"] = "{}"
    (finding,) = check(path).findings
    evidence = "; ".join(finding.evidence)
    assert ("not compiled" in evidence) == (not is_compiled)
    assert ("GAN" in evidence) == ("GAN" in class_name)


def test_another_normalization_lacks_no_statistics(path):
    write(path, {"ln": {"ln/gamma:0": np.ones(3), "ln/beta:0": np.ones(3)}, "bn": members("bn")})
    assert list(read(path)) == ["bn"]
    assert not check(path).checkpoints[0].notes


# --- Files of Keras itself ------------------------------------------------------------------------


def trained(model, channels):
    """Let the averages of a Keras model move, each channel to numbers of its own."""
    rng = np.random.default_rng(7)
    for _ in range(3):
        batch = rng.normal(rng.normal(size=channels) * 3, 2.0, (16, channels))
        model(batch.astype("float32"), training=True)
    return model


def bn_layers(model, outermost=None):
    """Name → BN layer, for every BN layer of a Keras model and of the models within.

    Keras stores a weight by its own path (`bn/gamma`, in a Sequential `model/bn/gamma`) in the
    group of the outermost layer; the name of that is not said twice.
    """
    import keras

    found = {}
    for layer in model.layers:
        group = outermost or layer.name
        if isinstance(layer, keras.layers.BatchNormalization):
            path = layer.moving_mean.path.removesuffix("/moving_mean")
            found[path if path.split("/")[0] == group else f"{group}/{path}"] = layer
        elif isinstance(layer, keras.Model):
            found |= bn_layers(layer, group)
    return found


def assert_like_keras(path, model):
    """Every member of every BN layer is the one that Keras has, bit by bit, and none is missing."""
    found = read(path)
    expected = bn_layers(model)
    assert set(found) == set(expected)
    for name, layer in expected.items():
        ours = found[name]
        stored = [role for role in ROLES if role in ours]
        assert len(stored) == len(layer.get_weights())
        for role, theirs in zip(stored, layer.get_weights(), strict=True):
            assert ours[role].dtype == theirs.dtype
            assert ours[role].tobytes() == theirs.tobytes()
    statistics = [w.numpy() for w in model.weights if "moving_" in w.path]
    assert len(statistics) == 2 * len(found)
    assert all((values != 0).all() and (values != 1).all() for values in statistics)
    by_value = sorted(ours[role].tobytes() for ours in found.values() for role in ROLES[2:])
    assert by_value == sorted(values.tobytes() for values in statistics)


def functional_model():
    from keras import Input, Model, layers

    inputs = Input((5,))
    x = layers.BatchNormalization(name="zz", momentum=0.5)(inputs)
    x = layers.Dense(5, name="dense")(x)
    x = layers.BatchNormalization(name="aa", scale=False, momentum=0.75)(x)
    x = layers.LayerNormalization()(x)
    x = layers.BatchNormalization(center=False, scale=False, epsilon=0.5)(x)
    return trained(Model(inputs, x), 5)


def nested_model():
    from keras import Input, Model, Sequential, layers

    def part(name, *inner):
        # Models within share layer names on purpose.
        inputs = Input((4,))
        x = layers.BatchNormalization(name="bn", momentum=0.5)(inputs)
        for model in inner:
            x = model(x)
        return Model(inputs, x, name=name)

    low = Sequential([Input((4,)), layers.BatchNormalization(name="low_bn")], name="low")
    frozen = part("frozen")
    inputs = Input((4,))
    x = part("second", low)(part("first")(frozen(inputs)))
    model = trained(Model(inputs, layers.BatchNormalization(name="own")(x)), 4)
    frozen.trainable = False
    return model


@pytest.mark.framework
def test_a_functional_model_saved_by_keras(path):
    model = functional_model()
    model.compile("adam", "mse")
    model.fit(np.ones((4, 5), "float32"), np.zeros((4, 5), "float32"), batch_size=2, verbose=0)
    model.save(path)
    assert_like_keras(path, model)
    [report] = check(path).checkpoints
    *_, auto_named = [layer.name for layer in report.layers]
    assert [(layer.name, layer.momentum, layer.epsilon) for layer in report.layers] == [
        ("zz", 0.5, 1e-3),
        ("aa", 0.75, 1e-3),
        (auto_named, 0.99, 0.5),
    ]
    with h5py.File(path) as file:
        iterations = [name for name in file["optimizer_weights/adam"] if "iteration" in name]
    assert iterations
    assert report.step == 2


@pytest.mark.framework
def test_a_nested_model_saved_by_keras(path):
    model = nested_model()
    model.save(path)
    assert_like_keras(path, model)
    [report] = check(path).checkpoints
    assert [(layer.name, layer.momentum, layer.trainable) for layer in report.layers] == [
        ("frozen/bn", 0.5, False),
        ("first/bn", 0.5, True),
        ("second/bn", 0.5, True),
        ("second/low/low_bn", 0.99, True),
        ("own", 0.99, True),
    ]


@pytest.mark.framework
def test_a_model_whose_names_keras_itself_cuts(path):
    from keras import Input, Sequential, layers

    inner = Sequential(
        [
            Input((2,)),
            *(layers.BatchNormalization(name=f"{'long' * 60}{index}") for index in range(70)),
        ],
        name="inner",
    )
    activations = (layers.Activation("linear", name=f"{'name' * 300}{i}") for i in range(60))
    model = trained(Sequential([Input((2,)), *activations, inner]), 2)
    model.save(path)
    with h5py.File(path) as file:
        weights = file["model_weights"]
        assert {"layer_names0", "layer_names1"} <= set(weights.attrs)
        assert {"weight_names0", "weight_names1"} <= set(weights["inner"].attrs)
    assert_like_keras(path, model)
    names = [f"inner/{'long' * 60}{index}" for index in range(70)]
    assert list(read(path)) == names


# --- Files that lead elsewhere --------------------------------------------------------------------


@pytest.fixture
def elsewhere(tmp_path):
    """Another file with just the values that are asked for."""
    return write(tmp_path / "elsewhere.h5", {"bn": members("bn"), "bn2": members("bn2")})


def replaced(path, name, by):
    with h5py.File(path, "r+") as file:
        del file[name]
        if isinstance(by, (h5py.SoftLink, h5py.ExternalLink)):
            file[name] = by
        else:
            by(file, name)


@pytest.mark.parametrize("name", ["bn", "bn/bn", "bn/bn/moving_mean:0"])
def test_an_external_link_is_refused(path, elsewhere, name):
    replaced(one_layer(path), name, h5py.ExternalLink(str(elsewhere), name))
    with h5py.File(path) as file:
        assert file["bn/bn/moving_mean:0"].shape == (3,)  # the library itself would follow
    refused(path, Unsupported, "link", name)


def test_where_a_link_leads_is_said(path, elsewhere):
    """That it leads nowhere, too; a path without / begins at the group of the link."""
    links = {
        h5py.SoftLink("/nowhere/bn"): "bn/bn is a link to /nowhere/bn, which is not there",
        h5py.SoftLink("nowhere"): "bn/bn is a link to nowhere, which is not there",
        h5py.SoftLink("/bn/other"): "bn/bn is a link to /bn/other",
        h5py.SoftLink("other"): "bn/bn is a link to other",
        h5py.ExternalLink(
            "elsewhere.h5", "/bn"
        ): "bn/bn is a link to /bn in another file, elsewhere.h5",
    }
    for link, message in links.items():
        replaced(one_layer(path), "bn/bn", link)
        with h5py.File(path, "r+") as file:
            file.create_group("bn/other")
        assert refused(path, Unsupported).message == message


@pytest.mark.parametrize("name", ["bn", "bn/bn", "bn/bn/moving_mean:0"])
def test_a_soft_link_is_refused(path, name):
    write(path, {"bn": members("bn"), "bn2": members("bn") | members("bn2")})
    replaced(path, name, h5py.SoftLink(f"/{name.replace('bn', 'bn2', 1)}"))
    with h5py.File(path) as file:
        assert file["bn/bn/moving_mean:0"].shape == (3,)
    refused(path, Unsupported, "link", name)


@pytest.mark.parametrize("name", ["model_weights", "optimizer_weights"])
def test_a_link_in_place_of_a_main_group_is_refused(path, elsewhere, name):
    one_layer(path, prefix="model_weights")
    with h5py.File(path, "r+") as file:
        if name in file:
            del file[name]
        file[name] = h5py.ExternalLink(str(elsewhere), "/")
    refused(path, Unsupported, "link", name)


def test_external_storage_is_refused(path, tmp_path):
    raw = tmp_path / "values.bin"
    raw.write_bytes(np.array(VALUES["moving_mean"], "float32").tobytes())

    def external(file, name):
        file.create_dataset(name, (3,), "float32", external=[(str(raw), 0, 12)])

    replaced(one_layer(path), "bn/bn/moving_mean:0", external)
    with h5py.File(path) as file:
        assert file["bn/bn/moving_mean:0"][0] == np.float32(0.1)
    refused(path, Unsupported, "another file")


def test_a_virtual_dataset_is_refused(path, elsewhere):
    def virtual(file, name):
        layout = h5py.VirtualLayout((3,), "float32")
        layout[:] = h5py.VirtualSource(str(elsewhere), name, (3,))
        file.create_virtual_dataset(name, layout)

    replaced(one_layer(path), "bn/bn/moving_mean:0", virtual)
    with h5py.File(path) as file:
        assert file["bn/bn/moving_mean:0"][0] == np.float32(0.1)
    refused(path, Unsupported, "another file")


# --- Files that are not what they should be -------------------------------------------------------


def test_a_text_file_is_no_hdf5(path):
    path.write_text("<html>404</html>")
    refused(path, UnknownFormat, "text")


def test_an_hdf5_file_without_layers_is_not_of_keras(path):
    with h5py.File(path, "w") as file:
        file["bn/moving_mean"] = np.zeros(3)
    refused(path, UnknownFormat, "not written by Keras")


def test_model_weights_without_layers_are_not_of_keras(path):
    with h5py.File(path, "w") as file:
        file.create_group("model_weights")
        file.attrs["layer_names"] = fixed(["bn"])
    refused(path, UnknownFormat, "not written by Keras")


@pytest.mark.parametrize("name", ["bn", "bn/bn", "bn/bn/moving_mean:0"])
def test_something_named_that_is_missing(path, name):
    with h5py.File(one_layer(path), "r+") as file:
        del file[name]
    refused(path, Corrupt, "missing", name)


@pytest.mark.parametrize("names", ["layer_names", "weight_names"])
@pytest.mark.parametrize("wrong", ["", ".", "..", "/", "bn//bn", "no", "bn\n", "bn/bn/bn/bn/bn"])
def test_a_name_that_leads_nowhere(path, names, wrong):
    with h5py.File(one_layer(path), "r+") as file:
        owner = file if names == "layer_names" else file["bn"]
        owner.attrs[names] = [*owner.attrs[names], wrong.encode()]
    with pytest.raises(Corrupt):
        read_all(path)


def test_a_group_where_values_should_be(path):
    replaced(one_layer(path), "bn/bn/beta:0", lambda file, name: file.create_group(name))
    refused(path, Corrupt, "bn/bn/beta:0 should be a dataset")


def test_values_where_a_group_should_be(path):
    replaced(one_layer(path), "bn", lambda file, name: file.create_dataset(name, data=[1.0]))
    refused(path, Corrupt, "bn should be a group")


def test_a_type_where_values_should_be(path):
    def named_type(file, name):
        file[name] = np.dtype("float32")

    replaced(one_layer(path), "bn/bn/beta:0", named_type)
    refused(path, Corrupt, "bn/bn/beta:0 should be a dataset")


def test_values_without_any(path):
    replaced(
        one_layer(path),
        "bn/bn/beta:0",
        lambda file, name: file.create_dataset(name, data=h5py.Empty("float32")),
    )
    refused(path, Corrupt, "bn/bn/beta:0 should be a dataset")


@pytest.mark.parametrize(
    "values",
    [
        np.array([b"a", b"b", b"c"]),
        np.array(["a", "b", "c"], dtype=h5py.string_dtype()),
        np.zeros(3, [("x", "f4"), ("y", "f4")]),
        np.zeros(3, "complex64"),
        np.zeros(3, "V4"),
    ],
    ids=lambda values: str(values.dtype),
)
def test_weights_that_are_no_numbers(path, values):
    replaced(
        one_layer(path),
        "bn/bn/moving_mean:0",
        lambda file, name: file.create_dataset(name, data=values),
    )
    with open_checkpoint(str(path)) as checkpoint:
        variable = checkpoint.variables["bn/bn/moving_mean:0"]
        with pytest.raises(Unsupported, match="no numbers"):
            variable.read()
    # The layer must not pass for want of statistics that can be read.
    [item] = check(path).checkpoints
    assert isinstance(item.error, Unsupported)


@pytest.mark.parametrize("names", ["layer_names", "weight_names"])
@pytest.mark.parametrize(
    "wrong",
    [7, 0.5, True, [1, 2], [[b"bn"]], b"bn", "bn", h5py.Empty("S1"), [np.nan]],
    ids=repr,
)
def test_names_of_a_wrong_type(path, names, wrong):
    with h5py.File(one_layer(path), "r+") as file:
        (file if names == "layer_names" else file["bn"]).attrs[names] = wrong
    with pytest.raises(Corrupt):
        read_all(path)


DEEP = 10_000
NO_CONFIGURATIONS = {
    "no JSON": "{",
    "empty": "",
    "no text": b"\xff\xfe\x00\x01",
    "lists": "[" * DEEP + "]" * DEEP,
    "objects": '{"config":' * DEEP + "1" + "}" * DEEP,
    "models": '{"config":{"layers":[' * DEEP + "]}}" * DEEP,
    "a hundred and more models": '{"config":{"layers":[' * 110 + "]}}" * 110,
    "a number": 7,
    "numbers": [1.0, 2.0],
    "nothing": h5py.Empty("S1"),
    "a number of more digits than Python takes": "9" * 5000,
}


@pytest.mark.parametrize("config", NO_CONFIGURATIONS.values(), ids=NO_CONFIGURATIONS)
def test_a_configuration_that_is_none(path, config):
    if isinstance(config, bytes):
        config = np.bytes_(config)
    # Attributes beyond 64 KB need a newer layout of the file.
    with h5py.File(path, "w", libver="latest") as file:
        file.attrs["layer_names"] = np.array([], "S1")
        file.attrs["model_config"] = config
    refused(path, Corrupt)


@pytest.mark.parametrize(
    "config",
    ["null", "7", '"bn"', "[]", "[[]]", "{}", '{"config": 7}', '{"config": {"layers": 7}}',
     '{"config": {"layers": [7, null, [], "x", {"config": null}]}}', "NaN"],
)  # fmt: skip
def test_a_configuration_that_says_nothing(path, config):
    one_layer(path, config=config)
    [report] = check(path).checkpoints
    assert report.error is None
    assert [(layer.name, layer.momentum) for layer in report.layers] == [("bn", None)]


def test_numbers_in_the_configuration_that_no_float_holds(path):
    config = {"name": "bn", "momentum": 10**400, "epsilon": 10**400}
    model = {"config": {"layers": [{"class_name": "BatchNormalization", "config": config}]}}
    one_layer(path, config=json.dumps(model))
    [report] = check(path).checkpoints
    assert report.error is None
    assert [layer.momentum for layer in report.layers] == [None]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("dtype", "value"),
    [("float16", 1e10), ("float32", 1e300), ("int32", 1e300), ("int32", 0.5), ("uint8", -1)],
)
def test_an_initial_value_that_the_type_cannot_hold(path, dtype, value):
    initializer = {"class_name": "Constant", "config": {"value": value}}
    config = {"name": "bn", "momentum": 0.9, "moving_variance_initializer": initializer}
    model = {"config": {"layers": [{"class_name": "BatchNormalization", "config": config}]}}
    weights = {"bn/moving_mean": np.zeros(3, dtype), "bn/moving_variance": np.zeros(3, dtype)}
    write(path, {"bn": weights}, config=json.dumps(model))
    [report] = check(path).checkpoints
    assert report.error is None
    codes = [finding.rule.code for finding in report.findings]
    # The variances are 0, which none of these values is in any type.
    assert "BN101" not in codes
    assert report.layers[0].values["moving_variance"].at_initial == 0


@pytest.mark.parametrize(
    ("shape", "chunks"),
    [
        ((2**42,), (1024,)),
        ((2**62,), (1024,)),
        ((2**33, 2**31), (1, 1)),
        ((2**40, 2**40), (1, 1)),
        ((1 << 18) + 1, (1024,)),
    ],
)
def test_values_that_are_claimed_and_not_stored(path, shape, chunks):
    replaced(
        one_layer(path),
        "bn/bn/moving_mean:0",
        lambda file, name: file.create_dataset(name, shape, "float32", chunks=chunks),
    )
    with pytest.raises(Corrupt, match=r"claims .* bytes, but 0 are stored"):
        read(path)
    assert work_of(lambda: not_written(path), most=20_000)
    assert list_layers(path).checkpoints[0].layers[0].values.keys() == set(ROLES) - {"moving_mean"}


def not_written(path):
    """Check a file whose moving_mean was never written: nothing is read for it."""
    [report] = check(path).checkpoints
    assert [finding.rule.code for finding in report.findings] == ["BN203", "BN204"]


def test_a_little_may_be_claimed_and_not_stored(path):
    def filled_in(file, name):
        file.create_dataset(name, (1 << 18,), "float32", chunks=(1024,))

    replaced(one_layer(path), "bn/bn/moving_mean:0", filled_in)
    assert not read(path)["bn"]["moving_mean"].any()


def test_values_that_are_claimed_and_hardly_stored(path):
    def sparse(file, name):
        dataset = file.create_dataset(name, (2**40,), "float32", chunks=(1024,))
        dataset[:10] = 1.0

    replaced(one_layer(path), "bn/bn/moving_mean:0", sparse)
    with pytest.raises(Corrupt, match="claims 4398046511104 bytes, but 4096 are stored"):
        read(path)
    not_written(path)


# --- Damage ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A sound file as bytes; its configuration has a variable length, as Keras writes it."""
    path = tmp_path_factory.mktemp("sound") / "sound.h5"
    one_layer(path, prefix="model_weights", names=STRINGS["objects"], config=json.dumps(SEQUENTIAL))
    return path.read_bytes()


def test_a_file_cut_short_anywhere(path, sound):
    path.write_bytes(sound)
    assert_values(read(path)["bn"])
    for size in [*range(100), *range(100, len(sound), 53), len(sound) - 1]:
        path.write_bytes(sound[:size])
        with pytest.raises(ReadProblem) as caught:
            read(path)
        kinds = (UnknownFormat,) if size < 8 else (Corrupt, Incomplete)
        assert isinstance(caught.value, kinds), size


def with_bytes(data, changes):
    damaged = bytearray(data)
    for where, byte in changes:
        damaged[where % len(damaged)] = byte
    return bytes(damaged)


CHANGES = st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), min_size=1, max_size=3)
USES_FILES = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, derandomize=True
)


@USES_FILES
@given(changes=CHANGES)
def test_damage_anywhere_is_read_or_refused(path, sound, changes):
    path.write_bytes(with_bytes(sound, changes))
    with contextlib.suppress(ReadProblem):
        read_all(path)
    assert len(check(path).checkpoints) == 1


@pytest.fixture(scope="module")
def with_checksums(tmp_path_factory):
    """A sound file whose values carry checksums, as bytes, and where the values lie."""
    path = tmp_path_factory.mktemp("sound") / "checksums.h5"
    one_layer(path, fletcher32=True, compression="gzip")
    with h5py.File(path) as file:
        chunks = [file[f"bn/bn/{role}:0"].id.get_chunk_info(0) for role in ROLES]
    places = [chunk.byte_offset + i for chunk in chunks for i in range(chunk.size)]
    return path.read_bytes(), places


@USES_FILES
@given(data=st.data())
def test_damage_that_a_checksum_shows_is_refused(path, with_checksums, data):
    sound, places = with_checksums
    where = data.draw(st.sampled_from(places))
    byte = data.draw(st.integers(0, 255).filter(lambda byte: byte != sound[where]))
    path.write_bytes(with_bytes(sound, [(where, byte)]))
    try:
        found = read(path)
    except Corrupt:
        return
    assert_values(found["bn"])


def test_a_size_that_is_damaged_allocates_nothing(path):
    # Names of a fixed length, the number of them changed to 2^40 in the header.
    count = 1234
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = fixed(["bn"] * count)
    sound = path.read_bytes()
    assert struct.pack("<Q", count) in sound
    path.write_bytes(sound.replace(struct.pack("<Q", count), struct.pack("<Q", 1 << 40)))
    refused(path, Corrupt)


@pytest.mark.parametrize("names", ["layer_names", "weight_names"])
def test_names_of_variable_length_that_are_no_text(path, names):
    """Reading such an attribute crashes the library; one flipped byte turns text into it."""
    with h5py.File(one_layer(path), "r+") as file:
        owner = file if names == "layer_names" else file["bn"]
        del owner.attrs[names]
        sequences = np.empty(1, object)
        sequences[0] = np.arange(3, dtype=np.uint8)
        owner.attrs.create(names, sequences, dtype=h5py.vlen_dtype(np.uint8))
    (report,) = check(path).checkpoints
    assert isinstance(report.error, Corrupt)


@pytest.mark.parametrize("names", ["layer_names", "weight_names"])
def test_names_that_are_missing_are_no_empty_list(path, names):
    with h5py.File(one_layer(path), "r+") as file:
        del (file if names == "layer_names" else file["bn"]).attrs[names]
    (report,) = check(path).checkpoints
    assert report.error is not None
