"""`dump` as text: histograms and a table of channels for each layer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from bninspect.batchnorm.inference import Dump, Inference, columns
from bninspect.model.layer import BNLayer
from bninspect.reporters.escapes import write_line, write_lines
from bninspect.reporters.text_utils import PLAIN, TextStyle, bold, fold, is_unicode
from bninspect.wording import plural

# How many channels of a layer are shown without --verbose: the first and the last half of these.
_SHOWN_CHANNELS = 16
_BARS = " ▁▂▃▄▅▆▇█"
_ASCII_BARS = " .:-=+*#@"
_BINS = 24
_PORTION = 1 << 12  # channels whose rows are made at once


def write_dump(dumps: Sequence[Dump], stream: TextIO, style: TextStyle = PLAIN) -> None:
    """Write the channels of some layers: one histogram per member, then a table.

    A quiet `style` leaves the tables, a verbose one shows every channel. Tables are never folded.
    """
    bars = _BARS if is_unicode(stream) else _ASCII_BARS
    results = ((item, layer, result) for item, layers in dumps for layer, result in layers)
    for index, (report, layer, result) in enumerate(results):
        if index:
            write_line(stream, "")
        if not style.quiet:
            write_line(
                stream, f"{layer.name}  ({layer.family}, {plural(layer.channels or 0, 'channel')})"
            )
            write_line(stream, f"  from {report.path}")
            about = [f"  {_formula(layer, result)}"]
            if result.caution is not None:
                about.append(f"  moving_variance: {result.caution}")
            write_lines(stream, fold(about, style.width))
            for name, array in _columns(layer, result).items():
                write_line(stream, f"  {name:<16} {_histogram(array, bars)}")
        _write_channels(stream, layer, result, style)


def _formula(layer: BNLayer, result: Inference) -> str:
    if result.scale is None:
        return "no scale and shift: a statistic is missing or unwritten, or the members do not fit"
    gamma = "gamma" if not layer.gamma_offset else f"(gamma + {layer.gamma_offset:g})"
    origin = "assumed, none is stored" if result.assumed else "stored"
    return (
        f"y = x * scale + shift, scale = {gamma} / sqrt(moving_variance + {result.epsilon:g}),"
        f" shift = beta - moving_mean * scale (epsilon {origin})"
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


def _write_channels(stream: TextIO, layer: BNLayer, result: Inference, style: TextStyle) -> None:
    """Write one row per channel; of many, the first and the last."""
    shown = _columns(layer, result)
    total = max((array.size for array in shown.values()), default=0)
    half = _SHOWN_CHANNELS // 2
    if style.verbose or total <= _SHOWN_CHANNELS + 1:
        channels: Sequence[int] = range(total)
    else:
        channels = [*range(half), *range(total - half, total)]
    widths = [len("channel"), *map(len, shown)]
    for rows in _cells(shown, channels):
        widths = [max(width, *map(len, cells)) for width, *cells in zip(widths, *rows, strict=True)]
    head = "  ".join(map(str.rjust, ("channel", *shown), widths))
    write_lines(stream, [bold(head, color=style.color)])
    written = 0
    for rows in _cells(shown, channels):
        gap = half if len(channels) < total and written < half <= written + len(rows) else None
        _write_rows(stream, rows[:gap], widths)
        if gap is not None:
            write_line(stream, f"... {total - len(channels)} more channels (--verbose)")
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
            values = array[[channel for channel in portion if channel < array.size]].astype(
                np.float64
            )
            cells = [f"{value:.6g}" for value in values.tolist()]
            texts.append(cells + [""] * (len(portion) - len(cells)))
        yield list(zip(*texts, strict=True))


def _write_rows(stream: TextIO, rows: Iterable[Sequence[str]], widths: Sequence[int]) -> None:
    write_lines(
        stream,
        ("  ".join(map(str.rjust, row, widths)).rstrip() for row in rows),
    )
