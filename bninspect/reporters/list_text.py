"""`list` and `dump` for a person: tables of layers and of channels. The only user of rich."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bninspect.batchnorm.inference import Dump, Inference, columns
from bninspect.errors import shortened
from bninspect.model.layer import BNLayer
from bninspect.model.report import CheckpointReport, Report
from bninspect.model.roles import ROLES, Role
from bninspect.reporters.text_utils import is_unicode, printable
from bninspect.wording import plural

# How many channels of a layer are shown without --verbose: the first and the last half of these.
_SHOWN_CHANNELS = 16
_BARS = " ▁▂▃▄▅▆▇█"
_ASCII_BARS = " .:-=+*#@"
_BINS = 24
_PADDING = 2  # between columns
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
    console = _console(stream, color=color)
    for index, item in enumerate(report.checkpoints):
        if quiet and not item.error:
            for layer in item.layers:
                _line(console, layer.name)
            continue
        if index:
            _line(console, "")
        _line(console, _headline(item))
        for note in item.notes:
            _line(console, f"  note: {shortened(note)}")
        if item.layers:
            _write_layers(console, item, width)
            if verbose:
                _write_variables(console, item)
        elif verbose:
            for name in item.names:
                _line(console, f"  {name}")
    if not quiet and any(item.layers for item in report.checkpoints):
        _line(console, "")
        _line(
            console,
            "stored: g gamma, b beta, m moving_mean, v moving_variance, - no, ? unread",
        )


def write_dump(
    dumps: Sequence[Dump],
    stream: TextIO,
    *,
    color: bool = False,
    quiet: bool = False,
    verbose: bool = False,
) -> None:
    """Write the channels of some layers: a histogram a member, then a table.

    `quiet` leaves the tables, `verbose` shows every channel.
    """
    console = _console(stream, color=color)
    bars = _BARS if is_unicode(stream) else _ASCII_BARS
    every = ((item, layer, result) for item, layers in dumps for layer, result in layers)
    for index, (report, layer, result) in enumerate(every):
        if index:
            _line(console, "")
        if not quiet:
            _line(
                console, f"{layer.name}  ({layer.family}, {plural(layer.channels or 0, 'channel')})"
            )
            _line(console, f"  from {report.path}")
            _line(console, f"  {_formula(layer, result)}")
            if result.caution is not None:
                _line(console, f"  moving_variance: {result.caution}")
            for name, array in _columns(layer, result).items():
                _line(console, f"  {name:<16} {_histogram(array, bars)}")
        _write_channels(console, layer, result, verbose=verbose)


def _console(stream: TextIO, *, color: bool) -> Console:
    """One that folds nothing: names and paths stay in one piece, so they can be copied."""
    return Console(
        file=stream,
        width=10_000,
        color_system="standard" if color else None,
        force_terminal=color,
        no_color=not color,
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=False,
    )


def _line(console: Console, text: str) -> None:
    """One line as it is."""
    console.file.write(printable(text) + "\n")


def _headline(item: CheckpointReport) -> str:
    """What the checkpoint is and holds; family and type here, if all layers share them."""
    if item.error:
        return f"ERROR  {item.error}"
    facts = [_FORMATS.get(item.format or "", str(item.format))]
    if item.step is not None:
        facts.append(f"step {item.step}")
    for shared in (_families(item), _dtypes(item)):
        facts += shared if len(shared) == 1 else ()
    found = plural(len(item.layers), "BN layer") if item.layers else "no BN layer"
    among = plural(item.variable_count, "variable")
    return f"{item.path}: {found} among {among} ({', '.join(facts)})"


def _families(item: CheckpointReport) -> set[str]:
    return {f"family {layer.family}" for layer in item.layers}


def _dtypes(item: CheckpointReport) -> set[str]:
    return {str(layer.dtype) for layer in item.layers}


def _write_variables(console: Console, item: CheckpointReport) -> None:
    """The stored name of each member and helper, layer by layer."""
    for layer in item.layers:
        _line(console, "")
        _line(console, f"{layer.name}:")
        for role, variable in (*layer.variables.items(), *layer.helpers.items()):
            _line(console, f"  {role:<22}  {variable.name}")


def _write_layers(console: Console, item: CheckpointReport, width: int | None) -> None:
    """A row a layer; where that is wider than the terminal, below a line with the layer's name."""
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
    table = _layer_table(item.layers, shown)
    fits = width is None or console.measure(table).maximum - _PADDING <= width
    lines = _rendered(console, table if fits else _layer_table(item.layers, shown[1:]))
    if not fits:
        named = zip(item.layers, lines[1:], strict=True)
        below = (line for layer, row in named for line in (printable(layer.name), f"  {row}"))
        lines = [f"  {lines[0]}", *below]
    console.file.write("\n".join(lines) + "\n")


def _layer_table(
    layers: Sequence[BNLayer], shown: Sequence[tuple[str, Callable[[BNLayer], str]]]
) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, _PADDING, 0, 0), header_style="bold")
    for name, _ in shown:
        table.add_column(name, justify="right" if name == "channels" else "left", no_wrap=True)
    for layer in layers:
        table.add_row(*(Text(cell(layer)) for _, cell in shown))
    return table


def _rendered(console: Console, table: Table) -> list[str]:
    with console.capture() as capture:
        console.print(table)
    return [line for row in capture.get().splitlines() if (line := row.rstrip())]


def _stored(layer: BNLayer) -> str:
    return "".join(
        letter if role in layer.variables else "-"
        for role, letter in zip(ROLES, "gbmv", strict=True)
    )


def _range(layer: BNLayer, role: Role) -> str:
    values = layer.values.get(role)
    if values is None:
        return "?" if role in layer.variables else "-"
    if values.all_initial:
        return f"{values.minimum:g} (initial)"
    return f"{values.minimum:.4g} to {values.maximum:.4g}"


def _formula(layer: BNLayer, result: Inference) -> str:
    if result.scale is None:
        return "no scale and shift: a statistic is missing or the members do not fit together"
    gamma = "gamma" if not layer.gamma_offset else f"(gamma + {layer.gamma_offset:g})"
    told = "assumed, none is stored" if result.assumed else "stored"
    return (
        f"y = x * scale + shift, scale = {gamma} / sqrt(moving_variance + {result.epsilon:g}),"
        f" shift = beta - moving_mean * scale (epsilon {told})"
    )


def _columns(layer: BNLayer, result: Inference) -> dict[str, NDArray[Any]]:
    return {name: array for name, array in columns(layer, result).items() if array is not None}


def _histogram(array: NDArray[Any], bars: str) -> str:
    """`min … max` and one bar a bin, as high as the bin is full; what is not finite is counted."""
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


def _write_channels(console: Console, layer: BNLayer, result: Inference, *, verbose: bool) -> None:
    """A row a channel, the first and the last of many; plain text, since there may be a million."""
    shown = _columns(layer, result)
    total = max((array.size for array in shown.values()), default=0)
    half = _SHOWN_CHANNELS // 2
    if verbose or total <= _SHOWN_CHANNELS + 1:
        channels = list(range(total))
    else:
        channels = [*range(half), *range(total - half, total)]
    texts = [["channel", *map(str, channels)]]
    for name, array in shown.items():
        values = array.astype(np.float64).tolist()
        cells = (f"{values[channel]:.6g}" if channel < len(values) else "" for channel in channels)
        texts.append([name, *cells])
    widths = [max(map(len, column)) for column in texts]
    lines = [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in zip(*texts, strict=True)
    ]
    if len(channels) < total:
        lines.insert(half + 1, f"... {total - len(channels)} more channels (--verbose)")
    console.file.write("\n".join(lines) + "\n")
