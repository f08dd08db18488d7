"""`list` as text: a table of layers for each checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from typing import TextIO

from bninspect.errors import shortened
from bninspect.model.checkpoint import Variable
from bninspect.model.layer import BNLayer
from bninspect.model.report import CheckpointReport, Report
from bninspect.model.roles import ROLES, Role
from bninspect.reporters.escapes import printable, write_line, write_lines
from bninspect.reporters.text_utils import PLAIN, TextStyle, align, bold, fold
from bninspect.reporters.verdict_text import nothing_checked
from bninspect.wording import plural

_FORMATS = {
    "tf-v1": "TensorFlow V1 checkpoint",
    "tf-v2": "TensorFlow V2 checkpoint",
    "tf-object": "object-based TensorFlow checkpoint",
    "saved-model": "SavedModel",
    "graph-def": "frozen graph",
    "keras-h5": "Keras HDF5 file",
    "keras-weights-h5": "Keras 3 weights file",
    "keras-zip": ".keras file",
    "onnx": "ONNX model",
    "orbax": "Orbax checkpoint",
    "tfjs": "TensorFlow.js model",
}


def write_list(report: Report, stream: TextIO, style: TextStyle = PLAIN) -> None:
    """Write a table of layers for each checkpoint.

    A quiet `style` leaves the names, one per line, of several checkpoints each after the path. A
    verbose one adds the stored name of each member, and shows all names if there is no layer. How
    training computes each layer is added if the report has it.
    """
    for index, item in enumerate(report.checkpoints):
        if style.quiet and not item.error:
            of_which = f"{item.path}: " if len(report.checkpoints) > 1 else ""
            for layer in item.layers:
                write_line(stream, of_which + layer.name)
            continue
        if index:
            write_line(stream, "")
        _write_checkpoint(item, stream, style)
    if not style.quiet and any(item.layers for item in report.checkpoints):
        write_line(stream, "")
        write_line(
            stream,
            "stored: g gamma, b beta, m moving_mean, v moving_variance, - no, ? unread",
        )
    if not style.quiet:
        for note in report.notes:
            write_line(stream, f"note: {note}")


def _write_checkpoint(item: CheckpointReport, stream: TextIO, style: TextStyle) -> None:
    """Write the line about a checkpoint, its notes, and the table of its layers."""
    about = [_headline(item), *(f"  note: {shortened(note)}" for note in item.notes)]
    write_lines(stream, fold(map(printable, about), style.width))
    if item.layers:
        _write_layers(stream, item, style)
        if style.verbose:
            _write_variables(stream, item)
        if item.computations is not None:
            from bninspect.reporters.computation_text import write_computations

            write_computations(item.layers, item.computations, stream, style.prose_width)
    elif style.verbose:
        for name in item.names:
            write_line(stream, f"  {name}")


_CHECKSUMS = {
    True: "checksums verified",
    False: "checksum not verified",
    None: "no checksums",
}
_OF_INDEX = "checksums of the index alone"


def _headline(item: CheckpointReport) -> str:
    """Return the line about the checkpoint; with family and type, if all layers share them."""
    if item.error:
        return f"ERROR  {item.error}"
    facts = [_FORMATS.get(item.format or "", str(item.format))]
    if item.step is not None:
        facts.append(f"step {item.step}")
    for shared in (_families(item), _dtypes(item)):
        facts += shared if len(shared) == 1 else ()
    facts.append(_OF_INDEX if item.format == "orbax" else _CHECKSUMS[item.verified])
    found = nothing_checked(item)
    if item.layers:
        among = plural(item.variable_count, "variable")
        found = f"{plural(len(item.layers), 'BN layer')} among {among}"
    return f"{item.path}: {found} ({', '.join(facts)})"


def _families(item: CheckpointReport) -> set[str]:
    return {f"family {layer.family}" for layer in item.layers}


def _dtypes(item: CheckpointReport) -> set[str]:
    return {str(layer.dtype) for layer in item.layers}


def _write_variables(stream: TextIO, item: CheckpointReport) -> None:
    """Write the stored name of each member and helper, layer by layer."""
    for group in item.unchecked:
        write_line(stream, "")
        write_line(stream, f"{group.name} (not checked):")
        for name in group.variables:
            write_line(stream, f"  {name}")
    for layer in item.layers:
        write_line(stream, "")
        write_line(stream, f"{layer.name}:")
        for role, variable in (*layer.variables.items(), *layer.helpers.items()):
            write_line(stream, f"  {role:<22}  {variable.name}")


def _write_layers(stream: TextIO, item: CheckpointReport, style: TextStyle) -> None:
    """Write one row per layer; below the layer's name if the terminal is too narrow."""
    shown: list[tuple[str, Callable[[BNLayer], str]]] = [
        ("layer", lambda layer: printable(layer.name)),
        ("channels", lambda layer: str(layer.channels)),
        ("stored", _stored),
        ("moving_mean", lambda layer: _range(layer, "moving_mean")),
        ("moving_variance", lambda layer: _range(layer, "moving_variance")),
    ]
    if len(_families(item)) > 1:
        shown.append(("family", lambda layer: layer.family))
    if len(_dtypes(item)) > 1:
        shown.append(("dtype", lambda layer: str(layer.dtype)))
    named = [name for name, _ in shown]
    rows = [named, *([cell(layer) for _, cell in shown] for layer in item.layers)]
    lines = align(rows, right=("channels",))
    if style.width is not None and max(map(len, lines)) > style.width:
        head, *below = align([row[1:] for row in rows], right=("channels",))
        lines = [f"  {head}"]
        for layer, line in zip(item.layers, below, strict=True):
            lines += [printable(layer.name), f"  {line}"]
    lines[0] = bold(lines[0], color=style.color)
    write_lines(stream, lines)


def _stored(layer: BNLayer) -> str:
    return "".join(
        letter if role in layer.variables else "-"
        for role, letter in zip(ROLES, "gbmv", strict=True)
    )


def _range(layer: BNLayer, role: Role) -> str:
    values = layer.values.get(role)
    if values is None:
        return _why_no_range(layer.variables.get(role))
    if values.all_initial:
        return f"{values.minimum:g} (initial)"
    return f"{values.minimum:.4g} to {values.maximum:.4g}"


def _why_no_range(variable: Variable | None) -> str:
    if variable is None:
        return "-"
    return "not written" if variable.unwritten else "?"
