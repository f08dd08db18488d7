"""The weights format of Keras 3, `.weights.h5`; Keras 2.12 to 2.15 write it too.

Layout (keras/src/saving/saving_lib.py): every object of a model that has variables, layers and
optimizers alike, is a group, named by the attributes and lists that lead to it:

    layers/CLASS[_K]/vars/0, 1, …     the K-th layer of its class in a functional model
    ATTRIBUTE/vars/…, ATTRIBUTE/CLASS[_K]/vars/…    layers that a model of one's own keeps
    …/layer/vars/…                    the layer in a wrapper
    optimizer/vars/0                  how many steps it made; inner_optimizer/ in a loss scaler

No variable has a name. `vars` has the attribute `name`, the object's own, from Keras 3.6 on; the
configuration in a .keras file has the names for all versions. `roles` decides which of the numbered
variables are gamma, beta and the statistics.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bninspect.errors import UnknownFormat
from bninspect.formats.hdf5.file import Hdf5, join
from bninspect.formats.keras.bn_groups import find_bn_groups, is_optimizer
from bninspect.formats.keras.stored_objects import Configuration, Owner, StoredObjects
from bninspect.formats.weights_file import Weights, WeightsFile
from bninspect.model.checkpoint import Checkpoint, Variable


def read_keras_weights(path: str, file: Hdf5, notes: tuple[str, ...] = ()) -> Checkpoint:
    """Return the checkpoint in a file of this layout; `path` is what the user typed.

    Closing it closes the file. Raises a `ReadProblem` if the file has another layout or is damaged.
    """
    owners = scan(file)
    files = dict.fromkeys(stored_paths(owners), file)
    return weights_checkpoint(
        path, file.path, "keras-weights-h5", owners, files, notes=notes, close=file.close
    )


def scan(file: Hdf5) -> dict[str, Owner]:
    """Return the objects with variables in a file, by their group."""
    owners = {}
    file.prefetch_looks([file.groups_below("", "name")])
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


def _keras_version(owners: Mapping[str, Owner]) -> str:
    """Return the first number of the version of Keras, if the layout shows it; else empty.

    Keras stores the names of objects from 3.6 on; `_layer_checkpoint_dependencies` is an attribute
    of functional models of Keras 2.12 and 2.13.
    """
    if any(owner.name for owner in owners.values()):
        return "3"
    return "2" if any("_layer_checkpoint_dependencies" in group for group in owners) else ""


class _ReadWeights(Weights):
    """Variables by their path, some of which were read with their values."""

    def __init__(
        self, files: Mapping[str, WeightsFile], known_values: Mapping[str, Variable]
    ) -> None:
        super().__init__(files)
        self._known_values = known_values

    def __getitem__(self, path: str) -> Variable:
        return self._known_values.get(path) or super().__getitem__(path)


def stored_paths(owners: Mapping[str, Owner]) -> list[str]:
    """Return the path of every variable."""
    return [
        join(join(group, "vars"), member) for group in owners for member in owners[group].members
    ]


def weights_checkpoint(
    path: str,
    resolved: str,
    format_: str,
    owners: Mapping[str, Owner],
    files: Mapping[str, WeightsFile],
    *,
    configuration: Configuration | None = None,
    keras_version: str = "",
    notes: tuple[str, ...] = (),
    close: Callable[[], None],
) -> Checkpoint:
    """Return the checkpoint of some objects; `files` has the file of each variable.

    Raises `Incomplete` if variables of a BN layer are missing.
    """
    configured = configuration or Configuration({}, {})
    stored = StoredObjects(resolved, owners, files, configured)
    groups = find_bn_groups(stored)
    known = dict(groups.known_names)
    optimizers = [group for group in owners if is_optimizer(group)]
    for group in optimizers:
        # A loss scaler stores the variables of the optimizer it wraps among its own, behind others.
        if "0" in owners[group].members and join(group, "inner_optimizer") not in owners:
            known[f"{group}/vars/0"] = f"{group}/iteration"
    optimizer = dict.fromkeys(stored_paths({group: owners[group] for group in optimizers}))
    rest = [
        variable_path
        for variable_path in files
        if variable_path not in optimizer and variable_path not in known
    ]
    model = [variable_path for variable_path in known if variable_path not in optimizer]
    return Checkpoint(
        path=path,
        resolved=resolved,
        format=format_,
        variables=_ReadWeights(
            {variable_path: files[variable_path] for variable_path in (*model, *rest)},
            stored.known_values,
        ),
        optimizer=Weights({variable_path: files[variable_path] for variable_path in optimizer}),
        in_order=True,
        named_by="object",
        known_names=known,
        keras_layers=configuration.layers if configuration else None,
        keras_model=configuration.model if configuration else None,
        keras_version=keras_version or _keras_version(owners),
        roles_by_values=groups.by_values,
        unchecked=groups.unchecked,
        notes=(*notes, *groups.notes),
        prefetch=Weights(files).prefetch,
        close=close,
    )
