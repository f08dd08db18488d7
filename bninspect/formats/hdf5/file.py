"""Safe access to HDF5: groups, attribute texts, datasets as variables. The only user of h5py.

Only what is asked for is opened, only through hard links of this very file: soft and external
links, external storage and virtual datasets would make the library open other places, so they are
refused. Which groups and attributes a layout has is the matter of keras_h5.py and keras_weights.py.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import h5py
from numpy.typing import NDArray

from bninspect.errors import Corrupt, Incomplete, ReadProblem, Unsupported
from bninspect.formats.hdf5.attributes import stored_texts
from bninspect.formats.hdf5.superblock import require_closed
from bninspect.model.checkpoint import Variable
from bninspect.storage.source import Budget, Look, Source, Window, problem_behind
from bninspect.storage.urls import is_url

# A filter of HDF5 cannot expand a chunk more than deflate does (1032:1); what claims more than
# that from its stored bytes is not read. Datasets below the floor are, whatever they claim.
_MAX_GROWTH = 1032
_GROWTH_FLOOR = 1 << 20
_WIDEST_ELEMENT = 8  # bytes
_MAX_TEXTS = 16 << 20  # bytes of one attribute; the configuration of a ResNet-152 takes 0.5 MB
_MAX_DEPTH = 100  # groups within groups; models of models stay far below

# What the machine refuses, not the file.
_NOT_THE_FILE = {errno.EMFILE, errno.ENFILE, errno.EACCES, errno.EIO}

DAMAGED = "The file is damaged or was cut short; copy it again or use another one."

_SAVE_AGAIN = "Save the model again with Keras, then check that."


@contextlib.contextmanager
def hdf5_faults(path: str) -> Iterator[None]:
    """Turn what h5py raises about a damaged file into a `Corrupt`.

    h5py reports one and the same damage as any of these, by where the library noticed it. What is
    no fault of the file (no permission, too many open files) is a plain `ReadProblem`.
    """
    try:
        yield
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
        if problem := problem_behind(path, error):
            raise problem from None
        if isinstance(error, OSError) and error.errno in _NOT_THE_FILE:
            raise ReadProblem(
                path,
                f"cannot be read ({os.strerror(error.errno)})",
                "Check its permissions, the disk and the limit of open files, then try again.",
            ) from error
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


class Hdf5:
    """An HDF5 file opened for reading; `path` is its name as it is to appear in messages.

    With a `window` its bytes are taken from there: the HDF5 file is a part of the one at `path`.
    Groups and datasets are named by their path in the file, "" being the root. Raises `Corrupt`
    if HDF5 cannot open it, `Incomplete` if another program is writing it. The files
    of one checkpoint share a `budget`; without one the file has its own.

    To tell that, the file is locked for a moment, in which no other program can open it to write:
    a training would fail. One that is `live` is opened without; there its size has to tell.
    """

    def __init__(
        self,
        path: str,
        window: Window | None = None,
        budget: Budget | None = None,
        *,
        live: bool = False,
    ) -> None:
        self.path = path
        self._source = None
        if window is None:
            self._source = Source(path)
            window = self._source.window(0, self._source.size, "the file")
        self._window = window
        if budget is None:
            budget = Budget()
            budget.grant(window.size)
        self._budget = budget
        try:
            if self._source is not None and not live and not is_url(path):
                _require_not_locked(path)
            with hdf5_faults(path):
                if self._source is not None and live:
                    require_closed(path, window)
                self._file = h5py.File(window, "r")
        except BaseException:
            self._close_source()
            raise
        self._last: tuple[str, Any] = ("", self._file)  # a group and its path
        self._values: dict[str, tuple[int, int]] = {}  # where those of datasets lie, from afar

    def close(self) -> None:
        """Close the file; its variables cannot be read any more."""
        self._file.close()
        self._close_source()

    def _close_source(self) -> None:
        if self._source is not None:
            self._source.close()

    def groups_below(self, path: str, attribute: str) -> Look:
        """A look that lets all groups below one come, and of each the texts of an attribute."""

        def look() -> list[Look]:
            from bninspect.formats.hdf5.prefetch import Groups

            base = self._file.id.get_create_plist().get_userblock()
            groups = Groups(self._window, base, attribute.encode())
            return groups.at(h5py.h5o.get_info(self._group(path).id).addr)

        return look

    def expect_looks(self, looks: Iterable[Look]) -> None:
        """Let come from afar what some looks into the file will read."""
        if self._window.prefetch is not None:
            from bninspect.formats.hdf5.prefetch import fetch_for

            fetch_for(looks, self._window)

    def prefetch(self, paths: Iterable[str]) -> None:
        """Let the values of some datasets come from afar."""
        if self._window.prefetch is not None:
            paths = list(paths)
            unknown = (path for path in paths if path not in self._values)
            self.expect_looks([partial(self.look_at, path) for path in unknown])
            self._window.prefetch([self._values[path] for path in paths if path in self._values])

    def look_at(self, path: str) -> None:
        """A look at a dataset: what `variable` reads of it."""
        self._keep_place(path, self._dataset(path))

    def _keep_place(self, path: str, dataset: Any) -> None:
        """Keep where the values of a dataset lie, unless they lie in chunks."""
        if self._window.prefetch is not None and (offset := dataset.id.get_offset()) is not None:
            self._values[path] = offset, dataset.id.get_storage_size()

    def has(self, path: str) -> bool:
        """Whether the file has anything at `path`."""
        return path in self._file

    def has_attribute(self, path: str, name: str) -> bool:
        """Whether the group at `path` has an attribute of that name."""
        return name in self._group(path).attrs

    def text_list(self, path: str, attribute: str) -> list[str]:
        """The strings of an attribute that must be a list of them."""
        group = self._group(path)
        shape = group.attrs.get_id(attribute).shape
        if shape is None or len(shape) != 1:
            raise Corrupt(self.path, f"{attribute} of {group.name} is no list of names", DAMAGED)
        return self.texts(path, attribute)

    def texts(self, path: str, attribute: str) -> list[str]:
        """The strings of an attribute, one or a list of them; none if it is empty or absent."""
        group = self._group(path)
        if attribute not in group.attrs:
            return []
        stored = group.attrs.get_id(attribute)
        if stored.shape is None or not math.prod(stored.shape):
            return []
        # Anything else that is said to be of variable length crashes the library when it is read.
        if not isinstance(stored.get_type(), h5py.h5t.TypeStringID):
            raise Corrupt(self.path, f"{attribute} of {group.name} is no text", DAMAGED)
        if stored.get_storage_size() > _MAX_TEXTS:
            raise Corrupt(self.path, f"{attribute} of {group.name} is too large", DAMAGED)
        if stored.get_type().is_variable_str():
            return self._variable_texts(group, attribute, math.prod(stored.shape))
        value = group.attrs[attribute]
        return [_decoded(text) for text in ([value] if isinstance(value, bytes) else list(value))]

    def _variable_texts(self, group: Any, attribute: str, count: int) -> list[str]:
        """Strings of variable length; of these HDF5 would believe any length."""
        with hdf5_faults(self.path):
            creation = self._file.id.get_create_plist()
            base = creation.get_userblock()
            if creation.get_sizes() != (8, 8):
                raise Unsupported(self.path, "it has no addresses of eight bytes", _SAVE_AGAIN)
            found = stored_texts(
                lambda at, length: self._window.read_at(base + at, length),
                h5py.h5o.get_info(group.id).addr,
                attribute.encode("utf-8", "surrogateescape"),
                count,
                _MAX_TEXTS,
            )
        if found is None:
            raise Unsupported(
                self.path, f"{attribute} of {group.name} is not stored as Keras does", _SAVE_AGAIN
            )
        return [_decoded(text) for text in found]

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
        # With many files open, every object that is open too makes closing one slower.
        self._last = ("", self._file)

    def variable(self, path: str) -> Variable:
        """The dataset at `path`, its values not yet read."""
        with hdf5_faults(self.path):
            dataset = self._dataset(path)
            shape, dtype = tuple(dataset.shape), str(dataset.dtype.name)
            if _is_bfloat16(dataset.dtype):
                dtype = "bfloat16"
            self._keep_place(path, dataset)
        # Not even the dataset stays open.
        return Variable(path, shape, dtype, lambda: self._read(path))

    def _dataset(self, path: str) -> Any:
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
        return dataset

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

    def _read(self, path: str) -> NDArray[Any]:
        with hdf5_faults(self.path):
            dataset = self._dataset(path)
            # HDF5 unpacks whole chunks, which may be larger than what they are chunks of.
            elements = max(dataset.size, math.prod(dataset.chunks or ()))
            claimed = elements * dataset.dtype.itemsize
            stored = dataset.id.get_storage_size()
            if claimed > max(_GROWTH_FLOOR, _MAX_GROWTH * stored):
                raise Corrupt(
                    self.path,
                    f"{path} claims {claimed} bytes, but {stored} are stored",
                    DAMAGED,
                )
            self._budget.take(claimed, self.path)
            if not _unpacks_within(dataset):
                raise Corrupt(self.path, f"a chunk of {path} unpacks to too much", DAMAGED)
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


def _unpacks_within(dataset: Any) -> bool:
    """Whether no deflated chunk is longer than a chunk: HDF5 unpacks each to its end, however far.

    The order of filters is that of writing: one deflates, others leave the size or add a checksum.
    """
    filters = dataset.id.get_create_plist()
    kinds = [filters.get_filter(number)[0] for number in range(filters.get_nfilters())]
    if h5py.h5z.FILTER_DEFLATE not in kinds:
        return True
    if kinds.count(h5py.h5z.FILTER_DEFLATE) > 1:
        return False
    size = math.prod(dataset.chunks) * dataset.dtype.itemsize
    size += 4 * kinds.count(h5py.h5z.FILTER_FLETCHER32)
    skipped = 1 << kinds.index(h5py.h5z.FILTER_DEFLATE)
    chunks: list[Any] = []
    dataset.id.chunk_iter(chunks.append)
    for chunk in chunks:
        if not chunk.filter_mask & skipped:
            _, data = dataset.id.read_direct_chunk(chunk.chunk_offset)
            with contextlib.suppress(zlib.error):  # HDF5 tells of it
                if len(zlib.decompressobj().decompress(data, size + 1)) > size:
                    return False
    return True


def _decoded(text: bytes) -> str:
    return text.decode("utf-8", "surrogateescape")


class Weights(Mapping[str, Variable]):
    """Variables by their path, given as path → file; each is opened when looked up."""

    def __init__(self, places: Mapping[str, Hdf5]) -> None:
        self._places = places

    def prefetch(self, variables: Iterable[Variable]) -> None:
        """Let the values of some variables come from afar."""
        by_file: dict[Hdf5, list[str]] = {}
        for variable in variables:
            if variable.name in self._places:
                by_file.setdefault(self._places[variable.name], []).append(variable.name)
        for file, paths in by_file.items():
            file.prefetch(paths)

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
