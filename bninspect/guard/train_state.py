"""The state of a JAX training as a checkpoint: variables of linen, a TrainState, a state of NNX.

A state is walked by what Python knows of it: mappings, sequences, dataclasses, and the variables of
NNX, which hold an array. So no JAX is imported. An array is read as NumPy's, and
only if it belongs to a BN layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from bninspect.errors import UsageProblem
from bninspect.formats.orbax.flax_names import flax_names
from bninspect.guard.arrays import copied_values
from bninspect.model.checkpoint import Checkpoint, Variable

Path = tuple[str, ...]

_AFFINE = ("scale", "bias")
# Where nothing but statistics is given, their collection is not part of it.
_STATISTICS = "batch_stats"
# What gives the array in an nnx.Variable, in one of Flax before 0.12, in a VariableState or a box
# of linen's metadata (flax/nnx/variablelib.py, flax/core/meta.py).
_CONTENTS = ("get_raw_value", "raw_value", "value")
_JOINT = "/"


def state_checkpoint(state: Any, name: str) -> Checkpoint:
    """Return the checkpoint that a state stands for; `name` is that of the state in sentences.

    Raises `UsageProblem` for what holds no arrays.
    """
    leaves = dict(find_leaves(state))
    if not leaves:
        raise UsageProblem(
            "expected a state with arrays, such as {'params': …, 'batch_stats': …}, a TrainState or"
            f" nnx.state(model), got {type(state).__name__}"
        )
    if not any(path[-1] in _AFFINE for path in leaves) and not any(
        _STATISTICS in path for path in leaves
    ):
        leaves = {(_STATISTICS, *path): leaf for path, leaf in leaves.items()}
    paths = {_JOINT.join(path): path for path in leaves}
    names = flax_names(paths)
    variables = {
        stored: variable
        for stored, path in paths.items()
        if (variable := _variable(stored, leaves[path])) is not None
    }
    return Checkpoint(
        path=name,
        resolved=name,
        format="orbax",
        variables={s: v for s, v in variables.items() if s not in names.optimizer},
        optimizer={s: v for s, v in variables.items() if s in names.optimizer},
        named_by="tree",
        known_names=names.known,
        partial=names.partial,
        unchecked=names.unchecked,
    )


def find_leaves(state: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield path and leaf of each array, or of the variable that holds one, in a state."""
    children = _children(state)
    if children is not None:
        for key, child in children:
            yield from find_leaves(child, (*path, key))
    elif path and hasattr(_contents(state), "dtype"):
        yield path, state


def _children(state: Any) -> list[tuple[str, Any]] | None:
    """Return the children of a node by their keys; None for a leaf."""
    if isinstance(state, Mapping):
        return [(str(key), child) for key, child in state.items()]
    if isinstance(state, tuple) and hasattr(state, "_fields"):
        return list(zip(state._fields, state, strict=True))
    if isinstance(state, (list, tuple)):
        return [(str(index), child) for index, child in enumerate(state)]
    if is_dataclass(state) and not any(hasattr(state, name) for name in _CONTENTS):
        # flax.struct marks what is no part of the tree, such as apply_fn.
        own = [each.name for each in fields(state) if each.metadata.get("pytree_node", True)]
        return [(name, getattr(state, name)) for name in own]
    return None


def is_variable(leaf: Any) -> bool:
    """Return whether a leaf holds an array that may be replaced, as an nnx.Variable does."""
    return _contents(leaf) is not leaf


def _contents(leaf: Any) -> Any:
    name = next((name for name in _CONTENTS if hasattr(leaf, name)), None)
    if name is None:
        return leaf
    contents = getattr(leaf, name)
    return contents() if callable(contents) else contents


def _variable(name: str, leaf: Any) -> Variable | None:
    array = _contents(leaf)
    if not hasattr(array, "shape"):
        return None
    dtype = getattr(array.dtype, "name", str(array.dtype))  # that of a random key is no NumPy's
    return Variable(name, tuple(array.shape), dtype, lambda: copied_values(array))
