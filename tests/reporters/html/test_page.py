"""`report`: what the page says, that names stay text, and that the page keeps to itself.

How it behaves in a browser is in test_page_in_browser.
"""

from __future__ import annotations

import base64
import io
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import bninspect
import bninspect.runs.run
from bninspect._version import __version__
from bninspect.model.layer import BNLayer
from bninspect.model.report import CheckpointReport, Report
from bninspect.reporters.escapes import printable
from bninspect.reporters.html.charts import HEIGHT, WIDTH, bins_of, histogram, trend
from bninspect.reporters.html.layers import anchor, distributions, layer_view
from bninspect.reporters.html.page import HtmlReport
from bninspect.reporters.html.rendering import render
from bninspect.rules import RULES
from tests.conftest import CLEAN, FIXTURES, ROOT, STUCK, Fixture, Run, load_fixture
from tests.support.layers_in_memory import bn
from tests.support.pages import (
    Element,
    Page,
    data_of,
    keep_to_themselves,
    scripts_of,
    whole_page,
    write_resnet,
)
from tests.support.reports_in_memory import HOSTILE, checkpoint, finding, hostile_reports, report
from tests.support.table_writer import write_bundle

STOPPED = FIXTURES / "tf1_history_stopped"
NAMES = ["conv1/batch_normalization", "conv2/batch_normalization", "dense/batch_normalization"]
MISSING = FIXTURES / "no_such_checkpoint"

# What could be taken for markup, or turn the text around it.
MARKUP = (
    *HOSTILE,
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "</style><img src=x onerror=alert(1)>",
    "\"><svg onload='alert(1)'>",
    "' onfocus='alert(1)' autofocus x='",
    "<!--",
    "{{ 7 * 7 }}{% raw %}",
    "&lt;b&gt;&amp;",
    "a\u202egnp.exe\u202c\u200f\u2066",
    "javascript:alert(1)",
    "`<b>`",
    "x" * 10_000,
)


def page_of(one: Report) -> Page:
    """The page of a report made in memory."""
    stream = io.StringIO()
    page = HtmlReport(stream)
    page.begin(len(one.checkpoints))
    for item in one.checkpoints:
        page.add(item, None)
    page.end(one)
    return whole_page(stream.getvalue())


def rows(page: Page) -> list[Element]:
    """The rows of the tables of layers; others have no identifier."""
    return [one for one in page.all("tr") if "id" in one.attributes]


def snapshots(page: Page) -> list[dict[str, Any]]:
    """The data of the checkpoints that are shown in full."""
    return [one for one in data_of(page) if "labels" not in one]


def layers_of(page: Page) -> list[dict[str, Any]]:
    """The data of all layers that are shown in full."""
    return [layer for one in snapshots(page) for layer in one["layers"]]


def trends_of(page: Page) -> dict[str, Any]:
    """The data of the only training."""
    (one,) = (one for one in data_of(page) if "labels" in one)
    return one


def names_of(page: Page) -> list[str]:
    return [one.text for one in page.all("a", "name")]


# --- The command ----------------------------------------------------------------------------------


class TestCommand:
    def test_the_file_is_written_and_the_exit_code_is_that_of_check(
        self, run: Run, tmp_path: Path
    ) -> None:
        file = tmp_path / "page.html"
        outcome = run("report", STUCK, "-o", file)
        assert outcome.exit_code == 1
        assert outcome.out == ""
        answer, counts = outcome.err.splitlines()
        assert answer.startswith("FAIL  ")
        assert "3 of 3 BN layers" in answer
        assert counts.startswith("1 checkpoint, 3 BN layers: 3 errors")
        assert str(file) in outcome.err
        assert "3 of 3 BN layers" in whole_page(file.read_text("utf-8")).text

    @pytest.mark.parametrize(
        "arguments",
        [
            [CLEAN],
            [STUCK],
            [STUCK, "--fail-on", "never"],
            [STUCK, "--ignore", "BN1"],
            [STUCK, MISSING],
            [FIXTURES / "keras2_lookalikes"],
            [FIXTURES / "keras2_lookalikes", "--allow-empty"],
            [CLEAN, "--since", CLEAN],
        ],
        ids=lambda arguments: " ".join(Path(str(one)).name for one in arguments),
    )
    def test_the_exit_code_is_that_of_check(self, run: Run, arguments: list[object]) -> None:
        expected = run("check", *arguments)
        outcome = run("report", *arguments)
        assert outcome.exit_code == expected.exit_code
        whole_page(outcome.out)

    def test_quiet_says_nothing(self, run: Run, tmp_path: Path) -> None:
        outcome = run("report", CLEAN, "-q", "-o", tmp_path / "page.html")
        assert (outcome.out, outcome.err) == ("", "")

    def test_a_terminal_gets_no_page(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        outcome = run("report", CLEAN)
        assert outcome.exit_code == 2
        assert "-o FILE.html" in outcome.err
        assert outcome.out == ""

    @pytest.mark.processes
    def test_a_package_that_is_missing_is_named(self, tmp_path: Path) -> None:
        call = "sys.modules['jinja2'] = None; from bninspect.cli.main import run; run(sys.argv[1:])"
        command = [sys.executable, "-c", f"import sys; {call}", "report", CLEAN, "-o"]
        done = subprocess.run(
            [*command, tmp_path / "page.html"],
            check=False,
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 2
        assert done.stderr.startswith("bninspect: the package jinja2 is missing: ")
        assert done.stderr.count("\n") == 1
        assert not [*tmp_path.iterdir()]

    def test_a_checkpoint_is_not_overwritten(self, run: Run, tmp_path: Path) -> None:
        write_bundle(tmp_path / "model.ckpt-1", {"bn/moving_mean": np.zeros(3, "f4")})
        index = tmp_path / "model.ckpt-1.index"
        before = index.read_bytes()
        outcome = run("report", tmp_path, "-o", index)
        assert outcome.exit_code == 2
        assert "is a file of the checkpoint" in outcome.err
        assert index.read_bytes() == before

    def test_an_interrupted_run_is_no_whole_one(
        self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = bninspect.runs.run.check_paths

        def cut_short(*arguments: Any) -> Report:
            return replace(whole(*arguments), interrupted=True)

        monkeypatch.setattr("bninspect.runs.run.check_paths", cut_short)
        file = tmp_path / "page.html"
        outcome = run("report", CLEAN, "-o", file)
        assert outcome.exit_code == 130
        assert "interrupted" in outcome.err
        page = whole_page(file.read_text("utf-8"))
        assert "what was still to be read is not in this report" in page.text

    def test_an_interrupt_while_a_training_is_drawn_loses_none_of_it(
        self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        drawn: list[str] = []

        def interrupted_once(template: str, **values: Any) -> Any:
            drawn.append(template)
            if len(drawn) == 1:
                raise KeyboardInterrupt
            return render(template, **values)

        monkeypatch.setattr("bninspect.reporters.html.page.render", interrupted_once)
        file = tmp_path / "page.html"
        outcome = run("report", STOPPED, CLEAN, "--all-checkpoints", "-o", file)
        assert outcome.exit_code == 130
        page = whole_page(file.read_text("utf-8"))
        assert page.one("h1").text.startswith("FAIL interrupted after 3 checkpoints: ")
        for step in (20, 40, 60):
            assert str(STOPPED / f"model.ckpt-{step}") in steps_of(page)
        assert "3 checkpoints, from step 20 to step 60" in page.text

    @pytest.mark.processes
    def test_several_processes_make_the_same_page(self, tmp_path: Path) -> None:
        made = []
        for jobs in ("1", "2"):
            file = tmp_path / "page.html"
            command = [sys.executable, "-m", "bninspect", "report", STOPPED, STUCK, CLEAN]
            command += ["--all-checkpoints", "--jobs", jobs, "-o", file]
            environment = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}
            subprocess.run(command, check=False, cwd=ROOT, env=environment)
            made.append(file.read_text("utf-8").replace(f"--jobs {jobs}", "--jobs N"))
        assert made[0] == made[1]
        assert len(whole_page(made[0]).all("details", "unit")) == 3


class TestRunDetails:
    """Command, date and version: they stand on the page, and can be made again."""

    def test_they_stand_on_the_page(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
        page = whole_page(run("report", CLEAN, "--momentum", "0.9").out)
        command = next(one for one in page.all("code") if one.attributes.get("id") == "command")
        assert command.text == f"bninspect report {CLEAN} --momentum 0.9"
        assert page.one("p", "made").text == f"bninspect {__version__}, 2023-11-14 22:13 UTC"

    def test_the_page_of_check_has_them(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
        page = whole_page(run("check", CLEAN, "--format", "html").out)
        assert "bninspect check" in page.text
        assert "1970-01-01 00:00 UTC" in page.text

    @pytest.mark.parametrize("epoch", ["soon", "1.5", "9" * 30])
    def test_a_wrong_epoch_is_named(
        self, run: Run, monkeypatch: pytest.MonkeyPatch, epoch: str
    ) -> None:
        monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch)
        outcome = run("report", CLEAN)
        assert outcome.exit_code == 2
        assert outcome.err.startswith("bninspect: SOURCE_DATE_EPOCH: expected a number of seconds")

    def test_no_credentials_are_shown(self, run: Run) -> None:
        """The server does not exist; the page says so, and the command names it."""
        html = run("report", "http://user:secret@127.0.0.1:9/model.h5?token=hidden").out
        assert "127.0.0.1:9/model.h5" in whole_page(html).text
        assert "secret" not in html
        assert "hidden=" not in html.replace("hidden>", "")
        assert "token" not in html

    def test_a_page_made_in_python_has_no_command(self) -> None:
        assert "Command" not in page_of(report(checkpoint("a"))).text


def test_every_fixture_is_shown(run: Run, fixture: Fixture) -> None:
    """Every layer and every finding that the maker of the fixture expects."""
    outcome = run("report", fixture.path, "--isolated", *fixture.expected["options"])
    page = whole_page(outcome.out)
    assert names_of(page) == [layer["name"] for layer in fixture.expected["layers"]]
    told = run("check", fixture.path, "--isolated", "--format=json", *fixture.expected["options"])
    layers = {layer["id"]: layer for layer in layers_of(page)}
    for found in told.json["checkpoints"][0]["findings"]:
        layer = layers[anchor(found["layer"])]
        assert [found["severity"], found["rule"], printable(found["message"])] in layer["findings"]
        row = next(one for one in rows(page) if one.attributes["id"] == layer["id"])
        assert found["rule"] in row.text


# --- What it says ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stuck() -> Page:
    return page_of(bninspect.check(STUCK))


@pytest.fixture(scope="module")
def stopped() -> Page:
    return page_of(bninspect.check(STOPPED, all_checkpoints=True))


def answer(page: Page) -> str:
    return page.one("section", "answer").text


def test_the_verdict_comes_first_with_cause_and_fix(stuck: Page) -> None:
    assert stuck.one("h1").text == (
        "FAIL 3 of 3 BN layers: moving_mean and moving_variance are still at their initial values"
        " (BN101)"
    )
    told = answer(stuck)
    assert "Cause cannot be told from this file" in told
    assert "Fix Copy Run the update ops with every training step" in told
    assert "tf.control_dependencies(update_ops)" in told
    assert stuck.text.startswith(told)


def test_a_fix_is_said_once(stuck: Page, stopped: Page) -> None:
    for page in (stuck, stopped, page_of(bninspect.check(STUCK, CLEAN))):
        fixes = [one.text for one in page.all("dd") if one.attributes.get("id", "").endswith("fix")]
        assert len(fixes) == 1
        assert page.text.count(fixes[0]) == 1


def test_each_button_copies_something(stuck: Page, stopped: Page) -> None:
    for page in (stuck, stopped):
        copied = {one.attributes["data-copy"] for one in page.all("button", "copy")}
        assert len(copied) == len(page.all("button", "copy")) > 2
        assert copied <= {one.attributes.get("id") for one in page.elements}


def test_the_sample_is_for_the_framework_and_the_cause() -> None:
    proved = "keras315_zip_call_without_training"
    told = answer(page_of(bninspect.check(load_fixture(proved).path)))
    assert "def call(self, x, training=None)" in told
    assert "tf.control_dependencies" not in told


def test_the_verdict_leads_to_what_it_means(stuck: Page) -> None:
    link = next(one for one in stuck.all("a") if one.text == "BN101 statistics-never-updated")
    assert link.attributes["href"] == f"#{stuck.one('details', 'rule').attributes['id']}"


def test_a_rule_that_a_fix_sends_to_is_explained(stopped: Page) -> None:
    """Whoever looks at the page may have no program to ask for another rule."""
    assert "bninspect rule BN101" in answer(stopped)
    explained = [one.attributes["id"] for one in stopped.all("details", "rule")]
    assert explained == ["rule-BN101", "rule-BN107"]


def test_a_cause_that_is_proved_is_told_in_words() -> None:
    path = load_fixture("tf1_graph_history_forgotten").path
    assert "Cause update-ops-not-run: " in answer(page_of(bninspect.check(path)))


def test_the_layer_before_is_named_where_the_graph_has_it(run: Run) -> None:
    page = whole_page(run("report", load_fixture("tf1_graph_update_ops_forgotten").path).out)
    assert layers_of(page)[0]["before"] == "conv1/conv2d/Conv2D (Conv2D)"


def test_a_rule_leads_to_the_layers_that_it_hits(stuck: Page) -> None:
    links = [one for one in stuck.all("a") if "li" in one.inside and "section" in one.inside]
    assert [one.text for one in links] == NAMES
    assert [one.attributes["href"] for one in links] == [f"#{anchor(name)}" for name in NAMES]


def test_a_rule_is_explained(stuck: Page) -> None:
    page = stuck.one("details", "rule").text
    for title in ("What it means", "Why it is bad", "Usual causes", "How to fix it"):
        assert title in page
    assert "tf.control_dependencies" in page


# --- Many models ----------------------------------------------------------------------------------


def models(page: Page) -> list[list[str]]:
    """The cells of the table of models."""
    cells: list[list[str]] = []
    for one in page.elements:
        if one.tag == "tr" and one.inside[-2:] == ("table", "tbody"):
            cells.append([])
        elif one.tag in ("td", "th") and one.inside[-2:] == ("tbody", "tr"):
            cells[-1].append(one.text)
    return [row for row in cells if len(row) == 9]


def test_models_come_failing_first_in_a_table(run: Run) -> None:
    page = whole_page(run("report", CLEAN, STUCK, MISSING).out)
    table = models(page)
    assert [row[:6] for row in table] == [
        ["ERROR", str(MISSING), "", "0", "0", "0"],
        ["FAIL", str(STUCK), "BN101", "3", "3", "0"],
        ["PASS", str(CLEAN), "", "3", "0", "0"],
    ]
    units = [one.text.split()[0] for one in page.all("details", "unit")]
    assert units == ["ERROR", "FAIL", "PASS"]


def test_findings_of_many_models_are_grouped_by_rule_cause_and_framework() -> None:
    names = ["tf1_graph_update_ops_forgotten", "tf1_graph_adam_forgotten", "keras2_training_false"]
    page = page_of(bninspect.check(*(load_fixture(name).path for name in names)))
    assert [one.text for one in page.all("summary") if one.inside[-1] == "details"]
    rules = [one.text for one in page.all("details", "of-rule")]
    assert len(rules) == 1
    groups = [one.text for one in page.all("summary") if one.inside[-2:] == ("details", "details")]
    told = [text for text in groups if "checkpoint" in text and ": " in text]
    assert "update-ops-not-run, tf.layers in TensorFlow 1: 4 layers in 2 checkpoints" in told
    assert any(text.startswith("built-with-training-false, Keras 2: ") for text in told)


def test_groups_that_differ_in_the_fix_alone_are_told_apart_by_an_example() -> None:
    paths = [load_fixture(name).path for name in ("frozen_tf1_stuck", STUCK.parent.name)]
    page = page_of(bninspect.check(*paths))
    groups = [one.text for one in page.all("summary") if one.text.startswith("likely ")]
    likely = "likely update-ops-not-run, tf.layers in TensorFlow 1, such as"
    titles = [text.rpartition(": ")[0] for text in groups]
    assert sorted(titles) == sorted(f"{likely} {path}" for path in paths)


def test_the_groups_are_those_of_check_statistics(run: Run) -> None:
    paths = [load_fixture(name).path for name in ("keras2_training_false", "tf1_layers_untrained")]
    page = whole_page(run("report", *paths, STUCK).out)
    text = run("check", *paths, STUCK, "--statistics", "-v").out
    titles = re.findall(r"^(?:error|warning|note) (BN.*: )(.*)$", text, re.MULTILINE)
    assert len(titles) >= 3
    for rule, scope in titles:
        assert rule.strip() in page.text
        assert scope in page.text


def test_a_group_leads_to_its_models() -> None:
    page = page_of(bninspect.check(STUCK, CLEAN))
    (link,) = [
        one for one in page.all("a") if one.inside[-2:] == ("ul", "li") and "section" in one.inside
    ]
    target = link.attributes["href"][1:]
    assert any(one.attributes.get("id") == target for one in page.elements)
    assert STUCK.name in link.text


# --- Layers ---------------------------------------------------------------------------------------


def test_the_map_has_every_statistic_of_every_layer(stuck: Page) -> None:
    assert [(layer["name"], layer["cells"]) for layer in layers_of(stuck)] == [
        (name, "ffee") for name in NAMES
    ]


@pytest.mark.parametrize(
    ("code", "layer", "states"),
    [
        ("BN102", {}, "fine fine error fine"),
        ("BN103", {}, "fine fine fine error"),
        ("BN105", {}, "warning warning warning warning"),
        ("BN301", {"gamma": [1.0, np.nan, 1.0]}, "error fine fine fine"),
        ("BN302", {}, "fine fine fine error"),
        ("BN303", {}, "fine fine note note"),
    ],
)
def test_a_finding_colours_what_it_is_about(code: str, layer: dict, states: str) -> None:
    whole = {"gamma": [1.0] * 3, "beta": [0.0] * 3, "mean": [0.1] * 3, "variance": [2.0] * 3}
    view = layer_view(bn(**whole | layer), [finding(code)])
    assert " ".join(cell.state for cell in view.cells) == states


def test_the_gravest_finding_colours(stuck: Page) -> None:
    both = [finding("BN104"), finding("BN302")]
    assert [cell.state for cell in layer_view(bn(), both).cells][2:] == ["warning", "error"]
    assert [cell.state for cell in layer_view(bn(), (), both).cells][2:] == ["muted", "muted"]


def test_a_layer_shows_its_members_and_what_inference_makes_of_them(stuck: Page) -> None:
    first = layers_of(stuck)[0]
    gamma, beta, mean, variance, scale, shift = first["bins"]
    values = bninspect.check(STUCK).checkpoints[0].layers[0].values
    assert gamma[6] == f"{values['gamma'].minimum:.3g} to {values['gamma'].maximum:.3g}"
    assert (mean[4:7], variance[4:7]) == ([0.0, 4, "0"], [1.0, 4, "1"])
    assert variance[3] == 1  # on a logarithmic axis
    made = values["gamma"].array.astype("f8") / np.sqrt(1 + 1e-3)
    assert scale[6] == f"{made.min():.3g} to {made.max():.3g}"
    assert sum(shift[0]) == sum(beta[0]) == 4
    assert "4 channels, float32" in first["facts"]
    assert "4 stuck" in first["facts"]


def test_the_values_of_channels_are_those_of_the_file(stuck: Page) -> None:
    first = layers_of(stuck)[0]
    values = bninspect.check(STUCK).checkpoints[0].layers[0].values
    assert first["channels"]["moving_mean"] == [0.0, 4]
    packed = base64.b64decode(first["channels"]["gamma"])
    assert np.array_equal(np.frombuffer(packed, "<f4"), values["gamma"].array)


def test_channels_that_do_not_fit_are_left_out_gravest_last(tmp_path: Path) -> None:
    stored: dict[str, np.ndarray] = {}
    for name, channels in (("a", 40_000), ("b", 30_000)):
        stored[f"{name}/moving_mean"] = np.arange(channels, dtype="f4")
        stored[f"{name}/moving_variance"] = np.arange(1, channels + 1, dtype="f4")
    stored["b/moving_variance"][0] = -1
    write_bundle(tmp_path / "model", stored)
    a, b = layers_of(page_of(bninspect.check(tmp_path / "model")))
    assert b["findings"]
    assert "channels" in b
    assert "channels" not in a


def test_dead_channels_are_counted() -> None:
    path = next(FIXTURES.glob("*dead*.json")).stem
    page = page_of(bninspect.check(load_fixture(path).path))
    facts = " ".join(fact for layer in layers_of(page) for fact in layer["facts"])
    dead = [int(one) for one in re.findall(r"(\d+) dead", facts)]
    cells = [one for one in page.all("td") if one.inside[-1] == "tr"]
    assert dead == [int(one.text) for one in cells[5::10]]
    assert sum(dead) > 0


def test_what_is_missing_is_said() -> None:
    page = page_of(bninspect.check(load_fixture("keras2_no_gamma_beta").path))
    layers = layers_of(page)
    assert any(layer["bins"][0] == "not stored" for layer in layers)
    assert any(layer["cells"][0] == "a" for layer in layers)


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"moving_mean": 2, "moving_variance": 3}, "members differ in channels"),
        ({"gamma": 2, "moving_mean": 2}, "needs both statistics"),
    ],
    ids=["mismatch", "half"],
)
def test_why_there_is_no_scale_is_said(
    tmp_path: Path, members: dict[str, int], reason: str
) -> None:
    stored = {f"bn/{role}": np.ones(channels, "f4") for role, channels in members.items()}
    write_bundle(tmp_path / "model", stored)
    (layer,) = layers_of(page_of(bninspect.check(tmp_path / "model")))
    assert layer["bins"][4:] == [reason, reason]


def test_an_unreadable_checkpoint_is_shown(run: Run) -> None:
    page = whole_page(run("report", MISSING, CLEAN).out)
    assert page.one("h1").text.startswith("ERROR 2 checkpoints: 1 unreadable, 1 passed")
    first, second = page.all("details", "unit")
    assert first.text.startswith("ERROR ")
    assert "no_such_checkpoint" in first.text
    assert second.text.startswith("PASS ")


def test_what_is_suppressed_is_shown_as_such(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "bninspect.toml"
    entry = {"layer": NAMES[0], "rules": ["BN101"], "reason": "it is <b>meant</b> to be"}
    lines = [f"{key} = {json.dumps(value)}" for key, value in entry.items()]
    file.write_text("\n".join(["[[suppress]]", *lines]), "utf-8")
    page = whole_page(run("report", STUCK, "--config", file).out)
    article = page.one("article", "muted").text
    assert "Does not count suppressed: it is <b>meant</b> to be" in article
    assert NAMES[0] in article
    assert "not countedBN101" in rows(page)[0].text
    assert "errorBN101" in rows(page)[1].text
    assert layers_of(page)[0]["findings"][0][:2] == ["muted", "BN101"]


def test_what_is_known_is_shown_as_such(run: Run, tmp_path: Path) -> None:
    known = tmp_path / "known.json"
    run("check", STUCK, "--baseline", known, "--update-baseline")
    outcome = run("report", STUCK, "--baseline", known)
    assert outcome.exit_code == 0
    page = whole_page(outcome.out)
    assert "it is in the baseline" in page.one("article", "muted").text
    assert "baseline: 3 known findings, 0 gone" in page.text


def test_a_link_to_a_layer_stays_the_same() -> None:
    first, second = (page_of(bninspect.check(path)) for path in (STUCK, CLEAN))
    ids = [[one.attributes["id"] for one in rows(page)] for page in (first, second)]
    assert ids[0] == ids[1] == [anchor(name) for name in NAMES]


def test_layers_of_several_checkpoints_have_their_own_links() -> None:
    page = page_of(bninspect.check(STUCK, CLEAN))
    assert names_of(page) == NAMES * 2


# --- Over time ------------------------------------------------------------------------------------


def steps_of(page: Page) -> str:
    """What the page says of the checkpoints of a training, one by one."""
    return " ".join(one.text for one in page.all("details", "step"))


def test_a_training_is_shown_over_time(stopped: Page) -> None:
    """The statistics of this training stood still from step 40 on, which is how it was made."""
    assert "3 checkpoints, from step 20 to step 60" in stopped.text
    assert "Layers whose statistics stood still: 3 of 3 since step 40." in stopped.text
    history = bninspect.list_layers(STOPPED, all_checkpoints=True).checkpoints
    first, last = (item.layers[0].values["moving_mean"].mean for item in (history[0], history[-1]))
    time = trends_of(stopped)
    assert time["labels"] == ["step 20", "step 40", "step 60"]
    assert time["at"] == [20, 40, 60]
    at, means, lows, highs, still, description = time["layers"][0]["trends"][0]
    assert description == (
        f"Mean of the channels: {first:.3g} at step 20; {last:.3g} at step 60;"
        " stood still from step 40 to step 60"
    )
    assert (at, still) == ([0, 1, 2], [[1, 2]])
    assert all(low <= mean <= high for low, mean, high in zip(lows, means, highs, strict=True))
    table = [one.text for one in stopped.all("tr") if one.text.endswith("since step 40")]
    assert len(table) == 3


def test_trends_come_first_and_passed_steps_are_folded(stopped: Page) -> None:
    titles = [one.text for one in stopped.all("h2")]
    assert titles[0] == "Over time"
    assert titles.index("Checkpoints") < titles.index("Layers")
    passed = stopped.one("details", "passed")
    assert "open" not in passed.attributes
    assert passed.text.startswith("PASS 2 checkpoints")
    assert "model.ckpt-20" in passed.text
    assert "model.ckpt-60" not in passed.text.replace("ckpt-20", "")


def test_a_layer_that_stood_still_comes_first(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        stored: dict[str, np.ndarray] = {"global_step": np.int64(step)}  # type: ignore[dict-item]
        for name in ("a", "b"):
            moved = step if name == "a" else 1
            stored[f"{name}/gamma"] = np.full(3, step, "f4")
            stored[f"{name}/moving_mean"] = np.full(3, moved, "f4")
            stored[f"{name}/moving_variance"] = np.full(3, 1 + moved, "f4")
        write_bundle(tmp_path / f"model.ckpt-{step}", stored)
    page = page_of(bninspect.check(tmp_path, all_checkpoints=True))
    trends = [one for one in page.all("tr") if "data-place" in one.attributes]
    assert [(one.text[0], one.attributes["data-place"]) for one in trends] == [
        ("b", "1"),
        ("a", "0"),
    ]


def test_earlier_checkpoints_have_their_distributions(stopped: Page) -> None:
    earlier = trends_of(stopped)["earlier"]
    assert [step["label"] for step in earlier] == ["step 20", "step 40"]
    newest = layers_of(stopped)[0]["bins"][:4]
    assert earlier[1]["bins"][0][2:4] == newest[2:4]  # stood still since
    assert earlier[0]["bins"][0][2:4] != newest[2:4]


def test_of_a_long_training_the_first_checkpoint_can_be_compared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bninspect.reporters.html.data._SNAPSHOTS", 8)
    page = page_of(bninspect.check(STOPPED, all_checkpoints=True))
    assert [step["label"] for step in trends_of(page)["earlier"]] == ["step 20"]


def test_named_checkpoints_of_a_training_are_drawn_and_judged_over_time(run: Run) -> None:
    outcome = run("report", *(STOPPED / f"model.ckpt-{step}" for step in (60, 40)))
    page = whole_page(outcome.out)
    assert "2 checkpoints, from step 40 to step 60" in page.text
    assert "BN107" in page.text
    assert outcome.exit_code == 1


def test_trends_are_drawn_without_the_rule_that_judges_them(run: Run) -> None:
    outcome = run("report", STOPPED, "--all-checkpoints", "--ignore", "BN107")
    assert "3 checkpoints, from step 20 to step 60" in whole_page(outcome.out).text
    assert outcome.exit_code == 0


def test_a_training_that_never_moved_says_so() -> None:
    page = page_of(bninspect.check(FIXTURES / "tf1_history_forgotten", all_checkpoints=True))
    table = [one.text for one in page.all("tr") if "data-place" in one.attributes]
    assert any(row.endswith("never moved") for row in table)


def test_the_newest_of_a_training_is_shown_in_full(stopped: Page) -> None:
    assert names_of(stopped) == NAMES
    (snapshot,) = snapshots(stopped)
    assert snapshot["label"] == str(STOPPED / "model.ckpt-60")


def test_each_training_is_a_model() -> None:
    histories = (FIXTURES / "tf1_history_correct", STOPPED)
    page = page_of(bninspect.check(*histories, all_checkpoints=True))
    assert len(page.all("details", "unit")) == 2
    failed, passed = models(page)
    assert failed[0] == "FAIL"
    assert failed[8] == "20 to 60"
    assert passed[0] == "PASS"


def test_a_training_that_moves_never_stands_still() -> None:
    page = page_of(bninspect.check(FIXTURES / "tf1_history_correct", all_checkpoints=True))
    trends = [trend for layer in trends_of(page)["layers"] for trend in layer["trends"]]
    assert trends
    assert not any(trend[4] or "stood still" in trend[5] for trend in trends)
    assert "No layer's statistics stood still." in page.text


def test_other_models_make_no_trend(run: Run, tmp_path: Path) -> None:
    for name, channels in (("net50", 3), ("net101", 4)):
        roles = ("gamma", "beta", "moving_mean", "moving_variance")
        write_bundle(tmp_path / name, {f"bn/{role}": np.ones(channels, "f4") for role in roles})
    page = whole_page(run("report", tmp_path / "net50", tmp_path / "net101").out)
    assert "Over time" not in page.text
    assert names_of(page) == ["bn", "bn"]


def test_an_unreadable_one_does_not_end_a_training(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        stored = {
            "bn/moving_mean": np.full(3, step, "f4"),
            "bn/moving_variance": np.ones(3, "f4"),
            "global_step": np.int64(step),
        }
        write_bundle(tmp_path / f"model.ckpt-{step}", stored)
    (tmp_path / "model.ckpt-2.data-00000-of-00001").write_bytes(b"")
    found = bninspect.check(tmp_path, all_checkpoints=True)
    page = page_of(found)
    assert "2 checkpoints, from step 1 to step 3" in page.text
    assert "ERROR" in [one.text.split()[0] for one in page.all("details", "step")]


def test_an_unreadable_model_is_none_of_the_one_before(tmp_path: Path) -> None:
    for number in (1, 2):
        prefix = tmp_path / f"model_{number}" / "model.ckpt"
        prefix.parent.mkdir()
        stored = {f"bn/{role}": np.full(3, 2, "f4") for role in ("moving_mean", "moving_variance")}
        write_bundle(prefix, stored)
    (tmp_path / "model_2" / "model.ckpt.data-00000-of-00001").write_bytes(b"")
    page = page_of(bninspect.check(tmp_path))
    assert [row[0] for row in models(page)] == ["ERROR", "PASS"]


# --- Charts ---------------------------------------------------------------------------------------


def test_a_histogram_is_drawn_bin_by_bin() -> None:
    drawn = histogram(bins_of(np.array([0.0, 0.0, 24.0, 12.5]), initial=0.0, at_initial=2))
    assert drawn.bars == f"M0 36V2H5V36H60V19H65V36H115V19H120V{HEIGHT}z"
    assert drawn.stuck == "M0 36v-34h5V36z"
    assert drawn.initial == 0.0


@pytest.mark.parametrize(
    ("values", "logarithmic"),
    [([1e-4, 1e-2, 1.0], True), ([0.5, 1.0, 2.0], False), ([0.0, 1.0, 1e6], False)],
)
def test_the_axis_is_logarithmic_where_it_serves(values: list[float], logarithmic: bool) -> None:
    assert bins_of(np.array(values)).logarithmic == logarithmic


@pytest.mark.parametrize(
    ("values", "initial", "where", "beyond"),
    [
        ([0.0, 2.0], 1.0, WIDTH / 2, ""),
        ([5.0, 5.0], 1.0, 0.0, ""),
        ([5.0, 5.1], 1.0, None, "left"),
        ([-5.0, -5.1], 1.0, None, "right"),
        ([1e-4, 1e-2], 1.0, float(WIDTH), ""),
        ([1e-4, 1e-2], 0.0, None, "left"),
        ([1.0, 2.0], None, None, ""),
    ],
)
def test_the_initial_value_is_marked(
    values: list[float], initial: float | None, where: float | None, beyond: str
) -> None:
    drawn = histogram(bins_of(np.array(values), initial, 0))
    assert (drawn.initial, drawn.beyond) == (where, beyond)


_floats = arrays.arrays(
    st.sampled_from([np.float64, np.float32, np.float16]),
    st.integers(0, 40),
    elements={"allow_nan": True, "allow_infinity": True},
)


def _numbers(path: str) -> list[float]:
    return [float(one) for one in re.findall(r"-?[\d.]+(?:e-?\d+)?", path)]


@pytest.mark.filterwarnings("error")
@given(_floats, st.none() | st.floats(width=32))
def test_any_values_make_a_histogram_within_its_frame(array, initial) -> None:
    bins = bins_of(array, initial, 0)
    drawn = histogram(bins)
    assert sum(bins.counts) + bins.lost == array.size
    assert all(-HEIGHT <= one <= WIDTH for one in _numbers(drawn.bars + drawn.stuck))
    assert drawn.initial is None or 0 <= drawn.initial <= WIDTH
    assert bool(drawn.bars) == bool(np.isfinite(array).any())
    lost = int((~np.isfinite(array)).sum())
    assert not lost or str(lost) in drawn.description


_value = st.none() | st.floats()


@pytest.mark.parametrize(
    ("variances", "logarithmic"),
    [([0.5, 1.0, 2.0], 1), ([0.0, 1.0, 2.0], 0), ([-1.0, 1.0, 2.0], 0)],
)
def test_variances_are_on_a_logarithmic_axis(variances: list[float], logarithmic: int) -> None:
    drawn = dict(distributions(bn(mean=[0.1, 0.2, 0.3], variance=variances)))
    assert drawn["moving_variance"] is not None
    assert drawn["moving_variance"].logarithmic == logarithmic


@pytest.mark.filterwarnings("error")
@given(st.lists(st.tuples(_value, _value, st.none() | st.booleans()), min_size=2, max_size=9))
def test_any_course_makes_a_trend(course) -> None:
    means = [one[0] for one in course]
    ranges = [
        None if None in (low, high) else (min(low, high), max(low, high)) for low, high, _ in course
    ]
    moved = [one[2] for one in course][1:]
    labels = [f"step {place}" for place in range(len(course))]
    drawn = trend(means, ranges, [float(place) for place in range(len(course))], moved, labels)
    assert drawn.at == tuple(range(len(course)))
    for told, mean in zip(drawn.means, means, strict=True):
        assert told == (mean if mean is not None and np.isfinite(mean) else None)
    if any(each is not None for each in (*drawn.means, *drawn.lows)):
        assert drawn.description.count("stood still") == len(drawn.still)


def test_a_trend_over_many_checkpoints_is_drawn_no_finer_than_it_is_wide() -> None:
    count = 5_000
    means = [float(place) for place in range(count)]
    ranges = [(mean - 1, mean + 1) for mean in means]
    ranges[2_500] = (-1_000.0, 9_000.0)  # a single one that goes far is seen
    labels = [f"step {place}" for place in range(count)]
    drawn = trend(means, ranges, means, [True] * (count - 1), labels)
    assert len(drawn.at) == len(drawn.means) == len(drawn.lows) <= WIDTH + 1
    assert drawn.at[-1] == count - 1
    assert min(filter(None, drawn.lows)) == -1_000.0
    assert max(filter(None, drawn.highs)) == 9_000.0
    means[2_500] = np.nan  # and so is a gap
    drawn = trend(means, ranges, list(range(count)), [True] * (count - 1), labels)
    assert drawn.means.count(None) == 1


# --- Names ----------------------------------------------------------------------------------------

_TAGS = {
    *("noscript",),
    *("html", "head", "meta", "title", "style", "script", "body", "main", "div", "section", "nav"),
    *("article", "h1", "h2", "h3", "h4", "p", "a", "b", "i", "bdi", "wbr", "code", "pre", "br"),
    *("ul", "ol", "li", "dl", "dt", "dd", "details", "summary", "table", "thead", "tbody", "tr"),
    *("th", "td", "figure", "figcaption", "svg", "path", "form", "label", "input", "select"),
    *("option", "button", "output", "footer", "small"),
}


@settings(max_examples=40, deadline=None)
@given(hostile_reports)
def test_hostile_texts_make_no_markup(one: Report) -> None:
    page = page_of(one)
    assert {element.tag for element in page.elements} <= _TAGS
    assert len(scripts_of(page)) == len(page.all("style")) == 1
    data_of(page)
    for item in one.checkpoints:
        assert " ".join(printable(item.path).split()) in page.text


@pytest.mark.parametrize("name", MARKUP, ids=lambda name: ascii(name)[:30])
def test_a_hostile_name_stays_text(name: str) -> None:
    harmless = page_of(report(checkpoint("a", [finding(layer="bn", evidence=("bn",))], ["bn"])))
    made = checkpoint(name, [finding(layer=name, evidence=(name,))], [name])
    page = page_of(report(made))
    extra = ("wbr", "code")
    told = [one.tag for one in page.elements if one.tag not in extra]
    assert told == [one.tag for one in harmless.elements if one.tag not in extra]
    shown = "".join(printable(name).split())
    assert ["".join(one.text.split()) for one in page.all("a", "name")] == [shown]
    assert not re.search("[\u202a-\u202e\u2066-\u2069\u200e\u200f]", page.html)


def test_a_name_of_blanks_can_be_seen() -> None:
    page = page_of(report(checkpoint("a", [finding(layer=" ")], [" "])))
    assert names_of(page) == ["' '"]
    assert all(one.text for one in page.all("a") if "map" not in one.inside and one.pieces)


# --- Size -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("stuck_", [False, True])
def test_a_resnet_152_stays_below_a_megabyte(run: Run, tmp_path: Path, stuck_: bool) -> None:
    layers = write_resnet(tmp_path / "resnet", stuck=stuck_)
    assert layers == 155
    html = run("report", tmp_path / "resnet").out
    assert len(rows(whole_page(html))) == layers
    assert len(html.encode()) < 1_000_000


# --- In a notebook --------------------------------------------------------------------------------


def test_a_notebook_shows_a_report() -> None:
    shown = Page(bninspect.check(STUCK)._repr_html_())
    keep_to_themselves(shown)
    assert not shown.all("script")
    assert not [one for one in shown.elements if "id" in one.attributes or one.tag == "a"]
    text = shown.elements[0].text
    assert "FAIL" in text
    assert "BN101 statistics-never-updated: 3 layers" in text
    assert all(name in text for name in NAMES)
    assert len(shown.all("figure")) == 18


def test_a_notebook_shows_a_layer() -> None:
    layer = bninspect.check(STUCK).checkpoints[0].layers[0]
    shown = Page(layer._repr_html_())
    keep_to_themselves(shown)
    assert layer._repr_html_() == bninspect.as_html(layer)
    assert NAMES[0] in shown.elements[0].text
    captions = [one.text.split()[0] for one in shown.all("figcaption")]
    assert captions == ["gamma", "beta", "moving_mean", "moving_variance", "scale", "shift"]


def test_a_notebook_shows_a_layer_whose_values_were_not_read() -> None:
    shown = Page(bninspect.as_html(BNLayer("bn", "tf.layers", {})))
    assert "gamma not stored" in shown.elements[0].text


def test_a_notebook_shows_the_head_of_a_large_report(tmp_path: Path) -> None:
    write_resnet(tmp_path / "resnet")
    one = bninspect.check(tmp_path / "resnet").checkpoints[0]
    shown = Page(bninspect.as_html(Report((one,) * 30, RULES)))
    text = shown.elements[0].text
    assert "115 more layers: bninspect report shows all." in text
    assert "20 more checkpoints: bninspect report shows all." in text


@settings(max_examples=20, deadline=None)
@given(hostile_reports)
def test_hostile_texts_make_no_markup_in_a_notebook(one: Report) -> None:
    shown = Page(bninspect.as_html(one))
    keep_to_themselves(shown)
    assert {element.tag for element in shown.elements} <= _TAGS - {"script"}


def test_nothing_is_no_report() -> None:
    assert "no checkpoint was looked at" in Page(bninspect.as_html(Report(()))).elements[0].text
    assert isinstance(page_of(Report((CheckpointReport("x"),), RULES)), Page)
