"""Which paths lead to one checkpoint, and which checkpoints form one training. Decided only here.

A training writes its checkpoints into one directory, under names that differ in numbers alone
(`model.ckpt-200`, `model.ckpt-400`), or one each into directories whose names do (`epoch_1/m.h5`,
`epoch_2/m.h5`). Paths are never compared as text: the same directory may be named relative,
absolute or through a link.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from bninspect.model.filenames import SAVED_MODEL, without_numbers
from bninspect.model.target import Found, Training
from bninspect.storage import filesystem
from bninspect.storage.urls import is_url


def identity(found: Found) -> str:
    """Return a text that is the same for every path that leads to this checkpoint."""
    if found.target is None:
        # Of URLs: a bucket that is missing is a problem of each of them.
        path = found.path
        if found.problem is not None and not is_url(path):
            path = found.problem.path
        return f"problem:{path}"
    if found.target.kind != "tensor-bundle":
        return filesystem.real_path(found.target.path)
    directory, name = os.path.split(found.target.path)
    directory = filesystem.real_path(directory or ".")
    parent, base = os.path.split(directory)
    if name == base == "variables" and filesystem.exists(os.path.join(parent, SAVED_MODEL)):
        return parent
    # Not the real path of the index: a link to that alone is no second name of the checkpoint.
    return os.path.join(directory, name)


def with_trainings(found: Iterable[Found]) -> list[Found]:
    """Return `found`, each with the training it belongs to.

    None is kept for what cannot be opened, and for SavedModels: these are exports (`export/1`,
    `export/2`), which no training writes one after the other.
    """
    found = list(found)
    places = [os.path.split(identity(item)) for item in found]
    series = _series(Counter(folder for folder, _ in places))
    return [
        item
        if item.target is None or item.target.kind == "saved-model"
        else replace(item, training=Training(series[folder], without_numbers(name)))
        for item, (folder, name) in zip(found, places, strict=True)
    ]


def training_folders(path: str, found: Sequence[Found]) -> list[str]:
    """Return a folder of each training, if `path` names the checkpoints of several; else nothing.

    Two checkpoints directly in the directory make it that of one training, whose exports and best
    models lie below. Two SavedModels do not: they may be exports of any training.
    """
    home = filesystem.real_path(os.path.dirname(path) if filesystem.is_file(path) else path)
    counts: Counter[str] = Counter()
    shown: dict[str, str] = {}
    directly_written = 0
    for item in found:
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
    """Return for each folder what identifies its training: itself, or the series it is part of.

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
