"""Names of the BN layers of Flax and Haiku, by the paths in a train state.

Linen keeps the members of a layer in two collections, at the same path in both
(flax/linen/normalization.py):

    params/Encoder_0/BatchNorm_0/scale, bias      batch_stats/Encoder_0/BatchNorm_0/mean, var

NNX keeps all of them below the layer (flax/nnx/nn/normalization.py), each with its `value` as of
Flax 0.8; a script may have split parameters and statistics into parts of any name. So a layer is
where a mean and a var are, together with scale and bias there, or at the one path that differs from
it in a single part.

Haiku keeps the parameters and the state in two parts of any name, with a key for each module
(haiku/_src/batch_norm.py; `~` is its `__init__`, which made the averages):

    params/net/~/bn/scale, offset       state/net/~/bn/~/mean_ema/average, hidden, counter
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

from bninspect.formats.orbax.unchecked import Members, Path, of_equinox, of_other_names
from bninspect.model.checkpoint import UncheckedGroup

_STATISTICS, _PARAMETERS = "batch_stats", "params"
_SCALE, _BIAS, _OFFSET = "scale", "bias", "offset"
_VALUE = ("value", "raw_value")  # of an nnx.Variable
# What optimizers are called in a train state: TrainState of flax/training/train_state.py,
# nnx.Optimizer; optax's own states have the fields below.
_OPTIMIZERS = {"opt_state", "opt_states", "optimizer", "optimizer_state", "opt", "tx"}
_COUNT = "count"  # of ScaleByAdamState and others, optax/_src/transform.py
_STEP = "step"
_STEP_DEPTH = 2
_COLLECTIONS = (_PARAMETERS, _STATISTICS)
_MOST_PARTS = 64
_AVERAGE_OF_HAIKU = re.compile(r"(?P<module>.+)/~/(?P<average>mean_ema|var_ema)", re.DOTALL)
_NOT_PROVED = "a mean and a var without scale and bias may be no BN layer"


class Layout(NamedTuple):
    """The names of a layer's members in one framework, and the expression of its default names."""

    statistics: tuple[str, str]
    affine: tuple[str, str]
    default_name: str
    helpers: tuple[str, ...] = ()


FLAX = Layout(
    ("mean", "var"),
    (_SCALE, _BIAS),
    r"(Sync)?BatchNorm(_\d+)?",  # flax/linen/module.py: the class, and a number
)
HAIKU = Layout(
    ("mean_ema/average", "var_ema/average"),
    (_SCALE, _OFFSET),
    r"(.*/)?batch_?norm(_\d+)?",
    helpers=tuple(
        f"{ema}/{leaf}" for ema in ("mean_ema", "var_ema") for leaf in ("hidden", "counter")
    ),
)
_LAYOUTS = (
    FLAX,
    HAIKU,
    # Modules of the user's own, with the names of PyTorch and Keras.
    FLAX._replace(statistics=("running_mean", "running_var")),
    FLAX._replace(statistics=("moving_mean", "moving_variance")),
    FLAX._replace(statistics=("moving_mean", "moving_var")),
)


class FlaxNames(NamedTuple):
    """The names of the variables of a train state.

    `known` has stored → known name, `optimizer` the stored names of the optimizer's variables,
    `partial` the layers without statistics, `unchecked` the groups of which nothing proves that, or
    how, they make a BN layer.
    """

    known: dict[str, str]
    optimizer: frozenset[str]
    partial: frozenset[str]
    unchecked: tuple[UncheckedGroup, ...]


def flax_names(paths: Mapping[str, Path], others: Iterable[Path] = ()) -> FlaxNames:
    """Return the names of variables, given as stored name → path.

    `others` are the paths of values that are no arrays.
    """
    optimizer = {stored for stored, path in paths.items() if _is_of_optimizer(path)}
    groups: dict[Path, Members] = {}
    known: dict[str, str] = {}
    for stored, whole_path in paths.items():
        path = _of_member(whole_path)
        if stored in optimizer:
            known.update(_of_optimizer(stored, path))
        elif path:
            groups.setdefault(path[:-1], {})[path[-1]] = stored
            known[stored] = "/".join(_as_count(path) if _is_step(path) else path)
    layers = _Layers(groups)
    # The usual collection first: a copy of it (averaged weights) gets the longer name.
    for scope in sorted(groups, key=lambda scope: _STATISTICS not in scope):
        layers.add(scope)
    for stored in layers.unproved:
        del known[stored]  # a name that no layer is found by
    known.update(layers.known)
    lacking = dict(_without_statistics(groups, layers.names))
    known.update(lacking)
    partial = frozenset(name.rpartition("/")[0] for name in lacking.values())
    unchecked = (*layers.unchecked, *of_other_names(groups), *of_equinox(groups, others))
    return FlaxNames(known, frozenset(optimizer), partial, unchecked)


class _Layers:
    """The BN layers among groups of variables.

    `names` are their names, `known` has stored → known name of their members. `unproved` are the
    stored names of statistics that nothing proves to be those of BN.
    """

    def __init__(self, groups: Mapping[Path, Members]) -> None:
        self._groups = groups
        self._affine_scopes = _AffineScopes(groups)
        self._used: set[Path] = set()
        self.names: set[str] = set()
        self.known: dict[str, str] = {}
        self.unproved: list[str] = []
        self.unchecked: list[UncheckedGroup] = []

    def add(self, scope: Path) -> None:
        """Add the layer whose statistics are in a scope, if they are those of one."""
        members = self._groups[scope]
        layout = max(_LAYOUTS, key=lambda one: len(members.keys() & {*one.statistics}))
        statistics = [members[leaf] for leaf in layout.statistics if leaf in members]
        if not statistics:
            return
        affine = self._affine_scopes.of(scope)
        is_certain = layout is HAIKU or _STATISTICS in scope
        if not is_certain and (len(statistics) < 2 or affine is None):
            self.unproved += statistics
            if len(statistics) == 2 and _COUNT not in members:
                self.unchecked.append(
                    UncheckedGroup("/".join(scope), tuple(statistics), _NOT_PROVED)
                )
            return
        name = _layer_name(scope, affine, self.names, is_key=layout is HAIKU)
        self.names.add(name)
        self.known.update(_named(name, members, (*layout.statistics, *layout.helpers)))
        if affine is not None and affine not in self._used:
            self.known.update(_named(name, self._groups[affine], layout.affine))
            self._used.add(affine)


def _is_of_optimizer(path: Path) -> bool:
    """Return whether a path leads through an optimizer.

    Below `params` and `batch_stats` the names are those of modules, which may be called `opt`. An
    optimizer has slots at such paths, below its own name.
    """
    first = (part for part in path if part in _OPTIMIZERS or part in (_STATISTICS, _PARAMETERS))
    return next(first, None) in _OPTIMIZERS


def _of_member(path: Path) -> Path:
    """Return the path of a member: its layer's, and its own name, `mean` or `mean_ema/average`."""
    if path[-1:] and path[-1] in _VALUE:
        path = path[:-1]
    average = _AVERAGE_OF_HAIKU.fullmatch(path[-2]) if len(path) > 1 else None
    if average is None:
        return path
    return (*path[:-2], average["module"], f"{average['average']}/{path[-1]}")


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


def _has_affine(members: Members) -> bool:
    return any(leaf in members for leaf in (_SCALE, _BIAS, _OFFSET))


class _AffineScopes:
    """The scopes that hold scale or bias, looked up by the scope of statistics.

    They differ in one part. The collection `batch_stats` may lie deeper than `params`, as in the
    train states of Scenic: `params/net/bn` and `model_state/batch_stats/net/bn`.
    """

    def __init__(self, groups: Mapping[Path, Members]) -> None:
        self._scopes = {scope for scope, members in groups.items() if _has_affine(members)}
        self._by_rest = _Scopes()
        for scope in self._scopes:
            for rest in _rests(scope):
                self._by_rest.add(rest, scope)

    def of(self, scope: Path) -> Path | None:
        """Return the scope itself, that in the collection `params`, else the only one; or None."""
        if scope in self._scopes:
            return scope
        for usual in _in_parameters(scope):
            if usual in self._scopes:
                return usual
        found = self._by_rest.of(_rests(scope))
        if len(found) > 1:  # copies of the parameters, such as their averages
            found = [other for other in found if _PARAMETERS in other]
        return found[0] if len(found) == 1 else None


def _in_parameters(scope: Path) -> Iterator[Path]:
    """Yield the paths that a scope in `batch_stats` may have in `params`, the nearest first."""
    if _STATISTICS in scope and len(scope) <= _MOST_PARTS:
        index = scope.index(_STATISTICS)
        for end in range(index, -1, -1):
            yield (*scope[:end], _PARAMETERS, *scope[index + 1 :])


class _Scopes:
    """Scopes by what they have in common; of many only so many that they are not the only one."""

    def __init__(self) -> None:
        self._scopes: dict[tuple[int, Path], dict[bool, list[Path]]] = {}

    def add(self, key: tuple[int, Path], scope: Path) -> None:
        """Add a scope under a key."""
        of_kind = self._scopes.setdefault(key, {}).setdefault(_PARAMETERS in scope, [])
        if len(of_kind) < 2:
            of_kind.append(scope)

    def of(self, keys: Iterable[tuple[int, Path]]) -> list[Path]:
        """Return the scopes under some keys."""
        kinds = (kind for key in keys for kind in self._scopes.get(key, {}).values())
        return [scope for kind in kinds for scope in kind]


def _rests(scope: Path) -> Iterator[tuple[int, Path]]:
    """Yield the path without each of its parts but the last, which is the layer's own name."""
    if len(scope) <= _MOST_PARTS:
        for index in range(len(scope) - 1):
            yield index, (*scope[:index], *scope[index + 1 :])


def _layer_name(scope: Path, affine: Path | None, taken: Collection[str], *, is_key: bool) -> str:
    """Return the name of a layer: its path without the collection, unless that is taken.

    With `is_key` the last part of the path is all of the layer's own path.
    """
    if is_key and scope[-1] not in taken:
        return scope[-1]
    other = affine or scope
    if len(other) == len(scope):
        parts = [
            part
            for part, affine_part in zip(scope, other, strict=True)
            if part == affine_part and part != _STATISTICS
        ]
    else:
        parts = [part for part in other if part != _PARAMETERS]
    name = "/".join(parts)
    return name if name and name not in taken else "/".join(scope)


def _named(name: str, members: Members, leaves: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield stored and known names of the members of a layer.

    Its bias is called beta: other layers have a bias, too.
    """
    for leaf in leaves:
        if leaf in members:
            yield members[leaf], f"{name}/{'beta' if leaf == _BIAS else leaf}"


def _without_statistics(
    groups: Mapping[Path, Members], taken: Collection[str]
) -> Iterator[tuple[str, str]]:
    """Yield stored and known names of layers that have the name of a BN layer and no statistics."""
    for scope, members in groups.items():
        name = "/".join(part for part in scope if part != _PARAMETERS)
        layout = next(
            (layout for layout in (FLAX, HAIKU) if _has_default_name(scope, layout)), None
        )
        if layout is None or _PARAMETERS not in scope or name in taken:
            continue
        # Layers of other kinds have these names in a library of layers, with other members.
        if _has_affine(members) and (layout is FLAX or _OFFSET in members):
            yield from _named(name, members, layout.affine)


def _has_default_name(scope: Path, layout: Layout) -> bool:
    return bool(scope) and re.fullmatch(layout.default_name, scope[-1], re.DOTALL) is not None
