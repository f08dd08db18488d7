"""Which layers of a report a person means by name or pattern."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable

from bninspect.errors import UsageProblem
from bninspect.model.report import Report


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
    from difflib import get_close_matches

    if not known:
        return f"{path} has no BN layer."
    near = get_close_matches(name, known, 1, cutoff=0.4)
    suggestion = f" Did you mean {near[0]!r}?" if near else ""
    return f"{path} has no BN layer {name!r}.{suggestion} `bninspect list {path}` shows them all."
