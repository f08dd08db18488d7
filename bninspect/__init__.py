"""Finds batch-normalization statistics that training never updated.

Reads TensorFlow checkpoints and Keras files itself: TensorFlow is not imported, and nothing that
is stored in a model is executed.

    >>> import bninspect
    >>> report = bninspect.check("model.ckpt-200")
    >>> [finding.message for finding in report.findings]

`check` judges, `list_layers` only lists, `compare` says what became of each layer from checkpoint
to checkpoint of a training; `open_checkpoint` and `find_layers` are the steps below
them. Importing the package imports none of its parts until one is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bninspect.errors import BninspectError, ReadProblem, UsageProblem
    from bninspect.formats import open_checkpoint
    from bninspect.inspection import check, compare, list_layers
    from bninspect.layers import find_layers

__version__ = "0.1.0"
__all__ = [
    "BninspectError",
    "ReadProblem",
    "UsageProblem",
    "__version__",
    "check",
    "compare",
    "find_layers",
    "list_layers",
    "open_checkpoint",
]

_HOMES = {
    "BninspectError": "bninspect.errors",
    "ReadProblem": "bninspect.errors",
    "UsageProblem": "bninspect.errors",
    "check": "bninspect.inspection",
    "compare": "bninspect.inspection",
    "find_layers": "bninspect.layers",
    "list_layers": "bninspect.inspection",
    "open_checkpoint": "bninspect.formats",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module  # noqa: PLC0415 - an unused package costs nothing

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
