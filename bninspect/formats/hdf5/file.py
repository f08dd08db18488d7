"""Safe access to an HDF5 file by paths: groups, the texts of attributes, datasets as variables.

The files that Keras writes are read without the HDF5 library. The library trusts a file: it
allocates the length that a text claims, follows the nodes of a damaged tree for ever, and opens
other files. Here every read is bounded, and only hard links of this file are followed; soft and
external links, external storage and virtual datasets are refused. Keras refuses them, too.

The groups and attributes of Keras's layouts are in h5.py and weights_h5.py of formats/keras.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

from bninspect.errors import Corrupt, ReadProblem, Unsupported
from bninspect.formats.hdf5.attributes import parse_attribute, read_texts
from bninspect.formats.hdf5.dataset import (
    Dataset,
    parse_dataset,
    read_values,
    require_sound_claim,
)
from bninspect.formats.hdf5.group import Group, Link, StoredObject
from bninspect.formats.hdf5.structure import (
    DAMAGED,
    SAVE_AGAIN,
    Damage,
    NotRead,
    RecordedStructure,
    Structure,
)
from bninspect.formats.hdf5.superblock import open_for_writing, read_superblock
from bninspect.model.checkpoint import Variable
from bninspect.storage.source import Budget, Look, Source, Window

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MOST_LEVELS = 100  # groups within groups; models of models stay far below


class Hdf5:
    """An HDF5 file opened for reading; `path` is its name in messages.

    With a `window` its bytes are taken from there: the HDF5 file is a part of the one at `path`.
    Groups and datasets are named by their path in the file, "" being the root. Raises `Corrupt` if
    the file is not HDF5 or was cut short, `Incomplete` if another program is writing it. The files
    of one checkpoint share a `budget`; without one the file has its own. In a `record` all bytes of
    structure that are read are kept, by their offset in the window.

    To find out whether another program writes it, the file is locked for a moment, in which no
    program can open it for writing: a training would fail. A `live` file is not locked; its size
    is compared with its header instead.
    """

    def __init__(
        self,
        path: str,
        window: Window | None = None,
        budget: Budget | None = None,
        *,
        live: bool = False,
        record: dict[int, bytes] | None = None,
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
            if self._source is not None and not live and self._source.is_being_written():
                raise open_for_writing(path)
            superblock = read_superblock(path, window, live=self._source is not None and live)
        except BaseException:
            self.close()
            raise
        if record is None:
            self._structure = Structure(window, superblock.base)
        else:
            record[0] = window.read_at(0, superblock.end)
            self._structure = RecordedStructure(window, superblock.base, record)
        self._objects: dict[int, StoredObject] = {}
        self._addresses = {"": superblock.root}  # of groups, by path
        self._datasets: dict[str, Dataset] = {}

    def close(self) -> None:
        """Close the file; its variables cannot be read any more."""
        if self._source is not None:
            self._source.close()

    # --- Prefetching remote files -----------------------------------------------------------------

    def groups_below(self, path: str, attribute: str) -> Look:
        """Return a look that prefetches all groups below one, and an attribute's texts of each."""

        def look() -> list[Look]:
            from bninspect.formats.hdf5.prefetch import GroupLooks

            looks = GroupLooks(self._structure, self._object, attribute)
            return looks.at(self._address(path))

        return look

    def prefetch_looks(self, looks: Iterable[Look]) -> None:
        """Prefetch the bytes that some looks into the file will read (remote files only)."""
        if self._window.prefetch is not None:
            from bninspect.formats.hdf5.prefetch import fetch_for

            left = self._structure.left
            fetch_for(looks, self._window)
            self._structure.left = left

    def prefetch(self, paths: Iterable[str]) -> None:
        """Prefetch the values of some datasets (remote files only)."""
        if self._window.prefetch is not None:
            paths = list(paths)
            self.prefetch_looks([partial(self.look_at, path) for path in paths])
            datasets = [self._datasets[path] for path in paths if path in self._datasets]
            pieces = [piece for dataset in datasets for piece in dataset.pieces]
            self._window.prefetch(
                [self._structure.place(piece.address, piece.size) for piece in pieces]
            )

    def look_at(self, path: str) -> None:
        """Read the structure of a dataset, as `variable` does."""
        self._dataset(path)

    # --- Groups and attributes --------------------------------------------------------------------

    def has(self, name: str) -> bool:
        """Return whether the root group has a member of this name."""
        with self._faults_of(""):
            return self._group("").find(name) is not None

    def has_attribute(self, path: str, name: str) -> bool:
        """Return whether the group at `path` has an attribute of that name."""
        with self._faults_of(path):
            return name in self._group(path).attributes

    def text_list(self, path: str, attribute: str) -> list[str]:
        """Return the strings of an attribute that must be a list of them."""
        return self._texts(path, attribute, must_be_list=True)

    def texts(self, path: str, attribute: str) -> list[str]:
        """Return the strings of an attribute, one or several; none if it is empty or absent."""
        if not self.has_attribute(path, attribute):
            return []
        return self._texts(path, attribute, must_be_list=False)

    def _texts(self, path: str, attribute: str, *, must_be_list: bool) -> list[str]:
        with self._faults_of(f"{attribute} of {_named(path)}"):
            parsed = parse_attribute(self._structure, self._group(path).attributes[attribute])
            if must_be_list and (parsed.shape is None or len(parsed.shape) != 1):
                raise Damage("it is no list of names")
            texts = read_texts(self._structure, parsed)
            # Each may become a path below this group.
            self._structure.count(len(texts) * len(path))
            return texts

    def walk(self, start: str = "") -> Iterator[tuple[str, list[str]]]:
        """Yield every group from one on, each once: its path, and its members that are no groups.

        A number in a group called `vars` is taken for a dataset without reading it, which saves
        most of the time for a large file. Raises `Unsupported` for any link but a hard one.
        """
        root = self._address(start)
        seen = {root}
        waiting = [(start, root)]
        while waiting:
            path, address = waiting.pop()
            if path.count("/") >= _MOST_LEVELS:
                raise Corrupt(self.path, f"its groups lie deeper than {_MOST_LEVELS}", DAMAGED)
            self._addresses[path] = address
            not_groups = []
            with self._faults_of(path):
                links = self._group(path).links
            for name, link in links.items():
                below = join(path, name)
                if self._leads_to_group(path, name, link):
                    if link.address not in seen:
                        seen.add(link.address)
                        waiting.append((below, link.address))
                else:
                    not_groups.append(name)
            yield path, not_groups

    def _leads_to_group(self, path: str, name: str, link: Link) -> bool:
        if link.kind != "hard":
            raise self._a_link(join(path, name), link)
        if name.isdecimal() and path.rpartition("/")[2] == "vars":
            return False
        with self._faults_of(join(path, name)):
            self._structure.count(len(path))  # the paths of all may be longer than the file
            return link.table is not None or self._object(link.address).group is not None

    def _group(self, path: str) -> Group:
        """Return the group at a path."""
        address = self._address(path)
        with self._faults_of(path):
            group = self._object(address).group
        if group is None:
            raise Corrupt(self.path, f"{_named(path)} should be a group", DAMAGED)
        return group

    def _address(self, path: str) -> int:
        """Return the address of the object at a path, reached by hard links alone."""
        if path not in self._addresses:
            head, _, name = path.rpartition("/")
            with self._faults_of(head):
                link = self._group(head).find(name)
            if link is None:
                raise Corrupt(self.path, f"{path}, which its attributes name, is missing", DAMAGED)
            if link.kind != "hard":
                raise self._a_link(path, link)
            with self._faults_of(path):
                self._structure.count(len(path))
            self._addresses[path] = link.address
        return self._addresses[path]

    def _object(self, address: int) -> StoredObject:
        known = self._objects.get(address)
        if known is None:
            known = self._objects[address] = StoredObject(self._structure, address)
        return known

    def _a_link(self, path: str, link: Link) -> ReadProblem:
        """Return the error for a link that is not followed."""
        if link.kind == "external":
            message = f"{path} is a link to {link.target} in another file, {link.file}"
        elif link.kind == "soft":
            missing = "" if self._is_there(path, link.target) else ", which is not there"
            message = f"{path} is a link to {link.target}{missing}"
        else:
            message = f"{path} is a link of a kind that HDF5 does not define"
        return Unsupported(
            self.path,
            message,
            "Keras never writes links; save the model again, so that the file itself holds"
            " the values.",
        )

    def _is_there(self, path: str, target: str) -> bool:
        """Return whether a soft link's target is there; a target without / begins at its group."""
        start = "" if target.startswith("/") else path.rpartition("/")[0]
        parts = [part for part in f"{start}/{target}".split("/") if part not in ("", ".")]
        try:
            self._address("/".join(parts))
        except ReadProblem:
            return False
        return True

    # --- Datasets --------------------------------------------------------------------------------

    def variable(self, path: str) -> Variable:
        """Return the dataset at `path` as a variable; its values are not yet read."""
        dataset = self._dataset(path)
        load = partial(self._read, path, dataset)
        return Variable(path, dataset.shape, dataset.type.name, load, dataset.unwritten)

    def place(self, path: str) -> tuple[int, str]:
        """Return the offset of the values of a dataset, and numpy's type of its elements.

        The offset is one in the window. Raises `Unsupported` unless the values lie in one piece as
        they are, without filters and checksums.
        """
        dataset = self._dataset(path)
        if dataset.chunk or dataset.compact is not None or len(dataset.pieces) != 1:
            raise Unsupported(
                self.path,
                f"{path} is not stored in one piece (it is chunked, compressed or was not written)",
                "Save the model again with Keras, which stores each variable in one piece.",
            )
        (piece,) = dataset.pieces
        offset, _ = self._structure.place(piece.address, piece.size)
        return offset, dataset.type.number

    def _dataset(self, path: str) -> Dataset:
        dataset = self._datasets.get(path)
        if dataset is None:
            address = self._address(path)
            with self._faults_of(path):
                dataset = parse_dataset(self._structure, self._object(address).messages)
            if dataset is None:
                raise Corrupt(self.path, f"{path} should be a dataset", DAMAGED)
            self._datasets[path] = dataset
        return dataset

    def _read(self, path: str, dataset: Dataset) -> NDArray[Any]:
        if not dataset.type.number:
            raise Unsupported(
                self.path,
                f"{path} holds {dataset.type.name} elements, which are no numbers of Keras",
                "Check that the file was written by Keras.",
            )
        with self._faults_of(path):
            require_sound_claim(dataset)
            stored = sum(piece.size for piece in dataset.pieces) if dataset.chunk else 0
            self._budget.take(dataset.claimed + stored, self.path)
            return read_values(self._structure, dataset)

    def _faults_of(self, path: str) -> _Faults:
        """Name the object at fault in errors that are raised in a block."""
        return _Faults(self.path, path)


class _Faults:
    """A block in which faults of an object are turned into errors of the file.

    Not a generator of contextlib, since there are thousands of such blocks in a file.
    """

    def __init__(self, file: str, path: str) -> None:
        self._file, self._path = file, path

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None
    ) -> None:
        if error is None:
            return
        name = _named(self._path)
        if isinstance(error, Damage):
            message = f"the HDF5 structure of {name} is damaged ({error})"
            raise Corrupt(self._file, message, DAMAGED) from error
        if isinstance(error, NotRead):
            raise Unsupported(self._file, f"{name}: {error}", SAVE_AGAIN) from error


def join(prefix: str, name: str) -> str:
    """Return the path of `name` in the group at `prefix`."""
    return f"{prefix}/{name}" if prefix else name


def _named(path: str) -> str:
    return path or "the root group"
