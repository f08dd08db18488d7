"""Files of weights by path, and the variables of one checkpoint in some of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

from bninspect.model.checkpoint import Variable
from bninspect.storage.source import Look


class WeightsFile(Protocol):
    """A container of variables by their path: an HDF5 file, or the weights of TensorFlow.js."""

    def variable(self, path: str, /) -> Variable:
        """Return the variable at `path`; its values are not yet read."""

    def look_at(self, path: str, /) -> None:
        """Read the structure of a variable."""

    def prefetch_looks(self, looks: Iterable[Look], /) -> None:
        """Prefetch the bytes that some looks will read (remote files only)."""

    def prefetch(self, paths: Iterable[str], /) -> None:
        """Prefetch the values of some variables (remote files only)."""


class Weights(Mapping[str, Variable]):
    """Variables by their path, given as path → file; each is opened when looked up."""

    def __init__(self, files: Mapping[str, WeightsFile]) -> None:
        self._files = files

    def prefetch(self, variables: Iterable[Variable]) -> None:
        """Prefetch the values of some variables (remote files only)."""
        by_file: dict[WeightsFile, list[str]] = {}
        for variable in variables:
            if variable.name in self._files:
                by_file.setdefault(self._files[variable.name], []).append(variable.name)
        for file, paths in by_file.items():
            file.prefetch(paths)

    def __getitem__(self, path: str) -> Variable:
        return self._files[path].variable(path)

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)
