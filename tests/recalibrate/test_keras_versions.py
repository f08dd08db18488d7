"""Which Keras loads a file: one that is as new as its writer, or none."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from bninspect.errors import UsageProblem
from bninspect.recalibrate.engines import keras_files
from tests.support.layers_in_memory import checkpoint

INSTALLED = {
    "both": {"keras": "3.5.0", "tf_keras": "2.16.0"},
    "new": {"keras": "3.15.1"},
    "old": {"keras": "2.15.0"},
    "none": {},
}


def loaded_by(monkeypatch: pytest.MonkeyPatch, installed: str, writer: str) -> str:
    versions = INSTALLED[installed]

    def import_framework(name: str) -> Any:
        if name not in versions:
            raise ImportError(f"No module named {name!r}")
        return SimpleNamespace(__name__=name, __version__=versions[name])

    monkeypatch.setattr(keras_files, "import_framework", import_framework)
    stored = checkpoint({}, format="keras-h5")
    object.__setattr__(stored, "keras_version", writer)
    module = keras_files._keras_for(stored)
    return f"{module.__name__} {module.__version__}"


@pytest.mark.parametrize(
    ("installed", "writer", "expected"),
    [
        ("both", "3.4.1", "keras 3.5.0"),
        ("both", "2.15.0", "tf_keras 2.16.0"),
        ("both", "2", "tf_keras 2.16.0"),
        ("both", "", "tf_keras 2.16.0"),
        ("new", "2.15.0", "keras 3.15.1"),
        ("old", "2.15.0", "keras 2.15.0"),
        ("old", "2.3.1-tf", "keras 2.15.0"),
    ],
)
def test_a_keras_as_new_as_the_writer_loads(
    monkeypatch: pytest.MonkeyPatch, installed: str, writer: str, expected: str
) -> None:
    assert loaded_by(monkeypatch, installed, writer) == expected


@pytest.mark.parametrize(
    ("installed", "writer", "words"),
    [
        ("both", "3.15.1", "keras is of version 3.5.0"),
        ("old", "3.0.0", "keras is of version 2.15.0"),
        ("none", "3.0.0", "keras cannot be imported .* pip install -U keras tensorflow"),
        ("none", "2.15.0", "tf_keras cannot be imported .* pip install -U tf_keras tensorflow"),
    ],
)
def test_an_older_keras_or_none_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, installed: str, writer: str, words: str
) -> None:
    with pytest.raises(UsageProblem, match=words):
        loaded_by(monkeypatch, installed, writer)
