"""`list` and `dump` as text: tables of layers and of channels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from bninspect.batchnorm.inference import Dump, Inference, columns
from bninspect.errors import shortened
from bninspect.model.checkpoint import Variable
from bninspect.model.layer import BNLayer
from bninspect.model.report import CheckpointReport, Report
from bninspect.model.roles import ROLES, Role
from bninspect.reporters.escapes import printable, write_lines
from bninspect.reporters.text_utils import align, bold, is_unicode
from bninspect.reporters.verdict_text import nothing_checked
from bninspect.wording import plural

# How many channels of a layer are shown without --verbose: the first and the last half of these.
_SHOWN_CHANNELS = 16
_BARS = " ▁▂▃▄▅▆▇█"
_ASCII_BARS = " .:-=+*#@"
_BINS = 24
_PORTION = 1 << 12  # channels whose rows are made at once
_FORMATS = {
    "tf-v1": "TensorFlow V1 checkpoint",
    "tf-v2": "TensorFlow V2 checkpoint",
    "tf-object": "object-based TensorFlow checkpoint",
    "saved-model": "SavedModel",
    "keras-h5": "Keras HDF5 file",
    "keras-weights-h5": "Keras 3 weights file",
    "keras-zip": ".keras file",
}


def write_list(
    report: Report,
    stream: TextIO,
    *,
    width: int | None = None,
    color: bool = False,
    quiet: bool = False,
    verbose: bool = False,
) -> None:
    """Write a table of layers for each checkpoint.

    `quiet` leaves the names, one a line; `verbose` adds the stored name of each member, and shows
    all names where there is no layer. `width` is that of the terminal, None where there is none.
    """
    for index, item in enumerate(report.checkpoints):
        if quiet and not item.error:
            for layer in item.layers:
                _line(stream, layer.name)
            continue
        if index:
            _line(stream, "")
        _write_checkpoint(item, stream, width, color=color, verbose=verbose)
    if not quiet and any(item.layers for item in report.checkpoints):
        _line(stream, "")
        _line(
            stream,
            "stored: g gamma, b beta, m moving_mean, v moving_variance, - no, ? unread",
        )


def _write_checkpoint(
    item: CheckpointReport, stream: TextIO, width: int | None, *, color: bool, verbose: bool
) -> None:
    """Write what a checkpoint is, its notes, and the table of its layers."""
    _line(stream, _headline(item))
    for note in item.notes:
        _line(stream, f"  note: {shortened(note)}")
    if item.layers:
        _write_layers(stream, item, width, color=color)
        if verbose:
            _write_variables(stream, item)
    elif verbose:
        for name in item.names:
            _line(stream, f"  {name}")


def write_dump(
    dumps: Sequence[Dump],
    stream: TextIO,
    *,
    color: bool = False,
    quiet: bool = False,
    verbose: bool = False,
) -> None:
    """Write the channels of some layers: one histogram per member, then a table.

    `quiet` leaves the tables, `verbose` shows every channel.
    """
    bars = _BARS if is_unicode(stream) else _ASCII_BARS
    every = ((item, layer, result) for item, layers in dumps for layer, result in layers)
    for index, (report, layer, result) in enumerate(every):
        if index:
            _line(stream, "")
        if not quiet:
            _line(
                stream, f"{layer.name}  ({layer.family}, {plural(layer.channels or 0, 'channel')})"
            )
            _line(stream, f"  from {report.path}")
            _line(stream, f"  {_formula(layer, result)}")
            if result.caution is not None:
                _line(stream, f"  moving_variance: {result.caution}")
            for name, array in _columns(layer, result).items():
                _line(stream, f"  {name:<16} {_histogram(array, bars)}")
        _write_channels(stream, layer, result, color=color, verbose=verbose)


def _line(stream: TextIO, text: str) -> None:
    """Write one line, without folding it: names and paths stay in one piece, to be copied."""
    write_lines(stream, [printable(text)])


_CHECKSUMS = {
    True: "checksums verified",
    False: "checksum not verified",
    None: "no checksums",
}


def _headline(item: CheckpointReport) -> str:
    """Return what the checkpoint is and holds; family and type here, if all layers share them."""
    if item.error:
        return f"ERROR  {item.error}"
    facts = [_FORMATS.get(item.format or "", str(item.format))]
    if item.step is not None:
        facts.append(f"step {item.step}")
    for shared in (_families(item), _dtypes(item)):
        facts += shared if len(shared) == 1 else ()
    facts.append(_CHECKSUMS[item.verified])
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
        _line(stream, "")
        _line(stream, f"{group.name} (not checked):")
        for name in group.variables:
            _line(stream, f"  {name}")
    for layer in item.layers:
        _line(stream, "")
        _line(stream, f"{layer.name}:")
        for role, variable in (*layer.variables.items(), *layer.helpers.items()):
            _line(stream, f"  {role:<22}  {variable.name}")


def _write_layers(
    stream: TextIO, item: CheckpointReport, width: int | None, *, color: bool
) -> None:
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
    if width is not None and max(map(len, lines)) > width:
        head, *below = align([row[1:] for row in rows], right=("channels",))
        lines = [f"  {head}"]
        for layer, line in zip(item.layers, below, strict=True):
            lines += [printable(layer.name), f"  {line}"]
    lines[0] = bold(lines[0], color=color)
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


def _formula(layer: BNLayer, result: Inference) -> str:
    if result.scale is None:
        return "no scale and shift: a statistic is missing or unwritten, or the members do not fit"
    gamma = "gamma" if not layer.gamma_offset else f"(gamma + {layer.gamma_offset:g})"
    told = "assumed, none is stored" if result.assumed else "stored"
    return (
        f"y = x * scale + shift, scale = {gamma} / sqrt(moving_variance + {result.epsilon:g}),"
        f" shift = beta - moving_mean * scale (epsilon {told})"
    )


def _columns(layer: BNLayer, result: Inference) -> dict[str, NDArray[Any]]:
    return {name: array for name, array in columns(layer, result).items() if array is not None}


def _histogram(array: NDArray[Any], bars: str) -> str:
    """Return one bar per bin and the range; NaN and infinity are counted apart."""
    finite: NDArray[Any] = array[np.isfinite(array)].astype(np.float64)
    lost = f", {array.size - finite.size} not finite" if finite.size < array.size else ""
    if not finite.size:
        return f"no finite value{lost}"
    low, high = float(finite.min()), float(finite.max())
    if low / 2 == high / 2:  # halves, because the range itself may overflow
        return f"{low:.4g} in every channel{lost}"
    counts = np.histogram((finite / 2 - low / 2) / (high / 2 - low / 2), _BINS, (0.0, 1.0))[
        0
    ].tolist()
    top = len(bars) - 1
    drawn = "".join(bars[math.ceil(count / max(counts) * top)] for count in counts)
    return f"|{drawn}|  {low:.4g} to {high:.4g}{lost}"


def _write_channels(
    stream: TextIO, layer: BNLayer, result: Inference, *, color: bool, verbose: bool
) -> None:
    """Write one row per channel; of many, the first and the last."""
    shown = _columns(layer, result)
    total = max((array.size for array in shown.values()), default=0)
    half = _SHOWN_CHANNELS // 2
    if verbose or total <= _SHOWN_CHANNELS + 1:
        channels: Sequence[int] = range(total)
    else:
        channels = [*range(half), *range(total - half, total)]
    widths = [len("channel"), *map(len, shown)]
    for rows in _cells(shown, channels):
        widths = [max(width, *map(len, cells)) for width, *cells in zip(widths, *rows, strict=True)]
    head = "  ".join(map(str.rjust, ("channel", *shown), widths))
    write_lines(stream, [bold(head, color=color)])
    written = 0
    for rows in _cells(shown, channels):
        gap = half if len(channels) < total and written < half <= written + len(rows) else None
        _write_rows(stream, rows[:gap], widths)
        if gap is not None:
            _line(stream, f"... {total - len(channels)} more channels (--verbose)")
            _write_rows(stream, rows[gap:], widths)
        written += len(rows)


def _cells(
    shown: Mapping[str, NDArray[Any]], channels: Sequence[int]
) -> Iterator[list[tuple[str, ...]]]:
    """Yield the cells of the channels, some thousand rows at a time."""
    for start in range(0, len(channels), _PORTION):
        portion = channels[start : start + _PORTION]
        texts = [list(map(str, portion))]
        for array in shown.values():
            values = array[[one for one in portion if one < array.size]].astype(np.float64)
            cells = [f"{value:.6g}" for value in values.tolist()]
            texts.append(cells + [""] * (len(portion) - len(cells)))
        yield list(zip(*texts, strict=True))


def _write_rows(stream: TextIO, rows: Iterable[Sequence[str]], widths: Sequence[int]) -> None:
    write_lines(
        stream,
        ("  ".join(map(str.rjust, row, widths)).rstrip() for row in rows),
    )
