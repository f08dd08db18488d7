"""Objects with numbered variables, as weights files store them: names, members and values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

from bninspect.errors import Incomplete
from bninspect.formats.hdf5.file import join
from bninspect.formats.keras.optimizer_slots import Shape
from bninspect.formats.weights_file import WeightsFile
from bninspect.frozen import NamedTuple, frozen
from bninspect.model.checkpoint import KerasLayer, KerasModel, Variable
from bninspect.model.filenames import FIRST_KERAS_SHARD, KERAS_MAP, KERAS_SHARD, natural_order
from bninspect.storage import filesystem

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Owner(NamedTuple):
    """An object with variables: its own name, if the file tells it, and theirs."""

    name: str
    members: tuple[str, ...]


class Configuration(NamedTuple):
    """A stored configuration: the layers by names, the names by group, and the whole model."""

    layers: Mapping[tuple[str, ...], KerasLayer]
    groups: Mapping[str, tuple[str, ...]]
    model: KerasModel | None = None


@frozen()
class StoredObjects:
    """The objects with variables of one checkpoint, by their group.

    `files` has the file that holds each variable, `path` is the name of the checkpoint in errors.
    `known_values` has the variables that were read to find out their roles.
    """

    path: str
    owners: Mapping[str, Owner]
    files: Mapping[str, WeightsFile]
    configuration: Configuration
    known_values: dict[str, Variable] = field(default_factory=dict)

    def variable(self, group: str, member: str) -> Variable:
        """Return a variable of an object."""
        path = f"{join(group, 'vars')}/{member}"
        return self.known_values.get(path) or self.files[path].variable(path)

    def values(self, variable: Variable) -> NDArray[Any]:
        """Return the values of a variable and keep them: rules use them again."""
        if variable.name not in self.known_values:
            array = variable.read()
            self.known_values[variable.name] = variable._replace(load=lambda: array)
        return self.known_values[variable.name].read()

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
        names = sorted(self.owners[group].members, key=natural_order)
        return tuple(f"{join(group, 'vars')}/{name}" for name in names)

    def shapes(self, groups: Iterable[str]) -> dict[str, list[Shape]]:
        """Return the shapes of the floats of some objects, without scalars."""
        paths = {group: self.paths(group) for group in groups}
        for file in {*self.files.values()}:
            own = (path for path in chain(*paths.values()) if self.files[path] is file)
            file.prefetch_looks([partial(file.look_at, path) for path in own])
        shapes = {}
        for group, stored in paths.items():
            variables = [self.files[path].variable(path) for path in stored]
            shapes[group] = [
                variable.shape
                for variable in variables
                if variable.shape and "float" in variable.dtype
            ]
        return shapes

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
        if 1 < len(members) < 4 and may_be_shard(self.path):
            raise Incomplete(
                self.path,
                f"{group} has {len(members)} variables, and this looks like one of several shards:"
                " others of it may lie in the next",
                "Check the .weights.json of all of them; a file that is whole needs another name.",
            )


def may_be_shard(path: str) -> bool:
    """Return whether a file is named like one of several and their first, or their map, exists.

    Epochs are numbered likewise, from 1 on (`epoch_00010.weights.h5`).
    """
    match = KERAS_SHARD.fullmatch(path)
    first = match and f"{match[1]}_{FIRST_KERAS_SHARD}.weights.h5"
    return bool(
        match and first and (filesystem.exists(first) or filesystem.exists(match[1] + KERAS_MAP))
    )
