"""Members that scan and vmap stack in one array are judged slice by slice."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from bninspect.batchnorm.find_layers import find_layers
from bninspect.formats.orbax.flax_names import flax_names
from bninspect.formats.orbax.haiku_averages import with_sums_for_averages
from bninspect.formats.orbax.stacked import with_stacked_layers
from bninspect.model.checkpoint import Checkpoint, Variable
from bninspect.model.layer import BNLayer
from tests.conftest import FIXTURES, Run
from tests.support.work import LINEAR, growth

Shape = tuple[int, ...]


def opened(stored: Mapping[str, NDArray[Any]]) -> Checkpoint:
    """A train state with these arrays, by paths such as `params/bn/scale`."""
    paths = {path.replace("/", "."): tuple(path.split("/")) for path in stored}
    names = flax_names(paths)
    variables = {
        path.replace("/", "."): Variable(
            path.replace("/", "."), array.shape, "float32", lambda array=array: array
        )
        for path, array in stored.items()
    }
    checkpoint = Checkpoint("x", "x", "orbax", variables, known_names=names.known, named_by="tree")
    return with_stacked_layers(checkpoint, paths)


def state(
    statistics: Shape, affine: Shape | None = None, scope: str = "blocks/bn"
) -> dict[str, NDArray[Any]]:
    """The members of a layer, each element another number."""
    stored = {}
    for number, leaf in enumerate(("mean", "var")):
        size = int(np.prod(statistics))
        stored[f"batch_stats/{scope}/{leaf}"] = 1000 * number + np.arange(size).reshape(statistics)
    if affine is not None:
        for leaf in ("scale", "bias"):
            stored[f"params/{scope}/{leaf}"] = np.arange(int(np.prod(affine))).reshape(affine)
    return stored


def layers_of(stored: Mapping[str, NDArray[Any]]) -> dict[str, BNLayer]:
    return {layer.name: layer for layer in opened(stored).layers or ()}


def test_a_stack_is_a_layer_for_each_slice() -> None:
    stored = state((3, 4), (3, 4)) | {"params/blocks/dense/kernel": np.zeros((3, 2, 4))}
    layers = layers_of(stored)
    assert [*layers] == ["blocks/bn[0]", "blocks/bn[1]", "blocks/bn[2]"]
    members = layers["blocks/bn[1]"].variables
    assert members["moving_variance"].name == "batch_stats.blocks.bn.var[1]"
    assert members["moving_variance"].shape == (4,)
    assert members["moving_variance"].read().tolist() == [1004, 1005, 1006, 1007]
    assert members["gamma"].read().tolist() == [4, 5, 6, 7]


def test_the_axis_of_layers_is_that_of_all_arrays_of_the_module() -> None:
    stored = state((4, 3), (4, 3)) | {"params/blocks/dense/kernel": np.zeros((2, 3, 4))}
    layers = layers_of(stored)
    assert [*layers] == ["blocks/bn[:,0]", "blocks/bn[:,1]", "blocks/bn[:,2]"]
    assert layers["blocks/bn[:,1]"].variables["moving_mean"].read().tolist() == [1, 4, 7, 10]


def test_of_a_square_kernel_the_last_axis_is_that_of_the_channels() -> None:
    """A scanned block returns what it takes, so that its kernels are square."""
    last = state((4, 3), (4, 3)) | {"params/blocks/dense/kernel": np.zeros((4, 3, 4))}
    assert [*layers_of(last)] == ["blocks/bn[:,0]", "blocks/bn[:,1]", "blocks/bn[:,2]"]
    first = state((3, 4), (3, 4)) | {"params/blocks/dense/kernel": np.zeros((3, 4, 4))}
    assert [*layers_of(first)] == ["blocks/bn[0]", "blocks/bn[1]", "blocks/bn[2]"]
    without_kernel = state((4, 4), (4, 4))
    assert [*layers_of(without_kernel)] == [f"blocks/bn[{index}]" for index in range(4)]


def test_nested_stacks_have_an_index_each() -> None:
    layers = layers_of(state((2, 3, 4), (2, 3, 4)))
    assert len(layers) == 6
    assert layers["blocks/bn[1,2]"].variables["moving_mean"].read().tolist() == [20, 21, 22, 23]


def test_slices_share_the_parameters_that_are_not_stacked() -> None:
    layers = layers_of(state((3, 4), (4,)))
    assert [layer.variables["gamma"].name for layer in layers.values()] == [
        "params.blocks.bn.scale"
    ] * 3


@pytest.mark.parametrize(
    ("statistics", "affine"),
    [
        ((4,), (4,)),
        ((1, 4), (1, 4)),  # a stack of one
        ((1025, 2), (1025, 2)),  # more than any network has
        ((3, 4), (5, 4)),  # not all members of one stack
        ((), ()),
    ],
)
def test_other_shapes_are_one_layer(statistics: Shape, affine: Shape) -> None:
    assert opened(state(statistics, affine)).layers is None


def test_what_is_not_stacked_stays_beside_what_is() -> None:
    checkpoint = opened(state((3, 4), (3, 4)) | state((4,), (4,), scope="bn"))
    names = [layer.name for layer in checkpoint.layers or ()]
    assert names == ["blocks/bn[0]", "blocks/bn[1]", "blocks/bn[2]", "bn"]
    (note,) = checkpoint.notes
    assert note.startswith("the arrays of blocks/bn are judged slice by slice")


def test_a_file_of_nothing_but_shapes_makes_no_millions_of_layers() -> None:
    def empty(path: tuple[str, ...]) -> Variable:
        return Variable(".".join(path), (1024, 1), "float32", lambda: np.zeros((1024, 1)))

    paths = [("batch_stats", f"bn_{n}", leaf) for n in range(40) for leaf in ("mean", "var")]
    by_name = {".".join(path): path for path in paths}
    variables = {name: empty(path) for name, path in by_name.items()}
    known = flax_names(by_name).known
    checkpoint = Checkpoint("x", "x", "orbax", variables, known_names=known, named_by="tree")
    split = with_stacked_layers(checkpoint, by_name)
    assert len(split.layers or ()) == 16 * 1024 + 24
    assert "are not: these are more slices than 16384" in split.notes[1]


def test_many_layers_of_two_axes_take_no_longer_each() -> None:
    def prepare(count: int) -> Callable[[], object]:
        stored: dict[str, NDArray[Any]] = {}
        for number in range(count):
            stored |= state((4, 3), (5,), f"blocks_{number}/bn")
        return lambda: opened(stored)

    assert growth(prepare, 100) < LINEAR


def opened_haiku(state: Mapping[str, NDArray[Any]]) -> Checkpoint:
    """The state of a layer `bn` of Haiku, by names such as `mean_ema/average`."""
    paths = {}
    variables = {}
    for name, array in state.items():
        ema, leaf = name.split("/")
        path = ("state", f"bn/~/{ema}", leaf)
        stored = ".".join(path)
        paths[stored] = path
        variables[stored] = Variable(stored, array.shape, "float32", lambda array=array: array)
    known = with_sums_for_averages(flax_names(paths).known, variables)
    checkpoint = Checkpoint("x", "x", "orbax", variables, known_names=known, named_by="tree")
    return with_stacked_layers(checkpoint, paths)


def state_of_haiku(shape: Shape, counter: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Averages of 7 and sums of 0, as `init` leaves them."""
    return {
        f"{ema}/{leaf}": values
        for ema in ("mean_ema", "var_ema")
        for leaf, values in (
            ("average", np.full(shape, 7.0)),
            ("hidden", np.zeros(shape)),
            ("counter", counter),
        )
    }


@pytest.mark.parametrize(
    ("shape", "layers"),
    [
        ((1, 1, 1, 4), 1),
        ((1, 2, 2, 4), 1),  # averaged over the batch alone
        ((3, 1, 1, 1, 4), 3),
    ],
)
def test_the_axes_of_haiku_that_were_averaged_are_no_stack(shape: Shape, layers: int) -> None:
    checkpoint = opened_haiku(state_of_haiku(shape, np.ones(shape[:1] if layers > 1 else ())))
    assert len(find_layers(checkpoint)) == layers


def test_the_sum_stands_for_an_average_that_no_step_updated() -> None:
    """Haiku's `init` sets the average to the moments of the batch that it gets."""
    (stuck,) = find_layers(opened_haiku(state_of_haiku((1, 4), np.zeros(()))))
    assert stuck.variables["moving_mean"].name == "state.bn/~/mean_ema.hidden"
    assert stuck.variables["moving_variance"].name == "state.bn/~/var_ema.hidden"
    (updated,) = find_layers(opened_haiku(state_of_haiku((1, 4), np.ones(()))))
    assert updated.variables["moving_mean"].name == "state.bn/~/mean_ema.average"


def test_stacked_layers_of_haiku_have_a_count_each() -> None:
    checkpoint = opened_haiku(state_of_haiku((3, 1, 4), np.array([5, 0, 5])))
    names = [layer.variables["moving_mean"].name for layer in find_layers(checkpoint)]
    assert names == [
        "state.bn/~/mean_ema.average[0]",
        "state.bn/~/mean_ema.hidden[1]",
        "state.bn/~/mean_ema.average[2]",
    ]
    assert [layer.helpers["mean_ema/counter"].read() for layer in find_layers(checkpoint)] == [
        5,
        0,
        5,
    ]


PARTS = ["params", "batch_stats", "state", "opt_state", "bn", "net/bn", "bn/~/mean_ema", "value"]
PARTS += ["bn/~/var_ema", "mean", "var", "scale", "bias", "offset", "average", "hidden", "counter"]
PARTS += ["running_mean", "running_var", "BatchNorm_0", "count", "step", "", "/", "batch_norm"]
PATHS = st.lists(st.sampled_from(PARTS), max_size=4).map(tuple)
SHAPES = st.lists(st.integers(0, 3), max_size=4).map(tuple)


@settings(max_examples=300)
@given(st.dictionaries(PATHS, SHAPES, max_size=12), st.lists(PATHS, max_size=3))
def test_any_tree_makes_layers_whose_members_can_be_read(
    tree: dict[tuple[str, ...], Shape], others: list[tuple[str, ...]]
) -> None:
    paths = {".".join(path): path for path in tree}
    names = flax_names(paths, others)
    variables = {
        stored: Variable(
            stored, tree[path], "float32", lambda shape=tree[path]: np.zeros(shape, "f4")
        )
        for stored, path in paths.items()
    }
    known = with_sums_for_averages(names.known, variables)
    checkpoint = Checkpoint(
        "x", "x", "orbax", variables, known_names=known, partial=names.partial, named_by="tree"
    )
    layers = find_layers(with_stacked_layers(checkpoint, paths))
    assert len({layer.name for layer in layers}) == len(layers)
    for layer in layers:
        for member in layer.variables.values():
            assert member.read().shape == member.shape


@given(
    arrays.arrays(
        np.float32,
        arrays.array_shapes(min_dims=2, max_dims=4, max_side=4),
        elements=st.floats(-9, 9, width=32),
    )
)
def test_the_slices_hold_every_element_once(array: NDArray[Any]) -> None:
    layers = layers_of({"batch_stats/bn/mean": array, "batch_stats/bn/var": array})
    if np.prod(array.shape[:-1]) > 1:
        read = [layer.variables["moving_mean"].read() for layer in layers.values()]
        assert sum(map(np.size, read)) == array.size
        assert np.array_equal(np.sort(np.concatenate(read)), np.sort(array.ravel()))


def test_each_array_is_read_once() -> None:
    reads: list[str] = []
    stored = state((3, 4), (3, 4))
    paths = {path.replace("/", "."): tuple(path.split("/")) for path in stored}

    def variable(name: str, array: NDArray[Any]) -> Variable:
        return Variable(name, array.shape, "float32", lambda: reads.append(name) or array)

    variables = {name: variable(name, stored["/".join(path)]) for name, path in paths.items()}
    known = flax_names(paths).known
    checkpoint = Checkpoint("x", "x", "orbax", variables, known_names=known, named_by="tree")
    for layer in with_stacked_layers(checkpoint, paths).layers or ():
        for member in layer.variables.values():
            member.read()
    assert sorted(reads) == sorted(variables)


@pytest.mark.parametrize("command", ["check", "list"])
def test_a_note_says_that_slices_are_layers(run: Run, command: str) -> None:
    outcome = run(command, FIXTURES / "orbax_linen_scanned")
    assert "the arrays of blocks/bn are judged slice by slice" in outcome.said
    assert "3 BN layers" in outcome.said


def test_one_slice_can_be_named(run: Run) -> None:
    outcome = run("dump", FIXTURES / "orbax_linen_scanned", "--layer", "blocks/bn[2]")
    assert outcome.exit_code == 0
    assert "moving_variance  1 in every channel" in outcome.out
