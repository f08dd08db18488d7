"""`recalibrate`: a page on the statistics before and after, layer by layer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, TextIO

from bninspect._version import __version__
from bninspect.model.recalibration import RecalibratedLayer, Recalibration
from bninspect.reporters import recalibrate_verdict
from bninspect.reporters.html.charts import bins_of, histogram
from bninspect.reporters.html.layers import Figure, anchor
from bninspect.reporters.html.rendering import asset, policy, write

_COLOURS = {"CURED": "pass", "CURABLE": "warn", "REFUSED": "fail"}


class LayerChange(NamedTuple):
    """A layer as the page shows it: `id` is its anchor, `figures` its distributions."""

    id: str
    layer: RecalibratedLayer
    figures: tuple[Figure, ...]


def write_recalibration(result: Recalibration, stream: TextIO) -> None:
    """Write the page on one recalibration."""
    outcome = recalibrate_verdict.outcome(result)
    modes = recalibrate_verdict.modes(result.quality, result.outputs)
    write(
        stream,
        "recalibration.html.j2",
        policy=policy(has_script=False),
        style=asset("style.css"),
        version=__version__,
        result=result,
        outcome=outcome,
        colour=_COLOURS[outcome],
        verdict=recalibrate_verdict.verdict(result),
        headings=list(modes[-1][1]),
        modes=modes,
        layers=[_change(layer) for layer in result.layers],
        only_you_know=recalibrate_verdict.ONLY_THE_USER_KNOWS,
    )
    stream.write("\n")


def _change(layer: RecalibratedLayer) -> LayerChange:
    return LayerChange(anchor(layer.name), layer, tuple(_figures(layer)))


def _figures(layer: RecalibratedLayer) -> Iterator[Figure]:
    for name, values in (
        ("moving_mean before", layer.mean_before),
        ("moving_mean after", layer.mean),
        ("moving_variance before", layer.variance_before),
        ("moving_variance after", layer.variance),
    ):
        yield Figure(name, histogram(bins_of(values)))
