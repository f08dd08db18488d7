"""Which layers of a report a person means by name or pattern."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable

from bninspect.errors import UsageProblem
from bninspect.model.report import Report
from bninspect.wording import did_you_mean, nearest


def choose_layers(path: str | os.PathLike[str], report: Report, names: Iterable[str]) -> set[str]:
    """The layers of a report that any of `names` means, each a name or a pattern.

    Raises `UsageProblem`, which calls the checkpoint `path`, for a name that means none.
    """
    known = list(dict.fromkeys(layer.name for item in report.checkpoints for layer in item.layers))
    chosen: set[str] = set()
    for name in names:
        matching = layers_called(name, known)
        if not matching:
            raise UsageProblem(_no_such_layer(os.fspath(path), name, known))
        chosen.update(matching)
    return chosen


def layers_called(name: str, known: Collection[str]) -> list[str]:
    """Which of the `known` layers `name` means: the one of that name, else those it matches."""
    from fnmatch import fnmatchcase

    return [name] if name in known else [one for one in known if fnmatchcase(one, name)]


def _no_such_layer(path: str, name: str, known: list[str]) -> str:
    if not known:
        return f"{path} has no BN layer."
    near = did_you_mean(nearest(name, known, cutoff=0.4))
    return f"{path} has no BN layer {name!r}.{near} `bninspect list {path}` shows them all."
