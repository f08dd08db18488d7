"""Finds batch-normalization statistics that training never updated.

Reads TensorFlow checkpoints and Keras files itself: TensorFlow is not imported, and nothing that
is stored in a model is executed.

    >>> import bninspect
    >>> report = bninspect.check("model.ckpt-200")
    >>> assert report.ok, bninspect.explain(report)

`check` judges, `list_layers` only lists, `compare` says what became of each layer from checkpoint
to checkpoint of a training; `open_checkpoint` and `find_layers` are the steps below them. None of
them prints. What they return is frozen: a `Report` has a `CheckpointReport` for each checkpoint,
that its `BNLayer`s with their `Values` and its `Finding`s; `explain` writes a report for a person.
A notebook shows a `Report` or a `BNLayer` by `as_html`.
`bninspect.keras` watches a training while it runs. Importing the package imports none of its parts
until one is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bninspect.comparison import Comparison
    from bninspect.errors import BninspectError, ReadProblem, UsageProblem
    from bninspect.findings import CheckpointReport, Finding, Report, Rule
    from bninspect.formats import open_checkpoint
    from bninspect.inspection import check, compare, list_layers
    from bninspect.layers import find_layers
    from bninspect.model import BNLayer, Checkpoint, Values, Variable
    from bninspect.reporters.html.notebook import as_html
    from bninspect.reporters.text import explain

__version__ = "0.1.0"
__all__ = [
    "BNLayer",
    "BninspectError",
    "Checkpoint",
    "CheckpointReport",
    "Comparison",
    "Finding",
    "ReadProblem",
    "Report",
    "Rule",
    "UsageProblem",
    "Values",
    "Variable",
    "__version__",
    "as_html",
    "check",
    "compare",
    "explain",
    "find_layers",
    "list_layers",
    "open_checkpoint",
]

_HOMES = {
    "BNLayer": "bninspect.model",
    "BninspectError": "bninspect.errors",
    "Checkpoint": "bninspect.model",
    "CheckpointReport": "bninspect.findings",
    "Comparison": "bninspect.comparison",
    "Finding": "bninspect.findings",
    "ReadProblem": "bninspect.errors",
    "Report": "bninspect.findings",
    "Rule": "bninspect.findings",
    "UsageProblem": "bninspect.errors",
    "Values": "bninspect.model",
    "Variable": "bninspect.model",
    "as_html": "bninspect.reporters.html.notebook",
    "check": "bninspect.inspection",
    "compare": "bninspect.inspection",
    "explain": "bninspect.reporters.text",
    "find_layers": "bninspect.layers",
    "list_layers": "bninspect.inspection",
    "open_checkpoint": "bninspect.formats",
}

if not TYPE_CHECKING:  # a type checker would take every name, misspelt ones too, for one there is

    def __getattr__(name: str) -> object:
        if name in _HOMES:
            from importlib import import_module  # noqa: PLC0415 - an unused package costs nothing

            return getattr(import_module(_HOMES[name]), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
