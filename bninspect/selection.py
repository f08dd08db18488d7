"""Which layers of a report a person means by name or pattern."""

from __future__ import annotations

import os
from collections.abc import Iterable

from bninspect.errors import UsageProblem
from bninspect.findings import Report


def choose_layers(path: str | os.PathLike[str], report: Report, names: Iterable[str]) -> set[str]:
    """The layers of a report that any of `names` means, each a name or a pattern.

    Raises `UsageProblem`, which calls the checkpoint `path`, for a name that means none.
    """
    from fnmatch import fnmatchcase  # noqa: PLC0415

    known = list(dict.fromkeys(layer.name for item in report.checkpoints for layer in item.layers))
    chosen: set[str] = set()
    for name in names:
        matching = [name] if name in known else [n for n in known if fnmatchcase(n, name)]
        if not matching:
            raise UsageProblem(_no_such_layer(os.fspath(path), name, known))
        chosen.update(matching)
    return chosen


def _no_such_layer(path: str, name: str, known: list[str]) -> str:
    from difflib import get_close_matches  # noqa: PLC0415

    if not known:
        return f"{path} has no BN layer."
    near = get_close_matches(name, known, 1, cutoff=0.4)
    suggestion = f" Did you mean {near[0]!r}?" if near else ""
    return f"{path} has no BN layer {name!r}.{suggestion} `bninspect list {path}` shows them all."
