"""`compare` as text and CSV: what changed in each layer.

Rows are as wide as they need to be. If the terminal is too narrow for a name, the name gets a line
of its own: names are never cut, so that they can be copied.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TextIO

from bninspect.model.layer import BNLayer, Change
from bninspect.model.report import Finding
from bninspect.model.roles import ROLES, STATISTICS, Role
from bninspect.model.rule import SEVERITIES, Severity
from bninspect.reporters.check_text import entries
from bninspect.reporters.escapes import csv_text, printable, write_lines
from bninspect.reporters.text_utils import PLAIN, TextStyle, fold, is_unicode, paint, wrap
from bninspect.verdicts.comparison import Comparison, LayerHistory, Stretch
from bninspect.wording import and_more, plural

_BARS = "▁▂▃▄▅▆▇█"
_ASCII_BARS = ".:-=+*#@"
_STILL, _UNKNOWN, _WRONG = "_", "?", "!"
# How much is shown without --verbose; of the trend, always.
_SHOWN_LAYERS = 25
_SHOWN_CHECKPOINTS = 12
_SHOWN_EVENTS = 10
_TREND = 16
_SHORTEST_NAME = 16
# The width of the last column beside a long name; longer paths stick out of it.
_LAST_COLUMN = 24
_HEADS: dict[Role, str] = {
    "gamma": "gamma",
    "beta": "beta",
    "moving_mean": "mean",
    "moving_variance": "variance",
}


def write_comparison(comparison: Comparison, stream: TextIO, style: TextStyle = PLAIN) -> None:
    """Write the verdict, then one row per layer, then the findings and their fixes."""
    status, sentence = _verdict(comparison)
    answer = [f"{paint(status, color=style.color)}  {printable(sentence)}"]
    answer += [
        f"{paint('ERROR', color=style.color)}  {printable(str(item.error))}"
        for item in comparison.unreadable
    ]
    lines = fold(answer, style.width)
    if not style.quiet:
        for note in comparison.notes:
            lines += wrap("      ", f"note: {note}", style.prose_width, 6)
        lines += ["", *_checkpoints(comparison, verbose=style.verbose)]
        if comparison.layers:
            bars = _BARS if is_unicode(stream) else _ASCII_BARS
            lines += ["", *_table(comparison, bars, style)]
        lines += _events(comparison, style)
        lines += entries(comparison.findings, style, source="these files")
        lines += ["", *fold([summary(comparison)], style.width)]
    write_lines(stream, lines)


def write_csv(comparison: Comparison, stream: TextIO) -> None:
    """Write one row per layer, member and interval, with numbers in full precision.

    `moved` is true or false, and `largest_change` empty if there is nothing to measure it by
    (`evidence.changes` states its unit). `finding` and `cause` are those of the member in the
    interval, separated by spaces. Members that could not be compared have no row.
    """
    writer = csv.writer(stream, lineterminator="\n")
    head = "layer,member,from,to,from_step,to_step,moved,largest_change,finding,cause"
    writer.writerow(head.split(","))
    for layer in comparison.layers:
        name = csv_text(layer.name)
        for interval, changes in enumerate(layer.changes):
            ends = comparison.checkpoints[interval : interval + 2]
            paths = [csv_text(item.path) for item in ends]
            steps = ["" if item.step is None else item.step for item in ends]
            for role in ROLES:
                if role in changes:
                    change = changes[role]
                    largest = "" if change.largest is None else repr(change.largest)
                    moved = "true" if change.moved else "false"
                    judged = list(_judged(layer, role, interval))
                    codes = " ".join(finding.rule.code for finding in judged)
                    causes = " ".join(finding.cause for finding in judged if finding.cause)
                    numbers = [*steps, moved, largest]
                    writer.writerow([name, role, *paths, *numbers, codes, causes])


def _judged(layer: LayerHistory, role: Role, interval: int) -> Iterable[Finding]:
    """Yield the findings about a member in one interval."""
    for stretch in layer.stretches:
        if role in STATISTICS and stretch.first <= interval < stretch.last:
            yield from stretch.findings
    for stretch in layer.not_finite:
        if stretch.first <= interval + 1 <= stretch.last and _is_lost(
            layer.layers[interval + 1], (role,)
        ):
            yield from stretch.findings
    for stretch in layer.negative:
        if role == "moving_variance" and stretch.first <= interval + 1 <= stretch.last:
            yield from stretch.findings


def _is_nan(layer: BNLayer) -> bool:
    return any(math.isnan(values.minimum) for values in layer.values.values() if values.channels)


def _is_lost(layer: BNLayer | None, roles: Sequence[Role]) -> bool:
    """Return whether any of some members holds NaN or infinity."""
    return layer is not None and any(
        role in layer.values and layer.values[role].not_finite for role in roles
    )


def _is_wrong(layer: BNLayer | None) -> bool:
    """Return whether a statistic holds NaN, infinity or a negative variance."""
    return layer is not None and (_is_lost(layer, STATISTICS) or layer.has_negative_variance)


def summary(comparison: Comparison) -> str:
    """Return the counts of a comparison in one line."""
    counts = [
        plural(sum(finding.severity == severity for finding in comparison.findings), severity)
        for severity in SEVERITIES
    ]
    head = (
        f"{plural(len(comparison.checkpoints), 'checkpoint')},"
        f" {plural(len(comparison.layers), 'BN layer')}: {', '.join(counts)}"
    )
    unreadable = len(comparison.unreadable)
    return f"{head}, {unreadable} unreadable" if unreadable else head


def _verdict(comparison: Comparison) -> tuple[str, str]:
    """Return the answer: a word and a sentence."""
    first, last = comparison.checkpoints[0], comparison.checkpoints[-1]
    ends = f"{first.path} to {last.path}{_against_the_steps(comparison)}"
    layers = comparison.layers
    total = plural(len(layers), "BN layer")
    compared = [layer for layer in layers if layer.compared]
    lost = len(layers) - len(compared)
    uncompared = f"; {lost} cannot be compared" if lost else ""
    if errors := _hit(comparison, "error"):
        return "FAIL", f"{ends}: {errors}{uncompared}"
    if warnings := _hit(comparison, "warning"):
        return "WARN", f"{ends}: {warnings}{uncompared}"
    if not compared:
        return "NONE", f"{ends}: {_why_not_compared(comparison)}"
    moved = sum(layer.moved(*STATISTICS) for layer in compared)
    if not any(layer.moved(*ROLES) for layer in compared):
        in_all = total if not lost else f"{len(compared)} of {total}"
        return "SAME", f"{ends}: nothing moved in {in_all}{uncompared}"
    notes = sum(bool(layer.findings) for layer in layers)
    stood = f"; {notes} stood still (BN107, a note)" if notes else ""
    return "PASS", f"{ends}: the statistics of {moved} of {total} moved{stood}{uncompared}"


def _against_the_steps(comparison: Comparison) -> str:
    """Return the sentence that the order contradicts the stored steps; empty if it does not."""
    if comparison.step_goes_back is None:
        return ""
    steps = [item.step for item in comparison.checkpoints if item.step is not None]
    if steps == sorted(steps, reverse=True):
        return f", the later step first ({steps[0]}, then {steps[-1]})"
    before, after = comparison.step_goes_back
    return f", where the stored step goes back from {before} to {after}"


def _why_not_compared(comparison: Comparison) -> str:
    layers = comparison.layers
    if not layers:
        unchecked = any(item.unchecked for item in comparison.checkpoints)
        return f"no BN layer{' that can be compared' if unchecked else ''}"
    total = plural(len(layers), "BN layer")
    comparable = [
        layer for layer in layers if sum(bn_layer is not None for bn_layer in layer.layers) > 1
    ]
    if not comparable:
        return f"none of {total} is in two checkpoints to compare"
    head = f"nothing of {total} can be compared"
    bn_layers = (
        bn_layer for layer in comparable for bn_layer in layer.layers if bn_layer is not None
    )
    if not any(values.channels for bn_layer in bn_layers for values in bn_layer.values.values()):
        return f"{head}: none has a value"
    return f"{head}: of {len(comparable)} the type or the number of channels changed"


def _hit(comparison: Comparison, severity: Severity) -> str:
    """Return each rule with findings of one severity: how many layers and when."""
    stretches: dict[str, list[Stretch]] = {}
    names: dict[str, set[str]] = {}
    rules = {}
    for layer in comparison.layers:
        for stretch in layer.judged:
            for finding in stretch.findings:
                if finding.severity == severity:
                    rules[finding.rule.code] = finding.rule
                    stretches.setdefault(finding.rule.code, []).append(stretch)
                    names.setdefault(finding.rule.code, set()).add(layer.name)
    total = plural(len(comparison.layers), "BN layer")
    parts = []
    for code in sorted(rules, key=lambda code: (-len(names[code]), code)):
        called = code if severity == "error" else f"{code}, a {severity}"
        when = _when(comparison, stretches[code])
        parts.append(f"{len(names[code])} of {total}: {rules[code].summary} ({called}){when}")
    return "; ".join(parts)


def _when(comparison: Comparison, stretches: Sequence[Stretch]) -> str:
    """Return the interval of all findings, if they share one."""
    if all(stretch.never_moved and _lasts(comparison, stretch) for stretch in stretches):
        return ", never moved: still initial (BN101)"
    times = {comparison.when(stretch) for stretch in stretches}
    return f", {times.pop()}" if len(times) == 1 else ""


def _lasts(comparison: Comparison, stretch: Stretch) -> bool:
    return stretch.last == len(comparison.checkpoints) - 1


def _checkpoints(comparison: Comparison, *, verbose: bool) -> list[str]:
    """Return the lines that name the compared checkpoints; of many, the first and the last."""
    items = list(enumerate(comparison.checkpoints))
    width = len(str(len(items)))
    steps = ["" if item.step is None else f"step {item.step}" for _, item in items]
    step_width = max(map(len, steps)) + 2 if any(steps) else 0
    lines = [
        f"  {number + 1:>{width}}  {steps[number].ljust(step_width)}{printable(item.path)}"
        for number, item in items
    ]
    half = _SHOWN_CHECKPOINTS // 2
    if not verbose and len(lines) > _SHOWN_CHECKPOINTS + 1:
        left_out = f"  ... {len(lines) - 2 * half} more checkpoints (--verbose)"
        lines = [*lines[:half], left_out, *lines[-half:]]
    return lines


class _Row(NamedTuple):
    """A row of the table: a layer's name, and the cells beside it."""

    name: str
    cells: list[str]


def _table(comparison: Comparison, bars: str, style: TextStyle) -> list[str]:
    """Return the rows of all layers: wrong ones first, then those that stand still."""
    layers = sorted(comparison.layers, key=_rank)
    shown = layers if style.verbose else layers[:_SHOWN_LAYERS]
    trends = len(comparison.checkpoints) > 2
    heads = [*_HEADS.values(), *(["trend"] if trends else []), "still since"]
    rows = [_Row("layer", heads)]
    for layer in shown:
        cells = [_cell(layer, role) for role in ROLES]
        if trends:
            cells.append(_trend(layer, bars))
        cells.append(printable(_since(comparison, layer)))
        rows.append(_Row(printable(layer.name), cells))
    lines = _aligned(rows, style.width)
    if len(shown) < len(layers):
        lines.append(f"{and_more(len(layers) - len(shown), 'layers')} (--verbose names them)")
    about = (
        "first to last checkpoint, the channel that went farthest: mean in standard deviations,"
        " variance by the share its standard deviation changed, gamma and beta as they are;"
        " - cannot be compared"
    )
    lines += ["", *wrap("", about, style.prose_width, 0)]
    if trends:
        legend = "trend: the statistics from each checkpoint to the next, _ still, ? not compared"
        drawn = "".join(row.cells[len(_HEADS)] for row in rows[1:])
        if _WRONG in drawn:
            legend += f", {_WRONG} from or to NaN, infinity or a variance below 0"
        lines += wrap("", legend, style.prose_width, 0)
    return lines


def _since(comparison: Comparison, layer: LayerHistory) -> str:
    """Return the "still since" column: when it stopped moving, became NaN or negative."""
    lost = layer.lasting(layer.not_finite)
    if lost is not None:
        kind = "NaN" if _is_nan(layer.last) else "infinite"
        return f"{kind} {comparison.when(lost)}"
    negative = layer.lasting(layer.negative)
    if negative is not None:
        return f"negative {comparison.when(negative)}"
    still = layer.lasting(layer.stretches)
    if still is None:
        return ""
    if still.never_moved:
        return "never moved"
    return comparison.when(still).removeprefix("since ")


def _aligned(rows: Sequence[_Row], width: int | None) -> list[str]:
    """Return rows with aligned cells; a name that does not fit gets a line of its own."""
    columns = list(zip(*(row.cells for row in rows), strict=True))
    widths = [max(map(len, column)) for column in columns]
    beside = sum(widths[:-1]) + 2 * len(widths) + min(widths[-1], _LAST_COLUMN)
    longest = max(len(row.name) for row in rows)
    name_width = longest if width is None else min(longest, max(width - beside, _SHORTEST_NAME))
    lines = []
    for name, cells in rows:
        padded = "  ".join(cell.ljust(size) for cell, size in zip(cells, widths, strict=True))
        if len(name) > name_width:
            lines.append(name)
            name = ""  # noqa: PLW2901 - it has been written
        lines.append(f"{name.ljust(name_width)}  {padded}".rstrip())
    return lines


def _rank(layer: LayerHistory) -> int:
    """Return the place of a layer in the table: what is wrong comes first."""
    severities = [SEVERITIES.index(finding.severity) for finding in layer.findings]
    if severities:
        return min(severities)
    if not layer.compared or layer.still_since is not None:
        return len(SEVERITIES)
    return len(SEVERITIES) + (1 if layer.events else 2)


def _cell(layer: LayerHistory, role: Role) -> str:
    """Return how far a member moved, or that it did not."""
    if _is_lost(layer.last, (role,)):
        return "NaN" if math.isnan(layer.last.values[role].minimum) else "inf"
    change = layer.total.get(role)
    if change is None:
        return "-"
    if not change.moved:
        return "came back" if layer.moved(role) else "still"
    if change.largest is None or math.isnan(change.largest):  # from NaN, or a negative variance
        return "moved"
    return f"{change.largest:.3g}"


def _trend(layer: LayerHistory, bars: str) -> str:
    """Return one bar per interval, as high as the statistics moved in it."""
    intervals = [
        [changes[role] for role in STATISTICS if role in changes]
        for changes in layer.changes[-_TREND:]
    ]
    finite = [
        change.largest
        for interval in intervals
        for change in interval
        if change.largest is not None and math.isfinite(change.largest)
    ]
    highest = max(finite, default=0.0)
    later = layer.layers[-len(intervals) :]
    return "".join(
        _WRONG if _is_wrong(bn_layer) else _bar(interval, highest, bars)
        for interval, bn_layer in zip(intervals, later, strict=True)
    )


def _bar(interval: Sequence[Change], highest: float, bars: str) -> str:
    if not interval:
        return _UNKNOWN
    if not any(change.moved for change in interval):
        return _STILL
    sizes = [change.largest for change in interval if change.moved and change.largest is not None]
    if not all(map(math.isfinite, sizes)):
        return _WRONG
    if not sizes or not highest:
        return bars[0]
    return bars[min(int(max(sizes) / highest * len(bars)), len(bars) - 1)]


def _events(comparison: Comparison, style: TextStyle) -> list[str]:
    """Return the lines about layers that came, went or changed."""
    events = [f"{layer.name}: {event}" for layer in comparison.layers for event in layer.events]
    shown = events if style.verbose else events[:_SHOWN_EVENTS]
    lines = [line for event in shown for line in wrap("  ", event, style.prose_width, 6)]
    if len(shown) < len(events):
        lines.append(f"  {and_more(len(events) - len(shown))} (--verbose)")
    return ["", "the layers themselves:", *lines] if lines else []
