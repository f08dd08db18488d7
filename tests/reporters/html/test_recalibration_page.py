"""The page of `recalibrate`: what it says, and that names stay text."""

from __future__ import annotations

import io
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bninspect.model.recalibration import (
    OutputChange,
    Quality,
    RecalibratedLayer,
    Recalibration,
)
from bninspect.reporters.html.recalibration import write_recalibration
from tests.conftest import Run, load_fixture
from tests.support.pages import Page, whole_page
from tests.support.reports_in_memory import HOSTILE


def recalibration_page(result: Recalibration) -> Page:
    stream = io.StringIO()
    write_recalibration(result, stream)
    return whole_page(stream.getvalue())


def cured(name: str = "net/bn") -> Recalibration:
    """Return a result with everything that a result may have."""
    random = np.random.default_rng(3)
    layer = RecalibratedLayer(
        name,
        np.zeros(8),
        np.ones(8),
        random.normal(2, 1, 8),
        random.uniform(3, 9, 8),
        mean_error=0.0123,
        variance_error=0.0345,
    )
    return Recalibration(
        "model.keras",
        "keras 3.15.1, tensorflow 2.21.0",
        output="fixed.keras",
        samples=2048,
        batches=32,
        layers=(layer, layer._replace(name=f"{name}_1")),
        kept=("net/other",),
        outputs=OutputChange(2048, 1.5, 1.4, 0.021, 0.097, 0.987),
        quality=Quality("accuracy", 0.954, 0.097, 0.951),
        notes=("the samples are sorted",),
    )


def test_it_says_what_became_of_the_layers_and_of_the_outputs() -> None:
    page = recalibration_page(cured())
    assert "CURED model.keras: statistics of 2 of 3 BN layers re-estimated" in page.text
    assert "2048 samples in 32 batches" in page.text
    assert "the samples are sorted" in page.text
    headings = [one.text for one in page.all("th")]
    assert headings[1:4] == [
        "accuracy",
        "distance from those in training",
        "same predictions as in training",
    ]
    cells = [one.text for one in page.all("td")]
    assert (cells[0], cells[3:6], cells[6:]) == (
        "95.4%",
        ["9.7%", "1.4", "9.7%"],
        ["95.1%", "0.021", "98.7%"],
    )
    layers = page.all("section", "layer")
    assert len(layers) == 2
    assert "at most 0.0123 deviations, of a variance at most 3.45 %" in layers[0].text
    captions = [one.text for one in page.all("figcaption")][:4]
    assert captions[0] == "moving_mean before 0"
    assert captions[2] == "moving_variance before 1"
    assert "1 layer with the statistics that it had net/other" in page.text
    assert "What only you can know" in page.text


def test_a_refusal_says_why_and_nothing_of_layers() -> None:
    page = recalibration_page(Recalibration("model.keras", refusal="It was trained otherwise."))
    assert "REFUSED model.keras: It was trained otherwise." in page.text
    assert not page.all("section", "layer")
    assert "What only you can know" not in page.text
    assert not page.all("table")


def test_a_dry_run_has_no_copy() -> None:
    page = recalibration_page(replace(cured(), output=None, dry_run=True))
    assert "CURABLE" in page.text
    assert "nothing was written" in page.text
    assert "fixed.keras" not in page.text


def test_losses_are_no_shares() -> None:
    page = recalibration_page(replace(cured(), quality=Quality("loss", 0.25, 12.5, 0.26)))
    assert "loss" in page.text
    assert "12.5" in page.text


STUCK_MODEL = load_fixture("keras315_h5_updates_dropped").path


def test_a_terminal_gets_no_page(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    options = ("--data", "samples.npz", "--dry-run", "--format", "html")
    outcome = run("recalibrate", STUCK_MODEL, *options)
    assert outcome.exit_code == 2
    assert "--format html=FILE.html" in outcome.err
    assert outcome.out == ""


@pytest.mark.parametrize(
    ("report", "output"),
    [
        ("copy.h5", "copy.h5"),
        ("./copy.h5", "copy.h5"),
        ("copy.index", "copy"),
        ("copy.data-00000-of-00001", "copy"),
    ],
)
def test_the_page_is_not_written_over_the_copy(
    report: str, output: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ("--data", "samples.npz", "-o", output, "--format", f"html={report}")
    outcome = run("recalibrate", STUCK_MODEL, *options)
    assert outcome.exit_code == 2
    assert "cannot both be written" in outcome.err


@pytest.mark.parametrize("name", HOSTILE)
def test_names_stay_text(name: str) -> None:
    page = recalibration_page(replace(cured(name), path=name, notes=(name,), kept=(name,)))
    tags = {one.tag for one in recalibration_page(cured("a/b")).elements}
    assert {one.tag for one in page.elements} <= tags | {"code"}
