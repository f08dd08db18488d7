"""BN layers whose members are stacked in one array each, along its leading axes.

`nn.scan`, `nn.vmap`, their counterparts of NNX and Haiku, and `jax.vmap` over whole trainings make
such arrays: of shape (layers, channels), or (channels, layers) by `variable_axes`. Statistics of a
BN layer over several axes look the same (flax/linen/normalization.py: `axis`). Nothing stored tells
one from the other, so the slices are judged one by one in both cases, and a note says so.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from typing import NamedTuple

from bninspect.batchnorm.find_layers import find_layers, in_natural_order
from bninspect.formats.orbax.haiku_averages import sums_for_averages
from bninspect.model.checkpoint import Checkpoint, Variable
from bninspect.model.layer import BNLayer
from bninspect.model.roles import AFFINE, STATISTICS
from bninspect.wording import listed

_MOST_SLICES = 1024  # of one array
_MOST_IN_ALL = 1 << 14  # a shape takes some bytes of a file, each slice some hundreds in memory

Path = tuple[str, ...]
Index = tuple[int | slice, ...]


class _Stack(NamedTuple):
    """How the members of layers are stacked: `sizes` is the shape of the leading axes.

    `shape` is that of a statistic. With `is_last` the second of two axes is that of the layers.
    """

    shape: tuple[int, ...]
    sizes: tuple[int, ...]
    is_last: bool

    def indices(self) -> Iterator[Index]:
        """Yield the index of each layer in the arrays."""
        for index in itertools.product(*map(range, self.sizes)):
            yield (slice(None), *index) if self.is_last else index

    @property
    def shape_of_layer(self) -> tuple[int, ...]:
        """Return the shape of one layer's statistics."""
        return self.shape[:1] if self.is_last else self.shape[len(self.sizes) :]


def with_stacked_layers(checkpoint: Checkpoint, paths: Mapping[str, Path]) -> Checkpoint:
    """Return the checkpoint with a layer for each slice of stacked members.

    `paths` has the paths of the variables in the tree by their names as stored. Raises a
    `ReadProblem` if the shape of a member cannot be read.
    """
    layers: list[BNLayer] = []
    stacked: list[str] = []
    left_whole: list[str] = []
    left = _MOST_IN_ALL
    found = find_layers(checkpoint)
    sizes = _sizes_in_modules(found, checkpoint, paths)
    for layer in found:
        stack = _stack_of(layer, sizes.get(_module_around(layer, paths)))
        if stack is not None and math.prod(stack.sizes) <= left:
            left -= math.prod(stack.sizes)
            stacked.append(layer.name)
            layers += _slices(layer, stack)
        else:
            left_whole += [layer.name] if stack is not None else []
            layers.append(layer)
    if not stacked:
        return checkpoint
    arrays = f"the arrays of {listed(stacked)}"
    notes = [f"{arrays} are judged slice by slice, each as a layer: scan and vmap stack layers so"]
    if left_whole:
        notes.append(f"{listed(left_whole)} are not: these are more slices than {_MOST_IN_ALL}")
    return replace(
        checkpoint, layers=tuple(in_natural_order(layers)), notes=(*checkpoint.notes, *notes)
    )


class _Sizes(NamedTuple):
    """The sizes of all arrays of a module along their first and along their second axis.

    `outputs` are those of kernels, of three axes or more, along the last.
    """

    first: set[tuple[int, ...]]
    second: set[tuple[int, ...]]
    outputs: set[tuple[int, ...]]


def _sizes_in_modules(
    layers: Iterable[BNLayer], checkpoint: Checkpoint, paths: Mapping[str, Path]
) -> dict[Path, _Sizes]:
    """Return the sizes in the modules around the layers whose statistics have two axes.

    Only of these the metadata of all arrays is read.
    """
    modules = {_module_around(one, paths) for one in layers if len(_shape_of(one) or ()) == 2}
    sizes = {module: _Sizes(set(), set(), set()) for module in modules if module}
    lengths = {len(module) for module in sizes}
    for stored in checkpoint.variables if sizes else ():
        for module in {paths[stored][:length] for length in lengths} & sizes.keys():
            shape = checkpoint.variables[stored].shape
            sizes[module].first.add(shape[:1])
            sizes[module].second.add(shape[1:2])
            sizes[module].outputs.update([shape[-1:]] if len(shape) > 2 else [])
    return sizes


def _shape_of(layer: BNLayer) -> tuple[int, ...] | None:
    """Return the shape that all statistics of a layer have; None if they differ."""
    shapes = {layer.variables[role].shape for role in STATISTICS if role in layer.variables}
    return shapes.pop() if len(shapes) == 1 else None


def _module_around(layer: BNLayer, paths: Mapping[str, Path]) -> Path:
    """Return the path of the module that a layer is in, by its parameters; empty without any."""
    affine = next((layer.variables[role] for role in AFFINE if role in layer.variables), None)
    return paths[affine.name][:-2] if affine is not None else ()


def _stack_of(layer: BNLayer, sizes_around: _Sizes | None) -> _Stack | None:
    """Return how the members of a layer are stacked; None if they are not.

    `sizes_around` are those of the arrays of the module that the layer is in.
    """
    shape = _shape_of(layer)
    if shape is None:
        return None
    # Haiku keeps all axes of the input, with size 1 where it was averaged over
    # (haiku/_src/batch_norm.py): the first, that of the batch, is larger only where layers stack.
    sizes = shape[:-1][:1] if layer.family == "haiku" else shape[:-1]
    is_last = len(shape) == 2 and _is_stacked_last(shape, sizes_around)
    stack = _Stack(shape, shape[1:] if is_last else sizes, is_last)
    affine = (layer.variables[role].shape for role in AFFINE if role in layer.variables)
    is_whole = all(of_member in (shape, stack.shape_of_layer) for of_member in affine)
    return stack if is_whole and 1 < math.prod(stack.sizes) <= _MOST_SLICES else None


def _is_stacked_last(shape: tuple[int, ...], around: _Sizes | None) -> bool:
    """Return whether all arrays of the module around a layer are stacked along their second axis.

    That module was scanned, so the others in it, such as kernels, have the axis of layers too.
    Where a kernel is square, both axes fit: its last is that of the channels, not of the layers.
    """
    if around is None or around.second != {shape[1:]}:
        return False
    return around.first != {shape[:1]} or around.outputs == {shape[:1]} != {shape[1:]}


def _slices(layer: BNLayer, stack: _Stack) -> Iterator[BNLayer]:
    """Yield a layer for each slice of stacked members; each array is read once."""
    members = {role: _read_once(variable) for role, variable in layer.variables.items()}
    helpers = {
        name: _read_once(variable)
        for name, variable in layer.helpers.items()
        if variable.shape[: len(stack.sizes)] == stack.sizes and not stack.is_last
    }
    for index in stack.indices():
        variables = {
            role: _slice(variable, index) if variable.shape == stack.shape else variable
            for role, variable in members.items()
        }
        of_layer = {name: _slice(variable, index) for name, variable in helpers.items()}
        yield replace(
            layer,
            name=layer.name + _as_text(index),
            variables={**variables, **sums_for_averages(of_layer)},
            helpers=of_layer,
        )


def _read_once(variable: Variable) -> Variable:
    return variable._replace(load=cache(variable.load))


def _slice(variable: Variable, index: Index) -> Variable:
    axes = [axis for axis, part in enumerate(index) if isinstance(part, int)]
    shape = tuple(size for axis, size in enumerate(variable.shape) if axis not in axes)
    return variable._replace(
        name=variable.name + _as_text(index), shape=shape, load=lambda: variable.read()[index]
    )


def _as_text(index: Iterable[int | slice]) -> str:
    """Return an index as Python writes it, `[2]` or `[:,2]`."""
    return f"[{','.join(':' if isinstance(part, slice) else str(part) for part in index)}]"
