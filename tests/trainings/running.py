"""Runs the samples of the rule pages in trainings, for `tests/rules/test_samples.py`.

A script of this folder trains pairs, once with the mistake and once with the sample, in the
framework that its environment chooses, and writes where each file is. It knows nothing of what is
to be found in them.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bninspect.rules.pages import DIRECTORY

STEPS = 30
BATCH = 16
# Far from mean 0 and deviation 1, so that no average is near where it started.
GENERATOR = np.random.RandomState(1)
IMAGES = GENERATOR.normal(5.0, 3.0, (STEPS * BATCH, 4)).astype("float32")
LABELS = IMAGES[:, :1] - IMAGES[:, 1:2]
BATCHES = list(zip(IMAGES.reshape(STEPS, BATCH, 4), LABELS.reshape(STEPS, BATCH, 1), strict=True))

FOLDER = Path(sys.argv[1])


_executed: list[str] = []
_pairs: dict[str, dict[str, dict[str, str]]] = {}


def sample(name: str) -> str:
    """Return the code of `rules/pages/fixes/NAME.md`."""
    text = (DIRECTORY / "fixes" / f"{name}.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python[^\n]*\n(.*?)\n```$", text, re.MULTILINE | re.DOTALL)
    return str(code)


def run_sample(name: str, scope: dict[str, Any]) -> None:
    """Run the sample as it is printed; `scope` has the names it does not define."""
    code = sample(name)
    exec(compile(code, name, "exec"), scope)  # noqa: S102 - this is what the module is for
    _executed.append(code)


def run_mistaken(name: str, scope: dict[str, Any], *changes: tuple[str, str]) -> None:
    """Run the sample with a mistake: each of `changes` is what stands there and what should not."""
    code = sample(name)
    for right, wrong in changes:
        assert right in code, f"{name} has no {right!r}"
        code = code.replace(right, wrong)
    exec(compile(code, f"{name} mistaken", "exec"), scope)  # noqa: S102


def pair(name: str, train: Callable[[Path, bool], dict[str, str]]) -> None:
    """Train with the mistake (`train(folder, False)`), then with the sample.

    `train` gives the `path` of what it saved, and as `since` an earlier checkpoint to compare with.
    """
    _pairs[name] = {}
    for key, right in (("mistaken", False), ("right", True)):
        folder = FOLDER / name / key
        folder.mkdir(parents=True)
        _pairs[name][key] = train(folder, right)


@contextlib.contextmanager
def recording() -> Iterator[None]:
    """Write down, at the end, what was run and where the files are."""
    yield
    (FOLDER / "record.json").write_text(json.dumps({"executed": _executed, "pairs": _pairs}))
