"""BN layers among the groups of a weights file: their names, and the roles of their variables.

The name of a group is the class of its object if a list or a model holds it
(`layers/my_batch_norm_1`), and an attribute if another object does (`encoder/norm`). The stored
configuration of a `.keras` file has the class of every layer of a functional model.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

from bninspect.formats.hdf5.file import join
from bninspect.formats.keras.model_config import snake_case
from bninspect.formats.keras.optimizer_slots import Shape, trained_vectors
from bninspect.formats.keras.roles import (
    EITHER,
    MOST_OF_BN,
    NOT_BN,
    RENORM,
    Called,
    NumberedObject,
    Order,
    Origin,
    Reading,
    called,
    is_keras_bn,
    proved_order,
    read_roles,
)
from bninspect.formats.keras.stored_objects import StoredObjects
from bninspect.formats.weights_file import Weights
from bninspect.frozen import NamedTuple
from bninspect.model.checkpoint import KerasLayer, UncheckedGroup, Variable
from bninspect.model.filenames import natural_order
from bninspect.model.roles import AFFINE, STATISTICS
from bninspect.wording import listed

_OPTIMIZER = r"(.*_)?optimizers?(_\d+)?"
_METRICS = "metrics"  # the group that Keras 2 keeps them in
_INITIALIZERS = {f"{role}_initializer" for role in STATISTICS}
_MOST_LOOKED_AT = 20  # variables of an object that may have any number
_TOP_LEVEL = "(top level)"


class BNGroups(NamedTuple):
    """The BN layers of a weights file: stored path → LAYER/ROLE, in the order of the network.

    `unchecked` are the groups that may be BN layers, but whose roles nothing proves. `notes` are
    sentences about how certain the others are. `by_values` is `roles_by_values` of `Checkpoint`.
    """

    known_names: Mapping[str, str]
    unchecked: tuple[UncheckedGroup, ...]
    notes: tuple[str, ...]
    by_values: bool


def is_optimizer(group: str) -> bool:
    """Return whether a group holds the variables of an optimizer."""
    return any(re.fullmatch(_OPTIMIZER, part) for part in group.split("/"))


def find_bn_groups(stored: StoredObjects) -> BNGroups:
    """Find the BN layers among the objects of a checkpoint.

    The order of the network is that of the configuration; without one the layers of a class come in
    their order. Raises `Incomplete` if variables of a BN layer are missing.
    """
    names = {group: stored.names(group) for group in stored.owners if not is_optimizer(group)}
    index = {path: number for number, path in enumerate(stored.configuration.layers)}
    ordered = sorted(
        names, key=lambda group: (index.get(names[group], len(index)), natural_order(group))
    )
    classified = {group: _classify(stored, group, names[group]) for group in ordered}
    readings = _read(stored, classified)
    known = _distinct({group: "/".join(names[group]) for group in readings})
    return BNGroups(
        known_names={
            f"{join(group, 'vars')}/{member}": join(known[group], role)
            for group, reading in readings.items()
            for member, role in reading.roles.items()
        },
        unchecked=tuple(
            UncheckedGroup(known[group] or _TOP_LEVEL, stored.paths(group), reading.reason)
            for group, reading in readings.items()
            if not reading.roles
        ),
        notes=tuple(_notes({known[group]: reading for group, reading in readings.items()})),
        by_values=any(map(_has_roles_by_values, classified.values())),
    )


def _notes(readings: Mapping[str, Reading]) -> Iterator[str]:
    """Yield a sentence for each way in which the roles of layers are less than certain."""
    layers: dict[str, list[str]] = {}
    for name, reading in readings.items():
        if reading.certainty in ("assumed", "by-layout"):
            layers.setdefault(reading.certainty, []).append(name)
        elif EITHER in reading.roles.values():
            count = [*reading.roles.values()].count(EITHER)
            layers.setdefault("neither" if count > 1 else "either", []).append(name)
    for certainty, sentence in _UNCERTAIN.items():
        if certainty in layers:
            yield f"{listed(layers[certainty])}: {sentence}"


_UNCERTAIN = {
    "by-layout": "taken for batch normalization by the layout alone, vectors of one length; the"
    " file does not say what they are",
    "assumed": "read in the order of Keras's own batch normalization; the file does not name the"
    " class",
    "either": "either gamma or beta is stored, and the file does not say which, so it is not"
    " looked at",
    "neither": "the file does not say which vectors are gamma and beta, so they are not looked at",
}


class _Candidate(NamedTuple):
    """An object whose roles depend on its values.

    `origin`, `called` and `has_scalars` are those of `NumberedObject`; `class_name` is empty if the
    file does not name it, and else spelled as in the code (`is_spelt`) or as in a group.
    """

    origin: Origin
    called: Called
    vectors: Mapping[str, Variable]
    class_name: str = ""
    is_spelt: bool = False
    has_scalars: bool = False


def _has_roles_by_values(classified: Reading | _Candidate) -> bool:
    """Return whether the values of an object decide its roles.

    Those of Keras's own BN layers come by position if all or none of gamma and beta are stored. It
    has another class if its mean is 1 and its variance 0.
    """
    if isinstance(classified, Reading):
        return False
    return classified.origin != "keras" or len(classified.vectors) not in (2, 4)


def _read(
    stored: StoredObjects, classified: Mapping[str, Reading | _Candidate]
) -> dict[str, Reading]:
    """Return the reading of each object that is or may be a BN layer, in the given order."""
    readings = {
        group: reading for group, reading in classified.items() if isinstance(reading, Reading)
    }
    candidates = {
        group: candidate
        for group, candidate in classified.items()
        if isinstance(candidate, _Candidate)
    }
    unsettled: dict[str, NumberedObject] = {}
    for group, numbered in _with_values(stored, candidates).items():
        reading = read_roles(numbered)
        if numbered.origin == "keras" or reading == NOT_BN:
            readings[group] = reading
        else:
            unsettled[group] = numbered
    if unsettled:
        orders = _orders(candidates, unsettled)
        trained = _trained(stored, readings, unsettled)
        for group, numbered in unsettled.items():
            with_slots = numbered._replace(trained=trained.get(group))
            readings[group] = read_roles(with_slots, orders.get(candidates[group].class_name))
    return {group: readings[group] for group in classified if readings[group] != NOT_BN}


def _with_values(
    stored: StoredObjects, candidates: Mapping[str, _Candidate]
) -> dict[str, NumberedObject]:
    """Return the candidates with the values of their vectors, which are fetched all at once."""
    vectors = [vector for candidate in candidates.values() for vector in candidate.vectors.values()]
    Weights(stored.files).prefetch(vectors)
    return {
        group: NumberedObject(
            candidate.origin,
            candidate.called,
            {member: stored.values(vector) for member, vector in candidate.vectors.items()},
            candidate.class_name if candidate.is_spelt else "",
            has_scalars=candidate.has_scalars,
        )
        for group, candidate in candidates.items()
    }


def _orders(
    candidates: Mapping[str, _Candidate], objects: Mapping[str, NumberedObject]
) -> dict[str, Order]:
    """Return the order of the statistics by class, where objects of it prove one and the same."""
    proved: dict[str, set[Order]] = {}
    for group, numbered in objects.items():
        if numbered.origin == "foreign" and (order := proved_order(numbered)):
            proved.setdefault(candidates[group].class_name, set()).add(order)
    return {name: orders.pop() for name, orders in proved.items() if len(orders) == 1}


def _classify(stored: StoredObjects, group: str, path: tuple[str, ...]) -> Reading | _Candidate:
    """Read an object by its class, if that is Keras's own or no BN layer; else as a candidate."""
    container, _, last = group.rpartition("/")
    if group.partition("/")[0] == _METRICS:
        return NOT_BN
    layer = stored.configuration.layers.get(path)
    if layer is not None and layer.config.keys() >= _INITIALIZERS:
        return _read_configured(stored, group, layer)
    if layer is not None and (layer.built_in or _wraps_bn(layer)):
        return NOT_BN
    name = stored.owners[group].name
    names = {last, *path[-1:]}
    if layer is not None:
        names.add(snake_case(layer.class_name))
        return _candidate(stored, group, called(names), layer.class_name, is_spelt=True)
    # A list or dictionary has no variables of its own; in it Keras numbers the objects of a class.
    is_named_by_class = bool(container) and container not in stored.owners
    if is_keras_bn(last if is_named_by_class else name):
        return _read_keras_bn(stored, group)
    return _candidate(
        stored, group, called(names), re.sub(r"_\d+$", "", last) if is_named_by_class else ""
    )


def _wraps_bn(layer: KerasLayer) -> bool:
    """Return whether a layer is a wrapper of Keras's BN layer, which is an object of its own.

    Wrappers of quantization call themselves like the layer that they wrap.
    """
    wrapped = layer.config.get("layer")
    config = wrapped.get("config") if isinstance(wrapped, dict) else None
    return isinstance(config, dict) and config.keys() >= _INITIALIZERS


def _read_configured(stored: StoredObjects, group: str, layer: KerasLayer) -> Reading | _Candidate:
    """Read a layer of Keras's own class, or a subclass, by its configuration."""
    stored.require_members(group)
    members = stored.members(group)
    options = {"gamma": "scale", "beta": "center"}
    affine = [role for role, option in options.items() if layer.config.get(option, True)]
    roles = [*affine, *STATISTICS, *(RENORM if layer.config.get("renorm") else ())]
    if len(members) > len(roles):  # a subclass may have counters
        members = [*_equal_vectors(stored, group, members)]
    if len(members) == len(roles):
        return Reading("proved", dict(zip(members, roles, strict=True)))
    if not stored.members(group):
        return NOT_BN
    if len(members) > len(roles):
        return _candidate(stored, group, "batch-norm", layer.class_name, is_spelt=True)
    contradiction = (
        f"its configuration asks for {len(roles)} variables, and {len(stored.members(group))}"
    )
    return Reading("unproved", reason=f"{contradiction} are stored")


def _read_keras_bn(stored: StoredObjects, group: str) -> Reading | _Candidate:
    """Read a layer that is called like Keras's own and has no configuration."""
    stored.require_members(group)
    members = stored.members(group)
    if len(members) < 2:
        return NOT_BN
    if len(members) > MOST_OF_BN:
        return _candidate(stored, group, "batch-norm", "")
    vectors = {member: stored.variable(group, member) for member in members}
    return _Candidate("keras", "batch-norm", vectors)


def _candidate(
    stored: StoredObjects, group: str, called_: Called, class_name: str, *, is_spelt: bool = False
) -> Reading | _Candidate:
    """Return an object as a candidate if it has at least two vectors of one length."""
    if called_ == "other":
        return NOT_BN
    is_called_bn = called_ in ("batch-norm", "bn")
    if is_called_bn:
        stored.require_members(group)
    members = stored.members(group)
    vectors = _equal_vectors(stored, group, members)
    if len(vectors) < 2:
        is_mixed = called_ == "batch-norm" and not vectors and len(members) > 1
        reason = "it is called batch normalization, but its variables are not of one length"
        return Reading("unproved", reason=reason) if is_mixed else NOT_BN
    if not is_called_bn and any(len(vector.shape) != 1 for vector in vectors.values()):
        return NOT_BN
    origin: Origin = "foreign" if class_name else "unknown"
    has_scalars = len(vectors) < len(members)
    return _Candidate(origin, called_, vectors, class_name, is_spelt, has_scalars)


def _equal_vectors(
    stored: StoredObjects, group: str, members: Sequence[str]
) -> dict[str, Variable]:
    """Return the variables that are no scalars, if all of them are floats of one shape.

    A class of the user's own may have counters or scales.
    """
    if len(members) > _MOST_LOOKED_AT:
        return {}
    variables = {member: stored.variable(group, member) for member in members}
    vectors = {member: variable for member, variable in variables.items() if variable.shape}
    same = len({variable.shape for variable in vectors.values()}) == 1
    floats = all("float" in variable.dtype and variable.size for variable in vectors.values())
    return vectors if same and floats else {}


def _trained(
    stored: StoredObjects,
    readings: Mapping[str, Reading],
    unsettled: Mapping[str, NumberedObject],
) -> dict[str, int]:
    """Return the number of vectors of each unsettled object that an optimizer trains, by its slots.

    All unsettled ones with vectors of one length are taken to be alike; else they are left out.
    """
    slots = stored.shapes(group for group in stored.owners if is_optimizer(group))
    shapes = stored.shapes([*readings, *unsettled])
    in_all = trained_vectors(chain(*shapes.values()), [*chain(*slots.values())])
    trained: dict[str, int] = {}
    for length, count in (in_all or {}).items():
        vectors = {group: of_one.count((length,)) for group, of_one in shapes.items()}
        alike = {group: vectors[group] for group in unsettled if vectors[group]}
        trained_of_others = [
            _trained_of(readings[group], shapes[group], number)
            for group, number in vectors.items()
            if number and group not in unsettled
        ]
        if len({*alike.values()}) != 1 or None in trained_of_others:
            continue
        of_each, left = divmod(count - sum(filter(None, trained_of_others)), len(alike))
        if not left and 0 <= of_each <= max(alike.values()):
            trained |= dict.fromkeys(alike, of_each)
    return trained


def _trained_of(reading: Reading, shapes: Sequence[Shape], vectors: int) -> int | None:
    """Return the number of trained vectors of an object if nothing is frozen; None if unknown.

    Those of a BN layer are gamma and beta; one beside a matrix or kernel is its bias; two alone,
    which are no statistics, are the scale and shift of another normalization.
    """
    if reading.roles:
        return sum(role in (*AFFINE, EITHER) for role in reading.roles.values())
    if vectors == len(shapes) == 2 and reading == NOT_BN:
        return 2
    return 1 if vectors == 1 and any(len(shape) > 1 for shape in shapes) else None


def _distinct(names: Mapping[str, str]) -> dict[str, str]:
    """Return group → name, the group itself where the name is that of several layers."""
    count = Counter(names.values())
    return {
        group: name if count[name] == 1 and (name == group or name not in names) else group
        for group, name in names.items()
    }
