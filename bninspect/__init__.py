"""Finds batch-normalization statistics that training never updated.

Reads TensorFlow checkpoints, Keras files, ONNX and TensorFlow.js models, and Orbax steps itself:
TensorFlow is not imported, and nothing that is stored in a model is executed.

    >>> import bninspect
    >>> report = bninspect.check("model.ckpt-200")
    >>> assert report.ok, bninspect.explain(report)

`check` judges, `list_layers` only lists, `compare` shows the changes of each layer from checkpoint
to checkpoint of a training; `open_checkpoint` and `find_layers` are the steps below them. None of
them prints. Their results are immutable: a `Report` has a `CheckpointReport` for each checkpoint,
and that has `BNLayer`s with their `Values` and `Finding`s. `explain` returns a report as text.
A notebook shows a `Report` or a `BNLayer` by `as_html`, and a training logs the `scalars` of its
layers. `bninspect.keras`, `bninspect.tf1` and `bninspect.flax` guard a training while it runs.
Importing the package imports none of its parts until one is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bninspect._version import __version__

if TYPE_CHECKING:
    from bninspect.api import check, compare, list_layers
    from bninspect.batchnorm.find_layers import find_layers
    from bninspect.errors import BninspectError, ReadProblem, UsageProblem
    from bninspect.model.checkpoint import Checkpoint, Variable
    from bninspect.model.layer import BNLayer, Values
    from bninspect.model.report import CheckpointReport, Finding, Report
    from bninspect.model.rule import Rule
    from bninspect.opening import open_checkpoint
    from bninspect.reporters.check_text import explain
    from bninspect.reporters.html.notebook import as_html
    from bninspect.reporters.scalars import scalars
    from bninspect.verdicts.comparison import Comparison

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
    "scalars",
]

# Where each public name is defined.
_MODULES = {
    "bninspect.api": ("check", "compare", "list_layers"),
    "bninspect.batchnorm.find_layers": ("find_layers",),
    "bninspect.errors": ("BninspectError", "ReadProblem", "UsageProblem"),
    "bninspect.model.checkpoint": ("Checkpoint", "Variable"),
    "bninspect.model.layer": ("BNLayer", "Values"),
    "bninspect.model.report": ("CheckpointReport", "Finding", "Report"),
    "bninspect.model.rule": ("Rule",),
    "bninspect.opening": ("open_checkpoint",),
    "bninspect.reporters.check_text": ("explain",),
    "bninspect.reporters.html.notebook": ("as_html",),
    "bninspect.reporters.scalars": ("scalars",),
    "bninspect.verdicts.comparison": ("Comparison",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

if not TYPE_CHECKING:  # a type checker would take every name, misspelt ones too, for one there is

    def __getattr__(name: str) -> object:
        if name in _MODULE_OF:
            from importlib import import_module

            _show_in_notebooks()
            return getattr(import_module(_MODULE_OF[name]), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _show_in_notebooks() -> None:
    """Attach `as_html` to `Report` and `BNLayer`, so that a notebook displays them.

    The data types know no reporter; every user of them imports this module.
    """
    from bninspect.model.layer import BNLayer
    from bninspect.model.report import Report

    def as_html(shown: Report | BNLayer) -> str:
        from bninspect.reporters.html.notebook import as_html

        return as_html(shown)

    for shown in (BNLayer, Report):
        shown._repr_html_ = as_html  # type: ignore[union-attr]


def __dir__() -> list[str]:
    return __all__
