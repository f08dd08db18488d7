"""Copies of files with some bytes replaced: temporary names first, their own names at the end."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import NamedTuple, NoReturn

from bninspect.errors import UsageProblem
from bninspect.model.target import Target

_TERMINATING = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)
)


class Patch(NamedTuple):
    """Bytes that replace as many others at an offset in a file."""

    offset: int
    data: bytes


class FileCopy(NamedTuple):
    """A file to copy: its name in the directory of the output, and the bytes that are replaced."""

    source: str
    name: str
    patches: Sequence[Patch] = ()


class Plan(NamedTuple):
    """The copies of a checkpoint's files, in the order in which they get their own names.

    `source` is the target that is copied, `output` the path of the copy: a prefix, a directory or
    a file. `names` are what appears in the output's directory, the one that makes the copy a
    checkpoint last.
    """

    source: Target
    output: Path
    files: Sequence[FileCopy]
    names: Sequence[str]


def require_free(output: Path, names: Sequence[str]) -> None:
    """Raise `UsageProblem` unless a file can be written for each name beside `output`."""
    if not output.name:
        raise UsageProblem(f"Cannot write {output}: give the name of the copy to write.")
    if not output.parent.is_dir():
        problem = (
            f"{output.parent} is not a directory"
            if os.path.lexists(output.parent)
            else f"there is no directory {output.parent}"
        )
        raise UsageProblem(f"Cannot write {output}: {problem}.")
    if not os.access(output.parent, os.W_OK | os.X_OK):
        raise UsageProblem(f"Cannot write {output}: no file can be made in {output.parent}.")
    for path in (output, *(output.parent / name for name in names)):
        if os.path.lexists(path):
            raise UsageProblem(f"Refusing to overwrite {path}: choose a name that is not in use.")


@contextmanager
def written_copy(plan: Plan) -> Iterator[Path]:
    """Write a copy under temporary names and yield its path; name it at the end of the block.

    Nothing is left if the block raises, or if the program is interrupted or terminated. A file gets
    its name only after all others that it needs. Raises `UsageProblem` if the disk does not take
    it.
    """
    directory = plan.output.parent
    hidden = directory / f".bninspect-{os.getpid()}-{os.urandom(4).hex()}"
    named: list[Path] = []
    try:
        with _termination_raises():
            try:
                hidden.mkdir()
                for file in plan.files:
                    _copy(file, hidden / file.name)
                yield hidden / plan.output.name
                require_free(plan.output, plan.names)
                for name in plan.names:
                    named.append(directory / name)
                    os.rename(hidden / name, directory / name)
            except BaseException:
                for path in reversed(named):
                    if not os.path.lexists(hidden / path.name):  # else the file there is another's
                        _remove(path)
                raise
            finally:
                shutil.rmtree(hidden, ignore_errors=True)
    except OSError as error:
        raise UsageProblem(f"Cannot write {plan.output}: {error.strerror or error}.") from error


def _copy(file: FileCopy, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file.source, path)
    with open(path, "r+b") as stream:
        for patch in file.patches:
            stream.seek(patch.offset)
            stream.write(patch.data)
        stream.flush()
        os.fsync(stream.fileno())


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


@contextmanager
def _termination_raises() -> Iterator[None]:
    """Exit by an exception if a signal asks the program to end, so that temporary files go.

    Handlers of the program itself stay; only the main thread can set any.
    """
    caught = []
    if threading.current_thread() is threading.main_thread():
        caught = [number for number in _TERMINATING if signal.getsignal(number) == signal.SIG_DFL]
    for number in caught:
        signal.signal(number, _exit)
    try:
        yield
    finally:
        for number in caught:
            signal.signal(number, signal.SIG_DFL)


def _exit(number: int, _: FrameType | None) -> NoReturn:
    sys.exit(128 + number)  # as a shell reports it
