"""The weights format of Keras 3, `.weights.h5`; Keras 2.12 to 2.15 write it too.

Layout (keras/src/saving/saving_lib.py): every object of a model that has variables, layers and
optimizers alike, is a group, named by the attributes and lists that lead to it:

    layers/CLASS[_K]/vars/0, 1, …     the K-th layer of its class in a functional model
    ATTRIBUTE/vars/…, ATTRIBUTE/CLASS[_K]/vars/…    layers that a model of one's own keeps
    …/layer/vars/…                    the layer in a wrapper
    optimizer/vars/0                  how many steps it made; inner_optimizer/ in a loss scaler

No variable has a name. `vars` has the attribute `name`, the object's own, from Keras 3.6 on; the
configuration in a .keras file tells the names for all versions. Variables are numbered by
trainable ones first: gamma, beta, moving_mean, moving_variance, and with renorm moving_stddev,
renorm_mean, renorm_stddev (keras/src/layers/normalization/batch_normalization.py); gamma and beta
are left out without scale and center, which moves the others up.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import NamedTuple

from bninspect.errors import Incomplete, UnknownFormat
from bninspect.formats.hdf5.file import Hdf5, Weights, hdf5_faults, join
from bninspect.model.checkpoint import Checkpoint, KerasLayer, Variable
from bninspect.model.filenames import FIRST_KERAS_SHARD, KERAS_MAP, KERAS_SHARD, natural_order
from bninspect.model.roles import AFFINE, STATISTICS
from bninspect.storage import filesystem
from bninspect.wording import listed

_RENORM = ("moving_stddev", "renorm_mean", "renorm_stddev")
# A name no family knows: the variable is not looked at.
_EITHER = "gamma_or_beta"

_OPTIMIZER = r"(.*_)?optimizers?(_\d+)?"
_KERAS_OWN = r"(sync_)?batch_normalization(_\d+)?"
_SAYS_BN = r"batch_?norm"
_HINTS_BN = r"(^|_)bn(_|\d|$)"
# Other normalizations have two vectors as well; metrics that count by threshold or class have four.
_OTHER_NORM = r"(^|_)(layer|group|instance|rms|unit|weight|spectral)_?norm"
_METRIC = r"(^|_)(metric|auc|f\d?_?(beta)?_?score|precision|recall|sensitivity|specificity)"
_MOST = 7  # variables of a BN layer, those of renorm among them
_MOST_LOOKED_AT = 20  # of an object that may have any number


class Owner(NamedTuple):
    """An object with variables: its own name, if the file tells it, and theirs."""

    name: str
    members: tuple[str, ...]


class Configuration(NamedTuple):
    """What a stored configuration says: the layers by names, and the names by group."""

    layers: Mapping[tuple[str, ...], KerasLayer]
    groups: Mapping[str, tuple[str, ...]]


def read_keras_weights(path: str, file: Hdf5, notes: tuple[str, ...] = ()) -> Checkpoint:
    """The checkpoint in a file of this layout; `path` is what the user typed.

    Closing it closes the file. Raises a `ReadProblem` if the file has another layout or is damaged.
    """
    owners = scan(file)
    places = dict.fromkeys(stored_paths(owners), file)
    return weights_checkpoint(
        path, file.path, "keras-weights-h5", owners, places, notes=notes, close=file.close
    )


def scan(file: Hdf5) -> dict[str, Owner]:
    """The objects with variables in a file, by their group."""
    owners = {}
    with hdf5_faults(file.path):
        file.expect_looks([file.groups_below("", "name")])
        for path, members in file.walk():
            group, _, last = path.rpartition("/")
            if last == "vars":
                names = file.texts(path, "name")
                owners[group] = Owner(names[0] if names else "", tuple(members))
    if not owners:
        raise UnknownFormat(
            file.path,
            "this HDF5 file was not written by Keras (it names no layers)",
            "Check that it is a model or weights file.",
        )
    return owners


def stored_paths(owners: Mapping[str, Owner]) -> list[str]:
    """The path of every variable."""
    return [
        join(join(group, "vars"), member) for group in owners for member in owners[group].members
    ]


def weights_checkpoint(
    path: str,
    resolved: str,
    format_: str,
    owners: Mapping[str, Owner],
    places: Mapping[str, Hdf5],
    *,
    configuration: Configuration | None = None,
    notes: tuple[str, ...] = (),
    close: Callable[[], None],
) -> Checkpoint:
    """The checkpoint that objects and the places of their variables make.

    Raises `Incomplete` if variables of a BN layer are missing.
    """
    optimizers = [group for group in owners if _is_optimizer(group)]
    reader = _Reader(resolved, owners, places, configuration)
    known = reader.known_names([group for group in owners if not _is_optimizer(group)])
    for group in optimizers:
        # A loss scaler stores the variables of the optimizer it wraps among its own, behind others.
        if "0" in owners[group].members and join(group, "inner_optimizer") not in owners:
            known[f"{group}/vars/0"] = f"{group}/iteration"
    optimizer = dict.fromkeys(stored_paths({group: owners[group] for group in optimizers}))
    rest = [place for place in places if place not in optimizer and place not in known]
    model = [place for place in known if place not in optimizer]
    return Checkpoint(
        path=path,
        resolved=resolved,
        format=format_,
        variables=Weights({place: places[place] for place in (*model, *rest)}),
        optimizer=Weights({place: places[place] for place in optimizer}),
        in_order=True,
        named_by="object",
        known_names=known,
        keras_layers=configuration.layers if configuration else None,
        notes=(*notes, *reader.notes),
        prefetch=Weights(places).prefetch,
        close=close,
    )


class _Reader:
    """Finds the BN layers among objects: names them, and tells the roles of their variables."""

    def __init__(
        self,
        resolved: str,
        owners: Mapping[str, Owner],
        places: Mapping[str, Hdf5],
        configuration: Configuration | None,
    ) -> None:
        self._resolved = resolved
        self._owners = owners
        self._places = places
        self._configuration = configuration or Configuration({}, {})
        self._unclear: list[str] = []
        self._either: list[str] = []
        self._by_layout: list[str] = []

    def known_names(self, groups: list[str]) -> dict[str, str]:
        """Stored path → LAYER/ROLE, for the layers in the order of the network.

        That is the order of the configuration; without one layers of a class are in their order.
        """
        names = {group: self._names(group) for group in groups}
        index = {path: number for number, path in enumerate(self._configuration.layers)}
        ordered = sorted(
            groups, key=lambda group: (index.get(names[group], len(index)), natural_order(group))
        )
        layers = {group: roles for group in ordered if (roles := self._roles(group, names[group]))}
        known = _distinct({group: "/".join(names[group]) for group in layers})
        return {
            f"{join(group, 'vars')}/{member}": join(known[group], role)
            for group, roles in layers.items()
            for member, role in roles.items()
        }

    @property
    def notes(self) -> tuple[str, ...]:
        """What could not be told about some layers."""
        found = []
        if self._by_layout:
            found.append(
                f"{listed(self._by_layout)}: taken for batch normalization by the layout alone,"
                " four vectors of one length; the file does not say what they are"
            )
        if self._either:
            found.append(
                f"{listed(self._either)}: either gamma or beta is stored, and the file does not say"
                " which, so it is not looked at"
            )
        if self._unclear:
            found.append(
                f"{listed(self._unclear)}: not checked, since its variables are not those of"
                " Keras's own batch normalization and nothing tells which of them are the"
                " statistics"
            )
        return tuple(found)

    def _names(self, group: str) -> tuple[str, ...]:
        """The layer's name with those of the models around it, else the parts of its group."""
        parts = group.split("/") if group else []
        if self._owners[group].name:
            heads = ["/".join(parts[:end]) for end in range(1, len(parts) + 1)]
            owners = [self._owners[head] for head in heads if head in self._owners]
            if all(owner.name for owner in owners):
                return tuple(owner.name for owner in owners)
        return self._configuration.groups.get(group, tuple(parts))

    def _roles(self, group: str, names: tuple[str, ...]) -> dict[str, str] | None:
        """Member → role for the object at `group`, None if it is no BN layer."""
        layer = self._configuration.layers.get(names)
        # The configuration of every subclass of Keras's layer has this option.
        if layer is not None and "moving_mean_initializer" in layer.config:
            return self._configured(group, names, _configured_roles(layer))
        part = group.rpartition("/")[2]
        if re.fullmatch(_KERAS_OWN, part):
            return self._called_bn(group, names, fewest=2, own=True)
        says = {text.lower() for text in (part, *names[-1:])}
        if _any(_OTHER_NORM, says):
            return None
        if _any(_SAYS_BN, says):
            return self._called_bn(group, names, fewest=2)
        if _any(_HINTS_BN, says):
            return self._called_bn(group, names, fewest=3)
        return None if _any(_METRIC, says) else self._laid_out_like_bn(group, names)

    def _called_bn(
        self, group: str, names: tuple[str, ...], *, fewest: int, own: bool = False
    ) -> dict[str, str] | None:
        """Member → role for an object whose class or name says BN; `own` is Keras's own class."""
        members = self._members(group, hinted=True)
        if own and 2 <= len(members) <= _MOST:
            return self._numbered(group, names, members)
        if len(members) < fewest:
            return None
        vectors = self._equal_vectors(group, members)
        if fewest <= len(vectors) <= _MOST:
            return self._numbered(group, names, list(vectors))
        if fewest == 2:  # "bn" may be anything, batch_norm is not
            self._unclear.append("/".join(names))
        return None

    def _laid_out_like_bn(self, group: str, names: tuple[str, ...]) -> dict[str, str] | None:
        """Member → role for an object that has four vectors of one length, and nothing but scalars.

        Two pairs of scale and shift look the same, but for values that no variance has.
        """
        vectors = self._equal_vectors(group, self._members(group, hinted=False))
        if len(vectors) != 4 or any(len(vector.shape) != 1 for vector in vectors.values()):
            return None
        if (vectors[[*vectors][3]].read() < 0).any():
            return None
        self._by_layout.append("/".join(names) or group)
        return self._numbered(group, names, list(vectors))

    def _configured(
        self, group: str, names: tuple[str, ...], roles: list[str]
    ) -> dict[str, str] | None:
        """Member → role for a layer whose configuration gives the roles."""
        members = self._members(group, hinted=True)
        if len(members) > len(roles):
            members = list(self._equal_vectors(group, members))
        if len(members) == len(roles):
            return dict(zip(members, roles, strict=True))
        if members or self._owners[group].members:
            self._unclear.append("/".join(names))
        return None

    def _members(self, group: str, *, hinted: bool) -> list[str]:
        """The numbered members in their order."""
        members = [name for name in self._owners[group].members if name.isdecimal()]
        members.sort(key=lambda name: (len(name), name))
        if members == [str(number) for number in range(len(members))]:
            return members
        if not hinted:
            return []
        raise Incomplete(
            self._resolved,
            f"{group} has variables {', '.join(members[:7])}, but not all from 0 on",
            "The file is damaged, or one of several shards: check their .weights.json instead.",
        )

    def _equal_vectors(self, group: str, members: list[str]) -> dict[str, Variable]:
        """The members that are no scalars, if all of them are of one shape.

        A class of one's own may count or scale besides.
        """
        paths = {member: f"{join(group, 'vars')}/{member}" for member in members[:_MOST_LOOKED_AT]}
        found = {member: self._places[path].variable(path) for member, path in paths.items()}
        vectors = {member: variable for member, variable in found.items() if variable.shape}
        same = len({variable.shape for variable in vectors.values()}) == 1
        floats = all("float" in variable.dtype for variable in vectors.values())
        return vectors if same and floats else {}

    def _numbered(self, group: str, names: tuple[str, ...], members: list[str]) -> dict[str, str]:
        """The roles that the number of variables leaves: 0 to 2, then 2 statistics, then renorm."""
        if len(members) < 4 and _may_be_shard(self._resolved):
            raise Incomplete(
                self._resolved,
                f"{group} has {len(members)} variables, and this looks like one of several shards:"
                " others of it may lie in the next",
                "Check the .weights.json of all of them; a file that is whole needs another name.",
            )
        affine = (len(members) - 2) % 3
        if affine == 1:
            self._either.append("/".join(names) or group)
        before: tuple[str, ...] = ((), (_EITHER,), AFFINE)[affine]
        roles = (*before, *STATISTICS, *_RENORM)
        return dict(zip(members, roles, strict=False))


def _may_be_shard(path: str) -> bool:
    """Whether a file is named like one of several and the first of them, or their map, lies there.

    Epochs are numbered likewise, from 1 on (`epoch_00010.weights.h5`).
    """
    match = KERAS_SHARD.fullmatch(path)
    first = match and f"{match[1]}_{FIRST_KERAS_SHARD}.weights.h5"
    return bool(
        match and first and (filesystem.exists(first) or filesystem.exists(match[1] + KERAS_MAP))
    )


def _configured_roles(layer: KerasLayer) -> list[str]:
    options = {"gamma": "scale", "beta": "center"}
    affine = [role for role, option in options.items() if layer.config.get(option, True)]
    return [*affine, *STATISTICS, *(_RENORM if layer.config.get("renorm") else ())]


def _distinct(names: Mapping[str, str]) -> dict[str, str]:
    """Group → name, the group itself where the name is that of several layers."""
    count = Counter(names.values())
    return {
        group: name if count[name] == 1 and (name == group or name not in names) else group
        for group, name in names.items()
    }


def _is_optimizer(group: str) -> bool:
    return any(re.fullmatch(_OPTIMIZER, part) for part in group.split("/"))


def _any(expression: str, texts: set[str]) -> bool:
    return any(re.search(expression, text) for text in texts)
