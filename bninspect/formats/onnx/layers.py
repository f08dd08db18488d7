"""BN layers of an ONNX model: what its BatchNormalization nodes say of them, by name and family.

Exporters store equal tensors once: tf2onnx and the newer exporter of PyTorch under any one of their
names. So the names of a stuck layer may be those of another one, and its node tells which it is.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import takewhile
from typing import NamedTuple

from bninspect.batchnorm.families import FAMILIES, Family
from bninspect.batchnorm.find_layers import family_of_names
from bninspect.batchnorm.name_groups import LEAVES, split_name
from bninspect.errors import ReadProblem
from bninspect.formats.onnx.graph import scope_of
from bninspect.formats.onnx.sites import Site, Stored
from bninspect.formats.onnx.tensors import Tensor
from bninspect.model.checkpoint import UncheckedGroup, Variable
from bninspect.model.layer import BNLayer, OnnxNode
from bninspect.model.roles import AFFINE, STATISTICS, Role
from bninspect.wording import plural

PYTORCH = Family(
    "pytorch",
    "torch/nn/modules/batchnorm.py",
    mean=("running_mean",),
    variance=("running_var",),
    gamma=("weight",),
    beta=("bias",),
    epsilon=1e-5,
)
OTHER = Family("onnx", "any exporter: nothing says what trained the model", epsilon=1e-5)
_KERAS = next(family for family in FAMILIES if family.name == "keras")

# The names of variables by their framework. PyTorch: the path of the module and its attribute.
_OF_PYTORCH = re.compile(r"(?:(?P<scope>.+)\.)?(?:weight|bias|running_mean|running_var)")
# TensorFlow 2: the operation that reads a resource, which Keras puts into the scope of the layer.
_OF_KERAS = re.compile(
    r"(?P<scope>.+?)(?:/FusedBatchNorm(?:V\d)?)?/ReadVariableOp(?:_\d+)?(?::\d+)?(?:__\d+)?"
)
# TensorFlow 1: the variable itself, or the Identity that reads it.
_OF_TENSORFLOW_1 = re.compile(r"(?P<name>.+?)(?:/read)?(?::\d+)?(?:__\d+)?")
_KERNEL = re.compile(r"/?(?P<scope>.+)/(?:FusedBatchNorm(?:V\d)?|BatchNormalization)(?:_\d+)?")
_LEAST_AGREEING = 2
_AFFINE_LEAVES = {*PYTORCH.gamma, *PYTORCH.beta, *AFFINE}
# The statistic that gamma or beta equals before training.
_OF_EQUAL_START: dict[Role, Role] = {"gamma": "moving_variance", "beta": "moving_mean"}
_LEAVES_OF_STATISTICS = {"running_mean", "running_var", "moving_mean", "moving_variance"}
_COMPUTED = "computed by other nodes of the model, and not stored"
_NO_NODE = "no BatchNormalization node takes its moving_mean and moving_variance, which are stored"
# The producers that name variables as layers of Keras do, not as a graph does.
_OF_LAYERS = ("keras2onnx", "onnxmltools")

ReadTensor = Callable[[Tensor], Variable]


class _Name(NamedTuple):
    """A name of a variable, taken apart: the kind of framework, the layer's scope, the leaf."""

    kind: str
    scope: str
    leaf: str = ""


class FoundLayers(NamedTuple):
    """The layers of a model, and those of which nothing is stored to judge, with the reason."""

    layers: list[BNLayer]
    unchecked: tuple[UncheckedGroup, ...]
    notes: tuple[str, ...]


def layers_of(sites: Sequence[Site], producer: str, variable: ReadTensor) -> FoundLayers:
    """Return the BN layers that some nodes compute, in the order of the nodes.

    Nodes that take the same four tensors are one layer. `producer` is the program that wrote the
    model, `variable` gives the variable of a stored tensor.
    """
    judged: dict[tuple[str, ...], Site] = {}
    unread = []
    for index, site in enumerate(sites):
        if site.has_statistics:
            judged.setdefault(_key(site, index), site)
        elif not site.is_layer_norm:
            unread.append(site)
    shared = _shared(judged.values())
    names = _distinct_names([*judged.values()], shared)
    layers = [
        _layer(name, site, producer, variable)
        for name, site in zip(names, judged.values(), strict=True)
    ]
    groups = {_layer_name(site, shared): _reason(site) for site in unread}
    return FoundLayers(
        layers,
        tuple(UncheckedGroup(name, (), reason, nameable=False) for name, reason in groups.items()),
        tuple(_notes(layers)),
    )


def _notes(layers: Sequence[BNLayer]) -> Iterator[str]:
    """Yield a sentence if nodes normalize by batches: running the model ignores the statistics."""
    in_training = sum(layer.onnx is not None and layer.onnx.in_training for layer in layers)
    if in_training:
        normalize = "normalizes" if in_training == 1 else "normalize"
        yield (
            f"{in_training} of {plural(len(layers), 'BN layer')} {normalize} by the statistics of"
            " each batch here (training mode), and not by the stored ones: export the model for"
            " inference before it is used"
        )


def _key(site: Site, index: int) -> tuple[str, ...]:
    """Return the key of the layer of a node: its variables, or where they do not tell, the node.

    Where one layer takes one tensor twice, equal tensors were stored once, and so may those of
    other layers have been.
    """
    places = {stored.tensor.place for stored in site.stored.values()}
    if len(places) < len(site.stored):
        return (str(index),)
    return tuple(stored.name for stored in site.stored.values())


def _shared(sites: Iterable[Site]) -> set[str]:
    """Return the names that several layers, or two members of one, take."""
    users = Counter(stored.name for site in sites for stored in site.stored.values())
    return {name for name, count in users.items() if count > 1}


def _taken_apart(name: str) -> _Name | None:
    """Return the parts of a variable's name, None for a name that no framework gives to one."""
    if match := _OF_PYTORCH.fullmatch(name):
        return _Name("pytorch", match["scope"] or "", name.rpartition(".")[2])
    if match := _OF_KERAS.fullmatch(name):
        return _Name("keras", match["scope"])
    if match := _OF_TENSORFLOW_1.fullmatch(name):
        scope, leaf = split_name(match["name"])
        return _Name("tensorflow", scope, leaf) if scope and leaf in LEAVES else None
    return None


def _layer_name(site: Site, shared: set[str]) -> str:
    """Return what the names of the layer's own variables have in common, else its node's name."""
    if module := scope_of(site.metadata):
        return module
    own = [stored.name for stored in site.stored.values() if stored.name not in shared]
    scopes = [part.scope for name in own if (part := _taken_apart(name)) is not None]
    if len(scopes) >= _LEAST_AGREEING and len(set(scopes)) == 1 and scopes[0]:
        return scopes[0]
    if match := _KERNEL.fullmatch(site.name):
        return match["scope"]
    return _common_part(own) or site.name or next(iter(site.inputs.values()), "")


def _common_part(names: Sequence[str]) -> str:
    """Return what several names begin with, without a separator at the end; empty for numbers."""
    if len(names) < _LEAST_AGREEING:
        return ""
    columns = takewhile(lambda column: len(set(column)) == 1, zip(*names, strict=False))
    common = "".join(column[0] for column in columns).rstrip("/_.-:")
    return common if re.search("[A-Za-z]", common) else ""


def _distinct_names(sites: Sequence[Site], shared: set[str]) -> list[str]:
    """Return the names of the layers of nodes; those of nodes for layers of one name."""
    names = [_layer_name(site, shared) for site in sites]
    users = Counter(names)
    return _numbered(
        [
            site.name if users[name] > 1 and site.name else name
            for name, site in zip(names, sites, strict=True)
        ]
    )


def _numbered(names: Sequence[str]) -> list[str]:
    """Return names with a number where several layers have one name."""
    count, seen = Counter(names), Counter[str]()
    numbered = []
    for name in names:
        seen[name] += 1
        total = count[name]
        numbered.append(name if total == 1 else f"{name}#{seen[name]}of{total}")
    return numbered


def _layer(name: str, site: Site, producer: str, variable: ReadTensor) -> BNLayer:
    family = _family(site, producer)
    members = {
        role: variable(stored.tensor)._replace(name=stored.name)
        for role, stored in site.stored.items()
    }
    for role in AFFINE:
        if role in members and _is_filled_in(site, role, members[role], family):
            del members[role]
    # PyTorch writes a momentum of 1 also for an average over all batches (momentum=None).
    momentum = site.momentum if site.momentum is not None and 0.0 < site.momentum < 1.0 else None
    return BNLayer(
        name=name,
        family=family.name,
        variables=members,
        initial=family.initial,
        usual_epsilon=family.epsilon,
        momentum=momentum,
        epsilon=site.epsilon if math.isfinite(site.epsilon) and site.epsilon >= 0.0 else None,
        onnx=OnnxNode(site.name, site.in_training, site.momentum),
    )


def _family(site: Site, producer: str) -> Family:
    """Return the family of a layer, by the names of its statistics, else by the producer."""
    parts = [_taken_apart(site.stored[role].name) for role in STATISTICS]
    kinds = {part.kind for part in parts if part is not None}
    if kinds == {"keras"}:
        return _KERAS
    if kinds == {"tensorflow"} and None not in parts:
        group = {part.leaf: part.leaf for part in parts if part is not None}
        scope = next(part.scope for part in parts if part is not None)
        by_object = producer.lower() in _OF_LAYERS
        return family_of_names(scope, group, by_object=by_object) or OTHER
    return PYTORCH if producer == "pytorch" or kinds == {"pytorch"} else OTHER


def _is_filled_in(site: Site, role: Role, variable: Variable, family: Family) -> bool:
    """Return whether gamma or beta is what an exporter put where the layer has none.

    The operation needs both. Such a constant is 1 or 0 in every channel, and has no name of a
    variable while the statistics have one. PyTorch's newer exporter stores equal tensors under the
    name of the first, parameters before buffers: one named like statistics is no parameter. Where
    tf2onnx stored it with the statistics, it may be either, and shows no more than they do.
    """
    stored = site.stored[role]
    statistic = site.stored[_OF_EQUAL_START[role]]
    is_merged = stored.name == statistic.name and not _is_named_as_affine(stored)
    has_names = all(_is_variable(site.stored[one]) for one in STATISTICS)
    if not is_merged and (_is_parameter(stored) or not has_names):
        return False
    with suppress(ReadProblem):
        return bool((variable.read() == family.initial[role][0]).all())
    return False


def _is_named_as_affine(stored: Stored) -> bool:
    name = _taken_apart(stored.name)
    return name is not None and name.leaf in _AFFINE_LEAVES


def _is_parameter(stored: Stored) -> bool:
    name = _taken_apart(stored.name)
    is_buffer = name is not None and name.leaf in (*PYTORCH.mean, *PYTORCH.variance)
    return _is_variable(stored) and not is_buffer


def _is_variable(stored: Stored) -> bool:
    return not stored.is_constant and _taken_apart(stored.name) is not None


def _reason(site: Site) -> str:
    """Return the clause that says why nothing of a layer can be judged."""
    roles: dict[str, list[str]] = {}  # by where the values are instead
    for role in STATISTICS:
        if role not in site.stored:
            roles.setdefault(site.unread.get(role, _COMPUTED), []).append(role)
    return ", ".join(
        f"its {' and '.join(missing)} {'are' if len(missing) > 1 else 'is'} {where}"
        for where, missing in roles.items()
    )


def groups_without_node(
    names: Iterable[str], sites: Iterable[Site], known: Iterable[str]
) -> Iterator[UncheckedGroup]:
    """Yield the stored statistics of `names` that no node of `sites` takes as groups.

    Other operations may compute such a layer. `known` are the names of layers that are found, or
    that are named as not checked for another reason.
    """
    taken = {stored.tensor.name for site in sites for stored in site.stored.values()}
    scopes: dict[str, dict[str, str]] = {}
    for name in names:
        part = None if name in taken else _taken_apart(name)
        if part is not None and part.leaf in _LEAVES_OF_STATISTICS:
            scopes.setdefault(part.scope, {})[part.leaf] = name
    known = {*known}
    for scope, members in scopes.items():
        if len(members) == len(STATISTICS) and scope not in known:
            yield UncheckedGroup(scope, tuple(members.values()), _NO_NODE)


def folded_groups(names: Iterable[str]) -> Iterator[UncheckedGroup]:
    """Yield the layers that were folded into other operations as groups that are not judged."""
    reason = (
        "folded into other operations, which keep no statistics; check the model that was exported"
    )
    for name in names:
        yield UncheckedGroup(name, (), reason, nameable=False)
