"""Safe access to HDF5: groups, attribute texts, datasets as variables. The only user of h5py.

Only what is asked for is opened, only through hard links of this very file: soft and external
links, external storage and virtual datasets would make the library open other places, so they are
refused. Which groups and attributes a layout has is the matter of keras_h5.py and keras_weights.py.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import h5py
from numpy.typing import NDArray

from bninspect.errors import Corrupt, Incomplete, ReadProblem, Unsupported
from bninspect.formats.source import Budget, Source, Window
from bninspect.model import Variable

# A filter of HDF5 cannot expand a chunk more than deflate does (1032:1); what claims more than
# that from its stored bytes is not read. Datasets below the floor are, whatever they claim.
_MAX_GROWTH = 1032
_GROWTH_FLOOR = 1 << 20
_WIDEST_ELEMENT = 8  # bytes
_MAX_DEPTH = 100  # groups within groups; models of models stay far below

_HEAP_SIGNATURE = b"GCOL"

DAMAGED = "The file is damaged or was cut short; copy it again or use another one."


@contextmanager
def hdf5_faults(path: str) -> Iterator[None]:
    """Turn what h5py raises about a damaged file into a `Corrupt`.

    h5py reports one and the same damage as any of these, by where the library noticed it.
    """
    try:
        yield
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise Corrupt(path, f"HDF5 cannot read it ({error})", DAMAGED) from error


def _require_not_locked(path: str) -> None:
    """HDF5 locks a file that it writes; only its own way of opening one tells."""
    try:
        with hdf5_faults(path):
            h5py.File(path, "r").close()
    except Corrupt as problem:
        if isinstance(problem.__cause__, BlockingIOError):
            raise Incomplete(
                path,
                "it is open for writing in another program",
                "Try again when that has closed it.",
            ) from problem
        raise


class _Guard(io.RawIOBase):
    """A file for HDF5 in which no damaged heap of strings reaches the library.

    HDF5 runs for ever over such a heap, or beyond its end (H5HG__cache_heap_deserialize in
    H5HGcache.c), and what it reads of a file always starts where an object does.
    """

    def __init__(self, window: Window) -> None:
        super().__init__()
        self._window = window
        self.seek = window.seek  # type: ignore[method-assign]
        self.tell = window.tell  # type: ignore[method-assign]

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer; raises OSError for a heap that contradicts itself."""
        start = self._window.tell()
        count = self._window.readinto(buffer)
        if bytes(buffer[:4]) == _HEAP_SIGNATURE:
            size = int.from_bytes(buffer[8:16], "little")
            # HDF5 reads the beginning first and the rest by itself.
            heap = bytearray(min(size, self._window.size))
            self._window.seek(start)
            self._window.readinto(heap)
            self._window.seek(start + count)
            if len(heap) < size or not _is_sound_heap(heap):
                raise OSError("a damaged heap of strings")
        return count


def _is_sound_heap(heap: bytes | bytearray) -> bool:
    """Whether the objects of a global heap lie one behind the other, up to its end.

    File format specification of HDF5, III.E: a head of 16 bytes, then objects of number, count and
    size; number 0 is the free space at the end, whose size takes in its own head.
    """
    at = 16
    while at + 16 <= len(heap):
        number = int.from_bytes(heap[at : at + 2], "little")
        length = int.from_bytes(heap[at + 8 : at + 16], "little")
        step = 16 + (length + 7) // 8 * 8 if number else length
        if at + step > len(heap) or (not number and at + step != len(heap)):
            return False
        at += step
    return True


class Hdf5:
    """An HDF5 file opened for reading; `path` is its name as it is to appear in messages.

    With a `window` its bytes are taken from there: the HDF5 file is a part of the one at `path`.
    Groups and datasets are named by their path in the file, "" being the root. Raises `Corrupt`
    if HDF5 cannot open it, `Incomplete` if another program is writing it.
    """

    def __init__(self, path: str, window: Window | None = None) -> None:
        self.path = path
        self._source = None
        if window is None:
            self._source = Source(path)
            window = self._source.window(0, self._source.size, "the file")
        self._budget = Budget()
        self._budget.grant(window.size)
        try:
            if self._source is not None:
                _require_not_locked(path)
            with hdf5_faults(path):
                self._file = h5py.File(_Guard(window), "r")
        except BaseException:
            self._close_source()
            raise
        self._last: tuple[str, Any] = ("", self._file)

    def close(self) -> None:
        """Close the file; its variables cannot be read any more."""
        self._file.close()
        self._close_source()

    def _close_source(self) -> None:
        if self._source is not None:
            self._source.close()

    def has(self, path: str) -> bool:
        """Whether the file has anything at `path`."""
        return path in self._file

    def has_attribute(self, path: str, name: str) -> bool:
        """Whether the group at `path` has an attribute of that name."""
        return name in self._group(path).attrs

    def text_list(self, path: str, attribute: str) -> list[str]:
        """The strings of an attribute that must be a list of them."""
        group = self._group(path)
        if len(group.attrs.get_id(attribute).shape) != 1:
            raise Corrupt(self.path, f"{attribute} of {group.name} is no list of names", DAMAGED)
        return self.texts(path, attribute)

    def texts(self, path: str, attribute: str) -> list[str]:
        """The strings of an attribute, one or a list of them; none if it is empty or absent."""
        group = self._group(path)
        if attribute not in group.attrs:
            return []
        stored = group.attrs.get_id(attribute)
        if not math.prod(stored.shape):
            return []
        # Anything else that is said to be of variable length crashes the library when it is read.
        if not isinstance(stored.get_type(), h5py.h5t.TypeStringID):
            raise Corrupt(self.path, f"{attribute} of {group.name} is no text", DAMAGED)
        value = group.attrs[attribute]
        texts = [value] if isinstance(value, bytes | str) else list(value)
        return [
            text.decode("utf-8", "surrogateescape") if isinstance(text, bytes) else str(text)
            for text in texts
        ]

    def walk(self) -> Iterator[tuple[str, list[str]]]:
        """Every group once: its path, and the names of what in it is no group.

        Datasets are not opened; a number in a group called `vars` is taken for one unseen, which
        saves most of the time a large file takes. What is asked of the group yielded last costs
        little. Raises `Unsupported` for any link but a hard one.
        """
        seen: set[Any] = set()
        waiting = [("", self._file.id)]
        while waiting:
            path, group = waiting.pop()
            if path.count("/") >= _MAX_DEPTH:
                raise Corrupt(self.path, f"its groups lie deeper than {_MAX_DEPTH}", DAMAGED)
            self._last = (path, h5py.Group(group))
            in_vars = path.rpartition("/")[2] == "vars"
            others = []
            for stored in group:
                name = stored.decode("utf-8", "surrogateescape")
                if group.links.get_info(stored).type != h5py.h5l.TYPE_HARD:
                    raise self._a_link(join(path, name))
                if in_vars and name.isdecimal():
                    others.append(name)
                    continue
                found = h5py.h5o.get_info(group, stored)
                if found.type != h5py.h5o.TYPE_GROUP:
                    others.append(name)
                elif (found.fileno, found.addr) not in seen:
                    seen.add((found.fileno, found.addr))
                    waiting.append((join(path, name), h5py.h5o.open(group, stored)))
            yield path, others

    def variable(self, path: str) -> Variable:
        """The dataset at `path`, its values not yet read."""
        with hdf5_faults(self.path):
            head, _, name = path.rpartition("/")
            dataset = self._step(self._group(head), name, path)
            if not isinstance(dataset, h5py.Dataset) or dataset.shape is None:
                raise Corrupt(self.path, f"{path} should be a dataset", DAMAGED)
            if dataset.is_virtual or dataset.external:
                raise Unsupported(
                    self.path,
                    f"the values of {path} lie in another file (external or virtual dataset)",
                    "Keras never writes this; copy the values into one file to check them.",
                )
            shape, dtype = tuple(dataset.shape), str(dataset.dtype.name)
        if _is_bfloat16(dataset.dtype):
            dtype = "bfloat16"
        return Variable(path, shape, dtype, lambda: self._read(path, dataset))

    def _group(self, path: str) -> Any:
        # Several things are asked of one group, then of the next.
        if path and path != self._last[0]:
            node: Any = self._file
            for part in path.split("/"):
                node = self._step(node, part, path)
            if not isinstance(node, h5py.Group):
                raise Corrupt(self.path, f"{path} should be a group", DAMAGED)
            self._last = (path, node)
        return self._last[1] if path else self._file

    def _step(self, group: Any, name: str, path: str) -> Any:
        """The object of that name in a group, on the way to `path`, reached by a hard link."""
        stored = name.encode("utf-8", "surrogateescape")
        if not name or not isinstance(group, h5py.Group) or not group.id.links.exists(stored):
            raise Corrupt(self.path, f"{path}, which its attributes name, is missing", DAMAGED)
        if group.id.links.get_info(stored).type != h5py.h5l.TYPE_HARD:
            raise self._a_link(path)
        return group[stored]

    def _a_link(self, path: str) -> ReadProblem:
        return Unsupported(
            self.path,
            f"{path} is a link to another place or file",
            "Keras never writes this; store the values themselves to check them.",
        )

    def _read(self, path: str, dataset: Any) -> NDArray[Any]:
        with hdf5_faults(self.path):
            claimed = dataset.size * dataset.dtype.itemsize
            stored = dataset.id.get_storage_size()
            if claimed > max(_GROWTH_FLOOR, _MAX_GROWTH * stored):
                raise Corrupt(
                    self.path,
                    f"{path} claims {claimed} bytes, but {stored} are stored",
                    DAMAGED,
                )
            self._budget.take(claimed, self.path)
            if _is_bfloat16(dataset.dtype):
                upper: NDArray[Any] = dataset[()].view("<u2")
                return (upper.astype("u4") << 16).view("f4")
            if dataset.dtype.kind not in "fiub" or dataset.dtype.itemsize > _WIDEST_ELEMENT:
                raise Unsupported(
                    self.path,
                    f"{path} holds {dataset.dtype} elements, which are no numbers of Keras",
                    "Check that the file was written by Keras.",
                )
            values: NDArray[Any] = dataset[()]
            return values.astype(values.dtype.newbyteorder("="), copy=False)


class Weights(Mapping[str, Variable]):
    """Variables by their path, given as path → file; each is opened when looked up."""

    def __init__(self, places: Mapping[str, Hdf5]) -> None:
        self._places = places

    def __getitem__(self, path: str) -> Variable:
        return self._places[path].variable(path)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def join(prefix: str, name: str) -> str:
    """The path of `name` in the group at `prefix`."""
    return f"{prefix}/{name}" if prefix else name


def _is_bfloat16(dtype: Any) -> bool:
    """Whether a dataset is bfloat16, which HDF5 lacks: Keras 3 stores it as two opaque bytes."""
    return bool(dtype.kind == "V" and dtype.itemsize == 2 and dtype.names is None)
