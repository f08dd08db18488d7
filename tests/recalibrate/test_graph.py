"""Recalibration of TensorFlow 1 checkpoints, by the graph beside them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bninspect
from bninspect.errors import ReadProblem, RecalibrationRefused, UsageProblem
from bninspect.recalibrate.engines.opening import require_runnable
from bninspect.recalibrate.files import Options, recalibrate_file
from tests.conftest import FIXTURES, load_fixture

pytestmark = pytest.mark.framework

FORMS = ("fused", "unfused", "placeholder", "slim", "handwritten", "ema", "iterator", "towers")
OPTIMIZERS = ("descent", "momentum", "adam", "rmsprop")


@pytest.fixture(scope="module")
def samples() -> Any:
    """Give the function that the trainings of the fixtures took their samples from."""
    folder = str(FIXTURES / "make")
    sys.path.insert(0, folder)
    try:
        from recalibration_samples import samples
    finally:
        sys.path.remove(folder)
    return samples


@pytest.fixture(scope="module")
def data(samples: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "samples.npz"
    images, labels = samples(900, 1024)
    np.savez(path, images=images, labels=labels)
    return path


def options(data: Path, **more: Any) -> Options:
    return Options(str(data), labels="labels", **more)


@pytest.mark.parametrize("form", FORMS)
def test_a_stuck_network_is_cured_as_well_as_its_twin(
    form: str, data: Path, samples: Any, tmp_path: Path
) -> None:
    from tests.recalibrate.graphs import engine_of

    fixture = load_fixture(f"tf1_recalibrate_{form}")
    name = "IteratorGetNext:0" if form == "iterator" else "images"
    output = tmp_path / "fixed.ckpt"
    given = options(data, output=str(output), feeds=(f"{name}=images",))
    result = recalibrate_file(str(fixture.path), given)
    assert result.refusal is None

    images, labels = samples(901, 1500)
    with np.load(FIXTURES / fixture.stem / "twin.npz") as twin, engine_of(fixture.path) as stuck:
        of_twin = {
            one.name: (twin[one.moving_mean], twin[one.moving_variance]) for one in stuck.layers()
        }
        before = accuracy(stuck.outputs({name: images}), labels)
        expected = accuracy(stuck.outputs({name: images}, statistics=of_twin), labels)
    with engine_of(output) as cured:
        after = accuracy(cured.outputs({name: images}), labels)
    assert before < expected - 0.2
    assert after >= expected - 0.01


def accuracy(outputs: list[Any], labels: Any) -> float:
    [logits] = outputs
    return float(np.mean(logits.argmax(axis=-1) == labels))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_network_trained_in_inference_mode_is_refused(
    optimizer: str, data: Path, tmp_path: Path
) -> None:
    """Batch statistics would ruin it: without `--labels`, and with them."""
    path = str(load_fixture(f"tf1_recalibrate_inference_{optimizer}").path)
    output = tmp_path / "fixed.ckpt"
    for labels in (None, "labels"):
        given = Options(str(data), str(output), ("images=images",), labels)
        refusal = recalibrate_file(path, given).refusal
        assert refusal is not None
        proved = optimizer != "descent"  # its biases prove no mode
        known = proved or labels is not None
        assert ("Nothing stored proves" in refusal) is not known, refusal
    assert not list(tmp_path.iterdir())


def test_what_has_to_be_fed_is_named(data: Path) -> None:
    from tests.recalibrate.graphs import engine_of

    fixture = load_fixture("tf1_recalibrate_iterator")
    with engine_of(fixture.path) as engine:
        [spec] = engine.inputs()
        assert spec == ("IteratorGetNext:0", (32, 6, 6, 3), "float32")
        with pytest.raises(UsageProblem, match=r"IteratorGetNext:0 \(32, 6, 6, 3\) float32"):
            engine.batch_moments({})
        with pytest.raises(UsageProblem, match="exactly 32 samples: use --batch 32"):
            engine.batch_moments({spec.name: np.zeros((5, 6, 6, 3), np.float32)})


@pytest.mark.parametrize(
    ("form", "name"), [("placeholder", "images:0"), ("iterator", "IteratorGetNext")]
)
def test_an_input_is_named_with_or_without_its_number(form: str, name: str, data: Path) -> None:
    path = str(load_fixture(f"tf1_recalibrate_{form}").path)
    given = Options(str(data), None, (f"{name}=images",), "labels", dry_run=True)
    assert recalibrate_file(path, given).refusal is None


def test_a_mode_that_the_user_feeds_is_kept(samples: Any) -> None:
    """With the mode fed True, dropout is on in the branch of training, and taken out there."""
    from tests.recalibrate.graphs import engine_of

    fixture = load_fixture("tf1_recalibrate_placeholder")
    images = samples(902, 64)[0]
    moments = []
    for fed in (None, {"training": np.asarray(True)}, {"training": np.asarray(False)}):
        with engine_of(fixture.path, fed) as engine:
            assert {spec.name for spec in engine.inputs()} == {"images", *(fed or {})}
            moments.append(engine.batch_moments({"images": images, **(fed or {})}))
    for layer, one in moments[0].items():
        for other in moments[1:]:
            np.testing.assert_allclose(other[layer].mean, one.mean, rtol=1e-5, atol=1e-5)


# Graphs that are written here, with the moments computed by numpy.

X = np.random.default_rng(5).normal(3.0, 2.0, (37, 5)).astype(np.float32)


def layer_moments(x: np.ndarray, moments: Any, tolerance: float = 1e-5) -> None:
    flat = x.reshape(-1, x.shape[-1]).astype(np.float64)
    assert moments.count == len(flat)
    np.testing.assert_allclose(moments.mean, flat.mean(0), rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(moments.variance, flat.var(0), rtol=10 * tolerance)


def test_each_layer_sees_what_the_layers_before_make_of_the_batch(tmp_path: Path) -> None:
    from tests.recalibrate import graphs

    def build() -> None:
        x = graphs.norm(graphs.placeholder(), "bn1")
        graphs.classified(graphs.norm(tf_relu(x), "bn2", scale=False))

    prefix = graphs.saved(tmp_path, build)
    values = graphs.stored(prefix)
    hidden = np.maximum(graphs.normalized(X, X.mean(0), X.var(0), values, "bn1"), 0.0)
    with graphs.engine_of(prefix) as engine:
        assert [one.name for one in engine.layers()] == ["bn1", "bn2"]
        assert not any(one.unbiased for one in engine.layers())
        moments = engine.batch_moments({"x": X})
        layer_moments(X, moments["bn1"])
        layer_moments(hidden, moments["bn2"])
        # At inference: the stored ones (0 and 1), those given, and those of the batch.
        first = graphs.normalized(X, 0.0, 1.0, values, "bn1")
        assert_logits(engine.outputs({"x": X}), np.maximum(first, 0.0), (0.0, 1.0), values)
        given = {"bn1": (X.mean(0), X.var(0)), "bn2": (hidden.mean(0), hidden.var(0))}
        on_batch = engine.outputs({"x": X}, on_batch_statistics=True)
        assert_logits(on_batch, hidden, given["bn2"], values)
        assert_logits(engine.outputs({"x": X}, statistics=given), hidden, given["bn2"], values)


def assert_logits(outputs: Any, hidden: Any, statistics: Any, values: Any) -> None:
    from tests.recalibrate import graphs

    second = graphs.normalized(hidden, *statistics, values, "bn2")
    np.testing.assert_allclose(outputs[0], second @ values["logits/kernel"], rtol=1e-3, atol=1e-3)


def tf_relu(x: Any) -> Any:
    import tensorflow as tf

    return tf.nn.relu(x)


IMAGES = np.random.default_rng(6).normal(3.0, 2.0, (9, 4, 4, 2)).astype(np.float32)


@pytest.mark.parametrize("data_format", ["NHWC", "NCHW"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_fused_kernel_stores_the_variance_of_a_sample(
    tmp_path: Path, data_format: str, dtype: str
) -> None:
    from tests.recalibrate import graphs

    shape = (None, 4, 4, 2) if data_format == "NHWC" else (None, 2, 4, 4)
    prefix = graphs.saved(
        tmp_path,
        lambda: graphs.fused_norm(graphs.placeholder(shape, dtype=dtype), "bn", data_format),
    )
    images = IMAGES.astype(dtype)
    fed = images if data_format == "NHWC" else images.transpose(0, 3, 1, 2)
    with graphs.engine_of(prefix) as engine:
        [layer] = engine.layers()
        assert layer.unbiased
        assert engine.outputs({"x": fed}) == []  # nothing shows which output is meant
        layer_moments(images, engine.batch_moments({"x": fed})["bn"])


def test_channels_may_be_first_without_the_kernel(tmp_path: Path) -> None:
    from tests.recalibrate import graphs

    def build() -> None:
        import tensorflow as tf

        x = graphs.placeholder((None, 2, 4, 4))
        own = graphs.Variables("bn", 2)
        mean, variance = tf.nn.moments(x, (0, 2, 3), keepdims=True)
        own.update(mean, variance)
        shift, scale = (tf.reshape(one, (1, 2, 1, 1)) for one in (own.beta, own.gamma))
        tf.nn.batch_normalization(x, mean, variance, shift, scale, graphs.EPSILON)

    prefix = graphs.saved(tmp_path, build)
    with graphs.engine_of(prefix) as engine:
        layer_moments(IMAGES, engine.batch_moments({"x": IMAGES.transpose(0, 3, 1, 2)})["bn"])


@pytest.mark.parametrize("form", ["keep_prob", "rate", "spatial"])
def test_dropout_is_off(tmp_path: Path, form: str) -> None:
    from tests.recalibrate import graphs

    def build() -> None:
        import tensorflow as tf

        x = graphs.placeholder()
        if form == "keep_prob":
            x = graphs.v1.nn.dropout(x, keep_prob=graphs.v1.placeholder(tf.float32, name="keep"))
        elif form == "rate":
            x = tf.nn.dropout(x, 0.4)
        else:
            x = tf.nn.dropout(x, 0.4, noise_shape=(1, 5))
        graphs.norm(x, "bn")

    prefix = graphs.saved(tmp_path, build)
    with graphs.engine_of(prefix) as engine:
        assert [spec.name for spec in engine.inputs()] == ["x"]
        layer_moments(X, engine.batch_moments({"x": X})["bn"])


def test_a_condition_is_computed_in_its_types(tmp_path: Path) -> None:
    """A cast to integers cuts off the fraction, so that this one is equal to 0."""
    from tests.recalibrate import graphs

    def build() -> None:
        import tensorflow as tf

        v1, x = graphs.v1, graphs.placeholder()
        rate = v1.get_variable("rate", (), initializer=v1.constant_initializer(0.7))
        is_zero = tf.equal(tf.cast(rate, tf.int32), 0)
        graphs.norm(v1.cond(is_zero, lambda: 1.0 * x, lambda: 100.0 * x), "bn")

    with graphs.engine_of(graphs.saved(tmp_path, build)) as engine:
        layer_moments(X, engine.batch_moments({"x": X})["bn"])


@pytest.mark.parametrize("control_flow_v2", [True, False])
def test_a_mode_is_set_to_inference(tmp_path: Path, control_flow_v2: bool) -> None:
    """The branch of training has noise; that of inference normalizes by the averages."""
    from tests.recalibrate import graphs

    def build() -> None:
        import tensorflow as tf

        x = graphs.placeholder()
        training = graphs.v1.placeholder(tf.bool, (), "training")
        own = graphs.Variables("bn", 5)

        def in_training() -> Any:
            noisy = x + tf.random.normal(tf.shape(x))
            mean, variance = tf.nn.moments(noisy, [0])
            own.update(mean, variance)
            return tf.nn.batch_normalization(noisy, mean, variance, own.beta, own.gamma, 1e-3)

        def at_inference() -> Any:
            return tf.nn.batch_normalization(x, own.mean, own.variance, own.beta, own.gamma, 1e-3)

        graphs.classified(graphs.v1.cond(training, in_training, at_inference))

    switch = "enable_control_flow_v2" if control_flow_v2 else "disable_control_flow_v2"
    getattr(graphs.v1, switch)()
    try:
        prefix = graphs.saved(tmp_path, build, resource=control_flow_v2)
    finally:
        graphs.v1.enable_control_flow_v2()
    with graphs.engine_of(prefix) as engine:
        assert [spec.name for spec in engine.inputs()] == ["x"]
        layer_moments(X, engine.batch_moments({"x": X})["bn"])
        assert len(engine.outputs({"x": X})) == 1
    with pytest.raises(RecalibrationRefused, match="draws random numbers at"):
        run_once(prefix, {"training": np.asarray(True)})


def test_a_size_of_batches_that_no_input_declares_is_asked_for(tmp_path: Path) -> None:
    """As that of noise that the graph draws for 32 samples, and that a user feeds."""
    from tests.recalibrate import graphs

    def build() -> None:
        import tensorflow as tf

        graphs.norm(tf.reshape(graphs.placeholder(), (32, 5)), "bn")

    prefix = graphs.saved(tmp_path, build)
    with graphs.engine_of(prefix) as engine:
        layer_moments(X[:32], engine.batch_moments({"x": X[:32]})["bn"])
        with pytest.raises(UsageProblem, match="by --batch, and a multiple of it by --samples"):
            engine.batch_moments({"x": X[:20]})


def test_a_network_for_inference_is_preferred(tmp_path: Path) -> None:
    from tests.recalibrate import graphs

    def build() -> None:
        import tensorflow as tf

        graphs.norm(graphs.placeholder(name="training_x"), "bn")
        own = graphs.Variables("bn", 5)
        x = graphs.placeholder()
        tf.nn.batch_normalization(x, own.mean, own.variance, own.beta, own.gamma, 1e-3)

    prefix = graphs.saved(tmp_path, build)
    with graphs.engine_of(prefix) as engine:
        assert [spec.name for spec in engine.inputs()] == ["x"]
        layer_moments(X, engine.batch_moments({"x": X})["bn"])


def test_the_inputs_of_a_shared_layer_are_pooled(tmp_path: Path) -> None:
    from tests.recalibrate import graphs

    def build() -> None:
        graphs.norm(graphs.placeholder(name="a"), "bn")
        graphs.norm(graphs.placeholder(name="b"), "bn")

    prefix = graphs.saved(tmp_path, build)
    with graphs.engine_of(prefix) as engine:
        moments = engine.batch_moments({"a": X[:20], "b": X[20:]})
        layer_moments(X, moments["bn"])


def test_any_tensor_can_be_fed(tmp_path: Path) -> None:
    from tests.recalibrate import graphs

    def build() -> None:
        import tensorflow as tf

        x = graphs.placeholder()
        graphs.norm(x + tf.random.normal(tf.shape(x), name="noise"), "bn")

    prefix = graphs.saved(tmp_path, build)
    name = "noise/RandomStandardNormal"
    with pytest.raises(RecalibrationRefused, match=f"--feed {name}=KEY"):
        run_once(prefix)
    with graphs.engine_of(prefix, {name: None}) as engine:
        assert {spec.name for spec in engine.inputs()} == {"x", name}
        layer_moments(3 * X, engine.batch_moments({"x": X, name: 2 * X})["bn"])
    with graphs.engine_of(prefix, {name: np.asarray(0)}) as engine:
        layer_moments(X, engine.batch_moments({"x": X})["bn"])
    for name in ("y", "x:one", "x:-1"):
        with pytest.raises(UsageProblem, match="no such tensor"):
            run_once(prefix, {name: None})
    with pytest.raises(UsageProblem, match="takes string, not a number"):
        run_once(prefix, {"save/Const": np.asarray(1)})


def virtual_batches(graphs: Any) -> None:
    import tensorflow as tf

    own = graphs.Variables("bn", 5)
    parts = tf.reshape(graphs.placeholder((36, 5)), (4, 9, 5))
    mean, variance = tf.nn.moments(parts, [1], keepdims=True)
    own.update(tf.reduce_mean(mean, 0), tf.reduce_mean(variance, 0))
    tf.nn.batch_normalization(parts, mean, variance, own.beta, own.gamma, 1e-3)


def first_half(graphs: Any) -> None:
    import tensorflow as tf

    own = graphs.Variables("bn", 5)
    x = graphs.placeholder()
    mean, variance = tf.nn.moments(x[:9], [0])
    own.update(mean, variance)
    tf.nn.batch_normalization(x, mean, variance, own.beta, own.gamma, 1e-3)


def renormalized(graphs: Any) -> None:
    graphs.norm(graphs.placeholder(), "bn")
    graphs.v1.get_variable("bn/renorm_mean", 5)


def debiased(graphs: Any) -> None:
    graphs.norm(graphs.placeholder(), "bn")
    graphs.v1.get_variable("bn/moving_mean/biased", 5)


def loop(graphs: Any) -> None:
    import tensorflow as tf

    own = graphs.Variables("bn", 5)

    def body(turn: Any, x: Any) -> Any:
        mean, variance = tf.nn.moments(x, [0])
        own.update(mean, variance)
        y = tf.nn.batch_normalization(x, mean, variance, own.beta, own.gamma, 1e-3)
        return turn + 1, y

    graphs.v1.while_loop(lambda turn, _: turn < 2, body, (0, graphs.placeholder()))


def loop_of_tensorflow_1(graphs: Any) -> None:
    graphs.v1.disable_control_flow_v2()
    try:
        loop(graphs)
    finally:
        graphs.v1.enable_control_flow_v2()


def table(graphs: Any) -> None:
    import tensorflow as tf

    keys, values = tf.constant([1, 2], tf.int64), tf.constant([0.5, 2.0])
    start = tf.lookup.KeyValueTensorInitializer(keys, values)
    found = tf.lookup.StaticHashTable(start, 0.0).lookup(
        graphs.placeholder(dtype=tf.int64, shape=(None, 5))
    )
    graphs.norm(found, "bn")


def unknown_condition(graphs: Any) -> None:
    import tensorflow as tf

    x = graphs.placeholder()
    graphs.norm(graphs.v1.cond(tf.reduce_mean(x) > 0.0, lambda: x, lambda: -x), "bn")


def mask_without_scale(graphs: Any) -> None:
    import tensorflow as tf

    x = graphs.placeholder() / 255.0
    graphs.norm(x * tf.cast(tf.random.uniform(tf.shape(x)) > 0.5, tf.float32), "bn")


def counter(graphs: Any) -> None:
    """The network takes what an assignment returns: it is another one in each run."""
    count = graphs.v1.get_variable("count", (), initializer=graphs.v1.ones_initializer())
    graphs.norm(graphs.placeholder() * graphs.v1.assign_add(count, 1.0), "bn")


def mapped_function(graphs: Any) -> None:
    import tensorflow as tf

    x = graphs.placeholder()
    function = tf.function(lambda row: row + 1.0).get_concrete_function(tf.TensorSpec((5,)))
    [mapped] = tf.raw_ops.MapDefun(
        arguments=[x],
        captured_inputs=[],
        output_types=[tf.float32],
        output_shapes=[(5,)],
        f=function,
    )
    graphs.norm(tf.reshape(mapped, (-1, 5)), "bn")


def tensor_written_to_a_file(graphs: Any) -> None:
    import tensorflow as tf

    urls = ["file:///nonexistent/dump"]
    x = tf.raw_ops.DebugIdentity(
        input=graphs.placeholder(), device_name="", tensor_name="x:0", debug_urls=urls
    )
    graphs.norm(x, "bn")


def python_function(graphs: Any) -> None:
    import tensorflow as tf

    x = graphs.placeholder()
    graphs.norm(x * tf.reshape(tf.py_function(len, [x], tf.float32), ()), "bn")


def kernel_without_averages(graphs: Any) -> None:
    import tensorflow as tf

    x = graphs.placeholder((None, 4, 4, 2))
    x = graphs.v1.nn.fused_batch_norm(x, tf.ones(2), tf.zeros(2), is_training=True)[0]
    graphs.fused_norm(x, "bn")


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (virtual_batches, "none of the BN layers"),
        (first_half, "other moments than those of its input"),
        (renormalized, "renormalization"),
        (debiased, "zero-debias"),
        (loop, "loop"),
        (loop_of_tensorflow_1, "is in a loop of the graph"),
        (table, "keeps a state"),
        (unknown_condition, r"give its condition by --feed \S+=true or false"),
        (kernel_without_averages, "belongs to no BN layer"),
        (mask_without_scale, "draws random numbers"),
        (counter, "changes a variable at AssignAdd"),
        (mapped_function, "calls a function at MapDefun"),
        (tensor_written_to_a_file, "DebugIdentity keeps a state or uses files"),
        (python_function, "EagerPyFunc keeps a state or uses files"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_not_the_network_at_inference_is_refused(
    tmp_path: Path, build: Any, reason: str
) -> None:
    from tests.recalibrate import graphs

    prefix = graphs.saved(
        tmp_path, lambda: build(graphs), resource=build in (loop, loop_of_tensorflow_1)
    )
    with pytest.raises(RecalibrationRefused, match=reason):
        run_once(prefix)


def run_once(prefix: Path, fed: Any = None) -> None:
    """Open the engine of a graph and give it one batch of 36 different samples."""
    from tests.recalibrate import graphs

    with graphs.engine_of(prefix, fed) as engine:
        batch = {}
        for name, shape, dtype in engine.inputs():
            sizes = [size or 36 for size in shape or ()]
            batch[name] = np.random.default_rng(1).normal(size=sizes).astype(dtype)
        engine.batch_moments(batch)


@pytest.mark.parametrize("has_mode", [True, False])
def test_a_layer_that_training_ran_in_inference_mode_stays_in_it(
    tmp_path: Path, has_mode: bool
) -> None:
    """As in a backbone that is not trained: the head learned on what it gives at inference."""
    from tests.recalibrate import graphs

    def build() -> None:
        import tensorflow as tf

        x = graphs.placeholder()
        one = graphs.Variables("bn1", 5)
        x = tf.nn.batch_normalization(x, one.mean, one.variance, one.beta, one.gamma, 1e-3)
        if not has_mode:
            graphs.norm(x, "bn2")
            return
        two = graphs.Variables("bn2", 5)
        batch = tf.nn.moments(x, [0])
        two.update(*batch)
        training = graphs.v1.placeholder(tf.bool, (), "training")
        mean, variance = graphs.v1.cond(
            training,
            lambda: (tf.identity(batch[0]), tf.identity(batch[1])),
            lambda: (tf.identity(two.mean), tf.identity(two.variance)),
        )
        tf.nn.batch_normalization(x, mean, variance, two.beta, two.gamma, 1e-3)

    prefix = graphs.saved(tmp_path, build, resource=has_mode)
    values = graphs.stored(prefix)
    hidden = graphs.normalized(X, 0.0, 1.0, values, "bn1")
    with graphs.engine_of(prefix) as engine:
        moments = engine.batch_moments({"x": X})
    layer_moments(hidden, moments["bn2"])
    layer_moments(X, moments["bn1"])


@pytest.mark.parametrize("form", ["squeezed", "flattened", "probabilities"])
def test_outputs_have_a_row_for_each_sample(tmp_path: Path, form: str) -> None:
    from tests.recalibrate import graphs

    def build() -> None:
        import tensorflow as tf

        x = graphs.norm(graphs.placeholder((None, 2, 2, 2)), "bn")
        if form == "squeezed":
            tf.nn.softmax(tf.squeeze(tf.reduce_mean(x, (1, 2), keepdims=True), (1, 2)))
        elif form == "flattened":
            tf.nn.softmax(tf.reshape(x, (-1, 2)))
        else:
            tf.argmax(tf.nn.softmax(x), -1)

    prefix = graphs.saved(tmp_path, build)
    with graphs.engine_of(prefix) as engine:
        [output] = engine.outputs({"x": IMAGES[:, :2, :2]})
    assert output.shape == ((9, 2) if form == "squeezed" else (9, 2, 2, 2))
    assert np.abs(output).max() > 1.0  # logits, not probabilities


def test_loops_beside_the_layers_are_run(tmp_path: Path) -> None:
    """As in a network of convolutions before a recurrent one."""
    from tests.recalibrate import graphs

    def build() -> None:
        import tensorflow as tf

        x = graphs.norm(graphs.placeholder(), "bn1")
        cell = graphs.v1.get_variable("cell", (5, 5))

        def body(turn: Any, state: Any) -> Any:
            noise = tf.nn.dropout(state, 0.5)
            return turn + 1, tf.tanh(tf.matmul(noise, cell)) * 2.0 + x

        _, state = graphs.v1.while_loop(lambda turn, _: turn < 3, body, (0, x))
        graphs.classified(graphs.norm(state, "bn2"))

    graphs.v1.disable_control_flow_v2()
    try:
        prefix = graphs.saved(tmp_path, build)
    finally:
        graphs.v1.enable_control_flow_v2()
    values = graphs.stored(prefix)
    x = state = graphs.normalized(X, X.mean(0), X.var(0), values, "bn1")
    for _ in range(3):
        state = np.tanh(state @ values["cell"]) * 2.0 + x
    with graphs.engine_of(prefix) as engine:
        moments = engine.batch_moments({"x": X})
        layer_moments(X, moments["bn1"])
        layer_moments(state, moments["bn2"], tolerance=1e-4)


def test_a_condition_can_be_given(tmp_path: Path) -> None:
    from tests.recalibrate import graphs

    prefix = graphs.saved(tmp_path, lambda: unknown_condition(graphs))
    with pytest.raises(RecalibrationRefused) as refusal:
        run_once(prefix)
    condition = str(refusal.value).partition("--feed ")[2].partition("=")[0]
    for value, sign in ((True, 1), (False, -1)):
        with graphs.engine_of(prefix, {condition: np.asarray(value)}) as engine:
            assert condition in {spec.name for spec in engine.inputs()}
            layer_moments(sign * X, engine.batch_moments({"x": X})["bn"])


def test_partitioned_variables_are_refused(tmp_path: Path) -> None:
    from tests.recalibrate import graphs

    def build() -> None:
        x = graphs.dense(graphs.placeholder((None, 4)), 4, "dense")
        with graphs.v1.variable_scope("", partitioner=None) as scope:
            scope.set_partitioner(None)
            graphs.norm(x, "bn")

    prefix = graphs.saved(tmp_path, build, partitions=2)
    with pytest.raises(RecalibrationRefused, match="partitioned variables"):
        run_once(prefix)


def test_a_layer_on_which_no_output_depends_is_re_estimated(tmp_path: Path) -> None:
    path = load_fixture("tf1_graph_target_network").path
    images = np.random.default_rng(0).normal(size=(1024, 6, 6, 3)).astype(np.float32)
    np.save(tmp_path / "images.npy", images)
    data = str(tmp_path / "images.npy")
    result = recalibrate_file(str(path), Options(data, force=True, dry_run=True))
    assert result.refusal is None
    [layer] = result.layers
    assert layer.name == "target/bn"
    np.testing.assert_allclose(layer.mean, images.mean((0, 1, 2)), atol=1e-6)
    assert result.outputs is not None
    assert result.outputs.moved == 0.0


def test_a_checkpoint_without_its_graph_is_no_model(tmp_path: Path) -> None:
    from tests.recalibrate import graphs

    prefix = graphs.saved(tmp_path, lambda: graphs.norm(graphs.placeholder(), "bn"))
    meta = prefix.with_name(prefix.name + ".meta")
    # A tag of the MetaInfoDef (field 4 of field 1) that is not UTF-8, which TensorFlow alone reads.
    meta.write_bytes(meta.read_bytes() + b"\x0a\x03\x22\x01\xff")
    with pytest.raises(ReadProblem, match="TensorFlow cannot parse the graph"):
        run_once(prefix)
    meta.unlink()
    with (
        bninspect.open_checkpoint(str(prefix)) as checkpoint,
        pytest.raises(UsageProblem, match=r"copy the \.meta file of the training there"),
    ):
        require_runnable(checkpoint)


def test_samples_that_are_not_finite_are_a_sentence(data: Path, tmp_path: Path) -> None:
    fixture = load_fixture("tf1_recalibrate_fused")
    for value in (1e300, np.inf):
        images = np.load(data)["images"].astype("f8") * value
        np.savez(tmp_path / "far.npz", images=images)
        given = Options(str(tmp_path / "far.npz"), dry_run=True)
        refusal = recalibrate_file(str(fixture.path), given).refusal
        assert refusal is not None
        assert "are not finite (NaN or infinity): look for it in the samples" in refusal


def test_a_pattern_names_the_model(data: Path) -> None:
    path = str(load_fixture("tf1_recalibrate_fused").path)
    result = recalibrate_file(path.replace("ckpt", "ck?t"), options(data, dry_run=True))
    assert (result.refusal, result.path) == (None, path)


def test_a_missing_tensorflow_is_named(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    path = str(load_fixture("tf1_recalibrate_fused").path)
    with pytest.raises(UsageProblem, match=r"pip install 'bninspect\[tensorflow\]'"):
        recalibrate_file(path, options(data, output=str(tmp_path / "fixed.ckpt")))


def test_nothing_else_is_read_and_the_copy_is_read_by_tensorflow(
    data: Path, tmp_path: Path
) -> None:
    import tensorflow as tf

    fixture = load_fixture("tf1_recalibrate_unfused")
    output = tmp_path / "fixed.ckpt"
    assert recalibrate_file(str(fixture.path), options(data, output=str(output))).refusal is None
    old, new = (tf.train.load_checkpoint(str(one)) for one in (fixture.path, output))
    changed = {
        name
        for name in old.get_variable_to_shape_map()
        if not np.array_equal(old.get_tensor(name), new.get_tensor(name))
    }
    statistics = ("moving_mean", "moving_variance")
    assert changed == {f"{bn}/{role}" for bn in ("conv1/bn", "conv2/bn") for role in statistics}
    assert not bninspect.check(output).findings


def without_inputs(meta: Any) -> None:
    for node in meta.graph_def.node:
        if node.op == "SquaredDifference":
            del node.input[:]


def without_types(meta: Any) -> None:
    for node in meta.graph_def.node:
        if node.op == "Placeholder":
            del node.attr["dtype"]


def without_name(meta: Any) -> None:
    for node in meta.graph_def.node:
        node.input[:] = [f"{name}:first" for name in node.input]


def without_logits(meta: Any) -> None:
    nodes = meta.graph_def.node
    node = nodes.add()
    node.op, node.name = "Softmax", "probabilities"
    node.input.append("logits")


def with_another_output(meta: Any) -> None:
    for node in meta.graph_def.node:
        if node.op == "SquaredDifference":
            node.input[0] += ":7"


def without_inputs_of_switches(meta: Any) -> None:
    node = meta.graph_def.node.add()
    node.op, node.name = "Switch", "switch"


@pytest.mark.parametrize(
    "damage",
    [
        without_inputs,
        without_types,
        without_name,
        without_logits,
        with_another_output,
        without_inputs_of_switches,
    ],
)
def test_a_damaged_graph_is_a_sentence(tmp_path: Path, damage: Callable[[Any], None]) -> None:
    from tests.recalibrate import graphs

    prefix = graphs.saved(tmp_path, lambda: graphs.norm(graphs.placeholder(), "bn"))
    path = prefix.with_name("model.ckpt.meta")
    meta = graphs.v1.MetaGraphDef.FromString(path.read_bytes())
    damage(meta)
    path.write_bytes(meta.SerializeToString())
    with pytest.raises((UsageProblem, ReadProblem), match=r"damaged|cannot import the graph"):
        run_once(prefix)
