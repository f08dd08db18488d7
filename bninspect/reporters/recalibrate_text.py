"""`recalibrate` as text: cured or refused and why, then layers, outputs, and what to look at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TextIO

from numpy.typing import NDArray

from bninspect.model.recalibration import RecalibratedLayer, Recalibration
from bninspect.reporters.escapes import printable, write_lines
from bninspect.reporters.recalibrate_verdict import ONLY_THE_USER_KNOWS, outcome, verdict
from bninspect.reporters.text_utils import PLAIN, TextStyle, align, fold, paint, wrap
from bninspect.wording import listed, plural

_INDENT = 2


def write_recalibration(result: Recalibration, stream: TextIO, style: TextStyle = PLAIN) -> None:
    """Write a result. A quiet `style` leaves the first line, a verbose one shows every layer."""
    word = paint(outcome(result), color=style.color)
    write_lines(stream, fold([f"{word}  {printable(verdict(result))}"], style.width))
    if style.quiet or result.refusal is not None:
        return
    write_lines(stream, _layers(result.layers, style))
    write_lines(stream, _facts(result, style.prose_width))


_MOST_LAYERS = 20


def _layers(layers: Sequence[RecalibratedLayer], style: TextStyle) -> Iterator[str]:
    """Yield a table of the layers: ranges before and after, and the worst standard errors.

    A row stands below the layer's name if the terminal is too narrow.
    """
    shown = layers if style.verbose else layers[:_MOST_LAYERS]
    rows = [("layer", "mean", "variance", "error of mean", "of variance")]
    rows += [
        (
            printable(layer.name),
            f"{_range(layer.mean_before)} -> {_range(layer.mean)}",
            f"{_range(layer.variance_before)} -> {_range(layer.variance)}",
            f"{layer.mean_error:.2g} dev.",
            f"{layer.variance_error:.1%}",
        )
        for layer in shown
    ]
    lines = align(rows)
    if style.width is not None and max(map(len, lines)) + _INDENT > style.width:
        head, *below = align([row[1:] for row in rows])
        named = zip(rows[1:], below, strict=True)
        lines = [f"  {head}", *(line for row, one in named for line in (row[0], f"  {one}"))]
    yield from (f"{' ' * _INDENT}{line}" for line in lines)
    if len(layers) > len(shown):
        yield f"{' ' * _INDENT}and {len(layers) - len(shown)} more layers (--verbose)"


def _range(values: NDArray[Any]) -> str:
    low, high = float(values.min()), float(values.max())
    return f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"


def _facts(result: Recalibration, width: int) -> Iterator[str]:
    """Yield the proof, what became of the outputs, and what only the user knows."""
    facts = [("proof", result.proof or "")]
    if result.outputs is not None:
        facts += _outputs(result)
    if result.quality is not None:
        shown = "{:.1%}" if result.quality.measure == "accuracy" else "{:.4g}"
        modes = [
            f"{name} {shown.format(value)}"
            for name, value in (
                ("batch statistics", result.quality.training),
                ("before", result.quality.before),
                ("after", result.quality.after),
            )
        ]
        facts.append((result.quality.measure, ", ".join(modes)))
    if result.kept:
        facts.append(("kept", f"{plural(len(result.kept), 'layer')} as before: {_names(result)}"))
    facts += [("note", note) for note in result.notes]
    facts.append(("ran by", result.framework))
    facts += [("verify", f"that {one}") for one in ONLY_THE_USER_KNOWS]
    longest = max(len(name) for name, _ in facts)
    for name, text in facts:
        head = f"{' ' * _INDENT}{name:<{longest}}  "
        yield from wrap(head, text, width, len(head))


def _names(result: Recalibration) -> str:
    return listed(list(result.kept))


def _outputs(result: Recalibration) -> Iterator[tuple[str, str]]:
    change = result.outputs
    if change is None:
        return
    apart = f"{change.apart_before:.3g} before and {change.apart_after:.3g} after"
    count = plural(change.samples, "sample")
    yield "outputs", f"moved by {change.moved:.3g} deviations, on {count}"
    yield "", f"distance from those on batch statistics: {apart}"
    if change.same_before is not None and change.same_after is not None:
        same = f"{change.same_before:.1%} before and {change.same_after:.1%} after"
        yield "", f"same prediction (largest output) as on batch statistics: {same}"
