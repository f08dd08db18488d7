"""Names of Flax's BN layers, by the paths in a train state.

Linen keeps the members of a layer in two collections, at the same path in both
(flax/linen/normalization.py):

    params/Encoder_0/BatchNorm_0/scale, bias      batch_stats/Encoder_0/BatchNorm_0/mean, var

NNX keeps all of them below the layer (flax/nnx/nn/normalization.py), each with its `value` as of
Flax 0.8; a script may have split parameters and statistics into parts of any name. So a layer is
where a mean and a var are, together with scale and bias there, or at the one path that differs from
it in a single part.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from bninspect.model.checkpoint import UncheckedGroup

Path = tuple[str, ...]

_STATISTICS, _PARAMETERS = "batch_stats", "params"
_MEAN, _VARIANCE, _SCALE, _BIAS = "mean", "var", "scale", "bias"
_VALUE = ("value", "raw_value")  # of an nnx.Variable
# What optimizers are called in a train state: TrainState of flax/training/train_state.py,
# nnx.Optimizer; optax's own states have the fields below.
_OPTIMIZERS = {"opt_state", "opt_states", "optimizer", "optimizer_state", "opt", "tx"}
_COUNT = "count"  # of ScaleByAdamState and others, optax/_src/transform.py
_STEP = "step"
_STEP_DEPTH = 2
_COLLECTIONS = (_PARAMETERS, _STATISTICS)
_MOST_PARTS = 64
_NOT_PROVED = "a mean and a var without scale and bias may be no BN layer"
_DEFAULT_NAME = r"(Sync)?BatchNorm(_\d+)?"  # flax/linen/module.py: the class, and a number


class FlaxNames(NamedTuple):
    """The names of the variables of a train state.

    `known` has stored → known name, `optimizer` the stored names of the optimizer's variables,
    `partial` the layers without statistics, `unchecked` the groups of which nothing proves that
    they make a BN layer.
    """

    known: dict[str, str]
    optimizer: frozenset[str]
    partial: frozenset[str]
    unchecked: tuple[UncheckedGroup, ...]


def flax_names(paths: Mapping[str, Path]) -> FlaxNames:
    """Return the names of variables, given as stored name → path."""
    optimizer = {stored for stored, path in paths.items() if _is_of_optimizer(path)}
    groups: dict[Path, dict[str, str]] = {}
    known: dict[str, str] = {}
    for stored, whole_path in paths.items():
        path = _without_value(whole_path)
        if stored in optimizer:
            known.update(_of_optimizer(stored, path))
        elif path:
            groups.setdefault(path[:-1], {})[path[-1]] = stored
            known[stored] = "/".join(_as_count(path) if _is_step(path) else path)
    affine_scopes = _AffineScopes(groups)
    unchecked: list[UncheckedGroup] = []
    taken: set[str] = set()
    used: set[Path] = set()
    # The usual collection first: a copy of it (averaged weights) gets the longer name.
    for scope, members in sorted(groups.items(), key=lambda item: _STATISTICS not in item[0]):
        statistics = [members[leaf] for leaf in (_MEAN, _VARIANCE) if leaf in members]
        affine = affine_scopes.of(scope) if statistics else None
        is_bn = _STATISTICS in scope or (len(statistics) == 2 and affine is not None)
        if statistics and not is_bn:
            for stored in statistics:
                del known[stored]  # a name that no layer is found by
            if len(statistics) == 2 and _COUNT not in members:
                unchecked.append(UncheckedGroup("/".join(scope), tuple(statistics), _NOT_PROVED))
        if not statistics or not is_bn:
            continue
        name = _layer_name(scope, affine, taken)
        taken.add(name)
        known.update(_named(name, members, (_MEAN, _VARIANCE)))
        if affine is not None and affine not in used:
            known.update(_named(name, groups[affine], (_SCALE, _BIAS)))
            used.add(affine)
    lacking = dict(_without_statistics(groups, taken))
    known.update(lacking)
    partial = frozenset(name.rpartition("/")[0] for name in lacking.values())
    return FlaxNames(known, frozenset(optimizer), partial, tuple(unchecked))


def _is_of_optimizer(path: Path) -> bool:
    """Return whether a path leads through an optimizer.

    Below `params` and `batch_stats` the names are those of modules, which may be called `opt`. An
    optimizer has slots at such paths, below its own name.
    """
    first = (part for part in path if part in _OPTIMIZERS or part in (_STATISTICS, _PARAMETERS))
    return next(first, None) in _OPTIMIZERS


def _without_value(path: Path) -> Path:
    return path[:-1] if path[-1:] and path[-1] in _VALUE else path


def _of_optimizer(stored: str, path: Path) -> Iterator[tuple[str, str]]:
    """Yield stored and known name of what counts the steps of an optimizer."""
    if path[-1:] == (_COUNT,):
        yield stored, "/".join(_as_count(path))
    elif path[-1:] == (_STEP,):
        yield stored, "/".join(path)


def _as_count(path: Path) -> Path:
    return (*path[:-1], "iterations")


def _is_step(path: Path) -> bool:
    """Return whether a path is that of the step of a train state, by itself or in an item.

    It counts on where a training goes on with a new optimizer, which counts from 0.
    """
    return path[-1] == _STEP and len(path) <= _STEP_DEPTH and path[0] not in _COLLECTIONS


def _has_affine(members: Mapping[str, str]) -> bool:
    return _SCALE in members or _BIAS in members


class _AffineScopes:
    """The scopes that hold scale or bias, looked up by a path that differs in one part."""

    def __init__(self, groups: Mapping[Path, Mapping[str, str]]) -> None:
        self._scopes = {scope for scope, members in groups.items() if _has_affine(members)}
        self._by_rest: dict[tuple[int, Path], list[Path]] = {}
        for scope in self._scopes:
            for rest in _rests(scope):
                self._by_rest.setdefault(rest, []).append(scope)

    def of(self, scope: Path) -> Path | None:
        """Return the scope itself, that in the collection `params`, else the only one; or None."""
        if scope in self._scopes:
            return scope
        if _STATISTICS in scope:
            index = scope.index(_STATISTICS)
            usual = (*scope[:index], _PARAMETERS, *scope[index + 1 :])
            if usual in self._scopes:
                return usual
        found = [other for rest in _rests(scope) for other in self._by_rest.get(rest, ())]
        return found[0] if len(found) == 1 else None


def _rests(scope: Path) -> Iterator[tuple[int, Path]]:
    """Yield the path without each of its parts but the last, which is the layer's own name."""
    if len(scope) <= _MOST_PARTS:
        for index in range(len(scope) - 1):
            yield index, (*scope[:index], *scope[index + 1 :])


def _layer_name(scope: Path, affine: Path | None, taken: Iterable[str]) -> str:
    """Return the name of a layer: its path without the collection, unless that is taken."""
    other = affine or scope
    parts = [
        part
        for part, affine_part in zip(scope, other, strict=True)
        if part == affine_part and part != _STATISTICS
    ]
    name = "/".join(parts)
    return name if name and name not in taken else "/".join(scope)


def _named(
    name: str, members: Mapping[str, str], leaves: Iterable[str]
) -> Iterator[tuple[str, str]]:
    """Yield stored and known names of the members of a layer.

    Its bias is called beta: other layers have a bias, too.
    """
    for leaf in leaves:
        if leaf in members:
            yield members[leaf], f"{name}/{'beta' if leaf == _BIAS else leaf}"


def _without_statistics(
    groups: Mapping[Path, Mapping[str, str]], taken: Iterable[str]
) -> Iterator[tuple[str, str]]:
    """Yield stored and known names of layers that have the name of a BN layer and no statistics."""
    taken = set(taken)
    for scope, members in groups.items():
        name = "/".join(part for part in scope if part != _PARAMETERS)
        is_bn = scope and re.fullmatch(_DEFAULT_NAME, scope[-1]) is not None
        if is_bn and _PARAMETERS in scope and name not in taken and _has_affine(members):
            yield from _named(name, members, (_SCALE, _BIAS))
