"""The text of a recalibration: the first line says it all, names are escaped, long lists cut."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np

from bninspect.model.recalibration import (
    OutputChange,
    Quality,
    RecalibratedLayer,
    Recalibration,
)
from bninspect.reporters.recalibrate_text import write_recalibration
from bninspect.reporters.text_utils import TextStyle


def layer(name: str = "bn") -> RecalibratedLayer:
    zeros, ones = np.zeros(3), np.ones(3)
    return RecalibratedLayer(name, zeros, ones, zeros - 2.5, np.arange(1.0, 4.0), 0.0123, 0.034)


CURED = Recalibration(
    "model.keras",
    "keras 3.15.1, tensorflow 2.21.0",
    output="fixed.keras",
    samples=2048,
    batches=32,
    layers=(layer(),),
    kept=("other",),
    outputs=OutputChange(2048, 1.5, 1.25, 0.015, 0.25, 0.98),
    quality=Quality("accuracy", 0.941, 0.163, 0.94),
    proof="the bias says so",
    notes=("a note",),
)


def text_of(result: Recalibration, **options: bool) -> str:
    stream = io.StringIO()
    write_recalibration(result, stream, TextStyle(**options))
    return stream.getvalue()


def test_the_first_line_says_it_all() -> None:
    first = text_of(CURED).splitlines()[0]
    assert first == (
        "CURED  model.keras: statistics of 1 of 2 BN layers re-estimated from 2048 samples in 32"
        " batches; written to fixed.keras"
    )
    assert text_of(CURED, quiet=True).splitlines() == [first]
    dry = text_of(replace(CURED, output=None, dry_run=True))
    assert dry.startswith("CURABLE")
    assert "nothing was written" in dry


def test_everything_is_said() -> None:
    said = " ".join(text_of(CURED).split())
    for part in (
        "bn 0 -> -2.5 1 -> 1 to 3 0.012 dev. 3.4%",
        "proof the bias says so",
        "moved by 1.5 deviations, on 2048 samples",
        "distance from those on batch statistics: 1.25 before and 0.015 after",
        "25.0% before and 98.0% after",
        "accuracy batch statistics 94.1%, before 16.3%, after 94.0%",
        "kept 1 layer as before: other",
        "note a note",
        "ran by keras 3.15.1, tensorflow 2.21.0",
        "the same preprocessing as at serving",
        "all classes",
    ):
        assert part in said


def test_a_loss_has_no_percents() -> None:
    result = replace(CURED, quality=Quality("loss", 0.01, 2.0, 0.012))
    assert "batch statistics 0.01, before 2, after 0.012" in " ".join(text_of(result).split())


def test_a_refusal_is_one_line() -> None:
    refused = Recalibration("model.keras", refusal="It is frozen.")
    assert text_of(refused) == "REFUSED  model.keras: It is frozen.\n"
    assert repr(refused) == "<Recalibration model.keras: refused: It is frozen.>"


def test_many_layers_are_cut_unless_asked_for() -> None:
    many = replace(CURED, layers=tuple(layer(f"bn{number}") for number in range(30)))
    assert "and 10 more layers (--verbose)" in text_of(many)
    assert "bn29" not in text_of(many)
    assert "bn29" in text_of(many, verbose=True)


def test_names_are_escaped() -> None:
    assert "\x1b" not in text_of(replace(CURED, path="a\x1b[31m", layers=(layer("b\x1bn"),)))


def test_a_narrow_terminal_gets_no_longer_lines() -> None:
    stream = io.StringIO()
    result = replace(CURED, layers=(layer("block/" * 5 + "batch_normalization"), layer()))
    write_recalibration(result, stream, TextStyle(width=80))
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith("CURED  model.keras")
    assert "  bn" in lines
    whole = io.StringIO()
    write_recalibration(result, whole)
    assert whole.getvalue().startswith(lines[0])
