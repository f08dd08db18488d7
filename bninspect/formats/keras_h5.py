"""Keras HDF5 files, whole models and weights only: `.h5`, `.hdf5`. The only user of h5py.

Layout (keras/src/legacy/saving/legacy_h5_format.py, keras/engine/saving.py of Keras 2,
keras/engine/topology.py of Keras 1):

    [model_weights/]        attributes layer_names, backend, keras_version
      LAYER/                attribute weight_names: paths of the layer's weights below the group
        …/moving_mean:0     a dataset each
    optimizer_weights/      attribute weight_names: the optimizer's variables
    attributes model_config, training_config, keras_version on the root: JSON, JSON, text

An attribute too large for an HDF5 header is cut into NAME0, NAME1, …. Weights are taken in the
order of these attributes, which is the order of the network. Only what the attributes name is
opened, only through hard links of this very file: external links, external storage and virtual
datasets would make the library open other files, so they are refused.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import h5py
from numpy.typing import NDArray

from bninspect.errors import Corrupt, Incomplete, ReadProblem, UnknownFormat, Unsupported
from bninspect.formats.keras_model import keras_layers
from bninspect.formats.source import Budget
from bninspect.model import Checkpoint, KerasLayer, Variable

# A filter of HDF5 cannot expand a chunk more than deflate does (1032:1); what claims more than
# that from its stored bytes is not read. Datasets below the floor are, whatever they claim.
_MAX_GROWTH = 1032
_GROWTH_FLOOR = 1 << 20
_WIDEST_ELEMENT = 8  # bytes

_DAMAGED = "The file is damaged or was cut short; copy it again or use another one."


def open_keras_h5(path: str, file_path: str, notes: tuple[str, ...] = ()) -> Checkpoint:
    """Open the Keras HDF5 file at `file_path`; `path` is what the user typed.

    Raises a `ReadProblem` if HDF5 cannot open it, if it is no Keras file, if its attributes name
    weights that are not there, or if it refers to other files.
    """
    with _faults(file_path):
        try:
            file = h5py.File(file_path, "r")
        except BlockingIOError as error:
            raise Incomplete(
                file_path,
                "it is open for writing in another program",
                "Try again when that has closed it.",
            ) from error
    try:
        reader = _Reader(file, file_path)
        with _faults(file_path):
            variables, optimizer = reader.model_weights(), reader.optimizer_weights()
        return Checkpoint(
            path=path,
            resolved=file_path,
            format="keras-h5",
            variables=variables,
            optimizer=optimizer,
            in_order=True,
            named_by="object",
            keras_layers=reader.keras_layers(),
            notes=notes,
            close=file.close,
        )
    except BaseException:
        file.close()
        raise


@contextmanager
def _faults(path: str) -> Iterator[None]:
    """Turn what h5py raises about a damaged file into a `Corrupt`.

    h5py reports one and the same damage as any of these, by where the library noticed it.
    """
    try:
        yield
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise Corrupt(path, f"HDF5 cannot read it ({error})", _DAMAGED) from error


class _Weights(Mapping[str, Variable]):
    """Weights by path; each is opened when it is looked up, most never are."""

    def __init__(self, reader: _Reader, paths: list[str]) -> None:
        self._reader = reader
        self._paths = dict.fromkeys(paths)

    def __getitem__(self, path: str) -> Variable:
        if path not in self._paths:
            raise KeyError(path)
        return self._reader.variable(path)

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)


class _Reader:
    def __init__(self, file: Any, path: str) -> None:
        self._file = file
        self._path = path
        self._budget = Budget()
        self._budget.grant(os.path.getsize(path))

    def model_weights(self) -> _Weights:
        """The model's weights by their path in the file, in the order of the network."""
        prefix = "model_weights" if "model_weights" in self._file else ""
        group = self._group(prefix) if prefix else self._file
        if "layer_names" not in group.attrs and "layer_names0" not in group.attrs:
            raise self._not_keras()
        paths = []
        for layer_name in self._names(group, "layer_names"):
            layer_path = _join(prefix, layer_name)
            names = self._names(self._group(layer_path), "weight_names")
            paths += [_join(layer_path, name) for name in names]
        return _Weights(self, paths)

    def optimizer_weights(self) -> _Weights:
        """The optimizer's variables by their path in the file; none in a weights-only file."""
        prefix = "optimizer_weights"
        if prefix not in self._file:
            return _Weights(self, [])
        names = self._names(self._group(prefix), "weight_names")
        return _Weights(self, [_join(prefix, name) for name in names])

    def keras_layers(self) -> dict[tuple[str, ...], KerasLayer] | None:
        """The layers of the stored model configuration by path; None without one."""
        with _faults(self._path):
            config = self._texts(self._file, "model_config")
            version = self._texts(self._file, "keras_version")
        if not config:
            return None
        try:
            return keras_layers(json.loads(config[0]), version[0] if version else "")
        except (TypeError, ValueError, RecursionError) as error:
            raise Corrupt(
                self._path, "its model_config is not the JSON of a Keras model", _DAMAGED
            ) from error

    def _names(self, group: Any, attribute: str) -> list[str]:
        """The names an attribute lists, put together if it was cut into NAME0, NAME1, …."""
        if attribute in group.attrs:
            return self._list(group, attribute)
        if f"{attribute}0" not in group.attrs:
            raise Corrupt(self._path, f"{group.name} has no {attribute}", _DAMAGED)
        names: list[str] = []
        chunk = 0
        while f"{attribute}{chunk}" in group.attrs:
            names += self._list(group, f"{attribute}{chunk}")
            chunk += 1
        return names

    def _list(self, group: Any, attribute: str) -> list[str]:
        if len(group.attrs.get_id(attribute).shape) != 1:
            raise Corrupt(self._path, f"{attribute} of {group.name} is no list of names", _DAMAGED)
        return self._texts(group, attribute)

    def _texts(self, group: Any, attribute: str) -> list[str]:
        """The strings of an attribute, one or a list of them; none if it is empty or absent."""
        if attribute not in group.attrs:
            return []
        stored = group.attrs.get_id(attribute)
        if not math.prod(stored.shape):
            return []
        # Anything else that is said to be of variable length crashes the library when it is read.
        if not isinstance(stored.get_type(), h5py.h5t.TypeStringID):
            raise Corrupt(self._path, f"{attribute} of {group.name} is no text", _DAMAGED)
        value = group.attrs[attribute]
        texts = [value] if isinstance(value, bytes | str) else list(value)
        return [
            text.decode("utf-8", "surrogateescape") if isinstance(text, bytes) else str(text)
            for text in texts
        ]

    def _group(self, path: str) -> Any:
        group = self._follow(path)
        if not isinstance(group, h5py.Group):
            raise Corrupt(self._path, f"{path} should be a group", _DAMAGED)
        return group

    def variable(self, path: str) -> Variable:
        """The weight at `path`, its values not yet read."""
        with _faults(self._path):
            dataset = self._follow(path)
            if not isinstance(dataset, h5py.Dataset) or dataset.shape is None:
                raise Corrupt(self._path, f"{path} should be a dataset", _DAMAGED)
            if dataset.is_virtual or dataset.external:
                raise Unsupported(
                    self._path,
                    f"the values of {path} lie in another file (external or virtual dataset)",
                    "Keras never writes this; copy the values into one file to check them.",
                )
            shape, dtype = tuple(dataset.shape), str(dataset.dtype.name)
        if _is_bfloat16(dataset.dtype):
            dtype = "bfloat16"
        return Variable(path, shape, dtype, lambda: self._read(path, dataset))

    def _follow(self, path: str) -> Any:
        """The object at `path`, reached by hard links alone."""
        node: Any = self._file
        for part in path.split("/"):
            link = node.get(part, getlink=True) if isinstance(node, h5py.Group) else None
            if link is None:
                raise Corrupt(
                    self._path, f"{path}, which its attributes name, is missing", _DAMAGED
                )
            if not isinstance(link, h5py.HardLink):
                raise Unsupported(
                    self._path,
                    f"{path} is a link to another place or file",
                    "Keras never writes this; store the values themselves to check them.",
                )
            node = node[part]
        return node

    def _read(self, path: str, dataset: Any) -> NDArray[Any]:
        with _faults(self._path):
            claimed = dataset.size * dataset.dtype.itemsize
            stored = dataset.id.get_storage_size()
            if claimed > max(_GROWTH_FLOOR, _MAX_GROWTH * stored):
                raise Corrupt(
                    self._path,
                    f"{path} claims {claimed} bytes, but {stored} are stored",
                    _DAMAGED,
                )
            self._budget.take(claimed, self._path)
            if _is_bfloat16(dataset.dtype):
                upper: NDArray[Any] = dataset[()].view("<u2")
                return (upper.astype("u4") << 16).view("f4")
            if dataset.dtype.kind not in "fiub" or dataset.dtype.itemsize > _WIDEST_ELEMENT:
                raise Unsupported(
                    self._path,
                    f"{path} holds {dataset.dtype} elements, which are no numbers of Keras",
                    "Check that the file was written by Keras.",
                )
            values: NDArray[Any] = dataset[()]
            return values.astype(values.dtype.newbyteorder("="), copy=False)

    def _not_keras(self) -> ReadProblem:
        groups = [self._file, *_subgroups(self._file)]
        marked = "layers" in self._file or "_layer_checkpoint_dependencies" in self._file
        if marked or any("vars" in child for group in groups for child in _subgroups(group)):
            return Unsupported(
                self._path,
                "this is a .weights.h5 file of the Keras 3 format, which stores no variable names",
                "Save the whole model as .h5 to check it.",
            )
        return UnknownFormat(
            self._path,
            "this HDF5 file was not written by Keras (it names no layers)",
            "Check that it is a model or weights file.",
        )


def _subgroups(group: Any) -> list[Any]:
    """The groups in a group, reached by hard links alone."""
    names = [name for name in group if isinstance(group.get(name, getlink=True), h5py.HardLink)]
    return [group[name] for name in names if isinstance(group[name], h5py.Group)]


def _is_bfloat16(dtype: Any) -> bool:
    """Whether a dataset is bfloat16, which HDF5 lacks: Keras 3 stores it as two opaque bytes."""
    return bool(dtype.kind == "V" and dtype.itemsize == 2 and dtype.names is None)


def _join(prefix: str, name: str) -> str:
    return f"{prefix}/{name}" if prefix else name
