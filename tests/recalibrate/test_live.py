"""A live model is cured in place, or refused and left as it was; any dataset that `fit` takes."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bninspect.errors import UsageProblem
from bninspect.keras import RecalibrationRefused, recalibrate
from tests.trainings import recalibrated

pytestmark = [pytest.mark.framework, pytest.mark.slow, pytest.mark.xdist_group("recalibrate-keras")]

X, Y = recalibrated.images(2)


class Stuck:
    """A stuck model, and the accuracy of its twin."""

    def __init__(self, module: str) -> None:
        self.keras = importlib.import_module(module)
        self.model = recalibrated.train(self.keras, "cnn")
        self.twin = recalibrated.accuracy(self.model, "cnn")
        recalibrated.make_stuck(self.model)

    @property
    def accuracy(self) -> float:
        return recalibrated.accuracy(self.model, "cnn")


@pytest.fixture(scope="module", params=["keras", "tf_keras"])
def trained(request: pytest.FixtureRequest) -> Stuck:
    return Stuck(request.param)


@pytest.fixture
def stuck(trained: Stuck) -> Iterator[Stuck]:
    """The model, which is stuck again before each test; the other weights have to stay."""
    recalibrated.make_stuck(trained.model)
    before = [np.array(one) for one in trained.model.trainable_variables]
    yield trained
    assert all(map(np.array_equal, before, trained.model.trainable_variables))


def weights(model: Any) -> list[np.ndarray]:
    return [np.array(one) for one in model.get_weights()]


def test_a_live_model_is_cured_in_place(stuck: Stuck) -> None:
    assert stuck.accuracy < stuck.twin - 0.3
    result = recalibrate(stuck.model, (X, Y))
    assert stuck.accuracy >= stuck.twin - 0.01
    assert [layer.name for layer in result.layers] == [
        layer.name for layer in stuck.model.layers if hasattr(layer, "moving_mean")
    ]
    assert result.quality is not None
    assert repr(result) == ("<Recalibration the model: 2 BN layers re-estimated from 2048 samples>")


def test_slots_of_the_optimizer_prove_batch_mode_without_labels(stuck: Stuck) -> None:
    """Adam's second moments of the bias before a layer are rounding noise."""
    result = recalibrate(stuck.model, X)
    assert "had no gradient but rounding noise" in str(result.proof)
    assert result.quality is None
    assert stuck.accuracy >= stuck.twin - 0.01


def tensorflow_dataset() -> Any:
    import tensorflow

    return tensorflow.data.Dataset.from_tensor_slices((X, Y)).shuffle(2048, seed=1).batch(60)


def generator() -> Any:
    return ((x, y) for x, y in zip(np.split(X, 32), np.split(Y, 32), strict=True))


class Numbered:
    """Batches by their numbers, as a Sequence or PyDataset of Keras has them."""

    def __len__(self) -> int:
        return 32

    def __getitem__(self, number: int) -> Any:
        rows = slice(number * 64, number * 64 + 64)
        return X[rows], Y[rows], np.ones(64)


@pytest.mark.parametrize("dataset", [tensorflow_dataset, generator, Numbered])
def test_any_dataset_will_do(stuck: Stuck, dataset: Callable[[], Any]) -> None:
    result = recalibrate(stuck.model, dataset())
    assert result.samples == 2048
    assert stuck.accuracy >= stuck.twin - 0.01


def test_an_endless_dataset_needs_a_number(stuck: Stuck) -> None:
    with pytest.raises(UsageProblem, match="never ends"):
        recalibrate(stuck.model, tensorflow_dataset().repeat())
    result = recalibrate(stuck.model, tensorflow_dataset().repeat(), samples=1500)
    assert result.samples == 1500


def sorted_batches() -> Any:
    order = np.argsort(Y, kind="stable")
    return [(X[rows], Y[rows]) for rows in np.split(order, 32)]


def samples_with_nan() -> Any:
    x = X.copy()
    x[77, 3, 3, 1] = np.nan
    return x, Y


@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        (sorted_batches, "The samples are sorted"),
        (lambda: (X[:60], Y[:60]), "fewer than two batches"),
        (samples_with_nan, "not finite"),
    ],
)
def test_a_refusal_leaves_the_model_as_it_was(
    stuck: Stuck, dataset: Callable[[], Any], words: str
) -> None:
    before = weights(stuck.model)
    with pytest.raises(RecalibrationRefused, match=words):
        recalibrate(stuck.model, dataset())
    assert all(map(np.array_equal, before, weights(stuck.model)))


@pytest.mark.parametrize("option", ["batch", "samples"])
def test_a_number_below_1_is_a_sentence(stuck: Stuck, option: str) -> None:
    with pytest.raises(UsageProblem, match=f"{option}: expected a number of at least 1, got 0"):
        recalibrate(stuck.model, (X, Y), **{option: 0})


def test_batches_of_an_iterable_are_taken_whole(stuck: Stuck) -> None:
    assert recalibrate(stuck.model, tensorflow_dataset(), samples=1501).samples == 1560


def test_large_outputs_are_compared_on_fewer_samples(
    stuck: Stuck, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bninspect.recalibrate.estimate._MOST_BYTES", 1)
    monkeypatch.setattr("bninspect.recalibrate.datasets._MOST_BYTES", 1)
    result = recalibrate(stuck.model, Numbered(), force=True)
    assert (result.samples, result.outputs.samples) == (2048, 64)


def test_a_dry_run_leaves_the_model_as_it_was(stuck: Stuck) -> None:
    before = weights(stuck.model)
    assert recalibrate(stuck.model, (X, Y), dry_run=True).dry_run
    assert all(map(np.array_equal, before, weights(stuck.model)))


def test_an_interrupt_leaves_the_model_as_it_was(stuck: Stuck) -> None:
    before = weights(stuck.model)

    def batches() -> Iterator[Any]:
        yield X[:64], Y[:64]
        raise KeyboardInterrupt

    class Interrupted:
        def __iter__(self) -> Iterator[Any]:
            return batches()

    with pytest.raises(KeyboardInterrupt):
        recalibrate(stuck.model, Interrupted())
    assert all(map(np.array_equal, before, weights(stuck.model)))
    assert all("call" not in vars(layer) for layer in stuck.model.layers)


def test_layers_can_be_named(stuck: Stuck) -> None:
    first, second = [layer for layer in stuck.model.layers if hasattr(layer, "moving_mean")]
    result = recalibrate(stuck.model, X, layers=first.name, force=True)
    assert [layer.name for layer in result.layers] == [first.name]
    assert result.kept == (second.name,)
    assert not np.array(second.moving_mean).any()
    with pytest.raises(UsageProblem, match="no BN layer 'other'"):
        recalibrate(stuck.model, X, layers=["other"])


def test_weights_are_cured_with_a_model_that_is_built(stuck: Stuck, tmp_path: Path) -> None:
    stuck.model.save_weights(tmp_path / "stuck.weights.h5")
    built = recalibrated.cnn(stuck.keras)
    built.load_weights(tmp_path / "stuck.weights.h5")
    with pytest.raises(RecalibrationRefused, match="Nothing stored proves"):
        recalibrate(built, X)
    recalibrate(built, (X, Y))
    built.save_weights(tmp_path / "fixed.weights.h5")
    again = recalibrated.cnn(stuck.keras)
    again.load_weights(tmp_path / "fixed.weights.h5")
    assert recalibrated.accuracy(again, "cnn") >= stuck.twin - 0.01


def test_a_model_trained_in_inference_mode_is_refused() -> None:
    keras = importlib.import_module("keras")
    model = recalibrated.train_in_inference_mode(keras, "sgd")
    x, y = recalibrated.mild_images(2)
    for dataset, force in ((x, True), ((x, y), False), (x, False)):
        with pytest.raises(RecalibrationRefused, match="in inference mode"):
            recalibrate(model, dataset, force=force)


def test_a_call_without_training_is_not_overridden_by_force() -> None:
    """`fit` of Keras 3 trains such a model in inference mode, whatever its user believes."""
    keras = importlib.import_module("keras")

    class Net(keras.Model):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.dense = keras.layers.Dense(4, use_bias=False)
            self.bn = keras.layers.BatchNormalization()

        def call(self, inputs: Any) -> Any:
            return self.bn(self.dense(inputs))

    class Mended(Net):
        def call(self, inputs: Any, training: Any = None) -> Any:
            return self.bn(self.dense(inputs), training=training)

    x = np.random.default_rng(0).normal(2.0, 3.0, (2048, 3)).astype("float32")
    for made, is_refused in ((Net(), True), (Mended(), False)):
        made(x[:2])
        before = weights(made)
        if is_refused:
            with pytest.raises(RecalibrationRefused, match=r"has no parameter `training`.* labels"):
                recalibrate(made, x, layers="*", force=True)
            assert all(map(np.array_equal, before, weights(made)))
        else:
            assert "forced" in str(recalibrate(made, x, layers="*", force=True).proof)
