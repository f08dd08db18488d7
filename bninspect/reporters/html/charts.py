"""Values in bins and over checkpoints, as charts show them; paths of small SVG histograms.

The script of the page draws bins and trends with axes. Where there is no script, as in a notebook,
a histogram is a static SVG of WIDTH by HEIGHT units, which has few paths, however many values it
shows. Each chart also has a description in words, for readers who cannot see it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 120, 36
_BINS = 24
_BIN = WIDTH // _BINS
# From this ratio of maximum to minimum, most values would share the first bin of a linear axis.
_LOG_FROM = 100.0
# The most by which the initial value may widen the axis.
_WIDENED = 4.0

Place = Callable[[NDArray[Any]], NDArray[Any]]


class Bins(NamedTuple):
    """The finite values of one member, counted in bins of equal width from `low` to `high`.

    `low` and `high` are the ends of the axis: the values, and the initial one if it is near them.
    On a `logarithmic` axis the logarithms of the bins have equal width. `counts` is empty if no
    value is finite; `lost` counts the values that are not. `at_initial` values equal `initial`,
    which is None if it is unknown. `in_words` describes the values.
    """

    counts: tuple[int, ...]
    low: float
    high: float
    logarithmic: bool
    initial: float | None
    at_initial: int
    lost: int
    spread: str
    in_words: str


class Histogram(NamedTuple):
    """A histogram of one member: `bars` and `stuck` are paths.

    `stuck` is the part of the bars that equals the initial value. `initial` is the x-coordinate of
    that value, None if it is unknown or beyond the axis; then `beyond` is `left` or `right`.
    """

    bars: str
    stuck: str
    initial: float | None
    beyond: str
    logarithmic: bool
    spread: str
    description: str


class Trend(NamedTuple):
    """A trend over checkpoints: the mean over the channels and their range, and standstill.

    Checkpoints that are drawn as one share an entry; `at` is the number of its last checkpoint.
    None is a gap. `still` has the first and last checkpoint of each stretch in which nothing moved.
    """

    at: tuple[int, ...]
    means: tuple[float | None, ...]
    lows: tuple[float | None, ...]
    highs: tuple[float | None, ...]
    still: tuple[tuple[int, int], ...]
    spread: str
    description: str


def number(value: float) -> str:
    """Return a number as text, with three significant digits."""
    return f"{value:.3g}"


def bins_of(
    array: NDArray[Any],
    initial: float | None = None,
    at_initial: int | None = None,
    *,
    log_from: float = _LOG_FROM,
) -> Bins:
    """Return values of shape (C,) in bins; `at_initial` equal the `initial` one.

    The axis is logarithmic where all values are above 0, and the ratio of the largest to the
    smallest is at least `log_from`.
    """
    if initial is not None and not math.isfinite(initial):
        initial = None
    with np.errstate(all="ignore"):
        values = np.asarray(array, np.float64).ravel()
        finite = values[np.isfinite(values)]
        lost = values.size - finite.size
        if not finite.size:
            text = f"{lost} values, none of them finite" if lost else "no values"
            return Bins((), math.nan, math.nan, False, initial, 0, lost, text, text)
        low, high = float(finite.min()), float(finite.max())
        logarithmic = low > 0.0 and high / low >= log_from
        ends = _axis(low, high, initial, logarithmic=logarithmic)
        scale = _scale(*ends, logarithmic=logarithmic)
        counts = np.bincount(_bins(scale(finite)), minlength=_BINS).tolist()
        text = _in_words(finite, logarithmic=logarithmic)
    if initial is not None:
        text += f"; {at_initial or 0} exactly at the initial value {number(initial)}"
    if lost:
        text += f"; {lost} not finite"
    spread = _spread(low, high)
    return Bins(tuple(counts), *ends, logarithmic, initial, at_initial or 0, lost, spread, text)


def histogram(bins: Bins) -> Histogram:
    """Return the histogram of values in bins."""
    if not bins.counts:
        return Histogram("", "", None, "", False, bins.spread, bins.in_words)
    most = max(bins.counts)
    initial_x, beyond, stuck = None, "", ""
    if bins.initial is not None:
        beyond = "left" if bins.initial < bins.low else "right" if bins.initial > bins.high else ""
        if not beyond:
            scale = _scale(bins.low, bins.high, logarithmic=bins.logarithmic)
            share = scale(np.array([bins.initial]))
            initial_x = round(float(share[0]) * WIDTH, 1)
            stuck = _bar(int(_bins(share)[0]), bins.at_initial, most)
    return Histogram(
        _skyline(bins.counts),
        stuck,
        initial_x,
        beyond,
        bins.logarithmic,
        bins.spread,
        bins.in_words,
    )


def _spread(low: float, high: float) -> str:
    return number(low) if low == high else f"{number(low)} to {number(high)}"


def _in_words(finite: NDArray[Any], *, logarithmic: bool) -> str:
    if finite.min() == finite.max():
        return f"Histogram: {finite.size} values, all {number(float(finite[0]))}"
    ordered = np.sort(finite)
    first, median, last = (float(ordered[(len(ordered) - 1) * n // 4]) for n in (1, 2, 3))
    axis = ", logarithmic axis" if logarithmic else ""
    return (
        f"Histogram{axis}: {finite.size} values, median {number(median)},"
        f" middle half {number(first)} to {number(last)}"
    )


def _axis(
    low: float, high: float, initial: float | None, *, logarithmic: bool
) -> tuple[float, float]:
    """Return the ends of the axis: the values, and the initial one if it is near them."""
    if initial is None or not math.isfinite(initial) or (logarithmic and initial <= 0.0):
        return low, high
    wide_low, wide_high = min(low, initial), max(high, initial)
    if logarithmic:
        span, wide = math.log10(high / low), math.log10(wide_high / wide_low)
    else:
        span, wide = high / 2 - low / 2, wide_high / 2 - wide_low / 2
    return (wide_low, wide_high) if not span or wide <= _WIDENED * span else (low, high)


def _scale(low: float, high: float, *, logarithmic: bool) -> Place:
    """Return the function from a value to its share (0 to 1) of the axis."""
    change: Place = np.log10 if logarithmic else lambda values: values / 2
    start, end = (float(bound) for bound in change(np.array([low, high], np.float64)))
    span = end - start
    if not span > 0.0:
        return lambda values: np.full(values.shape, 0.5)
    return lambda values: np.clip((change(values) - start) / span, 0.0, 1.0)


def _height(count: int, most: int) -> int:
    """Return the height of a bar: a single value shows among thousands."""
    return max(round(count / most * (HEIGHT - 2)), 2) if count else 0


def _skyline(counts: Sequence[int]) -> str:
    """Return the outline of all bars as one path."""
    most = max(counts)
    path = f"M0 {HEIGHT}"
    at = 0
    for height, group in groupby(_height(count, most) for count in counts):
        at += _BIN * len(list(group))
        path += f"V{HEIGHT - height}H{at}"
    return f"{path}V{HEIGHT}z"


def _bins(shares: NDArray[Any]) -> NDArray[Any]:
    """Return the bins of shares of the axis; the end of the axis is in the last bin."""
    return np.minimum((shares * _BINS).astype(np.intp), _BINS - 1)


def _bar(bin_: int, count: int, most: int) -> str:
    """Return the part of a bin's bar that `count` values make."""
    if not count:
        return ""
    return f"M{bin_ * _BIN} {HEIGHT}v-{_height(count, most)}h{_BIN}V{HEIGHT}z"


def trend(
    means: Sequence[float | None],
    ranges: Sequence[tuple[float, float] | None],
    steps: Sequence[float],
    moved: Sequence[bool | None],
    labels: Sequence[str],
) -> Trend:
    """Return the trend of one statistic: the mean of its channels within their range.

    None, or a value that is not finite, is a gap. If there are more checkpoints than units of
    width, those in one unit are drawn as one: the last mean, in the range of all. `steps` increase.
    `moved` has one entry per interval: whether the statistic moved, None if it was not compared.
    `labels` are the names of the checkpoints.
    """
    lows, highs = _lows_and_highs(ranges)
    known = [math.nan if mean is None else mean for mean in means]
    finite = [value for value in (*lows, *highs, *known) if math.isfinite(value)]
    columns = _columns(steps)

    def drawn(
        values: Sequence[float], choose: Callable[[Sequence[float]], float]
    ) -> tuple[float | None, ...]:
        parts = [values[column] for column in columns]
        return tuple(choose(part) if all(map(math.isfinite, part)) else None for part in parts)

    stretches = _still(moved)
    return Trend(
        tuple(column.stop - 1 for column in columns),
        drawn(known, lambda part: part[-1]),
        drawn(lows, min),
        drawn(highs, max),
        tuple(stretches),
        _spread(min(finite), max(finite)) if finite else "nothing finite",
        _course(known, stretches, labels) if finite else "No finite value in any checkpoint",
    )


def _lows_and_highs(
    ranges: Sequence[tuple[float, float] | None],
) -> tuple[list[float], list[float]]:
    """Return the lows and the highs of ranges; both are NaN where one is missing or not finite."""
    whole = [
        range_ if range_ and all(map(math.isfinite, range_)) else (math.nan, math.nan)
        for range_ in ranges
    ]
    return [range_[0] for range_ in whole], [range_[1] for range_ in whole]


def _columns(steps: Sequence[float]) -> list[slice]:
    """Return the checkpoints that are drawn as one: those within a unit of width."""
    if len(steps) <= WIDTH:
        return [slice(index, index + 1) for index in range(len(steps))]
    along = _scale(steps[0], steps[-1], logarithmic=False)
    units = (along(np.array(steps, np.float64)) * WIDTH).astype(np.intp).tolist()
    columns = []
    for _, group in groupby(range(len(units)), key=units.__getitem__):
        indexes = list(group)
        columns.append(slice(indexes[0], indexes[-1] + 1))
    return columns


def _still(moved: Sequence[bool | None]) -> list[tuple[int, int]]:
    """Return the first and last checkpoint of each stretch in which nothing moved."""
    stretches: list[tuple[int, int]] = []
    for interval, has_moved in enumerate(moved):
        if has_moved is not False:
            continue
        if stretches and stretches[-1][1] == interval:
            stretches[-1] = (stretches[-1][0], interval + 1)
        else:
            stretches.append((interval, interval + 1))
    return stretches


def _course(
    means: Sequence[float], stretches: Sequence[tuple[int, int]], labels: Sequence[str]
) -> str:
    known = [
        (mean, label) for mean, label in zip(means, labels, strict=True) if not math.isnan(mean)
    ]
    parts = list(_ends(known))
    parts += [f"stood still from {labels[first]} to {labels[last]}" for first, last in stretches]
    return "Mean of the channels: " + "; ".join(parts)


def _ends(known: Sequence[tuple[float, str]]) -> Iterator[str]:
    if not known:
        yield "finite in no checkpoint"
        return
    shown = [known[0], known[-1]] if len(known) > 1 else known[:1]
    for mean, label in shown:
        yield f"{number(mean)} at {label}"
