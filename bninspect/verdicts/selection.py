"""Selection of layers by name or glob."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable

from bninspect.errors import UsageProblem
from bninspect.model.report import Report
from bninspect.wording import did_you_mean, nearest


def choose_layers(path: str | os.PathLike[str], report: Report, names: Iterable[str]) -> set[str]:
    """Return the names of the layers of a report that match any of `names`, names or globs.

    Raises `UsageProblem`, naming the checkpoint `path`, for a name that matches none.
    """
    known = list(dict.fromkeys(layer.name for item in report.checkpoints for layer in item.layers))
    chosen: set[str] = set()
    for name in names:
        matching = matching_layers(name, known)
        if not matching:
            raise UsageProblem(_no_such_layer(os.fspath(path), name, known))
        chosen.update(matching)
    return chosen


def matching_layers(name: str, known: Collection[str]) -> list[str]:
    """Return the known layer of exactly this name, else those that match it as a glob."""
    from fnmatch import fnmatchcase

    return [name] if name in known else [layer for layer in known if fnmatchcase(layer, name)]


def _no_such_layer(path: str, name: str, known: list[str]) -> str:
    if not known:
        return f"{path} has no BN layer."
    near = did_you_mean(nearest(name, known, cutoff=0.4))
    return f"{path} has no BN layer {name!r}.{near} `bninspect list {path}` shows them all."
