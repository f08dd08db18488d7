"""Identity of checkpoints and of trainings, which is decided only here.

A training writes its checkpoints into one directory, under names that differ in numbers alone
(`model.ckpt-200`, `model.ckpt-400`), or one each into directories whose names do (`epoch_1/m.h5`,
`epoch_2/m.h5`). Paths are never compared as text: the same directory may be named relative,
absolute or through a link.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from bninspect.model.filenames import VARIABLES, without_numbers
from bninspect.model.target import CheckpointLocation, Target, Training
from bninspect.storage import filesystem
from bninspect.storage.run_scope import of_run
from bninspect.storage.urls import is_url

_MOST_PARENTS = 1024
_MOST_IDENTITIES = 1 << 14


def identity(location: CheckpointLocation) -> str:
    """Return a text that is the same for every path that leads to this checkpoint."""
    if location.target is None:
        # A missing bucket is a problem of each URL in it.
        path = location.path
        if location.problem is not None and not is_url(path):
            path = location.problem.path
        return f"problem:{path}"
    if location.target.graph and _is_graph_alone(location.target):
        return filesystem.real_path(os.path.join(location.target.path, location.target.graph))
    if location.target.kind != "tensor-bundle":
        return filesystem.real_path(location.target.path)
    return of_run(_RealDirectories).identity_of(location.target.path)


def _is_graph_alone(target: Target) -> bool:
    """Return whether a SavedModel has no variables: other graphs in its directory are others."""
    from bninspect.storage.saved_models import variables_prefix

    return variables_prefix(target.path) is None


class _RealDirectories:
    """The real paths of directories; those of their parents, which few share, are kept.

    So are the identities of V2 checkpoints, for a run asks for each several times.
    """

    def __init__(self) -> None:
        self._real: dict[str, str] = {}
        self._identities: dict[str, str] = {}

    def identity_of(self, prefix: str) -> str:
        """Return the `identity` of the V2 checkpoint at `prefix`."""
        known = self._identities.get(prefix)
        if known is not None:
            return known
        directory, name = os.path.split(prefix)
        # Not the real path of the index: a link to the index alone is not a link to the checkpoint.
        folder = self.path_of(directory or ".")
        real = prefix if folder == directory else os.path.join(folder, name)
        found = prefix if real == prefix else real
        if name == VARIABLES:
            from bninspect.storage.saved_models import saved_model_around

            found = saved_model_around(real) or found
        if len(self._identities) < _MOST_IDENTITIES:
            self._identities[prefix] = found
        return found

    def path_of(self, directory: str) -> str:
        """Return `real_path` of a directory."""
        parent, name = os.path.split(directory)
        if is_url(directory) or name in {"", ".", ".."} or os.path.islink(directory):
            return filesystem.real_path(directory)
        if parent not in self._real:
            if len(self._real) == _MOST_PARENTS:
                self._real.clear()
            self._real[parent] = filesystem.real_path(parent)
        return os.path.join(self._real[parent], name)


def with_trainings(locations: Iterable[CheckpointLocation]) -> list[CheckpointLocation]:
    """Return `locations`, each with the training it belongs to: that of `trainings_of`."""
    locations = list(locations)
    return [
        item if training is None else item._replace(training=training)
        for item, training in zip(locations, trainings_of(locations), strict=True)
    ]


def trainings_of(locations: Sequence[CheckpointLocation]) -> Iterator[Training | None]:
    """Yield the training of each location.

    It is None for locations that cannot be opened, and for SavedModels: these are exports
    (`export/1`, `export/2`), which no training writes one after the other.
    """
    identities = [os.path.split(identity(item)) for item in locations]
    series = _series(Counter(folder for folder, _ in identities))
    for item, (folder, name) in zip(locations, identities, strict=True):
        if item.target is None or item.target.kind == "saved-model":
            yield None
        else:
            yield Training(series[folder], without_numbers(name))


def training_folders(path: str, locations: Sequence[CheckpointLocation]) -> list[str]:
    """Return a folder of each training, if `path` names the checkpoints of several; else nothing.

    Two checkpoints directly in the directory make it that of one training, whose exports and best
    models lie below. Two SavedModels do not: they may be exports of any training.
    """
    home = filesystem.real_path(os.path.dirname(path) if filesystem.is_file(path) else path)
    counts: Counter[str] = Counter()
    shown: dict[str, str] = {}
    directly_written = 0
    for item in locations:
        if item.target is not None:
            folder = os.path.dirname(identity(item))
            counts[folder] += 1
            shown.setdefault(folder, os.path.dirname(item.path) or ".")
            directly_written += folder == home and item.target.kind != "saved-model"
    del counts[home]
    if directly_written > 1:
        return []
    series = _series(counts)
    first = {series[folder]: folder for folder in reversed(counts)}
    return [shown[folder] for folder in reversed(first.values())] if len(first) > 1 else []


def _series(counts: Mapping[str, int]) -> dict[str, str]:
    """Return for each folder the identity of its training: the folder, or the series it is in.

    Folders beside each other form a series if their names differ in numbers alone, and each holds
    one checkpoint. `counts` has the number of checkpoints in each folder.
    """
    alike: dict[str, list[str]] = {}
    for folder in counts:
        parent, name = os.path.split(folder)
        alike.setdefault(os.path.join(parent, without_numbers(name)), []).append(folder)
    series: dict[str, str] = {}
    for pattern, folders in alike.items():
        is_series = len(folders) > 1 and all(counts[folder] == 1 for folder in folders)
        series.update((folder, pattern if is_series else folder) for folder in folders)
    return series
