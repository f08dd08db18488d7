"""BN layers among the groups of a weights file: their names, and the roles of their variables.

A group tells the class of its object where a list or a model holds it (`layers/my_batch_norm_1`),
and the name of an attribute where an object does (`encoder/norm`); the stored configuration of a
`.keras` file tells the class of every layer of a functional model.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import NamedTuple

from bninspect.errors import Incomplete
from bninspect.formats.hdf5.file import Hdf5, Weights, join
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
    Reading,
    called,
    is_keras_bn,
    lacks_one_affine,
    proved_order,
    read_foreign,
    read_unknown,
    roles_by_position,
)
from bninspect.model.checkpoint import KerasLayer, UncheckedGroup, Variable
from bninspect.model.filenames import FIRST_KERAS_SHARD, KERAS_MAP, KERAS_SHARD, natural_order
from bninspect.model.roles import AFFINE, STATISTICS
from bninspect.storage import filesystem
from bninspect.wording import listed

_OPTIMIZER = r"(.*_)?optimizers?(_\d+)?"
_METRICS = "metrics"  # the group that Keras 2 keeps them in
_INITIALIZERS = {f"{role}_initializer" for role in STATISTICS}
_MOST_LOOKED_AT = 20  # variables of an object that may have any number
_TOP_LEVEL = "(top level)"


class Owner(NamedTuple):
    """An object with variables: its own name, if the file tells it, and theirs."""

    name: str
    members: tuple[str, ...]


class Configuration(NamedTuple):
    """What a stored configuration says: the layers by names, and the names by group."""

    layers: Mapping[tuple[str, ...], KerasLayer]
    groups: Mapping[str, tuple[str, ...]]


class StoredObjects(NamedTuple):
    """The objects with variables of one checkpoint, by their group.

    `places` has the file that holds each variable, `path` is what an error calls the checkpoint.
    """

    path: str
    owners: Mapping[str, Owner]
    places: Mapping[str, Hdf5]
    configuration: Configuration = Configuration({}, {})

    def variable(self, group: str, member: str) -> Variable:
        """Return a variable of an object."""
        path = f"{join(group, 'vars')}/{member}"
        return self.places[path].variable(path)

    def names(self, group: str) -> tuple[str, ...]:
        """Return the names of the models around an object and its own, else those of its groups."""
        parts = group.split("/") if group else []
        if self.owners[group].name:
            heads = ["/".join(parts[:end]) for end in range(1, len(parts) + 1)]
            owners = [self.owners[head] for head in heads if head in self.owners]
            if all(owner.name for owner in owners):
                return tuple(owner.name for owner in owners)
        return self.configuration.groups.get(group, tuple(parts))

    def members(self, group: str) -> list[str]:
        """Return the numbers of an object's variables in order; none unless they begin at 0."""
        members = [name for name in self.owners[group].members if name.isdecimal()]
        members.sort(key=lambda name: (len(name), name))
        return members if members == [str(number) for number in range(len(members))] else []

    def paths(self, group: str) -> tuple[str, ...]:
        """Return the stored names of an object's variables."""
        return tuple(f"{join(group, 'vars')}/{name}" for name in self.owners[group].members)

    def shapes(self, groups: Iterable[str]) -> dict[str, list[Shape]]:
        """Return the shapes of the floats of some objects, without scalars."""
        paths = {group: self.paths(group) for group in groups}
        for file in {*self.places.values()}:
            mine = (path for one in paths.values() for path in one if self.places[path] is file)
            file.prefetch_looks([partial(file.look_at, path) for path in mine])
        found = {}
        for group, stored in paths.items():
            variables = [self.places[path].variable(path) for path in stored]
            found[group] = [one.shape for one in variables if one.shape and "float" in one.dtype]
        return found

    def require_members(self, group: str) -> None:
        """Raise `Incomplete` if a BN layer lacks variables, or another shard may have some."""
        stored = [name for name in self.owners[group].members if name.isdecimal()]
        members = self.members(group)
        if stored and not members:
            raise Incomplete(
                self.path,
                f"{group} has variables {', '.join(stored[:7])}, but not all from 0 on",
                "The file is damaged, or one of several shards: check their .weights.json instead.",
            )
        if 1 < len(members) < 4 and _may_be_shard(self.path):
            raise Incomplete(
                self.path,
                f"{group} has {len(members)} variables, and this looks like one of several shards:"
                " others of it may lie in the next",
                "Check the .weights.json of all of them; a file that is whole needs another name.",
            )


class BNGroups(NamedTuple):
    """The BN layers of a weights file: stored path → LAYER/ROLE, in the order of the network.

    `unchecked` are the groups that may be BN layers, but whose roles nothing proves. `notes` are
    sentences about how certain the others are.
    """

    known_names: Mapping[str, str]
    unchecked: tuple[UncheckedGroup, ...]
    notes: tuple[str, ...]


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
    readings = _read(stored, {group: names[group] for group in ordered})
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
    for certainty, told in _UNCERTAIN.items():
        if certainty in layers:
            yield f"{listed(layers[certainty])}: {told}"


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
    """An object that its class does not prove to be Keras's own BN layer.

    `class_name` is None where the file does not name it; `is_spelt` says that it is spelled as in
    the code, not as in a group. `vectors` and `has_scalars` are those of `NumberedObject`.
    """

    called: Called
    class_name: str | None
    is_spelt: bool
    vectors: Mapping[str, Variable]
    has_scalars: bool

    def with_values(self, trained: int | None) -> NumberedObject:
        """Read the vectors."""
        return NumberedObject(
            self.called,
            {member: variable.read() for member, variable in self.vectors.items()},
            foreign=self.class_name is not None,
            class_name=self.class_name if self.class_name and self.is_spelt else "",
            has_scalars=self.has_scalars,
            trained=trained,
        )


def _read(stored: StoredObjects, names: Mapping[str, tuple[str, ...]]) -> dict[str, Reading]:
    """Return how each object is read that is or may be a BN layer, in the order of `names`."""
    classified = {group: _classify(stored, group, path) for group, path in names.items()}
    candidates = {group: one for group, one in classified.items() if isinstance(one, _Candidate)}
    readings = {group: one for group, one in classified.items() if isinstance(one, Reading)}
    if candidates:
        vectors = (one for candidate in candidates.values() for one in candidate.vectors.values())
        Weights(stored.places).prefetch(vectors)
        trained = _trained(stored, readings, candidates)
        objects = {group: one.with_values(trained.get(group)) for group, one in candidates.items()}
        orders = _orders(candidates, objects)
        for group, one in objects.items():
            order = orders.get(candidates[group].class_name)
            readings[group] = read_foreign(one, order) if one.foreign else read_unknown(one)
    return {group: readings[group] for group in names if readings[group] != NOT_BN}


def _orders(
    candidates: Mapping[str, _Candidate], objects: Mapping[str, NumberedObject]
) -> dict[str | None, Order]:
    """Return the order of the statistics by class, where objects of it prove one and the same."""
    proved: dict[str | None, set[Order]] = {}
    for group, one in objects.items():
        if one.foreign and (order := proved_order(one)):
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
    if layer is not None and layer.built_in:
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
    class_name = re.sub(r"_\d+$", "", last) if is_named_by_class else None
    return _candidate(stored, group, called(names), class_name)


def _read_configured(stored: StoredObjects, group: str, layer: KerasLayer) -> Reading | _Candidate:
    """Read a layer of Keras's own class, or a subclass, by its configuration."""
    stored.require_members(group)
    members = stored.members(group)
    options = {"gamma": "scale", "beta": "center"}
    affine = [role for role, option in options.items() if layer.config.get(option, True)]
    roles = [*affine, *STATISTICS, *(RENORM if layer.config.get("renorm") else ())]
    if len(members) > len(roles):  # a subclass may count besides
        members = [*_equal_vectors(stored, group, members)]
    if len(members) == len(roles):
        return Reading("proved", dict(zip(members, roles, strict=True)))
    if not stored.members(group):
        return NOT_BN
    if len(members) > len(roles):
        return _candidate(stored, group, "batch-norm", layer.class_name, is_spelt=True)
    asked = f"its configuration asks for {len(roles)} variables, and {len(stored.members(group))}"
    return Reading("unproved", reason=f"{asked} are stored")


def _read_keras_bn(stored: StoredObjects, group: str) -> Reading | _Candidate:
    """Read a layer of Keras's own class without its configuration, by the number of variables."""
    stored.require_members(group)
    members = stored.members(group)
    if len(members) < 2:
        return NOT_BN
    if len(members) > MOST_OF_BN:
        return _candidate(stored, group, "batch-norm", None)
    first = stored.variable(group, "0").read() if lacks_one_affine(len(members)) else None
    return Reading("proved", roles_by_position(members, first))


def _candidate(
    stored: StoredObjects,
    group: str,
    what: Called,
    class_name: str | None,
    *,
    is_spelt: bool = False,
) -> Reading | _Candidate:
    """Return an object as a candidate if it has at least two vectors of one length."""
    if what == "other":
        return NOT_BN
    is_called_bn = what in ("batch-norm", "bn")
    if is_called_bn:
        stored.require_members(group)
    members = stored.members(group)
    vectors = _equal_vectors(stored, group, members)
    if len(vectors) < 2:
        is_mixed = what == "batch-norm" and not vectors and len(members) > 1
        reason = "it is called batch normalization, but its variables are not of one length"
        return Reading("unproved", reason=reason) if is_mixed else NOT_BN
    if not is_called_bn and any(len(vector.shape) != 1 for vector in vectors.values()):
        return NOT_BN
    has_scalars = len(vectors) < len(members)
    return _Candidate(what, class_name, is_spelt, vectors, has_scalars)


def _equal_vectors(
    stored: StoredObjects, group: str, members: Sequence[str]
) -> dict[str, Variable]:
    """Return the variables that are no scalars, if all of them are floats of one shape.

    A class of one's own may count or scale besides.
    """
    if len(members) > _MOST_LOOKED_AT:
        return {}
    found = {member: stored.variable(group, member) for member in members}
    vectors = {member: variable for member, variable in found.items() if variable.shape}
    same = len({variable.shape for variable in vectors.values()}) == 1
    floats = all("float" in variable.dtype and variable.size for variable in vectors.values())
    return vectors if same and floats else {}


def _trained(
    stored: StoredObjects,
    readings: Mapping[str, Reading],
    candidates: Mapping[str, _Candidate],
) -> dict[str, int]:
    """Return how many vectors of each candidate an optimizer trains, where its slots tell it.

    All candidates with vectors of one length are taken to be alike, or nothing is told of them.
    """
    slots = stored.shapes(group for group in stored.owners if is_optimizer(group))
    shapes = stored.shapes([*readings, *candidates])
    in_all = trained_vectors(chain(*shapes.values()), chain(*slots.values()))
    found: dict[str, int] = {}
    for length, count in (in_all or {}).items():
        vectors = {group: of_one.count((length,)) for group, of_one in shapes.items()}
        alike = {group: vectors[group] for group in candidates if vectors[group]}
        others = [
            _trained_of(readings[group], shapes[group], number)
            for group, number in vectors.items()
            if number and group not in candidates
        ]
        if len({*alike.values()}) != 1 or None in others:
            continue
        each, left = divmod(count - sum(filter(None, others)), len(alike))
        if not left and 0 <= each <= max(alike.values()):
            found |= dict.fromkeys(alike, each)
    return found


def _trained_of(reading: Reading, shapes: Sequence[Shape], vectors: int) -> int | None:
    """Return how many vectors of an object are trained where nothing is frozen; None if unknown.

    Those of a BN layer are gamma and beta; one beside a matrix or kernel is its bias.
    """
    if reading.roles:
        return sum(role in (*AFFINE, EITHER) for role in reading.roles.values())
    return 1 if vectors == 1 and any(len(shape) > 1 for shape in shapes) else None


def _may_be_shard(path: str) -> bool:
    """Return whether a file is named like one of several and their first, or their map, exists.

    Epochs are numbered likewise, from 1 on (`epoch_00010.weights.h5`).
    """
    match = KERAS_SHARD.fullmatch(path)
    first = match and f"{match[1]}_{FIRST_KERAS_SHARD}.weights.h5"
    return bool(
        match and first and (filesystem.exists(first) or filesystem.exists(match[1] + KERAS_MAP))
    )


def _distinct(names: Mapping[str, str]) -> dict[str, str]:
    """Return group → name, the group itself where the name is that of several layers."""
    count = Counter(names.values())
    return {
        group: name if count[name] == 1 and (name == group or name not in names) else group
        for group, name in names.items()
    }
