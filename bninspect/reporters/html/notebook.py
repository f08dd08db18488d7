"""Views for notebooks: the parts of the page, without its script and links.

A notebook has many outputs in one page, so nothing here has an id.
"""

from __future__ import annotations

from dataclasses import replace

from bninspect.model.layer import BNLayer
from bninspect.model.report import CheckpointReport, Report
from bninspect.reporters.html.layers import Figure, LayerView, figures, layer_view, layer_views
from bninspect.reporters.html.rendering import asset, render
from bninspect.reporters.html.verdicts import checkpoint_view, run_view

# How much of a large report is shown in a cell.
_CHECKPOINTS, _LAYERS = 10, 40


def as_html(shown: Report | BNLayer) -> str:
    """Return a report or a layer as an HTML element with its own style.

    That is what a notebook displays for it. Of many checkpoints and layers the first are shown;
    `bninspect report` makes a page of all.
    """
    style = asset("style.css")
    if isinstance(shown, BNLayer):
        view = layer_view(shown)
        return str(
            render("notebook_layer.html.j2", style=style, layer=view, figures=figures(shown))
        )
    items = shown.checkpoints[:_CHECKPOINTS]
    return str(
        render(
            "notebook_report.html.j2",
            style=style,
            run=run_view(shown),
            several=len(shown.checkpoints) > 1,
            checkpoints=[
                (checkpoint_view(item), _layers(_head(item)), len(item.layers[_LAYERS:]))
                for item in items
            ],
            left_out=len(shown.checkpoints) - len(items),
        )
    )


def _layers(item: CheckpointReport) -> list[tuple[LayerView, tuple[Figure, ...]]]:
    """Return the views of a checkpoint's layers, with their charts."""
    return list(zip(layer_views(item), map(figures, item.layers), strict=True))


def _head(item: CheckpointReport) -> CheckpointReport:
    return replace(item, layers=item.layers[:_LAYERS])
