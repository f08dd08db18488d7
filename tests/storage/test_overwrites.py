"""A local file that is written in place while it is read gives no verdict on a mixture."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Run, load_fixture

# Of each container a checkpoint, and the one that is written over it.
PAIRS = {
    "keras-h5": ("keras2_functional_correct", "keras2_training_false"),
    "keras-zip": ("keras3_zip_nested", "keras3_zip_custom_loop_stuck"),
    "onnx": ("onnx_pytorch_correct", "onnx_pytorch_stuck"),
    "tf-v2": ("tf1_layers_correct", "tf1_layers_update_ops_forgotten"),
    "tf-v1": ("tf1_v1_correct", "tf1_v1_update_ops_forgotten"),
}


class InPlace:
    """A checkpoint in a directory, whose files can be overwritten without a new inode."""

    def __init__(self, directory: Path, pair: tuple[str, str]) -> None:
        self.path = directory / "model"
        self._contents = [self._files_of(load_fixture(stem).path) for stem in pair]
        assert self._contents[0].keys() == self._contents[1].keys()
        self.write(0)

    @staticmethod
    def _files_of(path: Path) -> dict[str, bytes]:
        """The content of each file, by what follows the checkpoint's name."""
        if path.is_file():
            return {"": path.read_bytes()}
        parts = (part for part in path.parent.glob(f"{path.name}.*") if part.suffix != ".meta")
        return {part.name.removeprefix(path.name): part.read_bytes() for part in parts}

    def write(self, which: int) -> None:
        for ending, content in self._contents[which].items():
            file = Path(f"{self.path}{ending}")
            with open(file, "r+b" if file.exists() else "wb") as stream:
                stream.truncate()
                stream.write(content)


@pytest.fixture(params=PAIRS)
def checkpoint(request: pytest.FixtureRequest, tmp_path: Path) -> InPlace:
    return InPlace(tmp_path, PAIRS[request.param])


def at_reads(monkeypatch: pytest.MonkeyPatch, act: Callable[[int], None]) -> Iterator[int]:
    """Call `act` with the number of each read before it is made; gives the counter."""
    real, numbers = os.pread, count()

    def pread(descriptor: int, length: int, offset: int) -> bytes:
        act(next(numbers))
        return real(descriptor, length, offset)

    monkeypatch.setattr(os, "pread", pread)
    return numbers


def report(run: Run, checkpoint: InPlace) -> Any:
    (found,) = run("check", checkpoint.path, "--format", "json").json["checkpoints"]
    return found


def test_once_it_is_read_again(
    run: Run, checkpoint: InPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = []
    for which in (0, 1):
        checkpoint.write(which)
        with monkeypatch.context() as patch:
            numbers = at_reads(patch, lambda _: None)
            new = report(run, checkpoint)
        reads.append(next(numbers))
        assert new["error"] is None
    assert min(reads) > 3
    for moment in range(0, min(reads), max(1, min(reads) // 8)):
        checkpoint.write(0)
        with monkeypatch.context() as patch:
            at_reads(patch, lambda number, at=moment: checkpoint.write(1) if number == at else None)
            assert report(run, checkpoint) == new, f"overwritten before read {moment}"


def test_again_and_again_it_is_no_pass(
    run: Run, checkpoint: InPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        at_reads(patch, lambda number: checkpoint.write(number % 2))
        outcome = run("check", checkpoint.path, "--format", "json")
    assert outcome.exit_code == 2
    (found,) = outcome.json["checkpoints"]
    assert found["error"]["kind"] == "incomplete"
    told = found["error"]["message"] + found["error"]["hint"]
    assert re.search("was overwritten while it was read|changed while it was read", told)


def test_one_that_is_deleted_is_read_to_its_end(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Saver deletes the oldest checkpoints while others may read them."""
    checkpoint = InPlace(tmp_path, PAIRS["keras-h5"])
    with monkeypatch.context() as patch:
        numbers = at_reads(patch, lambda _: None)
        whole = report(run, checkpoint)
    last = next(numbers) - 1
    at_reads(monkeypatch, lambda number: checkpoint.path.unlink() if number == last else None)
    assert report(run, checkpoint) == whole
    assert not checkpoint.path.exists()
