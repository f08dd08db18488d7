"""Samples of the user's data: arrays of `.npz` and `.npy` files, fed to a model in batches.

Samples are shuffled by a fixed seed, since batches of sorted samples normalize what tells them
apart, and cut into batches of nearly equal size, since a small last batch has poor statistics.
"""

from __future__ import annotations

import ast
import lzma
import math
import os
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.lib import format as npy

from bninspect.errors import UsageProblem
from bninspect.recalibrate.engines import Array, Batch, InputSpec
from bninspect.storage.urls import is_url
from bninspect.wording import did_you_mean, listed, nearest, plural

_SEED = 0
# The key of the one array in a .npy file, or in several that are its parts.
_ONE_ARRAY = "data"
# What numpy and zipfile raise for a file that is damaged, encrypted or something else.
_UNREADABLE = (
    *(OSError, ValueError, OverflowError, EOFError, KeyError, SyntaxError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, tokenize.TokenError),
)


class Column:
    """One array of samples, in parts that follow each other along the first axis."""

    def __init__(self, name: str, parts: Sequence[Array]) -> None:
        self.name = name
        self._parts = parts
        self._starts = np.cumsum([0, *map(len, parts)])
        self.dtype = np.result_type(*(part.dtype for part in parts))

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of all parts together."""
        return (len(self), *self._parts[0].shape[1:])

    def limits(self) -> tuple[int, int]:
        """Return the smallest and the largest value of an array of integers."""
        parts = [part for part in self._parts if part.size]
        limits = [(int(part.min()), int(part.max())) for part in parts] or [(0, 0)]
        return min(low for low, _ in limits), max(high for _, high in limits)

    def take(self, rows: Array) -> Array:
        """Return the samples with these numbers, in their order."""
        if len(self._parts) == 1:
            return np.asarray(self._parts[0][rows])
        taken = np.empty((len(rows), *self.shape[1:]), self.dtype)
        owners = np.searchsorted(self._starts, rows, side="right") - 1
        for number, part in enumerate(self._parts):
            chosen = owners == number
            taken[chosen] = part[rows[chosen] - self._starts[number]]
        return taken


class Feed(NamedTuple):
    """An option `--feed`: an array by its key, or a value, for an input of the model."""

    name: str
    value: str

    @property
    def constant(self) -> Array | None:
        """The value as a number, true or false; None where it can only be a key."""
        try:
            value = ast.literal_eval(self.value.strip().capitalize())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return None
        return np.asarray(value) if isinstance(value, bool | int | float) else None


def read_columns(path: str, needed: Sequence[str]) -> dict[str, Column]:
    """Return the arrays of a `.npz` or `.npy` file, or of a directory of them, by their keys.

    A directory holds `.npz` files with the same keys, which are parts of the same arrays, or `.npy`
    files: if one of them is called as one of the keys `needed`, each is an array of its own; else
    they are parts of one. Parts are taken in the order of the names. Raises `UsageProblem` for what
    cannot be read.
    """
    if os.path.isdir(path):
        return _read_directory(path, needed)
    if not os.path.exists(path):
        hint = " Samples are read from local files." if is_url(path) else ""
        raise UsageProblem(f"--data {path}: not found.{hint}")
    arrays = _read_file(path)
    return {key: _column(path, key, [array]) for key, array in arrays.items()}


def _read_directory(path: str, needed: Sequence[str]) -> dict[str, Column]:
    try:
        files = sorted(os.path.join(path, name) for name in os.listdir(path))
    except OSError as error:
        raise UsageProblem(f"--data {path}: {error.strerror or error}.") from error
    archives = [file for file in files if file.endswith(".npz")]
    single = [file for file in files if file.endswith(".npy")]
    if bool(archives) == bool(single):
        kinds = "both .npz and .npy files" if archives else "no .npz or .npy file"
        raise UsageProblem(f"--data {path}: expected files of one kind, but it has {kinds}.")
    if archives:
        return _parts_by_key(path, archives)
    arrays = {os.path.basename(file)[:-4]: _read_one_array(file) for file in single}
    if any(key in needed for key in arrays):
        return {key: _column(path, key, [array]) for key, array in arrays.items()}
    return {_ONE_ARRAY: _column(path, _ONE_ARRAY, [*arrays.values()])}


def _parts_by_key(path: str, archives: Sequence[str]) -> dict[str, Column]:
    read = [_read_file(file) for file in archives]
    keys = list(read[0])
    for file, arrays in zip(archives, read, strict=True):
        if set(arrays) != set(keys):
            raise UsageProblem(
                f"--data {path}: {os.path.basename(file)} has other keys than"
                f" {os.path.basename(archives[0])}: {listed(sorted(arrays)) or 'none'} and"
                f" {listed(sorted(keys)) or 'none'}."
            )
    return {key: _column(path, key, [arrays[key] for arrays in read]) for key in keys}


def _read_file(path: str) -> dict[str, Array]:
    """Return the arrays of a file by key; objects are never unpickled.

    A `.npy` file is mapped, a `.npz` file is read.
    """
    if not os.path.isfile(path):  # a pipe may have no end
        raise UsageProblem(f"--data {path}: expected a file of numpy or a directory of them.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sizes that overflow
            return _load(path)
    except MemoryError as error:
        raise UsageProblem(
            f"--data {path}: its arrays are larger than the memory. Save each by numpy.save in a"
            " directory, from which they are read as needed."
        ) from error
    except _UNREADABLE as error:
        if isinstance(error, OSError) and error.strerror:
            raise UsageProblem(f"--data {path}: cannot be read ({error.strerror}).") from error
        raise UsageProblem(
            f"--data {path}: expected numbers that numpy.save or numpy.savez wrote; this is not"
            " such a file, or it is damaged. Objects are not unpickled."
        ) from error


def _load(path: str) -> dict[str, Array]:
    loaded: Any = np.load(path, mmap_mode="r", allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        return {_ONE_ARRAY: loaded}
    with loaded as archive:
        _require_declared_sizes(archive.zip)
        return {key: archive[key] for key in archive.files}


def _read_one_array(path: str) -> Array:
    """Return the array of a `.npy` file; raises `UsageProblem` for an archive of that name."""
    arrays = _read_file(path)
    if [*arrays] != [_ONE_ARRAY]:
        raise UsageProblem(f"--data {path}: this is an archive of arrays by key: call it .npz.")
    return arrays[_ONE_ARRAY]


def _require_declared_sizes(archive: zipfile.ZipFile) -> None:
    """Raise `ValueError` unless each member has as many bytes as its array needs.

    numpy allocates an array by the shape in its header, before it reads the numbers.
    """
    headers: Any = npy  # numpy 2.2, the last for Python 3.10, gives these functions no types
    for member in archive.infolist():
        with archive.open(member) as stream:
            version = headers.read_magic(stream)
            read_header = (
                headers.read_array_header_1_0 if version[0] == 1 else headers.read_array_header_2_0
            )
            shape, _, dtype = read_header(stream)
            if stream.tell() + math.prod(shape) * dtype.itemsize != member.file_size:
                raise ValueError(f"{member.filename} has not the size that its header declares")


def _column(path: str, key: str, parts: Sequence[Array]) -> Column:
    first = parts[0]
    for part in parts:
        if part.ndim == 0 or part.shape[1:] != first.shape[1:]:
            raise UsageProblem(
                f"--data {path}: the parts of {key} have different shapes, {first.shape} and"
                f" {part.shape}."
                if part.ndim
                else f"--data {path}: {key} is a single number, not an array of samples."
            )
    try:
        return Column(key, parts)
    except TypeError as error:
        types = listed(sorted({str(part.dtype) for part in parts}))
        raise UsageProblem(
            f"--data {path}: the parts of {key} have types that do not fit each other, {types}."
        ) from error


def parse_feeds(values: Sequence[str]) -> list[Feed]:
    """Return the options `--feed NAME=KEY|VALUE`; raises `UsageProblem`."""
    feeds: list[Feed] = []
    for value in values:
        # The name of a tensor has no `=`.
        name, equals, given = value.partition("=")
        if not (name and equals and given):
            raise UsageProblem(f"--feed {value}: expected NAME=KEY or NAME=VALUE.")
        # TensorFlow writes a tensor as `x` and as `x:0`.
        if any(name.removesuffix(":0") == feed.name.removesuffix(":0") for feed in feeds):
            raise UsageProblem(f"--feed {name}: the input is given twice.")
        feeds.append(Feed(name, given))
    return feeds


@dataclass(frozen=True, eq=False)
class Samples:
    """Samples in batches: `inputs` by the name of the input, and `labels` if there are any.

    `constants` are fed with each batch as they are. `order` are the numbers of the samples that are
    taken, in the order in which they are; `batches` is the number of batches. `notes` are sentences
    on them.
    """

    inputs: Mapping[str, Column]
    labels: Column | None
    constants: Mapping[str, Array]
    dtypes: Mapping[str, np.dtype[Any]]
    order: Array
    batches: int
    notes: tuple[str, ...] = ()
    is_shuffled: ClassVar[bool] = True

    def __len__(self) -> int:
        """Return the number of batches, which a progress bar counts."""
        return self.batches

    def first(self, samples: int) -> Samples:
        """Return the first batches, with at least so many samples if there are as many."""
        sizes = [len(rows) for rows in np.array_split(self.order, self.batches)]
        batches = min(int(np.searchsorted(np.cumsum(sizes), samples)) + 1, self.batches)
        return replace(self, order=self.order[: sum(sizes[:batches])], batches=batches)

    def __iter__(self) -> Iterator[tuple[Batch, Array | None]]:
        """Yield each batch with its labels, None without any."""
        for rows in np.array_split(self.order, self.batches):
            with np.errstate(all="ignore"):  # seen as moments that are not finite
                fed = {
                    name: column.take(rows).astype(self.dtypes.get(name, column.dtype), copy=False)
                    for name, column in self.inputs.items()
                }
            yield {**fed, **self.constants}, None if self.labels is None else self.labels.take(rows)


def choose_samples(
    columns: Mapping[str, Column],
    specs: Sequence[InputSpec],
    *,
    feeds: Sequence[Feed] = (),
    labels: str | None = None,
    batch: int = 64,
    most: int | None = None,
) -> Samples:
    """Return the samples for a model with the inputs `specs`.

    An array goes to the input of its name, or where `feeds` says; a single array to a single input.
    `labels` is the key of the labels, `batch` the size of a batch, `most` how many samples are
    taken at most, by chance. Raises `UsageProblem` if arrays and inputs do not fit each other.
    """
    if labels is not None and labels not in columns:
        raise UsageProblem(_no_key(f"--labels {labels}", labels, columns))
    by_name = {spec.name: spec for spec in specs}
    constants: dict[str, Array] = {}
    inputs: dict[str, Column] = {}
    for feed in (_as_declared(given, by_name) for given in feeds):
        _require_input(feed.name, by_name)
        if feed.value in columns:
            inputs[feed.name] = columns[feed.value]
        else:
            constants[feed.name] = _constant(feed, by_name.get(feed.name), columns)
    rest = {key: column for key, column in columns.items() if key != labels}
    inputs |= _by_name(rest, by_name, {*inputs, *constants}, bool(feeds))
    label_column = None if labels is None else columns[labels]
    length = _common_length([*inputs.values(), *([] if label_column is None else [label_column])])
    dtypes = {}
    for name, column in inputs.items():
        if name in by_name:
            _require_shape(column, by_name[name])
            dtypes[name] = _input_dtype(column, by_name[name])
    fixed = {spec.shape[0] or 0 for spec in specs if spec.shape and spec.name in inputs}
    order, batches, notes = _batches(length, most, batch, fixed)
    return Samples(inputs, label_column, constants, dtypes, order, batches, notes)


def _as_declared(feed: Feed, specs: Mapping[str, InputSpec]) -> Feed:
    """Return a feed by the name of the input: TensorFlow writes a tensor as `x` and as `x:0`."""
    names = (feed.name, feed.name.removesuffix(":0"), f"{feed.name}:0")
    return feed._replace(name=next((name for name in names if name in specs), feed.name))


def _by_name(
    columns: Mapping[str, Column],
    specs: Mapping[str, InputSpec],
    fed: set[str],
    has_feeds: bool,
) -> dict[str, Column]:
    """Return the arrays for the inputs that no `--feed` names."""
    missing = [name for name in specs if name not in fed]
    named = {name: columns[name] for name in missing if name in columns}
    if len(named) == len(missing) and (specs or has_feeds):
        return named
    if len(columns) == 1 and (len(missing) == 1 or not specs):
        [(key, column)] = columns.items()
        return {missing[0] if missing else key: column}
    if not specs:
        return dict(columns)
    lacking = [name for name in missing if name not in named]
    raise UsageProblem(
        f"Nothing is given for the {'input' if len(lacking) == 1 else 'inputs'} {listed(lacking)}:"
        f" use --feed {lacking[0]}=KEY or VALUE. The data has"
        f" {listed(sorted(columns), 10) or 'no array for it'}; the model's inputs are"
        f" {listed([_described(spec) for spec in specs.values()], 10)}."
    )


def _described(spec: InputSpec) -> str:
    if spec.shape is None:
        return f"{spec.name} ({spec.dtype})"
    return f"{spec.name} ({spec.dtype}, {_shape(spec.shape)})"


def _shape(shape: Sequence[int | None]) -> str:
    return f"[{', '.join('?' if size is None else str(size) for size in shape)}]"


def _require_input(name: str, specs: Mapping[str, InputSpec]) -> None:
    if specs and name not in specs:
        near = did_you_mean(nearest(name, specs))
        raise UsageProblem(
            f"--feed {name}: the model has no such input.{near} Its inputs are"
            f" {listed([_described(spec) for spec in specs.values()], 10)}."
        )


def _no_key(option: str, key: str, columns: Mapping[str, Column]) -> str:
    near = did_you_mean(nearest(key, columns))
    return f"{option}: the data has no such key.{near} It has {listed(sorted(columns), 10)}."


def _constant(feed: Feed, spec: InputSpec | None, columns: Mapping[str, Column]) -> Array:
    """Return the value of `--feed NAME=VALUE`: True, False, or a number."""
    array = feed.constant
    if array is None:
        message = _no_key(f"--feed {feed.name}={feed.value}", feed.value, columns)
        raise UsageProblem(f"{message} A value is a number, true or false.")
    if spec is None:
        return array
    try:
        with np.errstate(all="ignore"):
            converted = array.astype(_numpy_dtype(spec.dtype, array.dtype))
        is_exact = converted.dtype.kind == "f" or bool(converted == array)
    except OverflowError:
        is_exact = False
    if not is_exact:
        raise UsageProblem(
            f"--feed {feed.name}={feed.value}: the input takes {spec.dtype}, which has no such"
            " value."
        )
    return converted


def _common_length(columns: Sequence[Column]) -> int:
    lengths = {column.name: len(column) for column in columns}
    if not lengths:
        raise UsageProblem("No array of the data goes to an input of the model: use --feed.")
    if len(set(lengths.values())) > 1:
        counts = ", ".join(f"{name} {count}" for name, count in lengths.items())
        raise UsageProblem(f"The arrays of the data differ in the number of samples: {counts}.")
    length = next(iter(lengths.values()))
    if not length:
        raise UsageProblem(f"The data has no samples: {listed([*lengths])} has the length 0.")
    return length


def _require_shape(column: Column, spec: InputSpec) -> None:
    """Raise `UsageProblem` if an array has not the shape of the input."""
    if spec.shape is None:
        return
    fits = len(column.shape) == len(spec.shape) and all(
        wanted in (None, size)
        for wanted, size in zip(spec.shape[1:], column.shape[1:], strict=True)
    )
    if not fits:
        raise UsageProblem(
            f"{column.name} has the shape {_shape(column.shape)}, but the input {spec.name} takes"
            f" {_shape(spec.shape)}."
        )


def _input_dtype(column: Column, spec: InputSpec) -> np.dtype[Any]:
    """Return the type that an array is fed in; raises `UsageProblem` if it does not fit."""
    wanted = _numpy_dtype(spec.dtype, column.dtype)
    is_number = column.dtype.kind in "biuf"
    if not (is_number or column.dtype == wanted) or (
        column.dtype.kind == "f" and wanted.kind in "biu"
    ):
        raise UsageProblem(
            f"{column.name} has the type {column.dtype}, but the input {spec.name} takes"
            f" {spec.dtype}."
        )
    if column.dtype.kind in "iu" and wanted.kind in "iu" and not np.can_cast(column.dtype, wanted):
        lowest, highest = column.limits()
        if lowest < np.iinfo(wanted).min or highest > np.iinfo(wanted).max:
            raise UsageProblem(
                f"{column.name} has values from {lowest} to {highest}, but the input {spec.name}"
                f" takes {spec.dtype}."
            )
    return wanted


def _numpy_dtype(name: str, otherwise: np.dtype[Any]) -> np.dtype[Any]:
    """Return numpy's type of this name; for bfloat16 float32, `otherwise` if there is none."""
    try:
        return np.dtype("float32" if name == "bfloat16" else name)
    except TypeError:
        return otherwise


def _batches(
    length: int, most: int | None, batch: int, fixed: set[int]
) -> tuple[Array, int, tuple[str, ...]]:
    """Return the order of the samples, the number of batches, and notes.

    `fixed` holds the batch size that the model is built for, if there is one.
    """
    order = np.random.default_rng(_SEED).permutation(length)[:most]
    notes: tuple[str, ...] = ()
    if most is not None and most < length:
        notes = (f"{plural(len(order), 'sample')} of {length} were taken, by chance",)
    size = next((fixed_size for fixed_size in fixed if fixed_size), None)
    if size is None:
        return order, max(1, round(len(order) / batch)), notes
    batches = len(order) // size
    if not batches:
        raise UsageProblem(
            f"The model takes batches of exactly {size} samples, and there are {len(order)}."
        )
    if left := len(order) - batches * size:
        built = f"the model is built for batches of {size}"
        notes = (*notes, f"{built}: {plural(left, 'sample')} left out")
    return order[: batches * size], batches, notes
